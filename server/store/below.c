/* SPDX-License-Identifier: MIT */
/*
 * below.c - a target on a sparse file takes room in the file system below, which others use, too. So that this is
 * missed when a segment is taken, and not in the middle of a write, a segment is backed before: the device reserves
 * all of it (CFS_DEV_RESERVE). State: st->below, the CFS_SF_BACKED flags.
 *
 * Kept backed ahead of need: the reserve, from which journal, deletions, checkpoints and the cleaner go on when there
 * is no room at all, and a few more for users. Users get backed segments only; the others may take what is not backed
 * yet as long as nobody refuses it, and it is backed in their hands. When there is no room the target is full, and says
 * so; it looks again every second. Users' data leaves the last bit of room below alone: metadata and logs live there.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "server/store/store_i.h"

#define LOOK_NS		CFS_NSEC_PER_SEC
#define WARN_NS		(60 * CFS_NSEC_PER_SEC)
#define LEAVE_BYTES	(64 * CFS_MIB)	/* below, when room is taken for users */

static void look(struct cfs_store *st);
static void next(struct cfs_store *st);

static void on_timer(struct cfs_timer *timer)
{
	struct cfs_store *st = cfs_container_of(timer, struct cfs_store, below.timer);

	st->below.refused = false;
	look(st);
}

void cfs_below_init(struct cfs_store *st)
{
	struct cfs_below *b = &st->below;
	uint64_t bytes = (uint64_t)st->n_segs * st->seg_bytes;

	b->on = st->dev->info.flags & CFS_DEV_F_SPARSE && !st->zoned;
	/* below that much the metadata service takes no more of users: it is for checkpoints */
	b->ahead = 1 + (uint32_t)(cfs_min(bytes / 64, 256 * CFS_MIB) / st->seg_bytes);
	b->timer.fn = on_timer;
}

void cfs_below_exit(struct cfs_store *st)
{
	cfs_timer_cancel(st->clock, &st->below.timer);
}

/* ---- figures ---------------------------------------------------------------------------- */

static uint32_t wanted(const struct cfs_store *st)
{
	return st->reserve + st->below.ahead;
}

bool cfs_below_wants(const struct cfs_store *st, const struct cfs_seg *s)
{
	return s->flags & CFS_SF_BACKED && st->below.n_backed < wanted(st);
}

/* segments that room could be found for */
static uint32_t findable(const struct cfs_store *st)
{
	const struct cfs_dev_room *r = &st->dev->room;
	uint64_t n;

	if (st->below.known && !r->missing)
		return UINT32_MAX / 2;
	n = st->below.known && r->free > LEAVE_BYTES ? (r->free - LEAVE_BYTES) / st->seg_bytes : 0;
	return (uint32_t)cfs_min(n, UINT32_MAX / 2);
}

uint32_t cfs_below_free(const struct cfs_store *st)
{
	/* not known yet: nothing is refused before it is */
	return st->below.on && st->below.known ? cfs_min(st->n_free, st->below.n_backed + findable(st)) : st->n_free;
}

bool cfs_below_pending(const struct cfs_store *st, enum cfs_alloc who)
{
	return st->below.on && !st->below.lacking && !st->stopping &&
	       st->n_free + (st->below.busy && st->below.was_free) >
		       (who == CFS_ALLOC_FILL ? st->reserve + 1 : st->reserve);
}

/* ---- looking at the room ---------------------------------------------------------------- */

static void looked(struct cfs_dev_req *req)
{
	struct cfs_store *st = cfs_container_of(req, struct cfs_store, below.room_req);
	struct cfs_below *b = &st->below;

	cfs_store_submitted(st);
	b->looking = false;
	b->known = b->known || req->result >= 0;
	next(st);
	if (!st->stopping)
		cfs_timer_set(st->clock, &b->timer, cfs_clock_boot_ns(st->clock) + LOOK_NS);
}

static void look(struct cfs_store *st)
{
	struct cfs_below *b = &st->below;

	if (!b->on || b->looking || st->stopping)
		return;
	b->looking = true;
	b->room_req = (struct cfs_dev_req){ .op = CFS_DEV_ROOM, .done = looked };
	cfs_store_submit(st, &b->room_req);
}

/* ---- backing segments ------------------------------------------------------------------- */

static void kick_now(struct cfs_defer *d)
{
	struct cfs_store *st = cfs_container_of(d, struct cfs_store, below.defer);

	st->below.kicking = false;
	cfs_store_kick(st);
}

/* what waits for room is told that there is none, or tries again; later, for this may come from within what waits */
static void lacking(struct cfs_store *st, bool lacks)
{
	struct cfs_below *b = &st->below;
	uint64_t now = cfs_clock_boot_ns(st->clock);

	if (b->lacking == lacks)
		return;
	b->lacking = lacks;
	if (lacks && (!b->warned_ns || now - b->warned_ns > WARN_NS)) {
		b->warned_ns = now;
		cfs_warn("store: target %u: the file system below is full: no more data is taken until it has room",
			 cfs_le32_to_cpu(st->sb.target_id));
	}
	if (b->kicking)
		return;
	b->kicking = true;
	b->defer.fn = kick_now;
	cfs_store_later(st, &b->defer);
}

static void reserve_range(struct cfs_store *st, enum cfs_dev_op op, uint64_t off, uint64_t len,
			  cfs_dev_done_fn done)
{
	st->below.req = (struct cfs_dev_req){ .op = op, .offset = off, .len = len, .done = done };
	cfs_store_submit(st, &st->below.req);
}

