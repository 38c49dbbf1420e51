// SPDX-License-Identifier: MIT
/*
 * observe_conn.c - one connection of `claudefs top` or `claudefs trace`: a thread that writes lines of JSON until the other side goes or
 * does not read for SEND_MS. docs/observability.md documents the lines.
 */
#include "client/observe_i.h"

#include "client/bpf_maps.h"
#include "client/client_i.h"
#include "client/opstat.h"
#include "client/report.h"
#include "obs/latency.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SEND_MS		5000
#define WAIT_MS		200u	/* for events, before looking whether the other side is there */
#define EVENTS_AT_ONCE	64u
#define NAMES_LOOKED_AT	200000u	/* cached names beyond which hot inodes are shown without a path */
#define HOT_MAX		CFS_OBSERVE_HOT
#define DEPTH_MAX	16
#define PATH_BYTES	1024u

static int send_line(int fd, json_t *doc)
{
	char *text = json_dumps(doc, JSON_COMPACT | JSON_PRESERVE_ORDER);
	size_t len = text ? strlen(text) : 0, at = 0;
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	int rc = text ? 0 : -ENOMEM;

	if (text)
		text[len++] = '\n'; /* in place of the end */
	while (at < len && !rc) {
		ssize_t n = send(fd, text + at, len - at, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0)
			at += (size_t)n;
		else if (n < 0 && errno == EAGAIN)
			rc = poll(&p, 1, SEND_MS) > 0 ? 0 : -ETIMEDOUT;
		else
			rc = -EPIPE;
	}
	free(text);
	json_decref(doc);
	return rc;
}

static json_t *integer(uint64_t v)
{
	return json_integer((json_int_t)v);
}

/* names are bytes, JSON is UTF-8 */
static json_t *name_json(const char *name, size_t len)
{
	json_t *v = json_stringn(name, len);
	char plain[PATH_BYTES];

	if (v)
		return v;
	len = cfs_min(len, sizeof(plain));
	for (size_t i = 0; i < len; i++)
		plain[i] = (unsigned char)name[i] < 0x80 ? name[i] : '?';
	return json_stringn(plain, len);
}

/* ---- samples ---------------------------------------------------------------------------------------------- */
/* paths of the hottest inodes, from their ends up to the root, as far as the names on the way are cached */
struct paths {
	unsigned n;
	bool found;
	uint64_t top[HOT_MAX];		/* whose name comes next; 0: no more */
	uint64_t parent[HOT_MAX];
	char path[HOT_MAX][PATH_BYTES];
};

static void found_name(void *arg, unsigned i, uint64_t dir, const char *name, size_t len)
{
	struct paths *p = arg;
	size_t had = strlen(p->path[i]);

	if (p->parent[i] || had + len + 2 > PATH_BYTES) /* of hard links, one */
		return;
	memmove(p->path[i] + len + 1, p->path[i], had + 1);
	p->path[i][0] = '/';
	memcpy(p->path[i] + 1, name, len);
	p->parent[i] = dir;
	p->found = true;
}

static void find_paths(struct cfs_client *c, struct paths *p)
{
	struct cfs_dcache_stat st;

	cfs_dcache_stat(c->dcache, &st);
	p->found = st.names < NAMES_LOOKED_AT;
	for (int depth = 0; depth < DEPTH_MAX && p->found; depth++) {
		p->found = false;
		memset(p->parent, 0, sizeof(p->parent));
		cfs_dcache_names_of(c->dcache, p->top, p->n, found_name, p);
		for (unsigned i = 0; i < p->n; i++)
			if (p->top[i])
				p->top[i] = p->parent[i] == CFS_INO_ROOT ? 0 : p->parent[i] ? p->parent[i] : p->top[i];
	}
}

static json_t *hot_json(struct cfs_client *c, const struct cfs_observe_sample *s)
{
	struct paths *p = calloc(1, sizeof(*p));
	json_t *all = json_array();

	if (!p)
		return all;
	p->n = s->n_hot;
	for (unsigned i = 0; i < p->n; i++)
		p->top[i] = s->hot[i].ino == CFS_INO_ROOT ? 0 : s->hot[i].ino;
	find_paths(c, p);
	for (unsigned i = 0; i < p->n; i++) {
		const struct cfs_bpf_heat *h = &s->hot[i].heat;
		json_t *o = json_pack("{s:o, s:o, s:o, s:o}", "inode", integer(s->hot[i].ino), "ops", integer(h->ops),
				      "read_bytes", integer(h->read_bytes), "write_bytes", integer(h->write_bytes));

		/* from the root, or from wherever the cache ends */
		json_object_set_new(o, "path", !p->top[i] && !p->path[i][0] ? json_string("/") :
				    name_json(p->path[i] + (p->top[i] && p->path[i][0]), strlen(p->path[i]) - (p->top[i] && p->path[i][0])));
		json_array_append_new(all, o);
	}
	free(p);
	return all;
}

static json_t *sample_json(struct cfs_observe *ob)
{
	struct cfs_observe_sample *s = malloc(sizeof(*s));
	json_t *ops = json_object(), *doc;
	char buf[16];

	if (!s)
		return ops;
	cfs_observe_sample(ob, s);
	for (uint32_t op = 0; op < CFS_BPF_OPS; op++)
		if (s->ops[op].count)
			json_object_set_new(ops, cfs_opstat_name(op, buf), cfs_latency_json(&s->ops[op]));
	doc = json_pack("{s:s, s:o, s:o}", "view", s->kernel ? "kernel" : "client", "time_ns", integer(cfs_boot_ns()), "ops", ops);
	if (s->kernel) {
		json_object_set_new(doc, "inflight", integer(s->inflight));
		json_object_set_new(doc, "hot", hot_json(ob->c, s));
	} else {
		json_object_set_new(doc, "why", json_string(s->why));
	}
	json_object_set_new(doc, "mount", cfs_report(ob->c, ob->o));
	free(s);
	return doc;
}

