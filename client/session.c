// SPDX-License-Identifier: MIT
/*
 * session.c - the session: opening, heartbeats, the callback connection, reclaiming after a change of leader, loss.
 *
 * One thread owns all of it, and never blocks on anything but its own connection, bounded: what a callback asks for is
 * done by jobs (breaks.c), whose answers come back through a queue. The deadline is the instant before the
 * last answered heartbeat was sent, plus the lease time (docs/leases.md). When it passes, nothing cached is used
 * until a heartbeat is answered again; a session that the server has not closed has lost nothing meanwhile.
 */
#include "client/accel.h"
#include "client/client_i.h"
#include "client/observe.h"

#include "base/log.h"
#include "client/notify.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#define CONNECT_MS	2000u
#define IO_MS		5000u
#define OPEN_PATIENCE_MS 30000u		/* at mount, for a server that answers but is not ready */
#define ANSWERS_MAX	4096u
#define DATA_IDLE_MS	60000u
#define RETURN_MAX	256u		/* directory leases returned at a time */

#define ms_ns(ms) ((uint64_t)(ms) * CFS_NSEC_PER_MSEC)

struct answer {
	struct cfs_list link;
	uint64_t conn_gen;
	struct cfs_msg_hdr hdr;
	uint32_t len;
	uint8_t body[];
};

struct cfs_session {
	struct cfs_client *c;
	pthread_t thread;
	bool running, stop;
	int wake_fd;
	uint8_t nonce[16];
	bool nonce_set;
	/* the session thread's own */
	struct cfs_rpc_conn *conn;
	uint64_t conn_gen;		/* counts callback connections */
	uint64_t tag, ping_tag;		/* ping_tag 0: none outstanding */
	uint64_t ping_sent_ns, next_ping_ns;
	uint64_t reclaim_epoch;		/* a leader we have not told yet what we hold; 0: none */
	uint32_t backoff_ms;
	bool chores_running;		/* atomic */
	void *rx;			/* CFS_BODY_MAX */
	pthread_mutex_t answers_lock;
	struct cfs_list answers;
	unsigned n_answers;
};

static void set_state(struct cfs_client *c, enum cfs_session_state state)
{
	pthread_mutex_lock(&c->lock);
	__atomic_store_n(&c->state, state, __ATOMIC_RELEASE);
	cfs_observe_session(c);
	pthread_cond_broadcast(&c->cond);
	pthread_mutex_unlock(&c->lock);
}

static void renew(struct cfs_client *c, uint64_t sent_ns)
{
	pthread_mutex_lock(&c->lock);
	if (c->state == CFS_SESS_LIVE)
		__atomic_store_n(&c->deadline_ns, sent_ns + ms_ns(c->lease_ms), __ATOMIC_SEQ_CST);
	cfs_observe_session(c);
	pthread_cond_broadcast(&c->cond);
	pthread_mutex_unlock(&c->lock);
	cfs_accel_deadline(c);
}

