/* SPDX-License-Identifier: MIT */
/*
 * op_lock.c - POSIX range locks (fcntl, OFD) and flock, as replicated state of a session.
 *
 * An owner's locks on an inode never overlap, and neighbours of the same kind are one. Waiting,
 * cancelling and deadlocks are the leader's (lockwait.c): a LOCK that comes out of the log is
 * granted now or fails with EAGAIN. flock locks are whole-file locks in a space of their own.
 */
#include "server/meta/meta_i.h"

#define LOCK_END	INT64_MAX	/* to the end of the file */

int cfs_ms_lock_check(const struct cfs_lock_req *req)
{
	uint64_t start = cfs_le64_to_cpu(req->start), end = cfs_le64_to_cpu(req->end);

	if (start > end || end > LOCK_END)
		return EINVAL;
	if (req->space == CFS_LOCK_FLOCK)
		return start || end != LOCK_END ? EINVAL : 0;
	return req->space == CFS_LOCK_POSIX ? 0 : EINVAL;
}

static bool kind_ok(const struct cfs_lock_req *req)
{
	return req->kind == CFS_LOCK_READ || req->kind == CFS_LOCK_WRITE ||
	       req->kind == CFS_LOCK_UNLOCK;
}

static int decode(const MDB_val *k, const MDB_val *v, struct cfs_lock *ret)
{
	struct cfs_lock_rec r;

	if (k->mv_size != CFS_KEY_LOCK_LEN || v->mv_size != sizeof(r))
		return -EUCLEAN;
	memcpy(&r, v->mv_data, sizeof(r));
	*ret = (struct cfs_lock){
		.session = cfs_key_get_u64(k->mv_data, 10),
		.owner = cfs_key_get_u64(k->mv_data, 18),
		.start = cfs_key_get_u64(k->mv_data, 26),
		.end = cfs_le64_to_cpu(r.end),
		.kind = cfs_le32_to_cpu(r.kind),
		.pid = cfs_le32_to_cpu(r.pid),
	};
	return 0;
}

static bool blocks(const struct cfs_lock *l, uint64_t session, const struct cfs_lock_req *req)
{
	if (l->session == session && l->owner == cfs_le64_to_cpu(req->owner))
		return false;
	if (l->kind != CFS_LOCK_WRITE && req->kind != CFS_LOCK_WRITE)
		return false;
	return l->start <= cfs_le64_to_cpu(req->end) && cfs_le64_to_cpu(req->start) <= l->end;
}

int cfs_ms_lock_conflict(struct cfs_tx *t, uint64_t session, const struct cfs_lock_req *req,
			 struct cfs_lock *ret)
{
	struct cfs_lock l;
	struct cfs_key k;
	MDB_val key, v;
	bool found = false;
	int rc;

	if (req->kind == CFS_LOCK_UNLOCK || !t->m->st.locks)
		return ENOENT;
	cfs_key_lock(&k, cfs_le64_to_cpu(req->ino), req->space, 0, 0, 0);
	rc = cfs_ms_db_seek(t, &k, CFS_KEY_LOCK_SPACE_LEN, &key, &v);
	/* ends: CFS_META_LOCKS_INO_MAX */
	for (; !rc; rc = cfs_ms_db_next(t, &k, CFS_KEY_LOCK_SPACE_LEN, &key, &v)) {
		rc = decode(&key, &v, &l);
		if (rc)
			return rc;
		if (!blocks(&l, session, req) || (found && l.start >= ret->start))
			continue;
		*ret = l;
		found = true;
	}
	return rc != ENOENT ? rc : found ? 0 : ENOENT;
}

int cfs_meta_lock_blockers(struct cfs_meta *m, uint64_t session, const struct cfs_lock_req *req,
			   struct cfs_lock_holder *ret, unsigned max)
{
	struct cfs_lock l;
	struct cfs_key k;
	struct cfs_tx *t;
	MDB_val key, v;
	unsigned n = 0;
	int rc;

	rc = cfs_ms_state_rd(m, &t);
	if (rc || req->kind == CFS_LOCK_UNLOCK)
		return rc;
	cfs_key_lock(&k, cfs_le64_to_cpu(req->ino), req->space, 0, 0, 0);
	rc = cfs_ms_db_seek(t, &k, CFS_KEY_LOCK_SPACE_LEN, &key, &v);
	for (; !rc && n < max; rc = cfs_ms_db_next(t, &k, CFS_KEY_LOCK_SPACE_LEN, &key, &v)) {
		rc = decode(&key, &v, &l);
		if (rc)
			return rc;
		/* an owner's locks follow each other: name it once */
		if (!blocks(&l, session, req) ||
		    (n && ret[n - 1].session == l.session && ret[n - 1].owner == l.owner))
			continue;
		ret[n++] = (struct cfs_lock_holder){ l.session, l.owner };
	}
	return rc && rc != ENOENT ? rc : (int)n;
}

