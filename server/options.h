/* SPDX-License-Identifier: MIT */
/*
 * options.h - claudefsd's command line, on top of its configuration file.
 */
#ifndef CFS_SERVER_OPTIONS_H
#define CFS_SERVER_OPTIONS_H

#include <stdbool.h>

#include "server/cluster/config.h"
#include "server/process.h"

#ifndef CFS_VERSION
#define CFS_VERSION "0.1"
#endif

struct cfs_options {
	bool check, daemon;
};

/*
 * Options win over the file that --config names. All paths are absolute then.
 * -1: go on; else the exit status, and what was wrong has been said.
 */
int cfs_options_read(struct cfs_process *p, int argc, char **argv, struct cfs_config *config, struct cfs_options *o);

#endif
