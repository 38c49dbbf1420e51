/* SPDX-License-Identifier: MIT */
/*
 * data_fetch.c - reads pieces of objects from their targets, several at once, and checks every 64 KiB block before
 * anybody sees a byte of it. A copy that is missing, rotten or out of reach makes the next one be tried.
 * No state; any thread.
 */
#include "client/data_i.h"

#include "base/crc32c.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CRCS_MAX	(CFS_OBJECT_CRCS + 1)

struct try {
	uint32_t targets[CFS_DATA_REPLICAS_MAX];
	unsigned n_targets, tried;
	bool missing;			/* some target says that there is no such object */
	struct cfs_obj_read_req req;
	struct iovec body;
	struct {
		struct cfs_obj_read_rep rep;
		cfs_le32 crcs[CRCS_MAX];
	} rep;
};

static void *where(struct cfs_data_fetch *f)
{
	return f->bounce ? f->bounce : f->dst;
}

static int prepare(struct cfs_data_ctx *g, struct cfs_data_fetch *f, struct try *t)
{
	uint64_t end = cfs_align_up((uint64_t)f->obj_off + f->len, CFS_CRC_BLOCK);

	CFS_ASSERT(f->len && (uint64_t)f->obj_off + f->len <= f->ext.obj_len);
	t->tried = 0;
	t->missing = false;
	f->rc = -EIO;
	f->blk_off = (uint32_t)cfs_align_down(f->obj_off, CFS_CRC_BLOCK);
	f->blk_len = (uint32_t)cfs_min(end, f->ext.obj_len) - f->blk_off;
	f->bounce = NULL;
	if (f->blk_off != f->obj_off || f->blk_len != f->len) {
		f->bounce = malloc(f->blk_len);
		if (!f->bounce)
			return f->rc = -ENOMEM;
	}
	t->n_targets = cfs_client_pg_targets(g->c, &f->ext.oid, t->targets, CFS_DATA_REPLICAS_MAX);
	if (!t->n_targets)
		cfs_warn("object %" PRIx64 ".%" PRIx64 ": the cluster map does not say where it is",
			 cfs_le64_to_cpu(f->ext.oid.owner), cfs_le64_to_cpu(f->ext.oid.seq));
	return 0;
}

/* 0 or what is wrong with the answer */
static const char *check(const struct cfs_data_fetch *f, const struct try *t, const struct cfs_call *call)
{
	uint32_t n_crcs = (f->blk_len + CFS_CRC_BLOCK - 1) / CFS_CRC_BLOCK;
	const unsigned char *p = call->rep_payload;

	if (call->rep_len != sizeof(t->rep.rep) + n_crcs * sizeof(cfs_le32) || call->rep_payload_len != f->blk_len ||
	    cfs_le32_to_cpu(t->rep.rep.off) != f->blk_off || cfs_le32_to_cpu(t->rep.rep.len) != f->blk_len)
		return "other bytes than asked for";
	if (cfs_le32_to_cpu(t->rep.rep.obj_len) != f->ext.obj_len)
		return "another length than the extent";
	for (uint32_t i = 0; i < n_crcs; i++) {
		uint32_t off = i * CFS_CRC_BLOCK, len = cfs_min(CFS_CRC_BLOCK, f->blk_len - off);

		if (cfs_crc32c(0, p + off, len) != cfs_le32_to_cpu(t->rep.crcs[i]))
			return "a wrong checksum";
	}
	return NULL;
}

static void judge(struct cfs_data_ctx *g, uint64_t ino, struct cfs_data_fetch *f, struct try *t,
		  const struct cfs_call *call, uint32_t target, int rc)
{
	const char *bad = rc ? NULL : check(f, t, call);

	if (!rc && !bad) {
		f->rc = 0;
		stat_add(g, reads_net, 1);
		stat_add(g, bytes_read_net, f->blk_len);
		return;
	}
	if (rc == CFS_E_NOOBJECT)
		t->missing = true;
	else if (bad || rc == CFS_E_CORRUPT)
		cfs_err("inode %" PRIx64 ": copy of object %" PRIx64 ".%" PRIx64 " on target %u: %s", ino,
			cfs_le64_to_cpu(f->ext.oid.owner), cfs_le64_to_cpu(f->ext.oid.seq), target,
			bad ? bad : "the target finds it corrupt");
	else
		cfs_warn("inode %" PRIx64 ": object %" PRIx64 ".%" PRIx64 " on target %u cannot be read: error %d", ino,
			 cfs_le64_to_cpu(f->ext.oid.owner), cfs_le64_to_cpu(f->ext.oid.seq), target, rc);
}

/* ask one more copy of each that is not there yet; false: nothing left to ask */
static bool round_trip(struct cfs_data_ctx *g, uint64_t ino, struct cfs_data_fetch *f, struct try *t, unsigned n)
{
	struct cfs_call calls[CFS_DATA_FETCH_MAX];
	uint32_t targets[CFS_DATA_FETCH_MAX];
	int which[CFS_DATA_FETCH_MAX], rc[CFS_DATA_FETCH_MAX];
	unsigned m = 0;

	for (unsigned i = 0; i < n; i++) {
		unsigned first;

		if (!f[i].rc || f[i].rc == -ENOMEM || t[i].tried == t[i].n_targets)
			continue;
		/* spread by place, so that one file's blocks come from all copies */
		first = (unsigned)(cfs_le64_to_cpu(f[i].ext.oid.seq) + (f[i].blk_off >> 20)) % t[i].n_targets;
		targets[m] = t[i].targets[(first + t[i].tried++) % t[i].n_targets];
		t[i].req = (struct cfs_obj_read_req){
			.oid = f[i].ext.oid, .target = cfs_cpu_to_le32(targets[m]),
			.off = cfs_cpu_to_le32(f[i].blk_off), .len = cfs_cpu_to_le32(f[i].blk_len),
		};
		t[i].body = (struct iovec){ &t[i].req, sizeof(t[i].req) };
		calls[m] = (struct cfs_call){
			.opcode = CFS_OP_OBJ_READ, .body = &t[i].body, .n_body = 1, .rep = &t[i].rep,
			.rep_max = sizeof(t[i].rep), .rep_payload = where(&f[i]), .rep_payload_max = f[i].blk_len,
		};
		which[m++] = (int)i;
	}
	if (!m)
		return false;
	if (m == 1)
		rc[0] = cfs_call_target(g->c, targets[0], &calls[0]);
	else
		cfs_call_targets(g->c, targets, calls, rc, m);
	for (unsigned k = 0; k < m; k++)
		judge(g, ino, &f[which[k]], &t[which[k]], &calls[k], targets[k], rc[k]);
	return true;
}

void cfs_data_fetch(struct cfs_data_ctx *g, uint64_t ino, struct cfs_data_fetch *f, unsigned n)
{
	struct try t[CFS_DATA_FETCH_MAX];

	CFS_ASSERT(n <= CFS_DATA_FETCH_MAX);
	for (unsigned i = 0; i < n; i++)
		prepare(g, &f[i], &t[i]);
	while (round_trip(g, ino, f, t, n))
		;
	for (unsigned i = 0; i < n; i++) {
		if (f[i].rc == -EIO && t[i].missing)
			f[i].rc = -ESTALE;
		if (!f[i].rc && f[i].bounce)
			memcpy(f[i].dst, f[i].bounce + (f[i].obj_off - f[i].blk_off), f[i].len);
	}
}
