/* SPDX-License-Identifier: MIT */
/*
 * transport_ring_i.h - private to the uring tier:
 *
 *	transport_ring.c	threads and queues: the tier; tells how all of it works
 *	transport_ring_serve.c	what a thread does with its entry: requests, answers, waits, kicks
 *	transport_ring_ent.c	one entry: its buffers, its commands, what the kernel put in and gets back
 *
 * The list of threads, and what queues count but `idle`, are under cfs_rings.lock. An entry belongs to its thread; its answer is under
 * the entry's own lock, since it may come from elsewhere.
 */
#ifndef CFS_CLIENT_TRANSPORT_RING_I_H
#define CFS_CLIENT_TRANSPORT_RING_I_H

#include "client/transport_i.h"

#include "base/list.h"
#include "uapi/fuse_new.h"

#include <liburing.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define START_MS		5000u	/* for the kernel to be ready for REGISTER */

struct ring_thread;

struct ring_ent {
	struct cfs_chan chan;
	struct ring_thread *t;
	struct fuse_uring_req_header *head;
	char *mem;			/* ENT_BYTES: room for headers, then the payload */
	uint64_t commit_id;
	uint64_t unique, ino;		/* of the request that is being served */
	bool committed;			/* its answer is with the kernel, or on its way in the ring */
	pthread_mutex_t lock;
	pthread_cond_t cond;		/* answered or abandoned */
	bool answered;
	bool abandoned;			/* the thread has gone, and t with it: nobody needs the answer */
};

struct ring_queue {
	unsigned qid;
	int idle;			/* atomic: threads that wait for requests */
	bool starting;			/* a thread is on its way */
	unsigned threads, parked;	/* parked: they wait for an answer from elsewhere */
	uint64_t file;			/* atomic: inode of the last request about an open file */
};

struct ring_thread {
	struct cfs_list link;
	struct cfs_rings *r;
	struct ring_queue *q;
	struct ring_ent *ent;
	struct io_uring ring;
	pthread_t thread;
	bool ended;			/* under the lock */
	uint64_t waits_for;		/* inode of the file whose lock its caller waits for, or 0; under the lock */
};

struct cfs_rings {
	struct cfs_client *c;
	int fd;
	bool stop;			/* atomic */
	bool started;			/* atomic: every queue has its first thread */
	pthread_mutex_t lock;
	pthread_cond_t cond;		/* a thread has registered, or failed */
	struct cfs_list threads;
	unsigned n_queues, n_registered, n_threads;
	int failed;			/* -errno of the first that could not register at the start */
	uint64_t served, waits;		/* atomic counters */
	uint64_t full;			/* requests at the limit of threads */
	uint64_t kicks;			/* atomic */
	struct ring_queue queues[];
};

/* ---- transport_ring_ent.c ---------------------------------------------------------------------------------- */
/* a ring for one entry. 0 or -errno */
int cfs_ring_make(struct io_uring *ring);
/* t: its thread, the ring of which it uses. 0 or -ENOMEM; goes with the last cfs_chan_put() */
int cfs_ring_ent_new(struct ring_thread *t, struct ring_ent **ret_e);
/* hand it to the kernel for the first time. 0 or -errno; by its thread, as all that follows */
int cfs_ring_ent_register(struct ring_thread *t, struct ring_ent *e);
/* the request that the kernel put in, its bytes in a row as libfuse wants them. NULL: not what it should be */
char *cfs_ring_ent_gather(struct ring_ent *e, size_t *ret_len);
/* where READ puts its bytes, CFS_IO_MAX of them */
char *cfs_ring_payload(struct ring_ent *e);
/* the answer, as cfs_chan.reply; from any thread */
ssize_t cfs_ring_ent_reply(struct cfs_chan *ch, struct iovec *iov, int count);
/* the answer goes to the kernel with the ring's next submission, and the entry with it */
void cfs_ring_ent_commit(struct ring_ent *e);
/* answers a request that is the kernel's own business with nothing, likewise */
void cfs_ring_ent_commit_empty(struct ring_ent *e);

/* ---- transport_ring_serve.c --------------------------------------------------------------------------------- */
/* until the tier stops, the mount ends, or no answer will come */
void cfs_ring_serve(struct ring_thread *t);
/* a new thread waits in q: the kernel is made to look at what it has queued there */
void cfs_ring_kick(struct cfs_rings *r, struct ring_queue *q);

/* ---- transport_ring.c --------------------------------------------------------------------------------------- */
/* one more thread for a queue; the lock is held. 0 or -errno */
int cfs_ring_thread_start(struct cfs_rings *r, struct ring_queue *q);

#endif
