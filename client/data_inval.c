/* SPDX-License-Identifier: MIT */
/*
 * data_inval.c - threads that make the kernel drop pages when the caller cannot wait for page locks.
 *
 * Two kinds of work. What a recall waits for (struct cfs_data_inval) runs at once, several for one inode side by side: one
 * may be held up by the page lock of a WRITE that waits for a lease, perhaps for another client, and the recall then
 * goes around it. What nobody waits for is collected in the inode, which is queued at most once. As threads can be
 * held up, one more is started when all are busy, up to CFS_DATA_INVAL_MAX.
 */
#include "client/data_i.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SET_MAX 256u	/* ranges of one inode */

void cfs_data_inval_now(struct cfs_data *d, uint64_t off, uint64_t end)
{
	struct cfs_data_ctx *g = d->g;

	if (off >= end || !g->p.inval_pages)
		return;
	cfs_data_drop_begin(d, off, end);
	g->p.inval_pages(g->p.arg, d->ino, (int64_t)off, end > INT64_MAX ? 0 : (int64_t)(end - off));
	cfs_data_drop_end(d);
}

void cfs_data_inval_put(struct cfs_data_inval *iv)
{
	if (!--iv->refs)
		free(iv);
}

/* inval_lock held; dropped meanwhile */
static void run_now(struct cfs_data_ctx *g, struct cfs_data_inval *iv)
{
	struct cfs_data *d = iv->d;

	cfs_list_del(&iv->link);
	g->n_inval_queued--;
	pthread_mutex_unlock(&g->inval_lock);
	cfs_data_inval_now(d, iv->off, iv->end);
	pthread_mutex_lock(&d->lock);
	iv->done = true;
	cfs_data_inval_put(iv);
	pthread_cond_broadcast(&d->cond);
	pthread_mutex_unlock(&d->lock);
	cfs_data_put(d);
	pthread_mutex_lock(&g->inval_lock);
}

static void run_later(struct cfs_data_ctx *g, struct cfs_data *d)
{
	struct cfs_rangeset set = { 0 };

	cfs_list_del(&d->inval_link);
	g->n_inval_queued--;
	d->inval_running = true;
	while (d->inval_queued) {
		d->inval_queued = false;
		cfs_rangeset_move(&set, &d->inval_set);
		pthread_mutex_unlock(&g->inval_lock);
		for (uint32_t i = 0; i < set.n; i++)
			cfs_data_inval_now(d, set.v[i].off, set.v[i].end);
		cfs_rangeset_clear(&set);
		pthread_mutex_lock(&g->inval_lock);
	}
	d->inval_running = false;
	pthread_mutex_unlock(&g->inval_lock);
	cfs_data_put(d);
	pthread_mutex_lock(&g->inval_lock);
}

static void *inval_main(void *arg)
{
	struct cfs_data_ctx *g = arg;

	pthread_mutex_lock(&g->inval_lock);
	for (;;) {
		if (!cfs_list_empty(&g->inval_now)) {
			run_now(g, cfs_list_first(&g->inval_now, struct cfs_data_inval, link));
		} else if (!cfs_list_empty(&g->inval_later)) {
			run_later(g, cfs_list_first(&g->inval_later, struct cfs_data, inval_link));
		} else if (g->inval_stop) {
			break;
		} else {
			g->n_inval_idle++;
			pthread_cond_wait(&g->inval_cond, &g->inval_lock);
			g->n_inval_idle--;
		}
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

/* inval_lock held: something was queued */
static void wake(struct cfs_data_ctx *g)
{
	g->n_inval_queued++;
	if (g->n_inval_queued > g->n_inval_idle && g->n_inval < CFS_DATA_INVAL_MAX && !g->inval_stop && start_one(g))
		cfs_warn("cannot start a thread to drop kernel pages: one has to wait for another");
	pthread_cond_signal(&g->inval_cond);
}

void cfs_data_inval_later(struct cfs_data *d, uint64_t off, uint64_t end)
{
	struct cfs_data_ctx *g = d->g;

	pthread_mutex_lock(&g->inval_lock);
	cfs_rangeset_add(&d->inval_set, off, d->inval_set.n < SET_MAX ? end : UINT64_MAX);
	if (!d->inval_queued && !d->inval_running) {
		cfs_data_ref(d);
		cfs_list_add_tail(&g->inval_later, &d->inval_link);
		wake(g);
	}
	d->inval_queued = true;
	pthread_mutex_unlock(&g->inval_lock);
}

struct cfs_data_inval *cfs_data_inval_post(struct cfs_data *d, uint64_t off, uint64_t end)
{
	struct cfs_data_ctx *g = d->g;
	struct cfs_data_inval *iv = malloc(sizeof(*iv));

	if (!iv)
		return NULL;
	*iv = (struct cfs_data_inval){ .d = d, .off = off, .end = end, .refs = 2 };
	cfs_data_ref(d);
	pthread_mutex_lock(&g->inval_lock);
	cfs_list_add_tail(&g->inval_now, &iv->link);
	wake(g);
	pthread_mutex_unlock(&g->inval_lock);
	return iv;
}

bool cfs_data_inval_wait(struct cfs_data *d, uint64_t off, uint64_t end, cfs_data_patience *patience, const void *arg)
{
	struct cfs_data_inval *iv;
	uint32_t ms;
	bool done;

	if (off >= end)
		return true;
	iv = cfs_data_inval_post(d, off, end);
	if (!iv) {
		cfs_data_inval_later(d, off, end);
		return false;
	}
	while (!iv->done && (ms = patience(d, arg))) {
		if (ms == CFS_DATA_FOR_EVER)
			pthread_cond_wait(&d->cond, &d->lock);
		else
			cfs_data_cond_wait_ms(&d->cond, &d->lock, ms);
	}
	done = iv->done;
	cfs_data_inval_put(iv);
	return done;
}
