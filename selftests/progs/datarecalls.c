// SPDX-License-Identifier: MIT
/*
 * datarecalls.c A B [SECONDS [SEED]]: recalls of a file's data while reads and loads stream. On mount A one process reads
 * pages with pread(2) and one loads them through a mapping, each on a CPU of its own and without a pause; on mount B the pages are
 * changed, by write(2) and by stores. At the same time a process on A stores to other pages through its mapping, and B reads those.
 * Every value is checked against the history: a look must show one that was there at some time between its beginning and its
 * end. TAP.
 */
#include "prog.h"

#include <sched.h>

#define PAGE	4096u
#define HALF	16u		/* pages that B changes; as many that A does */
#define LOOKERS	3u
#define SETTLE_US	1000000u	/* how a file is read and written is decided anew once its last close has arrived */

static struct shared {
	/* atomic: of each page the version whose change has begun, and the one whose change has ended */
	uint64_t begun[2 * HALF], done[2 * HALF];
	uint64_t reads, loads, read_back, changes, stores;
	bool stop, failed;
} *sh;

static uint64_t get(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static void set(uint64_t *p, uint64_t v)
{
	__atomic_store_n(p, v, __ATOMIC_SEQ_CST);
}

static bool going(void)
{
	return !__atomic_load_n(&sh->stop, __ATOMIC_SEQ_CST) && !__atomic_load_n(&sh->failed, __ATOMIC_SEQ_CST);
}

static int open_in(const char *dir, int flags)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/streamed", dir);
	return (int)OK(open(path, flags | O_CLOEXEC, 0644));
}

static volatile uint64_t *map(int fd)
{
	void *p = mmap(NULL, 2 * HALF * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	return p;
}

static void on_cpu(unsigned nr)
{
	cpu_set_t cpu;

	CPU_ZERO(&cpu);
	CPU_SET(nr % (unsigned)sysconf(_SC_NPROCESSORS_ONLN), &cpu);
	sched_setaffinity(0, sizeof(cpu), &cpu);
}

static void check_look(const char *what, unsigned page, uint64_t lo, uint64_t v)
{
	uint64_t hi = get(&sh->begun[page]);

	if (v >= lo && v <= hi)
		return;
	__atomic_store_n(&sh->failed, true, __ATOMIC_SEQ_CST);
	die("page %u: %s gave %" PRIu64 ", while %" PRIu64 " was done and %" PRIu64 " begun", page, what, v, lo, hi);
}

static uint64_t read_page(const char *what, int fd, unsigned page)
{
	uint64_t word[PAGE / 8];

	IS(pread(fd, word, PAGE, page * PAGE), PAGE);
	for (unsigned i = 1; i < N_OF(word) && page < HALF; i++)
		if (word[i] != word[0] && word[i] != word[0] - 1 && word[i] != word[0] + 1)
			die("page %u: %s gave %" PRIu64 " and %" PRIu64 " in one page", page, what, word[0], word[i]);
	return word[0];
}

/* on A: reads, loads; on B: reads what A stores */
static void looker(const char *dir, unsigned nr, uint64_t seed)
{
	uint64_t *counter = nr == 0 ? &sh->reads : nr == 1 ? &sh->loads : &sh->read_back;
	int fd = open_in(dir, O_RDWR);
	volatile uint64_t *p = nr == 1 ? map(fd) : NULL;
	uint64_t rng = seed * LOOKERS + nr;

	on_cpu(nr);
	while (going()) {
		unsigned page = (unsigned)(rnd_next(&rng) % HALF) + (nr == 2 ? HALF : 0);
		uint64_t lo = get(&sh->done[page]);

		if (nr == 1)
			check_look("a load", page, lo, p[page * PAGE / 8]);
		else
			check_look(nr ? "a read of what was stored" : "a read", page, lo, read_page("a read", fd, page));
		__atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
		if (nr == 2)
			usleep((useconds_t)(rnd_next(&rng) % 60000));
	}
	_exit(0);
}

static void storer(const char *dir, uint64_t seed)
{
	volatile uint64_t *p = map(open_in(dir, O_RDWR));
	uint64_t rng = seed + 77;

	while (going()) {
		unsigned page = HALF + (unsigned)(rnd_next(&rng) % HALF);
		uint64_t v = sh->begun[page] + 1;

		set(&sh->begun[page], v);
		p[page * PAGE / 8] = v;
		set(&sh->done[page], v);
		sh->stores++;
		if (v % 64 == 0)
			usleep((useconds_t)(rnd_next(&rng) % 30000));
	}
	_exit(0);
}

static void change(int fd, volatile uint64_t *p, unsigned page)
{
	uint64_t v = sh->begun[page] + 1, word[PAGE / 8];

	for (unsigned i = 0; i < N_OF(word); i++)
		word[i] = v;
	set(&sh->begun[page], v);
	if (v % 2)
		IS(pwrite(fd, word, PAGE, page * PAGE), PAGE);
	else
		for (unsigned i = 0; i < N_OF(word); i++)
			p[page * PAGE / 8 + i] = v;
	set(&sh->done[page], v);
	sh->changes++;
}

int main(int argc, char **argv)
{
	unsigned seconds = argc > 3 ? (unsigned)atoi(argv[3]) : 4;
	uint64_t seed = argc > 4 ? strtoull(argv[4], NULL, 0) : 1;
	uint64_t rng = seed;
	pid_t pids[LOOKERS + 1];
	volatile uint64_t *p;
	bool ok = true;
	double end;
	int fd;

	if (argc < 3) {
		fprintf(stderr, "usage: datarecalls A B [SECONDS [SEED]]\n");
		return 2;
	}
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sh == MAP_FAILED)
		return 2;
	fd = open_in(argv[2], O_RDWR | O_CREAT | O_TRUNC);
	for (unsigned i = 0; i < 2 * HALF; i++)
		IS(pwrite(fd, (char[PAGE]){ 0 }, PAGE, i * PAGE), PAGE);
	OK(close(fd));
	usleep(SETTLE_US);
	fd = open_in(argv[2], O_RDWR);
	p = map(fd);
	for (unsigned i = 0; i < LOOKERS; i++) {
		pids[i] = fork();
		if (!pids[i])
			looker(argv[i == 2 ? 2 : 1], i, seed);
	}
	pids[LOOKERS] = fork();
	if (!pids[LOOKERS])
		storer(argv[1], seed);
	end = now_s() + seconds;
	while (now_s() < end && going()) {
		change(fd, p, (unsigned)(rnd_next(&rng) % HALF));
		usleep((useconds_t)(rnd_next(&rng) % 60000));
	}
	__atomic_store_n(&sh->stop, true, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i <= LOOKERS; i++) {
		int status = 1;

		waitpid(pids[i], &status, 0);
		ok &= status == 0;
	}
	printf("# seed %" PRIu64 ": %" PRIu64 " changes, %" PRIu64 " reads, %" PRIu64 " loads; %" PRIu64 " stores, read back %" PRIu64
	       " times; in %u s\n", seed, sh->changes, sh->reads, sh->loads, sh->stores, sh->read_back, seconds);
	ok &= sh->changes > 3 && sh->reads > sh->changes && sh->loads > sh->changes && sh->stores > 3 && sh->read_back > 3;
	printf("%sok 1 - every value was there at some time between question and answer\n1..1\n", ok ? "" : "not ");
	return !ok;
}
