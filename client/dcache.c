// SPDX-License-Identifier: MIT
/*
 * dcache.c - see dcache.h. Three kinds of nodes live in one hash table per shard: directories (a lease and its
 * epoch), names (directory, name -> inode or absent) and attributes. Names and attributes carry the epoch that
 * their directory had when they came; they count while it still has it. Attributes of a file with several links
 * stand under no directory (epoch 0). Lock order: one shard at a time, never two.
 *
 * Nodes are also on lists by kind and hash of the directory that they stand under, in each shard: the walk of a directory whose lease
 * ended looks at no more than that. It forgets what it has told, so that each is told once. Names that the kernel was not told of
 * one by one, as it has epochs, stay: who takes one of them away later must know that the kernel may still have it.
 *
 * Whole directories. The names of one lie in all shards, so what is lost of them is counted beside: losing a name counts in
 * lost[] of its directory, under the lock of the name's shard and before anybody can miss it there. A directory is whole
 * while the count is what it was when its names were first asked for. Directories share counts by hash: that ends more than it must.
 */
#include "client/dcache.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/hash.h"
#include "base/list.h"
#include "claudefs/bpf_shared.h"
#include "client/accel.h"

#define SHARDS		64u
#define EVICTED_MAX	1024u	/* evicted directories remembered for returning; more are simply kept leased */
#define LOST		4096u	/* counts of lost names, by directory */
#define UNDER		64u	/* lists of a shard and kind, by directory */

enum kind { K_DIR, K_NAME, K_ATTR, K_MARK /* where a walk stands in a list */ };
#define KINDS		K_MARK

struct node {
	struct node *next;		/* in its bucket */
	struct cfs_list lru, under;
	uint64_t epoch;			/* K_DIR: its own; else of the directory it stands under, 0: none */
	uint64_t key;			/* K_NAME: directory; else the inode */
	uint32_t hash;			/* of (kind, key, name) */
	uint8_t kind;
	uint8_t name_len;
	uint8_t pad[2];
};

struct dir_node {
	struct node n;
	uint64_t kernel_until;		/* the latest of all its names, ever */
	uint64_t whole;			/* lost[] as it was + 1, if it is whole; 0: it is not */
};

struct name_node {
	struct node n;
	uint64_t ino;
	uint64_t kernel_until;
	char name[];
};

struct attr_node {
	struct node n;
	struct cfs_attr attr;
};

struct shard {
	pthread_mutex_t lock;
	struct node **buckets;
	size_t n_buckets, count, max;
	struct cfs_list lru;		/* first: most recently used */
	struct cfs_list under[KINDS][UNDER];
	uint64_t kinds[KINDS];
	uint64_t hits, misses, absent_hits, whole_hits, evictions, refused;
	struct cfs_accel_maps *maps;	/* what changes here changes there, under this lock */
} __attribute__((aligned(128)));

struct evicted {
	uint64_t dir, kernel_until;
};

struct cfs_dcache {
	const struct cfs_breaks *breaks;
	const struct cfs_bpf_gate *gate;	/* NULL: nobody but the daemon tells the kernel anything */
	uint64_t next_epoch;
	uint64_t lost[LOST];
	pthread_mutex_t evicted_lock;
	struct evicted evicted[EVICTED_MAX];
	unsigned n_evicted;
	struct shard shards[SHARDS];
};

static uint32_t key_hash(enum kind kind, uint64_t key, const char *name, size_t len)
{
	uint64_t h = cfs_hash_u64(key * 4 + kind);

	return (uint32_t)(name ? cfs_hash64(name, len, h) : h);
}

static struct shard *shard_of(struct cfs_dcache *dc, uint32_t hash)
{
	return &dc->shards[hash % SHARDS];
}

static struct node **bucket_of(struct shard *s, uint32_t hash)
{
	return &s->buckets[(hash / SHARDS) & (s->n_buckets - 1)];
}

/* what governs the attributes: a directory, or 0 */
static uint64_t governor_of(const struct cfs_attr *attr)
{
	return cfs_le64_to_cpu(attr->parent);
}

/* the directory under whose lease a node counts; 0: none */
static uint64_t stands_under(const struct node *n)
{
	return n->kind == K_ATTR ? governor_of(&((const struct attr_node *)n)->attr) : n->key;
}

