// SPDX-License-Identifier: MIT
/*
 * fuse_file.c - open files: open, create, tmpfile, read, write, flush, release, fsync, fallocate, copy, seek. What is
 * inside files is the data path's business (data.h).
 *
 * Pages stay in the kernel over close and open (keep_cache): the data path drops them when the lease goes. Files opened for
 * appending bypass them: the kernel chooses the offset from the size it believes in, and would keep the written
 * page there. FICLONE never comes here, the kernel refuses it for FUSE; cp(1) uses copy_file_range(2) then.
 */
#include "client/fuse_fh.h"
#include "client/fuse_ops_i.h"
#include "client/notify.h"
#include "client/pass.h"

#include "base/log.h"

#include <fcntl.h>
#include <stdlib.h>

#define LIVE_RETRIES 3

/* ---- opening ------------------------------------------------------------------------------ */
static int fh_new(struct cfs_op *op, const struct cfs_attr *attr, int flags, struct cfs_fh **ret_fh)
{
	struct cfs_fh *fh = calloc(1, sizeof(*fh));

	if (!fh)
		return ENOMEM;
	fh->flags = flags;
	fh->i = cfs_inode_get(op->c, cfs_attr_ino(attr));
	if (!fh->i) {
		free(fh);
		return ENOMEM;
	}
	pthread_mutex_lock(&fh->i->lock);
	if (!fh->i->data)
		fh->i->data = cfs_data_get(op->c, attr);
	fh->i->n_open += fh->i->data != NULL;
	pthread_mutex_unlock(&fh->i->lock);
	if (!fh->i->data) {
		cfs_inode_put(op->c, fh->i);
		free(fh);
		return ENOMEM;
	}
	cfs_fh_list(op->c, fh);
	*ret_fh = fh;
	return 0;
}

/* the last close of an orphan tells the server */
static void fh_free(struct cfs_client *c, struct cfs_fh *fh)
{
	struct cfs_inode *i = fh->i;
	bool release;

	cfs_victim_begin(c, i->ino); /* who opens it just now waits until it is known what becomes of it */
	pthread_mutex_lock(&i->lock);
	CFS_ASSERT(i->n_open > 0);
	if (fh->io != CFS_IO_CLOSED)
		cfs_iostate_close(&i->io, fh->io);
	release = !--i->n_open && i->orphan;
	if (release)
		i->orphan = false;
	pthread_mutex_unlock(&i->lock);
	if (release)
		cfs_op_release_orphan(c, i->ino, __atomic_load_n(&i->only_ours, __ATOMIC_SEQ_CST));
	cfs_victim_end(c, i->ino);
	cfs_fh_unlist(c, fh);
	cfs_inode_put(c, i);
	free(fh);
}

/* ---- the list of what is open ---------------------------------------------------------------- */
void cfs_fh_list(struct cfs_client *c, struct cfs_fh *fh)
{
	pthread_mutex_lock(&c->fhs_lock);
	cfs_list_add_tail(&c->fhs, &fh->link);
	pthread_mutex_unlock(&c->fhs_lock);
}

void cfs_fh_unlist(struct cfs_client *c, struct cfs_fh *fh)
{
	pthread_mutex_lock(&c->fhs_lock);
	cfs_list_del(&fh->link);
	pthread_mutex_unlock(&c->fhs_lock);
}

/* RELEASEs that were still queued when the file system was unmounted never come */
void cfs_fh_drop_all(struct cfs_client *c)
{
	cfs_pins_drop(c);
	while (!cfs_list_empty(&c->fhs)) {
		struct cfs_fh *fh = cfs_list_first(&c->fhs, struct cfs_fh, link);

		if (!fh->dir) {
			if (fh->opened)
				cfs_data_release(fh->i->data, fh->flags);
			fh_free(c, fh);
			continue;
		}
		cfs_fh_unlist(c, fh);
		cfs_inode_put(c, fh->i);
		cfs_dirbuf_free(fh->dir);
		free(fh);
	}
}

