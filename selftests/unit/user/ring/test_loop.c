/* SPDX-License-Identifier: MIT */
/*
 * Proves of the reactor: timers fire once, in order, not early, and can be re-armed and cancelled from
 * callbacks; posted functions run on the next turn; hooks run before the loop sleeps, `last` ones last; a
 * submission queue smaller than a burst loses nothing; offloaded work runs elsewhere and is
 * reported here; stop() wakes a sleeping loop from another thread.
 */
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/base.h"
#include "base/rng.h"
#include "ring/loop.h"
#include "ring/timers.h"

static int setup(void **state)
{
	struct cfs_loop *loop;

	assert_int_equal(cfs_loop_create(8, &loop), 0);
	*state = loop;
	return 0;
}

static int teardown(void **state)
{
	cfs_loop_destroy(*state);
	return 0;
}

/* ---- timers ---------------------------------------------------------------------------- */
struct test_timer {
	struct cfs_timer t;
	struct cfs_clock *clock;
	uint64_t deadline, fired_at;
	unsigned order, count, again;
};

static unsigned next_order;

static void on_timer(struct cfs_timer *t)
{
	struct test_timer *tt = cfs_container_of(t, struct test_timer, t);

	tt->fired_at = cfs_clock_boot_ns(tt->clock);
	tt->order = next_order++;
	tt->count++;
	if (tt->again) {
		tt->again--;
		cfs_timer_set(tt->clock, t, 0);	/* in the past: must not fire in this pass for ever */
	}
}

static void test_timers_fire(void **state)
{
	struct cfs_loop *loop = *state;
	struct cfs_clock *clock = cfs_loop_clock(loop);
	uint64_t now = cfs_clock_boot_ns(clock);
	struct test_timer tt[50] = { 0 };

	next_order = 0;
	for (unsigned i = 0; i < 50; i++) {
		tt[i].t.fn = on_timer;
		tt[i].clock = clock;
		tt[i].deadline = now + (uint64_t)((i * 37) % 50) * CFS_NSEC_PER_MSEC / 2;
		cfs_timer_set(clock, &tt[i].t, tt[i].deadline);
		assert_true(cfs_timer_armed(&tt[i].t));
	}
	tt[3].again = 5;
	cfs_timer_cancel(clock, &tt[7].t);
	cfs_timer_cancel(clock, &tt[7].t);
	assert_false(cfs_timer_armed(&tt[7].t));
	cfs_timer_set(clock, &tt[9].t, now + 30 * CFS_NSEC_PER_MSEC);
	tt[9].deadline = now + 30 * CFS_NSEC_PER_MSEC;
	while (cfs_clock_boot_ns(clock) < now + 40 * CFS_NSEC_PER_MSEC)
		assert_int_equal(cfs_loop_turn(loop, 5 * CFS_NSEC_PER_MSEC), 0);
	for (unsigned i = 0; i < 50; i++) {
		assert_int_equal(tt[i].count, i == 7 ? 0 : i == 3 ? 6 : 1);
		if (i == 7 || i == 3)
			continue;
		assert_true(tt[i].fired_at >= tt[i].deadline);
		for (unsigned k = 0; k < 50; k++)
			if (k != 7 && k != 3 && tt[k].deadline < tt[i].deadline)
				assert_true(tt[k].order < tt[i].order);
	}
}

/* the loop sleeps until the deadline, and no longer, without other events */
static void test_timer_is_the_timeout(void **state)
{
	struct cfs_loop *loop = *state;
	struct cfs_clock *clock = cfs_loop_clock(loop);
	struct test_timer tt = { .t.fn = on_timer, .clock = clock };
	unsigned turns = 0;

	tt.deadline = cfs_clock_boot_ns(clock) + 20 * CFS_NSEC_PER_MSEC;
	cfs_timer_set(clock, &tt.t, tt.deadline);
	while (!tt.count) {
		assert_int_equal(cfs_loop_turn(loop, UINT64_MAX), 0);
		turns++;
	}
	assert_true(tt.fired_at >= tt.deadline);
	assert_true(tt.fired_at < tt.deadline + 2 * CFS_NSEC_PER_SEC);
	assert_true(turns < 20);	/* slept, did not spin */
}

