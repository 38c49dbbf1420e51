// SPDX-License-Identifier: MIT
/*
 * gates.c DIR [CHECK]...: the module claudefs_gate by itself, without FUSE: gates over files of DIR, which is on an ordinary file
 * system. What must hold: while a gate is shut nothing gets through it, in either direction; all that was written is
 * told; nobody can keep a gate from being shut. $SECONDS_LONG: how long the one that streams takes. TAP.
 */
#include "prog.h"

#include "bpf/kmod/claudefs_gate.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define PAGE	4096u
#define PAGES	64u
#define SOON_MS	3000

static int dev, file, gate;

static uint64_t boot_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void deadline(uint64_t ns)
{
	OK(ioctl(dev, CFS_GATE_DEADLINE, &ns));
}

static int gate_over(const char *name, uint64_t cookie, int *ret_file)
{
	struct cfs_gate_new n = { .cookie = cookie };
	char byte = 0;

	*ret_file = n.fd = (int)OK(open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	for (unsigned i = 0; i < PAGES; i++)
		OK(pwrite(n.fd, &byte, 1, (i + 1) * PAGE - 1));
	return (int)OK(ioctl(dev, CFS_GATE_NEW, &n));
}

static void begin(void)
{
	uint32_t abi = 0;

	dev = (int)OK(open(CFS_GATE_DEVICE, O_RDWR | O_CLOEXEC));
	OK(ioctl(dev, CFS_GATE_ABI, &abi));
	IS(abi, CFS_GATE_ABI_NOW);
	gate = gate_over("file", 7, &file);
	deadline(boot_ns() + 600000000000ull);
}

static void gate_open(int fd, unsigned mode, uint64_t budget)
{
	struct cfs_gate_open o = { .mode = mode, .budget = budget };

	OK(ioctl(fd, CFS_GATE_OPEN, &o));
}

static struct cfs_gate_taken gate_take(int fd, bool shut)
{
	struct cfs_gate_taken t;

	OK(ioctl(fd, shut ? CFS_GATE_CLOSE : CFS_GATE_TAKE, &t));
	return t;
}

/* the next events of the gate, `what` among them, within some time */
static void expect_event(unsigned what)
{
	struct pollfd p = { .fd = dev, .events = POLLIN };
	struct cfs_gate_event ev = { 0 };

	for (unsigned seen = 0; !(seen & what); seen |= ev.what) {
		IS(poll(&p, 1, SOON_MS), 1);
		IS(read(dev, &ev, sizeof(ev)), sizeof(ev));
		IS(ev.cookie, 7);
	}
}

static char *map(int fd, int prot)
{
	char *p = mmap(NULL, PAGES * PAGE, prot, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	return p;
}

/* ---- something that may have to wait, done by a thread of its own ------------------------------- */
struct later {
	pthread_t thread;
	void (*fn)(struct later *l);
	int fd;
	char *mem;
	long result;
	int err;
	bool done;		/* atomic */
};

static void *later_main(void *arg)
{
	struct later *l = arg;

	l->fn(l);
	l->err = errno;
	__atomic_store_n(&l->done, true, __ATOMIC_SEQ_CST);
	return NULL;
}

static void later(struct later *l, void (*fn)(struct later *l), int fd, char *mem)
{
	*l = (struct later){ .fn = fn, .fd = fd, .mem = mem };
	IS(pthread_create(&l->thread, NULL, later_main, l), 0);
}

static bool is_done(struct later *l, int ms)
{
	for (int i = 0; i < ms && !__atomic_load_n(&l->done, __ATOMIC_SEQ_CST); i += 5)
		poll(NULL, 0, 5);
	return __atomic_load_n(&l->done, __ATOMIC_SEQ_CST);
}

static void waits(struct later *l)
{
	if (is_done(l, 200))
		die("it did not wait: result %ld", l->result);
}

static void ends(struct later *l)
{
	if (!is_done(l, SOON_MS))
		die("it still waits");
	pthread_join(l->thread, NULL);
}

static void do_read(struct later *l)
{
	l->result = pread(l->fd, l->mem ? l->mem : (char[1]){ 0 }, 1, 10);
}

static void do_write(struct later *l)
{
	l->result = pwrite(l->fd, "x", 1, 10);
}

static void do_write_sync(struct later *l)
{
	struct iovec v = { (void *)(uintptr_t)"s", 1 };

	l->result = pwritev2(l->fd, &v, 1, 20, RWF_DSYNC);
}

static void do_load(struct later *l)
{
	l->result = *(volatile char *)(l->mem + 10);
}

static void do_store(struct later *l)
{
	*(volatile char *)(l->mem + 2 * PAGE + 5) = 'm';
}

/* ---- one thing at a time --------------------------------------------------------------------------- */
CHECK(reads, "a read waits while the gate is shut, and says so")
{
	struct later l;
	char c;

	begin();
	later(&l, do_read, gate, NULL);
	waits(&l);
	expect_event(CFS_GATE_WANT_READ);
	gate_open(gate, CFS_GATE_READ, 0);
	ends(&l);
	IS(l.result, 1);
	OK(pwrite(file, "z", 1, 30));
	IS(pread(gate, &c, 1, 30), 1);
	IS(c, 'z');
	IS(pread(gate, &c, 1, PAGES * PAGE), 0);
}

CHECK(writes, "a write waits for a gate that is open for writing; what was written is told, once")
{
	struct cfs_gate_taken t;
	struct later l;

	begin();
	gate_open(gate, CFS_GATE_READ, 0);
	later(&l, do_write, gate, NULL);
	waits(&l);
	expect_event(CFS_GATE_WANT_WRITE);
	gate_open(gate, CFS_GATE_WRITE, 0);
	ends(&l);
	IS(l.result, 1);
	expect_event(CFS_GATE_WRITTEN);
	IS(pwrite(gate, "abc", 3, 100000), 3);
	IS(pwrite(gate, "grown", 5, PAGES * PAGE + 10), 5);
	t = gate_take(gate, false);
	IS(t.n, 3);
	IS(t.range[0].off, 10);
	IS(t.range[0].end, 11);
	IS(t.range[1].off, 100000);
	IS(t.range[2].end, PAGES * PAGE + 15);
	IS(t.size, PAGES * PAGE + 15);
	EXPECT(t.mtime);
	IS(gate_take(gate, true).n, 0);
}

CHECK(many, "more ranges than there is room for: none is lost")
{
	bool written[4 * CFS_GATE_RANGES_MAX] = { false };
	struct cfs_gate_taken t;

	begin();
	gate_open(gate, CFS_GATE_WRITE, 0);
	srand(1);
	for (unsigned i = 0; i < 2 * CFS_GATE_RANGES_MAX; i++) {
		unsigned at = (unsigned)rand() % N_OF(written);

		written[at] = true;
		IS(pwrite(gate, "r", 1, at * 10), 1);
	}
	t = gate_take(gate, false);
	EXPECT(t.n <= CFS_GATE_RANGES_MAX);
	for (unsigned i = 0; i < N_OF(written); i++) {
		unsigned k;

		for (k = 0; k < t.n && !(t.range[k].off <= i * 10 && t.range[k].end > i * 10); k++)
			;
		EXPECT(!written[i] || k < t.n);
	}
	for (unsigned k = 1; k < t.n; k++)
		EXPECT(t.range[k - 1].end < t.range[k].off);
}

CHECK(budget, "beyond the budget writes wait until what was written is taken")
{
	struct later l;

	begin();
	gate_open(gate, CFS_GATE_WRITE, 2);
	IS(pwrite(gate, "12", 2, 0), 2);
	later(&l, do_write, gate, NULL);
	waits(&l);
	expect_event(CFS_GATE_WANT_WRITE);
	IS(gate_take(gate, false).n, 1);
	ends(&l);
	IS(l.result, 1);
}

CHECK(append, "O_APPEND on the gate's own offset; a write that is to be durable waits for the client")
{
	struct cfs_gate_synced s = { 0 };
	struct later l;

	begin();
	gate_open(gate, CFS_GATE_WRITE, 0);
	OK(fcntl(gate, F_SETFL, O_APPEND));
	IS(write(gate, "end", 3), 3);
	IS(gate_take(gate, false).range[0].off, PAGES * PAGE);
	OK(fcntl(gate, F_SETFL, 0));
	later(&l, do_write_sync, gate, NULL);
	expect_event(CFS_GATE_SYNC);
	waits(&l);
	s.sync = gate_take(gate, false).sync;
	OK(ioctl(gate, CFS_GATE_SYNCED, &s));
	ends(&l);
	IS(l.result, 1);
}

CHECK(loads, "a mapping: a load waits while the gate is shut, and sees what changed meanwhile")
{
	struct later l;
	char *p;

	begin();
	p = map(gate, PROT_READ);
	later(&l, do_load, gate, p);
	waits(&l);
	expect_event(CFS_GATE_WANT_READ);
	gate_open(gate, CFS_GATE_READ, 0);
	ends(&l);
	IS(l.result, 0);
	gate_take(gate, true);
	OK(pwrite(file, "n", 1, 10));
	later(&l, do_load, gate, p);
	waits(&l);
	gate_open(gate, CFS_GATE_READ, 0);
	ends(&l);
	IS(l.result, 'n');
}

CHECK(stores, "a mapping: a store waits for a gate that is open for writing; each is told after each taking")
{
	struct cfs_gate_taken t;
	struct later l;
	char *p, c;

	begin();
	p = map(gate, PROT_READ | PROT_WRITE);
	gate_open(gate, CFS_GATE_READ, 0);
	IS(p[2 * PAGE + 5], 0);
	later(&l, do_store, gate, p);
	waits(&l);
	expect_event(CFS_GATE_WANT_WRITE);
	gate_open(gate, CFS_GATE_WRITE, 0);
	ends(&l);
	expect_event(CFS_GATE_WRITTEN);
	for (int i = 0; i < 3; i++) {
		t = gate_take(gate, false);
		IS(t.n, 1);
		EXPECT(t.range[0].off <= 2 * PAGE && t.range[0].end >= 3 * PAGE);
		IS(gate_take(gate, false).n, 0);
		p[2 * PAGE + 7] = (char)('0' + i);
		IS(pread(file, &c, 1, 2 * PAGE + 7), 1);
		IS(c, '0' + i);
	}
	gate_open(gate, CFS_GATE_READ, 0);
	later(&l, do_store, gate, p);
	waits(&l);
	gate_open(gate, CFS_GATE_WRITE, 0);
	ends(&l);
	IS(gate_take(gate, true).n, 1);
}

static void do_msync(struct later *l)
{
	l->result = msync(l->mem, PAGES * PAGE, MS_SYNC);
}

CHECK(synced, "msync waits for the client; nothing goes around the gate by way of a mapping")
{
	struct cfs_gate_synced s = { .err = -EDQUOT };
	struct later l;
	char *p;

	begin();
	gate_open(gate, CFS_GATE_WRITE, 0);
	p = map(gate, PROT_READ | PROT_WRITE);
	p[5] = 'y';
	later(&l, do_msync, gate, p);
	expect_event(CFS_GATE_SYNC);
	waits(&l);
	s.sync = gate_take(gate, false).sync;
	OK(ioctl(gate, CFS_GATE_SYNCED, &s));
	ends(&l);
	IS(l.result, -1);
	IS(l.err, EDQUOT);
	ERR(madvise(p, PAGE, MADV_REMOVE), EOPNOTSUPP);
	ERR(syscall(SYS_remap_file_pages, p, PAGE, 0, 1, 0), ENODEV);
}

CHECK(private, "a private mapping: what was copied stays, what was not is the file's")
{
	struct later l;
	char *p;

	begin();
	gate_open(gate, CFS_GATE_READ, 0);
	p = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, gate, 0);
	EXPECT(p != MAP_FAILED);
	p[PAGE] = 'p';
	IS(p[10], 0);
	gate_take(gate, true);
	OK(pwrite(file, "q", 1, 10));
	OK(pwrite(file, "q", 1, PAGE));
	IS(p[PAGE], 'p');
	later(&l, do_load, gate, p);
	waits(&l);
	gate_open(gate, CFS_GATE_READ, 0);
	ends(&l);
	IS(l.result, 'q');
}

CHECK(forked, "a child's copy of a mapping, and a part of one that was split, are shut as well")
{
	struct later l;
	int status;
	pid_t pid;
	char *p;

	begin();
	gate_open(gate, CFS_GATE_READ, 0);
	p = map(gate, PROT_READ);
	IS(p[10], 0);
	OK(munmap(p + 4 * PAGE, PAGE));
	pid = fork();
	if (!pid) {
		IS(p[10], 0);
		gate_take(gate, true);
		OK(pwrite(file, "f", 1, 10));
		later(&l, do_load, gate, p);
		waits(&l);
		gate_open(gate, CFS_GATE_READ, 0);
		ends(&l);
		_exit(l.result != 'f');
	}
	OK(waitpid(pid, &status, 0));
	IS(status, 0);
	IS(p[10], 'f');
	OK(munmap(p, 4 * PAGE));
	OK(munmap(p + 5 * PAGE, (PAGES - 5) * PAGE));
	expect_event(CFS_GATE_UNMAPPED);
}

static sigjmp_buf at_fault;

static void on_fault(int sig)
{
	siglongjmp(at_fault, sig);
}

CHECK(ends_in_time, "the deadline shuts, mappings included, and a new one opens")
{
	struct later r, l;
	char *p;

	begin();
	gate_open(gate, CFS_GATE_WRITE, 0);
	p = map(gate, PROT_READ);
	IS(p[10], 0);
	deadline(boot_ns() + 300000000);
	IS(p[10], 0);
	poll(NULL, 0, 500);
	OK(pwrite(file, "d", 1, 10));
	later(&r, do_read, gate, NULL);
	later(&l, do_load, gate, p);
	waits(&r);
	waits(&l);
	deadline(boot_ns() + 60000000000ull);
	ends(&r);
	ends(&l);
	IS(l.result, 'd');
}

CHECK(dies, "when the device is closed who waits gets EIO, and a load SIGBUS")
{
	struct later l;
	char *p, c;

	begin();
	p = map(gate, PROT_READ);
	later(&l, do_read, gate, NULL);
	waits(&l);
	OK(close(dev));
	ends(&l);
	IS(l.result, -1);
	IS(l.err, EIO);
	ERR(pread(gate, &c, 1, 0), EIO);
	ERR(pwrite(gate, &c, 1, 0), EIO);
	signal(SIGBUS, on_fault);
	if (!sigsetjmp(at_fault, 1)) {
		do_load(&(struct later){ .mem = p });
		die("a load went through");
	}
}

static void do_fail_soon(struct later *l)
{
	int32_t err = -ESTALE;

	poll(NULL, 0, 300);
	l->result = ioctl(l->fd, CFS_GATE_FAIL, &err);
}

CHECK(fails, "who waits can be told that it cannot be")
{
	struct later l;
	int32_t err = -ESTALE;

	begin();
	later(&l, do_write, gate, NULL);
	waits(&l);
	OK(ioctl(gate, CFS_GATE_FAIL, &err));
	ends(&l);
	IS(l.result, -1);
	IS(l.err, ESTALE);
	signal(SIGBUS, on_fault);
	later(&l, do_fail_soon, gate, NULL);
	if (!sigsetjmp(at_fault, 1)) {
		do_load(&(struct later){ .mem = map(gate, PROT_READ) });
		die("a load went through");
	}
	ends(&l);
}

CHECK(killed, "who waits can be killed")
{
	for (int mapped = 0; mapped < 2; mapped++) {
		int status;
		pid_t pid;

		begin();
		pid = fork();
		if (!pid) {
			struct later l = { .fd = gate };

			if (mapped) {
				l.mem = map(gate, PROT_READ);
				do_load(&l);
			} else {
				do_read(&l);
			}
			_exit(1);
		}
		poll(NULL, 0, 200);
		OK(kill(pid, SIGKILL));
		OK(waitpid(pid, &status, 0));
		EXPECT(WIFSIGNALED(status));
		gate_take(gate, true);
	}
}

CHECK(buffers, "a read into a mapping of another gate that is shut does not keep the first one open")
{
	struct later l;
	int other_file, other = -1;
	char *p;

	begin();
	other = gate_over("other", 7, &other_file);
	gate_open(gate, CFS_GATE_READ, 0);
	p = map(other, PROT_READ | PROT_WRITE);
	later(&l, do_read, gate, p);
	waits(&l);
	alarm(5);
	gate_take(gate, true);
	alarm(CHECK_SECONDS);
	gate_open(other, CFS_GATE_WRITE, 0);
	waits(&l);
	gate_open(gate, CFS_GATE_READ, 0);
	ends(&l);
	IS(l.result, 1);
}

/* ---- shutting and opening while others read and store without a pause ------------------------------------------ */
static struct {
	uint64_t begun, done;		/* atomic: what the file says in each word of its first pages */
	uint64_t phase;			/* atomic: odd while the gate is shut */
	uint64_t looks, stores;
	bool stop;
} sh;

static uint64_t get(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static void check_look(const char *what, uint64_t lo, uint64_t phase, uint64_t v)
{
	uint64_t hi = get(&sh.begun), phase2 = get(&sh.phase);

	if (v < lo || v > hi)
		die("%s gave %" PRIu64 ", while %" PRIu64 " was done and %" PRIu64 " begun", what, v, lo, hi);
	if (phase % 2 && phase == phase2)
		die("%s went through while the gate was shut", what);
	__atomic_add_fetch(&sh.looks, 1, __ATOMIC_RELAXED);
}

static void *load_main(void *arg)
{
	volatile uint64_t *p = arg;

	for (unsigned i = 0; !__atomic_load_n(&sh.stop, __ATOMIC_SEQ_CST); i++) {
		uint64_t lo = get(&sh.done), phase = get(&sh.phase);

		check_look("a load", lo, phase, p[i % 16 * PAGE / 8]);
	}
	return NULL;
}

static void *read_main(void *arg)
{
	(void)arg;
	for (unsigned i = 0; !__atomic_load_n(&sh.stop, __ATOMIC_SEQ_CST); i++) {
		uint64_t lo = get(&sh.done), phase = get(&sh.phase), v = 0;

		IS(pread(gate, &v, 8, i % 16 * PAGE), 8);
		check_look("a read", lo, phase, v);
	}
	return NULL;
}

static void *store_main(void *arg)
{
	volatile uint64_t *p = (uint64_t *)arg + 32 * PAGE / 8;

	for (uint64_t v = 1; !__atomic_load_n(&sh.stop, __ATOMIC_SEQ_CST); v++) {
		p[v % 4 * PAGE / 8] = v;
		__atomic_store_n(&sh.stores, v, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

CHECK(streams, "shut and opened while reads, loads and stores stream: none gets through in between, none is lost")
{
	const char *seconds = getenv("SECONDS_LONG");
	double until;
	uint64_t last[4] = { 0 };
	unsigned rounds = 0;
	pthread_t t[3];
	char *p;

	begin();
	until = now_s() + (seconds ? atof(seconds) : 6);
	p = map(gate, PROT_READ | PROT_WRITE);
	gate_open(gate, CFS_GATE_WRITE, 0);
	IS(pthread_create(&t[0], NULL, load_main, p), 0);
	IS(pthread_create(&t[1], NULL, read_main, NULL), 0);
	IS(pthread_create(&t[2], NULL, store_main, p), 0);
	while (now_s() < until) {
		struct cfs_gate_taken taken = gate_take(gate, rounds % 3 != 1);
		bool shut = rounds % 3 != 1;
		uint64_t word[4], again[4];

		if (shut)
			__atomic_add_fetch(&sh.phase, 1, __ATOMIC_SEQ_CST);
		for (unsigned i = 0; i < 4; i++)
			IS(pread(file, &word[i], 8, (32 + i) * PAGE), 8);
		for (unsigned i = 0; i < 4 && shut; i++) {
			bool told = false;

			for (unsigned k = 0; k < taken.n; k++)
				told |= taken.range[k].off <= (32 + i) * PAGE && taken.range[k].end > (32 + i) * PAGE;
			if (word[i] != last[i] && !told)
				die("a store was not told: page %u, %" PRIu64 " -> %" PRIu64, i, last[i], word[i]);
			last[i] = word[i];
		}
		/* what a taking without shutting told may be stored to again: only a shut gate's words stand */
		for (unsigned i = 0; i < 4 && !shut; i++)
			for (unsigned k = 0; k < taken.n; k++)
				if (taken.range[k].off <= (32 + i) * PAGE && taken.range[k].end > (32 + i) * PAGE)
					last[i] = word[i];
		if (shut) {
			__atomic_add_fetch(&sh.begun, 1, __ATOMIC_SEQ_CST);
			for (unsigned i = 0; i < 16; i++)
				IS(pwrite(file, &sh.begun, 8, i * PAGE), 8);
			__atomic_store_n(&sh.done, sh.begun, __ATOMIC_SEQ_CST);
			if (rounds % 7 == 0)
				poll(NULL, 0, 2);
			for (unsigned i = 0; i < 4; i++) {
				IS(pread(file, &again[i], 8, (32 + i) * PAGE), 8);
				if (word[i] != again[i])
					die("a store went through while the gate was shut: page %u", i);
			}
			__atomic_add_fetch(&sh.phase, 1, __ATOMIC_SEQ_CST);
			gate_open(gate, rounds % 5 == 4 ? CFS_GATE_READ : CFS_GATE_WRITE, 0);
			if (rounds % 5 == 4) {
				sched_yield();
				gate_open(gate, CFS_GATE_WRITE, 0);
			}
		}
		if (rounds++ % 2)
			sched_yield();
	}
	gate_open(gate, CFS_GATE_WRITE, 0);
	__atomic_store_n(&sh.stop, true, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < N_OF(t); i++)
		pthread_join(t[i], NULL);
	printf("# %u rounds, %" PRIu64 " looks, %" PRIu64 " stores\n", rounds, sh.looks, sh.stores);
	EXPECT(rounds > 20 && sh.looks > rounds && sh.stores > rounds);
}

int main(int argc, char **argv)
{
	return run_checks(argc, argv);
}
