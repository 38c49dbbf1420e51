// SPDX-License-Identifier: MIT
/*
 * fuse_ops.c - what the operations of the mount share (fuse_ops_i.h), the table, and what is negotiated with the kernel.
 */
#include "client/fuse_ops.h"
#include "client/fuse_ops_i.h"

#include "base/log.h"
#include "client/notify.h"

#define BLKSIZE		CFS_IO_MAX	/* st_blksize: what programs take as a good size for I/O: one request (bpf/fuse_answer.h says it, too) */

/* ---- errors and requests ------------------------------------------------------------------ */
int cfs_op_errno(int rc)
{
	if (rc < 0)
		return -rc == ESHUTDOWN ? EIO : -rc;
	return rc < 512 ? rc : EIO;
}

int cfs_op_errno_stale(int rc)
{
	return rc == ENOENT ? ESTALE : cfs_op_errno(rc);
}

void cfs_op_err(struct cfs_op *op, int err)
{
	op->t->req = NULL;
	cfs_busy_end_now(op->t);
	if (err == ESTALE) /* the kernel tries again, once */
		cfs_pin_stale(op->c, (uint32_t)fuse_req_ctx(op->req)->pid);
	fuse_reply_err(op->req, err);
}

struct cfs_fh *cfs_op_fh(struct cfs_op *op, const struct fuse_file_info *fi)
{
	struct cfs_fh *fh = cfs_fh_of(op->c, fi);

	if (cfs_unlikely(!fh)) {
		cfs_err("the kernel speaks of an open file %llx that is none", (unsigned long long)fi->fh);
		cfs_op_err(op, EBADF);
	}
	return fh;
}

struct cfs_fh *cfs_op_release_fh(struct cfs_op *op, const struct fuse_file_info *fi)
{
	struct cfs_fh *fh;

	if (!op->c->takeover)
		return cfs_op_fh(op, fi);
	fh = cfs_fh_of(op->c, fi);
	if (!fh)
		cfs_op_err(op, 0);
	return fh;
}

int cfs_op_call(struct cfs_op *op, struct cfs_op_req *r)
{
	struct iovec body[4] = { { (void *)(uintptr_t)r->fixed, r->fixed_len } };
	struct cfs_call call = {
		.opcode = r->opcode, .mutating = r->mutating, .body = body, .n_body = 1, .rep = r->rep,
		.rep_max = r->rep_max, .timeout_ms = r->timeout_ms,
	};
	int rc;

	for (unsigned i = 0; i < 3; i++)
		if (r->more[i].iov_len)
			body[call.n_body++] = r->more[i];
	if (!r->rep) {
		call.rep = cfs_thread_buf(op->t);
		call.rep_max = CFS_BODY_MAX;
	}
	rc = cfs_call_again(op->c, &call);
	r->rep_len = call.rep_len;
	r->break_gen = call.break_gen;
	return rc;
}

int cfs_op_call_want(struct cfs_op *op, struct cfs_op_req *r, size_t want)
{
	int rc = cfs_op_call(op, r);

	if (!rc && r->rep_len < want) {
		cfs_err("a reply to request %u has %u bytes, fewer than %zu", r->opcode, r->rep_len, want);
		rc = -EPROTO;
	}
	return rc;
}

size_t cfs_op_name_len(struct cfs_op *op, const char *name)
{
	size_t len = strlen(name);

	if (len <= CFS_NAME_MAX && len)
		return len;
	cfs_op_err(op, len ? ENAMETOOLONG : EINVAL);
	return 0;
}

/* ---- keeping ------------------------------------------------------------------------------------ */
struct cfs_ttl cfs_op_ttl(struct cfs_client *c)
{
	uint64_t now = cfs_boot_ns(), ttl = 0;

	if (cfs_client_caching(c))
		ttl = cfs_lease_ttl_ns(now, __atomic_load_n(&c->deadline_ns, __ATOMIC_ACQUIRE),
				       __atomic_load_n(&c->lease_ms, __ATOMIC_RELAXED));
	return (struct cfs_ttl){ .seconds = (double)ttl / 1e9, .until_ns = ttl ? now + ttl : 0 };
}

