/* SPDX-License-Identifier: MIT */
/* node.c - a node's life: stores, state, Raft, map; see node.h and node_i.h. */
#include "server/cluster/node_i.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define STOP_POLL_NS	CFS_NSEC_PER_MSEC
#define MAP_BYTES	(1ull << 30)	/* LMDB's first address space; it grows by itself */

static uint64_t now(const struct cfs_node *n)
{
	return cfs_clock_boot_ns(n->p.clock);
}

bool cfs_node_is_leader(const struct cfs_node *n)
{
	return n->shard && cfs_shard_is_leader(n->shard);
}

void cfs_node_checkpoint(struct cfs_node *n)
{
	cfs_raft_log_checkpoint(n->raft);
}

static void fail(struct cfs_node *n, int err, const char *why)
{
	enum node_phase was = n->phase;

	if (was != NODE_STARTING && was != NODE_SERVING)
		return;
	n->phase = NODE_FAILED;
	if (why != n->start_why)
		snprintf(n->start_why, sizeof(n->start_why), "%s", why);
	if (was == NODE_SERVING)
		n->p.failed(n->p.arg, err, n->start_why);
	else
		n->p.started(n->p.arg, err, n->start_why);
}

/* ---- the cluster map --------------------------------------------------------------------------------- */

static int load_map(struct cfs_node *n)
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
	size_t len = cfs_align_up(sizeof(struct cfs_log_hdr) + sizeof(struct cfs_log_rec) + body, 8);
	uint64_t ns = cfs_clock_real_ns(n->p.clock), last;
	struct cfs_log_rec *rec;
	struct cfs_log_hdr *hdr;
	uint8_t *buf;
	int rc;

	buf = calloc(1, len);
	if (!buf)
		return -ENOMEM;
	/* time stamps never go back from entry to entry, whatever our clock says */
	last = cfs_le64_to_cpu(n->log_time.sec) * CFS_NSEC_PER_SEC + cfs_le32_to_cpu(n->log_time.nsec);
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

/* 1: *ret_map is what should be there instead of the map we have; 0: nothing to change; or -errno */
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
			cfs_warn("target %" PRIu32 " (%s) is not in the cluster map: it is not used",
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

/* Raft made us leader: the shard becomes leader when the map is right, so that no client sees a wrong one */
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
		fail(n, rc, "cannot store the cluster map");
		return;
	}
	cfs_info("leading shard 0 in term %" PRIu64, n->raft_term);
	cfs_shard_become_leader(n->shard, n->raft_term);
}

/* ---- what Raft calls ---------------------------------------------------------------------------------- */

static int on_apply(void *arg, uint64_t index, const void *entry, size_t len)
{
	struct cfs_node *n = arg;
	struct cfs_log_hdr hdr;
	struct cfs_log_rec rec;
	int rc;

	rc = cfs_shard_apply(n->shard, index, entry, len);
	if (rc)
		return rc;
	if (len >= sizeof(hdr)) {
		memcpy(&hdr, entry, sizeof(hdr));
		n->log_time = hdr.time;
	}
	if (len >= sizeof(hdr) + sizeof(rec)) {
		memcpy(&rec, (const uint8_t *)entry + sizeof(hdr), sizeof(rec));
		if (cfs_le16_to_cpu(rec.opcode) == CFS_LOG_MAP)
			rc = load_map(n);
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

	cfs_raft_log_checkpoint_done(n->raft, err, m, m ? sizeof(*m) : 0);
}

static void on_checkpoint(void *arg, uint64_t index)
{
	struct cfs_node *n = arg;

	cfs_info("checkpoint of shard 0 at log index %" PRIu64, index);
	cfs_ckpt_take(n->ckpt, n->meta, ckpt_taken);
}

/* which objects the log's snapshot names */
static const char *current_manifest(struct cfs_node *n, struct cfs_ckpt_manifest *ret)
{
	const char *why = NULL;
	const void *data;
	uint32_t len;

	if (!cfs_raft_log_snapshot(n->raft, &data, &len))
		return "there is none";
	cfs_ckpt_manifest_check(data, len, n->cluster, 0, ret, &why);
	return why;
}

static void on_checkpointed(void *arg)
{
	struct cfs_ckpt_manifest m;
	struct cfs_node *n = arg;

	if (!current_manifest(n, &m))
		cfs_ckpt_keep(n->ckpt, &m);
}

static void ckpt_fetched(void *arg, int err, const struct cfs_ckpt_manifest *m)
{
	struct cfs_node *n = arg;

	n->restoring = false;
	cfs_raft_log_install_done(n->raft, err, m, m ? sizeof(*m) : 0);
}

static void on_install(void *arg, uint64_t index, const char *from, const void *manifest, uint32_t len)
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
	cfs_ckpt_restore(n->ckpt, &m, from, cfs_node_fetch, ckpt_fetched);
}

