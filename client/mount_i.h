/* SPDX-License-Identifier: MIT */
/*
 * mount_i.h - private to mount.c, the life of a mount in one process, and mount_main.c, the processes around it.
 */
#ifndef CFS_CLIENT_MOUNT_I_H
#define CFS_CLIENT_MOUNT_I_H

#include "client/mount.h"

struct cfs_persist;

/*
 * Mount, serve until the unmount, tear down. report: where the parent waits for a word, or -1 in the foreground;
 * persist: NULL, or given away. Returns the exit status; what went wrong has been said.
 */
int cfs_mount_run(const struct cfs_mount_opts *o, int report, struct cfs_persist *persist);

#endif
