/* SPDX-License-Identifier: MIT */
/*
 * shard_op.c - the way of a mutating request: replay, footprint and keys, recalls, log, reply.
 * The numbers are those of docs/leases.md, "A mutation, step by step".
 */
#include "server/meta/shard_i.h"

#include <errno.h>

/* the applied reply of a slot, once more; leases are reported as they are now */
static void replay(struct cfs_shard *s, struct shard_conn *c, const struct cfs_msg *msg, uint32_t status, uint32_t len)
{
	/* only as a reader of the request: it enters no list but its connection's */
	struct shard_op *op = op_new(s, NULL, &msg->hdr, msg->body);

	s->st.replays++;
	if (op) {
		op->sess = c->sess;
		grant_reply(s, op, true, status, s->out, len);
		op->sess = NULL;
		op_free(s, op);
	}
	shard_reply_hdr(s, c, &msg->hdr, status, s->out, len);
}

/* step 1. Is this request new? If not it has been answered, or will be */
static bool slot_begin(struct cfs_shard *s, struct shard_conn *c, const struct cfs_msg *msg)
{
	uint32_t i = cfs_le32_to_cpu(msg->hdr.slot), status, len = 0;
	uint64_t seq = cfs_le64_to_cpu(msg->hdr.seq);
	struct shard_slot *slot;
	int rc;

	if (i >= c->sess->n_slots || !seq) {
		shard_reply_hdr(s, c, &msg->hdr, CFS_E_BADSEQ, NULL, 0);
		return false;
	}
	slot = &c->sess->slots[i];
	if (slot->op && slot->op->hdr.seq == msg->hdr.seq) {
		/* the connection it came on first is gone, or will be: answer here */
		cfs_list_del(&slot->op->conn_link);
		cfs_list_add_tail(&c->ops, &slot->op->conn_link);
		slot->op->conn = c;
		slot->op->hdr.tag = msg->hdr.tag;
		s->st.replays++;
		return false;
	}
	if (!slot->op && slot->seq && seq == slot->seq + 1)
		return true;
	rc = slot->op ? -EILSEQ : cfs_meta_slot(s->p.meta, c->sess->id, i, seq, &status, s->out, &len);
	if (rc == -EAGAIN)
		return true;
	if (rc == 0)
		replay(s, c, msg, status, len);
	else
		shard_reply_hdr(s, c, &msg->hdr,
				rc == -EILSEQ ? CFS_E_BADSEQ : rc == -ESTALE ? CFS_E_BADSESSION : EIO, NULL, 0);
	return false;
}

void op_mutation(struct cfs_shard *s, struct shard_conn *c, struct cfs_msg *msg)
{
	uint16_t opcode = cfs_le16_to_cpu(msg->hdr.opcode);
	bool slotted = opcode != CFS_OP_SESSION_OPEN && opcode != CFS_OP_SESSION_CLOSE;
	struct shard_op *op;

	if (slotted && !slot_begin(s, c, msg))
		return;
	op = op_new(s, c, &msg->hdr, msg->body);
	if (!op)
		return;
	op->mutates = true;
	if (slotted) {
		op->slot = cfs_le32_to_cpu(op->hdr.slot);
		c->sess->slots[op->slot].op = op;
	} else {
		op->hdr.slot = cfs_cpu_to_le32(CFS_SLOT_NONE);
	}
	if (opcode == CFS_OP_COMMIT)
		break_alive(s, c->sess);
	op_start(s, op);
}

/* does the requester itself keep the victim of an UNLINK or RENAME open? */
static bool keeps_victim(struct cfs_shard *s, const struct shard_op *op)
{
	struct cfs_unlink_req un = { .dir = 0 };
	struct cfs_rename_req re = { .old_dir = 0 };
	struct cfs_cursor cur;
	uint64_t hint;
	bool open;

	cfs_cursor_init(&cur, op->body, op->len);
	if (op->opcode == CFS_OP_UNLINK) {
		cfs_take_struct(&cur, &un);
		hint = cfs_le64_to_cpu(un.hint_ino);
		open = un.hint_open;
	} else {
		cfs_take_struct(&cur, &re);
		hint = cfs_le64_to_cpu(re.hint_ino);
		open = re.hint_open;
	}
	if (hint == op->victim || op->victim_dir)
		return hint == op->victim && open;
	/* it speaks of another inode, or does not know: a lease may stand for an open file */
	return cfs_lease_get(&s->leases, &op->sess->leases, op->victim) != NULL;
}

/* COMMIT: does it bring data? Size and times alone take no space */
static bool brings_data(const struct shard_op *op)
{
	struct cfs_commit_item item;
	struct cfs_commit_req req;
	struct cfs_cursor cur;
	uint32_t n;

	cfs_cursor_init(&cur, op->body, op->len);
	cfs_take_struct(&cur, &req);
	n = cfs_le32_to_cpu(req.n);
	for (uint32_t i = 0; i < n && !cur.err; i++) {
		cfs_take_struct(&cur, &item);
		if (item.inline_len || item.n_extents)
			return true;
	}
	return false;
}

