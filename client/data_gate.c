/* SPDX-License-Identifier: MIT */
/*
 * data_gate.c - an inode that the kernel reads and writes by itself, through a gate over its cache file (gates.h,
 * bpf/kmod/claudefs_gate.h). What a gate lets through needs the same lease as any read or write here; the invariant is in data_i.h.
 *
 *   shut -> READ, WRITE    somebody waits: the lease is had, what is missing of the file is fetched (cfs_data_gate_event)
 *   READ, WRITE -> shut    recall, loss, truncation, eviction: by whoever does it, before
 *
 * What the kernel wrote is known only when the gate is asked. It is asked by everything that wants to know what is dirty, how long the
 * file is, or when it was changed; and before flush_ms are over, as the gate tells of the first byte.
 */
#include "client/data_i.h"

#include "base/log.h"
#include "bpf/kmod/claudefs_gate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BUDGET_DIV	4u	/* of dirty_bytes: what one file's writers may be ahead of us */

#define SIZE_DIV	4u	/* of cache_bytes: larger files would take all of it */

struct cfs_data_gate {
	int fd;
	int32_t id;		/* as the kernel's FUSE knows it */
	uint8_t mode;		/* enum cfs_gate_mode */
	uint64_t sync;		/* see CFS_GATE_SYNCED */
};

/* ---- what was written ------------------------------------------------------------------------- */
static void note(struct cfs_data *d, const struct cfs_gate_taken *t)
{
	struct cfs_time mtime = { .sec = cfs_cpu_to_le64(t->mtime / 1000000000u),
				  .nsec = cfs_cpu_to_le32((uint32_t)(t->mtime % 1000000000u)) };

	d->gate->sync = t->sync;
	if (!t->n)
		return;
	CFS_ASSERT(d->lease == CFS_LEASE_EXCL);
	if (t->size > d->size) {
		/* a gap before what was written is zeros in the cache file, too */
		cfs_data_valid_add(d, d->size, t->size);
		d->size = t->size;
	}
	for (uint32_t i = 0; i < t->n; i++)
		if (t->range[i].off < d->size)	/* else the rest of a page behind the end */
			cfs_data_dirty_add(d, t->range[i].off, cfs_min(t->range[i].end, d->size));
	d->mtime = d->ctime = mtime;
	d->times_known = true;
	d->meta_dirty = true;
	d->kill_priv |= t->kill;
	d->kill_pending |= t->kill;
	cfs_data_mark_dirty(d);
	if (t->kill)	/* the kernel may still believe in suid */
		cfs_data_inval_later(d, 0, d->g->page_bytes);
}

static void ask(struct cfs_data *d, unsigned long how)
{
	struct cfs_gate_taken t;
	int rc = d->g->p.gates->ask(d->gate->fd, how, &t);

	/* a gate is ours until we close it: there is no reason why this could fail, and no way to go on */
	if (rc) {
		cfs_err("inode %" PRIx64 ": its gate does not answer: %s", d->ino, strerror(-rc));
		abort();
	}
	note(d, &t);
}

bool cfs_data_gate_is_open(const struct cfs_data *d)
{
	return d->gate && d->gate->mode != CFS_GATE_SHUT;
}

void cfs_data_gate_shut(struct cfs_data *d)
{
	if (!cfs_data_gate_is_open(d))
		return;
	ask(d, CFS_GATE_CLOSE);
	d->gate->mode = CFS_GATE_SHUT;
	stat_add(d->g, gate_shuts, 1);
}

void cfs_data_gate_take(struct cfs_data *d)
{
	if (d->gate && d->gate->mode == CFS_GATE_WRITE)
		ask(d, CFS_GATE_TAKE);
}

/* ---- opening ------------------------------------------------------------------------------------- */
/* nobody is about to take away what the gate would stand on */
static bool may_open(const struct cfs_data *d, unsigned lease)
{
	return d->gate && !d->lowering && !d->truncating && !d->drop_later && d->lease >= lease;
}

/* lock held. 0; -EAGAIN: look again; or -errno */
static int open_gate(struct cfs_data *d, unsigned lease)
{
	struct cfs_gate_open o = { .mode = lease == CFS_LEASE_EXCL ? CFS_GATE_WRITE : CFS_GATE_READ,
				   .budget = d->g->p.dirty_bytes / BUDGET_DIV };
	int rc = 0;

	if (d->gate->mode < o.mode || d->gate->mode == CFS_GATE_SHUT) {
		rc = cfs_data_complete(d);
		/* what was there when we began may have been evicted, or dropped, while we fetched the rest */
		if (!rc && (!may_open(d, lease) || !cfs_rangeset_covers(&d->valid, 0, d->size)))
			rc = -EAGAIN;
		if (!rc && d->gate->mode == CFS_GATE_SHUT)
			rc = d->size <= CFS_CACHE_FAR ? cfs_cachefile_resize(&d->cf, d->size) : -EFBIG;
	}
	if (rc)
		return rc;
	o.mode = cfs_max(o.mode, (uint32_t)d->gate->mode);
	/* also if it is open already: who waits for a deadline, or for its budget, is woken */
	rc = d->g->p.gates->ask(d->gate->fd, CFS_GATE_OPEN, &o);
	if (rc)
		return rc;
	d->gate->mode = (uint8_t)o.mode;
	stat_add(d->g, gate_opens, 1);
	return 0;
}

