/* SPDX-License-Identifier: MIT */
/* fakes.c - see fakes.h. */
#include "selftests/lib/fakes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- clock -------------------------------------------------------------------------------------- */
static struct fake_clock *fake(struct cfs_clock *c)
{
	return cfs_container_of(c, struct fake_clock, clock);
}

static uint64_t boot_ns(struct cfs_clock *c)
{
	return fake(c)->now_ns;
}

static uint64_t real_ns(struct cfs_clock *c)
{
	return fake(c)->now_ns + FAKE_REAL_NS;
}

static void timer_cancel(struct cfs_clock *c, struct cfs_timer *t)
{
	struct fake_clock *f = fake(c);

	for (unsigned i = 0; i < f->n; i++) {
		if (f->timers[i] == t) {
			f->timers[i] = f->timers[--f->n];
			break;
		}
	}
	t->heap_pos = 0;
}

static void timer_set(struct cfs_clock *c, struct cfs_timer *t, uint64_t deadline_ns)
{
	struct fake_clock *f = fake(c);

	timer_cancel(c, t);
	CFS_ASSERT(f->n < FAKE_TIMERS_MAX);
	f->timers[f->n++] = t;
	t->deadline_ns = deadline_ns;
	t->heap_pos = 1;
}

static uint64_t random_bits(struct cfs_clock *c)
{
	struct fake_clock *f = fake(c);

	f->random = f->random * 6364136223846793005ull + 1442695040888963407ull;
	return f->random ^ f->random >> 33;
}

static int offload(struct cfs_clock *c, void (*work)(void *), void (*done)(void *), void *arg)
{
	(void)c;
	work(arg);
	done(arg);
	return 0;
}

static const struct cfs_clock_ops clock_ops = {
	.name = "fake",
	.version = CFS_CLOCK_OPS_VERSION,
	.boot_ns = boot_ns,
	.real_ns = real_ns,
	.timer_set = timer_set,
	.timer_cancel = timer_cancel,
	.random = random_bits,
	.offload = offload,
};

void fake_clock_init(struct fake_clock *c)
{
	memset(c, 0, sizeof(*c));
	c->clock.ops = &clock_ops;
	c->now_ns = 1000 * 1000000000ull;
	c->random = 1;
}

void fake_clock_advance_ms(struct fake_clock *c, uint64_t ms)
{
	uint64_t end = c->now_ns + ms * 1000000;

	for (;;) {
		struct cfs_timer *next = NULL;

		for (unsigned i = 0; i < c->n; i++) {
			if (c->timers[i]->deadline_ns <= end && (!next || c->timers[i]->deadline_ns < next->deadline_ns))
				next = c->timers[i];
		}
		if (!next)
			break;
		c->now_ns = cfs_max(c->now_ns, next->deadline_ns);
		timer_cancel(&c->clock, next);
		next->fn(next);
	}
	c->now_ns = end;
}

/* ---- log ---------------------------------------------------------------------------------------- */
static int propose(void *log, const void *entry, size_t len)
{
	struct fake_log *l = log;
	struct fake_entry *e;

	if (l->refuse)
		return l->refuse;
	e = malloc(sizeof(*e) + len);
	CFS_ASSERT(e);
	e->len = len;
	memcpy(e->data, entry, len);
	cfs_list_add_tail(&l->entries, &e->link);
	l->n++;
	l->proposed++;
	return 0;
}

const struct cfs_log_ops fake_log_ops = {
	.name = "fake",
	.version = CFS_LOG_OPS_VERSION,
	.propose = propose,
};

void fake_log_init(struct fake_log *l)
{
	memset(l, 0, sizeof(*l));
	cfs_list_init(&l->entries);
}

static struct fake_entry *take(struct fake_log *l)
{
	struct fake_entry *e;

	if (cfs_list_empty(&l->entries))
		return NULL;
	e = cfs_list_first(&l->entries, struct fake_entry, link);
	cfs_list_del(&e->link);
	l->n--;
	return e;
}

bool fake_log_commit(struct fake_log *l)
{
	struct fake_entry *e = take(l);
	int rc;

	if (!e)
		return false;
	rc = cfs_shard_apply(l->shard, ++l->index, e->data, e->len);
	CFS_ASSERT(rc == 0);
	free(e);
	return true;
}

void fake_log_commit_all(struct fake_log *l)
{
	while (fake_log_commit(l))
		;
}

void fake_log_drop(struct fake_log *l)
{
	struct fake_entry *e;

	while ((e = take(l)))
		free(e);
}

/* ---- connections -------------------------------------------------------------------------------- */
static int conn_send(struct cfs_conn *conn, const struct cfs_send *send)
{
	struct fake_conn *c = cfs_container_of(conn, struct fake_conn, conn);
	struct fake_sent *m;

	if (c->closed)
		return -EPIPE;
	if (c->refuse)
		return c->refuse;
	CFS_ASSERT(send->body_len <= CFS_BODY_MAX && send->payload_len <= CFS_PAYLOAD_MAX);
	m = calloc(1, sizeof(*m));
	CFS_ASSERT(m);
	m->hdr = send->hdr;
	m->hdr.body_len = cfs_cpu_to_le32(send->body_len);
	m->hdr.payload_len = cfs_cpu_to_le32(send->payload_len);
	m->body_len = send->body_len;
	m->body = malloc(send->body_len + 1);
	CFS_ASSERT(m->body);
	if (send->body_len)
		memcpy(m->body, send->body, send->body_len);
	cfs_list_add_tail(&c->sent, &m->link);
	c->n_sent++;
	if (send->payload_done)
		send->payload_done(send->payload_arg);
	return 0;
}

static void conn_close(struct cfs_conn *conn)
{
	cfs_container_of(conn, struct fake_conn, conn)->closed = true;
}

static const struct cfs_net_ops net_ops = {
	.name = "fake",
	.version = CFS_NET_OPS_VERSION,
	.send = conn_send,
	.conn_close = conn_close,
};
static struct cfs_net fake_net = { .ops = &net_ops };

struct fake_conn *fake_conn_new(const char *peer)
{
	struct fake_conn *c = calloc(1, sizeof(*c));

	CFS_ASSERT(c);
	c->conn.net = &fake_net;
	snprintf(c->conn.peer, sizeof(c->conn.peer), "%s", peer);
	cfs_list_init(&c->sent);
	return c;
}

struct fake_sent *fake_conn_take(struct fake_conn *c)
{
	struct fake_sent *m;

	if (cfs_list_empty(&c->sent))
		return NULL;
	m = cfs_list_first(&c->sent, struct fake_sent, link);
	cfs_list_del(&m->link);
	c->n_sent--;
	return m;
}

void fake_sent_free(struct fake_sent *m)
{
	if (!m)
		return;
	free(m->body);
	free(m);
}

void fake_conn_free(struct fake_conn *c)
{
	struct fake_sent *m;

	if (!c)
		return;
	while ((m = fake_conn_take(c)))
		fake_sent_free(m);
	free(c);
}

void fake_msg(const struct cfs_msg_hdr *hdr, const void *body, uint32_t len, void (*cb)(void *arg, struct cfs_msg *msg),
	      void *arg)
{
	struct cfs_msg msg = { .hdr = *hdr };
	uint8_t *copy = malloc(len ? len : 1);

	CFS_ASSERT(copy);
	if (len)
		memcpy(copy, body, len);
	msg.hdr.body_len = cfs_cpu_to_le32(len);
	msg.body = copy;
	cb(arg, &msg);
	free(copy);
}
