/* SPDX-License-Identifier: MIT */
/*
 * Proves of the shard leader, story by story, what docs/leases.md promises: replies only after recalls are answered
 * or their sessions fenced, flushes that pass whoever waits for them, exactly-once slots across connections and
 * leaders, orphans, locks, questions, and that none of the waits named there can close a circle.
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

/* ---- the ten stories ------------------------------------------------------------------------------------ */
/* 1: both hold the directory, both change it */
static void test_cross_mutations(void **state)
{
	struct shard_test *t = *state;
	struct cfs_entry_rep e;
	uint64_t ta, tb;
	struct brk ba, bb;

	client_lookup(t->a, ROOT, "x", &e);
	client_lookup(t->b, ROOT, "x", &e);
	ta = client_send(t->a, CFS_OP_MKNODE, 0, t->buf, body_mknode(t->buf, ROOT, "x", REG, 0));
	tb = client_send(t->b, CFS_OP_MKNODE, 0, t->buf, body_mknode(t->buf, ROOT, "y", REG, 0));
	/* each is asked to forget what the other changes, while its own waits */
	client_break(t->a, &ba);
	client_break(t->b, &bb);
	assert_string_equal(ba.items[0].name, "y");
	assert_string_equal(bb.items[0].name, "x");
	client_answer(t->a, &ba, 0);
	assert_int_equal(client_reply(t->b, tb, NULL), 0);
	client_no_reply(t->a);
	client_answer(t->b, &bb, 0);
	assert_int_equal(client_reply(t->a, ta, NULL), 0);

	/* the same name: the second one waits for the first one's key, and sees its result */
	client_lookup(t->c, ROOT, "z", &e);
	ta = client_send(t->a, CFS_OP_MKNODE, 0, t->buf, body_mknode(t->buf, ROOT, "z", REG, 0));
	client_break(t->b, &bb);
	client_break(t->c, &ba);
	tb = client_send(t->b, CFS_OP_MKNODE, 0, t->buf, body_mknode(t->buf, ROOT, "z", REG, 0));
	client_no_break(t->a);
	client_answer(t->c, &ba, 0);
	client_answer(t->b, &bb, 0);
	assert_int_equal(client_reply(t->a, ta, NULL), 0);
	assert_int_equal(client_reply(t->b, tb, NULL), EEXIST);
	assert_int_equal(shard_test_stat(t).waits, 1);
}

/* 2: a lookup never waits, not even for what is being changed */
static void test_lookup_never_waits(void **state)
{
	struct shard_test *t = *state;
	struct cfs_entry_rep e;
	struct cfs_attr_rep a;
	struct brk b;
	uint64_t tag;

	client_create(t->a, ROOT, "f", REG, 0, NULL);
	client_lookup(t->b, ROOT, "f", &e);
	tag = client_send(t->a, CFS_OP_UNLINK, 0, t->buf, body_unlink(t->buf, ROOT, "f", false, 0, false));
	client_break(t->b, &b);
	/* b's kernel holds the directory for this lookup; its invalidation comes after it */
	assert_int_equal(client_lookup(t->b, ROOT, "f", &e), 0);
	assert_int_equal(le32(e.valid), 0);
	assert_int_equal(client_getattr(t->b, cfs_le64_to_cpu(e.attr.ino), &a), 0);
	assert_int_equal(le32(a.valid), 0);
	client_answer(t->b, &b, 0);
	assert_int_equal(client_reply(t->a, tag, NULL), 0);
}

/* bytes that go to the file's end, wherever that is */
static size_t body_patch(void *buf, uint64_t ino, const char *data, uint64_t off, uint32_t flags)
{
	struct cfs_commit_req q = { .n = cfs_cpu_to_le32(1) };
	struct cfs_commit_item it = { .ino = cfs_cpu_to_le64(ino), .size = cfs_cpu_to_le64(off),
				      .flags = cfs_cpu_to_le32(CFS_CI_PATCH | flags),
				      .inline_len = cfs_cpu_to_le32((uint32_t)strlen(data)) };
	char *p = buf;

	memcpy(p, &q, sizeof(q));
	memcpy(p + sizeof(q), &it, sizeof(it));
	memcpy(p + sizeof(q) + sizeof(it), data, strlen(data));
	return sizeof(q) + sizeof(it) + strlen(data);
}

struct patched {
	struct cfs_commit_rep head;
	struct cfs_commit_result res;
};

/* makes a file contended: it is passed on until the leader has had enough. Held exclusively by `a` then */
static uint64_t contend(struct shard_test *t)
{
	uint64_t ino = client_create(t->a, ROOT, "f", REG, CFS_MK_LEASE, NULL), tag;

	for (unsigned i = 0; i < 6; i++) {
		struct client *wants = i % 2 ? t->a : t->b;
		struct fake_sent *m;
		struct cfs_open_rep o;

		tag = client_send(wants, CFS_OP_OPEN, -1, t->buf, body_open(t->buf, ino, CFS_LEASE_EXCL, CFS_OPEN_KEEP));
		world_answer_all(t->w, CFS_BRKR_OPEN);
		assert_int_equal(client_reply(wants, tag, &m), 0);
		memcpy(&o, m->body, sizeof(o));
		assert_int_equal(le32(o.lease), CFS_LEASE_EXCL);
		fake_sent_free(m);
	}
	return ino;
}

