// SPDX-License-Identifier: MIT
/*
 * client.c - the client object: threads that call, reply sections, notes of breaks; start and stop in order.
 */
#include "client/client_i.h"

#include "claudefs/bpf_shared.h"
#include "client/accel.h"
#include "client/fhtab.h"
#include "client/prefetch.h"

#include "base/hash.h"
#include "base/log.h"
#include "client/inode.h"
#include "client/locks.h"
#include "client/notify.h"
#include "client/opstat.h"
#include "client/persist.h"

#include <errno.h>
#include <linux/fuse.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* ---- threads --------------------------------------------------------------------------- */
static void thread_free(void *arg)
{
	struct cfs_thread *t = arg;

	if (!t)
		return;
	pthread_mutex_lock(&t->c->threads_lock);
	cfs_list_del(&t->link);
	pthread_mutex_unlock(&t->c->threads_lock);
	for (unsigned i = 0; i < CFS_NODES_MAX; i++)
		cfs_node_conn_close(&t->nodes[i]);
	close(t->intr_fd);
	free(t->buf);
	free(t->io_buf);
	free(t);
}

struct cfs_thread *cfs_thread_self(struct cfs_client *c)
{
	struct cfs_thread *t = pthread_getspecific(c->thread_key);

	if (cfs_likely(t != NULL))
		return t;
	t = calloc(1, sizeof(*t));
	CFS_ASSERT(t != NULL);
	t->c = c;
	t->intr_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CFS_ASSERT(t->intr_fd >= 0);
	CFS_ASSERT(!pthread_setspecific(c->thread_key, t));
	pthread_mutex_lock(&c->threads_lock);
	cfs_list_add_tail(&c->threads, &t->link);
	pthread_mutex_unlock(&c->threads_lock);
	return t;
}

void cfs_thread_drop(struct cfs_client *c)
{
	struct cfs_thread *t = pthread_getspecific(c->thread_key);

	pthread_setspecific(c->thread_key, NULL);
	thread_free(t);
}

uint64_t cfs_thread_unique(const struct cfs_thread *t)
{
	const struct fuse_in_header *in = t->in;

	return in && !t->answered ? in->unique & ~CFS_UNIQUE_RESENT : 0;
}

void cfs_thread_answered(struct cfs_thread *t)
{
	t->answered = true;
	while (t->n_held)
		cfs_slots_put(&t->c->slots, &t->held[--t->n_held], true);
}

void *cfs_thread_buf(struct cfs_thread *t)
{
	if (!t->buf)
		t->buf = malloc(CFS_BODY_MAX);
	CFS_ASSERT(t->buf != NULL);
	return t->buf;
}

void *cfs_thread_io_buf(struct cfs_thread *t)
{
	if (t->ring_buf)
		return t->ring_buf;
	if (!t->io_buf)
		t->io_buf = aligned_alloc(4096, CFS_IO_MAX);
	CFS_ASSERT(t->io_buf != NULL);
	return t->io_buf;
}

/* ---- reply sections ----------------------------------------------------------------------- */
void cfs_reply_begin(struct cfs_client *c)
{
	struct cfs_thread *t = cfs_thread_self(c);
	uint64_t s = __atomic_add_fetch(&t->section, 1, __ATOMIC_SEQ_CST);

	CFS_ASSERT(s & 1);
}

void cfs_reply_end(struct cfs_client *c)
{
	struct cfs_thread *t = cfs_thread_self(c);
	uint64_t s = __atomic_add_fetch(&t->section, 1, __ATOMIC_SEQ_CST);

	CFS_ASSERT(!(s & 1));
	cfs_busy_end_now(t);
}

/* wait while a counter stands at an odd value that it has now */
static void wait_while_odd(const uint64_t *counter)
{
	uint64_t s = __atomic_load_n(counter, __ATOMIC_SEQ_CST);

	for (unsigned spins = 0; (s & 1) && __atomic_load_n(counter, __ATOMIC_SEQ_CST) == s; spins++) {
		if (spins < 64)
			sched_yield();
		else
			nanosleep(&(struct timespec){ .tv_nsec = 50000 }, NULL);
	}
}

