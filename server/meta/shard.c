/* SPDX-License-Identifier: MIT */
/*
 * shard.c - the shard leader's outer face: events come in, go to who handles them, and are run
 * to their end. Also the life of a request object, and what is not about requests: leadership, connections,
 * the timer, dead objects, numbers for people. Owner of struct cfs_shard; one thread.
 */
#include "server/meta/shard_i.h"

#include <errno.h>

#define TABLE_BUCKETS 256u

/* ---- requests -------------------------------------------------------------------------------------- */
void shard_reply_hdr(struct cfs_shard *s, struct shard_conn *c, const struct cfs_msg_hdr *req, uint32_t status,
		     const void *body, uint32_t len)
{
	struct cfs_send msg = { .body = body, .body_len = len };
	int rc;

	if (!c)
		return;
	cfs_hdr_init_reply(&msg.hdr, req, status);
	msg.hdr.map_epoch = cfs_cpu_to_le64(s->map_epoch);
	rc = cfs_conn_send(c->conn, &msg);
	/* a broken connection makes its client ask again; a full queue means it disregards its credits */
	if (rc && rc != -EPIPE) {
		cfs_warn("%s: reply cannot be sent: %s: closing", c->conn->peer, strerror(-rc));
		cfs_conn_close(c->conn);
	}
}

struct shard_op *op_new(struct cfs_shard *s, struct shard_conn *c, const struct cfs_msg_hdr *hdr, const void *body)
{
	uint32_t len = cfs_le32_to_cpu(hdr->body_len);
	struct shard_sess *sess = c ? c->sess : NULL;
	struct shard_op *op = NULL;

	if (c && (s->op_pool.used >= SHARD_OPS_MAX || s->op_bytes + len > SHARD_OP_BYTES_MAX))
		goto full;
	if (sess && sess->n_ops >= sess->n_slots + CFS_CREDITS_DEFAULT * sess->n_conns)
		goto full;
	op = cfs_slab_get(&s->op_pool);
	if (!op)
		goto full;
	cfs_list_init(&op->sess_link);
	cfs_list_init(&op->conn_link);
	cfs_list_init(&op->wait_link);
	cfs_list_init(&op->q_link);
	cfs_list_init(&op->brks);
	op->keys = op->ikeys;
	op->hdr = *hdr;
	op->opcode = cfs_le16_to_cpu(hdr->opcode);
	op->slot = CFS_SLOT_NONE;
	op->order = ++s->next_order;
	op->len = len;
	op->body = op->inl;
	if (len > sizeof(op->inl)) {
		op->owned = malloc(len);
		if (!op->owned) {
			cfs_slab_put(&s->op_pool, op);
			goto full;
		}
		op->body = op->owned;
		s->op_bytes += len;
	}
	if (len)
		memcpy(op->owned ? op->owned : op->inl, body, len);
	if (c) {
		op->conn = c;
		cfs_list_add_tail(&c->ops, &op->conn_link);
	}
	if (sess) {
		op->sess = sess;
		cfs_list_add_tail(&sess->ops, &op->sess_link);
		sess->n_ops++;
	}
	return op;
full:
	shard_reply_hdr(s, c, hdr, CFS_E_GRACE, NULL, 0);
	return NULL;
}

void op_drop_body(struct cfs_shard *s, struct shard_op *op)
{
	if (op->owned)
		s->op_bytes -= op->len;
	free(op->owned);
	op->owned = NULL;
	op->body = op->inl;
	op->len = 0;
}

void op_unpark(struct cfs_shard *s, struct shard_op *op)
{
	uint64_t ino = op->wait_ino, hash = op->wait_hash;

	switch (op->state) {
	case OP_KEYS:
		keys_unwait(s, op);
		keys_kick(s, ino, hash); /* who stood behind it */
		break;
	case OP_LOCKWAIT:
		inoq_leave(&s->lockqs, op);
		s->st.lock_waiters--;
		break;
	case OP_RUN:
	case OP_READY:
		cfs_list_del(&op->wait_link);
		break;
	case OP_OPENQ: /* keeps its place */
	case OP_BREAK:
	case OP_LOG:
		break;
	}
	op->state = OP_RUN;
}