/* contended: begin, while it lasts, end (docs/leases.md, "Contended files") */
static void test_contended(void **state)
{
	struct shard_test *t = *state;
	struct cfs_open_rep o;
	struct cfs_attr_rep a;
	struct cfs_entry_rep e;
	struct patched r;
	struct fake_sent *m;
	uint64_t ino = contend(t), tag, tag2;
	struct brk b, b2;

	client_lookup(t->b, ROOT, "f", &e);
	client_lookup(t->c, ROOT, "f", &e);
	/* who cannot write through gets the lease as ever; who can is told, when the holder has flushed */
	tag = client_send(t->b, CFS_OP_OPEN, -1, t->buf, body_open(t->buf, ino, CFS_LEASE_EXCL, CFS_OPEN_KEEP | CFS_OPEN_THROUGH));
	client_no_reply(t->b);
	/* attributes leave all directory leases, the requester's own as well */
	shard_test_yield(t->b, CFS_BRK_ATTR, 0);
	shard_test_yield(t->c, CFS_BRK_ATTR, 0);
	client_break(t->a, &b);
	assert_true(b.items[0].flags & CFS_BRK_DATA);
	assert_int_equal(client_call(t->a, CFS_OP_COMMIT, 0, t->buf, body_commit(t->buf, ino, "hello"), NULL, 0), 0);
	client_answer(t->a, &b, CFS_BRKR_OPEN);
	assert_int_equal(client_reply(t->b, tag, &m), 0);
	memcpy(&o, m->body, sizeof(o));
	fake_sent_free(m);
	assert_int_equal(le32(o.lease), CFS_LEASE_NONE);
	assert_int_equal(le32(o.valid), CFS_V_CONTENDED);
	/* nobody keeps its attributes, and no COMMIT asks anybody to forget them; each gets its place */
	client_getattr(t->c, ino, &a);
	assert_int_equal(le32(a.valid), 0);
	assert_int_equal(client_call(t->b, CFS_OP_COMMIT, 0, t->buf, body_patch(t->buf, ino, " you", 0, CFS_CI_APPEND), &r, sizeof(r)), 0);
	assert_int_equal(le32(r.res.status), 0);
	assert_int_equal(cfs_le64_to_cpu(r.res.off), 5);
	assert_int_equal(le32(r.res.flags), CFS_CR_CONTENDED);
	client_no_break(t->a);
	client_no_break(t->c);
	/* the next one is told at once */
	client_open(t->a, ino, CFS_LEASE_EXCL, CFS_OPEN_KEEP | CFS_OPEN_THROUGH, &o);
	assert_int_equal(le32(o.valid), CFS_V_CONTENDED);
	/* who reads holds a shared lease: that is recalled, and the answer is waited for */
	client_open(t->c, ino, CFS_LEASE_SHARED, 0, &o);
	assert_int_equal(le32(o.lease), CFS_LEASE_SHARED);
	tag = client_send(t->a, CFS_OP_COMMIT, 0, t->buf, body_patch(t->buf, ino, "J", 0, 0));
	tag2 = client_send(t->b, CFS_OP_COMMIT, 0, t->buf, body_patch(t->buf, ino, "!", 0, CFS_CI_APPEND));
	client_break(t->c, &b);
	client_break(t->c, &b2);	/* each of them asks, neither waits for the other */
	client_no_reply(t->a);
	client_no_reply(t->b);
	client_answer(t->c, &b2, 0);
	assert_int_equal(client_reply(t->b, tag2, NULL), 0);
	client_answer(t->c, &b, 0);
	assert_int_equal(client_reply(t->a, tag, NULL), 0);
	client_open(t->c, ino, CFS_LEASE_SHARED, 0, &o);
	assert_int_equal(cfs_le64_to_cpu(o.attr.size), 10);
	/* one session alone, for a second: it is over */
	tag = client_send(t->a, CFS_OP_COMMIT, 0, t->buf, body_patch(t->buf, ino, "K", 0, 0));
	shard_test_yield(t->c, CFS_BRK_DATA, 0);
	assert_int_equal(client_reply(t->a, tag, NULL), 0);
	fake_clock_advance_ms(&t->w->clock, 600);
	client_call(t->a, CFS_OP_COMMIT, 0, t->buf, body_patch(t->buf, ino, "L", 0, 0), &r, sizeof(r));
	assert_int_equal(le32(r.res.flags), CFS_CR_CONTENDED);
	fake_clock_advance_ms(&t->w->clock, 600);
	tag = client_send(t->a, CFS_OP_COMMIT, 0, t->buf, body_patch(t->buf, ino, "M", 0, 0));
	client_no_reply(t->a);	/* attributes are in directory leases again, for all that is known */
	world_answer_all(t->w, 0);
	assert_int_equal(client_reply(t->a, tag, &m), 0);
	memcpy(&r, m->body, sizeof(r));
	fake_sent_free(m);
	assert_int_equal(le32(r.res.flags), 0);
	tag = client_send(t->a, CFS_OP_OPEN, -1, t->buf, body_open(t->buf, ino, CFS_LEASE_EXCL, CFS_OPEN_KEEP | CFS_OPEN_THROUGH));
	world_answer_all(t->w, 0);
	assert_int_equal(client_reply(t->a, tag, &m), 0);
	memcpy(&o, m->body, sizeof(o));
	fake_sent_free(m);
	assert_int_equal(le32(o.lease), CFS_LEASE_EXCL);
	assert_int_equal(le32(o.valid) & CFS_V_CONTENDED, 0);
}

/* while it is written through the lease is granted all the same to who needs it: then attributes are anybody's again */
static void test_contended_lease(void **state)
{
	struct shard_test *t = *state;
	uint64_t ino = contend(t), tag;
	struct cfs_open_rep o;
	struct cfs_attr_rep a;
	struct patched r;

	tag = client_send(t->b, CFS_OP_OPEN, -1, t->buf, body_open(t->buf, ino, CFS_LEASE_EXCL, CFS_OPEN_THROUGH));
	world_answer_all(t->w, CFS_BRKR_OPEN);
	assert_int_equal(client_reply(t->b, tag, NULL), 0);
	client_open(t->a, ino, CFS_LEASE_EXCL, CFS_OPEN_KEEP, &o);
	assert_int_equal(le32(o.lease), CFS_LEASE_EXCL);
	/* and lowered for a reader, with attributes that a directory's lease covers; the next COMMIT must ask for them */
	tag = client_send(t->c, CFS_OP_OPEN, -1, t->buf, body_open(t->buf, ino, CFS_LEASE_SHARED, 0));
	shard_test_yield(t->a, CFS_BRK_DATA, CFS_BRKR_OPEN);
	assert_int_equal(client_reply(t->c, tag, NULL), 0);
	client_getattr(t->a, ino, &a);
	assert_int_equal(le32(a.valid), CFS_V_ATTR);
	tag = client_send(t->b, CFS_OP_COMMIT, 0, t->buf, body_patch(t->buf, ino, "x", 0, 0));
	client_no_reply(t->b);
	shard_test_yield(t->a, CFS_BRK_DATA | CFS_BRK_ATTR, CFS_BRKR_OPEN);
	world_answer_all(t->w, 0);
	{
		struct fake_sent *m;

		assert_int_equal(client_reply(t->b, tag, &m), 0);
		memcpy(&r, m->body, sizeof(r));
		fake_sent_free(m);
	}
	assert_int_equal(le32(r.res.flags), 0);
}

