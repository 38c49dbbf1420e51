/* SPDX-License-Identifier: MIT */
/*
 * op_session.c - sessions as replicated state: opening (idempotent by nonce), closing and
 * fencing, reply slots, and the cluster map. Session numbers grow and are never used again.
 */
#include "server/meta/meta_i.h"

int cfs_ms_session_get(struct cfs_tx *t, uint64_t session, struct cfs_session_rec *ret_rec)
{
	struct cfs_key k;
	MDB_val v;
	int rc;

	cfs_key_u64(&k, CFS_KEY_SESSION, session);
	rc = cfs_ms_db_get(t, &k, &v);
	if (rc)
		return rc;
	if (v.mv_size < sizeof(*ret_rec))
		return -EUCLEAN;
	memcpy(ret_rec, v.mv_data, sizeof(*ret_rec));
	return v.mv_size == sizeof(*ret_rec) + cfs_le32_to_cpu(ret_rec->name_len) ? 0 : -EUCLEAN;
}

static void open_reply(struct cfs_tx *t, uint64_t session, uint32_t slots)
{
	struct cfs_session_open_rep rep = {
		.session = cfs_cpu_to_le64(session), .slots = cfs_cpu_to_le32(slots),
	};

	memcpy(t->rep, &rep, sizeof(rep));
	t->rep_len = sizeof(rep);
}

int cfs_ms_op_session_open(struct cfs_tx *t, const uint8_t *body, uint32_t len)
{
	uint8_t rec[sizeof(struct cfs_session_rec) + CFS_NAME_MAX];
	struct cfs_session_rec r, old;
	struct cfs_session_open_req req;
	uint32_t slots, name_len;
	uint64_t session;
	struct cfs_key k;
	cfs_le64 le;
	int rc;

	if (len < sizeof(req))
		return CFS_E_PROTO;
	memcpy(&req, body, sizeof(req));
	name_len = cfs_le32_to_cpu(req.name_len);
	if (name_len > CFS_NAME_MAX || len != sizeof(req) + name_len)
		return CFS_E_PROTO;
	slots = cfs_le32_to_cpu(req.slots);
	slots = slots < 1 ? 1 : slots > CFS_SLOTS_MAX ? CFS_SLOTS_MAX : slots;
	cfs_key_nonce(&k, req.nonce);
	rc = cfs_ms_db_get_fixed(t, &k, &le, sizeof(le));
	if (!rc) {
		rc = cfs_ms_session_get(t, cfs_le64_to_cpu(le), &old);
		if (!rc)
			open_reply(t, cfs_le64_to_cpu(le), cfs_le32_to_cpu(old.slots));
		return rc == ENOENT ? -EUCLEAN : rc;
	}
	if (rc != ENOENT)
		return rc;
	if (t->m->st.sessions >= CFS_META_SESSIONS_MAX)
		return ENFILE;

	session = t->m->st.next_session++;
	t->m->st.sessions++;
	le = cfs_cpu_to_le64(session);
	rc = cfs_ms_db_put(t, &k, &le, sizeof(le));
	if (rc)
		return rc;
	memcpy(r.nonce, req.nonce, sizeof(r.nonce));
	r.slots = cfs_cpu_to_le32(slots);
	r.name_len = req.name_len;
	memcpy(rec, &r, sizeof(r));
	memcpy(rec + sizeof(r), body + sizeof(req), name_len);
	cfs_key_u64(&k, CFS_KEY_SESSION, session);
	rc = cfs_ms_db_put(t, &k, rec, sizeof(r) + name_len);
	open_reply(t, session, slots);
	return rc;
}

static int drop_slots(struct cfs_tx *t, uint64_t session)
{
	struct cfs_key k;
	MDB_val key, v;
	int rc;

	/* ends: CFS_SLOTS_MAX */
	cfs_key_slot(&k, session, 0);
	while (!(rc = cfs_ms_db_seek(t, &k, 9, &key, &v))) {
		if (key.mv_size != k.len)
			return -EUCLEAN;
		cfs_key_slot(&k, session, cfs_key_get_u32(key.mv_data, 9));
		rc = cfs_ms_db_del(t, &k);
		if (rc)
			return rc;
	}
	return rc == ENOENT ? 0 : rc;
}

