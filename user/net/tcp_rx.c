/* SPDX-License-Identifier: MIT */
/*
 * tcp_rx.c - receiving; see tcp_i.h.
 *
 * Small messages arrive by one multishot receive into buffers that all connections share. When a header announces
 * bulk, the multishot is cancelled and the rest of the payload received straight into its place; as long as
 * bulk keeps coming the connection stays with single receives, short ones for the headers, so that little
 * of a payload is copied. Who finds no payload buffer stops receiving: TCP then stops the peer.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "net/tcp_i.h"

#define RX_BULK_HEADER	4096u		/* bytes asked for while bulk is expected behind a header */
#define RX_BULK_QUIET	16u		/* messages without bulk after which multishot returns */
#define RX_DIRECT_MAX	(1u << 20)	/* bytes of one receive: progress is seen in between */

/* ---- provided buffers ---------------------------------------------------------------------------- */

static uint8_t *buf_at(struct tcp_net *t, uint16_t bid)
{
	return t->buf_mem + (size_t)bid * RX_BUF_BYTES;
}

static void buf_return(struct tcp_net *t, uint16_t bid)
{
	io_uring_buf_ring_add(t->bufs, buf_at(t, bid), RX_BUF_BYTES, bid,
			      io_uring_buf_ring_mask(RX_BUFS), 0);
	io_uring_buf_ring_advance(t->bufs, 1);
}

int tcp_rx_net_init(struct tcp_net *t)
{
	struct io_uring *ring = cfs_loop_ring(t->loop);
	int rc;

	t->buf_group = cfs_loop_buf_group(t->loop);
	t->bufs = io_uring_setup_buf_ring(ring, RX_BUFS, t->buf_group, 0, &rc);
	if (!t->bufs)
		return 0;	/* before 5.19: each connection has a buffer of its own */
	if (posix_memalign((void **)&t->buf_mem, 4096, (size_t)RX_BUFS * RX_BUF_BYTES)) {
		t->buf_mem = NULL;
		return -ENOMEM;
	}
	for (uint16_t i = 0; i < RX_BUFS; i++)
		buf_return(t, i);
	t->multi_recv = true;	/* until the kernel says no */
	return 0;
}

void tcp_rx_net_fini(struct tcp_net *t)
{
	if (t->bufs)
		io_uring_free_buf_ring(cfs_loop_ring(t->loop), t->bufs, RX_BUFS, t->buf_group);
	free(t->buf_mem);
}

static void rx_done(struct cfs_ring_op *op, int32_t res, uint32_t flags);
static void cancel_done(struct cfs_ring_op *op, int32_t res, uint32_t flags);

int tcp_rx_init(struct tcp_conn *c)
{
	c->rx_op.done = rx_done;
	c->cancel_op.done = cancel_done;
	c->pend_head = c->pend_tail = RX_CHUNK_NONE;
	cfs_list_init(&c->wait_link);
	cfs_frame_init(&c->frame, c->t->pool);
	if (!c->t->bufs) {
		c->own_buf = aligned_alloc(64, RX_BUF_BYTES);
		if (!c->own_buf)
			return -ENOMEM;
	}
	return 0;
}

static void pend_drop(struct tcp_conn *c)
{
	while (c->pend_head != RX_CHUNK_NONE) {
		uint16_t bid = c->pend_head;

		c->pend_head = c->t->chunks[bid].next;
		c->t->bufs_held--;
		buf_return(c->t, bid);
	}
	c->pend_tail = RX_CHUNK_NONE;
	if (!cfs_list_empty(&c->t->nobufs))
		tcp_wake_later(c->t);
}

void tcp_rx_fini(struct tcp_conn *c)
{
	cfs_list_del(&c->wait_link);
	c->starved = false;
	pend_drop(c);
	cfs_frame_fini(&c->frame);
	free(c->own_buf);
	c->own_buf = NULL;
}

bool tcp_rx_stalled(const struct tcp_conn *c)
{
	return !c->starved && cfs_frame_partial(&c->frame) && cfs_list_empty(&c->wait_link) &&
	       c->t->ticks - c->rx_tick > TCP_STALL_TICKS;
}

/* ---- arming --------------------------------------------------------------------------------------- */

static void rx_cancel(struct tcp_conn *c)
{
	struct io_uring_sqe *sqe;

	if (c->rx != RX_MULTI || c->rx_cancelling)
		return;
	c->rx_cancelling = true;
	sqe = cfs_loop_sqe(c->t->loop);
	io_uring_prep_cancel(sqe, &c->rx_op, 0);
	cfs_loop_sqe_set(sqe, &c->cancel_op);
	c->ops++;
}

