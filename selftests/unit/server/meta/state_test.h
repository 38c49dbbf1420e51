/* SPDX-License-Identifier: MIT */
/*
 * state_test.h - what the tests of the state machine share: a replica in a temporary directory,
 * and one call per request that builds the log entry, applies it and gives back status and reply.
 */
#ifndef CFS_SELFTESTS_STATE_TEST_H
#define CFS_SELFTESTS_STATE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/base.h"
#include "rpc/codec.h"
#include "server/meta/meta.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

struct state {
	char dir[64];
	struct cfs_meta *m;
	uint64_t index;
	int64_t now;		/* seconds: one more with each entry */
	uint64_t session;
	uint64_t seq[4];	/* of the slots */
	unsigned slot;
	/* holders of the next entry's victim */
	uint64_t holders[4];
	unsigned n_holders;
	/* the last reply */
	uint32_t status;
	uint8_t rep[CFS_REPLY_MAX];
	uint32_t rep_len;
	/* entries are kept here, for a second replica to apply */
	void (*record)(struct state *s, const void *entry, size_t len);
	void *record_arg;
};

UNUSED static const uint8_t state_cluster[16] = "claudefs-testing";

UNUSED static struct cfs_meta *state_open_at(const char *dir, uint64_t map_bytes)
{
	struct cfs_meta_params p = { .path = dir, .map_bytes = map_bytes, .shard = 0 };
	struct cfs_meta *m = NULL;
	char err[256] = "";
	int rc;

	memcpy(p.cluster, state_cluster, 16);
	rc = cfs_meta_open(&p, &m, err, sizeof(err));
	if (rc)
		print_error("cfs_meta_open: %d %s\n", rc, err);
	assert_int_equal(rc, 0);
	return m;
}

UNUSED static void state_rmdir(const char *dir)
{
	assert_int_equal(cfs_meta_discard(dir), 0);
	assert_int_equal(rmdir(dir), 0);
}

/* ---- entries -------------------------------------------------------------------- */
struct entry {
	uint8_t buf[CFS_LOG_ENTRY_MAX];
	size_t len;
	unsigned n;
};

UNUSED static void entry_init(struct entry *e, int64_t sec)
{
	struct cfs_log_hdr h = { .magic = cfs_cpu_to_le32(CFS_LOG_MAGIC),
				 .version = cfs_cpu_to_le16(CFS_LOG_VERSION) };

	h.time.sec = cfs_cpu_to_le64((uint64_t)sec);
	memcpy(e->buf, &h, sizeof(h));
	e->len = sizeof(h);
	e->n = 0;
}

UNUSED static void entry_add(struct entry *e, uint16_t op, uint64_t session, uint32_t slot,
			     uint64_t seq, const void *body, size_t len, const uint64_t *holders,
			     unsigned n_holders)
{
	struct cfs_log_rec r = {
		.opcode = cfs_cpu_to_le16(op), .n_holders = cfs_cpu_to_le16((uint16_t)n_holders),
		.body_len = cfs_cpu_to_le32((uint32_t)len), .session = cfs_cpu_to_le64(session),
		.slot = cfs_cpu_to_le32(slot), .seq = cfs_cpu_to_le64(seq),
	};
	cfs_le16 n;

	assert_true(e->len + sizeof(r) + len + 8 * n_holders + 8 <= sizeof(e->buf));
	memcpy(e->buf + e->len, &r, sizeof(r));
	e->len += sizeof(r);
	if (len)
		memcpy(e->buf + e->len, body, len);
	e->len += len;
	for (unsigned i = 0; i < n_holders; i++, e->len += 8) {
		cfs_le64 le = cfs_cpu_to_le64(holders[i]);

		memcpy(e->buf + e->len, &le, 8);
	}
	while (e->len % 8)
		e->buf[e->len++] = 0;
	n = cfs_cpu_to_le16((uint16_t)++e->n);
	memcpy(e->buf + offsetof(struct cfs_log_hdr, n), &n, 2);
}

UNUSED static void state_sink(void *arg, unsigned rec, uint32_t status, const void *body,
			      uint32_t len)
{
	struct state *s = arg;

	(void)rec;
	s->status = status;
	s->rep_len = len;
	memcpy(s->rep, body, len);
}

