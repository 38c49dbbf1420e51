// SPDX-License-Identifier: MIT
/*
 * test_fuse_answer.c - the twin: the body that answers FUSE requests in the kernel (bpf/fuse_answer.h), compiled for user
 * space over maps that are tables. Proves: answers are the daemon's own, byte for byte where it counts; what does
 * not count (epoch, floor, deadline, busy, torn or recycled elements, another name) is passed on; the gate is
 * written before an answer that the kernel may keep, and what is recalled in that very moment is not answered.
 */
#include "bpf/kmod/claudefs_fuse.h"
#include "claudefs/bpf_shared.h"
#include "claudefs/types.h"
#include "uapi/fuse_statx.h"

#include <errno.h>
#include <linux/fuse.h>
#include <linux/types.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define SEC_NS	1000000000ull
#define DIR	2ull
#define FILE_INO 7ull

/* ---- the maps: a few elements each ----------------------------------------------------------------------- */
#define N 4
static struct {
	struct cfs_bpf_ctl ctl;
	struct cfs_bpf_gate gate;
	uint64_t now;
	struct {
		uint64_t ino;
		struct cfs_bpf_dir v;
	} dirs[N];
	struct {
		struct cfs_bpf_name_key key;
		struct cfs_bpf_name v;
	} names[N];
	struct {
		struct cfs_bpf_long_key key;
		struct cfs_bpf_name v;
	} longs[N];
	struct {
		uint64_t ino;
		struct cfs_bpf_attr v;
	} attrs[N];
	unsigned n_dirs, n_names, n_longs, n_attrs;
	/* the request's name, the reply */
	struct cfs_bpf_long_key key;
	char name[256];
	unsigned char reply[512];
	uint32_t reply_len;
	unsigned recall_after;		/* find_dir() calls: then the directory is recalled */
} w;

static const void *twin_key(const struct cfs_fuse_req *req, size_t size)
{
	if (req->name_len > size - sizeof(uint64_t))
		return NULL;
	memset(&w.key, 0, sizeof(w.key));
	w.key.dir = req->nodeid;
	memcpy(w.key.name, w.name, req->name_len);
	return &w.key;
}

static int twin_reply(const struct cfs_fuse_req *req, const void *data, uint32_t size)
{
	assert_int_equal(size, req->out_size);
	memcpy(w.reply, data, size);
	w.reply_len = size;
	return 0;
}

static const struct cfs_bpf_name *twin_find_name(const void *key)
{
	for (unsigned i = 0; i < w.n_names; i++)
		if (!memcmp(&w.names[i].key, key, sizeof(w.names[i].key)))
			return &w.names[i].v;
	return NULL;
}

static const struct cfs_bpf_name *twin_find_long(const void *key)
{
	for (unsigned i = 0; i < w.n_longs; i++)
		if (!memcmp(&w.longs[i].key, key, sizeof(w.longs[i].key)))
			return &w.longs[i].v;
	return NULL;
}

static const struct cfs_bpf_attr *twin_find_attr(uint64_t ino)
{
	for (unsigned i = 0; i < w.n_attrs; i++)
		if (w.attrs[i].ino == ino)
			return &w.attrs[i].v;
	return NULL;
}

static const struct cfs_bpf_dir *twin_find_dir(uint64_t ino)
{
	static struct cfs_bpf_dir found;
	unsigned i = 0;

	while (i < w.n_dirs && w.dirs[i].ino != ino)
		i++;
	if (i == w.n_dirs)
		return NULL;
	found = w.dirs[i].v;
	if (w.recall_after && !--w.recall_after)
		w.n_dirs = 0;
	return &found;
}

#define CFS_ANSWER_FN static
#define CFS_ANSWER_INLINE static inline
#define cfs_now() w.now
#define cfs_key(req, size) twin_key(req, size)
#define cfs_reply(req, data, size) twin_reply(req, data, size)
#define cfs_find_name(key) twin_find_name(key)
#define cfs_find_long(key) twin_find_long(key)
#define cfs_find_attr(ino) twin_find_attr(ino)
#define cfs_find_dir(ino) twin_find_dir(ino)
#include "bpf/fuse_answer.h"

