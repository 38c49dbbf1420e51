/* SPDX-License-Identifier: MIT */
/* crashdev.c - see crashdev.h. State: struct cfs_crashdev; one thread. */
#include "selftests/lib/crashdev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/hash.h"
#include "dev/zones.h"
#include "selftests/lib/realdev.h"

#define TIMERS_MAX 64u
#define SECTOR 512u
#define NEVER UINT64_MAX

struct logged {
	enum cfs_dev_op op;
	uint64_t off, len;
	uint8_t *data; /* of a write */
	uint64_t submitted, completed; /* events */
	bool durable, atomic, refused;
};

/* in the image, behind each zone's capacity */
struct zone_mark {
	uint64_t written;
	uint64_t state;
};

struct pending {
	struct cfs_dev_req *req;
	uint64_t log; /* index, or NEVER */
	int refused;
};

struct cfs_crashdev {
	struct cfs_dev dev;
	struct cfs_clock clock;
	struct cfs_zone_geometry g; /* n_zones 0: it has none */
	struct cfs_zones *zones;
	struct cfs_sparse *sparse; /* NULL: all of it is there */
	struct realdev *real;	/* does the same, or NULL */
	bool leads;		/* and it is this model, the newest, that it follows */
	uint8_t *initial, *bytes;
	uint8_t *cached; /* what reads saw at the beginning, if the medium had less: cfs_crashdev_set_medium() */
	struct pending *pending;
	uint32_t n_pending, cap_pending;
	struct logged *log;
	uint64_t n_log, cap_log, events, writes;
	struct cfs_timer *timers[TIMERS_MAX];
	uint32_t n_timers;
	uint64_t now_ns, shuffle, random;
	bool forget;
	uint32_t fail_n[CFS_DEV_OPS];
	int fail_err[CFS_DEV_OPS];
};

static struct cfs_crashdev *of(struct cfs_dev *dev)
{
	return cfs_container_of(dev, struct cfs_crashdev, dev);
}

static uint64_t next_random(uint64_t *s)
{
	*s += 0x9e3779b97f4a7c15ull;
	return cfs_hash_u64(*s);
}

/* ---- device ----------------------------------------------------------------------------- */

static bool writes(enum cfs_dev_op op)
{
	return op == CFS_DEV_WRITE || op == CFS_DEV_ZONE_APPEND;
}

static uint64_t log_add(struct cfs_crashdev *cd, enum cfs_dev_op op, uint64_t off, uint64_t len,
			bool durable)
{
	struct logged *l;

	if (cd->forget)
		return NEVER;
	if (cd->n_log == cd->cap_log) {
		cd->cap_log = cd->cap_log ? cd->cap_log * 2 : 256;
		cd->log = realloc(cd->log, cd->cap_log * sizeof(*cd->log));
		CFS_ASSERT(cd->log);
	}
	l = &cd->log[cd->n_log];
	*l = (struct logged){ .op = op,
			      .off = off,
			      .len = len,
			      .submitted = ++cd->events,
			      .completed = NEVER,
			      .durable = durable,
			      .atomic = cfs_dev_can_atomic(&cd->dev.info, off, len) };
	if (writes(op)) {
		l->data = malloc(len);
		CFS_ASSERT(l->data);
	}
	return cd->n_log++;
}

/* ---- zones ------------------------------------------------------------------------------- */

static struct zone_mark *mark_of(const struct cfs_crashdev *cd, uint8_t *image, uint64_t zone)
{
	return (void *)(image + zone * cd->g.zone_bytes + cd->g.zone_capacity);
}

static void mark_put(struct cfs_crashdev *cd, struct cfs_zones *zones, uint8_t *image, uint64_t zone)
{
	struct cfs_zone z;

	CFS_ASSERT(cfs_zones_report(zones, zone * cd->g.zone_bytes, &z, 1) == 1);
	*mark_of(cd, image, zone) =
		(struct zone_mark){ cfs_zones_written(zones, (uint32_t)zone), z.state };
}

static struct cfs_zones *zones_from(struct cfs_crashdev *cd, uint8_t *image)
{
	struct cfs_zones *zones = NULL;

