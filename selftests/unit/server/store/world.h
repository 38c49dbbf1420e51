/* SPDX-License-Identifier: MIT */
/*
 * world.h - a store on a crashdev, with calls that wait; shared by the store's tests. With T_DEV=NAME in the environment a real
 * device is below, see selftests/lib/realdev.h.
 */
#ifndef CFS_SELFTESTS_STORE_WORLD_H
#define CFS_SELFTESTS_STORE_WORLD_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/base.h"
#include "base/crc32c.h"
#include "base/hash.h"
#include "selftests/lib/crashdev.h"
#include "selftests/lib/realdev.h"
#include "server/store/store_i.h"

#define UNUSED_OK __attribute__((unused))

/* what kind of device the worlds of a test have; main() runs the tests once for each */
enum { PLAIN, ZONED, ATOMIC };
static int world_kind = PLAIN;

/* T_KIND=0, 1 or 2 runs one kind only; a real device below is of one sort */
UNUSED_OK static bool world_kind_wanted(void)
{
	const char *only = getenv("T_KIND");

	return (!only || atoi(only) == world_kind) && realdev_takes(world_kind == ZONED);
}

struct world {
	struct cfs_crashdev *cd;
	struct cfs_store *st;
	char err[256];
};

UNUSED_OK static void world_kind_set(struct cfs_crashdev *cd)
{
	cfs_crashdev_dev(cd)->info.atomic_unit = world_kind == ATOMIC ? 16384 : 0;
}

/* zones: as many segments as `bytes` would give, with an unusable end, and limits that are easily reached */
UNUSED_OK static struct cfs_crashdev *world_zoned(uint64_t bytes, uint32_t segment_bytes, uint64_t seed)
{
	const struct cfs_zone_geometry g = {
		.zone_bytes = segment_bytes + segment_bytes / 4,
		.zone_capacity = segment_bytes,
		.n_zones = (uint32_t)(CFS_DISK_ROOT_ZONES + (bytes - CFS_DISK_SEG_OFF) / segment_bytes),
		.max_active = 8,
		.max_open = 6,
	};

	return cfs_crashdev_create_zoned(&g, NULL, seed);
}

UNUSED_OK static uint64_t world_bytes(struct world *w)
{
	return cfs_crashdev_dev(w->cd)->info.size_bytes;
}

UNUSED_OK static void world_format(struct world *w, uint64_t bytes, uint32_t segment_bytes,
				   uint64_t seed)
{
	struct cfs_format_params fp = { .target_id = 7,
					.label_time_ns = 1,
					.segment_bytes = segment_bytes };

	memcpy(fp.cluster, "0123456789abcdef", 16);
	memset(w, 0, sizeof(*w));
	w->cd = world_kind == ZONED ? world_zoned(bytes, segment_bytes, seed) :
				      cfs_crashdev_create(bytes, NULL, seed);
	world_kind_set(w->cd);
	assert_int_equal(cfs_store_format(cfs_crashdev_dev(w->cd), &fp, w->err, sizeof(w->err)), 0);
}

UNUSED_OK static int world_try_open(struct world *w)
{
	struct cfs_store_params p = { .dev = cfs_crashdev_dev(w->cd),
				      .clock = cfs_crashdev_clock(w->cd) };

	w->st = NULL;
	return cfs_store_open(&p, &w->st, w->err, sizeof(w->err));
}

UNUSED_OK static void world_open(struct world *w)
{
	int rc = world_try_open(w);

	if (rc)
		fail_msg("open: %d: %s", rc, w->err);
}

/* of a store with zones: where the superblock is that was last written to one side of the log */
UNUSED_OK static uint64_t world_root_off(struct world *w, uint32_t side)
{
	struct cfs_disk_super sb;
	struct cfs_root root;

	assert_int_equal(cfs_root_load(&root, cfs_crashdev_dev(w->cd), &sb, w->err, sizeof(w->err)), 0);
	assert_true(side < root.n_sides);
	return root.side[side].zone * cfs_crashdev_zones(w->cd)->zone_bytes + root.side[side].wp - 8192;
}

/* a device like another one, with these bytes */
UNUSED_OK static struct cfs_crashdev *world_like(struct cfs_crashdev *cd, const uint8_t *image,
						 uint64_t seed)
{
	const struct cfs_zone_geometry *g = cfs_crashdev_zones(cd);
	struct cfs_crashdev *like =
		g ? cfs_crashdev_create_zoned(g, image, seed) :
		    cfs_crashdev_create(cfs_crashdev_dev(cd)->info.size_bytes, image, seed);

	world_kind_set(like);
	return like;
}

UNUSED_OK static void world_swap(struct world *w, const uint8_t *image, uint64_t seed)
{
	struct cfs_crashdev *cd;

	cfs_store_close(w->st, false);
	w->st = NULL;
	cd = world_like(w->cd, image ? image : cfs_crashdev_bytes(w->cd), seed);
	cfs_crashdev_destroy(w->cd);
	w->cd = cd;
}

/* as a power cut, or a kill, would leave it: the same bytes, a new process, and other random numbers: no salt comes twice */
UNUSED_OK static void world_kill(struct world *w)
{
	static uint64_t kills;

	world_swap(w, NULL, ++kills << 32);
}

static void world_flag(void *arg)
{
	*(bool *)arg = true;
}

UNUSED_OK static void world_stop(struct world *w)
{
	bool stopped = false;

	cfs_store_stop(w->st, world_flag, &stopped);
	while (!stopped)
		assert_true(cfs_crashdev_turn(w->cd));
	cfs_store_close(w->st, true);
	w->st = NULL;
}

