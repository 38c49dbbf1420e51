/* SPDX-License-Identifier: MIT */
/*
 * mdbench - metadata, small-file and large-file benchmark for one mounted
 * directory.  Plain C + pthread, no dependencies:
 *
 *     cc -O2 -Wall -Wextra -o mdbench mdbench.c -pthread
 *
 * Every phase is run by all threads at once between two barriers.  Each thread
 * owns its own sub-tree (or shares one with --shared).  The time of a phase is
 * from the first thread's start to the last thread's end; latencies are per
 * operation over all threads.  Phases leave the tree as they found it (except
 * mkdir/create/write/unlink/rmdir), so a later invocation can run any phase
 * alone, e.g. after a remount: mdbench -p mkdir,create ; remount ;
 * mdbench -p statcold.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define PATHMAX 512
#define BLK 4096u
#define MIB (1024u * 1024u)
#define MAXWATCH 16

/* ---- options ---------------------------------------------------------- */
static struct {
	const char *dir;
	int threads;
	long files;         /* per thread */
	int depth, branch;  /* tree of directories per thread */
	unsigned small;     /* bytes of a small file */
	int fsync_small;
	long large_mib;     /* all threads together */
	long rand_ops;      /* per thread */
	int shared;
	int keep_going;
	unsigned seed;
	const char *json;
	const char *label;
} o = {
	.threads = 1, .files = 2000, .depth = 2, .branch = 8, .small = 4096,
	.large_mib = 256, .rand_ops = 2000, .seed = 1, .label = "",
};

/* ---- phases ------------------------------------------------------------ */
enum ph {
	P_MKDIR, P_CREATE, P_WRITE, P_STAT, P_STATCOLD, P_STATNEG, P_OPEN,
	P_READ, P_READDIR, P_READDIRPLUS, P_CHMOD, P_RENAME, P_RENAMEX,
	P_UNLINK, P_RMDIR, P_SEQWRITE, P_SEQREAD, P_RANDREAD, P_RANDWRITE,
	P_LARGERM, P_N
};
static const struct { const char *name; int dflt; const char *help; } phases[P_N] = {
	[P_MKDIR]       = {"mkdir", 1, "make the directory tree"},
	[P_CREATE]      = {"create", 1, "open(O_CREAT|O_EXCL) + close, empty files f.N"},
	[P_WRITE]       = {"write", 1, "create w.N, write --size bytes, [fsync,] close"},
	[P_STAT]        = {"stat", 1, "warm: one untimed pass, then lstat f.N in random order"},
	[P_STATCOLD]    = {"statcold", 0, "lstat f.N in random order, no warm-up (remount first)"},
	[P_STATNEG]     = {"statneg", 1, "lstat of names that do not exist"},
	[P_OPEN]        = {"open", 1, "open(O_RDONLY) + close of f.N, random order"},
	[P_READ]        = {"read", 1, "open, read, close of w.N, random order, data checked"},
	[P_READDIR]     = {"readdir", 1, "list each directory (ops = entries, latency = per directory)"},
	[P_READDIRPLUS] = {"readdirplus", 1, "list each directory + lstat each entry (ops, latency as readdir)"},
	[P_CHMOD]       = {"chmod", 1, "chmod of f.N"},
	[P_RENAME]      = {"rename", 1, "rename f.N to r.N and back (2 ops per file)"},
	[P_RENAMEX]     = {"renamex", 1, "rename f.N to another directory and back (2 ops per file)"},
	[P_UNLINK]      = {"unlink", 1, "unlink f.N and w.N"},
	[P_RMDIR]       = {"rmdir", 1, "remove the directory tree"},
	[P_SEQWRITE]    = {"seqwrite", 1, "write large file(s) in 1 MiB blocks, fsync inside the time"},
	[P_SEQREAD]     = {"seqread", 1, "read them in 1 MiB blocks after fadvise DONTNEED, data checked"},
	[P_RANDREAD]    = {"randread", 1, "4 KiB random reads after fadvise DONTNEED, data checked"},
	[P_RANDWRITE]   = {"randwrite", 1, "4 KiB random overwrites, one fsync inside the time"},
	[P_LARGERM]     = {"largerm", 1, "unlink the large file(s)"},
};

