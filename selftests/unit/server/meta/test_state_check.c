/* SPDX-License-Identifier: MIT */
/*
 * Proves that the consistency check finds each kind of damage (made here key by key behind the
 * state's back), that repairing leaves nothing to be found, and that it keeps what can be kept: a
 * file that lost its name is in lost+found, with its data.
 */
#include "selftests/unit/server/meta/state_test.h"

#include "server/meta/meta_i.h"

#define ROOT CFS_INO_ROOT

static unsigned findings, matches;
static void note(void *arg, const char *finding)
{
	findings++;
	matches += arg && strstr(finding, arg);
}

/* one change of one key, as rot or a mistake of ours would make it */
static void damage(struct state *s, const struct cfs_key *k, const void *v, size_t len)
{
	struct cfs_tx t;

	assert_int_equal(cfs_ms_state_begin(s->m, &t), 0);
	assert_int_equal(v ? cfs_ms_db_put(&t, k, v, len) : cfs_ms_db_del(&t, k), 0);
	assert_int_equal(cfs_ms_state_commit(s->m, &t), 0);
}

static void damage_inode(struct state *s, uint64_t ino, void (*change)(struct cfs_inode_rec *r))
{
	struct cfs_inode_rec r;
	struct cfs_key k;
	struct cfs_tx t;

	assert_int_equal(cfs_ms_state_begin(s->m, &t), 0);
	cfs_key_u64(&k, CFS_KEY_INODE, ino);
	assert_int_equal(cfs_ms_db_get_fixed(&t, &k, &r, sizeof(r)), 0);
	change(&r);
	assert_int_equal(cfs_ms_db_put(&t, &k, &r, sizeof(r)), 0);
	assert_int_equal(cfs_ms_state_commit(s->m, &t), 0);
}

struct world {
	struct state s;
	uint64_t d, f, g, other;
};

static void world_start(struct world *w)
{
	struct state *s = &w->s;
	struct cfs_lock_req lock = { .end = cfs_cpu_to_le64(9),
				     .space = CFS_LOCK_POSIX,
				     .kind = CFS_LOCK_READ };

	state_start(s);
	w->d = state_mkdir(s, ROOT, "d");
	w->f = state_file(s, w->d, "f");
	w->g = state_file(s, w->d, "g");
	assert_int_equal(
		state_commit(s, w->f, 0, 0, &(struct ext){ .off = 0, .len = 100, .seq = 1 }, 1), 0);
	assert_int_equal(
		state_commit(s, w->f, 0, 0, &(struct ext){ .off = 40, .len = 10, .seq = 2 }, 1), 0);
	assert_int_equal(state_commit_inline(s, w->g, "data", 4), 0);
	assert_int_equal(state_setxattr(s, w->g, "user.a", "1", 1, 0), 0);
	lock.ino = cfs_cpu_to_le64(w->f);
	assert_int_equal(state_req(s, CFS_OP_LOCK, &lock, sizeof(lock)), 0);
	w->other = state_session(s, "other");
	state_check(s);
}

/* found, repaired, and then found no more */
static void world_stop(struct world *w, const char *what)
{
	findings = matches = 0;
	assert_true(cfs_meta_check(w->s.m, false, note, (void *)what) > 0);
	if (!matches)
		cfs_meta_check(w->s.m, false, state_print, NULL);
	assert_true(matches > 0);
	assert_true(cfs_meta_check(w->s.m, true, NULL, NULL) > 0);
	state_stop(&w->s);
}

static void nlink_5(struct cfs_inode_rec *r)
{
	r->nlink = cfs_cpu_to_le32(5);
}

static void size_7(struct cfs_inode_rec *r)
{
	r->size = cfs_cpu_to_le64(7);
}

static void alloc_7(struct cfs_inode_rec *r)
{
	r->alloc = cfs_cpu_to_le64(7);
}

static void parent_9(struct cfs_inode_rec *r)
{
	r->parent = cfs_cpu_to_le64(9);
}

static void flags_caps(struct cfs_inode_rec *r)
{
	r->flags |= cfs_cpu_to_le32(CFS_IF_CAPS);
}

static void test_inodes(void **arg)
{
	static const struct {
		void (*change)(struct cfs_inode_rec *r);
		char of;
		const char *what;
	} cases[] = {
		{ nlink_5, 'f', "nlink is 5" },
		{ nlink_5, 'd', "nlink is 5" },
		{ size_7, 'd', "directory entries is 7" },
		{ alloc_7, 'f', "alloc is 7" },
		{ parent_9, 'f', "parent 0x9" },
		{ flags_caps, 'g', "flags is" },
	};
	struct world w;

	(void)arg;
	for (unsigned i = 0; i < CFS_ARRAY_SIZE(cases); i++) {
		world_start(&w);
		damage_inode(&w.s,
			     cases[i].of == 'f' ? w.f :
			     cases[i].of == 'g' ? w.g :
						  w.d,
			     cases[i].change);
		world_stop(&w, cases[i].what);
	}
}

