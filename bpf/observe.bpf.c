// SPDX-License-Identifier: GPL-2.0
/*
 * observe.bpf.c - counts, times and traces the FUSE requests of one mount, where the kernel sends them and where it has their
 * answer: background requests, requests over io_uring and those that a BPF program answers are all seen, and so is
 * the time they wait for the daemon. Other mounts' requests cost one comparison. Loaded with each mount, attached only
 * while somebody observes (client/observe.c).
 *
 * Nothing here changes what a request does. Counters are exact: they are per CPU and atomic, since a program may be
 * preempted by another task of the same CPU.
 */
#include "bpf/kernel.h"

#include "bpf/inflight.h"

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct cfs_bpf_obs_ctl);
} obs_ctl SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CFS_BPF_OPS);
	__type(key, __u32);
	__type(value, struct cfs_bpf_op);
} ops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct cfs_bpf_heat);
} heat SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

static __always_inline struct cfs_bpf_obs_ctl *get_ctl(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&obs_ctl, &zero);
}

/* which mount a request belongs to */
static __always_inline __u32 conn_dev(const struct fuse_req *req)
{
	const struct fuse_req___chan *r = (const void *)req;

	if (bpf_core_field_exists(r->chan))
		return r->chan->conn->dev;
	return req->fm->fc->dev;
}

SEC("tp_btf/fuse_request_send")
int BPF_PROG(observe__send, const struct fuse_req *req)
{
	struct cfs_bpf_obs_ctl *c = get_ctl();
	__u64 key = (__u64)req;
	struct cfs_bpf_req r = {};

	if (!c || conn_dev(req) != c->conn_dev)
		return 0;
	r.start_ns = bpf_ktime_get_boot_ns();
	r.unique = req->in.h.unique;
	r.nodeid = req->in.h.nodeid;
	r.opcode = req->in.h.opcode;
	r.pid = req->in.h.pid;
	r.uid = req->in.h.uid;
	r.len = req->in.h.len;
	bpf_map_update_elem(&inflight, &key, &r, BPF_ANY);
	return 0;
}

static __always_inline void count(const struct cfs_bpf_req *r, __u64 took, __s32 error)
{
	struct cfs_bpf_op *op;
	__u32 key = r->opcode, b;

	op = bpf_map_lookup_elem(&ops, &key);
	if (!op)
		return;
	b = cfs_bpf_lat_bucket(took);
	__sync_fetch_and_add(&op->count, 1);
	if (error)
		__sync_fetch_and_add(&op->errors, 1);
	__sync_fetch_and_add(&op->total_ns, took);
	if (took > op->max_ns)
		op->max_ns = took;
	if (b < CFS_BPF_LATS)
		__sync_fetch_and_add(&op->lat[b], 1);
}

static __always_inline void warm(const struct cfs_bpf_req *r, __u64 now, __u64 read, __u64 written)
{
	struct cfs_bpf_heat *h, first = { .ops = 1, .read_bytes = read, .write_bytes = written, .last_ns = now };
	__u64 key = r->nodeid;

	h = bpf_map_lookup_elem(&heat, &key);
	if (!h) {
		bpf_map_update_elem(&heat, &key, &first, BPF_NOEXIST);
		return;
	}
	__sync_fetch_and_add(&h->ops, 1);
	__sync_fetch_and_add(&h->read_bytes, read);
	__sync_fetch_and_add(&h->write_bytes, written);
	h->last_ns = now;
}

/* which of a request's arguments is the name it is about; -1: it has none */
static __always_inline int name_arg(const struct fuse_args *args, __u32 opcode)
{
	switch (opcode) {
	case FUSE_LOOKUP: /* newer kernels put an empty argument before it */
		return args->in_args[0].size ? 0 : 1;
	case FUSE_UNLINK:
	case FUSE_RMDIR:
	case FUSE_SYMLINK:
	case FUSE_REMOVEXATTR:
		return args->in_args[0].size ? 0 : 1;
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_RENAME:
	case FUSE_RENAME2:
	case FUSE_LINK:
	case FUSE_CREATE:
	case FUSE_SETXATTR:
	case FUSE_GETXATTR:
		return 1;
	}
	return -1;
}

static __always_inline void read_name(struct cfs_bpf_event *e, const struct fuse_args *args)
{
	const void *from = NULL;
	__u32 len = 0;

	switch (name_arg(args, e->opcode)) { /* constant indices, which the verifier wants */
	case 0:
		from = args->in_args[0].value;
		len = args->in_args[0].size;
		break;
	case 1:
		from = args->in_args[1].value;
		len = args->in_args[1].size;
		break;
	}
	if (!from || !len)
		return;
	e->name_len = len;
	if (len > CFS_BPF_EVENT_NAME)
		len = CFS_BPF_EVENT_NAME;
	bpf_probe_read_kernel(e->name, len, from);
}

static __always_inline void trace(struct cfs_bpf_obs_ctl *c, const struct fuse_req *req, const struct cfs_bpf_req *r, __u64 now,
				  __u32 bytes)
{
	struct cfs_bpf_event *e;

	if (!c->tracing || (c->trace_pid && c->trace_pid != r->pid) || (c->trace_ino && c->trace_ino != r->nodeid))
		return;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		__sync_fetch_and_add(&c->lost, 1);
		return;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->end_ns = now;
	e->latency_ns = now - r->start_ns;
	e->unique = r->unique;
	e->nodeid = r->nodeid;
	e->opcode = r->opcode;
	e->pid = r->pid;
	e->uid = r->uid;
	e->error = req->out.h.error;
	e->bytes = bytes;
	read_name(e, req->args);
	bpf_ringbuf_submit(e, 0);
}

SEC("tp_btf/fuse_request_end")
int BPF_PROG(observe__end, const struct fuse_req *req)
{
	struct cfs_bpf_obs_ctl *c = get_ctl();
	__u64 key = (__u64)req, now, read = 0, written = 0;
	struct cfs_bpf_req *found, r;
	__u32 len;

	if (!c || conn_dev(req) != c->conn_dev)
		return 0;
	found = bpf_map_lookup_elem(&inflight, &key);
	if (!found)
		return 0;
	r = *found;
	bpf_map_delete_elem(&inflight, &key);
	now = bpf_ktime_get_boot_ns();
	len = req->out.h.len;
	if (r.opcode == FUSE_READ && len > sizeof(struct fuse_out_header))
		read = len - sizeof(struct fuse_out_header);
	if (r.opcode == FUSE_WRITE && r.len > sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))
		written = r.len - sizeof(struct fuse_in_header) - sizeof(struct fuse_write_in);
	count(&r, now - r.start_ns, req->out.h.error);
	warm(&r, now, read, written);
	trace(c, req, &r, now, (__u32)(read + written));
	return 0;
}
