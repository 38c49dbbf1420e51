/* SPDX-License-Identifier: MIT */
/*
 * data.c - open data segments, the device writes into them, and how those become durable. State:
 * st->osegs, st->open, the flush lists.
 *
 * A lone write is sent durable. When several are under way they are sent plain, and one flush
 * after their completion serves all that wait for it: the drive, or the file system below, pays
 * once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/log.h"
#include "server/store/store_i.h"

/* ---- durability ------------------------------------------------------------------------- */

static void flush_pump(struct cfs_store *st);
static void try_seal(struct cfs_oseg *os);

static void batch_end(struct cfs_batch *b, int err)
{
	struct cfs_oseg *os = b->os;

	cfs_list_del(&b->flight);
	CFS_ASSERT(os->staged >= b->n_ents);
	os->staged -= b->n_ents;
	if (err) {
		cfs_err("store: target %u: write of %u blocks at device offset %llu failed: %s",
			cfs_le32_to_cpu(os->st->sb.target_id), b->blocks,
			(unsigned long long)cfs_seg_off(os->st, os->seg, b->block), strerror(-err));
		os->hole = cfs_min(os->hole, b->block);
		os->want_seal = true;
		if (os->st->open[os->cls] == os)
			os->st->open[os->cls] = NULL;
	}
	b->landed(b, err);
	try_seal(os);
}

static void flush_done(struct cfs_dev_req *req)
{
	struct cfs_store *st = cfs_container_of(req, struct cfs_store, flush_req);
	int err = req->result < 0 ? (int)req->result : 0;

	cfs_store_submitted(st);
	st->flush_busy = false;
	if (err) {
		/* later flushes may succeed without what this one lost: believe none of them */
		cfs_err("store: flush failed: %s; no more writes are accepted", strerror(-err));
		st->failed = true;
	}
	while (!cfs_list_empty(&st->flush_now)) {
		struct cfs_batch *b = cfs_list_first(&st->flush_now, struct cfs_batch, wait);

		cfs_list_del(&b->wait);
		batch_end(b, err);
	}
	flush_pump(st);
}

static void flush_pump(struct cfs_store *st)
{
	if (st->flush_busy || cfs_list_empty(&st->flush_wait))
		return;
	cfs_list_add_tail(&st->flush_wait, &st->flush_now); /* all of them: flush_now is empty */
	cfs_list_del(&st->flush_wait);
	st->flush_busy = true;
	st->flush_req = (struct cfs_dev_req){ .op = CFS_DEV_FLUSH, .done = flush_done };
	cfs_store_submit(st, &st->flush_req);
}

static void batch_written(struct cfs_dev_req *req)
{
	struct cfs_batch *b = cfs_container_of(req, struct cfs_batch, req);
	struct cfs_store *st = b->st;

	cfs_store_submitted(st);
	if (req->result < 0) {
		batch_end(b, (int)req->result);
	} else if (st->failed) {
		batch_end(b, -EIO);
	} else if (req->flags & CFS_DEV_DURABLE) {
		batch_end(b, 0);
	} else {
		cfs_list_add_tail(&st->flush_wait, &b->wait);
		flush_pump(st);
	}
}

/*
 * b->os, iov, iovcnt, blocks, n_ents and landed are set; room was checked by cfs_oseg_get().
 * Records in it were encoded for os->head, which moves on. @alone: nothing else is under way or
 * queued
 */
void cfs_batch_submit(struct cfs_batch *b, bool alone)
{
	struct cfs_oseg *os = b->os;
	struct cfs_store *st = os->st;

	CFS_ASSERT(os->state == CFS_OSS_READY && b->iovcnt && b->iovcnt <= CFS_DEV_IOV_MAX);
	b->st = st;
	b->block = os->head;
	os->head += b->blocks;
	os->staged += b->n_ents;
	CFS_ASSERT(os->head < st->seg_blocks);
	cfs_list_add_tail(&os->flight, &b->flight);
	b->req = (struct cfs_dev_req){
		.op = CFS_DEV_WRITE,
		.flags = alone ? CFS_DEV_DURABLE : 0,
		.offset = cfs_seg_off(st, os->seg, b->block),
		.iov = b->iov,
		.iovcnt = b->iovcnt,
		.len = (uint64_t)b->blocks * BLK,
		.done = batch_written,
	};
	cfs_store_submit(st, &b->req);
}

