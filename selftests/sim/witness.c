/* SPDX-License-Identifier: MIT */
/*
 * witness.c - the order of things. Every log entry passes here when a replica applies it (the linker puts
 * __wrap_cfs_meta_apply() in between), and is the witness of linearizability: a sequential model carries out the same
 * request and must come to the same result, and what changes is written into histories with the time of the change, so
 * that any answer to a read can be asked whether it was true at some moment between request and reply.
 *
 * The model knows names, link counts, modes, sizes, contents, orphans and locks, by itself; change counters it learns.
 */
#include "sim_i.h"

int __real_cfs_meta_apply(struct cfs_meta *m, uint64_t index, const void *entry, size_t len,
			  void (*sink)(void *arg, unsigned rec, uint32_t status, const void *body, uint32_t body_len),
			  void *arg);
int __wrap_cfs_meta_apply(struct cfs_meta *m, uint64_t index, const void *entry, size_t len,
			  void (*sink)(void *arg, unsigned rec, uint32_t status, const void *body, uint32_t body_len),
			  void *arg);

/* ---- histories ------------------------------------------------------------------------------------------- */

void hist_add(struct hist *h, uint64_t t, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	struct ver v = { t, { a, b, c, d } };

	if (h->n && !memcmp(h->ver[h->n - 1].v, v.v, sizeof(v.v)))
		return;
	if (h->n == h->cap) {
		h->cap = h->cap ? h->cap * 2 : 4;
		h->ver = xrealloc(h->ver, h->cap * sizeof(h->ver[0]));
	}
	h->ver[h->n++] = v;
}

bool hist_match(const struct hist *h, uint64_t from, uint64_t to, unsigned mask, const uint64_t v[4])
{
	for (unsigned i = h->n; i--;) {
		bool same = true;

		if (h->ver[i].t > to)
			continue;
		for (unsigned k = 0; k < 4; k++)
			same = same && (!(mask & 1u << k) || h->ver[i].v[k] == v[k]);
		if (same)
			return true;
		if (h->ver[i].t < from)		/* older ones ended before */
			return false;
	}
	return false;
}

char *hist_text(const struct hist *h, uint64_t from, uint64_t to)
{
	static char text[1024];
	size_t n = 0;

	text[0] = 0;
	for (unsigned i = 0; i < h->n && n < sizeof(text) - 200; i++) {
		const struct ver *v = &h->ver[i];

		if (v->t > to || (i + 1 < h->n && h->ver[i + 1].t < from))
			continue;
		n += (size_t)snprintf(text + n, sizeof(text) - n, " [%" PRIu64 ": %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIu64 "]",
				      v->t, v->v[0], v->v[1], v->v[2], v->v[3]);
	}
	return text;
}

/* ---- tables ------------------------------------------------------------------------------------------------ */

struct inode *inode_of(uint64_t ino)
{
	struct inode *in = ino && ino < INOS_MAX ? &W->inos[ino] : NULL;

	if (in && !in->attr.n) {
		in->ino = ino;
		hist_add(&in->attr, 0, 0, 0, 0, 0);
		hist_add(&in->bytes, 0, 0, bytes_hash(NULL, 0), 0, 0);
		hist_add(&in->list, 0, 0, 0, 0, 0);
		for (unsigned i = 0; i < NAMES; i++)
			hist_add(&in->names[i], 0, 0, 0, 0, 0);
	}
	return in;
}

struct session *session_of(uint64_t id)
{
	for (unsigned i = W->n_sessions; i--;)
		if (W->sessions[i].id == id)
			return &W->sessions[i];
	return NULL;
}

struct record *record_of(uint64_t session, unsigned slot, uint64_t seq)
{
	struct session *s = session_of(session);
	struct slot_hist *h = s && slot < SLOTS ? &s->slots[slot] : NULL;

	return h && seq && seq <= h->n ? &h->rec[seq - 1] : NULL;
}

struct object *object_of(const struct cfs_oid *oid)
{
	for (unsigned i = W->n_objects; i--;)
		if (!memcmp(&W->objects[i].oid, oid, sizeof(*oid)))
			return &W->objects[i];
	return NULL;
}

struct object *object_new(const struct cfs_oid *oid, const void *bytes, uint32_t len)
{
	struct object *o;

	if (W->n_objects == W->cap_objects) {
		W->cap_objects = W->cap_objects ? W->cap_objects * 2 : 64;
		W->objects = xrealloc(W->objects, W->cap_objects * sizeof(*o));
	}
	o = &W->objects[W->n_objects++];
	*o = (struct object){ .oid = *oid, .len = len, .bytes = xcalloc(len) };
	memcpy(o->bytes, bytes, len);
	return o;
}

static const char *const names[NAMES] = { "n0", "n1", "n2", "n3", "n4", "n5" };

const char *name_text(unsigned i)
{
	return names[i];
}

int name_index(const char *name, size_t len)
{
	return len == 2 && name[0] == 'n' && name[1] >= '0' && name[1] < (char)('0' + NAMES) ? name[1] - '0' : -1;
}

