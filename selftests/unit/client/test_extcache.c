/* SPDX-License-Identifier: MIT */
/*
 * test_extcache.c - proves that the extent cache says of every byte what the server last said: random replies are
 * compared with an array that has, for each byte, unknown, hole, or (object, offset); and that lies are refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/hash.h"
#include "client/extcache.h"

#include <errno.h>
#include <string.h>

#define SPACE 500u
#define UNKNOWN 0u
#define HOLE 1u

static uint64_t state = 3;
static uint64_t model[SPACE];	/* UNKNOWN, HOLE, or object number << 32 | offset in it */

static unsigned rnd(void)
{
	return (unsigned)(cfs_hash_u64(++state) >> 33);
}

static void compare(const struct cfs_extcache *x)
{
	for (uint64_t at = 0; at < SPACE;) {
		uint64_t end = 0;
		struct cfs_ext e;
		enum cfs_ext_kind kind = cfs_extcache_at(x, at, &end, &e);

		if (kind == CFS_EXT_UNKNOWN) {
			assert_int_equal(model[at++], UNKNOWN);
			continue;
		}
		assert_true(end > at);
		for (; at < end && at < SPACE; at++) {
			if (kind == CFS_EXT_HOLE) {
				assert_int_equal(model[at], HOLE);
				continue;
			}
			assert_true(e.off <= at && at < e.end);
			assert_int_equal(model[at], e.oid.seq << 32 | (e.obj_off + (at - e.off)));
		}
	}
}

/* a reply about [off, end): extents with gaps, the first and last maybe reaching out of it */
static void reply(struct cfs_extcache *x, uint64_t off, uint64_t end)
{
	static uint64_t object = 1;
	struct cfs_extent e[32];
	unsigned n = 0;
	uint64_t at = off > 5 ? off - rnd() % 5 : off;

	for (uint64_t i = off; i < end; i++)
		model[i] = HOLE;
	while (at < end && n < 32) {
		uint32_t len = (n ? 1 : 6) + rnd() % 30, obj_off = rnd() % 50;
		bool unwritten = rnd() % 5 == 0;

		at += n ? rnd() % 3 * 10 : 0;
		if (at >= end)
			break;
		object++;
		e[n++] = (struct cfs_extent){
			.file_off = at, .len = len, .obj_off = obj_off, .oid = { .seq = object }, .obj_len = obj_off + len,
			.flags = unwritten ? CFS_EXT_UNWRITTEN : 0,
		};
		for (uint64_t i = at; i < at + len; i++)
			if (i >= off && i < end)
				model[i] = unwritten ? HOLE : object << 32 | (obj_off + (i - at));
		at += len;
	}
	assert_int_equal(cfs_extcache_put(x, off, end, e, n), 0);
}

static void test_random(void **unused)
{
	struct cfs_extcache x = { 0 };

	(void)unused;
	memset(model, 0, sizeof(model));
	for (unsigned k = 0; k < 5000; k++) {
		uint64_t off = rnd() % SPACE, end = off + rnd() % 80;

		end = end > SPACE ? SPACE : end;
		switch (rnd() % 4) {
		case 0:
			cfs_extcache_forget(&x, off, end);
			for (uint64_t i = off; i < end; i++)
				model[i] = UNKNOWN;
			break;
		case 1:
			cfs_extcache_hole(&x, off, end);
			for (uint64_t i = off; i < end; i++)
				model[i] = HOLE;
			break;
		default:
			if (off < end)
				reply(&x, off, end);
		}
		compare(&x);
	}
	cfs_extcache_clear(&x);
}

static void test_lies(void **unused)
{
	const struct cfs_extent good = { .file_off = 10, .len = 10, .obj_len = 10 };
	struct cfs_extcache x = { 0 };
	struct cfs_extent e[2];

	(void)unused;
#define REFUSED(...) do { \
		e[0] = e[1] = good; \
		e[1].file_off = 30; \
		__VA_ARGS__; \
		assert_int_equal(cfs_extcache_put(&x, 0, 100, e, 2), -EPROTO); \
	} while (0)
	REFUSED(e[1].file_off = 15);			/* overlap */
	REFUSED(e[1].file_off = 5);			/* order */
	REFUSED(e[1].file_off = 100);			/* not asked for */
	REFUSED(e[0].len = 0);
	REFUSED(e[0].obj_off = 1);			/* beyond its object */
	REFUSED(e[0].obj_off = UINT32_MAX);
	REFUSED(e[0].obj_len = CFS_OBJECT_MAX + 1);
	REFUSED(e[1].file_off = UINT64_MAX - 3);
	assert_int_equal(x.n, 0);
	assert_int_equal(cfs_extcache_put(&x, 100, 0, NULL, 0), -EPROTO);
	cfs_extcache_clear(&x);
}

static void test_bound(void **unused)
{
	struct cfs_extcache x = { 0 };
	struct cfs_extent e = { .len = 1, .obj_len = 1 };
	uint64_t end;
	struct cfs_ext got;

	(void)unused;
	for (uint64_t i = 0; i < 3 * CFS_EXTCACHE_MAX; i++) {
		e.file_off = i * 2;
		assert_int_equal(cfs_extcache_put(&x, i * 2, i * 2 + 2, &e, 1), 0);
		assert_true(x.n <= CFS_EXTCACHE_MAX);
		assert_int_equal(cfs_extcache_at(&x, i * 2, &end, &got), CFS_EXT_DATA);
	}
	cfs_extcache_clear(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random), cmocka_unit_test(test_lies), cmocka_unit_test(test_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