static struct cfs_list *under_of(struct shard *s, enum kind kind, uint64_t dir)
{
	return &s->under[kind][cfs_hash_u64(dir) % UNDER];
}

static void link_under(struct shard *s, struct node *n)
{
	cfs_list_add_head(under_of(s, (enum kind)n->kind, stands_under(n)), &n->under);
}

static struct node *find(struct shard *s, enum kind kind, uint64_t key, const char *name, size_t len, uint32_t hash)
{
	for (struct node *n = *bucket_of(s, hash); n; n = n->next) {
		if (n->hash != hash || n->kind != kind || n->key != key)
			continue;
		if (kind != K_NAME || (n->name_len == len && !memcmp(((struct name_node *)n)->name, name, len)))
			return n;
	}
	return NULL;
}

static void touch(struct shard *s, struct node *n)
{
	cfs_list_del(&n->lru);
	cfs_list_add_head(&s->lru, &n->lru);
}

static void unlink_node(struct shard *s, struct node *n)
{
	struct node **p = bucket_of(s, n->hash);

	while (*p != n)
		p = &(*p)->next;
	*p = n->next;
	cfs_list_del(&n->lru);
	cfs_list_del(&n->under);
	s->count--;
	s->kinds[n->kind]--;
}

static uint64_t *lost_of(struct cfs_dcache *dc, uint64_t dir)
{
	return &dc->lost[cfs_hash_u64(dir) % LOST];
}

/* a name of dir is, or may be, no longer here; its shard is locked */
static void lose_name(struct cfs_dcache *dc, uint64_t dir)
{
	__atomic_add_fetch(lost_of(dc, dir), 1, __ATOMIC_SEQ_CST);
}

static void note_evicted_dir(struct cfs_dcache *dc, const struct dir_node *d)
{
	pthread_mutex_lock(&dc->evicted_lock);
	if (dc->n_evicted < EVICTED_MAX)
		dc->evicted[dc->n_evicted++] = (struct evicted){ d->n.key, d->kernel_until };
	pthread_mutex_unlock(&dc->evicted_lock);
}

/* the shard is locked; makes room first */
static void insert(struct cfs_dcache *dc, struct shard *s, struct node *n)
{
	struct node **p;

	while (s->count >= s->max) {
		struct node *old = cfs_list_entry(s->lru.prev, struct node, lru);

		unlink_node(s, old);
		s->evictions++;
		if (old->kind == K_NAME && ((struct name_node *)old)->ino)
			lose_name(dc, old->key);
		if (old->kind == K_DIR) {
			cfs_accel_drop_dir(s->maps, old->key);
			note_evicted_dir(dc, (struct dir_node *)old);
		}
		free(old);
	}
	p = bucket_of(s, n->hash);
	n->next = *p;
	*p = n;
	cfs_list_add_head(&s->lru, &n->lru);
	link_under(s, n);
	s->count++;
	s->kinds[n->kind]++;
}

int cfs_dcache_create(size_t max_entries, const struct cfs_breaks *breaks, struct cfs_dcache **ret_dc)
{
	struct cfs_dcache *dc = aligned_alloc(128, sizeof(*dc));
	size_t per_shard = max_entries / SHARDS + 1;
	size_t n_buckets = 16;

	if (!dc)
		return -ENOMEM;
	memset(dc, 0, sizeof(*dc));
	dc->breaks = breaks;
	pthread_mutex_init(&dc->evicted_lock, NULL);
	while (n_buckets < per_shard)
		n_buckets *= 2;
	for (unsigned i = 0; i < SHARDS; i++) {
		struct shard *s = &dc->shards[i];

		pthread_mutex_init(&s->lock, NULL);
		cfs_list_init(&s->lru);
		for (unsigned k = 0; k < KINDS * UNDER; k++)
			cfs_list_init(&s->under[k / UNDER][k % UNDER]);
		s->max = per_shard < 4 ? 4 : per_shard;
		s->n_buckets = n_buckets;
		s->buckets = calloc(n_buckets, sizeof(*s->buckets));
		if (!s->buckets) {
			cfs_dcache_destroy(dc);
			return -ENOMEM;
		}
	}
	*ret_dc = dc;
	return 0;
}

void cfs_dcache_gate(struct cfs_dcache *dc, const struct cfs_bpf_gate *gate)
{
	dc->gate = gate;
}

