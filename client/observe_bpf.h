/* SPDX-License-Identifier: MIT */
/*
 * observe_bpf.h - the kernel's view of this mount's requests (bpf/observe.bpf.c): loaded, attached, read, and taken away again. Exists
 * only while somebody observes, since every FUSE request on the machine pays for it. Private to observe.c, which
 * serialises the calls; poll() may run beside the others.
 */
#ifndef CFS_CLIENT_OBSERVE_BPF_H
#define CFS_CLIENT_OBSERVE_BPF_H

#include "claudefs/bpf_shared.h"

#include <stdbool.h>

struct cfs_bpf_maps;
struct cfs_obs_bpf;
struct cfs_trace;

struct cfs_obs_hot {
	uint64_t ino;
	struct cfs_bpf_heat heat;
};

/*
 * @conn_dev: the mount's device number, major << 20 | minor
 * Return: 0, or -errno and one line in why. Counting begins.
 */
int cfs_obs_bpf_open(const struct cfs_bpf_maps *maps, uint32_t conn_dev, struct cfs_obs_bpf **ret_b, char *why, size_t len);
void cfs_obs_bpf_close(struct cfs_obs_bpf *b);

/* since open */
void cfs_obs_bpf_ops(const struct cfs_obs_bpf *b, struct cfs_bpf_op ret_sum[CFS_BPF_OPS]);
/* the inodes with most requests, hottest first; returns how many */
unsigned cfs_obs_bpf_heat(const struct cfs_obs_bpf *b, struct cfs_obs_hot *ret_hot, unsigned max);
/* requests on their way just now */
uint64_t cfs_obs_bpf_inflight(const struct cfs_obs_bpf *b);

/* events are wanted, or not; of one process, one inode (0: of all) */
void cfs_obs_bpf_trace(struct cfs_obs_bpf *b, bool on, uint32_t pid, uint64_t ino);
/* put what came into t; waits up to wait_ms. 0 or -errno */
int cfs_obs_bpf_poll(struct cfs_obs_bpf *b, struct cfs_trace *t, int wait_ms);
/* events that found no room in the kernel's ring, since open */
uint64_t cfs_obs_bpf_lost(const struct cfs_obs_bpf *b);

#endif
