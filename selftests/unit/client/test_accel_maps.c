// SPDX-License-Identifier: MIT
/*
 * Proves, with real BPF maps, that they follow the dcache: what it keeps is there, with the epoch that its directory has
 * there; what it drops is gone when the call returns; what it refuses never gets in; evicting a directory ends its
 * entries; attributes of files that are ahead of the server are left out, also when they get ahead in between.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <bpf/bpf.h>

#include "claudefs/bpf_shared.h"
#include "client/accel.h"
#include "client/dcache.h"

#define MAX 64

static struct {
	struct cfs_accel_maps_params p;
	struct cfs_accel_maps *maps;
	struct cfs_breaks breaks;
	struct cfs_dcache *dc;
	struct cfs_bpf_ctl ctl;
	bool have;
	unsigned asked, ahead_from;	/* questions; from which one on a file is ahead */
} w;

static bool ahead(void *arg, uint64_t ino)
{
	(void)arg;
	(void)ino;
	return ++w.asked >= w.ahead_from && w.ahead_from;
}

static int make_map(enum bpf_map_type type, const char *name, uint32_t key, uint32_t value)
{
	return bpf_map_create(type, name, key, value, MAX, NULL);
}

static int setup(void **state)
{
	(void)state;
	memset(&w, 0, sizeof(w));
	w.p.dirs = make_map(BPF_MAP_TYPE_LRU_HASH, "dirs", 8, sizeof(struct cfs_bpf_dir));
	w.p.names = make_map(BPF_MAP_TYPE_LRU_HASH, "names", sizeof(struct cfs_bpf_name_key), sizeof(struct cfs_bpf_name));
	w.p.long_names = make_map(BPF_MAP_TYPE_LRU_HASH, "long_names", sizeof(struct cfs_bpf_long_key), sizeof(struct cfs_bpf_name));
	w.p.attrs = make_map(BPF_MAP_TYPE_LRU_HASH, "attrs", 8, sizeof(struct cfs_bpf_attr));
	w.p.ctl = &w.ctl;
	w.p.ahead = ahead;
	w.have = CFS_HAVE_BPF && w.p.dirs >= 0 && w.p.names >= 0 && w.p.long_names >= 0 && w.p.attrs >= 0;
	if (!w.have)
		return 0;
	assert_int_equal(cfs_accel_maps_create(&w.p, &w.maps), 0);
	return cfs_dcache_create(4096, &w.breaks, &w.dc);
}

static int teardown(void **state)
{
	(void)state;
	cfs_dcache_destroy(w.dc);
	cfs_accel_maps_destroy(w.maps);
	close(w.p.dirs);
	close(w.p.names);
	close(w.p.long_names);
	close(w.p.attrs);
	return 0;
}

#define NEED_MAPS() do { if (!w.have) skip(); } while (0)	/* not root, or a kernel without */

static uint64_t dir_epoch(uint64_t dir)
{
	struct cfs_bpf_dir d;

	if (bpf_map_lookup_elem(w.p.dirs, &dir, &d))
		return 0;
	assert_int_equal(d.sum, cfs_bpf_dir_sum(dir, &d));
	return d.epoch;
}

/* -1: not there; else the inode, whose epoch must be that of the directory if `valid` */
static int64_t name_of(uint64_t dir, const char *name, bool *ret_valid)
{
	struct cfs_bpf_name_key key = { .dir = dir };
	struct cfs_bpf_long_key large = { .dir = dir };
	struct cfs_bpf_name n;
	int rc;

	if (strlen(name) <= CFS_BPF_NAME_SHORT) {
		memcpy(key.name, name, strlen(name));
		rc = bpf_map_lookup_elem(w.p.names, &key, &n);
		if (!rc)
			assert_int_equal(n.sum, cfs_bpf_name_sum(&key, &n));
	} else {
		memcpy(large.name, name, strlen(name));
		rc = bpf_map_lookup_elem(w.p.long_names, &large, &n);
		if (!rc)
			assert_int_equal(n.sum, cfs_bpf_long_sum(&large, &n));
	}
	if (rc)
		return -1;
	*ret_valid = n.epoch && n.epoch == dir_epoch(dir) && n.epoch > w.ctl.floor;
	return (int64_t)n.ino;
}

