/* SPDX-License-Identifier: GPL-2.0 */
/*
 * kernel.h - for the BPF programs: the few kernel structures they read, each with only the members they read. The loader
 * finds those by name in the running kernel's BTF (CO-RE), so neither order nor size here mean anything, and no file generated
 * from one kernel is needed. Structures that differ from version to version stand once for each, as name___version.
 */
#ifndef CFS_BPF_KERNEL_H
#define CFS_BPF_KERNEL_H

#include <linux/bpf.h>
#include <linux/fuse.h>
#include <linux/types.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* include/linux/seq_file.h */
struct seq_file {
	long long index;
};

/* kernel/bpf/map_iter.c */
struct bpf_iter_meta {
	struct seq_file *seq;
	__u64 session_id;
	__u64 seq_num;
};

struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	void *key;
	void *value;
};

/* fs/fuse/fuse_i.h */
struct fuse_in_arg {
	unsigned int size;
	const void *value;
};

struct fuse_args {
	__u64 nodeid;
	__u32 opcode;
	__u8 in_numargs;
	struct fuse_in_arg in_args[4];
};

struct fuse_conn {
	__u32 dev;
};

struct fuse_mount {
	struct fuse_conn *fc;
};

struct fuse_chan { /* since 7.x */
	struct fuse_conn *conn;
};

struct fuse_req___chan {
	struct fuse_chan *chan;
};

struct fuse_req {
	struct fuse_args *args;
	struct {
		struct fuse_in_header h;
	} in;
	struct {
		struct fuse_out_header h;
	} out;
	struct fuse_mount *fm;
};

#pragma clang attribute pop

#endif
