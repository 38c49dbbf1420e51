/* SPDX-License-Identifier: MIT */
/*
 * jwrite.c - writing the records of a journal, and reusing its segments. See journal_i.h for the
 * state.
 *
 * Entries are copied into a ring buffer, as records laid out as on the device, and each record
 * is one durable write. Several are in flight; they complete in order. A record that opens a
 * segment carries the segment's header in the same write, so changing segments costs nothing.
 */
#include "server/store/journal_i.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/log.h"

#define FULL_RETRY_NS	(200 * CFS_NSEC_PER_MSEC)
#define FULL_WARN_NS	(10 * CFS_NSEC_PER_SEC)

static void release(struct cfs_journal *j);

static struct cfs_journal_append *append_of(struct cfs_jreq *r)
{
	return cfs_container_of((uint64_t *)(void *)r, struct cfs_journal_append, priv);
}

static struct cfs_journal_snapshot *snapshot_of(struct cfs_jreq *r)
{
	return cfs_container_of((uint64_t *)(void *)r, struct cfs_journal_snapshot, priv);
}

/* ---- completion ------------------------------------------------------------------------- */

static void call_done(struct cfs_jreq *r, int err)
{
	if (r->kind != CFS_JK_SNAPSHOT)
		append_of(r)->done(append_of(r), err);
	else
		snapshot_of(r)->done(snapshot_of(r), err);
}

static void run_done(struct cfs_defer *d)
{
	struct cfs_jreq *r = cfs_container_of(d, struct cfs_jreq, defer);

	call_done(r, r->err);
}

void cfs_jreq_finish_later(struct cfs_jreq *r, int err)
{
	if (r->kind == CFS_JK_SNAPSHOT && !r->refused)
		r->j->snap_busy = false;
	r->err = err;
	r->defer.fn = run_done;
	cfs_store_later(r->j->st, &r->defer);
}

/*
 * Nothing of what is queued can be written: each builds on the one before. The log is what it was
 * before the first of them; truncations that were asked for go with whatever comes next.
 */
static void fail_queue(struct cfs_journal *j, int err)
{
	bool first = true;

	while (!cfs_list_empty(&j->queue)) {
		struct cfs_jreq *r = cfs_list_first(&j->queue, struct cfs_jreq, node);

		cfs_list_del(&r->node);
		if (first)
			j->last_index = r->prev_last;
		if (r->kind == CFS_JK_AGAIN)
			cfs_journal_again_ended(j, err);
		if (r->trunc && (!j->trunc || r->trunc < j->trunc))
			j->trunc = r->trunc;
		first = false;
		cfs_jreq_finish_later(r, err);
	}
	if (j->trunc)
		j->last_index = cfs_min(j->last_index, j->trunc - 1);
}

static void snapshot_durable(struct cfs_journal *j, const struct cfs_journal_snapshot *s)
{
	uint8_t *tmp = j->manifest;

	j->manifest = j->manifest_next;
	j->manifest_next = tmp;
	j->snap_len = j->snap_next_len;
	j->snap_seg = j->snap_next_seg;
	j->snap_index = s->index;
	j->snap_term = s->term;
	j->have_snap = true;
	j->snap_busy = false;
	j->keep_from = s->index > s->trailing ? s->index - s->trailing + 1 : 1;
	release(j);
}

void cfs_journal_complete(struct cfs_journal *j)
{
	while (!cfs_list_empty(&j->flight)) {
		struct cfs_jrec *rec = cfs_list_first(&j->flight, struct cfs_jrec, node);
		struct cfs_jreq *r = rec->completes;

		if (!rec->done)
			break;
		cfs_list_del(&rec->node);
		j->ring_used -= rec->ring_bytes;
		cfs_list_add_tail(&j->rec_free, &rec->node);
		if (!j->failed)
			j->durable_seq = rec->seq;
		if (!j->failed && rec->resnap && rec->resnap == j->snap_index)
			j->snap_seg = rec->seg;
		if (!r)
			continue;
		if (r->kind == CFS_JK_SNAPSHOT && !j->failed)
			snapshot_durable(j, snapshot_of(r));
		else if (r->kind == CFS_JK_SNAPSHOT)
			j->snap_busy = false;
		else if (r->kind == CFS_JK_AGAIN)
			cfs_journal_again_ended(j, j->failed ? -EIO : 0);
		call_done(r, j->failed ? -EIO : 0);
	}
	cfs_journal_pump(j);
}

