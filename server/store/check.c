/* SPDX-License-Identifier: MIT */
/*
 * check.c - offline check of a target: every header, summary, record and object content. Reads
 * only; needs neither loop nor clock. State: on the stack of cfs_store_check().
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/store/store_i.h"

struct check {
	struct cfs_store st; /* only what scanning needs: geometry, segments, votes */
	struct cfs_scan sc;
	bool clean;
	void (*report)(void *arg, const struct cfs_store_finding *f);
	void *arg;
	struct cfs_store_checked *out;
};

static void CFS_PRINTF(5, 6)
	say(struct check *c, bool error, uint32_t seg, uint32_t block, const char *fmt, ...)
{
	struct cfs_store_finding f = { .error = error, .segment = seg };
	va_list ap;

	f.offset = seg == UINT32_MAX ? 0 : cfs_seg_off(&c->st, seg, block);
	va_start(ap, fmt);
	vsnprintf(f.text, sizeof(f.text), fmt, ap);
	va_end(ap);
	c->out->errors += error;
	c->report(c->arg, &f);
}

static const char *type_name(uint8_t type)
{
	static const char *const names[] = { "?",	"object",	  "deletions",
					     "summary", "journal record", "snapshot record",
					     "mark" };

	type &= (uint8_t)~CFS_RECF_ATOMIC;
	return names[type < CFS_ARRAY_SIZE(names) ? type : 0];
}

/* each line of the summary has its record, and the other way round */
static void compare_summary(struct check *c, uint32_t seg, const struct cfs_disk_ent *ents,
			    uint32_t n, const struct cfs_scan_list *list, uint32_t end)
{
	uint32_t k = 0, objects = 0, listed = 0;

	for (uint32_t i = 0; i < list->n; i++)
		objects += list->rec[i].type == CFS_REC_OBJECT && list->rec[i].block < end;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t block = cfs_le32_to_cpu(ents[i].block), lo = 0, hi = list->n;

		if (!cfs_ent_ok(&ents[i], c->st.n_segs, c->st.seg_blocks, seg)) {
			say(c, true, seg, end, "summary entry %u makes no sense", i);
			continue;
		}
		if (ents[i].type != CFS_ENT_OBJECT)
			continue;
		listed++;
		while (lo < hi) {
			k = (lo + hi) / 2;
			if (list->rec[k].block < block)
				lo = k + 1;
			else
				hi = k;
		}
		if (lo == list->n || list->rec[lo].block != block ||
		    list->rec[lo].type != CFS_REC_OBJECT)
			say(c, true, seg, block, "object %llx.%llx of the summary is not there",
			    (unsigned long long)cfs_le64_to_cpu(ents[i].oid.owner),
			    (unsigned long long)cfs_le64_to_cpu(ents[i].oid.seq));
	}
	if (listed < objects)
		say(c, false, seg, end, "%u objects are in no summary (writes that failed)",
		    objects - listed);
}

/* a zone that a cut ended may hold something torn before its summary, which does not name it */
static bool in_summary(const struct cfs_disk_ent *ents, uint32_t n, uint32_t block)
{
	for (uint32_t i = 0; i < n; i++)
		if (ents[i].type == CFS_ENT_OBJECT && cfs_le32_to_cpu(ents[i].block) == block)
			return true;
	return false;
}

/* where bits of a header have flipped, and where records are missing that had been there. `proven`: gaps before may be old cuts */
static void check_rot(struct check *c, uint32_t seg, const struct cfs_seg_id *id, const struct cfs_scan_rec *r,
		      uint64_t durable, uint32_t proven)
{
	const struct cfs_disk_rec *rec;
	char name[40] = "";

	if (r->rotten) {
		rec = r->mended && r->type == CFS_REC_OBJECT ? cfs_scan_rec(&c->sc, id, r, 1) : NULL;
		if (rec)
			snprintf(name, sizeof(name), " %llx.%llx",
				 (unsigned long long)cfs_le64_to_cpu(cfs_rec_obj(rec)->oid.owner),
				 (unsigned long long)cfs_le64_to_cpu(cfs_rec_obj(rec)->oid.seq));
		say(c, true, seg, r->block, "%s%s: its header does not match its checksum",
		    r->type ? type_name(r->type) : "a record", name);
		c->out->bad_objects += r->type == CFS_REC_OBJECT;
	} else if (r->block >= proven && r->block < durable) {
		say(c, true, seg, r->block, "%llu bytes were written, and %s: what was there is lost",
		    (unsigned long long)cfs_min((uint64_t)r->blocks, durable - r->block) * BLK,
		    r->err ? "cannot be read" : "hold no record any more");
	}
}

