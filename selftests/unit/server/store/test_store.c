/* SPDX-License-Identifier: MIT */
/*
 * Proves: objects come back as they were written, in whole and in part, also after a clean close
 * and after a kill; the same write again is fine and a different one is refused; deletions last;
 * waiting small writes share a device write; rot is found, named and never returned, and neither
 * moved nor hidden by cleaning; a device that is gone is neither full nor damaged; a full store says ENOSPC in time, can still delete, and takes
 * new objects after cleaning; free space is honest; a listing is complete; and the offline check
 * finds what is damaged and nothing else.
 */
#include "selftests/unit/server/store/world.h"

#define MB (1u << 20)

static const uint32_t sizes[] = {
	1, 4095, 4096, 4097, 65536, 65537, 200000, MB, 3 * MB + 17, 4 * MB
};

static void check_all(struct world *w)
{
	for (uint32_t i = 0; i < CFS_ARRAY_SIZE(sizes); i++)
		assert_int_equal(get_obj(w, i, sizes[i]), 0);
}

static void test_roundtrip(void **state)
{
	struct world w;

	(void)state;
	world_format(&w, 128 * MB, 8 * MB, 0);
	world_open(&w);
	for (uint32_t i = 0; i < CFS_ARRAY_SIZE(sizes); i++)
		assert_int_equal(put_obj(&w, i, sizes[i]), 0);
	check_all(&w);
	/* parts */
	assert_int_equal(get_range(&w, 8, sizes[8], 65536 * 3 + 5, 10), 0);
	assert_int_equal(get_range(&w, 8, sizes[8], 3 * MB, 100000), 0);
	assert_int_equal(get_range(&w, 8, sizes[8], MB - 1, 2), 0);
	assert_int_equal(get_range(&w, 9, sizes[9], 4 * MB - 1, 1), 0);
	assert_int_equal(get_range(&w, 0, 1, 1, 1), -EINVAL);
	assert_int_equal(get_range(&w, 0, 1, 0, 0), -EINVAL);
	assert_int_equal(get_obj(&w, 99, 10), -ENOENT);
	/* after a kill, and after a clean close */
	world_kill(&w);
	world_open(&w);
	check_all(&w);
	assert_int_equal(put_obj(&w, 50, 12345), 0);
	world_stop(&w);
	world_open(&w);
	check_all(&w);
	assert_int_equal(get_obj(&w, 50, 12345), 0);
	assert_int_equal(put_obj(&w, 51, 2 * MB), 0);
	world_kill(&w);
	world_open(&w);
	check_all(&w);
	assert_int_equal(get_obj(&w, 50, 12345), 0);
	assert_int_equal(get_obj(&w, 51, 2 * MB), 0);
	world_end(&w);
}

static void test_repeat(void **state)
{
	struct world w;
	struct obj *a, *b, *c;

	(void)state;
	world_format(&w, 64 * MB, 4 * MB, 0);
	world_open(&w);
	assert_int_equal(put_obj(&w, 1, 100000), 0);
	assert_int_equal(put_obj(&w, 1, 100000), 0);
	assert_int_equal(put_obj(&w, 1, 100001), -EEXIST);
	a = obj_new(1, 100000);
	fill(a->data, 100000, 77);
	for (uint32_t i = 0; i < 2; i++)
		a->crcs[i] = cfs_crc32c(0, a->data + i * CFS_CRC_BLOCK,
					i ? 100000 - CFS_CRC_BLOCK : CFS_CRC_BLOCK);
	cfs_store_write(w.st, &a->w);
	while (!a->done)
		assert_true(cfs_crashdev_turn(w.cd));
	assert_int_equal(a->err, -EEXIST);
	obj_free(a);
	/* while the first is under way */
	a = obj_new(2, 5000);
	b = obj_new(2, 5000);
	c = obj_new(2, 5001);
	cfs_store_write(w.st, &a->w);
	cfs_store_write(w.st, &b->w);
	cfs_store_write(w.st, &c->w);
	world_idle(&w, 1000);
	assert_true(a->done && b->done && c->done);
	assert_int_equal(a->err, 0);
	assert_int_equal(b->err, 0);
	assert_int_equal(c->err, -EEXIST);
	obj_free(a);
	obj_free(b);
	obj_free(c);
	/* what is wrong from the start */
	a = obj_new(3, 70000);
	a->crcs[1] ^= 1;
	cfs_store_write(w.st, &a->w);
	world_idle(&w, 1000);
	assert_int_equal(a->err, -EBADMSG);
	obj_free(a);
	assert_int_equal(get_obj(&w, 3, 70000), -ENOENT);
	assert_int_equal(put_obj(&w, 4, 3 * MB), -EFBIG); /* 4 MiB segments: half of that */
	/* an io error is told, and the next write goes elsewhere */
	cfs_crashdev_fail(w.cd, CFS_DEV_WRITE, 1, -EIO);
	assert_int_equal(put_obj(&w, 5, 1000), -EIO);
	assert_int_equal(get_obj(&w, 5, 1000), -ENOENT);
	assert_int_equal(put_obj(&w, 5, 1000), 0);
	assert_int_equal(get_obj(&w, 5, 1000), 0);
	assert_int_equal(get_obj(&w, 1, 100000), 0);
	world_end(&w);
}

