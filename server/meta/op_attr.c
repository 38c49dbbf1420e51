/* SPDX-License-Identifier: MIT */
/*
 * op_attr.c - SETATTR and SETXATTR, and the ties between mode bits, ACLs and privileges. Who may
 * do what is the client kernel's business (default_permissions). Each function checks first, then
 * writes.
 */
#include "server/meta/meta_i.h"

#include <sys/xattr.h>

#define SA_ALL                                                                               \
	(CFS_SA_MODE | CFS_SA_UID | CFS_SA_GID | CFS_SA_SIZE | CFS_SA_ATIME | CFS_SA_MTIME | \
	 CFS_SA_CTIME | CFS_SA_ATIME_NOW | CFS_SA_MTIME_NOW | CFS_SA_KILLPRIV)

static void attr_reply(struct cfs_tx *t, const struct cfs_inode *in)
{
	struct cfs_attr_rep rep = { .valid = 0 };

	cfs_ms_inode_attr(in, &rep.attr);
	memcpy(t->rep, &rep, sizeof(rep));
	t->rep_len = sizeof(rep);
}

/* ---- SETATTR -------------------------------------------------------------------- */
static int setattr_check(const struct cfs_setattr_req *req, const struct cfs_inode *in)
{
	uint32_t valid = cfs_le32_to_cpu(req->valid);

	if (valid & ~SA_ALL)
		return EINVAL;
	if ((valid & CFS_SA_ATIME && cfs_le32_to_cpu(req->atime.nsec) >= CFS_NSEC_PER_SEC) ||
	    (valid & CFS_SA_MTIME && cfs_le32_to_cpu(req->mtime.nsec) >= CFS_NSEC_PER_SEC) ||
	    (valid & CFS_SA_CTIME && cfs_le32_to_cpu(req->ctime.nsec) >= CFS_NSEC_PER_SEC))
		return EINVAL;
	if (valid & CFS_SA_SIZE) {
		if (S_ISDIR(in->mode))
			return EISDIR;
		if (!S_ISREG(in->mode))
			return EINVAL;
		if (cfs_le64_to_cpu(req->size) > CFS_FILE_SIZE_MAX)
			return EFBIG;
	}
	return 0;
}

/* the access ACL, if there is one, follows the mode (posix_acl_chmod) */
static int acl_follow(struct cfs_tx *t, struct cfs_inode *in)
{
	uint8_t *acl = t->m->xattr_buf;
	size_t len;
	MDB_val v;
	int rc;

	if (!(in->flags & CFS_IF_ACL))
		return 0;
	rc = cfs_ms_xattr_get(t, in->ino, CFS_XATTR_ACL_ACCESS, &v);
	if (rc)
		return rc == ENOENT ? 0 : rc;
	len = v.mv_size;
	if (len > sizeof(t->m->xattr_buf))
		return -EUCLEAN;
	memcpy(acl, v.mv_data, len);
	cfs_ms_acl_chmod(acl, len, in->mode);
	return cfs_ms_xattr_put(t, in, CFS_XATTR_ACL_ACCESS, sizeof(CFS_XATTR_ACL_ACCESS) - 1, acl,
				len);
}

static int set_size(struct cfs_tx *t, struct cfs_inode *in, uint64_t size)
{
	uint8_t data[CFS_INLINE_MAX];
	int rc = 0;

	if (size < in->inline_len) {
		rc = cfs_ms_inline_get(t, in, data);
		if (!rc)
			rc = cfs_ms_inline_set(t, in, data, (uint32_t)size);
	} else if (size <= in->size &&
		   in->n_extents) { /* beyond the end there is nothing but reserved space */
		rc = cfs_ms_ext_truncate(t, in, size);
	}
	in->size = size;
	return rc;
}

int cfs_ms_op_setattr(struct cfs_tx *t, const uint8_t *body, uint32_t len)
{
	struct cfs_setattr_req req;
	struct cfs_inode in;
	uint32_t valid;
	int rc;

	rc = cfs_ms_req_fixed(body, len, &req, sizeof(req));
	if (!rc)
		rc = cfs_ms_inode_get(t, cfs_le64_to_cpu(req.ino), &in);
	if (!rc)
		rc = setattr_check(&req, &in);
	if (rc)
		return rc;

	valid = cfs_le32_to_cpu(req.valid);
	if (valid & CFS_SA_UID)
		in.uid = cfs_le32_to_cpu(req.uid);
	if (valid & CFS_SA_GID)
		in.gid = cfs_le32_to_cpu(req.gid);
	if (valid & CFS_SA_KILLPRIV)
		rc = cfs_ms_inode_kill_priv(t, &in);
	else if (valid & (CFS_SA_UID | CFS_SA_GID | CFS_SA_SIZE))
		rc = cfs_ms_inode_kill_caps(t, &in); /* whoever did it (FUSE_HANDLE_KILLPRIV_V2) */
	if (!rc && valid & CFS_SA_MODE) {
		in.mode = (in.mode & S_IFMT) | (cfs_le32_to_cpu(req.mode) & 07777);
		rc = acl_follow(t, &in);
	}
	if (!rc && valid & CFS_SA_SIZE)
		rc = set_size(t, &in, cfs_le64_to_cpu(req.size));
	if (rc)
		return rc;
	if (valid & CFS_SA_SIZE)
		cfs_ms_inode_touch_data(t, &in);
	else
		cfs_ms_inode_touch(t, &in);
	if (valid & CFS_SA_ATIME)
		in.atime = cfs_ts_get(&req.atime);
	if (valid & CFS_SA_ATIME_NOW)
		in.atime = t->now;
	if (valid & CFS_SA_MTIME)
		in.mtime = cfs_ts_get(&req.mtime);
	if (valid & CFS_SA_MTIME_NOW)
		in.mtime = t->now;
	if (valid & CFS_SA_CTIME)
		in.ctime = cfs_ts_get(&req.ctime);
	rc = cfs_ms_inode_put(t, &in);
	attr_reply(t, &in);
	return rc;
}