static void check_data(struct check *c, uint32_t seg)
{
	struct cfs_seg_id id = cfs_seg_ident(&c->st, seg);
	struct cfs_scan_list list = { 0 };
	struct cfs_disk_foot foot = { 0 };
	struct cfs_disk_ent *ents = NULL;
	uint32_t n = 0, sum_blocks = 0, end = 0, proven;
	bool sealed;
	int rc;

	rc = cfs_scan_summary(&c->sc, &id, seg, c->st.zoned, &foot, &ents, &n, &sum_blocks);
	sealed = cfs_le16_to_cpu(foot.flags) & CFS_FOOT_SEALED;
	if (!rc)
		end = cfs_le32_to_cpu(foot.end_block);
	else if (sealed || c->clean)
		say(c, c->clean, seg, c->st.seg_blocks - 1,
		    "no valid summary: starting will scan this segment");
	if (!foot.magic && !c->st.zoned && cfs_scan_foot_rotten(&c->sc, &id, seg))
		say(c, true, seg, c->st.seg_blocks - 1, "the footer does not match its checksum");
	if (cfs_scan_data(&c->sc, &id, CFS_DISK_SEG_HDR_BLOCKS, &list)) {
		say(c, true, seg, 0, "out of memory");
		goto out;
	}
	proven = cfs_le32_to_cpu(foot.end_block);
	for (uint32_t i = 0; i < list.n; i++)
		if (list.rec[i].type == CFS_REC_SUMMARY && list.rec[i].ok)
			proven = cfs_max(proven, list.rec[i].block);
	for (uint32_t i = 0; i < list.n; i++) {
		const struct cfs_scan_rec *r = &list.rec[i];
		bool acked = r->block < list.durable ||
			     (c->st.zoned ? in_summary(ents, n, r->block) : r->block < end || sealed);
		const struct cfs_disk_rec *rec;
		char name[40] = "";
		int bad;

		if (r->rotten || !r->type) {
			check_rot(c, seg, &id, r, list.durable, proven);
			continue;
		}
		c->out->records++;
		c->out->objects += r->type == CFS_REC_OBJECT;
		c->out->bytes += (uint64_t)r->blocks * BLK;
		if (r->ok ||
		    r->type == CFS_REC_SUMMARY) /* the one that counts has been looked at */
			continue;
		rec = cfs_scan_get(&c->sc, r->block, 1);
		if (rec && r->type == CFS_REC_OBJECT)
			snprintf(name, sizeof(name), " %llx.%llx",
				 (unsigned long long)cfs_le64_to_cpu(cfs_rec_obj(rec)->oid.owner),
				 (unsigned long long)cfs_le64_to_cpu(cfs_rec_obj(rec)->oid.seq));
		rec = cfs_scan_get(&c->sc, r->block, r->blocks);
		bad = rec && r->type == CFS_REC_OBJECT ?
			      cfs_obj_data_check(rec, (const char *)rec + BLK, 0,
						 cfs_le32_to_cpu(rec->body_len)) :
			      -1;
		say(c, acked, seg, r->block, "%s%s: %s%s", type_name(r->type), name,
		    rec ? "content does not match its checksum" : strerror(-c->sc.err),
		    acked ? "" : " (cut off, never acknowledged)");
		if (bad >= 0)
			c->out->bad_objects++;
	}
	if (!rc)
		compare_summary(c, seg, ents, n, &list, end);
out:
	free(list.rec);
	free(ents);
}

