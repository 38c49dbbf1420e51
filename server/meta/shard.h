/* SPDX-License-Identifier: MIT */
/*
 * shard.h - the leader of one metadata shard as a step machine: sessions, slots, leases, breaks,
 * batching, blocking locks. Messages, timers and log completions in; messages, proposals out.
 * docs/leases.md is its specification. One thread; no I/O, no clock but the one it is given.
 */
#ifndef CFS_SERVER_META_SHARD_H
#define CFS_SERVER_META_SHARD_H

#include "base/clock.h"
#include "net/net.h"
#include "server/meta/meta.h"

struct cfs_shard;

/* the log below: Raft (server/cluster/raft_log.c) or a test's fake */
struct cfs_log_ops {
	const char *name;
	uint32_t version;
	uint32_t flags;
	/*
	 * Propose an entry (copied). It comes back through cfs_shard_apply() once it is committed, or there is a
	 * cfs_shard_lost_leadership(); neither is called from inside. 0, -EBUSY queue full (asked again later),
	 * -ENOTCONN not the leader.
	 */
	int (*propose)(void *log, const void *entry, size_t len);
};
#define CFS_LOG_OPS_VERSION 1u

struct cfs_shard_params {
	struct cfs_clock *clock;
	struct cfs_meta *meta;
	const struct cfs_log_ops *log_ops;
	void *log;
	uint32_t shard;
	uint32_t lease_ms;		/* 10000 */
	uint32_t grace_dead_ms;		/* dead objects are deleted this long after: 60000 */
	/* space of the targets, for STATFS and early ENOSPC; may be NULL in tests */
	void (*space)(void *arg, uint64_t *ret_total, uint64_t *ret_free);
	/* delete objects on their targets, then call cfs_shard_dead_done(); may be NULL */
	void (*delete_objects)(void *arg, const struct cfs_dead *dead, unsigned n);
	void *arg;
};

int cfs_shard_create(const struct cfs_shard_params *p, struct cfs_shard **ret_shard);
void cfs_shard_destroy(struct cfs_shard *s);

/*
 * raft says so. Epoch: the term; becomes leader_epoch. It proposes an entry of its own and serves nobody before
 * that one is applied, so entries of earlier terms may still be on their way to cfs_shard_apply().
 */
void cfs_shard_become_leader(struct cfs_shard *s, uint64_t epoch);
void cfs_shard_lost_leadership(struct cfs_shard *s);
bool cfs_shard_is_leader(struct cfs_shard *s);
uint64_t cfs_shard_leader_epoch(struct cfs_shard *s);

/* does the leader know that there is no such session? False while it is not one, or does not know everything yet */
bool cfs_shard_session_gone(struct cfs_shard *s, uint64_t session);

/*
 * A committed entry, on every replica, in order: applies it to the state and, on the leader that
 * proposed it, finishes its requests. Called by the log. 0, or -errno: stop this replica.
 */
int cfs_shard_apply(struct cfs_shard *s, uint64_t index, const void *entry, size_t len);

/*
 * A connection whose HELLO named a session (or 0 for one about to open it). conn->user belongs to
 * the node; the shard keeps its own table of connections. Role: enum cfs_role.
 */
void cfs_shard_conn_open(struct cfs_shard *s, struct cfs_conn *conn, uint64_t session, uint32_t role);
void cfs_shard_conn_close(struct cfs_shard *s, struct cfs_conn *conn);
/* any message of opcodes SESSION_OPEN .. RELEASE, and replies to callbacks */
void cfs_shard_msg(struct cfs_shard *s, struct cfs_conn *conn, struct cfs_msg *msg);

/*
 * Somebody finds no room on a target. true: some is about to come back, as what is dead is deleted at once from now on,
 * without the time of grace.
 */
bool cfs_shard_room_coming(struct cfs_shard *s);
/* the targets have deleted these: cfs_dead.key */
void cfs_shard_dead_done(struct cfs_shard *s, const uint64_t *keys, unsigned n);

/* log a new cluster map (cfs_map_rep with its lists). 0, -ENOTCONN not the leader, -EINVAL, -ENOMEM */
int cfs_shard_propose_map(struct cfs_shard *s, const void *map, size_t len);

/* bytes, as statfs(2) tells them: what users can have in all, and what a write will get now */
void cfs_shard_space(struct cfs_shard *s, uint64_t *ret_total, uint64_t *ret_free);

struct cfs_shard_stat {
	uint64_t sessions, conns, dir_leases, file_leases, requests, batches, batched_requests;
	uint64_t breaks_sent, asks_sent, fenced, replays, waits, lock_waiters, lease_bytes;
	bool leader, grace;
};
void cfs_shard_stat(struct cfs_shard *s, struct cfs_shard_stat *ret);

/**
 * cfs_shard_json() - the same for scripts and people, and each session (as many as fit): one JSON object, NUL-terminated.
 * Return: its length, or -ENOSPC.
 */
int cfs_shard_json(struct cfs_shard *s, char *buf, size_t len);

#endif
