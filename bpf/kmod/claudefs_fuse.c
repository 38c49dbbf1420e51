// SPDX-License-Identifier: GPL-2.0
/*
 * claudefs_fuse.c - lets a BPF program answer requests of one FUSE connection before its daemon sees them.
 *
 * FUSE sends every request through its connection's own table of queue operations (struct fuse_iqueue_ops: /dev/fuse,
 * virtiofs and io_uring have one each). A BPF struct_ops registers here with the daemon's /dev/fuse descriptor, which is
 * scope and permission at once; the connection's table is then replaced by a copy with our send_req. Other
 * mounts pay nothing. The program runs in the context of the process that asks; what it answers wakes nobody, what it
 * passes on goes to the operation that was there before.
 *
 * The structures of fs/fuse are private. fuse_layout.h, made from the target kernel's BTF by layout.c, has their offsets; sizes
 * are checked once more against the running kernel where that is possible (7.x), elsewhere vermagic must do.
 *
 * Life of a hook: the table lies inside it, so it is freed when nobody can be between reading fiq->ops and the end of
 * our send_req: synchronize_rcu_tasks() waits for who has read it, synchronize_rcu() for who is in the program. When
 * FUSE-over-io_uring starts it puts its own table in place of ours: the program is bypassed, and all goes on.
 */
#include <linux/bpf.h>
#include <linux/bpf_verifier.h>
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/fuse.h>
#include <linux/module.h>

#include "claudefs_fuse.h"
#include "fuse_layout.h"

#define FIELD(p, s, m, t)	(*(t *)((char *)(p) + OFF_##s##__##m))
#define HOOKS_MAX		256

struct fuse_conn;
struct fuse_forget_link;
struct fuse_iqueue;
struct fuse_req;

/* exported by fs/fuse for virtiofs and CUSE, declared in its private headers */
struct fuse_conn *fuse_conn_get(struct fuse_conn *fc);
void fuse_conn_put(struct fuse_conn *fc);
void fuse_request_end(struct fuse_req *req);
extern const struct file_operations fuse_dev_operations;

/* as struct fuse_iqueue_ops of all supported kernels */
struct queue_ops {
	void (*send_forget)(struct fuse_iqueue *fiq, struct fuse_forget_link *link);
	void (*send_interrupt)(struct fuse_iqueue *fiq, struct fuse_req *req);
	void (*send_req)(struct fuse_iqueue *fiq, struct fuse_req *req);
	void (*release)(struct fuse_iqueue *fiq);
};
static_assert(sizeof(struct queue_ops) == SZ_fuse_iqueue_ops);
static_assert(offsetof(struct queue_ops, send_forget) == OFF_fuse_iqueue_ops__send_forget);
static_assert(offsetof(struct queue_ops, send_interrupt) == OFF_fuse_iqueue_ops__send_interrupt);
static_assert(offsetof(struct queue_ops, send_req) == OFF_fuse_iqueue_ops__send_req);
static_assert(offsetof(struct queue_ops, release) == OFF_fuse_iqueue_ops__release);

struct hook {
	struct queue_ops ops;		/* fiq->ops points here */
	const struct queue_ops *orig;
	struct claudefs_fuse_ops *st;
	struct fuse_iqueue *fiq;
	struct fuse_conn *fc;		/* a reference */
	struct hook *next;
};

/* of all connections; only registering and unregistering look at it */
static struct hook *hooks;
static unsigned int nr_hooks;
static DEFINE_MUTEX(hooks_mutex);

/* ---- one request ----------------------------------------------------------------------------------------- */
struct kern_req {
	struct cfs_fuse_req r;		/* first: what the program sees */
	void *args;			/* struct fuse_args */
	const void *name;
	bool filled;
	struct {
		u64 nodeid;
		char name[CFS_FUSE_KEY_MAX - sizeof(u64)];
	} key;
};
static_assert(offsetof(struct kern_req, r) == 0);

