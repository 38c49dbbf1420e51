/* SPDX-License-Identifier: MIT */
/*
 * watch.h - does the server still have its targets' devices? A drive may be pulled, and put back.
 *
 * A device that is gone makes its target degraded: it is named once, its objects cannot be read, clients write new
 * ones to other targets. When all that were gone are back, who watches is told, and opens them anew.
 */
#ifndef CFS_SERVER_WATCH_H
#define CFS_SERVER_WATCH_H

#include "base/clock.h"
#include "server/cluster/node.h"

struct cfs_watch {
	struct cfs_clock *clock;
	const struct cfs_node_target *targets;	/* borrowed */
	unsigned n_targets;
	void (*back)(void *arg);		/* all that were gone can be opened again; called once */
	void *arg;
	/* private */
	struct cfs_timer timer;
	bool gone[CFS_NODE_TARGETS_MAX];
};

/* the fields above "private" are set; looks once a second */
void cfs_watch_start(struct cfs_watch *w);
void cfs_watch_stop(struct cfs_watch *w);	/* also one that never started */
/* the path of a target whose device is gone, or NULL */
const char *cfs_watch_gone(const struct cfs_watch *w);
/* is there a device of this name? Blocking, short */
bool cfs_watch_present(const char *path);

#endif
