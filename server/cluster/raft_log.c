/* SPDX-License-Identifier: MIT */
/*
 * raft_log.c - the step machine around raft_step(): step, commit, leadership, reads. See
 * raft_log.h.
 */
#include "server/cluster/raft_log_i.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define APPLY_RETRY_NS	(200 * CFS_NSEC_PER_MSEC)
#define APPLY_WARN_NS	(10 * CFS_NSEC_PER_SEC)

/* ---- failing --------------------------------------------------------------------------------- */

static void end_reads(struct cfs_list *from, int err)
{
	struct cfs_list batch = CFS_LIST_INIT(batch);

	/* a callback may queue new ones */
	while (!cfs_list_empty(from)) {
		struct cfs_list *first = from->next;

		cfs_list_del(first);
		cfs_list_add_tail(&batch, first);
	}
	while (!cfs_list_empty(&batch)) {
		struct cfs_raft_read *r = cfs_list_first(&batch, struct cfs_raft_read, link);

		cfs_list_del(&r->link);
		r->done(r, err);
	}
}

void cfs_raft_fail(struct cfs_raft_log *l, int err, const char *why)
{
	if (cfs_raft_dead(l))
		return;
	l->failed = true;
	cfs_timer_cancel(l->clock, &l->timer);
	cfs_timer_cancel(l->clock, &l->retry);
	cfs_timer_cancel(l->clock, &l->apply_retry);
	cfs_timer_cancel(l->clock, &l->install_retry);
	end_reads(&l->reads, -ENOTCONN);
	end_reads(&l->reads_next, -ENOTCONN);
	l->user->failed(l->arg, err, why);
}

void cfs_raft_log_stop(struct cfs_raft_log *l)
{
	if (l->stopped)
		return;
	l->stopped = true;
	cfs_timer_cancel(l->clock, &l->timer);
	cfs_timer_cancel(l->clock, &l->retry);
	cfs_timer_cancel(l->clock, &l->apply_retry);
	cfs_timer_cancel(l->clock, &l->install_retry);
	end_reads(&l->reads, -ENOTCONN);
	end_reads(&l->reads_next, -ENOTCONN);
}

bool cfs_raft_log_busy(const struct cfs_raft_log *l)
{
	return l->writing;
}

void cfs_raft_log_abandon(struct cfs_raft_log *l)
{
	CFS_ASSERT(cfs_raft_dead(l));
	l->writing = false;
}

/* ---- the step -------------------------------------------------------------------------------- */

static void arm_timer(struct cfs_raft_log *l)
{
	uint64_t at = raft_timeout(&l->raft) * CFS_NSEC_PER_MSEC;
	uint64_t soonest = cfs_clock_boot_ns(l->clock) + CFS_NSEC_PER_MSEC;

	if (at < soonest)	/* never a loop without a pause */
		at = soonest;
	if (!cfs_timer_armed(&l->timer) || l->timer.deadline_ns != at)
		cfs_timer_set(l->clock, &l->timer, at);
}

static void not_leading(struct cfs_raft_log *l)
{
	bool told = l->announced;

	l->leader = l->announced = false;
	l->barrier = 0;
	end_reads(&l->reads, -ENOTCONN);
	end_reads(&l->reads_next, -ENOTCONN);
	if (told)
		l->user->leader(l->arg, false, l->lead_term);
}

static void look_at_state(struct cfs_raft_log *l)
{
	bool leads = raft_state(&l->raft) == RAFT_LEADER;

	if (l->leader && (!leads || raft_current_term(&l->raft) != l->lead_term))
		not_leading(l);
	if (leads && !l->leader) {
		l->leader = true;
		l->lead_term = raft_current_term(&l->raft);
		/*
		 * what was in the log at the election, and the barrier that libraft may have added
		 */
		l->lead_index = cfs_elog_last(&l->elog);
		l->n_contacts = 0;
	}
}

static void maybe_announce(struct cfs_raft_log *l)
{
	if (!l->leader || l->announced || l->committed < l->lead_index || cfs_raft_dead(l))
		return;
	l->announced = true;
	l->user->leader(l->arg, true, l->lead_term);
}

static int commit_change(struct cfs_raft_log *l, uint64_t index, struct cfs_elog_entry *e)
{
	struct raft_event ev = { .type = RAFT_CONFIGURATION };
	struct raft_buffer buf = { .base = e->buf->data, .len = e->buf->len };

	if (raft_configuration_decode(&buf, &ev.configuration.conf))
		return -EBADMSG;
	ev.configuration.index = index;
	return cfs_raft_step(l, &ev);
}

