/* SPDX-License-Identifier: MIT */
/*
 * raft_log.h - one member of one Raft group: libraft's core between a journal, a network and a
 * state.
 *
 * Built on raft_step(), the core of libraft that takes an event and says what to do, because its
 * callback interface (struct raft_io) asserts that no write ever fails and that no snapshot comes
 * while one is taken. A single node is a group of one: it elects itself at start, and a proposal
 * made in one turn of the loop is in the journal's hands in that turn; its commit, apply and reply
 * happen in the turn of the journal's completion. One write is under way at a time; what is
 * proposed meanwhile goes into the next one.
 *
 * Everything runs on the thread of clock and journal. The struct cfs_raft_user below is called from
 * any of the calls here, but for `send`, `failed` and `leader` never from inside
 * cfs_raft_log_propose().
 */
#ifndef CFS_SERVER_CLUSTER_RAFT_LOG_H
#define CFS_SERVER_CLUSTER_RAFT_LOG_H

#include <stdbool.h>

#include "base/clock.h"
#include "base/list.h"
#include "server/cluster/raft_wire.h"
#include "server/meta/shard.h"
#include "server/store/store.h"

struct cfs_raft_log;

struct cfs_raft_user {
	/* a committed command, in order, each once. Non-zero: the replica stops */
	int (*apply)(void *arg, uint64_t index, const void *entry, size_t len);
	/*
	 * true: leader of `term`, and everything committed before has been applied. false: not any
	 * more
	 */
	void (*leader)(void *arg, bool leading, uint64_t term);
	/*
	 * Copy the state, which contains at least `index`, to safe storage, then call
	 * cfs_raft_log_checkpoint_done() with what names the copy. Never two at a time.
	 */
	void (*checkpoint)(void *arg, uint64_t index);
	/* the last checkpoint is what a restart begins with from now on: older copies may go */
	void (*checkpointed)(void *arg);
	/*
	 * Another member's checkpoint replaces the state: fetch it and store a copy of it, then
	 * call cfs_raft_log_install_done(). The live state changes in installed(), not before.
	 */
	void (*install)(void *arg, uint64_t index, const char *from_addr, const void *manifest,
			uint32_t len);
	int (*installed)(void *arg);
	/* send to out->addr, or drop it; takes out->payload */
	void (*send)(void *arg, struct cfs_raft_out *out);
	/* this replica cannot go on; called once, after which nothing is called any more */
	void (*failed)(void *arg, int err, const char *why);
};

struct cfs_raft_params {
	struct cfs_clock *clock;
	struct cfs_journal *journal;
	uint32_t group;			/* shard */
	uint64_t id;			/* of this member, > 0 */
	const char *address;		/* where the others find it */
	uint32_t election_ms;		/* 0: 1000 */
	uint32_t heartbeat_ms;		/* 0: 100 */
	uint64_t checkpoint_bytes;	/* take a checkpoint after this much log; 0: 256 MiB */
	uint64_t checkpoint_entries;	/* or this many entries; 0: 262144 */
	const struct cfs_raft_user *user;
	void *arg;
};

struct cfs_raft_member {
	uint64_t id;
	const char *address;
};

/**
 * cfs_raft_log_create() - read the journal; nothing runs yet. Blocking (start-up).
 * @errbuf: one line, on failure
 * Return: 0; -EUCLEAN: what the journal holds makes no log; other -errno.
 */
int cfs_raft_log_create(const struct cfs_raft_params *p, struct cfs_raft_log **ret_log,
			char *errbuf, size_t errlen);
/* not busy any more, or never started; NULL is fine */
void cfs_raft_log_destroy(struct cfs_raft_log *l);

/* what create() read: index of the snapshot (0: none) with its manifest, and of the last entry */
uint64_t cfs_raft_log_snapshot(const struct cfs_raft_log *l, const void **ret_manifest,
			       uint32_t *ret_len);
