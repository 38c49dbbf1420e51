/* SPDX-License-Identifier: MIT */
/*
 * loopback.c - listen and connect within one thread, for a node's own services and for tests.
 *
 * A message sent is copied (the payload into a buffer of the pool, as if it had come from the wire) and delivered
 * on the loop's next turn, in the order of sending over all connections. Addresses are any text. Bounds as
 * for tcp: CFS_NET_CONNS_MAX, CFS_NET_QUEUE_MSGS per connection.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/list.h"
#include "net/pool.h"
#include "ring/loop.h"
#include "rpc/codec.h"

struct lb_listener {
	struct cfs_list link;
	const struct cfs_conn_handler *handler;
	void *user;
	char addr[64];
};

struct lb_conn {
	struct cfs_conn conn;
	struct cfs_list link;
	struct lb_conn *peer;		/* NULL: refused, or it has gone */
	uint32_t queued;		/* messages on their way to the peer */
	int err;
	bool closing;
};

enum lb_kind { LB_OPEN, LB_MSG, LB_EOF, LB_CLOSE };

/* something that is to happen to `to` */
struct lb_event {
	struct lb_event *next;
	enum lb_kind kind;
	struct lb_conn *to;		/* NULL: it has been freed meanwhile */
	struct cfs_msg msg;
	void (*payload_done)(void *arg);
	void *payload_arg;
	_Alignas(8) uint8_t body[];
};

struct lb_net {
	struct cfs_net net;
	struct cfs_loop *loop;
	struct cfs_pool *pool;
	struct cfs_list conns, listeners;
	struct lb_event *head, **tail;
	uint32_t n_conns;
	bool posted, closing;
};

static struct lb_net *lb_net_of(struct cfs_net *net)
{
	return cfs_container_of(net, struct lb_net, net);
}

static struct lb_conn *lb_conn_of(struct cfs_conn *conn)
{
	return cfs_container_of(conn, struct lb_conn, conn);
}

static void lb_run(void *arg);

static void queue_event(struct lb_net *n, struct lb_event *e)
{
	e->next = NULL;
	*n->tail = e;
	n->tail = &e->next;
	if (!n->posted)
		n->posted = !cfs_loop_post(n->loop, lb_run, n);
	CFS_ASSERT(n->posted);	/* one post per net: the loop's bound is far away */
}

static struct lb_event *event_new(enum lb_kind kind, struct lb_conn *to, size_t body_len)
{
	struct lb_event *e = malloc(sizeof(*e) + body_len);

	if (e) {
		memset(e, 0, sizeof(*e));
		e->kind = kind;
		e->to = to;
	}
	return e;
}

static void event_free(struct lb_event *e)
{
	cfs_msg_release(&e->msg);
	if (e->payload_done)
		e->payload_done(e->payload_arg);
	free(e);
}

static void conn_free(struct lb_net *n, struct lb_conn *c)
{
	for (struct lb_event *e = n->head; e; e = e->next)	/* at most the bound of both queues */
		if (e->to == c)
			e->to = NULL;
	if (c->peer)
		c->peer->peer = NULL;
	cfs_list_del(&c->link);
	n->n_conns--;
	c->conn.handler->on_close(&c->conn, c->err);
	free(c);
}

static void lb_close_err(struct lb_conn *c, int err)
{
	struct lb_event *e;

	if (c->closing)
		return;
	c->closing = true;
	c->err = err;
	e = event_new(LB_CLOSE, c, 0);
	CFS_ASSERT(e);		/* closing cannot fail */
	queue_event(lb_net_of(c->conn.net), e);
}

static void lb_conn_close(struct cfs_conn *conn)
{
	struct lb_conn *c = lb_conn_of(conn);
	struct lb_event *e;

	if (c->peer && !c->closing) {	/* behind what is queued: the peer sees that first */
		e = event_new(LB_EOF, c->peer, 0);
		CFS_ASSERT(e);
		queue_event(lb_net_of(conn->net), e);
	}
	lb_close_err(c, 0);
}

static void handle(struct lb_net *n, struct lb_event *e)
{
	struct lb_conn *c = e->to;

	if (!c || (c->closing && e->kind != LB_CLOSE))
		return;
	switch (e->kind) {
	case LB_OPEN:
		if (c->conn.handler->on_open)
			c->conn.handler->on_open(&c->conn);
		break;
	case LB_MSG:
		if (c->peer)
			c->peer->queued--;
		c->conn.handler->on_msg(&c->conn, &e->msg);
		break;
	case LB_EOF:
		lb_close_err(c, 0);
		break;
	case LB_CLOSE:
		conn_free(n, c);
		break;
	}
}

/* what is queued now; what this causes waits for the next turn */
static void lb_run(void *arg)
{
	struct lb_net *n = arg;
	struct lb_event *last, *e;
	bool more = true;

	n->posted = false;
	if (!n->head)
		return;
	last = cfs_container_of(n->tail, struct lb_event, next);
	while (more) {
		e = n->head;
		more = e != last;
		/* stays in the queue while it is handled, so that conn_free() finds it */
		handle(n, e);
		n->head = e->next;
		if (!n->head)
			n->tail = &n->head;
		event_free(e);
	}
}

static int conn_new(struct lb_net *n, const struct cfs_conn_handler *handler, void *user, const char *peer,
		    struct lb_conn **ret_c)
{
	struct lb_conn *c;

