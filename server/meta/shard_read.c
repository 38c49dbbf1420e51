/* SPDX-License-Identifier: MIT */
/*
 * shard_read.c - requests that change no state: answered at once from what is applied, but for OPEN,
 * which waits its turn and for recalls, and GETATTR, which asks who holds the file exclusively.
 */
#include "server/meta/shard_i.h"

#include <sys/stat.h>

/* ---- bits of replies that meta built in s->out ---------------------------------------------------- */
static uint32_t patch_lookup(struct cfs_shard *s, struct shard_sess *sess, const struct cfs_msg *msg, uint32_t status,
			     uint32_t len)
{
	struct cfs_entry_rep *rep = (void *)s->out;
	struct cfs_lookup_req req;
	struct cfs_cursor cur;
	const char *name;
	uint32_t name_len, valid = 0;
	uint64_t ino;

	if ((status && status != ENOENT) || len < sizeof(*rep))
		return len;
	cfs_cursor_init(&cur, msg->body, cfs_le32_to_cpu(msg->hdr.body_len));
	cfs_take_struct(&cur, &req);
	name_len = cfs_le32_to_cpu(req.name_len);
	name = cfs_take(&cur, name_len, "name");
	CFS_ASSERT(name); /* meta has looked it up */
	ino = cfs_le64_to_cpu(rep->attr.ino);
	/* "." and ".." are no entries: no recall would ever name them */
	if (!(name[0] == '.' && (name_len == 1 || (name_len == 2 && name[1] == '.'))))
		valid |= grant_name(s, sess, cfs_le64_to_cpu(req.dir), name, name_len, NULL);
	if (ino && rep->inline_len && S_ISREG(cfs_le32_to_cpu(rep->attr.mode)) &&
	    !((cfs_le32_to_cpu(req.flags) & CFS_LOOKUP_DATA) && lease_share(s, sess, ino, NULL))) {
		rep->inline_len = 0;
		len = sizeof(*rep);
	}
	if (ino) {
		valid |= grant_attr(s, sess, &rep->attr, true, NULL);
		rep->lease = cfs_cpu_to_le32(lease_held(s, sess, ino));
	}
	rep->valid = cfs_cpu_to_le32(valid);
	return len;
}

static void patch_readdir(struct cfs_shard *s, struct shard_sess *sess, const struct cfs_msg *msg, uint32_t len)
{
	struct cfs_readdir_rep *rep = (void *)s->out;
	struct cfs_readdir_req req;
	size_t pos = sizeof(*rep);
	uint64_t dir;
	bool held, quiet;

	memcpy(&req, msg->body, sizeof(req));
	dir = cfs_le64_to_cpu(req.dir);
	held = grant_dir(s, sess, dir);
	quiet = !keys_busy(s, dir, 0, NULL); /* who changes names has the directory's key, too */
	if (held && quiet)
		rep->flags |= cfs_cpu_to_le32(CFS_READDIR_KEEP);
	for (uint32_t i = 0, n = cfs_le32_to_cpu(rep->n); i < n; i++) {
		struct cfs_dirent *de = (void *)(s->out + pos);
		struct cfs_attr *attr = NULL;
		unsigned name_len = cfs_le16_to_cpu(de->name_len);

		pos += sizeof(*de);
		if (cfs_le32_to_cpu(req.flags) & CFS_READDIR_PLUS) {
			attr = (void *)(s->out + pos);
			pos += sizeof(*attr);
		}
		CFS_ASSERT(pos + name_len <= len);
		if (held && (quiet || !keys_busy(s, dir, cfs_meta_name_hash(s->p.meta, (char *)s->out + pos, name_len),
						 NULL)))
			de->valid |= CFS_V_ENTRY;
		if (attr)
			de->valid |= (uint8_t)grant_attr(s, sess, attr, false, NULL);
		pos = (size_t)cfs_align_up(pos + name_len, 8);
	}
}

static void patch_getattr(struct cfs_shard *s, struct shard_sess *sess)
{
	struct cfs_attr_rep *rep = (void *)s->out;

	rep->valid = cfs_cpu_to_le32(grant_attr(s, sess, &rep->attr, true, NULL));
	rep->lease = cfs_cpu_to_le32(lease_held(s, sess, cfs_le64_to_cpu(rep->attr.ino)));
}

