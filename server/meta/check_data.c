/* SPDX-License-Identifier: MIT */
/* check_data.c - the check of what hangs on inodes and on sessions. See check_i.h. */
#include "server/meta/check_i.h"

#include "base/hash.h"

#include <stdlib.h>

/* ---- extents -------------------------------------------------------------------- */
static int add_map(struct cfs_ck *c, uint64_t map, struct cfs_ck_inode *ino)
{
	struct cfs_ck_map *p = cfs_ck_grow(c->maps, c->n_maps, &c->cap_maps, sizeof(*p));

	if (!p)
		return -ENOMEM;
	c->maps = p;
	p[c->n_maps++] = (struct cfs_ck_map){ map, ino };
	return 0;
}

static int map_cmp(const void *a, const void *b)
{
	uint64_t x = ((const struct cfs_ck_map *)a)->map, y = ((const struct cfs_ck_map *)b)->map;

	return x < y ? -1 : x > y;
}

static int load_maps(struct cfs_ck *c)
{
	struct cfs_ck_iter it;
	int rc = 0;

	for (size_t i = 0; !rc && i < c->n_inodes; i++)
		rc = add_map(c, c->inodes[i].in.map, &c->inodes[i]);
	cfs_ck_iter_init(&it, CFS_KEY_PURGE);
	while (!rc && !(rc = cfs_ck_iter_next(c, &it))) {
		if (it.key.mv_size != 9)
			return -EUCLEAN;
		c->seen.purging++;
		rc = add_map(c, cfs_key_get_u64(it.key.mv_data, 1), NULL);
	}
	if (rc && rc != ENOENT)
		return rc;
	if (c->n_maps)
		qsort(c->maps, c->n_maps, sizeof(*c->maps), map_cmp);
	for (size_t i = 1; i < c->n_maps; i++)
		if (c->maps[i].map == c->maps[i - 1].map)
			cfs_ck_say(c, "extent map %#lx: has two owners",
				   (unsigned long)c->maps[i].map);
	return 0;
}

static struct cfs_ck_obj *obj_place(struct cfs_ck *c, const struct cfs_oid *oid)
{
	size_t h = cfs_hash_u64(cfs_le64_to_cpu(oid->seq) * 31 + cfs_le64_to_cpu(oid->owner));

	while (c->objs[h & (c->cap_objs - 1)].count &&
	       memcmp(&c->objs[h & (c->cap_objs - 1)].oid, oid, sizeof(*oid)))
		h++;
	return &c->objs[h & (c->cap_objs - 1)];
}

static int obj_count(struct cfs_ck *c, const struct cfs_oid *oid)
{
	struct cfs_ck_obj *p, *old = c->objs;
	size_t old_cap = c->cap_objs;

	if (c->n_objs * 2 >= c->cap_objs) {
		size_t cap = old_cap ? old_cap * 2 : 4096;

		p = calloc(cap, sizeof(*p));
		if (!p)
			return -ENOMEM;
		c->objs = p;
		c->cap_objs = cap;
		for (size_t i = 0; i < old_cap; i++)
			if (old[i].count)
				*obj_place(c, &old[i].oid) = old[i];
		free(old);
	}
	p = obj_place(c, oid);
	if (!p->count++) {
		p->oid = *oid;
		c->n_objs++;
	}
	return 0;
}

static uint64_t obj_counted(struct cfs_ck *c, const struct cfs_oid *oid)
{
	return c->cap_objs ? obj_place(c, oid)->count : 0;
}

/* NULL, or what is wrong with an extent; prev_end: of the one before in its map */
static const char *ext_fault(const struct cfs_ext *e, const struct cfs_ck_map *m, uint64_t prev_end)
{
	if (!m)
		return "of no file";
	if (e->off < prev_end)
		return "overlaps the one before";
	if (e->off > CFS_FILE_SIZE_MAX || e->off + e->len > CFS_FILE_SIZE_MAX)
		return "beyond the largest file";
	if (e->flags & ~CFS_EXT_UNWRITTEN)
		return "unknown flags";
	if (!(e->flags & CFS_EXT_UNWRITTEN) &&
	    (e->obj_len > CFS_OBJECT_MAX || (uint64_t)e->obj_off + e->len > e->obj_len))
		return "outside its object";
	if (m->ino && !S_ISREG(m->ino->in.mode))
		return "of what is no regular file";
	if (m->ino && !(e->flags & CFS_EXT_UNWRITTEN) && e->off + e->len > m->ino->in.size)
		return "data beyond the end of the file";
	return NULL;
}

