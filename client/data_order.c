// SPDX-License-Identifier: MIT
/*
 * data_order.c - reads and writes that meet in one page of the kernel's cache.
 *
 * write(2) puts the new bytes into a page that the kernel has, lets go of the page, and then sends the WRITE: until that is
 * applied here, a recall may have the page dropped, and a read bring the old bytes back, for good. So
 *  - a read of bytes that are being written waits for the write: what was seen in the page before is not unseen;
 *  - if a read has come in between all the same (it waited for too long; or it was served after the page was dropped and
 *    before the WRITE had arrived, which cannot be told from later writes, so REREAD_MS counts as "in between"), the pages are
 *    dropped once more before the write is answered. That such a read came is forgotten when a drop that began after it has ended, not
 *    before: the read may still hold its page, with what it found, and the drop waits for it.
 * Stores through mappings are no part of this: their pages cannot be dropped before the WRITE is answered.
 * All under d->lock, which the waiting drops.
 */
#include "client/data_i.h"

#define OVERTAKE_MS	1000u	/* a read waits for a write that stands before it */
#define DROP_MS		100u	/* a write waits for pages that must go before it is answered */
#define REREAD_MS	5000u	/* from write(2)'s copying to the arrival of the WRITE, far more than that takes */
#define REREAD_MAX	1024u	/* ranges; beyond: everything */

static bool lately(uint64_t ms)
{
	return ms && cfs_data_now_ms() - ms < REREAD_MS;
}

static uint64_t page_end(const struct cfs_data *d, uint64_t end)
{
	return end > INT64_MAX ? UINT64_MAX : cfs_align_up(end, d->g->page_bytes);
}

void cfs_data_drop_begin(struct cfs_data *d, uint64_t off, uint64_t end)
{
	uint64_t pos = off;
	struct cfs_range r;

	pthread_mutex_lock(&d->lock);
	d->dropped_ms = cfs_data_now_ms();
	d->n_dropping++;
	for (; cfs_rangeset_next(&d->reread, pos, &r) && r.off < end; pos = r.end)
		cfs_rangeset_add(&d->dropping, cfs_max(r.off, off), d->dropping.n < REREAD_MAX ? cfs_min(r.end, end) : UINT64_MAX);
	cfs_rangeset_del(&d->reread, off, end);
	pthread_mutex_unlock(&d->lock);
}

void cfs_data_drop_end(struct cfs_data *d)
{
	pthread_mutex_lock(&d->lock);
	CFS_ASSERT(d->n_dropping > 0);
	if (!--d->n_dropping)
		cfs_rangeset_clear(&d->dropping);
	pthread_mutex_unlock(&d->lock);
}

void cfs_data_write_begin(struct cfs_data *d, uint64_t off, uint64_t end)
{
	if (!d->n_writing++) {
		d->writing_off = UINT64_MAX;
		d->writing_end = 0;
	}
	d->writing_off = cfs_min(d->writing_off, cfs_align_down(off, d->g->page_bytes));
	d->writing_end = cfs_max(d->writing_end, page_end(d, end));
}

static bool being_written(const struct cfs_data *d, uint64_t off, uint64_t end)
{
	return d->n_writing && off < d->writing_end && end > d->writing_off;
}

/* the write waits for the server without a lease, and a recall must not wait for the pages of this read either */
static void share_blocked_pages(struct cfs_data *d, uint64_t off, uint64_t end)
{
	if (!d->writers_blocked || (off >= d->blocked_off && end <= d->blocked_end))
		return;
	d->blocked_off = cfs_min(d->blocked_off, off);
	d->blocked_end = cfs_max(d->blocked_end, end);
	d->blocked_seq++;
	pthread_cond_broadcast(&d->cond);
}

void cfs_data_read_begin(struct cfs_data *d, uint64_t off, uint64_t end)
{
	uint64_t until = cfs_data_now_ms() + OVERTAKE_MS, now, at = cfs_align_down(off, d->g->page_bytes);

	/* of what is appended nothing was to be seen, and its place is not known */
	while (being_written(d, off, end) && d->writing_end != UINT64_MAX && (now = cfs_data_now_ms()) < until) {
		share_blocked_pages(d, at, page_end(d, end));
		if (!d->n_overtaking++) {
			d->overtaking_off = UINT64_MAX;
			d->overtaking_end = 0;
		}
		d->overtaking_off = cfs_min(d->overtaking_off, at);
		d->overtaking_end = cfs_max(d->overtaking_end, page_end(d, end));
		pthread_cond_broadcast(&d->cond);	/* a write that drops pages goes around these */
		cfs_data_cond_wait_ms(&d->cond, &d->lock, (uint32_t)(until - now));
		d->n_overtaking--;
	}
	if (being_written(d, off, end) || lately(d->dropped_ms))
		cfs_rangeset_add(&d->reread, at, d->reread.n < REREAD_MAX ? page_end(d, end) : UINT64_MAX);
	if (end > cfs_align_down(d->size, d->g->page_bytes))
		d->tail_read_ms = cfs_data_now_ms();
}

static uint32_t drop_patience(const struct cfs_data *d, const void *arg)
{
	const uint64_t *until = arg;
	uint64_t now = cfs_data_now_ms();

	(void)d;
	return now < *until ? (uint32_t)(*until - now) : 0;
}

/*
 * The pages that reads brought in are not those that the write holds locked (it locks what is not in the cache), unless the
 * kernel had no room for them any more. Those, and those locked by reads that wait for a recall, which may wait for
 * this write's own pages, go a moment later.
 */
static void drop(struct cfs_data *d, uint64_t off, uint64_t end)
{
	uint64_t until = cfs_data_now_ms() + DROP_MS;

	cfs_data_inval_wait(d, off, end, drop_patience, &until);
}

/* widens [*first, *last) to what of [off, end) is in the set */
static void span(const struct cfs_rangeset *set, uint64_t off, uint64_t end, uint64_t *first, uint64_t *last)
{
	struct cfs_range r;

	for (uint64_t pos = off; cfs_rangeset_next(set, pos, &r) && r.off < end; pos = r.end) {
		*first = cfs_min(*first, cfs_max(r.off, off));
		*last = cfs_max(*last, cfs_min(r.end, end));
	}
}

void cfs_data_write_end(struct cfs_data *d, uint64_t off, uint64_t end, bool append)
{
	bool tail = append && lately(d->tail_read_ms);
	uint64_t first = UINT64_MAX, last = 0;

	CFS_ASSERT(d->n_writing > 0);
	if (!--d->n_writing)
		pthread_cond_broadcast(&d->cond);
	off = cfs_align_down(off, d->g->page_bytes);
	end = page_end(d, end);
	if (off < end && tail) {
		first = off;
		last = end;
	} else if (off < end) {
		span(&d->reread, off, end, &first, &last);
		span(&d->dropping, off, end, &first, &last);
	}
	if (!d->n_writing && !lately(d->dropped_ms))
		cfs_rangeset_clear(&d->reread);
	if (first < last)
		drop(d, first, last);
}
