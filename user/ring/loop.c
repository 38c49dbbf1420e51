/* SPDX-License-Identifier: MIT */
/*
 * loop.c - see loop.h. The loop owns the ring, the timers, the posted functions and the hooks; all of it
 * belongs to the thread that made the loop. Only the eventfd and `stop` are touched from elsewhere.
 *
 * One turn costs one io_uring_enter(): what callbacks and hooks have queued is submitted by the same call
 * that waits for the next completion, and the first timer is that call's timeout.
 */
#include "ring/loop.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "base/log.h"
#include "base/rng.h"
#include "ring/offload.h"
#include "ring/timers.h"

#define REAP_BATCH	64u
#define CQ_FACTOR	8u	/* completions per submission: multishot requests have many */

struct post {
	void (*fn)(void *arg);
	void *arg;
};

struct stashed_cqe {
	struct cfs_ring_op *op;
	int32_t res;
	uint32_t flags;
};

struct cfs_loop {
	struct cfs_clock clock;
	struct io_uring ring;
	struct cfs_timers timers;
	struct cfs_rng rng;
	struct cfs_loop_hook *hooks, *last_hooks, *next_hook;
	struct post *posts, *running_posts;
	uint32_t n_posts, cap_posts, cap_running;
	/* completions taken out of a full ring from inside cfs_loop_sqe(), until the next turn */
	struct stashed_cqe *stash;
	uint32_t n_stash, cap_stash;
	struct cfs_offload *offload;
	struct cfs_ring_op event_op;
	uint64_t event_count;
	uint32_t taken;		/* submission queue's head before the last reaping */
	bool drained;		/* that reaping left nothing */
	uint64_t files_used;	/* bit per slot of the ring's file table */
	int event_fd;
	uint16_t buf_groups;
	int stop;		/* atomic; set from anywhere */
	bool ring_ready, files_ready, clock_boottime, in_turn;
};

/* ---- clock ------------------------------------------------------------------------------- */

static struct cfs_loop *loop_of(struct cfs_clock *clock)
{
	return cfs_container_of(clock, struct cfs_loop, clock);
}

static uint64_t now_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * CFS_NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

static uint64_t loop_boot_ns(struct cfs_clock *clock)
{
	(void)clock;
	return now_ns(CLOCK_BOOTTIME);
}

static uint64_t loop_real_ns(struct cfs_clock *clock)
{
	(void)clock;
	return now_ns(CLOCK_REALTIME);
}

static void loop_timer_set(struct cfs_clock *clock, struct cfs_timer *timer, uint64_t deadline_ns)
{
	cfs_timers_set(&loop_of(clock)->timers, timer, deadline_ns);
}

static void loop_timer_cancel(struct cfs_clock *clock, struct cfs_timer *timer)
{
	cfs_timers_cancel(&loop_of(clock)->timers, timer);
}

static uint64_t loop_random(struct cfs_clock *clock)
{
	return cfs_rng_next(&loop_of(clock)->rng);
}

static void event_wake(void *arg)
{
	struct cfs_loop *loop = arg;
	const uint64_t one = 1;
	int saved = errno;

	/* the only failure is a counter that is full, and then the loop is awake anyhow */
	if (write(loop->event_fd, &one, sizeof(one)) < 0) {
	}
	errno = saved;
}

static int loop_offload(struct cfs_clock *clock, void (*work)(void *arg), void (*done)(void *arg),
			void *arg)
{
	struct cfs_loop *loop = loop_of(clock);
	int rc;

	if (!loop->offload) {
		rc = cfs_offload_create(CFS_LOOP_OFFLOAD_MAX, event_wake, loop, &loop->offload);
		if (rc)
			return rc;
	}
	return cfs_offload_submit(loop->offload, work, done, arg);
}

static const struct cfs_clock_ops loop_clock_ops = {
	.name = "loop",
	.version = CFS_CLOCK_OPS_VERSION,
	.boot_ns = loop_boot_ns,
	.real_ns = loop_real_ns,
	.timer_set = loop_timer_set,
	.timer_cancel = loop_timer_cancel,
	.random = loop_random,
	.offload = loop_offload,
};

struct cfs_clock *cfs_loop_clock(struct cfs_loop *loop)
{
	return &loop->clock;
}

/* ---- ring -------------------------------------------------------------------------------- */

struct io_uring *cfs_loop_ring(struct cfs_loop *loop)
{
	return &loop->ring;
}

