/* SPDX-License-Identifier: MIT */
/*
 * metrics.h - the server's metrics for Prometheus, on a port of the loopback interface (metrics_port in the configuration). Names
 * and meaning: docs/observability.md.
 *
 * The page is made on a thread of its own from the node's STATUS document, which only the loop's thread may make: the page's thread asks for
 * it, wakes the loop, and waits for a bounded time; the loop's owner calls cfs_server_metrics_serve() whenever the loop returns.
 */
#ifndef CFS_SERVER_METRICS_H
#define CFS_SERVER_METRICS_H

#include <stddef.h>
#include <stdint.h>

struct cfs_loop;
struct cfs_node;
struct cfs_server_metrics;

/* 0, or -errno of the port. The loop must be running, or about to */
int cfs_server_metrics_start(uint16_t port, struct cfs_loop *loop, struct cfs_server_metrics **ret_m);
/* on the loop's thread: hand out the document if it was asked for */
void cfs_server_metrics_serve(struct cfs_server_metrics *m, struct cfs_node *node);
/* before the node is stopped; NULL is fine */
void cfs_server_metrics_stop(struct cfs_server_metrics *m);
/* the page of a STATUS document; malloc()ed, NULL when it is not one */
char *cfs_server_metrics_page(const char *status, size_t *ret_len);

#endif
