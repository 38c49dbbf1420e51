/* SPDX-License-Identifier: MIT */
/*
 * sim_disk.c - disks that survive their nodes; see sim.h.
 *
 * `cur` is what reads return, `stable` what has reached the medium. A write that is not durable changes cur when
 * it completes and is remembered, sector by sector, until a flush that was submitted afterwards completes. A
 * power cut decides for each remembered write, and for each one under way, whether it is kept, lost or torn at
 * sectors of 512 bytes, unless the disk writes as much as one (atomic_unit); then cur becomes what stable is. Overwritten sectors are
 * struck off older writes as soon as newer bytes are durable: nothing durable is ever undone. Disks with zones: sim_zones.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sim/sim_disk_i.h"
#include "sim/sparse.h"

#define SECTOR		SIM_SECTOR
#define GARBAGE_BYTES	(64ull << 10)	/* of a discarded range, from its start */
#define CACHED_MAX	65536u	/* writes a disk's cache remembers; beyond, the oldest reach the medium by themselves */

/* a completed write that is not durable yet */
struct cached {
	struct cfs_list link;		/* in disk->cache, oldest first */
	uint64_t offset, len, seq;
	bool atomic;
	uint8_t *struck;		/* per sector: durable bytes are newer */
	uint8_t bytes[];
};

static struct sim_dev *dev_of(struct cfs_dev *dev)
{
	return cfs_container_of(dev, struct sim_dev, dev);
}

static uint8_t *image_new(uint64_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CFS_ASSERT(p != MAP_FAILED);
	return p;
}

/* ---- what reaches the medium -------------------------------------------------------------------------- */

static void cached_free(struct cfs_sim_disk *disk, struct cached *w)
{
	cfs_list_del(&w->link);
	disk->n_cached--;
	free(w->struck);
	free(w);
}

/* remembered writes lose the sectors of [offset, offset + len) */
static void strike(struct cfs_sim_disk *disk, uint64_t offset, uint64_t len)
{
	struct cfs_list *pos;

	cfs_list_for_each(pos, &disk->cache) {
		struct cached *w = cfs_list_entry(pos, struct cached, link);
		uint64_t from = cfs_max(w->offset, offset), to;

		to = cfs_min(w->offset + w->len, offset + len);
		for (; from < to; from += SECTOR)
			w->struck[(from - w->offset) / SECTOR] = 1;
	}
}

static void cached_to_medium(struct cfs_sim_disk *disk, struct cached *w)
{
	for (uint64_t at = 0; at < w->len; at += SECTOR)
		if (!w->struck[at / SECTOR])
			memcpy(disk->stable + w->offset + at, w->bytes + at, SECTOR);
	cached_free(disk, w);	/* always the oldest: there is none whose sectors it would have to strike off */
}

/* everything that completed before `seq` */
static void flush_until(struct cfs_sim_disk *disk, uint64_t seq)
{
	while (!cfs_list_empty(&disk->cache)) {
		struct cached *w = cfs_list_first(&disk->cache, struct cached, link);

		if (w->seq >= seq)
			break;
		cached_to_medium(disk, w);
	}
}

static void write_durable(struct cfs_sim_disk *disk, uint64_t offset, const void *buf, uint64_t len)
{
	memcpy(disk->cur + offset, buf, len);
	memcpy(disk->stable + offset, buf, len);
	strike(disk, offset, len);
}

/* some sectors, each by chance */
static void write_torn(struct cfs_sim_disk *disk, uint64_t offset, const uint8_t *buf, uint64_t len)
{
	for (uint64_t at = 0; at < len; at += SECTOR)
		if (cfs_sim_chance(disk->sim, 500000))
			write_durable(disk, offset + at, buf + at, SECTOR);
}

