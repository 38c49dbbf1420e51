/* SPDX-License-Identifier: MIT */
/*
 * raft_journal.c - what a Raft log asks of its journal: entries in groups, checkpoints, installed
 * snapshots.
 *
 * Jobs run one at a time in the order of l->jobs. Appends that wait are merged into one device
 * write. A checkpoint goes in front of appends that wait, because it frees the space they may be
 * waiting for.
 */
#include "server/cluster/raft_log_i.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define APPEND_ENTRIES_MAX	512u		/* entries in one device write */
#define APPEND_BYTES_MAX	(4u << 20)	/* and their bytes, but for a single larger one */
#define FULL_RETRY_NS		(200 * CFS_NSEC_PER_MSEC)

/* ---- the queue ------------------------------------------------------------------------------- */

struct raft_job *cfs_raft_job_new(struct cfs_raft_log *l, int kind, unsigned n)
{
	struct raft_job *job = calloc(1, sizeof(*job));

	if (!job)
		return NULL;
	job->l = l;
	job->kind = kind;
	job->n = n;
	cfs_list_init(&job->link);
	if (n) {
		job->bufs = calloc(n, sizeof(*job->bufs));
		job->entries = calloc(n, sizeof(*job->entries));
		if (!job->bufs || !job->entries) {
			free(job->bufs);
			free(job->entries);
			free(job);
			return NULL;
		}
	}
	return job;
}

void cfs_raft_job_free(struct raft_job *job)
{
	if (!job)
		return;
	cfs_list_del(&job->link);
	for (unsigned i = 0; i < job->n; i++)
		cfs_ebuf_put(job->bufs[i]);
	free(job->bufs);
	free(job->entries);
	free((void *)(uintptr_t)job->snap.manifest);
	free(job);
}

/* all but the one under way */
void cfs_raft_drop_waiting(struct cfs_raft_log *l)
{
	struct cfs_list *pos, *tmp;

	cfs_list_for_each_safe(pos, tmp, &l->jobs) {
		if (!(l->writing && pos == l->jobs.next))
			cfs_raft_job_free(cfs_list_entry(pos, struct raft_job, link));
	}
}

void cfs_raft_jobs_free(struct cfs_raft_log *l)
{
	CFS_ASSERT(!l->writing);
	cfs_raft_drop_waiting(l);
}

static void on_retry(struct cfs_timer *t)
{
	cfs_raft_run(cfs_container_of(t, struct cfs_raft_log, retry));
}

/* no space: keep the job, try again, and ask for a checkpoint, which is what makes space */
void cfs_raft_journal_full(struct cfs_raft_log *l)
{
	uint64_t now = cfs_clock_boot_ns(l->clock);

	l->n_full++;
	if (!l->full_logged_ns || now - l->full_logged_ns > 10 * CFS_NSEC_PER_SEC) {
		cfs_warn("shard %" PRIu32
			 ": the journal is full: requests wait for a checkpoint to free space",
			 l->group);
		l->full_logged_ns = now;
	}
	l->retry.fn = on_retry;
	cfs_timer_set(l->clock, &l->retry, now + FULL_RETRY_NS);
	l->checkpoint_wanted = true;
	cfs_raft_maybe_checkpoint(l);
}

/* ---- entries --------------------------------------------------------------------------------- */

/* the highest index of the job that is still in the log as it was written */
static uint64_t still_there(struct cfs_raft_log *l, const struct raft_job *job)
{
	uint64_t high = 0;

	for (unsigned i = 0; i < job->n; i++) {
		struct cfs_elog_entry *e = cfs_elog_get(&l->elog, job->entries[i].index);

		if (!e || e->term != job->entries[i].term)
			break;
		high = job->entries[i].index;
	}
	return high;
}

static void append_done(struct cfs_journal_append *a, int err)
{
	struct raft_job *job = cfs_container_of(a, struct raft_job, append);
	struct cfs_raft_log *l = job->l;
	struct raft_event ev = { .type = RAFT_PERSISTED_ENTRIES };

	l->writing = false;
	if (cfs_raft_dead(l))
		return;		/* the job goes with the queue */
	if (err == -ENOSPC) {
		cfs_raft_journal_full(l);
		return;
	}
	if (err) {
		cfs_raft_fail(l, err, "cannot write to the journal");
		return;
	}
	l->n_writes++;
	ev.persisted_entries.index = l->installing ? 0 : still_there(l, job);
	cfs_raft_job_free(job);
	cfs_raft_run(l);
	if (ev.persisted_entries.index > l->raft.last_stored && cfs_raft_step(l, &ev))
		cfs_raft_fail(l, -EIO, "libraft refused a completed write");
}

