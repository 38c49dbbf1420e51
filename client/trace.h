/* SPDX-License-Identifier: MIT */
/*
 * trace.h - requests as they end, for whoever watches: a ring that is written by the FUSE workers, or by the thread that takes what the
 * kernel's programs saw, and read by any number of readers, each at his own pace. Writers never wait: a reader who is
 * too slow loses the oldest, and is told how many. Thread-safe.
 */
#ifndef CFS_CLIENT_TRACE_H
#define CFS_CLIENT_TRACE_H

#include "claudefs/bpf_shared.h"

#define CFS_TRACE_EVENTS 4096u

struct cfs_trace;

struct cfs_trace_reader {
	uint64_t at;	/* the next event's number */
	uint64_t lost;
};

/* 0 or -ENOMEM */
int cfs_trace_create(struct cfs_trace **ret_t);
void cfs_trace_destroy(struct cfs_trace *t);
void cfs_trace_put(struct cfs_trace *t, const struct cfs_bpf_event *e);
/* from now on */
void cfs_trace_open(struct cfs_trace *t, struct cfs_trace_reader *ret_r);
/* at most max events; waits up to wait_ms for the first, or until cfs_trace_wake(). Returns how many */
unsigned cfs_trace_get(struct cfs_trace *t, struct cfs_trace_reader *r, struct cfs_bpf_event *out, unsigned max,
		       unsigned wait_ms);
/* end all waits that are under way */
void cfs_trace_wake(struct cfs_trace *t);

#endif
