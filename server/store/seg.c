/* SPDX-License-Identifier: MIT */
/*
 * seg.c - the segment table: who gets a free segment, headers, live and dead space, tombstone
 * homes; and the two ways into the future: deferred calls and device requests. State: st->segs,
 * st->later.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "server/store/store_i.h"

/* ---- deferred calls, device requests ---------------------------------------------------- */

static void arm_later(struct cfs_store *st)
{
	if (!cfs_timer_armed(&st->later_timer))
		cfs_timer_set(st->clock, &st->later_timer, cfs_clock_boot_ns(st->clock));
}

void cfs_store_later(struct cfs_store *st, struct cfs_defer *d)
{
	cfs_list_add_tail(&st->later, &d->node);
	arm_later(st);
}

void cfs_store_later_run(struct cfs_timer *timer)
{
	struct cfs_store *st = cfs_container_of(timer, struct cfs_store, later_timer);
	struct cfs_list now;

	/* what is deferred meanwhile waits for the next turn */
	cfs_list_init(&now);
	if (!cfs_list_empty(&st->later)) {
		cfs_list_add_tail(&st->later, &now);
		cfs_list_del(&st->later);
	}
	while (!cfs_list_empty(&now)) {
		struct cfs_defer *d = cfs_list_first(&now, struct cfs_defer, node);

		cfs_list_del(&d->node);
		d->fn(d);
	}
	if (!cfs_list_empty(&st->later)) {
		arm_later(st);
	} else if (st->stopped && !st->inflight) {
		void (*fn)(void *arg) = st->stopped;

		st->stopped = NULL;
		fn(st->stopped_arg);
	}
}

/* a request that never reached the device: its priv is not the device's */
static void rejected(struct cfs_defer *d)
{
	struct cfs_dev_req *req = cfs_container_of((uint64_t *)(void *)d, struct cfs_dev_req, priv);

	req->done(req);
}

static void end_later(struct cfs_store *st, struct cfs_dev_req *req, int result)
{
	struct cfs_defer *d = (struct cfs_defer *)(void *)req->priv;

	_Static_assert(sizeof(*d) <= sizeof(req->priv), "cfs_defer fits");
	req->result = result;
	*d = (struct cfs_defer){ .fn = rejected };
	cfs_store_later(st, d);
}

void cfs_store_submit(struct cfs_store *st, struct cfs_dev_req *req)
{
	int rc;

	st->inflight++;
	if (req->op == CFS_DEV_WRITE)
		st->bytes_total += req->len;
	if (st->zoned && (req->op == CFS_DEV_WRITE || req->op == CFS_DEV_ZONE_RESET)) {
		cfs_zone_submit(st, req);
		return;
	}
	rc = cfs_dev_submit(st->dev, req);
	if (rc)
		end_later(st, req, rc);
}

void cfs_store_submitted(struct cfs_store *st)
{
	CFS_ASSERT(st->inflight);
	if (!--st->inflight && st->stopped)
		arm_later(st);
}

void cfs_store_kick(struct cfs_store *st)
{
	cfs_delete_pump(st);
	cfs_write_pump(st);
	cfs_journal_pump_all(st);
	cfs_clean_kick(st);
}

/* ---- space ------------------------------------------------------------------------------ */

uint32_t cfs_seg_available(const struct cfs_store *st, enum cfs_alloc who)
{
	static const uint32_t keep[] = { [CFS_ALLOC_JOURNAL] = 3,
					 [CFS_ALLOC_TOMB] = 2,
					 [CFS_ALLOC_SNAPSHOT] = 1,
					 [CFS_ALLOC_CLEAN] = 0 };
	uint32_t left = who == CFS_ALLOC_FILL ? st->reserve + 1 :
			who == CFS_ALLOC_USER ? st->reserve :
						keep[who];

	uint32_t n = st->n_free;

	if (st->below.on && (who <= CFS_ALLOC_USER || st->below.lacking))
		n = st->below.n_backed;
	return n > left ? n - left : 0;
}

static bool seg_usable(const struct cfs_seg *s, bool backed)
{
	return s->state == CFS_SS_FREE && (!backed || s->flags & CFS_SF_BACKED);
}

