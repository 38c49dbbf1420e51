/* SPDX-License-Identifier: MIT */
/*
 * shard_break.c - recalls (CB_BREAK) and questions (CB_ASK) to the sessions that hold something.
 *
 * A recall belongs to the session that must answer it (until it does, or ends) and to the request that
 * waits for it (which may go away first). It is sent on the session's CALLBACK connection, and
 * again on the next one if that breaks, with the same tag.
 */
#include "server/meta/shard_i.h"

static struct shard_brk *brk_new(struct cfs_shard *s, struct shard_op *op, struct shard_sess *to)
{
	struct shard_brk *b = s->brks.n < SHARD_BRKS_MAX ? calloc(1, sizeof(*b)) : NULL;

	if (!b)
		return NULL;
	b->sess = to;
	b->op = op;
	b->tag = ++s->next_tag;
	b->sent_ns = s->now_ns;
	b->stale_ns = s->now_ns + s->lease_ns / 2;
	cfs_htable_add(&s->brks, &b->node, cfs_hash_u64(b->tag));
	cfs_list_add_tail(&to->brks, &b->sess_link);
	cfs_list_add_tail(&op->brks, &b->op_link);
	op->pending++;
	return b;
}

static void brk_free(struct cfs_shard *s, struct shard_brk *b)
{
	if (b->data) {
		b->sess->data_breaks--;
		s->data_breaks--;
	}
	cfs_htable_del(&s->brks, &b->node);
	cfs_list_del(&b->sess_link);
	cfs_list_del(&b->op_link);
	free(b->names);
	free(b);
}

static struct shard_brk *brk_find(struct cfs_shard *s, uint64_t tag)
{
	struct cfs_hnode *n;

	for (n = cfs_htable_chain(&s->brks, cfs_hash_u64(tag)); n; n = n->next) {
		struct shard_brk *b = cfs_container_of(n, struct shard_brk, node);

		if (b->tag == tag)
			return b;
	}
	return NULL;
}

static void brk_send(struct cfs_shard *s, struct shard_brk *b)
{
	struct cfs_break_req req = { .n = cfs_cpu_to_le32(b->n) };
	struct cfs_ask_req ask = { .ino = cfs_cpu_to_le64(b->ask_ino) };
	struct cfs_send msg = { .body = s->cb_out };
	struct cfs_builder body;
	const char *name = b->names;

	if (!b->sess->cb)
		return;
	cfs_builder_init(&body, s->cb_out, CFS_BODY_MAX);
	if (b->ask_ino) {
		cfs_put_struct(&body, &ask);
	} else {
		cfs_put_struct(&body, &req);
		for (unsigned i = 0; i < b->n; i++) {
			unsigned len = cfs_le16_to_cpu(b->items[i].name_len);

			cfs_put_struct(&body, &b->items[i]);
			cfs_put(&body, name, len, "name");
			name += len;
		}
	}
	CFS_ASSERT(!cfs_builder_ok(&body));
	cfs_hdr_init(&msg.hdr, b->ask_ino ? CFS_OP_CB_ASK : CFS_OP_CB_BREAK);
	msg.hdr.tag = cfs_cpu_to_le64(b->tag);
	msg.hdr.session = cfs_cpu_to_le64(b->sess->id);
	msg.hdr.map_epoch = cfs_cpu_to_le64(s->map_epoch);
	msg.body_len = (uint32_t)body.len;
	/* refused (its queue is full, or it is closing): the sweep or the next connection sends it */
	b->sent = cfs_conn_send(b->sess->cb->conn, &msg) == 0;
	if (b->sent && b->ask_ino)
		s->st.asks_sent++;
	else if (b->sent)
		s->st.breaks_sent++;
}

/* all: the connection is new, nothing was sent on it yet */
void break_resend(struct cfs_shard *s, struct shard_sess *sess, bool all)
{
	struct cfs_list *pos;

	cfs_list_for_each(pos, &sess->brks) {
		struct shard_brk *b = cfs_list_entry(pos, struct shard_brk, sess_link);

		if (all || !b->sent)
			brk_send(s, b);
	}
}

/* ---- building ---------------------------------------------------------------------------------- */
/* room for one more item of footprint item `i` to this session, or its present one */
static struct cfs_break_item *item_get(struct cfs_shard *s, struct shard_op *op, struct shard_sess *to, unsigned i,
				       const struct cfs_fp_break *fb, bool fresh)
{
	struct shard_brk *b = to->brk;
	struct cfs_break_item *it;

	if (b && b->cur == i && !fresh)
		return &b->items[b->n - 1];
	if (!b || b->n == CFS_BREAK_MAX) {
		if (b)
			brk_send(s, b);
		b = to->brk = brk_new(s, op, to);
		if (!b)
			return NULL;
	}
	it = &b->items[b->n++];
	b->cur = i;
	it->ino = cfs_cpu_to_le64(fb->ino);
	return it;
}

