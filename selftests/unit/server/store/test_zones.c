/* SPDX-License-Identifier: MIT */
/*
 * Proves of a store on zones what the tests that run on every kind of device do not ask: it can be filled to
 * the last zone, emptied and filled again ten times, with cleaning under load, and never has more zones active
 * than the device allows; what a zone that turns read-only held is moved, and does not come back from it
 * after it was deleted; an offline zone loses just what it held, and says so; failing zones of the log of
 * superblocks are passed over; a journal lives on when its zone fails; too small devices are refused by name.
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
	uint64_t n, first = 0, least = UINT64_MAX, most = 0, resets = 0;
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
			assert_int_equal(get_obj(&w, i, LEN), 0);
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
	assert_int_equal(s.zones_failed, 1);
	assert_int_equal(s.zones_retired, 1);
	/* the other one shows at the next start */
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

	assert_int_equal(cfs_journal_open(w->st, 3, &j, w->err, sizeof(w->err)), 0);
	return j;
}

static void test_root_fails(void **state)
{
	uint64_t term, voted;
	struct cfs_journal *j;
	struct world w;

	(void)state;
	world_format(&w, 24 * MB, MB, 0);
	world_open(&w);
	j = jopen(&w);
	/* round the log more than once, with a start now and then */
	for (uint64_t t = 1; t <= 700; t++) {
		assert_int_equal(cfs_journal_set_vote(j, t, t + 5), 0);
		if (t == 100)
			cfs_crashdev_zone_fail(w.cd, w.st->root.zone, CFS_ZONE_READONLY);
		if (t == 500)
			cfs_crashdev_zone_fail(w.cd, (w.st->root.zone + 1) % CFS_DISK_ROOT_ZONES,
					       CFS_ZONE_OFFLINE);
		if (t % 150 == 0) {
			cfs_journal_close(j);
			world_kill(&w);
			world_open(&w);
			j = jopen(&w);
			cfs_journal_get_vote(j, &term, &voted);
			assert_int_equal(term, t);
			assert_int_equal(voted, t + 5);
		}
	}
	cfs_journal_close(j);
	world_end(&w);
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
		cmocka_unit_test(test_fill_ten_times), cmocka_unit_test(test_readonly),
		cmocka_unit_test(test_offline),	       cmocka_unit_test(test_root_fails),
		cmocka_unit_test(test_journal_zone_fails), cmocka_unit_test(test_limits),
	};

	world_kind = ZONED;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