static void mirror_node(struct cfs_accel_maps *maps, const struct node *n)
{
	const struct name_node *e = (const struct name_node *)n;

	switch ((enum kind)n->kind) {
	case K_DIR:
		cfs_accel_put_dir(maps, n->key, n->epoch);
		break;
	case K_NAME:
		cfs_accel_put_name(maps, n->key, e->name, n->name_len, e->ino, n->epoch);
		break;
	case K_ATTR:
		cfs_accel_put_attr(maps, &((const struct attr_node *)n)->attr, n->epoch);
		break;
	case K_MARK:
		break;
	}
}

void cfs_dcache_mirror(struct cfs_dcache *dc, struct cfs_accel_maps *maps)
{
	for (unsigned i = 0; i < SHARDS; i++) {
		struct shard *s = &dc->shards[i];
		struct cfs_list *pos;

		pthread_mutex_lock(&s->lock);
		__atomic_store_n(&s->maps, maps, __ATOMIC_RELAXED);
		cfs_list_for_each(pos, &s->lru)
			mirror_node(maps, cfs_list_entry(pos, struct node, lru));
		pthread_mutex_unlock(&s->lock);
	}
}

static void empty_shard(struct shard *s)
{
	while (!cfs_list_empty(&s->lru)) {
		struct node *n = cfs_list_first(&s->lru, struct node, lru);

		unlink_node(s, n);
		free(n);
	}
}

void cfs_dcache_destroy(struct cfs_dcache *dc)
{
	if (!dc)
		return;
	for (unsigned i = 0; i < SHARDS; i++) {
		struct shard *s = &dc->shards[i];

		if (s->lru.next)
			empty_shard(s);
		free(s->buckets);
	}
	free(dc);
}

void cfs_dcache_mirror_dir(struct cfs_dcache *dc, uint64_t dir)
{
	uint32_t hash = key_hash(K_DIR, dir, NULL, 0);
	struct shard *s = shard_of(dc, hash);
	struct node *d;

	pthread_mutex_lock(&s->lock);
	d = find(s, K_DIR, dir, NULL, 0, hash);
	if (d)
		cfs_accel_put_dir(s->maps, dir, d->epoch);
	pthread_mutex_unlock(&s->lock);
}

static bool is_busy(const struct cfs_dcache *dc, uint64_t ino)
{
	return dc->gate && __atomic_load_n(&dc->gate->busy[cfs_bpf_hash(ino) % CFS_BPF_BUSY], __ATOMIC_RELAXED);
}

void cfs_dcache_mirror_name(struct cfs_dcache *dc, uint64_t dir, const char *name, size_t len)
{
	uint32_t hash = key_hash(K_NAME, dir, name, len);
	struct shard *s = shard_of(dc, hash);
	struct node *e;

	if (!__atomic_load_n(&s->maps, __ATOMIC_RELAXED) || is_busy(dc, dir))
		return;
	cfs_dcache_mirror_dir(dc, dir);
	pthread_mutex_lock(&s->lock);
	e = find(s, K_NAME, dir, name, len, hash);
	if (e)
		mirror_node(s->maps, e);
	pthread_mutex_unlock(&s->lock);
}

void cfs_dcache_mirror_attr(struct cfs_dcache *dc, uint64_t ino)
{
	uint32_t hash = key_hash(K_ATTR, ino, NULL, 0);
	struct shard *s = shard_of(dc, hash);
	uint64_t governor = 0;
	struct attr_node *a;

	if (!__atomic_load_n(&s->maps, __ATOMIC_RELAXED) || is_busy(dc, ino))
		return;
	pthread_mutex_lock(&s->lock);
	a = (struct attr_node *)find(s, K_ATTR, ino, NULL, 0, hash);
	if (a)
		governor = governor_of(&a->attr);
	if (governor && !is_busy(dc, governor))
		mirror_node(s->maps, &a->n);
	pthread_mutex_unlock(&s->lock);
	if (governor)
		cfs_dcache_mirror_dir(dc, governor);
}

/*
 * The epoch of a directory's lease; 0: it is not held. kernel_until is noted with the directory, too. *ret_whole, if wanted: see struct
 * dir_node
 */