/* one record, one entry; the last reply is in *s */
UNUSED static uint32_t state_apply(struct state *s, uint16_t op, uint64_t session, uint32_t slot,
				   uint64_t seq, const void *body, size_t len)
{
	static struct entry e;

	entry_init(&e, ++s->now);
	entry_add(&e, op, session, slot, seq, body, len, s->holders, s->n_holders);
	s->n_holders = 0;
	if (s->record)
		s->record(s, e.buf, e.len);
	s->status = 9999;
	assert_int_equal(cfs_meta_apply(s->m, ++s->index, e.buf, e.len, state_sink, s), 0);
	assert_int_not_equal(s->status, 9999);
	return s->status;
}

/* a request in the session's slot */
UNUSED static uint32_t state_req(struct state *s, uint16_t op, const void *body, size_t len)
{
	return state_apply(s, op, s->session, s->slot, ++s->seq[s->slot], body, len);
}

UNUSED static uint64_t state_session(struct state *s, const char *nonce)
{
	struct cfs_session_open_req *req;
	uint8_t body[sizeof(*req) + 4] = { 0 };
	struct cfs_session_open_rep rep;
	cfs_le32 le;

	strncpy((char *)body, nonce, 16);
	le = cfs_cpu_to_le32(4);
	memcpy(body + 16, &le, 4);
	memcpy(body + 20, &le, 4);
	memcpy(body + 24, "host", 4);
	assert_int_equal(
		state_apply(s, CFS_OP_SESSION_OPEN, 0, CFS_SLOT_NONE, 0, body, sizeof(body)), 0);
	assert_int_equal(s->rep_len, sizeof(rep));
	memcpy(&rep, s->rep, sizeof(rep));
	assert_int_equal(cfs_le32_to_cpu(rep.slots), 4);
	return cfs_le64_to_cpu(rep.session);
}

UNUSED static void state_start(struct state *s)
{
	memset(s, 0, sizeof(*s));
	strcpy(s->dir, "/tmp/claudefs-state.XXXXXX");
	assert_non_null(mkdtemp(s->dir));
	s->m = state_open_at(s->dir, 64 << 20);
	s->now = 1000000;
	s->session = state_session(s, "first");
}

UNUSED static void state_print(void *arg, const char *finding)
{
	(void)arg;
	print_error("check: %s\n", finding);
}

UNUSED static void state_check(struct state *s)
{
	assert_int_equal(cfs_meta_check(s->m, false, state_print, NULL), 0);
}

/* every test ends with a state that is consistent */
UNUSED static void state_stop(struct state *s)
{
	state_check(s);
	cfs_meta_close(s->m);
	state_rmdir(s->dir);
}

/* ---- requests ------------------------------------------------------------------- */
struct mk {
	uint64_t dir;
	const char *name;
	uint32_t mode, uid, gid, umask, rdev, flags;
	const char *target;
};

UNUSED static uint32_t state_mknode(struct state *s, const struct mk *mk, uint64_t *ret_ino)
{
	uint8_t body[sizeof(struct cfs_mknode_req) + 8192];
	struct cfs_mknode_req req = {
		.dir = cfs_cpu_to_le64(mk->dir),
		.mode = cfs_cpu_to_le32(mk->mode),
		.flags = cfs_cpu_to_le32(mk->flags),
		.rdev = cfs_cpu_to_le32(mk->rdev),
		.cred = { cfs_cpu_to_le32(mk->uid), cfs_cpu_to_le32(mk->gid),
			  cfs_cpu_to_le32(mk->umask), 0 },
	};
	size_t n = mk->name ? strlen(mk->name) : 0, tn = mk->target ? strlen(mk->target) : 0;
	struct cfs_make_rep rep;

	req.name_len = cfs_cpu_to_le32((uint32_t)n);
	req.target_len = cfs_cpu_to_le32((uint32_t)tn);
	memcpy(body, &req, sizeof(req));
	if (n)
		memcpy(body + sizeof(req), mk->name, n);
	if (tn)
		memcpy(body + sizeof(req) + n, mk->target, tn);
	if (state_req(s, CFS_OP_MKNODE, body, sizeof(req) + n + tn))
		return s->status;
	assert_int_equal(s->rep_len, sizeof(rep));
	memcpy(&rep, s->rep, sizeof(rep));
	assert_int_equal(cfs_le64_to_cpu(rep.dirattr.ino), mk->flags & CFS_MK_TMPFILE ? 0 : mk->dir);
	if (ret_ino)
		*ret_ino = cfs_le64_to_cpu(rep.entry.attr.ino);
	return 0;
}

UNUSED static uint64_t state_file(struct state *s, uint64_t dir, const char *name)
{
	uint64_t ino = 0;

	assert_int_equal(
		state_mknode(s, &(struct mk){ .dir = dir, .name = name, .mode = S_IFREG | 0644 },
			     &ino),
		0);
	return ino;
}

