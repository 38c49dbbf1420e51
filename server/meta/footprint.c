/* SPDX-License-Identifier: MIT */
/*
 * footprint.c - what a mutating request touches: the keys it locks and the leases it breaks
 * (docs/leases.md, "A mutation, step by step"). Computed from applied state. A name is locked
 * exclusively; its directory's inode is shared by all who change names in it, so that they can be
 * in one batch, and exclusive for who removes or changes the directory itself. A request that is
 * seen to fail locks its keys but breaks nothing.
 */
#include "server/meta/meta_i.h"

#include <linux/fs.h>

static void add_key(struct cfs_footprint *fp, uint64_t ino, uint64_t name_hash, bool exclusive)
{
	for (unsigned i = 0; i < fp->n_keys; i++) {
		if (fp->keys[i].ino == ino && fp->keys[i].name_hash == name_hash) {
			fp->keys[i].exclusive |= exclusive;
			return;
		}
	}
	CFS_ASSERT(fp->n_keys < CFS_FP_KEYS_MAX);
	fp->keys[fp->n_keys++] = (struct cfs_fp_key){ ino, name_hash, exclusive };
}

static void add_name_key(struct cfs_tx *t, struct cfs_footprint *fp, uint64_t dir, const char *name,
			 uint32_t len)
{
	add_key(fp, dir, 0, false);
	add_key(fp, dir, cfs_meta_name_hash(t->m, name, len), true);
}

static void break_name(struct cfs_footprint *fp, uint64_t dir, const char *name, uint32_t len)
{
	CFS_ASSERT(fp->n_breaks < CFS_FP_BREAKS_MAX && len <= CFS_NAME_MAX);
	fp->breaks[fp->n_breaks++] = (struct cfs_fp_break){
		.dir = dir, .governor = dir, .flags = CFS_BRK_NAME | CFS_BRK_DIRATTR,
		.name_len = (uint16_t)len, .name = name,
	};
}

static void break_inode(struct cfs_footprint *fp, const struct cfs_inode *in, uint32_t flags,
			unsigned to_mode)
{
	uint64_t governor = cfs_ms_inode_governor(in);

	CFS_ASSERT(fp->n_breaks < CFS_FP_BREAKS_MAX);
	fp->breaks[fp->n_breaks++] = (struct cfs_fp_break){
		.dir = governor == in->ino && !S_ISDIR(in->mode) ? 0 : governor, .ino = in->ino,
		.governor = governor, .flags = flags, .to_mode = (uint8_t)to_mode,
	};
}

/*
 * the inode that a name leads to; ENOENT: none, or no such directory, or no such name is possible
 */
static int find(struct cfs_tx *t, uint64_t dir, const char *name, uint32_t len,
		struct cfs_inode *ret_in)
{
	struct cfs_dent d;
	int rc;

	if (cfs_ms_dent_name_check(name, len))
		return ENOENT;
	rc = cfs_ms_dent_find(t, dir, name, len, &d);
	return rc ? rc : cfs_ms_inode_get(t, d.ino, ret_in);
}

/* `in` loses the name that the request takes away */
static void lose_name(struct cfs_footprint *fp, const struct cfs_inode *in)
{
	if (S_ISDIR(in->mode)) {
		fp->victim = in->ino;
		fp->victim_dir = true;
		break_inode(fp, in, CFS_BRK_DIR | CFS_BRK_ATTR | CFS_BRK_UNLINK, CFS_LEASE_NONE);
	} else if (in->nlink == 1) {
		fp->victim = in->ino;
		break_inode(fp, in, CFS_BRK_ATTR | CFS_BRK_UNLINK, CFS_LEASE_NONE);
	} else {
		break_inode(fp, in, CFS_BRK_ATTR, CFS_LEASE_NONE);
	}
}

