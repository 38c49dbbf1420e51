// SPDX-License-Identifier: MIT
/*
 * slots.c - the session's slots: who has one may have one mutating request outstanding (wire.h, "Exactly once").
 * Last used, first taken, so that the server keeps few replies. A leaf lock.
 */
#include "client/client_i.h"
#include "client/persist.h"

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

/* ---- as the next process will find it ---------------------------------------------------------- */
static void write_word(struct cfs_slots *s, uint32_t i, bool held)
{
	if (s->p)
		__atomic_store_n(&s->p->slots[i].word, s->seq[i] << 1 | held, __ATOMIC_SEQ_CST);
}

/* before anything is sent */
static void write_use(struct cfs_slots *s, uint32_t i, const struct cfs_slot_use *use)
{
	struct cfs_pst_slot *r;

	if (!s->p)
		return;
	r = &s->p->slots[i];
	r->unique = use->unique;
	r->key = use->key;
	r->opcode = use->opcode;
	r->lock = use->lock ? *use->lock : (struct cfs_lock_req){ .wait = 0 };
	write_word(s, i, true);
}

/* ---- slots -------------------------------------------------------------------------------------- */
void cfs_slots_reset(struct cfs_slots *s, uint32_t n)
{
	CFS_ASSERT(n && n <= CFS_SLOTS_MAX);
	pthread_mutex_lock(&s->lock);
	s->gen++;
	s->n = s->n_free = n;
	__atomic_store_n(&s->n_inherited, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&s->n_inherited_bg, 0, __ATOMIC_SEQ_CST);
	if (s->p)
		s->p->head->slots_used = n;
	for (uint32_t i = 0; i < n; i++) {
		s->seq[i] = 0;
		s->free[i] = (uint16_t)(n - 1 - i);
		s->inherited[i] = false;
		write_word(s, i, false);
	}
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

int cfs_slots_get(struct cfs_slots *s, uint32_t wait_ms, const struct cfs_slot_use *use, struct cfs_slot *ret_slot)
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
		write_use(s, i, use);
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
		write_word(s, slot->slot, false);
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

/* ---- a session that another process opened ------------------------------------------------------------- */
void cfs_slots_inherit(struct cfs_slots *s)
{
	uint32_t bg = 0, all = 0;

	CFS_ASSERT(s->p && s->p->head->slots_used && !s->n);
	pthread_mutex_lock(&s->lock);
	s->gen++;
	s->n = s->p->head->slots_used;
	for (uint32_t i = s->n; i-- > 0;) {
		uint64_t word = s->p->slots[i].word;

		s->seq[i] = word >> 1;
		s->inherited[i] = word & 1;
		if (word & 1) {
			all++;
			bg += !s->p->slots[i].unique;
		} else {
			s->free[s->n_free++] = (uint16_t)i;
		}
	}
	__atomic_store_n(&s->n_inherited_bg, bg, __ATOMIC_SEQ_CST);
	__atomic_store_n(&s->n_inherited, all, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&s->lock);
}

/* the lock is held */
static void claim(struct cfs_slots *s, uint32_t i, struct cfs_slot *ret_slot)
{
	s->inherited[i] = false;
	*ret_slot = (struct cfs_slot){ .slot = i, .seq = s->seq[i], .gen = s->gen };
}

bool cfs_slots_claim(struct cfs_slots *s, const struct cfs_slot_use *use, struct cfs_slot *ret_slot)
{
	bool found = false;

	if (cfs_likely(!__atomic_load_n(&s->n_inherited, __ATOMIC_SEQ_CST)) || !use->unique)
		return false;
	pthread_mutex_lock(&s->lock);
	for (uint32_t i = 0; i < s->n && !found; i++) {
		const struct cfs_pst_slot *r = &s->p->slots[i];

		if (!s->inherited[i] || r->unique != use->unique || r->opcode != use->opcode || r->key != use->key)
			continue;
		claim(s, i, ret_slot);
		__atomic_sub_fetch(&s->n_inherited, 1, __ATOMIC_SEQ_CST);
		found = true;
	}
	pthread_mutex_unlock(&s->lock);
	return found;
}

bool cfs_slots_claim_any(struct cfs_slots *s, bool bg, struct cfs_slot *ret_slot, struct cfs_lock_req *ret_lock)
{
	bool found = false;

	pthread_mutex_lock(&s->lock);
	for (uint32_t i = 0; i < s->n && !found; i++) {
		if (!s->inherited[i] || (bg && s->p->slots[i].unique))
			continue;
		claim(s, i, ret_slot);
		*ret_lock = s->p->slots[i].lock;
		found = true;
	}
	pthread_mutex_unlock(&s->lock);
	return found;
}

void cfs_slots_resolved(struct cfs_slots *s, const struct cfs_slot *slot, bool bg)
{
	cfs_slots_put(s, slot, true);
	pthread_mutex_lock(&s->lock);
	if (slot->gen == s->gen) {
		if (bg)
			__atomic_sub_fetch(&s->n_inherited_bg, 1, __ATOMIC_SEQ_CST);
		__atomic_sub_fetch(&s->n_inherited, 1, __ATOMIC_SEQ_CST);
	}
	pthread_mutex_unlock(&s->lock);
}
