/* SPDX-License-Identifier: MIT */
/*
 * Proves of the Raft log (server/cluster/raft_log.h), with virtual time, a journal in memory that
 * forgets what it has not completed, and a network that loses messages on request: a group of one
 * bootstraps, leads at once, commits a proposal in the journal's completion, survives restarts with
 * a new term each, groups writes, waits out a full journal, stops at a broken one, and begins again
 * at its checkpoint; three members elect, replicate, replace a dead leader, bring a late member
 * back by entries and by checkpoint, and never apply two histories; reads wait when nobody confirms
 * the leader.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "server/cluster/raft_log.h"

#define MS CFS_NSEC_PER_MSEC

/* ---- virtual time ---------------------------------------------------------------------------- */

#define TIMERS_MAX 64
struct fake_clock {
	struct cfs_clock c;
	uint64_t now, seed;
	struct cfs_timer *timers[TIMERS_MAX];
	unsigned n;
};

static uint64_t clk_now(struct cfs_clock *c)
{
	return ((struct fake_clock *)c)->now;
}

static void clk_cancel(struct cfs_clock *c, struct cfs_timer *t)
{
	struct fake_clock *f = (struct fake_clock *)c;

	if (!t->heap_pos)
		return;
	f->n--;
	f->timers[t->heap_pos - 1] = f->timers[f->n];
	f->timers[t->heap_pos - 1]->heap_pos = t->heap_pos;
	t->heap_pos = 0;
}

static void clk_set(struct cfs_clock *c, struct cfs_timer *t, uint64_t deadline)
{
	struct fake_clock *f = (struct fake_clock *)c;

	clk_cancel(c, t);
	assert_true(f->n < TIMERS_MAX);
	f->timers[f->n] = t;
	t->heap_pos = ++f->n;
	t->deadline_ns = deadline;
}

static uint64_t clk_random(struct cfs_clock *c)
{
	struct fake_clock *f = (struct fake_clock *)c;

	f->seed = f->seed * 6364136223846793005ull + 1442695040888963407ull;
	return f->seed >> 17;
}

static const struct cfs_clock_ops clk_ops = {
	.name = "fake", .version = CFS_CLOCK_OPS_VERSION, .boot_ns = clk_now, .real_ns = clk_now,
	.timer_set = clk_set, .timer_cancel = clk_cancel, .random = clk_random,
};

static struct fake_clock clk;

static void run_timers(void)
{
	for (;;) {
		struct cfs_timer *due = NULL;

		for (unsigned i = 0; i < clk.n; i++)
			if (clk.timers[i]->deadline_ns <= clk.now &&
			    (!due || clk.timers[i]->deadline_ns < due->deadline_ns))
				due = clk.timers[i];
		if (!due)
			return;
		clk_cancel(&clk.c, due);
		due->fn(due);
	}
}

/* ---- a journal in memory --------------------------------------------------------------------- */

#define LOG_MAX 4096
struct cfs_journal {
	struct cfs_journal_entry e[LOG_MAX];	/* data malloc()ed */
	uint64_t first;				/* index of e[0] */
	unsigned n;
	uint64_t term, vote;
	uint64_t snap_index, snap_term;
	uint8_t manifest[CFS_MANIFEST_MAX];
	uint32_t manifest_len;
	struct cfs_journal_append *append;	/* under way */
	struct cfs_journal_snapshot *snap;
	int fail;				/* what the next completion says */
	unsigned writes;
	bool slow;				/* completes nothing by itself */
	uint64_t lost_first, lost_last;		/* in zones that are offline */
	bool again;				/* what is under way is that */
};

static void j_reset(struct cfs_journal *j)
{
	for (unsigned i = 0; i < j->n; i++)
		free((void *)(uintptr_t)j->e[i].data);
	memset(j, 0, sizeof(*j));
}

void cfs_journal_get_vote(struct cfs_journal *j, uint64_t *term, uint64_t *vote)
{
	*term = j->term;
	*vote = j->vote;
}

int cfs_journal_set_vote(struct cfs_journal *j, uint64_t term, uint64_t vote)
{
	assert_true(term >= j->term);
	assert_true(term > j->term || j->vote == 0 ||
		    j->vote == vote); /* never two votes in a term */
	j->term = term;
	j->vote = vote;
	return 0;
}