static void fill_open(struct cfs_client *c, struct cfs_fh *fh, struct fuse_file_info *fi)
{
	struct cfs_pass *pass = cfs_data_pass(fh->i->data);
	enum cfs_iomode want = pass ? CFS_IO_PASSTHROUGH :
			       c->o.cache_none || (fi->flags & O_APPEND) ? CFS_IO_DIRECT : CFS_IO_CACHED;

	fi->fh = (uintptr_t)fh;
	fh->opened = true;
	pthread_mutex_lock(&fh->i->lock);
	fh->io = cfs_iostate_open(&fh->i->io, want);
	pthread_mutex_unlock(&fh->i->lock);
	CFS_ASSERT(fh->io == want);	/* an inode has a backing file from its birth, or never */
	if (pass)
		fi->backing_id = cfs_pass_id(pass);
	fi->direct_io = want == CFS_IO_DIRECT;
	/* else the kernel would drop the pages that others have open, too; with a backing file it takes no such word */
	fi->keep_cache = want != CFS_IO_PASSTHROUGH && !c->o.cache_none;
}

static int open_data(struct cfs_op *op, struct cfs_fh *fh, struct fuse_file_info *fi)
{
	struct cfs_client *c = op->c;
	struct cfs_attr attr = { .ino = 0 };
	int rc = cfs_data_open(fh->i->data, fi->flags);

	if (rc || !(fi->flags & O_TRUNC))
		return rc;
	if (fi->kill_suidgid)
		rc = -cfs_op_kill_priv(op, fh->i->ino);
	if (!rc)
		rc = cfs_data_setsize(fh->i->data, 0, false, &attr);
	if (rc)
		cfs_data_release(fh->i->data, fi->flags);
	if (attr.ino) {
		cfs_client_note(c, CFS_BRK_ATTR, 0, fh->i->ino, NULL, 0);
		cfs_dcache_drop_attr(c->dcache, fh->i->ino);
	}
	return rc;
}

int cfs_op_open_for(struct cfs_op *op, const struct cfs_attr *attr, struct cfs_fh **ret_fh)
{
	struct cfs_fh *fh = NULL;
	int err = fh_new(op, attr, O_RDONLY, &fh);

	if (err)
		return err;
	cfs_victim_wait(op->c, fh->i->ino);
	err = cfs_op_errno_stale(cfs_data_open(fh->i->data, O_RDONLY));
	if (err) {
		fh_free(op->c, fh);
		return err == ENOENT ? ESTALE : err;
	}
	fh->opened = true;
	*ret_fh = fh;
	return 0;
}

void cfs_op_close_for(struct cfs_client *c, struct cfs_fh *fh)
{
	cfs_data_release(fh->i->data, O_RDONLY);
	fh_free(c, fh);
}

void cfs_fuse_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);
	uint32_t pid = (uint32_t)fuse_req_ctx(req)->pid;
	struct cfs_fh *fh = NULL;
	struct cfs_attr attr;
	int err = cfs_op_getattr(&op, ino, &attr);

	if (!err && !S_ISREG(cfs_le32_to_cpu(attr.mode)))
		err = ENXIO; /* fifos, sockets and devices are opened by the kernel itself */
	if (!err)
		err = fh_new(&op, &attr, fi->flags, &fh);
	if (!err) {
		cfs_victim_wait(op.c, ino);
		err = cfs_op_errno(open_data(&op, fh, fi));
		err = err == ENOENT ? ESTALE : err;
	}
	if (err) {
		cfs_debug("open of inode %llx fails: %d", (unsigned long long)ino, err);
		cfs_op_err(&op, err);
		if (fh)
			fh_free(op.c, fh);
		return;
	}
	fill_open(op.c, fh, fi);
	if (fi->flags & O_TRUNC)
		cfs_inode_told_size(fh->i, 0);
	cfs_debug("opened inode %llx", (unsigned long long)ino);
	cfs_pin_opened(op.c, pid);	/* before the reply: after it the process may already need another */
	op.t->req = NULL;
	if (fuse_reply_open(req, fi)) { /* interrupted: no RELEASE will come */
		cfs_data_release(fh->i->data, fi->flags);
		fh_free(op.c, fh);
	}
}

/* a file that was just made, with the lease that came along */
static int open_made(struct cfs_op *op, struct cfs_mk *mk, struct fuse_file_info *fi, struct cfs_fh **ret_fh)
{
	struct cfs_fh *fh;
	int err = fh_new(op, &mk->rep.attr, fi->flags, &fh);

	if (err)
		return err;
	cfs_data_granted(fh->i->data, &mk->rep.attr, cfs_le32_to_cpu(mk->rep.lease), mk->break_gen, NULL, 0);
	err = cfs_op_errno(cfs_data_open(fh->i->data, fi->flags & ~O_TRUNC));
	if (err) {
		fh_free(op->c, fh);
		return err;
	}
	if (cfs_le32_to_cpu(mk->rep.lease) == CFS_LEASE_EXCL) {
		__atomic_store_n(&fh->i->only_ours, true, __ATOMIC_SEQ_CST);
		if (cfs_client_broken_since(op->c, fh->i->ino, mk->break_gen))
			__atomic_store_n(&fh->i->only_ours, false, __ATOMIC_SEQ_CST);
	}
	if (mk->flags & CFS_MK_TMPFILE) {
		pthread_mutex_lock(&fh->i->lock);
		fh->i->orphan = true;
		pthread_mutex_unlock(&fh->i->lock);
	}
	if (cfs_pass_fits(op->c, fi->flags, mk->flags & CFS_MK_TMPFILE)) {
		struct cfs_pass *pass = cfs_pass_new(op->c);

		if (pass)
			cfs_data_give_pass(fh->i->data, pass);
	}
	*ret_fh = fh;
	return 0;
}