void cfs_session_kick(struct cfs_client *c)
{
	uint64_t one = 1;

	if (c->sess && write(c->sess->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		cfs_warn("cannot wake the session thread: %s", strerror(errno));
}

void cfs_session_report_lost(struct cfs_client *c, uint64_t session)
{
	bool lost = false;

	pthread_mutex_lock(&c->lock);
	if (c->state == CFS_SESS_LIVE && c->session == session) {
		__atomic_store_n(&c->deadline_ns, 0, __ATOMIC_SEQ_CST);
		__atomic_store_n(&c->state, CFS_SESS_LOST, __ATOMIC_SEQ_CST);
		cfs_observe_session(c);
		pthread_cond_broadcast(&c->cond);
		lost = true;
	}
	pthread_mutex_unlock(&c->lock);
	if (lost) {
		cfs_accel_deadline(c);
		cfs_count(c, sessions_lost);
		cfs_warn("the server closed session %llu: everything cached is dropped",
			 (unsigned long long)session);
		cfs_session_kick(c);
	}
}

static int wait_live(struct cfs_client *c, struct cfs_thread *t)
{
	uint64_t start = cfs_boot_ns();
	bool interrupted = false;

	cfs_session_kick(c);
	while (!cfs_client_live(c)) {
		uint64_t spent_ms = (cfs_boot_ns() - start) / CFS_NSEC_PER_MSEC;

		if (__atomic_load_n(&c->stopping, __ATOMIC_ACQUIRE) || cfs_client_state(c) == CFS_SESS_CLOSED)
			return -ESHUTDOWN;
		if (c->o.softerr && spent_ms >= c->o.timeo_ms)
			return -ETIMEDOUT;
		if (interrupted && spent_ms >= 2000)
			return -EINTR;
		if (interrupted)
			poll(NULL, 0, 10);
		else if (cfs_pause_ms(c, t, 10))
			interrupted = true;
	}
	return 0;
}

int cfs_session_wait_live(struct cfs_client *c)
{
	struct cfs_thread *t;
	int rc;

	if (cfs_likely(cfs_client_live(c)))
		return 0;
	t = cfs_thread_self(c);
	rc = wait_live(c, t);
	cfs_unwatch(c, t);
	return rc;
}

/* ---- opening ---------------------------------------------------------------------------- */
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

/* try one server: 0, CFS_E_*, errno or -errno */
static int open_at(struct cfs_client *c, uint32_t node)
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
	__atomic_store_n(&c->leader, node, __ATOMIC_SEQ_CST);
	c->sess->nonce_set = false;
	c->sess->reclaim_epoch = 0;
	cfs_slots_reset(&c->slots, cfs_le32_to_cpu(rep.slots));
	__atomic_store_n(&c->no_keeping, false, __ATOMIC_SEQ_CST);
	__atomic_store_n(&c->session, cfs_le64_to_cpu(rep.session), __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&c->session_gen, 1, __ATOMIC_SEQ_CST);
	set_state(c, CFS_SESS_LIVE);
	renew(c, sent_ns);
	cfs_info("session %llu open at %s, lease %u ms", (unsigned long long)cfs_client_session(c), c->nodes[node],
		 c->lease_ms);
	return 0;
}

static const char *why(int rc)
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

/* at mount: every server once; those that are there but not ready get more time */
static int open_first(struct cfs_client *c, char *err, size_t errlen)
{
	uint64_t give_up = cfs_boot_ns() + ms_ns(OPEN_PATIENCE_MS);
	int rc = -EIO, soft;

	do {
		soft = 0;
		for (uint32_t i = 0; i < c->n_servers; i++) {
			rc = open_at(c, i);
			if (!rc)
				return 0;
			if (rc == CFS_E_NOTLEADER || rc == CFS_E_GRACE)
				soft = rc;
			snprintf(err, errlen, "cannot reach %s: %s%s", c->nodes[i], why(rc),
				 rc == -ECONNREFUSED ? ": is claudefsd running?" : "");
		}
		if (soft)
			poll(NULL, 0, 100);
	} while (soft && cfs_boot_ns() < give_up);
	return rc < 0 ? rc : -EIO;
}

/* ---- reclaiming ----------------------------------------------------------------------------- */
struct held {
	struct cfs_lease_item *v;
	size_t n, cap;
	bool failed;
};

static void held_add(struct held *h, uint64_t ino, unsigned mode, bool open)
{
	if (h->n == h->cap) {
		size_t cap = h->cap ? 2 * h->cap : 1024;
		void *v = realloc(h->v, cap * sizeof(*h->v));

		if (!v) {
			h->failed = true;
			return;
		}
		h->v = v;
		h->cap = cap;
	}
	h->v[h->n++] = (struct cfs_lease_item){ .ino = cfs_cpu_to_le64(ino), .mode = (uint8_t)mode, .open = open };
}

static void held_dir(void *arg, uint64_t dir)
{
	held_add(arg, dir, CFS_LEASE_SHARED, false);
}

static void held_file(void *arg, uint64_t ino, unsigned mode, bool open)
{
	held_add(arg, ino, mode, open);
}

/* what a new leader did not grant again; the items, then a terminator with ino 0 */
static void give_up_leases(struct cfs_client *c, void *arg)
{
	for (struct cfs_lease_item *i = arg; i->ino; i++) {
		uint64_t ino = cfs_le64_to_cpu(i->ino);

		/* an inode is a file or a directory; the other call finds nothing */
		cfs_client_note(c, CFS_BRK_DIR | CFS_BRK_DIRATTR | CFS_BRK_DATA | CFS_BRK_ATTR, ino, ino, NULL, 0);
		cfs_breaks_drop_dir(c, ino);
		if (!cfs_has_data(c))
			continue;
		if (i->mode == CFS_LEASE_SHARED)
			cfs_data_break(c, ino, CFS_LEASE_SHARED);
		else
			cfs_data_lease_lost(c, ino);
	}
	free(arg);
}

static int await_reply(struct cfs_session *s, uint64_t tag, struct cfs_rpc_reply *r);

static int reclaim_batch(struct cfs_session *s, const struct cfs_lease_item *v, uint32_t n, bool last)
{
	struct cfs_client *c = s->c;
	struct cfs_lease_list list = { .n = cfs_cpu_to_le32(n), .flags = cfs_cpu_to_le32(last ? CFS_RECLAIM_LAST : 0) };
	struct iovec body[2] = { { &list, sizeof(list) }, { (void *)(uintptr_t)v, n * sizeof(*v) } };
	struct cfs_lease_item *lost = NULL;
	struct cfs_rpc_reply r;
	struct cfs_msg_hdr hdr;
	struct cfs_cursor cur;
	const void *got;
	uint32_t n_lost = 0;
	int rc;

	cfs_hdr_init(&hdr, CFS_OP_RECLAIM);
	hdr.tag = cfs_cpu_to_le64(++s->tag);
	hdr.session = cfs_cpu_to_le64(cfs_client_session(c));
	rc = cfs_rpc_send(s->conn, &hdr, body, 2, NULL, 0, cfs_boot_ns() + ms_ns(IO_MS));
	if (!rc)
		rc = await_reply(s, s->tag, &r);
	if (!rc)
		rc = (int)cfs_le32_to_cpu(r.hdr.status);
	if (rc)
		return rc;
	cfs_cursor_init(&cur, s->rx, r.body_len);
	cfs_take_struct(&cur, &list);
	if (cfs_le32_to_cpu(list.n) != n)
		cfs_cursor_fail(&cur, "as many leases as were asked for");
	got = cfs_take_array(&cur, n, sizeof(*v), "leases");
	if (!got || cfs_cursor_end(&cur))
		return -EPROTO;
	lost = calloc(n + 1, sizeof(*lost));
	if (!lost)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		struct cfs_lease_item item;

		cfs_copy_elem(&item, got, i);
		if (item.ino != v[i].ino || item.mode >= v[i].mode)
			continue;
		lost[n_lost++] = item;
	}
	if (n_lost && !cfs_jobs_submit(c->jobs, give_up_leases, lost))
		return 0;
	if (n_lost)
		give_up_leases(c, lost);
	else
		free(lost);
	return 0;
}

