/* SPDX-License-Identifier: MIT */
/* shard_world.c - see shard_world.h. */
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
#include <unistd.h>

#include "rpc/codec.h"

/* ---- the leader ------------------------------------------------------------------------------------ */
static void space(void *arg, uint64_t *ret_total, uint64_t *ret_free)
{
	struct world *w = arg;

	*ret_total = w->space_total;
	*ret_free = w->space_free;
}

static void delete_objects(void *arg, const struct cfs_dead *dead, unsigned n)
{
	struct world *w = arg;

	assert_in_range(n, 1, CFS_ARRAY_SIZE(w->dead));
	memcpy(w->dead, dead, n * sizeof(*dead));
	w->n_dead = n;
}

static void make_shard(struct world *w)
{
	struct cfs_shard_params p = {
		.clock = &w->clock.clock, .meta = w->meta, .log_ops = &fake_log_ops, .log = &w->log,
		.lease_ms = WORLD_LEASE_MS, .grace_dead_ms = 60000, .space = space,
		.delete_objects = delete_objects, .arg = w,
	};

	assert_int_equal(cfs_shard_create(&p, &w->shard), 0);
	w->log.shard = w->shard;
}

struct world *world_new(void)
{
	struct world *w = calloc(1, sizeof(*w));
	struct cfs_meta_params p = { .map_bytes = 64 << 20, .cluster = "shard-world" };
	char err[256] = "";

	assert_non_null(w);
	fake_clock_init(&w->clock);
	fake_log_init(&w->log);
	w->space_total = w->space_free = 1ull << 40;
	snprintf(w->dir, sizeof(w->dir), "/tmp/cfs-shard-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	p.path = w->dir;
	if (cfs_meta_open(&p, &w->meta, err, sizeof(err)))
		fail_msg("%s", err);
	make_shard(w);
	cfs_shard_become_leader(w->shard, ++w->term);
	fake_log_commit_all(&w->log);
	assert_true(cfs_shard_is_leader(w->shard));
	return w;
}

void world_new_leader(struct world *w)
{
	fake_log_drop(&w->log);
	cfs_shard_lost_leadership(w->shard);
	cfs_shard_become_leader(w->shard, ++w->term);
	world_settle(w);
}

void world_settle(struct world *w)
{
	if (!w->manual)
		fake_log_commit_all(&w->log);
}

void world_free(struct world *w)
{
	cfs_shard_destroy(w->shard);
	fake_log_drop(&w->log);
	cfs_meta_close(w->meta);
	assert_int_equal(cfs_meta_discard(w->dir), 0);
	rmdir(w->dir);
	free(w);
}

/* ---- clients --------------------------------------------------------------------------------------- */
struct deliver {
	struct world *w;
	struct fake_conn *conn;
};

static void deliver(void *arg, struct cfs_msg *msg)
{
	struct deliver *d = arg;

	cfs_shard_msg(d->w->shard, &d->conn->conn, msg);
}

static uint64_t send_on(struct client *c, struct fake_conn *conn, uint16_t opcode, int slot, const void *body, size_t len)
{
	struct deliver d = { c->w, conn };
	struct cfs_msg_hdr hdr;

	cfs_hdr_init(&hdr, opcode);
	hdr.tag = cfs_cpu_to_le64(++c->tag);
	hdr.session = cfs_cpu_to_le64(c->id);
	if (slot >= 0) {
		hdr.slot = cfs_cpu_to_le32((uint32_t)slot);
		hdr.seq = cfs_cpu_to_le64(c->seq[slot]);
	}
	fake_msg(&hdr, body, (uint32_t)len, deliver, &d);
	world_settle(c->w);
	return c->tag;
}

uint64_t client_send(struct client *c, uint16_t opcode, int slot, const void *body, size_t len)
{
	if (slot >= 0)
		c->seq[slot]++;
	return send_on(c, c->worker, opcode, slot, body, len);
}

uint64_t client_repeat(struct client *c, uint16_t opcode, int slot, const void *body, size_t len)
{
	return send_on(c, c->worker, opcode, slot, body, len);
}

uint64_t client_send_cb(struct client *c, uint16_t opcode, const void *body, size_t len)
{
	return send_on(c, c->cb, opcode, -1, body, len);
}

static uint32_t take_reply(struct fake_conn *conn, uint64_t tag, struct fake_sent **ret)
{
	struct fake_sent *m = fake_conn_take(conn);
	uint32_t status;

	assert_non_null(m);
	assert_int_equal(m->hdr.flags, CFS_MSG_REPLY);
	assert_int_equal(cfs_le64_to_cpu(m->hdr.tag), tag);
	status = cfs_le32_to_cpu(m->hdr.status);
	if (ret)
		*ret = m;
	else
		fake_sent_free(m);
	return status;
}

uint32_t client_reply(struct client *c, uint64_t tag, struct fake_sent **ret)
{
	return take_reply(c->worker, tag, ret);
}

void client_no_reply(struct client *c)
{
	assert_int_equal(c->worker->n_sent, 0);
}

uint32_t client_call(struct client *c, uint16_t opcode, int slot, const void *body, size_t len, void *rep, size_t rep_len)
{
	uint64_t tag = client_send(c, opcode, slot, body, len);
	struct fake_sent *m;
	uint32_t status = client_reply(c, tag, &m);

	if (rep)
		memset(rep, 0, rep_len);
	if (rep && !status)
		assert_true(m->body_len >= rep_len);
	if (rep)
		memcpy(rep, m->body, cfs_min(rep_len, (size_t)m->body_len));
	fake_sent_free(m);
	return status;
}

void client_heartbeat(struct client *c)
{
	uint64_t tag = client_send_cb(c, CFS_OP_HEARTBEAT, NULL, 0);

	assert_int_equal(take_reply(c->cb, tag, NULL), 0);
}

void client_disconnect(struct client *c, uint32_t role)
{
	struct fake_conn **conn = role == CFS_ROLE_CALLBACK ? &c->cb : &c->worker;

	if (!*conn)
		return;
	cfs_shard_conn_close(c->w->shard, &(*conn)->conn);
	fake_conn_free(*conn);
	*conn = NULL;
	world_settle(c->w);
}

void client_connect(struct client *c, uint32_t role)
{
	struct fake_conn **conn = role == CFS_ROLE_CALLBACK ? &c->cb : &c->worker;

	client_disconnect(c, role);
	*conn = fake_conn_new(c->name);
	cfs_shard_conn_open(c->w->shard, &(*conn)->conn, c->id, role);
	world_settle(c->w);
}

struct client *client_new(struct world *w, const char *name)
{
	uint8_t body[sizeof(struct cfs_session_open_req) + 16];
	struct cfs_session_open_req req = { .slots = cfs_cpu_to_le32(WORLD_SLOTS) };
	struct client *c = calloc(1, sizeof(*c));
	struct cfs_session_open_rep rep;
	size_t len = strlen(name);

