/* SPDX-License-Identifier: MIT */
/*
 * read.c - reading objects, whole crc blocks, verified. Buffers come from three pools of bounded
 * size; who finds them empty waits in line. State: st->rclass.
 *
 * A buffer is one block for the record's header, then the data. A read from the object's start
 * is one device request; one from further on is two, side by side.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/log.h"
#include "server/store/store_i.h"

struct cfs_rbuf {
	struct cfs_list node;
	struct cfs_rclass *cls;
	struct cfs_rjob *job;
	struct cfs_dev_req req[2];
	struct iovec iov[2];
	uint32_t pending;
	int err;
	uint8_t *buf;
};

static const struct {
	uint32_t size, max;
} classes[CFS_RCLASSES] = {
	{ CFS_CRC_BLOCK, 64 },
	{ 1u << 20, 16 },
	{ CFS_OBJECT_MAX, 8 },
};

struct rpriv {
	struct cfs_rjob job;
	struct cfs_defer defer;
	bool held;
} __attribute__((may_alias));
_Static_assert(sizeof(struct rpriv) <= sizeof(((struct cfs_store_read *)0)->priv), "rpriv");

static void start(struct cfs_rjob *job);

int cfs_read_init(struct cfs_store *st)
{
	for (uint32_t i = 0; i < CFS_RCLASSES; i++) {
		st->rclass[i].size = classes[i].size;
		st->rclass[i].max = classes[i].max;
		cfs_list_init(&st->rclass[i].free);
		cfs_list_init(&st->rclass[i].queue);
	}
	return 0;
}

void cfs_read_exit(struct cfs_store *st)
{
	for (uint32_t i = 0; i < CFS_RCLASSES; i++) {
		struct cfs_rclass *c = &st->rclass[i];

		while (c->free.next && !cfs_list_empty(&c->free)) {
			struct cfs_rbuf *rb = cfs_list_first(&c->free, struct cfs_rbuf, node);

			cfs_list_del(&rb->node);
			cfs_dev_mem_del(st->dev, rb->buf);
			free(rb->buf);
			free(rb);
		}
	}
}

void cfs_rot_report(struct cfs_store *st, const struct cfs_oid *oid, const struct cfs_loc *loc,
		    int crc_block)
{
	uint64_t off = cfs_seg_off(st, loc->seg, loc->block);

	st->checksum_errors++;
	if (crc_block >= 0)
		off += BLK + (uint64_t)crc_block * CFS_CRC_BLOCK;
	cfs_err("store: target %u: object %llx.%llx is damaged: %s does not match its "
		"checksum (segment %u, device offset %llu)",
		cfs_le32_to_cpu(st->sb.target_id),
		(unsigned long long)cfs_le64_to_cpu(oid->owner),
		(unsigned long long)cfs_le64_to_cpu(oid->seq),
		crc_block >= 0 ? "data" : "its header", loc->seg, (unsigned long long)off);
}

const struct cfs_cut *cfs_cut_find(const struct cfs_store *st, const struct cfs_oid *oid)
{
	for (uint32_t i = 0; i < st->n_cut; i++)
		if (cfs_oid_eq(&st->cut[i].oid, oid))
			return &st->cut[i];
	return NULL;
}

void cfs_cut_forget(struct cfs_store *st, const struct cfs_oid *oid)
{
	for (uint32_t i = 0; i < st->n_cut; i++)
		if (cfs_oid_eq(&st->cut[i].oid, oid))
			st->cut[i--] = st->cut[--st->n_cut];
}

/* somebody wants it: then it had been acknowledged, and what the start took for cut off was damaged */
static int absent(struct cfs_store *st, const struct cfs_oid *oid)
{
	const struct cfs_cut *cut = cfs_cut_find(st, oid);

	if (!cut)
		return -ENOENT;
	st->checksum_errors++;
	cfs_err("store: target %u: object %llx.%llx is damaged: its record in segment %u at device offset %llu was not whole "
		"when the store was opened", cfs_le32_to_cpu(st->sb.target_id),
		(unsigned long long)cfs_le64_to_cpu(oid->owner), (unsigned long long)cfs_le64_to_cpu(oid->seq), cut->seg,
		(unsigned long long)cut->offset);
	return -EBADMSG;
}

/* ---- buffers ---------------------------------------------------------------------------- */

static struct cfs_rbuf *rbuf_take(struct cfs_store *st, struct cfs_rclass *c)
{
	struct cfs_rbuf *rb;

