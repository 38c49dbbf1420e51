/* SPDX-License-Identifier: MIT */
/* peer.c - see peer.h. */
#include "server/cluster/peer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/log.h"
#include "rpc/codec.h"

#define RETRY_MIN_NS	(100 * CFS_NSEC_PER_MSEC)
#define RETRY_MAX_NS	(2 * CFS_NSEC_PER_SEC)
#define TICK_NS		(500 * CFS_NSEC_PER_MSEC)

struct peer {
	struct cfs_list link;
	struct cfs_peers *ps;
	char addr[64];
	struct cfs_conn *conn;
	bool hello_done, closing;
	struct cfs_list calls;
	unsigned n_calls;
	uint64_t not_before_ns, pause_ns;
	uint64_t used_ns;
};

struct cfs_peers {
	struct cfs_peers_params p;
	char local_addr[64], local_listen[64];
	struct cfs_list list;
	unsigned n, conns;
	uint64_t next_tag;
	bool closed;
	struct cfs_timer timer;
};

static void tick(struct cfs_timer *t);

int cfs_peers_create(const struct cfs_peers_params *p, struct cfs_peers **ret_peers)
{
	struct cfs_peers *ps = calloc(1, sizeof(*ps));

	if (!ps)
		return -ENOMEM;
	ps->p = *p;
	snprintf(ps->local_addr, sizeof(ps->local_addr), "%s", p->local_addr);
	snprintf(ps->local_listen, sizeof(ps->local_listen), "%s", p->local_listen);
	ps->timer.fn = tick;
	ps->next_tag = 2;	/* 1 is HELLO's */
	cfs_list_init(&ps->list);
	*ret_peers = ps;
	return 0;
}

static void fail_calls(struct peer *p, int err)
{
	struct cfs_list batch = CFS_LIST_INIT(batch);

	while (!cfs_list_empty(&p->calls)) {
		struct cfs_list *first = p->calls.next;

		cfs_list_del(first);
		cfs_list_add_tail(&batch, first);
	}
	p->n_calls = 0;
	while (!cfs_list_empty(&batch)) {
		struct cfs_peer_call *call = cfs_list_first(&batch, struct cfs_peer_call, link);

		cfs_list_del(&call->link);
		call->done(call, err, NULL);
	}
}

static void drop_conn(struct peer *p)
{
	if (p->conn && !p->closing) {
		p->closing = true;
		cfs_conn_close(p->conn);
	}
}

void cfs_peers_close(struct cfs_peers *ps)
{
	struct cfs_list *pos;

	ps->closed = true;
	cfs_timer_cancel(ps->p.clock, &ps->timer);
	cfs_list_for_each(pos, &ps->list) {
		struct peer *p = cfs_list_entry(pos, struct peer, link);

		fail_calls(p, -ENOTCONN);
		drop_conn(p);
	}
}

bool cfs_peers_busy(const struct cfs_peers *ps)
{
	return ps->conns > 0;
}

void cfs_peers_destroy(struct cfs_peers *ps)
{
	struct cfs_list *pos, *tmp;

	if (!ps)
		return;
	CFS_ASSERT(!ps->conns);
	cfs_timer_cancel(ps->p.clock, &ps->timer);
	cfs_list_for_each_safe(pos, tmp, &ps->list)
		free(cfs_list_entry(pos, struct peer, link));
	free(ps);
}

/* ---- connections ----------------------------------------------------------------------------- */

static void on_close(struct cfs_conn *conn, int err)
{
	struct peer *p = conn->user;
	struct cfs_peers *ps = p->ps;

	p->conn = NULL;
	ps->conns--;
	p->closing = false;
	if (!p->hello_done && p->pause_ns == 0 && err && !ps->closed)
		cfs_warn("node %s cannot be reached: %s", p->addr, strerror(-err));
	if (p->hello_done || !p->pause_ns)
		p->pause_ns = RETRY_MIN_NS;
	else
		p->pause_ns = cfs_min(p->pause_ns * 2, RETRY_MAX_NS);
	p->not_before_ns = cfs_clock_boot_ns(ps->p.clock) + p->pause_ns;
	p->hello_done = false;
	fail_calls(p, err ? err : -EPIPE);
}

static void on_hello(struct peer *p, const struct cfs_msg *msg)
{
	uint32_t status = cfs_le32_to_cpu(msg->hdr.status);

	if (status) {
		cfs_warn("node %s does not take us as a peer: status %" PRIu32 "%s", p->addr,
			 status, status == CFS_E_CLUSTER ? " (another cluster)" : "");
		drop_conn(p);
		return;
	}
	p->hello_done = true;
	p->pause_ns = 0;
}

static void on_msg(struct cfs_conn *conn, struct cfs_msg *msg)
{
	uint64_t tag = cfs_le64_to_cpu(msg->hdr.tag);
	struct peer *p = conn->user;
	struct cfs_list *pos;

	if (p->closing)
		return;
	if (!(msg->hdr.flags & CFS_MSG_REPLY)) {
		cfs_warn("node %s sent a request on our connection to it", p->addr);
		drop_conn(p);
		return;
	}
	if (cfs_le16_to_cpu(msg->hdr.opcode) == CFS_OP_HELLO) {
		on_hello(p, msg);
		return;
	}
	cfs_list_for_each(pos, &p->calls) {
		struct cfs_peer_call *call = cfs_list_entry(pos, struct cfs_peer_call, link);

		if (call->tag != tag)
			continue;
		cfs_list_del(&call->link);
		p->n_calls--;
		call->done(call, 0, msg);
		return;
	}
	/* the answer to a call that timed out */
}