UNUSED static uint64_t state_mkdir(struct state *s, uint64_t dir, const char *name)
{
	uint64_t ino = 0;

	assert_int_equal(
		state_mknode(s, &(struct mk){ .dir = dir, .name = name, .mode = S_IFDIR | 0755 },
			     &ino),
		0);
	return ino;
}

UNUSED static uint32_t state_link(struct state *s, uint64_t ino, uint64_t dir, const char *name)
{
	uint8_t body[sizeof(struct cfs_link_req) + 512];
	struct cfs_link_req req = {
		.ino = cfs_cpu_to_le64(ino), .dir = cfs_cpu_to_le64(dir),
		.name_len = cfs_cpu_to_le32((uint32_t)strlen(name)),
	};

	memcpy(body, &req, sizeof(req));
	memcpy(body + sizeof(req), name, strlen(name));
	return state_req(s, CFS_OP_LINK, body, sizeof(req) + strlen(name));
}

UNUSED static uint32_t state_remove(struct state *s, uint64_t dir, const char *name, bool is_rmdir)
{
	uint8_t body[sizeof(struct cfs_unlink_req) + 512];
	struct cfs_unlink_req req = {
		.dir = cfs_cpu_to_le64(dir),
		.rmdir = is_rmdir,
		.name_len = cfs_cpu_to_le32((uint32_t)strlen(name)),
	};

	memcpy(body, &req, sizeof(req));
	memcpy(body + sizeof(req), name, strlen(name));
	return state_req(s, CFS_OP_UNLINK, body, sizeof(req) + strlen(name));
}

UNUSED static size_t rename_body(uint8_t *body, uint64_t od, const char *old, uint64_t nd,
				 const char *new, uint32_t flags)
{
	struct cfs_rename_req req = {
		.old_dir = cfs_cpu_to_le64(od),
		.new_dir = cfs_cpu_to_le64(nd),
		.flags = cfs_cpu_to_le32(flags),
		.old_len = cfs_cpu_to_le32((uint32_t)strlen(old)),
		.new_len = cfs_cpu_to_le32((uint32_t)strlen(new)),
	};

	memcpy(body, &req, sizeof(req));
	memcpy(body + sizeof(req), old, strlen(old));
	memcpy(body + sizeof(req) + strlen(old), new, strlen(new));
	return sizeof(req) + strlen(old) + strlen(new);
}

UNUSED static uint32_t state_rename(struct state *s, uint64_t od, const char *old, uint64_t nd,
				    const char *new, uint32_t flags)
{
	uint8_t body[sizeof(struct cfs_rename_req) + 1024];

	return state_req(s, CFS_OP_RENAME, body, rename_body(body, od, old, nd, new, flags));
}

UNUSED static uint32_t state_setattr(struct state *s, uint64_t ino, uint32_t valid,
				     const struct cfs_setattr_req *with)
{
	struct cfs_setattr_req req = *with;

	req.ino = cfs_cpu_to_le64(ino);
	req.valid = cfs_cpu_to_le32(valid);
	return state_req(s, CFS_OP_SETATTR, &req, sizeof(req));
}

UNUSED static uint32_t state_chmod(struct state *s, uint64_t ino, uint32_t mode)
{
	return state_setattr(s, ino, CFS_SA_MODE,
			     &(struct cfs_setattr_req){ .mode = cfs_cpu_to_le32(mode) });
}

UNUSED static uint32_t state_truncate(struct state *s, uint64_t ino, uint64_t size)
{
	return state_setattr(s, ino, CFS_SA_SIZE,
			     &(struct cfs_setattr_req){ .size = cfs_cpu_to_le64(size) });
}

UNUSED static uint32_t state_setxattr(struct state *s, uint64_t ino, const char *name,
				      const void *value, size_t len, uint32_t flags)
{
	static uint8_t body[sizeof(struct cfs_setxattr_req) + 512 + CFS_XATTR_SIZE_MAX + 1];
	struct cfs_setxattr_req req = {
		.ino = cfs_cpu_to_le64(ino), .name_len = cfs_cpu_to_le32((uint32_t)strlen(name)),
		.value_len = cfs_cpu_to_le32((uint32_t)len), .flags = cfs_cpu_to_le32(flags),
	};

	memcpy(body, &req, sizeof(req));
	memcpy(body + sizeof(req), name, strlen(name));
	if (len)
		memcpy(body + sizeof(req) + strlen(name), value, len);
	return state_req(s, CFS_OP_SETXATTR, body, sizeof(req) + strlen(name) + len);
}

