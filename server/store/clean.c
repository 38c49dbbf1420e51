/* SPDX-License-Identifier: MIT */
/*
 * clean.c - the cleaner: one victim at a time, in the background. It reads the victim's summary,
 * moves live objects (after checking them) and tombstones that still matter, and frees the
 * segment once all of that is durable and no read is under way. Driven by a timer, throttled;
 * faster when space is short.
 *
 * An object must not be deleted between our look at the index and the switch to the new place,
 * for its tombstone would name the old one: while `copying`, delete.c holds back what lies in
 * the victim, and we wait for tombstones in flight that name it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/log.h"
#include "server/store/store_i.h"

#define IDLE_NS (200 * CFS_NSEC_PER_MSEC)
#define ERROR_NS CFS_NSEC_PER_SEC
#define NS_PER_BYTE 5u /* 200 MB/s when there is no hurry */
#define WARM_MAX 8u /* freed segments kept undiscarded for quick reuse */

static void step(struct cfs_store *st);

static void arm(struct cfs_store *st, uint64_t delay_ns)
{
	if (!st->stopping)
		cfs_timer_set(st->clock, &st->cleaner.timer,
			      cfs_clock_boot_ns(st->clock) + delay_ns);
}

static void on_timer(struct cfs_timer *timer)
{
	struct cfs_store *st = cfs_container_of(timer, struct cfs_store, cleaner.timer);

	if (!st->stopping)
		step(st);
}

int cfs_clean_init(struct cfs_store *st)
{
	struct cfs_cleaner *c = &st->cleaner;

	c->timer.fn = on_timer;
	c->hdr.buf = cfs_aligned_alloc(CFS_DISK_SEG_HDR_BLOCKS * BLK);
	c->buf = cfs_aligned_raw(CFS_COPY_BYTES);
	return c->hdr.buf && c->buf ? 0 : -ENOMEM;
}

void cfs_clean_exit(struct cfs_store *st)
{
	struct cfs_cleaner *c = &st->cleaner;

	free(c->hdr.buf);
	free(c->buf);
	free(c->sum);
}

/* ---- choosing --------------------------------------------------------------------------- */

static bool urgent(const struct cfs_store *st)
{
	return st->want_space || cfs_below_free(st) <= st->reserve + 2;
}

/*
 * Who gains most for least: dead space over what must be copied for it, and the longer a segment has been left
 * alone the sooner, for what is still alive in an old one will live on, while a young one empties by itself
 * (cost-benefit of the log-structured file system, Rosenblum and Ousterhout 1992). UINT32_MAX: nothing is worth
 * the copying.
 */
static uint32_t pick(const struct cfs_store *st, bool hurry)
{
	/* without hurry only what is nearly empty: what is alive in the others may yet die by itself */
	uint32_t best = UINT32_MAX, min = hurry ? st->seg_blocks / 16 : st->seg_blocks - st->seg_blocks / 4;
	double best_score = 0;

	for (uint32_t i = 0; i < st->n_segs; i++) {
		const struct cfs_seg *s = &st->segs[i];
		uint32_t dead;
		double score;

		if (s->state != CFS_SS_SEALED || !cfs_seg_listed(s) || cfs_seg_kept(s))
			continue;
		if (s->flags & (CFS_SF_DUP | CFS_SF_MOVE))
			return i;
		dead = cfs_seg_dead(st, s);
		if (!s->live && !s->tombs)
			dead = st->seg_blocks;
		if (dead < min)
			continue;
		score = (double)dead * (double)(st->n_sealed - s->sealed_at + 1) / (s->live + 1);
		if (best == UINT32_MAX || score > best_score) {
			best = i;
			best_score = score;
		}
	}
	return best;
}

/* a segment will be there to choose soon; cfs_store_kick() then follows */
static bool sealing(const struct cfs_store *st)
{
	for (uint32_t i = 0; i < CFS_OSEGS; i++)
		if (st->osegs[i].state == CFS_OSS_SEALING || st->osegs[i].want_seal)
			return true;
	return false;
}

bool cfs_clean_can_gain(const struct cfs_store *st)
{
	if (st->cleaner.stuck)
		return false;
	return st->cleaner.state != CFS_CL_IDLE || sealing(st) || pick(st, true) != UINT32_MAX;
}

