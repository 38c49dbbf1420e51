// SPDX-License-Identifier: MIT
/*
 * Proves that the name and attribute cache gives out what was put in, forgets exactly what a break names, takes
 * nothing that a break touched since it was asked for, knows what the kernel may still hold, and stays in its bound.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "client/dcache.h"

static struct cfs_breaks breaks;
static struct cfs_dcache *dc;

static int setup(void **state)
{
	(void)state;
	breaks = (struct cfs_breaks){ 0 };
	return cfs_dcache_create(100000, &breaks, &dc);
}

static int teardown(void **state)
{
	(void)state;
	cfs_dcache_destroy(dc);
	return 0;
}

static struct cfs_attr attr_of(uint64_t ino, uint64_t parent)
{
	return (struct cfs_attr){ .ino = cfs_cpu_to_le64(ino), .parent = cfs_cpu_to_le64(parent),
				  .size = cfs_cpu_to_le64(ino * 10) };
}

static void put_and_get(void **state)
{
	struct cfs_attr a = attr_of(5, 1), got;
	uint64_t ino = 0;

	(void)state;
	assert_int_equal(cfs_dcache_name(dc, 1, "a", 1, 0, &ino), CFS_DC_MISS);
	assert_true(cfs_dcache_put_name(dc, 1, "a", 1, 5, 0, 0));
	assert_true(cfs_dcache_put_name(dc, 1, "gone", 4, 0, 0, 0));
	assert_true(cfs_dcache_put_attr(dc, &a, 0));
	assert_int_equal(cfs_dcache_name(dc, 1, "a", 1, 0, &ino), CFS_DC_PRESENT);
	assert_int_equal(ino, 5);
	assert_int_equal(cfs_dcache_name(dc, 1, "gone", 4, 0, &ino), CFS_DC_ABSENT);
	assert_int_equal(cfs_dcache_name(dc, 2, "a", 1, 0, &ino), CFS_DC_MISS);
	assert_int_equal(cfs_dcache_name(dc, 1, "ab", 2, 0, &ino), CFS_DC_MISS);
	assert_true(cfs_dcache_attr(dc, 5, &got));
	assert_memory_equal(&got, &a, sizeof(a));
	assert_true(cfs_dcache_put_name(dc, 1, "a", 1, 6, 0, 0));
	assert_int_equal(cfs_dcache_name(dc, 1, "a", 1, 0, &ino), CFS_DC_PRESENT);
	assert_int_equal(ino, 6);
}

static void breaks_refuse(void **state)
{
	struct cfs_attr a = attr_of(5, 1), many = attr_of(7, 0), got;
	uint64_t since = cfs_breaks_gen(&breaks), ino;

	(void)state;
	cfs_breaks_note(&breaks, CFS_BRK_NAME, 1, 0, "a", 1);
	assert_false(cfs_dcache_put_name(dc, 1, "a", 1, 5, since, 0));
	assert_int_equal(cfs_dcache_name(dc, 1, "a", 1, 0, &ino), CFS_DC_MISS);
	assert_true(cfs_dcache_put_name(dc, 1, "b", 1, 5, since, 0));
	cfs_breaks_note(&breaks, CFS_BRK_DIR, 1, 0, NULL, 0);
	cfs_dcache_drop_dir(dc, 1);
	assert_false(cfs_dcache_put_attr(dc, &a, since));
	assert_false(cfs_dcache_put_name(dc, 1, "c", 1, 5, since, 0));
	assert_false(cfs_dcache_attr(dc, 5, &got));
	cfs_breaks_note(&breaks, CFS_BRK_DATA, 0, 7, NULL, 0);
	assert_false(cfs_dcache_put_attr(dc, &many, since));
	assert_true(cfs_dcache_put_attr(dc, &many, cfs_breaks_gen(&breaks)));
	assert_true(cfs_dcache_attr(dc, 7, &got));
}

static void dropping(void **state)
{
	struct cfs_attr a = attr_of(5, 1), b = attr_of(6, 1), d = attr_of(9, 9), got;
	uint64_t ino;

	(void)state;
	assert_true(cfs_dcache_put_name(dc, 1, "a", 1, 5, 0, 1000));
	assert_true(cfs_dcache_put_name(dc, 1, "b", 1, 6, 0, 0));
	assert_true(cfs_dcache_put_attr(dc, &a, 0));
	assert_true(cfs_dcache_put_attr(dc, &b, 0));
	assert_true(cfs_dcache_put_attr(dc, &d, 0));
	assert_int_equal(cfs_dcache_drop_name(dc, 1, "b", 1), 0);
	assert_int_equal(cfs_dcache_name(dc, 1, "b", 1, 0, &ino), CFS_DC_MISS);
	assert_int_equal(cfs_dcache_drop_name(dc, 1, "b", 1), 1000);	/* the directory's latest */
	assert_int_equal(cfs_dcache_drop_name(dc, 3, "b", 1), UINT64_MAX);	/* nothing is known */
	cfs_dcache_drop_attr(dc, 5);
	assert_false(cfs_dcache_attr(dc, 5, &got));
	assert_true(cfs_dcache_attr(dc, 6, &got));
	assert_int_equal(cfs_dcache_drop_dir(dc, 1), 1000);
	assert_int_equal(cfs_dcache_name(dc, 1, "a", 1, 0, &ino), CFS_DC_MISS);
	assert_false(cfs_dcache_attr(dc, 6, &got));
	assert_true(cfs_dcache_attr(dc, 9, &got));
	/* the lease comes back: nothing old is there again */
	assert_true(cfs_dcache_put_name(dc, 1, "z", 1, 5, cfs_breaks_gen(&breaks), 0));
	assert_int_equal(cfs_dcache_name(dc, 1, "a", 1, 0, &ino), CFS_DC_MISS);
	assert_false(cfs_dcache_attr(dc, 6, &got));
	cfs_dcache_drop_all(dc);
	assert_false(cfs_dcache_attr(dc, 9, &got));
}

