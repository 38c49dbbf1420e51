/* SPDX-License-Identifier: MIT */
/*
 * opstat.h - the client's own count and timing of FUSE requests by opcode: always on, on every kernel. Times run from when the
 * request was taken to when its answer is given; what the kernel adds, observe.h sees where it can. A request whose
 * answer another thread gives later (a lock that waits) counts when its handler returns, without its result.
 *
 * Thread-safe without locks: counters in shards, by CPU. Sums are not one moment's.
 */
#ifndef CFS_CLIENT_OPSTAT_H
#define CFS_CLIENT_OPSTAT_H

#include "claudefs/bpf_shared.h"

#include <stdbool.h>

struct cfs_opstat;

/* 0 or -ENOMEM */
int cfs_opstat_create(struct cfs_opstat **ret_s);
void cfs_opstat_destroy(struct cfs_opstat *s);
/* opcodes beyond CFS_BPF_OPS are not counted */
void cfs_opstat_count(struct cfs_opstat *s, uint32_t opcode, uint64_t took_ns, bool failed);
void cfs_opstat_sum(const struct cfs_opstat *s, struct cfs_bpf_op ret_sum[CFS_BPF_OPS]);

/* adds b to a */
void cfs_opstat_add(struct cfs_bpf_op *a, const struct cfs_bpf_op *b);
/* "lookup"; of an opcode without a name "op_63", in buf */
const char *cfs_opstat_name(uint32_t opcode, char buf[16]);

#endif
