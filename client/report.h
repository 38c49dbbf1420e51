/* SPDX-License-Identifier: MIT */
/*
 * report.h - the state of a mount as a JSON object: what `claudefs status` prints, and where metrics.c and observe.c take their numbers
 * from. Any thread; counters are read one by one, so sums are not one moment's. The caller owns what is returned.
 */
#ifndef CFS_CLIENT_REPORT_H
#define CFS_CLIENT_REPORT_H

struct cfs_client;
struct cfs_mount_opts;
struct json_t;

struct json_t *cfs_report(struct cfs_client *c, const struct cfs_mount_opts *mo);
/* the part of it that tells of tiers */
struct json_t *cfs_report_tiers(struct cfs_client *c);

#endif