void cfs_clean_kick(struct cfs_store *st)
{
	struct cfs_cleaner *c = &st->cleaner;
	bool waits =
		c->retry || c->state == CFS_CL_READERS || (c->state == CFS_CL_IDLE && urgent(st));

	if (!st->settled)
		return;
	if (waits)
		arm(st, 0);
	else if (c->state == CFS_CL_IDLE && !cfs_timer_armed(&c->timer))
		arm(st, IDLE_NS);
}

/* leave the victim, for now or for good */
static void give_up(struct cfs_store *st, uint64_t delay_ns)
{
	struct cfs_cleaner *c = &st->cleaner;

	c->copying = c->retry = false;
	c->state = CFS_CL_IDLE;
	free(c->sum);
	c->sum = NULL;
	arm(st, delay_ns);
	cfs_delete_pump(st);
}

/* not even a segment to move things to: that changes with the next deletion or freed segment */
static void no_room(struct cfs_store *st, int err)
{
	st->cleaner.stuck = err == -ENOSPC;
	give_up(st, st->cleaner.stuck ? IDLE_NS : ERROR_NS);
}

static void next_step(struct cfs_store *st)
{
	arm(st, urgent(st) ? 0 : st->cleaner.last_bytes * NS_PER_BYTE);
}

/* ---- summary ---------------------------------------------------------------------------- */

static void summary_read(struct cfs_dev_req *req)
{
	struct cfs_store *st = cfs_container_of(req, struct cfs_store, cleaner.req);
	struct cfs_cleaner *c = &st->cleaner;
	struct cfs_seg *s = &st->segs[c->victim];
	struct cfs_seg_id id = cfs_seg_ident(st, c->victim);
	const struct cfs_disk_rec *rec = c->sum;

	cfs_store_submitted(st);
	if (req->result < 0) {
		cfs_err("store: reading the summary of segment %u failed: %s", c->victim, strerror((int)-req->result));
		cfs_seg_keep(st, c->victim, true);
		give_up(st, ERROR_NS);
		return;
	}
	if (!cfs_rec_check(rec, &id, s->sum_block) || rec->type != CFS_REC_SUMMARY || cfs_le32_to_cpu(rec->blocks) != s->sum_blocks ||
	    !cfs_rec_body_ok(rec)) {
		cfs_err("store: the summary of segment %u (device offset %llu) is "
			"damaged; the segment is left alone",
			c->victim, (unsigned long long)cfs_seg_off(st, c->victim, s->sum_block));
		st->checksum_errors++;
		cfs_seg_keep(st, c->victim, true);
		give_up(st, ERROR_NS);
		return;
	}
	c->ents = (void *)((struct cfs_disk_rec *)c->sum + 1);
	c->n_ents = cfs_le32_to_cpu(rec->body_len) / (uint32_t)sizeof(*c->ents);
	c->pos = 0;
	c->state = CFS_CL_COPY;
	if (!st->stopping)
		step(st);
}

static void begin(struct cfs_store *st)
{
	struct cfs_cleaner *c = &st->cleaner;
	uint32_t v = c->stuck ? UINT32_MAX : pick(st, urgent(st));
	struct cfs_seg *s;

	c->last_bytes = 0;
	if (v == UINT32_MAX) {
		/* nothing to be gained: who waits is told */
		if (st->want_space && !sealing(st)) {
			st->want_space = false;
			cfs_write_pump(st);
			cfs_delete_pump(st);
		}
		return;
	}
	s = &st->segs[v];
	c->victim = v;
	c->rot = false;
	if (!s->live && !s->tombs && !(s->flags & CFS_SF_DUP)) {
		c->state = CFS_CL_READERS;
		step(st);
		return;
	}
	if (s->ents) {
		c->ents = s->ents;
		c->n_ents = s->n_ents;
		c->pos = 0;
		c->state = CFS_CL_COPY;
		step(st);
		return;
	}
	free(c->sum);
	c->sum = cfs_aligned_alloc((size_t)s->sum_blocks * BLK);
	if (!c->sum) {
		arm(st, ERROR_NS);
		return;
	}
	c->state = CFS_CL_SUMMARY;
	c->iov = (struct iovec){ c->sum, (size_t)s->sum_blocks * BLK };
	c->req = (struct cfs_dev_req){
		.op = CFS_DEV_READ,
		.offset = cfs_seg_off(st, v, s->sum_block),
		.iov = &c->iov,
		.iovcnt = 1,
		.len = c->iov.iov_len,
		.done = summary_read,
	};
	cfs_store_submit(st, &c->req);
}