void op_wake(struct cfs_shard *s, struct shard_op *op)
{
	if (op->state == OP_RUN)
		return;
	if (op->state == OP_KEYS)
		keys_unwait(s, op); /* shard_run() kicks the next one after it has tried */
	else
		op_unpark(s, op);
	op->state = OP_RUN;
	cfs_list_add_tail(&s->run, &op->wait_link);
}

void op_reply(struct cfs_shard *s, struct shard_op *op, uint32_t status, const void *body, uint32_t len)
{
	shard_reply_hdr(s, op->conn, &op->hdr, status, body, len);
}

void op_free(struct cfs_shard *s, struct shard_op *op)
{
	uint64_t q_ino = op->ino;
	bool opens = op->q && op->state != OP_LOCKWAIT;

	op_unpark(s, op);
	if (opens) {
		inoq_leave(&s->openqs, op);
		open_kick(s, q_ino);
	}
	break_drop_op(s, op);
	keys_release(s, op);
	if (op->sess) {
		if (op->slot != CFS_SLOT_NONE && op->sess->slots[op->slot].op == op)
			op->sess->slots[op->slot].op = NULL;
		op->sess->n_ops--;
	}
	cfs_list_del(&op->sess_link);
	cfs_list_del(&op->conn_link);
	op_drop_body(s, op);
	free(op->holders);
	cfs_slab_put(&s->op_pool, op);
}

void op_abort(struct cfs_shard *s, struct shard_op *op, uint32_t status)
{
	op_reply(s, op, status, NULL, 0);
	op_free(s, op);
}

struct shard_inoq *inoq_find(const struct cfs_htable *t, uint64_t ino)
{
	struct cfs_hnode *n;

	for (n = cfs_htable_chain(t, cfs_hash_u64(ino)); n; n = n->next) {
		struct shard_inoq *q = cfs_container_of(n, struct shard_inoq, node);

		if (q->ino == ino)
			return q;
	}
	return NULL;
}

int inoq_join(struct cfs_htable *t, struct shard_op *op, uint64_t ino)
{
	struct shard_inoq *q = inoq_find(t, ino);
	struct cfs_list *pos;

	if (!q) {
		q = calloc(1, sizeof(*q));
		if (!q)
			return -ENOMEM;
		q->ino = ino;
		cfs_list_init(&q->ops);
		cfs_htable_add(t, &q->node, cfs_hash_u64(ino));
	}
	for (pos = q->ops.prev; pos != &q->ops; pos = pos->prev) {
		if (cfs_list_entry(pos, struct shard_op, q_link)->order < op->order)
			break;
	}
	cfs_list_add_head(pos, &op->q_link);
	op->q = q;
	return 0;
}

void inoq_leave(struct cfs_htable *t, struct shard_op *op)
{
	struct shard_inoq *q = op->q;

	if (!q)
		return;
	op->q = NULL;
	cfs_list_del(&op->q_link);
	if (cfs_list_empty(&q->ops)) {
		cfs_htable_del(t, &q->node);
		free(q);
	}
}

/* at the end of every event: let everybody go on who can, then send what is ready to the log */
void shard_run(struct cfs_shard *s)
{
	while (!cfs_list_empty(&s->run)) {
		struct shard_op *op = cfs_list_first(&s->run, struct shard_op, wait_link);
		uint64_t ino = op->wait_ino, hash = op->wait_hash;

		cfs_list_del(&op->wait_link);
		op->wait_ino = op->wait_hash = 0;
		if (!op->mutates)
			open_try(s, op);
		else if (op->answered)
			op_log(s, op);
		else
			op_start(s, op);
		if (ino)
			keys_kick(s, ino, hash);
	}
	batch_kick(s);
}

void shard_space(struct cfs_shard *s)
{
	uint64_t every_ms = shard_space_tight(s) ? SHARD_SPACE_TIGHT_MS : SHARD_SPACE_EVERY_MS;

	if (!s->p.space || (s->space_ns && s->now_ns - s->space_ns < every_ms * CFS_NSEC_PER_MSEC))
		return;
	s->p.space(s->p.arg, &s->space_total, &s->space_free);
	s->state_full = !cfs_meta_room(s->p.meta);
	s->space_ns = s->now_ns;
}

