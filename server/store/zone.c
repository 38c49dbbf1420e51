/* SPDX-License-Identifier: MIT */
/*
 * zone.c - segments that are zones: their state at start, the order of writes into each, how many are active, and
 * what becomes of one that fails. State: st->zq, st->n_active, and of each segment its end, ACTIVE and DEAD.
 *
 * A zone takes one write at a time. What is submitted for it meanwhile waits in a queue of its own and goes
 * out together, as one device write, as far as it fits. A zone that would be one active zone too many waits
 * until another has been finished; a RESET stands in the same queue, and a FINISH comes behind all of it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "server/store/store_i.h"

#define REPORT_ZONES 256u /* asked for at a time */
#define WATCH_NS (5 * CFS_NSEC_PER_SEC)

/* zones written to at once: open data segments, a cleaner's, two of each journal */
#define ZQS (CFS_OSEGS + 1u + 2u * CFS_DISK_VOTE_GROUPS)

struct cfs_zq {
	struct cfs_store *st;
	uint32_t seg;
	bool used, busy;
	bool waits;		/* for another zone to become inactive, or to be finished */
	bool finish;		/* when all is written; counts in st->inflight */
	struct cfs_list queue;	/* of zreq */
	struct cfs_list sent;	/* of zreq: what req stands for */
	struct cfs_dev_req req;
	struct iovec iov[CFS_DEV_IOV_MAX];
	struct cfs_defer defer;	/* a request that the device refused */
};

/* in cfs_dev_req.priv, which is the device's only for q->req */
struct zreq {
	struct cfs_list node;
} __attribute__((may_alias));
_Static_assert(sizeof(struct zreq) <= sizeof(((struct cfs_dev_req *)0)->priv), "zreq");

static void pump(struct cfs_zq *q);
static void send(struct cfs_zq *q, int rc);

uint32_t cfs_zone_limit(const struct cfs_dev_info *info)
{
	uint32_t active = info->max_active ? info->max_active : UINT32_MAX;

	return cfs_min(active, info->max_open ? info->max_open : UINT32_MAX);
}

int cfs_zones_init(struct cfs_store *st)
{
	st->max_active = cfs_zone_limit(&st->dev->info);
	st->n_active = st->root.n_sides; /* the logs of superblocks */
	st->zq = calloc(ZQS, sizeof(*st->zq));
	for (uint32_t i = 0; st->zq && i < ZQS; i++) {
		st->zq[i].st = st;
		cfs_list_init(&st->zq[i].queue);
		cfs_list_init(&st->zq[i].sent);
	}
	return st->zq ? 0 : -ENOMEM;
}

void cfs_zones_exit(struct cfs_store *st)
{
	free(st->watch_iov.iov_base);
	free(st->zq);
}

/* ---- states -------------------------------------------------------------------------------------- */

/* those that wait for another zone look again */
static void wake(struct cfs_store *st)
{
	for (uint32_t i = 0; i < ZQS; i++)
		if (st->zq[i].waits) {
			st->zq[i].waits = false;
			pump(&st->zq[i]);
		}
}

static void set_active(struct cfs_store *st, uint32_t seg, bool on)
{
	struct cfs_seg *s = &st->segs[seg];

	if (on == !!(s->flags & CFS_SF_ACTIVE))
		return;
	s->flags ^= CFS_SF_ACTIVE;
	st->n_active += on ? 1 : -1u;
	if (!on && st->zq)
		wake(st);
}