/* ---- moving objects --------------------------------------------------------------------- */

static bool is_live(const struct cfs_store *st, const struct cfs_disk_ent *ent,
		    struct cfs_loc *ret_loc)
{
	return ent->type == CFS_ENT_OBJECT && cfs_index_get(st->index, &ent->oid, ret_loc) &&
	       ret_loc->seg == st->cleaner.victim && ret_loc->block == cfs_le32_to_cpu(ent->block);
}

/* what has outlived one cleaning is likely to live long */
static enum cfs_oseg_class class_of(const struct cfs_store *st, const struct cfs_disk_ent *ent)
{
	return cfs_le16_to_cpu(ent->gen) && !st->few_zones ? CFS_OS_COLD : CFS_OS_CLEAN;
}

static void copies_landed(struct cfs_batch *b, int err)
{
	struct cfs_store *st = b->st;
	struct cfs_cleaner *c = &st->cleaner;

	for (uint32_t i = 0; i < c->n_items && !err; i++) {
		const struct cfs_disk_rec *rec = (const void *)(c->buf + c->item[i].at);
		const struct cfs_disk_obj *obj = cfs_rec_obj(rec);
		struct cfs_loc old, loc = { b->os->seg, cfs_le32_to_cpu(rec->seg_block),
					    cfs_le32_to_cpu(rec->body_len) };
		uint32_t gen = cfs_le32_to_cpu(obj->gen);
		struct cfs_disk_ent ent = {
			.oid = obj->oid,
			.seq = obj->birth,
			.segment = cfs_cpu_to_le32(loc.seg),
			.block = rec->seg_block,
			.len = rec->body_len,
			.type = CFS_ENT_OBJECT,
			.gen = cfs_cpu_to_le16((uint16_t)cfs_min(gen, 65535u)),
		};

		if (c->item[i].skip)
			continue;
		cfs_oseg_add_ent(b->os, &ent);
		CFS_ASSERT(is_live(st, c->item[i].ent, &old));
		CFS_ASSERT(!cfs_index_put(st->index, &obj->oid, &loc)); /* replaces: cannot fail */
		cfs_seg_live(st, c->victim, -(int64_t)c->item[i].blocks);
		cfs_seg_live(st, loc.seg, c->item[i].blocks);
	}
	c->copying = false;
	if (err) {
		give_up(st, ERROR_NS);
		return;
	}
	st->bytes_moved += (uint64_t)b->blocks * BLK;
	c->last_bytes = c->buf_used;
	c->state = CFS_CL_COPY;
	next_step(st);
	cfs_delete_pump(st);
}