/* ---- state ------------------------------------------------------------- */
struct thr {
	pthread_t tid;
	int id;
	uint64_t *lat;          /* ns */
	long nlat, caplat;
	long ops, errors;
	uint64_t bytes;
	uint64_t t0, t1;
	uint64_t rng;
	char **dirs;            /* every directory, parents first */
	int ndirs, firstleaf;
	long *perm;
	char *buf;              /* 1 MiB, page aligned */
	int first_errno;
	char first_what[96];
};

static struct thr *T;
static pthread_barrier_t bar;
static volatile enum ph cur;
static volatile int quit;

static struct { char name[32]; int pids[32]; int n; double cpu0; } W[MAXWATCH];
static int nW;

static uint64_t now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static void die(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	fputs("mdbench: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(2);
}

static void *xmalloc(size_t n)
{
	void *p = malloc(n ? n : 1);
	if (!p)
		die("out of memory");
	return p;
}

static uint64_t rnd(uint64_t *s)
{
	uint64_t x = *s;
	x ^= x >> 12; x ^= x << 25; x ^= x >> 27;
	*s = x;
	return x * 2685821657736338717ull;
}

static void shuffle(struct thr *t)
{
	for (long i = 0; i < o.files; i++)
		t->perm[i] = i;
	for (long i = o.files - 1; i > 0; i--) {
		long j = (long)(rnd(&t->rng) % (uint64_t)(i + 1));
		long x = t->perm[i];
		t->perm[i] = t->perm[j];
		t->perm[j] = x;
	}
}

static void rec(struct thr *t, uint64_t ns)
{
	if (t->nlat == t->caplat) {
		t->caplat = t->caplat ? t->caplat * 2 : 4096;
		t->lat = realloc(t->lat, (size_t)t->caplat * sizeof *t->lat);
		if (!t->lat)
			die("out of memory");
	}
	t->lat[t->nlat++] = ns;
}

static void fail(struct thr *t, const char *what, const char *path)
{
	int e = errno;
	t->errors++;
	if (!t->first_errno) {
		t->first_errno = e ? e : EIO;
		snprintf(t->first_what, sizeof t->first_what, "%s %.70s", what, path);
	}
	if (!o.keep_going && t->errors > 1000)
		die("too many errors: %s %s: %s", what, path, strerror(e));
}

/* One timed operation: records its latency, counts it or its error. */
#define TIMED(t, what, path, expr) do { \
	uint64_t a_ = now(); \
	int r_ = (expr); \
	uint64_t b_ = now(); \
	if (r_ < 0) fail(t, what, path); \
	else { rec(t, b_ - a_); (t)->ops++; } \
} while (0)

/* ---- names ------------------------------------------------------------- */
static void build_dirs(struct thr *t)
{
	long n = 1, lvl = 1;
	for (int d = 0; d < o.depth; d++) {
		lvl *= o.branch;
		n += lvl;
	}
	t->dirs = xmalloc((size_t)n * sizeof *t->dirs);
	char p[PATHMAX];
	if (o.shared)
		snprintf(p, sizeof p, "%s/mdb.s", o.dir);
	else
		snprintf(p, sizeof p, "%s/mdb.%d", o.dir, t->id);
	t->dirs[0] = strdup(p);
	int head = 0, tail = 1;
	for (int d = 0; d < o.depth; d++) {
		int end = tail;
		for (; head < end; head++)
			for (int b = 0; b < o.branch; b++) {
				char q[PATHMAX + 16];
				snprintf(q, sizeof q, "%s/d%d", t->dirs[head], b);
				t->dirs[tail++] = strdup(q);
			}
	}
	t->ndirs = tail;
	t->firstleaf = head;
}

/* File i lives in a leaf directory; off moves it to another leaf. */
static const char *leaf(struct thr *t, long i, int off)
{
	int nl = t->ndirs - t->firstleaf;
	return t->dirs[t->firstleaf + (int)((i + off) % nl)];
}

static void fname(struct thr *t, char *p, char kind, long i, int off)
{
	snprintf(p, PATHMAX, "%s/%c.%d.%ld", leaf(t, i, off), kind, t->id, i);
}

