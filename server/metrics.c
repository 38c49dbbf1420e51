// SPDX-License-Identifier: MIT
/* metrics.c - see metrics.h. */
#include "server/metrics.h"

#include "base/base.h"
#include "obs/http.h"
#include "obs/latency.h"
#include "obs/prom.h"
#include "ring/loop.h"
#include "server/cluster/node.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#define WAIT_S 2	/* for the loop, which may be busy */

struct cfs_server_metrics {
	struct cfs_loop *loop;
	struct cfs_http *http;
	pthread_mutex_t lock;
	pthread_cond_t done;
	bool wanted, stopping;
	char *status;			/* what the loop's thread made; taken by the page's */
};

#define COUNTER CFS_PROM_COUNTS
#define GAUGE CFS_PROM_GAUGES

static const struct cfs_prom_row rows[] = {
	GAUGE("node.state", "server_serving", "1 while the node serves.", .is = "serving"),
	GAUGE("node.uptime_ms", "server_uptime_seconds", "Since the process began.", .scale = 0.001),
	GAUGE("node.start_ms", "server_start_duration_seconds", "From the start to serving.", .scale = 0.001),
	GAUGE("node.connections", "server_connections", "Connections of clients and nodes."),
	COUNTER("node.requests", "server_requests_total", "Requests that came."),
	COUNTER("node.refused", "server_requests_refused_total", "Of them, refused before they were looked at."),
	COUNTER("ops.*.errors", "server_request_errors_total", "Answered with an error.", .labels = "op"),
	GAUGE("raft.role", "raft_leader", "1 while this node leads.", .is = "leader"),
	GAUGE("raft.term", "raft_term", "The term of the Raft log."),
	GAUGE("raft.members", "raft_members", "Nodes of the Raft group."),
	GAUGE("raft.last_index", "raft_last_index", "The newest entry of the log."),
	GAUGE("raft.commit_index", "raft_commit_index", "The newest entry that is on a majority."),
	GAUGE("raft.applied_index", "raft_applied_index", "The newest entry that is applied."),
	GAUGE("raft.log_bytes", "raft_log_bytes", "Entries since the last checkpoint."),
	GAUGE("raft.journal_bytes", "raft_journal_bytes", "Journal on the device."),
	COUNTER("raft.proposals", "raft_proposals_total", "Entries proposed."),
	COUNTER("raft.writes", "raft_journal_writes_total", "Durable writes of the journal."),
	COUNTER("raft.checkpoints", "raft_checkpoints_total", "Checkpoints taken."),
	COUNTER("raft.journal_full", "raft_journal_full_total", "Times the journal had no room."),
	GAUGE("shard.sessions", "meta_sessions", "Mounts that have a session."),
	GAUGE("shard.dir_leases", "meta_directory_leases", "Leases on directories."),
	GAUGE("shard.file_leases", "meta_file_leases", "Leases on files."),
	GAUGE("shard.lease_bytes", "meta_lease_memory_bytes", "Memory of all leases."),
	COUNTER("shard.requests", "meta_requests_total", "Metadata requests."),
	COUNTER("shard.batches", "meta_batches_total", "Log entries made of them."),
	COUNTER("shard.batched_requests", "meta_batched_requests_total", "Requests in those entries."),
	COUNTER("shard.breaks_sent", "meta_recalls_total", "Recalls sent."),
	COUNTER("shard.asks_sent", "meta_questions_total", "Questions to holders of exclusive leases."),
	COUNTER("shard.fenced", "meta_sessions_fenced_total", "Sessions closed because they did not answer."),
	COUNTER("shard.replays", "meta_replays_total", "Requests that came again and had their first answer."),
	COUNTER("shard.waits", "meta_waits_total", "Requests that waited for another."),
	GAUGE("shard.lock_waiters", "meta_lock_waiters", "Requests that wait for a file lock."),
	GAUGE("shard.inodes", "meta_inodes", "Inodes."),
	GAUGE("shard.dirs", "meta_directories", "Directories."),
	GAUGE("shard.extents", "meta_extents", "Extents of files."),
	GAUGE("shard.data_bytes", "meta_data_bytes", "Bytes that files have."),
	GAUGE("shard.dead_objects", "meta_dead_objects", "Objects that wait to be deleted."),
	GAUGE("shard.orphans", "meta_orphans", "Files without a name that are open."),
	GAUGE("shard.db_bytes", "meta_db_bytes", "The metadata's working copy."),
	GAUGE("map.epoch", "map_epoch", "Epoch of the cluster map."),
	COUNTER("objects.writes", "object_writes_total", "Objects written."),
	COUNTER("objects.reads", "object_reads_total", "Reads of objects."),
	COUNTER("objects.received_bytes", "object_received_bytes_total", "Object data received."),
	COUNTER("objects.sent_bytes", "object_sent_bytes_total", "Object data sent."),
	GAUGE("targets.*.total_bytes", "target_size_bytes", "Size of a target.", .labels = "target"),
	GAUGE("targets.*.free_bytes", "target_free_bytes", "Room left.", .labels = "target"),
	GAUGE("targets.*.kept_bytes", "target_kept_bytes", "Free, but kept for the cleaner and for a full target.", .labels = "target"),
	GAUGE("space.total_bytes", "space_total_bytes", "As df tells it."),
	GAUGE("space.free_bytes", "space_free_bytes", "As df tells it: what a write will get."),
	GAUGE("targets.*.live_bytes", "target_live_bytes", "Objects that are referred to.", .labels = "target"),
	GAUGE("targets.*.dead_bytes", "target_dead_bytes", "Objects that are deleted and not yet cleaned.", .labels = "target"),
	GAUGE("targets.*.objects", "target_objects", "Objects.", .labels = "target"),
	GAUGE("targets.*.index_bytes", "target_index_memory_bytes", "Memory of the object index.", .labels = "target"),
	GAUGE("targets.*.segments_free", "target_segments_free", "Segments nothing is in.", .labels = "target"),
	COUNTER("targets.*.cleaned_segments", "target_segments_cleaned_total", "Segments cleaned.", .labels = "target"),
	COUNTER("targets.*.user_written_bytes", "target_user_written_bytes_total", "Bytes that were asked to be written.",
		.labels = "target"),
	COUNTER("targets.*.written_bytes", "target_written_bytes_total", "Bytes written to the device.", .labels = "target"),
	COUNTER("targets.*.checksum_errors", "target_checksum_errors_total", "Records that did not match their checksum.",
		.labels = "target"),
};

