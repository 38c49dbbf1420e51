/* SPDX-License-Identifier: MIT */
/*
 * transport.h - requests from the kernel to libfuse's operations and back: our own loop below libfuse's decoding.
 *
 * Each worker reads from its own clone of the /dev/fuse descriptor and answers on it; in a mount that outlives its daemon all of
 * them share the one that its holder keeps, as a clone that dies takes its requests along. When the last worker that could read
 * takes a request, another worker is started, up to the limit; at the limit the last reader does not serve what
 * it reads but queues it for the others (bounded), so that interrupts and forgets always get through.
 */
#ifndef CFS_CLIENT_TRANSPORT_H
#define CFS_CLIENT_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>

struct cfs_client;
struct cfs_transport;
struct fuse_session;

/* a descriptor that answers go to; lives as long as a request read from it is unanswered */
struct cfs_chan;
struct cfs_chan *cfs_chan_get(struct cfs_chan *ch);
void cfs_chan_put(struct cfs_chan *ch);

/**
 * cfs_transport_create() - between c->se and /dev/fuse.
 * @fd: of /dev/fuse, from now on c->se's
 * @workers_max: threads that serve requests, at least 2
 */
int cfs_transport_create(struct cfs_client *c, int fd, unsigned workers_max, struct cfs_transport **ret_t);
/* start serving; 0 or -errno */
int cfs_transport_start(struct cfs_transport *t);
/* readable when the kernel has ended the connection */
int cfs_transport_end_fd(struct cfs_transport *t);
/* make the workers end without the kernel's help; what they serve is finished first */
void cfs_transport_stop(struct cfs_transport *t);
/* the same, and wait until they have; false: not within timeout_ms. Requests that were read but not answered stay so */
bool cfs_transport_quiesce(struct cfs_transport *t, unsigned timeout_ms);
/* joins the workers */
void cfs_transport_destroy(struct cfs_transport *t);

struct cfs_transport_stat {
	unsigned workers, idle, overflow;
	uint64_t overflowed;
};
void cfs_transport_stat(struct cfs_transport *t, struct cfs_transport_stat *ret);

#endif
