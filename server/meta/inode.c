/* SPDX-License-Identifier: MIT */
/*
 * inode.c - inode records: reading, writing, times, and the end of an inode's life. See meta_i.h.
 */
#include "server/meta/meta_i.h"

/* ---- records -------------------------------------------------------------------- */
int cfs_ms_inode_get(struct cfs_tx *t, uint64_t ino, struct cfs_inode *ret_in)
{
	struct cfs_inode_rec r;
	struct cfs_key k;
	int rc;

	cfs_key_u64(&k, CFS_KEY_INODE, ino);
	rc = cfs_ms_db_get_fixed(t, &k, &r, sizeof(r));
	if (rc)
		return rc;
	*ret_in = (struct cfs_inode){
		.ino = ino,
		.gen = cfs_le64_to_cpu(r.gen),
		.size = cfs_le64_to_cpu(r.size),
		.alloc = cfs_le64_to_cpu(r.alloc),
		.map = cfs_le64_to_cpu(r.map),
		.change = cfs_le64_to_cpu(r.change),
		.parent = cfs_le64_to_cpu(r.parent),
		.n_extents = cfs_le64_to_cpu(r.n_extents),
		.atime = { (int64_t)cfs_le64_to_cpu(r.atime_sec), cfs_le32_to_cpu(r.atime_nsec) },
		.mtime = { (int64_t)cfs_le64_to_cpu(r.mtime_sec), cfs_le32_to_cpu(r.mtime_nsec) },
		.ctime = { (int64_t)cfs_le64_to_cpu(r.ctime_sec), cfs_le32_to_cpu(r.ctime_nsec) },
		.btime = { (int64_t)cfs_le64_to_cpu(r.btime_sec), cfs_le32_to_cpu(r.btime_nsec) },
		.mode = cfs_le32_to_cpu(r.mode),
		.nlink = cfs_le32_to_cpu(r.nlink),
		.uid = cfs_le32_to_cpu(r.uid),
		.gid = cfs_le32_to_cpu(r.gid),
		.rdev = cfs_le32_to_cpu(r.rdev),
		.flags = cfs_le32_to_cpu(r.flags),
		.inline_len = cfs_le32_to_cpu(r.inline_len),
		.n_xattrs = cfs_le32_to_cpu(r.n_xattrs),
		.xattr_list_len = cfs_le32_to_cpu(r.xattr_list_len),
	};
	if (ret_in->inline_len > CFS_INLINE_MAX || (ret_in->inline_len && ret_in->n_extents) ||
	    !ret_in->map || !ret_in->n_xattrs != !(ret_in->flags & CFS_IF_XATTR))
		return -EUCLEAN;
	return 0;
}

int cfs_ms_inode_put(struct cfs_tx *t, const struct cfs_inode *in)
{
	struct cfs_inode_rec r = {
		.gen = cfs_cpu_to_le64(in->gen),
		.size = cfs_cpu_to_le64(in->size),
		.alloc = cfs_cpu_to_le64(in->alloc),
		.map = cfs_cpu_to_le64(in->map),
		.change = cfs_cpu_to_le64(in->change),
		.parent = cfs_cpu_to_le64(in->parent),
		.n_extents = cfs_cpu_to_le64(in->n_extents),
		.atime_sec = cfs_cpu_to_le64((uint64_t)in->atime.sec),
		.mtime_sec = cfs_cpu_to_le64((uint64_t)in->mtime.sec),
		.ctime_sec = cfs_cpu_to_le64((uint64_t)in->ctime.sec),
		.btime_sec = cfs_cpu_to_le64((uint64_t)in->btime.sec),
		.atime_nsec = cfs_cpu_to_le32(in->atime.nsec),
		.mtime_nsec = cfs_cpu_to_le32(in->mtime.nsec),
		.ctime_nsec = cfs_cpu_to_le32(in->ctime.nsec),
		.btime_nsec = cfs_cpu_to_le32(in->btime.nsec),
		.mode = cfs_cpu_to_le32(in->mode),
		.nlink = cfs_cpu_to_le32(in->nlink),
		.uid = cfs_cpu_to_le32(in->uid),
		.gid = cfs_cpu_to_le32(in->gid),
		.rdev = cfs_cpu_to_le32(in->rdev),
		.flags = cfs_cpu_to_le32(in->flags),
		.inline_len = cfs_cpu_to_le32(in->inline_len),
		.n_xattrs = cfs_cpu_to_le32(in->n_xattrs),
		.xattr_list_len = cfs_cpu_to_le32(in->xattr_list_len),
	};
	struct cfs_key k;

	CFS_ASSERT(in->map && in->inline_len <= CFS_INLINE_MAX);
	CFS_ASSERT(!(in->inline_len && in->n_extents));
	CFS_ASSERT(!in->n_xattrs == !(in->flags & CFS_IF_XATTR));
	cfs_key_u64(&k, CFS_KEY_INODE, in->ino);
	return cfs_ms_db_put(t, &k, &r, sizeof(r));
}

