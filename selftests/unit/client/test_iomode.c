/* SPDX-License-Identifier: MIT */
/*
 * test_iomode.c - proves that whatever order files of an inode are opened and closed in, no open is answered in a way that the
 * kernel would refuse (its rules are written down here once more), and that passthrough begins with the first open file only.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/hash.h"
#include "client/iomode.h"

#include <stdbool.h>
#include <string.h>

#define OPEN_MAX 6u

/* fs/fuse/iomode.c: what the kernel does with an answer to OPEN. False: EIO for the application */
static bool kernel_takes(const uint32_t *n, enum cfs_iomode mode)
{
	bool backing = n[CFS_IO_PASSTHROUGH];

	if (mode == CFS_IO_PASSTHROUGH)
		return !n[CFS_IO_CACHED];
	return !backing;
}

static void test_random_orders(void **unused)
{
	uint64_t seed = 1;

	(void)unused;
	for (unsigned round = 0; round < 2000; round++) {
		enum cfs_iomode open[OPEN_MAX];
		struct cfs_iostate s = { 0 };
		uint32_t n[CFS_IO_MODES] = { 0 };
		unsigned n_open = 0;

		for (unsigned step = 0; step < 40; step++) {
			uint64_t r = cfs_hash_u64(++seed);

			if (n_open < OPEN_MAX && (r & 1 || !n_open)) {
				enum cfs_iomode want = CFS_IO_DIRECT + (r >> 8) % 3;
				enum cfs_iomode got = cfs_iostate_open(&s, want);

				assert_true(kernel_takes(n, got));
				/* never more than was asked for, unless the inode is passthrough already */
				assert_true(got == want || got == CFS_IO_CACHED || n[CFS_IO_PASSTHROUGH]);
				if (got == CFS_IO_PASSTHROUGH)
					assert_true(!n_open || n[CFS_IO_PASSTHROUGH] == n_open);
				n[got]++;
				open[n_open++] = got;
			} else {
				unsigned i = (unsigned)(r >> 8) % n_open;

				cfs_iostate_close(&s, open[i]);
				n[open[i]]--;
				open[i] = open[--n_open];
			}
			assert_int_equal(s.mode, n[CFS_IO_PASSTHROUGH] ? CFS_IO_PASSTHROUGH : n[CFS_IO_CACHED] ? CFS_IO_CACHED :
					 n[CFS_IO_DIRECT] ? CFS_IO_DIRECT : CFS_IO_CLOSED);
			assert_memory_equal(s.n, n, sizeof(n));
		}
	}
}

static void test_life(void **unused)
{
	struct cfs_iostate s = { 0 };

	(void)unused;
	assert_int_equal(cfs_iostate_open(&s, CFS_IO_PASSTHROUGH), CFS_IO_PASSTHROUGH);
	assert_int_equal(cfs_iostate_open(&s, CFS_IO_CACHED), CFS_IO_PASSTHROUGH);
	assert_int_equal(cfs_iostate_open(&s, CFS_IO_DIRECT), CFS_IO_PASSTHROUGH);
	for (int i = 0; i < 3; i++)
		cfs_iostate_close(&s, CFS_IO_PASSTHROUGH);
	assert_int_equal(s.mode, CFS_IO_CLOSED);
	assert_int_equal(cfs_iostate_open(&s, CFS_IO_DIRECT), CFS_IO_DIRECT);
	assert_int_equal(cfs_iostate_open(&s, CFS_IO_PASSTHROUGH), CFS_IO_CACHED);
	cfs_iostate_close(&s, CFS_IO_CACHED);
	assert_int_equal(s.mode, CFS_IO_DIRECT);
	cfs_iostate_close(&s, CFS_IO_DIRECT);
	assert_int_equal(s.mode, CFS_IO_CLOSED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_life),
		cmocka_unit_test(test_random_orders),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