static const struct cfs_conn_handler handler = { .on_msg = on_msg, .on_close = on_close };

static int say_hello(struct peer *p)
{
	struct cfs_hello_req req = {
		.version_min = cfs_cpu_to_le32(CFS_WIRE_VERSION),
		.version_max = cfs_cpu_to_le32(CFS_WIRE_VERSION),
		.role = cfs_cpu_to_le32(CFS_ROLE_PEER),
	};
	struct cfs_send send = { .body = &req, .body_len = sizeof(req) };

	memcpy(req.cluster, p->ps->p.cluster, sizeof(req.cluster));
	cfs_hdr_init(&send.hdr, CFS_OP_HELLO);
	send.hdr.tag = cfs_cpu_to_le64(1);
	return cfs_conn_send(p->conn, &send);
}

static int ready(struct peer *p)
{
	struct cfs_peers *ps = p->ps;
	bool local = ps->p.local_net && !strcmp(p->addr, ps->local_addr);
	struct cfs_net *net = local ? ps->p.local_net : ps->p.net;
	int rc;

	p->used_ns = cfs_clock_boot_ns(ps->p.clock);
	if (p->closing)
		return -ENOTCONN;
	if (p->conn)
		return 0;
	if (p->used_ns < p->not_before_ns)
		return -EHOSTUNREACH;
	rc = net->ops->connect(net, local ? ps->local_listen : p->addr, &handler, p, &p->conn);
	if (rc) {
		p->not_before_ns = p->used_ns + RETRY_MAX_NS;
		return rc;
	}
	ps->conns++;
	rc = say_hello(p);
	if (rc)
		drop_conn(p);
	return rc;
}

static struct peer *find(struct cfs_peers *ps, const char *addr)
{
	struct peer *p, *idle = NULL;
	struct cfs_list *pos;

	cfs_list_for_each(pos, &ps->list) {
		p = cfs_list_entry(pos, struct peer, link);
		if (!strcmp(p->addr, addr))
			return p;
		if (!p->conn && (!idle || p->used_ns < idle->used_ns))
			idle = p;
	}
	if (strlen(addr) >= sizeof(p->addr))
		return NULL;
	if (ps->n >= CFS_PEERS_MAX) {
		if (!idle)
			return NULL;
		cfs_list_del(&idle->link);
		free(idle);
		ps->n--;
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->ps = ps;
	cfs_list_init(&p->calls);
	strcpy(p->addr, addr);
	cfs_list_add_tail(&ps->list, &p->link);
	ps->n++;
	return p;
}

/* ---- sending --------------------------------------------------------------------------------- */

void cfs_peer_post(struct cfs_peers *ps, const char *addr, uint16_t opcode, const void *body,
		   uint32_t body_len, void *payload, uint32_t payload_len)
{
	struct cfs_send send = { .body = body,
				 .body_len = body_len,
				 .payload = payload_len ? payload : NULL,
				 .payload_len = payload_len,
				 .payload_done = payload_len ? free : NULL,
				 .payload_arg = payload };
	struct peer *p = ps->closed ? NULL : find(ps, addr);

	cfs_hdr_init(&send.hdr, opcode);
	if (!p || ready(p) || cfs_conn_send(p->conn, &send))
		free(payload);
	else if (!payload_len)
		free(payload);
}

int cfs_peer_call(struct cfs_peers *ps, const char *addr, struct cfs_peer_call *call)
{
	struct cfs_send send = { .body = call->body, .body_len = call->body_len };
	struct peer *p;
	int rc;

	if (ps->closed)
		return -ENOTCONN;
	p = find(ps, addr);
	if (!p)
		return -ENOMEM;
	if (p->n_calls >= CFS_PEER_CALLS_MAX)
		return -EBUSY;
	rc = ready(p);
	if (rc)
		return rc;
	call->tag = ps->next_tag++;
	call->deadline_ns = p->used_ns + CFS_PEER_DEADLINE_MS * CFS_NSEC_PER_MSEC;
	cfs_hdr_init(&send.hdr, call->opcode);
	send.hdr.tag = cfs_cpu_to_le64(call->tag);
	send.hdr.map_epoch = cfs_cpu_to_le64(call->map_epoch);
	rc = cfs_conn_send(p->conn, &send);
	if (rc)
		return rc;
	cfs_list_add_tail(&p->calls, &call->link);
	p->n_calls++;
	if (!cfs_timer_armed(&ps->timer))
		cfs_timer_set(ps->p.clock, &ps->timer, p->used_ns + TICK_NS);
	return 0;
}

static void tick(struct cfs_timer *t)
{
	struct cfs_peers *ps = cfs_container_of(t, struct cfs_peers, timer);
	uint64_t now = cfs_clock_boot_ns(ps->p.clock);
	struct cfs_list *pos, *at, *tmp;
	unsigned left = 0;

	cfs_list_for_each(pos, &ps->list) {
		struct peer *p = cfs_list_entry(pos, struct peer, link);
		bool late = false;

		cfs_list_for_each_safe(at, tmp, &p->calls)
			late |= cfs_list_entry(at, struct cfs_peer_call, link)->deadline_ns <= now;
		if (late) { /* a node that does not answer one call in time: start over with it */
			drop_conn(p);
			fail_calls(p, -ETIMEDOUT);
		}
		left += p->n_calls;
	}
	if (left && !ps->closed)
		cfs_timer_set(ps->p.clock, &ps->timer, now + TICK_NS);
}
