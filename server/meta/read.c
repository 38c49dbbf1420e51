/* SPDX-License-Identifier: MIT */
/*
 * read.c - requests that change nothing, answered from the last commit by the read transaction.
 * valid and lease fields are left 0: they are the leader's. See meta.h.
 */
#include "server/meta/meta_i.h"

#define OUT_MAX		CFS_BODY_MAX

struct out {
	uint8_t *p;
	uint32_t len;
};

static uint32_t room(const struct out *o)
{
	return OUT_MAX - o->len;
}

static void add(struct out *o, const void *p, size_t len)
{
	CFS_ASSERT(len <= room(o));
	memcpy(o->p + o->len, p, len);
	o->len += (uint32_t)len;
}

/* the bytes under INLINE: of a small file, or a symlink's target */
static int add_inline(struct cfs_tx *t, struct out *o, const struct cfs_inode *in,
		      uint32_t *ret_len)
{
	struct cfs_key k;
	MDB_val v;
	int rc;

	cfs_key_u64(&k, CFS_KEY_INLINE, in->ino);
	rc = cfs_ms_db_get(t, &k, &v);
	if (rc)
		return rc == ENOENT ? -EUCLEAN : rc;
	if (v.mv_size > CFS_INLINE_MAX)
		return -EUCLEAN;
	add(o, v.mv_data, v.mv_size);
	*ret_len = (uint32_t)v.mv_size;
	return 0;
}

/* ---- names ---------------------------------------------------------------------- */
static int find_name(struct cfs_tx *t, const struct cfs_inode *dir, const char *name, uint32_t len,
		     uint64_t *ret_ino)
{
	struct cfs_dent d;
	int rc;

	if (len == 1 && name[0] == '.') {
		*ret_ino = dir->ino;
		return 0;
	}
	if (len == 2 && !memcmp(name, "..", 2)) {
		*ret_ino = dir->parent;
		return 0;
	}
	rc = cfs_ms_dent_name_check(name, len);
	if (!rc)
		rc = cfs_ms_dent_find(t, dir->ino, name, len, &d);
	if (!rc)
		*ret_ino = d.ino;
	return rc;
}

/* ENOENT: the directory is there and the name is not; ESTALE: there is no such directory */
static int do_lookup(struct cfs_tx *t, const uint8_t *body, uint32_t len, struct out *o)
{
	struct cfs_entry_rep rep = { .valid = 0 };
	struct cfs_lookup_req req;
	struct cfs_inode dir, in;
	const char *name;
	uint32_t n = 0;
	uint64_t ino;
	int rc;

	rc = cfs_ms_req_lookup(body, len, &req, &name);
	if (rc)
		return rc;
	rc = cfs_ms_inode_get(t, cfs_le64_to_cpu(req.dir), &dir);
	if (rc)
		return rc == ENOENT ? ESTALE : rc;
	if (!S_ISDIR(dir.mode))
		return ENOTDIR;
	rc = find_name(t, &dir, name, cfs_le32_to_cpu(req.name_len), &ino);
	if (!rc) {
		rc = cfs_ms_inode_get(t, ino, &in);
		if (rc == ENOENT &&
		    ino != dir.parent) /* only a removed directory's parent may be gone */
			rc = -EUCLEAN;
	}
	if (rc == ENOENT)
		add(o, &rep, sizeof(rep));
	if (rc)
		return rc;
	cfs_ms_inode_attr(&in, &rep.attr);
	o->len = sizeof(rep);
	if (S_ISLNK(in.mode) || (in.inline_len && cfs_le32_to_cpu(req.flags) & CFS_LOOKUP_DATA))
		rc = add_inline(t, o, &in, &n);
	rep.inline_len = cfs_cpu_to_le32(n);
	memcpy(o->p, &rep, sizeof(rep));
	return rc;
}

/* one entry; false when it does not fit into max bytes of the body any more */
static bool add_dirent(struct out *o, uint32_t max, const struct cfs_dent_view *e,
		       const struct cfs_attr *attr)
{
	struct cfs_dirent d = {
		.cookie = cfs_cpu_to_le64(e->d.cookie),
		.ino = cfs_cpu_to_le64(e->d.ino),
		.mode = cfs_cpu_to_le32(e->d.mode),
		.name_len = cfs_cpu_to_le16((uint16_t)e->name_len),
	};
	static const uint8_t zeros[8];
	size_t size = sizeof(d) + (attr ? sizeof(*attr) : 0) + e->name_len,
	       pad = cfs_align_up(size, 8) - size;

	if (o->len + size + pad > max)
		return false;
	add(o, &d, sizeof(d));
	if (attr)
		add(o, attr, sizeof(*attr));
	add(o, e->name, e->name_len);
	add(o, zeros, pad);
	return true;
}

