/* SPDX-License-Identifier: MIT */
/*
 * Proves: what a store writes is, byte for byte, what the golden vectors in
 * selftests/golden/disk_v3.txt say: a format change that forgets to bump the version fails here.
 * And: every check of codec.h refuses every single-bit damage of what it covers, and the crc of a record's header finds it.
 *
 * DISK_GOLDEN_WRITE=1 writes the vectors anew (after a deliberate change of the format).
 */
#include "selftests/unit/server/store/world.h"

#include <limits.h>

#define MB (1u << 20)
#define VECTORS "selftests/golden/disk_v3.txt"

static FILE *vectors(const char *mode)
{
	const char *top = getenv("T_TOP");	/* the runner says where; by hand, start it at the top of the tree */
	char path[PATH_MAX];
	FILE *f;

	snprintf(path, sizeof(path), "%s/" VECTORS, top ? top : ".");
	f = fopen(path, mode);
	if (!f)
		fail_msg("%s: %s", path, strerror(errno));
	return f;
}

static FILE *out;

/* name and length; then lines of offset and 32 bytes, those of zeros left out */
static void vector(const char *name, const void *p, uint32_t len)
{
	char line[160], want[160], title[100];
	const uint8_t *b = p;
	FILE *f = out;

	snprintf(title, sizeof(title), "[%s, %u bytes]\n", name, len);
	if (!out) {
		f = vectors("r");
		while (fgets(line, sizeof(line), f) && strcmp(line, title))
			;
		if (feof(f))
			fail_msg("no vector %s", title);
	} else {
		fprintf(f, "\n%s", title);
	}
	for (uint32_t at = 0; at < len; at += 32) {
		int n;

		if (cfs_bytes_zero(b + at, 32))
			continue;
		n = sprintf(want, "%04x ", at);
		for (uint32_t i = 0; i < 32; i++)
			n += sprintf(want + n, "%02x", b[at + i]);
		strcpy(want + n, "\n");
		if (out) {
			fputs(want, f);
		} else if (!fgets(line, sizeof(line), f) || strcmp(line, want)) {
			fail_msg("%s differs at byte %u:\n golden %s now    %s", name, at, line,
				 want);
		}
	}
	if (!out) {
		assert_true(!fgets(line, sizeof(line), f) || line[0] == '\n');
		fclose(f);
	}
}

static struct cfs_journal_append app;
static struct cfs_journal_snapshot snap;
static int pending;

static void app_done(struct cfs_journal_append *a, int err)
{
	(void)a;
	assert_int_equal(err, 0);
	pending--;
}

static void snap_done(struct cfs_journal_snapshot *s, int err)
{
	(void)s;
	assert_int_equal(err, 0);
	pending--;
}

/* everything a store writes in a short, fixed life */
static void test_golden(void **state)
{
	static const struct cfs_journal_entry e[2] = {
		{ .index = 1, .term = 7, .kind = 2, .len = 5, .data = "hello" },
		{ .index = 2, .term = 7, .kind = 1, .len = 0, .data = NULL },
	};
	struct cfs_journal *j;
	struct cfs_loc loc;
	struct cfs_oid oid = oid_of(1);
	const uint8_t *dev;
	struct world w;
	uint32_t jseg;

	(void)state;
	if (getenv("DISK_GOLDEN_WRITE")) {
		out = vectors("w");
		fputs("# The on-disk format, version 3 (include/claudefs/disk.h): name, length, then offset and bytes of\n"
		      "# each line of 32 that is not all zeros. Written by test_disk with DISK_GOLDEN_WRITE=1.\n",
		      out);
	}
	world_format(&w, 16 * MB, MB, 0);
	dev = cfs_crashdev_bytes(w.cd);
	vector("superblock after format, slot 0", dev + CFS_DISK_SB_OFF0, 4096);
	vector("superblock after format, slot 1", dev + CFS_DISK_SB_OFF1, 4096);
	vector("header of a pool segment", dev + CFS_DISK_SEG_OFF, 4096);
	world_open(&w);
	vector("superblock of an open target", dev + CFS_DISK_SB_OFF1, 4096);
	assert_int_equal(cfs_journal_open(w.st, 3, &j, w.err, sizeof(w.err)), 0);
	assert_int_equal(cfs_journal_set_vote(j, 9, 1234567890123), 0);
	vector("vote", dev + CFS_DISK_VOTE_OFF, 4096);
	assert_memory_equal(dev + CFS_DISK_VOTE_OFF, dev + CFS_DISK_VOTE_OFF + 4096, 4096);

	app = (struct cfs_journal_append){ .entries = e, .n = 2, .done = app_done };
	pending = 1;
	cfs_journal_append(j, &app);
	while (pending)
		assert_true(cfs_crashdev_turn(w.cd));
	assert_int_equal(cfs_journal_truncate(j, 2), 0);
	app = (struct cfs_journal_append){ .entries = e + 1, .n = 1, .done = app_done };
	pending = 1;
	cfs_journal_append(j, &app);
	snap = (struct cfs_journal_snapshot){ .index = 2,
					      .term = 7,
					      .manifest = "manifest",
					      .manifest_len = 8,
					      .trailing = 1,
					      .done = snap_done };
	pending++;
	cfs_journal_snapshot(j, &snap);
	while (pending)
		assert_true(cfs_crashdev_turn(w.cd));
	jseg = 0;
	vector("header of a journal segment", dev + cfs_seg_off(w.st, jseg, 0), 4096);
	assert_memory_equal(dev + cfs_seg_off(w.st, jseg, 0), dev + cfs_seg_off(w.st, jseg, 1),
			    4096);
	vector("journal record of two entries", dev + cfs_seg_off(w.st, jseg, 2), 4096);
	vector("journal record with a truncation", dev + cfs_seg_off(w.st, jseg, 3), 4096);
	vector("snapshot record", dev + cfs_seg_off(w.st, jseg, 4), 4096);
	app = (struct cfs_journal_append){ .entries = e, .n = 2, .done = app_done };
	pending = 1;
	cfs_journal_again(j, &app);
	while (pending)
		assert_true(cfs_crashdev_turn(w.cd));
	vector("journal record of two entries once more", dev + cfs_seg_off(w.st, jseg, 5), 4096);
	cfs_journal_close(j);
	vector("mark record", dev + cfs_seg_off(w.st, jseg, 6), 4096);

	assert_int_equal(put_obj(&w, 1, 70000), 0);
	assert_int_equal(put_obj(&w, 2, 10), 0);
	assert_true(cfs_index_get(w.st->index, &oid, &loc));
	vector("header of a data segment", dev + cfs_seg_off(w.st, loc.seg, 0), 4096);
	vector("header of an object record", dev + cfs_seg_off(w.st, loc.seg, loc.block), 4096);
	assert_int_equal(del_obj(&w, 2), 0);
	vector("tombstone record", dev + cfs_seg_off(w.st, loc.seg, loc.block + 1 + 18 + 2), 4096);
	world_idle(&w, 10);
	world_stop(&w);
	assert_non_null(dev);
	vector("summary record",
	       dev + CFS_DISK_SEG_OFF + (uint64_t)loc.seg * MB + (loc.block + 22) * 4096u, 4096);
	vector("footer", dev + CFS_DISK_SEG_OFF + (uint64_t)loc.seg * MB + MB - 4096, 4096);
	vector("superblock after a clean close", dev + CFS_DISK_SB_OFF0, 4096);
	world_end(&w);
	world_kind = ZONED;
	world_format(&w, 32 * MB, MB, 0);
	dev = cfs_crashdev_bytes(w.cd);
	vector("superblock of a zoned target after format, zone 0", dev, 4096);
	vector("the same, zone 2", dev + 2 * cfs_crashdev_dev(w.cd)->info.zone_bytes, 4096);
	world_end(&w);
	world_kind = PLAIN;
	if (out)
		fclose(out);
	out = NULL;
}

