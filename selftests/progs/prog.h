/* SPDX-License-Identifier: MIT */
/*
 * prog.h - what the test programs share: TAP output, checks that run in a process and a directory of
 * their own, reproducible random numbers and data patterns. Header only: each program is one file.
 *
 * A check is written as
 *	CHECK(name, "what must hold") { OK(mkdir("d", 0755)); ERR(rmdir("f"), ENOTDIR); EXPECT(x == y); }
 * and ends at the first violation. It runs as root in an empty directory; what it changes of its
 * process (user, umask, limits, open files) ends with it.
 */
#ifndef CFS_TEST_PROG_H
#define CFS_TEST_PROG_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define MAYBE_UNUSED __attribute__((unused))
#define N_OF(a) (sizeof(a) / sizeof((a)[0]))
#define CHECK_SECONDS slow(30)	/* of one check */
#define EXIT_SKIP 77
#define NOBODY 65534

/* A limit of time, in whatever unit: machines that are so many times slower, such as emulated ones, set T_SLOW. */
MAYBE_UNUSED static unsigned slow(unsigned limit)
{
	const char *text = getenv("T_SLOW");

	return limit * (text && atoi(text) > 0 ? (unsigned)atoi(text) : 1);
}

/* ---- ending ----------------------------------------------------------------------------------- */
MAYBE_UNUSED __attribute__((noreturn, format(printf, 1, 2)))
static void die(const char *fmt, ...)
{
	va_list ap;

	fputs("# ", stdout);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
	_exit(1);
}

#define SKIP(...) do { \
	printf("# skip: " __VA_ARGS__); \
	putchar('\n'); \
	fflush(stdout); \
	_exit(EXIT_SKIP); \
} while (0)

#define EXPECT(cond) ((cond) ? (void)0 : die("%s:%d: not true: %s", __FILE__, __LINE__, #cond))

#define IS(got, wanted) do { \
	long long g_ = (long long)(got), w_ = (long long)(wanted); \
	if (g_ != w_) \
		die("%s:%d: %s is %lld%s%s, not %lld", __FILE__, __LINE__, #got, g_, g_ == -1 ? ", " : "", \
		    g_ == -1 ? strerror(errno) : "", w_); \
} while (0)

/* a call that must succeed; gives its result */
#define OK(call) ok_result((call), __FILE__, __LINE__, #call)
MAYBE_UNUSED static long long ok_result(long long result, const char *file, int line, const char *call)
{
	if (result == -1)
		die("%s:%d: %s: %s", file, line, call, strerror(errno));
	return result;
}