uint64_t cfs_raft_log_last(const struct cfs_raft_log *l);
/* is this member the only voter, by the newest configuration in snapshot and log? Before it is started, too */
bool cfs_raft_log_only_voter(struct cfs_raft_log *l);
/* from now on, checkpoints are taken after this many bytes of log */
void cfs_raft_log_checkpoint_every(struct cfs_raft_log *l, uint64_t bytes);

/**
 * cfs_raft_log_start() - go.
 * @applied: what the state contains already: snapshot index <= applied <= last index
 * @members: the first configuration, used when the journal is empty; must contain this one. n 0:
 * join a group Return: 0, or -errno. A group of one is leader before this returns, or, the first
 * time, when the journal has written the configuration.
 */
int cfs_raft_log_start(struct cfs_raft_log *l, uint64_t applied,
		       const struct cfs_raft_member *members, unsigned n);
/*
 * stop: no more events; poll cfs_raft_log_busy() until writes under way have come back, then
 * destroy
 */
void cfs_raft_log_stop(struct cfs_raft_log *l);
bool cfs_raft_log_busy(const struct cfs_raft_log *l);
/* after stop, when the journal will never answer: not busy any more */
void cfs_raft_log_abandon(struct cfs_raft_log *l);

/**
 * cfs_raft_log_propose() - append a command (copied). It comes back through apply().
 * @ret_index: where it will be, if it is committed; may be NULL
 * Return: 0; -ENOTCONN not the leader; -EBUSY too many on their way; -EMSGSIZE; -ENOMEM.
 */
int cfs_raft_log_propose(struct cfs_raft_log *l, const void *entry, size_t len,
			 uint64_t *ret_index);
#define CFS_RAFT_PROPOSALS_MAX	64u	/* proposed and not yet applied */

/* the same as struct cfs_log_ops, for the shard; `log` is a struct cfs_raft_log */
extern const struct cfs_log_ops cfs_raft_log_ops;

/*
 * May the leader answer from its state now? True: yes. False: `r` is queued, and done() is called
 * when a majority has confirmed the leadership (0) or it is lost (-ENOTCONN). A group of one:
 * always at once. Else: for 3/4 of the election timeout after a majority was known to follow, since
 * followers elect nobody in that time.
 */
struct cfs_raft_read {
	void (*done)(struct cfs_raft_read *r, int err);
	struct cfs_list link;
};
bool cfs_raft_log_read(struct cfs_raft_log *l, struct cfs_raft_read *r);
/* would cfs_raft_log_read() say true? */
bool cfs_raft_log_lease(struct cfs_raft_log *l);
void cfs_raft_log_read_cancel(struct cfs_raft_read *r);

/*
 * a message of another member; 0, or -errno with *ret_why when the connection that brought it
 * should close
 */
int cfs_raft_log_receive(struct cfs_raft_log *l, const void *body, uint32_t body_len,
			 const void *payload, uint32_t payload_len, const char **ret_why);

/* err: try again later */
void cfs_raft_log_checkpoint_done(struct cfs_raft_log *l, int err, const void *manifest,
				  uint32_t len);
void cfs_raft_log_install_done(struct cfs_raft_log *l, int err, const void *manifest, uint32_t len);
/*
 * zones have gone offline that held parts of the journal, or of the last checkpoint: what memory still has of them is
 * written again, and a checkpoint is taken
 */
void cfs_raft_log_repair(struct cfs_raft_log *l);
/* take a checkpoint soon, whatever the limits say; used by tests and tools */
void cfs_raft_log_checkpoint(struct cfs_raft_log *l);

struct cfs_raft_stat {
	const char *role;		/* "leader", "follower", "candidate", "stopped" */
	uint64_t id, term, commit, applied, last, snapshot;
	uint64_t leader;		/* id, 0: not known */
	char leader_addr[CFS_RAFT_ADDR_MAX + 1];
	unsigned members;
	uint64_t log_bytes;		/* since the snapshot */
	uint64_t proposals, writes, checkpoints, journal_full;
};
void cfs_raft_log_stat(const struct cfs_raft_log *l, struct cfs_raft_stat *ret);

#endif
