// SPDX-License-Identifier: MIT
/*
 * rpc.c - see rpc.h: requests to the leader of the metadata shard, on the calling thread's own connection.
 *
 * A request is in one of three hands: ours (nothing was sent), the server's (sent, no answer yet), or nobody's (answered). Only
 * what is in ours may simply be dropped; a mutating one in the server's hands that its caller gives up is parked: its slot is
 * asked for its outcome in the background, and until that is known nothing is kept in any cache, because the
 * request may change what we believe without a break telling us so.
 */
#include "client/accel.h"
#include "client/client_i.h"
#include "client/persist.h"

#include "base/hash.h"
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONNECT_MS	2000u
#define HELLO_MS	3000u
#define SEND_MS		10000u	/* the peer must take a request within this */
#define SLICE_MS	1000u	/* how often a waiting thread looks at things other than its socket */
#define SILENT_MS	2000u	/* an interrupt ends a wait that has lasted this long */
#define GRACE_RETRY_MS	50u
#define BACKOFF_MIN_MS	10u
#define BACKOFF_MAX_MS	500u

#define ms_ns(ms) ((uint64_t)(ms) * CFS_NSEC_PER_MSEC)

/* ---- waiting ------------------------------------------------------------------------------ */
static void watch_interrupt(struct cfs_client *c, struct cfs_thread *t)
{
	if (t->req && c->req_watch && !t->intr_watched) {
		t->intr_watched = true;
		c->req_watch(t);
	}
}

void cfs_unwatch(struct cfs_client *c, struct cfs_thread *t)
{
	if (!t->intr_watched)
		return;
	t->intr_watched = false;
	if (t->req && c->req_unwatch)
		c->req_unwatch(t);
}

/* the eventfd was readable: empty it, and say whether it meant the request being served */
static bool take_interrupt(struct cfs_client *c, struct cfs_thread *t)
{
	uint64_t v;

	if (read(t->intr_fd, &v, sizeof(v)) != sizeof(v))
		return false;
	return t->req && c->req_interrupted && c->req_interrupted(t);
}

bool cfs_pause_ms(struct cfs_client *c, struct cfs_thread *t, uint32_t ms)
{
	struct pollfd p = { .fd = t->intr_fd, .events = POLLIN };

	watch_interrupt(c, t);
	if (poll(&p, 1, (int)ms) <= 0)
		return false;
	return take_interrupt(c, t);
}

static bool stopping(struct cfs_client *c)
{
	return __atomic_load_n(&c->stopping, __ATOMIC_ACQUIRE);
}

/* ---- connections ------------------------------------------------------------------------------ */
void cfs_node_conn_close(struct cfs_node_conn *nc)
{
	cfs_rpc_close(nc->conn);
	*nc = (struct cfs_node_conn){ 0 };
}

int cfs_node_conn(struct cfs_client *c, struct cfs_thread *t, uint32_t node, uint64_t session,
		  struct cfs_node_conn **ret_nc)
{
	static const uint8_t any[16];
	struct cfs_node_conn *nc = &t->nodes[node];
	uint64_t gen = __atomic_load_n(&c->conn_gen, __ATOMIC_ACQUIRE);
	struct cfs_hello_rep rep;
	int rc;

	CFS_ASSERT(node < CFS_NODES_MAX);
	if (nc->conn && (cfs_rpc_broken(nc->conn) || nc->session != session || nc->gen != gen))
		cfs_node_conn_close(nc);
	if (!nc->conn) {
		rc = cfs_rpc_connect(c->nodes[node], CONNECT_MS, &nc->conn);
		if (rc)
			return rc;
		cfs_count(c, reconnects);
		rc = cfs_rpc_hello(nc->conn, CFS_ROLE_WORKER, session, memcmp(c->cluster, any, 16) ? c->cluster : NULL,
				   &rep, -1, cfs_boot_ns() + ms_ns(HELLO_MS));
		if (rc) {
			cfs_node_conn_close(nc);
			return rc;
		}
		nc->session = session;
		nc->gen = gen;
		nc->credits = cfs_max(1u, cfs_le32_to_cpu(rep.credits));
	}
	*ret_nc = nc;
	return 0;
}

