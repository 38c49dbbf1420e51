// SPDX-License-Identifier: MIT
/*
 * transport_ring.c - the uring tier: requests come and answers go through FUSE's io_uring queues (kernel 6.14), one for
 * each possible CPU. The kernel puts a request into the queue of the CPU that its caller runs on.
 *
 * A thread has an io_uring of its own, on the CPU of its queue, and one entry: buffers that the kernel fills with
 * one request. It serves what it took, as a worker of transport.c does, and gives the answer and asks for the next request in
 * one system call (COMMIT_AND_FETCH). So a caller is answered from its own CPU, by the thread that took the request; and a thread
 * that is busy never has an entry that the kernel could put another request into, where it would have to wait for it. Each queue
 * has one thread too many: when the last that waits for requests takes one, another is started, up to QUEUE_THREADS_MAX;
 * then requests queue up in the kernel. The kernel has no way to take an entry back, so threads stay, and there is no way back to
 * /dev/fuse before the unmount. It prefers the entry that was used last: those that a peak left behind sleep.
 *
 * A request that finds no entry waiting is queued, and the kernel hands queued requests out only when an answer is given in
 * that queue: never to an entry that is new, nor when all who are busy wait for locks. So a thread that is new makes a request of
 * its own, which it answers at once: a RETRIEVE of nothing, by notification, on its CPU. That needs a regular file which the
 * kernel knows. Whoever waits for a lock has one open, so such waits never keep others; without any, the next answer does it.
 *
 * Waits for locks are answered by the lock thread (locks.c, at most CFS_LOCK_WAITS_MAX): the thread that took the request waits for the
 * answer and sends it; it does not count as busy. FORGET, INTERRUPT and notifications stay on /dev/fuse.
 *
 * Who owns what: transport_ring_i.h.
 */
#include "client/transport_ring_i.h"

#include "base/log.h"
#include "client/client_i.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 18)
#include <fuse3/fuse_lowlevel.h>

#define NO_QUEUE		0xffffu	/* refused by the kernel, which then falls back to /dev/fuse */

/* ---- threads ---------------------------------------------------------------------------------- */
/* a hint: callers are answered from their own CPU. Fails for CPUs that are offline or not ours */
static void stay_on_cpu(unsigned cpu)
{
	cpu_set_t set;

	if (cpu >= CPU_SETSIZE)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (pthread_setaffinity_np(pthread_self(), sizeof(set), &set))
		cfs_debug("cannot run on CPU %u", cpu);
}

/* whoever still has to answer finds it abandoned; with the ring ends what the kernel knows of the buffers */
static void leave_ent(struct ring_thread *t)
{
	struct ring_ent *e;

	pthread_mutex_lock(&t->r->lock);
	e = t->ent;
	t->ent = NULL;
	pthread_mutex_unlock(&t->r->lock);
	if (e) {
		pthread_mutex_lock(&e->lock);
		e->abandoned = true;
		pthread_mutex_unlock(&e->lock);
	}
	io_uring_queue_exit(&t->ring);
	if (e)
		cfs_chan_put(&e->chan);
}