UNUSED_OK static void world_end(struct world *w)
{
	cfs_store_close(w->st, false);
	cfs_crashdev_destroy(w->cd);
}

/* let background work come to rest, or `turns` pass */
UNUSED_OK static void world_idle(struct world *w, uint64_t turns)
{
	while (turns-- && cfs_crashdev_turn(w->cd))
		;
}

/* ---- objects ---------------------------------------------------------------------------- */

struct obj {
	struct cfs_store_write w;
	uint8_t *data;
	uint32_t crcs[CFS_OBJECT_CRCS];
	bool done;
	int err;
};

UNUSED_OK static struct cfs_oid oid_of(uint64_t n)
{
	return (struct cfs_oid){ cfs_cpu_to_le64(1 + n % 3), cfs_cpu_to_le64(n) };
}

UNUSED_OK static void fill(uint8_t *p, uint32_t len, uint64_t n)
{
	uint64_t x = cfs_hash_u64(n + 1);

	for (uint32_t i = 0; i < len; i++) {
		if (!(i & 7))
			x = cfs_hash_u64(x + 1);
		p[i] = (uint8_t)(x >> (i & 7) * 8);
	}
}

UNUSED_OK static void obj_written(struct cfs_store_write *w, int err)
{
	struct obj *o = cfs_container_of(w, struct obj, w);

	assert_false(o->done);
	o->done = true;
	o->err = err;
}

UNUSED_OK static struct obj *obj_new(uint64_t n, uint32_t len)
{
	struct obj *o = calloc(1, sizeof(*o));

	o->data = cfs_aligned_alloc(cfs_align_up(len, 4096));
	fill(o->data, len, n);
	o->w = (struct cfs_store_write){ .oid = oid_of(n),
					 .data = o->data,
					 .len = len,
					 .n_crcs = cfs_crcs_of(len),
					 .crcs = o->crcs,
					 .done = obj_written };
	for (uint32_t i = 0; i < o->w.n_crcs; i++) {
		uint32_t off = i * CFS_CRC_BLOCK;

		o->crcs[i] = cfs_crc32c(0, o->data + off, cfs_min(len - off, CFS_CRC_BLOCK));
	}
	return o;
}

UNUSED_OK static void obj_free(struct obj *o)
{
	if (o)
		free(o->data);
	free(o);
}

UNUSED_OK static int put_obj(struct world *w, uint64_t n, uint32_t len)
{
	struct obj *o = obj_new(n, len);
	int err;

	cfs_store_write(w->st, &o->w);
	assert_false(o->done);	/* never inside the call */
	while (!o->done)
		assert_true(cfs_crashdev_turn(w->cd));
	err = o->err;
	obj_free(o);
	return err;
}

struct rd {
	struct cfs_store_read r;
	bool done;
	int err;
};

UNUSED_OK static void rd_done(struct cfs_store_read *r, int err)
{
	struct rd *x = cfs_container_of(r, struct rd, r);

	x->done = true;
	x->err = err;
}

/* reads a range; on success the bytes must be those of object n with that length */
UNUSED_OK static int get_range(struct world *w, uint64_t n, uint32_t obj_len, uint32_t off,
			       uint32_t len)
{
	struct rd x = { .r = { .oid = oid_of(n), .off = off, .len = len, .done = rd_done } };

	cfs_store_read(w->st, &x.r);
	assert_false(x.done);
	while (!x.done)
		assert_true(cfs_crashdev_turn(w->cd));
	if (!x.err) {
		uint8_t *want = malloc(obj_len);

		fill(want, obj_len, n);
		assert_int_equal(x.r.obj_len, obj_len);
		assert_true(x.r.ret_off <= off && x.r.ret_off % CFS_CRC_BLOCK == 0);
		assert_true(x.r.ret_off + x.r.ret_len >= cfs_min(obj_len, off + len));
		assert_memory_equal(x.r.data, want + x.r.ret_off, x.r.ret_len);
		assert_int_equal(x.r.n_crcs, cfs_crcs_of(x.r.ret_len));
		for (uint32_t i = 0; i < x.r.n_crcs; i++) {
			uint32_t at = i * CFS_CRC_BLOCK;

			assert_int_equal(x.r.crcs[i],
					 cfs_crc32c(0, (const uint8_t *)x.r.data + at,
						    cfs_min(x.r.ret_len - at, CFS_CRC_BLOCK)));
		}
		free(want);
		cfs_store_read_release(w->st, &x.r);
	}
	return x.err;
}

UNUSED_OK static int get_obj(struct world *w, uint64_t n, uint32_t len)
{
	return get_range(w, n, len, 0, len);
}

struct del {
	struct cfs_store_delete d;
	bool done;
	int err;
};

UNUSED_OK static void del_done(struct cfs_store_delete *d, int err)
{
	struct del *x = cfs_container_of(d, struct del, d);

	x->done = true;
	x->err = err;
}

UNUSED_OK static int del_objs(struct world *w, const uint64_t *n, uint32_t count)
{
	struct cfs_oid *oids = calloc(count ? count : 1, sizeof(*oids));
	struct del x = { .d = { .oids = oids, .n = count, .done = del_done } };

	for (uint32_t i = 0; i < count; i++)
		oids[i] = oid_of(n[i]);
	cfs_store_delete(w->st, &x.d);
	assert_false(x.done);
	while (!x.done)
		assert_true(cfs_crashdev_turn(w->cd));
	free(oids);
	return x.err;
}

UNUSED_OK static int del_obj(struct world *w, uint64_t n)
{
	return del_objs(w, &n, 1);
}

#endif