/* ---- one exchange ------------------------------------------------------------------------------- */
struct attempt {
	struct cfs_client *c;
	struct cfs_thread *t;
	struct cfs_call *call;
	struct cfs_slot slot;
	uint64_t session, session_gen;
	uint64_t start_ns, give_up_ns;
	uint32_t backoff_ms;
	uint64_t unique;		/* of the kernel's request that it is for; 0: none, or nobody would take over */
	bool maybe_done;		/* it may be in the server's hands, or carried out */
	bool interrupted;
};

static void pick_reply(struct cfs_rpc_reply *r)
{
	struct attempt *a = r->user;

	if (cfs_le64_to_cpu(r->hdr.tag) != a->t->tag || !(r->hdr.flags & CFS_MSG_REPLY))
		r->drop = true;
}

/* may an interrupt end this wait now? */
static bool gives_in(const struct attempt *a)
{
	return a->interrupted && (a->call->interruptible || cfs_boot_ns() - a->start_ns >= ms_ns(SILENT_MS));
}

static void fill_header(struct attempt *a, struct cfs_msg_hdr *hdr)
{
	cfs_hdr_init(hdr, a->call->opcode);
	hdr->tag = cfs_cpu_to_le64(++a->t->tag);
	hdr->session = cfs_cpu_to_le64(a->session);
	if (a->slot.slot != CFS_SLOT_NONE) {
		hdr->slot = cfs_cpu_to_le32(a->slot.slot);
		hdr->seq = cfs_cpu_to_le64(a->slot.seq);
	}
}

/* send and wait: 0 and the status, -EINTR (given up), -ETIMEDOUT (give_up_ns), or an error of the connection */
static int exchange(struct attempt *a, struct cfs_node_conn *nc, uint32_t *ret_status)
{
	struct cfs_client *c = a->c;
	struct cfs_call *call = a->call;
	bool maybe_before = a->maybe_done; /* an answer tells nothing of what was sent before, unless it is the result */
	struct cfs_msg_hdr hdr;
	int rc;

	fill_header(a, &hdr);
	rc = cfs_rpc_send(nc->conn, &hdr, call->body, call->n_body, call->payload, call->payload_len,
			  cfs_min(a->give_up_ns, cfs_boot_ns() + ms_ns(SEND_MS)));
	if (rc == -EMSGSIZE)
		return rc;
	a->maybe_done = true; /* even a broken send may have got through */
	if (rc)
		return rc;
	for (;;) {
		struct cfs_rpc_reply r = {
			.pick = pick_reply, .user = a, .body = call->rep, .body_max = call->rep_max,
			.payload = call->rep_payload, .payload_max = call->rep_payload_max,
		};
		uint64_t now;

		watch_interrupt(c, a->t);
		rc = cfs_rpc_recv(nc->conn, &r, a->interrupted ? -1 : a->t->intr_fd,
				  cfs_min(a->give_up_ns, cfs_boot_ns() + ms_ns(SLICE_MS)));
		if (!rc) {
			if (r.drop || cfs_le64_to_cpu(r.hdr.tag) != a->t->tag)
				continue; /* of a request given up before */
			call->rep_len = r.body_len;
			call->rep_payload_len = r.payload_len;
			a->maybe_done = maybe_before;
			*ret_status = cfs_le32_to_cpu(r.hdr.status);
			return 0;
		}
		if (rc == -EINTR && take_interrupt(c, a->t))
			a->interrupted = true;
		if (gives_in(a))
			return -EINTR;
		if (cfs_rpc_broken(nc->conn) || (rc != -EINTR && rc != -ETIMEDOUT))
			return rc == -EINTR || rc == -ETIMEDOUT ? -ECONNRESET : rc;
		now = cfs_boot_ns();
		if (now >= a->give_up_ns)
			return -ETIMEDOUT;
		/* the session thread found the server silent, or the session has gone */
		if (nc->gen != __atomic_load_n(&c->conn_gen, __ATOMIC_ACQUIRE) || stopping(c))
			return -ECONNRESET;
	}
}

/* ---- giving up ------------------------------------------------------------------------------------ */
struct parked {
	struct cfs_slot slot;
};

