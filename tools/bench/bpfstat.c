// SPDX-License-Identifier: MIT
/*
 * bpfstat.c COUNT FILE [CTL]: nanoseconds that one stat() of FILE takes, least of several runs. With CTL, the pinned map `ctl`
 * of the mount (/sys/fs/bpf/claudefs/<mount>/maps/ctl), the kernel is let keep nothing: each stat() is then a look-up and
 * attributes that the bpf tier answers. In an emulator that counts instructions as nanoseconds, these are instructions.
 */
#include <claudefs/bpf_shared.h>

#include <bpf/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RUNS 5

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int main(int argc, char **argv)
{
	struct cfs_bpf_ctl *ctl = NULL;
	uint64_t best = UINT64_MAX;
	unsigned long count = argc > 2 ? strtoul(argv[1], NULL, 10) : 0;
	struct stat st;

	if (!count) {
		fprintf(stderr, "usage: bpfstat COUNT FILE [CTL]\n");
		return 2;
	}
	if (argc > 3) {
		int fd = bpf_obj_get(argv[3]);

		ctl = fd < 0 ? MAP_FAILED : mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (ctl == MAP_FAILED) {
			perror(argv[3]);
			return 1;
		}
	}
	for (int r = 0; r < RUNS; r++) {
		uint64_t start = now_ns(), took;

		for (unsigned long i = 0; i < count; i++) {
			if (ctl)	/* the client stores another time with every heartbeat */
				__atomic_store_n(&ctl->until_ns, 0, __ATOMIC_RELAXED);
			if (stat(argv[2], &st)) {
				perror(argv[2]);
				return 1;
			}
		}
		took = (now_ns() - start) / count;
		best = took < best ? took : best;
	}
	printf("%llu\n", (unsigned long long)best);
	return 0;
}
