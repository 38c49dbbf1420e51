/* SPDX-License-Identifier: MIT */
/* realdev.c - see realdev.h. State: the one struct realdev of the process. */
#include "selftests/lib/realdev.h"

#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/base.h"
#include "ring/loop.h"

#define CHUNK (1u << 20)	/* of a device without zones: what is compared and written again at once */

struct zone {
	uint64_t written;
	bool full, dirty;	/* dirty: nobody knows what the drive has there */
};

struct realdev {
	struct cfs_loop *loop;
	struct cfs_dev *dev;
	struct realdev_model m;
	uint8_t *shadow;	/* what the device holds, as far as it is known; pages that are not touched cost nothing */
	bool *known;		/* chunks */
	struct zone *zones;
	bool done;
	uint64_t requests, rewritten;
};

static struct realdev real;

static void at_exit(void)
{
	printf("# %s: %llu requests carried out, %llu chunks or zones made like the model's\n", getenv("T_DEV"),
	       (unsigned long long)real.requests, (unsigned long long)real.rewritten);
	munmap(real.shadow, real.dev->info.size_bytes);
	free(real.known);
	free(real.zones);
	cfs_dev_close(real.dev);
	cfs_loop_destroy(real.loop);
}

struct realdev *realdev_get(void)
{
	const char *name = getenv("T_DEV");
	int rc;

