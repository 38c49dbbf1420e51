// SPDX-License-Identifier: MIT
/*
 * fuse_attr.c - attributes, statfs and extended attributes.
 *
 * The kernel's own reading asks for attributes with the open file (FUSE_GETATTR_FH; stat and fstat never do). While this mount holds
 * the file exclusively it is told the true size but the mtime that it knows already, not to be kept: a new mtime would
 * make it drop the pages that were just written here (FUSE_AUTO_INVAL_DATA).
 */
#include "client/fuse_ops_i.h"
#include "client/notify.h"

#include "base/log.h"

#include <linux/fuse.h>
#include <sys/stat.h>
#include <time.h>

#define STATFS_MS	1000u	/* how old an answer may be, and how long a question may take */

/* ---- getattr -------------------------------------------------------------------------------- */
struct found {
	struct cfs_attr attr;
	uint32_t valid;
	uint64_t since;
	bool cached;
};

static int ask_attr(struct cfs_op *op, uint64_t ino, struct found *f)
{
	struct cfs_ino_req body = { .ino = cfs_cpu_to_le64(ino) };
	struct cfs_attr_rep rep;
	struct cfs_op_req r = { .opcode = CFS_OP_GETATTR, .fixed = &body, .fixed_len = sizeof(body), .rep = &rep,
				.rep_max = sizeof(rep) };
	int rc = cfs_op_call_want(op, &r, sizeof(rep));

	if (rc)
		return rc;
	if (cfs_attr_ino(&rep.attr) != ino)
		return -EPROTO;
	f->attr = rep.attr;
	f->valid = cfs_le32_to_cpu(rep.valid);
	f->since = r.break_gen;
	return 0;
}

int cfs_op_getattr(struct cfs_op *op, uint64_t ino, struct cfs_attr *ret_attr)
{
	struct cfs_ttl ttl = cfs_op_ttl(op->c);
	struct found f = { .cached = false };
	int rc;

	if (ttl.until_ns && cfs_dcache_attr(op->c->dcache, ino, ret_attr))
		return 0;
	rc = ask_attr(op, ino, &f);
	if (rc)
		return cfs_op_errno_stale(rc);
	ttl = cfs_op_ttl(op->c);
	cfs_op_keep_attr(op->c, &f.attr, f.valid, f.since, &ttl);
	*ret_attr = f.attr;
	return 0;
}

/* removed while it is in use here: its last attributes, without links */
static bool removed(struct cfs_client *c, uint64_t ino, struct cfs_attr *attr)
{
	struct cfs_inode *i = cfs_inode_find(c, ino);
	bool found = false;

	if (i) {
		pthread_mutex_lock(&i->lock);
		found = i->attr_set;
		*attr = i->attr;
		attr->nlink = 0;
		pthread_mutex_unlock(&i->lock);
	}
	cfs_inode_put(c, i);
	return found || cfs_removed_find(c, ino, attr);
}

/* what the kernel is told of the mtime when it reads by itself; true: the file is held exclusively */
static bool familiar_mtime(struct cfs_client *c, struct cfs_fh *fh, const struct cfs_attr *attr, struct stat *st)
{
	struct cfs_data *d = S_ISREG(cfs_le32_to_cpu(attr->mode)) ? fh->i->data : NULL;
	struct cfs_attr copy = *attr;

	if (!d || !cfs_has_data(c) || !cfs_data_attr(d, &copy))
		return false;
	pthread_mutex_lock(&fh->i->lock);
	if (fh->i->told) {
		st->st_mtim.tv_sec = (time_t)cfs_le64_to_cpu(fh->i->told_mtime.sec);
		st->st_mtim.tv_nsec = cfs_le32_to_cpu(fh->i->told_mtime.nsec);
	} else {
		fh->i->told = true;
		fh->i->told_mtime = copy.mtime;
	}
	pthread_mutex_unlock(&fh->i->lock);
	return true;
}

