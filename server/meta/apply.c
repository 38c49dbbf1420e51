/* SPDX-License-Identifier: MIT */
/*
 * apply.c - log entries into state: one entry, one LMDB transaction, or many (group.c); exactly once for each
 * (session, slot, seq).
 *
 * The result depends on the state and the entry alone. An entry that is malformed as a whole is
 * the leader's mistake or rot: it is refused before anything is touched, and the replica stops. A
 * malformed request inside a sound entry fails by itself.
 */
#include "server/meta/meta_i.h"

#include <stdlib.h>

struct rec {
	uint16_t opcode, n_holders;
	uint32_t body_len, slot;
	uint64_t session, seq;
	const uint8_t *body, *holders;
};

/* ---- the format ----------------------------------------------------------------- */
static bool opcode_known(uint16_t op)
{
	return cfs_op_mutates(op) || (op >= CFS_LOG_FENCE && op <= CFS_LOG_PURGE);
}

/* the record at *pos, which moves behind it; false if it is malformed */
static bool rec_decode(const uint8_t *entry, size_t len, size_t *pos, struct rec *r)
{
	struct cfs_log_rec h;
	size_t size;

	if (len - *pos < sizeof(h))
		return false;
	memcpy(&h, entry + *pos, sizeof(h));
	*r = (struct rec){
		.opcode = cfs_le16_to_cpu(h.opcode), .n_holders = cfs_le16_to_cpu(h.n_holders),
		.body_len = cfs_le32_to_cpu(h.body_len), .slot = cfs_le32_to_cpu(h.slot),
		.session = cfs_le64_to_cpu(h.session), .seq = cfs_le64_to_cpu(h.seq),
		.body = entry + *pos + sizeof(h),
	};
	size = cfs_align_up(sizeof(h) + (uint64_t)r->body_len + 8ull * r->n_holders, 8);
	if (!opcode_known(r->opcode) || size > len - *pos)
		return false;
	r->holders = r->body + r->body_len;
	*pos += size;
	return true;
}

static int entry_check(const uint8_t *entry, size_t len, unsigned *ret_n, struct cfs_ts *ret_time)
{
	struct cfs_log_hdr h;
	size_t pos = sizeof(h);
	struct rec r;

	if (len < sizeof(h) || len > CFS_LOG_ENTRY_MAX)
		return -EBADMSG;
	memcpy(&h, entry, sizeof(h));
	*ret_n = cfs_le16_to_cpu(h.n);
	*ret_time = cfs_ts_get(&h.time);
	if (cfs_le32_to_cpu(h.magic) != CFS_LOG_MAGIC ||
	    cfs_le16_to_cpu(h.version) != CFS_LOG_VERSION || *ret_n > CFS_LOG_BATCH_MAX ||
	    ret_time->nsec >= CFS_NSEC_PER_SEC || ret_time->sec < 0)
		return -EBADMSG;
	for (unsigned i = 0; i < *ret_n; i++)
		if (!rec_decode(entry, len, &pos, &r))
			return -EBADMSG;
	return pos == len ? 0 : -EBADMSG;
}

/* ---- one record ----------------------------------------------------------------- */
static int run_op(struct cfs_tx *t, const struct rec *r)
{
	switch (r->opcode) {
	case CFS_OP_SETATTR:
		return cfs_ms_op_setattr(t, r->body, r->body_len);
	case CFS_OP_MKNODE:
		return cfs_ms_op_mknode(t, r->body, r->body_len);
	case CFS_OP_LINK:
		return cfs_ms_op_link(t, r->body, r->body_len);
	case CFS_OP_UNLINK:
		return cfs_ms_op_unlink(t, r->body, r->body_len);
	case CFS_OP_RENAME:
		return cfs_ms_op_rename(t, r->body, r->body_len);
	case CFS_OP_SETXATTR:
		return cfs_ms_op_setxattr(t, r->body, r->body_len);
	case CFS_OP_COMMIT:
		return cfs_ms_op_commit(t, r->body, r->body_len);
	case CFS_OP_FALLOCATE:
		return cfs_ms_op_fallocate(t, r->body, r->body_len);
	case CFS_OP_COPY:
		return cfs_ms_op_copy(t, r->body, r->body_len);
	case CFS_OP_LOCK:
		return cfs_ms_op_lock(t, r->body, r->body_len);
	case CFS_OP_RELEASE:
		return cfs_ms_op_release(t, r->body, r->body_len);
	case CFS_LOG_FAIL: {
		uint32_t status = r->body_len >= 4 ? cfs_get_le32(r->body) : 0;

		return status && status < 1024 ? (int)status : CFS_E_PROTO;
	}
	}
	return CFS_E_PROTO;
}

