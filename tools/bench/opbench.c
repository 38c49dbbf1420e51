/* SPDX-License-Identifier: MIT */
/*
 * opbench.c - how often a second threads get one system call answered: opbench OP THREADS SECONDS DIR prints one number.
 *
 *   stat      stat by name            statsync  the file's attributes, asking the file system (AT_STATX_FORCE_SYNC)
 *   open      open and close          absent    stat of a name that is not there
 *
 * Each thread has a file of its own in DIR, made at the start and removed at the end. Threads run from one barrier until the clock
 * of the first says that it is time; state is theirs but for the flag that ends them.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 64

static bool stop;
static pthread_barrier_t barrier;

struct worker {
	pthread_t thread;
	const struct op *op;
	char path[512];
	uint64_t n;
	int err;
};

static int op_stat(const char *path)
{
	struct stat st;

	return stat(path, &st) ? errno : 0;
}

static int op_statsync(const char *path)
{
	struct statx sx;

	return statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &sx) ? errno : 0;
}

static int op_open(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 || close(fd) ? errno : 0;
}

static int op_absent(const char *path)
{
	char name[520];
	struct stat st;

	snprintf(name, sizeof(name), "%s.no", path);
	return stat(name, &st) && errno == ENOENT ? 0 : EEXIST;
}

static const struct op {
	const char *name;
	int (*run)(const char *path);
} ops[] = { { "stat", op_stat }, { "statsync", op_statsync }, { "open", op_open }, { "absent", op_absent } };

static void *work(void *arg)
{
	struct worker *w = arg;

	pthread_barrier_wait(&barrier);
	while (!w->err && !__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		w->err = w->op->run(w->path);
		w->n++;
	}
	return NULL;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	int n = argc == 5 ? atoi(argv[2]) : 0, fd;
	double seconds = argc == 5 ? atof(argv[3]) : 0, start;
	static struct worker w[THREADS_MAX];
	const struct op *op = NULL;
	uint64_t total = 0;

	for (size_t i = 0; argc == 5 && i < sizeof(ops) / sizeof(ops[0]); i++)
		if (!strcmp(argv[1], ops[i].name))
			op = &ops[i];
	if (!op || n < 1 || n > THREADS_MAX || seconds <= 0) {
		fprintf(stderr, "Usage: opbench stat|statsync|open|absent THREADS SECONDS DIR\n");
		return 2;
	}
	pthread_barrier_init(&barrier, NULL, (unsigned)n + 1);
	for (int i = 0; i < n; i++) {
		w[i].op = op;
		snprintf(w[i].path, sizeof(w[i].path), "%s/opbench.%d", argv[4], i);
		fd = open(w[i].path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
		if (fd < 0 || close(fd)) {
			fprintf(stderr, "opbench: %s: %s\n", w[i].path, strerror(errno));
			return 1;
		}
		if (pthread_create(&w[i].thread, NULL, work, &w[i])) {
			fprintf(stderr, "opbench: cannot start threads\n");
			return 1;
		}
	}
	pthread_barrier_wait(&barrier);
	start = now();
	usleep((useconds_t)(seconds * 1e6));
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < n; i++) {
		pthread_join(w[i].thread, NULL);
		total += w[i].n;
		if (w[i].err) {
			fprintf(stderr, "opbench: %s %s: %s\n", op->name, w[i].path, strerror(w[i].err));
			return 1;
		}
	}
	printf("%.0f\n", (double)total / (now() - start));
	for (int i = 0; i < n; i++)
		unlink(w[i].path);
	return 0;
}
