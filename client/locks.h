/* SPDX-License-Identifier: MIT */
/*
 * locks.h - blocking file locks: who waits for one occupies neither a FUSE worker nor a connection of its own.
 *
 * One thread sends the LOCK requests of all waiters over one connection and answers the kernel as they are granted. An
 * interrupt sends a cancelling LOCK. Waiters hold a slot of the session each; more than CFS_LOCK_WAITS_MAX
 * get ENOLCK, so that other mutations always find slots.
 */
#ifndef CFS_CLIENT_LOCKS_H
#define CFS_CLIENT_LOCKS_H

#include <claudefs/wire.h>

#define CFS_LOCK_WAITS_MAX 192u

struct cfs_client;
struct cfs_locks;
struct fuse_req;

int cfs_locks_create(struct cfs_client *c, struct cfs_locks **ret_l);
/* waiters get EINTR */
void cfs_locks_destroy(struct cfs_locks *l);

/* answers `req` in any case, perhaps later; called by the worker that serves it. body->wait is 1 */
void cfs_locks_wait(struct cfs_client *c, struct fuse_req *req, const struct cfs_lock_req *body);

#endif
