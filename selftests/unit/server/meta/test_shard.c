/* SPDX-License-Identifier: MIT */
/*
 * Proves of the shard leader: sessions and slots as wire.h has them, group commit without delay, V bits only under a
 * lease and with nothing under way, anti-storm, rmdir, early ENOSPC, dead objects, bounds, status text. What arrives
 * and what is sent is real; the log commits and time passes when the test says so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "selftests/lib/shard_world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "rpc/codec.h"

#define ROOT CFS_INO_ROOT
#define REG  (S_IFREG | 0644)
#define DIR  (S_IFDIR | 0755)

static uint32_t le32(cfs_le32 v)
{
	return cfs_le32_to_cpu(v);
}

/* ---- sessions ---------------------------------------------------------------------------------------- */
static void test_sessions(void **state)
{
	struct shard_test *t = *state;
	uint8_t body[sizeof(struct cfs_session_open_req) + 1];
	struct cfs_session_open_req req = { .nonce = "a", .slots = cfs_cpu_to_le32(WORLD_SLOTS), .name_len = cfs_cpu_to_le32(1) };
	struct cfs_session_open_rep rep;
	struct cfs_entry_rep e;
	uint64_t id = t->a->id;

	memcpy(body, &req, sizeof(req));
	body[sizeof(req)] = 'a';
	/* the same nonce gives the same session */
	assert_int_equal(client_call(t->a, CFS_OP_SESSION_OPEN, -1, body, sizeof(body), &rep, sizeof(rep)), 0);
	assert_int_equal(cfs_le64_to_cpu(rep.session), id);
	assert_int_equal(shard_test_stat(t).sessions, 3);
	client_heartbeat(t->a);
	/* a session that does not exist, and one that is not this connection's */
	t->a->id = 4711;
	assert_int_equal(client_lookup(t->a, ROOT, "x", &e), CFS_E_BADSESSION);
	t->a->id = t->b->id;
	assert_int_equal(client_lookup(t->a, ROOT, "x", &e), CFS_E_BADSESSION);
	t->a->id = id;
	assert_int_equal(client_lookup(t->a, ROOT, "x", &e), ENOENT);
	assert_int_equal(client_call(t->a, CFS_OP_SESSION_CLOSE, -1, NULL, 0, NULL, 0), 0);
	assert_int_equal(client_lookup(t->a, ROOT, "x", &e), CFS_E_BADSESSION);
	assert_int_equal(shard_test_stat(t).sessions, 2);
	assert_false(cfs_meta_session_exists(t->w->meta, id));
}

/* ---- slots ------------------------------------------------------------------------------------------- */
static void test_slots(void **state)
{
	struct shard_test *t = *state;
	size_t len = body_mknode(t->buf, ROOT, "f", REG, 0);
	struct cfs_entry_rep rep, again;

	assert_int_equal(client_call(t->a, CFS_OP_MKNODE, 3, t->buf, len, &rep, sizeof(rep)), 0);
	/* answered from the slot: the same inode, but no bits for what may have changed since */
	t->a->seq[3]--;
	assert_int_equal(client_call(t->a, CFS_OP_MKNODE, 3, t->buf, len, &again, sizeof(again)), 0);
	assert_int_equal(again.attr.ino, rep.attr.ino);
	assert_int_equal(again.valid, 0);
	assert_int_equal(shard_test_stat(t).replays, 1);
	/* too old, too new, no such slot */
	t->a->seq[3] -= 2;
	assert_int_equal(client_call(t->a, CFS_OP_MKNODE, 3, t->buf, len, NULL, 0), CFS_E_BADSEQ);
	t->a->seq[3] += 2;
	assert_int_equal(client_call(t->a, CFS_OP_MKNODE, 3, t->buf, len, NULL, 0), CFS_E_BADSEQ);
	t->a->seq[3] -= 2;
	assert_int_equal(client_call(t->a, CFS_OP_MKNODE, 3, t->buf, len, NULL, 0), EEXIST);
	assert_int_equal(client_call(t->a, CFS_OP_MKNODE, -1, t->buf, len, NULL, 0), CFS_E_BADSEQ);
	/* a malformed request uses up its slot's number, too: the next one is accepted */
	assert_int_equal(client_call(t->a, CFS_OP_MKNODE, 3, t->buf, 5, NULL, 0), CFS_E_PROTO);
	assert_int_equal(client_call(t->a, CFS_OP_MKNODE, 3, t->buf, len, NULL, 0), EEXIST);
	world_new_leader(t->w);
	fake_clock_advance_ms(&t->w->clock, 12000);
	assert_int_equal(client_call(t->a, CFS_OP_MKNODE, 3, t->buf, len, NULL, 0), EEXIST);
}

