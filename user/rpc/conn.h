/* SPDX-License-Identifier: MIT */
/*
 * conn.h - a blocking connection to a server, for threads that wait by themselves (client, tools).
 *
 * One thread at a time owns a connection. Several requests may be in flight; replies come in any
 * order and are told apart by tag; on a callback connection requests of the server come the same
 * way. Every message is verified (magic, version, lengths, header and body checksum) before it is
 * handed out. No allocation after connect: bodies and payloads land in the caller's buffers. This
 * layer knows nothing of sessions, slots or retries: client/rpc.h does.
 */
#ifndef CFS_RPC_CONN_H
#define CFS_RPC_CONN_H

#include <claudefs/wire.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct cfs_rpc_conn;

#define CFS_RPC_IOV_MAX		60u		/* parts of one body */
#define CFS_RPC_NO_DEADLINE	UINT64_MAX

/**
 * cfs_rpc_connect() - connect; no HELLO yet.
 * @addr: "host:port" or "[v6]:port"
 * @timeout_ms: for the whole of it but the resolver, over all addresses of the name; 0: 10 s
 * Return: 0; -ETIMEDOUT, -ECONNREFUSED, ...; -EINVAL malformed address; -EHOSTUNREACH unknown name.
 */
int cfs_rpc_connect(const char *addr, uint32_t timeout_ms, struct cfs_rpc_conn **ret_conn);
/** cfs_rpc_close() - NULL is fine. */
void cfs_rpc_close(struct cfs_rpc_conn *conn);
/* the socket, to wait for together with others: readable means that cfs_rpc_recv() has something to do */
int cfs_rpc_fd(const struct cfs_rpc_conn *conn);
/* has a message been read from the socket already? (poll on the socket would not tell) */
bool cfs_rpc_buffered(const struct cfs_rpc_conn *conn);
/* has the connection broken? Then every call returns the error that broke it */
bool cfs_rpc_broken(const struct cfs_rpc_conn *conn);
const char *cfs_rpc_peer(const struct cfs_rpc_conn *conn);

/**
 * cfs_rpc_send() - send one message: writev of header, body and payload.
 * @hdr: from cfs_hdr_init() or cfs_hdr_init_reply() (rpc/codec.h), with tag, session, slot, seq set;
 *       lengths and checksums are filled in
 * @body: parts, n_body <= CFS_RPC_IOV_MAX
 * @deadline_boot_ns: CLOCK_BOOTTIME; the peer must have taken the bytes into its socket by then
 * Return: 0; -EMSGSIZE (nothing was sent); -ETIMEDOUT, -EPIPE, -ECONNRESET: broken from now on.
 */
int cfs_rpc_send(struct cfs_rpc_conn *conn, struct cfs_msg_hdr *hdr, const struct iovec *body,
		 unsigned n_body, const void *payload, uint32_t payload_len,
		 uint64_t deadline_boot_ns);

struct cfs_rpc_reply {
	struct cfs_msg_hdr hdr;		/* out: as on the wire, verified */
	/*
	 * Where to put the rest. `pick`, when set, is called once hdr is known, to choose the buffers by
	 * hdr.tag; it may set `drop` for a message that nobody wants (an abandoned request).
	 */
	void (*pick)(struct cfs_rpc_reply *r);
	void *user;
	bool drop;			/* in: receive and forget body and payload; cleared before pick */
	void *body;
	uint32_t body_max;
	uint32_t body_len;		/* out */
	void *payload;
	uint32_t payload_max;
	uint32_t payload_len;		/* out */
};

/**
 * cfs_rpc_recv() - wait for the next message, reply or request.
 * @r: where it goes
 * @interrupt_fd: an eventfd (not read here) that ends the wait when readable, or -1. In the middle of a
 *       message it counts only when the peer has sent nothing for 2 s, and breaks the connection then
 * @deadline_boot_ns: CLOCK_BOOTTIME, or CFS_RPC_NO_DEADLINE. Passing in the middle of a message breaks the connection
 * Return: 0; -ETIMEDOUT; -EINTR; -EPIPE (peer closed), -ECONNRESET and other socket errors; -EPROTO
 * (malformed, or does not fit the buffers). After any but 0 and an -EINTR or -ETIMEDOUT between messages
 * the connection is broken (cfs_rpc_broken()).
 */
int cfs_rpc_recv(struct cfs_rpc_conn *conn, struct cfs_rpc_reply *r, int interrupt_fd,
		 uint64_t deadline_boot_ns);

/**
 * cfs_rpc_call() - send and wait for the reply with hdr's tag, for who has one request in flight
 * at most; other messages that come are dropped.
 * Return: 0 (look at r->hdr.status), or as cfs_rpc_send() and cfs_rpc_recv().
 */
int cfs_rpc_call(struct cfs_rpc_conn *conn, struct cfs_msg_hdr *hdr, const struct iovec *body,
		 unsigned n_body, const void *payload, uint32_t payload_len,
		 struct cfs_rpc_reply *r, int interrupt_fd, uint64_t deadline_boot_ns);

/**
 * cfs_rpc_hello() - say HELLO and check the answer's version.
 * @role: enum cfs_role
 * @session: 0 when there is none yet
 * @cluster: 16 bytes, or NULL: any
 * @ret_rep: the reply (also with CFS_E_BADSESSION)
 * Return: 0, a positive status of the server (CFS_E_BADSESSION, CFS_E_CLUSTER, ...), or -errno.
 */
int cfs_rpc_hello(struct cfs_rpc_conn *conn, uint32_t role, uint64_t session, const uint8_t *cluster,
		  struct cfs_hello_rep *ret_rep, int interrupt_fd, uint64_t deadline_boot_ns);

/* CLOCK_BOOTTIME now, for deadlines */
uint64_t cfs_boot_ns(void);

#endif
