/* SPDX-License-Identifier: MIT */
/*
 * test_rangeset.c - proves that a range set is the set of bytes it was told to be: random additions and removals are
 * compared with a bitmap, and the invariants (sorted, apart, counted) hold after each.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/hash.h"
#include "client/rangeset.h"

#include <string.h>

#define SPACE 600u

static uint64_t state = 7;

static unsigned rnd(void)
{
	return (unsigned)(cfs_hash_u64(++state) >> 33);
}

static void compare(const struct cfs_rangeset *rs, const bool *map)
{
	uint64_t bytes = 0, pos = 0;
	struct cfs_range r;

	for (uint32_t i = 0; i < rs->n; i++) {
		assert_true(rs->v[i].off < rs->v[i].end);
		assert_true(!i || rs->v[i - 1].end < rs->v[i].off);
		for (uint64_t at = rs->v[i].off; at < rs->v[i].end; at++)
			assert_true(map[at]);
		bytes += rs->v[i].end - rs->v[i].off;
	}
	assert_int_equal(bytes, rs->bytes);
	for (unsigned at = 0; at < SPACE; at++)
		bytes -= map[at];
	assert_int_equal(bytes, 0);
	/* _next() visits all of it in order */
	for (bytes = 0; cfs_rangeset_next(rs, pos, &r); pos = r.end) {
		assert_true(r.end > pos);
		bytes += r.end - r.off;
	}
	assert_int_equal(bytes, rs->bytes);
}

static void test_random(void **unused)
{
	struct cfs_rangeset rs = { 0 };
	bool map[SPACE] = { false };

	(void)unused;
	for (unsigned k = 0; k < 20000; k++) {
		unsigned off = rnd() % SPACE, len = rnd() % (k % 7 ? 12 : 200);
		unsigned end = off + len > SPACE ? SPACE : off + len;
		bool add = rnd() % 2, all = true;

		if (add)
			cfs_rangeset_add(&rs, off, end);
		else
			cfs_rangeset_del(&rs, off, end);
		for (unsigned at = off; at < end; at++)
			map[at] = add;
		if (k % 10 == 0)
			compare(&rs, map);
		off = rnd() % SPACE;
		end = off + rnd() % 20;
		end = end > SPACE ? SPACE : end;
		for (unsigned at = off; at < end; at++)
			all &= map[at];
		assert_int_equal(cfs_rangeset_covers(&rs, off, end), all);
	}
	cfs_rangeset_clear(&rs);
	assert_int_equal(rs.bytes, 0);
}

static void test_sets(void **unused)
{
	struct cfs_rangeset a = { 0 }, b = { 0 }, c = { 0 };

	(void)unused;
	cfs_rangeset_add(&a, 0, 10);
	cfs_rangeset_add(&a, 20, 30);
	cfs_rangeset_add(&b, 5, 25);
	cfs_rangeset_add_set(&b, &a);
	assert_int_equal(b.n, 1);
	assert_int_equal(b.bytes, 30);
	cfs_rangeset_del_set(&b, &a);
	assert_int_equal(b.n, 1);
	assert_int_equal(b.v[0].off, 10);
	assert_int_equal(b.v[0].end, 20);
	cfs_rangeset_move(&c, &a);
	assert_int_equal(c.bytes, 20);
	assert_int_equal(a.n, 0);
	/* the ends of the number line */
	cfs_rangeset_add(&c, UINT64_MAX - 5, UINT64_MAX);
	assert_true(cfs_rangeset_covers(&c, UINT64_MAX - 5, UINT64_MAX));
	cfs_rangeset_del(&c, 0, UINT64_MAX);
	assert_int_equal(c.n, 0);
	cfs_rangeset_clear(&b);
	cfs_rangeset_clear(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_random), cmocka_unit_test(test_sets) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