static void end(struct cfs_store *st, bool backed)
{
	struct cfs_below *b = &st->below;

	b->busy = false;
	if (b->seg == UINT32_MAX) {
		b->head = b->head || backed;
	} else {
		struct cfs_seg *s = &st->segs[b->seg];

		s->flags |= backed ? CFS_SF_BACKED : 0;
		if (b->was_free) {
			s->state = CFS_SS_FREE;
			st->n_free++;
			b->n_backed += backed;
		}
	}
	if (backed)
		cfs_store_kick(st);
	look(st);	/* and then the next */
}

static void given_back(struct cfs_dev_req *req)
{
	struct cfs_store *st = cfs_container_of(req, struct cfs_store, below.req);

	cfs_store_submitted(st);
	end(st, false);
}

static void reserved(struct cfs_dev_req *req)
{
	struct cfs_store *st = cfs_container_of(req, struct cfs_store, below.req);
	struct cfs_below *b = &st->below;
	int err = req->result < 0 ? (int)req->result : 0;

	cfs_store_submitted(st);
	if (err == -EOPNOTSUPP || err == -ENOSYS) {
		cfs_warn("store: target %u: the file system below cannot reserve room: when it is full, requests wait",
			 cfs_le32_to_cpu(st->sb.target_id));
		b->on = false;
		b->lacking = false;
		end(st, false);
		cfs_store_kick(st);
		return;
	}
	if (!err) {
		end(st, true);
		return;
	}
	if (err != -ENOSPC && err != -EDQUOT && err != -EFBIG)
		cfs_err("store: reserving room below failed: %s", strerror(-err));
	b->refused = true;
	if (!b->was_free) {
		end(st, false);
		return;
	}
	/* it may have taken all that was left: others need that more */
	reserve_range(st, CFS_DEV_DISCARD, cfs_seg_off(st, b->seg, CFS_DISK_SEG_HDR_BLOCKS),
		      (uint64_t)(st->seg_blocks - CFS_DISK_SEG_HDR_BLOCKS) * BLK, given_back);
}

/* the most urgent segment without room; UINT32_MAX - 1: none */
static uint32_t pick(const struct cfs_store *st)
{
	const struct cfs_below *b = &st->below;
	const struct cfs_dev_room *r = &st->dev->room;
	/* an attempt that must fail would take all that others have left, if only for a moment */
	bool room = !r->missing || r->free >= st->seg_bytes;
	bool may = b->n_backed < st->reserve ? room : findable(st) && b->n_backed < wanted(st);
	uint32_t found = UINT32_MAX - 1;

	if (!b->head)
		return UINT32_MAX;
	for (uint32_t i = 0; i < st->n_segs; i++) {
		const struct cfs_seg *s = &st->segs[i];

		if (s->flags & CFS_SF_BACKED)
			continue;
		if (room && (s->state == CFS_SS_JOURNAL || s->state == CFS_SS_POOL || s->state == CFS_SS_OPEN ||
			     s->state == CFS_SS_BUSY))
			return i;
		/* of those that are free, one that was written before has most of it already */
		if (s->state == CFS_SS_FREE && may &&
		    (found == UINT32_MAX - 1 || s->flags & CFS_SF_FILLED) &&
		    !(found != UINT32_MAX - 1 && st->segs[found].flags & CFS_SF_FILLED))
			found = i;
	}
	return found;
}

static void next(struct cfs_store *st)
{
	struct cfs_below *b = &st->below;
	uint32_t seg;

	if (!b->on || b->busy || b->refused || !b->known || st->stopping || st->failed) {
		if (b->on && b->refused && !b->busy)
			lacking(st, b->n_backed <= st->reserve);
		return;
	}
	seg = pick(st);
	if (seg == UINT32_MAX - 1) {
		lacking(st, b->n_backed <= st->reserve && st->n_free > b->n_backed);
		return;
	}
	lacking(st, false);
	b->busy = true;
	b->seg = seg;
	b->was_free = seg != UINT32_MAX && st->segs[seg].state == CFS_SS_FREE;
	if (seg == UINT32_MAX) {
		reserve_range(st, CFS_DEV_RESERVE, 0, CFS_DISK_SEG_OFF, reserved);
		return;
	}
	if (b->was_free) {
		st->segs[seg].state = CFS_SS_BUSY;
		st->n_free--;
	}
	reserve_range(st, CFS_DEV_RESERVE, cfs_seg_off(st, seg, 0), st->seg_bytes, reserved);
}

void cfs_below_kick(struct cfs_store *st)
{
	next(st);
}

void cfs_below_refused(struct cfs_store *st)
{
	st->below.refused = true;
	next(st);
}

/* ---- start ------------------------------------------------------------------------------ */

static bool is_backed(const struct cfs_store *st, uint64_t off, uint64_t len)
{
	return st->dev->ops->reserved_sync && st->dev->ops->reserved_sync(st->dev, off, len) == 1;
}

void cfs_below_start(struct cfs_store *st)
{
	struct cfs_below *b = &st->below;

	if (!b->on)
		return;
	b->head = is_backed(st, 0, CFS_DISK_SEG_OFF);
	for (uint32_t i = 0; i < st->n_segs; i++) {
		struct cfs_seg *s = &st->segs[i];

		/* sealed ones are not written to any more; of the free ones, as many as are wanted */
		if (s->state == CFS_SS_SEALED || s->state == CFS_SS_BAD ||
		    (s->state == CFS_SS_FREE && b->n_backed >= wanted(st)) ||
		    !is_backed(st, cfs_seg_off(st, i, 0), st->seg_bytes))
			continue;
		s->flags |= CFS_SF_BACKED;
		b->n_backed += s->state == CFS_SS_FREE;
	}
	look(st);
}
