/* SPDX-License-Identifier: MIT */
/*
 * node.h - one claudefsd as a step machine: targets, Raft, the metadata shard, and who may ask them
 * what.
 *
 * Made from seams only (clock, nets, devices), so that the server program and the simulator run the
 * same code. Everything runs on the clock's thread. Only the beginning of the start and
 * cfs_node_destroy() block (reading the stores, closing the state).
 */
#ifndef CFS_SERVER_CLUSTER_NODE_H
#define CFS_SERVER_CLUSTER_NODE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/clock.h"
#include "dev/dev.h"
#include "net/net.h"

struct cfs_node;
struct cfs_raft_member;
struct cfs_sched;

#define CFS_NODE_TARGETS_MAX	16u
#define CFS_NODE_LEASE_MS	10000u
#define CFS_NODE_CHECKPOINT_BYTES	(256ull << 20)

struct cfs_node_target {
	struct cfs_dev *dev;		/* borrowed until destroy */
	const char *path;		/* for people */
};

struct cfs_node_params {
	struct cfs_clock *clock;
	struct cfs_net *net;		/* borrowed; stays until after destroy */
	struct cfs_net *local_net; /* loopback, or NULL: the node talks to itself through net */
	const char *listen;		/* host:port */
	const char *advertise; /* what others connect to: in the cluster map; NULL: as listen */
	const char *state_dir;		/* exists, is ours */
	const struct cfs_node_target *targets;
	unsigned n_targets;
	/*
	 * The members of shard 0's Raft group when it is new, this node among them; ids are those
	 * of their first targets plus one. None: this node alone. Later the log knows who they are.
	 * Borrowed until started()
	 */
	const struct cfs_raft_member *members;
	unsigned n_members;
	uint32_t lease_ms;		/* 0: CFS_NODE_LEASE_MS */
	const struct cfs_sched *sched;	/* for STATUS only; NULL: none */
	uint64_t checkpoint_bytes;	/* most log between two checkpoints; 0: CFS_NODE_CHECKPOINT_BYTES */
	/*
	 * serving: the node listens. err: it will not, and `why` is one line; stop and destroy it
	 */
	void (*started)(void *arg, int err, const char *why);
	/* it served and cannot go on: stop and destroy it */
	void (*failed)(void *arg, int err, const char *why);
	void *arg;
};

/**
 * cfs_node_create() - begin to start; started() follows, never inside. Return: 0 or -ENOMEM.
 */
int cfs_node_create(const struct cfs_node_params *p, struct cfs_node **ret_node);

/* refuse and close connections, let writes under way end; then stopped() */
void cfs_node_stop(struct cfs_node *n, void (*stopped)(void *arg));
/* what is still under way, for a stop that takes long: static text, or NULL */
const char *cfs_node_busy(const struct cfs_node *n);
/* after stopped(): sync and close the state, close the stores cleanly. NULL is fine */
void cfs_node_destroy(struct cfs_node *n);

/*
 * Instead of destroy, when the machine below is gone (the simulator's crash): after
 * cfs_node_stop(), and after the end of its connections and jobs, frees the memory, whatever the
 * stores still hold. NULL is fine
 */
void cfs_node_abandon(struct cfs_node *n);

/* the STATUS document; malloc()ed text, or NULL */
char *cfs_node_status(struct cfs_node *n);
bool cfs_node_is_leader(const struct cfs_node *n);
/* take a checkpoint soon */
void cfs_node_checkpoint(struct cfs_node *n);

#endif
