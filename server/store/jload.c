/* SPDX-License-Identifier: MIT */
/*
 * jload.c - reading a journal back. Blocking, at start-up. State: the journal's marks and owner
 * tables.
 *
 * The stream is followed record by record. Where it breaks, everything behind is searched for
 * the highest watermark: if that says the missing record was durable, it has rotted, and opening
 * fails, naming it; else the stream ends there, because nothing from there on was ever
 * acknowledged.
 */
#include "server/store/journal_i.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

void cfs_journal_forget_found(struct cfs_journal *j)
{
	free(j->marks);
	free(j->owner);
	j->marks = NULL;
	j->owner = NULL;
	j->n_marks = j->cap_marks = j->n_owner = j->cap_owner = 0;
}

/* ---- items ------------------------------------------------------------------------------ */

/* the item at *pos of a body; moves on. 1, 0 at the end, -EUCLEAN */
static int next_item(const uint8_t *body, uint32_t len, uint32_t *pos, struct cfs_journal_entry *e,
		     uint32_t *ret_type)
{
	struct cfs_disk_jitem it;
	uint32_t left = len - *pos;

	if (!left)
		return 0;
	if (left < sizeof(it))
		return -EUCLEAN;
	memcpy(&it, body + *pos, sizeof(it));
	e->len = cfs_le32_to_cpu(it.len);
	if (e->len > left - sizeof(it) || cfs_align_up(e->len, 8) > left - sizeof(it))
		return -EUCLEAN;
	e->index = cfs_le64_to_cpu(it.index);
	e->term = cfs_le64_to_cpu(it.term);
	e->kind = cfs_le32_to_cpu(it.kind);
	e->data = body + *pos + sizeof(it);
	*ret_type = cfs_le32_to_cpu(it.type);
	*pos += (uint32_t)(sizeof(it) + cfs_align_up(e->len, 8));
	return 1;
}

