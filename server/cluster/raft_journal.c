/* SPDX-License-Identifier: MIT */
/*
 * raft_journal.c - what a Raft log asks of its journal: entries in groups, checkpoints, installed snapshots.
 *
 * Jobs run one at a time in the order of l->jobs. Appends that wait are merged into one device write. A
 * checkpoint goes in front of appends that wait, because it frees the space they may be waiting for.
 */
#include "server/cluster/raft_log_i.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/log.h"
#include "rpc/codec.h"

#define APPEND_ENTRIES_MAX	512u		/* entries in one device write */
#define APPEND_BYTES_MAX	(4u << 20)	/* and their bytes, but for a single larger one */
#define TRAILING		4096u		/* entries kept behind a snapshot for members that lag */
#define FULL_RETRY_NS		(200 * CFS_NSEC_PER_MSEC)
#define CKPT_RETRY_NS		(5 * CFS_NSEC_PER_SEC)

/* the manifest in the journal: followed by configuration, then the user's manifest */
struct manifest {
	cfs_le32 magic;
	cfs_le16 version;
	cfs_le16 pad;
	cfs_le64 index, term;
	cfs_le64 conf_index;
	cfs_le32 conf_len, data_len;
};
_Static_assert(sizeof(struct manifest) == 40, "manifest");
#define MANIFEST_MAGIC		0x504e5343u	/* "CSNP" */
#define MANIFEST_VERSION	1u

static void run(struct cfs_raft_log *l);

/* ---- the queue -------------------------------------------------------------------------------------- */

static struct raft_job *job_new(struct cfs_raft_log *l, int kind, unsigned n)
{
	struct raft_job *job = calloc(1, sizeof(*job));

	if (!job)
		return NULL;
	job->l = l;
	job->kind = kind;
	job->n = n;
	cfs_list_init(&job->link);
	if (n) {
		job->bufs = calloc(n, sizeof(*job->bufs));
		job->entries = calloc(n, sizeof(*job->entries));
		if (!job->bufs || !job->entries) {
			free(job->bufs);
			free(job->entries);
			free(job);
			return NULL;
		}
	}
	return job;
}

static void job_free(struct raft_job *job)
{
	if (!job)
		return;
	cfs_list_del(&job->link);
	for (unsigned i = 0; i < job->n; i++)
		cfs_ebuf_put(job->bufs[i]);
	free(job->bufs);
	free(job->entries);
	free((void *)(uintptr_t)job->snap.manifest);
	free(job);
}

/* all but the one under way */
static void drop_waiting(struct cfs_raft_log *l)
{
	struct cfs_list *pos, *tmp;

	cfs_list_for_each_safe(pos, tmp, &l->jobs) {
		if (!(l->writing && pos == l->jobs.next))
			job_free(cfs_list_entry(pos, struct raft_job, link));
	}
}

void cfs_raft_jobs_free(struct cfs_raft_log *l)
{
	CFS_ASSERT(!l->writing);
	drop_waiting(l);
}

static void on_retry(struct cfs_timer *t)
{
	run(cfs_container_of(t, struct cfs_raft_log, retry));
}

/* no space: keep the job, try again, and ask for a checkpoint, which is what makes space */
static void journal_full(struct cfs_raft_log *l)
{
	uint64_t now = cfs_clock_boot_ns(l->clock);

	l->n_full++;
	if (!l->full_logged_ns || now - l->full_logged_ns > 10 * CFS_NSEC_PER_SEC) {
		cfs_warn("shard %" PRIu32 ": the journal is full: requests wait for a checkpoint to free space",
			 l->group);
		l->full_logged_ns = now;
	}
	l->retry.fn = on_retry;
	cfs_timer_set(l->clock, &l->retry, now + FULL_RETRY_NS);
	l->checkpoint_wanted = true;
	cfs_raft_maybe_checkpoint(l);
}

/* ---- entries ------------------------------------------------------------------------------------------- */

/* the highest index of the job that is still in the log as it was written */
static uint64_t still_there(struct cfs_raft_log *l, const struct raft_job *job)
{
	uint64_t high = 0;

	for (unsigned i = 0; i < job->n; i++) {
		struct cfs_elog_entry *e = cfs_elog_get(&l->elog, job->entries[i].index);

		if (!e || e->term != job->entries[i].term)
			break;
		high = job->entries[i].index;
	}
	return high;
}