static void patch_open(struct cfs_shard *s, struct shard_sess *sess)
{
	struct cfs_open_rep *rep = (void *)s->out;

	rep->valid = cfs_cpu_to_le32(grant_attr(s, sess, &rep->attr, false, NULL));
	rep->lease = cfs_cpu_to_le32(lease_held(s, sess, cfs_le64_to_cpu(rep->attr.ino)));
}

static void patch_statfs(struct cfs_shard *s)
{
	struct cfs_statfs_rep *rep = (void *)s->out;

	uint64_t total, free_bytes;

	if (!s->p.space)
		return;
	cfs_shard_space(s, &total, &free_bytes);
	rep->total_bytes = cfs_cpu_to_le64(total);
	rep->free_bytes = cfs_cpu_to_le64(free_bytes);
}

/* ---- GETATTR of what another session holds exclusively ---------------------------------------------- */
static struct shard_sess *foreign_holder(struct cfs_shard *s, const struct shard_sess *sess, uint64_t ino)
{
	struct cfs_lease_obj *obj = cfs_lease_obj(&s->leases, ino);

	if (!obj || !obj->excl || obj->excl->owner == &sess->leases)
		return NULL;
	return cfs_container_of(obj->excl->owner, struct shard_sess, leases);
}

static int ask(struct cfs_shard *s, struct shard_op *op, struct shard_sess *holder)
{
	op->asked = holder->id;
	op->asks++;
	op->state = OP_BREAK;
	return ask_send(s, op, holder, op->ino);
}

static void getattr_finish(struct cfs_shard *s, struct shard_op *op, const struct cfs_ask_rep *merge)
{
	struct cfs_attr_rep *rep = (void *)s->out;
	uint32_t len = 0, status;

	status = cfs_meta_read(s->p.meta, CFS_OP_GETATTR, op->sess->id, op->body, op->len, s->out, &len);
	if (!status) {
		CFS_ASSERT(len >= sizeof(*rep));
		if (merge) {
			rep->attr.size = merge->size;
			rep->attr.alloc = merge->alloc;
			rep->attr.mtime = merge->mtime;
			rep->attr.ctime = merge->ctime;
		}
		patch_getattr(s, op->sess);
	}
	op_reply(s, op, status, s->out, len);
	op_free(s, op);
}

/* rep NULL: the session that was asked has ended; what it had not committed is lost */
void ask_answered(struct cfs_shard *s, struct shard_op *op, const struct cfs_ask_rep *rep)
{
	struct shard_sess *holder = foreign_holder(s, op->sess, op->ino);

	if (holder && holder->id != op->asked && op->asks < SHARD_ASKS_MAX) {
		/* it went from one to the next meanwhile */
		if (ask(s, op, holder))
			op_abort(s, op, CFS_E_GRACE);
		return;
	}
	/* of one that has let go since, everything is in the state */
	if (!holder || holder->id != op->asked || (rep && !rep->known))
		rep = NULL;
	getattr_finish(s, op, rep);
}

static bool getattr_asks(struct cfs_shard *s, struct shard_conn *c, const struct cfs_msg *msg)
{
	struct shard_sess *holder;
	struct shard_op *op;
	uint64_t ino;

	if (cfs_le32_to_cpu(msg->hdr.body_len) != sizeof(struct cfs_ino_req))
		return false;
	ino = cfs_get_le64(msg->body);
	holder = foreign_holder(s, c->sess, ino);
	if (!holder)
		return false;
	op = op_new(s, c, &msg->hdr, msg->body);
	if (!op)
		return true;
	op->ino = ino;
	if (ask(s, op, holder))
		op_abort(s, op, CFS_E_GRACE);
	return true;
}

/* ---- OPEN ------------------------------------------------------------------------------------------- */
bool open_queued(struct cfs_shard *s, uint64_t ino)
{
	return s->openqs.n && inoq_find(&s->openqs, ino);
}

