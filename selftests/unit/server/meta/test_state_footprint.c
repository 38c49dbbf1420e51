/* SPDX-License-Identifier: MIT */
/*
 * Proves that the footprint of each request names the keys it locks and the leases it breaks, as
 * docs/leases.md has it: names exclusive, their directories shared, the governing lease of each
 * inode that changes, the victim of an unlink; nothing is broken for what is bound to fail;
 * malformed bodies are refused.
 */
#include "selftests/unit/server/meta/state_test.h"

#include <linux/fs.h>

#define ROOT CFS_INO_ROOT

static struct cfs_footprint fp;

static void footprint(struct state *s, uint16_t op, const void *body, size_t len)
{
	assert_int_equal(cfs_meta_footprint(s->m, op, body, (uint32_t)len, &fp), 0);
}

static bool has_key(uint64_t ino, uint64_t hash, bool exclusive)
{
	for (unsigned i = 0; i < fp.n_keys; i++)
		if (fp.keys[i].ino == ino && fp.keys[i].name_hash == hash)
			return fp.keys[i].exclusive == exclusive;
	return false;
}

static bool has_name(struct state *s, uint64_t dir, const char *name)
{
	return has_key(dir, cfs_meta_name_hash(s->m, name, strlen(name)), true) &&
	       (has_key(dir, 0, false) || has_key(dir, 0, true));
}

static const struct cfs_fp_break *break_of(uint64_t ino, uint64_t governor, uint32_t flags)
{
	for (unsigned i = 0; i < fp.n_breaks; i++)
		if (fp.breaks[i].ino == ino && fp.breaks[i].governor == governor &&
		    fp.breaks[i].flags == flags)
			return &fp.breaks[i];
	return NULL;
}

static bool breaks_name(uint64_t dir, const char *name)
{
	for (unsigned i = 0; i < fp.n_breaks; i++)
		if (fp.breaks[i].dir == dir &&
		    fp.breaks[i].flags == (CFS_BRK_NAME | CFS_BRK_DIRATTR) &&
		    fp.breaks[i].name_len == strlen(name) &&
		    !memcmp(fp.breaks[i].name, name, strlen(name)))
			return true;
	return false;
}

static size_t unlink_body(uint8_t *body, uint64_t dir, const char *name, bool is_rmdir)
{
	struct cfs_unlink_req req = {
		.dir = cfs_cpu_to_le64(dir),
		.rmdir = is_rmdir,
		.name_len = cfs_cpu_to_le32((uint32_t)strlen(name)),
	};

	memcpy(body, &req, sizeof(req));
	memcpy(body + sizeof(req), name, strlen(name));
	return sizeof(req) + strlen(name);
}

static size_t link_body(uint8_t *body, uint64_t ino, uint64_t dir, const char *name)
{
	struct cfs_link_req req = {
		.ino = cfs_cpu_to_le64(ino), .dir = cfs_cpu_to_le64(dir),
		.name_len = cfs_cpu_to_le32((uint32_t)strlen(name)),
	};

	memcpy(body, &req, sizeof(req));
	memcpy(body + sizeof(req), name, strlen(name));
	return sizeof(req) + strlen(name);
}

static size_t mknode_body(uint8_t *body, uint64_t dir, const char *name, uint32_t flags)
{
	struct cfs_mknode_req req = {
		.dir = cfs_cpu_to_le64(dir), .flags = cfs_cpu_to_le32(flags),
		.name_len = cfs_cpu_to_le32((uint32_t)strlen(name)),
	};

	memcpy(body, &req, sizeof(req));
	memcpy(body + sizeof(req), name, strlen(name));
	return sizeof(req) + strlen(name);
}