/* a call that must fail, and how */
#define ERR(call, wanted) do { \
	errno = 0; \
	if ((long long)(call) != -1) \
		die("%s:%d: %s succeeded, must fail: %s", __FILE__, __LINE__, #call, strerror(wanted)); \
	if (errno != (wanted)) \
		die("%s:%d: %s: %s, must be: %s", __FILE__, __LINE__, #call, strerror(errno), strerror(wanted)); \
} while (0)

#define ERR2(call, w1, w2) do { \
	errno = 0; \
	if ((long long)(call) != -1) \
		die("%s:%d: %s succeeded, must fail: %s", __FILE__, __LINE__, #call, strerror(w1)); \
	if (errno != (w1) && errno != (w2)) \
		die("%s:%d: %s: %s, must be: %s or %s", __FILE__, __LINE__, #call, strerror(errno), \
		    strerror(w1), strerror(w2)); \
} while (0)

MAYBE_UNUSED static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- checks ------------------------------------------------------------------------------------- */
struct check {
	const char *name, *what;
	void (*run)(void);
	struct check *next;
};
static struct check *check_first MAYBE_UNUSED, **check_last MAYBE_UNUSED = &check_first;

#define CHECK(id, text) \
	static void id##_check(void); \
	__attribute__((constructor)) static void id##_register(void) \
	{ \
		static struct check c = { .name = #id, .what = text, .run = id##_check }; \
		*check_last = &c; \
		check_last = &c.next; \
	} \
	static void id##_check(void)

/* Removes a tree; errors are the caller's to see, by what remains. */
MAYBE_UNUSED static void remove_tree(const char *path)
{
	char *argv[] = { (char *)"rm", (char *)"-rf", (char *)"--", (char *)path, NULL };
	pid_t pid = fork();

	if (pid == 0) {
		execvp("rm", argv);
		_exit(127);
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

MAYBE_UNUSED static void run_check(const struct check *c, const char *base, unsigned n, unsigned *failed)
{
	char dir[4096];
	int status = 0;
	double t0 = now_s();
	pid_t pid;

	snprintf(dir, sizeof(dir), "%s/%s", base, c->name);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		alarm(CHECK_SECONDS);
		umask(022);
		if (mkdir(dir, 0755) || chdir(dir))
			die("%s: %s", dir, strerror(errno));
		c->run();
		fflush(stdout);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		die("fork: %s", strerror(errno));
	if (WIFSIGNALED(status))
		printf("# %s: %s\n", c->name, WTERMSIG(status) == SIGALRM ? "took too long" :
		       strsignal(WTERMSIG(status)));
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIP) {
		printf("ok %u - %s: %s # SKIP see the line above\n", n, c->name, c->what);
	} else if (status) {
		printf("not ok %u - %s: %s\n", n, c->name, c->what);
		(*failed)++;
	} else {
		printf("ok %u - %s: %s\n", n, c->name, c->what);
	}
	if (now_s() - t0 > 2)
		printf("# %.1f s\n", now_s() - t0);
	fflush(stdout);
	remove_tree(dir);
}

/* main() of a program of checks: PROGRAM DIR [NAME]... ; --list prints the names */
MAYBE_UNUSED static int run_checks(int argc, char **argv)
{
	unsigned n = 0, failed = 0, all = 0;
	char base[2048];
	struct check *c;

	if (argc < 2) {
		fprintf(stderr, "usage: %s DIR [CHECK]... | --list\n", argv[0]);
		return 2;
	}
	for (c = check_first; c; c = c->next) {
		bool chosen = argc == 2;

		for (int i = 2; i < argc; i++)
			chosen |= !strcmp(argv[i], c->name);
		if (!strcmp(argv[1], "--list"))
			puts(c->name);
		if (!chosen)
			c->run = NULL;
		else
			all++;
	}
	if (!strcmp(argv[1], "--list"))
		return 0;
	if (!realpath(argv[1], base))
		die("%s: %s", argv[1], strerror(errno));
	snprintf(base + strlen(base), sizeof(base) - strlen(base), "/checks.%d", getpid());
	if (mkdir(base, 0755))
		die("%s: %s", base, strerror(errno));
	printf("1..%u\n", all + 1);
	for (c = check_first; c; c = c->next)
		if (c->run)
			run_check(c, base, ++n, &failed);
	if (rmdir(base)) {	/* whatever a check made can be removed */
		printf("# %s: %s\nnot ok %u - all can be removed\n", base, strerror(errno), all + 1);
		failed++;
	} else {
		printf("ok %u - all can be removed\n", all + 1);
	}
	return failed ? 1 : 0;
}

/* ---- small helpers ---------------------------------------------------------------------------------- */
MAYBE_UNUSED static bool on_fuse(const char *path)
{
	struct statfs sf;

	return statfs(path, &sf) == 0 && sf.f_type == 0x65735546;	/* FUSE_SUPER_MAGIC */
}

MAYBE_UNUSED static struct stat stat_of(const char *path)
{
	struct stat st;

	if (lstat(path, &st))
		die("lstat %s: %s", path, strerror(errno));
	return st;
}

MAYBE_UNUSED static struct stat fstat_of(int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		die("fstat: %s", strerror(errno));
	return st;
}

MAYBE_UNUSED static void put_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	ssize_t len = (ssize_t)strlen(text);

	if (fd < 0 || write(fd, text, (size_t)len) != len || close(fd))
		die("write %s: %s", path, strerror(errno));
}

MAYBE_UNUSED static void touch(const char *path)
{
	put_file(path, "");
}

MAYBE_UNUSED static bool exists(const char *path)
{
	struct stat st;

	if (lstat(path, &st) == 0)
		return true;
	IS(errno, ENOENT);
	return false;
}

MAYBE_UNUSED static ino_t ino_of(const char *path)
{
	return stat_of(path).st_ino;
}

MAYBE_UNUSED static bool file_is(const char *path, const char *text)
{
	char buf[65536];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		die("open %s: %s", path, strerror(errno));
	n = read(fd, buf, sizeof(buf));
	close(fd);
	if (n == (ssize_t)strlen(text) && !memcmp(buf, text, (size_t)n))
		return true;
	printf("# %s holds %zd bytes: '%.*s', not '%s'\n", path, n, n > 0 && n < 200 ? (int)n : 0, buf, text);
	return false;
}

MAYBE_UNUSED static int64_t ns_of(struct timespec t)
{
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* long enough that a time stamp of a coarse clock differs */
MAYBE_UNUSED static void tick(void)
{
	usleep(15000);
}

/*
 * Runs a block as another user, in a child (the mount must see a different process, not only
 * another fsuid); its EXPECTs are ours.
 *	AS(uid, gid, { ERR(open("f", O_RDONLY), EACCES); });
 */
#define AS_GROUPS(uid, gid, n_groups, groups, ...) do { \
	int st_ = 0; \
	pid_t p_; \
	fflush(stdout); \
	p_ = fork(); \
	if (p_ == 0) { \
		if (setgroups(n_groups, groups) || setgid(gid) || setuid(uid)) \
			die("cannot become user %d", (int)(uid)); \
		__VA_ARGS__ \
		fflush(stdout); \
		_exit(0); \
	} \
	if (waitpid(p_, &st_, 0) != p_ || st_) \
		die("%s:%d: as user %d: see above (status %x)", __FILE__, __LINE__, (int)(uid), st_); \
} while (0)
#define AS(uid, gid, ...) AS_GROUPS(uid, gid, 0, NULL, __VA_ARGS__)

/* a child process that runs the block and exits 0; CHILD gives its pid, REAP waits for success */
#define CHILD(...) ({ \
	pid_t p_; \
	fflush(stdout); \
	p_ = fork(); \
	if (p_ == 0) { \
		__VA_ARGS__ \
		fflush(stdout); \
		_exit(0); \
	} \
	p_; })