void cfs_shard_space(struct cfs_shard *s, uint64_t *ret_total, uint64_t *ret_free)
{
	uint64_t kept;

	s->now_ns = cfs_clock_boot_ns(s->p.clock);
	shard_space(s);
	kept = shard_space_kept(s);
	*ret_total = s->space_total - kept;
	*ret_free = s->state_full || shard_space_low(s) ? 0 : s->space_free - kept;
}

/* ---- leadership -------------------------------------------------------------------------------------- */
static void note_map(struct cfs_shard *s)
{
	struct cfs_map_rep map;
	uint32_t len = 0;

	if (cfs_meta_map(s->p.meta, s->cb_out, &len) || len < sizeof(map))
		return;
	memcpy(&map, s->cb_out, sizeof(map));
	s->map_epoch = cfs_le64_to_cpu(map.epoch);
}

void cfs_shard_become_leader(struct cfs_shard *s, uint64_t epoch)
{
	if (s->leader)
		cfs_shard_lost_leadership(s);
	s->now_ns = cfs_clock_boot_ns(s->p.clock);
	s->leader = true;
	s->ready = false;
	s->grace = true;
	s->epoch = epoch;
	/* what the one before us granted may be valid for so long; and clocks differ */
	s->grace_end_ns = s->now_ns + s->lease_ns + s->lease_ns / 10;
	s->purge_busy = false;
	s->dead_next_ns = s->now_ns + SHARD_DEAD_EVERY_MS * CFS_NSEC_PER_MSEC;
	cfs_timer_set(s->p.clock, &s->tick, s->now_ns + s->tick_ns);
	/* entries of others may be committed and not applied: ours comes after them, and nothing is served before */
	if (op_internal(s, CFS_LOG_NOOP, 0, NULL, 0)) {
		cfs_err("shard %u: no memory to begin to lead", s->p.shard);
		cfs_shard_lost_leadership(s);
		return;
	}
	shard_run(s);
}

int shard_ready(struct cfs_shard *s)
{
	int rc;

	if (s->ready)
		return 0;
	note_map(s);
	rc = sess_load_all(s);
	if (rc) {
		cfs_err("shard %u: the sessions cannot be read: %s", s->p.shard, strerror(-rc));
		return rc;
	}
	s->ready = true;
	sess_end_grace_if_complete(s);
	cfs_info("shard %u: leads with epoch %llu%s", s->p.shard, (unsigned long long)s->epoch,
		 s->grace ? ", waits for sessions to come back" : "");
	return 0;
}

void cfs_shard_lost_leadership(struct cfs_shard *s)
{
	struct cfs_list *pos;

	if (!s->leader)
		return;
	s->leader = s->ready = s->grace = false;
	cfs_timer_cancel(s->p.clock, &s->tick);
	batch_drop(s);
	sess_drop_all(s);
	cfs_list_for_each(pos, &s->conn_list) {
		struct shard_conn *c = cfs_list_entry(pos, struct shard_conn, link);

		while (!cfs_list_empty(&c->ops))
			op_abort(s, cfs_list_first(&c->ops, struct shard_op, conn_link), CFS_E_NOTLEADER);
	}
	while (!cfs_list_empty(&s->run)) /* nobody's: whose connection has gone */
		op_free(s, cfs_list_first(&s->run, struct shard_op, wait_link));
	CFS_ASSERT(!s->op_pool.used && !s->keys.n && !s->brks.n && !s->openqs.n && !s->lockqs.n);
}

bool cfs_shard_is_leader(struct cfs_shard *s)
{
	return s->leader;
}

uint64_t cfs_shard_leader_epoch(struct cfs_shard *s)
{
	return s->epoch;
}

bool cfs_shard_session_gone(struct cfs_shard *s, uint64_t session)
{
	return s->ready && !sess_find(s, session);
}

int cfs_shard_apply(struct cfs_shard *s, uint64_t index, const void *entry, size_t len)
{
	struct cfs_log_rec rec;
	int rc;

	s->now_ns = cfs_clock_boot_ns(s->p.clock);
	rc = batch_apply(s, index, entry, len);
	if (rc)
		return rc;
	if (s->ready && len >= sizeof(struct cfs_log_hdr) + sizeof(rec)) {
		memcpy(&rec, (const char *)entry + sizeof(struct cfs_log_hdr), sizeof(rec));
		if (cfs_le16_to_cpu(rec.opcode) == CFS_LOG_MAP)
			note_map(s);
	}
	shard_run(s);
	return 0;
}

