/* SPDX-License-Identifier: MIT */
/*
 * Proves that the extent map is right after any sequence of commits, truncates, punches and
 * copies: against a byte-by-byte model of what a reader sees; that objects die exactly when
 * nothing refers to them; that a file with many extents is removed in bounded steps; and the
 * rules for inline data.
 */
#include "selftests/unit/server/meta/state_test.h"

#include "base/rng.h"

#include <linux/falloc.h>

#define ROOT CFS_INO_ROOT

static uint64_t size_of(struct state *s, uint64_t ino)
{
	return cfs_le64_to_cpu(state_attr(s, ino).size);
}

static uint64_t alloc_of(struct state *s, uint64_t ino)
{
	return cfs_le64_to_cpu(state_attr(s, ino).alloc);
}

static int dead(struct state *s, struct cfs_dead *ret, unsigned max)
{
	struct cfs_time end = { .sec = cfs_cpu_to_le64(1ull << 40) };

	return cfs_meta_dead(s->m, &end, ret, max);
}

static void test_commit(void **arg)
{
	struct state s;
	struct cfs_commit_result r;
	static struct commit c;
	struct ext e[8];
	struct cfs_dead d[8];
	uint64_t f, g;

	(void)arg;
	state_start(&s);
	f = state_file(&s, ROOT, "f");
	g = state_file(&s, ROOT, "g");
	assert_int_equal(state_commit(&s, f, 0, 0,
				      &(struct ext){ .off = 100, .len = 1000, .seq = 1 }, 1),
			 0);
	assert_int_equal(size_of(&s, f), 1100);
	assert_int_equal(alloc_of(&s, f), 1000);
	/*
	 * the middle is overwritten: two pieces of the old object are left, with one count for
	 * both
	 */
	assert_int_equal(state_commit(&s, f, 0, 5000,
				      &(struct ext){ .off = 400, .len = 100, .seq = 2 }, 1),
			 0);
	assert_int_equal(size_of(&s, f), 5000);
	assert_int_equal(state_extents(&s, f, 0, e, 8), 3);
	assert_true(e[0].off == 100 && e[0].len == 300 && e[0].obj_off == 0 && e[0].seq == 1);
	assert_true(e[1].off == 400 && e[1].len == 100 && e[1].seq == 2);
	assert_true(e[2].off == 500 && e[2].len == 600 && e[2].obj_off == 400 && e[2].seq == 1);
	state_check(&s);
	assert_int_equal(state_truncate(&s, f, 450), 0);
	assert_int_equal(dead(&s, d, 8), 0);
	assert_int_equal(state_extents(&s, f, 0, e, 8), 2);
	assert_int_equal(e[1].len, 50);
	assert_int_equal(alloc_of(&s, f), 350);
	assert_int_equal(
		state_commit(&s, f, 0, 0, &(struct ext){ .off = 0, .len = 400, .seq = 3 }, 1), 0);
	assert_int_equal(dead(&s, d, 8), 1);
	assert_int_equal(cfs_le64_to_cpu(d[0].oid.seq), 1);
	assert_int_equal(cfs_le64_to_cpu(d[0].died.sec), (uint64_t)s.now);
	assert_int_equal(cfs_meta_dead(s.m, &d[0].died, d, 8), 0);	/* not before it died */
	/* extents from the middle of one on */
	assert_int_equal(state_extents(&s, f, 420, e, 8), 1);
	assert_int_equal(e[0].off, 400);
	/* one failing item does not hurt the others; one object for two files */
	commit_add(&s, &c, f, CFS_CI_MTIME, 0, NULL, 0,
		   &(struct ext){ .off = 0, .len = 10, .seq = 9, .obj_len = 20 }, 1);
	commit_add(&s, &c, 999, 0, 0, NULL, 0, NULL, 0);
	commit_add(&s, &c, ROOT, 0, 0, NULL, 0, NULL, 0);
	commit_add(&s, &c, g, CFS_CI_APPEND, 0, NULL, 0,
		   &(struct ext){ .off = 0, .len = 10, .obj_off = 10, .seq = 9, .obj_len = 20 }, 1);
	commit_add(&s, &c, g, CFS_CI_APPEND, 0, NULL, 0,
		   &(struct ext){ .off = 5, .len = 5, .seq = 10 }, 1);
	assert_int_equal(commit_send(&s, &c), 0);
	r = commit_result(&s, 0);
	assert_int_equal(r.status, 0);
	assert_int_equal(cfs_le64_to_cpu(r.attr.mtime.sec), 77);
	r = commit_result(&s, 1);
	assert_int_equal(cfs_le32_to_cpu(r.status), ENOENT);
	r = commit_result(&s, 2);
	assert_int_equal(cfs_le32_to_cpu(r.status), EISDIR);
	r = commit_result(&s, 3);
	assert_int_equal(r.status, 0);
	assert_int_equal(r.off, 0);
	r = commit_result(&s, 4);
	assert_int_equal(cfs_le64_to_cpu(r.off), 10);
	assert_int_equal(size_of(&s, g), 20);
	state_check(&s);
	assert_int_equal(state_remove(&s, ROOT, "g", false), 0);
	assert_int_equal(dead(&s, d, 8), 2);	/* 1 and 10: f still has a part of 9 */
	assert_int_equal(cfs_le64_to_cpu(d[1].oid.seq), 10);
	/* what is no extent */
	assert_int_equal(state_commit(&s, f, 0, 0,
				      &(struct ext){ .off = 0, .len = 0, .seq = 4, .obj_len = 1 },
				      1),
			 EINVAL);
	assert_int_equal(state_commit(&s, f, 0, 0,
				      &(struct ext){ .off = 0, .len = 9, .seq = 4, .obj_len = 8 },
				      1),
			 EINVAL);
	assert_int_equal(state_commit(&s, f, 0, 0,
				      &(struct ext){ .len = CFS_OBJECT_MAX + 1, .seq = 4 }, 1),
			 EINVAL);
	assert_int_equal(state_commit(&s, f, 0, 0,
				      &(struct ext){ .off = CFS_FILE_SIZE_MAX, .len = 1, .seq = 4 },
				      1),
			 EFBIG);
	assert_int_equal(state_commit(&s, f, 0, CFS_FILE_SIZE_MAX + 1, NULL, 0), EFBIG);
	assert_int_equal(state_commit(&s, f, 64, 0, NULL, 0), EINVAL);
	{	/* an object of another session */
		uint64_t mine = s.session;

		commit_add(&s, &c, f, 0, 0, NULL, 0, NULL, 0);
		c.n = 0;
		s.session = 4711;
		commit_add(&s, &c, f, 0, 0, NULL, 0, &(struct ext){ .len = 1, .seq = 4 }, 1);
		s.session = mine;
		assert_int_equal(commit_send(&s, &c), 0);
		assert_int_equal(cfs_le32_to_cpu(commit_result(&s, 0).status), EPERM);
	}
	/* DEAD_DONE */
	{
		cfs_le64 keys[2] = { cfs_cpu_to_le64(d[0].key), cfs_cpu_to_le64(12345) };

		assert_int_equal(state_apply(&s, CFS_LOG_DEAD_DONE, 0, CFS_SLOT_NONE, 0, keys,
					     sizeof(keys)),
				 0);
		assert_int_equal(dead(&s, d, 8), 1);
		assert_int_equal(state_stat(&s).dead_objects, 1);
	}
	state_stop(&s);
}