uint64_t cfs_oseg_durable(const struct cfs_oseg *os)
{
	uint32_t at = os->head;

	if (!cfs_list_empty(&os->flight))
		at = cfs_list_first(&os->flight, struct cfs_batch, flight)->block;
	return cfs_min(at, os->hole);
}

/* ---- opening ---------------------------------------------------------------------------- */

int cfs_oseg_init(struct cfs_store *st, struct cfs_oseg *os, uint32_t seg, enum cfs_oseg_class cls)
{
	memset(os, 0, sizeof(*os));
	os->st = st;
	os->seg = seg;
	os->cls = (uint8_t)cls;
	os->head = CFS_DISK_SEG_HDR_BLOCKS;
	os->hole = UINT32_MAX;
	cfs_list_init(&os->flight);
	os->hdr.buf = cfs_aligned_alloc(CFS_DISK_SEG_HDR_BLOCKS * BLK);
	os->foot = cfs_aligned_alloc(BLK);
	if (!os->hdr.buf || !os->foot) {
		cfs_oseg_drop(os);
		return -ENOMEM;
	}
	return 0;
}

void cfs_oseg_drop(struct cfs_oseg *os)
{
	free(os->hdr.buf);
	free(os->foot);
	free(os->sum);
	free(os->ents);
	memset(os, 0, sizeof(*os)); /* CFS_OSS_UNUSED */
}

bool cfs_oseg_room(const struct cfs_store *st, const struct cfs_oseg *os, uint32_t blocks,
		   uint32_t ents)
{
	uint64_t need =
		(uint64_t)os->head + blocks + cfs_sum_blocks(os->n_ents + os->staged + ents) + 1;

	return need <= st->seg_blocks;
}

int cfs_oseg_reserve_ents(struct cfs_oseg *os, uint32_t n)
{
	uint32_t want = os->n_ents + os->staged + n, cap = os->cap_ents ? os->cap_ents : 256;
	struct cfs_disk_ent *p;

	while (cap < want)
		cap *= 2;
	if (cap == os->cap_ents)
		return 0;
	p = realloc(os->ents, cap * sizeof(*p));
	if (!p)
		return -ENOMEM;
	os->ents = p;
	os->cap_ents = cap;
	return 0;
}

void cfs_oseg_add_ent(struct cfs_oseg *os, const struct cfs_disk_ent *ent)
{
	CFS_ASSERT(os->n_ents < os->cap_ents);
	os->ents[os->n_ents++] = *ent;
}

void cfs_oseg_end(struct cfs_store *st, enum cfs_oseg_class cls)
{
	struct cfs_oseg *os = st->open[cls];

	if (!os)
		return;
	os->want_seal = true;
	st->open[cls] = NULL;
	try_seal(os);
}

static void opened(struct cfs_seg_io *io, int err)
{
	struct cfs_oseg *os = cfs_container_of(io, struct cfs_oseg, hdr);
	struct cfs_store *st = os->st;

	if (err) {
		cfs_seg_spoilt(st, os->seg, err);
		if (st->open[os->cls] == os)
			st->open[os->cls] = NULL;
		cfs_oseg_drop(os);
	} else {
		os->state = CFS_OSS_READY;
		st->segs[os->seg].state = CFS_SS_OPEN;
		try_seal(os); /* nobody may want it any more */
	}
	cfs_store_kick(st);
}

/*
 * The open segment of a class, with room. -EAGAIN: one is being prepared or sealed,
 * cfs_store_kick() will follow; -ENOSPC; -ENOMEM; -ENODEV.
 */
