/* SPDX-License-Identifier: MIT */
/*
 * Proves of the cluster map: what is encoded comes back, placement covers all targets with distinct
 * copies, and every cut or contradictory map is refused.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/cluster/map.h"

static struct cfs_map *three(uint32_t replicas)
{
	struct cfs_map_target t[3];
	struct cfs_map *map;

	memset(t, 0, sizeof(t));
	for (unsigned i = 0; i < 3; i++) {
		t[i].id = cfs_cpu_to_le32(10 + i);
		t[i].state = cfs_cpu_to_le32(1);
		strcpy(t[i].addr, i ? "b:2" : "a:1");
	}
	assert_int_equal(cfs_map_create(t, 3, 64, replicas, &map), 0);
	return map;
}

static void round_trip(void **state)
{
	struct cfs_map *map = three(2), *back;
	size_t len = cfs_map_size(map);
	uint8_t *buf = malloc(len);
	const char *why = NULL;

	(void)state;
	map->epoch = 7;
	cfs_map_encode(map, buf);
	assert_int_equal(cfs_map_decode(buf, len, &back, &why), 0);
	assert_int_equal(back->epoch, 7);
	assert_int_equal(back->n_targets, 3);
	assert_int_equal(back->n_pgs, 64);
	assert_int_equal(back->replicas, 2);
	assert_memory_equal(back->targets, map->targets, 3 * sizeof(*map->targets));
	assert_memory_equal(back->pgs, map->pgs, 64 * 2 * sizeof(*map->pgs));
	cfs_map_free(back);
	for (size_t cut = 0; cut < len; cut++) {
		uint8_t *p = malloc(cut + 1);

		memcpy(p, buf, cut);
		why = NULL;
		assert_int_equal(cfs_map_decode(p, cut, &back, &why), -EPROTO);
		assert_non_null(why);
		free(p);
	}
	free(buf);
	cfs_map_free(map);
}

static void placement(void **state)
{
	struct cfs_map *map = three(2);
	unsigned on[3] = { 0 };

	(void)state;
	for (uint64_t pg = 0; pg < 64; pg++) {
		struct cfs_oid oid = { .owner = 5,
				       .seq = cfs_cpu_to_le64(pg << CFS_OID_PG_SHIFT | 99) };
		const uint32_t *row = cfs_map_pg(map, &oid);

		assert_non_null(row);
		assert_int_not_equal(row[0], row[1]);
		on[row[0] - 10]++;
		on[row[1] - 10]++;
	}
	for (unsigned i = 0; i < 3; i++)
		assert_true(on[i] >= 40 && on[i] <= 45);
	assert_null(cfs_map_pg(
		map, &(struct cfs_oid){ .seq = cfs_cpu_to_le64(64ull << CFS_OID_PG_SHIFT) }));
	assert_non_null(cfs_map_target(map, 12));
	assert_null(cfs_map_target(map, 13));
	cfs_map_free(map);
}

static void refused(void **state)
{
	struct cfs_map *map = three(1), *back;
	size_t len = cfs_map_size(map);
	struct cfs_map_target t = { 0 };
	uint8_t *buf = malloc(len);
	const char *why;

	(void)state;
	assert_int_equal(cfs_map_create(&t, 1, 64, 2, &back),
			 -EINVAL); /* more copies than targets */
	assert_int_equal(cfs_map_create(&t, 0, 64, 1, &back), -EINVAL);
	assert_int_equal(cfs_map_create(&t, 1, 0, 1, &back), -EINVAL);
	map->pgs[3] = 99;
	cfs_map_encode(map, buf);
	assert_int_equal(cfs_map_decode(buf, len, &back, &why),
			 -EPROTO); /* a target that is not there */
	map->pgs[3] = 10;
	map->targets[1].id = map->targets[0].id;
	cfs_map_encode(map, buf);
	assert_int_equal(cfs_map_decode(buf, len, &back, &why), -EPROTO);	/* twice */
	map->targets[1].id = cfs_cpu_to_le32(11);
	memset(map->targets[1].addr, 'x', sizeof(map->targets[1].addr));
	cfs_map_encode(map, buf);
	assert_int_equal(cfs_map_decode(buf, len, &back, &why),
			 -EPROTO); /* an address without an end */
	free(buf);
	cfs_map_free(map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(placement),
		cmocka_unit_test(refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