/* a client that commits an object twice, against the rule, may lose it, but nobody else suffers */
static void test_object_twice(void **arg)
{
	const struct ext e = { .off = 0, .len = 100, .seq = 1 };
	struct state s;
	uint64_t f, g;

	(void)arg;
	state_start(&s);
	f = state_file(&s, ROOT, "f");
	g = state_file(&s, ROOT, "g");
	assert_int_equal(state_commit(&s, f, 0, 0, &e, 1), 0);
	/* at the same place it is no change at all */
	assert_int_equal(state_commit(&s, f, 0, 0, &e, 1), 0);
	assert_int_equal(state_stat(&s).dead_objects, 0);
	state_check(&s);
	assert_int_equal(state_commit(&s, g, 0, 0, &e, 1), 0);
	assert_true(cfs_meta_check(s.m, false, NULL, NULL) > 0);
	assert_int_equal(state_remove(&s, ROOT, "f", false), 0);
	assert_int_equal(state_remove(&s, ROOT, "g", false), 0);
	state_stop(&s);
}

static void test_inline(void **arg)
{
	struct state s;
	struct cfs_attr a;
	char data[CFS_INLINE_MAX];
	struct cfs_entry_rep rep;
	struct ext e[4];
	uint64_t f;

	(void)arg;
	state_start(&s);
	f = state_file(&s, ROOT, "f");
	memset(data, 'x', sizeof(data));
	assert_int_equal(state_commit_inline(&s, f, data, sizeof(data)), 0);
	a = state_attr(&s, f);
	assert_int_equal(cfs_le64_to_cpu(a.size), 4096);
	assert_int_equal(cfs_le64_to_cpu(a.alloc), 4096);
	assert_int_equal(cfs_le32_to_cpu(a.flags), CFS_IF_INLINE);
	assert_int_equal(state_stat(&s).data_bytes, 4096);
	/* extents must cover all of the inline bytes, in whatever pieces */
	assert_int_equal(state_commit(&s, f, 0, 0, &(struct ext){ .off = 1, .len = 8192, .seq = 1 },
				      1),
			 EINVAL);
	assert_int_equal(state_commit(&s, f, 0, 0, &(struct ext){ .off = 0, .len = 4095, .seq = 1 },
				      1),
			 EINVAL);
	assert_int_equal(state_commit(&s, f, CFS_CI_APPEND, 0,
				      &(struct ext){ .off = 0, .len = 1, .seq = 1 }, 1),
			 EINVAL);
	assert_int_equal(cfs_le64_to_cpu(state_attr(&s, f).alloc), 4096);
	e[0] = (struct ext){ .off = 3000, .len = 3000, .seq = 1 };
	e[1] = (struct ext){ .off = 0, .len = 3500, .seq = 2 };
	assert_int_equal(state_commit(&s, f, 0, 0, e, 2), 0);
	assert_int_equal(cfs_le32_to_cpu(state_attr(&s, f).flags), 0);
	assert_int_equal(state_extents(&s, f, 0, e, 4), 2);
	assert_true(e[0].len == 3500 && e[1].off == 3500 && e[1].obj_off == 500);
	/* and back: content is replaced, the objects die */
	assert_int_equal(state_commit_inline(&s, f, "hello", 5), 0);
	assert_int_equal(size_of(&s, f), 5);
	assert_int_equal(alloc_of(&s, f), 5);
	assert_int_equal(state_stat(&s).dead_objects, 2);
	assert_int_equal(state_lookup(&s, ROOT, "f", NULL), 0);
	memcpy(&rep, s.rep, sizeof(rep));
	assert_int_equal(cfs_le32_to_cpu(rep.inline_len), 5);
	assert_memory_equal(s.rep + sizeof(rep), "hello", 5);
	/* truncating: a hole where it grew, nothing old where it shrank before */
	assert_int_equal(state_truncate(&s, f, 2), 0);
	assert_int_equal(state_truncate(&s, f, 1 << 20), 0);
	assert_int_equal(size_of(&s, f), 1 << 20);
	assert_int_equal(alloc_of(&s, f), 2);
	assert_int_equal(state_truncate(&s, f, 0), 0);
	assert_int_equal(cfs_le32_to_cpu(state_attr(&s, f).flags), 0);
	assert_int_equal(state_commit_inline(&s, f, data, 4097 - 1), 0);
	assert_int_equal(state_remove(&s, ROOT, "f", false), 0);
	assert_int_equal(state_stat(&s).data_bytes, 0);
	state_stop(&s);
}