static int item_name(struct shard_brk *b, struct cfs_break_item *it, const struct cfs_fp_break *fb)
{
	char *names;

	if (it->name_len || !fb->name_len)
		return 0;
	names = realloc(b->names, b->names_len + fb->name_len);
	if (!names)
		return -ENOMEM;
	memcpy(names + b->names_len, fb->name, fb->name_len);
	b->names = names;
	b->names_len += fb->name_len;
	it->name_len = cfs_cpu_to_le16(fb->name_len);
	return 0;
}

static void item_data(struct cfs_shard *s, struct shard_brk *b)
{
	if (b->data)
		return;
	b->data = true;
	b->sess->data_breaks++;
	s->data_breaks++;
	/* what it has under way may be that flush, stuck behind requests that wait for it */
	for (struct cfs_list *pos = b->sess->ops.next; pos != &b->sess->ops; pos = pos->next) {
		struct shard_op *op = cfs_list_entry(pos, struct shard_op, sess_link);

		if (op->opcode == CFS_OP_COMMIT && op->state == OP_KEYS)
			op_wake(s, op);
	}
}

/* one more thing that the holder of `l` must forget */
static int item_add(struct cfs_shard *s, struct shard_op *op, unsigned i, const struct cfs_fp_break *fb,
		    struct cfs_lease *l, uint32_t flags)
{
	struct shard_sess *to = cfs_container_of(l->owner, struct shard_sess, leases);
	uint64_t dir = fb->dir;
	struct cfs_break_item *it;

	if ((flags & (CFS_BRK_NAME | CFS_BRK_DIRATTR | CFS_BRK_ATTR)) && l->obj->dir &&
	    cfs_lease_storm(l->obj, s->now_ns)) {
		flags = CFS_BRK_DIR; /* it forgets all of it, and will not be asked again */
		dir = l->obj->ino;
	}
	it = item_get(s, op, to, i, fb, false);
	if (it && it->flags && cfs_le64_to_cpu(it->dir) != dir && (flags & CFS_BRK_DIR))
		it = item_get(s, op, to, i, fb, true);
	if (!it)
		return -ENOMEM;
	if (!it->flags || (flags & CFS_BRK_DIR))
		it->dir = cfs_cpu_to_le64(dir);
	if (flags & CFS_BRK_DIR) {
		if (cfs_le32_to_cpu(it->flags) & CFS_BRK_DIR)
			return 0;
		cfs_lease_break_begin(l, CFS_LEASE_NONE);
	}
	if (flags & CFS_BRK_DATA) {
		cfs_lease_break_begin(l, fb->to_mode);
		it->to_mode = fb->to_mode;
	}
	it->flags = cfs_cpu_to_le32(cfs_le32_to_cpu(it->flags) | flags);
	if ((flags & CFS_BRK_NAME) && item_name(to->brk, it, fb))
		return -ENOMEM;
	/* who holds it exclusively may flush before it answers that it is not open */
	if ((flags & CFS_BRK_DATA) || ((flags & CFS_BRK_UNLINK) && l->mode == CFS_LEASE_EXCL))
		item_data(s, to->brk);
	return 0;
}

/* all holders of an object but the requester */
static int item_add_all(struct cfs_shard *s, struct shard_op *op, unsigned i, const struct cfs_fp_break *fb,
			uint64_t ino, uint32_t flags)
{
	struct cfs_lease_obj *obj = cfs_lease_obj(&s->leases, ino);
	struct cfs_list *pos;
	bool noted = false;
	int rc = 0;

	if (!obj)
		return 0;
	cfs_list_for_each(pos, &obj->holders) {
		struct cfs_lease *l = cfs_list_entry(pos, struct cfs_lease, obj_link);

		if (op->sess && l->owner == &op->sess->leases && !(op->recalled_own && flags == CFS_BRK_ATTR))
			continue;
		if ((flags & CFS_BRK_DATA) && l->mode <= fb->to_mode)
			continue;
		if (!(flags & CFS_BRK_UNLINK) && l->mode == CFS_LEASE_NONE)
			continue;
		if (!noted && !(flags & CFS_BRK_UNLINK)) {
			noted = true;
			cfs_lease_note_break(&s->leases, obj, s->now_ns);
		}
		rc = item_add(s, op, i, fb, l, flags);
		if (rc)
			break;
	}
	return rc;
}