/* ---- each request --------------------------------------------------------------- */
static int fp_mknode(struct cfs_tx *t, const uint8_t *body, uint32_t len, struct cfs_footprint *fp)
{
	struct cfs_mknode_req req;
	const char *name, *target;
	struct cfs_inode in;
	uint32_t name_len;
	uint64_t dir;
	int rc;

	rc = cfs_ms_req_mknode(body, len, &req, &name, &target);
	if (rc)
		return rc;
	dir = cfs_le64_to_cpu(req.dir);
	name_len = cfs_le32_to_cpu(req.name_len);
	if (cfs_le32_to_cpu(req.flags) & CFS_MK_TMPFILE) {
		add_key(fp, dir, 0, false);
		return 0;
	}
	add_name_key(t, fp, dir, name, name_len);
	rc = find(t, dir, name, name_len, &in);
	if (rc == ENOENT && !cfs_ms_dent_name_check(name, name_len))
		break_name(fp, dir, name, name_len);
	return rc == ENOENT ? 0 : rc;
}

static int fp_link(struct cfs_tx *t, const uint8_t *body, uint32_t len, struct cfs_footprint *fp)
{
	struct cfs_link_req req;
	struct cfs_inode in, other;
	const char *name;
	uint32_t name_len;
	uint64_t dir, ino;
	int rc;

	rc = cfs_ms_req_link(body, len, &req, &name);
	if (rc)
		return rc;
	dir = cfs_le64_to_cpu(req.dir);
	ino = cfs_le64_to_cpu(req.ino);
	name_len = cfs_le32_to_cpu(req.name_len);
	add_name_key(t, fp, dir, name, name_len);
	add_key(fp, ino, 0, true);
	rc = find(t, dir, name, name_len, &other);
	if (rc != ENOENT || cfs_ms_dent_name_check(name, name_len))
		return rc == ENOENT ? 0 : rc;
	rc = cfs_ms_inode_get(t, ino, &in);
	if ((rc && rc != ENOENT) || (!rc && S_ISDIR(in.mode)))
		return rc;
	/* no such inode: who guesses numbers may be right by the time this is applied */
	break_name(fp, dir, name, name_len);
	if (!rc)
		break_inode(fp, &in, CFS_BRK_ATTR, CFS_LEASE_NONE);
	return 0;
}

static int fp_unlink(struct cfs_tx *t, const uint8_t *body, uint32_t len, struct cfs_footprint *fp)
{
	struct cfs_unlink_req req;
	struct cfs_inode in;
	const char *name;
	uint32_t name_len;
	uint64_t dir;
	int rc;

	rc = cfs_ms_req_unlink(body, len, &req, &name);
	if (rc)
		return rc;
	dir = cfs_le64_to_cpu(req.dir);
	name_len = cfs_le32_to_cpu(req.name_len);
	add_name_key(t, fp, dir, name, name_len);
	rc = find(t, dir, name, name_len, &in);
	if (rc)
		return rc == ENOENT ? 0 : rc;
	add_key(fp, in.ino, 0, true);
	if (!S_ISDIR(in.mode) == !!req.rmdir || (S_ISDIR(in.mode) && in.size))
		return 0;
	break_name(fp, dir, name, name_len);
	lose_name(fp, &in);
	return 0;
}