static int walk_extents(struct cfs_ck *c)
{
	uint64_t map, last = 0, prev_end = 0;
	struct cfs_ck_map *m, key;
	struct cfs_ck_iter it;
	struct cfs_ext e;
	const char *fault;
	int rc;

	cfs_ck_iter_init(&it, CFS_KEY_EXTENT);
	while (!(rc = cfs_ck_iter_next(c, &it))) {
		map = it.key.mv_size == 17 ? cfs_key_get_u64(it.key.mv_data, 1) : 0;
		rc = cfs_ms_ext_decode(&it.key, &it.v, &e);
		if (map != last)
			prev_end = 0;
		last = map;
		key.map = map;
		m = rc || !c->n_maps ? NULL :
				       bsearch(&key, c->maps, c->n_maps, sizeof(key), map_cmp);
		fault = rc ? "damaged" : ext_fault(&e, m, prev_end);
		if (fault) {
			cfs_ck_say(c, "extent map %#lx, offset %#lx: %s", (unsigned long)map,
				   it.key.mv_size == 17 ?
					   (unsigned long)cfs_key_get_u64(it.key.mv_data, 9) :
					   0,
				   fault);
			rc = cfs_ck_iter_del(c, &it);
			if (rc)
				return rc;
			continue;
		}
		prev_end = e.off + e.len;
		c->seen.extents++;
		if (m->ino) {
			m->ino->n_extents++;
			m->ino->ext_bytes += e.len;
		}
		if (!(e.flags & CFS_EXT_UNWRITTEN))
			rc = obj_count(c, &e.oid);
		if (rc)
			return rc;
	}
	return rc == ENOENT ? 0 : rc;
}

/* REF keys against what was counted, and back */
static int walk_refs(struct cfs_ck *c)
{
	struct cfs_ck_iter it;
	struct cfs_oid oid;
	uint64_t have;
	struct cfs_key k;
	cfs_le64 le;
	int rc;

	cfs_ck_iter_init(&it, CFS_KEY_REF);
	while (!(rc = cfs_ck_iter_next(c, &it))) {
		if (it.key.mv_size != 17 || it.v.mv_size != 8)
			return -EUCLEAN;
		oid.owner = cfs_cpu_to_le64(cfs_key_get_u64(it.key.mv_data, 1));
		oid.seq = cfs_cpu_to_le64(cfs_key_get_u64(it.key.mv_data, 9));
		if (obj_counted(c, &oid) > 1)
			continue;
		cfs_ck_say(c, "object %lx.%lx: %lu references kept, %lu counted",
			   (unsigned long)cfs_le64_to_cpu(oid.owner),
			   (unsigned long)cfs_le64_to_cpu(oid.seq),
			   (unsigned long)cfs_get_le64(it.v.mv_data),
			   (unsigned long)obj_counted(c, &oid));
		rc = cfs_ck_iter_del(c, &it);
		if (rc)
			return rc;
	}
	if (rc != ENOENT)
		return rc;
	for (size_t i = 0; i < c->cap_objs; i++) {
		if (c->objs[i].count < 2)
			continue;
		cfs_key_ref(&k, &c->objs[i].oid);
		rc = cfs_ms_db_get_fixed(c->t, &k, &le, sizeof(le));
		if (rc && rc != ENOENT)
			return rc;
		have = rc ? 1 : cfs_le64_to_cpu(le);
		if (have == c->objs[i].count)
			continue;
		cfs_ck_say(c, "object %lx.%lx: %lu references kept, %lu counted",
			   (unsigned long)cfs_le64_to_cpu(c->objs[i].oid.owner),
			   (unsigned long)cfs_le64_to_cpu(c->objs[i].oid.seq), (unsigned long)have,
			   (unsigned long)c->objs[i].count);
		le = cfs_cpu_to_le64(c->objs[i].count);
		rc = c->repair ? cfs_ms_db_put(c->t, &k, &le, sizeof(le)) : 0;
		if (rc)
			return rc;
	}
	return 0;
}

