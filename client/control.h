/* SPDX-License-Identifier: MIT */
/*
 * control.h - a UNIX socket through which the mount is asked and told. Who connects sends one line of words, or ends his side,
 * and is sent one JSON document, in which "error" says what went wrong:
 *
 *   status (or nothing)   the state of the mount
 *   tier NAME on|off      the kill switch of a tier; only for root and for who mounted
 *   upgrade               another process, of the program that is there now, goes on with the mount; only for root and for who mounted
 *   top                   the connection stays: a line with a sample of counters, and one more for each line that comes (observe.h)
 *   trace PID INODE       the connection stays: a line for each request as it ends; 0 is any
 */
#ifndef CFS_CLIENT_CONTROL_H
#define CFS_CLIENT_CONTROL_H

struct cfs_client;
struct cfs_control;
struct cfs_mount_opts;

/* 0 or -errno; a mount without it works as well */
int cfs_control_start(struct cfs_client *c, const struct cfs_mount_opts *o, struct cfs_control **ret_k);
/* removes the socket; NULL is fine */
void cfs_control_stop(struct cfs_control *k);

#endif
