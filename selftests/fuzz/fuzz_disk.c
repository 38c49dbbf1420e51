/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes what a store reads from its device: cfs_store_open(), cfs_journal_open() and _load(),
 * cfs_store_check(). It must neither crash, nor leak, nor run for long, whatever the bytes are.
 *
 * Input: the first byte says what the image is made of. 0: the rest, as the beginning of an
 * otherwise empty device. Else: a real target of a short life, changed by patches (which of the
 * blocks that hold structures, 2 bytes of offset in it, a length below 32, that many bytes). Bit
 * 1 of the first byte: checksums are made good again after that, so that what lies behind them
 * is reached.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "selftests/lib/crashdev.h"
#include "server/store/store_i.h"

#define SIZE ((uint32_t)CFS_DISK_SEG_OFF + 8u * CFS_DISK_SEG_MIN)
#define PAGES (SIZE / BLK)

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- a device of copied pages over a fixed image ---------------------------------------- */

static uint8_t *base; /* the real target */
static uint32_t known[256], n_known; /* its blocks that begin with something of ours */
static uint8_t zeros[BLK];

struct pages {
	struct cfs_dev dev;
	bool empty; /* zeros below, not base */
	uint8_t *page[PAGES];
};

static const uint8_t *page_read(const struct pages *p, uint32_t i)
{
	return p->page[i] ? p->page[i] : p->empty ? zeros : base + (size_t)i * BLK;
}

static uint8_t *page_write(struct pages *p, uint32_t i)
{
	if (!p->page[i]) {
		uint8_t *new = malloc(BLK);

		CFS_ASSERT(new);
		memcpy(new, page_read(p, i), BLK);
		p->page[i] = new;
	}
	return p->page[i];
}

static int pages_submit(struct cfs_dev *dev, struct cfs_dev_req *req)
{
	(void)dev;
	(void)req;
	return 0; /* never completes: the store is closed as if killed */
}

static int pages_write(struct cfs_dev *dev, uint64_t offset, const void *buf, uint32_t len)
{
	struct pages *p = cfs_container_of(dev, struct pages, dev);

	CFS_ASSERT(offset % BLK == 0 && len % BLK == 0 && offset + len <= SIZE);
	for (uint32_t i = 0; i < len / BLK; i++)
		memcpy(page_write(p, (uint32_t)(offset / BLK) + i),
		       (const uint8_t *)buf + (size_t)i * BLK, BLK);
	return 0;
}

static int pages_read(struct cfs_dev *dev, uint64_t offset, void *buf, uint32_t len)
{
	struct pages *p = cfs_container_of(dev, struct pages, dev);

	CFS_ASSERT(offset % BLK == 0 && len % BLK == 0 && offset + len <= SIZE);
	for (uint32_t i = 0; i < len / BLK; i++)
		memcpy((uint8_t *)buf + (size_t)i * BLK, page_read(p, (uint32_t)(offset / BLK) + i),
		       BLK);
	return 0;
}

static const struct cfs_dev_ops pages_ops = {
	.name = "pages",
	.version = CFS_DEV_OPS_VERSION,
	.submit = pages_submit,
	.write_sync = pages_write,
	.read_sync = pages_read,
};

/* ---- the real target -------------------------------------------------------------------- */

static int left;

static void written(struct cfs_store_write *w, int err)
{
	(void)w;
	CFS_ASSERT(!err);
	left--;
}

static void deleted(struct cfs_store_delete *d, int err)
{
	(void)d;
	CFS_ASSERT(!err);
	left--;
}

static void appended(struct cfs_journal_append *a, int err)
{
	(void)a;
	CFS_ASSERT(!err);
	left--;
}

static void snapped(struct cfs_journal_snapshot *s, int err)
{
	(void)s;
	CFS_ASSERT(!err);
	left--;
}

static void wait_all(struct cfs_crashdev *cd)
{
	while (left)
		CFS_ASSERT(cfs_crashdev_turn(cd));
}

