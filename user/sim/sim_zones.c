/* SPDX-License-Identifier: MIT */
/*
 * sim_zones.c - disks with zones; see sim.h, and dev/zones.h for their rules.
 *
 * A zone is written in order, so what a power cut leaves of it is a beginning: at least all that was durable, at most
 * all that was handed over, and nothing torn within a sector, or within what the drive writes as one. Resets and finishes are durable
 * when they complete; those under way have happened or not. `cur` has the bytes; how many of each zone are durable
 * stands here.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "dev/zones.h"
#include "sim/sim_disk_i.h"

/* written, and only in the drive's cache: the end of a zone, as far as `end` */
struct tail {
	struct cfs_list link;	/* in z->tails, oldest first */
	uint32_t zone;
	bool atomic;
	uint64_t start, end;	/* bytes within the zone */
	uint64_t seq;
};

struct sim_zoned {
	struct cfs_zone_geometry g;
	struct cfs_zones *zones;
	struct cfs_list tails;
	uint64_t firm[];	/* of each zone: bytes that are durable */
};

int sim_zoned_create(const struct cfs_zone_geometry *g, uint32_t write_unit, struct sim_zoned **ret_zoned)
{
	struct cfs_zones *zones;
	struct sim_zoned *z;
	int rc = g->n_conv ? -EINVAL : cfs_zones_create(g, write_unit, &zones);

	if (rc)
		return rc;
	z = sim_alloc(sizeof(*z) + g->n_zones * sizeof(z->firm[0]));
	z->g = *g;
	z->zones = zones;
	cfs_list_init(&z->tails);
	*ret_zoned = z;
	return 0;
}

static void tail_free(struct tail *t)
{
	cfs_list_del(&t->link);
	free(t);
}

void sim_zoned_destroy(struct sim_zoned *z)
{
	if (!z)
		return;
	while (!cfs_list_empty(&z->tails))
		tail_free(cfs_list_first(&z->tails, struct tail, link));
	cfs_zones_destroy(z->zones);
	free(z);
}

void sim_zoned_info(const struct sim_zoned *z, struct cfs_dev_info *info)
{
	cfs_zones_info(z->zones, info);
}

static bool appends(const struct cfs_dev_req *req)
{
	return req->op == CFS_DEV_WRITE || req->op == CFS_DEV_ZONE_APPEND;
}

static uint32_t zone_of(const struct sim_zoned *z, uint64_t offset)
{
	return (uint32_t)(offset / z->g.zone_bytes);
}

void sim_zoned_submitted(struct sim_io *io)
{
	if (appends(io->req))
		io->refused = cfs_zones_begin(io->d->disk->zoned->zones, io->req->op, io->req->offset);
}

/* ---- what reaches the medium -------------------------------------------------------------------------- */

static void forget_tails(struct sim_zoned *z, uint32_t zone)
{
	struct cfs_list *pos, *tmp;

	cfs_list_for_each_safe(pos, tmp, &z->tails)
		if (cfs_list_entry(pos, struct tail, link)->zone == zone)
			tail_free(cfs_list_entry(pos, struct tail, link));
}

void sim_zoned_flush(struct cfs_sim_disk *disk, uint64_t seq)
{
	struct sim_zoned *z = disk->zoned;

	while (!cfs_list_empty(&z->tails)) {
		struct tail *t = cfs_list_first(&z->tails, struct tail, link);

		if (t->seq >= seq)
			break;
		z->firm[t->zone] = cfs_max(z->firm[t->zone], t->end);
		tail_free(t);
	}
}

/* the first `len` bytes of a write that cfs_zones_begin() has let through; 0: none of it. 0 or an error of the zone */
static int store(struct cfs_sim_disk *disk, enum cfs_dev_op op, uint64_t offset, const struct iovec *iov, uint64_t len,
		 bool durable, bool atomic, uint64_t *ret_at)
{
	struct sim_zoned *z = disk->zoned;
	uint32_t zone = zone_of(z, offset);
	uint64_t at = offset, end;
	struct tail *t;
	int rc = cfs_zones_end(z->zones, op, offset, len, len != 0, &at);

	if (rc || !len)
		return rc;
	*ret_at = at;
	end = at + len - zone * z->g.zone_bytes;
	for (uint64_t left = len; left; iov++) {
		uint64_t part = cfs_min((uint64_t)iov->iov_len, left);

		memcpy(disk->cur + at, iov->iov_base, part);
		at += part;
		left -= part;
	}
	if (durable) {
		z->firm[zone] = end;	/* nothing lies behind what does not exist */
		return 0;
	}
	t = sim_alloc(sizeof(*t));
	*t = (struct tail){ .zone = zone, .atomic = atomic, .start = end - len, .end = end, .seq = disk->seq++ };
	cfs_list_add_tail(&z->tails, &t->link);
	return 0;
}