/* what is on the way to deletion must not be in use */
static int walk_dead(struct cfs_ck *c)
{
	struct cfs_ck_iter it;
	struct cfs_dead_rec r;
	int rc;

	cfs_ck_iter_init(&it, CFS_KEY_DEAD);
	while (!(rc = cfs_ck_iter_next(c, &it))) {
		if (it.key.mv_size != 9 || it.v.mv_size != sizeof(r))
			return -EUCLEAN;
		memcpy(&r, it.v.mv_data, sizeof(r));
		if (cfs_key_get_u64(it.key.mv_data, 1) >= c->t->m->st.next_dead)
			cfs_ck_say(c, "dead object key %#lx: beyond the counter",
				   (unsigned long)cfs_key_get_u64(it.key.mv_data, 1));
		if (obj_counted(c, &r.oid)) {
			cfs_ck_say(c, "object %lx.%lx: dead, but a file has it",
				   (unsigned long)cfs_le64_to_cpu(r.oid.owner),
				   (unsigned long)cfs_le64_to_cpu(r.oid.seq));
			rc = cfs_ck_iter_del(c, &it);
			if (rc)
				return rc;
			if (c->repair)
				continue;
		}
		c->seen.dead_objects++;
	}
	return rc == ENOENT ? 0 : rc;
}

/* ---- inline bytes and xattrs ---------------------------------------------------- */
static int walk_inline(struct cfs_ck *c)
{
	struct cfs_ck_inode *p;
	struct cfs_ck_iter it;
	int rc;

	cfs_ck_iter_init(&it, CFS_KEY_INLINE);
	while (!(rc = cfs_ck_iter_next(c, &it))) {
		p = it.key.mv_size == 9 ? cfs_ck_find(c, cfs_key_get_u64(it.key.mv_data, 1)) : NULL;
		if (!p || !(S_ISREG(p->in.mode) || S_ISLNK(p->in.mode)) ||
		    it.v.mv_size > CFS_INLINE_MAX || !it.v.mv_size) {
			cfs_ck_say(c, "inline data of no file, or of a wrong length (%zu)",
				   it.v.mv_size);
			rc = cfs_ck_iter_del(c, &it);
			if (rc)
				return rc;
			continue;
		}
		p->inline_bytes = it.v.mv_size;
	}
	return rc == ENOENT ? 0 : rc;
}

static bool key_is(const MDB_val *key, const char *name)
{
	return key->mv_size == 9 + strlen(name) &&
	       !memcmp((const char *)key->mv_data + 9, name, strlen(name));
}

static int walk_xattrs(struct cfs_ck *c)
{
	struct cfs_ck_inode *p;
	struct cfs_ck_iter it;
	bool acl;
	int rc;

	cfs_ck_iter_init(&it, CFS_KEY_XATTR);
	while (!(rc = cfs_ck_iter_next(c, &it))) {
		p = it.key.mv_size > 9 ? cfs_ck_find(c, cfs_key_get_u64(it.key.mv_data, 1)) : NULL;
		acl = key_is(&it.key, CFS_XATTR_ACL_ACCESS) ||
		      key_is(&it.key, CFS_XATTR_ACL_DEFAULT);
		if (!p || it.v.mv_size > CFS_XATTR_SIZE_MAX ||
		    (acl && cfs_ms_acl_check(it.v.mv_data, it.v.mv_size))) {
			cfs_ck_say(c, "inode %#lx: an xattr of no inode, or damaged",
				   p ? (unsigned long)p->in.ino : 0);
			rc = cfs_ck_iter_del(c, &it);
			if (rc)
				return rc;
			continue;
		}
		p->n_xattrs++;
		p->xattr_list_len += it.key.mv_size - 9 + 1;
		if (acl)
			p->xattr_flags |= CFS_IF_ACL;
		if (key_is(&it.key, CFS_XATTR_CAPS))
			p->xattr_flags |= CFS_IF_CAPS;
	}
	return rc == ENOENT ? 0 : rc;
}

int cfs_ck_data(struct cfs_ck *c)
{
	int rc = load_maps(c);

	if (!rc)
		rc = walk_extents(c);
	if (!rc)
		rc = walk_refs(c);
	if (!rc)
		rc = walk_dead(c);
	if (!rc)
		rc = walk_inline(c);
	if (!rc)
		rc = walk_xattrs(c);
	return rc;
}

/* ---- sessions, and what they hold ----------------------------------------------- */
static int session_there(struct cfs_ck *c, uint64_t session)
{
	struct cfs_session_rec s;

	return cfs_ms_session_get(c->t, session, &s);
}

