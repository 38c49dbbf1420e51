/* SPDX-License-Identifier: MIT */
/*
 * loop.c - see loop.h; ring.c has the ring itself. The loop owns the ring, the timers, the posted functions and the hooks; all of it
 * belongs to the thread that made the loop. Only the eventfd and `stop` are touched from elsewhere.
 *
 * One turn costs one io_uring_enter(): what callbacks and hooks have queued is submitted by the same call
 * that waits for the next completion, and the first timer is that call's timeout.
 */
#include "ring/loop_i.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "base/log.h"

#define REAP_BATCH	64u

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

/* ---- making and ending ------------------------------------------------------------------- */

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
	return cfs_loop_create_with(entries, 0, ret_loop);
}

int cfs_loop_create_with(uint32_t entries, uint32_t flags, struct cfs_loop **ret_loop)
{
	struct cfs_loop *loop;
	uint64_t seed;
	int rc;

	if (entries < 8 || entries > CFS_LOOP_ENTRIES_MAX || (entries & (entries - 1)) ||
	    flags & ~CFS_LOOP_WIDE)
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
	rc = cfs_loop_ring_init(loop, entries, flags);
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
	cfs_loop_ring_exit(loop);
	if (loop->event_fd >= 0)
		close(loop->event_fd);
	cfs_timers_fini(&loop->timers);
	free(loop->posts);
	free(loop->running_posts);
	free(loop);
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
		struct cfs_loop_post_item *p = realloc(loop->posts, cap * sizeof(*p));

		if (!p)
			return -ENOBUFS;
		loop->posts = p;
		loop->cap_posts = cap;
	}
	loop->posts[loop->n_posts++] = (struct cfs_loop_post_item){ .fn = fn, .arg = arg };
	return 0;
}

/* what they post in turn waits for the next turn */
static void run_posts(struct cfs_loop *loop)
{
	struct cfs_loop_post_item *posts = loop->posts;
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

static void deliver(struct cfs_loop *loop, const struct cfs_loop_cqe *c)
{
	loop->extra = c->extra;
	if (c->op)
		c->op->done(c->op, c->res, c->flags);
}

static void run_stash(struct cfs_loop *loop)
{
	/* callbacks may stash more: they are appended behind, and the array may move */
	for (uint32_t i = 0; i < loop->n_stash; i++) {
		struct cfs_loop_cqe s = loop->stash[i];

		deliver(loop, &s);
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
			struct cfs_loop_cqe c = cfs_loop_cqe_read(loop, cqes[i]);

			/* given back one by one: a callback may submit, and stash what is in the ring */
			cfs_loop_cqe_seen(loop, c.flags);
			deliver(loop, &c);
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
	if (cfs_unlikely(loop->full_now))
		cfs_loop_ring_grow(loop);
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
