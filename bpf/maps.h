/* SPDX-License-Identifier: GPL-2.0 */
/*
 * maps.h - the maps of what may be answered (see claudefs/bpf_shared.h). client/bpf_maps.c creates them once for a mount, of the
 * size its memory ceiling allows; every other object that includes this is given the same ones (bpf_map__reuse_fd).
 */
#ifndef CFS_BPF_MAPS_H
#define CFS_BPF_MAPS_H

#include "claudefs/bpf_shared.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct cfs_bpf_ctl);
} ctl SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct cfs_bpf_dir);
} dirs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct cfs_bpf_name_key);
	__type(value, struct cfs_bpf_name);
} names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct cfs_bpf_long_key);
	__type(value, struct cfs_bpf_name);
} long_names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct cfs_bpf_attr);
} attrs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cfs_bpf_stats);
} stats SEC(".maps");

#endif
