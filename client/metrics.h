/* SPDX-License-Identifier: MIT */
/*
 * metrics.h - a mount's metrics for Prometheus, on a port of the loopback interface (-o metrics=PORT). Names and meaning:
 * docs/observability.md. Made from the client's own counters, so that they are the same on every kernel.
 */
#ifndef CFS_CLIENT_METRICS_H
#define CFS_CLIENT_METRICS_H

#include <stddef.h>
#include <stdint.h>

struct cfs_client;
struct cfs_mount_opts;

struct cfs_metrics;

/* 0, or -errno of the port */
int cfs_metrics_start(struct cfs_client *c, const struct cfs_mount_opts *o, struct cfs_metrics **ret_m);
/* NULL is fine; before the parts that are reported go */
void cfs_metrics_stop(struct cfs_metrics *m);
/* the page; malloc()ed */
char *cfs_metrics_page(struct cfs_client *c, const struct cfs_mount_opts *o, size_t *ret_len);

#endif
