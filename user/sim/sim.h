/* SPDX-License-Identifier: MIT */
/*
 * sim.h - a whole cluster in one thread: virtual time, network and disks behind the same seams as the real
 * ones (base/clock.h, net/net.h, dev/dev.h), every decision drawn from one 64-bit seed.
 *
 * A world has nodes; a node has a clock, a net, and disks that survive it. What runs on a node uses only these.
 * Events happen one at a time, in order of virtual time; the same seed and the same calls give the same events,
 * and so the same trace hash, for ever. Single-threaded; nothing here sleeps or asks the kernel for anything but
 * memory. A failed allocation ends the program: this is a test's tool.
 *
 * Crash. When a node crashes, its timers, connections, requests and offloaded jobs vanish: no callback comes any
 * more. The handles of that life stay valid memory but do nothing (send: -EPIPE, submit: -ENODEV, timers are not
 * armed), so the code that ran there can be torn down by the test in peace. Whose destructors wait for what is
 * outstanding are helped by cfs_sim_node_unwind(). A restart gives new handles.
 */
#ifndef CFS_SIM_SIM_H
#define CFS_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "dev/dev.h"
#include "net/net.h"

struct cfs_sim;
struct cfs_sim_node;
struct cfs_sim_disk;

#define CFS_SIM_NODES_MAX	64u
#define CFS_SIM_DISKS_MAX	16u	/* of one node */

/* 0 in a field: its default */
struct cfs_sim_params {
	uint64_t net_min_ns, net_max_ns;	/* one way; 20 us .. 500 us */
	uint32_t net_tail_ppm;			/* messages that take up to 100 times as long; 2000 */
	uint64_t disk_min_ns, disk_max_ns;	/* one request; 10 us .. 200 us */
	uint64_t dead_ns;			/* a silent peer's connections break after: 30 s */
	uint32_t skew_ppm;			/* clocks run up to this much too fast or too slow; 100 */
};

/* ---- the world --------------------------------------------------------------------------------- */

/** cfs_sim_create() - @params: NULL for defaults. 0 or -ENOMEM */
int cfs_sim_create(uint64_t seed, const struct cfs_sim_params *params, struct cfs_sim **ret_sim);
/* every node crashes, all memory goes; devices need not have been closed. NULL is fine */
void cfs_sim_destroy(struct cfs_sim *sim);

uint64_t cfs_sim_now(const struct cfs_sim *sim);	/* virtual ns since the world began */
/* run the next event; false: there is none (nothing will ever happen) */
bool cfs_sim_step(struct cfs_sim *sim);
/* run everything up to and including `until_ns`, which is the time afterwards */
void cfs_sim_run(struct cfs_sim *sim, uint64_t until_ns);
/* run until cond(arg); false when `limit_ns` came first */
bool cfs_sim_run_until(struct cfs_sim *sim, bool (*cond)(void *arg), void *arg, uint64_t limit_ns);
/* the test's own event: fn(arg) at that time, whichever nodes live */
void cfs_sim_at(struct cfs_sim *sim, uint64_t at_ns, void (*fn)(void *arg), void *arg);

/* the world's dice, for a test's own decisions */
uint64_t cfs_sim_random(struct cfs_sim *sim);
uint64_t cfs_sim_below(struct cfs_sim *sim, uint64_t n);		/* 0 .. n-1 */
uint64_t cfs_sim_between(struct cfs_sim *sim, uint64_t min, uint64_t max);
bool cfs_sim_chance(struct cfs_sim *sim, uint32_t ppm);

/* a hash over everything that happened; tests may add what they saw */
uint64_t cfs_sim_trace(const struct cfs_sim *sim);
void cfs_sim_trace_add(struct cfs_sim *sim, uint64_t value);

/* ---- nodes ---------------------------------------------------------------------------------------- */

/* a living node without disks */
int cfs_sim_node_create(struct cfs_sim *sim, const char *name, struct cfs_sim_node **ret_node);
/* of the present life; after a restart ask again */
struct cfs_clock *cfs_sim_node_clock(struct cfs_sim_node *node);
struct cfs_net *cfs_sim_node_net(struct cfs_sim_node *node);
const char *cfs_sim_node_name(const struct cfs_sim_node *node);
bool cfs_sim_node_alive(const struct cfs_sim_node *node);

