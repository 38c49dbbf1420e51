/* SPDX-License-Identifier: MIT */
/*
 * Proves: entries come back in order, with their bytes, after kills and clean closes, across
 * segments, with truncations and snapshots applied; appends pipeline and complete in order;
 * segments are reused, so a journal that takes snapshots lives for ever in little space, on a
 * full device too; votes last, in spite of one rotten copy; a record that rotted is reported by
 * segment and offset, a cut-off end is not.
 */
#include "selftests/unit/server/store/world.h"
#include "server/store/journal_i.h"

#define MB (1u << 20)

struct app {
	struct cfs_journal_append a;
	struct cfs_journal_entry e[64];
	uint8_t *data[64];
	bool done;
	int err;
	uint32_t order;
};
static uint32_t order_next;

static void app_done(struct cfs_journal_append *a, int err)
{
	struct app *x = cfs_container_of(a, struct app, a);

	x->done = true;
	x->err = err;
	x->order = order_next++;
}

static uint32_t len_of(uint64_t index, uint64_t term)
{
	return (uint32_t)(cfs_hash_u64(index * 131 + term) % 3000) * (index % 7 != 3);
}

static struct app *app_new(uint64_t first, uint32_t n, uint64_t term)
{
	struct app *x = calloc(1, sizeof(*x));

	x->a = (struct cfs_journal_append){ .entries = x->e, .n = n, .done = app_done };
	for (uint32_t i = 0; i < n; i++) {
		uint32_t len = len_of(first + i, term);

		x->data[i] = malloc(len + 1);
		fill(x->data[i], len, (first + i) * 1000 + term);
		x->e[i] = (struct cfs_journal_entry){ .index = first + i,
						      .term = term,
						      .kind = (uint32_t)(first % 5),
						      .len = len,
						      .data = x->data[i] };
	}
	return x;
}

static void app_free(struct app *x)
{
	for (uint32_t i = 0; i < x->a.n; i++)
		free(x->data[i]);
	free(x);
}

static int append(struct world *w, struct cfs_journal *j, uint64_t first, uint32_t n, uint64_t term)
{
	struct app *x = app_new(first, n, term);
	int err;

	cfs_journal_append(j, &x->a);
	assert_false(x->done);
	while (!x->done)
		assert_true(cfs_crashdev_turn(w->cd));
	err = x->err;
	app_free(x);
	return err;
}

struct snap {
	struct cfs_journal_snapshot s;
	bool done;
	int err;
};

static void snap_done(struct cfs_journal_snapshot *s, int err)
{
	struct snap *x = cfs_container_of(s, struct snap, s);

	x->done = true;
	x->err = err;
}

static int snapshot(struct world *w, struct cfs_journal *j, uint64_t index, uint64_t term,
		    uint32_t trailing)
{
	char manifest[100];
	struct snap x = { .s = { .index = index,
				 .term = term,
				 .manifest = manifest,
				 .trailing = trailing,
				 .done = snap_done } };

	x.s.manifest_len = (uint32_t)snprintf(manifest, sizeof(manifest), "snapshot %llu",
					      (unsigned long long)index);
	cfs_journal_snapshot(j, &x.s);
	while (!x.done)
		assert_true(cfs_crashdev_turn(w->cd));
	return x.err;
}

struct loaded {
	uint64_t first, last;
	uint64_t terms[4000]; /* by index - first */
};

static int load_one(void *arg, const struct cfs_journal_entry *e)
{
	struct loaded *l = arg;
	uint8_t *want;

	if (!l->first)
		l->first = e->index;
	else
		assert_int_equal(e->index, l->last + 1);
	l->last = e->index;
	if (e->index - l->first < CFS_ARRAY_SIZE(l->terms))
		l->terms[e->index - l->first] = e->term;
	assert_int_equal(e->len, len_of(e->index, e->term));
	want = malloc(e->len + 1);
	fill(want, e->len, e->index * 1000 + e->term);
	assert_memory_equal(e->data, want, e->len);
	free(want);
	return 0;
}

static struct cfs_journal *jopen(struct world *w, uint32_t group)
{
	struct cfs_journal *j = NULL;
	int rc = cfs_journal_open(w->st, group, &j, w->err, sizeof(w->err));

