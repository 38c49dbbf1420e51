/* SPDX-License-Identifier: MIT */
/*
 * status.c - the STATUS document: one JSON object. Numbers named *_bytes and *_ns are what they
 * say.
 */
#include "server/cluster/node_i.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "sched/sched.h"

#define I(v) ((json_int_t)(v))

static const char *phase_name(const struct cfs_node *n)
{
	static const char *const names[] = { "starting", "serving", "failed", "stopping",
					     "stopped" };

	return names[n->phase];
}

static void uuid_text(const uint8_t *u, char *buf)
{
	sprintf(buf, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0],
		u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13],
		u[14], u[15]);
}

/* a path may hold any bytes, JSON may not */
static json_t *text_json(const char *s)
{
	json_t *v = json_string(s);

	return v ? v : json_string("(not UTF-8)");
}

static json_t *node_json(struct cfs_node *n)
{
	uint64_t now = cfs_clock_boot_ns(n->p.clock);
	char uuid[37];

	uuid_text(n->cluster, uuid);
	return json_pack(
		"{s:s, s:s, s:s, s:s, s:o, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
		"state", phase_name(n), "cluster", uuid, "listen", n->listen, "address",
		n->advertise, "state_dir", text_json(n->state_dir), "wire_version",
		(int)CFS_WIRE_VERSION, "log_version", (int)CFS_LOG_VERSION, "connections",
		I(n->n_conns), "requests", I(n->n_requests), "refused", I(n->n_refused), "lease_ms",
		I(n->p.lease_ms), "uptime_ms", I((now - n->born_ns) / CFS_NSEC_PER_MSEC), "open_ms",
		I(n->open_ns / CFS_NSEC_PER_MSEC), "restore_ms",
		I(n->restoring ? 0 : n->restore_ns / CFS_NSEC_PER_MSEC), "start_ms",
		I(n->serving_ns ? (n->serving_ns - n->born_ns) / CFS_NSEC_PER_MSEC : 0));
}

static json_t *raft_json(struct cfs_node *n)
{
	struct cfs_raft_stat st;

	cfs_raft_log_stat(n->raft, &st);
	return json_pack(
		"{s:s, s:I, s:I, s:I, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
		"role", st.role, "id", I(st.id), "term", I(st.term), "leader", I(st.leader),
		"leader_address", st.leader_addr, "members", (int)st.members, "last_index",
		I(st.last), "commit_index", I(st.commit), "applied_index", I(st.applied),
		"snapshot_index", I(st.snapshot), "log_bytes", I(st.log_bytes), "journal_bytes",
		I(cfs_journal_bytes(n->journal)), "proposals", I(st.proposals), "writes",
		I(st.writes), "checkpoints", I(st.checkpoints), "journal_full", I(st.journal_full));
}

static json_t *shard_json(struct cfs_node *n)
{
	struct cfs_shard_stat s;
	struct cfs_meta_stat m;

	if (!n->shard || cfs_meta_stat(n->meta, &m))
		return json_null();
	cfs_shard_stat(n->shard, &s);
	return json_pack(
		"{s:i, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
		"s:I, s:I, s:I, s:I, s:I, s:I}",
		"shard", 0, "leader", s.leader, "grace", s.grace, "epoch",
		I(cfs_shard_leader_epoch(n->shard)), "sessions", I(m.sessions), "connections",
		I(s.conns), "dir_leases", I(s.dir_leases), "file_leases", I(s.file_leases),
		"lease_bytes", I(s.lease_bytes), "requests", I(s.requests), "batches", I(s.batches),
		"batched_requests", I(s.batched_requests), "breaks_sent", I(s.breaks_sent),
		"asks_sent", I(s.asks_sent), "fenced", I(s.fenced), "replays", I(s.replays),
		"waits", I(s.waits), "lock_waiters", I(s.lock_waiters), "inodes", I(m.inodes),
		"dirs", I(m.dirs), "extents", I(m.extents), "data_bytes", I(m.data_bytes),
		"dead_objects", I(m.dead_objects), "scrubbed_objects",
		I(cfs_node_scrub_deleted(n)), "orphans", I(m.orphans), "db_bytes",
		I(m.db_bytes));
}

/* the drive below a target, and what is used of it */
static json_t *device_json(const struct cfs_dev *dev)
{
	const struct cfs_dev_info *info = &dev->info;
	const struct cfs_dev_stat *st = &dev->stat;

	return json_pack("{s:s, s:o, s:I, s:I, s:I, s:b, s:b, s:b, s:I, s:I, s:I, s:I, s:I}", "backend", dev->ops->name,
			 "model", text_json(info->model), "block_bytes", I(info->write_unit), "atomic_bytes",
			 I(info->atomic_unit), "max_io_bytes", I(info->max_io), "zoned",
			 (info->flags & CFS_DEV_F_ZONED) != 0, "volatile_cache",
			 (info->flags & CFS_DEV_F_VOLATILE) != 0, "gone", st->gone, "commands", I(st->commands),
			 "registered", I(st->registered),
			 "retries", I(st->retries), "reset_waits", I(st->reset_waits), "errors", I(st->errors));
}