/*
 * Keys of two numbers, each of which names a session at `session_at`, and for which the key of
 * type `twin` with the numbers swapped must be there (0: none).
 */
static int walk_pairs(struct cfs_ck *c, enum cfs_key_type type, enum cfs_key_type twin,
		      unsigned session_at, const char *what)
{
	struct cfs_ck_inode *p;
	struct cfs_ck_iter it;
	uint64_t session, ino;
	struct cfs_key k;
	MDB_val v;
	int rc;

	cfs_ck_iter_init(&it, type);
	while (!(rc = cfs_ck_iter_next(c, &it))) {
		if (it.key.mv_size != 17)
			return -EUCLEAN;
		session = cfs_key_get_u64(it.key.mv_data, session_at);
		ino = cfs_key_get_u64(it.key.mv_data, session_at == 1 ? 9 : 1);
		p = cfs_ck_find(c, ino);
		cfs_key_u64x2(&k, twin, cfs_key_get_u64(it.key.mv_data, 9),
			      cfs_key_get_u64(it.key.mv_data, 1));
		rc = session_there(c, session);
		if (!rc && type != CFS_KEY_LOCKED)
			rc = cfs_ms_db_get(c->t, &k, &v);
		if (rc < 0)
			return rc;
		if (rc || !p) {
			cfs_ck_say(
				c,
				"%s of session %lu, inode %#lx: no session, inode or twin",
				what, (unsigned long)session, (unsigned long)ino);
			rc = cfs_ck_iter_del(c, &it);
			if (rc)
				return rc;
			continue;
		}
		if (type == CFS_KEY_ORPHAN)
			p->orphan = true;
	}
	return rc == ENOENT ? 0 : rc;
}

static int walk_locks(struct cfs_ck *c)
{
	struct cfs_ck_iter it;
	uint64_t ino, session;
	struct cfs_key k;
	MDB_val v;
	int rc;

	cfs_ck_iter_init(&it, CFS_KEY_LOCK);
	while (!(rc = cfs_ck_iter_next(c, &it))) {
		if (it.key.mv_size != CFS_KEY_LOCK_LEN ||
		    it.v.mv_size != sizeof(struct cfs_lock_rec))
			return -EUCLEAN;
		ino = cfs_key_get_u64(it.key.mv_data, 1);
		session = cfs_key_get_u64(it.key.mv_data, 10);
		cfs_key_u64x2(&k, CFS_KEY_LOCKED, session, ino);
		rc = session_there(c, session);
		if (!rc)
			rc = cfs_ms_db_get(c->t, &k, &v);
		if (rc < 0)
			return rc;
		if (rc || !cfs_ck_find(c, ino)) {
			cfs_ck_say(
				c,
				"lock of session %lu on inode %#lx: no session, inode or index",
				(unsigned long)session, (unsigned long)ino);
			rc = cfs_ck_iter_del(c, &it);
			if (rc)
				return rc;
			if (c->repair)
				continue;
		}
		c->seen.locks++;
	}
	return rc == ENOENT ? 0 : rc;
}

