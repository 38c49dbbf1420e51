/* SPDX-License-Identifier: MIT */
/*
 * shard_keys.c - keys of the requests in progress. A key is an inode or a (directory, name); a mutation
 * holds those of its footprint, shared or exclusive, from before its recalls until it is applied.
 *
 * All keys are taken at once or none, and a request that waits holds none, so nobody waits in a circle. A
 * request waits for the first key it cannot have, behind older ones; when woken it computes its
 * footprint anew, because the state may have changed. Only the oldest waiter of a key is woken; it
 * passes the wake on (shard_run) if it did not take the key, or took it shared.
 *
 * COMMIT of a session that is asked to flush (docs/leases.md, "Flushing") goes past requests that wait for
 * recalls: they wait for that flush, perhaps by way of others.
 */
#include "server/meta/shard_i.h"

static uint64_t key_hash(uint64_t ino, uint64_t name_hash)
{
	return cfs_hash_u64(ino * 0x9e3779b97f4a7c15ull + name_hash);
}

static struct shard_key *key_find(struct cfs_shard *s, uint64_t ino, uint64_t name_hash)
{
	struct cfs_hnode *n;

	for (n = cfs_htable_chain(&s->keys, key_hash(ino, name_hash)); n; n = n->next) {
		struct shard_key *k = cfs_container_of(n, struct shard_key, node);

		if (k->ino == ino && k->name_hash == name_hash)
			return k;
	}
	return NULL;
}

static struct shard_key *key_make(struct cfs_shard *s, uint64_t ino, uint64_t name_hash)
{
	struct shard_key *k = key_find(s, ino, name_hash);

	if (k)
		return k;
	k = cfs_slab_get(&s->key_pool);
	if (!k)
		return NULL;
	k->ino = ino;
	k->name_hash = name_hash;
	cfs_list_init(&k->holders);
	cfs_list_init(&k->waiters);
	cfs_htable_add(&s->keys, &k->node, key_hash(ino, name_hash));
	return k;
}

static void key_put(struct cfs_shard *s, struct shard_key *k)
{
	if (!cfs_list_empty(&k->holders) || !cfs_list_empty(&k->waiters))
		return;
	cfs_htable_del(&s->keys, &k->node);
	cfs_slab_put(&s->key_pool, k);
}

static bool flushes(const struct shard_op *op)
{
	return op->opcode == CFS_OP_COMMIT && op->sess && op->sess->data_breaks;
}

static bool held_against(const struct shard_key *k, const struct shard_op *op, bool exclusive)
{
	struct cfs_list *pos;

	if (!exclusive && !k->n_exclusive)
		return false;
	cfs_list_for_each(pos, &k->holders) {
		const struct shard_opkey *h = cfs_list_entry(pos, struct shard_opkey, link);

		if (h->op == op || !(exclusive || h->exclusive))
			continue;
		if (h->op->state == OP_BREAK && flushes(op))
			continue;
		return true;
	}
	return false;
}

static bool older_waits(const struct shard_key *k, const struct shard_op *op, bool exclusive)
{
	struct cfs_list *pos;

	if (flushes(op))
		return false;
	cfs_list_for_each(pos, &k->waiters) {
		const struct shard_op *w = cfs_list_entry(pos, struct shard_op, wait_link);

		if (w->order >= op->order)
			break;
		if (exclusive || w->wait_excl)
			return true;
	}
	return false;
}

void keys_wait(struct cfs_shard *s, struct shard_op *op, uint64_t ino, uint64_t name_hash, bool exclusive)
{
	struct shard_key *k = key_find(s, ino, name_hash);
	struct cfs_list *pos;

	CFS_ASSERT(k && op->state == OP_RUN);
	for (pos = k->waiters.prev; pos != &k->waiters; pos = pos->prev) {
		if (cfs_list_entry(pos, struct shard_op, wait_link)->order < op->order)
			break;
	}
	cfs_list_add_head(pos, &op->wait_link);
	op->wait_ino = ino;
	op->wait_hash = name_hash;
	op->wait_excl = exclusive;
	op->state = OP_KEYS;
	s->st.waits++;
}

/* leaves the queue; the caller gives it another state */
void keys_unwait(struct cfs_shard *s, struct shard_op *op)
{
	struct shard_key *k = key_find(s, op->wait_ino, op->wait_hash);

	CFS_ASSERT(k && op->state == OP_KEYS);
	cfs_list_del(&op->wait_link);
	key_put(s, k);
	op->state = OP_RUN;
}

