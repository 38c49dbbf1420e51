/* SPDX-License-Identifier: MIT */
/*
 * tcp_tx.c - sending; see tcp_i.h. Messages queue per connection and are gathered, at the end of a turn, into
 * one sendmsg; one is under way per connection, so order is kept. Header and body are copied when they are
 * queued, payloads stay where they are until the kernel has let go of them.
 *
 * Small sends are "quick": they may not wait (MSG_DONTWAIT) and say nothing when they succeed, so that the wait for the
 * next request is not cut short by the completion of the last reply: one io_uring_enter() a round trip. What does
 * not fit into the socket's buffer comes back as a completion and goes on as an ordinary send.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/tcp_i.h"
#include "rpc/codec.h"

#define TX_INLINE	(sizeof(struct cfs_msg_hdr) + 448u)	/* of messages that are recycled */
#define TX_QUICK_BYTES	(32u << 10)
#define TX_FREE_MAX	4096u
#define TX_BATCH_BYTES	(16u << 20)	/* of one sendmsg */
#define TX_NOTIFS_MAX	16u		/* batches of a connection that the kernel still refers to */

/* ---- memory ------------------------------------------------------------------------------------ */

static struct tx_msg *msg_alloc(struct tcp_net *t, uint32_t len)
{
	uint32_t cap = cfs_max(len, (uint32_t)TX_INLINE);
	struct tx_msg *m = t->free_msgs;

	if (cap == TX_INLINE && m) {
		t->free_msgs = m->next;
		t->n_free_msgs--;
		return m;
	}
	m = malloc(sizeof(*m) + cap);
	if (m)
		m->cap = cap;
	return m;
}

static void msgs_release(struct tcp_net *t, struct tx_msg *m)
{
	struct tx_msg *next;

	for (; m; m = next) {
		next = m->next;
		if (m->payload_done)
			m->payload_done(m->payload_arg);
		if (m->cap == TX_INLINE && t->n_free_msgs < TX_FREE_MAX) {
			m->next = t->free_msgs;
			t->free_msgs = m;
			t->n_free_msgs++;
		} else {
			free(m);
		}
	}
}

static struct tx_batch *batch_alloc(struct tcp_net *t)
{
	struct tx_batch *b = t->free_batches;

	if (b) {
		t->free_batches = b->next;
		t->n_free_batches--;
		return b;
	}
	return malloc(sizeof(*b));
}

static void batch_release(struct tcp_net *t, struct tx_batch *b)
{
	msgs_release(t, b->msgs);
	if (t->n_free_batches < CFS_NET_CONNS_MAX / 16) {
		b->next = t->free_batches;
		t->free_batches = b;
		t->n_free_batches++;
	} else {
		free(b);
	}
}

void tcp_tx_net_fini(struct tcp_net *t)
{
	struct tx_msg *m;
	struct tx_batch *b;

	while ((m = t->free_msgs)) {
		t->free_msgs = m->next;
		free(m);
	}
	while ((b = t->free_batches)) {
		t->free_batches = b->next;
		free(b);
	}
}

/* ---- queueing ------------------------------------------------------------------------------------ */

void tcp_tx_init(struct tcp_conn *c)
{
	c->txq_tail = &c->txq;
	cfs_list_init(&c->dirty_link);
}

