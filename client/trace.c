// SPDX-License-Identifier: MIT
/* trace.c - see trace.h. */
#include "client/trace.h"

#include "base/base.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct cfs_trace {
	pthread_mutex_t lock;
	pthread_cond_t more;
	uint64_t head;			/* number of the next event that is put */
	uint64_t wakes;
	struct cfs_bpf_event ring[CFS_TRACE_EVENTS];
};

int cfs_trace_create(struct cfs_trace **ret_t)
{
	struct cfs_trace *t = calloc(1, sizeof(*t));
	pthread_condattr_t attr;

	if (!t)
		return -ENOMEM;
	pthread_mutex_init(&t->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&t->more, &attr);
	pthread_condattr_destroy(&attr);
	*ret_t = t;
	return 0;
}

void cfs_trace_destroy(struct cfs_trace *t)
{
	if (!t)
		return;
	pthread_cond_destroy(&t->more);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

void cfs_trace_put(struct cfs_trace *t, const struct cfs_bpf_event *e)
{
	pthread_mutex_lock(&t->lock);
	t->ring[t->head++ % CFS_TRACE_EVENTS] = *e;
	pthread_cond_broadcast(&t->more);
	pthread_mutex_unlock(&t->lock);
}

void cfs_trace_open(struct cfs_trace *t, struct cfs_trace_reader *ret_r)
{
	pthread_mutex_lock(&t->lock);
	*ret_r = (struct cfs_trace_reader){ .at = t->head };
	pthread_mutex_unlock(&t->lock);
}

unsigned cfs_trace_get(struct cfs_trace *t, struct cfs_trace_reader *r, struct cfs_bpf_event *out, unsigned max,
		       unsigned wait_ms)
{
	struct timespec until;
	uint64_t wakes, late;
	unsigned n = 0;
	int rc = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += wait_ms / 1000;
	until.tv_nsec += (long)(wait_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	pthread_mutex_lock(&t->lock);
	wakes = t->wakes;
	while (r->at == t->head && t->wakes == wakes && !rc)
		rc = pthread_cond_timedwait(&t->more, &t->lock, &until);
	late = t->head - r->at;
	if (late > CFS_TRACE_EVENTS) {
		r->lost += late - CFS_TRACE_EVENTS;
		r->at = t->head - CFS_TRACE_EVENTS;
	}
	while (n < max && r->at < t->head)
		out[n++] = t->ring[r->at++ % CFS_TRACE_EVENTS];
	pthread_mutex_unlock(&t->lock);
	return n;
}

void cfs_trace_wake(struct cfs_trace *t)
{
	pthread_mutex_lock(&t->lock);
	t->wakes++;
	pthread_cond_broadcast(&t->more);
	pthread_mutex_unlock(&t->lock);
}