static const void *in_value(void *args, unsigned int i)
{
	return FIELD(args + OFF_fuse_args__in_args + i * SZ_fuse_in_arg, fuse_in_arg, value, const void *);
}

static u32 in_size(void *args, unsigned int i)
{
	return FIELD(args + OFF_fuse_args__in_args + i * SZ_fuse_in_arg, fuse_in_arg, size, u32);
}

__bpf_kfunc_start_defs();

/* not void *: that counts as a plain number */
__bpf_kfunc u8 *cfs_fuse_key(struct cfs_fuse_req *req, const size_t rdwr_buf_size)
{
	struct kern_req *k = container_of(req, struct kern_req, r);
	u32 len = k->r.name_len;

	if (!k->name || rdwr_buf_size > sizeof(k->key) || rdwr_buf_size < sizeof(u64) || len > rdwr_buf_size - sizeof(u64))
		return NULL;
	k->key.nodeid = k->r.nodeid;
	memcpy(k->key.name, k->name, len);
	memset(k->key.name + len, 0, rdwr_buf_size - sizeof(u64) - len);
	return (u8 *)&k->key;
}

__bpf_kfunc int cfs_fuse_reply(struct cfs_fuse_req *req, const void *data, u32 data__sz)
{
	struct kern_req *k = container_of(req, struct kern_req, r);

	if (!data__sz || data__sz != k->r.out_size)
		return -EINVAL;
	memcpy(FIELD(k->args + OFF_fuse_args__out_args, fuse_arg, value, void *), data, data__sz);
	k->filled = true;
	return 0;
}

__bpf_kfunc_end_defs();

BTF_KFUNCS_START(cfs_kfunc_ids)
BTF_ID_FLAGS(func, cfs_fuse_key, KF_RET_NULL)
BTF_ID_FLAGS(func, cfs_fuse_reply)
BTF_KFUNCS_END(cfs_kfunc_ids)

static const struct btf_kfunc_id_set cfs_kfunc_set = { .owner = THIS_MODULE, .set = &cfs_kfunc_ids };

/* what a program may see of this request, taken out of its arguments; false: it is not for programs */
static bool describe(struct kern_req *k, void *args)
{
	unsigned int name_arg = 0, in_numargs = FIELD(args, fuse_args, in_numargs, u8);

	k->args = args;
	k->name = NULL;
	k->filled = false;
	k->r.opcode = FIELD(args, fuse_args, opcode, u32);
	k->r.nodeid = FIELD(args, fuse_args, nodeid, u64);
	k->r.name_len = k->r.arg = k->r.out_size = 0;
	switch (k->r.opcode) {
	case FUSE_LOOKUP:
		/* 6.12: the name and its NUL; 7.x: nothing, the name, the NUL */
		name_arg = in_size(args, 0) ? 0 : 1;
		if (name_arg >= in_numargs)
			return false;
		k->r.name_len = in_size(args, name_arg) - (name_arg == 0);
		k->name = in_value(args, name_arg);
		k->r.out_size = sizeof(struct fuse_entry_out);
		break;
	case FUSE_GETATTR:
		k->r.arg = ((const struct fuse_getattr_in *)in_value(args, 0))->getattr_flags;
		k->r.out_size = sizeof(struct fuse_attr_out);
		break;
	case FUSE_STATX:
		k->r.arg = ((const struct fuse_statx_in *)in_value(args, 0))->getattr_flags;
		k->r.out_size = sizeof(struct fuse_statx_out);
		break;
	case FUSE_GETXATTR:
		if (in_numargs < 2 || !in_size(args, 1))
			return false;
		k->r.arg = ((const struct fuse_getxattr_in *)in_value(args, 0))->size;
		k->r.name_len = in_size(args, 1) - 1;
		k->name = in_value(args, 1);
		break;
	default:
		return false;
	}
	return !k->r.out_size || (FIELD(args, fuse_args, out_numargs, u8) == 1 &&
				  FIELD(args + OFF_fuse_args__out_args, fuse_arg, size, u32) == k->r.out_size);
}