/* one or two flipped bits of a header are found and named; more, or somebody else's header, are not mended into anything */
static void check_mend(uint8_t *p, const struct cfs_seg_id *id, uint32_t block)
{
	const uint32_t bits = CFS_DISK_OBJ_HDR(2) * 8;
	struct cfs_seg_id other = *id;
	uint8_t good[4096], bad[4096];

	memcpy(good, p, sizeof(good));
	for (uint32_t i = 0; i < bits; i++) {
		uint32_t k = i * 7 % 31 ? (i * 613 + 17) % bits : i; /* some alone, others in company */

		p[i / 8] ^= 1u << i % 8;
		if (k != i)
			p[k / 8] ^= 1u << k % 8;
		memcpy(bad, p, sizeof(bad));
		assert_true(cfs_rec_like(p, id, block));
		assert_true(cfs_rec_mend(p, id, block));
		assert_memory_equal(p, good, sizeof(good));
	}
	other.salt = ~id->salt;
	assert_false(cfs_rec_like(p, &other, block));
	assert_false(cfs_rec_like(p, id, block ^ 0xfff));
	memset(p + 80, 0x5a, 8);
	memcpy(bad, p, sizeof(bad));
	assert_true(cfs_rec_like(p, id, block));
	assert_false(cfs_rec_mend(p, id, block));
	assert_memory_equal(p, bad, sizeof(bad));
	memcpy(p, good, sizeof(good));
}

static void test_damage(void **state)
{
	struct cfs_oid oid = oid_of(1);
	struct cfs_seg_id id;
	struct cfs_disk_seg hdr;
	struct cfs_loc loc;
	struct world w;
	uint8_t *dev, *p;

	(void)state;
	world_format(&w, 16 * MB, MB, 0);
	world_open(&w);
	assert_int_equal(put_obj(&w, 1, 70000), 0);
	assert_true(cfs_index_get(w.st->index, &oid, &loc));
	id = cfs_seg_ident(w.st, loc.seg);
	dev = cfs_crashdev_bytes(w.cd);

	p = dev + cfs_seg_off(w.st, loc.seg, loc.block);
	assert_true(cfs_rec_check(p, &id, loc.block));
	for (uint32_t bit = 0; bit < CFS_DISK_OBJ_HDR(2) * 8; bit++) {
		p[bit / 8] ^= 1u << bit % 8;
		assert_false(cfs_rec_check(p, &id, loc.block));
		p[bit / 8] ^= 1u << bit % 8;
	}
	assert_false(cfs_rec_check(p, &id, loc.block + 1));
	check_mend(p, &id, loc.block);
	p = dev + cfs_seg_off(w.st, loc.seg, 0);
	for (uint32_t bit = 0; bit < sizeof(hdr) * 8; bit++) {
		p[bit / 8] ^= 1u << bit % 8;
		assert_false(cfs_seg_hdr_check(p, w.st->format_id, loc.seg, &hdr));
		p[bit / 8] ^= 1u << bit % 8;
	}
	p = dev + CFS_DISK_SB_OFF0;
	for (uint32_t bit = 0; bit < sizeof(struct cfs_disk_super) * 8; bit += 5) {
		p[bit / 8] ^= 1u << bit % 8;
		assert_int_not_equal(cfs_super_check((void *)p), 0);
		p[bit / 8] ^= 1u << bit % 8;
	}
	assert_int_equal(cfs_super_check((void *)p), 0);
	world_end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_golden),
					    cmocka_unit_test(test_damage) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