static void test_names(void **arg)
{
	struct cfs_dent d;
	struct cfs_key k;
	struct cfs_tx *t;
	struct world w;
	char name[32];
	uint64_t ino, lf;

	(void)arg;
	/* a file and a directory that lost their names */
	world_start(&w);
	assert_int_equal(cfs_ms_state_rd(w.s.m, &t), 0);
	assert_int_equal(cfs_ms_dent_find(t, w.d, "f", 1, &d), 0);
	cfs_key_u64x2(&k, CFS_KEY_DENTRY, w.d, d.cookie);
	damage(&w.s, &k, NULL, 0);
	findings = 0;
	assert_true(cfs_meta_check(w.s.m, true, note, NULL) > 0);
	assert_int_equal(state_lookup(&w.s, ROOT, "lost+found", &lf), 0);
	snprintf(name, sizeof(name), "#%lx", (unsigned long)w.f);
	assert_int_equal(state_lookup(&w.s, lf, name, &ino), 0);
	assert_int_equal(ino, w.f);
	assert_int_equal(cfs_le64_to_cpu(state_attr(&w.s, w.f).size), 100);
	state_stop(&w.s);

	world_start(&w);
	assert_int_equal(cfs_ms_state_rd(w.s.m, &t), 0);
	assert_int_equal(cfs_ms_dent_find(t, ROOT, "d", 1, &d), 0);
	cfs_key_u64x2(&k, CFS_KEY_DENTRY, ROOT, d.cookie);
	damage(&w.s, &k, NULL, 0);
	assert_true(cfs_meta_check(w.s.m, true, NULL, NULL) > 0);
	assert_int_equal(state_lookup(&w.s, ROOT, "lost+found", &lf), 0);
	snprintf(name, sizeof(name), "#%lx", (unsigned long)w.d);
	assert_int_equal(state_lookup(&w.s, lf, name, &ino), 0);
	assert_int_equal(state_lookup(&w.s, ino, "f", &ino), 0);
	assert_int_equal(ino, w.f);
	state_stop(&w.s);

	/*
	 * names that lead nowhere: the inode is gone; the place is wrong; a directory with two
	 * names
	 */
	world_start(&w);
	cfs_key_u64(&k, CFS_KEY_INODE, w.g);
	damage(&w.s, &k, NULL, 0);
	world_stop(&w, "leads to no inode");

	world_start(&w);
	cfs_key_u64x2(&k, CFS_KEY_DENTRY, w.d, 0x123456789);
	damage(&w.s, &k, "\2\0\0\0\0\0\0\0\10\1z", 11);
	world_stop(&w, "its cookie is not its name's");

	world_start(&w);
	{
		struct cfs_tx tx;

		assert_int_equal(cfs_ms_state_begin(w.s.m, &tx), 0);
		assert_int_equal(cfs_ms_dent_find(&tx, w.d, "again", 5, &d), ENOENT);
		d.ino = w.d;
		d.mode = S_IFDIR;
		assert_int_equal(cfs_ms_dent_put(&tx, w.d, &d, "again", 5), 0);
		assert_int_equal(cfs_ms_state_commit(w.s.m, &tx), 0);
	}
	world_stop(&w, "a directory has one name");
}

