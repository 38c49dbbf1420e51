/* SPDX-License-Identifier: MIT */
/*
 * data.c - the table of inodes with cached data: references, counters, start and stop. See data.h and data_i.h.
 *
 * An inode stays in the table while somebody refers to it, or while it holds a lease, unsaved data or an error that
 * nobody has been told. The shard's lock guards references only; content has the inode's own lock.
 */
#include "client/data_i.h"

#include "base/hash.h"
#include "base/log.h"
#include "client/pass.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* a process has one mount, tests a few: a scan of the first entry is all it costs */
#define MOUNTS_MAX 16
static struct {
	struct cfs_client *c;
	struct cfs_data_ctx *g;
} mounts[MOUNTS_MAX];
static pthread_mutex_t mounts_lock = PTHREAD_MUTEX_INITIALIZER;

struct cfs_data_ctx *cfs_data_ctx_of(struct cfs_client *c)
{
	for (int i = 0; i < MOUNTS_MAX; i++)
		if (__atomic_load_n(&mounts[i].c, __ATOMIC_ACQUIRE) == c)
			return mounts[i].g;
	return NULL;
}

static int mount_add(struct cfs_client *c, struct cfs_data_ctx *g)
{
	int rc = -EMFILE;

	pthread_mutex_lock(&mounts_lock);
	for (int i = 0; i < MOUNTS_MAX && rc; i++)
		if (!mounts[i].c) {
			mounts[i].g = g;
			__atomic_store_n(&mounts[i].c, c, __ATOMIC_RELEASE);
			rc = 0;
		}
	pthread_mutex_unlock(&mounts_lock);
	return rc;
}

static void mount_del(struct cfs_client *c)
{
	pthread_mutex_lock(&mounts_lock);
	for (int i = 0; i < MOUNTS_MAX; i++)
		if (mounts[i].c == c)
			__atomic_store_n(&mounts[i].c, NULL, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&mounts_lock);
}

uint64_t cfs_data_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

struct cfs_time cfs_data_time(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (struct cfs_time){
		.sec = cfs_cpu_to_le64((uint64_t)ts.tv_sec),
		.nsec = cfs_cpu_to_le32((uint32_t)ts.tv_nsec),
	};
}

int cfs_data_errno(int rc)
{
	if (rc <= 0)
		return rc;
	return rc < 512 ? -rc : -EIO;
}

void cfs_data_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

bool cfs_data_cond_wait_ms(pthread_cond_t *cond, pthread_mutex_t *lock, uint32_t ms)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += ms / 1000;
	ts.tv_nsec += (long)(ms % 1000) * 1000000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000;
	}
	return pthread_cond_timedwait(cond, lock, &ts) != ETIMEDOUT;
}

/* ---- the table ------------------------------------------------------------------- */
static struct cfs_data_shard *shard_of(struct cfs_data_ctx *g, uint64_t ino)
{
	return &g->shards[cfs_hash_u64(ino) % CFS_DATA_SHARDS];
}

static struct cfs_data **bucket_of(struct cfs_data_shard *s, uint64_t ino)
{
	return &s->buckets[(cfs_hash_u64(ino) >> 32) & (s->n_buckets - 1)];
}

/* twice as many buckets when there are two inodes to each; without memory chains get longer */
static void shard_grow(struct cfs_data_shard *s)
{
	struct cfs_data **old = s->buckets, **v;
	uint32_t n_old = s->n_buckets;

	if (s->n < 2 * n_old)
		return;
	v = calloc(n_old * 2, sizeof(struct cfs_data *));
	if (!v)
		return;
	s->buckets = v;
	s->n_buckets = n_old * 2;
	for (uint32_t i = 0; i < n_old; i++) {
		struct cfs_data *d = old[i], *next;

		for (; d; d = next) {
			struct cfs_data **b = bucket_of(s, d->ino);

			next = d->hash_next;
			d->hash_next = *b;
			*b = d;
		}
	}
	free(old);
}

static struct cfs_data *data_new(struct cfs_data_ctx *g, uint64_t ino)
{
	struct cfs_data *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->g = g;
	d->ino = ino;
	d->used_ms = cfs_data_now_ms();
	if (g->p.inherited) {
		d->inherited = true;
		d->dropped_ms = g->inherited_ms;	/* what is being written may be read over: data_order.c */
	}
	pthread_mutex_init(&d->lock, NULL);
	cfs_data_cond_init(&d->cond);
	cfs_list_init(&d->dirty_link);
	cfs_list_init(&d->inval_link);
	cfs_cachefile_init(&d->cf, ino);
	__atomic_add_fetch(&g->n_inodes, 1, __ATOMIC_RELAXED);
	return d;
}

