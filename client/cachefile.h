/* SPDX-License-Identifier: MIT */
/*
 * cachefile.h - where the bytes of cached files are: small ones in memory, others in sparse files
 * cachedir/<ino in 16 hex digits>, opened when needed. Which bytes mean something is known to the owner only.
 *
 * A struct cfs_cachefile belongs to one inode. Its owner serialises all calls on it by the inode's lock, except
 * cfs_cachefile_pread() after cfs_cachefile_pin(), which needs no lock. The store (directory, open descriptors,
 * counters) is thread-safe. Bounds: descriptors (least recently used are closed), bytes in memory.
 */
#ifndef CFS_CLIENT_CACHEFILE_H
#define CFS_CLIENT_CACHEFILE_H

#include "base/list.h"

#include <pthread.h>

#define CFS_CACHE_MEM_MAX	65536u	/* bytes of one file in memory; beyond, it gets a file */
#define CFS_CACHE_FDS_MAX	1024u
/*
 * Host file systems end at 16 TiB or so, our files do not: bytes from CFS_CACHE_FAR on are kept in slots behind it, one for each
 * CFS_CACHE_FAR_CHUNK of the file that has any. More than CFS_CACHE_FAR_SLOTS of them: -EFBIG.
 */
#define CFS_CACHE_FAR		(8ull << 40)
#define CFS_CACHE_FAR_CHUNK	(1ull << 30)
#define CFS_CACHE_FAR_SLOTS	4096u

struct cfs_cachestore {
	int dirfd;
	pthread_mutex_t lock;		/* lru, n_open; pins and fd of every cache file */
	struct cfs_list lru;		/* open ones, least recently used first */
	unsigned n_open, max_open;
	uint64_t mem_bytes;		/* atomic */
	uint64_t mem_limit;
};

struct cfs_cachefile {
	uint64_t ino;
	unsigned char *mem;		/* or */
	uint32_t mem_cap;
	bool on_disk;			/* a file exists */
	bool kept;			/* and stays this one: cfs_cachefile_keep() */
	int fd;				/* -1: not open */
	unsigned pins;
	uint64_t *far;			/* chunk numbers, by slot; NULL: none */
	uint32_t n_far;			/* atomic: readers have no lock */
	struct cfs_list link;
};

/*
 * @dir: created 0700 if absent; files named like ours are removed. 0 or -errno; -EBUSY: used by another process.
 * @fd: of dir, and locked already by who opened it; taken over. -1: none
 */
int cfs_cachestore_open(struct cfs_cachestore *s, const char *dir, int fd, uint64_t mem_limit, unsigned max_open);
void cfs_cachestore_close(struct cfs_cachestore *s);	/* no cache file is left */

void cfs_cachefile_init(struct cfs_cachefile *cf, uint64_t ino);
/* no content any more; removes the file. Not while pinned */
void cfs_cachefile_drop(struct cfs_cachestore *s, struct cfs_cachefile *cf);
int cfs_cachefile_write(struct cfs_cachestore *s, struct cfs_cachefile *cf, const void *buf, uint64_t len, uint64_t off);
/* bytes never written read as zeros. Under the lock of the owner */
int cfs_cachefile_read(struct cfs_cachestore *s, struct cfs_cachefile *cf, void *buf, uint64_t len, uint64_t off);
/* give the space of [off, off+len) back; its bytes are anything afterwards. Not while pinned */
void cfs_cachefile_punch(struct cfs_cachestore *s, struct cfs_cachefile *cf, uint64_t off, uint64_t len);

/*
 * Somebody beside us has the file, by its descriptor cf->fd: from now on it exists, is open, and stays this one, even without content,
 * until cfs_cachefile_let_go(). 0 or -errno
 */
int cfs_cachefile_keep(struct cfs_cachestore *s, struct cfs_cachefile *cf);
void cfs_cachefile_let_go(struct cfs_cachestore *s, struct cfs_cachefile *cf);
/* a kept one ends at `size` <= CFS_CACHE_FAR; what it grows by reads as zeros. 0 or -errno */
int cfs_cachefile_resize(struct cfs_cachefile *cf, uint64_t size);

/* 0: it is in a file, whose descriptor stays open until unpin; -EAGAIN: it is in memory; or -errno */
int cfs_cachefile_pin(struct cfs_cachestore *s, struct cfs_cachefile *cf);
void cfs_cachefile_unpin(struct cfs_cachestore *s, struct cfs_cachefile *cf);
int cfs_cachefile_pread(struct cfs_cachefile *cf, void *buf, uint64_t len, uint64_t off);

#endif
