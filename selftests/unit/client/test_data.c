/* SPDX-License-Identifier: MIT */
/*
 * test_data.c - proves that cfs_data gives back the bytes that were written, whatever lies between: two clients do random
 * reads, writes, truncations, fsyncs, recalls and evictions on a few files and are compared with plain byte arrays, also
 * while targets fail and leases are refused; and that each promise of data.h about requests, errors and limits holds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "selftests/unit/client/fake_server.h"

#include "base/log.h"
#include "client/data_i.h"

#include <dirent.h>

static unsigned invals;
static bool hold_inval;		/* the next one finds its page locked */
static bool inval_held;
static pthread_mutex_t hold_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t hold_cond = PTHREAD_COND_INITIALIZER;

static void inval(void *arg, uint64_t ino, int64_t off, int64_t len)
{
	(void)arg;
	(void)ino;
	(void)off;
	(void)len;
	__atomic_add_fetch(&invals, 1, __ATOMIC_RELAXED);
	pthread_mutex_lock(&hold_lock);
	if (hold_inval) {
		hold_inval = false;
		inval_held = true;
		pthread_cond_broadcast(&hold_cond);
		while (inval_held)
			pthread_cond_wait(&hold_cond, &hold_lock);
	}
	pthread_mutex_unlock(&hold_lock);
}

static const struct cfs_data_params params = {
	.cache_bytes = 64 * CFS_MIB, .dirty_bytes = 16 * CFS_MIB, .flush_ms = 60000, .inval_pages = inval,
};

static int setup(void **state)
{
	(void)state;
	fake_reset();
	fake_seed(1);
	fake_start(0, &params);
	fake_start(1, &params);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake.commit_status = 0;
	fake_stop(0, 0);
	fake_stop(1, 0);
	fake_reset();
	return 0;
}

static void pattern(unsigned char *buf, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (unsigned char)(cfs_hash_u64(seed * 1000003ull + i / 8) >> (i % 8 * 8));
}

static void must_write(struct cfs_data *d, const void *buf, uint64_t len, uint64_t off)
{
	assert_int_equal(cfs_data_write(d, buf, len, off, 0), len);
}

static void must_read(struct cfs_data *d, const void *want, uint64_t len, uint64_t off)
{
	unsigned char *buf = malloc(len + 1);

	assert_int_equal(cfs_data_read(d, buf, len, off), len);
	assert_memory_equal(buf, want, len);
	free(buf);
}

static unsigned cache_files(unsigned id)
{
	char dir[PATH_MAX];
	struct dirent *de;
	unsigned n = 0;
	DIR *dp;

	test_dir(dir, sizeof(dir), "data", id);
	dp = opendir(dir);
	assert_non_null(dp);
	while ((de = readdir(dp)))
		n += de->d_name[0] != '.';
	closedir(dp);
	return n;
}

/* ---- the model ----------------------------------------------------------------------------- */
#define MODEL_FILES	4
#define MODEL_MAX	(12u << 20)
static struct model {
	unsigned char *bytes;
	uint64_t size;
} model[MODEL_FILES];

static uint64_t any_off(bool far)
{
	switch (fake_rand() % 6) {
	case 0:
		return fake_rand() % 5000;
	case 1:
	case 2:
		return fake_rand() % 70000;
	case 3:
		return fake_rand() % (1 << 20);
	default:
		return far ? fake_rand() % (MODEL_MAX - (2 << 20)) : fake_rand() % 70000;
	}
}

static uint32_t any_len(void)
{
	switch (fake_rand() % 8) {
	case 0:
		return 1 + fake_rand() % (1 << 20);
	case 1:
	case 2:
		return 1 + fake_rand() % 100000;
	default:
		return 1 + fake_rand() % 5000;
	}
}

