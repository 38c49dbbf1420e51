// SPDX-License-Identifier: MIT
/*
 * fuse_dir.c - directories: opendir, readdir and readdirplus, releasedir, fsyncdir.
 *
 * Listings stream: an open directory keeps one reply of the server (bounded) and where in it the kernel is. Cookies are
 * the server's and stable, so any position can be asked for anew. "." and ".." are ours, with cookies 1 and 2. What an
 * entry of a buffered reply allows to keep is checked when it is handed out: it may be a while later.
 */
#include "client/fuse_ops_i.h"
#include "client/persist.h"
#include "client/prefetch.h"

#include "base/log.h"

#include <stdlib.h>

#define FETCH_BYTES	65536u		/* of one READDIR reply */
#define COOKIE_DOT	1u
#define COOKIE_DOTDOT	2u

struct cfs_dirbuf {
	pthread_mutex_t lock;		/* readers of one open directory take turns */
	bool plus, eof, filled;
	uint64_t at;			/* cookie of the last entry handed out: where `cur` stands */
	uint64_t since;			/* break_gen of the reply */
	struct cfs_cursor cur;
	uint32_t left;			/* entries not handed out */
	/* this listing so far: every name was kept, and the server said that the list may be. Then it is known what is absent */
	bool whole;
	uint64_t whole_since, whole_begun;
	uint8_t bytes[FETCH_BYTES];
};

struct cfs_dirbuf *cfs_dirbuf_new(void)
{
	struct cfs_dirbuf *b = malloc(sizeof(*b));

	if (!b)
		return NULL;
	memset(b, 0, offsetof(struct cfs_dirbuf, bytes));
	pthread_mutex_init(&b->lock, NULL);
	return b;
}

void cfs_dirbuf_free(struct cfs_dirbuf *b)
{
	if (b)
		pthread_mutex_destroy(&b->lock);
	free(b);
}

void cfs_fuse_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_fh *fh = calloc(1, sizeof(*fh));
	struct cfs_dirbuf *b = cfs_dirbuf_new();
	struct cfs_attr attr;
	int err = ENOMEM;

	if (fh && b)
		err = cfs_op_getattr(&op, ino, &attr);
	if (!err) {
		fh->dir = b;
		fh->flags = fi->flags;
		fh->i = cfs_inode_get(op.c, ino);
		err = fh->i ? 0 : ENOMEM;
	}
	if (!err) {
		fh->id = cfs_fhtab_add(op.c->fhtab, fh);
		err = fh->id ? 0 : ENFILE;
		if (err)
			cfs_inode_put(op.c, fh->i);
	}
	if (err) {
		free(fh);
		cfs_dirbuf_free(b);
		cfs_op_err(&op, err);
		return;
	}
	pthread_mutex_lock(&fh->i->lock);
	fh->i->n_open++;
	fh->i->attr_set = true;
	fh->i->attr = attr;
	pthread_mutex_unlock(&fh->i->lock);
	fi->fh = fh->id;
	cfs_fh_list(op.c, fh);
	cfs_prefetch_want(__atomic_load_n(&op.c->prefetch, __ATOMIC_ACQUIRE), ino, true);
	cfs_persist_fh_offer(op.c->persist, fh->id, &(struct cfs_pst_fh){
		.ino = ino, .flags = (uint32_t)fh->flags, .kind = CFS_PST_DIR, .unique = cfs_thread_unique(op.t) });
	op.t->req = NULL;
	if (fuse_reply_open(req, fi)) /* interrupted: no RELEASEDIR will come */
		cfs_dir_close(op.c, fh);
	else
		cfs_persist_fh_opened(op.c->persist, fi->fh);
}

void cfs_dir_close(struct cfs_client *c, struct cfs_fh *fh)
{
	struct cfs_inode *i = fh->i;
	bool release, ask;

	pthread_mutex_lock(&i->lock);
	release = !--i->n_open && i->orphan;
	if (release)
		i->orphan = false;
	ask = !i->n_open && i->inherited && !release;
	pthread_mutex_unlock(&i->lock);
	if (release)
		cfs_op_release_orphan(c, i->ino, true);
	if (ask)
		cfs_orphan_inherited(c, i->ino);
	cfs_persist_fh_del(c->persist, fh->id);
	cfs_fhtab_del(c->fhtab, fh->id);
	cfs_fh_unlist(c, fh);
	cfs_inode_put(c, i);
	cfs_dirbuf_free(fh->dir);
	free(fh);
}

