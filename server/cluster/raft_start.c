/* SPDX-License-Identifier: MIT */
/* raft_start.c - a Raft log's birth and death: reading the journal, the first configuration. */
#include "server/cluster/raft_log_i.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- create and destroy ---------------------------------------------------------------------- */

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
		snprintf(ld->errbuf, ld->errlen,
			 "journal of shard %" PRIu32 ": entry %" PRIu64 ": %s", l->group, e->index,
			 why);
		return -EUCLEAN;
	}
	buf = cfs_ebuf_new(e->data, e->len);
	if (!buf || cfs_elog_append(&l->elog, e->term, e->kind, buf)) {
		cfs_ebuf_put(buf);
		snprintf(ld->errbuf, ld->errlen, "journal of shard %" PRIu32 ": out of memory",
			 l->group);
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

int cfs_raft_log_create(const struct cfs_raft_params *p, struct cfs_raft_log **ret_log,
			char *errbuf, size_t errlen)
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
		snprintf(errbuf, errlen,
			 "journal of shard %" PRIu32 " ends at %" PRIu64
			 ", before its snapshot at %" PRIu64,
			 l->group, cfs_elog_last(&l->elog), l->snap_index);
		rc = -EUCLEAN;
	}
	if (rc) {
		if (!errbuf[0])
			snprintf(errbuf, errlen, "cannot read the journal of shard %" PRIu32 ": %s",
				 l->group, strerror(-rc));
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

uint64_t cfs_raft_log_snapshot(const struct cfs_raft_log *l, const void **ret_manifest,
			       uint32_t *ret_len)
{
	if (l->snap_index &&
	    cfs_raft_snapshot_data((struct cfs_raft_log *)(uintptr_t)l, ret_manifest, ret_len))
		return 0;
	return l->snap_index;
}

uint64_t cfs_raft_log_last(const struct cfs_raft_log *l)
{
	return cfs_elog_last(&l->elog);
}

/* ---- start ----------------------------------------------------------------------------------- */

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
	/*
	 * without a snapshot, libraft takes entry 1, the first configuration, as committed and
	 * applied
	 */
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
		rc = raft_configuration_add(&conf, members[i].id, members[i].address, RAFT_VOTER) ?
			     -EINVAL :
			     0;
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
	job->append = (struct cfs_journal_append){ .entries = job->entries,
						   .n = 1,
						   .done = bootstrapped };
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

bool cfs_raft_log_only_voter(struct cfs_raft_log *l)
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

int cfs_raft_log_start(struct cfs_raft_log *l, uint64_t applied,
		       const struct cfs_raft_member *members, unsigned n)
{
	CFS_ASSERT(!l->started && (l->snap_index == 0 || applied >= l->snap_index) &&
		   applied <= cfs_elog_last(&l->elog));
	l->applied = l->command = applied;
	if (l->snap_index == 0 && l->elog.n == 0 && n > 0)
		return bootstrap(l, members, n);
	/*
	 * An only voter needs no election, and so libraft would let it lead in its old term. Leases
	 * know a new leader by its term, so this one begins a new one.
	 */
	if (l->term > 0 && cfs_raft_log_only_voter(l)) {
		int rc = cfs_journal_set_vote(l->journal, l->term + 1, l->raft.id);

		if (rc)
			return rc;
		l->term++;
		l->vote = l->raft.id;
	}
	return start_raft(l);
}