static int drop_orphans(struct cfs_tx *t, uint64_t session)
{
	struct cfs_key k;
	MDB_val key, v;
	int rc;

	/* ends: each turn removes one; files with many extents go to PURGE */
	cfs_key_u64(&k, CFS_KEY_HELD, session);
	while (!(rc = cfs_ms_db_seek(t, &k, 9, &key, &v))) {
		if (key.mv_size != 17)
			return -EUCLEAN;
		rc = cfs_ms_inode_unhold(t, cfs_key_get_u64(key.mv_data, 9), session,
					 CFS_META_CLOSE_EXTENTS);
		if (rc)
			return rc == ENOENT ? -EUCLEAN : rc;
	}
	return rc == ENOENT ? 0 : rc;
}

/* SESSION_CLOSE and CFS_LOG_FENCE: the record's session */
int cfs_ms_op_session_close(struct cfs_tx *t)
{
	struct cfs_session_rec r;
	struct cfs_key k;
	int rc;

	rc = cfs_ms_session_get(t, t->session, &r);
	if (rc)
		return rc == ENOENT ? CFS_E_BADSESSION : rc;
	rc = cfs_ms_lock_drop_session(t, t->session);
	if (!rc)
		rc = drop_orphans(t, t->session);
	if (!rc)
		rc = drop_slots(t, t->session);
	if (rc)
		return rc;
	cfs_key_nonce(&k, r.nonce);
	rc = cfs_ms_db_del(t, &k);
	if (rc)
		return rc;
	cfs_key_u64(&k, CFS_KEY_SESSION, t->session);
	t->m->st.sessions--;
	return cfs_ms_db_del(t, &k);
}

/* RELEASE: files that the session held may be gone already, or have a name again */
int cfs_ms_op_release(struct cfs_tx *t, const uint8_t *body, uint32_t len)
{
	const uint8_t *inos;
	uint32_t n;
	int rc;

	rc = cfs_ms_req_release(body, len, &n, &inos);
	for (uint32_t i = 0; !rc && i < n; i++) {
		rc = cfs_ms_inode_unhold(t, cfs_get_le64(inos + 8 * (size_t)i), t->session,
					 CFS_META_CLOSE_EXTENTS);
		if (rc == ENOENT)
			rc = 0;
	}
	return rc;
}

/* ---- the cluster map ------------------------------------------------------------ */
int cfs_ms_op_map(struct cfs_tx *t, const uint8_t *body, uint32_t len)
{
	struct cfs_map_rep rep, old;
	uint64_t want;
	struct cfs_key k;
	MDB_val v;
	int rc;

	if (len < sizeof(rep) || len > CFS_BODY_MAX)
		return CFS_E_PROTO;
	memcpy(&rep, body, sizeof(rep));
	want = sizeof(rep) +
	       (uint64_t)cfs_le32_to_cpu(rep.n_targets) * sizeof(struct cfs_map_target);
	if (cfs_le32_to_cpu(rep.replicas) > 64 || cfs_le32_to_cpu(rep.n_pgs) > CFS_BODY_MAX)
		return CFS_E_PROTO;
	want += (uint64_t)cfs_le32_to_cpu(rep.n_pgs) * cfs_le32_to_cpu(rep.replicas) * 4;
	if (want != len)
		return CFS_E_PROTO;
	cfs_key_init(&k, CFS_KEY_MAP);
	rc = cfs_ms_db_get(t, &k, &v);
	if (!rc) {
		if (v.mv_size < sizeof(old))
			return -EUCLEAN;
		memcpy(&old, v.mv_data, sizeof(old));
		if (cfs_le64_to_cpu(rep.epoch) <= cfs_le64_to_cpu(old.epoch))
			return CFS_E_MAPEPOCH;
	} else if (rc != ENOENT) {
		return rc;
	}
	return cfs_ms_db_put(t, &k, body, len);
}

