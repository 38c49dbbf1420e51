/* SPDX-License-Identifier: MIT */
/*
 * timeout: 900
 * Proves of a store on zones what the tests that run on every kind of device do not ask: it can be filled to
 * the last zone, emptied and filled again ten times, with cleaning under load, with and without power cuts, and never has more zones active
 * than the device allows; what a zone that turns read-only held is moved, and does not come back from it
 * after it was deleted; an offline zone loses just what it held, and says so; a journal lives on when its zone fails; entries
 * in a zone that goes offline are asked for once more, or missed by name at the next start; too small devices are refused by name.
 */
#include "selftests/unit/server/store/world.h"
#include "server/store/journal_i.h"

#define MB (1u << 20)
#define LEN 300000u

static uint32_t zone_of(struct world *w, uint64_t n)
{
	struct cfs_oid oid = oid_of(n);
	struct cfs_loc loc;

	assert_true(cfs_index_get(w->st->index, &oid, &loc));
	return loc.seg + CFS_DISK_ROOT_ZONES;
}

static void test_fill_ten_times(void **state)
{
	struct cfs_store_stat s, empty;
	uint64_t n, first = 0, missing = UINT64_MAX, least = UINT64_MAX, most = 0, resets = 0;
	struct world w;
	int rc;

	(void)state;
	world_format(&w, 48 * MB, MB, 7);
	cfs_crashdev_forget(w.cd);
	world_open(&w);
	cfs_store_stat(w.st, &empty);
	for (uint32_t round = 0; round < 10; round++) {
		for (n = first; !(rc = put_obj(&w, n, LEN)); n++) {
			/* something is deleted and written again all the while: cleaning under load */
			if (n > first + 20 && n % 3 == 0) {
				assert_int_equal(del_obj(&w, n - 20), 0);
				rc = put_obj(&w, n - 20, LEN);
				if (rc) { /* the very last zone: full all the same */
					missing = n - 20;
					n++;
					break;
				}
			}
			cfs_store_stat(w.st, &s);
			assert_true(s.zones_active <= s.zones_active_max);
		}
		assert_int_equal(rc, -ENOSPC);
		least = cfs_min(least, n - first);
		most = cfs_max(most, n - first);
		for (uint64_t i = first; i < n; i += 5)
			assert_int_equal(get_obj(&w, i, LEN), i == missing ? -ENOENT : 0);
		for (uint64_t i = first; i < n; i++)
			assert_int_equal(del_obj(&w, i), 0);
		if (round % 4 == 3) {
			cfs_store_stat(w.st, &s);
			resets += s.zone_resets;
			if (round == 3)
				world_kill(&w);
			else
				world_stop(&w);
			world_open(&w);
			cfs_crashdev_forget(w.cd);
		}
		first = n;
	}
	world_idle(&w, 20000);
	cfs_store_stat(w.st, &s);
	resets += s.zone_resets;
	assert_int_equal(s.objects, 0);
	assert_true(s.free_bytes + 4 * MB >= empty.free_bytes);
	assert_true(least * 10 >= most * 9); /* every time about as much */
	assert_true(resets > 200);
	assert_int_equal(s.zones_failed + s.checksum_errors, 0);
	world_end(&w);
}

/* ---- the same, with power cuts --------------------------------------------------------------------- */

#define CUT_OBJS 4000u

struct cutting {
	struct world w;
	bool has[CUT_OBJS]; /* acknowledged, and no deletion asked for */
	uint64_t n, rnd, cuts, resets;
	uint8_t *image;
};

static uint64_t roll(struct cutting *c, uint64_t below)
{
	return cfs_hash_u64(c->rnd++) % below;
}

static bool is_there(struct cutting *c, uint64_t n)
{
	struct cfs_oid oid = oid_of(n);
	struct cfs_loc loc;

	return cfs_index_get(c->w.st->index, &oid, &loc);
}

static void del_flag(struct cfs_store_delete *d, int err)
{
	*(bool *)d->user = !err;
}