static void zone_died(struct cfs_store *st, uint32_t seg, enum cfs_zone_state state)
{
	struct cfs_seg *s = &st->segs[seg];

	if (s->flags & CFS_SF_DEAD)
		return;
	s->flags |= CFS_SF_DEAD;
	st->zones_failed++;
	if (s->state == CFS_SS_BAD)
		return; /* retired: no news */
	s->flags |= state == CFS_ZONE_OFFLINE ? CFS_SF_LOST : 0;
	cfs_err("store: zone %u (segment %u, device offset %llu) is %s now: %s", seg + CFS_DISK_ROOT_ZONES,
		seg, (unsigned long long)cfs_seg_off(st, seg, 0),
		state == CFS_ZONE_READONLY ? "read-only" : "offline",
		state == CFS_ZONE_READONLY ? "what it holds is moved elsewhere" :
					     "what it holds is lost here; other copies are needed");
}

static void tell_lost(struct cfs_defer *d)
{
	struct cfs_store *st = cfs_container_of(d, struct cfs_store, lost_defer);

	st->lost_pending = false;
	if (!st->stopping && st->lost)
		st->lost(st->arg);
}

/* a zone has just died, or died before: what can be done about it while all is in memory */
static void deal_with(struct cfs_store *st, uint32_t seg)
{
	struct cfs_seg *s = &st->segs[seg];
	bool holds = s->state == CFS_SS_JOURNAL || cfs_seg_is_data(s);

	if (s->flags & CFS_SF_DEALT)
		return;
	s->flags |= CFS_SF_DEALT;
	if (s->state == CFS_SS_FREE) {
		s->state = CFS_SS_BAD;
		st->n_free--;
	}
	for (uint32_t c = 0; c < CFS_OS_CLASSES; c++)
		if (st->open[c] && st->open[c]->seg == seg)
			cfs_oseg_end(st, (enum cfs_oseg_class)c);
	if (s->state == CFS_SS_SEALED && !(s->flags & CFS_SF_LOST)) {
		s->flags |= CFS_SF_MOVE;
		cfs_clean_kick(st);
	} else if (s->state == CFS_SS_SEALED && st->cleaner.victim != seg) {
		cfs_seg_keep(st, seg, true); /* there is nothing to be read for the cleaner */
	}
	/* what a journal had there is written again first */
	if (s->flags & CFS_SF_LOST && s->state != CFS_SS_JOURNAL && cfs_zone_retire(st, seg))
		s->flags &= (uint16_t)~CFS_SF_LOST;
	if (!holds || st->lost_pending)
		return;
	st->lost_pending = true;
	st->lost_defer.fn = tell_lost;
	cfs_store_later(st, &st->lost_defer);
}

static void take_state(struct cfs_store *st, uint32_t seg, const struct cfs_zone *z)
{
	struct cfs_seg *s = &st->segs[seg];
	uint64_t bytes = z->state < CFS_ZONE_FULL ? z->wp - z->start : UINT64_MAX;

	s->end = (uint32_t)cfs_min(bytes / BLK, (uint64_t)st->seg_blocks);
	s->flags &= (uint16_t)~CFS_SF_RAGGED;
	if (z->state < CFS_ZONE_FULL && bytes % BLK)
		s->flags |= CFS_SF_RAGGED;
	if (z->state >= CFS_ZONE_READONLY)
		zone_died(st, seg, z->state);
	set_active(st, seg, z->state > CFS_ZONE_EMPTY && z->state < CFS_ZONE_FULL);
	if (st->running && z->state >= CFS_ZONE_READONLY)
		deal_with(st, seg);
}

/* all segments: how far each has been written, and which are beyond use */
int cfs_zones_load(struct cfs_store *st)
{
	struct cfs_zone *z = calloc(REPORT_ZONES, sizeof(*z));
	int rc = z ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < cfs_le32_to_cpu(st->sb.n_retired); i++) {
		uint32_t seg = cfs_le32_to_cpu(st->sb.retired[i]);

		if (seg < st->n_segs)
			st->segs[seg].state = CFS_SS_BAD;
	}
	for (uint32_t i = 0; i < st->n_segs && rc >= 0;) {
		rc = st->dev->ops->zone_report(st->dev, cfs_seg_off(st, i, 0), z,
					       cfs_min(REPORT_ZONES, st->n_segs - i));
		if (!rc)
			rc = -EIO;
		for (int k = 0; k < rc; k++, i++) {
			take_state(st, i, &z[k]);
			if (z[k].type != CFS_ZONE_SEQ || z[k].capacity < st->seg_bytes)
				st->segs[i].flags |= CFS_SF_DEAD;
			if (z[k].state == CFS_ZONE_OFFLINE)
				st->segs[i].end = 0;
		}
	}
	free(z);
	return rc < 0 ? rc : 0;
}

