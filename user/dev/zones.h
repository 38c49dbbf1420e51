/* SPDX-License-Identifier: MIT */
/*
 * zones.h - the rules of a zoned device (write pointers, states, limits), without its bytes; for the devices
 * in memory that tests and the simulator use. They keep them strictly: what a drive might let pass, such as
 * two writes at once in a zone that happen to arrive in order, fails here.
 * Source: NVMe Zoned Namespace Command Set 1.1, section 2.1 (zone state machine).
 */
#ifndef CFS_DEV_ZONES_H
#define CFS_DEV_ZONES_H

#include "dev/dev.h"

struct cfs_zones;

/** cfs_zones_create() - all zones empty. 0, -EINVAL for a geometry that makes no sense, -ENOMEM. */
int cfs_zones_create(const struct cfs_zone_geometry *geometry, uint32_t write_unit,
		     struct cfs_zones **ret_zones);
void cfs_zones_destroy(struct cfs_zones *z);
/** cfs_zones_info() - size and zone fields of a device's info. */
void cfs_zones_info(const struct cfs_zones *z, struct cfs_dev_info *info);

/** cfs_zones_begin() - a WRITE or ZONE_APPEND is submitted; -EINVAL: another write is under way there. */
int cfs_zones_begin(struct cfs_zones *z, enum cfs_dev_op op, uint64_t offset);
/**
 * cfs_zones_end() - and now it is carried out (or, if !ok, has failed and moves nothing).
 * @ret_offset: where the bytes go. 0, or an error of struct cfs_dev_req.
 */
int cfs_zones_end(struct cfs_zones *z, enum cfs_dev_op op, uint64_t offset, uint64_t len, bool ok,
		  uint64_t *ret_offset);
/** cfs_zones_change() - RESET, FINISH, OPEN, CLOSE. */
int cfs_zones_change(struct cfs_zones *z, enum cfs_dev_op op, uint64_t offset);
/**
 * cfs_zones_read() - may these bytes be read? 0 or -ENXIO. What nobody has written reads as anything: it is
 * overwritten in `buf` with a pattern.
 */
int cfs_zones_read(const struct cfs_zones *z, uint64_t offset, void *buf, uint64_t len);
int cfs_zones_report(const struct cfs_zones *z, uint64_t offset, struct cfs_zone *zones, uint32_t n);
void cfs_zones_fail(struct cfs_zones *z, uint32_t zone, enum cfs_zone_state state);
/* bytes written to a zone; a finished one may hold less than its capacity */
uint64_t cfs_zones_written(const struct cfs_zones *z, uint32_t zone);
/* after a power cut: the zone holds just the first `bytes` of what was written, and no write is under way */
void cfs_zones_cut(struct cfs_zones *z, uint32_t zone, uint64_t bytes);

#endif
