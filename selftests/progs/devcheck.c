/* SPDX-License-Identifier: MIT */
/*
 * devcheck.c - `devcheck io|store|cost NAME [SEED] [iopoll] [sqpoll]`: random work on a real device, named as for
 * `claudefs format`. WHAT IT HOLDS IS LOST.
 *
 * io: thousands of requests of all kinds and shapes side by side, scattered buffers, registered memory or not,
 * the ring resized meanwhile; every byte read is compared with a model. store: a target is formatted, objects
 * and journal entries are written, read, deleted; closed and opened again, also as if killed, and compared.
 * Prints what was done; exits 0 when nothing differed. cost: the processor's time of this process, user and kernel, for a
 * journal append and for the read of a 4 KiB object; where the clock counts instructions, those.
 */
#include <err.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/base.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/rng.h"
#include "dev/nvme.h"
#include "ring/loop.h"
#include "server/store/store.h"

static struct cfs_loop *loop;
static struct cfs_dev *dev;
static struct cfs_rng rng;
static const char *name;

static uint64_t below(uint64_t n)
{
	return cfs_rng_next(&rng) % n;
}

static void turn(void)
{
	int rc = cfs_loop_turn(loop, 30 * CFS_NSEC_PER_SEC);

	if (rc)
		errx(1, "the ring failed: %s", strerror(-rc));
}

/* ---- io ------------------------------------------------------------------------------------------ */

#define CELLS 16u
#define CELL_MAX (2u << 20)	/* each request has a range of its own: what overlaps has no order */
#define IO_STEPS 1500u

struct cell {
	struct cfs_dev_req req;
	struct iovec iov[CFS_DEV_IOV_MAX];
	uint8_t *buf, *model;
	uint64_t base;
	bool busy, valid;	/* valid: the model knows what the device holds */
};

static void cell_done(struct cfs_dev_req *req)
{
	struct cell *c = cfs_container_of(req, struct cell, req);
	uint64_t off = req->offset - c->base;
	uint8_t *at = c->model + off;

	c->busy = false;
	if (req->result < 0)
		errx(1, "request %d at %llu failed: %s", req->op, (unsigned long long)req->offset,
		     strerror((int)-req->result));
	if (req->op == CFS_DEV_DISCARD)
		c->valid = false;
	if (req->op != CFS_DEV_READ && req->op != CFS_DEV_WRITE)
		return;
	if (req->result != (int64_t)req->len)
		errx(1, "%lld bytes instead of %llu", (long long)req->result, (unsigned long long)req->len);
	for (uint32_t i = 0; i < req->iovcnt; i++, at += req->iov[i - 1].iov_len) {
		if (req->op == CFS_DEV_WRITE)
			memcpy(at, req->iov[i].iov_base, req->iov[i].iov_len);
		else if (c->valid && memcmp(at, req->iov[i].iov_base, req->iov[i].iov_len))
			errx(1, "wrong data within %llu bytes at %llu", (unsigned long long)req->len,
			     (unsigned long long)req->offset);
	}
}

/* a random part of the cell, in random pieces */
static void shape(struct cell *c, bool whole)
{
	uint32_t unit = dev->info.write_unit, max = CELL_MAX / unit;
	uint64_t from = whole ? 0 : below(max), n = whole ? max : 1 + below(cfs_min((uint64_t)max - from, 1u << below(12)));
	uint64_t at = 0, gap = below(2) * unit;
	uint32_t k = 0;

	c->req.offset = c->base + from * unit;
	c->req.len = n * unit;
	while (at < n) {
		uint64_t len = k + 1 == CFS_DEV_IOV_MAX || whole ? n - at : 1 + below(n - at);

		/* with gaps or without: those that touch may become one */
		k++;
		c->iov[k - 1] = (struct iovec){ c->buf + at * unit + k * gap, len * unit };
		at += len;
	}
	c->req.iov = c->iov;
	c->req.iovcnt = k;
}