static void step(struct cfs_data *d, struct model *m, bool far, unsigned char *buf)
{
	uint64_t off = any_off(far), size;
	uint32_t len = any_len();
	struct cfs_attr attr;
	int64_t rc;

	switch (fake_rand() % 32) {
	case 0:		/* smaller or larger */
	case 1:
		size = fake_rand() % 3 ? fake_rand() % (m->size + 1) : off;
		if (fake_rand() % 8 == 0)
			size = 0;
		assert_int_equal(cfs_data_truncate(d, size), 0);
		if (size < m->size)
			memset(m->bytes + size, 0, m->size - size);
		m->size = size;
		break;
	case 2:
	case 3:
	case 4:
		rc = fake_rand() % 2 ? cfs_data_fsync(d) : cfs_data_flush(d);
		if (!fake.write_fails_pct)
			assert_int_equal(rc, 0);
		break;
	case 5:
		cfs_data_evict(d->g, 0, 0);
		cfs_data_evict(d->g, 0, 0);
		break;
	case 6:
		cfs_data_idle(d->g->c, 0);
		break;
	case 7:
		pattern(buf, len, fake_rand());
		assert_int_equal(cfs_data_write(d, buf, len, 0, CFS_DATA_APPEND), len);
		assert_true(m->size + len < MODEL_MAX * 2);
		memcpy(m->bytes + m->size, buf, len);
		m->size += len;
		if (m->size > MODEL_MAX) {
			assert_int_equal(cfs_data_truncate(d, 1000), 0);
			memset(m->bytes + 1000, 0, m->size - 1000);
			m->size = 1000;
		}
		break;
	case 8:
	case 9:
	case 10:
	case 11:
	case 12:
	case 13:
	case 14:
	case 15:
	case 16:
		pattern(buf, len, fake_rand());
		must_write(d, buf, len, off);
		memcpy(m->bytes + off, buf, len);
		if (off + len > m->size)
			m->size = off + len;
		break;
	default:
		rc = cfs_data_read(d, buf, len, off);
		size = off >= m->size ? 0 : cfs_min((uint64_t)len, m->size - off);
		assert_int_equal(rc, size);
		assert_memory_equal(buf, m->bytes + off, size);
	}
	pthread_mutex_lock(&fake.lock);
	fake_attr(cfs_data_ino(d), &attr);
	pthread_mutex_unlock(&fake.lock);
	cfs_data_attr(d, &attr);
	if (d->lease != CFS_LEASE_NONE)
		assert_int_equal(attr.size, m->size);
}

static void random_ops(unsigned seed, unsigned steps, bool far)
{
	struct cfs_data *d[2][MODEL_FILES];
	unsigned char *buf = malloc(1 << 20);

	if (getenv("CFS_TEST_SEED"))
		seed += (unsigned)atoi(getenv("CFS_TEST_SEED")) * 1000;
	print_message("seed %u\n", seed);
	fake_seed(seed);
	for (unsigned i = 0; i < MODEL_FILES; i++) {
		model[i].bytes = calloc(1, MODEL_MAX * 2);
		model[i].size = 0;
		d[0][i] = fake_get(0, i + 1);
		d[1][i] = fake_get(1, i + 1);
		assert_int_equal(cfs_data_open(d[0][i], 0), 0);
		if (i)
			assert_int_equal(cfs_data_open(d[1][i], 0), 0);
	}
	for (unsigned k = 0; k < steps; k++) {
		unsigned i = fake_rand() % MODEL_FILES;

		/* mostly one client at a time, so that something is cached */
		step(d[fake_rand() % 8 == 0 ? 1 : 0][i], &model[i], far, buf);
	}
	fake.write_fails_pct = 0;
	/* what is on the server at the end */
	for (unsigned i = 0; i < MODEL_FILES; i++) {
		for (unsigned c = 0; c < 2; c++) {
			while (cfs_data_fsync(d[c][i]))
				;	/* a refused write is tried again */
			cfs_data_break(&fake.clients[c], i + 1, CFS_LEASE_NONE);
			fake_file(i + 1)->lease[c] = CFS_LEASE_NONE;
		}
		assert_int_equal(d[1][i]->valid.n, 0);
		for (uint64_t off = 0; off < model[i].size; off += 1 << 20)
			must_read(d[1][i], model[i].bytes + off, cfs_min(model[i].size - off, 1u << 20), off);
		assert_int_equal(fake_file(i + 1)->size, model[i].size);
		for (unsigned c = 0; c < 2; c++) {
			if (d[c][i]->n_open)
				cfs_data_release(d[c][i], 0);
			cfs_data_put(d[c][i]);
		}
		free(model[i].bytes);
	}
	free(buf);
}

static void test_random(void **state)
{
	(void)state;
	random_ops(11, 4000, false);
}

static void test_random_far(void **state)
{
	(void)state;
	fake.extents_max = 3;
	random_ops(12, 1500, true);
}

static void test_random_faults(void **state)
{
	(void)state;
	cfs_log_set_level(CFS_LOG_ERR);
	fake.write_fails_pct = 20;
	fake.reads_flaky = true;
	fake.refuse_pct = 30;
	random_ops(13, 3000, false);
	cfs_log_set_level(CFS_LOG_INFO);
}