static int open_meta(struct cfs_node *n, char *errbuf, size_t errlen)
{
	struct cfs_meta_params p = { .path = n->shard_dir, .map_bytes = MAP_BYTES, .shard = 0 };

	memcpy(p.cluster, n->cluster, sizeof(p.cluster));
	return cfs_meta_open(&p, &n->meta, errbuf, errlen);
}

static void space(void *arg, uint64_t *ret_total, uint64_t *ret_free)
{
	uint64_t total = 0, free_bytes = 0, replicas;
	struct cfs_node *n = arg;
	struct cfs_store_stat st;

	for (unsigned i = 0; i < n->n_targets; i++) {
		cfs_store_stat(n->targets[i].store, &st);
		total += st.total_bytes;
		free_bytes += st.free_bytes;
	}
	replicas = n->map ? n->map->replicas : 1;
	*ret_total = total / replicas;
	*ret_free = free_bytes / replicas;
}

static int make_shard(struct cfs_node *n)
{
	struct cfs_shard_params p = {
		.clock = n->p.clock, .meta = n->meta, .log_ops = &cfs_raft_log_ops, .log = n->raft,
		.lease_ms = n->p.lease_ms, .space = space, .delete_objects = cfs_node_delete_objects, .arg = n,
	};

	return cfs_shard_create(&p, &n->shard);
}

/* the leader's state replaces ours: a shard that does not lead has nothing that could not be made again */
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
		rc = open_meta(n, err, sizeof(err));
	if (!rc)
		rc = make_shard(n);
	if (!rc)
		rc = load_map(n);
	if (rc)
		cfs_err("cannot take over the leader's state: %s", err[0] ? err : strerror(-rc));
	return rc;
}

static void on_send(void *arg, struct cfs_raft_out *out)
{
	struct cfs_node *n = arg;

	cfs_peer_post(n->peers, out->addr, CFS_OP_RAFT, out->body, out->body_len, out->payload, out->payload_len);
}

static void on_failed(void *arg, int err, const char *why)
{
	fail(arg, err, why);
}

static const struct cfs_raft_user raft_user = {
	.apply = on_apply, .leader = on_leader, .checkpoint = on_checkpoint, .checkpointed = on_checkpointed,
	.install = on_install, .installed = on_installed, .send = on_send, .failed = on_failed,
};

/* ---- start -------------------------------------------------------------------------------------------------- */

static int listen_on(struct cfs_node *n, char *errbuf, size_t errlen)
{
	int rc = n->p.local_net->ops->listen(n->p.local_net, NODE_LOCAL_ADDR, &cfs_node_handler, n);

	if (!rc)
		rc = n->p.net->ops->listen(n->p.net, n->listen, &cfs_node_handler, n);
	if (rc)
		snprintf(errbuf, errlen, "cannot listen on %s: %s%s", n->listen, strerror(-rc),
			 rc == -EADDRINUSE ? ": another server may be running" : "");
	return rc;
}

