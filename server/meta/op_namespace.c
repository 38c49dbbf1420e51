/* SPDX-License-Identifier: MIT */
/*
 * op_namespace.c - MKNODE, LINK, UNLINK and RENAME as POSIX and Linux have them. Permissions, the
 * sticky bit and read-only mounts are the client kernel's (default_permissions). Each function
 * checks first, then writes.
 */
#include "server/meta/meta_i.h"

#include <linux/fs.h>

/* a directory that names can be put into or taken from */
static int dir_get(struct cfs_tx *t, uint64_t ino, struct cfs_inode *ret_dir)
{
	int rc = cfs_ms_inode_get(t, ino, ret_dir);

	if (rc)
		return rc;
	if (!S_ISDIR(ret_dir->mode))
		return ENOTDIR;
	return ret_dir->nlink ? 0 : ENOENT;
}

/* an inode that a name leads to: it must exist */
static int target_get(struct cfs_tx *t, uint64_t ino, struct cfs_inode *ret_in)
{
	int rc = cfs_ms_inode_get(t, ino, ret_in);

	return rc == ENOENT ? -EUCLEAN : rc;
}

/* dir: the directory that got the name, or NULL */
static void make_reply(struct cfs_tx *t, const struct cfs_inode *in, const struct cfs_inode *dir)
{
	struct cfs_make_rep rep = { .entry.valid = 0 };

	cfs_ms_inode_attr(in, &rep.entry.attr);
	if (dir)
		cfs_ms_inode_attr(dir, &rep.dirattr);
	memcpy(t->rep, &rep, sizeof(rep));
	t->rep_len = sizeof(rep);
}

/* ---- MKNODE --------------------------------------------------------------------- */
/*
 * The mode of a new inode: S_ISGID directories pass their group on; a default ACL takes the place
 * of the umask (posix_acl_create). *ret_acl_len: bytes of access ACL to be stored, in
 * m->xattr_buf; *ret_default_len: of the default ACL that a subdirectory inherits, to be read
 * again.
 */
static int inherit(struct cfs_tx *t, const struct cfs_inode *dir, struct cfs_inode *in,
		   uint32_t umask_bits, size_t *ret_acl_len, size_t *ret_default_len)
{
	MDB_val v;
	int rc = ENOENT;

	*ret_acl_len = *ret_default_len = 0;
	if (dir->mode & S_ISGID) {
		in->gid = dir->gid;
		if (S_ISDIR(in->mode))
			in->mode |= S_ISGID;
	}
	if (S_ISLNK(in->mode))
		return 0;
	if (dir->flags & CFS_IF_ACL)
		rc = cfs_ms_xattr_get(t, dir->ino, CFS_XATTR_ACL_DEFAULT, &v);
	if (rc == ENOENT) {
		in->mode &= ~(umask_bits & 0777);
		return 0;
	}
	if (rc)
		return rc;
	if (v.mv_size > sizeof(t->m->xattr_buf) || cfs_ms_acl_check(v.mv_data, v.mv_size))
		return -EUCLEAN;
	memcpy(t->m->xattr_buf, v.mv_data, v.mv_size);
	if (!cfs_ms_acl_create(t->m->xattr_buf, v.mv_size, &in->mode))
		*ret_acl_len = v.mv_size;
	if (S_ISDIR(in->mode))
		*ret_default_len = v.mv_size;
	return 0;
}

static int store_acls(struct cfs_tx *t, const struct cfs_inode *dir, struct cfs_inode *in,
		      size_t acl_len, size_t default_len)
{
	MDB_val v;
	int rc = 0;

	if (acl_len)
		rc = cfs_ms_xattr_put(t, in, CFS_XATTR_ACL_ACCESS, sizeof(CFS_XATTR_ACL_ACCESS) - 1,
				      t->m->xattr_buf, acl_len);
	if (rc || !default_len)
		return rc;
	rc = cfs_ms_xattr_get(t, dir->ino, CFS_XATTR_ACL_DEFAULT, &v);
	if (rc)
		return rc == ENOENT ? -EUCLEAN : rc;
	memcpy(t->m->xattr_buf, v.mv_data, default_len);
	return cfs_ms_xattr_put(t, in, CFS_XATTR_ACL_DEFAULT, sizeof(CFS_XATTR_ACL_DEFAULT) - 1,
				t->m->xattr_buf, default_len);
}

