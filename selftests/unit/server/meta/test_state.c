/* SPDX-License-Identifier: MIT */
/*
 * Proves that names, links, modes, ACLs, xattrs and orphans of the replicated state behave as
 * POSIX and Linux say: every errno of rename, link counts, set-group-id directories, default
 * ACLs, chmod against ACLs, times that grow.
 */
#include "selftests/unit/server/meta/state_test.h"

#include <linux/fs.h>
#include <sys/xattr.h>

#define ROOT CFS_INO_ROOT

static uint32_t mode_of(struct state *s, uint64_t ino)
{
	return cfs_le32_to_cpu(state_attr(s, ino).mode);
}

static uint32_t nlink_of(struct state *s, uint64_t ino)
{
	return cfs_le32_to_cpu(state_attr(s, ino).nlink);
}

static uint64_t parent_of(struct state *s, uint64_t ino)
{
	return cfs_le64_to_cpu(state_attr(s, ino).parent);
}

static int time_cmp(const struct cfs_time *a, const struct cfs_time *b)
{
	if (a->sec != b->sec)
		return (int64_t)cfs_le64_to_cpu(a->sec) < (int64_t)cfs_le64_to_cpu(b->sec) ? -1 : 1;
	return a->nsec < b->nsec ? -1 : a->nsec > b->nsec;
}

static void test_create(void **arg)
{
	struct state s;
	struct cfs_attr a, before;
	uint64_t f, d, l, ino;

	(void)arg;
	state_start(&s);
	before = state_attr(&s, ROOT);
	assert_int_equal(cfs_le32_to_cpu(before.mode), S_IFDIR | 0755);
	assert_int_not_equal(before.btime.sec, 0);
	assert_int_equal(state_mknode(&s,
				      &(struct mk){ .dir = ROOT,
						    .name = "f",
						    .mode = S_IFREG | 06666,
						    .uid = 7,
						    .gid = 8,
						    .umask = 022 },
				      &f),
			 0);
	a = state_attr(&s, f);
	assert_int_equal(cfs_le32_to_cpu(a.mode), S_IFREG | 06644);
	assert_int_equal(cfs_le32_to_cpu(a.uid), 7);
	assert_int_equal(cfs_le32_to_cpu(a.gid), 8);
	assert_int_equal(cfs_le32_to_cpu(a.nlink), 1);
	assert_int_equal(cfs_le64_to_cpu(a.parent), ROOT);
	assert_int_equal(cfs_le64_to_cpu(a.mtime.sec), (uint64_t)s.now);
	assert_int_equal(cfs_le64_to_cpu(a.gen), s.index);
	a = state_attr(&s, ROOT);
	assert_true(time_cmp(&a.mtime, &before.mtime) > 0 && time_cmp(&a.ctime, &before.ctime) > 0);
	assert_true(cfs_le64_to_cpu(a.change) > cfs_le64_to_cpu(before.change));
	assert_int_equal(cfs_le64_to_cpu(a.size), 1);

	assert_int_equal(state_mknode(&s, &(struct mk){ .dir = ROOT, .name = "f", .mode = S_IFREG },
				      NULL),
			 EEXIST);
	assert_int_equal(state_mknode(&s, &(struct mk){ .dir = f, .name = "x", .mode = S_IFREG },
				      NULL),
			 ENOTDIR);
	assert_int_equal(state_mknode(&s, &(struct mk){ .dir = 999, .name = "x", .mode = S_IFREG },
				      NULL),
			 ENOENT);
	assert_int_equal(
		state_mknode(&s, &(struct mk){ .dir = ROOT, .name = "a/b", .mode = S_IFREG }, NULL),
		EINVAL);
	assert_int_equal(
		state_mknode(&s, &(struct mk){ .dir = ROOT, .name = "..", .mode = S_IFREG }, NULL),
		EINVAL);
	assert_int_equal(state_mknode(&s, &(struct mk){ .dir = ROOT, .name = "", .mode = S_IFREG },
				      NULL),
			 EINVAL);
	{
		char name[257];

		memset(name, 'n', 256);
		name[256] = 0;
		assert_int_equal(
			state_mknode(&s, &(struct mk){ .dir = ROOT, .name = name, .mode = S_IFREG },
				     NULL),
			ENAMETOOLONG);
		name[255] = 0;
		assert_int_equal(
			state_mknode(&s, &(struct mk){ .dir = ROOT, .name = name, .mode = S_IFREG },
				     NULL),
			0);
		assert_int_equal(state_lookup(&s, ROOT, name, &ino), 0);
		assert_int_equal(state_remove(&s, ROOT, name, false), 0);
	}
	d = state_mkdir(&s, ROOT, "d");
	assert_int_equal(nlink_of(&s, ROOT), 3);
	assert_int_equal(nlink_of(&s, d), 2);
	a = state_attr(&s, d);
	assert_int_equal(cfs_le64_to_cpu(a.parent), d);
	assert_int_equal(cfs_le64_to_cpu(a.dotdot), ROOT);

	assert_int_equal(state_mknode(&s,
				      &(struct mk){ .dir = d,
						    .name = "l",
						    .mode = S_IFLNK,
						    .umask = 077,
						    .target = "../f" },
				      &l),
			 0);
	a = state_attr(&s, l);
	assert_int_equal(cfs_le32_to_cpu(a.mode), S_IFLNK | 0777);
	assert_int_equal(cfs_le64_to_cpu(a.size), 4);
	{
		struct cfs_ino_req req = { cfs_cpu_to_le64(l) };

		assert_int_equal(state_read(&s, CFS_OP_READLINK, &req, sizeof(req)), 0);
		assert_int_equal(s.rep_len, 4);
		assert_memory_equal(s.rep, "../f", 4);
		req.ino = cfs_cpu_to_le64(f);
		assert_int_equal(state_read(&s, CFS_OP_READLINK, &req, sizeof(req)), EINVAL);
	}
	assert_int_equal(
		state_mknode(&s,
			     &(struct mk){ .dir = d, .name = "e", .mode = S_IFLNK, .target = "" },
			     NULL),
		EINVAL);
	assert_int_equal(
		state_mknode(&s,
			     &(struct mk){
				     .dir = d, .name = "c", .mode = S_IFCHR | 0600, .rdev = 0x103 },
			     &ino),
		0);
	assert_int_equal(cfs_le32_to_cpu(state_attr(&s, ino).rdev), 0x103);
	assert_int_equal(
		state_mknode(
			&s,
			&(struct mk){ .dir = d, .name = "p", .mode = S_IFIFO | 0600, .rdev = 5 },
			&ino),
		0);
	assert_int_equal(cfs_le32_to_cpu(state_attr(&s, ino).rdev), 0);

	assert_int_equal(state_lookup(&s, d, "..", &ino), 0);
	assert_int_equal(ino, ROOT);
	assert_int_equal(state_lookup(&s, d, ".", &ino), 0);
	assert_int_equal(ino, d);
	assert_int_equal(state_lookup(&s, ROOT, "..", &ino), 0);
	assert_int_equal(ino, ROOT);
	assert_int_equal(state_lookup(&s, d, "none", NULL), ENOENT);
	assert_int_equal(s.rep_len, sizeof(struct cfs_entry_rep));
	assert_int_equal(state_lookup(&s, 999, "none", NULL), ESTALE);
	assert_int_equal(state_lookup(&s, f, "none", NULL), ENOTDIR);
	state_stop(&s);
}