static int do_readdir(struct cfs_tx *t, const uint8_t *body, uint32_t len, struct out *o)
{
	struct cfs_readdir_rep rep = { .flags = cfs_cpu_to_le32(CFS_READDIR_EOF) };
	struct cfs_attr attr, *plus = NULL;
	struct cfs_readdir_req req;
	struct cfs_dent_view e;
	struct cfs_inode in;
	uint32_t n = 0, max;
	struct cfs_key k;
	MDB_val key, v;
	int rc;

	rc = cfs_ms_req_fixed(body, len, &req, sizeof(req));
	if (!rc)
		rc = cfs_ms_inode_get(t, cfs_le64_to_cpu(req.dir), &in);
	if (rc)
		return rc;
	if (!S_ISDIR(in.mode))
		return ENOTDIR;
	if (cfs_le32_to_cpu(req.flags) & ~CFS_READDIR_PLUS ||
	    cfs_le64_to_cpu(req.cookie) > INT64_MAX)
		return EINVAL;
	if (cfs_le32_to_cpu(req.flags) & CFS_READDIR_PLUS)
		plus = &attr;
	max = cfs_min(cfs_le32_to_cpu(req.max_bytes), OUT_MAX);
	if (max < sizeof(rep) + sizeof(struct cfs_dirent) + sizeof(attr) + CFS_NAME_MAX + 8)
		return EINVAL;
	add(o, &rep, sizeof(rep));
	cfs_key_u64x2(&k, CFS_KEY_DENTRY, in.ino, cfs_le64_to_cpu(req.cookie) + 1);
	rc = cfs_ms_db_seek(t, &k, 9, &key, &v);
	for (; !rc; rc = cfs_ms_db_next(t, &k, 9, &key, &v)) {
		rc = cfs_ms_dent_decode(&key, &v, &e);
		if (!rc && plus) {
			rc = cfs_ms_inode_get(t, e.d.ino, &in);
			if (!rc)
				cfs_ms_inode_attr(&in, plus);
			else if (rc == ENOENT)	/* of another shard */
				memset(plus, 0, sizeof(*plus));
			rc = rc == ENOENT ? 0 : rc;
		}
		if (rc)
			return rc;
		if (!add_dirent(o, max, &e, plus)) {
			rep.flags = 0;
			break;
		}
		n++;
	}
	if (rc && rc != ENOENT)
		return rc;
	rep.n = cfs_cpu_to_le32(n);
	memcpy(o->p, &rep, sizeof(rep));
	return 0;
}

/* ---- attributes ----------------------------------------------------------------- */
static int do_getattr(struct cfs_tx *t, const uint8_t *body, uint32_t len, struct out *o)
{
	struct cfs_attr_rep rep = { .valid = 0 };
	struct cfs_ino_req req;
	struct cfs_inode in;
	int rc;

	rc = cfs_ms_req_fixed(body, len, &req, sizeof(req));
	if (!rc)
		rc = cfs_ms_inode_get(t, cfs_le64_to_cpu(req.ino), &in);
	if (rc)
		return rc;
	cfs_ms_inode_attr(&in, &rep.attr);
	add(o, &rep, sizeof(rep));
	return 0;
}

static int do_readlink(struct cfs_tx *t, const uint8_t *body, uint32_t len, struct out *o)
{
	struct cfs_ino_req req;
	struct cfs_inode in;
	uint32_t n;
	int rc;

	rc = cfs_ms_req_fixed(body, len, &req, sizeof(req));
	if (!rc)
		rc = cfs_ms_inode_get(t, cfs_le64_to_cpu(req.ino), &in);
	if (rc)
		return rc;
	return S_ISLNK(in.mode) ? add_inline(t, o, &in, &n) : EINVAL;
}