uint64_t bytes_hash(const uint8_t *data, uint64_t size)
{
	return size ? cfs_hash64(data, size, 1) : 1;
}

static uint8_t *content(struct inode *in)
{
	if (!in->data)
		in->data = xcalloc(FILE_MAX);
	return in->data;
}

void bytes_changed(struct inode *in)
{
	const struct file_ent *f = in->dirty ? file_find(&W->clients[in->dirty - 1], in->ino) : NULL;

	if (f)
		hist_add(&in->bytes, now(), f->size, bytes_hash(f->data, f->size), 0, 0);
	else
		hist_add(&in->bytes, now(), in->size, bytes_hash(content(in), in->size), 0, 0);
}

void dirty_set(struct client_s *c, uint64_t ino)
{
	struct inode *in = inode_of(ino);

	if (in->dirty && in->dirty != c->i + 1)
		fail("client %u and client %u both write inode %" PRIu64, c->i, in->dirty - 1, ino);
	in->dirty = c->i + 1;
	bytes_changed(in);
}

void dirty_drop(struct client_s *c, uint64_t ino)
{
	struct inode *in = inode_of(ino);

	if (in && in->dirty == c->i + 1) {
		in->dirty = 0;
		bytes_changed(in);
	}
}

/* ---- the model: one request after the other ------------------------------------------------------------------ */

/* statuses that would be right; none: it must succeed */
struct errs {
	unsigned n;
	uint32_t e[8];
};

static void err(struct errs *s, uint32_t e)
{
	s->e[s->n++] = e;
}

struct apply {
	uint64_t t, index;
	const struct cfs_log_rec *rec;
	const uint8_t *body;
	uint32_t len;
	const uint8_t *holders;
	unsigned n_holders;
	uint32_t status;
	const uint8_t *rep;
	uint32_t rep_len;
};

static uint64_t ent_hash(unsigned name, uint64_t ino)
{
	return ino ? cfs_hash_u64(ino * NAMES + name) : 0;
}

static void set_ent(struct inode *dir, unsigned name, uint64_t ino)
{
	uint64_t h = 0;

	dir->n_ents += !!ino;
	dir->n_ents -= !!dir->ents[name];
	dir->ents[name] = ino;
	hist_add(&dir->names[name], now(), ino, 0, 0, 0);
	for (unsigned i = 0; i < NAMES; i++)
		h ^= ent_hash(i, dir->ents[i]);
	hist_add(&dir->list, now(), h, 0, 0, 0);
}

static void note_attr(struct inode *in)
{
	if (in->exists)
		hist_add(&in->attr, now(), in->nlink, in->mode, in->parent, in->change);
	else
		hist_add(&in->attr, now(), 0, 0, 0, 0);
}

static void destroy(struct inode *in)
{
	in->exists = false;
	in->n_holders = 0;
	for (unsigned i = 0; i < CELLS; i++) {
		while (in->locks[i]) {
			struct lock *l = in->locks[i];

			in->locks[i] = l->next;
			free(l);
		}
	}
}

static void born(struct apply *a, uint64_t ino, uint32_t mode, uint64_t dir)
{
	struct inode *in = inode_of(ino);

	if (!in) {
		fail("inode number %" PRIu64 " is more than the simulator has room for", ino);
		return;
	}
	if (in->born)
		fail("entry %" PRIu64 ": inode number %" PRIu64 " was given out twice", a->index, ino);
	in->born = in->exists = true;
	in->mode = mode;
	in->nlink = S_ISDIR(mode) ? 2 : 1;
	in->parent = S_ISDIR(mode) ? ino : dir;
	in->dotdot = S_ISDIR(mode) ? dir : 0;
	in->size = 0;
	if (S_ISDIR(mode)) {
		W->dirs[W->n_dirs++ % CFS_ARRAY_SIZE(W->dirs)] = ino;
		inode_of(dir)->nlink++;
	}
}

static void lose(struct apply *a, struct inode *dir, struct inode *in)
{
	if (S_ISDIR(in->mode)) {
		in->nlink = 0;
		dir->nlink--;
	} else {
		in->nlink--;
	}
	if (in->nlink)
		return;
	if (!S_ISDIR(in->mode))
		in->parent = 0;
	in->n_holders = 0;
	for (unsigned i = 0; i < a->n_holders && i < CFS_ARRAY_SIZE(in->holders); i++) {
		struct session *s = session_of(cfs_get_le64(a->holders + 8 * i));

		if (s && s->open)
			in->holders[in->n_holders++] = s->id;
	}
	if (!in->n_holders)
		destroy(in);
}

static struct inode *live_dir(struct errs *e, uint64_t ino)
{
	struct inode *in = inode_of(ino);

	if (!in || !in->exists)
		err(e, ENOENT), err(e, ESTALE);
	else if (!S_ISDIR(in->mode))
		err(e, ENOTDIR);
	else if (!in->nlink)
		err(e, ENOENT);
	else
		return in;
	return NULL;
}