static void data_free(struct cfs_data *d)
{
	struct cfs_data_ctx *g = d->g;

	CFS_ASSERT(!d->n_io && !d->flushing && !d->dirty.n && !d->on_dirty_list);
	cfs_data_gate_free(d);
	cfs_data_drop_content(d);
	cfs_pass_free(d->pass);
	cfs_rangeset_clear(&d->inval_set);
	cfs_rangeset_clear(&d->reread);
	cfs_rangeset_clear(&d->dropping);
	pthread_mutex_destroy(&d->lock);
	pthread_cond_destroy(&d->cond);
	__atomic_sub_fetch(&g->n_inodes, 1, __ATOMIC_RELAXED);
	free(d);
}

static struct cfs_data *lookup(struct cfs_data_shard *s, uint64_t ino)
{
	struct cfs_data *d;

	for (d = *bucket_of(s, ino); d; d = d->hash_next)
		if (d->ino == ino)
			break;
	return d;
}

struct cfs_data *cfs_data_get(struct cfs_client *c, const struct cfs_attr *attr)
{
	struct cfs_data_ctx *g = cfs_data_ctx_of(c);
	uint64_t ino = cfs_le64_to_cpu(attr->ino);
	struct cfs_data_shard *s;
	struct cfs_data *d;

	if (!g)
		return NULL;
	s = shard_of(g, ino);
	pthread_mutex_lock(&s->lock);
	d = lookup(s, ino);
	if (!d) {
		d = data_new(g, ino);
		if (d) {
			struct cfs_data **b;

			shard_grow(s);
			b = bucket_of(s, ino);
			d->hash_next = *b;
			*b = d;
			s->n++;
		}
	}
	if (d)
		d->refs++;
	pthread_mutex_unlock(&s->lock);
	return d;
}

struct cfs_data *cfs_data_find(struct cfs_client *c, uint64_t ino)
{
	struct cfs_data_ctx *g = cfs_data_ctx_of(c);
	struct cfs_data_shard *s;
	struct cfs_data *d;

	if (!g)
		return NULL;
	s = shard_of(g, ino);
	pthread_mutex_lock(&s->lock);
	d = lookup(s, ino);
	if (d)
		d->refs++;
	pthread_mutex_unlock(&s->lock);
	return d;
}

bool cfs_data_excl(struct cfs_client *c, uint64_t ino)
{
	struct cfs_data_ctx *g = cfs_data_ctx_of(c);
	struct cfs_data_shard *s;
	struct cfs_data *d;
	bool excl;

	if (!g)
		return false;
	s = shard_of(g, ino);
	pthread_mutex_lock(&s->lock);
	d = lookup(s, ino);
	excl = d && __atomic_load_n(&d->lease, __ATOMIC_SEQ_CST) == CFS_LEASE_EXCL;
	pthread_mutex_unlock(&s->lock);
	return excl;
}

void cfs_data_ref(struct cfs_data *d)
{
	struct cfs_data_shard *s = shard_of(d->g, d->ino);

	pthread_mutex_lock(&s->lock);
	CFS_ASSERT(d->refs > 0);
	d->refs++;
	pthread_mutex_unlock(&s->lock);
}

void cfs_data_put(struct cfs_data *d)
{
	struct cfs_data_shard *s;
	struct cfs_data **b;

	if (!d)
		return;
	s = shard_of(d->g, d->ino);
	pthread_mutex_lock(&s->lock);
	CFS_ASSERT(d->refs > 0);
	/* with no reference left nobody else can be looking at the content, so its lock is not needed */
	if (--d->refs || d->lease != CFS_LEASE_NONE || d->n_open || d->kept || d->err) {
		pthread_mutex_unlock(&s->lock);
		return;
	}
	for (b = bucket_of(s, d->ino); *b != d; b = &(*b)->hash_next)
		;
	*b = d->hash_next;
	s->n--;
	pthread_mutex_unlock(&s->lock);
	data_free(d);
}

void cfs_data_give_pass(struct cfs_data *d, struct cfs_pass *p)
{
	pthread_mutex_lock(&d->lock);
	CFS_ASSERT(!d->pass && !d->valid.n && !cfs_data_is_dirty(d));
	d->pass = p;
	pthread_mutex_unlock(&d->lock);
}

struct cfs_pass *cfs_data_pass(struct cfs_data *d)
{
	return d->pass;
}

int cfs_data_cachedir(struct cfs_client *c)
{
	return cfs_data_ctx_of(c)->store.dirfd;
}

uint64_t cfs_data_ino(const struct cfs_data *d)
{
	return d->ino;
}

