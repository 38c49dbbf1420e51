/* SPDX-License-Identifier: MIT */
/*
 * sched.h - the server's scheduler: loads bpf/meta_sched.bpf.c, a sched_ext scheduler for this process's threads alone, in which metadata goes
 * before completions and those before bulk work. Where it cannot be had, or ends, all threads are in the kernel's default
 * class, and cfs_sched_text() says why.
 *
 * Everything here belongs to the thread that called cfs_sched_start().
 */
#ifndef CFS_SCHED_SCHED_H
#define CFS_SCHED_SCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "claudefs/sched_shared.h"

struct cfs_sched;

enum cfs_sched_mode {
	CFS_SCHED_AUTO,		/* if this kernel has it */
	CFS_SCHED_EXT,		/* or do not start */
	CFS_SCHED_OFF,
};

/* "auto", "ext", "off"; false for anything else */
bool cfs_sched_mode_parse(const char *word, enum cfs_sched_mode *ret_mode);
/* whether this kernel and build could; the reason, if not, in @why */
bool cfs_sched_possible(char *why, size_t size);
/**
 * cfs_sched_start() - load the scheduler and put all threads of this process, and those they will make, under it
 * @ret_s: also made when there is no scheduler, unless this fails. The caller is a META thread.
 *
 * 0; with CFS_SCHED_EXT the errno of what failed and one line in @why; -ENOMEM.
 */
int cfs_sched_start(enum cfs_sched_mode mode, char *why, size_t why_size, struct cfs_sched **ret_s);
/* the class of thread @tid of this process (0: the caller); nothing without a scheduler. 0 or -errno */
int cfs_sched_thread(struct cfs_sched *s, pid_t tid, enum cfs_sched_class class);
/* the scheduler's settings now, for changing; NULL without one */
struct cfs_sched_tunables *cfs_sched_tunables(struct cfs_sched *s);
/* sums over all CPUs of one class; 0 or -errno */
int cfs_sched_stats(struct cfs_sched *s, enum cfs_sched_class class, struct cfs_sched_stats *ret_st);
/* notices that the kernel ended the scheduler: true once, when it did. Cheap */
bool cfs_sched_check(struct cfs_sched *s);
/* "ext", or "off: " and the reason; lives as long as @s. NULL is off */
const char *cfs_sched_text(const struct cfs_sched *s);
/* ends it; NULL is fine */
void cfs_sched_stop(struct cfs_sched *s);

#endif
