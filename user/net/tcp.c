/* SPDX-License-Identifier: MIT */
/*
 * tcp.c - TCP over the loop's ring: life and death of nets, listeners and connections; see tcp_i.h.
 */
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "net/tcp_i.h"

#define LISTEN_BACKLOG 1024

static struct tcp_net *tcp_net_of(struct cfs_net *net)
{
	return cfs_container_of(net, struct tcp_net, net);
}

/* ---- the way out -------------------------------------------------------------------------------- */

static void tcp_wake(void *arg);

void tcp_wake_later(struct tcp_net *t)
{
	t->wake_wanted = true;
	/* a full queue means that the loop is busy: the hook tries again every turn */
	if (!t->wake_posted)
		t->wake_posted = !cfs_loop_post(t->loop, tcp_wake, t);
}

static void end_later(struct tcp_conn *c)
{
	if (cfs_list_empty(&c->end_link))
		cfs_list_add_tail(&c->t->ending, &c->end_link);
	tcp_wake_later(c->t);
}

void tcp_conn_fail(struct tcp_conn *c, int err)
{
	if (!c->closing) {
		c->closing = true;
		c->err = err;
		c->since_tick = c->t->ticks;
	}
	c->draining = false;
	end_later(c);
}

static void tcp_conn_close(struct cfs_conn *conn)
{
	struct tcp_conn *c = tcp_conn_of(conn);

	if (c->closing)
		return;
	c->closing = true;
	c->draining = c->connected && !tcp_tx_idle(c);
	c->since_tick = c->t->ticks;
	end_later(c);
}

static void cancel_nothing(struct cfs_ring_op *op, int32_t res, uint32_t flags)
{
	struct tcp_conn *c = cfs_container_of(op, struct tcp_conn, cancel_op);

	(void)res, (void)flags;
	c->ops--;
	tcp_conn_settle(c);
}

/* make every request in the ring complete */
static void conn_shut(struct tcp_conn *c)
{
	c->shut = true;
	tcp_tx_drop(c);
	if (c->fd < 0)
		return;
	if (c->connected) {
		shutdown(c->fd, SHUT_RDWR);
	} else if (c->ops) {	/* connecting: the receiving half does not use cancel_op yet */
		struct io_uring_sqe *sqe = cfs_loop_sqe(c->t->loop);

		c->cancel_op.done = cancel_nothing;
		io_uring_prep_cancel(sqe, &c->connect_op, 0);
		cfs_loop_sqe_set(sqe, &c->cancel_op);
		c->ops++;
	}
}

void tcp_conn_settle(struct tcp_conn *c)
{
	bool abort = c->err || c->t->ticks - c->since_tick > TCP_ABORT_TICKS;

	if (!c->closing)
		return;
	if (c->draining && !tcp_tx_idle(c) && c->t->ticks - c->since_tick <= TCP_DRAIN_TICKS)
		return;
	c->draining = false;
	if (!c->shut)
		conn_shut(c);
	if (c->ops || c->resolving)
		return;
	if (c->fd >= 0 && (!c->notifs || abort)) {
		/* the kernel lets go of payloads the peer has not taken only when it drops them */
		if (abort)
			setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 },
				   sizeof(struct linger));
		close(c->fd);
		c->fd = -1;
	}
	if (c->fd < 0 && !c->notifs) {
		c->ended = true;
		end_later(c);
	}
}

static void conn_end(struct tcp_conn *c)
{
	struct tcp_net *t = c->t;

	CFS_ASSERT(!c->ops && !c->tx && !c->txq && cfs_list_empty(&c->dirty_link));
	tcp_rx_fini(c);
	cfs_list_del(&c->link);
	t->n_conns--;
	c->conn.handler->on_close(&c->conn, c->err);
	free(c->addrs);
	free(c);
}