/* does what is asked for make sense by itself? */
static int mknode_check(const struct cfs_mknode_req *req, const char *name, const char *target,
			uint32_t mode)
{
	uint32_t flags = cfs_le32_to_cpu(req->flags), target_len = cfs_le32_to_cpu(req->target_len);

	if (flags & ~(CFS_MK_LEASE | CFS_MK_TMPFILE))
		return EINVAL;
	switch (mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFIFO:
	case S_IFSOCK:
	case S_IFCHR:
	case S_IFBLK:
		break;
	default:
		return EINVAL;
	}
	if (S_ISLNK(mode)) {
		if (target_len > CFS_SYMLINK_MAX)
			return ENAMETOOLONG;
		if (!target_len || memchr(target, 0, target_len))
			return EINVAL;
	} else if (target_len) {
		return EINVAL;
	}
	if (flags & CFS_MK_TMPFILE)
		return S_ISREG(mode) && !req->name_len ? 0 : EINVAL;
	return cfs_ms_dent_name_check(name, cfs_le32_to_cpu(req->name_len));
}

int cfs_ms_op_mknode(struct cfs_tx *t, const uint8_t *body, uint32_t len)
{
	struct cfs_mknode_req req;
	const char *name, *target;
	struct cfs_inode dir, in;
	struct cfs_dent d = { 0 };
	size_t acl_len, default_len;
	uint32_t mode;
	struct cfs_key k;
	bool tmp;
	int rc;

	rc = cfs_ms_req_mknode(body, len, &req, &name, &target);
	if (rc)
		return rc;
	mode = cfs_le32_to_cpu(req.mode) & (S_IFMT | 07777);
	if (!(mode & S_IFMT))
		mode |= S_IFREG;
	rc = mknode_check(&req, name, target, mode);
	if (!rc)
		rc = dir_get(t, cfs_le64_to_cpu(req.dir), &dir);
	if (rc)
		return rc;
	tmp = cfs_le32_to_cpu(req.flags) & CFS_MK_TMPFILE;
	if (!tmp) {
		rc = cfs_ms_dent_find(t, dir.ino, name, cfs_le32_to_cpu(req.name_len), &d);
		if (rc != ENOENT)
			return rc ? rc : EEXIST;
		if (!d.cookie)
			return ENOSPC;
	}
	in = (struct cfs_inode){
		.gen = t->index, .change = 1, .parent = tmp ? 0 : dir.ino,
		.atime = t->now, .mtime = t->now, .ctime = t->now, .btime = t->now,
		.mode = S_ISLNK(mode) ? S_IFLNK | 0777 : mode,
		.nlink = tmp ? 0 : S_ISDIR(mode) ? 2 : 1,
		.uid = cfs_le32_to_cpu(req.cred.uid), .gid = cfs_le32_to_cpu(req.cred.gid),
		.rdev = S_ISCHR(mode) || S_ISBLK(mode) ? cfs_le32_to_cpu(req.rdev) : 0,
		.size = S_ISLNK(mode) ? cfs_le32_to_cpu(req.target_len) : 0,
	};
	rc = inherit(t, &dir, &in, cfs_le32_to_cpu(req.cred.umask), &acl_len, &default_len);
	if (!rc)
		rc = cfs_ms_inode_new_ino(t, &in.ino);
	if (rc)
		return rc;

	in.map = in.ino;
	rc = store_acls(t, &dir, &in, acl_len, default_len);
	if (!rc && S_ISLNK(mode)) {
		cfs_key_u64(&k, CFS_KEY_INLINE, in.ino);
		rc = cfs_ms_db_put(t, &k, target, in.size);
	}
	if (!rc)
		rc = cfs_ms_inode_put(t, &in);
	if (rc)
		return rc;
	t->m->st.inodes++;
	t->m->st.dirs += S_ISDIR(mode);
	if (tmp) {
		t->m->st.orphans++;
		rc = cfs_ms_inode_hold(t, in.ino, t->session);
	} else {
		d.ino = in.ino;
		d.mode = mode;
		rc = cfs_ms_dent_put(t, dir.ino, &d, name, cfs_le32_to_cpu(req.name_len));
		dir.size++;
		dir.nlink += S_ISDIR(mode);
		cfs_ms_inode_touch_data(t, &dir);
		if (!rc)
			rc = cfs_ms_inode_put(t, &dir);
	}
	make_reply(t, &in, tmp ? NULL : &dir);
	return rc;
}