static void test_names(void **arg)
{
	const uint32_t gone = CFS_BRK_ATTR | CFS_BRK_UNLINK;
	uint64_t a, b, f, two;
	uint8_t body[2048];
	struct state s;
	char name[400];

	(void)arg;
	state_start(&s);
	a = state_mkdir(&s, ROOT, "a");
	b = state_mkdir(&s, ROOT, "b");
	f = state_file(&s, a, "f");
	two = state_file(&s, a, "two");
	assert_int_equal(state_link(&s, two, b, "two"), 0);

	footprint(&s, CFS_OP_MKNODE, body, mknode_body(body, a, "new", 0));
	assert_true(fp.n_keys == 2 && has_name(&s, a, "new") && has_key(a, 0, false));
	assert_true(fp.n_breaks == 1 && breaks_name(a, "new"));
	footprint(&s, CFS_OP_MKNODE, body, mknode_body(body, a, "f", 0));
	assert_true(fp.n_keys == 2 && fp.n_breaks == 0);
	footprint(&s, CFS_OP_MKNODE, body, mknode_body(body, a, "", CFS_MK_TMPFILE));
	assert_true(fp.n_keys == 1 && fp.n_breaks == 0);
	memset(name, 'n', 300);
	name[300] = 0;
	footprint(&s, CFS_OP_MKNODE, body, mknode_body(body, a, name, 0));
	assert_true(fp.n_breaks == 0);

	footprint(&s, CFS_OP_LINK, body, link_body(body, f, b, "g"));
	assert_true(fp.n_keys == 3 && has_name(&s, b, "g") && has_key(f, 0, true));
	assert_true(fp.n_breaks == 2 && breaks_name(b, "g") && break_of(f, a, CFS_BRK_ATTR));
	footprint(&s, CFS_OP_LINK, body, link_body(body, two, b, "g"));
	assert_true(break_of(two, two, CFS_BRK_ATTR));

	footprint(&s, CFS_OP_UNLINK, body, unlink_body(body, a, "f", false));
	assert_true(fp.n_keys == 3 && has_name(&s, a, "f") && has_key(f, 0, true));
	assert_true(fp.n_breaks == 2 && breaks_name(a, "f") && break_of(f, a, gone));
	assert_true(fp.victim == f && !fp.victim_dir);
	footprint(&s, CFS_OP_UNLINK, body, unlink_body(body, a, "two", false));
	assert_true(fp.victim == 0 && break_of(two, two, CFS_BRK_ATTR));
	footprint(&s, CFS_OP_UNLINK, body, unlink_body(body, a, "none", false));
	assert_true(fp.n_keys == 2 && fp.n_breaks == 0 && fp.victim == 0);
	footprint(&s, CFS_OP_UNLINK, body, unlink_body(body, a, "f", true));
	assert_true(fp.n_breaks == 0 && fp.victim == 0);
	footprint(&s, CFS_OP_UNLINK, body, unlink_body(body, ROOT, "a", true));	/* not empty */
	assert_true(fp.n_breaks == 0 && fp.victim == 0 && has_key(a, 0, true));
	assert_int_equal(state_remove(&s, b, "two", false), 0);
	footprint(&s, CFS_OP_UNLINK, body, unlink_body(body, ROOT, "b", true));
	assert_true(fp.victim == b && fp.victim_dir && break_of(b, b, gone | CFS_BRK_DIR));
	assert_int_equal(break_of(b, b, gone | CFS_BRK_DIR)->dir, b);

	/* over an existing file; the two directories once each */
	footprint(&s, CFS_OP_RENAME, body, rename_body(body, a, "f", a, "two", 0));
	assert_true(fp.n_keys == 5 && has_name(&s, a, "f") && has_name(&s, a, "two") &&
		    has_key(a, 0, false));
	assert_true(fp.n_breaks == 4 && breaks_name(a, "f") && breaks_name(a, "two") &&
		    break_of(f, a, CFS_BRK_ATTR));
	assert_true(fp.victim == two && break_of(two, two, gone));
	footprint(&s, CFS_OP_RENAME, body, rename_body(body, a, "f", b, "new", 0));
	assert_true(fp.n_keys == 5 && fp.n_breaks == 3 && fp.victim == 0 && has_key(b, 0, false));
	footprint(&s, CFS_OP_RENAME, body, rename_body(body, a, "f", ROOT, "b", RENAME_EXCHANGE));
	assert_true(fp.n_breaks == 4 && fp.victim == 0 && break_of(b, b, CFS_BRK_ATTR));
	footprint(&s, CFS_OP_RENAME, body, rename_body(body, a, "f", ROOT, "b", 0));
	assert_true(fp.n_breaks == 0);
	footprint(&s, CFS_OP_RENAME, body, rename_body(body, a, "f", a, "two", RENAME_NOREPLACE));
	assert_true(fp.n_breaks == 0);
	/*
	 * a rename into a directory that it also moves out of the way: shared and exclusive make
	 * exclusive
	 */
	footprint(&s, CFS_OP_RENAME, body, rename_body(body, ROOT, "a", a, "x", 0));
	assert_true(has_key(a, 0, true));
	state_stop(&s);
}