/* ---- changing ------------------------------------------------------------------- */
static int put(struct cfs_tx *t, uint64_t ino, uint8_t space, const struct cfs_lock *l)
{
	struct cfs_lock_rec r = {
		.end = cfs_cpu_to_le64(l->end),
		.kind = cfs_cpu_to_le32(l->kind),
		.pid = cfs_cpu_to_le32(l->pid),
	};
	struct cfs_key k;

	t->m->st.locks++;
	cfs_key_lock(&k, ino, space, l->session, l->owner, l->start);
	return cfs_ms_db_put(t, &k, &r, sizeof(r));
}

static int del(struct cfs_tx *t, uint64_t ino, uint8_t space, const struct cfs_lock *l)
{
	struct cfs_key k;

	t->m->st.locks--;
	cfs_key_lock(&k, ino, space, l->session, l->owner, l->start);
	return cfs_ms_db_del(t, &k);
}

/* takes [start, end] out of an own lock, or merges it into *want when it is of the same kind */
static int replace(struct cfs_tx *t, uint64_t ino, uint8_t space, const struct cfs_lock *l,
		   struct cfs_lock *want, uint64_t start, uint64_t end)
{
	struct cfs_lock piece = *l;
	int rc;

	if (l->kind == want->kind) {
		want->start = cfs_min(want->start, l->start);
		want->end = cfs_max(want->end, l->end);
		return del(t, ino, space, l);
	}
	if (l->end < start || l->start > end)	/* a neighbour of another kind */
		return 0;
	rc = del(t, ino, space, l);
	if (!rc && l->start < start) {
		piece.end = start - 1;
		rc = put(t, ino, space, &piece);
	}
	if (!rc && l->end > end) {
		piece.start = end + 1;
		piece.end = l->end;
		rc = put(t, ino, space, &piece);
	}
	return rc;
}

static int own_locks(struct cfs_tx *t, uint64_t ino, uint8_t space, struct cfs_lock *want)
{
	uint64_t start = want->start, end = want->end, from = 0;
	struct cfs_lock l;
	struct cfs_key k;
	MDB_val key, v;
	int rc;

	/*
	 * ends: `from` grows past every own lock; pieces that are put behind it are not touched
	 * again
	 */
	for (;;) {
		cfs_key_lock(&k, ino, space, want->session, want->owner, from);
		rc = cfs_ms_db_seek(t, &k, CFS_KEY_LOCK_OWNER_LEN, &key, &v);
		if (rc)
			return rc == ENOENT ? 0 : rc;
		rc = decode(&key, &v, &l);
		if (rc)
			return rc;
		if (l.start > end && l.start - end > 1)
			return 0;
		from = l.start + 1;
		if (l.end < start && start - l.end > 1)
			continue;
		rc = replace(t, ino, space, &l, want, start, end);
		if (rc)
			return rc;
	}
}

/* how many locks there are on the inode in this space */
static int count(struct cfs_tx *t, uint64_t ino, uint8_t space, uint32_t *ret_n)
{
	struct cfs_key k;
	MDB_val key, v;
	uint32_t n = 0;
	int rc;

	cfs_key_lock(&k, ino, space, 0, 0, 0);
	rc = cfs_ms_db_seek(t, &k, CFS_KEY_LOCK_SPACE_LEN, &key, &v);
	for (; !rc; rc = cfs_ms_db_next(t, &k, CFS_KEY_LOCK_SPACE_LEN, &key, &v))
		n++;
	*ret_n = n;
	return rc == ENOENT ? 0 : rc;
}

/* the LOCKED key says whether the session has any lock on the inode */
static int index_session(struct cfs_tx *t, uint64_t ino, uint64_t session)
{
	struct cfs_key k, locked;
	bool any = false;
	MDB_val key, v;
	int rc, have;

	for (uint8_t space = CFS_LOCK_POSIX; space <= CFS_LOCK_FLOCK && !any; space++) {
		cfs_key_lock(&k, ino, space, session, 0, 0);
		rc = cfs_ms_db_seek(t, &k, CFS_KEY_LOCK_SESSION_LEN, &key, &v);
		if (rc && rc != ENOENT)
			return rc;
		any = rc == 0;
	}
	cfs_key_u64x2(&locked, CFS_KEY_LOCKED, session, ino);
	have = cfs_ms_db_get(t, &locked, &v);
	if (have < 0)
		return have;
	if (any)
		return have == 0 ? 0 : cfs_ms_db_put(t, &locked, "", 0);
	return have == 0 ? cfs_ms_db_del(t, &locked) : 0;
}