struct seen {
	unsigned names, attrs;
	uint64_t sum;
};

static void seen_fn(void *arg, const char *name, size_t len, uint64_t ino, uint64_t kernel_until)
{
	struct seen *s = arg;

	if (name) {
		s->names++;
		assert_int_equal(len, strlen("nN"));
		assert_true(kernel_until > 0);
	} else {
		s->attrs++;
		s->sum += ino;
	}
}

static void walking(void **state)
{
	struct seen s = { 0 };
	struct cfs_dcache_stat st;
	struct cfs_attr moved;
	char name[8];
	uint64_t ino;

	(void)state;
	for (unsigned i = 0; i < 10; i++) {
		struct cfs_attr a = attr_of(100 + i, i < 6 ? 1 : 2);

		snprintf(name, sizeof(name), "n%u", i);
		assert_true(cfs_dcache_put_name(dc, i < 6 ? 1 : 2, name, 2, 100 + i, 0, i % 2));
		assert_true(cfs_dcache_put_attr(dc, &a, 0));
	}
	cfs_dcache_walk_dir(dc, 1, true, seen_fn, &s);
	assert_int_equal(s.names, 3);	/* those that the kernel knows */
	assert_int_equal(s.attrs, 6);
	assert_int_equal(s.sum, 6 * 100 + 15);
	/* the lease ends and comes back: attributes that stood under the old one are told once more, and then they are gone; what is new
	   stays, and so do names while nobody wants them told */
	cfs_dcache_drop_dir(dc, 1);
	assert_true(cfs_dcache_put_name(dc, 1, "nn", 2, 7, cfs_breaks_gen(&breaks), 5));
	moved = attr_of(103, 2);
	assert_true(cfs_dcache_put_attr(dc, &moved, cfs_breaks_gen(&breaks)));
	s = (struct seen){ 0 };
	cfs_dcache_walk_dir(dc, 1, false, seen_fn, &s);
	assert_int_equal(s.names, 0);
	assert_int_equal(s.attrs, 5);
	s = (struct seen){ 0 };
	cfs_dcache_walk_dir(dc, 1, true, seen_fn, &s);
	assert_int_equal(s.names, 3 + 1);
	assert_int_equal(s.attrs, 0);
	s = (struct seen){ 0 };
	cfs_dcache_walk_dir(dc, 1, true, seen_fn, &s);
	assert_int_equal(s.names, 1);
	assert_int_equal(s.attrs, 0);
	assert_int_equal(cfs_dcache_name(dc, 1, "nn", 2, 0, &ino), CFS_DC_PRESENT);
	s = (struct seen){ 0 };
	cfs_dcache_walk_dir(dc, 2, true, seen_fn, &s);
	assert_int_equal(s.names, 2);
	assert_int_equal(s.attrs, 5);
	s = (struct seen){ 0 };
	cfs_dcache_walk_dir(dc, 0, true, seen_fn, &s);
	assert_int_equal(s.names, 3);
	assert_int_equal(s.attrs, 5);
	cfs_dcache_stat(dc, &st);
	assert_int_equal(st.names, 3 + 1 + 4);	/* what the kernel does not know is not told, and stays */
	assert_int_equal(st.attrs, 5);
}

