/* SPDX-License-Identifier: MIT */
/*
 * work.c - what clients do: names, attributes and locks. Requests are made by the world's dice, few names in few
 * directories, so that everybody meets. Each answer is judged: of a mutation by its record in the witness, of a read, from
 * the server or from the client's own cache, by the histories.
 */
#include "sim_i.h"

/* ---- own changes under way ------------------------------------------------------------------------------------ */

bool own_change(struct client_s *c, uint64_t dir, uint64_t ino)
{
	for (unsigned t = 0; t < SLOTS; t++) {
		const struct thread *th = &c->th[t];

		if (!th->r.busy || !th->r.mutates || th->r.op == CFS_OP_LOCK ||
		    (th->r.op == CFS_OP_COMMIT && !th->through))
			continue;
		if (dir && (th->dir == dir || th->dir2 == dir))
			return true;
		if (ino && (th->ino == ino || th->dir == ino || th->dir2 == ino))
			return true;
		/* which inode these change it learns from the reply */
		if (ino && (th->r.op == CFS_OP_UNLINK || th->r.op == CFS_OP_RENAME))
			return true;
	}
	return false;
}

static void note_name(struct client_s *c, uint64_t dir, unsigned name)
{
	const char *s = name_text(name);

	if (!dir)
		return;
	cfs_breaks_note(&c->breaks, CFS_BRK_NAME | CFS_BRK_DIRATTR, dir, 0, s, strlen(s));
	forget_name(c, dir, name);
	forget_attr(c, dir);
}

static void note_ino(struct client_s *c, uint64_t ino, uint32_t flags)
{
	if (!ino)
		return;
	cfs_breaks_note(&c->breaks, flags, 0, ino, NULL, 0);
	forget_attr(c, ino);
}

/* what a mutation of th->ino changes: attributes, or content too */
static uint32_t ino_flags(const struct thread *th)
{
	struct cfs_setattr_req q;

	if (th->r.op != CFS_OP_SETATTR)
		return CFS_BRK_ATTR;
	memcpy(&q, th->r.body, sizeof(q));
	return cfs_le32_to_cpu(q.valid) & CFS_SA_SIZE ? CFS_BRK_ATTR | CFS_BRK_DATA : CFS_BRK_ATTR;
}

/* what it changes is not believed while it is under way */
void note_own(struct client_s *c, const struct thread *th)
{
	note_name(c, th->dir, th->name);
	note_name(c, th->dir2, th->name2);
	note_ino(c, th->ino, ino_flags(th));
}

/* ---- judging reads ------------------------------------------------------------------------------------------------ */

void check_attr(struct client_s *c, const struct cfs_attr *a, uint64_t from, bool size, bool change, const char *what)
{
	uint64_t ino = cfs_le64_to_cpu(a->ino);
	struct inode *in = inode_of(ino);
	struct file_ent *f = file_find(c, ino);
	uint64_t v[4] = { cfs_le32_to_cpu(a->nlink), cfs_le32_to_cpu(a->mode), cfs_le64_to_cpu(a->parent), cfs_le64_to_cpu(a->change) };
	uint64_t b[4] = { cfs_le64_to_cpu(a->size) };
	/* what is newer here than there, or was when the server answered */
	bool mine = (f && (f->dirty || f->flushing)) || (ino < INOS_MAX && c->mine_ns[ino] >= from && from);

	if (!in || !in->born)
		fail("client %u: %s tells of inode %" PRIu64 ", which was never made", c->i, what, ino);
	else if (!hist_match(&in->attr, from, now(), change && !mine ? 15 : 7, v))
		fail("client %u: %s of inode %" PRIu64 " says nlink %" PRIu64 " mode %" PRIo64 " parent %" PRIx64 " change %" PRIu64
		     " in %" PRIu64 "..%" PRIu64 ":%s", c->i, what, ino, v[0], v[1], v[2], v[3], from, now(),
		     hist_text(&in->attr, from, now()));
	else if (size && !mine && S_ISREG(in->mode) && !hist_match(&in->bytes, from, now(), 1, b))
		fail("client %u: %s of inode %" PRIu64 " says size %" PRIu64 " in %" PRIu64 "..%" PRIu64 ":%s", c->i, what, ino, b[0], from,
		     now(), hist_text(&in->bytes, from, now()));
}