static int commit_one(struct cfs_raft_log *l, uint64_t index)
{
	struct cfs_elog_entry *e = cfs_elog_get(&l->elog, index);
	struct cfs_ebuf *buf;
	int rc = 0;

	CFS_ASSERT(e && e->buf);
	if (e->type == RAFT_CHANGE) {
		rc = commit_change(l, index, e);
	} else if (e->type == RAFT_COMMAND && index > l->applied) {
		buf = cfs_ebuf_get(e->buf);	/* apply may propose, and so move the ring */
		rc = l->user->apply(l->arg, index, buf->data, buf->len);
		cfs_ebuf_put(buf);
	}
	if (rc)
		return rc;
	e = cfs_elog_get(&l->elog, index);
	if (e && e->type == RAFT_COMMAND && index > l->command)
		l->command = index;
	if (index > l->applied)
		l->applied = index;
	l->committed = index;
	/*
	 * nobody else will ask for it; entry 1 and its kind are what libraft wants to see at a
	 * restart
	 */
	if (e && e->type == RAFT_COMMAND && cfs_raft_alone(l))
		cfs_elog_release(&l->elog, index);
	return 0;
}

static void commit(struct cfs_raft_log *l);

static void on_apply_retry(struct cfs_timer *t)
{
	commit(cfs_container_of(t, struct cfs_raft_log, apply_retry));
}

/* the file system that the state lies on is full: nothing is lost, for the log has it all; replies wait */
static void wait_to_apply(struct cfs_raft_log *l)
{
	uint64_t now = cfs_clock_boot_ns(l->clock);

	if (!l->apply_logged_ns || now - l->apply_logged_ns > APPLY_WARN_NS) {
		cfs_warn("shard %" PRIu32 ": the file system of the state directory is full: requests wait for room", l->group);
		l->apply_logged_ns = now;
	}
	l->apply_retry.fn = on_apply_retry;
	cfs_timer_set(l->clock, &l->apply_retry, now + APPLY_RETRY_NS);
}

/* go through what libraft knows to be committed; calls from inside only note that there is more */
static void commit(struct cfs_raft_log *l)
{
	if (l->committing)
		return;
	l->committing = true;
	while (!cfs_raft_dead(l) && !l->installing && l->committed < raft_commit_index(&l->raft)) {
		int rc = commit_one(l, l->committed + 1);

		if (rc == -ENOSPC) {
			wait_to_apply(l);
			break;
		}
		if (rc) {
			char why[96];

			snprintf(why, sizeof(why), "cannot apply log entry %" PRIu64 ": %s",
				 l->committed + 1, strerror(rc < 0 ? -rc : rc));
			cfs_raft_fail(l, rc, why);
			break;
		}
		maybe_announce(l);
		if (l->barrier && l->committed >= l->barrier) {
			l->barrier = 0;
			end_reads(&l->reads, 0);
		}
	}
	l->committing = false;
	maybe_announce(l);
}

static int next_barrier(struct cfs_raft_log *l);

/*
 * Feed one event to libraft and do what it says. Term and vote become durable first, whatever else
 * happens: nothing may be sent that speaks of a vote we could forget. 0; -EBADMSG: the event was
 * refused as malformed; else the replica has failed, or -ENOTCONN, -ENOMEM of a submit.
 */
int cfs_raft_step(struct cfs_raft_log *l, struct raft_event *ev)
{
	struct raft_update up;
	int rv, rc = 0;

	if (cfs_raft_dead(l))
		return -ENOTCONN;
	memset(&up, 0, sizeof(up));
	ev->time = cfs_clock_boot_ns(l->clock) / CFS_NSEC_PER_MSEC;
	ev->capacity = 0;
	rv = raft_step(&l->raft, ev, &up);
	if (raft_current_term(&l->raft) != l->term || raft_voted_for(&l->raft) != l->vote) {
		l->term = raft_current_term(&l->raft);
		l->vote = raft_voted_for(&l->raft);
		rc = cfs_journal_set_vote(l->journal, l->term, l->vote);
		if (rc) {
			cfs_raft_fail(l, rc, "cannot write term and vote to the journal");
			return rc;
		}
	}
	if (rv) {
		look_at_state(l);
		arm_timer(l);
		return rv == RAFT_NOTLEADER ? -ENOTCONN : rv == RAFT_NOMEM ? -ENOMEM : -EBADMSG;
	}
	if (up.flags & (RAFT_UPDATE_ENTRIES)) {
		rc = cfs_raft_queue_entries(l, up.entries.index, up.entries.batch, up.entries.n);
		if (rc) {
			cfs_raft_fail(l, rc, "out of memory for log entries");
			return rc;
		}
	}
	look_at_state(l);
	if (up.flags & (RAFT_UPDATE_SNAPSHOT))
		cfs_raft_install_begin(l, &up.snapshot.metadata, &up.snapshot.chunk);
	if (up.flags & (RAFT_UPDATE_MESSAGES))
		cfs_raft_send(l, up.messages.batch, up.messages.n);
	arm_timer(l);
	commit(l);
	if (!cfs_raft_dead(l) && !cfs_list_empty(&l->reads_next) && !l->barrier && l->announced)
		next_barrier(l);
	if (!cfs_raft_dead(l))
		cfs_raft_maybe_checkpoint(l);
	return 0;
}