int cfs_seg_alloc(struct cfs_store *st, enum cfs_alloc who, uint32_t *ret_seg)
{
	bool backed = st->below.n_backed;
	uint32_t found = UINT32_MAX;
	struct cfs_seg *s;

	if (!cfs_seg_available(st, who))
		return -ENOSPC;
	/* one that was written before costs a file system least */
	for (uint32_t i = 0; i < st->n_segs; i++) {
		uint32_t k = (st->alloc_hint + i) % st->n_segs;

		if (!seg_usable(&st->segs[k], backed))
			continue;
		if (found == UINT32_MAX)
			found = k;
		if (st->segs[k].flags & CFS_SF_FILLED) {
			found = k;
			break;
		}
	}
	CFS_ASSERT(found != UINT32_MAX);
	s = &st->segs[found];
	CFS_ASSERT(!s->live && !s->readers && !s->n_homes);
	st->n_free--;
	st->below.n_backed -= backed;
	st->alloc_hint = found;
	s->state = CFS_SS_BUSY;
	s->seq = st->next_seg_seq++;
	s->salt = st->clock->ops->random(st->clock);
	s->owner = 0;
	s->first_seq = 0;
	s->after = 0;
	cfs_below_kick(st);
	*ret_seg = found;
	return 0;
}

uint32_t cfs_seg_dead(const struct cfs_store *st, const struct cfs_seg *s)
{
	/* a tombstone costs its own bytes and a line in the summary, wherever it lives */
	uint64_t kept =
		s->live + cfs_blocks_of((uint64_t)s->tombs * 2 * sizeof(struct cfs_disk_ent));

	(void)st;
	return s->used > kept ? s->used - (uint32_t)kept : 0;
}

/* what cleaning would give back: less than a sixteenth is not worth the copying */
static uint32_t seg_reclaim(const struct cfs_store *st, const struct cfs_seg *s)
{
	uint32_t dead = s->state == CFS_SS_SEALED && cfs_seg_listed(s) && !cfs_seg_kept(s) ?
				cfs_seg_dead(st, s) :
				0;

	return dead >= st->seg_blocks / 16 ? dead : 0;
}

void cfs_seg_live(struct cfs_store *st, uint32_t seg, int64_t blocks)
{
	struct cfs_seg *s = &st->segs[seg];

	st->reclaim -= seg_reclaim(st, s);
	CFS_ASSERT(blocks >= 0 || (int64_t)s->live + blocks >= 0);
	s->live = (uint32_t)((int64_t)s->live + blocks);
	st->live = (uint64_t)((int64_t)st->live + blocks);
	st->reclaim += seg_reclaim(st, s);
	if (blocks < 0)
		st->cleaner.stuck = false;
}

void cfs_seg_keep(struct cfs_store *st, uint32_t seg, bool for_good)
{
	struct cfs_seg *s = &st->segs[seg];

	st->reclaim -= seg_reclaim(st, s);
	s->rot_live = s->live;
	if (for_good) {
		s->sum_block = 0;
		free(s->ents);
		s->ents = NULL;
	}
	st->reclaim += seg_reclaim(st, s);
}

void cfs_seg_set_ents(struct cfs_store *st, uint32_t seg, struct cfs_disk_ent *ents, uint32_t n)
{
	struct cfs_seg *s = &st->segs[seg];

	st->reclaim -= seg_reclaim(st, s);
	free(s->ents);
	s->ents = ents;
	s->n_ents = n;
	s->flags |= CFS_SF_MOVE;
	st->reclaim += seg_reclaim(st, s);
}

void cfs_seg_sealed(struct cfs_store *st, uint32_t seg, uint32_t used, uint32_t sum_block,
		    uint32_t sum_blocks)
{
	struct cfs_seg *s = &st->segs[seg];

	s->state = CFS_SS_SEALED;
	s->used = used;
	s->sum_block = sum_block;
	s->sum_blocks = sum_blocks;
	s->rot_live = 0;
	s->sealed_at = st->n_sealed++;
	st->used += used;
	st->reclaim += seg_reclaim(st, s);
}