/* 3: who is recalled flushes first, past the requests that wait for that flush */
static void test_flush_under_recall(void **state)
{
	struct shard_test *t = *state;
	uint64_t ino, other, tag, tag2, tag3, flush;
	struct cfs_open_rep o;
	struct cfs_attr_rep a;
	struct fake_sent *m;
	struct brk b, b2;

	ino = client_create(t->a, ROOT, "f", REG, CFS_MK_LEASE, NULL);
	/* OPEN shared: the holder flushes and keeps a shared lease */
	tag = client_send(t->b, CFS_OP_OPEN, -1, t->buf, body_open(t->buf, ino, CFS_LEASE_SHARED, 0));
	client_break(t->a, &b);
	assert_int_equal(b.items[0].flags, CFS_BRK_DATA);
	assert_int_equal(b.items[0].item.to_mode, CFS_LEASE_SHARED);
	client_no_reply(t->b);
	assert_int_equal(client_call(t->a, CFS_OP_COMMIT, 0, t->buf, body_commit(t->buf, ino, "hello"), NULL, 0), 0);
	client_answer(t->a, &b, CFS_BRKR_OPEN);
	assert_int_equal(client_reply(t->b, tag, &m), 0);
	memcpy(&o, m->body, sizeof(o));
	assert_int_equal(le32(o.lease), CFS_LEASE_SHARED);
	assert_int_equal(cfs_le64_to_cpu(o.attr.size), 5);
	assert_int_equal(le32(o.inline_len), 5);
	assert_memory_equal(m->body + sizeof(o), "hello", 5);
	fake_sent_free(m);

	/* TRUNCATE by another holds the inode's key while it waits; a second one queues; the flush passes both */
	ino = client_create(t->a, ROOT, "g", REG, CFS_MK_LEASE, NULL);
	other = client_create(t->a, ROOT, "h", REG, CFS_MK_LEASE, NULL);
	tag = client_send(t->b, CFS_OP_SETATTR, 0, t->buf, body_truncate(t->buf, ino, 2));
	client_break(t->a, &b);
	assert_true(b.items[0].flags & CFS_BRK_DATA);
	assert_int_equal(b.items[0].item.to_mode, CFS_LEASE_NONE);
	tag2 = client_send(t->c, CFS_OP_SETATTR, 0, t->buf, body_truncate(t->buf, ino, 1));
	assert_int_equal(client_call(t->a, CFS_OP_COMMIT, 0, t->buf, body_commit(t->buf, ino, "hello"), NULL, 0), 0);
	client_no_reply(t->b);
	client_answer(t->a, &b, 0);
	assert_int_equal(client_reply(t->b, tag, NULL), 0);
	shard_test_yield(t->a, CFS_BRK_ATTR, 0); /* under the directory's lease */
	assert_int_equal(client_reply(t->c, tag2, NULL), 0);
	assert_int_equal(client_getattr(t->a, ino, &a), 0);
	assert_int_equal(cfs_le64_to_cpu(a.attr.size), 1);

	/* a flush that came before its recall, and waits behind b's request, is let go when the recall is sent */
	t->w->manual = true;
	tag = client_send(t->b, CFS_OP_SETATTR, 0, t->buf, body_chmod(t->buf, other, 0600));
	client_break(t->a, &b); /* attributes: a holds it exclusively */
	assert_int_equal(b.items[0].flags, CFS_BRK_ATTR);
	flush = client_send(t->a, CFS_OP_COMMIT, 0, t->buf, body_commit(t->buf, other, "data"));
	assert_int_equal(t->w->log.n, 0); /* waits for b's chmod, which waits for a */
	tag3 = client_send(t->c, CFS_OP_OPEN, -1, t->buf, body_open(t->buf, other, CFS_LEASE_SHARED, 0));
	client_break(t->a, &b2);
	assert_int_equal(t->w->log.n, 1);
	fake_log_commit_all(&t->w->log);
	assert_int_equal(client_reply(t->a, flush, NULL), 0);
	client_answer(t->a, &b2, 0);
	client_no_reply(t->c); /* b's chmod is under way */
	client_answer(t->a, &b, 0);
	fake_log_commit_all(&t->w->log);
	assert_int_equal(client_reply(t->b, tag, NULL), 0);
	assert_int_equal(client_reply(t->c, tag3, NULL), 0);
}

/* 4: two want it exclusively at once, and a third to read */
static void test_open_crossing(void **state)
{
	struct shard_test *t = *state;
	uint64_t ino = client_create(t->a, ROOT, "f", REG, 0, NULL), ta, tb, tc;
	struct cfs_entry_rep e;
	struct cfs_open_rep o;
	struct fake_sent *m;
	struct brk b;

	assert_int_equal(client_lookup(t->b, ROOT, "f", &e), 0);
	assert_int_equal(client_open(t->a, ino, CFS_LEASE_SHARED, 0, &o), 0);
	assert_int_equal(client_open(t->b, ino, CFS_LEASE_SHARED, 0, &o), 0);
	assert_int_equal(le32(o.valid), CFS_V_ATTR);
	ta = client_send(t->a, CFS_OP_OPEN, -1, t->buf, body_open(t->buf, ino, CFS_LEASE_EXCL, 0));
	tb = client_send(t->b, CFS_OP_OPEN, -1, t->buf, body_open(t->buf, ino, CFS_LEASE_EXCL, 0));
	tc = client_send(t->c, CFS_OP_OPEN, -1, t->buf, body_open(t->buf, ino, CFS_LEASE_SHARED, 0));
	client_no_break(t->a);
	client_break(t->b, &b); /* data, and the attributes it has under the directory's lease */
	assert_int_equal(b.n, 1);
	assert_int_equal(b.items[0].flags, CFS_BRK_DATA | CFS_BRK_ATTR);
	/* with it taken out, nobody gets the attributes back while the request is under way */
	assert_int_equal(client_lookup(t->c, ROOT, "f", &e), 0);
	assert_int_equal(le32(e.valid), CFS_V_ENTRY);
	client_answer(t->b, &b, 0);
	assert_int_equal(client_reply(t->a, ta, &m), 0);
	memcpy(&o, m->body, sizeof(o));
	fake_sent_free(m);
	assert_int_equal(le32(o.lease), CFS_LEASE_EXCL);
	/* b is next: a must give up all of it */
	client_no_reply(t->b);
	client_break(t->a, &b);
	assert_true(b.items[0].flags & CFS_BRK_DATA);
	assert_int_equal(b.items[0].item.to_mode, CFS_LEASE_NONE);
	client_answer(t->a, &b, 0);
	client_break(t->c, &b); /* c has the directory's lease since its lookup */
	assert_int_equal(b.items[0].flags, CFS_BRK_ATTR);
	client_answer(t->c, &b, 0);
	assert_int_equal(client_reply(t->b, tb, NULL), 0);
	/* then c */
	shard_test_yield(t->b, CFS_BRK_DATA, 0);
	assert_int_equal(client_reply(t->c, tc, NULL), 0);
	/* an opener that has enough is answered at once, and what it holds is what it is told */
	assert_int_equal(client_open(t->b, ino, CFS_LEASE_SHARED, CFS_OPEN_KEEP, &o), 0);
	assert_int_equal(le32(o.lease), CFS_LEASE_SHARED);
	assert_int_equal(client_call(t->b, CFS_OP_LEASE_RETURN, -1, t->buf, body_lease(t->buf, ino, 0, 0, 0), NULL, 0), 0);
	assert_int_equal(client_call(t->c, CFS_OP_LEASE_RETURN, -1, t->buf, body_lease(t->buf, ino, 0, 0, 0), NULL, 0), 0);
	assert_int_equal(shard_test_stat(t).file_leases, 0);
}

