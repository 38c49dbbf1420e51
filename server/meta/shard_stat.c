/* SPDX-License-Identifier: MIT */
/* shard_stat.c - numbers of a shard leader for status pages and metrics. Reads only; the shard's thread. */
#include "server/meta/shard_i.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

void cfs_shard_stat(struct cfs_shard *s, struct cfs_shard_stat *ret)
{
	*ret = s->st;
	ret->sessions = s->sessions.n;
	ret->conns = s->conns.n;
	ret->dir_leases = s->leases.dir_leases;
	ret->file_leases = s->leases.file_leases;
	ret->lease_bytes = cfs_leases_bytes(&s->leases);
	ret->leader = s->leader;
	ret->grace = s->leader && (s->grace || !s->ready);
}

static CFS_PRINTF(2, 3) void put(struct cfs_builder *b, const char *fmt, ...)
{
	size_t room = b->cap - b->len;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf((char *)b->buf + b->len, room, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= room)
		b->err = "text";
	else if (!b->err)
		b->len += (size_t)n;
}

/* a JSON string: what a client calls itself is anything */
static void put_string(struct cfs_builder *b, const char *str)
{
	put(b, "\"");
	for (; *str && !b->err; str++) {
		unsigned char ch = (unsigned char)*str;

		if (ch == '"' || ch == '\\')
			put(b, "\\%c", ch);
		else if (ch < 0x20 || ch >= 0x7f)
			put(b, "\\u%04x", ch);
		else
			put(b, "%c", ch);
	}
	put(b, "\"");
}

static void put_session(struct cfs_builder *b, const struct cfs_shard *s, const struct shard_sess *sess)
{
	int64_t left_ns = (int64_t)(sess->deadline_ns - cfs_clock_boot_ns(s->p.clock));
	unsigned recalls = 0;

	for (const struct cfs_list *pos = sess->brks.next; pos != &sess->brks; pos = pos->next)
		recalls++;
	put(b, "{\"id\":%" PRIu64 ",\"name\":", sess->id);
	put_string(b, sess->name);
	put(b, ",\"connections\":%u,\"callback\":%s,\"requests\":%u,\"leases\":%" PRIu64 ",\"recalls\":%u,\"deadline_ms\":%"
	       PRId64 ",\"fencing\":%s}",
	    sess->n_conns, sess->cb ? "true" : "false", sess->n_ops, sess->leases.n, recalls,
	    left_ns / (int64_t)CFS_NSEC_PER_MSEC, sess->fencing ? "true" : "false");
}

int cfs_shard_json(struct cfs_shard *s, char *buf, size_t len)
{
	const size_t tail = sizeof("],\"sessions_left_out\":18446744073709551615}");
	struct cfs_shard_stat st;
	struct cfs_builder b;
	struct cfs_list *pos;
	uint64_t left_out = s->sessions.n;

	if (len <= tail)
		return -ENOSPC;
	cfs_shard_stat(s, &st);
	cfs_builder_init(&b, buf, len - tail);
	put(&b, "{\"shard\":%u,\"leader\":%s,\"epoch\":%" PRIu64 ",\"grace\":%s,\"applied\":%" PRIu64, s->p.shard,
	    st.leader ? "true" : "false", s->epoch, st.grace ? "true" : "false", cfs_meta_applied(s->p.meta));
#define PUT(field) put(&b, ",\"" #field "\":%" PRIu64, st.field)
	PUT(conns);
	PUT(dir_leases);
	PUT(file_leases);
	PUT(lease_bytes);
	PUT(requests);
	PUT(batches);
	PUT(batched_requests);
	PUT(breaks_sent);
	PUT(asks_sent);
	PUT(fenced);
	PUT(replays);
	PUT(waits);
	PUT(lock_waiters);
#undef PUT
	put(&b, ",\"requests_in_progress\":%" PRIu64 ",\"n_sessions\":%" PRIu64 ",\"sessions\":[", s->op_pool.used,
	    s->sessions.n);
	if (b.err)
		return -ENOSPC;
	cfs_list_for_each(pos, &s->sess_list) {
		size_t before = b.len;

		if (pos != s->sess_list.next)
			put(&b, ",");
		put_session(&b, s, cfs_list_entry(pos, struct shard_sess, link));
		if (b.err) {
			b.len = before;
			break;
		}
		left_out--;
	}
	b.err = NULL;
	b.cap = len;
	put(&b, "],\"sessions_left_out\":%" PRIu64 "}", left_out);
	CFS_ASSERT(!b.err);
	return (int)b.len;
}
