/* SPDX-License-Identifier: MIT */
/* transport_i.h - private to client/transport*.c: what the ways of requests share. */
#ifndef CFS_CLIENT_TRANSPORT_I_H
#define CFS_CLIENT_TRANSPORT_I_H

#include "client/transport.h"

#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#define CFS_WAKE_SIGNAL	SIGUSR2		/* interrupts whoever waits for a request, at the end */

/* where answers go: a descriptor (transport.c), or one entry of a ring (transport_ring.c) */
struct cfs_chan {
	unsigned refs;			/* atomic */
	/* iov[0] is the fuse_out_header; may come from another thread than took the request. As writev(2) */
	ssize_t (*reply)(struct cfs_chan *ch, struct iovec *iov, int count);
	void (*destroy)(struct cfs_chan *ch);	/* after the last put */
};

/* hand a request to libfuse's operations: a fuse_in_header and what belongs to it, len bytes */
void cfs_transport_serve(struct cfs_client *c, struct cfs_chan *chan, char *bytes, size_t len);

#endif