/* ---- batches ----------------------------------------------------------------------------------------- */
static void test_batch(void **state)
{
	struct shard_test *t = *state;
	uint64_t tag[3];
	char name[8];

	t->w->manual = true;
	/* alone: at once, in the same turn */
	tag[0] = client_send(t->a, CFS_OP_MKNODE, 0, t->buf, body_mknode(t->buf, ROOT, "n0", REG, 0));
	assert_int_equal(t->w->log.n, 1);
	client_no_reply(t->a);
	/* behind it: together */
	tag[1] = client_send(t->a, CFS_OP_MKNODE, 1, t->buf, body_mknode(t->buf, ROOT, "n1", REG, 0));
	tag[2] = client_send(t->b, CFS_OP_MKNODE, 0, t->buf, body_mknode(t->buf, ROOT, "n2", REG, 0));
	assert_int_equal(t->w->log.n, 1);
	fake_log_commit(&t->w->log);
	assert_int_equal(client_reply(t->a, tag[0], NULL), 0);
	client_no_reply(t->a);
	assert_int_equal(t->w->log.n, 1);
	fake_log_commit(&t->w->log);
	assert_int_equal(client_reply(t->a, tag[1], NULL), 0);
	assert_int_equal(client_reply(t->b, tag[2], NULL), 0);
	/* many do not wait for the one before, but no more than four entries are on their way */
	for (unsigned i = 0; i < 16; i++) {
		snprintf(name, sizeof(name), "m%u", i);
		client_send(t->a, CFS_OP_SETATTR, (int)i, t->buf, body_chmod(t->buf, 1000 + i, 0600));
		client_send(t->b, CFS_OP_SETATTR, (int)i, t->buf, body_chmod(t->buf, 2000 + i, 0600));
		client_send(t->c, CFS_OP_SETATTR, (int)i, t->buf, body_chmod(t->buf, 3000 + i, 0600));
	}
	assert_int_equal(t->w->log.n, 3);
	fake_log_commit_all(&t->w->log);
	assert_int_equal(t->a->worker->n_sent + t->b->worker->n_sent + t->c->worker->n_sent, 48);
	while (t->a->worker->n_sent)
		fake_sent_free(fake_conn_take(t->a->worker));
}

static void test_log_busy(void **state)
{
	struct shard_test *t = *state;
	uint64_t tag;

	t->w->log.refuse = -EBUSY;
	tag = client_send(t->a, CFS_OP_MKNODE, 0, t->buf, body_mknode(t->buf, ROOT, "n0", REG, 0));
	client_no_reply(t->a);
	t->w->log.refuse = 0;
	fake_clock_advance_ms(&t->w->clock, 300);
	world_settle(t->w);
	assert_int_equal(client_reply(t->a, tag, NULL), 0);
	/* not the leader after all: who asked is told, and asks elsewhere */
	t->w->log.refuse = -ENOTCONN;
	tag = client_send(t->a, CFS_OP_MKNODE, 0, t->buf, body_mknode(t->buf, ROOT, "n1", REG, 0));
	assert_int_equal(client_reply(t->a, tag, NULL), CFS_E_NOTLEADER);
	assert_false(cfs_shard_is_leader(t->w->shard));
	t->w->log.refuse = 0;
}