int cfs_ck_sessions(struct cfs_ck *c)
{
	struct cfs_session_rec s;
	struct cfs_ck_iter it;
	struct cfs_key k;
	cfs_le64 le;
	int rc;

	cfs_ck_iter_init(&it, CFS_KEY_SESSION);
	while (!(rc = cfs_ck_iter_next(c, &it))) {
		if (it.key.mv_size != 9 || it.v.mv_size < sizeof(s))
			return -EUCLEAN;
		memcpy(&s, it.v.mv_data, sizeof(s));
		le = cfs_cpu_to_le64(cfs_key_get_u64(it.key.mv_data, 1));
		c->seen.sessions++;
		if (cfs_le64_to_cpu(le) >= c->t->m->st.next_session)
			cfs_ck_say(c, "session %lu: beyond the counter",
				   (unsigned long)cfs_le64_to_cpu(le));
		cfs_key_nonce(&k, s.nonce);
		rc = cfs_ms_db_get_fixed(c->t, &k, &s, sizeof(le));
		if (rc < 0)
			return rc;
		if (rc || memcmp(&s, &le, sizeof(le))) {
			cfs_ck_say(c, "session %lu: its nonce does not lead to it",
				   (unsigned long)cfs_le64_to_cpu(le));
			rc = c->repair ? cfs_ms_db_put(c->t, &k, &le, sizeof(le)) : 0;
			if (rc)
				return rc;
		}
	}
	if (rc != ENOENT)
		return rc;
	cfs_ck_iter_init(&it, CFS_KEY_SLOT);
	while (!(rc = cfs_ck_iter_next(c, &it))) {
		if (it.key.mv_size != 13 || it.v.mv_size < sizeof(struct cfs_slot_rec))
			return -EUCLEAN;
		rc = session_there(c, cfs_key_get_u64(it.key.mv_data, 1));
		if (rc < 0)
			return rc;
		if (!rc)
			continue;
		cfs_ck_say(c, "slot of session %lu: no such session",
			   (unsigned long)cfs_key_get_u64(it.key.mv_data, 1));
		rc = cfs_ck_iter_del(c, &it);
		if (rc)
			return rc;
	}
	if (rc != ENOENT)
		return rc;
	rc = walk_pairs(c, CFS_KEY_ORPHAN, CFS_KEY_HELD, 9, "orphan");
	if (!rc)
		rc = walk_pairs(c, CFS_KEY_HELD, CFS_KEY_ORPHAN, 1, "held file");
	if (!rc)
		rc = walk_locks(c);
	if (!rc)
		rc = walk_pairs(c, CFS_KEY_LOCKED, CFS_KEY_LOCK, 1, "lock index");
	return rc;
}

/* ---- for scrub: every extent ---------------------------------------------------- */
static int walk_map(struct cfs_meta *m, uint64_t map, uint64_t ino,
		    int (*cb)(void *arg, uint64_t ino, const struct cfs_extent *e), void *arg)
{
	struct cfs_ext e[64];
	struct cfs_extent x;
	uint64_t off = 0;
	struct cfs_tx *t;
	unsigned n;
	int rc;

	/* ends: each turn goes past the extents it has seen */
	do {
		rc = cfs_ms_state_rd(m, &t);
		if (!rc)
			rc = cfs_ms_ext_collect(t, map, off, UINT64_MAX, e, CFS_ARRAY_SIZE(e), &n);
		for (unsigned i = 0; !rc && i < n; i++) {
			x = (struct cfs_extent){
				.file_off = cfs_cpu_to_le64(e[i].off),
				.len = cfs_cpu_to_le32(e[i].len),
				.obj_off = cfs_cpu_to_le32(e[i].obj_off),
				.oid = e[i].oid,
				.obj_len = cfs_cpu_to_le32(e[i].obj_len),
				.flags = cfs_cpu_to_le32(e[i].flags),
			};
			rc = cb(arg, ino, &x);
			off = e[i].off + e[i].len;
		}
	} while (!rc && n == CFS_ARRAY_SIZE(e));
	return rc;
}

/* the next key of a type from *at on; *at moves to the number after it */
static int next_u64(struct cfs_meta *m, enum cfs_key_type type, uint64_t *at, uint64_t *ret,
		    struct cfs_tx **ret_t)
{
	struct cfs_key k;
	MDB_val key, v;
	int rc;

	rc = cfs_ms_state_rd(m, ret_t);
	if (rc)
		return rc;
	cfs_key_u64(&k, type, *at);
	rc = cfs_ms_db_seek(*ret_t, &k, 1, &key, &v);
	if (rc)
		return rc;
	if (key.mv_size != 9)
		return -EUCLEAN;
	*ret = cfs_key_get_u64(key.mv_data, 1);
	*at = *ret + 1;
	return 0;
}

int cfs_meta_walk_extents(struct cfs_meta *m,
			  int (*cb)(void *arg, uint64_t ino, const struct cfs_extent *e), void *arg)
{
	uint64_t at = 0, ino;
	struct cfs_inode in;
	struct cfs_tx *t;
	int rc;

	while (!(rc = next_u64(m, CFS_KEY_INODE, &at, &ino, &t))) {
		rc = cfs_ms_inode_get(t, ino, &in);
		if (!rc && in.n_extents)
			rc = walk_map(m, in.map, ino, cb, arg);
		if (rc)
			return rc;
	}
	if (rc != ENOENT)
		return rc;
	at = 0;
	while (!(rc = next_u64(m, CFS_KEY_PURGE, &at, &ino, &t))) {
		rc = walk_map(m, ino, 0, cb, arg);
		if (rc)
			return rc;
	}
	return rc == ENOENT ? 0 : rc;
}