static bool is_below(uint64_t dir, uint64_t top)
{
	for (unsigned i = 0; i < INOS_MAX; i++) {
		if (dir == top)
			return true;
		if (dir == CFS_INO_ROOT)
			return false;
		dir = inode_of(dir)->dotdot;
	}
	return true;
}

static void do_mknode(struct apply *a, struct errs *e)
{
	const struct cfs_mknode_req *q = (const void *)a->body;
	int n = name_index((const char *)(q + 1), cfs_le32_to_cpu(q->name_len));
	struct inode *dir = live_dir(e, cfs_le64_to_cpu(q->dir));
	uint64_t ino;

	if (dir && dir->ents[n])
		err(e, EEXIST);
	if (e->n || a->status)
		return;
	ino = cfs_get_le64(a->rep);
	born(a, ino, cfs_le32_to_cpu(q->mode), dir->ino);
	set_ent(dir, (unsigned)n, ino);
	trace("  made %" PRIu64 " as %" PRIu64 "/%s", ino, dir->ino, names[n]);
}

static void do_link(struct apply *a, struct errs *e)
{
	const struct cfs_link_req *q = (const void *)a->body;
	int n = name_index((const char *)(q + 1), cfs_le32_to_cpu(q->name_len));
	struct inode *in = inode_of(cfs_le64_to_cpu(q->ino)), *dir = live_dir(e, cfs_le64_to_cpu(q->dir));

	if (!in || !in->exists)
		err(e, ENOENT), err(e, ESTALE);
	else if (S_ISDIR(in->mode))
		err(e, EPERM);
	if (dir && dir->ents[n])
		err(e, EEXIST);
	if (e->n || a->status)
		return;
	in->parent = in->nlink ? 0 : dir->ino;
	if (!in->nlink)
		in->n_holders = 0;
	in->nlink++;
	set_ent(dir, (unsigned)n, in->ino);
}

static void do_unlink(struct apply *a, struct errs *e)
{
	const struct cfs_unlink_req *q = (const void *)a->body;
	int n = name_index((const char *)(q + 1), cfs_le32_to_cpu(q->name_len));
	struct inode *dir = live_dir(e, cfs_le64_to_cpu(q->dir)), *in = NULL;

	if (dir && !dir->ents[n])
		err(e, ENOENT);
	else if (dir)
		in = inode_of(dir->ents[n]);
	if (in && !q->rmdir && S_ISDIR(in->mode))
		err(e, EISDIR);
	if (in && q->rmdir && !S_ISDIR(in->mode))
		err(e, ENOTDIR);
	if (in && S_ISDIR(in->mode) && in->n_ents)
		err(e, ENOTEMPTY);
	if (e->n || a->status)
		return;
	set_ent(dir, (unsigned)n, 0);
	lose(a, dir, in);
}

static void do_rename(struct apply *a, struct errs *e)
{
	const struct cfs_rename_req *q = (const void *)a->body;
	const char *s = (const char *)(q + 1);
	uint32_t len = cfs_le32_to_cpu(q->old_len), flags = cfs_le32_to_cpu(q->flags);
	int n1 = name_index(s, len), n2 = name_index(s + len, cfs_le32_to_cpu(q->new_len));
	struct inode *od = live_dir(e, cfs_le64_to_cpu(q->old_dir)), *nd = live_dir(e, cfs_le64_to_cpu(q->new_dir)), *x, *y;

	if (!od || !nd)
		return;
	if (!od->ents[n1]) {
		err(e, ENOENT);
		return;
	}
	x = inode_of(od->ents[n1]);
	y = nd->ents[n2] ? inode_of(nd->ents[n2]) : NULL;
	if (y && flags & 1)
		err(e, EEXIST);
	if (!y && flags & 2)
		err(e, ENOENT);
	if (x != y && S_ISDIR(x->mode) && is_below(nd->ino, x->ino))
		err(e, EINVAL);
	if (x != y && flags & 2 && y && S_ISDIR(y->mode) && is_below(od->ino, y->ino))
		err(e, EINVAL);
	if (y && x != y && !(flags & 2)) {
		if (S_ISDIR(x->mode) && !S_ISDIR(y->mode))
			err(e, ENOTDIR);
		if (!S_ISDIR(x->mode) && S_ISDIR(y->mode))
			err(e, EISDIR);
		if (S_ISDIR(y->mode) && y->n_ents)
			err(e, ENOTEMPTY);
	}
	if (e->n || a->status || x == y)
		return;
	if (flags & 2) {
		set_ent(od, (unsigned)n1, y->ino);
		if (S_ISDIR(y->mode))
			nd->nlink--, od->nlink++, y->dotdot = od->ino;
		else if (y->nlink == 1)
			y->parent = od->ino;
	} else {
		set_ent(od, (unsigned)n1, 0);
		if (y)
			lose(a, nd, y);
	}
	set_ent(nd, (unsigned)n2, x->ino);
	if (S_ISDIR(x->mode))
		od->nlink--, nd->nlink++, x->dotdot = nd->ino;
	else if (x->nlink == 1)
		x->parent = nd->ino;
}