static void check_gone(struct client_s *c, uint64_t ino, uint64_t from, const char *what)
{
	static const uint64_t gone[4];
	struct inode *in = inode_of(ino);

	if (in && !hist_match(&in->attr, from, now(), 1, gone))	/* nlink 0: an orphan may do */
		fail("client %u: %s says that inode %" PRIu64 " is not there in %" PRIu64 "..%" PRIu64 ":%s", c->i, what, ino, from, now(),
		     hist_text(&in->attr, from, now()));
}

static void check_name(struct client_s *c, uint64_t dir, unsigned name, uint64_t ino, uint64_t from, const char *what)
{
	uint64_t v[4] = { ino };
	struct inode *in = inode_of(dir);

	if (in && !hist_match(&in->names[name], from, now(), 1, v))
		fail("client %u: %s says %" PRIu64 "/%s is %" PRIu64 " in %" PRIu64 "..%" PRIu64 ":%s", c->i, what, dir, name_text(name),
		     ino, from, now(), hist_text(&in->names[name], from, now()));
}

/* ---- keeping ----------------------------------------------------------------------------------------------------------- */

static void keep_name(struct client_s *c, uint64_t gen, uint64_t dir, unsigned name, uint64_t ino)
{
	const char *s = name_text(name);
	struct name_ent *n;

	if (cfs_breaks_name(&c->breaks, gen, dir, s, strlen(s)) || own_change(c, dir, 0))
		return;
	n = name_find(c, dir, name);
	for (unsigned i = 0; !n && i < CACHE; i++)
		if (!c->names[i].dir)
			n = &c->names[i];
	if (!n)
		n = &c->names[pick(CACHE)];
	*n = (struct name_ent){ dir, ino, name };
	keep_dir(c, dir);
	W->st.kept++;
}

void keep_attr(struct client_s *c, uint64_t gen, const struct cfs_attr *a)
{
	uint64_t ino = cfs_le64_to_cpu(a->ino), parent = cfs_le64_to_cpu(a->parent);
	struct file_ent *f = file_find(c, ino);
	struct attr_ent *e = attr_find(c, ino);

	if (cfs_breaks_attr(&c->breaks, gen, ino, parent ? parent : ino) || own_change(c, 0, ino))
		return;
	if ((!parent && (!f || !f->lease)) || (f && (f->dirty || f->flushing)))
		return;
	for (unsigned i = 0; !e && i < CACHE; i++)
		if (!c->attrs[i].attr.ino)
			e = &c->attrs[i];
	if (!e)
		e = &c->attrs[pick(CACHE)];
	e->attr = *a;
	if (parent)
		keep_dir(c, parent);
	W->st.kept++;
}

/* nobody else may believe in anything that an exclusive lease excludes */
static void check_exclusion(struct client_s *c, uint64_t ino, unsigned lease)
{
	for (unsigned i = 0; i < W->n_clients; i++) {
		struct client_s *o = &W->clients[i];
		struct file_ent *f = o != c && client_live(o) ? file_find(o, ino) : NULL;

		if (f && (f->lease == CFS_LEASE_EXCL || (f->lease && lease == CFS_LEASE_EXCL)))
			fail("client %u gets lease %u on inode %" PRIu64 " while client %u has %u", c->i, lease, ino, i, f->lease);
		if (o != c && lease == CFS_LEASE_EXCL && client_live(o) && attr_find(o, ino) && !own_change(o, 0, ino))
			fail("client %u gets inode %" PRIu64 " exclusively while client %u keeps its attributes", c->i, ino, i);
	}
}

void keep_lease(struct client_s *c, uint64_t gen, const struct cfs_attr *a, unsigned lease)
{
	uint64_t ino = cfs_le64_to_cpu(a->ino);
	struct file_ent *f = file_find(c, ino);

	if (!lease || !S_ISREG(cfs_le32_to_cpu(a->mode)) || cfs_breaks_data(&c->breaks, gen, ino) || own_change(c, 0, ino))
		return;
	if ((f && f->lease >= lease) || client_clock(c) >= c->deadline_ns)
		return;
	check_exclusion(c, ino, lease);
	f = file_make(c, ino);
	if (!f->lease)
		f->known = false;
	f->lease = lease;
	trace("client %u has lease %u on %" PRIu64, c->i, lease, ino);
}

/* ---- what to do next -------------------------------------------------------------------------------------------------------- */

