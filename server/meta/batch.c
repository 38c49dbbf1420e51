/* SPDX-License-Identifier: MIT */
/*
 * batch.c - log entries: requests that are ready are collected into one while others are on their way.
 *
 * When nothing is on its way, what is there goes at once, one request or many. Behind another entry it
 * pays to wait for company, but not for ever: SHARD_PIPELINE_MIN requests go without waiting for
 * the one before, so that a slow journal never idles while a fast one gets large batches. Entries are known
 * by their time stamps, which grow strictly from entry to entry of a leader.
 */
#include "server/meta/shard_i.h"

/* append the record of `op` to the entry being built. false: there is no room left in it */
bool batch_add(struct cfs_shard *s, struct shard_op *op)
{
	size_t len = sizeof(struct cfs_log_rec) + op->len + op->n_holders * sizeof(cfs_le64);
	size_t padded = (size_t)cfs_align_up(len, 8);
	struct cfs_log_rec rec = {
		.opcode = cfs_cpu_to_le16(op->opcode),
		.n_holders = cfs_cpu_to_le16(op->n_holders),
		.body_len = cfs_cpu_to_le32(op->len),
		.session = cfs_cpu_to_le64(op->opcode == CFS_LOG_FENCE ? op->ino :
					   op->opcode == CFS_OP_SESSION_OPEN || !op->sess ? 0 : op->sess->id),
		.slot = op->hdr.slot,
		.seq = op->hdr.seq,
	};
	uint8_t *p = s->batch_buf + s->batch_len;

	CFS_ASSERT(sizeof(struct cfs_log_hdr) + padded <= CFS_LOG_ENTRY_MAX);
	if (s->batch.n == CFS_LOG_BATCH_MAX || s->batch_len + padded > CFS_LOG_ENTRY_MAX)
		return false;
	memcpy(p, &rec, sizeof(rec));
	p += sizeof(rec);
	if (op->len)
		memcpy(p, op->body, op->len);
	p += op->len;
	for (unsigned i = 0; i < op->n_holders; i++, p += sizeof(cfs_le64)) {
		cfs_le64 h = cfs_cpu_to_le64(op->holders[i]);

		memcpy(p, &h, sizeof(h));
	}
	memset(p, 0, padded - len);
	s->batch_len += padded;
	s->batch.ops[s->batch.n++] = op;
	op->state = OP_LOG;
	return true;
}

static void batch_reset(struct cfs_shard *s)
{
	s->batch.n = 0;
	s->batch_len = sizeof(struct cfs_log_hdr);
}

static bool worth_it(const struct cfs_shard *s)
{
	if (!s->batch.n || s->n_inflight == SHARD_INFLIGHT_MAX)
		return false;
	return !s->n_inflight || s->batch.n >= SHARD_PIPELINE_MIN || !cfs_list_empty(&s->ready_q);
}

static int propose(struct cfs_shard *s)
{
	uint64_t ns = cfs_max(cfs_clock_real_ns(s->p.clock), s->last_ns + 1);
	struct cfs_log_hdr hdr = {
		.magic = cfs_cpu_to_le32(CFS_LOG_MAGIC),
		.version = cfs_cpu_to_le16(CFS_LOG_VERSION),
		.n = cfs_cpu_to_le16((uint16_t)s->batch.n),
		.time.sec = cfs_cpu_to_le64(ns / CFS_NSEC_PER_SEC),
		.time.nsec = cfs_cpu_to_le32((uint32_t)(ns % CFS_NSEC_PER_SEC)),
	};
	struct shard_entry *e;
	int rc;

	memcpy(s->batch_buf, &hdr, sizeof(hdr));
	rc = s->p.log_ops->propose(s->p.log, s->batch_buf, s->batch_len);
	if (rc)
		return rc;
	s->last_ns = ns;
	e = &s->inflight[(s->inflight_head + s->n_inflight++) % SHARD_INFLIGHT_MAX];
	e->time = hdr.time;
	e->n = s->batch.n;
	memcpy(e->ops, s->batch.ops, s->batch.n * sizeof(e->ops[0]));
	s->st.batches++;
	s->st.batched_requests += s->batch.n;
	batch_reset(s);
	return 0;
}