static void do_setattr(struct apply *a, struct errs *e)
{
	const struct cfs_setattr_req *q = (const void *)a->body;
	struct inode *in = inode_of(cfs_le64_to_cpu(q->ino));
	uint32_t valid = cfs_le32_to_cpu(q->valid);
	uint64_t size = cfs_le64_to_cpu(q->size);

	if (!in || !in->exists)
		err(e, ENOENT), err(e, ESTALE);
	else if (valid & CFS_SA_SIZE && !S_ISREG(in->mode))
		err(e, S_ISDIR(in->mode) ? EISDIR : EINVAL);
	if (e->n || a->status)
		return;
	if (valid & CFS_SA_MODE)
		in->mode = (in->mode & S_IFMT) | (cfs_le32_to_cpu(q->mode) & 07777);
	if (valid & CFS_SA_SIZE) {
		if (size < in->size)
			memset(content(in) + size, 0, in->size - size);
		in->size = size;
		bytes_changed(in);
	}
}

/* landed: where the result says that an append went */
static uint32_t commit_one(const struct cfs_commit_item *it, const uint8_t *data, const uint8_t *exts, uint64_t landed)
{
	struct inode *in = inode_of(cfs_le64_to_cpu(it->ino));
	uint32_t n = cfs_le32_to_cpu(it->inline_len), flags = cfs_le32_to_cpu(it->flags);
	uint64_t base = 0;
	struct cfs_extent x;

	if (!in || !in->exists)
		return ENOENT;
	if (flags & CFS_CI_APPEND) {
		base = in->size;
		if (landed != base)
			fail("inode %" PRIu64 ": appended at %" PRIu64 ", its end was %" PRIu64, in->ino, landed, base);
	}
	if (flags & CFS_CI_PATCH) {
		uint64_t at = flags & CFS_CI_APPEND ? base : cfs_le64_to_cpu(it->size);

		if (at + n > CFS_INLINE_MAX) {
			fail("inode %" PRIu64 " has %" PRIu64 " bytes in it", in->ino, at + n);
			return 0;
		}
		memcpy(content(in) + at, data, n);
		in->size = cfs_max(in->size, at + n);
		bytes_changed(in);
		return 0;
	}
	if (cfs_le32_to_cpu(it->flags) & CFS_CI_INLINE) {
		memset(content(in), 0, FILE_MAX);
		memcpy(in->data, data, n);
		in->size = n;
	}
	for (uint32_t i = 0; i < cfs_le32_to_cpu(it->n_extents); i++) {
		struct object *o;
		uint64_t off;

		cfs_copy_elem(&x, exts, i);
		o = object_of(&x.oid);
		off = base + cfs_le64_to_cpu(x.file_off);
		if (!o || off + cfs_le32_to_cpu(x.len) > FILE_MAX || cfs_le32_to_cpu(x.obj_off) + cfs_le32_to_cpu(x.len) > o->len) {
			fail("a COMMIT names an object that nobody wrote");
			return 0;
		}
		o->committed = true;
		memcpy(content(in) + off, o->bytes + cfs_le32_to_cpu(x.obj_off), cfs_le32_to_cpu(x.len));
		in->size = cfs_max(in->size, off + cfs_le32_to_cpu(x.len));
	}
	in->size = cfs_max(in->size, cfs_le64_to_cpu(it->size));
	bytes_changed(in);
	return 0;
}

static void do_commit(struct apply *a)
{
	uint32_t n = cfs_get_le32(a->body), want;
	const uint8_t *p = a->body + sizeof(struct cfs_commit_req);

	for (uint32_t i = 0; i < n && !a->status; i++) {
		const uint8_t *at = a->rep + sizeof(struct cfs_commit_rep) + i * sizeof(struct cfs_commit_result);
		uint32_t got = cfs_get_le32(at);
		struct cfs_commit_item it;
		const uint8_t *data, *exts;

		memcpy(&it, p, sizeof(it));
		data = p + sizeof(it);
		exts = data + cfs_le32_to_cpu(it.inline_len);
		p = exts + cfs_le32_to_cpu(it.n_extents) * sizeof(struct cfs_extent);
		if (got == ENOENT || got == ESTALE) {
			struct inode *in = inode_of(cfs_le64_to_cpu(it.ino));

			if (in && in->exists)
				fail("entry %" PRIu64 ": COMMIT says inode %" PRIu64 " is gone, it is not", a->index, in->ino);
			continue;
		}
		/* refused by what the file is made of, which we do not know */
		if (got == EMSGSIZE && cfs_le32_to_cpu(it.flags) & CFS_CI_PATCH)
			continue;
		if (got == EINVAL && it.n_extents && !it.size)	/* written through */
			continue;
		want = got == ENOSPC ? ENOSPC : commit_one(&it, data, exts, cfs_get_le64(at + offsetof(struct cfs_commit_result, off)));
		if (got != want)
			fail("entry %" PRIu64 ": COMMIT to inode %" PRIu64 " gave %u, right is %u", a->index,
			     cfs_le64_to_cpu(it.ino), got, want);
	}
}

