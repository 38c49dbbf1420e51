/* SPDX-License-Identifier: MIT */
/*
 * offload.c - see offload.h. One mutex guards the table and its two queues (waiting, finished); the
 * number of jobs in use and the threads belong to the owner's thread alone.
 */
#include "ring/offload.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "base/base.h"

#define OFFLOAD_THREADS 2u

struct job {
	void (*work)(void *arg);
	void (*done)(void *arg);
	void *arg;
	struct job *next;
};

struct queue {
	struct job *head, **tail;
};

struct cfs_offload {
	void (*wake)(void *arg);
	void *wake_arg;
	pthread_t threads[OFFLOAD_THREADS];
	unsigned n_threads, n_jobs, max_jobs;
	struct job *free;

	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct queue waiting, finished;
	unsigned idle;
	bool stop;
	struct job jobs[];
};

static void queue_init(struct queue *q)
{
	q->head = NULL;
	q->tail = &q->head;
}

static void queue_put(struct queue *q, struct job *j)
{
	j->next = NULL;
	*q->tail = j;
	q->tail = &j->next;
}

static struct job *queue_get(struct queue *q)
{
	struct job *j = q->head;

	if (j && !(q->head = j->next))
		q->tail = &q->head;
	return j;
}

static void *offload_thread(void *arg)
{
	struct cfs_offload *o = arg;
	struct job *j;

	pthread_mutex_lock(&o->lock);
	for (;;) {
		while (!(j = queue_get(&o->waiting)) && !o->stop) {
			o->idle++;
			pthread_cond_wait(&o->cond, &o->lock);
			o->idle--;
		}
		if (!j)
			break;
		pthread_mutex_unlock(&o->lock);
		j->work(j->arg);
		pthread_mutex_lock(&o->lock);
		queue_put(&o->finished, j);
		/* under the lock: when it is free the owner may already be destroying what wake needs */
		o->wake(o->wake_arg);
	}
	pthread_mutex_unlock(&o->lock);
	return NULL;
}

int cfs_offload_create(uint32_t max_jobs, void (*wake)(void *arg), void *arg, struct cfs_offload **ret_o)
{
	struct cfs_offload *o = calloc(1, sizeof(*o) + max_jobs * sizeof(o->jobs[0]));

	if (!o)
		return -ENOMEM;
	o->wake = wake;
	o->wake_arg = arg;
	o->max_jobs = max_jobs;
	for (unsigned i = 0; i < max_jobs; i++) {
		o->jobs[i].next = o->free;
		o->free = &o->jobs[i];
	}
	pthread_mutex_init(&o->lock, NULL);
	pthread_cond_init(&o->cond, NULL);
	queue_init(&o->waiting);
	queue_init(&o->finished);
	*ret_o = o;
	return 0;
}

/* signals are the main thread's business: helpers block them all */
static int start_thread(struct cfs_offload *o)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&o->threads[o->n_threads], NULL, offload_thread, o);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!err)
		o->n_threads++;
	return -err;
}

int cfs_offload_submit(struct cfs_offload *o, void (*work)(void *arg), void (*done)(void *arg), void *arg)
{
	struct job *j = o->free;
	bool idle;

	if (!j)
		return -ENOBUFS;
	pthread_mutex_lock(&o->lock);
	idle = o->idle > 0;
	pthread_mutex_unlock(&o->lock);
	/* without any thread the job would never run; with one it may wait */
	if (!idle && o->n_threads < OFFLOAD_THREADS && start_thread(o) < 0 && !o->n_threads)
		return -EAGAIN;
	o->free = j->next;
	o->n_jobs++;
	j->work = work;
	j->done = done;
	j->arg = arg;
	pthread_mutex_lock(&o->lock);
	queue_put(&o->waiting, j);
	pthread_cond_signal(&o->cond);
	pthread_mutex_unlock(&o->lock);
	return 0;
}

unsigned cfs_offload_reap(struct cfs_offload *o)
{
	struct job *j;
	unsigned n = 0;

	for (; n < o->max_jobs; n++) {	/* done() may submit again: not for ever */
		pthread_mutex_lock(&o->lock);
		j = queue_get(&o->finished);
		pthread_mutex_unlock(&o->lock);
		if (!j)
			break;
		void (*done)(void *arg) = j->done;
		void *arg = j->arg;

		j->next = o->free;
		o->free = j;
		o->n_jobs--;
		done(arg);
	}
	return n;
}

void cfs_offload_destroy(struct cfs_offload *o)
{
	if (!o)
		return;
	/* threads end when nothing waits any more; done() may submit anew, which the next round waits for */
	do {
		pthread_mutex_lock(&o->lock);
		o->stop = true;
		pthread_cond_broadcast(&o->cond);
		pthread_mutex_unlock(&o->lock);
		for (unsigned i = 0; i < o->n_threads; i++)
			pthread_join(o->threads[i], NULL);
		o->n_threads = 0;
		o->stop = false;
		while (cfs_offload_reap(o))
			;
	} while (o->n_jobs);
	pthread_cond_destroy(&o->cond);
	pthread_mutex_destroy(&o->lock);
	free(o);
}