unsigned cfs_data_walk(struct cfs_data_ctx *g, unsigned shard, uint32_t *pos, struct cfs_data **ret, unsigned max)
{
	struct cfs_data_shard *s = &g->shards[shard];
	unsigned n = 0;

	/* whole buckets at a time; max is far above the length of a chain, so what does not fit is next time's */
	pthread_mutex_lock(&s->lock);
	for (; *pos < s->n_buckets; (*pos)++) {
		unsigned before = n;
		struct cfs_data *d;

		for (d = s->buckets[*pos]; d && n < max; d = d->hash_next) {
			d->refs++;
			ret[n++] = d;
		}
		if (d && before) {	/* not this bucket, then */
			while (n > before)
				ret[--n]->refs--;
			break;
		}
	}
	pthread_mutex_unlock(&s->lock);
	return n;
}

void cfs_data_use(struct cfs_data *d)
{
	d->used_ms = cfs_data_now_ms();
	__atomic_store_n(&d->used, true, __ATOMIC_RELAXED);
}

/* ---- ranges and their counters --------------------------------------------------------- */
static void count(uint64_t *counter, uint64_t before, uint64_t after)
{
	if (after != before)
		__atomic_add_fetch(counter, after - before, __ATOMIC_RELAXED);
}

void cfs_data_valid_add(struct cfs_data *d, uint64_t off, uint64_t end)
{
	uint64_t before = d->valid.bytes;

	cfs_rangeset_add(&d->valid, off, end);
	count(&d->g->cached_bytes, before, d->valid.bytes);
}

void cfs_data_valid_del(struct cfs_data *d, uint64_t off, uint64_t end)
{
	uint64_t before = d->valid.bytes;

	cfs_rangeset_del(&d->valid, off, end);
	count(&d->g->cached_bytes, before, d->valid.bytes);
}

void cfs_data_dirty_add(struct cfs_data *d, uint64_t off, uint64_t end)
{
	uint64_t before = d->dirty.bytes;

	cfs_rangeset_add(&d->dirty, off, end);
	count(&d->g->dirty_bytes, before, d->dirty.bytes);
}

void cfs_data_dirty_del(struct cfs_data *d, uint64_t off, uint64_t end)
{
	uint64_t before = d->dirty.bytes;

	cfs_rangeset_del(&d->dirty, off, end);
	count(&d->g->dirty_bytes, before, d->dirty.bytes);
}

/* ---- start, stop, figures ------------------------------------------------------------------ */
static void ctx_free(struct cfs_data_ctx *g)
{
	for (unsigned i = 0; i < CFS_DATA_SHARDS; i++) {
		free(g->shards[i].buckets);
		pthread_mutex_destroy(&g->shards[i].lock);
	}
	for (unsigned i = 0; i < g->n_bufs; i++)
		free(g->bufs[i]);
	pthread_mutex_destroy(&g->list_lock);
	pthread_cond_destroy(&g->flush_cond);
	pthread_cond_destroy(&g->throttle_cond);
	pthread_mutex_destroy(&g->inval_lock);
	pthread_cond_destroy(&g->inval_cond);
	pthread_mutex_destroy(&g->commit_lock);
	pthread_cond_destroy(&g->commit_cond);
	pthread_mutex_destroy(&g->buf_lock);
	pthread_cond_destroy(&g->buf_cond);
	pthread_mutex_destroy(&g->evict_lock);
	free(g);
}

static struct cfs_data_ctx *ctx_new(struct cfs_client *c, const struct cfs_data_params *p)
{
	struct cfs_data_ctx *g = calloc(1, sizeof(*g));
	bool ok = true;

	if (!g)
		return NULL;
	g->c = c;
	g->inherited_ms = cfs_data_now_ms();
	g->p = *p;
	if (!g->p.inodes || g->p.inodes > CFS_DATA_INODES_MAX)
		g->p.inodes = CFS_DATA_INODES_MAX;
	g->p.cachedir = NULL;
	g->page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	/* what is dirty cannot be evicted: it must fit beside something clean, and hold a few objects */
	g->p.cache_bytes = cfs_max(p->cache_bytes, 32 * CFS_MIB);
	g->p.dirty_bytes = cfs_max(p->dirty_bytes, 8 * CFS_MIB);
	g->p.dirty_bytes = cfs_min(g->p.dirty_bytes, g->p.cache_bytes / 2);
	g->p.flush_ms = p->flush_ms ? p->flush_ms : 5000;
	for (unsigned i = 0; i < CFS_DATA_SHARDS; i++) {
		pthread_mutex_init(&g->shards[i].lock, NULL);
		g->shards[i].n_buckets = 16;
		g->shards[i].buckets = calloc(16, sizeof(struct cfs_data *));
		ok = ok && g->shards[i].buckets;
	}
	pthread_mutex_init(&g->list_lock, NULL);
	cfs_list_init(&g->dirty_list);
	cfs_data_cond_init(&g->flush_cond);
	cfs_data_cond_init(&g->throttle_cond);
	pthread_mutex_init(&g->inval_lock, NULL);
	cfs_data_cond_init(&g->inval_cond);
	cfs_list_init(&g->inval_now);
	cfs_list_init(&g->inval_later);
	pthread_mutex_init(&g->commit_lock, NULL);
	cfs_data_cond_init(&g->commit_cond);
	cfs_list_init(&g->commit_list);
	pthread_mutex_init(&g->buf_lock, NULL);
	cfs_data_cond_init(&g->buf_cond);
	pthread_mutex_init(&g->evict_lock, NULL);
	if (!ok) {
		ctx_free(g);
		g = NULL;
	}
	return g;
}

