/* SPDX-License-Identifier: MIT */
/*
 * shard_grant.c - leases that come without being asked for, and the CFS_V_ bits of replies.
 *
 * A bit is given when the session holds the lease that covers the thing, nobody is recalling that
 * lease from it, no mutation (its own neither, but the one being answered) is under way on the
 * thing, and no other session holds the file exclusively or queues to. Directory leases are given
 * freely: the recalls of a mutation under way need not reach who becomes a holder meanwhile, because
 * what they are about is marked by keys, and gets no bit until they are released.
 */
#include "server/meta/shard_i.h"

#include <sys/stat.h>

static struct cfs_lease *hold_shared(struct cfs_shard *s, struct shard_sess *sess, uint64_t ino, bool dir)
{
	struct cfs_lease *l = cfs_lease_get(&s->leases, &sess->leases, ino);

	if (l ? cfs_lease_storm(l->obj, s->now_ns) : cfs_lease_storm(cfs_lease_obj(&s->leases, ino), s->now_ns))
		return NULL;
	if (l && l->breaking)
		return NULL;
	if (!l || !l->mode)
		l = cfs_lease_grant(&s->leases, &sess->leases, ino, dir, CFS_LEASE_SHARED, false);
	return l;
}

/* does the session hold the directory's lease now? */
bool grant_dir(struct cfs_shard *s, struct shard_sess *sess, uint64_t dir)
{
	return hold_shared(s, sess, dir, true) != NULL;
}

uint32_t lease_held(struct cfs_shard *s, struct shard_sess *sess, uint64_t ino)
{
	return cfs_lease_mode(cfs_lease_get(&s->leases, &sess->leases, ino));
}

/* a shared lease on a file, if that needs no recall. Does the session hold it, or more? */
bool lease_share(struct cfs_shard *s, struct shard_sess *sess, uint64_t ino, const struct shard_op *except)
{
	struct cfs_lease_obj *obj = cfs_lease_obj(&s->leases, ino);

	if (obj && obj->excl && obj->excl->owner != &sess->leases)
		return false;
	if (keys_busy(s, ino, 0, except) || open_queued(s, ino))
		return false;
	return hold_shared(s, sess, ino, false) != NULL;
}

/* V_ATTR or 0, for attributes that are those of the applied state. may_grant: the governing lease */
uint32_t grant_attr(struct cfs_shard *s, struct shard_sess *sess, const struct cfs_attr *attr, bool may_grant,
		    const struct shard_op *except)
{
	uint64_t ino = cfs_le64_to_cpu(attr->ino), governor = cfs_le64_to_cpu(attr->parent);
	struct cfs_lease_obj *obj;
	struct cfs_lease *l;

	if (!ino || keys_busy(s, ino, 0, except))
		return 0;
	obj = cfs_lease_obj(&s->leases, ino);
	if (obj && obj->excl)
		return obj->excl->owner == &sess->leases && !obj->excl->breaking ? CFS_V_ATTR : 0;
	if (open_queued(s, ino) || cfs_lease_through(obj, s->now_ns))
		return 0;
	if (!may_grant) {
		l = cfs_lease_get(&s->leases, &sess->leases, governor ? governor : ino);
		return l && l->mode && !l->breaking && !cfs_lease_storm(l->obj, s->now_ns) ? CFS_V_ATTR : 0;
	}
	if (!governor)
		return hold_shared(s, sess, ino, false) ? CFS_V_ATTR : 0;
	return grant_dir(s, sess, governor) ? CFS_V_ATTR : 0;
}

/* V_ENTRY or 0 */
uint32_t grant_name(struct cfs_shard *s, struct shard_sess *sess, uint64_t dir, const void *name, size_t len,
		    const struct shard_op *except)
{
	if (!grant_dir(s, sess, dir) || keys_busy(s, dir, cfs_meta_name_hash(s->p.meta, name, len), except))
		return 0;
	return CFS_V_ENTRY;
}

/* ---- replies of mutations ---------------------------------------------------------------------- */
static uint32_t grant_dirattr(struct cfs_shard *s, struct shard_op *op, const struct cfs_make_rep *rep)
{
	return rep->dirattr.ino && grant_attr(s, op->sess, &rep->dirattr, true, op) ? CFS_V_DIRATTR : 0;
}

