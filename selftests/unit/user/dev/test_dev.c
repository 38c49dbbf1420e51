/* SPDX-License-Identifier: MIT */
/*
 * Proves of the block and the memory device: what was written is read back through every kind of request;
 * requests that break the rules are refused; completions never come inside submit(); a file that was cut
 * short gives -EIO, not bytes; the lock keeps a second opener out; read-only means it.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/base.h"
#include "base/log.h"
#include "base/rng.h"
#include "dev/dev.h"
#include "ring/loop.h"

#define DEV_BYTES (16u << 20)

struct fixture {
	struct cfs_loop *loop;
	struct cfs_dev *dev;
	char path[64];
};

static int setup_mem(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_int_equal(cfs_loop_create(64, &f->loop), 0);
	assert_int_equal(cfs_dev_mem_create(f->loop, DEV_BYTES, 512, &f->dev), 0);
	*state = f;
	return 0;
}

static int setup_block(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int fd;

	strcpy(f->path, "/var/tmp/claudefs-test-dev-XXXXXX");
	fd = mkstemp(f->path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, DEV_BYTES + 100), 0);
	close(fd);
	assert_int_equal(cfs_loop_create(64, &f->loop), 0);
	assert_int_equal(cfs_dev_block_open(f->loop, f->path, 0, &f->dev), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	cfs_dev_close(f->dev);
	cfs_loop_destroy(f->loop);
	if (f->path[0])
		unlink(f->path);
	free(f);
	return 0;
}

struct req {
	struct cfs_dev_req r;
	bool done;
};

static void on_done(struct cfs_dev_req *r)
{
	cfs_container_of(r, struct req, r)->done = true;
}

static int64_t run(struct fixture *f, struct req *q)
{
	int rc;

	q->r.done = on_done;
	q->done = false;
	memset(q->r.priv, 0xa5, sizeof(q->r.priv));	/* the device takes nothing for granted */
	rc = cfs_dev_submit(f->dev, &q->r);
	if (rc)
		return rc;
	assert_false(q->done);
	for (int i = 0; i < 1000 && !q->done; i++)
		assert_int_equal(cfs_loop_turn(f->loop, CFS_NSEC_PER_SEC), 0);
	assert_true(q->done);
	return q->r.result;
}

static int64_t rw(struct fixture *f, enum cfs_dev_op op, uint32_t flags, uint64_t off, void *buf, uint64_t len)
{
	struct iovec iov = { buf, len };
	struct req q = { .r = { .op = op, .flags = flags, .offset = off, .iov = &iov, .iovcnt = 1, .len = len } };

	return run(f, &q);
}

static uint8_t *buf_of(size_t len, uint64_t seed)
{
	struct cfs_rng rng;
	uint8_t *p = NULL;

	assert_int_equal(posix_memalign((void **)&p, 4096, len), 0);
	cfs_rng_seed(&rng, seed);
	for (size_t i = 0; i < len; i += 8) {
		uint64_t v = cfs_rng_next(&rng);

		memcpy(p + i, &v, 8);
	}
	return p;
}

static void test_write_read(void **state)
{
	struct fixture *f = *state;
	uint8_t *a = buf_of(1 << 20, 1), *b = buf_of(1 << 20, 2);
	struct iovec iov[3] = { { b, 4096 }, { b + 8192, 12288 }, { b + 65536, 65536 } };
	struct req q = { .r = { .op = CFS_DEV_READ, .offset = 4096, .iov = iov, .iovcnt = 3, .len = 81920 } };

	assert_int_equal(f->dev->info.size_bytes, DEV_BYTES);
	assert_int_equal(rw(f, CFS_DEV_WRITE, CFS_DEV_DURABLE, 4096, a, 1 << 20), 1 << 20);
	assert_int_equal(rw(f, CFS_DEV_READ, 0, 4096, b, 1 << 20), 1 << 20);
	assert_memory_equal(a, b, 1 << 20);
	/* scattered */
	memset(b, 0, 1 << 20);
	assert_int_equal(run(f, &q), 81920);
	assert_memory_equal(b, a, 4096);
	assert_memory_equal(b + 8192, a + 4096, 12288);
	assert_memory_equal(b + 65536, a + 16384, 65536);
	/* gathered, at the end */
	q.r.op = CFS_DEV_WRITE;
	q.r.offset = DEV_BYTES - 81920;
	assert_int_equal(run(f, &q), 81920);
	memset(a, 0, 81920);
	assert_int_equal(rw(f, CFS_DEV_READ, 0, DEV_BYTES - 81920, a, 81920), 81920);
	assert_memory_equal(a, b, 4096);
	assert_memory_equal(a + 16384, b + 65536, 65536);
	q.r = (struct cfs_dev_req){ .op = CFS_DEV_FLUSH };
	assert_int_equal(run(f, &q), 0);
	q.r = (struct cfs_dev_req){ .op = CFS_DEV_DISCARD, .offset = 1 << 20, .len = 2 << 20 };
	assert_true(run(f, &q) >= 0);
	/* what was not discarded is still there */
	assert_int_equal(rw(f, CFS_DEV_READ, 0, DEV_BYTES - 81920, b, 4096), 4096);
	assert_memory_equal(a, b, 4096);
	free(a);
	free(b);
}