/* move the entries of the appends behind `job` into it */
static void merge(struct cfs_raft_log *l, struct raft_job *job)
{
	unsigned n = job->n, jobs = 0;
	uint64_t bytes = 0;
	struct cfs_journal_entry *entries;
	struct cfs_ebuf **bufs;
	struct cfs_list *pos;

	for (unsigned i = 0; i < job->n; i++)
		bytes += job->entries[i].len;
	for (pos = job->link.next; pos != &l->jobs; pos = pos->next) {
		struct raft_job *next = cfs_list_entry(pos, struct raft_job, link);

		if (next->kind != JOB_APPEND || next->truncate || n + next->n > APPEND_ENTRIES_MAX)
			break;
		for (unsigned i = 0; i < next->n; i++)
			bytes += next->entries[i].len;
		if (bytes > APPEND_BYTES_MAX)
			break;
		n += next->n;
		jobs++;
	}
	if (!jobs)
		return;
	entries = calloc(n, sizeof(*entries));
	bufs = calloc(n, sizeof(*bufs));
	if (!entries || !bufs) {	/* then one by one */
		free(entries);
		free(bufs);
		return;
	}
	memcpy(entries, job->entries, job->n * sizeof(*entries));
	memcpy(bufs, job->bufs, job->n * sizeof(*bufs));
	n = job->n;
	while (jobs--) {
		struct raft_job *next = cfs_list_first(&job->link, struct raft_job, link);

		memcpy(entries + n, next->entries, next->n * sizeof(*entries));
		memcpy(bufs + n, next->bufs, next->n * sizeof(*bufs));
		n += next->n;
		next->n = 0;	/* its references have moved */
		cfs_raft_job_free(next);
	}
	free(job->entries);
	free(job->bufs);
	job->entries = entries;
	job->bufs = bufs;
	job->n = n;
}

/* ---- entries that the journal has lost ------------------------------------------------------- */

static void again_done(struct cfs_journal_append *a, int err)
{
	struct raft_job *job = cfs_container_of(a, struct raft_job, append);
	struct cfs_raft_log *l = job->l;

	l->writing = false;
	if (cfs_raft_dead(l))
		return;		/* the job goes with the queue */
	if (!err)
		cfs_info("shard %" PRIu32 ": entries %" PRIu64 " to %" PRIu64
			 " have been written again", l->group, job->first, job->first + job->n - 1);
	cfs_raft_job_free(job);
	if (err == -ENOSPC) {
		l->repair = true;
		cfs_raft_journal_full(l);
		return;
	}
	if (err) {
		cfs_raft_fail(l, err, "cannot write entries again that were in an offline zone");
		return;
	}
	cfs_raft_run(l);
}

/* the first index that an append which waits will overwrite: there the journal has what is no longer the log */
static uint64_t overwritten_from(const struct cfs_raft_log *l)
{
	uint64_t from = UINT64_MAX;
	struct cfs_list *pos;

	cfs_list_for_each(pos, &l->jobs) {
		const struct raft_job *job = cfs_list_entry(pos, struct raft_job, link);

		if (job->truncate)
			from = cfs_min(from, job->truncate);
	}
	return from;
}

