/* SPDX-License-Identifier: MIT */
/* fuse_fh.h - open files as a whole: those that are left when the kernel ended the connection, those that another process opened. */
#ifndef CFS_CLIENT_FUSE_FH_H
#define CFS_CLIENT_FUSE_FH_H

#include <stdint.h>

struct cfs_client;

/* no worker runs any more: close what is open */
void cfs_fh_drop_all(struct cfs_client *c);
/* as they stand in c->persist; no worker runs yet, nor the session. 0 or -errno */
int cfs_fh_restore_all(struct cfs_client *c);
/* the kernel sends this OPEN or CREATE again: it does not have what was opened for it before */
void cfs_fh_refused(struct cfs_client *c, uint64_t unique);
/* the last mapping of a file that is passed through is gone: so are those open files that were released before */
void cfs_fh_unmapped(struct cfs_client *c, uint64_t ino);

#endif
