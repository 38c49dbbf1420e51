// SPDX-License-Identifier: MIT
/*
 * fuse_name.c - operations on names: lookup, mknod and its kin, unlink, rename, link, readlink.
 *
 * A mutation marks its directories busy while it waits (notify.h). What it changed is noted like a break when its reply is
 * here, so that older replies that are still on their way to their workers do not bring the old state back.
 */
#include "client/fuse_ops_i.h"
#include "client/prefetch.h"
#include "client/notify.h"

#include "base/log.h"

#include <stdlib.h>

#define PIN_TRIES	128u	/* a file that is replaced each millisecond is missed more often than not */
#define RENAME_NOREPLACE_	1u
#define RENAME_EXCHANGE_	2u

/* the cache's answer, inside a section; false: ask the server. *ret_ino: 0 if there is no such name */
static bool lookup_cached(struct cfs_op *op, uint64_t dir, const char *name, size_t len, const struct cfs_ttl *ttl,
			  uint64_t *ret_ino)
{
	struct fuse_entry_param e = { .entry_timeout = ttl->seconds };
	struct cfs_client *c = op->c;
	struct cfs_attr attr;
	uint64_t ino = 0;

	switch (cfs_dcache_name(c->dcache, dir, name, len, ttl->until_ns, &ino)) {
	case CFS_DC_ABSENT:
		cfs_count(c, dc_negative);
		break;
	case CFS_DC_PRESENT:
		if (!cfs_dcache_attr(c->dcache, ino, &attr))
			return false;
		cfs_count(c, dc_lookup);
		e.attr_timeout = ttl->seconds;
		cfs_kernel_has_attr(c, &attr, ttl->until_ns);
		e.ino = ino;
		e.generation = cfs_le64_to_cpu(attr.gen);
		cfs_op_stat(c, &attr, &e.attr);
		cfs_inode_told(c, &attr);
		break;
	case CFS_DC_MISS:
		return false;
	}
	op->t->req = NULL;
	fuse_reply_entry(op->req, &e);
	*ret_ino = ino;
	return true;
}

void cfs_fuse_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_lookup_req body = { .dir = cfs_cpu_to_le64(parent) };
	struct cfs_op_req r = { .opcode = CFS_OP_LOOKUP, .fixed = &body, .fixed_len = sizeof(body) };
	struct fuse_entry_param e = { 0 };
	struct cfs_client *c = op.c;
	struct cfs_entry_rep rep = { 0 };
	struct cfs_ttl ttl = cfs_op_ttl(c);
	struct cfs_attr attr;
	size_t len = cfs_op_name_len(&op, name);
	bool done = false, pin;
	uint64_t ino;
	int rc;

	if (!len)
		return;
	pin = cfs_pin_wanted(c, (uint32_t)fuse_req_ctx(req)->pid);
	if (ttl.until_ns && !pin) {
		cfs_reply_begin(c);
		done = lookup_cached(&op, parent, name, len, &ttl, &ino);
		cfs_reply_end(c);
	}
	if (done) {
		cfs_dcache_mirror_name(c->dcache, parent, name, len);
		if (ino)
			cfs_dcache_mirror_attr(c->dcache, ino);
		return;
	}
	cfs_prefetch_want(__atomic_load_n(&c->prefetch, __ATOMIC_ACQUIRE), parent, false);
	body.name_len = cfs_cpu_to_le32((uint32_t)len);
	r.more[0] = (struct iovec){ (void *)(uintptr_t)name, len };
	for (unsigned tries = 0; tries < PIN_TRIES; tries++) {
		rc = cfs_op_call_want(&op, &r, sizeof(rep));
		if (rc && !(rc == ENOENT && r.rep_len >= sizeof(rep))) {
			cfs_op_err(&op, cfs_op_errno(rc));
			return;
		}
		memcpy(&rep, cfs_thread_buf(op.t), sizeof(rep));
		if (rc)
			rep.attr.ino = 0;
		if (rc || !pin || !S_ISREG(cfs_le32_to_cpu(rep.attr.mode)) || cfs_pin(&op, &rep.attr) != ESTALE)
			break;
	}
	/*
	 * Another session writes the file: its size is old. The kernel takes the size from here until it asks, and what it asks may
	 * be lost to an invalidation; so ask first.
	 */
	if (!rc && S_ISREG(cfs_le32_to_cpu(rep.attr.mode)) && !(cfs_le32_to_cpu(rep.valid) & CFS_V_ATTR) &&
	    !cfs_op_getattr(&op, cfs_attr_ino(&rep.attr), &attr))
		rep.attr = attr;
	op.t->req = NULL;
	cfs_reply_begin(c);
	ttl = cfs_op_ttl(c);
	e.entry_timeout = cfs_op_keep_name(c, parent, name, len, cfs_attr_ino(&rep.attr), cfs_le32_to_cpu(rep.valid),
					   r.break_gen, &ttl);
	if (rep.attr.ino)
		cfs_op_entry(c, &rep.attr, cfs_le32_to_cpu(rep.valid), r.break_gen, &ttl, &e);
	/* an absent name that may not be kept is an error for the kernel, which then keeps nothing */
	if (rep.attr.ino || e.entry_timeout > 0)
		fuse_reply_entry(req, &e);
	else
		fuse_reply_err(req, ENOENT);
	cfs_reply_end(c);
}