int cfs_zones_reset_all(struct cfs_dev *dev, uint32_t n)
{
	struct cfs_zone *z = calloc(REPORT_ZONES, sizeof(*z));
	uint64_t at = CFS_DISK_ROOT_ZONES * dev->info.zone_bytes;
	int rc = z ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < n && rc >= 0;) {
		int got = dev->ops->zone_report(dev, at, z, cfs_min(REPORT_ZONES, n - i));

		rc = got > 0 ? 0 : got ? got : -EIO;
		for (int k = 0; k < got && !rc; k++)
			if (z[k].type == CFS_ZONE_SEQ && z[k].state != CFS_ZONE_EMPTY &&
			    z[k].state < CFS_ZONE_READONLY)
				rc = dev->ops->zone_sync(dev, CFS_DEV_ZONE_RESET, z[k].start);
		i += (uint32_t)cfs_max(got, 0);
		at += (uint64_t)cfs_max(got, 0) * dev->info.zone_bytes;
	}
	free(z);
	return rc;
}

/* a request to the zone failed: ask how it is. Blocking, and rare */
static void look(struct cfs_store *st, uint32_t seg)
{
	struct cfs_zone z;

	if (st->dev->ops->zone_report(st->dev, cfs_seg_off(st, seg, 0), &z, 1) == 1)
		take_state(st, seg, &z);
}

/*
 * Blocking, at start-up: the zone is written on at a whole block, after a cut that left part of one. 0 also when
 * there was nothing to do.
 */
int cfs_zone_pad(struct cfs_store *st, uint32_t seg)
{
	struct cfs_zone z;
	uint8_t *zeros;
	uint32_t pad;
	int rc = st->dev->ops->zone_report(st->dev, cfs_seg_off(st, seg, 0), &z, 1);

	if (rc != 1)
		return rc < 0 ? rc : -EIO;
	take_state(st, seg, &z);
	pad = z.state < CFS_ZONE_FULL ? (uint32_t)(-(z.wp - z.start) % BLK) : 0;
	if (!pad)
		return 0;
	zeros = cfs_aligned_alloc(BLK);
	rc = zeros ? st->dev->ops->write_sync(st->dev, z.wp, zeros, pad) : -ENOMEM;
	free(zeros);
	if (!rc) {
		st->segs[seg].end++;
		st->segs[seg].flags &= (uint16_t)~CFS_SF_RAGGED;
	}
	return rc;
}

int cfs_zone_sync(struct cfs_store *st, uint32_t seg, enum cfs_dev_op op)
{
	int rc = st->dev->ops->zone_sync(st->dev, op, cfs_seg_off(st, seg, 0));

	if (rc) {
		look(st, seg);
		return rc;
	}
	if (op == CFS_DEV_ZONE_RESET)
		st->segs[seg].end = 0;
	set_active(st, seg, false);
	return 0;
}

/*
 * A zone that can not be reset, and holds nothing any more: it is written down, so that the next start does not
 * find in it what has been moved or deleted since. false: no room to write it down
 */
