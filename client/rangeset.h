/* SPDX-License-Identifier: MIT */
/*
 * rangeset.h - a set of byte ranges [off, end): sorted, disjoint, never touching. Not thread-safe: the owner
 * locks. The owner also bounds the number of ranges (n). A set that cannot grow ends the process: not knowing
 * which bytes are dirty is worse.
 */
#ifndef CFS_CLIENT_RANGESET_H
#define CFS_CLIENT_RANGESET_H

#include "base/base.h"

struct cfs_range {
	uint64_t off, end;
};

/* zero-initialised: empty */
struct cfs_rangeset {
	struct cfs_range *v;
	uint32_t n, cap;
	uint64_t bytes;		/* sum of the lengths */
};

void cfs_rangeset_add(struct cfs_rangeset *rs, uint64_t off, uint64_t end);
void cfs_rangeset_del(struct cfs_rangeset *rs, uint64_t off, uint64_t end);
/* all of src, none of src */
void cfs_rangeset_add_set(struct cfs_rangeset *rs, const struct cfs_rangeset *src);
void cfs_rangeset_del_set(struct cfs_rangeset *rs, const struct cfs_rangeset *src);
bool cfs_rangeset_covers(const struct cfs_rangeset *rs, uint64_t off, uint64_t end);
/* the first range that ends after pos (it may begin before pos); false: none */
bool cfs_rangeset_next(const struct cfs_rangeset *rs, uint64_t pos, struct cfs_range *ret);
/* dst, which must be empty, takes everything */
void cfs_rangeset_move(struct cfs_rangeset *dst, struct cfs_rangeset *src);
void cfs_rangeset_clear(struct cfs_rangeset *rs);	/* frees too */

#endif