/*
 * What went was published before: a note by a sequentially consistent store, as are the counters here; what was
 * dropped, under the lock that a section takes to look for it. So a section that begins from now on sees it; wait
 * for those that are open. They last as long as a write(2) to /dev/fuse; threads cannot go away while the lock is held.
 */
void cfs_reply_barrier(struct cfs_client *c)
{
	struct cfs_list *pos;

	pthread_mutex_lock(&c->threads_lock);
	cfs_list_for_each(pos, &c->threads)
		wait_while_odd(&cfs_list_entry(pos, struct cfs_thread, link)->section);
	pthread_mutex_unlock(&c->threads_lock);
}

/* ---- creations under way --------------------------------------------------------------------- */
void cfs_making_begin(struct cfs_client *c)
{
	__atomic_add_fetch(&c->making, 1, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&cfs_thread_self(c)->making, 1, __ATOMIC_SEQ_CST);
}

void cfs_making_end(struct cfs_client *c)
{
	__atomic_add_fetch(&cfs_thread_self(c)->making, 1, __ATOMIC_SEQ_CST);
	CFS_ASSERT(__atomic_fetch_sub(&c->making, 1, __ATOMIC_SEQ_CST) > 0);
}

bool cfs_making(struct cfs_client *c)
{
	return __atomic_load_n(&c->making, __ATOMIC_SEQ_CST) > 0;
}

/* creations wait for servers: not with the lock held. A thread that ends has none */
void cfs_making_settle(struct cfs_client *c)
{
	struct waited {
		const struct cfs_thread *t;
		uint64_t making;
	} *v = NULL;
	size_t n = 0, i = 0;
	struct cfs_list *pos;
	bool all = true;

	pthread_mutex_lock(&c->threads_lock);
	cfs_list_for_each(pos, &c->threads)
		n++;
	v = calloc(n + 1, sizeof(*v));
	CFS_ASSERT(v != NULL);
	cfs_list_for_each(pos, &c->threads) {
		v[i].t = cfs_list_entry(pos, struct cfs_thread, link);
		v[i].making = __atomic_load_n(&v[i].t->making, __ATOMIC_SEQ_CST);
		i++;
	}
	pthread_mutex_unlock(&c->threads_lock);
	do {
		if (!all)
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		all = true;
		pthread_mutex_lock(&c->threads_lock);
		cfs_list_for_each(pos, &c->threads) {
			const struct cfs_thread *t = cfs_list_entry(pos, struct cfs_thread, link);

			for (i = 0; i < n; i++)
				all &= v[i].t != t || !(v[i].making & 1) ||
				       __atomic_load_n(&t->making, __ATOMIC_SEQ_CST) != v[i].making;
		}
		pthread_mutex_unlock(&c->threads_lock);
	} while (!all && !__atomic_load_n(&c->stopping, __ATOMIC_ACQUIRE));
	free(v);
}

/* ---- notes ------------------------------------------------------------------------------------ */
uint64_t cfs_client_note(struct cfs_client *c, uint32_t flags, uint64_t dir, uint64_t ino, const char *name, size_t len)
{
	uint64_t gen;

	pthread_mutex_lock(&c->breaks_lock);
	gen = cfs_breaks_note(&c->breaks, flags, dir, ino, name, len);
	pthread_mutex_unlock(&c->breaks_lock);
	return gen;
}

void cfs_client_changed(struct cfs_client *c, uint64_t ino)
{
	cfs_client_note(c, CFS_BRK_ATTR | CFS_BRK_DATA, 0, ino, NULL, 0);
	cfs_dcache_drop_attr(c->dcache, ino);
}

uint64_t cfs_client_features(struct cfs_client *c)
{
	/* an append whose place the server chooses could not be recognised when the next process is sent it again */
	bool through = !c->o.no_through && !c->persist;

	return __atomic_load_n(&c->features, __ATOMIC_RELAXED) & ~(through ? 0 : CFS_FEAT_THROUGH);
}

uint64_t cfs_client_break_gen(struct cfs_client *c)
{
	return cfs_breaks_gen(&c->breaks);
}

bool cfs_client_broken_since(struct cfs_client *c, uint64_t ino, uint64_t break_gen)
{
	return cfs_breaks_data(&c->breaks, break_gen, ino);
}