/* CFS_CI_PATCH: status; *ret_off: where it landed */
static uint32_t patch(struct state *s, uint64_t ino, uint32_t flags, uint64_t off, const void *data, uint32_t len, uint64_t *ret_off)
{
	static struct commit c;
	struct cfs_commit_result r;

	commit_add(s, &c, ino, CFS_CI_PATCH | flags, off, data, len, NULL, 0);
	assert_int_equal(commit_send(s, &c), 0);
	r = commit_result(s, 0);
	assert_int_equal(r.flags, 0);	/* which files are contended is no part of the state */
	*ret_off = cfs_le64_to_cpu(r.off);
	return cfs_le32_to_cpu(r.status);
}

static void inline_is(struct state *s, const char *name, const char *want, uint32_t len)
{
	struct cfs_entry_rep rep;

	assert_int_equal(state_lookup(s, ROOT, name, NULL), 0);
	memcpy(&rep, s->rep, sizeof(rep));
	assert_int_equal(cfs_le32_to_cpu(rep.inline_len), len);
	assert_memory_equal(s->rep + sizeof(rep), want, len);
}

static void test_patch(void **state)
{
	uint8_t data[CFS_INLINE_MAX];
	struct state s;
	uint64_t f, off;

	(void)state;
	memset(data, 'x', sizeof(data));
	state_start(&s);
	f = state_file(&s, ROOT, "f");
	/* at a place, at the end, over what is there; what was never written is zeros */
	assert_int_equal(patch(&s, f, 0, 3, "abc", 3, &off), 0);
	inline_is(&s, "f", "\0\0\0abc", 6);
	assert_int_equal(patch(&s, f, CFS_CI_APPEND, 0, "de", 2, &off), 0);
	assert_int_equal(off, 6);
	assert_int_equal(patch(&s, f, 0, 0, "1234", 4, &off), 0);
	inline_is(&s, "f", "1234bcde", 8);
	assert_int_equal(size_of(&s, f), 8);
	/* the end is where the size says, not where the bytes end */
	assert_int_equal(state_truncate(&s, f, 12), 0);
	assert_int_equal(patch(&s, f, CFS_CI_APPEND, 0, "f", 1, &off), 0);
	assert_int_equal(off, 12);
	inline_is(&s, "f", "1234bcde\0\0\0\0f", 13);
	/* it must stay in the inode, to the last byte */
	assert_int_equal(patch(&s, f, CFS_CI_APPEND, 0, data, CFS_INLINE_MAX - 12, &off), EMSGSIZE);
	assert_int_equal(patch(&s, f, 0, CFS_INLINE_MAX, "z", 1, &off), EMSGSIZE);
	assert_int_equal(patch(&s, f, 0, UINT64_MAX, "z", 1, &off), EFBIG);
	inline_is(&s, "f", "1234bcde\0\0\0\0f", 13);
	assert_int_equal(patch(&s, f, CFS_CI_APPEND, 0, data, CFS_INLINE_MAX - 13, &off), 0);
	assert_int_equal(size_of(&s, f), CFS_INLINE_MAX);
	/* nonsense */
	assert_int_equal(patch(&s, f, CFS_CI_INLINE, 0, "z", 1, &off), EINVAL);
	assert_int_equal(patch(&s, f, 0, 0, NULL, 0, &off), EINVAL);
	assert_int_equal(patch(&s, ROOT, 0, 0, "z", 1, &off), EISDIR);
	/* not of one that has extents, or is long */
	assert_int_equal(state_commit(&s, f, 0, 0, &(struct ext){ .off = 0, .len = 8192, .seq = 1 }, 1), 0);
	assert_int_equal(patch(&s, f, 0, 0, "z", 1, &off), EMSGSIZE);
	assert_int_equal(state_truncate(&s, f, 0), 0);
	assert_int_equal(state_truncate(&s, f, 1 << 20), 0);
	assert_int_equal(patch(&s, f, 0, 0, "z", 1, &off), EMSGSIZE);
	assert_int_equal(state_truncate(&s, f, 0), 0);
	assert_int_equal(patch(&s, f, 0, 0, "z", 1, &off), 0);
	state_stop(&s);
}

