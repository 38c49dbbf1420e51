/* SPDX-License-Identifier: MIT */
/*
 * op_data.c - COMMIT, FALLOCATE and COPY: what changes the content of files. Each item checks
 * first, then writes.
 *
 * Inline data and extents do not mix. An extent COMMIT to a file that has inline data must cover
 * all of it, else it is EINVAL: a client turns the inline bytes into an object first. A COMMIT of
 * inline data replaces what was there, or, with CFS_CI_PATCH, a part of it. A session commits objects that
 * it has written itself, each object in one COMMIT only.
 */
#include "server/meta/meta_i.h"

#include <linux/falloc.h>

#define CI_ALL	(CFS_CI_INLINE | CFS_CI_APPEND | CFS_CI_MTIME | CFS_CI_KILLPRIV | CFS_CI_PATCH)

static int reg_get(struct cfs_tx *t, uint64_t ino, struct cfs_inode *ret_in)
{
	int rc = cfs_ms_inode_get(t, ino, ret_in);

	if (rc)
		return rc;
	if (S_ISDIR(ret_in->mode))
		return EISDIR;
	return S_ISREG(ret_in->mode) ? 0 : EINVAL;
}

static void ext_load(struct cfs_ext *e, const uint8_t *p)
{
	struct cfs_extent x;

	memcpy(&x, p, sizeof(x));
	*e = (struct cfs_ext){
		.off = cfs_le64_to_cpu(x.file_off), .len = cfs_le32_to_cpu(x.len),
		.obj_off = cfs_le32_to_cpu(x.obj_off), .oid = x.oid,
		.obj_len = cfs_le32_to_cpu(x.obj_len), .flags = cfs_le32_to_cpu(x.flags),
	};
}

/* ---- COMMIT --------------------------------------------------------------------- */
struct item {
	const uint8_t *data, *exts;
	uint32_t flags, inline_len, n_extents;
	uint64_t size;		/* given */
	uint64_t base;		/* added to the extents' file_off */
	uint64_t end;		/* of the last extent */
	struct cfs_ts mtime;
};

/* do the extents, together, cover [0, len)? len <= CFS_INLINE_MAX */
static bool covers(const struct item *it, uint32_t len)
{
	uint8_t have[CFS_INLINE_MAX] = { 0 };
	struct cfs_ext e;

	for (uint32_t i = 0; i < it->n_extents; i++) {
		ext_load(&e, it->exts + sizeof(struct cfs_extent) * (size_t)i);
		e.off += it->base;
		if (e.off < len)
			memset(have + e.off, 1, cfs_min((uint64_t)e.len, len - e.off));
	}
	return !memchr(have, 0, len);
}

/* CFS_CI_PATCH: bytes into a file that is in its inode, or without data, and stays so. The place is it->base */
static int patch_check(struct item *it, const struct cfs_inode *in)
{
	if (it->n_extents || it->flags & CFS_CI_INLINE || !it->inline_len)
		return EINVAL;
	it->base = it->flags & CFS_CI_APPEND ? in->size : it->size;
	if (it->base > CFS_FILE_SIZE_MAX || it->inline_len > CFS_FILE_SIZE_MAX - it->base)
		return EFBIG;
	it->end = it->base + it->inline_len;
	return in->n_extents || cfs_max(in->size, it->end) > CFS_INLINE_MAX ? EMSGSIZE : 0;
}

