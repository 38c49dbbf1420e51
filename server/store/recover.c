/* SPDX-License-Identifier: MIT */
/*
 * recover.c - what a store holds, found out from its device. Blocking, at start-up. State: struct
 * opening, on the stack.
 *
 * All segment headers; the summaries of sealed data segments; a scan of what no summary covers;
 * then tombstones take out of the index what they name. What lies above every watermark was
 * perhaps never durable although we can read it (the process died, not the machine): it is
 * written again in place before it counts. Cut-off records lose their headers, so that no later
 * scan can meet them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "server/store/store_i.h"

struct tomb {
	struct cfs_disk_ent ent;
	uint32_t home;
};

/* a data segment without a sealing footer, and what it holds */
struct unsealed {
	uint32_t seg, head;
	uint32_t sum_block, sum_blocks;
	bool fresh; /* that summary covers everything: closed in order */
	bool torn; /* some record is not whole */
	struct cfs_disk_ent *ents;
	uint32_t n, cap;
};

struct opening {
	struct cfs_store *st;
	struct cfs_scan sc;
	bool clean;
	struct tomb *tombs;
	uint64_t n_tombs, cap_tombs;
	struct unsealed *unsealed;
	uint32_t n_unsealed, cap_unsealed;
	uint8_t *block; /* one block */
	char *errbuf;
	size_t errlen;
};

/* ---- index and tombstones --------------------------------------------------------------- */

