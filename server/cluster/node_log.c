/* SPDX-License-Identifier: MIT */
/*
 * node_log.c - between Raft and the shard: entries to apply, leadership, checkpoints, the cluster
 * map. See node_i.h.
 */
#include "server/cluster/node_i.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CKPT_LEAST_BYTES	(16 * CFS_MIB)
#define SETTLE_NS	(10 * CFS_NSEC_PER_MSEC)
#define SETTLE_RETRY_NS	(200 * CFS_NSEC_PER_MSEC)
#define GRACE_DEAD_MS	60000u		/* objects outlive their files: somebody may be reading */
#define MAP_BYTES	(1ull << 30)	/* LMDB's first address space; it grows by itself */

/* ---- the cluster map ------------------------------------------------------------------------- */

int cfs_node_load_map(struct cfs_node *n)
{
	struct cfs_map *map = NULL;
	const char *why = "";
	uint32_t len = 0;
	void *copy;
	int rc;

	rc = cfs_meta_map(n->meta, n->scratch, &len);
	if (rc == -ENOENT)
		return 0;
	if (!rc)
		rc = cfs_map_decode(n->scratch, len, &map, &why);
	if (rc) {
		cfs_err("the cluster map in the state is malformed: %s", why);
		return rc;
	}
	copy = malloc(len);
	if (!copy) {
		cfs_map_free(map);
		return -ENOMEM;
	}
	memcpy(copy, n->scratch, len);
	cfs_map_free(n->map);
	free(n->map_bytes);
	n->map = map;
	n->map_bytes = copy;
	n->map_len = len;
	return 0;
}

static int propose_map(struct cfs_node *n, const struct cfs_map *map)
{
	size_t body = cfs_map_size(map);
	size_t len =
		cfs_align_up(sizeof(struct cfs_log_hdr) + sizeof(struct cfs_log_rec) + body, 8);
	uint64_t ns = cfs_clock_real_ns(n->p.clock), last;
	struct cfs_log_rec *rec;
	struct cfs_log_hdr *hdr;
	uint8_t *buf;
	int rc;

	buf = calloc(1, len);
	if (!buf)
		return -ENOMEM;
	/* time stamps never go back from entry to entry, whatever our clock says */
	last = cfs_le64_to_cpu(n->log_time.sec) * CFS_NSEC_PER_SEC +
	       cfs_le32_to_cpu(n->log_time.nsec);
	ns = cfs_max(ns, last + 1);
	hdr = (struct cfs_log_hdr *)(void *)buf;
	hdr->magic = cfs_cpu_to_le32(CFS_LOG_MAGIC);
	hdr->version = cfs_cpu_to_le16(CFS_LOG_VERSION);
	hdr->n = cfs_cpu_to_le16(1);
	hdr->time.sec = cfs_cpu_to_le64(ns / CFS_NSEC_PER_SEC);
	hdr->time.nsec = cfs_cpu_to_le32((uint32_t)(ns % CFS_NSEC_PER_SEC));
	rec = (struct cfs_log_rec *)(void *)(buf + sizeof(*hdr));
	rec->opcode = cfs_cpu_to_le16(CFS_LOG_MAP);
	rec->body_len = cfs_cpu_to_le32((uint32_t)body);
	rec->slot = cfs_cpu_to_le32(CFS_SLOT_NONE);
	cfs_map_encode(map, rec + 1);
	rc = cfs_raft_log_propose(n->raft, buf, len, &n->map_index);
	free(buf);
	return rc;
}

static int first_map(struct cfs_node *n, struct cfs_map **ret_map)
{
	struct cfs_map_target targets[CFS_NODE_TARGETS_MAX];

	memset(targets, 0, sizeof(targets));
	for (unsigned i = 0; i < n->n_targets; i++) {
		targets[i].id = cfs_cpu_to_le32(n->targets[i].id);
		targets[i].state = cfs_cpu_to_le32(1);
		strcpy(targets[i].addr, n->advertise);
	}
	return cfs_map_create(targets, n->n_targets, CFS_MAP_PGS_DEFAULT, 1, ret_map);
}

