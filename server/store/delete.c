/* SPDX-License-Identifier: MIT */
/*
 * delete.c - deleting objects. Tombstones of all requests that wait are written together, one
 * record at a time; an object leaves the index when its tombstone is durable. State: st->tomber.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "server/store/store_i.h"

struct dpriv {
	struct cfs_list q;
	struct cfs_defer defer;
	uint32_t pos; /* oids looked at */
	int err;
	bool staged; /* has tombstones in the record under way */
} __attribute__((may_alias));
_Static_assert(sizeof(struct dpriv) <= sizeof(((struct cfs_store_delete *)0)->priv), "dpriv");

#define TOMBS_MAX \
	((uint32_t)((CFS_TOMB_BYTES - sizeof(struct cfs_disk_rec)) / sizeof(struct cfs_disk_ent)))

static struct cfs_store_delete *d_of(struct dpriv *p)
{
	return cfs_container_of((uint64_t *)(void *)p, struct cfs_store_delete, priv);
}

int cfs_delete_init(struct cfs_store *st)
{
	cfs_list_init(&st->tomber.queue);
	st->tomber.buf = cfs_aligned_alloc(CFS_TOMB_BYTES);
	return st->tomber.buf ? 0 : -ENOMEM;
}

void cfs_delete_exit(struct cfs_store *st)
{
	free(st->tomber.buf);
}

static void run_done(struct cfs_defer *defer)
{
	struct dpriv *p = cfs_container_of(defer, struct dpriv, defer);

	d_of(p)->done(d_of(p), p->err);
}

static void finish(struct cfs_store *st, struct dpriv *p, int err)
{
	cfs_list_del(&p->q);
	p->err = err;
	p->defer.fn = run_done;
	cfs_store_later(st, &p->defer);
}

/* requests whose oids have all been dealt with */
static void finish_complete(struct cfs_store *st, int err)
{
	struct cfs_list *l, *tmp;

	cfs_list_for_each_safe(l, tmp, &st->tomber.queue) {
		struct dpriv *p = cfs_list_entry(l, struct dpriv, q);

		if (p->staged && err)
			finish(st, p, err);
		else if (p->pos == d_of(p)->n)
			finish(st, p, 0);
		else
			p->staged = false;
	}
}

static void landed(struct cfs_batch *b, int err)
{
	struct cfs_store *st = b->st;
	struct cfs_tomber *t = &st->tomber;
	const struct cfs_disk_ent *ents = cfs_rec_body(t->buf);

	for (uint32_t i = 0; i < t->n && !err; i++) {
		struct cfs_loc loc;

		cfs_oseg_add_ent(b->os, &ents[i]);
		cfs_tomb_add(st, b->os->seg, &ents[i]);
		/* the same object may have been named twice */
		if (cfs_index_get(st->index, &ents[i].oid, &loc) &&
		    loc.seg == cfs_le32_to_cpu(ents[i].segment) &&
		    loc.block == cfs_le32_to_cpu(ents[i].block))
			cfs_object_forget(st, &ents[i].oid, &loc);
	}
	if (!err)
		cfs_patience_moved(&st->no_room, cfs_clock_boot_ns(st->clock));
	finish_complete(st, err);
	t->busy = false;
	/* the cleaner first: it may have waited for this record */
	cfs_clean_kick(st);
	cfs_delete_pump(st);
}

static void stage(struct cfs_store *st)
{
	struct cfs_tomber *t = &st->tomber;
	struct cfs_disk_ent *ents = (void *)((struct cfs_disk_rec *)t->buf + 1);
	struct cfs_list *l;

	t->n = 0;
	cfs_list_for_each(l, &t->queue) {
		struct dpriv *p = cfs_list_entry(l, struct dpriv, q);
		struct cfs_store_delete *d = d_of(p);

		for (; p->pos < d->n; p->pos++) {
			struct cfs_loc loc;

			if (t->n == TOMBS_MAX)
				return;
			if (!cfs_index_get(st->index, &d->oids[p->pos], &loc)) {
				cfs_cut_forget(st, &d->oids[p->pos]);
				continue;
			}
			/* just being moved: its new place is what must be named */
			if (st->cleaner.copying && loc.seg == st->cleaner.victim)
				return;
			ents[t->n++] = (struct cfs_disk_ent){
				.oid = d->oids[p->pos],
				.seq = cfs_cpu_to_le64(st->segs[loc.seg].seq),
				.segment = cfs_cpu_to_le32(loc.seg),
				.block = cfs_cpu_to_le32(loc.block),
				.type = CFS_ENT_TOMB,
			};
			p->staged = true;
		}
	}
}

/* undo stage(): nothing has been sent */
static void unstage(struct cfs_store *st)
{
	struct cfs_list *l;

	cfs_list_for_each(l, &st->tomber.queue) {
		struct dpriv *p = cfs_list_entry(l, struct dpriv, q);

		if (p->staged)
			p->pos = 0;
		p->staged = false;
	}
}

void cfs_delete_pump(struct cfs_store *st)
{
	struct cfs_tomber *t = &st->tomber;
	struct cfs_batch *b = &t->batch;
	struct cfs_disk_rec *rec = t->buf;
	struct cfs_seg_id id;
	struct cfs_oseg *os;
	uint32_t bytes;
	int rc;

	if (t->busy || cfs_list_empty(&t->queue))
		return;
	stage(st);
	if (!t->n) {
		finish_complete(st, 0);
		return;
	}
	bytes = t->n * (uint32_t)sizeof(struct cfs_disk_ent);
	t->busy = true; /* cfs_oseg_get() may come back here */
	rc = st->failed ? -EIO :
			  cfs_oseg_get(st, CFS_OS_USER, CFS_ALLOC_TOMB,
				       cfs_blocks_of(sizeof(*rec) + bytes), t->n, &os);
	if (rc == -EAGAIN || (rc == -ENOSPC && cfs_clean_can_gain(st))) {
		t->busy = false;
		unstage(st);
		if (rc == -ENOSPC)
			cfs_clean_kick(st);
		return;
	}
	if (rc) {
		t->busy = false;
		finish_complete(st, rc);
		return;
	}
	id = cfs_seg_ident(st, os->seg);
	memset(rec, 0, sizeof(*rec));
	memset((char *)(rec + 1) + bytes, 0,
	       cfs_align_up(sizeof(*rec) + bytes, BLK) - sizeof(*rec) - bytes);
	cfs_rec_init(rec, CFS_REC_TOMB, &id, os->head, sizeof(*rec), bytes);
	rec->seq = cfs_cpu_to_le64(st->next_rec_seq++);
	rec->durable = cfs_cpu_to_le64(cfs_oseg_durable(os));
	rec->epoch = cfs_cpu_to_le64(st->epoch);
	rec->body_crc = cfs_cpu_to_le32(cfs_crc32c(0, rec + 1, bytes));
	cfs_rec_seal(rec);
	b->os = os;
	b->blocks = cfs_le32_to_cpu(rec->blocks);
	b->iov[0] = (struct iovec){ rec, (size_t)b->blocks * BLK };
	b->iovcnt = 1;
	b->n_ents = t->n;
	b->landed = landed;
	cfs_batch_submit(b, !st->w_inflight);
}

void cfs_store_delete(struct cfs_store *st, struct cfs_store_delete *d)
{
	struct dpriv *p = (struct dpriv *)(void *)d->priv;

	memset(p, 0, sizeof(*p));
	cfs_list_add_tail(&st->tomber.queue, &p->q);
	if (st->failed || st->stopping)
		finish(st, p, st->failed ? -EIO : -ESHUTDOWN);
	else
		cfs_delete_pump(st);
}
