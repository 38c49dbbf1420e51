/* SPDX-License-Identifier: MIT */
/* fakenvme.c - see fakenvme.h. */
#include "selftests/lib/fakenvme.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/log.h"

#define FUA		(1u << 30)
#define PAGE		4096u
#define ZONE_FULL	0x1b9
#define INVALID_WRITE	0x1bc

static struct fakenvme *fake_of(struct cfs_nvme_port *port)
{
	return cfs_container_of(port, struct fakenvme, port);
}

static uint64_t lba_of(const struct cfs_nvme_cmd *c)
{
	return c->cdw10 | (uint64_t)c->cdw11 << 32;
}

/* move `len` bytes at `at` between the namespace and the command's buffers */
static void move(struct fakenvme *f, const struct cfs_nvme_cmd *c, uint64_t at, bool write)
{
	const struct iovec one = { c->data, c->len }, *iov = c->n_iov ? c->data : &one;
	uint64_t pages = 0, total = 0;

	for (uint32_t i = 0; i < (c->n_iov ? c->n_iov : 1); i++) {
		if (write)
			memcpy(f->mem + at + total, iov[i].iov_base, iov[i].iov_len);
		else
			memcpy(iov[i].iov_base, f->mem + at + total, iov[i].iov_len);
		pages += (((uintptr_t)iov[i].iov_base & (PAGE - 1)) + iov[i].iov_len + PAGE - 1) / PAGE;
		total += iov[i].iov_len;
	}
	CFS_ASSERT(total == c->len);
	f->max_segments = cfs_max(f->max_segments, pages);
}

static int32_t zone_write(struct fakenvme *f, const struct cfs_nvme_cmd *c, uint64_t *lba, uint64_t blocks)
{
	uint64_t zone, off;

	if (!f->lim.zone_blocks)
		return 0;
	zone = *lba / f->lim.zone_blocks;
	off = *lba % f->lim.zone_blocks;
	if (f->full[zone] || f->wp[zone] + blocks > f->lim.zone_blocks)
		return ZONE_FULL | CFS_NVME_DNR;
	if (c->opcode == CFS_NVME_ZONE_APPEND)
		off = f->wp[zone];
	if (off != f->wp[zone])
		return INVALID_WRITE | CFS_NVME_DNR;
	*lba = zone * f->lim.zone_blocks + off;
	f->wp[zone] += blocks;
	return 0;
}

static int32_t zone_manage(struct fakenvme *f, const struct cfs_nvme_cmd *c)
{
	uint64_t zone = lba_of(c) / f->lim.zone_blocks;

	CFS_ASSERT(lba_of(c) % f->lim.zone_blocks == 0 && zone < f->lim.n_zones);
	if (c->cdw13 == 4)
		f->wp[zone] = f->full[zone] = 0;
	else if (c->cdw13 == 2)
		f->full[zone] = 1;
	return 0;
}

static int32_t zone_report(struct fakenvme *f, const struct cfs_nvme_cmd *c)
{
	uint64_t *out = c->data, first = lba_of(c) / f->lim.zone_blocks, n = (c->len - 64) / 64;

	CFS_ASSERT(c->len == (c->cdw12 + 1) * 4);
	n = cfs_min(n, f->lim.n_zones - first);
	memset(c->data, 0, c->len);
	out[0] = n;
	for (uint64_t i = 0; i < n; i++) {
		uint8_t *d = (uint8_t *)c->data + 64 + 64 * i;
		uint64_t v[3] = { f->lim.zone_blocks - 1, (first + i) * f->lim.zone_blocks,
				  (first + i) * f->lim.zone_blocks + f->wp[first + i] };

		d[0] = 2;
		d[1] = (uint8_t)((f->full[first + i] ? 0xe : f->wp[first + i] ? 2 : 1) << 4);
		memcpy(d + 8, v, sizeof(v));
	}
	return 0;
}

static int32_t execute(struct fakenvme *f, const struct cfs_nvme_cmd *c, uint64_t *result)
{
	uint64_t lba = lba_of(c), blocks = (c->cdw12 & 0xffff) + 1, at, len;
	int32_t res;

	switch (c->opcode) {
	case CFS_NVME_FLUSH:
		memcpy(f->medium, f->mem, f->bytes);
		return 0;
	case CFS_NVME_DSM: {
		const struct cfs_nvme_dsm_range *r = c->data;

		CFS_ASSERT(c->cdw10 == 0 && c->cdw11 == 4 && c->len == sizeof(*r));
		CFS_ASSERT((r->start + r->blocks) * f->lim.block_bytes <= f->bytes);
		memset(f->mem + r->start * f->lim.block_bytes, 0, (size_t)r->blocks * f->lim.block_bytes);
		return 0;
	}
	case CFS_NVME_ZONE_SEND: return zone_manage(f, c);
	case CFS_NVME_ZONE_RECV: return zone_report(f, c);
	case CFS_NVME_READ: case CFS_NVME_WRITE: case CFS_NVME_ZONE_APPEND: break;
	default: CFS_ASSERT(!"unknown opcode");
	}
	len = blocks * f->lim.block_bytes;
	CFS_ASSERT(c->len == len);
	CFS_ASSERT(!f->lim.max_bytes || len <= f->lim.max_bytes);
	f->max_len = cfs_max(f->max_len, len);
	if ((lba + blocks) * f->lim.block_bytes > f->bytes)
		return 0x80 | CFS_NVME_DNR;
	if (c->opcode != CFS_NVME_READ) {
		res = zone_write(f, c, &lba, blocks);
		if (res)
			return res;
	}
	at = lba * f->lim.block_bytes;
	move(f, c, at, c->opcode != CFS_NVME_READ);
	if (c->cdw12 & FUA)
		memcpy(f->medium + at, f->mem + at, len);
	*result = lba;
	return 0;
}