/* the state is there: shard, Raft, listen */
static void start_serving(struct cfs_node *n)
{
	struct cfs_raft_member self = { .id = (uint64_t)n->targets[0].id + 1, .address = n->advertise };
	uint64_t applied = cfs_meta_applied(n->meta), last = cfs_raft_log_last(n->raft);
	struct cfs_ckpt_manifest m;
	int rc;

	if (applied > last) {
		snprintf(n->start_why, sizeof(n->start_why), "the journal of %s ends at %" PRIu64 ", but the state in %s "
			 "has applied %" PRIu64 ": the journal has lost entries that were acknowledged",
			 n->targets[0].path, last, n->shard_dir, applied);
		fail(n, -EUCLEAN, n->start_why);
		return;
	}
	rc = load_map(n);
	if (!rc)
		rc = make_shard(n);
	if (!rc)
		rc = listen_on(n, n->start_why, sizeof(n->start_why));
	if (rc) {
		if (!n->start_why[0])
			snprintf(n->start_why, sizeof(n->start_why), "cannot start: %s", strerror(-rc));
		fail(n, rc, n->start_why);
		return;
	}
	cfs_ckpt_keep(n->ckpt, current_manifest(n, &m) ? NULL : &m);
	rc = cfs_raft_log_start(n->raft, applied, &self, 1);
	if (n->phase != NODE_STARTING)
		return;
	if (rc) {
		fail(n, rc, "cannot start the log of shard 0");
		return;
	}
	n->phase = NODE_SERVING;
	n->serving_ns = now(n);
	n->p.started(n->p.arg, 0, NULL);
}

static void restored(void *arg, int err, const struct cfs_ckpt_manifest *m)
{
	struct cfs_node *n = arg;
	char why[256] = "";

	(void)m;
	n->restoring = false;
	n->restore_ns = now(n) - n->restore_ns;
	if (!err)
		err = cfs_ckpt_swap(n->ckpt);
	if (!err)
		err = open_meta(n, why, sizeof(why));
	if (!err && cfs_meta_applied(n->meta) < cfs_raft_log_snapshot(n->raft, &(const void *){ NULL }, &(uint32_t){ 0 })) {
		snprintf(why, sizeof(why), "its state is older than it says");
		err = -EUCLEAN;
	}
	if (err) {
		snprintf(n->start_why, sizeof(n->start_why), "cannot restore shard 0 from its checkpoint on %s: %s",
			 n->targets[0].path, why[0] ? why : strerror(-err));
		fail(n, err, n->start_why);
		return;
	}
	start_serving(n);
}

/*
 * The live state serves if it is at or behind the log's end and not behind the checkpoint, with which the log begins.
 * Else it is made from the checkpoint: blocking parts of that run on helper threads, so this goes on in restored().
 */
static void start(struct cfs_timer *t)
{
	struct cfs_node *n = cfs_container_of(t, struct cfs_node, timer);
	struct cfs_ckpt_manifest m;
	const char *why;
	const void *data;
	uint32_t len;
	uint64_t snap = cfs_raft_log_snapshot(n->raft, &data, &len);

	if (cfs_meta_applied(n->meta) >= snap) {
		start_serving(n);
		return;
	}
	why = current_manifest(n, &m);
	if (why) {
		snprintf(n->start_why, sizeof(n->start_why), "the manifest of the checkpoint on %s: %s", n->targets[0].path, why);
		fail(n, -EUCLEAN, n->start_why);
		return;
	}
	cfs_info("restoring shard 0 from its checkpoint at log index %" PRIu64 " (the state in %s is at %" PRIu64 ")", snap,
		 n->shard_dir, cfs_meta_applied(n->meta));
	cfs_meta_close(n->meta);
	n->meta = NULL;
	n->restoring = true;
	n->restore_ns = now(n);
	cfs_ckpt_restore(n->ckpt, &m, NULL, NULL, restored);
}

static int open_stores(struct cfs_node *n, char *errbuf, size_t errlen)
{
	struct cfs_store_stat st;
	char why[256] = "";
	int rc;

	for (unsigned i = 0; i < n->p.n_targets; i++) {
		struct cfs_store_params p = { .dev = n->p.targets[i].dev, .clock = n->p.clock };
		struct node_target t = { 0 };

		rc = cfs_store_open(&p, &t.store, why, sizeof(why));
		if (rc == -EMEDIUMTYPE) {
			snprintf(errbuf, errlen, "%s is not a ClaudeFS target: run 'claudefs format %s' to make it one",
				 n->p.targets[i].path, n->p.targets[i].path);
			return rc;
		}
		if (rc) {
			snprintf(errbuf, errlen, "%s: %s", n->p.targets[i].path, why[0] ? why : strerror(-rc));
			return rc;
		}
		cfs_store_stat(t.store, &st);
		t.id = st.target_id;
		t.path = strdup(n->p.targets[i].path);
		if (!t.path) {
			cfs_store_close(t.store, false);
			snprintf(errbuf, errlen, "out of memory");
			return -ENOMEM;
		}
		/* in order of their ids: the first one has the journal, however they were listed */
		unsigned at = n->n_targets++;

		while (at > 0 && n->targets[at - 1].id > t.id) {
			n->targets[at] = n->targets[at - 1];
			at--;
		}
		n->targets[at] = t;
		if (i == 0)
			memcpy(n->cluster, st.cluster, sizeof(n->cluster));
		if (memcmp(n->cluster, st.cluster, sizeof(n->cluster))) {
			snprintf(errbuf, errlen, "%s belongs to another cluster than %s", n->p.targets[i].path,
				 n->p.targets[0].path);
			return -EMEDIUMTYPE;
		}
		if (at > 0 && n->targets[at - 1].id == t.id) {
			snprintf(errbuf, errlen, "%s and %s both are target %" PRIu32, n->targets[at - 1].path, t.path, t.id);
			return -EEXIST;
		}
	}
	return 0;
}

