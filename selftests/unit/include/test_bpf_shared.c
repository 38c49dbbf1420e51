// SPDX-License-Identifier: MIT
/*
 * test_bpf_shared.c - proves that latency buckets cover all times without gaps: every time is below its bucket's bound and not
 * below the one before, and bounds are at most a quarter apart. The same C is compiled into the BPF programs.
 */
#include "claudefs/bpf_shared.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static void check(uint64_t ns)
{
	uint32_t b = cfs_bpf_lat_bucket(ns);

	assert_in_range(b, 0, CFS_BPF_LATS - 1);
	if (b)
		assert_true(ns >= cfs_bpf_lat_bound_ns(b - 1));
	if (b < CFS_BPF_LATS - 1)
		assert_true(ns < cfs_bpf_lat_bound_ns(b));
}

static void test_cover(void **state)
{
	(void)state;
	for (uint64_t ns = 0; ns < 100000; ns++)
		check(ns);
	for (unsigned shift = 10; shift < 64; shift++)
		for (int d = -3; d <= 3; d++)
			check((1ull << shift) + (uint64_t)(int64_t)d);
	check(UINT64_MAX);
	srand(1);
	for (int i = 0; i < 100000; i++)
		check(((uint64_t)rand() << 32 | (uint64_t)rand()) >> (rand() % 64));
}

static void test_bounds(void **state)
{
	(void)state;
	assert_int_equal(cfs_bpf_lat_bound_ns(0), 1024);
	for (uint32_t b = 1; b < CFS_BPF_LATS; b++) {
		uint64_t lo = cfs_bpf_lat_bound_ns(b - 1), hi = cfs_bpf_lat_bound_ns(b);

		assert_true(hi > lo);
		assert_true(hi - lo <= lo / 4);
	}
	assert_int_equal(cfs_bpf_lat_bucket(UINT64_MAX), CFS_BPF_LATS - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_cover), cmocka_unit_test(test_bounds) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
