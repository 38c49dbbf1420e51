/* SPDX-License-Identifier: MIT */
/*
 * store.c - opening, stopping, closing and describing a store. On the store's thread; opening and
 * closing block. recover.c finds out what is there.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "server/store/journal_i.h"

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

static bool journal_lost(const struct cfs_store *st)
{
	uint64_t first, last;
	struct cfs_list *l;

	cfs_list_for_each(l, &st->journals)
		if (cfs_journal_lost(cfs_list_entry(l, struct cfs_journal, node), &first, &last))
			return true;
	return false;
}

static void store_free(struct cfs_store *st)
{
	if (!st)
		return;
	for (uint32_t i = 0; i < CFS_OSEGS; i++)
		cfs_oseg_drop(&st->osegs[i]);
	for (uint32_t i = 0; st->segs && i < st->n_segs; i++) {
		free(st->segs[i].homes);
		free(st->segs[i].ents);
	}
	cfs_clean_exit(st);
	cfs_pool_exit(st);
	cfs_delete_exit(st);
	cfs_read_exit(st);
	cfs_write_exit(st);
	cfs_index_destroy(st->index);
	cfs_zones_exit(st);
	free(st->segs);
	free(st->cut);
	free(st);
}

void cfs_store_geometry(struct cfs_store *st)
{
	uint64_t zone_bytes = cfs_le64_to_cpu(st->sb.zone_bytes);

	st->zoned = st->sb.incompat != 0;
	st->seg_bytes = cfs_le32_to_cpu(st->sb.segment_bytes);
	st->seg_blocks = st->seg_bytes / BLK;
	st->seg_base = st->zoned ? CFS_DISK_ROOT_ZONES * zone_bytes : CFS_DISK_SEG_OFF;
	st->seg_stride = st->zoned ? zone_bytes : st->seg_bytes;
	st->n_segs = cfs_le32_to_cpu(st->sb.segments);
	st->obj_max = cfs_obj_max_of(st->seg_bytes);
	st->format_id = cfs_le64_to_cpu(st->sb.format_id);
}

static int store_setup(struct cfs_store *st, uint64_t reserve_bytes)
{
	unsigned block_bits = 0;
	int rc;

	cfs_store_geometry(st);
	while (st->seg_blocks >> block_bits)
		block_bits++;
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
	for (uint32_t i = 0; i < st->n_segs; i++)
		st->segs[i].end = st->seg_blocks;
	rc = cfs_index_create(block_bits, &st->index);
	if (!rc && st->zoned)
		rc = cfs_zones_init(st);
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
	cfs_below_init(st);
	return rc;
}

int cfs_store_open(const struct cfs_store_params *p, struct cfs_store **ret_store, char *errbuf,
		   size_t errlen)
{
	uint64_t start_ns = cfs_clock_boot_ns(p->clock);
	struct cfs_store *st = calloc(1, sizeof(*st));
	int rc = -ENOMEM;

	snprintf(errbuf, errlen, "out of memory");
	if (!st)
		return rc;
	st->dev = p->dev;
	st->clock = p->clock;
	st->lost = p->lost;
	st->room_coming = p->room_coming;
	st->arg = p->arg;
	rc = cfs_super_load(&st->root, st->dev, &st->sb, errbuf, errlen);
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
	if (st->sb.incompat)
		cfs_root_mirror(&st->root);
	rc = store_setup(st, p->reserve_bytes);
	if (rc)
		goto out;
	st->was_clean = cfs_le32_to_cpu(st->sb.state) & CFS_SUPER_CLEAN;
	/* from here on the target counts as not closed in order */
	st->sb.state = 0;
	st->sb.epoch = cfs_cpu_to_le64(st->epoch);
	rc = cfs_super_write(&st->root, &st->sb);
	if (!rc && st->zoned)
		rc = cfs_root_tidy(&st->root);
	if (rc) {
		snprintf(errbuf, errlen, "writing the superblock failed: %s", strerror(-rc));
		goto out;
	}
	/* zones are not written again in place: what can be read must be durable before it counts */
	rc = st->zoned ? st->dev->ops->flush_sync(st->dev) : 0;
	if (rc) {
		snprintf(errbuf, errlen, "the first flush failed: %s", strerror(-rc));
		goto out;
	}
	rc = cfs_votes_load(st, true, errbuf, errlen);
	if (!rc)
		rc = cfs_store_recover(st, errbuf, errlen);
	if (rc)
		goto out;
	rc = st->zoned ? cfs_zones_start(st) : 0;
	if (rc) {
		snprintf(errbuf, errlen, "out of memory");
		goto out;
	}
	st->open_ns = cfs_clock_boot_ns(p->clock) - start_ns;
	/* what an earlier process wrote may still sit in the drive's cache */
	st->open_flush = (struct cfs_dev_req){ .op = CFS_DEV_FLUSH, .done = open_flushed };
	cfs_store_submit(st, &st->open_flush);
	cfs_below_start(st);
	if (errlen)
		errbuf[0] = '\0';
	*ret_store = st;
	st = NULL;
out:
	store_free(st);
	return rc;
}