	if (rc)
		fail_msg("journal open: %d: %s", rc, w->err);
	return j;
}

static void load(struct cfs_journal *j, struct loaded *l)
{
	memset(l, 0, sizeof(*l));
	assert_int_equal(cfs_journal_load(j, load_one, l), 0);
}

static struct cfs_journal *restart(struct world *w, struct cfs_journal *j, bool clean)
{
	if (clean) {
		cfs_journal_close(j);
		world_stop(w);
	} else {
		/* the memory goes, the device saw nothing of it */
		uint64_t size = cfs_crashdev_dev(w->cd)->info.size_bytes;
		uint8_t *image = malloc(size);

		memcpy(image, cfs_crashdev_bytes(w->cd), size);
		cfs_journal_close(j);
		world_swap(w, image, 0);
		free(image);
	}
	world_open(w);
	return jopen(w, 3);
}

static void test_basic(void **state)
{
	struct loaded *l = malloc(sizeof(*l));
	struct cfs_journal *j;
	struct world w;
	uint64_t at = 1;

	(void)state;
	world_format(&w, 32 * MB, MB, 0);
	world_open(&w);
	j = jopen(&w, 3);
	load(j, l);
	assert_int_equal(l->last, 0);
	for (uint32_t round = 0; round < 6; round++) {
		for (uint32_t k = 0; k < 40; k++) {
			assert_int_equal(append(&w, j, at, 1 + k % 9, 1 + round), 0);
			at += 1 + k % 9;
		}
		assert_true(cfs_journal_bytes(j) > (at - 1) * 1000);
		j = restart(&w, j, round & 1);
		load(j, l);
		assert_int_equal(l->first, 1);
		assert_int_equal(l->last, at - 1);
	}
	assert_true(j->n_segs > 1);
	/* not contiguous: refused */
	assert_int_equal(append(&w, j, at + 1, 1, 9), -EINVAL);
	assert_int_equal(append(&w, j, at - 1, 1, 9), -EINVAL);
	assert_int_equal(append(&w, j, at, 1, 9), 0);
	cfs_journal_close(j);
	world_end(&w);
	free(l);
}

static void test_large(void **state)
{
	struct cfs_journal *j;
	struct loaded l = { 0 };
	struct world w;
	uint8_t *big = malloc(5 * MB);
	struct cfs_journal_entry e[3];
	struct app x = { .a = { .entries = e, .n = 3, .done = app_done } };

	(void)state;
	(void)l;
	world_format(&w, 256 * MB, 8 * MB, 0);
	world_open(&w);
	j = jopen(&w, 3);
	memset(big, 7, 5 * MB);
	for (uint32_t i = 0; i < 3; i++)
		e[i] = (struct cfs_journal_entry){
			.index = 1 + i, .term = 1, .len = 3 * MB + i, .data = big
		};
	cfs_journal_append(j, &x.a);
	while (!x.done)
		assert_true(cfs_crashdev_turn(w.cd));
	assert_int_equal(x.err, 0);
	/* longer than any record */
	e[0] = (struct cfs_journal_entry){ .index = 4, .term = 1, .len = 4 * MB, .data = big };
	x.a.n = 1;
	x.done = false;
	cfs_journal_append(j, &x.a);
	while (!x.done)
		assert_true(cfs_crashdev_turn(w.cd));
	assert_int_equal(x.err, -EMSGSIZE);
	j = restart(&w, j, false);
	assert_int_equal(j->last_index, 3);
	assert_int_equal(j->n_owner, 3);
	cfs_journal_close(j);
	world_end(&w);
	free(big);
}

