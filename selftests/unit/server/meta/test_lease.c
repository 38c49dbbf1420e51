/* SPDX-License-Identifier: MIT */
/*
 * Proves of the lease table: modes are raised by grants and lowered by nothing else than lower, break_end and
 * drop; a record under recall is reported as what the recalls leave, survives until the last answer, and an open mark
 * outlives the mode; the exclusive holder is always the one recorded; counters and memory return to
 * zero; more than 8 breaks within a second, and only those, stop grants for a second even if the holders leave; random
 * sequences agree with a model that is two arrays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "server/meta/lease.h"

#define MS CFS_NSEC_PER_MSEC

struct t {
	struct cfs_leases l;
	struct cfs_lease_owner o[4];
};

static int setup(void **state)
{
	struct t *t = calloc(1, sizeof(*t));

	assert_int_equal(cfs_leases_init(&t->l, 1000), 0);
	for (unsigned i = 0; i < 4; i++)
		cfs_lease_owner_init(&t->o[i]);
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct t *t = *state;

	for (unsigned i = 0; i < 4; i++)
		cfs_lease_drop_owner(&t->l, &t->o[i]);
	assert_int_equal(t->l.dir_leases, 0);
	assert_int_equal(t->l.file_leases, 0);
	cfs_leases_free(&t->l);
	free(t);
	return 0;
}

static void test_modes(void **state)
{
	struct t *t = *state;
	struct cfs_lease *l = cfs_lease_grant(&t->l, &t->o[0], 7, false, CFS_LEASE_EXCL, true);

	assert_ptr_equal(cfs_lease_obj(&t->l, 7)->excl, l);
	assert_int_equal(t->l.file_leases, 1);
	/* a grant never lowers */
	assert_ptr_equal(cfs_lease_grant(&t->l, &t->o[0], 7, false, CFS_LEASE_SHARED, false), l);
	assert_int_equal(l->mode, CFS_LEASE_EXCL);
	assert_int_equal(l->open, 1);
	cfs_lease_lower(&t->l, l, CFS_LEASE_SHARED, true);
	assert_null(cfs_lease_obj(&t->l, 7)->excl);
	assert_non_null(cfs_lease_grant(&t->l, &t->o[1], 7, false, CFS_LEASE_SHARED, false));
	assert_int_equal(t->l.file_leases, 2);
	/* the open mark outlives the mode, and then it is all there is */
	cfs_lease_lower(&t->l, l, CFS_LEASE_NONE, true);
	assert_ptr_equal(cfs_lease_get(&t->l, &t->o[0], 7), l);
	assert_int_equal(t->l.file_leases, 1);
	cfs_lease_lower(&t->l, l, CFS_LEASE_NONE, false);
	assert_null(cfs_lease_get(&t->l, &t->o[0], 7));
	cfs_lease_drop_owner(&t->l, &t->o[1]);
	assert_null(cfs_lease_obj(&t->l, 7));
}

static void test_breaking(void **state)
{
	struct t *t = *state;
	struct cfs_lease *l = cfs_lease_grant(&t->l, &t->o[0], 9, false, CFS_LEASE_EXCL, false);

	cfs_lease_break_begin(l, CFS_LEASE_SHARED);
	assert_int_equal(cfs_lease_mode(l), CFS_LEASE_SHARED);
	assert_int_equal(l->mode, CFS_LEASE_EXCL);
	cfs_lease_break_begin(l, CFS_LEASE_NONE);
	assert_int_equal(cfs_lease_mode(l), CFS_LEASE_NONE);
	/* returned by itself meanwhile: the record waits for the answers */
	cfs_lease_lower(&t->l, l, CFS_LEASE_NONE, false);
	assert_ptr_equal(cfs_lease_get(&t->l, &t->o[0], 9), l);
	cfs_lease_break_end(&t->l, l, CFS_LEASE_SHARED, false);
	assert_ptr_equal(cfs_lease_get(&t->l, &t->o[0], 9), l);
	cfs_lease_break_end(&t->l, l, CFS_LEASE_NONE, false);
	assert_null(cfs_lease_get(&t->l, &t->o[0], 9));
	/* answered with "open" */
	l = cfs_lease_grant(&t->l, &t->o[0], 9, false, CFS_LEASE_SHARED, false);
	cfs_lease_break_begin(l, CFS_LEASE_NONE);
	cfs_lease_break_end(&t->l, l, CFS_LEASE_NONE, true);
	assert_int_equal(cfs_lease_get(&t->l, &t->o[0], 9)->open, 1);
	assert_int_equal(cfs_lease_mode(l), CFS_LEASE_NONE);
}