/* what calls of others have caused: on the next turn, outside of their calls */
static void tcp_wake(void *arg)
{
	struct tcp_net *t = arg;
	unsigned bound = t->n_conns;

	t->wake_posted = t->wake_wanted = false;
	tcp_rx_wake(t);
	for (unsigned i = 0; i < bound && !cfs_list_empty(&t->ending); i++) {
		struct tcp_conn *c = cfs_list_first(&t->ending, struct tcp_conn, end_link);

		cfs_list_del(&c->end_link);
		if (!c->ended)
			tcp_conn_settle(c);
		if (c->ended) {
			cfs_list_del(&c->end_link);
			conn_end(c);
		}
	}
	if (!cfs_list_empty(&t->ending))
		tcp_wake_later(t);
}

static void pool_waiter(void *arg)
{
	tcp_wake_later(arg);
}

/* ---- connections ------------------------------------------------------------------------------------- */

static void tick_arm(struct tcp_net *t)
{
	struct cfs_clock *clock = cfs_loop_clock(t->loop);

	if (!cfs_timer_armed(&t->timer) && (t->n_conns || !cfs_list_empty(&t->listeners)))
		cfs_timer_set(clock, &t->timer, cfs_clock_boot_ns(clock) + TCP_TICK_NS);
}

static int conn_new(struct tcp_net *t, const struct cfs_conn_handler *handler, void *user,
		    struct tcp_conn **ret_c)
{
	struct tcp_conn *c;

	if (t->n_conns >= CFS_NET_CONNS_MAX)
		return -EMFILE;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->conn.net = &t->net;
	c->conn.handler = handler;
	c->conn.user = user;
	c->t = t;
	c->fd = -1;
	c->since_tick = c->rx_tick = t->ticks;
	cfs_list_init(&c->end_link);
	tcp_tx_init(c);
	if (tcp_rx_init(c)) {
		free(c);
		return -ENOMEM;
	}
	cfs_list_add_tail(&t->conns, &c->link);
	t->n_conns++;
	tick_arm(t);
	*ret_c = c;
	return 0;
}

/* the socket is connected */
static void conn_start(struct tcp_conn *c)
{
	int rc = cfs_addr_tune(c->fd);

	if (rc)		/* the peer may be gone already: receiving tells */
		cfs_debug("net: socket options for %s: %s", c->conn.peer, strerror(-rc));
	c->connected = true;
	c->tx_zc = c->t->send_zc && (c->t->zc_local || !cfs_addr_is_local(c->fd));
	c->rx_tick = c->t->ticks;
	tcp_rx_arm(c);
}

/* ---- listening --------------------------------------------------------------------------------------- */

static void listener_arm(struct tcp_listener *l)
{
	struct io_uring_sqe *sqe = cfs_loop_sqe(l->t->loop);

	if (l->t->multi_accept)
		io_uring_prep_multishot_accept(sqe, l->fd, NULL, NULL, SOCK_CLOEXEC);
	else
		io_uring_prep_accept(sqe, l->fd, NULL, NULL, SOCK_CLOEXEC);
	cfs_loop_sqe_set(sqe, &l->op);
	l->armed = true;
}

static void listener_free(struct tcp_listener *l)
{
	cfs_list_del(&l->link);
	close(l->fd);
	free(l);
}

static void accepted(struct tcp_listener *l, int fd)
{
	struct tcp_net *t = l->t;
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	struct tcp_conn *c;

	if (t->closing || getpeername(fd, (struct sockaddr *)&ss, &len)) {
		close(fd);	/* gone again */
		return;
	}
	if (conn_new(t, l->handler, l->user, &c)) {
		t->refused++;
		close(fd);
		return;
	}
	cfs_addr_format((struct sockaddr *)&ss, c->conn.peer, sizeof(c->conn.peer));
	c->fd = fd;
	conn_start(c);
	if (l->handler->on_open)
		l->handler->on_open(&c->conn);
}