static void append_done(struct cfs_journal_append *a, int err)
{
	struct raft_job *job = cfs_container_of(a, struct raft_job, append);
	struct cfs_raft_log *l = job->l;
	struct raft_event ev = { .type = RAFT_PERSISTED_ENTRIES };

	l->writing = false;
	if (cfs_raft_dead(l))
		return;		/* the job goes with the queue */
	if (err == -ENOSPC) {
		journal_full(l);
		return;
	}
	if (err) {
		cfs_raft_fail(l, err, "cannot write to the journal");
		return;
	}
	l->n_writes++;
	ev.persisted_entries.index = l->installing ? 0 : still_there(l, job);
	job_free(job);
	run(l);
	if (ev.persisted_entries.index > l->raft.last_stored && cfs_raft_step(l, &ev))
		cfs_raft_fail(l, -EIO, "libraft refused a completed write");
}

/* move the entries of the appends behind `job` into it */
static void merge(struct cfs_raft_log *l, struct raft_job *job)
{
	unsigned n = job->n, jobs = 0;
	uint64_t bytes = 0;
	struct cfs_journal_entry *entries;
	struct cfs_ebuf **bufs;
	struct cfs_list *pos;

	for (unsigned i = 0; i < job->n; i++)
		bytes += job->entries[i].len;
	for (pos = job->link.next; pos != &l->jobs; pos = pos->next) {
		struct raft_job *next = cfs_list_entry(pos, struct raft_job, link);

		if (next->kind != JOB_APPEND || next->truncate || n + next->n > APPEND_ENTRIES_MAX)
			break;
		for (unsigned i = 0; i < next->n; i++)
			bytes += next->entries[i].len;
		if (bytes > APPEND_BYTES_MAX)
			break;
		n += next->n;
		jobs++;
	}
	if (!jobs)
		return;
	entries = calloc(n, sizeof(*entries));
	bufs = calloc(n, sizeof(*bufs));
	if (!entries || !bufs) {	/* then one by one */
		free(entries);
		free(bufs);
		return;
	}
	memcpy(entries, job->entries, job->n * sizeof(*entries));
	memcpy(bufs, job->bufs, job->n * sizeof(*bufs));
	n = job->n;
	while (jobs--) {
		struct raft_job *next = cfs_list_first(&job->link, struct raft_job, link);

		memcpy(entries + n, next->entries, next->n * sizeof(*entries));
		memcpy(bufs + n, next->bufs, next->n * sizeof(*bufs));
		n += next->n;
		next->n = 0;	/* its references have moved */
		job_free(next);
	}
	free(job->entries);
	free(job->bufs);
	job->entries = entries;
	job->bufs = bufs;
	job->n = n;
}

static void run(struct cfs_raft_log *l)
{
	struct raft_job *job;

	if (l->writing || cfs_raft_dead(l) || cfs_list_empty(&l->jobs))
		return;
	job = cfs_list_first(&l->jobs, struct raft_job, link);
	cfs_timer_cancel(l->clock, &l->retry);
	if (job->truncate) {
		int rc = cfs_journal_truncate(l->journal, job->truncate);

		if (rc == -ENOSPC) {
			journal_full(l);
			return;
		}
		if (rc) {
			cfs_raft_fail(l, rc, "cannot truncate the journal");
			return;
		}
		job->truncate = 0;
	}
	l->writing = true;
	if (job->kind != JOB_APPEND) {
		cfs_journal_snapshot(l->journal, &job->snap);
		return;
	}
	merge(l, job);
	job->append = (struct cfs_journal_append){ .entries = job->entries, .n = job->n, .done = append_done };
	cfs_journal_append(l->journal, &job->append);
}

/* entries that libraft says must be written: into memory, and on their way to the journal. Takes the batch */
int cfs_raft_queue_entries(struct cfs_raft_log *l, uint64_t index, const struct raft_entry *entries, unsigned n)
{
	bool ours = l->submitting && entries[0].batch == l->submitting;
	struct raft_job *job = job_new(l, JOB_APPEND, n);
	int rc = 0;

	if (!job)
		return -ENOMEM;
	job->first = index;
	if (index <= cfs_elog_last(&l->elog)) {
		cfs_elog_truncate(&l->elog, index);
		job->truncate = index;
	}
	CFS_ASSERT(index == cfs_elog_last(&l->elog) + 1);
	for (unsigned i = 0; i < n; i++) {
		struct cfs_ebuf *buf = ours ? l->submitting : cfs_ebuf_new(entries[i].buf.base, entries[i].buf.len);

		if (!buf) {
			rc = -ENOMEM;
			break;
		}
		job->bufs[i] = cfs_ebuf_get(buf);
		rc = cfs_elog_append(&l->elog, entries[i].term, entries[i].type, buf);
		if (rc) {
			cfs_ebuf_put(job->bufs[i]);
			job->bufs[i] = NULL;
			if (!ours)
				cfs_ebuf_put(buf);
			break;
		}
		if (ours)
			l->submitting = NULL;
		job->entries[i] = (struct cfs_journal_entry){ .index = index + i, .term = entries[i].term,
			.kind = entries[i].type, .len = buf->len, .data = buf->data };
		l->log_bytes += buf->len;
	}
	if (!ours)
		raft_free(entries[0].batch);
	if (rc) {
		job_free(job);
		return rc;
	}
	cfs_list_add_tail(&l->jobs, &job->link);
	run(l);
	return 0;
}

