/* SPDX-License-Identifier: MIT */
/*
 * extents.c - the extent map of a file: one key per extent, sorted, never overlapping; and inline
 * bytes.
 *
 * A file has inline bytes or extents, never both. Either way what they do not cover reads as
 * zeros up to the size: a hole costs nothing. See meta_i.h.
 */
#include "server/meta/meta_i.h"

#define CUT_BATCH	64u

int cfs_ms_ext_decode(const MDB_val *k, const MDB_val *v, struct cfs_ext *ret)
{
	struct cfs_ext_rec r;

	if (k->mv_size != 17 || v->mv_size != sizeof(r))
		return -EUCLEAN;
	memcpy(&r, v->mv_data, sizeof(r));
	*ret = (struct cfs_ext){
		.off = cfs_key_get_u64(k->mv_data, 9),
		.len = cfs_le32_to_cpu(r.len),
		.obj_off = cfs_le32_to_cpu(r.obj_off),
		.oid = r.oid,
		.obj_len = cfs_le32_to_cpu(r.obj_len),
		.flags = cfs_le32_to_cpu(r.flags),
	};
	return ret->len ? 0 : -EUCLEAN;
}

static int put(struct cfs_tx *t, uint64_t map, const struct cfs_ext *e)
{
	struct cfs_ext_rec r = {
		.len = cfs_cpu_to_le32(e->len),
		.obj_off = cfs_cpu_to_le32(e->obj_off),
		.oid = e->oid,
		.obj_len = cfs_cpu_to_le32(e->obj_len),
		.flags = cfs_cpu_to_le32(e->flags),
	};
	struct cfs_key k;

	cfs_key_u64x2(&k, CFS_KEY_EXTENT, map, e->off);
	return cfs_ms_db_put(t, &k, &r, sizeof(r));
}

static int del(struct cfs_tx *t, uint64_t map, uint64_t off)
{
	struct cfs_key k;

	cfs_key_u64x2(&k, CFS_KEY_EXTENT, map, off);
	return cfs_ms_db_del(t, &k);
}

static int ref(struct cfs_tx *t, const struct cfs_ext *e, int delta, bool live)
{
	return e->flags & CFS_EXT_UNWRITTEN ? 0 : cfs_ms_ref_note(t, &e->oid, delta, live);
}

int cfs_ms_ext_collect(struct cfs_tx *t, uint64_t map, uint64_t off, uint64_t end,
		       struct cfs_ext *ret, unsigned max, unsigned *ret_n)
{
	struct cfs_key k;
	MDB_val key, v;
	unsigned n = 0;
	int rc;

	*ret_n = 0;
	if (off >= end || !max)
		return 0;
	cfs_key_u64x2(&k, CFS_KEY_EXTENT, map, off);
	/* the one before may reach into the range */
	rc = cfs_ms_db_seek_le(t, &k, 9, &key, &v);
	if (rc == ENOENT)
		rc = cfs_ms_db_seek(t, &k, 9, &key, &v);
	for (; !rc && n < max; rc = cfs_ms_db_next(t, &k, 9, &key, &v)) {
		rc = cfs_ms_ext_decode(&key, &v, &ret[n]);
		if (rc)
			return rc;
		if (ret[n].off >= end)
			break;
		if (ret[n].off + ret[n].len > off)
			n++;
	}
	if (rc && rc != ENOENT)
		return rc;
	*ret_n = n;
	return 0;
}

/* removes [off, end) from one extent that overlaps it; *ret_bytes are gone */
static int cut_one(struct cfs_tx *t, struct cfs_inode *in, const struct cfs_ext *e, uint64_t off,
		   uint64_t end, uint32_t *ret_bytes)
{
	uint64_t e_end = e->off + e->len;
	bool left = e->off < off, right = e_end > end;
	struct cfs_ext piece;
	int rc;

	*ret_bytes = (uint32_t)(cfs_min(e_end, end) - cfs_max(e->off, off));
	rc = ref(t, e, (left ? 1 : 0) + (right ? 1 : 0) - 1, true);
	if (rc)
		return rc;
	if (!left) {
		rc = del(t, in->map, e->off);
		in->n_extents--;
		t->m->st.extents--;
	} else {
		piece = *e;
		piece.len = (uint32_t)(off - e->off);
		rc = put(t, in->map, &piece);
	}
	if (rc || !right)
		return rc;
	piece = *e;
	piece.off = end;
	piece.len = (uint32_t)(e_end - end);
	if (!(e->flags & CFS_EXT_UNWRITTEN))
		piece.obj_off += (uint32_t)(end - e->off);
	in->n_extents++;
	t->m->st.extents++;
	return put(t, in->map, &piece);
}

