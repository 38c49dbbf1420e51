// SPDX-License-Identifier: MIT
/*
 * test_latency.c - proves that percentiles are at most a quarter too high and never too low, that latencies survive the way through
 * JSON, whatever stands in it, and that the histogram for Prometheus counts each request once, in seconds.
 */
#include "obs/latency.h"

#include "base/base.h"
#include "obs/prom.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void test_percentiles(void **state)
{
	static const unsigned asked[] = { 1, 500, 900, 990, 1000 };
	struct cfs_bpf_op op = { 0 };

	(void)state;
	assert_int_equal(cfs_latency_percentile_ns(&op, 500), 0);
	for (uint64_t us = 1; us <= 1000; us++)
		op.lat[cfs_bpf_lat_bucket(us * 1000)]++;
	for (size_t i = 0; i < CFS_ARRAY_SIZE(asked); i++) {
		uint64_t got = cfs_latency_percentile_ns(&op, asked[i]), exact = asked[i] * 1000ull;

		assert_in_range(got, exact, exact + exact / 4 + 1024);
	}
	memset(&op, 0, sizeof(op));
	op.lat[CFS_BPF_LATS - 1] = 1;
	assert_true(cfs_latency_percentile_ns(&op, 1) > 60ull * CFS_NSEC_PER_SEC);
}

static void test_json(void **state)
{
	struct cfs_bpf_op op = { .count = 7, .errors = 2, .total_ns = 1ull << 40, .max_ns = 1ull << 39 }, back;
	json_t *o;

	(void)state;
	op.lat[0] = 4;
	op.lat[CFS_BPF_LATS - 1] = 3;
	o = cfs_latency_json(&op);
	assert_non_null(o);
	cfs_latency_from_json(o, &back);
	assert_memory_equal(&op, &back, sizeof(op));
	json_decref(o);
	o = json_loads("{\"count\": \"x\", \"latency\": [[-1, 5], [104, 5], [3], 7, [\"a\", 1]]}", 0, NULL);
	assert_non_null(o);
	cfs_latency_from_json(o, &back);
	assert_int_equal(back.count, 0);
	assert_int_equal(back.lat[CFS_BPF_LATS - 1], 0);
	assert_int_equal(back.lat[3], 0);
	json_decref(o);
	cfs_latency_from_json(NULL, &back);
	assert_int_equal(back.count, 0);
}

static void test_prom(void **state)
{
	struct cfs_bpf_op op = { .total_ns = 3500000000ull };
	struct cfs_prom p = { 0 };

	(void)state;
	op.lat[cfs_bpf_lat_bucket(500)] = 2;
	op.lat[CFS_BPF_LATS - 1] = 1;
	cfs_latency_prom(&p, "x_seconds", "a=\"b\"", "open", &op);
	assert_non_null(strstr(p.text, "x_seconds_bucket{a=\"b\",op=\"open\",le=\"1.024e-06\"} 2\n"));
	assert_non_null(strstr(p.text, "x_seconds_bucket{a=\"b\",op=\"open\",le=\"+Inf\"} 3\n"));
	assert_non_null(strstr(p.text, "x_seconds_sum{a=\"b\",op=\"open\"} 3.5\n"));
	assert_non_null(strstr(p.text, "x_seconds_count{a=\"b\",op=\"open\"} 3\n"));
	cfs_prom_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_percentiles), cmocka_unit_test(test_json), cmocka_unit_test(test_prom),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
