/* SPDX-License-Identifier: MIT */
/*
 * test_data_threads.c - proves that two clients under load neither deadlock nor show old bytes. Each client has a small
 * model of the kernel's page cache above cfs_data: pages are locked while a READ or WRITE is under way, hits ask
 * nobody, and an invalidation waits for page locks, as NOTIFY_INVAL_INODE does. Writers of a page take turns and write
 * growing stamps; whoever reads must see at least the last stamp that was complete when he began. Run under TSan, too.
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
#define RUN_MS		2500u

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

static struct stamp {
	pthread_mutex_t turn;
	uint64_t begun, done;		/* atomic */
} stamps[FILES][PAGES];

/* file 2 is so large that its pages are in a cache file and in objects, the others fit into memory */
static const uint64_t base_of[FILES] = { 0, 3000ull * 4, 1 << 20 };
static bool stop;
static uint64_t n_reads, n_hits, n_writes;

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
	bool part;

	for (unsigned i = 0; i < PAGE / 8; i++)
		buf[i] = stamp;
	pthread_mutex_lock(&k->inode_lock[f]);
	page_lock(pg);
	/* a write of less than the page leaves one that was not there as it is, and locked; else it is let go before the WRITE */
	part = fake_rand() % 2;
	page_fill(pg, buf, part);
	part = part && !page_hit(pg, buf);
	if (!part)
		page_unlock(pg);
	if (fake_rand() % 8 == 0)
		usleep(fake_rand() % 2000);
	if (cfs_data_write(k->d[f], buf, PAGE, page_off(f, p), 0) != PAGE)
		FAKE_FATAL("write");
	if (part)
		page_unlock(pg);
	pthread_mutex_unlock(&k->inode_lock[f]);
	__atomic_add_fetch(&n_writes, 1, __ATOMIC_RELAXED);
}

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_RELAXED);
}

static void *reader(void *arg)
{
	struct kernel *k = arg;

	while (!stopped()) {
		unsigned f = fake_rand() % FILES, p = fake_rand() % PAGES;
		struct stamp *s = &stamps[f][p];
		uint64_t least = __atomic_load_n(&s->done, __ATOMIC_SEQ_CST), seen = kernel_read(k, f, p), most;

		most = __atomic_load_n(&s->begun, __ATOMIC_SEQ_CST);
		if (seen < least || seen > most)
			FAKE_FATAL("client %u, file %u, page %u: read %llu, not %llu to %llu", (unsigned)(k - kernels), f, p,
				   (unsigned long long)seen, (unsigned long long)least, (unsigned long long)most);
	}
	return NULL;
}

static void *writer(void *arg)
{
	struct kernel *k = arg;

	while (!stopped()) {
		unsigned f = fake_rand() % FILES, p = fake_rand() % PAGES;
		struct stamp *s = &stamps[f][p];
		uint64_t stamp;

		pthread_mutex_lock(&s->turn);
		stamp = __atomic_add_fetch(&s->begun, 1, __ATOMIC_SEQ_CST);
		kernel_write(k, f, p, stamp);
		__atomic_store_n(&s->done, stamp, __ATOMIC_SEQ_CST);
		pthread_mutex_unlock(&s->turn);
		if (fake_rand() % 4 == 0)
			usleep(fake_rand() % 3000);
	}
	return NULL;
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
		usleep(fake_rand() % 5000);
	}
	return NULL;
}

/* a deadlock must not look like a slow machine: nothing moves, and the test says so */
static void watch(void)
{
	uint64_t before = 0;

	for (unsigned ms = 0, still = 0; ms < RUN_MS; ms += 50) {
		uint64_t now = __atomic_load_n(&n_writes, __ATOMIC_RELAXED);

		usleep(50000);
		still = now == before ? still + 50 : 0;
		before = now;
		if (still > 20000)
			FAKE_FATAL("no write gets through");
		if (still && ms + 50 >= RUN_MS)
			ms -= 50;	/* until it moves */
	}
}

static void run(unsigned refuse_pct, unsigned delay_us)
{
	void *(*const fn[])(void *) = { reader, reader, writer, writer, other };
	pthread_t t[CLIENTS][CFS_ARRAY_SIZE(fn)];
	struct cfs_data_params params = {
		.cache_bytes = 32 * CFS_MIB, .dirty_bytes = 8 * CFS_MIB, .flush_ms = 20, .inval_pages = inval,
	};

	fake_reset();
	fake.refuse_pct = refuse_pct;
	fake.delay_us = delay_us;
	memset(kernels, 0, sizeof(kernels));
	memset(stamps, 0, sizeof(stamps));
	stop = false;
	n_reads = n_hits = n_writes = 0;
	for (unsigned f = 0; f < FILES; f++)
		for (unsigned p = 0; p < PAGES; p++)
			pthread_mutex_init(&stamps[f][p].turn, NULL);
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
	watch();
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (unsigned c = 0; c < CLIENTS; c++)
		for (unsigned i = 0; i < CFS_ARRAY_SIZE(fn); i++)
			pthread_join(t[c][i], NULL);
	print_message("%llu reads (%llu in the page cache), %llu writes, %llu breaks, %llu OPENs, %llu COMMITs\n",
		      (unsigned long long)n_reads, (unsigned long long)n_hits, (unsigned long long)n_writes,
		      (unsigned long long)fake.n_break, (unsigned long long)fake.n_open, (unsigned long long)fake.n_commit);
	assert_true(n_writes > 50 && n_hits > 50 && fake.n_break > 50);
	for (unsigned c = 0; c < CLIENTS; c++)
		for (unsigned f = 0; f < FILES; f++)
			for (unsigned p = 0; p < PAGES; p++)
				assert_int_equal(kernel_read(&kernels[c], f, p), stamps[f][p].done);
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
	run(0, 300);
}

static void test_coherent_slow(void **state)
{
	(void)state;
	run(5, 3000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_coherent),
		cmocka_unit_test(test_coherent_slow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
