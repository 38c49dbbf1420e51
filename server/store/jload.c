/* SPDX-License-Identifier: MIT */
/*
 * jload.c - reading a journal back. Blocking, at start-up. State: the journal's marks and owner
 * tables.
 *
 * The stream is followed record by record. Where it breaks, everything behind is searched for
 * the highest watermark: if that says the missing record was durable, it has rotted, and opening
 * fails, naming it; else the stream ends there, because nothing from there on was ever
 * acknowledged.
 *
 * Where zones have gone offline (see jlost.c) the stream may have gaps. It is followed behind them, and at its end every entry
 * behind the snapshot must have been found, there or AGAIN; else opening fails, and says which are missing.
 */
#include "server/store/journal_i.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define LOST_MAX (1u << 26) /* entries of one gap: more than any zone holds */

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

static int grow_owner(struct cfs_journal *j, uint64_t n)
{
	uint64_t cap = j->cap_owner ? j->cap_owner : 1024;
	uint64_t *p;

	while (cap < n)
		cap *= 2;
	if (cap == j->cap_owner)
		return 0;
	p = realloc(j->owner, cap * sizeof(*p));
	if (!p)
		return -ENOMEM;
	j->owner = p;
	j->cap_owner = cap;
	return 0;
}

/* an entry; those between it and the ones that are known, on either side, are lost */
static int own(struct cfs_journal *j, uint64_t index, uint64_t seq)
{
	uint64_t before, n;
	int rc;

	if (!j->n_owner)
		j->base = index;
	before = index < j->base ? j->base - index : 0;
	if (before > LOST_MAX || (index > j->base && index - j->base > j->n_owner + LOST_MAX))
		return -EUCLEAN;
	n = cfs_max(j->n_owner + before, index - (j->base - before) + 1);
	rc = grow_owner(j, n);
	if (rc)
		return rc;
	if (before)
		memmove(j->owner + before, j->owner, j->n_owner * sizeof(*j->owner));
	memset(j->owner, 0, before * sizeof(*j->owner));
	if (n > j->n_owner + before)
		memset(j->owner + j->n_owner + before, 0, (n - j->n_owner - before) * sizeof(*j->owner));
	j->base -= before;
	j->n_owner = n;
	j->owner[index - j->base] = seq;
	j->last_index = cfs_max(j->last_index, index);
	return 0;
}

static void drop_from(struct cfs_journal *j, uint64_t index)
{
	if (j->n_owner && index < j->base + j->n_owner)
		j->n_owner = index > j->base ? index - j->base : 0;
	if (index <= j->last_index)
		j->last_index = index - 1;
}

