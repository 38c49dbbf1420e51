// SPDX-License-Identifier: MIT
/*
 * breaks.c - what the server asks over the callback connection: forget (CB_BREAK), tell (CB_ASK).
 *
 * A break is noted at once, on the session thread; then a job forgets it here, waits until no reply that did not see the
 * note is on its way to the kernel, makes the kernel forget, and answers (docs/leases.md, "What the client must do").
 */
#include "client/client_i.h"

#include "base/log.h"
#include "client/inode.h"
#include "client/notify.h"
#include "client/persist.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct item {
	uint64_t dir, ino;
	uint64_t kernel_until;
	uint32_t flags;
	uint8_t to_mode;
	uint8_t name_len;
	uint8_t answer;
	bool claimed;			/* said to be open without knowing it */
	char name[CFS_NAME_MAX];
};

struct cb_job {
	uint64_t conn_gen;
	struct cfs_msg_hdr hdr;
	uint32_t n;
	uint64_t ask_ino;
	struct item items[CFS_BREAK_MAX];
};

/* ---- forgetting many things ----------------------------------------------------------------- */
struct forget_walk {
	struct cfs_client *c;
	uint64_t now, dir;
};

static void forget_one(void *arg, const char *name, size_t len, uint64_t ino, uint64_t kernel_until)
{
	struct forget_walk *w = arg;

	if (!name)
		cfs_notify_attr(w->c, ino);
	else if (kernel_until > w->now)
		cfs_notify_entry(w->c, w->dir ? w->dir : ino, name, len);
}

static void forget_open(void *arg, uint64_t ino)
{
	cfs_notify_attr(arg, ino);
}

void cfs_breaks_drop_dir(struct cfs_client *c, uint64_t dir)
{
	struct forget_walk w = { .c = c, .now = cfs_boot_ns(), .dir = dir };
	uint64_t until = cfs_dcache_drop_dir(c->dcache, dir);
	bool names;

	cfs_dcache_drop_attr(c->dcache, dir);
	cfs_reply_barrier(c);
	cfs_notify_attr(c, dir);
	/* the kernel may know more names and inodes than are kept here: it asks again for every name, open or not */
	names = cfs_kernel_names_until(c, dir, until) > w.now && !cfs_notify_epoch(c);
	/* not for a directory of which the kernel has nothing */
	if (names || cfs_kernel_attrs_until(c, dir) + CFS_NSEC_PER_SEC >= w.now)
		cfs_dcache_walk_dir(c->dcache, dir, names, forget_one, &w);
	cfs_inodes_walk(c, forget_open, c);
}

struct ino_list {
	uint64_t *v;
	size_t n, cap;
};

static void list_add(void *arg, uint64_t ino)
{
	struct ino_list *l = arg;

	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 1024;
		void *v = realloc(l->v, cap * sizeof(*l->v));

		if (!v)
			return;
		l->v = v;
		l->cap = cap;
	}
	l->v[l->n++] = ino;
}

void cfs_breaks_drop_all(struct cfs_client *c, bool lost)
{
	struct forget_walk w = { .c = c, .now = cfs_boot_ns() };
	struct ino_list l = { 0 };

	cfs_client_note(c, CFS_BRK_ALL, 0, 0, NULL, 0);
	cfs_dcache_walk_attrs(c->dcache, list_add, &l);
	cfs_inodes_walk(c, list_add, &l);
	if (!cfs_notify_epoch(c))
		cfs_dcache_walk_dir(c->dcache, 0, true, forget_one, &w);
	cfs_dcache_drop_all(c->dcache);
	cfs_reply_barrier(c);
	cfs_notify_epoch(c); /* what was on its way when the first one was sent */
	for (size_t i = 0; i < l.n; i++)
		cfs_notify_attr(c, l.v[i]);
	free(l.v);
	if (lost && cfs_has_data(c))
		cfs_data_session_lost(c);
}

/* the inodes of a LEASE_RETURN, one after the other; false: no memory */
static bool for_returned(const struct cfs_call *call, void (*fn)(struct cfs_client *c, uint64_t ino), struct cfs_client *c)
{
	struct cfs_lease_list list;
	uint8_t flat[sizeof(list) + 64 * sizeof(struct cfs_lease_item)];
	uint8_t *buf = flat;
	struct cfs_cursor cur;
	const void *items;
	size_t len = 0, at = 0;

	for (unsigned i = 0; i < call->n_body; i++)
		len += call->body[i].iov_len;
	if (len > sizeof(flat))
		buf = malloc(len);
	if (!buf)
		return false;
	for (unsigned i = 0; i < call->n_body; i++) {
		memcpy(buf + at, call->body[i].iov_base, call->body[i].iov_len);
		at += call->body[i].iov_len;
	}
	cfs_cursor_init(&cur, buf, len);
	cfs_take_struct(&cur, &list);
	items = cfs_take_array(&cur, cfs_le32_to_cpu(list.n), sizeof(struct cfs_lease_item), "leases");
	for (uint32_t i = 0; items && i < cfs_le32_to_cpu(list.n); i++) {
		struct cfs_lease_item item;

		cfs_copy_elem(&item, items, i);
		fn(c, cfs_le64_to_cpu(item.ino));
	}
	if (buf != flat)
		free(buf);
	return true;
}