	if (!name)
		return NULL;
	if (real.dev)
		return &real;
	rc = cfs_dev_loop_create(256, &name, 1, &real.loop);
	if (!rc)
		rc = cfs_dev_open(real.loop, name, 0, &real.dev);
	if (rc)
		errx(1, "T_DEV=%s: %s", name, strerror(-rc));
	real.shadow = mmap(NULL, real.dev->info.size_bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	real.known = calloc(real.dev->info.size_bytes / CHUNK + 1, sizeof(*real.known));
	real.zones = calloc(real.dev->info.n_zones + 1, sizeof(*real.zones));
	CFS_ASSERT(real.shadow != MAP_FAILED && real.known && real.zones);
	for (uint32_t i = 0; i < real.dev->info.n_zones; i++)
		real.zones[i].dirty = true;
	atexit(at_exit);
	return &real;
}

bool realdev_takes(bool zoned)
{
	struct realdev *r = realdev_get();

	return !r || zoned == !!(r->dev->info.flags & CFS_DEV_F_ZONED);
}

/* ---- requests --------------------------------------------------------------------------------- */

static void on_done(struct cfs_dev_req *req)
{
	(void)req;
	real.done = true;
}

/* @offset in the model's places */
static uint64_t place(const struct realdev *r, uint64_t offset)
{
	const struct cfs_zone_geometry *g = r->m.g;

	return g ? offset / g->zone_bytes * r->dev->info.zone_bytes + offset % g->zone_bytes : offset;
}

static void run(struct realdev *r, struct cfs_dev_req *req)
{
	int rc;

	req->done = on_done;
	r->done = false;
	r->requests++;
	rc = cfs_dev_submit(r->dev, req);
	if (rc)
		errx(1, "request %d of %llu bytes at %llu refused: %s", req->op, (unsigned long long)req->len,
		     (unsigned long long)req->offset, strerror(-rc));
	while (!r->done) {
		rc = cfs_loop_turn(r->loop, 60 * CFS_NSEC_PER_SEC);
		CFS_ASSERT(!rc);
	}
	if (req->result < 0)
		errx(1, "request %d of %llu bytes at %llu failed, and the model's did not: %s", req->op,
		     (unsigned long long)req->len, (unsigned long long)req->offset, strerror((int)-req->result));
}

static void simple(struct realdev *r, enum cfs_dev_op op, uint64_t offset)
{
	struct cfs_dev_req req = { .op = op, .offset = offset };

	run(r, &req);
}

static void write_image(struct realdev *r, uint64_t from, uint64_t len)
{
	static uint8_t buf[1 << 20] __attribute__((aligned(4096)));

	while (len) {
		uint64_t n = cfs_min(len, (uint64_t)sizeof(buf));
		struct iovec iov = { buf, n };
		struct cfs_dev_req req = { .op = CFS_DEV_WRITE, .offset = place(r, from), .iov = &iov, .iovcnt = 1, .len = n };

		memcpy(buf, r->m.image + from, n);
		run(r, &req);
		memcpy(r->shadow + place(r, from), buf, n);
		from += n;
		len -= n;
	}
}

/* ---- making the device like the model ------------------------------------------------------------ */

static bool zone_differs(struct realdev *r, uint32_t i, uint64_t from, uint64_t to)
{
	uint64_t start = i * r->m.g->zone_bytes, written;
	bool full;

	written = r->m.written(r->m.arg, i, &full);
	to = cfs_min(to, written);
	return r->zones[i].dirty || r->zones[i].written != written || r->zones[i].full != full ||
	       (from < to && memcmp(r->shadow + place(r, start) + from, r->m.image + start + from, to - from));
}

static void zone_like(struct realdev *r, uint32_t i)
{
	struct zone *z = &r->zones[i];
	uint64_t written, start = i * r->m.g->zone_bytes;
	bool full;

	written = r->m.written(r->m.arg, i, &full);
	if (z->dirty || z->written || z->full)
		simple(r, CFS_DEV_ZONE_RESET, place(r, start));
	write_image(r, start, written);
	if (full)
		simple(r, CFS_DEV_ZONE_FINISH, place(r, start));
	*z = (struct zone){ .written = written, .full = full };
	r->rewritten++;
}

static void settle(struct realdev *r, uint64_t offset, uint64_t len)
{
	if (r->m.g) {
		uint64_t zb = r->m.g->zone_bytes;

		for (uint32_t i = (uint32_t)(offset / zb); i <= (offset + cfs_max(len, 1ul) - 1) / zb; i++) {
			uint64_t from = offset > i * zb ? offset - i * zb : 0, to = cfs_min(zb, offset + len - i * zb);

			if (zone_differs(r, i, from, to))
				zone_like(r, i);
		}
		return;
	}
	for (uint64_t at = offset / CHUNK * CHUNK; at < offset + len; at += CHUNK) {
		uint64_t n = cfs_min((uint64_t)CHUNK, r->m.size_bytes - at);

		if (r->known[at / CHUNK] && !memcmp(r->shadow + at, r->m.image + at, n))
			continue;
		write_image(r, at, n);
		r->known[at / CHUNK] = true;
		r->rewritten++;
	}
}

void realdev_begin(struct realdev *r, const struct realdev_model *m, struct cfs_dev_info *info)
{
	const struct cfs_dev_info *have = &r->dev->info;
	uint32_t n_zones;

	if (m->g && m->g->n_conv)
		errx(1, "T_DEV=%s has no conventional zones", getenv("T_DEV"));
	if (m->g ? m->g->n_zones > have->n_zones || m->g->zone_capacity > have->zone_capacity : m->size_bytes > have->size_bytes)
		errx(1, "T_DEV=%s is too small: %llu bytes are needed, or %u zones of %llu", getenv("T_DEV"),
		     (unsigned long long)m->size_bytes, m->g ? m->g->n_zones : 0,
		     (unsigned long long)(m->g ? m->g->zone_capacity : 0));
	info->write_unit = have->write_unit;
	info->mem_align = have->mem_align;
	r->m = *m;
	n_zones = m->g ? m->g->n_zones : 0;
	/* zones of earlier models count towards the drive's limits; so all that differ are emptied before any is written */
	for (uint32_t i = 0; i < n_zones; i++) {
		if (!zone_differs(r, i, 0, m->g->zone_bytes))
			continue;
		simple(r, CFS_DEV_ZONE_RESET, place(r, i * m->g->zone_bytes));
		r->zones[i] = (struct zone){ 0 };
	}
	for (uint32_t i = n_zones; i < have->n_zones; i++) {
		if (r->zones[i].dirty || r->zones[i].written || r->zones[i].full)
			simple(r, CFS_DEV_ZONE_RESET, i * have->zone_bytes);
		r->zones[i] = (struct zone){ 0 };
	}
	for (uint32_t i = 0; i < n_zones; i++) {
		if (zone_differs(r, i, 0, m->g->zone_bytes))
			zone_like(r, i);
	}
}

/* ---- what the model does ------------------------------------------------------------------------- */

void realdev_before(struct realdev *r, enum cfs_dev_op op, uint64_t offset, uint64_t len)
{
	if (op != CFS_DEV_FLUSH && (r->m.g || op != CFS_DEV_DISCARD))
		settle(r, offset, len);
}

static void compare(struct realdev *r, uint64_t at, const uint8_t *buf, uint64_t len)
{
	uint64_t in_zone;
	bool full;

	if (r->m.g) {		/* what was never written reads as anything */
		uint32_t i = (uint32_t)(at / r->m.g->zone_bytes);

		in_zone = at % r->m.g->zone_bytes;
		len = cfs_min(len, r->m.written(r->m.arg, i, &full) - cfs_min(in_zone, r->m.written(r->m.arg, i, &full)));
	}
	if (memcmp(buf, r->m.image + at, len))
		errx(1, "the device's bytes differ from the model's within %llu at %llu", (unsigned long long)len,
		     (unsigned long long)at);
}

/* the model has done it: so has the device, or is as it will be */
static void note(struct realdev *r, enum cfs_dev_op op, uint64_t at, uint64_t len)
{
	struct zone *z;

	if (op == CFS_DEV_WRITE || op == CFS_DEV_ZONE_APPEND)
		memcpy(r->shadow + place(r, at), r->m.image + at, len);
	if (op == CFS_DEV_DISCARD) {
		for (uint64_t c = at / CHUNK; c <= (at + len) / CHUNK; c++)
			r->known[c] = false;
	}
	if (!r->m.g || op == CFS_DEV_READ || op == CFS_DEV_FLUSH)
		return;
	z = &r->zones[at / r->m.g->zone_bytes];
	z->written = r->m.written(r->m.arg, (uint32_t)(at / r->m.g->zone_bytes), &z->full);
	if (z->full && op != CFS_DEV_ZONE_FINISH)	/* the model's zone ends here, the real one may go on */
		simple(r, CFS_DEV_ZONE_FINISH, place(r, at / r->m.g->zone_bytes * r->m.g->zone_bytes));
}

void realdev_do(struct realdev *r, const struct cfs_dev_req *req, uint64_t at)
{
	struct cfs_dev_req mine = {
		.op = req->op, .flags = req->flags, .iov = req->iov, .iovcnt = req->iovcnt, .len = req->len,
		.offset = place(r, req->offset),
	};
	uint64_t from = at;

	if (!cfs_dev_can_atomic(&r->dev->info, mine.offset, mine.len))
		mine.flags &= ~CFS_DEV_ATOMIC;
	run(r, &mine);
	if (req->op == CFS_DEV_ZONE_APPEND && mine.ret_offset != place(r, at))
		errx(1, "an append landed at %llu, not %llu", (unsigned long long)mine.ret_offset,
		     (unsigned long long)place(r, at));
	for (uint32_t i = 0; req->op == CFS_DEV_READ && i < req->iovcnt; i++) {
		compare(r, from, req->iov[i].iov_base, req->iov[i].iov_len);
		from += req->iov[i].iov_len;
	}
	note(r, req->op, at, req->len);
}

void realdev_sync(struct realdev *r, enum cfs_dev_op op, uint64_t offset, void *buf, uint32_t len)
{
	const struct cfs_dev_ops *ops = r->dev->ops;
	uint64_t at = place(r, offset);
	int rc;

	r->requests++;
	rc = op == CFS_DEV_READ	 ? ops->read_sync(r->dev, at, buf, len) :
	     op == CFS_DEV_WRITE ? ops->write_sync(r->dev, at, buf, len) :
	     op == CFS_DEV_FLUSH ? ops->flush_sync(r->dev) :
				   ops->zone_sync(r->dev, op, at);
	if (rc)
		errx(1, "blocking request %d of %u bytes at %llu failed: %s", op, len, (unsigned long long)at, strerror(-rc));
	if (op == CFS_DEV_READ)
		compare(r, offset, buf, len);
	note(r, op, offset, len);
}

void realdev_mem(struct realdev *r, void *base, size_t len, bool add)
{
	if (add)
		cfs_dev_mem_add(r->dev, base, len);
	else
		cfs_dev_mem_del(r->dev, base);
}