/* *gap: something of the stream is missing before this record, truncations too; or just those that came AGAIN were kept */
static int apply_entries(struct cfs_journal *j, const struct cfs_disk_rec *rec, struct cfs_jseg *js, bool *gap)
{
	const uint8_t *body = cfs_rec_body(rec);
	uint32_t pos = 0, type;
	struct cfs_journal_entry e;
	int rc;

	while ((rc = next_item(body, cfs_le32_to_cpu(rec->body_len), &pos, &e, &type)) > 0) {
		if (!e.index || e.index == UINT64_MAX)
			return -EUCLEAN;
		if (type == CFS_JITEM_TRUNCATE) {
			drop_from(j, e.index);
		} else if (type == CFS_JITEM_ENTRY || type == CFS_JITEM_AGAIN) {
			/*
			 * The first one may follow anything: what was before has been dropped,
			 * and a snapshot record that was found may be older than that.
			 */
			if (type == CFS_JITEM_ENTRY && j->n_owner && e.index != j->last_index + 1) {
				if (!*gap)
					return -EUCLEAN;
				drop_from(j, e.index);
			}
			*gap |= type == CFS_JITEM_AGAIN;
			rc = own(j, e.index, cfs_le64_to_cpu(rec->seq));
			if (rc)
				return rc;
			js->first_index = cfs_min(js->first_index, e.index);
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
	bool gap; /* entries may be missing in what has been followed */
	bool rotten; /* the record that was looked for is damaged, and can not be torn */
	uint32_t end_seg, end_block; /* where the stream ends: index into j->segs */
	uint32_t lost_zone; /* that may have been a part of it; UINT32_MAX: there is none */
};

static int mark_add(struct cfs_journal *j, uint64_t seq, uint32_t seg, uint32_t block)
{
	if (j->n_marks == j->cap_marks) {
		uint64_t cap = j->cap_marks ? j->cap_marks * 2 : 1024;
		struct cfs_jmark *p = realloc(j->marks, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		j->marks = p;
		j->cap_marks = cap;
	}
	j->marks[j->n_marks++] = (struct cfs_jmark){ seq, seg, block };
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
		int rc = mark_add(j, w->expected, js->seg, *block);

		j->bytes += (uint64_t)blocks * BLK;
		if (!rc && cfs_rec_type_of(rec) == CFS_REC_JOURNAL)
			rc = apply_entries(j, rec, js, &w->gap);
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
	uint64_t next;
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
		if (i + 1 == j->n_segs)
			break;
		next = st->segs[j->segs[i + 1].seg].first_seq;
		if (next == w->expected)
			continue;
		if (w->lost_zone == UINT32_MAX || w->rotten || next < w->expected)
			break;
		w->expected = next;
		j->before_gap = i + 1;
		w->gap = true;
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

/* entries that are in no record, though nobody has dropped them. 0, or -EUCLEAN and a line that says which */
static int check_lost(struct walk *w, char *errbuf, size_t errlen)
{
	struct cfs_journal *j = w->j;
	const struct cfs_seg *end = j->n_segs ? &j->st->segs[j->segs[w->end_seg].seg] : NULL;
	uint64_t from = j->have_snap ? j->snap_index + 1 : 1, first = UINT64_MAX, last = 0;

	if (j->n_owner && j->base > from) {
		first = from;
		last = j->base - 1;
	}
	for (uint64_t i = 0; i < j->n_owner; i++) {
		if (j->owner[i])
			continue;
		if (j->base + i < from) {
			j->load_from = j->base + i + 1;
			continue;
		}
		first = cfs_min(first, j->base + i);
		last = j->base + i;
	}
	if (w->lost_zone == UINT32_MAX && !last)
		return 0;
	if (last && w->lost_zone != UINT32_MAX)
		snprintf(errbuf, errlen,
			 "journal of group %u: zone %u is offline, and with it entries %llu to %llu are lost (others "
			 "follow them, up to %llu)",
			 j->group, w->lost_zone, (unsigned long long)first, (unsigned long long)last,
			 (unsigned long long)j->last_index);
	else if (last && j->base <= from)
		snprintf(errbuf, errlen, "journal of group %u: entries %llu to %llu are missing", j->group,
			 (unsigned long long)first, (unsigned long long)last);
	else if (last)
		snprintf(errbuf, errlen, "journal of group %u: entries begin at %llu, but %s %llu", j->group,
			 (unsigned long long)j->base,
			 j->have_snap ? "the snapshot is at" : "there is no snapshot; first index",
			 (unsigned long long)(j->have_snap ? j->snap_index : 1));
	else if (end && !(end->flags & CFS_SF_ACTIVE))
		/* the next zone is begun when this one is finished: that may have happened, or not */
		snprintf(errbuf, errlen,
			 "journal of group %u: zone %u is offline, and with it entries from %llu on may be lost (zone %u, "
			 "with those before, is at its end)",
			 j->group, w->lost_zone, (unsigned long long)j->last_index + 1,
			 j->segs[w->end_seg].seg + CFS_DISK_ROOT_ZONES);
	else if (!end && j->st->votes[j->slot].term)
		snprintf(errbuf, errlen,
			 "journal of group %u: zone %u is offline, and with it all entries from 1 on are lost", j->group,
			 w->lost_zone);
	else
		return 0;
	return -EUCLEAN;
}

/* finds the segments, and what they hold. Reads only */
static int look(struct walk *w, char *errbuf, size_t errlen)
{
	struct cfs_journal *j = w->j;
	struct cfs_store *st = j->st;
	int rc = 0;

	w->lost_zone = st->zoned ? cfs_zones_lost(st) : UINT32_MAX;
	for (uint32_t i = 0; i < st->n_segs && !rc; i++)
		if (st->segs[i].state == CFS_SS_JOURNAL && st->segs[i].owner == j->group)
			rc = cfs_jseg_add(j, i);
	if (!rc && j->n_segs) {
		qsort_r(j->segs, j->n_segs, sizeof(*j->segs), compare_seq, st);
		rc = cfs_scan_init(&w->sc, st->dev);
		if (!rc)
			rc = walk_stream(w, errbuf, errlen);
	}
	return rc ? rc : check_lost(w, errbuf, errlen);
}

int cfs_journal_inspect(struct cfs_store *st, uint32_t group, char *errbuf, size_t errlen)
{
	struct cfs_journal j = { .st = st, .group = group };
	struct walk w = { .j = &j };
	int rc = -ENOMEM, slot = cfs_vote_slot(st, group);

	j.slot = slot < 0 ? 0 : (uint32_t)slot;
	j.rec_max = cfs_journal_rec_max(st);
	j.manifest = malloc(CFS_MANIFEST_MAX);
	if (j.manifest)
		rc = look(&w, errbuf, errlen);
	cfs_scan_exit(&w.sc);
	cfs_journal_forget_found(&j);
	free(j.manifest);
	free(j.segs);
	return rc;
}

/*
 * what was read but perhaps never durable is written again in place; segments behind the end are
 * given up
 */
static int settle(struct walk *w)
{
	struct cfs_journal *j = w->j;
	struct cfs_store *st = j->st;
	int rc = 0;

	/* zones: all that can be read has been flushed before */
	for (uint64_t i = 0; i < j->n_marks && !rc && !st->was_clean && !st->zoned; i++) {
		const struct cfs_jmark *m = &j->marks[i];
		const struct cfs_disk_rec *rec;
		uint32_t blocks;

		if (m->seq <= w->durable)
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
	/* that a zone is finished says that the next may have been begun: not now, when that would make it hard to be sure */
	if (cfs_zones_lost(st) != UINT32_MAX)
		return 0;
	return s->flags & CFS_SF_ACTIVE ? cfs_zone_sync(st, seg, CFS_DEV_ZONE_FINISH) : 0;
}

int cfs_journal_recover(struct cfs_journal *j, char *errbuf, size_t errlen)
{
	struct cfs_store *st = j->st;
	struct walk w = { .j = j };
	int rc = 0;

	rc = look(&w, errbuf, errlen);
	if (rc || !j->n_segs)
		goto out;
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

/* the record that has stream number `seq`; marks are in that order */
static const struct cfs_jmark *find_mark(const struct cfs_journal *j, uint64_t seq)
{
	uint64_t lo = 0, hi = j->n_marks;

	while (lo < hi) {
		uint64_t mid = (lo + hi) / 2;

		if (j->marks[mid].seq < seq)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < j->n_marks && j->marks[lo].seq == seq ? &j->marks[lo] : NULL;
}

/* from entry *index on what one record has of them, which is at least that one */
static int load_record(struct cfs_journal *j, struct cfs_scan *sc, uint32_t *seg, uint64_t *index,
		       int (*cb)(void *arg, const struct cfs_journal_entry *e), void *arg)
{
	uint64_t seq = j->owner[*index - j->base], begun = *index;
	const struct cfs_jmark *m = find_mark(j, seq);
	const struct cfs_disk_rec *rec = NULL;
	struct cfs_journal_entry e;
	uint32_t pos = 0, type;
	int rc = 0;

	if (!m)
		return -EUCLEAN;
	if (m->seg != *seg)
		cfs_scan_segment(sc, j->st, m->seg);
	*seg = m->seg;
	rec = cfs_scan_get(sc, m->block, 1);
	if (rec)
		rec = cfs_scan_get(sc, m->block,
				   cfs_min(cfs_le32_to_cpu(rec->blocks), j->st->seg_blocks - m->block));
	if (!rec || !cfs_rec_body_ok(rec))
		return sc->err ? sc->err : -EUCLEAN; /* it was good a moment ago */
	while (!rc && next_item(cfs_rec_body(rec), cfs_le32_to_cpu(rec->body_len), &pos, &e, &type) > 0) {
		if (type == CFS_JITEM_TRUNCATE || e.index != *index || *index >= j->base + j->n_owner ||
		    j->owner[*index - j->base] != seq)
			continue;
		rc = cb(arg, &e);
		++*index;
	}
	return rc ? rc : *index == begun ? -EUCLEAN : 0;
}

int cfs_journal_load(struct cfs_journal *j, int (*cb)(void *arg, const struct cfs_journal_entry *e),
		     void *arg)
{
	uint64_t from = cfs_max(j->have_snap ? j->keep_from : 1, j->load_from);
	struct cfs_scan sc;
	uint32_t seg = UINT32_MAX;
	int rc = cfs_scan_init(&sc, j->st->dev);

	from = cfs_max(from, j->base);
	while (!rc && j->n_owner && from < j->base + j->n_owner)
		rc = load_record(j, &sc, &seg, &from, cb, arg);
	cfs_scan_exit(&sc);
	cfs_journal_forget_found(j);
	return rc;
}