static int reclaim(struct cfs_session *s)
{
	struct cfs_client *c = s->c;
	uint64_t epoch = s->reclaim_epoch;
	struct held h = { 0 };
	int rc = 0;

	cfs_count(c, reclaims);
	rc = cfs_dcache_walk_dirs(c->dcache, held_dir, &h);
	if (cfs_has_data(c))
		cfs_data_leases(c, held_file, &h);
	if (rc || h.failed) {
		rc = -ENOMEM;
		goto out;
	}
	for (size_t at = 0; !rc; at += CFS_LEASE_LIST_MAX) {
		uint32_t n = (uint32_t)cfs_min(h.n - at, (size_t)CFS_LEASE_LIST_MAX);
		bool last = at + n == h.n;

		rc = reclaim_batch(s, h.v + at, n, last);
		if (last)
			break;
	}
	if (!rc) {
		cfs_info("%zu leases told to the new leader (epoch %llu)", h.n, (unsigned long long)epoch);
		__atomic_store_n(&c->leader_epoch, epoch, __ATOMIC_SEQ_CST);
		if (s->reclaim_epoch == epoch)
			s->reclaim_epoch = 0;
	}
out:
	free(h.v);
	return rc;
}

/* ---- the callback connection ------------------------------------------------------------------ */
static void drop_conn(struct cfs_session *s)
{
	cfs_rpc_close(s->conn);
	s->conn = NULL;
	s->ping_tag = 0;
}

