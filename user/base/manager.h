/* SPDX-License-Identifier: MIT */
/*
 * manager.h - the service manager that may have started us: what it is told (sd_notify(3)), its watchdog (sd_watchdog_enabled(3)),
 * and the descriptors that it keeps for a service from one process to the next (sd_pid_notify_with_fds(3), FDSTORE=1;
 * sd_listen_fds_with_names(3)). Where there is none, nothing happens.
 */
#ifndef CFS_BASE_MANAGER_H
#define CFS_BASE_MANAGER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

struct cfs_watchdog {
	struct cfs_clock *clock;
	struct cfs_timer timer;
	uint64_t ns;		/* between two signs of life; 0: none asked for */
};

/* such as "READY=1". 0 or -errno; -ENOTCONN: nobody listens */
int cfs_manager_notify(const char *state);

/* does it keep at least n descriptors for us (systemd 254 says so in $FDSTORE)? */
bool cfs_manager_keeps(unsigned n);
/* have it keep a duplicate under a name; it lets go of one by itself when that is in error. 0 or -errno */
int cfs_manager_store(const char *name, int fd);
void cfs_manager_unstore(const char *name);
/* a descriptor that it kept under that name, close-on-exec from now on; -1: none */
int cfs_manager_stored(const char *name);
/* children are none of its business: call it in them, before they run anything else */
void cfs_manager_forget(void);

/* signs of life as often as the service manager's environment asks for */
void cfs_watchdog_start(struct cfs_watchdog *w, struct cfs_clock *clock);
void cfs_watchdog_stop(struct cfs_watchdog *w);
/* one now, while the clock does not run */
void cfs_watchdog_pat(const struct cfs_watchdog *w);

#endif