int cfs_journal_load(struct cfs_journal *j, int (*cb)(void *arg, const struct cfs_journal_entry *e),
		     void *arg)
{
	int rc = 0;

	for (unsigned i = 0; i < j->n && !rc; i++)
		rc = cb(arg, &j->e[i]);
	return rc;
}

void cfs_journal_append(struct cfs_journal *j, struct cfs_journal_append *a)
{
	assert_null(j->append);
	assert_null(j->snap);
	assert_true(a->n > 0);
	/* as the real one: nothing is left out, and nothing comes behind a snapshot that contains it */
	if (j->n || j->snap_index)
		assert_int_equal(a->entries[0].index, cfs_max(j->n ? j->e[j->n - 1].index : 0, j->snap_index) + 1);
	j->append = a;
}

bool cfs_journal_lost(const struct cfs_journal *j, uint64_t *ret_first, uint64_t *ret_last)
{
	*ret_first = j->lost_first;
	*ret_last = j->lost_last;
	return j->lost_last != 0;
}

void cfs_journal_again(struct cfs_journal *j, struct cfs_journal_append *a)
{
	assert_null(j->append);
	assert_null(j->snap);
	j->append = a;
	j->again = true;
}

int cfs_journal_truncate(struct cfs_journal *j, uint64_t index)
{
	assert_null(j->append);
	while (j->n && j->e[j->n - 1].index >= index)
		free((void *)(uintptr_t)j->e[--j->n].data);
	return 0;
}

void cfs_journal_snapshot(struct cfs_journal *j, struct cfs_journal_snapshot *s)
{
	assert_null(j->append);
	assert_null(j->snap);
	j->snap = s;
}

int cfs_journal_last_snapshot(struct cfs_journal *j, uint64_t *index, uint64_t *term,
			      const void **manifest, uint32_t *len)
{
	if (!j->snap_index)
		return -ENOENT;
	*index = j->snap_index;
	*term = j->snap_term;
	*manifest = j->manifest;
	*len = j->manifest_len;
	return 0;
}

static void j_drop_first(struct cfs_journal *j, uint64_t upto)
{
	while (j->n && j->e[0].index <= upto) {
		free((void *)(uintptr_t)j->e[0].data);
		memmove(&j->e[0], &j->e[1], --j->n * sizeof(j->e[0]));
	}
}

/* complete what is under way; false: nothing was */
static bool j_pump(struct cfs_journal *j)
{
	struct cfs_journal_append *a = j->append;
	struct cfs_journal_snapshot *s = j->snap;
	int err = j->fail;

	if (!a && !s)
		return false;
	j->append = NULL;
	j->snap = NULL;
	if (!err)
		j->writes++;
	for (unsigned i = 0; a && j->again && !err && i < a->n; i++) { /* just as they were */
		const struct cfs_journal_entry *e = &j->e[a->entries[i].index - j->e[0].index];

		assert_int_equal(a->entries[i].index, a->entries[0].index + i);
		assert_int_equal(a->entries[i].term, e->term);
		assert_int_equal(a->entries[i].kind, e->kind);
		assert_int_equal(a->entries[i].len, e->len);
		assert_memory_equal(a->entries[i].data, e->data, e->len);
	}
	if (j->again) {
		j->again = false;
		if (!err && a->n && a->entries[0].index <= j->lost_first &&
		    a->entries[a->n - 1].index >= j->lost_last)
			j->lost_first = j->lost_last = 0;
		a->done(a, err);
		return true;
	}
	for (unsigned i = 0; a && !err && i < a->n; i++) {
		struct cfs_journal_entry *e = &j->e[j->n];
		void *copy = malloc(a->entries[i].len + 1);

		*e = a->entries[i];
		assert_true(j->n < LOG_MAX);
		assert_int_equal(e->index, (j->n ? e[-1].index : j->snap_index) + 1);
		memcpy(copy, e->data, e->len);
		e->data = copy;
		j->n++;
	}
	if (s && !err) {
		assert_true(s->index >= j->snap_index);
		if (s->index >= j->lost_last)
			j->lost_first = j->lost_last = 0;
		j->snap_index = s->index;
		j->snap_term = s->term;
		memcpy(j->manifest, s->manifest, s->manifest_len);
		j->manifest_len = s->manifest_len;
		if (s->index > s->trailing)
			j_drop_first(j, s->index - s->trailing);
	}
	if (a)
		a->done(a, err);
	else
		s->done(s, err);
	return true;
}

