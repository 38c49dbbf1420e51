/* SPDX-License-Identifier: MIT */
/*
 * timers.h - a binary heap of struct cfs_timer (base/clock.h), for whoever implements a clock.
 *
 * Timers with the same deadline fire in no particular but always the same order. Memory grows by doubling, so
 * arming does not allocate once a program has found its size. Not thread-safe.
 */
#ifndef CFS_RING_TIMERS_H
#define CFS_RING_TIMERS_H

#include "base/clock.h"

struct cfs_timers {
	struct cfs_timer **heap;	/* 1-based; heap_pos of a timer is its place here */
	uint32_t n, cap;
	uint32_t max;			/* written bound: more is a bug of ours (assertion) */
};

void cfs_timers_init(struct cfs_timers *h, uint32_t max);
/* disarms all that are left */
void cfs_timers_fini(struct cfs_timers *h);
void cfs_timers_set(struct cfs_timers *h, struct cfs_timer *t, uint64_t deadline_ns);
void cfs_timers_cancel(struct cfs_timers *h, struct cfs_timer *t);
/* deadline of the first one; UINT64_MAX when there is none */
uint64_t cfs_timers_first(const struct cfs_timers *h);
/* fire (disarm, then call) what is due at `now`; those armed meanwhile wait for the next call */
unsigned cfs_timers_fire(struct cfs_timers *h, uint64_t now);

#endif