	CFS_ASSERT(!cfs_zones_create(&cd->g, cd->dev.info.write_unit, &zones));
	for (uint32_t i = 0; i < cd->g.n_zones; i++) {
		const struct zone_mark *m = mark_of(cd, image, i);

		if (m->state == CFS_ZONE_FULL)
			cfs_zones_change(zones, CFS_DEV_ZONE_FINISH, i * cd->g.zone_bytes);
		cfs_zones_cut(zones, i, m->written);
		if (m->state > CFS_ZONE_FULL)
			cfs_zones_fail(zones, i, (enum cfs_zone_state)m->state);
	}
	return zones;
}

void cfs_crashdev_zone_fail(struct cfs_crashdev *cd, uint32_t zone, enum cfs_zone_state state)
{
	cfs_zones_fail(cd->zones, zone, state);
	mark_put(cd, cd->zones, cd->bytes, zone);
}

const struct cfs_zone_geometry *cfs_crashdev_zones(const struct cfs_crashdev *cd)
{
	return cd->zones ? &cd->g : NULL;
}

/* what the zones say to a request that is carried out; *at: where its bytes go */
static int zone_step(struct cfs_crashdev *cd, enum cfs_dev_op op, uint64_t off, uint64_t len, bool ok,
		     uint64_t *at)
{
	int rc = -EINVAL;

	if (!cd->zones || op == CFS_DEV_READ || op == CFS_DEV_FLUSH)
		return 0;
	if (writes(op))
		rc = cfs_zones_end(cd->zones, op, off, len, ok, at);
	else if (op > CFS_DEV_DISCARD)
		rc = ok ? cfs_zones_change(cd->zones, op, off) : 0;
	mark_put(cd, cd->zones, cd->bytes, off / cd->g.zone_bytes);
	return rc;
}

static int zone_begin(struct cfs_crashdev *cd, enum cfs_dev_op op, uint64_t off)
{
	return cd->zones && writes(op) ? cfs_zones_begin(cd->zones, op, off) : 0;
}

/* ---- requests ---------------------------------------------------------------------------- */

static int cd_submit(struct cfs_dev *dev, struct cfs_dev_req *req)
{
	struct cfs_crashdev *cd = of(dev);
	uint64_t log = NEVER, at = 0;

	CFS_ASSERT(!cfs_dev_check(dev, req));
	if (writes(req->op) || req->op == CFS_DEV_FLUSH || req->op > CFS_DEV_DISCARD)
		log = log_add(cd, req->op, req->offset, req->len, req->flags & CFS_DEV_DURABLE);
	if (writes(req->op)) {
		cd->writes++;
		for (uint32_t i = 0; i < req->iovcnt && log != NEVER; i++) {
			memcpy(cd->log[log].data + at, req->iov[i].iov_base, req->iov[i].iov_len);
			at += req->iov[i].iov_len;
		}
	}
	if (cd->n_pending == cd->cap_pending) {
		cd->cap_pending = cd->cap_pending ? cd->cap_pending * 2 : 64;
		cd->pending = realloc(cd->pending, cd->cap_pending * sizeof(*cd->pending));
		CFS_ASSERT(cd->pending);
	}
	cd->pending[cd->n_pending++] =
		(struct pending){ req, log, zone_begin(cd, req->op, req->offset) };
	return 0;
}

/* what the file system below says */
static int sparse_step(struct cfs_crashdev *cd, enum cfs_dev_op op, uint64_t off, uint64_t len)
{
	if (op == CFS_DEV_WRITE || op == CFS_DEV_RESERVE)
		return cfs_sparse_take(cd->sparse, off, len);
	if (op == CFS_DEV_DISCARD)
		cfs_sparse_give(cd->sparse, off, len);
	else if (op == CFS_DEV_ROOM)
		cfs_sparse_room(cd->sparse, &cd->dev.room);
	return 0;
}

static int cd_reserved_sync(struct cfs_dev *dev, uint64_t offset, uint64_t len)
{
	return of(dev)->sparse ? cfs_sparse_has(of(dev)->sparse, offset, len) : -EOPNOTSUPP;
}

void cfs_crashdev_sparse(struct cfs_crashdev *cd, struct cfs_sparse *sparse)
{
	cd->sparse = sparse;
	cd->dev.info.flags |= CFS_DEV_F_SPARSE;
}

