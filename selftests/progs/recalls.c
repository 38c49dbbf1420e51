// SPDX-License-Identifier: MIT
/*
 * recalls.c WRITER_DIR READER_DIR [SECONDS [SEED]]: recalls while hits stream. One process changes names and attributes
 * on one mount; one reader on each CPU looks at them on another, without a pause, and checks every answer against the
 * history: a look must show a state that was there at some time between its beginning and its end. TAP.
 *
 * Each directory has a version v. It makes the file "s" (mode 0600 + v % 64, mtime v) by one utimensat() and one chmod(), and
 * the names "odd" and "even", of which there is the one that v is. Directories are changed slowly, one after another, so
 * that the server goes on granting leases; readers ask for attributes past the kernel's cache (AT_STATX_FORCE_SYNC).
 */
#include "prog.h"

#include <sched.h>

#define DIRS	12u
#define READERS	2u

static struct shared {
	/* atomic: of each directory the version whose change has begun, and the one whose change has ended */
	uint64_t begun[DIRS], done[DIRS];
	uint64_t looks, changes;
	bool stop, failed;
} *sh;

static uint64_t get(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static void path_of(char *path, size_t len, const char *base, unsigned dir, const char *name)
{
	snprintf(path, len, "%s/r%u/%s", base, dir, name);
}

static const char *parity(uint64_t v)
{
	return v % 2 ? "odd" : "even";
}

static void change(const char *base, unsigned dir)
{
	uint64_t v = sh->begun[dir] + 1;
	struct timespec ts[2] = { { .tv_sec = (time_t)v }, { .tv_sec = (time_t)v } };
	char from[512], to[512];

	__atomic_store_n(&sh->begun[dir], v, __ATOMIC_SEQ_CST);
	path_of(to, sizeof(to), base, dir, "s");
	OK(utimensat(AT_FDCWD, to, ts, 0));
	path_of(from, sizeof(from), base, dir, parity(v - 1));
	path_of(to, sizeof(to), base, dir, parity(v));
	OK(rename(from, to));
	__atomic_store_n(&sh->done[dir], v, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&sh->changes, 1, __ATOMIC_RELAXED);
}

static bool wrong(unsigned dir, const char *what, uint64_t lo, uint64_t hi, long long saw)
{
	printf("# directory %u: %s: saw %lld, while version %" PRIu64 " was done and %" PRIu64 " begun\n", dir, what, saw, lo, hi);
	fflush(stdout);
	__atomic_store_n(&sh->failed, true, __ATOMIC_SEQ_CST);
	return false;
}

static bool look_attr(const char *base, unsigned dir)
{
	uint64_t lo = get(&sh->done[dir]), hi;
	struct statx sx;
	char path[512];

	path_of(path, sizeof(path), base, dir, "s");
	if (statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &sx))
		return wrong(dir, "statx fails with errno", lo, get(&sh->begun[dir]), errno);
	hi = get(&sh->begun[dir]);
	if ((uint64_t)sx.stx_mtime.tv_sec < lo || (uint64_t)sx.stx_mtime.tv_sec > hi)
		return wrong(dir, "mtime", lo, hi, sx.stx_mtime.tv_sec);
	return true;
}

/* present or absent: for certain when no change was under way */
static bool look_name(const char *base, unsigned dir, uint64_t which)
{
	uint64_t lo = get(&sh->done[dir]), hi;
	char path[512];
	bool there;

	path_of(path, sizeof(path), base, dir, parity(which));
	there = !faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW);
	hi = get(&sh->begun[dir]);
	if (lo == hi && there != (lo % 2 == which % 2))
		return wrong(dir, there ? "a name that is gone is there" : "a name that is there is not", lo, hi, (long long)which % 2);
	return true;
}

static void reader(const char *base, unsigned nr, uint64_t seed)
{
	uint64_t rng = seed * READERS + nr;
	cpu_set_t cpu;

	CPU_ZERO(&cpu);
	CPU_SET(nr % (unsigned)sysconf(_SC_NPROCESSORS_ONLN), &cpu);
	sched_setaffinity(0, sizeof(cpu), &cpu);
	while (!__atomic_load_n(&sh->stop, __ATOMIC_SEQ_CST) && !__atomic_load_n(&sh->failed, __ATOMIC_SEQ_CST)) {
		unsigned dir = (unsigned)(rnd_next(&rng) % DIRS);
		bool ok = rnd_next(&rng) % 2 ? look_attr(base, dir) : look_name(base, dir, rnd_next(&rng) % 2);

		if (!ok)
			_exit(1);
		__atomic_add_fetch(&sh->looks, 1, __ATOMIC_RELAXED);
	}
	_exit(0);
}

static void make(const char *base)
{
	struct timespec zero[2] = { { 0 }, { 0 } };
	char path[512];

	for (unsigned i = 0; i < DIRS; i++) {
		path_of(path, sizeof(path), base, i, "");
		OK(mkdir(path, 0755));
		path_of(path, sizeof(path), base, i, "s");
		/* not regular files: nobody ever holds those exclusively */
		OK(mkfifo(path, 0600));
		OK(utimensat(AT_FDCWD, path, zero, 0));
		path_of(path, sizeof(path), base, i, "even");
		OK(symlink("x", path));
	}
}

int main(int argc, char **argv)
{
	unsigned seconds = argc > 3 ? (unsigned)atoi(argv[3]) : 4;
	uint64_t seed = argc > 4 ? strtoull(argv[4], NULL, 0) : 1;
	uint64_t rng = seed;
	pid_t pids[READERS];
	bool ok = true;
	double end;

	if (argc < 3) {
		fprintf(stderr, "usage: recalls WRITER_DIR READER_DIR [SECONDS [SEED]]\n");
		return 2;
	}
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sh == MAP_FAILED)
		return 2;
	make(argv[1]);
	for (unsigned i = 0; i < READERS; i++) {
		pids[i] = fork();
		if (!pids[i])
			reader(argv[2], i, seed);
	}
	end = now_s() + seconds;
	while (now_s() < end && !__atomic_load_n(&sh->failed, __ATOMIC_SEQ_CST)) {
		change(argv[1], (unsigned)(rnd_next(&rng) % DIRS));
		usleep((useconds_t)(rnd_next(&rng) % 40000));
	}
	__atomic_store_n(&sh->stop, true, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < READERS; i++) {
		int status = 1;

		waitpid(pids[i], &status, 0);
		ok &= status == 0;
	}
	printf("# seed %" PRIu64 ": %" PRIu64 " changes, %" PRIu64 " looks in %u s\n", seed, sh->changes, sh->looks, seconds);
	ok &= sh->changes > 3 && sh->looks > sh->changes;
	printf("%sok 1 - every answer was true at some time between question and answer\n1..1\n", ok ? "" : "not ");
	return !ok;
}
