/* SPDX-License-Identifier: MIT */
/*
 * shard_session.c - sessions as the leader knows them: connections, deadlines, fencing, reclaim.
 *
 * The table mirrors the sessions of the state; it exists on a leader only, from its first applied entry on.
 * Deadlines: a heartbeat that is answered renews every lease of its session. It is not answered while the
 * session owes an answer to a recall for too long: so the deadline of a session that lives but does not
 * let go comes too. Nothing else ends a lease: a session is fenced only after its deadline, when its
 * client has dropped everything by itself.
 */
#include "server/meta/shard_i.h"

#include <sys/stat.h>

struct shard_sess *sess_find(struct cfs_shard *s, uint64_t id)
{
	struct cfs_hnode *n;

	for (n = cfs_htable_chain(&s->sessions, cfs_hash_u64(id)); n; n = n->next) {
		struct shard_sess *sess = cfs_container_of(n, struct shard_sess, node);

		if (sess->id == id)
			return sess;
	}
	return NULL;
}

/* a session of the state; the same again is fine */
int sess_add(struct cfs_shard *s, uint64_t id, uint32_t slots, const char *name, size_t name_len,
	     struct shard_sess **ret_sess)
{
	struct shard_sess *sess = sess_find(s, id);

	if (sess) {
		*ret_sess = sess;
		return 0;
	}
	CFS_ASSERT(slots <= CFS_SLOTS_MAX);
	sess = calloc(1, sizeof(*sess) + slots * sizeof(sess->slots[0]));
	if (!sess)
		return -ENOMEM;
	sess->name = strndup(name, name_len);
	if (!sess->name) {
		free(sess);
		return -ENOMEM;
	}
	sess->id = id;
	sess->n_slots = slots;
	sess->deadline_ns = s->now_ns + s->lease_ns;
	cfs_list_init(&sess->conns);
	cfs_list_init(&sess->ops);
	cfs_list_init(&sess->brks);
	cfs_lease_owner_init(&sess->leases);
	cfs_htable_add(&s->sessions, &sess->node, cfs_hash_u64(id));
	cfs_list_add_tail(&s->sess_list, &sess->link);
	*ret_sess = sess;
	return 0;
}

void sess_bind(struct cfs_shard *s, struct shard_sess *sess, struct shard_conn *c)
{
	CFS_ASSERT(!c->sess);
	c->sess = sess;
	c->session = sess->id;
	cfs_list_add_tail(&sess->conns, &c->sess_link);
	sess->n_conns++;
	if (c->role == CFS_ROLE_CALLBACK) {
		sess->cb = c;
		break_resend(s, sess, true);
	}
}

void sess_unbind(struct shard_conn *c)
{
	if (!c->sess)
		return;
	if (c->sess->cb == c)
		c->sess->cb = NULL;
	cfs_list_del(&c->sess_link);
	c->sess->n_conns--;
	c->sess = NULL;
}

/* requests that are in the log keep going, without a session to remember them */
static void sess_drop_ops(struct cfs_shard *s, struct shard_sess *sess, uint32_t status)
{
	while (!cfs_list_empty(&sess->ops)) {
		struct shard_op *op = cfs_list_first(&sess->ops, struct shard_op, sess_link);

		if (op->state == OP_LOG || op->state == OP_READY) {
			cfs_list_del(&op->sess_link);
			op->sess = NULL;
			continue;
		}
		op_abort(s, op, status);
	}
}

static void sess_free(struct cfs_shard *s, struct shard_sess *sess)
{
	while (!cfs_list_empty(&sess->conns))
		sess_unbind(cfs_list_first(&sess->conns, struct shard_conn, sess_link));
	cfs_lease_drop_owner(&s->leases, &sess->leases);
	cfs_htable_del(&s->sessions, &sess->node);
	cfs_list_del(&sess->link);
	free(sess->name);
	free(sess);
}

/* it is closed in the log, and that is applied */
void sess_drop(struct cfs_shard *s, struct shard_sess *sess)
{
	struct cfs_list *pos;

	sess_drop_ops(s, sess, CFS_E_BADSESSION);
	break_drop_session(s, sess);
	cfs_list_for_each(pos, &sess->leases.leases)
		open_kick(s, cfs_list_entry(pos, struct cfs_lease, owner_link)->obj->ino);
	sess_free(s, sess);
	lock_recheck(s, 0);
	sess_end_grace_if_complete(s);
}

static int load_one(void *arg, uint64_t id, uint32_t slots, const char *name)
{
	struct shard_sess *sess;
	struct cfs_shard *s = arg;

	return sess_add(s, id, slots, name, strlen(name), &sess);
}