/* ---- members: the state is the list of what was applied -------------------------------------- */

#define MEMBERS 3
struct state {
	uint64_t index[LOG_MAX];
	uint32_t value[LOG_MAX];
	unsigned n;
};

struct member {
	uint64_t id;
	char addr[16];
	struct cfs_journal j;
	struct cfs_raft_log *l;
	struct state state, incoming;
	bool leader, cut;		/* cut: no message comes or goes */
	uint64_t lead_term;
	int failed;
	unsigned checkpoints, checkpointed, installs;
	bool hold_checkpoint;
	bool no_room;			/* below the state */
	struct state *copy;		/* the checkpoint under way */
};
static struct member m[MEMBERS + 1];	/* by id */

struct packet {
	struct packet *next;
	uint64_t from;
	struct cfs_raft_out out;
};
static struct packet *net_first, **net_last = &net_first;

/* checkpoints are kept for ever, by number, so that a manifest is four bytes */
static struct state *store[64];
static uint32_t n_store;

static int u_apply(void *arg, uint64_t index, const void *entry, size_t len)
{
	struct member *me = arg;
	struct state *s = &me->state;

	assert_int_equal(len, 4);
	if (me->no_room)
		return -ENOSPC;
	assert_true(s->n == 0 || index > s->index[s->n - 1]);
	s->index[s->n] = index;
	memcpy(&s->value[s->n++], entry, 4);
	return 0;
}

static void u_leader(void *arg, bool leading, uint64_t term)
{
	struct member *me = arg;

	assert_true(leading != me->leader);
	if (leading)
		assert_true(term > me->lead_term);
	me->leader = leading;
	me->lead_term = term;
}

static void give_checkpoint(struct member *me)
{
	uint32_t number = n_store;

	assert_non_null(me->copy);
	store[n_store++] = me->copy;
	me->copy = NULL;
	cfs_raft_log_checkpoint_done(me->l, 0, &number, sizeof(number));
}

static void u_checkpoint(void *arg, uint64_t index)
{
	struct member *me = arg;

	assert_null(me->copy);
	assert_true(me->state.n > 0 && me->state.index[me->state.n - 1] >= index);
	me->copy = malloc(sizeof(*me->copy));
	*me->copy = me->state;
	me->checkpoints++;
	if (!me->hold_checkpoint)
		give_checkpoint(me);
}

static void u_checkpointed(void *arg)
{
	((struct member *)arg)->checkpointed++;
}

static void u_install(void *arg, uint64_t index, const char *from, const void *manifest,
		      uint32_t len)
{
	struct member *me = arg;
	uint32_t number;

	assert_int_equal(len, sizeof(number));
	assert_true(from[0] == 'n');
	memcpy(&number, manifest, sizeof(number));
	me->incoming = *store[number];
	assert_true(me->incoming.index[me->incoming.n - 1] >= index);
	cfs_raft_log_install_done(me->l, 0, manifest, len);
}

static int u_installed(void *arg)
{
	struct member *me = arg;

	me->state = me->incoming;
	me->installs++;
	return 0;
}

static void u_send(void *arg, struct cfs_raft_out *out)
{
	struct member *me = arg;
	struct packet *p = malloc(sizeof(*p));

	assert_string_equal(out->addr, m[out->to].addr);
	p->next = NULL;
	p->from = me->id;
	p->out = *out;
	*net_last = p;
	net_last = &p->next;
}

static void u_failed(void *arg, int err, const char *why)
{
	assert_non_null(why);
	((struct member *)arg)->failed = err;
}

static const struct cfs_raft_user user = {
	.apply = u_apply,
	.leader = u_leader,
	.checkpoint = u_checkpoint,
	.checkpointed = u_checkpointed,
	.install = u_install,
	.installed = u_installed,
	.send = u_send,
	.failed = u_failed,
};

static uint64_t ckpt_bytes;

