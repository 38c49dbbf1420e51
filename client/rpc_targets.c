// SPDX-License-Identifier: MIT
/*
 * rpc_targets.c - requests to the nodes that hold targets, the cluster map that says which those are, names for
 * new objects. The map is immutable once installed; readers hold map_lock for reading while they look.
 */
#include "client/client_i.h"

#include "base/hash.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAP_TARGETS_MAX	4096u
#define MAP_PGS_MAX	65536u
#define MAP_REPLICAS_MAX 16u
#define TARGET_PATIENCE_MS 3000u	/* for a target of several: another one may have the same bytes */

struct cfs_cmap {
	uint64_t epoch;
	uint32_t n_targets, n_pgs, replicas, n_up;
	struct target {
		uint32_t id, node;
		bool up;
	} *targets;
	uint32_t *pgs;			/* n_pgs * replicas target ids */
};

static void map_free(struct cfs_cmap *m)
{
	if (!m)
		return;
	free(m->targets);
	free(m->pgs);
	free(m);
}

void cfs_client_map_free(struct cfs_client *c)
{
	map_free(c->map);
	c->map = NULL;
}

uint64_t cfs_client_map_epoch(struct cfs_client *c)
{
	uint64_t epoch;

	pthread_rwlock_rdlock(&c->map_lock);
	epoch = c->map ? c->map->epoch : 0;
	pthread_rwlock_unlock(&c->map_lock);
	return epoch;
}

static int decode_targets(struct cfs_client *c, struct cfs_cmap *m, struct cfs_cursor *cur)
{
	for (uint32_t i = 0; i < m->n_targets; i++) {
		struct cfs_map_target t;
		int node;

		if (!cfs_take_struct(cur, &t))
			return -EPROTO;
		t.addr[sizeof(t.addr) - 1] = 0;
		/* a node that has no address of its own answers where it led us */
		node = t.addr[0] ? cfs_client_node(c, t.addr) : (int)__atomic_load_n(&c->leader, __ATOMIC_ACQUIRE);
		if (node < 0)
			return node;
		m->targets[i] = (struct target){ cfs_le32_to_cpu(t.id), (uint32_t)node, cfs_le32_to_cpu(t.state) == 1 };
		m->n_up += m->targets[i].up;
	}
	return 0;
}

static int map_decode(struct cfs_client *c, const void *body, uint32_t len, struct cfs_cmap **ret_map)
{
	struct cfs_cmap *m = calloc(1, sizeof(*m));
	struct cfs_cursor cur;
	struct cfs_map_rep rep;
	const void *pgs;
	size_t n;
	int rc;

	if (!m)
		return -ENOMEM;
	cfs_cursor_init(&cur, body, len);
	cfs_take_struct(&cur, &rep);
	m->epoch = cfs_le64_to_cpu(rep.epoch);
	m->n_targets = cfs_le32_to_cpu(rep.n_targets);
	m->n_pgs = cfs_le32_to_cpu(rep.n_pgs);
	m->replicas = cfs_le32_to_cpu(rep.replicas);
	rc = -EPROTO;
	if (m->n_targets > MAP_TARGETS_MAX || m->n_pgs > MAP_PGS_MAX || !m->replicas || m->replicas > MAP_REPLICAS_MAX)
		goto out;
	n = (size_t)m->n_pgs * m->replicas;
	m->targets = calloc(m->n_targets + 1, sizeof(*m->targets));
	m->pgs = calloc(n + 1, sizeof(*m->pgs));
	rc = m->targets && m->pgs ? decode_targets(c, m, &cur) : -ENOMEM;
	if (rc)
		goto out;
	pgs = cfs_take_array(&cur, n, sizeof(cfs_le32), "placement groups");
	for (size_t i = 0; pgs && i < n; i++)
		m->pgs[i] = cfs_get_le32((const uint8_t *)pgs + i * sizeof(cfs_le32));
	rc = cfs_cursor_end(&cur);
out:
	if (rc)
		map_free(m);
	else
		*ret_map = m;
	return rc;
}