/* propose what is worth it; at the end of every event, and again from the timer if the log was busy */
void batch_kick(struct cfs_shard *s)
{
	int rc = 0;

	while (s->leader && !rc && worth_it(s)) {
		rc = propose(s);
		while (!rc && !cfs_list_empty(&s->ready_q)) {
			struct shard_op *op = cfs_list_first(&s->ready_q, struct shard_op, wait_link);

			if (!batch_add(s, op))
				break;
			cfs_list_del(&op->wait_link);
		}
	}
	if (rc && rc != -EBUSY) {
		if (rc != -ENOTCONN)
			cfs_err("shard %u: log %s refuses an entry: %s", s->p.shard, s->p.log_ops->name, strerror(-rc));
		cfs_shard_lost_leadership(s);
	}
}

struct applied {
	struct cfs_shard *s;
	struct shard_entry *e; /* NULL: not ours */
	int rc;
};

static void sink(void *arg, unsigned rec, uint32_t status, const void *body, uint32_t len)
{
	struct applied *a = arg;
	struct shard_op *op;
	int rc;

	CFS_ASSERT(rec < a->e->n && a->e->ops[rec]);
	op = a->e->ops[rec];
	a->e->ops[rec] = NULL;
	rc = op_applied(a->s, op, status, body, len);
	if (rc && !a->rc)
		a->rc = rc;
}

/* an entry is committed: apply it, and finish our requests if it is ours */
int batch_apply(struct cfs_shard *s, uint64_t index, const void *entry, size_t len)
{
	struct shard_entry *e = s->n_inflight ? &s->inflight[s->inflight_head] : NULL;
	struct applied a = { .s = s };
	struct cfs_log_hdr hdr;
	uint64_t ns;
	int rc;

	if (len < sizeof(hdr))
		return -EBADMSG;
	memcpy(&hdr, entry, sizeof(hdr));
	if (e && e->n == cfs_le16_to_cpu(hdr.n) && !memcmp(&e->time, &hdr.time, sizeof(e->time)))
		a.e = e;
	ns = cfs_le64_to_cpu(hdr.time.sec) * CFS_NSEC_PER_SEC + cfs_le32_to_cpu(hdr.time.nsec);
	s->last_ns = cfs_max(s->last_ns, ns);
	rc = cfs_meta_apply(s->p.meta, index, entry, len, a.e ? sink : NULL, &a);
	if (rc)
		return rc;
	if (a.e) {
		for (unsigned i = 0; i < e->n; i++)
			CFS_ASSERT(!e->ops[i]); /* each record was reported */
		s->inflight_head = (s->inflight_head + 1) % SHARD_INFLIGHT_MAX;
		s->n_inflight--;
	}
	return a.rc;
}

/* leadership is lost: what is on its way may or may not be applied some day; who asked will ask again */
void batch_drop(struct cfs_shard *s)
{
	while (s->n_inflight) {
		struct shard_entry *e = &s->inflight[s->inflight_head];

		for (unsigned i = 0; i < e->n; i++) {
			if (e->ops[i])
				op_abort(s, e->ops[i], CFS_E_NOTLEADER);
		}
		s->inflight_head = (s->inflight_head + 1) % SHARD_INFLIGHT_MAX;
		s->n_inflight--;
	}
	for (unsigned i = 0; i < s->batch.n; i++)
		op_abort(s, s->batch.ops[i], CFS_E_NOTLEADER);
	while (!cfs_list_empty(&s->ready_q))
		op_abort(s, cfs_list_first(&s->ready_q, struct shard_op, wait_link), CFS_E_NOTLEADER);
	batch_reset(s);
}