static void write_cached(struct cfs_sim_disk *disk, uint64_t offset, const struct iovec *iov, uint32_t cnt,
			 uint64_t len, bool atomic)
{
	struct cached *w = sim_alloc(sizeof(*w) + len);
	uint64_t at = 0;

	for (uint32_t i = 0; i < cnt; i++) {
		memcpy(w->bytes + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	w->offset = offset;
	w->len = len;
	w->atomic = atomic;
	w->seq = disk->seq++;
	w->struck = sim_alloc(len / SECTOR);
	memcpy(disk->cur + offset, w->bytes, len);
	cfs_list_add_tail(&disk->cache, &w->link);
	if (++disk->n_cached > CACHED_MAX)
		cached_to_medium(disk, cfs_list_first(&disk->cache, struct cached, link));
}

/* ---- requests -------------------------------------------------------------------------------------------- */

static bool is_atomic(const struct sim_dev *d, uint64_t offset, uint64_t len)
{
	return cfs_dev_can_atomic(&d->dev.info, offset, len);
}

static void write_apply(struct sim_io *io, bool torn, bool durable)
{
	const struct cfs_dev_req *req = io->req;
	struct cfs_sim_disk *disk = io->d->disk;
	uint64_t at = req->offset;

	if (torn && is_atomic(io->d, req->offset, req->len)) {
		if (cfs_sim_chance(disk->sim, 500000))
			return;
		torn = false;
	}
	if (!durable && !torn) {
		write_cached(disk, req->offset, req->iov, req->iovcnt, req->len, is_atomic(io->d, req->offset, req->len));
		return;
	}
	for (uint32_t i = 0; i < req->iovcnt; i++) {
		if (torn)
			write_torn(disk, at, req->iov[i].iov_base, req->iov[i].iov_len);
		else
			write_durable(disk, at, req->iov[i].iov_base, req->iov[i].iov_len);
		at += req->iov[i].iov_len;
	}
}

static int64_t io_execute(struct sim_io *io)
{
	struct cfs_sim_disk *disk = io->d->disk;
	struct cfs_dev_req *req = io->req;
	uint64_t at = req->offset;

	if (disk->zoned && req->op != CFS_DEV_FLUSH)
		return sim_zoned_execute(disk, io);
	switch (req->op) {
	case CFS_DEV_READ:
		if (cfs_sim_chance(disk->sim, disk->faults.read_error_ppm))
			return -EIO;
		for (uint32_t i = 0; i < req->iovcnt; i++) {
			memcpy(req->iov[i].iov_base, disk->cur + at, req->iov[i].iov_len);
			at += req->iov[i].iov_len;
		}
		return (int64_t)req->len;
	case CFS_DEV_WRITE:
		if (disk->faults.full || (disk->sparse && cfs_sparse_take(disk->sparse, at, req->len)))
			return -ENOSPC;
		if (cfs_sim_chance(disk->sim, disk->faults.write_error_ppm)) {
			write_apply(io, true, false);
			return -EIO;
		}
		write_apply(io, false, req->flags & CFS_DEV_DURABLE);
		return (int64_t)req->len;
	case CFS_DEV_FLUSH:
		if (cfs_sim_chance(disk->sim, disk->faults.write_error_ppm))
			return -EIO;
		if (disk->zoned)
			sim_zoned_flush(disk, io->seq);
		else
			flush_until(disk, io->seq);
		return 0;
	case CFS_DEV_RESERVE:
		return cfs_sparse_take(disk->sparse, at, req->len);
	case CFS_DEV_ROOM:
		cfs_sparse_room(disk->sparse, &io->d->dev.room);
		return 0;
	case CFS_DEV_DISCARD:	/* a hint: half of the time it does nothing, else anything may be read: garbage */
		if (cfs_sim_chance(disk->sim, 500000))
			for (; at < req->offset + cfs_min(req->len, GARBAGE_BYTES); at += SECTOR) {
				uint8_t garbage[SECTOR];

				memset(garbage, 0xdb, sizeof(garbage));
				write_durable(disk, at, garbage, SECTOR);
			}
		if (disk->sparse)
			cfs_sparse_give(disk->sparse, req->offset, req->len);
		return 0;
	default:
		return -EINVAL;
	}
}

static void io_end(struct sim_io *io, int64_t result)
{
	struct cfs_dev_req *req = io->req;

	cfs_list_del(&io->link);
	io->d->pending--;
	free(io);
	req->result = result;
	req->done(req);
}

static void io_fire(struct sim_event *e)
{
	struct sim_io *io = cfs_container_of(e, struct sim_io, event);
	int64_t result = io_execute(io);

	cfs_sim_trace_add(e->life->sim, (uint64_t)result ^ io->req->offset << 8 ^ (uint64_t)io->req->op << 60);
	io_end(io, result);
}

static void io_lose(struct sim_event *e)
{
	io_end(cfs_container_of(e, struct sim_io, event), -ENODEV);
}

static uint64_t io_delay(struct cfs_sim_disk *disk, const struct cfs_dev_req *req)
{
	struct cfs_sim *sim = disk->sim;
	uint64_t ns = cfs_sim_between(sim, sim->p.disk_min_ns, sim->p.disk_max_ns);

	if (req->op == CFS_DEV_READ || req->op == CFS_DEV_WRITE || req->op == CFS_DEV_ZONE_APPEND)
		ns += req->len / 2;	/* 2 GB/s */
	return ns * cfs_max(disk->faults.slow, 1u);
}

static int sim_dev_submit(struct cfs_dev *dev, struct cfs_dev_req *req)
{
	struct sim_dev *d = dev_of(dev);
	struct sim_io *io;
	int rc = cfs_dev_check(dev, req);

	if (rc)
		return rc;
	if (!d->life->alive)
		return -ENODEV;
	io = sim_alloc(sizeof(*io));
	io->d = d;
	io->req = req;
	io->seq = d->disk->seq;
	io->event.fire = io_fire;
	io->event.lose = io_lose;
	if (d->disk->zoned)
		sim_zoned_submitted(io);
	cfs_list_add_tail(&d->disk->flying, &io->link);
	d->pending++;
	sim_schedule(d->life->sim, &io->event, d->life->sim->now + io_delay(d->disk, req), SIM_DISK, d->life);
	return 0;
}

static int check_sync(const struct sim_dev *d, uint64_t offset, uint32_t len)
{
	if (!d->life->alive)
		return -ENODEV;
	if ((offset | len) & (d->disk->write_unit - 1))
		return -EINVAL;
	return offset > d->disk->size || len > d->disk->size - offset ? -EINVAL : 0;
}

bool sim_disk_torn(struct cfs_sim_disk *disk)
{
	return disk->tear_sync && !--disk->tear_sync;
}

static int sim_dev_write_sync(struct cfs_dev *dev, uint64_t offset, const void *buf, uint32_t len)
{
	struct sim_dev *d = dev_of(dev);
	struct cfs_sim_disk *disk = d->disk;
	int rc = check_sync(d, offset, len);

	if (rc)
		return rc;
	cfs_sim_trace_add(disk->sim, SIM_DISK * 7u + offset);
	if (disk->zoned)
		return sim_zoned_write_sync(disk, offset, buf, len);
	if (sim_disk_torn(disk)) {
		if (!is_atomic(d, offset, len))
			write_torn(disk, offset, buf, len);
		else if (cfs_sim_chance(disk->sim, 500000))
			write_durable(disk, offset, buf, len);
		cfs_sim_node_crash(disk->node, CFS_SIM_POWER);
		return -EIO;
	}
	if (disk->faults.full || (disk->sparse && cfs_sparse_take(disk->sparse, offset, len)))
		return -ENOSPC;
	if (cfs_sim_chance(disk->sim, disk->faults.write_error_ppm)) {
		write_torn(disk, offset, buf, len);
		return -EIO;
	}
	write_durable(disk, offset, buf, len);
	return 0;
}

static int sim_dev_read_sync(struct cfs_dev *dev, uint64_t offset, void *buf, uint32_t len)
{
	struct sim_dev *d = dev_of(dev);
	int rc = check_sync(d, offset, len);

	if (rc)
		return rc;
	if (cfs_sim_chance(d->disk->sim, d->disk->faults.read_error_ppm))
		return -EIO;
	if (d->disk->zoned)
		return sim_zoned_read(d->disk, offset, buf, len);
	memcpy(buf, d->disk->cur + offset, len);
	return 0;
}

static void sim_dev_close(struct cfs_dev *dev)
{
	struct sim_dev *d = dev_of(dev);
	struct sim_event *e;
	struct cfs_list *pos, *tmp;

	CFS_ASSERT(!d->life->alive || !d->pending);
	/* after a crash without unwind: what vanished goes with the device */
	cfs_list_for_each_safe(pos, tmp, &d->disk->flying) {
		struct sim_io *io = cfs_list_entry(pos, struct sim_io, link);

		if (io->d != d)
			continue;
		e = &io->event;
		cfs_list_del(&io->link);
		cfs_list_del(&e->life_link);
		free(io);
	}
	if (d->disk->open == d)
		d->disk->open = NULL;
	cfs_list_del(&d->link);
	free(d);
}

static int sim_dev_reserved_sync(struct cfs_dev *dev, uint64_t offset, uint64_t len)
{
	const struct cfs_sim_disk *disk = dev_of(dev)->disk;

	return disk->sparse ? cfs_sparse_has(disk->sparse, offset, len) : -EOPNOTSUPP;
}

static const struct cfs_dev_ops sim_dev_ops = {
	.name = "sim",
	.version = CFS_DEV_OPS_VERSION,
	.submit = sim_dev_submit,
	.write_sync = sim_dev_write_sync,
	.read_sync = sim_dev_read_sync,
	.reserved_sync = sim_dev_reserved_sync,
	.close = sim_dev_close,
};

static const struct cfs_dev_ops sim_zoned_ops = {
	.name = "sim",
	.version = CFS_DEV_OPS_VERSION,
	.submit = sim_dev_submit,
	.write_sync = sim_dev_write_sync,
	.read_sync = sim_dev_read_sync,
	.zone_report = sim_zoned_report,
	.zone_sync = sim_zoned_sync,
	.flush_sync = sim_zoned_flush_sync,
	.close = sim_dev_close,
};

/* ---- disks ---------------------------------------------------------------------------------------------------- */

static int disk_create(struct cfs_sim_node *node, uint64_t size_bytes, uint32_t write_unit, struct sim_zoned *zoned,
		       struct cfs_sim_disk **ret_disk)
{
	struct cfs_sim_disk *disk;

	if (write_unit < SECTOR || write_unit > 4096 || (write_unit & (write_unit - 1)) || !size_bytes ||
	    size_bytes & (write_unit - 1) || size_bytes > (1ull << 44))
		return -EINVAL;
	if (node->n_disks == CFS_SIM_DISKS_MAX)
		return -ENOSPC;
	disk = sim_alloc(sizeof(*disk));
	disk->sim = node->sim;
	disk->node = node;
	disk->size = size_bytes;
	disk->write_unit = write_unit;
	disk->cur = image_new(size_bytes);
	disk->stable = zoned ? NULL : image_new(size_bytes);
	disk->zoned = zoned;
	disk->seq = 1;
	cfs_list_init(&disk->cache);
	cfs_list_init(&disk->flying);
	cfs_list_init(&disk->devs);
	node->disks[node->n_disks++] = disk;
	*ret_disk = disk;
	return 0;
}

int cfs_sim_disk_create(struct cfs_sim_node *node, uint64_t size_bytes, uint32_t write_unit,
			struct cfs_sim_disk **ret_disk)
{
	return disk_create(node, size_bytes, write_unit, NULL, ret_disk);
}

int cfs_sim_disk_create_zoned(struct cfs_sim_node *node, const struct cfs_zone_geometry *geometry,
			      uint32_t write_unit, struct cfs_sim_disk **ret_disk)
{
	struct sim_zoned *zoned;
	int rc = sim_zoned_create(geometry, write_unit, &zoned);

	if (rc)
		return rc;
	rc = disk_create(node, geometry->zone_bytes * geometry->n_zones, write_unit, zoned, ret_disk);
	if (rc)
		sim_zoned_destroy(zoned);
	return rc;
}

void cfs_sim_disk_atomic(struct cfs_sim_disk *disk, uint32_t unit_bytes)
{
	disk->atomic_unit = unit_bytes;
}

int cfs_sim_disk_open(struct cfs_sim_disk *disk, struct cfs_dev **ret_dev)
{
	struct sim_dev *d;

	if (!disk->node->life->alive)
		return -ENODEV;
	if (disk->open)
		return -EBUSY;
	d = sim_alloc(sizeof(*d));
	d->dev.ops = &sim_dev_ops;
	d->dev.info = (struct cfs_dev_info){
		.size_bytes = disk->size,
		.write_unit = disk->write_unit,
		.mem_align = 512,
		.max_io = 8u << 20,
		.atomic_unit = disk->atomic_unit,
		.flags = CFS_DEV_F_VOLATILE | (disk->sparse ? CFS_DEV_F_SPARSE : 0),
		.model = "simulated disk",
	};
	if (disk->zoned) {
		d->dev.ops = &sim_zoned_ops;
		sim_zoned_info(disk->zoned, &d->dev.info);
	}
	d->disk = disk;
	d->life = disk->node->life;
	disk->open = d;
	cfs_list_add_tail(&disk->devs, &d->link);
	*ret_dev = &d->dev;
	return 0;
}

/*
 * Writes under way at a power cut may have reached the medium in part, from within the buffers of a process that is
 * still there as memory. A killed process leaves its drive powered: what was handed over is carried out.
 */
void sim_disk_crash(struct cfs_sim_disk *disk, enum cfs_sim_crash how)
{
	struct cfs_list *pos;

	disk->open = NULL;
	if (disk->zoned) {
		sim_zoned_crash(disk, how);
		return;
	}
	cfs_list_for_each(pos, &disk->cache) {
		struct cached *w = cfs_list_entry(pos, struct cached, link);
		uint64_t dice;

		if (how != CFS_SIM_POWER)
			break;
		dice = cfs_sim_below(disk->sim, 3);	/* lost, torn, kept */
		if (dice == 1 && w->atomic)
			dice = 2 * cfs_sim_below(disk->sim, 2);
		for (uint64_t at = 0; at < w->len; at += SECTOR)
			if (!w->struck[at / SECTOR] &&
			    (dice == 2 || (dice == 1 && cfs_sim_chance(disk->sim, 500000))))
				memcpy(disk->stable + w->offset + at, w->bytes + at, SECTOR);
	}
	while (how == CFS_SIM_POWER && !cfs_list_empty(&disk->cache)) {
		struct cached *w = cfs_list_first(&disk->cache, struct cached, link);

		memcpy(disk->cur + w->offset, disk->stable + w->offset, w->len);
		cached_free(disk, w);
	}
	cfs_list_for_each(pos, &disk->flying) {
		struct sim_io *io = cfs_list_entry(pos, struct sim_io, link);
		uint64_t dice = cfs_sim_below(disk->sim, 3);

		if (io->d->life == disk->node->life && io->req->op == CFS_DEV_WRITE && !disk->faults.full && dice &&
		    !(disk->sparse && cfs_sparse_take(disk->sparse, io->req->offset, io->req->len)))
			write_apply(io, dice == 1, how == CFS_SIM_POWER);
	}
}

void sim_disk_fini(struct cfs_sim_disk *disk)
{
	while (!cfs_list_empty(&disk->devs)) {
		struct sim_dev *d = cfs_list_first(&disk->devs, struct sim_dev, link);

		cfs_list_del(&d->link);
		free(d);
	}
	while (!cfs_list_empty(&disk->cache))
		cached_free(disk, cfs_list_first(&disk->cache, struct cached, link));
	munmap(disk->cur, disk->size);
	if (disk->stable)
		munmap(disk->stable, disk->size);
	sim_zoned_destroy(disk->zoned);
	cfs_sparse_destroy(disk->sparse);
	free(disk);
}

void cfs_sim_disk_faults(struct cfs_sim_disk *disk, const struct cfs_sim_faults *faults)
{
	disk->faults = *faults;
	if (disk->sparse)
		cfs_sparse_others(disk->sparse, faults->below_full ? UINT64_MAX : 0);
}

void cfs_sim_disk_sparse(struct cfs_sim_disk *disk, uint64_t room_bytes)
{
	CFS_ASSERT(!disk->sparse && !disk->open);
	disk->sparse = cfs_sparse_create(disk->size, room_bytes);
}

void cfs_sim_disk_rot(struct cfs_sim_disk *disk, uint64_t offset, uint64_t len, unsigned bits)
{
	CFS_ASSERT(len && offset <= disk->size && len <= disk->size - offset);
	for (unsigned i = 0; i < bits; i++) {
		uint64_t at = offset + cfs_sim_below(disk->sim, len);
		uint8_t bit = (uint8_t)(1u << cfs_sim_below(disk->sim, 8));

		disk->cur[at] ^= bit;
		if (disk->stable)
			disk->stable[at] ^= bit;
	}
}

void cfs_sim_disk_tear_sync(struct cfs_sim_disk *disk, unsigned n)
{
	disk->tear_sync = n;
}

const uint8_t *cfs_sim_disk_bytes(const struct cfs_sim_disk *disk)
{
	return disk->cur;
}