static uint64_t some_dir(void)
{
	unsigned n = (unsigned)cfs_min((size_t)W->n_dirs, CFS_ARRAY_SIZE(W->dirs));
	uint64_t dir = CFS_INO_ROOT;

	if (n > 1 && cfs_sim_chance(W->sim, 550000))
		dir = W->dirs[(W->n_dirs - 1 - pick(cfs_min(n, 4u))) % CFS_ARRAY_SIZE(W->dirs)];
	return dir;
}

static uint64_t some_ino(void)
{
	for (unsigned i = 0; i < 4; i++) {
		uint64_t ino = inode_of(some_dir())->ents[pick(W->focus)];

		if (ino)
			return ino;
	}
	return CFS_INO_ROOT;
}

static uint64_t some_file(void)
{
	for (unsigned i = 0; i < 4; i++) {
		uint64_t ino = some_ino();

		if (S_ISREG(inode_of(ino)->mode))
			return ino;
	}
	return 0;
}

static void mutate(struct client_s *c, unsigned t, uint16_t op, size_t len)
{
	c->th[t].job = JOB_MUTATE;
	c->th[t].r.op = op;
	note_own(c, &c->th[t]);
	req_start(c, t, op, (uint32_t)len);
}

static void lookup(struct client_s *c, unsigned t)
{
	struct thread *th = &c->th[t];
	struct name_ent *n = name_find(c, th->dir, th->name);

	if (n && client_live(c) && !own_change(c, th->dir, 0) && pick(4)) {
		W->st.cached++;
		check_name(c, th->dir, th->name, n->ino, now(), "its cache");
		return;
	}
	th->job = JOB_READ_META;
	req_start(c, t, CFS_OP_LOOKUP, (uint32_t)body_lookup(th->r.body, th->dir, name_text(th->name), 0));
}

static void getattr(struct client_s *c, unsigned t, uint64_t ino)
{
	struct thread *th = &c->th[t];
	struct attr_ent *a = attr_find(c, ino);

	th->dir = 0;
	if (a && client_live(c) && !own_change(c, 0, ino) && pick(4)) {
		W->st.cached++;
		check_attr(c, &a->attr, now(), true, true, "its cache");
		return;
	}
	th->ino = ino;
	th->job = JOB_READ_META;
	memcpy(th->r.body, &(cfs_le64){ cfs_cpu_to_le64(ino) }, 8);
	req_start(c, t, CFS_OP_GETATTR, 8);
}

static void readdir(struct client_s *c, unsigned t)
{
	struct thread *th = &c->th[t];
	struct cfs_readdir_req q = { .dir = cfs_cpu_to_le64(th->dir), .max_bytes = cfs_cpu_to_le32(32768),
		.flags = cfs_cpu_to_le32(pick(2) ? CFS_READDIR_PLUS : 0) };

	th->job = JOB_READ_META;
	memcpy(th->r.body, &q, sizeof(q));
	req_start(c, t, CFS_OP_READDIR, sizeof(q));
}

static void lock(struct client_s *c, unsigned t)
{
	struct thread *th = &c->th[t];
	uint64_t ino = th->has_locks ? th->lock_ino : some_file();
	unsigned a = pick(CELLS), b = a + pick(CELLS - a);
	uint8_t kind = pick(2) ? CFS_LOCK_READ : CFS_LOCK_WRITE;

	if (!ino)
		return;
	if (th->has_locks && (W->calm || pick(3))) {
		a = 0;
		b = CELLS - 1;
		kind = CFS_LOCK_UNLOCK;
	}
	th->dir = 0;
	th->lock_ino = ino;
	th->cancelled = false;
	th->job = JOB_LOCK;
	req_start(c, t, CFS_OP_LOCK, (uint32_t)body_lock(th->r.body, ino, t + 1, 8 * a, 8 * b + 7, kind,
							 kind != CFS_LOCK_UNLOCK && pick(2)));
}

static bool release(struct client_s *c, unsigned t)
{
	struct thread *th = &c->th[t];

	for (unsigned i = 0; i < CACHE; i++) {
		struct file_ent *f = &c->files[i];
		struct {
			struct cfs_release_req q;
			cfs_le64 ino;
		} b = { .q.n = cfs_cpu_to_le32(1) };

		if (!f->ino || !f->orphan || f->dirty || f->flushing)
			continue;
		/* it ends the lease, too, should the file still have links */
		b.ino = cfs_cpu_to_le64(f->ino);
		th->ino = f->ino;
		note_ino(c, f->ino, CFS_BRK_ATTR | CFS_BRK_DATA);
		file_drop(c, f);
		th->job = JOB_RELEASE;
		memcpy(th->r.body, &b, sizeof(b));
		req_start(c, t, CFS_OP_RELEASE, sizeof(b));
		return true;
	}
	return false;
}