static int ring_init(struct cfs_loop *loop, uint32_t entries)
{
	/* best first: deferred task work (6.1), cooperative (5.19), plain (5.14) */
	static const unsigned tries[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN |
			IORING_SETUP_SUBMIT_ALL,
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL,
		0,
	};
	int rc = -EINVAL;

	for (unsigned i = 0; i < CFS_ARRAY_SIZE(tries) && rc == -EINVAL; i++) {
		struct io_uring_params p = {
			.flags = tries[i] | IORING_SETUP_CQSIZE,
			.cq_entries = entries * CQ_FACTOR,
		};

		rc = io_uring_queue_init_params(entries, &loop->ring, &p);
	}
	if (rc)
		return rc;
	loop->ring_ready = true;
	io_uring_ring_dontfork(&loop->ring);
	/* both save time or precision only: kernels without them go on as they are */
	io_uring_register_ring_fd(&loop->ring);
	loop->clock_boottime = !io_uring_register_clock(&loop->ring,
		&(struct io_uring_clock_register){ .clockid = CLOCK_BOOTTIME });
	return 0;
}

static void event_arm(struct cfs_loop *loop)
{
	struct io_uring_sqe *sqe = cfs_loop_sqe(loop);

	io_uring_prep_read(sqe, loop->event_fd, &loop->event_count, sizeof(loop->event_count), 0);
	cfs_loop_sqe_set(sqe, &loop->event_op);
}

static void event_done(struct cfs_ring_op *op, int32_t res, uint32_t cqe_flags)
{
	struct cfs_loop *loop = cfs_container_of(op, struct cfs_loop, event_op);

	(void)cqe_flags;
	if (res < 0 && res != -EINTR && res != -EAGAIN)
		cfs_err("ring: reading the wake-up event failed: %s", strerror(-res));
	if (loop->offload)
		cfs_offload_reap(loop->offload);
	event_arm(loop);
}

int cfs_loop_create(uint32_t entries, struct cfs_loop **ret_loop)
{
	struct cfs_loop *loop;
	uint64_t seed;
	int rc;

	if (entries < 8 || entries > 32768 || (entries & (entries - 1)))
		return -EINVAL;
	loop = calloc(1, sizeof(*loop));
	if (!loop)
		return -ENOMEM;
	loop->clock.ops = &loop_clock_ops;
	cfs_timers_init(&loop->timers, CFS_LOOP_TIMERS_MAX);
	loop->event_op.done = event_done;
	loop->event_fd = eventfd(0, EFD_CLOEXEC);
	if (loop->event_fd < 0) {
		rc = -errno;
		goto err;
	}
	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed)) {
		rc = -EIO;
		goto err;
	}
	cfs_rng_seed(&loop->rng, seed);
	rc = ring_init(loop, entries);
	if (rc)
		goto err;
	event_arm(loop);
	*ret_loop = loop;
	return 0;
err:
	cfs_loop_destroy(loop);
	return rc;
}

void cfs_loop_destroy(struct cfs_loop *loop)
{
	if (!loop)
		return;
	cfs_offload_destroy(loop->offload);
	if (loop->ring_ready)
		io_uring_queue_exit(&loop->ring);
	if (loop->event_fd >= 0)
		close(loop->event_fd);
	cfs_timers_fini(&loop->timers);
	free(loop->posts);
	free(loop->running_posts);
	free(loop->stash);
	free(loop);
}

static struct cfs_ring_op *cqe_op(const struct io_uring_cqe *cqe)
{
	return (struct cfs_ring_op *)(uintptr_t)cqe->user_data;
}

/* make room in a completion queue whose overflow keeps the kernel from taking submissions */
static void stash_cqes(struct cfs_loop *loop)
{
	struct io_uring_cqe *cqe;

	while (!io_uring_peek_cqe(&loop->ring, &cqe)) {
		if (loop->n_stash == loop->cap_stash) {
			uint32_t cap = loop->cap_stash ? loop->cap_stash * 2 : 256;
			struct stashed_cqe *s = realloc(loop->stash, cap * sizeof(*s));

			CFS_ASSERT(s);
			loop->stash = s;
			loop->cap_stash = cap;
		}
		loop->stash[loop->n_stash++] = (struct stashed_cqe){
			.op = cqe_op(cqe), .res = cqe->res, .flags = cqe->flags,
		};
		io_uring_cqe_seen(&loop->ring, cqe);
	}
}

struct io_uring_sqe *cfs_loop_sqe(struct cfs_loop *loop)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&loop->ring))) {
		int rc = io_uring_submit(&loop->ring);

