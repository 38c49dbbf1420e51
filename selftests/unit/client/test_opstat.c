// SPDX-License-Identifier: MIT
/*
 * test_opstat.c - proves that requests are counted exactly by many threads at once, and that opcodes out of range are harmless.
 */
#include "client/opstat.h"

#include "base/base.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#define THREADS 4
#define EACH 20000

static void *count_many(void *arg)
{
	for (unsigned i = 0; i < EACH; i++)
		cfs_opstat_count(arg, 3, 1000 * (i % 100), i % 10 == 0);
	return NULL;
}

static void test_threads(void **state)
{
	struct cfs_bpf_op sum[CFS_BPF_OPS];
	pthread_t threads[THREADS];
	struct cfs_opstat *s;
	uint64_t in_buckets = 0;

	(void)state;
	assert_int_equal(cfs_opstat_create(&s), 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count_many, s), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	cfs_opstat_count(s, CFS_BPF_OPS, 1, true);
	cfs_opstat_count(s, UINT32_MAX, 1, true);
	cfs_opstat_sum(s, sum);
	assert_int_equal(sum[3].count, THREADS * EACH);
	assert_int_equal(sum[3].errors, THREADS * EACH / 10);
	assert_int_equal(sum[3].total_ns, THREADS * (EACH / 100) * 4950ull * 1000);
	assert_int_equal(sum[3].max_ns, 99000);
	for (unsigned b = 0; b < CFS_BPF_LATS; b++)
		in_buckets += sum[3].lat[b];
	assert_int_equal(in_buckets, THREADS * EACH);
	assert_int_equal(sum[0].count + sum[4].count + sum[CFS_BPF_OPS - 1].count, 0);
	cfs_opstat_destroy(s);
}

static void test_names(void **state)
{
	char buf[16];

	(void)state;
	assert_string_equal(cfs_opstat_name(1, buf), "lookup");
	assert_string_equal(cfs_opstat_name(63, buf), "op_63");
	assert_string_equal(cfs_opstat_name(UINT32_MAX, buf), "op_4294967295");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads), cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
