/* SPDX-License-Identifier: MIT */
/*
 * device.h - the parts of `claudefs device`: cmd_device.c (verbs, list), device_bench.c (loads),
 * device_bare.c (bare commands), device_rate.c (clocks).
 */
#ifndef CFS_TOOLS_DEVICE_H
#define CFS_TOOLS_DEVICE_H

#include "dev/dev.h"

/* one load; the same for every way to the drive */
struct device_load {
	const char *name;
	enum cfs_dev_op op;
	uint32_t flags;		/* of the requests */
	uint32_t bytes, depth;
	bool random;
	bool destructive;
};
#define DEVICE_DEPTH_MAX 64u

struct device_rate {
	double per_second;	/* requests */
	double latency_us;	/* mean */
	double cpu_ns;		/* processor time of this process for one request, in user and kernel mode */
	int err;		/* 0, or the -errno that ended it; then the rest means nothing */
};

/* through a back end of the server; registered buffers where it can use them */
void device_run_backend(struct cfs_loop *loop, struct cfs_dev *dev, const struct device_load *load,
			uint64_t span_bytes, double seconds, struct device_rate *ret);
/*
 * The drive's own limit: bare read or write commands from registered buffers, by a loop that does nothing else.
 * @generic: /dev/ngXnY
 */
void device_run_bare(const char *generic, const struct device_load *load, uint64_t span_bytes, double seconds,
		     struct device_rate *ret);

struct device_clock {
	uint64_t wall_ns, cpu_ns;
};
struct device_clock device_clock_now(void);
void device_rate_set(struct device_rate *rate, struct device_clock since, uint64_t requests, uint32_t depth);

int device_bench(int argc, char **argv);	/* `claudefs device bench`: the program's exit code */

#endif