/* ---- small files --------------------------------------------------------------------------- */
static void test_many_small(void **state)
{
	enum { N = 3000 };
	char text[64];

	(void)state;
	for (unsigned i = 1; i <= N; i++) {
		struct cfs_data *d = fake_get(0, i);
		struct cfs_attr attr;

		/* as a create does: the reply of MKNODE grants the lease, nothing is asked for */
		fake_attr(i, &attr);
		fake_file(i)->lease[0] = CFS_LEASE_EXCL;
		cfs_data_granted(d, &attr, CFS_LEASE_EXCL, fake.gen, NULL, 0);
		assert_int_equal(cfs_data_open(d, 0), 0);
		snprintf(text, sizeof(text), "file %u", i);
		must_write(d, text, strlen(text), 0);
		cfs_data_release(d, 0);
		cfs_data_put(d);
	}
	assert_int_equal(fake.n_open, 0);
	assert_int_equal(fake.n_commit, 0);
	cfs_data_kick(cfs_data_ctx_of(&fake.clients[0]));
	for (unsigned i = 0; i < 500 && fake_count(&fake.n_commit_items) < N; i++)
		usleep(10000);
	assert_int_equal(fake.n_commit_items, N);
	assert_true(fake.n_commit <= N / 256 + 4);
	assert_int_equal(cache_files(0), 0);
	assert_int_equal(fake.n_obj_write, 0);
	for (unsigned i = 1; i <= N; i++) {
		struct fake_file *f = fake_file(i);

		snprintf(text, sizeof(text), "file %u", i);
		assert_int_equal(f->size, strlen(text));
		assert_memory_equal(f->bytes, text, strlen(text));
	}
}

static void test_one_request_fsync(void **state)
{
	struct cfs_data *d = fake_get(0, 1);

	(void)state;
	assert_int_equal(cfs_data_open(d, 0), 0);
	must_write(d, "hello", 5, 0);
	assert_int_equal(fake.n_open, 2);	/* shared by open, exclusive by write */
	assert_int_equal(cfs_data_fsync(d), 0);
	assert_int_equal(fake.n_commit, 1);
	assert_int_equal(fake_file(1)->size, 5);
	assert_int_equal(cfs_data_fsync(d), 0);
	assert_int_equal(fake.n_commit, 1);	/* nothing new */
	/* a second open, reads, attributes: nothing is asked for */
	assert_int_equal(cfs_data_open(d, 0), 0);
	must_read(d, "hello", 5, 0);
	assert_int_equal(fake.n_open, 2);
	assert_int_equal(fake.n_extents, 0);
	cfs_data_release(d, 0);
	cfs_data_release(d, 0);
	cfs_data_put(d);
}

static void test_outgrow_inline(void **state)
{
	struct cfs_data *d = fake_get(0, 1);
	unsigned char buf[10000];

	(void)state;
	fake_file(1)->inline_len = 3000;
	fake_file(1)->size = 3000;
	pattern(buf, sizeof(buf), 5);
	memcpy(fake_file(1)->bytes, buf, 3000);
	/* granted without the bytes, and only the tail is written: the write-back must fetch and write the head, too */
	fake_file(1)->lease[0] = CFS_LEASE_EXCL;
	{
		struct cfs_attr attr;

		fake_attr(1, &attr);
		cfs_data_granted(d, &attr, CFS_LEASE_EXCL, fake.gen, NULL, 0);
	}
	must_write(d, buf + 8000, 2000, 8000);
	memset(buf + 3000, 0, 5000);
	assert_int_equal(cfs_data_fsync(d), 0);
	assert_int_equal(fake_file(1)->inline_len, 0);
	assert_int_equal(fake_file(1)->size, 10000);
	cfs_data_idle(&fake.clients[0], 0);
	must_read(d, buf, 10000, 0);
	cfs_data_put(d);
}

/* ---- objects ---------------------------------------------------------------------------------- */
static struct cfs_data *big_file(unsigned ino, unsigned char **ret_buf, uint32_t len)
{
	struct cfs_data *d = fake_get(0, ino);

	*ret_buf = malloc(len);
	pattern(*ret_buf, len, ino);
	for (uint32_t off = 0; off < len; off += 1 << 20)
		must_write(d, *ret_buf + off, cfs_min(1u << 20, len - off), off);
	assert_int_equal(cfs_data_fsync(d), 0);
	return d;
}

static void test_objects(void **state)
{
	unsigned char *buf;
	struct cfs_data *d = big_file(1, &buf, 7 << 20);
	struct cfs_data_stat st;

	(void)state;
	/* 4 + 3 MiB, two copies each, one COMMIT */
	assert_int_equal(fake_file(1)->n_ext, 2);
	assert_int_equal(fake.n_obj_write, 4);
	assert_int_equal(fake.n_commit, 1);
	/* it stays cached, clean */
	must_read(d, buf + 12345, 100000, 12345);
	assert_int_equal(fake.n_obj_read, 0);
	cfs_data_stat(&fake.clients[0], &st);
	assert_int_equal(st.dirty_bytes, 0);
	assert_int_equal(st.cached_bytes, 7 << 20);
	assert_int_equal(cache_files(0), 1);
	/* evicted, it comes from objects: a 1 MiB read over a boundary is two requests */
	cfs_data_evict(d->g, 0, 0);
	cfs_data_evict(d->g, 0, 0);
	assert_int_equal(cache_files(0), 0);
	must_read(d, buf + (4 << 20) - (1 << 19), 1 << 20, (4 << 20) - (1 << 19));
	assert_int_equal(fake.n_obj_read, 2);
	cfs_data_stat(&fake.clients[0], &st);
	assert_int_equal(st.cached_bytes, 0);		/* streaming leaves nothing here */
	/* a small read leaves its block for its neighbours */
	must_read(d, buf + 8192, 4096, 8192);
	must_read(d, buf + 20480, 4096, 20480);
	assert_int_equal(fake.n_obj_read, 3);
	cfs_data_put(d);
	free(buf);
}