static void check_journal(struct check *c, uint32_t seg)
{
	struct cfs_seg_id id = cfs_seg_ident(&c->st, seg);
	uint64_t seq = c->st.segs[seg].first_seq, epoch = 0, durable = 0;
	uint32_t at = CFS_DISK_SEG_HDR_BLOCKS;
	const struct cfs_disk_rec *rec;

	while (at < c->sc.end) {
		uint32_t blocks;

		rec = cfs_scan_get(&c->sc, at, 1);
		if (!rec || !cfs_rec_check(rec, &id, at) || cfs_le64_to_cpu(rec->seq) != seq ||
		    cfs_le64_to_cpu(rec->epoch) < epoch)
			break;
		blocks = cfs_le32_to_cpu(rec->blocks);
		epoch = cfs_le64_to_cpu(rec->epoch);
		rec = cfs_scan_get(&c->sc, at, blocks);
		if (!rec || !cfs_rec_body_ok(rec))
			break;
		c->out->records++;
		c->out->bytes += (uint64_t)blocks * BLK;
		at += blocks;
		seq++;
	}
	for (uint32_t i = at; i < c->sc.end; i++) {
		rec = cfs_scan_get(&c->sc, i, 1);
		if (rec && cfs_rec_check(rec, &id, i))
			durable = cfs_max(durable, cfs_le64_to_cpu(rec->durable));
	}
	if (durable >= seq)
		say(c, true, seg, at,
		    "journal of group %u: record %llu is damaged; acknowledged ones follow it",
		    c->st.segs[seg].owner, (unsigned long long)seq);
}

static void check_segment(struct check *c, uint32_t seg, uint8_t *buf)
{
	struct cfs_seg *s = &c->st.segs[seg];
	struct cfs_disk_seg hdr = { 0 };
	bool ok[2], damaged[2];
	int rc;

	if (s->flags & CFS_SF_DEAD)
		say(c, true, seg, 0, s->end ? "the zone is read-only" : "the zone is offline");
	if (!s->end || s->state == CFS_SS_BAD)
		return; /* empty, offline, or retired */
	rc = c->sc.dev->ops->read_sync(c->sc.dev, cfs_seg_off(&c->st, seg, 0), buf,
				       CFS_DISK_SEG_HDR_BLOCKS * BLK);
	if (rc) {
		say(c, true, seg, 0, "the headers cannot be read: %s", strerror(-rc));
		return;
	}
	for (int i = 1; i >= 0; i--) {
		ok[i] = cfs_seg_hdr_check(buf + i * BLK, c->st.format_id, seg, &hdr);
		damaged[i] = !ok[i] && cfs_seg_hdr_damaged(buf + i * BLK, c->st.format_id);
	}
	if (!ok[0] && !ok[1]) {
		if (damaged[0] || damaged[1])
			say(c, true, seg, 0,
			    "both headers are damaged: what the segment holds is lost");
		return;
	}
	for (uint32_t i = 0; i < 2; i++)
		if (!ok[i])
			say(c, c->clean, seg, i, "one of the two headers is damaged");
	s->seq = cfs_le64_to_cpu(hdr.seg_seq);
	s->salt = cfs_le64_to_cpu(hdr.salt);
	s->owner = cfs_le32_to_cpu(hdr.owner);
	s->first_seq = cfs_le64_to_cpu(hdr.first_seq);
	s->state = hdr.type == CFS_SEG_JOURNAL ? CFS_SS_JOURNAL : s->state;
	cfs_scan_segment(&c->sc, &c->st, seg);
	c->out->segments_used++;
	if (hdr.type == CFS_SEG_DATA)
		check_data(c, seg);
	else if (hdr.type == CFS_SEG_JOURNAL)
		check_journal(c, seg);
	else
		c->out->segments_used--;
}

/* what offline zones have taken of the journals */
static int check_journals(struct check *c)
{
	int rc = 0;

	for (uint32_t i = 0; i < CFS_DISK_VOTE_GROUPS && (!rc || rc == -EUCLEAN); i++) {
		char line[200] = "";

		if (!c->st.vote_used[i])
			continue;
		rc = cfs_journal_inspect(&c->st, c->st.vote_group[i], line, sizeof(line));
		if (rc == -EUCLEAN)
			say(c, true, UINT32_MAX, 0, "%s", line);
	}
	return rc == -EUCLEAN ? 0 : rc;
}

