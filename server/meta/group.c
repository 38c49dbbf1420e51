/* SPDX-License-Identifier: MIT */
/*
 * group.c - many log entries in one LMDB transaction. What makes an entry durable is the log; to commit each to LMDB, too, takes
 * longer than to apply it, for the next one changes the same pages again. So a transaction stays open over entries, within bounds,
 * until it is settled; this replica reads through it. A process that is killed before applies the log again from where
 * the last commit was.
 *
 * What the open transaction has applied is kept beside it, to be applied entry by entry should it come to nothing. Where
 * replies have gone out by then, it must not fail for want of room: it is opened only where the file system has reserved
 * more than its bounds let it take. Where nobody was told anything, as while a start applies its log, the bounds are wide.
 * State: m->group.
 */
#include "server/meta/meta_i.h"

#include <stdlib.h>

#define GROUP_BYTES	(1u << 20)	/* of entries in one transaction */

static const struct bounds {
	uint32_t bytes, entries;
	uint32_t writes;	/* records changed: at most two new pages each, 8 MiB if somebody was told */
} wide = { GROUP_BYTES, 4096, 32768 }, told = { 64u << 10, 256, 1024 };

struct kept {			/* followed by the entry, padded to 8 bytes */
	uint64_t index, len;
};

static size_t kept_bytes(size_t len)
{
	return sizeof(struct kept) + cfs_align_up(len, 8);
}

static void forget(struct cfs_meta *m)
{
	m->group.len = 0;
	m->group.n = 0;
}

/* what was kept, entry by entry; those that are done stay done if one fails */
static int redo(struct cfs_meta *m)
{
	struct cfs_group *g = &m->group;
	struct kept k;
	int rc;

	CFS_ASSERT(!g->tx.txn);
	for (size_t at = 0; at < g->len; at += kept_bytes(k.len)) {
		memcpy(&k, g->log + at, sizeof(k));
		rc = cfs_ms_apply_one(m, k.index, g->log + at + sizeof(k), k.len);
		if (rc)
			return rc;
	}
	forget(m);
	return 0;
}

static void give_up(struct cfs_meta *m)
{
	cfs_ms_state_abort(m, &m->group.tx);
	m->st = m->group.before;
}

int cfs_meta_settle(struct cfs_meta *m)
{
	struct cfs_group *g = &m->group;

	if (g->tx.txn) {
		if (!cfs_ms_state_commit(m, &g->tx)) {
			forget(m);
			return 0;
		}
		m->st = g->before;
	}
	return g->n ? redo(m) : 0;
}

bool cfs_meta_unsettled(const struct cfs_meta *m)
{
	return m->group.tx.txn || m->group.n;
}

static bool fits(const struct cfs_group *g, size_t len, bool tells)
{
	const struct bounds *b = g->told || tells ? &told : &wide;

	return g->n < b->entries && g->len + kept_bytes(len) <= b->bytes && g->tx.writes < b->writes;
}

int cfs_ms_group_open(struct cfs_meta *m, size_t len, bool tells)
{
	struct cfs_group *g = &m->group;
	int rc;

	if (!g->log)
		return 0;
	if (!g->tx.txn || !fits(g, len, tells)) {
		rc = cfs_meta_settle(m);
		if (rc)
			return rc;
		memset(&g->tx, 0, sizeof(g->tx));
		g->told = false;
	}
	g->told |= tells;
	if (g->tx.txn)
		return 1;
	if (!fits(g, len, tells) || !cfs_ms_room_sure(m))
		return 0;
	g->before = m->st;
	rc = cfs_ms_state_begin(m, &g->tx);
	return rc ? rc : 1;
}

/* each entry and each reader has a cursor that has been nowhere, as it would in a transaction of its own */
static int fresh_cursor(struct cfs_tx *t)
{
	mdb_cursor_close(t->cur);
	return cfs_ms_db_err(mdb_cursor_open(t->txn, t->m->dbi, &t->cur));
}

int cfs_ms_group_rd(struct cfs_meta *m, struct cfs_tx **ret_t)
{
	struct cfs_tx *t = &m->group.tx;
	int rc = fresh_cursor(t);

	if (rc) {
		t->cur = NULL;
		give_up(m);
		return rc;
	}
	t->now = m->st.time;
	*ret_t = t;
	return 0;
}

int cfs_ms_group_add(struct cfs_meta *m, uint64_t index, const void *entry, size_t len)
{
	struct cfs_group *g = &m->group;
	struct kept k = { .index = index, .len = len };
	int rc;

	rc = fresh_cursor(&g->tx);
	if (rc)
		g->tx.cur = NULL;
	else
		rc = cfs_ms_run_entry(&g->tx, index, entry, len);
	if (!rc && (!g->told || g->tx.writes < told.writes)) {
		memcpy(g->log + g->len, &k, sizeof(k));
		memcpy(g->log + g->len + sizeof(k), entry, len);
		g->len += kept_bytes(len);
		g->n++;
		return 0;
	}
	/* it changes more than there is surely room for: committed before anybody hears of it */
	if (!rc && !cfs_ms_state_commit(m, &g->tx)) {
		forget(m);
		return 0;
	}
	if (g->tx.txn)
		give_up(m);
	m->st = g->before;
	rc = redo(m);
	return rc ? rc : cfs_ms_apply_one(m, index, entry, len);
}

int cfs_meta_group(struct cfs_meta *m, bool on)
{
	int rc = cfs_meta_settle(m);

	if (rc || on == (m->group.log != NULL))
		return rc;
	if (on) {
		m->group.log = malloc(GROUP_BYTES);
		return m->group.log ? 0 : -ENOMEM;
	}
	free(m->group.log);
	m->group.log = NULL;
	return 0;
}

void cfs_meta_lose(struct cfs_meta *m)
{
	if (m->group.tx.txn)
		give_up(m);
	forget(m);
}

void cfs_ms_group_close(struct cfs_meta *m)
{
	cfs_meta_settle(m);	/* if it cannot be: the log has it */
	free(m->group.log);
	m->group.log = NULL;
	forget(m);
}
