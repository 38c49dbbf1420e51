/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes the state machine: the input is a list of steps, applied to a fresh state. A step is a
 * whole log entry of arbitrary bytes, or an arbitrary body in a sound record with the right slot
 * and seq (so that it gets past the envelope), or a body for cfs_meta_read() or
 * cfs_meta_footprint(). Small numbers in bodies are made to hit: inodes and offsets are few.
 * Whatever comes in, the state must stay consistent: cfs_meta_check() has the last word, and a
 * second replica that applies the same entries must agree.
 *
 * Step: kind (8 bits), opcode (8 bits), length (16 bits), then that many bytes.
 */
#include "base/base.h"
#include "rpc/codec.h"
#include "server/meta/meta.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STEPS_MAX	64u

static const uint16_t mutations[] = {
	CFS_OP_SETATTR,	     CFS_OP_MKNODE, CFS_OP_LINK,       CFS_OP_UNLINK, CFS_OP_RENAME,
	CFS_OP_SETXATTR,     CFS_OP_COMMIT, CFS_OP_FALLOCATE,  CFS_OP_COPY,   CFS_OP_LOCK,
	CFS_OP_RELEASE,	     CFS_LOG_FAIL,  CFS_LOG_DEAD_DONE, CFS_LOG_PURGE, CFS_LOG_MAP,
	CFS_OP_SESSION_OPEN, CFS_LOG_FENCE,
};
static const uint16_t readings[] = {
	CFS_OP_LOOKUP,	 CFS_OP_GETATTR,   CFS_OP_READDIR, CFS_OP_READLINK,
	CFS_OP_GETXATTR, CFS_OP_LISTXATTR, CFS_OP_STATFS,  CFS_OP_OPEN,
	CFS_OP_EXTENTS,	 CFS_OP_SEEK,	   CFS_OP_GETLK,   CFS_OP_LOCK,
};

struct world {
	char dir[2][64];
	struct cfs_meta *m[2];
	uint64_t index, seq;
};

static void sink(void *arg, unsigned rec, uint32_t status, const void *body, uint32_t len)
{
	uint32_t *sum = arg;

	(void)rec;
	*sum += status;
	for (uint32_t i = 0; i < len; i++)	/* every byte of a reply must be there */
		*sum = *sum * 31 + ((const uint8_t *)body)[i];
}

static void apply(struct world *w, const void *entry, size_t len)
{
	uint32_t sum[2] = { 0, 0 };
	int rc[2];

	w->index++;
	for (int i = 0; i < 2; i++)
		rc[i] = cfs_meta_apply(w->m[i], w->index, entry, len, sink, &sum[i]);
	CFS_ASSERT(rc[0] == rc[1] && sum[0] == sum[1] && (!rc[0] || rc[0] == -EBADMSG));
}

/* one record in one entry */
static void apply_rec(struct world *w, uint16_t op, uint64_t session, uint32_t slot, uint64_t seq,
		      const uint8_t *body, size_t len)
{
	static uint8_t entry[sizeof(struct cfs_log_hdr) + sizeof(struct cfs_log_rec) + 65536 + 32];
	struct cfs_log_hdr h = {
		.magic = cfs_cpu_to_le32(CFS_LOG_MAGIC),
		.version = cfs_cpu_to_le16(CFS_LOG_VERSION),
		.n = cfs_cpu_to_le16(1),
		.time = { .sec = cfs_cpu_to_le64(w->index / 3) },
	};
	bool held = (op == CFS_OP_UNLINK || op == CFS_OP_RENAME) && w->index % 2;
	struct cfs_log_rec r = {
		.opcode = cfs_cpu_to_le16(op),
		.body_len = cfs_cpu_to_le32((uint32_t)len),
		.session = cfs_cpu_to_le64(session),
		.slot = cfs_cpu_to_le32(slot),
		.seq = cfs_cpu_to_le64(seq),
		.n_holders = cfs_cpu_to_le16(held),
	};
	cfs_le64 holder = cfs_cpu_to_le64(1000);
	size_t n = 0;

	memcpy(entry, &h, sizeof(h));
	n += sizeof(h);
	memcpy(entry + n, &r, sizeof(r));
	n += sizeof(r);
	if (len)
		memcpy(entry + n, body, len);
	n += len;
	if (held) {
		memcpy(entry + n, &holder, 8);
		n += 8;
	}
	while (n % 8)
		entry[n++] = 0;
	apply(w, entry, n);
}