static void start(unsigned id, unsigned members, bool keep_state)
{
	struct cfs_raft_member list[MEMBERS];
	struct cfs_raft_params p = { .clock = &clk.c,
				     .journal = &m[id].j,
				     .group = 7,
				     .id = id,
				     .address = m[id].addr,
				     .checkpoint_bytes = ckpt_bytes,
				     .user = &user,
				     .arg = &m[id] };
	char err[256] = "";
	const void *manifest;
	uint64_t snap, applied;
	uint32_t len;

	assert_int_equal(cfs_raft_log_create(&p, &m[id].l, err, sizeof(err)), 0);
	snap = cfs_raft_log_snapshot(m[id].l, &manifest, &len);
	if (!keep_state) {	/* as after a crash under another boot: from the checkpoint */
		m[id].state.n = 0;
		if (snap) {
			uint32_t number;

			assert_int_equal(len, sizeof(number));
			memcpy(&number, manifest, sizeof(number));
			m[id].state = *store[number];
		}
	}
	applied = m[id].state.n ? m[id].state.index[m[id].state.n - 1] : 0;
	assert_true(applied >= snap);
	for (unsigned i = 0; i < members; i++)
		list[i] = (struct cfs_raft_member){ .id = i + 1, .address = m[i + 1].addr };
	assert_int_equal(cfs_raft_log_start(m[id].l, applied, list, members), 0);
}

static void crash(unsigned id)
{
	struct member *me = &m[id];

	cfs_raft_log_stop(me->l);
	me->j.fail = -EIO;
	j_pump(&me->j);
	me->j.fail = 0;
	if (me->copy) {
		cfs_raft_log_checkpoint_done(me->l, -EINTR, NULL, 0);
		free(me->copy);
		me->copy = NULL;
	}
	cfs_raft_log_destroy(me->l);
	me->l = NULL;
	me->leader = false;
}

static int setup(void **state)
{
	(void)state;
	memset(&clk, 0, sizeof(clk));
	clk.c.ops = &clk_ops;
	clk.now = 5000 * MS;
	clk.seed = 42;
	ckpt_bytes = 0;
	n_store = 0;
	for (unsigned i = 1; i <= MEMBERS; i++) {
		memset(&m[i], 0, sizeof(m[i]));
		m[i].id = i;
		snprintf(m[i].addr, sizeof(m[i].addr), "node%u:1", i);
	}
	return 0;
}

static void drop_packets(void)
{
	while (net_first) {
		struct packet *p = net_first;

		net_first = p->next;
		free(p->out.payload);
		free(p);
	}
	net_last = &net_first;
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned i = 1; i <= MEMBERS; i++) {
		if (m[i].l)
			crash(i);
		j_reset(&m[i].j);
	}
	drop_packets();
	while (n_store)
		free(store[--n_store]);
	return 0;
}

/* one millisecond of the whole cluster; loss: in 256 */
static void tick(unsigned loss)
{
	struct packet *list = net_first;

	net_first = NULL;
	net_last = &net_first;
	while (list) {
		struct packet *p = list;
		struct member *to = &m[p->out.to];
		const char *why = "?";

		list = p->next;
		if (to->l && !to->cut && !m[p->from].cut && (clk_random(&clk.c) & 255) >= loss)
			assert_int_equal(cfs_raft_log_receive(to->l, p->out.body, p->out.body_len,
							      p->out.payload, p->out.payload_len,
							      &why),
					 0);
		free(p->out.payload);
		free(p);
	}
	for (unsigned i = 1; i <= MEMBERS; i++)
		if (m[i].l && !m[i].j.slow)
			j_pump(&m[i].j);
	clk.now += MS;
	run_timers();
}

/* of a network that loses nothing */
static void ticks(unsigned n)
{
	while (n--)
		tick(0);
}

static struct member *wait_leader(unsigned ms)
{
	while (ms--) {
		struct member *best = NULL;

		for (unsigned i = 1; i <= MEMBERS; i++)
			if (m[i].leader && !m[i].cut && (!best || m[i].lead_term > best->lead_term))
				best = &m[i];
		if (best)
			return best;
		tick(0);
	}
	fail_msg("no leader");
	return NULL;
}

static int propose(struct member *me, uint32_t value)
{
	return cfs_raft_log_propose(me->l, &value, sizeof(value), NULL);
}

/* one each tick */
static void propose_all(struct member *me, uint32_t first, uint32_t end)
{
	for (uint32_t v = first; v < end; v++) {
		assert_int_equal(propose(me, v), 0);
		tick(0);
	}
}

static void same_state(const struct member *a, const struct member *b)
{
	assert_int_equal(a->state.n, b->state.n);
	assert_memory_equal(a->state.index, b->state.index, a->state.n * sizeof(a->state.index[0]));
	assert_memory_equal(a->state.value, b->state.value, a->state.n * sizeof(a->state.value[0]));
}

/* ---- a group of one -------------------------------------------------------------------------- */