static void test_pipeline(void **state)
{
	struct loaded *l = malloc(sizeof(*l));
	struct cfs_journal *j;
	struct app *x[100];
	struct world w;
	uint64_t before;

	(void)state;
	world_format(&w, 64 * MB, 2 * MB, 5); /* completions are shuffled */
	world_open(&w);
	j = jopen(&w, 3);
	assert_int_equal(append(&w, j, 1, 1, 1), 0);
	before = cfs_crashdev_writes(w.cd);
	order_next = 0;
	for (uint32_t i = 0; i < 100; i++) {
		x[i] = app_new(2 + i * 3, 3, 1);
		cfs_journal_append(j, &x[i]->a);
	}
	world_idle(&w, 5000);
	for (uint32_t i = 0; i < 100; i++) {
		assert_true(x[i]->done);
		assert_int_equal(x[i]->err, 0);
		assert_int_equal(x[i]->order, i);
		app_free(x[i]);
	}
	if (world_kind == ZONED) /* what waits for its zone goes out together */
		assert_in_range(cfs_crashdev_writes(w.cd) - before, 2, 20);
	else
		assert_int_equal(cfs_crashdev_writes(w.cd) - before, 100); /* one append, one write */
	j = restart(&w, j, false);
	load(j, l);
	assert_int_equal(l->last, 301);
	cfs_journal_close(j);
	world_end(&w);
	free(l);
}

static void test_truncate(void **state)
{
	struct loaded *l = malloc(sizeof(*l));
	struct cfs_journal *j;
	struct world w;

	(void)state;
	world_format(&w, 32 * MB, MB, 0);
	world_open(&w);
	j = jopen(&w, 3);
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(append(&w, j, 1 + i * 5, 5, 1), 0);
	assert_int_equal(cfs_journal_truncate(j, 23), 0);
	assert_int_equal(append(&w, j, 23, 4, 2), 0);
	assert_int_equal(cfs_journal_truncate(j, 25), 0);
	assert_int_equal(cfs_journal_truncate(j, 24), 0);
	assert_int_equal(append(&w, j, 24, 1, 3), 0);
	for (int round = 0; round < 2; round++) {
		j = restart(&w, j, round);
		load(j, l);
		assert_int_equal(l->first, 1);
		assert_int_equal(l->last, 24);
		assert_int_equal(l->terms[21], 1);
		assert_int_equal(l->terms[22], 2);
		assert_int_equal(l->terms[23], 3);
	}
	/* a snapshot from elsewhere, older than what we have: the truncation goes with it */
	assert_int_equal(cfs_journal_truncate(j, 1), 0);
	assert_int_equal(snapshot(&w, j, 20, 5, 0), 0);
	j = restart(&w, j, false);
	load(j, l);
	assert_int_equal(l->last, 0);
	assert_int_equal(append(&w, j, 21, 2, 5), 0);
	/* and one that is far ahead */
	assert_int_equal(snapshot(&w, j, 1000, 6, 0), 0);
	assert_int_equal(append(&w, j, 1001, 2, 6), 0);
	j = restart(&w, j, false);
	load(j, l);
	assert_int_equal(l->first, 1001);
	assert_int_equal(l->last, 1002);
	cfs_journal_close(j);
	world_end(&w);
	free(l);
}

static void test_snapshots(void **state)
{
	struct loaded *l = malloc(sizeof(*l));
	struct cfs_store_stat s0, s;
	struct cfs_journal *j, *k;
	const void *manifest;
	uint64_t at = 1, index, term, snap = 0;
	uint32_t len;
	struct world w;

	(void)state;
	world_format(&w, 32 * MB, MB, 0);
	cfs_crashdev_forget(w.cd);
	world_open(&w);
	j = jopen(&w, 3);
	assert_int_equal(cfs_journal_last_snapshot(j, &index, &term, &manifest, &len), -ENOENT);
	cfs_store_stat(w.st, &s0);
	for (uint32_t round = 0; round < 60; round++) {
		for (uint32_t i = 0; i < 40; i++, at += 10)
			assert_int_equal(append(&w, j, at, 10, 1), 0);
		snap = at - 30;
		assert_int_equal(snapshot(&w, j, snap, 1, 50), 0);
		assert_true(cfs_journal_bytes(j) < 100000);
		world_idle(&w, 50);
		assert_true(j->n_segs <= 3);
		if (round % 20 == 19) {
			j = restart(&w, j, round % 40 == 19);
			load(j, l);
			assert_int_equal(l->first, snap - 50 + 1);
			assert_int_equal(l->last, at - 1);
		}
		assert_int_equal(cfs_journal_last_snapshot(j, &index, &term, &manifest, &len), 0);
		assert_int_equal(index, snap);
		assert_true(len > 9 && !memcmp(manifest, "snapshot ", 9));
	}
	cfs_store_stat(w.st, &s);
	assert_true(s.segments_free + 6 >= s0.segments_free);
	/* a group beside it */
	k = jopen(&w, 4);
	assert_int_equal(append(&w, k, 1, 3, 8), 0);
	cfs_journal_close(k);
	j = restart(&w, j, false);
	k = jopen(&w, 4);
	load(k, l);
	assert_int_equal(l->last, 3);
	load(j, l);
	assert_int_equal(l->last, at - 1);
	cfs_journal_close(j);
	cfs_journal_close(k);
	world_end(&w);
	free(l);
}