/* ---- filling -------------------------------------------------------------------------------------------------- */
static void put_dir(uint64_t ino, uint64_t epoch)
{
	struct cfs_bpf_dir v = { .epoch = epoch };

	v.sum = cfs_bpf_dir_sum(ino, &v);
	w.dirs[w.n_dirs].ino = ino;
	w.dirs[w.n_dirs++].v = v;
}

static void put_name(uint64_t dir, const char *name, uint64_t ino, uint64_t epoch)
{
	struct cfs_bpf_name v = { .dir = dir, .epoch = epoch, .ino = ino };

	if (strlen(name) <= CFS_BPF_NAME_SHORT) {
		struct cfs_bpf_name_key key = { .dir = dir };

		memcpy(key.name, name, strlen(name));
		v.sum = cfs_bpf_name_sum(&key, &v);
		w.names[w.n_names].key = key;
		w.names[w.n_names++].v = v;
	} else {
		struct cfs_bpf_long_key key = { .dir = dir };

		memcpy(key.name, name, strlen(name));
		v.sum = cfs_bpf_long_sum(&key, &v);
		w.longs[w.n_longs].key = key;
		w.longs[w.n_longs++].v = v;
	}
}

static struct cfs_bpf_attr make_attr(uint64_t ino, uint64_t home, uint64_t epoch)
{
	return (struct cfs_bpf_attr){
		.ino = ino, .home = home, .epoch = epoch, .gen = 99, .size = 12345, .alloc = 16384,
		.atime = { .sec = 11, .nsec = 1 }, .mtime = { .sec = (uint64_t)-12, .nsec = 2 }, .ctime = { .sec = 13, .nsec = 3 },
		.btime = { .sec = 14, .nsec = 4 }, .mode = S_IFREG | 0640, .nlink = 1, .uid = 1000, .gid = 100,
	};
}

static void put_attr(uint64_t ino, struct cfs_bpf_attr v)
{
	v.sum = cfs_bpf_attr_sum(ino, &v);
	w.attrs[w.n_attrs].ino = ino;
	w.attrs[w.n_attrs++].v = v;
}

static char long_name[256];

static int setup(void **state)
{
	(void)state;
	memset(&w, 0, sizeof(w));
	memset(long_name, 'n', 255);
	w.now = 100 * SEC_NS;
	w.ctl = (struct cfs_bpf_ctl){ .answering = 1, .deadline_ns = 110 * SEC_NS, .until_ns = 109 * SEC_NS, .floor = 4 };
	put_dir(DIR, 5);
	put_name(DIR, "file", FILE_INO, 5);
	put_name(DIR, "absent", 0, 5);
	put_name(DIR, "bare", 8, 5);
	put_name(DIR, long_name, FILE_INO, 5);
	put_attr(FILE_INO, make_attr(FILE_INO, DIR, 5));
	return 0;
}

/* ---- asking ------------------------------------------------------------------------------------------------------- */
static uint32_t stale;

static uint32_t flags;	/* of GETATTR */

static int ask(uint32_t opcode, uint64_t nodeid, const char *name, uint32_t out_size)
{
	struct cfs_fuse_req req = { .nodeid = nodeid, .opcode = opcode, .out_size = out_size, .arg = flags };

	memset(w.reply, 0xee, sizeof(w.reply));
	w.reply_len = 0;
	if (name) {
		req.name_len = (uint32_t)strlen(name);
		memcpy(w.name, name, req.name_len);
	}
	return cfs_answer(&req, &w.ctl, &w.gate, &stale);
}

static int lookup(const char *name)
{
	return ask(FUSE_LOOKUP, DIR, name, sizeof(struct fuse_entry_out));
}

static int getattr(void)
{
	return ask(FUSE_GETATTR, FILE_INO, NULL, sizeof(struct fuse_attr_out));
}

static int getxattr(const char *name)
{
	return ask(FUSE_GETXATTR, FILE_INO, name, 0);
}