static int item_check(struct cfs_tx *t, struct item *it, const struct cfs_inode *in)
{
	struct cfs_ext e;

	if (it->flags & ~CI_ALL || it->inline_len > CFS_INLINE_MAX ||
	    (it->flags & CFS_CI_MTIME && it->mtime.nsec >= CFS_NSEC_PER_SEC))
		return EINVAL;
	if (it->flags & CFS_CI_PATCH)
		return patch_check(it, in);
	if (it->flags & CFS_CI_INLINE ? it->n_extents || it->flags & CFS_CI_APPEND : it->inline_len)
		return EINVAL;
	if (it->size > CFS_FILE_SIZE_MAX)
		return EFBIG;
	it->base = it->flags & CFS_CI_APPEND ? in->size : 0;
	it->end = 0;
	for (uint32_t i = 0; i < it->n_extents; i++) {
		ext_load(&e, it->exts + sizeof(struct cfs_extent) * (size_t)i);
		if (!e.len || e.flags || e.obj_len > CFS_OBJECT_MAX || e.obj_off > e.obj_len ||
		    e.len > e.obj_len - e.obj_off)
			return EINVAL;
		if (cfs_le64_to_cpu(e.oid.owner) != t->session)
			return EPERM;
		if (e.off > CFS_FILE_SIZE_MAX || it->base + e.off + e.len > CFS_FILE_SIZE_MAX)
			return EFBIG;
		it->end = cfs_max(it->end, it->base + e.off + e.len);
	}
	if (it->n_extents && in->inline_len && !covers(it, in->inline_len))
		return EINVAL;
	return 0;
}

static int patch_write(struct cfs_tx *t, const struct item *it, struct cfs_inode *in)
{
	uint8_t data[CFS_INLINE_MAX] = { 0 };
	uint32_t len = cfs_max(in->inline_len, (uint32_t)it->end);
	int rc = cfs_ms_inline_get(t, in, data);

	if (rc)
		return rc;
	memcpy(data + it->base, it->data, it->inline_len);
	in->size = cfs_max(in->size, it->end);
	return cfs_ms_inline_set(t, in, data, len);
}

static int item_write(struct cfs_tx *t, const struct item *it, struct cfs_inode *in)
{
	struct cfs_ext e;
	int rc = 0;

	if (it->flags & CFS_CI_PATCH) {
		rc = patch_write(t, it, in);
	} else if (it->flags & CFS_CI_INLINE) {
		rc = cfs_ms_ext_truncate(t, in, 0);
		if (!rc)
			rc = cfs_ms_inline_set(t, in, it->data, it->inline_len);
		in->size = cfs_max(it->size, (uint64_t)it->inline_len);
	} else {
		if (it->n_extents)
			rc = cfs_ms_inline_set(t, in, NULL, 0);
		for (uint32_t i = 0; !rc && i < it->n_extents; i++) {
			ext_load(&e, it->exts + sizeof(struct cfs_extent) * (size_t)i);
			e.off += it->base;
			rc = cfs_ms_ext_cut(t, in, e.off, e.off + e.len);
			if (!rc)
				rc = cfs_ms_ext_insert(t, in, &e, false);
		}
		in->size = cfs_max(in->size, it->end);
		if (!(it->flags & CFS_CI_APPEND))
			in->size = cfs_max(in->size, it->size);
	}
	if (!rc && it->flags & CFS_CI_KILLPRIV)
		rc = cfs_ms_inode_kill_priv(t, in);
	if (rc)
		return rc;
	cfs_ms_inode_touch_data(t, in);
	if (it->flags & CFS_CI_MTIME)
		in->mtime = it->mtime;
	return cfs_ms_inode_put(t, in);
}

static int commit_item(struct cfs_tx *t, const uint8_t *body, uint32_t *pos,
		       struct cfs_commit_result *ret)
{
	struct cfs_commit_item ci;
	uint64_t writes = t->writes;
	struct cfs_inode in;
	struct item it;
	int rc;

	cfs_ms_req_commit_item(body, pos, &ci, &it.data, &it.exts);
	it.flags = cfs_le32_to_cpu(ci.flags);
	it.inline_len = cfs_le32_to_cpu(ci.inline_len);
	it.n_extents = cfs_le32_to_cpu(ci.n_extents);
	it.size = cfs_le64_to_cpu(ci.size);
	it.mtime = cfs_ts_get(&ci.mtime);
	rc = reg_get(t, cfs_le64_to_cpu(ci.ino), &in);
	if (!rc)
		rc = item_check(t, &it, &in);
	if (!rc) {
		ret->off = cfs_cpu_to_le64(it.base);
		rc = item_write(t, &it, &in);
		CFS_ASSERT(rc <= 0);
		cfs_ms_inode_attr(&in, &ret->attr);
		return rc;
	}
	CFS_ASSERT(t->writes == writes);
	if (rc > 0) {
		ret->status = cfs_cpu_to_le32((uint32_t)rc);
		rc = 0;
	}
	return rc;
}