static void test_rules(void **state)
{
	struct fixture *f = *state;
	uint8_t *a = buf_of(65536, 1);
	uint32_t unit = f->dev->info.write_unit;
	struct iovec iov[2] = { { a, unit }, { a, unit } };
	struct req q = { .r = { .op = CFS_DEV_READ, .iov = iov, .iovcnt = 2, .len = unit } };

	assert_int_equal(rw(f, CFS_DEV_WRITE, 0, unit / 2, a, unit), -EINVAL);
	assert_int_equal(rw(f, CFS_DEV_WRITE, 0, 0, a, unit / 2), -EINVAL);
	assert_int_equal(rw(f, CFS_DEV_WRITE, 0, 0, a + 8, unit), -EINVAL);
	assert_int_equal(rw(f, CFS_DEV_WRITE, 0, 0, a, 0), -EINVAL);
	assert_int_equal(rw(f, CFS_DEV_WRITE, 0, DEV_BYTES, a, unit), -EINVAL);
	assert_int_equal(rw(f, CFS_DEV_WRITE, 0, UINT64_MAX - unit + 1, a, unit), -EINVAL);
	assert_int_equal(rw(f, CFS_DEV_READ, CFS_DEV_DURABLE, 0, a, unit), -EINVAL);
	assert_int_equal(rw(f, CFS_DEV_WRITE, 4, 0, a, unit), -EINVAL);
	assert_int_equal(rw(f, CFS_DEV_WRITE, CFS_DEV_ATOMIC, 0, a, unit), -EINVAL);	/* nor does either promise that */
	assert_int_equal(rw(f, CFS_DEV_ZONE_APPEND, 0, 0, a, unit), -EINVAL);
	assert_int_equal(run(f, &q), -EINVAL);	/* len is not the sum */
	q.r.len = 2 * unit;
	assert_int_equal(run(f, &q), 2 * unit);
	q.r.iovcnt = CFS_DEV_IOV_MAX + 1;
	assert_int_equal(run(f, &q), -EINVAL);
	assert_int_equal(f->dev->ops->write_sync(f->dev, 1, a, unit), -EINVAL);
	assert_int_equal(f->dev->ops->read_sync(f->dev, DEV_BYTES, a, unit), -EINVAL);
	free(a);
}

static void test_sync(void **state)
{
	struct fixture *f = *state;
	uint8_t *a = buf_of(256 << 10, 3), *b = buf_of(256 << 10, 4);
	uint32_t n = (200 << 10);

	/* aligned and not, longer than the bounce buffer */
	assert_int_equal(f->dev->ops->write_sync(f->dev, 8192, a, n), 0);
	assert_int_equal(f->dev->ops->read_sync(f->dev, 8192, b + 1, n), 0);
	assert_memory_equal(a, b + 1, n);
	assert_int_equal(f->dev->ops->write_sync(f->dev, 1 << 20, a + 3, n), 0);
	assert_int_equal(f->dev->ops->read_sync(f->dev, 1 << 20, b, n), 0);
	assert_memory_equal(a + 3, b, n);
	/* and the other kind of request sees it */
	assert_int_equal(rw(f, CFS_DEV_READ, 0, 1 << 20, b, 4096), 4096);
	assert_memory_equal(a + 3, b, 4096);
	free(a);
	free(b);
}