/*
 * The kernel sends CREATE when it believes that the name is absent, and takes the caller for entitled to the new file. So
 * one that is there already must not be opened here: ESTALE makes the kernel look it up and check permissions.
 */
static int create_exists(struct cfs_op *op, struct cfs_mk *mk, int flags)
{
	struct cfs_lookup_req body = { .dir = cfs_cpu_to_le64(mk->dir), .name_len = cfs_cpu_to_le32((uint32_t)mk->len) };
	struct cfs_op_req r = { .opcode = CFS_OP_LOOKUP, .fixed = &body, .fixed_len = sizeof(body),
				.more = { { (void *)(uintptr_t)mk->name, mk->len } } };
	int rc = EEXIST;

	if (flags & O_EXCL)
		return EEXIST;
	for (unsigned tries = 0; rc == EEXIST && tries < 16; tries++) {
		rc = cfs_op_call(op, &r);
		if (!rc)
			return ESTALE;
		if (rc == ENOENT) /* gone again: ours to make */
			rc = cfs_op_mknode(op, mk);
	}
	return rc;
}

static void create(fuse_req_t req, struct cfs_mk *mk, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);
	struct fuse_entry_param e = { 0 };
	struct cfs_fh *fh = NULL;
	int err;

	if (mk->name) {
		mk->len = cfs_op_name_len(&op, mk->name);
		if (!mk->len)
			return;
	}
	cfs_making_begin(op.c);
	err = cfs_op_mknode(&op, mk);
	if (err == EEXIST && mk->name)
		err = create_exists(&op, mk, fi->flags);
	err = cfs_op_errno(err);
	if (!err)
		err = open_made(&op, mk, fi, &fh);
	cfs_making_end(op.c);
	if (err) {
		cfs_op_err(&op, err);
		return;
	}
	fill_open(op.c, fh, fi);
	cfs_debug("created %llx/%s: inode %llx, lease %u", (unsigned long long)mk->dir, mk->name ? mk->name : "",
		  (unsigned long long)fh->i->ino, cfs_le32_to_cpu(mk->rep.lease));
	op.t->req = NULL;
	cfs_reply_begin(op.c);
	cfs_op_made(&op, mk, &e);
	err = fuse_reply_create(req, &e, fi);
	cfs_reply_end(op.c);
	if (err) {
		cfs_data_release(fh->i->data, fi->flags);
		fh_free(op.c, fh);
	}
}

void cfs_fuse_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	create(req, &(struct cfs_mk){ .dir = parent, .name = name, .mode = S_IFREG | (mode & 07777),
				      .flags = CFS_MK_LEASE }, fi);
}

void cfs_fuse_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi)
{
	create(req, &(struct cfs_mk){ .dir = parent, .mode = S_IFREG | (mode & 07777),
				      .flags = CFS_MK_LEASE | CFS_MK_TMPFILE }, fi);
}

/* ---- closing ---------------------------------------------------------------------------------- */
void cfs_fuse_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_fh *fh = cfs_fh_of(fi);

	if (cfs_inode_owner_take(fh->i, fi->lock_owner))
		cfs_op_unlock_all(&op, ino, fi->lock_owner, CFS_LOCK_POSIX);
	cfs_op_err(&op, cfs_op_errno(cfs_data_error(fh->i->data)));
}

static void count_releasing(struct cfs_inode *i, int by)
{
	pthread_mutex_lock(&i->lock);
	i->releasing += (unsigned)by;
	pthread_mutex_unlock(&i->lock);
}