/* whatever has this slot and seq by now is answered; if nothing has, an empty request takes the place of the lost one */
static void resolve_parked(struct cfs_client *c, void *arg)
{
	struct cfs_release_req req = { 0 };
	struct iovec iov = { &req, sizeof(req) };
	struct parked *p = arg;
	struct cfs_call call = {
		.opcode = CFS_OP_RELEASE, .body = &iov, .n_body = 1,
		.rep = cfs_thread_buf(cfs_thread_self(c)), .rep_max = CFS_BODY_MAX,
	};
	int rc = cfs_call_slot(c, &call, &p->slot);

	cfs_slots_put(&c->slots, &p->slot, rc >= 0);
	cfs_breaks_drop_all(c, false);
	CFS_ASSERT(__atomic_fetch_sub(&c->parked, 1, __ATOMIC_SEQ_CST) > 0);
	cfs_accel_deadline(c);
	free(p);
}

static void park(struct attempt *a)
{
	struct cfs_client *c = a->c;
	struct parked *p = malloc(sizeof(*p));

	cfs_count(c, parked);
	__atomic_add_fetch(&c->parked, 1, __ATOMIC_SEQ_CST);
	cfs_accel_deadline(c);
	if (p) {
		p->slot = a->slot;
		if (!cfs_jobs_submit(c->jobs, resolve_parked, p))
			return;
		free(p);
	}
	/* the slot stays taken and nothing is kept from now on: slow, but right */
	__atomic_store_n(&c->no_keeping, true, __ATOMIC_SEQ_CST);
	__atomic_sub_fetch(&c->parked, 1, __ATOMIC_SEQ_CST);
	cfs_warn("a request was given up and cannot be resolved: caching is off until the next session");
}

/* until the kernel's request is answered: if we die before, it comes again, and so must the server's answer */
static void hold_slot(struct cfs_thread *t, const struct cfs_slot *slot)
{
	if (t->n_held == CFS_SLOTS_HELD) {
		cfs_slots_put(&t->c->slots, &t->held[0], true);
		memmove(&t->held[0], &t->held[1], --t->n_held * sizeof(t->held[0]));
	}
	t->held[t->n_held++] = *slot;
}

/* done with the slot, if there is one. rc: what the call will return */
static void finish_slot(struct attempt *a, bool answered)
{
	if (a->slot.slot == CFS_SLOT_NONE)
		return;
	if (answered && a->unique && !a->t->answered)
		hold_slot(a->t, &a->slot);
	else if (answered || !a->maybe_done || !cfs_slots_current(&a->c->slots, &a->slot))
		cfs_slots_put(&a->c->slots, &a->slot, answered);
	else
		park(a);
}

/* ---- the call --------------------------------------------------------------------------------------- */
/* the session to send under. 0, CFS_E_BADSESSION, -EINTR, -ETIMEDOUT, -ESHUTDOWN */
static int get_session(struct attempt *a)
{
	struct cfs_client *c = a->c;

	for (;;) {
		enum cfs_session_state state = cfs_client_state(c);

		if (state == CFS_SESS_CLOSED || (state != CFS_SESS_LIVE && stopping(c)))
			return -ESHUTDOWN;
		if (state == CFS_SESS_LOST)
			return CFS_E_BADSESSION;
		if (state == CFS_SESS_LIVE) {
			uint64_t gen = __atomic_load_n(&c->session_gen, __ATOMIC_ACQUIRE);

			if (a->session && a->session_gen != gen)
				return CFS_E_BADSESSION;
			a->session = cfs_client_session(c);
			a->session_gen = gen;
			if (a->session && cfs_client_state(c) == CFS_SESS_LIVE)
				return 0;
			continue;
		}
		if (a->session) /* it began under a session that is no more */
			return CFS_E_BADSESSION;
		if (cfs_boot_ns() >= a->give_up_ns)
			return -ETIMEDOUT;
		if (cfs_pause_ms(c, a->t, BACKOFF_MIN_MS))
			a->interrupted = true;
		if (gives_in(a))
			return -EINTR;
	}
}

/* pause before another attempt; doubles each time */
static int back_off(struct attempt *a, uint32_t ms)
{
	if (!ms) {
		ms = a->backoff_ms ? 2 * a->backoff_ms : BACKOFF_MIN_MS;
		ms = a->backoff_ms = cfs_min(BACKOFF_MAX_MS, ms);
		cfs_count(a->c, retries);
	}
	if (a->interrupted) /* its eventfd has been emptied: plain sleep */
		poll(NULL, 0, (int)ms);
	else if (cfs_pause_ms(a->c, a->t, ms))
		a->interrupted = true;
	if (gives_in(a))
		return -EINTR;
	return cfs_boot_ns() >= a->give_up_ns ? -ETIMEDOUT : 0;
}

