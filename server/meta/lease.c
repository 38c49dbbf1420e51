/* SPDX-License-Identifier: MIT */
/*
 * lease.c - the lease table. Two hash tables, inode -> object and (inode, owner) -> record, and lists
 * of the records of each object and of each owner. Owned by the shard leader; one thread.
 */
#include "server/meta/lease.h"

#define OBJ_BUCKETS   1024u
#define LEASE_BUCKETS 1024u

static uint64_t lease_hash(const struct cfs_lease_owner *o, uint64_t ino)
{
	return cfs_hash_u64(ino + 0x9e3779b97f4a7c15ull * (uint64_t)(uintptr_t)o);
}

int cfs_leases_init(struct cfs_leases *t, uint64_t max)
{
	int rc;

	memset(t, 0, sizeof(*t));
	t->max = max;
	cfs_list_init(&t->storms);
	cfs_slab_init(&t->obj_slab, sizeof(struct cfs_lease_obj));
	cfs_slab_init(&t->lease_slab, sizeof(struct cfs_lease));
	rc = cfs_htable_init(&t->objs, OBJ_BUCKETS);
	if (!rc)
		rc = cfs_htable_init(&t->leases, LEASE_BUCKETS);
	if (rc)
		cfs_htable_free(&t->objs);
	return rc;
}

static void obj_put(struct cfs_leases *t, struct cfs_lease_obj *obj)
{
	if (!cfs_list_empty(&obj->holders) || !cfs_list_empty(&obj->storm_link))
		return;
	CFS_ASSERT(!obj->excl);
	cfs_htable_del(&t->objs, &obj->node);
	cfs_slab_put(&t->obj_slab, obj);
}

void cfs_leases_free(struct cfs_leases *t)
{
	cfs_leases_sweep(t, UINT64_MAX);
	CFS_ASSERT(!t->leases.n && !t->objs.n);
	cfs_htable_free(&t->objs);
	cfs_htable_free(&t->leases);
	cfs_slab_free(&t->obj_slab);
	cfs_slab_free(&t->lease_slab);
}

struct cfs_lease_obj *cfs_lease_obj(const struct cfs_leases *t, uint64_t ino)
{
	uint64_t hash = cfs_hash_u64(ino);
	struct cfs_hnode *n;

	for (n = cfs_htable_chain(&t->objs, hash); n; n = n->next) {
		struct cfs_lease_obj *obj = cfs_container_of(n, struct cfs_lease_obj, node);

		if (obj->ino == ino)
			return obj;
	}
	return NULL;
}

struct cfs_lease *cfs_lease_get(const struct cfs_leases *t, const struct cfs_lease_owner *o, uint64_t ino)
{
	uint64_t hash = lease_hash(o, ino);
	struct cfs_hnode *n;

	for (n = cfs_htable_chain(&t->leases, hash); n; n = n->next) {
		struct cfs_lease *l = cfs_container_of(n, struct cfs_lease, node);

		if (l->owner == o && l->obj->ino == ino)
			return l;
	}
	return NULL;
}

static struct cfs_lease_obj *obj_make(struct cfs_leases *t, uint64_t ino, bool dir)
{
	struct cfs_lease_obj *obj = cfs_lease_obj(t, ino);

	if (obj)
		return obj;
	obj = cfs_slab_get(&t->obj_slab);
	if (!obj)
		return NULL;
	obj->ino = ino;
	obj->dir = dir;
	cfs_list_init(&obj->holders);
	cfs_list_init(&obj->storm_link);
	cfs_htable_add(&t->objs, &obj->node, cfs_hash_u64(ino));
	return obj;
}

static void set_mode(struct cfs_leases *t, struct cfs_lease *l, unsigned mode)
{
	uint64_t *n = l->obj->dir ? &t->dir_leases : &t->file_leases;

	if (!l->mode && mode)
		++*n;
	if (l->mode && !mode)
		--*n;
	if (mode == CFS_LEASE_EXCL)
		l->obj->excl = l;
	else if (l->obj->excl == l)
		l->obj->excl = NULL;
	l->mode = (uint8_t)mode;
}

struct cfs_lease *cfs_lease_grant(struct cfs_leases *t, struct cfs_lease_owner *o, uint64_t ino, bool dir,
				  unsigned mode, bool open)
{
	struct cfs_lease *l = cfs_lease_get(t, o, ino), *other;
	struct cfs_lease_obj *obj;
	struct cfs_list *pos;

	if (!l) {
		if (t->leases.n >= t->max)
			return NULL;
		obj = obj_make(t, ino, dir);
		if (!obj)
			return NULL;
		l = cfs_slab_get(&t->lease_slab);
		if (!l) {
			obj_put(t, obj);
			return NULL;
		}
		l->obj = obj;
		l->owner = o;
		cfs_list_add_tail(&obj->holders, &l->obj_link);
		cfs_list_add_tail(&o->leases, &l->owner_link);
		o->n++;
		cfs_htable_add(&t->leases, &l->node, lease_hash(o, ino));
	}
	if (mode > l->mode) {
		CFS_ASSERT(!l->breaking);
		CFS_ASSERT(!l->obj->excl || l->obj->excl == l);
		if (mode == CFS_LEASE_EXCL) {
			l->obj->through = false; /* the holder has the attributes, and may keep them when it is lowered */
			cfs_list_for_each(pos, &l->obj->holders) {
				other = cfs_list_entry(pos, struct cfs_lease, obj_link);
				CFS_ASSERT(other == l || other->mode == CFS_LEASE_NONE);
			}
		}
		set_mode(t, l, mode);
	}
	if (open)
		l->open = 1;
	return l;
}