int cfs_ms_ext_cut(struct cfs_tx *t, struct cfs_inode *in, uint64_t off, uint64_t end)
{
	struct cfs_ext e[CUT_BATCH];
	unsigned n;
	uint32_t bytes;
	int rc;

	/* ends: each turn goes past the extents it has cut */
	do {
		if (!in->n_extents)
			return 0;
		rc = cfs_ms_ext_collect(t, in->map, off, end, e, CUT_BATCH, &n);
		for (unsigned i = 0; !rc && i < n; i++) {
			rc = cut_one(t, in, &e[i], off, end, &bytes);
			cfs_ms_inode_add_alloc(t, in, -(int64_t)bytes);
		}
		if (rc)
			return rc;
		if (n)
			off = cfs_max(off, e[n - 1].off + e[n - 1].len);
	} while (n == CUT_BATCH && off < end);
	return 0;
}

int cfs_ms_ext_insert(struct cfs_tx *t, struct cfs_inode *in, const struct cfs_ext *e, bool live)
{
	int rc = ref(t, e, 1, live);

	if (rc)
		return rc;
	in->n_extents++;
	t->m->st.extents++;
	cfs_ms_inode_add_alloc(t, in, e->len);
	return put(t, in->map, e);
}

/*
 * Gives the file a new map that has what lies before `off` (at most CFS_META_SYNC_EXTENTS
 * extents: `head`), and leaves the old one to PURGE with all the rest.
 */
static int new_map(struct cfs_tx *t, struct cfs_inode *in, uint64_t off, struct cfs_ext *head,
		   unsigned n)
{
	uint64_t old = in->map, kept = in->inline_len;
	int rc;

	rc = cfs_ms_inode_new_ino(t, &in->map);
	for (unsigned i = 0; !rc && i < n; i++) {
		if (head[i].off + head[i].len > off) {	/* the old map keeps it, too */
			head[i].len = (uint32_t)(off - head[i].off);
			rc = ref(t, &head[i], 1, true);
			t->m->st.extents++;
		} else {
			rc = del(t, old, head[i].off);
		}
		if (!rc)
			rc = put(t, in->map, &head[i]);
		kept += head[i].len;
	}
	if (rc)
		return rc < 0 ? rc : -ENOSPC;	/* inode numbers are used up: cannot be */
	in->n_extents = n;
	cfs_ms_inode_add_alloc(t, in, (int64_t)(kept - in->alloc));
	return cfs_ms_purge_add(t, old);
}

int cfs_ms_ext_truncate(struct cfs_tx *t, struct cfs_inode *in, uint64_t off)
{
	struct cfs_ext *buf = t->m->ext_buf;
	unsigned n;
	int rc;

	_Static_assert(CFS_META_COPY_EXT_MAX >= CFS_META_SYNC_EXTENTS, "ext_buf");
	if (in->n_extents > CFS_META_SYNC_EXTENTS) {
		rc = cfs_ms_ext_collect(t, in->map, off, UINT64_MAX, buf, CFS_META_SYNC_EXTENTS,
					&n);
		if (rc)
			return rc;
		if (n == CFS_META_SYNC_EXTENTS) {
			rc = cfs_ms_ext_collect(t, in->map, 0, off, buf, CFS_META_SYNC_EXTENTS, &n);
			if (rc)
				return rc;
			if (n < CFS_META_SYNC_EXTENTS)
				return new_map(t, in, off, buf, n);
		}
	}
	return cfs_ms_ext_cut(t, in, off, UINT64_MAX);
}

int cfs_ms_ext_free_map(struct cfs_tx *t, uint64_t map, unsigned max, unsigned *ret_n)
{
	struct cfs_ext *buf = t->m->ext_buf;
	unsigned n;
	int rc;

	CFS_ASSERT(max <= CFS_META_COPY_EXT_MAX);
	rc = cfs_ms_ext_collect(t, map, 0, UINT64_MAX, buf, max, &n);
	for (unsigned i = 0; !rc && i < n; i++) {
		rc = ref(t, &buf[i], -1, true);
		if (!rc)
			rc = del(t, map, buf[i].off);
	}
	t->m->st.extents -= n;
	*ret_n = n;
	return rc;
}

int cfs_ms_inline_set(struct cfs_tx *t, struct cfs_inode *in, const void *data, uint32_t len)
{
	uint32_t old = in->inline_len;
	struct cfs_key k;

	if (!len && !old)
		return 0;
	CFS_ASSERT(len <= CFS_INLINE_MAX && S_ISREG(in->mode) && !(len && in->n_extents));
	cfs_key_u64(&k, CFS_KEY_INLINE, in->ino);
	cfs_ms_inode_add_alloc(t, in, (int64_t)len - old);
	in->inline_len = len;
	if (!len) {
		in->flags &= ~CFS_IF_INLINE;
		return cfs_ms_db_del(t, &k);
	}
	in->flags |= CFS_IF_INLINE;
	return cfs_ms_db_put(t, &k, data, len);
}

int cfs_ms_inline_get(struct cfs_tx *t, const struct cfs_inode *in, void *buf)
{
	struct cfs_key k;
	int rc;

	if (!in->inline_len)
		return 0;
	cfs_key_u64(&k, CFS_KEY_INLINE, in->ino);
	rc = cfs_ms_db_get_fixed(t, &k, buf, in->inline_len);
	return rc == ENOENT ? -EUCLEAN : rc;
}