/* ---- LINK ----------------------------------------------------------------------- */
int cfs_ms_op_link(struct cfs_tx *t, const uint8_t *body, uint32_t len)
{
	struct cfs_link_req req;
	struct cfs_inode dir, in;
	struct cfs_dent d;
	const char *name;
	uint32_t name_len;
	int rc;

	rc = cfs_ms_req_link(body, len, &req, &name);
	if (rc)
		return rc;
	name_len = cfs_le32_to_cpu(req.name_len);
	rc = cfs_ms_dent_name_check(name, name_len);
	if (!rc)
		rc = cfs_ms_inode_get(t, cfs_le64_to_cpu(req.ino), &in);
	if (!rc)
		rc = dir_get(t, cfs_le64_to_cpu(req.dir), &dir);
	if (rc)
		return rc;
	rc = cfs_ms_dent_find(t, dir.ino, name, name_len, &d);
	if (rc != ENOENT)
		return rc ? rc : EEXIST;
	if (S_ISDIR(in.mode))
		return EPERM;
	if (in.nlink >= CFS_LINK_MAX)
		return EMLINK;
	if (!d.cookie)
		return ENOSPC;

	d.ino = in.ino;
	d.mode = in.mode;
	rc = cfs_ms_dent_put(t, dir.ino, &d, name, name_len);
	if (!rc && !in.nlink)	/* an O_TMPFILE gets its name */
		rc = cfs_ms_inode_unorphan(t, in.ino);
	if (rc)
		return rc;
	in.parent = in.nlink ? 0 : dir.ino;
	in.nlink++;
	cfs_ms_inode_touch(t, &in);
	dir.size++;
	cfs_ms_inode_touch_data(t, &dir);
	rc = cfs_ms_inode_put(t, &in);
	if (!rc)
		rc = cfs_ms_inode_put(t, &dir);
	make_reply(t, &in, &dir);
	return rc;
}

/* ---- UNLINK and rmdir ----------------------------------------------------------- */
/*
 * `in` loses the name that was in `dir`: link counts and times of both. *ret_mine: it is an
 * orphan of this session. Writes `in`, not `dir`.
 */
static int lose_name(struct cfs_tx *t, struct cfs_inode *dir, struct cfs_inode *in, bool *ret_mine)
{
	*ret_mine = false;
	if (S_ISDIR(in->mode)) {
		in->nlink = 0;
		dir->nlink--;
	} else {
		in->nlink--;
	}
	cfs_ms_inode_touch(t, in);
	if (!in->nlink)
		return cfs_ms_inode_unlinked(t, in, ret_mine);
	return cfs_ms_inode_put(t, in);
}