static void one_first_start(void **state)
{
	uint64_t index = 0;
	uint32_t v = 77;

	(void)state;
	start(1, 1, false);
	assert_false(m[1].leader);		/* the configuration is not durable yet */
	assert_int_equal(propose(&m[1], 1), -ENOTCONN);
	assert_true(j_pump(&m[1].j));
	assert_true(m[1].leader);		/* at once */
	assert_null(m[1].j.append);
	assert_int_equal(cfs_raft_log_propose(m[1].l, &v, 4, &index), 0);
	assert_int_equal(index, 2);
	assert_non_null(m[1].j.append);		/* in the journal's hands in the same turn */
	assert_int_equal(m[1].state.n, 0);	/* and not answered before it is durable */
	j_pump(&m[1].j);
	assert_int_equal(m[1].state.n, 1);	/* applied inside the completion */
	assert_int_equal(m[1].state.value[0], 77);
	assert_int_equal(m[1].state.index[0], 2);
}

static void one_restart(void **state)
{
	uint64_t term;

	(void)state;
	start(1, 1, false);
	j_pump(&m[1].j);
	term = m[1].lead_term;
	for (uint32_t v = 0; v < 10; v++) {
		assert_int_equal(propose(&m[1], v), 0);
		j_pump(&m[1].j);
	}
	assert_int_equal(propose(&m[1], 1000), 0);
	crash(1);				/* before the journal had the last one */
	start(1, 1, true);			/* the state survived: nothing is applied again */
	assert_true(m[1].leader);
	assert_true(m[1].lead_term > term);	/* leases of before are not ours */
	assert_int_equal(m[1].state.n, 10);
	term = m[1].lead_term;
	crash(1);
	start(1, 1, false);			/* the state is lost: all is applied again */
	assert_true(m[1].leader && m[1].lead_term > term);
	assert_int_equal(m[1].state.n, 10);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(m[1].state.value[i], i);
}

static void one_crash_in_bootstrap(void **state)
{
	(void)state;
	start(1, 1, false);
	crash(1);
	assert_int_equal(m[1].j.n, 0);
	start(1, 1, false);
	j_pump(&m[1].j);
	assert_true(m[1].leader);
}

static void one_groups_writes(void **state)
{
	unsigned writes;

	(void)state;
	start(1, 1, false);
	j_pump(&m[1].j);
	writes = m[1].j.writes;
	for (uint32_t v = 0; v < 20; v++)
		assert_int_equal(propose(&m[1], v), 0);
	while (j_pump(&m[1].j))
		;
	assert_int_equal(m[1].j.writes - writes, 2);	/* the first alone, the rest together */
	assert_int_equal(m[1].state.n, 20);
	for (uint32_t v = 0; v < CFS_RAFT_PROPOSALS_MAX; v++)
		assert_int_equal(propose(&m[1], v), 0);
	assert_int_equal(propose(&m[1], 1), -EBUSY);
}

static void one_full_journal(void **state)
{
	(void)state;
	start(1, 1, false);
	j_pump(&m[1].j);
	propose(&m[1], 1);
	j_pump(&m[1].j);
	m[1].hold_checkpoint = true;
	m[1].j.fail = -ENOSPC;
	propose(&m[1], 2);
	propose(&m[1], 3);
	j_pump(&m[1].j);
	assert_int_equal(m[1].failed, 0);
	assert_int_equal(m[1].state.n, 1);
	assert_int_equal(m[1].checkpoints, 1);		/* asked for, to free space */
	m[1].j.fail = 0;
	give_checkpoint(&m[1]);
	assert_non_null(m[1].j.snap); /* goes before the append that waits for it */
	j_pump(&m[1].j);
	assert_int_equal(m[1].checkpointed, 1);
	ticks(300);
	assert_int_equal(m[1].state.n, 3);
	assert_true(m[1].leader);
}

/* the state finds no room: entries are durable, wait, and are applied in order when there is some; then also a stop */
static void one_full_state(void **state)
{
	(void)state;
	start(1, 1, false);
	j_pump(&m[1].j);
	propose(&m[1], 1);
	j_pump(&m[1].j);
	m[1].no_room = true;
	propose(&m[1], 2);
	propose(&m[1], 3);
	j_pump(&m[1].j);
	ticks(3000);
	assert_int_equal(m[1].failed, 0);
	assert_int_equal(m[1].state.n, 1);
	assert_true(m[1].leader);
	m[1].no_room = false;
	ticks(300);
	assert_int_equal(m[1].state.n, 3);
	assert_int_equal(m[1].state.value[1], 2);
	assert_int_equal(m[1].state.value[2], 3);
	m[1].no_room = true;
	propose(&m[1], 4);
	j_pump(&m[1].j);
}