/* somebody waits at the gate, and holds nothing that we need. Lock held, dropped meanwhile */
static void serve(struct cfs_data *d, unsigned lease)
{
	int rc = -EAGAIN;

	stat_add(d->g, gate_wants, 1);
	cfs_data_use(d);
	while (rc == -EAGAIN && d->gate) {
		while (d->recalling || d->truncating || d->drop_later)
			pthread_cond_wait(&d->cond, &d->lock);
		rc = cfs_data_want(d, lease, 0, UINT64_MAX, 0, NULL);
		if (!rc && !may_open(d, lease))
			rc = -EAGAIN;
		if (rc)
			continue;
		/* a recall may have come with the grant: it waits for a moment, the longer the oftener it was too short */
		d->filling = true;
		rc = open_gate(d, lease);
		d->filling = false;
		d->lost_grants = rc == -EAGAIN ? d->lost_grants + 1 : 0;
		pthread_cond_broadcast(&d->cond);
	}
	if (rc && d->gate) {
		cfs_debug("inode %" PRIx64 ": its gate cannot be opened: %s", d->ino, strerror(-rc));
		d->g->p.gates->ask(d->gate->fd, CFS_GATE_FAIL, &(int32_t){ rc });
	}
}

void cfs_data_gate_event(struct cfs_data *d, unsigned what)
{
	struct cfs_gate_synced synced = { .sync = 0 };

	pthread_mutex_lock(&d->lock);
	if (d->gate && what & CFS_GATE_WRITTEN)
		cfs_data_mark_dirty(d);		/* the flusher will ask what it is */
	if (d->gate && what & (CFS_GATE_WANT_READ | CFS_GATE_WANT_WRITE)) {
		if (d->gate->mode == CFS_GATE_WRITE)
			cfs_data_gate_take(d);	/* perhaps it waits for the budget */
		serve(d, what & CFS_GATE_WANT_WRITE ? CFS_LEASE_EXCL : CFS_LEASE_SHARED);
	}
	if (d->gate && what & CFS_GATE_SYNC) {
		cfs_data_gate_take(d);
		synced.sync = d->gate->sync;
	}
	pthread_mutex_unlock(&d->lock);
	/* stores do not tell the kernel that the times have changed */
	if (what & CFS_GATE_WRITTEN && d->g->p.inval_pages)
		d->g->p.inval_pages(d->g->p.arg, d->ino, -1, 0);
	if (!synced.sync)
		return;
	synced.err = cfs_data_fsync(d);
	pthread_mutex_lock(&d->lock);
	if (d->gate)
		d->g->p.gates->ask(d->gate->fd, CFS_GATE_SYNCED, &synced);
	pthread_mutex_unlock(&d->lock);
}

/* ---- the life of a gate ----------------------------------------------------------------------------- */
static int make(struct cfs_data *d)
{
	const struct cfs_data_params *p = &d->g->p;
	struct cfs_data_gate *gate = calloc(1, sizeof(*gate));
	int rc;

	if (!gate)
		return -ENOMEM;
	rc = cfs_cachefile_keep(&d->g->store, &d->cf);
	if (rc)
		goto fail;
	rc = p->gates->make(p->arg, d->cf.fd, d->ino, &gate->fd, &gate->id);
	if (rc)
		goto fail_file;
	d->gate = gate;
	return 0;
fail_file:
	cfs_cachefile_let_go(&d->g->store, &d->cf);
fail:
	free(gate);
	return rc;
}

int32_t cfs_data_gate_begin(struct cfs_data *d, int flags, const struct cfs_attr *attr)
{
	const struct cfs_data_params *p = &d->g->p;
	int32_t id = 0;
	int rc = 0;

	pthread_mutex_lock(&d->lock);
	if (!d->gate && p->gates && !d->pass && !d->gone && d->lease != CFS_LEASE_NONE && !cfs_data_contended(d) &&
	    d->size <= p->cache_bytes / SIZE_DIV &&
	    p->gates->fits(p->arg, flags, attr, d->size, d->heat, cfs_rangeset_covers(&d->valid, 0, d->size)))
		rc = make(d);
	if (rc)
		cfs_debug("inode %" PRIx64 ": cannot be passed through: %s", d->ino, strerror(-rc));
	if (d->gate)
		id = d->gate->id;
	pthread_mutex_unlock(&d->lock);
	return id;
}

int32_t cfs_data_gate_id(struct cfs_data *d)
{
	int32_t id;

	pthread_mutex_lock(&d->lock);
	id = d->gate ? d->gate->id : 0;
	pthread_mutex_unlock(&d->lock);
	return id;
}

bool cfs_data_gate_mapped(struct cfs_data *d)
{
	uint32_t n = 0;

	pthread_mutex_lock(&d->lock);
	if (d->gate && d->g->p.gates->ask(d->gate->fd, CFS_GATE_MAPPINGS, &n))
		n = 0;
	pthread_mutex_unlock(&d->lock);
	return n;
}

void cfs_data_gate_free(struct cfs_data *d)
{
	struct cfs_data_gate *gate = d->gate;

	if (!gate)
		return;
	cfs_data_gate_shut(d);
	d->gate = NULL;
	d->g->p.gates->unmake(d->g->p.arg, gate->fd, gate->id);
	free(gate);
	cfs_cachefile_let_go(&d->g->store, &d->cf);
}

void cfs_data_gate_end(struct cfs_data *d)
{
	pthread_mutex_lock(&d->lock);
	cfs_data_gate_free(d);
	pthread_mutex_unlock(&d->lock);
}