/* what the device makes of it. 0, or the error */
static int outcome(struct cfs_crashdev *cd, struct pending *p, uint64_t *at)
{
	const struct cfs_dev_req *req = p->req;
	int rc = 0, zone = p->refused;

	if (cd->fail_n[req->op]) {
		cd->fail_n[req->op]--;
		rc = cd->fail_err[req->op];
	}
	if (!rc && cd->sparse)
		rc = sparse_step(cd, req->op, req->offset, req->len);
	if (!zone)
		zone = zone_step(cd, req->op, req->offset, req->len, !rc, at);
	rc = rc ? rc : zone;
	if (rc && p->log != NEVER && !cd->forget)
		cd->log[p->log].refused = cd->zones; /* nothing of it has arrived */
	return rc;
}

/* the real device below knows nothing of zones that the test has let fail */
static bool alive(struct cfs_crashdev *cd, enum cfs_dev_op op, uint64_t offset)
{
	struct cfs_zone z;

	if (!cd->zones || op == CFS_DEV_FLUSH)
		return true;
	CFS_ASSERT(cfs_zones_report(cd->zones, offset / cd->g.zone_bytes * cd->g.zone_bytes, &z, 1) == 1);
	return z.state != CFS_ZONE_OFFLINE && (z.state != CFS_ZONE_READONLY || op == CFS_DEV_READ);
}

/* what came from a real device where nothing was ever written is no better than what the model makes up */
static void hide_unwritten(struct cfs_crashdev *cd, const struct cfs_dev_req *req)
{
	uint64_t at = req->offset;

	for (uint32_t i = 0; i < req->iovcnt && cd->zones; i++, at += req->iov[i - 1].iov_len)
		CFS_ASSERT(!cfs_zones_read(cd->zones, at, req->iov[i].iov_base, req->iov[i].iov_len));
}

static void complete(struct cfs_crashdev *cd, struct pending p)
{
	struct cfs_dev_req *req = p.req;
	uint64_t at = req->offset, in = 0, begin;

	if (cd->leads && alive(cd, req->op, at))
		realdev_before(cd->real, req->op, at, req->len);
	req->result = outcome(cd, &p, &at);
	if (req->result) {
		req->done(req);
		return;
	}
	req->ret_offset = begin = at;
	if (req->op == CFS_DEV_READ || writes(req->op)) {
		for (uint32_t i = 0; i < req->iovcnt; i++) {
			void *buf = req->iov[i].iov_base;
			size_t len = req->iov[i].iov_len;

			/* nobody may touch a buffer that is being written */
			CFS_ASSERT(req->op == CFS_DEV_READ || p.log == NEVER || cd->forget ||
				   !memcmp(cd->log[p.log].data + in, buf, len));
			if (writes(req->op))
				memcpy(cd->bytes + at, buf, len);
			else
				memcpy(buf, cd->bytes + at, len);
			if (req->op == CFS_DEV_READ && cd->zones && !req->result)
				req->result = cfs_zones_read(cd->zones, at, buf, len);
			at += len;
			in += len;
		}
	} else if (req->op == CFS_DEV_DISCARD) {
		memset(cd->bytes + req->offset, 0xdc,
		       req->len); /* anything may be there afterwards */
	}
	if (cd->leads && !req->result) {
		realdev_do(cd->real, req, begin);
		if (req->op == CFS_DEV_READ)
			hide_unwritten(cd, req);
	}
	req->result = req->result ? req->result : (int64_t)req->len;
	if (p.log != NEVER && req->result >= 0 && !cd->forget)
		cd->log[p.log].completed = ++cd->events;
	req->done(req);
}