double cfs_op_keep_attr(struct cfs_client *c, const struct cfs_attr *attr, uint32_t valid, uint64_t since,
			const struct cfs_ttl *ttl)
{
	if (!(valid & CFS_V_ATTR) || !ttl->until_ns || !cfs_dcache_put_attr(c->dcache, attr, since))
		return 0;
	cfs_kernel_has_attr(c, attr, ttl->until_ns);
	return ttl->seconds;
}

double cfs_op_keep_name(struct cfs_client *c, uint64_t dir, const char *name, size_t len, uint64_t ino, uint32_t valid,
			uint64_t since, const struct cfs_ttl *ttl)
{
	cfs_hint_put(c, dir, name, len, ino);
	if (!(valid & CFS_V_ENTRY) || !ttl->until_ns ||
	    !cfs_dcache_put_name(c->dcache, dir, name, len, ino, since, ttl->until_ns))
		return 0;
	return ttl->seconds;
}

double cfs_op_changed_attr(struct cfs_client *c, const struct cfs_attr *attr, uint32_t valid, uint64_t since,
			   const struct cfs_ttl *ttl)
{
	uint64_t ino = cfs_attr_ino(attr);
	bool touched = cfs_breaks_attr(&c->breaks, since, ino, cfs_attr_governor(attr));

	/* replies that are older than this change do not count any more */
	since = cfs_client_note(c, CFS_BRK_ATTR, 0, ino, NULL, 0);
	cfs_dcache_drop_attr(c->dcache, ino);
	return touched ? 0 : cfs_op_keep_attr(c, attr, valid, since, ttl);
}

double cfs_op_changed_name(struct cfs_client *c, uint64_t dir, const char *name, size_t len, uint64_t ino, uint32_t valid,
			   uint64_t since, const struct cfs_ttl *ttl)
{
	bool touched = cfs_breaks_name(&c->breaks, since, dir, name, len);
	double kept;

	since = cfs_client_note(c, CFS_BRK_NAME, dir, 0, name, len);
	kept = cfs_op_keep_name(c, dir, name, len, ino, touched ? 0 : valid, since, ttl);
	if (!(kept > 0)) /* else the new one has taken the place of the old */
		cfs_dcache_drop_name(c->dcache, dir, name, len);
	return kept;
}

void cfs_op_changed_dir(struct cfs_client *c, uint64_t dir, const struct cfs_attr *dirattr, uint32_t valid, uint64_t since)
{
	struct cfs_ttl ttl = cfs_op_ttl(c);

	if (dirattr && (valid & CFS_V_DIRATTR) && cfs_attr_ino(dirattr) == dir) {
		cfs_op_changed_attr(c, dirattr, CFS_V_ATTR, since, &ttl);
		return;
	}
	cfs_client_note(c, CFS_BRK_DIRATTR, dir, 0, NULL, 0);
	cfs_dcache_drop_attr(c->dcache, dir);
}

void cfs_op_stat(struct cfs_client *c, struct cfs_attr *attr, struct stat *st)
{
	uint32_t mode = cfs_le32_to_cpu(attr->mode);

	if (S_ISREG(mode) && cfs_has_data(c)) {
		struct cfs_data *d = cfs_data_find(c, cfs_attr_ino(attr));

		if (d) {
			cfs_data_attr(d, attr);
			cfs_data_put(d);
		}
		mode = cfs_le32_to_cpu(attr->mode);
	}
	memset(st, 0, sizeof(*st));
	st->st_ino = cfs_attr_ino(attr);
	st->st_mode = mode;
	st->st_nlink = cfs_le32_to_cpu(attr->nlink);
	st->st_uid = cfs_le32_to_cpu(attr->uid);
	st->st_gid = cfs_le32_to_cpu(attr->gid);
	st->st_rdev = cfs_le32_to_cpu(attr->rdev); /* in the kernel's own encoding: libfuse passes it through */
	st->st_size = (off_t)cfs_le64_to_cpu(attr->size);
	st->st_blocks = (blkcnt_t)((cfs_le64_to_cpu(attr->alloc) + 511) / 512);
	st->st_blksize = BLKSIZE;
	st->st_atim.tv_sec = (time_t)cfs_le64_to_cpu(attr->atime.sec);
	st->st_atim.tv_nsec = cfs_le32_to_cpu(attr->atime.nsec);
	st->st_mtim.tv_sec = (time_t)cfs_le64_to_cpu(attr->mtime.sec);
	st->st_mtim.tv_nsec = cfs_le32_to_cpu(attr->mtime.nsec);
	st->st_ctim.tv_sec = (time_t)cfs_le64_to_cpu(attr->ctime.sec);
	st->st_ctim.tv_nsec = cfs_le32_to_cpu(attr->ctime.nsec);
}