/* power fails while an object is being written, another one deleted, and the cleaner at work; then life goes on */
static void power_cut(struct cutting *c)
{
	uint64_t victim = roll(c, c->n), put = c->n++;
	struct obj *o = obj_new(put, LEN);
	struct cfs_oid oid = oid_of(victim);
	bool deleted = false, asked = c->has[victim];
	struct cfs_store_delete d = { .oids = &oid, .n = 1, .done = del_flag, .user = &deleted };
	struct cfs_store_stat s;

	cfs_store_write(c->w.st, &o->w);
	if (asked)
		cfs_store_delete(c->w.st, &d);
	for (uint64_t turns = roll(c, 40); turns; turns--)
		cfs_crashdev_turn(c->w.cd);
	cfs_store_stat(c->w.st, &s);
	c->resets += s.zone_resets;
	cfs_crashdev_image(c->w.cd, cfs_crashdev_now(c->w.cd), (enum cfs_crash_mode)roll(c, CFS_CRASH_MODES), roll(c, 1u << 30),
			   c->image);
	world_swap(&c->w, c->image, roll(c, 3));
	world_open(&c->w);
	c->cuts++;
	c->has[put] = is_there(c, put);
	assert_true(c->has[put] || !o->done || o->err);
	assert_true(!deleted || !is_there(c, victim));
	if (asked)
		c->has[victim] = is_there(c, victim);
	for (uint64_t i = 0; i < c->n; i++)
		if (is_there(c, i) != c->has[i])
			fail_msg("object %llu is %s after cut %llu", (unsigned long long)i,
				 c->has[i] ? "lost" : "back", (unsigned long long)c->cuts);
	for (uint64_t i = roll(c, 7); i < c->n; i += 7)
		assert_int_equal(get_obj(&c->w, i, LEN), c->has[i] ? 0 : -ENOENT);
	cfs_store_stat(c->w.st, &s);
	assert_int_equal(s.checksum_errors + s.zones_failed, 0);
	obj_free(o);
}

static void drop(struct cutting *c, uint64_t n)
{
	if (!c->has[n])
		return;
	assert_int_equal(del_obj(&c->w, n), 0);
	c->has[n] = false;
}

static void test_fill_with_cuts(void **state)
{
	struct cutting *c = calloc(1, sizeof(*c));
	uint64_t least = UINT64_MAX, most = 0;

	(void)state;
	c->rnd = 77;
	world_format(&c->w, 24 * MB, MB, 3);
	c->image = malloc(world_bytes(&c->w));
	world_open(&c->w);
	for (uint32_t round = 0; round < 10; round++) {
		uint64_t held = 0;
		int rc = 0;

		while (!rc && c->n + 2 < CUT_OBJS) {
			if (!roll(c, 12))
				power_cut(c);
			rc = put_obj(&c->w, c->n, LEN);
			c->has[c->n++] = !rc;
			if (c->n > 20 && !roll(c, 3))
				drop(c, c->n - 1 - roll(c, 20));
		}
		assert_int_equal(rc, -ENOSPC);
		power_cut(c); /* full to the last zone */
		for (uint64_t i = 0; i < c->n; i++)
			held += c->has[i];
		least = cfs_min(least, held);
		most = cfs_max(most, held);
		for (uint64_t i = 0; i < c->n; i++) {
			drop(c, i);
			if (!roll(c, 60))
				power_cut(c);
		}
	}
	assert_true(c->cuts > 60);
	assert_true(c->resets > 60);
	assert_true(least * 10 >= most * 7);
	world_end(&c->w);
	free(c->image);
	free(c);
}