/* all sessions of the state, each with a full lease time from now on */
int sess_load_all(struct cfs_shard *s)
{
	struct cfs_list *pos;
	int rc;

	rc = cfs_meta_sessions(s->p.meta, load_one, s);
	if (rc)
		return rc;
	cfs_list_for_each(pos, &s->conn_list) {
		struct shard_conn *c = cfs_list_entry(pos, struct shard_conn, link);
		struct shard_sess *sess = c->session ? sess_find(s, c->session) : NULL;

		if (sess && !c->sess)
			sess_bind(s, sess, c);
	}
	return 0;
}

/* not the leader any more: nothing here says anything now */
void sess_drop_all(struct cfs_shard *s)
{
	struct cfs_list *pos;

	/* first all requests, so that nobody is woken by what happens to somebody else's session */
	cfs_list_for_each(pos, &s->sess_list)
		sess_drop_ops(s, cfs_list_entry(pos, struct shard_sess, link), CFS_E_NOTLEADER);
	while (!cfs_list_empty(&s->sess_list)) {
		struct shard_sess *sess = cfs_list_first(&s->sess_list, struct shard_sess, link);

		break_drop_session(s, sess);
		sess_free(s, sess);
	}
}

/* ---- deadlines --------------------------------------------------------------------------------- */
/* does it owe an answer that somebody has been waiting for too long? */
static bool overdue(const struct cfs_shard *s, const struct shard_sess *sess)
{
	struct cfs_list *pos;

	cfs_list_for_each(pos, &sess->brks) {
		struct shard_brk *b = cfs_list_entry(pos, struct shard_brk, sess_link);

		if (b->op && s->now_ns > b->stale_ns)
			return true;
	}
	return false;
}

static bool waited_for(const struct shard_sess *sess)
{
	struct cfs_list *pos;

	cfs_list_for_each(pos, &sess->brks) {
		if (cfs_list_entry(pos, struct shard_brk, sess_link)->op)
			return true;
	}
	return false;
}

void sess_heartbeat(struct cfs_shard *s, struct shard_conn *c, const struct cfs_msg *msg)
{
	struct cfs_heartbeat_rep rep = {
		.leader_epoch = cfs_cpu_to_le64(s->epoch),
		.map_epoch = cfs_cpu_to_le64(s->map_epoch),
	};

	if (overdue(s, c->sess))
		return; /* silence: its deadline stands */
	c->sess->deadline_ns = s->now_ns + s->lease_ns;
	c->sess->lock_refused = false;
	shard_reply_hdr(s, c, &msg->hdr, 0, &rep, sizeof(rep));
}

static void fence(struct cfs_shard *s, struct shard_sess *sess, const char *why)
{
	if (op_internal(s, CFS_LOG_FENCE, sess->id, NULL, 0))
		return; /* no memory: the next sweep tries again */
	sess->fencing = true;
	s->st.fenced++;
	cfs_warn("session %llu (%s): fenced: its lease ended %llu ms ago and it %s", (unsigned long long)sess->id,
		 sess->name, (unsigned long long)((s->now_ns - sess->deadline_ns) / CFS_NSEC_PER_MSEC),
		 why);
}

void sess_sweep(struct cfs_shard *s)
{
	/* clocks may run differently fast: 1 in 50 is more than any working one */
	uint64_t drift_ns = s->lease_ns / 50;
	struct cfs_list *pos;

	cfs_list_for_each(pos, &s->sess_list) {
		struct shard_sess *sess = cfs_list_entry(pos, struct shard_sess, link);
		const char *why = NULL;

		if (sess->fencing)
			continue;
		break_resend(s, sess, false);
		if (s->now_ns < sess->deadline_ns + drift_ns)
			continue;
		if (waited_for(sess))
			why = "did not answer a recall";
		else if (sess->lock_refused || lock_awaited(s, sess))
			why = "holds locks that others want";
		else if (s->now_ns >= sess->deadline_ns + SHARD_LEASE_LIVES * s->lease_ns)
			why = "has not been heard of";
		if (why)
			fence(s, sess, why);
	}
	if (s->grace && s->now_ns >= s->grace_end_ns) {
		cfs_info("shard %u: grace ends: not every session has come back", s->p.shard);
		s->grace = false;
	}
}

void sess_end_grace_if_complete(struct cfs_shard *s)
{
	struct cfs_list *pos;

	if (!s->grace || !s->ready)
		return;
	cfs_list_for_each(pos, &s->sess_list) {
		if (!cfs_list_entry(pos, struct shard_sess, link)->reclaimed)
			return;
	}
	s->grace = false;
}