static void test_scattered(void **state)
{
	struct cfs_data *d;
	unsigned char *buf, page[4096];
	uint64_t writes;

	(void)state;
	d = big_file(1, &buf, 7 << 20);
	writes = fake.n_obj_write;
	/* 400 scattered pages travel in one object, not in 400 */
	for (unsigned i = 0; i < 400; i++) {
		pattern(page, sizeof(page), i);
		must_write(d, page, sizeof(page), i * 16384);
		memcpy(buf + i * 16384, page, sizeof(page));
	}
	assert_int_equal(cfs_data_fsync(d), 0);
	assert_int_equal(fake.n_obj_write, writes + 2);
	cfs_data_evict(d->g, 0, 0);
	cfs_data_evict(d->g, 0, 0);
	for (unsigned off = 0; off < 7 << 20; off += 1 << 20)
		must_read(d, buf + off, 1 << 20, off);
	cfs_data_put(d);
	free(buf);
}

static void test_rot(void **state)
{
	unsigned char *buf, out[4096];
	struct cfs_data *d = big_file(1, &buf, 1 << 20);
	struct fake_object *o = fake_find(&fake_file(1)->ext[0].oid);

	(void)state;
	cfs_log_set_level(CFS_LOG_ERR - 1);
	cfs_data_evict(d->g, 0, 0);
	cfs_data_evict(d->g, 0, 0);
	for (unsigned t = 0; t < FAKE_TARGETS && !o->rotten[0]; t++)
		if (o->on[t]) {	/* one copy rotten: the other is used */
			o->rotten[t] = true;
			must_read(d, buf, 1 << 20, 0);
			cfs_data_evict(d->g, 0, 0);
			cfs_data_evict(d->g, 0, 0);
			o->rotten[t] = false;
		}
	for (unsigned t = 0; t < FAKE_TARGETS; t++)
		o->rotten[t] = true;
	assert_int_equal(cfs_data_read(d, out, 4096, 4096), -EIO);
	for (unsigned t = 0; t < FAKE_TARGETS; t++)
		o->rotten[t] = false;
	fake.target_down[0] = true;	/* one of three down: each object has another copy */
	must_read(d, buf, 1 << 20, 0);
	cfs_log_set_level(CFS_LOG_INFO);
	cfs_data_put(d);
	free(buf);
}

static void test_target_down(void **state)
{
	unsigned char *buf;
	struct cfs_data *d;

	(void)state;
	cfs_log_set_level(CFS_LOG_ERR);
	fake.target_down[2] = true;	/* placement groups without it are found */
	d = big_file(1, &buf, 20 << 20);
	must_read(d, buf, 1 << 20, 0);
	cfs_log_set_level(CFS_LOG_INFO);
	cfs_data_put(d);
	free(buf);
}

static void test_hole(void **state)
{
	static const unsigned char zeros[8192];
	struct cfs_data *d = fake_get(0, 1);

	(void)state;
	must_write(d, "x", 1, 1ull << 43);
	must_read(d, zeros, 8192, 1ull << 40);
	assert_int_equal(cfs_data_fsync(d), 0);
	assert_int_equal(fake_file(1)->size, (1ull << 43) + 1);
	assert_int_equal(fake_file(1)->n_ext, 1);
	cfs_data_idle(&fake.clients[0], 0);
	must_read(d, zeros, 8192, 1ull << 40);
	must_read(d, "x", 1, 1ull << 43);
	assert_int_equal(cfs_data_write(d, "x", 1, CFS_FILE_SIZE_MAX, 0), -EFBIG);
	assert_int_equal(cfs_data_truncate(d, CFS_FILE_SIZE_MAX + 1), -EFBIG);
	/* further than a host's file system may go */
	must_write(d, "yz", 2, CFS_FILE_SIZE_MAX - 2);
	must_read(d, "yz", 2, CFS_FILE_SIZE_MAX - 2);
	assert_int_equal(cfs_data_fsync(d), 0);
	cfs_data_idle(&fake.clients[0], 0);
	must_read(d, "yz", 2, CFS_FILE_SIZE_MAX - 2);
	must_read(d, "x", 1, 1ull << 43);
	cfs_data_put(d);
}