	if (!cfs_list_empty(&c->free)) {
		rb = cfs_list_first(&c->free, struct cfs_rbuf, node);
		cfs_list_del(&rb->node);
		return rb;
	}
	if (c->n == c->max)
		return NULL;
	rb = calloc(1, sizeof(*rb));
	if (!rb)
		return NULL;
	rb->buf = cfs_aligned_raw(BLK + c->size);
	if (!rb->buf) {
		free(rb);
		return NULL;
	}
	cfs_dev_mem_add(st->dev, rb->buf, BLK + c->size);
	cfs_list_init(&rb->node);
	rb->cls = c;
	c->n++;
	return rb;
}

void cfs_rjob_release(struct cfs_rjob *job)
{
	struct cfs_rbuf *rb = job->rb;
	struct cfs_rclass *c = rb->cls;

	job->rb = NULL;
	cfs_list_add_head(&c->free, &rb->node);
	if (!cfs_list_empty(&c->queue)) {
		struct cfs_rjob *next = cfs_list_first(&c->queue, struct cfs_rjob, node);

		cfs_list_del(&next->node);
		start(next);
	}
}

/* ---- one job ---------------------------------------------------------------------------- */

static void run_failed(struct cfs_defer *d)
{
	struct cfs_rjob *job = cfs_container_of(d, struct cfs_rjob, defer);

	job->done(job, job->err);
}

static void fail_later(struct cfs_rjob *job, int err)
{
	job->err = err;
	job->defer.fn = run_failed;
	cfs_store_later(job->st, &job->defer);
}

const struct cfs_disk_rec *cfs_rjob_header(const struct cfs_rjob *job)
{
	return (const void *)job->rb->buf;
}

static int verify(struct cfs_rjob *job)
{
	struct cfs_store *st = job->st;
	struct cfs_rbuf *rb = job->rb;
	const struct cfs_disk_rec *rec = (const void *)rb->buf;
	struct cfs_seg_id id = cfs_seg_ident(st, job->loc.seg);
	int bad = -1;

	if (!cfs_rec_check(rec, &id, job->loc.block) || rec->type != CFS_REC_OBJECT ||
	    !cfs_oid_eq(&cfs_rec_obj(rec)->oid, &job->oid) ||
	    cfs_le32_to_cpu(rec->body_len) != job->loc.len)
		goto rot;
	bad = cfs_obj_data_check(rec, rb->buf + BLK, job->off, job->end - job->off);
	if (bad < 0)
		return 0;
rot:
	cfs_rot_report(st, &job->oid, &job->loc, bad);
	return -EBADMSG;
}

static void part_done(struct cfs_rbuf *rb, const struct cfs_dev_req *req)
{
	struct cfs_rjob *job = rb->job;
	struct cfs_store *st = job->st;
	int err;

	cfs_store_submitted(st);
	if (req->result < 0) {
		rb->err = (int)req->result;
		cfs_err("store: target %u: reading object %llx.%llx failed at device offset %llu: %s",
			cfs_le32_to_cpu(st->sb.target_id),
			(unsigned long long)cfs_le64_to_cpu(job->oid.owner),
			(unsigned long long)cfs_le64_to_cpu(job->oid.seq),
			(unsigned long long)req->offset, strerror(-rb->err));
	}
	if (--rb->pending)
		return;
	err = rb->err ? rb->err : verify(job);
	if (!--st->segs[job->loc.seg].readers)
		cfs_clean_kick(st);
	if (err)
		cfs_rjob_release(job);
	job->done(job, err);
}

static void part0_done(struct cfs_dev_req *req)
{
	part_done(cfs_container_of(req, struct cfs_rbuf, req[0]), req);
}

static void part1_done(struct cfs_dev_req *req)
{
	part_done(cfs_container_of(req, struct cfs_rbuf, req[1]), req);
}

static void send_part(struct cfs_rjob *job, int i, uint32_t skip, uint64_t at, uint32_t blocks)
{
	struct cfs_rbuf *rb = job->rb;

	rb->iov[i] = (struct iovec){ rb->buf + skip, (size_t)blocks * BLK };
	rb->req[i] = (struct cfs_dev_req){
		.op = CFS_DEV_READ,
		.offset = cfs_seg_off(job->st, job->loc.seg, job->loc.block) + at,
		.iov = &rb->iov[i],
		.iovcnt = 1,
		.len = rb->iov[i].iov_len,
		.done = i ? part1_done : part0_done,
	};
	cfs_store_submit(job->st, &rb->req[i]);
}

