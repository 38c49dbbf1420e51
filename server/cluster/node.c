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

void cfs_node_fail(struct cfs_node *n, int err, const char *why)
{
	enum node_phase was = n->phase;

	if (was != NODE_STARTING && was != NODE_SERVING)
		return;
	n->phase = NODE_FAILED;
	if (why != n->why)
		snprintf(n->why, sizeof(n->why), "%s", why);
	if (was == NODE_SERVING)
		n->p.failed(n->p.arg, err, n->why);
	else
		n->p.started(n->p.arg, err, n->why);
}

/* ---- start ----------------------------------------------------------------------------------- */

static int listen_on(struct cfs_node *n, char *errbuf, size_t errlen)
{
	int rc = 0;

	if (n->p.local_net)
		rc = n->p.local_net->ops->listen(n->p.local_net, NODE_LOCAL_ADDR, &cfs_node_handler,
						 n);
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
	struct cfs_raft_member self = { .id = (uint64_t)n->targets[0].id + 1,
					.address = n->advertise };
	uint64_t applied = cfs_meta_applied(n->meta), last = cfs_raft_log_last(n->raft);
	uint64_t first_lost, last_lost;
	struct cfs_ckpt_manifest m;
	int rc;

	n->why[0] = 0;
	if (applied > last) {
		snprintf(n->why, sizeof(n->why),
			 "the journal of %s ends at %" PRIu64 ", but the state in %s "
			 "has applied %" PRIu64
			 ": the journal has lost entries that were acknowledged",
			 n->targets[0].path, last, n->shard_dir, applied);
		cfs_node_fail(n, -EUCLEAN, n->why);
		return;
	}
	rc = cfs_node_load_map(n);
	if (!rc)
		rc = cfs_node_make_shard(n);
	if (!rc)
		rc = listen_on(n, n->why, sizeof(n->why));
	if (rc) {
		if (!n->why[0])
			snprintf(n->why, sizeof(n->why), "cannot start: %s", strerror(-rc));
		cfs_node_fail(n, rc, n->why);
		return;
	}
	cfs_ckpt_keep(n->ckpt, cfs_node_manifest(n, &m) ? NULL : &m);
	cfs_node_pace_checkpoints(n);
	if (n->p.n_members)
		rc = cfs_raft_log_start(n->raft, applied, n->p.members, n->p.n_members);
	else
		rc = cfs_raft_log_start(n->raft, applied, &self, 1);
	if (n->phase != NODE_STARTING)
		return;
	if (rc) {
		cfs_node_fail(n, rc, "cannot start the log of shard 0");
		return;
	}
	n->phase = NODE_SERVING;
	n->serving_ns = now(n);
	cfs_node_scrub_start(n);
	if (cfs_journal_lost(n->journal, &first_lost, &last_lost)) /* written again, but before a checkpoint: take it now */
		cfs_raft_log_repair(n->raft);
	n->p.started(n->p.arg, 0, NULL);
}

static void restored(void *arg, int err, const struct cfs_ckpt_manifest *m)
{
	struct cfs_node *n = arg;
	const void *data;
	uint32_t len;
	char detail[256] = "";

	(void)m;
	n->restoring = false;
	n->restore_ns = now(n) - n->restore_ns;
	if (!err)
		err = cfs_ckpt_swap(n->ckpt);
	if (!err)
		err = cfs_node_open_meta(n, detail, sizeof(detail));
	if (!err && cfs_meta_applied(n->meta) < cfs_raft_log_snapshot(n->raft, &data, &len)) {
		snprintf(detail, sizeof(detail), "its state is older than it says");
		err = -EUCLEAN;
	}
	if (err) {
		snprintf(n->why, sizeof(n->why),
			 "cannot restore shard 0 from its checkpoint on %s: %s", n->targets[0].path,
			 detail[0] ? detail : strerror(-err));
		cfs_node_fail(n, err, n->why);
		return;
	}
	start_serving(n);
}

/*
 * What the others have committed a member applies, even while its own journal is still writing it. Killed at that moment it has
 * a state ahead of its journal, of no use to a log that goes on where the journal ends; one that is alone never does.
 */
static bool state_ran_ahead(struct cfs_node *n)
{
	return cfs_meta_applied(n->meta) > cfs_raft_log_last(n->raft) &&
	       !cfs_raft_log_only_voter(n->raft);
}

static int empty_state(struct cfs_node *n)
{
	int rc;

	cfs_meta_close(n->meta);
	n->meta = NULL;
	rc = cfs_meta_discard(n->shard_dir);
	return rc ? rc : cfs_node_open_meta(n, n->why, sizeof(n->why));
}

/*
 * The live state serves if it is at or behind the log's end and not behind the checkpoint, with
 * which the log begins. Else it is made from the checkpoint: blocking parts of that run on helper
 * threads, so this goes on in restored().
 */
