/* SPDX-License-Identifier: MIT */
/*
 * data_inval.c - threads that make the kernel drop pages when the caller cannot wait for page locks.
 *
 * An inode is queued at most once,, with all that was asked for; one thread at a time works on it. A
 * thread can be held up by the page lock of a WRITE that waits for a lease, which may wait for another
 * client; so one more thread is started when all are busy, up to CFS_DATA_INVAL_MAX.
 */
#include "client/data_i.h"

#include "base/log.h"

#include <errno.h>
#include <string.h>

#define SET_MAX 256u	/* ranges of one inode in the queue */

void cfs_data_inval_now(struct cfs_data *d, uint64_t off, uint64_t end)
{
	struct cfs_data_ctx *g = d->g;

	if (off < end && g->p.inval_pages)
		g->p.inval_pages(g->p.arg, d->ino, (int64_t)off, end > INT64_MAX ? 0 : (int64_t)(end - off));
}

static void *inval_main(void *arg)
{
	struct cfs_data_ctx *g = arg;

	pthread_mutex_lock(&g->inval_lock);
	for (;;) {
		struct cfs_rangeset set = { 0 };
		struct cfs_data *d;
		uint32_t ticket;

		if (cfs_list_empty(&g->inval_list)) {
			if (g->inval_stop)
				break;
			g->n_inval_idle++;
			pthread_cond_wait(&g->inval_cond, &g->inval_lock);
			g->n_inval_idle--;
			continue;
		}
		d = cfs_list_first(&g->inval_list, struct cfs_data, inval_link);
		cfs_list_del(&d->inval_link);
		g->n_inval_queued--;
		d->inval_running = true;
		while (d->inval_queued) {
			d->inval_queued = false;
			cfs_rangeset_move(&set, &d->inval_set);
			ticket = d->inval_req;
			pthread_mutex_unlock(&g->inval_lock);
			for (uint32_t i = 0; i < set.n; i++)
				cfs_data_inval_now(d, set.v[i].off, set.v[i].end);
			cfs_rangeset_clear(&set);
			pthread_mutex_lock(&g->inval_lock);
			d->inval_done = ticket;
		}
		d->inval_running = false;
		pthread_mutex_unlock(&g->inval_lock);
		pthread_mutex_lock(&d->lock);
		pthread_cond_broadcast(&d->cond);
		pthread_mutex_unlock(&d->lock);
		cfs_data_put(d);
		pthread_mutex_lock(&g->inval_lock);
	}
	pthread_mutex_unlock(&g->inval_lock);
	return NULL;
}

static int start_one(struct cfs_data_ctx *g)
{
	int rc = pthread_create(&g->inval_threads[g->n_inval], NULL, inval_main, g);

	if (!rc)
		g->n_inval++;
	return -rc;
}

int cfs_data_inval_start(struct cfs_data_ctx *g)
{
	int rc = 0;

	pthread_mutex_lock(&g->inval_lock);
	while (g->n_inval < CFS_DATA_INVAL_MIN && !rc)
		rc = start_one(g);
	pthread_mutex_unlock(&g->inval_lock);
	if (rc)
		cfs_data_inval_stop(g);
	return rc;
}

void cfs_data_inval_stop(struct cfs_data_ctx *g)
{
	pthread_mutex_lock(&g->inval_lock);
	g->inval_stop = true;
	pthread_cond_broadcast(&g->inval_cond);
	pthread_mutex_unlock(&g->inval_lock);
	for (unsigned i = 0; i < g->n_inval; i++)
		pthread_join(g->inval_threads[i], NULL);
	g->n_inval = 0;
}

uint32_t cfs_data_inval_post(struct cfs_data *d, uint64_t off, uint64_t end)
{
	struct cfs_data_ctx *g = d->g;
	uint32_t ticket;
	bool ref = false;

	pthread_mutex_lock(&g->inval_lock);
	cfs_rangeset_add(&d->inval_set, off, d->inval_set.n < SET_MAX ? end : UINT64_MAX);
	if (!d->inval_queued) {
		d->inval_queued = true;
		if (!d->inval_running) {
			cfs_list_add_tail(&g->inval_list, &d->inval_link);
			ref = true;
		}
	}
	ticket = ++d->inval_req;
	if (ref) {
		cfs_data_ref(d);
		g->n_inval_queued++;
		if (g->n_inval_queued > g->n_inval_idle && g->n_inval < CFS_DATA_INVAL_MAX && !g->inval_stop && start_one(g))
			cfs_warn("cannot start a thread to drop kernel pages: one has to wait for another");
		pthread_cond_signal(&g->inval_cond);
	}
	pthread_mutex_unlock(&g->inval_lock);
	return ticket;
}

bool cfs_data_inval_passed(struct cfs_data *d, uint32_t ticket)
{
	bool passed;

	pthread_mutex_lock(&d->g->inval_lock);
	passed = (int32_t)(d->inval_done - ticket) >= 0;
	pthread_mutex_unlock(&d->g->inval_lock);
	return passed;
}