int cfs_ms_op_commit(struct cfs_tx *t, const uint8_t *body, uint32_t len)
{
	uint32_t n, pos = sizeof(struct cfs_commit_req);
	struct cfs_commit_rep rep = { .n = 0 };
	int rc;

	_Static_assert(sizeof(rep) + CFS_COMMIT_MAX * sizeof(struct cfs_commit_result) <=
			       CFS_REPLY_MAX,
		       "reply");
	rc = cfs_ms_req_commit(body, len, &n);
	if (rc)
		return rc;
	rep.n = cfs_cpu_to_le32(n);
	memcpy(t->rep, &rep, sizeof(rep));
	t->rep_len = sizeof(rep);
	for (uint32_t i = 0; i < n; i++) {
		struct cfs_commit_result res = { .status = 0 };

		rc = commit_item(t, body, &pos, &res);
		if (rc)
			return rc;
		memcpy(t->rep + t->rep_len, &res, sizeof(res));
		t->rep_len += sizeof(res);
	}
	return 0;
}

/* ---- FALLOCATE ------------------------------------------------------------------ */
/* zeros in the inline bytes of [off, end); what is zero at their end need not be kept */
static int inline_zero(struct cfs_tx *t, struct cfs_inode *in, uint64_t off, uint64_t end)
{
	uint8_t data[CFS_INLINE_MAX];
	int rc;

	if (off >= in->inline_len)
		return 0;
	rc = cfs_ms_inline_get(t, in, data);
	if (rc)
		return rc;
	if (end >= in->inline_len)
		return cfs_ms_inline_set(t, in, data, (uint32_t)off);
	memset(data + off, 0, end - off);
	return cfs_ms_inline_set(t, in, data, in->inline_len);
}

/* the next hole in [off, end): 0, or ENOENT */
static int next_hole(struct cfs_tx *t, uint64_t map, uint64_t off, uint64_t end, uint64_t *ret_off,
		     uint64_t *ret_end)
{
	struct cfs_ext e[16];
	unsigned n;
	int rc;

	/* ends: each turn goes past at least one extent */
	while (off < end) {
		rc = cfs_ms_ext_collect(t, map, off, end, e, CFS_ARRAY_SIZE(e), &n);
		if (rc)
			return rc;
		for (unsigned i = 0; i < n; i++) {
			if (e[i].off > off) {
				*ret_off = off;
				*ret_end = e[i].off;
				return 0;
			}
			off = e[i].off + e[i].len;
		}
		if (n < CFS_ARRAY_SIZE(e) && off < end) {
			*ret_off = off;
			*ret_end = end;
			return 0;
		}
	}
	return ENOENT;
}

/*
 * the UNWRITTEN extent that ends at `off`, if there is one: made longer instead of a new one
 * beside it
 */
static int extend_left(struct cfs_tx *t, struct cfs_inode *in, uint64_t *off, uint64_t end)
{
	struct cfs_ext e;
	unsigned n;
	int rc;

	if (!*off || !in->n_extents)
		return 0;
	rc = cfs_ms_ext_collect(t, in->map, *off - 1, *off, &e, 1, &n);
	if (rc || !n || !(e.flags & CFS_EXT_UNWRITTEN) || e.len >= CFS_FALLOC_EXT_LEN)
		return rc;
	rc = cfs_ms_ext_cut(t, in, e.off, *off);
	if (rc)
		return rc;
	e.len = (uint32_t)cfs_min((uint64_t)CFS_FALLOC_EXT_LEN, end - e.off);
	*off = e.off + e.len;
	return cfs_ms_ext_insert(t, in, &e, false);
}