/* a job for what the journal has lost, in front of all others; false: there is nothing to do, or no memory */
static bool queue_again(struct cfs_raft_log *l)
{
	struct raft_job *job;
	uint64_t first, last;

	l->repair = false;
	if (l->installing || !cfs_journal_lost(l->journal, &first, &last))
		return false;
	last = cfs_min(last, overwritten_from(l) - 1);
	last = cfs_min(last, cfs_elog_last(&l->elog));
	first = cfs_max(first, l->elog.first);
	/* a group of one has let go of what it has applied: the checkpoint that follows contains it */
	for (uint64_t i = first; i <= last; i++)
		if (!cfs_elog_get(&l->elog, i)->buf)
			first = i + 1;
	job = cfs_raft_job_new(l, JOB_AGAIN, last >= first ? (unsigned)(last - first + 1) : 0);
	if (!job)
		return false;
	job->first = first;
	for (unsigned i = 0; i < job->n; i++) {
		struct cfs_elog_entry *e = cfs_elog_get(&l->elog, first + i);

		job->bufs[i] = cfs_ebuf_get(e->buf);
		job->entries[i] = (struct cfs_journal_entry){ .index = first + i, .term = e->term, .kind = e->type,
							      .len = e->buf->len, .data = e->buf->data };
	}
	job->append = (struct cfs_journal_append){ .entries = job->entries, .n = job->n, .done = again_done };
	cfs_list_add_head(&l->jobs, &job->link);
	return true;
}

void cfs_raft_log_repair(struct cfs_raft_log *l)
{
	if (cfs_raft_dead(l))
		return;
	l->repair = true;
	l->checkpoint_wanted = l->checkpoint_anew = true;
	cfs_raft_run(l);
	cfs_raft_maybe_checkpoint(l);
}

void cfs_raft_run(struct cfs_raft_log *l)
{
	struct raft_job *job;

	if (l->writing || cfs_raft_dead(l))
		return;
	if (l->repair && queue_again(l)) {
		job = cfs_list_first(&l->jobs, struct raft_job, link);
		l->writing = true;
		cfs_journal_again(l->journal, &job->append);
		return;
	}
	if (cfs_list_empty(&l->jobs))
		return;
	job = cfs_list_first(&l->jobs, struct raft_job, link);
	cfs_timer_cancel(l->clock, &l->retry);
	if (job->truncate) {
		int rc = cfs_journal_truncate(l->journal, job->truncate);

		if (rc == -ENOSPC) {
			cfs_raft_journal_full(l);
			return;
		}
		if (rc) {
			cfs_raft_fail(l, rc, "cannot truncate the journal");
			return;
		}
		job->truncate = 0;
	}
	l->writing = true;
	if (job->kind != JOB_APPEND) {
		cfs_journal_snapshot(l->journal, &job->snap);
		return;
	}
	merge(l, job);
	job->append = (struct cfs_journal_append){ .entries = job->entries,
						   .n = job->n,
						   .done = append_done };
	cfs_journal_append(l->journal, &job->append);
}

/*
 * entries that libraft says must be written: into memory, and on their way to the journal. Takes
 * the batch
 */
int cfs_raft_queue_entries(struct cfs_raft_log *l, uint64_t index, const struct raft_entry *entries,
			   unsigned n)
{
	bool ours = l->submitting && entries[0].batch == l->submitting;
	struct raft_job *job = cfs_raft_job_new(l, JOB_APPEND, n);
	int rc = 0;

	if (!job)
		return -ENOMEM;
	job->first = index;
	if (index <= cfs_elog_last(&l->elog)) {
		cfs_elog_truncate(&l->elog, index);
		job->truncate = index;
	}
	CFS_ASSERT(index == cfs_elog_last(&l->elog) + 1);
	for (unsigned i = 0; i < n; i++) {
		struct cfs_ebuf *buf = ours ? l->submitting :
					      cfs_ebuf_new(entries[i].buf.base, entries[i].buf.len);

		if (!buf) {
			rc = -ENOMEM;
			break;
		}
		job->bufs[i] = cfs_ebuf_get(buf);
		rc = cfs_elog_append(&l->elog, entries[i].term, entries[i].type, buf);
		if (rc) {
			cfs_ebuf_put(job->bufs[i]);
			job->bufs[i] = NULL;
			if (!ours)
				cfs_ebuf_put(buf);
			break;
		}
		if (ours)
			l->submitting = NULL;
		job->entries[i] = (struct cfs_journal_entry){ .index = index + i,
							      .term = entries[i].term,
							      .kind = entries[i].type,
							      .len = buf->len,
							      .data = buf->data };
		l->log_bytes += buf->len;
	}
	if (!ours)
		raft_free(entries[0].batch);
	if (rc) {
		cfs_raft_job_free(job);
		return rc;
	}
	cfs_list_add_tail(&l->jobs, &job->link);
	cfs_raft_run(l);
	return 0;
}