	if (n->n_conns >= CFS_NET_CONNS_MAX)
		return -EMFILE;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->conn.net = &n->net;
	c->conn.handler = handler;
	c->conn.user = user;
	snprintf(c->conn.peer, sizeof(c->conn.peer), "%s", peer);
	cfs_list_add_tail(&n->conns, &c->link);
	n->n_conns++;
	*ret_c = c;
	return 0;
}

static struct lb_listener *find_listener(struct lb_net *n, const char *addr)
{
	struct cfs_list *pos;

	cfs_list_for_each(pos, &n->listeners) {
		struct lb_listener *l = cfs_list_entry(pos, struct lb_listener, link);

		if (!strcmp(l->addr, addr))
			return l;
	}
	return NULL;
}

static int lb_listen(struct cfs_net *net, const char *addr, const struct cfs_conn_handler *handler,
		     void *user)
{
	struct lb_net *n = lb_net_of(net);
	struct lb_listener *l;

	if (strlen(addr) >= sizeof(l->addr))
		return -EINVAL;
	if (find_listener(n, addr))
		return -EADDRINUSE;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	strcpy(l->addr, addr);
	l->handler = handler;
	l->user = user;
	cfs_list_add_tail(&n->listeners, &l->link);
	return 0;
}

static int lb_connect(struct cfs_net *net, const char *addr, const struct cfs_conn_handler *handler,
		      void *user, struct cfs_conn **ret_conn)
{
	struct lb_net *n = lb_net_of(net);
	struct lb_listener *l = find_listener(n, addr);
	struct lb_conn *c, *s = NULL;
	struct lb_event *e = NULL;
	int rc;

	if (n->closing)
		return -EPIPE;
	rc = conn_new(n, handler, user, addr, &c);
	if (rc)
		return rc;
	if (l)
		rc = conn_new(n, l->handler, l->user, "loopback", &s);
	if (!rc && s && !(e = event_new(LB_OPEN, s, 0)))
		rc = -ENOMEM;
	if (rc) {
		for (struct lb_conn *x = c; x; x = x == c ? s : NULL) {
			cfs_list_del(&x->link);
			n->n_conns--;
		}
		free(s);
		free(c);
		return rc;
	}
	if (s) {
		s->peer = c;
		c->peer = s;
		queue_event(n, e);
	} else {
		lb_close_err(c, -ECONNREFUSED);
	}
	*ret_conn = &c->conn;
	return 0;
}

static int lb_send(struct cfs_conn *conn, const struct cfs_send *send)
{
	struct lb_net *n = lb_net_of(conn->net);
	struct lb_conn *c = lb_conn_of(conn);
	struct cfs_pbuf *buf = NULL;
	struct lb_event *e;

	CFS_ASSERT(send->body_len <= CFS_BODY_MAX && send->payload_len <= CFS_PAYLOAD_MAX);
	CFS_ASSERT(!send->payload_len || (send->payload && send->payload_done));
	if (c->closing || !c->peer)
		return -EPIPE;
	if (c->queued >= CFS_NET_QUEUE_MSGS)
		return -ENOBUFS;
	if (send->payload_len && !(buf = cfs_pool_take(n->pool, send->payload_len)))
		return -ENOBUFS;
	e = event_new(LB_MSG, c->peer, send->body_len);
	if (!e) {
		if (buf)
			cfs_pool_give(buf);
		return -ENOBUFS;
	}
	if (send->body_len)
		memcpy(e->body, send->body, send->body_len);
	e->msg.hdr = send->hdr;
	cfs_hdr_seal(&e->msg.hdr, e->body, send->body_len, send->payload_len);
	e->msg.body = e->body;
	if (buf) {
		memcpy(buf->data, send->payload, send->payload_len);
		cfs_pbuf_zero_tail(buf, send->payload_len);
		e->msg.payload = buf->data;
		e->msg.priv = buf;
		e->payload_done = send->payload_done;
		e->payload_arg = send->payload_arg;
	}
	c->queued++;
	queue_event(n, e);
	return 0;
}

static void lb_close(struct cfs_net *net)
{
	struct lb_net *n = lb_net_of(net);
	struct cfs_list *pos, *tmp;

	n->closing = true;
	cfs_list_for_each(pos, &n->conns)
		lb_conn_close(&cfs_list_entry(pos, struct lb_conn, link)->conn);
	while (n->posted || n->n_conns)
		if (cfs_loop_turn(n->loop, 0))
			return;
	cfs_list_for_each_safe(pos, tmp, &n->listeners)
		free(cfs_list_entry(pos, struct lb_listener, link));
	cfs_pool_destroy(n->pool);
	free(n);
}

static const struct cfs_net_ops lb_ops = {
	.name = "loopback",
	.version = CFS_NET_OPS_VERSION,
	.listen = lb_listen,
	.connect = lb_connect,
	.send = lb_send,
	.conn_close = lb_conn_close,
	.close = lb_close,
};

int cfs_net_loopback_create(struct cfs_loop *loop, struct cfs_net **ret_net)
{
	struct lb_net *n = calloc(1, sizeof(*n));

	if (!n)
		return -ENOMEM;
	if (cfs_pool_create(CFS_NET_PAYLOAD_BYTES, &n->pool)) {
		free(n);
		return -ENOMEM;
	}
	n->net.ops = &lb_ops;
	n->loop = loop;
	cfs_list_init(&n->conns);
	cfs_list_init(&n->listeners);
	n->tail = &n->head;
	*ret_net = &n->net;
	return 0;
}