static void put_latencies(struct cfs_prom *p, json_t *ops)
{
	static const char metric[] = "claudefs_server_request_duration_seconds";
	const char *name;
	json_t *o;

	cfs_prom_head(p, metric, "histogram", "Requests of clients and nodes, from when one was read to when its answer was given to the network.");
	json_object_foreach(ops, name, o) {
		struct cfs_bpf_op op;

		cfs_latency_from_json(o, &op);
		cfs_latency_prom(p, metric, "", name, &op);
	}
}

char *cfs_server_metrics_page(const char *status, size_t *ret_len)
{
	json_t *doc = json_loads(status, 0, NULL);
	struct cfs_prom p = { 0 };

	if (!doc)
		return NULL;
	cfs_prom_rows(&p, doc, rows, CFS_ARRAY_SIZE(rows), "");
	put_latencies(&p, json_object_get(doc, "ops"));
	json_decref(doc);
	*ret_len = p.len;
	return p.text;
}

/* on the page's thread */
static char *page(void *arg, size_t *ret_len)
{
	struct cfs_server_metrics *m = arg;
	char *status, *text = NULL;
	struct timespec until;
	int rc = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_S;
	pthread_mutex_lock(&m->lock);
	m->wanted = true;
	if (!m->stopping)
		cfs_loop_stop(m->loop); /* after wanted is set: whoever runs the loop looks at it when that returns */
	while (!m->status && !m->stopping && !rc)
		rc = pthread_cond_timedwait(&m->done, &m->lock, &until);
	m->wanted = false;
	status = m->status;
	m->status = NULL;
	pthread_mutex_unlock(&m->lock);
	if (status)
		text = cfs_server_metrics_page(status, ret_len);
	free(status);
	return text;
}

void cfs_server_metrics_serve(struct cfs_server_metrics *m, struct cfs_node *node)
{
	if (!m)
		return;
	pthread_mutex_lock(&m->lock);
	if (m->wanted && !m->status) {
		m->status = cfs_node_status(node);
		pthread_cond_signal(&m->done);
	}
	pthread_mutex_unlock(&m->lock);
}

int cfs_server_metrics_start(uint16_t port, struct cfs_loop *loop, struct cfs_server_metrics **ret_m)
{
	struct cfs_server_metrics *m = calloc(1, sizeof(*m));
	int rc;

	if (!m)
		return -ENOMEM;
	m->loop = loop;
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->done, NULL);
	rc = cfs_http_start(port, page, m, &m->http);
	if (rc)
		cfs_server_metrics_stop(m);
	else
		*ret_m = m;
	return rc;
}

void cfs_server_metrics_stop(struct cfs_server_metrics *m)
{
	if (!m)
		return;
	pthread_mutex_lock(&m->lock);
	m->stopping = true;
	pthread_cond_signal(&m->done);
	pthread_mutex_unlock(&m->lock);
	cfs_http_stop(m->http);
	pthread_cond_destroy(&m->done);
	pthread_mutex_destroy(&m->lock);
	free(m->status);
	free(m);
}
