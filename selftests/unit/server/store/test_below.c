/* SPDX-License-Identifier: MIT */
/*
 * test_below.c - a target on a sparse file whose file system runs full (user/sim/sparse.h models it as ext4 and XFS do).
 *
 * Proves: writes end with ENOSPC before anything is in danger, and statistics promise no more than can be had; while
 * others hold all the room, what was stored is there, deletions and the journal go on, no device write ever fails;
 * the same after a restart; with room again writes work by themselves. A journal whose file system copies on write
 * waits for room and loses nothing. A full segment header is no lost segment. A reservation that fails half way is
 * given back.
 */
#include "selftests/unit/server/store/world.h"
#include "server/store/journal_i.h"

#define MB (1ull << 20)
#define GB (1ull << 30)
#define LEN 500000u

struct jwait {
	struct cfs_journal_append a;
	bool done;
	int err;
};

static void jdone(struct cfs_journal_append *a, int err)
{
	struct jwait *x = cfs_container_of(a, struct jwait, a);

	x->done = true;
	x->err = err;
}

static void jbegin(struct cfs_journal *j, struct jwait *x, struct cfs_journal_entry *e, uint64_t index, uint32_t len)
{
	static uint8_t bytes[1 << 20];

	*e = (struct cfs_journal_entry){ .index = index, .term = 1, .len = len, .data = bytes };
	*x = (struct jwait){ .a = { .entries = e, .n = 1, .done = jdone } };
	cfs_journal_append(j, &x->a);
}

static int jappend(struct world *w, struct cfs_journal *j, uint64_t index, uint32_t len)
{
	struct cfs_journal_entry e;
	struct jwait x;

	jbegin(j, &x, &e, index, len);
	while (!x.done)
		assert_true(cfs_crashdev_turn(w->cd));
	return x.err;
}

static void begin(struct world *w, struct cfs_sparse **ret_sp, uint64_t bytes, uint64_t room)
{
	world_format(w, bytes, 8 * MB, 0);
	cfs_crashdev_forget(w->cd);
	*ret_sp = cfs_sparse_create(bytes, room);
	assert_int_equal(cfs_sparse_take(*ret_sp, 0, CFS_DISK_SEG_OFF + 8 * MB), 0);
	cfs_crashdev_sparse(w->cd, *ret_sp);
	world_open(w);
	world_idle(w, 2000);
}

static void again(struct world *w, struct cfs_sparse *sp, bool clean)
{
	if (clean) {
		world_stop(w);
	} else {
		world_swap(w, NULL, 0);
		cfs_crashdev_sparse(w->cd, sp);
	}
	world_open(w);
}

static uint64_t free_bytes(struct world *w)
{
	struct cfs_store_stat s;

	cfs_store_stat(w->st, &s);
	return s.free_bytes;
}

static int load_cb(void *arg, const struct cfs_journal_entry *e)
{
	*(uint64_t *)arg = e->index;
	return 0;
}

/* a 1 GiB target where 400 MiB are to be had, and then none at all */
static void test_full_below(void **state)
{
	struct cfs_journal *j = NULL;
	struct cfs_sparse *sp;
	uint64_t n = 0, promised, more;
	struct world w;
	uint64_t index = 0, last = 0;

	(void)state;
	begin(&w, &sp, GB, 400 * MB);
	/* others come and go: it is full, and then it is not */
	cfs_sparse_others(sp, UINT64_MAX);
	while (put_obj(&w, 300000 + n, LEN) == 0)
		n++;
	assert_int_equal(put_obj(&w, 300000 + n, LEN), -ENOSPC);
	cfs_sparse_others(sp, 0);
	world_idle(&w, 3000);
	assert_true(w.st->below.n_backed > w.st->reserve);
	for (uint64_t i = 0; i < n; i++)
		assert_int_equal(del_obj(&w, 300000 + i), 0);
	n = 0;
	assert_int_equal(cfs_journal_open(w.st, 1, &j, w.err, sizeof(w.err)), 0);
	for (int i = 0; i < 20; i++)
		assert_int_equal(jappend(&w, j, ++index, 1 << 16), 0);
	promised = free_bytes(&w);
	assert_true(promised > 100 * MB && promised < 340 * MB);
	while (put_obj(&w, n, LEN) == 0)
		n++;
	assert_int_equal(put_obj(&w, n, LEN), -ENOSPC);
	assert_true(n * LEN >= promised);
	assert_true(free_bytes(&w) < 9 * MB);
	/* now others take what we left, too */
	cfs_sparse_others(sp, UINT64_MAX);
	world_idle(&w, 2000);
	for (int round = 0; round < 3; round++) {
		for (uint64_t i = (uint64_t)round; i < n; i += 40)
			assert_int_equal(get_obj(&w, i, LEN), i % 4 == 3 && i / 4 < (uint64_t)round * 10 ? -ENOENT : 0);
		for (uint64_t i = 0; i < 10; i++)
			assert_int_equal(del_obj(&w, ((uint64_t)round * 10 + i) * 4 + 3), 0);
		for (int i = 0; i < 20; i++)
			assert_int_equal(jappend(&w, j, ++index, 1 << 16), 0);
		cfs_journal_close(j);
		again(&w, sp, round % 2);
		assert_int_equal(cfs_journal_open(w.st, 1, &j, w.err, sizeof(w.err)), 0);
		assert_int_equal(cfs_journal_load(j, load_cb, &last), 0);
		assert_int_equal(last, index);
		world_idle(&w, 500);
	}
	/* what others have given back, and what the cleaner gains */
	cfs_sparse_others(sp, 0);
	for (uint64_t i = 0; i < n; i++)
		assert_int_equal(del_obj(&w, i), 0);
	world_idle(&w, 5000);
	more = free_bytes(&w);
	assert_true(more > promised / 2);
	for (uint64_t i = 0; i * LEN < more; i++)
		assert_int_equal(put_obj(&w, 200000 + i, LEN), 0);
	cfs_journal_close(j);
	world_end(&w);
	cfs_sparse_destroy(sp);
}

