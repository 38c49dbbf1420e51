/* SPDX-License-Identifier: MIT */
/* raft_log.c - the step machine around raft_step(): start, step, commit, leadership, reads. See raft_log.h. */
#include "server/cluster/raft_log_i.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* ---- create and destroy --------------------------------------------------------------------------- */

struct loading {
	struct cfs_raft_log *l;
	char *errbuf;
	size_t errlen;
};

static int load_entry(void *arg, const struct cfs_journal_entry *e)
{
	struct loading *ld = arg;
	struct cfs_raft_log *l = ld->l;
	const char *why = NULL;
	struct cfs_ebuf *buf;
	uint64_t last_term;

	if (l->elog.n == 0)
		l->elog.first = e->index;
	last_term = l->elog.n ? cfs_elog_get(&l->elog, cfs_elog_last(&l->elog))->term : 0;
	if (l->elog.n == 0 && e->index > l->snap_index + 1)
		why = "there is a gap after the snapshot";
	else if (e->index != l->elog.first + l->elog.n)
		why = "its index does not follow";
	else if (e->term == 0 || e->term < last_term || e->term > l->term)
		why = "its term is out of order";
	else if (e->kind != RAFT_COMMAND && e->kind != RAFT_BARRIER && e->kind != RAFT_CHANGE)
		why = "its kind is not known";
	else if (e->kind == RAFT_CHANGE && !cfs_raft_conf_valid(e->data, e->len))
		why = "its configuration is malformed";
	else if (e->index == 1 && e->kind != RAFT_CHANGE)
		why = "the first entry is not a configuration";
	if (why) {
		snprintf(ld->errbuf, ld->errlen, "journal of shard %" PRIu32 ": entry %" PRIu64 ": %s", l->group,
			 e->index, why);
		return -EUCLEAN;
	}
	buf = cfs_ebuf_new(e->data, e->len);
	if (!buf || cfs_elog_append(&l->elog, e->term, e->kind, buf)) {
		cfs_ebuf_put(buf);
		snprintf(ld->errbuf, ld->errlen, "journal of shard %" PRIu32 ": out of memory", l->group);
		return -ENOMEM;
	}
	if (e->index > l->snap_index)
		l->log_bytes += e->len;
	return 0;
}

static void on_timeout(struct cfs_timer *t)
{
	struct cfs_raft_log *l = cfs_container_of(t, struct cfs_raft_log, timer);
	struct raft_event ev = { .type = RAFT_TIMEOUT };

	cfs_raft_step(l, &ev);
}

int cfs_raft_log_create(const struct cfs_raft_params *p, struct cfs_raft_log **ret_log, char *errbuf,
			size_t errlen)
{
	struct cfs_raft_log *l = calloc(1, sizeof(*l));
	struct loading ld = { .l = l, .errbuf = errbuf, .errlen = errlen };
	int rc = -ENOMEM;

	if (!l) {
		snprintf(errbuf, errlen, "out of memory");
		return -ENOMEM;
	}
	CFS_ASSERT(p->id > 0 && strlen(p->address) <= CFS_RAFT_ADDR_MAX);
	l->clock = p->clock;
	l->journal = p->journal;
	l->group = p->group;
	l->user = p->user;
	l->arg = p->arg;
	strcpy(l->address, p->address);
	l->election_ms = p->election_ms ? p->election_ms : 1000;
	l->checkpoint_bytes = p->checkpoint_bytes ? p->checkpoint_bytes : 256 * CFS_MIB;
	l->checkpoint_entries = p->checkpoint_entries ? p->checkpoint_entries : 1u << 18;
	l->timer.fn = on_timeout;
	cfs_list_init(&l->reads);
	cfs_list_init(&l->reads_next);
	cfs_list_init(&l->jobs);
	cfs_elog_init(&l->elog, 1);
	if (raft_init(&l->raft, NULL, NULL, p->id, l->address)) {
		snprintf(errbuf, errlen, "out of memory");
		goto out;
	}
	l->raft_ready = true;
	l->raft.tracer = NULL;		/* its messages are for those who debug libraft */
	raft_seed(&l->raft, (unsigned)l->clock->ops->random(l->clock));
	raft_set_election_timeout(&l->raft, l->election_ms);
	raft_set_heartbeat_timeout(&l->raft, p->heartbeat_ms ? p->heartbeat_ms : 100);
	raft_set_install_snapshot_timeout(&l->raft, 60000);
	raft_set_pre_vote(&l->raft, true);

	cfs_journal_get_vote(l->journal, &l->term, &l->vote);
	rc = cfs_raft_snapshot_load(l, errbuf, errlen);
	if (rc)
		goto out;
	l->elog.first = l->snap_index + 1;
	rc = cfs_journal_load(l->journal, load_entry, &ld);
	if (!rc && cfs_elog_last(&l->elog) < l->snap_index) {
		snprintf(errbuf, errlen, "journal of shard %" PRIu32 " ends at %" PRIu64 ", before its snapshot at %"
			 PRIu64, l->group, cfs_elog_last(&l->elog), l->snap_index);
		rc = -EUCLEAN;
	}
	if (rc) {
		if (!errbuf[0])
			snprintf(errbuf, errlen, "cannot read the journal of shard %" PRIu32 ": %s", l->group,
				 strerror(-rc));
		goto out;
	}
	*ret_log = l;
	return 0;
out:
	cfs_raft_log_destroy(l);
	return rc;
}

