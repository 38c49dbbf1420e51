// SPDX-License-Identifier: MIT
/*
 * transport_ring.c - the uring tier: requests come and answers go through FUSE's io_uring queues (kernel 6.14), one for
 * each possible CPU. The kernel puts a request into the queue of the CPU that its caller runs on.
 *
 * A thread has an io_uring of its own, on the CPU of its queue, and one entry: buffers that the kernel fills with
 * one request. It serves what it took, as a worker of transport.c does, and gives the answer and asks for the next request in
 * one system call (COMMIT_AND_FETCH). So a caller is answered from its own CPU, by the thread that took the request; and a thread
 * that is busy never has an entry that the kernel could put another request into, where it would have to wait for it. Each queue
 * has one thread too many: when the last that waits for requests takes one, another is started, up to QUEUE_THREADS_MAX;
 * then requests queue up in the kernel. The kernel has no way to take an entry back, so threads stay, and there is no way back to
 * /dev/fuse before the unmount. It prefers the entry that was used last: those that a peak left behind sleep.
 *
 * A request that finds no entry waiting is queued, and the kernel hands queued requests out only when an answer is given in
 * that queue: never to an entry that is new, nor when all who are busy wait for locks. So a thread that is new makes a request of
 * its own, which it answers at once: a RETRIEVE of nothing, by notification, on its CPU. That needs a regular file which the
 * kernel knows. Whoever waits for a lock has one open, so such waits never keep others; without any, the next answer does it.
 *
 * Waits for locks are answered by the lock thread (locks.c, at most CFS_LOCK_WAITS_MAX): the thread that took the request waits for the
 * answer and sends it; it does not count as busy. FORGET, INTERRUPT and notifications stay on /dev/fuse.
 *
 * The list of threads, and what queues count but `idle`, are under the lock. An entry belongs to its thread; its
 * answer is under the entry's own lock, since it may come from elsewhere.
 */
#include "client/transport_i.h"

#include "base/log.h"
#include "client/client_i.h"
#include "uapi/fuse_new.h"

#include <errno.h>
#include <liburing.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 18)
#include <fuse3/fuse_lowlevel.h>

#define QUEUE_THREADS_MAX	64u	/* that serve; waits for locks come on top */
#define RING_ENTRIES		4u	/* one entry is one request: more than ever needed */
#define HEAD_BYTES		4096u	/* before the payload; a request's headers are put at its end */
#define PAYLOAD_BYTES		CFS_IO_MAX
#define ENT_BYTES		(HEAD_BYTES + PAYLOAD_BYTES)
#define START_MS		5000u	/* for the kernel to be ready for REGISTER */
#define KICK_UNIQUE		(1ull << 62)	/* and more; the kernel's own count never gets there */
#define NO_QUEUE		0xffffu	/* refused by the kernel, which then falls back to /dev/fuse */

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

/* ---- entries ------------------------------------------------------------------------------ */
static char *payload_of(struct ring_ent *e)
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
static void queue_cmd(struct ring_ent *e, uint32_t op, const struct iovec *iov)
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
static int fill_answer(struct ring_ent *e, const struct iovec *iov, int count)
{
	struct fuse_uring_ent_in_out *io = &e->head->ring_ent_in_out;
	char *to = payload_of(e);
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

static void commit(struct ring_ent *e)
{
	queue_cmd(e, FUSE_IO_URING_CMD_COMMIT_AND_FETCH, NULL);
	e->committed = true;
}

static ssize_t ent_reply(struct cfs_chan *ch, struct iovec *iov, int count)
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
	err = fill_answer(e, iov, count);
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
		commit(e);
		io_uring_submit(&e->t->ring);
	}
out:
	pthread_mutex_unlock(&e->lock);
	return rc;
}

static int ent_new(struct ring_thread *t, struct ring_ent **ret_e)
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
	e->chan = (struct cfs_chan){ .refs = 1, .reply = ent_reply, .destroy = ent_destroy };
	e->t = t;
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->cond, NULL);
	*ret_e = e;
	return 0;
}

/* ---- serving -------------------------------------------------------------------------------- */
static int thread_start(struct cfs_rings *r, struct ring_queue *q);