int tcp_tx_send(struct cfs_conn *conn, const struct cfs_send *send)
{
	struct tcp_conn *c = tcp_conn_of(conn);
	struct cfs_msg_hdr hdr = send->hdr;
	uint32_t len = (uint32_t)sizeof(hdr) + send->body_len;
	struct tx_msg *m;

	CFS_ASSERT(send->body_len <= CFS_BODY_MAX && send->payload_len <= CFS_PAYLOAD_MAX);
	CFS_ASSERT(!send->payload_len || (send->payload && send->payload_done));
	if (c->closing)
		return -EPIPE;
	if (c->tx_queued >= CFS_NET_QUEUE_MSGS || c->tx_bytes + len > CFS_NET_QUEUE_BYTES)
		return -ENOBUFS;
	m = msg_alloc(c->t, len);
	if (!m)
		return -ENOBUFS;
	cfs_hdr_seal(&hdr, send->body, send->body_len, send->payload_len);
	memcpy(m->bytes, &hdr, sizeof(hdr));
	if (send->body_len)
		memcpy(m->bytes + sizeof(hdr), send->body, send->body_len);
	m->len = len;
	m->payload = send->payload;
	m->payload_len = send->payload_len;
	m->payload_done = send->payload_len ? send->payload_done : NULL;
	m->payload_arg = send->payload_arg;
	m->next = NULL;
	*c->txq_tail = m;
	c->txq_tail = &m->next;
	c->tx_queued++;
	c->tx_bytes += len;
	tcp_tx_dirty(c);
	return 0;
}

void tcp_tx_dirty(struct tcp_conn *c)
{
	if (cfs_list_empty(&c->dirty_link) && !c->tx && c->connected)
		cfs_list_add_tail(&c->t->dirty, &c->dirty_link);
}

bool tcp_tx_idle(const struct tcp_conn *c)
{
	return !c->tx && !c->txq;
}

void tcp_tx_drop(struct tcp_conn *c)
{
	struct tx_msg *m = c->txq;

	cfs_list_del(&c->dirty_link);
	c->txq = NULL;
	c->txq_tail = &c->txq;
	c->tx_queued = 0;
	c->tx_bytes = 0;
	msgs_release(c->t, m);
}

/* ---- sending --------------------------------------------------------------------------------------- */

static void tx_done(struct cfs_ring_op *op, int32_t res, uint32_t flags);

/* as many messages as fit into the iovec, from the queue */
static void batch_fill(struct tcp_conn *c, struct tx_batch *b)
{
	struct tx_msg *m, **tail = &b->msgs;
	bool bulk = false, payload = false;

	b->left = 0;
	b->iov_at = b->iov_n = 0;
	while ((m = c->txq) && b->iov_n + 2 <= TX_IOV_MAX &&
	       (!b->left || b->left + m->len + m->payload_len <= TX_BATCH_BYTES)) {
		c->txq = m->next;
		c->tx_queued--;
		c->tx_bytes -= m->len;
		*tail = m;
		tail = &m->next;
		b->iov[b->iov_n++] = (struct iovec){ m->bytes, m->len };
		if (m->payload_len)
			b->iov[b->iov_n++] = (struct iovec){
				(void *)(uintptr_t)m->payload, m->payload_len };
		payload |= m->payload_len > 0;
		bulk |= m->payload_len >= TCP_BULK_MIN;
		b->left += (uint64_t)m->len + m->payload_len;
	}
	*tail = NULL;
	if (!c->txq)
		c->txq_tail = &c->txq;
	b->zc = bulk && c->tx_zc && c->notifs < TX_NOTIFS_MAX;
	b->quick = !payload && c->t->send_quick && b->left <= TX_QUICK_BYTES;
}

static void batch_start(struct tcp_conn *c, struct tx_batch *b)
{
	struct io_uring_sqe *sqe = cfs_loop_sqe(c->t->loop);
	const struct iovec *iov = &b->iov[b->iov_at];
	int flags = MSG_NOSIGNAL | MSG_WAITALL;	/* the kernel goes on after a short send */

	if (b->quick)
		flags |= MSG_DONTWAIT;

	if (b->iov_n - b->iov_at == 1 && !b->zc) {
		io_uring_prep_send(sqe, c->fd, iov->iov_base, iov->iov_len, flags);
	} else {
		b->msghdr = (struct msghdr){
			.msg_iov = &b->iov[b->iov_at],
			.msg_iovlen = b->iov_n - b->iov_at,
		};
		if (b->zc)
			io_uring_prep_sendmsg_zc(sqe, c->fd, &b->msghdr, (unsigned)flags);
		else
			io_uring_prep_sendmsg(sqe, c->fd, &b->msghdr, (unsigned)flags);
	}
	cfs_loop_sqe_set(sqe, &b->op);
	c->ops++;
	if (b->quick) {
		sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
		b->mark = cfs_loop_mark(c->t->loop);
		cfs_list_add_tail(&c->t->quick, &b->quick_link);
	}
}