static void test_storm(void **state)
{
	struct t *t = *state;
	uint64_t now = 5000 * MS;
	struct cfs_lease_obj *obj;

	cfs_lease_grant(&t->l, &t->o[0], 5, true, CFS_LEASE_SHARED, false);
	obj = cfs_lease_obj(&t->l, 5);
	for (unsigned i = 0; i < 40; i++) /* eight a second are fine, for ever */
		cfs_lease_note_break(&t->l, obj, now += 126 * MS);
	assert_false(cfs_lease_storm(obj, now));
	now += 2000 * MS;
	for (unsigned i = 0; i < 8; i++)
		cfs_lease_note_break(&t->l, obj, now += MS);
	assert_false(cfs_lease_storm(obj, now));
	cfs_lease_note_break(&t->l, obj, now);
	assert_true(cfs_lease_storm(obj, now));
	/* it outlives the holders */
	cfs_lease_drop_owner(&t->l, &t->o[0]);
	cfs_leases_sweep(&t->l, now + 999 * MS);
	assert_ptr_equal(cfs_lease_obj(&t->l, 5), obj);
	assert_true(cfs_lease_storm(obj, now + 999 * MS));
	assert_false(cfs_lease_storm(obj, now + 1000 * MS));
	cfs_leases_sweep(&t->l, now + 1001 * MS);
	assert_null(cfs_lease_obj(&t->l, 5));
}

static void test_bound(void **state)
{
	struct t *t = *state;
	uint64_t before = cfs_leases_bytes(&t->l);

	for (uint64_t i = 0; i < 1000; i++)
		assert_non_null(cfs_lease_grant(&t->l, &t->o[i % 4], 100 + i, true, CFS_LEASE_SHARED, false));
	assert_null(cfs_lease_grant(&t->l, &t->o[0], 5000, true, CFS_LEASE_SHARED, false));
	assert_null(cfs_lease_obj(&t->l, 5000));
	assert_non_null(cfs_lease_grant(&t->l, &t->o[0], 100, true, CFS_LEASE_SHARED, false));
	assert_in_range(cfs_leases_bytes(&t->l) - before, 1, 1000 * 200);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(t->o[i].n, 250);
		cfs_lease_drop_owner(&t->l, &t->o[i]);
	}
}

static void test_random(void **state)
{
	enum { INOS = 40, STEPS = 20000 };
	struct t *t = *state;
	uint8_t mode[4][INOS] = { 0 }, open[4][INOS] = { 0 };
	struct cfs_rng r;

	cfs_rng_seed(&r, 3);
	for (unsigned step = 0; step < STEPS; step++) {
		unsigned o = cfs_rng_next(&r) % 4, ino = cfs_rng_next(&r) % INOS, want = cfs_rng_next(&r) % 3;
		struct cfs_lease *l = cfs_lease_get(&t->l, &t->o[o], ino);
		unsigned others = 0, count = 0;

		assert_int_equal(l ? l->mode : 0, mode[o][ino]);
		assert_int_equal(l ? l->open : 0, open[o][ino]);
		for (unsigned i = 0; i < 4; i++)
			others = i != o && mode[i][ino] > others ? mode[i][ino] : others;
		switch (cfs_rng_next(&r) % 4) {
		case 0:
			if (want + others > 2)
				break;
			if (want <= mode[o][ino] && !l)
				break;
			cfs_lease_grant(&t->l, &t->o[o], ino, false, want, step & 1);
			mode[o][ino] = want > mode[o][ino] ? want : mode[o][ino];
			open[o][ino] |= step & 1;
			break;
		case 1:
			if (!l)
				break;
			cfs_lease_lower(&t->l, l, want, step & 1);
			mode[o][ino] = want < mode[o][ino] ? want : mode[o][ino];
			open[o][ino] = step & 1;
			break;
		case 2:
			if (!l)
				break;
			cfs_lease_break_begin(l, want);
			cfs_lease_break_end(&t->l, l, want, false);
			mode[o][ino] = want < mode[o][ino] ? want : mode[o][ino];
			open[o][ino] = 0;
			break;
		case 3:
			if (cfs_rng_next(&r) % 50)
				break;
			cfs_lease_drop_owner(&t->l, &t->o[o]);
			memset(mode[o], 0, INOS);
			memset(open[o], 0, INOS);
			break;
		}
		for (unsigned i = 0; i < 4; i++) {
			for (unsigned j = 0; j < INOS; j++)
				count += mode[i][j] != 0;
		}
		assert_int_equal(t->l.file_leases, count);
	}
}