/* many at once, completing in any order, each into its own place */
static void test_many(void **state)
{
	struct fixture *f = *state;
	enum { N = 256 };
	static struct req q[N];
	static struct iovec iov[N];
	uint8_t *a = buf_of(N * 4096, 5), *b = buf_of(N * 4096, 6);
	int left;

	for (int pass = 0; pass < 2; pass++) {
		for (int i = 0; i < N; i++) {
			iov[i] = (struct iovec){ (pass ? b : a) + i * 4096, 4096 };
			q[i] = (struct req){ .r = {
				.op = pass ? CFS_DEV_READ : CFS_DEV_WRITE, .offset = (uint64_t)i * 8192,
				.iov = &iov[i], .iovcnt = 1, .len = 4096, .done = on_done } };
			assert_int_equal(cfs_dev_submit(f->dev, &q[i].r), 0);
		}
		for (int turn = 0; turn < 1000; turn++) {
			assert_int_equal(cfs_loop_turn(f->loop, CFS_NSEC_PER_SEC), 0);
			for (left = 0; left < N && q[left].done;)
				left++;
			if (left == N)
				break;
		}
		for (int i = 0; i < N; i++)
			assert_int_equal(q[i].r.result, 4096);
	}
	assert_memory_equal(a, b, N * 4096);
	free(a);
	free(b);
}

static void test_cut_file(void **state)
{
	struct fixture *f = *state;
	uint8_t *a = buf_of(65536, 1);

	assert_int_equal(truncate(f->path, 32768), 0);
	assert_int_equal(rw(f, CFS_DEV_READ, 0, 0, a, 65536), -EIO);	/* begins well, then ends */
	assert_int_equal(rw(f, CFS_DEV_READ, 0, 65536, a, 4096), -EIO);
	assert_int_equal(rw(f, CFS_DEV_READ, 0, 0, a, 32768), 32768);
	assert_int_equal(f->dev->ops->read_sync(f->dev, 32768, a, 4096), -EIO);
	free(a);
}

static void test_lock_and_readonly(void **state)
{
	struct fixture *f = *state;
	struct fixture g = { .loop = f->loop };
	uint8_t *a = buf_of(4096, 1);

	assert_int_equal(cfs_dev_block_open(f->loop, f->path, 0, &g.dev), -EBUSY);
	assert_int_equal(cfs_dev_block_open(f->loop, "/var/tmp", 0, &g.dev), -ENOTBLK);
	assert_int_equal(cfs_dev_block_open(f->loop, "/dev/null", 0, &g.dev), -ENOTBLK);
	assert_int_equal(cfs_dev_block_open(f->loop, "/nowhere/at/all", 0, &g.dev), -ENOENT);
	assert_int_equal(cfs_dev_block_open(NULL, f->path, CFS_DEV_F_READONLY, &g.dev), 0);
	assert_int_equal(g.dev->ops->write_sync(g.dev, 0, a, 4096), -EROFS);
	assert_int_equal(g.dev->ops->read_sync(g.dev, 0, a, 4096), 0);
	assert_int_equal(rw(&g, CFS_DEV_READ, 0, 0, a, 4096), -EINVAL);	/* opened without a loop */
	cfs_dev_close(g.dev);
	assert_int_equal(cfs_dev_block_open(f->loop, f->path, CFS_DEV_F_READONLY, &g.dev), 0);
	assert_int_equal(rw(&g, CFS_DEV_WRITE, 0, 0, a, 4096), -EROFS);
	assert_int_equal(rw(&g, CFS_DEV_READ, 0, 0, a, 4096), 4096);
	cfs_dev_close(g.dev);
	cfs_dev_close(f->dev);
	assert_int_equal(cfs_dev_block_open(f->loop, f->path, 0, &f->dev), 0);	/* the lock went with it */
	free(a);
}