/* a blocking request: all at once */
static int sync_op(struct cfs_crashdev *cd, enum cfs_dev_op op, uint64_t offset, const void *buf,
		   uint32_t len)
{
	uint64_t log, at = offset;
	int rc;

	CFS_ASSERT(!((offset | len) & (cd->dev.info.write_unit - 1)) &&
		   offset + len <= cd->dev.info.size_bytes);
	if (cd->fail_n[op]) {
		cd->fail_n[op]--;
		return cd->fail_err[op];
	}
	rc = cd->sparse ? sparse_step(cd, op, offset, len) : 0;
	if (!rc && cd->leads && alive(cd, op, offset))
		realdev_before(cd->real, op, offset, len);
	if (!rc)
		rc = zone_begin(cd, op, offset);
	if (!rc)
		rc = zone_step(cd, op, offset, len, true, &at);
	if (rc)
		return rc;
	log = log_add(cd, op, offset, len, true);
	if (writes(op))
		memcpy(cd->bytes + offset, buf, len);
	if (log != NEVER) {
		if (writes(op))
			memcpy(cd->log[log].data, buf, len);
		cd->log[log].completed = ++cd->events;
	}
	cd->writes += writes(op);
	if (cd->leads)
		realdev_sync(cd->real, op, offset, (void *)(uintptr_t)buf, len);
	return 0;
}

static int cd_write_sync(struct cfs_dev *dev, uint64_t offset, const void *buf, uint32_t len)
{
	return sync_op(of(dev), CFS_DEV_WRITE, offset, buf, len);
}

static int cd_zone_sync(struct cfs_dev *dev, enum cfs_dev_op op, uint64_t offset)
{
	return sync_op(of(dev), op, offset, NULL, 0);
}

static int cd_flush_sync(struct cfs_dev *dev)
{
	return sync_op(of(dev), CFS_DEV_FLUSH, 0, NULL, 0);
}

static int cd_zone_report(struct cfs_dev *dev, uint64_t offset, struct cfs_zone *zones, uint32_t n)
{
	return cfs_zones_report(of(dev)->zones, offset, zones, n);
}

static int cd_read_sync(struct cfs_dev *dev, uint64_t offset, void *buf, uint32_t len)
{
	CFS_ASSERT(!((offset | len) & (dev->info.write_unit - 1)) &&
		   offset + len <= dev->info.size_bytes);
	memcpy(buf, of(dev)->bytes + offset, len);
	if (of(dev)->leads && alive(of(dev), CFS_DEV_READ, offset)) {
		realdev_before(of(dev)->real, CFS_DEV_READ, offset, len);
		realdev_sync(of(dev)->real, CFS_DEV_READ, offset, buf, len);
	}
	return of(dev)->zones ? cfs_zones_read(of(dev)->zones, offset, buf, len) : 0;
}

static void cd_mem_add(struct cfs_dev *dev, void *base, size_t len)
{
	if (of(dev)->real)
		realdev_mem(of(dev)->real, base, len, true);
}

static void cd_mem_del(struct cfs_dev *dev, void *base)
{
	if (of(dev)->real)
		realdev_mem(of(dev)->real, base, 0, false);
}

static void cd_close(struct cfs_dev *dev)
{
	(void)dev;
}

static const struct cfs_dev_ops cd_ops = {
	.name = "crashdev",
	.version = CFS_DEV_OPS_VERSION,
	.submit = cd_submit,
	.write_sync = cd_write_sync,
	.read_sync = cd_read_sync,
	.zone_report = cd_zone_report,
	.zone_sync = cd_zone_sync,
	.flush_sync = cd_flush_sync,
	.reserved_sync = cd_reserved_sync,
	.mem_add = cd_mem_add,
	.mem_del = cd_mem_del,
	.close = cd_close,
};

/* ---- clock ------------------------------------------------------------------------------ */

static struct cfs_crashdev *of_clock(struct cfs_clock *clock)
{
	return cfs_container_of(clock, struct cfs_crashdev, clock);
}

static uint64_t ck_now(struct cfs_clock *clock)
{
	return of_clock(clock)->now_ns;
}

static void ck_cancel(struct cfs_clock *clock, struct cfs_timer *timer)
{
	struct cfs_crashdev *cd = of_clock(clock);

	if (!timer->heap_pos)
		return;
	CFS_ASSERT(cd->timers[timer->heap_pos - 1] == timer);
	cd->timers[timer->heap_pos - 1] = cd->timers[--cd->n_timers];
	cd->timers[timer->heap_pos - 1]->heap_pos = timer->heap_pos;
	timer->heap_pos = 0;
}