/* an object is committed by one request only: that is the client's part of the bargain */
static void fresh_objects(struct world *w, uint8_t *body, size_t len)
{
	struct cfs_commit_item it;
	struct cfs_extent e;
	size_t pos = sizeof(struct cfs_commit_req);

	while (pos + sizeof(it) <= len) {
		memcpy(&it, body + pos, sizeof(it));
		pos += sizeof(it) + (size_t)cfs_le32_to_cpu(it.inline_len);
		for (uint32_t i = 0; i < cfs_le32_to_cpu(it.n_extents) && pos + sizeof(e) <= len; i++) {
			memcpy(&e, body + pos, sizeof(e));
			e.oid.seq = cfs_cpu_to_le64(w->index << 32 | (cfs_le64_to_cpu(e.oid.seq) & 7));
			memcpy(body + pos, &e, sizeof(e));
			pos += sizeof(e);
		}
	}
}

/* does a whole entry have a COMMIT record? Then its objects may be old ones: see above */
static bool has_commit(const uint8_t *entry, size_t len)
{
	size_t pos = sizeof(struct cfs_log_hdr);
	struct cfs_log_rec r;

	while (pos + sizeof(r) <= len) {
		memcpy(&r, entry + pos, sizeof(r));
		if (cfs_le16_to_cpu(r.opcode) == CFS_OP_COMMIT)
			return true;
		pos += cfs_align_up(sizeof(r) + (uint64_t)cfs_le32_to_cpu(r.body_len) +
				    8ull * cfs_le16_to_cpu(r.n_holders), 8);
	}
	return false;
}

static void step(struct world *w, uint8_t kind, uint8_t op, const uint8_t *body, size_t len)
{
	static struct cfs_footprint fp;
	static uint8_t out[CFS_BODY_MAX], commit[65536];
	uint16_t opcode;
	uint32_t n = 0;

	switch (kind % 8) {
	case 0:
		if (!has_commit(body, len))
			apply(w, body, len);
		break;
	case 1:
		opcode = readings[op % CFS_ARRAY_SIZE(readings)];
		cfs_meta_read(w->m[0], opcode, 1000, body, (uint32_t)len, out, &n);
		CFS_ASSERT(n <= CFS_BODY_MAX);
		break;
	default:
		opcode = mutations[op % CFS_ARRAY_SIZE(mutations)];
		if (opcode == CFS_OP_COMMIT) {
			memcpy(commit, body, len);
			fresh_objects(w, commit, len);
			body = commit;
		}
		cfs_meta_footprint(w->m[0], opcode, body, (uint32_t)len, &fp);
		apply_rec(w, opcode, opcode == CFS_OP_SESSION_OPEN ? 0 : 1000, 0, ++w->seq, body,
			  len);
	}
}

static void complain(void *arg, const char *finding)
{
	(void)arg;
	fprintf(stderr, "check: %s\n", finding);
}