/* 5: a session dies while it is asked: fenced at its deadline, not before, and the request goes on */
static void test_fenced(void **state)
{
	struct shard_test *t = *state;
	struct cfs_entry_rep e;
	uint64_t tag;

	client_lookup(t->b, ROOT, "x", &e);
	fake_clock_advance_ms(&t->w->clock, 2000);
	client_heartbeat(t->b);
	tag = client_send(t->a, CFS_OP_MKNODE, 0, t->buf, body_mknode(t->buf, ROOT, "x", REG, 0));
	client_disconnect(t->b, CFS_ROLE_WORKER);
	client_disconnect(t->b, CFS_ROLE_CALLBACK);
	for (unsigned i = 0; i < 4; i++) {
		fake_clock_advance_ms(&t->w->clock, 2500);
		client_heartbeat(t->a);
		world_settle(t->w);
		client_no_reply(t->a);
	}
	assert_int_equal(shard_test_stat(t).fenced, 0); /* 10.0 s after its heartbeat: clocks may differ by a little */
	fake_clock_advance_ms(&t->w->clock, 600);
	world_settle(t->w);
	assert_int_equal(shard_test_stat(t).fenced, 1);
	assert_int_equal(client_reply(t->a, tag, NULL), 0);
	assert_false(cfs_meta_session_exists(t->w->meta, t->b->id));
	client_connect(t->b, CFS_ROLE_WORKER);
	assert_int_equal(client_lookup(t->b, ROOT, "x", &e), CFS_E_BADSESSION);
	client_connect(t->b, CFS_ROLE_CALLBACK);
}

/* it lives and renews, but does not let go: its heartbeats are not answered, and then it is as if it were dead */
static void test_fenced_alive(void **state)
{
	struct shard_test *t = *state;
	struct cfs_entry_rep e;
	uint64_t tag;
	unsigned ms;

	client_lookup(t->b, ROOT, "x", &e);
	client_heartbeat(t->b);
	tag = client_send(t->a, CFS_OP_MKNODE, 0, t->buf, body_mknode(t->buf, ROOT, "x", REG, 0));
	fake_sent_free(fake_conn_take(t->b->cb));
	for (ms = 0; ms < 30000 && !t->a->worker->n_sent; ms += 2500) {
		client_heartbeat(t->a);
		client_send_cb(t->b, CFS_OP_HEARTBEAT, NULL, 0);
		fake_clock_advance_ms(&t->w->clock, 2500);
		world_settle(t->w);
	}
	/* renewed last at 5 s */
	assert_in_range(ms, 15000, 17500);
	assert_int_equal(shard_test_stat(t).fenced, 1);
	assert_int_equal(client_reply(t->a, tag, NULL), 0);
	while (t->b->cb->n_sent)
		fake_sent_free(fake_conn_take(t->b->cb));
	/* and c, of whom nobody wants anything, after six more lease times */
	assert_int_equal(shard_test_stat(t).sessions, 2);
	for (unsigned i = 0; i < 30; i++) {
		client_heartbeat(t->a);
		fake_clock_advance_ms(&t->w->clock, 2500);
		world_settle(t->w);
	}
	assert_int_equal(shard_test_stat(t).sessions, 1);
}

/* a recall survives its connection; a flush keeps it alive, though not for ever */
static void test_recall_resent(void **state)
{
	struct shard_test *t = *state;
	uint64_t ino = client_create(t->a, ROOT, "f", REG, CFS_MK_LEASE, NULL), tag, first;
	struct brk b;

	tag = client_send(t->b, CFS_OP_OPEN, -1, t->buf, body_open(t->buf, ino, CFS_LEASE_EXCL, 0));
	client_break(t->a, &b);
	first = b.msg->hdr.tag;
	fake_sent_free(b.msg);
	client_disconnect(t->a, CFS_ROLE_CALLBACK);
	client_connect(t->a, CFS_ROLE_CALLBACK);
	client_break(t->a, &b);
	assert_int_equal(b.msg->hdr.tag, first);
	/* 20 s of flushing: heartbeats stay answered, nobody is fenced */
	for (unsigned i = 0; i < 10; i++) {
		fake_clock_advance_ms(&t->w->clock, 2000);
		client_heartbeat(t->a);
		client_heartbeat(t->b);
		assert_int_equal(client_call(t->a, CFS_OP_COMMIT, 0, t->buf, body_commit(t->buf, ino, "x"), NULL, 0), 0);
	}
	client_no_reply(t->b);
	client_answer(t->a, &b, 0);
	assert_int_equal(client_reply(t->b, tag, NULL), 0);
	assert_int_equal(shard_test_stat(t).fenced, 0);
	/* the next one takes more than 60 s: no */
	tag = client_send(t->a, CFS_OP_OPEN, -1, t->buf, body_open(t->buf, ino, CFS_LEASE_EXCL, 0));
	for (unsigned i = 0; i < 40; i++) {
		fake_clock_advance_ms(&t->w->clock, 2000);
		client_heartbeat(t->a);
		client_send_cb(t->b, CFS_OP_HEARTBEAT, NULL, 0);
		client_send(t->b, CFS_OP_COMMIT, 0, t->buf, body_commit(t->buf, ino, "x"));
		world_settle(t->w);
		if (i < 33)
			client_no_reply(t->a);
	}
	assert_int_equal(client_reply(t->a, tag, NULL), 0);
	assert_int_equal(shard_test_stat(t).fenced, 2); /* b, and c, who was silent for so long */
}

