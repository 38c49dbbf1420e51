/* SPDX-License-Identifier: MIT */
/*
 * net.h - the network seam: whole ClaudeFS messages over connections.
 *
 * Implementations: `tcp` (io_uring, ring/), `loopback` (two ends in one thread), the
 * simulator's network (sim/), later `rdma`. Events come on the thread that owns the net,
 * never inside send() or close(). A connection delivers messages in order, whole and with
 * verified header and body checksums, or it closes: there is no third outcome.
 */
#ifndef CFS_NET_NET_H
#define CFS_NET_NET_H

#include <claudefs/wire.h>
#include <stdint.h>

struct cfs_net;
struct cfs_conn;
struct cfs_loop;

/*
 * A received message. Borrowed by on_msg(): body and payload are valid until it returns,
 * unless it takes the message with cfs_msg_take(), and then until cfs_msg_free().
 */
struct cfs_msg {
	struct cfs_msg_hdr hdr;	/* as on the wire, little-endian */
	const void *body;	/* hdr.body_len bytes, 8-byte aligned */
	void *payload;		/* hdr.payload_len bytes, 4096-byte aligned, or NULL */
	void *priv;
};

struct cfs_conn_handler {
	/* a connection came in on a listener (conn->handler is already set to the listener's) */
	void (*on_open)(struct cfs_conn *conn);
	void (*on_msg)(struct cfs_conn *conn, struct cfs_msg *msg);
	/* once, also after cfs_conn_close(); err: 0 or -errno. The conn is freed afterwards */
	void (*on_close)(struct cfs_conn *conn, int err);
};

/*
 * A message to send: header (lengths and checksums are filled in by send), body, payload.
 * Body is copied by send(); payload is borrowed until payload_done(payload_arg) is called,
 * which happens exactly once, also when the connection breaks. payload_done may be NULL
 * when payload_len is 0.
 */
struct cfs_send {
	struct cfs_msg_hdr hdr;
	const void *body;
	uint32_t body_len;
	uint32_t payload_len;
	const void *payload;
	void (*payload_done)(void *arg);
	void *payload_arg;
};

struct cfs_net_ops {
	const char *name;
	uint32_t version;
	uint32_t flags;
	/* accept connections on "host:port"; new ones get `handler` and user = `user` */
	int (*listen)(struct cfs_net *net, const char *addr, const struct cfs_conn_handler *handler,
		      void *user);
	/* start connecting; messages may be sent at once; failure arrives as on_close */
	int (*connect)(struct cfs_net *net, const char *addr, const struct cfs_conn_handler *handler,
		       void *user, struct cfs_conn **ret_conn);
	/*
	 * 0; -EPIPE when closing; -ENOBUFS when more than the bound is queued (replies are never
	 * refused up to the credits that HELLO granted). payload_done is not called on error.
	 */
	int (*send)(struct cfs_conn *conn, const struct cfs_send *send);
	void (*conn_close)(struct cfs_conn *conn);
	void (*close)(struct cfs_net *net);	/* all listeners and connections */
};
#define CFS_NET_OPS_VERSION 1u

struct cfs_net {
	const struct cfs_net_ops *ops;
};

struct cfs_conn {
	struct cfs_net *net;
	const struct cfs_conn_handler *handler;
	void *user;		/* the owner's: set by listen/connect, may be changed */
	char peer[64];		/* address, for messages */
};

static inline int cfs_conn_send(struct cfs_conn *conn, const struct cfs_send *send)
{
	return conn->net->ops->send(conn, send);
}

static inline void cfs_conn_close(struct cfs_conn *conn)
{
	conn->net->ops->conn_close(conn);
}

/** cfs_msg_take() - keep a message beyond on_msg(); returns a heap copy or the buffer itself. */
struct cfs_msg *cfs_msg_take(struct cfs_msg *msg);
/** cfs_msg_free() - release a taken message; NULL is fine. */
void cfs_msg_free(struct cfs_msg *msg);

#define CFS_NET_CONNS_MAX	4096u		/* of one net; more are refused */
#define CFS_NET_QUEUE_MSGS	1024u		/* waiting to be sent on one connection */
#define CFS_NET_QUEUE_BYTES	(32u << 20)	/* of their headers and bodies */
#define CFS_NET_PAYLOAD_BYTES	(256ull << 20)	/* of received payloads; when they are all in use, receiving waits */

/**
 * cfs_net_tcp_create() - TCP over a loop's ring. TCP_NODELAY, keepalive, bounded queues.
 *
 * Addresses are "host:port" or "[v6]:port"; names are resolved on a helper thread. conn_close() sends what
 * is queued first, for a second at most. A message that stalls half received for 30 s closes its connection. close()
 * turns the loop until all is gone, so it must not be called from a callback.
 */
int cfs_net_tcp_create(struct cfs_loop *loop, struct cfs_net **ret_net);
/* the port of the net's latest listener, for who listened on port 0; 0: there is none */
uint16_t cfs_net_tcp_port(struct cfs_net *net);
/** cfs_net_loopback_create() - listen and connect within one thread, for a node's own services. */
int cfs_net_loopback_create(struct cfs_loop *loop, struct cfs_net **ret_net);

#endif