void cfs_store_stop(struct cfs_store *st, void (*fn)(void *arg), void *arg)
{
	st->stopping = true;
	cfs_below_exit(st);
	cfs_timer_cancel(st->clock, &st->cleaner.timer);
	cfs_timer_cancel(st->clock, &st->room_timer);
	cfs_timer_cancel(st->clock, &st->pool.timer);
	cfs_zones_stop(st);
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
		bool sealed;

		if (os->state != CFS_OSS_READY)
			continue;
		CFS_ASSERT(cfs_list_empty(&os->flight));
		/* room for this summary and a later one, or it ends here */
		sealed = os->want_seal ||
			 !cfs_oseg_room(st, os, cfs_sum_blocks(os->n_ents) + 8, 64);
		if (st->zoned && os->hole != UINT32_MAX)
			continue; /* a write has failed there: the next start scans it */
		rc = cfs_oseg_write_summary_sync(st, os, sealed);
		if (!rc && sealed && st->zoned)
			rc = cfs_zone_sync(st, os->seg, CFS_DEV_ZONE_FINISH);
	}
	if (rc)
		return rc;
	st->sb.state = cfs_cpu_to_le32(CFS_SUPER_CLEAN);
	return cfs_super_write(&st->root, &st->sb);
}

void cfs_store_close(struct cfs_store *st, bool clean)
{
	if (!st)
		return;
	cfs_below_exit(st);
	cfs_timer_cancel(st->clock, &st->cleaner.timer);
	cfs_timer_cancel(st->clock, &st->pool.timer);
	cfs_timer_cancel(st->clock, &st->room_timer);
	cfs_timer_cancel(st->clock, &st->later_timer);
	cfs_zones_stop(st);
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
	uint64_t used = st->used, room = 0, free_blocks, lack, spare;
	const struct cfs_oseg *os = st->open[CFS_OS_USER];
	uint32_t data_segs = st->n_segs - st->reserve - st->n_journal - st->n_pool, avail;
	/* one for which room is just being looked for below is free all the same; so is one that is just being opened */
	uint32_t n_free = cfs_below_free(st) + (st->below.busy && st->below.was_free);
	uint32_t unbacked = st->n_free > n_free ? st->n_free - n_free : 0;
	uint64_t room_segs;

	memset(ret, 0, sizeof(*ret));
	if (st->n_segs < st->reserve + st->n_journal + st->n_pool)
		data_segs = 0;
	for (uint32_t i = 0; i < CFS_OSEGS; i++)
		if (st->osegs[i].state != CFS_OSS_UNUSED)
			used += st->osegs[i].head - CFS_DISK_SEG_HDR_BLOCKS;
	if (os && os->state == CFS_OSS_READY)
		room = st->seg_blocks - 1 - os->head;
	else if (os && os->state == CFS_OSS_OPENING)
		room = usable;
	avail = n_free > st->reserve ? n_free - st->reserve : 0;
	lack = n_free < st->reserve ? st->reserve - n_free : 0;
	free_blocks = (uint64_t)avail * usable + room + st->reclaim;
	lack *= usable;
	free_blocks = free_blocks > lack ? free_blocks - lack : 0;
	memcpy(ret->cluster, st->sb.cluster, sizeof(ret->cluster));
	ret->target_id = cfs_le32_to_cpu(st->sb.target_id);
	/* so that cleaning finds enough that is dead, when all that may be used is used */
	spare = (uint64_t)data_segs * usable / CFS_SPARE_PART;
	ret->total_bytes = ((uint64_t)data_segs * usable - spare) * BLK;
	room_segs = data_segs > unbacked ? data_segs - unbacked : 0;
	spare = room_segs * usable / CFS_SPARE_PART;
	ret->kept_bytes = cfs_min(free_blocks, spare) * BLK + cfs_min((uint64_t)n_free, (uint64_t)st->reserve) * st->seg_bytes;
	free_blocks = free_blocks > spare ? free_blocks - spare : 0;
	ret->free_bytes = cfs_min(free_blocks * BLK, ret->total_bytes);
	if (st->below.on && st->below.known) {
		ret->below_missing = st->dev->room.missing;
		ret->below_free = st->dev->room.free;
		ret->below = st->dev->room.below;
	}
	ret->below_lacking = st->below.lacking;
	ret->live_bytes = st->live * BLK;
	ret->dead_bytes = used > st->live ? (used - st->live) * BLK : 0;
	ret->objects = cfs_index_count(st->index);
	ret->index_bytes = cfs_index_bytes(st->index);
	ret->segments = st->n_segs;
	ret->segments_free = st->n_free;
	ret->bytes_written_user = st->bytes_user;
	ret->bytes_written_total = st->bytes_total;
	ret->bytes_written_journal = st->bytes_journal;
	ret->bytes_moved = st->bytes_moved;
	ret->cleaned_segments = st->cleaned;
	ret->checksum_errors = st->checksum_errors;
	ret->open_ns = st->open_ns;
	ret->journal_atomic_bytes = st->dev->info.atomic_unit;
	ret->journal_atomic_records = st->atomic_records;
	ret->vote_atomic = cfs_vote_is_atomic(st);
	if (!st->zoned)
		return;
	ret->zone_bytes = st->seg_stride;
	ret->zone_resets = st->zone_resets;
	ret->zones_active = st->n_active;
	ret->zones_active_max = st->max_active == UINT32_MAX ? 0 : st->max_active;
	ret->zones_failed = (uint32_t)st->zones_failed;
	ret->journal_lost = journal_lost(st);
	ret->zones_retired = cfs_le32_to_cpu(st->sb.n_retired);
}

int cfs_store_list(struct cfs_store *st, uint64_t *cursor, struct cfs_oid *oids, uint32_t *lens,
		   uint32_t max)
{
	return cfs_index_list(st->index, cursor, oids, lens, max);
}