static int fill_hole(struct cfs_tx *t, struct cfs_inode *in, uint64_t off, uint64_t end)
{
	struct cfs_ext e = { .flags = CFS_EXT_UNWRITTEN };
	int rc = extend_left(t, in, &off, end);

	for (; !rc && off < end; off += e.len) {
		e.off = off;
		e.len = (uint32_t)cfs_min((uint64_t)CFS_FALLOC_EXT_LEN, end - off);
		rc = cfs_ms_ext_insert(t, in, &e, false);
	}
	return rc;
}

static uint64_t chunks(uint64_t bytes)
{
	return (bytes + CFS_FALLOC_EXT_LEN - 1) / CFS_FALLOC_EXT_LEN;
}

/* reserve what is a hole in [off, end): first counted, then made */
static int reserve_check(struct cfs_tx *t, const struct cfs_inode *in, uint64_t off, uint64_t end)
{
	uint64_t n = 0, h_off, h_end;
	int rc;

	if (chunks(end - off) > CFS_META_FALLOC_EXT_MAX)
		return ENOSPC;
	while (!(rc = next_hole(t, in->map, off, end, &h_off, &h_end))) {
		n += chunks(h_end - h_off);
		if (n > CFS_META_FALLOC_EXT_MAX)
			return ENOSPC;
		off = h_end;
	}
	return rc == ENOENT ? 0 : rc;
}

static int reserve(struct cfs_tx *t, struct cfs_inode *in, uint64_t off, uint64_t end)
{
	uint64_t h_off, h_end;
	int rc;

	while (!(rc = next_hole(t, in->map, off, end, &h_off, &h_end))) {
		rc = fill_hole(t, in, h_off, h_end);
		if (rc)
			return rc;
		off = h_end;
	}
	return rc == ENOENT ? 0 : rc;
}

int cfs_ms_op_fallocate(struct cfs_tx *t, const uint8_t *body, uint32_t len)
{
	struct cfs_attr_rep rep = { .valid = 0 };
	struct cfs_fallocate_req req;
	struct cfs_inode in;
	uint64_t off, end;
	uint32_t mode;
	int rc;

	rc = cfs_ms_req_fixed(body, len, &req, sizeof(req));
	if (rc)
		return rc;
	off = cfs_le64_to_cpu(req.off);
	end = cfs_le64_to_cpu(req.len);
	mode = cfs_le32_to_cpu(req.mode);
	if (mode & ~(uint32_t)(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) ||
	    (mode & FALLOC_FL_PUNCH_HOLE && mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)))
		return EOPNOTSUPP;
	if (!end || cfs_le32_to_cpu(req.flags) & ~CFS_SA_KILLPRIV)
		return EINVAL;
	if (off > CFS_FILE_SIZE_MAX || end > CFS_FILE_SIZE_MAX - off)
		return EFBIG;
	end += off;
	rc = cfs_ms_inode_get(t, cfs_le64_to_cpu(req.ino), &in);
	if (rc)
		return rc;
	if (!S_ISREG(in.mode))
		return S_ISDIR(in.mode) ? EISDIR : ENODEV;
	/*
	 * An inline file reserves nothing: its bytes are in the log already, and those that
	 * follow will be written to new places in any case.
	 */
	if (!(mode & FALLOC_FL_PUNCH_HOLE) && !in.inline_len) {
		if (mode & FALLOC_FL_ZERO_RANGE)
			rc = chunks(end - off) > CFS_META_FALLOC_EXT_MAX ? ENOSPC : 0;
		else
			rc = reserve_check(t, &in, off, end);
		if (rc)
			return rc;
	}

	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
		rc = inline_zero(t, &in, off, end);
		if (!rc)
			rc = cfs_ms_ext_cut(t, &in, off, end);
	}
	if (!rc && !(mode & FALLOC_FL_PUNCH_HOLE) && !in.inline_len)
		rc = reserve(t, &in, off, end);
	if (!rc)
		rc = cfs_le32_to_cpu(req.flags) & CFS_SA_KILLPRIV ? cfs_ms_inode_kill_priv(t, &in) :
								     cfs_ms_inode_kill_caps(t, &in);
	if (rc)
		return rc;
	cfs_ms_inode_touch_data(t, &in);	/* in every mode, as local file systems do (file_modified()) */
	if (!(mode & FALLOC_FL_KEEP_SIZE))
		in.size = cfs_max(in.size, end);
	rc = cfs_ms_inode_put(t, &in);
	cfs_ms_inode_attr(&in, &rep.attr);
	memcpy(t->rep, &rep, sizeof(rep));
	t->rep_len = sizeof(rep);
	return rc;
}