static void stopped(void *arg)
{
	*(bool *)arg = true;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const struct cfs_format_params fp = { .target_id = 1, .segment_bytes = CFS_DISK_SEG_MIN };
	struct cfs_crashdev *cd = cfs_crashdev_create(SIZE, NULL, 0);
	struct cfs_store_params sp = { .dev = cfs_crashdev_dev(cd),
				       .clock = cfs_crashdev_clock(cd) };
	uint8_t *data = cfs_aligned_alloc(300000);
	struct cfs_store *st;
	struct cfs_journal *j;
	bool done = false;
	char err[200];

	(void)argc;
	(void)argv;
	cfs_log_set_level((enum cfs_log_level)0);
	CFS_ASSERT(data && !cfs_store_format(cfs_crashdev_dev(cd), &fp, err, sizeof(err)));
	CFS_ASSERT(!cfs_store_open(&sp, &st, err, sizeof(err)));
	CFS_ASSERT(!cfs_journal_open(st, 3, &j, err, sizeof(err)));
	CFS_ASSERT(!cfs_journal_set_vote(j, 1, 2));
	for (uint32_t i = 0; i < 9; i++) { /* the first segment is sealed, the second stays open */
		uint32_t len = 1000 + 30000 * i, crcs[8];
		struct cfs_store_write w = { .oid = { 1, i },
					     .data = data,
					     .len = len,
					     .n_crcs = cfs_crcs_of(len),
					     .crcs = crcs,
					     .done = written };

		for (uint32_t k = 0; k < w.n_crcs; k++)
			crcs[k] = cfs_crc32c(0, data + k * CFS_CRC_BLOCK,
					     cfs_min(len - k * CFS_CRC_BLOCK, CFS_CRC_BLOCK));
		left = 1;
		cfs_store_write(st, &w);
		wait_all(cd);
	}
	for (uint64_t i = 0; i < 3; i++) {
		struct cfs_oid oid = { 1, i * 3 };
		struct cfs_store_delete d = { .oids = &oid, .n = 1, .done = deleted };
		struct cfs_journal_entry e = { .index = i + 1, .term = 1, .len = 20, .data = data };
		struct cfs_journal_append a = { .entries = &e, .n = 1, .done = appended };

		left = 2;
		cfs_store_delete(st, &d);
		cfs_journal_append(j, &a);
		wait_all(cd);
		if (i == 1) {
			struct cfs_journal_snapshot s = { .index = 1,
							  .term = 1,
							  .manifest = data,
							  .manifest_len = 50,
							  .done = snapped };

			left = 1;
			cfs_journal_snapshot(j, &s);
			wait_all(cd);
			CFS_ASSERT(!cfs_journal_truncate(j, 2));
			e.index = 2;
			left = 1;
			cfs_journal_append(j, &a);
			wait_all(cd);
		}
	}
	cfs_journal_close(j);
	cfs_store_stop(st, stopped, &done);
	while (!done)
		CFS_ASSERT(cfs_crashdev_turn(cd));
	cfs_store_close(st, true);
	base = malloc(SIZE);
	CFS_ASSERT(base);
	memcpy(base, cfs_crashdev_bytes(cd), SIZE);
	for (uint32_t i = 0; i < PAGES && n_known < CFS_ARRAY_SIZE(known); i++) {
		uint32_t magic;

		memcpy(&magic, base + (size_t)i * BLK, sizeof(magic));
		magic = cfs_le32_to_cpu(magic);
		if (magic == (uint32_t)CFS_SUPER_MAGIC || magic == CFS_VOTE_MAGIC ||
		    magic == CFS_SEG_MAGIC || magic == CFS_REC_MAGIC || magic == CFS_FOOT_MAGIC)
			known[n_known++] = i;
	}
	CFS_ASSERT(n_known > 30);
	cfs_crashdev_destroy(cd);
	free(data);
	return 0;
}

/* ---- one input -------------------------------------------------------------------------- */

