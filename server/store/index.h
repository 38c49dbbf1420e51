/* SPDX-License-Identifier: MIT */
/*
 * index.h - where each object of a store lies. In memory, 24 bytes an entry, ordered by a 63-bit
 * hash of the oid, so that a cursor stays good while the index changes and grows. One thread.
 */
#ifndef CFS_SERVER_STORE_INDEX_H
#define CFS_SERVER_STORE_INDEX_H

#include <claudefs/types.h>
#include "base/base.h"

struct cfs_loc {
	uint32_t seg;		/* < 2^(41 - block_bits), 2^24 at most */
	uint32_t block;		/* of the record in the segment, 1 .. 2^block_bits - 1 */
	uint32_t len;		/* bytes of the object, < 2^23 */
};

struct cfs_index;

/** cfs_index_create() - @block_bits: segments hold at most 2^block_bits blocks; with their number 41 bits at most */
int cfs_index_create(unsigned block_bits, struct cfs_index **ret_index);
void cfs_index_destroy(struct cfs_index *ix);
bool cfs_index_get(const struct cfs_index *ix, const struct cfs_oid *oid, struct cfs_loc *ret_loc);
/** cfs_index_put() - insert or replace. 0 or -ENOMEM (nothing changed) */
int cfs_index_put(struct cfs_index *ix, const struct cfs_oid *oid, const struct cfs_loc *loc);
bool cfs_index_del(struct cfs_index *ix, const struct cfs_oid *oid);
/* up to max objects from *cursor (0: start) on; 0 at the end */
int cfs_index_list(const struct cfs_index *ix, uint64_t *cursor, struct cfs_oid *oids,
		   uint32_t *lens, uint32_t max);
uint64_t cfs_index_count(const struct cfs_index *ix);
/* of memory, allocator's overhead included */
uint64_t cfs_index_bytes(const struct cfs_index *ix);

#endif