/*
 * 1: *ret_map is what should be there instead of the map we have; 0: nothing to change; or -errno
 */
static int better_map(struct cfs_node *n, struct cfs_map **ret_map)
{
	struct cfs_map *map;
	const char *why;
	bool differs = false;
	int rc;

	if (!n->map) {
		rc = first_map(n, ret_map);
		return rc ? rc : 1;
	}
	rc = cfs_map_decode(n->map_bytes, n->map_len, &map, &why);
	if (rc)
		return rc;
	for (unsigned i = 0; i < n->n_targets; i++) {
		struct cfs_map_target *t =
			(struct cfs_map_target *)(uintptr_t)cfs_map_target(map, n->targets[i].id);

		if (!t) {
			cfs_warn("target %" PRIu32
				 " (%s) is not in the cluster map: it is not used",
				 n->targets[i].id, n->targets[i].path);
		} else if (strcmp(t->addr, n->advertise) || cfs_le32_to_cpu(t->state) != 1) {
			memset(t->addr, 0, sizeof(t->addr));
			strcpy(t->addr, n->advertise);
			t->state = cfs_cpu_to_le32(1);
			differs = true;
		}
	}
	if (!differs) {
		cfs_map_free(map);
		return 0;
	}
	map->epoch++;
	*ret_map = map;
	return 1;
}

/*
 * Raft made us leader: the shard becomes leader when the map is right, so that no client sees a
 * wrong one
 */
static void lead(struct cfs_node *n)
{
	struct cfs_map *map = NULL;
	int rc;

	if (!n->raft_leads || n->map_index || cfs_shard_is_leader(n->shard))
		return;
	rc = better_map(n, &map);
	if (rc == 1) {
		rc = propose_map(n, map);
		cfs_map_free(map);
		if (!rc)
			return;		/* again when it has been applied */
	}
	if (rc) {
		cfs_node_fail(n, rc, "cannot store the cluster map");
		return;
	}
	cfs_info("leading shard 0 in term %" PRIu64, n->raft_term);
	cfs_shard_become_leader(n->shard, n->raft_term);
}

/* ---- what Raft calls ------------------------------------------------------------------------- */

static void settle_later(struct cfs_node *n, uint64_t ns)
{
	cfs_timer_set(n->p.clock, &n->settle, cfs_clock_boot_ns(n->p.clock) + ns);
}

static void on_settle(struct cfs_timer *t)
{
	struct cfs_node *n = cfs_container_of(t, struct cfs_node, settle);

	if (n->meta && cfs_meta_settle(n->meta))
		settle_later(n, SETTLE_RETRY_NS);	/* the log has it */
}

static int on_apply(void *arg, uint64_t index, const void *entry, size_t len)
{
	struct cfs_node *n = arg;
	struct cfs_log_hdr hdr;
	struct cfs_log_rec rec;
	int rc;

	rc = cfs_shard_apply(n->shard, index, entry, len);
	if (rc)
		return rc;
	if (cfs_meta_unsettled(n->meta) && !cfs_timer_armed(&n->settle))
		settle_later(n, SETTLE_NS);
	if (len >= sizeof(hdr)) {
		memcpy(&hdr, entry, sizeof(hdr));
		n->log_time = hdr.time;
	}
	if (len >= sizeof(hdr) + sizeof(rec)) {
		memcpy(&rec, (const uint8_t *)entry + sizeof(hdr), sizeof(rec));
		if (cfs_le16_to_cpu(rec.opcode) == CFS_LOG_MAP)
			rc = cfs_node_load_map(n);
	}
	if (n->map_index && index >= n->map_index) {
		n->map_index = 0;
		if (!rc)
			lead(n);
	}
	return rc;
}