int cfs_ms_op_unlink(struct cfs_tx *t, const uint8_t *body, uint32_t len)
{
	struct cfs_unlink_rep rep = { .valid = 0 };
	struct cfs_unlink_req req;
	struct cfs_inode dir, in;
	struct cfs_dent d;
	const char *name;
	bool mine;
	int rc;

	rc = cfs_ms_req_unlink(body, len, &req, &name);
	if (!rc)
		rc = cfs_ms_dent_name_check(name, cfs_le32_to_cpu(req.name_len));
	if (!rc)
		rc = dir_get(t, cfs_le64_to_cpu(req.dir), &dir);
	if (!rc)
		rc = cfs_ms_dent_find(t, dir.ino, name, cfs_le32_to_cpu(req.name_len), &d);
	if (!rc)
		rc = target_get(t, d.ino, &in);
	if (rc)
		return rc;
	if (!req.rmdir && S_ISDIR(in.mode))
		return EISDIR;
	if (req.rmdir && !S_ISDIR(in.mode))
		return ENOTDIR;
	if (S_ISDIR(in.mode) && in.size)
		return ENOTEMPTY;

	rc = cfs_ms_dent_del(t, dir.ino, d.cookie);
	if (!rc)
		rc = lose_name(t, &dir, &in, &mine);
	if (rc)
		return rc;
	dir.size--;
	cfs_ms_inode_touch_data(t, &dir);
	rc = cfs_ms_inode_put(t, &dir);
	cfs_ms_inode_attr(&in, &rep.attr);
	cfs_ms_inode_attr(&dir, &rep.dirattr);
	rep.orphan = cfs_cpu_to_le32(mine);
	memcpy(t->rep, &rep, sizeof(rep));
	t->rep_len = sizeof(rep);
	return rc;
}

/* ---- RENAME --------------------------------------------------------------------- */
struct rename {
	uint32_t flags;
	struct cfs_inode od, nd_, *nd;	/* nd is &od when both directories are one */
	struct cfs_inode a, b;		/* what moves; what new name has now (b.ino 0: nothing) */
	struct cfs_dent da, db;
};

/* is `dir` the directory `top`, or below it? 0, EINVAL: it is */
static int below(struct cfs_tx *t, uint64_t dir, uint64_t top)
{
	struct cfs_inode in;
	int rc;

	/* ends: no path is longer than there are directories */
	for (uint64_t left = t->m->st.dirs + 1; left; left--) {
		if (dir == top)
			return EINVAL;
		if (dir == CFS_INO_ROOT)
			return 0;
		rc = target_get(t, dir, &in);
		if (rc)
			return rc;
		dir = in.parent;
	}
	return -EUCLEAN;
}

static int rename_check(struct cfs_tx *t, struct rename *r)
{
	bool exchange = r->flags & RENAME_EXCHANGE, a_dir = S_ISDIR(r->a.mode),
	     b_dir = S_ISDIR(r->b.mode);
	int rc = 0;

	if (!r->b.ino) {
		if (exchange)
			return ENOENT;
		if (!r->db.cookie)
			return ENOSPC;
	} else if (r->flags & RENAME_NOREPLACE) {
		return EEXIST;
	}
	if (r->b.ino == r->a.ino)
		return 0;
	if (a_dir && r->nd->ino != r->od.ino)
		rc = below(t, r->nd->ino, r->a.ino);
	else if (a_dir && r->nd->ino == r->a.ino)
		rc = EINVAL;
	if (!rc && exchange && b_dir && r->nd->ino != r->od.ino)
		rc = below(t, r->od.ino, r->b.ino);
	if (rc || !r->b.ino || exchange)
		return rc;
	if (a_dir && !b_dir)
		return ENOTDIR;
	if (!a_dir && b_dir)
		return EISDIR;
	return b_dir && r->b.size ? ENOTEMPTY : 0;
}

/* `in` is in `to` now, and no longer in `from` */
static void moved(struct cfs_tx *t, struct cfs_inode *in, struct cfs_inode *from,
		  struct cfs_inode *to)
{
	if (S_ISDIR(in->mode)) {
		from->nlink--;
		to->nlink++;
		in->parent = to->ino;
	} else if (in->nlink == 1) {
		in->parent = to->ino;
	}
	cfs_ms_inode_touch(t, in);
}