static void see_epoch(struct cfs_session *s, uint64_t epoch)
{
	if (epoch && epoch != __atomic_load_n(&s->c->leader_epoch, __ATOMIC_ACQUIRE))
		s->reclaim_epoch = epoch;
}

static int connect_callback(struct cfs_session *s)
{
	struct cfs_client *c = s->c;
	uint32_t leader = __atomic_load_n(&c->leader, __ATOMIC_ACQUIRE);
	struct cfs_hello_rep rep;
	int rc;

	rc = cfs_rpc_connect(c->nodes[leader], CONNECT_MS, &s->conn);
	if (!rc)
		rc = cfs_rpc_hello(s->conn, CFS_ROLE_CALLBACK, cfs_client_session(c), c->cluster, &rep, -1,
				   cfs_boot_ns() + ms_ns(IO_MS));
	if (!rc) {
		s->conn_gen++;
		s->ping_tag = 0;
		s->next_ping_ns = 0;
		s->backoff_ms = 0;
		see_epoch(s, cfs_le64_to_cpu(rep.leader_epoch));
		return 0;
	}
	drop_conn(s);
	if (rc == CFS_E_BADSESSION)
		cfs_session_report_lost(c, cfs_client_session(c));
	else
		cfs_client_next_leader(c, leader);
	return rc;
}

static void pick_rx(struct cfs_rpc_reply *r)
{
	struct cfs_session *s = r->user;

	r->body = s->rx;
	r->body_max = CFS_BODY_MAX;
}

static void chores(struct cfs_client *c, void *arg)
{
	struct {
		struct cfs_lease_list list;
		struct cfs_lease_item items[RETURN_MAX];
	} req = { 0 };
	struct cfs_session *s = arg;
	uint64_t dirs[RETURN_MAX];
	struct iovec body = { &req, 0 };
	struct cfs_call call = { .opcode = CFS_OP_LEASE_RETURN, .body = &body, .n_body = 1, .timeout_ms = 10000 };
	unsigned n = cfs_dcache_evicted_dirs(c->dcache, cfs_boot_ns(), dirs, RETURN_MAX);

	if (n) {
		req.list.n = cfs_cpu_to_le32(n);
		for (unsigned i = 0; i < n; i++)
			req.items[i].ino = cfs_cpu_to_le64(dirs[i]);
		body.iov_len = sizeof(req.list) + n * sizeof(req.items[0]);
		cfs_call(c, &call);
	}
	cfs_pins_expire(c);
	if (cfs_has_data(c))
		cfs_data_idle(c, DATA_IDLE_MS);
	__atomic_store_n(&s->chores_running, false, __ATOMIC_RELEASE);
}

static void refresh_map(struct cfs_client *c, void *arg)
{
	int rc = cfs_client_map_refresh(c);

	(void)arg;
	if (rc)
		cfs_warn("cannot fetch the cluster map: %s", strerror(rc < 0 ? -rc : rc < 512 ? rc : EPROTO));
}