/* inside a section: fill in *st from *f; returns how long the kernel may keep it, in seconds */
static double answer_attr(struct cfs_client *c, struct found *f, struct cfs_fh *fh, const struct cfs_ttl *ttl, struct stat *st)
{
	double keep = f->cached ? ttl->seconds : cfs_op_keep_attr(c, &f->attr, f->valid, f->since, ttl);

	if (f->cached)
		cfs_kernel_has_attr(c, &f->attr, ttl->until_ns);
	cfs_op_stat(c, &f->attr, st);
	if (fh && familiar_mtime(c, fh, &f->attr, st))
		return 0;
	cfs_inode_told(c, &f->attr);
	return keep;
}

/*
 * The kernel is about to read, and asks where the file ends. What it is answered it may throw away (notify.h), and reads on with
 * the size it had: so tell it in another way, before. Outside of sections.
 */
static void grow(struct cfs_client *c, struct cfs_fh *fh, const struct cfs_attr *attr)
{
	struct cfs_attr copy = *attr;
	uint64_t size, gen;
	struct stat st;
	bool need;

	if (!fh || fh->dir || !S_ISREG(cfs_le32_to_cpu(attr->mode)))
		return;
	cfs_op_stat(c, &copy, &st);
	size = (uint64_t)st.st_size;
	pthread_mutex_lock(&fh->i->lock);
	need = size > fh->i->kernel_size;
	gen = fh->i->size_gen;
	pthread_mutex_unlock(&fh->i->lock);
	if (!need)
		return;
	cfs_notify_grown(c, fh->i->ino, size);
	pthread_mutex_lock(&fh->i->lock);
	if (fh->i->size_gen == gen)
		fh->i->kernel_size = cfs_max(fh->i->kernel_size, size);
	pthread_mutex_unlock(&fh->i->lock);
}

/*
 * Find attributes and hand them to `reply`, inside a section. Answers errors itself.
 */
static void find_attr(struct cfs_op *op, uint64_t ino, struct cfs_fh *fh,
		      void (*reply)(fuse_req_t req, const struct stat *st, const struct cfs_attr *attr, double keep))
{
	struct cfs_client *c = op->c;
	struct cfs_ttl ttl = cfs_op_ttl(c);
	struct found f = { .cached = false };
	struct stat st;
	double keep;
	int rc;

	if (ttl.until_ns) {
		if (fh && cfs_dcache_attr(c->dcache, ino, &f.attr))
			grow(c, fh, &f.attr);
		cfs_reply_begin(c);
		f.cached = cfs_dcache_attr(c->dcache, ino, &f.attr);
		if (f.cached) {
			cfs_count(c, dc_getattr);
			keep = answer_attr(c, &f, fh, &ttl, &st);
			op->t->req = NULL;
			reply(op->req, &st, &f.attr, keep);
		}
		cfs_reply_end(c);
		if (f.cached) {
			if (!fh) /* else it is for the daemon, always */
				cfs_dcache_mirror_attr(c->dcache, ino);
			return;
		}
	}
	rc = ask_attr(op, ino, &f);
	if ((rc == ENOENT || rc == ESTALE) && removed(c, ino, &f.attr)) {
		f.valid = 0;
		rc = 0;
	}
	if (rc) {
		cfs_op_err(op, cfs_op_errno_stale(rc));
		return;
	}
	grow(c, fh, &f.attr);
	op->t->req = NULL;
	cfs_reply_begin(c);
	ttl = cfs_op_ttl(c);
	keep = answer_attr(c, &f, fh, &ttl, &st);
	reply(op->req, &st, &f.attr, keep);
	cfs_reply_end(c);
}

static void reply_attr(fuse_req_t req, const struct stat *st, const struct cfs_attr *attr, double keep)
{
	(void)attr;
	fuse_reply_attr(req, st, keep);
}

void cfs_fuse_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);

	find_attr(&op, ino, fi && fi->fh ? cfs_fh_of(op.c, fi) : NULL, reply_attr);
}