static void test_remove(void **arg)
{
	struct state s;
	struct cfs_unlink_rep rep;
	uint64_t f, d, sub;

	(void)arg;
	state_start(&s);
	d = state_mkdir(&s, ROOT, "d");
	sub = state_mkdir(&s, d, "sub");
	f = state_file(&s, d, "f");
	assert_int_equal(state_remove(&s, ROOT, "d", false), EISDIR);
	assert_int_equal(state_remove(&s, d, "f", true), ENOTDIR);
	assert_int_equal(state_remove(&s, ROOT, "d", true), ENOTEMPTY);
	assert_int_equal(state_remove(&s, ROOT, "none", false), ENOENT);
	assert_int_equal(state_remove(&s, d, "f", false), 0);
	assert_int_equal(s.rep_len, sizeof(rep));
	memcpy(&rep, s.rep, sizeof(rep));
	assert_int_equal(cfs_le64_to_cpu(rep.attr.ino), f);
	assert_int_equal(cfs_le32_to_cpu(rep.attr.nlink), 0);
	assert_int_equal(cfs_le64_to_cpu(rep.dirattr.ino), d);
	assert_int_equal(rep.orphan, 0);
	assert_true(state_gone(&s, f));
	assert_int_equal(nlink_of(&s, d), 3);
	assert_int_equal(state_remove(&s, d, "sub", true), 0);
	assert_true(state_gone(&s, sub));
	assert_int_equal(nlink_of(&s, d), 2);
	assert_int_equal(state_remove(&s, ROOT, "d", true), 0);
	assert_int_equal(nlink_of(&s, ROOT), 2);
	assert_int_equal(state_stat(&s).inodes, 1);
	state_stop(&s);
}