static void lname(struct thr *t, char *p)
{
	snprintf(p, PATHMAX, "%s/large.%d", o.dir, t->id);
}

/* ---- data: each 4 KiB block begins with a word made of file and block --- */
static uint64_t stamp(uint64_t file, uint64_t block)
{
	return (file + 1) * 0x9E3779B97F4A7C15ull ^ (block + 1) * 0xC2B2AE3D27D4EB4Full;
}

static void fill(char *b, size_t len, uint64_t file, uint64_t off)
{
	for (size_t i = 0; i + 8 <= len; i += BLK) {
		uint64_t s = stamp(file, (off + i) / BLK);
		memcpy(b + i, &s, 8);
	}
}

static int check(const char *b, size_t len, uint64_t file, uint64_t off)
{
	for (size_t i = 0; i + 8 <= len; i += BLK) {
		uint64_t s = stamp(file, (off + i) / BLK);
		if (memcmp(b + i, &s, 8)) {
			errno = EILSEQ;
			return -1;
		}
	}
	return 0;
}

static uint64_t large_bytes(void)
{
	return (uint64_t)o.large_mib * MIB / (uint64_t)o.threads / MIB * MIB;
}

/* ---- operations --------------------------------------------------------- */
static int op_create(const char *p)
{
	int fd = open(p, O_CREAT | O_EXCL | O_WRONLY, 0644);
	return fd < 0 ? -1 : close(fd);
}

static int op_open(const char *p)
{
	int fd = open(p, O_RDONLY);
	return fd < 0 ? -1 : close(fd);
}

static int op_write(struct thr *t, const char *p, long i)
{
	int fd = open(p, O_CREAT | O_EXCL | O_WRONLY, 0644);
	if (fd < 0)
		return -1;
	fill(t->buf, o.small, (uint64_t)i, 0);
	ssize_t w = o.small ? write(fd, t->buf, o.small) : 0;
	int r = w == (ssize_t)o.small ? 0 : -1;
	if (!r && o.fsync_small)
		r = fsync(fd);
	int e = errno;
	if (close(fd) < 0)
		return -1;
	errno = e;
	return r;
}

static int op_read(struct thr *t, const char *p, long i)
{
	int fd = open(p, O_RDONLY);
	if (fd < 0)
		return -1;
	ssize_t w = read(fd, t->buf, o.small);
	int r = w == (ssize_t)o.small ? check(t->buf, o.small, (uint64_t)i, 0) : -1;
	int e = errno;
	close(fd);
	errno = e;
	return r;
}