static bool conflicts(struct inode *in, unsigned cell, uint64_t session, uint64_t owner, unsigned kind)
{
	for (struct lock *l = in->locks[cell]; l; l = l->next)
		if ((l->session != session || l->owner != owner) && (l->kind == CFS_LOCK_WRITE || kind == CFS_LOCK_WRITE))
			return true;
	return false;
}

static void unlock(struct inode *in, unsigned cell, uint64_t session, uint64_t owner, bool any)
{
	for (struct lock **p = &in->locks[cell]; *p;) {
		struct lock *l = *p;

		if (l->session == session && (any || l->owner == owner)) {
			*p = l->next;
			free(l);
		} else {
			p = &l->next;
		}
	}
}

static void do_lock(struct apply *a, struct errs *e)
{
	const struct cfs_lock_req *q = (const void *)a->body;
	struct inode *in = inode_of(cfs_le64_to_cpu(q->ino));
	uint64_t first = cfs_le64_to_cpu(q->start) / 8, last = cfs_le64_to_cpu(q->end) / 8;
	uint64_t session = cfs_le64_to_cpu(a->rec->session), owner = cfs_le64_to_cpu(q->owner);
	bool bad = false;

	if (!in || !in->exists) {
		err(e, ENOENT), err(e, ESTALE);
		return;
	}
	if (q->kind != CFS_LOCK_UNLOCK)
		for (uint64_t i = first; i <= last && i < CELLS; i++)
			bad |= conflicts(in, (unsigned)i, session, owner, q->kind);
	if (bad)
		err(e, EAGAIN);
	if (bad || a->status)
		return;
	for (uint64_t i = first; i <= last && i < CELLS; i++) {
		unlock(in, (unsigned)i, session, owner, false);
		if (q->kind != CFS_LOCK_UNLOCK) {
			struct lock *l = xcalloc(sizeof(*l));

			*l = (struct lock){ session, owner, q->kind, in->locks[i] };
			in->locks[i] = l;
		}
	}
	W->st.locks++;
}

static void unhold(struct inode *in, uint64_t session)
{
	bool was = in->n_holders;

	for (unsigned i = 0; i < in->n_holders; i++)
		if (in->holders[i] == session)
			in->holders[i--] = in->holders[--in->n_holders];
	if (was && !in->n_holders && in->exists && !in->nlink) {
		destroy(in);
		note_attr(in);
	}
}

static void do_release(struct apply *a)
{
	uint32_t n = cfs_get_le32(a->body);

	for (uint32_t i = 0; i < n; i++) {
		struct inode *in = inode_of(cfs_get_le64(a->body + sizeof(struct cfs_release_req) + 8 * i));

		if (in)
			unhold(in, cfs_le64_to_cpu(a->rec->session));
	}
}

static void close_session(uint64_t id)
{
	struct session *s = session_of(id);

	if (!s || !s->open)
		return;
	s->open = false;
	for (uint64_t i = 1; i < INOS_MAX; i++) {
		if (!W->inos[i].exists)
			continue;
		for (unsigned k = 0; k < CELLS; k++)
			unlock(&W->inos[i], k, id, 0, true);
		unhold(&W->inos[i], id);
	}
}

static void open_session(struct apply *a)
{
	uint64_t id = a->status ? 0 : cfs_get_le64(a->rep);
	const struct cfs_session_open_req *q = (const void *)a->body;
	struct session *s;

	if (a->status) {
		fail("entry %" PRIu64 ": SESSION_OPEN failed with %u", a->index, a->status);
		return;
	}
	s = session_of(id);
	if (s) {
		if (memcmp(s->nonce, q->nonce, sizeof(s->nonce)))
			fail("entry %" PRIu64 ": session %" PRIu64 " was given out twice", a->index, id);
		return;
	}
	if (W->n_sessions == W->cap_sessions) {
		W->cap_sessions = W->cap_sessions ? W->cap_sessions * 2 : 16;
		W->sessions = xrealloc(W->sessions, W->cap_sessions * sizeof(*s));
	}
	s = &W->sessions[W->n_sessions++];
	*s = (struct session){ .id = id, .open = true };
	memcpy(s->nonce, q->nonce, sizeof(s->nonce));
}

/* ---- one record --------------------------------------------------------------------------------------------------- */