/* ---- leases --------------------------------------------------------------------------------------- */
static void test_handover(void **state)
{
	struct cfs_data *a = fake_get(0, 1), *b = fake_get(1, 1);
	struct cfs_attr attr;

	(void)state;
	assert_int_equal(cfs_data_open(a, 0), 0);
	must_write(a, "one", 3, 0);
	assert_int_equal(fake_file(1)->size, 0);
	/* the holder's truth */
	fake_attr(1, &attr);
	assert_true(cfs_data_attr(a, &attr));
	assert_int_equal(attr.size, 3);
	/* a reader gets it flushed; the holder keeps reading rights */
	must_read(b, "one", 3, 0);
	assert_int_equal(a->lease, CFS_LEASE_SHARED);
	assert_int_equal(b->lease, CFS_LEASE_SHARED);
	assert_false(cfs_data_attr(a, &attr));
	/* a writer takes everything, and the kernel's pages go */
	invals = 0;
	must_write(b, "TWO", 3, 1);
	assert_int_equal(a->lease, CFS_LEASE_NONE);
	assert_true(invals >= 1);
	must_read(a, "oTWO", 4, 0);
	assert_true(cfs_data_break(&fake.clients[0], 1, CFS_LEASE_NONE));	/* open */
	assert_false(cfs_data_break(&fake.clients[1], 1, CFS_LEASE_NONE));
	assert_false(cfs_data_break(&fake.clients[1], 77, CFS_LEASE_NONE));
	fake_file(1)->lease[0] = fake_file(1)->lease[1] = 0;
	cfs_data_release(a, 0);
	cfs_data_put(a);
	cfs_data_put(b);
}

/* a thread that waits for a page's lock, until held_end() */
static pthread_t held_begin(void *(*run)(void *), struct cfs_data *d)
{
	pthread_t t;

	pthread_mutex_lock(&hold_lock);
	hold_inval = true;
	assert_int_equal(pthread_create(&t, NULL, run, d), 0);
	while (!inval_held)
		pthread_cond_wait(&hold_cond, &hold_lock);
	pthread_mutex_unlock(&hold_lock);
	return t;
}

static void held_end(pthread_t t)
{
	pthread_mutex_lock(&hold_lock);
	inval_held = false;
	pthread_cond_broadcast(&hold_cond);
	pthread_mutex_unlock(&hold_lock);
	pthread_join(t, NULL);
}

static void *drop_all(void *arg)
{
	cfs_data_inval_now(arg, 0, UINT64_MAX);
	return NULL;
}

/*
 * A page was dropped after write(2) had filled it, and a read brought the old bytes back. That another drop of it is under way when the
 * write is answered is no help: that page may be there still.
 */
static void test_drop_under_way(void **state)
{
	struct cfs_data *d = fake_get(0, 1);
	pthread_t t;
	unsigned n;

	(void)state;
	must_write(d, "old", 3, 0);
	cfs_data_inval_now(d, 0, UINT64_MAX);
	must_read(d, "old", 3, 0);
	t = held_begin(drop_all, d);
	n = invals;
	must_write(d, "new", 3, 0);
	assert_int_equal(invals, n + 1);
	held_end(t);
	/* now they are all gone */
	must_write(d, "NEW", 3, 0);
	assert_int_equal(invals, n + 1);
	cfs_data_put(d);
}

static void *recall(void *arg)
{
	struct cfs_data *d = arg;

	cfs_data_break(d->g->c, d->ino, CFS_LEASE_NONE);
	return NULL;
}

/*
 * A write that was to go through finds the exclusive lease, which another one took meanwhile, and it is being recalled: the recall waits for
 * a page that this very write may hold, and must not be waited for.
 */
static void test_through_meets_recall(void **state)
{
	struct cfs_data *d = fake_get(0, 1);
	uint64_t off = 0;
	pthread_t t;

	(void)state;
	must_write(d, "old", 3, 0);
	assert_int_equal(d->lease, CFS_LEASE_EXCL);
	t = held_begin(recall, d);
	pthread_mutex_lock(&d->lock);
	assert_true(d->recalling);
	assert_int_equal(cfs_data_through(d, "new", 3, 0, 0, &off), CFS_DATA_UNLEASED);
	pthread_mutex_unlock(&d->lock);
	held_end(t);
	assert_int_equal(d->lease, CFS_LEASE_NONE);
	fake_file(1)->lease[0] = CFS_LEASE_NONE;
	must_read(d, "old", 3, 0);
	cfs_data_put(d);
}

static void test_grant_and_break(void **state)
{
	struct cfs_data *d = fake_get(0, 1);
	struct cfs_attr attr;
	uint64_t gen = fake.gen;

	(void)state;
	fake_attr(1, &attr);
	/* the break of the grant arrives first: the grant counts for nothing */
	fake_file(1)->broken_gen[0] = ++fake.gen;
	cfs_data_break(&fake.clients[0], 1, CFS_LEASE_NONE);
	cfs_data_granted(d, &attr, CFS_LEASE_EXCL, gen, NULL, 0);
	assert_int_equal(d->lease, CFS_LEASE_NONE);
	cfs_data_granted(d, &attr, CFS_LEASE_SHARED, fake.gen, NULL, 0);
	assert_int_equal(d->lease, CFS_LEASE_SHARED);
	cfs_data_put(d);
}