bool cfs_client_live(struct cfs_client *c)
{
	return cfs_boot_ns() < __atomic_load_n(&c->deadline_ns, __ATOMIC_ACQUIRE);
}

uint64_t cfs_client_session(struct cfs_client *c)
{
	return __atomic_load_n(&c->session, __ATOMIC_ACQUIRE);
}

static uint32_t *busy_counter(struct cfs_client *c, uint64_t dir)
{
	return &c->gate->busy[cfs_bpf_hash(dir) % CFS_BPF_BUSY];
}

void cfs_busy_begin(struct cfs_client *c, uint64_t dir)
{
	__atomic_add_fetch(busy_counter(c, dir), 1, __ATOMIC_SEQ_CST);
}

void cfs_busy_end(struct cfs_client *c, uint64_t dir)
{
	CFS_ASSERT(__atomic_fetch_sub(busy_counter(c, dir), 1, __ATOMIC_SEQ_CST) > 0);
}

void cfs_busy_end_later(struct cfs_client *c, uint64_t dir)
{
	struct cfs_thread *t = cfs_thread_self(c);

	if (t->n_busy == CFS_BUSY_LATER)	/* repeated attempts: all but the last were refused */
		cfs_busy_end_now(t);
	t->busy[t->n_busy++] = dir;
}

void cfs_busy_end_now(struct cfs_thread *t)
{
	while (t->n_busy)
		cfs_busy_end(t->c, t->busy[--t->n_busy]);
}

static uint64_t hint_key(uint64_t dir, const char *name, size_t len)
{
	return cfs_hash64(name, len, cfs_hash_u64(dir));
}

void cfs_hint_put(struct cfs_client *c, uint64_t dir, const char *name, size_t len, uint64_t ino)
{
	uint64_t key = hint_key(dir, name, len);

	__atomic_store_n(&c->hints[key % CFS_HINTS].ino, ino, __ATOMIC_RELAXED);
	__atomic_store_n(&c->hints[key % CFS_HINTS].key, key, __ATOMIC_RELAXED);
}

uint64_t cfs_hint_get(struct cfs_client *c, uint64_t dir, const char *name, size_t len)
{
	uint64_t key = hint_key(dir, name, len);

	if (__atomic_load_n(&c->hints[key % CFS_HINTS].key, __ATOMIC_RELAXED) != key)
		return 0;
	return __atomic_load_n(&c->hints[key % CFS_HINTS].ino, __ATOMIC_RELAXED);
}

static uint32_t *victim_counter(struct cfs_client *c, uint64_t ino)
{
	return &c->victims[cfs_hash_u64(ino) % CFS_BUSY_DIRS];
}

void cfs_victim_begin(struct cfs_client *c, uint64_t ino)
{
	__atomic_add_fetch(victim_counter(c, ino), 1, __ATOMIC_SEQ_CST);
}

void cfs_victim_end(struct cfs_client *c, uint64_t ino)
{
	CFS_ASSERT(__atomic_fetch_sub(victim_counter(c, ino), 1, __ATOMIC_SEQ_CST) > 0);
}

void cfs_victim_wait(struct cfs_client *c, uint64_t ino)
{
	while (__atomic_load_n(victim_counter(c, ino), __ATOMIC_SEQ_CST) && !__atomic_load_n(&c->stopping, __ATOMIC_ACQUIRE))
		nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
}

bool cfs_busy(struct cfs_client *c, uint64_t dir)
{
	return __atomic_load_n(busy_counter(c, dir), __ATOMIC_SEQ_CST) > 0;
}