bool cfs_zone_retire(struct cfs_store *st, uint32_t seg)
{
	uint32_t n = cfs_le32_to_cpu(st->sb.n_retired);
	int rc;

	for (uint32_t i = 0; i < n; i++)
		if (cfs_le32_to_cpu(st->sb.retired[i]) == seg)
			return true;
	if (n == CFS_DISK_RETIRED)
		return false;
	st->sb.retired[n] = cfs_cpu_to_le32(seg);
	st->sb.n_retired = cfs_cpu_to_le32(n + 1);
	rc = cfs_super_write(&st->root, &st->sb);
	if (rc) {
		st->sb.n_retired = cfs_cpu_to_le32(n);
		return false;
	}
	cfs_warn("store: zone %u (segment %u) is retired", seg + CFS_DISK_ROOT_ZONES, seg);
	return true;
}

uint32_t cfs_zones_lost(const struct cfs_store *st)
{
	for (uint32_t i = 0; i < st->n_segs; i++)
		if (st->segs[i].flags & CFS_SF_LOST)
			return i + CFS_DISK_ROOT_ZONES;
	return UINT32_MAX;
}

void cfs_zones_explain(struct cfs_store *st)
{
	for (uint32_t i = 0; i < st->n_segs; i++)
		if (st->segs[i].flags & CFS_SF_LOST && st->segs[i].state != CFS_SS_JOURNAL &&
		    cfs_zone_retire(st, i))
			st->segs[i].flags &= (uint16_t)~CFS_SF_LOST;
}

/* ---- watching ------------------------------------------------------------------------------------ */

/*
 * A zone may fail without anybody writing to it, and what a journal had in it is in memory only as long as the server
 * runs: some zones are looked at every few seconds. Those reports block; so a read goes before them that does not, and waits
 * for a drive that is just being reset.
 */
static void watch_segments(struct cfs_store *st)
{
	struct cfs_zone *z = calloc(REPORT_ZONES, sizeof(*z));
	int n = z ? st->dev->ops->zone_report(st->dev, cfs_seg_off(st, st->watch_next, 0), z,
					      cfs_min(REPORT_ZONES, st->n_segs - st->watch_next)) :
		    0;

	for (int i = 0; i < n; i++)
		if (z[i].state >= CFS_ZONE_READONLY &&
		    !(st->segs[st->watch_next + (uint32_t)i].flags & CFS_SF_DEAD))
			take_state(st, st->watch_next + (uint32_t)i, &z[i]);
	st->watch_next = n > 0 && st->watch_next + (uint32_t)n < st->n_segs ? st->watch_next + (uint32_t)n : 0;
	free(z);
}

/* one of the zones that have the newest superblock: it is written again, elsewhere */
static void watch_root(struct cfs_store *st)
{
	struct cfs_zone z[CFS_DISK_ROOT_ZONES];
	bool failing = false;

	if (st->dev->ops->zone_report(st->dev, 0, z, CFS_DISK_ROOT_ZONES) != (int)CFS_DISK_ROOT_ZONES)
		return;
	for (uint32_t s = 0; s < st->root.n_sides; s++)
		failing |= st->root.side[s].newest != UINT32_MAX &&
			   z[st->root.side[s].newest].state >= CFS_ZONE_READONLY;
	if (failing && !st->root_seen_failing)
		cfs_super_write(&st->root, &st->sb);
	st->root_seen_failing = failing;
}

static void watch_read(struct cfs_dev_req *req)
{
	struct cfs_store *st = cfs_container_of(req, struct cfs_store, watch_req);

	cfs_store_submitted(st);
	if (!st->running || req->result == -ENODEV)
		return;
	watch_root(st);
	watch_segments(st);
	cfs_timer_set(st->clock, &st->watch, cfs_clock_boot_ns(st->clock) + WATCH_NS);
}

static void on_watch(struct cfs_timer *timer)
{
	struct cfs_store *st = cfs_container_of(timer, struct cfs_store, watch);

	st->watch_req = (struct cfs_dev_req){
		.op = CFS_DEV_READ,
		.offset = st->root.side[0].zone * st->seg_stride,
		.iov = &st->watch_iov,
		.iovcnt = 1,
		.len = st->watch_iov.iov_len,
		.done = watch_read,
	};
	cfs_store_submit(st, &st->watch_req);
}