static void reply_statx(fuse_req_t req, const struct stat *st, const struct cfs_attr *attr, double keep)
{
	struct statx sx = {
		.stx_mask = STATX_BASIC_STATS | STATX_BTIME, .stx_blksize = (uint32_t)st->st_blksize,
		.stx_nlink = (uint32_t)st->st_nlink, .stx_uid = st->st_uid, .stx_gid = st->st_gid,
		.stx_mode = (uint16_t)st->st_mode, .stx_ino = st->st_ino, .stx_size = (uint64_t)st->st_size,
		.stx_blocks = (uint64_t)st->st_blocks,
		.stx_atime = { .tv_sec = st->st_atim.tv_sec, .tv_nsec = (uint32_t)st->st_atim.tv_nsec },
		.stx_mtime = { .tv_sec = st->st_mtim.tv_sec, .tv_nsec = (uint32_t)st->st_mtim.tv_nsec },
		.stx_ctime = { .tv_sec = st->st_ctim.tv_sec, .tv_nsec = (uint32_t)st->st_ctim.tv_nsec },
		.stx_btime = { .tv_sec = (int64_t)cfs_le64_to_cpu(attr->btime.sec),
			       .tv_nsec = cfs_le32_to_cpu(attr->btime.nsec) },
		/* new_encode_dev(): minor bits 0-7 and 20-31, major bits 8-19 */
		.stx_rdev_major = ((uint32_t)st->st_rdev >> 8) & 0xfff,
		.stx_rdev_minor = ((uint32_t)st->st_rdev & 0xff) | (((uint32_t)st->st_rdev >> 12) & 0xfff00),
	};

	fuse_reply_statx(req, 0, &sx, keep);
}

void cfs_fuse_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);

	(void)flags;
	(void)mask;
	find_attr(&op, ino, fi && fi->fh ? cfs_fh_of(op.c, fi) : NULL, reply_statx);
}

/* ---- setattr ------------------------------------------------------------------------------------ */
static uint32_t wanted_changes(int to_set)
{
	uint32_t v = 0;

	if (to_set & FUSE_SET_ATTR_MODE)
		v |= CFS_SA_MODE;
	if (to_set & FUSE_SET_ATTR_UID)
		v |= CFS_SA_UID;
	if (to_set & FUSE_SET_ATTR_GID)
		v |= CFS_SA_GID;
	if (to_set & FUSE_SET_ATTR_ATIME_NOW)
		v |= CFS_SA_ATIME_NOW;
	else if (to_set & FUSE_SET_ATTR_ATIME)
		v |= CFS_SA_ATIME;
	if (to_set & FUSE_SET_ATTR_MTIME_NOW)
		v |= CFS_SA_MTIME_NOW;
	else if (to_set & FUSE_SET_ATTR_MTIME)
		v |= CFS_SA_MTIME;
	if (to_set & FUSE_SET_ATTR_CTIME)
		v |= CFS_SA_CTIME;
	if (to_set & (FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_KILL_SUID))
		v |= to_set & FUSE_SET_ATTR_KILL_SUID ? CFS_SA_KILLPRIV : 0;
	/* chown(2) drops them whoever asks; a directory's bits mean something else, and the server knows */
	if (v & (CFS_SA_UID | CFS_SA_GID))
		v |= CFS_SA_KILLPRIV;
	return v;
}

static struct cfs_time time_of(const struct timespec *ts)
{
	return (struct cfs_time){ .sec = cfs_cpu_to_le64((uint64_t)ts->tv_sec),
				  .nsec = cfs_cpu_to_le32((uint32_t)ts->tv_nsec) };
}

/*
 * The size alone, by the data path, which knows whether the server must be asked. *f gets the attributes after it.
 * Return: 0 or errno.
 */
static int set_size(struct cfs_op *op, uint64_t ino, uint64_t size, struct cfs_fh *fh, struct found *f)
{
	struct cfs_attr attr = { .ino = 0 };
	struct cfs_client *c = op->c;
	struct cfs_data *d = NULL;
	int rc = 0;

	if (size > CFS_FILE_SIZE_MAX)
		return EFBIG;
	if (!fh || !fh->i->data) {
		rc = cfs_op_getattr(op, ino, &attr);
		if (rc)
			return rc;
		if (!S_ISREG(cfs_le32_to_cpu(attr.mode)))
			return S_ISDIR(cfs_le32_to_cpu(attr.mode)) ? EISDIR : EINVAL;
		d = cfs_data_get(c, &attr);
		if (!d)
			return ENOMEM;
		attr.ino = 0;
	}
	rc = cfs_data_setsize(d ? d : fh->i->data, size, false, &attr);
	if (!rc)
		rc = -cfs_op_settle(op, d ? d : fh->i->data);
	if (d)
		cfs_data_put(d);
	if (rc)
		return cfs_op_errno(rc);
	if (!attr.ino) /* a local matter: what the server said before still stands below it */
		return cfs_op_getattr(op, ino, &f->attr);
	f->attr = attr;
	cfs_client_note(c, CFS_BRK_ATTR, 0, ino, NULL, 0);
	cfs_dcache_drop_attr(c->dcache, ino);
	return 0;
}