static bool sets_xattr(const struct shard_op *op)
{
	struct cfs_setxattr_req req;

	if (op->len < sizeof(req))
		return false;	/* its footprint refuses it */
	memcpy(&req, op->body, sizeof(req));
	return !(cfs_le32_to_cpu(req.flags) & CFS_XATTR_REMOVE);
}

/*
 * Early, so that what frees space still has some. The targets are nearly full: no COMMIT of data, no new inodes. The
 * state itself has no room to grow: nothing that makes it grow.
 */
static bool refused_for_space(struct cfs_shard *s, const struct shard_op *op)
{
	switch (op->opcode) {
	case CFS_OP_MKNODE:
		shard_space(s);
		return shard_space_low(s) || s->state_full;
	case CFS_OP_COMMIT:
		shard_space(s);
		return (shard_space_low(s) || s->state_full) && brings_data(op);
	case CFS_OP_LINK:
	case CFS_OP_COPY:
	case CFS_OP_FALLOCATE:
		shard_space(s);
		return s->state_full;
	case CFS_OP_SETXATTR:
		shard_space(s);
		return s->state_full && sets_xattr(op);
	default:
		return false;
	}
}

/* what has been removed comes back in a moment: the request is to come again. For a while: then it is refused, for another while */
static bool held_for_room(struct cfs_shard *s)
{
	if (s->state_full || !cfs_shard_room_coming(s)) {
		s->held = (struct cfs_patience){ 0 };
		return false;
	}
	return cfs_patience(&s->held, s->now_ns, SHARD_ROOM_WAIT_MS * CFS_NSEC_PER_MSEC);
}

/*
 * A COMMIT by who writes through goes with others of its kind, so that many sessions' are in one batch: what it does depends on no
 * other state of the inode than what it is applied to. One by the exclusive holder is alone with the inode: nobody else may be there.
 */
static void share_key(struct cfs_shard *s, const struct shard_op *op, struct cfs_footprint *fp)
{
	const struct cfs_lease *l;

	if (op->opcode != CFS_OP_COMMIT || fp->n_keys != 1)
		return;
	l = cfs_lease_get(&s->leases, &op->sess->leases, fp->keys[0].ino);
	fp->keys[0].exclusive = l && l->mode == CFS_LEASE_EXCL;
}

/* step 2: from the beginning, or again after it waited for a key */
void op_start(struct cfs_shard *s, struct shard_op *op)
{
	uint32_t status;
	int rc;

	op->answered = false;
	op->n_holders = 0;
	if (op->opcode == CFS_OP_LOCK) {
		lock_start(s, op);
		return;
	}
	if (!op->sess || op->opcode == CFS_OP_SESSION_OPEN || op->opcode == CFS_OP_SESSION_CLOSE) {
		op_log(s, op);
		return;
	}
	if (refused_for_space(s, op)) {
		if (held_for_room(s))
			op_abort(s, op, CFS_E_GRACE);
		else
			op_fail(s, op, ENOSPC);
		return;
	}
	status = cfs_meta_footprint(s->p.meta, op->opcode, op->body, op->len, &s->fp);
	if (status) {
		op_fail(s, op, status);
		return;
	}
	share_key(s, op, &s->fp);
	rc = keys_acquire(s, op, s->fp.keys, s->fp.n_keys);
	if (rc == -EAGAIN)
		return;
	op->state = OP_BREAK;
	op->victim = s->fp.victim;
	op->victim_dir = s->fp.victim_dir;
	if (!rc && op->victim && keeps_victim(s, op))
		rc = op_add_holder(op, op->sess->id);
	if (!rc && s->fp.n_breaks)
		rc = break_footprint(s, op, &s->fp); /* step 3 */
	if (rc)
		op_abort(s, op, CFS_E_GRACE);
	else if (!op->pending)
		op_log(s, op);
}

void op_answered(struct cfs_shard *s, struct shard_op *op)
{
	op->answered = true;
	op_wake(s, op);
}

/* step 4 */
void op_log(struct cfs_shard *s, struct shard_op *op)
{
	if (cfs_list_empty(&s->ready_q) && batch_add(s, op))
		return;
	op->state = OP_READY;
	cfs_list_add_tail(&s->ready_q, &op->wait_link);
}

/*
 * The leader itself answers a request that has a slot: through the log too, because a slot whose
 * seq was answered but not recorded would refuse the next one after a change of leader.
 */
