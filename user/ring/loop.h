/* SPDX-License-Identifier: MIT */
/*
 * loop.h - the reactor: one io_uring ring on which a thread's network, disk and timers meet.
 *
 * One loop belongs to one thread (SINGLE_ISSUER, DEFER_TASKRUN where the kernel has them,
 * plain otherwise). It implements struct cfs_clock_ops. Nothing here blocks but cfs_loop_run().
 */
#ifndef CFS_RING_LOOP_H
#define CFS_RING_LOOP_H

#include "base/clock.h"
#include <stdint.h>

struct io_uring_sqe;
struct io_uring;
struct cfs_loop;
struct cfs_ring_op;

/* one submitted io_uring request; embedded by its owner, lives until its last completion */
struct cfs_ring_op {
	/* res and flags are the CQE's; called on the loop's thread */
	void (*done)(struct cfs_ring_op *op, int32_t res, uint32_t cqe_flags);
};

/* run at the end of every turn of the loop, before it sleeps: for batching */
struct cfs_loop_hook {
	void (*fn)(struct cfs_loop_hook *hook);
	struct cfs_loop_hook *next;	/* private */
};

/**
 * cfs_loop_create() - set up a ring and a timer heap.
 * @entries: submission queue size, power of two
 * Return: 0 or -errno. Source: io_uring_setup(2).
 */
int cfs_loop_create(uint32_t entries, struct cfs_loop **ret_loop);
void cfs_loop_destroy(struct cfs_loop *loop);

struct cfs_clock *cfs_loop_clock(struct cfs_loop *loop);
struct io_uring *cfs_loop_ring(struct cfs_loop *loop);

/**
 * cfs_loop_sqe() - an SQE whose completions go to op->done. Submits when the queue is full, so
 * it never fails. Fill it with io_uring_prep_*, which leave user_data alone: set it through this
 * call's second half, cfs_loop_sqe_set(), after the prep.
 */
struct io_uring_sqe *cfs_loop_sqe(struct cfs_loop *loop);
void cfs_loop_sqe_set(struct io_uring_sqe *sqe, struct cfs_ring_op *op);

void cfs_loop_hook_add(struct cfs_loop *loop, struct cfs_loop_hook *hook);
void cfs_loop_hook_del(struct cfs_loop *loop, struct cfs_loop_hook *hook);

/* call fn(arg) on the loop's next turn */
int cfs_loop_post(struct cfs_loop *loop, void (*fn)(void *arg), void *arg);

/** cfs_loop_run() - turn until cfs_loop_stop(). One turn: complete, timers, hooks, submit-and-wait. */
int cfs_loop_run(struct cfs_loop *loop);
/** cfs_loop_turn() - one turn, waiting at most timeout_ns for something to happen. */
int cfs_loop_turn(struct cfs_loop *loop, uint64_t timeout_ns);
/** cfs_loop_stop() - from any thread or a signal handler. */
void cfs_loop_stop(struct cfs_loop *loop);

#endif
