/* SPDX-License-Identifier: MIT */
/* fuse_ops.h - the operations of the mount, for libfuse's low-level interface. userdata is the struct cfs_client. */
#ifndef CFS_CLIENT_FUSE_OPS_H
#define CFS_CLIENT_FUSE_OPS_H

struct fuse_lowlevel_ops;

extern const struct fuse_lowlevel_ops cfs_fuse_ops;

#endif