static void test_links(void **arg)
{
	struct state s;
	uint64_t f, d;

	(void)arg;
	state_start(&s);
	d = state_mkdir(&s, ROOT, "d");
	f = state_file(&s, ROOT, "f");
	assert_int_equal(state_link(&s, d, ROOT, "d2"), EPERM);
	assert_int_equal(state_link(&s, f, ROOT, "f"), EEXIST);
	assert_int_equal(state_link(&s, 999, ROOT, "x"), ENOENT);
	assert_int_equal(state_link(&s, f, f, "x"), ENOTDIR);
	assert_int_equal(state_link(&s, f, d, "g"), 0);
	assert_int_equal(nlink_of(&s, f), 2);
	assert_int_equal(parent_of(&s, f), 0);
	assert_int_equal(state_remove(&s, ROOT, "f", false), 0);
	assert_int_equal(nlink_of(&s, f), 1);
	assert_int_equal(parent_of(&s, f), 0);	/* which directory is left is not known */
	state_check(&s);
	assert_int_equal(state_rename(&s, d, "g", ROOT, "h", 0), 0);
	assert_int_equal(parent_of(&s, f), ROOT);
	assert_int_equal(state_remove(&s, ROOT, "h", false), 0);
	assert_true(state_gone(&s, f));
	state_stop(&s);
}

static void test_rename(void **arg)
{
	struct state s;
	struct cfs_rename_rep rep;
	struct cfs_attr before, after;
	uint64_t a, b, d, e, f, ino;

	(void)arg;
	state_start(&s);
	a = state_mkdir(&s, ROOT, "a");
	b = state_mkdir(&s, a, "b");
	d = state_mkdir(&s, ROOT, "d");
	e = state_mkdir(&s, ROOT, "e");
	f = state_file(&s, ROOT, "f");
	/* what must fail */
	assert_int_equal(state_rename(&s, ROOT, "none", ROOT, "x", 0), ENOENT);
	assert_int_equal(state_rename(&s, ROOT, "a", a, "x", 0), EINVAL);
	assert_int_equal(state_rename(&s, ROOT, "a", b, "x", 0), EINVAL);
	assert_int_equal(state_rename(&s, ROOT, "f", ROOT, "d", 0), EISDIR);
	assert_int_equal(state_rename(&s, ROOT, "d", ROOT, "f", 0), ENOTDIR);
	assert_int_equal(state_rename(&s, ROOT, "d", ROOT, "a", 0), ENOTEMPTY);
	assert_int_equal(state_rename(&s, a, "b", ROOT, "a", 0), ENOTEMPTY);
	assert_int_equal(state_rename(&s, ROOT, "f", ROOT, "d", RENAME_NOREPLACE), EEXIST);
	assert_int_equal(state_rename(&s, ROOT, "f", ROOT, "x", RENAME_EXCHANGE), ENOENT);
	assert_int_equal(state_rename(&s, ROOT, "f", ROOT, "x", RENAME_EXCHANGE | RENAME_NOREPLACE),
			 EINVAL);
	assert_int_equal(state_rename(&s, ROOT, "f", ROOT, "x", RENAME_WHITEOUT), EINVAL);
	assert_int_equal(state_rename(&s, ROOT, "a", b, "x", RENAME_EXCHANGE), ENOENT);
	assert_int_equal(state_rename(&s, a, "b", ROOT, "a", RENAME_EXCHANGE), EINVAL);
	/* a directory over an empty one, in another place */
	assert_int_equal(nlink_of(&s, ROOT), 5);
	before = state_attr(&s, b);
	assert_int_equal(state_rename(&s, a, "b", ROOT, "d", 0), 0);
	memcpy(&rep, s.rep, sizeof(rep));
	assert_int_equal(cfs_le64_to_cpu(rep.attr.ino), b);
	assert_int_equal(cfs_le64_to_cpu(rep.other.ino), d);
	assert_int_equal(cfs_le32_to_cpu(rep.other.nlink), 0);
	after = state_attr(&s, b);
	assert_true(time_cmp(&after.ctime, &before.ctime) > 0);
	assert_int_equal(cfs_le64_to_cpu(after.dotdot), ROOT);
	assert_true(state_gone(&s, d));
	assert_int_equal(nlink_of(&s, a), 2);
	assert_int_equal(nlink_of(&s, ROOT), 5);
	assert_int_equal(state_lookup(&s, a, "b", NULL), ENOENT);
	assert_int_equal(state_lookup(&s, ROOT, "d", &ino), 0);
	assert_int_equal(ino, b);
	/* exchange of a file and a directory in two directories */
	assert_int_equal(state_rename(&s, ROOT, "f", a, "f", 0), 0);
	assert_int_equal(parent_of(&s, f), a);
	assert_int_equal(state_rename(&s, a, "f", ROOT, "e", RENAME_EXCHANGE), 0);
	assert_int_equal(parent_of(&s, f), ROOT);
	assert_int_equal(cfs_le64_to_cpu(state_attr(&s, e).dotdot), a);
	assert_int_equal(nlink_of(&s, a), 3);
	assert_int_equal(nlink_of(&s, ROOT), 4);
	/* onto a file that another name still has; onto itself; two names of one file */
	assert_int_equal(state_link(&s, f, a, "f2"), 0);
	ino = state_file(&s, ROOT, "g");
	assert_int_equal(state_rename(&s, ROOT, "g", ROOT, "e", 0), 0);
	assert_int_equal(nlink_of(&s, f), 1);
	assert_int_equal(state_link(&s, f, a, "f3"), 0);
	before = state_attr(&s, a);
	assert_int_equal(state_rename(&s, a, "f2", a, "f3", 0), 0);
	memcpy(&rep, s.rep, sizeof(rep));
	assert_int_equal(rep.other.ino, 0);
	assert_int_equal(nlink_of(&s, f), 2);
	after = state_attr(&s, a);
	assert_memory_equal(&before, &after, sizeof(after));
	assert_int_equal(state_rename(&s, a, "f2", a, "f2", 0), 0);
	assert_int_equal(state_rename(&s, a, "f2", a, "f3", RENAME_NOREPLACE), EEXIST);
	state_stop(&s);
}