/* false: it is a repeat, or out of order, and must have changed nothing */
static bool take_slot(struct apply *a)
{
	uint64_t session = cfs_le64_to_cpu(a->rec->session), seq = cfs_le64_to_cpu(a->rec->seq);
	uint32_t slot = cfs_le32_to_cpu(a->rec->slot);
	struct session *s = session_of(session);
	struct slot_hist *h;
	struct record *r;

	if (!s || !s->open) {
		if (a->status != CFS_E_BADSESSION)
			fail("entry %" PRIu64 ": a request of the closed session %" PRIu64 " gave %u", a->index, session, a->status);
		return false;
	}
	if (slot >= SLOTS) {
		fail("entry %" PRIu64 ": slot %u", a->index, slot);
		return false;
	}
	h = &s->slots[slot];
	if (seq == h->n && h->n) {
		r = &h->rec[seq - 1];
		if (a->status != r->status || memcmp(r->rep, a->rep, cfs_min((size_t)a->rep_len, sizeof(r->rep))))
			fail("entry %" PRIu64 ": a repeat of (%" PRIu64 ", %u, %" PRIu64 ") has another result", a->index, session,
			     slot, seq);
		return false;
	}
	if (seq != h->n + 1) {
		fail("entry %" PRIu64 ": (%" PRIu64 ", %u, %" PRIu64 ") after seq %u", a->index, session, slot, seq, h->n);
		return false;
	}
	if (cfs_le16_to_cpu(a->rec->opcode) == CFS_OP_LOCK && a->status == EAGAIN && ((const struct cfs_lock_req *)(const void *)a->body)->wait)
		return true;	/* does not take its slot */
	if (h->n == h->cap) {
		h->cap = h->cap ? h->cap * 2 : 64;
		h->rec = xrealloc(h->rec, h->cap * sizeof(*r));
	}
	r = &h->rec[h->n++];
	memset(r, 0, sizeof(*r));
	r->seq = seq;
	r->t = a->t;
	r->status = a->status;
	r->op = cfs_le16_to_cpu(a->rec->opcode);
	r->len = a->rep_len;
	memcpy(r->rep, a->rep, cfs_min((size_t)a->rep_len, sizeof(r->rep)));
	return true;
}

static void judge(struct apply *a, const struct errs *e)
{
	uint16_t op = cfs_le16_to_cpu(a->rec->opcode);

	if (!a->status && !e->n)
		return;
	for (unsigned i = 0; i < e->n; i++)
		if (e->e[i] == a->status)
			return;
	if (!e->n && a->status == ENOSPC && W->full)
		return;
	fail("entry %" PRIu64 ": opcode %u of session %" PRIu64 " gave %u, the model says %u", a->index, op,
	     cfs_le64_to_cpu(a->rec->session), a->status, e->n ? e->e[0] : 0);
}

static void apply_record(struct apply *a)
{
	uint16_t op = cfs_le16_to_cpu(a->rec->opcode);
	struct errs e = { 0 };

	W->st.records++;
	switch (op) {
	case CFS_OP_SESSION_OPEN:
		open_session(a);
		return;
	case CFS_LOG_FENCE:
		W->st.fenced++;
		/* fall through */
	case CFS_OP_SESSION_CLOSE:
		trace("session %" PRIu64 " is closed by %s", cfs_le64_to_cpu(a->rec->session), op == CFS_LOG_FENCE ? "fencing" : "itself");
		close_session(cfs_le64_to_cpu(a->rec->session));
		return;
	case CFS_LOG_DEAD_DONE:
	case CFS_LOG_MAP:
	case CFS_LOG_NOOP:
	case CFS_LOG_PURGE:
		return;
	}
	if (!take_slot(a))
		return;
	trace("  #%" PRIu64 " session %" PRIu64 " slot %u seq %" PRIu64 " opcode %u: %u", a->index, cfs_le64_to_cpu(a->rec->session),
	      cfs_le32_to_cpu(a->rec->slot), cfs_le64_to_cpu(a->rec->seq), op, a->status);
	switch (op) {
	case CFS_OP_MKNODE: do_mknode(a, &e); break;
	case CFS_OP_LINK: do_link(a, &e); break;
	case CFS_OP_UNLINK: do_unlink(a, &e); break;
	case CFS_OP_RENAME: do_rename(a, &e); break;
	case CFS_OP_SETATTR: do_setattr(a, &e); break;
	case CFS_OP_LOCK: do_lock(a, &e); break;
	case CFS_OP_COMMIT: do_commit(a); break;
	case CFS_OP_RELEASE: do_release(a); break;
	case CFS_LOG_FAIL: return;
	default: fail("entry %" PRIu64 ": opcode %u", a->index, op); return;
	}
	judge(a, &e);
}

/* after an entry: does the state say what the model says? Learns the change counters */
static void compare_inode(struct cfs_meta *m, struct inode *in, uint64_t index)
{
	struct cfs_attr a;
	int rc = cfs_meta_getattr(m, in->ino, &a);

	if (rc && in->exists)
		fail("entry %" PRIu64 ": inode %" PRIu64 " is gone", index, in->ino);
	if (!rc && !in->exists)
		fail("entry %" PRIu64 ": inode %" PRIu64 " is still there", index, in->ino);
	if (rc || W->failed)
		return;
	in->change = cfs_le64_to_cpu(a.change);
	if (cfs_le32_to_cpu(a.nlink) != in->nlink || cfs_le32_to_cpu(a.mode) != in->mode || cfs_le64_to_cpu(a.parent) != in->parent ||
	    cfs_le64_to_cpu(a.dotdot) != in->dotdot || (S_ISREG(in->mode) && cfs_le64_to_cpu(a.size) != in->size))
		fail("entry %" PRIu64 ": inode %" PRIu64 " has nlink %u mode %o parent %" PRIu64 " dotdot %" PRIu64 " size %" PRIu64
		     ", the model says %u %o %" PRIu64 " %" PRIu64 " %" PRIu64, index, in->ino, cfs_le32_to_cpu(a.nlink),
		     cfs_le32_to_cpu(a.mode), cfs_le64_to_cpu(a.parent), cfs_le64_to_cpu(a.dotdot), cfs_le64_to_cpu(a.size), in->nlink,
		     in->mode, in->parent, in->dotdot, in->size);
}