/*
 * Attributes were changed at the server, which may not know yet of writes here: their mtime stands unless it was set. valid:
 * CFS_SA_* that were.
 */
static void tell_data(struct cfs_client *c, const struct cfs_attr *attr, uint32_t valid)
{
	struct cfs_data *d = cfs_has_data(c) ? cfs_data_find(c, cfs_attr_ino(attr)) : NULL;
	struct cfs_attr copy = *attr;

	if (!d)
		return;
	if (!(valid & (CFS_SA_MTIME | CFS_SA_MTIME_NOW))) {
		cfs_data_attr(d, &copy);
		copy.ctime = attr->ctime;
	}
	cfs_data_setattr_done(d, &copy, valid & (CFS_SA_MODE | CFS_SA_KILLPRIV));
	cfs_data_put(d);
}

static int set_rest(struct cfs_op *op, uint64_t ino, const struct stat *st, uint32_t valid, struct found *f)
{
	struct cfs_setattr_req body = {
		.ino = cfs_cpu_to_le64(ino), .mode = cfs_cpu_to_le32(st->st_mode & 07777),
		.uid = cfs_cpu_to_le32(st->st_uid), .gid = cfs_cpu_to_le32(st->st_gid),
		.atime = time_of(&st->st_atim), .mtime = time_of(&st->st_mtim), .ctime = time_of(&st->st_ctim),
		.valid = cfs_cpu_to_le32(valid),
	};
	struct cfs_attr_rep rep;
	struct cfs_op_req r = { .opcode = CFS_OP_SETATTR, .mutating = true, .fixed = &body, .fixed_len = sizeof(body),
				.rep = &rep, .rep_max = sizeof(rep) };
	int rc;

	cfs_busy_begin(op->c, ino);
	rc = cfs_op_call_want(op, &r, sizeof(rep));
	cfs_busy_end_later(op->c, ino);
	if (rc)
		return cfs_op_errno_stale(rc);
	f->attr = rep.attr;
	f->valid = cfs_le32_to_cpu(rep.valid);
	f->since = r.break_gen;
	tell_data(op->c, &rep.attr, valid);
	return 0;
}

/* what the server would have done, to what only we know any more */
static void change_removed(struct cfs_client *c, const struct stat *st, uint32_t valid, struct cfs_attr *attr)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	attr->ctime = time_of(&now);
	if (valid & CFS_SA_MODE)
		attr->mode = cfs_cpu_to_le32((cfs_le32_to_cpu(attr->mode) & S_IFMT) | (st->st_mode & 07777));
	if (valid & CFS_SA_UID)
		attr->uid = cfs_cpu_to_le32(st->st_uid);
	if (valid & CFS_SA_GID)
		attr->gid = cfs_cpu_to_le32(st->st_gid);
	if (valid & (CFS_SA_ATIME | CFS_SA_ATIME_NOW))
		attr->atime = valid & CFS_SA_ATIME ? time_of(&st->st_atim) : attr->ctime;
	if (valid & (CFS_SA_MTIME | CFS_SA_MTIME_NOW))
		attr->mtime = valid & CFS_SA_MTIME ? time_of(&st->st_mtim) : attr->ctime;
	cfs_removed_change(c, attr);
}