int cfs_shard_propose_map(struct cfs_shard *s, const void *map, size_t len)
{
	int rc;

	if (!s->leader)
		return -ENOTCONN;
	if (len < sizeof(struct cfs_map_rep) || len > CFS_BODY_MAX)
		return -EINVAL;
	rc = op_internal(s, CFS_LOG_MAP, 0, map, (uint32_t)len);
	shard_run(s);
	return rc;
}

/* ---- timer ----------------------------------------------------------------------------------------- */
static void sweep_dead(struct cfs_shard *s)
{
	uint64_t real_ns = cfs_clock_real_ns(s->p.clock), grace_ns = s->p.grace_dead_ms * CFS_NSEC_PER_MSEC, before_ns;
	uint64_t every_ms = SHARD_DEAD_EVERY_MS;
	struct cfs_time before = { .pad = 0 };
	int n;

	if (!s->p.delete_objects || s->now_ns < s->dead_next_ns)
		return;
	shard_space(s);
	if (shard_space_tight(s)) {
		grace_ns = 0;
		every_ms = SHARD_DEAD_TIGHT_MS;
	}
	before_ns = real_ns > grace_ns ? real_ns - grace_ns : 0;
	before.sec = cfs_cpu_to_le64(before_ns / CFS_NSEC_PER_SEC);
	before.nsec = cfs_cpu_to_le32((uint32_t)(before_ns % CFS_NSEC_PER_SEC));
	n = cfs_meta_dead(s->p.meta, &before, s->dead, SHARD_DEAD_BATCH);
	s->dead_full = n == SHARD_DEAD_BATCH;
	/* if it is not reported done (targets were down) they are found again: deleting twice does no harm */
	s->dead_next_ns = s->now_ns + (n > 0 ? SHARD_DEAD_RETRY_MS : every_ms) * CFS_NSEC_PER_MSEC;
	if (n > 0)
		s->p.delete_objects(s->p.arg, s->dead, (unsigned)n);
	else if (n < 0)
		cfs_err("shard %u: dead objects cannot be read: %s", s->p.shard, strerror(-n));
}

bool cfs_shard_room_coming(struct cfs_shard *s)
{
	uint64_t soon_ns;

	if (!s->p.delete_objects || !cfs_meta_dying(s->p.meta))
		return false;
	s->now_ns = s->wanted_ns = cfs_clock_boot_ns(s->p.clock);
	/* the next round, if none is under way: that one is given longer */
	soon_ns = s->now_ns + SHARD_DEAD_EVERY_MS * CFS_NSEC_PER_MSEC;
	if (s->dead_next_ns <= soon_ns)
		s->dead_next_ns = cfs_min(s->dead_next_ns, s->now_ns);
	return true;
}

void cfs_shard_dead_done(struct cfs_shard *s, const uint64_t *keys, unsigned n)
{
	cfs_le64 body[256];
	unsigned i, k;

	if (!s->leader || !s->ready)
		return;
	s->now_ns = cfs_clock_boot_ns(s->p.clock);
	for (i = 0; i < n; i += k) {
		for (k = 0; k < CFS_ARRAY_SIZE(body) && i + k < n; k++)
			body[k] = cfs_cpu_to_le64(keys[i + k]);
		if (op_internal(s, CFS_LOG_DEAD_DONE, 0, body, k * sizeof(body[0])))
			break; /* no memory: they are found again */
	}
	shard_run(s);
}

static void tick(struct cfs_timer *timer)
{
	struct cfs_shard *s = cfs_container_of(timer, struct cfs_shard, tick);

	s->now_ns = cfs_clock_boot_ns(s->p.clock);
	cfs_timer_set(s->p.clock, &s->tick, s->now_ns + s->tick_ns);
	cfs_leases_sweep(&s->leases, s->now_ns);
	if (s->ready) {
		sess_sweep(s);
		sweep_dead(s);
		if (!s->purge_busy && cfs_meta_purge_pending(s->p.meta))
			s->purge_busy = op_internal(s, CFS_LOG_PURGE, 0, NULL, 0) == 0;
	}
	shard_run(s);
}