static void passes_everything(void)
{
	assert_int_equal(lookup("file"), CFS_FUSE_PASS);
	assert_int_equal(lookup(long_name), CFS_FUSE_PASS);
	assert_int_equal(lookup("absent"), CFS_FUSE_PASS);
	assert_int_equal(getattr(), CFS_FUSE_PASS);
	assert_int_equal(ask(CFS_FUSE_STATX, FILE_INO, NULL, sizeof(struct cfs_fuse_statx_out)), CFS_FUSE_PASS);
	assert_int_equal(getxattr("user.x"), CFS_FUSE_PASS);
	assert_int_equal(w.reply_len, 0);
}

static void check_attr(const struct fuse_attr *a)
{
	assert_int_equal(a->ino, FILE_INO);
	assert_int_equal(a->size, 12345);
	assert_int_equal(a->blocks, 32);
	assert_int_equal(a->atime, 11);
	assert_int_equal((int64_t)a->mtime, -12);
	assert_int_equal(a->ctime, 13);
	assert_int_equal(a->atimensec, 1);
	assert_int_equal(a->mtimensec, 2);
	assert_int_equal(a->ctimensec, 3);
	assert_int_equal(a->mode, S_IFREG | 0640);
	assert_int_equal(a->nlink, 1);
	assert_int_equal(a->uid, 1000);
	assert_int_equal(a->gid, 100);
	assert_int_equal(a->blksize, 1048576);
}

static void test_answers(void **state)
{
	const struct fuse_entry_out *e = (const void *)w.reply;
	const struct fuse_attr_out *a = (const void *)w.reply;
	const struct cfs_fuse_statx_out *x = (const void *)w.reply;

	(void)state;
	assert_int_equal(lookup("file"), 0);
	assert_int_equal(e->nodeid, FILE_INO);
	assert_int_equal(e->generation, 99);
	assert_int_equal(e->entry_valid, 9);
	assert_int_equal(e->attr_valid, 9);
	check_attr(&e->attr);
	assert_int_equal(lookup(long_name), 0);
	assert_int_equal(e->nodeid, FILE_INO);
	/* an absent name that may be kept is an entry without an inode */
	assert_int_equal(lookup("absent"), 0);
	assert_int_equal(e->nodeid, 0);
	assert_int_equal(e->entry_valid, 9);
	flags = FUSE_GETATTR_FH;	/* the kernel's own reading */
	assert_int_equal(getattr(), CFS_FUSE_PASS);
	flags = 0;
	assert_int_equal(getattr(), 0);
	assert_int_equal(a->attr_valid, 9);
	check_attr(&a->attr);
	assert_int_equal(ask(CFS_FUSE_STATX, FILE_INO, NULL, sizeof(*x)), 0);
	assert_int_equal(x->stat.mask, STATX_BASIC_STATS | STATX_BTIME);
	assert_int_equal(x->stat.btime.tv_sec, 14);
	assert_int_equal(x->stat.mtime.tv_sec, -12);
	assert_int_equal(x->stat.size, 12345);
	assert_int_equal(x->stat.mode, S_IFREG | 0640);
	assert_int_equal(getxattr("user.x"), -ENODATA);
	assert_int_equal(getxattr("security.capability"), -ENODATA);
	/* known name, attributes not known; not known at all; not ours to answer */
	assert_int_equal(lookup("bare"), CFS_FUSE_PASS);
	assert_int_equal(lookup("other"), CFS_FUSE_PASS);
	assert_int_equal(lookup("fil"), CFS_FUSE_PASS);
	assert_int_equal(ask(FUSE_OPEN, FILE_INO, NULL, 0), CFS_FUSE_PASS);
}

