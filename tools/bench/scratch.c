/* SPDX-License-Identifier: MIT */
/*
 * scratch.c - how fast scratch files (O_TMPFILE | O_EXCL) are in several directories: to make one (on ClaudeFS that is a durable
 * change of metadata), to open it again (/proc/self/fd) and close it, 1 MiB writes and reads, 4 KiB random reads and writes, loads from a mapping. The directories take turns, ROUNDS times, and each figure is the
 * best of a directory's rounds: so a machine that does other work disturbs all of them alike.
 *
 *	scratch [-n] [-s MIB] [-r ROUNDS] DIR...
 *
 * -n: the same with an ordinary file, DIR/named, that was made, written and read before: none is made, and it is opened by its name.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define DIRS_MAX	8
#define MADE		20u
#define OPENS		500u
#define SMALL		20000u		/* 4 KiB accesses in a round */
#define MIB		(1u << 20)

enum phase { MAKE, OPEN, WRITE_1M, READ_1M, WRITE_4K, READ_4K, LOAD_4K, PHASES };

static const char *const names[PHASES] = {
	[MAKE] = "make+close, us", [OPEN] = "open+close, us", [WRITE_1M] = "write 1M, MiB/s", [READ_1M] = "read 1M, MiB/s",
	[WRITE_4K] = "randwrite 4K, ops/s", [READ_4K] = "randread 4K, ops/s", [LOAD_4K] = "mapped load 4K, ops/s",
};

static unsigned mib = 128;
static int named;
static char *buf;
static uint64_t seed = 88172645463325252ull;

static void die(const char *what, const char *dir)
{
	fprintf(stderr, "scratch: %s in %s: %s\n", what, dir, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static off_t random_page(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (off_t)(seed % ((uint64_t)mib * MIB / 4096)) * 4096;
}

static int open_file(const char *dir)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/named", dir);
	fd = named ? open(path, O_RDWR | O_CLOEXEC) : open(dir, O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		die("open", dir);
	return fd;
}

static void whole(int fd, const char *dir, int write_it)
{
	for (unsigned i = 0; i < mib; i++) {
		ssize_t n = write_it ? pwrite(fd, buf, MIB, (off_t)i * MIB) : pread(fd, buf, MIB, (off_t)i * MIB);

		if (n != MIB)
			die(write_it ? "write" : "read", dir);
	}
}

static void small(int fd, const char *dir, int write_it)
{
	for (unsigned i = 0; i < SMALL; i++) {
		off_t at = random_page();
		ssize_t n = write_it ? pwrite(fd, buf, 4096, at) : pread(fd, buf, 4096, at);

		if (n != 4096)
			die(write_it ? "write" : "read", dir);
	}
}

static void loads(int fd, const char *dir)
{
	char *map = mmap(NULL, (size_t)mib * MIB, PROT_READ, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		die("mmap", dir);
	for (unsigned i = 0; i < SMALL; i++)
		memcpy(buf, map + random_page(), 4096);
	munmap(map, (size_t)mib * MIB);
}

static void reopen(int fd, const char *dir)
{
	char path[4096];

	if (named)
		snprintf(path, sizeof(path), "%s/named", dir);
	else
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	for (unsigned i = 0; i < OPENS; i++) {
		int again = open(path, O_RDWR | O_CLOEXEC);

		if (again < 0)
			die("open", dir);
		close(again);
	}
}

/* a file that a client has seen whole */
static void make_named(const char *dir)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/named", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		die("make", dir);
	whole(fd, dir, 1);
	whole(fd, dir, 0);
	if (fsync(fd) || close(fd))
		die("fsync", dir);
	sleep(1);	/* a RELEASE may come late */
}

/* one turn of a directory: figures, more is better but for those up to OPEN */
static void turn(const char *dir, double *v)
{
	double t = now();
	int fd;

	for (unsigned i = 0; i < MADE && !named; i++)
		close(open_file(dir));
	v[MAKE] = (now() - t) / MADE * 1e6;
	fd = open_file(dir);
	t = now();
	reopen(fd, dir);
	v[OPEN] = (now() - t) / OPENS * 1e6;
	whole(fd, dir, 1);	/* the second time is measured: no allocation of blocks */
	for (enum phase p = WRITE_1M; p < PHASES; p++) {
		t = now();
		if (p == WRITE_1M || p == READ_1M)
			whole(fd, dir, p == WRITE_1M);
		else if (p == LOAD_4K)
			loads(fd, dir);
		else
			small(fd, dir, p == WRITE_4K);
		t = now() - t;
		v[p] = (p == WRITE_1M || p == READ_1M ? mib : SMALL) / t;
	}
	close(fd);
}

int main(int argc, char **argv)
{
	double best[DIRS_MAX][PHASES] = { { 0 } }, v[PHASES];
	int rounds = 5, n, o;

	while ((o = getopt(argc, argv, "ns:r:")) != -1) {
		if (o == 'n')
			named = 1;
		else if (o == 's')
			mib = (unsigned)atoi(optarg);
		else if (o == 'r')
			rounds = atoi(optarg);
		else
			return 2;
	}
	n = argc - optind;
	buf = malloc(MIB);
	if (n < 1 || n > DIRS_MAX || !mib || rounds < 1 || !buf) {
		fprintf(stderr, "usage: scratch [-n] [-s MIB] [-r ROUNDS] DIR...\n");
		return 2;
	}
	memset(buf, 'x', MIB);
	for (int i = 0; i < n && named; i++)
		make_named(argv[optind + i]);
	for (int r = 0; r < rounds; r++)
		for (int i = 0; i < n; i++) {
			turn(argv[optind + i], v);
			for (enum phase p = 0; p < PHASES; p++)
				if (!r || (p <= OPEN ? v[p] < best[i][p] : v[p] > best[i][p]))
					best[i][p] = v[p];
		}
	for (enum phase p = named ? OPEN : MAKE; p < PHASES; p++) {
		printf("%-24s", names[p]);
		for (int i = 0; i < n; i++)
			printf(" %12.0f", best[i][p]);
		for (int i = 1; i < n; i++)
			printf(" %8.2f", best[i][p] / best[0][p]);
		printf("\n");
	}
	return 0;
}
