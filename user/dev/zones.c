/* SPDX-License-Identifier: MIT */
/* zones.c - see zones.h. State: struct cfs_zones; the owner's thread. */
#include "dev/zones.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

#define UNWRITTEN	0xa5	/* what such bytes read as */
#define ZONES_MAX	(1u << 20)

struct zone {
	uint64_t written;	/* bytes, from the start */
	uint32_t writing;	/* requests under way */
	uint8_t state;
};

struct cfs_zones {
	struct cfs_zone_geometry g;
	uint32_t active, open;
	struct zone zone[];
};

static bool is_open(uint8_t state)
{
	return state == CFS_ZONE_OPEN_IMPLICIT || state == CFS_ZONE_OPEN_EXPLICIT;
}

static bool is_active(uint8_t state)
{
	return is_open(state) || state == CFS_ZONE_CLOSED;
}

static void set_state(struct cfs_zones *z, struct zone *zone, enum cfs_zone_state state)
{
	z->open += is_open((uint8_t)state);
	z->open -= is_open(zone->state);
	z->active += is_active((uint8_t)state);
	z->active -= is_active(zone->state);
	zone->state = (uint8_t)state;
}

int cfs_zones_create(const struct cfs_zone_geometry *g, uint32_t write_unit,
		     struct cfs_zones **ret_zones)
{
	struct cfs_zones *z;

	if (!g->zone_bytes || !g->zone_capacity || g->zone_capacity > g->zone_bytes ||
	    (g->zone_bytes | g->zone_capacity) & (write_unit - 1) || !g->n_zones ||
	    g->n_zones > ZONES_MAX || g->n_conv > g->n_zones || g->zone_bytes > 1ull << 40 ||
	    (g->max_active && g->max_open > g->max_active))
		return -EINVAL;
	z = calloc(1, sizeof(*z) + g->n_zones * sizeof(z->zone[0]));
	if (!z)
		return -ENOMEM;
	z->g = *g;
	*ret_zones = z;
	return 0;
}

void cfs_zones_destroy(struct cfs_zones *z)
{
	free(z);
}

void cfs_zones_info(const struct cfs_zones *z, struct cfs_dev_info *info)
{
	info->flags |= CFS_DEV_F_ZONED;
	info->size_bytes = z->g.zone_bytes * z->g.n_zones;
	info->zone_bytes = z->g.zone_bytes;
	info->zone_capacity = z->g.zone_capacity;
	info->n_zones = z->g.n_zones;
	info->max_active = z->g.max_active;
	info->max_open = z->g.max_open;
	info->append_max = 1u << 20;
}

static uint32_t number_of(const struct cfs_zones *z, uint64_t offset)
{
	return (uint32_t)(offset / z->g.zone_bytes);
}

static uint64_t capacity_of(const struct cfs_zones *z, uint32_t n)
{
	return n < z->g.n_conv ? z->g.zone_bytes : z->g.zone_capacity;
}

/* ---- state changes ------------------------------------------------------------------------------- */

/* a write or an explicit open wants the zone open. Somebody else's implicit opening ends if need be */
static int make_open(struct cfs_zones *z, struct zone *zone, enum cfs_zone_state to)
{
	if (is_open(zone->state)) {
		if (to == CFS_ZONE_OPEN_EXPLICIT)
			set_state(z, zone, to);
		return 0;
	}
	if (zone->state == CFS_ZONE_EMPTY && z->g.max_active && z->active == z->g.max_active)
		return -EOVERFLOW;
	if (z->g.max_open && z->open == z->g.max_open) {
		uint32_t i = 0;

		while (i < z->g.n_zones && z->zone[i].state != CFS_ZONE_OPEN_IMPLICIT)
			i++;
		if (i == z->g.n_zones)
			return -ETOOMANYREFS;
		set_state(z, &z->zone[i], CFS_ZONE_CLOSED);
	}
	set_state(z, zone, to);
	return 0;
}

static int dead(const struct zone *zone)
{
	return zone->state == CFS_ZONE_OFFLINE ? -ENXIO : zone->state == CFS_ZONE_READONLY ? -EROFS : 0;
}

int cfs_zones_change(struct cfs_zones *z, enum cfs_dev_op op, uint64_t offset)
{
	uint32_t n = number_of(z, offset);
	struct zone *zone = &z->zone[n];
	int rc = dead(zone);

	if (rc)
		return rc;
	if (n < z->g.n_conv || zone->writing)
		return -EINVAL;
	switch (op) {
	case CFS_DEV_ZONE_RESET:
		set_state(z, zone, CFS_ZONE_EMPTY);
		zone->written = 0;
		return 0;
	case CFS_DEV_ZONE_FINISH:
		set_state(z, zone, CFS_ZONE_FULL);
		return 0;
	case CFS_DEV_ZONE_OPEN:
		return zone->state == CFS_ZONE_FULL ? -EINVAL :
						      make_open(z, zone, CFS_ZONE_OPEN_EXPLICIT);
	case CFS_DEV_ZONE_CLOSE:
		if (zone->state == CFS_ZONE_FULL || zone->state == CFS_ZONE_EMPTY)
			return -EINVAL;
		set_state(z, zone, zone->written ? CFS_ZONE_CLOSED : CFS_ZONE_EMPTY);
		return 0;
	default:
		return -EINVAL;
	}
}