int cfs_ms_inode_new_ino(struct cfs_tx *t, uint64_t *ret_ino)
{
	struct cfs_meta *m = t->m;

	if (m->st.next_ino > CFS_INO_COUNTER_MASK)
		return ENOSPC;
	*ret_ino = ((uint64_t)m->shard << CFS_INO_SHARD_SHIFT) | m->st.next_ino++;
	return 0;
}

uint64_t cfs_ms_inode_governor(const struct cfs_inode *in)
{
	return S_ISDIR(in->mode) || !in->parent ? in->ino : in->parent;
}

void cfs_ms_inode_attr(const struct cfs_inode *in, struct cfs_attr *a)
{
	bool dir = S_ISDIR(in->mode);

	memset(a, 0, sizeof(*a));
	a->ino = cfs_cpu_to_le64(in->ino);
	a->gen = cfs_cpu_to_le64(in->gen);
	a->size = cfs_cpu_to_le64(in->size);
	a->alloc = cfs_cpu_to_le64(in->alloc);
	cfs_ts_put(&a->atime, in->atime);
	cfs_ts_put(&a->mtime, in->mtime);
	cfs_ts_put(&a->ctime, in->ctime);
	cfs_ts_put(&a->btime, in->btime);
	a->change = cfs_cpu_to_le64(in->change);
	a->parent = cfs_cpu_to_le64(dir ? in->ino : in->parent);
	a->mode = cfs_cpu_to_le32(in->mode);
	a->nlink = cfs_cpu_to_le32(in->nlink);
	a->uid = cfs_cpu_to_le32(in->uid);
	a->gid = cfs_cpu_to_le32(in->gid);
	a->rdev = cfs_cpu_to_le32(in->rdev);
	a->flags = cfs_cpu_to_le32(in->flags);
	a->dotdot = cfs_cpu_to_le64(dir ? in->parent : 0);
}

/* ---- times ---------------------------------------------------------------------- */
/*
 * Times of changes grow strictly, so that who compares them sees every change: several entries in
 * one tick of the leader's clock, or a client's clock that is a little ahead (CFS_CI_MTIME), are
 * told apart by one ns. A time that somebody set far into the future does not stick: the next
 * change brings it back to now.
 */
static struct cfs_ts time_after(struct cfs_ts old, struct cfs_ts now)
{
	if (cfs_ts_cmp(now, old) > 0 || old.sec > now.sec + 1)
		return now;
	if (++old.nsec >= CFS_NSEC_PER_SEC) {
		old.nsec = 0;
		old.sec++;
	}
	return old;
}

void cfs_ms_inode_touch(struct cfs_tx *t, struct cfs_inode *in)
{
	in->ctime = time_after(in->ctime, t->now);
	in->change++;
}

void cfs_ms_inode_touch_data(struct cfs_tx *t, struct cfs_inode *in)
{
	in->mtime = time_after(in->mtime, t->now);
	cfs_ms_inode_touch(t, in);
}

void cfs_ms_inode_add_alloc(struct cfs_tx *t, struct cfs_inode *in, int64_t bytes)
{
	in->alloc += (uint64_t)bytes;
	t->m->st.data_bytes += (uint64_t)bytes;
}

/* ---- privileges ----------------------------------------------------------------- */
int cfs_ms_inode_kill_caps(struct cfs_tx *t, struct cfs_inode *in)
{
	if (!(in->flags & CFS_IF_CAPS))
		return 0;
	return cfs_ms_xattr_del(t, in, CFS_XATTR_CAPS, sizeof(CFS_XATTR_CAPS) - 1);
}

int cfs_ms_inode_kill_priv(struct cfs_tx *t, struct cfs_inode *in)
{
	if (S_ISDIR(in->mode))
		return 0;
	in->mode &= ~(uint32_t)S_ISUID;
	if (in->mode & S_IXGRP)		/* without it S_ISGID means mandatory locking */
		in->mode &= ~(uint32_t)S_ISGID;
	return cfs_ms_inode_kill_caps(t, in);
}