/* node ids are inode numbers: nothing here depends on the kernel's count of look-ups */
void cfs_fuse_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	(void)ino;
	(void)nlookup;
	fuse_reply_none(req);
}

void cfs_fuse_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	(void)count;
	(void)forgets;
	fuse_reply_none(req);
}

void cfs_fuse_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_ino_req body = { .ino = cfs_cpu_to_le64(ino) };
	struct cfs_op_req r = { .opcode = CFS_OP_READLINK, .fixed = &body, .fixed_len = sizeof(body) };
	int rc = cfs_op_call_want(&op, &r, 1);
	char *target = cfs_thread_buf(op.t);

	if (!rc && (r.rep_len > CFS_SYMLINK_MAX || memchr(target, 0, r.rep_len)))
		rc = -EIO;
	if (rc) {
		cfs_op_err(&op, cfs_op_errno_stale(rc));
		return;
	}
	target[r.rep_len] = 0;
	op.t->req = NULL;
	fuse_reply_readlink(req, target);
}

/* ---- making --------------------------------------------------------------------------------- */
int cfs_op_mknode(struct cfs_op *op, struct cfs_mk *mk)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(op->req);
	size_t target_len = mk->target ? strlen(mk->target) : 0;
	struct cfs_mknode_req body = {
		.dir = cfs_cpu_to_le64(mk->dir),
		.cred = { .uid = cfs_cpu_to_le32(ctx->uid), .gid = cfs_cpu_to_le32(ctx->gid),
			  .umask = cfs_cpu_to_le32(ctx->umask), .pid = cfs_cpu_to_le32((uint32_t)ctx->pid) },
		.mode = cfs_cpu_to_le32(mk->mode), .rdev = cfs_cpu_to_le32(mk->rdev),
		.flags = cfs_cpu_to_le32(mk->flags), .name_len = cfs_cpu_to_le32((uint32_t)mk->len),
		.target_len = cfs_cpu_to_le32((uint32_t)target_len),
	};
	struct cfs_op_req r = {
		.opcode = CFS_OP_MKNODE, .mutating = true, .fixed = &body, .fixed_len = sizeof(body),
		.more = { { (void *)(uintptr_t)mk->name, mk->len }, { (void *)(uintptr_t)mk->target, target_len } },
	};
	struct cfs_make_rep rep;
	int rc;

	if (target_len > CFS_SYMLINK_MAX)
		return -ENAMETOOLONG;
	cfs_busy_begin(op->c, mk->dir);
	rc = cfs_op_call_want(op, &r, sizeof(rep));
	cfs_busy_end_later(op->c, mk->dir);
	mk->break_gen = r.break_gen;
	if (!rc) {
		memcpy(&rep, cfs_thread_buf(op->t), sizeof(rep));
		mk->rep = rep.entry;
		mk->dirattr = rep.dirattr;
	} else if (mk->name) /* whatever we believed about the name may be wrong */
		cfs_dcache_drop_name(op->c->dcache, mk->dir, mk->name, mk->len);
	return rc;
}