/* ---- V bits ------------------------------------------------------------------------------------------ */
static void test_valid_bits(void **state)
{
	struct shard_test *t = *state;
	struct cfs_entry_rep e;
	struct cfs_attr_rep a;
	struct cfs_unlink_rep u;
	uint64_t ino, dir, tag;
	struct fake_sent *m;
	struct brk b;

	ino = client_create(t->a, ROOT, "f", REG, 0, &e);
	assert_int_equal(le32(e.valid), CFS_V_ENTRY | CFS_V_ATTR | CFS_V_DIRATTR);
	assert_int_equal(le32(e.lease), CFS_LEASE_NONE);
	/* a directory governs itself */
	dir = client_create(t->a, ROOT, "d", DIR, 0, &e);
	assert_int_equal(le32(e.valid), CFS_V_ENTRY | CFS_V_ATTR | CFS_V_DIRATTR);
	assert_int_equal(client_lookup(t->b, ROOT, "d", &e), 0);
	assert_int_equal(le32(e.valid), CFS_V_ENTRY | CFS_V_ATTR);
	assert_int_equal(client_lookup(t->b, ROOT, "f", &e), 0);
	assert_int_equal(le32(e.valid), CFS_V_ENTRY | CFS_V_ATTR);
	assert_int_equal(client_lookup(t->b, ROOT, "none", &e), ENOENT);
	assert_int_equal(le32(e.valid), CFS_V_ENTRY);
	assert_int_equal(client_lookup(t->b, ROOT, ".", &e), 0);
	assert_int_equal(le32(e.valid), CFS_V_ATTR);
	assert_int_equal(client_getattr(t->b, dir, &a), 0);
	assert_int_equal(le32(a.valid), CFS_V_ATTR);

	/* b makes "none": a has the lease and must forget name and directory attributes, only those */
	t->w->manual = true;
	tag = client_send(t->b, CFS_OP_MKNODE, 0, t->buf, body_mknode(t->buf, ROOT, "none", REG, 0));
	client_break(t->a, &b);
	assert_int_equal(b.n, 1);
	assert_int_equal(b.items[0].dir, ROOT);
	assert_int_equal(b.items[0].flags, CFS_BRK_NAME | CFS_BRK_DIRATTR);
	assert_string_equal(b.items[0].name, "none");
	assert_int_equal(t->w->log.n, 0); /* not even in the log before the answer */
	/* meanwhile: the name and the directory without bits, all else with */
	assert_int_equal(client_lookup(t->c, ROOT, "none", &e), ENOENT);
	assert_int_equal(le32(e.valid), 0);
	assert_int_equal(client_lookup(t->c, ROOT, "f", &e), 0);
	assert_int_equal(le32(e.valid), CFS_V_ENTRY | CFS_V_ATTR);
	assert_int_equal(client_getattr(t->c, ROOT, &a), 0);
	assert_int_equal(le32(a.valid), 0);
	client_answer(t->a, &b, 0);
	client_no_break(t->c); /* came later, knows nothing that is wrong */
	assert_int_equal(t->w->log.n, 1);
	assert_int_equal(client_lookup(t->c, ROOT, "none", &e), ENOENT);
	assert_int_equal(le32(e.valid), 0);
	fake_log_commit_all(&t->w->log);
	assert_int_equal(client_reply(t->b, tag, &m), 0);
	memcpy(&e, m->body, sizeof(e));
	fake_sent_free(m);
	assert_int_equal(le32(e.valid), CFS_V_ENTRY | CFS_V_ATTR | CFS_V_DIRATTR);
	t->w->manual = false;
	assert_int_equal(client_lookup(t->c, ROOT, "none", &e), 0);
	assert_int_equal(le32(e.valid), CFS_V_ENTRY | CFS_V_ATTR);

	/* a second link: now the file's own lease governs, and LOOKUP gives a shared one */
	tag = client_send(t->a, CFS_OP_LINK, 0, t->buf, body_link(t->buf, ino, ROOT, "g"));
	for (struct client **cl = (struct client *[]){ t->b, t->c, NULL }; *cl; cl++) {
		client_break(*cl, &b);
		assert_int_equal(b.n, 2);
		assert_int_equal(b.items[0].flags, CFS_BRK_NAME | CFS_BRK_DIRATTR);
		assert_int_equal(b.items[1].flags, CFS_BRK_ATTR);
		assert_int_equal(b.items[1].ino, ino);
		client_answer(*cl, &b, 0);
	}
	assert_int_equal(client_reply(t->a, tag, &m), 0);
	memcpy(&e, m->body, sizeof(e));
	fake_sent_free(m);
	assert_int_equal(e.attr.parent, 0);
	assert_int_equal(le32(e.lease), CFS_LEASE_SHARED);
	assert_int_equal(le32(e.valid), CFS_V_ENTRY | CFS_V_ATTR | CFS_V_DIRATTR);
	assert_int_equal(client_lookup(t->b, ROOT, "g", &e), 0);
	assert_int_equal(le32(e.lease), CFS_LEASE_SHARED);

	/* c's unlink of one of the links: a and b have its attributes under their file leases */
	tag = client_send(t->c, CFS_OP_UNLINK, 0, t->buf, body_unlink(t->buf, ROOT, "g", false, 0, false));
	for (struct client **cl = (struct client *[]){ t->a, t->b, NULL }; *cl; cl++) {
		client_break(*cl, &b);
		assert_int_equal(b.n, 2);
		assert_int_equal(b.items[1].flags, CFS_BRK_ATTR);
		client_answer(*cl, &b, 0);
	}
	assert_int_equal(client_reply(t->c, tag, &m), 0);
	memcpy(&u, m->body, sizeof(u));
	fake_sent_free(m);
	/* its own lease still governs it (nobody knows where the other link is), and c has none */
	assert_int_equal(le32(u.valid), CFS_V_ENTRY | CFS_V_DIRATTR);
	assert_int_equal(u.attr.parent, 0);
}

