/* SPDX-License-Identifier: MIT */
/*
 * null_fuse.c - the least that a FUSE file system can do, as a floor for benchmarks: a tree in
 * memory, file bytes forgotten (reads give zeros), every answer at once, no kernel caching
 * unless -o timeouts say so. Same libfuse, same cloned descriptors as the real client.
 *
 *     null_fuse [--timeout SECONDS] [--direct] MOUNTPOINT      (runs until unmounted)
 */
#define FUSE_USE_VERSION 317
#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NAME_BUCKETS (1u << 18)

struct node {
	struct stat st;
	struct entry *children;		/* directories: singly linked, order of creation reversed */
	char *target;			/* symlinks */
};

struct entry {
	struct entry *hash_next, *sibling, *sibling_prev;
	struct node *dir, *node;
	char name[];
};

static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static struct entry *names[NAME_BUCKETS];
static struct node root_node;
static uint64_t next_ino = 2;
static double timeout_s;
static bool direct_io;

static struct node *node_of(fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? &root_node : (struct node *)(uintptr_t)ino;
}

static struct entry **find(struct node *dir, const char *name)
{
	uint64_t h = (uint64_t)(uintptr_t)dir * 0x9e3779b97f4a7c15ull;
	struct entry **p;

	for (const char *s = name; *s; s++)
		h = (h ^ (unsigned char)*s) * 0x100000001b3ull;
	p = &names[(h >> 20) % NAME_BUCKETS];
	while (*p && ((*p)->dir != dir || strcmp((*p)->name, name)))
		p = &(*p)->hash_next;
	return p;
}

static void fill_entry(struct node *n, struct fuse_entry_param *e)
{
	memset(e, 0, sizeof(*e));
	e->ino = (fuse_ino_t)(uintptr_t)n;
	e->attr = n->st;
	e->attr_timeout = e->entry_timeout = timeout_s;
}

static int add(struct node *dir, const char *name, struct node *n)
{
	struct entry **p = find(dir, name), *e;

	if (*p)
		return EEXIST;
	e = calloc(1, sizeof(*e) + strlen(name) + 1);
	if (!e)
		return ENOMEM;
	strcpy(e->name, name);
	e->dir = dir;
	e->node = n;
	e->sibling = dir->children;
	if (e->sibling)
		e->sibling->sibling_prev = e;
	dir->children = e;
	*p = e;
	return 0;
}

static struct node *del(struct node *dir, const char *name)
{
	struct entry **p = find(dir, name), *e = *p;
	struct node *n;

	if (!e)
		return NULL;
	*p = e->hash_next;
	if (e->sibling)
		e->sibling->sibling_prev = e->sibling_prev;
	if (e->sibling_prev)
		e->sibling_prev->sibling = e->sibling;
	else
		dir->children = e->sibling;
	n = e->node;
	free(e);
	return n;	/* nodes are never freed: the kernel may still name them */
}

static struct node *make(fuse_req_t req, mode_t mode, const char *target)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct node *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	n->st.st_ino = __atomic_fetch_add(&next_ino, 1, __ATOMIC_RELAXED);
	n->st.st_mode = mode;
	n->st.st_nlink = S_ISDIR(mode) ? 2 : 1;
	n->st.st_uid = ctx->uid;
	n->st.st_gid = ctx->gid;
	n->target = target ? strdup(target) : NULL;
	n->st.st_size = target ? (off_t)strlen(target) : 0;
	clock_gettime(CLOCK_REALTIME, &n->st.st_mtim);
	n->st.st_ctim = n->st.st_atim = n->st.st_mtim;
	return n;
}

static void null_init(void *data, struct fuse_conn_info *conn)
{
	(void)data;
	fuse_unset_feature_flag(conn, FUSE_CAP_WRITEBACK_CACHE);
	conn->max_write = 1 << 20;
}

static void null_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e;
	struct entry *f;

	pthread_rwlock_rdlock(&lock);
	f = *find(node_of(parent), name);
	if (f)
		fill_entry(f->node, &e);
	pthread_rwlock_unlock(&lock);
	if (f)
		fuse_reply_entry(req, &e);
	else
		fuse_reply_err(req, ENOENT);
}

static void null_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fi;
	fuse_reply_attr(req, &node_of(ino)->st, timeout_s);
}

static void null_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *a, int set, struct fuse_file_info *fi)
{
	struct stat *st = &node_of(ino)->st;

	(void)fi;
	if (set & FUSE_SET_ATTR_MODE)
		st->st_mode = (st->st_mode & S_IFMT) | (a->st_mode & 07777);
	if (set & FUSE_SET_ATTR_UID)
		st->st_uid = a->st_uid;
	if (set & FUSE_SET_ATTR_GID)
		st->st_gid = a->st_gid;
	if (set & FUSE_SET_ATTR_SIZE)
		st->st_size = a->st_size;
	if (set & FUSE_SET_ATTR_MTIME)
		st->st_mtim = a->st_mtim;
	fuse_reply_attr(req, st, timeout_s);
}

static void new_node(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, const char *target,
		     struct fuse_file_info *fi)
{
	struct node *n = make(req, mode, target);
	struct fuse_entry_param e;
	int err;

	pthread_rwlock_wrlock(&lock);
	err = n ? add(node_of(parent), name, n) : ENOMEM;
	pthread_rwlock_unlock(&lock);
	if (err) {
		fuse_reply_err(req, err);
		return;
	}
	fill_entry(n, &e);
	if (fi) {
		fi->direct_io = direct_io;
		fuse_reply_create(req, &e, fi);
	} else {
		fuse_reply_entry(req, &e);
	}
}

