/* SPDX-License-Identifier: MIT */
/*
 * Proves of the nvme back end, on a drive of memory with faults: requests are cut at MDTS and at the pages of
 * one command, never more commands are under way than the queue takes; what is DURABLE is on the medium
 * without a flush, what is not is there after one; statuses are retried exactly when they may be, after the
 * delay they ask for; a reset of the controller is waited for, within bounds; an append or zone write that may have
 * happened is not sent again; writes to a zone keep their order; a device that is gone says so. Under random
 * faults and completion orders every request ends once, and what was said to have succeeded did.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/base.h"
#include "base/log.h"
#include "selftests/lib/fakenvme.h"

#define BLOCKS 16384u
#define DNR CFS_NVME_DNR

struct world {
	struct cfs_loop *loop;
	struct fakenvme *f;
	struct cfs_dev *dev;
};

static const struct cfs_nvme_limits plain = {
	.blocks = BLOCKS, .nsid = 1, .block_bytes = 512, .max_bytes = 32768, .max_segments = 5, .depth = 8,
	.discard_bytes = 512, .crdt_ms = { 0, 30, 0, 0 }, .volatile_cache = true, .reset_wait_ms = 400,
	.model = "fake",
};

static void make(struct world *w, const struct cfs_nvme_limits *lim, uint64_t seed)
{
	assert_int_equal(cfs_loop_create(64, &w->loop), 0);
	w->f = fakenvme_create(w->loop, lim, seed);
	assert_int_equal(cfs_nvme_create(w->loop, &w->f->port, lim, "nvme:fake", 0, &w->dev), 0);
}

static void unmake(struct world *w)
{
	cfs_dev_close(w->dev);
	fakenvme_destroy(w->f);
	cfs_loop_destroy(w->loop);
}

struct req {
	struct cfs_dev_req r;
	struct iovec iov;
	unsigned done;
};

static void on_done(struct cfs_dev_req *r)
{
	cfs_container_of(r, struct req, r)->done++;
}

static int start(struct world *w, struct req *q, enum cfs_dev_op op, uint32_t flags, uint64_t off, void *buf,
		 uint64_t len)
{
	q->iov = (struct iovec){ buf, len };
	q->r = (struct cfs_dev_req){ .op = op, .flags = flags, .offset = off, .iov = &q->iov, .iovcnt = 1,
				     .len = len, .done = on_done };
	q->done = 0;
	memset(q->r.priv, 0xa5, sizeof(q->r.priv));
	return cfs_dev_submit(w->dev, &q->r);
}

static int64_t wait(struct world *w, struct req *q)
{
	assert_int_equal(q->done, 0);	/* not inside submit */
	for (int i = 0; i < 10000 && !q->done; i++)
		assert_int_equal(cfs_loop_turn(w->loop, CFS_NSEC_PER_SEC), 0);
	assert_int_equal(q->done, 1);
	return q->r.result;
}

static int64_t rw(struct world *w, enum cfs_dev_op op, uint32_t flags, uint64_t off, void *buf, uint64_t len)
{
	struct req q;
	int rc = start(w, &q, op, flags, off, buf, len);

	return rc ? rc : wait(w, &q);
}

static uint8_t *buf_of(size_t len, uint64_t seed)
{
	struct cfs_rng rng;
	uint8_t *p = aligned_alloc(4096, cfs_align_up(len, 4096));

	cfs_rng_seed(&rng, seed);
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)cfs_rng_next(&rng);
	return p;
}

