/* SPDX-License-Identifier: MIT */
/*
 * stamps.h - what the tests of several clients under load have in common. Writers of a page take turns and write growing stamps;
 * whoever reads must see at least the last stamp that was complete when he began, and none that was not begun when he ended.
 * Who includes it has defined FILES, PAGES, struct kernel and kernels[], after fake_server.h, and defines the two functions
 * by which a client's kernel reads and writes; a write is counted in n_writes.
 */
#ifndef CFS_SELFTESTS_UNIT_CLIENT_STAMPS_H
#define CFS_SELFTESTS_UNIT_CLIENT_STAMPS_H

#include "selftests/unit/client/fake_server.h"

#define RUN_MS		2500u
#define LONG_MS		60000u	/* at most, on a machine that is busy */

static struct stamp {
	pthread_mutex_t turn;
	uint64_t begun, done;		/* atomic */
} stamps[FILES][PAGES];

static bool stop;
static uint64_t n_reads, n_writes;

/* the first word of a page; all of it, or its beginning, is written over with the stamp */
static uint64_t kernel_read(struct kernel *k, unsigned f, unsigned p);
static void kernel_write(struct kernel *k, unsigned f, unsigned p, uint64_t stamp);

static void stamps_reset(void)
{
	memset(stamps, 0, sizeof(stamps));
	stop = false;
	n_reads = n_writes = 0;
	for (unsigned f = 0; f < FILES; f++)
		for (unsigned p = 0; p < PAGES; p++)
			pthread_mutex_init(&stamps[f][p].turn, NULL);
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

/*
 * For RUN_MS, or until there was enough; a deadlock must not look like a slow machine: nothing moves for still_ms, and the test says so.
 * Then nobody begins anything any more.
 */
static void watch(bool (*enough)(void), unsigned still_ms)
{
	uint64_t before = 0;

	for (unsigned ms = 0, still = 0; ms < RUN_MS || still || (ms < LONG_MS && !enough()); ms += 50) {
		uint64_t now = __atomic_load_n(&n_writes, __ATOMIC_RELAXED);

		usleep(50000);
		still = now == before ? still + 50 : 0;
		before = now;
		if (still > still_ms)
			FAKE_FATAL("no write gets through");
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
}

/* every client sees the last stamps */
static void check_stamps(unsigned clients)
{
	for (unsigned c = 0; c < clients; c++)
		for (unsigned f = 0; f < FILES; f++)
			for (unsigned p = 0; p < PAGES; p++)
				assert_int_equal(kernel_read(&kernels[c], f, p), stamps[f][p].done);
}

#endif
