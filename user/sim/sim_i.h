/* SPDX-License-Identifier: MIT */
/* sim_i.h - private to user/sim. Everything belongs to the one thread that runs the world. */
#ifndef CFS_SIM_SIM_I_H
#define CFS_SIM_SIM_I_H

#include "base/base.h"
#include "base/list.h"
#include "base/rng.h"
#include "net/pool.h"
#include "ring/timers.h"
#include "sim/sim.h"

#define SIM_TIMERS_MAX	(1u << 16)

/*
 * Something that will happen. One that belongs to a life is dropped with it: it then waits on life->lost for
 * unwind() or the end.
 */
struct sim_event {
	uint64_t at, seq;		/* the order of the world: time, then age */
	uint32_t heap_pos;		/* 1-based; 0: not in the heap */
	uint32_t kind;			/* for the trace */
	struct sim_life *life;		/* whose callback it is; NULL: nobody's */
	struct cfs_list life_link;	/* in life->events or life->lost */
	void (*fire)(struct sim_event *e);	/* happens; owns e */
	void (*lose)(struct sim_event *e);	/* unwind: ends with an error; owns e. NULL: just free */
};

/* one life of a node, from start to crash; kept until the world ends */
struct sim_life {
	struct cfs_clock clock;
	struct cfs_net net;
	struct cfs_sim *sim;
	struct cfs_sim_node *node;
	struct cfs_list link;		/* in sim->lives */
	bool alive;
	uint64_t boot_base, boot_at;	/* its boot clock at virtual time boot_at */
	int32_t ppm;
	struct cfs_timers timers;
	struct cfs_list events, lost, conns, listeners;
};

struct cfs_sim_node {
	struct cfs_sim *sim;
	char name[32];
	uint32_t index;
	struct sim_life *life;		/* the present, or the last one */
	enum cfs_sim_crash last_crash;
	bool refuse;
	uint64_t lag_ns, real_base;
	uint32_t n_disks;
	struct cfs_sim_disk *disks[CFS_SIM_DISKS_MAX];
};

struct cfs_sim {
	struct cfs_sim_params p;
	struct cfs_rng rng;
	uint64_t now, seq, trace;
	struct sim_event **heap;	/* 1-based */
	uint32_t n_heap, cap_heap;
	struct cfs_pool *pool;
	uint32_t n_nodes;
	struct cfs_sim_node *nodes[CFS_SIM_NODES_MAX];
	bool in_step;
	uint64_t part_gen[CFS_SIM_NODES_MAX][CFS_SIM_NODES_MAX];	/* 0: they see each other */
	uint64_t next_gen;
	struct cfs_list lives;
};

/* sim.c */
void *sim_alloc(size_t n);			/* zeroed; never NULL */
void sim_schedule(struct cfs_sim *sim, struct sim_event *e, uint64_t at, uint32_t kind, struct sim_life *life);
void sim_unschedule(struct sim_event *e);	/* out of heap and list; the caller owns e */

/* sim_net.c */
void sim_net_init(struct sim_life *life);
void sim_net_crash(struct sim_life *life, enum cfs_sim_crash how);
void sim_net_unwind(struct sim_life *life);
void sim_net_fini(struct sim_life *life);
bool sim_net_parted(const struct cfs_sim *sim, const struct cfs_sim_node *a, const struct cfs_sim_node *b);

/* sim_disk.c */
void sim_disk_crash(struct cfs_sim_disk *disk, enum cfs_sim_crash how);
void sim_disk_fini(struct cfs_sim_disk *disk);

/* kinds of events, for the trace */
enum { SIM_TIMER = 1, SIM_TEST, SIM_WORK, SIM_DONE, SIM_OPEN, SIM_REFUSED, SIM_MSG, SIM_EOF, SIM_CLOSED, SIM_PAYLOAD,
       SIM_DEAD, SIM_DISK, SIM_CRASH, SIM_RESTART };

#endif
