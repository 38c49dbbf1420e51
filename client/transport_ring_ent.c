// SPDX-License-Identifier: MIT
/*
 * transport_ring_ent.c - one entry of a ring: the buffers that the kernel fills with a request and takes the answer from, and the
 * commands that pass it to and fro. See transport_ring.c.
 */
#include "client/transport_ring_i.h"

#include "base/log.h"
#include "client/client_i.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/*
 * A request comes after the answers that its caller has had: the kernel sees to it, by a ring as by /dev/fuse. ThreadSanitizer
 * knows that of read(2) and write(2), and of a ring has to be told.
 */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
static char order;
#define answer_given()	__tsan_release(&order)
#define request_taken()	__tsan_acquire(&order)
#else
#define answer_given()	((void)0)
#define request_taken()	((void)0)
#endif

#define RING_ENTRIES		4u	/* one entry is one request: more than ever needed */
#define HEAD_BYTES		4096u	/* before the payload; a request's headers are put at its end */
#define PAYLOAD_BYTES		CFS_IO_MAX
#define ENT_BYTES		(HEAD_BYTES + PAYLOAD_BYTES)

char *cfs_ring_payload(struct ring_ent *e)
{
	return e->mem + HEAD_BYTES;
}

static void ent_destroy(struct cfs_chan *ch)
{
	struct ring_ent *e = cfs_container_of(ch, struct ring_ent, chan);

	munmap(e->mem, ENT_BYTES);
	free(e->head);
	pthread_cond_destroy(&e->cond);
	pthread_mutex_destroy(&e->lock);
	free(e);
}

/* the command for the entry; its thread submits it */
static void cfs_ring_ent_queue(struct ring_ent *e, uint32_t op, const struct iovec *iov)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&e->t->ring);
	struct fuse_uring_cmd_req *req;

	CFS_ASSERT(sqe != NULL); /* one entry a ring, one command at a time */
	memset(sqe, 0, 2 * sizeof(*sqe));
	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, e->t->r->fd, iov, iov ? 2 : 0, 0);
	sqe->cmd_op = op;
	req = (void *)sqe->cmd;
	req->qid = (uint16_t)e->t->q->qid;
	req->commit_id = e->commit_id;
	io_uring_sqe_set_data(sqe, e);
}

/* the answer into the kernel's form: 0 or -errno */
static int cfs_ring_ent_fill(struct ring_ent *e, const struct iovec *iov, int count)
{
	struct fuse_uring_ent_in_out *io = &e->head->ring_ent_in_out;
	char *to = cfs_ring_payload(e);
	size_t used = 0;

	for (int i = 1; i < count; i++) {
		if (iov[i].iov_len > PAYLOAD_BYTES - used)
			return -EMSGSIZE;
		if (iov[i].iov_base != to + used) /* READ answers in place */
			memmove(to + used, iov[i].iov_base, iov[i].iov_len);
		used += iov[i].iov_len;
	}
	memcpy(e->head->in_out, iov[0].iov_base, sizeof(struct fuse_out_header));
	*io = (struct fuse_uring_ent_in_out){ .commit_id = e->commit_id, .payload_sz = (uint32_t)used };
	return 0;
}

void cfs_ring_ent_commit(struct ring_ent *e)
{
	answer_given();
	cfs_ring_ent_queue(e, FUSE_IO_URING_CMD_COMMIT_AND_FETCH, NULL);
	e->committed = true;
}

void cfs_ring_ent_commit_empty(struct ring_ent *e)
{
	const struct fuse_in_header *in = (const void *)e->head->in_out;
	struct fuse_out_header out = { .len = sizeof(out), .unique = in->unique };

	e->commit_id = e->head->ring_ent_in_out.commit_id;
	cfs_ring_ent_fill(e, &(struct iovec){ &out, sizeof(out) }, 1);
	cfs_ring_ent_queue(e, FUSE_IO_URING_CMD_COMMIT_AND_FETCH, NULL);
}