static void start_state(struct cfs_node *n)
{
	bool ahead = state_ran_ahead(n);
	struct cfs_ckpt_manifest m;
	const char *why;
	const void *data;
	uint32_t len;
	uint64_t snap = cfs_raft_log_snapshot(n->raft, &data, &len);

	if (ahead && !snap) {
		int rc = empty_state(n);

		if (rc) {
			cfs_node_fail(n, rc, n->why[0] ? n->why : "cannot make the state anew");
			return;
		}
	}
	if (cfs_meta_applied(n->meta) >= snap && !(ahead && snap)) {
		start_serving(n);
		return;
	}
	why = cfs_node_manifest(n, &m);
	if (why) {
		snprintf(n->why, sizeof(n->why), "the manifest of the checkpoint on %s: %s",
			 n->targets[0].path, why);
		cfs_node_fail(n, -EUCLEAN, n->why);
		return;
	}
	cfs_info("restoring shard 0 from its checkpoint at log index %" PRIu64
		 " (the state in %s is at %" PRIu64 ")",
		 snap, n->shard_dir, cfs_meta_applied(n->meta));
	cfs_meta_close(n->meta);
	n->meta = NULL;
	n->restoring = true;
	n->restore_ns = now(n);
	cfs_ckpt_restore(n->ckpt, &m, NULL, NULL, restored);
}

/* of whichever target: the journal and the checkpoints may have been there */
static void on_zones_lost(void *arg)
{
	struct cfs_node *n = arg;

	if (n->phase == NODE_SERVING)
		cfs_raft_log_repair(n->raft);
}

/* what the state calls dead is there until the shard has had it deleted */
static bool room_coming(void *arg)
{
	struct cfs_node *n = arg;

	return n->phase == NODE_SERVING && cfs_shard_room_coming(n->shard);
}

static int open_stores(struct cfs_node *n, char *errbuf, size_t errlen)
{
	struct cfs_store_stat st;
	char why[256] = "";
	int rc;

	for (unsigned i = 0; i < n->p.n_targets; i++) {
		struct cfs_store_params p = { .dev = n->p.targets[i].dev, .clock = n->p.clock, .lost = on_zones_lost,
					      .room_coming = room_coming, .arg = n };
		struct node_target t = { 0 };

		rc = cfs_store_open(&p, &t.store, why, sizeof(why));
		if (rc == -EMEDIUMTYPE) {
			snprintf(
				errbuf, errlen,
				"%s is not a ClaudeFS target: run 'claudefs format %s' to make it one",
				n->p.targets[i].path, n->p.targets[i].path);
			return rc;
		}
		if (rc) {
			snprintf(errbuf, errlen, "%s: %s", n->p.targets[i].path,
				 why[0] ? why : strerror(-rc));
			return rc;
		}
		cfs_store_stat(t.store, &st);
		t.id = st.target_id;
		t.dev = p.dev;
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
			snprintf(errbuf, errlen, "%s belongs to another cluster than %s",
				 n->p.targets[i].path, n->p.targets[0].path);
			return -EMEDIUMTYPE;
		}
		if (at > 0 && n->targets[at - 1].id == t.id) {
			snprintf(errbuf, errlen, "%s and %s both are target %" PRIu32,
				 n->targets[at - 1].path, t.path, t.id);
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
		snprintf(errbuf, errlen, "state directory %s is in use by another server",
			 n->state_dir);
		return -EBUSY;
	}
	if (mkdir(n->shard_dir, 0700) && errno != EEXIST) {
		rc = -errno;
		snprintf(errbuf, errlen, "state directory %s: %s", n->state_dir, strerror(-rc));
		return rc;
	}
	rc = cfs_node_open_meta(n, errbuf, errlen);
	if (rc == -EMEDIUMTYPE || rc == -EUCLEAN) {
		cfs_warn("%s: making the state anew", errbuf);
		rc = cfs_meta_discard(n->shard_dir);
		if (!rc)
			rc = cfs_node_open_meta(n, errbuf, errlen);
	}
	return rc;
}

static int create_parts(struct cfs_node *n, char *errbuf, size_t errlen)
{
	struct cfs_peers_params peers = { .clock = n->p.clock,
					  .net = n->p.net,
					  .local_net = n->p.local_net,
					  .local_addr = n->advertise,
					  .local_listen = NODE_LOCAL_ADDR };
	struct cfs_raft_params raft = { .clock = n->p.clock, .address = n->advertise,
		.checkpoint_bytes = n->p.checkpoint_bytes, .user = &cfs_node_raft_user, .arg = n };
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
	if (!rc)
		rc = cfs_node_scrub_init(n);
	return rc;
}

/* everything that blocks happens here, before anybody is served */
static void start(struct cfs_timer *t)
{
	struct cfs_node *n = cfs_container_of(t, struct cfs_node, timer);
	int rc;

	n->why[0] = 0;
	rc = create_parts(n, n->why, sizeof(n->why));
	n->open_ns = now(n) - n->born_ns;
	if (!rc) {
		start_state(n);
		return;
	}
	if (!n->why[0])
		snprintf(n->why, sizeof(n->why), "cannot start: %s", strerror(-rc));
	cfs_node_fail(n, rc, n->why);
}