static bool name_is(uint64_t dir, const char *name, int64_t ino)
{
	bool valid = false;

	return name_of(dir, name, &valid) == ino && valid;
}

static bool name_counts(uint64_t dir, const char *name)
{
	bool valid = false;

	return name_of(dir, name, &valid) >= 0 && valid;
}

static bool attr_is(uint64_t ino, uint64_t size)
{
	struct cfs_bpf_attr a;

	if (bpf_map_lookup_elem(w.p.attrs, &ino, &a))
		return false;
	assert_int_equal(a.sum, cfs_bpf_attr_sum(ino, &a));
	return a.size == size && a.epoch == dir_epoch(a.home) && a.epoch > w.ctl.floor;
}

static bool put_name(uint64_t dir, const char *name, uint64_t ino)
{
	return cfs_dcache_put_name(w.dc, dir, name, strlen(name), ino, cfs_breaks_gen(&w.breaks), 0);
}

static struct cfs_attr attr_of(uint64_t ino, uint64_t parent, uint64_t size)
{
	return (struct cfs_attr){ .ino = cfs_cpu_to_le64(ino), .parent = cfs_cpu_to_le64(parent), .size = cfs_cpu_to_le64(size) };
}

static bool put_attr(uint64_t ino, uint64_t parent, uint64_t size)
{
	struct cfs_attr a = attr_of(ino, parent, size);

	return cfs_dcache_put_attr(w.dc, &a, cfs_breaks_gen(&w.breaks));
}

static void test_follows(void **state)
{
	char longest[256] = "";
	uint64_t epoch;

	(void)state;
	NEED_MAPS();
	memset(longest, 'l', 255);
	put_name(2, "before", 10);
	put_attr(10, 2, 1);
	cfs_dcache_mirror(w.dc, w.maps); /* what is there already */
	assert_true(name_is(2, "before", 10));
	assert_true(attr_is(10, 1));
	put_name(2, "absent", 0);
	put_name(2, longest, 11);
	put_attr(10, 2, 7);
	assert_true(name_is(2, "absent", 0));
	assert_true(name_is(2, longest, 11));
	assert_true(attr_is(10, 7));
	cfs_dcache_drop_name(w.dc, 2, "before", 6);
	cfs_dcache_drop_name(w.dc, 2, longest, 255);
	cfs_dcache_drop_attr(w.dc, 10);
	assert_false(name_counts(2, "before"));
	assert_false(name_counts(2, longest));
	assert_false(attr_is(10, 7));
	/* the lease ends: all of it at once; it comes back: with an epoch of its own */
	put_attr(10, 2, 8);
	epoch = dir_epoch(2);
	cfs_dcache_drop_dir(w.dc, 2);
	assert_int_equal(dir_epoch(2), 0);
	assert_false(name_counts(2, "absent"));
	put_name(2, "again", 12);
	assert_true(dir_epoch(2) > epoch);
	assert_true(name_is(2, "again", 12));
	assert_false(name_counts(2, "absent"));
	assert_false(attr_is(10, 8));
	cfs_dcache_drop_all(w.dc);
	assert_false(name_counts(2, "again"));
	put_name(2, "new", 13);
	assert_true(name_is(2, "new", 13));
	assert_false(name_counts(2, "again"));
}

static void test_refused(void **state)
{
	uint64_t since = cfs_breaks_gen(&w.breaks);
	struct cfs_attr a = attr_of(10, 2, 1);

	(void)state;
	NEED_MAPS();
	cfs_dcache_mirror(w.dc, w.maps);
	cfs_breaks_note(&w.breaks, CFS_BRK_NAME | CFS_BRK_ATTR, 2, 10, "x", 1);
	assert_false(cfs_dcache_put_name(w.dc, 2, "x", 1, 10, since, 0));
	assert_false(cfs_dcache_put_attr(w.dc, &a, since));
	assert_false(name_counts(2, "x"));
	assert_false(attr_is(10, 1));
}

