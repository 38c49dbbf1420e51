/* SPDX-License-Identifier: MIT */
/*
 * tcp_i.h - private to tcp.c (life of nets and connections), tcp_rx.c (receiving) and tcp_tx.c (sending).
 *
 * All of it belongs to the loop's thread. A connection counts its requests in the ring (`ops`); it ends in
 * steps (tcp_conn_settle): what is queued is sent; shutdown() of the socket makes all requests complete; when also
 * the last zero-copy notification is in, the descriptor is closed; on_close() and free come from tcp_wake().
 * Handlers are never called inside a call of theirs: what a call causes waits for tcp_wake(), on the next turn.
 */
#ifndef CFS_NET_TCP_I_H
#define CFS_NET_TCP_I_H

#include <liburing.h>

#include "base/base.h"
#include "base/list.h"
#include "net/addr.h"
#include "net/frame.h"
#include "net/net.h"
#include "ring/loop.h"

#define TCP_TICK_NS		CFS_NSEC_PER_SEC
#define TCP_CONNECT_TICKS	10u
#define TCP_DRAIN_TICKS		2u	/* at least one whole second, for what is queued at close */
#define TCP_ABORT_TICKS		4u	/* then what the peer has not acknowledged is dropped */
#define TCP_STALL_TICKS		30u
#define TCP_BULK_MIN		(16u << 10)	/* payloads from here on: zero-copy send, direct receive */

struct tcp_net;
struct tcp_conn;

struct tx_msg {
	struct tx_msg *next;
	void (*payload_done)(void *arg);
	void *payload_arg;
	const void *payload;
	uint32_t payload_len;
	uint32_t len;			/* header and body, in bytes[] */
	uint32_t cap;
	uint32_t pad;
	uint8_t bytes[];
};

#define TX_IOV_MAX 64u
/* messages on their way in one sendmsg */
struct tx_batch {
	struct cfs_ring_op op;
	struct tcp_conn *conn;
	struct tx_batch *next;		/* in the free list */
	struct tx_msg *msgs;
	struct msghdr msghdr;
	uint64_t left;			/* bytes not yet sent */
	uint32_t notifs;		/* zero-copy notifications outstanding */
	bool zc, complete;
	bool quick;			/* sent in silence: in t->quick until cfs_loop_taken(mark) */
	uint32_t mark;
	struct cfs_list quick_link;
	uint32_t iov_at, iov_n;		/* iov[iov_at .. iov_n) is what is left */
	struct iovec iov[TX_IOV_MAX];
};

enum rx_kind {
	RX_NONE,	/* nothing armed */
	RX_MULTI,	/* multishot into provided buffers */
	RX_SINGLE,	/* one receive into a provided buffer, or into own_buf */
	RX_DIRECT,	/* into the place of a payload */
};

struct tcp_conn {
	struct cfs_conn conn;
	struct tcp_net *t;
	struct cfs_list link;		/* in t->conns */
	int fd;
	uint32_t ops;			/* requests in the ring, but for zero-copy notifications */
	uint32_t notifs;		/* of those */
	int err;			/* for on_close */
	bool connected, closing, draining, shut, resolving, ended;
	uint32_t since_tick;		/* when connecting, or closing, began */
	struct cfs_list end_link;	/* in t->ending */

	/* receiving */
	struct cfs_ring_op rx_op;
	struct cfs_ring_op cancel_op;
	enum rx_kind rx;
	bool rx_cancelling, rx_bulk;
	uint8_t rx_small;		/* messages without bulk since the last one */
	uint32_t rx_tick;		/* of the last byte */
	struct cfs_list wait_link;	/* in t->starved or t->nobufs */
	bool starved;
	uint16_t pend_head, pend_tail;	/* chunks that wait for a payload buffer, by buffer number */
	uint8_t *own_buf;		/* when there is no ring of provided buffers */
	uint32_t own_at, own_len;
	struct cfs_frame frame;

