// SPDX-License-Identifier: MIT
/*
 * slots.c - the session's slots: who has one may have one mutating request outstanding (wire.h, "Exactly once").
 * Last used, first taken, so that the server keeps few replies. A leaf lock.
 */
#include "client/client_i.h"

#include <errno.h>
#include <time.h>

void cfs_slots_init(struct cfs_slots *s)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->cond, &attr);
	pthread_condattr_destroy(&attr);
}

void cfs_slots_destroy(struct cfs_slots *s)
{
	pthread_cond_destroy(&s->cond);
	pthread_mutex_destroy(&s->lock);
}

void cfs_slots_reset(struct cfs_slots *s, uint32_t n)
{
	CFS_ASSERT(n && n <= CFS_SLOTS_MAX);
	pthread_mutex_lock(&s->lock);
	s->gen++;
	s->n = s->n_free = n;
	for (uint32_t i = 0; i < n; i++) {
		s->seq[i] = 0;
		s->free[i] = (uint16_t)(n - 1 - i);
	}
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

int cfs_slots_get(struct cfs_slots *s, uint32_t wait_ms, struct cfs_slot *ret_slot)
{
	struct timespec ts;
	int rc = 0;

	pthread_mutex_lock(&s->lock);
	if (!s->n_free && wait_ms) {
		clock_gettime(CLOCK_MONOTONIC, &ts);
		ts.tv_sec += wait_ms / 1000;
		ts.tv_nsec += (long)(wait_ms % 1000) * 1000000;
		if (ts.tv_nsec >= 1000000000) {
			ts.tv_sec++;
			ts.tv_nsec -= 1000000000;
		}
		while (!s->n_free && !pthread_cond_timedwait(&s->cond, &s->lock, &ts))
			;
	}
	if (s->n_free) {
		uint32_t i = s->free[--s->n_free];

		*ret_slot = (struct cfs_slot){ .slot = i, .seq = ++s->seq[i], .gen = s->gen };
	} else {
		rc = -EAGAIN;
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}

void cfs_slots_put(struct cfs_slots *s, const struct cfs_slot *slot, bool used)
{
	pthread_mutex_lock(&s->lock);
	if (slot->gen == s->gen) {
		CFS_ASSERT(slot->slot < s->n && s->n_free < s->n && s->seq[slot->slot] == slot->seq);
		if (!used)
			s->seq[slot->slot]--;
		s->free[s->n_free++] = (uint16_t)slot->slot;
		pthread_cond_signal(&s->cond);
	}
	pthread_mutex_unlock(&s->lock);
}

bool cfs_slots_current(struct cfs_slots *s, const struct cfs_slot *slot)
{
	bool current;

	pthread_mutex_lock(&s->lock);
	current = slot->gen == s->gen;
	pthread_mutex_unlock(&s->lock);
	return current;
}
