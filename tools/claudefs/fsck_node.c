/* SPDX-License-Identifier: MIT */
/* fsck_node.c - see fsck_node.h. State: on the stack of each call; one thread. */
#include "fsck_node.h"

#include "net/net.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUN_MAX_NS (600 * CFS_NSEC_PER_SEC)
#define TURN_NS (100 * CFS_NSEC_PER_MSEC)

struct node_run {
	bool started, failed, stopped;
	int rc;
	char *err;
	size_t errlen;
};

static void on_started(void *arg, int rc, const char *why)
{
	struct node_run *r = arg;

	r->started = true;
	r->rc = rc;
	if (rc)
		snprintf(r->err, r->errlen, "%s", why);
}

static void on_failed(void *arg, int rc, const char *why)
{
	struct node_run *r = arg;

	r->failed = true;
	r->rc = rc ? rc : -EIO;
	snprintf(r->err, r->errlen, "%s", why);
}

static void on_stopped(void *arg)
{
	((struct node_run *)arg)->stopped = true;
}

/* turn until *flag or time is up */
static int turn_until(struct cfs_loop *loop, const bool *flag, const bool *or_flag)
{
	struct cfs_clock *clock = cfs_loop_clock(loop);
	uint64_t end = cfs_clock_boot_ns(clock) + RUN_MAX_NS;
	int rc = 0;

	while (!rc && !*flag && !(or_flag && *or_flag)) {
		if (cfs_clock_boot_ns(clock) > end)
			return -ETIMEDOUT;
		rc = cfs_loop_turn(loop, TURN_NS);
		if (rc == -ETIME || rc == -EINTR)
			rc = 0;
	}
	return rc;
}

/* an integer of the status document, wherever it stands; -1 if it does not */
static json_int_t find_int(json_t *v, const char *name)
{
	json_int_t found = -1;
	const char *key;
	json_t *item;
	size_t i;

	json_object_foreach(v, key, item) {
		if (!strcmp(key, name) && json_is_integer(item))
			return json_integer_value(item);
		found = find_int(item, name);
		if (found >= 0)
			return found;
	}
	json_array_foreach(v, i, item) {
		found = find_int(item, name);
		if (found >= 0)
			return found;
	}
	return found;
}

static json_int_t checkpoints(struct cfs_node *node)
{
	char *text = cfs_node_status(node);
	json_t *root = text ? json_loads(text, 0, NULL) : NULL;
	json_int_t n = root ? find_int(root, "checkpoints") : -1;

	json_decref(root);
	free(text);
	return n;
}

static int take_checkpoint(struct cfs_loop *loop, struct cfs_node *node, struct node_run *r)
{
	struct cfs_clock *clock = cfs_loop_clock(loop);
	uint64_t end = cfs_clock_boot_ns(clock) + RUN_MAX_NS;
	json_int_t before = checkpoints(node);

	cfs_node_checkpoint(node);
	while (checkpoints(node) <= before) {
		if (r->failed)
			return r->rc;
		if (cfs_clock_boot_ns(clock) > end) {
			snprintf(r->err, r->errlen, "no checkpoint within 10 minutes");
			return -ETIMEDOUT;
		}
		cfs_loop_turn(loop, TURN_NS);
	}
	return 0;
}

int fsck_node_run(struct cfs_loop *loop, const struct cfs_config *cfg, bool checkpoint, char *err, size_t errlen)
{
	struct cfs_node_target targets[CFS_NODE_TARGETS_MAX] = { { 0 } };
	struct node_run r = { .err = err, .errlen = errlen };
	struct cfs_net *net = NULL, *local = NULL;
	struct cfs_node *node = NULL;
	struct cfs_node_params p = {
		.clock = cfs_loop_clock(loop), .listen = cfg->listen, .advertise = cfg->advertise,
		.state_dir = cfg->state_dir, .targets = targets, .lease_ms = cfg->lease_ms,
		.checkpoint_bytes = cfg->checkpoint_bytes, .started = on_started, .failed = on_failed, .arg = &r,
	};
	int rc;

	rc = cfs_net_loopback_create(loop, &net);
	if (!rc)
		rc = cfs_net_loopback_create(loop, &local);
	for (unsigned i = 0; i < CFS_NODE_TARGETS_MAX && !rc; i++) {
		if (!cfg->targets[i])
			continue;
		targets[p.n_targets].path = cfg->targets[i];
		rc = cfs_dev_open(loop, cfg->targets[i], 0, &targets[p.n_targets].dev);
		if (rc)
			snprintf(err, errlen, "%s: %s", cfg->targets[i], strerror(-rc));
		else
			p.n_targets++;
	}
	p.net = net;
	p.local_net = local;
	if (!rc)
		rc = cfs_node_create(&p, &node);
	if (rc)
		goto out;
	rc = turn_until(loop, &r.started, &r.failed);
	if (!rc)
		rc = r.rc;
	if (!rc && checkpoint)
		rc = take_checkpoint(loop, node, &r);
	cfs_node_stop(node, on_stopped);
	if (turn_until(loop, &r.stopped, NULL) && !rc) {
		snprintf(err, errlen, "does not stop: %s", cfs_node_busy(node) ? cfs_node_busy(node) : "unknown");
		rc = -ETIMEDOUT;
	}
out:
	cfs_node_destroy(node);
	if (local)
		local->ops->close(local);
	if (net)
		net->ops->close(net);
	for (unsigned i = 0; i < p.n_targets; i++)
		cfs_dev_close(targets[i].dev);
	if (rc && !err[0])
		snprintf(err, errlen, "%s", strerror(-rc));
	return rc;
}

struct delete_wait {
	struct cfs_store_delete del;
	bool done;
	int rc;
};

static void on_deleted(struct cfs_store_delete *d, int rc)
{
	struct delete_wait *w = cfs_container_of(d, struct delete_wait, del);

	w->done = true;
	w->rc = rc;
}

int fsck_delete_objects(struct cfs_loop *loop, struct cfs_store *store, const struct cfs_oid *oids, uint32_t n)
{
	struct delete_wait w = { .del = { .oids = oids, .n = n, .done = on_deleted } };
	int rc;

	cfs_store_delete(store, &w.del);
	rc = turn_until(loop, &w.done, NULL);
	return rc ? rc : w.rc;
}

static void on_store_stopped(void *arg)
{
	*(bool *)arg = true;
}

void fsck_close_store(struct cfs_loop *loop, struct cfs_store *store)
{
	bool stopped = false;

	cfs_store_stop(store, on_store_stopped, &stopped);
	cfs_store_close(store, turn_until(loop, &stopped, NULL) == 0);
}