static void one_broken_journal(void **state)
{
	(void)state;
	start(1, 1, false);
	j_pump(&m[1].j);
	propose(&m[1], 1);
	m[1].j.fail = -EIO;
	j_pump(&m[1].j);
	assert_int_equal(m[1].failed, -EIO);
	assert_int_equal(m[1].state.n, 0);
	m[1].j.fail = 0;
	assert_int_equal(propose(&m[1], 2), -ENOTCONN);
}

static void one_checkpoint(void **state)
{
	struct cfs_raft_stat st;
	unsigned n;

	(void)state;
	ckpt_bytes = 400;			/* a hundred entries of four bytes */
	start(1, 1, false);
	j_pump(&m[1].j);
	for (uint32_t v = 0; v < 350; v++) {
		assert_int_equal(propose(&m[1], v), 0);
		while (j_pump(&m[1].j))
			;
	}
	assert_int_equal(m[1].checkpoints, 3);
	assert_int_equal(m[1].checkpointed, 3);
	cfs_raft_log_stat(m[1].l, &st);
	assert_true(st.snapshot >= 300);
	assert_true(m[1].j.n <= 60);		/* the journal has let go of the rest */
	n = m[1].state.n;
	crash(1);
	start(1, 1, false);			/* checkpoint, then what follows it */
	assert_int_equal(m[1].state.n, n);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(m[1].state.value[i], i);
	assert_int_equal(propose(&m[1], 9), 0);
	j_pump(&m[1].j);
	assert_int_equal(m[1].state.n, n + 1);
	/* a checkpoint that fails is tried again, and the log goes on meanwhile */
	m[1].hold_checkpoint = true;
	cfs_raft_log_checkpoint(m[1].l);
	assert_int_equal(m[1].checkpoints, 4);
	assert_int_equal(propose(&m[1], 10), 0);
	j_pump(&m[1].j);
	free(m[1].copy);
	m[1].copy = NULL;
	cfs_raft_log_checkpoint_done(m[1].l, -ENOSPC, NULL, 0);
	m[1].hold_checkpoint = false;
	ticks(7000);
	assert_int_equal(m[1].checkpoints, 5);
	assert_int_equal(m[1].checkpointed, 4);
}

/* ---- three members --------------------------------------------------------------------------- */

/* parts of the journal were in a zone that has gone offline: a checkpoint has what was applied, and is taken at once */
static void one_repair(void **state)
{
	uint64_t snap;

	(void)state;
	start(1, 1, false);
	ticks(50);
	for (uint32_t v = 0; v < 60; v++)
		assert_int_equal(propose(&m[1], v), 0);
	ticks(50);
	m[1].j.lost_first = 20;
	m[1].j.lost_last = 45;
	cfs_raft_log_repair(m[1].l);
	ticks(50);
	assert_int_equal(m[1].j.lost_last, 0);
	assert_int_equal(m[1].checkpointed, 1);
	/* nothing new, but the checkpoint's own objects may be lost: it is taken anew */
	snap = m[1].j.snap_index;
	cfs_raft_log_repair(m[1].l);
	ticks(50);
	assert_int_equal(m[1].checkpointed, 2);
	assert_int_equal(m[1].j.snap_index, snap);
	for (uint32_t v = 60; v < 80; v++)
		assert_int_equal(propose(&m[1], v), 0);
	ticks(50);
	crash(1);
	start(1, 1, false);
	ticks(50);
	assert_int_equal(m[1].state.n, 80);
}

static void three_start(void)
{
	for (unsigned i = 1; i <= 3; i++)
		start(i, 3, false);
}