static bool flush_some(struct client_s *c, unsigned t)
{
	unsigned first = pick(CACHE);

	for (unsigned i = 0; i < CACHE; i++) {
		struct file_ent *f = &c->files[(first + i) % CACHE];

		if (f->ino && f->dirty && flush_start(c, t, f))
			return true;
	}
	return false;
}

static void truncate_to(struct client_s *c, unsigned t, uint64_t ino)
{
	struct thread *th = &c->th[t];
	struct file_ent *f = file_find(c, ino);

	if (!ino || (f && (f->dirty || f->flushing)))
		return;
	if (f) {
		f->known = false;
		f->ver++;
	}
	th->dir = 0;
	th->ino = ino;
	mutate(c, t, CFS_OP_SETATTR, body_truncate(th->r.body, ino, pick(3) ? 0 : pick(W->n_servers > 1 ? 4096 : 9000)));
}

static void busy(struct client_s *c, unsigned t)
{
	struct thread *th = &c->th[t];
	struct cfs_lock_req q;

	if (th->job != JOB_LOCK || !th->r.sent || th->cancelled || client_clock(c) < th->r.sent_ns + 400 * MS)
		return;
	memcpy(&q, th->r.body, sizeof(q));
	q.kind = CFS_LOCK_CANCEL;
	th->cancelled = true;
	req_aside(c, CFS_OP_LOCK, &q, sizeof(q));
	th->next_ns = client_clock(c) + 200 * MS;
	th->r.sent_ns = client_clock(c);
	th->cancelled = false;		/* and again, should it get lost */
}

static void choose(struct client_s *c, unsigned t)
{
	struct thread *th = &c->th[t];
	uint64_t ino;
	unsigned dice = pick(100) < W->readers ? pick(33) : pick(100);

	if (dice < 18) {
		lookup(c, t);
	} else if (dice < 28) {
		getattr(c, t, pick(3) ? some_ino() : th->dir);
	} else if (dice < 33) {
		readdir(c, t);
	} else if (dice < 44) {
		mutate(c, t, CFS_OP_MKNODE, body_mknode(th->r.body, th->dir, name_text(th->name), S_IFREG | 0600 | pick(64),
							pick(2) ? CFS_MK_LEASE : 0));
	} else if (dice < 47) {
		mutate(c, t, CFS_OP_MKNODE, body_mknode(th->r.body, th->dir, name_text(th->name), S_IFDIR | 0755, 0));
	} else if (dice < 55) {
		mutate(c, t, CFS_OP_UNLINK, body_unlink(th->r.body, th->dir, name_text(th->name), dice == 54, 0, false));
	} else if (dice < 63) {
		th->dir2 = some_dir();
		th->name2 = pick(W->focus);
		mutate(c, t, CFS_OP_RENAME, body_rename(th->r.body, th->dir, name_text(th->name), th->dir2, name_text(th->name2),
							pick(4) ? 0 : 1 + pick(2)));
	} else if (dice < 66) {
		ino = some_file();
		if (!ino)
			return;
		th->ino = ino;
		mutate(c, t, CFS_OP_LINK, body_link(th->r.body, ino, th->dir, name_text(th->name)));
	} else if (dice < 70) {
		th->dir = 0;
		th->ino = some_ino();
		mutate(c, t, CFS_OP_SETATTR, body_chmod(th->r.body, th->ino, 0600 + pick(0100)));
	} else if (dice < 72) {
		truncate_to(c, t, some_file());
	} else if (dice < 88) {
		th->dir = 0;
		ino = some_file();
		if (ino)
			data_start(c, t, W->hot && pick(2) ? W->hot : ino, dice >= 79);
	} else if (dice < 93) {
		flush_some(c, t);
	} else if (dice < 98) {
		lock(c, t);
	} else {
		release(c, t);
	}
}

