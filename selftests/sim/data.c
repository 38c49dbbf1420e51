/* SPDX-License-Identifier: MIT */
/*
 * data.c - file contents. Under an exclusive lease a client writes into its own copy at once, and that moment is when
 * everybody must see it; a flush puts it into the file, inline or as an object. When the leader says that the file is contended it is
 * written without a lease, one piece at a time, at a place or at the end. Contents that are read, from the server or
 * from a copy under a lease, must be what the file held at some moment between question and answer.
 */
#include "sim_i.h"

static void done(struct thread *th)
{
	th->job = JOB_NONE;
	th->step = 0;
	th->r.payload = NULL;
	th->r.payload_len = 0;
	th->through = th->append = false;
}

static void check_bytes(struct client_s *c, uint64_t ino, const uint8_t *data, uint64_t size, uint64_t from, uint64_t to, const char *what)
{
	uint64_t v[4] = { size, bytes_hash(data, size) };
	struct inode *in = inode_of(ino);

	W->st.data_reads++;
	if (!hist_match(&in->bytes, from, to, 3, v))
		fail("client %u: %s of inode %" PRIu64 " gives %" PRIu64 " bytes with hash %" PRIx64 " in %" PRIu64 "..%" PRIu64 ":%s", c->i,
		     what, ino, size, v[1], from, to, hist_text(&in->bytes, from, to));
}

static bool may_write(struct client_s *c, const struct file_ent *f)
{
	return f && f->lease == CFS_LEASE_EXCL && f->known && !f->flushing && client_live(c) && !own_change(c, 0, f->ino) &&
	       !client_owes_data(c, f->ino) && !W->calm;
}

static void write_local(struct client_s *c, struct file_ent *f)
{
	uint64_t max = W->n_servers > 1 ? 4000 : pick(4) ? 6000 : FILE_MAX - 3000;
	uint64_t off = pick(3) ? f->size : pick((unsigned)f->size + 1), len = 1 + pick(pick(3) ? 300 : 2900);
	struct cfs_rng rng;

	if (off + len > max) {
		off = 0;
		len = cfs_min(len, max);
	}
	cfs_rng_seed(&rng, cfs_sim_random(W->sim));
	for (uint64_t i = 0; i < len; i++)
		f->data[off + i] = (uint8_t)cfs_rng_next(&rng);
	f->size = cfs_max(f->size, off + len);
	f->ver++;
	f->dirty = true;
	trace("client %u writes %" PRIu64 ", which has %" PRIu64 " bytes now", c->i, f->ino, f->size);
	forget_attr(c, f->ino);
	dirty_set(c, f->ino);
	W->st.writes++;
}

/* docs/leases.md: a COMMIT without a lease and an OPEN of the same file are never on their way at the same time */
static bool on_its_way(const struct client_s *c, unsigned t, uint64_t ino, bool through)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		const struct thread *th = &c->th[i];

		if (i != t && th->ino == ino && (through ? th->through : th->r.busy && th->r.op == CFS_OP_OPEN))
			return true;
	}
	return false;
}

void data_start(struct client_s *c, unsigned t, uint64_t ino, bool write)
{
	struct file_ent *f = file_find(c, ino);
	struct thread *th = &c->th[t];

	if (write && may_write(c, f)) {
		write_local(c, f);
		return;
	}
	if (f && f->known && f->lease && client_live(c) && !own_change(c, 0, ino)) {
		W->st.cached++;
		check_bytes(c, ino, f->data, f->size, now(), now(), "its copy");
		return;
	}
	if (on_its_way(c, t, ino, true))
		return;
	th->job = write ? JOB_WRITE : JOB_READ;
	th->ino = ino;
	th->step = 0;
	th->open_inv = now();
	th->file_ver = f ? f->ver : 0;
	req_start(c, t, CFS_OP_OPEN, (uint32_t)body_open(th->r.body, ino, write ? CFS_LEASE_EXCL : CFS_LEASE_SHARED,
							 (f && f->open ? CFS_OPEN_KEEP : 0) |
							 (write && pick(4) ? CFS_OPEN_THROUGH : 0)));
}

