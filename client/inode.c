// SPDX-License-Identifier: MIT
/* inode.c - see inode.h. A hash table in shards; chains are short because only what is open is in it. */
#include "client/inode.h"

#include "base/hash.h"
#include "client/persist.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#define SHARDS	64u
#define BUCKETS	256u	/* of a shard */

struct inode_shard {
	pthread_mutex_t lock;
	struct cfs_inode *buckets[BUCKETS];
};

#define REMOVED_MAX 256u

struct cfs_inodes {
	uint64_t n;			/* atomic */
	pthread_mutex_t removed_lock;
	struct cfs_attr removed[REMOVED_MAX];
	unsigned next_removed;
	struct inode_shard shards[SHARDS];
};

static struct inode_shard *shard_of(struct cfs_client *c, uint64_t ino, struct cfs_inode ***ret_bucket)
{
	uint64_t h = cfs_hash_u64(ino);
	struct inode_shard *s = &c->inodes->shards[h % SHARDS];

	*ret_bucket = &s->buckets[(h / SHARDS) % BUCKETS];
	return s;
}

int cfs_inodes_create(struct cfs_client *c, struct cfs_inodes **ret_t)
{
	struct cfs_inodes *t = calloc(1, sizeof(*t));

	(void)c;
	if (!t)
		return -ENOMEM;
	pthread_mutex_init(&t->removed_lock, NULL);
	for (unsigned i = 0; i < SHARDS; i++)
		pthread_mutex_init(&t->shards[i].lock, NULL);
	*ret_t = t;
	return 0;
}

static void inode_free(struct cfs_inode *i)
{
	if (i->data)
		cfs_data_put(i->data);
	pthread_mutex_destroy(&i->lock);
	free(i->owners);
	free(i);
}

void cfs_inodes_destroy(struct cfs_inodes *t)
{
	if (!t)
		return;
	for (unsigned s = 0; s < SHARDS; s++)
		for (unsigned b = 0; b < BUCKETS; b++)
			CFS_ASSERT(!t->shards[s].buckets[b]);
	free(t);
}

static struct cfs_inode *find_or_make(struct cfs_client *c, uint64_t ino, bool make)
{
	struct cfs_inode **bucket, *i;
	struct inode_shard *s;

	if (!make && !__atomic_load_n(&c->inodes->n, __ATOMIC_RELAXED))
		return NULL;
	s = shard_of(c, ino, &bucket);
	pthread_mutex_lock(&s->lock);
	for (i = *bucket; i && i->ino != ino; i = i->next)
		;
	if (!i && make) {
		i = calloc(1, sizeof(*i));
		if (i) {
			i->ino = ino;
			pthread_mutex_init(&i->lock, NULL);
			i->next = *bucket;
			*bucket = i;
			__atomic_add_fetch(&c->inodes->n, 1, __ATOMIC_RELAXED);
		}
	}
	if (i)
		i->refs++;
	pthread_mutex_unlock(&s->lock);
	return i;
}

struct cfs_inode *cfs_inode_get(struct cfs_client *c, uint64_t ino)
{
	return find_or_make(c, ino, true);
}

struct cfs_inode *cfs_inode_find(struct cfs_client *c, uint64_t ino)
{
	return find_or_make(c, ino, false);
}

