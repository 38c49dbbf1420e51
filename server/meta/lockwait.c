/* SPDX-License-Identifier: MIT */
/*
 * lockwait.c - file locks: LOCK requests that wait, deadlocks, cancelling.
 *
 * Locks are replicated state; who waits is the leader's memory, for its client repeats the request if the
 * leader changes. A LOCK holds the key (inode, LOCK_KEY), so the test against the applied
 * state still holds when its record is applied; one that finds a conflict lets go of the key and waits until
 * any lock of the inode has changed. What is granted is logged with the slot it came with.
 */
#include "server/meta/shard_i.h"

#define LOCK_KEY 1u /* as name_hash; those of names begin at 3 */

static bool lock_req(const struct shard_op *op, struct cfs_lock_req *ret_req)
{
	if (op->len != sizeof(*ret_req))
		return false;
	memcpy(ret_req, op->body, sizeof(*ret_req));
	return true;
}

/* does `who` stand in the list? else it is put at its end, if there is room */
static bool seen(struct cfs_lock_holder *list, unsigned *n, const struct cfs_lock_holder *who)
{
	for (unsigned i = 0; i < *n; i++) {
		if (list[i].session == who->session && list[i].owner == who->owner)
			return true;
	}
	if (*n < SHARD_LOCK_CHAIN_MAX)
		list[(*n)++] = *who;
	return false;
}

/* add to the list whoever (session, owner) waits for */
static void follow(struct cfs_shard *s, struct cfs_lock_holder *list, unsigned *n, const struct cfs_lock_holder *who)
{
	struct cfs_lock_holder in_the_way[SHARD_LOCK_BLOCKERS];
	struct shard_sess *sess = sess_find(s, who->session);
	struct cfs_lock_req req;
	struct cfs_list *pos;
	int k;

	if (!sess)
		return;
	cfs_list_for_each(pos, &sess->ops) {
		const struct shard_op *op = cfs_list_entry(pos, struct shard_op, sess_link);

		if (op->state != OP_LOCKWAIT || !lock_req(op, &req) || req.space != CFS_LOCK_POSIX ||
		    cfs_le64_to_cpu(req.owner) != who->owner)
			continue;
		k = cfs_meta_lock_blockers(s->p.meta, sess->id, &req, in_the_way, SHARD_LOCK_BLOCKERS);
		for (int i = 0; i < k; i++)
			seen(list, n, &in_the_way[i]);
	}
}

/*
 * Would waiting close a circle? From those in the way on to those they wait for, as posix_locks_deadlock() of
 * Linux does, but along all edges; what lies beyond SHARD_LOCK_CHAIN_MAX owners is not found.
 */
static bool deadlock(struct cfs_shard *s, const struct shard_op *op, const struct cfs_lock_req *req,
		     const struct cfs_lock_holder *first, unsigned n_first)
{
	const struct cfs_lock_holder me = { .session = op->sess->id, .owner = cfs_le64_to_cpu(req->owner) };
	struct cfs_lock_holder *list = s->lock_chain;
	unsigned n = 0;

	for (unsigned i = 0; i < n_first; i++)
		seen(list, &n, &first[i]);
	for (unsigned i = 0; i < n; i++) {
		if (list[i].session == me.session && list[i].owner == me.owner)
			return true;
		follow(s, list, &n, &list[i]);
	}
	return false;
}

void lock_start(struct cfs_shard *s, struct shard_op *op)
{
	struct cfs_fp_key key = { .name_hash = LOCK_KEY, .exclusive = true };
	struct cfs_lock_holder in_the_way[SHARD_LOCK_BLOCKERS];
	struct cfs_lock_req req;
	int n, rc;

	if (!lock_req(op, &req) || req.kind < CFS_LOCK_READ || req.kind > CFS_LOCK_UNLOCK) {
		op_fail(s, op, CFS_E_PROTO);
		return;
	}
	op->ino = key.ino = cfs_le64_to_cpu(req.ino);
	rc = keys_acquire(s, op, &key, 1);
	if (rc == -EAGAIN)
		return;
	if (rc) {
		op_abort(s, op, CFS_E_GRACE);
		return;
	}
	if (req.kind == CFS_LOCK_UNLOCK || !req.wait) {
		op_log(s, op);
		return;
	}
	n = cfs_meta_lock_blockers(s->p.meta, op->sess->id, &req, in_the_way, SHARD_LOCK_BLOCKERS);
	if (n <= 0) {
		op_log(s, op); /* granted, or refused by the state */
		return;
	}
	keys_release(s, op);
	if (req.space == CFS_LOCK_POSIX && deadlock(s, op, &req, in_the_way, (unsigned)n)) {
		op_fail(s, op, EDEADLK);
		return;
	}
	if (inoq_join(&s->lockqs, op, op->ino)) {
		op_abort(s, op, CFS_E_GRACE);
		return;
	}
	op->state = OP_LOCKWAIT;
	s->st.lock_waiters++;
}