static int do_getxattr(struct cfs_tx *t, const uint8_t *body, uint32_t len, struct out *o)
{
	struct cfs_xattr_req req;
	struct cfs_inode in;
	const char *name;
	uint32_t name_len;
	struct cfs_key k;
	MDB_val v;
	int rc;

	rc = cfs_ms_req_xattr(body, len, &req, &name);
	if (rc)
		return rc;
	name_len = cfs_le32_to_cpu(req.name_len);
	if (!name_len || name_len > CFS_XATTR_NAME_MAX)
		return ERANGE;
	rc = cfs_ms_inode_get(t, cfs_le64_to_cpu(req.ino), &in);
	if (rc)
		return rc;
	cfs_key_xattr(&k, in.ino, name, name_len);
	rc = cfs_ms_db_get(t, &k, &v);
	if (rc)
		return rc == ENOENT ? ENODATA : rc;
	if (v.mv_size > CFS_XATTR_SIZE_MAX)
		return -EUCLEAN;
	add(o, v.mv_data, v.mv_size);
	return 0;
}

static int do_listxattr(struct cfs_tx *t, const uint8_t *body, uint32_t len, struct out *o)
{
	struct cfs_ino_req req;
	struct cfs_inode in;
	struct cfs_key k;
	MDB_val key, v;
	int rc;

	rc = cfs_ms_req_fixed(body, len, &req, sizeof(req));
	if (!rc)
		rc = cfs_ms_inode_get(t, cfs_le64_to_cpu(req.ino), &in);
	if (rc || !in.n_xattrs)
		return rc;
	cfs_key_u64(&k, CFS_KEY_XATTR, in.ino);
	rc = cfs_ms_db_seek(t, &k, 9, &key, &v);
	for (; !rc; rc = cfs_ms_db_next(t, &k, 9, &key, &v)) {
		if (key.mv_size - 9 + 1 > room(o))
			return -EUCLEAN;
		add(o, (const uint8_t *)key.mv_data + 9, key.mv_size - 9);
		add(o, "", 1);
	}
	return rc == ENOENT ? 0 : rc;
}

static int do_statfs(struct cfs_tx *t, uint32_t len, struct out *o)
{
	struct cfs_statfs_rep rep = {
		.total_bytes = cfs_cpu_to_le64(
			t->m->st.data_bytes), /* used: the shard makes a total of it */
		.files = cfs_cpu_to_le64(t->m->st.inodes),
		.files_free = cfs_cpu_to_le64(CFS_INO_COUNTER_MASK - t->m->st.next_ino),
		.block_bytes = cfs_cpu_to_le32(4096),
		.name_max = cfs_cpu_to_le32(CFS_NAME_MAX),
	};

	if (len)
		return CFS_E_PROTO;
	add(o, &rep, sizeof(rep));
	return 0;
}

/* ---- data ----------------------------------------------------------------------- */
/* OPEN and EXTENTS: attributes, inline bytes, extents from `off` on */
static int add_layout(struct cfs_tx *t, struct out *o, uint64_t ino, uint64_t off, uint32_t max)
{
	struct cfs_open_rep rep = { .valid = 0 };
	struct cfs_ext *buf = t->m->ext_buf;
	uint64_t end = CFS_FILE_SIZE_MAX;
	struct cfs_extent x;
	struct cfs_inode in;
	uint32_t inl = 0;
	unsigned n = 0;
	int rc;

	rc = cfs_ms_inode_get(t, ino, &in);
	if (rc)
		return rc;
	if (S_ISDIR(in.mode))
		return EISDIR;
	if (!S_ISREG(in.mode))
		return EINVAL;
	cfs_ms_inode_attr(&in, &rep.attr);
	o->len = sizeof(rep);
	if (in.inline_len)
		rc = add_inline(t, o, &in, &inl);
	if (rc)
		return rc;
	max = cfs_min(max, CFS_META_COPY_EXT_MAX);	/* 160 KiB of them */
	CFS_ASSERT(max * sizeof(x) <= room(o));
	if (in.n_extents) {
		rc = cfs_ms_ext_collect(t, in.map, off, UINT64_MAX, buf, max, &n);
		if (rc)
			return rc;
		if (n == max)
			end = n ? buf[n - 1].off + buf[n - 1].len : off;
	}
	for (unsigned i = 0; i < n; i++) {
		x = (struct cfs_extent){
			.file_off = cfs_cpu_to_le64(buf[i].off),
			.len = cfs_cpu_to_le32(buf[i].len),
			.obj_off = cfs_cpu_to_le32(buf[i].obj_off),
			.oid = buf[i].oid,
			.obj_len = cfs_cpu_to_le32(buf[i].obj_len),
			.flags = cfs_cpu_to_le32(buf[i].flags),
		};
		add(o, &x, sizeof(x));
	}
	rep.inline_len = cfs_cpu_to_le32(inl);
	rep.n_extents = cfs_cpu_to_le32(n);
	rep.extents_end = cfs_cpu_to_le64(end);
	memcpy(o->p, &rep, sizeof(rep));
	return 0;
}

