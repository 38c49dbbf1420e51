/* SPDX-License-Identifier: MIT */
/*
 * bpf_pins.h - one mount's directory in the BPF file system: made, filled, removed; and those of clients that were killed, found and
 * removed. Private to bpf_maps.c. A client holds a lock (flock) on its directory for as long as it lives, in whatever namespace:
 * a directory whose lock can be had is left over.
 */
#ifndef CFS_CLIENT_BPF_PINS_H
#define CFS_CLIENT_BPF_PINS_H

#include <limits.h>
#include <stddef.h>

struct bpf_program;

struct cfs_bpf_pins {
	char dir[PATH_MAX];
	int fd;				/* of dir, locked; -1: nothing is pinned */
};

/* each: 0, or -errno and one line in why. make: -EBUSY if a client that lives has this directory */
int cfs_bpf_pins_make(struct cfs_bpf_pins *p, const char *mountpoint, char *why, size_t len);
int cfs_bpf_pins_map(struct cfs_bpf_pins *p, int fd, const char *name, char *why, size_t len);
int cfs_bpf_pins_table(struct cfs_bpf_pins *p, struct bpf_program *prog, int map_fd, const char *name, char *why, size_t len);
void cfs_bpf_pins_remove(struct cfs_bpf_pins *p);

#endif
