/* SPDX-License-Identifier: MIT */
/*
 * sched_shared.h - what the scheduler bpf/meta_sched.bpf.c and its loader user/sched/sched.c share: the classes of threads and the values of its
 * maps. Compiled by both compilers; no pointers.
 */
#ifndef CLAUDEFS_SCHED_SHARED_H
#define CLAUDEFS_SCHED_SHARED_H

#include <linux/types.h>

/* A smaller number goes first. A thread that nobody gave a class is IO if it is io_uring's, else BULK. */
enum cfs_sched_class {
	CFS_SCHED_META,		/* answers requests */
	CFS_SCHED_IO,		/* carries completions of network and disk */
	CFS_SCHED_BULK,		/* checkpoints, scrubbing, metrics: what nobody waits for */
	CFS_SCHED_CLASSES,
};

/* The one value of the map `tunables`; may be changed at any time (bpftool map update). */
struct cfs_sched_tunables {
	__u64 slice_ns[CFS_SCHED_CLASSES];	/* how long a thread runs before its class is asked again */
	__u64 starve_ns;	/* a class that waited so long is served before those above it */
	__u64 give_up_ns;	/* a META thread that waited so long ends the scheduler; 0: never */
};

/* A value of the map `stats`, per class and CPU. */
struct cfs_sched_stats {
	__u64 runs;		/* times that a thread of the class got a CPU */
	__u64 waited_ns;	/* between being ready and running, of threads with a class */
	__u64 preempts;		/* CPUs taken from a lower class */
	__u64 starved;		/* times that it was served out of turn */
};

#define CFS_SCHED_WHY 160

/* The one value of the map `ended`. */
struct cfs_sched_ended {
	__u32 kind;		/* enum scx_exit_kind; 0 while it is at work */
	__u32 pad;
	char why[CFS_SCHED_WHY];
};

_Static_assert(sizeof(struct cfs_sched_tunables) == 40, "shared with BPF");
_Static_assert(sizeof(struct cfs_sched_stats) == 32, "shared with BPF");
_Static_assert(sizeof(struct cfs_sched_ended) == 168, "shared with BPF");

#endif