static void test_data(void **arg)
{
	struct cfs_ext_rec e = { .len = cfs_cpu_to_le32(30),
				 .obj_len = cfs_cpu_to_le32(30),
				 .oid = { 1, 77 } };
	struct cfs_dead_rec dead = { .oid = { cfs_cpu_to_le64(1000), cfs_cpu_to_le64(2) } };
	cfs_le64 nine = cfs_cpu_to_le64(9);
	struct cfs_oid oid = { cfs_cpu_to_le64(1000), cfs_cpu_to_le64(1) };
	struct cfs_key k;
	struct world w;

	(void)arg;
	world_start(&w);	/* overlapping */
	cfs_key_u64x2(&k, CFS_KEY_EXTENT, w.f, 45);
	damage(&w.s, &k, &e, sizeof(e));
	world_stop(&w, "overlaps the one before");

	world_start(&w);	/* behind the end */
	cfs_key_u64x2(&k, CFS_KEY_EXTENT, w.f, 4500);
	damage(&w.s, &k, &e, sizeof(e));
	world_stop(&w, "beyond the end");

	world_start(&w);	/* of nobody */
	cfs_key_u64x2(&k, CFS_KEY_EXTENT, 4711, 0);
	damage(&w.s, &k, &e, sizeof(e));
	world_stop(&w, "of no file");

	world_start(&w);	/* too high, missing, and where there should be none */
	cfs_key_ref(&k, &oid);
	damage(&w.s, &k, &nine, 8);
	world_stop(&w, "9 references kept, 2 counted");
	world_start(&w);
	cfs_key_ref(&k, &oid);
	damage(&w.s, &k, NULL, 0);
	world_stop(&w, "1 references kept, 2 counted");
	world_start(&w);
	oid.seq = cfs_cpu_to_le64(2);
	cfs_key_ref(&k, &oid);
	damage(&w.s, &k, &nine, 8);
	world_stop(&w, "9 references kept, 1 counted");

	world_start(&w);	/* in use, and about to be deleted */
	cfs_key_u64(&k, CFS_KEY_DEAD, 0);
	damage(&w.s, &k, &dead, sizeof(dead));
	world_stop(&w, "dead, but a file has it");

	world_start(&w);	/* inline bytes */
	cfs_key_u64(&k, CFS_KEY_INLINE, w.g);
	damage(&w.s, &k, "longer", 6);
	world_stop(&w, "inline bytes is 4");
	world_start(&w);
	cfs_key_xattr(&k, w.g, "user.b", 6);
	damage(&w.s, &k, "2", 1);
	world_stop(&w, "xattrs is 1");
	world_start(&w);
	cfs_key_u64(&k, CFS_KEY_PURGE, w.f);
	damage(&w.s, &k, "", 0);
	findings = 0;
	assert_true(cfs_meta_check(w.s.m, false, note, NULL) > 0);
	damage(&w.s, &k, NULL, 0);
	state_stop(&w.s);
}

static void test_holders(void **arg)
{
	struct cfs_lock_rec l = { .kind = cfs_cpu_to_le32(1) };
	struct cfs_key k;
	struct world w;

	(void)arg;
	world_start(&w);
	cfs_key_u64x2(&k, CFS_KEY_ORPHAN, w.f, 4711);
	damage(&w.s, &k, "", 0);
	world_stop(&w, "orphan of session 4711");
	world_start(&w);
	cfs_key_u64x2(&k, CFS_KEY_HELD, w.other, w.f);
	damage(&w.s, &k, "", 0);
	world_stop(&w, "held file of session");
	world_start(&w);
	cfs_key_lock(&k, w.f, CFS_LOCK_POSIX, w.other, 1, 0);
	damage(&w.s, &k, &l, sizeof(l));
	world_stop(&w, "lock of session");
	world_start(&w);
	cfs_key_slot(&k, 4711, 0);
	damage(&w.s, &k, "0123456789012345", 16);
	world_stop(&w, "slot of session 4711");
	world_start(&w);
	w.s.m->st.data_bytes++;
	w.s.m->st.inodes += 3;
	findings = 0;
	world_stop(&w, "counter of");
	assert_int_equal(findings, 2);
}

/*
 * names whose hashes collide get cookies beside each other, in the lowest free place; the 257th
 * is ENOSPC
 */
static void test_collisions(void **arg)
{
	uint64_t base, ino = 0;
	struct cfs_dent d;
	struct cfs_tx *rd;
	struct state s;
	char name[16];

	(void)arg;
	state_start(&s);
	base = cfs_meta_name_hash(s.m, "wanted", 6) & ~255ull;
	for (unsigned i = 0; i < 256; i++) {
		struct cfs_tx t;

		assert_int_equal(cfs_ms_state_rd(s.m, &rd), 0);
		assert_int_equal(cfs_ms_dent_find(rd, ROOT, "wanted", 6, &d), ENOENT);
		assert_int_equal(d.cookie, base + i);
		d.ino = 77;
		d.mode = S_IFREG;
		assert_int_equal(cfs_ms_state_begin(s.m, &t), 0);
		assert_int_equal(cfs_ms_dent_put(&t, ROOT, &d, name,
						 (uint32_t)snprintf(name, sizeof(name), "%u", i)),
				 0);
		assert_int_equal(cfs_ms_state_commit(s.m, &t), 0);
	}
	assert_int_equal(
		state_mknode(&s, &(struct mk){ .dir = ROOT, .name = "wanted", .mode = S_IFREG },
			     &ino),
		ENOSPC);
	{
		struct cfs_key k;

		cfs_key_u64x2(&k, CFS_KEY_DENTRY, ROOT, base + 100);
		damage(&s, &k, NULL, 0);
	}
	ino = state_file(&s, ROOT, "wanted");
	assert_int_equal(cfs_ms_state_rd(s.m, &rd), 0);
	assert_int_equal(cfs_ms_dent_find(rd, ROOT, "wanted", 6, &d), 0);
	assert_true(d.cookie == base + 100 && d.ino == ino);
	cfs_meta_close(s.m);
	state_rmdir(s.dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inodes),	   cmocka_unit_test(test_names),
		cmocka_unit_test(test_data),	   cmocka_unit_test(test_holders),
		cmocka_unit_test(test_collisions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