/* ---- proposing and reading ------------------------------------------------------------------- */

static int submit(struct cfs_raft_log *l, enum raft_entry_type type, const void *data, size_t len)
{
	struct raft_event ev = { .type = RAFT_SUBMIT };
	struct raft_entry entry = { .type = type, .term = raft_current_term(&l->raft) };
	int rc;

	CFS_ASSERT(!l->submitting);
	l->submitting = cfs_ebuf_new(data, len);
	if (!l->submitting)
		return -ENOMEM;
	entry.buf.base = l->submitting->data;
	entry.buf.len = len;
	entry.batch = l->submitting;
	ev.submit.entries = &entry;
	ev.submit.n = 1;
	rc = cfs_raft_step(l, &ev);
	cfs_ebuf_put(l->submitting);	/* NULL when it was taken into the log */
	l->submitting = NULL;
	return rc;
}

int cfs_raft_log_propose(struct cfs_raft_log *l, const void *entry, size_t len, uint64_t *ret_index)
{
	uint64_t index = cfs_elog_last(&l->elog) + 1;
	int rc;

	if (cfs_raft_dead(l) || !l->announced || raft_transferee(&l->raft))
		return -ENOTCONN;
	if (len == 0 || len > CFS_LOG_ENTRY_MAX)
		return -EMSGSIZE;
	if (cfs_elog_last(&l->elog) - l->committed >= CFS_RAFT_PROPOSALS_MAX)
		return -EBUSY;
	rc = submit(l, RAFT_COMMAND, entry, len);
	if (rc)
		return rc;
	l->n_proposals++;
	if (ret_index)
		*ret_index = index;
	return 0;
}

static int ops_propose(void *log, const void *entry, size_t len)
{
	return cfs_raft_log_propose(log, entry, len, NULL);
}

const struct cfs_log_ops cfs_raft_log_ops = {
	.name = "raft",
	.version = CFS_LOG_OPS_VERSION,
	.propose = ops_propose,
};

/*
 * confirm the leadership for all who wait: only a barrier that is appended after they came will do
 */
static int next_barrier(struct cfs_raft_log *l)
{
	static const uint64_t zero;
	int rc;

	while (!cfs_list_empty(&l->reads_next)) {
		struct cfs_list *first = l->reads_next.next;

		cfs_list_del(first);
		cfs_list_add_tail(&l->reads, first);
	}
	l->barrier = cfs_elog_last(&l->elog) + 1;
	rc = submit(l, RAFT_BARRIER, &zero, sizeof(zero));
	if (rc) {
		l->barrier = 0;
		end_reads(&l->reads, -ENOTCONN);
	}
	return rc;
}

bool cfs_raft_log_lease(struct cfs_raft_log *l)
{
	return !cfs_raft_dead(l) && l->announced && cfs_raft_lease_valid(l);
}

bool cfs_raft_log_read(struct cfs_raft_log *l, struct cfs_raft_read *r)
{
	if (cfs_raft_log_lease(l))
		return true;
	cfs_list_add_tail(&l->reads_next, &r->link);
	if (cfs_raft_dead(l) || !l->announced) {
		cfs_list_del(&r->link);
		r->done(r, -ENOTCONN);
	} else if (!l->barrier && !l->submitting) {
		next_barrier(l);
	}
	return false;
}

void cfs_raft_log_read_cancel(struct cfs_raft_read *r)
{
	cfs_list_del(&r->link);
}

/* ---- statistics ------------------------------------------------------------------------------ */

void cfs_raft_log_stat(const struct cfs_raft_log *l, struct cfs_raft_stat *ret)
{
	struct raft *r = (struct raft *)(uintptr_t)&l->raft;
	const char *addr = NULL;
	raft_id leader = 0;

	memset(ret, 0, sizeof(*ret));
	ret->id = r->id;
	ret->term = l->term;
	ret->last = cfs_elog_last(&l->elog);
	ret->snapshot = l->snap_index;
	ret->applied = l->applied;
	ret->log_bytes = l->log_bytes;
	ret->proposals = l->n_proposals;
	ret->writes = l->n_writes;
	ret->checkpoints = l->n_checkpoints;
	ret->journal_full = l->n_full;
	ret->role = "stopped";
	if (!l->started || cfs_raft_dead(l))
		return;
	ret->role = raft_state_name(raft_state(r));
	ret->commit = raft_commit_index(r);
	ret->members = r->configuration.n;
	raft_leader(r, &leader, &addr);
	ret->leader = leader;
	if (addr)
		snprintf(ret->leader_addr, sizeof(ret->leader_addr), "%s", addr);
}
