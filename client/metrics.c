// SPDX-License-Identifier: MIT
/* metrics.c - see metrics.h. */
#include "client/metrics.h"

#include "client/client_i.h"
#include "client/mount.h"
#include "client/opstat.h"
#include "client/report.h"
#include "obs/http.h"
#include "obs/latency.h"
#include "obs/prom.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define LABELS_BYTES	4300u		/* a path, escaped, fits */

struct cfs_metrics {
	struct cfs_client *c;
	const struct cfs_mount_opts *o;
	struct cfs_http *http;
};

#define COUNTER CFS_PROM_COUNTS
#define GAUGE CFS_PROM_GAUGES

static const struct cfs_prom_row rows[] = {
	GAUGE("state", "session_live", "1 while the mount has a session with its server.", .is = "live"),
	GAUGE("lease_left_ms", "lease_remaining_seconds", "Until what is cached may be used without asking.", .scale = 0.001),
	GAUGE("workers", "workers", "Threads that serve requests."),
	GAUGE("workers_idle", "workers_idle", "Threads that wait for requests."),
	COUNTER("requests.*", "rpc_requests_total", "Requests to servers.", .labels = "op"),
	COUNTER("connects", "rpc_connects_total", "Connections made to servers."),
	COUNTER("retries", "rpc_retries_total", "Requests sent again."),
	COUNTER("sessions_lost", "sessions_lost_total", "Sessions that the server closed: what was cached was dropped."),
	GAUGE("cache.directories", "cache_directories", "Directories under a lease."),
	GAUGE("cache.names", "cache_names", "Names cached, present and absent."),
	GAUGE("cache.attributes", "cache_attributes", "Inodes whose attributes are cached."),
	COUNTER("cache.evictions", "cache_evictions_total", "Entries dropped to make room."),
	COUNTER("cache.lookups_answered", "cache_lookup_hits_total", "Lookups answered without the server."),
	COUNTER("cache.absent_answered", "cache_absent_hits_total", "Lookups of absent names answered without the server."),
	COUNTER("cache.getattrs_answered", "cache_getattr_hits_total", "Getattrs answered without the server."),
	COUNTER("cache.xattrs_answered", "cache_xattr_hits_total", "Extended attributes known to be absent."),
	COUNTER("leases.breaks", "lease_recalls_total", "Recalls by the server."),
	COUNTER("leases.break_items", "lease_recall_items_total", "Things recalled."),
	COUNTER("leases.asks", "lease_questions_total", "Questions of the server about files held exclusively."),
	COUNTER("leases.reclaims", "lease_reclaims_total", "Times all leases were claimed anew from a new leader."),
	COUNTER("leases.inval_entry", "kernel_invalidated_names_total", "Names taken out of the kernel's cache."),
	COUNTER("leases.inval_inode", "kernel_invalidated_inodes_total", "Inodes taken out of the kernel's cache."),
	GAUGE("data.cached_bytes", "data_cached_bytes", "File data in the local cache."),
	GAUGE("data.dirty_bytes", "data_dirty_bytes", "Of it, written and not yet at the server."),
	COUNTER("data.reads_cache", "data_reads_cached_total", "Reads answered from the local cache."),
	COUNTER("data.reads_net", "data_reads_fetched_total", "Reads that needed a server."),
	COUNTER("data.read_net_bytes", "data_fetched_bytes_total", "File data fetched from servers."),
	COUNTER("data.written_net_bytes", "data_flushed_bytes_total", "File data sent to servers."),
	COUNTER("data.commits", "data_commits_total", "Requests that committed file data."),
	GAUGE("tiers.*.state", "tier_on", "1 while the tier is used.", .labels = "tier", .is = "on"),
	COUNTER("tiers.*.*", "tier_events_total", "A tier's own counters.", .labels = "tier,event"),
};

static void put_ops(struct cfs_prom *p, struct cfs_client *c, const char *common)
{
	struct cfs_bpf_op *ops = calloc(CFS_BPF_OPS, sizeof(*ops));
	char labels[LABELS_BYTES + 64], buf[16];

	if (!ops)
		return;
	cfs_opstat_sum(c->opstat, ops);
	cfs_prom_head(p, "claudefs_fuse_request_errors_total", "counter", "Requests of the kernel that were answered with an error.");
	for (uint32_t op = 0; op < CFS_BPF_OPS; op++) {
		if (!ops[op].count)
			continue;
		snprintf(labels, sizeof(labels), "%s", common);
		cfs_prom_label(labels, sizeof(labels), "op", cfs_opstat_name(op, buf));
		cfs_prom_line(p, "claudefs_fuse_request_errors_total", labels, (double)ops[op].errors);
	}
	cfs_prom_head(p, "claudefs_fuse_request_duration_seconds", "histogram",
		      "Requests of the kernel, from when the daemon took them to its answer.");
	for (uint32_t op = 0; op < CFS_BPF_OPS; op++)
		if (ops[op].count)
			cfs_latency_prom(p, "claudefs_fuse_request_duration_seconds", common, cfs_opstat_name(op, buf), &ops[op]);
	free(ops);
}

char *cfs_metrics_page(struct cfs_client *c, const struct cfs_mount_opts *o, size_t *ret_len)
{
	char labels[LABELS_BYTES] = "";
	struct cfs_prom p = { 0 };
	json_t *doc = cfs_report(c, o);

	cfs_prom_label(labels, sizeof(labels), "mount", o->mountpoint);
	cfs_prom_rows(&p, doc, rows, CFS_ARRAY_SIZE(rows), labels);
	put_ops(&p, c, labels);
	json_decref(doc);
	*ret_len = p.len;
	return p.text;
}

static char *page(void *arg, size_t *ret_len)
{
	struct cfs_metrics *m = arg;

	return cfs_metrics_page(m->c, m->o, ret_len);
}

int cfs_metrics_start(struct cfs_client *c, const struct cfs_mount_opts *o, struct cfs_metrics **ret_m)
{
	struct cfs_metrics *m = calloc(1, sizeof(*m));
	int rc;

	if (!m)
		return -ENOMEM;
	m->c = c;
	m->o = o;
	rc = cfs_http_start((uint16_t)o->metrics_port, page, m, &m->http);
	if (rc)
		free(m);
	else
		*ret_m = m;
	return rc;
}

void cfs_metrics_stop(struct cfs_metrics *m)
{
	if (!m)
		return;
	cfs_http_stop(m->http);
	free(m);
}