/* ---- COPY ----------------------------------------------------------------------- */
struct copy {
	struct cfs_inode src, dst_, *dst;	/* dst is &src when both are one file */
	uint64_t src_off, dst_off, len;
	unsigned n;				/* extents in m->ext_buf */
	bool inl;				/* the result is inline */
};

/* how many of the bytes to be copied src has inline; they come first, the rest are zeros */
static uint64_t inline_have(const struct copy *c)
{
	return c->src.inline_len > c->src_off ? cfs_min(c->len, c->src.inline_len - c->src_off) : 0;
}

/* can the result be an inline file? */
static bool inline_possible(const struct copy *c)
{
	if (c->dst_off + inline_have(c) > CFS_INLINE_MAX || c->dst == &c->src)
		return false;
	return !c->dst->n_extents || (c->dst_off == 0 && c->len >= c->dst->size);
}

static int copy_inline(struct cfs_tx *t, struct copy *c)
{
	uint8_t from[CFS_INLINE_MAX] = { 0 }, to[CFS_INLINE_MAX] = { 0 };
	uint64_t have = inline_have(c), end = c->dst_off + c->len, to_len = c->dst->inline_len;
	int rc;

	rc = cfs_ms_inline_get(t, &c->src, from);
	if (!rc)
		rc = cfs_ms_inline_get(t, c->dst, to);
	if (!rc)
		rc = cfs_ms_ext_truncate(t, c->dst, 0);
	if (rc)
		return rc;
	if (c->dst_off < to_len)	/* what is a hole in src becomes zeros */
		memset(to + c->dst_off, 0, cfs_min(end, to_len) - c->dst_off);
	if (have) {
		memcpy(to + c->dst_off, from + c->src_off, have);
		to_len = cfs_max(to_len, c->dst_off + have);
	} else if (end >= to_len) {
		to_len = cfs_min(to_len, c->dst_off);
	}
	return cfs_ms_inline_set(t, c->dst, to, (uint32_t)to_len);
}

static int copy_extents(struct cfs_tx *t, struct copy *c)
{
	const struct cfs_ext *buf = t->m->ext_buf;
	uint64_t src_end = c->src_off + c->len;
	struct cfs_ext e;
	int rc;

	rc = cfs_ms_inline_set(t, c->dst, NULL, 0);
	if (!rc)
		rc = cfs_ms_ext_cut(t, c->dst, c->dst_off, c->dst_off + c->len);
	for (unsigned i = 0; !rc && i < c->n; i++) {
		uint64_t off = cfs_max(buf[i].off, c->src_off),
			 end = cfs_min(buf[i].off + buf[i].len, src_end);

		if (buf[i].flags & CFS_EXT_UNWRITTEN || off >= end) /* zeros: a hole is enough */
			continue;
		e = buf[i];
		e.off = off - c->src_off + c->dst_off;
		e.len = (uint32_t)(end - off);
		e.obj_off += (uint32_t)(off - buf[i].off);
		rc = cfs_ms_ext_insert(t, c->dst, &e, true);
	}
	return rc;
}

/*
 * the extents of src that are to be shared, and a len that is no more than what they and dst
 * allow in one request
 */