static uint64_t dir_epoch(struct cfs_dcache *dc, uint64_t dir, uint64_t kernel_until, uint64_t *ret_whole)
{
	uint32_t hash = key_hash(K_DIR, dir, NULL, 0);
	struct shard *s = shard_of(dc, hash);
	struct dir_node *d;
	uint64_t epoch = 0;

	pthread_mutex_lock(&s->lock);
	d = (struct dir_node *)find(s, K_DIR, dir, NULL, 0, hash);
	if (d) {
		epoch = d->n.epoch;
		if (ret_whole)
			*ret_whole = d->whole;
		if (kernel_until > d->kernel_until)
			d->kernel_until = kernel_until;
		touch(s, &d->n);
	}
	pthread_mutex_unlock(&s->lock);
	return epoch;
}

uint64_t cfs_dcache_dir_epoch(struct cfs_dcache *dc, uint64_t dir)
{
	return dir_epoch(dc, dir, 0, NULL);
}

/*
 * The same, and note that the lease is held if it was not, unless it was broken since. The note of a break comes before
 * its drop_dir() takes the shard's lock: either the check sees it, or drop_dir() removes what was made here.
 */
static uint64_t dir_epoch_make(struct cfs_dcache *dc, uint64_t dir, uint64_t since, uint64_t kernel_until)
{
	uint64_t epoch = dir_epoch(dc, dir, kernel_until, NULL);
	uint32_t hash = key_hash(K_DIR, dir, NULL, 0);
	struct shard *s = shard_of(dc, hash);
	struct dir_node *d, *have;

	if (epoch)
		return epoch;
	d = calloc(1, sizeof(*d));
	if (!d)
		return 0;
	d->n.kind = K_DIR;
	d->n.key = dir;
	d->n.hash = hash;
	d->n.epoch = __atomic_add_fetch(&dc->next_epoch, 1, __ATOMIC_RELAXED);
	d->kernel_until = kernel_until;
	pthread_mutex_lock(&s->lock);
	have = (struct dir_node *)find(s, K_DIR, dir, NULL, 0, hash);
	if (have) {
		epoch = have->n.epoch;
		if (kernel_until > have->kernel_until)
			have->kernel_until = kernel_until;
	} else if (!cfs_breaks_attr(dc->breaks, since, 0, dir)) {
		epoch = d->n.epoch;
		insert(dc, s, &d->n);
		cfs_accel_put_dir(s->maps, dir, epoch);
		d = NULL;
	}
	pthread_mutex_unlock(&s->lock);
	free(d);
	return epoch;
}

uint64_t cfs_dcache_whole_begin(const struct cfs_dcache *dc, uint64_t dir)
{
	return __atomic_load_n(&dc->lost[cfs_hash_u64(dir) % LOST], __ATOMIC_SEQ_CST);
}

bool cfs_dcache_put_whole(struct cfs_dcache *dc, uint64_t dir, uint64_t since, uint64_t begun)
{
	uint32_t hash = key_hash(K_DIR, dir, NULL, 0);
	struct shard *s = shard_of(dc, hash);
	struct dir_node *d;
	bool ok = false;

	pthread_mutex_lock(&s->lock);
	d = (struct dir_node *)find(s, K_DIR, dir, NULL, 0, hash);
	/* a break is noted before it drops the name, which counts as lost: one of the two tells */
	if (d && !cfs_breaks_names(dc->breaks, since, dir)) {
		d->whole = begun + 1;
		ok = true;
	}
	pthread_mutex_unlock(&s->lock);
	return ok;
}

static struct name_node *name_node_new(uint64_t dir, const char *name, size_t len, uint32_t hash, uint64_t epoch, uint64_t ino,
				       uint64_t kernel_until)
{
	struct name_node *e = malloc(sizeof(*e) + len);

	if (!e)
		return NULL;
	e->n = (struct node){ .kind = K_NAME, .key = dir, .hash = hash, .name_len = (uint8_t)len, .epoch = epoch };
	e->ino = ino;
	e->kernel_until = kernel_until;
	memcpy(e->name, name, len);
	return e;
}

/*
 * A name that is not here, of a directory that was whole when it was looked at: is it absent? Then it stands here as such, since
 * a break must know what the kernel was told. The name's shard is locked.
 */