ssize_t cfs_ring_ent_reply(struct cfs_chan *ch, struct iovec *iov, int count)
{
	struct ring_ent *e = cfs_container_of(ch, struct ring_ent, chan);
	const struct fuse_out_header *out = iov[0].iov_base;
	ssize_t rc = (ssize_t)out->len;
	int err;

	pthread_mutex_lock(&e->lock);
	if (e->abandoned)
		goto out;
	if (out->unique != e->unique) {	/* about an INTERRUPT that came before its request */
		rc = writev(e->t->r->fd, iov, count);
		goto out;
	}
	CFS_ASSERT(!e->answered);
	err = cfs_ring_ent_fill(e, iov, count);
	if (err) {
		errno = -err;
		rc = -1;
		goto out;
	}
	e->answered = true;
	if (!pthread_equal(e->t->thread, pthread_self())) {
		pthread_cond_signal(&e->cond);
	} else if (cfs_thread_self(e->t->r->c)->section & 1) {
		/* what the kernel is to keep must be with it before the reply section ends */
		cfs_ring_ent_commit(e);
		io_uring_submit(&e->t->ring);
	}
out:
	pthread_mutex_unlock(&e->lock);
	return rc;
}

int cfs_ring_ent_new(struct ring_thread *t, struct ring_ent **ret_e)
{
	struct ring_ent *e = calloc(1, sizeof(*e));

	if (!e)
		return -ENOMEM;
	e->head = aligned_alloc(4096, 4096);
	e->mem = mmap(NULL, ENT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!e->head || e->mem == MAP_FAILED) {
		free(e->head);
		if (e->mem != MAP_FAILED)
			munmap(e->mem, ENT_BYTES);
		free(e);
		return -ENOMEM;
	}
	e->chan = (struct cfs_chan){ .refs = 1, .reply = cfs_ring_ent_reply, .destroy = ent_destroy };
	e->t = t;
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->cond, NULL);
	*ret_e = e;
	return 0;
}

/* libfuse wants the bytes of a request in a row: its headers are put in front of the payload. NULL: not what it should be */
char *cfs_ring_ent_gather(struct ring_ent *e, size_t *ret_len)
{
	const struct fuse_in_header *in = (const void *)e->head->in_out;
	uint32_t payload = e->head->ring_ent_in_out.payload_sz;
	char *bytes;

	request_taken();
	if (in->len < sizeof(*in) || payload > PAYLOAD_BYTES || payload > in->len - sizeof(*in) ||
	    in->len - sizeof(*in) - payload > sizeof(e->head->op_in)) {
		cfs_err("a request from a ring has %u bytes, %u of them payload", in->len, payload);
		return NULL;
	}
	bytes = cfs_ring_payload(e) - (in->len - payload);
	memcpy(bytes, in, sizeof(*in));
	memcpy(bytes + sizeof(*in), e->head->op_in, in->len - payload - sizeof(*in));
	*ret_len = in->len;
	return bytes;
}

int cfs_ring_make(struct io_uring *ring)
{
	struct io_uring_params p = {
		.flags = IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
	};

	return io_uring_queue_init_params(RING_ENTRIES, ring, &p);
}

/* hand the entry to the kernel. A refusal comes at once, otherwise the command stays until there is a request */
int cfs_ring_ent_register(struct ring_thread *t, struct ring_ent *e)
{
	const struct iovec iov[2] = { { e->head, sizeof(*e->head) }, { cfs_ring_payload(e), PAYLOAD_BYTES } };
	uint64_t end = cfs_boot_ns() + START_MS * CFS_NSEC_PER_MSEC;
	struct io_uring_cqe *cqe;
	int rc;

	for (;;) {
		cfs_ring_ent_queue(e, FUSE_IO_URING_CMD_REGISTER, iov);
		rc = io_uring_submit_and_get_events(&t->ring);
		if (rc < 0)
			return rc;
		if (io_uring_peek_cqe(&t->ring, &cqe) || cqe->res >= 0) /* a request that came at once is seen later */
			return 0;
		rc = cqe->res;
		io_uring_cqe_seen(&t->ring, cqe);
		/* INIT is being answered just now. By the clock: on a busy machine a nap is long */
		if (rc != -EAGAIN || cfs_boot_ns() >= end || __atomic_load_n(&t->r->stop, __ATOMIC_ACQUIRE))
			return rc;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
}