static void test_readdir(void **state)
{
	struct shard_test *t = *state;
	struct cfs_readdir_req req = {
		.dir = cfs_cpu_to_le64(ROOT), .max_bytes = cfs_cpu_to_le32(65536),
		.flags = cfs_cpu_to_le32(CFS_READDIR_PLUS),
	};
	unsigned with_entry = 0, with_attr = 0;
	struct cfs_readdir_rep rep;
	struct cfs_open_rep o;
	struct cfs_dirent de;
	struct cfs_cursor cur;
	struct fake_sent *m;
	uint64_t ino, tag;
	struct brk b;

	ino = client_create(t->a, ROOT, "f1", REG, 0, NULL);
	client_create(t->a, ROOT, "f2", REG, 0, NULL);
	client_create(t->a, ROOT, "sub", DIR, 0, NULL);
	assert_int_equal(client_open(t->a, ino, CFS_LEASE_EXCL, 0, &o), 0);
	assert_int_equal(client_reply(t->b, client_send(t->b, CFS_OP_READDIR, -1, &req, sizeof(req)), &m), 0);
	cfs_cursor_init(&cur, m->body, m->body_len);
	cfs_take_struct(&cur, &rep);
	assert_int_equal(le32(rep.n), 3);
	assert_int_equal(le32(rep.flags), CFS_READDIR_EOF | CFS_READDIR_KEEP);
	for (unsigned i = 0; i < 3; i++) {
		unsigned len;

		cfs_take_struct(&cur, &de);
		len = cfs_le16_to_cpu(de.name_len);
		cfs_take(&cur, sizeof(struct cfs_attr), "attr");
		cfs_take(&cur, (24 + 144 + len + 7) / 8 * 8 - 24 - 144, "name");
		with_entry += !!(de.valid & CFS_V_ENTRY);
		with_attr += !!(de.valid & CFS_V_ATTR);
	}
	assert_int_equal(cfs_cursor_end(&cur), 0);
	fake_sent_free(m);
	assert_int_equal(with_entry, 3);
	assert_int_equal(with_attr, 1); /* f2. f1 is a's, and of sub b has no lease */

	/* with a change of names under way the list is not one to keep, and the name has no bit */
	tag = client_send(t->a, CFS_OP_UNLINK, 0, t->buf, body_unlink(t->buf, ROOT, "f2", false, 0, false));
	client_break(t->b, &b);
	assert_int_equal(client_reply(t->c, client_send(t->c, CFS_OP_READDIR, -1, &req, sizeof(req)), &m), 0);
	cfs_cursor_init(&cur, m->body, m->body_len);
	cfs_take_struct(&cur, &rep);
	assert_int_equal(le32(rep.flags), CFS_READDIR_EOF);
	with_entry = 0;
	for (unsigned i = 0; i < 3; i++) {
		cfs_take_struct(&cur, &de);
		cfs_take(&cur, (24 + 144 + cfs_le16_to_cpu(de.name_len) + 7) / 8 * 8 - 24, "rest");
		with_entry += !!(de.valid & CFS_V_ENTRY);
	}
	assert_int_equal(with_entry, 2);
	fake_sent_free(m);
	client_answer(t->b, &b, 0);
	assert_int_equal(client_reply(t->a, tag, NULL), 0);
}