static void test_orphans(void **arg)
{
	struct state s;
	struct cfs_unlink_rep rep;
	uint64_t f, t, other, d;
	struct {
		struct cfs_release_req req;
		cfs_le64 ino[2];
	} rel = { .req = { .n = cfs_cpu_to_le32(2) } };

	(void)arg;
	state_start(&s);
	other = state_session(&s, "other");
	assert_int_not_equal(other, s.session);
	f = state_file(&s, ROOT, "f");
	s.holders[0] = s.session;
	s.holders[1] = other;
	s.holders[2] = 4711;	/* a session that is gone already */
	s.n_holders = 3;
	assert_int_equal(state_remove(&s, ROOT, "f", false), 0);
	memcpy(&rep, s.rep, sizeof(rep));
	assert_int_equal(cfs_le32_to_cpu(rep.orphan), 1);
	assert_int_equal(nlink_of(&s, f), 0);
	assert_int_equal(state_stat(&s).orphans, 1);
	state_check(&s);
	rel.ino[0] = cfs_cpu_to_le64(f);
	rel.ino[1] = cfs_cpu_to_le64(999);
	assert_int_equal(state_req(&s, CFS_OP_RELEASE, &rel, sizeof(rel)), 0);
	assert_false(state_gone(&s, f));
	assert_int_equal(state_apply(&s, CFS_LOG_FENCE, other, CFS_SLOT_NONE, 0, NULL, 0), 0);
	assert_true(state_gone(&s, f));
	assert_int_equal(state_stat(&s).orphans, 0);
	/* O_TMPFILE: linked, it is a file like others; not linked, it goes with its session */
	assert_int_equal(state_mknode(&s,
				      &(struct mk){ .dir = ROOT,
						    .mode = S_IFREG | 0600,
						    .flags = CFS_MK_TMPFILE },
				      &t),
			 0);
	assert_int_equal(nlink_of(&s, t), 0);
	assert_int_equal(state_stat(&s).orphans, 1);
	assert_int_equal(state_link(&s, t, ROOT, "t"), 0);
	assert_int_equal(nlink_of(&s, t), 1);
	assert_int_equal(parent_of(&s, t), ROOT);
	assert_int_equal(state_stat(&s).orphans, 0);
	assert_int_equal(state_mknode(&s,
				      &(struct mk){ .dir = ROOT,
						    .name = "n",
						    .mode = S_IFREG | 0600,
						    .flags = CFS_MK_TMPFILE },
				      NULL),
			 EINVAL);
	/* a removed directory that is held takes no new names */
	d = state_mkdir(&s, ROOT, "d");
	s.holders[0] = s.session;
	s.n_holders = 1;
	assert_int_equal(state_remove(&s, ROOT, "d", true), 0);
	assert_int_equal(state_mknode(&s, &(struct mk){ .dir = d, .name = "x", .mode = S_IFREG },
				      NULL),
			 ENOENT);
	assert_int_equal(state_rename(&s, ROOT, "t", d, "t", 0), ENOENT);
	state_check(&s);
	assert_int_equal(
		state_apply(&s, CFS_OP_SESSION_CLOSE, s.session, CFS_SLOT_NONE, 0, NULL, 0), 0);
	assert_true(state_gone(&s, d));
	assert_int_equal(state_stat(&s).orphans, 0);
	state_stop(&s);
}