void cfs_fuse_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_fh *fh = cfs_op_release_fh(&op, fi);

	(void)ino;
	if (!fh)
		return;
	if (op.c->persist) /* as in cfs_fuse_release() */
		cfs_dir_close(op.c, fh);
	cfs_op_err(&op, 0);
	if (!op.c->persist)
		cfs_dir_close(op.c, fh);
}

/* metadata is durable when it is answered */
void cfs_fuse_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);

	(void)ino;
	(void)datasync;
	(void)fi;
	cfs_op_err(&op, 0);
}

/* ---- the server's side ------------------------------------------------------------------------ */
static int fetch(struct cfs_op *op, uint64_t dir, struct cfs_dirbuf *b, uint64_t cookie, bool plus)
{
	struct cfs_readdir_req body = {
		.dir = cfs_cpu_to_le64(dir), .cookie = cfs_cpu_to_le64(cookie), .max_bytes = cfs_cpu_to_le32(FETCH_BYTES),
		.flags = cfs_cpu_to_le32(plus ? CFS_READDIR_PLUS : 0),
	};
	struct cfs_op_req r = { .opcode = CFS_OP_READDIR, .fixed = &body, .fixed_len = sizeof(body), .rep = b->bytes,
				.rep_max = FETCH_BYTES };
	uint64_t begun = cfs_dcache_whole_begin(op->c->dcache, dir);
	bool follows = b->whole && b->at == cookie && !b->left;
	struct cfs_readdir_rep rep;
	int rc;

	b->filled = b->whole = false;
	rc = cfs_op_call_want(op, &r, sizeof(rep));
	if (rc == ENOENT) { /* removed while it is open: empty from now on */
		memset(&rep, 0, sizeof(rep));
		rep.flags = cfs_cpu_to_le32(CFS_READDIR_EOF);
		memcpy(b->bytes, &rep, sizeof(rep));
		r.rep_len = sizeof(rep);
		rc = 0;
	}
	if (rc)
		return cfs_op_errno(rc);
	cfs_cursor_init(&b->cur, b->bytes, r.rep_len);
	cfs_take_struct(&b->cur, &rep);
	b->left = cfs_le32_to_cpu(rep.n);
	b->eof = cfs_le32_to_cpu(rep.flags) & CFS_READDIR_EOF;
	if (!b->left && !b->eof)
		return EIO; /* no progress would be made */
	b->since = r.break_gen;
	if (!cookie) {
		b->whole_since = r.break_gen;
		b->whole_begun = begun;
	}
	b->whole = plus && (!cookie || follows) && cfs_le32_to_cpu(rep.flags) & CFS_READDIR_KEEP;
	b->plus = plus;
	b->at = cookie;
	b->filled = true;
	return 0;
}

bool cfs_dirent_take(struct cfs_cursor *cur, bool plus, uint64_t after, struct cfs_dirent *de, struct cfs_attr *attr, char *name)
{
	uint32_t len;
	const char *p;
	size_t pad;

	cfs_take_struct(cur, de);
	if (plus)
		cfs_take_struct(cur, attr);
	len = cfs_le16_to_cpu(de->name_len);
	p = cfs_take(cur, len, "name");
	pad = -(sizeof(*de) + (plus ? sizeof(*attr) : 0) + len) & 7;
	cfs_take(cur, cfs_min(pad, cur->left), "padding");
	if (!p || cfs_cursor_ok(cur) || cfs_name_check(p, len, false) || cfs_le64_to_cpu(de->cookie) <= after)
		return false;
	memcpy(name, p, len);
	name[len] = 0;
	return true;
}

/* ---- the kernel's side --------------------------------------------------------------------------- */
struct listing {
	fuse_req_t req;
	char *buf;
	size_t size, used;
	bool plus;
};

static bool add_plain(struct listing *l, const char *name, uint64_t ino, uint32_t mode, uint64_t cookie)
{
	struct fuse_entry_param e = { .attr = { .st_ino = ino, .st_mode = mode } };
	size_t n, room = l->size - l->used;

	if (l->plus) /* node id 0: the kernel takes the entry for the listing only */
		n = fuse_add_direntry_plus(l->req, l->buf + l->used, room, name, &e, (off_t)cookie);
	else
		n = fuse_add_direntry(l->req, l->buf + l->used, room, name, &e.attr, (off_t)cookie);
	if (n > room)
		return false;
	l->used += n;
	return true;
}

static bool add_plus(struct cfs_client *c, struct listing *l, uint64_t dir, const char *name, const struct cfs_dirent *de,
		     struct cfs_attr *attr, struct cfs_dirbuf *b, const struct cfs_ttl *ttl)
{
	uint64_t since = b->since;
	size_t len = cfs_le16_to_cpu(de->name_len), n, room = l->size - l->used;
	struct fuse_entry_param e = { 0 };