void cfs_op_made(struct cfs_op *op, struct cfs_mk *mk, struct fuse_entry_param *e)
{
	uint32_t valid = cfs_le32_to_cpu(mk->rep.valid);
	struct cfs_client *c = op->c;
	struct cfs_ttl ttl = cfs_op_ttl(c);

	if (mk->name) {
		e->entry_timeout = cfs_op_changed_name(c, mk->dir, mk->name, mk->len, cfs_attr_ino(&mk->rep.attr),
						       valid, mk->break_gen, &ttl);
		cfs_op_changed_dir(c, mk->dir, &mk->dirattr, valid, mk->break_gen);
	}
	cfs_op_entry(c, &mk->rep.attr, valid, mk->break_gen, &ttl, e);
	/* with its lease from the first moment: what is not there is known */
	if (S_ISDIR(cfs_le32_to_cpu(mk->rep.attr.mode)) && e->attr_timeout > 0)
		cfs_dcache_put_whole(c->dcache, e->ino, mk->break_gen, cfs_dcache_whole_begin(c->dcache, e->ino));
}

static void make(fuse_req_t req, struct cfs_mk *mk)
{
	struct cfs_op op = cfs_op_begin(req);
	struct fuse_entry_param e = { 0 };
	int rc;

	mk->len = cfs_op_name_len(&op, mk->name);
	if (!mk->len)
		return;
	rc = cfs_op_mknode(&op, mk);
	if (rc) {
		cfs_op_err(&op, cfs_op_errno(rc));
		return;
	}
	op.t->req = NULL;
	cfs_reply_begin(op.c);
	cfs_op_made(&op, mk, &e);
	fuse_reply_entry(req, &e);
	cfs_reply_end(op.c);
}

void cfs_fuse_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	make(req, &(struct cfs_mk){ .dir = parent, .name = name, .mode = mode, .rdev = (uint32_t)rdev });
}

void cfs_fuse_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	make(req, &(struct cfs_mk){ .dir = parent, .name = name, .mode = S_IFDIR | (mode & 07777) });
}

void cfs_fuse_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	make(req, &(struct cfs_mk){ .dir = parent, .name = name, .target = target, .mode = S_IFLNK | 0777 });
}

void cfs_fuse_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	struct cfs_op op = cfs_op_begin(req);
	size_t len = cfs_op_name_len(&op, newname);
	struct cfs_link_req body = { .ino = cfs_cpu_to_le64(ino), .dir = cfs_cpu_to_le64(newparent),
				     .name_len = cfs_cpu_to_le32((uint32_t)len) };
	struct cfs_make_rep rep;
	struct cfs_op_req r = {
		.opcode = CFS_OP_LINK, .mutating = true, .fixed = &body, .fixed_len = sizeof(body),
		.more = { { (void *)(uintptr_t)newname, len } },
	};
	struct fuse_entry_param e = { 0 };
	struct cfs_client *c = op.c;
	struct cfs_inode *i;
	struct cfs_ttl ttl;
	uint32_t valid;
	int rc;

	if (!len)
		return;
	cfs_busy_begin(c, newparent);
	rc = cfs_op_call_want(&op, &r, sizeof(rep));
	cfs_busy_end_later(c, newparent);
	if (rc) {
		cfs_dcache_drop_name(c->dcache, newparent, newname, len);
		cfs_op_err(&op, cfs_op_errno(rc));
		return;
	}
	memcpy(&rep, cfs_thread_buf(op.t), sizeof(rep));
	valid = cfs_le32_to_cpu(rep.entry.valid);
	i = cfs_inode_find(c, ino);
	if (i) { /* a file from O_TMPFILE has a name now */
		pthread_mutex_lock(&i->lock);
		i->orphan = false;
		pthread_mutex_unlock(&i->lock);
	}
	cfs_inode_put(c, i);
	op.t->req = NULL;
	cfs_reply_begin(c);
	ttl = cfs_op_ttl(c);
	e.entry_timeout = cfs_op_changed_name(c, newparent, newname, len, ino, valid, r.break_gen, &ttl);
	cfs_op_changed_dir(c, newparent, &rep.dirattr, valid, r.break_gen);
	e.attr_timeout = cfs_op_changed_attr(c, &rep.entry.attr, valid, r.break_gen, &ttl);
	e.ino = ino;
	e.generation = cfs_le64_to_cpu(rep.entry.attr.gen);
	cfs_op_stat(c, &rep.entry.attr, &e.attr);
	cfs_inode_told(c, &rep.entry.attr);
	fuse_reply_entry(req, &e);
	cfs_reply_end(c);
}