		if (rc == -EBUSY)
			stash_cqes(loop);
		else if (rc < 0 && rc != -EINTR && rc != -EAGAIN) {
			cfs_err("ring: submitting failed: %s", strerror(-rc));
			CFS_ASSERT(!"io_uring refuses submissions");
		}
	}
	return sqe;
}

void cfs_loop_sqe_set(struct io_uring_sqe *sqe, struct cfs_ring_op *op)
{
	io_uring_sqe_set_data(sqe, op);
}

uint32_t cfs_loop_mark(struct cfs_loop *loop)
{
	return loop->ring.sq.sqe_tail;
}

bool cfs_loop_taken(struct cfs_loop *loop, uint32_t mark)
{
	return loop->drained && (int32_t)(loop->taken - mark) >= 0;
}

int cfs_loop_file_add(struct cfs_loop *loop, int fd)
{
	int slot, rc;

	_Static_assert(CFS_LOOP_FILES_MAX <= 64, "files_used is one word");
	if (!loop->files_ready) {
		rc = io_uring_register_files_sparse(&loop->ring, CFS_LOOP_FILES_MAX);
		if (rc < 0)
			return -EOPNOTSUPP;
		loop->files_ready = true;
	}
	if (loop->files_used == UINT64_MAX)
		return -ENFILE;
	slot = __builtin_ctzll(~loop->files_used);
	rc = io_uring_register_files_update(&loop->ring, (unsigned)slot, &fd, 1);
	if (rc < 0)
		return rc;
	loop->files_used |= 1ull << slot;
	return slot;
}

void cfs_loop_file_del(struct cfs_loop *loop, int slot)
{
	const int none = -1;

	CFS_ASSERT(slot >= 0 && loop->files_used & (1ull << slot));
	loop->files_used &= ~(1ull << slot);
	if (io_uring_register_files_update(&loop->ring, (unsigned)slot, &none, 1) < 0)
		cfs_warn("ring: could not empty file slot %d", slot);
}

uint16_t cfs_loop_buf_group(struct cfs_loop *loop)
{
	CFS_ASSERT(loop->buf_groups < UINT16_MAX);
	return loop->buf_groups++;
}

/* ---- hooks and posted functions -------------------------------------------------------------- */

void cfs_loop_hook_add(struct cfs_loop *loop, struct cfs_loop_hook *hook)
{
	struct cfs_loop_hook **p = hook->last ? &loop->last_hooks : &loop->hooks;

	while (*p)
		p = &(*p)->next;
	hook->next = NULL;
	*p = hook;
}

void cfs_loop_hook_del(struct cfs_loop *loop, struct cfs_loop_hook *hook)
{
	struct cfs_loop_hook **p = hook->last ? &loop->last_hooks : &loop->hooks;

	while (*p && *p != hook)
		p = &(*p)->next;
	CFS_ASSERT(*p == hook);
	*p = hook->next;
	if (loop->next_hook == hook)	/* deleted by the hook that runs before it */
		loop->next_hook = hook->next;
}

static void run_hooks(struct cfs_loop *loop, struct cfs_loop_hook *first)
{
	struct cfs_loop_hook *h;

	for (loop->next_hook = first; (h = loop->next_hook);) {
		loop->next_hook = h->next;
		h->fn(h);
	}
}

int cfs_loop_post(struct cfs_loop *loop, void (*fn)(void *arg), void *arg)
{
	if (loop->n_posts == CFS_LOOP_POSTS_MAX)
		return -ENOBUFS;
	if (loop->n_posts == loop->cap_posts) {
		uint32_t cap = loop->cap_posts ? loop->cap_posts * 2 : 64;
		struct post *p = realloc(loop->posts, cap * sizeof(*p));

		if (!p)
			return -ENOBUFS;
		loop->posts = p;
		loop->cap_posts = cap;
	}
	loop->posts[loop->n_posts++] = (struct post){ .fn = fn, .arg = arg };
	return 0;
}

/* what they post in turn waits for the next turn */
static void run_posts(struct cfs_loop *loop)
{
	struct post *posts = loop->posts;
	uint32_t n = loop->n_posts, cap = loop->cap_posts;

	if (!n)
		return;
	loop->posts = loop->running_posts;
	loop->cap_posts = loop->cap_running;
	loop->n_posts = 0;
	loop->running_posts = posts;
	loop->cap_running = cap;
	for (uint32_t i = 0; i < n; i++)
		posts[i].fn(posts[i].arg);
}

