/* SPDX-License-Identifier: MIT */
/*
 * gates.h - backing files that can be taken back, of one mount: the device of the kernel module claudefs_gate (its contract is
 * bpf/kmod/claudefs_gate.h), and its events. The gates themselves belong to the inodes: data_gate.c. They are a part of
 * the passthrough tier (docs/passthrough.md), and do without where there is no module.
 */
#ifndef CFS_CLIENT_GATES_H
#define CFS_CLIENT_GATES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CFS_GATES_MAX	4096u		/* files open by gates at once; further ones are plain */

struct cfs_client;
struct cfs_data_gate_ops;

/* counters of a mount, atomic */
struct cfs_gates_stats {
	uint64_t gates;			/* just now */
	uint64_t gate_files, gate_no_room, gate_failed;
};

/* is the module there, or could be loaded? 0 or -errno; why: one line */
int cfs_gates_probe(char *why, size_t len);
/* 0, or -errno and one line: then c->gates stays NULL */
int cfs_gates_start(struct cfs_client *c, char *why, size_t len);
/* no event is handled any more; gates shut and tell what was written, but are not opened again */
void cfs_gates_stop(struct cfs_client *c);
/* when no inode has one any more. NULL-safe */
void cfs_gates_destroy(struct cfs_client *c);
/* the session's deadline has changed */
void cfs_gates_deadline(struct cfs_client *c);

/* for the data path; arg: struct cfs_client */
extern const struct cfs_data_gate_ops cfs_gates_ops;

#endif