void cfs_op_entry(struct cfs_client *c, struct cfs_attr *attr, uint32_t valid, uint64_t since, const struct cfs_ttl *ttl,
		  struct fuse_entry_param *e)
{
	e->attr_timeout = cfs_op_keep_attr(c, attr, valid, since, ttl);
	e->ino = cfs_attr_ino(attr);
	e->generation = cfs_le64_to_cpu(attr->gen);
	cfs_op_stat(c, attr, &e->attr);
	cfs_inode_told(c, attr);
}

int cfs_op_settle(struct cfs_op *op, struct cfs_data *d)
{
	return op->c->persist ? cfs_op_errno(cfs_data_flush(d)) : 0;
}

void cfs_op_release_orphan(struct cfs_client *c, uint64_t ino, bool discard)
{
	struct {
		struct cfs_release_req req;
		cfs_le64 ino;
	} body = { .req.n = cfs_cpu_to_le32(1), .ino = cfs_cpu_to_le64(ino) };
	struct iovec iov = { &body, sizeof(body) };
	struct cfs_call call = { .opcode = CFS_OP_RELEASE, .mutating = true, .body = &iov, .n_body = 1 };
	struct cfs_data *d = cfs_has_data(c) ? cfs_data_find(c, ino) : NULL;
	int rc;

	cfs_debug("inode %llx: the last close of an orphan", (unsigned long long)ino);
	if (d && !discard && cfs_data_flush(d))
		cfs_debug("inode %llx: could not be saved at its last close", (unsigned long long)ino);
	rc = cfs_call(c, &call);
	if (d) {
		cfs_data_forget(d);
		cfs_data_put(d);
	}
	/* a lost session has lost its orphans; otherwise they go with the session */
	if (rc && rc != CFS_E_BADSESSION && rc != ENOENT)
		cfs_warn("inode %llu: the server was not told of its last close: %s", (unsigned long long)ino,
			 strerror(cfs_op_errno(rc)));
}

