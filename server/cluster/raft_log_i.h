/* SPDX-License-Identifier: MIT */
/*
 * raft_log_i.h - what the files of a Raft log share.
 *
 *   raft_start.c     create, start, destroy
 *   raft_log.c       the step around raft_step(): commit, leadership, proposals, reads
 *   raft_journal.c   writes to the journal, one after the other
 *   raft_snapshot.c  checkpoints taken and installed
 *   raft_msg.c       messages, leases
 */
#ifndef CFS_SERVER_CLUSTER_RAFT_LOG_I_H
#define CFS_SERVER_CLUSTER_RAFT_LOG_I_H

#include <raft.h>

#include "server/cluster/elog.h"
#include "server/cluster/raft_log.h"

/* one thing for the journal to do, in the order of l->jobs */
struct raft_job {
	struct cfs_list link;
	struct cfs_raft_log *l;
	enum { JOB_APPEND, JOB_SNAPSHOT, JOB_INSTALL, JOB_AGAIN } kind;
	uint64_t truncate;			/* not 0: first forget entries from here on */
	uint64_t first; /* APPEND: index of bufs[0]; others: of the snapshot */
	unsigned n;
	struct cfs_ebuf **bufs;
	struct cfs_journal_entry *entries;
	struct cfs_journal_append append;
	struct cfs_journal_snapshot snap;	/* its manifest is malloc()ed */
};

/* when a member was last known to follow */
struct raft_contact {
	uint64_t id;
	uint64_t stamp_ns;
};

struct cfs_raft_log {
	struct raft raft;
	struct cfs_clock *clock;
	struct cfs_journal *journal;
	const struct cfs_raft_user *user;
	void *arg;
	uint32_t group;
	char address[CFS_RAFT_ADDR_MAX + 1];
	uint32_t election_ms;
	bool raft_ready, started, stopped, failed;
	struct cfs_timer timer;			/* libraft's next timeout */

	/* what is durable */
	uint64_t term, vote;
	uint64_t snap_index, snap_term;
	struct raft_configuration snap_conf;	/* until start() gives it to libraft */
	bool snap_conf_valid;
	uint64_t snap_conf_index;

	struct cfs_elog elog;
	uint64_t committed; /* everything up to here has gone through commit_one() */
	uint64_t applied;			/* last index that the state contains */
	uint64_t command; /* last command that the state contains: where a snapshot can be */
	uint64_t log_bytes;			/* appended since the snapshot */
	uint64_t checkpoint_bytes, checkpoint_entries;
	bool committing;
	struct cfs_ebuf *submitting;		/* the entry inside the RAFT_SUBMIT under way */

	/* leadership */
	bool leader, announced;
	uint64_t lead_term, lead_index;		/* announced once `committed` gets to lead_index */
	struct cfs_list reads,
		reads_next; /* waiting for the barrier under way, and for the one after it */
	uint64_t barrier;			/* index of that barrier, 0: none */
	struct raft_contact contacts[CFS_RAFT_SERVERS_MAX];
	unsigned n_contacts;
	uint64_t echo_stamp;			/* of the last append entries received */
	uint64_t back_logged_ns;

	/* journal */
	struct cfs_list jobs;			/* the first one is under way when `writing` */
	bool writing;
	struct cfs_timer retry;			/* the journal was full */
	bool repair;				/* parts of it are in zones that went offline */
	struct cfs_timer apply_retry;		/* the state found no room */
	uint64_t apply_logged_ns;
	uint64_t full_logged_ns;

	/* checkpoint being taken, or snapshot being installed; never both */
	bool checkpointing, installing, checkpoint_wanted;
	bool checkpoint_anew;	/* also if the last one has all there is: its objects may be lost */
	uint64_t ckpt_index, ckpt_term, ckpt_conf_index, ckpt_bytes;
	struct raft_buffer ckpt_conf;
	uint64_t ckpt_not_before_ns;		/* after a failure */
	struct raft_snapshot_metadata install;
	struct raft_buffer install_data;
	char install_from[CFS_RAFT_ADDR_MAX + 1];
	struct cfs_timer install_retry;

	uint64_t n_proposals, n_writes, n_checkpoints, n_full;
};

/* raft_log.c */
int cfs_raft_step(struct cfs_raft_log *l, struct raft_event *ev);
void cfs_raft_fail(struct cfs_raft_log *l, int err, const char *why);
static inline bool cfs_raft_dead(const struct cfs_raft_log *l)
{
	return l->stopped || l->failed;
}
/* is this member the only one? */
static inline bool cfs_raft_alone(const struct cfs_raft_log *l)
{
	return l->raft.configuration.n == 1 && l->raft.configuration.servers[0].id == l->raft.id;
}

/* raft_journal.c */
int cfs_raft_queue_entries(struct cfs_raft_log *l, uint64_t index, const struct raft_entry *entries,
			   unsigned n);
void cfs_raft_jobs_free(struct cfs_raft_log *l);
struct raft_job *cfs_raft_job_new(struct cfs_raft_log *l, int kind, unsigned n);
void cfs_raft_job_free(struct raft_job *job);
/* begin the next job, if none is under way */
void cfs_raft_run(struct cfs_raft_log *l);
void cfs_raft_drop_waiting(struct cfs_raft_log *l);
void cfs_raft_journal_full(struct cfs_raft_log *l);

/* raft_snapshot.c */
void cfs_raft_install_begin(struct cfs_raft_log *l, struct raft_snapshot_metadata *meta,
			    struct raft_buffer *data);
void cfs_raft_maybe_checkpoint(struct cfs_raft_log *l);
int cfs_raft_snapshot_load(struct cfs_raft_log *l, char *errbuf, size_t errlen);
int cfs_raft_snapshot_data(struct cfs_raft_log *l, const void **ret_data, uint32_t *ret_len);
int cfs_raft_snapshot_conf(struct cfs_raft_log *l, struct raft_configuration *ret_conf,
			   uint64_t *ret_index);

/* raft_msg.c */
void cfs_raft_send(struct cfs_raft_log *l, struct raft_message *messages, unsigned n);
bool cfs_raft_lease_valid(struct cfs_raft_log *l);

#endif
