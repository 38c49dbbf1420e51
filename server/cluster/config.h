/* SPDX-License-Identifier: MIT */
/*
 * config.h - what claudefsd is told, by an INI file and by options; see claudefsd.conf(5).
 *
 * Every key that is not known, every value that cannot be, and every key given twice is an error of
 * one line with file and line number. Options come after the file and win. Start-up only; one
 * thread.
 */
#ifndef CFS_SERVER_CLUSTER_CONFIG_H
#define CFS_SERVER_CLUSTER_CONFIG_H

#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "sched/sched.h"
#include "server/cluster/node.h"

struct cfs_config {
	char *listen;		/* host:port */
	char *advertise;	/* NULL: made from listen */
	char *state_dir;
	char *pid_file;		/* NULL: none */
	char *log_file;		/* NULL: stderr */
	enum cfs_log_level log_level;
	uint16_t metrics_port;	/* 0: none */
	enum cfs_sched_mode sched;
	uint32_t lease_ms;
	uint64_t checkpoint_bytes;
	char *targets[CFS_NODE_TARGETS_MAX];	/* paths; NULL where a number is not used */
	uint32_t poll[CFS_NODE_TARGETS_MAX];	/* CFS_NVME_IOPOLL, CFS_NVME_SQPOLL: flags for cfs_dev_open() */
	unsigned n_targets;			/* how many are not NULL */
	bool targets_set;			/* by options: then the file's do not count */
};

/* the defaults; 0 or -ENOMEM */
int cfs_config_init(struct cfs_config *c);
void cfs_config_free(struct cfs_config *c);

/* 0, or -EINVAL, -ENOENT, ... with one line in errbuf */
int cfs_config_read(struct cfs_config *c, const char *path, char *errbuf, size_t errlen);
/*
 * one option of the command line; key as in the file ("listen", ..., "target"). 0, or -EINVAL with
 * what is wrong in *ret_why
 */
int cfs_config_set(struct cfs_config *c, const char *key, const char *value, const char **ret_why);
/* is it complete? And fills in `advertise`. 0, or -EINVAL with one line in errbuf */
int cfs_config_check(struct cfs_config *c, char *errbuf, size_t errlen);

#endif