static void seg_tombs(struct cfs_store *st, uint32_t seg, int64_t n)
{
	struct cfs_seg *s = &st->segs[seg];

	st->reclaim -= seg_reclaim(st, s);
	CFS_ASSERT((int64_t)s->tombs + n >= 0);
	s->tombs = (uint32_t)((int64_t)s->tombs + n);
	st->reclaim += seg_reclaim(st, s);
}

void cfs_seg_release(struct cfs_store *st, uint32_t seg)
{
	struct cfs_seg *s = &st->segs[seg];

	CFS_ASSERT(!s->readers && !s->live);
	if (s->state == CFS_SS_SEALED) {
		st->reclaim -= seg_reclaim(st, s);
		st->used -= s->used;
	}
	s->state = CFS_SS_FREE;
	if (s->flags & CFS_SF_DUP)
		st->n_dup--;
	s->flags &= (uint16_t)~(CFS_SF_DUP | CFS_SF_MOVE);
	free(s->ents);
	s->ents = NULL;
	s->used = s->tombs = s->sum_block = s->sum_blocks = s->rot_live = 0;
	if (s->flags & CFS_SF_DEAD)
		s->state = CFS_SS_BAD; /* it was retired */
	else
		st->n_free++;
	st->below.n_backed += s->state == CFS_SS_FREE && s->flags & CFS_SF_BACKED;
	st->cleaner.stuck = false;
	/* tombstones that named its records have done their work */
	for (uint32_t i = 0; i < s->n_homes; i++) {
		const struct cfs_seg_home *h = &s->homes[i];

		if (st->segs[h->seg].seq == h->seq && cfs_seg_is_data(&st->segs[h->seg]))
			seg_tombs(st, h->seg, -(int64_t)h->count);
	}
	free(s->homes);
	s->homes = NULL;
	s->n_homes = s->cap_homes = 0;
}

void cfs_seg_spoilt(struct cfs_store *st, uint32_t seg, int err)
{
	if (err != -ENOSPC) {
		/* not usable, and not free either: what its header says now is unknown until next start */
		st->segs[seg].state = CFS_SS_BAD;
		return;
	}
	/* no room below: an empty segment with any header, or none, is as good as a free one */
	st->segs[seg].flags &= (uint16_t)~CFS_SF_BACKED;
	cfs_seg_release(st, seg);
	cfs_below_refused(st);
}

/* ---- tombstones ------------------------------------------------------------------------- */

bool cfs_tomb_needed(const struct cfs_store *st, const struct cfs_disk_ent *ent)
{
	uint32_t seg = cfs_le32_to_cpu(ent->segment);

	return seg < st->n_segs && cfs_seg_is_data(&st->segs[seg]) &&
	       st->segs[seg].seq == cfs_le64_to_cpu(ent->seq);
}

void cfs_tomb_add(struct cfs_store *st, uint32_t home, const struct cfs_disk_ent *ent)
{
	struct cfs_seg *s;
	struct cfs_seg_home *h = NULL;

	if (!cfs_tomb_needed(st, ent))
		return;
	s = &st->segs[cfs_le32_to_cpu(ent->segment)];
	for (uint32_t i = s->n_homes, look = 4; i-- && look--;)
		if (s->homes[i].seg == home && s->homes[i].seq == st->segs[home].seq) {
			h = &s->homes[i];
			break;
		}
	if (!h) {
		if (s->n_homes == s->cap_homes) {
			uint32_t cap = s->cap_homes ? s->cap_homes * 2u : 2;
			struct cfs_seg_home *p =
				cap <= UINT16_MAX ? realloc(s->homes, cap * sizeof(*p)) : NULL;

			if (!p) {
				seg_tombs(st, home,
					  1); /* for good: the home is never freed unread */
				return;
			}
			s->homes = p;
			s->cap_homes = (uint16_t)cap;
		}
		h = &s->homes[s->n_homes++];
		*h = (struct cfs_seg_home){ .seg = home, .seq = st->segs[home].seq };
	}
	h->count++;
	seg_tombs(st, home, 1);
}

