/* SPDX-License-Identifier: MIT */
/*
 * conn.c - connections to a node: HELLO first, in time; then each message to who answers it. See
 * node_i.h.
 *
 * The node counts the requests that a connection has in flight, its own and the shard's: whoever
 * sends a reply does so through cfs_node_reply_send() or through the connection's shim.
 */
#include "server/cluster/node_i.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static bool is_shard_op(uint16_t op)
{
	return (op >= CFS_OP_SESSION_OPEN && op <= CFS_OP_LEASE_RETURN) ||
	       (op >= CFS_OP_LOOKUP && op <= CFS_OP_GETLK) ||
	       (op >= CFS_OP_SETATTR && op <= CFS_OP_RELEASE);
}

static bool is_object_op(uint16_t op)
{
	return op >= CFS_OP_OBJ_WRITE && op <= CFS_OP_OBJ_LIST;
}

/* ---- life ------------------------------------------------------------------------------------ */

void cfs_node_conn_put(struct node_conn *nc)
{
	CFS_ASSERT(nc->refs > 0);
	if (--nc->refs == 0)
		free(nc);
}

static void close_conn(struct node_conn *nc)
{
	if (nc->closing || !nc->conn)
		return;
	nc->closing = true;
	cfs_conn_close(nc->conn);
}

/* the client's fault: say so, once */
static void refuse(struct node_conn *nc, const char *why)
{
	if (nc->closing)
		return;
	nc->n->n_refused++;
	cfs_warn("closing the connection of %s: %s", nc->conn->peer, why);
	close_conn(nc);
}

static void hello_late(struct cfs_timer *t)
{
	refuse(cfs_container_of(t, struct node_conn, hello), "no HELLO within 5 s");
}

static void on_open(struct cfs_conn *conn)
{
	struct cfs_node *n = conn->user;
	struct node_conn *nc = n->phase == NODE_SERVING || n->phase == NODE_STARTING ?
				       calloc(1, sizeof(*nc)) :
				       NULL;

	conn->user = nc;	/* NULL: a connection we do not want, until it has gone */
	if (!nc) {
		cfs_conn_close(conn);
		return;
	}
	nc->n = n;
	nc->conn = conn;
	nc->refs = 1;
	nc->shim.net = &n->shim_net;
	nc->shim.user = nc;
	memcpy(nc->shim.peer, conn->peer, sizeof(nc->shim.peer));
	nc->hello.fn = hello_late;
	cfs_list_init(&nc->reads);
	cfs_list_add_tail(&n->conns, &nc->link);
	n->n_conns++;
	cfs_timer_set(n->p.clock, &nc->hello, cfs_clock_boot_ns(n->p.clock) + NODE_HELLO_NS);
}

static void drop_read(struct node_read *r)
{
	cfs_list_del(&r->link);
	cfs_msg_free(r->msg);
	free(r);
}

static void on_close(struct cfs_conn *conn, int err)
{
	struct node_conn *nc = conn->user;
	struct cfs_node *n;

	if (!nc)
		return;
	n = nc->n;
	if (err && !nc->closing && err != -ECONNRESET && err != -EPIPE)
		cfs_info("the connection of %s ended: %s", conn->peer, strerror(-err));
	cfs_timer_cancel(n->p.clock, &nc->hello);
	while (!cfs_list_empty(&nc->reads)) {
		struct node_read *r = cfs_list_first(&nc->reads, struct node_read, link);

		cfs_raft_log_read_cancel(&r->read);
		drop_read(r);
	}
	if (nc->in_shard && n->shard)
		cfs_shard_conn_close(n->shard, &nc->shim);
	nc->in_shard = false;
	nc->conn = NULL;
	cfs_list_del(&nc->link);
	n->n_conns--;
	cfs_node_conn_put(nc);
}

void cfs_node_conns_close(struct cfs_node *n)
{
	struct cfs_list *pos;

	cfs_list_for_each(pos, &n->conns)
		close_conn(cfs_list_entry(pos, struct node_conn, link));
}

/* ---- answers --------------------------------------------------------------------------------- */

static void answered(struct node_conn *nc, const struct cfs_msg_hdr *reply)
{
	if (nc->in_flight)
		nc->in_flight--;
	cfs_node_opstat_end(nc, reply);
}

void cfs_node_reply_send(struct node_conn *nc, struct cfs_send *send)
{
	int rc = -EPIPE;

	answered(nc, &send->hdr);
	if (nc->conn && !nc->closing)
		rc = cfs_conn_send(nc->conn, send);
	if (rc && send->payload_done)
		send->payload_done(send->payload_arg);
	if (rc == -ENOBUFS)
		refuse(nc, "it does not take its replies");
}

void cfs_node_reply(struct node_conn *nc, const struct cfs_msg_hdr *req, uint32_t status,
		    const void *body, uint32_t body_len)
{
	struct cfs_send send = { .body = body, .body_len = body_len };

	cfs_hdr_init_reply(&send.hdr, req, status);
	send.hdr.map_epoch = cfs_cpu_to_le64(nc->n->map ? nc->n->map->epoch : 0);
	cfs_node_reply_send(nc, &send);
}