/* as on a file system that copies on write: reserving does not help, and even a journal's write finds no room */
static void test_journal_waits(void **state)
{
	struct cfs_journal *j = NULL;
	struct cfs_journal_entry e[2];
	struct jwait x[2];
	uint64_t last = 0;
	struct world w;

	(void)state;
	world_format(&w, 256 * MB, 8 * MB, 0);
	world_open(&w);
	assert_int_equal(cfs_journal_open(w.st, 1, &j, w.err, sizeof(w.err)), 0);
	assert_int_equal(jappend(&w, j, 1, 5000), 0);
	cfs_crashdev_fail(w.cd, CFS_DEV_WRITE, 40, -ENOSPC);
	jbegin(j, &x[0], &e[0], 2, 5000);
	jbegin(j, &x[1], &e[1], 3, 5000);
	world_idle(&w, 8);
	assert_false(x[0].done || x[1].done);
	for (int i = 0; i < 1000 && !(x[0].done && x[1].done); i++)
		assert_true(cfs_crashdev_turn(w.cd));
	assert_int_equal(x[0].err, 0);
	assert_int_equal(x[1].err, 0);
	assert_int_equal(jappend(&w, j, 4, 5000), 0);
	/* a wait that a failure of another kind ends: the records move to another segment, as ever */
	cfs_crashdev_fail(w.cd, CFS_DEV_WRITE, 1, -ENOSPC);
	jbegin(j, &x[0], &e[0], 5, 5000);
	world_idle(&w, 1);
	cfs_crashdev_fail(w.cd, CFS_DEV_WRITE, 1, -EIO);
	jbegin(j, &x[1], &e[1], 6, 5000);
	for (int i = 0; i < 1000 && !(x[0].done && x[1].done); i++)
		assert_true(cfs_crashdev_turn(w.cd));
	assert_int_equal(x[0].err, 0);
	assert_int_equal(x[1].err, 0);
	cfs_journal_close(j);
	world_kill(&w);
	world_open(&w);
	assert_int_equal(cfs_journal_open(w.st, 1, &j, w.err, sizeof(w.err)), 0);
	assert_int_equal(cfs_journal_load(j, load_cb, &last), 0);
	assert_int_equal(last, 6);
	cfs_journal_close(j);
	world_end(&w);
}

/* the write of a segment's header finds no room: the segment is free again, not given up until the next start */
static void test_header(void **state)
{
	struct cfs_store_stat before, after;
	struct cfs_sparse *sp;
	struct world w;

	(void)state;
	begin(&w, &sp, 256 * MB, GB);
	cfs_store_stat(w.st, &before);
	cfs_crashdev_fail(w.cd, CFS_DEV_WRITE, 1, -ENOSPC);
	assert_int_equal(put_obj(&w, 1, LEN), 0);	/* it went on in another */
	world_idle(&w, 1000);
	for (uint32_t i = 0; i < w.st->n_segs; i++)
		assert_int_not_equal(w.st->segs[i].state, CFS_SS_BAD);
	cfs_store_stat(w.st, &after);
	assert_int_equal(after.segments_free, before.segments_free - 1);
	world_end(&w);
	cfs_sparse_destroy(sp);
}

/* others take the room while it is being reserved */
static void test_half_reserved(void **state)
{
	struct cfs_dev_room room, then;
	struct cfs_sparse *sp;
	struct world w;
	uint64_t n = 0;

	(void)state;
	begin(&w, &sp, 512 * MB, GB);
	assert_int_equal(put_obj(&w, n++, LEN), 0);
	world_idle(&w, 2000);
	cfs_sparse_room(sp, &room);
	/* four MiB are left, which the store does not know: it looked a moment ago */
	cfs_sparse_others(sp, room.free - 4 * MB);
	while (put_obj(&w, n, LEN) == 0)
		n++;
	world_idle(&w, 50);
	cfs_sparse_room(sp, &then);
	assert_true(then.free >= 3 * MB);
	assert_int_equal(del_obj(&w, 0), 0);
	world_end(&w);
	cfs_sparse_destroy(sp);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full_below),
		cmocka_unit_test(test_journal_waits),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_half_reserved),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
