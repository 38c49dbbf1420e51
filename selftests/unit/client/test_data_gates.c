/* SPDX-License-Identifier: MIT */
/*
 * test_data_gates.c - proves that two clients whose files go through gates show no old bytes, lose none, and do not deadlock. The kernel's
 * part is a small model of the module claudefs_gate (bpf/kmod/claudefs_gate.h): who reads or writes enters the gate, touches the cache
 * file by a descriptor of its own, and waits where the gate is shut. Writers of a page take turns and write growing stamps; whoever reads
 * must see at least the last stamp that was complete when he began. Meanwhile others sync, evict, ask for attributes and change the size.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "selftests/unit/client/fake_server.h"

#include "bpf/kmod/claudefs_gate.h"
#include "client/data_i.h"

#include <sys/stat.h>

#define CLIENTS		2
#define FILES		3
#define PAGES		8
#define PAGE		4096u
#define GATES		16

/* one gate; the module's lock of those inside is a count here */
static struct gate {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool used;
	int fd;				/* the real file */
	uint64_t ino;
	struct kernel *k;
	unsigned mode, inside, shutting;
	uint64_t budget, written;
	uint32_t ev;
	uint64_t fails;
	struct cfs_gate_taken taken;
} gates[GATES];

static struct kernel {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct cfs_data *d[FILES];
	struct gate *gate[FILES];
	bool ends;
} kernels[CLIENTS];

#include "selftests/unit/client/stamps.h"

static const uint64_t base_of[FILES] = { 0, 3 * PAGE, 1 << 20 };
static uint64_t n_opens, n_shuts;

static uint64_t page_off(unsigned f, unsigned p)
{
	return base_of[f] + p * PAGE;
}

/* ---- the module ---------------------------------------------------------------------------------- */
static void tell(struct gate *g, uint32_t what)
{
	pthread_mutex_lock(&g->k->lock);
	g->ev |= what;
	pthread_cond_broadcast(&g->k->cond);
	pthread_mutex_unlock(&g->k->lock);
}

static bool may_enter(const struct gate *g, unsigned mode)
{
	return !g->shutting && g->mode >= mode && (mode < CFS_GATE_WRITE || !g->budget || g->written < g->budget);
}

static void enter(struct gate *g, unsigned mode)
{
	pthread_mutex_lock(&g->lock);
	while (!may_enter(g, mode)) {
		/* what is only taken opens again by itself */
		if (!g->shutting)
			tell(g, mode == CFS_GATE_WRITE ? CFS_GATE_WANT_WRITE : CFS_GATE_WANT_READ);
		pthread_cond_wait(&g->cond, &g->lock);
	}
	g->inside++;
	pthread_mutex_unlock(&g->lock);
}

static void leave(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	g->inside--;
	pthread_cond_broadcast(&g->cond);
	pthread_mutex_unlock(&g->lock);
}

static void record(struct gate *g, uint64_t off, uint64_t end)
{
	struct cfs_gate_taken *t = &g->taken;
	bool first;

	pthread_mutex_lock(&g->lock);
	first = !t->n;
	t->mtime = 1;
	g->written += end - off;
	if (t->n == CFS_GATE_RANGES_MAX) {	/* one that covers all */
		t->range[0].off = cfs_min(t->range[0].off, off);
		for (uint32_t i = 1; i < t->n; i++) {
			t->range[0].off = cfs_min(t->range[0].off, t->range[i].off);
			t->range[0].end = cfs_max(t->range[0].end, t->range[i].end);
		}
		t->range[0].end = cfs_max(t->range[0].end, end);
		t->n = 1;
	} else {
		t->range[t->n++] = (struct cfs_gate_range){ off, end };
	}
	pthread_mutex_unlock(&g->lock);
	if (first)
		tell(g, CFS_GATE_WRITTEN);
}

static bool fits(void *arg, int flags, const struct cfs_attr *attr, uint64_t size, uint64_t heat, bool cached)
{
	(void)arg, (void)flags, (void)attr, (void)size, (void)heat, (void)cached;
	return true;
}

static int make(void *arg, int fd, uint64_t ino, int *ret_gate, int32_t *ret_id)
{
	int i = 0;

	while (i < GATES && __atomic_exchange_n(&gates[i].used, true, __ATOMIC_SEQ_CST))
		i++;
	if (i == GATES)
		return -ENOSPC;
	gates[i] = (struct gate){ .used = true, .fd = dup(fd), .ino = ino, .k = arg };
	pthread_mutex_init(&gates[i].lock, NULL);
	pthread_cond_init(&gates[i].cond, NULL);
	*ret_gate = i;
	*ret_id = i + 1;
	return 0;
}