void cfs_raft_log_destroy(struct cfs_raft_log *l)
{
	if (!l)
		return;
	CFS_ASSERT(!cfs_raft_log_busy(l));
	cfs_raft_log_stop(l);
	cfs_raft_jobs_free(l);
	cfs_ebuf_put(l->submitting);
	if (l->raft_ready)
		raft_close(&l->raft, NULL);
	if (l->snap_conf_valid)
		raft_configuration_close(&l->snap_conf);
	raft_free(l->ckpt_conf.base);
	if (l->installing) {
		raft_configuration_close(&l->install.configuration);
		raft_free(l->install_data.base);
	}
	cfs_elog_free(&l->elog);
	free(l);
}

uint64_t cfs_raft_log_snapshot(const struct cfs_raft_log *l, const void **ret_manifest, uint32_t *ret_len)
{
	if (l->snap_index && cfs_raft_snapshot_data((struct cfs_raft_log *)(uintptr_t)l, ret_manifest, ret_len))
		return 0;
	return l->snap_index;
}

uint64_t cfs_raft_log_last(const struct cfs_raft_log *l)
{
	return cfs_elog_last(&l->elog);
}

/* ---- failing ---------------------------------------------------------------------------------------- */

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

/* ---- the step ---------------------------------------------------------------------------------------- */

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
		/* what was in the log at the election, and the barrier that libraft may have added */
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
	/* nobody else will ask for it; entry 1 and its kind are what libraft wants to see at a restart */
	if (e && e->type == RAFT_COMMAND && cfs_raft_alone(l))
		cfs_elog_release(&l->elog, index);
	return 0;
}

