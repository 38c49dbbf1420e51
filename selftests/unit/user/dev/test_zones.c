/* SPDX-License-Identifier: MIT */
/*
 * Proves of the zoned device in memory that it keeps the rules it is there to keep: writes only at the write
 * pointer, one at a time; appends say where they landed; capacity below the zone's size; limits of active and
 * open zones; states and what each forbids; failed zones. And what may be written atomically.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/base.h"
#include "dev/dev.h"
#include "ring/loop.h"

#define ZB	(64u << 10)
#define CAP	(48u << 10)

struct fixture {
	struct cfs_loop *loop;
	struct cfs_dev *dev;
	uint8_t *buf;
};

static int setup(void **state)
{
	static const struct cfs_zone_geometry g = { .zone_bytes = ZB, .zone_capacity = CAP, .n_zones = 8,
						    .n_conv = 1, .max_active = 3, .max_open = 2 };
	struct fixture *f = calloc(1, sizeof(*f));

	assert_int_equal(cfs_loop_create(64, &f->loop), 0);
	assert_int_equal(cfs_dev_mem_create_zoned(f->loop, &g, 512, &f->dev), 0);
	assert_int_equal(posix_memalign((void **)&f->buf, 4096, ZB), 0);
	memset(f->buf, 1, ZB);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	cfs_dev_close(f->dev);
	cfs_loop_destroy(f->loop);
	free(f->buf);
	free(f);
	return 0;
}

struct req {
	struct cfs_dev_req r;
	struct iovec iov;
	bool done;
};

static void on_done(struct cfs_dev_req *r)
{
	cfs_container_of(r, struct req, r)->done = true;
}

static int start(struct fixture *f, struct req *q, enum cfs_dev_op op, uint64_t off, uint32_t len)
{
	*q = (struct req){ .iov = { f->buf, len } };
	q->r = (struct cfs_dev_req){ .op = op, .offset = off, .iov = &q->iov, .iovcnt = len ? 1 : 0,
				     .len = len, .done = on_done };
	return cfs_dev_submit(f->dev, &q->r);
}

static void finish(struct fixture *f, struct req *q)
{
	for (int i = 0; i < 1000 && !q->done; i++)
		assert_int_equal(cfs_loop_turn(f->loop, CFS_NSEC_PER_SEC), 0);
	assert_true(q->done);
}

static int64_t run(struct fixture *f, enum cfs_dev_op op, uint64_t off, uint32_t len)
{
	struct req q;
	int rc = start(f, &q, op, off, len);

	if (rc)
		return rc;
	finish(f, &q);
	return q.r.result;
}

static struct cfs_zone zone(struct fixture *f, uint32_t n)
{
	struct cfs_zone z;

	assert_int_equal(f->dev->ops->zone_report(f->dev, (uint64_t)n * ZB, &z, 1), 1);
	assert_int_equal(z.start, (uint64_t)n * ZB);
	return z;
}

static void test_write_pointer(void **state)
{
	struct fixture *f = *state;
	struct req a, b;

	assert_int_equal(run(f, CFS_DEV_WRITE, ZB + 512, 512), -EINVAL);
	assert_int_equal(run(f, CFS_DEV_WRITE, ZB, 4096), 4096);
	assert_int_equal(run(f, CFS_DEV_WRITE, ZB, 4096), -EINVAL);
	assert_int_equal(zone(f, 1).wp, ZB + 4096);
	assert_int_equal(zone(f, 1).state, CFS_ZONE_OPEN_IMPLICIT);
	/* two at once: the second is refused even though it would arrive in order */
	assert_int_equal(start(f, &a, CFS_DEV_WRITE, ZB + 4096, 4096), 0);
	assert_int_equal(start(f, &b, CFS_DEV_WRITE, ZB + 8192, 4096), 0);
	finish(f, &a);
	finish(f, &b);
	assert_int_equal(a.r.result, 4096);
	assert_int_equal(b.r.result, -EINVAL);
	/* several appends are fine, and say where they went */
	assert_int_equal(start(f, &a, CFS_DEV_ZONE_APPEND, ZB, 512), 0);
	assert_int_equal(start(f, &b, CFS_DEV_ZONE_APPEND, ZB, 1024), 0);
	finish(f, &a);
	finish(f, &b);
	assert_int_equal(a.r.ret_offset, ZB + 8192);
	assert_int_equal(b.r.ret_offset, ZB + 8704);
	/* not beyond the capacity; exactly to it makes it full */
	assert_int_equal(run(f, CFS_DEV_WRITE, ZB + 9728, CAP - 9728 + 512), -EINVAL);
	assert_int_equal(run(f, CFS_DEV_WRITE, ZB + 9728, CAP - 9728), CAP - 9728);
	assert_int_equal(zone(f, 1).state, CFS_ZONE_FULL);
	assert_int_equal(run(f, CFS_DEV_ZONE_APPEND, ZB, 512), -EINVAL);
	assert_int_equal(run(f, CFS_DEV_ZONE_APPEND, ZB + 512, 512), -EINVAL);
	assert_int_equal(run(f, CFS_DEV_ZONE_RESET, ZB, 0), 0);
	assert_int_equal(zone(f, 1).wp, ZB);
	assert_int_equal(run(f, CFS_DEV_DISCARD, ZB, 4096), -EINVAL);
	/* the conventional one is written anywhere */
	assert_int_equal(run(f, CFS_DEV_WRITE, 8192, 512), 512);
	assert_int_equal(run(f, CFS_DEV_WRITE, 4096, 512), 512);
	assert_int_equal(run(f, CFS_DEV_ZONE_RESET, 0, 0), -EINVAL);
	assert_int_equal(zone(f, 0).type, CFS_ZONE_CONV);
}

