// SPDX-License-Identifier: MIT
/*
 * session.c - the session's thread: heartbeats, the callback connection, answers, loss; see session_i.h.
 *
 * One thread owns all of it, and never blocks on anything but its own connection, bounded: what a callback asks for is
 * done by jobs (breaks.c), whose answers come back through a queue. The deadline is the instant before the
 * last answered heartbeat was sent, plus the lease time (docs/leases.md). When it passes, nothing cached is used
 * until a heartbeat is answered again; a session that the server has not closed has lost nothing meanwhile.
 */
#include "client/session_i.h"

#include "client/accel.h"
#include "client/observe.h"

#include "base/log.h"
#include "client/notify.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define ANSWERS_MAX	4096u
#define DATA_IDLE_MS	60000u
#define RETURN_MAX	256u		/* directory leases returned at a time */
#define REST_POLL_MS	1

struct answer {
	struct cfs_list link;
	uint64_t conn_gen;
	struct cfs_msg_hdr hdr;
	uint32_t len;
	uint8_t body[];
};

void cfs_session_set_state(struct cfs_client *c, enum cfs_session_state state)
{
	pthread_mutex_lock(&c->lock);
	__atomic_store_n(&c->state, state, __ATOMIC_RELEASE);
	cfs_observe_session(c);
	pthread_cond_broadcast(&c->cond);
	pthread_mutex_unlock(&c->lock);
}

void cfs_session_renew(struct cfs_client *c, uint64_t sent_ns)
{
	pthread_mutex_lock(&c->lock);
	if (c->state == CFS_SESS_LIVE)
		__atomic_store_n(&c->deadline_ns, sent_ns + ms_ns(c->lease_ms), __ATOMIC_SEQ_CST);
	cfs_observe_session(c);
	pthread_cond_broadcast(&c->cond);
	pthread_mutex_unlock(&c->lock);
	cfs_accel_deadline(c);
	cfs_gates_deadline(c);
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
		cfs_gates_deadline(c);
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
		__atomic_store_n(&c->features, cfs_le64_to_cpu(rep.features), __ATOMIC_RELAXED);
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

void cfs_session_rest(struct cfs_client *c)
{
	while (c->sess && __atomic_exchange_n(&c->sess->chores_running, true, __ATOMIC_ACQ_REL))
		poll(NULL, 0, REST_POLL_MS);
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
		cfs_session_renew(c, s->ping_sent_ns);
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

int cfs_session_await_reply(struct cfs_session *s, uint64_t tag, struct cfs_rpc_reply *r)
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
		cfs_session_set_state(c, CFS_SESS_OPENING);
		return false;
	case CFS_SESS_OPENING:
		rc = cfs_session_open_at(c, __atomic_load_n(&c->leader, __ATOMIC_ACQUIRE));
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
		rc = cfs_session_reclaim(s);
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
	    cfs_session_await_reply(s, s->tag, &r))
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
	if (c->takeover)
		cfs_session_inherit(c);
	else
		rc = cfs_session_open_first(c, err, errlen);
	if (rc)
		return rc;
	rc = -pthread_create(&s->thread, NULL, session_main, s);
	if (rc) {
		snprintf(err, errlen, "cannot start a thread: %s", strerror(-rc));
		return rc;
	}
	s->running = true;
	if (c->takeover)	/* a server may be away just now: mount.c asks until it is there */
		return 0;
	rc = cfs_client_map_refresh(c);
	if (rc) {
		snprintf(err, errlen, "cannot fetch the cluster map from %s: %s", c->nodes[c->leader], cfs_session_why(rc));
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
	cfs_session_set_state(c, CFS_SESS_CLOSED);
	__atomic_store_n(&c->deadline_ns, 0, __ATOMIC_SEQ_CST);
	cfs_accel_deadline(c);
	cfs_gates_deadline(c);
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
