/* SPDX-License-Identifier: MIT */
/*
 * Proves of a loop's ring: resized with hundreds of requests in flight and others queued, in both
 * directions, it completes each exactly once; a queue that is too small grows by itself and says so; a wide
 * ring carries small and large requests side by side; registered memory is found by address, used by
 * fixed reads, and forgotten when it is taken away.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/base.h"
#include "base/rng.h"
#include "ring/loop.h"

#define N_OPS 600

struct op {
	struct cfs_ring_op op;
	unsigned count;
	int32_t res;
};

static void on_done(struct cfs_ring_op *op, int32_t res, uint32_t flags)
{
	struct op *o = cfs_container_of(op, struct op, op);

	(void)flags;
	o->count++;
	o->res = res;
}

static void turn_until(struct cfs_loop *loop, const struct op *ops, unsigned n)
{
	for (unsigned t = 0; t < 1000; t++) {
		unsigned done = 0;

		for (unsigned i = 0; i < n; i++)
			done += ops[i].count;
		if (done >= n)
			break;
		assert_int_equal(cfs_loop_turn(loop, CFS_NSEC_PER_SEC), 0);
	}
	/* and nothing comes twice */
	assert_int_equal(cfs_loop_turn(loop, 0), 0);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(ops[i].count, 1);
}

static void resize_under_load(uint32_t flags)
{
	static const uint32_t sizes[] = { 16, 1024, 32, 256, 2048, 8 };
	struct op *ops = calloc(N_OPS, sizeof(*ops));
	struct cfs_loop *loop;
	struct cfs_loop_stat st;
	struct cfs_rng rng;
	const uint64_t many = N_OPS;
	uint64_t *got = calloc(N_OPS, sizeof(*got));
	int fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE), rc = 0;

	cfs_rng_seed(&rng, 7);
	rc = cfs_loop_create_with(64, flags, &loop);
	if (rc == -EINVAL && flags) {
		print_message("skipped: this kernel has no wide rings\n");
		goto out;
	}
	assert_int_equal(rc, 0);
	if (cfs_loop_resize(loop, 128) == -EOPNOTSUPP || cfs_loop_resize(loop, 64)) {
		print_message("skipped: this kernel does not resize rings\n");
		goto out_loop;
	}
	for (unsigned i = 0; i < N_OPS; i++) {
		struct io_uring_sqe *sqe;

		ops[i].op.done = on_done;
		/* every third waits in the kernel, the others complete in between */
		sqe = cfs_loop_sqe(loop);
		if (i % 3)
			io_uring_prep_nop(sqe);
		else
			io_uring_prep_read(sqe, fd, &got[i], sizeof(got[i]), 0);
		cfs_loop_sqe_set(sqe, &ops[i].op);
		if (cfs_rng_next(&rng) % 8 == 0)
			assert_int_equal(cfs_loop_turn(loop, 0), 0);
		if (i % 50 == 49) {
			rc = cfs_loop_resize(loop, sizes[i / 50 % CFS_ARRAY_SIZE(sizes)]);
			assert_int_equal(rc, 0);
		}
	}
	cfs_loop_stat(loop, &st);
	assert_true(st.resizes >= 14);
	assert_int_equal(write(fd, &many, sizeof(many)), sizeof(many));
	turn_until(loop, ops, N_OPS);
	for (unsigned i = 0; i < N_OPS; i++) {
		assert_int_equal(ops[i].res, i % 3 ? 0 : (int)sizeof(uint64_t));
		assert_int_equal(got[i], i % 3 ? 0 : 1);
	}
	assert_int_equal(cfs_loop_resize(loop, 7), -EINVAL);
	assert_int_equal(cfs_loop_resize(loop, 2 * CFS_LOOP_ENTRIES_MAX), -EINVAL);
out_loop:
	cfs_loop_destroy(loop);
out:
	close(fd);
	free(got);
	free(ops);
}

static void test_resize(void **state)
{
	(void)state;
	resize_under_load(0);
}

static void test_resize_wide(void **state)
{
	(void)state;
	resize_under_load(CFS_LOOP_WIDE);
}

static void test_grows_by_itself(void **state)
{
	struct op ops[200] = { 0 };
	struct cfs_loop_stat st;
	struct cfs_loop *loop;

	(void)state;
	assert_int_equal(cfs_loop_create(8, &loop), 0);
	for (unsigned round = 0; round < 6; round++) {
		for (unsigned i = 0; i < 200; i++) {
			struct io_uring_sqe *sqe = cfs_loop_sqe(loop);

			ops[i] = (struct op){ .op.done = on_done };
			io_uring_prep_nop(sqe);
			cfs_loop_sqe_set(sqe, &ops[i].op);
		}
		turn_until(loop, ops, 200);
	}
	cfs_loop_stat(loop, &st);
	assert_true(st.sq_full > 0);
	if (cfs_loop_resize(loop, 64))
		assert_int_equal(st.resizes, 0);
	else
		assert_true(st.resizes >= 1 && st.sq_entries >= 64);
	cfs_loop_destroy(loop);
}

