/* SPDX-License-Identifier: MIT */
/*
 * latency.h - what can be done with the latencies of an operation, counted in the buckets of claudefs/bpf_shared.h (struct
 * cfs_bpf_op): percentiles, JSON, a Prometheus histogram. Pure functions; whoever counts says who may count at once.
 */
#ifndef CFS_USER_OBS_LATENCY_H
#define CFS_USER_OBS_LATENCY_H

#include "claudefs/bpf_shared.h"

#include <stdint.h>

struct cfs_prom;
struct json_t;

/* the latency that `permille` of the requests did not exceed, rounded up to a bucket's bound; 0 when there were none */
uint64_t cfs_latency_percentile_ns(const struct cfs_bpf_op *op, unsigned permille);

/* { "count", "errors", "total_ns", "max_ns", "latency": [[bucket, count], ...] }, buckets that are not empty; NULL: no memory */
struct json_t *cfs_latency_json(const struct cfs_bpf_op *op);
/* the other way; what is missing or no number is 0 */
void cfs_latency_from_json(struct json_t *o, struct cfs_bpf_op *ret_op);

/* the lines of a histogram `metric` (in seconds; its head is the caller's) with the labels `common` and op="..." */
void cfs_latency_prom(struct cfs_prom *p, const char *metric, const char *common, const char *op, const struct cfs_bpf_op *o);

#endif