static int own(struct cfs_journal *j, uint64_t index, uint64_t seq)
{
	if (!j->n_owner)
		j->base = index;
	else if (index != j->base + j->n_owner)
		return -EUCLEAN;
	if (j->n_owner == j->cap_owner) {
		uint64_t cap = j->cap_owner ? j->cap_owner * 2 : 1024;
		uint64_t *p = realloc(j->owner, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		j->owner = p;
		j->cap_owner = cap;
	}
	j->owner[j->n_owner++] = seq;
	j->last_index = index;
	return 0;
}

static int apply_entries(struct cfs_journal *j, const struct cfs_disk_rec *rec, struct cfs_jseg *js)
{
	const uint8_t *body = cfs_rec_body(rec);
	uint32_t pos = 0, type;
	struct cfs_journal_entry e;
	int rc;

	while ((rc = next_item(body, cfs_le32_to_cpu(rec->body_len), &pos, &e, &type)) > 0) {
		if (!e.index || e.index == UINT64_MAX)
			return -EUCLEAN;
		if (type == CFS_JITEM_TRUNCATE) {
			if (j->n_owner && e.index < j->base + j->n_owner)
				j->n_owner = e.index > j->base ? e.index - j->base : 0;
			if (e.index <= j->last_index)
				j->last_index = e.index - 1;
		} else if (type == CFS_JITEM_ENTRY) {
			/*
			 * The first one may follow anything: what was before has been dropped,
			 * and a snapshot record that was found may be older than that.
			 */
			if (j->n_owner && e.index != j->last_index + 1)
				return -EUCLEAN;
			rc = own(j, e.index, cfs_le64_to_cpu(rec->seq));
			if (rc)
				return rc;
			js->last_index = cfs_max(js->last_index, e.index);
		} else {
			return -EUCLEAN;
		}
	}
	return rc;
}

static int apply_snapshot(struct cfs_journal *j, const struct cfs_disk_rec *rec, uint32_t seg)
{
	uint32_t len = cfs_le32_to_cpu(rec->body_len), trailing;
	struct cfs_disk_jsnap s;

	if (len < sizeof(s))
		return -EUCLEAN;
	memcpy(&s, cfs_rec_body(rec), sizeof(s));
	if (cfs_le32_to_cpu(s.manifest_len) != len - sizeof(s) ||
	    len - sizeof(s) > CFS_MANIFEST_MAX || !s.index)
		return -EUCLEAN;
	trailing = cfs_le32_to_cpu(s.trailing);
	j->snap_index = cfs_le64_to_cpu(s.index);
	j->snap_term = cfs_le64_to_cpu(s.term);
	j->snap_len = cfs_le32_to_cpu(s.manifest_len);
	memcpy(j->manifest, (const uint8_t *)cfs_rec_body(rec) + sizeof(s), j->snap_len);
	j->snap_seg = seg;
	j->keep_from = j->snap_index > trailing ? j->snap_index - trailing + 1 : 1;
	j->have_snap = true;
	if (j->last_index < j->snap_index ||
	    !j->n_owner) { /* it came from elsewhere: the log starts anew */
		j->n_owner = 0;
		j->last_index = cfs_max(j->last_index, j->snap_index);
	}
	j->bytes_at_snap = j->bytes;
	return 0;
}

/* ---- following the stream --------------------------------------------------------------- */

struct walk {
	struct cfs_journal *j;
	struct cfs_scan sc;
	uint64_t expected; /* seq of the next record */
	uint64_t epoch; /* of the last one */
	uint64_t durable; /* highest watermark in the stream */
	uint64_t limit; /* the next segment has what begins here */
	bool rotten; /* the record that was looked for is damaged, and can not be torn */
	uint32_t end_seg, end_block; /* where the stream ends: index into j->segs */
};

static int mark_add(struct cfs_journal *j, uint32_t seg, uint32_t block)
{
	if (j->n_marks == j->cap_marks) {
		uint64_t cap = j->cap_marks ? j->cap_marks * 2 : 1024;
		struct cfs_jmark *p = realloc(j->marks, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		j->marks = p;
		j->cap_marks = cap;
	}
	j->marks[j->n_marks++] = (struct cfs_jmark){ seg, block };
	return 0;
}

static void walk_segment(struct walk *w, uint32_t seg)
{
	struct cfs_store *st = w->j->st;

	cfs_scan_segment(&w->sc, st, seg);
}

static bool is_journal_rec(const struct cfs_journal *j, const struct cfs_disk_rec *rec)
{
	return cfs_rec_is_journal(rec) && cfs_le32_to_cpu(rec->owner) == j->group &&
	       (uint64_t)cfs_le32_to_cpu(rec->blocks) * BLK <= j->rec_max;
}

/* the next record of the stream if it is at `block`: whole, valid and in sequence; else NULL */
static const struct cfs_disk_rec *get_record(struct walk *w, uint32_t seg, uint32_t block)
{
	struct cfs_journal *j = w->j;
	struct cfs_seg_id id = cfs_seg_ident(j->st, seg);
	const struct cfs_disk_rec *rec;

	if (block >= w->sc.end || w->expected >= w->limit)
		return NULL;
	rec = cfs_scan_get(&w->sc, block, 1);
	if (!rec || !cfs_rec_check(rec, &id, block) || !is_journal_rec(j, rec) ||
	    cfs_le64_to_cpu(rec->seq) != w->expected || cfs_le64_to_cpu(rec->epoch) < w->epoch)
		return NULL;
	rec = cfs_scan_get(&w->sc, block, cfs_le32_to_cpu(rec->blocks));
	if (!rec || cfs_rec_body_ok(rec))
		return rec;
	w->rotten = rec->type & CFS_RECF_ATOMIC;
	return NULL;
}

/* the records of one segment; *block: where it stopped */
static int follow(struct walk *w, struct cfs_jseg *js, uint32_t *block)
{
	struct cfs_journal *j = w->j;
	const struct cfs_disk_rec *rec;

	while ((rec = get_record(w, js->seg, *block))) {
		uint32_t blocks = cfs_le32_to_cpu(rec->blocks);
		int rc = mark_add(j, js->seg, *block);

		j->bytes += (uint64_t)blocks * BLK;
		if (!rc && cfs_rec_type_of(rec) == CFS_REC_JOURNAL)
			rc = apply_entries(j, rec, js);
		if (!rc && cfs_rec_type_of(rec) == CFS_REC_SNAPSHOT)
			rc = apply_snapshot(j, rec, js->seg);
		if (rc)
			return rc;
		j->marked = cfs_rec_type_of(rec) == CFS_REC_MARK;
		w->durable = cfs_max(w->durable, cfs_le64_to_cpu(rec->durable));
		w->epoch = cfs_le64_to_cpu(rec->epoch);
		w->expected++;
		*block += blocks;
	}
	return w->sc.err; /* unreadable is neither torn nor rotten: better not to guess */
}

/* highest watermark behind the break */
static uint64_t watermark_behind(struct walk *w, uint32_t first, uint32_t block)
{
	struct cfs_journal *j = w->j;
	uint64_t max = 0;

	for (uint32_t i = first; i < j->n_segs; i++, block = CFS_DISK_SEG_HDR_BLOCKS) {
		struct cfs_seg_id id = cfs_seg_ident(j->st, j->segs[i].seg);

		walk_segment(w, j->segs[i].seg);
		for (uint32_t at = block; at < w->sc.end; at++) {
			const struct cfs_disk_rec *rec = cfs_scan_get(&w->sc, at, 1);

			if (rec && cfs_rec_check(rec, &id, at) && is_journal_rec(j, rec))
				max = cfs_max(max, cfs_le64_to_cpu(rec->durable));
		}
	}
	return max;
}

static int compare_seq(const void *a, const void *b, void *arg)
{
	const struct cfs_store *st = arg;
	uint64_t x = st->segs[((const struct cfs_jseg *)a)->seg].seq,
		 y = st->segs[((const struct cfs_jseg *)b)->seg].seq;

	return x < y ? -1 : x > y;
}

static int walk_stream(struct walk *w, char *errbuf, size_t errlen)
{
	struct cfs_journal *j = w->j;
	struct cfs_store *st = j->st;
	uint32_t i = 0, block;
	int rc;

	w->expected = st->segs[j->segs[0].seg].first_seq;
	for (;; i++) {
		block = CFS_DISK_SEG_HDR_BLOCKS;
		w->limit = i + 1 < j->n_segs ? st->segs[j->segs[i + 1].seg].first_seq : UINT64_MAX;
		walk_segment(w, j->segs[i].seg);
		rc = follow(w, &j->segs[i], &block);
		if (rc) {
			snprintf(
				errbuf, errlen,
				"journal of group %u: record %llu in segment %u at device offset %llu: %s",
				j->group, (unsigned long long)w->expected, j->segs[i].seg,
				(unsigned long long)cfs_seg_off(st, j->segs[i].seg, block),
				rc == -EUCLEAN ? "its entries do not follow from those before" :
						 strerror(-rc));
			return rc;
		}
		if (i + 1 == j->n_segs || st->segs[j->segs[i + 1].seg].first_seq != w->expected)
			break;
	}
	w->end_seg = i;
	w->end_block = block;
	if (w->rotten || watermark_behind(w, i, block) >= w->expected) {
		snprintf(
			errbuf, errlen,
			"journal of group %u: record %llu is damaged (segment %u, device offset %llu); "
			"%s",
			j->group, (unsigned long long)w->expected, j->segs[i].seg,
			(unsigned long long)cfs_seg_off(st, j->segs[i].seg, block),
			w->rotten ? "it was written atomically, so it is not torn" :
				    "acknowledged entries follow it");
		st->checksum_errors++;
		return -EUCLEAN;
	}
	return 0;
}

/*
 * what was read but perhaps never durable is written again in place; segments behind the end are
 * given up
 */
static int settle(struct walk *w)
{
	struct cfs_journal *j = w->j;
	struct cfs_store *st = j->st;
	uint64_t seq = w->expected - j->n_marks;
	int rc = 0;

	/* zones: all that can be read has been flushed before */
	for (uint64_t i = 0; i < j->n_marks && !rc && !st->was_clean && !st->zoned; i++, seq++) {
		const struct cfs_jmark *m = &j->marks[i];
		const struct cfs_disk_rec *rec;
		uint32_t blocks;

		if (seq <= w->durable)
			continue;
		walk_segment(w, m->seg);
		rec = cfs_scan_get(&w->sc, m->block, 1);
		blocks = rec ? cfs_le32_to_cpu(rec->blocks) : 0;
		rec = rec ? cfs_scan_get(&w->sc, m->block, blocks) : NULL;
		rc = rec ? st->dev->ops->write_sync(st->dev, cfs_seg_off(st, m->seg, m->block), rec,
						    blocks * BLK) :
			   w->sc.err;
	}
	if (!rc && !st->was_clean && !st->zoned)
		rc = cfs_seg_hdr_write_sync(st, j->segs[w->end_seg].seg, CFS_SEG_JOURNAL);
	for (; !rc && j->n_segs > w->end_seg + 1; j->n_segs--) {
		uint32_t seg = j->segs[j->n_segs - 1].seg;

		rc = cfs_seg_hdr_write_sync(st, seg, CFS_SEG_POOL);
		st->segs[seg].state = st->zoned ? CFS_SS_FREE : CFS_SS_POOL;
		st->n_free += st->zoned;
		st->n_pool += !st->zoned;
		st->n_journal--;
	}
	return rc;
}

/* a zone is continued only if nothing lies behind the stream's end */
static int continue_zone(struct cfs_journal *j)
{
	struct cfs_store *st = j->st;
	uint32_t seg = j->segs[j->n_segs - 1].seg;
	const struct cfs_seg *s = &st->segs[seg];
	uint32_t state = s->flags & (CFS_SF_ACTIVE | CFS_SF_DEAD | CFS_SF_RAGGED);

	if (state == CFS_SF_ACTIVE && j->head == s->end)
		return 0;
	j->head = st->seg_blocks;
	return s->flags & CFS_SF_ACTIVE ? cfs_zone_sync(st, seg, CFS_DEV_ZONE_FINISH) : 0;
}

int cfs_journal_recover(struct cfs_journal *j, char *errbuf, size_t errlen)
{
	struct cfs_store *st = j->st;
	struct walk w = { .j = j };
	int rc = 0;

	for (uint32_t i = 0; i < st->n_segs && !rc; i++)
		if (st->segs[i].state == CFS_SS_JOURNAL && st->segs[i].owner == j->group)
			rc = cfs_jseg_add(j, i);
	if (rc || !j->n_segs)
		return rc;
	qsort_r(j->segs, j->n_segs, sizeof(*j->segs), compare_seq, st);
	rc = cfs_scan_init(&w.sc, st->dev);
	if (!rc)
		rc = walk_stream(&w, errbuf, errlen);
	if (rc)
		goto out;
	/* entries must reach back to the snapshot, or to the beginning */
	if (j->n_owner && j->base > (j->have_snap ? j->snap_index + 1 : 1)) {
		snprintf(errbuf, errlen, "journal of group %u: entries begin at %llu, but %s %llu",
			 j->group, (unsigned long long)j->base,
			 j->have_snap ? "the snapshot is at" : "there is no snapshot; first index",
			 (unsigned long long)(j->have_snap ? j->snap_index : 1));
		rc = -EUCLEAN;
		goto out;
	}
	rc = settle(&w);
	j->head = w.end_block;
	if (!rc && st->zoned)
		rc = continue_zone(j);
	if (rc) {
		snprintf(errbuf, errlen, "journal of group %u: making its end durable failed: %s",
			 j->group, strerror(-rc));
		goto out;
	}
	j->next_seq = w.expected;
	j->durable_seq = w.expected - 1;
out:
	cfs_scan_exit(&w.sc);
	return rc;
}

int cfs_journal_load(struct cfs_journal *j, int (*cb)(void *arg, const struct cfs_journal_entry *e),
		     void *arg)
{
	struct cfs_store *st = j->st;
	uint64_t from = j->have_snap ? j->keep_from : 1;
	struct cfs_scan sc;
	uint32_t seg = UINT32_MAX;
	int rc = cfs_scan_init(&sc, st->dev);

	for (uint64_t i = 0; i < j->n_marks && !rc; i++) {
		const struct cfs_jmark *m = &j->marks[i];
		const struct cfs_disk_rec *rec;
		struct cfs_journal_entry e;
		uint32_t pos = 0, type;

		if (m->seg != seg)
			cfs_scan_segment(&sc, st, m->seg);
		seg = m->seg;
		rec = cfs_scan_get(&sc, m->block, 1);
		if (rec)
			rec = cfs_scan_get(&sc, m->block,
					   cfs_min(cfs_le32_to_cpu(rec->blocks),
						   st->seg_blocks - m->block));
		if (!rec || !cfs_rec_body_ok(rec)) {
			rc = sc.err ? sc.err : -EUCLEAN; /* it was good a moment ago */
			break;
		}
		if (cfs_rec_type_of(rec) != CFS_REC_JOURNAL)
			continue;
		while (!rc && next_item(cfs_rec_body(rec), cfs_le32_to_cpu(rec->body_len), &pos, &e,
					&type) > 0) {
			if (type != CFS_JITEM_ENTRY || e.index < from || e.index < j->base ||
			    e.index - j->base >= j->n_owner ||
			    j->owner[e.index - j->base] != cfs_le64_to_cpu(rec->seq))
				continue;
			rc = cb(arg, &e);
		}
	}
	cfs_scan_exit(&sc);
	cfs_journal_forget_found(j);
	return rc;
}