static int add_tomb(struct opening *o, uint32_t home, const struct cfs_disk_ent *ent)
{
	if (o->n_tombs == o->cap_tombs) {
		uint64_t cap = o->cap_tombs ? o->cap_tombs * 2 : 1024;
		struct tomb *p = realloc(o->tombs, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		o->tombs = p;
		o->cap_tombs = cap;
	}
	o->tombs[o->n_tombs++] = (struct tomb){ *ent, home };
	return 0;
}

/* has the record that the entry speaks of its header? */
static bool header_ok(struct opening *o, const struct cfs_disk_ent *ent)
{
	struct cfs_store *st = o->st;
	uint32_t seg = cfs_le32_to_cpu(ent->segment), block = cfs_le32_to_cpu(ent->block);
	struct cfs_seg_id id = cfs_seg_ident(st, seg);

	return !st->dev->ops->read_sync(st->dev, cfs_seg_off(st, seg, block), o->block, BLK) &&
	       cfs_rec_check((const void *)o->block, &id, block);
}

/*
 * Two records of one object: written again after a deletion (another birth), or moved by the
 * cleaner when the store stopped (the same birth, another gen). true: the one we have already
 * stays.
 */
static bool older_wins(struct opening *o, const struct cfs_loc *have,
		       const struct cfs_disk_ent *ent)
{
	struct cfs_store *st = o->st;
	const struct cfs_disk_rec *rec = (const void *)o->block;
	struct cfs_seg_id id = cfs_seg_ident(st, have->seg);
	uint64_t birth = cfs_le64_to_cpu(ent->seq), have_birth;
	uint32_t gen = cfs_le16_to_cpu(ent->gen), have_gen, loser;
	bool wins;

	if (st->dev->ops->read_sync(st->dev, cfs_seg_off(st, have->seg, have->block), o->block,
				    BLK) ||
	    !cfs_rec_check(rec, &id, have->block) || rec->type != CFS_REC_OBJECT ||
	    !cfs_oid_eq(&cfs_rec_obj(rec)->oid, &ent->oid))
		return false;
	have_birth = cfs_le64_to_cpu(cfs_rec_obj(rec)->birth);
	have_gen = cfs_le32_to_cpu(cfs_rec_obj(rec)->gen);
	wins = have_birth != birth ? have_birth > birth :
	       have_gen != gen	   ? have_gen > gen :
				     st->segs[have->seg].seq >
					 st->segs[cfs_le32_to_cpu(ent->segment)].seq;
	wins |= have_birth == birth && !header_ok(o, ent);
	if (have_birth == birth) {
		loser = wins ? cfs_le32_to_cpu(ent->segment) : have->seg;
		if (!(st->segs[loser].flags & CFS_SF_DUP))
			st->n_dup++;
		st->segs[loser].flags |= CFS_SF_DUP;
	}
	return wins;
}

static int add_ent(struct opening *o, uint32_t seg, const struct cfs_disk_ent *ent)
{
	struct cfs_store *st = o->st;
	struct cfs_loc have, loc = { seg, cfs_le32_to_cpu(ent->block), cfs_le32_to_cpu(ent->len) };
	int rc;

	if (!cfs_ent_ok(ent, st->n_segs, st->seg_blocks, seg))
		return 0; /* a crc stood for it: only a forged image gets here */
	if (ent->type == CFS_ENT_TOMB)
		return add_tomb(o, seg, ent);
	if (cfs_index_get(st->index, &ent->oid, &have)) {
		if ((have.seg == seg && have.block == loc.block) || older_wins(o, &have, ent))
			return 0;
		cfs_object_forget(st, &ent->oid, &have);
	}
	rc = cfs_index_put(st->index, &ent->oid, &loc);
	if (!rc)
		cfs_seg_live(st, seg, cfs_obj_blocks(loc.len));
	return rc;
}

static void apply_tombs(struct opening *o)
{
	struct cfs_store *st = o->st;

	for (uint64_t i = 0; i < o->n_tombs; i++) {
		const struct cfs_disk_ent *ent = &o->tombs[i].ent;
		struct cfs_loc loc;

		if (!cfs_tomb_needed(st, ent))
			continue;
		cfs_tomb_add(st, o->tombs[i].home, ent);
		if (cfs_index_get(st->index, &ent->oid, &loc) &&
		    loc.seg == cfs_le32_to_cpu(ent->segment) &&
		    loc.block == cfs_le32_to_cpu(ent->block))
			cfs_object_forget(st, &ent->oid, &loc);
	}
}

/* ---- headers ---------------------------------------------------------------------------- */

/*
 * A zone without a valid header: one that nobody has finished opening, or of an earlier life, is reset. false:
 * neither, or it can not be
 */
static bool reclaim_zone(struct cfs_store *st, uint32_t seg, bool damaged)
{
	const struct cfs_seg *s = &st->segs[seg];

	if (s->flags & CFS_SF_DEAD || (damaged && s->end > CFS_DISK_SEG_HDR_BLOCKS))
		return false;
	return !cfs_zone_sync(st, seg, CFS_DEV_ZONE_RESET);
}

static void load_header(struct opening *o, uint32_t i, uint8_t *buf, uint64_t *max_seq)
{
	struct cfs_store *st = o->st;
	struct cfs_seg *s = &st->segs[i];
	struct cfs_disk_seg hdr;
	bool any = false, damaged;
	int rc;

	if (s->state == CFS_SS_BAD)
		return; /* retired */
	if (!s->end) {
		s->state = s->flags & CFS_SF_DEAD ? CFS_SS_BAD : CFS_SS_FREE;
		return;
	}
	if (s->end < CFS_DISK_SEG_HDR_BLOCKS) { /* a zone cut off within its header: nothing was promised */
		s->state = reclaim_zone(st, i, false) ? CFS_SS_FREE : CFS_SS_BAD;
		return;
	}
	rc = st->dev->ops->read_sync(st->dev, cfs_seg_off(st, i, 0), buf, CFS_DISK_SEG_HDR_BLOCKS * BLK);
	for (int c = 0; c < 2 && !rc && !any; c++) {
		any = cfs_seg_hdr_check(buf + c * BLK, st->format_id, i, &hdr);
		if (!any && !c && !cfs_bytes_zero(buf, BLK) &&
		    cfs_seg_hdr_check(buf + BLK, st->format_id, i, &hdr))
			cfs_warn("store: header of segment %u (device offset %llu) is damaged; its copy is used",
				 i, (unsigned long long)cfs_seg_off(st, i, 0));
	}
	if (any) {
		s->seq = cfs_le64_to_cpu(hdr.seg_seq);
		s->salt = cfs_le64_to_cpu(hdr.salt);
		s->owner = cfs_le32_to_cpu(hdr.owner);
		s->first_seq = cfs_le64_to_cpu(hdr.first_seq);
		s->flags |= cfs_le16_to_cpu(hdr.flags) & CFS_SEGF_FILLED ? CFS_SF_FILLED : 0;
		s->state = hdr.type == CFS_SEG_DATA    ? CFS_SS_OPEN :
			   hdr.type == CFS_SEG_POOL    ? CFS_SS_POOL :
			   hdr.type == CFS_SEG_JOURNAL ? CFS_SS_JOURNAL :
							 CFS_SS_FREE;
		*max_seq = cfs_max(*max_seq, s->seq);
		return;
	}
	damaged = rc || cfs_seg_hdr_damaged(buf, st->format_id) ||
		  cfs_seg_hdr_damaged(buf + BLK, st->format_id);
	if (st->zoned ? reclaim_zone(st, i, damaged) : !damaged) {
		s->state = CFS_SS_FREE; /* never used since format */
		return;
	}
	/* its objects are missing from the index; other copies of them are elsewhere */
	s->state = CFS_SS_BAD;
	if (!damaged)
		return; /* a zone that failed while it was empty */
	st->checksum_errors++;
	cfs_err("store: both headers of segment %u (device offset %llu) are %s: the segment is left alone",
		i, (unsigned long long)cfs_seg_off(st, i, 0), rc ? "unreadable" : "damaged");
}

static int load_headers(struct opening *o)
{
	struct cfs_store *st = o->st;
	uint8_t *buf = cfs_aligned_raw(CFS_DISK_SEG_HDR_BLOCKS * BLK);
	uint64_t max_seq = 0;
	uint32_t bad = 0;

	if (!buf)
		return -ENOMEM;
	for (uint32_t i = 0; i < st->n_segs; i++) {
		const struct cfs_seg *s = &st->segs[i];

		load_header(o, i, buf, &max_seq);
		st->n_free += s->state == CFS_SS_FREE;
		st->n_pool += s->state == CFS_SS_POOL;
		st->n_journal += s->state == CFS_SS_JOURNAL;
		bad += s->state == CFS_SS_BAD;
	}
	free(buf);
	st->next_seg_seq = max_seq + 1;
	/* a zone that was reset has forgotten which incarnation it was: the epoch keeps them apart */
	if (st->zoned)
		st->next_seg_seq = cfs_max(st->next_seg_seq, st->epoch << 32);
	if (bad == st->n_segs) {
		snprintf(o->errbuf, o->errlen, "no segment header is readable");
		return -EUCLEAN;
	}
	return 0;
}

/* ---- data segments ---------------------------------------------------------------------- */

static int unsealed_add(struct unsealed *u, const struct cfs_disk_ent *ent)
{
	if (u->n == u->cap) {
		uint32_t cap = u->cap ? u->cap * 2 : 256;
		struct cfs_disk_ent *p = realloc(u->ents, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		u->ents = p;
		u->cap = cap;
	}
	u->ents[u->n++] = *ent;
	return 0;
}

/* entries of one scanned record */
static int take_record(struct opening *o, struct unsealed *u, const struct cfs_scan_rec *r)
{
	struct cfs_seg_id id = cfs_seg_ident(o->st, u->seg);
	const struct cfs_disk_rec *rec =
		cfs_scan_rec(&o->sc, &id, r, r->type == CFS_REC_TOMB ? r->blocks : 1);
	int rc = 0;

	if (!rec)
		return 0;
	if (r->type == CFS_REC_OBJECT) {
		const struct cfs_disk_obj *obj = cfs_rec_obj(rec);
		uint32_t gen = cfs_le32_to_cpu(obj->gen);
		struct cfs_disk_ent ent = {
			.oid = obj->oid,
			.seq = obj->birth,
			.segment = cfs_cpu_to_le32(u->seg),
			.block = cfs_cpu_to_le32(r->block),
			.len = obj->len,
			.type = CFS_ENT_OBJECT,
			.gen = cfs_cpu_to_le16((uint16_t)cfs_min(gen, 65535u)),
		};

		rc = unsealed_add(u, &ent);
	} else if (r->type == CFS_REC_TOMB && r->ok) {
		const struct cfs_disk_ent *ents = cfs_rec_body(rec);
		uint32_t n = cfs_le32_to_cpu(rec->body_len) / (uint32_t)sizeof(*ents);

		for (uint32_t i = 0; i < n && !rc; i++)
			if (cfs_ent_ok(&ents[i], o->st->n_segs, o->st->seg_blocks, u->seg))
				rc = unsealed_add(u, &ents[i]);
	}
	return rc;
}

/* a record above the watermark: make it durable, or make it vanish */
static int settle_record(struct opening *o, uint32_t seg, const struct cfs_scan_rec *r)
{
	struct cfs_store *st = o->st;
	const void *p;

	if (st->zoned)
		return 0; /* all was flushed before, and what is torn ends its zone */
	if (!r->ok) {
		memset(o->block, 0, BLK);
		return st->dev->ops->write_sync(st->dev, cfs_seg_off(st, seg, r->block), o->block,
						BLK);
	}
	p = cfs_scan_get(&o->sc, r->block, r->blocks);
	return p ? st->dev->ops->write_sync(st->dev, cfs_seg_off(st, seg, r->block), p,
					    r->blocks * BLK) :
		   o->sc.err;
}

/*
 * The last good summary that was met, though no footer names it: all that it lists was durable before it was written, and
 * what lies before it need not be asked. Where the footer is good it is never below a watermark that counts. Returns
 * from which record on the scan tells more; or -ENOMEM
 */
static int take_summary(struct opening *o, struct unsealed *u, const struct cfs_scan_list *list)
{
	struct cfs_seg_id id = cfs_seg_ident(o->st, u->seg);
	struct cfs_disk_ent *ents;
	uint32_t n, blocks;
	int rc;

	for (uint32_t i = list->n; i-- > 0;) {
		if (list->rec[i].type != CFS_REC_SUMMARY || !list->rec[i].ok)
			continue;
		rc = cfs_scan_summary_at(&o->sc, &id, list->rec[i].block, &ents, &n, &blocks);
		if (rc == -ENOENT)
			continue;
		if (rc)
			return rc;
		free(u->ents);
		u->ents = ents;
		u->n = u->cap = n;
		u->head = list->rec[i].block; /* the next is written in its place, if nothing follows it */
		return (int)i + 1;
	}
	return 0;
}

/* what the scan met is rot; the log tells where, and of what */
static void report_rot(struct opening *o, const struct unsealed *u, const struct cfs_scan_rec *r, uint64_t durable)
{
	static const char *const names[] = { [CFS_REC_OBJECT] = "an object", [CFS_REC_TOMB] = "a record of deletions",
					     [CFS_REC_SUMMARY] = "a summary" };
	struct cfs_store *st = o->st;
	struct cfs_seg_id id = cfs_seg_ident(st, u->seg);
	const struct cfs_disk_rec *rec = r->type == CFS_REC_OBJECT ? cfs_scan_rec(&o->sc, &id, r, 1) : NULL;
	unsigned long long off = cfs_seg_off(st, u->seg, r->block);
	uint32_t target = cfs_le32_to_cpu(st->sb.target_id);
	uint32_t lost = r->rotten ? r->blocks : (uint32_t)cfs_min((uint64_t)r->blocks, durable - r->block);

	st->checksum_errors++;
	if (rec)
		cfs_err("store: target %u: object %llx.%llx in segment %u at device offset %llu is damaged%s", target,
			(unsigned long long)cfs_le64_to_cpu(cfs_rec_obj(rec)->oid.owner),
			(unsigned long long)cfs_le64_to_cpu(cfs_rec_obj(rec)->oid.seq), u->seg, off,
			r->rotten ? ": its header does not match its checksum" : "");
	else if (r->type && r->type < CFS_ARRAY_SIZE(names))
		cfs_err("store: target %u: %s in segment %u at device offset %llu is damaged", target, names[r->type],
			u->seg, off);
	else if (r->rotten)
		cfs_err("store: target %u: the header of a record in segment %u at device offset %llu is damaged: "
			"what it named is lost", target, u->seg, off);
	else
		cfs_err("store: target %u: %llu bytes in segment %u at device offset %llu were written, and %s: what "
			"was there is lost", target, (unsigned long long)lost * BLK, u->seg, off,
			r->err ? "cannot be read" : "hold no record any more");
}

/* one that is not whole, and perhaps never was: whoever asks for it is told that it may have been (cfs_cut_find()) */
static int note_cut(struct opening *o, uint32_t seg, const struct cfs_scan_rec *r)
{
	const struct cfs_disk_rec *rec = r->type == CFS_REC_OBJECT ? cfs_scan_get(&o->sc, r->block, 1) : NULL;
	struct cfs_store *st = o->st;
	struct cfs_cut *p;

	if (!rec || st->n_cut == CFS_CUT_MAX)
		return 0;
	p = realloc(st->cut, (st->n_cut + 1) * sizeof(*p));
	if (!p)
		return -ENOMEM;
	st->cut = p;
	st->cut[st->n_cut++] = (struct cfs_cut){ cfs_rec_obj(rec)->oid, cfs_seg_off(st, seg, r->block), seg };
	return 0;
}

/* what the summary (which covers blocks before `from`) does not tell. Gaps before block `judged` may be old cuts */
static int scan_rest(struct opening *o, struct unsealed *u, uint32_t from, bool sealed, uint32_t judged)
{
	struct cfs_store *st = o->st;
	struct cfs_seg_id id = cfs_seg_ident(st, u->seg);
	struct cfs_scan_list list = { 0 };
	int rc = cfs_scan_data(&o->sc, &id, from, &list), first = rc ? rc : take_summary(o, u, &list);

	rc = cfs_min(first, 0);
	for (uint32_t i = rc ? 0 : (uint32_t)first; i < list.n && !rc; i++) {
		const struct cfs_scan_rec *r = &list.rec[i];
		bool below = r->block < list.durable, acked = sealed || below || r->rotten;
		bool gap = !r->type && !r->rotten;

		/*
		 * a summary that no footer names says nothing new, and the next is written in its
		 * place
		 */
		if ((r->type == CFS_REC_SUMMARY && !r->rotten) || (gap && (!below || r->block < judged)))
			continue;
		if (r->rotten || gap || (!r->ok && acked))
			/* objects stay known: reading them tells what is wrong */
			report_rot(o, u, r, list.durable);
		u->torn |= !r->ok || r->rotten;
		if (gap || r->type == CFS_REC_SUMMARY)
			continue;
		u->head = cfs_max(u->head, r->block + (r->ok ? r->blocks : 1));
		if (r->ok || (acked && r->type))
			rc = take_record(o, u, r);
		else if (!acked)
			rc = note_cut(o, u->seg, r);
		if (!acked && !rc)
			rc = settle_record(o, u->seg, r);
	}
	free(list.rec);
	return rc;
}

/* what is known of it is kept in memory until it has been cleaned */
static void keep_listed(struct cfs_store *st, struct unsealed *u, struct cfs_oseg *os)
{
	cfs_seg_sealed(st, u->seg, st->seg_blocks - CFS_DISK_SEG_HDR_BLOCKS, 0, 0);
	cfs_seg_set_ents(st, u->seg, os->ents, os->n_ents);
	os->ents = NULL;
}

/* a zone ends here, with a summary if one can be written; what is left of it counts as dead if it is much */
static int end_zone(struct cfs_store *st, struct unsealed *u, struct cfs_oseg *os)
{
	struct cfs_seg *s = &st->segs[u->seg];
	bool open = (s->flags & (CFS_SF_ACTIVE | CFS_SF_DEAD)) == CFS_SF_ACTIVE;
	uint32_t used;
	int rc = open ? cfs_zone_pad(st, u->seg) : 0;

	os->head = s->end;
	if (rc || !open || s->flags & CFS_SF_DEAD || !cfs_oseg_room(st, os, 0, 0) ||
	    cfs_oseg_write_summary_sync(st, os, true)) {
		keep_listed(st, u, os);
	} else {
		used = st->seg_blocks - os->head > st->seg_blocks / 4 ? st->seg_blocks : os->head;
		cfs_seg_sealed(st, u->seg, used - CFS_DISK_SEG_HDR_BLOCKS, os->head, os->sum_blocks);
	}
	return open ? cfs_zone_sync(st, u->seg, CFS_DEV_ZONE_FINISH) : 0;
}

/* a zone is continued only where all that lies before is whole */
static int adopt_zone(struct opening *o, struct unsealed *u)
{
	struct cfs_store *st = o->st;
	const struct cfs_seg *s = &st->segs[u->seg];
	enum cfs_oseg_class cls = st->open[CFS_OS_USER] ? CFS_OS_CLEAN : CFS_OS_USER;
	bool keep = !st->open[cls] && !u->torn && u->head == s->end &&
		    (s->flags & (CFS_SF_ACTIVE | CFS_SF_DEAD | CFS_SF_RAGGED | CFS_SF_DUP)) ==
			    CFS_SF_ACTIVE;
	struct cfs_oseg tmp, *os = keep ? &st->osegs[cls] : &tmp;
	int rc = cfs_oseg_init(st, os, u->seg, cls);

	if (rc)
		return rc;
	os->head = u->head;
	os->ents = u->ents;
	os->n_ents = u->n;
	os->cap_ents = u->cap;
	u->ents = NULL;
	if (keep && cfs_oseg_room(st, os, cfs_sum_blocks(u->n) + 8, 64)) {
		os->state = CFS_OSS_READY;
		st->open[cls] = os;
		return 0;
	}
	rc = end_zone(st, u, os);
	if (rc) {
		cfs_err("store: zone of segment %u can not be finished: %s", u->seg, strerror(-rc));
		rc = st->segs[u->seg].flags & CFS_SF_DEAD ? 0 : rc;
	}
	cfs_oseg_drop(os);
	return rc;
}

/* continue in it, or seal it now. The header is written again: see settle_record() */
static int adopt(struct opening *o, struct unsealed *u)
{
	struct cfs_store *st = o->st;
	struct cfs_oseg *os, *tmp = NULL;
	enum cfs_oseg_class cls = st->open[CFS_OS_USER] ? CFS_OS_CLEAN : CFS_OS_USER;
	bool keep = !st->open[cls] && !(st->segs[u->seg].flags & CFS_SF_DUP);
	int rc;

	tmp = calloc(1, sizeof(*tmp));
	if (!tmp)
		return -ENOMEM;
	os = keep ? &st->osegs[cls] : tmp;
	rc = cfs_oseg_init(st, os, u->seg, cls);
	if (rc) {
		free(tmp);
		return rc;
	}
	os->head = u->head;
	os->ents = u->ents;
	os->n_ents = u->n;
	os->cap_ents = u->cap;
	u->ents = NULL;
	/* a summary now, and room for one later, or it is over */
	if (!cfs_oseg_room(st, os, cfs_sum_blocks(u->n) + 8, 64))
		keep = false;
	if (u->fresh && !keep)
		os->head =
			/* the summary is good: it is written again for a footer that seals */
			u->sum_block;
	if (!cfs_oseg_room(st, os, 0, 0)) {
		cfs_err("store: segment %u has no room for its summary; its dead "
			"space is lost",
			u->seg);
		cfs_seg_sealed(st, u->seg, os->head - CFS_DISK_SEG_HDR_BLOCKS, 0, 0);
		goto out;
	}
	if (!u->fresh)
		rc = cfs_seg_hdr_write_sync(st, u->seg, CFS_SEG_DATA);
	if (!rc && (!u->fresh || !keep)) {
		u->sum_block = os->head;
		rc = cfs_oseg_write_summary_sync(st, os, !keep);
		u->sum_blocks = os->sum_blocks;
	}
	if (!rc && keep) {
		os->head = u->sum_block + u->sum_blocks;
		os->state = CFS_OSS_READY;
		st->open[cls] = os;
		free(os->sum);
		os->sum = NULL;
		free(tmp);
		return 0;
	}
	if (!rc)
		cfs_seg_sealed(st, u->seg, u->sum_block - CFS_DISK_SEG_HDR_BLOCKS, u->sum_block,
			       u->sum_blocks);
out:
	cfs_oseg_drop(os);
	free(tmp);
	return rc;
}

/* a footer that has rotted, or one whose summary has: that was durable before it, but for the one that seals */
static void report_no_summary(struct opening *o, uint32_t seg, const struct cfs_seg_id *id, const struct cfs_disk_foot *foot)
{
	struct cfs_store *st = o->st;
	bool any = foot->magic, sealed = cfs_le16_to_cpu(foot->flags) & CFS_FOOT_SEALED;
	uint32_t block = any ? cfs_le32_to_cpu(foot->sum_block) : st->seg_blocks - 1;

	if (any ? sealed : st->zoned || !cfs_scan_foot_rotten(&o->sc, id, seg))
		return;
	st->checksum_errors++;
	cfs_err("store: target %u: the %s of segment %u at device offset %llu is damaged: the segment is scanned",
		cfs_le32_to_cpu(st->sb.target_id), any ? "summary" : "footer", seg,
		(unsigned long long)cfs_seg_off(st, seg, block));
}

/* one data segment: its records go to the index; what is not sealed is remembered, to be adopted */
static int load_data(struct opening *o, uint32_t seg)
{
	struct cfs_store *st = o->st;
	struct cfs_seg_id id = cfs_seg_ident(st, seg);
	struct unsealed u = { .seg = seg, .head = CFS_DISK_SEG_HDR_BLOCKS };
	struct cfs_disk_foot foot = { 0 };
	bool has_sum, foot_sealed;
	uint32_t judged;
	int rc;

	cfs_scan_segment(&o->sc, st, seg);
	rc = cfs_scan_summary(&o->sc, &id, seg, st->zoned, &foot, &u.ents, &u.n, &u.sum_blocks);
	has_sum = !rc;
	foot_sealed = cfs_le16_to_cpu(foot.flags) & CFS_FOOT_SEALED;
	if (rc && rc != -ENOENT)
		goto out;
	rc = 0;
	judged = cfs_le32_to_cpu(foot.end_block);
	if (!has_sum)
		report_no_summary(o, seg, &id, &foot);
	if (has_sum) {
		u.cap = u.n;
		u.sum_block = cfs_le32_to_cpu(foot.sum_block);
		u.head = u.sum_block + u.sum_blocks + st->zoned; /* there the footer follows */
		u.fresh = o->clean;
	}
	if (has_sum && foot_sealed && st->segs[seg].flags & CFS_SF_DEAD)
		st->segs[seg].flags |= CFS_SF_MOVE;
	if (has_sum && foot_sealed && st->segs[seg].flags & CFS_SF_ACTIVE)
		rc = cfs_zone_sync(st, seg, CFS_DEV_ZONE_FINISH); /* the last thing that was missing */
	if (has_sum && foot_sealed)
		cfs_seg_sealed(st, seg, u.sum_block - CFS_DISK_SEG_HDR_BLOCKS, u.sum_block,
			       u.sum_blocks);
	else if (!u.fresh || u.head != st->segs[seg].end)
		rc = scan_rest(o, &u, u.head, foot_sealed, judged);
	for (uint32_t i = 0; i < u.n && !rc; i++)
		rc = add_ent(o, seg, &u.ents[i]);
	if (rc || (has_sum && foot_sealed))
		goto out;
	if (o->n_unsealed == o->cap_unsealed) {
		uint32_t cap = o->cap_unsealed ? o->cap_unsealed * 2 : 16;
		struct unsealed *p = realloc(o->unsealed, cap * sizeof(*p));

		if (!p) {
			rc = -ENOMEM;
			goto out;
		}
		o->unsealed = p;
		o->cap_unsealed = cap;
	}
	o->unsealed[o->n_unsealed++] = u;
	u.ents = NULL;
out:
	free(u.ents);
	if (rc)
		snprintf(o->errbuf, o->errlen,
			 "recovering data segment %u at device offset %llu failed: %s", seg,
			 (unsigned long long)cfs_seg_off(st, seg, 0), strerror(-rc));
	return rc;
}

static int recover(struct opening *o)
{
	struct cfs_store *st = o->st;
	struct cfs_loc loc;
	int rc = st->zoned ? cfs_zones_load(st) : 0;

	if (!rc)
		rc = load_headers(o);
	for (uint32_t i = 0; i < st->n_segs && !rc; i++)
		if (st->segs[i].state == CFS_SS_OPEN)
			rc = load_data(o, i);
	if (!rc)
		apply_tombs(o);
	for (uint32_t i = st->n_cut; i-- > 0;) /* what was cut off of those was a copy */
		if (cfs_index_get(st->index, &st->cut[i].oid, &loc))
			st->cut[i] = st->cut[--st->n_cut];
	/*
	 * after all are indexed: only now is it known which hold stale copies, and which
	 * tombstones matter
	 */
	for (uint32_t i = 0; i < o->n_unsealed && !rc; i++) {
		rc = st->zoned ? adopt_zone(o, &o->unsealed[i]) : adopt(o, &o->unsealed[i]);
		if (rc)
			snprintf(o->errbuf, o->errlen, "taking up data segment %u failed: %s",
				 o->unsealed[i].seg, strerror(-rc));
	}
	return rc;
}

int cfs_store_recover(struct cfs_store *st, char *errbuf, size_t errlen)
{
	struct opening o = { .st = st, .clean = st->was_clean, .errbuf = errbuf, .errlen = errlen };
	int rc = cfs_scan_init(&o.sc, st->dev);

	o.block = cfs_aligned_raw(BLK);
	if (!rc && !o.block)
		rc = -ENOMEM;
	if (!rc)
		rc = recover(&o);
	free(o.tombs);
	for (uint32_t i = 0; i < o.n_unsealed; i++)
		free(o.unsealed[i].ents);
	free(o.unsealed);
	free(o.block);
	cfs_scan_exit(&o.sc);
	return rc;
}
