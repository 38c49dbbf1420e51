/* SPDX-License-Identifier: MIT */
/*
 * open.c - from a device to a running store, and back. Blocking, on the store's thread, before
 * and after any request.
 *
 * Opening: superblock; all segment headers; the summaries of sealed data segments; a scan of
 * what no summary covers; then tombstones take out of the index what they name. What lies above
 * every watermark was perhaps never durable although we can read it (the process died, not the
 * machine): it is written again in place before it counts. Cut-off records lose their headers,
 * so that no later scan can meet them.
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

static int load_headers(struct opening *o)
{
	struct cfs_store *st = o->st;
	uint8_t *buf = cfs_aligned_raw(CFS_DISK_SEG_HDR_BLOCKS * BLK);
	struct cfs_disk_seg hdr;
	uint64_t max_seq = 0;
	uint32_t bad = 0;

	if (!buf)
		return -ENOMEM;
	for (uint32_t i = 0; i < st->n_segs; i++) {
		struct cfs_seg *s = &st->segs[i];
		int rc = st->dev->ops->read_sync(st->dev, cfs_seg_off(st, i, 0), buf,
						 CFS_DISK_SEG_HDR_BLOCKS * BLK);
		bool any = false;

		for (int c = 0; c < 2 && !rc && !any; c++) {
			any = cfs_seg_hdr_check(buf + c * BLK, st->format_id, i, &hdr);
			if (!any && !c && !cfs_bytes_zero(buf, BLK) &&
			    cfs_seg_hdr_check(buf + BLK, st->format_id, i, &hdr))
				cfs_warn(
					"store: header of segment %u (device offset %llu) is damaged; its copy is used",
					i, (unsigned long long)cfs_seg_off(st, i, 0));
		}
		if (any) {
			s->seq = cfs_le64_to_cpu(hdr.seg_seq);
			s->salt = cfs_le64_to_cpu(hdr.salt);
			s->owner = cfs_le32_to_cpu(hdr.owner);
			s->first_seq = cfs_le64_to_cpu(hdr.first_seq);
			s->flags = cfs_le16_to_cpu(hdr.flags) & CFS_SEGF_FILLED ? CFS_SF_FILLED : 0;
			s->state = hdr.type == CFS_SEG_DATA    ? CFS_SS_OPEN :
				   hdr.type == CFS_SEG_POOL    ? CFS_SS_POOL :
				   hdr.type == CFS_SEG_JOURNAL ? CFS_SS_JOURNAL :
								 CFS_SS_FREE;
			max_seq = cfs_max(max_seq, s->seq);
		} else if (!rc && !cfs_seg_hdr_damaged(buf, st->format_id) &&
			   !cfs_seg_hdr_damaged(buf + BLK, st->format_id)) {
			s->state = CFS_SS_FREE; /* never used since format */
		} else {
			/*
			 * its objects are missing from the index; other copies of them are
			 * elsewhere
			 */
			s->state = CFS_SS_BAD;
			st->checksum_errors++;
			bad++;
			cfs_err("store: both headers of segment %u (device offset %llu) are "
				"%s: the segment is left alone",
				i, (unsigned long long)cfs_seg_off(st, i, 0),
				rc ? "unreadable" : "damaged");
		}
		st->n_free += s->state == CFS_SS_FREE;
		st->n_pool += s->state == CFS_SS_POOL;
		st->n_journal += s->state == CFS_SS_JOURNAL;
	}
	free(buf);
	st->next_seg_seq = max_seq + 1;
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
	const struct cfs_disk_rec *rec =
		cfs_scan_get(&o->sc, r->block, r->type == CFS_REC_TOMB ? r->blocks : 1);
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

