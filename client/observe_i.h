/* SPDX-License-Identifier: MIT */
/*
 * observe_i.h - private to observe.c (who observes, and by which view) and observe_conn.c (a connection). The lock covers all but what is
 * marked; it may be held while programs are loaded, so workers never take it.
 */
#ifndef CFS_CLIENT_OBSERVE_I_H
#define CFS_CLIENT_OBSERVE_I_H

#include "client/observe.h"
#include "client/observe_bpf.h"
#include "client/trace.h"

#include <pthread.h>

#define CFS_OBSERVERS_MAX	8u
#define CFS_OBSERVE_HOT		16u

struct cfs_observe;

struct cfs_observer {
	struct cfs_observe *ob;
	struct cfs_observe_want want;
	pthread_t thread;
	int fd;				/* -1: free */
	bool ended;			/* the thread can be joined */
};

struct cfs_observe {
	struct cfs_client *c;
	const struct cfs_mount_opts *o;
	uint32_t conn_dev;		/* the mount's device number; 0: not found */
	pthread_mutex_t lock;
	unsigned users;			/* observers that the view is open for */
	struct cfs_obs_bpf *bpf;	/* NULL: the client's own view; why says why */
	char why[200];
	struct cfs_trace *trace;
	bool client_traces;		/* atomic: workers put events */
	pthread_t taker;		/* moves the kernel's events into trace */
	bool taking, stopping;		/* atomic */
	struct cfs_observer observers[CFS_OBSERVERS_MAX];
};

/* open and close the view for one more, one less */
void cfs_observe_begin(struct cfs_observe *ob, struct cfs_observer *who);
void cfs_observe_end(struct cfs_observe *ob, struct cfs_observer *who);
void cfs_observe_conns_end(struct cfs_observe *ob);

/* since the view was opened, or the mount began: `ops` of 64 opcodes; the hottest inodes, requests on their way (kernel's view only) */
struct cfs_observe_sample {
	bool kernel;
	char why[200];			/* why it is not the kernel's view */
	struct cfs_bpf_op ops[CFS_BPF_OPS];
	struct cfs_obs_hot hot[CFS_OBSERVE_HOT];
	unsigned n_hot;
	uint64_t inflight;
};
void cfs_observe_sample(struct cfs_observe *ob, struct cfs_observe_sample *ret);

#endif
