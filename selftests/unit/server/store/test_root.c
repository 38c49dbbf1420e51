/* SPDX-License-Identifier: MIT */
/*
 * Proves of the log of superblocks and votes on zones: zones of it that fail are passed over, and one that goes offline takes
 * nothing with it; while writes fail, what was durable is never reset; superblocks that are not the newest are not
 * taken for it: where it may have been in an offline zone, opening is refused by name; drives with few active zones have one log,
 * and a target that was made with one gets two.
 */
#include "selftests/unit/server/store/world.h"
#include "server/store/journal_i.h"

#define MB (1u << 20)

static struct cfs_journal *jopen(struct world *w)
{
	struct cfs_journal *j = NULL;

	assert_int_equal(cfs_journal_open(w->st, 3, &j, w->err, sizeof(w->err)), 0);
	return j;
}

static struct cfs_journal *restart(struct world *w, struct cfs_journal *j)
{
	cfs_journal_close(j);
	world_kill(w);
	world_open(w);
	return jopen(w);
}

static void check_vote(struct cfs_journal *j, uint64_t want)
{
	uint64_t term, voted;

	cfs_journal_get_vote(j, &term, &voted);
	assert_int_equal(term, want);
	assert_int_equal(voted, want + 5);
}

static int vote(struct cfs_journal *j, uint64_t t)
{
	return cfs_journal_set_vote(j, t, t + 5);
}

/* a target on zones of which so many may be active */
static void make(struct world *w, uint32_t max_active)
{
	struct cfs_zone_geometry g = { .zone_bytes = 2 * MB, .zone_capacity = MB, .n_zones = 24, .max_active = max_active };
	struct cfs_format_params fp = { .target_id = 1 };

	memset(w, 0, sizeof(*w));
	w->cd = cfs_crashdev_create_zoned(&g, NULL, 0);
	assert_int_equal(cfs_store_format(cfs_crashdev_dev(w->cd), &fp, w->err, sizeof(w->err)), 0);
	world_open(w);
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
			cfs_crashdev_zone_fail(w.cd, w.st->root.side[0].zone, CFS_ZONE_READONLY);
		/* the present one of the other side, with all that it has; the next start is at once */
		if (t == 450)
			cfs_crashdev_zone_fail(w.cd, w.st->root.side[1].zone, CFS_ZONE_OFFLINE);
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

/* for a while every write fails, and resets do not: what was there before is there afterwards */
static void test_writes_fail(void **state)
{
	(void)state;
	for (uint32_t active = 5; active <= 8; active += 3) {
		struct cfs_journal *j;
		struct world w;

		make(&w, active);
		j = jopen(&w);
		assert_int_equal(w.st->root.n_sides, active == 5 ? 1 : 2);
		for (uint64_t t = 1; t <= 40; t++) {
			assert_int_equal(vote(j, t), 0);
			if (t % 10)
				continue;
			cfs_crashdev_fail(w.cd, CFS_DEV_WRITE, 1000, -EIO);
			for (uint32_t i = 0; i < 12; i++)
				assert_int_equal(vote(j, 100), -EIO);
			cfs_crashdev_fail(w.cd, CFS_DEV_WRITE, 0, -EIO);
			/* at once, and after it was written again */
			if (t % 20)
				assert_int_equal(vote(j, t), 0);
			j = restart(&w, j);
			check_vote(j, t);
		}
		cfs_journal_close(j);
		world_end(&w);
	}
}

static void refused(struct world *w, struct cfs_journal *j)
{
	cfs_journal_close(j);
	world_kill(w);
	assert_int_equal(world_try_open(w), -EUCLEAN);
	assert_non_null(strstr(w->err, "offline"));
	assert_non_null(strstr(w->err, "votes"));
	cfs_crashdev_destroy(w->cd);
}

static void fail_zone(struct world *w, uint32_t zone, enum cfs_zone_state state)
{
	cfs_crashdev_zone_fail(w->cd, zone, state);
}

static void test_newest_offline(void **state)
{
	struct cfs_journal *j;
	struct world w;

	(void)state;
	/* one log, which goes on in a second zone; the first one has older votes, and may not serve */
	make(&w, 5);
	j = jopen(&w);
	for (uint64_t t = 1; t <= 200; t++)
		assert_int_equal(vote(j, t), 0);
	assert_int_equal(w.st->root.side[0].zone, 1);
	fail_zone(&w, 1, CFS_ZONE_OFFLINE);
	refused(&w, j);
	/* but one that has only older ones is no loss */
	make(&w, 5);
	j = jopen(&w);
	for (uint64_t t = 1; t <= 200; t++)
		assert_int_equal(vote(j, t), 0);
	fail_zone(&w, 0, CFS_ZONE_OFFLINE);
	fail_zone(&w, 2, CFS_ZONE_OFFLINE);
	j = restart(&w, j);
	check_vote(j, 200);
	for (uint64_t t = 201; t <= 500; t++)
		assert_int_equal(vote(j, t), 0);
	j = restart(&w, j);
	check_vote(j, 500);
	cfs_journal_close(j);
	world_end(&w);
	/* two: both present ones at once */
	make(&w, 8);
	j = jopen(&w);
	for (uint64_t t = 1; t <= 200; t++)
		assert_int_equal(vote(j, t), 0);
	fail_zone(&w, w.st->root.side[0].zone, CFS_ZONE_OFFLINE);
	fail_zone(&w, w.st->root.side[1].zone, CFS_ZONE_OFFLINE);
	refused(&w, j);
	/* one side cannot be written any more, and then the other one's zone is lost: the first has but old votes */
	make(&w, 8);
	j = jopen(&w);
	assert_int_equal(vote(j, 1), 0);
	fail_zone(&w, 0, CFS_ZONE_READONLY);
	fail_zone(&w, 1, CFS_ZONE_READONLY);
	assert_int_equal(vote(j, 2), 0);
	j = restart(&w, j);
	check_vote(j, 2);
	assert_int_equal(vote(j, 3), 0);
	fail_zone(&w, w.st->root.side[1].zone, CFS_ZONE_OFFLINE);
	refused(&w, j);
}

/* made with one log, where more zones can be active now */
static void test_upgrade(void **state)
{
	(void)state;
	for (uint64_t votes = 1; votes < 500; votes += 120) {
		struct cfs_zone_geometry g = { .zone_bytes = 2 * MB, .zone_capacity = MB, .n_zones = 24, .max_active = 8 };
		struct cfs_crashdev *cd;
		struct cfs_journal *j;
		struct world w;

		make(&w, 5);
		j = jopen(&w);
		for (uint64_t t = 1; t <= votes; t++)
			assert_int_equal(vote(j, t), 0);
		cfs_journal_close(j);
		cfs_store_close(w.st, false);
		cd = cfs_crashdev_create_zoned(&g, cfs_crashdev_bytes(w.cd), 0);
		cfs_crashdev_destroy(w.cd);
		w.cd = cd;
		world_open(&w);
		assert_int_equal(w.st->root.n_sides, 2);
		j = jopen(&w);
		check_vote(j, votes);
		assert_int_equal(vote(j, votes + 1), 0);
		fail_zone(&w, w.st->root.side[votes / 120 % 2].zone, CFS_ZONE_OFFLINE);
		j = restart(&w, j);
		check_vote(j, votes + 1);
		cfs_journal_close(j);
		world_end(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_root_fails),
		cmocka_unit_test(test_writes_fail),
		cmocka_unit_test(test_newest_offline),
		cmocka_unit_test(test_upgrade),
	};

	world_kind = ZONED;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
