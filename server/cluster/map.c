/* SPDX-License-Identifier: MIT */
/* map.c - see map.h. */
#include "server/cluster/map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "rpc/codec.h"

static struct cfs_map *map_new(uint32_t n_targets, uint32_t n_pgs, uint32_t replicas)
{
	struct cfs_map *map = calloc(1, sizeof(*map));

	if (!map)
		return NULL;
	map->n_targets = n_targets;
	map->n_pgs = n_pgs;
	map->replicas = replicas;
	map->targets = calloc(n_targets, sizeof(*map->targets));
	map->pgs = calloc((size_t)n_pgs * replicas, sizeof(*map->pgs));
	if (!map->targets || !map->pgs) {
		cfs_map_free(map);
		return NULL;
	}
	return map;
}

void cfs_map_free(struct cfs_map *map)
{
	if (!map)
		return;
	free(map->targets);
	free(map->pgs);
	free(map);
}

int cfs_map_create(const struct cfs_map_target *targets, uint32_t n_targets, uint32_t n_pgs,
		   uint32_t replicas, struct cfs_map **ret_map)
{
	struct cfs_map *map;

	if (n_targets == 0 || n_targets > CFS_MAP_TARGETS_MAX || n_pgs == 0 ||
	    n_pgs > CFS_MAP_PGS_MAX || replicas == 0 || replicas > CFS_MAP_REPLICAS_MAX ||
	    replicas > n_targets)
		return -EINVAL;
	map = map_new(n_targets, n_pgs, replicas);
	if (!map)
		return -ENOMEM;
	map->epoch = 1;
	map->shards = 1;
	memcpy(map->targets, targets, n_targets * sizeof(*targets));
	for (uint32_t pg = 0; pg < n_pgs; pg++)
		for (uint32_t r = 0; r < replicas; r++)
			map->pgs[pg * replicas + r] =
				cfs_le32_to_cpu(targets[(pg + r) % n_targets].id);
	*ret_map = map;
	return 0;
}

size_t cfs_map_size(const struct cfs_map *map)
{
	return sizeof(struct cfs_map_rep) + map->n_targets * sizeof(struct cfs_map_target) +
	       (size_t)map->n_pgs * map->replicas * sizeof(cfs_le32);
}

void cfs_map_encode(const struct cfs_map *map, void *buf)
{
	struct cfs_map_rep rep = {
		.epoch = cfs_cpu_to_le64(map->epoch),
		.n_targets = cfs_cpu_to_le32(map->n_targets),
		.n_pgs = cfs_cpu_to_le32(map->n_pgs),
		.replicas = cfs_cpu_to_le32(map->replicas),
		.shards = cfs_cpu_to_le32(map->shards),
	};
	struct cfs_builder b;

	cfs_builder_init(&b, buf, cfs_map_size(map));
	cfs_put_struct(&b, &rep);
	cfs_put(&b, map->targets, map->n_targets * sizeof(*map->targets), "targets");
	for (uint32_t i = 0; i < map->n_pgs * map->replicas; i++) {
		cfs_le32 id = cfs_cpu_to_le32(map->pgs[i]);

		cfs_put_struct(&b, &id);
	}
	CFS_ASSERT(cfs_builder_ok(&b) == 0);
}

const struct cfs_map_target *cfs_map_target(const struct cfs_map *map, uint32_t id)
{
	for (uint32_t i = 0; i < map->n_targets; i++)
		if (cfs_le32_to_cpu(map->targets[i].id) == id)
			return &map->targets[i];
	return NULL;
}

static const char *check(const struct cfs_map *map)
{
	for (uint32_t i = 0; i < map->n_targets; i++) {
		const struct cfs_map_target *t = &map->targets[i];

		if (!memchr(t->addr, 0, sizeof(t->addr)) || !t->addr[0])
			return "address of a target";
		if (cfs_le32_to_cpu(t->state) > 1)
			return "state of a target";
		if (cfs_map_target(map, cfs_le32_to_cpu(t->id)) != t)
			return "target named twice";
	}
	for (uint32_t i = 0; i < map->n_pgs * map->replicas; i++)
		if (!cfs_map_target(map, map->pgs[i]))
			return "group on a target that is not there";
	return NULL;
}

int cfs_map_decode(const void *buf, size_t len, struct cfs_map **ret_map, const char **ret_why)
{
	struct cfs_map *map = NULL;
	struct cfs_map_rep rep;
	struct cfs_cursor c;
	const void *pgs;
	uint32_t n_targets, n_pgs, replicas;

	cfs_cursor_init(&c, buf, len);
	cfs_take_struct(&c, &rep);
	n_targets = cfs_le32_to_cpu(rep.n_targets);
	n_pgs = cfs_le32_to_cpu(rep.n_pgs);
	replicas = cfs_le32_to_cpu(rep.replicas);
	if (!c.err && (n_targets == 0 || n_targets > CFS_MAP_TARGETS_MAX))
		cfs_cursor_fail(&c, "number of targets");
	if (!c.err && (n_pgs == 0 || n_pgs > CFS_MAP_PGS_MAX))
		cfs_cursor_fail(&c, "number of groups");
	if (!c.err && (replicas == 0 || replicas > CFS_MAP_REPLICAS_MAX))
		cfs_cursor_fail(&c, "number of replicas");
	if (!c.err && (cfs_le32_to_cpu(rep.shards) == 0 || cfs_le64_to_cpu(rep.epoch) == 0))
		cfs_cursor_fail(&c, "epoch or shards");
	if (c.err)
		goto proto;
	map = map_new(n_targets, n_pgs, replicas);
	if (!map)
		return -ENOMEM;
	map->epoch = cfs_le64_to_cpu(rep.epoch);
	map->shards = cfs_le32_to_cpu(rep.shards);
	cfs_take_copy(&c, map->targets, n_targets * sizeof(*map->targets), "targets");
	pgs = cfs_take_array(&c, (size_t)n_pgs * replicas, sizeof(cfs_le32), "groups");
	if (cfs_cursor_end(&c))
		goto proto;
	for (uint32_t i = 0; i < n_pgs * replicas; i++)
		map->pgs[i] = cfs_get_le32((const uint8_t *)pgs + i * sizeof(cfs_le32));
	if (check(map)) {
		cfs_cursor_fail(&c, check(map));
		goto proto;
	}
	*ret_map = map;
	return 0;
proto:
	cfs_map_free(map);
	*ret_why = c.err;
	return -EPROTO;
}

const uint32_t *cfs_map_pg(const struct cfs_map *map, const struct cfs_oid *oid)
{
	uint64_t pg = cfs_le64_to_cpu(oid->seq) >> CFS_OID_PG_SHIFT;

	return pg < map->n_pgs ? &map->pgs[pg * map->replicas] : NULL;
}
