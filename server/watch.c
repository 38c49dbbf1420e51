/* SPDX-License-Identifier: MIT */
/* watch.c - see watch.h. State: the caller's struct cfs_watch; the server's thread. */
#include "server/watch.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "base/log.h"
#include "dev/nvme.h"

#define LOOK_NS CFS_NSEC_PER_SEC

bool cfs_watch_present(const char *path)
{
	struct cfs_nvme_ns ns;
	int fd;

	if (cfs_dev_is_nvme(path))
		return !cfs_nvme_identify(path, &ns);
	/* the node of a drive that was pulled may still be there: its device says no */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

const char *cfs_watch_gone(const struct cfs_watch *w)
{
	for (unsigned i = 0; i < w->n_targets; i++)
		if (w->targets[i].dev->stat.gone)
			return w->targets[i].path;
	return NULL;
}

static void look(struct cfs_timer *timer)
{
	struct cfs_watch *w = cfs_container_of(timer, struct cfs_watch, timer);
	unsigned gone = 0, present = 0;

	for (unsigned i = 0; i < w->n_targets; i++) {
		const struct cfs_node_target *t = &w->targets[i];

		if (!t->dev->stat.gone)
			continue;
		gone++;
		if (!w->gone[i])
			cfs_err("target %s is degraded: its device is gone; what it holds cannot be read until it is back",
				t->path);
		w->gone[i] = true;
		present += cfs_watch_present(t->path);
	}
	if (gone && present == gone)
		w->back(w->arg);
	else
		cfs_timer_set(w->clock, &w->timer, cfs_clock_boot_ns(w->clock) + LOOK_NS);
}

void cfs_watch_start(struct cfs_watch *w)
{
	w->timer = (struct cfs_timer){ .fn = look };
	for (unsigned i = 0; i < CFS_NODE_TARGETS_MAX; i++)
		w->gone[i] = false;
	cfs_timer_set(w->clock, &w->timer, cfs_clock_boot_ns(w->clock) + LOOK_NS);
}

void cfs_watch_stop(struct cfs_watch *w)
{
	if (w->clock)
		cfs_timer_cancel(w->clock, &w->timer);
	w->clock = NULL;
}