void work_start(struct client_s *c, unsigned t)
{
	struct thread *th = &c->th[t];

	if (th->r.busy || th->job != JOB_NONE) {
		busy(c, t);
		return;
	}
	th->dir = th->dir2 = th->ino = 0;
	th->next_ns = client_clock(c) + cfs_sim_below(W->sim, 12 * MS);
	if (W->calm) {
		if (th->has_locks)
			lock(c, t);
		else if (!flush_some(c, t))
			release(c, t);
		return;
	}
	th->dir = some_dir();
	th->name = pick(W->focus);
	choose(c, t);
}

/* ---- answers ------------------------------------------------------------------------------------------------------------------- */

/* the part of a reply that is in the log; a COMMIT's flags are the leader's own */
static bool same_reply(uint16_t op, const uint8_t *got, const uint8_t *applied, size_t n)
{
	const size_t flags = sizeof(struct cfs_commit_rep) + offsetof(struct cfs_commit_result, flags), after = flags + sizeof(cfs_le32);

	if (op != CFS_OP_COMMIT)
		return !memcmp(got, applied, n);
	return !memcmp(got, applied, flags) && !memcmp(got + after, applied + after, n - after);
}

/* what a mutation's reply says must be what its record says, and that be from between request and reply */
static void check_mutation(struct client_s *c, unsigned t, const struct cfs_msg *msg)
{
	struct req *r = &c->th[t].r;
	struct record *rec = record_of(c->session, t, r->seq);
	uint32_t status = cfs_le32_to_cpu(msg->hdr.status), len = cfs_le32_to_cpu(msg->hdr.body_len);
	size_t n = r->op == CFS_OP_UNLINK || r->op == CFS_OP_RENAME ? 288 : r->op == CFS_OP_COMMIT ? 168 :
		r->op == CFS_OP_LOCK || r->op == CFS_OP_RELEASE ? 0 : 144;

	if (!rec) {
		fail("client %u: (%" PRIu64 ", %u, %" PRIu64 ") opcode %u is answered, and was never applied", c->i, c->session, t, r->seq,
		     r->op);
		return;
	}
	if (rec->t < r->inv_ns || rec->t > now())
		fail("client %u: (%" PRIu64 ", %u, %" PRIu64 ") was applied at %" PRIu64 ", asked for at %" PRIu64, c->i, c->session, t,
		     r->seq, rec->t, r->inv_ns);
	else if (rec->status != status)
		fail("client %u: (%" PRIu64 ", %u, %" PRIu64 ") opcode %u: reply %u, applied %u", c->i, c->session, t, r->seq, r->op, status,
		     rec->status);
	else if (!status && (len < n || !same_reply(r->op, msg->body, rec->rep, n)))
		fail("client %u: (%" PRIu64 ", %u, %" PRIu64 ") opcode %u: the reply is not what was applied", c->i, c->session, t, r->seq,
		     r->op);
}

