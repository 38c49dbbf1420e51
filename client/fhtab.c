// SPDX-License-Identifier: MIT
/*
 * fhtab.c - see fhtab.h. Chunks are made when they are needed and stay where they are, so that readers need no lock. Free places
 * are a list through the table, last used first.
 */
#include "client/fhtab.h"

#include "base/base.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define CHUNK	1024u
#define NONE	UINT32_MAX

struct place {
	struct cfs_fh *fh;		/* atomic; NULL: free */
	uint32_t gen;			/* atomic: of the number that is, or will be, given */
	uint32_t next;			/* free */
};

struct cfs_fhtab {
	pthread_mutex_t lock;
	uint32_t n, first_free;		/* places made; of them */
	uint32_t first_gen;
	struct place *chunks[CFS_FHS_MAX / CHUNK];	/* atomic */
};

int cfs_fhtab_create(struct cfs_fhtab **ret_t)
{
	struct cfs_fhtab *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	pthread_mutex_init(&t->lock, NULL);
	t->first_free = NONE;
	*ret_t = t;
	return 0;
}

void cfs_fhtab_set_life(struct cfs_fhtab *t, uint32_t life)
{
	t->first_gen = life << 16;
}

void cfs_fhtab_destroy(struct cfs_fhtab *t)
{
	if (!t)
		return;
	for (uint32_t i = 0; i < CFS_ARRAY_SIZE(t->chunks); i++)
		free(t->chunks[i]);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static struct place *place_at(struct cfs_fhtab *t, uint32_t at)
{
	struct place *chunk = __atomic_load_n(&t->chunks[at / CHUNK], __ATOMIC_ACQUIRE);

	return chunk ? &chunk[at % CHUNK] : NULL;
}

/* the lock is held: one more place, free, at the head of the list; false: no room */
static bool grow(struct cfs_fhtab *t)
{
	struct place *p;

	if (t->n == CFS_FHS_MAX)
		return false;
	if (!t->chunks[t->n / CHUNK]) {
		struct place *chunk = calloc(CHUNK, sizeof(*chunk));

		if (!chunk)
			return false;
		__atomic_store_n(&t->chunks[t->n / CHUNK], chunk, __ATOMIC_RELEASE);
	}
	p = place_at(t, t->n);
	p->gen = t->first_gen;
	p->next = t->first_free;
	t->first_free = t->n++;
	return true;
}

uint64_t cfs_fhtab_add(struct cfs_fhtab *t, struct cfs_fh *fh)
{
	uint64_t id = 0;

	pthread_mutex_lock(&t->lock);
	if (t->first_free != NONE || grow(t)) {
		uint32_t at = t->first_free;
		struct place *p = place_at(t, at);

		t->first_free = p->next;
		id = (uint64_t)p->gen << 32 | (at + 1);
		__atomic_store_n(&p->fh, fh, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&t->lock);
	return id;
}

bool cfs_fhtab_restore(struct cfs_fhtab *t, uint64_t id, struct cfs_fh *fh)
{
	uint32_t at = cfs_fhtab_place(id);
	struct place *p = NULL;
	bool ok = false;

	if (!(uint32_t)id || at >= CFS_FHS_MAX)
		return false;
	pthread_mutex_lock(&t->lock);
	while (t->n <= at && grow(t))
		;
	if (at < t->n)
		p = place_at(t, at);
	if (p && !p->fh) {
		uint32_t *link = &t->first_free;

		/* those that lie behind it on the list are few: places are restored in order */
		while (*link != at)
			link = &place_at(t, *link)->next;
		*link = p->next;
		__atomic_store_n(&p->gen, (uint32_t)(id >> 32), __ATOMIC_RELEASE);
		__atomic_store_n(&p->fh, fh, __ATOMIC_RELEASE);
		ok = true;
	}
	pthread_mutex_unlock(&t->lock);
	return ok;
}

struct cfs_fh *cfs_fhtab_get(struct cfs_fhtab *t, uint64_t id)
{
	uint32_t at = cfs_fhtab_place(id);
	struct place *p = (uint32_t)id && at < CFS_FHS_MAX ? place_at(t, at) : NULL;
	struct cfs_fh *fh = p ? __atomic_load_n(&p->fh, __ATOMIC_ACQUIRE) : NULL;

	return fh && __atomic_load_n(&p->gen, __ATOMIC_ACQUIRE) == (uint32_t)(id >> 32) ? fh : NULL;
}

void cfs_fhtab_del(struct cfs_fhtab *t, uint64_t id)
{
	struct place *p = place_at(t, cfs_fhtab_place(id));

	pthread_mutex_lock(&t->lock);
	CFS_ASSERT(p && p->fh && p->gen == (uint32_t)(id >> 32));
	__atomic_store_n(&p->fh, NULL, __ATOMIC_RELEASE);
	__atomic_store_n(&p->gen, p->gen + 1, __ATOMIC_RELEASE);
	p->next = t->first_free;
	t->first_free = cfs_fhtab_place(id);
	pthread_mutex_unlock(&t->lock);
}