/* the first one in the queue may go on */
void open_kick(struct cfs_shard *s, uint64_t ino)
{
	struct shard_inoq *q = s->openqs.n ? inoq_find(&s->openqs, ino) : NULL;
	struct shard_op *op;

	if (!q)
		return;
	op = cfs_list_first(&q->ops, struct shard_op, q_link);
	if (op->state == OP_OPENQ)
		op_wake(s, op);
}

static void open_finish(struct cfs_shard *s, struct shard_op *op)
{
	bool keep = op->keep;
	struct cfs_open_rep *rep = (void *)s->out;
	uint32_t len = 0, status;
	uint64_t ino = op->ino;

	status = cfs_meta_read(s->p.meta, CFS_OP_OPEN, op->sess->id, op->body, op->len, s->out, &len);
	if (!status) {
		CFS_ASSERT(len >= sizeof(*rep));
		if (S_ISREG(cfs_le32_to_cpu(rep->attr.mode)) && (op->want || keep) &&
		    !cfs_lease_grant(&s->leases, &op->sess->leases, ino, false, op->want, keep))
			status = ENFILE;
	}
	inoq_leave(&s->openqs, op);
	if (!status) {
		struct cfs_lease_obj *obj = cfs_lease_obj(&s->leases, ino);

		if (obj && (op->want == CFS_LEASE_EXCL || op->contended))
			cfs_lease_note_writer(&s->leases, obj, op->sess->id, s->now_ns - op->since_ns, s->now_ns);
		patch_open(s, op->sess);
		if (op->contended)
			rep->valid |= cfs_cpu_to_le32(CFS_V_CONTENDED);
	}
	op_reply(s, op, status, s->out, status ? 0 : len);
	op_free(s, op);
	open_kick(s, ino);
}

/* do other sessions hold what does not go with `want`? */
static bool open_conflict(struct cfs_shard *s, const struct shard_op *op)
{
	struct cfs_lease_obj *obj = cfs_lease_obj(&s->leases, op->ino);
	unsigned may = op->want == CFS_LEASE_EXCL ? CFS_LEASE_NONE : CFS_LEASE_SHARED;
	struct cfs_list *pos;

	if (!obj || (may && !obj->excl))
		return false;
	cfs_list_for_each(pos, &obj->holders) {
		struct cfs_lease *l = cfs_list_entry(pos, struct cfs_lease, obj_link);

		if (l->owner != &op->sess->leases && l->mode > may)
			return true;
	}
	return false;
}

/* recall what is in the way. Exclusive: the attributes from the directory leases, too, once */
static int open_recall(struct cfs_shard *s, struct shard_op *op, const struct cfs_attr *attr, bool conflict)
{
	struct cfs_fp_break fb = { .ino = op->ino, .governor = cfs_le64_to_cpu(attr->parent) };
	int rc;

	if (!fb.governor)
		fb.governor = op->ino;
	fb.to_mode = op->want == CFS_LEASE_EXCL ? CFS_LEASE_NONE : CFS_LEASE_SHARED;
	if (conflict)
		fb.flags |= CFS_BRK_DATA;
	if (op->want == CFS_LEASE_EXCL && !op->recalled)
		fb.flags |= CFS_BRK_ATTR;
	op->recalled = true;
	op->recalled_own = op->contended;
	op->state = OP_BREAK;
	rc = break_item(s, op, 0, &fb);
	break_send_built(s, op);
	return rc;
}

/*
 * Is the file contended, so that it should not get this lease, but write through (docs/leases.md, "Contended files")? Decided anew as long
 * as it waits.
 */
static bool open_through(struct cfs_shard *s, const struct shard_op *op, const struct cfs_lease *l)
{
	return op->through && op->want == CFS_LEASE_EXCL && !(l && l->mode == CFS_LEASE_EXCL) &&
	       cfs_lease_contended(cfs_lease_obj(&s->leases, op->ino), s->now_ns);
}