/* ---- modes and ACLs ------------------------------------------------------------- */
struct acl {
	uint8_t buf[128];
	size_t len;
};

static void acl_add(struct acl *a, unsigned tag, unsigned perm, uint32_t id)
{
	uint8_t e[8] = { (uint8_t)tag,	      0,
			 (uint8_t)perm,	      0,
			 (uint8_t)id,	      (uint8_t)(id >> 8),
			 (uint8_t)(id >> 16), (uint8_t)(id >> 24) };

	if (!a->len) {
		memcpy(a->buf, "\2\0\0\0", 4);
		a->len = 4;
	}
	memcpy(a->buf + a->len, e, 8);
	a->len += 8;
}
#define NOID 0xffffffffu
enum { U_OBJ = 1, USER = 2, G_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };

static void test_setgid(void **arg)
{
	struct state s;
	uint64_t d, f, sub;

	(void)arg;
	state_start(&s);
	assert_int_equal(
		state_mknode(&s,
			     &(struct mk){
				     .dir = ROOT, .name = "d", .mode = S_IFDIR | 02775, .gid = 50 },
			     &d),
		0);
	assert_int_equal(
		state_mknode(
			&s, &(struct mk){ .dir = d, .name = "f", .mode = S_IFREG | 0644, .gid = 9 },
			&f),
		0);
	assert_int_equal(cfs_le32_to_cpu(state_attr(&s, f).gid), 50);
	assert_int_equal(mode_of(&s, f), S_IFREG | 0644);
	assert_int_equal(
		state_mknode(
			&s, &(struct mk){ .dir = d, .name = "s", .mode = S_IFDIR | 0755, .gid = 9 },
			&sub),
		0);
	assert_int_equal(cfs_le32_to_cpu(state_attr(&s, sub).gid), 50);
	assert_int_equal(mode_of(&s, sub), S_IFDIR | 02755);
	/*
	 * privileges die with a write by somebody unprivileged; sgid only if the group may
	 * execute
	 */
	assert_int_equal(state_chmod(&s, f, 06755), 0);
	assert_int_equal(state_setxattr(&s, f, "security.capability", "cap", 3, 0), 0);
	assert_int_equal(cfs_le32_to_cpu(state_attr(&s, f).flags), CFS_IF_XATTR | CFS_IF_CAPS);
	assert_int_equal(
		state_setattr(&s, f, CFS_SA_KILLPRIV, &(struct cfs_setattr_req){ .ino = 0 }), 0);
	assert_int_equal(mode_of(&s, f), S_IFREG | 0755);
	assert_int_equal(cfs_le32_to_cpu(state_attr(&s, f).flags), 0);
	assert_int_equal(state_chmod(&s, f, 06745), 0);
	assert_int_equal(state_commit(&s, f, CFS_CI_KILLPRIV, 10, NULL, 0), 0);
	assert_int_equal(mode_of(&s, f), S_IFREG | 02745);
	state_stop(&s);
}