/* one attempt at the leader: true when the call is over, with *ret */
static bool try_leader(struct attempt *a, int *ret)
{
	struct cfs_client *c = a->c;
	uint32_t leader = __atomic_load_n(&c->leader, __ATOMIC_ACQUIRE), status = 0;
	struct cfs_node_conn *nc = NULL;
	bool from_hello = true;
	int rc;

	rc = cfs_node_conn(c, a->t, leader, a->session, &nc);
	if (!rc) {
		from_hello = false;
		rc = exchange(a, nc, &status);
	}
	if (rc == -EINTR || rc == -ETIMEDOUT) {
		if (rc == -ETIMEDOUT && (from_hello || cfs_boot_ns() < a->give_up_ns))
			goto unreachable;
		*ret = rc;
		return true;
	}
	if (rc == -EMSGSIZE || rc == -EPROTO) {
		if (nc)
			cfs_node_conn_close(nc);
		*ret = rc == -EMSGSIZE ? -EMSGSIZE : -EPROTO;
		return true;
	}
	if (rc < 0)
		goto unreachable;
	if (from_hello)
		status = (uint32_t)rc;
	switch (status) {
	case CFS_E_GRACE:
		*ret = back_off(a, GRACE_RETRY_MS);
		return *ret != 0;
	case CFS_E_NOTLEADER:
		cfs_client_next_leader(c, leader);
		*ret = back_off(a, 0);
		return *ret != 0;
	case CFS_E_BADSEQ:
		cfs_err("the server lost count of slot %u (seq %llu): starting a new session", a->slot.slot,
			(unsigned long long)a->slot.seq);
		/* fall through */
	case CFS_E_BADSESSION:
		cfs_session_report_lost(c, a->session);
		*ret = CFS_E_BADSESSION;
		return true;
	case CFS_E_MAPEPOCH:
		*ret = cfs_client_map_refresh(c);
		if (!*ret)
			*ret = back_off(a, 0);
		return *ret != 0;
	default:
		*ret = (int)status;
		return true;
	}

unreachable:
	if (nc)
		cfs_node_conn_close(nc);
	cfs_session_kick(c);
	if (stopping(c)) {
		*ret = -ESHUTDOWN;
		return true;
	}
	if (rc == -ECONNREFUSED || rc == -EHOSTUNREACH || rc == -ETIMEDOUT)
		cfs_client_next_leader(c, leader);
	*ret = back_off(a, 0);
	return *ret != 0;
}

static void attempt_init(struct attempt *a, struct cfs_client *c, struct cfs_call *call)
{
	uint32_t limit_ms = call->timeout_ms ? call->timeout_ms : c->o.softerr ? c->o.timeo_ms : 0;

	*a = (struct attempt){ .c = c, .t = cfs_thread_self(c), .call = call, .slot.slot = CFS_SLOT_NONE };
	a->start_ns = cfs_boot_ns();
	a->give_up_ns = limit_ms ? a->start_ns + ms_ns(limit_ms) : CFS_RPC_NO_DEADLINE;
	call->rep_len = call->rep_payload_len = 0;
	call->break_gen = cfs_client_break_gen(c);
	if (call->opcode < CFS_RPC_OPS_MAX)
		cfs_count(c, rpc[call->opcode]);
}

/*
 * Tells a mutation from others that are made for the same request of the kernel, and is the same when that comes again: so without
 * hints and clocks.
 */
static uint64_t call_key(const struct cfs_call *call)
{
	static const struct {
		uint16_t opcode, off, len;
	} masked[] = {
		{ CFS_OP_UNLINK, offsetof(struct cfs_unlink_req, hint_ino), 8 },
		{ CFS_OP_UNLINK, offsetof(struct cfs_unlink_req, hint_open), 1 },
		{ CFS_OP_RENAME, offsetof(struct cfs_rename_req, hint_ino), 8 },
		{ CFS_OP_RENAME, offsetof(struct cfs_rename_req, hint_open), 1 },
		{ CFS_OP_SETATTR, offsetof(struct cfs_setattr_req, atime), 3 * sizeof(struct cfs_time) },
	};
	uint8_t fixed[256];
	size_t len = cfs_min(call->body[0].iov_len, sizeof(fixed));
	uint64_t key;

	memcpy(fixed, call->body[0].iov_base, len);
	for (size_t i = 0; i < CFS_ARRAY_SIZE(masked); i++)
		if (masked[i].opcode == call->opcode && masked[i].off + masked[i].len <= len)
			memset(fixed + masked[i].off, 0, masked[i].len);
	key = cfs_hash64(fixed, len, call->opcode);
	if (call->body[0].iov_len > len)
		key = cfs_hash64((char *)call->body[0].iov_base + len, call->body[0].iov_len - len, key);
	for (unsigned i = 1; i < call->n_body; i++)
		key = cfs_hash64(call->body[i].iov_base, call->body[i].iov_len, key);
	return key;
}