/*
 * A file system below that copies on write may have no room even for what was reserved. Nothing is wrong with the
 * journal then: the record is written again, to the same place, until there is room. What follows it waits.
 */
static bool wait_for_room(struct cfs_journal *j, struct cfs_jrec *rec)
{
	uint64_t now = cfs_clock_boot_ns(j->st->clock);

	if (rec->req.result != -ENOSPC || j->st->zoned || j->st->stopping || j->st->failed)
		return false;
	if (!j->full_warned_ns || now - j->full_warned_ns > FULL_WARN_NS) {
		j->full_warned_ns = now;
		cfs_warn("journal of group %u: no room for segment %u in the file system below: requests wait for it",
			 j->group, rec->seg);
	}
	rec->refused = true;
	if (!cfs_timer_armed(&j->retry))
		cfs_timer_set(j->st->clock, &j->retry, now + FULL_RETRY_NS);
	return true;
}

void cfs_journal_retry(struct cfs_timer *timer)
{
	struct cfs_journal *j = cfs_container_of(timer, struct cfs_journal, retry);
	struct cfs_list *l;

	cfs_list_for_each(l, &j->flight) {
		struct cfs_jrec *rec = cfs_list_entry(l, struct cfs_jrec, node);

		if (!rec->refused || j->broken || j->moving)
			continue;
		rec->refused = false;
		j->outstanding++;
		cfs_store_submit(j->st, &rec->req);
	}
}

static void written(struct cfs_dev_req *req)
{
	struct cfs_jrec *rec = cfs_container_of(req, struct cfs_jrec, req);
	struct cfs_journal *j = rec->j;

	cfs_store_submitted(j->st);
	j->outstanding--;
	if (!j->broken && wait_for_room(j, rec))
		return;
	rec->done = req->result >= 0;
	if (rec->done) {
		j->n_moves = 0;
	} else if (!j->broken) {
		cfs_err("journal of group %u: writing record %llu to segment %u failed: %s",
			j->group, (unsigned long long)rec->seq, rec->seg,
			strerror((int)-req->result));
		j->broken = true;
	}
	/* those that were sent before the failed one are in order: they end as if nothing had happened */
	cfs_journal_complete(j);
	if (j->broken)
		cfs_journal_move(j);
}

void cfs_journal_send(struct cfs_journal *j, struct cfs_jrec *rec, uint32_t block, uint32_t flags)
{
	rec->done = rec->refused = false;
	rec->req = (struct cfs_dev_req){
		.op = CFS_DEV_WRITE,
		.flags = CFS_DEV_DURABLE | flags,
		.offset = cfs_seg_off(j->st, rec->seg, block),
		.iov = &rec->iov,
		.iovcnt = 1,
		.len = rec->iov.iov_len,
		.done = written,
	};
	j->outstanding++;
	cfs_store_submit(j->st, &rec->req);
}

/* ---- records ---------------------------------------------------------------------------- */

