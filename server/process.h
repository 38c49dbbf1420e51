/* SPDX-License-Identifier: MIT */
/*
 * process.h - claudefsd as a process: who started it and what they are told, the background, the log, the pid file.
 *
 * The log goes to stderr; with a log file, descriptor 2 is that file, so that what libraries and sanitizers say lands
 * there, too, and opening it anew replaces it in one step. Until the server serves, its errors are one line on the
 * stderr of whoever started it; in the background the parent, which waits, prints that line.
 */
#ifndef CFS_SERVER_PROCESS_H
#define CFS_SERVER_PROCESS_H

#include <stdbool.h>

#include "base/base.h"

#define CFS_EXIT_FAILED	1
#define CFS_EXIT_USAGE	2

struct cfs_process {
	int err_fd;		/* who started us, until we serve; -1 then */
	bool to_parent;		/* err_fd is the pipe to a parent that waits */
	bool has_log;		/* stderr is a log file */
	const char *pid_file;	/* written, to be removed; the caller's string */
};

void cfs_process_init(struct cfs_process *p);
void cfs_process_exit(struct cfs_process *p);
/* one line to who started us, and to the log if that is another place; returns CFS_EXIT_FAILED */
CFS_PRINTF(2, 3) int cfs_process_complain(struct cfs_process *p, const char *fmt, ...);
/* stderr is this file from now on. 0 or -errno */
int cfs_process_log(struct cfs_process *p, const char *path);
/* the parent waits for cfs_process_serving() or a complaint, and ends. Returns in the child only: 0 or -errno */
int cfs_process_daemonize(struct cfs_process *p);
/* nobody needs to wait for us any more */
void cfs_process_serving(struct cfs_process *p);
/* as many descriptors as we may have */
void cfs_process_raise_limits(void);
/* once; path may be NULL: none. 0 or -errno */
int cfs_process_write_pid(struct cfs_process *p, const char *path);
void cfs_process_remove_pid(struct cfs_process *p);

#endif