static int op_list(struct thr *t, const char *p, int plus, long *n)
{
	DIR *d = opendir(p);
	(void)t;
	if (!d)
		return -1;
	struct dirent *e;
	long c = 0;
	int r = 0;
	while (errno = 0, (e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		c++;
		struct stat st;
		if (plus && fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			r = -1;
	}
	if (errno)
		r = -1;
	closedir(d);
	*n = c;
	return r;
}

static void pass_stat(struct thr *t, char kind, int timed, int neg)
{
	char p[PATHMAX];
	struct stat st;
	shuffle(t);
	for (long k = 0; k < o.files; k++) {
		fname(t, p, kind, t->perm[k], 0);
		if (!timed) {
			(void)lstat(p, &st);
		} else if (neg) {
			uint64_t a = now();
			int r = lstat(p, &st);
			uint64_t b = now();
			if (r == 0 || errno != ENOENT) {
				if (r == 0)
					errno = EEXIST;
				fail(t, "stat", p);
			} else {
				rec(t, b - a);
				t->ops++;
			}
		} else {
			TIMED(t, "stat", p, lstat(p, &st));
		}
	}
}

/* Work that must not be timed. */
static void prepare(struct thr *t, enum ph ph)
{
	char p[PATHMAX];
	if (ph == P_STAT)
		pass_stat(t, 'f', 0, 0);
	if (ph == P_OPEN || ph == P_READ || ph == P_CHMOD)
		shuffle(t);
	if (ph == P_SEQREAD || ph == P_RANDREAD || ph == P_RANDWRITE) {
		lname(t, p);
		int fd = open(p, O_RDONLY);
		if (fd >= 0) {
			fsync(fd);
			posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
			close(fd);
		}
	}
}

static void run_phase(struct thr *t, enum ph ph)
{
	char p[PATHMAX], q[PATHMAX];
	uint64_t lb = large_bytes();
	int fd;

	switch (ph) {
	case P_MKDIR:
		if (o.shared && t->id)
			break;
		for (int i = 0; i < t->ndirs; i++)
			TIMED(t, "mkdir", t->dirs[i], mkdir(t->dirs[i], 0755));
		break;
	case P_CREATE:
		for (long i = 0; i < o.files; i++) {
			fname(t, p, 'f', i, 0);
			TIMED(t, "create", p, op_create(p));
		}
		break;
	case P_WRITE:
		for (long i = 0; i < o.files; i++) {
			fname(t, p, 'w', i, 0);
			TIMED(t, "write", p, op_write(t, p, i));
		}
		t->bytes = (uint64_t)t->ops * o.small;
		break;
	case P_STAT:
	case P_STATCOLD:
		pass_stat(t, 'f', 1, 0);
		break;
	case P_STATNEG:
		pass_stat(t, 'n', 1, 1);
		break;
	case P_OPEN:
		for (long k = 0; k < o.files; k++) {
			fname(t, p, 'f', t->perm[k], 0);
			TIMED(t, "open", p, op_open(p));
		}
		break;
	case P_READ:
		for (long k = 0; k < o.files; k++) {
			fname(t, p, 'w', t->perm[k], 0);
			TIMED(t, "read", p, op_read(t, p, t->perm[k]));
		}
		t->bytes = (uint64_t)t->ops * o.small;
		break;
	case P_READDIR:
	case P_READDIRPLUS:
		for (int i = 0; i < t->ndirs; i++) {
			if (o.shared && i % o.threads != t->id)
				continue;
			long n = 0;
			uint64_t a = now();
			int r = op_list(t, t->dirs[i], ph == P_READDIRPLUS, &n);
			uint64_t b = now();
			if (r < 0)
				fail(t, "readdir", t->dirs[i]);
			else
				rec(t, b - a);
			t->ops += n;
		}
		break;
	case P_CHMOD:
		for (long k = 0; k < o.files; k++) {
			fname(t, p, 'f', t->perm[k], 0);
			TIMED(t, "chmod", p, chmod(p, k & 1 ? 0640 : 0600));
		}
		break;
	case P_RENAME:
	case P_RENAMEX: {
		int off = ph == P_RENAMEX;
		for (long i = 0; i < o.files; i++) {
			fname(t, p, 'f', i, 0);
			fname(t, q, 'r', i, off);
			TIMED(t, "rename", p, rename(p, q));
		}
		for (long i = 0; i < o.files; i++) {
			fname(t, p, 'f', i, 0);
			fname(t, q, 'r', i, off);
			TIMED(t, "rename", q, rename(q, p));
		}
		break;
	}
	case P_UNLINK:
		for (int k = 0; k < 2; k++)
			for (long i = 0; i < o.files; i++) {
				fname(t, p, k ? 'w' : 'f', i, 0);
				uint64_t a = now();
				int r = unlink(p);
				uint64_t b = now();
				if (r == 0) {
					rec(t, b - a);
					t->ops++;
				} else if (errno != ENOENT) {
					fail(t, "unlink", p);
				} else if (i == 0) {
					break; /* that kind was never created */
				} else {
					fail(t, "unlink", p);
				}
			}
		break;
	case P_RMDIR:
		if (o.shared && t->id)
			break;
		for (int i = t->ndirs - 1; i >= 0; i--)
			TIMED(t, "rmdir", t->dirs[i], rmdir(t->dirs[i]));
		break;
	case P_SEQWRITE:
		lname(t, p);
		fd = open(p, O_CREAT | O_TRUNC | O_RDWR, 0644);
		if (fd < 0) {
			fail(t, "open", p);
			break;
		}
		for (uint64_t off = 0; off < lb; off += MIB) {
			fill(t->buf, MIB, (uint64_t)t->id, off);
			ssize_t w;
			TIMED(t, "pwrite", p, ((w = pwrite(fd, t->buf, MIB, (off_t)off)) == MIB ? 0 : -1));
		}
		if (fsync(fd) < 0)
			fail(t, "fsync", p);
		if (close(fd) < 0)
			fail(t, "close", p);
		t->bytes = (uint64_t)t->ops * MIB;
		break;
	case P_SEQREAD:
		lname(t, p);
		fd = open(p, O_RDONLY);
		if (fd < 0) {
			fail(t, "open", p);
			break;
		}
		for (uint64_t off = 0; off < lb; off += MIB)
			TIMED(t, "pread", p, (pread(fd, t->buf, MIB, (off_t)off) == MIB
				? check(t->buf, MIB, (uint64_t)t->id, off) : -1));
		close(fd);
		t->bytes = (uint64_t)t->ops * MIB;
		break;
	case P_RANDREAD:
	case P_RANDWRITE:
		lname(t, p);
		fd = open(p, ph == P_RANDREAD ? O_RDONLY : O_RDWR);
		if (fd < 0) {
			fail(t, "open", p);
			break;
		}
		if (lb < BLK)
			break;
		posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
		for (long k = 0; k < o.rand_ops; k++) {
			uint64_t off = rnd(&t->rng) % (lb / BLK) * BLK;
			if (ph == P_RANDREAD) {
				TIMED(t, "pread", p, (pread(fd, t->buf, BLK, (off_t)off) == BLK
					? check(t->buf, BLK, (uint64_t)t->id, off) : -1));
			} else {
				fill(t->buf, BLK, (uint64_t)t->id, off);
				TIMED(t, "pwrite", p, (pwrite(fd, t->buf, BLK, (off_t)off) == BLK ? 0 : -1));
			}
		}
		if (ph == P_RANDWRITE && fsync(fd) < 0)
			fail(t, "fsync", p);
		if (close(fd) < 0)
			fail(t, "close", p);
		t->bytes = (uint64_t)t->ops * BLK;
		break;
	case P_LARGERM:
		lname(t, p);
		TIMED(t, "unlink", p, unlink(p));
		break;
	case P_N:
		break;
	}
}

static void *worker(void *arg)
{
	struct thr *t = arg;
	for (;;) {
		pthread_barrier_wait(&bar);      /* phase chosen */
		if (quit)
			return NULL;
		enum ph ph = cur;
		t->nlat = t->ops = t->errors = 0;
		t->bytes = 0;
		t->first_errno = 0;
		prepare(t, ph);
		pthread_barrier_wait(&bar);      /* all prepared; main samples */
		pthread_barrier_wait(&bar);      /* go */
		t->t0 = now();
		run_phase(t, ph);
		t->t1 = now();
		pthread_barrier_wait(&bar);      /* done */
	}
}

/* ---- watching daemons --------------------------------------------------- */
static double pid_cpu(int pid)
{
	char p[64], b[1024];
	snprintf(p, sizeof p, "/proc/%d/stat", pid);
	FILE *f = fopen(p, "r");
	if (!f)
		return 0;
	size_t n = fread(b, 1, sizeof b - 1, f);
	fclose(f);
	b[n] = 0;
	char *s = strrchr(b, ')');
	unsigned long ut = 0, st = 0;
	if (!s || sscanf(s + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &ut, &st) != 2)
		return 0;
	return (double)(ut + st) / (double)sysconf(_SC_CLK_TCK);
}

static long pid_rss_kib(int pid)
{
	char p[64], line[256];
	long v = 0;
	snprintf(p, sizeof p, "/proc/%d/status", pid);
	FILE *f = fopen(p, "r");
	if (!f)
		return 0;
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "VmRSS: %ld", &v) == 1)
			break;
	fclose(f);
	return v;
}