static struct name_node *absent_of_whole(struct cfs_dcache *dc, struct shard *s, uint64_t dir, const char *name, size_t len,
					 uint32_t hash, uint64_t epoch, uint64_t whole)
{
	struct name_node *e;

	if (!whole || __atomic_load_n(lost_of(dc, dir), __ATOMIC_SEQ_CST) != whole - 1)
		return NULL;
	e = name_node_new(dir, name, len, hash, epoch, 0, 0);
	if (!e)
		return NULL;
	insert(dc, s, &e->n);
	cfs_accel_put_name(s->maps, dir, name, len, 0, epoch);
	s->whole_hits++;
	return e;
}

enum cfs_dcache_hit cfs_dcache_name(struct cfs_dcache *dc, uint64_t dir, const char *name, size_t len,
				    uint64_t kernel_until, uint64_t *ret_ino)
{
	uint32_t hash = key_hash(K_NAME, dir, name, len);
	struct shard *s = shard_of(dc, hash);
	enum cfs_dcache_hit hit = CFS_DC_MISS;
	uint64_t whole = 0, epoch = dir_epoch(dc, dir, kernel_until, &whole);
	uint64_t ino = 0;
	struct name_node *e;

	pthread_mutex_lock(&s->lock);
	e = epoch ? (struct name_node *)find(s, K_NAME, dir, name, len, hash) : NULL;
	if (!e && epoch)
		e = absent_of_whole(dc, s, dir, name, len, hash, epoch, whole);
	if (e && e->n.epoch == epoch) {
		ino = e->ino;
		hit = ino ? CFS_DC_PRESENT : CFS_DC_ABSENT;
		if (kernel_until > e->kernel_until)
			e->kernel_until = kernel_until;
		touch(s, &e->n);
	}
	if (hit == CFS_DC_PRESENT)
		s->hits++;
	else if (hit == CFS_DC_ABSENT)
		s->absent_hits++;
	else
		s->misses++;
	pthread_mutex_unlock(&s->lock);
	if (hit == CFS_DC_PRESENT && ret_ino)
		*ret_ino = ino;
	return hit;
}

bool cfs_dcache_attr(struct cfs_dcache *dc, uint64_t ino, struct cfs_attr *ret_attr)
{
	uint32_t hash = key_hash(K_ATTR, ino, NULL, 0);
	struct shard *s = shard_of(dc, hash);
	uint64_t epoch = 0;
	struct attr_node *a;
	struct cfs_attr attr;
	bool found = false;

	pthread_mutex_lock(&s->lock);
	a = (struct attr_node *)find(s, K_ATTR, ino, NULL, 0, hash);
	if (a) {
		attr = a->attr;
		epoch = a->n.epoch;
		touch(s, &a->n);
		found = true;
	}
	pthread_mutex_unlock(&s->lock);
	if (found && epoch)
		found = dir_epoch(dc, governor_of(&attr), 0, NULL) == epoch;
	if (found)
		*ret_attr = attr;
	return found;
}

bool cfs_dcache_put_name(struct cfs_dcache *dc, uint64_t dir, const char *name, size_t len, uint64_t ino,
			 uint64_t since, uint64_t kernel_until)
{
	uint32_t hash = key_hash(K_NAME, dir, name, len);
	struct shard *s = shard_of(dc, hash);
	struct name_node *e, *fresh;
	uint64_t epoch;
	bool ok;

	CFS_ASSERT(len <= CFS_NAME_MAX);
	epoch = dir_epoch_make(dc, dir, since, kernel_until);
	fresh = epoch ? name_node_new(dir, name, len, hash, epoch, ino, kernel_until) : NULL;
	if (!fresh)
		return false;
	pthread_mutex_lock(&s->lock);
	ok = !cfs_breaks_name(dc->breaks, since, dir, name, len);
	if (!ok) {
		s->refused++;
	} else {
		e = (struct name_node *)find(s, K_NAME, dir, name, len, hash);
		if (e) {
			e->n.epoch = epoch;
			e->ino = ino;
			if (kernel_until > e->kernel_until)
				e->kernel_until = kernel_until;
			touch(s, &e->n);
		} else {
			insert(dc, s, &fresh->n);
			fresh = NULL;
		}
		cfs_accel_put_name(s->maps, dir, name, len, ino, epoch);
	}
	pthread_mutex_unlock(&s->lock);
	free(fresh);
	return ok;
}