/* 0, or -ENOMEM */
int cfs_zones_start(struct cfs_store *st)
{
	st->watch_iov = (struct iovec){ cfs_aligned_raw(BLK), BLK };
	if (!st->watch_iov.iov_base)
		return -ENOMEM;
	st->running = true;
	st->watch.fn = on_watch;
	cfs_timer_set(st->clock, &st->watch, cfs_clock_boot_ns(st->clock) + WATCH_NS);
	return 0;
}

void cfs_zones_stop(struct cfs_store *st)
{
	if (st->running)
		cfs_timer_cancel(st->clock, &st->watch);
	st->running = false;
}

/* ---- queues -------------------------------------------------------------------------------------- */

static struct zreq *zreq_of(struct cfs_dev_req *req)
{
	return (struct zreq *)(void *)req->priv;
}

static struct cfs_dev_req *req_of(struct cfs_list *node)
{
	struct zreq *z = cfs_container_of(node, struct zreq, node);

	return cfs_container_of((uint64_t *)(void *)z, struct cfs_dev_req, priv);
}

static struct cfs_dev_req *first_of(struct cfs_list *list)
{
	return cfs_list_empty(list) ? NULL : req_of(list->next);
}

static struct cfs_zq *queue_of(struct cfs_store *st, uint32_t seg)
{
	struct cfs_zq *unused = NULL;

	for (uint32_t i = 0; i < ZQS; i++) {
		if (st->zq[i].used && st->zq[i].seg == seg)
			return &st->zq[i];
		if (!st->zq[i].used && !unused)
			unused = &st->zq[i];
	}
	CFS_ASSERT(unused);
	unused->used = true;
	unused->seg = seg;
	return unused;
}

static void end_request(struct cfs_dev_req *req, int64_t result)
{
	cfs_list_del(&zreq_of(req)->node);
	req->result = result < 0 ? result : (int64_t)req->len;
	req->done(req);
}

static void completed(struct cfs_dev_req *dev_req)
{
	struct cfs_zq *q = cfs_container_of(dev_req, struct cfs_zq, req);
	struct cfs_store *st = q->st;
	struct cfs_seg *s = &st->segs[q->seg];
	uint64_t end = cfs_seg_off(st, q->seg, 0) + st->dev->info.zone_capacity;
	int64_t result = q->req.result;
	struct cfs_dev_req *req;

	if (result < 0) {
		look(st, q->seg);
		/* those behind were meant for where this one would have ended */
		while (q->req.op == CFS_DEV_WRITE && (req = first_of(&q->queue)) &&
		       req->op == CFS_DEV_WRITE) {
			cfs_list_del(&zreq_of(req)->node);
			cfs_list_add_tail(&q->sent, &zreq_of(req)->node);
		}
	} else if (q->req.op == CFS_DEV_WRITE) {
		s->end = (uint32_t)((q->req.offset + q->req.len - cfs_seg_off(st, q->seg, 0)) / BLK);
		if (q->req.offset + q->req.len == end)
			set_active(st, q->seg, false);
	} else {
		if (q->req.op == CFS_DEV_ZONE_RESET)
			s->end = 0;
		st->zone_resets += q->req.op == CFS_DEV_ZONE_RESET;
		set_active(st, q->seg, false);
	}
	if (q->req.op == CFS_DEV_ZONE_FINISH) {
		q->finish = false;
		cfs_store_submitted(st);
		wake(st);
	}
	while ((req = first_of(&q->sent)))
		end_request(req, result);
	q->busy = false;
	pump(q);
}

static void refused(struct cfs_defer *d)
{
	completed(&cfs_container_of(d, struct cfs_zq, defer)->req);
}