static void note_returned(struct cfs_client *c, uint64_t ino)
{
	cfs_client_note(c, CFS_BRK_DIR | CFS_BRK_DIRATTR | CFS_BRK_ATTR, ino, ino, NULL, 0);
}

/* a directory that was taken up again meanwhile loses what it got: correct, and rare */
static void drop_returned(struct cfs_client *c, uint64_t ino)
{
	struct forget_walk w = { .c = c, .now = cfs_boot_ns(), .dir = ino };
	uint64_t until = cfs_dcache_drop_dir(c->dcache, ino);

	if (until != UINT64_MAX && cfs_kernel_names_until(c, ino, until) > w.now && !cfs_notify_epoch(c))
		cfs_dcache_walk_dir(c->dcache, ino, true, forget_one, &w);
}

static void drop_returned_attr(struct cfs_client *c, uint64_t ino)
{
	cfs_dcache_drop_attr(c->dcache, ino);
	cfs_notify_attr(c, ino);
}

void cfs_client_leases_returning(struct cfs_client *c, const struct cfs_call *call)
{
	for_returned(call, note_returned, c);
	__atomic_add_fetch(&c->returning, 1, __ATOMIC_SEQ_CST);
	if (c->persist)
		__atomic_add_fetch(&c->persist->head->returning, 1, __ATOMIC_SEQ_CST);
	cfs_reply_barrier(c);
}

void cfs_client_leases_returned(struct cfs_client *c, const struct cfs_call *call)
{
	/* replies of before may still come: what they say does not count any more */
	bool ok = for_returned(call, note_returned, c) && for_returned(call, drop_returned, c);

	cfs_reply_barrier(c);
	if (!ok || !for_returned(call, drop_returned_attr, c))
		cfs_breaks_drop_all(c, false);
	CFS_ASSERT(__atomic_fetch_sub(&c->returning, 1, __ATOMIC_SEQ_CST) > 0);
	if (c->persist)
		__atomic_sub_fetch(&c->persist->head->returning, 1, __ATOMIC_SEQ_CST);
}

void cfs_client_committed(struct cfs_client *c, const struct cfs_call *call)
{
	struct cfs_commit_rep rep;
	struct cfs_cursor cur;
	const void *results;

	cfs_cursor_init(&cur, call->rep, call->rep_len);
	cfs_take_struct(&cur, &rep);
	results = cfs_take_array(&cur, cfs_le32_to_cpu(rep.n), sizeof(struct cfs_commit_result), "results");
	for (uint32_t i = 0; results && i < cfs_le32_to_cpu(rep.n); i++) {
		struct cfs_commit_result r;
		struct cfs_attr old;
		uint64_t ino, since;
		bool keep;

		cfs_copy_elem(&r, results, i);
		ino = cfs_attr_ino(&r.attr);
		if (r.status || !ino)
			continue;
		/* what was kept under a lease that still stands is replaced, nothing else is taken up */
		keep = cfs_dcache_attr(c->dcache, ino, &old) &&
		       !cfs_breaks_attr(&c->breaks, call->break_gen, ino, cfs_attr_governor(&r.attr)) &&
		       old.parent == r.attr.parent;
		since = cfs_client_note(c, CFS_BRK_ATTR, 0, ino, NULL, 0);
		if (!keep || !cfs_dcache_put_attr(c->dcache, &r.attr, since)) {
			cfs_dcache_drop_attr(c->dcache, ino);
			cfs_notify_attr(c, ino);
		}
	}
}

/* ---- CB_BREAK -------------------------------------------------------------------------------- */
static void forget_here(struct cfs_client *c, struct item *it)
{
	struct cfs_inode *i = it->flags & CFS_BRK_DATA ? cfs_inode_find(c, it->ino) : NULL;
	struct cfs_attr attr;

	if (i)
		__atomic_store_n(&i->only_ours, false, __ATOMIC_SEQ_CST);
	cfs_inode_put(c, i);
	if (it->flags & CFS_BRK_NAME)
		it->kernel_until = cfs_dcache_drop_name(c->dcache, it->dir, it->name, it->name_len);
	if (it->flags & CFS_BRK_DIRATTR)
		cfs_dcache_drop_attr(c->dcache, it->dir);
	if ((it->flags & CFS_BRK_UNLINK) && cfs_dcache_attr(c->dcache, it->ino, &attr))
		cfs_removed_add(c, &attr);
	if (it->flags & (CFS_BRK_ATTR | CFS_BRK_DATA | CFS_BRK_UNLINK)) {
		cfs_dcache_drop_attr(c->dcache, it->ino);
	}
}

