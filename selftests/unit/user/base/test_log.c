/* SPDX-License-Identifier: MIT */
/*
 * test_log.c - proves that a line repeated without end is written CFS_LOG_BURST times and no more, that others still get
 * through, and that debug lines are not limited.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static unsigned lines_with(const char *path, const char *text)
{
	FILE *f = fopen(path, "r");
	char line[2048];
	unsigned n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		n += strstr(line, text) != NULL;
	fclose(f);
	return n;
}

static void test_limit(void **state)
{
	char path[] = "test_log.XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(cfs_log_init("test", path, CFS_LOG_INFO), 0);
	for (unsigned i = 0; i < 10 * CFS_LOG_BURST; i++) {
		cfs_warn("storm %u", i);
		cfs_debug("quiet %u", i);
	}
	cfs_err("other");
	assert_int_equal(lines_with(path, "warning: storm"), CFS_LOG_BURST);
	assert_int_equal(lines_with(path, "error: other"), 1);
	assert_int_equal(lines_with(path, "quiet"), 0);
	cfs_log_set_level(CFS_LOG_DEBUG);
	for (unsigned i = 0; i < 2 * CFS_LOG_BURST; i++)
		cfs_debug("talk %u", i);
	assert_int_equal(lines_with(path, "talk"), 2 * CFS_LOG_BURST);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_limit) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
