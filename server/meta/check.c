/* SPDX-License-Identifier: MIT */
/*
 * check.c - is the state consistent? Entries against inodes against link counts against parents,
 * both ways. What can be repaired is: counts are set to what was counted, entries that lead
 * nowhere and inodes that nothing leads to and nobody holds are removed, files that lost their
 * names get one in /lost+found. Repairing is deterministic, but no log entry: do it on all
 * replicas of a stopped shard, or on one and restore the others from its checkpoint.
 */
#include "server/meta/check_i.h"

#include "base/hash.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define LOST_FOUND	"lost+found"

/* ---- helpers -------------------------------------------------------------------- */
void cfs_ck_say(struct cfs_ck *c, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	c->found++;
	if (!c->cb)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	c->cb(c->arg, line);
}

void cfs_ck_iter_init(struct cfs_ck_iter *it, enum cfs_key_type type)
{
	cfs_key_init(&it->k, type);
}

int cfs_ck_iter_next(struct cfs_ck *c, struct cfs_ck_iter *it)
{
	int rc = cfs_ms_db_seek(c->t, &it->k, 1, &it->key, &it->v);

	if (rc)
		return rc;
	if (it->key.mv_size >= CFS_KEY_MAX)
		return -EUCLEAN;
	/* the next key is the first one that is greater than this */
	memcpy(it->k.b, it->key.mv_data, it->key.mv_size);
	it->k.b[it->key.mv_size] = 0;
	it->k.len = (uint32_t)it->key.mv_size + 1;
	return 0;
}

int cfs_ck_iter_del(struct cfs_ck *c, struct cfs_ck_iter *it)
{
	struct cfs_key k = it->k;

	if (!c->repair)
		return 0;
	k.len--;
	return cfs_ms_db_del(c->t, &k);
}

void *cfs_ck_grow(void *array, size_t n, size_t *cap, size_t size)
{
	size_t want = *cap ? *cap * 2 : 1024;
	void *p;

	if (n < *cap)
		return array;
	p = reallocarray(array, want, size);
	if (p)
		*cap = want;
	return p;
}

struct cfs_ck_inode *cfs_ck_find(struct cfs_ck *c, uint64_t ino)
{
	size_t lo = 0, hi = c->n_inodes;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (c->inodes[mid].in.ino < ino)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < c->n_inodes && c->inodes[lo].in.ino == ino && !c->inodes[lo].gone ?
		       &c->inodes[lo] :
		       NULL;
}

/* ---- passes --------------------------------------------------------------------- */
static int load_inodes(struct cfs_ck *c)
{
	struct cfs_ck_inode *p;
	struct cfs_ck_iter it;
	int rc;

	cfs_ck_iter_init(&it, CFS_KEY_INODE);
	while (!(rc = cfs_ck_iter_next(c, &it))) {
		uint64_t ino = it.key.mv_size == 9 ? cfs_key_get_u64(it.key.mv_data, 1) : 0;

		p = cfs_ck_grow(c->inodes, c->n_inodes, &c->cap_inodes, sizeof(*p));
		if (!p)
			return -ENOMEM;
		c->inodes = p;
		p += c->n_inodes;
		memset(p, 0, sizeof(*p));
		rc = ino ? cfs_ms_inode_get(c->t, ino, &p->in) : -EUCLEAN;
		if (rc == -EUCLEAN) {
			cfs_ck_say(c, "inode %#lx: the record is damaged", (unsigned long)ino);
			rc = cfs_ck_iter_del(c, &it);
			if (rc)
				return rc;
			continue;
		}
		if (rc)
			return rc;
		if ((ino & CFS_INO_COUNTER_MASK) >= c->t->m->st.next_ino) {
			cfs_ck_say(c, "inode %#lx: beyond the counter", (unsigned long)ino);
			c->t->m->st.next_ino = (ino & CFS_INO_COUNTER_MASK) + 1;
		}
		c->n_inodes++;
	}
	return rc == ENOENT ? 0 : rc;
}