static void cancel_done(struct cfs_ring_op *op, int32_t res, uint32_t flags)
{
	struct tcp_conn *c = cfs_container_of(op, struct tcp_conn, cancel_op);

	(void)res, (void)flags;		/* whether it was found or had just ended: rx_done tells */
	c->ops--;
	c->rx_cancelling = false;
	tcp_rx_arm(c);
	tcp_conn_settle(c);
}

void tcp_rx_arm(struct tcp_conn *c)
{
	struct tcp_net *t = c->t;
	struct io_uring_sqe *sqe;
	void *place;
	size_t n;

	if (c->rx != RX_NONE || c->rx_cancelling || c->closing || !c->connected || c->starved ||
	    !cfs_list_empty(&c->wait_link))
		return;
	sqe = cfs_loop_sqe(t->loop);
	n = cfs_frame_direct(&c->frame, &place);
	if (n >= TCP_BULK_MIN) {
		c->rx = RX_DIRECT;
		io_uring_prep_recv(sqe, c->fd, place, cfs_min(n, (size_t)RX_DIRECT_MAX), MSG_WAITALL);
	} else if (!t->bufs) {
		c->rx = RX_SINGLE;
		io_uring_prep_recv(sqe, c->fd, c->own_buf, c->rx_bulk ? RX_BULK_HEADER : RX_BUF_BYTES, 0);
	} else if (c->rx_bulk || !t->multi_recv) {
		c->rx = RX_SINGLE;
		io_uring_prep_recv(sqe, c->fd, NULL, c->rx_bulk ? RX_BULK_HEADER : RX_BUF_BYTES, 0);
		sqe->flags |= IOSQE_BUFFER_SELECT;
		sqe->buf_group = t->buf_group;
	} else {
		c->rx = RX_MULTI;
		io_uring_prep_recv_multishot(sqe, c->fd, NULL, 0, 0);
		sqe->flags |= IOSQE_BUFFER_SELECT;
		sqe->buf_group = t->buf_group;
	}
	cfs_loop_sqe_set(sqe, &c->rx_op);
	c->ops++;
}

/* ---- parsing ---------------------------------------------------------------------------------------- */

static void deliver(struct tcp_conn *c)
{
	if (c->frame.payload_len >= TCP_BULK_MIN) {
		c->rx_bulk = true;
		c->rx_small = 0;
	} else if (c->rx_bulk && ++c->rx_small >= RX_BULK_QUIET) {
		c->rx_bulk = false;
	}
	c->conn.handler->on_msg(&c->conn, &c->frame.msg);
	cfs_frame_next(&c->frame);
}

static void rx_bad(struct tcp_conn *c, int err)
{
	cfs_warn("net: closing connection with %s: bad message: %s", c->conn.peer, c->frame.why);
	tcp_conn_fail(c, err);
}

/* parse buf[at, len); returns true when all was consumed or the connection is closing */
static bool rx_parse(struct tcp_conn *c, const uint8_t *buf, uint32_t *at, uint32_t len)
{
	do {
		size_t used;
		int rc = cfs_frame_feed(&c->frame, buf + *at, len - *at, &used);

		*at += (uint32_t)used;
		if (rc == 1) {
			deliver(c);
		} else if (rc == -EAGAIN) {
			c->starved = true;
			return false;
		} else if (rc < 0) {
			rx_bad(c, rc);
		}
	} while (*at < len && !c->closing);
	return true;
}

/* out of payload buffers: stop the stream, and wait in the queue for one */
static void rx_starve(struct tcp_conn *c)
{
	rx_cancel(c);
	if (cfs_list_empty(&c->wait_link))
		cfs_list_add_tail(&c->t->starved, &c->wait_link);
}

static void rx_chunk(struct tcp_conn *c, uint16_t bid, uint32_t len)
{
	struct tcp_net *t = c->t;
	uint32_t at = 0;

	if (c->closing || (!c->starved && rx_parse(c, buf_at(t, bid), &at, len))) {
		buf_return(t, bid);
		return;
	}
	t->chunks[bid] = (struct rx_chunk){ .next = RX_CHUNK_NONE, .at = at, .len = len };
	if (c->pend_head == RX_CHUNK_NONE)
		c->pend_head = bid;
	else
		t->chunks[c->pend_tail].next = bid;
	c->pend_tail = bid;
	t->bufs_held++;
	rx_starve(c);
}