static void test_cutting(void **state)
{
	uint8_t *a = buf_of(1 << 20, 1), *b = buf_of(1 << 20, 2);
	/* pieces that begin within pages, some of them adjacent */
	struct iovec iov[5] = { { a + 512, 4096 }, { a + 4608, 20480 }, { a + 65536, 512 }, { a + 70144, 131072 },
				{ a + 512000, 4096 } };
	struct req q;
	struct world w;
	uint64_t len = 4096 + 20480 + 512 + 131072 + 4096, at = 0;

	(void)state;
	make(&w, &plain, 1);
	assert_int_equal(w.dev->info.size_bytes, BLOCKS * 512);
	assert_int_equal(w.dev->info.write_unit, 512);
	assert_true(w.dev->info.flags & CFS_DEV_F_VOLATILE);
	assert_int_equal(rw(&w, CFS_DEV_WRITE, 0, 4096, a, 1 << 20), 1 << 20);
	assert_true(w.f->max_len <= 32768 && w.f->max_segments <= 5);
	assert_int_equal(w.f->max_len, 20480);	/* five pages are less than MDTS */
	assert_memory_equal(w.f->mem + 4096, a, 1 << 20);
	assert_int_equal(rw(&w, CFS_DEV_READ, 0, 4096, b, 1 << 20), 1 << 20);
	assert_memory_equal(a, b, 1 << 20);
	q.r = (struct cfs_dev_req){ .op = CFS_DEV_WRITE, .offset = 2 << 20, .iov = iov, .iovcnt = 5, .len = len,
				    .done = on_done };
	q.done = 0;
	assert_int_equal(cfs_dev_submit(w.dev, &q.r), 0);
	assert_int_equal(wait(&w, &q), len);
	for (unsigned i = 0; i < 5; i++) {
		assert_memory_equal(w.f->mem + (2 << 20) + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	assert_true(w.f->max_segments <= 5);
	/* beyond the end, and against the rules: refused */
	assert_int_equal(rw(&w, CFS_DEV_READ, 0, BLOCKS * 512, a, 512), -EINVAL);
	assert_int_equal(rw(&w, CFS_DEV_READ, 0, 100, a, 512), -EINVAL);
	assert_int_equal(rw(&w, CFS_DEV_DISCARD, 0, 0, NULL, 1 << 20), 0);
	assert_int_equal(w.f->mem[4096], 0);
	unmake(&w);
	free(a);
	free(b);
}

static void test_depth(void **state)
{
	struct req *q = calloc(500, sizeof(*q));
	uint8_t *a = buf_of(500 * 512, 3), *b = buf_of(500 * 512, 4);
	struct world w;

	(void)state;
	make(&w, &plain, 1);
	for (unsigned i = 0; i < 500; i++)
		assert_int_equal(start(&w, &q[i], CFS_DEV_WRITE, 0, i * 512, a + i * 512, 512), 0);
	for (unsigned i = 0; i < 500; i++)
		if (!q[i].done)
			assert_int_equal(wait(&w, &q[i]), 512);
	assert_int_equal(w.f->max_flight, 8);
	assert_int_equal(rw(&w, CFS_DEV_READ, 0, 0, b, 500 * 512), 500 * 512);
	assert_memory_equal(a, b, 500 * 512);
	assert_int_equal(w.f->max_flight, 8);
	unmake(&w);
	free(a);
	free(b);
	free(q);
}

static void test_durability(void **state)
{
	uint8_t *a = buf_of(65536, 5);
	struct world w;

	(void)state;
	make(&w, &plain, 1);
	assert_int_equal(rw(&w, CFS_DEV_WRITE, CFS_DEV_DURABLE, 0, a, 65536), 65536);
	assert_memory_equal(w.f->medium, a, 65536);
	assert_int_equal(w.f->by_opcode[CFS_NVME_FLUSH], 0);
	assert_int_equal(rw(&w, CFS_DEV_WRITE, 0, 65536, a, 65536), 65536);
	assert_memory_not_equal(w.f->medium + 65536, a, 65536);
	assert_int_equal(rw(&w, CFS_DEV_FLUSH, 0, 0, NULL, 0), 0);
	assert_memory_equal(w.f->medium + 65536, a, 65536);
	/* blocking writes are durable, and may be of any length */
	assert_int_equal(w.dev->ops->write_sync(w.dev, 1 << 20, a, 65536), 0);
	assert_memory_equal(w.f->medium + (1 << 20), a, 65536);
	memset(a, 0, 65536);
	assert_int_equal(w.dev->ops->read_sync(w.dev, 1 << 20, a, 65536), 0);
	assert_memory_equal(w.f->medium + (1 << 20), a, 65536);
	unmake(&w);
	free(a);
}

static void test_statuses(void **state)
{
	static const struct {
		int32_t res;
		uint32_t times;
		int64_t want;
		uint64_t commands;	/* sent */
	} t[] = {
		{ 0x281 | DNR, 1, -EIO, 1 },		/* read error, for good */
		{ 0x06, 5, 512, 6 },			/* internal error five times */
		{ 0x06, 6, -EIO, 6 },			/* and once too often */
		{ 0x21 | 1 << 11, 2, 512, 3 },		/* interrupted, come back in 30 ms */
		{ 0x81 | DNR, 1, -ENOSPC, 1 },
		{ 0x20 | DNR, 1, -EROFS, 1 },
		{ 0x83 | DNR, 1, -EBADE, 1 },
		{ -EINTR, 1, 512, 2 },			/* cancelled by a reset */
		{ 0x370, 3, 512, 4 },			/* the controller is away for a while */
		{ 0x371, 1, 512, 2 },
		{ 0x370 | DNR, 1, -EIO, 1 },
		{ -EAGAIN, 4, 512, 5 },			/* never sent */
		{ -EIO, 1, -EIO, 1 },
		{ -EOPNOTSUPP, 1, -EOPNOTSUPP, 1 },
	};
	uint8_t *a = buf_of(4096, 6);
	struct world w;

	(void)state;
	for (unsigned i = 0; i < CFS_ARRAY_SIZE(t); i++) {
		for (unsigned sync = 0; sync < 2; sync++) {
			make(&w, &plain, 1);
			fakenvme_fault(w.f, CFS_NVME_READ, 0, t[i].times, t[i].res, false);
			if (sync)
				assert_int_equal(w.dev->ops->read_sync(w.dev, 0, a, 512), t[i].want < 0 ? t[i].want : 0);
			else
				assert_int_equal(rw(&w, CFS_DEV_READ, 0, 0, a, 512), t[i].want);
			assert_int_equal(w.f->commands, t[i].commands);
			if (!sync)
				assert_int_equal(w.dev->stat.errors, t[i].want < 0);
			assert_false(w.dev->stat.gone);
			/* and it goes on */
			assert_int_equal(rw(&w, CFS_DEV_READ, 0, 0, a, 512), 512);
			unmake(&w);
		}
	}
	free(a);
}

static void test_delays(void **state)
{
	uint8_t *a = buf_of(4096, 6);
	struct world w;
	uint64_t t;

	(void)state;
	make(&w, &plain, 1);
	fakenvme_fault(w.f, CFS_NVME_WRITE, 0, 2, 0x21 | 1 << 11, false);
	t = cfs_clock_boot_ns(cfs_loop_clock(w.loop));
	assert_int_equal(rw(&w, CFS_DEV_WRITE, 0, 0, a, 512), 512);
	assert_true(cfs_clock_boot_ns(cfs_loop_clock(w.loop)) - t >= 60 * CFS_NSEC_PER_MSEC);
	assert_int_equal(w.dev->stat.retries, 2);
	unmake(&w);
	/* a controller that stays away: not for ever (reset_wait_ms is 400 here), then it counts as removed */
	make(&w, &plain, 1);
	fakenvme_fault(w.f, CFS_NVME_READ, 0, 1000, 0x370, false);
	t = cfs_clock_boot_ns(cfs_loop_clock(w.loop));
	assert_int_equal(rw(&w, CFS_DEV_READ, 0, 0, a, 512), -ENODEV);
	assert_true(cfs_clock_boot_ns(cfs_loop_clock(w.loop)) - t >= 400 * CFS_NSEC_PER_MSEC);
	assert_true(w.f->by_opcode[CFS_NVME_READ] < 12);	/* it backs off */
	assert_true(w.dev->stat.reset_waits >= 1);
	assert_true(w.dev->stat.gone);
	/* and it stays removed, also for what would be answered */
	assert_int_equal(rw(&w, CFS_DEV_WRITE, 0, 0, a, 512), -ENODEV);
	assert_int_equal(rw(&w, CFS_DEV_DISCARD, 0, 0, NULL, 4096), -ENODEV);
	assert_int_equal(w.dev->ops->write_sync(w.dev, 0, a, 512), -ENODEV);
	unmake(&w);
	make(&w, &plain, 1);
	fakenvme_fault(w.f, CFS_NVME_READ, 0, 1000, 0x370, false);
	assert_int_equal(w.dev->ops->read_sync(w.dev, 0, a, 512), -ENODEV);
	assert_true(w.f->paused_ms >= 400);
	assert_true(w.dev->stat.gone);
	unmake(&w);
	free(a);
}

/* the kernel's node for several paths refuses what it has no path for: only there is that worth waiting */
static void test_multipath(void **state)
{
	struct cfs_nvme_limits lim = plain;
	uint8_t *a = buf_of(4096, 6);
	struct world w;

	(void)state;
	for (unsigned multipath = 0; multipath < 2; multipath++) {
		lim.multipath = multipath;
		make(&w, &lim, 1);
		fakenvme_fault(w.f, CFS_NVME_WRITE, 0, 2, -EINVAL, false);
		assert_int_equal(rw(&w, CFS_DEV_WRITE, 0, 0, a, 512), multipath ? 512 : -EINVAL);
		assert_false(w.dev->stat.gone);
		assert_int_equal(w.dev->stat.reset_waits, multipath);
		unmake(&w);
	}
	/* and it refuses in the same way what is there no more */
	make(&w, &lim, 1);
	w.f->removed = true;
	fakenvme_fault(w.f, CFS_NVME_WRITE, 0, 1000, -EINVAL, false);
	assert_int_equal(rw(&w, CFS_DEV_WRITE, 0, 0, a, 512), -ENODEV);
	assert_int_equal(w.f->by_opcode[CFS_NVME_WRITE], 1);
	assert_true(w.dev->stat.gone);
	unmake(&w);
	free(a);
}

static void test_gone(void **state)
{
	uint8_t *a = buf_of(262144, 6);
	struct req q[20];
	struct world w;

	(void)state;
	make(&w, &plain, 1);
	fakenvme_fault(w.f, CFS_NVME_WRITE, 3, 100000, -ENODEV, false);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(start(&w, &q[i], CFS_DEV_WRITE, 0, i * 262144, a, 262144), 0);
	for (unsigned i = 0; i < 20; i++)
		if (!q[i].done)
			assert_int_equal(wait(&w, &q[i]), -ENODEV);
	assert_true(w.dev->stat.gone);
	/* what was not yet sent of requests that had failed was not sent */
	assert_true(w.f->by_opcode[CFS_NVME_WRITE] <= 20 * 8 + 8);
	unmake(&w);
	free(a);
}

/* ---- zones ------------------------------------------------------------------------------------- */

static const struct cfs_nvme_limits zoned = {
	.blocks = 4096 + 100, .nsid = 1, .block_bytes = 4096, .max_bytes = 32768, .max_segments = 100, .depth = 32,
	.zone_blocks = 256, .n_zones = 16, .max_active = 8, .max_open = 8, .append_bytes = 16384, .model = "fake",
	.reset_wait_ms = 300,
};

static void test_zones(void **state)
{
	uint8_t *a = buf_of(1 << 20, 7), *b = buf_of(1 << 20, 8);
	struct cfs_zone z[20];
	struct world w;
	struct req q;

	(void)state;
	make(&w, &zoned, 1);
	assert_int_equal(w.dev->info.n_zones, 16);
	assert_int_equal(w.dev->info.size_bytes, 16ull << 20);	/* the rest of a zone at the end is not ours */
	assert_int_equal(w.dev->info.zone_capacity, 255 * 4096);	/* the fake's */
	assert_int_equal(w.dev->info.append_max, 16384);
	/* a long write to a zone: its commands go one after the other, whatever else is under way */
	w.f->shuffle = 1u << 30;
	assert_int_equal(rw(&w, CFS_DEV_WRITE, 0, 1 << 20, a, 1000 << 10), 1000 << 10);
	assert_memory_equal(w.f->mem + (1 << 20), a, 1000 << 10);
	assert_int_equal(start(&w, &q, CFS_DEV_ZONE_APPEND, CFS_DEV_DURABLE, 2 << 20, a, 16384), 0);
	assert_int_equal(wait(&w, &q), 16384);
	assert_int_equal(q.r.ret_offset, 2 << 20);
	assert_int_equal(start(&w, &q, CFS_DEV_ZONE_APPEND, 0, 2 << 20, a + 16384, 8192), 0);
	assert_int_equal(wait(&w, &q), 8192);
	assert_int_equal(q.r.ret_offset, (2 << 20) + 16384);
	assert_memory_equal(w.f->medium + (2 << 20), a, 16384);
	assert_int_equal(rw(&w, CFS_DEV_ZONE_APPEND, 0, 2 << 20, a, 20480), -EINVAL);	/* too long */
	assert_int_equal(rw(&w, CFS_DEV_WRITE, 0, (2 << 20) + 4096, a, 4096), -EINVAL);	/* not at the pointer */
	assert_int_equal(rw(&w, CFS_DEV_READ, 0, 2 << 20, b, 24576), 24576);
	assert_memory_equal(a, b, 24576);
	assert_int_equal(w.dev->ops->zone_report(w.dev, 1 << 20, z, 20), 15);
	assert_int_equal(z[0].wp, (1 << 20) + (1000 << 10));
	assert_int_equal(z[0].state, CFS_ZONE_OPEN_IMPLICIT);
	assert_int_equal(z[1].wp, (2 << 20) + 24576);
	assert_int_equal(z[2].state, CFS_ZONE_EMPTY);
	assert_int_equal(w.dev->ops->zone_report(w.dev, 1 << 19, z, 20), -EINVAL);
	assert_int_equal(rw(&w, CFS_DEV_ZONE_FINISH, 0, 1 << 20, NULL, 0), 0);
	assert_int_equal(rw(&w, CFS_DEV_ZONE_RESET, 0, 2 << 20, NULL, 0), 0);
	assert_int_equal(w.dev->ops->zone_report(w.dev, 1 << 20, z, 2), 2);
	assert_int_equal(z[0].state, CFS_ZONE_FULL);
	assert_int_equal(z[1].state, CFS_ZONE_EMPTY);
	assert_int_equal(w.dev->ops->zone_sync(w.dev, CFS_DEV_ZONE_RESET, 1 << 20), 0);
	assert_int_equal(w.dev->ops->zone_sync(w.dev, CFS_DEV_READ, 1 << 20), -EINVAL);
	assert_int_equal(w.dev->ops->zone_report(w.dev, 1 << 20, z, 1), 1);
	assert_int_equal(z[0].state, CFS_ZONE_EMPTY);
	unmake(&w);
	free(a);
	free(b);
}

static void test_no_second_append(void **state)
{
	static const int32_t may_have_happened[] = { -EINTR, 0x371, 0x06, 0x370 };
	uint8_t *a = buf_of(65536, 7);
	struct world w;
	struct req q;

	(void)state;
	for (unsigned i = 0; i < CFS_ARRAY_SIZE(may_have_happened); i++) {
		make(&w, &zoned, 1);
		fakenvme_fault(w.f, CFS_NVME_ZONE_APPEND, 0, 1, may_have_happened[i], true);
		fakenvme_fault(w.f, CFS_NVME_WRITE, 1, 1, may_have_happened[i], true);
		assert_int_equal(rw(&w, CFS_DEV_ZONE_APPEND, 0, 0, a, 4096), -EIO);
		assert_int_equal(w.f->by_opcode[CFS_NVME_ZONE_APPEND], 1);
		assert_int_equal(rw(&w, CFS_DEV_WRITE, 0, 1 << 20, a, 65536), -EIO);	/* in its second part */
		assert_int_equal(w.f->by_opcode[CFS_NVME_WRITE], 2);
		unmake(&w);
	}
	/* "not ready" means that nothing has happened */
	make(&w, &zoned, 1);
	fakenvme_fault(w.f, CFS_NVME_ZONE_APPEND, 0, 2, 0x82, false);
	assert_int_equal(start(&w, &q, CFS_DEV_ZONE_APPEND, 0, 0, a, 4096), 0);
	assert_int_equal(wait(&w, &q), 4096);
	assert_int_equal(w.f->by_opcode[CFS_NVME_ZONE_APPEND], 3);
	assert_int_equal(q.r.ret_offset, 0);
	assert_int_equal(w.f->wp[0], 1);
	unmake(&w);
	free(a);
}

/* ---- weather ----------------------------------------------------------------------------------- */

#define SLOTS 24
#define CELL 49152u

/* random requests, each to a cell of its own at a time, under faults and shuffled completions */
static void test_weather(void **state)
{
	static struct req q[SLOTS];
	uint8_t *data = aligned_alloc(4096, SLOTS * CELL), *want = calloc(SLOTS, CELL);
	bool known[SLOTS] = { false }, writes[SLOTS];
	unsigned ended = 0, failed = 0;
	struct cfs_rng rng;
	struct world w;

	(void)state;
	for (uint64_t seed = 1; seed <= 4; seed++) {
		make(&w, &plain, seed);
		w.f->shuffle = 40;
		cfs_rng_seed(&rng, seed);
		memset(known, 0, sizeof(known));
		for (unsigned i = 0; i < SLOTS; i++)
			q[i].done = 1, writes[i] = false, q[i].r.result = -1;
		for (unsigned n = 0; n < 3000; n++) {
			unsigned i = (unsigned)(cfs_rng_next(&rng) % SLOTS);
			uint8_t *d = data + i * CELL;

			for (unsigned t = 0; !q[i].done && t < 1000; t++)
				assert_int_equal(cfs_loop_turn(w.loop, CFS_NSEC_PER_SEC), 0);
			assert_int_equal(q[i].done, 1);
			ended++;
			if (q[i].r.result < 0) {
				failed += q[i].r.result == -EIO;
				known[i] &= !writes[i];		/* a write that failed leaves anything */
			} else if (writes[i]) {
				memcpy(want + i * CELL, d, CELL);
				known[i] = true;
			} else if (known[i]) {
				assert_memory_equal(want + i * CELL, d, CELL);
			}
			writes[i] = cfs_rng_next(&rng) % 2;
			for (size_t k = 0; writes[i] && k < CELL; k += 512)
				d[k] = (uint8_t)cfs_rng_next(&rng);
			assert_int_equal(start(&w, &q[i], writes[i] ? CFS_DEV_WRITE : CFS_DEV_READ, 0, i * CELL, d, CELL), 0);
		}
		for (unsigned i = 0; i < SLOTS; i++)
			if (!q[i].done)
				wait(&w, &q[i]);
		assert_true(w.dev->stat.retries > 50);
		unmake(&w);
	}
	/* about one command in 160 fails for good, and a request has five: some did, most did not */
	assert_true(failed > ended / 200 && failed < ended / 8);
	free(data);
	free(want);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cutting),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_durability),
		cmocka_unit_test(test_statuses),
		cmocka_unit_test(test_delays),
		cmocka_unit_test(test_multipath),
		cmocka_unit_test(test_gone),
		cmocka_unit_test(test_zones),
		cmocka_unit_test(test_no_second_append),
		cmocka_unit_test(test_weather),
	};

	cfs_log_set_level((enum cfs_log_level)0);	/* the faults are meant */
	return cmocka_run_group_tests_name("nvme", tests, NULL, NULL);
}