/* one entry: NULL if it is sound, else what is wrong with it */
static const char *entry_fault(struct cfs_ck *c, const struct cfs_dent_view *e)
{
	uint64_t base =
		cfs_name_hash(e->name, e->name_len, c->t->m->name_seed) & ~(uint64_t)CFS_COOKIE_LOW;
	struct cfs_ck_inode *dir = cfs_ck_find(c, e->dir), *ino = cfs_ck_find(c, e->d.ino);

	if (!dir || !S_ISDIR(dir->in.mode))
		return "in no directory";
	if (!ino)
		return "leads to no inode";
	if (e->d.cookie < CFS_COOKIE_MIN || (e->d.cookie & ~(uint64_t)CFS_COOKIE_LOW) != base)
		return "its cookie is not its name's";
	if (cfs_ms_dent_name_check(e->name, e->name_len))
		return "no valid name";
	if (S_ISDIR(ino->in.mode) &&
	    (ino->in.parent != e->dir || ino->links || e->d.ino == CFS_INO_ROOT))
		return "a directory has one name, in its parent";
	return NULL;
}

static int walk_entries(struct cfs_ck *c)
{
	struct cfs_ck_inode *dir, *ino;
	struct cfs_dent_view e;
	struct cfs_ck_iter it;
	const char *fault;
	int rc;

	cfs_ck_iter_init(&it, CFS_KEY_DENTRY);
	while (!(rc = cfs_ck_iter_next(c, &it))) {
		rc = cfs_ms_dent_decode(&it.key, &it.v, &e);
		fault = rc ? "damaged" : entry_fault(c, &e);
		if (fault) {
			if (rc)
				cfs_ck_say(c, "an entry is damaged");
			else
				cfs_ck_say(c, "directory %#lx, entry \"%.*s\" to %#lx: %s",
					   (unsigned long)e.dir, (int)e.name_len, e.name,
					   (unsigned long)e.d.ino, fault);
			rc = cfs_ck_iter_del(c, &it);
			if (rc)
				return rc;
			continue;
		}
		dir = cfs_ck_find(c, e.dir);
		ino = cfs_ck_find(c, e.d.ino);
		dir->entries++;
		dir->subdirs += S_ISDIR(ino->in.mode);
		ino->links++;
		ino->link_dir = e.dir;
		if ((ino->in.mode & S_IFMT) != e.d.mode) {
			cfs_ck_say(c,
				   "directory %#lx, entry \"%.*s\": type %#o, inode %#lx has %#o",
				   (unsigned long)e.dir, (int)e.name_len, e.name, e.d.mode,
				   (unsigned long)e.d.ino, ino->in.mode & S_IFMT);
			if (c->repair) {
				struct cfs_dent_view copy = e;
				char name[CFS_NAME_MAX];

				memcpy(name, e.name, e.name_len);
				copy.d.mode = ino->in.mode;
				rc = cfs_ms_dent_put(c->t, copy.dir, &copy.d, name, copy.name_len);
				if (rc)
					return rc;
			}
		}
	}
	return rc == ENOENT ? 0 : rc;
}

/* a name for an inode that lost all of its own: /lost+found/#<number> */
static int adopt(struct cfs_ck *c, struct cfs_ck_inode *p)
{
	struct cfs_ck_inode *root = cfs_ck_find(c, CFS_INO_ROOT), *lf;
	struct cfs_dent d;
	char name[32];
	int rc, len;

	if (!root)
		return 0;
	rc = cfs_ms_dent_find(c->t, CFS_INO_ROOT, LOST_FOUND, sizeof(LOST_FOUND) - 1, &d);
	if (rc == ENOENT)	/* made by repair_prepare() */
		return 0;
	if (rc)
		return rc;
	lf = cfs_ck_find(c, d.ino);
	if (!lf || !S_ISDIR(lf->in.mode) || lf == p)
		return 0;
	len = snprintf(name, sizeof(name), "#%lx", (unsigned long)p->in.ino);
	rc = cfs_ms_dent_find(c->t, lf->in.ino, name, (uint32_t)len, &d);
	if (rc != ENOENT || !d.cookie)
		return rc > 0 ? 0 : rc;
	d.ino = p->in.ino;
	d.mode = p->in.mode;
	rc = cfs_ms_dent_put(c->t, lf->in.ino, &d, name, (uint32_t)len);
	if (rc)
		return rc;
	p->links = 1;
	p->link_dir = lf->in.ino;
	p->in.parent = lf->in.ino;
	p->dirty = true;
	lf->entries++;
	lf->subdirs += S_ISDIR(p->in.mode);
	return 0;
}