static void test_mem_sizes(void **state)
{
	struct fixture *f = *state;
	struct cfs_dev *d = NULL;

	assert_int_equal(cfs_dev_mem_create(f->loop, 4096, 256, &d), -EINVAL);
	assert_int_equal(cfs_dev_mem_create(f->loop, 4097, 512, &d), -EINVAL);
	assert_int_equal(cfs_dev_mem_create(f->loop, 0, 512, &d), -EINVAL);
	/* sparse: much larger than memory */
	assert_int_equal(cfs_dev_mem_create(f->loop, 1ull << 40, 4096, &d), 0);
	cfs_dev_close(d);
	cfs_dev_close(NULL);
}

static int64_t plain(struct fixture *f, enum cfs_dev_op op, uint64_t off, uint64_t len)
{
	struct req q = { .r = { .op = op, .offset = off, .len = len, .done = on_done } };

	return run(f, &q);
}

/* room is found for what is reserved, and only for that; what was written stays; it can be given back */
static void test_reserve(void **state)
{
	struct fixture *f = *state;
	uint64_t size = f->dev->info.size_bytes, missing, half = cfs_align_down(size / 2, 65536);
	uint8_t *a = buf_of(65536, 9), *b = buf_of(65536, 1);
	int has;

	assert_true(f->dev->info.flags & CFS_DEV_F_SPARSE);
	assert_int_equal(truncate(f->path, 0), 0);
	assert_int_equal(truncate(f->path, (off_t)size), 0);
	assert_int_equal(plain(f, CFS_DEV_ROOM, 0, 0), 0);
	missing = f->dev->room.missing;
	assert_int_equal(missing, size);
	assert_true(f->dev->room.free && f->dev->room.below);
	has = f->dev->ops->reserved_sync(f->dev, 0, half);
	if (has == -EOPNOTSUPP) {
		free(a);
		free(b);
		skip();
	}
	assert_int_equal(has, 0);
	assert_int_equal(rw(f, CFS_DEV_WRITE, CFS_DEV_DURABLE, 65536, a, 65536), 65536);
	assert_int_equal(plain(f, CFS_DEV_RESERVE, 0, half), 0);
	assert_int_equal(f->dev->ops->reserved_sync(f->dev, 0, half), 1);
	assert_int_equal(f->dev->ops->reserved_sync(f->dev, 65536, half), 0);
	assert_int_equal(f->dev->ops->reserved_sync(f->dev, half, 4096), 0);
	assert_int_equal(rw(f, CFS_DEV_READ, 0, 65536, b, 65536), 65536);
	assert_memory_equal(a, b, 65536);
	assert_int_equal(plain(f, CFS_DEV_ROOM, 0, 0), 0);
	assert_true(f->dev->room.missing <= missing - half);
	assert_int_equal(plain(f, CFS_DEV_DISCARD, 0, half), 0);
	assert_int_equal(f->dev->ops->reserved_sync(f->dev, 0, 4096), 0);
	assert_int_equal(plain(f, CFS_DEV_ROOM, 0, 0), 0);
	assert_int_equal(f->dev->room.missing, size);
	free(a);
	free(b);
}

/* a device that is not sparse has nothing to reserve */
static void test_reserve_nothing(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(plain(f, CFS_DEV_RESERVE, 0, 4096), -EINVAL);
	assert_int_equal(plain(f, CFS_DEV_ROOM, 0, 0), -EINVAL);
}

int main(void)
{
#define ON_BOTH(t) cmocka_unit_test_setup_teardown(t, setup_mem, teardown), \
		   cmocka_unit_test_setup_teardown(t, setup_block, teardown)
	const struct CMUnitTest tests[] = {
		ON_BOTH(test_write_read),
		ON_BOTH(test_rules),
		ON_BOTH(test_sync),
		ON_BOTH(test_many),
		cmocka_unit_test_setup_teardown(test_cut_file, setup_block, teardown),
		cmocka_unit_test_setup_teardown(test_lock_and_readonly, setup_block, teardown),
		cmocka_unit_test_setup_teardown(test_reserve, setup_block, teardown),
		cmocka_unit_test_setup_teardown(test_reserve_nothing, setup_mem, teardown),
		cmocka_unit_test_setup_teardown(test_mem_sizes, setup_mem, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