static void mutated(struct client_s *c, unsigned t, struct cfs_msg *msg)
{
	struct thread *th = &c->th[t];
	const struct cfs_entry_rep *e = msg->body;
	const struct cfs_attr_rep *ar = msg->body;
	const struct cfs_unlink_rep *u = msg->body;
	const struct cfs_rename_rep *rn = msg->body;
	uint64_t gen = th->r.gen, ino = 0, other = 0;
	struct file_ent *f;
	bool orphan = false;

	th->job = JOB_NONE;
	if (msg->hdr.status) {
		note_own(c, th);
		return;
	}
	switch (th->r.op) {
	case CFS_OP_MKNODE:
	case CFS_OP_LINK:
		keep_lease(c, gen, &e->attr, cfs_le32_to_cpu(e->lease));
		if (th->r.op == CFS_OP_MKNODE) {
			f = file_find(c, cfs_le64_to_cpu(e->attr.ino));
			if (f && f->lease == CFS_LEASE_EXCL && !f->known && !f->ver) {
				f->known = f->open = true;	/* it is empty */
				f->size = 0;
				memset(f->data, 0, FILE_MAX);
			}
		}
		if (cfs_le32_to_cpu(e->valid) & CFS_V_ENTRY)
			keep_name(c, gen, th->dir, th->name, cfs_le64_to_cpu(e->attr.ino));
		if (cfs_le32_to_cpu(e->valid) & CFS_V_ATTR)
			keep_attr(c, gen, &e->attr);
		break;
	case CFS_OP_SETATTR:
		keep_lease(c, gen, &ar->attr, cfs_le32_to_cpu(ar->lease));
		if (cfs_le32_to_cpu(ar->valid) & CFS_V_ATTR)
			keep_attr(c, gen, &ar->attr);
		break;
	case CFS_OP_UNLINK:
		if (cfs_le32_to_cpu(u->valid) & CFS_V_ENTRY)
			keep_name(c, gen, th->dir, th->name, 0);
		if (cfs_le32_to_cpu(u->valid) & CFS_V_DIRATTR)
			keep_attr(c, gen, &u->dirattr);
		ino = cfs_le64_to_cpu(u->attr.ino);
		orphan = u->orphan;
		other = u->attr.nlink ? 0 : ino;
		break;
	case CFS_OP_RENAME:
		ino = cfs_le64_to_cpu(rn->attr.ino);
		other = cfs_le64_to_cpu(rn->other.ino);
		note_ino(c, other, CFS_BRK_ATTR);
		orphan = rn->orphan;
		if (rn->other.nlink)
			other = 0;
		break;
	}
	/* others of its replies on their way are from before or after this, who knows */
	for (unsigned i = 0; i < 2; i++)
		if (i ? th->dir2 : th->dir)
			cfs_breaks_note(&c->breaks, CFS_BRK_NAME | CFS_BRK_DIRATTR, i ? th->dir2 : th->dir, 0, NULL, 0);
	if (th->ino)
		cfs_breaks_note(&c->breaks, ino_flags(th), 0, th->ino, NULL, 0);
	note_ino(c, ino, CFS_BRK_ATTR);
	f = other ? file_find(c, other) : NULL;
	if (f && orphan)
		f->orphan = true;
	else if (f)
		file_drop(c, f);
	else if (orphan && other)
		file_make(c, other)->orphan = true;
}

static void listed(struct client_s *c, struct thread *th, struct cfs_msg *msg)
{
	uint32_t flags = cfs_le32_to_cpu(((struct cfs_readdir_req *)(void *)th->r.body)->flags), n, more;
	uint64_t h[4] = { 0 }, seen[NAMES] = { 0 };
	struct cfs_cursor cur;
	struct cfs_readdir_rep rep;

	cfs_cursor_init(&cur, msg->body, cfs_le32_to_cpu(msg->hdr.body_len));
	cfs_take_struct(&cur, &rep);
	n = cfs_le32_to_cpu(rep.n);
	more = cfs_le32_to_cpu(rep.flags);
	for (uint32_t i = 0; i < n && !W->failed; i++) {
		struct cfs_dirent d;
		struct cfs_attr a;
		const char *name;
		size_t used;
		int k;

		cfs_take_struct(&cur, &d);
		if (flags & CFS_READDIR_PLUS)
			cfs_take_struct(&cur, &a);
		name = cfs_take(&cur, cfs_le16_to_cpu(d.name_len), "name");
		used = cfs_le32_to_cpu(msg->hdr.body_len) - cur.left;
		cfs_take(&cur, cfs_align_up(used, 8) - used, "pad");
		k = name ? name_index(name, cfs_le16_to_cpu(d.name_len)) : -1;
		if (k < 0 || seen[k]) {
			fail("client %u: READDIR of %" PRIu64 " has a name twice or one that nobody made", c->i, th->dir);
			return;
		}
		seen[k] = cfs_le64_to_cpu(d.ino);
		h[0] ^= cfs_hash_u64(seen[k] * NAMES + (unsigned)k);
		if (d.valid & CFS_V_ENTRY)
			keep_name(c, th->r.gen, th->dir, (unsigned)k, seen[k]);
		if (flags & CFS_READDIR_PLUS) {
			check_attr(c, &a, th->r.inv_ns, d.valid & CFS_V_ATTR, d.valid & CFS_V_ATTR, "READDIR");
			if (d.valid & CFS_V_ATTR)
				keep_attr(c, th->r.gen, &a);
		}
	}
	if (cfs_cursor_end(&cur) || !(more & CFS_READDIR_EOF))
		fail("client %u: READDIR of %" PRIu64 ": %s", c->i, th->dir, cur.err ? cur.err : "no end");
	else if (!hist_match(&inode_of(th->dir)->list, th->r.inv_ns, now(), 1, h))
		fail("client %u: READDIR of %" PRIu64 " in %" PRIu64 "..%" PRIu64 " gives a list that never was", c->i, th->dir, th->r.inv_ns,
		     now());
	for (unsigned k = 0; k < NAMES && more & CFS_READDIR_KEEP; k++)
		if (!seen[k])
			keep_name(c, th->r.gen, th->dir, k, 0);
}