int cfs_op_kill_priv(struct cfs_op *op, uint64_t ino)
{
	struct stat none = { .st_mode = 0 };
	struct found f = { .cached = false };
	struct cfs_ttl ttl;
	struct cfs_attr attr;
	int err = cfs_op_getattr(op, ino, &attr);

	if (err || !((cfs_le32_to_cpu(attr.mode) & 06000) || (cfs_le32_to_cpu(attr.flags) & CFS_IF_CAPS)))
		return err;
	err = set_rest(op, ino, &none, CFS_SA_KILLPRIV, &f);
	if (err)
		return err;
	ttl = cfs_op_ttl(op->c);
	cfs_op_changed_attr(op->c, &f.attr, f.valid, f.since, &ttl);
	return 0;
}

static bool is_same(const struct cfs_attr *a, const struct stat *st, uint32_t valid)
{
	uint32_t mode = cfs_le32_to_cpu(a->mode);

	return (!(valid & CFS_SA_MODE) || (mode & 07777) == (st->st_mode & 07777)) &&
	       (!(valid & CFS_SA_UID) || cfs_le32_to_cpu(a->uid) == st->st_uid) &&
	       (!(valid & CFS_SA_GID) || cfs_le32_to_cpu(a->gid) == st->st_gid) &&
	       (!(valid & CFS_SA_KILLPRIV) || (!(mode & 06000) && !(cfs_le32_to_cpu(a->flags) & CFS_IF_CAPS)));
}

/*
 * A new mtime, or an owner and mode that the file has already, as tar and cp set them after writing: of a file that is held
 * exclusively with data to be committed, the times go along with that. true: answered.
 */
static bool set_with_data(struct cfs_op *op, uint64_t ino, const struct stat *st, uint32_t valid)
{
	const uint32_t can = CFS_SA_MODE | CFS_SA_UID | CFS_SA_GID | CFS_SA_KILLPRIV | CFS_SA_MTIME;
	struct cfs_client *c = op->c;
	struct cfs_time mtime = time_of(&st->st_mtim);
	struct cfs_attr attr;
	struct cfs_data *d;
	struct cfs_ttl ttl;
	struct stat out;
	bool done;

	if (!valid || (valid & ~can) || !cfs_has_data(c))
		return false;
	d = cfs_data_find(c, ino);
	if (!d)
		return false;
	cfs_reply_begin(c);
	ttl = cfs_op_ttl(c);
	done = ttl.until_ns && cfs_dcache_attr(c->dcache, ino, &attr) && is_same(&attr, st, valid) &&
	       cfs_data_set_times(d, valid & CFS_SA_MTIME ? &mtime : NULL);
	if (done) {
		cfs_count(c, dc_setattr);
		cfs_kernel_has_attr(c, &attr, ttl.until_ns);
		cfs_op_stat(c, &attr, &out);
		cfs_inode_told(c, &attr);
		op->t->req = NULL;
		fuse_reply_attr(op->req, &out, ttl.seconds);
	}
	cfs_reply_end(c);
	cfs_data_put(d);
	return done;
}

void cfs_fuse_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);
	uint32_t valid = wanted_changes(to_set), wanted = valid;
	struct found f = { .cached = false };
	struct cfs_client *c = op.c;
	struct cfs_ttl ttl;
	double keep;
	int err = 0;

	if (!(to_set & FUSE_SET_ATTR_SIZE) && set_with_data(&op, ino, st, valid))
		return;
	if (to_set & FUSE_SET_ATTR_SIZE) {
		cfs_busy_begin(c, ino);
		cfs_busy_end_later(c, ino);
		if (valid & CFS_SA_KILLPRIV)
			err = cfs_op_kill_priv(&op, ino);
		if (!err)
			err = set_size(&op, ino, (uint64_t)st->st_size, fi ? cfs_fh_of(c, fi) : NULL, &f);
		valid &= ~(CFS_SA_KILLPRIV | CFS_SA_MTIME_NOW | CFS_SA_CTIME); /* these come with a new size */
	}
	if (!err && valid)
		err = set_rest(&op, ino, st, valid, &f);
	if (err == ESTALE && !(to_set & FUSE_SET_ATTR_SIZE) && removed(c, ino, &f.attr)) {
		change_removed(c, st, valid, &f.attr);
		valid = 0;
		err = 0;
	}
	if (!err && !wanted && !(to_set & FUSE_SET_ATTR_SIZE))
		err = cfs_op_errno_stale(ask_attr(&op, ino, &f));
	cfs_debug("setattr %llx: set %x size %llu: error %d valid %x mtime %lld", (unsigned long long)ino, to_set,
		  (unsigned long long)st->st_size, err, f.valid, (long long)cfs_le64_to_cpu(f.attr.mtime.sec));
	if (err) {
		cfs_op_err(&op, err);
		return;
	}
	op.t->req = NULL;
	cfs_reply_begin(c);
	ttl = cfs_op_ttl(c);
	if (valid)
		keep = cfs_op_changed_attr(c, &f.attr, f.valid, f.since, &ttl);
	else
		keep = cfs_op_keep_attr(c, &f.attr, f.valid, f.since, &ttl);
	cfs_op_stat(c, &f.attr, st);
	cfs_inode_told(c, &f.attr);
	fuse_reply_attr(req, st, keep);
	cfs_reply_end(c);
}