/* the live state, or an empty one in its place when it is of no use: it is only a cache */
static int open_state(struct cfs_node *n, char *errbuf, size_t errlen)
{
	int rc;

	n->state_fd = open(n->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (n->state_fd < 0) {
		rc = -errno;
		snprintf(errbuf, errlen, "state directory %s: %s", n->state_dir, strerror(-rc));
		return rc;
	}
	if (flock(n->state_fd, LOCK_EX | LOCK_NB)) {
		snprintf(errbuf, errlen, "state directory %s is in use by another server", n->state_dir);
		return -EBUSY;
	}
	if (mkdir(n->shard_dir, 0700) && errno != EEXIST) {
		rc = -errno;
		snprintf(errbuf, errlen, "state directory %s: %s", n->state_dir, strerror(-rc));
		return rc;
	}
	rc = open_meta(n, errbuf, errlen);
	if (rc == -EMEDIUMTYPE || rc == -EUCLEAN) {
		cfs_warn("%s: making the state anew", errbuf);
		rc = cfs_meta_discard(n->shard_dir);
		if (!rc)
			rc = open_meta(n, errbuf, errlen);
	}
	return rc;
}

static int create_parts(struct cfs_node *n, char *errbuf, size_t errlen)
{
	struct cfs_peers_params peers = { .clock = n->p.clock, .net = n->p.net, .local_net = n->p.local_net,
		.local_addr = n->advertise, .local_listen = NODE_LOCAL_ADDR };
	struct cfs_raft_params raft = { .clock = n->p.clock, .address = n->advertise,
		.checkpoint_bytes = n->p.checkpoint_bytes, .user = &raft_user, .arg = n };
	struct cfs_ckpt_params ckpt = { .clock = n->p.clock, .dir = n->shard_dir, .arg = n };
	int rc;

	rc = open_stores(n, errbuf, errlen);
	if (rc)
		return rc;
	rc = cfs_journal_open(n->targets[0].store, 0, &n->journal, errbuf, errlen);
	if (rc)
		return rc;
	rc = open_state(n, errbuf, errlen);
	if (rc)
		return rc;
	raft.journal = n->journal;
	raft.id = (uint64_t)n->targets[0].id + 1;
	rc = cfs_raft_log_create(&raft, &n->raft, errbuf, errlen);
	if (rc)
		return rc;
	ckpt.store = n->targets[0].store;
	ckpt.target = n->targets[0].id;
	memcpy(ckpt.cluster, n->cluster, sizeof(ckpt.cluster));
	memcpy(peers.cluster, n->cluster, sizeof(peers.cluster));
	rc = cfs_ckpt_create(&ckpt, &n->ckpt);
	if (!rc)
		rc = cfs_peers_create(&peers, &n->peers);
	if (!rc)
		rc = cfs_node_purge_init(n);
	return rc;
}

int cfs_node_create(const struct cfs_node_params *p, struct cfs_node **ret_node, char *errbuf, size_t errlen)
{
	struct cfs_node *n = calloc(1, sizeof(*n));
	int rc = -ENOMEM;

	errbuf[0] = 0;
	if (!n) {
		snprintf(errbuf, errlen, "out of memory");
		return rc;
	}
	CFS_ASSERT(p->n_targets > 0 && p->n_targets <= CFS_NODE_TARGETS_MAX);
	n->p = *p;
	n->state_fd = -1;
	if (!n->p.lease_ms)
		n->p.lease_ms = CFS_NODE_LEASE_MS;
	n->born_ns = now(n);
	cfs_list_init(&n->conns);
	cfs_node_conns_init(n);
	n->listen = strdup(p->listen);
	n->advertise = strdup(p->advertise ? p->advertise : p->listen);
	n->state_dir = strdup(p->state_dir);
	n->scratch = malloc(CFS_BODY_MAX);
	if (asprintf(&n->shard_dir, "%s/shard0", p->state_dir) < 0)
		n->shard_dir = NULL;
	if (!n->listen || !n->advertise || !n->state_dir || !n->shard_dir || !n->scratch)
		goto out;
	if (strlen(n->advertise) > CFS_RAFT_ADDR_MAX) {
		snprintf(errbuf, errlen, "address %s is longer than %u bytes", n->advertise, CFS_RAFT_ADDR_MAX);
		rc = -EINVAL;
		goto out;
	}
	rc = create_parts(n, errbuf, errlen);
	if (rc)
		goto out;
	n->open_ns = now(n) - n->born_ns;
	n->timer.fn = start;
	cfs_timer_set(n->p.clock, &n->timer, now(n));
	*ret_node = n;
	return 0;
out:
	if (!errbuf[0])
		snprintf(errbuf, errlen, "cannot start: %s", strerror(-rc));
	n->phase = NODE_STOPPED;
	cfs_node_destroy(n);
	return rc;
}

/* ---- stop ---------------------------------------------------------------------------------------------------- */

const char *cfs_node_busy(const struct cfs_node *n)
{
	return n->n_conns ? "connections are closing" :
	       n->n_ops ? "object requests are under way" :
	       n->raft && cfs_raft_log_busy(n->raft) ? "the journal is being written" :
	       n->ckpt && cfs_ckpt_busy(n->ckpt) ? "a checkpoint is being written" :
	       n->peers && cfs_peers_busy(n->peers) ? "connections to other nodes are closing" :
	       cfs_node_purge_busy(n) ? "deletions are under way" : NULL;
}

static void stop_poll(struct cfs_timer *t)
{
	struct cfs_node *n = cfs_container_of(t, struct cfs_node, timer);

	if (cfs_node_busy(n)) {
		cfs_timer_set(n->p.clock, &n->timer, now(n) + STOP_POLL_NS);
		return;
	}
	n->phase = NODE_STOPPED;
	n->stopped(n->p.arg);
}

void cfs_node_stop(struct cfs_node *n, void (*stopped)(void *arg))
{
	CFS_ASSERT(n->phase != NODE_STOPPING && n->phase != NODE_STOPPED);
	n->phase = NODE_STOPPING;
	n->stopped = stopped;
	if (n->shard && cfs_shard_is_leader(n->shard))
		cfs_shard_lost_leadership(n->shard);
	cfs_node_conns_close(n);
	cfs_raft_log_stop(n->raft);
	cfs_ckpt_cancel(n->ckpt);
	cfs_node_purge_close(n);
	cfs_peers_close(n->peers);
	n->timer.fn = stop_poll;
	cfs_timer_set(n->p.clock, &n->timer, now(n));
}

void cfs_node_destroy(struct cfs_node *n)
{
	if (!n)
		return;
	CFS_ASSERT(n->phase == NODE_STOPPED);
	cfs_timer_cancel(n->p.clock, &n->timer);
	cfs_shard_destroy(n->shard);
	cfs_node_purge_free(n);
	cfs_peers_destroy(n->peers);
	cfs_ckpt_destroy(n->ckpt);
	cfs_raft_log_destroy(n->raft);
	cfs_meta_close(n->meta);	/* syncs, and marks it clean */
	if (n->journal)
		cfs_journal_close(n->journal);
	for (unsigned i = 0; i < n->n_targets; i++) {
		cfs_store_close(n->targets[i].store, true);
		free(n->targets[i].path);
	}
	if (n->state_fd >= 0)
		close(n->state_fd);
	cfs_map_free(n->map);
	free(n->map_bytes);
	free(n->scratch);
	free(n->shard_dir);
	free(n->state_dir);
	free(n->advertise);
	free(n->listen);
	free(n);
}