/* which inodes may a record have changed? */
static unsigned touched(const struct apply *a, uint64_t *ret)
{
	const struct cfs_attr *r = (const void *)a->rep;
	uint64_t first = a->len >= 8 ? cfs_get_le64(a->body) : 0;

	switch (cfs_le16_to_cpu(a->rec->opcode)) {
	case CFS_OP_MKNODE:
	case CFS_OP_UNLINK:
		ret[0] = first;
		ret[1] = a->status ? 0 : cfs_le64_to_cpu(r->ino);
		return 2;
	case CFS_OP_LINK:
		ret[0] = first;
		ret[1] = cfs_get_le64(a->body + 8);
		return 2;
	case CFS_OP_RENAME:
		ret[0] = first;
		ret[1] = cfs_get_le64(a->body + 8);
		ret[2] = a->status ? 0 : cfs_le64_to_cpu(r->ino);
		ret[3] = a->status ? 0 : cfs_le64_to_cpu(r[1].ino);
		return 4;
	case CFS_OP_SETATTR:
		ret[0] = first;
		return 1;
	case CFS_OP_COMMIT:
		ret[0] = cfs_get_le64(a->body + sizeof(struct cfs_commit_req));
		return 1;
	}
	return 0;
}

/* ---- the tap --------------------------------------------------------------------------------------------------------- */

struct tap {
	void (*sink)(void *arg, unsigned rec, uint32_t status, const void *body, uint32_t body_len);
	void *arg;
	struct {
		uint32_t status, len;
		uint8_t *body;
	} rep[CFS_LOG_BATCH_MAX];
	uint64_t hash;
};

static void tap_sink(void *arg, unsigned rec, uint32_t status, const void *body, uint32_t body_len)
{
	struct tap *t = arg;

	if (rec < CFS_LOG_BATCH_MAX) {
		t->rep[rec].status = status;
		t->rep[rec].len = body_len;
		t->rep[rec].body = xcalloc(body_len + 320);
		if (body_len)
			memcpy(t->rep[rec].body, body, body_len);
		t->hash = cfs_hash64(t->rep[rec].body, body_len, t->hash + status);
	}
	if (t->sink)
		t->sink(t->arg, rec, status, body, body_len);
}

static void new_entry(struct cfs_meta *m, uint64_t index, const uint8_t *entry, size_t len, const struct tap *t)
{
	size_t pos = sizeof(struct cfs_log_hdr);
	const struct cfs_log_hdr *h = (const void *)entry;
	uint64_t inos[4 * CFS_LOG_BATCH_MAX];
	unsigned n_inos = 0, n = cfs_le16_to_cpu(h->n);

	for (unsigned i = 0; i < n && !W->failed; i++) {
		struct cfs_log_rec rec;
		struct apply a = { .t = now(), .index = index, .status = t->rep[i].status, .rep = t->rep[i].body, .rep_len = t->rep[i].len };
		uint64_t body[CFS_LOG_ENTRY_MAX / 64];

		memcpy(&rec, entry + pos, sizeof(rec));
		a.rec = &rec;
		a.len = cfs_le32_to_cpu(rec.body_len);
		if (a.len > sizeof(body)) {
			fail("entry %" PRIu64 ": a body of %u bytes", index, a.len);
			return;
		}
		memcpy(body, entry + pos + sizeof(rec), a.len);
		a.body = (const uint8_t *)body;
		a.holders = entry + pos + sizeof(rec) + a.len;
		a.n_holders = cfs_le16_to_cpu(rec.n_holders);
		pos += cfs_align_up(sizeof(rec) + a.len + 8ull * a.n_holders, 8);
		apply_record(&a);
		n_inos += touched(&a, inos + n_inos);
	}
	for (unsigned i = 0; i < n_inos && !W->failed; i++) {
		struct inode *in = inode_of(inos[i]);

		if (in && in->born) {
			compare_inode(m, in, index);
			note_attr(in);
		}
	}
	(void)len;
}

