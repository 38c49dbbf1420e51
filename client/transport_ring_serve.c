// SPDX-License-Identifier: MIT
/*
 * transport_ring_serve.c - what a thread of the uring tier does: takes requests from its entry, sees that others wait in its stead, gives
 * answers or waits for those that come from elsewhere. See transport_ring.c.
 */
#include "client/transport_ring_i.h"

#include "base/log.h"
#include "client/client_i.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define QUEUE_THREADS_MAX	64u	/* that serve; waits for locks come on top */
#define KICK_UNIQUE		(1ull << 62)	/* and more; the kernel's own count never gets there */

/* if nobody waits for requests in this queue any more: have somebody. The lock is held */
static void need_thread(struct cfs_rings *r, struct ring_queue *q)
{
	if (!__atomic_load_n(&q->idle, __ATOMIC_SEQ_CST) && !q->starting && !r->stop) {
		q->starting = q->threads - q->parked < QUEUE_THREADS_MAX && !cfs_ring_thread_start(r, q);
		r->full += !q->starting;
	}
}

/* a thread serves its request, or waits for an answer from elsewhere about this inode */
static void set_waiting(struct ring_thread *t, uint64_t ino)
{
	pthread_mutex_lock(&t->r->lock);
	if (ino)
		t->q->parked++;
	else
		t->q->parked--;
	t->waits_for = ino;
	need_thread(t->r, t->q);
	pthread_mutex_unlock(&t->r->lock);
}

static void have_thread(struct ring_thread *t)
{
	pthread_mutex_lock(&t->r->lock);
	need_thread(t->r, t->q);
	pthread_mutex_unlock(&t->r->lock);
}

static bool is_answered(struct ring_ent *e)
{
	bool yes;

	pthread_mutex_lock(&e->lock);
	yes = e->answered;
	pthread_mutex_unlock(&e->lock);
	return yes;
}

/* somebody else will answer: wait for it; false: the mount ends before */
static bool await_answer(struct ring_thread *t, struct ring_ent *e)
{
	bool ok;

	__atomic_add_fetch(&t->r->waits, 1, __ATOMIC_RELAXED);
	set_waiting(t, e->ino);
	pthread_mutex_lock(&e->lock);
	while (!e->answered && !__atomic_load_n(&t->r->stop, __ATOMIC_ACQUIRE))
		pthread_cond_wait(&e->cond, &e->lock);
	ok = e->answered;
	pthread_mutex_unlock(&e->lock);
	set_waiting(t, 0);
	return ok;
}

/* make the kernel look at what it has queued; see above */
static int retrieve_nothing(struct cfs_rings *r, uint64_t ino)
{
	struct {
		struct fuse_out_header out;
		struct fuse_notify_retrieve_out retrieve;
	} note = {
		.out = { .len = sizeof(note), .error = FUSE_NOTIFY_RETRIEVE },
		.retrieve = { .notify_unique = KICK_UNIQUE + 2 * __atomic_add_fetch(&r->kicks, 1, __ATOMIC_RELAXED),
			      .nodeid = ino },
	};

	return write(r->fd, &note, sizeof(note)) < 0 ? -errno : 0;
}

void cfs_ring_kick(struct cfs_rings *r, struct ring_queue *q)
{
	uint64_t file = __atomic_load_n(&q->file, __ATOMIC_RELAXED);
	struct cfs_list *pos;
	int rc;

	pthread_mutex_lock(&r->lock);
	cfs_list_for_each(pos, &r->threads) {
		const struct ring_thread *t = cfs_list_entry(pos, struct ring_thread, link);

		if (t->q == q && t->waits_for)
			file = t->waits_for;
	}
	pthread_mutex_unlock(&r->lock);
	rc = file ? retrieve_nothing(r, file) : -ENOENT;
	if (rc && rc != -ENOENT && rc != -ENODEV && rc != -ENOTCONN)
		cfs_warn("the kernel cannot be asked for queued requests: %s", strerror(-rc));
}

/* remember a file that the kernel knows, and very likely still will */
static void note_file(struct ring_queue *q, const struct fuse_in_header *in)
{
	if (in->opcode == FUSE_READ || in->opcode == FUSE_WRITE || in->opcode == FUSE_FLUSH || in->opcode == FUSE_FSYNC)
		__atomic_store_n(&q->file, in->nodeid, __ATOMIC_RELAXED);
}

/* one request, from the kernel's buffers to the answer in the ring; false: no answer will come */
static bool serve(struct ring_thread *t, struct ring_ent *e)
{
	const struct fuse_in_header *in = (const void *)e->head->in_out;
	struct cfs_thread *self = cfs_thread_self(t->r->c);
	size_t len = 0;
	char *bytes;

	if (in->opcode == FUSE_NOTIFY_REPLY) { /* what comes of a kick: nothing, but what is queued comes after it */
		cfs_ring_ent_commit_empty(e);
		return true;
	}
	note_file(t->q, in);
	if (__atomic_sub_fetch(&t->q->idle, 1, __ATOMIC_SEQ_CST) == 0)
		have_thread(t);
	__atomic_add_fetch(&t->r->served, 1, __ATOMIC_RELAXED);
	e->commit_id = e->head->ring_ent_in_out.commit_id;
	e->unique = in->unique;
	e->ino = in->nodeid;
	e->answered = e->committed = false;
	bytes = cfs_ring_ent_gather(e, &len);
	if (bytes) {
		self->ring_buf = cfs_ring_payload(e);
		cfs_transport_serve(t->r->c, &e->chan, bytes, len);
		self->ring_buf = NULL;
	} else {
		struct fuse_out_header out = { .len = sizeof(out), .error = -EIO, .unique = e->unique };

		cfs_ring_ent_reply(&e->chan, &(struct iovec){ &out, sizeof(out) }, 1);
	}
	if (!e->committed) {
		if (!is_answered(e) && !await_answer(t, e))
			return false;
		cfs_ring_ent_commit(e);
	}
	__atomic_add_fetch(&t->q->idle, 1, __ATOMIC_SEQ_CST);
	return true;
}

void cfs_ring_serve(struct ring_thread *t)
{
	bool go = true;

	while (go && !__atomic_load_n(&t->r->stop, __ATOMIC_ACQUIRE)) {
		struct io_uring_cqe *cqe;
		int rc = io_uring_submit_and_wait(&t->ring, 1);

		if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY) {
			cfs_err("waiting for requests in a ring: %s", strerror(-rc));
			break;
		}
		if (io_uring_peek_cqe(&t->ring, &cqe))
			continue;
		rc = cqe->res;
		io_uring_cqe_seen(&t->ring, cqe);
		if (rc < 0 && rc != -ENOTCONN && rc != -ECONNABORTED && rc != -ENOENT)
			cfs_err("a ring of CPU %u ends: %s", t->q->qid, strerror(-rc));
		go = rc >= 0 && serve(t, t->ent);
	}
}