/* ---- the manifest ---------------------------------------------------------------------------------------- */

static int manifest_find(struct cfs_raft_log *l, struct manifest *ret, const uint8_t **ret_conf,
			 const uint8_t **ret_data, const char **ret_why)
{
	uint64_t index, term;
	struct cfs_cursor c;
	const void *buf;
	uint32_t len;
	int rc;

	rc = cfs_journal_last_snapshot(l->journal, &index, &term, &buf, &len);
	if (rc)
		return rc;
	cfs_cursor_init(&c, buf, len);
	cfs_take_struct(&c, ret);
	*ret_conf = cfs_take(&c, cfs_le32_to_cpu(ret->conf_len), "configuration");
	*ret_data = cfs_take(&c, cfs_le32_to_cpu(ret->data_len), "data");
	if (cfs_cursor_end(&c))
		*ret_why = c.err;
	else if (cfs_le32_to_cpu(ret->magic) != MANIFEST_MAGIC)
		*ret_why = "bad magic";
	else if (cfs_le16_to_cpu(ret->version) != MANIFEST_VERSION)
		*ret_why = "unknown version";
	else if (cfs_le64_to_cpu(ret->index) != index || cfs_le64_to_cpu(ret->term) != term || index == 0 ||
		 term == 0)
		*ret_why = "index or term is not the journal's";
	else if (!cfs_raft_conf_valid(*ret_conf, cfs_le32_to_cpu(ret->conf_len)))
		*ret_why = "malformed configuration";
	else
		return 0;
	return -EUCLEAN;
}

/* at start-up: index, term and configuration of the last snapshot. 0 also when there is none */
int cfs_raft_snapshot_load(struct cfs_raft_log *l, char *errbuf, size_t errlen)
{
	const uint8_t *conf, *data;
	struct manifest m;
	struct raft_buffer buf;
	const char *why = "unreadable";
	int rc;

	rc = manifest_find(l, &m, &conf, &data, &why);
	if (rc == -ENOENT)
		return 0;
	if (rc) {
		snprintf(errbuf, errlen, "journal of shard %" PRIu32 ": manifest of the last checkpoint: %s", l->group,
			 why);
		return rc;
	}
	buf.base = (void *)(uintptr_t)conf;
	buf.len = cfs_le32_to_cpu(m.conf_len);
	if (raft_configuration_decode(&buf, &l->snap_conf)) {
		snprintf(errbuf, errlen, "journal of shard %" PRIu32 ": contradictory configuration in the manifest",
			 l->group);
		return -EUCLEAN;
	}
	l->snap_conf_valid = true;
	l->snap_index = cfs_le64_to_cpu(m.index);
	l->snap_term = cfs_le64_to_cpu(m.term);
	l->snap_conf_index = cfs_le64_to_cpu(m.conf_index);
	return 0;
}

int cfs_raft_snapshot_data(struct cfs_raft_log *l, const void **ret_data, uint32_t *ret_len)
{
	const uint8_t *conf, *data;
	struct manifest m;
	const char *why;
	int rc;

	rc = manifest_find(l, &m, &conf, &data, &why);
	if (rc)
		return rc;
	*ret_data = data;
	*ret_len = cfs_le32_to_cpu(m.data_len);
	return 0;
}

int cfs_raft_snapshot_conf(struct cfs_raft_log *l, struct raft_configuration *ret_conf, uint64_t *ret_index)
{
	const uint8_t *conf, *data;
	struct raft_buffer buf;
	struct manifest m;
	const char *why;
	int rc;

	rc = manifest_find(l, &m, &conf, &data, &why);
	if (rc)
		return rc;
	buf.base = (void *)(uintptr_t)conf;
	buf.len = cfs_le32_to_cpu(m.conf_len);
	*ret_index = cfs_le64_to_cpu(m.conf_index);
	return raft_configuration_decode(&buf, ret_conf) ? -ENOMEM : 0;
}

