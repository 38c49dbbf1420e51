/* SPDX-License-Identifier: MIT */
/*
 * jmove.c - a journal survives a failed write: the records that were under way are written again, in order, into a
 * new segment. See journal_i.h for the state.
 *
 * They still stand in the ring, as they were sent. The new segment's first_seq is the first of them, and says
 * with that what the old one counts for: a copy that did arrive there is passed over by a later start. The header
 * is durable before any of them is sent. CFS_JMOVES moves without a single success in between, and it is over.
 */
#include "server/store/journal_i.h"

#include <string.h>

#include "base/log.h"

static void header_written(struct cfs_seg_io *io, int err);

static void give_up(struct cfs_journal *j)
{
	struct cfs_list *l;

	j->failed = true;
	j->moving = false;
	cfs_list_for_each(l, &j->flight)
		cfs_list_entry(l, struct cfs_jrec, node)->done = true;
	cfs_journal_complete(j);
}

/* a segment for the records from j->unplaced on */
static void next_segment(struct cfs_journal *j)
{
	int rc = cfs_journal_take_segment(j, CFS_ALLOC_SNAPSHOT, j->unplaced->seq);

	if (rc) {
		cfs_err("journal of group %u: no segment to go on in: %s", j->group, strerror(-rc));
		give_up(j);
		return;
	}
	j->outstanding++;
	cfs_seg_hdr_write(j->st, &j->move_hdr, j->segs[j->n_segs - 1].seg, CFS_SEG_JOURNAL,
			  header_written);
}

/* the record as it is, but for its place */
static void place(struct cfs_journal *j, struct cfs_jrec *rec)
{
	struct cfs_store *st = j->st;
	uint32_t seg = j->segs[j->n_segs - 1].seg;
	struct cfs_seg_id id = cfs_seg_ident(st, seg);
	struct cfs_disk_rec *hdr = rec->hdr;

	rec->seg = seg;
	rec->iov = (struct iovec){ hdr, (size_t)cfs_le32_to_cpu(hdr->blocks) * BLK };
	hdr->type = cfs_rec_type_of(hdr);
	hdr->seg_seq = cfs_cpu_to_le64(id.seg_seq);
	hdr->salt = cfs_cpu_to_le64(id.salt);
	hdr->seg_block = cfs_cpu_to_le32(j->head);
	hdr->durable = cfs_cpu_to_le64(j->durable_seq);
	cfs_rec_seal(hdr);
	if (hdr->type == CFS_REC_SNAPSHOT && !rec->resnap)
		j->snap_next_seg = seg;
	cfs_journal_send(j, rec, j->head, 0);
	j->head += cfs_le32_to_cpu(hdr->blocks);
}

static void header_written(struct cfs_seg_io *io, int err)
{
	struct cfs_journal *j = cfs_container_of(io, struct cfs_journal, move_hdr);
	struct cfs_list *l;

	j->outstanding--;
	j->broken = j->broken || err;
	if (j->broken) {
		cfs_journal_move(j);
		return;
	}
	for (l = &j->unplaced->node; l != &j->flight; l = l->next) {
		struct cfs_jrec *rec = cfs_list_entry(l, struct cfs_jrec, node);

		if (j->head + cfs_le32_to_cpu(rec->hdr->blocks) > j->st->seg_blocks) {
			j->unplaced = rec;
			next_segment(j);
			return;
		}
		place(j, rec);
	}
	j->moving = false;
	cfs_journal_pump(j);
}

/* called when a write has failed, and again when nothing is under way any more */
void cfs_journal_move(struct cfs_journal *j)
{
	uint64_t highest = j->segs[j->n_segs - 1].last_index;

	j->moving = true;
	if (j->outstanding)
		return;
	j->broken = false;
	if (j->st->failed || j->st->dev->stat.gone || ++j->n_moves > CFS_JMOVES) {
		give_up(j);
		return;
	}
	cfs_warn("journal of group %u: goes on in another segment", j->group);
	j->unplaced = cfs_list_first(&j->flight, struct cfs_jrec, node);
	j->move_index = cfs_max(j->move_index, highest);
	next_segment(j);
}