static void test_gather(void **state)
{
	struct obj *o[200];
	struct world w;
	uint64_t before;

	(void)state;
	world_format(&w, 128 * MB, 8 * MB, 0);
	world_open(&w);
	assert_int_equal(put_obj(&w, 1000, 1), 0);
	before = cfs_crashdev_writes(w.cd);
	for (uint32_t i = 0; i < 200; i++) {
		o[i] = obj_new(i, 3000);
		cfs_store_write(w.st, &o[i]->w);
	}
	world_idle(&w, 10000);
	for (uint32_t i = 0; i < 200; i++) {
		assert_int_equal(o[i]->err, 0);
		assert_int_equal(get_obj(&w, i, 3000), 0);
		obj_free(o[i]);
	}
	assert_true(cfs_crashdev_writes(w.cd) - before <= 11);
	world_end(&w);
}

static void test_delete(void **state)
{
	uint64_t n[60];
	struct world w;

	(void)state;
	world_format(&w, 64 * MB, 4 * MB, 0);
	world_open(&w);
	for (uint32_t i = 0; i < 60; i++) {
		n[i] = i * 2;
		assert_int_equal(put_obj(&w, i, 10000 + i), 0);
	}
	assert_int_equal(del_objs(&w, n, 30), 0);
	assert_int_equal(del_objs(&w, n, 60), 0); /* absent ones are fine */
	assert_int_equal(del_objs(&w, n, 0), 0);
	for (int round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < 60; i++)
			assert_int_equal(get_obj(&w, i, 10000 + i), i & 1 ? 0 : -ENOENT);
		if (round == 0) {
			world_kill(&w);
			world_open(&w);
		} else if (round == 1) {
			world_stop(&w);
			world_open(&w);
		}
	}
	/* the name again, after deletion */
	assert_int_equal(put_obj(&w, 4, 777), 0);
	world_kill(&w);
	world_open(&w);
	assert_int_equal(get_obj(&w, 4, 777), 0);
	assert_int_equal(del_obj(&w, 4), 0);
	world_kill(&w);
	world_open(&w);
	assert_int_equal(get_obj(&w, 4, 777), -ENOENT);
	world_end(&w);
}

static void rot(struct world *w, uint64_t n, uint32_t skip)
{
	struct cfs_oid oid = oid_of(n);
	struct cfs_loc loc;

	assert_true(cfs_index_get(w->st->index, &oid, &loc));
	cfs_crashdev_bytes(w->cd)[cfs_seg_off(w->st, loc.seg, loc.block) + skip] ^= 0x10;
}