static void test_readonly(void **state)
{
	struct cfs_store_stat s;
	uint32_t zone;
	struct world w;

	(void)state;
	world_format(&w, 48 * MB, MB, 0);
	world_open(&w);
	for (uint32_t i = 0; i < 30; i++)
		assert_int_equal(put_obj(&w, i, LEN), 0);
	/* under writing, and at rest */
	zone = zone_of(&w, 29);
	cfs_crashdev_zone_fail(w.cd, zone, CFS_ZONE_READONLY);
	cfs_crashdev_zone_fail(w.cd, zone_of(&w, 1), CFS_ZONE_READONLY);
	for (uint32_t i = 30; i < 34; i++) {
		int rc = put_obj(&w, i, LEN);

		assert_true(!rc || i == 30); /* one write may fail on it; the next goes elsewhere */
		if (rc)
			assert_int_equal(put_obj(&w, i, LEN), 0);
	}
	world_idle(&w, 5000);
	for (uint32_t i = 0; i < 34; i++)
		assert_int_equal(get_obj(&w, i, LEN), 0);
	assert_true(zone_of(&w, 29) != zone); /* moved at once */
	cfs_store_stat(w.st, &s);
	/* the other one, which nobody writes to, is found by looking */
	assert_int_equal(s.zones_failed, 2);
	assert_int_equal(s.zones_retired, 2);
	world_kill(&w);
	world_open(&w);
	world_idle(&w, 5000);
	cfs_store_stat(w.st, &s);
	assert_int_equal(s.zones_retired, 2);
	for (uint32_t i = 0; i < 34; i++)
		assert_int_equal(get_obj(&w, i, LEN), 0);
	/* what was moved and then deleted does not come back from where it still stands */
	for (uint32_t i = 0; i < 34; i++)
		assert_int_equal(del_obj(&w, i), 0);
	world_idle(&w, 50000);
	for (int round = 0; round < 2; round++) {
		if (round)
			world_stop(&w);
		else
			world_kill(&w);
		world_open(&w);
		for (uint32_t i = 0; i < 34; i++)
			assert_int_equal(get_obj(&w, i, LEN), -ENOENT);
		world_idle(&w, 5000);
	}
	world_end(&w);
}

static void test_offline(void **state)
{
	uint32_t zone, lost = 0;
	struct cfs_store_stat s;
	struct world w;

	(void)state;
	world_format(&w, 48 * MB, MB, 0);
	world_open(&w);
	for (uint32_t i = 0; i < 30; i++)
		assert_int_equal(put_obj(&w, i, LEN), 0);
	zone = zone_of(&w, 10);
	cfs_crashdev_zone_fail(w.cd, zone, CFS_ZONE_OFFLINE);
	assert_int_equal(get_obj(&w, 10, LEN), -ENXIO);
	assert_int_equal(get_obj(&w, 20, LEN), 0);
	world_kill(&w);
	world_open(&w);
	for (uint32_t i = 0; i < 30; i++) {
		int rc = get_obj(&w, i, LEN);

		assert_true(!rc || rc == -ENOENT);
		lost += rc != 0;
	}
	assert_in_range(lost, 1, 3);
	cfs_store_stat(w.st, &s);
	assert_int_equal(s.zones_failed, 1);
	for (uint32_t i = 30; i < 60; i++)
		assert_int_equal(put_obj(&w, i, LEN), 0);
	world_end(&w);
}

static struct cfs_journal *jopen(struct world *w)
{
	struct cfs_journal *j = NULL;

	if (cfs_journal_open(w->st, 3, &j, w->err, sizeof(w->err)))
		fail_msg("journal: %s", w->err);
	return j;
}

struct app {
	struct cfs_journal_append a;
	bool done;
	int err;
};

static void app_done(struct cfs_journal_append *a, int err)
{
	struct app *x = cfs_container_of(a, struct app, a);

	x->done = true;
	x->err = err;
}

static void append(struct world *w, struct cfs_journal *j, uint64_t index)
{
	static uint8_t data[5000];
	struct cfs_journal_entry e = { .index = index, .term = 1, .len = sizeof(data), .data = data };
	struct app x = { .a = { .entries = &e, .n = 1, .done = app_done } };

	cfs_journal_append(j, &x.a);
	while (!x.done)
		assert_true(cfs_crashdev_turn(w->cd));
	assert_int_equal(x.err, 0);
}

static void snap_done(struct cfs_journal_snapshot *s, int err)
{
	*(int *)s->user = err;
}