/* an inode without a name is kept for its holders: who comes later would have it vanish when they are done */
static int may_open(struct cfs_tx *t, uint64_t ino, uint64_t session)
{
	struct cfs_inode in;
	struct cfs_key k;
	MDB_val v;
	int rc;

	rc = cfs_ms_inode_get(t, ino, &in);
	if (rc || in.nlink)
		return rc;
	cfs_key_u64x2(&k, CFS_KEY_ORPHAN, ino, session);
	return cfs_ms_db_get(t, &k, &v);
}

static int do_open(struct cfs_tx *t, uint64_t session, const uint8_t *body, uint32_t len, struct out *o)
{
	struct cfs_open_req req;
	int rc = cfs_ms_req_fixed(body, len, &req, sizeof(req));

	if (!rc)
		rc = may_open(t, cfs_le64_to_cpu(req.ino), session);
	if (rc)
		return rc;
	return add_layout(t, o, cfs_le64_to_cpu(req.ino), cfs_le64_to_cpu(req.off),
			  cfs_le32_to_cpu(req.max_extents));
}

static int do_extents(struct cfs_tx *t, const uint8_t *body, uint32_t len, struct out *o)
{
	struct cfs_extents_req req;
	int rc = cfs_ms_req_fixed(body, len, &req, sizeof(req));

	if (rc)
		return rc;
	return add_layout(t, o, cfs_le64_to_cpu(req.ino), cfs_le64_to_cpu(req.off),
			  cfs_le32_to_cpu(req.max_extents));
}

/* SEEK_DATA 3, SEEK_HOLE 4: reserved space is a hole, and so is the end of the file */
static int seek(struct cfs_tx *t, const struct cfs_inode *in, uint64_t off, bool data,
		uint64_t *ret_off)
{
	struct cfs_ext e[64];
	unsigned n;
	int rc;

	if (off >= in->size)
		return ENXIO;
	if (off < in->inline_len) {
		*ret_off = data ? off : in->inline_len;
		return 0;
	}
	/* ends: each turn goes past the extents it has seen */
	for (;;) {
		rc = cfs_ms_ext_collect(t, in->map, off, in->size, e, CFS_ARRAY_SIZE(e), &n);
		if (rc)
			return rc;
		for (unsigned i = 0; i < n; i++) {
			bool written = !(e[i].flags & CFS_EXT_UNWRITTEN);

			if (data && written) {
				*ret_off = cfs_max(off, e[i].off);
				return 0;
			}
			if (!data && (!written || e[i].off > off)) {
				*ret_off = off;
				return 0;
			}
			off = cfs_min(e[i].off + e[i].len, in->size);
		}
		if (n < CFS_ARRAY_SIZE(e)) {
			*ret_off = off;
			return data ? ENXIO : 0;
		}
	}
}

static int do_seek(struct cfs_tx *t, const uint8_t *body, uint32_t len, struct out *o)
{
	struct cfs_seek_req req;
	struct cfs_inode in;
	uint64_t off;
	cfs_le64 le;
	int rc;

	rc = cfs_ms_req_fixed(body, len, &req, sizeof(req));
	if (!rc && cfs_le32_to_cpu(req.whence) != 3 && cfs_le32_to_cpu(req.whence) != 4)
		rc = EINVAL;
	if (!rc)
		rc = cfs_ms_inode_get(t, cfs_le64_to_cpu(req.ino), &in);
	if (!rc && !S_ISREG(in.mode))
		rc = EINVAL;
	if (!rc)
		rc = seek(t, &in, cfs_le64_to_cpu(req.off), cfs_le32_to_cpu(req.whence) == 3, &off);
	if (rc)
		return rc;
	le = cfs_cpu_to_le64(off);
	add(o, &le, sizeof(le));
	return 0;
}