/* ---- commits -------------------------------------------------------------------- */
struct ext {
	uint64_t off;
	uint32_t len, obj_off, obj_len;
	uint64_t seq;		/* the object: (session, seq); obj_len 0: obj_off + len */
};

struct commit {
	uint8_t buf[CFS_BODY_MAX];
	size_t len;
	uint32_t n;
};

UNUSED static void commit_add(struct state *s, struct commit *c, uint64_t ino, uint32_t flags,
			      uint64_t size, const void *data, uint32_t data_len,
			      const struct ext *e, uint32_t n_ext)
{
	struct cfs_commit_item it = {
		.ino = cfs_cpu_to_le64(ino),
		.size = cfs_cpu_to_le64(size),
		.flags = cfs_cpu_to_le32(flags),
		.inline_len = cfs_cpu_to_le32(data_len),
		.n_extents = cfs_cpu_to_le32(n_ext),
	};
	cfs_le32 le;

	if (!c->n) {
		memset(c->buf, 0, sizeof(struct cfs_commit_req));
		c->len = sizeof(struct cfs_commit_req);
	}
	it.mtime.sec = cfs_cpu_to_le64(77);
	memcpy(c->buf + c->len, &it, sizeof(it));
	c->len += sizeof(it);
	if (data_len)
		memcpy(c->buf + c->len, data, data_len);
	c->len += data_len;
	for (uint32_t i = 0; i < n_ext; i++) {
		struct cfs_extent x = {
			.file_off = cfs_cpu_to_le64(e[i].off),
			.len = cfs_cpu_to_le32(e[i].len),
			.obj_off = cfs_cpu_to_le32(e[i].obj_off),
			.oid = { cfs_cpu_to_le64(s->session), cfs_cpu_to_le64(e[i].seq) },
			.obj_len = cfs_cpu_to_le32(e[i].obj_len ? e[i].obj_len :
								  e[i].obj_off + e[i].len),
		};

		memcpy(c->buf + c->len, &x, sizeof(x));
		c->len += sizeof(x);
	}
	le = cfs_cpu_to_le32(++c->n);
	memcpy(c->buf, &le, 4);
}

UNUSED static uint32_t commit_send(struct state *s, struct commit *c)
{
	uint32_t rc = state_req(s, CFS_OP_COMMIT, c->buf, c->len);

	c->n = 0;
	return rc;
}

UNUSED static struct cfs_commit_result commit_result(struct state *s, unsigned i)
{
	struct cfs_commit_result r;

	assert_int_equal(s->status, 0);
	assert_true(s->rep_len >= sizeof(struct cfs_commit_rep) + (i + 1) * sizeof(r));
	memcpy(&r, s->rep + sizeof(struct cfs_commit_rep) + i * sizeof(r), sizeof(r));
	return r;
}

/* one item; the item's status */
UNUSED static uint32_t state_commit(struct state *s, uint64_t ino, uint32_t flags, uint64_t size,
				    const struct ext *e, uint32_t n)
{
	static struct commit c;

	commit_add(s, &c, ino, flags, size, NULL, 0, e, n);
	assert_int_equal(commit_send(s, &c), 0);
	return cfs_le32_to_cpu(commit_result(s, 0).status);
}

UNUSED static uint32_t state_commit_inline(struct state *s, uint64_t ino, const void *data,
					   uint32_t len)
{
	static struct commit c;

	commit_add(s, &c, ino, CFS_CI_INLINE, len, data, len, NULL, 0);
	assert_int_equal(commit_send(s, &c), 0);
	return cfs_le32_to_cpu(commit_result(s, 0).status);
}

UNUSED static uint32_t state_fallocate(struct state *s, uint64_t ino, uint32_t mode, uint64_t off,
				       uint64_t len)
{
	struct cfs_fallocate_req req = {
		.ino = cfs_cpu_to_le64(ino),
		.off = cfs_cpu_to_le64(off),
		.len = cfs_cpu_to_le64(len),
		.mode = cfs_cpu_to_le32(mode),
	};

	return state_req(s, CFS_OP_FALLOCATE, &req, sizeof(req));
}

UNUSED static uint32_t state_copy(struct state *s, uint64_t src, uint64_t src_off, uint64_t dst,
				  uint64_t dst_off, uint64_t len, uint64_t *ret_copied)
{
	struct cfs_copy_req req = {
		.src = cfs_cpu_to_le64(src),
		.src_off = cfs_cpu_to_le64(src_off),
		.dst = cfs_cpu_to_le64(dst),
		.dst_off = cfs_cpu_to_le64(dst_off),
		.len = cfs_cpu_to_le64(len),
	};
	struct cfs_copy_rep rep;

	if (state_req(s, CFS_OP_COPY, &req, sizeof(req)))
		return s->status;
	memcpy(&rep, s->rep, sizeof(rep));
	*ret_copied = cfs_le64_to_cpu(rep.copied);
	return 0;
}