/* ask the program; true: answered, *ret_error is 0 or -errno */
static noinline bool answer(struct hook *h, struct fuse_req *req, int *ret_error)
{
	struct kern_req k;
	int r;

	if (!describe(&k, FIELD(req, fuse_req, args, void *)))
		return false;
	r = h->st->handle(&k.r);
	if (r > 0 || r < -511 || (!r && !k.filled))
		return false;
	*ret_error = r;
	return true;
}

static void send_req(struct fuse_iqueue *fiq, struct fuse_req *req)
{
	unsigned long *flags = &FIELD(req, fuse_req, flags, unsigned long);
	const struct queue_ops *ops;
	bool answered = false;
	int error = 0;

	rcu_read_lock();
	ops = smp_load_acquire(&FIELD(fiq, fuse_iqueue, ops, const struct queue_ops *));
	if (ops->send_req == send_req) {	/* else: just unregistered */
		struct hook *h = container_of(ops, struct hook, ops);

		ops = h->orig;
		/* nobody waits for background requests in place: they are the daemon's */
		if (!test_bit(VAL_FR_BACKGROUND, flags))
			answered = answer(h, req, &error);
	}
	rcu_read_unlock();
	if (!answered) {
		ops->send_req(fiq, req);	/* static tables of fs/fuse */
		return;
	}
	FIELD(req, fuse_req, out, struct fuse_out_header).error = error;
	clear_bit(VAL_FR_PENDING, flags);
	fuse_request_end(req);
}

/* ---- registering -------------------------------------------------------------------------------------------- */
/* refuse to work on a kernel whose structures are not the ones we were built for */
static int check_layout(struct btf *unused)
{
#ifdef HAVE_CHAN	/* bpf_find_btf_id() is not exported by 6.12 */
	static const struct {
		const char *name;
		u32 size;
	} built_for[] = {
		{ "fuse_args", SZ_fuse_args }, { "fuse_in_arg", SZ_fuse_in_arg }, { "fuse_arg", SZ_fuse_arg },
		{ "fuse_req", SZ_fuse_req }, { "fuse_iqueue", SZ_fuse_iqueue }, { "fuse_dev", SZ_fuse_dev },
		{ "fuse_chan", SZ_top },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(built_for); i++) {
		struct btf *btf;
		s32 id = bpf_find_btf_id(built_for[i].name, BTF_KIND_STRUCT, &btf);
		const struct btf_type *t = id > 0 ? btf_type_by_id(btf, id) : NULL;

		/* btf_put() is not exported; one reference on the kernel's own BTF, which is never freed, stays */
		if (!t || t->size != built_for[i].size) {
			pr_err("struct %s has %u bytes in this kernel, not %u: build the module for it\n", built_for[i].name,
			       t ? t->size : 0, built_for[i].size);
			return -EINVAL;
		}
	}
#endif
	return 0;
}

static int check_member(const struct btf_type *t, const struct btf_member *member, const struct bpf_prog *prog)
{
	return prog->sleepable ? -EINVAL : 0;	/* we call it under RCU */
}

static int init_member(const struct btf_type *t, const struct btf_member *member, void *kdata, const void *udata)
{
	const struct claudefs_fuse_ops *u = udata;
	struct claudefs_fuse_ops *k = kdata;

	switch (__btf_member_bit_offset(t, member) / 8) {
	case offsetof(struct claudefs_fuse_ops, fuse_fd):
		k->fuse_fd = u->fuse_fd;
		return 1;
	case offsetof(struct claudefs_fuse_ops, abi):
		k->abi = u->abi;
		return 1;
	}
	return 0;
}

static int validate(void *kdata)
{
	struct claudefs_fuse_ops *st = kdata;

	return !st->handle ? -EINVAL : st->abi != CFS_FUSE_ABI ? -EPROTONOSUPPORT : 0;
}