static void unmake(void *arg, int gate, int32_t id)
{
	(void)arg, (void)id;
	close(gates[gate].fd);
	__atomic_store_n(&gates[gate].used, false, __ATOMIC_SEQ_CST);
}

static int ask(int gate, unsigned long what, void *p)
{
	struct gate *g = &gates[gate];
	struct cfs_gate_taken *t = p;
	const struct cfs_gate_open *o = p;
	struct stat st;

	pthread_mutex_lock(&g->lock);
	switch (what) {
	case CFS_GATE_OPEN:
		g->budget = o->budget;
		g->mode = o->mode;
		__atomic_add_fetch(&n_opens, 1, __ATOMIC_RELAXED);
		break;
	case CFS_GATE_CLOSE:
	case CFS_GATE_TAKE:
		g->shutting++;
		while (g->inside)
			pthread_cond_wait(&g->cond, &g->lock);
		g->shutting--;
		if (what == CFS_GATE_CLOSE)
			g->mode = CFS_GATE_SHUT;
		fstat(g->fd, &st);
		*t = g->taken;
		t->size = (uint64_t)st.st_size;
		g->taken = (struct cfs_gate_taken){ .n = 0 };
		g->written = 0;
		__atomic_add_fetch(&n_shuts, what == CFS_GATE_CLOSE, __ATOMIC_RELAXED);
		break;
	case CFS_GATE_FAIL:
		FAKE_FATAL("a gate cannot be opened: %d", *(int32_t *)p);
	case CFS_GATE_MAPPINGS:
		*(uint32_t *)p = 0;
		break;
	}
	pthread_cond_broadcast(&g->cond);
	pthread_mutex_unlock(&g->lock);
	return 0;
}

static const struct cfs_data_gate_ops ops = { .fits = fits, .make = make, .unmake = unmake, .ask = ask };

/* two of them for each client: one may have to wait for what the other does */
static void *events(void *arg)
{
	struct kernel *k = arg;

	pthread_mutex_lock(&k->lock);
	while (!k->ends) {
		struct gate *g = NULL;
		uint32_t what = 0;

		for (unsigned f = 0; f < FILES && !what; f++) {
			g = k->gate[f];
			what = g ? g->ev : 0;
		}
		if (!what) {
			pthread_cond_wait(&k->cond, &k->lock);
			continue;
		}
		g->ev = 0;
		pthread_mutex_unlock(&k->lock);
		cfs_data_gate_event(k->d[g->ino - 1], what);
		pthread_mutex_lock(&k->lock);
	}
	pthread_mutex_unlock(&k->lock);
	return NULL;
}

/* ---- who uses the files ------------------------------------------------------------------------------ */
static uint64_t kernel_read(struct kernel *k, unsigned f, unsigned p)
{
	struct gate *g = k->gate[f];
	uint64_t word = 0;

	enter(g, CFS_GATE_READ);
	if (pread(g->fd, &word, sizeof(word), (off_t)page_off(f, p)) < 0)
		FAKE_FATAL("read");
	leave(g);
	__atomic_add_fetch(&n_reads, 1, __ATOMIC_RELAXED);
	return word;
}

static void kernel_write(struct kernel *k, unsigned f, unsigned p, uint64_t stamp)
{
	static __thread uint64_t buf[PAGE / 8];
	struct gate *g = k->gate[f];
	uint64_t off = page_off(f, p), len = PAGE - 8 * (fake_rand() % 500);

	for (unsigned i = 0; i < PAGE / 8; i++)
		buf[i] = stamp;
	enter(g, CFS_GATE_WRITE);
	if (pwrite(g->fd, buf, len, (off_t)off) != (ssize_t)len)
		FAKE_FATAL("write");
	record(g, off, off + len);
	leave(g);
	__atomic_add_fetch(&n_writes, 1, __ATOMIC_RELAXED);
}