/* c->item[] have been read and checked: write them */
static void write_copies(struct cfs_store *st)
{
	struct cfs_cleaner *c = &st->cleaner;
	struct cfs_batch *b = &c->batch;
	uint32_t blocks = 0, n = 0;
	struct cfs_oseg *os;
	struct cfs_seg_id id;
	int rc;

	for (uint32_t i = 0; i < c->n_items; i++) {
		n += !c->item[i].skip;
		blocks += c->item[i].skip ? 0 : c->item[i].blocks;
	}
	if (!n) {
		c->copying = false;
		c->state = CFS_CL_COPY;
		next_step(st);
		return;
	}
	rc = st->failed ? -EIO : cfs_oseg_get(st, c->cls, CFS_ALLOC_CLEAN, blocks, n, &os);
	c->retry = rc == -EAGAIN;
	if (rc) {
		if (rc != -EAGAIN)
			no_room(st, rc);
		return;
	}
	id = cfs_seg_ident(st, os->seg);
	b->blocks = b->iovcnt = 0;
	for (uint32_t i = 0; i < c->n_items; i++) {
		struct cfs_disk_rec *rec = (void *)(c->buf + c->item[i].at);
		struct cfs_disk_obj *obj = (void *)(rec + 1);

		if (c->item[i].skip)
			continue;
		rec->seg_seq = cfs_cpu_to_le64(id.seg_seq);
		rec->salt = cfs_cpu_to_le64(id.salt);
		rec->seg_block = cfs_cpu_to_le32(os->head + b->blocks);
		rec->seq = cfs_cpu_to_le64(st->next_rec_seq++);
		rec->durable = cfs_cpu_to_le64(cfs_oseg_durable(os));
		rec->epoch = cfs_cpu_to_le64(st->epoch);
		obj->gen = cfs_cpu_to_le32(cfs_le32_to_cpu(obj->gen) + 1);
		cfs_rec_seal(rec);
		b->iov[b->iovcnt++] = (struct iovec){ rec, (size_t)c->item[i].blocks * BLK };
		b->blocks += c->item[i].blocks;
	}
	b->os = os;
	b->n_ents = n;
	b->landed = copies_landed;
	cfs_batch_submit(b, false);
}

static void copy_read(struct cfs_dev_req *req)
{
	struct cfs_copy *it = cfs_container_of(req, struct cfs_copy, req);
	struct cfs_store *st = it->st;
	struct cfs_cleaner *c = &st->cleaner;
	struct cfs_seg_id id = cfs_seg_ident(st, c->victim);
	const struct cfs_disk_rec *rec = (const void *)(c->buf + it->at);
	uint32_t block = cfs_le32_to_cpu(it->ent->block);

	cfs_store_submitted(st);
	if (req->result < 0) {
		cfs_err("store: reading segment %u, block %u, to move it failed: %s", c->victim, block,
			strerror((int)-req->result));
		it->skip = c->rot = true;
	} else if (!cfs_rec_check(rec, &id, block) || rec->type != CFS_REC_OBJECT ||
		   !cfs_oid_eq(&cfs_rec_obj(rec)->oid, &it->ent->oid) ||
		   cfs_le32_to_cpu(rec->blocks) != it->blocks || !cfs_rec_body_ok(rec)) {
		struct cfs_loc loc = { c->victim, block, cfs_le32_to_cpu(it->ent->len) };

		cfs_rot_report(st, &it->ent->oid, &loc, -1);
		it->skip = c->rot = true;
	}
	if (--c->reading)
		return;
	c->state = CFS_CL_WRITE;
	if (st->stopping)
		return;
	write_copies(st);
}

/* tombstones on their way that name the victim: they must land before we look at the index */
static bool tombs_in_flight(const struct cfs_store *st)
{
	const struct cfs_tomber *t = &st->tomber;
	const struct cfs_disk_ent *ents = (const void *)((const struct cfs_disk_rec *)t->buf + 1);

	for (uint32_t i = 0; t->busy && i < t->n; i++)
		if (cfs_le32_to_cpu(ents[i].segment) == st->cleaner.victim)
			return true;
	return false;
}