static void test_wide(void **state)
{
	struct op ops[64] = { 0 };
	struct cfs_loop *loop;
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)state;
	if (cfs_loop_create_with(16, CFS_LOOP_WIDE, &loop)) {
		print_message("skipped: this kernel has no wide rings\n");
		close(fd);
		return;
	}
	assert_true(cfs_loop_is_wide(loop));
	for (unsigned i = 0; i < 64; i++) {
		struct io_uring_sqe *sqe;

		ops[i].op.done = on_done;
		if (i % 5) {
			sqe = cfs_loop_sqe(loop);
			io_uring_prep_nop(sqe);
		} else {
			/* a command that the driver of /dev/null has never heard of */
			sqe = cfs_loop_sqe_cmd(loop, 0x4e80 + i, fd);
			memset(sqe->cmd, 0xee, 80);
		}
		cfs_loop_sqe_set(sqe, &ops[i].op);
	}
	turn_until(loop, ops, 64);
	for (unsigned i = 0; i < 64; i++) {
		/* before 6.18 /dev/null had no commands at all; since then it takes every one */
		if (i % 5)
			assert_int_equal(ops[i].res, 0);
		else
			assert_true(!ops[i].res || ops[i].res == -EOPNOTSUPP || ops[i].res == -EINVAL);
	}
	cfs_loop_destroy(loop);
	assert_int_equal(cfs_loop_create(16, &loop), 0);
	assert_false(cfs_loop_is_wide(loop));
	cfs_loop_destroy(loop);
	close(fd);
}

static void test_memory(void **state)
{
	uint8_t *mem = aligned_alloc(4096, 3 * 65536);
	struct cfs_loop *loop;
	struct io_uring_sqe *sqe;
	struct op op = { .op.done = on_done };
	struct cfs_loop_stat st;
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC), slot;

	(void)state;
	memset(mem, 0xaa, 3 * 65536);
	assert_int_equal(cfs_loop_create(16, &loop), 0);
	assert_int_equal(cfs_loop_mem_find(loop, mem, 1), -1);
	if (cfs_loop_mem_add(loop, mem + 65536, 65536)) {
		print_message("skipped: no memory may be registered here\n");
		goto out;
	}
	assert_int_equal(cfs_loop_mem_add(loop, mem, 4096), 0);
	assert_int_equal(cfs_loop_mem_add(loop, mem + 2 * 65536, 65536), 0);
	slot = cfs_loop_mem_find(loop, mem + 65536 + 512, 1024);
	assert_true(slot >= 0);
	assert_int_equal(cfs_loop_mem_find(loop, mem + 65536, 65536), slot);
	assert_int_equal(cfs_loop_mem_find(loop, mem + 65536, 65537), -1);	/* into the next one */
	assert_int_equal(cfs_loop_mem_find(loop, mem + 4096, 1), -1);		/* between them */
	assert_int_equal(cfs_loop_mem_find(loop, mem + 3 * 65536, 1), -1);	/* behind all */
	assert_true(cfs_loop_mem_find(loop, mem, 4096) >= 0);
	assert_int_not_equal(cfs_loop_mem_find(loop, mem, 1), slot);
	cfs_loop_stat(loop, &st);
	assert_int_equal(st.mem_bytes, 2 * 65536 + 4096);
	sqe = cfs_loop_sqe(loop);
	io_uring_prep_read_fixed(sqe, fd, mem + 65536 + 512, 1024, 0, slot);
	cfs_loop_sqe_set(sqe, &op.op);
	turn_until(loop, &op, 1);
	assert_int_equal(op.res, 1024);
	assert_int_equal(mem[65536 + 511], 0xaa);
	assert_int_equal(mem[65536 + 512], 0);
	assert_int_equal(mem[65536 + 512 + 1024], 0xaa);
	cfs_loop_mem_del(loop, mem + 65536);
	cfs_loop_mem_del(loop, mem + 65536);	/* not there: nothing happens */
	assert_int_equal(cfs_loop_mem_find(loop, mem + 65536, 1), -1);
	assert_true(cfs_loop_mem_find(loop, mem, 1) >= 0);
	/* the slot is used again */
	assert_int_equal(cfs_loop_mem_add(loop, mem + 65536, 4096), 0);
	assert_int_equal(cfs_loop_mem_find(loop, mem + 65536, 1), slot);
	assert_int_equal(cfs_loop_mem_add(loop, mem, 0), -EINVAL);
out:
	cfs_loop_destroy(loop);
	close(fd);
	free(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resize),
		cmocka_unit_test(test_resize_wide),
		cmocka_unit_test(test_grows_by_itself),
		cmocka_unit_test(test_wide),
		cmocka_unit_test(test_memory),
	};

	return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
