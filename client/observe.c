// SPDX-License-Identifier: MIT
/* observe.c - see observe.h and observe_i.h. */
#include "client/observe_i.h"

#include "base/log.h"
#include "client/bpf_maps.h"
#include "client/client_i.h"
#include "client/mount.h"
#include "client/opstat.h"

#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POLL_MS 200	/* of the thread that takes the kernel's events */

void cfs_observe_session(struct cfs_client *c)
{
	struct cfs_bpf_session s = {
		.session = c->session, .leader_epoch = __atomic_load_n(&c->leader_epoch, __ATOMIC_RELAXED),
		.deadline_ns = c->deadline_ns, .lease_ms = c->lease_ms, .state = c->state, .pid = (uint32_t)getpid(),
	};

	if (!c->bpf_maps)
		return;
	snprintf(s.server, sizeof(s.server), "%s", c->nodes[__atomic_load_n(&c->leader, __ATOMIC_RELAXED)]);
	cfs_bpf_maps_session(c->bpf_maps, &s);
}

/* ---- the client's view: called by every worker for every request ---------------------------------------------- */
void cfs_observe_took(struct cfs_thread *t)
{
	t->took_ns = cfs_boot_ns();
}

/* where in a request's body its name begins; -1: it has none */
static int name_at(const struct cfs_client *c, uint32_t opcode)
{
	switch (opcode) {
	case FUSE_LOOKUP:
	case FUSE_UNLINK:
	case FUSE_RMDIR:
	case FUSE_SYMLINK:
	case FUSE_REMOVEXATTR:
		return 0;
	case FUSE_MKNOD:
		return sizeof(struct fuse_mknod_in);
	case FUSE_MKDIR:
		return sizeof(struct fuse_mkdir_in);
	case FUSE_RENAME:
		return sizeof(struct fuse_rename_in);
	case FUSE_RENAME2:
		return sizeof(struct fuse_rename2_in);
	case FUSE_LINK:
		return sizeof(struct fuse_link_in);
	case FUSE_CREATE:
		return sizeof(struct fuse_create_in);
	case FUSE_SETXATTR:
		return c->setxattr_ext ? sizeof(struct fuse_setxattr_in) : FUSE_COMPAT_SETXATTR_IN_SIZE;
	case FUSE_GETXATTR:
		return sizeof(struct fuse_getxattr_in);
	}
	return -1;
}

static void put_event(struct cfs_thread *t, struct cfs_observe *ob, int32_t error, size_t bytes, uint64_t now)
{
	const struct fuse_in_header *in = t->in;
	struct cfs_bpf_event e = {
		.end_ns = now, .latency_ns = now - t->took_ns, .unique = in->unique, .nodeid = in->nodeid,
		.opcode = in->opcode, .pid = in->pid, .uid = in->uid, .error = error,
		.bytes = in->opcode == FUSE_READ ? (uint32_t)bytes : 0,
	};
	size_t body = t->in_len - sizeof(*in);
	int at = name_at(t->c, in->opcode);

	if (in->opcode == FUSE_WRITE && body > sizeof(struct fuse_write_in))
		e.bytes = (uint32_t)(body - sizeof(struct fuse_write_in));
	if (at >= 0 && (size_t)at < body) {
		const char *name = (const char *)(in + 1) + at;

		e.name_len = (uint32_t)strnlen(name, body - (size_t)at);
		memcpy(e.name, name, cfs_min(e.name_len, CFS_BPF_EVENT_NAME));
	}
	cfs_trace_put(ob->trace, &e);
}

void cfs_observe_done(struct cfs_thread *t, int32_t error, size_t bytes)
{
	const struct fuse_in_header *in = t->in;
	struct cfs_observe *ob;
	uint64_t now;

	if (!t->took_ns)
		return; /* has been counted */
	now = cfs_boot_ns();
	cfs_opstat_count(t->c->opstat, in->opcode, now - t->took_ns, error != 0);
	ob = __atomic_load_n(&t->c->observe, __ATOMIC_ACQUIRE);
	if (cfs_unlikely(ob && __atomic_load_n(&ob->client_traces, __ATOMIC_RELAXED)))
		put_event(t, ob, error, bytes, now);
	t->took_ns = 0;
}

/* ---- views -------------------------------------------------------------------------------------------------- */
static void *taker_main(void *arg)
{
	struct cfs_observe *ob = arg;

	while (__atomic_load_n(&ob->taking, __ATOMIC_ACQUIRE))
		if (cfs_obs_bpf_poll(ob->bpf, ob->trace, POLL_MS))
			poll(NULL, 0, POLL_MS);
	return NULL;
}

/* tell whoever produces events which are wanted; the lock is held */
static void set_tracing(struct cfs_observe *ob)
{
	const struct cfs_observe_want *only = NULL;
	unsigned n = 0;

	for (unsigned i = 0; i < CFS_OBSERVERS_MAX; i++) {
		struct cfs_observer *who = &ob->observers[i];

		if (who->fd >= 0 && !who->ended && who->want.trace) {
			only = &who->want;
			n++;
		}
	}
	/* the kernel filters for one; of several, each takes his own out of all */
	if (ob->bpf)
		cfs_obs_bpf_trace(ob->bpf, n > 0, n == 1 ? only->pid : 0, n == 1 ? only->ino : 0);
	__atomic_store_n(&ob->client_traces, n && !ob->bpf, __ATOMIC_RELAXED);
}

