/* SPDX-License-Identifier: MIT */
/*
 * scrub.c - deletes the objects that clients wrote and never committed before they died.
 *
 * A pass begins when sessions have ended since the last one began, and after a start. It lists the node's own targets, a
 * batch at a time between requests, keeps the names that were written by sessions that are not ours to ask any
 * more, and has a helper thread compare them with the state (cfs_meta_garbage()). What is left is deleted, a batch at a
 * time. A pass holds at most SCRUB_NAMES names; one that met more goes on where it stopped. Every node does this with its
 * own replica: it may lag, but an ended session in it has its last commit in it, too. With several shards all of
 * them will have to be asked.
 */
#include "server/cluster/node_i.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SCRUB_NAMES	65536u
#define SCRUB_BATCH	512u
#define SCRUB_PAUSE_NS	(20 * CFS_NSEC_PER_MSEC)	/* between batches */
#define SCRUB_IDLE_NS	(10 * CFS_NSEC_PER_SEC)		/* between looks whether sessions have ended */
#define SCRUB_RETRY_NS	(60 * CFS_NSEC_PER_SEC)

struct node_scrub {
	struct cfs_node *n;
	struct cfs_timer timer;
	enum { SCRUB_IDLE, SCRUB_LIST, SCRUB_DELETE } what;
	bool closed, held;
	bool working, deleting;		/* a helper thread, or the store, has the names */
	uint64_t ended;			/* cfs_meta_sessions_ended() when the last pass began */
	unsigned target;
	uint64_t cursor;
	struct cfs_oid *oids;		/* SCRUB_NAMES of them, while a pass is under way */
	unsigned n_oids, done;
	bool more;			/* there was no room for all */
	int err;
	struct cfs_store_delete del;
	uint64_t deleted;
};

static void step(struct cfs_timer *t);

static void later(struct node_scrub *s, uint64_t ns)
{
	s->timer.fn = step;
	cfs_timer_set(s->n->p.clock, &s->timer, cfs_clock_boot_ns(s->n->p.clock) + ns);
}

static void pass_over(struct node_scrub *s, int err)
{
	free(s->oids);
	s->oids = NULL;
	s->what = SCRUB_IDLE;
	if (s->closed)
		return;
	if (err) {
		cfs_warn("cannot delete the uncommitted objects of dead clients: %s; trying again in a minute",
			 strerror(-err));
		s->ended = 0;
	}
	later(s, err ? SCRUB_RETRY_NS : SCRUB_IDLE_NS);
}

/* ---- deleting ------------------------------------------------------------------------------------ */

static void next_target(struct node_scrub *s)
{
	s->n_oids = s->done = 0;
	s->what = SCRUB_LIST;
	if (!s->more) {
		s->target++;
		s->cursor = 0;
	}
	s->more = false;
	if (s->target >= s->n->n_targets)
		pass_over(s, 0);
	else
		later(s, SCRUB_PAUSE_NS);
}

static void deleted(struct cfs_store_delete *d, int err)
{
	struct node_scrub *s = d->user;

	s->deleting = false;
	if (err || s->closed) {
		pass_over(s, err);
		return;
	}
	s->done += d->n;
	s->deleted += d->n;
	if (s->done < s->n_oids) {
		later(s, SCRUB_PAUSE_NS);
		return;
	}
	cfs_info("deleted %u objects on %s that dead clients never committed", s->n_oids, s->n->targets[s->target].path);
	next_target(s);
}

static void delete_some(struct node_scrub *s)
{
	s->del = (struct cfs_store_delete){
		.oids = s->oids + s->done,
		.n = cfs_min(s->n_oids - s->done, SCRUB_BATCH),
		.done = deleted,
		.user = s,
	};
	s->deleting = true;
	cfs_store_delete(s->n->targets[s->target].store, &s->del);
}

/* ---- comparing, on a helper thread ------------------------------------------------------------------ */

static void compare(void *arg)
{
	struct node_scrub *s = arg;

	s->err = cfs_meta_garbage(s->n->meta, s->oids, s->n_oids, &s->n_oids);
}

static void compared(void *arg)
{
	struct node_scrub *s = arg;

	s->working = false;
	if (s->err || s->closed) {
		pass_over(s, s->err);
	} else if (s->n_oids) {
		s->what = SCRUB_DELETE;
		delete_some(s);
	} else {
		next_target(s);
	}
}