static void copy(struct cfs_store *st)
{
	struct cfs_cleaner *c = &st->cleaner;
	uint32_t limit = cfs_min(st->obj_max + (64u << 10), CFS_COPY_BYTES), room = limit;
	const struct cfs_oseg *os = NULL;

	c->retry = tombs_in_flight(st);
	if (c->retry)
		return;
	c->n_items = c->buf_used = 0;
	for (; c->pos < c->n_ents && c->n_items < CFS_COPY_ITEMS; c->pos++) {
		const struct cfs_disk_ent *ent = &c->ents[c->pos];
		struct cfs_copy *it = &c->item[c->n_items];
		struct cfs_loc loc;

		if (!is_live(st, ent, &loc))
			continue;
		if (!c->n_items) {
			c->cls = class_of(st, ent);
			os = st->open[c->cls];
			/* fill the present segment before another one is opened */
			if (os && os->state == CFS_OSS_READY)
				room = cfs_min((st->seg_blocks - os->head - 1) * BLK, limit);
		} else if (class_of(st, ent) != c->cls) {
			break;
		}
		it->blocks = cfs_obj_blocks(loc.len);
		if (c->n_items && (c->buf_used + it->blocks * BLK > room ||
				   !(os && cfs_oseg_room(st, os, c->buf_used / BLK + it->blocks,
							 c->n_items + 1))))
			break;
		if (it->blocks * BLK > limit)
			continue; /* no object is that long; it would be missed at the end */
		it->st = st;
		it->ent = ent;
		it->at = c->buf_used;
		it->skip = false;
		c->buf_used += it->blocks * BLK;
		c->n_items++;
	}
	if (!c->n_items) {
		c->state = CFS_CL_TOMBS;
		c->pos = 0;
		step(st);
		return;
	}
	c->copying = true;
	c->reading = c->n_items;
	for (uint32_t i = 0; i < c->n_items; i++) {
		struct cfs_copy *it = &c->item[i];

		it->iov = (struct iovec){ c->buf + it->at, (size_t)it->blocks * BLK };
		it->req = (struct cfs_dev_req){
			.op = CFS_DEV_READ,
			.offset = cfs_seg_off(st, c->victim, cfs_le32_to_cpu(it->ent->block)),
			.iov = &it->iov,
			.iovcnt = 1,
			.len = it->iov.iov_len,
			.done = copy_read,
		};
		cfs_store_submit(st, &it->req);
	}
}

/* ---- moving tombstones ------------------------------------------------------------------ */

static void tombs_landed(struct cfs_batch *b, int err)
{
	struct cfs_store *st = b->st;
	struct cfs_cleaner *c = &st->cleaner;
	const struct cfs_disk_rec *rec = (const void *)c->buf;
	const struct cfs_disk_ent *ents = cfs_rec_body(rec);
	uint32_t n = cfs_le32_to_cpu(rec->body_len) / (uint32_t)sizeof(*ents);

	if (err) {
		give_up(st, ERROR_NS);
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		cfs_oseg_add_ent(b->os, &ents[i]);
		cfs_tomb_add(st, b->os->seg, &ents[i]);
	}
	c->pos = c->n_items;
	c->last_bytes = (uint64_t)b->blocks * BLK;
	next_step(st);
}

static void move_tombs(struct cfs_store *st)
{
	struct cfs_cleaner *c = &st->cleaner;
	struct cfs_batch *b = &c->batch;
	struct cfs_disk_rec *rec = (void *)c->buf;
	struct cfs_disk_ent *ents = (void *)(rec + 1);
	uint32_t n = 0, max = (uint32_t)((CFS_TOMB_BYTES - sizeof(*rec)) / sizeof(*ents)), pos,
		 bytes;
	struct cfs_oseg *os;
	struct cfs_seg_id id;
	int rc;

	for (pos = c->pos; pos < c->n_ents && n < max; pos++)
		if (c->ents[pos].type == CFS_ENT_TOMB && cfs_tomb_needed(st, &c->ents[pos]) &&
		    cfs_le32_to_cpu(c->ents[pos].segment) != c->victim)
			ents[n++] = c->ents[pos];
	if (!n) {
		c->state = CFS_CL_READERS;
		step(st);
		return;
	}
	bytes = n * (uint32_t)sizeof(*ents);
	rc = st->failed ? -EIO :
			  cfs_oseg_get(st, CFS_OS_CLEAN, CFS_ALLOC_CLEAN,
				       cfs_blocks_of(sizeof(*rec) + bytes), n, &os);
	c->retry = rc == -EAGAIN;
	if (rc) {
		if (rc != -EAGAIN)
			no_room(st, rc);
		return;
	}
	id = cfs_seg_ident(st, os->seg);
	memset((char *)ents + bytes, 0,
	       cfs_align_up(sizeof(*rec) + bytes, BLK) - sizeof(*rec) - bytes);
	cfs_rec_init(rec, CFS_REC_TOMB, &id, os->head, sizeof(*rec), bytes);
	rec->seq = cfs_cpu_to_le64(st->next_rec_seq++);
	rec->durable = cfs_cpu_to_le64(cfs_oseg_durable(os));
	rec->epoch = cfs_cpu_to_le64(st->epoch);
	rec->body_crc = cfs_cpu_to_le32(cfs_crc32c(0, ents, bytes));
	cfs_rec_seal(rec);
	c->n_items = pos; /* where to go on when these have landed */
	b->os = os;
	b->blocks = cfs_le32_to_cpu(rec->blocks);
	b->iov[0] = (struct iovec){ rec, (size_t)b->blocks * BLK };
	b->iovcnt = 1;
	b->n_ents = n;
	b->landed = tombs_landed;
	cfs_batch_submit(b, false);
}

