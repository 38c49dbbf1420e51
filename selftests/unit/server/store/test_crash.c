/* SPDX-License-Identifier: MIT */
/*
 * Proves: after a power cut at any moment of a busy life (objects written and deleted, segments
 * cleaned, a journal appended to, truncated, snapshotted and recycled, votes), whatever of the
 * writes not yet durable arrived, whole or torn, the store opens, everything that was
 * acknowledged is there, nothing deleted is back, nothing damaged is shown, nothing is called
 * rot, and life can go on from there and crash again.
 *
 * CRASH_FIRST and CRASH_SEEDS in the environment choose other lives, CRASH_CUTS more cuts of each (as does T_LONG=1),
 * CRASH_KIND one kind of device (0 plain, 1 zoned, 2 atomic).
 */
#include "selftests/unit/server/store/world.h"
#include "server/store/journal_i.h"

#define MB (1u << 20)
#define SIZE (14u * MB)
#define OBJS 400u
#define OPS 700u
#define JOPS 2000u
#define LOGMAX 6000u

struct life { /* what was asked and acknowledged, by event time */
	struct world w;
	struct obj *obj[OBJS];
	struct del *del[OBJS];
	struct cfs_oid oid[OBJS];
	uint32_t len[OBJS];
	uint64_t put_at[OBJS], del_asked[OBJS], del_at[OBJS]; /* 0: not */
	uint32_t n_objs, in_flight;

	struct cfs_journal *j;
	struct jop {
		enum { J_APPEND, J_TRUNCATE, J_SNAPSHOT, J_NOTHING } kind;
		uint64_t first, n,
			term; /* APPEND; TRUNCATE: first; SNAPSHOT: first = index, n = trailing */
		uint64_t asked, acked;
		struct life *life;
		struct cfs_journal_append a;
		struct cfs_journal_snapshot s;
		struct cfs_journal_entry e[8];
	} jop[JOPS];
	uint32_t n_jops, n_jacked, j_in_flight;
	uint64_t last, term;
	struct {
		uint64_t asked, done;
	} vote[200];
	uint32_t n_votes;
};

static uint8_t bytes_of_entry[4096];

static uint32_t entry_len(uint64_t index, uint64_t term)
{
	return (uint32_t)(cfs_hash_u64(index ^ term << 32) % 3000);
}

static void wrote(struct cfs_store_write *w, int err)
{
	struct obj *o = cfs_container_of(w, struct obj, w);
	struct life *l = w->user;
	uint64_t n = cfs_le64_to_cpu(w->oid.seq);

	assert_true(!err || err == -ENOSPC);
	o->done = true;
	o->err = err;
	l->in_flight--;
	if (!err)
		l->put_at[n] = cfs_crashdev_now(l->w.cd);
}

static void deleted(struct cfs_store_delete *d, int err)
{
	struct life *l = d->user;
	uint64_t n = cfs_le64_to_cpu(d->oids[0].seq);

	assert_true(!err || err == -ENOSPC);
	l->in_flight--;
	if (!err)
		l->del_at[n] = cfs_crashdev_now(l->w.cd);
}

static void jop_done(struct jop *op, int err)
{
	struct life *l = op->life;

	l->j_in_flight--;
	if (err == -ENOSPC || err == -EINVAL) {
		/* a full device: it never happened, nor what was to follow it */
		l->last = l->j->last_index;
		op->kind = J_NOTHING;
		return;
	}
	if (err)
		fail_msg("journal: %d", err);
	op->acked = cfs_crashdev_now(l->w.cd);
}

static void appended(struct cfs_journal_append *a, int err)
{
	jop_done(cfs_container_of(a, struct jop, a), err);
}

static void snapped(struct cfs_journal_snapshot *s, int err)
{
	jop_done(cfs_container_of(s, struct jop, s), err);
}

static struct jop *jop_new(struct life *l, int kind)
{
	struct jop *op = &l->jop[l->n_jops++];

	op->kind = kind;
	op->life = l;
	op->asked = cfs_crashdev_now(l->w.cd);
	return op;
}

