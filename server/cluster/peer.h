/* SPDX-License-Identifier: MIT */
/*
 * peer.h - what a node asks of other nodes, and of itself: one connection in the PEER role to each
 * address.
 *
 * One-way messages (Raft) are dropped while the address cannot be reached; calls (objects) are
 * answered exactly once, by the reply, or by an error when the connection ends or the deadline
 * passes. The node's own address goes through a loopback net, so that there is one path. One
 * thread.
 */
#ifndef CFS_SERVER_CLUSTER_PEER_H
#define CFS_SERVER_CLUSTER_PEER_H

#include <stdbool.h>

#include "base/clock.h"
#include "base/list.h"
#include "net/net.h"

#define CFS_PEERS_MAX		64u	/* addresses */
#define CFS_PEER_CALLS_MAX	32u	/* in flight to one address: below the credits of HELLO */
#define CFS_PEER_DEADLINE_MS	10000u

struct cfs_peers;

struct cfs_peers_params {
	struct cfs_clock *clock;
	struct cfs_net *net;
	struct cfs_net *
		local_net; /* where the node listens on local_listen, too; NULL: no such shortcut */
	const char *local_addr;		/* the node's own address in the cluster map */
	const char *local_listen;	/* and on local_net */
	uint8_t cluster[16];
};

int cfs_peers_create(const struct cfs_peers_params *p, struct cfs_peers **ret_peers);
/* fails all calls, closes all connections; nothing is sent after that */
void cfs_peers_close(struct cfs_peers *ps);
/* connections not gone yet, after close */
bool cfs_peers_busy(const struct cfs_peers *ps);
/* not busy; NULL is fine */
void cfs_peers_destroy(struct cfs_peers *ps);

/* send and forget; takes `payload` (malloc()ed, or NULL) */
void cfs_peer_post(struct cfs_peers *ps, const char *addr, uint16_t opcode, const void *body,
		   uint32_t body_len, void *payload, uint32_t payload_len);

/* the caller's memory until done() */
struct cfs_peer_call {
	uint16_t opcode;
	uint64_t map_epoch;
	const void *body;
	uint32_t body_len;
	/*
	 * err: 0 with the reply (borrowed; its status may be anything), -ETIMEDOUT, -EPIPE,
	 * -ECONNREFUSED, ...
	 */
	void (*done)(struct cfs_peer_call *call, int err, struct cfs_msg *reply);
	void *user;
	/* private */
	struct cfs_list link;
	uint64_t tag, deadline_ns;
};
/* 0; -EBUSY too many in flight; -ENOTCONN closed; other -errno: done() is not called */
int cfs_peer_call(struct cfs_peers *ps, const char *addr, struct cfs_peer_call *call);

#endif