static void world_open(struct world *w)
{
	struct cfs_session_open_req so = { .nonce = "fuzzing nonce 01",
					   .slots = cfs_cpu_to_le32(1) };
	char err[256];

	memset(w, 0, sizeof(*w));
	for (int i = 0; i < 2; i++) {
		struct cfs_meta_params p = { .path = w->dir[i],
					     .map_bytes = 8 << 20,
					     .cluster = "fuzz" };

		strcpy(w->dir[i], access("/dev/shm", W_OK) ? "/tmp/claudefs-fuzz.XXXXXX" :
							     "/dev/shm/claudefs-fuzz.XXXXXX");
		CFS_ASSERT(mkdtemp(w->dir[i]));
		CFS_ASSERT(!cfs_meta_open(&p, &w->m[i], err, sizeof(err)));
	}
	apply_rec(w, CFS_OP_SESSION_OPEN, 0, CFS_SLOT_NONE, 0, (const uint8_t *)&so, sizeof(so));
}

static void world_close(struct world *w)
{
	uint64_t d[2];

	CFS_ASSERT(cfs_meta_check(w->m[0], false, complain, NULL) == 0);
	CFS_ASSERT(!cfs_meta_digest(w->m[0], &d[0]) && !cfs_meta_digest(w->m[1], &d[1]) &&
		   d[0] == d[1]);
	for (int i = 0; i < 2; i++) {
		cfs_meta_close(w->m[i]);
		CFS_ASSERT(!cfs_meta_discard(w->dir[i]) && !rmdir(w->dir[i]));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cfs_cursor c;
	const uint8_t *head, *body;
	struct world w;

	world_open(&w);
	cfs_cursor_init(&c, data, size);
	for (unsigned i = 0; i < STEPS_MAX && (head = cfs_take(&c, 4, "step")); i++) {
		size_t len = cfs_min((size_t)cfs_get_le16(head + 2), c.left);

		body = cfs_take(&c, len, "body");
		step(&w, head[0], head[1], body, len);
	}
	world_close(&w);
	return 0;
}

/*
 * Mutations that know the format a little: insert a step that is a sound request out of few
 * names, inodes and offsets, so that the interesting part of the state is reached at once; else
 * what libFuzzer does by itself.
 */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

static size_t put_step(uint8_t *p, uint8_t op_index, const void *body, size_t len)
{
	p[0] = 2;
	p[1] = op_index;
	p[2] = (uint8_t)len;
	p[3] = (uint8_t)(len >> 8);
	memcpy(p + 4, body, len);
	return 4 + len;
}

static unsigned next(unsigned *seed)
{
	*seed = *seed * 1103515245u + 12345u;
	return *seed >> 8;
}

static size_t make_step(uint8_t *p, unsigned *seed)
{
	static const char *const xattrs[] = { "user.a", "system.posix_acl_access",
					      "system.posix_acl_default", "security.capability" };
	static const uint16_t modes[] = { 0100644, 040755, 0120777, 0106755, 042777, 010600 };
	uint64_t a = 1 + next(seed) % 5, b = 1 + next(seed) % 5, off = next(seed) % 9000,
		 len = 1 + next(seed) % 9000;
	uint8_t body[512] = { 0 };
	char name[2] = { (char)('a' + next(seed) % 4), (char)('a' + next(seed) % 4) };

	switch (next(seed) % 10) {
	case 0: {
		struct cfs_setattr_req r = { .ino = a,
					     .size = off,
					     .mode = next(seed) & 07777,
					     .valid = next(seed) & 0x3ff };

		return put_step(p, 0, &r, sizeof(r));
	}
	default: {
		struct cfs_mknode_req r = { .dir = next(seed) % 2 ? 1 : a,
					    .mode = modes[next(seed) % 6],
					    .name_len = 1,
					    .flags = next(seed) % 8 ? 0 : CFS_MK_TMPFILE };

		r.target_len = (r.mode & 0170000) == 0120000;
		if (r.flags)
			r.name_len = 0;
		memcpy(body, &r, sizeof(r));
		memcpy(body + sizeof(r), name, 2);
		return put_step(p, 1, body, sizeof(r) + r.name_len + r.target_len);
	}
	case 1: {
		struct cfs_link_req r = { .ino = a, .dir = b, .name_len = 1 };

		memcpy(body, &r, sizeof(r));
		body[sizeof(r)] = (uint8_t)name[0];
		return put_step(p, 2, body, sizeof(r) + 1);
	}
	case 2: {
		struct cfs_unlink_req r = { .dir = a, .name_len = 1, .rmdir = next(seed) % 2 };

		memcpy(body, &r, sizeof(r));
		body[sizeof(r)] = (uint8_t)name[0];
		return put_step(p, 3, body, sizeof(r) + 1);
	}
	case 3: {
		struct cfs_rename_req r = { .old_dir = a,
					    .new_dir = b,
					    .old_len = 1,
					    .new_len = 1,
					    .flags = next(seed) % 3 };

		memcpy(body, &r, sizeof(r));
		memcpy(body + sizeof(r), name, 2);
		return put_step(p, 4, body, sizeof(r) + 2);
	}
	case 4: {
		const char *x = xattrs[next(seed) % 4];
		struct cfs_setxattr_req r = { .ino = a,
					      .name_len = (uint32_t)strlen(x),
					      .value_len = 28 };
		static const uint8_t acl[28] = { 2, 0, 0, 0, 1, 0, 7, 0, 0,  0, 0, 0,
						 4, 0, 5, 0, 0, 0, 0, 0, 32, 0, 1 };

		memcpy(body, &r, sizeof(r));
		memcpy(body + sizeof(r), x, r.name_len);
		memcpy(body + sizeof(r) + r.name_len, acl, 28);
		return put_step(p, 5, body, sizeof(r) + r.name_len + 28);
	}
	case 5: {
		struct cfs_commit_req q = { .n = 1 };
		struct cfs_commit_item r = { .ino = a, .flags = next(seed) % 16 };
		struct cfs_extent e = { .file_off = off, .len = (uint32_t)len, .obj_len = 9000,
					.oid = { 1000, (uint64_t)next(seed) << 20 | next(seed) } };

		memcpy(body, &q, sizeof(q));
		if (r.flags & CFS_CI_INLINE)
			r.inline_len = 20;
		else
			r.n_extents = 1;
		memcpy(body + sizeof(q), &r, sizeof(r));
		memcpy(body + sizeof(q) + sizeof(r), &e, sizeof(e));
		return put_step(p, 6, body, sizeof(q) + sizeof(r) + (r.n_extents ? sizeof(e) : 20));
	}
	case 6: {
		static const uint32_t how[] = { 0, 1, 3, 0x10, 0x11 };
		struct cfs_fallocate_req r = {
			.ino = a, .off = off, .len = len, .mode = how[next(seed) % 5]
		};

		return put_step(p, 7, &r, sizeof(r));
	}
	case 7: {
		struct cfs_copy_req r = {
			.src = a, .src_off = off, .dst = b, .dst_off = next(seed) % 9000, .len = len
		};

		return put_step(p, 8, &r, sizeof(r));
	}
	case 8: {
		struct cfs_lock_req r = { .ino = a,
					  .owner = b,
					  .start = off % 32,
					  .end = off % 32 + len % 32,
					  .space = 1,
					  .kind = (uint8_t)(1 + next(seed) % 3) };

		return put_step(p, 9, &r, sizeof(r));
	}
	}
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
	uint8_t made[1024];
	size_t at = 0, n;

	if (seed % 4 == 0)
		return LLVMFuzzerMutate(data, size, max_size);
	n = make_step(made, &seed);
	/* between two steps */
	for (unsigned skip = next(&seed) % STEPS_MAX; skip && at + 4 <= size; skip--)
		at += 4 + (size_t)cfs_get_le16(data + at + 2);
	at = cfs_min(at, size);
	if (size + n > max_size)
		return LLVMFuzzerMutate(data, size, max_size);
	memmove(data + at + n, data + at, size - at);
	memcpy(data + at, made, n);
	return size + n;
}