static int fp_rename(struct cfs_tx *t, const uint8_t *body, uint32_t len, struct cfs_footprint *fp)
{
	uint32_t old_len, new_len, flags;
	struct cfs_rename_req req;
	struct cfs_inode a, b;
	const char *old, *new;
	uint64_t od, nd;
	bool have_b;
	int rc;

	rc = cfs_ms_req_rename(body, len, &req, &old, &new);
	if (rc)
		return rc;
	od = cfs_le64_to_cpu(req.old_dir);
	nd = cfs_le64_to_cpu(req.new_dir);
	old_len = cfs_le32_to_cpu(req.old_len);
	new_len = cfs_le32_to_cpu(req.new_len);
	flags = cfs_le32_to_cpu(req.flags);
	add_name_key(t, fp, od, old, old_len);
	add_name_key(t, fp, nd, new, new_len);
	rc = find(t, od, old, old_len, &a);
	if (rc)
		return rc == ENOENT ? 0 : rc;
	add_key(fp, a.ino, 0, true);
	rc = find(t, nd, new, new_len, &b);
	if (rc && rc != ENOENT)
		return rc;
	have_b = rc == 0;
	if (have_b)
		add_key(fp, b.ino, 0, true);
	if (cfs_ms_dent_name_check(new, new_len) ||
	    (have_b && (b.ino == a.ino || flags & RENAME_NOREPLACE)) ||
	    (!have_b && flags & RENAME_EXCHANGE))
		return 0;
	if (have_b && !(flags & RENAME_EXCHANGE) &&
	    (S_ISDIR(a.mode) != S_ISDIR(b.mode) || (S_ISDIR(b.mode) && b.size)))
		return 0;
	break_name(fp, od, old, old_len);
	if (od != nd || old_len != new_len || memcmp(old, new, old_len))
		break_name(fp, nd, new, new_len);
	break_inode(fp, &a, CFS_BRK_ATTR, CFS_LEASE_NONE);
	if (have_b && flags & RENAME_EXCHANGE)
		break_inode(fp, &b, CFS_BRK_ATTR, CFS_LEASE_NONE);
	else if (have_b)
		lose_name(fp, &b);
	return 0;
}

/* an inode changes: its attributes, and its data if to_mode is less than exclusive */
static int fp_inode(struct cfs_tx *t, struct cfs_footprint *fp, uint64_t ino, unsigned to_mode)
{
	struct cfs_inode in;
	int rc;

	add_key(fp, ino, 0, true);
	rc = cfs_ms_inode_get(t, ino, &in);
	if (!rc)
		break_inode(fp, &in, CFS_BRK_ATTR | (to_mode == CFS_LEASE_EXCL ? 0 : CFS_BRK_DATA),
			    to_mode);
	return rc == ENOENT ? 0 : rc;
}

static int fp_setattr(struct cfs_tx *t, const uint8_t *body, uint32_t len, struct cfs_footprint *fp)
{
	struct cfs_setattr_req req;
	unsigned to_mode = CFS_LEASE_EXCL;
	uint32_t valid;
	int rc;

	rc = cfs_ms_req_fixed(body, len, &req, sizeof(req));
	if (rc)
		return rc;
	valid = cfs_le32_to_cpu(req.valid);
	if (valid & CFS_SA_SIZE)
		to_mode = CFS_LEASE_NONE;
	else if (valid & (CFS_SA_MTIME | CFS_SA_MTIME_NOW | CFS_SA_CTIME))
		to_mode = CFS_LEASE_SHARED;	/* a later flush of older writes would undo it */
	return fp_inode(t, fp, cfs_le64_to_cpu(req.ino), to_mode);
}

static int fp_setxattr(struct cfs_tx *t, const uint8_t *body, uint32_t len,
		       struct cfs_footprint *fp)
{
	struct cfs_setxattr_req req;
	const uint8_t *value;
	const char *name;
	int rc;

	rc = cfs_ms_req_setxattr(body, len, &req, &name, &value);
	return rc ? rc : fp_inode(t, fp, cfs_le64_to_cpu(req.ino), CFS_LEASE_EXCL);
}

static int fp_commit(struct cfs_tx *t, const uint8_t *body, uint32_t len, struct cfs_footprint *fp)
{
	uint32_t n, pos = sizeof(struct cfs_commit_req);
	const uint8_t *data, *exts;
	struct cfs_commit_item ci;
	unsigned before;
	int rc;

	rc = cfs_ms_req_commit(body, len, &n);
	for (uint32_t i = 0; !rc && i < n; i++) {
		cfs_ms_req_commit_item(body, &pos, &ci, &data, &exts);
		before = fp->n_keys;
		add_key(fp, cfs_le64_to_cpu(ci.ino), 0, true);
		if (fp->n_keys == before)	/* two items for one file */
			continue;
		rc = fp_inode(t, fp, cfs_le64_to_cpu(ci.ino), CFS_LEASE_NONE);
	}
	return rc;
}