bool cfs_dcache_put_attr(struct cfs_dcache *dc, const struct cfs_attr *attr, uint64_t since)
{
	uint64_t ino = cfs_le64_to_cpu(attr->ino), governor = governor_of(attr), epoch = 0;
	uint32_t hash = key_hash(K_ATTR, ino, NULL, 0);
	struct shard *s = shard_of(dc, hash);
	struct attr_node *a, *fresh;
	bool ok;

	if (governor) {
		epoch = dir_epoch_make(dc, governor, since, 0);
		if (!epoch)
			return false;
	}
	fresh = malloc(sizeof(*fresh));
	if (!fresh)
		return false;
	fresh->n = (struct node){ .kind = K_ATTR, .key = ino, .hash = hash, .epoch = epoch };
	fresh->attr = *attr;
	pthread_mutex_lock(&s->lock);
	ok = !cfs_breaks_attr(dc->breaks, since, ino, governor ? governor : ino);
	if (!ok) {
		s->refused++;
	} else {
		a = (struct attr_node *)find(s, K_ATTR, ino, NULL, 0, hash);
		if (a) {
			a->n.epoch = epoch;
			a->attr = *attr;
			cfs_list_del(&a->n.under);
			link_under(s, &a->n);
			touch(s, &a->n);
		} else {
			insert(dc, s, &fresh->n);
			fresh = NULL;
		}
		cfs_accel_put_attr(s->maps, attr, epoch);
	}
	pthread_mutex_unlock(&s->lock);
	free(fresh);
	return ok;
}

/* kernel_until of a directory that is not (or no longer) kept is not known */
static uint64_t dir_kernel_until(struct cfs_dcache *dc, uint64_t dir, bool drop)
{
	uint32_t hash = key_hash(K_DIR, dir, NULL, 0);
	struct shard *s = shard_of(dc, hash);
	uint64_t until = UINT64_MAX;
	struct dir_node *d;

	pthread_mutex_lock(&s->lock);
	d = (struct dir_node *)find(s, K_DIR, dir, NULL, 0, hash);
	if (d) {
		until = d->kernel_until;
		if (drop)
			unlink_node(s, &d->n);
	}
	if (drop)
		cfs_accel_drop_dir(s->maps, dir);
	pthread_mutex_unlock(&s->lock);
	if (drop)
		free(d);
	return until;
}

uint64_t cfs_dcache_drop_name(struct cfs_dcache *dc, uint64_t dir, const char *name, size_t len)
{
	uint32_t hash = key_hash(K_NAME, dir, name, len);
	struct shard *s = shard_of(dc, hash);
	struct name_node *e;
	uint64_t until = 0;

	pthread_mutex_lock(&s->lock);
	lose_name(dc, dir);
	e = (struct name_node *)find(s, K_NAME, dir, name, len, hash);
	if (e) {
		until = e->kernel_until;
		unlink_node(s, &e->n);
	}
	cfs_accel_drop_name(s->maps, dir, name, len);
	pthread_mutex_unlock(&s->lock);
	if (!e)
		until = dir_kernel_until(dc, dir, false); /* it may have been evicted */
	free(e);
	return until;
}

void cfs_dcache_drop_attr(struct cfs_dcache *dc, uint64_t ino)
{
	uint32_t hash = key_hash(K_ATTR, ino, NULL, 0);
	struct shard *s = shard_of(dc, hash);
	struct node *n;

	pthread_mutex_lock(&s->lock);
	n = find(s, K_ATTR, ino, NULL, 0, hash);
	if (n)
		unlink_node(s, n);
	cfs_accel_drop_attr(s->maps, ino);
	pthread_mutex_unlock(&s->lock);
	free(n);
}

uint64_t cfs_dcache_drop_dir(struct cfs_dcache *dc, uint64_t dir)
{
	return dir_kernel_until(dc, dir, true);
}

void cfs_dcache_drop_all(struct cfs_dcache *dc)
{
	/* first and at once; what is put while the shards are emptied has a later epoch, or does not count */
	pthread_mutex_lock(&dc->shards[0].lock);
	cfs_accel_drop_all(dc->shards[0].maps, __atomic_load_n(&dc->next_epoch, __ATOMIC_SEQ_CST));
	pthread_mutex_unlock(&dc->shards[0].lock);
	/* who has seen a whole directory, and does not find its name any more, must not take it for absent */
	for (unsigned i = 0; i < LOST; i++)
		__atomic_add_fetch(&dc->lost[i], 1, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < SHARDS; i++) {
		pthread_mutex_lock(&dc->shards[i].lock);
		empty_shard(&dc->shards[i]);
		pthread_mutex_unlock(&dc->shards[i].lock);
	}
	pthread_mutex_lock(&dc->evicted_lock);
	dc->n_evicted = 0;
	pthread_mutex_unlock(&dc->evicted_lock);
}