/* ---- the rest -------------------------------------------------------------------------------------------- */
static void test_storm(void **state)
{
	struct shard_test *t = *state;
	struct cfs_entry_rep e;
	unsigned asked = 0;
	char name[8];
	struct brk b;

	client_create(t->a, ROOT, "f", REG, 0, NULL);
	for (unsigned i = 0; i < 20; i++) {
		uint64_t tag;

		client_lookup(t->b, ROOT, "f", &e);
		snprintf(name, sizeof(name), "n%u", i);
		tag = client_send(t->a, CFS_OP_MKNODE, 0, t->buf, body_mknode(t->buf, ROOT, name, REG, 0));
		if (t->b->cb->n_sent) {
			client_break(t->b, &b);
			asked++;
			/* the ninth within a second takes the lease itself */
			assert_int_equal(b.items[0].flags, asked > 8 ? CFS_BRK_DIR : CFS_BRK_NAME | CFS_BRK_DIRATTR);
			if (asked > 8) {
				/* between the recall and its answer the holder gets nothing new */
				assert_int_equal(client_lookup(t->b, ROOT, "f", &e), 0);
				assert_int_equal(le32(e.valid), 0);
			}
			client_answer(t->b, &b, 0);
		}
		assert_int_equal(client_reply(t->a, tag, NULL), 0);
	}
	assert_int_equal(asked, 9);
	assert_int_equal(client_lookup(t->b, ROOT, "f", &e), 0);
	assert_int_equal(le32(e.valid), 0);
	fake_clock_advance_ms(&t->w->clock, 1100);
	assert_int_equal(client_lookup(t->b, ROOT, "f", &e), 0);
	assert_int_equal(le32(e.valid), CFS_V_ENTRY | CFS_V_ATTR);
}

static void test_many_items(void **state)
{
	struct shard_test *t = *state;
	struct cfs_commit_req req = { .n = cfs_cpu_to_le32(20) };
	struct cfs_commit_item item = { .flags = cfs_cpu_to_le32(CFS_CI_MTIME) };
	unsigned n = 0, messages = 0;
	struct cfs_entry_rep e;
	uint64_t tag, tag2;
	size_t len = sizeof(req);
	char name[8];
	struct brk b;

	memcpy(t->buf, &req, sizeof(req));
	for (unsigned i = 0; i < 20; i++) {
		char path[sizeof(t->buf)];

		memcpy(path, t->buf, len);
		snprintf(name, sizeof(name), "n%u", i);
		item.ino = cfs_cpu_to_le64(client_create(t->a, ROOT, name, REG, 0, NULL));
		memcpy(t->buf, path, len);
		memcpy(t->buf + len, &item, sizeof(item));
		len += sizeof(item);
	}
	client_lookup(t->b, ROOT, "n0", &e);
	/* one request about twenty files: recalls of at most eight items */
	tag = client_send(t->a, CFS_OP_COMMIT, 0, t->buf, len);
	client_no_reply(t->a);
	/* each of its inodes is taken */
	tag2 = client_send(t->c, CFS_OP_SETATTR, 0, t->buf, body_chmod(t->buf, cfs_le64_to_cpu(item.ino), 0600));
	while (t->b->cb->n_sent) {
		client_no_reply(t->a);
		client_break(t->b, &b);
		n += b.n;
		messages++;
		client_answer(t->b, &b, 0);
		if (messages == 3)
			break;
	}
	assert_int_equal(n, 20);
	assert_int_equal(client_reply(t->a, tag, NULL), 0);
	/* c's chmod went on, and recalls from both */
	while (t->b->cb->n_sent || t->a->cb->n_sent) {
		struct client *cl = t->b->cb->n_sent ? t->b : t->a;

		client_break(cl, &b);
		client_answer(cl, &b, 0);
	}
	assert_int_equal(client_reply(t->c, tag2, NULL), 0);
}