int cfs_client_map_refresh(struct cfs_client *c)
{
	struct cfs_call call = { .opcode = CFS_OP_MAP, .rep_max = CFS_BODY_MAX, .timeout_ms = 10000 };
	struct cfs_cmap *fresh = NULL, *old = NULL;
	void *buf = malloc(CFS_BODY_MAX);
	int rc = -ENOMEM;

	if (!buf)
		return rc;
	call.rep = buf;
	rc = cfs_call(c, &call);
	if (!rc)
		rc = map_decode(c, buf, call.rep_len, &fresh);
	free(buf);
	if (rc)
		return rc;
	pthread_rwlock_wrlock(&c->map_lock);
	if (!c->map || c->map->epoch <= fresh->epoch) {
		old = c->map;
		c->map = fresh;
	} else {
		old = fresh;
	}
	pthread_rwlock_unlock(&c->map_lock);
	map_free(old);
	return 0;
}

/* the node of a target; -ENODEV. ret_patience_ms: how long to insist, 0: as the mount's options say */
static int target_node(struct cfs_client *c, uint32_t target, uint32_t *ret_patience_ms)
{
	int node = -ENODEV;

	pthread_rwlock_rdlock(&c->map_lock);
	if (c->map) {
		for (uint32_t i = 0; i < c->map->n_targets && node < 0; i++)
			if (c->map->targets[i].id == target)
				node = (int)c->map->targets[i].node;
		*ret_patience_ms = c->map->n_targets > 1 ? TARGET_PATIENCE_MS : 0;
	}
	pthread_rwlock_unlock(&c->map_lock);
	return node;
}

/* ---- object names ---------------------------------------------------------------------- */
static bool pg_is_up(const struct cfs_cmap *m, uint32_t pg)
{
	for (uint32_t r = 0; r < m->replicas; r++)
		for (uint32_t i = 0; i < m->n_targets; i++)
			if (m->targets[i].id == m->pgs[(size_t)pg * m->replicas + r] && !m->targets[i].up)
				return false;
	return true;
}

struct cfs_oid cfs_client_new_oid(struct cfs_client *c, unsigned attempt)
{
	uint64_t seq = __atomic_add_fetch(c->oid_seq, 1, __ATOMIC_RELAXED);
	uint64_t session = cfs_client_session(c);
	uint32_t pg = 0;

	CFS_ASSERT(seq < 1ull << CFS_OID_PG_SHIFT);
	pthread_rwlock_rdlock(&c->map_lock);
	if (c->map && c->map->n_pgs) {
		uint64_t h = cfs_hash_u64(seq ^ cfs_hash_u64(session));

		/* the next whole one; when there is none, the caller finds out and comes again */
		for (uint32_t i = 0; i < c->map->n_pgs; i++) {
			pg = (uint32_t)((h + attempt + i) % c->map->n_pgs);
			if (pg_is_up(c->map, pg))
				break;
		}
	}
	pthread_rwlock_unlock(&c->map_lock);
	return (struct cfs_oid){ .owner = cfs_cpu_to_le64(session),
				 .seq = cfs_cpu_to_le64(seq | (uint64_t)pg << CFS_OID_PG_SHIFT) };
}

unsigned cfs_client_pg_targets(struct cfs_client *c, const struct cfs_oid *oid, uint32_t *targets, unsigned max)
{
	uint32_t pg = (uint32_t)(cfs_le64_to_cpu(oid->seq) >> CFS_OID_PG_SHIFT);
	unsigned n = 0;

	pthread_rwlock_rdlock(&c->map_lock);
	if (c->map && pg < c->map->n_pgs)
		for (n = 0; n < c->map->replicas && n < max; n++)
			targets[n] = c->map->pgs[(size_t)pg * c->map->replicas + n];
	pthread_rwlock_unlock(&c->map_lock);
	return n;
}

/* ---- requests ----------------------------------------------------------------------------- */
static void pick_flight(struct cfs_rpc_reply *r)
{
	struct cfs_flight *f = r->user;
	uint64_t tag = cfs_le64_to_cpu(r->hdr.tag);

	r->drop = true;
	for (unsigned i = 0; i < f->n; i++) {
		if (!f->nc[i] || f->tag[i] != tag)
			continue;
		r->drop = false;
		r->body = f->calls[i].rep;
		r->body_max = f->calls[i].rep_max;
		r->payload = f->calls[i].rep_payload;
		r->payload_max = f->calls[i].rep_payload_max;
		return;
	}
}