int cfs_meta_map(struct cfs_meta *m, void *out, uint32_t *ret_len)
{
	struct cfs_tx *t;
	struct cfs_key k;
	MDB_val v;
	int rc;

	rc = cfs_ms_state_rd(m, &t);
	if (rc)
		return rc;
	cfs_key_init(&k, CFS_KEY_MAP);
	rc = cfs_ms_db_get(t, &k, &v);
	if (rc)
		return rc == ENOENT ? -ENOENT : rc;
	if (v.mv_size > CFS_BODY_MAX)
		return -EUCLEAN;
	memcpy(out, v.mv_data, v.mv_size);
	*ret_len = (uint32_t)v.mv_size;
	return 0;
}

/* ---- reading -------------------------------------------------------------------- */
int cfs_meta_slot(struct cfs_meta *m, uint64_t session, uint32_t slot, uint64_t seq,
		  uint32_t *ret_status, void *out, uint32_t *ret_len)
{
	struct cfs_slot_rec r = { .seq = 0 };
	struct cfs_session_rec s;
	struct cfs_tx *t;
	struct cfs_key k;
	MDB_val v;
	int rc;

	rc = cfs_ms_state_rd(m, &t);
	if (!rc)
		rc = cfs_ms_session_get(t, session, &s);
	if (rc)
		return rc == ENOENT ? -ESTALE : rc;
	if (slot >= cfs_le32_to_cpu(s.slots))
		return -EILSEQ;
	cfs_key_slot(&k, session, slot);
	rc = cfs_ms_db_get(t, &k, &v);
	if (!rc) {
		if (v.mv_size < sizeof(r) || v.mv_size > sizeof(r) + CFS_REPLY_MAX)
			return -EUCLEAN;
		memcpy(&r, v.mv_data, sizeof(r));
	} else if (rc != ENOENT) {
		return rc;
	}
	if (seq == cfs_le64_to_cpu(r.seq) + 1)
		return -EAGAIN;
	if (seq != cfs_le64_to_cpu(r.seq) || rc == ENOENT)
		return -EILSEQ;
	*ret_status = cfs_le32_to_cpu(r.status);
	*ret_len = (uint32_t)(v.mv_size - sizeof(r));
	memcpy(out, (const uint8_t *)v.mv_data + sizeof(r), *ret_len);
	return 0;
}

bool cfs_meta_session_exists(struct cfs_meta *m, uint64_t session)
{
	struct cfs_session_rec s;
	struct cfs_tx *t;

	return !cfs_ms_state_rd(m, &t) && !cfs_ms_session_get(t, session, &s);
}

int cfs_meta_sessions(struct cfs_meta *m,
		      int (*cb)(void *arg, uint64_t session, uint32_t slots, const char *name),
		      void *arg)
{
	char name[CFS_NAME_MAX + 1];
	struct cfs_session_rec s;
	uint64_t session = 0;
	struct cfs_tx *t;
	struct cfs_key k;
	MDB_val key, v;
	int rc;

	/* a seek for each, because the callback may read, too. Ends: session grows */
	for (;; session++) {
		rc = cfs_ms_state_rd(m, &t);
		if (rc)
			return rc;
		cfs_key_u64(&k, CFS_KEY_SESSION, session);
		rc = cfs_ms_db_seek(t, &k, 1, &key, &v);
		if (rc)
			return rc == ENOENT ? 0 : rc;
		if (key.mv_size != 9 || v.mv_size < sizeof(s))
			return -EUCLEAN;
		session = cfs_key_get_u64(key.mv_data, 1);
		memcpy(&s, v.mv_data, sizeof(s));
		if (v.mv_size - sizeof(s) > CFS_NAME_MAX)
			return -EUCLEAN;
		memcpy(name, (const uint8_t *)v.mv_data + sizeof(s), v.mv_size - sizeof(s));
		name[v.mv_size - sizeof(s)] = 0;
		rc = cb(arg, session, cfs_le32_to_cpu(s.slots), name);
		if (rc)
			return rc;
	}
}