static void pong(struct cfs_session *s, const struct cfs_rpc_reply *r)
{
	struct cfs_client *c = s->c;
	uint32_t status = cfs_le32_to_cpu(r->hdr.status);
	struct cfs_heartbeat_rep rep;
	struct cfs_cursor cur;

	s->ping_tag = 0;
	if (status == CFS_E_BADSESSION) {
		cfs_session_report_lost(c, cfs_client_session(c));
		return;
	}
	if (status == CFS_E_GRACE) {
		s->next_ping_ns = cfs_boot_ns() + ms_ns(50);
		return;
	}
	cfs_cursor_init(&cur, s->rx, r->body_len);
	cfs_take_struct(&cur, &rep);
	if (status || cfs_cursor_end(&cur)) {
		if (status == CFS_E_NOTLEADER)
			cfs_client_next_leader(c, __atomic_load_n(&c->leader, __ATOMIC_ACQUIRE));
		drop_conn(s);
		return;
	}
	see_epoch(s, cfs_le64_to_cpu(rep.leader_epoch));
	if (s->reclaim_epoch) /* another leader: it renews nothing before it knows what we hold */
		s->next_ping_ns = 0;
	else
		renew(c, s->ping_sent_ns);
	if (rep.map_epoch && cfs_client_map_epoch(c) < cfs_le64_to_cpu(rep.map_epoch))
		cfs_jobs_submit(c->jobs, refresh_map, NULL);
	if (!__atomic_exchange_n(&s->chores_running, true, __ATOMIC_ACQ_REL) && cfs_jobs_submit(c->jobs, chores, s))
		__atomic_store_n(&s->chores_running, false, __ATOMIC_RELEASE);
}

static void dispatch(struct cfs_session *s, const struct cfs_rpc_reply *r)
{
	uint16_t opcode = cfs_le16_to_cpu(r->hdr.opcode);

	if (r->hdr.flags & CFS_MSG_REPLY) {
		if (s->ping_tag && cfs_le64_to_cpu(r->hdr.tag) == s->ping_tag)
			pong(s, r);
		return;
	}
	if (opcode == CFS_OP_CB_BREAK || opcode == CFS_OP_CB_ASK)
		cfs_breaks_message(s->c, s->conn_gen, &r->hdr, s->rx, r->body_len);
	else
		cfs_session_answer(s->c, s->conn_gen, &r->hdr, CFS_E_PROTO, NULL, 0);
}

/* one message, whatever it is: 0, or an error of the connection; -EINTR, -ETIMEDOUT: none came */
static int receive(struct cfs_session *s, struct cfs_rpc_reply *r, uint64_t deadline)
{
	uint64_t v;
	int rc;

	*r = (struct cfs_rpc_reply){ .pick = pick_rx, .user = s };
	rc = cfs_rpc_recv(s->conn, r, s->wake_fd, deadline);
	if (rc == -EINTR && read(s->wake_fd, &v, sizeof(v)) < 0 && errno != EAGAIN)
		cfs_warn("session wake-up: %s", strerror(errno));
	if (rc && cfs_rpc_broken(s->conn) && (rc == -EINTR || rc == -ETIMEDOUT))
		rc = -ECONNRESET;
	return rc;
}

static int await_reply(struct cfs_session *s, uint64_t tag, struct cfs_rpc_reply *r)
{
	uint64_t give_up = cfs_boot_ns() + ms_ns(IO_MS);
	int rc;

	while (s->conn) {
		rc = receive(s, r, give_up);
		if (!rc && (r->hdr.flags & CFS_MSG_REPLY) && cfs_le64_to_cpu(r->hdr.tag) == tag)
			return 0;
		if (!rc)
			dispatch(s, r);
		else if (rc != -EINTR)
			return rc;
		if (__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE))
			return -ESHUTDOWN;
	}
	return -ECONNRESET;
}

static int ping(struct cfs_session *s)
{
	struct cfs_msg_hdr hdr;
	int rc;

	cfs_hdr_init(&hdr, CFS_OP_HEARTBEAT);
	hdr.tag = cfs_cpu_to_le64(++s->tag);
	hdr.session = cfs_cpu_to_le64(cfs_client_session(s->c));
	s->ping_sent_ns = cfs_boot_ns();
	rc = cfs_rpc_send(s->conn, &hdr, NULL, 0, NULL, 0, s->ping_sent_ns + ms_ns(IO_MS));
	s->ping_tag = rc ? 0 : s->tag;
	s->next_ping_ns = s->ping_sent_ns + ms_ns(s->c->lease_ms / CFS_PING_DIV);
	return rc;
}