static void forget_in_kernel(struct cfs_client *c, struct item *it)
{
	if (it->flags & CFS_BRK_DIR)
		cfs_breaks_drop_dir(c, it->dir);
	if ((it->flags & CFS_BRK_NAME) && cfs_kernel_names_until(c, it->dir, it->kernel_until) > cfs_boot_ns())
		cfs_notify_entry(c, it->dir, it->name, it->name_len);
	if (it->flags & CFS_BRK_DIRATTR)
		cfs_notify_attr(c, it->dir);
	if (it->flags & (CFS_BRK_ATTR | CFS_BRK_DATA | CFS_BRK_UNLINK))
		cfs_notify_attr(c, it->ino);
	if ((it->flags & CFS_BRK_DATA) && cfs_has_data(c) && cfs_data_break(c, it->ino, it->to_mode))
		it->answer |= CFS_BRKR_OPEN;
	if (it->flags & (CFS_BRK_DATA | CFS_BRK_UNLINK)) {
		bool making, open;

		/* first look who is making files, then whether this one is open: it may change from one to the other */
		cfs_victim_begin(c, it->ino);
		making = cfs_making(c);
		open = cfs_inode_is_open(c, it->ino);
		it->claimed = !open && making;
		if (open || making)
			it->answer |= CFS_BRKR_OPEN;
		/* our lease on what is not open ends with the unlink, without another word; which may fail yet: save first */
		if ((it->flags & CFS_BRK_UNLINK) && !(it->answer & CFS_BRKR_OPEN) && cfs_has_data(c))
			cfs_data_break(c, it->ino, CFS_LEASE_NONE);
		cfs_victim_end(c, it->ino);
		if ((it->flags & CFS_BRK_UNLINK) && (it->answer & CFS_BRKR_OPEN))
			cfs_orphan_watch(c, it->ino);
	}
	cfs_debug("break of %llx/%.*s inode %llx flags %x mode %u: answer %u%s", (unsigned long long)it->dir, it->name_len,
		  it->name, (unsigned long long)it->ino, it->flags, it->to_mode, it->answer,
		  it->claimed ? ", perhaps" : "");
}

/*
 * We said that a file is open because it might be one that is being created just now. Now it is known: if it is not, the
 * server is to be told so, when nothing can be under way by which we hold it after all.
 */
static void settle_claims(struct cfs_client *c, struct cb_job *j)
{
	bool any = false;

	for (uint32_t i = 0; i < j->n; i++)
		any |= j->items[i].claimed && !(j->items[i].flags & CFS_BRK_UNLINK);
	if (!any)
		return;
	cfs_making_settle(c);
	for (uint32_t i = 0; i < j->n; i++) {
		struct item *it = &j->items[i];

		if (it->claimed && !(it->flags & CFS_BRK_UNLINK) && !cfs_inode_is_open(c, it->ino) && c->data_started)
			cfs_data_claimed(c, it->ino);
	}
}

bool cfs_breaks_pending(struct cfs_client *c)
{
	return __atomic_load_n(&c->breaks_pending, __ATOMIC_ACQUIRE) > 0;
}

static void free_job(struct cfs_client *c, struct cb_job *j)
{
	__atomic_sub_fetch(&c->breaks_pending, 1, __ATOMIC_ACQ_REL);
	free(j);
}

static void handle_break(struct cfs_client *c, void *arg)
{
	struct cb_job *j = arg;
	struct {
		struct cfs_break_rep rep;
		uint8_t answers[CFS_BREAK_MAX];
	} out = { .rep.n = cfs_cpu_to_le32(j->n) };

	for (uint32_t i = 0; i < j->n; i++)
		forget_here(c, &j->items[i]);
	cfs_reply_barrier(c);
	for (uint32_t i = 0; i < j->n; i++) {
		forget_in_kernel(c, &j->items[i]);
		out.answers[i] = j->items[i].answer;
	}
	cfs_session_answer(c, j->conn_gen, &j->hdr, 0, &out, (uint32_t)sizeof(out.rep) + j->n);
	__atomic_sub_fetch(&c->breaks_pending, 1, __ATOMIC_ACQ_REL);
	settle_claims(c, j);
	free(j);
}