static void journal_step(struct life *l, uint64_t r)
{
	struct jop *op;

	if (r % 40 == 0 && l->last > 10) {
		uint64_t to = l->last - r / 64 % 5;

		op = jop_new(l, J_TRUNCATE);
		op->first = to;
		assert_int_equal(cfs_journal_truncate(l->j, to), 0);
		l->last = to - 1;
		l->term++;
	}
	if (r % 25 == 1 && l->last > 20 && !l->j_in_flight) {
		op = jop_new(l, J_SNAPSHOT);
		op->first = l->last - 10;
		op->n = 5;
		op->s = (struct cfs_journal_snapshot){ .index = op->first,
						       .term = 1,
						       .manifest = "manifest",
						       .manifest_len = 8,
						       .trailing = 5,
						       .done = snapped };
		l->j_in_flight++;
		cfs_journal_snapshot(l->j, &op->s);
		return;
	}
	op = jop_new(l, J_APPEND);
	op->first = l->last + 1;
	op->n = 1 + r / 128 % 8;
	op->term = l->term;
	for (uint32_t i = 0; i < op->n; i++)
		op->e[i] = (struct cfs_journal_entry){ .index = op->first + i,
						       .term = l->term,
						       .kind = 1,
						       .len = entry_len(op->first + i, l->term),
						       .data = bytes_of_entry };
	op->a = (struct cfs_journal_append){ .entries = op->e,
					     .n = (uint32_t)op->n,
					     .done = appended };
	l->last += op->n;
	l->j_in_flight++;
	cfs_journal_append(l->j, &op->a);
}

static void live(struct life *l, uint64_t seed)
{
	uint64_t rnd = seed * 1000003;

	l->term = 1;
	assert_int_equal(cfs_journal_open(l->w.st, 3, &l->j, l->w.err, sizeof(l->w.err)), 0);
	for (uint32_t step = 0; step < OPS; step++) {
		uint64_t r = cfs_hash_u64(rnd++), n = cfs_hash_u64(rnd++) % (l->n_objs + 1);

		while (l->in_flight > 20 || l->j_in_flight > 6)
			assert_true(cfs_crashdev_turn(l->w.cd));
		if (r % 8 < 3 && l->n_objs < OBJS) {
			uint32_t i = l->n_objs++;
			uint32_t len = r % 5 == 0 ? 1 + (uint32_t)(r >> 20) % 200000 :
						    1 + (uint32_t)(r >> 20) % 20000;

			l->obj[i] = obj_new(i, len);
			l->oid[i] = oid_of(i);
			l->len[i] = len;
			l->obj[i]->w.done = wrote;
			l->obj[i]->w.user = l;
			l->in_flight++;
			cfs_store_write(l->w.st, &l->obj[i]->w);
		} else if (r % 8 < 5 && n < l->n_objs && l->put_at[n] && !l->del_asked[n]) {
			l->del[n] = calloc(1, sizeof(*l->del[n]));
			l->del[n]->d = (struct cfs_store_delete){
				.oids = &l->oid[n], .n = 1, .done = deleted, .user = l
			};
			l->del_asked[n] = cfs_crashdev_now(l->w.cd);
			l->in_flight++;
			cfs_store_delete(l->w.st, &l->del[n]->d);
		} else if (r % 97 == 5) {
			l->vote[l->n_votes].asked = cfs_crashdev_now(l->w.cd);
			assert_int_equal(
				cfs_journal_set_vote(l->j, l->n_votes + 1, l->n_votes + 101), 0);
			l->vote[l->n_votes++].done = cfs_crashdev_now(l->w.cd);
		} else if (l->n_jops < JOPS - 2) {
			journal_step(l, r >> 8);
		}
		for (uint32_t k = 0; k < r % 7; k++)
			cfs_crashdev_turn(l->w.cd);
	}
}

/* ---- what must be true afterwards ------------------------------------------------------- */

struct jlog {
	uint64_t first, last;
	uint64_t term[LOGMAX]; /* by index */
};

static int load_one(void *arg, const struct cfs_journal_entry *e)
{
	struct jlog *g = arg;

	assert_true(e->index < LOGMAX);
	assert_int_equal(e->len, entry_len(e->index, e->term));
	assert_memory_equal(e->data, bytes_of_entry, e->len);
	if (!g->first)
		g->first = e->index;
	else
		assert_int_equal(e->index, g->last + 1);
	g->last = e->index;
	g->term[e->index] = e->term;
	return 0;
}

/*
 * the log must be what some prefix of the operations leads to: all acknowledged ones, none not
 * yet asked for
 */