static int copy_bound(struct cfs_tx *t, struct copy *c)
{
	struct cfs_ext *buf = t->m->ext_buf;
	unsigned n;
	int rc;

	if (c->dst->n_extents > CFS_META_COPY_EXT_MAX - 1) {
		rc = cfs_ms_ext_collect(t, c->dst->map, c->dst_off, c->dst_off + c->len, buf,
					CFS_META_COPY_EXT_MAX, &n);
		if (rc)
			return rc;
		if (n == CFS_META_COPY_EXT_MAX)
			c->len = cfs_min(c->len, buf[n - 1].off + buf[n - 1].len - c->dst_off);
	}
	rc = cfs_ms_ext_collect(t, c->src.map, c->src_off, c->src_off + c->len, buf,
				CFS_META_COPY_EXT_MAX, &c->n);
	if (!rc && c->n == CFS_META_COPY_EXT_MAX)
		c->len = cfs_min(c->len, buf[c->n - 1].off + buf[c->n - 1].len - c->src_off);
	return rc;
}

static int copy_check(struct cfs_tx *t, const struct cfs_copy_req *req, struct copy *c)
{
	uint32_t flags = cfs_le32_to_cpu(req->flags);
	int rc;

	if (flags & ~(CFS_COPY_REFLINK | CFS_COPY_KILLPRIV))
		return EINVAL;
	rc = reg_get(t, cfs_le64_to_cpu(req->src), &c->src);
	c->dst = &c->src;
	if (!rc && req->dst != req->src) {
		c->dst = &c->dst_;
		rc = reg_get(t, cfs_le64_to_cpu(req->dst), c->dst);
	}
	if (rc)
		return rc;
	c->src_off = cfs_le64_to_cpu(req->src_off);
	c->dst_off = cfs_le64_to_cpu(req->dst_off);
	c->len = cfs_le64_to_cpu(req->len);
	if (c->src_off >= c->src.size)
		c->len = 0;
	else if (c->len > c->src.size - c->src_off || (flags & CFS_COPY_REFLINK && !c->len))
		c->len = c->src.size - c->src_off;
	if (!c->len)
		return 0;
	if (c->dst_off > CFS_FILE_SIZE_MAX || c->len > CFS_FILE_SIZE_MAX - c->dst_off)
		return EFBIG;
	if (c->dst == &c->src && c->src_off < c->dst_off + c->len &&
	    c->dst_off < c->src_off + c->len)
		return EINVAL;
	c->inl = inline_possible(c) && (c->src.inline_len || c->dst->inline_len) &&
		 !c->src.n_extents;
	if (c->inl)
		return 0;
	/*
	 * extents into an inline file must cover what is there; inline bytes into extents are no
	 * extents
	 */
	if (c->src.inline_len ||
	    (c->dst->inline_len && (c->dst_off || c->len < c->dst->inline_len)))
		return EOPNOTSUPP;
	rc = copy_bound(t, c);
	if (!rc && c->dst->inline_len && c->len < c->dst->inline_len)
		return EOPNOTSUPP;
	return rc;
}

int cfs_ms_op_copy(struct cfs_tx *t, const uint8_t *body, uint32_t len)
{
	struct cfs_copy_rep rep = { .copied = 0 };
	struct copy c = { .len = 0 };
	struct cfs_copy_req req;
	int rc;

	rc = cfs_ms_req_fixed(body, len, &req, sizeof(req));
	if (!rc)
		rc = copy_check(t, &req, &c);
	if (rc)
		return rc;
	if (c.len) {
		rc = c.inl ? copy_inline(t, &c) : copy_extents(t, &c);
		if (!rc)
			rc = cfs_le32_to_cpu(req.flags) & CFS_COPY_KILLPRIV ?
				     cfs_ms_inode_kill_priv(t, c.dst) :
				     cfs_ms_inode_kill_caps(t, c.dst);
		if (rc)
			return rc;
		c.dst->size = cfs_max(c.dst->size, c.dst_off + c.len);
		cfs_ms_inode_touch_data(t, c.dst);
		rc = cfs_ms_inode_put(t, c.dst);
	}
	rep.copied = cfs_cpu_to_le64(c.len);
	cfs_ms_inode_attr(c.dst, &rep.attr);
	memcpy(t->rep, &rep, sizeof(rep));
	t->rep_len = sizeof(rep);
	return rc;
}
