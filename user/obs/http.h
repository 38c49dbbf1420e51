/* SPDX-License-Identifier: MIT */
/*
 * http.h - a page for a metrics collector: one thread that answers GET /metrics on a port of the loopback interface, one connection
 * at a time, each bounded in time and bytes. It knows no secrets and takes no input but the request line; whoever wants the page elsewhere puts
 * a proxy before it.
 */
#ifndef CFS_USER_OBS_HTTP_H
#define CFS_USER_OBS_HTTP_H

#include <stddef.h>
#include <stdint.h>

struct cfs_http;

/* the page, malloc()ed, or NULL: answered with 503. On the thread of cfs_http */
typedef char *(*cfs_http_page_fn)(void *arg, size_t *ret_len);

/** cfs_http_start() - listen on 127.0.0.1:port. 0, or -errno (-EADDRINUSE, -EACCES) */
int cfs_http_start(uint16_t port, cfs_http_page_fn page, void *arg, struct cfs_http **ret_h);
/* ends the thread; waits for a page that is being made. NULL is fine */
void cfs_http_stop(struct cfs_http *h);

#endif