void cfs_fuse_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_fh *fh = cfs_fh_of(fi);

	uint64_t owner;
	bool locks;

	locks = fi->flock_release || cfs_inode_owner_of_fh(fh->i, fh, &owner);
	if (locks)
		count_releasing(fh->i, 1);
	if (fi->flock_release)
		cfs_op_unlock_all(&op, ino, fi->lock_owner, CFS_LOCK_FLOCK);
	while (cfs_inode_owner_of_fh(fh->i, fh, &owner)) { /* OFD locks end with their open file */
		cfs_inode_owner_take(fh->i, owner);
		cfs_op_unlock_all(&op, ino, owner, CFS_LOCK_POSIX);
	}
	if (locks)
		count_releasing(fh->i, -1);
	cfs_data_release(fh->i->data, fi->flags);
	cfs_op_err(&op, 0);
	fh_free(op.c, fh);
}

void cfs_fuse_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);

	(void)ino;
	(void)datasync;
	cfs_op_err(&op, cfs_op_errno(cfs_data_fsync(cfs_fh_of(fi)->i->data)));
}

/* ---- bytes --------------------------------------------------------------------------------------- */
void cfs_fuse_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_pass *pass = cfs_data_pass(cfs_fh_of(fi)->i->data);
	void *buf = cfs_thread_io_buf(op.t);
	int64_t n = 0;
	int rc = size > CFS_IO_MAX ? EIO : 0;

	/* noted before the lease is: a recall that comes while this READ is served has to wait for its pages */
	cfs_kernel_has_pages(op.c, ino);
	/* bytes count as read while the session lived: if its deadline passed meanwhile, once more */
	for (int i = 0; !rc && i < LIVE_RETRIES; i++) {
		rc = cfs_op_errno(cfs_session_wait_live(op.c));
		if (rc)
			break;
		n = pass ? cfs_pass_read(pass, buf, size, (uint64_t)off) :
			   cfs_data_read(cfs_fh_of(fi)->i->data, buf, size, (uint64_t)off);
		if (n >= 0 && (size_t)n < size)
			cfs_inode_told_size(cfs_fh_of(fi)->i, (uint64_t)off + (uint64_t)n);
		if (cfs_client_live(op.c))
			break;
	}
	op.t->req = NULL;
	if (rc || n < 0)
		fuse_reply_err(req, rc ? rc : cfs_op_errno((int)n));
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

void cfs_fuse_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_inode *i = cfs_fh_of(fi)->i;
	int err = 0;
	bool append = (fi->flags & O_APPEND) && !fi->writepage;
	bool direct = cfs_fh_of(fi)->flags & O_APPEND;
	int64_t n;

	if ((uint64_t)off > CFS_FILE_SIZE_MAX || CFS_FILE_SIZE_MAX - (uint64_t)off < size) {
		cfs_op_err(&op, EFBIG);
		return;
	}
	cfs_kernel_has_pages(op.c, ino);
	if (fi->kill_suidgid)
		err = cfs_op_kill_priv(&op, ino);
	n = err ? -err : cfs_data_pass(i->data) ? cfs_pass_write(cfs_data_pass(i->data), buf, size, (uint64_t)off) :
	    cfs_data_write(i->data, buf, size, (uint64_t)off,
			   append ? CFS_DATA_APPEND : fi->writepage ? CFS_DATA_MAPPED : 0);
	op.t->req = NULL;
	if (n < 0)
		fuse_reply_err(req, cfs_op_errno((int)n));
	else
		fuse_reply_write(req, (size_t)n);
	/* O_APPEND set later by fcntl(2): the kernel's page is where it thought the end was */
	if (n > 0 && append && !direct)
		cfs_notify_pages_later(op.c, ino);
}

/* ---- space and ranges -------------------------------------------------------------------------------- */
void cfs_fuse_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_data *d = cfs_fh_of(fi)->i->data;
	struct cfs_fallocate_req body = {
		.ino = cfs_cpu_to_le64(ino), .off = cfs_cpu_to_le64((uint64_t)off), .len = cfs_cpu_to_le64((uint64_t)len),
		.mode = cfs_cpu_to_le32((uint32_t)mode),
		.flags = cfs_cpu_to_le32(fuse_req_ctx(req)->uid ? CFS_SA_KILLPRIV : 0),
	};
	struct cfs_attr_rep rep;
	struct cfs_op_req r = { .opcode = CFS_OP_FALLOCATE, .mutating = true, .fixed = &body, .fixed_len = sizeof(body),
				.rep = &rep, .rep_max = sizeof(rep) };
	struct cfs_ttl ttl;
	int rc;

	if (off < 0 || len <= 0 || (uint64_t)off > CFS_FILE_SIZE_MAX || (uint64_t)len > CFS_FILE_SIZE_MAX - (uint64_t)off) {
		cfs_op_err(&op, off < 0 || len <= 0 ? EINVAL : EFBIG);
		return;
	}
	if (cfs_data_pass(d)) {
		cfs_op_err(&op, cfs_op_errno(cfs_pass_fallocate(cfs_data_pass(d), mode, (uint64_t)off, (uint64_t)len)));
		return;
	}
	rc = cfs_data_flush(d);
	if (!rc)
		rc = cfs_op_call_want(&op, &r, sizeof(rep));
	if (!rc) {
		cfs_data_changed(d, (uint64_t)off, (uint64_t)len, &rep.attr);
		ttl = cfs_op_ttl(op.c);
		cfs_op_changed_attr(op.c, &rep.attr, cfs_le32_to_cpu(rep.valid), r.break_gen, &ttl);
	}
	cfs_op_err(&op, cfs_op_errno(rc));
}