/* ---- writing through ----------------------------------------------------------------------------------------------- */

static void commit(struct client_s *c, unsigned t);
static void write_object(struct client_s *c, unsigned t);

/* the file is contended: without a lease, whatever shared one there is given up by ourselves */
static void through_start(struct client_s *c, unsigned t)
{
	struct thread *th = &c->th[t];
	struct file_ent *f = file_find(c, th->ino);
	uint64_t max = W->n_servers > 1 ? 4000 : 6000, size = th->size;
	struct cfs_rng rng;

	if (th->job != JOB_WRITE || W->calm || own_change(c, 0, th->ino) || on_its_way(c, t, th->ino, false) ||
	    (f && (f->dirty || f->flushing || f->lease == CFS_LEASE_EXCL))) {
		done(th);
		return;
	}
	if (f) {
		f->lease = CFS_LEASE_NONE;
		f->known = false;
	}
	forget_attr(c, th->ino);
	th->through = true;
	th->append = pick(2) && size < max / 2;
	th->off = pick((unsigned)cfs_min(size, max / 2) + 1);
	th->size = 1 + pick(pick(3) ? 300 : 1500);
	th->has_obj = false;
	cfs_rng_seed(&rng, cfs_sim_random(W->sim));
	for (uint64_t i = 0; i < th->size; i++)
		th->buf[i] = (uint8_t)cfs_rng_next(&rng);
	if (W->n_servers == 1 && pick(2))
		write_object(c, t);
	else
		commit(c, t);
}

static void through_item(const struct thread *th, struct cfs_commit_item *it)
{
	uint32_t flags = (th->append ? CFS_CI_APPEND : 0) | (th->has_obj ? 0 : CFS_CI_PATCH);

	it->flags = cfs_cpu_to_le32(flags);
	it->size = cfs_cpu_to_le64(th->has_obj || th->append ? 0 : th->off);
}