/* ---- statfs ------------------------------------------------------------------------------------------ */
void cfs_fuse_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_client *c = op.c;
	struct cfs_statfs_rep rep;
	struct cfs_op_req r = { .opcode = CFS_OP_STATFS, .rep = &rep, .rep_max = sizeof(rep), .timeout_ms = STATFS_MS };
	struct statvfs sv = { .f_namemax = CFS_NAME_MAX };
	uint64_t block, now = cfs_boot_ns();
	bool fresh;

	(void)ino;
	pthread_mutex_lock(&c->statfs_lock);
	fresh = c->statfs_ns && now - c->statfs_ns < STATFS_MS * CFS_NSEC_PER_MSEC;
	rep = c->statfs;
	pthread_mutex_unlock(&c->statfs_lock);
	if (!fresh) {
		struct cfs_statfs_rep old = rep;

		if (cfs_op_call_want(&op, &r, sizeof(rep)))
			rep = old; /* a server that does not answer in time must not hang df: the last known state */
		pthread_mutex_lock(&c->statfs_lock);
		c->statfs = rep;
		c->statfs_ns = cfs_boot_ns();
		pthread_mutex_unlock(&c->statfs_lock);
	}
	block = cfs_le32_to_cpu(rep.block_bytes) ? cfs_le32_to_cpu(rep.block_bytes) : 4096;
	sv.f_bsize = sv.f_frsize = block;
	sv.f_blocks = cfs_le64_to_cpu(rep.total_bytes) / block;
	sv.f_bfree = sv.f_bavail = cfs_le64_to_cpu(rep.free_bytes) / block;
	sv.f_files = cfs_le64_to_cpu(rep.files) + cfs_le64_to_cpu(rep.files_free); /* statvfs counts all */
	sv.f_ffree = sv.f_favail = cfs_le64_to_cpu(rep.files_free);
	op.t->req = NULL;
	fuse_reply_statfs(req, &sv);
}

/* ---- extended attributes -------------------------------------------------------------------------------- */
/* does the cache know that the inode has no such attribute? NULL: any */
static bool known_absent(struct cfs_client *c, uint64_t ino, const char *name)
{
	uint32_t flag = CFS_IF_XATTR;
	struct cfs_attr attr;

	if (name && !strcmp(name, "security.capability"))
		flag = CFS_IF_CAPS;
	else if (name && !strncmp(name, "system.posix_acl_", 17))
		flag = CFS_IF_ACL;
	if (!cfs_op_ttl(c).until_ns || !cfs_dcache_attr(c->dcache, ino, &attr))
		return false;
	if (cfs_le32_to_cpu(attr.flags) & flag)
		return false;
	cfs_count(c, dc_xattr);
	return true;
}

static void reply_value(struct cfs_op *op, const struct cfs_op_req *r, size_t size)
{
	op->t->req = NULL;
	if (!size)
		fuse_reply_xattr(op->req, r->rep_len);
	else if (r->rep_len > size)
		fuse_reply_err(op->req, ERANGE);
	else
		fuse_reply_buf(op->req, cfs_thread_buf(op->t), r->rep_len);
}

