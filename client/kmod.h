/* SPDX-License-Identifier: MIT */
/* kmod.h - what the tiers share that use a kernel module of ours (bpf/kmod). Any thread. */
#ifndef CFS_CLIENT_KMOD_H
#define CFS_CLIENT_KMOD_H

#include <stdbool.h>
#include <stddef.h>

/* 0, or -ENOENT with what modprobe says, which is the reason that people need. dry: could it be loaded? */
int cfs_kmod_load(const char *name, bool dry, char *why, size_t len);
/* deadlines are compared with the kernel's own boot-time clock: is ours another, as in a time namespace? */
bool cfs_kmod_other_clock(void);

#endif