static uint32_t seek(struct state *s, uint64_t ino, uint64_t off, unsigned whence, uint64_t *ret)
{
	struct cfs_seek_req req = {
		.ino = cfs_cpu_to_le64(ino),
		.off = cfs_cpu_to_le64(off),
		.whence = cfs_cpu_to_le32(whence),
	};

	if (state_read(s, CFS_OP_SEEK, &req, sizeof(req)))
		return s->status;
	assert_int_equal(s->rep_len, 8);
	*ret = cfs_get_le64(s->rep);
	return 0;
}

static void test_fallocate(void **arg)
{
	struct state s;
	struct ext e[16];
	uint64_t f, at;

	(void)arg;
	state_start(&s);
	f = state_file(&s, ROOT, "f");
	assert_int_equal(state_commit(&s, f, 0, 0,
				      &(struct ext){ .off = 1000, .len = 1000, .seq = 1 }, 1),
			 0);
	assert_int_equal(state_fallocate(&s, f, FALLOC_FL_KEEP_SIZE, 0, 3000), 0);
	assert_int_equal(size_of(&s, f), 2000);
	assert_int_equal(alloc_of(&s, f), 3000);
	assert_int_equal(state_extents(&s, f, 0, e, 16), 3);
	assert_true(e[0].seq == 0 && e[1].seq == 1 && e[2].seq == 0 && e[2].off == 2000);
	assert_int_equal(state_fallocate(&s, f, 0, 2500, 1500), 0);	/* the last one grows */
	assert_int_equal(size_of(&s, f), 4000);
	assert_int_equal(state_extents(&s, f, 0, e, 16), 3);
	assert_int_equal(e[2].len, 2000);
	/* reserved space and holes are not data */
	assert_int_equal(seek(&s, f, 0, 3, &at), 0);
	assert_int_equal(at, 1000);
	assert_int_equal(seek(&s, f, 1500, 3, &at), 0);
	assert_int_equal(at, 1500);
	assert_int_equal(seek(&s, f, 1500, 4, &at), 0);
	assert_int_equal(at, 2000);
	assert_int_equal(seek(&s, f, 2000, 3, &at), ENXIO);
	assert_int_equal(seek(&s, f, 4000, 4, &at), ENXIO);
	assert_int_equal(seek(&s, f, 0, 5, &at), EINVAL);
	/* a write into reserved space splits it */
	assert_int_equal(
		state_commit(&s, f, 0, 0, &(struct ext){ .off = 3000, .len = 10, .seq = 2 }, 1), 0);
	assert_int_equal(state_extents(&s, f, 2000, e, 16), 3);
	assert_true(e[0].len == 1000 && e[1].seq == 2 && e[2].off == 3010 && e[2].obj_off == 0);
	assert_int_equal(alloc_of(&s, f), 4000);
	assert_int_equal(
		state_fallocate(&s, f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1500, 2000), 0);
	assert_int_equal(size_of(&s, f), 4000);
	assert_int_equal(alloc_of(&s, f), 2000);
	assert_int_equal(state_stat(&s).dead_objects, 1);
	assert_int_equal(state_fallocate(&s, f, FALLOC_FL_ZERO_RANGE, 1200, 4800), 0);
	assert_int_equal(size_of(&s, f), 6000);
	assert_int_equal(alloc_of(&s, f), 6000);
	assert_int_equal(seek(&s, f, 1200, 3, &at), ENXIO);
	/* what is refused */
	assert_int_equal(state_fallocate(&s, f, FALLOC_FL_PUNCH_HOLE, 0, 1), EOPNOTSUPP);
	assert_int_equal(state_fallocate(&s, f, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), EOPNOTSUPP);
	assert_int_equal(state_fallocate(&s, f, 0, 0, 0), EINVAL);
	assert_int_equal(state_fallocate(&s, f, 0, CFS_FILE_SIZE_MAX, 1), EFBIG);
	assert_int_equal(state_fallocate(&s, f, 0, UINT64_MAX, UINT64_MAX), EFBIG);
	assert_int_equal(state_fallocate(&s, f, 0, 0,
					 ((uint64_t)CFS_META_FALLOC_EXT_MAX << 30) + 8192),
			 ENOSPC);
	assert_int_equal(state_fallocate(&s, ROOT, 0, 0, 1), EISDIR);
	/* large: pieces of 1 GiB */
	assert_int_equal(state_fallocate(&s, f, 0, 0, 10ull << 30), 0);
	assert_int_equal(alloc_of(&s, f), 10ull << 30);
	assert_true(state_extents(&s, f, 0, e, 16) <= 14);
	assert_int_equal(state_truncate(&s, f, 0), 0);
	assert_int_equal(alloc_of(&s, f), 0);
	/* inline */
	assert_int_equal(state_commit_inline(&s, f, "0123456789", 10), 0);
	assert_int_equal(state_fallocate(&s, f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2, 3),
			 0);
	assert_int_equal(state_lookup(&s, ROOT, "f", NULL), 0);
	assert_memory_equal(s.rep + sizeof(struct cfs_entry_rep), "01\0\0\0" "56789", 10);
	assert_int_equal(state_fallocate(&s, f, FALLOC_FL_ZERO_RANGE, 8, 8), 0);
	assert_int_equal(size_of(&s, f), 16);
	assert_int_equal(alloc_of(&s, f), 8);
	assert_int_equal(state_fallocate(&s, f, 0, 0, 1 << 20), 0);
	assert_int_equal(size_of(&s, f), 1 << 20);
	assert_int_equal(seek(&s, f, 0, 4, &at), 0);
	assert_int_equal(at, 8);
	assert_int_equal(seek(&s, f, 8, 3, &at), ENXIO);
	state_stop(&s);
}