/* the batch is sent, or given up */
static void batch_end(struct tcp_conn *c, struct tx_batch *b)
{
	b->complete = true;
	c->tx = NULL;
	if (c->txq)	/* at the end of the turn: until then more may come */
		tcp_tx_dirty(c);
	if (!b->notifs)
		batch_release(c->t, b);
}

void tcp_tx_reap_quick(struct tcp_net *t)
{
	while (!cfs_list_empty(&t->quick)) {
		struct tx_batch *b = cfs_list_first(&t->quick, struct tx_batch, quick_link);
		struct tcp_conn *c = b->conn;

		if (!cfs_loop_taken(t->loop, b->mark))
			break;	/* in order of submission */
		cfs_list_del(&b->quick_link);
		c->ops--;
		batch_end(c, b);
		tcp_conn_settle(c);
	}
}

void tcp_tx_flush(struct tcp_conn *c)
{
	struct tx_batch *b;

	if (c->tx || !c->txq || !c->connected || c->shut)
		return;
	b = batch_alloc(c->t);
	if (!b) {
		tcp_conn_fail(c, -ENOMEM);
		tcp_conn_settle(c);
		return;
	}
	b->op.done = tx_done;
	b->conn = c;
	b->notifs = 0;
	b->complete = false;
	cfs_list_init(&b->quick_link);
	batch_fill(c, b);
	c->tx = b;
	c->tx_tick = c->t->ticks;
	batch_start(c, b);
}

static void batch_advance(struct tx_batch *b, uint64_t n)
{
	b->left -= n;
	while (n) {
		struct iovec *iov = &b->iov[b->iov_at];
		uint64_t k = cfs_min(n, (uint64_t)iov->iov_len);

		iov->iov_base = (char *)iov->iov_base + k;
		iov->iov_len -= k;
		n -= k;
		if (!iov->iov_len)
			b->iov_at++;
	}
}

/* a send that ended early: is there another way? */
static bool tx_goes_on(struct tcp_conn *c, struct tx_batch *b, int32_t res)
{
	if (res > 0 || res == -EINTR || (res == -EAGAIN && b->quick))
		return true;
	if (b->zc && (res == -EOPNOTSUPP || res == -EINVAL || res == -ENOMEM || res == -ENOBUFS)) {
		/* this socket cannot, or its budget of pinned memory is used up: copying always works */
		c->tx_zc = b->zc = false;
		return true;
	}
	return false;
}

static void tx_done(struct cfs_ring_op *op, int32_t res, uint32_t flags)
{
	struct tx_batch *b = cfs_container_of(op, struct tx_batch, op);
	struct tcp_conn *c = b->conn;

	if (flags & IORING_CQE_F_NOTIF) {
		b->notifs--;
		c->notifs--;
		if (b->complete && !b->notifs)
			batch_release(c->t, b);
		tcp_conn_settle(c);
		return;
	}
	c->ops--;
	if (flags & IORING_CQE_F_MORE) {
		b->notifs++;
		c->notifs++;
	}
	if (res > 0) {
		batch_advance(b, (uint64_t)res);
		c->tx_tick = c->t->ticks;
	}
	if (b->left && !c->shut && tx_goes_on(c, b, res)) {
		b->quick = false;
		cfs_list_del(&b->quick_link);
		batch_start(c, b);
		return;
	}
	cfs_list_del(&b->quick_link);
	if (b->left && !c->shut)
		tcp_conn_fail(c, res < 0 ? res : -EPIPE);
	batch_end(c, b);
	tcp_conn_settle(c);
}