static void count_lease(void *arg, uint64_t ino, unsigned mode, bool open)
{
	unsigned *n = arg;

	(void)ino;
	n[mode]++;
	n[3] += open;
}

/* who drops pages may still refer to some for a moment */
static void wait_inodes(unsigned n)
{
	struct cfs_data_stat st;

	for (unsigned i = 0; i < 100; i++) {
		cfs_data_stat(&fake.clients[0], &st);
		if (st.inodes == n)
			break;
		usleep(10000);
	}
	assert_int_equal(st.inodes, n);
}

static void test_idle_and_reclaim(void **state)
{
	enum { N = 20000 };
	unsigned n[4] = { 0 };

	(void)state;
	for (unsigned i = 1; i <= N; i++) {
		struct cfs_data *d = fake_get(0, i);
		struct cfs_attr attr;

		fake_attr(i, &attr);
		fake_file(i)->lease[0] = CFS_LEASE_SHARED;
		cfs_data_granted(d, &attr, CFS_LEASE_SHARED, fake.gen, NULL, 0);
		assert_int_equal(cfs_data_open(d, 0), 0);
		if (i > 10)
			cfs_data_release(d, 0);
		cfs_data_put(d);
	}
	assert_int_equal(fake.n_open, 0);
	cfs_data_leases(&fake.clients[0], count_lease, n);
	assert_int_equal(n[CFS_LEASE_SHARED], N);
	assert_int_equal(n[3], 10);
	cfs_data_idle(&fake.clients[0], 60000);
	assert_int_equal(fake.n_return, 0);
	cfs_data_idle(&fake.clients[0], 0);
	assert_true(fake.n_return > 0 && fake.n_return < N / 100);
	wait_inodes(10);		/* those that are open */
	for (unsigned i = 1; i <= N; i++)
		assert_int_equal(fake_file(i)->lease[0], i > 10 ? CFS_LEASE_NONE : CFS_LEASE_SHARED);
	for (unsigned i = 1; i <= 10; i++) {
		struct cfs_data *d = cfs_data_find(&fake.clients[0], i);

		cfs_data_break(&fake.clients[0], i, CFS_LEASE_NONE);
		fake_file(i)->lease[0] = CFS_LEASE_NONE;
		cfs_data_release(d, 0);
		cfs_data_put(d);
	}
	/* closed without a lease: the server is told by the next call, at once */
	fake.n_return = 0;
	cfs_data_idle(&fake.clients[0], 60000);
	assert_true(fake.n_return > 0);
	wait_inodes(0);
}

/* ---- sizes and times ----------------------------------------------------------------------------- */
static void test_truncate_local(void **state)
{
	struct cfs_data *d = fake_get(0, 1);
	struct cfs_attr attr;

	(void)state;
	must_write(d, "0123456789", 10, 0);
	/* what the server has not heard of it need not forget */
	assert_int_equal(cfs_data_truncate(d, 4), 0);
	assert_int_equal(cfs_data_truncate(d, 8), 0);
	must_read(d, "0123\0\0\0\0", 8, 0);
	assert_int_equal(fake.n_setattr, 0);
	assert_int_equal(cfs_data_fsync(d), 0);
	assert_int_equal(fake_file(1)->size, 8);
	assert_memory_equal(fake_file(1)->bytes, "0123\0\0\0\0", 8);
	memset(&attr, 0, sizeof(attr));
	assert_int_equal(cfs_data_setsize(d, 2, true, &attr), 0);
	assert_int_equal(fake.n_setattr, 1);
	assert_int_equal(attr.ino, 1);
	assert_int_equal(attr.size, 2);
	assert_int_equal(cfs_data_truncate(d, 6), 0);
	must_read(d, "01\0\0\0\0", 6, 0);
	assert_int_equal(cfs_data_fsync(d), 0);
	assert_memory_equal(fake_file(1)->bytes, "01\0\0\0\0", 6);
	cfs_data_put(d);
}