static void test_journal_zone_fails(void **state)
{
	struct cfs_store_stat s;
	struct cfs_journal *j;
	struct world w;
	int err = 1;
	struct cfs_journal_snapshot snap = { .index = 900, .term = 1, .done = snap_done, .user = &err };

	(void)state;
	world_format(&w, 48 * MB, MB, 0);
	world_open(&w);
	j = jopen(&w);
	for (uint64_t i = 1; i <= 1000; i++) {
		append(&w, j, i);
		if (i == 100 || i == 700)
			cfs_crashdev_zone_fail(w.cd, j->segs[j->n_segs - 1].seg + CFS_DISK_ROOT_ZONES,
					       CFS_ZONE_READONLY);
		if (i == 400 || i == 701) {
			cfs_journal_close(j);
			world_kill(&w);
			world_open(&w);
			j = jopen(&w);
			assert_int_equal(j->last_index, i);
		}
	}
	cfs_journal_snapshot(j, &snap);
	world_idle(&w, 500);
	assert_int_equal(err, 0);
	cfs_store_stat(w.st, &s);
	assert_int_equal(s.zones_retired, 2); /* they can not be reset, and are no journal any more */
	cfs_journal_close(j);
	world_stop(&w);
	world_open(&w);
	j = jopen(&w);
	assert_int_equal(j->last_index, 1000);
	cfs_journal_close(j);
	world_end(&w);
}

/* ---- zones of a journal that go offline ------------------------------------------------------------- */

static uint8_t again_bytes[5000];

static int again(struct world *w, struct cfs_journal *j, uint64_t first, uint64_t last)
{
	struct cfs_journal_entry *e = calloc(last - first + 1, sizeof(*e));
	struct app x = { .a = { .entries = e, .n = (uint32_t)(last - first + 1), .done = app_done } };

	for (uint64_t i = first; i <= last; i++)
		e[i - first] = (struct cfs_journal_entry){ .index = i, .term = 1, .len = sizeof(again_bytes),
							   .data = again_bytes };
	cfs_journal_again(j, &x.a);
	while (!x.done)
		assert_true(cfs_crashdev_turn(w->cd));
	free(e);
	return x.err;
}

static int count_entry(void *arg, const struct cfs_journal_entry *e)
{
	uint64_t *next = arg;

	if (*next)
		assert_int_equal(e->index, *next);
	assert_int_equal(e->len, sizeof(again_bytes));
	*next = e->index + 1;
	return 0;
}

static void told_lost(void *arg)
{
	++*(uint32_t *)arg;
}

static void lossy_open(struct world *w, uint32_t *told)
{
	struct cfs_store_params p = { .dev = cfs_crashdev_dev(w->cd), .clock = cfs_crashdev_clock(w->cd),
				      .lost = told_lost, .arg = told };

	if (cfs_store_open(&p, &w->st, w->err, sizeof(w->err)))
		fail_msg("open: %s", w->err);
}

static uint32_t jzone(struct cfs_journal *j, uint32_t k)
{
	return j->segs[k].seg + CFS_DISK_ROOT_ZONES;
}

static void find_line(void *arg, const struct cfs_store_finding *f)
{
	if (strstr(f->text, "journal"))
		snprintf(arg, 200, "%s", f->text);
}

/* a start must be refused, with a line that has these words; and so says the check */
static void lossy_refused(struct world *w, struct cfs_journal *j, const char *a, const char *b)
{
	struct cfs_store_checked chk;
	char line[200] = "", err[200];

	cfs_journal_close(j);
	world_kill(w);
	world_open(w);
	assert_int_equal(cfs_journal_open(w->st, 3, &j, w->err, sizeof(w->err)), -EUCLEAN);
	assert_non_null(strstr(w->err, "offline"));
	assert_non_null(strstr(w->err, a));
	assert_non_null(strstr(w->err, b));
	world_kill(w);
	assert_int_equal(cfs_store_check(cfs_crashdev_dev(w->cd), find_line, line, &chk, err, sizeof(err)), 0);
	assert_true(chk.errors >= 1);
	assert_string_equal(line, w->err);
	cfs_crashdev_destroy(w->cd);
}

static struct cfs_journal *filled(struct world *w, uint32_t *told, uint64_t entries)
{
	struct cfs_journal *j;

	world_format(w, 48 * MB, MB, 0);
	*told = 0;
	lossy_open(w, told);
	j = jopen(w);
	assert_int_equal(cfs_journal_set_vote(j, 1, 1), 0);
	for (uint64_t i = 1; i <= entries; i++)
		append(w, j, i);
	return j;
}