/* 0: no such name can be; answered */
static size_t xattr_name_len(struct cfs_op *op, const char *name)
{
	size_t len = strlen(name);

	if (len && len <= CFS_XATTR_NAME_MAX)
		return len;
	cfs_op_err(op, ERANGE);
	return 0;
}

void cfs_fuse_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct cfs_op op = cfs_op_begin(req);
	size_t len = xattr_name_len(&op, name);
	struct cfs_xattr_req body = { .ino = cfs_cpu_to_le64(ino), .name_len = cfs_cpu_to_le32((uint32_t)len) };
	struct cfs_op_req r = { .opcode = CFS_OP_GETXATTR, .fixed = &body, .fixed_len = sizeof(body),
				.more = { { (void *)(uintptr_t)name, len } } };
	int rc;

	if (!len)
		return;
	if (known_absent(op.c, ino, name)) {
		cfs_op_err(&op, ENODATA);
		cfs_dcache_mirror_attr(op.c->dcache, ino);
		return;
	}
	rc = cfs_op_call(&op, &r);
	if (rc)
		cfs_op_err(&op, cfs_op_errno_stale(rc));
	else
		reply_value(&op, &r, size);
}

void cfs_fuse_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_ino_req body = { .ino = cfs_cpu_to_le64(ino) };
	struct cfs_op_req r = { .opcode = CFS_OP_LISTXATTR, .fixed = &body, .fixed_len = sizeof(body) };
	int rc = 0;

	if (!known_absent(op.c, ino, NULL))
		rc = cfs_op_call(&op, &r);
	if (rc)
		cfs_op_err(&op, cfs_op_errno_stale(rc));
	else
		reply_value(&op, &r, size);
}

static void change_xattr(struct cfs_op *op, uint64_t ino, const char *name, const char *value, size_t size, uint32_t flags,
			 uint32_t extra)
{
	size_t len = xattr_name_len(op, name);
	struct cfs_setxattr_req body = {
		.ino = cfs_cpu_to_le64(ino), .name_len = cfs_cpu_to_le32((uint32_t)len),
		.value_len = cfs_cpu_to_le32((uint32_t)size), .flags = cfs_cpu_to_le32(flags),
		.extra = cfs_cpu_to_le32(extra),
	};
	struct cfs_attr_rep rep;
	struct cfs_op_req r = {
		.opcode = CFS_OP_SETXATTR, .mutating = true, .fixed = &body, .fixed_len = sizeof(body),
		.more = { { (void *)(uintptr_t)name, len }, { (void *)(uintptr_t)value, size } },
		.rep = &rep, .rep_max = sizeof(rep),
	};
	struct cfs_ttl ttl;
	bool kept;
	int rc;

	if (!len)
		return;
	if (size > CFS_XATTR_SIZE_MAX) {
		cfs_op_err(op, E2BIG);
		return;
	}
	cfs_busy_begin(op->c, ino);
	rc = cfs_op_call_want(op, &r, sizeof(rep));
	cfs_busy_end_later(op->c, ino);
	if (rc) {
		cfs_op_err(op, cfs_op_errno_stale(rc));
		return;
	}
	tell_data(op->c, &rep.attr, 0);
	ttl = cfs_op_ttl(op->c);
	kept = cfs_op_changed_attr(op->c, &rep.attr, cfs_le32_to_cpu(rep.valid), r.break_gen, &ttl) > 0;
	cfs_op_err(op, 0);
	if (!kept) /* the reply tells the kernel nothing about the attributes it has */
		cfs_notify_attr(op->c, ino);
}

void cfs_fuse_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	struct cfs_op op = cfs_op_begin(req);
	const struct fuse_setxattr_in *in = (const void *)((const char *)op.t->in + sizeof(struct fuse_in_header));
	uint32_t extra = 0;

	/* libfuse does not hand this one on; it is there when SETXATTR_EXT was negotiated */
	if (op.c->setxattr_ext && (in->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID))
		extra = CFS_XATTR_KILL_SGID;
	change_xattr(&op, ino, name, value, size, (uint32_t)flags, extra);
}

void cfs_fuse_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct cfs_op op = cfs_op_begin(req);

	change_xattr(&op, ino, name, NULL, 0, CFS_XATTR_REMOVE, 0);
}