int cfs_oseg_get(struct cfs_store *st, enum cfs_oseg_class cls, enum cfs_alloc who, uint32_t blocks,
		 uint32_t ents, struct cfs_oseg **ret_os)
{
	struct cfs_oseg *os = st->open[cls];
	uint32_t seg;
	int rc;

	if (st->dev->stat.gone)
		return -ENODEV;		/* or one segment after the other would be tried, and found bad */
	if (os && os->state == CFS_OSS_OPENING)
		return -EAGAIN;
	if (os && cfs_oseg_room(st, os, blocks, ents)) {
		rc = cfs_oseg_reserve_ents(os, ents);
		if (!rc)
			*ret_os = os;
		return rc;
	}
	if (!cfs_seg_available(st, who)) {
		if (who <= CFS_ALLOC_USER && cfs_below_pending(st, who))
			return -EAGAIN;
		/* its dead space can only be had after sealing */
		const struct cfs_seg *s = os ? &st->segs[os->seg] : NULL;

		if (s && os->head - CFS_DISK_SEG_HDR_BLOCKS - s->live >= st->seg_blocks / 16)
			cfs_oseg_end(st, cls);
		return -ENOSPC;
	}
	cfs_oseg_end(st, cls);
	for (os = st->osegs; os < st->osegs + CFS_OSEGS && os->state != CFS_OSS_UNUSED; os++)
		;
	if (os == st->osegs + CFS_OSEGS)
		return -EAGAIN;
	rc = cfs_oseg_init(st, os, 0, cls);
	if (rc)
		return rc;
	rc = cfs_seg_alloc(st, who, &seg);
	CFS_ASSERT(!rc);
	os->seg = seg;
	os->state = CFS_OSS_OPENING;
	st->open[cls] = os;
	cfs_seg_hdr_write(st, &os->hdr, seg, CFS_SEG_DATA, opened);
	return -EAGAIN;
}

/* ---- sealing ---------------------------------------------------------------------------- */

/* summary at os->head and footer, in os->sum and os->foot. -ENOMEM */
static int encode_summary(struct cfs_store *st, struct cfs_oseg *os, bool sealed)
{
	struct cfs_seg_id id = cfs_seg_ident(st, os->seg);
	struct cfs_disk_foot *foot = os->foot;
	struct cfs_disk_ent *ents;
	struct cfs_disk_rec *rec;
	uint32_t n = 0;

	free(os->sum);
	os->sum = cfs_aligned_alloc((size_t)cfs_sum_blocks(os->n_ents) * BLK);
	if (!os->sum)
		return -ENOMEM;
	rec = os->sum;
	ents = (void *)(rec + 1);
	/*
	 * before the flush at start is over, a segment that reads as free may still come back
	 * from its cache
	 */
	for (uint32_t i = 0; i < os->n_ents; i++)
		if (os->ents[i].type == CFS_ENT_OBJECT || !st->settled ||
		    cfs_tomb_needed(st, &os->ents[i]))
			ents[n++] = os->ents[i];
	cfs_rec_init(rec, CFS_REC_SUMMARY, &id, os->head, sizeof(*rec),
		     n * (uint32_t)sizeof(*ents));
	rec->seq = cfs_cpu_to_le64(st->next_rec_seq++);
	rec->epoch = cfs_cpu_to_le64(st->epoch);
	rec->durable = cfs_cpu_to_le64(cfs_oseg_durable(os));
	rec->body_crc = cfs_cpu_to_le32(cfs_crc32c(0, ents, n * sizeof(*ents)));
	cfs_rec_seal(rec);
	os->sum_blocks = cfs_sum_blocks(n);

	memset(foot, 0, BLK);
	foot->magic = cfs_cpu_to_le32(CFS_FOOT_MAGIC);
	foot->version = cfs_cpu_to_le16(CFS_DISK_STRUCT_VERSION);
	foot->flags = cfs_cpu_to_le16(sealed ? CFS_FOOT_SEALED : 0);
	foot->segment = cfs_cpu_to_le32(os->seg);
	foot->sum_block = cfs_cpu_to_le32(os->head);
	foot->seg_seq = cfs_cpu_to_le64(id.seg_seq);
	foot->salt = cfs_cpu_to_le64(id.salt);
	foot->end_block = cfs_cpu_to_le32(os->head);
	cfs_disk_crc_set(foot, sizeof(*foot));
	CFS_ASSERT(os->head + os->sum_blocks < st->seg_blocks);
	return 0;
}