static void cell_start(struct cell *c)
{
	static const enum cfs_dev_op ops[] = { CFS_DEV_READ, CFS_DEV_READ, CFS_DEV_READ, CFS_DEV_WRITE, CFS_DEV_WRITE,
					       CFS_DEV_WRITE, CFS_DEV_FLUSH, CFS_DEV_DISCARD };
	int rc;

	c->req = (struct cfs_dev_req){ .op = c->valid ? ops[below(CFS_ARRAY_SIZE(ops))] : CFS_DEV_WRITE,
				       .done = cell_done };
	shape(c, !c->valid);
	if (c->req.op == CFS_DEV_FLUSH || c->req.op == CFS_DEV_DISCARD) {
		c->req.iov = NULL;
		c->req.iovcnt = 0;
	}
	if (c->req.op == CFS_DEV_FLUSH)
		c->req.offset = c->base, c->req.len = 0;
	if (c->req.op == CFS_DEV_WRITE) {
		c->req.flags = below(2) ? CFS_DEV_DURABLE : 0;
		for (uint32_t i = 0; i < c->req.iovcnt; i++) {
			uint64_t *p = c->iov[i].iov_base;

			for (size_t k = 0; k < c->iov[i].iov_len / 8; k += 32)
				p[k] = cfs_rng_next(&rng);
		}
		c->valid = true;
	}
	c->busy = true;
	rc = cfs_dev_submit(dev, &c->req);
	if (rc)
		errx(1, "request %d of %llu bytes refused: %s", c->req.op, (unsigned long long)c->req.len, strerror(-rc));
}

static int check_io(void)
{
	static struct cell cells[CELLS];
	struct cfs_loop_stat st;
	bool busy = true;

	for (unsigned i = 0; i < CELLS; i++) {
		size_t bytes = CELL_MAX + CFS_DEV_IOV_MAX * 4096;

		cells[i].base = (uint64_t)i * CELL_MAX;
		cells[i].buf = aligned_alloc(4096, bytes);
		cells[i].model = malloc(CELL_MAX);
		if (!cells[i].buf || !cells[i].model)
			errx(1, "no memory");
		memset(cells[i].buf, 0x5a, bytes);
		if (i % 2)
			cfs_loop_mem_add(loop, cells[i].buf, bytes);
	}
	for (unsigned n = 0; n < IO_STEPS; n++) {
		struct cell *c = &cells[below(CELLS)];

		while (c->busy)
			turn();
		cell_start(c);
		if (n % 200 == 199)
			cfs_loop_resize(loop, 16u << below(6));	/* where the kernel can */
	}
	while (busy) {
		busy = false;
		for (unsigned i = 0; i < CELLS; i++)
			busy |= cells[i].busy;
		if (busy)
			turn();
	}
	cfs_loop_stat(loop, &st);
	printf("io: %u requests, %llu commands, %llu retries, ring resized %llu times\n", IO_STEPS,
	       (unsigned long long)dev->stat.commands, (unsigned long long)dev->stat.retries,
	       (unsigned long long)st.resizes);
	for (unsigned i = 0; i < CELLS; i++) {
		cfs_loop_mem_del(loop, cells[i].buf);
		free(cells[i].buf);
		free(cells[i].model);
	}
	return 0;
}

/* ---- store ---------------------------------------------------------------------------------------- */

#define OBJECTS 120u
#define ENTRIES 200u

static struct cfs_store *store;
static struct cfs_journal *journal;
static uint32_t lens[OBJECTS];	/* 0: deleted, or not yet written */
static uint64_t n_entries;
static bool over;
static int result;

static void fill(uint8_t *p, uint32_t len, uint64_t n)
{
	struct cfs_rng r;

	cfs_rng_seed(&r, n + 1);
	for (uint32_t i = 0; i < len; i++)
		p[i] = (uint8_t)(i % 64 ? i * 7 + n : cfs_rng_next(&r));
}

static struct cfs_oid oid_of(uint64_t n)
{
	return (struct cfs_oid){ cfs_cpu_to_le64(1 + n % 3), cfs_cpu_to_le64(n) };
}

static void end(int err)
{
	over = true;
	result = err;
}

static void finish(const char *what)
{
	while (!over)
		turn();
	if (result)
		errx(1, "%s: %s", what, strerror(-result));
}

static void write_done(struct cfs_store_write *w, int err)
{
	(void)w;
	end(err);
}

static void read_done(struct cfs_store_read *r, int err)
{
	(void)r;
	end(err);
}

static void delete_done(struct cfs_store_delete *d, int err)
{
	(void)d;
	end(err);
}

static void append_done(struct cfs_journal_append *a, int err)
{
	(void)a;
	end(err);
}

static void stopped(void *arg)
{
	(void)arg;
	end(0);
}