/* what needs no slot: 0 or a status; *ret_done false if it is not such a record */
static int run_slotless(struct cfs_tx *t, const struct rec *r, bool *ret_done)
{
	*ret_done = true;
	switch (r->opcode) {
	case CFS_OP_SESSION_OPEN:
		return cfs_ms_op_session_open(t, r->body, r->body_len);
	case CFS_OP_SESSION_CLOSE:
	case CFS_LOG_FENCE:
		return cfs_ms_op_session_close(t);
	case CFS_LOG_DEAD_DONE:
		return cfs_ms_op_dead_done(t, r->body, r->body_len);
	case CFS_LOG_MAP:
		return cfs_ms_op_map(t, r->body, r->body_len);
	case CFS_LOG_NOOP:
		return 0;
	case CFS_LOG_PURGE:
		return cfs_ms_op_purge(t);
	}
	*ret_done = false;
	return 0;
}

/* a failed request has changed nothing; its reply has no body */
static int settle(struct cfs_tx *t, int rc, uint64_t writes)
{
	if (!rc)
		return cfs_ms_ref_flush(t);
	if (rc > 0) {
		CFS_ASSERT(t->writes == writes && t->m->refs.n == 0);
		t->rep_len = 0;
	}
	return rc;
}

/* a waiting lock that cannot be had yet stays unanswered: its slot is not used up */
static bool stays_open(const struct rec *r, int status)
{
	struct cfs_lock_req req;

	if (status != EAGAIN || r->opcode != CFS_OP_LOCK || r->body_len != sizeof(req))
		return false;
	memcpy(&req, r->body, sizeof(req));
	return req.wait;
}

/* with (session, slot, seq): from the slot if it has been done before, else done and kept there */
static int run_in_slot(struct cfs_tx *t, const struct rec *r, uint8_t *slot_buf)
{
	struct cfs_slot_rec s = { .seq = 0 };
	struct cfs_session_rec sess;
	uint64_t writes = t->writes, seq;
	struct cfs_key k;
	MDB_val v;
	int rc, status;

	rc = cfs_ms_session_get(t, r->session, &sess);
	if (rc)
		return rc == ENOENT ? CFS_E_BADSESSION : rc;
	if (r->slot >= cfs_le32_to_cpu(sess.slots))
		return CFS_E_BADSEQ;
	cfs_key_slot(&k, r->session, r->slot);
	rc = cfs_ms_db_get(t, &k, &v);
	if (rc && rc != ENOENT)
		return rc;
	if (!rc) {
		if (v.mv_size < sizeof(s) || v.mv_size > sizeof(s) + CFS_REPLY_MAX)
			return -EUCLEAN;
		memcpy(&s, v.mv_data, sizeof(s));
	}
	seq = cfs_le64_to_cpu(s.seq);
	if (!rc && r->seq == seq) {
		t->rep_len = (uint32_t)(v.mv_size - sizeof(s));
		memcpy(t->rep, (const uint8_t *)v.mv_data + sizeof(s), t->rep_len);
		return (int)cfs_le32_to_cpu(s.status);
	}
	if (r->seq != seq + 1)
		return CFS_E_BADSEQ;
	status = settle(t, run_op(t, r), writes);
	if (status < 0 || stays_open(r, status))
		return status;
	s.seq = cfs_cpu_to_le64(r->seq);
	s.status = cfs_cpu_to_le32((uint32_t)status);
	s.body_len = cfs_cpu_to_le32(t->rep_len);
	CFS_ASSERT(slot_buf + sizeof(s) == t->rep && t->rep_len <= CFS_REPLY_MAX);
	memcpy(slot_buf, &s, sizeof(s));
	rc = cfs_ms_db_put(t, &k, slot_buf, sizeof(s) + t->rep_len);
	return rc ? rc : status;
}

/* room in the arena for one more reply, with the slot's record before it */
static int arena_room(struct cfs_meta *m)
{
	size_t need = m->arena_len + sizeof(struct cfs_slot_rec) + CFS_REPLY_MAX;
	uint8_t *p;

	if (need <= m->arena_size)
		return 0;
	need = cfs_align_up(
		need * 2,
		4096); /* at most what the replies of one entry can be: see CFS_REPLY_MAX */
	p = realloc(m->arena, need);
	if (!p)
		return -ENOMEM;
	m->arena = p;
	m->arena_size = need;
	return 0;
}