static void test_ahead(void **state)
{
	(void)state;
	NEED_MAPS();
	cfs_dcache_mirror(w.dc, w.maps);
	put_attr(10, 2, 1);
	assert_true(attr_is(10, 1));
	w.asked = 0;
	w.ahead_from = 1; /* what was put before goes, too */
	put_attr(10, 2, 2);
	assert_false(attr_is(10, 1) || attr_is(10, 2));
	w.asked = 0;
	w.ahead_from = 2; /* between the question and the put */
	put_attr(10, 2, 3);
	assert_false(attr_is(10, 3));
	w.ahead_from = 0;
	put_attr(10, 0, 4); /* several links: stands under no directory */
	assert_false(attr_is(10, 4));
}

/* many more than there is room for: some are forgotten, what is there is right */
static void test_full(void **state)
{
	unsigned there = 0;
	char name[16];

	(void)state;
	NEED_MAPS();
	cfs_dcache_mirror(w.dc, w.maps);
	for (uint64_t i = 1; i <= 20 * MAX; i++) {
		snprintf(name, sizeof(name), "n%llu", (unsigned long long)i);
		assert_true(put_name(2, name, i));
	}
	for (uint64_t i = 1; i <= 20 * MAX; i++) {
		bool valid = false;
		int64_t ino;

		snprintf(name, sizeof(name), "n%llu", (unsigned long long)i);
		ino = name_of(2, name, &valid);
		assert_true(ino == -1 || (uint64_t)ino == i);
		there += ino >= 0 && valid;
	}
	assert_true(there > 0 && there <= MAX);
	assert_int_equal(w.ctl.broken, 0);
}

/* what a full map forgot, and is asked for again, comes back: the name, its attributes and the directory above them */
static void test_comes_back(void **state)
{
	struct cfs_bpf_gate *gate = calloc(1, sizeof(*gate));
	uint32_t *busy = &gate->busy[cfs_bpf_hash(2) % CFS_BPF_BUSY];
	uint64_t dir = 2, ino = 10;
	struct cfs_bpf_name_key key = { .dir = 2, .name = "x" };

	(void)state;
	if (!w.have) {
		free(gate);
		skip();
	}
	cfs_dcache_gate(w.dc, gate);
	cfs_dcache_mirror_name(w.dc, 2, "x", 1); /* no maps yet */
	cfs_dcache_mirror(w.dc, w.maps);
	put_name(2, "x", 10);
	put_attr(10, 2, 1);
	for (unsigned round = 0; round < 3; round++) {
		assert_int_equal(bpf_map_delete_elem(w.p.names, &key), 0);
		assert_int_equal(bpf_map_delete_elem(w.p.attrs, &ino), 0);
		if (round == 1)
			assert_int_equal(bpf_map_delete_elem(w.p.dirs, &dir), 0);
		*busy = round == 2; /* not while the directory is changed here */
		cfs_dcache_mirror_attr(w.dc, 10);
		assert_int_equal(attr_is(10, 1), round < 2);
		cfs_dcache_mirror_name(w.dc, 2, "x", 1);
		assert_int_equal(name_is(2, "x", 10), round < 2);
	}
	*busy = 0;
	cfs_dcache_mirror_name(w.dc, 2, "y", 1); /* not known */
	assert_false(name_counts(2, "y"));
	cfs_dcache_drop_name(w.dc, 2, "x", 1);
	cfs_dcache_mirror_name(w.dc, 2, "x", 1);
	assert_false(name_counts(2, "x"));
	w.ahead_from = 1; /* held exclusively */
	w.asked = 0;
	cfs_dcache_mirror_attr(w.dc, 10);
	assert_false(attr_is(10, 1));
	w.ahead_from = 0;
	cfs_dcache_gate(w.dc, NULL);
	free(gate);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_follows, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ahead, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_comes_back, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