	assert_non_null(c);
	assert_true(len < sizeof(c->name));
	c->w = w;
	for (unsigned i = 0;; i++) {
		assert_true(i < CFS_ARRAY_SIZE(w->clients));
		if (!w->clients[i]) {
			w->clients[i] = c;
			break;
		}
	}
	strcpy(c->name, name);
	client_connect(c, CFS_ROLE_WORKER);
	memcpy(req.nonce, name, len);
	req.name_len = cfs_cpu_to_le32((uint32_t)len);
	memcpy(body, &req, sizeof(req));
	memcpy(body + sizeof(req), name, len);
	assert_int_equal(client_call(c, CFS_OP_SESSION_OPEN, -1, body, sizeof(req) + len, &rep, sizeof(rep)), 0);
	assert_int_equal(cfs_le32_to_cpu(rep.slots), WORLD_SLOTS);
	c->id = cfs_le64_to_cpu(rep.session);
	client_connect(c, CFS_ROLE_CALLBACK);
	return c;
}

void client_free(struct client *c)
{
	client_disconnect(c, CFS_ROLE_CALLBACK);
	client_disconnect(c, CFS_ROLE_WORKER);
	for (unsigned i = 0; i < CFS_ARRAY_SIZE(c->w->clients); i++) {
		if (c->w->clients[i] == c)
			c->w->clients[i] = NULL;
	}
	free(c);
}

/* ---- recalls ----------------------------------------------------------------------------------------- */
void client_break(struct client *c, struct brk *ret)
{
	struct cfs_break_req req;
	struct cfs_cursor cur;

	memset(ret, 0, sizeof(*ret));
	ret->msg = fake_conn_take(c->cb);
	assert_non_null(ret->msg);
	assert_int_equal(cfs_le16_to_cpu(ret->msg->hdr.opcode), CFS_OP_CB_BREAK);
	assert_int_equal(ret->msg->hdr.flags, 0);
	assert_int_equal(cfs_le64_to_cpu(ret->msg->hdr.session), c->id);
	cfs_cursor_init(&cur, ret->msg->body, ret->msg->body_len);
	cfs_take_struct(&cur, &req);
	ret->n = cfs_le32_to_cpu(req.n);
	assert_in_range(ret->n, 1, CFS_BREAK_MAX);
	for (unsigned i = 0; i < ret->n; i++) {
		struct cfs_break_item *it = &ret->items[i].item;

		cfs_take_struct(&cur, it);
		ret->items[i].dir = cfs_le64_to_cpu(it->dir);
		ret->items[i].ino = cfs_le64_to_cpu(it->ino);
		ret->items[i].flags = cfs_le32_to_cpu(it->flags);
		assert_int_not_equal(ret->items[i].flags, 0);
		cfs_take_copy(&cur, ret->items[i].name, cfs_le16_to_cpu(it->name_len), "name");
	}
	assert_int_equal(cfs_cursor_end(&cur), 0);
}

void client_no_break(struct client *c)
{
	assert_int_equal(c->cb->n_sent, 0);
}

static void answer(struct client *c, uint16_t opcode, uint64_t tag, const void *body, size_t len)
{
	struct deliver d = { c->w, c->cb };
	struct cfs_msg_hdr hdr;

	cfs_hdr_init(&hdr, opcode);
	hdr.flags = CFS_MSG_REPLY;
	hdr.session = cfs_cpu_to_le64(c->id);
	hdr.tag = cfs_cpu_to_le64(tag);
	fake_msg(&hdr, body, (uint32_t)len, deliver, &d);
	world_settle(c->w);
}

void client_answer(struct client *c, struct brk *b, uint8_t how)
{
	uint8_t body[sizeof(struct cfs_break_rep) + CFS_BREAK_MAX];
	struct cfs_break_rep rep = { .n = cfs_cpu_to_le32(b->n) };

	memcpy(body, &rep, sizeof(rep));
	memset(body + sizeof(rep), how, b->n);
	answer(c, CFS_OP_CB_BREAK, cfs_le64_to_cpu(b->msg->hdr.tag), body, sizeof(rep) + b->n);
	fake_sent_free(b->msg);
	b->msg = NULL;
}

uint64_t client_ask(struct client *c, uint64_t *ret_ino)
{
	struct fake_sent *m = fake_conn_take(c->cb);
	uint64_t tag;

	assert_non_null(m);
	assert_int_equal(cfs_le16_to_cpu(m->hdr.opcode), CFS_OP_CB_ASK);
	assert_int_equal(m->body_len, sizeof(struct cfs_ask_req));
	*ret_ino = cfs_get_le64(m->body);
	tag = cfs_le64_to_cpu(m->hdr.tag);
	fake_sent_free(m);
	return tag;
}

void client_answer_ask(struct client *c, uint64_t tag, uint64_t size, bool known)
{
	struct cfs_ask_rep rep = {
		.size = cfs_cpu_to_le64(size), .mtime.sec = cfs_cpu_to_le64(77), .known = cfs_cpu_to_le32(known),
	};

	answer(c, CFS_OP_CB_ASK, tag, &rep, sizeof(rep));
}

/* ---- bodies ------------------------------------------------------------------------------------------ */
static size_t with_names(void *buf, const void *req, size_t len, const char *a, const char *b)
{
	memcpy(buf, req, len);
	memcpy((char *)buf + len, a, strlen(a));
	len += strlen(a);
	memcpy((char *)buf + len, b, strlen(b));
	return len + strlen(b);
}

size_t body_mknode(void *buf, uint64_t dir, const char *name, uint32_t mode, uint32_t flags)
{
	const char *target = S_ISLNK(mode) ? "target" : "";
	struct cfs_mknode_req req = {
		.dir = cfs_cpu_to_le64(dir), .mode = cfs_cpu_to_le32(mode), .flags = cfs_cpu_to_le32(flags),
		.name_len = cfs_cpu_to_le32((uint32_t)strlen(name)),
		.target_len = cfs_cpu_to_le32((uint32_t)strlen(target)),
	};

	return with_names(buf, &req, sizeof(req), name, target);
}

size_t body_lookup(void *buf, uint64_t dir, const char *name, uint32_t flags)
{
	struct cfs_lookup_req req = {
		.dir = cfs_cpu_to_le64(dir), .name_len = cfs_cpu_to_le32((uint32_t)strlen(name)),
		.flags = cfs_cpu_to_le32(flags),
	};

	return with_names(buf, &req, sizeof(req), name, "");
}

size_t body_unlink(void *buf, uint64_t dir, const char *name, bool rm, uint64_t hint_ino, bool hint_open)
{
	struct cfs_unlink_req req = {
		.dir = cfs_cpu_to_le64(dir), .hint_ino = cfs_cpu_to_le64(hint_ino),
		.name_len = cfs_cpu_to_le32((uint32_t)strlen(name)), .rmdir = rm, .hint_open = hint_open,
	};

	return with_names(buf, &req, sizeof(req), name, "");
}

size_t body_rename(void *buf, uint64_t old_dir, const char *old_name, uint64_t new_dir, const char *new_name,
		   uint32_t flags)
{
	struct cfs_rename_req req = {
		.old_dir = cfs_cpu_to_le64(old_dir), .new_dir = cfs_cpu_to_le64(new_dir),
		.old_len = cfs_cpu_to_le32((uint32_t)strlen(old_name)),
		.new_len = cfs_cpu_to_le32((uint32_t)strlen(new_name)), .flags = cfs_cpu_to_le32(flags),
	};

	return with_names(buf, &req, sizeof(req), old_name, new_name);
}

size_t body_link(void *buf, uint64_t ino, uint64_t dir, const char *name)
{
	struct cfs_link_req req = {
		.ino = cfs_cpu_to_le64(ino), .dir = cfs_cpu_to_le64(dir),
		.name_len = cfs_cpu_to_le32((uint32_t)strlen(name)),
	};

	return with_names(buf, &req, sizeof(req), name, "");
}

size_t body_open(void *buf, uint64_t ino, uint32_t want, uint32_t flags)
{
	struct cfs_open_req req = {
		.ino = cfs_cpu_to_le64(ino), .want = cfs_cpu_to_le32(want), .flags = cfs_cpu_to_le32(flags),
		.max_extents = cfs_cpu_to_le32(16),
	};

	memcpy(buf, &req, sizeof(req));
	return sizeof(req);
}

size_t body_commit(void *buf, uint64_t ino, const char *data)
{
	struct cfs_commit_req req = { .n = cfs_cpu_to_le32(1) };
	struct cfs_commit_item item = {
		.ino = cfs_cpu_to_le64(ino), .size = cfs_cpu_to_le64(strlen(data)),
		.flags = cfs_cpu_to_le32(CFS_CI_INLINE), .inline_len = cfs_cpu_to_le32((uint32_t)strlen(data)),
	};

	memcpy(buf, &req, sizeof(req));
	return sizeof(req) + with_names((char *)buf + sizeof(req), &item, sizeof(item), data, "");
}

static size_t body_setattr(void *buf, uint64_t ino, uint32_t valid, uint64_t size, uint32_t mode)
{
	struct cfs_setattr_req req = {
		.ino = cfs_cpu_to_le64(ino), .size = cfs_cpu_to_le64(size), .mode = cfs_cpu_to_le32(mode),
		.valid = cfs_cpu_to_le32(valid),
	};

	memcpy(buf, &req, sizeof(req));
	return sizeof(req);
}

size_t body_truncate(void *buf, uint64_t ino, uint64_t size)
{
	return body_setattr(buf, ino, CFS_SA_SIZE, size, 0);
}

size_t body_chmod(void *buf, uint64_t ino, uint32_t mode)
{
	return body_setattr(buf, ino, CFS_SA_MODE, 0, mode);
}

size_t body_lock(void *buf, uint64_t ino, uint64_t owner, uint64_t start, uint64_t end, uint8_t kind, bool wait)
{
	struct cfs_lock_req req = {
		.ino = cfs_cpu_to_le64(ino), .owner = cfs_cpu_to_le64(owner), .start = cfs_cpu_to_le64(start),
		.end = cfs_cpu_to_le64(end), .space = CFS_LOCK_POSIX, .kind = kind, .wait = wait,
	};

	memcpy(buf, &req, sizeof(req));
	return sizeof(req);
}

size_t body_lease(void *buf, uint64_t ino, uint8_t mode, uint8_t open, uint32_t flags)
{
	struct cfs_lease_list list = { .n = cfs_cpu_to_le32(ino ? 1 : 0), .flags = cfs_cpu_to_le32(flags) };
	struct cfs_lease_item item = { .ino = cfs_cpu_to_le64(ino), .mode = mode, .open = open };

	memcpy(buf, &list, sizeof(list));
	memcpy((char *)buf + sizeof(list), &item, sizeof(item));
	return sizeof(list) + (ino ? sizeof(item) : 0);
}

void world_answer_all(struct world *w, uint8_t how)
{
	struct brk b;

	for (unsigned i = 0; i < CFS_ARRAY_SIZE(w->clients); i++) {
		struct client *c = w->clients[i];

		while (c && c->cb && c->cb->n_sent) {
			client_break(c, &b);
			client_answer(c, &b, how);
		}
	}
}

/* ---- operations -------------------------------------------------------------------------------------- */
uint64_t client_create(struct client *c, uint64_t dir, const char *name, uint32_t mode, uint32_t flags,
		       struct cfs_entry_rep *ret)
{
	struct cfs_make_rep rep;
	struct fake_sent *m;
	char buf[1024];
	size_t len = body_mknode(buf, dir, name, mode, flags);
	uint64_t tag = client_send(c, CFS_OP_MKNODE, 0, buf, len);