void cfs_fuse_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
			      fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_data *src = cfs_fh_of(fi_in)->i->data, *dst = cfs_fh_of(fi_out)->i->data;
	struct cfs_copy_req body = {
		.src = cfs_cpu_to_le64(ino_in), .src_off = cfs_cpu_to_le64((uint64_t)off_in),
		.dst = cfs_cpu_to_le64(ino_out), .dst_off = cfs_cpu_to_le64((uint64_t)off_out),
		.len = cfs_cpu_to_le64(len),
		.flags = cfs_cpu_to_le32(fuse_req_ctx(req)->uid ? CFS_COPY_KILLPRIV : 0),
	};
	struct cfs_copy_rep rep;
	struct cfs_op_req r = { .opcode = CFS_OP_COPY, .mutating = true, .fixed = &body, .fixed_len = sizeof(body),
				.rep = &rep, .rep_max = sizeof(rep) };
	uint64_t copied = 0;
	int rc = flags ? -EINVAL : 0;

	if (!rc && ((uint64_t)off_out > CFS_FILE_SIZE_MAX || len > CFS_FILE_SIZE_MAX - (uint64_t)off_out))
		rc = -EFBIG;
	if (!rc && (cfs_data_pass(src) || cfs_data_pass(dst)))
		rc = -EOPNOTSUPP;	/* the server has none of it; the kernel copies by itself then */
	if (!rc && len) {
		rc = cfs_data_flush(src);
		if (!rc && src != dst)
			rc = cfs_data_flush(dst);
		if (!rc)
			rc = cfs_op_call_want(&op, &r, sizeof(rep));
		if (!rc) {
			copied = cfs_le64_to_cpu(rep.copied);
			cfs_data_changed(dst, (uint64_t)off_out, copied, &rep.attr);
			cfs_client_note(op.c, CFS_BRK_ATTR, 0, ino_out, NULL, 0);
			cfs_dcache_drop_attr(op.c->dcache, ino_out);
		}
	}
	op.t->req = NULL;
	if (rc)
		fuse_reply_err(req, cfs_op_errno(rc));
	else
		fuse_reply_write(req, copied);
}

void cfs_fuse_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_seek_req body = { .ino = cfs_cpu_to_le64(ino), .off = cfs_cpu_to_le64((uint64_t)off),
				     .whence = cfs_cpu_to_le32((uint32_t)whence) };
	cfs_le64 pos;
	struct cfs_op_req r = { .opcode = CFS_OP_SEEK, .fixed = &body, .fixed_len = sizeof(body), .rep = &pos,
				.rep_max = sizeof(pos) };
	struct cfs_pass *pass = cfs_data_pass(cfs_fh_of(fi)->i->data);
	int rc = whence == 3 /* SEEK_DATA */ || whence == 4 /* SEEK_HOLE */ ? 0 : EINVAL;

	if (!rc && off < 0)
		rc = ENXIO;
	if (!rc && pass) {
		int64_t at = cfs_pass_seek(pass, (uint64_t)off, whence);

		rc = at < 0 ? (int)at : 0;
		pos = cfs_cpu_to_le64((uint64_t)at);
	} else if (!rc) {
		rc = cfs_data_flush(cfs_fh_of(fi)->i->data);
		if (!rc)
			rc = cfs_op_call_want(&op, &r, sizeof(pos));
	}
	op.t->req = NULL;
	if (rc)
		fuse_reply_err(req, cfs_op_errno(rc));
	else
		fuse_reply_lseek(req, (off_t)cfs_le64_to_cpu(pos));
}
