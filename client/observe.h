/* SPDX-License-Identifier: MIT */
/*
 * observe.h - what a mount shows of itself beyond its counters: the BPF maps and their tables (bpf_maps.h), for as long as the mount
 * answers. c->bpf_maps is for whoever fills them and answers from them.
 *
 * start and stop are the main thread's; the session part is called by whoever changes the session's state or deadline, under
 * c->lock.
 */
#ifndef CFS_CLIENT_OBSERVE_H
#define CFS_CLIENT_OBSERVE_H

struct cfs_client;
struct cfs_mount_opts;

/*
 * The mount answers, its tiers are probed but not started. Makes the maps, of a size that an answering program can use if one is going
 * to be loaded, or if the user names a size; with bpf=off none. Never fails: c->bpf_why then says what is missing.
 */
void cfs_observe_start(struct cfs_client *c, const struct cfs_mount_opts *o);
/* the tiers are stopped */
void cfs_observe_stop(struct cfs_client *c);

/* the session's state, number or deadline has changed; c->lock is held */
void cfs_observe_session(struct cfs_client *c);

#endif