void cfs_object_forget(struct cfs_store *st, const struct cfs_oid *oid, const struct cfs_loc *loc)
{
	cfs_index_del(st->index, oid);
	cfs_seg_live(st, loc->seg, -(int64_t)cfs_obj_blocks(loc->len));
}

/* ---- headers ---------------------------------------------------------------------------- */

void cfs_seg_hdr_fill(struct cfs_store *st, uint32_t seg, enum cfs_seg_type type, void *buf)
{
	const struct cfs_seg *s = &st->segs[seg];
	struct cfs_disk_seg hdr = {
		.type = (uint8_t)type,
		.flags = cfs_cpu_to_le16(s->flags & CFS_SF_FILLED ? CFS_SEGF_FILLED : 0),
		.segment = cfs_cpu_to_le32(seg),
		.owner = cfs_cpu_to_le32(type == CFS_SEG_JOURNAL ? s->owner : 0),
		.format_id = cfs_cpu_to_le64(st->format_id),
		.seg_seq = cfs_cpu_to_le64(s->seq),
		.salt = cfs_cpu_to_le64(s->salt),
		.first_seq = cfs_cpu_to_le64(type == CFS_SEG_JOURNAL ? s->first_seq : 0),
		.epoch = cfs_cpu_to_le64(st->epoch),
	};

	cfs_seg_hdr_encode(buf, &hdr);
	memcpy((char *)buf + BLK, buf, BLK);
}

static void hdr_written(struct cfs_dev_req *req)
{
	struct cfs_seg_io *io = cfs_container_of(req, struct cfs_seg_io, req);
	int err = req->result < 0 ? (int)req->result : 0;

	cfs_store_submitted(io->st);
	if (err)
		cfs_err("store: %s of segment %u failed: %s",
			req->op == CFS_DEV_WRITE ? "writing the header" : "the reset", io->seg,
			strerror(-err));
	io->done(io, err);
}

/* a zone has no header that says so: it is reset */
static bool seg_type_is_free(enum cfs_seg_type type)
{
	return type == CFS_SEG_FREE || type == CFS_SEG_POOL;
}

void cfs_seg_hdr_write(struct cfs_store *st, struct cfs_seg_io *io, uint32_t seg,
		       enum cfs_seg_type type, void (*done)(struct cfs_seg_io *io, int err))
{
	io->st = st;
	io->seg = seg;
	io->done = done;
	if (st->zoned && seg_type_is_free(type)) {
		io->req = (struct cfs_dev_req){ .op = CFS_DEV_ZONE_RESET,
						.offset = cfs_seg_off(st, seg, 0),
						.done = hdr_written };
		if (!(st->segs[seg].flags & CFS_SF_DEAD)) {
			cfs_store_submit(st, &io->req);
			return;
		}
		st->inflight++;
		end_later(st, &io->req, cfs_zone_retire(st, seg) ? 0 : -ENOSPC);
		return;
	}
	cfs_seg_hdr_fill(st, seg, type, io->buf);
	io->iov = (struct iovec){ io->buf, CFS_DISK_SEG_HDR_BLOCKS * BLK };
	io->req = (struct cfs_dev_req){
		.op = CFS_DEV_WRITE,
		.flags = CFS_DEV_DURABLE,
		.offset = cfs_seg_off(st, seg, 0),
		.iov = &io->iov,
		.iovcnt = 1,
		.len = io->iov.iov_len,
		.done = hdr_written,
	};
	cfs_store_submit(st, &io->req);
}

int cfs_seg_hdr_write_sync(struct cfs_store *st, uint32_t seg, enum cfs_seg_type type)
{
	void *buf;
	int rc;

	if (st->zoned && seg_type_is_free(type))
		return cfs_zone_sync(st, seg, CFS_DEV_ZONE_RESET);
	buf = cfs_aligned_alloc(CFS_DISK_SEG_HDR_BLOCKS * BLK);
	if (!buf)
		return -ENOMEM;
	cfs_seg_hdr_fill(st, seg, type, buf);
	rc = st->dev->ops->write_sync(st->dev, cfs_seg_off(st, seg, 0), buf,
				      CFS_DISK_SEG_HDR_BLOCKS * BLK);
	free(buf);
	return rc;
}
