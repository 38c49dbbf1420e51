/* SPDX-License-Identifier: GPL-2.0 */
/*
 * inflight.h - the map of requests on their way, filled by observe.bpf.c while somebody observes. It is made with the mount, for the
 * table `inflight`, and given to the observing programs when those are loaded. More requests at once than it has room for are
 * not timed, nor are those that were under way when observing began.
 */
#ifndef CFS_BPF_INFLIGHT_H
#define CFS_BPF_INFLIGHT_H

#include "claudefs/bpf_shared.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct cfs_bpf_req);
} inflight SEC(".maps");

#endif