/* the server is down when a zone fails: the first, one in the middle, the last, all of them */
static void test_lost_at_rest(void **state)
{
	char want[64], want2[64];
	struct cfs_journal *j;
	struct world w;
	uint32_t told;

	(void)state;
	for (uint32_t k = 0; k < 4; k++) {
		j = filled(&w, &told, 500);
		assert_int_equal(j->n_segs, 4);
		cfs_crashdev_zone_fail(w.cd, jzone(j, k), CFS_ZONE_OFFLINE);
		snprintf(want, sizeof(want), k == 3 ? "entries from %llu on" : "entries %llu to",
			 (unsigned long long)j->segs[k].first_index);
		snprintf(want2, sizeof(want2), k == 3 ? "zone %llu is offline" : "to %llu are lost",
			 (unsigned long long)(k == 3 ? jzone(j, k) : j->segs[k].last_index));
		lossy_refused(&w, j, want, want2);
	}
	j = filled(&w, &told, 10);
	cfs_crashdev_zone_fail(w.cd, jzone(j, 0), CFS_ZONE_OFFLINE);
	lossy_refused(&w, j, "all entries", "lost");
	/* one with nothing but what the snapshot replaces is no loss, nor is one with objects, or an empty one */
	for (uint32_t what = 0; what < 3; what++) {
		int err = 1;
		struct cfs_journal_snapshot snap = { .index = 400, .term = 1, .done = snap_done, .user = &err };
		uint64_t next = 0;
		uint32_t zone;

		j = filled(&w, &told, 500);
		assert_int_equal(put_obj(&w, 1, LEN), 0);
		zone = what == 0 ? jzone(j, 0) : what == 1 ? zone_of(&w, 1) : 40;
		if (what) {
			cfs_crashdev_zone_fail(w.cd, zone, CFS_ZONE_OFFLINE);
		} else { /* it fails before it can be reset */
			cfs_crashdev_zone_fail(w.cd, zone, CFS_ZONE_READONLY);
		}
		cfs_journal_snapshot(j, &snap);
		world_idle(&w, 200);
		assert_int_equal(err, 0);
		for (uint32_t round = 0; round < 3; round++) {
			cfs_journal_close(j);
			world_kill(&w);
			lossy_open(&w, &told);
			j = jopen(&w);
			next = 0;
			assert_int_equal(cfs_journal_load(j, count_entry, &next), 0);
			assert_int_equal(next, 501 + round * 300);
			for (uint64_t i = 0; i < 300; i++) /* zones are closed behind it */
				append(&w, j, next + i);
		}
		cfs_journal_close(j);
		world_end(&w);
	}
}