static int shim_send(struct cfs_conn *shim, const struct cfs_send *send)
{
	struct node_conn *nc = shim->user;

	if (send->hdr.flags & CFS_MSG_REPLY)
		answered(nc, &send->hdr);
	return nc->conn && !nc->closing ? cfs_conn_send(nc->conn, send) : -EPIPE;
}

static void shim_close(struct cfs_conn *shim)
{
	close_conn(shim->user);
}

void cfs_node_conns_init(struct cfs_node *n)
{
	n->shim_ops = (struct cfs_net_ops){ .name = "node",
					    .version = CFS_NET_OPS_VERSION,
					    .send = shim_send,
					    .conn_close = shim_close };
	n->shim_net.ops = &n->shim_ops;
}

/* ---- HELLO ----------------------------------------------------------------------------------- */

static void on_hello(struct node_conn *nc, const struct cfs_msg *msg)
{
	static const uint8_t any[16];
	uint64_t session = cfs_le64_to_cpu(msg->hdr.session);
	struct cfs_node *n = nc->n;
	struct cfs_hello_req req;
	struct cfs_hello_rep rep;
	struct cfs_cursor c;
	uint32_t status = 0, role;

	cfs_cursor_init(&c, msg->body, cfs_le32_to_cpu(msg->hdr.body_len));
	cfs_take_struct(&c, &req);
	if (cfs_cursor_end(&c)) {
		cfs_node_reply(nc, &msg->hdr, CFS_E_PROTO, NULL, 0);
		refuse(nc, "malformed HELLO");
		return;
	}
	role = cfs_le32_to_cpu(req.role);
	rep = (struct cfs_hello_rep){
		.version = cfs_cpu_to_le32(CFS_WIRE_VERSION),
		.lease_ms = cfs_cpu_to_le32(n->p.lease_ms),
		.features = cfs_cpu_to_le64(CFS_FEAT_ALL),
		.leader_epoch = cfs_cpu_to_le64(n->shard ? cfs_shard_leader_epoch(n->shard) : 0),
		.body_max = cfs_cpu_to_le32(CFS_BODY_MAX),
		.payload_max = cfs_cpu_to_le32(CFS_PAYLOAD_MAX),
		.credits = cfs_cpu_to_le32(NODE_CREDITS),
	};
	memcpy(rep.cluster, n->cluster, sizeof(rep.cluster));
	if (cfs_le32_to_cpu(req.version_min) > CFS_WIRE_VERSION ||
	    cfs_le32_to_cpu(req.version_max) < CFS_WIRE_VERSION)
		status = CFS_E_VERSION;
	else if (memcmp(req.cluster, any, sizeof(any)) &&
		 memcmp(req.cluster, n->cluster, sizeof(any)))
		status = CFS_E_CLUSTER;
	else if (cfs_le64_to_cpu(req.features) & ~CFS_FEAT_ALL || role < CFS_ROLE_WORKER || role > CFS_ROLE_PEER ||
		 (session && role != CFS_ROLE_WORKER && role != CFS_ROLE_CALLBACK))
		status = CFS_E_PROTO;
	else if (role == CFS_ROLE_PEER && memcmp(req.cluster, n->cluster, sizeof(any)))
		status = CFS_E_CLUSTER;
	else if (session && n->shard && cfs_shard_session_gone(n->shard, session))
		status = CFS_E_BADSESSION;
	if (!status || status == CFS_E_BADSESSION)
		cfs_node_reply(nc, &msg->hdr, status, &rep, sizeof(rep));
	else
		cfs_node_reply(nc, &msg->hdr, status, NULL, 0);
	if (status) {
		if (status != CFS_E_BADSESSION)
			cfs_info("HELLO of %s refused with status %" PRIu32, nc->conn->peer,
				 status);
		close_conn(nc);		/* the answer goes out first */
		return;
	}
	cfs_timer_cancel(n->p.clock, &nc->hello);
	nc->ready = true;
	nc->role = role;
	nc->session = session;
	if (role == CFS_ROLE_WORKER || role == CFS_ROLE_CALLBACK) {
		cfs_shard_conn_open(n->shard, &nc->shim, session, role);
		nc->in_shard = true;
	}
}

/* ---- requests -------------------------------------------------------------------------------- */

static void read_confirmed(struct cfs_raft_read *read, int err)
{
	struct node_read *r = cfs_container_of(read, struct node_read, read);
	struct node_conn *nc = r->nc;

	if (err)
		cfs_node_reply(nc, &r->msg->hdr, CFS_E_NOTLEADER, NULL, 0);
	else if (nc->in_shard)
		cfs_shard_msg(nc->n->shard, &nc->shim, r->msg);
	drop_read(r);
}

