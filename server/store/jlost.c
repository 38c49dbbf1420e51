/* SPDX-License-Identifier: MIT */
/*
 * jlost.c - a journal whose zone goes offline. What it had there is acknowledged, and nowhere else on this target; but
 * whoever keeps the log has it in memory, until the server ends. So it is asked to hand it over once more: see
 * cfs_journal_lost() and cfs_journal_again(). The copies go to the end of the stream, which has a gap from then on, until
 * what is before the gap has been dropped. See journal_i.h for the state.
 */
#include "server/store/journal_i.h"

#include <errno.h>

static bool is_lost(const struct cfs_journal *j, const struct cfs_jseg *js)
{
	return j->st->segs[js->seg].flags & CFS_SF_LOST && !js->again_done;
}

/* the snapshot's record stands in such a zone, and no other one is on its way */
static bool snap_lost(const struct cfs_journal *j)
{
	return j->have_snap && !j->snap_busy && j->st->segs[j->snap_seg].flags & CFS_SF_LOST;
}

bool cfs_journal_lost(const struct cfs_journal *j, uint64_t *ret_first, uint64_t *ret_last)
{
	uint64_t first = UINT64_MAX, last = 0;
	bool any = j->before_gap || (j->have_snap && j->st->segs[j->snap_seg].flags & CFS_SF_LOST);

	for (uint32_t i = 0; i < j->n_segs; i++) {
		const struct cfs_jseg *js = &j->segs[i];
		uint64_t from = cfs_max(js->first_index, j->have_snap ? j->keep_from : 1);
		uint64_t to = cfs_min(js->last_index, j->last_index);

		if (!is_lost(j, js) || from > to)
			continue;
		first = cfs_min(first, from);
		last = cfs_max(last, to);
		any = true;
	}
	*ret_first = last ? first : 0;
	*ret_last = last;
	return any;
}

void cfs_journal_again(struct cfs_journal *j, struct cfs_journal_append *a)
{
	struct cfs_jreq *r = (struct cfs_jreq *)(void *)a->priv;
	uint64_t first = a->n ? a->entries[0].index : 0;
	int rc = j->failed || j->st->failed ? -EIO : j->st->stopping ? -ESHUTDOWN : 0;

	/* a record of it begins with what was true when it was asked for: the log ends here */
	*r = (struct cfs_jreq){ .j = j, .kind = CFS_JK_AGAIN, .prev_last = j->last_index, .trunc = j->last_index + 1 };
	for (uint32_t i = 0; i < a->n && !rc; i++)
		if (a->entries[i].index != first + i || a->entries[i].index > j->last_index)
			rc = -EINVAL;
	if (rc) {
		cfs_jreq_finish_later(r, rc);
		return;
	}
	j->trunc = 0;
	for (uint32_t i = 0; i < j->n_segs; i++) {
		struct cfs_jseg *js = &j->segs[i];

		js->again_asked = is_lost(j, js) &&
				  (cfs_max(js->first_index, j->have_snap ? j->keep_from : 1) >
					   cfs_min(js->last_index, j->last_index) ||
				   (a->n && cfs_max(js->first_index, j->have_snap ? j->keep_from : 1) >= first &&
				    cfs_min(js->last_index, j->last_index) < first + a->n));
	}
	r->resnap = snap_lost(j);
	cfs_list_add_tail(&j->queue, &r->node);
	cfs_journal_pump(j);
}

void cfs_journal_again_ended(struct cfs_journal *j, int err)
{
	for (uint32_t i = 0; i < j->n_segs; i++) {
		j->segs[i].again_done |= j->segs[i].again_asked && !err;
		j->segs[i].again_asked = false;
	}
}