static int rename_write(struct cfs_tx *t, struct rename *r, const char *new_name, uint32_t new_len,
			const char *old_name, uint32_t old_len, bool *ret_mine)
{
	struct cfs_dent d;
	int rc;

	if (r->flags & RENAME_EXCHANGE) {
		d = (struct cfs_dent){ r->da.cookie, r->b.ino, r->b.mode };
		rc = cfs_ms_dent_put(t, r->od.ino, &d, old_name, old_len);
		moved(t, &r->b, r->nd, &r->od);
		if (!rc)
			rc = cfs_ms_inode_put(t, &r->b);
	} else {
		rc = cfs_ms_dent_del(t, r->od.ino, r->da.cookie);
		r->od.size--;
		if (r->b.ino && !rc)
			rc = lose_name(t, r->nd, &r->b, ret_mine);
		else
			r->nd->size++;
	}
	if (rc)
		return rc;
	d = (struct cfs_dent){ r->db.cookie, r->a.ino, r->a.mode };
	rc = cfs_ms_dent_put(t, r->nd->ino, &d, new_name, new_len);
	moved(t, &r->a, &r->od, r->nd);
	cfs_ms_inode_touch_data(t, &r->od);
	if (r->nd != &r->od)
		cfs_ms_inode_touch_data(t, r->nd);
	if (!rc)
		rc = cfs_ms_inode_put(t, &r->a);
	if (!rc)
		rc = cfs_ms_inode_put(t, &r->od);
	if (!rc && r->nd != &r->od)
		rc = cfs_ms_inode_put(t, r->nd);
	return rc;
}

int cfs_ms_op_rename(struct cfs_tx *t, const uint8_t *body, uint32_t len)
{
	struct cfs_rename_rep rep = { .valid = 0 };
	struct cfs_rename_req req;
	uint32_t old_len, new_len;
	const char *old, *new;
	bool mine = false;
	struct rename r = { .flags = 0 };
	int rc;

	rc = cfs_ms_req_rename(body, len, &req, &old, &new);
	if (rc)
		return rc;
	old_len = cfs_le32_to_cpu(req.old_len);
	new_len = cfs_le32_to_cpu(req.new_len);
	r.flags = cfs_le32_to_cpu(req.flags);
	if (r.flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE) ||
	    r.flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
		return EINVAL;
	rc = cfs_ms_dent_name_check(old, old_len);
	if (!rc)
		rc = cfs_ms_dent_name_check(new, new_len);
	if (!rc)
		rc = dir_get(t, cfs_le64_to_cpu(req.old_dir), &r.od);
	if (rc)
		return rc;
	r.nd = &r.od;
	if (req.new_dir != req.old_dir) {
		r.nd = &r.nd_;
		rc = dir_get(t, cfs_le64_to_cpu(req.new_dir), r.nd);
	}
	if (!rc)
		rc = cfs_ms_dent_find(t, r.od.ino, old, old_len, &r.da);
	if (!rc)
		rc = target_get(t, r.da.ino, &r.a);
	if (rc)
		return rc;
	rc = cfs_ms_dent_find(t, r.nd->ino, new, new_len, &r.db);
	if (!rc)
		rc = target_get(t, r.db.ino, &r.b);
	if (!rc || rc == ENOENT)
		rc = rename_check(t, &r);
	if (rc)
		return rc;

	if (r.a.ino == r.b.ino)		/* two names of one file: rename() does nothing */
		memset(&r.b, 0, sizeof(r.b));
	else
		rc = rename_write(t, &r, new, new_len, old, old_len, &mine);
	cfs_ms_inode_attr(&r.a, &rep.attr);
	if (r.b.ino)
		cfs_ms_inode_attr(&r.b, &rep.other);
	rep.orphan = cfs_cpu_to_le32(mine);
	memcpy(t->rep, &rep, sizeof(rep));
	t->rep_len = sizeof(rep);
	return rc;
}