/* ---- transfers ------------------------------------------------------------------------------------- */

int cfs_zones_begin(struct cfs_zones *z, enum cfs_dev_op op, uint64_t offset)
{
	uint32_t n = number_of(z, offset);

	if (op == CFS_DEV_WRITE && n >= z->g.n_conv && z->zone[n].writing)
		return -EINVAL;
	z->zone[n].writing++;
	return 0;
}

int cfs_zones_end(struct cfs_zones *z, enum cfs_dev_op op, uint64_t offset, uint64_t len, bool ok,
		  uint64_t *ret_offset)
{
	uint32_t n = number_of(z, offset);
	struct zone *zone = &z->zone[n];
	uint64_t start = n * z->g.zone_bytes;
	int rc;

	CFS_ASSERT(zone->writing);
	zone->writing--;
	if (!ok)
		return 0;
	rc = dead(zone);
	if (rc)
		return rc;
	if (n < z->g.n_conv) {
		*ret_offset = offset;
		return op == CFS_DEV_WRITE ? 0 : -EINVAL;
	}
	if (zone->state == CFS_ZONE_FULL || len > z->g.zone_capacity - zone->written ||
	    (op == CFS_DEV_WRITE && offset != start + zone->written))
		return -EINVAL;
	rc = make_open(z, zone, CFS_ZONE_OPEN_IMPLICIT);
	if (rc)
		return rc;
	*ret_offset = start + zone->written;
	zone->written += len;
	if (zone->written == z->g.zone_capacity)
		set_state(z, zone, CFS_ZONE_FULL);
	return 0;
}

int cfs_zones_read(const struct cfs_zones *z, uint64_t offset, void *buf, uint64_t len)
{
	uint8_t *p = buf;

	while (len) {
		uint32_t n = number_of(z, offset);
		const struct zone *zone = &z->zone[n];
		uint64_t in = offset % z->g.zone_bytes, part = cfs_min(len, z->g.zone_bytes - in);
		uint64_t good = n < z->g.n_conv	   ? part :
				in < zone->written ? cfs_min(part, zone->written - in) :
						     0;

		if (zone->state == CFS_ZONE_OFFLINE)
			return -ENXIO;
		memset(p + good, UNWRITTEN, part - good);
		offset += part;
		p += part;
		len -= part;
	}
	return 0;
}

/* ---- reports, failures ------------------------------------------------------------------------------- */

int cfs_zones_report(const struct cfs_zones *z, uint64_t offset, struct cfs_zone *zones, uint32_t n)
{
	uint32_t first = number_of(z, offset);

	if (offset % z->g.zone_bytes || first > z->g.n_zones)
		return -EINVAL;
	n = cfs_min(n, z->g.n_zones - first);
	for (uint32_t i = 0; i < n; i++) {
		const struct zone *zone = &z->zone[first + i];
		uint64_t start = (first + i) * z->g.zone_bytes;

		zones[i] = (struct cfs_zone){
			.start = start,
			.capacity = capacity_of(z, first + i),
			.wp = zone->state < CFS_ZONE_FULL ? start + zone->written : UINT64_MAX,
			.type = first + i < z->g.n_conv ? CFS_ZONE_CONV : CFS_ZONE_SEQ,
			.state = zone->state,
		};
	}
	return (int)n;
}

void cfs_zones_fail(struct cfs_zones *z, uint32_t zone, enum cfs_zone_state state)
{
	CFS_ASSERT(zone < z->g.n_zones &&
		   (state == CFS_ZONE_READONLY || state == CFS_ZONE_OFFLINE));
	set_state(z, &z->zone[zone], state);
}

uint64_t cfs_zones_written(const struct cfs_zones *z, uint32_t zone)
{
	return z->zone[zone].written;
}

void cfs_zones_cut(struct cfs_zones *z, uint32_t zone, uint64_t bytes)
{
	struct zone *zn = &z->zone[zone];

	CFS_ASSERT(bytes <= capacity_of(z, zone));
	zn->writing = 0;
	zn->written = bytes;
	if (dead(zn) || zone < z->g.n_conv)
		return;
	if (bytes == z->g.zone_capacity)
		set_state(z, zn, CFS_ZONE_FULL);
	else if (zn->state != CFS_ZONE_FULL)
		set_state(z, zn, bytes ? CFS_ZONE_CLOSED : CFS_ZONE_EMPTY);
}
