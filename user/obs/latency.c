// SPDX-License-Identifier: MIT
/* latency.c - see latency.h. */
#include "obs/latency.h"

#include "base/base.h"
#include "obs/prom.h"

#include <jansson.h>
#include <stdio.h>

#define LABELS_BYTES	4500u		/* a mount point, escaped, and what is added here */
#define BUCKET_STEP	4u		/* buckets in one line of Prometheus: a factor of two */

uint64_t cfs_latency_percentile_ns(const struct cfs_bpf_op *op, unsigned permille)
{
	uint64_t all = 0, wanted, seen = 0;

	for (uint32_t b = 0; b < CFS_BPF_LATS; b++)
		all += op->lat[b];
	wanted = (all * permille + 999) / 1000;
	for (uint32_t b = 0; b < CFS_BPF_LATS && all; b++) {
		seen += op->lat[b];
		if (seen >= wanted && seen)
			return cfs_bpf_lat_bound_ns(b);
	}
	return 0;
}

static json_t *integer(uint64_t v)
{
	return json_integer((json_int_t)v);
}

json_t *cfs_latency_json(const struct cfs_bpf_op *op)
{
	json_t *lat = json_array();

	for (uint32_t b = 0; b < CFS_BPF_LATS; b++)
		if (op->lat[b])
			json_array_append_new(lat, json_pack("[i, o]", (int)b, integer(op->lat[b])));
	return json_pack("{s:o, s:o, s:o, s:o, s:o}", "count", integer(op->count), "errors", integer(op->errors), "total_ns",
			 integer(op->total_ns), "max_ns", integer(op->max_ns), "latency", lat);
}

static uint64_t number(json_t *o, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(o, key));
}

void cfs_latency_from_json(json_t *o, struct cfs_bpf_op *ret_op)
{
	json_t *pair;
	size_t i;

	*ret_op = (struct cfs_bpf_op){ .count = number(o, "count"), .errors = number(o, "errors"),
				       .total_ns = number(o, "total_ns"), .max_ns = number(o, "max_ns") };
	json_array_foreach(json_object_get(o, "latency"), i, pair) {
		json_int_t b = json_integer_value(json_array_get(pair, 0));

		if (b >= 0 && b < (json_int_t)CFS_BPF_LATS)
			ret_op->lat[b] = (uint64_t)json_integer_value(json_array_get(pair, 1));
	}
}

static void line(struct cfs_prom *p, const char *metric, const char *suffix, const char *common, const char *op, const char *le,
		 double v)
{
	char labels[LABELS_BYTES], name[128];

	snprintf(name, sizeof(name), "%s%s", metric, suffix);
	snprintf(labels, sizeof(labels), "%s", common);
	cfs_prom_label(labels, sizeof(labels), "op", op);
	if (le)
		cfs_prom_label(labels, sizeof(labels), "le", le);
	cfs_prom_line(p, name, labels, v);
}

void cfs_latency_prom(struct cfs_prom *p, const char *metric, const char *common, const char *op, const struct cfs_bpf_op *o)
{
	uint64_t seen = 0;
	char le[32];

	for (uint32_t b = 0; b < CFS_BPF_LATS - 1; b++) {
		seen += o->lat[b];
		if (b % BUCKET_STEP)
			continue;
		snprintf(le, sizeof(le), "%.9g", (double)cfs_bpf_lat_bound_ns(b) / 1e9);
		line(p, metric, "_bucket", common, op, le, (double)seen);
	}
	seen += o->lat[CFS_BPF_LATS - 1];
	line(p, metric, "_bucket", common, op, "+Inf", (double)seen);
	line(p, metric, "_sum", common, op, NULL, (double)o->total_ns / 1e9);
	line(p, metric, "_count", common, op, NULL, (double)seen);
}
