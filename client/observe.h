/* SPDX-License-Identifier: MIT */
/*
 * observe.h - seeing what a mount does: its BPF maps and tables (bpf_maps.h, for as long as the mount answers; c->bpf_maps is for
 * whoever fills them), counters and times of every request, and the connections of `claudefs top` and `claudefs trace`.
 *
 * There are two views of requests. The client's own counts and times them in its workers: always there. The kernel's, by BPF programs,
 * sees all that the mount was asked, the waiting, and what a BPF program answered; it costs every FUSE request on the
 * machine something and is attached only while somebody is connected. Where it cannot be had the first one stands in, and
 * says why. A connection that breaks, however, takes its programs with it.
 *
 * start, disconnect and stop are the main thread's, connect the control thread's, done the workers'.
 */
#ifndef CFS_CLIENT_OBSERVE_H
#define CFS_CLIENT_OBSERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cfs_client;
struct cfs_mount_opts;
struct cfs_thread;

/*
 * The mount answers, its tiers are probed but not started. Makes the maps, of a size that an answering program can use if one is going
 * to be loaded, or if the user names a size; with bpf=off none. Never fails: c->bpf_why then says what is missing.
 */
void cfs_observe_start(struct cfs_client *c, const struct cfs_mount_opts *o);
/* ends all connections; no new ones come */
void cfs_observe_disconnect(struct cfs_client *c);
/* the tiers are stopped, the transport is gone */
void cfs_observe_stop(struct cfs_client *c);

/* the session's state, number or deadline has changed; c->lock is held */
void cfs_observe_session(struct cfs_client *c);

/* a worker has taken the request t->in; an answer of `bytes` behind its header is about to be given, or is not going to be */
void cfs_observe_took(struct cfs_thread *t);
void cfs_observe_done(struct cfs_thread *t, int32_t error, size_t bytes);

/* can the kernel's view be had here? 0, or -errno and one line in why. Needs no mount and leaves nothing behind */
int cfs_observe_probe(char *why, size_t len);

/* ---- connections (observe_conn.c) ----------------------------------------------------------------------- */
struct cfs_observe_want {
	bool trace;			/* requests as they end; else a sample of all counters for each line received */
	uint32_t pid;			/* of trace: 0 any */
	uint64_t ino;
};

/*
 * Serve a connection of the control socket until it breaks, on a thread of its own. Lines of JSON (docs/observability.md).
 * Return: 0: fd is taken; -EBUSY: as many as may be; or -errno.
 */
int cfs_observe_connect(struct cfs_client *c, int fd, const struct cfs_observe_want *want);

#endif