static void test_full_device(void **state)
{
	struct cfs_journal *j;
	struct world w;
	uint64_t n = 0, at = 1;
	int rc;

	(void)state;
	world_format(&w, 17 * MB, MB, 0);
	cfs_crashdev_forget(w.cd);
	world_open(&w);
	j = jopen(&w, 3);
	while (!put_obj(&w, n, 100000))
		n++;
	/* objects find no room; the journal goes on as long as snapshots are taken */
	for (uint32_t round = 0; round < 30; round++) {
		for (uint32_t i = 0; i < 30; i++, at += 10)
			assert_int_equal(append(&w, j, at, 10, 1), 0);
		assert_int_equal(snapshot(&w, j, at - 1, 1, 0), 0);
		world_idle(&w, 20);
	}
	/* without, it says so before anything is written, and lives */
	while (!(rc = append(&w, j, at, 10, 1)))
		at += 10;
	assert_int_equal(rc, -ENOSPC);
	assert_int_equal(append(&w, j, at, 10, 1), -ENOSPC);
	assert_int_equal(del_obj(&w, 0), 0); /* deleting works even now */
	assert_int_equal(get_obj(&w, 0, 100000), -ENOENT);
	j = restart(&w, j, false);
	assert_int_equal(j->last_index, at - 1);
	assert_int_equal(snapshot(&w, j, at - 1, 1, 0), 0);
	world_idle(&w, 50);
	assert_int_equal(append(&w, j, at, 10, 1), 0);
	cfs_journal_close(j);
	world_end(&w);
}

static void test_votes(void **state)
{
	uint64_t term, voted, off = CFS_DISK_VOTE_OFF, at[2];
	struct cfs_journal *j, *k;
	struct world w;

	(void)state;
	world_format(&w, 32 * MB, MB, 0);
	world_open(&w);
	j = jopen(&w, 3);
	k = jopen(&w, 12);
	cfs_journal_get_vote(j, &term, &voted);
	assert_int_equal(term | voted, 0);
	for (uint64_t t = 1; t < 20; t++) {
		assert_int_equal(cfs_journal_set_vote(j, t, t * 10), 0);
		assert_int_equal(cfs_journal_set_vote(k, t + 100, t), 0);
		cfs_journal_close(k);
		j = restart(&w, j, t & 1);
		k = jopen(&w, 12);
		cfs_journal_get_vote(j, &term, &voted);
		assert_int_equal(term, t);
		assert_int_equal(voted, t * 10);
		cfs_journal_get_vote(k, &term, &voted);
		assert_int_equal(term, t + 100);
	}
	cfs_journal_close(k);
	if (world_kind == ZONED) /* the last thing that restart() wrote */
		off = world_root_off(&w, 0);
	for (int copy = 0; copy < 2;
	     copy++) { /* either may rot: the other serves, and repairs it */
		cfs_crashdev_bytes(w.cd)[off + (uint64_t)copy * 4096 + 33] ^= 4;
		j = restart(&w, j, false);
		cfs_journal_get_vote(j, &term, &voted);
		assert_int_equal(term, 19);
		off += world_kind == ZONED ? 8192 : 0; /* the next start wrote another one */
	}
	for (uint32_t side = 0; side < (world_kind == ZONED ? 2 : 1); side++) {
		if (side) { /* one of two is enough */
			j = restart(&w, j, false);
			cfs_journal_get_vote(j, &term, &voted);
			assert_int_equal(term, 19);
		}
		/* opening has written both anew */
		for (uint32_t k2 = 0; k2 <= side; k2++) {
			off = world_kind == ZONED ? world_root_off(&w, k2) : off;
			at[k2] = off;
		}
		for (uint32_t k2 = 0; k2 <= side; k2++) {
			cfs_crashdev_bytes(w.cd)[at[k2] + 33] ^= 4;
			cfs_crashdev_bytes(w.cd)[at[k2] + 4096 + 33] ^= 4;
		}
	}
	cfs_journal_close(j);
	world_kill(&w);
	assert_int_equal(world_try_open(&w), -EUCLEAN); /* better no vote than two */
	assert_non_null(strstr(w.err, world_kind == ZONED ? "superblock" : "vote"));
	world_end(&w);
}