static void to_shard(struct node_conn *nc, struct cfs_msg *msg, uint16_t op)
{
	struct cfs_node *n = nc->n;
	struct node_read *r;

	/*
	 * a reply to a callback, a mutation (the log decides), or nobody who leads (the shard says
	 * so)
	 */
	if (msg->hdr.flags & CFS_MSG_REPLY || cfs_op_mutates(op) || !cfs_node_is_leader(n)) {
		cfs_shard_msg(n->shard, &nc->shim, msg);
		return;
	}
	if (cfs_raft_log_lease(n->raft)) {
		cfs_shard_msg(n->shard, &nc->shim, msg);
		return;
	}
	r = calloc(1, sizeof(*r));
	if (!r) {
		cfs_node_reply(nc, &msg->hdr, ENOMEM, NULL, 0);
		return;
	}
	r->nc = nc;
	r->read.done = read_confirmed;
	r->msg = cfs_msg_take(msg);
	cfs_list_init(&r->link);
	if (!r->msg) {
		free(r);
		cfs_node_reply(nc, &msg->hdr, ENOMEM, NULL, 0);
		return;
	}
	cfs_list_add_tail(&nc->reads, &r->link);
	if (cfs_raft_log_read(n->raft, &r->read))
		read_confirmed(&r->read, 0);
}

static void on_raft(struct node_conn *nc, const struct cfs_msg *msg)
{
	const char *why = "";
	int rc = cfs_raft_log_receive(nc->n->raft, msg->body, cfs_le32_to_cpu(msg->hdr.body_len),
				      msg->payload, cfs_le32_to_cpu(msg->hdr.payload_len), &why);

	if (rc) {
		cfs_warn("Raft message from %s: %s", nc->conn->peer, why);
		refuse(nc, "malformed Raft message");
	}
}

static void on_status(struct node_conn *nc, const struct cfs_msg *msg)
{
	char *text = cfs_node_status(nc->n);

	if (text && strlen(text) <= CFS_BODY_MAX)
		cfs_node_reply(nc, &msg->hdr, 0, text, (uint32_t)strlen(text));
	else
		cfs_node_reply(nc, &msg->hdr, ENOMEM, NULL, 0);
	free(text);
}

static void on_map(struct node_conn *nc, const struct cfs_msg *msg)
{
	struct cfs_node *n = nc->n;

	if (n->map)
		cfs_node_reply(nc, &msg->hdr, 0, n->map_bytes, n->map_len);
	else	/* the first leader has not stored one yet */
		cfs_node_reply(nc, &msg->hdr, CFS_E_NOTLEADER, NULL, 0);
}

static bool allowed(const struct node_conn *nc, uint16_t op)
{
	switch (nc->role) {
	case CFS_ROLE_WORKER:
		return is_shard_op(op) || is_object_op(op) || op == CFS_OP_MAP ||
		       op == CFS_OP_STATUS;
	case CFS_ROLE_CALLBACK:
		return is_shard_op(op) || op == CFS_OP_MAP;
	case CFS_ROLE_ADMIN:
		return op == CFS_OP_STATUS || op == CFS_OP_MAP;
	case CFS_ROLE_PEER:
		return op == CFS_OP_RAFT || is_object_op(op) || op == CFS_OP_MAP;
	}
	return false;
}

static void on_msg(struct cfs_conn *conn, struct cfs_msg *msg)
{
	uint16_t op = cfs_le16_to_cpu(msg->hdr.opcode);
	struct node_conn *nc = conn->user;

	if (!nc || nc->closing || nc->n->phase == NODE_STOPPING || nc->n->phase == NODE_FAILED)
		return;
	if (msg->hdr.flags & CFS_MSG_REPLY) {
		if (nc->role == CFS_ROLE_CALLBACK && (op == CFS_OP_CB_BREAK || op == CFS_OP_CB_ASK))
			to_shard(nc, msg, op);
		else
			refuse(nc, "a reply to nothing");
		return;
	}
	if (!nc->ready) {
		nc->in_flight++;
		if (op == CFS_OP_HELLO)
			on_hello(nc, msg);
		else
			refuse(nc, "no HELLO first");
		return;
	}
	if (op == CFS_OP_RAFT && nc->role == CFS_ROLE_PEER) {	/* not answered */
		on_raft(nc, msg);
		return;
	}
	nc->n->n_requests++;
	if (++nc->in_flight > NODE_CREDITS) {
		refuse(nc, "more requests in flight than granted");
		return;
	}
	cfs_node_opstat_start(nc, &msg->hdr);
	if (!allowed(nc, op)) {
		cfs_debug("%s: opcode %u in role %" PRIu32, conn->peer, op, nc->role);
		cfs_node_reply(nc, &msg->hdr, CFS_E_PROTO, NULL, 0);
	} else if (is_shard_op(op)) {
		to_shard(nc, msg, op);
	} else if (is_object_op(op)) {
		cfs_node_object(nc, msg);
	} else if (op == CFS_OP_STATUS) {
		on_status(nc, msg);
	} else {
		on_map(nc, msg);
	}
}

const struct cfs_conn_handler cfs_node_handler = { .on_open = on_open,
						   .on_msg = on_msg,
						   .on_close = on_close };