/* ---- connections ------------------------------------------------------------------------------------- */
static struct shard_conn *conn_find(struct cfs_shard *s, const struct cfs_conn *conn)
{
	struct cfs_hnode *n;

	for (n = cfs_htable_chain(&s->conns, cfs_hash_u64((uintptr_t)conn)); n; n = n->next) {
		struct shard_conn *c = cfs_container_of(n, struct shard_conn, node);

		if (c->conn == conn)
			return c;
	}
	return NULL;
}

void cfs_shard_conn_open(struct cfs_shard *s, struct cfs_conn *conn, uint64_t session, uint32_t role)
{
	struct shard_conn *c = calloc(1, sizeof(*c));
	struct shard_sess *sess;

	CFS_ASSERT(!conn_find(s, conn));
	if (!c) {
		cfs_conn_close(conn); /* no memory: the client will try again */
		return;
	}
	s->now_ns = cfs_clock_boot_ns(s->p.clock);
	c->conn = conn;
	c->session = session;
	c->role = role;
	cfs_list_init(&c->ops);
	cfs_list_init(&c->sess_link);
	cfs_list_add_tail(&s->conn_list, &c->link);
	cfs_htable_add(&s->conns, &c->node, cfs_hash_u64((uintptr_t)conn));
	sess = session ? sess_find(s, session) : NULL;
	if (sess)
		sess_bind(s, sess, c);
}

void cfs_shard_conn_close(struct cfs_shard *s, struct cfs_conn *conn)
{
	struct shard_conn *c = conn_find(s, conn);

	if (!c)
		return;
	s->now_ns = cfs_clock_boot_ns(s->p.clock);
	while (!cfs_list_empty(&c->ops)) {
		struct shard_op *op = cfs_list_first(&c->ops, struct shard_op, conn_link);

		cfs_list_del(&op->conn_link);
		op->conn = NULL;
		if (!op->mutates)
			op_free(s, op); /* a read is asked again, a mutation is kept by its slot */
	}
	sess_unbind(c);
	cfs_list_del(&c->link);
	cfs_htable_del(&s->conns, &c->node);
	free(c);
	shard_run(s);
}

/* ---- messages ------------------------------------------------------------------------------------------ */
static bool is_lock_cancel(const struct cfs_msg *msg)
{
	return cfs_le16_to_cpu(msg->hdr.opcode) == CFS_OP_LOCK &&
	       cfs_le32_to_cpu(msg->hdr.body_len) == sizeof(struct cfs_lock_req) &&
	       ((const struct cfs_lock_req *)msg->body)->kind == CFS_LOCK_CANCEL;
}

/* the session a request speaks for: that of its connection. NULL: it has none, or it is ending */
static struct shard_sess *msg_session(struct cfs_shard *s, struct shard_conn *c, const struct cfs_msg *msg)
{
	uint64_t id = cfs_le64_to_cpu(msg->hdr.session);
	struct shard_sess *sess;

	if (!c->sess && id) {
		sess = sess_find(s, id);
		if (sess)
			sess_bind(s, sess, c);
	}
	return c->sess && c->sess->id == id && !c->sess->fencing ? c->sess : NULL;
}

static void request(struct cfs_shard *s, struct shard_conn *c, struct cfs_msg *msg)
{
	uint16_t opcode = cfs_le16_to_cpu(msg->hdr.opcode);
	uint32_t status = 0;

	if (!s->leader)
		status = CFS_E_NOTLEADER;
	else if (!s->ready)
		status = CFS_E_GRACE;
	else if (opcode != CFS_OP_SESSION_OPEN && !msg_session(s, c, msg))
		status = CFS_E_BADSESSION;
	else if (s->grace && opcode > CFS_OP_LEASE_RETURN)
		status = CFS_E_GRACE;
	if (status) {
		shard_reply_hdr(s, c, &msg->hdr, status, NULL, 0);
		return;
	}
	s->st.requests++;
	switch (opcode) {
	case CFS_OP_HEARTBEAT:
		sess_heartbeat(s, c, msg);
		return;
	case CFS_OP_RECLAIM:
		sess_reclaim(s, c, msg);
		return;
	case CFS_OP_LEASE_RETURN:
		sess_lease_return(s, c, msg);
		return;
	case CFS_OP_LOCK:
		if (is_lock_cancel(msg)) {
			lock_cancel(s, c, msg);
			return;
		}
		break;
	}
	if (cfs_op_mutates(opcode))
		op_mutation(s, c, msg);
	else if (opcode >= CFS_OP_LOOKUP && opcode <= CFS_OP_GETLK)
		read_op(s, c, msg);
	else
		shard_reply_hdr(s, c, &msg->hdr, CFS_E_PROTO, NULL, 0);
}