static void test_inodes(void **arg)
{
	static struct commit c;
	struct cfs_setattr_req sa = { .ino = 0 };
	struct cfs_copy_req cp = { .src = 0 };
	struct cfs_fallocate_req fa = { .ino = 0 };
	struct state s;
	uint64_t f, g;

	(void)arg;
	state_start(&s);
	f = state_file(&s, ROOT, "f");
	g = state_file(&s, ROOT, "g");
	sa.ino = cfs_cpu_to_le64(f);
	sa.valid = cfs_cpu_to_le32(CFS_SA_MODE);
	footprint(&s, CFS_OP_SETATTR, &sa, sizeof(sa));
	assert_true(fp.n_keys == 1 && has_key(f, 0, true) && fp.n_breaks == 1 &&
		    break_of(f, ROOT, CFS_BRK_ATTR));
	sa.valid = cfs_cpu_to_le32(CFS_SA_SIZE);
	footprint(&s, CFS_OP_SETATTR, &sa, sizeof(sa));
	assert_int_equal(break_of(f, ROOT, CFS_BRK_ATTR | CFS_BRK_DATA)->to_mode, CFS_LEASE_NONE);
	sa.valid = cfs_cpu_to_le32(CFS_SA_MTIME);
	footprint(&s, CFS_OP_SETATTR, &sa, sizeof(sa));
	assert_int_equal(break_of(f, ROOT, CFS_BRK_ATTR | CFS_BRK_DATA)->to_mode, CFS_LEASE_SHARED);
	sa.ino = cfs_cpu_to_le64(ROOT);
	sa.valid = cfs_cpu_to_le32(CFS_SA_MODE);
	footprint(&s, CFS_OP_SETATTR, &sa, sizeof(sa));
	assert_int_equal(break_of(ROOT, ROOT, CFS_BRK_ATTR)->dir, ROOT);
	sa.ino = cfs_cpu_to_le64(999);
	footprint(&s, CFS_OP_SETATTR, &sa, sizeof(sa));
	assert_true(fp.n_keys == 1 && fp.n_breaks == 0);

	fa.ino = cfs_cpu_to_le64(f);
	footprint(&s, CFS_OP_FALLOCATE, &fa, sizeof(fa));
	assert_true(break_of(f, ROOT, CFS_BRK_ATTR | CFS_BRK_DATA) != NULL);
	cp.src = cfs_cpu_to_le64(f);
	cp.dst = cfs_cpu_to_le64(g);
	footprint(&s, CFS_OP_COPY, &cp, sizeof(cp));
	assert_true(fp.n_keys == 2 && has_key(f, 0, false) && has_key(g, 0, true));
	assert_int_equal(break_of(f, ROOT, CFS_BRK_DATA)->to_mode, CFS_LEASE_SHARED);
	assert_int_equal(break_of(g, ROOT, CFS_BRK_ATTR | CFS_BRK_DATA)->to_mode, CFS_LEASE_NONE);
	/* as many files as a COMMIT may have, and one twice */
	for (unsigned i = 0; i < CFS_COMMIT_MAX - 1; i++)
		commit_add(&s, &c, i % 2 ? g : 1000 + i, 0, 0, NULL, 0, NULL, 0);
	commit_add(&s, &c, f, 0, 0, NULL, 0, NULL, 0);
	footprint(&s, CFS_OP_COMMIT, c.buf, c.len);
	assert_int_equal(fp.n_keys, 128 + 1 + 1);
	assert_int_equal(fp.n_breaks, 2);
	/* nothing at all */
	{
		struct cfs_lock_req lock = { .ino = cfs_cpu_to_le64(f) };

		footprint(&s, CFS_OP_LOCK, &lock, sizeof(lock));
		assert_true(fp.n_keys == 0 && fp.n_breaks == 0);
	}
	assert_int_equal(cfs_meta_footprint(s.m, CFS_OP_SETATTR, &sa, sizeof(sa) - 1, &fp),
			 CFS_E_PROTO);
	assert_int_equal(cfs_meta_footprint(s.m, CFS_OP_COMMIT, c.buf, (uint32_t)c.len - 1, &fp),
			 CFS_E_PROTO);
	assert_int_equal(cfs_meta_footprint(s.m, CFS_OP_LOOKUP, &sa, sizeof(sa), &fp), CFS_E_PROTO);
	state_stop(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_names),
					    cmocka_unit_test(test_inodes) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