/* what makes a file contended, what ends that, and what never does */
static void test_contended(void **state)
{
	struct t *t = *state;
	uint64_t now = 5000 * MS;
	struct cfs_lease_obj *obj;

	cfs_lease_grant(&t->l, &t->o[0], 5, false, CFS_LEASE_SHARED, true);
	obj = cfs_lease_obj(&t->l, 5);
	for (unsigned i = 0; i < 40; i++)	/* one writer alone, never */
		cfs_lease_note_writer(&t->l, obj, 7, 1000 * MS, now += MS);
	for (unsigned i = 0; i < 40; i++)	/* nor two that take turns slowly: four times in five seconds */
		cfs_lease_note_writer(&t->l, obj, 8 + i % 2, 0, now += 1251 * MS);
	assert_false(cfs_lease_contended(obj, now));
	now += 6000 * MS;
	for (unsigned i = 0; i < 4; i++)
		cfs_lease_note_writer(&t->l, obj, 8 + i % 2, 0, now += MS);
	assert_false(cfs_lease_contended(obj, now));
	cfs_lease_note_writer(&t->l, obj, 8, 0, now);
	assert_true(cfs_lease_contended(obj, now));
	assert_false(cfs_lease_through(obj, now));
	cfs_lease_through_begin(obj, now);
	assert_true(cfs_lease_through(obj, now + 999 * MS));
	/* another one makes it last, the same one does not */
	cfs_lease_note_writer(&t->l, obj, 9, 0, now += 500 * MS);
	cfs_lease_note_writer(&t->l, obj, 9, 0, now += 500 * MS);
	assert_true(cfs_lease_through(obj, now + 499 * MS));
	assert_false(cfs_lease_contended(obj, now + 500 * MS));
	/* the next time attributes must be taken out of all leases again, and when somebody was given the exclusive one */
	now += 6000 * MS;
	cfs_lease_note_writer(&t->l, obj, 8, 400 * MS, now += MS);	/* it has waited for long */
	assert_true(cfs_lease_contended(obj, now));
	assert_false(cfs_lease_through(obj, now));
	cfs_lease_through_begin(obj, now);
	cfs_lease_grant(&t->l, &t->o[0], 5, false, CFS_LEASE_EXCL, true);
	assert_false(cfs_lease_through(obj, now));
	assert_true(cfs_lease_contended(obj, now));
	/* it is remembered without holders, and forgotten in the end */
	cfs_lease_drop_owner(&t->l, &t->o[0]);
	cfs_leases_sweep(&t->l, now + 999 * MS);
	assert_ptr_equal(cfs_lease_obj(&t->l, 5), obj);
	cfs_leases_sweep(&t->l, now + 5001 * MS);
	assert_null(cfs_lease_obj(&t->l, 5));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_modes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_breaking, setup, teardown),
		cmocka_unit_test_setup_teardown(test_storm, setup, teardown),
		cmocka_unit_test_setup_teardown(test_contended, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bound, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