/* ---- reading -------------------------------------------------------------------- */
UNUSED static struct cfs_attr state_attr(struct state *s, uint64_t ino)
{
	struct cfs_attr a;

	assert_int_equal(cfs_meta_getattr(s->m, ino, &a), 0);
	return a;
}

UNUSED static bool state_gone(struct state *s, uint64_t ino)
{
	struct cfs_attr a;

	return cfs_meta_getattr(s->m, ino, &a) == -ENOENT;
}

UNUSED static uint32_t state_read(struct state *s, uint16_t op, const void *body, size_t len)
{
	static uint8_t out[CFS_BODY_MAX];

	s->status = cfs_meta_read(s->m, op, s->session, body, (uint32_t)len, out, &s->rep_len);
	memcpy(s->rep, out, cfs_min((size_t)s->rep_len, sizeof(s->rep)));
	return s->status;
}

UNUSED static uint32_t state_lookup(struct state *s, uint64_t dir, const char *name,
				    uint64_t *ret_ino)
{
	uint8_t body[sizeof(struct cfs_lookup_req) + 512];
	struct cfs_lookup_req req = {
		.dir = cfs_cpu_to_le64(dir), .name_len = cfs_cpu_to_le32((uint32_t)strlen(name)),
		.flags = cfs_cpu_to_le32(CFS_LOOKUP_DATA),
	};
	struct cfs_entry_rep rep;
	uint32_t rc;

	memcpy(body, &req, sizeof(req));
	memcpy(body + sizeof(req), name, strlen(name));
	rc = state_read(s, CFS_OP_LOOKUP, body, sizeof(req) + strlen(name));
	if (!rc && ret_ino) {
		memcpy(&rep, s->rep, sizeof(rep));
		*ret_ino = cfs_le64_to_cpu(rep.attr.ino);
	}
	return rc;
}

UNUSED static uint32_t state_getxattr(struct state *s, uint64_t ino, const char *name)
{
	uint8_t body[sizeof(struct cfs_xattr_req) + 256];
	struct cfs_xattr_req req = { .ino = cfs_cpu_to_le64(ino),
				     .name_len = cfs_cpu_to_le32((uint32_t)strlen(name)) };

	memcpy(body, &req, sizeof(req));
	memcpy(body + sizeof(req), name, strlen(name));
	return state_read(s, CFS_OP_GETXATTR, body, sizeof(req) + strlen(name));
}

/* extents of a file from `off` on, in host order; how many */
UNUSED static unsigned state_extents(struct state *s, uint64_t ino, uint64_t off, struct ext *ret,
				     unsigned max)
{
	struct cfs_extents_req req = {
		.ino = cfs_cpu_to_le64(ino),
		.off = cfs_cpu_to_le64(off),
		.max_extents = cfs_cpu_to_le32(max),
	};
	struct cfs_open_rep rep;
	struct cfs_extent x;
	unsigned n;

	assert_int_equal(state_read(s, CFS_OP_EXTENTS, &req, sizeof(req)), 0);
	memcpy(&rep, s->rep, sizeof(rep));
	n = cfs_le32_to_cpu(rep.n_extents);
	assert_true(n <= max && sizeof(rep) + cfs_le32_to_cpu(rep.inline_len) + n * sizeof(x) <=
					sizeof(s->rep));
	for (unsigned i = 0; i < n; i++) {
		memcpy(&x, s->rep + sizeof(rep) + cfs_le32_to_cpu(rep.inline_len) + i * sizeof(x),
		       sizeof(x));
		ret[i] = (struct ext){
			.off = cfs_le64_to_cpu(x.file_off),
			.len = cfs_le32_to_cpu(x.len),
			.obj_off = cfs_le32_to_cpu(x.obj_off),
			.obj_len = cfs_le32_to_cpu(x.obj_len),
			.seq = cfs_le32_to_cpu(x.flags) & CFS_EXT_UNWRITTEN ?
				       0 :
				       cfs_le64_to_cpu(x.oid.seq),
		};
	}
	return n;
}

UNUSED static struct cfs_meta_stat state_stat(struct state *s)
{
	struct cfs_meta_stat st;

	assert_int_equal(cfs_meta_stat(s->m, &st), 0);
	return st;
}

#endif