int cfs_node_create(const struct cfs_node_params *p, struct cfs_node **ret_node)
{
	struct cfs_node *n = calloc(1, sizeof(*n));

	if (!n)
		return -ENOMEM;
	CFS_ASSERT(p->n_targets > 0 && p->n_targets <= CFS_NODE_TARGETS_MAX);
	n->p = *p;
	n->state_fd = -1;
	if (!n->p.lease_ms)
		n->p.lease_ms = CFS_NODE_LEASE_MS;
	n->born_ns = now(n);
	cfs_list_init(&n->conns);
	cfs_list_init(&n->ops);
	cfs_node_conns_init(n);
	n->listen = strdup(p->listen);
	n->advertise = strdup(p->advertise ? p->advertise : p->listen);
	n->state_dir = strdup(p->state_dir);
	n->scratch = malloc(CFS_BODY_MAX);
	if (asprintf(&n->shard_dir, "%s/shard0", p->state_dir) < 0)
		n->shard_dir = NULL;
	if (!n->listen || !n->advertise || !n->state_dir || !n->shard_dir || !n->scratch || cfs_node_opstat_init(n)) {
		n->phase = NODE_STOPPED;
		cfs_node_destroy(n);
		return -ENOMEM;
	}
	n->timer.fn = start;
	cfs_timer_set(n->p.clock, &n->timer, n->born_ns);
	*ret_node = n;
	return 0;
}

/* ---- stop ------------------------------------------------------------------------------------ */

const char *cfs_node_busy(const struct cfs_node *n)
{
	return n->n_conns ? "connections are closing" :
	       n->n_ops ? "object requests are under way" :
	       n->raft && cfs_raft_log_busy(n->raft) ? "the journal is being written" :
	       n->ckpt && cfs_ckpt_busy(n->ckpt) ? "a checkpoint is being written" :
	       n->peers && cfs_peers_busy(n->peers) ? "connections to other nodes are closing" :
	       cfs_node_purge_busy(n) ? "deletions are under way" :
	       cfs_node_scrub_busy(n) ? "objects are being looked through" :
	       n->stores_stopping ? "the targets are finishing" : NULL;
}

static void store_stopped(void *arg)
{
	struct cfs_node *n = arg;

	n->stores_stopping--;
}

static void stop_poll(struct cfs_timer *t)
{
	struct cfs_node *n = cfs_container_of(t, struct cfs_node, timer);

	if (!cfs_node_busy(n) &&
	    !n->stores_stopped) { /* nobody asks anything of the stores any more */
		n->stores_stopped = true;
		for (unsigned i = 0; i < n->n_targets; i++) {
			n->stores_stopping++;
			cfs_store_stop(n->targets[i].store, store_stopped, n);
		}
	}
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
	if (cfs_node_is_leader(n))
		cfs_shard_lost_leadership(n->shard);
	cfs_node_conns_close(n);
	if (n->raft)
		cfs_raft_log_stop(n->raft);
	if (n->ckpt)
		cfs_ckpt_cancel(n->ckpt);
	if (n->purge)
		cfs_node_purge_close(n);
	if (n->scrub)
		cfs_node_scrub_close(n);
	if (n->peers)
		cfs_peers_close(n->peers);
	n->timer.fn = stop_poll;
	cfs_timer_set(n->p.clock, &n->timer, now(n));
}

void cfs_node_abandon(struct cfs_node *n)
{
	if (!n)
		return;
	CFS_ASSERT(n->phase == NODE_STOPPING || n->phase == NODE_STOPPED);
	n->stores_stopped = false;
	n->stores_stopping = 0;
	if (n->raft)
		cfs_raft_log_abandon(n->raft);
	if (n->ckpt)
		cfs_ckpt_abandon(n->ckpt);
	if (n->scrub)
		cfs_node_scrub_abandon(n);
	cfs_node_objects_abandon(n);
	if (n->meta)
		cfs_meta_lose(n->meta);
	CFS_ASSERT(!cfs_node_busy(n));
	n->phase = NODE_STOPPED;
	cfs_node_destroy(n);
}

void cfs_node_destroy(struct cfs_node *n)
{
	if (!n)
		return;
	CFS_ASSERT(n->phase == NODE_STOPPED);
	cfs_timer_cancel(n->p.clock, &n->timer);
	cfs_timer_cancel(n->p.clock, &n->settle);
	cfs_shard_destroy(n->shard);
	if (n->purge)
		cfs_node_purge_free(n);
	if (n->scrub)
		cfs_node_scrub_free(n);
	cfs_peers_destroy(n->peers);
	cfs_ckpt_destroy(n->ckpt);
	cfs_raft_log_destroy(n->raft);
	cfs_meta_close(n->meta);	/* syncs, and marks it clean */
	if (n->journal)
		cfs_journal_close(n->journal);
	for (unsigned i = 0; i < n->n_targets; i++) {
		cfs_store_close(n->targets[i].store, n->stores_stopped);
		free(n->targets[i].path);
	}
	if (n->state_fd >= 0)
		close(n->state_fd);
	cfs_map_free(n->map);
	free(n->map_bytes);
	cfs_node_opstat_free(n);
	free(n->scratch);
	free(n->shard_dir);
	free(n->state_dir);
	free(n->advertise);
	free(n->listen);
	free(n);
}