static void ck_set(struct cfs_clock *clock, struct cfs_timer *timer, uint64_t deadline_ns)
{
	struct cfs_crashdev *cd = of_clock(clock);

	ck_cancel(clock, timer);
	CFS_ASSERT(cd->n_timers < TIMERS_MAX && timer->fn);
	timer->deadline_ns = deadline_ns;
	cd->timers[cd->n_timers++] = timer;
	timer->heap_pos = cd->n_timers;
}

static uint64_t ck_random(struct cfs_clock *clock)
{
	return next_random(&of_clock(clock)->random);
}

static const struct cfs_clock_ops ck_ops = {
	.name = "crashdev",
	.version = CFS_CLOCK_OPS_VERSION,
	.boot_ns = ck_now,
	.real_ns = ck_now,
	.timer_set = ck_set,
	.timer_cancel = ck_cancel,
	.random = ck_random,
};

/* ---- running ---------------------------------------------------------------------------- */

static struct cfs_timer *earliest(const struct cfs_crashdev *cd)
{
	struct cfs_timer *t = NULL;

	for (uint32_t i = 0; i < cd->n_timers; i++)
		if (!t || cd->timers[i]->deadline_ns < t->deadline_ns)
			t = cd->timers[i];
	return t;
}

bool cfs_crashdev_turn(struct cfs_crashdev *cd)
{
	struct cfs_timer *t = earliest(cd);
	uint32_t i = 0;

	if (t && t->deadline_ns <= cd->now_ns) {
		ck_cancel(&cd->clock, t);
		t->fn(t);
		return true;
	}
	if (cd->n_pending) {
		struct pending p;

		if (cd->shuffle)
			i = (uint32_t)(next_random(&cd->shuffle) % cd->n_pending);
		p = cd->pending[i];
		cd->n_pending--;
		memmove(cd->pending + i, cd->pending + i + 1,
			(cd->n_pending - i) * sizeof(*cd->pending));
		cd->now_ns += 10000;
		complete(cd, p);
		return true;
	}
	if (!t)
		return false;
	cd->now_ns = t->deadline_ns;
	return true;
}

static uint64_t zone_written(void *arg, uint32_t zone, bool *ret_full)
{
	struct cfs_crashdev *cd = arg;
	struct cfs_zone z;

	CFS_ASSERT(cfs_zones_report(cd->zones, zone * cd->g.zone_bytes, &z, 1) == 1);
	*ret_full = z.state == CFS_ZONE_FULL;
	return cfs_zones_written(cd->zones, zone);
}

static struct cfs_crashdev *leader;	/* there is one real device, and several models at a time */

static void real_begin(struct cfs_crashdev *cd)
{
	const struct realdev_model m = {
		.g = cd->zones ? &cd->g : NULL, .image = cd->bytes, .written = zone_written, .arg = cd,
		.size_bytes = cd->dev.info.size_bytes,
	};

	cd->real = realdev_get();
	if (!cd->real)
		return;
	if (leader)
		leader->leads = false;
	leader = cd;
	cd->leads = true;
	realdev_begin(cd->real, &m, &cd->dev.info);
}

static struct cfs_crashdev *create(uint64_t size_bytes, const uint8_t *image, uint64_t seed)
{
	struct cfs_crashdev *cd = calloc(1, sizeof(*cd));

	CFS_ASSERT(cd);
	cd->initial = calloc(1, size_bytes);
	cd->bytes = calloc(1, size_bytes);
	CFS_ASSERT(cd->initial && cd->bytes);
	if (image) {
		memcpy(cd->initial, image, size_bytes);
		memcpy(cd->bytes, image, size_bytes);
	}
	cd->dev.ops = &cd_ops;
	cd->dev.info = (struct cfs_dev_info){
		.size_bytes = size_bytes,
		.write_unit = 512,
		.mem_align = 512,
		.max_io = 8u << 20,
		.flags = CFS_DEV_F_VOLATILE,
		.model = "crashdev",
	};
	cd->clock.ops = &ck_ops;
	cd->now_ns = CFS_NSEC_PER_SEC;
	cd->shuffle = seed;
	cd->random = seed + 1;
	return cd;
}

