/* SPDX-License-Identifier: MIT */
/*
 * test_data_threads.c - proves that two clients under load neither deadlock nor show old bytes. Each client has a small
 * model of the kernel's page cache above cfs_data: pages are locked while a READ or WRITE is under way, hits ask
 * nobody, and an invalidation waits for page locks, as NOTIFY_INVAL_INODE does. Writers of a page take turns and write
 * growing stamps; whoever reads must see at least the last stamp that was complete when he began. In one run the files are
 * contended now and then, so that writes go through, pages of the kernel's and all. Run under TSan, too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "selftests/unit/client/fake_server.h"

#include "base/log.h"
#include "client/data_i.h"

#define CLIENTS		2
#define FILES		3
#define PAGES		8
#define PAGE		4096u

struct page {
	pthread_mutex_t bytes_lock;	/* of this struct; not to be held across anything */
	pthread_cond_t cond;
	bool locked;			/* the page lock: a bit, as in the kernel */
	bool uptodate;
	uint64_t bytes[PAGE / 8];
};

static struct kernel {
	struct page pages[FILES][PAGES];
	pthread_mutex_t inode_lock[FILES];	/* i_rwsem: one write at a time */
	struct cfs_data *d[FILES];
} kernels[CLIENTS];

#include "selftests/unit/client/stamps.h"

/* file 2 is so large that its pages are in a cache file and in objects, the others fit into memory */
static const uint64_t base_of[FILES] = { 0, 3000ull * 4, 1 << 20 };
static bool contended;		/* this run's files are, now and then */
static uint64_t n_hits;

static uint64_t page_off(unsigned f, unsigned p)
{
	return base_of[f] / PAGE * PAGE + p * PAGE;
}

static void page_lock(struct page *pg)
{
	pthread_mutex_lock(&pg->bytes_lock);
	while (pg->locked)
		pthread_cond_wait(&pg->cond, &pg->bytes_lock);
	pg->locked = true;
	pthread_mutex_unlock(&pg->bytes_lock);
}

static void page_unlock(struct page *pg)
{
	pthread_mutex_lock(&pg->bytes_lock);
	pg->locked = false;
	pthread_cond_broadcast(&pg->cond);
	pthread_mutex_unlock(&pg->bytes_lock);
}

static void inval(void *arg, uint64_t ino, int64_t off, int64_t len)
{
	struct kernel *k = arg;
	uint64_t from = (uint64_t)off, to = len ? (uint64_t)(off + len) : UINT64_MAX;

	if (off < 0)	/* attributes */
		return;
	for (unsigned p = 0; p < PAGES; p++) {
		struct page *pg = &k->pages[ino - 1][p];
		uint64_t at = page_off((unsigned)ino - 1, p);

		if (at + PAGE <= from || at >= to)
			continue;
		page_lock(pg);
		pthread_mutex_lock(&pg->bytes_lock);
		pg->uptodate = false;
		pthread_mutex_unlock(&pg->bytes_lock);
		page_unlock(pg);
	}
}

static bool page_hit(struct page *pg, uint64_t *buf)
{
	bool hit;

	pthread_mutex_lock(&pg->bytes_lock);
	hit = pg->uptodate;
	if (hit)
		memcpy(buf, pg->bytes, PAGE);
	pthread_mutex_unlock(&pg->bytes_lock);
	return hit;
}

static void page_fill(struct page *pg, const uint64_t *buf, bool only_uptodate)
{
	pthread_mutex_lock(&pg->bytes_lock);
	if (pg->uptodate || !only_uptodate) {
		memcpy(pg->bytes, buf, PAGE);
		pg->uptodate = true;
	}
	pthread_mutex_unlock(&pg->bytes_lock);
}

static uint64_t kernel_read(struct kernel *k, unsigned f, unsigned p)
{
	struct page *pg = &k->pages[f][p];
	static __thread uint64_t buf[PAGE / 8];
	int64_t rc;

	__atomic_add_fetch(&n_reads, 1, __ATOMIC_RELAXED);
	if (page_hit(pg, buf)) {
		__atomic_add_fetch(&n_hits, 1, __ATOMIC_RELAXED);
		return buf[0];
	}
	page_lock(pg);
	if (!page_hit(pg, buf)) {
		memset(buf, 0, sizeof(buf));
		rc = cfs_data_read(k->d[f], buf, PAGE, page_off(f, p));
		if (rc < 0)
			FAKE_FATAL("read: %lld", (long long)rc);
		page_fill(pg, buf, false);
	}
	page_unlock(pg);
	return buf[0];
}

static void kernel_write(struct kernel *k, unsigned f, unsigned p, uint64_t stamp)
{
	struct page *pg = &k->pages[f][p];
	static __thread uint64_t buf[PAGE / 8];
	uint64_t len = PAGE;
	bool part;

	for (unsigned i = 0; i < PAGE / 8; i++)
		buf[i] = stamp;
	pthread_mutex_lock(&k->inode_lock[f]);
	page_lock(pg);
	/* a write of less than the page leaves one that was not there as it is, and locked; else it is let go before the WRITE */
	part = fake_rand() % 2;
	if (part)
		len -= 8 * (1 + fake_rand() % 500);
	page_fill(pg, buf, part);
	part = part && !page_hit(pg, buf);
	if (!part)
		page_unlock(pg);
	if (fake_rand() % 8 == 0)
		usleep(fake_rand() % 2000);
	if (cfs_data_write(k->d[f], buf, len, page_off(f, p), 0) != (int64_t)len)
		FAKE_FATAL("write");
	if (part)
		page_unlock(pg);
	pthread_mutex_unlock(&k->inode_lock[f]);
	__atomic_add_fetch(&n_writes, 1, __ATOMIC_RELAXED);
}

