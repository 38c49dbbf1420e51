/* SPDX-License-Identifier: MIT */
/*
 * prefetch.h - whole directories for the bpf tier: when names of one directory are asked for again and again, or it is
 * opened, all its names and attributes are fetched (READDIR_PLUS) and kept, so that the kernel gets answers about names that
 * were never looked up before. On job threads, a few at once; only while the maps of accel.h are filled.
 */
#ifndef CFS_CLIENT_PREFETCH_H
#define CFS_CLIENT_PREFETCH_H

#include <stdbool.h>
#include <stdint.h>

struct cfs_client;
struct cfs_prefetch;

int cfs_prefetch_create(struct cfs_client *c, uint32_t entries_max, struct cfs_prefetch **ret_p);
/* no job runs any more */
void cfs_prefetch_destroy(struct cfs_prefetch *p);
/* a name in `dir` was not known; or (opened) the directory was opened. From any thread; NULL: nothing happens */
void cfs_prefetch_want(struct cfs_prefetch *p, uint64_t dir, bool opened);

#endif