static void put(uint64_t n)
{
	uint32_t len = 1 + (uint32_t)below(below(4) ? 70000 : CFS_OBJECT_MAX), crcs[CFS_OBJECT_CRCS];
	uint8_t *data = aligned_alloc(4096, cfs_align_up(len, 4096));
	struct cfs_store_write w = { .oid = oid_of(n), .data = data, .len = len, .crcs = crcs, .done = write_done };

	fill(data, len, n);
	for (uint32_t off = 0; off < len; off += CFS_CRC_BLOCK)
		crcs[w.n_crcs++] = cfs_crc32c(0, data + off, cfs_min(len - off, CFS_CRC_BLOCK));
	over = false;
	cfs_store_write(store, &w);
	finish("write");
	lens[n] = len;
	free(data);
}

static void get(uint64_t n)
{
	struct cfs_store_read r = { .oid = oid_of(n), .len = lens[n] ? lens[n] : 1, .done = read_done };
	uint8_t *want = malloc(CFS_OBJECT_MAX);

	over = false;
	cfs_store_read(store, &r);
	while (!over)
		turn();
	if (!lens[n]) {
		if (result != -ENOENT)
			errx(1, "object %llu is there after its deletion", (unsigned long long)n);
	} else {
		finish("read");
		fill(want, lens[n], n);
		if (r.ret_len < lens[n] || memcmp(r.data, want, lens[n]))
			errx(1, "object %llu differs", (unsigned long long)n);
		cfs_store_read_release(store, &r);
	}
	free(want);
}

static void append(void)
{
	uint8_t data[3000];
	struct cfs_journal_entry e = { .index = n_entries + 1, .term = 1, .len = 1 + (uint32_t)(n_entries * 37 % 2900),
				       .data = data };
	struct cfs_journal_append a = { .entries = &e, .n = 1, .done = append_done };

	fill(data, e.len, e.index);
	over = false;
	cfs_journal_append(journal, &a);
	finish("append");
	n_entries++;
}

static int loaded(void *arg, const struct cfs_journal_entry *e)
{
	uint64_t *at = arg;
	uint8_t want[3000];

	if (e->index != *at + 1)
		errx(1, "entry %llu after %llu", (unsigned long long)e->index, (unsigned long long)*at);
	fill(want, e->len, e->index);
	if (e->len != 1 + (uint32_t)(*at * 37 % 2900) || memcmp(e->data, want, e->len))
		errx(1, "entry %llu differs", (unsigned long long)e->index);
	*at = e->index;
	return 0;
}

static void open_store(void)
{
	struct cfs_store_params p = { .dev = dev, .clock = cfs_loop_clock(loop) };
	uint64_t at = 0, term, voted;
	char why[256] = "";

	if (cfs_store_open(&p, &store, why, sizeof(why)) || cfs_journal_open(store, 1, &journal, why, sizeof(why)))
		errx(1, "open: %s", why);
	if (cfs_journal_load(journal, loaded, &at))
		errx(1, "the journal cannot be loaded");
	if (at != n_entries)
		errx(1, "%llu entries instead of %llu", (unsigned long long)at, (unsigned long long)n_entries);
	cfs_journal_get_vote(journal, &term, &voted);
	if (n_entries && (term != n_entries || voted != 5))
		errx(1, "vote %llu for %llu", (unsigned long long)term, (unsigned long long)voted);
}

static void close_store(void)
{
	if (cfs_journal_set_vote(journal, n_entries, 5))
		errx(1, "the vote cannot be written");
	over = false;
	cfs_store_stop(store, stopped, NULL);
	finish("stop");
	cfs_journal_close(journal);
	cfs_store_close(store, below(2));	/* in order, or as if killed then */
}

static void on_finding(void *arg, const struct cfs_store_finding *f)
{
	(void)arg;
	if (f->error)
		printf("segment %u, offset %llu: %s\n", f->segment, (unsigned long long)f->offset, f->text);
}