	if (fuse_add_direntry_plus(l->req, NULL, 0, name, &e, 0) > room)
		return false;
	e.entry_timeout = cfs_op_keep_name(c, dir, name, len, cfs_le64_to_cpu(de->ino), de->valid, since, ttl);
	b->whole &= e.entry_timeout > 0;
	if (!(e.entry_timeout > 0) || cfs_attr_ino(attr) != cfs_le64_to_cpu(de->ino))
		return add_plain(l, name, cfs_le64_to_cpu(de->ino), cfs_le32_to_cpu(de->mode),
				 cfs_le64_to_cpu(de->cookie));
	cfs_op_entry(c, attr, de->valid, since, ttl, &e);
	n = fuse_add_direntry_plus(l->req, l->buf + l->used, room, name, &e, (off_t)cfs_le64_to_cpu(de->cookie));
	l->used += n;
	return true;
}

/* inside a section: hand out what is buffered and fits. -EPROTO: malformed */
static int hand_out(struct cfs_client *c, struct listing *l, uint64_t dir, struct cfs_dirbuf *b)
{
	struct cfs_ttl ttl = cfs_op_ttl(c);

	while (b->left) {
		struct cfs_cursor before = b->cur;
		char name[CFS_NAME_MAX + 1];
		struct cfs_attr attr;
		struct cfs_dirent de;
		bool fits;

		if (!cfs_dirent_take(&b->cur, b->plus, b->at, &de, &attr, name))
			return -EPROTO;
		if (l->plus)
			fits = add_plus(c, l, dir, name, &de, &attr, b, &ttl);
		else
			fits = add_plain(l, name, cfs_le64_to_cpu(de.ino), cfs_le32_to_cpu(de.mode),
					 cfs_le64_to_cpu(de.cookie));
		if (!fits) {
			b->cur = before;
			return 0;
		}
		b->at = cfs_le64_to_cpu(de.cookie);
		b->left--;
	}
	if (b->whole && b->eof)
		cfs_dcache_put_whole(c->dcache, dir, b->whole_since, b->whole_begun);
	return 0;
}

static uint64_t dotdot_of(struct cfs_op *op, uint64_t dir)
{
	struct cfs_attr attr;

	if (cfs_op_getattr(op, dir, &attr) || !attr.dotdot)
		return dir;
	return cfs_le64_to_cpu(attr.dotdot);
}

static void list(fuse_req_t req, uint64_t dir, size_t size, uint64_t off, struct fuse_file_info *fi, bool plus)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_fh *fh = cfs_op_fh(&op, fi);
	struct cfs_dirbuf *b = fh ? fh->dir : NULL;
	struct listing l = { .req = req, .size = cfs_min(size, (size_t)CFS_BODY_MAX), .plus = plus };
	uint64_t cookie = off <= COOKIE_DOTDOT ? 0 : off;
	int err = 0;

	if (!fh)
		return;
	l.buf = cfs_thread_io_buf(op.t);
	if (off < COOKIE_DOT)
		add_plain(&l, ".", dir, S_IFDIR, COOKIE_DOT);
	if (off < COOKIE_DOTDOT)
		add_plain(&l, "..", dotdot_of(&op, dir), S_IFDIR, COOKIE_DOTDOT);
	pthread_mutex_lock(&b->lock);
	if (off < COOKIE_DOT) /* from the start means as it is now */
		b->filled = false;
	for (;;) {
		bool fresh = b->filled && b->at == cookie && b->plus == plus && (b->left || b->eof);

		if (!fresh)
			err = fetch(&op, dir, b, cookie, plus);
		if (err)
			break;
		cfs_reply_begin(op.c);
		err = -hand_out(op.c, &l, dir, b);
		if (err || l.used || b->eof) {
			/* the section ends after the reply: nothing handed out may be old by then */
			if (err == EPROTO)
				cfs_err("directory %llu: the server's listing is malformed", (unsigned long long)dir);
			pthread_mutex_unlock(&b->lock); /* after the reply, b may be gone */
			op.t->req = NULL;
			if (err && !l.used)
				fuse_reply_err(req, EIO);
			else
				fuse_reply_buf(req, l.buf, l.used);
			cfs_reply_end(op.c);
			return;
		}
		cfs_reply_end(op.c);
		cookie = b->at;
		if (b->left) { /* not even one entry fits */
			err = EINVAL;
			break;
		}
	}
	pthread_mutex_unlock(&b->lock);
	cfs_op_err(&op, err);
}

void cfs_fuse_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	list(req, ino, size, (uint64_t)off, fi, false);
}

void cfs_fuse_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	list(req, ino, size, (uint64_t)off, fi, true);
}