static void test_limits(void **state)
{
	struct fixture *f = *state;

	for (uint32_t i = 1; i <= 3; i++)
		assert_int_equal(run(f, CFS_DEV_WRITE, i * ZB, 512), 512);
	/* two open at most: the first was closed to let the third in, and is still active */
	assert_int_equal(zone(f, 1).state, CFS_ZONE_CLOSED);
	assert_int_equal(run(f, CFS_DEV_WRITE, 4 * ZB, 512), -EOVERFLOW);
	assert_int_equal(f->dev->ops->zone_sync(f->dev, CFS_DEV_ZONE_FINISH, 2 * ZB), 0);
	assert_int_equal(run(f, CFS_DEV_WRITE, 4 * ZB, 512), 512);
	assert_int_equal(run(f, CFS_DEV_WRITE, 2 * ZB + 512, 512), -EINVAL);	/* finished */
	/* explicitly open ones are not closed for anybody */
	assert_int_equal(run(f, CFS_DEV_ZONE_OPEN, 1 * ZB, 0), 0);
	assert_int_equal(run(f, CFS_DEV_ZONE_OPEN, 3 * ZB, 0), 0);
	assert_int_equal(run(f, CFS_DEV_WRITE, 4 * ZB + 512, 512), -ETOOMANYREFS);
	assert_int_equal(run(f, CFS_DEV_ZONE_CLOSE, 3 * ZB, 0), 0);
	assert_int_equal(run(f, CFS_DEV_WRITE, 4 * ZB + 512, 512), 512);
	/* what a finished zone never got reads as anything, but not as what was there in an earlier life */
	assert_int_equal(run(f, CFS_DEV_READ, 2 * ZB, 1024), 1024);
	assert_int_equal(f->buf[0], 1);
	assert_int_not_equal(f->buf[512], 1);
}

static void test_failures(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(run(f, CFS_DEV_WRITE, ZB, 512), 512);
	assert_int_equal(run(f, CFS_DEV_WRITE, 2 * ZB, 512), 512);
	cfs_dev_mem_zone_fail(f->dev, 1, CFS_ZONE_READONLY);
	cfs_dev_mem_zone_fail(f->dev, 2, CFS_ZONE_OFFLINE);
	assert_int_equal(run(f, CFS_DEV_WRITE, ZB + 512, 512), -EROFS);
	assert_int_equal(run(f, CFS_DEV_ZONE_RESET, ZB, 0), -EROFS);
	assert_int_equal(run(f, CFS_DEV_READ, ZB, 512), 512);
	assert_int_equal(f->buf[0], 1);
	assert_int_equal(run(f, CFS_DEV_READ, 2 * ZB, 512), -ENXIO);
	assert_int_equal(run(f, CFS_DEV_ZONE_APPEND, 2 * ZB, 512), -ENXIO);
	assert_int_equal(f->dev->ops->read_sync(f->dev, 2 * ZB, f->buf, 512), -ENXIO);
	assert_int_equal(f->dev->ops->zone_sync(f->dev, CFS_DEV_ZONE_RESET, 2 * ZB), -ENXIO);
	assert_int_equal(f->dev->ops->write_sync(f->dev, ZB + 512, f->buf, 512), -EROFS);
	assert_int_equal(zone(f, 2).state, CFS_ZONE_OFFLINE);
	/* failed zones are not active: three others may be */
	for (uint32_t i = 3; i <= 5; i++)
		assert_int_equal(run(f, CFS_DEV_WRITE, i * ZB, 512), 512);
}

static void test_geometry(void **state)
{
	struct fixture *f = *state;
	struct cfs_zone_geometry g = { .zone_bytes = ZB, .zone_capacity = ZB + 512, .n_zones = 8 };
	struct cfs_dev *d = NULL;

	assert_int_equal(cfs_dev_mem_create_zoned(f->loop, &g, 512, &d), -EINVAL);
	g.zone_capacity = 100;
	assert_int_equal(cfs_dev_mem_create_zoned(f->loop, &g, 512, &d), -EINVAL);
	g.zone_capacity = ZB;
	g.n_zones = 0;
	assert_int_equal(cfs_dev_mem_create_zoned(f->loop, &g, 512, &d), -EINVAL);
	assert_null(d);
}

static void test_atomic_rules(void **state)
{
	struct cfs_dev_info i = { .write_unit = 512 };

	(void)state;
	assert_false(cfs_dev_can_atomic(&i, 0, 512));
	i.atomic_unit = 16384;
	assert_true(cfs_dev_can_atomic(&i, 4096, 12288));
	assert_false(cfs_dev_can_atomic(&i, 0, 16896));
	i.atomic_boundary = 16384;
	assert_true(cfs_dev_can_atomic(&i, 4096, 12288));
	assert_false(cfs_dev_can_atomic(&i, 8192, 12288));
	i.atomic_min = 4096;
	assert_false(cfs_dev_can_atomic(&i, 0, 512));
	i.flags = CFS_DEV_F_ATOMIC_POW2;
	assert_false(cfs_dev_can_atomic(&i, 0, 12288));
	assert_false(cfs_dev_can_atomic(&i, 4096, 8192));
	assert_true(cfs_dev_can_atomic(&i, 8192, 8192));
}

int main(void)
{
#define ON(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = { ON(test_write_pointer), ON(test_limits), ON(test_failures),
					    ON(test_geometry), cmocka_unit_test(test_atomic_rules) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
