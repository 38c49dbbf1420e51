/* SPDX-License-Identifier: MIT */
/*
 * sharedbench.c - how fast several mounts write one file at the same time. A process on each mount writes records of its own, in
 * turns with the others' (as the ranks of a program that checkpoints into one file), or appends lines to it. The time ends when all have
 * fsynced, so that nothing counts that is only in a cache. Prints operations a second and MiB/s.
 *
 *	sharedbench [-s SECONDS] -b BYTES [-a] MOUNT...
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define MOUNTS_MAX 16

static struct shared {
	atomic_uint ready;
	atomic_ullong ops;
} *shared;

static void die(const char *what, const char *path)
{
	fprintf(stderr, "sharedbench: %s of %s: %s\n", what, path, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void work(const char *path, unsigned id, unsigned n, size_t bytes, bool append, double seconds)
{
	int fd = open(path, (append ? O_WRONLY | O_APPEND : O_RDWR) | O_CLOEXEC);
	char *buf = malloc(bytes);
	double end;

	if (fd < 0 || !buf)
		die("open", path);
	memset(buf, 'a' + (int)id, bytes);
	shared->ready++;
	while (shared->ready < n)
		sched_yield();
	end = now() + seconds;
	for (uint64_t i = 0; now() < end; i++) {
		ssize_t rc = append ? write(fd, buf, bytes) : pwrite(fd, buf, bytes, (off_t)((i * n + id) * bytes));

		if (rc != (ssize_t)bytes)
			die("write", path);
		shared->ops++;
	}
	if (fsync(fd))
		die("fsync", path);
	close(fd);
	exit(0);
}

int main(int argc, char **argv)
{
	char path[MOUNTS_MAX][4096];
	double seconds = 5, t0;
	bool append = false;
	size_t bytes = 0;
	unsigned n;
	int c, fd, status, failed = 0;

	while ((c = getopt(argc, argv, "s:b:a")) != -1) {
		switch (c) {
		case 's': seconds = atof(optarg); break;
		case 'b': bytes = strtoul(optarg, NULL, 0); break;
		case 'a': append = true; break;
		default: return 2;
		}
	}
	n = (unsigned)(argc - optind);
	if (!bytes || seconds <= 0 || !n || n > MOUNTS_MAX) {
		fprintf(stderr, "usage: sharedbench [-s SECONDS] -b BYTES [-a] MOUNT...\n");
		return 2;
	}
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("mmap", "memory");
	for (unsigned i = 0; i < n; i++)
		snprintf(path[i], sizeof(path[i]), "%s/sharedbench.%d", argv[optind + (int)i], (int)getpid());
	fd = open(path[0], O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
	if (fd < 0)
		die("create", path[0]);
	close(fd);
	t0 = now();
	for (unsigned i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork", path[i]);
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			work(path[i], i, n, bytes, append, seconds);
		}
	}
	for (unsigned i = 0; i < n; i++)
		failed |= wait(&status) < 0 || status;
	t0 = now() - t0;
	unlink(path[0]);
	if (failed)
		return 1;
	printf("%.0f %.1f\n", (double)shared->ops / t0, (double)shared->ops * (double)bytes / t0 / 1048576);
	return 0;
}