/* ---- taking away ---------------------------------------------------------------------------------- */
/* what we know of the inode behind a name, to spare the server a question; 0: nothing. Else hint_end() afterwards */
static uint64_t hint_begin(struct cfs_client *c, uint64_t dir, const char *name, size_t len, uint8_t *ret_open)
{
	uint64_t ino = 0;

	/* the kernel has looked it up before it asks to remove it */
	if (cfs_dcache_name(c->dcache, dir, name, len, 0, &ino) != CFS_DC_PRESENT)
		ino = cfs_hint_get(c, dir, name, len);
	if (!ino)
		return 0;
	cfs_victim_begin(c, ino);
	*ret_open = cfs_inode_is_open(c, ino);
	return ino;
}

static void hint_end(struct cfs_client *c, uint64_t ino)
{
	if (ino)
		cfs_victim_end(c, ino);
}

/*
 * What is left to do after the reply. The reply of UNLINK and RENAME tells the kernel nothing new about inodes and
 * moved names: it goes on with the timeouts it has. Where the lease for them was not given, it is told to forget.
 */
struct after {
	uint64_t stale[2];		/* inodes whose attributes the kernel may hold without a lease */
	unsigned n_stale;
	bool stale_names;
	uint64_t release;		/* an orphan that nobody here has open any more, or 0 */
};

static void changed_inode(struct cfs_client *c, const struct cfs_attr *attr, uint32_t valid, uint64_t since, struct after *after)
{
	struct cfs_ttl ttl = cfs_op_ttl(c);

	if (!(cfs_op_changed_attr(c, attr, attr->nlink ? valid : 0, since, &ttl) > 0))
		after->stale[after->n_stale++] = cfs_attr_ino(attr);
}

static void lost_name(struct cfs_client *c, const struct cfs_attr *attr, uint32_t valid, uint64_t since, bool orphan,
		      struct after *after)
{
	changed_inode(c, attr, valid, since, after);
	if (!orphan)
		return;
	/* our hint may have spoken of another inode: who opens this one from now on waits until it is released */
	cfs_victim_begin(c, cfs_attr_ino(attr));
	if (!cfs_inode_set_orphan(c, cfs_attr_ino(attr)))
		after->release = cfs_attr_ino(attr);
	else
		cfs_victim_end(c, cfs_attr_ino(attr));
}

/* before the reply: an answer to who asks for these attributes after it must not be thrown away by this (notify.h) */
static void forget_stale(struct cfs_client *c, const struct after *after)
{
	for (unsigned i = 0; i < after->n_stale; i++)
		cfs_notify_attr(c, after->stale[i]);
}

static void finish_after(struct cfs_client *c, const struct after *after)
{
	if (!after->release)
		return;
	cfs_op_release_orphan(c, after->release, false);
	cfs_victim_end(c, after->release);
}

/*
 * Outside of sections, before the reply: data of an inode without names that is not open here. It is of no use to anybody,
 * unless another session has it open: if there is something here that the server has not seen, it is asked.
 */
static void forget_data(struct cfs_op *op, const struct cfs_attr *attr, bool orphan)
{
	struct cfs_client *c = op->c;
	struct cfs_attr known;
	struct cfs_data *d;

	if (attr->nlink || orphan || !cfs_has_data(c) || !S_ISREG(cfs_le32_to_cpu(attr->mode)))
		return;
	d = cfs_data_find(c, cfs_attr_ino(attr));
	if (!d)
		return;
	if (cfs_data_unsaved(d)) {
		cfs_dcache_drop_attr(c->dcache, cfs_attr_ino(attr));
		if (!cfs_op_getattr(op, cfs_attr_ino(attr), &known))
			cfs_data_flush(d);
	}
	cfs_data_forget(d);
	cfs_data_put(d);
}