/* a job that makes (index, term, configuration, data) the snapshot; NULL: no memory, or too long */
static struct raft_job *snapshot_job(struct cfs_raft_log *l, int kind, uint64_t index, uint64_t term,
				     uint64_t conf_index, const struct raft_buffer *conf, const void *data,
				     uint32_t len, void (*done)(struct cfs_journal_snapshot *s, int err))
{
	struct manifest m = {
		.magic = cfs_cpu_to_le32(MANIFEST_MAGIC),
		.version = cfs_cpu_to_le16(MANIFEST_VERSION),
		.index = cfs_cpu_to_le64(index),
		.term = cfs_cpu_to_le64(term),
		.conf_index = cfs_cpu_to_le64(conf_index),
		.conf_len = cfs_cpu_to_le32((uint32_t)conf->len),
		.data_len = cfs_cpu_to_le32(len),
	};
	size_t total = sizeof(m) + conf->len + len;
	struct raft_job *job;
	uint8_t *buf;

	if (total > CFS_MANIFEST_MAX)
		return NULL;
	job = job_new(l, kind, 0);
	buf = malloc(total);
	if (!job || !buf) {
		job_free(job);
		free(buf);
		return NULL;
	}
	memcpy(buf, &m, sizeof(m));
	memcpy(buf + sizeof(m), conf->base, conf->len);
	memcpy(buf + sizeof(m) + conf->len, data, len);
	job->first = index;
	job->snap = (struct cfs_journal_snapshot){
		.index = index, .term = term, .manifest = buf, .manifest_len = (uint32_t)total, .done = done,
		.trailing = kind == JOB_INSTALL || cfs_raft_alone(l) ? 0 : TRAILING,
	};
	return job;
}

/* ---- taking a checkpoint -------------------------------------------------------------------------------------- */

void cfs_raft_maybe_checkpoint(struct cfs_raft_log *l)
{
	struct cfs_elog_entry *e = cfs_elog_get(&l->elog, l->command);

	if (l->checkpointing || l->installing || !l->started || l->command <= l->snap_index || !e ||
	    l->raft.configuration_committed_index > l->command)
		return;
	if (!l->checkpoint_wanted && l->log_bytes < l->checkpoint_bytes &&
	    l->command - l->snap_index < l->checkpoint_entries)
		return;
	if (cfs_clock_boot_ns(l->clock) < l->ckpt_not_before_ns)
		return;
	if (raft_configuration_encode(&l->raft.configuration_committed, &l->ckpt_conf))
		return;
	l->ckpt_index = l->command;
	l->ckpt_term = e->term;
	l->ckpt_conf_index = l->raft.configuration_committed_index;
	l->ckpt_bytes = l->log_bytes;
	l->checkpointing = true;
	l->checkpoint_wanted = false;
	l->user->checkpoint(l->arg, l->ckpt_index);
}

void cfs_raft_log_checkpoint(struct cfs_raft_log *l)
{
	l->checkpoint_wanted = true;
	if (!cfs_raft_dead(l))
		cfs_raft_maybe_checkpoint(l);
}

static void checkpoint_over(struct cfs_raft_log *l, int err)
{
	raft_free(l->ckpt_conf.base);
	l->ckpt_conf.base = NULL;
	l->checkpointing = false;
	if (!err)
		return;
	cfs_warn("shard %" PRIu32 ": no checkpoint at log index %" PRIu64 ": %s; trying again in 5 s", l->group,
		 l->ckpt_index, strerror(-err));
	l->ckpt_not_before_ns = cfs_clock_boot_ns(l->clock) + CKPT_RETRY_NS;
	l->checkpoint_wanted = true;
}

static void checkpoint_written(struct cfs_journal_snapshot *s, int err)
{
	struct raft_job *job = cfs_container_of(s, struct raft_job, snap);
	struct cfs_raft_log *l = job->l;
	struct raft_event ev = { .type = RAFT_SNAPSHOT };
	unsigned trailing = s->trailing;

	l->writing = false;
	if (cfs_raft_dead(l))
		return;
	job_free(job);
	ev.snapshot.metadata.index = l->ckpt_index;
	ev.snapshot.metadata.term = l->ckpt_term;
	ev.snapshot.metadata.configuration_index = l->ckpt_conf_index;
	ev.snapshot.trailing = trailing;
	if (!err && raft_configuration_decode(&l->ckpt_conf, &ev.snapshot.metadata.configuration))
		err = -ENOMEM;
	checkpoint_over(l, err);
	if (!err) {
		l->snap_index = l->ckpt_index;
		l->snap_term = l->ckpt_term;
		l->log_bytes -= l->ckpt_bytes;
		l->n_checkpoints++;
		if (l->snap_index > trailing)
			cfs_elog_compact(&l->elog, l->snap_index - trailing);
		l->user->checkpointed(l->arg);
		cfs_raft_step(l, &ev);
	}
	run(l);
}