static void test_rot(void **state)
{
	struct cfs_store_stat s;
	struct world w;

	(void)state;
	world_format(&w, 64 * MB, 4 * MB, 0);
	world_open(&w);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(put_obj(&w, i, 300000), 0);
	rot(&w, 1, 4096 + 70000); /* second crc block */
	rot(&w, 2, 90); /* header */
	rot(&w, 3, 4096 + 299999);
	assert_int_equal(get_obj(&w, 1, 300000), -EBADMSG);
	assert_int_equal(get_range(&w, 1, 300000, 0, 65536), 0); /* the damage is elsewhere */
	assert_int_equal(get_range(&w, 1, 300000, 65536, 1), -EBADMSG);
	assert_int_equal(get_range(&w, 1, 300000, 131072, 65536), 0);
	assert_int_equal(get_obj(&w, 2, 300000), -EBADMSG);
	assert_int_equal(get_range(&w, 3, 300000, 262144, 1), -EBADMSG);
	cfs_store_stat(w.st, &s);
	assert_int_equal(s.checksum_errors, 4);
	assert_int_equal(get_obj(&w, 4, 300000), 0);
	/* acknowledged: a scan must not take it for a torn write */
	world_kill(&w);
	world_open(&w);
	assert_int_equal(get_obj(&w, 1, 300000), -EBADMSG);
	assert_int_equal(get_range(&w, 1, 300000, 0, 65536), 0);
	assert_int_equal(get_obj(&w, 3, 300000), -EBADMSG);
	assert_int_equal(get_obj(&w, 4, 300000), 0);
	/* repair: delete and write again */
	assert_int_equal(del_obj(&w, 1), 0);
	assert_int_equal(put_obj(&w, 1, 300000), 0);
	assert_int_equal(get_obj(&w, 1, 300000), 0);
	world_end(&w);
}

static void count_finding(void *arg, const struct cfs_store_finding *f);

static uint64_t check_errors(struct world *w)
{
	struct cfs_store_checked c;
	int found[2] = { 0 };
	char err[256];

	assert_int_equal(cfs_store_check(cfs_crashdev_dev(w->cd), count_finding, found, &c, err, sizeof(err)), 0);
	return c.errors;
}

static uint8_t *header_of(struct world *w, uint64_t n)
{
	struct cfs_oid oid = oid_of(n);
	struct cfs_loc loc;

	assert_true(cfs_index_get(w->st->index, &oid, &loc));
	return cfs_crashdev_bytes(w->cd) + cfs_seg_off(w->st, loc.seg, loc.block);
}

/*
 * Headers that rot before anything has listed their records: one or two bits are found, and the object is damaged by name; of
 * what is beyond that the place is named. What lies behind them stays. The last record, which no watermark covers: its
 * header is told from a torn one; its data is not, until somebody asks for it.
 */
static void test_rot_unsealed(void **state)
{
	struct cfs_store_stat s;
	struct world w;

	(void)state;
	for (int last = 0; last < 2; last++) {
		world_format(&w, 64 * MB, 4 * MB, 0);
		world_open(&w);
		for (uint32_t i = 0; i < 10; i++)
			assert_int_equal(put_obj(&w, i, 30000 + i), 0);
		header_of(&w, 2)[90] ^= 1;
		header_of(&w, 4)[6] ^= 8; /* the header's length, too */
		header_of(&w, 4)[100] ^= 2;
		memset(header_of(&w, 5), 0, 4096);
		memset(header_of(&w, 6) + 72, 0xa5, 16);
		header_of(&w, 9)[last ? 4096 + 5000 : 95] ^= 4;
		world_kill(&w);
		assert_int_equal(check_errors(&w), last ? 4 : 5);
		for (int again = 0; again < 2; again++) {
			world_open(&w);
			cfs_store_stat(w.st, &s);
			assert_int_equal(s.checksum_errors, again ? 0 : last ? 4 : 5);
			for (uint32_t i = 0; i < 9; i++)
				assert_int_equal(get_obj(&w, i, 30000 + i), i == 2 || i == 4 ? -EBADMSG :
									    i == 5 || i == 6 ? -ENOENT :
											       0);
			assert_int_equal(get_obj(&w, 9, 30009), last && again ? -ENOENT : -EBADMSG);
			if (!again)
				assert_int_equal(put_obj(&w, 20, 1000), 0);
			assert_int_equal(get_obj(&w, 20, 1000), 0);
			if (!again)
				world_kill(&w);
		}
		/* named, so that it can be written anew */
		if (last) {
			assert_int_equal(put_obj(&w, 9, 30009), 0);
			assert_int_equal(get_obj(&w, 9, 30009), 0);
		}
		world_end(&w);
	}
}