/* ---- listing --------------------------------------------------------------------------------------- */

static void list_some(struct node_scrub *s)
{
	struct cfs_oid *oids = s->oids + s->n_oids;
	uint32_t lens[SCRUB_BATCH];
	uint64_t owner, before = 0;
	bool lives = true;
	unsigned kept = 0;
	int got, rc;

	if (s->n_oids + SCRUB_BATCH > SCRUB_NAMES) {
		s->more = true;
		got = 0;
	} else {
		got = cfs_store_list(s->n->targets[s->target].store, &s->cursor, oids, lens, SCRUB_BATCH);
	}
	for (int i = 0; i < got; i++) {
		owner = cfs_le64_to_cpu(oids[i].owner);
		if (i == 0 || owner != before)
			lives = owner == CFS_OID_OWNER_META || cfs_meta_session_exists(s->n->meta, owner);
		before = owner;
		if (!lives)
			oids[kept++] = oids[i];
	}
	s->n_oids += kept;
	if (got > 0) {
		later(s, SCRUB_PAUSE_NS);
		return;
	}
	if (got < 0 || !s->n_oids) {
		if (got < 0)
			pass_over(s, got);
		else
			next_target(s);
		return;
	}
	if (s->held) {
		s->ended = 0;
		pass_over(s, 0);
		return;
	}
	s->working = true;
	rc = s->n->p.clock->ops->offload(s->n->p.clock, compare, compared, s);
	if (rc) {
		s->working = false;
		pass_over(s, rc);
	}
}

static void step(struct cfs_timer *t)
{
	struct node_scrub *s = cfs_container_of(t, struct node_scrub, timer);
	uint64_t ended;

	switch (s->what) {
	case SCRUB_IDLE:
		ended = cfs_meta_sessions_ended(s->n->meta);
		if (ended == s->ended || s->held) {
			later(s, SCRUB_IDLE_NS);
			return;
		}
		s->oids = malloc(SCRUB_NAMES * sizeof(*s->oids));
		if (!s->oids) {
			later(s, SCRUB_RETRY_NS);
			return;
		}
		s->ended = ended;
		s->target = s->n_oids = s->done = 0;
		s->cursor = 0;
		s->what = SCRUB_LIST;
		list_some(s);
		break;
	case SCRUB_LIST:
		list_some(s);
		break;
	case SCRUB_DELETE:
		delete_some(s);
		break;
	}
}

/* ---- a node's life ----------------------------------------------------------------------------------- */

int cfs_node_scrub_init(struct cfs_node *n)
{
	n->scrub = calloc(1, sizeof(*n->scrub));
	if (!n->scrub)
		return -ENOMEM;
	n->scrub->n = n;
	return 0;
}

void cfs_node_scrub_start(struct cfs_node *n)
{
	later(n->scrub, SCRUB_IDLE_NS);
}

bool cfs_node_scrub_hold(struct cfs_node *n, bool hold)
{
	n->scrub->held = hold;
	return !n->scrub->working;
}

void cfs_node_scrub_close(struct cfs_node *n)
{
	struct node_scrub *s = n->scrub;

	s->closed = true;
	cfs_timer_cancel(n->p.clock, &s->timer);
	if (!cfs_node_scrub_busy(n))
		pass_over(s, 0);
}

void cfs_node_scrub_abandon(struct cfs_node *n)
{
	CFS_ASSERT(n->scrub->closed);
	n->scrub->working = n->scrub->deleting = false;
	pass_over(n->scrub, 0);
}

bool cfs_node_scrub_busy(const struct cfs_node *n)
{
	return n->scrub && (n->scrub->working || n->scrub->deleting);
}

uint64_t cfs_node_scrub_deleted(const struct cfs_node *n)
{
	return n->scrub ? n->scrub->deleted : 0;
}

void cfs_node_scrub_free(struct cfs_node *n)
{
	CFS_ASSERT(!cfs_node_scrub_busy(n));
	cfs_timer_cancel(n->p.clock, &n->scrub->timer);
	free(n->scrub->oids);
	free(n->scrub);
	n->scrub = NULL;
}