static uint32_t foot_block(const struct cfs_oseg *os)
{
	return os->st->zoned ? os->head + os->sum_blocks : os->st->seg_blocks - 1;
}

static void seal_done(struct cfs_oseg *os)
{
	struct cfs_store *st = os->st;
	uint32_t used = os->head - CFS_DISK_SEG_HDR_BLOCKS;
	struct cfs_disk_ent *ents = os->ents;

	if (os->seal_err && os->seal_err != -ENOTRECOVERABLE)
		cfs_err("store: sealing segment %u failed: %s; what it holds is moved", os->seg,
			strerror(-os->seal_err));
	cfs_seg_sealed(st, os->seg, used, os->seal_err ? 0 : os->head,
		       os->seal_err ? 0 : os->sum_blocks);
	if (os->seal_err) {
		os->ents = NULL;
		cfs_seg_set_ents(st, os->seg, ents, os->n_ents);
	}
	if (st->zoned)
		cfs_zone_finish(st, os->seg);
	cfs_oseg_drop(os);
	cfs_store_kick(st);
}

static void seal_part_done(struct cfs_oseg *os, const struct cfs_dev_req *req)
{
	cfs_store_submitted(os->st);
	if (req->result < 0)
		os->seal_err = (int)req->result;
	if (!--os->sealing)
		seal_done(os);
}

static void seal_sum_written(struct cfs_dev_req *req)
{
	seal_part_done(cfs_container_of(req, struct cfs_oseg, seal_req[0]), req);
}

static void seal_foot_written(struct cfs_dev_req *req)
{
	seal_part_done(cfs_container_of(req, struct cfs_oseg, seal_req[1]), req);
}

/*
 * a damaged pair is no harm: a footer or summary that is not right means scanning the segment at
 * start
 */
static void try_seal(struct cfs_oseg *os)
{
	struct cfs_store *st = os->st;
	int rc;

	if (os->state != CFS_OSS_READY || !os->want_seal || !cfs_list_empty(&os->flight))
		return;
	os->state = CFS_OSS_SEALING;
	/* a zone in which a write has failed takes nothing more where we would write it */
	rc = st->zoned && os->hole != UINT32_MAX ? -ENOTRECOVERABLE : encode_summary(st, os, true);
	if (rc) {
		os->seal_err = rc;
		seal_done(os);
		return;
	}
	os->sealing = 2;
	os->seal_iov[0] = (struct iovec){ os->sum, (size_t)os->sum_blocks * BLK };
	os->seal_iov[1] = (struct iovec){ os->foot, BLK };
	for (int i = 0; i < 2; i++) {
		os->seal_req[i] = (struct cfs_dev_req){
			.op = CFS_DEV_WRITE,
			.flags = CFS_DEV_DURABLE,
			.offset = cfs_seg_off(st, os->seg, i ? foot_block(os) : os->head),
			.iov = &os->seal_iov[i],
			.iovcnt = 1,
			.len = os->seal_iov[i].iov_len,
			.done = i ? seal_foot_written : seal_sum_written,
		};
		cfs_store_submit(st, &os->seal_req[i]);
	}
}

int cfs_oseg_write_summary_sync(struct cfs_store *st, struct cfs_oseg *os, bool sealed)
{
	int rc = encode_summary(st, os, sealed);

	if (!rc)
		rc = st->dev->ops->write_sync(st->dev, cfs_seg_off(st, os->seg, os->head), os->sum,
					      os->sum_blocks * BLK);
	if (!rc)
		rc = st->dev->ops->write_sync(st->dev, cfs_seg_off(st, os->seg, foot_block(os)),
					      os->foot, BLK);
	return rc;
}