/* the footer of a sealed segment: its summary serves all the same, for objects whose headers rot as well */
static void test_rot_footer(void **state)
{
	struct cfs_store_stat s;
	struct world w;
	struct cfs_loc loc;
	struct cfs_oid oid = oid_of(1);

	(void)state;
	if (world_kind == ZONED)
		return;
	world_format(&w, 24 * MB, MB, 0);
	world_open(&w);
	for (uint32_t i = 0; i < 12; i++)
		assert_int_equal(put_obj(&w, i, 110000), 0);
	assert_true(cfs_index_get(w.st->index, &oid, &loc));
	assert_int_equal(w.st->segs[loc.seg].state, CFS_SS_SEALED);
	cfs_crashdev_bytes(w.cd)[cfs_seg_off(w.st, loc.seg, MB / 4096 - 1) + 13] ^= 2;
	world_kill(&w);
	assert_int_equal(check_errors(&w), 1);
	world_open(&w);
	memset(header_of(&w, 1), 0, 4096); /* now no footer tells, and no header */
	cfs_crashdev_bytes(w.cd)[cfs_seg_off(w.st, loc.seg, MB / 4096 - 1) + 13] ^= 2;
	world_kill(&w);
	world_open(&w);
	cfs_store_stat(w.st, &s);
	assert_int_equal(s.checksum_errors, 1);
	for (uint32_t i = 0; i < 12; i++)
		assert_int_equal(get_obj(&w, i, 110000), i == 1 ? -EBADMSG : 0);
	world_end(&w);
}

/* cleaning meets damage: it moves what is good, says what is not, and keeps that where it is */
static void test_rot_cleaning(void **state)
{
	struct cfs_oid oid = oid_of(2);
	struct cfs_store_stat s;
	struct cfs_loc loc, now;
	struct world w;
	uint64_t n = 10;

	(void)state;
	world_format(&w, 24 * MB, MB, 0);
	cfs_crashdev_forget(w.cd);
	world_open(&w);
	for (uint32_t i = 0; i < 10; i++) /* the first segment is full and sealed */
		assert_int_equal(put_obj(&w, i, 110000), 0);
	assert_true(cfs_index_get(w.st->index, &oid, &loc));
	rot(&w, 2, 4096 + 1000);
	for (uint32_t i = 3; i < 7; i++)
		assert_int_equal(del_obj(&w, i), 0);
	while (!put_obj(&w, n, 110000)) /* until space is so short that it must be cleaned */
		n++;
	world_idle(&w, 10000);
	assert_true(cfs_index_get(w.st->index, &oid, &now));
	assert_memory_equal(&now, &loc, sizeof(loc));
	cfs_store_stat(w.st, &s);
	assert_int_equal(s.checksum_errors, 1); /* told once */
	oid = oid_of(1);
	assert_true(cfs_index_get(w.st->index, &oid, &now));
	assert_true(now.seg != loc.seg);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(get_obj(&w, i, 110000), i == 2		 ? -EBADMSG :
							 i >= 3 && i < 7 ? -ENOENT :
									   0);
	assert_int_equal(w.st->segs[loc.seg].state, CFS_SS_SEALED);
	assert_int_equal(del_obj(&w, 2), 0);
	world_idle(&w, 10000);
	assert_int_equal(w.st->segs[loc.seg].state, CFS_SS_FREE);
	world_end(&w);
}

