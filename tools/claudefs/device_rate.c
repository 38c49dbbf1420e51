/* SPDX-License-Identifier: MIT */
/*
 * device_rate.c - what a load cost, of the wall's clock and of the processor's.
 */
#include "device.h"

#include <time.h>

#include "base/base.h"

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * CFS_NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

struct device_clock device_clock_now(void)
{
	return (struct device_clock){ clock_ns(CLOCK_MONOTONIC), clock_ns(CLOCK_PROCESS_CPUTIME_ID) };
}

void device_rate_set(struct device_rate *rate, struct device_clock since, uint64_t requests, uint32_t depth)
{
	struct device_clock now = device_clock_now();
	double wall = (double)(now.wall_ns - since.wall_ns);

	if (!requests || wall <= 0)
		return;
	rate->per_second = (double)requests * 1e9 / wall;
	rate->latency_us = wall * depth / (double)requests / 1e3;
	rate->cpu_ns = (double)(now.cpu_ns - since.cpu_ns) / (double)requests;
}