/* 6: the reply is lost with its connection; the repeat is not a second request */
static void test_lost_reply(void **state)
{
	struct shard_test *t = *state;
	size_t len = body_mknode(t->buf, ROOT, "f", REG, CFS_MK_LEASE);
	struct cfs_entry_rep e;
	struct fake_sent *m;
	uint64_t tag;

	t->w->manual = true;
	client_send(t->a, CFS_OP_MKNODE, 0, t->buf, len);
	/* repeated while in progress: answered once, on the new connection */
	client_connect(t->a, CFS_ROLE_WORKER);
	tag = client_repeat(t->a, CFS_OP_MKNODE, 0, t->buf, len);
	assert_int_equal(t->w->log.n, 1);
	fake_log_commit_all(&t->w->log);
	assert_int_equal(client_reply(t->a, tag, &m), 0);
	memcpy(&e, m->body, sizeof(e));
	fake_sent_free(m);
	assert_int_equal(le32(e.lease), CFS_LEASE_EXCL);
	client_no_reply(t->a);
	/* repeated after it was applied: from the slot, and the lease is as it is now */
	client_connect(t->a, CFS_ROLE_WORKER);
	tag = client_repeat(t->a, CFS_OP_MKNODE, 0, t->buf, len);
	assert_int_equal(client_reply(t->a, tag, &m), 0);
	assert_int_equal(((struct cfs_entry_rep *)(void *)m->body)->attr.ino, e.attr.ino);
	assert_int_equal(le32(((struct cfs_entry_rep *)(void *)m->body)->lease), CFS_LEASE_EXCL);
	fake_sent_free(m);
	assert_int_equal(t->w->log.n, 0);
	/* applied with no connection at all */
	len = body_unlink(t->buf, ROOT, "f", false, cfs_le64_to_cpu(e.attr.ino), false);
	client_send(t->a, CFS_OP_UNLINK, 1, t->buf, len);
	client_disconnect(t->a, CFS_ROLE_WORKER);
	fake_log_commit_all(&t->w->log);
	client_connect(t->a, CFS_ROLE_WORKER);
	tag = client_repeat(t->a, CFS_OP_UNLINK, 1, t->buf, len);
	assert_int_equal(client_reply(t->a, tag, NULL), 0);
}

/* 7: leadership goes with requests in every state; the new leader waits for who was there */
static void test_new_leader(void **state)
{
	struct shard_test *t = *state;
	uint64_t ino = client_create(t->a, ROOT, "f", REG, CFS_MK_LEASE, NULL), t1, t2, t3, t4;
	struct cfs_entry_rep e;
	struct cfs_lease_list list;
	struct cfs_lease_item item;
	struct fake_sent *m;

	client_lookup(t->b, ROOT, "none", &e);
	t->w->manual = true;
	t1 = client_send(t->b, CFS_OP_OPEN, -1, t->buf, body_open(t->buf, ino, CFS_LEASE_EXCL, 0)); /* recall */
	t2 = client_send(t->c, CFS_OP_OPEN, -1, t->buf, body_open(t->buf, ino, CFS_LEASE_SHARED, 0)); /* queue */
	t3 = client_send(t->a, CFS_OP_MKNODE, 0, t->buf, body_mknode(t->buf, ROOT, "new", REG, 0)); /* recall of b */
	t4 = client_send(t->a, CFS_OP_MKNODE, 1, t->buf, body_mknode(t->buf, ROOT, "new", DIR, 0)); /* key */
	assert_int_equal(shard_test_stat(t).waits, 1);
	cfs_shard_lost_leadership(t->w->shard);
	assert_int_equal(client_reply(t->b, t1, NULL), CFS_E_NOTLEADER);
	assert_int_equal(client_reply(t->c, t2, NULL), CFS_E_NOTLEADER);
	assert_int_equal(client_reply(t->a, t3, NULL), CFS_E_NOTLEADER);
	assert_int_equal(client_reply(t->a, t4, NULL), CFS_E_NOTLEADER);
	assert_int_equal(client_lookup(t->a, ROOT, "f", &e), CFS_E_NOTLEADER);
	assert_int_equal(shard_test_stat(t).file_leases + shard_test_stat(t).dir_leases, 0);

	fake_sent_free(fake_conn_take(t->a->cb));
	fake_sent_free(fake_conn_take(t->b->cb));
	cfs_shard_become_leader(t->w->shard, ++t->w->term);
	assert_int_equal(client_lookup(t->a, ROOT, "f", &e), CFS_E_GRACE); /* its first entry is not applied */
	assert_false(cfs_shard_session_gone(t->w->shard, 4711));
	fake_log_commit_all(&t->w->log);
	t->w->manual = false;
	assert_int_equal(client_lookup(t->a, ROOT, "f", &e), CFS_E_GRACE);
	assert_true(cfs_shard_session_gone(t->w->shard, 4711));
	assert_false(cfs_shard_session_gone(t->w->shard, t->a->id));
	client_heartbeat(t->a);
	t1 = client_send(t->a, CFS_OP_RECLAIM, -1, t->buf, body_lease(t->buf, ino, CFS_LEASE_EXCL, 1, 0));
	assert_int_equal(client_reply(t->a, t1, &m), 0);
	assert_int_equal(m->body_len, sizeof(list) + sizeof(item));
	memcpy(&item, m->body + sizeof(list), sizeof(item));
	fake_sent_free(m);
	assert_int_equal(item.mode, CFS_LEASE_EXCL);
	/* b claims the same: no */
	t1 = client_send(t->b, CFS_OP_RECLAIM, -1, t->buf, body_lease(t->buf, ino, CFS_LEASE_SHARED, 0, CFS_RECLAIM_LAST));
	assert_int_equal(client_reply(t->b, t1, &m), 0);
	memcpy(&item, m->body + sizeof(list), sizeof(item));
	fake_sent_free(m);
	assert_int_equal(item.mode, CFS_LEASE_NONE);
	assert_int_equal(client_call(t->a, CFS_OP_RECLAIM, -1, t->buf, body_lease(t->buf, 0, 0, 0, CFS_RECLAIM_LAST), NULL, 0), 0);
	assert_int_equal(client_lookup(t->a, ROOT, "f", &e), CFS_E_GRACE); /* c has not come */
	assert_true(shard_test_stat(t).grace);
	assert_int_equal(client_call(t->c, CFS_OP_RECLAIM, -1, t->buf, body_lease(t->buf, 0, 0, 0, CFS_RECLAIM_LAST), NULL, 0), 0);
	assert_false(shard_test_stat(t).grace);
	assert_int_equal(client_lookup(t->a, ROOT, "f", &e), 0);
	assert_int_equal(le32(e.lease), CFS_LEASE_EXCL);
	/* what was unanswered is repeated as it was, and done once */
	t3 = client_repeat(t->a, CFS_OP_MKNODE, 0, t->buf, body_mknode(t->buf, ROOT, "new", REG, 0));
	assert_int_equal(client_reply(t->a, t3, NULL), 0);

	/* applied by the old leader, answered by the new one; and grace ends by time when b and c do not come */
	t->w->manual = true;
	client_send(t->a, CFS_OP_MKNODE, 2, t->buf, body_mknode(t->buf, ROOT, "late", REG, CFS_MK_LEASE));
	cfs_shard_lost_leadership(t->w->shard);
	fake_log_commit_all(&t->w->log);
	while (t->a->worker->n_sent)
		fake_sent_free(fake_conn_take(t->a->worker));
	cfs_shard_become_leader(t->w->shard, ++t->w->term);
	t->w->manual = false;
	world_settle(t->w);
	client_call(t->a, CFS_OP_RECLAIM, -1, t->buf, body_lease(t->buf, 0, 0, 0, CFS_RECLAIM_LAST), NULL, 0);
	fake_clock_advance_ms(&t->w->clock, WORLD_LEASE_MS);
	client_heartbeat(t->a);
	assert_true(shard_test_stat(t).grace);
	fake_clock_advance_ms(&t->w->clock, 1500);
	assert_false(shard_test_stat(t).grace);
	t3 = client_repeat(t->a, CFS_OP_MKNODE, 2, t->buf, body_mknode(t->buf, ROOT, "late", REG, CFS_MK_LEASE));
	assert_int_equal(client_reply(t->a, t3, &m), 0);
	assert_int_equal(le32(((struct cfs_entry_rep *)(void *)m->body)->lease), CFS_LEASE_NONE);
	fake_sent_free(m);
	/* a lease that is claimed too late is gone */
	t1 = client_send(t->b, CFS_OP_RECLAIM, -1, t->buf, body_lease(t->buf, ino, CFS_LEASE_SHARED, 0, CFS_RECLAIM_LAST));
	assert_int_equal(client_reply(t->b, t1, &m), 0);
	memcpy(&item, m->body + sizeof(list), sizeof(item));
	fake_sent_free(m);
	assert_int_equal(item.mode, CFS_LEASE_NONE);
}

