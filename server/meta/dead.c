/* SPDX-License-Identifier: MIT */
/*
 * dead.c - objects that nothing refers to any more, and extents whose file is gone.
 *
 * An object has a REF key only while more than one extent refers to it. A request notes what it
 * adds and drops in a table; the flush at its end knows for each object what the count was (REF,
 * else 1 if an extent had it before, else 0) and what it is. That holds as long as a client names
 * an object in one COMMIT only, as often as it likes (op_data.c lets a session commit its own
 * objects alone: one that does it again can only harm itself). What falls to 0 goes to the DEAD
 * list with the time; the leader has the targets delete it after a grace period, and says so with
 * CFS_LOG_DEAD_DONE.
 */
#include "server/meta/meta_i.h"

#include "base/hash.h"

void cfs_ms_ref_reset(struct cfs_meta *m)
{
	if (m->refs.n)
		memset(m->refs.hash, 0, sizeof(m->refs.hash));
	m->refs.n = 0;
}

static int kill_object(struct cfs_tx *t, const struct cfs_oid *oid)
{
	struct cfs_dead_rec r = { .oid = *oid };
	struct cfs_key k;

	cfs_ts_put(&r.died, t->now);
	cfs_key_u64(&k, CFS_KEY_DEAD, t->m->st.next_dead++);
	t->m->st.dead_objects++;
	return cfs_ms_db_put(t, &k, &r, sizeof(r));
}

static int flush_one(struct cfs_tx *t, const struct cfs_oid *oid, int64_t delta, bool live)
{
	cfs_le64 le;
	int64_t old, new;
	struct cfs_key k;
	int rc;

	cfs_key_ref(&k, oid);
	rc = cfs_ms_db_get_fixed(t, &k, &le, sizeof(le));
	if (rc && rc != ENOENT)
		return rc;
	old = rc ? live : (int64_t)cfs_le64_to_cpu(le);
	new = cfs_max(old + delta, (int64_t)0); /* less: see above, and the check finds it */
	if (new > 1) {
		le = cfs_cpu_to_le64((uint64_t)new);
		return new == old ? 0 : cfs_ms_db_put(t, &k, &le, sizeof(le));
	}
	if (old > 1) {
		rc = cfs_ms_db_del(t, &k);
		if (rc)
			return rc;
	}
	return new == 0 ? kill_object(t, oid) : 0;
}

int cfs_ms_ref_flush(struct cfs_tx *t)
{
	struct cfs_refs *r = &t->m->refs;
	int rc = 0;

	for (unsigned i = 0; !rc && i < r->n; i++)
		if (r->e[i].delta)
			rc = flush_one(t, &r->e[i].oid, r->e[i].delta, r->e[i].live);
	cfs_ms_ref_reset(t->m);
	return rc;
}

int cfs_ms_ref_note(struct cfs_tx *t, const struct cfs_oid *oid, int delta, bool live)
{
	struct cfs_refs *r = &t->m->refs;
	uint64_t h;
	int rc;

	if (r->n == CFS_REFS_MAX) {
		rc = cfs_ms_ref_flush(t);
		if (rc)
			return rc;
	}
	h = cfs_hash_u64(cfs_le64_to_cpu(oid->seq) * 31 + cfs_le64_to_cpu(oid->owner));
	/* ends: at most half of the places are taken */
	for (;; h++) {
		uint16_t *at = &r->hash[h % CFS_REFS_HASH];

		if (!*at) {
			r->e[r->n].oid = *oid;
			r->e[r->n].delta = delta;
			r->e[r->n].live = live;
			*at = (uint16_t)++r->n;
			return 0;
		}
		if (!memcmp(&r->e[*at - 1].oid, oid, sizeof(*oid))) {
			/*
			 * the first note tells whether it was live: later ones may see this
			 * request's own extents
			 */
			r->e[*at - 1].delta += delta;
			return 0;
		}
	}
}

/* ---- files that are gone -------------------------------------------------------- */
int cfs_ms_purge_add(struct cfs_tx *t, uint64_t map)
{
	struct cfs_key k;

	cfs_key_u64(&k, CFS_KEY_PURGE, map);
	t->m->st.purging++;
	return cfs_ms_db_put(t, &k, "", 0);
}

int cfs_ms_op_purge(struct cfs_tx *t)
{
	unsigned left = CFS_META_PURGE_MAX, n;
	struct cfs_key k;
	MDB_val key, v;
	uint64_t map;
	int rc = 0;

	while (!rc && left) {
		cfs_key_init(&k, CFS_KEY_PURGE);
		rc = cfs_ms_db_seek(t, &k, 1, &key, &v);
		if (rc)
			break;
		if (key.mv_size != 9)
			return -EUCLEAN;
		map = cfs_key_get_u64(key.mv_data, 1);
		rc = cfs_ms_ext_free_map(t, map, left, &n);
		if (!rc && n < left) {
			cfs_key_u64(&k, CFS_KEY_PURGE, map);
			rc = cfs_ms_db_del(t, &k);
			t->m->st.purging--;
		}
		left -= n;
	}
	return rc == ENOENT ? 0 : rc;
}

/* ---- dead objects --------------------------------------------------------------- */
int cfs_ms_op_dead_done(struct cfs_tx *t, const uint8_t *body, uint32_t len)
{
	struct cfs_key k;
	MDB_val v;
	int rc;

	if (len % 8)
		return CFS_E_PROTO;
	for (uint32_t at = 0; at < len; at += 8) {
		cfs_key_u64(&k, CFS_KEY_DEAD, cfs_get_le64(body + at));
		rc = cfs_ms_db_get(t, &k, &v);
		if (rc == ENOENT)	/* told twice */
			continue;
		if (!rc)
			rc = cfs_ms_db_del(t, &k);
		if (rc)
			return rc;
		t->m->st.dead_objects--;
	}
	return 0;
}

int cfs_meta_dead(struct cfs_meta *m, const struct cfs_time *before, struct cfs_dead *ret,
		  unsigned max)
{
	struct cfs_ts limit = cfs_ts_get(before);
	struct cfs_dead_rec r;
	struct cfs_key k;
	struct cfs_tx *t;
	MDB_val key, v;
	unsigned n = 0;
	int rc;

	rc = cfs_ms_state_rd(m, &t);
	if (rc)
		return rc;
	cfs_key_init(&k, CFS_KEY_DEAD);
	rc = cfs_ms_db_seek(t, &k, 1, &key, &v);
	for (; !rc && n < max; rc = cfs_ms_db_next(t, &k, 1, &key, &v)) {
		if (key.mv_size != 9 || v.mv_size != sizeof(r))
			return -EUCLEAN;
		memcpy(&r, v.mv_data, sizeof(r));
		if (cfs_ts_cmp(cfs_ts_get(&r.died), limit) >= 0)
			break;
		ret[n++] = (struct cfs_dead){
			.key = cfs_key_get_u64(key.mv_data, 1), .oid = r.oid, .died = r.died,
		};
	}
	return rc && rc != ENOENT ? rc : (int)n;
}