static void bounded(void **state)
{
	struct cfs_dcache_stat st;
	uint64_t dirs[64];
	char name[16];

	(void)state;
	teardown(NULL);
	assert_int_equal(cfs_dcache_create(640, &breaks, &dc), 0);
	for (unsigned i = 0; i < 20000; i++) {
		snprintf(name, sizeof(name), "%u", i);
		cfs_dcache_put_name(dc, 1 + i / 10, name, strlen(name), i, 0, 50);
	}
	cfs_dcache_stat(dc, &st);
	assert_true(st.names + st.dirs + st.attrs <= 64 * 11);
	assert_true(st.evictions > 10000);
	assert_int_equal(cfs_dcache_evicted_dirs(dc, 50, dirs, 64), 0);	/* the kernel may still know names */
	assert_int_equal(cfs_dcache_evicted_dirs(dc, 51, dirs, 64), 64);
}

/* a directory all of whose names are here answers for those that are not, until one of them is lost */
static void whole_directory(void **state)
{
	uint64_t since = cfs_breaks_gen(&breaks), begun = cfs_dcache_whole_begin(dc, 1), ino;
	struct cfs_dcache_stat st;

	(void)state;
	assert_false(cfs_dcache_put_whole(dc, 1, since, begun));	/* no lease */
	assert_true(cfs_dcache_put_name(dc, 1, "a", 1, 5, since, 0));
	assert_int_equal(cfs_dcache_name(dc, 1, "x", 1, 0, &ino), CFS_DC_MISS);
	assert_true(cfs_dcache_put_whole(dc, 1, since, begun));
	assert_int_equal(cfs_dcache_name(dc, 1, "a", 1, 0, &ino), CFS_DC_PRESENT);
	assert_int_equal(cfs_dcache_name(dc, 1, "x", 1, 700, &ino), CFS_DC_ABSENT);
	assert_int_equal(cfs_dcache_name(dc, 2, "x", 1, 0, &ino), CFS_DC_MISS);
	cfs_dcache_stat(dc, &st);
	assert_int_equal(st.whole_hits, 1);
	/* a name of our own making takes the place of the absent one, and all is known as before */
	assert_true(cfs_dcache_put_name(dc, 1, "x", 1, 6, since, 0));
	assert_int_equal(cfs_dcache_name(dc, 1, "x", 1, 0, &ino), CFS_DC_PRESENT);
	assert_int_equal(cfs_dcache_name(dc, 1, "y", 1, 800, &ino), CFS_DC_ABSENT);
	/* another session makes one: its break drops the name, and what the kernel was told of it is known */
	cfs_breaks_note(&breaks, CFS_BRK_NAME, 1, 0, "y", 1);
	assert_int_equal(cfs_dcache_drop_name(dc, 1, "y", 1), 800);
	assert_int_equal(cfs_dcache_name(dc, 1, "y", 1, 0, &ino), CFS_DC_MISS);
	assert_int_equal(cfs_dcache_name(dc, 1, "z", 1, 0, &ino), CFS_DC_MISS);
	/* a listing that a break overtook does not make it whole */
	assert_false(cfs_dcache_put_whole(dc, 1, since, cfs_dcache_whole_begin(dc, 1)));
	/* nor does one during which a name was lost without a break */
	since = cfs_breaks_gen(&breaks);
	begun = cfs_dcache_whole_begin(dc, 1);
	cfs_dcache_drop_name(dc, 1, "a", 1);
	assert_true(cfs_dcache_put_whole(dc, 1, since, begun));
	assert_int_equal(cfs_dcache_name(dc, 1, "a", 1, 0, &ino), CFS_DC_MISS);
	/* the end of the lease ends it, and a new lease does not bring it back */
	since = cfs_breaks_gen(&breaks);
	assert_true(cfs_dcache_put_whole(dc, 1, since, cfs_dcache_whole_begin(dc, 1)));
	cfs_breaks_note(&breaks, CFS_BRK_DIR, 1, 0, NULL, 0);
	cfs_dcache_drop_dir(dc, 1);
	assert_false(cfs_dcache_put_whole(dc, 1, since, cfs_dcache_whole_begin(dc, 1)));
	assert_true(cfs_dcache_put_name(dc, 1, "b", 1, 7, cfs_breaks_gen(&breaks), 0));
	assert_int_equal(cfs_dcache_name(dc, 1, "a", 1, 0, &ino), CFS_DC_MISS);
}

