/* SPDX-License-Identifier: MIT */
/*
 * raft_snapshot.c - the snapshots of a Raft log: their manifest in the journal, taking a checkpoint, and
 * installing another member's.
 */
#include "server/cluster/raft_log_i.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "rpc/codec.h"

#define TRAILING 4096u /* entries kept behind a snapshot for members that lag */
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

/* ---- the manifest ---------------------------------------------------------------------------- */

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
	else if (cfs_le64_to_cpu(ret->index) != index || cfs_le64_to_cpu(ret->term) != term ||
		 index == 0 || term == 0)
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
		snprintf(errbuf, errlen,
			 "journal of shard %" PRIu32 ": manifest of the last checkpoint: %s",
			 l->group, why);
		return rc;
	}
	buf.base = (void *)(uintptr_t)conf;
	buf.len = cfs_le32_to_cpu(m.conf_len);
	if (raft_configuration_decode(&buf, &l->snap_conf)) {
		snprintf(errbuf, errlen,
			 "journal of shard %" PRIu32
			 ": contradictory configuration in the manifest",
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

int cfs_raft_snapshot_conf(struct cfs_raft_log *l, struct raft_configuration *ret_conf,
			   uint64_t *ret_index)
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
static struct raft_job *snapshot_job(struct cfs_raft_log *l, int kind, uint64_t index,
				     uint64_t term, uint64_t conf_index,
				     const struct raft_buffer *conf, const void *data, uint32_t len,
				     void (*done)(struct cfs_journal_snapshot *s, int err))
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
	job = cfs_raft_job_new(l, kind, 0);
	buf = malloc(total);
	if (!job || !buf) {
		cfs_raft_job_free(job);
		free(buf);
		return NULL;
	}
	memcpy(buf, &m, sizeof(m));
	memcpy(buf + sizeof(m), conf->base, conf->len);
	memcpy(buf + sizeof(m) + conf->len, data, len);
	job->first = index;
	job->snap = (struct cfs_journal_snapshot){
		.index = index,
		.term = term,
		.manifest = buf,
		.manifest_len = (uint32_t)total,
		.done = done,
		.trailing = kind == JOB_INSTALL || cfs_raft_alone(l) ? 0 : TRAILING,
	};
	return job;
}

/* ---- taking a checkpoint --------------------------------------------------------------------- */

void cfs_raft_maybe_checkpoint(struct cfs_raft_log *l)
{
	struct cfs_elog_entry *e = cfs_elog_get(&l->elog, l->command);
	bool anew = l->checkpoint_anew && l->snap_index && l->command == l->snap_index;

	if (l->checkpointing || l->installing || !l->started || (!anew && (l->command <= l->snap_index || !e)) ||
	    l->raft.configuration_committed_index > l->command)
		return;
	/* a majority without us has committed what our journal has not got yet: it could not go on behind such a snapshot */
	if (l->command > l->raft.last_stored)
		return;
	if (!l->checkpoint_wanted && l->log_bytes < l->checkpoint_bytes &&
	    l->command - l->snap_index < l->checkpoint_entries)
		return;
	if (cfs_clock_boot_ns(l->clock) < l->ckpt_not_before_ns)
		return;
	if (raft_configuration_encode(&l->raft.configuration_committed, &l->ckpt_conf))
		return;
	l->ckpt_index = l->command;
	l->ckpt_term = anew ? l->snap_term : e->term;
	l->ckpt_conf_index = l->raft.configuration_committed_index;
	l->ckpt_bytes = l->log_bytes;
	l->checkpointing = true;
	l->checkpoint_wanted = l->checkpoint_anew = false;
	l->user->checkpoint(l->arg, l->ckpt_index);
}

void cfs_raft_log_checkpoint_every(struct cfs_raft_log *l, uint64_t bytes)
{
	l->checkpoint_bytes = bytes;
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
	cfs_warn("shard %" PRIu32 ": no checkpoint at log index %" PRIu64
		 ": %s; trying again in 5 s",
		 l->group, l->ckpt_index, strerror(-err));
	l->ckpt_not_before_ns = cfs_clock_boot_ns(l->clock) + CKPT_RETRY_NS;
	l->checkpoint_wanted = true;
	l->checkpoint_anew |= l->ckpt_index == l->snap_index;
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
	cfs_raft_job_free(job);
	ev.snapshot.metadata.index = l->ckpt_index;
	ev.snapshot.metadata.term = l->ckpt_term;
	ev.snapshot.metadata.configuration_index = l->ckpt_conf_index;
	ev.snapshot.trailing = trailing;
	if (!err && raft_configuration_decode(&l->ckpt_conf, &ev.snapshot.metadata.configuration))
		err = -ENOMEM;
	checkpoint_over(l, err);
	if (!err && l->ckpt_index == l->snap_index) { /* for the log nothing has changed */
		raft_configuration_close(&ev.snapshot.metadata.configuration);
		l->n_checkpoints++;
		l->user->checkpointed(l->arg);
	} else if (!err) {
		l->snap_index = l->ckpt_index;
		l->snap_term = l->ckpt_term;
		l->log_bytes -= l->ckpt_bytes;
		l->n_checkpoints++;
		if (l->snap_index > trailing)
			cfs_elog_compact(&l->elog, l->snap_index - trailing);
		l->user->checkpointed(l->arg);
		cfs_raft_step(l, &ev);
	}
	cfs_raft_run(l);
}

void cfs_raft_log_checkpoint_done(struct cfs_raft_log *l, int err, const void *manifest,
				  uint32_t len)
{
	struct raft_job *job = NULL;

	CFS_ASSERT(l->checkpointing);
	if (!err && !cfs_raft_dead(l)) {
		job = snapshot_job(l, JOB_SNAPSHOT, l->ckpt_index, l->ckpt_term, l->ckpt_conf_index,
				   &l->ckpt_conf, manifest, len, checkpoint_written);
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
	cfs_raft_run(l);
}

/* ---- installing another member's ------------------------------------------------------------- */

static void ask_install(struct cfs_timer *t)
{
	struct cfs_raft_log *l = cfs_container_of(t, struct cfs_raft_log, install_retry);

	l->user->install(l->arg, l->install.index, l->install_from, l->install_data.base,
			 (uint32_t)l->install_data.len);
}

/* libraft has forgotten its log already: what is not under way to the journal need not go there */
void cfs_raft_install_begin(struct cfs_raft_log *l, struct raft_snapshot_metadata *meta,
			    struct raft_buffer *data)
{
	CFS_ASSERT(!l->installing && !l->checkpointing);
	l->installing = true;
	l->install = *meta;
	l->install_data = *data;
	cfs_raft_drop_waiting(l);
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
		cfs_raft_journal_full(l);
		return;
	}
	cfs_raft_job_free(job);
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
	cfs_raft_run(l);
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
		job = snapshot_job(l, JOB_INSTALL, l->install.index, l->install.term,
				   l->install.configuration_index, &conf, manifest, len,
				   install_written);
		raft_free(conf.base);
		if (!job)
			err = -ENOMEM;
	}
	if (err) {
		cfs_warn(
			"shard %" PRIu32
			": cannot fetch the leader's checkpoint at log index %llu: %s; trying again",
			l->group, l->install.index, strerror(-err));
		cfs_timer_set(l->clock, &l->install_retry,
			      cfs_clock_boot_ns(l->clock) + CFS_NSEC_PER_SEC);
		return;
	}
	job->truncate = l->snap_index + 1;
	cfs_list_add_tail(&l->jobs, &job->link);
	cfs_raft_run(l);
}
