// SPDX-License-Identifier: MIT
/*
 * session_open.c - how a session begins; see session_i.h
 */
#include "client/session_i.h"

#include "base/log.h"
#include "client/persist.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define OPEN_PATIENCE_MS 30000u		/* at mount, for a server that answers but is not ready */

static int session_open_request(struct cfs_client *c, struct cfs_rpc_conn *conn, struct cfs_session_open_rep *rep)
{
	struct cfs_session_open_req req = {
		.slots = cfs_cpu_to_le32(CFS_CLIENT_SLOTS), .name_len = cfs_cpu_to_le32((uint32_t)strlen(c->name)),
	};
	struct iovec body[2] = { { &req, sizeof(req) }, { c->name, strlen(c->name) } };
	struct cfs_rpc_reply r = { .body = rep, .body_max = sizeof(*rep) };
	struct cfs_msg_hdr hdr;
	int rc;

	memcpy(req.nonce, c->sess->nonce, 16);
	cfs_hdr_init(&hdr, CFS_OP_SESSION_OPEN);
	hdr.tag = cfs_cpu_to_le64(1);
	rc = cfs_rpc_call(conn, &hdr, body, 2, NULL, 0, &r, -1, cfs_boot_ns() + ms_ns(IO_MS));
	if (rc)
		return rc;
	rc = (int)cfs_le32_to_cpu(r.hdr.status);
	if (!rc && (r.body_len != sizeof(*rep) || !rep->session || !rep->slots ||
		    cfs_le32_to_cpu(rep->slots) > CFS_SLOTS_MAX))
		rc = -EPROTO;
	return rc;
}

int cfs_session_open_at(struct cfs_client *c, uint32_t node)
{
	static const uint8_t any[16];
	struct cfs_session_open_rep rep;
	struct cfs_rpc_conn *conn = NULL;
	struct cfs_hello_rep hello;
	uint64_t sent_ns;
	int rc;

	if (!c->sess->nonce_set) {
		if (getrandom(c->sess->nonce, 16, 0) != 16)
			return -EIO;
		c->sess->nonce_set = true;
	}
	sent_ns = cfs_boot_ns();
	rc = cfs_rpc_connect(c->nodes[node], CONNECT_MS, &conn);
	if (rc)
		return rc;
	rc = cfs_rpc_hello(conn, CFS_ROLE_WORKER, 0, memcmp(c->cluster, any, 16) ? c->cluster : NULL, &hello, -1,
			   cfs_boot_ns() + ms_ns(IO_MS));
	if (!rc)
		rc = session_open_request(c, conn, &rep);
	cfs_rpc_close(conn);
	if (rc)
		return rc;
	memcpy(c->cluster, hello.cluster, 16);
	__atomic_store_n(&c->lease_ms, cfs_max(cfs_le32_to_cpu(hello.lease_ms), 100u), __ATOMIC_SEQ_CST);
	__atomic_store_n(&c->leader_epoch, cfs_le64_to_cpu(hello.leader_epoch), __ATOMIC_SEQ_CST);
	__atomic_store_n(&c->features, cfs_le64_to_cpu(hello.features), __ATOMIC_RELAXED);
	__atomic_store_n(&c->leader, node, __ATOMIC_SEQ_CST);
	c->sess->nonce_set = false;
	c->sess->reclaim_epoch = 0;
	cfs_persist_session(c->persist, c, 0);
	cfs_slots_reset(&c->slots, cfs_le32_to_cpu(rep.slots));
	__atomic_store_n(&c->no_keeping, false, __ATOMIC_SEQ_CST);
	cfs_persist_session(c->persist, c, cfs_le64_to_cpu(rep.session));
	__atomic_store_n(&c->session, cfs_le64_to_cpu(rep.session), __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&c->session_gen, 1, __ATOMIC_SEQ_CST);
	cfs_session_set_state(c, CFS_SESS_LIVE);
	cfs_session_renew(c, sent_ns);
	cfs_info("session %llu open at %s, lease %u ms", (unsigned long long)cfs_client_session(c), c->nodes[node],
		 c->lease_ms);
	return 0;
}

const char *cfs_session_why(int rc)
{
	switch (rc) {
	case CFS_E_VERSION:
		return "it speaks another protocol version";
	case CFS_E_CLUSTER:
		return "it belongs to another cluster";
	case CFS_E_NOTLEADER:
		return "it is not the leader";
	case CFS_E_GRACE:
		return "it is starting up";
	default:
		return strerror(rc < 0 ? -rc : rc < 512 ? rc : EPROTO);
	}
}

int cfs_session_open_first(struct cfs_client *c, char *err, size_t errlen)
{
	uint64_t give_up = cfs_boot_ns() + ms_ns(OPEN_PATIENCE_MS);
	int rc = -EIO, soft;

	do {
		soft = 0;
		for (uint32_t i = 0; i < c->n_servers; i++) {
			rc = cfs_session_open_at(c, i);
			if (!rc)
				return 0;
			if (rc == CFS_E_NOTLEADER || rc == CFS_E_GRACE)
				soft = rc;
			snprintf(err, errlen, "cannot reach %s: %s%s", c->nodes[i], cfs_session_why(rc),
				 rc == -ECONNREFUSED ? ": is claudefsd running?" : "");
		}
		if (soft)
			poll(NULL, 0, 100);
	} while (soft && cfs_boot_ns() < give_up);
	return rc < 0 ? rc : -EIO;
}

void cfs_session_inherit(struct cfs_client *c)
{
	const struct cfs_pst_head *h = c->persist->head;

	if (!h->session)
		return;
	memcpy(c->cluster, h->cluster, sizeof(c->cluster));
	__atomic_store_n(&c->lease_ms, cfs_max(h->lease_ms, 100u), __ATOMIC_SEQ_CST);
	__atomic_store_n(&c->leader_epoch, h->leader_epoch, __ATOMIC_SEQ_CST);
	__atomic_store_n(&c->session, h->session, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&c->session_gen, 1, __ATOMIC_SEQ_CST);
	cfs_session_set_state(c, CFS_SESS_LIVE);
	cfs_info("session %llu is taken over", (unsigned long long)h->session);
}
