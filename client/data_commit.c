/* SPDX-License-Identifier: MIT */
/*
 * data_commit.c - COMMIT requests. What several threads want to commit while COMMITS_MAX requests are on their way
 * goes into one when the next is free to go; with fewer under way nobody waits for anybody. The server puts all
 * items of a request into one log entry. Who sends for others and is interrupted leaves theirs to them.
 * Items of one inode never meet here: one write-back has an inode.
 */
#include "client/data_i.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define COMMITS_MAX 4u

static uint32_t item_len(const struct cfs_data_commit *ci)
{
	return (uint32_t)(sizeof(struct cfs_commit_item) + ci->inline_len + ci->n_ext * sizeof(struct cfs_extent));
}

static unsigned char *put(unsigned char *p, const void *data, size_t len)
{
	if (len)
		memcpy(p, data, len);
	return p + len;
}

static void encode(unsigned char *p, struct cfs_data_commit **v, unsigned n)
{
	struct cfs_commit_req req = { .n = cfs_cpu_to_le32(n) };

	p = put(p, &req, sizeof(req));
	for (unsigned i = 0; i < n; i++) {
		const struct cfs_data_commit *ci = v[i];
		struct cfs_commit_item item = {
			.ino = cfs_cpu_to_le64(ci->ino), .size = cfs_cpu_to_le64(ci->size), .mtime = ci->mtime,
			.flags = cfs_cpu_to_le32(ci->flags), .inline_len = cfs_cpu_to_le32(ci->inline_len),
			.n_extents = cfs_cpu_to_le32(ci->n_ext),
		};

		p = put(p, &item, sizeof(item));
		p = put(p, ci->inl, ci->inline_len);
		p = put(p, ci->ext, ci->n_ext * sizeof(*ci->ext));
	}
}

/* one request; every item gets its rc */
static void send(struct cfs_data_ctx *g, struct cfs_data_commit **v, unsigned n, uint32_t body_len)
{
	uint32_t rep_len = (uint32_t)(sizeof(struct cfs_commit_rep) + n * sizeof(struct cfs_commit_result));
	unsigned char *body = malloc(body_len), *rep = malloc(rep_len);
	struct iovec iov = { body, body_len };
	struct cfs_call call = {
		.opcode = CFS_OP_COMMIT, .mutating = true, .body = &iov, .n_body = 1, .rep = rep, .rep_max = rep_len,
	};
	struct cfs_commit_rep head;
	int rc = -ENOMEM;

	if (!body || !rep)
		goto out;
	encode(body, v, n);
	for (unsigned i = 0; i < n; i++) {	/* of a file held exclusively they say nothing */
		v[i]->busy = g->p.changing && !cfs_data_excl(g->c, v[i]->ino);
		if (v[i]->busy)
			g->p.changing(g->p.arg, v[i]->ino, true);
	}
	rc = cfs_call(g->c, &call);
	for (unsigned i = 0; i < n; i++)
		if (v[i]->busy)
			g->p.changing(g->p.arg, v[i]->ino, false);
	if (!rc && call.rep_len == rep_len)
		memcpy(&head, rep, sizeof(head));
	if (!rc && (call.rep_len != rep_len || cfs_le32_to_cpu(head.n) != n)) {
		cfs_err("malformed reply of %u bytes to a COMMIT of %u files", call.rep_len, n);
		rc = -EPROTO;
	}
	rc = cfs_data_errno(rc);
	stat_add(g, commits, 1);
	stat_add(g, commit_items, n);
out:
	for (unsigned i = 0; i < n; i++) {
		struct cfs_commit_result res;

		v[i]->rc = rc;
		if (rc)
			continue;
		memcpy(&res, rep + sizeof(head) + i * sizeof(res), sizeof(res));
		v[i]->rc = cfs_data_errno((int)cfs_le32_to_cpu(res.status));
		v[i]->attr = res.attr;
		v[i]->off = cfs_le64_to_cpu(res.off);
		v[i]->contended = cfs_le32_to_cpu(res.flags) & CFS_CR_CONTENDED;
		if (v[i]->rc && !(v[i]->may_refuse && (v[i]->rc == -EINVAL || v[i]->rc == -EMSGSIZE)))
			cfs_warn("inode %" PRIx64 ": COMMIT failed with error %d", v[i]->ino, v[i]->rc);
	}
	free(body);
	free(rep);
}

/* commit_lock held: the first of the queue, as many as one request takes */
static unsigned take(struct cfs_data_ctx *g, struct cfs_data_commit **v, uint32_t *ret_len)
{
	uint32_t len = sizeof(struct cfs_commit_req);
	unsigned n = 0;

	while (!cfs_list_empty(&g->commit_list) && n < CFS_COMMIT_MAX) {
		struct cfs_data_commit *ci = cfs_list_first(&g->commit_list, struct cfs_data_commit, link);

		if (len + item_len(ci) > CFS_BODY_MAX)
			break;
		len += item_len(ci);
		cfs_list_del(&ci->link);
		v[n++] = ci;
	}
	CFS_ASSERT(n);		/* one item always fits */
	*ret_len = len;
	return n;
}

static bool all_done(struct cfs_data_commit **v, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (!v[i]->done)
			return false;
	return true;
}

void cfs_data_commit(struct cfs_data_ctx *g, struct cfs_data_commit **v, unsigned n)
{
	struct cfs_data_commit *batch[CFS_COMMIT_MAX];
	uint32_t len;

	pthread_mutex_lock(&g->commit_lock);
	for (unsigned i = 0; i < n; i++) {
		CFS_ASSERT(v[i]->n_ext <= CFS_DATA_COMMIT_EXTENTS && v[i]->inline_len <= CFS_INLINE_MAX);
		v[i]->done = false;
		v[i]->who = v;
		cfs_list_add_tail(&g->commit_list, &v[i]->link);
	}
	while (!all_done(v, n)) {
		unsigned k;

		if (cfs_list_empty(&g->commit_list) || g->n_commits == COMMITS_MAX) {
			pthread_cond_wait(&g->commit_cond, &g->commit_lock);
			continue;
		}
		k = take(g, batch, &len);
		g->n_commits++;
		pthread_mutex_unlock(&g->commit_lock);
		send(g, batch, k, len);
		pthread_mutex_lock(&g->commit_lock);
		g->n_commits--;
		for (unsigned i = 0; i < k; i++) {
			/* the interrupt was for us alone; committing the same twice changes nothing */
			if (batch[i]->rc == -EINTR && batch[i]->who != v)
				cfs_list_add_tail(&g->commit_list, &batch[i]->link);
			else
				batch[i]->done = true;
		}
		pthread_cond_broadcast(&g->commit_cond);
	}
	pthread_mutex_unlock(&g->commit_lock);
}

void cfs_data_commit_alone(struct cfs_data_ctx *g, struct cfs_data_commit *ci)
{
	CFS_ASSERT(ci->n_ext <= CFS_DATA_COMMIT_EXTENTS && ci->inline_len <= CFS_INLINE_MAX);
	send(g, &ci, 1, (uint32_t)sizeof(struct cfs_commit_req) + item_len(ci));
}