int cfs_data_start(struct cfs_client *c, const struct cfs_data_params *p)
{
	struct cfs_data_ctx *g = ctx_new(c, p);
	uint64_t mem;
	int rc;

	if (!g)
		return -ENOMEM;
	mem = cfs_max(g->p.cache_bytes / 8, 16 * CFS_MIB);
	mem = cfs_min(mem, 256 * CFS_MIB);
	rc = cfs_cachestore_open(&g->store, p->cachedir, p->cache_fd > 0 ? p->cache_fd : -1, mem, CFS_CACHE_FDS_MAX);
	if (rc)
		goto fail;
	rc = cfs_data_inval_start(g);
	if (rc)
		goto fail_store;
	rc = cfs_data_flusher_start(g);
	if (rc)
		goto fail_inval;
	rc = mount_add(c, g);
	if (rc)
		goto fail_flusher;
	return 0;
fail_flusher:
	cfs_data_flusher_stop(g);
fail_inval:
	cfs_data_inval_stop(g);
fail_store:
	cfs_cachestore_close(&g->store);
fail:
	ctx_free(g);
	return rc;
}

/* everything dirty, once; returns how many inodes stayed dirty */
static unsigned flush_all(struct cfs_data_ctx *g)
{
	struct cfs_data *v[256];
	unsigned left = 0;

	for (unsigned s = 0; s < CFS_DATA_SHARDS; s++) {
		uint32_t pos = 0;
		unsigned n;

		while ((n = cfs_data_walk(g, s, &pos, v, CFS_ARRAY_SIZE(v)))) {
			cfs_data_flush_many(g, v, n);
			for (unsigned i = 0; i < n; i++) {
				pthread_mutex_lock(&v[i]->lock);
				left += cfs_data_is_dirty(v[i]) || v[i]->flushing;
				pthread_mutex_unlock(&v[i]->lock);
				cfs_data_put(v[i]);
			}
		}
	}
	return left;
}

int cfs_data_stop(struct cfs_client *c, uint32_t timeout_ms)
{
	struct cfs_data_ctx *g = cfs_data_ctx_of(c);
	uint64_t end_ms = cfs_data_now_ms() + timeout_ms;
	struct timespec pause = { 0, 50 * 1000000 };
	unsigned left;

	if (!g)
		return 0;
	while ((left = flush_all(g)) && cfs_data_now_ms() < end_ms)
		nanosleep(&pause, NULL);
	if (left)
		cfs_err("unmount: data of %u files could not be written back in %u ms and is lost", left, timeout_ms);
	cfs_data_flusher_stop(g);
	cfs_data_inval_stop(g);
	mount_del(c);
	/* callers have stopped: nobody holds a reference but, maybe, forgotten ones */
	for (unsigned s = 0; s < CFS_DATA_SHARDS; s++)
		for (uint32_t i = 0; i < g->shards[s].n_buckets; i++) {
			struct cfs_data *d = g->shards[s].buckets[i], *next;

			for (; d; d = next) {
				next = d->hash_next;
				cfs_data_dirty_del(d, 0, UINT64_MAX);
				data_free(d);
			}
		}
	CFS_ASSERT(!g->n_inodes && !g->cached_bytes);
	cfs_cachestore_close(&g->store);
	ctx_free(g);
	return left ? -EIO : 0;
}

void cfs_data_stat(struct cfs_client *c, struct cfs_data_stat *ret)
{
	struct cfs_data_ctx *g = cfs_data_ctx_of(c);

	memset(ret, 0, sizeof(*ret));
	if (!g)
		return;
#define COPY(f) (ret->f = __atomic_load_n(&g->stat.f, __ATOMIC_RELAXED))
	COPY(reads_cache);
	COPY(reads_net);
	COPY(bytes_read_net);
	COPY(bytes_written_net);
	COPY(flushes);
	COPY(commits);
	COPY(commit_items);
	COPY(writes_through);
	COPY(gate_opens);
	COPY(gate_shuts);
	COPY(gate_wants);
#undef COPY
	ret->cached_bytes = __atomic_load_n(&g->cached_bytes, __ATOMIC_RELAXED);
	ret->dirty_bytes = __atomic_load_n(&g->dirty_bytes, __ATOMIC_RELAXED);
	ret->inodes = __atomic_load_n(&g->n_inodes, __ATOMIC_RELAXED);
}