/* what the kernel is told to keep is in the gate; nothing is to be kept behind until_ns, and nothing is noted then */
static void test_gate(void **state)
{
	const struct fuse_entry_out *e = (const void *)w.reply;
	uint64_t *name_until = &w.gate.name_until[cfs_bpf_hash(DIR) % CFS_BPF_BUSY];
	uint64_t *home_until = &w.gate.home_until[cfs_bpf_hash(DIR) % CFS_BPF_BUSY];
	uint64_t *attr_until = &w.gate.attr_until[cfs_bpf_hash(FILE_INO) % CFS_BPF_ATTR_UNTIL];

	(void)state;
	w.now = 109 * SEC_NS + 1;
	assert_int_equal(lookup("file"), 0);
	assert_int_equal(e->entry_valid + e->entry_valid_nsec + e->attr_valid + e->attr_valid_nsec, 0);
	assert_int_equal(lookup("absent"), -ENOENT);
	assert_int_equal(*name_until | *attr_until | *home_until, 0);
	w.now = 100 * SEC_NS;
	assert_int_equal(getattr(), 0);
	assert_int_equal(*attr_until, 109 * SEC_NS);
	assert_int_equal(*home_until, 109 * SEC_NS);
	assert_int_equal(*name_until, 0);
	assert_int_equal(lookup("file"), 0);
	assert_int_equal(*name_until, 109 * SEC_NS);
	/* never lowered: the kernel may still have what it was told before */
	w.ctl.until_ns = 108 * SEC_NS;
	assert_int_equal(lookup("file"), 0);
	assert_int_equal(e->entry_valid, 8);
	assert_int_equal(*name_until, 109 * SEC_NS);
}

/*
 * A recall deletes, then reads the gate. If it finds nothing there, then the answer that was being made is not given; if it finds
 * something, the kernel is told after the answer.
 */
static void test_recall_in_between(void **state)
{
	uint64_t *attr_until = &w.gate.attr_until[cfs_bpf_hash(FILE_INO) % CFS_BPF_ATTR_UNTIL];

	(void)state;
	w.recall_after = 1; /* believed, then recalled, then the gate is written: looked at once more */
	assert_int_equal(getattr(), CFS_FUSE_PASS);
	setup(NULL);
	w.recall_after = 2; /* a look-up believes the name and the attributes */
	assert_int_equal(lookup("file"), CFS_FUSE_PASS);
	setup(NULL);
	*attr_until = w.gate.home_until[cfs_bpf_hash(DIR) % CFS_BPF_BUSY] = w.ctl.until_ns;
	w.recall_after = 1; /* it stood in the gate before: who recalls has found it */
	assert_int_equal(getattr(), 0);
}

static void test_kill_switch(void **state)
{
	(void)state;
	w.ctl.answering = 0;
	passes_everything();
	w.ctl.answering = 1;
	w.ctl.broken = 1;
	passes_everything();
	w.ctl.broken = 0;
	w.ctl.hold = 1; /* look-ups only */
	assert_int_equal(lookup("file"), CFS_FUSE_PASS);
	assert_int_equal(getattr(), 0);
}

static void test_deadline(void **state)
{
	(void)state;
	w.now = w.ctl.deadline_ns - 1;
	assert_int_equal(getattr(), 0);
	w.now = w.ctl.deadline_ns;
	passes_everything();
	assert_int_equal(stale, 1);
	w.ctl.deadline_ns += SEC_NS; /* one store renews all of it */
	assert_int_equal(getattr(), 0);
	w.ctl.deadline_ns = 0; /* and one ends it */
	passes_everything();
}

static void test_epochs(void **state)
{
	(void)state;
	w.n_dirs = 0; /* recalled */
	passes_everything();
	assert_int_equal(stale, 1);
	put_dir(DIR, 6); /* granted again: what stood under the old one does not count */
	passes_everything();
	w.n_dirs = 0;
	put_dir(DIR, 5);
	w.ctl.floor = 5; /* everything up to 5 is void */
	passes_everything();
	w.ctl.floor = 4;
	assert_int_equal(lookup("file"), 0);
	/* the largest epochs there are; and 0, which nothing has, is never believed */
	setup(NULL);
	w.n_dirs = w.n_attrs = 0;
	put_dir(DIR, UINT64_MAX);
	put_attr(FILE_INO, make_attr(FILE_INO, DIR, UINT64_MAX));
	w.ctl.floor = UINT64_MAX - 1;
	assert_int_equal(getattr(), 0);
	w.ctl.floor = UINT64_MAX;
	assert_int_equal(getattr(), CFS_FUSE_PASS);
	w.n_dirs = w.n_attrs = 0;
	w.ctl.floor = 0;
	put_dir(DIR, 0);
	put_attr(FILE_INO, make_attr(FILE_INO, DIR, 0));
	assert_int_equal(getattr(), CFS_FUSE_PASS);
}

