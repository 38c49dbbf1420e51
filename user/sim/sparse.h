/* SPDX-License-Identifier: MIT */
/*
 * sparse.h - the model of a sparse file in a file system with little room, for the fake devices of tests. As ext4 and
 * XFS do it: what has been reserved or written once is overwritten in place, and never finds the file system full.
 */
#ifndef CFS_SIM_SPARSE_H
#define CFS_SIM_SPARSE_H

#include <stdint.h>
#include <stdbool.h>

#include "dev/dev.h"

#define CFS_SPARSE_BLOCK 4096u

struct cfs_sparse;

/* `room`: bytes the file may take in all, less what cfs_sparse_others() says. Ends the program when memory does */
struct cfs_sparse *cfs_sparse_create(uint64_t size_bytes, uint64_t room);
void cfs_sparse_destroy(struct cfs_sparse *sp);
/* bytes that others have taken of the room: more than there are left is all of them */
void cfs_sparse_others(struct cfs_sparse *sp, uint64_t bytes);
/* room for a range, as RESERVE and a write find it: 0, or -ENOSPC, and then some of it has been found */
int cfs_sparse_take(struct cfs_sparse *sp, uint64_t offset, uint64_t len);
/* whole blocks of the range are given back */
void cfs_sparse_give(struct cfs_sparse *sp, uint64_t offset, uint64_t len);
bool cfs_sparse_has(const struct cfs_sparse *sp, uint64_t offset, uint64_t len);
void cfs_sparse_room(const struct cfs_sparse *sp, struct cfs_dev_room *ret_room);

#endif