/* a slot for a mutation: the one that it had before, if it comes again after the death of another process. 0 or as get_session() */
static int take_slot(struct attempt *a)
{
	struct cfs_client *c = a->c;
	struct cfs_slot_use use = { .opcode = a->call->opcode };
	int rc = 0;

	/* what COMMITs may be the work of many; a write that comes again makes another one */
	if (c->persist && use.opcode != CFS_OP_COMMIT)
		use.unique = a->unique = cfs_thread_unique(a->t);
	if (use.unique) {
		use.key = call_key(a->call);
		a->maybe_done = cfs_slots_claim(&c->slots, &use, &a->slot);
	}
	/* one of before that is still on its way must not come after this one */
	while (!rc && use.opcode == CFS_OP_COMMIT && __atomic_load_n(&c->slots.n_inherited_bg, __ATOMIC_SEQ_CST)) {
		cfs_pause_ms(c, a->t, BACKOFF_MIN_MS);
		rc = cfs_boot_ns() >= a->give_up_ns ? -ETIMEDOUT : get_session(a);
	}
	while (!rc && a->slot.slot == CFS_SLOT_NONE && cfs_slots_get(&c->slots, 100, &use, &a->slot))
		rc = cfs_boot_ns() >= a->give_up_ns ? -ETIMEDOUT : get_session(a);
	return rc;
}

static int run_call(struct cfs_client *c, struct cfs_call *call, bool *ret_maybe_done)
{
	struct attempt a;
	int rc;

	attempt_init(&a, c, call);
	if (call->opcode == CFS_OP_LEASE_RETURN)
		cfs_client_leases_returning(c, call);
	rc = get_session(&a);
	if (!rc && call->mutating)
		rc = take_slot(&a);
	while (!rc) {
		if (try_leader(&a, &rc))
			break;
		rc = get_session(&a);
	}
	cfs_unwatch(c, a.t);
	/* anything but a lost session, a timeout or an interrupt was the server's own answer */
	finish_slot(&a, rc >= 0 ? rc != CFS_E_BADSESSION : rc == -EPROTO);
	*ret_maybe_done = a.maybe_done;
	if (rc == CFS_E_BADSESSION && a.maybe_done && !call->mutating)
		*ret_maybe_done = false;
	if (call->opcode == CFS_OP_LEASE_RETURN)
		cfs_client_leases_returned(c, call);
	else if (!rc && call->opcode == CFS_OP_COMMIT)
		cfs_client_committed(c, call);
	return rc;
}

int cfs_call(struct cfs_client *c, struct cfs_call *call)
{
	bool maybe_done;

	return run_call(c, call, &maybe_done);
}

int cfs_call_again(struct cfs_client *c, struct cfs_call *call)
{
	struct cfs_thread *t = cfs_thread_self(c);
	bool maybe_done = false;
	int rc;

	for (unsigned tries = 0;; tries++) {
		rc = run_call(c, call, &maybe_done);
		if (rc != CFS_E_BADSESSION || maybe_done || tries >= 5)
			break;
		while (cfs_client_state(c) == CFS_SESS_LOST && rc == CFS_E_BADSESSION)
			if (cfs_pause_ms(c, t, BACKOFF_MIN_MS))
				rc = -EINTR;
		cfs_unwatch(c, t);
		if (rc == -EINTR)
			break;
	}
	return rc;
}

int cfs_call_slot(struct cfs_client *c, struct cfs_call *call, const struct cfs_slot *slot)
{
	struct attempt a;
	int rc;

	attempt_init(&a, c, call);
	a.give_up_ns = CFS_RPC_NO_DEADLINE;
	a.slot = *slot;
	rc = get_session(&a);
	while (!rc) {
		if (!cfs_slots_current(&c->slots, slot))
			return CFS_E_BADSESSION;
		if (try_leader(&a, &rc))
			break;
		rc = get_session(&a);
	}
	return rc;
}
