/* SPDX-License-Identifier: MIT */
/* loop_i.h - what loop.c (turns, hooks, posted functions, clock) and ring.c (the ring and its tables) share. */
#ifndef CFS_RING_LOOP_I_H
#define CFS_RING_LOOP_I_H

#include "ring/loop.h"

#include <liburing.h>

#include "base/rng.h"
#include "ring/offload.h"
#include "ring/timers.h"

struct cfs_loop_post_item {
	void (*fn)(void *arg);
	void *arg;
};

struct cfs_loop_cqe {
	struct cfs_ring_op *op;
	uint64_t extra;
	int32_t res;
	uint32_t flags;
};

/* memory that is registered with the ring; the array is sorted by start */
struct cfs_loop_mem {
	uintptr_t start, end;
	uint32_t slot;
};

struct cfs_loop {
	struct cfs_clock clock;
	struct io_uring ring;
	struct cfs_timers timers;
	struct cfs_rng rng;
	struct cfs_loop_hook *hooks, *last_hooks, *next_hook;
	struct cfs_loop_post_item *posts, *running_posts;
	uint32_t n_posts, cap_posts, cap_running;
	/* completions taken out of a full ring from inside cfs_loop_sqe(), until the next turn */
	struct cfs_loop_cqe *stash;
	uint32_t n_stash, cap_stash;
	struct cfs_offload *offload;
	struct cfs_ring_op event_op;
	uint64_t event_count;
	uint64_t extra;		/* cfs_loop_cqe_extra() of the completion that is being delivered */
	uint32_t taken;		/* submission queue's head before the last reaping */
	bool drained;		/* that reaping left nothing */
	uint64_t files_used;	/* bit per slot of the ring's file table */
	struct cfs_loop_mem *mem;
	uint64_t *mem_used;	/* bit per slot of the ring's buffer table */
	uint32_t n_mem;
	uint32_t full_now;	/* how often the queue was full since the last turn began */
	struct cfs_loop_stat stat;
	int event_fd;
	uint16_t buf_groups;
	int stop;		/* atomic; set from anywhere */
	bool ring_ready, files_ready, mem_failed, fixed_size, clock_boottime, in_turn;
};

int cfs_loop_ring_init(struct cfs_loop *loop, uint32_t entries, uint32_t flags);
void cfs_loop_ring_exit(struct cfs_loop *loop);
/* called between turns: a ring whose submission queue was full again and again becomes larger */
void cfs_loop_ring_grow(struct cfs_loop *loop);
struct cfs_loop_cqe cfs_loop_cqe_read(const struct cfs_loop *loop, const struct io_uring_cqe *cqe);
void cfs_loop_cqe_seen(struct cfs_loop *loop, uint32_t cqe_flags);

#endif