static void test_acl(void **arg)
{
	struct state s;
	struct acl def = { .len = 0 }, acc = { .len = 0 }, bad = { .len = 0 }, min = { .len = 0 };
	uint64_t d, f, sub, l;

	(void)arg;
	state_start(&s);
	d = state_mkdir(&s, ROOT, "d");
	f = state_file(&s, d, "f");
	acl_add(&acc, U_OBJ, 6, NOID);
	acl_add(&acc, USER, 7, 1234);
	acl_add(&acc, G_OBJ, 4, NOID);
	acl_add(&acc, MASK, 6, NOID);
	acl_add(&acc, OTHER, 0, NOID);
	/* the group bits of the mode are the mask's */
	assert_int_equal(state_setxattr(&s, f, "system.posix_acl_access", acc.buf, acc.len, 0), 0);
	assert_int_equal(mode_of(&s, f), S_IFREG | 0660);
	assert_int_equal(cfs_le32_to_cpu(state_attr(&s, f).flags), CFS_IF_XATTR | CFS_IF_ACL);
	/* chmod sets owner, mask and others */
	assert_int_equal(state_chmod(&s, f, 0751), 0);
	assert_int_equal(state_getxattr(&s, f, "system.posix_acl_access"), 0);
	assert_int_equal(s.rep_len, acc.len);
	assert_int_equal(s.rep[4 + 2], 7);
	assert_int_equal(s.rep[4 + 16 + 2], 4);
	assert_int_equal(s.rep[4 + 24 + 2], 5);
	assert_int_equal(s.rep[4 + 32 + 2], 1);
	/* an ACL that says what a mode says becomes that mode */
	acl_add(&min, U_OBJ, 7, NOID);
	acl_add(&min, G_OBJ, 5, NOID);
	acl_add(&min, OTHER, 4, NOID);
	assert_int_equal(state_setxattr(&s, f, "system.posix_acl_access", min.buf, min.len, 0), 0);
	assert_int_equal(mode_of(&s, f), S_IFREG | 0754);
	assert_int_equal(state_getxattr(&s, f, "system.posix_acl_access"), ENODATA);
	assert_int_equal(cfs_le32_to_cpu(state_attr(&s, f).flags), 0);
	/* what is no ACL */
	acl_add(&bad, U_OBJ, 7, NOID);
	acl_add(&bad, USER, 7, 5);
	acl_add(&bad, G_OBJ, 7, NOID);
	acl_add(&bad, OTHER, 7, NOID);
	assert_int_equal(state_setxattr(&s, f, "system.posix_acl_access", bad.buf, bad.len, 0),
			 EINVAL);
	assert_int_equal(state_setxattr(&s, f, "system.posix_acl_access", acc.buf, acc.len - 1, 0),
			 EINVAL);
	assert_int_equal(state_setxattr(&s, f, "system.posix_acl_default", acc.buf, acc.len, 0),
			 EACCES);
	assert_int_equal(
		state_mknode(&s,
			     &(struct mk){ .dir = d, .name = "l", .mode = S_IFLNK, .target = "x" },
			     &l),
		0);
	assert_int_equal(state_setxattr(&s, l, "system.posix_acl_access", acc.buf, acc.len, 0),
			 EOPNOTSUPP);
	/*
	 * inheritance: the default ACL takes the umask's place, is masked by the mode, goes on to
	 * subdirectories
	 */
	acl_add(&def, U_OBJ, 7, NOID);
	acl_add(&def, USER, 6, 77);
	acl_add(&def, G_OBJ, 5, NOID);
	acl_add(&def, MASK, 7, NOID);
	acl_add(&def, OTHER, 5, NOID);
	assert_int_equal(state_setxattr(&s, d, "system.posix_acl_default", def.buf, def.len, 0), 0);
	assert_int_equal(mode_of(&s, d), S_IFDIR | 0755);
	assert_int_equal(
		state_mknode(
			&s,
			&(struct mk){ .dir = d, .name = "g", .mode = S_IFREG | 0666, .umask = 077 },
			&f),
		0);
	assert_int_equal(mode_of(&s, f), S_IFREG | 0664);
	assert_int_equal(state_getxattr(&s, f, "system.posix_acl_access"), 0);
	assert_int_equal(s.rep_len, def.len);
	assert_int_equal(s.rep[4 + 2], 6);
	assert_int_equal(s.rep[4 + 24 + 2], 6);
	assert_int_equal(s.rep[4 + 32 + 2], 4);
	assert_int_equal(state_getxattr(&s, f, "system.posix_acl_default"), ENODATA);
	assert_int_equal(state_mknode(&s,
				      &(struct mk){ .dir = d,
						    .name = "sub",
						    .mode = S_IFDIR | 0777,
						    .umask = 077 },
				      &sub),
			 0);
	assert_int_equal(mode_of(&s, sub), S_IFDIR | 0775);
	assert_int_equal(state_getxattr(&s, sub, "system.posix_acl_default"), 0);
	assert_memory_equal(s.rep, def.buf, def.len);
	/* removing one of the two leaves the other's flag */
	assert_int_equal(
		state_setxattr(&s, sub, "system.posix_acl_default", NULL, 0, CFS_XATTR_REMOVE), 0);
	assert_int_equal(cfs_le32_to_cpu(state_attr(&s, sub).flags), CFS_IF_XATTR | CFS_IF_ACL);
	assert_int_equal(
		state_setxattr(&s, sub, "system.posix_acl_access", NULL, 0, CFS_XATTR_REMOVE), 0);
	assert_int_equal(cfs_le32_to_cpu(state_attr(&s, sub).flags), 0);
	assert_int_equal(mode_of(&s, sub), S_IFDIR | 0775);
	state_stop(&s);
}

