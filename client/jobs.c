// SPDX-License-Identifier: MIT
/*
 * jobs.c - a pool of threads for work that may block: breaks that flush, asks, invalidations of everything. A job may
 * wait for another session, which may wait for another job here; so a thread is added whenever none is idle,
 * up to JOB_THREADS_MAX, and threads stay. They serve no FUSE request, so they may notify the kernel.
 */
#include "client/client_i.h"

#include <errno.h>
#include <stdlib.h>

#define JOB_THREADS_MAX	32u
#define JOBS_QUEUED_MAX	4096u

struct job {
	struct cfs_list link;
	void (*fn)(struct cfs_client *c, void *arg);
	void *arg;
};

struct cfs_jobs {
	struct cfs_client *c;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct cfs_list queue;
	unsigned n_queued, n_threads, n_idle;
	bool stop;
	pthread_t threads[JOB_THREADS_MAX];
};

static void *job_main(void *arg)
{
	struct cfs_jobs *j = arg;

	pthread_mutex_lock(&j->lock);
	for (;;) {
		struct job *job;

		if (cfs_list_empty(&j->queue)) {
			if (j->stop)
				break;
			j->n_idle++;
			pthread_cond_wait(&j->cond, &j->lock);
			j->n_idle--;
			continue;
		}
		job = cfs_list_first(&j->queue, struct job, link);
		cfs_list_del(&job->link);
		j->n_queued--;
		pthread_mutex_unlock(&j->lock);
		job->fn(j->c, job->arg);
		free(job);
		pthread_mutex_lock(&j->lock);
	}
	pthread_mutex_unlock(&j->lock);
	return NULL;
}

int cfs_jobs_create(struct cfs_client *c, struct cfs_jobs **ret_jobs)
{
	struct cfs_jobs *j = calloc(1, sizeof(*j));

	if (!j)
		return -ENOMEM;
	j->c = c;
	cfs_list_init(&j->queue);
	pthread_mutex_init(&j->lock, NULL);
	pthread_cond_init(&j->cond, NULL);
	*ret_jobs = j;
	return 0;
}

int cfs_jobs_submit(struct cfs_jobs *j, void (*fn)(struct cfs_client *c, void *arg), void *arg)
{
	struct job *job = malloc(sizeof(*job));
	int rc = 0;

	if (!job)
		return -ENOMEM;
	job->fn = fn;
	job->arg = arg;
	pthread_mutex_lock(&j->lock);
	if (j->n_queued >= JOBS_QUEUED_MAX || j->stop) {
		rc = -EBUSY;
	} else {
		/* a woken thread still counts as idle until it runs: compare with what is queued */
		if (j->n_idle <= j->n_queued && j->n_threads < JOB_THREADS_MAX) {
			rc = -pthread_create(&j->threads[j->n_threads], NULL, job_main, j);
			if (!rc)
				j->n_threads++;
			else if (j->n_threads)
				rc = 0;
		}
		if (!rc) {
			cfs_list_add_tail(&j->queue, &job->link);
			j->n_queued++;
			pthread_cond_signal(&j->cond);
			job = NULL;
		}
	}
	pthread_mutex_unlock(&j->lock);
	free(job);
	return rc;
}

void cfs_jobs_destroy(struct cfs_jobs *j)
{
	if (!j)
		return;
	pthread_mutex_lock(&j->lock);
	j->stop = true;
	pthread_cond_broadcast(&j->cond);
	pthread_mutex_unlock(&j->lock);
	for (unsigned i = 0; i < j->n_threads; i++)
		pthread_join(j->threads[i], NULL);
	pthread_cond_destroy(&j->cond);
	pthread_mutex_destroy(&j->lock);
	free(j);
}
