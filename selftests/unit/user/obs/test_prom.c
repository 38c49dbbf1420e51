// SPDX-License-Identifier: MIT
/*
 * test_prom.c - proves that a table and a document make exactly the expected text: members, stars over objects and arrays, several
 * stars, scales, texts and booleans; that what is missing makes no line; that labels are escaped and never cut within one; and
 * that a text that grows past its bound ends with a whole line.
 */
#include "obs/prom.h"

#include "base/base.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const struct cfs_prom_row rows[] = {
	CFS_PROM_GAUGES("state", "live", "Is it live.", .is = "live"),
	CFS_PROM_GAUGES("left_ms", "left_seconds", "Time left.", .scale = 0.001),
	CFS_PROM_COUNTS("ops.*", "ops_total", "Operations.", .labels = "op"),
	CFS_PROM_COUNTS("targets.*.free", "free_bytes", "Room.", .labels = "target"),
	CFS_PROM_COUNTS("tiers.*.*", "events_total", "Events.", .labels = "tier,event"),
	CFS_PROM_GAUGES("flag", "flag", "A flag."),
	CFS_PROM_GAUGES("nowhere.at.all", "nothing", "Not there."),
	CFS_PROM_GAUGES("state.deeper", "nothing_either", "Not an object."),
};

static void test_rows(void **state)
{
	json_t *doc = json_loads("{\"state\": \"live\", \"left_ms\": 1500, \"ops\": {\"lookup\": 3, \"name\\\"d\": 4},"
				 "\"targets\": [{\"id\": 7, \"free\": 9007199254740993}, {\"free\": 1}],"
				 "\"tiers\": {\"a\": {\"x\": 1, \"why\": \"text\"}, \"b\": {\"x\": 2}}, \"flag\": true}", 0, NULL);
	struct cfs_prom p = { 0 };

	(void)state;
	assert_non_null(doc);
	cfs_prom_rows(&p, doc, rows, CFS_ARRAY_SIZE(rows), "m=\"1\"");
	assert_string_equal(p.text, "# HELP claudefs_live Is it live.\n# TYPE claudefs_live gauge\nclaudefs_live{m=\"1\"} 1\n"
		"# HELP claudefs_left_seconds Time left.\n# TYPE claudefs_left_seconds gauge\nclaudefs_left_seconds{m=\"1\"} 1.5\n"
		"# HELP claudefs_ops_total Operations.\n# TYPE claudefs_ops_total counter\n"
		"claudefs_ops_total{m=\"1\",op=\"lookup\"} 3\nclaudefs_ops_total{m=\"1\",op=\"name\\\"d\"} 4\n"
		"# HELP claudefs_free_bytes Room.\n# TYPE claudefs_free_bytes counter\n"
		"claudefs_free_bytes{m=\"1\",target=\"7\"} 9.00719925e+15\nclaudefs_free_bytes{m=\"1\",target=\"1\"} 1\n"
		"# HELP claudefs_events_total Events.\n# TYPE claudefs_events_total counter\n"
		"claudefs_events_total{m=\"1\",tier=\"a\",event=\"x\"} 1\nclaudefs_events_total{m=\"1\",tier=\"b\",event=\"x\"} 2\n"
		"# HELP claudefs_flag A flag.\n# TYPE claudefs_flag gauge\nclaudefs_flag{m=\"1\"} 1\n");
	assert_int_equal(p.len, strlen(p.text));
	cfs_prom_free(&p);
	json_decref(doc);
}

static void test_labels(void **state)
{
	char l[32] = "";

	(void)state;
	cfs_prom_label(l, sizeof(l), "a", "x\\\"\n");
	assert_string_equal(l, "a=\"x\\\\\\\"\\n\"");
	cfs_prom_label(l, sizeof(l), "b", "0123456789abcdef0123456789"); /* does not fit: not half of it */
	assert_string_equal(l, "a=\"x\\\\\\\"\\n\"");
	cfs_prom_label(l, sizeof(l), "b", "");
	assert_string_equal(l, "a=\"x\\\\\\\"\\n\",b=\"\"");
}

static void test_bound(void **state)
{
	struct cfs_prom p = { 0 };

	(void)state;
	for (unsigned i = 0; i < CFS_PROM_MAX / 32; i++)
		cfs_prom_line(&p, "claudefs_a_name_of_some_length_total", "", i);
	assert_in_range(p.len, CFS_PROM_MAX - 64, CFS_PROM_MAX);
	assert_int_equal(p.len, strlen(p.text));
	assert_int_equal(p.text[p.len - 1], '\n');
	cfs_prom_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows), cmocka_unit_test(test_labels), cmocka_unit_test(test_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