static void lease_free(struct cfs_leases *t, struct cfs_lease *l)
{
	struct cfs_lease_obj *obj = l->obj;

	set_mode(t, l, CFS_LEASE_NONE);
	cfs_list_del(&l->obj_link);
	cfs_list_del(&l->owner_link);
	l->owner->n--;
	cfs_htable_del(&t->leases, &l->node);
	cfs_slab_put(&t->lease_slab, l);
	obj_put(t, obj);
}

void cfs_lease_lower(struct cfs_leases *t, struct cfs_lease *l, unsigned mode, bool open)
{
	if (mode < l->mode)
		set_mode(t, l, mode);
	l->open = open;
	if (!l->mode && !l->open && !l->breaking)
		lease_free(t, l);
}

void cfs_lease_break_begin(struct cfs_lease *l, unsigned keep)
{
	if (!l->breaking || keep < l->keep)
		l->keep = (uint8_t)keep;
	l->breaking++;
}

void cfs_lease_break_end(struct cfs_leases *t, struct cfs_lease *l, unsigned keep, bool open)
{
	CFS_ASSERT(l->breaking);
	l->breaking--;
	cfs_lease_lower(t, l, keep, open);
}

void cfs_lease_drop_owner(struct cfs_leases *t, struct cfs_lease_owner *o)
{
	while (!cfs_list_empty(&o->leases))
		lease_free(t, cfs_list_first(&o->leases, struct cfs_lease, owner_link));
	CFS_ASSERT(!o->n);
}

void cfs_lease_note_break(struct cfs_leases *t, struct cfs_lease_obj *obj, uint64_t now_ns)
{
	if (now_ns - obj->window_ns >= CFS_STORM_WINDOW_NS || !obj->breaks) {
		obj->window_ns = now_ns;
		obj->breaks = 0;
	}
	if (++obj->breaks > CFS_STORM_BREAKS) {
		obj->storm_ns = now_ns + CFS_STORM_QUIET_NS;
		obj->breaks = 0;
	}
	/* the counters must survive the last holder's leaving, or nothing would ever be contended */
	if (cfs_list_empty(&obj->storm_link))
		cfs_list_add_tail(&t->storms, &obj->storm_link);
}

static void set_contended(struct cfs_lease_obj *obj, uint64_t now_ns)
{
	obj->through_ms = (uint32_t)(now_ns / CFS_NSEC_PER_MSEC) + CFS_CONTEND_QUIET_MS;
	obj->through_ms += !obj->through_ms;
}

void cfs_lease_note_writer(struct cfs_leases *t, struct cfs_lease_obj *obj, uint64_t session, uint64_t waited_ns,
			   uint64_t now_ns)
{
	uint32_t now_ms = (uint32_t)(now_ns / CFS_NSEC_PER_MSEC);
	uint64_t waits = waited_ns / (CFS_CONTEND_WAIT_MS * CFS_NSEC_PER_MSEC);
	bool first = !obj->writer;

	CFS_ASSERT(!obj->dir && session);
	if (obj->writer == session)
		return;
	obj->writer = session;
	if (first)
		return;
	if (cfs_lease_through(obj, now_ns)) {
		set_contended(obj, now_ns);
		return;
	}
	if (now_ms - obj->pass_ms >= CFS_CONTEND_WINDOW_MS || !obj->passes) {
		obj->pass_ms = now_ms;
		obj->passes = 0;
	}
	obj->passes += (uint8_t)(1 + cfs_min(waits, (uint64_t)CFS_CONTEND_PASSES));
	if (obj->passes > CFS_CONTEND_PASSES) {
		obj->through = false; /* attributes were granted since it was, if ever */
		set_contended(obj, now_ns);
		obj->passes = 0;
	}
	if (cfs_list_empty(&obj->storm_link))
		cfs_list_add_tail(&t->storms, &obj->storm_link);
}

void cfs_lease_through_begin(struct cfs_lease_obj *obj, uint64_t now_ns)
{
	CFS_ASSERT(!obj->dir && !obj->excl && cfs_lease_contended(obj, now_ns));
	CFS_ASSERT(!cfs_list_empty(&obj->storm_link)); /* it is not forgotten before that is over */
	obj->through = true;
}

void cfs_leases_sweep(struct cfs_leases *t, uint64_t now_ns)
{
	struct cfs_list *pos, *tmp;

	cfs_list_for_each_safe(pos, tmp, &t->storms) {
		struct cfs_lease_obj *obj = cfs_list_entry(pos, struct cfs_lease_obj, storm_link);

		if (obj->storm_ns > now_ns || now_ns - obj->window_ns < CFS_STORM_WINDOW_NS)
			continue;
		if (now_ns != UINT64_MAX && (cfs_lease_contended(obj, now_ns) ||
		    (obj->passes && (uint32_t)(now_ns / CFS_NSEC_PER_MSEC) - obj->pass_ms < CFS_CONTEND_WINDOW_MS)))
			continue;
		obj->through_ms = 0;
		obj->through = false;
		obj->passes = 0;
		cfs_list_del(&obj->storm_link);
		obj_put(t, obj);
	}
}

uint64_t cfs_leases_bytes(const struct cfs_leases *t)
{
	return t->obj_slab.used * t->obj_slab.size + t->lease_slab.used * t->lease_slab.size +
	       (t->objs.mask + t->leases.mask + 2) * sizeof(void *);
}