static void three_replicate(void **state)
{
	struct member *lead, *next;
	unsigned n = 0;

	(void)state;
	three_start();
	lead = wait_leader(5000);
	for (uint32_t v = 0; v < 100; v++) {
		n += propose(lead, v) == 0;
		tick(0);
	}
	ticks(500);
	assert_int_equal(n, 100);
	assert_int_equal(lead->state.n, 100);
	for (unsigned i = 1; i <= 3; i++)
		same_state(&m[i], lead);
	crash((unsigned)lead->id);
	next = wait_leader(10000);
	assert_ptr_not_equal(next, lead);
	assert_true(next->lead_term > lead->lead_term);
	assert_int_equal(next->state.n,
			 100); /* a leader serves only when it knows what was committed */
	for (uint32_t v = 0; v < 50; v++) {
		propose(next, 1000 + v);
		tick(0);
	}
	start((unsigned)lead->id, 3, true);
	ticks(3000);
	assert_int_equal(next->state.n, 150);
	for (unsigned i = 1; i <= 3; i++)
		same_state(&m[i], next);
}

/* what the others have committed is applied before the own journal has it: a checkpoint waits for the journal */
static void three_slow_journal(void **state)
{
	struct member *lead;

	(void)state;
	three_start();
	lead = wait_leader(5000);
	ticks(300);
	lead->j.slow = true;
	propose_all(lead, 0, 20);
	ticks(50);
	assert_int_equal(lead->state.n, 20);
	cfs_raft_log_checkpoint(lead->l);
	assert_int_equal(lead->checkpoints, 0);
	ticks(50);
	lead->j.slow = false;
	ticks(50);
	assert_int_equal(lead->checkpointed, 1);
	propose_all(lead, 100, 120);
	ticks(300);
	assert_int_equal(lead->state.n, 40);
	for (unsigned i = 1; i <= 3; i++)
		same_state(&m[i], lead);
}

/* a member of several still has them all, and writes them again; while there is no space, later */
static void three_repair(void **state)
{
	struct member *lead;

	(void)state;
	three_start();
	lead = wait_leader(5000);
	ticks(300);
	propose_all(lead, 0, 60);
	ticks(50);
	lead->j.lost_first = 12;
	lead->j.lost_last = 40;
	lead->hold_checkpoint = true;
	lead->j.fail = -ENOSPC;
	cfs_raft_log_repair(lead->l);
	tick(0);
	assert_int_equal(lead->j.lost_last, 40);
	lead->j.fail = 0;
	propose_all(lead, 60, 80);
	ticks(300);
	assert_int_equal(lead->j.lost_last, 0);	/* written again, before there is a checkpoint */
	assert_int_equal(lead->checkpointed, 0);
	assert_int_equal(lead->checkpoints, 1);
	lead->hold_checkpoint = false;
	give_checkpoint(lead);
	ticks(300);
	assert_true(lead->checkpointed >= 1);
	assert_int_equal(lead->state.n, 80);
	for (unsigned i = 1; i <= 3; i++)
		same_state(&m[i], lead);
}

static void three_install(void **state)
{
	struct member *lead, *late;

	(void)state;
	three_start();
	lead = wait_leader(5000);
	late = &m[lead->id % 3 + 1];
	ticks(300);
	crash((unsigned)late->id);
	j_reset(&late->j);		/* a new disk: it has nothing at all */
	late->state.n = 0;
	for (uint32_t v = 0; v < 50; v++) {
		propose(lead, v);
		tick(0);
	}
	cfs_raft_log_checkpoint(lead->l);
	ticks(50);
	/*
	 * the leader starts over with only its checkpoint; trailing entries would do as well, so
	 * take them away
	 */
	for (unsigned i = 1; i <= 3; i++) {
		if (&m[i] == late)
			continue;
		if (m[i].checkpointed == 0) {
			cfs_raft_log_checkpoint(m[i].l);
			tick(0);
			tick(0);
		}
		crash(i);
		j_drop_first(&m[i].j, m[i].j.snap_index);
	}
	for (unsigned i = 1; i <= 3; i++)
		start(i, &m[i] == late ? 0 : 3, true);
	lead = wait_leader(10000);
	for (unsigned i = 0; i < 8000 && late->installs == 0; i++)
		tick(0);
	assert_int_equal(late->installs, 1);
	assert_true(late->j.snap_index > 0);
	for (uint32_t v = 0; v < 20; v++) {
		propose(lead, 500 + v);
		tick(0);
	}
	ticks(2000);
	lead = wait_leader(5000);
	assert_int_equal(lead->state.n, 70);
	for (unsigned i = 1; i <= 3; i++)
		same_state(&m[i], lead);
	crash((unsigned)late->id);
	start((unsigned)late->id, 3, false);	/* from its own copy of the checkpoint */
	ticks(2000);
	same_state(late, lead);
}