/* 8: unlinked while open elsewhere */
static void test_orphan(void **state)
{
	struct shard_test *t = *state;
	uint64_t ino = client_create(t->a, ROOT, "f", REG, CFS_MK_LEASE, NULL), tag;
	struct cfs_release_req rel = { .n = cfs_cpu_to_le32(1) };
	struct cfs_unlink_rep u;
	struct cfs_attr_rep a;
	struct cfs_open_rep o;
	struct fake_sent *m;
	struct brk b;

	/* c has it open without a lease, b a lease without having it open */
	assert_int_equal(client_open(t->c, ino, CFS_LEASE_NONE, CFS_OPEN_KEEP, &o), 0);
	tag = client_send(t->b, CFS_OP_OPEN, -1, t->buf, body_open(t->buf, ino, CFS_LEASE_SHARED, 0));
	shard_test_yield(t->a, CFS_BRK_DATA, CFS_BRKR_OPEN);
	assert_int_equal(client_reply(t->b, tag, NULL), 0);
	/* a unlinks it, and says it has it open */
	tag = client_send(t->a, CFS_OP_UNLINK, 0, t->buf, body_unlink(t->buf, ROOT, "f", false, ino, true));
	client_break(t->c, &b);
	assert_true(b.items[b.n - 1].flags & CFS_BRK_UNLINK);
	client_answer(t->c, &b, CFS_BRKR_OPEN);
	client_no_reply(t->a);
	client_break(t->b, &b);
	assert_true(b.items[b.n - 1].flags & CFS_BRK_UNLINK);
	client_answer(t->b, &b, 0);
	assert_int_equal(client_reply(t->a, tag, &m), 0);
	memcpy(&u, m->body, sizeof(u));
	fake_sent_free(m);
	assert_int_equal(le32(u.orphan), 1);
	assert_int_equal(le32(u.attr.nlink), 0);
	/* still there for a and c; b's lease is only that */
	assert_int_equal(client_call(t->b, CFS_OP_LEASE_RETURN, -1, t->buf, body_lease(t->buf, ino, 0, 0, 0), NULL, 0), 0);
	assert_int_equal(client_getattr(t->c, ino, &a), 0);
	assert_int_equal(le32(a.lease), CFS_LEASE_SHARED); /* what governs it now */
	tag = client_send(t->a, CFS_OP_COMMIT, 0, t->buf, body_commit(t->buf, ino, "still here"));
	shard_test_yield(t->c, CFS_BRK_ATTR | CFS_BRK_DATA, CFS_BRKR_OPEN);
	assert_int_equal(client_reply(t->a, tag, NULL), 0);
	memcpy(t->buf, &rel, sizeof(rel));
	memcpy(t->buf + sizeof(rel), &(cfs_le64){ cfs_cpu_to_le64(ino) }, 8);
	assert_int_equal(client_call(t->a, CFS_OP_RELEASE, 0, t->buf, sizeof(rel) + 8, NULL, 0), 0);
	assert_int_equal(client_getattr(t->c, ino, &a), 0);
	/* the last one ends with its session */
	assert_int_equal(client_call(t->c, CFS_OP_SESSION_CLOSE, -1, NULL, 0, NULL, 0), 0);
	assert_int_equal(client_getattr(t->a, ino, &a), ENOENT);
	assert_int_equal(shard_test_stat(t).file_leases, 0);

	/* nobody has it open: gone at once, and the requester knows best */
	ino = client_create(t->a, ROOT, "g", REG, CFS_MK_LEASE, NULL);
	assert_int_equal(client_call(t->a, CFS_OP_UNLINK, 0, t->buf, body_unlink(t->buf, ROOT, "g", false, ino, false), &u,
				     sizeof(u)), 0);
	assert_int_equal(le32(u.orphan), 0);
	assert_int_equal(client_getattr(t->a, ino, &a), ENOENT);
	assert_int_equal(shard_test_stat(t).file_leases, 0);
	/* it does not say: a lease may stand for an open file */
	ino = client_create(t->a, ROOT, "h", REG, CFS_MK_LEASE, NULL);
	assert_int_equal(client_call(t->a, CFS_OP_UNLINK, 0, t->buf, body_unlink(t->buf, ROOT, "h", false, 0, false), &u,
				     sizeof(u)), 0);
	assert_int_equal(le32(u.orphan), 1);
}