void cfs_shard_msg(struct cfs_shard *s, struct cfs_conn *conn, struct cfs_msg *msg)
{
	struct shard_conn *c = conn_find(s, conn);

	if (!c)
		return; /* no memory at its opening: it is closing */
	s->now_ns = cfs_clock_boot_ns(s->p.clock);
	if (!(msg->hdr.flags & CFS_MSG_REPLY))
		request(s, c, msg);
	else if (s->leader && c->sess)
		break_answer(s, c, msg);
	shard_run(s);
}

/* ---- life ------------------------------------------------------------------------------------------------ */
int cfs_shard_create(const struct cfs_shard_params *p, struct cfs_shard **ret_shard)
{
	struct cfs_shard *s = calloc(1, sizeof(*s));
	struct cfs_htable *tables[6];
	int rc = -ENOMEM;

	if (!s)
		return -ENOMEM;
	CFS_ASSERT(p->lease_ms && p->clock && p->meta && p->log_ops->version == CFS_LOG_OPS_VERSION);
	s->p = *p;
	s->lease_ns = p->lease_ms * CFS_NSEC_PER_MSEC;
	s->tick_ns = cfs_min(s->lease_ns / 32, 250 * CFS_NSEC_PER_MSEC);
	s->tick.fn = tick;
	cfs_list_init(&s->conn_list);
	cfs_list_init(&s->sess_list);
	cfs_list_init(&s->run);
	cfs_list_init(&s->ready_q);
	cfs_slab_init(&s->op_pool, sizeof(struct shard_op));
	cfs_slab_init(&s->key_pool, sizeof(struct shard_key));
	cfs_list_init(&s->leases.storms);
	s->batch_len = sizeof(struct cfs_log_hdr);
	tables[0] = &s->conns;
	tables[1] = &s->sessions;
	tables[2] = &s->keys;
	tables[3] = &s->brks;
	tables[4] = &s->openqs;
	tables[5] = &s->lockqs;
	for (unsigned i = 0; i < CFS_ARRAY_SIZE(tables); i++) {
		if (cfs_htable_init(tables[i], TABLE_BUCKETS))
			goto fail;
	}
	s->batch_buf = malloc(CFS_LOG_ENTRY_MAX);
	s->out = aligned_alloc(8, CFS_BODY_MAX);
	s->cb_out = aligned_alloc(8, CFS_BODY_MAX);
	if (!s->batch_buf || !s->out || !s->cb_out)
		goto fail;
	rc = cfs_leases_init(&s->leases, CFS_LEASES_MAX);
	if (rc)
		goto fail;
	*ret_shard = s;
	return 0;
fail:
	cfs_shard_destroy(s);
	return rc;
}

void cfs_shard_destroy(struct cfs_shard *s)
{
	if (!s)
		return;
	if (s->leader)
		cfs_shard_lost_leadership(s);
	while (!cfs_list_empty(&s->conn_list))
		cfs_shard_conn_close(s, cfs_list_first(&s->conn_list, struct shard_conn, link)->conn);
	if (s->leases.objs.buckets)
		cfs_leases_free(&s->leases);
	cfs_htable_free(&s->conns);
	cfs_htable_free(&s->sessions);
	cfs_htable_free(&s->keys);
	cfs_htable_free(&s->brks);
	cfs_htable_free(&s->openqs);
	cfs_htable_free(&s->lockqs);
	cfs_slab_free(&s->op_pool);
	cfs_slab_free(&s->key_pool);
	free(s->batch_buf);
	free(s->out);
	free(s->cb_out);
	free(s);
}