/* how much of a write arrives that does not end well */
static uint64_t some_of(struct cfs_sim_disk *disk, uint64_t len, bool atomic)
{
	if (atomic)
		return cfs_sim_below(disk->sim, 2) * len;
	return cfs_sim_below(disk->sim, len / disk->write_unit + 1) * disk->write_unit;
}

static int change(struct cfs_sim_disk *disk, enum cfs_dev_op op, uint64_t offset)
{
	struct sim_zoned *z = disk->zoned;
	int rc = cfs_zones_change(z->zones, op, offset);

	if (rc || op != CFS_DEV_ZONE_RESET)
		return rc;
	z->firm[zone_of(z, offset)] = 0;
	forget_tails(z, zone_of(z, offset));
	madvise(disk->cur + offset, z->g.zone_bytes, MADV_DONTNEED);
	return 0;
}

/* ---- requests -------------------------------------------------------------------------------------------- */

int sim_zoned_read(struct cfs_sim_disk *disk, uint64_t offset, void *buf, uint64_t len)
{
	memcpy(buf, disk->cur + offset, len);
	return cfs_zones_read(disk->zoned->zones, offset, buf, len);
}

static bool is_atomic(const struct sim_io *io)
{
	return cfs_dev_can_atomic(&io->d->dev.info, io->req->offset, io->req->len);
}

static int write_execute(struct cfs_sim_disk *disk, struct sim_io *io)
{
	struct cfs_dev_req *req = io->req;
	bool fails = cfs_sim_chance(disk->sim, disk->faults.write_error_ppm);
	int rc = io->refused;

	if (rc)
		return rc;
	if (disk->faults.full || fails) {
		store(disk, req->op, req->offset, req->iov,
		      disk->faults.full ? 0 : some_of(disk, req->len, is_atomic(io)), false, is_atomic(io), &req->ret_offset);
		return disk->faults.full ? -ENOSPC : -EIO;
	}
	return store(disk, req->op, req->offset, req->iov, req->len, req->flags & CFS_DEV_DURABLE, is_atomic(io),
		     &req->ret_offset);
}

int64_t sim_zoned_execute(struct cfs_sim_disk *disk, struct sim_io *io)
{
	struct cfs_dev_req *req = io->req;
	uint64_t at = req->offset;
	int rc = 0;

	if (req->op == CFS_DEV_READ) {
		if (cfs_sim_chance(disk->sim, disk->faults.read_error_ppm))
			return -EIO;
		for (uint32_t i = 0; i < req->iovcnt && !rc; i++) {
			rc = sim_zoned_read(disk, at, req->iov[i].iov_base, req->iov[i].iov_len);
			at += req->iov[i].iov_len;
		}
	} else if (appends(req)) {
		rc = write_execute(disk, io);
	} else {
		rc = req->op == CFS_DEV_DISCARD				    ? -EINVAL :
		     cfs_sim_chance(disk->sim, disk->faults.write_error_ppm) ? -EIO :
									      change(disk, req->op, req->offset);
	}
	return rc ? rc : (int64_t)req->len;
}

int sim_zoned_write_sync(struct cfs_sim_disk *disk, uint64_t offset, const void *buf, uint32_t len)
{
	struct iovec iov = { (void *)(uintptr_t)buf, len };
	bool torn = sim_disk_torn(disk), fails = cfs_sim_chance(disk->sim, disk->faults.write_error_ppm);
	uint64_t at = offset, part = len;
	int rc = cfs_zones_begin(disk->zoned->zones, CFS_DEV_WRITE, offset);

	if (rc)
		return rc;
	if (torn || fails)
		part = some_of(disk, len, cfs_dev_can_atomic(&disk->open->dev.info, offset, len));
	if (disk->faults.full)
		part = 0;
	rc = store(disk, CFS_DEV_WRITE, offset, &iov, part, true, false, &at);
	if (torn) {
		cfs_sim_node_crash(disk->node, CFS_SIM_POWER);
		return -EIO;
	}
	return disk->faults.full ? -ENOSPC : fails ? -EIO : rc;
}