/* ---- orphans and the end -------------------------------------------------------- */
int cfs_ms_inode_destroy(struct cfs_tx *t, struct cfs_inode *in, unsigned sync_extents)
{
	struct cfs_key k;
	int rc = 0;

	cfs_key_u64(&k, CFS_KEY_INODE, in->ino);
	rc = cfs_ms_db_del(t, &k);
	if (!rc && (in->inline_len || S_ISLNK(in->mode))) {
		cfs_key_u64(&k, CFS_KEY_INLINE, in->ino);
		rc = cfs_ms_db_del(t, &k);
	}
	if (!rc && in->n_xattrs)
		rc = cfs_ms_xattr_del_all(t, in->ino);
	if (!rc && t->m->st.locks)
		rc = cfs_ms_lock_drop_ino(t, in->ino);
	if (rc)
		return rc;
	if (in->n_extents > sync_extents) {
		rc = cfs_ms_purge_add(t, in->map);
	} else if (in->n_extents) {
		unsigned n;

		rc = cfs_ms_ext_free_map(t, in->map, sync_extents, &n);
	}
	t->m->st.inodes--;
	if (S_ISDIR(in->mode))
		t->m->st.dirs--;
	t->m->st.data_bytes -= in->alloc;
	return rc;
}

int cfs_ms_inode_hold(struct cfs_tx *t, uint64_t ino, uint64_t session)
{
	struct cfs_key k;
	int rc;

	cfs_key_u64x2(&k, CFS_KEY_ORPHAN, ino, session);
	rc = cfs_ms_db_put(t, &k, "", 0);
	if (rc)
		return rc;
	cfs_key_u64x2(&k, CFS_KEY_HELD, session, ino);
	return cfs_ms_db_put(t, &k, "", 0);
}

static int unhold(struct cfs_tx *t, uint64_t ino, uint64_t session)
{
	struct cfs_key k;
	int rc;

	cfs_key_u64x2(&k, CFS_KEY_ORPHAN, ino, session);
	rc = cfs_ms_db_del(t, &k);
	if (rc)
		return rc;
	cfs_key_u64x2(&k, CFS_KEY_HELD, session, ino);
	return cfs_ms_db_del(t, &k);
}

/* any holder: 0 and which one, or ENOENT */
static int holder(struct cfs_tx *t, uint64_t ino, uint64_t *ret_session)
{
	struct cfs_key k;
	MDB_val key, v;
	int rc;

	cfs_key_u64(&k, CFS_KEY_ORPHAN, ino);
	rc = cfs_ms_db_seek(t, &k, k.len, &key, &v);
	if (rc)
		return rc;
	if (key.mv_size != 17)
		return -EUCLEAN;
	*ret_session = cfs_key_get_u64(key.mv_data, 9);
	return 0;
}

int cfs_ms_inode_unhold(struct cfs_tx *t, uint64_t ino, uint64_t session, unsigned sync_extents)
{
	struct cfs_inode in;
	struct cfs_key k;
	uint64_t other;
	MDB_val v;
	int rc;

	cfs_key_u64x2(&k, CFS_KEY_ORPHAN, ino, session);
	rc = cfs_ms_db_get(t, &k, &v);
	if (rc)
		return rc;
	rc = unhold(t, ino, session);
	if (rc)
		return rc;
	rc = holder(t, ino, &other);
	if (rc != ENOENT)
		return rc;
	rc = cfs_ms_inode_get(t, ino, &in);
	if (rc)
		return rc == ENOENT ? -EUCLEAN : rc;
	t->m->st.orphans--;
	return cfs_ms_inode_destroy(t, &in, sync_extents);
}

int cfs_ms_inode_unorphan(struct cfs_tx *t, uint64_t ino)
{
	uint64_t session;
	int rc;

	/* ends: each turn removes a holder, and there is at most one per session */
	while (!(rc = holder(t, ino, &session))) {
		rc = unhold(t, ino, session);
		if (rc)
			return rc;
	}
	if (rc != ENOENT)
		return rc;
	t->m->st.orphans--;
	return 0;
}

int cfs_ms_inode_unlinked(struct cfs_tx *t, struct cfs_inode *in, bool *ret_mine)
{
	struct cfs_session_rec s;
	uint64_t session;
	bool held = false;
	int rc;

	CFS_ASSERT(in->nlink == 0);
	*ret_mine = false;
	for (unsigned i = 0; i < t->n_holders; i++) {
		session = cfs_get_le64(t->holders + 8 * (size_t)i);
		rc = cfs_ms_session_get(t, session, &s);
		if (rc == ENOENT)	/* fenced meanwhile */
			continue;
		if (!rc)
			rc = cfs_ms_inode_hold(t, in->ino, session);
		if (rc)
			return rc;
		held = true;
		*ret_mine |= session == t->session;
	}
	if (!held)
		return cfs_ms_inode_destroy(t, in, CFS_META_SYNC_EXTENTS);
	in->parent = S_ISDIR(in->mode) ? in->parent : 0;
	t->m->st.orphans++;
	return cfs_ms_inode_put(t, in);
}