/* what the summary (which covers blocks before `from`) does not tell */
static int scan_rest(struct opening *o, struct unsealed *u, uint32_t from, bool sealed)
{
	struct cfs_store *st = o->st;
	struct cfs_seg_id id = cfs_seg_ident(st, u->seg);
	struct cfs_scan_list list = { 0 };
	int rc = cfs_scan_data(&o->sc, &id, from, &list);

	for (uint32_t i = 0; i < list.n && !rc; i++) {
		const struct cfs_scan_rec *r = &list.rec[i];
		bool acked = sealed || r->block < list.durable;

		/*
		 * one that no footer names says nothing new, and the next is written in its
		 * place
		 */
		if (r->type == CFS_REC_SUMMARY)
			continue;
		u->head = cfs_max(u->head, r->block + (r->ok ? r->blocks : 1));
		if (r->ok || acked)
			rc = take_record(o, u, r);
		if (!r->ok && acked) {
			/* objects stay known: reading them tells what is wrong */
			st->checksum_errors++;
			cfs_err("store: %s in segment %u at device offset %llu is damaged",
				r->type == CFS_REC_TOMB ? "a record of deletions" : "an object",
				u->seg, (unsigned long long)cfs_seg_off(st, u->seg, r->block));
		}
		if (!acked && !rc)
			rc = settle_record(o, u->seg, r);
	}
	free(list.rec);
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

/* one data segment: its records go to the index; what is not sealed is remembered, to be adopted */
static int load_data(struct opening *o, uint32_t seg)
{
	struct cfs_store *st = o->st;
	struct cfs_seg_id id = cfs_seg_ident(st, seg);
	struct unsealed u = { .seg = seg, .head = CFS_DISK_SEG_HDR_BLOCKS };
	struct cfs_disk_foot foot = { 0 };
	bool has_sum, foot_sealed;
	int rc;

	cfs_scan_segment(&o->sc, cfs_seg_off(st, seg, 0), st->seg_blocks);
	rc = cfs_scan_summary(&o->sc, &id, seg, &foot, &u.ents, &u.n, &u.sum_blocks);
	has_sum = !rc;
	foot_sealed = cfs_le16_to_cpu(foot.flags) & CFS_FOOT_SEALED;
	if (rc && rc != -ENOENT)
		goto out;
	rc = 0;
	if (has_sum) {
		u.cap = u.n;
		u.sum_block = cfs_le32_to_cpu(foot.sum_block);
		u.head = u.sum_block + u.sum_blocks;
		u.fresh = o->clean;
	}
	if (has_sum && foot_sealed)
		cfs_seg_sealed(st, seg, u.sum_block - CFS_DISK_SEG_HDR_BLOCKS, u.sum_block,
			       u.sum_blocks);
	else if (!u.fresh)
		rc = scan_rest(o, &u, u.head, foot_sealed);
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

/* ---- the calls -------------------------------------------------------------------------- */

static void open_flushed(struct cfs_dev_req *req)
{
	struct cfs_store *st = cfs_container_of(req, struct cfs_store, open_flush);

	cfs_store_submitted(st);
	if (req->result < 0) {
		cfs_err("store: flush failed: %s; no more writes are accepted",
			strerror((int)-req->result));
		st->failed = true;
		return;
	}
	st->settled = true;
	cfs_store_kick(st);
}

static void store_free(struct cfs_store *st)
{
	if (!st)
		return;
	for (uint32_t i = 0; i < CFS_OSEGS; i++)
		cfs_oseg_drop(&st->osegs[i]);
	for (uint32_t i = 0; st->segs && i < st->n_segs; i++)
		free(st->segs[i].homes);
	cfs_clean_exit(st);
	cfs_pool_exit(st);
	cfs_delete_exit(st);
	cfs_read_exit(st);
	cfs_write_exit(st);
	cfs_index_destroy(st->index);
	free(st->segs);
	free(st);
}

static int store_setup(struct cfs_store *st, uint64_t reserve_bytes)
{
	int rc;

	st->seg_bytes = cfs_le32_to_cpu(st->sb.segment_bytes);
	st->seg_blocks = st->seg_bytes / BLK;
	st->n_segs = cfs_le32_to_cpu(st->sb.segments);
	st->obj_max = cfs_obj_max_of(st->seg_bytes);
	st->format_id = cfs_le64_to_cpu(st->sb.format_id);
	st->epoch = cfs_le64_to_cpu(st->sb.epoch) + 1;
	st->next_rec_seq = st->epoch << 40;
	st->reserve = cfs_max(CFS_RESERVE_MIN, st->n_segs / 64);
	st->reserve = cfs_min(st->reserve, 16u);
	if (reserve_bytes) {
		uint64_t n = (reserve_bytes + st->seg_bytes - 1) / st->seg_bytes;

		n = cfs_max(n, (uint64_t)CFS_RESERVE_MIN);
		st->reserve =
			(uint32_t)cfs_min(n, (uint64_t)cfs_max(st->n_segs / 2, CFS_RESERVE_MIN));
	}
	cfs_list_init(&st->journals);
	cfs_list_init(&st->later);
	st->later_timer.fn = cfs_store_later_run;
	st->segs = calloc(st->n_segs, sizeof(*st->segs));
	if (!st->segs)
		return -ENOMEM;
	rc = cfs_index_create(&st->index);
	if (!rc)
		rc = cfs_write_init(st);
	if (!rc)
		rc = cfs_read_init(st);
	if (!rc)
		rc = cfs_delete_init(st);
	if (!rc)
		rc = cfs_clean_init(st);
	if (!rc)
		rc = cfs_pool_init(st);
	return rc;
}

static int recover(struct opening *o)
{
	struct cfs_store *st = o->st;
	int rc = load_headers(o);

	for (uint32_t i = 0; i < st->n_segs && !rc; i++)
		if (st->segs[i].state == CFS_SS_OPEN)
			rc = load_data(o, i);
	if (!rc)
		apply_tombs(o);
	/*
	 * after all are indexed: only now is it known which hold stale copies, and which
	 * tombstones matter
	 */
	for (uint32_t i = 0; i < o->n_unsealed && !rc; i++) {
		rc = adopt(o, &o->unsealed[i]);
		if (rc)
			snprintf(o->errbuf, o->errlen, "taking up data segment %u failed: %s",
				 o->unsealed[i].seg, strerror(-rc));
	}
	return rc;
}

int cfs_store_open(const struct cfs_store_params *p, struct cfs_store **ret_store, char *errbuf,
		   size_t errlen)
{
	uint64_t start_ns = cfs_clock_boot_ns(p->clock);
	struct opening o = { .errbuf = errbuf, .errlen = errlen };
	struct cfs_store *st = calloc(1, sizeof(*st));
	int rc = -ENOMEM;

	snprintf(errbuf, errlen, "out of memory");
	if (!st)
		return rc;
	o.st = st;
	st->dev = p->dev;
	st->clock = p->clock;
	rc = cfs_super_load(st->dev, &st->sb, errbuf, errlen);
	if (rc)
		goto out;
	if (st->sb.ro_compat || st->dev->info.flags & CFS_DEV_F_READONLY) {
		snprintf(errbuf, errlen,
			 st->sb.ro_compat ? "features %llx of a newer version forbid writing" :
					    "the device is read-only",
			 (unsigned long long)cfs_le64_to_cpu(st->sb.ro_compat));
		rc = st->sb.ro_compat ? -EPROTONOSUPPORT : -EROFS;
		goto out;
	}
	if (cfs_le64_to_cpu(st->sb.epoch) >= 1ull << 23) {
		snprintf(errbuf, errlen, "opened 2^23 times: epochs are used up");
		rc = -EOVERFLOW;
		goto out;
	}
	rc = store_setup(st, p->reserve_bytes);
	if (rc)
		goto out;
	o.clean = cfs_le32_to_cpu(st->sb.state) & CFS_SUPER_CLEAN;
	rc = cfs_scan_init(&o.sc, st->dev);
	if (rc)
		goto out;
	o.block = cfs_aligned_raw(BLK);
	if (!o.block) {
		rc = -ENOMEM;
		goto out;
	}
	/* from here on the target counts as not closed in order */
	st->sb.state = 0;
	st->sb.epoch = cfs_cpu_to_le64(st->epoch);
	st->was_clean = o.clean;
	rc = cfs_super_write(st->dev, &st->sb);
	if (rc) {
		snprintf(errbuf, errlen, "writing the superblock failed: %s", strerror(-rc));
		goto out;
	}
	rc = cfs_votes_load(st, true, errbuf, errlen);
	if (!rc)
		rc = recover(&o);
	if (rc)
		goto out;
	st->open_ns = cfs_clock_boot_ns(p->clock) - start_ns;
	/* what an earlier process wrote may still sit in the drive's cache */
	st->open_flush = (struct cfs_dev_req){ .op = CFS_DEV_FLUSH, .done = open_flushed };
	cfs_store_submit(st, &st->open_flush);
	if (errlen)
		errbuf[0] = '\0';
	*ret_store = st;
	st = NULL;
out:
	free(o.tombs);
	for (uint32_t i = 0; i < o.n_unsealed; i++)
		free(o.unsealed[i].ents);
	free(o.unsealed);
	free(o.block);
	cfs_scan_exit(&o.sc);
	store_free(st);
	return rc;
}

void cfs_store_stop(struct cfs_store *st, void (*fn)(void *arg), void *arg)
{
	st->stopping = true;
	cfs_timer_cancel(st->clock, &st->cleaner.timer);
	cfs_timer_cancel(st->clock, &st->pool.timer);
	st->stopped = fn;
	st->stopped_arg = arg;
	cfs_timer_set(st->clock, &st->later_timer, cfs_clock_boot_ns(st->clock));
}

/* summaries of the open segments, so that the next start need not scan them; then the superblock */
static int close_clean(struct cfs_store *st)
{
	int rc = 0;

	for (uint32_t i = 0; i < CFS_OSEGS && !rc; i++) {
		struct cfs_oseg *os = &st->osegs[i];

		if (os->state != CFS_OSS_READY)
			continue;
		CFS_ASSERT(cfs_list_empty(&os->flight));
		/* room for this summary and a later one, or it ends here */
		rc = cfs_oseg_write_summary_sync(
			st, os,
			os->want_seal ||
				!cfs_oseg_room(st, os, cfs_sum_blocks(os->n_ents) + 8, 64));
	}
	if (rc)
		return rc;
	st->sb.state = cfs_cpu_to_le32(CFS_SUPER_CLEAN);
	return cfs_super_write(st->dev, &st->sb);
}

void cfs_store_close(struct cfs_store *st, bool clean)
{
	if (!st)
		return;
	cfs_timer_cancel(st->clock, &st->cleaner.timer);
	cfs_timer_cancel(st->clock, &st->pool.timer);
	cfs_timer_cancel(st->clock, &st->later_timer);
	if (clean && !st->failed) {
		int rc;

		CFS_ASSERT(!st->inflight);
		rc = close_clean(st);
		if (rc)
			cfs_err("store: closing: %s; the next start will scan", strerror(-rc));
	}
	store_free(st);
}

void cfs_store_stat(struct cfs_store *st, struct cfs_store_stat *ret)
{
	uint32_t usable =
		st->seg_blocks - CFS_DISK_SEG_HDR_BLOCKS - cfs_obj_blocks(st->obj_max) / 2;
	uint64_t used = st->used, room = 0, free_blocks, lack;
	const struct cfs_oseg *os = st->open[CFS_OS_USER];
	uint32_t data_segs = st->n_segs - st->reserve - st->n_journal - st->n_pool, avail;

	memset(ret, 0, sizeof(*ret));
	if (st->n_segs < st->reserve + st->n_journal + st->n_pool)
		data_segs = 0;
	for (uint32_t i = 0; i < CFS_OSEGS; i++)
		if (st->osegs[i].state != CFS_OSS_UNUSED)
			used += st->osegs[i].head - CFS_DISK_SEG_HDR_BLOCKS;
	if (os && os->state == CFS_OSS_READY)
		room = st->seg_blocks - 1 - os->head;
	avail = cfs_seg_available(st, CFS_ALLOC_USER);
	lack = st->n_free < st->reserve ? st->reserve - st->n_free : 0;
	free_blocks = (uint64_t)avail * usable + room + st->reclaim;
	lack *= usable;
	free_blocks = free_blocks > lack ? free_blocks - lack : 0;
	memcpy(ret->cluster, st->sb.cluster, sizeof(ret->cluster));
	ret->target_id = cfs_le32_to_cpu(st->sb.target_id);
	ret->total_bytes = (uint64_t)data_segs * usable * BLK;
	ret->free_bytes = cfs_min(free_blocks * BLK, ret->total_bytes);
	ret->live_bytes = st->live * BLK;
	ret->dead_bytes = used > st->live ? (used - st->live) * BLK : 0;
	ret->objects = cfs_index_count(st->index);
	ret->index_bytes = cfs_index_bytes(st->index);
	ret->segments = st->n_segs;
	ret->segments_free = st->n_free;
	ret->bytes_written_user = st->bytes_user;
	ret->bytes_written_total = st->bytes_total;
	ret->cleaned_segments = st->cleaned;
	ret->checksum_errors = st->checksum_errors;
	ret->open_ns = st->open_ns;
}

int cfs_store_list(struct cfs_store *st, uint64_t *cursor, struct cfs_oid *oids, uint32_t *lens,
		   uint32_t max)
{
	return cfs_index_list(st->index, cursor, oids, lens, max);
}