static void *other(void *arg)
{
	struct kernel *k = arg;
	struct cfs_client *c = &fake.clients[k - kernels];

	while (!stopped()) {
		struct cfs_data *d = k->d[fake_rand() % FILES];
		struct cfs_attr attr;

		switch (fake_rand() % 5) {
		case 0:
			if (cfs_data_fsync(d))
				FAKE_FATAL("fsync");
			break;
		case 1:
			cfs_data_evict(cfs_data_ctx_of(c), 0, 0);
			break;
		case 2:
			cfs_data_idle(c, 0);
			break;
		case 3:
			if (cfs_data_open(d, 0))
				FAKE_FATAL("open");
			cfs_data_release(d, 0);
			break;
		default:
			memset(&attr, 0, sizeof(attr));
			cfs_data_reply_begin(d);
			cfs_data_attr(d, &attr);
			cfs_data_reply_end(d);
		}
		if (fake.may_through && fake_rand() % 8 == 0) {
			pthread_mutex_lock(&fake.lock);
			fake_file(cfs_data_ino(d))->contended = fake_rand() % 4;
			pthread_mutex_unlock(&fake.lock);
		}
		usleep(fake_rand() % 5000);
	}
	return NULL;
}

/* has each thing that a run is to prove happened often enough? */
static bool enough(void)
{
	return __atomic_load_n(&n_writes, __ATOMIC_RELAXED) > 50 && __atomic_load_n(&fake.n_break, __ATOMIC_RELAXED) > 50 &&
	       (!contended || __atomic_load_n(&fake.n_through, __ATOMIC_RELAXED) > 10);
}

static void run(unsigned refuse_pct, unsigned delay_us, bool through)
{
	void *(*const fn[])(void *) = { reader, reader, writer, writer, other };
	pthread_t t[CLIENTS][CFS_ARRAY_SIZE(fn)];
	struct cfs_data_params params = {
		.cache_bytes = 32 * CFS_MIB, .dirty_bytes = 8 * CFS_MIB, .flush_ms = 20, .inval_pages = inval,
	};

	fake_reset();
	fake.refuse_pct = refuse_pct;
	fake.delay_us = delay_us;
	fake.may_through = contended = through;
	memset(kernels, 0, sizeof(kernels));
	stamps_reset();
	n_hits = 0;
	for (unsigned c = 0; c < CLIENTS; c++) {
		params.arg = &kernels[c];
		fake_start(c, &params);
		for (unsigned f = 0; f < FILES; f++) {
			pthread_mutex_init(&kernels[c].inode_lock[f], NULL);
			for (unsigned p = 0; p < PAGES; p++) {
				pthread_mutex_init(&kernels[c].pages[f][p].bytes_lock, NULL);
				pthread_cond_init(&kernels[c].pages[f][p].cond, NULL);
			}
			kernels[c].d[f] = fake_get(c, f + 1);
		}
	}
	for (unsigned c = 0; c < CLIENTS; c++)
		for (unsigned i = 0; i < CFS_ARRAY_SIZE(fn); i++)
			assert_int_equal(pthread_create(&t[c][i], NULL, fn[i], &kernels[c]), 0);
	watch(enough, 60000);
	for (unsigned c = 0; c < CLIENTS; c++)
		for (unsigned i = 0; i < CFS_ARRAY_SIZE(fn); i++)
			pthread_join(t[c][i], NULL);
	print_message("%llu reads (%llu in the page cache), %llu writes, %llu breaks, %llu OPENs, %llu COMMITs, %llu through\n",
		      (unsigned long long)n_reads, (unsigned long long)n_hits, (unsigned long long)n_writes,
		      (unsigned long long)fake.n_break, (unsigned long long)fake.n_open, (unsigned long long)fake.n_commit,
		      (unsigned long long)fake.n_through);
	assert_true(n_hits > 50 && enough());
	assert_true(contended || !fake.n_through);
	check_stamps(CLIENTS);
	for (unsigned c = 0; c < CLIENTS; c++) {
		for (unsigned f = 0; f < FILES; f++)
			cfs_data_put(kernels[c].d[f]);
		fake_stop(c, 0);
	}
	fake_reset();
}

static void test_coherent(void **state)
{
	(void)state;
	run(0, 300, false);
}

static void test_coherent_slow(void **state)
{
	(void)state;
	run(5, 3000, false);
}

static void test_coherent_through(void **state)
{
	(void)state;
	run(0, 300, true);
	run(5, 3000, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_coherent),
		cmocka_unit_test(test_coherent_slow),
		cmocka_unit_test(test_coherent_through),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