/* flips a byte of the k-th record; returns what opening says */
static int open_with_rot(struct world *w, uint64_t k, uint32_t skip, char *err, size_t errlen)
{
	struct cfs_journal *j = jopen(w, 3);
	uint32_t seg, block;
	int rc;

	if (k >= j->n_marks)
		k = j->n_marks - 1;
	seg = j->marks[k].seg;
	block = j->marks[k].block;
	cfs_journal_close(j);
	cfs_crashdev_bytes(w->cd)[cfs_seg_off(w->st, seg, block) + skip] ^= 1;
	rc = cfs_journal_open(w->st, 3, &j, err, errlen);
	if (!rc)
		cfs_journal_close(j);
	cfs_crashdev_bytes(w->cd)[cfs_seg_off(w->st, seg, block) + skip] ^= 1;
	if (rc) {
		char want[64];

		snprintf(want, sizeof(want), "segment %u, device offset %llu", seg,
			 (unsigned long long)cfs_seg_off(w->st, seg, block));
		assert_non_null(strstr(err, want));
	}
	return rc;
}

static void test_rot(void **state)
{
	struct cfs_journal *j;
	struct world w;
	char err[256];

	(void)state;
	world_format(&w, 32 * MB, MB, 0);
	world_open(&w);
	j = jopen(&w, 3);
	for (uint32_t i = 0; i < 60; i++)
		assert_int_equal(append(&w, j, 1 + i * 20, 20, 1), 0);
	assert_true(j->n_segs > 1);
	cfs_journal_close(
		j); /* leaves a mark: even the last record is known to have been durable */
	assert_int_equal(open_with_rot(&w, 0, 4, err, sizeof(err)), -EUCLEAN);
	assert_int_equal(open_with_rot(&w, 7, 100, err, sizeof(err)), -EUCLEAN);
	assert_int_equal(open_with_rot(&w, 30, 2000, err, sizeof(err)), -EUCLEAN);
	assert_int_equal(open_with_rot(&w, 59, 68, err, sizeof(err)), -EUCLEAN);
	assert_int_equal(open_with_rot(&w, 1000, 20, err, sizeof(err)),
			 0); /* the mark itself is nothing to lose */
	world_end(&w);
}

/* what a crash cut off does not come back behind what was written later in its place */
static void test_no_ghosts(void **state)
{
	struct loaded *l = malloc(sizeof(*l));
	uint64_t size;
	struct cfs_journal *j;
	struct app *x[6];
	struct world w;
	uint32_t seg, block;
	uint8_t *image;

	(void)state;
	world_format(&w, 32 * MB, MB, 0);
	size = world_bytes(&w);
	image = malloc(size);
	world_open(&w);
	j = jopen(&w, 3);
	assert_int_equal(append(&w, j, 1, 5, 1), 0);
	seg = j->segs[0].seg;
	block = j->head;
	for (uint32_t i = 0; i < 6;
	     i++) { /* in flight together: none is known to be durable by the others */
		x[i] = app_new(6 + i, 1, 1);
		cfs_journal_append(j, &x[i]->a);
	}
	world_idle(&w, 100);
	for (uint32_t i = 0; i < 6; i++)
		app_free(x[i]);
	/* power failed before the first of the six arrived: none of them was acknowledged */
	memcpy(image, cfs_crashdev_bytes(w.cd), size);
	memset(image + cfs_seg_off(w.st, seg, block), 0, 4096);
	cfs_journal_close(j);
	world_swap(&w, image, 0);
	world_open(&w);
	j = jopen(&w, 3);
	load(j, l);
	assert_int_equal(l->last, 5);
	assert_int_equal(append(&w, j, 6, 1, 2),
			 0); /* in the place of the lost one, of the same length or not */
	j = restart(&w, j, false);
	load(j, l);
	assert_int_equal(l->last, 6);
	assert_int_equal(l->terms[5], 2);
	cfs_journal_close(j);
	world_end(&w);
	free(image);
	free(l);
}