/* /lost+found, before anything is counted, when there is something to repair */
static int repair_prepare(struct cfs_ck *c)
{
	struct cfs_tx *t = c->t;
	struct cfs_inode root, in = { 0 };
	struct cfs_dent d;
	int rc;

	rc = cfs_ms_inode_get(t, CFS_INO_ROOT, &root);
	if (!rc)
		rc = cfs_ms_dent_find(t, CFS_INO_ROOT, LOST_FOUND, sizeof(LOST_FOUND) - 1, &d);
	if (rc != ENOENT || !d.cookie)
		return rc > 0 ? 0 : rc;
	in = (struct cfs_inode){
		.gen = t->m->st.applied,
		.change = 1,
		.parent = CFS_INO_ROOT,
		.mode = S_IFDIR | 0700,
		.nlink = 2,
		.atime = t->m->st.time,
		.mtime = t->m->st.time,
		.ctime = t->m->st.time,
		.btime = t->m->st.time,
	};
	rc = cfs_ms_inode_new_ino(t, &in.ino);
	if (rc)
		return rc > 0 ? 0 : rc;
	in.map = in.ino;
	d.ino = in.ino;
	d.mode = in.mode;
	root.size++;
	root.nlink++;
	rc = cfs_ms_inode_put(t, &in);
	if (!rc)
		rc = cfs_ms_inode_put(t, &root);
	if (!rc)
		rc = cfs_ms_dent_put(t, CFS_INO_ROOT, &d, LOST_FOUND, sizeof(LOST_FOUND) - 1);
	t->m->st.inodes++;
	t->m->st.dirs++;
	return rc;
}

static void expect(struct cfs_ck *c, struct cfs_ck_inode *p, const char *what, uint64_t *have,
		   uint64_t want)
{
	if (*have == want)
		return;
	cfs_ck_say(c, "inode %#lx: %s is %lu, counted %lu", (unsigned long)p->in.ino, what,
		   (unsigned long)*have, (unsigned long)want);
	*have = want;
	p->dirty = true;
}

static void expect32(struct cfs_ck *c, struct cfs_ck_inode *p, const char *what, uint32_t *have,
		     uint64_t want)
{
	uint64_t v = *have;

	expect(c, p, what, &v, want);
	*have = (uint32_t)v;
}

static int judge_names(struct cfs_ck *c, struct cfs_ck_inode *p)
{
	bool dir = S_ISDIR(p->in.mode), root = p->in.ino == CFS_INO_ROOT && !c->t->m->shard;
	int rc;

	if (!root && !p->links && !p->orphan) {
		cfs_ck_say(c, "inode %#lx: no entry leads to it and no session holds it (nlink %u)",
			   (unsigned long)p->in.ino, p->in.nlink);
		if (!c->repair)
			return 0;
		if (!p->in.nlink) {
			p->gone = true;
			return cfs_ms_inode_destroy(c->t, &p->in, CFS_META_CLOSE_EXTENTS);
		}
		rc = adopt(c, p);
		if (rc)
			return rc;
	}
	if (p->orphan && p->links)
		cfs_ck_say(c, "inode %#lx: is held as an orphan but has a name",
			   (unsigned long)p->in.ino);
	if (dir) {
		expect(c, p, "directory entries", &p->in.size, p->entries);
		expect32(c, p, "nlink", &p->in.nlink, root || p->links ? 2 + p->subdirs : 0);
		return 0;
	}
	expect32(c, p, "nlink", &p->in.nlink, p->links);
	if (p->in.parent && (p->links != 1 || p->in.parent != p->link_dir)) {
		cfs_ck_say(c, "inode %#lx: parent %#lx, its entry is in %#lx",
			   (unsigned long)p->in.ino, (unsigned long)p->in.parent,
			   (unsigned long)p->link_dir);
		p->in.parent = p->links == 1 ? p->link_dir : 0;
		p->dirty = true;
	}
	return 0;
}

static void judge_data(struct cfs_ck *c, struct cfs_ck_inode *p)
{
	expect(c, p, "extents", &p->in.n_extents, p->n_extents);
	expect(c, p, "alloc", &p->in.alloc,
	       p->ext_bytes + (S_ISREG(p->in.mode) ? p->inline_bytes : 0));
	expect32(c, p, "inline bytes", &p->in.inline_len,
		 S_ISREG(p->in.mode) ? p->inline_bytes : 0);
	expect32(c, p, "xattrs", &p->in.n_xattrs, p->n_xattrs);
	expect32(c, p, "xattr list", &p->in.xattr_list_len, p->xattr_list_len);
	expect32(c, p, "flags", &p->in.flags, p->xattr_flags | (p->n_xattrs ? CFS_IF_XATTR : 0) |
		 (p->in.inline_len ? CFS_IF_INLINE : 0));
	if (S_ISLNK(p->in.mode))
		expect(c, p, "symlink length", &p->in.size, p->inline_bytes);
	if (p->in.size > CFS_FILE_SIZE_MAX)
		cfs_ck_say(c, "inode %#lx: size %lu", (unsigned long)p->in.ino,
			   (unsigned long)p->in.size);
	if (S_ISREG(p->in.mode) && p->in.inline_len > p->in.size)
		expect(c, p, "size", &p->in.size, p->in.inline_len);
}