/* ---- answers -------------------------------------------------------------------------------------- */
void cfs_session_answer(struct cfs_client *c, uint64_t conn_gen, const struct cfs_msg_hdr *req, uint32_t status,
			const void *body, uint32_t len)
{
	struct cfs_session *s = c->sess;
	struct answer *a = malloc(sizeof(*a) + len);

	CFS_ASSERT(a != NULL);
	a->conn_gen = conn_gen;
	a->len = len;
	cfs_hdr_init_reply(&a->hdr, req, status);
	if (len)
		memcpy(a->body, body, len);
	pthread_mutex_lock(&s->answers_lock);
	if (s->n_answers < ANSWERS_MAX) {
		cfs_list_add_tail(&s->answers, &a->link);
		s->n_answers++;
		a = NULL;
	}
	pthread_mutex_unlock(&s->answers_lock);
	free(a); /* the server will ask again, or fence us */
	cfs_session_kick(c);
}

static int send_answers(struct cfs_session *s)
{
	int rc = 0;

	while (!rc) {
		struct answer *a = NULL;
		struct iovec body;

		pthread_mutex_lock(&s->answers_lock);
		if (!cfs_list_empty(&s->answers)) {
			a = cfs_list_first(&s->answers, struct answer, link);
			cfs_list_del(&a->link);
			s->n_answers--;
		}
		pthread_mutex_unlock(&s->answers_lock);
		if (!a)
			break;
		body = (struct iovec){ a->body, a->len };
		if (s->conn && a->conn_gen == s->conn_gen)
			rc = cfs_rpc_send(s->conn, &a->hdr, &body, a->len ? 1 : 0, NULL, 0,
					  cfs_boot_ns() + ms_ns(IO_MS));
		free(a);
	}
	return rc;
}

/* ---- the thread ------------------------------------------------------------------------------------- */
static void nap(struct cfs_session *s, uint32_t ms)
{
	struct pollfd p = { .fd = s->wake_fd, .events = POLLIN };
	uint64_t v;

	if (poll(&p, 1, (int)ms) > 0 && read(s->wake_fd, &v, sizeof(v)) < 0)
		return;
}

static void pause_longer(struct cfs_session *s)
{
	s->backoff_ms = s->backoff_ms ? cfs_min(2 * s->backoff_ms, 500u) : 20;
	poll(NULL, 0, (int)s->backoff_ms); /* kicks of waiting threads do not shorten it */
}

/* bring what is missing into being; false: not yet */
static bool ready(struct cfs_session *s)
{
	struct cfs_client *c = s->c;
	int rc;

	switch (cfs_client_state(c)) {
	case CFS_SESS_LOST:
		drop_conn(s);
		cfs_breaks_drop_all(c, true);
		set_state(c, CFS_SESS_OPENING);
		return false;
	case CFS_SESS_OPENING:
		rc = open_at(c, __atomic_load_n(&c->leader, __ATOMIC_ACQUIRE));
		if (rc) {
			cfs_client_next_leader(c, __atomic_load_n(&c->leader, __ATOMIC_ACQUIRE));
			pause_longer(s);
		}
		return !rc;
	case CFS_SESS_CLOSED:
		nap(s, 1000);
		return false;
	case CFS_SESS_LIVE:
		break;
	}
	if (!s->conn && connect_callback(s)) {
		if (cfs_client_state(c) == CFS_SESS_LIVE)
			pause_longer(s);
		return false;
	}
	if (s->reclaim_epoch) {
		rc = reclaim(s);
		if (rc == CFS_E_BADSESSION)
			cfs_session_report_lost(c, cfs_client_session(c));
		if (rc) {
			drop_conn(s);
			pause_longer(s);
			return false;
		}
	}
	return true;
}