/* the first request, and those behind it that fit into the same device write */
static void gather(struct cfs_zq *q)
{
	const struct cfs_dev_info *info = &q->st->dev->info;
	struct cfs_dev_req *req = first_of(&q->queue), *out = &q->req;

	*out = (struct cfs_dev_req){ .op = req->op, .offset = req->offset, .done = completed };
	do {
		cfs_list_del(&zreq_of(req)->node);
		cfs_list_add_tail(&q->sent, &zreq_of(req)->node);
		if (req->op != CFS_DEV_WRITE)
			break;
		memcpy(q->iov + out->iovcnt, req->iov, req->iovcnt * sizeof(*req->iov));
		out->iovcnt += req->iovcnt;
		out->len += req->len;
		out->flags |= req->flags;
		req = first_of(&q->queue);
	} while (req && req->op == CFS_DEV_WRITE && out->iovcnt + req->iovcnt <= CFS_DEV_IOV_MAX &&
		 out->len + req->len <= info->max_io &&
		 (!((out->flags | req->flags) & CFS_DEV_ATOMIC) ||
		  cfs_dev_can_atomic(info, out->offset, out->len + req->len)));
	out->iov = q->iov;
}

/* is the zone before this one of a journal still to be finished? */
static bool must_wait(const struct cfs_store *st, const struct cfs_seg *s)
{
	for (uint32_t i = 0; !s->end && s->after && i < ZQS; i++)
		if (st->zq[i].used && st->zq[i].finish && st->zq[i].seg == s->after - 1)
			return true;
	return false;
}

static void pump(struct cfs_zq *q)
{
	struct cfs_store *st = q->st;
	struct cfs_seg *s = &st->segs[q->seg];
	struct cfs_dev_req *req = first_of(&q->queue);

	if (q->busy)
		return;
	if (!req) {
		if (q->finish && (s->flags & (CFS_SF_ACTIVE | CFS_SF_DEAD)) == CFS_SF_ACTIVE) {
			q->req = (struct cfs_dev_req){ .op = CFS_DEV_ZONE_FINISH,
						       .offset = cfs_seg_off(st, q->seg, 0),
						       .done = completed };
			send(q, 0);
			return;
		}
		q->used = false;
		if (q->finish) {
			q->finish = false;
			cfs_store_submitted(st);
			wake(st);
		}
		return;
	}
	if (req->op == CFS_DEV_WRITE && !(s->flags & CFS_SF_ACTIVE)) {
		q->waits = st->n_active >= st->max_active || must_wait(st, s);
		if (q->waits)
			return;
		set_active(st, q->seg, true);
	}
	gather(q);
	/* not where the zone ends: an earlier write failed, and who sent this one did not know yet */
	send(q, q->req.op == CFS_DEV_WRITE && q->req.offset != cfs_seg_off(st, q->seg, s->end) ? -EIO :
												 0);
}

static void send(struct cfs_zq *q, int rc)
{
	struct cfs_store *st = q->st;

	q->busy = true;
	if (!rc)
		rc = cfs_dev_submit(st->dev, &q->req);
	if (rc) {
		q->req.result = rc;
		q->defer.fn = refused;
		cfs_store_later(st, &q->defer);
	}
}

/* no more will be written to the zone: it stops being active when all that is queued has been written */
void cfs_zone_finish(struct cfs_store *st, uint32_t seg)
{
	struct cfs_zq *q = queue_of(st, seg);

	st->inflight += !q->finish;
	q->finish = true;
	pump(q);
}

void cfs_zone_follow(struct cfs_store *st, uint32_t seg, uint32_t prev)
{
	st->segs[seg].after = prev + 1;
	cfs_zone_finish(st, prev);
}

/* a WRITE or RESET; done() comes later, whatever happens */
void cfs_zone_submit(struct cfs_store *st, struct cfs_dev_req *req)
{
	struct cfs_zq *q = queue_of(st, (uint32_t)((req->offset - st->seg_base) / st->seg_stride));

	cfs_list_add_tail(&q->queue, &zreq_of(req)->node);
	pump(q);
}