static void read_meta(struct client_s *c, unsigned t, struct cfs_msg *msg)
{
	struct thread *th = &c->th[t];
	const struct cfs_entry_rep *e = msg->body;
	const struct cfs_attr_rep *ar = msg->body;
	uint32_t status = cfs_le32_to_cpu(msg->hdr.status), valid;
	uint64_t from = th->r.inv_ns;

	th->job = JOB_NONE;
	W->st.reads++;
	if (th->r.op == CFS_OP_LOOKUP && (!status || status == ENOENT) && msg->hdr.body_len) {
		uint64_t ino = cfs_le64_to_cpu(e->attr.ino);

		valid = cfs_le32_to_cpu(e->valid);
		if ((status == ENOENT) != !ino)
			fail("client %u: LOOKUP gives status %u with inode %" PRIu64, c->i, status, ino);
		check_name(c, th->dir, th->name, ino, from, "LOOKUP");
		if (ino && !W->failed) {
			check_attr(c, &e->attr, from, valid & CFS_V_ATTR, valid & CFS_V_ATTR, "LOOKUP");
			keep_lease(c, th->r.gen, &e->attr, cfs_le32_to_cpu(e->lease));
			if (valid & CFS_V_ATTR)
				keep_attr(c, th->r.gen, &e->attr);
		}
		if (valid & CFS_V_ENTRY)
			keep_name(c, th->r.gen, th->dir, th->name, ino);
	} else if (status == ENOENT || status == ESTALE) {
		check_gone(c, th->ino ? th->ino : th->dir, from, "a reply");
	} else if (status) {
		fail("client %u: opcode %u is answered with %u", c->i, th->r.op, status);
	} else if (th->r.op == CFS_OP_READDIR) {
		listed(c, th, msg);
	} else if (th->r.op == CFS_OP_GETATTR) {
		valid = cfs_le32_to_cpu(ar->valid);
		check_attr(c, &ar->attr, from, true, valid & CFS_V_ATTR, "GETATTR");
		keep_lease(c, th->r.gen, &ar->attr, cfs_le32_to_cpu(ar->lease));
		if (valid & CFS_V_ATTR)
			keep_attr(c, th->r.gen, &ar->attr);
	}
}

static void locked(struct client_s *c, unsigned t, struct cfs_msg *msg)
{
	struct thread *th = &c->th[t];
	struct cfs_lock_req q;

	memcpy(&q, th->r.body, sizeof(q));
	th->job = JOB_NONE;
	if (!msg->hdr.status)
		th->has_locks = q.kind != CFS_LOCK_UNLOCK;
	else if (cfs_le32_to_cpu(msg->hdr.status) == ENOENT || cfs_le32_to_cpu(msg->hdr.status) == ESTALE)
		th->has_locks = false;
	else if (q.kind == CFS_LOCK_UNLOCK)
		fail("client %u: unlocking inode %" PRIu64 " gives %u", c->i, th->lock_ino, cfs_le32_to_cpu(msg->hdr.status));
}

void work_reply(struct client_s *c, unsigned t, struct cfs_msg *msg)
{
	struct thread *th = &c->th[t];

	trace("client %u/%u: opcode %u dir %" PRIu64 "/%u ino %" PRIu64 ": %u", c->i, t, th->r.op, th->dir, th->name, th->ino,
	      cfs_le32_to_cpu(msg->hdr.status));
	if (th->r.mutates)
		check_mutation(c, t, msg);
	switch (th->job) {
	case JOB_MUTATE:
		mutated(c, t, msg);
		break;
	case JOB_READ_META:
		read_meta(c, t, msg);
		break;
	case JOB_LOCK:
		locked(c, t, msg);
		break;
	case JOB_RELEASE:
		th->job = JOB_NONE;
		note_ino(c, th->ino, CFS_BRK_ATTR | CFS_BRK_DATA);
		break;
	case JOB_READ:
	case JOB_WRITE:
	case JOB_FLUSH:
		data_reply(c, t, msg);
		break;
	case JOB_NONE:
		break;
	}
}