static int check_store(void)
{
	struct cfs_format_params fp = { .target_id = 1, .segment_bytes = 8 << 20,
					.label_time_ns = cfs_clock_real_ns(cfs_loop_clock(loop)) };
	struct cfs_store_checked checked;
	struct cfs_store_delete d;
	unsigned puts = 0, dels = 0;
	char why[256] = "";

	memcpy(fp.cluster, "0123456789abcdef", 16);
	if (dev->info.flags & CFS_DEV_F_ZONED)
		fp.segment_bytes = 0;
	if (cfs_store_format(dev, &fp, why, sizeof(why)))
		errx(1, "format: %s", why);
	open_store();
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned n = 0; n < OBJECTS; n++) {
			unsigned i = (unsigned)below(OBJECTS);
			struct cfs_oid oid = oid_of(i);

			if (!lens[i]) {
				put(i);
				puts++;
			} else if (below(3)) {
				get(i);
			} else {
				d = (struct cfs_store_delete){ .oids = &oid, .n = 1, .done = delete_done };
				over = false;
				cfs_store_delete(store, &d);
				finish("delete");
				lens[i] = 0;
				dels++;
			}
			if (n_entries < (round + 1) * ENTRIES / 4)
				append();
		}
		close_store();
		open_store();
		for (unsigned i = 0; i < OBJECTS; i++)
			get(i);
	}
	close_store();
	if (cfs_store_check(dev, on_finding, NULL, &checked, why, sizeof(why)))
		errx(1, "check: %s", why);
	if (checked.errors)
		errx(1, "%llu errors found offline", (unsigned long long)checked.errors);
	printf("store: %u objects written, %u deleted, %llu journal entries, opened 5 times; atomic unit %u\n", puts, dels,
	       (unsigned long long)n_entries, dev->info.atomic_unit);
	return 0;
}

/* ---- cost ----------------------------------------------------------------------------------------- */

#define COST_TIMES 400u

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * CFS_NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

static int measure_cost(void)
{
	struct cfs_format_params fp = { .label_time_ns = cfs_clock_real_ns(cfs_loop_clock(loop)) };
	uint8_t *data = aligned_alloc(4096, 4096), entry[200] = { 0 };
	uint32_t crc;
	struct cfs_store_write w = { .data = data, .len = 4096, .crcs = &crc, .n_crcs = 1, .done = write_done };
	struct cfs_journal_entry e = { .term = 1, .len = sizeof(entry), .data = entry };
	struct cfs_journal_append a = { .entries = &e, .n = 1, .done = append_done };
	uint64_t t = 0, appends, reads;
	char why[256] = "";

	if (cfs_store_format(dev, &fp, why, sizeof(why)))
		errx(1, "format: %s", why);
	open_store();
	fill(data, 4096, 1);
	crc = cfs_crc32c(0, data, 4096);
	for (uint64_t n = 0; n < 64; n++) {
		w.oid = oid_of(n);
		over = false;
		cfs_store_write(store, &w);
		finish("write");
	}
	for (unsigned i = 0; i < 2 * COST_TIMES; i++) {
		if (i == COST_TIMES)	/* the first half has made everything warm */
			t = cpu_ns();
		e.index = i + 1;
		over = false;
		cfs_journal_append(journal, &a);
		finish("append");
	}
	appends = cpu_ns() - t;
	for (unsigned i = 0; i < 2 * COST_TIMES; i++) {
		struct cfs_store_read r = { .oid = oid_of(i % 64), .len = 4096, .done = read_done };

		if (i == COST_TIMES)
			t = cpu_ns();
		over = false;
		cfs_store_read(store, &r);
		finish("read");
		cfs_store_read_release(store, &r);
	}
	reads = cpu_ns() - t;
	printf("%s: %llu ns for a journal append of %zu bytes, %llu ns for the read of a 4 KiB object\n", dev->ops->name,
	       (unsigned long long)(appends / COST_TIMES), sizeof(entry), (unsigned long long)(reads / COST_TIMES));
	close_store();
	free(data);
	return 0;
}

int main(int argc, char **argv)
{
	uint32_t flags = 0;
	uint64_t seed = 1;
	int rc;

	if (argc < 3 || (strcmp(argv[1], "io") && strcmp(argv[1], "store") && strcmp(argv[1], "cost")))
		errx(2, "usage: devcheck io|store|cost NAME [SEED] [iopoll] [sqpoll]");
	name = argv[2];
	for (int i = 3; i < argc; i++) {
		if (!strcmp(argv[i], "iopoll"))
			flags |= CFS_NVME_IOPOLL;
		else if (!strcmp(argv[i], "sqpoll"))
			flags |= CFS_NVME_SQPOLL;
		else
			seed = strtoull(argv[i], NULL, 0);
	}
	cfs_rng_seed(&rng, seed);
	rc = cfs_dev_loop_create(64, &name, 1, &loop);
	if (!rc)
		rc = cfs_dev_open(loop, name, flags, &dev);
	if (rc)
		errx(1, "%s: %s", name, strerror(-rc));
	rc = !strcmp(argv[1], "io") ? check_io() : !strcmp(argv[1], "cost") ? measure_cost() : check_store();
	cfs_dev_close(dev);
	cfs_loop_destroy(loop);
	return rc;
}