static double watch_cpu(int w)
{
	double c = 0;
	for (int i = 0; i < W[w].n; i++)
		c += pid_cpu(W[w].pids[i]);
	return c;
}

static long watch_rss(int w)
{
	long r = 0;
	for (int i = 0; i < W[w].n; i++)
		r += pid_rss_kib(W[w].pids[i]);
	return r;
}

static void add_watch(char *s)
{
	if (nW == MAXWATCH)
		die("at most %d --watch", MAXWATCH);
	char *eq = strchr(s, '=');
	if (!eq)
		die("--watch wants NAME=PID[,PID...]");
	*eq = 0;
	snprintf(W[nW].name, sizeof W[nW].name, "%.30s", s);
	for (char *p = strtok(eq + 1, ","); p && W[nW].n < 32; p = strtok(NULL, ","))
		W[nW].pids[W[nW].n++] = atoi(p);
	nW++;
}

/* ---- report -------------------------------------------------------------- */
static int cmp64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static FILE *jf;
static long total_errors;

static void report(enum ph ph)
{
	long ops = 0, err = 0, n = 0;
	uint64_t t0 = UINT64_MAX, t1 = 0, bytes = 0;
	for (int i = 0; i < o.threads; i++) {
		ops += T[i].ops;
		err += T[i].errors;
		n += T[i].nlat;
		bytes += T[i].bytes;
		if (T[i].t0 < t0) t0 = T[i].t0;
		if (T[i].t1 > t1) t1 = T[i].t1;
	}
	uint64_t *all = xmalloc((size_t)n * sizeof *all);
	long k = 0;
	for (int i = 0; i < o.threads; i++) {
		memcpy(all + k, T[i].lat, (size_t)T[i].nlat * sizeof *all);
		k += T[i].nlat;
	}
	qsort(all, (size_t)n, sizeof *all, cmp64);
	double sec = (double)(t1 - t0) / 1e9;
	double p50 = n ? (double)all[n / 2] / 1e3 : 0;
	double p99 = n ? (double)all[(long)((double)(n - 1) * 0.99)] / 1e3 : 0;
	double max = n ? (double)all[n - 1] / 1e3 : 0;
	double rate = sec > 0 ? (double)ops / sec : 0;
	double mibs = sec > 0 ? (double)bytes / MIB / sec : 0;
	free(all);

	printf("%-12s %8ld %9.3f %11.1f %10.1f %10.1f %10.1f %8.1f %6ld\n",
	       phases[ph].name, ops, sec, rate, p50, p99, max, mibs, err);
	for (int w = 0; w < nW; w++)
		printf("# watch %-12s %-16s cpu_s %.2f  us_per_op %.1f  rss_kib %ld\n", phases[ph].name,
		       W[w].name, watch_cpu(w) - W[w].cpu0,
		       ops ? (watch_cpu(w) - W[w].cpu0) * 1e6 / (double)ops : 0, watch_rss(w));
	fflush(stdout);
	if (jf) {
		fprintf(jf, "{\"label\":\"%s\",\"phase\":\"%s\",\"threads\":%d,\"files_per_thread\":%ld,"
			"\"ops\":%ld,\"seconds\":%.6f,\"ops_per_s\":%.2f,\"p50_us\":%.2f,\"p99_us\":%.2f,"
			"\"max_us\":%.2f,\"mib_per_s\":%.2f,\"errors\":%ld,\"watch\":{",
			o.label, phases[ph].name, o.threads, o.files, ops, sec, rate, p50, p99, max, mibs, err);
		for (int w = 0; w < nW; w++)
			fprintf(jf, "%s\"%s\":{\"cpu_s\":%.3f,\"rss_kib\":%ld}", w ? "," : "",
				W[w].name, watch_cpu(w) - W[w].cpu0, watch_rss(w));
		fprintf(jf, "}}\n");
		fflush(jf);
	}
	for (int i = 0; i < o.threads; i++)
		if (T[i].first_errno) {
			fprintf(stderr, "mdbench: %s: %ld errors, first: %s: %s\n", phases[ph].name,
				err, T[i].first_what, strerror(T[i].first_errno));
			break;
		}
	total_errors += err;
}

