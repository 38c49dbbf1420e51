/* SPDX-License-Identifier: MIT */
/* sim_disk_i.h - shared by sim_disk.c (disks) and sim_zones.c (what is different when they have zones). */
#ifndef CFS_SIM_SIM_DISK_I_H
#define CFS_SIM_SIM_DISK_I_H

#include "sim/sim_i.h"

#define SIM_SECTOR	512u

struct sim_zoned;

struct cfs_sim_disk {
	struct cfs_sim *sim;
	struct cfs_sim_node *node;
	uint64_t size;
	uint32_t write_unit, atomic_unit;
	struct sim_zoned *zoned;	/* NULL: it has no zones */
	uint8_t *cur, *stable;		/* with zones there is only cur */
	struct cfs_sim_faults faults;
	struct cfs_sparse *sparse;	/* NULL: all of it is there */
	unsigned tear_sync;
	struct cfs_list cache, flying;	/* cached; requests under way */
	uint32_t n_cached;
	uint64_t seq;
	struct sim_dev *open;		/* of the present life */
	struct cfs_list devs;		/* all handles ever given out that were not closed */
};

struct sim_dev {
	struct cfs_dev dev;
	struct cfs_list link;		/* in disk->devs */
	struct cfs_sim_disk *disk;
	struct sim_life *life;
	uint32_t pending;
};

struct sim_io {
	struct sim_event event;
	struct cfs_list link;		/* in disk->flying */
	struct sim_dev *d;
	struct cfs_dev_req *req;
	uint64_t seq;			/* of the disk at submission: what a flush covers */
	int refused;			/* zones: another write was under way there */
};

/* sim_zones.c */
int sim_zoned_create(const struct cfs_zone_geometry *geometry, uint32_t write_unit, struct sim_zoned **ret_zoned);
void sim_zoned_destroy(struct sim_zoned *z);
void sim_zoned_info(const struct sim_zoned *z, struct cfs_dev_info *info);
void sim_zoned_submitted(struct sim_io *io);
/* what a request comes to; not for FLUSH */
int64_t sim_zoned_execute(struct cfs_sim_disk *disk, struct sim_io *io);
/* everything that completed before `seq` is durable now */
void sim_zoned_flush(struct cfs_sim_disk *disk, uint64_t seq);
void sim_zoned_crash(struct cfs_sim_disk *disk, enum cfs_sim_crash how);
int sim_zoned_write_sync(struct cfs_sim_disk *disk, uint64_t offset, const void *buf, uint32_t len);
int sim_zoned_read(struct cfs_sim_disk *disk, uint64_t offset, void *buf, uint64_t len);
int sim_zoned_report(struct cfs_dev *dev, uint64_t offset, struct cfs_zone *zones, uint32_t n);
int sim_zoned_sync(struct cfs_dev *dev, enum cfs_dev_op op, uint64_t offset);
int sim_zoned_flush_sync(struct cfs_dev *dev);

/* sim_disk.c: a blocking write or change of a zone begins. true: it is the one that the power cut comes in */
bool sim_disk_torn(struct cfs_sim_disk *disk);

#endif
