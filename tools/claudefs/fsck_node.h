/* SPDX-License-Identifier: MIT */
/* fsck_node.h - what fsck needs of a running node and store, each call turning the loop until it is done. */
#ifndef CFS_TOOLS_FSCK_NODE_H
#define CFS_TOOLS_FSCK_NODE_H

#include "ring/loop.h"
#include "server/cluster/config.h"
#include "server/store/store.h"

/**
 * fsck_node_run() - start a node on the configured targets without a network, then stop it cleanly.
 * @checkpoint: take a checkpoint in between
 * @err: one line, on failure
 * Return: 0 or -errno (-ETIMEDOUT after 10 minutes).
 */
int fsck_node_run(struct cfs_loop *loop, const struct cfs_config *cfg, bool checkpoint, char *err, size_t errlen);

/* all of them; durable. 0 or -errno (-ETIMEDOUT after 10 minutes) */
int fsck_delete_objects(struct cfs_loop *loop, struct cfs_store *store, const struct cfs_oid *oids, uint32_t n);
/* stop its background work, then close it cleanly */
void fsck_close_store(struct cfs_loop *loop, struct cfs_store *store);

#endif