/* random sets and cancels against a plain array */
static void test_heap_model(void **state)
{
	struct cfs_timers h;
	struct cfs_timer t[64] = { 0 };
	struct cfs_rng rng;

	(void)state;
	cfs_rng_seed(&rng, 42);
	cfs_timers_init(&h, 64);
	for (unsigned step = 0; step < 20000; step++) {
		struct cfs_timer *x = &t[cfs_rng_below(&rng, 64)];
		uint64_t first = UINT64_MAX;

		x->fn = on_timer;
		if (cfs_rng_below(&rng, 3))
			cfs_timers_set(&h, x, cfs_rng_below(&rng, 1000));
		else
			cfs_timers_cancel(&h, x);
		for (unsigned i = 0; i < 64; i++)
			if (cfs_timer_armed(&t[i]))
				first = cfs_min(first, t[i].deadline_ns);
		assert_int_equal(cfs_timers_first(&h), first);
	}
	cfs_timers_fini(&h);
	for (unsigned i = 0; i < 64; i++)
		assert_false(cfs_timer_armed(&t[i]));
}

/* ---- posts and hooks ----------------------------------------------------------------------- */
struct trace {
	struct cfs_loop *loop;
	char text[32];
	unsigned n;
};
struct test_hook {
	struct cfs_loop_hook h;
	struct trace *trace;
	char c;
	struct test_hook *kill;
};

static void on_hook(struct cfs_loop_hook *h)
{
	struct test_hook *th = cfs_container_of(h, struct test_hook, h);

	th->trace->text[th->trace->n++] = th->c;
	if (th->kill) {
		cfs_loop_hook_del(th->trace->loop, &th->kill->h);
		th->kill = NULL;
	}
}

static void on_post_again(void *arg)
{
	struct trace *t = arg;

	t->text[t->n++] = 'q';
}

static void on_post(void *arg)
{
	struct trace *t = arg;

	t->text[t->n++] = 'p';
	assert_int_equal(cfs_loop_post(t->loop, on_post_again, t), 0);
}

static void test_posts_and_hooks(void **state)
{
	struct cfs_loop *loop = *state;
	struct trace t = { .loop = loop };
	struct test_hook last = { { .fn = on_hook, .last = true }, &t, 'L', NULL };
	struct test_hook b = { { .fn = on_hook }, &t, 'b', NULL };
	struct test_hook a = { { .fn = on_hook }, &t, 'a', &b };

	cfs_loop_hook_add(loop, &last.h);
	cfs_loop_hook_add(loop, &a.h);
	cfs_loop_hook_add(loop, &b.h);
	assert_int_equal(cfs_loop_post(loop, on_post, &t), 0);
	/* with something posted no turn sleeps, however long it might */
	assert_int_equal(cfs_loop_turn(loop, UINT64_MAX), 0);
	assert_int_equal(cfs_loop_turn(loop, UINT64_MAX), 0);
	assert_string_equal(t.text, "aLpaLq");	/* b was deleted by a before its turn came */
	cfs_loop_hook_del(loop, &a.h);
	cfs_loop_hook_del(loop, &last.h);
	assert_int_equal(cfs_loop_turn(loop, 0), 0);
	assert_int_equal(t.n, 6);
}

static void nothing(void *arg)
{
	(void)arg;
}

static void test_posts_are_bounded(void **state)
{
	struct cfs_loop *loop = *state;

	for (unsigned i = 0; i < CFS_LOOP_POSTS_MAX; i++)
		assert_int_equal(cfs_loop_post(loop, nothing, NULL), 0);
	assert_int_equal(cfs_loop_post(loop, nothing, NULL), -ENOBUFS);
	assert_int_equal(cfs_loop_turn(loop, 0), 0);
	assert_int_equal(cfs_loop_post(loop, nothing, NULL), 0);
}

/* ---- ring ------------------------------------------------------------------------------------ */
struct nop {
	struct cfs_ring_op op;
	unsigned *done;
};

static void on_nop(struct cfs_ring_op *op, int32_t res, uint32_t flags)
{
	(void)flags;
	assert_int_equal(res, 0);
	(*cfs_container_of(op, struct nop, op)->done)++;
}

/* 1000 requests at once through a queue of 8, whose completion queue has 64 places */
static void test_burst_beyond_the_queue(void **state)
{
	struct cfs_loop *loop = *state;
	static struct nop nops[1000];
	unsigned done = 0;

	for (unsigned i = 0; i < 1000; i++) {
		struct io_uring_sqe *sqe = cfs_loop_sqe(loop);

		nops[i] = (struct nop){ { on_nop }, &done };
		io_uring_prep_nop(sqe);
		cfs_loop_sqe_set(sqe, &nops[i].op);
	}
	for (unsigned turns = 0; done < 1000 && turns < 1000; turns++)
		assert_int_equal(cfs_loop_turn(loop, CFS_NSEC_PER_MSEC), 0);
	assert_int_equal(done, 1000);
}