static void test_times(void **state)
{
	struct cfs_data *d = fake_get(0, 1);
	struct cfs_attr attr;

	(void)state;
	must_write(d, "x", 1, 0);
	/* utimes after a write: the later COMMIT must not bring the time of the write */
	fake_attr(1, &attr);
	attr.mtime.sec = 12345;
	cfs_data_setattr_done(d, &attr, false);
	assert_true(cfs_data_unsaved(d));
	assert_int_equal(cfs_data_fsync(d), 0);
	assert_int_equal(fake_file(1)->mtime.sec, 12345);
	/* what the server was told is the holder's truth, but nothing to save */
	attr.mtime.sec = 23456;
	cfs_data_setattr_done(d, &attr, false);
	attr.mtime.sec = 0;
	assert_true(cfs_data_attr(d, &attr));
	assert_int_equal(attr.mtime.sec, 23456);
	assert_false(cfs_data_unsaved(d));
	/* a write kills suid, here at once, there with the COMMIT */
	assert_int_equal(cfs_data_write(d, "y", 1, 0, CFS_DATA_KILLPRIV), 1);
	attr.mode = 0106755;
	attr.flags = CFS_IF_CAPS;
	cfs_data_attr(d, &attr);
	assert_int_equal(attr.mode, 0100755);
	assert_int_equal(attr.flags & CFS_IF_CAPS, 0);
	assert_int_equal(cfs_data_fsync(d), 0);
	assert_int_equal(fake_file(1)->killed, 1);
	cfs_data_put(d);
}

/* ---- errors and limits ------------------------------------------------------------------------------ */
static void test_nospace(void **state)
{
	struct cfs_data *d = fake_get(0, 1);
	struct cfs_data_stat st;

	(void)state;
	cfs_log_set_level(CFS_LOG_ERR);
	assert_int_equal(cfs_data_open(d, 0), 0);
	must_write(d, "precious", 8, 0);
	fake.commit_status = ENOSPC;
	assert_int_equal(cfs_data_fsync(d), -ENOSPC);
	assert_int_equal(cfs_data_error(d), -ENOSPC);	/* close(2) says so, too */
	cfs_data_stat(&fake.clients[0], &st);
	assert_int_equal(st.dirty_bytes, 8);		/* and it is not dropped */
	must_read(d, "precious", 8, 0);
	fake.commit_status = 0;
	assert_int_equal(cfs_data_fsync(d), 0);
	assert_int_equal(cfs_data_error(d), 0);
	assert_memory_equal(fake_file(1)->bytes, "precious", 8);
	cfs_log_set_level(CFS_LOG_INFO);
	cfs_data_release(d, 0);
	cfs_data_put(d);
}

static void test_session_lost(void **state)
{
	struct cfs_data *d = fake_get(0, 1), *clean = fake_get(0, 2);

	(void)state;
	cfs_log_set_level(CFS_LOG_ERR - 1);
	assert_int_equal(cfs_data_open(d, 0), 0);
	must_write(clean, "kept", 4, 0);
	assert_int_equal(cfs_data_fsync(clean), 0);
	must_write(d, "unsaved", 7, 0);
	fake.clients[0].dead = true;
	cfs_data_session_lost(&fake.clients[0]);
	fake_file(1)->lease[0] = fake_file(2)->lease[0] = 0;
	fake.clients[0].dead = false;
	assert_int_equal(cfs_data_fsync(d), -EIO);	/* once */
	assert_int_equal(cfs_data_fsync(d), 0);
	assert_int_equal(cfs_data_fsync(clean), 0);
	must_read(clean, "kept", 4, 0);
	must_write(d, "again", 5, 0);
	assert_int_equal(cfs_data_fsync(d), 0);
	assert_int_equal(fake_file(1)->size, 5);
	cfs_log_set_level(CFS_LOG_INFO);
	cfs_data_release(d, 0);
	cfs_data_put(d);
	cfs_data_put(clean);
}

static void test_deleted(void **state)
{
	struct cfs_data *d = fake_get(0, 1), *e = fake_get(0, 2);
	struct cfs_data_stat st;

	(void)state;
	/* told: nothing is ever written back */
	must_write(d, "temporary", 9, 0);
	cfs_data_forget(d);
	cfs_data_put(d);
	/* not told: found out, without an error for anybody */
	cfs_log_set_level(CFS_LOG_ERR);
	must_write(e, "temporary", 9, 0);
	fake_file(2)->gone = true;
	assert_int_equal(cfs_data_fsync(e), 0);
	cfs_log_set_level(CFS_LOG_INFO);
	cfs_data_put(e);
	assert_int_equal(fake.n_commit, 1);
	cfs_data_stat(&fake.clients[0], &st);
	assert_int_equal(st.dirty_bytes, 0);
}

static void test_limits(void **state)
{
	unsigned char *buf = malloc(1 << 20), *out = malloc(1 << 20);
	struct cfs_data *d = fake_get(0, 1);
	struct cfs_data_stat st;

	(void)state;
	/* 160 MiB through 64 MiB of cache of which 16 may be dirty */
	for (unsigned i = 0; i < 160; i++) {
		pattern(buf, 1 << 20, i);
		must_write(d, buf, 1 << 20, (uint64_t)i << 20);
		cfs_data_stat(&fake.clients[0], &st);
		assert_true(st.dirty_bytes <= 17 * CFS_MIB);
		assert_true(st.cached_bytes <= (64 + 16 + 5) * CFS_MIB);
	}
	assert_int_equal(cfs_data_fsync(d), 0);
	for (unsigned i = 0; i < 160; i++) {
		pattern(buf, 1 << 20, i);
		assert_int_equal(cfs_data_read(d, out, 1 << 20, (uint64_t)i << 20), 1 << 20);
		assert_memory_equal(buf, out, 1 << 20);
	}
	cfs_data_put(d);
	free(buf);
	free(out);
}

