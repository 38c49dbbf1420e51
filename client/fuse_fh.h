/* SPDX-License-Identifier: MIT */
/* fuse_fh.h - open files that are left when the kernel ended the connection without releasing them. */
#ifndef CFS_CLIENT_FUSE_FH_H
#define CFS_CLIENT_FUSE_FH_H

struct cfs_client;

/* no worker runs any more: close what is open */
void cfs_fh_drop_all(struct cfs_client *c);

#endif
