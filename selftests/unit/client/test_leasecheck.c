// SPDX-License-Identifier: MIT
/*
 * Proves that a reply's valid bits are refused exactly when a break that touches them came after the request
 * was sent: by name, by directory, by inode, by loss of the session, and whenever the ring has lapped.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "client/leasecheck.h"

static struct cfs_breaks b;

static int reset(void **state)
{
	(void)state;
	b = (struct cfs_breaks){ 0 };
	return 0;
}

static void names(void **state)
{
	uint64_t g = cfs_breaks_gen(&b);

	(void)state;
	assert_false(cfs_breaks_name(&b, g, 7, "a", 1));
	cfs_breaks_note(&b, CFS_BRK_NAME, 7, 0, "a", 1);
	assert_true(cfs_breaks_name(&b, g, 7, "a", 1));
	assert_false(cfs_breaks_name(&b, g, 7, "b", 1));
	assert_false(cfs_breaks_name(&b, g, 8, "a", 1));
	assert_false(cfs_breaks_name(&b, g + 1, 7, "a", 1));
	assert_false(cfs_breaks_attr(&b, g, 7, 7));
	cfs_breaks_note(&b, CFS_BRK_DIR, 7, 0, NULL, 0);
	assert_true(cfs_breaks_name(&b, g + 1, 7, "b", 1));
	assert_true(cfs_breaks_attr(&b, g + 1, 100, 7));
	assert_false(cfs_breaks_attr(&b, g + 1, 100, 8));
}

static void attributes(void **state)
{
	(void)state;
	cfs_breaks_note(&b, CFS_BRK_NAME | CFS_BRK_DIRATTR, 7, 0, "a", 1);
	assert_true(cfs_breaks_attr(&b, 0, 7, 7));
	assert_false(cfs_breaks_attr(&b, 0, 100, 7));
	cfs_breaks_note(&b, CFS_BRK_ATTR, 7, 100, NULL, 0);
	assert_true(cfs_breaks_attr(&b, 1, 100, 7));
	assert_false(cfs_breaks_attr(&b, 1, 101, 7));
	assert_false(cfs_breaks_data(&b, 0, 100));
	cfs_breaks_note(&b, CFS_BRK_DATA, 0, 101, NULL, 0);
	assert_true(cfs_breaks_data(&b, 0, 101));
	assert_true(cfs_breaks_attr(&b, 2, 101, 7));
}

static void everything(void **state)
{
	(void)state;
	cfs_breaks_note(&b, CFS_BRK_ALL, 0, 0, NULL, 0);
	assert_true(cfs_breaks_name(&b, 0, 1, "x", 1));
	assert_true(cfs_breaks_attr(&b, 0, 1, 1));
	assert_true(cfs_breaks_data(&b, 0, 1));
	assert_false(cfs_breaks_data(&b, 1, 1));
}

static void lapped(void **state)
{
	(void)state;
	for (unsigned i = 0; i < CFS_BREAKS_KEPT - 2; i++)
		cfs_breaks_note(&b, CFS_BRK_ATTR, 0, 5, NULL, 0);
	assert_false(cfs_breaks_data(&b, 0, 9));
	cfs_breaks_note(&b, CFS_BRK_ATTR, 0, 5, NULL, 0);
	cfs_breaks_note(&b, CFS_BRK_ATTR, 0, 5, NULL, 0);
	assert_true(cfs_breaks_data(&b, 0, 9));
	assert_true(cfs_breaks_data(&b, cfs_breaks_gen(&b) + 1, 9));
}

static void time_to_live(void **state)
{
	const uint64_t s = 1000000000ull;

	(void)state;
	assert_int_equal(cfs_lease_ttl_ns(100 * s, 110 * s, 10000), 9 * s);
	assert_int_equal(cfs_lease_ttl_ns(109 * s, 110 * s, 10000), 0);
	assert_int_equal(cfs_lease_ttl_ns(200 * s, 110 * s, 10000), 0);
	assert_int_equal(cfs_lease_ttl_ns(5, 0, 10000), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(names, reset), cmocka_unit_test_setup(attributes, reset),
		cmocka_unit_test_setup(everything, reset), cmocka_unit_test_setup(lapped, reset),
		cmocka_unit_test(time_to_live),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