static void test_xattr(void **arg)
{
	static char big[CFS_XATTR_SIZE_MAX + 1];
	struct state s;
	char name[256];
	uint64_t f;
	unsigned n = 0;

	(void)arg;
	state_start(&s);
	f = state_file(&s, ROOT, "f");
	assert_int_equal(state_getxattr(&s, f, "user.a"), ENODATA);
	assert_int_equal(state_setxattr(&s, f, "user.a", "1", 1, XATTR_REPLACE), ENODATA);
	assert_int_equal(state_setxattr(&s, f, "user.a", "1", 1, XATTR_CREATE), 0);
	assert_int_equal(state_setxattr(&s, f, "user.a", "2", 1, XATTR_CREATE), EEXIST);
	assert_int_equal(state_setxattr(&s, f, "user.a", "22", 2, 0), 0);
	assert_int_equal(state_setxattr(&s, f, "user.empty", "", 0, 0), 0);
	assert_int_equal(state_getxattr(&s, f, "user.empty"), 0);
	assert_int_equal(s.rep_len, 0);
	assert_int_equal(state_getxattr(&s, f, "user.a"), 0);
	assert_int_equal(s.rep_len, 2);
	assert_memory_equal(s.rep, "22", 2);
	assert_int_equal(state_setxattr(&s, f, "system.other", "1", 1, 0), EOPNOTSUPP);
	assert_int_equal(state_setxattr(&s, f, "user.", "1", 1, 0), EOPNOTSUPP);
	assert_int_equal(state_setxattr(&s, f, "user.big", big, CFS_XATTR_SIZE_MAX, 0), 0);
	assert_int_equal(state_setxattr(&s, f, "user.big", big, CFS_XATTR_SIZE_MAX + 1, 0), E2BIG);
	{
		struct cfs_ino_req req = { cfs_cpu_to_le64(f) };

		assert_int_equal(state_read(&s, CFS_OP_LISTXATTR, &req, sizeof(req)), 0);
		assert_int_equal(s.rep_len, 27);
		assert_memory_equal(s.rep, "user.a\0user.big\0user.empty", 27);
	}
	assert_int_equal(state_setxattr(&s, f, "user.big", NULL, 0, CFS_XATTR_REMOVE), 0);
	assert_int_equal(state_setxattr(&s, f, "user.big", NULL, 0, CFS_XATTR_REMOVE), ENODATA);
	/* the list has an end */
	for (;; n++) {
		snprintf(name, sizeof(name), "user.%0240u", n);
		if (state_setxattr(&s, f, name, "v", 1, 0))
			break;
	}
	assert_int_equal(s.status, ENOSPC);
	assert_int_equal(n, (65536 - 18) / 246);
	assert_int_equal(state_remove(&s, ROOT, "f", false), 0);
	state_stop(&s);
}

