/* SPDX-License-Identifier: MIT */
/*
 * shard_mem.h - the two containers the shard leader is built of: a hash table of embedded nodes and
 * a slab of equal pieces. Both belong to one thread. Neither shrinks: their peak is bounded by the
 * limits in shard_i.h and lease.h.
 */
#ifndef CFS_SERVER_META_SHARD_MEM_H
#define CFS_SERVER_META_SHARD_MEM_H

#include "base/base.h"
#include "base/hash.h"
#include "base/list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- hash table: chains of nodes that carry their whole hash, so growing touches no owner --- */
struct cfs_hnode {
	struct cfs_hnode *next;
	uint64_t hash;
};

struct cfs_htable {
	struct cfs_hnode **buckets;
	uint64_t mask; /* number of buckets - 1 */
	uint64_t n;
};

static inline int cfs_htable_init(struct cfs_htable *t, uint64_t buckets)
{
	t->buckets = calloc(buckets, sizeof(*t->buckets));
	t->mask = buckets - 1;
	t->n = 0;
	return t->buckets ? 0 : -ENOMEM;
}

static inline void cfs_htable_free(struct cfs_htable *t)
{
	free(t->buckets);
	t->buckets = NULL;
}

/* twice the buckets; without memory the chains just get longer */
static inline void cfs_htable_grow(struct cfs_htable *t)
{
	uint64_t mask = t->mask * 2 + 1, i;
	struct cfs_hnode **b = calloc(mask + 1, sizeof(*b)), *n, *next;

	if (!b)
		return;
	for (i = 0; i <= t->mask; i++) {
		for (n = t->buckets[i]; n; n = next) {
			next = n->next;
			n->next = b[n->hash & mask];
			b[n->hash & mask] = n;
		}
	}
	free(t->buckets);
	t->buckets = b;
	t->mask = mask;
}

static inline void cfs_htable_add(struct cfs_htable *t, struct cfs_hnode *n, uint64_t hash)
{
	if (t->n > t->mask)
		cfs_htable_grow(t);
	n->hash = hash;
	n->next = t->buckets[hash & t->mask];
	t->buckets[hash & t->mask] = n;
	t->n++;
}

static inline void cfs_htable_del(struct cfs_htable *t, struct cfs_hnode *n)
{
	struct cfs_hnode **p = &t->buckets[n->hash & t->mask];

	while (*p != n) {
		CFS_ASSERT(*p);
		p = &(*p)->next;
	}
	*p = n->next;
	t->n--;
}

/* the chain in which nodes of this hash stand, among others: compare the owner's key */
static inline struct cfs_hnode *cfs_htable_chain(const struct cfs_htable *t, uint64_t hash)
{
	return t->buckets[hash & t->mask];
}

/* ---- slab: pieces of one size, taken zeroed -------------------------------------------------- */
#if defined(__SANITIZE_ADDRESS__)
#define CFS_SLAB_PLAIN 1 /* let the sanitizer see every piece come and go */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CFS_SLAB_PLAIN 1
#endif
#endif

#define CFS_SLAB_PIECES 64u /* of one allocation */

struct cfs_slab {
	size_t size;
	void *free; /* a piece's first word points to the next one */
	void *slabs;
	uint64_t used;
};

static inline void cfs_slab_init(struct cfs_slab *p, size_t size)
{
	memset(p, 0, sizeof(*p));
	p->size = cfs_align_up(size, 16);
}

static inline void *cfs_slab_get(struct cfs_slab *p)
{
	void *piece;

#ifndef CFS_SLAB_PLAIN
	if (!p->free) {
		char *slab = malloc(16 + p->size * CFS_SLAB_PIECES);
		unsigned i;

		if (!slab)
			return NULL;
		*(void **)slab = p->slabs;
		p->slabs = slab;
		for (i = 0; i < CFS_SLAB_PIECES; i++) {
			piece = slab + 16 + p->size * i;
			*(void **)piece = p->free;
			p->free = piece;
		}
	}
	piece = p->free;
	p->free = *(void **)piece;
	memset(piece, 0, p->size);
#else
	piece = calloc(1, p->size);
	if (!piece)
		return NULL;
#endif
	p->used++;
	return piece;
}

static inline void cfs_slab_put(struct cfs_slab *p, void *piece)
{
	CFS_ASSERT(p->used);
	p->used--;
#ifndef CFS_SLAB_PLAIN
	*(void **)piece = p->free;
	p->free = piece;
#else
	free(piece);
#endif
}

/* every piece must have been put back */
static inline void cfs_slab_free(struct cfs_slab *p)
{
	void *next;

	CFS_ASSERT(!p->used);
	for (; p->slabs; p->slabs = next) {
		next = *(void **)p->slabs;
		free(p->slabs);
	}
	p->free = NULL;
}

#endif
