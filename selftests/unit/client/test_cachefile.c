/* SPDX-License-Identifier: MIT */
/*
 * test_cachefile.c - proves that cached bytes come back from memory, from files, from behind the host's largest offset, and
 * with far more files than descriptors; that a file which somebody else has stays the same one; that small files make no host files; and that nothing is left behind.
 */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "client/cachefile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[PATH_MAX];
static struct cfs_cachestore store;

static int setup(void **unused)
{
	(void)unused;
	snprintf(dir, sizeof(dir), "%s/cfs-test-cachefile.%d", getenv("T_DIR") ? getenv("T_DIR") : "/tmp", (int)getpid());
	return cfs_cachestore_open(&store, dir, -1, 1 << 20, 8);
}

static int teardown(void **unused)
{
	(void)unused;
	cfs_cachestore_close(&store);
	return rmdir(dir);	/* fails if a file was left */
}

static void check(struct cfs_cachefile *cf, const char *want, uint64_t off)
{
	char buf[64];

	assert_int_equal(cfs_cachefile_read(&store, cf, buf, strlen(want), off), 0);
	assert_memory_equal(buf, want, strlen(want));
}

static void put(struct cfs_cachefile *cf, const char *text, uint64_t off)
{
	assert_int_equal(cfs_cachefile_write(&store, cf, text, strlen(text), off), 0);
}

static void test_spill(void **unused)
{
	struct cfs_cachefile cf;

	(void)unused;
	cfs_cachefile_init(&cf, 1);
	put(&cf, "small", 100);
	assert_false(cf.on_disk);
	assert_true(store.mem_bytes >= 105 && store.mem_bytes <= 256);
	put(&cf, "end", CFS_CACHE_MEM_MAX - 3);
	assert_false(cf.on_disk);
	put(&cf, "beyond", CFS_CACHE_MEM_MAX - 1);
	assert_true(cf.on_disk);
	assert_int_equal(store.mem_bytes, 0);
	check(&cf, "small", 100);
	check(&cf, "en", CFS_CACHE_MEM_MAX - 3);
	check(&cf, "beyond", CFS_CACHE_MEM_MAX - 1);
	cfs_cachefile_drop(&store, &cf);
}

/* somebody else has the file: it is the same one from then on, and its bytes and length are ours to say */
static void test_kept(void **unused)
{
	struct cfs_cachefile cf, others[20];
	struct stat before, after;

	(void)unused;
	cfs_cachefile_init(&cf, 1);
	put(&cf, "small", 100);
	assert_int_equal(cfs_cachefile_keep(&store, &cf), 0);
	assert_true(cf.on_disk);
	check(&cf, "small", 100);
	assert_int_equal(fstat(cf.fd, &before), 0);
	for (unsigned i = 0; i < 20; i++) {	/* more than descriptors */
		cfs_cachefile_init(&others[i], 100 + i);
		put(&others[i], "x", CFS_CACHE_MEM_MAX);
	}
	cfs_cachefile_drop(&store, &cf);
	assert_int_equal(cfs_cachefile_resize(&cf, 200), 0);
	check(&cf, "\0\0\0", 100);
	put(&cf, "again", 50);
	assert_int_equal(cfs_cachefile_resize(&cf, 53), 0);
	check(&cf, "aga", 50);
	assert_int_equal(fstat(cf.fd, &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	assert_int_equal(after.st_size, 53);
	cfs_cachefile_let_go(&store, &cf);
	cfs_cachefile_drop(&store, &cf);
	assert_false(cf.on_disk);
	for (unsigned i = 0; i < 20; i++)
		cfs_cachefile_drop(&store, &others[i]);
}

static void test_mem_limit(void **unused)
{
	struct cfs_cachefile cf[40];
	unsigned files = 0;

	(void)unused;
	for (unsigned i = 0; i < 40; i++) {
		cfs_cachefile_init(&cf[i], i + 1);
		put(&cf[i], "x", CFS_CACHE_MEM_MAX - 1);
		files += cf[i].on_disk;
		assert_true(store.mem_bytes <= store.mem_limit);
	}
	assert_int_equal(files, 40 - 16);
	for (unsigned i = 0; i < 40; i++)
		check(&cf[i], "x", CFS_CACHE_MEM_MAX - 1);
	for (unsigned i = 0; i < 40; i++)
		cfs_cachefile_drop(&store, &cf[i]);
}

static void test_descriptors(void **unused)
{
	struct cfs_cachefile cf[50];
	char text[32];

	(void)unused;
	for (unsigned i = 0; i < 50; i++) {
		cfs_cachefile_init(&cf[i], i + 1);
		snprintf(text, sizeof(text), "file %u", i);
		put(&cf[i], text, 100000);
		assert_true(store.n_open <= 8);
	}
	assert_int_equal(cfs_cachefile_pin(&store, &cf[3]), 0);
	for (unsigned i = 0; i < 50; i++) {
		snprintf(text, sizeof(text), "file %u", i);
		check(&cf[i], text, 100000);
	}
	assert_true(cf[3].fd >= 0);	/* pinned: not closed under its reader */
	cfs_cachefile_unpin(&store, &cf[3]);
	for (unsigned i = 0; i < 50; i++)
		cfs_cachefile_drop(&store, &cf[i]);
}

static void test_far(void **unused)
{
	struct cfs_cachefile cf;
	struct stat st;

	(void)unused;
	cfs_cachefile_init(&cf, 9);
	put(&cf, "below and above", CFS_CACHE_FAR - 5);
	put(&cf, "two chunks", 5 * CFS_CACHE_FAR - 4);
	put(&cf, "the very end", (1ull << 60) - 12);
	check(&cf, "below and above", CFS_CACHE_FAR - 5);
	check(&cf, "two chunks", 5 * CFS_CACHE_FAR - 4);
	check(&cf, "the very end", (1ull << 60) - 12);
	assert_int_equal(cfs_cachefile_pin(&store, &cf), 0);
	assert_int_equal(fstat(cf.fd, &st), 0);
	assert_true(st.st_size < 15ll << 40);
	assert_true(st.st_blocks <= 8 * 8);
	cfs_cachefile_unpin(&store, &cf);
	cfs_cachefile_punch(&store, &cf, CFS_CACHE_FAR, (1ull << 60) - CFS_CACHE_FAR);
	assert_int_equal(cfs_cachefile_pin(&store, &cf), 0);
	assert_int_equal(fstat(cf.fd, &st), 0);
	cfs_cachefile_unpin(&store, &cf);
	assert_true(st.st_blocks <= 8 * 4);
	cfs_cachefile_drop(&store, &cf);
}

static void test_leftovers(void **unused)
{
	struct cfs_cachestore other;
	char path[PATH_MAX + 64];
	int fd;

	(void)unused;
	/* one mount at a time */
	assert_int_equal(cfs_cachestore_open(&other, dir, -1, 0, 1), -EBUSY);
	cfs_cachestore_close(&store);
	/* what a crashed mount left goes, what is not ours stays */
	snprintf(path, sizeof(path), "%s/00000000000000ab", dir);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	snprintf(path, sizeof(path), "%s/precious", dir);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(cfs_cachestore_open(&store, dir, -1, 1 << 20, 8), 0);
	assert_int_equal(unlink(path), 0);
	/* teardown's rmdir() proves that the other one is gone */
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_spill), T(test_kept), T(test_mem_limit), T(test_descriptors), T(test_far), T(test_leftovers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