static void through_committed(struct client_s *c, unsigned t, struct cfs_msg *msg)
{
	struct thread *th = &c->th[t];
	uint32_t status = cfs_le32_to_cpu(msg->hdr.status);
	struct file_ent *f = file_find(c, th->ino);
	struct cfs_commit_result res = { .status = msg->hdr.status };
	uint64_t ino = th->ino;
	bool obj = th->has_obj;

	if (!status && cfs_le32_to_cpu(msg->hdr.body_len) == sizeof(struct cfs_commit_rep) + sizeof(res))
		memcpy(&res, (const uint8_t *)msg->body + sizeof(struct cfs_commit_rep), sizeof(res));
	else if (status != ENOSPC)
		fail("client %u: COMMIT through to inode %" PRIu64 " is answered with %u", c->i, ino, status);
	done(th);
	cfs_breaks_note(&c->breaks, CFS_BRK_ATTR | CFS_BRK_DATA, 0, ino, NULL, 0);	/* replies on their way are from before it */
	forget_attr(c, ino);
	if (f)
		f->known = false;
	switch (cfs_le32_to_cpu(res.status)) {
	case 0:
		W->st.through++;
		trace("client %u wrote %" PRIu64 " through", c->i, ino);
		W->hot = cfs_le32_to_cpu(res.flags) & CFS_CR_CONTENDED ? ino : 0;
		if (W->hot && pick(4)) {	/* as it was told, without asking */
			th->job = JOB_WRITE;
			th->ino = ino;
			th->size = cfs_le64_to_cpu(res.attr.size);
			through_start(c, t);
		}
		break;
	case ENOSPC: case ENOENT: case ESTALE:
		break;
	case EINVAL:
		if (obj)	/* bytes in the inode that it does not cover */
			break;
		/* fallthrough */
	case EMSGSIZE:
		if (!obj)
			break;
		/* fallthrough */
	default:
		fail("client %u: COMMIT through to inode %" PRIu64 " gives %u", c->i, ino, cfs_le32_to_cpu(res.status));
	}
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static void loaded(struct client_s *c, unsigned t)
{
	struct thread *th = &c->th[t];
	bool write = th->job == JOB_WRITE;
	struct file_ent *f = file_find(c, th->ino);

	done(th);
	if (th->lease)
		check_bytes(c, th->ino, th->buf, th->size, th->open_inv, th->open_rep, "reading");
	if (!f || !f->lease || f->known || f->ver != th->file_ver || cfs_breaks_data(&c->breaks, th->open_gen, th->ino) ||
	    own_change(c, 0, th->ino))
		return;
	f->known = true;
	f->size = th->size;
	memcpy(f->data, th->buf, FILE_MAX);
	if (write && may_write(c, f))
		write_local(c, f);
}

static void read_next(struct client_s *c, unsigned t)
{
	struct thread *th = &c->th[t];
	struct cfs_obj_read_req q = { 0 };
	unsigned i = th->step - 1;

	if (i == th->n_ext) {
		loaded(c, t);
		return;
	}
	q.oid = th->ext[i].oid;
	q.len = th->ext[i].obj_len;
	memcpy(th->r.body, &q, sizeof(q));
	req_start(c, t, CFS_OP_OBJ_READ, sizeof(q));
}

static void opened(struct client_s *c, unsigned t, struct cfs_msg *msg)
{
	struct thread *th = &c->th[t];
	uint32_t status = cfs_le32_to_cpu(msg->hdr.status);
	struct file_ent *f;
	struct cfs_open_rep rep;
	struct cfs_cursor cur;
	const void *bytes;

	if (status == ENOENT || status == ESTALE) {
		static const uint64_t gone[4];

		if (!hist_match(&inode_of(th->ino)->attr, th->open_inv, now(), 1, gone))
			fail("client %u: OPEN says that inode %" PRIu64 " is not there", c->i, th->ino);
		done(th);
		return;
	}
	if (status) {
		fail("client %u: OPEN of inode %" PRIu64 " is answered with %u", c->i, th->ino, status);
		return;
	}
	cfs_cursor_init(&cur, msg->body, cfs_le32_to_cpu(msg->hdr.body_len));
	cfs_take_struct(&cur, &rep);
	bytes = cfs_take(&cur, cfs_le32_to_cpu(rep.inline_len), "inline data");
	th->n_ext = cfs_le32_to_cpu(rep.n_extents);
	th->size = cfs_le64_to_cpu(rep.attr.size);
	if (cur.err || th->n_ext > CFS_ARRAY_SIZE(th->ext) || th->size > FILE_MAX || cfs_le32_to_cpu(rep.inline_len) > th->size) {
		fail("client %u: OPEN of inode %" PRIu64 ": %u extents, size %" PRIu64, c->i, th->ino, th->n_ext, th->size);
		return;
	}
	cfs_take_copy(&cur, th->ext, th->n_ext * sizeof(th->ext[0]), "extents");
	if (cfs_cursor_end(&cur)) {
		fail("client %u: OPEN of inode %" PRIu64 ": %s", c->i, th->ino, cur.err);
		return;
	}
	f = file_find(c, th->ino);
	th->lease = (f && (f->dirty || f->flushing)) || c->mine_ns[th->ino] >= th->open_inv ? 0 : cfs_le32_to_cpu(rep.lease);	/* 0: not to be checked */
	check_attr(c, &rep.attr, th->open_inv, th->lease, false, "OPEN");
	keep_lease(c, th->r.gen, &rep.attr, cfs_le32_to_cpu(rep.lease));
	if (cfs_le32_to_cpu(rep.valid) & CFS_V_ATTR)
		keep_attr(c, th->r.gen, &rep.attr);
	th->open_rep = now();
	th->open_gen = th->r.gen;
	if (cfs_le32_to_cpu(rep.valid) & CFS_V_CONTENDED) {
		W->hot = th->ino;
		through_start(c, t);
		return;
	}
	if (th->n_ext && cfs_le64_to_cpu(rep.extents_end) < th->size) {	/* more extents than we want to know of */
		done(th);
		return;
	}
	memset(th->buf, 0, FILE_MAX);
	memcpy(th->buf, bytes, cfs_le32_to_cpu(rep.inline_len));
	th->step = 1;
	read_next(c, t);
}

static void object_read(struct client_s *c, unsigned t, struct cfs_msg *msg)
{
	struct thread *th = &c->th[t];
	const struct cfs_extent *x = &th->ext[th->step - 1];
	uint32_t status = cfs_le32_to_cpu(msg->hdr.status), len = cfs_le32_to_cpu(msg->hdr.payload_len);
	struct object *o = object_of(&x->oid);
	uint64_t off = cfs_le64_to_cpu(x->file_off), n = cfs_le32_to_cpu(x->len);

	if (!o) {
		fail("inode %" PRIu64 " has an extent in an object that nobody wrote", th->ino);
		return;
	}
	if (status == CFS_E_CORRUPT ? o->rotten : status == CFS_E_NOOBJECT && (o->lost || o->cut)) {
		W->st.corrupt++;
		done(th);
		return;
	}
	if (status == EIO) {		/* the disk's fault, and it said so */
		done(th);
		return;
	}
	if (status) {
		fail("client %u: reading an object of inode %" PRIu64 " is answered with %u", c->i, th->ino, status);
		return;
	}
	if (len != o->len || memcmp(msg->payload, o->bytes, len)) {
		fail("client %u: an object of inode %" PRIu64 "%s is read with wrong bytes", c->i, th->ino, o->rotten ? " that rotted" : "");
		return;
	}
	if (off + n > FILE_MAX || cfs_le32_to_cpu(x->obj_off) + n > o->len) {
		fail("inode %" PRIu64 " has an extent beyond its object", th->ino);
		return;
	}
	memcpy(th->buf + off, o->bytes + cfs_le32_to_cpu(x->obj_off), n);
	if (off + n > th->size)		/* space beyond the end is not content */
		memset(th->buf + th->size, 0, FILE_MAX - th->size);
	th->step++;
	read_next(c, t);
}

/* ---- flushing ---------------------------------------------------------------------------------------------------- */

static void commit(struct client_s *c, unsigned t)
{
	struct thread *th = &c->th[t];
	struct cfs_commit_req q = { .n = cfs_cpu_to_le32(1) };
	struct cfs_commit_item it = { .ino = cfs_cpu_to_le64(th->ino), .size = cfs_cpu_to_le64(th->size) };
	uint32_t len = sizeof(q) + sizeof(it);

	th->r.payload = NULL;
	th->r.payload_len = 0;
	if (th->has_obj) {
		struct cfs_extent x = { .len = cfs_cpu_to_le32((uint32_t)th->size), .oid = th->oid,
			.obj_len = cfs_cpu_to_le32((uint32_t)th->size),
			.file_off = cfs_cpu_to_le64(th->through && !th->append ? th->off : 0) };

		it.n_extents = cfs_cpu_to_le32(1);
		memcpy(th->r.body + len, &x, sizeof(x));
		len += sizeof(x);
	} else {
		it.flags = cfs_cpu_to_le32(CFS_CI_INLINE);
		it.inline_len = cfs_cpu_to_le32((uint32_t)th->size);
		memcpy(th->r.body + len, th->buf, th->size);
		len += (uint32_t)th->size;
	}
	if (th->through)
		through_item(th, &it);
	memcpy(th->r.body, &q, sizeof(q));
	memcpy(th->r.body + sizeof(q), &it, sizeof(it));
	th->step = 1;
	req_start(c, t, CFS_OP_COMMIT, len);
}

static void write_object(struct client_s *c, unsigned t)
{
	struct thread *th = &c->th[t];
	struct cfs_obj_write_req q = { .len = cfs_cpu_to_le32((uint32_t)th->size) };
	uint32_t crc;

	q.oid.owner = cfs_cpu_to_le64(c->session);
	q.oid.seq = cfs_cpu_to_le64(1ull << CFS_OID_PG_SHIFT | ++c->oid_seq);
	object_new(&q.oid, th->buf, (uint32_t)th->size);
	th->r.payload = th->buf;
	th->r.payload_len = (uint32_t)th->size;
	cfs_payload_crcs(th->buf, (uint32_t)th->size, &crc);
	memcpy(th->r.body, &q, sizeof(q));
	memcpy(th->r.body + sizeof(q), &(cfs_le32){ cfs_cpu_to_le32(crc) }, 4);
	th->step = 0;
	req_start(c, t, CFS_OP_OBJ_WRITE, sizeof(q) + 4);
}

bool flush_start(struct client_s *c, unsigned t, struct file_ent *f)
{
	struct thread *th = &c->th[t];

	if (!f->dirty || f->flushing || c->epoch != c->seen_epoch)
		return false;
	f->flushing = true;
	th->job = JOB_FLUSH;
	th->dir = th->dir2 = 0;
	th->ino = f->ino;
	th->size = f->size;
	th->file_ver = f->ver;
	th->has_obj = false;
	memcpy(th->buf, f->data, FILE_MAX);
	if (f->size > CFS_INLINE_MAX || (W->n_servers == 1 && !pick(5)))
		write_object(c, t);
	else
		commit(c, t);
	return true;
}

static void flush_failed(struct client_s *c, struct thread *th)
{
	struct file_ent *f = file_find(c, th->ino);

	if (f && !th->through)
		f->flushing = false;
	done(th);
}

static void committed(struct client_s *c, unsigned t, struct cfs_msg *msg)
{
	struct thread *th = &c->th[t];
	struct file_ent *f = file_find(c, th->ino);
	struct inode *in = inode_of(th->ino);
	struct cfs_commit_result res;

	if (msg->hdr.status || cfs_le32_to_cpu(msg->hdr.body_len) < sizeof(struct cfs_commit_rep) + sizeof(res)) {
		if (cfs_le32_to_cpu(msg->hdr.status) != ENOSPC)
			fail("client %u: COMMIT to inode %" PRIu64 " is answered with %u", c->i, th->ino, cfs_le32_to_cpu(msg->hdr.status));
		flush_failed(c, th);
		return;
	}
	memcpy(&res, (const uint8_t *)msg->body + sizeof(struct cfs_commit_rep), sizeof(res));
	done(th);
	W->st.flushed++;
	c->mine_ns[th->ino] = now();
	if (!f)
		return;
	f->flushing = false;
	cfs_breaks_note(&c->breaks, CFS_BRK_ATTR, 0, th->ino, NULL, 0);	/* replies on their way are from before it */
	if (cfs_le32_to_cpu(res.status) == ENOSPC)
		return;
	if (f->lease == CFS_LEASE_EXCL && client_live(c) && !res.status && f->dirty &&
	    (in->size != f->size || memcmp(in->data, f->data, f->size)))
		fail("client %u: after its flush inode %" PRIu64 " has %" PRIu64 " bytes of others, it wrote %" PRIu64, c->i, th->ino, in->size,
		     f->size);
	if (f->ver == th->file_ver && f->dirty) {
		f->dirty = false;
		dirty_drop(c, th->ino);
	}
	if (res.status)
		file_drop(c, f);
}

void data_reply(struct client_s *c, unsigned t, struct cfs_msg *msg)
{
	struct thread *th = &c->th[t];
	uint32_t status = cfs_le32_to_cpu(msg->hdr.status);

	switch (th->r.op) {
	case CFS_OP_OPEN:
		opened(c, t, msg);
		break;
	case CFS_OP_OBJ_READ:
		object_read(c, t, msg);
		break;
	case CFS_OP_COMMIT:
		if (th->through)
			through_committed(c, t, msg);
		else
			committed(c, t, msg);
		break;
	case CFS_OP_OBJ_WRITE:
		if (status == ENOSPC || status == EIO) {
			flush_failed(c, th);
		} else if (status) {
			fail("client %u: writing an object is answered with %u", c->i, status);
		} else {
			struct cfs_obj_write_req q;

			memcpy(&q, th->r.body, sizeof(q));
			th->oid = q.oid;
			th->has_obj = true;
			commit(c, t);
		}
		break;
	}
}