static int run_rec(struct cfs_tx *t, const struct rec *r, unsigned i)
{
	struct cfs_meta *m = t->m;
	uint64_t writes = t->writes;
	uint8_t *slot_buf;
	bool done;
	int rc;

	rc = arena_room(m);
	if (rc)
		return rc;
	slot_buf = m->arena + m->arena_len;
	t->rep = slot_buf + sizeof(struct cfs_slot_rec);
	t->rep_len = 0;
	t->session = r->session;
	t->holders = r->holders;
	t->n_holders = r->n_holders;
	rc = run_slotless(t, r, &done);
	rc = done ? settle(t, rc, writes) : run_in_slot(t, r, slot_buf);
	if (rc < 0)
		return rc;
	m->replies[i].status = (uint32_t)rc;
	m->replies[i].len = t->rep_len;
	m->replies[i].off = (size_t)(t->rep - m->arena);
	m->arena_len = cfs_align_up(m->replies[i].off + t->rep_len, 8);
	return 0;
}

/* ---- one entry ------------------------------------------------------------------ */
/* the first entry dates the root directory, which was there before any clock was known */
static int date_root(struct cfs_tx *t)
{
	struct cfs_inode root;
	int rc;

	if (t->m->st.applied || t->m->shard)
		return 0;
	rc = cfs_ms_inode_get(t, CFS_INO_ROOT, &root);
	if (rc)
		return rc == ENOENT ? -EUCLEAN : rc;
	root.atime = root.mtime = root.ctime = root.btime = t->now;
	return cfs_ms_inode_put(t, &root);
}

int cfs_ms_run_entry(struct cfs_tx *t, uint64_t index, const uint8_t *entry, size_t len)
{
	size_t pos = sizeof(struct cfs_log_hdr);
	struct cfs_meta *m = t->m;
	struct cfs_ts time;
	struct rec r;
	unsigned n;
	int rc;

	rc = entry_check(entry, len, &n, &time);
	if (rc)
		return rc;
	m->arena_len = 0;
	m->n_replies = n;
	t->index = index;
	if (cfs_ts_cmp(time, m->st.time) > 0) /* a new leader's clock may be behind the old one's */
		m->st.time = time;
	t->now = m->st.time;
	rc = date_root(t);
	for (unsigned i = 0; !rc && i < n; i++) {
		if (!rec_decode(entry, len, &pos, &r))
			rc = -EBADMSG;
		else
			rc = run_rec(t, &r, i);
	}
	if (!rc)
		m->st.applied = index;
	return rc;
}

static int apply_once(struct cfs_meta *m, uint64_t index, const uint8_t *entry, size_t len)
{
	struct cfs_tx t;
	int rc;

	rc = cfs_ms_state_begin(m, &t);
	if (rc)
		return rc;
	rc = cfs_ms_run_entry(&t, index, entry, len);
	if (rc) {
		cfs_ms_state_abort(m, &t);
		return rc;
	}
	return cfs_ms_state_commit(m, &t);
}

int cfs_ms_apply_one(struct cfs_meta *m, uint64_t index, const void *entry, size_t len)
{
	struct cfs_state before = m->st;
	bool again = true;
	int rc;

	if (index <= m->st.applied)
		return 0;
	/* ends: each turn doubles the map, until the kernel refuses */
	for (;;) {
		rc = apply_once(m, index, entry, len);
		if (!rc)
			return 0;
		m->st = before;
		if (rc == -CFS_EMAPFULL) {
			rc = cfs_ms_state_grow(m);
		} else if (rc == -EIO && again) {
			/* LMDB calls a short write so (0.9.24, mdb_page_flush): with no room at all it is ENOSPC */
			again = false;
			rc = 0;
		}
		if (rc)
			return rc > 0 ? -EIO : rc;
	}
}

int cfs_meta_apply(struct cfs_meta *m, uint64_t index, const void *entry, size_t len,
		   void (*sink)(void *arg, unsigned rec, uint32_t status, const void *body,
				uint32_t body_len),
		   void *arg)
{
	int rc;

	if (index <= m->st.applied)
		return 0;
	rc = cfs_ms_group_open(m, len, sink != NULL);
	if (rc < 0 || index <= m->st.applied)	/* what was left to apply may have been this one */
		return rc < 0 ? rc : 0;
	rc = rc ? cfs_ms_group_add(m, index, entry, len) : cfs_ms_apply_one(m, index, entry, len);
	for (unsigned i = 0; !rc && sink && i < m->n_replies; i++)
		sink(arg, i, m->replies[i].status, m->arena + m->replies[i].off, m->replies[i].len);
	return rc;
}