/* random life of a small store, compared with a model; kills and clean closes in between */
static void test_churn(void **state)
{
	enum { N = 60 };
	uint32_t len[N] = { 0 };
	struct cfs_store_stat s;
	struct world w;
	uint64_t rnd = 42, cleaned = 0;

	(void)state;
	world_format(&w, 17 * MB, 1 * MB, 9);
	world_open(&w);
	for (uint32_t step = 0; step < 4000; step++) {
		uint64_t n = cfs_hash_u64(rnd++) % N;
		uint32_t what = (uint32_t)(cfs_hash_u64(rnd++) % 100);

		if (what < 45) {
			uint32_t l = 1 + (uint32_t)(cfs_hash_u64(rnd++) % 150000);

			if (!len[n]) {
				int rc = put_obj(&w, n, l);

				assert_true(!rc || rc == -ENOSPC);
				len[n] = rc ? 0 : l;
			}
		} else if (what < 75) {
			assert_int_equal(del_obj(&w, n), 0);
			len[n] = 0;
		} else if (what < 97) {
			assert_int_equal(len[n] ? get_obj(&w, n, len[n]) : get_obj(&w, n, 1),
					 len[n] ? 0 : -ENOENT);
		} else {
			world_idle(&w, 200);
		}
		if (step % 250 == 249) {
			cfs_store_stat(w.st, &s);
			cleaned += s.cleaned_segments;
			if (step % 500 == 249)
				world_kill(&w);
			else
				world_stop(&w);
			world_open(&w);
			for (uint32_t i = 0; i < N; i++)
				assert_int_equal(get_obj(&w, i, len[i] ? len[i] : 1),
						 len[i] ? 0 : -ENOENT);
		}
	}
	cfs_store_stat(w.st, &s);
	assert_true(cleaned > 50); /* the point of it all */
	assert_int_equal(s.checksum_errors, 0);
	world_end(&w);
}

static void test_full(void **state)
{
	struct cfs_store_stat empty, s;
	uint64_t n = 0, promised, got = 0;
	struct world w;
	int rc;

	(void)state;
	world_format(&w, 256 * MB, 8 * MB, 0);
	cfs_crashdev_forget(w.cd);
	world_open(&w);
	cfs_store_stat(w.st, &empty);
	assert_true(empty.free_bytes <= empty.total_bytes && empty.total_bytes < 256 * MB);
	assert_true(empty.total_bytes > 128 * MB);
	promised = empty.free_bytes;
	while (!(rc = put_obj(&w, n, 500000)))
		got += 500000 + 4096, n++;
	assert_int_equal(rc, -ENOSPC);
	assert_true(got >= promised * 9 / 10); /* what was promised could be had, almost */
	cfs_store_stat(w.st, &s);
	assert_true(s.free_bytes < 9 * MB);
	assert_true(s.segments_free >= 4); /* the reserve is untouched */
	for (uint64_t i = 0; i < n; i += 50)
		assert_int_equal(get_obj(&w, i, 500000), 0);
	/* deleting works, every second one: no segment is empty, all must be copied together */
	for (uint64_t i = 0; i < n; i += 2)
		assert_int_equal(del_obj(&w, i), 0);
	cfs_store_stat(w.st, &s);
	assert_true(s.free_bytes > empty.free_bytes * 4 / 10);
	got = 0;
	for (uint64_t i = 0;; i++) {
		rc = put_obj(&w, 10000 + i, 500000);
		if (rc)
			break;
		got++;
	}
	assert_int_equal(rc, -ENOSPC);
	assert_true(got >= n * 4 / 10);
	for (uint64_t i = 0; i < n; i++)
		assert_int_equal(get_obj(&w, i, 500000), i & 1 ? 0 : -ENOENT);
	for (uint64_t i = 0; i < got; i++)
		assert_int_equal(get_obj(&w, 10000 + i, 500000), 0);
	world_stop(&w);
	world_open(&w);
	for (uint64_t i = 0; i < n; i += 7)
		assert_int_equal(get_obj(&w, i, 500000), i & 1 ? 0 : -ENOENT);
	/* everything goes, and everything comes back */
	for (uint64_t i = 0; i < n; i++)
		assert_int_equal(del_obj(&w, i), 0);
	for (uint64_t i = 0; i < got; i++)
		assert_int_equal(del_obj(&w, 10000 + i), 0);
	world_idle(&w, 100000);
	cfs_store_stat(w.st, &s);
	assert_int_equal(s.objects, 0);
	assert_int_equal(s.live_bytes, 0);
	assert_true(s.free_bytes + 24 * MB >= empty.free_bytes);
	world_end(&w);
}