	/* sending */
	struct tx_msg *txq, **txq_tail;
	uint32_t tx_queued;
	uint64_t tx_bytes;
	struct tx_batch *tx;		/* being sent */
	uint32_t tx_tick;
	bool tx_zc;			/* peer is elsewhere, kernel can */
	struct cfs_list dirty_link;

	/* connecting */
	struct cfs_ring_op connect_op;
	struct cfs_addr *addrs;
	unsigned n_addrs, addr_at;
	int resolve_rc;
};

struct tcp_listener {
	struct cfs_ring_op op;
	struct cfs_list link;
	struct tcp_net *t;
	const struct cfs_conn_handler *handler;
	void *user;
	int fd;
	bool armed;
	uint16_t port;
};

#define RX_BUFS		256u
#define RX_BUF_BYTES	(8u << 10)
#define RX_CHUNK_NONE	UINT16_MAX
struct rx_chunk {
	uint16_t next;
	uint16_t pad;
	uint32_t at, len;		/* bytes of the buffer not yet parsed */
};

struct tcp_net {
	struct cfs_net net;
	struct cfs_loop *loop;
	struct cfs_pool *pool;
	struct cfs_list conns, listeners, dirty, starved, nobufs, ending;
	struct cfs_loop_hook hook;
	struct cfs_timer timer;
	uint32_t n_conns, ticks;
	bool closing, wake_posted, wake_wanted;
	bool multi_recv, multi_accept, send_zc, send_quick;
	bool zc_local;			/* zero-copy to ourselves too, where it gains nothing (tests) */
	struct cfs_list quick;		/* batches whose success is silent */
	uint32_t refused;		/* connections over the limit, since the last log line */

	struct io_uring_buf_ring *bufs;	/* NULL: not supported */
	uint8_t *buf_mem;
	uint16_t buf_group;
	uint32_t bufs_held;		/* by waiting chunks */
	struct rx_chunk chunks[RX_BUFS];

	struct tx_batch *free_batches;
	struct tx_msg *free_msgs;
	uint32_t n_free_batches, n_free_msgs;
};

static inline struct tcp_conn *tcp_conn_of(struct cfs_conn *conn)
{
	return cfs_container_of(conn, struct tcp_conn, conn);
}

/* tcp.c */
/* cfs_net_tcp_create() with a choice: a small pool, a kernel without provided buffers (tests) */
int tcp_net_create(struct cfs_loop *loop, uint64_t payload_bytes, bool provided_buffers,
		   struct cfs_net **ret_net);
void tcp_conn_fail(struct tcp_conn *c, int err);		/* broken: on_close(err) follows */
void tcp_conn_settle(struct tcp_conn *c);			/* one step on its way out, if it is on it */
void tcp_wake_later(struct tcp_net *t);

/* tcp_rx.c */
int tcp_rx_net_init(struct tcp_net *t);
void tcp_rx_net_fini(struct tcp_net *t);
int tcp_rx_init(struct tcp_conn *c);
void tcp_rx_fini(struct tcp_conn *c);
void tcp_rx_arm(struct tcp_conn *c);
void tcp_rx_wake(struct tcp_net *t);		/* buffers may have come back */
bool tcp_rx_stalled(const struct tcp_conn *c);

/* tcp_tx.c */
void tcp_tx_init(struct tcp_conn *c);
int tcp_tx_send(struct cfs_conn *conn, const struct cfs_send *send);
void tcp_tx_flush(struct tcp_conn *c);		/* start sending what is queued */
void tcp_tx_dirty(struct tcp_conn *c);		/* flush at the end of this turn */
void tcp_tx_reap_quick(struct tcp_net *t);	/* those of earlier turns that have succeeded */
bool tcp_tx_idle(const struct tcp_conn *c);
void tcp_tx_drop(struct tcp_conn *c);		/* what is queued will not be sent */
void tcp_tx_net_fini(struct tcp_net *t);

#endif