/* when everything is dropped, names of whole directories are lost like any: who looked before must ask */
static void whole_and_drop_all(void **state)
{
	uint64_t since = cfs_breaks_gen(&breaks), begun = cfs_dcache_whole_begin(dc, 1), ino;

	(void)state;
	assert_true(cfs_dcache_put_name(dc, 1, "a", 1, 5, since, 0));
	cfs_dcache_drop_all(dc);
	assert_true(cfs_dcache_put_name(dc, 1, "b", 1, 6, since, 0));
	cfs_dcache_put_whole(dc, 1, since, begun);
	assert_int_equal(cfs_dcache_name(dc, 1, "a", 1, 0, &ino), CFS_DC_MISS);
}

/* a name that falls out of a full cache is never taken for absent */
static void whole_and_full(void **state)
{
	unsigned present = 0, missed = 0;
	char name[16];
	uint64_t ino;

	(void)state;
	cfs_dcache_destroy(dc);
	assert_int_equal(cfs_dcache_create(64 * 16, &breaks, &dc), 0);
	for (unsigned n = 200; n <= 4000; n += 200) {
		uint64_t since = cfs_breaks_gen(&breaks), begun = cfs_dcache_whole_begin(dc, n);

		for (unsigned i = 0; i < n; i++) {
			snprintf(name, sizeof(name), "%u", i);
			assert_true(cfs_dcache_put_name(dc, n, name, strlen(name), 1 + i, since, 0));
		}
		cfs_dcache_put_whole(dc, n, since, begun);
		for (unsigned i = 0; i < n; i++) {
			snprintf(name, sizeof(name), "%u", i);
			switch (cfs_dcache_name(dc, n, name, strlen(name), 0, &ino)) {
			case CFS_DC_PRESENT: present++; break;
			case CFS_DC_MISS: missed++; break;
			case CFS_DC_ABSENT: fail_msg("%u of %u names: \"%s\" is called absent", i, n, name);
			}
		}
	}
	assert_true(present > 0 && missed > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(put_and_get, setup, teardown),
		cmocka_unit_test_setup_teardown(breaks_refuse, setup, teardown),
		cmocka_unit_test_setup_teardown(dropping, setup, teardown),
		cmocka_unit_test_setup_teardown(walking, setup, teardown),
		cmocka_unit_test_setup_teardown(bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(whole_directory, setup, teardown),
		cmocka_unit_test_setup_teardown(whole_and_drop_all, setup, teardown),
		cmocka_unit_test_setup_teardown(whole_and_full, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