static void check_super(struct check *c, uint64_t offset, uint32_t copy, uint8_t *buf)
{
	int rc = c->st.dev->ops->read_sync(c->st.dev, offset, buf, sizeof(c->st.sb));

	if (!rc)
		rc = cfs_super_check((void *)buf);
	if (rc)
		say(c, c->clean, UINT32_MAX, 0, "superblock copy %u at offset %llu is damaged", copy,
		    (unsigned long long)offset);
}

/* the zones of the superblocks, and the two copies of the newest on each side */
static int check_root(struct check *c, uint8_t *buf)
{
	const struct cfs_root *root = &c->st.root;
	struct cfs_zone z[CFS_DISK_ROOT_ZONES];
	int n = root->dev->ops->zone_report(root->dev, 0, z, CFS_DISK_ROOT_ZONES);

	for (int i = 0; i < n; i++)
		if (z[i].state >= CFS_ZONE_READONLY)
			say(c, true, UINT32_MAX, 0, "zone %d, of the superblocks, is %s", i,
			    z[i].state == CFS_ZONE_READONLY ? "read-only" : "offline");
	for (uint32_t s = 0; s < root->n_sides; s++) {
		const struct cfs_root_side *side = &root->side[s];
		uint64_t at = side->zone * c->st.seg_stride + cfs_align_down(side->wp, BLK);

		for (uint32_t i = 0; i < 2 && side->wp != UINT64_MAX; i++)
			check_super(c, at - (2 - i) * (uint64_t)BLK, i, buf);
	}
	return n < 0 ? n : 0;
}

int cfs_store_check(struct cfs_dev *dev,
		    void (*report)(void *arg, const struct cfs_store_finding *f), void *arg,
		    struct cfs_store_checked *ret, char *errbuf, size_t errlen)
{
	static const uint64_t offs[2] = { CFS_DISK_SB_OFF0, CFS_DISK_SB_OFF1 };
	struct check *c = calloc(1, sizeof(*c));
	uint8_t *buf = cfs_aligned_alloc(CFS_DISK_SEG_HDR_BLOCKS * BLK);
	struct cfs_store *st = c ? &c->st : NULL;
	int rc = -ENOMEM;

	snprintf(errbuf, errlen, "out of memory");
	memset(ret, 0, sizeof(*ret));
	if (!c || !buf)
		goto out;
	c->report = report;
	c->arg = arg;
	c->out = ret;
	rc = cfs_scan_init(&c->sc, dev);
	if (!rc)
		rc = cfs_super_load(&st->root, dev, &st->sb, errbuf, errlen);
	if (rc)
		goto out;
	st->dev = dev;
	cfs_store_geometry(st);
	c->clean = cfs_le32_to_cpu(st->sb.state) & CFS_SUPER_CLEAN;
	rc = st->zoned ? check_root(c, buf) : 0;
	if (rc) {
		snprintf(errbuf, errlen, "the zones can not be listed: %s", strerror(-rc));
		goto out;
	}
	for (uint32_t i = 0; i < 2 && !st->zoned; i++)
		check_super(c, offs[i], i, buf);
	rc = cfs_votes_load(st, false, errbuf, errlen);
	if (rc == -EUCLEAN) {
		say(c, true, UINT32_MAX, 0, "%s", errbuf);
		rc = 0;
	}
	st->segs = rc ? NULL : calloc(st->n_segs, sizeof(*st->segs));
	if (!st->segs) {
		rc = rc ? rc : -ENOMEM;
		goto out;
	}
	for (uint32_t i = 0; i < st->n_segs; i++)
		st->segs[i].end = st->seg_blocks;
	rc = st->zoned ? cfs_zones_load(st) : 0;
	if (rc) {
		snprintf(errbuf, errlen, "the zones can not be listed: %s", strerror(-rc));
		goto out;
	}
	for (uint32_t i = 0; i < st->n_segs; i++)
		check_segment(c, i, buf);
	if (st->zoned && cfs_zones_lost(st) != UINT32_MAX)
		rc = check_journals(c);
	if (rc) {
		snprintf(errbuf, errlen, "the journals can not be read: %s", strerror(-rc));
		goto out;
	}
	ret->segments = st->n_segs;
	if (errlen)
		errbuf[0] = '\0';
out:
	if (c) {
		cfs_scan_exit(&c->sc);
		free(c->st.segs);
	}
	free(c);
	free(buf);
	return rc;
}