void op_fail(struct cfs_shard *s, struct shard_op *op, uint32_t status)
{
	cfs_le32 body[2] = { cfs_cpu_to_le32(status), 0 };

	op_unpark(s, op);
	break_drop_op(s, op);
	keys_release(s, op);
	_Static_assert(sizeof(body) <= SHARD_OP_INLINE, "fits");
	op_drop_body(s, op);
	memcpy(op->inl, body, sizeof(body));
	op->body = op->inl;
	op->len = sizeof(body);
	op->n_holders = 0;
	op->status = status;
	op->opcode = CFS_LOG_FAIL;
	op_log(s, op);
}

int op_internal(struct cfs_shard *s, uint16_t opcode, uint64_t session, const void *body, uint32_t len)
{
	struct cfs_msg_hdr hdr = {
		.opcode = cfs_cpu_to_le16(opcode),
		.slot = cfs_cpu_to_le32(CFS_SLOT_NONE),
		.body_len = cfs_cpu_to_le32(len),
	};
	struct shard_op *op = op_new(s, NULL, &hdr, body);

	if (!op)
		return -ENOMEM;
	op->mutates = true;
	op->ino = session;
	op_log(s, op);
	return 0;
}

/* ---- steps 5 and 6 ------------------------------------------------------------------------------- */
static int session_opened(struct cfs_shard *s, struct shard_op *op, const void *body, uint32_t len)
{
	struct cfs_session_open_req req;
	struct cfs_session_open_rep rep;
	struct shard_sess *sess;
	struct cfs_cursor cur;
	const char *name;
	int rc;

	cfs_cursor_init(&cur, op->body, op->len);
	cfs_take_struct(&cur, &req);
	name = cfs_take(&cur, cfs_le32_to_cpu(req.name_len), "name");
	cfs_cursor_init(&cur, body, len);
	cfs_take_struct(&cur, &rep);
	CFS_ASSERT(name && !cur.err);
	rc = sess_add(s, cfs_le64_to_cpu(rep.session), cfs_le32_to_cpu(rep.slots), name,
		      cfs_le32_to_cpu(req.name_len), &sess);
	if (rc)
		return rc;
	sess->reclaimed = true;
	if (op->conn && !op->conn->sess)
		sess_bind(s, sess, op->conn);
	return 0;
}

static void session_closed(struct cfs_shard *s, uint64_t id)
{
	struct shard_sess *sess = sess_find(s, id);

	if (sess)
		sess_drop(s, sess);
}

/* a LOCK that the state still found in conflict takes no slot: it waits once more */
static bool lock_again(struct cfs_shard *s, struct shard_op *op, uint32_t status)
{
	struct cfs_lock_req req;

	if (op->opcode != CFS_OP_LOCK || status != EAGAIN || !op->sess)
		return false;
	CFS_ASSERT(op->len == sizeof(req));
	memcpy(&req, op->body, sizeof(req));
	if (!req.wait)
		return false;
	keys_release(s, op);
	op_wake(s, op);
	return true;
}

int op_applied(struct cfs_shard *s, struct shard_op *op, uint32_t status, const void *body, uint32_t len)
{
	uint16_t opcode = op->opcode;
	uint64_t session, lock_ino = 0;
	int rc = 0;

	CFS_ASSERT(op->state == OP_LOG);
	if (lock_again(s, op, status))
		return 0;
	if (opcode == CFS_OP_LOCK && status == EAGAIN)
		lock_refused(s, op);
	session = opcode == CFS_LOG_FENCE ? op->ino : op->sess ? op->sess->id : 0;
	if (opcode == CFS_LOG_FAIL)
		status = op->status;
	if (opcode == CFS_OP_SESSION_OPEN && !status)
		rc = session_opened(s, op, body, len);
	if (opcode == CFS_OP_LOCK && !status)
		lock_ino = op->ino;
	if (op->sess && op->slot != CFS_SLOT_NONE)
		op->sess->slots[op->slot].seq = cfs_le64_to_cpu(op->hdr.seq);
	if (op->conn || op->sess) {
		CFS_ASSERT(len <= CFS_BODY_MAX);
		if (len)
			memcpy(s->out, body, len);
		grant_reply(s, op, false, status, s->out, len);
		op_reply(s, op, status, s->out, len);
	}
	op_free(s, op);
	if (lock_ino)
		lock_recheck(s, lock_ino);
	switch (opcode) {
	case CFS_OP_SESSION_CLOSE:
	case CFS_LOG_FENCE:
		session_closed(s, session);
		break;
	case CFS_LOG_DEAD_DONE:
		s->dead_next_ns = s->now_ns;
		s->space_ns = 0;	/* there is more than the last look said */
		cfs_patience_moved(&s->held, s->now_ns);
		if (!s->dead_full)
			s->dead_next_ns += (shard_space_tight(s) ? SHARD_DEAD_TIGHT_MS : SHARD_DEAD_EVERY_MS) *
					   CFS_NSEC_PER_MSEC;
		break;
	case CFS_LOG_PURGE:
		s->purge_busy = false;
		break;
	case CFS_LOG_NOOP:
		rc = shard_ready(s);
		break;
	}
	return rc;
}
