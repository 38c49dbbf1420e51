/* SPDX-License-Identifier: MIT */
/*
 * offload.h - helper threads for the few jobs that may block (copying a checkpoint, resolving a name).
 *
 * Jobs live in a fixed table, so handing one over allocates nothing. Threads start with the first job.
 * submit() and reap() belong to the owner's thread; finished jobs are announced by `wake`, which
 * runs on a helper thread.
 */
#ifndef CFS_RING_OFFLOAD_H
#define CFS_RING_OFFLOAD_H

#include <stdbool.h>
#include <stdint.h>

struct cfs_offload;

/** cfs_offload_create() - no thread yet. @wake: called on a helper thread when a job has finished. 0 or -errno */
int cfs_offload_create(uint32_t max_jobs, void (*wake)(void *arg), void *arg, struct cfs_offload **ret_o);
/* 0; -ENOBUFS when max_jobs are queued, running or not yet reaped; -EAGAIN when no thread can be made */
int cfs_offload_submit(struct cfs_offload *o, void (*work)(void *arg), void (*done)(void *arg), void *arg);
/* call done() of all that have finished; returns how many */
unsigned cfs_offload_reap(struct cfs_offload *o);
/* wait for all jobs, call their done(), end the threads. NULL is fine */
void cfs_offload_destroy(struct cfs_offload *o);

#endif
