/* SPDX-License-Identifier: MIT */
/*
 * fuse_statx.h - FUSE_STATX (protocol 7.39, Linux 6.6), for headers that are older. Layout from the kernel's
 * include/uapi/linux/fuse.h; under names of our own, so that it can stand beside newer headers.
 */
#ifndef UAPI_FUSE_STATX_H
#define UAPI_FUSE_STATX_H

#include <stddef.h>
#include <stdint.h>

#define CFS_FUSE_STATX	52u

struct cfs_fuse_sx_time {
	int64_t tv_sec;
	uint32_t tv_nsec;
	int32_t reserved;
};

struct cfs_fuse_statx {
	uint32_t mask;
	uint32_t blksize;
	uint64_t attributes;
	uint32_t nlink;
	uint32_t uid;
	uint32_t gid;
	uint16_t mode;
	uint16_t spare0[1];
	uint64_t ino;
	uint64_t size;
	uint64_t blocks;
	uint64_t attributes_mask;
	struct cfs_fuse_sx_time atime;
	struct cfs_fuse_sx_time btime;
	struct cfs_fuse_sx_time ctime;
	struct cfs_fuse_sx_time mtime;
	uint32_t rdev_major;
	uint32_t rdev_minor;
	uint32_t dev_major;
	uint32_t dev_minor;
	uint64_t spare2[14];
};
_Static_assert(sizeof(struct cfs_fuse_statx) == 256, "cfs_fuse_statx");

struct cfs_fuse_statx_out {
	uint64_t attr_valid;
	uint32_t attr_valid_nsec;
	uint32_t flags;
	uint64_t spare[2];
	struct cfs_fuse_statx stat;
};
_Static_assert(sizeof(struct cfs_fuse_statx_out) == 288, "cfs_fuse_statx_out");
_Static_assert(offsetof(struct cfs_fuse_statx_out, stat.rdev_major) == 160, "cfs_fuse_statx_out");

#endif