/* the server runs: it is told, writes again what was lost, and a start finds all of it, at any time and after a snapshot */
static void test_lost_under_way(void **state)
{
	uint64_t first, last;
	uint32_t told;

	(void)state;
	for (uint32_t k = 0; k < 8; k++) {
		bool with_snap = k >= 4;
		uint64_t next = 0, end = 500;
		int err = 1;
		struct cfs_journal_snapshot snap = { .index = 50, .term = 1, .manifest = "manifest", .manifest_len = 8,
						     .done = snap_done, .user = &err };
		struct cfs_store_stat s;
		struct cfs_journal *j;
		struct world w;

		j = filled(&w, &told, 200);
		if (with_snap) { /* its record is in the second zone */
			cfs_journal_snapshot(j, &snap);
			world_idle(&w, 20);
			assert_int_equal(err, 0);
		}
		for (uint64_t i = 201; i <= end; i++)
			append(&w, j, i);
		assert_int_equal(j->n_segs, 4);
		assert_false(cfs_journal_lost(j, &first, &last));
		cfs_crashdev_zone_fail(w.cd, jzone(j, k % 4), CFS_ZONE_OFFLINE);
		if (k % 4 == 3)
			append(&w, j, ++end); /* which fails there, and goes elsewhere */
		else
			world_idle(&w, 20); /* nobody writes there, but it is looked at */
		world_idle(&w, 5);
		assert_int_equal(told, 1);
		cfs_store_stat(w.st, &s);
		assert_true(s.journal_lost);
		assert_true(cfs_journal_lost(j, &first, &last));
		assert_true(first <= last && last >= 100 * (k % 4));
		assert_true(!with_snap || first > 50);
		/* only a part of it is no help */
		assert_int_equal(again(&w, j, first, last - 1), 0);
		assert_true(cfs_journal_lost(j, &first, &last));
		append(&w, j, ++end);
		assert_int_equal(again(&w, j, first, last), 0);
		assert_false(cfs_journal_lost(j, &first, &last));
		append(&w, j, ++end);
		for (uint32_t round = 0; round < 2; round++) {
			uint64_t index, term;
			const void *manifest;
			uint32_t len;

			cfs_journal_close(j);
			world_kill(&w);
			lossy_open(&w, &told);
			j = jopen(&w);
			assert_int_equal(cfs_journal_last_snapshot(j, &index, &term, &manifest, &len),
					 with_snap ? 0 : -ENOENT);
			if (with_snap) {
				assert_int_equal(index, 50);
				assert_memory_equal(manifest, "manifest", 8);
			}
			next = 0;
			assert_int_equal(cfs_journal_load(j, count_entry, &next), 0);
			assert_int_equal(next, end + 1);
			append(&w, j, ++end);
		}
		/* a checkpoint, and nothing is left of it all */
		snap.index = end - 1;
		cfs_journal_snapshot(j, &snap);
		world_idle(&w, 200);
		assert_false(cfs_journal_lost(j, &first, &last));
		assert_int_equal(cfs_zones_lost(w.st), UINT32_MAX);
		for (uint64_t i = 0; i < 300; i++)
			append(&w, j, ++end);
		cfs_journal_close(j);
		world_kill(&w);
		world_open(&w);
		j = jopen(&w);
		next = 0;
		assert_int_equal(cfs_journal_load(j, count_entry, &next), 0);
		assert_int_equal(next, end + 1);
		cfs_journal_close(j);
		world_end(&w);
	}
}

/* more journals than zones can be active: refused by name, and those that are there go on */
static void test_limits(void **state)
{
	struct cfs_zone_geometry g = { .zone_bytes = 2 * MB, .zone_capacity = MB, .n_zones = 40, .max_active = 4 };
	struct cfs_format_params fp = { .target_id = 1 };
	struct cfs_journal *j[8];
	struct world w = { 0 };
	uint32_t n = 0;

	(void)state;
	w.cd = cfs_crashdev_create_zoned(&g, NULL, 0);
	assert_int_equal(cfs_store_format(cfs_crashdev_dev(w.cd), &fp, w.err, sizeof(w.err)), -EINVAL);
	assert_non_null(strstr(w.err, "active"));
	cfs_crashdev_destroy(w.cd);
	g.max_active = 6;
	g.n_zones = 10;
	w.cd = cfs_crashdev_create_zoned(&g, NULL, 0);
	assert_int_equal(cfs_store_format(cfs_crashdev_dev(w.cd), &fp, w.err, sizeof(w.err)), -EINVAL);
	cfs_crashdev_destroy(w.cd);
	g.n_zones = 40;
	w.cd = cfs_crashdev_create_zoned(&g, NULL, 0);
	assert_int_equal(cfs_store_format(cfs_crashdev_dev(w.cd), &fp, w.err, sizeof(w.err)), 0);
	world_open(&w);
	while (n < 8 && !cfs_journal_open(w.st, n + 1, &j[n], w.err, sizeof(w.err)))
		n++;
	assert_in_range(n, 1, 5);
	assert_non_null(strstr(w.err, "active"));
	for (uint64_t i = 1; i <= 300; i++) {
		for (uint32_t k = 0; k < n; k++)
			append(&w, j[k], i);
		if (i % 5 == 0 && i <= 100)
			assert_int_equal(put_obj(&w, i, LEN), 0);
	}
	while (n)
		cfs_journal_close(j[--n]);
	world_end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fill_ten_times), cmocka_unit_test(test_fill_with_cuts),
		cmocka_unit_test(test_readonly),
		cmocka_unit_test(test_offline),
		cmocka_unit_test(test_journal_zone_fails), cmocka_unit_test(test_lost_at_rest),
		cmocka_unit_test(test_lost_under_way),	   cmocka_unit_test(test_limits),
	};

	world_kind = ZONED;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
