/* SPDX-License-Identifier: MIT */
/* sparse.c - see sparse.h. One byte a block. */
#include "sim/sparse.h"

#include <errno.h>
#include <stdlib.h>

#include "base/base.h"

struct cfs_sparse {
	uint64_t blocks, room, others, taken;	/* blocks */
	uint8_t has[];
};

struct cfs_sparse *cfs_sparse_create(uint64_t size_bytes, uint64_t room)
{
	uint64_t blocks = (size_bytes + CFS_SPARSE_BLOCK - 1) / CFS_SPARSE_BLOCK;
	struct cfs_sparse *sp = calloc(1, sizeof(*sp) + blocks);

	CFS_ASSERT(sp);
	sp->blocks = blocks;
	sp->room = room / CFS_SPARSE_BLOCK;
	return sp;
}

void cfs_sparse_destroy(struct cfs_sparse *sp)
{
	free(sp);
}

void cfs_sparse_others(struct cfs_sparse *sp, uint64_t bytes)
{
	sp->others = bytes / CFS_SPARSE_BLOCK;
}

static uint64_t left(const struct cfs_sparse *sp)
{
	uint64_t gone = sp->taken + cfs_min(sp->others, sp->room);

	return gone < sp->room ? sp->room - gone : 0;
}

int cfs_sparse_take(struct cfs_sparse *sp, uint64_t offset, uint64_t len)
{
	for (uint64_t i = offset / CFS_SPARSE_BLOCK; i * CFS_SPARSE_BLOCK < offset + len; i++) {
		if (sp->has[i])
			continue;
		if (!left(sp))
			return -ENOSPC;
		sp->has[i] = 1;
		sp->taken++;
	}
	return 0;
}

void cfs_sparse_give(struct cfs_sparse *sp, uint64_t offset, uint64_t len)
{
	uint64_t end = (offset + len) / CFS_SPARSE_BLOCK;

	for (uint64_t i = (offset + CFS_SPARSE_BLOCK - 1) / CFS_SPARSE_BLOCK; i < end; i++) {
		sp->taken -= sp->has[i];
		sp->has[i] = 0;
	}
}

bool cfs_sparse_has(const struct cfs_sparse *sp, uint64_t offset, uint64_t len)
{
	for (uint64_t i = offset / CFS_SPARSE_BLOCK; i * CFS_SPARSE_BLOCK < offset + len; i++)
		if (!sp->has[i])
			return false;
	return true;
}

void cfs_sparse_room(const struct cfs_sparse *sp, struct cfs_dev_room *ret_room)
{
	*ret_room = (struct cfs_dev_room){
		.missing = (sp->blocks - sp->taken) * CFS_SPARSE_BLOCK,
		.free = left(sp) * CFS_SPARSE_BLOCK,
		.below = 1,
	};
}