/* ---- lists of leases --------------------------------------------------------------------------- */
/* one claim: what of it is granted. Not in grace: only what it holds anyway */
static unsigned reclaim(struct cfs_shard *s, struct shard_sess *sess, uint64_t ino, unsigned mode, bool open)
{
	struct cfs_lease *l = cfs_lease_get(&s->leases, &sess->leases, ino);
	struct cfs_lease_obj *obj = cfs_lease_obj(&s->leases, ino);
	struct cfs_attr attr;
	struct cfs_list *pos;
	bool dir;

	if (cfs_meta_getattr(s->p.meta, ino, &attr))
		return CFS_LEASE_NONE;
	dir = S_ISDIR(cfs_le32_to_cpu(attr.mode));
	if (dir && mode > CFS_LEASE_SHARED)
		mode = CFS_LEASE_SHARED;
	if (!s->grace)
		mode = cfs_min(mode, cfs_lease_mode(l));
	if (obj && obj->excl && obj->excl != l)
		mode = CFS_LEASE_NONE;
	if (obj && mode == CFS_LEASE_EXCL) {
		cfs_list_for_each(pos, &obj->holders) {
			struct cfs_lease *other = cfs_list_entry(pos, struct cfs_lease, obj_link);

			if (other != l && other->mode)
				mode = CFS_LEASE_NONE;
		}
	}
	if (!mode && !open)
		return CFS_LEASE_NONE;
	return cfs_lease_grant(&s->leases, &sess->leases, ino, dir, mode, open) ? mode : CFS_LEASE_NONE;
}

/* the list of a RECLAIM or LEASE_RETURN; NULL: refused, and answered */
static const void *take_list(struct cfs_shard *s, struct shard_conn *c, const struct cfs_msg *msg,
			     struct cfs_lease_list *ret_list, uint32_t *ret_n)
{
	const void *items = NULL;
	struct cfs_cursor cur;

	cfs_cursor_init(&cur, msg->body, cfs_le32_to_cpu(msg->hdr.body_len));
	if (cfs_take_copy(&cur, ret_list, sizeof(*ret_list), "header")) {
		*ret_n = cfs_le32_to_cpu(ret_list->n);
		if (*ret_n > CFS_LEASE_LIST_MAX)
			cfs_cursor_fail(&cur, "number of leases");
		items = cfs_take_array(&cur, *ret_n, sizeof(struct cfs_lease_item), "leases");
	}
	if (!cfs_cursor_end(&cur))
		return items;
	cfs_warn("session %llu, %s: bad list of leases: %s", (unsigned long long)c->sess->id, c->conn->peer, cur.err);
	shard_reply_hdr(s, c, &msg->hdr, CFS_E_PROTO, NULL, 0);
	return NULL;
}

void sess_reclaim(struct cfs_shard *s, struct shard_conn *c, const struct cfs_msg *msg)
{
	struct cfs_lease_item item;
	struct cfs_lease_list list;
	struct cfs_builder body;
	const void *items;
	uint32_t n;

	items = take_list(s, c, msg, &list, &n);
	if (!items)
		return;
	cfs_builder_init(&body, s->out, CFS_BODY_MAX);
	cfs_put_struct(&body, &list);
	for (uint32_t i = 0; i < n; i++) {
		cfs_copy_elem(&item, items, i);
		item.mode = (uint8_t)reclaim(s, c->sess, cfs_le64_to_cpu(item.ino),
					     cfs_min(item.mode, (uint8_t)CFS_LEASE_EXCL), item.open != 0);
		cfs_put_struct(&body, &item);
	}
	CFS_ASSERT(!cfs_builder_ok(&body));
	if (cfs_le32_to_cpu(list.flags) & CFS_RECLAIM_LAST)
		c->sess->reclaimed = true;
	shard_reply_hdr(s, c, &msg->hdr, 0, s->out, (uint32_t)body.len);
	sess_end_grace_if_complete(s);
}

void sess_lease_return(struct cfs_shard *s, struct shard_conn *c, const struct cfs_msg *msg)
{
	struct cfs_lease_item item;
	struct cfs_lease_list list;
	struct cfs_lease *l;
	const void *items;
	uint32_t n;

	items = take_list(s, c, msg, &list, &n);
	if (!items)
		return;
	for (uint32_t i = 0; i < n; i++) {
		cfs_copy_elem(&item, items, i);
		l = cfs_lease_get(&s->leases, &c->sess->leases, cfs_le64_to_cpu(item.ino));
		if (!l)
			continue;
		cfs_lease_lower(&s->leases, l, item.mode, item.open != 0);
		open_kick(s, cfs_le64_to_cpu(item.ino));
	}
	shard_reply_hdr(s, c, &msg->hdr, 0, NULL, 0);
}