int cfs_ms_op_lock(struct cfs_tx *t, const uint8_t *body, uint32_t len)
{
	struct cfs_lock want, other;
	struct cfs_lock_req req;
	struct cfs_inode in;
	uint64_t ino;
	uint32_t n;
	int rc;

	rc = cfs_ms_req_fixed(body, len, &req, sizeof(req));
	if (rc)
		return rc;
	ino = cfs_le64_to_cpu(req.ino);
	rc = kind_ok(&req) ? cfs_ms_lock_check(&req) : EINVAL;
	if (!rc)
		rc = cfs_ms_inode_get(t, ino, &in);
	if (rc)
		return rc;
	rc = cfs_ms_lock_conflict(t, t->session, &req, &other);
	if (rc != ENOENT)
		return rc ? rc : EAGAIN;
	rc = count(t, ino, req.space, &n);
	if (rc)
		return rc;
	/* a request adds at most two; giving up must stay possible at the limit */
	if (n + 2 > CFS_META_LOCKS_INO_MAX * (req.kind == CFS_LOCK_UNLOCK ? 2 : 1) ||
	    (req.kind != CFS_LOCK_UNLOCK && t->m->st.locks + 2 > CFS_META_LOCKS_MAX))
		return ENOLCK;

	want = (struct cfs_lock){
		.session = t->session,
		.owner = cfs_le64_to_cpu(req.owner),
		.start = cfs_le64_to_cpu(req.start),
		.end = cfs_le64_to_cpu(req.end),
		.kind = req.kind,
		.pid = cfs_le32_to_cpu(req.pid),
	};
	rc = own_locks(t, ino, req.space, &want);
	if (!rc && req.kind != CFS_LOCK_UNLOCK)
		rc = put(t, ino, req.space, &want);
	return rc ? rc : index_session(t, ino, t->session);
}

/* ---- ends of inodes and sessions ------------------------------------------------ */
/* every lock under the first prefix_len bytes of *k */
static int drop(struct cfs_tx *t, const struct cfs_key *k, unsigned prefix_len)
{
	struct cfs_lock l;
	uint8_t space;
	uint64_t ino;
	MDB_val key, v;
	int rc;

	/* ends: each turn removes one */
	while (!(rc = cfs_ms_db_seek(t, k, prefix_len, &key, &v))) {
		rc = decode(&key, &v, &l);
		if (rc)
			return rc;
		ino = cfs_key_get_u64(key.mv_data, 1);
		space = ((const uint8_t *)key.mv_data)[9];
		rc = del(t, ino, space, &l);
		if (!rc)
			rc = index_session(t, ino, l.session);
		if (rc)
			return rc;
	}
	return rc == ENOENT ? 0 : rc;
}

int cfs_ms_lock_drop_ino(struct cfs_tx *t, uint64_t ino)
{
	struct cfs_key k;

	cfs_key_u64(&k, CFS_KEY_LOCK, ino);
	return drop(t, &k, CFS_KEY_LOCK_INO_LEN);
}

int cfs_ms_lock_drop_session(struct cfs_tx *t, uint64_t session)
{
	struct cfs_key k;
	MDB_val key, v;
	uint64_t ino;
	int rc;

	/* ends: the last lock of an inode takes its LOCKED key along */
	for (;;) {
		cfs_key_u64(&k, CFS_KEY_LOCKED, session);
		rc = cfs_ms_db_seek(t, &k, 9, &key, &v);
		if (rc)
			return rc == ENOENT ? 0 : rc;
		if (key.mv_size != 17)
			return -EUCLEAN;
		ino = cfs_key_get_u64(key.mv_data, 9);
		for (uint8_t space = CFS_LOCK_POSIX; !rc && space <= CFS_LOCK_FLOCK; space++) {
			cfs_key_lock(&k, ino, space, session, 0, 0);
			rc = drop(t, &k, CFS_KEY_LOCK_SESSION_LEN);
		}
		if (!rc)	/* progress even if the key had no lock behind it */
			rc = index_session(t, ino, session);
		if (rc)
			return rc;
	}
}
