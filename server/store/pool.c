/* SPDX-License-Identifier: MIT */
/*
 * pool.c - journal segments made ready in the background: zero-filled once, so that appending
 * overwrites blocks that a file system below has allocated, and need not touch its own journal.
 * State: st->pool.
 */
#include <errno.h>
#include <stdlib.h>

#include "server/store/store_i.h"

#define STEP_NS (3 * CFS_NSEC_PER_MSEC) /* between steps of 1 MiB: at most 350 MB/s */
#define ZEROS 65536u

static void fill_step(struct cfs_store *st);

static void on_timer(struct cfs_timer *timer)
{
	struct cfs_store *st = cfs_container_of(timer, struct cfs_store, pool.timer);

	if (!st->stopping)
		fill_step(st);
}

int cfs_pool_init(struct cfs_store *st)
{
	struct cfs_pool *p = &st->pool;

	p->timer.fn = on_timer;
	p->zeros = cfs_aligned_alloc(ZEROS);
	p->hdr.buf = cfs_aligned_alloc(CFS_DISK_SEG_HDR_BLOCKS * BLK);
	return p->zeros && p->hdr.buf ? 0 : -ENOMEM;
}

void cfs_pool_exit(struct cfs_store *st)
{
	free(st->pool.zeros);
	free(st->pool.hdr.buf);
}

static void end(struct cfs_store *st, int err)
{
	struct cfs_pool *p = &st->pool;

	p->busy = false;
	if (err) {
		cfs_seg_spoilt(st, p->seg, err);
	} else {
		st->segs[p->seg].state = CFS_SS_POOL;
		st->n_pool++;
		cfs_store_kick(st);
	}
}

static void header_written(struct cfs_seg_io *io, int err)
{
	end(io->st, err);
}

static void filled(struct cfs_dev_req *req)
{
	struct cfs_store *st = cfs_container_of(req, struct cfs_store, pool.req);
	struct cfs_pool *p = &st->pool;

	cfs_store_submitted(st);
	if (req->result < 0) {
		end(st, (int)req->result);
		return;
	}
	p->block += (uint32_t)(req->len / BLK);
	if (!st->stopping)
		cfs_timer_set(st->clock, &p->timer, cfs_clock_boot_ns(st->clock) + STEP_NS);
}

static void fill_step(struct cfs_store *st)
{
	struct cfs_pool *p = &st->pool;
	uint32_t left = st->seg_blocks - p->block, n = 0;
	uint64_t bytes = 0;

	if (!left) {
		st->segs[p->seg].flags |= CFS_SF_FILLED;
		cfs_seg_hdr_write(st, &p->hdr, p->seg, CFS_SEG_POOL, header_written);
		return;
	}
	while (n < CFS_ARRAY_SIZE(p->iov) && bytes < (uint64_t)left * BLK) {
		uint64_t len = cfs_min((uint64_t)ZEROS, (uint64_t)left * BLK - bytes);

		p->iov[n++] = (struct iovec){ p->zeros, len };
		bytes += len;
	}
	p->req = (struct cfs_dev_req){
		.op = CFS_DEV_WRITE,
		.offset = cfs_seg_off(st, p->seg, p->block),
		.iov = p->iov,
		.iovcnt = n,
		.len = bytes,
		.done = filled,
	};
	cfs_store_submit(st, &p->req);
}

void cfs_pool_want(struct cfs_store *st)
{
	struct cfs_pool *p = &st->pool;

	/* a zone needs no preparation */
	if (st->zoned || p->busy || st->stopping || st->failed || st->dev->stat.gone || st->n_pool ||
	    cfs_seg_alloc(st, CFS_ALLOC_FILL, &p->seg))
		return;
	p->busy = true;
	p->block = CFS_DISK_SEG_HDR_BLOCKS;
	cfs_timer_set(st->clock, &p->timer, cfs_clock_boot_ns(st->clock));
}
