/* SPDX-License-Identifier: MIT */
/*
 * floor.c - what a metadata operation cannot be faster than on this machine: one loopback
 * round trip between two processes, and one durable journal write.
 *
 *     floor DIR [SECONDS]     prints: name, operations/s, p50 and p99 in microseconds
 *
 * The journal write is 4 KiB, O_DIRECT and RWF_DSYNC, in turn over a 16 MiB file in DIR that was
 * written before, as a journal segment is.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SAMPLES_MAX 2000000u
#define MSG 256
#define FILE_BYTES (16u << 20)

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int cmp(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

/* calls op(arg) for some seconds and prints the row */
static int measure(const char *name, double seconds, int (*op)(void *arg), void *arg)
{
	float *us = malloc(SAMPLES_MAX * sizeof(*us));
	double start = now_s(), t = start;
	size_t n = 0;

	if (!us)
		return 1;
	while (t - start < seconds && n < SAMPLES_MAX) {
		double t2;

		if (op(arg)) {
			fprintf(stderr, "floor: %s: %s\n", name, strerror(errno));
			free(us);
			return 1;
		}
		t2 = now_s();
		us[n++] = (float)((t2 - t) * 1e6);
		t = t2;
	}
	qsort(us, n, sizeof(*us), cmp);
	printf("%-16s %10.0f %8.1f %8.1f\n", name, (double)n / (t - start), us[n / 2], us[n * 99 / 100]);
	free(us);
	return 0;
}

static int transfer(int fd)
{
	char buf[MSG] = { 0 };

	return send(fd, buf, MSG, MSG_NOSIGNAL) != MSG || recv(fd, buf, MSG, MSG_WAITALL) != MSG;
}

static int ping(void *arg)
{
	return transfer(*(int *)arg);
}

static int net_floor(double seconds)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int l = socket(AF_INET, SOCK_STREAM, 0), s, one = 1, rc;
	socklen_t len = sizeof(sa);
	pid_t pid;

	if (l < 0 || bind(l, (void *)&sa, len) || listen(l, 1) || getsockname(l, (void *)&sa, &len)) {
		perror("floor: loopback");
		return 1;
	}
	pid = fork();
	if (pid == 0) {
		char buf[MSG];

		s = accept(l, NULL, NULL);
		setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		while (recv(s, buf, MSG, MSG_WAITALL) == MSG && send(s, buf, MSG, MSG_NOSIGNAL) == MSG)
			;
		_exit(0);
	}
	s = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (pid < 0 || connect(s, (void *)&sa, len)) {
		perror("floor: loopback");
		return 1;
	}
	rc = measure("loopback", seconds, ping, &s);
	close(s);
	close(l);
	waitpid(pid, NULL, 0);
	return rc;
}

struct journal {
	int fd;
	void *buf;
	off_t off;
};

static int journal_write(void *arg)
{
	struct journal *j = arg;
	struct iovec iov = { .iov_base = j->buf, .iov_len = 4096 };
	ssize_t n = pwritev2(j->fd, &iov, 1, j->off, RWF_DSYNC);

	j->off = (j->off + 4096) % FILE_BYTES;
	return n != 4096;
}

static int disk_floor(const char *dir, double seconds)
{
	struct journal j = { .fd = -1 };
	char path[4096];
	int rc = 1;

	snprintf(path, sizeof(path), "%s/floor.tmp", dir);
	j.fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_DIRECT, 0600);
	if (j.fd < 0 || posix_memalign(&j.buf, 4096, 1 << 20)) {
		perror(path);
		return 1;
	}
	memset(j.buf, 0, 1 << 20);
	for (off_t off = 0; off < (off_t)FILE_BYTES; off += 1 << 20)
		if (pwrite(j.fd, j.buf, 1 << 20, off) != 1 << 20)
			goto out;
	if (!fsync(j.fd))
		rc = measure("journal write", seconds, journal_write, &j);
out:
	close(j.fd);
	unlink(path);
	free(j.buf);
	return rc;
}

int main(int argc, char **argv)
{
	double seconds = argc > 2 ? atof(argv[2]) : 2;

	if (argc < 2 || argv[1][0] == '-' || seconds <= 0 || seconds > 60) {
		fprintf(stderr, "usage: floor DIR [SECONDS]\n");
		return 2;
	}
	printf("%-16s %10s %8s %8s\n", "floor", "ops/s", "p50 us", "p99 us");
	return net_floor(seconds) || disk_floor(argv[1], seconds);
}