static void usage(FILE *f)
{
	fprintf(f,
"usage: mdbench -d DIR [options]\n"
"\n"
"Metadata, small-file and large-file benchmark of one directory (of any file\n"
"system). Prints one row per phase:\n"
"  phase ops seconds ops_per_s p50_us p99_us max_us mib_per_s errors\n"
"\n"
"  -d, --dir DIR         directory to work in (made if absent)\n"
"  -t, --threads N       threads (%d)\n"
"  -n, --files N         files per thread, for each of create and write (%ld)\n"
"  -D, --depth N         depth of each thread's directory tree (%d; 0: one flat directory)\n"
"  -B, --branch N        sub-directories per directory (%d); files lie in the leaves\n"
"  -s, --size BYTES      size of a small file, at most 1 MiB (%u)\n"
"      --fsync           fsync each small file before its close\n"
"  -L, --large MIB       bytes of large files, all threads together (%ld MiB)\n"
"  -R, --rand N          random 4 KiB reads and writes per thread (%ld)\n"
"  -p, --phases LIST     comma-separated phases, run in the order given;\n"
"                        'all' = the default ones, 'meta' = those up to rmdir,\n"
"                        'large' = those from seqwrite\n"
"      --shared          all threads work in one shared tree\n"
"  -l, --label TEXT      label for --json\n"
"      --json FILE       also append one JSON object per phase to FILE ('-': stdout)\n"
"      --watch NAME=PID[,PID...]  report the CPU time and the resident memory of\n"
"                        these processes per phase (CPU is summed; may be repeated)\n"
"      --seed N          seed of the random orders (%u)\n"
"  -k, --keep-going      do not stop after 1000 errors in a phase\n"
"  -h, --help            this text\n"
"\n"
"Exit status: 0 without errors, 1 with, 2 on wrong use.\n"
"\nPhases (* = in the default list):\n", o.threads, o.files, o.depth, o.branch,
	o.small, o.large_mib, o.rand_ops, o.seed);
	for (int i = 0; i < P_N; i++)
		fprintf(f, "  %c %-12s %s\n", phases[i].dflt ? '*' : ' ', phases[i].name, phases[i].help);
	fprintf(f,
"\nCold stat: mdbench -d D -p mkdir,create; unmount and mount; mdbench -d D -p statcold.\n"
"All runs of one tree must use the same -t, -n, -D, -B and --shared.\n");
}

