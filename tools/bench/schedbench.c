/* SPDX-License-Identifier: MIT */
/*
 * schedbench.c - what the server's scheduler (user/sched/sched.h) does for requests while every CPU is busy with bulk work.
 *
 *	schedbench [--mode ext|off|both] [--seconds N] [--rounds N] [--period-us N] [--work-us N] [--bulk N] [--check] [--verbose]
 *
 * A process of its own sends a request every period; a META thread takes it and works for a while; N BULK threads (two for each CPU)
 * compute without end. A request's time is from when it was sent until it was done. Rounds of both modes take turns;
 * medians over the rounds are printed, and the ratios to the default class. --check ends with 1 unless p99 is at most
 * 0.5 of the default's and bulk work at least 0.9 of it; with 77 where there is no sched_ext.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "base/log.h"
#include "sched/sched.h"

#define ROUNDS_MAX 15u
#define BULK_MAX 256u
#define SAMPLES_MAX 1000000u
#define EXIT_SKIP 77
#define NSEC_PER_USEC 1000ull

static unsigned seconds = 3, rounds = 3, period_us = 2000, work_us = 200, bulk;
static uint64_t samples[SAMPLES_MAX];	/* ns */
static atomic_bool stopping;

struct result {
	double p50_us, p99_us, bulk_per_s;
};

static __attribute__((noreturn, format(printf, 1, 2))) void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("schedbench: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(1);
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * CFS_NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

/* work that takes CPU, not time */
static void burn(uint64_t ns)
{
	uint64_t end = clock_ns(CLOCK_THREAD_CPUTIME_ID) + ns;

	while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < end)
		;
}

static void *bulk_main(void *arg)
{
	uint64_t *done = arg, x = 88172645463325252ull;

	while (!atomic_load_explicit(&stopping, memory_order_relaxed)) {
		for (unsigned i = 0; i < 20000; i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
		}
		*done += 1 + (x == 0);
	}
	return NULL;
}

/* sends a request every period, whether or not the last was answered */
static pid_t start_sender(int fd)
{
	struct timespec at;
	pid_t pid = fork();
	uint64_t due, now;

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	due = clock_ns(CLOCK_MONOTONIC);
	for (;;) {
		due += period_us * NSEC_PER_USEC;
		at = (struct timespec){ (time_t)(due / CFS_NSEC_PER_SEC), (long)(due % CFS_NSEC_PER_SEC) };
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
		now = clock_ns(CLOCK_MONOTONIC);	/* how late the sender itself runs is not the server's doing */
		if (send(fd, &now, sizeof(now), MSG_NOSIGNAL) != sizeof(now))
			_exit(0);
		due = now > due + period_us * NSEC_PER_USEC ? now : due;
	}
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static struct result run(bool ext)
{
	static uint64_t counts[BULK_MAX * 8];	/* a cache line each */
	pthread_t threads[BULK_MAX];
	struct cfs_sched *s = NULL;
	struct result r;
	char why[CFS_SCHED_WHY];
	uint64_t sent, start, end;
	size_t n = 0;
	pid_t sender;
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds))
		die("socketpair: %s", strerror(errno));
	sender = start_sender(fds[1]);
	if (sender < 0)
		die("fork: %s", strerror(errno));
	close(fds[1]);
	if (ext && cfs_sched_start(CFS_SCHED_EXT, why, sizeof(why), &s))
		die("%s", why);
	if (ext)
		cfs_sched_tunables(s)->give_up_ns = 0;
	memset(counts, 0, sizeof(counts));
	atomic_store(&stopping, false);
	for (unsigned i = 0; i < bulk; i++)
		if (pthread_create(&threads[i], NULL, bulk_main, &counts[i * 8]))
			die("pthread_create: %s", strerror(errno));
	start = clock_ns(CLOCK_MONOTONIC) + CFS_NSEC_PER_SEC / 4;	/* what was sent before is not counted */
	end = start + seconds * CFS_NSEC_PER_SEC;
	while (clock_ns(CLOCK_MONOTONIC) < end && n < SAMPLES_MAX) {
		if (recv(fds[0], &sent, sizeof(sent), 0) != sizeof(sent))
			die("the sender is gone");
		if (sent < start)
			continue;
		burn(work_us * NSEC_PER_USEC);
		samples[n++] = clock_ns(CLOCK_MONOTONIC) - sent;
	}
	atomic_store(&stopping, true);
	for (unsigned i = 0; i < bulk; i++)
		pthread_join(threads[i], NULL);
	kill(sender, SIGKILL);
	waitpid(sender, NULL, 0);
	close(fds[0]);
	if (ext && cfs_sched_check(s))
		die("the scheduler is %s", cfs_sched_text(s));
	cfs_sched_stop(s);
	qsort(samples, n, sizeof(samples[0]), by_size);
	if (n < 20)
		die("only %zu requests in %u s", n, seconds);
	r = (struct result){ (double)samples[n / 2] / 1000, (double)samples[n * 99 / 100] / 1000, 0 };
	for (unsigned i = 0; i < bulk; i++)
		r.bulk_per_s += (double)counts[i * 8] / seconds;
	printf("%-4s %6zu requests  p50 %8.0f us  p99 %8.0f us  bulk %8.1f /s\n", ext ? "ext" : "off", n, r.p50_us,
	       r.p99_us, r.bulk_per_s);
	fflush(stdout);
	return r;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}