/* CFS_LOCK_CANCEL. One that is granted already stays granted: the client sees its reply and unlocks */
void lock_cancel(struct cfs_shard *s, struct shard_conn *c, const struct cfs_msg *msg)
{
	const struct cfs_lock_req *want = msg->body;
	struct cfs_lock_req req;
	struct cfs_list *pos;

	cfs_list_for_each(pos, &c->sess->ops) {
		struct shard_op *op = cfs_list_entry(pos, struct shard_op, sess_link);

		/* a late copy of it must not end what the owner asked for since: its unlocking, or a try */
		if (op->opcode != CFS_OP_LOCK || (op->state != OP_LOCKWAIT && op->state != OP_KEYS) ||
		    !lock_req(op, &req) || !req.wait || req.kind == CFS_LOCK_UNLOCK)
			continue;
		if (req.ino == want->ino && req.owner == want->owner && req.space == want->space &&
		    req.start == want->start && req.end == want->end) {
			op_fail(s, op, EINTR);
			break;
		}
	}
	shard_reply_hdr(s, c, &msg->hdr, 0, NULL, 0);
}

void lock_refused(struct cfs_shard *s, const struct shard_op *op)
{
	struct cfs_lock_holder in_the_way[SHARD_LOCK_BLOCKERS];
	struct cfs_lock_req req;
	int n = op->sess && lock_req(op, &req) ?
		cfs_meta_lock_blockers(s->p.meta, op->sess->id, &req, in_the_way, SHARD_LOCK_BLOCKERS) : 0;

	for (int i = 0; i < n; i++) {
		struct shard_sess *sess = sess_find(s, in_the_way[i].session);

		if (sess)
			sess->lock_refused = true;
	}
}

/* looks at everybody who waits, so it is asked only about sessions whose deadline has passed */
bool lock_awaited(struct cfs_shard *s, const struct shard_sess *sess)
{
	struct cfs_lock_holder in_the_way[SHARD_LOCK_BLOCKERS];
	struct cfs_lock_req req;

	for (uint64_t b = 0; s->lockqs.n && b <= s->lockqs.mask; b++) {
		for (struct cfs_hnode *h = s->lockqs.buckets[b]; h; h = h->next) {
			struct shard_inoq *q = cfs_container_of(h, struct shard_inoq, node);
			struct cfs_list *pos;

			cfs_list_for_each(pos, &q->ops) {
				const struct shard_op *op = cfs_list_entry(pos, struct shard_op, q_link);
				int n = op->sess && lock_req(op, &req) ?
					cfs_meta_lock_blockers(s->p.meta, op->sess->id, &req, in_the_way,
							       SHARD_LOCK_BLOCKERS) : 0;

				for (int i = 0; i < n; i++)
					if (in_the_way[i].session == sess->id)
						return true;
			}
		}
	}
	return false;
}

static void wake_all(struct cfs_shard *s, struct shard_inoq *q)
{
	struct cfs_list *pos, *tmp;

	cfs_list_for_each_safe(pos, tmp, &q->ops) {
		bool last = tmp == &q->ops;

		op_wake(s, cfs_list_entry(pos, struct shard_op, q_link));
		if (last)
			break; /* the queue goes with the last one */
	}
}

/* locks of this inode (0: of any) have changed */
void lock_recheck(struct cfs_shard *s, uint64_t ino)
{
	struct shard_inoq *q;
	struct cfs_hnode *n, *next;

	if (ino) {
		q = inoq_find(&s->lockqs, ino);
		if (q)
			wake_all(s, q);
		return;
	}
	for (uint64_t i = 0; s->lockqs.n && i <= s->lockqs.mask; i++) {
		for (n = s->lockqs.buckets[i]; n; n = next) {
			next = n->next;
			wake_all(s, cfs_container_of(n, struct shard_inoq, node));
		}
	}
}