static void reply_mknode(struct cfs_shard *s, struct shard_op *op, bool replay, struct cfs_make_rep *rep)
{
	uint64_t ino = cfs_le64_to_cpu(rep->entry.attr.ino);
	struct cfs_mknode_req req;
	struct cfs_cursor cur;
	const void *name;
	uint32_t valid = 0;
	bool lease;

	cfs_cursor_init(&cur, op->body, op->len);
	cfs_take_struct(&cur, &req);
	name = cfs_take(&cur, cfs_le32_to_cpu(req.name_len), "name");
	lease = (cfs_le32_to_cpu(req.flags) & CFS_MK_LEASE) && S_ISREG(cfs_le32_to_cpu(rep->entry.attr.mode));
	if (replay) {
		/* who created it has it open, even if this leader learns of it only now */
		struct cfs_attr now;

		if (lease && !cfs_meta_getattr(s->p.meta, ino, &now))
			cfs_lease_grant(&s->leases, &op->sess->leases, ino, false, CFS_LEASE_NONE, true);
	} else {
		/* nobody else has ever heard of this inode; but somebody may have guessed its number */
		if (lease)
			cfs_lease_grant(&s->leases, &op->sess->leases, ino, false,
					keys_busy(s, ino, 0, op) || open_queued(s, ino) ? CFS_LEASE_NONE : CFS_LEASE_EXCL, true);
		if (name && !(cfs_le32_to_cpu(req.flags) & CFS_MK_TMPFILE))
			valid |= grant_name(s, op->sess, cfs_le64_to_cpu(req.dir), name,
					    cfs_le32_to_cpu(req.name_len), op);
		valid |= grant_attr(s, op->sess, &rep->entry.attr, true, op) | grant_dirattr(s, op, rep);
	}
	rep->entry.valid = cfs_cpu_to_le32(valid);
	rep->entry.lease = cfs_cpu_to_le32(lease_held(s, op->sess, ino));
}

static void reply_link(struct cfs_shard *s, struct shard_op *op, bool replay, struct cfs_make_rep *rep)
{
	struct cfs_link_req req;
	struct cfs_cursor cur;
	const void *name;
	uint32_t valid = 0;

	cfs_cursor_init(&cur, op->body, op->len);
	cfs_take_struct(&cur, &req);
	name = cfs_take(&cur, cfs_le32_to_cpu(req.name_len), "name");
	if (!replay && name)
		valid = grant_name(s, op->sess, cfs_le64_to_cpu(req.dir), name, cfs_le32_to_cpu(req.name_len), op) |
			grant_attr(s, op->sess, &rep->entry.attr, true, op) | grant_dirattr(s, op, rep);
	rep->entry.valid = cfs_cpu_to_le32(valid);
	rep->entry.lease = cfs_cpu_to_le32(lease_held(s, op->sess, cfs_le64_to_cpu(rep->entry.attr.ino)));
}

static void reply_unlink(struct cfs_shard *s, struct shard_op *op, bool replay, struct cfs_unlink_rep *rep)
{
	struct cfs_unlink_req req;
	struct cfs_cursor cur;
	const void *name;
	uint32_t valid = 0;

	cfs_cursor_init(&cur, op->body, op->len);
	cfs_take_struct(&cur, &req);
	name = cfs_take(&cur, cfs_le32_to_cpu(req.name_len), "name");
	if (!replay && name) {
		valid = grant_name(s, op->sess, cfs_le64_to_cpu(req.dir), name, cfs_le32_to_cpu(req.name_len), op);
		if (cfs_le32_to_cpu(rep->attr.nlink))
			valid |= grant_attr(s, op->sess, &rep->attr, false, op);
		else
			lease_gone(s, op, cfs_le64_to_cpu(rep->attr.ino));
		if (grant_attr(s, op->sess, &rep->dirattr, true, op))
			valid |= CFS_V_DIRATTR;
	}
	rep->valid = cfs_cpu_to_le32(valid);
}

static void reply_rename(struct cfs_shard *s, struct shard_op *op, bool replay, struct cfs_rename_rep *rep)
{
	struct cfs_rename_req req;
	struct cfs_cursor cur;
	const void *old_name, *new_name;
	uint32_t valid = 0;

	cfs_cursor_init(&cur, op->body, op->len);
	cfs_take_struct(&cur, &req);
	old_name = cfs_take(&cur, cfs_le32_to_cpu(req.old_len), "old name");
	new_name = cfs_take(&cur, cfs_le32_to_cpu(req.new_len), "new name");
	if (!replay && new_name) {
		if (grant_name(s, op->sess, cfs_le64_to_cpu(req.old_dir), old_name, cfs_le32_to_cpu(req.old_len), op) &&
		    grant_name(s, op->sess, cfs_le64_to_cpu(req.new_dir), new_name, cfs_le32_to_cpu(req.new_len), op))
			valid |= CFS_V_ENTRY;
		valid |= grant_attr(s, op->sess, &rep->attr, true, op);
		if (rep->other.ino && !rep->other.nlink)
			lease_gone(s, op, cfs_le64_to_cpu(rep->other.ino));
		else if (rep->other.ino && !grant_attr(s, op->sess, &rep->other, false, op))
			valid &= ~CFS_V_ATTR;
	}
	rep->valid = cfs_cpu_to_le32(valid);
}

static void reply_attr(struct cfs_shard *s, struct shard_op *op, bool replay, struct cfs_attr_rep *rep)
{
	if (!replay)
		rep->valid = cfs_cpu_to_le32(grant_attr(s, op->sess, &rep->attr, false, op));
	rep->lease = cfs_cpu_to_le32(lease_held(s, op->sess, cfs_le64_to_cpu(rep->attr.ino)));
}

