/* SPDX-License-Identifier: MIT */
/* Proves: who waits for what may come is patient for a time, longer while it gets nearer, never for ever, and again after a while. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"

static void test_patience(void **state)
{
	struct cfs_patience p = { 0 };
	uint64_t t = 1000;

	(void)state;
	cfs_patience_moved(&p, t);	/* nobody waits */
	assert_int_equal(p.since_ns, 0);
	assert_true(cfs_patience(&p, t, 10));
	assert_true(cfs_patience(&p, t + 9, 10));
	assert_false(cfs_patience(&p, t + 10, 10));
	assert_false(cfs_patience(&p, t + 20, 10));
	assert_true(cfs_patience(&p, t + 21, 10));

	t = 2000;
	p = (struct cfs_patience){ 0 };
	for (unsigned i = 0; i < 10 * CFS_PATIENCE_MAX; i++) {
		assert_true(cfs_patience(&p, t + i, 10));
		cfs_patience_moved(&p, t + i);
	}
	for (unsigned i = 10 * CFS_PATIENCE_MAX; i <= 10 * (CFS_PATIENCE_MAX + 1); i++) {
		assert_false(cfs_patience(&p, t + i, 10));
		cfs_patience_moved(&p, t + i);
	}
	assert_true(cfs_patience(&p, t + 10 * (CFS_PATIENCE_MAX + 1) + 1, 10));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_patience) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