static long num(const char *s, long min, long max, const char *what)
{
	char *e;
	errno = 0;
	long v = strtol(s, &e, 10);
	if (errno || *e || e == s || v < min || v > max)
		die("%s: want a number from %ld to %ld, got '%s'", what, min, max, s);
	return v;
}

int main(int argc, char **argv)
{
	enum { OPT_FSYNC = 256, OPT_SHARED, OPT_JSON, OPT_WATCH, OPT_SEED };
	static const struct option lo[] = {
		{"dir", 1, 0, 'd'}, {"threads", 1, 0, 't'}, {"files", 1, 0, 'n'},
		{"depth", 1, 0, 'D'}, {"branch", 1, 0, 'B'}, {"size", 1, 0, 's'},
		{"fsync", 0, 0, OPT_FSYNC}, {"large", 1, 0, 'L'}, {"rand", 1, 0, 'R'},
		{"phases", 1, 0, 'p'}, {"shared", 0, 0, OPT_SHARED}, {"label", 1, 0, 'l'},
		{"json", 1, 0, OPT_JSON}, {"watch", 1, 0, OPT_WATCH}, {"seed", 1, 0, OPT_SEED},
		{"keep-going", 0, 0, 'k'}, {"help", 0, 0, 'h'}, {0, 0, 0, 0}
	};
	enum ph list[256];
	int nlist = 0, c;
	char *plist = NULL;

	while ((c = getopt_long(argc, argv, "d:t:n:D:B:s:L:R:p:l:kh", lo, NULL)) != -1)
		switch (c) {
		case 'd': o.dir = optarg; break;
		case 't': o.threads = (int)num(optarg, 1, 256, "--threads"); break;
		case 'n': o.files = num(optarg, 1, 100000000, "--files"); break;
		case 'D': o.depth = (int)num(optarg, 0, 8, "--depth"); break;
		case 'B': o.branch = (int)num(optarg, 1, 1000, "--branch"); break;
		case 's': o.small = (unsigned)num(optarg, 0, MIB, "--size"); break;
		case OPT_FSYNC: o.fsync_small = 1; break;
		case 'L': o.large_mib = num(optarg, 1, 1 << 22, "--large"); break;
		case 'R': o.rand_ops = num(optarg, 1, 100000000, "--rand"); break;
		case 'p': plist = optarg; break;
		case OPT_SHARED: o.shared = 1; break;
		case 'l': o.label = optarg; break;
		case OPT_JSON: o.json = optarg; break;
		case OPT_WATCH: add_watch(optarg); break;
		case OPT_SEED: o.seed = (unsigned)num(optarg, 0, 1 << 30, "--seed"); break;
		case 'k': o.keep_going = 1; break;
		case 'h': usage(stdout); return 0;
		default: usage(stderr); return 2;
		}
	if (!o.dir || optind != argc) {
		usage(stderr);
		return 2;
	}
	if (strlen(o.dir) > PATHMAX - 160)
		die("--dir too long");
	if (o.large_mib < o.threads)
		die("--large: at least 1 MiB per thread");
	double nd = 1, lvl = 1;
	for (int d = 0; d < o.depth; d++)
		nd += lvl *= o.branch;
	if (nd > 10e6)
		die("too many directories");
	if (!plist)
		plist = "all";
	char *pl = strdup(plist);
	for (char *s = strtok(pl, ","); s; s = strtok(NULL, ",")) {
		int all = !strcmp(s, "all"), meta = !strcmp(s, "meta"), large = !strcmp(s, "large"), hit = 0;
		for (int i = 0; i < P_N; i++)
			if ((!strcmp(s, phases[i].name) ||
			     (phases[i].dflt && (all || (meta && i <= P_RMDIR) || (large && i > P_RMDIR)))) &&
			    nlist < 256) {
				list[nlist++] = (enum ph)i;
				hit = 1;
			}
		if (!hit)
			die("unknown phase '%s' (see --help)", s);
	}
	free(pl);
	if (mkdir(o.dir, 0755) < 0 && errno != EEXIST)
		die("%s: %s", o.dir, strerror(errno));
	if (o.json) {
		jf = strcmp(o.json, "-") ? fopen(o.json, "a") : stdout;
		if (!jf)
			die("%s: %s", o.json, strerror(errno));
	}

	pthread_barrier_init(&bar, NULL, (unsigned)o.threads + 1);
	T = calloc((size_t)o.threads, sizeof *T);
	if (!T)
		die("out of memory");
	for (int i = 0; i < o.threads; i++) {
		struct thr *t = &T[i];
		t->id = i;
		t->rng = ((uint64_t)o.seed + 1) * 1000003u + (uint64_t)i * 7919u + 1;
		t->perm = xmalloc((size_t)o.files * sizeof *t->perm);
		if (posix_memalign((void **)&t->buf, 4096, MIB))
			die("out of memory");
		for (size_t k = 0; k < MIB; k += 8) {
			uint64_t r = rnd(&t->rng); /* incompressible */
			memcpy(t->buf + k, &r, 8);
		}
		build_dirs(t);
		int e = pthread_create(&t->tid, NULL, worker, t);
		if (e)
			die("pthread_create: %s", strerror(e));
	}
	printf("# mdbench %s threads %d files/thread %ld dirs/thread %d size %u%s large %ld MiB%s\n",
	       o.label, o.threads, o.files, T[0].ndirs, o.small, o.fsync_small ? " fsync" : "",
	       o.large_mib, o.shared ? " shared" : "");
	printf("# %-10s %8s %9s %11s %10s %10s %10s %8s %6s\n", "phase", "ops", "seconds",
	       "ops_per_s", "p50_us", "p99_us", "max_us", "mib_s", "errors");
	for (int i = 0; i < nlist; i++) {
		cur = list[i];
		pthread_barrier_wait(&bar);
		pthread_barrier_wait(&bar);      /* prepared */
		for (int w = 0; w < nW; w++)
			W[w].cpu0 = watch_cpu(w);
		pthread_barrier_wait(&bar);      /* go */
		pthread_barrier_wait(&bar);      /* done */
		report(list[i]);
	}
	quit = 1;
	pthread_barrier_wait(&bar);
	for (int i = 0; i < o.threads; i++)
		pthread_join(T[i].tid, NULL);
	if (jf && jf != stdout && fclose(jf))
		die("%s: %s", o.json, strerror(errno));
	return total_errors ? 1 : 0;
}
