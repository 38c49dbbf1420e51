/* SPDX-License-Identifier: MIT */
/*
 * journal.c - the calls of a journal: opening, appending, truncating, snapshots, votes. See
 * journal_i.h for the state; jwrite.c writes, jload.c reads.
 */
#include "server/store/journal_i.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


_Static_assert(sizeof(struct cfs_jreq) <= sizeof(((struct cfs_journal_append *)0)->priv),
	       "cfs_jreq");
_Static_assert(sizeof(struct cfs_jreq) <= sizeof(((struct cfs_journal_snapshot *)0)->priv),
	       "cfs_jreq");

static int check_append(const struct cfs_journal *j, const struct cfs_journal_append *a)
{
	const uint32_t max = j->rec_max - (uint32_t)(sizeof(struct cfs_disk_rec) +
						     2 * sizeof(struct cfs_disk_jitem));

	if (j->failed || j->st->failed)
		return -EIO;
	if (j->st->stopping)
		return -ESHUTDOWN;
	if (!a->n)
		return -EINVAL;
	for (uint32_t i = 0; i < a->n; i++) {
		if (a->entries[i].index != j->last_index + 1 + i)
			return -EINVAL;
		if (a->entries[i].len > max - 8)
			return -EMSGSIZE;
	}
	return 0;
}

void cfs_journal_append(struct cfs_journal *j, struct cfs_journal_append *a)
{
	struct cfs_jreq *r = (struct cfs_jreq *)(void *)a->priv;
	int rc = check_append(j, a);

	*r = (struct cfs_jreq){ .j = j,
				.kind = CFS_JK_APPEND,
				.prev_last = j->last_index,
				.trunc = j->trunc };
	if (rc) {
		cfs_jreq_finish_later(r, rc);
		return;
	}
	j->trunc = 0;
	j->last_index += a->n;
	cfs_list_add_tail(&j->queue, &r->node);
	cfs_journal_pump(j);
}

int cfs_journal_truncate(struct cfs_journal *j, uint64_t index)
{
	if (!index)
		return -EINVAL;
	if (index > j->last_index)
		return 0;
	j->last_index = index - 1;
	j->trunc = j->trunc ? cfs_min(j->trunc, index) : index;
	return 0;
}

void cfs_journal_snapshot(struct cfs_journal *j, struct cfs_journal_snapshot *s)
{
	struct cfs_jreq *r = (struct cfs_jreq *)(void *)s->priv;
	int rc = j->failed || j->st->failed	    ? -EIO :
		 j->st->stopping		    ? -ESHUTDOWN :
		 s->manifest_len > CFS_MANIFEST_MAX ? -EMSGSIZE :
		 !s->index			    ? -EINVAL :
		 j->snap_busy			    ? -EBUSY :
						      0;

	*r = (struct cfs_jreq){ .j = j,
				.kind = CFS_JK_SNAPSHOT,
				.prev_last = j->last_index,
				.trunc = j->trunc };
	if (rc) {
		r->refused = true;
		cfs_jreq_finish_later(r, rc);
		return;
	}
	j->snap_busy = true;
	j->snap_next_len = s->manifest_len;
	if (s->manifest_len)
		memcpy(j->manifest_next, s->manifest, s->manifest_len);
	j->trunc = 0;
	j->last_index = cfs_max(j->last_index, s->index);
	cfs_list_add_tail(&j->queue, &r->node);
	cfs_journal_pump(j);
}

int cfs_journal_last_snapshot(struct cfs_journal *j, uint64_t *ret_index, uint64_t *ret_term,
			      const void **ret_manifest, uint32_t *ret_len)
{
	if (!j->have_snap)
		return -ENOENT;
	*ret_index = j->snap_index;
	*ret_term = j->snap_term;
	*ret_manifest = j->manifest;
	*ret_len = j->snap_len;
	return 0;
}

uint64_t cfs_journal_bytes(struct cfs_journal *j)
{
	return j->bytes - j->bytes_at_snap;
}

int cfs_journal_set_vote(struct cfs_journal *j, uint64_t term, uint64_t voted_for)
{
	return cfs_vote_set(j->st, j->slot, term, voted_for);
}

void cfs_journal_get_vote(struct cfs_journal *j, uint64_t *ret_term, uint64_t *ret_voted_for)
{
	*ret_term = cfs_le64_to_cpu(j->st->votes[j->slot].term);
	*ret_voted_for = cfs_le64_to_cpu(j->st->votes[j->slot].voted_for);
}

uint32_t cfs_journal_rec_max(const struct cfs_store *st)
{
	return cfs_min(CFS_JREC_MAX, (st->seg_blocks - CFS_DISK_SEG_HDR_BLOCKS) * BLK);
}

static void journal_free(struct cfs_journal *j)
{
	if (!j)
		return;
	cfs_timer_cancel(j->st->clock, &j->retry);
	cfs_journal_forget_found(j);
	free(j->hdr.buf);
	free(j->move_hdr.buf);
	free(j->manifest);
	free(j->manifest_next);
	cfs_dev_mem_del(j->st->dev, j->ring);
	free(j->ring);
	free(j->segs);
	free(j);
}