void cfs_inode_put(struct cfs_client *c, struct cfs_inode *i)
{
	struct cfs_inode **p;
	struct inode_shard *s;
	bool last;

	if (!i)
		return;
	s = shard_of(c, i->ino, &p);
	pthread_mutex_lock(&s->lock);
	CFS_ASSERT(i->refs > 0);
	last = !--i->refs;
	if (last) {
		while (*p != i)
			p = &(*p)->next;
		*p = i->next;
		__atomic_sub_fetch(&c->inodes->n, 1, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&s->lock);
	if (last)
		inode_free(i);
}

bool cfs_inode_is_open(struct cfs_client *c, uint64_t ino)
{
	struct cfs_inode *i = cfs_inode_find(c, ino);
	bool open = false;

	if (i) {
		pthread_mutex_lock(&i->lock);
		open = i->n_open > 0;
		pthread_mutex_unlock(&i->lock);
	}
	cfs_inode_put(c, i);
	return open;
}

bool cfs_inode_set_orphan(struct cfs_client *c, uint64_t ino)
{
	struct cfs_inode *i = cfs_inode_find(c, ino);
	bool open = false;

	if (i) {
		pthread_mutex_lock(&i->lock);
		open = i->n_open > 0;
		i->orphan |= open;
		pthread_mutex_unlock(&i->lock);
	}
	cfs_inode_put(c, i);
	return open;
}

static void told_size(struct cfs_inode *i, uint64_t size)
{
	if (size >= i->kernel_size)
		return;
	i->kernel_size = size;
	i->size_gen++;
}

void cfs_inode_told(struct cfs_client *c, const struct cfs_attr *attr)
{
	struct cfs_inode *i = cfs_inode_find(c, cfs_attr_ino(attr));

	if (!i)
		return;
	pthread_mutex_lock(&i->lock);
	i->told = true;
	i->told_mtime = attr->mtime;
	told_size(i, cfs_le64_to_cpu(attr->size));
	if (i->attr_set)
		i->attr = *attr;
	pthread_mutex_unlock(&i->lock);
	cfs_inode_put(c, i);
}

void cfs_inode_told_size(struct cfs_inode *i, uint64_t size)
{
	pthread_mutex_lock(&i->lock);
	told_size(i, size);
	pthread_mutex_unlock(&i->lock);
}

void cfs_removed_add(struct cfs_client *c, const struct cfs_attr *attr)
{
	struct cfs_inodes *t = c->inodes;

	if (S_ISREG(cfs_le32_to_cpu(attr->mode)))
		return;
	pthread_mutex_lock(&t->removed_lock);
	t->removed[t->next_removed] = *attr;
	t->removed[t->next_removed].nlink = 0;
	t->next_removed = (t->next_removed + 1) % REMOVED_MAX;
	pthread_mutex_unlock(&t->removed_lock);
}

void cfs_removed_change(struct cfs_client *c, const struct cfs_attr *attr)
{
	struct cfs_inodes *t = c->inodes;

	pthread_mutex_lock(&t->removed_lock);
	for (unsigned i = 0; i < REMOVED_MAX; i++)
		if (t->removed[i].ino == attr->ino)
			t->removed[i] = *attr;
	pthread_mutex_unlock(&t->removed_lock);
}

bool cfs_removed_find(struct cfs_client *c, uint64_t ino, struct cfs_attr *ret_attr)
{
	struct cfs_inodes *t = c->inodes;
	bool found = false;

	pthread_mutex_lock(&t->removed_lock);
	for (unsigned i = 0; i < REMOVED_MAX && !found; i++) {
		found = cfs_attr_ino(&t->removed[i]) == ino;
		if (found)
			*ret_attr = t->removed[i];
	}
	pthread_mutex_unlock(&t->removed_lock);
	return found;
}

void cfs_inodes_walk(struct cfs_client *c, void (*fn)(void *arg, uint64_t ino), void *arg)
{
	uint64_t *list = NULL;

	for (unsigned s = 0; s < SHARDS; s++) {
		struct inode_shard *sh = &c->inodes->shards[s];
		size_t n = 0, cap = 0;

		for (unsigned pass = 0; pass < 2; pass++) {
			pthread_mutex_lock(&sh->lock);
			n = 0;
			for (unsigned b = 0; b < BUCKETS; b++)
				for (struct cfs_inode *i = sh->buckets[b]; i; i = i->next) {
					if (pass && n < cap)
						list[n] = i->ino;
					n += !pass || n < cap;
				}
			pthread_mutex_unlock(&sh->lock);
			if (!pass) {
				free(list);
				list = n ? malloc(n * sizeof(*list)) : NULL;
				cap = list ? n : 0;
			}
		}
		for (size_t k = 0; k < cap && k < n; k++)
			fn(arg, list[k]);
	}
	free(list);
}

/* the lock is held: room for one more; ENOLCK */
static int owner_room(struct cfs_inode *i)
{
	unsigned cap = i->n_owners ? 2 * i->n_owners : 4;
	void *v;

	if (i->n_owners < i->cap_owners)
		return 0;
	v = i->n_owners < CFS_LOCK_OWNERS_MAX ? realloc(i->owners, cap * sizeof(*i->owners)) : NULL;
	if (!v)
		return ENOLCK;
	i->owners = v;
	i->cap_owners = cap;
	return 0;
}

int cfs_inode_owner_add(struct cfs_inode *i, uint64_t owner, const void *fh, struct cfs_persist *p, uint64_t fh_id)
{
	uint32_t record = 0;
	int err = 0;
	unsigned k;

	pthread_mutex_lock(&i->lock);
	for (k = 0; k < i->n_owners; k++)
		if (i->owners[k].owner == owner && i->owners[k].fh == fh)
			goto out;
	err = owner_room(i);
	if (!err && p) {
		record = cfs_persist_owner_add(p, owner, fh_id);
		err = record ? 0 : ENOLCK;
	}
	if (!err)
		i->owners[i->n_owners++] = (struct cfs_lock_owner){ owner, fh, record };
out:
	pthread_mutex_unlock(&i->lock);
	return err;
}

int cfs_inode_owner_restore(struct cfs_inode *i, const struct cfs_lock_owner *owner)
{
	int err;

	pthread_mutex_lock(&i->lock);
	err = owner_room(i);
	if (!err)
		i->owners[i->n_owners++] = *owner;
	pthread_mutex_unlock(&i->lock);
	return err;
}

bool cfs_inode_owner_take(struct cfs_inode *i, uint64_t owner, struct cfs_lock_owners *ret_taken)
{
	struct cfs_lock_owners taken = { NULL, 0 };
	bool have = false;

	pthread_mutex_lock(&i->lock);
	for (unsigned k = 0; k < i->n_owners;) {
		if (i->owners[k].owner != owner) {
			k++;
			continue;
		}
		/* without memory its record stays: one needless unlock by who takes over */
		if (i->owners[k].record && !taken.v)
			taken.v = malloc(i->n_owners * sizeof(*taken.v));
		if (i->owners[k].record && taken.v)
			taken.v[taken.n++] = i->owners[k];
		i->owners[k] = i->owners[--i->n_owners];
		have = true;
	}
	pthread_mutex_unlock(&i->lock);
	*ret_taken = taken;
	return have;
}

void cfs_inode_owner_gone(struct cfs_persist *p, struct cfs_lock_owners *taken)
{
	for (unsigned k = 0; k < taken->n; k++)
		cfs_persist_owner_del(p, taken->v[k].record);
	free(taken->v);
}

bool cfs_inode_owner_of_fh(struct cfs_inode *i, const void *fh, uint64_t *ret_owner)
{
	bool have = false;

	pthread_mutex_lock(&i->lock);
	for (unsigned k = 0; k < i->n_owners && !have; k++) {
		have = i->owners[k].fh == fh;
		if (have)
			*ret_owner = i->owners[k].owner;
	}
	pthread_mutex_unlock(&i->lock);
	return have;
}