/* one step of an OPEN: answer it, or let it wait for what is in its way. Called again when that may have gone */
void open_try(struct cfs_shard *s, struct shard_op *op)
{
	struct cfs_lease *l = cfs_lease_get(&s->leases, &op->sess->leases, op->ino);
	struct cfs_lease_obj *obj = cfs_lease_obj(&s->leases, op->ino);
	struct cfs_attr attr;
	bool conflict;

	if (cfs_meta_getattr(s->p.meta, op->ino, &attr) || !S_ISREG(cfs_le32_to_cpu(attr.mode))) {
		open_finish(s, op);
		return;
	}
	if (op->want)
		op->contended = open_through(s, op, l);
	if (op->contended && cfs_lease_through(obj, s->now_ns))
		op->want = CFS_LEASE_NONE; /* nothing is in its way */
	/* who holds enough still waits when it is to be opened and may be losing its last name: its lease would end with that */
	if (!op->want || (l && l->mode >= op->want && !l->breaking)) {
		if (op->keep && keys_foreign(s, op->ino, op->sess))
			keys_wait(s, op, op->ino, 0, true);
		else
			open_finish(s, op);
		return;
	}
	if (!op->q && inoq_join(&s->openqs, op, op->ino)) {
		op_abort(s, op, CFS_E_GRACE);
		return;
	}
	if (op->q->ops.next != &op->q_link || (l && l->breaking)) {
		op->state = OP_OPENQ;
		return;
	}
	conflict = open_conflict(s, op);
	if (conflict || (op->want == CFS_LEASE_EXCL && (!op->recalled || (op->contended && !op->recalled_own)))) {
		if (open_recall(s, op, &attr, conflict)) {
			op_abort(s, op, CFS_E_GRACE);
			return;
		}
		if (op->pending)
			return;
		op->state = OP_RUN;
	}
	if (keys_foreign(s, op->ino, op->sess)) {
		keys_wait(s, op, op->ino, 0, true);
		return;
	}
	if (op->contended) {
		cfs_lease_through_begin(obj, s->now_ns);
		op->want = CFS_LEASE_NONE;
	}
	open_finish(s, op);
}

static void open_start(struct cfs_shard *s, struct shard_conn *c, const struct cfs_msg *msg)
{
	struct cfs_open_req req;
	struct shard_op *op;

	memset(&req, 0, sizeof(req));
	if (cfs_le32_to_cpu(msg->hdr.body_len) == sizeof(req))
		memcpy(&req, msg->body, sizeof(req));
	if (!req.ino || cfs_le32_to_cpu(req.want) > CFS_LEASE_EXCL) {
		shard_reply_hdr(s, c, &msg->hdr, CFS_E_PROTO, NULL, 0);
		return;
	}
	op = op_new(s, c, &msg->hdr, msg->body);
	if (!op)
		return;
	op->ino = cfs_le64_to_cpu(req.ino);
	op->want = (uint8_t)cfs_le32_to_cpu(req.want);
	op->since_ns = s->now_ns;
	op->keep = cfs_le32_to_cpu(req.flags) & CFS_OPEN_KEEP;
	op->through = cfs_le32_to_cpu(req.flags) & CFS_OPEN_THROUGH;
	open_try(s, op);
}

/* ---- all of them ---------------------------------------------------------------------------------- */
void read_op(struct cfs_shard *s, struct shard_conn *c, struct cfs_msg *msg)
{
	uint16_t opcode = cfs_le16_to_cpu(msg->hdr.opcode);
	uint32_t status, len = 0;

	if (opcode == CFS_OP_OPEN) {
		open_start(s, c, msg);
		return;
	}
	if (opcode == CFS_OP_GETATTR && getattr_asks(s, c, msg))
		return;
	status = cfs_meta_read(s->p.meta, opcode, c->sess->id, msg->body, cfs_le32_to_cpu(msg->hdr.body_len), s->out,
			       &len);
	if (opcode == CFS_OP_LOOKUP)
		len = patch_lookup(s, c->sess, msg, status, len);
	if (!status && opcode == CFS_OP_READDIR)
		patch_readdir(s, c->sess, msg, len);
	if (!status && opcode == CFS_OP_GETATTR)
		patch_getattr(s, c->sess);
	if (!status && opcode == CFS_OP_EXTENTS)
		patch_open(s, c->sess);
	if (!status && opcode == CFS_OP_STATFS)
		patch_statfs(s);
	shard_reply_hdr(s, c, &msg->hdr, status, s->out, len);
}