static void open_view(struct cfs_observe *ob)
{
	struct cfs_client *c = ob->c;

	ob->why[0] = 0;
	if (!c->bpf_maps)
		snprintf(ob->why, sizeof(ob->why), "BPF: %s", c->bpf_why);
	else if (!ob->conn_dev)
		snprintf(ob->why, sizeof(ob->why), "the mount's device number is not known");
	else if (cfs_obs_bpf_open(c->bpf_maps, ob->conn_dev, &ob->bpf, ob->why, sizeof(ob->why)))
		ob->bpf = NULL;
	if (!ob->bpf)
		return;
	ob->taking = true;
	if (pthread_create(&ob->taker, NULL, taker_main, ob)) {
		snprintf(ob->why, sizeof(ob->why), "no more threads");
		ob->taking = false;
		cfs_obs_bpf_close(ob->bpf);
		ob->bpf = NULL;
	}
}

void cfs_observe_begin(struct cfs_observe *ob, struct cfs_observer *who)
{
	(void)who;
	pthread_mutex_lock(&ob->lock);
	if (!ob->users++)
		open_view(ob);
	set_tracing(ob);
	pthread_mutex_unlock(&ob->lock);
}

void cfs_observe_end(struct cfs_observe *ob, struct cfs_observer *who)
{
	pthread_mutex_lock(&ob->lock);
	who->ended = true;
	set_tracing(ob);
	if (!--ob->users && ob->bpf) {
		__atomic_store_n(&ob->taking, false, __ATOMIC_RELEASE);
		pthread_join(ob->taker, NULL);
		cfs_obs_bpf_close(ob->bpf);
		ob->bpf = NULL;
	}
	pthread_mutex_unlock(&ob->lock);
}

void cfs_observe_sample(struct cfs_observe *ob, struct cfs_observe_sample *ret)
{
	pthread_mutex_lock(&ob->lock);
	memset(ret, 0, sizeof(*ret));
	ret->kernel = ob->bpf != NULL;
	memcpy(ret->why, ob->why, sizeof(ret->why));
	if (ob->bpf) {
		cfs_obs_bpf_ops(ob->bpf, ret->ops);
		ret->n_hot = cfs_obs_bpf_heat(ob->bpf, ret->hot, CFS_ARRAY_SIZE(ret->hot));
		ret->inflight = cfs_obs_bpf_inflight(ob->bpf);
	} else {
		cfs_opstat_sum(ob->c->opstat, ret->ops);
	}
	pthread_mutex_unlock(&ob->lock);
}

int cfs_observe_probe(char *why, size_t len)
{
	struct cfs_bpf_maps *m = NULL;
	struct cfs_obs_bpf *b = NULL;
	int rc = cfs_bpf_maps_create(NULL, 0, &m, why, len);

	if (!rc)
		rc = cfs_obs_bpf_open(m, 0, &b, why, len);
	if (!rc)
		cfs_obs_bpf_close(b);
	cfs_bpf_maps_destroy(m);
	return rc;
}

/* ---- life ---------------------------------------------------------------------------------------------------- */
static void make_maps(struct cfs_client *c, const struct cfs_mount_opts *o)
{
	bool answering = cfs_tier_ready(c, CFS_TIER_BPF);
	uint64_t mem = o->bpf_mem ? o->bpf_mem : answering ? CFS_BPF_MEM_DEFAULT : 0;
	struct cfs_bpf_maps *m = NULL;
	int rc;

	if (o->bpf == CFS_TIER_WANT_OFF) {
		snprintf(c->bpf_why, sizeof(c->bpf_why), "off by option");
		return;
	}
	rc = cfs_bpf_maps_create(o->mountpoint, mem, &m, c->bpf_why, sizeof(c->bpf_why));
	if (c->bpf_why[0])
		cfs_info("BPF: %s", c->bpf_why);
	if (rc)
		return;
	pthread_mutex_lock(&c->lock);
	c->bpf_maps = m;
	cfs_observe_session(c);
	pthread_mutex_unlock(&c->lock);
}

void cfs_observe_start(struct cfs_client *c, const struct cfs_mount_opts *o)
{
	struct cfs_observe *ob = calloc(1, sizeof(*ob));
	unsigned major, minor;

	make_maps(c, o);
	if (!ob || cfs_trace_create(&ob->trace)) {
		free(ob);
		return; /* nobody can connect, then */
	}
	ob->c = c;
	ob->o = o;
	if (!cfs_mount_device(o->mountpoint, &major, &minor))
		ob->conn_dev = major << 20 | minor;
	pthread_mutex_init(&ob->lock, NULL);
	for (unsigned i = 0; i < CFS_OBSERVERS_MAX; i++)
		ob->observers[i].fd = -1;
	__atomic_store_n(&c->observe, ob, __ATOMIC_RELEASE);
}

void cfs_observe_disconnect(struct cfs_client *c)
{
	if (c->observe)
		cfs_observe_conns_end(c->observe);
}

void cfs_observe_stop(struct cfs_client *c)
{
	struct cfs_observe *ob = c->observe;
	struct cfs_bpf_maps *m;

	c->observe = NULL;
	if (ob) {
		cfs_trace_destroy(ob->trace);
		pthread_mutex_destroy(&ob->lock);
		free(ob);
	}
	pthread_mutex_lock(&c->lock);
	m = c->bpf_maps;
	c->bpf_maps = NULL;
	pthread_mutex_unlock(&c->lock);
	cfs_bpf_maps_destroy(m);
}