static void remove_name(fuse_req_t req, uint64_t dir, const char *name, bool rmdir)
{
	struct cfs_op op = cfs_op_begin(req);
	size_t len = cfs_op_name_len(&op, name);
	struct cfs_unlink_req body = { .dir = cfs_cpu_to_le64(dir), .name_len = cfs_cpu_to_le32((uint32_t)len),
				       .rmdir = rmdir };
	struct cfs_op_req r = {
		.opcode = CFS_OP_UNLINK, .mutating = true, .fixed = &body, .fixed_len = sizeof(body),
		.more = { { (void *)(uintptr_t)name, len } },
	};
	struct cfs_client *c = op.c;
	struct cfs_unlink_rep rep;
	struct after after = { .n_stale = 0 };
	uint64_t victim;
	uint32_t valid;
	struct cfs_ttl ttl;
	int rc;

	if (!len)
		return;
	victim = hint_begin(c, dir, name, len, &body.hint_open);
	body.hint_ino = cfs_cpu_to_le64(victim);
	cfs_busy_begin(c, dir);
	if (rmdir && victim)
		cfs_busy_begin(c, victim);
	rc = cfs_op_call_want(&op, &r, sizeof(rep));
	if (rmdir && victim)
		cfs_busy_end_later(c, victim);
	cfs_busy_end_later(c, dir);
	if (rc) {
		hint_end(c, victim);
		cfs_dcache_drop_name(c->dcache, dir, name, len);
		cfs_op_err(&op, cfs_op_errno(rc));
		return;
	}
	memcpy(&rep, cfs_thread_buf(op.t), sizeof(rep));
	valid = cfs_le32_to_cpu(rep.valid);
	cfs_debug("unlink %llx/%s: hint %llx open %u; inode %llx links %u orphan %u", (unsigned long long)dir, name,
		  (unsigned long long)victim, body.hint_open, (unsigned long long)cfs_attr_ino(&rep.attr),
		  cfs_le32_to_cpu(rep.attr.nlink), cfs_le32_to_cpu(rep.orphan));
	forget_data(&op, &rep.attr, rep.orphan);
	op.t->req = NULL;
	cfs_reply_begin(c);
	ttl = cfs_op_ttl(c);
	cfs_op_changed_name(c, dir, name, len, 0, valid, r.break_gen, &ttl);
	cfs_op_changed_dir(c, dir, &rep.dirattr, valid, r.break_gen);
	lost_name(c, &rep.attr, valid, r.break_gen, rep.orphan, &after);
	if (!rep.attr.nlink || rmdir)
		cfs_removed_add(c, &rep.attr);
	forget_stale(c, &after);
	fuse_reply_err(req, 0);
	cfs_reply_end(c);
	finish_after(c, &after);
	hint_end(c, victim); /* who waits to open it finds it gone */
}

void cfs_fuse_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, false);
}

void cfs_fuse_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, true);
}

struct rename_args {
	uint64_t old_dir, new_dir;
	const char *old_name, *new_name;
	size_t old_len, new_len;
	bool exchange;
};

/* inside a section: names, attributes and directories after a rename */
static void renamed(struct cfs_client *c, const struct rename_args *a, const struct cfs_rename_rep *rep, uint64_t since,
		    struct after *after)
{
	uint32_t valid = cfs_le32_to_cpu(rep->valid);
	uint64_t ino = cfs_attr_ino(&rep->attr), other = cfs_attr_ino(&rep->other);
	struct cfs_ttl ttl = cfs_op_ttl(c);
	double old_kept, new_kept;

	old_kept = cfs_op_changed_name(c, a->old_dir, a->old_name, a->old_len, a->exchange ? other : 0, valid, since,
				       &ttl);
	new_kept = cfs_op_changed_name(c, a->new_dir, a->new_name, a->new_len, ino, valid, since, &ttl);
	after->stale_names = !(new_kept > 0) || (a->exchange && !(old_kept > 0));
	cfs_op_changed_dir(c, a->old_dir, NULL, 0, since);
	if (a->new_dir != a->old_dir)
		cfs_op_changed_dir(c, a->new_dir, NULL, 0, since);
	changed_inode(c, &rep->attr, valid, since, after);
	if (other)
		lost_name(c, &rep->other, valid, since, rep->orphan, after);
}