static void turn(struct cfs_session *s)
{
	struct cfs_client *c = s->c;
	uint64_t now = cfs_boot_ns(), silent_ns = ms_ns(c->lease_ms) / 2, until;
	struct cfs_rpc_reply r;
	int rc;

	/* a server that waits for our answer to a recall does not answer heartbeats either */
	if (cfs_breaks_pending(c))
		silent_ns = ms_ns(c->lease_ms);
	rc = send_answers(s);
	if (!rc && !s->ping_tag && now >= s->next_ping_ns)
		rc = ping(s);
	if (!rc && s->ping_tag && cfs_boot_ns() - s->ping_sent_ns >= silent_ns) {
		cfs_warn("%s has not answered a heartbeat for %llu ms: connecting anew", cfs_rpc_peer(s->conn),
			 (unsigned long long)(silent_ns / CFS_NSEC_PER_MSEC));
		__atomic_add_fetch(&c->conn_gen, 1, __ATOMIC_SEQ_CST);
		rc = -ETIMEDOUT;
	}
	if (rc) {
		drop_conn(s);
		return;
	}
	until = s->ping_tag ? s->ping_sent_ns + silent_ns : s->next_ping_ns;
	rc = receive(s, &r, until);
	if (!rc)
		dispatch(s, &r);
	else if (rc != -EINTR && rc != -ETIMEDOUT)
		drop_conn(s);
}

static void say_goodbye(struct cfs_session *s)
{
	struct cfs_rpc_reply r;
	struct cfs_msg_hdr hdr;

	if (cfs_client_state(s->c) != CFS_SESS_LIVE || !s->conn)
		return;
	cfs_hdr_init(&hdr, CFS_OP_SESSION_CLOSE);
	hdr.tag = cfs_cpu_to_le64(++s->tag);
	hdr.session = cfs_cpu_to_le64(cfs_client_session(s->c));
	__atomic_store_n(&s->stop, false, __ATOMIC_RELEASE);
	if (cfs_rpc_send(s->conn, &hdr, NULL, 0, NULL, 0, cfs_boot_ns() + ms_ns(IO_MS)) ||
	    await_reply(s, s->tag, &r))
		cfs_warn("the session was not closed properly: the server will do so when its lease has ended");
}

static void *session_main(void *arg)
{
	struct cfs_session *s = arg;

	while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE))
		if (ready(s) && s->conn)
			turn(s);
	say_goodbye(s);
	drop_conn(s);
	cfs_thread_drop(s->c);
	return NULL;
}

int cfs_session_start(struct cfs_client *c, char *err, size_t errlen)
{
	struct cfs_session *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return -ENOMEM;
	c->sess = s;
	s->c = c;
	s->wake_fd = -1;
	cfs_list_init(&s->answers);
	pthread_mutex_init(&s->answers_lock, NULL);
	s->rx = malloc(CFS_BODY_MAX);
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = s->rx ? s->wake_fd < 0 ? -errno : 0 : -ENOMEM;
	if (rc) {
		snprintf(err, errlen, "cannot start: %s", strerror(-rc));
		return rc;
	}
	rc = open_first(c, err, errlen);
	if (rc)
		return rc;
	rc = -pthread_create(&s->thread, NULL, session_main, s);
	if (rc) {
		snprintf(err, errlen, "cannot start a thread: %s", strerror(-rc));
		return rc;
	}
	s->running = true;
	rc = cfs_client_map_refresh(c);
	if (rc) {
		snprintf(err, errlen, "cannot fetch the cluster map from %s: %s", c->nodes[c->leader], why(rc));
		return rc < 0 ? rc : -EIO;
	}
	return 0;
}

void cfs_session_stop(struct cfs_client *c)
{
	struct cfs_session *s = c->sess;

	if (!s)
		return;
	__atomic_store_n(&s->stop, true, __ATOMIC_RELEASE);
	cfs_session_kick(c);
	if (s->running)
		pthread_join(s->thread, NULL);
	set_state(c, CFS_SESS_CLOSED);
	__atomic_store_n(&c->deadline_ns, 0, __ATOMIC_SEQ_CST);
	cfs_accel_deadline(c);
	/* jobs may still answer: wait for them before their queue goes */
	cfs_jobs_destroy(c->jobs);
	c->jobs = NULL;
	while (!cfs_list_empty(&s->answers)) {
		struct answer *a = cfs_list_first(&s->answers, struct answer, link);

		cfs_list_del(&a->link);
		free(a);
	}
	if (s->wake_fd >= 0)
		close(s->wake_fd);
	pthread_mutex_destroy(&s->answers_lock);
	free(s->rx);
	free(s);
	c->sess = NULL;
}