/**
 * break_item() - add what footprint item `i` asks for to the recalls being built for `op`.
 * The session that holds a file exclusively recalls nobody's data or attributes of it: nobody has them.
 */
int break_item(struct cfs_shard *s, struct shard_op *op, unsigned i, const struct cfs_fp_break *fb)
{
	const uint32_t dir_flags = CFS_BRK_NAME | CFS_BRK_DIRATTR | CFS_BRK_DIR;
	struct cfs_lease_obj *obj;
	struct cfs_lease *excl;
	int rc = 0;

	if (fb->flags & dir_flags)
		rc = item_add_all(s, op, i, fb, fb->dir, fb->flags & dir_flags);
	obj = fb->ino ? cfs_lease_obj(&s->leases, fb->ino) : NULL;
	excl = obj ? obj->excl : NULL;
	if (!rc && (fb->flags & CFS_BRK_UNLINK))
		rc = item_add_all(s, op, i, fb, fb->ino, CFS_BRK_UNLINK);
	if (excl && op->sess && excl->owner == &op->sess->leases)
		return rc;
	if (!rc && (fb->flags & CFS_BRK_DATA))
		rc = item_add_all(s, op, i, fb, fb->ino, CFS_BRK_DATA);
	/* of a file that is written through nobody has the attributes */
	if (!rc && (fb->flags & CFS_BRK_ATTR) && !cfs_lease_through(obj, s->now_ns))
		rc = item_add_all(s, op, i, fb, fb->governor, CFS_BRK_ATTR);
	/* who holds it exclusively has its attributes too, whatever governs them */
	if (!rc && (fb->flags & CFS_BRK_ATTR) && excl && fb->governor != fb->ino)
		rc = item_add(s, op, i, fb, excl, CFS_BRK_ATTR);
	return rc;
}

/* send the last message of each session for which break_item() built one */
void break_send_built(struct cfs_shard *s, struct shard_op *op)
{
	struct cfs_list *pos;

	cfs_list_for_each(pos, &op->brks) {
		struct shard_brk *b = cfs_list_entry(pos, struct shard_brk, op_link);

		if (b->sess->brk == b) {
			b->sess->brk = NULL;
			brk_send(s, b);
		}
	}
}

/**
 * break_footprint() - send the recalls of a footprint. op->pending says how many answers are waited for.
 * Return: 0 or -ENOMEM (what was sent before is answered into the void).
 */
int break_footprint(struct cfs_shard *s, struct shard_op *op, const struct cfs_footprint *fp)
{
	int rc = 0;

	for (unsigned i = 0; i < fp->n_breaks && !rc; i++)
		rc = break_item(s, op, i, &fp->breaks[i]);
	break_send_built(s, op);
	return rc;
}

/* ---- answers ----------------------------------------------------------------------------------- */
int op_add_holder(struct shard_op *op, uint64_t session)
{
	for (unsigned i = 0; i < op->n_holders; i++) {
		if (op->holders[i] == session)
			return 0;
	}
	if (op->n_holders == op->cap_holders) {
		unsigned cap = op->cap_holders ? op->cap_holders * 2u : 4u;
		uint64_t *h = cap > UINT16_MAX ? NULL : realloc(op->holders, cap * sizeof(*h));

		if (!h)
			return -ENOMEM;
		op->holders = h;
		op->cap_holders = (uint16_t)cap;
	}
	op->holders[op->n_holders++] = session;
	return 0;
}

static void op_one_answer(struct cfs_shard *s, struct shard_op *op)
{
	CFS_ASSERT(op->pending);
	if (--op->pending == 0)
		op_answered(s, op);
}

/* the holder has done what the item says; `how`: CFS_BRKR_* */
static void item_done(struct cfs_shard *s, struct shard_brk *b, const struct cfs_break_item *it, unsigned how)
{
	uint32_t flags = cfs_le32_to_cpu(it->flags);
	uint64_t ino = cfs_le64_to_cpu(it->ino), dir = cfs_le64_to_cpu(it->dir);
	bool open = how & CFS_BRKR_OPEN;
	struct cfs_lease *l;

	if (flags & CFS_BRK_DIR) {
		l = cfs_lease_get(&s->leases, &b->sess->leases, dir);
		if (l && l->breaking)
			cfs_lease_break_end(&s->leases, l, CFS_LEASE_NONE, false);
	}
	if (flags & (CFS_BRK_DATA | CFS_BRK_UNLINK)) {
		l = cfs_lease_get(&s->leases, &b->sess->leases, ino);
		if (l && (flags & CFS_BRK_DATA) && l->breaking)
			cfs_lease_break_end(&s->leases, l, it->to_mode, open);
		else if (l)
			cfs_lease_lower(&s->leases, l, l->mode, open);
		open_kick(s, ino);
	}
	if (b->op && (flags & CFS_BRK_UNLINK) && ino == b->op->victim && open) {
		/* more than 65534 sessions with the same file open: the others' will be deleted under them */
		if (op_add_holder(b->op, b->sess->id))
			cfs_warn("inode %#llx: session %llu cannot be noted as holding it open",
				 (unsigned long long)ino, (unsigned long long)b->sess->id);
	}
}