static unsigned reads_ok, reads_lost;

static void read_done(struct cfs_raft_read *r, int err)
{
	(void)r;
	if (err)
		reads_lost++;
	else
		reads_ok++;
}

static void three_reads(void **state)
{
	struct cfs_raft_read r1 = { .done = read_done }, r2 = { .done = read_done };
	struct member *lead;

	(void)state;
	reads_ok = reads_lost = 0;
	three_start();
	lead = wait_leader(5000);
	ticks(500);
	assert_true(cfs_raft_log_read(lead->l, &r1));	/* heartbeats renew the lease */
	for (unsigned i = 1; i <= 3; i++)
		m[i].cut = true;
	ticks(800);
	assert_true(lead->leader);		/* it does not know yet ... */
	assert_false(cfs_raft_log_read(lead->l, &r1));	/* ... but does not answer */
	for (unsigned i = 1; i <= 3; i++)
		m[i].cut = false;
	for (unsigned i = 0; i < 120 && !reads_ok && !reads_lost; i++)
		tick(0);
	assert_int_equal(reads_ok + reads_lost, 1);
	/* cut off for good: the read ends with the leadership */
	lead = wait_leader(5000);
	ticks(500);
	lead = wait_leader(5000);
	lead->cut = true;
	reads_ok = reads_lost = 0;
	ticks(800);
	assert_false(cfs_raft_log_read(lead->l, &r2));
	for (unsigned i = 0; i < 5000 && !reads_lost; i++)
		tick(0);
	assert_int_equal(reads_lost, 1);
	assert_int_equal(reads_ok, 0);
}

/*
 * histories under loss, cuts and crashes: prefix of one another, and what was applied anywhere
 * stays
 */
static void three_chaos(void **state)
{
	uint32_t v = 0;

	(void)state;
	ckpt_bytes = 4 * 150;
	three_start();
	for (unsigned i = 0; i < 20000; i++) {
		uint64_t r = clk_random(&clk.c);
		unsigned id = (unsigned)(r % 3) + 1;

		tick(20);
		for (unsigned k = 1; k <= 3; k++)
			if (m[k].leader && m[k].l && i % 4 == 0 && m[k].state.n < 3000)
				propose(&m[k], v++);
		if ((r >> 8) % 700 == 0)
			m[id].cut = !m[id].cut;
		if ((r >> 20) % 900 == 0) {
			if (m[id].l)
				crash(id);
			else
				start(id, 3, (r >> 30) & 1);
		}
		for (unsigned k = 1; k <= 3; k++)
			assert_int_equal(m[k].failed, 0);
		if (i % 100 == 0)
			for (unsigned a = 1; a <= 2; a++)
				for (unsigned b = a + 1; b <= 3; b++) {
					unsigned n = cfs_min(m[a].state.n, m[b].state.n);

					assert_memory_equal(m[a].state.value, m[b].state.value,
							    n * 4);
				}
	}
	for (unsigned k = 1; k <= 3; k++) {
		m[k].cut = false;
		if (!m[k].l)
			start(k, 3, true);
	}
	ticks(8000);
	assert_true(m[1].state.n > 100);
	same_state(&m[1], &m[2]);
	same_state(&m[1], &m[3]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(one_first_start, setup, teardown),
		cmocka_unit_test_setup_teardown(one_restart, setup, teardown),
		cmocka_unit_test_setup_teardown(one_crash_in_bootstrap, setup, teardown),
		cmocka_unit_test_setup_teardown(one_groups_writes, setup, teardown),
		cmocka_unit_test_setup_teardown(one_full_journal, setup, teardown),
		cmocka_unit_test_setup_teardown(one_full_state, setup, teardown),
		cmocka_unit_test_setup_teardown(one_broken_journal, setup, teardown),
		cmocka_unit_test_setup_teardown(one_checkpoint, setup, teardown),
		cmocka_unit_test_setup_teardown(one_repair, setup, teardown),
		cmocka_unit_test_setup_teardown(three_replicate, setup, teardown),
		cmocka_unit_test_setup_teardown(three_slow_journal, setup, teardown),
		cmocka_unit_test_setup_teardown(three_repair, setup, teardown),
		cmocka_unit_test_setup_teardown(three_install, setup, teardown),
		cmocka_unit_test_setup_teardown(three_reads, setup, teardown),
		cmocka_unit_test_setup_teardown(three_chaos, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
