// SPDX-License-Identifier: MIT
/*
 * test_trace.c - proves that readers of the trace see every event once and in order, each at his own pace; that one who is too slow is told
 * exactly how many he lost; and that a wait ends with an event, with its time, and when it is woken.
 */
#include "client/trace.h"

#include "base/base.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static struct cfs_trace *t;

static int set_up(void **state)
{
	(void)state;
	return cfs_trace_create(&t);
}

static int tear_down(void **state)
{
	(void)state;
	cfs_trace_destroy(t);
	return 0;
}

static void put(uint64_t from, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		cfs_trace_put(t, &(struct cfs_bpf_event){ .unique = from + i });
}

static void test_readers(void **state)
{
	struct cfs_bpf_event e[10];
	struct cfs_trace_reader a, b;

	(void)state;
	put(0, 5);
	cfs_trace_open(t, &a); /* sees nothing of before */
	assert_int_equal(cfs_trace_get(t, &a, e, 10, 1), 0);
	put(100, 15);
	cfs_trace_open(t, &b);
	assert_int_equal(cfs_trace_get(t, &a, e, 10, 1), 10);
	assert_int_equal(e[0].unique, 100);
	assert_int_equal(e[9].unique, 109);
	put(115, 1);
	assert_int_equal(cfs_trace_get(t, &b, e, 10, 1), 1);
	assert_int_equal(e[0].unique, 115);
	assert_int_equal(cfs_trace_get(t, &a, e, 10, 1), 6);
	assert_int_equal(e[5].unique, 115);
	assert_int_equal(a.lost + b.lost, 0);
}

static void test_slow(void **state)
{
	struct cfs_trace_reader a;
	struct cfs_bpf_event e;

	(void)state;
	cfs_trace_open(t, &a);
	put(0, CFS_TRACE_EVENTS + 7);
	assert_int_equal(cfs_trace_get(t, &a, &e, 1, 1), 1);
	assert_int_equal(a.lost, 7);
	assert_int_equal(e.unique, 7);
	put(CFS_TRACE_EVENTS + 7, 3);
	assert_int_equal(cfs_trace_get(t, &a, &e, 1, 1), 1);
	assert_int_equal(a.lost, 9); /* one of the three was made room for by the one that was read */
	assert_int_equal(e.unique, 10);
}

static void *wake(void *arg)
{
	(void)arg;
	cfs_trace_wake(t);
	return NULL;
}

static void *put_one(void *arg)
{
	(void)arg;
	put(1, 1);
	return NULL;
}

static void test_waits(void **state)
{
	struct cfs_trace_reader a;
	struct cfs_bpf_event e;
	pthread_t thread;

	(void)state;
	cfs_trace_open(t, &a);
	assert_int_equal(pthread_create(&thread, NULL, put_one, NULL), 0);
	assert_int_equal(cfs_trace_get(t, &a, &e, 1, 60000), 1); /* hangs for a minute if nobody wakes it */
	pthread_join(thread, NULL);
	/* a wake that comes before the wait is not for it: then time ends it */
	assert_int_equal(pthread_create(&thread, NULL, wake, NULL), 0);
	assert_int_equal(cfs_trace_get(t, &a, &e, 1, 300), 0);
	pthread_join(thread, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_readers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_slow, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_waits, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