static int decode_break(struct cb_job *j, const void *body, uint32_t len)
{
	struct cfs_break_req req;
	struct cfs_cursor cur;

	cfs_cursor_init(&cur, body, len);
	cfs_take_struct(&cur, &req);
	j->n = cfs_le32_to_cpu(req.n);
	if (j->n > CFS_BREAK_MAX)
		return -EPROTO;
	for (uint32_t i = 0; i < j->n; i++) {
		struct item *it = &j->items[i];
		struct cfs_break_item item;
		const char *name;

		cfs_take_struct(&cur, &item);
		it->dir = cfs_le64_to_cpu(item.dir);
		it->ino = cfs_le64_to_cpu(item.ino);
		it->flags = cfs_le32_to_cpu(item.flags);
		it->to_mode = item.to_mode;
		if (cfs_le16_to_cpu(item.name_len) > CFS_NAME_MAX || it->to_mode > CFS_LEASE_EXCL)
			return -EPROTO;
		it->name_len = (uint8_t)cfs_le16_to_cpu(item.name_len);
		name = cfs_take(&cur, it->name_len, "name");
		if (name)
			memcpy(it->name, name, it->name_len);
	}
	return cfs_cursor_end(&cur);
}

/* ---- CB_ASK ------------------------------------------------------------------------------------- */
/* what the data path does not know better is the server's own: to be told again as it is */
static bool server_attr(struct cfs_client *c, uint64_t ino, struct cfs_attr *attr)
{
	struct cfs_ino_req body = { .ino = cfs_cpu_to_le64(ino) };
	struct iovec iov = { &body, sizeof(body) };
	struct cfs_attr_rep rep;
	struct cfs_call call = { .opcode = CFS_OP_GETATTR, .body = &iov, .n_body = 1, .rep = &rep, .rep_max = sizeof(rep) };

	if (cfs_dcache_attr(c->dcache, ino, attr))
		return true;
	if (cfs_call(c, &call) || call.rep_len != sizeof(rep))
		return false;
	*attr = rep.attr;
	return true;
}

static void handle_ask(struct cfs_client *c, void *arg)
{
	struct cb_job *j = arg;
	struct cfs_ask_rep rep = { 0 };
	struct cfs_data *d = cfs_has_data(c) ? cfs_data_find(c, j->ask_ino) : NULL;

	if (d) {
		struct cfs_attr attr;

		if (server_attr(c, j->ask_ino, &attr) && cfs_data_attr(d, &attr)) {
			rep.size = attr.size;
			rep.alloc = attr.alloc;
			rep.mtime = attr.mtime;
			rep.ctime = attr.ctime;
			rep.known = cfs_cpu_to_le32(1);
		}
		cfs_data_put(d);
	}
	cfs_session_answer(c, j->conn_gen, &j->hdr, 0, &rep, sizeof(rep));
	free_job(c, j);
}

/* ---- both ------------------------------------------------------------------------------------------ */
void cfs_breaks_message(struct cfs_client *c, uint64_t conn_gen, const struct cfs_msg_hdr *hdr, const void *body,
			uint32_t len)
{
	struct cb_job *j = calloc(1, sizeof(*j));
	bool ask = cfs_le16_to_cpu(hdr->opcode) == CFS_OP_CB_ASK;
	int rc = j ? 0 : -ENOMEM;

	if (!rc) {
		j->conn_gen = conn_gen;
		j->hdr = *hdr;
		if (ask && len == sizeof(struct cfs_ask_req))
			j->ask_ino = cfs_get_le64(body);
		else
			rc = ask ? -EPROTO : decode_break(j, body, len);
	}
	if (rc) {
		cfs_warn("a callback of the server is malformed");
		cfs_session_answer(c, conn_gen, hdr, CFS_E_PROTO, NULL, 0);
		free(j);
		return;
	}
	if (ask) {
		cfs_count(c, asks);
	} else {
		cfs_count(c, breaks);
		__atomic_add_fetch(&c->n.break_items, j->n, __ATOMIC_RELAXED);
	}
	for (uint32_t i = 0; i < j->n; i++) {
		struct item *it = &j->items[i];

		cfs_client_note(c, it->flags, it->dir, it->ino, it->flags & CFS_BRK_NAME ? it->name : NULL,
				it->name_len);
	}
	__atomic_add_fetch(&c->breaks_pending, 1, __ATOMIC_ACQ_REL);
	rc = cfs_jobs_submit(c->jobs, ask ? handle_ask : handle_break, j);
	if (rc) { /* not answered: the server fences us, and then nothing of it counts any more */
		cfs_err("cannot handle a break: %s", strerror(-rc));
		free_job(c, j);
	}
}