static void accept_done(struct cfs_ring_op *op, int32_t res, uint32_t flags)
{
	struct tcp_listener *l = cfs_container_of(op, struct tcp_listener, op);
	struct tcp_net *t = l->t;

	if (!(flags & IORING_CQE_F_MORE))
		l->armed = false;
	if (res >= 0) {
		accepted(l, res);
	} else if (res == -EINVAL && t->multi_accept) {
		t->multi_accept = false;	/* before 5.19 */
	} else if (res != -ECANCELED && res != -ECONNABORTED && res != -EINTR && !t->closing) {
		/* out of descriptors, mostly: try again at the next tick */
		cfs_warn("net: accepting connections on port %u: %s", l->port, strerror(-res));
		return;
	}
	if (l->armed)
		return;
	if (t->closing)
		listener_free(l);
	else
		listener_arm(l);
}

static int listen_on(const struct cfs_addr *a, uint16_t *ret_port)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	const int one = 1;
	int fd, rc;

	fd = socket(a->ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(fd, (const struct sockaddr *)&a->ss, a->len) || listen(fd, LISTEN_BACKLOG) ||
	    getsockname(fd, (struct sockaddr *)&ss, &len)) {
		rc = -errno;
		close(fd);
		return rc;
	}
	*ret_port = be16toh(ss.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&ss)->sin6_port :
						       ((struct sockaddr_in *)&ss)->sin_port);
	return fd;
}

static int tcp_listen(struct cfs_net *net, const char *addr, const struct cfs_conn_handler *handler,
		      void *user)
{
	struct tcp_net *t = tcp_net_of(net);
	struct tcp_listener *l;
	struct cfs_addr a;
	int rc;

	if (t->closing)
		return -EPIPE;
	rc = cfs_addr_parse(addr, false, &a, 1);	/* at start-up: may ask the resolver */
	if (rc < 0)
		return rc;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	rc = l->fd = listen_on(&a, &l->port);
	if (rc < 0) {
		free(l);
		return rc;
	}
	l->op.done = accept_done;
	l->t = t;
	l->handler = handler;
	l->user = user;
	cfs_list_add_head(&t->listeners, &l->link);
	listener_arm(l);
	tick_arm(t);
	return 0;
}

uint16_t cfs_net_tcp_port(struct cfs_net *net)
{
	struct tcp_net *t = tcp_net_of(net);

	return cfs_list_empty(&t->listeners) ? 0 :
		cfs_list_first(&t->listeners, struct tcp_listener, link)->port;
}

/* ---- connecting ---------------------------------------------------------------------------------------- */