/* a reply to CB_BREAK or CB_ASK. One that makes no sense counts as none: its session will be fenced */
void break_answer(struct cfs_shard *s, struct shard_conn *c, const struct cfs_msg *msg)
{
	struct shard_brk *b = brk_find(s, cfs_le64_to_cpu(msg->hdr.tag));
	uint32_t len = cfs_le32_to_cpu(msg->hdr.body_len);
	struct cfs_break_rep rep;
	struct cfs_ask_rep ask;
	struct cfs_cursor cur;
	struct shard_op *op;
	const uint8_t *how;

	if (!b || b->sess != c->sess)
		return; /* answered before, on the connection that broke */
	cfs_cursor_init(&cur, msg->body, len);
	op = b->op;
	if (b->ask_ino) {
		cfs_take_struct(&cur, &ask);
		if (cfs_le16_to_cpu(msg->hdr.opcode) != CFS_OP_CB_ASK || msg->hdr.status || cfs_cursor_end(&cur))
			goto refuse;
		brk_free(s, b);
		if (op) {
			op->pending--;
			ask_answered(s, op, &ask);
		}
		return;
	}
	cfs_take_struct(&cur, &rep);
	how = cfs_take(&cur, b->n, "answers");
	if (cfs_le16_to_cpu(msg->hdr.opcode) != CFS_OP_CB_BREAK || msg->hdr.status || cfs_cursor_end(&cur) ||
	    cfs_le32_to_cpu(rep.n) != b->n)
		goto refuse;
	for (unsigned i = 0; i < b->n; i++)
		item_done(s, b, &b->items[i], how[i]);
	brk_free(s, b);
	if (op)
		op_one_answer(s, op);
	return;
refuse:
	cfs_warn("session %llu, %s: bad answer to a %s: status %u, %u bytes, %s", (unsigned long long)b->sess->id,
		 c->conn->peer, b->ask_ino ? "question" : "recall", cfs_le32_to_cpu(msg->hdr.status), len,
		 cur.err ? cur.err : "does not fit it");
}

/* a session has ended: it holds nothing any more, and nobody waits for it */
void break_drop_session(struct cfs_shard *s, struct shard_sess *sess)
{
	while (!cfs_list_empty(&sess->brks)) {
		struct shard_brk *b = cfs_list_first(&sess->brks, struct shard_brk, sess_link);
		struct shard_op *op = b->op;
		bool ask = b->ask_ino != 0;

		brk_free(s, b);
		if (op && ask) {
			op->pending--;
			ask_answered(s, op, NULL);
		} else if (op) {
			op_one_answer(s, op);
		}
	}
}

/* a request goes away: its recalls stay, because their holders act on them */
void break_drop_op(struct cfs_shard *s, struct shard_op *op)
{
	while (!cfs_list_empty(&op->brks)) {
		struct shard_brk *b = cfs_list_first(&op->brks, struct shard_brk, op_link);

		b->op = NULL;
		cfs_list_del(&b->op_link);
		if (b->ask_ino)
			brk_free(s, b);
	}
	op->pending = 0;
}

/* a COMMIT has come: whoever flushes is alive, for a while */
void break_alive(struct cfs_shard *s, struct shard_sess *sess)
{
	struct cfs_list *pos;

	cfs_list_for_each(pos, &sess->brks) {
		struct shard_brk *b = cfs_list_entry(pos, struct shard_brk, sess_link);

		if (b->data)
			b->stale_ns = cfs_min(s->now_ns + s->lease_ns / 2,
					      b->sent_ns + SHARD_LEASE_LIVES * s->lease_ns);
	}
}

/* CB_ASK; `op` goes on in ask_answered() */
int ask_send(struct cfs_shard *s, struct shard_op *op, struct shard_sess *to, uint64_t ino)
{
	struct shard_brk *b = brk_new(s, op, to);

	if (!b)
		return -ENOMEM;
	b->ask_ino = ino;
	brk_send(s, b);
	return 0;
}