static void *thread_main(void *arg)
{
	struct ring_thread *t = arg;
	struct cfs_rings *r = t->r;
	struct ring_ent *e = NULL;
	int rc;

	stay_on_cpu(t->q->qid);
	rc = cfs_ring_make(&t->ring);
	if (!rc) {
		rc = cfs_ring_ent_new(t, &e);
		if (!rc) {
			pthread_mutex_lock(&r->lock);
			t->ent = e;
			pthread_mutex_unlock(&r->lock);
			rc = cfs_ring_ent_register(t, e);
		}
		pthread_mutex_lock(&r->lock);
		t->q->starting = false;
		if (rc && !r->failed)
			r->failed = rc;
		r->n_registered += !rc;
		__atomic_add_fetch(&t->q->idle, !rc, __ATOMIC_SEQ_CST);
		pthread_cond_broadcast(&r->cond);
		pthread_mutex_unlock(&r->lock);
		if (!rc && __atomic_load_n(&r->started, __ATOMIC_ACQUIRE))
			cfs_ring_kick(r, t->q);
		if (!rc)
			cfs_ring_serve(t);
		leave_ent(t);
	}
	cfs_thread_drop(r->c);
	pthread_mutex_lock(&r->lock);
	if (rc && !r->failed)
		r->failed = rc;
	t->q->starting = false;
	t->ended = true;
	t->q->threads--;
	pthread_cond_broadcast(&r->cond);
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

/* the lock is held */
int cfs_ring_thread_start(struct cfs_rings *r, struct ring_queue *q)
{
	struct ring_thread *t = calloc(1, sizeof(*t));
	int rc;

	if (!t)
		return -ENOMEM;
	t->r = r;
	t->q = q;
	rc = -pthread_create(&t->thread, NULL, thread_main, t);
	if (rc) {
		free(t);
		return rc;
	}
	cfs_list_add_tail(&r->threads, &t->link);
	q->threads++;
	r->n_threads++;
	return 0;
}

/* ends the threads; what they serve is finished first */
static void stop_threads(struct cfs_rings *r)
{
	struct timespec nap = { .tv_nsec = 5000000 };
	struct cfs_list *pos;
	bool all;

	__atomic_store_n(&r->stop, true, __ATOMIC_SEQ_CST);
	do { /* a signal may come just before the wait that it should end: repeat */
		all = true;
		pthread_mutex_lock(&r->lock);
		cfs_list_for_each(pos, &r->threads) {
			struct ring_thread *t = cfs_list_entry(pos, struct ring_thread, link);

			if (t->ended)
				continue;
			all = false;
			pthread_kill(t->thread, CFS_WAKE_SIGNAL);
			if (t->ent) {
				pthread_mutex_lock(&t->ent->lock);
				pthread_cond_broadcast(&t->ent->cond);
				pthread_mutex_unlock(&t->ent->lock);
			}
		}
		pthread_mutex_unlock(&r->lock);
		if (!all)
			nanosleep(&nap, NULL);
	} while (!all);
	while (!cfs_list_empty(&r->threads)) {
		struct ring_thread *t = cfs_list_first(&r->threads, struct ring_thread, link);

		cfs_list_del(&t->link);
		pthread_join(t->thread, NULL);
		free(t);
	}
}

/* ---- the tier ----------------------------------------------------------------------------------- */
/* as many as the kernel makes: one for each CPU that could ever be there */
static unsigned count_queues(void)
{
	FILE *f = fopen("/sys/devices/system/cpu/possible", "re");
	unsigned from, to, n = 0;

	while (f && fscanf(f, "%u", &from) == 1) {
		to = from;
		if (fscanf(f, "-%u", &to) != 1 || to < from)
			to = from;
		n += to - from + 1;
		if (fgetc(f) != ',')
			break;
	}
	if (f)
		fclose(f);
	return n && n < NO_QUEUE ? n : 1;
}

/* until every queue has an entry the kernel holds all requests back; a REGISTER that it refuses makes it give up */
static void fall_back(struct cfs_rings *r)
{
	struct ring_queue q = { .qid = NO_QUEUE };
	struct ring_thread t = { .r = r, .q = &q };
	struct ring_ent *e = NULL;

	if (cfs_ring_make(&t.ring))
		return;
	if (!cfs_ring_ent_new(&t, &e)) {
		cfs_ring_ent_register(&t, e);
		cfs_chan_put(&e->chan);
	}
	io_uring_queue_exit(&t.ring);
}

static int uring_probe(const struct cfs_tier_env *env, char *why, size_t len)
{
	char word[8] = "";
	struct io_uring ring;
	FILE *f;
	int rc;

	if (!(env->flags & FUSE_OVER_IO_URING)) {
		f = fopen("/sys/module/fuse/parameters/enable_uring", "re");
		if (f && fgets(word, sizeof(word), f)) {
			word[strcspn(word, "\n")] = 0;
			snprintf(why, len, "switched off in the kernel (fuse.enable_uring=%s)", word);
		} else {
			snprintf(why, len, "the kernel has none (needs 6.14)");
		}
		if (f)
			fclose(f);
		return -EOPNOTSUPP;
	}
	rc = cfs_ring_make(&ring);
	if (rc)
		snprintf(why, len, "io_uring: %s", strerror(-rc));
	else
		io_uring_queue_exit(&ring);
	return rc;
}

static int uring_start(struct cfs_client *c, char *why, size_t len)
{
	unsigned n = count_queues();
	struct cfs_rings *r = calloc(1, sizeof(*r) + n * sizeof(r->queues[0]));
	pthread_condattr_t attr;
	struct timespec ts;
	int rc = 0;

	if (!r)
		return -ENOMEM;
	r->c = c;
	r->fd = fuse_session_fd(c->se);
	r->n_queues = n;
	cfs_list_init(&r->threads);
	pthread_mutex_init(&r->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&r->cond, &attr);
	pthread_condattr_destroy(&attr);
	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += START_MS / 1000 * 2;
	pthread_mutex_lock(&r->lock);
	for (unsigned i = 0; i < n && !rc; i++) {
		r->queues[i] = (struct ring_queue){ .qid = i, .starting = true };
		rc = cfs_ring_thread_start(r, &r->queues[i]);
	}
	while (!rc && !r->failed && r->n_registered < n)
		rc = -pthread_cond_timedwait(&r->cond, &r->lock, &ts);
	rc = rc ? rc : r->failed;
	pthread_mutex_unlock(&r->lock);
	__atomic_store_n(&r->started, true, __ATOMIC_RELEASE);
	if (rc) {
		snprintf(why, len, "the kernel does not take the rings: %s", strerror(-rc));
		stop_threads(r);
		fall_back(r);
		pthread_cond_destroy(&r->cond);
		pthread_mutex_destroy(&r->lock);
		free(r);
		return rc;
	}
	c->rings = r;
	return 0;
}

static void uring_stop(struct cfs_client *c)
{
	struct cfs_rings *r = c->rings;

	c->rings = NULL;
	stop_threads(r);
	pthread_cond_destroy(&r->cond);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static int uring_set(struct cfs_client *c, bool on, char *why, size_t len)
{
	(void)c;
	(void)on;
	snprintf(why, len, "the kernel keeps a connection's rings until it is unmounted: mount with uring=off");
	return -EOPNOTSUPP;
}

static void uring_stat(struct cfs_client *c, cfs_tier_put_fn put, void *arg)
{
	struct cfs_rings *r = c->rings;

	put(arg, "requests", __atomic_load_n(&r->served, __ATOMIC_RELAXED));
	put(arg, "waits", __atomic_load_n(&r->waits, __ATOMIC_RELAXED));
	pthread_mutex_lock(&r->lock);
	put(arg, "queues", r->n_queues);
	put(arg, "threads", r->n_threads);
	put(arg, "queues_full", r->full);
	pthread_mutex_unlock(&r->lock);
}

const struct cfs_tier_ops cfs_tier_uring = {
	.gives = "requests by io_uring, a queue per core",
	.probe = uring_probe,
	.start = uring_start,
	.stop = uring_stop,
	.set = uring_set,
	.stat = uring_stat,
};
