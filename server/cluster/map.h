/* SPDX-License-Identifier: MIT */
/*
 * map.h - the cluster map: which targets there are, where they answer, and which ones hold each
 * placement group.
 *
 * Part of shard 0's state (CFS_LOG_MAP); on the wire and in the log it is struct cfs_map_rep. A
 * decoded map never changes: a new one replaces it. Any thread.
 */
#ifndef CFS_SERVER_CLUSTER_MAP_H
#define CFS_SERVER_CLUSTER_MAP_H

#include <claudefs/wire.h>
#include <stdbool.h>
#include <stddef.h>

#define CFS_MAP_TARGETS_MAX	1024u
#define CFS_MAP_PGS_MAX 4096u /* <= 65536: a placement group has 16 bits in an object's name */
#define CFS_MAP_REPLICAS_MAX	8u
#define CFS_MAP_PGS_DEFAULT	64u

struct cfs_map {
	uint64_t epoch;
	uint32_t n_targets, n_pgs, replicas, shards;
	struct cfs_map_target *targets;	/* as on the wire; ids differ */
	uint32_t *pgs;			/* n_pgs rows of `replicas` target ids */
};

/* a first map: PGs go round the targets; replicas <= number of targets. 0, -EINVAL, -ENOMEM */
int cfs_map_create(const struct cfs_map_target *targets, uint32_t n_targets, uint32_t n_pgs,
		   uint32_t replicas, struct cfs_map **ret_map);
/* NULL is fine */
void cfs_map_free(struct cfs_map *map);

size_t cfs_map_size(const struct cfs_map *map);
/* into cfs_map_size() bytes */
void cfs_map_encode(const struct cfs_map *map, void *buf);
/* 0; -EPROTO with *ret_why; -ENOMEM */
int cfs_map_decode(const void *buf, size_t len, struct cfs_map **ret_map, const char **ret_why);

/* NULL: no such target */
const struct cfs_map_target *cfs_map_target(const struct cfs_map *map, uint32_t id);
/*
 * the target ids (map->replicas of them) of the group that an object's name says; NULL: no such
 * group
 */
const uint32_t *cfs_map_pg(const struct cfs_map *map, const struct cfs_oid *oid);

#endif
