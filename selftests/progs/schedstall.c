// SPDX-License-Identifier: MIT
/*
 * schedstall.c - the server's scheduler (user/sched/sched.h) is made to let a thread starve: more metadata threads than there are CPUs compute
 * without end, and the setting that keeps them from having everything is off. The kernel's watchdog must end the scheduler, all threads must be in
 * the default class after that, and the one that starved must get on. Speaks TAP; needs sched_ext, as root.
 */
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "sched/sched.h"

#define WAIT_S 90	/* for the watchdog, of 5 s, in a machine that is emulated */
#define THREADS_MAX 64u

static atomic_bool stopping;
static atomic_ulong turns;
static struct cfs_sched *sched;
static unsigned results;

static bool result(bool good, const char *what)
{
	printf("%sok %u - %s\n", good ? "" : "not ", ++results, what);
	fflush(stdout);
	return good;
}

static void *meta_main(void *arg)
{
	(void)arg;
	if (cfs_sched_thread(sched, 0, CFS_SCHED_META))
		abort();
	while (!atomic_load_explicit(&stopping, memory_order_relaxed))
		;
	return NULL;
}

static void *bulk_main(void *arg)
{
	(void)arg;
	while (!atomic_load_explicit(&stopping, memory_order_relaxed))
		atomic_fetch_add_explicit(&turns, 1, memory_order_relaxed);
	return NULL;
}

static void nap(unsigned ms)
{
	nanosleep(&(struct timespec){ ms / 1000, (long)(ms % 1000) * 1000000 }, NULL);
}

/* threads of ours that are not in the default class */
static unsigned elsewhere(void)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	unsigned n = 0;

	while (d && (e = readdir(d)))
		n += atoi(e->d_name) > 0 && sched_getscheduler(atoi(e->d_name)) != SCHED_OTHER;
	if (d)
		closedir(d);
	return n;
}

int main(void)
{
	unsigned cpus = (unsigned)sysconf(_SC_NPROCESSORS_ONLN), metas = 2 * cpus + 1, i; /* one always waits, before all bulk work */
	pthread_t threads[THREADS_MAX + 1];
	char why[CFS_SCHED_WHY];
	unsigned long before;
	bool good = true, ended = false;

	if (metas > THREADS_MAX || !cfs_sched_possible(why, sizeof(why))) {
		printf("1..0 # SKIP %s\n", metas > THREADS_MAX ? "too many CPUs" : why);
		return 0;
	}
	if (cfs_sched_start(CFS_SCHED_EXT, why, sizeof(why), &sched)) {
		printf("# %s\nnot ok 1 - the scheduler loads\n1..1\n", why);
		return 1;
	}
	cfs_sched_tunables(sched)->starve_ns = 0;
	cfs_sched_tunables(sched)->give_up_ns = 0;
	for (i = 0; i <= metas; i++)	/* who is made by a thread of sched_ext is one */
		if (pthread_create(&threads[i], NULL, i < metas ? meta_main : bulk_main, NULL))
			abort();
	good &= result(elsewhere() == metas + 2, "all threads are the scheduler's");
	for (i = 0; i < WAIT_S * 10 && !ended; i++) {
		nap(100);
		ended = cfs_sched_check(sched);
	}
	printf("# after %.1f s: %s\n", i / 10.0, cfs_sched_text(sched));
	good &= result(ended && strstr(cfs_sched_text(sched), "failed to run"), "the kernel ends a scheduler that lets a thread starve, and says so");
	good &= result(elsewhere() == 0, "all threads are in the default class again");
	before = atomic_load(&turns);
	for (i = 0; i < 100 && atomic_load(&turns) == before; i++)
		nap(100);
	good &= result(atomic_load(&turns) != before, "who starved gets on");
	good &= result(cfs_sched_possible(why, sizeof(why)), "and a scheduler could be loaded again");
	atomic_store(&stopping, true);
	for (i = 0; i <= metas; i++)
		pthread_join(threads[i], NULL);
	cfs_sched_stop(sched);
	printf("1..%u\n", results);
	return !good;
}