/* ---- walks ---------------------------------------------------------------------------------- */
#define WALK_CHUNK	32u	/* nodes that are told without the lock before it is taken again */

struct walk {
	enum kind kind;
	uint64_t dir;			/* what stands under it; 0: everything */
	uint64_t past, now;		/* of dir: the latest epoch when the walk began, and the one that counts then */
	cfs_dcache_walk_fn fn;
	void *arg;
};

/* a copy of a node, so that the walk calls out without the lock */
struct found {
	uint64_t key, kernel_until, epoch;
	uint32_t hash;
	uint8_t name_len;
	bool dead;
	char name[CFS_NAME_MAX];
};

static bool walk_wants(const struct walk *w, const struct node *n)
{
	if (n->kind != w->kind || (w->dir && stands_under(n) != w->dir))
		return false;
	return n->kind != K_NAME || ((const struct name_node *)n)->kernel_until;
}

static void found_set(struct found *f, const struct walk *w, const struct node *n)
{
	*f = (struct found){ .key = n->key, .epoch = n->epoch, .hash = n->hash, .name_len = n->name_len };
	f->dead = w->dir && n->epoch != w->now && n->epoch <= w->past;
	if (n->kind == K_NAME) {
		f->kernel_until = ((const struct name_node *)n)->kernel_until;
		memcpy(f->name, ((const struct name_node *)n)->name, n->name_len);
	}
}

/* what counted under an earlier lease was told now, and nobody has to hear of it again; the shard is locked */
static void found_forget(struct cfs_dcache *dc, struct shard *s, enum kind kind, const struct found *f)
{
	struct node *n = f->dead ? find(s, kind, f->key, f->name, f->name_len, f->hash) : NULL;

	if (!n || n->epoch != f->epoch)
		return;
	if (kind == K_NAME && ((struct name_node *)n)->ino)
		lose_name(dc, n->key);
	unlink_node(s, n);
	free(n);
}

/* a mark in the list is where the walk stands while it tells: nodes come, before it, and go meanwhile */
static void walk_list(struct cfs_dcache *dc, struct shard *s, struct cfs_list *list, const struct walk *w)
{
	struct node mark = { .kind = K_MARK };
	struct found found[WALK_CHUNK];
	unsigned n;

	pthread_mutex_lock(&s->lock);
	cfs_list_add_head(list, &mark.under);
	do {
		for (n = 0; n < WALK_CHUNK && mark.under.next != list;) {
			struct node *next = cfs_list_entry(mark.under.next, struct node, under);

			cfs_list_del(&mark.under);
			cfs_list_add_head(&next->under, &mark.under);
			if (walk_wants(w, next))
				found_set(&found[n++], w, next);
		}
		if (!n)
			break;
		pthread_mutex_unlock(&s->lock);
		for (unsigned i = 0; i < n; i++)
			w->fn(w->arg, w->kind == K_NAME ? found[i].name : NULL, found[i].name_len, found[i].key,
			      found[i].kernel_until);
		pthread_mutex_lock(&s->lock);
		for (unsigned i = 0; i < n; i++)
			found_forget(dc, s, w->kind, &found[i]);
	} while (n == WALK_CHUNK);
	cfs_list_del(&mark.under);
	pthread_mutex_unlock(&s->lock);
}

static void walk(struct cfs_dcache *dc, const struct walk *w)
{
	for (unsigned i = 0; i < SHARDS; i++) {
		struct shard *s = &dc->shards[i];

		for (unsigned k = 0; k < (w->dir ? 1 : UNDER); k++)
			walk_list(dc, s, w->dir ? under_of(s, w->kind, w->dir) : &s->under[w->kind][k], w);
	}
}

void cfs_dcache_walk_dir(struct cfs_dcache *dc, uint64_t dir, bool names, cfs_dcache_walk_fn fn, void *arg)
{
	struct walk w = { .kind = K_NAME, .dir = dir, .fn = fn, .arg = arg };

	w.past = __atomic_load_n(&dc->next_epoch, __ATOMIC_SEQ_CST);
	w.now = dir ? dir_epoch(dc, dir, 0, NULL) : 0;
	if (names)
		walk(dc, &w);
	w.kind = K_ATTR;
	walk(dc, &w);
}