/* a starved connection goes on; false when there is still no payload buffer */
static bool rx_unstarve(struct tcp_conn *c)
{
	struct tcp_net *t = c->t;
	uint32_t none = 0;

	c->starved = false;
	if (c->pend_head == RX_CHUNK_NONE && c->own_at == c->own_len &&
	    !rx_parse(c, c->frame.body, &none, 0))
		return false;
	while (c->pend_head != RX_CHUNK_NONE && !c->closing) {
		uint16_t bid = c->pend_head;
		struct rx_chunk *k = &t->chunks[bid];

		if (!rx_parse(c, buf_at(t, bid), &k->at, k->len))
			return false;
		c->pend_head = k->next;
		if (c->pend_head == RX_CHUNK_NONE)
			c->pend_tail = RX_CHUNK_NONE;
		t->bufs_held--;
		buf_return(t, bid);
	}
	if (c->own_at < c->own_len && !c->closing && !rx_parse(c, c->own_buf, &c->own_at, c->own_len))
		return false;
	return true;
}

void tcp_rx_wake(struct tcp_net *t)
{
	/* each at most once a turn: a handler may free buffers and starve again for ever */
	struct cfs_list starved, nobufs, *pos;
	bool stop = false;

	cfs_list_init(&starved);
	while (!cfs_list_empty(&t->starved)) {
		pos = t->starved.next;
		cfs_list_del(pos);
		cfs_list_add_tail(&starved, pos);
	}
	while (!cfs_list_empty(&starved)) {
		struct tcp_conn *c = cfs_list_first(&starved, struct tcp_conn, wait_link);

		cfs_list_del(&c->wait_link);
		if (stop || !rx_unstarve(c)) {
			stop = true;	/* first come, first served */
			cfs_list_add_tail(&t->starved, &c->wait_link);
			continue;
		}
		tcp_rx_arm(c);
		tcp_conn_settle(c);
	}
	cfs_list_init(&nobufs);
	while (!cfs_list_empty(&t->nobufs) && t->bufs_held < RX_BUFS) {
		pos = t->nobufs.next;
		cfs_list_del(pos);
		cfs_list_add_tail(&nobufs, pos);
	}
	while (!cfs_list_empty(&nobufs)) {
		struct tcp_conn *c = cfs_list_first(&nobufs, struct tcp_conn, wait_link);

		cfs_list_del(&c->wait_link);
		tcp_rx_arm(c);
	}
}

/* ---- completions -------------------------------------------------------------------------------------- */

static void rx_failed(struct tcp_conn *c, enum rx_kind was, int32_t res)
{
	if (res == -ECANCELED || res == -EINTR)
		return;
	if (res == -ENOBUFS) {	/* every provided buffer is full or held: when one is back */
		if (!c->closing && cfs_list_empty(&c->wait_link)) {
			cfs_list_add_tail(&c->t->nobufs, &c->wait_link);
			tcp_wake_later(c->t);
		}
		return;
	}
	if (res == -EINVAL && was == RX_MULTI && c->t->multi_recv) {
		c->t->multi_recv = false;	/* before 6.0 */
		return;
	}
	if (res == 0 && cfs_frame_partial(&c->frame) && !c->closing)
		cfs_info("net: %s closed the connection in the middle of a message", c->conn.peer);
	/* an orderly end has nothing left half done, in either direction */
	if (res == 0 && (cfs_frame_partial(&c->frame) || !tcp_tx_idle(c)))
		res = -ECONNRESET;
	tcp_conn_fail(c, res);
}

static void rx_done(struct cfs_ring_op *op, int32_t res, uint32_t flags)
{
	struct tcp_conn *c = cfs_container_of(op, struct tcp_conn, rx_op);
	enum rx_kind was = c->rx;
	void *place;

	if (!(flags & IORING_CQE_F_MORE)) {
		c->rx = RX_NONE;
		c->ops--;
	}
	c->rx_tick = c->t->ticks;
	if (res <= 0) {
		if (flags & IORING_CQE_F_BUFFER)
			buf_return(c->t, (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT));
		rx_failed(c, was, res);
	} else if (was == RX_DIRECT) {
		if (cfs_frame_direct(&c->frame, &place) && cfs_frame_direct_done(&c->frame, (size_t)res) &&
		    !c->closing)
			deliver(c);
	} else if (flags & IORING_CQE_F_BUFFER) {
		rx_chunk(c, (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT), (uint32_t)res);
	} else {
		c->own_at = 0;
		c->own_len = (uint32_t)res;
		if (!c->closing && !rx_parse(c, c->own_buf, &c->own_at, c->own_len))
			rx_starve(c);
	}
	/* the rest of a bulk payload goes straight to its place: end the multishot that copies */
	if (c->rx == RX_MULTI && !c->closing && cfs_frame_direct(&c->frame, &place) >= TCP_BULK_MIN)
		rx_cancel(c);
	tcp_rx_arm(c);
	tcp_conn_settle(c);
}