/* finds the object, widens the range, takes a buffer (or waits for one) and reads */
static void start(struct cfs_rjob *job)
{
	struct cfs_store *st = job->st;
	uint32_t off, end, i = 0;
	struct cfs_rbuf *rb;

	if (!cfs_index_get(st->index, &job->oid, &job->loc)) {
		fail_later(job, absent(st, &job->oid));
		return;
	}
	off = job->off;
	end = job->end;
	if (off != end) {
		if (off >= job->loc.len) {
			fail_later(job, -EINVAL);
			return;
		}
		off = (uint32_t)cfs_align_down(off, CFS_CRC_BLOCK);
		end = (uint32_t)cfs_align_up(end, CFS_CRC_BLOCK);
		end = cfs_min(end, job->loc.len);
	}
	while (i < CFS_RCLASSES - 1 && end - off > classes[i].size)
		i++;
	rb = rbuf_take(st, &st->rclass[i]);
	if (!rb) {
		if (!st->rclass[i].n)
			fail_later(job, -ENOMEM); /* nobody holds one: none would ever come back */
		else
			cfs_list_add_tail(&st->rclass[i].queue, &job->node);
		return;
	}
	job->rb = rb;
	job->off = off;
	job->end = end;
	rb->job = job;
	rb->err = 0;
	st->segs[job->loc.seg].readers++;
	if (!off) {
		rb->pending = 1;
		send_part(job, 0, 0, 0, 1 + cfs_blocks_of(end));
	} else {
		rb->pending = off == end ? 1 : 2;
		send_part(job, 0, 0, 0, 1);
		if (off != end)
			send_part(job, 1, BLK, (uint64_t)BLK + off, cfs_blocks_of(end - off));
	}
}

void cfs_rjob_start(struct cfs_rjob *job)
{
	CFS_ASSERT(job->off <= job->end);
	start(job);
}

/* ---- the call --------------------------------------------------------------------------- */

static void read_done(struct cfs_rjob *job, int err)
{
	struct rpriv *p = cfs_container_of(job, struct rpriv, job);
	struct cfs_store_read *r =
		cfs_container_of((uint64_t *)(void *)p, struct cfs_store_read, priv);

	if (!err) {
		const struct cfs_disk_rec *rec = cfs_rjob_header(job);
		uint32_t *crcs = (uint32_t *)(void *)(job->rb->buf + CFS_DISK_OBJ_HDR(0));
		uint32_t n = cfs_le32_to_cpu(cfs_rec_obj(rec)->n_crcs);

		p->held = true;
		r->data = job->rb->buf + BLK;
		r->ret_off = job->off;
		r->ret_len = job->end - job->off;
		r->obj_len = job->loc.len;
		for (uint32_t i = 0; i < n; i++) /* in place, to host order */
			crcs[i] = cfs_le32_to_cpu(crcs[i]);
		r->crcs = crcs + job->off / CFS_CRC_BLOCK;
		r->n_crcs = cfs_crcs_of(r->ret_len);
	}
	r->done(r, err);
}

static void run_invalid(struct cfs_defer *d)
{
	struct rpriv *p = cfs_container_of(d, struct rpriv, defer);
	struct cfs_store_read *r =
		cfs_container_of((uint64_t *)(void *)p, struct cfs_store_read, priv);

	r->done(r, -EINVAL);
}

void cfs_store_read(struct cfs_store *st, struct cfs_store_read *r)
{
	struct rpriv *p = (struct rpriv *)(void *)r->priv;

	memset(p, 0, sizeof(*p));
	r->data = NULL;
	r->crcs = NULL;
	r->ret_off = r->ret_len = r->obj_len = r->n_crcs = 0;
	if (!r->len || r->off >= CFS_OBJECT_MAX) {
		p->defer.fn = run_invalid;
		cfs_store_later(st, &p->defer);
		return;
	}
	p->job = (struct cfs_rjob){ .st = st,
				    .oid = r->oid,
				    .off = r->off,
				    .end = r->off + cfs_min(r->len, CFS_OBJECT_MAX - r->off),
				    .done = read_done };
	cfs_rjob_start(&p->job);
}

void cfs_store_read_release(struct cfs_store *st, struct cfs_store_read *r)
{
	struct rpriv *p = (struct rpriv *)(void *)r->priv;

	(void)st;
	if (!p->held)
		return;
	p->held = false;
	r->data = NULL;
	r->crcs = NULL;
	cfs_rjob_release(&p->job);
}