void cfs_fuse_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname,
		     unsigned int flags)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_client *c = op.c;
	struct rename_args a = {
		.old_dir = parent, .new_dir = newparent, .old_name = name, .new_name = newname,
		.exchange = flags & RENAME_EXCHANGE_,
	};
	struct cfs_rename_req body = { .old_dir = cfs_cpu_to_le64(parent), .new_dir = cfs_cpu_to_le64(newparent),
				       .flags = cfs_cpu_to_le32(flags) };
	struct cfs_op_req r = { .opcode = CFS_OP_RENAME, .mutating = true, .fixed = &body, .fixed_len = sizeof(body) };
	uint64_t moved = 0, victim, busy[4];
	struct after after = { .n_stale = 0 };
	struct cfs_rename_rep rep;
	unsigned n_busy = 0;
	int rc;

	a.old_len = cfs_op_name_len(&op, name);
	if (!a.old_len)
		return;
	a.new_len = cfs_op_name_len(&op, newname);
	if (!a.new_len)
		return;
	if (flags & ~(RENAME_NOREPLACE_ | RENAME_EXCHANGE_)) {
		cfs_op_err(&op, EINVAL);
		return;
	}
	body.old_len = cfs_cpu_to_le32((uint32_t)a.old_len);
	body.new_len = cfs_cpu_to_le32((uint32_t)a.new_len);
	r.more[0] = (struct iovec){ (void *)(uintptr_t)name, a.old_len };
	r.more[1] = (struct iovec){ (void *)(uintptr_t)newname, a.new_len };
	victim = hint_begin(c, newparent, newname, a.new_len, &body.hint_open);
	body.hint_ino = cfs_cpu_to_le64(victim);
	if (cfs_dcache_name(c->dcache, parent, name, a.old_len, 0, &moved) != CFS_DC_PRESENT)
		moved = 0;
	busy[n_busy++] = parent;
	busy[n_busy++] = newparent;
	if (moved)
		busy[n_busy++] = moved;
	if (victim)
		busy[n_busy++] = victim;
	for (unsigned i = 0; i < n_busy; i++)
		cfs_busy_begin(c, busy[i]);
	rc = cfs_op_call_want(&op, &r, sizeof(rep));
	for (unsigned i = 0; i < n_busy; i++)
		cfs_busy_end_later(c, busy[i]);
	if (rc) {
		hint_end(c, victim);
		cfs_dcache_drop_name(c->dcache, parent, name, a.old_len);
		cfs_dcache_drop_name(c->dcache, newparent, newname, a.new_len);
		cfs_op_err(&op, cfs_op_errno(rc));
		return;
	}
	memcpy(&rep, cfs_thread_buf(op.t), sizeof(rep));
	cfs_debug("rename %llx/%s to %llx/%s: hint %llx open %u; inode %llx instead of %llx links %u orphan %u",
		  (unsigned long long)parent, name, (unsigned long long)newparent, newname, (unsigned long long)victim,
		  body.hint_open, (unsigned long long)cfs_attr_ino(&rep.attr), (unsigned long long)cfs_attr_ino(&rep.other),
		  cfs_le32_to_cpu(rep.other.nlink), cfs_le32_to_cpu(rep.orphan));
	if (rep.other.ino && !a.exchange)
		forget_data(&op, &rep.other, rep.orphan);
	op.t->req = NULL;
	cfs_reply_begin(c);
	renamed(c, &a, &rep, r.break_gen, &after);
	if (rep.other.ino && !rep.other.nlink)
		cfs_removed_add(c, &rep.other);
	forget_stale(c, &after);
	fuse_reply_err(req, 0);
	cfs_reply_end(c);
	if (after.stale_names) {
		cfs_notify_entry(c, newparent, newname, a.new_len);
		if (a.exchange)
			cfs_notify_entry(c, parent, name, a.old_len);
	}
	finish_after(c, &after);
	hint_end(c, victim);
}