/*
 * Its results say which files are still to be written through. The slot's record does not: how long that lasts is this leader's memory
 * alone.
 */
static void reply_commit(struct cfs_shard *s, struct shard_op *op, bool replay, uint8_t *body, uint32_t len)
{
	struct cfs_commit_result res;
	struct cfs_commit_item item;
	struct cfs_cursor cur;
	size_t at = sizeof(struct cfs_commit_rep);

	cfs_cursor_init(&cur, op->body, op->len);
	cfs_take(&cur, sizeof(struct cfs_commit_req), "n");
	for (; at + sizeof(res) <= len; at += sizeof(res)) {
		struct cfs_lease_obj *obj;

		cfs_take_struct(&cur, &item);
		cfs_take(&cur, cfs_le32_to_cpu(item.inline_len), "inline data");
		cfs_take_array(&cur, cfs_le32_to_cpu(item.n_extents), sizeof(struct cfs_extent), "extents");
		if (cur.err)
			break; /* not the request that was answered, under the same seq */
		obj = cfs_lease_obj(&s->leases, cfs_le64_to_cpu(item.ino));
		if (!obj)
			continue;
		if (!replay && !(obj->excl && obj->excl->owner == &op->sess->leases))
			cfs_lease_note_writer(&s->leases, obj, op->sess->id, 0, s->now_ns);
		memcpy(&res, body + at, sizeof(res));
		res.flags = cfs_cpu_to_le32(cfs_lease_through(obj, s->now_ns) ? CFS_CR_CONTENDED : 0);
		memcpy(body + at, &res, sizeof(res));
	}
}

/* RELEASE: the session has closed these for the last time */
static void reply_release(struct cfs_shard *s, struct shard_op *op)
{
	struct cfs_release_req req;
	struct cfs_cursor cur;
	struct cfs_lease *l;
	const uint8_t *inos;
	uint32_t n;

	cfs_cursor_init(&cur, op->body, op->len);
	cfs_take_struct(&cur, &req);
	n = cfs_le32_to_cpu(req.n);
	inos = cfs_take_array(&cur, n, sizeof(cfs_le64), "inodes");
	for (uint32_t i = 0; inos && i < n; i++) {
		uint64_t ino = cfs_get_le64(inos + i * sizeof(cfs_le64));

		l = cfs_lease_get(&s->leases, &op->sess->leases, ino);
		if (l)
			cfs_lease_lower(&s->leases, l, CFS_LEASE_NONE, false);
		open_kick(s, ino);
	}
}

void grant_reply(struct cfs_shard *s, struct shard_op *op, bool replay, uint32_t status, void *body, uint32_t len)
{
	size_t need = 0;

	if (status || !op->sess)
		return;
	switch (cfs_le16_to_cpu(op->hdr.opcode)) {
	case CFS_OP_MKNODE:
	case CFS_OP_LINK:
		need = sizeof(struct cfs_make_rep);
		break;
	case CFS_OP_UNLINK:
		need = sizeof(struct cfs_unlink_rep);
		break;
	case CFS_OP_RENAME:
		need = sizeof(struct cfs_rename_rep);
		break;
	case CFS_OP_SETATTR:
	case CFS_OP_SETXATTR:
	case CFS_OP_FALLOCATE:
		need = sizeof(struct cfs_attr_rep);
		break;
	}
	CFS_ASSERT(len >= need);
	switch (cfs_le16_to_cpu(op->hdr.opcode)) {
	case CFS_OP_MKNODE:
		reply_mknode(s, op, replay, body);
		break;
	case CFS_OP_LINK:
		reply_link(s, op, replay, body);
		break;
	case CFS_OP_UNLINK:
		reply_unlink(s, op, replay, body);
		break;
	case CFS_OP_RENAME:
		reply_rename(s, op, replay, body);
		break;
	case CFS_OP_SETATTR:
	case CFS_OP_SETXATTR:
	case CFS_OP_FALLOCATE:
		reply_attr(s, op, replay, body);
		break;
	case CFS_OP_COMMIT:
		reply_commit(s, op, replay, body, len);
		break;
	case CFS_OP_RELEASE:
		if (!replay)
			reply_release(s, op);
		break;
	}
}

/*
 * An inode has lost its last link. If nobody keeps it open it is gone, and so are the leases on it; else they stay as
 * they are: who holds one still believes it, whatever it said about having the file open.
 */
void lease_gone(struct cfs_shard *s, struct shard_op *op, uint64_t ino)
{
	struct cfs_lease_obj *obj = op->n_holders ? NULL : cfs_lease_obj(&s->leases, ino);
	struct cfs_list *pos, *tmp;

	if (!obj)
		return;
	cfs_list_for_each_safe(pos, tmp, &obj->holders) {
		bool last = tmp == &obj->holders;

		cfs_lease_lower(&s->leases, cfs_list_entry(pos, struct cfs_lease, obj_link), CFS_LEASE_NONE, false);
		if (last)
			break; /* the object may be gone with its last record */
	}
}