static void test_list(void **state)
{
	struct cfs_oid oids[7];
	uint32_t lens[7], seen[100] = { 0 };
	uint64_t cursor = 0;
	struct world w;
	int n;

	(void)state;
	world_format(&w, 64 * MB, 4 * MB, 0);
	world_open(&w);
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(put_obj(&w, i, i + 1), 0);
	while ((n = cfs_store_list(w.st, &cursor, oids, lens, 7)) > 0)
		for (int i = 0; i < n; i++) {
			uint64_t k = cfs_le64_to_cpu(oids[i].seq);

			assert_true(k < 100 && lens[i] == k + 1);
			seen[k]++;
		}
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(seen[i], 1);
	world_end(&w);
}

static void count_finding(void *arg, const struct cfs_store_finding *f)
{
	uint32_t *n = arg;

	n[f->error]++;
	assert_true(f->text[0]);
}

/* where the older of two superblocks is (`old`), or the newer; with zones the copy of the newest, or itself */
static uint8_t *super_at(struct world *w, bool old)
{
	uint8_t *b = cfs_crashdev_bytes(w->cd);
	const struct cfs_disk_super *s0 = (void *)(b + CFS_DISK_SB_OFF0);
	const struct cfs_disk_super *s1 = (void *)(b + CFS_DISK_SB_OFF1);
	bool first_newer = cfs_le64_to_cpu(s0->seq) > cfs_le64_to_cpu(s1->seq);

	if (world_kind != ZONED)
		return b + (first_newer == old ? CFS_DISK_SB_OFF1 : CFS_DISK_SB_OFF0);
	return b + world_root_off(w, 0) + (old ? 4096 : 0);
}

static void test_check(void **state)
{
	uint32_t found[2] = { 0 };
	struct cfs_store_checked c;
	struct world w;
	char err[256];

	(void)state;
	world_format(&w, 64 * MB, 4 * MB, 0);
	world_open(&w);
	for (uint32_t i = 0; i < 40; i++)
		assert_int_equal(put_obj(&w, i, 300000), 0);
	assert_int_equal(del_obj(&w, 3), 0);
	world_kill(&w);
	assert_int_equal(cfs_store_check(cfs_crashdev_dev(w.cd), count_finding, found, &c, err,
					 sizeof(err)),
			 0);
	assert_int_equal(c.errors, 0);
	assert_int_equal(found[1], 0);
	assert_int_equal(c.objects, 40);
	world_open(&w);
	rot(&w, 5, 4096 + 100);
	rot(&w, 20, 4096 + 200000);
	world_stop(&w);
	assert_int_equal(cfs_store_check(cfs_crashdev_dev(w.cd), count_finding, found, &c, err,
					 sizeof(err)),
			 0);
	assert_int_equal(c.errors, 2);
	assert_int_equal(c.bad_objects, 2);
	assert_int_equal(found[1], 2);
	super_at(&w, true)[100] ^= 1;
	assert_int_equal(cfs_store_check(cfs_crashdev_dev(w.cd), count_finding, found, &c, err,
					 sizeof(err)),
			 0);
	assert_int_equal(c.errors, 3);
	world_end(&w);
}

static void test_open_errors(void **state)
{
	uint8_t *newer, *older;
	struct cfs_disk_super sb;
	struct cfs_root root;
	struct world w;

	(void)state;
	memset(&w, 0, sizeof(w));
	w.cd = world_kind == ZONED ? world_zoned(32 * MB, MB, 0) :
				     cfs_crashdev_create(32 * MB, NULL, 0);
	assert_int_equal(world_try_open(&w), -EMEDIUMTYPE);
	assert_true(strlen(w.err) > 10);
	cfs_crashdev_destroy(w.cd);

	world_format(&w, 32 * MB, MB, 0);
	super_at(&w, true)[100] ^= 1; /* one copy: goes on */
	world_open(&w);
	world_kill(&w);
	super_at(&w, true)[100] ^= 1;
	world_open(&w); /* opening had written the other one anew */
	world_kill(&w);
	newer = super_at(&w, false);
	older = super_at(&w, true);
	if (world_kind == ZONED) { /* both sides of the log, one after the other */
		uint64_t other = world_root_off(&w, 1);

		newer[64] ^= 0xff;
		older[64] ^= 0xff;
		assert_int_equal(cfs_root_load(&root, cfs_crashdev_dev(w.cd), &sb, w.err, sizeof(w.err)), 0);
		newer = cfs_crashdev_bytes(w.cd) + other;
		older = newer + 4096;
	}
	newer[64] ^= 0xff;
	older[64] ^= 0xff;
	assert_int_equal(world_try_open(&w), -EUCLEAN);
	assert_non_null(strstr(w.err, "superblock"));
	world_end(&w);
}