/* null: the target has none */
static json_t *zones_json(const struct cfs_store_stat *s)
{
	if (!s->zone_bytes)
		return json_null();
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "bytes", I(s->zone_bytes), "active",
			 I(s->zones_active), "active_max", I(s->zones_active_max), "resets",
			 I(s->zone_resets), "failed", I(s->zones_failed), "retired",
			 I(s->zones_retired), "journal_lost", s->journal_lost);
}

/* null: the target is no sparse file */
static json_t *below_json(const struct cfs_store_stat *s)
{
	if (!s->below)
		return json_null();
	return json_pack("{s:I, s:I, s:b}", "missing_bytes", I(s->below_missing), "free_bytes", I(s->below_free), "full",
			 s->below_lacking);
}

/* what df tells: the targets' figures less what the metadata service keeps for what frees space, by copies */
static json_t *space_json(const struct cfs_node *n)
{
	uint64_t total, free_bytes;

	if (!n->shard)
		return json_null();
	cfs_shard_space(n->shard, &total, &free_bytes);
	return json_pack("{s:I, s:I}", "total_bytes", I(total), "free_bytes", I(free_bytes));
}

static json_t *target_json(const struct node_target *t)
{
	struct cfs_store_stat s;

	cfs_store_stat(t->store, &s);
	return json_pack(
		"{s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
		"s:I, s:I, s:I, s:f, s:o, s:o, s:o}",
		"id",
		I(t->id), "path", text_json(t->path), "total_bytes", I(s.total_bytes), "free_bytes",
		I(s.free_bytes), "kept_bytes", I(s.kept_bytes), "live_bytes", I(s.live_bytes), "dead_bytes", I(s.dead_bytes),
		"objects", I(s.objects), "index_bytes", I(s.index_bytes), "segments", I(s.segments),
		"segments_free", I(s.segments_free), "cleaned_segments", I(s.cleaned_segments),
		"user_written_bytes", I(s.bytes_written_user), "written_bytes",
		I(s.bytes_written_total), "checksum_errors", I(s.checksum_errors), "open_ms",
		I(s.open_ns / CFS_NSEC_PER_MSEC), "journal_written_bytes",
		I(s.bytes_written_journal), "moved_bytes", I(s.bytes_moved),
		"write_amplification", cfs_store_amplification(&s), "atomic",
		json_pack("{s:I, s:I, s:b}", "journal_bytes", I(s.journal_atomic_bytes),
			  "journal_records", I(s.journal_atomic_records), "votes", s.vote_atomic),
		"zones", zones_json(&s), "below", below_json(&s));
}

static json_t *map_json(const struct cfs_node *n)
{
	if (!n->map)
		return json_null();
	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "epoch", I(n->map->epoch), "targets",
			 I(n->map->n_targets), "pgs", I(n->map->n_pgs), "replicas",
			 I(n->map->replicas), "shards", I(n->map->shards));
}

char *cfs_node_status(struct cfs_node *n)
{
	json_t *targets = json_array(), *objects, *root;
	json_t *node = node_json(n);
	char *text;

	json_object_set_new(node, "scheduler", text_json(cfs_sched_text(n->p.sched)));
	for (unsigned i = 0; i < n->n_targets; i++)
		json_array_append_new(targets, target_json(&n->targets[i]));
	for (unsigned i = 0; i < n->n_targets; i++) {
		json_t *t = json_array_get(targets, i);

		json_object_set_new(t, "state", json_string(n->targets[i].dev->stat.gone ? "degraded" : "up"));
		json_object_set_new(t, "device", device_json(n->targets[i].dev));
	}
	objects = json_pack("{s:I, s:I, s:I, s:I, s:I}", "writes", I(n->n_obj_writes), "reads",
			    I(n->n_obj_reads), "received_bytes", I(n->n_obj_bytes_in), "sent_bytes",
			    I(n->n_obj_bytes_out), "under_way", I(n->n_ops));
	root = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "space", space_json(n), "node", node, "raft",
			 raft_json(n), "shard", shard_json(n), "map", map_json(n), "objects",
			 objects, "targets", targets);
	json_object_set_new(root, "ops", cfs_node_opstat_json(n));
	text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
	json_decref(root);
	return text;
}
