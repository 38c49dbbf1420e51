/* SPDX-License-Identifier: MIT */
/*
 * accel.h - the bpf tier: what the client may keep under its leases stands in BPF maps as well, from which a program
 * answers the kernel without the daemon (bpf/fuse_answer.bpf.c, claudefs/bpf_shared.h).
 *
 * accel_maps.c, the mirror: the dcache calls it under the lock of the shard that an entry belongs to, so the maps follow it
 * entry by entry: nothing gets into them that did not pass the dcache's check, and what is dropped there is gone here when
 * the call returns. Entries that only the dcache's bound evicts stay in the maps, which have a bound of their own. One kind is left
 * out: attributes of files that this mount holds exclusively, since it knows size and times better than the server.
 *
 * accel.c, the tier: loading and attaching the program, the session's deadline, the gate.
 *
 * An accel lives from the tier's start until the client is destroyed: functions may be called with NULL before.
 */
#ifndef CFS_CLIENT_ACCEL_H
#define CFS_CLIENT_ACCEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cfs_accel;
struct cfs_accel_maps;
struct cfs_attr;
struct cfs_bpf_ctl;
struct cfs_bpf_gate;
struct cfs_client;

/* ---- the gate: memory that may be shared with a program; there from the client's beginning to its end -------- */
/* shared: try a BPF map, else, and if that cannot be had, memory of our own (then *ret_fd is -1). 0 or -ENOMEM */
int cfs_gate_create(bool shared, struct cfs_bpf_gate **ret_g, int *ret_fd);
void cfs_gate_destroy(struct cfs_bpf_gate *g, int fd);

/* ---- the mirror ------------------------------------------------------------------------------------------------ */
struct cfs_accel_maps_params {
	int dirs, names, long_names, attrs;	/* map descriptors; duplicated */
	struct cfs_bpf_ctl *ctl;
	/* is the file's own state ahead of the server's? NULL: never */
	bool (*ahead)(void *arg, uint64_t ino);
	void *arg;
};
int cfs_accel_maps_create(const struct cfs_accel_maps_params *p, struct cfs_accel_maps **ret_m);
void cfs_accel_maps_destroy(struct cfs_accel_maps *m);

/* the lease on a directory: epochs are never used twice, nor 0 */
void cfs_accel_put_dir(struct cfs_accel_maps *m, uint64_t dir, uint64_t epoch);
void cfs_accel_drop_dir(struct cfs_accel_maps *m, uint64_t dir);
/* ino 0: absent */
void cfs_accel_put_name(struct cfs_accel_maps *m, uint64_t dir, const char *name, size_t len, uint64_t ino, uint64_t epoch);
void cfs_accel_drop_name(struct cfs_accel_maps *m, uint64_t dir, const char *name, size_t len);
/* epoch: of attr's parent. Attributes that stand under no directory are not put, but dropped */
void cfs_accel_put_attr(struct cfs_accel_maps *m, const struct cfs_attr *attr, uint64_t epoch);
void cfs_accel_drop_attr(struct cfs_accel_maps *m, uint64_t ino);
/* everything with an epoch up to this one */
void cfs_accel_drop_all(struct cfs_accel_maps *m, uint64_t epoch);

struct cfs_accel_maps_stat {
	uint64_t put_dirs, put_names, put_attrs, dropped, withheld, failed;
};
void cfs_accel_maps_stat(const struct cfs_accel_maps *m, struct cfs_accel_maps_stat *ret);

/* ---- the tier -------------------------------------------------------------------------------------------------- */
/* fill the maps from now on (c->bpf_maps); before the tier starts. 0 or -errno */
int cfs_accel_fill(struct cfs_client *c);
/* the session's deadline, or whether anything may be kept, has changed */
void cfs_accel_deadline(struct cfs_client *c);
/* this mount is going to know the file's attributes better than the server */
void cfs_accel_ahead(struct cfs_client *c, uint64_t ino);
/* somebody's next look-up must reach the daemon (fuse_pin.c); an answer for everybody */
void cfs_accel_hold(struct cfs_client *c, bool hold);
void cfs_accel_destroy(struct cfs_client *c);

#endif