static void check_journal(const struct life *l, struct cfs_journal *j, uint64_t when)
{
	static struct jlog have, want;
	uint64_t snap_index = 0, snap_term, keep = 1;
	uint32_t acked = 0, asked = 0, snap_len;
	const void *manifest;
	bool match = false;

	memset(&have, 0, sizeof(have));
	memset(&want, 0, sizeof(want));
	assert_int_equal(cfs_journal_load(j, load_one, &have), 0);
	if (!cfs_journal_last_snapshot(j, &snap_index, &snap_term, &manifest, &snap_len))
		assert_memory_equal(manifest, "manifest", 8);
	for (uint32_t p = 0; p < l->n_jops; p++) {
		if (l->jop[p].acked && l->jop[p].acked <= when)
			acked = p + 1;
		if (l->jop[p].asked <= when)
			asked = p + 1;
	}
	for (uint32_t p = 0; p <= asked && !match; p++) {
		uint64_t snap = 0;

		if (p) {
			const struct jop *op = &l->jop[p - 1];

			if (op->kind == J_APPEND)
				for (uint64_t i = 0; i < op->n; i++)
					want.term[want.last = op->first + i] = op->term;
			else if (op->kind == J_TRUNCATE)
				want.last = cfs_min(want.last, op->first - 1);
		}
		if (p < acked)
			continue;
		for (uint32_t q = 0; q < p; q++)
			if (l->jop[q].kind == J_SNAPSHOT)
				snap = l->jop[q].first;
		keep = snap > 5 ? snap - 5 + 1 : 1;
		if (snap != snap_index || have.last != (want.last < keep ? 0 : want.last))
			continue;
		match = true;
		for (uint64_t i = have.first; i && i <= have.last; i++)
			match = match && have.term[i] == want.term[i];
		match = match && (!have.last || have.first == keep);
	}
	if (!match)
		fail_msg(
			"journal: %llu..%llu after a cut at %llu is no state between operations %u and %u",
			(unsigned long long)have.first, (unsigned long long)have.last,
			(unsigned long long)when, acked, asked);
}

static void check_vote(const struct life *l, struct cfs_journal *j, uint64_t when)
{
	uint64_t term, voted, least = 0, most = 0;

	for (uint32_t i = 0; i < l->n_votes; i++) {
		least = l->vote[i].done <= when ? i + 1 : least;
		most = l->vote[i].asked <= when ? i + 1 : most;
	}
	cfs_journal_get_vote(j, &term, &voted);
	assert_true(term >= least && term <= most);
	assert_int_equal(voted, term ? term + 100 : 0);
}

static void check_objects(const struct life *l, struct world *w, uint64_t when)
{
	for (uint32_t i = 0; i < l->n_objs; i++) {
		struct cfs_oid oid = oid_of(i);
		bool cut = cfs_cut_find(w->st, &oid);
		int rc = get_obj(w, i, l->len[i]);
		bool put = l->put_at[i] && l->put_at[i] <= when;
		bool asked = l->del_asked[i] && l->del_asked[i] <= when;
		bool gone = l->del_at[i] && l->del_at[i] <= when;

		/* who asks for one that was cut off says that it had been acknowledged: nobody but a test does so in error */
		if (rc && rc != (cut ? -EBADMSG : -ENOENT))
			fail_msg("object %u: %d", i, rc);
		if (put && !asked && rc)
			fail_msg("object %u was acknowledged at %llu and is lost at %llu", i,
				 (unsigned long long)l->put_at[i], (unsigned long long)when);
		if (gone && !rc)
			fail_msg("object %u was deleted at %llu and is back at %llu", i,
				 (unsigned long long)l->del_at[i], (unsigned long long)when);
	}
}

static struct cfs_journal *check_world(const struct life *l, struct world *w, uint64_t when)
{
	struct cfs_store_stat s;
	struct cfs_journal *j;
	int rc;

	world_open(w);
	rc = cfs_journal_open(w->st, 3, &j, w->err, sizeof(w->err));
	if (rc)
		fail_msg("journal after a cut at %llu: %s", (unsigned long long)when, w->err);
	check_journal(l, j, when);
	check_vote(l, j, when);
	cfs_store_stat(w->st, &s);
	check_objects(l, w, when);
	assert_int_equal(s.checksum_errors, 0);
	return j;
}

static void cut(struct life *l, uint64_t when, enum cfs_crash_mode mode, uint64_t seed,
		uint8_t *image)
{
	struct world w = { 0 };
	struct cfs_journal *j;
	uint64_t objects;

	cfs_crashdev_image(l->w.cd, when, mode, seed, image);
	w.cd = world_like(l->w.cd, image, 0);
	cfs_crashdev_forget(w.cd);
	j = check_world(l, &w, when);
	objects = cfs_index_count(w.st->index);
	/* life goes on, and stops again without warning */
	world_idle(&w, seed % 50);
	for (uint32_t i = 0; i < 3; i++) {
		int rc = put_obj(&w, 1000 + i, 30000 * (i + 1));

		assert_true(!rc || rc == -ENOSPC);
		objects += !rc;
	}
	memcpy(image, cfs_crashdev_bytes(w.cd), world_bytes(&w));
	cfs_journal_close(j);
	world_swap(&w, image, 0);
	cfs_crashdev_forget(w.cd);
	j = check_world(l, &w, when);
	assert_int_equal(cfs_index_count(w.st->index), objects);
	cfs_journal_close(j);
	world_end(&w);
}