/* versions: the one before can be read, and becomes ours; one that is not known is named */
static bool coming(void *arg)
{
	return *(bool *)arg;
}

static uint64_t put_seconds(struct world *w, uint64_t n, int err)
{
	struct cfs_clock *clock = cfs_crashdev_clock(w->cd);
	uint64_t begin = cfs_clock_boot_ns(clock);

	assert_int_equal(put_obj(w, n, 110000), err);
	return (cfs_clock_boot_ns(clock) - begin) / CFS_NSEC_PER_SEC;
}

/* a full store of which something is about to be deleted: a write waits for that, for ten seconds and no more, and not at all without hope */
static void test_room_coming(void **state)
{
	struct world w;
	bool hope = false;
	struct cfs_store_params p = { .room_coming = coming, .arg = &hope };
	uint64_t n = 0, gone[10];
	struct obj *o;

	(void)state;
	world_format(&w, 24 * MB, MB, 0);
	cfs_crashdev_forget(w.cd);
	p.dev = cfs_crashdev_dev(w.cd);
	p.clock = cfs_crashdev_clock(w.cd);
	assert_int_equal(cfs_store_open(&p, &w.st, w.err, sizeof(w.err)), 0);
	while (!put_obj(&w, n, 110000))
		n++;
	assert_int_equal(put_seconds(&w, n, -ENOSPC), 0);
	hope = true;
	o = obj_new(n, 110000);
	cfs_store_write(w.st, &o->w);
	for (int i = 0; i < 30; i++)
		assert_true(cfs_crashdev_turn(w.cd));
	assert_false(o->done);
	for (uint32_t i = 0; i < 10; i++)
		gone[i] = i;
	assert_int_equal(del_objs(&w, gone, 10), 0);
	while (!o->done)
		assert_true(cfs_crashdev_turn(w.cd));
	assert_int_equal(o->err, 0);
	obj_free(o);
	hope = false;
	for (n++; !put_obj(&w, n, 110000); n++)
		;
	hope = true;
	assert_int_equal(put_seconds(&w, n, -ENOSPC), 10);
	assert_int_equal(put_seconds(&w, n, -ENOSPC), 0);
	world_end(&w);
}

/* a drive that was pulled: not full, not damaged, and not tried segment by segment; back again, with all it had */
static void test_gone(void **state)
{
	struct cfs_store_stat s;
	struct world w;
	uint64_t before;

	(void)state;
	world_format(&w, 64 * MB, 4 * MB, 0);
	world_open(&w);
	for (uint64_t i = 0; i < 30; i++)
		assert_int_equal(put_obj(&w, i, 100000), 0);
	for (uint64_t i = 0; i < 20; i++)
		assert_int_equal(del_obj(&w, i), 0);
	cfs_crashdev_dev(w.cd)->stat.gone = true;
	for (unsigned op = CFS_DEV_READ; op < CFS_DEV_OPS; op++)
		cfs_crashdev_fail(w.cd, op, UINT32_MAX, -ENODEV);
	before = cfs_crashdev_writes(w.cd);
	for (uint64_t i = 100; i < 110; i++)
		assert_int_equal(put_obj(&w, i, 100000), -ENODEV);
	assert_int_equal(get_obj(&w, 25, 100000), -ENODEV);
	assert_int_equal(del_obj(&w, 25), -ENODEV);
	world_idle(&w, 10000);
	cfs_store_stat(w.st, &s);
	assert_int_equal(s.checksum_errors, 0);
	assert_true(cfs_crashdev_writes(w.cd) - before <= 6);
	world_kill(&w);
	world_open(&w);
	for (uint64_t i = 20; i < 30; i++)
		assert_int_equal(get_obj(&w, i, 100000), 0);
	assert_int_equal(get_obj(&w, 0, 100000), -ENOENT);
	assert_int_equal(put_obj(&w, 100, 100000), 0);
	world_end(&w);
}