	world_answer_all(c->w, 0);
	assert_int_equal(client_reply(c, tag, &m), 0);
	assert_int_equal(m->body_len, sizeof(rep));
	memcpy(&rep, m->body, sizeof(rep));
	fake_sent_free(m);
	assert_int_equal(cfs_le64_to_cpu(rep.dirattr.ino), flags & CFS_MK_TMPFILE ? 0 : dir);
	if (ret)
		*ret = rep.entry;
	return cfs_le64_to_cpu(rep.entry.attr.ino);
}

uint32_t client_lookup(struct client *c, uint64_t dir, const char *name, struct cfs_entry_rep *ret)
{
	char buf[1024];
	size_t len = body_lookup(buf, dir, name, 0);

	return client_call(c, CFS_OP_LOOKUP, -1, buf, len, ret, sizeof(*ret));
}

uint32_t client_getattr(struct client *c, uint64_t ino, struct cfs_attr_rep *ret)
{
	cfs_le64 le = cfs_cpu_to_le64(ino);

	return client_call(c, CFS_OP_GETATTR, -1, &le, sizeof(le), ret, sizeof(*ret));
}

uint32_t client_open(struct client *c, uint64_t ino, uint32_t want, uint32_t flags, struct cfs_open_rep *ret)
{
	char buf[64];
	size_t len = body_open(buf, ino, want, flags);

	return client_call(c, CFS_OP_OPEN, -1, buf, len, ret, sizeof(*ret));
}

/* ---- tests ------------------------------------------------------------------------------------------- */
int shard_test_setup(void **state)
{
	struct shard_test *t = calloc(1, sizeof(*t));

	assert_non_null(t);
	t->w = world_new();
	t->a = client_new(t->w, "a");
	t->b = client_new(t->w, "b");
	t->c = client_new(t->w, "c");
	*state = t;
	return 0;
}

int shard_test_teardown(void **state)
{
	struct shard_test *t = *state;

	client_free(t->a);
	client_free(t->b);
	client_free(t->c);
	world_free(t->w);
	free(t);
	return 0;
}

struct cfs_shard_stat shard_test_stat(struct shard_test *t)
{
	struct cfs_shard_stat st;

	cfs_shard_stat(t->w->shard, &st);
	return st;
}

void shard_test_yield(struct client *c, uint32_t flags, uint8_t how)
{
	struct brk b;

	client_break(c, &b);
	assert_int_equal(b.n, 1);
	assert_int_equal(b.items[0].flags, flags);
	client_answer(c, &b, how);
}