/*
 * The process is killed, the next one sees everything that was ever sent to the drive and builds
 * on it; then power fails, and the drive's cache is gone. What the second one counted on must be
 * there.
 */
static void kill_then_cut(struct life *l, uint64_t when, uint64_t seed, uint8_t *image)
{
	static struct jlog before, after;
	bool there[OBJS];
	struct world w = { 0 };
	struct cfs_journal *j;

	memset(&before, 0, sizeof(before));
	memset(&after, 0, sizeof(after));
	cfs_crashdev_image(l->w.cd, when, CFS_CRASH_ALL, seed, image);
	w.cd = world_like(l->w.cd, image, 0);
	cfs_crashdev_image(l->w.cd, when, CFS_CRASH_NONE, seed, image);
	cfs_crashdev_set_medium(w.cd, image);
	world_open(&w);
	for (uint32_t i = 0; i < l->n_objs; i++) {
		struct cfs_loc loc;

		there[i] = cfs_index_get(w.st->index, &l->oid[i], &loc);
	}
	assert_int_equal(cfs_journal_open(w.st, 3, &j, w.err, sizeof(w.err)), 0);
	assert_int_equal(cfs_journal_load(j, load_one, &before), 0);
	check_vote(l, j, when);
	cfs_crashdev_image(w.cd, cfs_crashdev_now(w.cd), CFS_CRASH_NONE, seed, image);
	cfs_journal_close(j);
	world_swap(&w, image, 0);
	cfs_crashdev_forget(w.cd);
	j = check_world(l, &w, when);
	for (uint32_t i = 0; i < l->n_objs; i++) {
		int rc = get_obj(&w, i, l->len[i]);

		/* a deletion that was seen may come undone: nobody was told of it */
		if (there[i] && rc)
			fail_msg("object %u was counted on after a kill at %llu, and is lost: %d",
				 i, (unsigned long long)when, rc);
	}
	cfs_journal_close(j);
	world_swap(&w, image, 0);
	cfs_crashdev_forget(w.cd);
	world_open(&w);
	assert_int_equal(cfs_journal_open(w.st, 3, &j, w.err, sizeof(w.err)), 0);
	assert_int_equal(cfs_journal_load(j, load_one, &after), 0);
	assert_memory_equal(&before, &after, sizeof(before));
	cfs_journal_close(j);
	world_end(&w);
}

static uint32_t env(const char *name, uint32_t def)
{
	const char *v = getenv(name);

	return v ? (uint32_t)strtoul(v, NULL, 10) : def;
}

static void test_cuts(void **state)
{
	/* by default one plain life, and three that have found mistakes */
	static const uint32_t chosen[] = { 1, 11, 33, 47 };
	uint32_t first = env("CRASH_FIRST", 0), cuts = env("CRASH_CUTS", env("T_LONG", 0) ? 20 : world_kind == ATOMIC ? 2 : 4);
	uint32_t seeds = env("CRASH_SEEDS", first ? 3 : CFS_ARRAY_SIZE(chosen));
	uint8_t *image = malloc(2 * SIZE);
	uint64_t cleaned = 0;

	(void)state;
	fill(bytes_of_entry, sizeof(bytes_of_entry), 5);
	for (uint32_t k = 0; k < seeds; k++) {
		uint32_t seed = first || k >= CFS_ARRAY_SIZE(chosen) ? first + k : chosen[k];
		struct life *l = calloc(1, sizeof(*l));
		uint64_t from, to;

		world_format(&l->w, SIZE, MB, seed);
		from = cfs_crashdev_now(l->w.cd);
		world_open(&l->w);
		live(l, seed);
		to = cfs_crashdev_now(l->w.cd);
		cleaned += l->w.st->cleaned;
		for (uint32_t c = 0; c < cuts; c++) {
			uint64_t when = from + cfs_hash_u64(seed * 7919 + c) % (to - from + 1);

			for (int mode = 0; mode < CFS_CRASH_MODES; mode++)
				cut(l, when, (enum cfs_crash_mode)mode, seed * 100 + c, image);
			kill_then_cut(l, when, seed * 100 + c, image);
		}
		cfs_journal_close(l->j);
		for (uint32_t i = 0; i < OBJS; i++) {
			obj_free(l->obj[i]);
			free(l->del[i]);
		}
		world_end(&l->w);
		free(l);
	}
	assert_true(cleaned > 2 * seeds); /* cuts fall into cleaning as well */
	free(image);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_cuts) };
	int failed = 0;

	for (world_kind = (int)env("CRASH_KIND", PLAIN); world_kind <= (int)env("CRASH_KIND", ATOMIC);
	     world_kind++)
		if (world_kind_wanted())
			failed += cmocka_run_group_tests(tests, NULL, NULL);
	return failed;
}