/* ---- nodes -------------------------------------------------------------------------------------- */
int cfs_client_node(struct cfs_client *c, const char *addr)
{
	int found = -ENOSPC;

	pthread_mutex_lock(&c->nodes_lock);
	for (uint32_t i = 0; i < c->n_nodes && found < 0; i++)
		if (!strcmp(c->nodes[i], addr))
			found = (int)i;
	if (found < 0 && c->n_nodes < CFS_NODES_MAX) {
		found = (int)c->n_nodes;
		snprintf(c->nodes[found], sizeof(c->nodes[found]), "%s", addr);
		__atomic_store_n(&c->n_nodes, c->n_nodes + 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&c->nodes_lock);
	return found;
}

void cfs_client_next_leader(struct cfs_client *c, uint32_t failed)
{
	uint32_t next = (failed + 1) % c->n_servers;

	__atomic_compare_exchange_n(&c->leader, &failed, next, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* ---- life ------------------------------------------------------------------------------------------ */
int cfs_client_create(const struct cfs_client_opts *o, struct cfs_client **ret_c)
{
	struct cfs_client *c = calloc(1, sizeof(*c));
	pthread_condattr_t attr;
	int rc = -ENOMEM;

	if (!c)
		return -ENOMEM;
	c->o = *o;
	snprintf(c->name, sizeof(c->name), "%s", o->name ? o->name : "client");
	cfs_list_init(&c->threads);
	cfs_list_init(&c->fhs);
	pthread_mutex_init(&c->fhs_lock, NULL);
	pthread_mutex_init(&c->pins_lock, NULL);
	pthread_mutex_init(&c->nodes_lock, NULL);
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->threads_lock, NULL);
	pthread_mutex_init(&c->breaks_lock, NULL);
	pthread_mutex_init(&c->statfs_lock, NULL);
	pthread_rwlock_init(&c->map_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->cond, &attr);
	pthread_condattr_destroy(&attr);
	cfs_slots_init(&c->slots);
	c->oid_seq = &c->oid_seq_own;
	if (pthread_key_create(&c->thread_key, thread_free)) {
		free(c);
		return -EAGAIN;
	}
	for (unsigned i = 0; i < o->n_servers; i++)
		cfs_client_node(c, o->servers[i]);
	c->n_servers = c->n_nodes;
	CFS_ASSERT(c->n_servers > 0);
	c->lease_ms = 10000;
	c->gate_fd = -1;
	rc = cfs_gate_create(o->bpf, &c->gate, &c->gate_fd);
	if (!rc)
		rc = cfs_dcache_create(o->cache_entries, &c->breaks, &c->dcache);
	if (!rc)
		cfs_dcache_gate(c->dcache, c->gate);
	if (!rc)
		rc = cfs_opstat_create(&c->opstat);
	if (!rc)
		rc = cfs_inodes_create(c, &c->inodes);
	if (!rc)
		rc = cfs_fhtab_create(&c->fhtab);
	if (!rc)
		rc = cfs_notify_create(c, &c->notify);
	if (!rc)
		rc = cfs_orphans_create(c, &c->orphans);
	if (!rc)
		rc = cfs_jobs_create(c, &c->jobs);
	if (rc) {
		cfs_client_destroy(c);
		return rc;
	}
	*ret_c = c;
	return 0;
}

int cfs_client_start(struct cfs_client *c, char *err, size_t errlen)
{
	int rc = cfs_session_start(c, err, errlen);

	if (rc)
		return rc;
	rc = cfs_locks_create(c, &c->locks);
	if (rc)
		snprintf(err, errlen, "cannot start threads: %s", strerror(-rc));
	return rc;
}

void cfs_client_stop(struct cfs_client *c)
{
	__atomic_store_n(&c->stopping, true, __ATOMIC_SEQ_CST);
	cfs_locks_destroy(c->locks);
	c->locks = NULL;
	cfs_session_stop(c);
	cfs_jobs_destroy(c->jobs);
	c->jobs = NULL;
	cfs_notify_destroy(c->notify);
	c->notify = NULL;
}

void cfs_client_destroy(struct cfs_client *c)
{
	if (!c)
		return;
	cfs_client_stop(c);
	cfs_thread_drop(c);
	CFS_ASSERT(cfs_list_empty(&c->threads));
	cfs_orphans_destroy(c->orphans);
	cfs_fhtab_destroy(c->fhtab);
	cfs_inodes_destroy(c->inodes);
	cfs_opstat_destroy(c->opstat);
	cfs_dcache_destroy(c->dcache);
	cfs_prefetch_destroy(c->prefetch);
	cfs_accel_destroy(c);
	cfs_gate_destroy(c->gate, c->gate_fd);
	cfs_client_map_free(c);
	free(c->takeover);
	cfs_slots_destroy(&c->slots);
	pthread_key_delete(c->thread_key);
	pthread_cond_destroy(&c->cond);
	pthread_rwlock_destroy(&c->map_lock);
	free(c);
}