static void test_rmdir(void **state)
{
	struct shard_test *t = *state;
	uint64_t dir = client_create(t->a, ROOT, "d", DIR, 0, NULL), tag, tag2;
	struct cfs_entry_rep e;
	struct brk b;

	client_lookup(t->b, dir, "x", &e);
	assert_int_equal(le32(e.valid), CFS_V_ENTRY);
	tag = client_send(t->a, CFS_OP_UNLINK, 0, t->buf, body_unlink(t->buf, ROOT, "d", true, 0, false));
	client_break(t->b, &b);
	assert_int_equal(b.n, 1);
	assert_int_equal(b.items[0].dir, dir);
	assert_true(b.items[0].flags & CFS_BRK_DIR);
	/* somebody wants to put a name into it meanwhile: waits, and finds no directory */
	tag2 = client_send(t->c, CFS_OP_MKNODE, 0, t->buf, body_mknode(t->buf, dir, "x", REG, 0));
	client_answer(t->b, &b, 0);
	assert_int_equal(client_reply(t->a, tag, NULL), 0);
	assert_int_equal(client_reply(t->c, tag2, NULL), ENOENT);
	assert_int_equal(client_lookup(t->b, dir, "x", &e), ESTALE);
}

static void test_space(void **state)
{
	struct shard_test *t = *state;
	struct cfs_statfs_rep st;
	uint64_t ino = client_create(t->a, ROOT, "f", REG, CFS_MK_LEASE, NULL);
	struct cfs_commit_req req = { .n = cfs_cpu_to_le32(1) };
	struct cfs_commit_item item = { .ino = cfs_cpu_to_le64(ino), .flags = cfs_cpu_to_le32(CFS_CI_MTIME) };

	t->w->space_total = 1000 * CFS_MIB;
	t->w->space_free = 10 * CFS_MIB;
	fake_clock_advance_ms(&t->w->clock, 1100);
	client_heartbeat(t->a);
	assert_int_equal(client_call(t->a, CFS_OP_STATFS, -1, NULL, 0, &st, sizeof(st)), 0);
	/* 1/64 is for what frees space */
	assert_int_equal(cfs_le64_to_cpu(st.total_bytes), t->w->space_total - t->w->space_total / 64);
	assert_int_equal(cfs_le64_to_cpu(st.free_bytes), 0);
	assert_int_equal(cfs_le64_to_cpu(st.files), 2);
	assert_int_equal(client_call(t->a, CFS_OP_MKNODE, 0, t->buf, body_mknode(t->buf, ROOT, "g", REG, 0), NULL, 0), ENOSPC);
	assert_int_equal(client_call(t->a, CFS_OP_COMMIT, 0, t->buf, body_commit(t->buf, ino, "x"), NULL, 0), ENOSPC);
	/* what needs no space, or gives some back, works */
	memcpy(t->buf, &req, sizeof(req));
	memcpy(t->buf + sizeof(req), &item, sizeof(item));
	assert_int_equal(client_call(t->a, CFS_OP_COMMIT, 0, t->buf, sizeof(req) + sizeof(item), NULL, 0), 0);
	assert_int_equal(client_call(t->a, CFS_OP_SETATTR, 0, t->buf, body_truncate(t->buf, ino, 0), NULL, 0), 0);
	assert_int_equal(client_call(t->a, CFS_OP_UNLINK, 0, t->buf, body_unlink(t->buf, ROOT, "f", false, ino, false), NULL, 0), 0);
}

static void test_dead_objects(void **state)
{
	struct shard_test *t = *state;
	uint64_t ino = client_create(t->a, ROOT, "f", REG, CFS_MK_LEASE, NULL), key;
	struct cfs_commit_req req = { .n = cfs_cpu_to_le32(1) };
	struct cfs_commit_item item = {
		.ino = cfs_cpu_to_le64(ino), .size = cfs_cpu_to_le64(65536), .n_extents = cfs_cpu_to_le32(1),
	};
	struct cfs_extent x = {
		.len = cfs_cpu_to_le32(65536), .obj_len = cfs_cpu_to_le32(65536),
		.oid = { .owner = cfs_cpu_to_le64(t->a->id), .seq = cfs_cpu_to_le64(9) },
	};
	struct cfs_meta_stat st;

	memcpy(t->buf, &req, sizeof(req));
	memcpy(t->buf + sizeof(req), &item, sizeof(item));
	memcpy(t->buf + sizeof(req) + sizeof(item), &x, sizeof(x));
	assert_int_equal(client_call(t->a, CFS_OP_COMMIT, 0, t->buf, sizeof(req) + sizeof(item) + sizeof(x), NULL, 0), 0);
	assert_int_equal(client_call(t->a, CFS_OP_SETATTR, 0, t->buf, body_truncate(t->buf, ino, 0), NULL, 0), 0);
	for (unsigned i = 0; i < 24; i++) {
		fake_clock_advance_ms(&t->w->clock, 2500);
		client_heartbeat(t->a);
		world_settle(t->w);
		if (i < 23)
			assert_int_equal(t->w->n_dead, 0); /* a reader may still be at it */
	}
	fake_clock_advance_ms(&t->w->clock, 2500);
	assert_int_equal(t->w->n_dead, 1);
	assert_int_equal(cfs_le64_to_cpu(t->w->dead[0].oid.seq), 9);
	/* asked again if nothing is heard, not at once */
	t->w->n_dead = 0;
	fake_clock_advance_ms(&t->w->clock, 29000);
	world_settle(t->w);
	assert_int_equal(t->w->n_dead, 0);
	fake_clock_advance_ms(&t->w->clock, 2000);
	world_settle(t->w);
	assert_int_equal(t->w->n_dead, 1);
	key = t->w->dead[0].key;
	cfs_shard_dead_done(t->w->shard, &key, 1);
	world_settle(t->w);
	assert_int_equal(cfs_meta_stat(t->w->meta, &st), 0);
	assert_int_equal(st.dead_objects, 0);
}

