// SPDX-License-Identifier: GPL-2.0
/*
 * fuse_answer.bpf.c - the program that answers LOOKUP, GETATTR, STATX and GETXATTR for a mount, in the kernel and in the
 * context of who asks: the struct_ops of bpf/kmod. The logic is fuse_answer.h; here are its maps and its surroundings.
 */
#include <linux/bpf.h>
#include <linux/fuse.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "bpf/kmod/claudefs_fuse.h"
#include "bpf/maps.h"
#include "uapi/fuse_statx.h"

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct cfs_bpf_gate);
} gate SEC(".maps");

extern __u8 *cfs_fuse_key(struct cfs_fuse_req *req, const __kernel_size_t rdwr_buf_size) __ksym;
extern int cfs_fuse_reply(struct cfs_fuse_req *req, const void *data, __u32 data__sz) __ksym;

#define CFS_ANSWER_FN static __noinline
#define CFS_ANSWER_INLINE static __always_inline
#define cfs_now() bpf_ktime_get_boot_ns()
#define cfs_key(req, size) ((const void *)cfs_fuse_key(req, size))
#define cfs_reply(req, data, size) cfs_fuse_reply(req, data, size)
#define cfs_find_name(key) bpf_map_lookup_elem(&names, key)
#define cfs_find_long(key) bpf_map_lookup_elem(&long_names, key)

static __always_inline struct cfs_bpf_attr *cfs_find_attr(__u64 ino)
{
	return bpf_map_lookup_elem(&attrs, &ino);
}

static __always_inline struct cfs_bpf_dir *cfs_find_dir(__u64 ino)
{
	return bpf_map_lookup_elem(&dirs, &ino);
}

#include "bpf/fuse_answer.h"

SEC("struct_ops/handle")
int BPF_PROG(handle, struct cfs_fuse_req *req)
{
	__u32 zero = 0, stale = 0, op = req->opcode;
	struct cfs_bpf_ctl *c = bpf_map_lookup_elem(&ctl, &zero);
	struct cfs_bpf_gate *g = bpf_map_lookup_elem(&gate, &zero);
	struct cfs_bpf_stats *s = bpf_map_lookup_elem(&stats, &zero);
	int r;

	if (!c || !g || !s || op >= CFS_BPF_OPS)
		return CFS_FUSE_PASS;
	r = cfs_answer(req, c, g, &stale);
	/* not atomic: a count may be lost when we are preempted here, nothing else */
	if (r <= 0)
		s->hit[op]++;
	else if (stale)
		s->stale[op]++;
	else
		s->miss[op]++;
	return r;
}

SEC(".struct_ops.link")
struct claudefs_fuse_ops answer = { .handle = (void *)handle, .abi = CFS_FUSE_ABI };