static int fp_fallocate(struct cfs_tx *t, const uint8_t *body, uint32_t len,
			struct cfs_footprint *fp)
{
	struct cfs_fallocate_req req;
	int rc = cfs_ms_req_fixed(body, len, &req, sizeof(req));

	return rc ? rc : fp_inode(t, fp, cfs_le64_to_cpu(req.ino), CFS_LEASE_NONE);
}

/* the source is flushed and read, the destination changed */
static int fp_copy(struct cfs_tx *t, const uint8_t *body, uint32_t len, struct cfs_footprint *fp)
{
	struct cfs_copy_req req;
	struct cfs_inode in;
	uint64_t src;
	int rc;

	rc = cfs_ms_req_fixed(body, len, &req, sizeof(req));
	if (rc)
		return rc;
	src = cfs_le64_to_cpu(req.src);
	rc = fp_inode(t, fp, cfs_le64_to_cpu(req.dst), CFS_LEASE_NONE);
	if (rc || req.dst == req.src)
		return rc;
	add_key(fp, src, 0, false);
	rc = cfs_ms_inode_get(t, src, &in);
	if (!rc && S_ISREG(in.mode))
		break_inode(fp, &in, CFS_BRK_DATA, CFS_LEASE_SHARED);
	return rc == ENOENT ? 0 : rc;
}

/* locks and releases touch neither names nor attributes nor data */
static int fp_none(const uint8_t *body, uint32_t len, uint16_t opcode)
{
	struct cfs_lock_req lock;
	const uint8_t *inos;
	uint32_t n;

	switch (opcode) {
	case CFS_OP_LOCK:
		return cfs_ms_req_fixed(body, len, &lock, sizeof(lock));
	case CFS_OP_RELEASE:
		return cfs_ms_req_release(body, len, &n, &inos);
	case CFS_OP_SESSION_OPEN:
		return len < sizeof(struct cfs_session_open_req) ? CFS_E_PROTO : 0;
	}
	return 0;
}

static int run(struct cfs_tx *t, uint16_t opcode, const uint8_t *body, uint32_t len,
	       struct cfs_footprint *fp)
{
	switch (opcode) {
	case CFS_OP_MKNODE:
		return fp_mknode(t, body, len, fp);
	case CFS_OP_LINK:
		return fp_link(t, body, len, fp);
	case CFS_OP_UNLINK:
		return fp_unlink(t, body, len, fp);
	case CFS_OP_RENAME:
		return fp_rename(t, body, len, fp);
	case CFS_OP_SETATTR:
		return fp_setattr(t, body, len, fp);
	case CFS_OP_SETXATTR:
		return fp_setxattr(t, body, len, fp);
	case CFS_OP_COMMIT:
		return fp_commit(t, body, len, fp);
	case CFS_OP_FALLOCATE:
		return fp_fallocate(t, body, len, fp);
	case CFS_OP_COPY:
		return fp_copy(t, body, len, fp);
	case CFS_OP_LOCK:
	case CFS_OP_RELEASE:
	case CFS_OP_SESSION_OPEN:
	case CFS_OP_SESSION_CLOSE:
		return fp_none(body, len, opcode);
	}
	return CFS_E_PROTO;
}

uint32_t cfs_meta_footprint(struct cfs_meta *m, uint16_t opcode, const void *body, uint32_t len,
			    struct cfs_footprint *ret_fp)
{
	struct cfs_tx *t;
	int rc;

	ret_fp->n_keys = ret_fp->n_breaks = 0;
	ret_fp->victim = 0;
	ret_fp->victim_dir = false;
	rc = cfs_ms_state_rd(m, &t);
	if (!rc)
		rc = run(t, opcode, body, len, ret_fp);
	return rc < 0 ? EIO : (uint32_t)rc;
}