/* ---- start ----------------------------------------------------------------------------------------- */
static void want(struct fuse_conn_info *conn, uint64_t flag, const char *name, bool needed)
{
	if (fuse_set_feature_flag(conn, flag))
		cfs_debug("kernel has %s", name);
	else if (needed)
		cfs_warn("this kernel lacks FUSE_%s: semantics suffer", name);
	else
		cfs_info("this kernel lacks FUSE_%s", name);
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct cfs_client *c = userdata;
	struct cfs_thread *t = cfs_thread_self(c);
	struct cfs_tier_env env = { .minor = conn->proto_minor };

	if (!cfs_tier_env_parse(t->in, t->in_len, &env))
		cfs_warn("the kernel's INIT is not understood: fast tiers stay off");
	cfs_tiers_probe(c, &env);
#define WANT(flag, needed) want(conn, FUSE_CAP_##flag, #flag, needed)
	WANT(ASYNC_READ, false);
	WANT(POSIX_LOCKS, true);
	WANT(FLOCK_LOCKS, true);
	WANT(ATOMIC_O_TRUNC, true);
	WANT(EXPORT_SUPPORT, false);
	WANT(DONT_MASK, true);
	WANT(POSIX_ACL, true);
	/* the data path drops pages itself; the kernel, going by mtime, would drop those that are just being written */
	WANT(EXPLICIT_INVAL_DATA, true);
	fuse_unset_feature_flag(conn, FUSE_CAP_AUTO_INVAL_DATA);
	WANT(READDIRPLUS, false);
	WANT(READDIRPLUS_AUTO, false);
	WANT(PARALLEL_DIROPS, false);
	WANT(HANDLE_KILLPRIV_V2, true);
	WANT(SETXATTR_EXT, false);
	WANT(CACHE_SYMLINKS, false);
	WANT(DIRECT_IO_ALLOW_MMAP, false);
#undef WANT
	c->setxattr_ext = fuse_get_feature_flag(conn, FUSE_CAP_SETXATTR_EXT);
	fuse_unset_feature_flag(conn, FUSE_CAP_WRITEBACK_CACHE);
	fuse_unset_feature_flag(conn, FUSE_CAP_OVER_IO_URING);
	fuse_unset_feature_flag(conn, FUSE_CAP_IOCTL_DIR);
	fuse_unset_feature_flag(conn, FUSE_CAP_PASSTHROUGH);
	conn->max_backing_stack_depth = FUSE_BACKING_STACKED_UNDER;	/* an overlay on top of us stays possible */
	if (cfs_tier_ready(c, CFS_TIER_PASSTHROUGH))
		want(conn, FUSE_CAP_PASSTHROUGH, "PASSTHROUGH", true);
	if (c->o.cache_none) {
		fuse_unset_feature_flag(conn, FUSE_CAP_CACHE_SYMLINKS);
		fuse_unset_feature_flag(conn, FUSE_CAP_READDIRPLUS);
		fuse_unset_feature_flag(conn, FUSE_CAP_READDIRPLUS_AUTO);
	}
	conn->max_write = CFS_IO_MAX;
	conn->max_readahead = 16u << 20;
	conn->max_background = 64;
	conn->congestion_threshold = 48;
	conn->time_gran = 1;
	cfs_info("kernel speaks FUSE %u.%u", conn->proto_major, conn->proto_minor);
	c->fuse_agreed = true;
}

const struct fuse_lowlevel_ops cfs_fuse_ops = {
	.init = op_init,
	.lookup = cfs_fuse_lookup,
	.forget = cfs_fuse_forget,
	.forget_multi = cfs_fuse_forget_multi,
	.getattr = cfs_fuse_getattr,
	.setattr = cfs_fuse_setattr,
	.readlink = cfs_fuse_readlink,
	.mknod = cfs_fuse_mknod,
	.mkdir = cfs_fuse_mkdir,
	.unlink = cfs_fuse_unlink,
	.rmdir = cfs_fuse_rmdir,
	.symlink = cfs_fuse_symlink,
	.rename = cfs_fuse_rename,
	.link = cfs_fuse_link,
	.open = cfs_fuse_open,
	.read = cfs_fuse_read,
	.write = cfs_fuse_write,
	.flush = cfs_fuse_flush,
	.release = cfs_fuse_release,
	.fsync = cfs_fuse_fsync,
	.opendir = cfs_fuse_opendir,
	.readdir = cfs_fuse_readdir,
	.readdirplus = cfs_fuse_readdirplus,
	.releasedir = cfs_fuse_releasedir,
	.fsyncdir = cfs_fuse_fsyncdir,
	.statfs = cfs_fuse_statfs,
	.setxattr = cfs_fuse_setxattr,
	.getxattr = cfs_fuse_getxattr,
	.listxattr = cfs_fuse_listxattr,
	.removexattr = cfs_fuse_removexattr,
	.create = cfs_fuse_create,
	.tmpfile = cfs_fuse_tmpfile,
	.getlk = cfs_fuse_getlk,
	.setlk = cfs_fuse_setlk,
	.flock = cfs_fuse_flock,
	.fallocate = cfs_fuse_fallocate,
	.copy_file_range = cfs_fuse_copy_file_range,
	.lseek = cfs_fuse_lseek,
	.statx = cfs_fuse_statx,
};
