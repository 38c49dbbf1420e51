/* SPDX-License-Identifier: MIT */
/*
 * data_flush.c - the write-back of one or many inodes: snapshots, objects, COMMIT. Runs on flusher threads and on
 * those that fsync or give a lease up. Locks: none held across requests; a job (data_job.c) owns its inode.
 */
#include "client/data_i.h"

#include <errno.h>
#include <stdlib.h>

/* it may not be ours to commit any more */
static void check_lost(struct cfs_data_job *j)
{
	pthread_mutex_lock(&j->d->lock);
	if (!j->rc && j->d->lost_seq != j->lost_seq)
		j->rc = -EIO;
	pthread_mutex_unlock(&j->d->lock);
}

/* objects of everything that does not travel inline, with COMMITs in between where a file is large */
static void write_objects(struct cfs_data_objects *o, struct cfs_data_ctx *g, struct cfs_data_job *jobs, unsigned n)
{
	for (unsigned i = 0; i < n;) {
		struct cfs_data_job *j = &jobs[i];
		struct cfs_data_commit *ci = &j->ci;
		struct cfs_range r;

		if (j->inl || j->rc) {
			i++;
			continue;
		}
		if (!cfs_data_objects_add(o, j)) {
			cfs_data_objects_write(o);
			continue;
		}
		if (n == 1 && cfs_data_job_extend(j))	/* others would wait for it */
			continue;
		if (j->rc || !cfs_rangeset_next(&j->flight, j->pos, &r)) {
			i++;		/* all of it is in this round, or before */
			continue;
		}
		cfs_data_objects_write(o);
		check_lost(j);
		if (!j->rc) {
			cfs_data_job_commit(j, false);
			cfs_data_commit(g, &ci, 1);
			cfs_data_job_committed(j);
		}
	}
	cfs_data_objects_write(o);
}

static void run(struct cfs_data_ctx *g, struct cfs_data_job *jobs, unsigned n)
{
	struct cfs_data_commit *ci[CFS_DATA_FLUSH_MANY];
	struct cfs_data_objects *o = NULL;
	bool objects = false;
	unsigned k = 0;

	for (unsigned i = 0; i < n; i++)
		objects |= !jobs[i].inl && jobs[i].flight.n;
	if (objects) {
		o = cfs_data_objects_new(g);
		for (unsigned i = 0; i < n && !o; i++)
			jobs[i].rc = -ENOMEM;
		if (o)
			write_objects(o, g, jobs, n);
		cfs_data_objects_free(o);
	}
	for (unsigned i = 0; i < n; i++) {
		check_lost(&jobs[i]);
		if (jobs[i].rc)
			continue;
		cfs_data_job_commit(&jobs[i], true);
		ci[k++] = &jobs[i].ci;
	}
	cfs_data_commit(g, ci, k);
	for (unsigned i = 0; i < n; i++) {
		if (!jobs[i].rc)
			cfs_data_job_committed(&jobs[i]);
		cfs_data_job_end(&jobs[i]);
	}
}

int cfs_data_flush_inode(struct cfs_data *d, bool for_break)
{
	struct cfs_data_job job;
	int rc = 0;
	bool taken;

	pthread_mutex_lock(&d->lock);
	while (d->flushing || (d->truncating && !for_break))
		pthread_cond_wait(&d->cond, &d->lock);
	taken = cfs_data_job_take(d, false, &job, &rc);
	pthread_mutex_unlock(&d->lock);
	if (taken) {
		run(d->g, &job, 1);
		rc = job.rc;
	}
	return rc;
}

void cfs_data_flush_many(struct cfs_data_ctx *g, struct cfs_data **v, unsigned n)
{
	struct cfs_data_job *jobs;
	unsigned k = 0;

	CFS_ASSERT(n <= CFS_DATA_FLUSH_MANY);
	if (!n)
		return;
	jobs = malloc(n * sizeof(*jobs));
	if (!jobs)	/* one at a time needs less */
		return;
	for (unsigned i = 0; i < n; i++) {
		struct cfs_data *d = v[i];
		int rc;

		pthread_mutex_lock(&d->lock);
		if (!d->flushing && !d->truncating && !d->recalling &&
		    cfs_data_job_take(d, cfs_data_is_stream(d), &jobs[k], &rc))
			k++;
		pthread_mutex_unlock(&d->lock);
	}
	if (k)
		run(g, jobs, k);
	free(jobs);
}

int cfs_data_flush(struct cfs_data *d)
{
	return cfs_data_flush_inode(d, false);
}

int cfs_data_fsync(struct cfs_data *d)
{
	int rc = cfs_data_flush_inode(d, false);

	pthread_mutex_lock(&d->lock);
	if (d->err) {
		rc = d->err;
		if (!--d->err_reports)
			d->err = 0;
	}
	pthread_mutex_unlock(&d->lock);
	return rc;
}
