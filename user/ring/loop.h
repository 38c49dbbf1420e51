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
#include <stdbool.h>
#include <stddef.h>
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

/*
 * Run at the end of every turn of the loop, before it sleeps: for batching. Those with `last` set run
 * after all others: they belong to the layers that flush what others have queued (net/).
 */
struct cfs_loop_hook {
	void (*fn)(struct cfs_loop_hook *hook);
	bool last;
	struct cfs_loop_hook *next;	/* private */
};

/* what a loop has; more is -ENOBUFS, or for timers an assertion */
#define CFS_LOOP_POSTS_MAX	65536u	/* functions waiting for the next turn */
#define CFS_LOOP_TIMERS_MAX	(1u << 20)
#define CFS_LOOP_OFFLOAD_MAX	64u	/* jobs queued, running or not yet reported */
#define CFS_LOOP_FILES_MAX	64u	/* slots of cfs_loop_file_add() */
#define CFS_LOOP_MEM_MAX	1024u	/* regions of cfs_loop_mem_add() */
#define CFS_LOOP_ENTRIES_MAX	32768u	/* requests of a submission queue */

/**
 * cfs_loop_create() - set up a ring and a timer heap. On the thread that will run it: the ring belongs
 * to the thread that made it.
 * @entries: submission queue size at first, power of two, 8 .. CFS_LOOP_ENTRIES_MAX; it doubles when it
 * proves too small and the kernel can do that (6.13, with DEFER_TASKRUN)
 * Return: 0 or -errno. Source: io_uring_setup(2).
 */
int cfs_loop_create(uint32_t entries, struct cfs_loop **ret_loop);
/*
 * With CFS_LOOP_WIDE the ring takes the commands of cfs_loop_sqe_cmd() too; -EINVAL from kernels that cannot
 * (before 5.19).
 */
#define CFS_LOOP_WIDE	1u
int cfs_loop_create_with(uint32_t entries, uint32_t flags, struct cfs_loop **ret_loop);
/*
 * Waits for offloaded work and calls its done(). All else that was in flight is dropped: devices and nets
 * are closed before. NULL is fine.
 */
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

/*
 * A passthrough command to a driver: cleared but for opcode, cmd_op and fd; 80 bytes of command at sqe->cmd.
 * Wide loops only. Its second result is cfs_loop_cqe_extra() while done() runs.
 */
struct io_uring_sqe *cfs_loop_sqe_cmd(struct cfs_loop *loop, uint32_t cmd_op, int fd);
bool cfs_loop_is_wide(const struct cfs_loop *loop);
uint64_t cfs_loop_cqe_extra(const struct cfs_loop *loop);

/*
 * For requests that complete while they are submitted and are silent when they succeed (IOSQE_CQE_SKIP_SUCCESS):
 * cfs_loop_mark() after filling the SQE, and from a later turn on cfs_loop_taken(): true when the kernel has taken
 * everything up to the mark and each completion that this caused has been delivered; silence then means success.
 */
uint32_t cfs_loop_mark(struct cfs_loop *loop);
bool cfs_loop_taken(struct cfs_loop *loop, uint32_t mark);

void cfs_loop_hook_add(struct cfs_loop *loop, struct cfs_loop_hook *hook);
void cfs_loop_hook_del(struct cfs_loop *loop, struct cfs_loop_hook *hook);

/* call fn(arg) on the loop's next turn. 0, or -ENOBUFS */
int cfs_loop_post(struct cfs_loop *loop, void (*fn)(void *arg), void *arg);

/*
 * Register a descriptor with the ring: requests that name the returned slot with IOSQE_FIXED_FILE save the
 * kernel's look-up. A slot number, or -errno (-ENFILE: all in use; -EOPNOTSUPP): use the descriptor then.
 */
int cfs_loop_file_add(struct cfs_loop *loop, int fd);
void cfs_loop_file_del(struct cfs_loop *loop, int slot);
/*
 * Register memory with the ring, so that the kernel need not pin it for each request. Requests find the slot
 * with cfs_loop_mem_find(), -1 when the bytes do not lie within one region. It stays mapped until
 * cfs_loop_mem_del(), which takes no notice of memory that was not added. 0, or -errno (-ENOBUFS: table full;
 * -ENOMEM: RLIMIT_MEMLOCK; -EOPNOTSUPP: kernel): all goes on without, only slower.
 */
int cfs_loop_mem_add(struct cfs_loop *loop, void *base, size_t len);
void cfs_loop_mem_del(struct cfs_loop *loop, void *base);
int cfs_loop_mem_find(const struct cfs_loop *loop, const void *ptr, size_t len);
/* a number for a ring of provided buffers that nobody else on this loop uses */
uint16_t cfs_loop_buf_group(struct cfs_loop *loop);

/**
 * cfs_loop_run() - turn until cfs_loop_stop(). One turn: complete, timers, posted functions, hooks,
 * submit-and-wait. 0, or the -errno of a ring that failed. May be called again after a stop.
 */
int cfs_loop_run(struct cfs_loop *loop);
/** cfs_loop_turn() - one turn, waiting at most timeout_ns for something to happen. 0 or -errno. */
int cfs_loop_turn(struct cfs_loop *loop, uint64_t timeout_ns);
/** cfs_loop_stop() - from any thread or a signal handler. */
void cfs_loop_stop(struct cfs_loop *loop);

struct cfs_loop_stat {
	uint32_t sq_entries, cq_entries;
	uint64_t resizes;	/* of the ring */
	uint64_t sq_full;	/* submissions before their time, because the queue was full */
	uint64_t cq_full;	/* times the kernel wanted completions taken first */
	uint64_t mem_bytes;	/* registered */
};
void cfs_loop_stat(const struct cfs_loop *loop, struct cfs_loop_stat *ret_stat);
/**
 * cfs_loop_resize() - another size for the ring, with requests in flight; the loop does it by itself
 * when it must. Not from inside a done(). 0, -EINVAL, or -errno: it stays as it was.
 */
int cfs_loop_resize(struct cfs_loop *loop, uint32_t entries);

#endif