/* the next address of the peer's name, or the end */
static void connect_next(struct tcp_conn *c, int err)
{
	while (c->addr_at < c->n_addrs) {
		const struct cfs_addr *a = &c->addrs[c->addr_at];
		struct io_uring_sqe *sqe;

		c->fd = socket(a->ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (c->fd < 0) {
			err = -errno;
			c->addr_at++;
			continue;
		}
		sqe = cfs_loop_sqe(c->t->loop);
		io_uring_prep_connect(sqe, c->fd, (const struct sockaddr *)&a->ss, a->len);
		cfs_loop_sqe_set(sqe, &c->connect_op);
		c->ops++;
		return;
	}
	tcp_conn_fail(c, err);
}

static void connect_done(struct cfs_ring_op *op, int32_t res, uint32_t flags)
{
	struct tcp_conn *c = cfs_container_of(op, struct tcp_conn, connect_op);

	(void)flags;
	c->ops--;
	if (!c->closing && !res) {
		conn_start(c);
		if (c->txq)
			tcp_tx_dirty(c);
	} else if (!c->closing) {
		close(c->fd);
		c->fd = -1;
		c->addr_at++;
		connect_next(c, res);
	}
	tcp_conn_settle(c);
}

static void resolve_work(void *arg)
{
	struct tcp_conn *c = arg;	/* ours alone until resolve_done: `resolving` */

	c->resolve_rc = cfs_addr_parse(c->conn.peer, false, c->addrs, CFS_ADDRS_MAX);
}

static void resolve_done(void *arg)
{
	struct tcp_conn *c = arg;

	c->resolving = false;
	if (c->resolve_rc > 0)
		c->n_addrs = (unsigned)c->resolve_rc;
	if (!c->closing)
		connect_next(c, c->resolve_rc < 0 ? -EHOSTUNREACH : 0);
	tcp_conn_settle(c);
}

static int tcp_connect(struct cfs_net *net, const char *addr, const struct cfs_conn_handler *handler,
		       void *user, struct cfs_conn **ret_conn)
{
	struct tcp_net *t = tcp_net_of(net);
	struct cfs_clock *clock = cfs_loop_clock(t->loop);
	struct cfs_addr numeric[1];
	struct tcp_conn *c;
	int n, rc;

	if (t->closing)
		return -EPIPE;
	n = cfs_addr_parse(addr, true, numeric, 1);
	if ((n < 0 && n != -ENOENT) || strlen(addr) >= sizeof(c->conn.peer))
		return n == -EAGAIN ? n : -EINVAL;
	rc = conn_new(t, handler, user, &c);
	if (rc)
		return rc;
	strcpy(c->conn.peer, addr);
	c->connect_op.done = connect_done;
	c->addrs = calloc(n > 0 ? 1 : CFS_ADDRS_MAX, sizeof(*c->addrs));
	if (!c->addrs) {
		rc = -ENOMEM;
		goto err;
	}
	if (n > 0) {
		c->addrs[0] = numeric[0];
		c->n_addrs = 1;
		connect_next(c, -EADDRNOTAVAIL);
	} else {
		rc = clock->ops->offload(clock, resolve_work, resolve_done, c);
		if (rc)
			goto err;
		c->resolving = true;
	}
	*ret_conn = &c->conn;
	return 0;
err:
	tcp_rx_fini(c);
	cfs_list_del(&c->link);
	t->n_conns--;
	free(c->addrs);
	free(c);
	return rc;
}

/* ---- time ------------------------------------------------------------------------------------------------- */

static void conn_tick(struct tcp_conn *c)
{
	uint32_t now = c->t->ticks;

	if (!c->closing && !c->connected && now - c->since_tick > TCP_CONNECT_TICKS) {
		tcp_conn_fail(c, -ETIMEDOUT);
	} else if (!c->closing && c->connected && tcp_rx_stalled(c)) {
		cfs_warn("net: closing connection with %s: a message stalled half received",
			 c->conn.peer);
		tcp_conn_fail(c, -ETIMEDOUT);
	} else if (!c->closing && c->tx && now - c->tx_tick > 2 * TCP_STALL_TICKS) {
		cfs_warn("net: closing connection with %s: it takes nothing any more", c->conn.peer);
		tcp_conn_fail(c, -ETIMEDOUT);
	}
	tcp_conn_settle(c);
}

static void tcp_tick(struct cfs_timer *timer)
{
	struct tcp_net *t = cfs_container_of(timer, struct tcp_net, timer);
	struct cfs_list *pos;

	t->ticks++;
	cfs_list_for_each(pos, &t->conns)
		conn_tick(cfs_list_entry(pos, struct tcp_conn, link));
	cfs_list_for_each(pos, &t->listeners) {
		struct tcp_listener *l = cfs_list_entry(pos, struct tcp_listener, link);

		if (!l->armed && !t->closing)
			listener_arm(l);
	}
	if (!cfs_list_empty(&t->starved))	/* memory may be back that no buffer of ours stood for */
		tcp_wake_later(t);
	if (t->refused)
		cfs_warn("net: refused %u connections: %u are open", t->refused, t->n_conns);
	t->refused = 0;
	tick_arm(t);
}

/* ---- nets ---------------------------------------------------------------------------------------------------- */

/* the end of a turn: send what it has queued */
static void tcp_hook(struct cfs_loop_hook *hook)
{
	struct tcp_net *t = cfs_container_of(hook, struct tcp_net, hook);

	tcp_tx_reap_quick(t);
	while (!cfs_list_empty(&t->dirty)) {
		struct tcp_conn *c = cfs_list_first(&t->dirty, struct tcp_conn, dirty_link);

		cfs_list_del(&c->dirty_link);
		tcp_tx_flush(c);
	}
	if (cfs_unlikely(t->wake_wanted && !t->wake_posted))
		tcp_wake_later(t);
}

static void probe(struct tcp_net *t)
{
	struct io_uring_probe *p = io_uring_get_probe_ring(cfs_loop_ring(t->loop));

	t->send_zc = p && io_uring_opcode_supported(p, IORING_OP_SENDMSG_ZC);
	t->send_quick = t->send_zc;	/* since the same kernel (6.1) a failed send tells how far it came */
	t->multi_accept = true;		/* until the kernel says no */
	io_uring_free_probe(p);
}

static void net_free(struct tcp_net *t)
{
	cfs_timer_cancel(cfs_loop_clock(t->loop), &t->timer);
	tcp_rx_net_fini(t);
	tcp_tx_net_fini(t);
	if (t->pool) {
		cfs_pool_set_waiter(t->pool, NULL, NULL);
		cfs_pool_destroy(t->pool);
	}
	free(t);
}

static void tcp_net_close(struct cfs_net *net)
{
	struct tcp_net *t = tcp_net_of(net);
	struct cfs_list *pos, *tmp;

	t->closing = true;
	cfs_list_for_each_safe(pos, tmp, &t->listeners) {
		struct tcp_listener *l = cfs_list_entry(pos, struct tcp_listener, link);

		if (l->armed) {
			struct io_uring_sqe *sqe = cfs_loop_sqe(t->loop);

			io_uring_prep_cancel(sqe, &l->op, 0);
			cfs_loop_sqe_set(sqe, NULL);
		} else {
			listener_free(l);
		}
	}
	cfs_list_for_each(pos, &t->conns)
		tcp_conn_close(&cfs_list_entry(pos, struct tcp_conn, link)->conn);
	/* bounded by the ticks in tcp_conn_settle(); what a failing ring leaves behind must not be freed */
	while (t->n_conns || !cfs_list_empty(&t->listeners) || t->wake_posted)
		if (cfs_loop_turn(t->loop, TCP_TICK_NS)) {
			cfs_err("net: the ring failed: %u connections left behind", t->n_conns);
			return;
		}
	cfs_loop_hook_del(t->loop, &t->hook);
	net_free(t);
}

static const struct cfs_net_ops tcp_ops = {
	.name = "tcp",
	.version = CFS_NET_OPS_VERSION,
	.listen = tcp_listen,
	.connect = tcp_connect,
	.send = tcp_tx_send,
	.conn_close = tcp_conn_close,
	.close = tcp_net_close,
};

int tcp_net_create(struct cfs_loop *loop, uint64_t payload_bytes, bool provided_buffers,
		   struct cfs_net **ret_net)
{
	struct tcp_net *t = calloc(1, sizeof(*t));
	int rc;

	if (!t)
		return -ENOMEM;
	t->net.ops = &tcp_ops;
	t->loop = loop;
	cfs_list_init(&t->conns);
	cfs_list_init(&t->listeners);
	cfs_list_init(&t->dirty);
	cfs_list_init(&t->starved);
	cfs_list_init(&t->nobufs);
	cfs_list_init(&t->ending);
	cfs_list_init(&t->quick);
	t->timer.fn = tcp_tick;
	t->hook.fn = tcp_hook;
	t->hook.last = true;
	probe(t);
	rc = cfs_pool_create(payload_bytes, &t->pool);
	if (!rc && provided_buffers)
		rc = tcp_rx_net_init(t);
	if (rc) {
		net_free(t);
		return rc;
	}
	cfs_pool_set_waiter(t->pool, pool_waiter, t);
	cfs_loop_hook_add(loop, &t->hook);
	*ret_net = &t->net;
	return 0;
}

int cfs_net_tcp_create(struct cfs_loop *loop, struct cfs_net **ret_net)
{
	return tcp_net_create(loop, CFS_NET_PAYLOAD_BYTES, true, ret_net);
}
