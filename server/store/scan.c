/* SPDX-License-Identifier: MIT */
/*
 * scan.c - reading the records of a segment, blocking, at start-up and for checks. State: the
 * caller's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "server/store/store_i.h"

#define WINDOW (1u << 20) /* bytes read ahead, at least */

int cfs_scan_init(struct cfs_scan *sc, struct cfs_dev *dev)
{
	memset(sc, 0, sizeof(*sc));
	sc->dev = dev;
	sc->buf = cfs_aligned_raw(CFS_SCAN_BYTES);
	return sc->buf ? 0 : -ENOMEM;
}

void cfs_scan_exit(struct cfs_scan *sc)
{
	free(sc->buf);
}

void cfs_scan_segment(struct cfs_scan *sc, const struct cfs_store *st, uint32_t seg)
{
	sc->base = cfs_seg_off(st, seg, 0);
	sc->seg_blocks = st->seg_blocks;
	sc->end = st->segs[seg].end;
	sc->at = sc->n = 0;
	sc->err = 0;
}

const void *cfs_scan_get(struct cfs_scan *sc, uint32_t block, uint32_t blocks)
{
	uint32_t n = cfs_max(blocks, WINDOW / BLK);

	CFS_ASSERT(block + blocks <= sc->seg_blocks);
	if (blocks > CFS_SCAN_BYTES / BLK) {
		sc->err = -EFBIG;
		return NULL;
	}
	if (block < sc->at || block + blocks > sc->at + sc->n) {
		n = cfs_min(n, sc->seg_blocks - block);
		sc->at = block;
		sc->n = 0;
		sc->err = sc->dev->ops->read_sync(sc->dev, sc->base + (uint64_t)block * BLK,
						  sc->buf, n * BLK);
		if (sc->err && n > blocks) { /* perhaps only what we need not have is unreadable */
			n = blocks;
			sc->err = sc->dev->ops->read_sync(sc->dev, sc->base + (uint64_t)block * BLK,
							  sc->buf, n * BLK);
		}
		if (sc->err)
			return NULL;
		sc->n = n;
	}
	return sc->buf + (size_t)(block - sc->at) * BLK;
}

