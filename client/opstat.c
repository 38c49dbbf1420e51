// SPDX-License-Identifier: MIT
/* opstat.c - see opstat.h. */
#include "client/opstat.h"

#include "base/base.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#define SHARDS 8u	/* of 55 KiB */

struct cfs_opstat {
	struct cfs_bpf_op op[SHARDS][CFS_BPF_OPS];
};

static const char *const names[CFS_BPF_OPS] = {
	[1] = "lookup", [2] = "forget", [3] = "getattr", [4] = "setattr", [5] = "readlink", [6] = "symlink", [8] = "mknod",
	[9] = "mkdir", [10] = "unlink", [11] = "rmdir", [12] = "rename", [13] = "link", [14] = "open", [15] = "read",
	[16] = "write", [17] = "statfs", [18] = "release", [20] = "fsync", [21] = "setxattr", [22] = "getxattr",
	[23] = "listxattr", [24] = "removexattr", [25] = "flush", [26] = "init", [27] = "opendir", [28] = "readdir",
	[29] = "releasedir", [30] = "fsyncdir", [31] = "getlk", [32] = "setlk", [33] = "setlkw", [34] = "access",
	[35] = "create", [36] = "interrupt", [37] = "bmap", [38] = "destroy", [39] = "ioctl", [40] = "poll",
	[42] = "batch_forget", [43] = "fallocate", [44] = "readdirplus", [45] = "rename2", [46] = "lseek",
	[47] = "copy_file_range", [50] = "syncfs", [51] = "tmpfile", [52] = "statx", [53] = "copy_file_range_64",
};

const char *cfs_opstat_name(uint32_t opcode, char buf[16])
{
	if (opcode < CFS_BPF_OPS && names[opcode])
		return names[opcode];
	snprintf(buf, 16, "op_%u", opcode);
	return buf;
}

int cfs_opstat_create(struct cfs_opstat **ret_s)
{
	struct cfs_opstat *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	*ret_s = s;
	return 0;
}

void cfs_opstat_destroy(struct cfs_opstat *s)
{
	free(s);
}

static void add(uint64_t *to, uint64_t v)
{
	__atomic_add_fetch(to, v, __ATOMIC_RELAXED);
}

static uint64_t get(const uint64_t *from)
{
	return __atomic_load_n(from, __ATOMIC_RELAXED);
}

void cfs_opstat_count(struct cfs_opstat *s, uint32_t opcode, uint64_t took_ns, bool failed)
{
	int cpu = sched_getcpu();
	struct cfs_bpf_op *op;

	if (opcode >= CFS_BPF_OPS)
		return;
	op = &s->op[cpu < 0 ? 0 : (unsigned)cpu % SHARDS][opcode];
	add(&op->count, 1);
	if (failed)
		add(&op->errors, 1);
	add(&op->total_ns, took_ns);
	add(&op->lat[cfs_bpf_lat_bucket(took_ns)], 1);
	if (took_ns > get(&op->max_ns))
		__atomic_store_n(&op->max_ns, took_ns, __ATOMIC_RELAXED); /* of two at once, one may be lost */
}

void cfs_opstat_add(struct cfs_bpf_op *a, const struct cfs_bpf_op *b)
{
	a->count += get(&b->count);
	a->errors += get(&b->errors);
	a->total_ns += get(&b->total_ns);
	a->max_ns = cfs_max(a->max_ns, get(&b->max_ns));
	for (unsigned i = 0; i < CFS_BPF_LATS; i++)
		a->lat[i] += get(&b->lat[i]);
}

void cfs_opstat_sum(const struct cfs_opstat *s, struct cfs_bpf_op ret_sum[CFS_BPF_OPS])
{
	for (unsigned op = 0; op < CFS_BPF_OPS; op++) {
		ret_sum[op] = (struct cfs_bpf_op){ 0 };
		for (unsigned i = 0; i < SHARDS; i++)
			cfs_opstat_add(&ret_sum[op], &s->op[i][op]);
	}
}
