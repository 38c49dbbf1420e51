/* SPDX-License-Identifier: MIT */
/*
 * extcache.h - what a client knows of one file's extents at the server: a sorted list and the ranges of the
 * file in which it is complete. Not thread-safe: the inode's lock. Bounded by CFS_EXTCACHE_MAX extents:
 * what does not fit is forgotten and asked for again.
 */
#ifndef CFS_CLIENT_EXTCACHE_H
#define CFS_CLIENT_EXTCACHE_H

#include "client/rangeset.h"

#include <claudefs/types.h>

#define CFS_EXTCACHE_MAX 8192u

struct cfs_ext {
	uint64_t off, end;	/* in the file */
	struct cfs_oid oid;	/* as on the wire */
	uint32_t obj_off, obj_len;
	uint32_t flags;		/* CFS_EXT_* */
};

/* zero-initialised: nothing known */
struct cfs_extcache {
	struct cfs_ext *v;
	uint32_t n, cap;
	struct cfs_rangeset known;
};

/*
 * The server says: in [off, end) there are exactly these. 0; -EPROTO: they are not sorted, overlap, or
 * lie outside of their objects or of [0, 2^63); then nothing is changed; -ENOMEM: all is forgotten.
 */
int cfs_extcache_put(struct cfs_extcache *x, uint64_t off, uint64_t end, const struct cfs_extent *e, unsigned n);
/* [off, end) is now nobody knows what */
void cfs_extcache_forget(struct cfs_extcache *x, uint64_t off, uint64_t end);
/* [off, end) is a hole */
void cfs_extcache_hole(struct cfs_extcache *x, uint64_t off, uint64_t end);
void cfs_extcache_clear(struct cfs_extcache *x);

enum cfs_ext_kind { CFS_EXT_UNKNOWN, CFS_EXT_HOLE, CFS_EXT_DATA };
/*
 * What is at pos, up to where (ret_end > pos)? HOLE: reads as zeros (UNWRITTEN too). DATA: *ret_ext is the
 * whole extent.
 */
enum cfs_ext_kind cfs_extcache_at(const struct cfs_extcache *x, uint64_t pos, uint64_t *ret_end,
				  struct cfs_ext *ret_ext);

#endif