static void null_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	(void)rdev;
	new_node(req, parent, name, mode, NULL, NULL);
}

static void null_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	new_node(req, parent, name, mode | S_IFDIR, NULL, NULL);
}

static void null_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	new_node(req, parent, name, S_IFLNK | 0777, target, NULL);
}

static void null_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	new_node(req, parent, name, mode, NULL, fi);
}

static void null_readlink(fuse_req_t req, fuse_ino_t ino)
{
	fuse_reply_readlink(req, node_of(ino)->target);
}

static void null_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct node *n;

	pthread_rwlock_wrlock(&lock);
	n = del(node_of(parent), name);
	pthread_rwlock_unlock(&lock);
	fuse_reply_err(req, n ? 0 : ENOENT);
}

static void null_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
			const char *newname, unsigned flags)
{
	struct node *n;

	if (flags) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	pthread_rwlock_wrlock(&lock);
	n = del(node_of(parent), name);
	if (n) {
		del(node_of(newparent), newname);
		add(node_of(newparent), newname, n);
	}
	pthread_rwlock_unlock(&lock);
	fuse_reply_err(req, n ? 0 : ENOENT);
}

static void null_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->direct_io = direct_io;
	fuse_reply_open(req, fi);
}

static void null_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, 0);
}

static void null_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)datasync;
	null_release(req, ino, fi);
}

static void null_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	static const char zeros[1 << 20];
	off_t left = node_of(ino)->st.st_size - off;

	(void)fi;
	if (left < 0)
		left = 0;
	if (size > (size_t)left)
		size = (size_t)left;
	fuse_reply_buf(req, zeros, size < sizeof(zeros) ? size : sizeof(zeros));
}

static void null_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	struct stat *st = &node_of(ino)->st;

	(void)buf;
	(void)fi;
	if (off + (off_t)size > st->st_size)
		st->st_size = off + (off_t)size;
	fuse_reply_write(req, size);
}

static void dir_list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
	char *buf = malloc(size);
	size_t used = 0;
	off_t i = 0;

	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pthread_rwlock_rdlock(&lock);
	for (struct entry *e = node_of(ino)->children; e; e = e->sibling) {
		struct fuse_entry_param p;
		size_t n;

		if (i++ < off)
			continue;
		fill_entry(e->node, &p);
		n = plus ? fuse_add_direntry_plus(req, buf + used, size - used, e->name, &p, i) :
			   fuse_add_direntry(req, buf + used, size - used, e->name, &p.attr, i);
		if (n > size - used)
			break;
		used += n;
	}
	pthread_rwlock_unlock(&lock);
	fuse_reply_buf(req, buf, used);
	free(buf);
}

static void null_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	dir_list(req, ino, size, off, false);
}

static void null_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	dir_list(req, ino, size, off, true);
}

static void null_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs v = { .f_bsize = 4096, .f_frsize = 4096, .f_blocks = 1 << 30, .f_bfree = 1 << 30,
			     .f_bavail = 1 << 30, .f_files = 1 << 30, .f_ffree = 1 << 30, .f_namemax = 255 };

	(void)ino;
	fuse_reply_statfs(req, &v);
}

static const struct fuse_lowlevel_ops ops = {
	.init = null_init, .lookup = null_lookup, .getattr = null_getattr, .setattr = null_setattr,
	.mknod = null_mknod, .mkdir = null_mkdir, .symlink = null_symlink, .create = null_create,
	.readlink = null_readlink, .unlink = null_unlink, .rmdir = null_unlink, .rename = null_rename,
	.open = null_open, .release = null_release, .flush = null_release, .fsync = null_fsync,
	.read = null_read, .write = null_write, .readdir = null_readdir, .readdirplus = null_readdirplus,
	.statfs = null_statfs,
};

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_loop_config *cfg = fuse_loop_cfg_create();
	const char *dir = NULL;
	struct fuse_session *se;
	int rc = 1;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--timeout") && i + 1 < argc)
			timeout_s = atof(argv[++i]);
		else if (!strcmp(argv[i], "--direct"))
			direct_io = true;
		else
			dir = argv[i];
	}
	if (!dir || dir[0] == '-' || !cfg) {
		fprintf(stderr, "usage: null_fuse [--timeout SECONDS] [--direct] MOUNTPOINT\n");
		return 2;
	}
	root_node.st.st_mode = S_IFDIR | 0777;
	root_node.st.st_ino = 1;
	root_node.st.st_nlink = 2;
	fuse_opt_add_arg(&args, "null_fuse");
	fuse_opt_add_arg(&args, "-odefault_permissions,allow_other,fsname=null");
	se = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (se && !fuse_set_signal_handlers(se)) {
		if (!fuse_session_mount(se, dir)) {
			fuse_loop_cfg_set_clone_fd(cfg, 1);
			fuse_loop_cfg_set_idle_threads(cfg, 16);
			fuse_loop_cfg_set_max_threads(cfg, 32);
			rc = fuse_session_loop_mt(se, cfg) < 0;
			fuse_session_unmount(se);
		}
		fuse_remove_signal_handlers(se);
	}
	if (se)
		fuse_session_destroy(se);
	fuse_loop_cfg_destroy(cfg);
	fuse_opt_free_args(&args);
	return rc;
}
