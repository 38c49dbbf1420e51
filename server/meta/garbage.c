/* SPDX-License-Identifier: MIT */
/*
 * garbage.c - which of some stored objects belongs to nothing: what a client wrote and never committed before its
 * session ended.
 *
 * An object is named by the session that wrote it, and only that session ever brings it into a file. So once the
 * session has ended, an object that no extent refers to in one consistent view of the state never will be: extents are copied
 * from extents. Objects on the DEAD list are waited for by readers, and deleted from there.
 *
 * Any thread: this has a read transaction of its own, and holds map_lock so that the map does not move meanwhile.
 */
#include "server/meta/meta_i.h"

#include <stdlib.h>
#include <string.h>

uint64_t cfs_meta_sessions_ended(struct cfs_meta *m)
{
	return m->st.next_session - m->st.sessions;
}

static int compare(const void *pa, const void *pb)
{
	const struct cfs_oid *a = pa, *b = pb;
	uint64_t ao = cfs_le64_to_cpu(a->owner), bo = cfs_le64_to_cpu(b->owner);
	uint64_t as = cfs_le64_to_cpu(a->seq), bs = cfs_le64_to_cpu(b->seq);

	return ao != bo ? (ao < bo ? -1 : 1) : (as > bs) - (as < bs);
}

struct sweep {
	struct cfs_tx t;
	struct cfs_oid *oids;
	bool *used;
	unsigned n;
};

static int owner_ended(struct sweep *s, uint64_t next_session, uint64_t owner, bool *ret)
{
	struct cfs_session_rec r;
	int rc;

	*ret = false;
	if (owner == CFS_OID_OWNER_META || owner >= next_session)	/* of a session that this replica has not heard of */
		return 0;
	rc = cfs_ms_session_get(&s->t, owner, &r);
	*ret = rc == ENOENT;
	return rc == ENOENT ? 0 : rc;
}

/* those of sessions that live are none of our business */
static int keep_ended(struct sweep *s)
{
	struct cfs_state_rec st;
	uint64_t owner = 0;
	unsigned kept = 0;
	bool ended = false;
	struct cfs_key k;
	int rc;

	cfs_key_init(&k, CFS_KEY_STATE);
	rc = cfs_ms_db_get_fixed(&s->t, &k, &st, sizeof(st));
	for (unsigned i = 0; i < s->n && !rc; i++) {
		if (i == 0 || cfs_le64_to_cpu(s->oids[i].owner) != owner) {
			owner = cfs_le64_to_cpu(s->oids[i].owner);
			rc = owner_ended(s, cfs_le64_to_cpu(st.next_session), owner, &ended);
		}
		if (ended)
			s->oids[kept++] = s->oids[i];
	}
	s->n = kept;
	return rc;
}

static void mark(struct sweep *s, const void *oid)
{
	struct cfs_oid key, *at;

	memcpy(&key, oid, sizeof(key));
	at = bsearch(&key, s->oids, s->n, sizeof(key), compare);
	if (at)
		s->used[at - s->oids] = true;
}

/* the object that each record of a type names, at `off` in records of `len` bytes */
static int mark_all(struct sweep *s, enum cfs_key_type type, size_t off, size_t len)
{
	MDB_val key, v;
	struct cfs_key k;
	int rc;

	cfs_key_init(&k, type);
	for (rc = cfs_ms_db_seek(&s->t, &k, 1, &key, &v); !rc; rc = cfs_ms_db_next(&s->t, &k, 1, &key, &v)) {
		if (v.mv_size != len)
			return -EUCLEAN;
		mark(s, (const uint8_t *)v.mv_data + off);
	}
	return rc == ENOENT ? 0 : rc;
}

static int sweep(struct sweep *s)
{
	int rc;

	qsort(s->oids, s->n, sizeof(s->oids[0]), compare);
	rc = keep_ended(s);
	if (rc || !s->n)
		return rc;
	s->used = calloc(s->n, sizeof(*s->used));
	if (!s->used)
		return -ENOMEM;
	rc = mark_all(s, CFS_KEY_EXTENT, offsetof(struct cfs_ext_rec, oid), sizeof(struct cfs_ext_rec));
	if (!rc)
		rc = mark_all(s, CFS_KEY_DEAD, offsetof(struct cfs_dead_rec, oid), sizeof(struct cfs_dead_rec));
	return rc;
}

int cfs_meta_garbage(struct cfs_meta *m, struct cfs_oid *oids, unsigned n, unsigned *ret_n)
{
	struct sweep s = { .t.m = m, .oids = oids, .n = n };
	unsigned garbage = 0;
	int rc;

	*ret_n = 0;
	pthread_mutex_lock(&m->map_lock);
	rc = cfs_ms_db_err(mdb_txn_begin(m->env, NULL, MDB_RDONLY, &s.t.txn));
	if (!rc)
		rc = cfs_ms_db_err(mdb_cursor_open(s.t.txn, m->dbi, &s.t.cur));
	if (!rc)
		rc = sweep(&s);
	if (s.t.cur)
		mdb_cursor_close(s.t.cur);
	if (s.t.txn)
		mdb_txn_abort(s.t.txn);
	pthread_mutex_unlock(&m->map_lock);
	for (unsigned i = 0; i < s.n && !rc; i++)
		if (!s.used[i])
			oids[garbage++] = oids[i];
	free(s.used);
	*ret_n = garbage;
	return rc > 0 ? -EUCLEAN : rc;
}
