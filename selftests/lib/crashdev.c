/* SPDX-License-Identifier: MIT */
/* crashdev.c - see crashdev.h. State: struct cfs_crashdev; one thread. */
#include "selftests/lib/crashdev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/hash.h"

#define TIMERS_MAX 64u
#define SECTOR 512u
#define NEVER UINT64_MAX

struct logged {
	uint64_t off, len;
	uint8_t *data; /* NULL: a flush */
	uint64_t submitted, completed; /* events */
	bool durable;
};

struct pending {
	struct cfs_dev_req *req;
	uint64_t log; /* index, or NEVER */
};

struct cfs_crashdev {
	struct cfs_dev dev;
	struct cfs_clock clock;
	uint8_t *initial, *bytes;
	struct pending *pending;
	uint32_t n_pending, cap_pending;
	struct logged *log;
	uint64_t n_log, cap_log, events, writes;
	struct cfs_timer *timers[TIMERS_MAX];
	uint32_t n_timers;
	uint64_t now_ns, shuffle, random;
	bool forget;
	uint32_t fail_n[CFS_DEV_DISCARD + 1];
	int fail_err[CFS_DEV_DISCARD + 1];
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

static uint64_t log_add(struct cfs_crashdev *cd, uint64_t off, uint64_t len, bool flush,
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
	*l = (struct logged){ .off = off,
			      .len = len,
			      .submitted = ++cd->events,
			      .completed = NEVER,
			      .durable = durable };
	if (!flush) {
		l->data = malloc(len);
		CFS_ASSERT(l->data);
	}
	return cd->n_log++;
}

static int cd_submit(struct cfs_dev *dev, struct cfs_dev_req *req)
{
	struct cfs_crashdev *cd = of(dev);
	uint64_t log = NEVER, at = 0, total = 0;

	CFS_ASSERT(req->op <= CFS_DEV_DISCARD && req->done);
	if (req->op == CFS_DEV_READ || req->op == CFS_DEV_WRITE) {
		CFS_ASSERT(req->iovcnt && req->iovcnt <= CFS_DEV_IOV_MAX);
		for (uint32_t i = 0; i < req->iovcnt; i++) {
			CFS_ASSERT(!((uintptr_t)req->iov[i].iov_base & (dev->info.mem_align - 1)));
			total += req->iov[i].iov_len;
		}
		CFS_ASSERT(total == req->len);
	}
	CFS_ASSERT(!((req->offset | req->len) & (dev->info.write_unit - 1)));
	CFS_ASSERT(req->offset + req->len <= dev->info.size_bytes);
	if (req->op == CFS_DEV_WRITE || req->op == CFS_DEV_FLUSH)
		log = log_add(cd, req->offset, req->len, req->op == CFS_DEV_FLUSH,
			      req->flags & CFS_DEV_DURABLE);
	if (req->op == CFS_DEV_WRITE) {
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
	cd->pending[cd->n_pending++] = (struct pending){ req, log };
	return 0;
}

static void complete(struct cfs_crashdev *cd, struct pending p)
{
	struct cfs_dev_req *req = p.req;
	uint64_t at = req->offset;

	req->result = (int64_t)req->len;
	if (cd->fail_n[req->op]) {
		cd->fail_n[req->op]--;
		req->result = cd->fail_err[req->op];
	} else if (req->op == CFS_DEV_READ || req->op == CFS_DEV_WRITE) {
		for (uint32_t i = 0; i < req->iovcnt; i++) {
			uint64_t in = at - req->offset;

			/* nobody may touch a buffer that is being written */
			CFS_ASSERT(req->op == CFS_DEV_READ || p.log == NEVER || cd->forget ||
				   !memcmp(cd->log[p.log].data + in, req->iov[i].iov_base,
					   req->iov[i].iov_len));
			if (req->op == CFS_DEV_READ)
				memcpy(req->iov[i].iov_base, cd->bytes + at, req->iov[i].iov_len);
			else
				memcpy(cd->bytes + at, req->iov[i].iov_base, req->iov[i].iov_len);
			at += req->iov[i].iov_len;
		}
	} else if (req->op == CFS_DEV_DISCARD) {
		memset(cd->bytes + req->offset, 0xdc,
		       req->len); /* anything may be there afterwards */
	}
	if (p.log != NEVER && req->result >= 0 && !cd->forget)
		cd->log[p.log].completed = ++cd->events;
	req->done(req);
}

static int cd_write_sync(struct cfs_dev *dev, uint64_t offset, const void *buf, uint32_t len)
{
	struct cfs_crashdev *cd = of(dev);
	uint64_t log;

	CFS_ASSERT(!((offset | len) & (dev->info.write_unit - 1)) &&
		   offset + len <= dev->info.size_bytes);
	log = log_add(cd, offset, len, false, true);
	memcpy(cd->bytes + offset, buf, len);
	if (log != NEVER) {
		memcpy(cd->log[log].data, buf, len);
		cd->log[log].completed = ++cd->events;
	}
	cd->writes++;
	return 0;
}

static int cd_read_sync(struct cfs_dev *dev, uint64_t offset, void *buf, uint32_t len)
{
	CFS_ASSERT(!((offset | len) & (dev->info.write_unit - 1)) &&
		   offset + len <= dev->info.size_bytes);
	memcpy(buf, of(dev)->bytes + offset, len);
	return 0;
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

struct cfs_crashdev *cfs_crashdev_create(uint64_t size_bytes, const uint8_t *image, uint64_t seed)
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
	log_free(cd);
	free(cd->pending);
	free(cd->initial);
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
	CFS_ASSERT(op <= CFS_DEV_DISCARD && err < 0);
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
		if (!cd->log[k].data && cd->log[k].completed <= when &&
		    cd->log[k].submitted > l->completed)
			return true;
	return false;
}

void cfs_crashdev_image(const struct cfs_crashdev *cd, uint64_t when, enum cfs_crash_mode mode,
			uint64_t seed, uint8_t *out)
{
	uint64_t rnd = seed;

	CFS_ASSERT(!cd->forget);
	memcpy(out, cd->initial, cd->dev.info.size_bytes);
	for (uint64_t i = 0; i < cd->n_log && cd->log[i].submitted <= when; i++) {
		const struct logged *l = &cd->log[i];
		uint64_t luck = next_random(&rnd);

		if (!l->data)
			continue;
		if (is_durable(cd, i, when) || mode == CFS_CRASH_ALL ||
		    (mode == CFS_CRASH_SUBSET && luck & 1)) {
			memcpy(out + l->off, l->data, l->len);
		} else if (mode == CFS_CRASH_TORN) {
			/* often a beginning, sometimes any sectors */
			uint64_t cut = next_random(&rnd) % (l->len / SECTOR + 1);

			for (uint64_t s = 0; s < l->len / SECTOR; s++)
				if (luck & 1 ? s < cut : next_random(&rnd) & 1)
					memcpy(out + l->off + s * SECTOR, l->data + s * SECTOR,
					       SECTOR);
		}
	}
}
