/* SPDX-License-Identifier: MIT */
/*
 * dcache.h - names (present and absent) and attributes that this client may keep under its leases.
 *
 * It answers the kernel when the kernel's own timeout ran out under a renewed lease, and it remembers
 * until when the kernel was told that it may keep a name, so that a break knows what to invalidate. An
 * entry is only ever inserted with the generation of the request that brought it (leasecheck.h), so what a break
 * touched meanwhile does not get in. Names and attributes stand under the epoch of their directory: ending a
 * directory's lease is one change. Whether the session's deadline is still ahead is the caller's business.
 *
 * Thread-safe; sharded by hash, a mutex per shard, held for no longer than a look-up. Bounded: each shard
 * drops its least recently used entry when full.
 */
#ifndef CFS_CLIENT_DCACHE_H
#define CFS_CLIENT_DCACHE_H

#include "client/leasecheck.h"

struct cfs_accel_maps;
struct cfs_bpf_gate;
struct cfs_dcache;

/** cfs_dcache_create() - @max_entries: names, attributes and directories together. 0 or -ENOMEM */
int cfs_dcache_create(size_t max_entries, const struct cfs_breaks *breaks, struct cfs_dcache **ret_dc);
void cfs_dcache_destroy(struct cfs_dcache *dc);
/* what is here, and every change from now on, stands in the maps of accel.h, too; they live longer than this */
void cfs_dcache_mirror(struct cfs_dcache *dc, struct cfs_accel_maps *maps);
/*
 * a directory that is asked for stands in those maps as well: they are smaller, and may have dropped it to make room, which took
 * all below it from who answers from them
 */
void cfs_dcache_mirror_dir(struct cfs_dcache *dc, uint64_t dir);
/*
 * The same for a name, or attributes, that were found here: who answers from those maps was asked first, and did not know. Nothing is
 * done where a change of our own is under way, which is why he was silent
 */
void cfs_dcache_mirror_name(struct cfs_dcache *dc, uint64_t dir, const char *name, size_t len);
void cfs_dcache_mirror_attr(struct cfs_dcache *dc, uint64_t ino);
/* a program that answers from those maps notes here until when the kernel may keep what it said; before any other call */
void cfs_dcache_gate(struct cfs_dcache *dc, const struct cfs_bpf_gate *gate);

enum cfs_dcache_hit { CFS_DC_MISS = 0, CFS_DC_PRESENT, CFS_DC_ABSENT };
/**
 * cfs_dcache_name() - look a name up.
 * @kernel_until: boot time until which the kernel will keep the answer (0: it is not told)
 * @ret_ino: with CFS_DC_PRESENT
 */
enum cfs_dcache_hit cfs_dcache_name(struct cfs_dcache *dc, uint64_t dir, const char *name, size_t len,
				    uint64_t kernel_until, uint64_t *ret_ino);
/* of the lease on a directory; no two have had the same. 0: it is not held */
uint64_t cfs_dcache_dir_epoch(struct cfs_dcache *dc, uint64_t dir);
/* attributes of ino, if kept */
bool cfs_dcache_attr(struct cfs_dcache *dc, uint64_t ino, struct cfs_attr *ret_attr);

/*
 * A directory is *whole* while every name in it stands here: then a name that does not is absent, and nobody need be asked.
 * It ends when any of its names is dropped, or falls out of the cache.
 */

/** cfs_dcache_whole_begin() - before the first request of a listing. Return: for cfs_dcache_put_whole() */
uint64_t cfs_dcache_whole_begin(const struct cfs_dcache *dc, uint64_t dir);
/**
 * cfs_dcache_put_whole() - all names of dir have been put; of a directory that was just made there are none.
 * @since: call.break_gen of the first request of the listing, or of the one that made it
 * @begun: cfs_dcache_whole_begin() before that request; of a directory just made, when its reply is here
 * Return: false when its lease is not held, or a name of it was touched meanwhile.
 */
bool cfs_dcache_put_whole(struct cfs_dcache *dc, uint64_t dir, uint64_t since, uint64_t begun);

/* ino 0: absent. `since`: call.break_gen. false: touched meanwhile, not kept */
bool cfs_dcache_put_name(struct cfs_dcache *dc, uint64_t dir, const char *name, size_t len, uint64_t ino,
			 uint64_t since, uint64_t kernel_until);
bool cfs_dcache_put_attr(struct cfs_dcache *dc, const struct cfs_attr *attr, uint64_t since);

/**
 * cfs_dcache_drop_name() - forget it.
 * Return: until when the kernel may keep the name, as far as is known; UINT64_MAX when it is not known.
 */
uint64_t cfs_dcache_drop_name(struct cfs_dcache *dc, uint64_t dir, const char *name, size_t len);
void cfs_dcache_drop_attr(struct cfs_dcache *dc, uint64_t ino);
/**
 * cfs_dcache_drop_dir() - the directory's lease has ended: forget all names and attributes under it.
 * Return: as cfs_dcache_drop_name(), the latest of its names.
 */
uint64_t cfs_dcache_drop_dir(struct cfs_dcache *dc, uint64_t dir);
void cfs_dcache_drop_all(struct cfs_dcache *dc);

/**
 * cfs_dcache_walk_dir() - tell everything that stands under a directory, or stood there until its lease ended: that is told
 * once, and forgotten afterwards.
 * @dir: 0: all directories, and nothing is forgotten
 * @names: names, too, of those that the kernel may keep; false: they are neither told nor forgotten
 * @fn: called without any lock held. name NULL: the attributes of ino; else a name in directory ino that the kernel may keep
 *	until kernel_until
 */
typedef void (*cfs_dcache_walk_fn)(void *arg, const char *name, size_t len, uint64_t ino, uint64_t kernel_until);
void cfs_dcache_walk_dir(struct cfs_dcache *dc, uint64_t dir, bool names, cfs_dcache_walk_fn fn, void *arg);
/* all inodes with attributes kept */
void cfs_dcache_walk_attrs(struct cfs_dcache *dc, void (*fn)(void *arg, uint64_t ino), void *arg);
/* all directories under a lease, for RECLAIM */
void cfs_dcache_walk_dirs(struct cfs_dcache *dc, void (*fn)(void *arg, uint64_t dir), void *arg);
/*
 * For people: names that inodes have, or had a moment ago; `which` is the index in inos (zeros are passed over). Looks at the whole
 * cache; fn is called under a lock.
 */
typedef void (*cfs_dcache_named_fn)(void *arg, unsigned which, uint64_t dir, const char *name, size_t len);
void cfs_dcache_names_of(struct cfs_dcache *dc, const uint64_t *inos, unsigned n, cfs_dcache_named_fn fn, void *arg);
/*
 * Directories that fell out of the cache since the last call and whose names the kernel can no longer hold
 * at now_ns: their leases may be returned. At most max; returns how many.
 */
unsigned cfs_dcache_evicted_dirs(struct cfs_dcache *dc, uint64_t now_ns, uint64_t *ret_dirs, unsigned max);

struct cfs_dcache_stat {
	uint64_t names, attrs, dirs, hits, misses, absent_hits, evictions, refused;
	uint64_t whole_hits;		/* of absent_hits: names that nobody had asked for before */
};
void cfs_dcache_stat(struct cfs_dcache *dc, struct cfs_dcache_stat *ret);

#endif