/* once the last journal is there, and none has lost anything, an offline zone is nothing to be careful of */
static void explain(struct cfs_store *st)
{
	uint32_t known = 0;
	struct cfs_list *l;

	for (uint32_t i = 0; i < CFS_DISK_VOTE_GROUPS; i++)
		known += st->vote_used[i];
	cfs_list_for_each(l, &st->journals)
		if (cfs_list_entry(l, struct cfs_journal, node)->before_gap)
			return;
	if (known == st->n_journals)
		cfs_zones_explain(st);
}

int cfs_journal_open(struct cfs_store *st, uint32_t group, struct cfs_journal **ret_j, char *errbuf,
		     size_t errlen)
{
	struct cfs_journal *j = calloc(1, sizeof(*j));
	int rc = -ENOMEM, slot;

	snprintf(errbuf, errlen, "out of memory");
	if (!j)
		return rc;
	j->st = st;
	j->group = group;
	j->next_seq = 1;
	j->retry.fn = cfs_journal_retry;
	cfs_list_init(&j->node);
	cfs_list_init(&j->queue);
	cfs_list_init(&j->flight);
	cfs_list_init(&j->rec_free);
	for (uint32_t i = 0; i < CFS_JFLIGHT; i++)
		cfs_list_add_tail(&j->rec_free, &j->rec[i].node);
	j->rec_max = cfs_journal_rec_max(st);
	j->ring_size = 2 * (j->rec_max + CFS_DISK_SEG_HDR_BLOCKS * BLK);
	j->ring = cfs_aligned_raw(j->ring_size);
	if (j->ring)
		cfs_dev_mem_add(st->dev, j->ring, j->ring_size);
	j->manifest = malloc(CFS_MANIFEST_MAX);
	j->manifest_next = malloc(CFS_MANIFEST_MAX);
	j->hdr.buf = cfs_aligned_alloc(CFS_DISK_SEG_HDR_BLOCKS * BLK);
	j->move_hdr.buf = cfs_aligned_alloc(CFS_DISK_SEG_HDR_BLOCKS * BLK);
	if (!j->ring || !j->manifest || !j->manifest_next || !j->hdr.buf || !j->move_hdr.buf)
		goto out;
	slot = cfs_vote_slot(st, group);
	if (slot < 0) {
		snprintf(errbuf, errlen, "all %u vote slots are in use", CFS_DISK_VOTE_GROUPS);
		rc = slot;
		goto out;
	}
	j->slot = (uint32_t)slot;
	/* the superblocks, the journals, the open data segments: each has an active zone */
	if (st->zoned && st->root.n_sides + st->n_journals + 1 + CFS_OS_CLASSES > st->max_active) {
		st->few_zones = true;
		cfs_oseg_end(st, CFS_OS_COLD);
	}
	if (st->zoned && st->root.n_sides + st->n_journals + CFS_OS_CLASSES > st->max_active) {
		snprintf(errbuf, errlen, "%u zones can be active: too few for another journal",
			 st->max_active);
		rc = -EMFILE;
		goto out;
	}
	rc = cfs_journal_recover(j, errbuf, errlen);
	if (rc)
		goto out;
	st->n_journals++;
	cfs_list_add_tail(&st->journals, &j->node);
	if (st->zoned)
		explain(st);
	if (!j->n_segs)
		cfs_pool_want(st);
	if (errlen)
		errbuf[0] = '\0';
	*ret_j = j;
	j = NULL;
out:
	journal_free(j);
	return rc;
}

/* a last record with nothing but the watermark: from now on damage to any record shows */
static void write_mark(struct cfs_journal *j)
{
	struct cfs_store *st = j->st;
	struct cfs_disk_rec *hdr;
	struct cfs_seg_id id;

	if (j->failed || j->moving || st->failed || j->marked || !j->n_segs || j->head == st->seg_blocks ||
	    !cfs_list_empty(&j->flight))
		return;
	id = cfs_seg_ident(st, j->segs[j->n_segs - 1].seg);
	hdr = (void *)j->ring;
	memset(hdr, 0, BLK);
	cfs_rec_init(hdr, CFS_REC_MARK, &id, j->head, sizeof(*hdr), 0);
	hdr->owner = cfs_cpu_to_le32(j->group);
	hdr->seq = cfs_cpu_to_le64(j->next_seq);
	hdr->durable = cfs_cpu_to_le64(j->durable_seq);
	hdr->epoch = cfs_cpu_to_le64(st->epoch);
	cfs_rec_seal(hdr);
	if (!st->dev->ops->write_sync(st->dev, cfs_seg_off(st, j->segs[j->n_segs - 1].seg, j->head),
				      hdr, BLK) &&
	    st->zoned)
		st->segs[j->segs[j->n_segs - 1].seg].end = j->head + 1;
}

void cfs_journal_close(struct cfs_journal *j)
{
	if (!j)
		return;
	j->closing = true;
	write_mark(j);
	j->st->n_journals--;
	cfs_list_del(&j->node);
	journal_free(j);
}