static void test_busy(void **state)
{
	(void)state;
	w.gate.busy[cfs_bpf_hash(DIR) % CFS_BPF_BUSY] = 1;
	passes_everything();
	w.gate.busy[cfs_bpf_hash(DIR) % CFS_BPF_BUSY] = 0;
	w.gate.busy[cfs_bpf_hash(FILE_INO) % CFS_BPF_BUSY] = 2; /* the file itself: names without it still count */
	assert_int_equal(lookup("file"), CFS_FUSE_PASS);
	assert_int_equal(getattr(), CFS_FUSE_PASS);
	assert_int_equal(lookup("absent"), 0);
}

/* any changed bit of an element, and any element under another key, is seen */
static void test_torn(void **state)
{
	(void)state;
	for (unsigned bit = 0; bit < sizeof(struct cfs_bpf_attr) * 8; bit++) {
		((unsigned char *)&w.attrs[0].v)[bit / 8] ^= (unsigned char)(1u << bit % 8);
		assert_int_equal(getattr(), CFS_FUSE_PASS);
		((unsigned char *)&w.attrs[0].v)[bit / 8] ^= (unsigned char)(1u << bit % 8);
	}
	for (unsigned bit = 0; bit < sizeof(struct cfs_bpf_name) * 8; bit++) {
		((unsigned char *)&w.names[0].v)[bit / 8] ^= (unsigned char)(1u << bit % 8);
		assert_int_equal(lookup("file"), CFS_FUSE_PASS);
		((unsigned char *)&w.names[0].v)[bit / 8] ^= (unsigned char)(1u << bit % 8);
	}
	for (unsigned bit = 0; bit < sizeof(struct cfs_bpf_dir) * 8; bit++) {
		((unsigned char *)&w.dirs[0].v)[bit / 8] ^= (unsigned char)(1u << bit % 8);
		assert_int_equal(getattr(), CFS_FUSE_PASS);
		((unsigned char *)&w.dirs[0].v)[bit / 8] ^= (unsigned char)(1u << bit % 8);
	}
	assert_int_equal(lookup("file"), 0);
	w.names[0].v = w.names[2].v; /* recycled: same directory, same epoch, another name */
	assert_int_equal(lookup("file"), CFS_FUSE_PASS);
	w.attrs[0].v.ino = 8;
	w.attrs[0].v.sum = cfs_bpf_attr_sum(8, &w.attrs[0].v);
	assert_int_equal(getattr(), CFS_FUSE_PASS);
}

/* flags say which kinds of extended attributes there are: those are asked for, others are absent */
static void test_xattr_flags(void **state)
{
	static const struct {
		uint32_t flags;
		const char *name;
		int result;
	} v[] = {
		{ 0, "user.x", -ENODATA },
		{ CFS_IF_XATTR, "user.x", CFS_FUSE_PASS },
		{ CFS_IF_XATTR, "security.capability", -ENODATA },
		{ CFS_IF_XATTR | CFS_IF_CAPS, "security.capability", CFS_FUSE_PASS },
		{ CFS_IF_XATTR, "security.capabilityx", CFS_FUSE_PASS },
		{ CFS_IF_XATTR, "system.posix_acl_access", -ENODATA },
		{ CFS_IF_XATTR | CFS_IF_ACL, "system.posix_acl_default", CFS_FUSE_PASS },
		{ CFS_IF_XATTR | CFS_IF_ACL, "security.capability", -ENODATA },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		struct cfs_bpf_attr a = make_attr(FILE_INO, DIR, 5);

		w.n_attrs = 0;
		a.flags = v[i].flags;
		put_attr(FILE_INO, a);
		assert_int_equal(getxattr(v[i].name), v[i].result);
	}
	/* a name longer than all that are known */
	assert_int_equal(getxattr(long_name), CFS_FUSE_PASS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_answers, setup),
		cmocka_unit_test_setup(test_gate, setup),
		cmocka_unit_test_setup(test_recall_in_between, setup),
		cmocka_unit_test_setup(test_kill_switch, setup),
		cmocka_unit_test_setup(test_deadline, setup),
		cmocka_unit_test_setup(test_epochs, setup),
		cmocka_unit_test_setup(test_busy, setup),
		cmocka_unit_test_setup(test_torn, setup),
		cmocka_unit_test_setup(test_xattr_flags, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