static void on_leader(void *arg, bool leading, uint64_t term)
{
	struct cfs_node *n = arg;

	n->raft_leads = leading;
	n->raft_term = term;
	n->map_index = 0;
	if (leading) {
		lead(n);
	} else if (cfs_shard_is_leader(n->shard)) {
		cfs_warn("no longer leading shard 0");
		cfs_shard_lost_leadership(n->shard);
	}
}

static void ckpt_taken(void *arg, int err, const struct cfs_ckpt_manifest *m)
{
	struct cfs_node *n = arg;

	if (n->meta)
		cfs_meta_group(n->meta, true);
	cfs_raft_log_checkpoint_done(n->raft, err, m, m ? sizeof(*m) : 0);
}

static void on_checkpoint(void *arg, uint64_t index)
{
	struct cfs_node *n = arg;
	int rc = cfs_meta_group(n->meta, false); /* the copy would wait for the transaction that is open */

	cfs_info("checkpoint of shard 0 at log index %" PRIu64, index);
	if (rc)
		ckpt_taken(n, rc, NULL);
	else
		cfs_ckpt_take(n->ckpt, n->meta, ckpt_taken);
}

/* which objects the log's snapshot names */
const char *cfs_node_manifest(struct cfs_node *n, struct cfs_ckpt_manifest *ret)
{
	const char *why = NULL;
	const void *data;
	uint32_t len;

	if (!cfs_raft_log_snapshot(n->raft, &data, &len))
		return "there is none";
	cfs_ckpt_manifest_check(data, len, n->cluster, 0, ret, &why);
	return why;
}

/*
 * A start reads the last checkpoint and applies the log behind it. As long as the state is small, so is the log, to start in
 * seconds; when it has grown, writing all of it for a little log would cost more than the log.
 */
void cfs_node_pace_checkpoints(struct cfs_node *n)
{
	uint64_t most = n->p.checkpoint_bytes ? n->p.checkpoint_bytes : CFS_NODE_CHECKPOINT_BYTES;
	struct cfs_meta_stat m;

	if (!cfs_meta_stat(n->meta, &m))
		cfs_raft_log_checkpoint_every(
			n->raft, cfs_min(most, cfs_max(CKPT_LEAST_BYTES, m.db_bytes / 8)));
}

static void on_checkpointed(void *arg)
{
	struct cfs_ckpt_manifest m;
	struct cfs_node *n = arg;

	if (!cfs_node_manifest(n, &m))
		cfs_ckpt_keep(n->ckpt, &m);
	cfs_node_pace_checkpoints(n);
}

static void ckpt_fetched(void *arg, int err, const struct cfs_ckpt_manifest *m)
{
	struct cfs_node *n = arg;

	n->restoring = false;
	cfs_raft_log_install_done(n->raft, err, m, m ? sizeof(*m) : 0);
}

static void on_install(void *arg, uint64_t index, const char *from, const void *manifest,
		       uint32_t len)
{
	struct cfs_node *n = arg;
	struct cfs_ckpt_manifest m;
	const char *why;

	cfs_info("fetching the checkpoint at log index %" PRIu64 " from %s", index, from);
	n->restoring = true;
	if (cfs_ckpt_manifest_check(manifest, len, n->cluster, 0, &m, &why)) {
		cfs_err("the checkpoint that %s sent is of no use: %s", from, why);
		ckpt_fetched(n, -EBADMSG, NULL);
		return;
	}
	if (!cfs_node_scrub_hold(n, true)) {	/* the state that it reads is about to go */
		ckpt_fetched(n, -EBUSY, NULL);
		return;
	}
	cfs_ckpt_restore(n->ckpt, &m, from, cfs_node_fetch, ckpt_fetched);
}

int cfs_node_open_meta(struct cfs_node *n, char *errbuf, size_t errlen)
{
	struct cfs_meta_params p = { .path = n->shard_dir, .map_bytes = MAP_BYTES, .shard = 0 };
	int rc;

	memcpy(p.cluster, n->cluster, sizeof(p.cluster));
	rc = cfs_meta_open(&p, &n->meta, errbuf, errlen);
	n->settle.fn = on_settle;
	if (!rc)
		cfs_meta_group(n->meta, true);	/* entries share transactions; without memory for it, each has its own */
	return rc;
}