struct cfs_crashdev *cfs_crashdev_create(uint64_t size_bytes, const uint8_t *image, uint64_t seed)
{
	struct cfs_crashdev *cd = create(size_bytes, image, seed);

	real_begin(cd);
	return cd;
}

struct cfs_crashdev *cfs_crashdev_create_zoned(const struct cfs_zone_geometry *g, const uint8_t *image,
					       uint64_t seed)
{
	struct cfs_crashdev *cd = create(g->zone_bytes * g->n_zones, image, seed);

	CFS_ASSERT(g->zone_bytes - g->zone_capacity >= sizeof(struct zone_mark));
	cd->g = *g;
	cd->zones = zones_from(cd, cd->bytes);
	cfs_zones_info(cd->zones, &cd->dev.info);
	real_begin(cd);
	return cd;
}

static void log_free(struct cfs_crashdev *cd)
{
	for (uint64_t i = 0; i < cd->n_log; i++)
		free(cd->log[i].data);
	free(cd->log);
	cd->log = NULL;
	cd->n_log = cd->cap_log = 0;
}

void cfs_crashdev_destroy(struct cfs_crashdev *cd)
{
	if (!cd)
		return;
	if (leader == cd)
		leader = NULL;
	log_free(cd);
	cfs_zones_destroy(cd->zones);
	free(cd->pending);
	free(cd->initial);
	free(cd->cached);
	free(cd->bytes);
	free(cd);
}

void cfs_crashdev_forget(struct cfs_crashdev *cd)
{
	cd->forget = true;
	log_free(cd);
}

void cfs_crashdev_set_medium(struct cfs_crashdev *cd, const uint8_t *image)
{
	cd->cached = malloc(cd->dev.info.size_bytes);
	CFS_ASSERT(cd->cached);
	memcpy(cd->cached, cd->initial, cd->dev.info.size_bytes);
	memcpy(cd->initial, image, cd->dev.info.size_bytes);
}

struct cfs_dev *cfs_crashdev_dev(struct cfs_crashdev *cd)
{
	return &cd->dev;
}

struct cfs_clock *cfs_crashdev_clock(struct cfs_crashdev *cd)
{
	return &cd->clock;
}

uint32_t cfs_crashdev_pending(const struct cfs_crashdev *cd)
{
	return cd->n_pending;
}

uint8_t *cfs_crashdev_bytes(struct cfs_crashdev *cd)
{
	return cd->bytes;
}

void cfs_crashdev_fail(struct cfs_crashdev *cd, enum cfs_dev_op op, uint32_t n, int err)
{
	CFS_ASSERT(op < CFS_DEV_OPS && err < 0);
	cd->fail_n[op] = n;
	cd->fail_err[op] = err;
}

uint64_t cfs_crashdev_now(const struct cfs_crashdev *cd)
{
	return cd->events;
}

uint64_t cfs_crashdev_writes(const struct cfs_crashdev *cd)
{
	return cd->writes;
}

/* ---- the cut ---------------------------------------------------------------------------- */

/*
 * durable at `when`: completed with DURABLE, or completed before a flush was submitted that has
 * completed
 */
static bool is_durable(const struct cfs_crashdev *cd, uint64_t i, uint64_t when)
{
	const struct logged *l = &cd->log[i];

	if (l->completed > when)
		return false;
	if (l->durable)
		return true;
	for (uint64_t k = i + 1; k < cd->n_log && cd->log[k].submitted <= when; k++)
		if (cd->log[k].op == CFS_DEV_FLUSH && cd->log[k].completed <= when &&
		    cd->log[k].submitted > l->completed)
			return true;
	return false;
}

/* sectors of one write that has not become durable */
static void tear(const struct logged *l, uint64_t luck, uint64_t *rnd,
		 uint8_t *out)
{
	/* often a beginning, sometimes any sectors */
	uint64_t cut = next_random(rnd) % (l->len / SECTOR + 1);

	if (l->atomic) {
		if (luck & 2)
			memcpy(out + l->off, l->data, l->len);
		return;
	}
	for (uint64_t s = 0; s < l->len / SECTOR; s++)
		if (luck & 1 ? s < cut : next_random(rnd) & 1)
			memcpy(out + l->off + s * SECTOR, l->data + s * SECTOR, SECTOR);
}