enum cfs_sim_crash {
	CFS_SIM_KILL,	/* the process dies: peers are told by its kernel, completed writes stay */
	CFS_SIM_POWER,	/* the machine dies: peers hear nothing, writes that are not durable are lost, kept or torn */
};
/*
 * At once: may come from a callback of the node itself (what it does from then on has no effect) or of another
 * one. Nothing happens to a dead node.
 */
void cfs_sim_node_crash(struct cfs_sim_node *node, enum cfs_sim_crash how);
/*
 * After a crash, before a restart: what vanished ends with errors (requests -ENODEV, connections -ESHUTDOWN,
 * payloads let go, jobs done), for code whose destructor insists on that. It can reach nobody any more.
 */
void cfs_sim_node_unwind(struct cfs_sim_node *node);
/* a new life: new clock (boot time starts anew after CFS_SIM_POWER) and net; disks wait for cfs_sim_disk_open() */
void cfs_sim_node_restart(struct cfs_sim_node *node);

/* ---- network ---------------------------------------------------------------------------------------- */
/*
 * Addresses are any text; a listener belongs to the life that made it. Messages of a connection come whole and
 * in order. Bounds: CFS_NET_QUEUE_MSGS on their way in one direction.
 */
/* break every connection between two nodes now: what is on its way is lost, both ends are told */
void cfs_sim_net_cut(struct cfs_sim_node *a, struct cfs_sim_node *b);
/* nothing passes between two nodes while `on`: it waits, and connections break after dead_ns */
void cfs_sim_net_partition(struct cfs_sim_node *a, struct cfs_sim_node *b, bool on);
/* from and to all others */
void cfs_sim_net_isolate(struct cfs_sim_node *node, bool on);
/* new connections to this node are refused while `on` */
void cfs_sim_net_refuse(struct cfs_sim_node *node, bool on);
/* added to every message to and from the node */
void cfs_sim_net_lag(struct cfs_sim_node *node, uint64_t extra_ns);

/* ---- disks -------------------------------------------------------------------------------------------- */

/* an empty disk (zeros) of a node; write_unit 512 .. 4096 */
int cfs_sim_disk_create(struct cfs_sim_node *node, uint64_t size_bytes, uint32_t write_unit,
			struct cfs_sim_disk **ret_disk);
/*
 * The same with zones, whose rules are kept strictly (dev/zones.h): of each a power cut leaves a beginning, all that was durable
 * and some of what followed. No conventional zones. Faults and the cut of tear_sync() hit changes of zones, too.
 */
int cfs_sim_disk_create_zoned(struct cfs_sim_node *node, const struct cfs_zone_geometry *geometry,
			      uint32_t write_unit, struct cfs_sim_disk **ret_disk);
/* a write of up to so many bytes is never torn; as info.atomic_unit of devices opened from now on */
void cfs_sim_disk_atomic(struct cfs_sim_disk *disk, uint32_t unit_bytes);
/* from now on the zone is READONLY or OFFLINE */
void cfs_sim_disk_zone_fail(struct cfs_sim_disk *disk, uint32_t zone, enum cfs_zone_state state);
/* a device on it, for the present life; -EBUSY while one is open. Close it with cfs_dev_close(), or crash */
int cfs_sim_disk_open(struct cfs_sim_disk *disk, struct cfs_dev **ret_dev);

/* an empty, closed disk becomes a sparse file on a file system where so much is free: see sparse.h */
void cfs_sim_disk_sparse(struct cfs_sim_disk *disk, uint64_t room_bytes);

struct cfs_sim_faults {
	uint32_t read_error_ppm;	/* requests that fail with -EIO */
	uint32_t write_error_ppm;	/* the same; the bytes are then old, new or torn */
	bool full;			/* every write is -ENOSPC: a file system that copies on write has no room */
	bool below_full;		/* of a sparse disk: others have taken all the room that is left */
	uint32_t slow;			/* delays are multiplied by this; 0: 1 */
};
void cfs_sim_disk_faults(struct cfs_sim_disk *disk, const struct cfs_sim_faults *faults);
/* flip `bits` random bits within [offset, offset + len), in what has reached the medium */
void cfs_sim_disk_rot(struct cfs_sim_disk *disk, uint64_t offset, uint64_t len, unsigned bits);
/* the n-th write_sync() from now (1: the next) is torn by a power cut of the node; 0: forget it */
void cfs_sim_disk_tear_sync(struct cfs_sim_disk *disk, unsigned n);
/* the bytes as a read would give them, for checkers; readable for size_bytes, borrowed */
const uint8_t *cfs_sim_disk_bytes(const struct cfs_sim_disk *disk);

#endif
