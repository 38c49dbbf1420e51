/* SPDX-License-Identifier: MIT */
/* fhtab: numbers are never 0, never mean two things, and what another process gave is kept beside what is given here. */
#include "client/fhtab.h"

#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
/* after those it needs */
#include <cmocka.h>

static struct cfs_fh *fh(uintptr_t n)
{
	return (struct cfs_fh *)(n * 16);	/* never looked into */
}

static void test_numbers(void **state)
{
	struct cfs_fhtab *t;
	uint64_t a, b, c;

	(void)state;
	assert_int_equal(cfs_fhtab_create(&t), 0);
	assert_null(cfs_fhtab_get(t, 0));
	assert_null(cfs_fhtab_get(t, 1));
	a = cfs_fhtab_add(t, fh(1));
	b = cfs_fhtab_add(t, fh(2));
	assert_true(a && b && a != b);
	assert_ptr_equal(cfs_fhtab_get(t, a), fh(1));
	assert_ptr_equal(cfs_fhtab_get(t, b), fh(2));
	cfs_fhtab_del(t, a);
	assert_null(cfs_fhtab_get(t, a));
	c = cfs_fhtab_add(t, fh(3));
	assert_int_equal(cfs_fhtab_place(c), cfs_fhtab_place(a));	/* the place again, another number */
	assert_int_not_equal(c, a);
	assert_null(cfs_fhtab_get(t, a));
	assert_ptr_equal(cfs_fhtab_get(t, c), fh(3));
	assert_null(cfs_fhtab_get(t, UINT64_MAX));
	assert_null(cfs_fhtab_get(t, (uint64_t)CFS_FHS_MAX + 1));
	cfs_fhtab_destroy(t);
}

static void test_restored(void **state)
{
	static const uint32_t places[] = { 0, 3, 2, 1500, 7, CFS_FHS_MAX - 1 };
	struct cfs_fhtab *t;

	(void)state;
	assert_int_equal(cfs_fhtab_create(&t), 0);
	for (size_t i = 0; i < CFS_ARRAY_SIZE(places); i++)
		assert_true(cfs_fhtab_restore(t, 5ull << 32 | (places[i] + 1), fh(i + 1)));
	assert_false(cfs_fhtab_restore(t, 6ull << 32 | 4, fh(99)));	/* taken */
	assert_false(cfs_fhtab_restore(t, 6ull << 32, fh(99)));
	assert_false(cfs_fhtab_restore(t, (uint64_t)CFS_FHS_MAX + 1, fh(99)));
	for (uintptr_t i = 0; i < 3000; i++) {
		uint64_t id = cfs_fhtab_add(t, fh(1000 + i));

		assert_true(id);
		for (size_t k = 0; k < CFS_ARRAY_SIZE(places); k++)
			assert_int_not_equal(cfs_fhtab_place(id), places[k]);
	}
	for (size_t i = 0; i < CFS_ARRAY_SIZE(places); i++) {
		assert_ptr_equal(cfs_fhtab_get(t, 5ull << 32 | (places[i] + 1)), fh(i + 1));
		cfs_fhtab_del(t, 5ull << 32 | (places[i] + 1));
		assert_null(cfs_fhtab_get(t, 5ull << 32 | (places[i] + 1)));
	}
	cfs_fhtab_destroy(t);
}

static void test_full(void **state)
{
	struct cfs_fhtab *t;
	uint64_t last = 0;

	(void)state;
	assert_int_equal(cfs_fhtab_create(&t), 0);
	for (uint32_t i = 0; i < CFS_FHS_MAX; i++)
		assert_true((last = cfs_fhtab_add(t, fh(1))));
	assert_int_equal(cfs_fhtab_add(t, fh(1)), 0);
	cfs_fhtab_del(t, last);
	assert_true(cfs_fhtab_add(t, fh(1)));
	cfs_fhtab_destroy(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers), cmocka_unit_test(test_restored), cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
