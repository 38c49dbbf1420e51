/* SPDX-License-Identifier: MIT */
/*
 * data_flusher.c - the threads that write back what is dirty for flush_ms, or too much; and eviction.
 *
 * A dirty inode is on the dirty list (with a reference), or a flusher has taken it off and looks after it. The list is
 * in the order of becoming dirty; those that failed wait for a time of their own.
 */
#include "client/data_i.h"

#include "base/log.h"

#include <errno.h>
#include <string.h>

#define SCAN_MAX	1024u		/* entries looked at for a batch */
#define SLEEP_MAX_MS	1000u

/* list_lock held: inodes whose time has come. *ret_wait_ms: until the next one's */
static unsigned collect(struct cfs_data_ctx *g, struct cfs_data **v, uint32_t *ret_wait_ms)
{
	bool pressure = g->kick || __atomic_load_n(&g->dirty_bytes, __ATOMIC_RELAXED) > g->p.dirty_bytes / 2;
	uint64_t now = cfs_data_now_ms(), next = now + SLEEP_MAX_MS, due = now;
	struct cfs_list *pos, *tmp;
	unsigned n = 0, seen = 0;

	cfs_list_for_each_safe(pos, tmp, &g->dirty_list) {
		struct cfs_data *d = cfs_list_entry(pos, struct cfs_data, dirty_link);

		if (n == CFS_DATA_FLUSH_MANY || seen++ == SCAN_MAX)
			break;
		if (d->due_ms > (d->backing_off ? now : due) && (!pressure || d->backing_off)) {
			next = cfs_min(next, d->due_ms);
			continue;
		}
		/* those that come next go with it: a COMMIT of one file costs the server as much as one of many */
		if (!d->backing_off && d->due_ms)
			due = now + g->p.flush_ms / 2;
		cfs_list_del(&d->dirty_link);
		d->on_dirty_list = false;
		g->n_dirty--;
		v[n++] = d;
	}
	g->kick = g->kick && n == CFS_DATA_FLUSH_MANY;	/* there may be more */
	*ret_wait_ms = (uint32_t)(next - now);
	return n;
}

static void trim(struct cfs_data_ctx *g)
{
	if (__atomic_load_n(&g->cached_bytes, __ATOMIC_RELAXED) > g->p.cache_bytes ||
	    __atomic_load_n(&g->store.mem_bytes, __ATOMIC_RELAXED) > g->store.mem_limit / 8 * 7)
		cfs_data_evict(g, g->p.cache_bytes / 8 * 7, g->store.mem_limit / 4 * 3);
}

static void *flusher_main(void *arg)
{
	struct cfs_data_ctx *g = arg;
	struct cfs_data *v[CFS_DATA_FLUSH_MANY];

	pthread_mutex_lock(&g->list_lock);
	while (!g->stop) {
		uint32_t wait_ms;
		unsigned n = collect(g, v, &wait_ms);

		if (n) {
			pthread_mutex_unlock(&g->list_lock);
			cfs_data_flush_many(g, v, n);
			for (unsigned i = 0; i < n; i++) {
				pthread_mutex_lock(&v[i]->lock);
				/* who is flushing it puts it back himself */
				if (cfs_data_is_dirty(v[i]) && !v[i]->flushing)
					cfs_data_mark_dirty(v[i]);
				pthread_mutex_unlock(&v[i]->lock);
				cfs_data_put(v[i]);
			}
		} else {
			cfs_data_cond_wait_ms(&g->flush_cond, &g->list_lock, wait_ms);
			pthread_mutex_unlock(&g->list_lock);
		}
		trim(g);
		if (__atomic_load_n(&g->n_inodes, __ATOMIC_RELAXED) > g->p.inodes)
			cfs_data_idle(g->c, SLEEP_MAX_MS);
		pthread_mutex_lock(&g->list_lock);
	}
	pthread_mutex_unlock(&g->list_lock);
	return NULL;
}

int cfs_data_flusher_start(struct cfs_data_ctx *g)
{
	int rc = 0;

	while (g->n_flushers < CFS_DATA_FLUSHERS && !rc) {
		rc = -pthread_create(&g->flushers[g->n_flushers], NULL, flusher_main, g);
		g->n_flushers += !rc;
	}
	if (rc)
		cfs_data_flusher_stop(g);
	return rc;
}

void cfs_data_flusher_stop(struct cfs_data_ctx *g)
{
	pthread_mutex_lock(&g->list_lock);
	g->stop = true;
	pthread_cond_broadcast(&g->flush_cond);
	pthread_mutex_unlock(&g->list_lock);
	for (unsigned i = 0; i < g->n_flushers; i++)
		pthread_join(g->flushers[i], NULL);
	g->n_flushers = 0;
	while (!cfs_list_empty(&g->dirty_list)) {
		struct cfs_data *d = cfs_list_first(&g->dirty_list, struct cfs_data, dirty_link);

		cfs_list_del(&d->dirty_link);
		d->on_dirty_list = false;
		g->n_dirty--;
		cfs_data_put(d);
	}
}

/* ---- eviction ---------------------------------------------------------------------------- */
static bool low_enough(struct cfs_data_ctx *g, uint64_t cached_goal, uint64_t mem_goal)
{
	return __atomic_load_n(&g->cached_bytes, __ATOMIC_RELAXED) <= cached_goal &&
	       __atomic_load_n(&g->store.mem_bytes, __ATOMIC_RELAXED) <= mem_goal;
}

static void evict_one(struct cfs_data *d)
{
	pthread_mutex_lock(&d->lock);
	/* inline content that is being written must stay complete */
	if (d->valid.bytes > d->dirty.bytes && !d->n_io && !d->flushing && !d->recalling && !d->drop_later &&
	    !(d->inline_srv && d->lease == CFS_LEASE_EXCL))
		cfs_data_drop_clean(d);
	pthread_mutex_unlock(&d->lock);
}

void cfs_data_evict(struct cfs_data_ctx *g, uint64_t cached_goal, uint64_t mem_goal)
{
	struct cfs_data *v[64];

	/* a clock: the first round spares what was used since the last one; two rounds find everything */
	pthread_mutex_lock(&g->evict_lock);
	for (unsigned k = 0; k < 2 * CFS_DATA_SHARDS && !low_enough(g, cached_goal, mem_goal); k++) {
		uint32_t pos = 0;
		unsigned n;

		while ((n = cfs_data_walk(g, g->evict_shard, &pos, v, CFS_ARRAY_SIZE(v))))
			for (unsigned i = 0; i < n; i++) {
				if (!__atomic_exchange_n(&v[i]->used, false, __ATOMIC_RELAXED) &&
				    !low_enough(g, cached_goal, mem_goal))
					evict_one(v[i]);
				cfs_data_put(v[i]);
			}
		g->evict_shard = (g->evict_shard + 1) % CFS_DATA_SHARDS;
	}
	pthread_mutex_unlock(&g->evict_lock);
}