static void test_copy(void **arg)
{
	struct state s;
	struct ext e[8];
	uint64_t f, g, h, n;
	char data[4096];

	(void)arg;
	state_start(&s);
	f = state_file(&s, ROOT, "f");
	g = state_file(&s, ROOT, "g");
	h = state_file(&s, ROOT, "h");
	assert_int_equal(state_commit(&s, f, 0, 0,
				      (struct ext[]){ { .off = 0, .len = 1000, .seq = 1 },
						      { .off = 2000, .len = 1000, .seq = 2 } },
				      2),
			 0);
	assert_int_equal(
		state_commit(&s, g, 0, 0, &(struct ext){ .off = 0, .len = 5000, .seq = 3 }, 1), 0);
	assert_int_equal(state_copy(&s, f, 500, g, 100, 2000, &n), 0);
	assert_int_equal(n, 2000);
	assert_int_equal(state_extents(&s, g, 0, e, 8), 4);
	assert_true(e[0].len == 100 && e[0].seq == 3);
	assert_true(e[1].off == 100 && e[1].len == 500 && e[1].obj_off == 500 && e[1].seq == 1);
	assert_true(e[2].off == 1600 && e[2].len == 500 && e[2].obj_off == 0 && e[2].seq == 2);
	assert_true(e[3].off == 2100 && e[3].obj_off == 2100 && e[3].seq == 3);
	state_check(&s);
	/* the source goes: the objects stay for the copy; then they die with it */
	assert_int_equal(state_remove(&s, ROOT, "f", false), 0);
	assert_int_equal(state_stat(&s).dead_objects, 0);
	assert_int_equal(state_truncate(&s, g, 0), 0);
	assert_int_equal(state_stat(&s).dead_objects, 3);
	/* within one file */
	assert_int_equal(
		state_commit(&s, g, 0, 0, &(struct ext){ .off = 0, .len = 100, .seq = 4 }, 1), 0);
	assert_int_equal(state_copy(&s, g, 0, g, 50, 60, &n), EINVAL);
	assert_int_equal(state_copy(&s, g, 0, g, 60, 40, &n), 0);
	assert_int_equal(state_extents(&s, g, 0, e, 8), 2);
	assert_true(e[1].off == 60 && e[1].obj_off == 0);
	assert_int_equal(state_copy(&s, g, 200, h, 0, 40, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(size_of(&s, h), 0);
	assert_int_equal(state_copy(&s, g, 0, h, CFS_FILE_SIZE_MAX, 10, &n), EFBIG);
	/* inline */
	memset(data, 'd', sizeof(data));
	f = state_file(&s, ROOT, "f");
	assert_int_equal(state_commit_inline(&s, f, data, 4000), 0);
	assert_int_equal(state_copy(&s, f, 0, h, 0, 4000, &n), 0);
	assert_int_equal(cfs_le32_to_cpu(state_attr(&s, h).flags), CFS_IF_INLINE);
	assert_int_equal(state_copy(&s, f, 1000, h, 3000, 1000, &n), 0);
	assert_int_equal(size_of(&s, h), 4000);
	assert_int_equal(state_copy(&s, f, 1000, h, 3500, 1000, &n), EOPNOTSUPP);
	assert_int_equal(state_copy(&s, f, 0, g, 10, 100, &n), EOPNOTSUPP);
	assert_int_equal(state_copy(&s, g, 0, h, 0, 100, &n), EOPNOTSUPP);
	assert_int_equal(state_copy(&s, f, 0, g, 0, 4000, &n), 0);	/* all of it is replaced */
	assert_int_equal(cfs_le32_to_cpu(state_attr(&s, g).flags), CFS_IF_INLINE);
	assert_int_equal(alloc_of(&s, g), 4000);
	state_stop(&s);
}

/* ---- many extents --------------------------------------------------------------- */
static void many(struct state *s, uint64_t ino, uint64_t first, unsigned n)
{
	static struct ext e[6000];
	static uint64_t seq;

	assert_true(n <= 6000);
	for (unsigned i = 0; i < n; i++)
		e[i] = (struct ext){ .off = (first + i) * 100, .len = 50, .seq = ++seq };
	assert_int_equal(state_commit(s, ino, 0, 0, e, n), 0);
}

static void purge_all(struct state *s)
{
	unsigned rounds = 0;
	uint64_t before;

	while (cfs_meta_purge_pending(s->m)) {
		before = state_stat(s).extents;
		assert_int_equal(state_apply(s, CFS_LOG_PURGE, 0, CFS_SLOT_NONE, 0, NULL, 0), 0);
		assert_true(before - state_stat(s).extents <= CFS_META_PURGE_MAX);
		state_check(s);
		assert_true(++rounds < 20);
	}
}

static int count_extents(void *arg, uint64_t ino, const struct cfs_extent *e)
{
	uint64_t *n = arg;

	(void)e;
	n[ino ? 0 : 1]++;
	return 0;
}

static void test_purge(void **arg)
{
	struct state s;
	struct ext e[8];
	uint64_t f, n[2];

	(void)arg;
	state_start(&s);
	f = state_file(&s, ROOT, "f");
	many(&s, f, 0, 6000);
	many(&s, f, 6000, 6000);
	assert_int_equal(state_stat(&s).extents, 12000);
	/* removing: at once for everybody, in steps for us */
	assert_int_equal(state_remove(&s, ROOT, "f", false), 0);
	assert_true(state_gone(&s, f));
	assert_int_equal(state_stat(&s).data_bytes, 0);
	assert_int_equal(cfs_meta_purge_pending(s.m), 1);
	assert_int_equal(state_stat(&s).extents, 12000);
	state_check(&s);
	n[0] = n[1] = 0;
	assert_int_equal(cfs_meta_walk_extents(s.m, count_extents, n), 0);
	assert_int_equal(n[0], 0);
	assert_int_equal(n[1], 12000);
	purge_all(&s);
	assert_int_equal(state_stat(&s).extents, 0);
	assert_int_equal(state_stat(&s).dead_objects, 12000);
	/* truncating: to nothing, and to a short head that cuts an extent in two */
	f = state_file(&s, ROOT, "g");
	many(&s, f, 20000, 6000);
	assert_int_equal(state_truncate(&s, f, 0), 0);
	assert_int_equal(alloc_of(&s, f), 0);
	assert_int_equal(cfs_meta_purge_pending(s.m), 1);
	many(&s, f, 30000, 6000);
	assert_int_equal(state_truncate(&s, f, 3000520), 0);
	assert_int_equal(cfs_meta_purge_pending(s.m), 2);
	state_check(&s);
	assert_int_equal(alloc_of(&s, f), 5 * 50 + 20);
	assert_int_equal(state_extents(&s, f, 0, e, 8), 6);
	assert_int_equal(e[5].len, 20);
	assert_int_equal(state_stat(&s).dead_objects, 12000);
	purge_all(&s);
	assert_int_equal(state_stat(&s).extents, 6);
	assert_int_equal(state_stat(&s).dead_objects, 12000 + 6000 + 6000 - 6);
	/* a copy takes as much as one request may */
	many(&s, f, 30000, 6000);
	{
		uint64_t g = state_file(&s, ROOT, "h"), got;

		assert_int_equal(state_copy(&s, f, 3000000, g, 0, 600000, &got), 0);
		assert_int_equal(got, CFS_META_COPY_EXT_MAX * 100ull - 50);
		assert_int_equal(state_copy(&s, f, 3000000 + got, g, got, 600000 - got, &got), 0);
		assert_int_equal(size_of(&s, g), 6000 * 100 - 50);
		state_check(&s);
	}
	state_stop(&s);
}

/* ---- against a model ------------------------------------------------------------ */
/*
 * Each byte of a small file, as the number of the object byte that a reader finds there: object *
 * 2^20 + offset; 0 a hole. Reserved space reads as a hole.
 */
#define FILES 3
#define FSIZE 3000

struct model {
	uint64_t ino[FILES], size[FILES];
	uint64_t byte[FILES][FSIZE];
};

static void model_verify(struct state *s, const struct model *md)
{
	static uint64_t have[FSIZE];
	static struct ext e[1024];
	unsigned n;

	for (unsigned f = 0; f < FILES; f++) {
		assert_int_equal(size_of(s, md->ino[f]), md->size[f]);
		memset(have, 0, sizeof(have));
		n = state_extents(s, md->ino[f], 0, e, 1024);
		for (unsigned i = 0; i < n; i++)
			for (uint32_t b = 0; e[i].seq && b < e[i].len; b++) {
				assert_true(e[i].off + b < FSIZE);
				have[e[i].off + b] = (e[i].seq << 20) + e[i].obj_off + b;
			}
		assert_memory_equal(have, md->byte[f], sizeof(have));
	}
}

static void model_step(struct state *s, struct model *md, struct cfs_rng *r, uint64_t *seq)
{
	unsigned f = (unsigned)cfs_rng_below(r, FILES), g = (unsigned)cfs_rng_below(r, FILES);
	uint64_t off = cfs_rng_below(r, FSIZE - 1), len = 1 + cfs_rng_below(r, FSIZE - off), n, to;

	switch (cfs_rng_below(r, 8)) {
	default: {
		uint32_t obj_off = (uint32_t)(cfs_rng_below(r, 100));

		++*seq;
		assert_int_equal(state_commit(s, md->ino[f], 0, 0,
					      &(struct ext){ .off = off,
							     .len = (uint32_t)len,
							     .obj_off = obj_off,
							     .seq = *seq },
					      1),
				 0);
		for (uint64_t i = 0; i < len; i++)
			md->byte[f][off + i] = (*seq << 20) + obj_off + i;
		md->size[f] = cfs_max(md->size[f], off + len);
		break;
	}
	case 0:
		assert_int_equal(state_truncate(s, md->ino[f], off), 0);
		for (uint64_t i = off; i < FSIZE; i++)
			md->byte[f][i] = 0;
		md->size[f] = off;
		break;
	case 1:
		assert_int_equal(state_fallocate(s, md->ino[f],
						 FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off,
						 len),
				 0);
		memset(&md->byte[f][off], 0, len * 8);
		break;
	case 2:
		assert_int_equal(state_fallocate(s, md->ino[f], FALLOC_FL_ZERO_RANGE, off, len), 0);
		memset(&md->byte[f][off], 0, len * 8);
		md->size[f] = cfs_max(md->size[f], off + len);
		break;
	case 3:
		assert_int_equal(state_fallocate(s, md->ino[f], 0, off, len), 0);
		md->size[f] = cfs_max(md->size[f], off + len);
		break;
	case 4:
		to = cfs_rng_below(r, FSIZE - len + 1);
		if (f == g && off < to + len && to < off + len)
			break;
		assert_int_equal(state_copy(s, md->ino[f], off, md->ino[g], to, len, &n), 0);
		assert_int_equal(n, off >= md->size[f] ? 0 : cfs_min(len, md->size[f] - off));
		memmove(&md->byte[g][to], &md->byte[f][off], n * 8);
		if (n)
			md->size[g] = cfs_max(md->size[g], to + n);
		break;
	}
}

static void test_model(void **arg)
{
	(void)arg;
	for (uint64_t seed = 1; seed <= 3; seed++) {
		static struct model md;
		struct state s;
		struct cfs_rng r;
		uint64_t seq = 0;

		print_message("seed %lu\n", (unsigned long)seed);
		cfs_rng_seed(&r, seed);
		memset(&md, 0, sizeof(md));
		state_start(&s);
		for (unsigned f = 0; f < FILES; f++)
			md.ino[f] = state_file(&s, ROOT, (char[]){ (char)('a' + f), 0 });
		for (unsigned i = 0; i < 600; i++) {
			model_step(&s, &md, &r, &seq);
			model_verify(&s, &md);
			if (i % 20 == 0)
				state_check(&s);
		}
		/* with the last file the last object dies, each exactly once */
		for (unsigned f = 0; f < FILES; f++)
			assert_int_equal(
				state_remove(&s, ROOT, (char[]){ (char)('a' + f), 0 }, false), 0);
		assert_int_equal(state_stat(&s).extents, 0);
		assert_int_equal(state_stat(&s).dead_objects, seq);
		state_stop(&s);
	}
}

/* garbage is what an ended session wrote and nothing refers to: neither a file, nor the list of the dead */
static void test_garbage(void **arg)
{
	struct state s;
	struct cfs_oid oids[8];
	uint64_t f, g, before, old;
	struct cfs_dead d[4];
	unsigned n;

	(void)arg;
	state_start(&s);
	old = s.session;
	f = state_file(&s, ROOT, "f");
	g = state_file(&s, ROOT, "g");
	for (unsigned i = 1; i <= 3; i++)
		assert_int_equal(state_commit(&s, i == 3 ? g : f, 0, 0,
					      &(struct ext){ .off = i * 10000, .len = 8192, .seq = i }, 1), 0);
	assert_int_equal(state_truncate(&s, g, 0), 0);		/* 3 is dead, and still to be deleted */
	assert_int_equal(dead(&s, d, 4), 1);
	for (unsigned i = 0; i < 8; i++)			/* 1 to 6 of the session, then others' */
		oids[i] = (struct cfs_oid){ .owner = cfs_cpu_to_le64(old), .seq = cfs_cpu_to_le64(i + 1) };
	oids[6].owner = cfs_cpu_to_le64(old + 100);		/* not born yet: this replica may lag */
	oids[7].owner = cfs_cpu_to_le64(CFS_OID_OWNER_META);
	before = cfs_meta_sessions_ended(s.m);
	assert_int_equal(cfs_meta_garbage(s.m, oids, 8, &n), 0);
	assert_int_equal(n, 0);					/* it lives: what it wrote may yet be committed */

	s.session = state_session(&s, "second");
	assert_int_equal(cfs_meta_sessions_ended(s.m), before);
	assert_int_equal(state_apply(&s, CFS_LOG_FENCE, old, CFS_SLOT_NONE, 0, NULL, 0), 0);
	assert_true(cfs_meta_sessions_ended(s.m) > before);
	for (unsigned i = 0; i < 6; i++)
		oids[i] = (struct cfs_oid){ .owner = cfs_cpu_to_le64(old), .seq = cfs_cpu_to_le64(6 - i) };
	oids[6] = (struct cfs_oid){ .owner = cfs_cpu_to_le64(old + 100), .seq = cfs_cpu_to_le64(7) };
	oids[7] = (struct cfs_oid){ .owner = cfs_cpu_to_le64(CFS_OID_OWNER_META), .seq = cfs_cpu_to_le64(8) };
	assert_int_equal(cfs_meta_garbage(s.m, oids, 8, &n), 0);
	assert_int_equal(n, 3);
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(cfs_le64_to_cpu(oids[i].owner), old);
		assert_in_range(cfs_le64_to_cpu(oids[i].seq), 4, 6);
	}
	state_stop(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_commit),	  cmocka_unit_test(test_object_twice),
		cmocka_unit_test(test_inline),	  cmocka_unit_test(test_patch),
		cmocka_unit_test(test_fallocate), cmocka_unit_test(test_copy),
		cmocka_unit_test(test_purge),	  cmocka_unit_test(test_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