static void test_versions(void **state)
{
	struct world w;

	(void)state;
	world_format(&w, 32 * MB, MB, 0);
	world_open(&w);
	assert_int_equal(put_obj(&w, 1, 5000), 0);
	world_stop(&w);
	for (uint32_t v = 1; v <= CFS_DISK_VERSION + 1; v++) {
		uint8_t *at[4] = { super_at(&w, false), super_at(&w, true) };

		at[2] = world_kind == ZONED ? cfs_crashdev_bytes(w.cd) + world_root_off(&w, 1) : NULL;
		at[3] = world_kind == ZONED ? at[2] + 4096 : NULL;
		for (int i = 0; i < 4 && at[i]; i++) {
			struct cfs_disk_super *sb = (void *)at[i];

			sb->version = cfs_cpu_to_le32(v);
			cfs_disk_crc_set(sb, sizeof(*sb));
		}
		if (v > CFS_DISK_VERSION)
			break;
		world_open(&w);
		assert_int_equal(cfs_le32_to_cpu(w.st->sb.version), CFS_DISK_VERSION);
		assert_int_equal(get_obj(&w, 1, 5000), 0);
		world_stop(&w);
	}
	assert_int_equal(world_try_open(&w), -EPROTONOSUPPORT);
	assert_non_null(strstr(w.err, "version 4"));
	world_end(&w);
}

/*
 * both headers of a segment gone: its objects are missed, the others are there, nothing is
 * written into it
 */
static void test_bad_segment(void **state)
{
	struct cfs_oid oid = oid_of(0);
	struct cfs_store_stat s;
	struct cfs_loc loc;
	struct world w;

	(void)state;
	world_format(&w, 64 * MB, MB, 0);
	world_open(&w);
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(put_obj(&w, i, 400000), 0);
	assert_true(cfs_index_get(w.st->index, &oid, &loc));
	cfs_crashdev_bytes(w.cd)[cfs_seg_off(w.st, loc.seg, 0) + 20] ^= 1;
	world_stop(&w);
	world_open(&w); /* the copy serves */
	assert_int_equal(get_obj(&w, 0, 400000), 0);
	cfs_crashdev_bytes(w.cd)[cfs_seg_off(w.st, loc.seg, 1) + 20] ^= 1;
	world_stop(&w);
	world_open(&w);
	assert_int_equal(get_obj(&w, 0, 400000), -ENOENT);
	assert_int_equal(get_obj(&w, 9, 400000), 0);
	cfs_store_stat(w.st, &s);
	assert_true(s.checksum_errors >= 1);
	world_end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_roundtrip),   cmocka_unit_test(test_repeat),
		cmocka_unit_test(test_gather),	    cmocka_unit_test(test_delete),
		cmocka_unit_test(test_rot),	    cmocka_unit_test(test_rot_cleaning),
		cmocka_unit_test(test_room_coming), cmocka_unit_test(test_rot_unsealed), cmocka_unit_test(test_rot_footer),
		cmocka_unit_test(test_churn),	    cmocka_unit_test(test_full),
		cmocka_unit_test(test_list),	    cmocka_unit_test(test_check),
		cmocka_unit_test(test_open_errors), cmocka_unit_test(test_bad_segment),
		cmocka_unit_test(test_versions),    cmocka_unit_test(test_gone),
	};

	int failed = 0;

	for (world_kind = PLAIN; world_kind <= ATOMIC; world_kind++)
		if (world_kind_wanted())
			failed += cmocka_run_group_tests(tests, NULL, NULL);
	return failed;
}