void cfs_raft_log_checkpoint_done(struct cfs_raft_log *l, int err, const void *manifest, uint32_t len)
{
	struct raft_job *job = NULL;

	CFS_ASSERT(l->checkpointing);
	if (!err && !cfs_raft_dead(l)) {
		job = snapshot_job(l, JOB_SNAPSHOT, l->ckpt_index, l->ckpt_term, l->ckpt_conf_index, &l->ckpt_conf,
				   manifest, len, checkpoint_written);
		if (!job)
			err = -ENOMEM;
	}
	if (cfs_raft_dead(l)) {
		raft_free(l->ckpt_conf.base);
		l->ckpt_conf.base = NULL;
		l->checkpointing = false;
		return;
	}
	if (err) {
		checkpoint_over(l, err);
		return;
	}
	/* before appends that wait, behind the one under way */
	cfs_list_add_head(l->writing ? l->jobs.next : &l->jobs, &job->link);
	run(l);
}

/* ---- installing another member's -------------------------------------------------------------------------------- */

static void ask_install(struct cfs_timer *t)
{
	struct cfs_raft_log *l = cfs_container_of(t, struct cfs_raft_log, install_retry);

	l->user->install(l->arg, l->install.index, l->install_from, l->install_data.base,
			 (uint32_t)l->install_data.len);
}

/* libraft has forgotten its log already: what is not under way to the journal need not go there */
void cfs_raft_install_begin(struct cfs_raft_log *l, struct raft_snapshot_metadata *meta, struct raft_buffer *data)
{
	CFS_ASSERT(!l->installing && !l->checkpointing);
	l->installing = true;
	l->install = *meta;
	l->install_data = *data;
	drop_waiting(l);
	cfs_elog_reset(&l->elog, meta->index + 1);
	l->install_retry.fn = ask_install;
	ask_install(&l->install_retry);
}

static void install_written(struct cfs_journal_snapshot *s, int err)
{
	struct raft_job *job = cfs_container_of(s, struct raft_job, snap);
	struct cfs_raft_log *l = job->l;
	struct raft_event ev = { .type = RAFT_PERSISTED_SNAPSHOT };

	l->writing = false;
	if (cfs_raft_dead(l))
		return;
	if (err == -ENOSPC) {
		journal_full(l);
		return;
	}
	job_free(job);
	if (!err)
		err = l->user->installed(l->arg);
	if (err) {
		cfs_raft_fail(l, err, "cannot install the leader's checkpoint");
		return;
	}
	l->snap_index = l->committed = l->applied = l->command = l->install.index;
	l->snap_term = l->install.term;
	l->log_bytes = 0;
	l->installing = false;
	raft_free(l->install_data.base);
	ev.persisted_snapshot.metadata = l->install;	/* libraft's from now on */
	ev.persisted_snapshot.last = true;
	if (cfs_raft_step(l, &ev))
		cfs_raft_fail(l, -EIO, "libraft refused an installed checkpoint");
	run(l);
}

void cfs_raft_log_install_done(struct cfs_raft_log *l, int err, const void *manifest, uint32_t len)
{
	struct raft_buffer conf = { 0 };
	struct raft_job *job = NULL;

	if (cfs_raft_dead(l))
		return;
	CFS_ASSERT(l->installing);
	if (!err && raft_configuration_encode(&l->install.configuration, &conf))
		err = -ENOMEM;
	if (!err) {
		job = snapshot_job(l, JOB_INSTALL, l->install.index, l->install.term, l->install.configuration_index,
				   &conf, manifest, len, install_written);
		raft_free(conf.base);
		if (!job)
			err = -ENOMEM;
	}
	if (err) {
		cfs_warn("shard %" PRIu32 ": cannot fetch the leader's checkpoint at log index %llu: %s; trying again",
			 l->group, l->install.index, strerror(-err));
		cfs_timer_set(l->clock, &l->install_retry, cfs_clock_boot_ns(l->clock) + CFS_NSEC_PER_SEC);
		return;
	}
	job->truncate = l->snap_index + 1;
	cfs_list_add_tail(&l->jobs, &job->link);
	run(l);
}