/* ---- freeing ---------------------------------------------------------------------------- */

static void freed(struct cfs_store *st)
{
	struct cfs_cleaner *c = &st->cleaner;

	cfs_seg_release(st, c->victim);
	st->cleaned++;
	c->state = CFS_CL_IDLE;
	free(c->sum);
	c->sum = NULL;
	arm(st, urgent(st) ? 0 : c->last_bytes * NS_PER_BYTE);
	cfs_store_kick(st);
}

static void discarded(struct cfs_dev_req *req)
{
	struct cfs_store *st = cfs_container_of(req, struct cfs_store, cleaner.req);

	cfs_store_submitted(st);
	if (req->result >= 0)	/* a hint: no error matters */
		st->segs[st->cleaner.victim].flags &= (uint16_t)~CFS_SF_BACKED;
	freed(st);
}

static void free_written(struct cfs_seg_io *io, int err)
{
	struct cfs_store *st = io->st;
	struct cfs_cleaner *c = &st->cleaner;
	struct cfs_seg *s = &st->segs[c->victim];

	if (err) {
		if (err != -ENOSPC) /* its header is unknown now, until the next start */
			cfs_seg_keep(st, c->victim, true);
		give_up(st, ERROR_NS);
	} else if (st->zoned || s->flags & CFS_SF_FILLED || cfs_below_wants(st, s)) {
		freed(st);
	} else {
		/* the header stays; nobody gets the segment before the discard is over */
		c->state = CFS_CL_DISCARD;
		c->req = (struct cfs_dev_req){
			.op = CFS_DEV_DISCARD,
			.offset = cfs_seg_off(st, c->victim, CFS_DISK_SEG_HDR_BLOCKS),
			.len = (uint64_t)(st->seg_blocks - CFS_DISK_SEG_HDR_BLOCKS) * BLK,
			.done = discarded,
		};
		cfs_store_submit(st, &c->req);
	}
}

static void free_victim(struct cfs_store *st)
{
	struct cfs_cleaner *c = &st->cleaner;
	struct cfs_seg *s = &st->segs[c->victim];
	uint32_t warm = 0;

	if (s->live) {
		if (!c->rot)
			cfs_err("store: segment %u has %u live blocks that its summary does "
				"not name; left alone",
				c->victim, s->live);
		cfs_seg_keep(st, c->victim, false);
		give_up(st, IDLE_NS);
		return;
	}
	if (s->readers)
		return; /* the last one kicks us */
	for (uint32_t i = 0; i < st->n_segs && !st->zoned; i++)
		warm += st->segs[i].state == CFS_SS_FREE && st->segs[i].flags & CFS_SF_FILLED;
	if (!st->zoned)
		s->flags = (uint16_t)(warm < WARM_MAX ? s->flags | CFS_SF_FILLED :
							s->flags & ~CFS_SF_FILLED);
	c->state = CFS_CL_FREE;
	cfs_seg_hdr_write(st, &c->hdr, c->victim, CFS_SEG_FREE, free_written);
}

static void step(struct cfs_store *st)
{
	switch ((enum cfs_clean_state)st->cleaner.state) {
	case CFS_CL_IDLE:
		begin(st);
		break;
	case CFS_CL_COPY:
		copy(st);
		break;
	case CFS_CL_WRITE:
		if (st->cleaner.retry)
			write_copies(st);
		break;
	case CFS_CL_TOMBS:
		move_tombs(st);
		break;
	case CFS_CL_READERS:
		free_victim(st);
		break;
	case CFS_CL_SUMMARY:
	case CFS_CL_FREE:
	case CFS_CL_DISCARD:
		break; /* a request is under way */
	}
}
