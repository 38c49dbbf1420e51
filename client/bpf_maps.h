/* SPDX-License-Identifier: MIT */
/*
 * bpf_maps.h - the BPF maps of one mount (include/claudefs/bpf_shared.h says what they mean), and the tables that show them:
 * iterators below /sys/fs/bpf/claudefs/<mount>/, which cat(1) reads, with the maps themselves in maps/, for bpftool.
 *
 * What was pinned is removed with the mount; what a killed client left behind, by the next mount on this machine, wherever that
 * is. It exists without the answering program and without a mount, needs the rights to load BPF programs, and is for nothing
 * but speed and sight: a mount that cannot have it goes on, and says why.
 *
 * Creating and destroying is the main thread's; in between the maps are the kernel's, and any thread may use their descriptors.
 */
#ifndef CFS_CLIENT_BPF_MAPS_H
#define CFS_CLIENT_BPF_MAPS_H

#include "claudefs/bpf_shared.h"

#include <stdbool.h>

#define CFS_BPF_MEM_DEFAULT	(64ull << 20)

struct bpf_object;
struct cfs_bpf_maps;

enum cfs_bpf_map {
	CFS_BPF_CTL, CFS_BPF_DIRS, CFS_BPF_NAMES, CFS_BPF_LONG_NAMES, CFS_BPF_ATTRS, CFS_BPF_STATS,
	CFS_BPF_INFLIGHT, CFS_BPF_SESSIONS, CFS_BPF_MAPS
};

/**
 * cfs_bpf_maps_create() - make the maps and show them.
 * @mountpoint: whose maps these are; gives <mount> its name. NULL: show nothing
 * @mem_bytes: ceiling for dirs, names, long_names and attrs together, which the kernel allocates at once; 0: nothing is going
 *	to be put there, they are made as small as may be
 * @why: one line: what is missing, on failure; on success what could not be shown, or nothing
 * Return: 0, -EPERM, -EOPNOTSUPP (built without, or the kernel cannot), or -errno.
 */
int cfs_bpf_maps_create(const char *mountpoint, uint64_t mem_bytes, struct cfs_bpf_maps **ret_m, char *why, size_t len);
/* removes what was pinned. Programs that still use the maps keep them, unseen */
void cfs_bpf_maps_destroy(struct cfs_bpf_maps *m);

/* stays ours: dup(2) it to keep it */
int cfs_bpf_maps_fd(const struct cfs_bpf_maps *m, enum cfs_bpf_map which);
uint32_t cfs_bpf_maps_max_entries(const struct cfs_bpf_maps *m, enum cfs_bpf_map which);
/* before an object that has maps of these names is loaded: it is given ours. 0 or -errno */
int cfs_bpf_maps_reuse(const struct cfs_bpf_maps *m, struct bpf_object *obj);

/* the map ctl as memory, shared with the programs: store with __atomic_store_n() */
struct cfs_bpf_ctl *cfs_bpf_maps_ctl(struct cfs_bpf_maps *m);
/* what the table `sessions` says from now on */
void cfs_bpf_maps_session(struct cfs_bpf_maps *m, const struct cfs_bpf_session *s);

/* /sys/fs/bpf/claudefs/<mount> of a mount point that is spelled canonically; for reports and tests */
void cfs_bpf_maps_path(const char *mountpoint, char *path, size_t len);

#endif