/* ---- turning ----------------------------------------------------------------------------------- */

static void run_stash(struct cfs_loop *loop)
{
	/* callbacks may stash more: they are appended behind, and the array may move */
	for (uint32_t i = 0; i < loop->n_stash; i++) {
		struct stashed_cqe s = loop->stash[i];

		if (s.op)
			s.op->done(s.op, s.res, s.flags);
	}
	loop->n_stash = 0;
}

static void reap(struct cfs_loop *loop)
{
	struct io_uring_cqe *cqes[REAP_BATCH];
	uint32_t budget = loop->ring.cq.ring_entries;	/* then timers and hooks have their turn */
	unsigned n;

	loop->taken = io_uring_smp_load_acquire(loop->ring.sq.khead);
	loop->drained = false;
	if (cfs_unlikely(loop->n_stash))
		run_stash(loop);
	do {
		n = io_uring_peek_batch_cqe(&loop->ring, cqes, REAP_BATCH);
		for (unsigned i = 0; i < n; i++) {
			struct cfs_ring_op *op = cqe_op(cqes[i]);
			int32_t res = cqes[i]->res;
			uint32_t flags = cqes[i]->flags;

			/* given back one by one: a callback may submit, and stash what is in the ring */
			io_uring_cq_advance(&loop->ring, 1);
			if (op)
				op->done(op, res, flags);
			if (cfs_unlikely(loop->n_stash)) {
				run_stash(loop);
				break;
			}
		}
		budget -= cfs_min(n, budget);
	} while (n && budget);
	loop->drained = !n && !io_uring_cq_has_overflow(&loop->ring);
}

/* submit what is queued and wait until a completion, the first timer or the timeout */
static int submit_and_wait(struct cfs_loop *loop, uint64_t timeout_ns)
{
	struct __kernel_timespec ts;
	struct io_uring_cqe *cqe;
	uint64_t first = cfs_timers_first(&loop->timers);
	int rc;

	if (timeout_ns && first != UINT64_MAX) {
		uint64_t now = loop_boot_ns(&loop->clock);

		timeout_ns = first <= now ? 0 : cfs_min(timeout_ns, first - now);
		/* a suspended machine does not count on the default clock: look again now and then */
		if (!loop->clock_boottime)
			timeout_ns = cfs_min(timeout_ns, CFS_NSEC_PER_SEC);
	}
	if (!timeout_ns || loop->n_posts || loop->n_stash ||
	    __atomic_load_n(&loop->stop, __ATOMIC_ACQUIRE)) {
		rc = io_uring_submit_and_get_events(&loop->ring);
	} else {
		ts.tv_sec = (long long)(timeout_ns / CFS_NSEC_PER_SEC);
		ts.tv_nsec = (long long)(timeout_ns % CFS_NSEC_PER_SEC);
		rc = io_uring_submit_and_wait_timeout(&loop->ring, &cqe, 1,
						      timeout_ns == UINT64_MAX ? NULL : &ts, NULL);
	}
	/* -EBUSY, -EAGAIN: the kernel wants completions taken first, which comes next */
	if (rc >= 0 || rc == -ETIME || rc == -EINTR || rc == -EBUSY || rc == -EAGAIN)
		return 0;
	return rc;
}

int cfs_loop_turn(struct cfs_loop *loop, uint64_t timeout_ns)
{
	int rc;

	CFS_ASSERT(!loop->in_turn);
	loop->in_turn = true;
	/* first what was queued outside of a turn: hooks may have to flush it */
	run_hooks(loop, loop->hooks);
	run_hooks(loop, loop->last_hooks);
	rc = submit_and_wait(loop, timeout_ns);
	if (!rc) {
		reap(loop);
		if (loop->timers.n)
			cfs_timers_fire(&loop->timers, loop_boot_ns(&loop->clock));
		run_posts(loop);
	}
	loop->in_turn = false;
	return rc;
}

int cfs_loop_run(struct cfs_loop *loop)
{
	int rc = 0;

	while (!rc && !__atomic_load_n(&loop->stop, __ATOMIC_ACQUIRE))
		rc = cfs_loop_turn(loop, UINT64_MAX);
	__atomic_store_n(&loop->stop, 0, __ATOMIC_RELEASE);
	return rc;
}

void cfs_loop_stop(struct cfs_loop *loop)
{
	__atomic_store_n(&loop->stop, 1, __ATOMIC_RELEASE);
	event_wake(loop);
}