static int reg(void *kdata, struct bpf_link *link)
{
	struct claudefs_fuse_ops *st = kdata;
	struct hook *h, *other;
	void *top;
	CLASS(fd, f)(st->fuse_fd);

	if (fd_empty(f) || fd_file(f)->f_op != &fuse_dev_operations)
		return -EBADF;
	top = fd_file(f)->private_data;
	top = top ? smp_load_acquire(&FIELD(top, fuse_dev, top, void *)) : NULL;
	if ((unsigned long)top < PAGE_SIZE)	/* not mounted yet, or no more: NULL and small numbers */
		return -ENOTCONN;
	h = kzalloc(sizeof(*h), GFP_KERNEL);
	if (!h)
		return -ENOMEM;
	h->st = st;
	h->fiq = top + OFF_top__iq;
	guard(mutex)(&hooks_mutex);
	for (other = hooks; other && other->fiq != h->fiq; other = other->next)
		;
	if (other || nr_hooks == HOOKS_MAX) {
		kfree(h);
		return other ? -EBUSY : -ENOSPC;
	}
#ifdef HAVE_CHAN
	h->fc = fuse_conn_get(FIELD(top, top, conn, struct fuse_conn *));
#else
	h->fc = fuse_conn_get(top);
#endif
	h->orig = READ_ONCE(FIELD(h->fiq, fuse_iqueue, ops, const struct queue_ops *));
	h->ops = *h->orig;
	h->ops.send_req = send_req;
	h->next = hooks;
	hooks = h;
	nr_hooks++;
	smp_store_release(&FIELD(h->fiq, fuse_iqueue, ops, const struct queue_ops *), &h->ops);
	return 0;
}

static void unreg(void *kdata, struct bpf_link *link)
{
	struct hook **p, *h;

	guard(mutex)(&hooks_mutex);
	for (p = &hooks; *p && (*p)->st != kdata; p = &(*p)->next)
		;
	h = *p;
	if (!h)
		return;
	*p = h->next;
	nr_hooks--;
	/* unless io_uring's table has taken the place of ours */
	cmpxchg(&FIELD(h->fiq, fuse_iqueue, ops, const struct queue_ops *), &h->ops, h->orig);
	synchronize_rcu_tasks();
	synchronize_rcu();
	fuse_conn_put(h->fc);
	kfree(h);
}

static int stub_handle(struct cfs_fuse_req *req)
{
	return CFS_FUSE_PASS;
}

static struct claudefs_fuse_ops stubs = { .handle = stub_handle };

static const struct bpf_verifier_ops verifier_ops = {
	.get_func_proto = bpf_base_func_proto,
	.is_valid_access = bpf_tracing_btf_ctx_access,
};

static struct bpf_struct_ops bpf_claudefs_fuse_ops = {
	.verifier_ops = &verifier_ops,
	.init = check_layout,
	.check_member = check_member,
	.init_member = init_member,
	.validate = validate,
	.reg = reg,
	.unreg = unreg,
	.cfi_stubs = &stubs,
	.name = "claudefs_fuse_ops",
	.owner = THIS_MODULE,
};

static int __init claudefs_fuse_init(void)
{
	int err = register_btf_kfunc_id_set(BPF_PROG_TYPE_STRUCT_OPS, &cfs_kfunc_set);

	return err ?: register_bpf_struct_ops(&bpf_claudefs_fuse_ops, claudefs_fuse_ops);
}

/* a registered struct_ops holds the module: there is nothing left to take down */
static void __exit claudefs_fuse_exit(void)
{
}

module_init(claudefs_fuse_init);
module_exit(claudefs_fuse_exit);
MODULE_LICENSE("GPL");
MODULE_AUTHOR("The ClaudeFS authors");
MODULE_DESCRIPTION("BPF programs answer FUSE requests (struct_ops claudefs_fuse_ops)");
MODULE_VERSION("1");