#define REAP(pid) do { \
	pid_t reap_ = (pid); \
	int rst_ = 0; \
	if (waitpid(reap_, &rst_, 0) != reap_ || rst_) \
		die("%s:%d: child: status %x", __FILE__, __LINE__, rst_); \
} while (0)

/* splitmix64: the same numbers from the same seed, everywhere */
MAYBE_UNUSED static uint64_t rnd_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

MAYBE_UNUSED static uint64_t rnd_below(uint64_t *state, uint64_t n)
{
	return rnd_next(state) % n;
}

/* bytes that tell where they belong: of writing `seed`, at file offset `off` */
MAYBE_UNUSED static uint8_t pattern_byte(uint64_t seed, uint64_t off)
{
	uint64_t z = (seed + 1) * 0x9e3779b97f4a7c15ull + (off >> 3) * 0xff51afd7ed558ccdull;

	z ^= z >> 29;
	z *= 0xbf58476d1ce4e5b9ull;
	z ^= z >> 32;
	return (uint8_t)((z >> ((off & 7) * 8)) | 1);	/* never 0: zeros are holes */
}

MAYBE_UNUSED static void pattern_fill(void *buf, uint64_t seed, uint64_t off, size_t len)
{
	uint8_t *p = buf;

	for (size_t i = 0; i < len; i++)
		p[i] = pattern_byte(seed, off + i);
}

#endif