/* go through what libraft knows to be committed; calls from inside only note that there is more */
static void commit(struct cfs_raft_log *l)
{
	if (l->committing)
		return;
	l->committing = true;
	while (!cfs_raft_dead(l) && !l->installing && l->committed < raft_commit_index(&l->raft)) {
		int rc = commit_one(l, l->committed + 1);

		if (rc) {
			char why[96];

			snprintf(why, sizeof(why), "cannot apply log entry %" PRIu64 ": %s", l->committed + 1,
				 strerror(rc < 0 ? -rc : rc));
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
 * Feed one event to libraft and do what it says. Term and vote become durable first, whatever else happens:
 * nothing may be sent that speaks of a vote we could forget.
 * 0; -EBADMSG: the event was refused as malformed; else the replica has failed, or -ENOTCONN, -ENOMEM of a submit.
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

/* ---- start ------------------------------------------------------------------------------------------- */

static int start_raft(struct cfs_raft_log *l)
{
	struct raft_snapshot_metadata meta;
	struct raft_event ev = { .type = RAFT_START };
	struct raft_entry *entries = NULL;
	int rc;

	if (l->elog.n) {
		entries = calloc(l->elog.n, sizeof(*entries));
		if (!entries)
			return -ENOMEM;
	}
	for (uint64_t i = 0; i < l->elog.n; i++) {
		struct cfs_elog_entry *e = cfs_elog_get(&l->elog, l->elog.first + i);

		entries[i].term = e->term;
		entries[i].type = (enum raft_entry_type)e->type;
		entries[i].buf.base = e->buf->data;
		entries[i].buf.len = e->buf->len;
		entries[i].batch = e->buf;	/* only looked at */
	}
	if (l->snap_index) {
		meta.index = l->snap_index;
		meta.term = l->snap_term;
		meta.configuration = l->snap_conf;	/* libraft's from now on */
		meta.configuration_index = l->snap_conf_index;
		l->snap_conf_valid = false;
		ev.start.metadata = &meta;
	}
	ev.start.term = l->term;
	ev.start.voted_for = l->vote;
	ev.start.start_index = l->elog.first;
	ev.start.entries = entries;
	ev.start.n_entries = (unsigned)l->elog.n;
	/* without a snapshot, libraft takes entry 1, the first configuration, as committed and applied */
	l->committed = l->snap_index ? l->snap_index : l->elog.n ? 1 : 0;
	if (l->applied < l->committed)
		l->applied = l->committed;
	l->started = true;
	rc = cfs_raft_step(l, &ev);
	free(entries);
	return rc;
}

static void bootstrapped(struct cfs_journal_append *a, int err)
{
	struct raft_job *job = cfs_container_of(a, struct raft_job, append);
	struct cfs_raft_log *l = job->l;

	cfs_list_del(&job->link);
	l->writing = false;
	if (!err)
		err = cfs_elog_append(&l->elog, 1, RAFT_CHANGE, cfs_ebuf_get(job->bufs[0]));
	cfs_ebuf_put(job->bufs[0]);
	free(job);
	if (cfs_raft_dead(l))
		return;
	if (!err)
		err = start_raft(l);
	if (err)
		cfs_raft_fail(l, err, "cannot write the first configuration to the journal");
}

/* the first entry of a new group: the same bytes, index and term on every member */
static int bootstrap(struct cfs_raft_log *l, const struct cfs_raft_member *members, unsigned n)
{
	struct raft_configuration conf;
	struct raft_job *job = NULL;
	struct raft_buffer buf = { 0 };
	int rc = 0;

	raft_configuration_init(&conf);
	for (unsigned i = 0; i < n && !rc; i++)
		rc = raft_configuration_add(&conf, members[i].id, members[i].address, RAFT_VOTER) ? -EINVAL : 0;
	if (!rc)
		rc = raft_configuration_encode(&conf, &buf) ? -ENOMEM : 0;
	raft_configuration_close(&conf);
	if (rc)
		return rc;
	job = calloc(1, sizeof(*job) + sizeof(job->bufs[0]) + sizeof(job->entries[0]));
	if (!job) {
		rc = -ENOMEM;
		goto out;
	}
	job->l = l;
	job->entries = (struct cfs_journal_entry *)(job + 1);
	job->bufs = (struct cfs_ebuf **)(job->entries + 1);
	job->bufs[0] = cfs_ebuf_new(buf.base, buf.len);
	if (!job->bufs[0]) {
		rc = -ENOMEM;
		goto out;
	}
	if (l->term == 0) {
		rc = cfs_journal_set_vote(l->journal, 1, 0);
		if (rc)
			goto out;
		l->term = 1;
	}
	job->entries[0] = (struct cfs_journal_entry){ .index = 1, .term = 1, .kind = RAFT_CHANGE,
		.len = job->bufs[0]->len, .data = job->bufs[0]->data };
	job->append = (struct cfs_journal_append){ .entries = job->entries, .n = 1, .done = bootstrapped };
	cfs_list_add_tail(&l->jobs, &job->link);
	l->writing = true;
	cfs_journal_append(l->journal, &job->append);
	job = NULL;
out:
	if (job)
		cfs_ebuf_put(job->bufs[0]);
	free(job);
	raft_free(buf.base);
	return rc;
}

/* is this member the only voter, by the newest configuration in snapshot and log? */
static bool only_voter(struct cfs_raft_log *l)
{
	struct raft_configuration conf;
	bool alone = false, found = false;

	for (uint64_t i = cfs_elog_last(&l->elog); i >= l->elog.first && i > 0 && !found; i--) {
		struct cfs_elog_entry *e = cfs_elog_get(&l->elog, i);
		struct raft_buffer buf;

		if (e->type != RAFT_CHANGE || i <= l->snap_conf_index)
			continue;
		buf.base = e->buf->data;
		buf.len = e->buf->len;
		if (raft_configuration_decode(&buf, &conf))
			return false;
		alone = conf.n == 1 && conf.servers[0].id == l->raft.id;
		raft_configuration_close(&conf);
		found = true;
	}
	if (!found && l->snap_conf_valid)
		alone = l->snap_conf.n == 1 && l->snap_conf.servers[0].id == l->raft.id;
	return alone;
}

int cfs_raft_log_start(struct cfs_raft_log *l, uint64_t applied, const struct cfs_raft_member *members,
		       unsigned n)
{
	CFS_ASSERT(!l->started && (l->snap_index == 0 || applied >= l->snap_index) &&
		   applied <= cfs_elog_last(&l->elog));
	l->applied = l->command = applied;
	if (l->snap_index == 0 && l->elog.n == 0 && n > 0)
		return bootstrap(l, members, n);
	/*
	 * An only voter needs no election, and so libraft would let it lead in its old term. Leases know a new
	 * leader by its term, so this one begins a new one.
	 */
	if (l->term > 0 && only_voter(l)) {
		int rc = cfs_journal_set_vote(l->journal, l->term + 1, l->raft.id);

		if (rc)
			return rc;
		l->term++;
		l->vote = l->raft.id;
	}
	return start_raft(l);
}

/* ---- proposing and reading ------------------------------------------------------------------------------ */

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

/* confirm the leadership for all who wait: only a barrier that is appended after they came will do */
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

/* ---- statistics --------------------------------------------------------------------------------------------- */

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