static void test_file_slots(void **state)
{
	struct cfs_loop *loop = *state;
	int slots[CFS_LOOP_FILES_MAX];

	slots[0] = cfs_loop_file_add(loop, STDERR_FILENO);
	if (slots[0] == -EOPNOTSUPP)
		skip();
	for (unsigned i = 1; i < CFS_LOOP_FILES_MAX; i++)
		assert_true((slots[i] = cfs_loop_file_add(loop, STDERR_FILENO)) >= 0);
	assert_int_equal(cfs_loop_file_add(loop, STDERR_FILENO), -ENFILE);
	cfs_loop_file_del(loop, slots[5]);
	assert_int_equal(cfs_loop_file_add(loop, STDERR_FILENO), slots[5]);
	assert_true(cfs_loop_file_add(loop, -7) < 0);
}

/* ---- threads ------------------------------------------------------------------------------------ */
struct job {
	pthread_t worker;
	unsigned ms;
	bool worked, done;
};

static void job_work(void *arg)
{
	struct job *j = arg;

	usleep(j->ms * 1000);
	j->worker = pthread_self();
	j->worked = true;
}

static void job_done(void *arg)
{
	struct job *j = arg;

	assert_true(j->worked);
	assert_false(pthread_equal(j->worker, pthread_self()));
	j->done = true;
}

static void test_offload(void **state)
{
	struct cfs_loop *loop = *state;
	struct cfs_clock *clock = cfs_loop_clock(loop);
	static struct job jobs[CFS_LOOP_OFFLOAD_MAX + 1];
	unsigned done = 0;

	for (unsigned i = 0; i < CFS_LOOP_OFFLOAD_MAX; i++) {
		jobs[i] = (struct job){ .ms = 1 };
		assert_int_equal(clock->ops->offload(clock, job_work, job_done, &jobs[i]), 0);
	}
	assert_int_equal(clock->ops->offload(clock, job_work, job_done, &jobs[CFS_LOOP_OFFLOAD_MAX]),
			 -ENOBUFS);
	for (unsigned turns = 0; done < CFS_LOOP_OFFLOAD_MAX && turns < 10000; turns++) {
		assert_int_equal(cfs_loop_turn(loop, CFS_NSEC_PER_SEC), 0);
		for (done = 0; done < CFS_LOOP_OFFLOAD_MAX && jobs[done].done;)
			done++;
	}
	assert_int_equal(done, CFS_LOOP_OFFLOAD_MAX);
	assert_false(jobs[CFS_LOOP_OFFLOAD_MAX].worked);
	/* destroy (in teardown) waits for this one and reports it */
	jobs[0] = (struct job){ .ms = 20 };
	assert_int_equal(clock->ops->offload(clock, job_work, job_done, &jobs[0]), 0);
}

static void *stopper(void *arg)
{
	usleep(20000);
	cfs_loop_stop(arg);
	return NULL;
}

static void test_stop_wakes(void **state)
{
	struct cfs_loop *loop = *state;
	pthread_t t;

	for (int i = 0; i < 2; i++) {	/* and it can be run again */
		assert_int_equal(pthread_create(&t, NULL, stopper, loop), 0);
		assert_int_equal(cfs_loop_run(loop), 0);
		pthread_join(t, NULL);
	}
	cfs_loop_stop(loop);	/* before run: it returns at once */
	assert_int_equal(cfs_loop_run(loop), 0);
}

static void test_random_differs(void **state)
{
	struct cfs_clock *clock = cfs_loop_clock(*state);
	struct cfs_loop *other;
	struct cfs_rng a, b;

	assert_int_equal(cfs_loop_create(8, &other), 0);
	assert_true(clock->ops->random(clock) != clock->ops->random(cfs_loop_clock(other)));
	cfs_loop_destroy(other);
	cfs_rng_seed(&a, 7);
	cfs_rng_seed(&b, 7);
	for (int i = 0; i < 100; i++)
		assert_int_equal(cfs_rng_next(&a), cfs_rng_next(&b));
	for (int i = 0; i < 1000; i++)
		assert_true(cfs_rng_below(&a, 10) < 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_timers_fire, setup, teardown),
		cmocka_unit_test_setup_teardown(test_timer_is_the_timeout, setup, teardown),
		cmocka_unit_test(test_heap_model),
		cmocka_unit_test_setup_teardown(test_posts_and_hooks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_posts_are_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(test_burst_beyond_the_queue, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file_slots, setup, teardown),
		cmocka_unit_test_setup_teardown(test_offload, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stop_wakes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random_differs, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