static void land(struct cfs_flight *f, struct cfs_rpc_reply *r)
{
	uint64_t tag = cfs_le64_to_cpu(r->hdr.tag);

	for (unsigned i = 0; i < f->n; i++) {
		if (!f->nc[i] || f->tag[i] != tag)
			continue;
		f->nc[i] = NULL;
		f->calls[i].rep_len = r->body_len;
		f->calls[i].rep_payload_len = r->payload_len;
		f->rc[i] = (int)cfs_le32_to_cpu(r->hdr.status);
		return;
	}
}

/* the connection broke, or nobody answers on it: everything on it is lost */
static void crash(struct cfs_flight *f, struct cfs_node_conn *nc, int rc)
{
	for (unsigned i = 0; i < f->n; i++)
		if (f->nc[i] == nc) {
			f->nc[i] = NULL;
			f->rc[i] = rc;
		}
	cfs_node_conn_close(nc);
}

static unsigned in_flight(const struct cfs_flight *f, const struct cfs_node_conn *nc)
{
	unsigned n = 0;

	for (unsigned i = 0; i < f->n; i++)
		n += f->nc[i] == nc;
	return n;
}

/* take replies until at most `left` requests are on their way on this connection */
static void collect(struct cfs_flight *f, struct cfs_node_conn *nc, unsigned left)
{
	while (in_flight(f, nc) > left) {
		struct cfs_rpc_reply r = { .pick = pick_flight, .user = f };
		int rc = cfs_rpc_recv(nc->conn, &r, -1, f->deadline);

		if (!rc && !r.drop)
			land(f, &r);
		if (rc)
			crash(f, nc, rc);
	}
}

static void launch(struct cfs_flight *f, unsigned i)
{
	uint64_t session = cfs_client_session(f->c);
	struct cfs_client *c = f->c;
	struct cfs_call *call = &f->calls[i];
	struct cfs_node_conn *nc = NULL;
	struct cfs_msg_hdr hdr;
	uint32_t patience;
	int node = target_node(c, f->target[i], &patience), rc;

	f->rc[i] = node < 0 ? node : cfs_node_conn(c, f->t, (uint32_t)node, session, &nc);
	if (f->rc[i])
		return;
	collect(f, nc, nc->credits - 1);
	if (!nc->conn) {
		f->rc[i] = -ECONNRESET;
		return;
	}
	cfs_count(c, rpc[call->opcode % CFS_RPC_OPS_MAX]);
	call->rep_len = call->rep_payload_len = 0;
	cfs_hdr_init(&hdr, call->opcode);
	f->tag[i] = ++f->t->tag;
	hdr.tag = cfs_cpu_to_le64(f->tag[i]);
	hdr.session = cfs_cpu_to_le64(session);
	pthread_rwlock_rdlock(&c->map_lock);
	hdr.map_epoch = cfs_cpu_to_le64(c->map ? c->map->epoch : 0);
	pthread_rwlock_unlock(&c->map_lock);
	rc = cfs_rpc_send(nc->conn, &hdr, call->body, call->n_body, call->payload, call->payload_len, f->deadline);
	f->nc[i] = nc;
	if (rc == -EMSGSIZE) {
		f->nc[i] = NULL;
		f->rc[i] = rc;
	} else if (rc) {
		crash(f, nc, rc);
	}
}

#define FLIGHT_MS 15000u	/* since the last send: 64 objects of 4 MiB through a slow link still fit */

void cfs_flight_init(struct cfs_flight *f, struct cfs_client *c, struct cfs_call *calls, int *rc)
{
	f->c = c;
	f->t = cfs_thread_self(c);
	f->calls = calls;
	f->rc = rc;
	f->n = 0;
}