int sim_zoned_report(struct cfs_dev *dev, uint64_t offset, struct cfs_zone *zones, uint32_t n)
{
	struct sim_dev *d = cfs_container_of(dev, struct sim_dev, dev);

	return d->life->alive ? cfs_zones_report(d->disk->zoned->zones, offset, zones, n) : -ENODEV;
}

int sim_zoned_sync(struct cfs_dev *dev, enum cfs_dev_op op, uint64_t offset)
{
	struct sim_dev *d = cfs_container_of(dev, struct sim_dev, dev);
	struct cfs_sim_disk *disk = d->disk;

	if (!d->life->alive)
		return -ENODEV;
	if (offset >= disk->size || offset % disk->zoned->g.zone_bytes)
		return -EINVAL;
	cfs_sim_trace_add(disk->sim, SIM_DISK * 7u + offset + (uint64_t)op);
	if (sim_disk_torn(disk)) {
		if (cfs_sim_chance(disk->sim, 500000))
			change(disk, op, offset);
		cfs_sim_node_crash(disk->node, CFS_SIM_POWER);
		return -EIO;
	}
	if (cfs_sim_chance(disk->sim, disk->faults.write_error_ppm))
		return -EIO;
	return change(disk, op, offset);
}

int sim_zoned_flush_sync(struct cfs_dev *dev)
{
	struct sim_dev *d = cfs_container_of(dev, struct sim_dev, dev);

	if (!d->life->alive)
		return -ENODEV;
	sim_zoned_flush(d->disk, UINT64_MAX);
	return 0;
}

/* ---- crashes, failures --------------------------------------------------------------------------------------- */

/* what was under way, in the order it was handed over: lost, done in part, or done */
static void crash_flying(struct cfs_sim_disk *disk)
{
	struct cfs_list *pos;

	cfs_list_for_each(pos, &disk->flying) {
		struct sim_io *io = cfs_list_entry(pos, struct sim_io, link);
		struct cfs_dev_req *req = io->req;
		uint64_t dice = cfs_sim_below(disk->sim, 3), at;

		if (io->d->life != disk->node->life || io->refused)
			continue;
		if (appends(req))
			store(disk, req->op, req->offset, req->iov,
			      !dice || disk->faults.full ? 0 :
			      dice == 1			 ? some_of(disk, req->len, is_atomic(io)) :
							   req->len,
			      false, is_atomic(io), &at);
		else if (req->op > CFS_DEV_ZONE_APPEND && dice)
			change(disk, req->op, req->offset);
	}
}

/* how many bytes of the zone are left */
static uint64_t left_of(struct cfs_sim_disk *disk, uint32_t zone)
{
	struct sim_zoned *z = disk->zoned;
	uint64_t written = cfs_zones_written(z->zones, zone), loose = written - z->firm[zone];
	uint64_t dice = loose ? cfs_sim_below(disk->sim, 3) : 2;	/* lost, torn, kept */
	uint64_t left = dice == 0 ? z->firm[zone] : dice == 1 ? z->firm[zone] + some_of(disk, loose, false) : written;
	struct cfs_list *pos;

	cfs_list_for_each(pos, &z->tails) {
		const struct tail *t = cfs_list_entry(pos, struct tail, link);

		if (t->zone == zone && t->atomic && t->start < left && left < t->end)
			left = t->start;
	}
	return left;
}

void sim_zoned_crash(struct cfs_sim_disk *disk, enum cfs_sim_crash how)
{
	struct sim_zoned *z = disk->zoned;

	crash_flying(disk);
	for (uint32_t i = 0; i < z->g.n_zones; i++) {
		uint64_t left = how == CFS_SIM_POWER ? left_of(disk, i) : cfs_zones_written(z->zones, i);

		cfs_zones_cut(z->zones, i, left);
		if (how == CFS_SIM_POWER)
			z->firm[i] = left;
	}
	while (how == CFS_SIM_POWER && !cfs_list_empty(&z->tails))
		tail_free(cfs_list_first(&z->tails, struct tail, link));
}

void cfs_sim_disk_zone_fail(struct cfs_sim_disk *disk, uint32_t zone, enum cfs_zone_state state)
{
	CFS_ASSERT(disk->zoned);
	cfs_zones_fail(disk->zoned->zones, zone, state);
}