static void test_errors(void **state)
{
	struct cfs_journal *j;
	struct world w;

	(void)state;
	world_format(&w, 32 * MB, MB, 0);
	world_open(&w);
	j = jopen(&w, 3);
	assert_int_equal(append(&w, j, 1, 5, 1), 0);
	/* one failed write, and one behind it in the new segment: the journal moves on */
	for (uint32_t n = 1; n <= 2; n++) {
		cfs_crashdev_fail(w.cd, CFS_DEV_WRITE, n, -EIO);
		assert_int_equal(append(&w, j, 1 + n * 5, 5, 1), 0);
	}
	j = restart(&w, j, false);
	assert_int_equal(j->last_index, 15);
	assert_int_equal(append(&w, j, 16, 5, 1), 0);
	/* nothing can be written at all */
	cfs_crashdev_fail(w.cd, CFS_DEV_WRITE, 100, -EIO);
	assert_int_equal(append(&w, j, 21, 5, 1), -EIO);
	cfs_crashdev_fail(w.cd, CFS_DEV_WRITE, 0, -EIO);
	assert_int_equal(append(&w, j, 21, 5, 1),
			 -EIO); /* the stream has a hole: nothing may follow */
	j = restart(&w, j, false);
	assert_int_equal(j->last_index, 20);
	assert_int_equal(append(&w, j, 21, 5, 1), 0);
	cfs_journal_close(j);
	world_end(&w);
}

/* many under way when one of the first fails: all arrive, in order, and once; the copies that had arrived do not count */
static void test_move(void **state)
{
	struct loaded *l = malloc(sizeof(*l));
	struct cfs_journal *j;
	struct app *x[40];
	struct world w;
	uint64_t rnd = 5;

	(void)state;
	world_format(&w, 64 * MB, MB, 3);
	world_open(&w);
	j = jopen(&w, 3);
	assert_int_equal(append(&w, j, 1, 1, 1), 0);
	for (uint32_t round = 0; round < 12; round++) {
		uint64_t first = 2 + round * 80;

		order_next = 0;
		for (uint32_t i = 0; i < 40; i++) {
			x[i] = app_new(first + i * 2, 2, 1);
			cfs_journal_append(j, &x[i]->a);
		}
		world_idle(&w, cfs_hash_u64(rnd++) % 12);
		cfs_crashdev_fail(w.cd, CFS_DEV_WRITE, 1 + round % 2, -EIO);
		world_idle(&w, 2000);
		for (uint32_t i = 0; i < 40; i++) {
			assert_true(x[i]->done);
			assert_int_equal(x[i]->err, 0);
			assert_int_equal(x[i]->order, i);
			app_free(x[i]);
		}
		if (round % 3 == 2)
			j = restart(&w, j, round & 1);
		if (round % 3 == 2) {
			load(j, l);
			assert_int_equal(l->first, 1);
			assert_int_equal(l->last, first + 79);
		}
	}
	assert_int_equal(snapshot(&w, j, 900, 1, 0), 0);
	world_idle(&w, 200);
	assert_true(j->n_segs <= 2); /* what it left behind has been given back */
	cfs_journal_close(j);
	world_end(&w);
	free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_basic),	  cmocka_unit_test(test_large),
		cmocka_unit_test(test_pipeline),  cmocka_unit_test(test_truncate),
		cmocka_unit_test(test_snapshots), cmocka_unit_test(test_full_device),
		cmocka_unit_test(test_votes),	  cmocka_unit_test(test_rot),
		cmocka_unit_test(test_no_ghosts), cmocka_unit_test(test_errors),
		cmocka_unit_test(test_move),
	};
	int failed = 0;

	for (world_kind = PLAIN; world_kind <= ATOMIC; world_kind++)
		if (world_kind_wanted())
			failed += cmocka_run_group_tests(tests, NULL, NULL);
	return failed;
}