static void test_bounds(void **state)
{
	struct shard_test *t = *state;
	struct cfs_open_rep o;
	uint64_t ino = client_create(t->a, ROOT, "f", REG, CFS_MK_LEASE, NULL), tag;
	unsigned i;

	/* b's OPENs pile up behind the recall: as many as its connections and slots allow */
	for (i = 0; i < 1000; i++) {
		tag = client_send(t->b, CFS_OP_OPEN, -1, t->buf, body_open(t->buf, ino, CFS_LEASE_SHARED, 0));
		if (t->b->worker->n_sent)
			break;
	}
	assert_int_equal(i, WORLD_SLOTS + 2 * CFS_CREDITS_DEFAULT);
	assert_int_equal(client_reply(t->b, tag, NULL), CFS_E_GRACE);
	/* the connection goes: nobody waits any more, and nothing is granted */
	client_disconnect(t->b, CFS_ROLE_WORKER);
	client_connect(t->b, CFS_ROLE_WORKER);
	shard_test_yield(t->a, CFS_BRK_DATA, 0);
	assert_int_equal(client_open(t->a, ino, CFS_LEASE_EXCL, 0, &o), 0);
	client_no_break(t->b);
	assert_int_equal(client_call(t->a, 200, -1, NULL, 0, NULL, 0), CFS_E_PROTO);
	assert_int_equal(client_call(t->a, CFS_OP_OPEN, -1, t->buf, 3, NULL, 0), CFS_E_PROTO);
	assert_int_equal(client_call(t->a, CFS_OP_LEASE_RETURN, -1, t->buf, 3, NULL, 0), CFS_E_PROTO);
	assert_int_equal(client_call(t->a, CFS_OP_LOCK, 0, t->buf, 3, NULL, 0), CFS_E_PROTO);
}

static void test_json(void **state)
{
	struct shard_test *t = *state;
	char buf[4096];
	int n = cfs_shard_json(t->w->shard, buf, sizeof(buf));

	assert_int_equal(n, strlen(buf));
	assert_non_null(strstr(buf, "\"name\":\"a\""));
	assert_non_null(strstr(buf, "\"name\":\"c\""));
	assert_non_null(strstr(buf, "\"sessions_left_out\":0}"));
	/* too small for all: whole sessions are left out, and counted */
	n = cfs_shard_json(t->w->shard, buf, (size_t)n - 20);
	assert_true(n > 0);
	assert_null(strstr(buf, "\"sessions_left_out\":0}"));
	assert_int_equal(buf[n - 1], '}');
	assert_int_equal(cfs_shard_json(t->w->shard, buf, 100), -ENOSPC);
}

int main(int argc, char **argv)
{
	if (argc > 1) /* one test by name */
		cmocka_set_test_filter(argv[1]);
#define T(f) cmocka_unit_test_setup_teardown(f, shard_test_setup, shard_test_teardown)
	const struct CMUnitTest tests[] = {
		T(test_sessions), T(test_slots), T(test_batch), T(test_log_busy), T(test_valid_bits),
		T(test_readdir), T(test_storm), T(test_many_items), T(test_rmdir), T(test_space),
		T(test_dead_objects), T(test_bounds), T(test_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