/* what is left of one zone: all that was durable, and a beginning of what followed */
static void zone_image(struct cfs_crashdev *cd, uint64_t when, enum cfs_crash_mode mode, uint64_t *rnd,
		       uint32_t zone, uint8_t *out)
{
	const uint64_t start = zone * cd->g.zone_bytes, unit = cd->dev.info.write_unit;
	struct zone_mark *m = mark_of(cd, out, zone);
	uint64_t firm = m->written, at = firm, since = 0, cut;
	bool full = m->state == CFS_ZONE_FULL;

	for (uint64_t i = 0; i < cd->n_log && cd->log[i].submitted <= when; i++) {
		const struct logged *l = &cd->log[i];
		bool done = l->completed <= when;

		if (l->op == CFS_DEV_FLUSH || l->refused || l->off / cd->g.zone_bytes != zone)
			continue;
		if (l->data) {
			memcpy(out + l->off, l->data, l->len);
			at = l->off + l->len - start;
			firm = is_durable(cd, i, when) ? at : firm;
			continue;
		}
		if (!done && (mode == CFS_CRASH_NONE || (mode != CFS_CRASH_ALL && next_random(rnd) & 1)))
			continue;
		full = l->op == CFS_DEV_ZONE_FINISH;
		if (l->op == CFS_DEV_ZONE_RESET) {
			firm = at = 0;
			since = i;
		}
	}
	cut = mode == CFS_CRASH_NONE ? firm :
	      mode == CFS_CRASH_ALL  ? at :
				       firm + next_random(rnd) % ((at - firm) / unit + 1) * unit;
	/* the cut falls between requests, or in none that is atomic */
	for (uint64_t i = since; i < cd->n_log && cd->log[i].submitted <= when; i++) {
		const struct logged *l = &cd->log[i];

		if (l->data && !l->refused && l->off / cd->g.zone_bytes == zone && l->off - start >= firm &&
		    l->off - start < cut && cut < l->off - start + l->len &&
		    (mode == CFS_CRASH_SUBSET || l->atomic))
			cut = l->off - start;
	}
	if (m->state > CFS_ZONE_FULL)
		return;
	*m = (struct zone_mark){ cut, full || cut == cd->g.zone_capacity ? CFS_ZONE_FULL :
				      cut				  ? CFS_ZONE_CLOSED :
									    CFS_ZONE_EMPTY };
}

/*
 * Zones whose last bytes were only in the cache at the beginning: there for good once a flush has completed. Until
 * then the write pointer hides them, unless something durable follows in the same zone.
 */
static void cached_image(struct cfs_crashdev *cd, uint64_t when, uint8_t *out)
{
	bool flushed = false;

	for (uint64_t i = 0; i < cd->n_log; i++)
		flushed |= cd->log[i].op == CFS_DEV_FLUSH && cd->log[i].completed <= when;
	memcpy(out, cd->cached, cd->dev.info.size_bytes);
	for (uint32_t z = 0; z < cd->g.n_zones && !flushed; z++)
		*mark_of(cd, out, z) = *mark_of(cd, cd->initial, z);
}

void cfs_crashdev_image(struct cfs_crashdev *cd, uint64_t when, enum cfs_crash_mode mode,
			uint64_t seed, uint8_t *out)
{
	uint64_t rnd = seed;

	CFS_ASSERT(!cd->forget);
	memcpy(out, cd->initial, cd->dev.info.size_bytes);
	if (cd->zones && cd->cached)
		cached_image(cd, when, out);
	for (uint32_t z = 0; z < cd->g.n_zones; z++)
		zone_image(cd, when, mode, &rnd, z, out);
	for (uint64_t i = 0; i < cd->n_log && cd->log[i].submitted <= when && !cd->zones; i++) {
		const struct logged *l = &cd->log[i];
		uint64_t luck = next_random(&rnd);

		if (!l->data)
			continue;
		if (is_durable(cd, i, when) || mode == CFS_CRASH_ALL ||
		    (mode == CFS_CRASH_SUBSET && luck & 1))
			memcpy(out + l->off, l->data, l->len);
		else if (mode == CFS_CRASH_TORN)
			tear(l, luck, &rnd, out);
	}
}