/* a sample for each line that comes, and one to begin with */
static void serve_samples(struct cfs_observer *who)
{
	struct pollfd p = { .fd = who->fd, .events = POLLIN };
	char line[64];

	while (!__atomic_load_n(&who->ob->stopping, __ATOMIC_ACQUIRE) && !send_line(who->fd, sample_json(who->ob)))
		if (poll(&p, 1, -1) < 0 || recv(who->fd, line, sizeof(line), 0) <= 0)
			break;
}

/* ---- events ------------------------------------------------------------------------------------------------ */
static json_t *event_json(const struct cfs_bpf_event *e)
{
	struct timespec ts;
	uint64_t ago = cfs_boot_ns() - e->end_ns, now;
	char buf[16];
	json_t *o;

	clock_gettime(CLOCK_REALTIME, &ts);
	now = (uint64_t)ts.tv_sec * CFS_NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
	o = json_pack("{s:o, s:o, s:o, s:s, s:o, s:i, s:o}", "time_ns", integer(now - ago), "latency_ns", integer(e->latency_ns),
		      "pid", integer(e->pid), "op", cfs_opstat_name(e->opcode, buf), "inode", integer(e->nodeid), "error",
		      e->error, "bytes", integer(e->bytes));
	if (e->name_len)
		json_object_set_new(o, "name", name_json(e->name, strnlen(e->name, cfs_min(e->name_len, CFS_BPF_EVENT_NAME))));
	return o;
}

static bool gone(int fd)
{
	char byte;

	return recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0;
}

static void serve_events(struct cfs_observer *who)
{
	const struct cfs_observe_want *w = &who->want;
	struct cfs_observe *ob = who->ob;
	struct cfs_bpf_event events[EVENTS_AT_ONCE];
	struct cfs_trace_reader r;
	uint64_t told = 0;
	json_t *first;
	int rc;

	cfs_trace_open(ob->trace, &r);
	first = json_pack("{s:s}", "view", ob->bpf ? "kernel" : "client");
	if (!ob->bpf)
		json_object_set_new(first, "why", json_string(ob->why));
	rc = send_line(who->fd, first);
	while (!rc && !gone(who->fd) && !__atomic_load_n(&ob->stopping, __ATOMIC_ACQUIRE)) {
		unsigned n = cfs_trace_get(ob->trace, &r, events, EVENTS_AT_ONCE, WAIT_MS);

		for (unsigned i = 0; i < n && !rc; i++)
			if ((!w->pid || w->pid == events[i].pid) && (!w->ino || w->ino == events[i].nodeid))
				rc = send_line(who->fd, event_json(&events[i]));
		if (!rc && r.lost != told) {
			rc = send_line(who->fd, json_pack("{s:o}", "lost", integer(r.lost - told)));
			told = r.lost;
		}
	}
}

/* ---- connections ---------------------------------------------------------------------------------------------- */
static void *observer_main(void *arg)
{
	struct cfs_observer *who = arg;

	cfs_observe_begin(who->ob, who);
	if (who->want.trace)
		serve_events(who);
	else
		serve_samples(who);
	shutdown(who->fd, SHUT_RDWR); /* closed by who joins: the number must stay taken until then */
	cfs_observe_end(who->ob, who);
	return NULL;
}

static void reap(struct cfs_observer *who)
{
	pthread_join(who->thread, NULL);
	close(who->fd);
	who->fd = -1;
	who->ended = false;
}

int cfs_observe_connect(struct cfs_client *c, int fd, const struct cfs_observe_want *want)
{
	struct cfs_observe *ob = c->observe;
	struct cfs_observer *free_one = NULL;
	int rc = -EBUSY;

	if (!ob)
		return -ENOMEM;
	for (unsigned i = 0; i < CFS_OBSERVERS_MAX && !free_one; i++) {
		struct cfs_observer *who = &ob->observers[i];
		bool ended;

		pthread_mutex_lock(&ob->lock);
		ended = who->fd >= 0 && who->ended;
		pthread_mutex_unlock(&ob->lock);
		if (ended)
			reap(who);
		if (who->fd < 0)
			free_one = who;
	}
	if (!free_one)
		return rc;
	pthread_mutex_lock(&ob->lock);
	*free_one = (struct cfs_observer){ .ob = ob, .want = *want, .fd = fd };
	rc = -pthread_create(&free_one->thread, NULL, observer_main, free_one);
	if (rc)
		free_one->fd = -1;
	pthread_mutex_unlock(&ob->lock);
	return rc;
}

void cfs_observe_conns_end(struct cfs_observe *ob)
{
	__atomic_store_n(&ob->stopping, true, __ATOMIC_RELEASE);
	cfs_trace_wake(ob->trace);
	for (unsigned i = 0; i < CFS_OBSERVERS_MAX; i++) {
		if (ob->observers[i].fd < 0)
			continue;
		shutdown(ob->observers[i].fd, SHUT_RDWR);
		reap(&ob->observers[i]);
	}
}