static int32_t run(struct fakenvme *f, const struct cfs_nvme_cmd *c, uint64_t *result)
{
	/* what a drive that is unwell says: internal error, not ready, interrupted, read error for good */
	static const int32_t weather[] = { 0x06, 0x82, 0x21, 0x281 | CFS_NVME_DNR };

	f->commands++;
	f->by_opcode[c->opcode]++;
	for (uint32_t i = 0; i < f->n_faults; i++) {
		struct fakenvme_fault *t = &f->faults[i];

		if (t->opcode != c->opcode || !t->times)
			continue;
		if (t->skip) {
			t->skip--;
			continue;
		}
		t->times--;
		if (t->executed)
			execute(f, c, result);
		return t->res;
	}
	if (f->shuffle && cfs_rng_next(&f->rng) % f->shuffle == 0)
		return weather[cfs_rng_next(&f->rng) % CFS_ARRAY_SIZE(weather)];
	return execute(f, c, result);
}

static struct cfs_nvme_io *take(struct fakenvme *f)
{
	struct cfs_nvme_io **at = &f->head, *io;

	/* any of the first eight */
	for (uint64_t n = f->shuffle ? cfs_rng_next(&f->rng) % 8 : 0; n && *at && (*at)->next; n--)
		at = &(*at)->next;
	io = *at;
	if (io) {
		*at = io->next;
		f->tail = NULL;
		for (struct cfs_nvme_io *t = f->head; t; t = t->next)
			f->tail = t;
	}
	return io;
}

static void turn(void *arg)
{
	struct fakenvme *f = arg;

	f->posted = false;
	for (unsigned n = 0; n < 32; n++) {
		struct cfs_nvme_io *io = take(f);
		uint64_t result = 0;
		int32_t res;

		if (!io)
			return;
		res = run(f, &io->cmd, &result);
		f->flight--;
		io->done(io, res, result);
	}
	if (f->head && !f->posted)
		f->posted = !cfs_loop_post(f->loop, turn, f);
}

static void fake_submit(struct cfs_nvme_port *port, struct cfs_nvme_io *io)
{
	struct fakenvme *f = fake_of(port);

	io->next = NULL;
	if (f->tail)
		f->tail->next = io;
	else
		f->head = io;
	f->tail = io;
	f->flight++;
	f->max_flight = cfs_max(f->max_flight, f->flight);
	if (!f->posted)
		f->posted = !cfs_loop_post(f->loop, turn, f);
	CFS_ASSERT(f->posted);
}

static int fake_sync(struct cfs_nvme_port *port, const struct cfs_nvme_cmd *cmd)
{
	uint64_t result = 0;

	return run(fake_of(port), cmd, &result);
}

static void fake_pause(struct cfs_nvme_port *port, uint32_t ms)
{
	fake_of(port)->paused_ms += ms;
}

static void fake_close(struct cfs_nvme_port *port)
{
	CFS_ASSERT(!fake_of(port)->flight && !fake_of(port)->closed);
	fake_of(port)->closed = true;
}

static bool fake_removed(struct cfs_nvme_port *port)
{
	return cfs_container_of(port, struct fakenvme, port)->removed;
}

static const struct cfs_nvme_port_ops fake_ops = {
	.name = "fake",
	.version = CFS_NVME_PORT_VERSION,
	.submit = fake_submit,
	.sync = fake_sync,
	.pause = fake_pause,
	.removed = fake_removed,
	.close = fake_close,
};

struct fakenvme *fakenvme_create(struct cfs_loop *loop, const struct cfs_nvme_limits *lim, uint64_t seed)
{
	struct fakenvme *f = calloc(1, sizeof(*f));

	CFS_ASSERT(f);
	f->port.ops = &fake_ops;
	f->loop = loop;
	f->lim = *lim;
	f->bytes = lim->blocks * lim->block_bytes;
	f->mem = calloc(1, f->bytes);
	f->medium = calloc(1, f->bytes);
	f->wp = calloc(lim->n_zones + 1, sizeof(*f->wp));
	f->full = calloc(lim->n_zones + 1, 1);
	CFS_ASSERT(f->mem && f->medium && f->wp && f->full);
	cfs_rng_seed(&f->rng, seed);
	return f;
}

void fakenvme_destroy(struct fakenvme *f)
{
	CFS_ASSERT(f->closed);
	free(f->mem);
	free(f->medium);
	free(f->wp);
	free(f->full);
	free(f);
}

void fakenvme_fault(struct fakenvme *f, uint8_t opcode, uint32_t skip, uint32_t times, int32_t res, bool executed)
{
	CFS_ASSERT(f->n_faults < FAKENVME_FAULTS);
	f->faults[f->n_faults++] = (struct fakenvme_fault){ opcode, skip, times, res, executed };
}