static int list_add(struct cfs_scan_list *list, const struct cfs_scan_rec *rec)
{
	if (list->n == list->cap) {
		uint32_t cap = list->cap ? list->cap * 2 : 64;
		struct cfs_scan_rec *p = realloc(list->rec, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		list->rec = p;
		list->cap = cap;
	}
	list->rec[list->n++] = *rec;
	return 0;
}

/* a summary of a segment full of tombstones may be longer than the window */
static bool summary_ok(struct cfs_scan *sc, const struct cfs_disk_rec *rec, uint32_t at)
{
	uint32_t blocks = cfs_le32_to_cpu(rec->blocks), want = cfs_le32_to_cpu(rec->body_crc),
		 crc = 0;
	uint64_t left = cfs_le32_to_cpu(rec->body_len);

	for (uint32_t i = 0; i < blocks; i += WINDOW / BLK) {
		uint32_t n = cfs_min(blocks - i, WINDOW / BLK), skip = i ? 0 : sizeof(*rec);
		const uint8_t *p = cfs_scan_get(sc, at + i, n);
		uint64_t len = cfs_min(left, (uint64_t)n * BLK - skip);

		if (!p)
			return false;
		crc = cfs_crc32c(crc, p + skip, len);
		left -= len;
	}
	return crc == want;
}

const struct cfs_disk_rec *cfs_scan_rec(struct cfs_scan *sc, const struct cfs_seg_id *id, const struct cfs_scan_rec *r,
					uint32_t blocks)
{
	const struct cfs_disk_rec *rec = cfs_scan_get(sc, r->block, blocks);

	/* in the window, which is ours */
	if (rec && r->mended && !cfs_rec_check(rec, id, r->block))
		cfs_rec_mend(sc->buf + (size_t)(r->block - sc->at) * BLK, id, r->block);
	return rec;
}

/* blocks in which no record begins; a list of them is never longer than one entry between two records */
static int list_gap(struct cfs_scan_list *list, uint32_t at, int err)
{
	struct cfs_scan_rec *last = list->n ? &list->rec[list->n - 1] : NULL, r = { .block = at, .blocks = 1, .err = err };

	if (last && !last->type && last->block + last->blocks == at) {
		last->blocks++;
		last->err = last->err ? last->err : err;
		return 0;
	}
	return list_add(list, &r);
}

int cfs_scan_data(struct cfs_scan *sc, const struct cfs_seg_id *id, uint32_t from,
		  struct cfs_scan_list *list)
{
	uint32_t claimed = 0; /* blocks before belong to a damaged record, if they are none themselves */

	for (uint32_t at = from; at < cfs_min(id->seg_blocks - 1, sc->end);) {
		const struct cfs_disk_rec *rec = cfs_scan_get(sc, at, 1);
		struct cfs_scan_rec r = { .block = at, .blocks = 1 };
		int rc = 0;

		r.rotten = rec && !cfs_rec_check(rec, id, at) && cfs_rec_like(rec, id, at);
		r.mended = r.rotten && cfs_rec_mend(sc->buf + (size_t)(at - sc->at) * BLK, id, at);
		if (!rec || !cfs_rec_check(rec, id, at)) {
			if (r.rotten)
				rc = list_add(list, &r);
			else if (at >= claimed)
				rc = list_gap(list, at, rec ? 0 : sc->err);
			if (rc)
				return rc;
			at++;
			continue;
		}
		r.blocks = cfs_le32_to_cpu(rec->blocks);
		r.type = rec->type;
		list->durable = cfs_max(list->durable, cfs_le64_to_cpu(rec->durable));
		if (r.type == CFS_REC_SUMMARY) {
			r.ok = summary_ok(sc, rec, at) && !r.rotten;
		} else {
			rec = cfs_scan_rec(sc, id, &r, r.blocks);
			r.ok = rec && cfs_rec_body_ok(rec);
		}
		rc = list_add(list, &r);
		if (rc)
			return rc;
		/* behind a damaged record another may lie, within what this one says is its own */
		claimed = at + r.blocks;
		at += r.ok ? r.blocks : 1;
	}
	return 0;
}

bool cfs_ent_ok(const struct cfs_disk_ent *ent, uint32_t n_segs, uint32_t seg_blocks,
		uint32_t segment)
{
	uint32_t seg = cfs_le32_to_cpu(ent->segment), block = cfs_le32_to_cpu(ent->block);
	uint32_t len = cfs_le32_to_cpu(ent->len);

	if (seg >= n_segs || block < CFS_DISK_SEG_HDR_BLOCKS || block >= seg_blocks)
		return false;
	if (ent->type == CFS_ENT_TOMB)
		return !len;
	return ent->type == CFS_ENT_OBJECT && seg == segment && len && len <= CFS_OBJECT_MAX &&
	       cfs_obj_blocks(len) <= seg_blocks - block;
}

/*
 * The last block of a segment; of a zone, which is never padded, the last that was written: in a full zone the
 * device does not say which that was.
 */
static const struct cfs_disk_foot *find_foot(struct cfs_scan *sc, const struct cfs_seg_id *id,
					     uint32_t segment, bool zoned, bool full,
					     uint32_t *ret_block)
{
	const struct cfs_disk_foot *foot;
	uint32_t least = !zoned ? id->seg_blocks - 1 : full ? CFS_DISK_SEG_HDR_BLOCKS : sc->end - 1;

	for (uint32_t end = sc->end; end > least;) {
		uint32_t n = cfs_min(end - least, WINDOW / BLK);

		if (!cfs_scan_get(sc, end - n, n))
			return NULL;
		for (uint32_t at = end; at > end - n; at--) {
			foot = cfs_scan_get(sc, at - 1, 1);
			if (foot && cfs_foot_check(foot, id, segment)) {
				*ret_block = at - 1;
				return foot;
			}
		}
		end -= n;
	}
	return NULL;
}

bool cfs_scan_foot_rotten(struct cfs_scan *sc, const struct cfs_seg_id *id, uint32_t segment)
{
	const void *foot = cfs_scan_get(sc, id->seg_blocks - 1, 1);

	return foot && !cfs_foot_check(foot, id, segment) && cfs_foot_like(foot, id, segment);
}

int cfs_scan_summary_at(struct cfs_scan *sc, const struct cfs_seg_id *id, uint32_t at, struct cfs_disk_ent **ret_ents,
			uint32_t *ret_n, uint32_t *ret_blocks)
{
	const struct cfs_disk_rec *hdr = cfs_scan_get(sc, at, 1);
	struct cfs_disk_rec *rec;
	uint32_t blocks, n, got;

	if (!hdr || !cfs_rec_check(hdr, id, at) || hdr->type != CFS_REC_SUMMARY)
		return -ENOENT;
	blocks = cfs_le32_to_cpu(hdr->blocks);
	rec = cfs_aligned_raw((size_t)blocks * BLK);
	if (!rec)
		return -ENOMEM;
	for (uint32_t i = 0; i < blocks; i += got) {
		const void *p;

		got = cfs_min(blocks - i, WINDOW / BLK);
		p = cfs_scan_get(sc, at + i, got);
		if (!p)
			goto none;
		memcpy((char *)rec + (size_t)i * BLK, p, (size_t)got * BLK);
	}
	if (!cfs_rec_check(rec, id, at) || !cfs_rec_body_ok(rec))
		goto none;
	n = cfs_le32_to_cpu(rec->body_len) / (uint32_t)sizeof(struct cfs_disk_ent);
	memmove(rec, rec + 1, n * sizeof(struct cfs_disk_ent));
	*ret_ents = (struct cfs_disk_ent *)(void *)rec;
	*ret_n = n;
	*ret_blocks = blocks;
	return 0;
none:
	free(rec);
	return -ENOENT;
}

int cfs_scan_summary(struct cfs_scan *sc, const struct cfs_seg_id *id, uint32_t segment, bool zoned,
		     struct cfs_disk_foot *ret_foot, struct cfs_disk_ent **ret_ents,
		     uint32_t *ret_n, uint32_t *ret_sum_blocks)
{
	const struct cfs_disk_foot *foot;
	struct cfs_disk_ent *ents;
	uint32_t at, blocks, n, foot_at;
	int rc;

	if (sc->end <= CFS_DISK_SEG_HDR_BLOCKS)
		return -ENOENT;
	foot = find_foot(sc, id, segment, zoned, sc->end == sc->seg_blocks, &foot_at);
	if (!foot)
		return -ENOENT;
	*ret_foot = *foot;
	at = cfs_le32_to_cpu(foot->sum_block);
	rc = cfs_scan_summary_at(sc, id, at, &ents, &n, &blocks);
	if (rc)
		return rc;
	if (zoned && at + blocks != foot_at) {
		free(ents);
		return -ENOENT;
	}
	*ret_ents = ents;
	*ret_n = n;
	*ret_sum_blocks = blocks;
	return 0;
}