/* several sparse targets on one file system: each counts on the room below, but it is there once. Bytes counted twice */
static uint64_t counted_twice(const struct cfs_store_stat *st, unsigned n)
{
	uint64_t twice = 0;

	for (unsigned i = 0; i < n; i++) {
		uint64_t sum = 0;
		bool first = true;

		if (!st[i].below_missing)
			continue;
		for (unsigned k = 0; k < n; k++) {
			if (!st[k].below_missing || st[k].below != st[i].below)
				continue;
			first = first && k >= i;
			sum += cfs_min(st[k].free_bytes, st[k].below_free);
		}
		if (first && sum > st[i].below_free)
			twice += sum - st[i].below_free;
	}
	return twice;
}

static void space(void *arg, uint64_t *ret_total, uint64_t *ret_free)
{
	uint64_t total = 0, free_bytes = 0, twice, replicas;
	struct cfs_store_stat st[CFS_NODE_TARGETS_MAX];
	struct cfs_node *n = arg;

	for (unsigned i = 0; i < n->n_targets; i++) {
		cfs_store_stat(n->targets[i].store, &st[i]);
		total += st[i].total_bytes;
		free_bytes += st[i].free_bytes;
	}
	twice = counted_twice(st, n->n_targets);
	free_bytes = free_bytes > twice ? free_bytes - twice : 0;
	replicas = n->map ? n->map->replicas : 1;
	*ret_total = total / replicas;
	*ret_free = free_bytes / replicas;
}

int cfs_node_make_shard(struct cfs_node *n)
{
	struct cfs_shard_params p = {
		.clock = n->p.clock,
		.meta = n->meta,
		.log_ops = &cfs_raft_log_ops,
		.log = n->raft,
		.lease_ms = n->p.lease_ms,
		.grace_dead_ms = GRACE_DEAD_MS,
		.space = space,
		.delete_objects = cfs_node_delete_objects,
		.arg = n,
	};

	return cfs_shard_create(&p, &n->shard);
}

/*
 * the leader's state replaces ours: a shard that does not lead has nothing that could not be made
 * again
 */
static int on_installed(void *arg)
{
	struct cfs_node *n = arg;
	struct cfs_list *pos;
	char err[256] = "";
	int rc;

	cfs_list_for_each(pos, &n->conns) {
		struct node_conn *nc = cfs_list_entry(pos, struct node_conn, link);

		if (nc->in_shard) {
			cfs_shard_conn_close(n->shard, &nc->shim);
			nc->in_shard = false;
			cfs_conn_close(nc->conn);
		}
	}
	cfs_shard_destroy(n->shard);
	cfs_meta_close(n->meta);
	n->shard = NULL;
	n->meta = NULL;
	rc = cfs_ckpt_swap(n->ckpt);
	if (!rc)
		rc = cfs_node_open_meta(n, err, sizeof(err));
	if (!rc)
		rc = cfs_node_make_shard(n);
	if (!rc)
		rc = cfs_node_load_map(n);
	cfs_node_scrub_hold(n, false);
	if (rc)
		cfs_err("cannot take over the leader's state: %s", err[0] ? err : strerror(-rc));
	return rc;
}

static void on_send(void *arg, struct cfs_raft_out *out)
{
	struct cfs_node *n = arg;

	cfs_peer_post(n->peers, out->addr, CFS_OP_RAFT, out->body, out->body_len, out->payload,
		      out->payload_len);
}

static void on_failed(void *arg, int err, const char *why)
{
	cfs_node_fail(arg, err, why);
}

const struct cfs_raft_user cfs_node_raft_user = {
	.apply = on_apply,
	.leader = on_leader,
	.checkpoint = on_checkpoint,
	.checkpointed = on_checkpointed,
	.install = on_install,
	.installed = on_installed,
	.send = on_send,
	.failed = on_failed,
};
