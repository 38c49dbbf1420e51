/* SPDX-License-Identifier: MIT */
/* timers.c - see timers.h. */
#include "ring/timers.h"

#include <stdlib.h>

#include "base/base.h"

void cfs_timers_init(struct cfs_timers *h, uint32_t max)
{
	*h = (struct cfs_timers){ .max = max };
}

void cfs_timers_fini(struct cfs_timers *h)
{
	for (uint32_t i = 1; i <= h->n; i++)
		h->heap[i]->heap_pos = 0;
	free(h->heap);
	cfs_timers_init(h, h->max);
}

static void place(struct cfs_timers *h, uint32_t pos, struct cfs_timer *t)
{
	h->heap[pos] = t;
	t->heap_pos = pos;
}

static void sift_up(struct cfs_timers *h, uint32_t pos, struct cfs_timer *t)
{
	for (; pos > 1 && t->deadline_ns < h->heap[pos / 2]->deadline_ns; pos /= 2)
		place(h, pos, h->heap[pos / 2]);
	place(h, pos, t);
}

static void sift_down(struct cfs_timers *h, uint32_t pos, struct cfs_timer *t)
{
	uint32_t child;

	while ((child = 2 * pos) <= h->n) {
		if (child < h->n && h->heap[child + 1]->deadline_ns < h->heap[child]->deadline_ns)
			child++;
		if (t->deadline_ns <= h->heap[child]->deadline_ns)
			break;
		place(h, pos, h->heap[child]);
		pos = child;
	}
	place(h, pos, t);
}

void cfs_timers_cancel(struct cfs_timers *h, struct cfs_timer *t)
{
	uint32_t pos = t->heap_pos;
	struct cfs_timer *last;

	if (!pos)
		return;
	CFS_ASSERT(pos <= h->n && h->heap[pos] == t);
	t->heap_pos = 0;
	last = h->heap[h->n--];
	if (last == t)
		return;
	if (pos > 1 && last->deadline_ns < h->heap[pos / 2]->deadline_ns)
		sift_up(h, pos, last);
	else
		sift_down(h, pos, last);
}

void cfs_timers_set(struct cfs_timers *h, struct cfs_timer *t, uint64_t deadline_ns)
{
	CFS_ASSERT(t->fn);
	cfs_timers_cancel(h, t);
	t->deadline_ns = deadline_ns;
	if (h->n + 1 >= h->cap) {
		uint32_t cap = h->cap ? h->cap * 2 : 64;
		struct cfs_timer **heap = realloc(h->heap, cap * sizeof(*heap));

		/* no way to report it, and a timer that never fires is worse than stopping */
		CFS_ASSERT(heap && h->n < h->max);
		h->heap = heap;
		h->cap = cap;
	}
	sift_up(h, ++h->n, t);
}

uint64_t cfs_timers_first(const struct cfs_timers *h)
{
	return h->n ? h->heap[1]->deadline_ns : UINT64_MAX;
}

unsigned cfs_timers_fire(struct cfs_timers *h, uint64_t now)
{
	unsigned fired = 0;

	/* one that re-arms itself in the past must not keep us here */
	for (uint32_t bound = h->n; fired < bound && cfs_timers_first(h) <= now; fired++) {
		struct cfs_timer *t = h->heap[1];

		cfs_timers_cancel(h, t);
		t->fn(t);
	}
	return fired;
}
