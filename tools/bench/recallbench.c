/* SPDX-License-Identifier: MIT */
/*
 * recallbench.c COUNT A B: what a change through one mount costs when another has to be told first. A and B are the same directory in two
 * mounts; the file "f" is in it. For each of COUNT rounds A learns of "f" and that there is no "n", then B changes the mode of "f",
 * makes "n" and removes it: three changes, each with a recall of what A knows. Prints the median of their sum in nanoseconds; in an
 * emulator that counts instructions as nanoseconds, these are instructions.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS_MAX 10000ul

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void must(int rc, const char *what)
{
	if (!rc)
		return;
	perror(what);
	exit(1);
}

int main(int argc, char **argv)
{
	static uint64_t took[ROUNDS_MAX];
	unsigned long count = argc == 4 ? strtoul(argv[1], NULL, 10) : 0;
	char af[4096], an[4096], bf[4096], bn[4096];
	struct stat st;

	if (!count || count > ROUNDS_MAX) {
		fprintf(stderr, "usage: recallbench COUNT A B (COUNT up to %lu)\n", ROUNDS_MAX);
		return 2;
	}
	snprintf(af, sizeof(af), "%s/f", argv[2]);
	snprintf(an, sizeof(an), "%s/n", argv[2]);
	snprintf(bf, sizeof(bf), "%s/f", argv[3]);
	snprintf(bn, sizeof(bn), "%s/n", argv[3]);
	for (unsigned long i = 0; i < count; i++) {
		mode_t mode = i % 2 ? 0600 : 0640;
		uint64_t t;

		must(stat(af, &st), af);
		if (!stat(an, &st) || errno != ENOENT) {
			fprintf(stderr, "%s: is there\n", an);
			return 1;
		}
		t = now_ns();
		must(chmod(bf, mode), bf);
		must(mkfifo(bn, 0600), bn);
		took[i] = now_ns() - t;
		must(stat(af, &st), af);
		if ((st.st_mode & 07777) != mode) {
			fprintf(stderr, "%s: an old mode\n", af);
			return 1;
		}
		must(stat(an, &st), an);
		t = now_ns();
		must(unlink(bn), bn);
		took[i] += now_ns() - t;
	}
	qsort(took, count, sizeof(took[0]), by_size);
	printf("%llu\n", (unsigned long long)took[count / 2]);
	return 0;
}