/* what is written in sequence goes out long before flush_ms, in whole objects, and is not kept; the rest by fsync */
static void test_stream(void **state)
{
	struct cfs_data_params p = params;
	struct cfs_data *d;
	uint32_t len = (30 << 20) + 12345;
	unsigned char *buf = malloc(len);
	struct cfs_data_stat st;

	(void)state;
	p.cache_bytes = 256 * CFS_MIB;
	p.dirty_bytes = 64 * CFS_MIB;	/* never short of room */
	fake_start(2, &p);
	d = fake_get(2, 1);
	pattern(buf, len, 1);
	for (uint32_t off = 0; off < len; off += 100000)
		must_write(d, buf + off, cfs_min(100000u, len - off), off);
	for (bool busy = true; busy; usleep(10000)) {
		pthread_mutex_lock(&d->lock);
		busy = d->flushing || d->streaming;
		pthread_mutex_unlock(&d->lock);
	}
	assert_true(fake_file(1)->n_ext);
	assert_int_equal(fake_file(1)->size % CFS_OBJECT_MAX, 0);
	for (unsigned i = 0; i < fake_file(1)->n_ext; i++)
		assert_int_equal(cfs_le32_to_cpu(fake_file(1)->ext[i].len), CFS_OBJECT_MAX);
	cfs_data_stat(&fake.clients[2], &st);
	assert_int_equal(st.cached_bytes, st.dirty_bytes);
	assert_int_equal(st.dirty_bytes, len - fake_file(1)->size);
	must_write(d, "again", 5, 5000000);	/* in what is gone from the cache */
	memcpy(buf + 5000000, "again", 5);
	assert_int_equal(cfs_data_fsync(d), 0);
	assert_int_equal(fake_file(1)->size, len);
	for (uint32_t off = 0; off < len; off += 1 << 20)
		must_read(d, buf + off, cfs_min(1u << 20, len - off), off);
	cfs_data_put(d);
	fake_stop(2, 0);
	free(buf);
}

/* more than the buffers hold goes out in one piece, as they are used again; an object that fails meanwhile is written elsewhere */
static void test_long(void **state)
{
	struct cfs_data_params p = params;
	uint32_t len = (90 << 20) + 777;
	unsigned char *buf = malloc(len);

	(void)state;
	p.cache_bytes = 256 * CFS_MIB;
	p.dirty_bytes = 256 * CFS_MIB;
	fake_start(2, &p);
	for (unsigned round = 0; round < 2; round++) {
		struct cfs_data *d = fake_get(2, round + 1);
		uint64_t commits = fake_count(&fake.n_commit);

		fake.write_fails_pct = round ? 20 : 0;
		pattern(buf, len, round);
		for (uint32_t off = 0; off < len; off += 1 << 20)
			must_write(d, buf + off, cfs_min(1u << 20, len - off), off);
		assert_int_equal(cfs_data_fsync(d), 0);
		fake.write_fails_pct = 0;
		assert_int_equal(fake_file(round + 1)->size, len);
		assert_true(fake_count(&fake.n_commit) > commits);
		cfs_data_evict(d->g, 0, 0);
		cfs_data_evict(d->g, 0, 0);
		for (uint32_t off = 0; off < len; off += 1 << 20)
			must_read(d, buf + off, cfs_min(1u << 20, len - off), off);
		cfs_data_put(d);
	}
	fake_stop(2, 0);
	free(buf);
}

static void test_background(void **state)
{
	struct cfs_data_params p = params;
	struct cfs_data *d;

	(void)state;
	p.flush_ms = 30;
	fake_start(2, &p);
	d = fake_get(2, 1);
	must_write(d, "by itself", 9, 0);
	for (unsigned i = 0; i < 200 && !fake_count(&fake.n_commit); i++)
		usleep(10000);
	assert_int_equal(fake.n_commit, 1);
	cfs_data_put(d);
	fake_stop(2, 0);
	assert_memory_equal(fake_file(1)->bytes, "by itself", 9);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_one_request_fsync), T(test_many_small), T(test_outgrow_inline), T(test_objects), T(test_scattered),
		T(test_rot), T(test_target_down), T(test_hole), T(test_handover), T(test_drop_under_way), T(test_through_meets_recall),
		T(test_grant_and_break),
		T(test_idle_and_reclaim), T(test_truncate_local), T(test_times), T(test_nospace), T(test_session_lost),
		T(test_deleted), T(test_limits), T(test_stream), T(test_long), T(test_background), T(test_random), T(test_random_far),
		T(test_random_faults),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