int __wrap_cfs_meta_apply(struct cfs_meta *m, uint64_t index, const void *entry, size_t len,
			  void (*sink)(void *arg, unsigned rec, uint32_t status, const void *body, uint32_t body_len),
			  void *arg)
{
	struct tap *t = xcalloc(sizeof(*t));
	uint64_t hash = cfs_hash64(entry, len, 7);
	bool fresh = index > cfs_meta_applied(m);
	struct entry *e = NULL;
	int rc;

	if (!W->n_entries) {	/* the root was there before the first entry */
		struct inode *root = inode_of(CFS_INO_ROOT);

		compare_inode(m, root, 0);
		root->attr.n = 0;
		hist_add(&root->attr, 0, root->nlink, root->mode, root->parent, root->change);
	}
	t->sink = sink;
	t->arg = arg;
	/* the model first sees it, then the leader's replies go out: they are sent from the sink, at the same instant */
	rc = __real_cfs_meta_apply(m, index, entry, len, tap_sink, t);
	if (rc)
		fail("entry %" PRIu64 " cannot be applied: %d", index, rc);
	for (unsigned i = W->n_entries; fresh && i-- && W->entries[i].index >= index;)
		if (W->entries[i].index == index)
			e = &W->entries[i];
	if (fresh && !e && W->n_entries && W->entries[W->n_entries - 1].index > index)
		fail("entry %" PRIu64 " turns up where there was none", index);
	if (e && (e->hash != hash || e->reply_hash != t->hash))
		fail("entry %" PRIu64 " was another one, or gave other results, when it was first applied", index);
	if (fresh && !e && !W->failed) {
		if (W->n_entries == W->cap_entries) {
			W->cap_entries = W->cap_entries ? W->cap_entries * 2 : 1024;
			W->entries = xrealloc(W->entries, W->cap_entries * sizeof(*e));
		}
		W->entries[W->n_entries++] = (struct entry){ index, hash, t->hash, now() };
		W->st.entries++;
		cfs_sim_trace_add(W->sim, hash);
		new_entry(m, index, entry, len, t);
	}
	for (unsigned i = 0; i < CFS_LOG_BATCH_MAX; i++)
		free(t->rep[i].body);
	free(t);
	return rc;
}

/* ---- begin and end ------------------------------------------------------------------------------------------------------ */

void witness_init(void)
{
	struct inode *root;

	W->inos = xcalloc(INOS_MAX * sizeof(W->inos[0]));
	root = inode_of(CFS_INO_ROOT);
	root->born = root->exists = true;
	root->mode = S_IFDIR | 0755;
	root->nlink = 2;
	root->parent = root->dotdot = CFS_INO_ROOT;
	root->attr.n = 0;
	hist_add(&root->attr, 0, 2, root->mode, CFS_INO_ROOT, 0);
	W->dirs[W->n_dirs++] = CFS_INO_ROOT;
}

void witness_fini(void)
{
	for (uint64_t i = 0; i < INOS_MAX; i++) {
		struct inode *in = &W->inos[i];

		destroy(in);
		free(in->data);
		free(in->attr.ver);
		free(in->bytes.ver);
		free(in->list.ver);
		for (unsigned k = 0; k < NAMES; k++)
			free(in->names[k].ver);
	}
	for (unsigned i = 0; i < W->n_sessions; i++)
		for (unsigned k = 0; k < SLOTS; k++)
			free(W->sessions[i].slots[k].rec);
	for (unsigned i = 0; i < W->n_objects; i++)
		free(W->objects[i].bytes);
	free(W->inos);
	free(W->sessions);
	free(W->objects);
	free(W->entries);
}

void model_compare(struct cfs_meta *m)
{
	static uint8_t out[CFS_BODY_MAX] __attribute__((aligned(8)));
	struct cfs_meta_stat st;
	uint64_t n = 0, locks = 0, orphans = 0;

	for (uint64_t i = 1; i < INOS_MAX && !W->failed; i++) {
		struct inode *in = &W->inos[i];

		if (!in->born)
			continue;
		compare_inode(m, in, cfs_meta_applied(m));
		n += in->exists;
		orphans += in->exists && !in->nlink;
		for (unsigned k = 0; k < CELLS; k++)
			locks += in->locks[k] != NULL;
		for (unsigned k = 0; in->exists && S_ISDIR(in->mode) && k < NAMES; k++) {
			char body[64];
			uint32_t len = 0, rc = cfs_meta_read(m, CFS_OP_LOOKUP, 0, body,
							     (uint32_t)body_lookup(body, i, names[k], 0), out, &len);
			uint64_t got = rc ? 0 : cfs_get_le64(out);

			if ((rc && rc != ENOENT) || got != in->ents[k])
				fail("at the end %" PRIu64 "/%s is %" PRIu64 ", the model says %" PRIu64, i, names[k], got, in->ents[k]);
		}
	}
	if (W->failed)
		return;
	if (cfs_meta_stat(m, &st))
		fail("no figures");
	else if (st.inodes != n || st.orphans != orphans || (!locks && st.locks))
		fail("at the end there are %" PRIu64 " inodes, %" PRIu64 " orphans, %" PRIu64 " locks, the model says %" PRIu64 ", %" PRIu64
		     ", %" PRIu64, st.inodes, st.orphans, st.locks, n, orphans, locks);
}