/* if nobody waits for requests in this queue any more: have somebody. The lock is held */
static void need_thread(struct cfs_rings *r, struct ring_queue *q)
{
	if (!__atomic_load_n(&q->idle, __ATOMIC_SEQ_CST) && !q->starting && !r->stop) {
		q->starting = q->threads - q->parked < QUEUE_THREADS_MAX && !thread_start(r, q);
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

/* libfuse wants the bytes of a request in a row: its headers are put in front of the payload. NULL: not what it should be */
static char *gather(struct ring_ent *e, size_t *ret_len)
{
	const struct fuse_in_header *in = (const void *)e->head->in_out;
	uint32_t payload = e->head->ring_ent_in_out.payload_sz;
	char *bytes;

	if (in->len < sizeof(*in) || payload > PAYLOAD_BYTES || payload > in->len - sizeof(*in) ||
	    in->len - sizeof(*in) - payload > sizeof(e->head->op_in)) {
		cfs_err("a request from a ring has %u bytes, %u of them payload", in->len, payload);
		return NULL;
	}
	bytes = payload_of(e) - (in->len - payload);
	memcpy(bytes, in, sizeof(*in));
	memcpy(bytes + sizeof(*in), e->head->op_in, in->len - payload - sizeof(*in));
	*ret_len = in->len;
	return bytes;
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

static void kick(struct cfs_rings *r, struct ring_queue *q)
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

/* ... and what comes of it: commits nothing, to be handed what is queued */
static bool is_kick(struct ring_ent *e)
{
	const struct fuse_in_header *in = (const void *)e->head->in_out;
	struct fuse_out_header out = { .len = sizeof(out), .unique = in->unique };

	if (in->opcode != FUSE_NOTIFY_REPLY)
		return false;
	e->commit_id = e->head->ring_ent_in_out.commit_id;
	fill_answer(e, &(struct iovec){ &out, sizeof(out) }, 1);
	queue_cmd(e, FUSE_IO_URING_CMD_COMMIT_AND_FETCH, NULL);
	return true;
}

/* one request, from the kernel's buffers to the answer in the ring; false: no answer will come */
static bool serve(struct ring_thread *t, struct ring_ent *e)
{
	const struct fuse_in_header *in = (const void *)e->head->in_out;
	struct cfs_thread *self = cfs_thread_self(t->r->c);
	size_t len = 0;
	char *bytes;

	if (is_kick(e))
		return true;
	note_file(t->q, in);
	if (__atomic_sub_fetch(&t->q->idle, 1, __ATOMIC_SEQ_CST) == 0)
		have_thread(t);
	__atomic_add_fetch(&t->r->served, 1, __ATOMIC_RELAXED);
	e->commit_id = e->head->ring_ent_in_out.commit_id;
	e->unique = in->unique;
	e->ino = in->nodeid;
	e->answered = e->committed = false;
	bytes = gather(e, &len);
	if (bytes) {
		self->ring_buf = payload_of(e);
		cfs_transport_serve(t->r->c, &e->chan, bytes, len);
		self->ring_buf = NULL;
	} else {
		struct fuse_out_header out = { .len = sizeof(out), .error = -EIO, .unique = e->unique };

		ent_reply(&e->chan, &(struct iovec){ &out, sizeof(out) }, 1);
	}
	if (!e->committed) {
		if (!is_answered(e) && !await_answer(t, e))
			return false;
		commit(e);
	}
	__atomic_add_fetch(&t->q->idle, 1, __ATOMIC_SEQ_CST);
	return true;
}

/* ---- threads ---------------------------------------------------------------------------------- */
/* a hint: callers are answered from their own CPU. Fails for CPUs that are offline or not ours */
static void stay_on_cpu(unsigned cpu)
{
	cpu_set_t set;

	if (cpu >= CPU_SETSIZE)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (pthread_setaffinity_np(pthread_self(), sizeof(set), &set))
		cfs_debug("cannot run on CPU %u", cpu);
}

static int make_ring(struct io_uring *ring)
{
	struct io_uring_params p = {
		.flags = IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
	};

	return io_uring_queue_init_params(RING_ENTRIES, ring, &p);
}

/* hand the entry to the kernel. A refusal comes at once, otherwise the command stays until there is a request */
static int register_ent(struct ring_thread *t, struct ring_ent *e)
{
	const struct iovec iov[2] = { { e->head, sizeof(*e->head) }, { payload_of(e), PAYLOAD_BYTES } };
	struct io_uring_cqe *cqe;
	int rc;

	for (unsigned ms = 0; ; ms++) {
		queue_cmd(e, FUSE_IO_URING_CMD_REGISTER, iov);
		rc = io_uring_submit_and_get_events(&t->ring);
		if (rc < 0)
			return rc;
		if (io_uring_peek_cqe(&t->ring, &cqe) || cqe->res >= 0) /* a request that came at once is seen later */
			return 0;
		rc = cqe->res;
		io_uring_cqe_seen(&t->ring, cqe);
		if (rc != -EAGAIN || ms >= START_MS) /* INIT is being answered just now */
			return rc;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
}

static void serve_requests(struct ring_thread *t)
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

/* whoever still has to answer finds it abandoned; with the ring ends what the kernel knows of the buffers */
static void leave_ent(struct ring_thread *t)
{
	struct ring_ent *e;

	pthread_mutex_lock(&t->r->lock);
	e = t->ent;
	t->ent = NULL;
	pthread_mutex_unlock(&t->r->lock);
	if (e) {
		pthread_mutex_lock(&e->lock);
		e->abandoned = true;
		pthread_mutex_unlock(&e->lock);
	}
	io_uring_queue_exit(&t->ring);
	if (e)
		cfs_chan_put(&e->chan);
}

static void *thread_main(void *arg)
{
	struct ring_thread *t = arg;
	struct cfs_rings *r = t->r;
	struct ring_ent *e = NULL;
	int rc;

	stay_on_cpu(t->q->qid);
	rc = make_ring(&t->ring);
	if (!rc) {
		rc = ent_new(t, &e);
		if (!rc) {
			pthread_mutex_lock(&r->lock);
			t->ent = e;
			pthread_mutex_unlock(&r->lock);
			rc = register_ent(t, e);
		}
		pthread_mutex_lock(&r->lock);
		t->q->starting = false;
		if (rc && !r->failed)
			r->failed = rc;
		r->n_registered += !rc;
		__atomic_add_fetch(&t->q->idle, !rc, __ATOMIC_SEQ_CST);
		pthread_cond_broadcast(&r->cond);
		pthread_mutex_unlock(&r->lock);
		if (!rc && __atomic_load_n(&r->started, __ATOMIC_ACQUIRE))
			kick(r, t->q);
		if (!rc)
			serve_requests(t);
		leave_ent(t);
	}
	cfs_thread_drop(r->c);
	pthread_mutex_lock(&r->lock);
	if (rc && !r->failed)
		r->failed = rc;
	t->q->starting = false;
	t->ended = true;
	t->q->threads--;
	pthread_cond_broadcast(&r->cond);
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

/* the lock is held */
static int thread_start(struct cfs_rings *r, struct ring_queue *q)
{
	struct ring_thread *t = calloc(1, sizeof(*t));
	int rc;

	if (!t)
		return -ENOMEM;
	t->r = r;
	t->q = q;
	rc = -pthread_create(&t->thread, NULL, thread_main, t);
	if (rc) {
		free(t);
		return rc;
	}
	cfs_list_add_tail(&r->threads, &t->link);
	q->threads++;
	r->n_threads++;
	return 0;
}

/* ends the threads; what they serve is finished first */
static void stop_threads(struct cfs_rings *r)
{
	struct timespec nap = { .tv_nsec = 5000000 };
	struct cfs_list *pos;
	bool all;

	__atomic_store_n(&r->stop, true, __ATOMIC_SEQ_CST);
	do { /* a signal may come just before the wait that it should end: repeat */
		all = true;
		pthread_mutex_lock(&r->lock);
		cfs_list_for_each(pos, &r->threads) {
			struct ring_thread *t = cfs_list_entry(pos, struct ring_thread, link);

			if (t->ended)
				continue;
			all = false;
			pthread_kill(t->thread, CFS_WAKE_SIGNAL);
			if (t->ent) {
				pthread_mutex_lock(&t->ent->lock);
				pthread_cond_broadcast(&t->ent->cond);
				pthread_mutex_unlock(&t->ent->lock);
			}
		}
		pthread_mutex_unlock(&r->lock);
		if (!all)
			nanosleep(&nap, NULL);
	} while (!all);
	while (!cfs_list_empty(&r->threads)) {
		struct ring_thread *t = cfs_list_first(&r->threads, struct ring_thread, link);

		cfs_list_del(&t->link);
		pthread_join(t->thread, NULL);
		free(t);
	}
}

/* ---- the tier ----------------------------------------------------------------------------------- */
/* as many as the kernel makes: one for each CPU that could ever be there */
static unsigned count_queues(void)
{
	FILE *f = fopen("/sys/devices/system/cpu/possible", "re");
	unsigned from, to, n = 0;

	while (f && fscanf(f, "%u", &from) == 1) {
		to = from;
		if (fscanf(f, "-%u", &to) != 1 || to < from)
			to = from;
		n += to - from + 1;
		if (fgetc(f) != ',')
			break;
	}
	if (f)
		fclose(f);
	return n && n < NO_QUEUE ? n : 1;
}

/* until every queue has an entry the kernel holds all requests back; a REGISTER that it refuses makes it give up */
static void fall_back(struct cfs_rings *r)
{
	struct ring_queue q = { .qid = NO_QUEUE };
	struct ring_thread t = { .r = r, .q = &q };
	struct ring_ent *e = NULL;

	if (make_ring(&t.ring))
		return;
	if (!ent_new(&t, &e)) {
		register_ent(&t, e);
		cfs_chan_put(&e->chan);
	}
	io_uring_queue_exit(&t.ring);
}

static int uring_probe(const struct cfs_tier_env *env, char *why, size_t len)
{
	char word[8] = "";
	struct io_uring ring;
	FILE *f;
	int rc;

	if (!(env->flags & FUSE_OVER_IO_URING)) {
		f = fopen("/sys/module/fuse/parameters/enable_uring", "re");
		if (f && fgets(word, sizeof(word), f)) {
			word[strcspn(word, "\n")] = 0;
			snprintf(why, len, "switched off in the kernel (fuse.enable_uring=%s)", word);
		} else {
			snprintf(why, len, "the kernel has none (needs 6.14)");
		}
		if (f)
			fclose(f);
		return -EOPNOTSUPP;
	}
	rc = make_ring(&ring);
	if (rc)
		snprintf(why, len, "io_uring: %s", strerror(-rc));
	else
		io_uring_queue_exit(&ring);
	return rc;
}

static int uring_start(struct cfs_client *c, char *why, size_t len)
{
	unsigned n = count_queues();
	struct cfs_rings *r = calloc(1, sizeof(*r) + n * sizeof(r->queues[0]));
	pthread_condattr_t attr;
	struct timespec ts;
	int rc = 0;

	if (!r)
		return -ENOMEM;
	r->c = c;
	r->fd = fuse_session_fd(c->se);
	r->n_queues = n;
	cfs_list_init(&r->threads);
	pthread_mutex_init(&r->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&r->cond, &attr);
	pthread_condattr_destroy(&attr);
	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += START_MS / 1000 * 2;
	pthread_mutex_lock(&r->lock);
	for (unsigned i = 0; i < n && !rc; i++) {
		r->queues[i] = (struct ring_queue){ .qid = i, .starting = true };
		rc = thread_start(r, &r->queues[i]);
	}
	while (!rc && !r->failed && r->n_registered < n)
		rc = -pthread_cond_timedwait(&r->cond, &r->lock, &ts);
	rc = rc ? rc : r->failed;
	pthread_mutex_unlock(&r->lock);
	__atomic_store_n(&r->started, true, __ATOMIC_RELEASE);
	if (rc) {
		snprintf(why, len, "the kernel does not take the rings: %s", strerror(-rc));
		stop_threads(r);
		fall_back(r);
		pthread_cond_destroy(&r->cond);
		pthread_mutex_destroy(&r->lock);
		free(r);
		return rc;
	}
	c->rings = r;
	return 0;
}

static void uring_stop(struct cfs_client *c)
{
	struct cfs_rings *r = c->rings;

	c->rings = NULL;
	stop_threads(r);
	pthread_cond_destroy(&r->cond);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static int uring_set(struct cfs_client *c, bool on, char *why, size_t len)
{
	(void)c;
	(void)on;
	snprintf(why, len, "the kernel keeps a connection's rings until it is unmounted: mount with uring=off");
	return -EOPNOTSUPP;
}

static void uring_stat(struct cfs_client *c, cfs_tier_put_fn put, void *arg)
{
	struct cfs_rings *r = c->rings;

	put(arg, "requests", __atomic_load_n(&r->served, __ATOMIC_RELAXED));
	put(arg, "waits", __atomic_load_n(&r->waits, __ATOMIC_RELAXED));
	pthread_mutex_lock(&r->lock);
	put(arg, "queues", r->n_queues);
	put(arg, "threads", r->n_threads);
	put(arg, "queues_full", r->full);
	pthread_mutex_unlock(&r->lock);
}

const struct cfs_tier_ops cfs_tier_uring = {
	.gives = "requests by io_uring, a queue per core",
	.probe = uring_probe,
	.start = uring_start,
	.stop = uring_stop,
	.set = uring_set,
	.stat = uring_stat,
};