static void *other(void *arg)
{
	struct kernel *k = arg;
	struct cfs_client *c = &fake.clients[k - kernels];

	while (!stopped()) {
		unsigned f = fake_rand() % FILES;
		struct cfs_data *d = k->d[f];
		struct cfs_attr attr;

		switch (fake_rand() % 6) {
		case 0:
			if (cfs_data_fsync(d))
				FAKE_FATAL("fsync");
			break;
		case 1:
			cfs_data_evict(cfs_data_ctx_of(c), 0, 0);
			break;
		case 2:
			if (cfs_data_setsize(d, page_off(f, PAGES) + fake_rand() % (4 * PAGE), false, &attr))
				FAKE_FATAL("truncate");
			break;
		case 3:
			cfs_data_changed(d, page_off(f, PAGES), 0, NULL);
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

static bool enough(void)
{
	return __atomic_load_n(&n_writes, __ATOMIC_RELAXED) > 50 && __atomic_load_n(&fake.n_break, __ATOMIC_RELAXED) > 50 &&
	       __atomic_load_n(&n_shuts, __ATOMIC_RELAXED) > 50;
}

static void begin(unsigned refuse_pct, unsigned delay_us)
{
	struct cfs_data_params params = {
		.cache_bytes = 32 * CFS_MIB, .dirty_bytes = 8 * CFS_MIB, .flush_ms = 20, .gates = &ops,
	};
	struct cfs_attr attr = { .ino = 0 };

	fake_reset();
	fake.refuse_pct = refuse_pct;
	fake.delay_us = delay_us;
	memset(kernels, 0, sizeof(kernels));
	stamps_reset();
	n_opens = n_shuts = 0;
	for (unsigned c = 0; c < CLIENTS; c++) {
		struct kernel *k = &kernels[c];

		pthread_mutex_init(&k->lock, NULL);
		pthread_cond_init(&k->cond, NULL);
		params.arg = k;
		fake_start(c, &params);
		for (unsigned f = 0; f < FILES; f++) {
			int32_t id = 0;

			k->d[f] = fake_get(c, f + 1);
			/* a lease that is taken away at once gives none */
			while (!id) {
				assert_int_equal(cfs_data_open(k->d[f], 0), 0);
				id = cfs_data_gate_begin(k->d[f], 0, &attr);
				if (!id)
					cfs_data_release(k->d[f], 0);
			}
			pthread_mutex_lock(&k->lock);
			k->gate[f] = &gates[id - 1];
			pthread_mutex_unlock(&k->lock);
		}
	}
}

static void end(void)
{
	for (unsigned c = 0; c < CLIENTS; c++) {
		for (unsigned f = 0; f < FILES; f++) {
			cfs_data_gate_end(kernels[c].d[f]);
			cfs_data_release(kernels[c].d[f], 0);
			cfs_data_put(kernels[c].d[f]);
		}
		fake_stop(c, 0);
	}
	for (unsigned i = 0; i < GATES; i++)
		assert_false(gates[i].used);
	fake_reset();
}

static void run(unsigned refuse_pct, unsigned delay_us)
{
	void *(*const fn[])(void *) = { reader, reader, writer, writer, other, events, events };
	pthread_t t[CLIENTS][CFS_ARRAY_SIZE(fn)];

	begin(refuse_pct, delay_us);
	for (unsigned c = 0; c < CLIENTS; c++)
		for (unsigned i = 0; i < CFS_ARRAY_SIZE(fn); i++)
			assert_int_equal(pthread_create(&t[c][i], NULL, fn[i], &kernels[c]), 0);
	watch(enough, 20000);
	for (unsigned c = 0; c < CLIENTS; c++)
		for (unsigned i = 0; i < CFS_ARRAY_SIZE(fn) - 2; i++)
			pthread_join(t[c][i], NULL);
	print_message("%llu reads, %llu writes, %llu breaks, %llu OPENs, %llu COMMITs; gates opened %llu times, shut %llu times\n",
		      (unsigned long long)n_reads, (unsigned long long)n_writes, (unsigned long long)fake.n_break,
		      (unsigned long long)fake.n_open, (unsigned long long)fake.n_commit, (unsigned long long)n_opens,
		      (unsigned long long)n_shuts);
	assert_true(enough());
	check_stamps(CLIENTS);
	for (unsigned c = 0; c < CLIENTS; c++) {
		pthread_mutex_lock(&kernels[c].lock);
		kernels[c].ends = true;
		pthread_cond_broadcast(&kernels[c].cond);
		pthread_mutex_unlock(&kernels[c].lock);
		for (unsigned i = CFS_ARRAY_SIZE(fn) - 2; i < CFS_ARRAY_SIZE(fn); i++)
			pthread_join(t[c][i], NULL);
	}
	end();
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