/**
 * keys_acquire() - take all keys of a footprint, or none.
 * Return: 0; -EAGAIN: `op` waits for one of them now and will be run again; -ENOMEM.
 */
int keys_acquire(struct cfs_shard *s, struct shard_op *op, const struct cfs_fp_key *keys, unsigned n)
{
	struct shard_key *k;
	unsigned i;

	CFS_ASSERT(!op->n_keys);
	for (i = 0; i < n; i++) {
		k = key_find(s, keys[i].ino, keys[i].name_hash);
		if (k && (held_against(k, op, keys[i].exclusive) || older_waits(k, op, keys[i].exclusive))) {
			keys_wait(s, op, keys[i].ino, keys[i].name_hash, keys[i].exclusive);
			return -EAGAIN;
		}
	}
	op->keys = op->ikeys;
	if (n > SHARD_OP_KEYS) {
		op->keys = malloc(n * sizeof(*op->keys));
		if (!op->keys) {
			op->keys = op->ikeys;
			return -ENOMEM;
		}
	}
	for (i = 0; i < n; i++) {
		struct shard_opkey *ok = &op->keys[i];

		k = key_make(s, keys[i].ino, keys[i].name_hash);
		if (!k) {
			keys_release(s, op);
			return -ENOMEM;
		}
		ok->key = k;
		ok->op = op;
		ok->exclusive = keys[i].exclusive;
		k->n_exclusive += keys[i].exclusive;
		cfs_list_add_tail(&k->holders, &ok->link);
		op->n_keys++;
	}
	return 0;
}

/* an OPEN waits for other sessions' requests only; those behind it wait for it all the same */
static bool must_wait(struct cfs_shard *s, const struct shard_key *k, const struct shard_op *w)
{
	return w->opcode == CFS_OP_OPEN ? keys_foreign(s, k->ino, w->sess) : held_against(k, w, w->wait_excl);
}

/* let the oldest waiter try, if it may have the key now, and who flushes in any case; may free the key */
static void key_kick(struct cfs_shard *s, struct shard_key *k)
{
	struct cfs_list *pos, *tmp;
	struct shard_op *w;
	bool oldest = true, last;

	cfs_list_for_each_safe(pos, tmp, &k->waiters) {
		w = cfs_list_entry(pos, struct shard_op, wait_link);
		last = tmp == &k->waiters || !s->data_breaks;
		if ((oldest || flushes(w)) && !must_wait(s, k, w))
			op_wake(s, w);
		oldest = false;
		if (last)
			break;
	}
}

void keys_kick(struct cfs_shard *s, uint64_t ino, uint64_t name_hash)
{
	struct shard_key *k = key_find(s, ino, name_hash);

	if (k)
		key_kick(s, k);
}

void keys_release(struct cfs_shard *s, struct shard_op *op)
{
	unsigned i;

	for (i = 0; i < op->n_keys; i++) {
		struct shard_key *k = op->keys[i].key;

		cfs_list_del(&op->keys[i].link);
		k->n_exclusive -= op->keys[i].exclusive;
		if (cfs_list_empty(&k->waiters))
			key_put(s, k);
		else
			key_kick(s, k);
	}
	op->n_keys = 0;
	if (op->keys != op->ikeys)
		free(op->keys);
	op->keys = op->ikeys;
}

/* is a mutation under way on it, other than `except`? */
bool keys_busy(struct cfs_shard *s, uint64_t ino, uint64_t name_hash, const struct shard_op *except)
{
	struct shard_key *k = key_find(s, ino, name_hash);
	struct cfs_list *pos;

	if (!k)
		return false;
	cfs_list_for_each(pos, &k->holders) {
		if (cfs_list_entry(pos, struct shard_opkey, link)->op != except)
			return true;
	}
	return false;
}

/* is a mutation of another session under way on this inode, or one of whomever that takes its last name? */
bool keys_foreign(struct cfs_shard *s, uint64_t ino, const struct shard_sess *sess)
{
	struct shard_key *k = key_find(s, ino, 0);
	struct cfs_list *pos;

	if (!k)
		return false;
	cfs_list_for_each(pos, &k->holders) {
		const struct shard_op *op = cfs_list_entry(pos, struct shard_opkey, link)->op;

		if (op->sess != sess || op->victim == ino)
			return true;
	}
	return false;
}