void cfs_flight_send(struct cfs_flight *f, uint32_t target)
{
	unsigned i = f->n++;

	CFS_ASSERT(i < CFS_FLIGHT_MAX);
	f->deadline = cfs_boot_ns() + FLIGHT_MS * CFS_NSEC_PER_MSEC;
	f->target[i] = target;
	f->nc[i] = NULL;
	launch(f, i);
}

static void land_all(struct cfs_flight *f)
{
	for (unsigned i = 0; i < f->n; i++)
		if (f->nc[i])
			collect(f, f->nc[i], 0);
}

int cfs_flight_wait(struct cfs_flight *f, unsigned i)
{
	CFS_ASSERT(i < f->n);
	while (f->nc[i])
		collect(f, f->nc[i], in_flight(f, f->nc[i]) - 1);
	return f->rc[i];
}

/* what may be better next time */
static bool transient(struct cfs_client *c, int rc)
{
	switch (rc) {
	case CFS_E_BADSESSION:
		return false;
	case CFS_E_MAPEPOCH:
	case -ENODEV: /* perhaps a target newer than our map */
		cfs_client_map_refresh(c);
		return true;
	case CFS_E_GRACE:
	case CFS_E_NOTLEADER:
		return true;
	default:
		return rc < 0 && rc != -EMSGSIZE && rc != -EPROTO;
	}
}

void cfs_flight_finish(struct cfs_flight *f)
{
	land_all(f);
	for (unsigned i = 0; i < f->n; i++)
		if (f->rc[i] && transient(f->c, f->rc[i]))
			f->rc[i] = cfs_call_target(f->c, f->target[i], &f->calls[i]);
	f->n = 0;
}

int cfs_call_targets(struct cfs_client *c, const uint32_t *targets, struct cfs_call *calls, int *rc, unsigned n)
{
	struct cfs_flight f;

	for (unsigned at = 0; at < n;) {
		unsigned end = cfs_min(n, at + CFS_FLIGHT_MAX);

		cfs_flight_init(&f, c, calls + at, rc + at);
		while (at < end)
			cfs_flight_send(&f, targets[at++]);
		cfs_flight_finish(&f);
	}
	return 0;
}

static int insist(struct cfs_client *c, struct cfs_thread *t, uint32_t target, struct cfs_call *call)
{
	uint64_t start = cfs_boot_ns(), gen = __atomic_load_n(&c->session_gen, __ATOMIC_ACQUIRE);
	uint32_t patience = 0, pause = 10;
	struct cfs_flight f;
	bool interrupted = false;
	int rc;

	for (;;) {
		uint64_t spent_ms;

		if (__atomic_load_n(&c->stopping, __ATOMIC_ACQUIRE))
			return -ESHUTDOWN;
		if (cfs_client_state(c) == CFS_SESS_LOST || gen != __atomic_load_n(&c->session_gen, __ATOMIC_ACQUIRE))
			return CFS_E_BADSESSION;
		cfs_flight_init(&f, c, call, &rc);
		cfs_flight_send(&f, target);
		land_all(&f);
		if (rc == CFS_E_BADSESSION)
			cfs_session_report_lost(c, cfs_client_session(c));
		if (!rc || !transient(c, rc))
			return rc;
		target_node(c, target, &patience);
		if (call->timeout_ms)
			patience = call->timeout_ms;
		else if (c->o.softerr && (!patience || patience > c->o.timeo_ms))
			patience = c->o.timeo_ms;
		spent_ms = (cfs_boot_ns() - start) / CFS_NSEC_PER_MSEC;
		if (patience && spent_ms >= patience)
			return c->o.softerr ? -ETIMEDOUT : rc < 0 ? rc : -EHOSTUNREACH;
		if (interrupted && spent_ms >= 2000)
			return -EINTR;
		if (cfs_pause_ms(c, t, pause))
			interrupted = true;
		pause = cfs_min(pause * 2, 500u);
	}
}

int cfs_call_target(struct cfs_client *c, uint32_t target, struct cfs_call *call)
{
	struct cfs_thread *t = cfs_thread_self(c);
	int rc = insist(c, t, target, call);

	cfs_unwatch(c, t);
	return rc;
}