struct walk_inos {
	void (*fn)(void *arg, uint64_t ino);
	void *arg;
};

static void walk_ino(void *arg, const char *name, size_t len, uint64_t ino, uint64_t kernel_until)
{
	struct walk_inos *w = arg;

	(void)name, (void)len, (void)kernel_until;
	w->fn(w->arg, ino);
}

static void walk_kind(struct cfs_dcache *dc, enum kind kind, void (*fn)(void *arg, uint64_t ino), void *arg)
{
	struct walk_inos inos = { fn, arg };
	struct walk w = { .kind = kind, .fn = walk_ino, .arg = &inos };

	walk(dc, &w);
}

void cfs_dcache_walk_attrs(struct cfs_dcache *dc, void (*fn)(void *arg, uint64_t ino), void *arg)
{
	walk_kind(dc, K_ATTR, fn, arg);
}

void cfs_dcache_walk_dirs(struct cfs_dcache *dc, void (*fn)(void *arg, uint64_t dir), void *arg)
{
	walk_kind(dc, K_DIR, fn, arg);
}

void cfs_dcache_names_of(struct cfs_dcache *dc, const uint64_t *inos, unsigned n, cfs_dcache_named_fn fn, void *arg)
{
	for (unsigned i = 0; i < SHARDS; i++) {
		struct cfs_list *pos;

		pthread_mutex_lock(&dc->shards[i].lock);
		cfs_list_for_each(pos, &dc->shards[i].lru) {
			struct node *m = cfs_list_entry(pos, struct node, lru);

			for (unsigned k = 0; k < n && m->kind == K_NAME; k++)
				if (inos[k] && ((struct name_node *)m)->ino == inos[k])
					fn(arg, k, m->key, ((struct name_node *)m)->name, m->name_len);
		}
		pthread_mutex_unlock(&dc->shards[i].lock);
	}
}

/* until when the kernel may keep what a program told it of a directory */
static uint64_t gate_until(const struct cfs_dcache *dc, uint64_t dir)
{
	uint64_t h = cfs_bpf_hash(dir) % CFS_BPF_BUSY;

	if (!dc->gate)
		return 0;
	return cfs_max(__atomic_load_n(&dc->gate->name_until[h], __ATOMIC_SEQ_CST),
		       __atomic_load_n(&dc->gate->home_until[h], __ATOMIC_SEQ_CST));
}

unsigned cfs_dcache_evicted_dirs(struct cfs_dcache *dc, uint64_t now_ns, uint64_t *ret_dirs, unsigned max)
{
	unsigned n = 0, kept = 0, gone = 0;

	pthread_mutex_lock(&dc->evicted_lock);
	for (unsigned i = 0; i < dc->n_evicted; i++) {
		struct evicted *e = &dc->evicted[i];

		if (n < max && cfs_max(e->kernel_until, gate_until(dc, e->dir)) < now_ns)
			ret_dirs[n++] = e->dir;
		else
			dc->evicted[kept++] = *e;
	}
	dc->n_evicted = kept;
	pthread_mutex_unlock(&dc->evicted_lock);
	for (unsigned i = 0; i < n; i++) /* without those that have come back meanwhile */
		if (!dir_epoch(dc, ret_dirs[i], 0, NULL))
			ret_dirs[gone++] = ret_dirs[i];
	return gone;
}

void cfs_dcache_stat(struct cfs_dcache *dc, struct cfs_dcache_stat *ret)
{
	*ret = (struct cfs_dcache_stat){ 0 };
	for (unsigned i = 0; i < SHARDS; i++) {
		struct shard *s = &dc->shards[i];

		pthread_mutex_lock(&s->lock);
		ret->dirs += s->kinds[K_DIR];
		ret->names += s->kinds[K_NAME];
		ret->attrs += s->kinds[K_ATTR];
		ret->hits += s->hits;
		ret->misses += s->misses;
		ret->absent_hits += s->absent_hits;
		ret->whole_hits += s->whole_hits;
		ret->evictions += s->evictions;
		ret->refused += s->refused;
		pthread_mutex_unlock(&s->lock);
	}
}