int cfs_jseg_add(struct cfs_journal *j, uint32_t seg)
{
	if (j->n_segs == j->cap_segs) {
		uint32_t cap = j->cap_segs ? j->cap_segs * 2 : 8;
		struct cfs_jseg *p = realloc(j->segs, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		j->segs = p;
		j->cap_segs = cap;
	}
	j->segs[j->n_segs++] = (struct cfs_jseg){ .seg = seg, .first_index = UINT64_MAX };
	return 0;
}

/* the next segment: one that was a journal before, if there is one */
int cfs_journal_take_segment(struct cfs_journal *j, enum cfs_alloc who, uint64_t first_seq)
{
	struct cfs_store *st = j->st;
	uint32_t seg = 0;
	int rc;

	if (st->n_pool) {
		while (st->segs[seg].state != CFS_SS_POOL)
			seg++;
		rc = cfs_jseg_add(j, seg);
		if (rc)
			return rc;
		st->n_pool--;
		st->segs[seg].seq = st->next_seg_seq++;
		st->segs[seg].salt = st->clock->ops->random(st->clock);
	} else {
		if (!cfs_seg_available(st, who))
			return -ENOSPC;
		rc = cfs_jseg_add(j, UINT32_MAX);
		if (rc)
			return rc;
		rc = cfs_seg_alloc(st, who, &seg);
		CFS_ASSERT(!rc);
		j->segs[j->n_segs - 1].seg = seg;
	}
	st->segs[seg].state = CFS_SS_JOURNAL;
	st->segs[seg].owner = j->group;
	st->segs[seg].first_seq = first_seq;
	st->n_journal++;
	if (first_seq < j->next_seq && j->n_segs > 1) { /* records of the one before move here */
		j->segs[j->n_segs - 1].last_index = j->move_index;
		j->segs[j->n_segs - 1].first_index = j->segs[j->n_segs - 2].first_index;
	}
	if (st->zoned && j->n_segs > 1)
		cfs_zone_follow(st, seg, j->segs[j->n_segs - 2].seg);
	j->head = CFS_DISK_SEG_HDR_BLOCKS;
	return 0;
}

/* contiguous bytes of the ring, or NULL until some come back */
static uint8_t *ring_take(struct cfs_journal *j, uint32_t bytes, uint32_t *ret_total)
{
	uint32_t skip = j->ring_size - j->ring_head < bytes ? j->ring_size - j->ring_head : 0;
	uint8_t *p;

	CFS_ASSERT(bytes <= j->ring_size);
	if (!j->ring_used)
		j->ring_head = skip = 0;
	if (j->ring_used + skip + bytes > j->ring_size)
		return NULL;
	j->ring_head = skip ? 0 : j->ring_head;
	p = j->ring + j->ring_head;
	j->ring_head = (j->ring_head + bytes) % j->ring_size;
	j->ring_used += skip + bytes;
	*ret_total = skip + bytes;
	return p;
}

static uint32_t item_bytes(uint32_t len)
{
	return (uint32_t)(sizeof(struct cfs_disk_jitem) + cfs_align_up(len, 8));
}

static uint32_t rec_blocks(uint64_t body)
{
	return cfs_blocks_of(sizeof(struct cfs_disk_rec) + body);
}

/*
 * a place in segment and ring for a record with that body; -EAGAIN: the ring, or records, are
 * all in use
 */
static int begin_record(struct cfs_journal *j, enum cfs_alloc who, uint32_t body,
			struct cfs_jrec **ret_rec, struct cfs_disk_rec **ret_hdr)
{
	struct cfs_store *st = j->st;
	uint32_t blocks = rec_blocks(body), hdr_blocks = 0, total, old_head = j->ring_head;
	bool fresh = !j->n_segs || j->head + blocks > st->seg_blocks ||
		     st->segs[j->segs[j->n_segs - 1].seg].flags & CFS_SF_DEAD;
	struct cfs_jrec *rec;
	uint8_t *p;
	int rc;

	CFS_ASSERT(blocks * BLK <= j->rec_max);
	if (cfs_list_empty(&j->rec_free))
		return -EAGAIN;
	if (fresh)
		hdr_blocks = CFS_DISK_SEG_HDR_BLOCKS;
	p = ring_take(j, (hdr_blocks + blocks) * BLK, &total);
	if (!p)
		return -EAGAIN;
	if (fresh) {
		rc = cfs_journal_take_segment(j, who, j->next_seq);
		if (rc) {
			j->ring_used -= total; /* it was the last that was taken: give it back */
			j->ring_head = old_head;
			return rc;
		}
		cfs_seg_hdr_fill(st, j->segs[j->n_segs - 1].seg, CFS_SEG_JOURNAL, p);
	}
	rec = cfs_list_first(&j->rec_free, struct cfs_jrec, node);
	cfs_list_del(&rec->node);
	rec->j = j;
	rec->done = false;
	rec->completes = NULL;
	rec->resnap = 0;
	rec->ring_bytes = total;
	rec->seg = j->segs[j->n_segs - 1].seg;
	rec->iov = (struct iovec){ p, (size_t)(hdr_blocks + blocks) * BLK };
	rec->hdr = (void *)(p + (size_t)hdr_blocks * BLK);
	*ret_rec = rec;
	*ret_hdr = rec->hdr;
	return 0;
}

/* the body stands behind hdr: finish the header, and write */
static void send_record(struct cfs_journal *j, struct cfs_jrec *rec, struct cfs_disk_rec *hdr,
			enum cfs_rec_type type, uint32_t body)
{
	struct cfs_store *st = j->st;
	struct cfs_seg_id id = cfs_seg_ident(st, rec->seg);
	uint8_t *end = (uint8_t *)(hdr + 1) + body;
	uint32_t first = (uint8_t *)hdr == rec->iov.iov_base ? j->head : 0;
	uint64_t at = cfs_seg_off(st, rec->seg, first);
	/* in a zone only one that goes out alone: those that wait are to share a write */
	bool atomic = cfs_dev_can_atomic(&st->dev->info, at, rec->iov.iov_len) &&
		      (!st->zoned || cfs_list_empty(&j->flight));

	memset(end, 0, (size_t)((uint8_t *)rec->iov.iov_base + rec->iov.iov_len - end));
	cfs_rec_init(hdr, type, &id, j->head, sizeof(*hdr), body);
	rec->seq = j->next_seq++;
	hdr->owner = cfs_cpu_to_le32(j->group);
	hdr->seq = cfs_cpu_to_le64(rec->seq);
	hdr->durable = cfs_cpu_to_le64(j->durable_seq);
	hdr->epoch = cfs_cpu_to_le64(st->epoch);
	hdr->body_crc = cfs_cpu_to_le32(cfs_crc32c(0, hdr + 1, body));
	hdr->type |= atomic ? CFS_RECF_ATOMIC : 0;
	cfs_rec_seal(hdr);
	j->head += cfs_le32_to_cpu(hdr->blocks);
	j->bytes += rec->iov.iov_len;
	j->marked = false;
	cfs_journal_forget_found(j);
	cfs_list_add_tail(&j->flight, &rec->node);
	st->bytes_journal += rec->iov.iov_len;
	st->atomic_records += atomic;
	cfs_journal_send(j, rec, first, atomic ? CFS_DEV_ATOMIC : 0);
	if (j->head > st->seg_blocks / 2)
		cfs_pool_want(st);
}

static uint8_t *put_item(uint8_t *p, enum cfs_jitem_type type, const struct cfs_journal_entry *e)
{
	struct cfs_disk_jitem it = {
		.index = cfs_cpu_to_le64(e->index),
		.term = cfs_cpu_to_le64(e->term),
		.kind = cfs_cpu_to_le32(e->kind),
		.len = cfs_cpu_to_le32(e->len),
		.type = cfs_cpu_to_le32(type),
	};
	uint32_t pad = item_bytes(e->len) - (uint32_t)sizeof(it) - e->len;

	memcpy(p, &it, sizeof(it));
	if (e->len)
		memcpy(p + sizeof(it), e->data, e->len);
	memset(p + sizeof(it) + e->len, 0, pad);
	return p + item_bytes(e->len);
}

/* will everything the request still has to write find segments? Asked before its first byte */
static bool space_for(const struct cfs_journal *j, enum cfs_alloc who, uint64_t bytes)
{
	const struct cfs_store *st = j->st;
	uint64_t room = j->n_segs ? (uint64_t)(st->seg_blocks - j->head) * BLK : 0, per_seg, segs;

	if (bytes <= room)
		return true;
	/* a record may leave as much unused at a segment's end as the largest one needs */
	per_seg = (uint64_t)(st->seg_blocks - CFS_DISK_SEG_HDR_BLOCKS) * BLK;
	segs = bytes <= cfs_min(per_seg, (uint64_t)j->rec_max) ?
		       1 :
		       1 + 2 * ((bytes + per_seg - 1) / per_seg);
	return st->n_pool + cfs_seg_available(st, who) >= segs;
}

/*
 * one record of an append: as many entries as go in. A segment's end is left unused rather than
 * cut in two
 */
static int stage_append(struct cfs_journal *j, struct cfs_jreq *r)
{
	struct cfs_journal_append *a = append_of(r);
	const uint32_t max = j->rec_max - (uint32_t)sizeof(struct cfs_disk_rec);
	const struct cfs_journal_entry trunc = { .index = r->trunc };
	bool again = r->kind == CFS_JK_AGAIN;
	uint32_t body = r->trunc ? item_bytes(0) : 0, n = 0;
	struct cfs_disk_rec *hdr;
	struct cfs_jrec *rec;
	struct cfs_jseg *js;
	uint8_t *p;
	int rc;

	if (!r->begun) {
		uint64_t all = sizeof(*hdr) + body + BLK;

		for (uint32_t i = 0; i < a->n; i++)
			all += item_bytes(a->entries[i].len);
		if (!space_for(j, CFS_ALLOC_JOURNAL, all))
			return -ENOSPC;
	}
	while (r->pos + n < a->n && body + item_bytes(a->entries[r->pos + n].len) <= max)
		body += item_bytes(a->entries[r->pos + n++].len);
	CFS_ASSERT(n || again);
	rc = begin_record(j, CFS_ALLOC_JOURNAL, body, &rec, &hdr);
	if (rc)
		return rc;
	p = (uint8_t *)(hdr + 1);
	if (r->trunc)
		p = put_item(p, CFS_JITEM_TRUNCATE, &trunc);
	for (uint32_t i = 0; i < n; i++)
		p = put_item(p, again ? CFS_JITEM_AGAIN : CFS_JITEM_ENTRY, &a->entries[r->pos + i]);
	r->trunc = 0;
	r->begun = true;
	r->pos += n;
	if (!n) { /* only where the log ends */
		rec->completes = r;
		cfs_list_del(&r->node);
		send_record(j, rec, hdr, CFS_REC_JOURNAL, body);
		return 0;
	}
	js = &j->segs[j->n_segs - 1];
	js->first_index = cfs_min(js->first_index, a->entries[r->pos - n].index);
	js->last_index = cfs_max(js->last_index, a->entries[r->pos - 1].index);
	if (r->pos == a->n) {
		rec->completes = r;
		cfs_list_del(&r->node);
	}
	send_record(j, rec, hdr, CFS_REC_JOURNAL, body);
	return 0;
}

static int stage_snapshot(struct cfs_journal *j, struct cfs_jreq *r)
{
	struct cfs_journal_snapshot *s = snapshot_of(r);
	struct cfs_disk_jsnap snap = {
		.index = cfs_cpu_to_le64(s->index),
		.term = cfs_cpu_to_le64(s->term),
		.trailing = cfs_cpu_to_le32(s->trailing),
		.manifest_len = cfs_cpu_to_le32(j->snap_next_len),
	};
	uint32_t body = (uint32_t)sizeof(snap) + j->snap_next_len;
	struct cfs_disk_rec *hdr;
	struct cfs_jrec *rec;
	int rc;

	if (!r->begun && !space_for(j, CFS_ALLOC_SNAPSHOT, body + 3 * BLK))
		return -ENOSPC;
	if (r->trunc) { /* a record of its own before it */
		const struct cfs_journal_entry trunc = { .index = r->trunc };

		rc = begin_record(j, CFS_ALLOC_SNAPSHOT, item_bytes(0), &rec, &hdr);
		if (rc)
			return rc;
		put_item((uint8_t *)(hdr + 1), CFS_JITEM_TRUNCATE, &trunc);
		send_record(j, rec, hdr, CFS_REC_JOURNAL, item_bytes(0));
		r->trunc = 0;
		r->begun = true;
	}
	rc = begin_record(j, CFS_ALLOC_SNAPSHOT, body, &rec, &hdr);
	if (rc)
		return rc;
	memcpy(hdr + 1, &snap, sizeof(snap));
	memcpy((uint8_t *)(hdr + 1) + sizeof(snap), j->manifest_next, j->snap_next_len);
	r->begun = true;
	rec->completes = r;
	cfs_list_del(&r->node);
	j->snap_next_seg = rec->seg;
	send_record(j, rec, hdr, CFS_REC_SNAPSHOT, body);
	j->bytes_at_snap = j->bytes;
	return 0;
}

/* the last snapshot, as it was, and then the entries */
static int stage_again(struct cfs_journal *j, struct cfs_jreq *r)
{
	struct cfs_disk_jsnap snap = {
		.index = cfs_cpu_to_le64(j->snap_index),
		.term = cfs_cpu_to_le64(j->snap_term),
		.trailing = cfs_cpu_to_le32((uint32_t)(j->snap_index + 1 - j->keep_from)),
		.manifest_len = cfs_cpu_to_le32(j->snap_len),
	};
	uint32_t body = (uint32_t)sizeof(snap) + j->snap_len;
	struct cfs_disk_rec *hdr;
	struct cfs_jrec *rec;
	int rc;

	if (!r->resnap)
		return stage_append(j, r);
	if (!space_for(j, CFS_ALLOC_SNAPSHOT, body + 3 * BLK))
		return -ENOSPC;
	rc = begin_record(j, CFS_ALLOC_SNAPSHOT, body, &rec, &hdr);
	if (rc)
		return rc;
	memcpy(hdr + 1, &snap, sizeof(snap));
	memcpy((uint8_t *)(hdr + 1) + sizeof(snap), j->manifest, j->snap_len);
	rec->resnap = j->snap_index;
	r->resnap = false;
	send_record(j, rec, hdr, CFS_REC_SNAPSHOT, body);
	return 0;
}

void cfs_journal_pump(struct cfs_journal *j)
{
	while (!cfs_list_empty(&j->queue) && !j->broken && !j->moving) {
		struct cfs_jreq *r = cfs_list_first(&j->queue, struct cfs_jreq, node);
		int rc;

		if (j->failed || j->st->failed) {
			fail_queue(j, -EIO);
			return;
		}
		rc = r->kind == CFS_JK_APPEND ? stage_append(j, r) :
		     r->kind == CFS_JK_AGAIN  ? stage_again(j, r) :
						stage_snapshot(j, r);
		if (rc == -EAGAIN) {
			CFS_ASSERT(!cfs_list_empty(&j->flight));
			return;
		}
		if (rc) {
			/*
			 * half of it may be on the device already, unacknowledged: then nothing
			 * may follow
			 */
			j->failed = j->failed || (r->begun && r->kind != CFS_JK_AGAIN);
			fail_queue(j, rc);
			return;
		}
	}
}

void cfs_journal_pump_all(struct cfs_store *st)
{
	struct cfs_list *l;

	cfs_list_for_each(l, &st->journals)
		cfs_journal_pump(cfs_list_entry(l, struct cfs_journal, node));
}

/* ---- reuse ------------------------------------------------------------------------------ */

static void released(struct cfs_seg_io *io, int err)
{
	struct cfs_journal *j = cfs_container_of(io, struct cfs_journal, hdr);
	struct cfs_store *st = j->st;
	struct cfs_seg *s = &st->segs[io->seg];

	j->releasing = false;
	if (err)
		return; /* tried again after the next snapshot */
	st->n_journal--;
	s->flags &= (uint16_t)~CFS_SF_LOST; /* such a one is retired now */
	if (j->before_gap && !--j->before_gap)
		cfs_zones_explain(st);
	memmove(j->segs, j->segs + 1, --j->n_segs * sizeof(*j->segs));
	s->owner = 0;
	s->first_seq = 0;
	if (!st->zoned && st->n_pool < CFS_POOL_MAX) {
		s->state = CFS_SS_POOL;
		st->n_pool++;
	} else {
		s->state = CFS_SS_FREE;
		cfs_seg_release(st, io->seg);
		cfs_store_kick(st);
	}
	release(j);
}

/*
 * segments that hold nothing but dropped entries, oldest first, one after the other: no gap,
 * ever
 */
static void release(struct cfs_journal *j)
{
	struct cfs_store *st = j->st;

	if (j->releasing || j->closing || st->stopping || !j->have_snap || j->n_segs < 2 ||
	    j->segs[0].last_index >= j->keep_from || j->segs[0].seg == j->snap_seg)
		return;
	j->releasing = true;
	if (!st->zoned)
		st->segs[j->segs[0].seg].flags |= CFS_SF_FILLED;
	cfs_seg_hdr_write(st, &j->hdr, j->segs[0].seg,
			  st->n_pool < CFS_POOL_MAX ? CFS_SEG_POOL : CFS_SEG_FREE, released);
}