static int judge(struct cfs_ck *c)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < c->n_inodes; i++)
		rc = judge_names(c, &c->inodes[i]);
	/* adopting changes what is counted in lost+found: so only now */
	for (size_t i = 0; !rc && i < c->n_inodes; i++) {
		struct cfs_ck_inode *p = &c->inodes[i];

		if (p->gone)
			continue;
		if (S_ISDIR(p->in.mode) && p->dirty) {
			p->in.size = p->entries;
			if (p->links || p->in.ino == CFS_INO_ROOT)
				p->in.nlink = (uint32_t)(2 + p->subdirs);
		}
		judge_data(c, p);
		c->seen.inodes++;
		c->seen.dirs += S_ISDIR(p->in.mode);
		c->seen.data_bytes += p->in.alloc;
		c->seen.orphans += p->orphan;
		if (p->dirty && c->repair)
			rc = cfs_ms_inode_put(c->t, &p->in);
	}
	return rc;
}

static void counter(struct cfs_ck *c, const char *what, uint64_t *have, uint64_t want)
{
	if (*have == want)
		return;
	cfs_ck_say(c, "counter of %s is %lu, counted %lu", what, (unsigned long)*have,
		   (unsigned long)want);
	if (c->repair)
		*have = want;
}

static int run(struct cfs_ck *c)
{
	struct cfs_state *st = &c->t->m->st;
	int rc;

	if (c->repair && !c->t->m->shard) {
		rc = repair_prepare(c);
		if (rc)
			return rc;
	}
	rc = load_inodes(c);
	if (!rc && !c->t->m->shard && !cfs_ck_find(c, CFS_INO_ROOT))
		cfs_ck_say(c, "there is no root directory");
	if (!rc)
		rc = walk_entries(c);
	if (!rc)
		rc = cfs_ck_sessions(c);
	if (!rc)
		rc = cfs_ck_data(c);
	if (!rc)
		rc = judge(c);
	if (rc)
		return rc;
	counter(c, "inodes", &st->inodes, c->seen.inodes);
	counter(c, "directories", &st->dirs, c->seen.dirs);
	counter(c, "extents", &st->extents, c->seen.extents);
	counter(c, "data bytes", &st->data_bytes, c->seen.data_bytes);
	counter(c, "dead objects", &st->dead_objects, c->seen.dead_objects);
	counter(c, "orphans", &st->orphans, c->seen.orphans);
	counter(c, "sessions", &st->sessions, c->seen.sessions);
	counter(c, "locks", &st->locks, c->seen.locks);
	counter(c, "files to purge", &st->purging, c->seen.purging);
	return 0;
}

/* one pass; how many findings, or -errno */
static int pass(struct cfs_meta *m, bool repair, void (*cb)(void *arg, const char *finding),
		void *arg)
{
	struct cfs_ck c = { .repair = repair, .cb = cb, .arg = arg };
	struct cfs_state before = m->st;
	struct cfs_tx t;
	int rc;

	if (repair) {
		rc = cfs_ms_state_begin(m, &t);
		c.t = &t;
	} else {
		rc = cfs_ms_state_rd(m, &c.t);
	}
	if (rc)
		return rc;
	rc = run(&c);
	if (!rc && repair)
		rc = cfs_ms_ref_flush(&t);
	if (rc || !repair)
		m->st = before;
	if (repair && rc)
		cfs_ms_state_abort(m, &t);
	else if (repair)
		rc = cfs_ms_state_commit(m, &t);
	free(c.inodes);
	free(c.maps);
	free(c.objs);
	return rc ? rc : c.found;
}

int cfs_meta_check(struct cfs_meta *m, bool repair, void (*cb)(void *arg, const char *finding),
		   void *arg)
{
	int found = pass(m, false, cb, arg), rc;

	if (!repair || found <= 0)
		return found;
	/* one repair may lay bare another fault (a removed entry, its inode): a few rounds */
	for (unsigned round = 0; round < 8; round++) {
		while ((rc = pass(m, true, NULL, NULL)) == -CFS_EMAPFULL)
			if (cfs_ms_state_grow(m))
				return -ENOSPC;
		if (rc <= 0)
			return rc ? rc : found;
	}
	return found;
}