static double median(const struct result *r, size_t offset)
{
	double v[ROUNDS_MAX];

	for (unsigned i = 0; i < rounds; i++)
		memcpy(&v[i], (const char *)&r[i] + offset, sizeof(v[i]));
	qsort(v, rounds, sizeof(v[0]), by_value);
	return v[rounds / 2];
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "mode", required_argument, NULL, 'm' }, { "seconds", required_argument, NULL, 's' },
		{ "rounds", required_argument, NULL, 'r' }, { "period-us", required_argument, NULL, 'p' },
		{ "work-us", required_argument, NULL, 'w' }, { "bulk", required_argument, NULL, 'b' },
		{ "check", no_argument, NULL, 'c' }, { "verbose", no_argument, NULL, 'v' }, { 0 },
	};
	struct result off[ROUNDS_MAX], ext[ROUNDS_MAX];
	const char *mode = "both";
	double p99, rate;
	char why[CFS_SCHED_WHY];
	bool check = false;
	int c;

	bulk = 2 * (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		unsigned v = optarg ? (unsigned)strtoul(optarg, NULL, 10) : 0;

		switch (c) {
		case 'm': mode = optarg; break;
		case 's': seconds = v; break;
		case 'r': rounds = v; break;
		case 'p': period_us = v; break;
		case 'w': work_us = v; break;
		case 'b': bulk = v; break;
		case 'v': cfs_log_init("schedbench", NULL, CFS_LOG_DEBUG); break;
		case 'c': check = true; break;
		default: return 2;
		}
	}
	if (!seconds || !rounds || rounds > ROUNDS_MAX || !period_us || bulk > BULK_MAX)
		die("seconds, period: at least 1; rounds: 1 to %u; bulk: at most %u", ROUNDS_MAX, BULK_MAX);
	if (strcmp(mode, "off") && !cfs_sched_possible(why, sizeof(why))) {
		printf("no scheduler: %s\n", why);
		return EXIT_SKIP;
	}
	for (unsigned i = 0; i < rounds; i++) {
		if (strcmp(mode, "ext"))
			off[i] = run(false);
		if (strcmp(mode, "off"))
			ext[i] = run(true);
	}
	if (strcmp(mode, "both"))
		return 0;
	p99 = median(ext, offsetof(struct result, p99_us)) / median(off, offsetof(struct result, p99_us));
	rate = median(ext, offsetof(struct result, bulk_per_s)) / median(off, offsetof(struct result, bulk_per_s));
	printf("ext to off: p99 %.2f, bulk %.2f\n", p99, rate);
	return check && (p99 > 0.5 || rate < 0.9);
}