static void test_times(void **arg)
{
	struct cfs_setattr_req req = { .mtime = { cfs_cpu_to_le64(5), cfs_cpu_to_le32(6), 0 } };
	struct state s;
	struct cfs_attr a, b;
	uint64_t f;

	(void)arg;
	state_start(&s);
	f = state_file(&s, ROOT, "f");
	/*
	 * the leader's clock stands still, and even goes back: times of changes grow all the same
	 */
	s.now--;
	assert_int_equal(state_truncate(&s, f, 1), 0);
	a = state_attr(&s, f);
	s.now -= 10;
	assert_int_equal(state_truncate(&s, f, 2), 0);
	b = state_attr(&s, f);
	assert_true(time_cmp(&b.mtime, &a.mtime) > 0 && time_cmp(&b.ctime, &a.ctime) > 0);
	assert_int_equal(b.mtime.sec, a.mtime.sec);
	assert_true(cfs_le64_to_cpu(b.change) > cfs_le64_to_cpu(a.change));
	/* set by hand, forward and back */
	assert_int_equal(state_setattr(&s, f, CFS_SA_MTIME, &req), 0);
	b = state_attr(&s, f);
	assert_memory_equal(&b.mtime, &req.mtime, sizeof(req.mtime));
	req.mtime.sec = cfs_cpu_to_le64(4000000000ull);
	assert_int_equal(state_setattr(&s, f, CFS_SA_MTIME, &req), 0);
	s.now += 100;
	assert_int_equal(state_truncate(&s, f, 3), 0);
	assert_int_equal(cfs_le64_to_cpu(state_attr(&s, f).mtime.sec), (uint64_t)s.now);
	req.mtime.nsec = cfs_cpu_to_le32(1000000000);
	assert_int_equal(state_setattr(&s, f, CFS_SA_MTIME, &req), EINVAL);
	assert_int_equal(state_setattr(&s, f, 1u << 30, &req), EINVAL);
	req.size = cfs_cpu_to_le64(CFS_FILE_SIZE_MAX + 1);
	assert_int_equal(state_setattr(&s, f, CFS_SA_SIZE, &req), EFBIG);
	assert_int_equal(state_truncate(&s, ROOT, 0), EISDIR);
	assert_int_equal(state_truncate(&s, f, CFS_FILE_SIZE_MAX), 0);
	assert_int_equal(cfs_le64_to_cpu(state_attr(&s, f).alloc), 0);
	state_stop(&s);
}

/* cookies are in order, stable, and lead through the directory whatever the size of the pieces */
static void test_readdir(void **arg)
{
	struct state s;
	struct cfs_readdir_req req = { .dir = cfs_cpu_to_le64(ROOT),
				       .max_bytes = cfs_cpu_to_le32(1000),
				       .flags = cfs_cpu_to_le32(CFS_READDIR_PLUS) };
	struct cfs_readdir_rep rep;
	struct cfs_dirent e;
	struct cfs_attr a;
	bool seen[500] = { false };
	uint64_t last = 0;
	unsigned total = 0, calls = 0;
	char name[300];

	(void)arg;
	state_start(&s);
	for (unsigned i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "%u", i);
		state_file(&s, ROOT, name);
	}
	do {
		size_t pos = sizeof(rep);

		assert_int_equal(state_read(&s, CFS_OP_READDIR, &req, sizeof(req)), 0);
		assert_true(s.rep_len <= 1000);
		memcpy(&rep, s.rep, sizeof(rep));
		for (unsigned i = 0; i < cfs_le32_to_cpu(rep.n); i++) {
			memcpy(&e, s.rep + pos, sizeof(e));
			memcpy(&a, s.rep + pos + sizeof(e), sizeof(a));
			memcpy(name, s.rep + pos + sizeof(e) + sizeof(a),
			       cfs_le16_to_cpu(e.name_len));
			name[cfs_le16_to_cpu(e.name_len)] = 0;
			assert_true(cfs_le64_to_cpu(e.cookie) > last &&
				    cfs_le64_to_cpu(e.cookie) < 1ull << 63);
			assert_int_equal(cfs_le64_to_cpu(e.cookie) >> 8,
					 cfs_meta_name_hash(s.m, name, strlen(name)) >> 8);
			last = cfs_le64_to_cpu(e.cookie);
			assert_int_equal(a.ino, e.ino);
			assert_false(seen[atoi(name)]);
			seen[atoi(name)] = true;
			pos = cfs_align_up(pos + sizeof(e) + sizeof(a) + strlen(name), 8);
			total++;
		}
		assert_int_equal(pos, s.rep_len);
		req.cookie = cfs_cpu_to_le64(last);
		calls++;
	} while (!(cfs_le32_to_cpu(rep.flags) & CFS_READDIR_EOF));
	assert_int_equal(total, 500);
	assert_true(calls > 50);
	req.max_bytes = cfs_cpu_to_le32(100);
	assert_int_equal(state_read(&s, CFS_OP_READDIR, &req, sizeof(req)), EINVAL);
	state_stop(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create),	cmocka_unit_test(test_remove),
		cmocka_unit_test(test_links),	cmocka_unit_test(test_rename),
		cmocka_unit_test(test_orphans), cmocka_unit_test(test_setgid),
		cmocka_unit_test(test_acl),	cmocka_unit_test(test_xattr),
		cmocka_unit_test(test_times),	cmocka_unit_test(test_readdir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