/* 9: locks */
static void test_locks(void **state)
{
	struct shard_test *t = *state;
	uint64_t f = client_create(t->a, ROOT, "f", REG, 0, NULL), g = client_create(t->a, ROOT, "g", REG, 0, NULL), tb, tc;
	size_t len;

	assert_int_equal(client_call(t->a, CFS_OP_LOCK, 0, t->buf, body_lock(t->buf, f, 1, 0, 99, CFS_LOCK_WRITE, false), NULL, 0), 0);
	assert_int_equal(client_call(t->b, CFS_OP_LOCK, 0, t->buf, body_lock(t->buf, f, 1, 50, 60, CFS_LOCK_READ, false), NULL, 0), EAGAIN);
	tb = client_send(t->b, CFS_OP_LOCK, 0, t->buf, body_lock(t->buf, f, 1, 50, 60, CFS_LOCK_READ, true));
	tc = client_send(t->c, CFS_OP_LOCK, 0, t->buf, body_lock(t->buf, f, 7, 0, 10, CFS_LOCK_READ, true));
	assert_int_equal(shard_test_stat(t).lock_waiters, 2);
	/* half of it: c may, b not yet */
	assert_int_equal(client_call(t->a, CFS_OP_LOCK, 0, t->buf, body_lock(t->buf, f, 1, 0, 40, CFS_LOCK_UNLOCK, false), NULL, 0), 0);
	assert_int_equal(client_reply(t->c, tc, NULL), 0);
	client_no_reply(t->b);
	/* b gives up: told so under the number it asked with, and the next number is good */
	len = body_lock(t->buf, f, 1, 50, 60, CFS_LOCK_CANCEL, false);
	tc = client_send(t->b, CFS_OP_LOCK, -1, t->buf, len);
	assert_int_equal(client_reply(t->b, tc, NULL), 0);
	assert_int_equal(client_reply(t->b, tb, NULL), EINTR);
	assert_int_equal(shard_test_stat(t).lock_waiters, 0);
	tb = client_repeat(t->b, CFS_OP_LOCK, 0, t->buf, body_lock(t->buf, f, 1, 50, 60, CFS_LOCK_READ, true));
	assert_int_equal(client_reply(t->b, tb, NULL), EINTR); /* a late copy of the cancelled one locks nothing */

	/* a circle: b has g and waits for a's f; a wants g */
	assert_int_equal(client_call(t->b, CFS_OP_LOCK, 1, t->buf, body_lock(t->buf, g, 1, 0, 99, CFS_LOCK_WRITE, false), NULL, 0), 0);
	tb = client_send(t->b, CFS_OP_LOCK, 0, t->buf, body_lock(t->buf, f, 1, 50, 60, CFS_LOCK_WRITE, true));
	assert_int_equal(client_call(t->a, CFS_OP_LOCK, 0, t->buf, body_lock(t->buf, g, 1, 0, 0, CFS_LOCK_READ, true), NULL, 0), EDEADLK);
	/* another owner of the same session is no circle; it waits, and gets it when b's session ends */
	tc = client_send(t->a, CFS_OP_LOCK, 0, t->buf, body_lock(t->buf, g, 2, 0, 0, CFS_LOCK_READ, true));
	client_no_reply(t->a);
	client_no_reply(t->b);
	assert_int_equal(client_call(t->b, CFS_OP_SESSION_CLOSE, -1, NULL, 0, NULL, 0), 0);
	assert_int_equal(client_reply(t->a, tc, NULL), 0);
	assert_int_equal(shard_test_stat(t).lock_waiters, 0);
	(void)tb;
}

/* a cancellation that comes late, or twice, does not end the unlocking of the same range that waits its turn */
static void test_lock_late_cancel(void **state)
{
	struct shard_test *t = *state;
	uint64_t f = client_create(t->a, ROOT, "f", REG, 0, NULL), other, unlock, cancel;

	assert_int_equal(client_call(t->a, CFS_OP_LOCK, 0, t->buf, body_lock(t->buf, f, 1, 0, 99, CFS_LOCK_WRITE, true), NULL, 0), 0);
	t->w->manual = true;
	other = client_send(t->a, CFS_OP_LOCK, 1, t->buf, body_lock(t->buf, f, 2, 200, 300, CFS_LOCK_WRITE, false));
	assert_int_equal(t->w->log.n, 1); /* on its way to the log, with the key of f's locks */
	unlock = client_send(t->a, CFS_OP_LOCK, 0, t->buf, body_lock(t->buf, f, 1, 0, 99, CFS_LOCK_UNLOCK, false));
	cancel = client_send(t->a, CFS_OP_LOCK, -1, t->buf, body_lock(t->buf, f, 1, 0, 99, CFS_LOCK_CANCEL, false));
	assert_int_equal(client_reply(t->a, cancel, NULL), 0);
	client_no_reply(t->a);
	fake_log_commit_all(&t->w->log);
	assert_int_equal(client_reply(t->a, other, NULL), 0);
	fake_log_commit_all(&t->w->log);
	assert_int_equal(client_reply(t->a, unlock, NULL), 0);
	t->w->manual = false;
	assert_int_equal(client_call(t->b, CFS_OP_LOCK, 0, t->buf, body_lock(t->buf, f, 1, 0, 99, CFS_LOCK_WRITE, false), NULL, 0), 0);
}