/* ---- SETXATTR ------------------------------------------------------------------- */
static bool name_is(const char *name, uint32_t len, const char *what)
{
	return len == strlen(what) && !memcmp(name, what, len);
}

static bool name_starts(const char *name, uint32_t len, const char *what)
{
	return len > strlen(what) && !memcmp(name, what, strlen(what));
}

static int name_check(const char *name, uint32_t len)
{
	if (!len || len > CFS_XATTR_NAME_MAX || memchr(name, 0, len))
		return ERANGE;
	if (name_starts(name, len, "user.") || name_starts(name, len, "trusted.") ||
	    name_starts(name, len, "security.") || name_is(name, len, CFS_XATTR_ACL_ACCESS) ||
	    name_is(name, len, CFS_XATTR_ACL_DEFAULT))
		return 0;
	return EOPNOTSUPP;
}

/*
 * an ACL to be set on `in`. *ret_remove: it says nothing that the mode does not; *ret_perm: the
 * mode's new bits
 */
static int acl_check(const struct cfs_inode *in, bool access, const uint8_t *acl, uint32_t len,
		     bool *ret_remove, uint32_t *ret_perm)
{
	*ret_remove = false;
	*ret_perm = in->mode & 0777;
	if (S_ISLNK(in->mode))
		return EOPNOTSUPP;
	if (!len || (len == 4 && !cfs_ms_acl_check(acl, len))) { /* no ACL, or one of no entries */
		*ret_remove = true;
		return 0;
	}
	if (!access && !S_ISDIR(in->mode))
		return EACCES;
	if (cfs_ms_acl_check(acl, len))
		return EINVAL;
	if (access)
		*ret_remove = cfs_ms_acl_mode(acl, len, ret_perm);
	return 0;
}

int cfs_ms_op_setxattr(struct cfs_tx *t, const uint8_t *body, uint32_t len)
{
	uint32_t name_len, value_len, flags, extra, perm = 0;
	bool exists, remove, access, is_default;
	struct cfs_setxattr_req req;
	const uint8_t *value;
	const char *name;
	struct cfs_inode in;
	struct cfs_key k;
	MDB_val v;
	int rc;

	rc = cfs_ms_req_setxattr(body, len, &req, &name, &value);
	if (rc)
		return rc;
	name_len = cfs_le32_to_cpu(req.name_len);
	value_len = cfs_le32_to_cpu(req.value_len);
	flags = cfs_le32_to_cpu(req.flags);
	extra = cfs_le32_to_cpu(req.extra);
	rc = name_check(name, name_len);
	if (rc)
		return rc;
	if (value_len > CFS_XATTR_SIZE_MAX)
		return E2BIG;
	if ((flags != 0 && flags != XATTR_CREATE && flags != XATTR_REPLACE &&
	     flags != CFS_XATTR_REMOVE) ||
	    extra & ~CFS_XATTR_KILL_SGID || (flags == CFS_XATTR_REMOVE && value_len))
		return EINVAL;
	rc = cfs_ms_inode_get(t, cfs_le64_to_cpu(req.ino), &in);
	if (rc)
		return rc;
	cfs_key_xattr(&k, in.ino, name, name_len);
	rc = cfs_ms_db_get(t, &k, &v);
	if (rc < 0)
		return rc;
	exists = rc == 0;
	remove = flags == CFS_XATTR_REMOVE;
	access = name_is(name, name_len, CFS_XATTR_ACL_ACCESS);
	is_default = name_is(name, name_len, CFS_XATTR_ACL_DEFAULT);
	if (exists && flags == XATTR_CREATE)
		return EEXIST;
	if (!exists && (flags == XATTR_REPLACE || (remove && !access && !is_default)))
		return ENODATA;
	if (!remove && (access || is_default)) {
		rc = acl_check(&in, access, value, value_len, &remove, &perm);
		if (rc)
			return rc;
		if (access && value_len > 4) {
			in.mode = (in.mode & ~0777u) | perm;
			if (extra & CFS_XATTR_KILL_SGID)
				in.mode &= ~(uint32_t)S_ISGID;
		}
	}
	if (!remove && !exists && in.xattr_list_len + name_len + 1 > CFS_XATTR_LIST_MAX)
		return ENOSPC;

	if (!remove)
		rc = cfs_ms_xattr_put(t, &in, name, name_len, value, value_len);
	else
		rc = exists ? cfs_ms_xattr_del(t, &in, name, name_len) : 0;
	if (rc)
		return rc;
	cfs_ms_inode_touch(t, &in);
	rc = cfs_ms_inode_put(t, &in);
	attr_reply(t, &in);
	return rc;
}