/* whatever the block claims to be, its checksums are right afterwards */
static void make_good(struct pages *p, uint32_t i)
{
	uint8_t *b = page_write(p, i);
	struct cfs_disk_rec *rec = (void *)b;
	uint32_t body = cfs_le32_to_cpu(rec->body_len), hdr = cfs_le16_to_cpu(rec->hdr_len);

	if (i == 0 || i == CFS_DISK_SB_OFF1 / BLK)
		cfs_disk_crc_set(b, sizeof(struct cfs_disk_super));
	else if (cfs_le32_to_cpu(rec->magic) == CFS_VOTE_MAGIC)
		cfs_disk_crc_set(b, sizeof(struct cfs_disk_vote));
	else if (cfs_le32_to_cpu(rec->magic) == CFS_SEG_MAGIC)
		cfs_disk_crc_set(b, sizeof(struct cfs_disk_seg));
	else if (cfs_le32_to_cpu(rec->magic) == CFS_FOOT_MAGIC)
		cfs_disk_crc_set(b, sizeof(struct cfs_disk_foot));
	else if (cfs_le32_to_cpu(rec->magic) == CFS_REC_MAGIC && hdr >= sizeof(*rec) &&
		 hdr <= BLK) {
		if (rec->type != CFS_REC_OBJECT && body <= BLK - hdr)
			rec->body_crc = cfs_cpu_to_le32(cfs_crc32c(0, b + hdr, body));
		cfs_rec_seal(rec);
	}
}

static int take(void *arg, const struct cfs_journal_entry *e)
{
	uint64_t *sum = arg;

	*sum += e->len ? ((const uint8_t *)e->data)[e->len - 1] : e->index;
	return 0;
}

static void finding(void *arg, const struct cfs_store_finding *f)
{
	*(uint64_t *)arg += strlen(f->text);
}

static uint64_t ck_now(struct cfs_clock *c)
{
	(void)c;
	return 1;
}

static void ck_set(struct cfs_clock *c, struct cfs_timer *t, uint64_t ns)
{
	(void)c;
	(void)t;
	(void)ns;
}

static void ck_cancel(struct cfs_clock *c, struct cfs_timer *t)
{
	(void)c;
	(void)t;
}

static const struct cfs_clock_ops ck_ops = {
	.name = "fuzz",
	.version = CFS_CLOCK_OPS_VERSION,
	.boot_ns = ck_now,
	.real_ns = ck_now,
	.timer_set = ck_set,
	.timer_cancel = ck_cancel,
	.random = ck_now,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pages *p = calloc(1, sizeof(*p));
	struct cfs_clock clock = { .ops = &ck_ops };
	struct cfs_store_checked checked;
	struct cfs_store_params sp = { .clock = &clock };
	struct cfs_journal *j = NULL;
	struct cfs_store *st = NULL;
	uint64_t sum = 0;
	char err[256];
	uint8_t mode = size ? data[0] : 0;

	CFS_ASSERT(p);
	p->dev.ops = &pages_ops;
	p->dev.info =
		(struct cfs_dev_info){ .size_bytes = SIZE, .write_unit = 4096, .mem_align = 4096 };
	sp.dev = &p->dev;
	if (size) {
		data++;
		size--;
	}
	if (!mode) {
		p->empty = true;
		for (size_t at = 0; at < size && at < SIZE; at += BLK)
			memcpy(page_write(p, (uint32_t)(at / BLK)), data + at,
			       cfs_min(size - at, (size_t)BLK));
	}
	while (mode && size >= 5) {
		uint32_t off = known[data[0] % n_known] * BLK +
			       ((uint32_t)data[1] | (uint32_t)data[2] << 8) % BLK;
		uint32_t len = cfs_min((uint32_t)(data[3] & 31), (uint32_t)(size - 4));

		for (uint32_t i = 0; i < len; i++, off = (off + 1) % SIZE)
			page_write(p, off / BLK)[off % BLK] = data[4 + i];
		data += 4 + len;
		size -= 4 + len;
	}
	for (uint32_t i = 0; mode & 2 && i < PAGES; i++)
		if (p->page[i])
			make_good(p, i);

	cfs_store_check(&p->dev, finding, &sum, &checked, err, sizeof(err));
	if (!cfs_store_open(&sp, &st, err, sizeof(err))) {
		struct cfs_store_stat stat;
		uint64_t cursor = 0;
		struct cfs_oid oids[16];
		uint32_t lens[16];

		if (!cfs_journal_open(st, 3, &j, err, sizeof(err))) {
			cfs_journal_load(j, take, &sum);
			cfs_journal_close(j);
		}
		cfs_store_stat(st, &stat);
		while (cfs_store_list(st, &cursor, oids, lens, 16) > 0)
			sum += lens[0];
		cfs_store_close(st, false);
	}
	for (uint32_t i = 0; i < PAGES; i++)
		free(p->page[i]);
	free(p);
	return 0;
}