/* the holder of a lock dies silently: the waiter gets it once the session is closed, and waits on across its own reconnect */
static void test_lock_death(void **state)
{
	struct shard_test *t = *state;
	uint64_t f = client_create(t->a, ROOT, "f", REG, 0, NULL), tag;
	size_t len;

	assert_int_equal(client_call(t->b, CFS_OP_LOCK, 0, t->buf, body_lock(t->buf, f, 1, 0, 99, CFS_LOCK_WRITE, false), NULL, 0), 0);
	len = body_lock(t->buf, f, 1, 0, 99, CFS_LOCK_WRITE, true);
	client_send(t->a, CFS_OP_LOCK, 5, t->buf, len);
	client_connect(t->a, CFS_ROLE_WORKER);
	tag = client_repeat(t->a, CFS_OP_LOCK, 5, t->buf, len);
	client_disconnect(t->b, CFS_ROLE_WORKER);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(shard_test_stat(t).fenced, 0);
		fake_clock_advance_ms(&t->w->clock, 2500);
		client_heartbeat(t->a);
		client_heartbeat(t->c);
		world_settle(t->w);
	}
	assert_int_equal(shard_test_stat(t).fenced, 1);
	assert_int_equal(client_reply(t->a, tag, NULL), 0);
}

/* nobody waits for the lock of a dead session, but somebody tries again and again: it has it a moment after the deadline */
static void test_lock_tried(void **state)
{
	struct shard_test *t = *state;
	uint64_t f = client_create(t->a, ROOT, "f", REG, 0, NULL);
	uint32_t status = EAGAIN;
	size_t len;

	assert_int_equal(client_call(t->b, CFS_OP_LOCK, 0, t->buf, body_lock(t->buf, f, 1, 0, 99, CFS_LOCK_WRITE, false), NULL, 0), 0);
	len = body_lock(t->buf, f, 1, 0, 99, CFS_LOCK_WRITE, false);
	for (unsigned i = 0; i < 6; i++) {
		status = client_call(t->a, CFS_OP_LOCK, 0, t->buf, len, NULL, 0);
		assert_int_equal(status, i < 5 ? EAGAIN : 0);
		fake_clock_advance_ms(&t->w->clock, 2500);
		client_heartbeat(t->a);
		client_heartbeat(t->c);
		world_settle(t->w);
	}
	assert_int_equal(shard_test_stat(t).fenced, 1);
}

/* 10: stat of a file that somebody else is writing */
static void test_ask(void **state)
{
	struct shard_test *t = *state;
	uint64_t ino = client_create(t->a, ROOT, "f", REG, CFS_MK_LEASE, NULL), tag, ask, asked;
	cfs_le64 le = cfs_cpu_to_le64(ino);
	struct cfs_entry_rep e;
	struct cfs_attr_rep a;
	struct fake_sent *m;

	assert_int_equal(client_lookup(t->b, ROOT, "f", &e), 0); /* does not ask, and says so */
	assert_int_equal(le32(e.valid), CFS_V_ENTRY);
	client_no_break(t->a);
	tag = client_send(t->b, CFS_OP_GETATTR, -1, &le, sizeof(le));
	ask = client_ask(t->a, &asked);
	assert_int_equal(asked, ino);
	client_no_reply(t->b);
	client_answer_ask(t->a, ask, 12345, true);
	assert_int_equal(client_reply(t->b, tag, &m), 0);
	memcpy(&a, m->body, sizeof(a));
	fake_sent_free(m);
	assert_int_equal(cfs_le64_to_cpu(a.attr.size), 12345);
	assert_int_equal(cfs_le64_to_cpu(a.attr.mtime.sec), 77);
	assert_int_equal(le32(a.valid), 0);
	/* the lease stays */
	assert_int_equal(client_getattr(t->a, ino, &a), 0);
	assert_int_equal(le32(a.lease), CFS_LEASE_EXCL);
	assert_int_equal(le32(a.valid), CFS_V_ATTR);
	/* it lets go before it answers: the state is newer than the answer */
	tag = client_send(t->b, CFS_OP_GETATTR, -1, &le, sizeof(le));
	ask = client_ask(t->a, &asked);
	assert_int_equal(client_call(t->a, CFS_OP_COMMIT, 0, t->buf, body_commit(t->buf, ino, "four"), NULL, 0), 0);
	assert_int_equal(client_call(t->a, CFS_OP_LEASE_RETURN, -1, t->buf, body_lease(t->buf, ino, 0, 0, 0), NULL, 0), 0);
	client_answer_ask(t->a, ask, 12345, true);
	assert_int_equal(client_reply(t->b, tag, &m), 0);
	memcpy(&a, m->body, sizeof(a));
	fake_sent_free(m);
	assert_int_equal(cfs_le64_to_cpu(a.attr.size), 4);
	assert_int_equal(le32(a.valid), CFS_V_ATTR);
	/* the holder dies: what it had not committed is lost, the question is answered */
	ino = client_create(t->a, ROOT, "g", REG, CFS_MK_LEASE, NULL);
	le = cfs_cpu_to_le64(ino);
	tag = client_send(t->b, CFS_OP_GETATTR, -1, &le, sizeof(le));
	for (unsigned i = 0; i < 5; i++) {
		fake_clock_advance_ms(&t->w->clock, 2500);
		client_heartbeat(t->b);
		world_settle(t->w);
	}
	assert_int_equal(client_reply(t->b, tag, NULL), 0);
	assert_int_equal(shard_test_stat(t).fenced, 1);
}

int main(int argc, char **argv)
{
	if (argc > 1) /* one test by name */
		cmocka_set_test_filter(argv[1]);
#define T(f) cmocka_unit_test_setup_teardown(f, shard_test_setup, shard_test_teardown)
	const struct CMUnitTest tests[] = {
		T(test_cross_mutations), T(test_lookup_never_waits), T(test_flush_under_recall),
		T(test_open_crossing), T(test_fenced), T(test_fenced_alive), T(test_recall_resent),
		T(test_lost_reply), T(test_new_leader), T(test_orphan), T(test_locks), T(test_lock_late_cancel), T(test_lock_death),
		T(test_lock_tried),
		T(test_ask), T(test_contended), T(test_contended_lease),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