/* ---- locks ---------------------------------------------------------------------- */
/* GETLK, and LOCK as a question: both tell the lock in the way */
static int do_getlk(struct cfs_tx *t, uint16_t opcode, uint64_t session, const uint8_t *body,
		    uint32_t len, struct out *o)
{
	struct cfs_lock_req req;
	struct cfs_inode in;
	struct cfs_lock l;
	cfs_le64 holder;
	int rc;

	rc = cfs_ms_req_fixed(body, len, &req, sizeof(req));
	if (!rc)
		rc = cfs_ms_lock_check(&req);
	if (!rc && req.kind != CFS_LOCK_READ && req.kind != CFS_LOCK_WRITE &&
	    req.kind != CFS_LOCK_UNLOCK)
		rc = EINVAL;
	if (!rc)
		rc = cfs_ms_inode_get(t, cfs_le64_to_cpu(req.ino), &in);
	if (rc)
		return rc;
	rc = cfs_ms_lock_conflict(t, session, &req, &l);
	if (rc < 0)
		return rc;
	if (rc) {
		req.kind = CFS_LOCK_UNLOCK;
	} else {
		req.owner = cfs_cpu_to_le64(l.owner);
		req.start = cfs_cpu_to_le64(l.start);
		req.end = cfs_cpu_to_le64(l.end);
		req.pid = cfs_cpu_to_le32(l.pid);
		req.kind = (uint8_t)l.kind;
	}
	if (opcode == CFS_OP_GETLK) {
		add(o, &req, sizeof(req));
		return 0;
	}
	if (rc)
		return 0;
	holder = cfs_cpu_to_le64(l.session);
	add(o, &req, sizeof(req));
	add(o, &holder, sizeof(holder));
	return EAGAIN;
}

/* ---- all of them ---------------------------------------------------------------- */
static int run(struct cfs_tx *t, uint16_t opcode, uint64_t session, const uint8_t *body,
	       uint32_t len, struct out *o)
{
	switch (opcode) {
	case CFS_OP_LOOKUP:
		return do_lookup(t, body, len, o);
	case CFS_OP_GETATTR:
		return do_getattr(t, body, len, o);
	case CFS_OP_READDIR:
		return do_readdir(t, body, len, o);
	case CFS_OP_READLINK:
		return do_readlink(t, body, len, o);
	case CFS_OP_GETXATTR:
		return do_getxattr(t, body, len, o);
	case CFS_OP_LISTXATTR:
		return do_listxattr(t, body, len, o);
	case CFS_OP_STATFS:
		return do_statfs(t, len, o);
	case CFS_OP_OPEN:
		return do_open(t, session, body, len, o);
	case CFS_OP_EXTENTS:
		return do_extents(t, body, len, o);
	case CFS_OP_SEEK:
		return do_seek(t, body, len, o);
	case CFS_OP_GETLK:
	case CFS_OP_LOCK:
		return do_getlk(t, opcode, session, body, len, o);
	}
	return CFS_E_PROTO;
}

uint32_t cfs_meta_read(struct cfs_meta *m, uint16_t opcode, uint64_t session, const void *body,
		       uint32_t len, void *out, uint32_t *ret_len)
{
	struct out o = { .p = out };
	struct cfs_tx *t;
	int rc;

	rc = cfs_ms_state_rd(m, &t);
	if (!rc)
		rc = run(t, opcode, session, body, len, &o);
	if (rc < 0) {	/* LMDB failed, or what it gave is no record of ours */
		*ret_len = 0;
		return EIO;
	}
	/* two failures have something to tell */
	*ret_len = !rc || (rc == ENOENT && opcode == CFS_OP_LOOKUP) ||
				   (rc == EAGAIN && opcode == CFS_OP_LOCK) ?
			   o.len :
			   0;
	return (uint32_t)rc;
}

int cfs_meta_getattr(struct cfs_meta *m, uint64_t ino, struct cfs_attr *ret_attr)
{
	struct cfs_inode in;
	struct cfs_tx *t;
	int rc;

	rc = cfs_ms_state_rd(m, &t);
	if (!rc)
		rc = cfs_ms_inode_get(t, ino, &in);
	if (rc)
		return rc == ENOENT ? -ENOENT : rc;
	cfs_ms_inode_attr(&in, ret_attr);
	return 0;
}
