/* SPDX-License-Identifier: MIT */
/*
 * ring.c - a loop's ring: set-up, submission queue entries, size, and the tables of registered files and
 * memory. All of it belongs to the loop's thread; see loop.h.
 *
 * A wide ring carries requests of 128 bytes and completions of 32 bytes, which NVMe passthrough needs
 * (Linux 5.19). Where the kernel can mix sizes in one ring (7.x), all other requests stay small.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/log.h"
#include "ring/loop_i.h"

#define CQ_FACTOR	8u	/* completions per submission: multishot requests have many */
#define GROW_AFTER	4u	/* times the queue was full between two turns */
#define MEM_WORDS	(CFS_LOOP_MEM_MAX / 64)

#if defined(IORING_SETUP_SQE_MIXED) && defined(IORING_SETUP_CQE_MIXED)
#define HAVE_MIXED	1
#define MIXED		(IORING_SETUP_SQE_MIXED | IORING_SETUP_CQE_MIXED)
#else
#define HAVE_MIXED	0
#define MIXED		0u
#endif
#define WIDE		(IORING_SETUP_SQE128 | IORING_SETUP_CQE32)

struct io_uring *cfs_loop_ring(struct cfs_loop *loop)
{
	return &loop->ring;
}

static int try_init(struct cfs_loop *loop, uint32_t entries, unsigned width)
{
	/* best first: deferred task work (6.1), cooperative (5.19), plain (5.14) */
	static const unsigned tries[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN |
			IORING_SETUP_SUBMIT_ALL,
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL,
		0,
	};
	int rc = -EINVAL;

	for (unsigned i = 0; i < CFS_ARRAY_SIZE(tries) && rc == -EINVAL; i++) {
		struct io_uring_params p = {
			.flags = tries[i] | width | IORING_SETUP_CQSIZE,
			.cq_entries = entries * CQ_FACTOR,
		};

		rc = io_uring_queue_init_params(entries, &loop->ring, &p);
		if (!rc && !(tries[i] & IORING_SETUP_DEFER_TASKRUN))
			loop->fixed_size = true;	/* resizing needs it */
	}
	return rc;
}

int cfs_loop_ring_init(struct cfs_loop *loop, uint32_t entries, uint32_t flags)
{
	int rc = -EINVAL;

	if (!(flags & CFS_LOOP_WIDE))
		rc = try_init(loop, entries, 0);
	else if (HAVE_MIXED)
		rc = try_init(loop, entries, MIXED);
	if (rc == -EINVAL && flags & CFS_LOOP_WIDE)
		rc = try_init(loop, entries, WIDE);
	if (rc)
		return rc;
	loop->ring_ready = true;
	loop->stat.sq_entries = loop->ring.sq.ring_entries;
	loop->stat.cq_entries = loop->ring.cq.ring_entries;
	io_uring_ring_dontfork(&loop->ring);
	/* both save time or precision only: kernels without them go on as they are */
	io_uring_register_ring_fd(&loop->ring);
	loop->clock_boottime = !io_uring_register_clock(&loop->ring,
		&(struct io_uring_clock_register){ .clockid = CLOCK_BOOTTIME });
	return 0;
}

void cfs_loop_ring_exit(struct cfs_loop *loop)
{
	if (loop->ring_ready)
		io_uring_queue_exit(&loop->ring);
	free(loop->mem);
	free(loop->mem_used);
	free(loop->stash);
}

/* ---- completions ------------------------------------------------------------------------------ */

struct cfs_loop_cqe cfs_loop_cqe_read(const struct cfs_loop *loop, const struct io_uring_cqe *cqe)
{
	struct cfs_loop_cqe c = {
		.op = (struct cfs_ring_op *)(uintptr_t)cqe->user_data,
		.res = cqe->res,
		.flags = cqe->flags,
	};

	if (loop->ring.flags & IORING_SETUP_CQE32)
		c.extra = cqe->big_cqe[0];
#if HAVE_MIXED
	else if (cqe->flags & IORING_CQE_F_32)
		c.extra = cqe->big_cqe[0];
#endif
	return c;
}

void cfs_loop_cqe_seen(struct cfs_loop *loop, uint32_t cqe_flags)
{
	unsigned slots = 1;

#if HAVE_MIXED
	if (cqe_flags & IORING_CQE_F_32)
		slots = 2;
#else
	(void)cqe_flags;
#endif
	io_uring_cq_advance(&loop->ring, slots);
}

uint64_t cfs_loop_cqe_extra(const struct cfs_loop *loop)
{
	return loop->extra;
}

/* make room in a completion queue whose overflow keeps the kernel from taking submissions */
static void stash_cqes(struct cfs_loop *loop)
{
	struct io_uring_cqe *cqe;

	while (!io_uring_peek_cqe(&loop->ring, &cqe)) {
		if (loop->n_stash == loop->cap_stash) {
			uint32_t cap = loop->cap_stash ? loop->cap_stash * 2 : 256;
			struct cfs_loop_cqe *s = realloc(loop->stash, cap * sizeof(*s));

			CFS_ASSERT(s);
			loop->stash = s;
			loop->cap_stash = cap;
		}
		loop->stash[loop->n_stash] = cfs_loop_cqe_read(loop, cqe);
		cfs_loop_cqe_seen(loop, loop->stash[loop->n_stash++].flags);
	}
}

/* ---- submissions ------------------------------------------------------------------------------ */

/* give the kernel what is queued */
static void submit(struct cfs_loop *loop)
{
	int rc = io_uring_submit(&loop->ring);

	if (rc == -EBUSY) {
		loop->stat.cq_full++;
		stash_cqes(loop);
	} else if (rc < 0 && rc != -EINTR && rc != -EAGAIN) {
		cfs_err("ring: submitting failed: %s", strerror(-rc));
		CFS_ASSERT(!"io_uring refuses submissions");
	}
}

struct io_uring_sqe *cfs_loop_sqe(struct cfs_loop *loop)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&loop->ring))) {
		loop->full_now++;
		loop->stat.sq_full++;
		submit(loop);
	}
	return sqe;
}

void cfs_loop_sqe_set(struct io_uring_sqe *sqe, struct cfs_ring_op *op)
{
	io_uring_sqe_set_data(sqe, op);
}

bool cfs_loop_is_wide(const struct cfs_loop *loop)
{
	return loop->ring.flags & (WIDE | MIXED);
}

struct io_uring_sqe *cfs_loop_sqe_cmd(struct cfs_loop *loop, uint32_t cmd_op, int fd)
{
	struct io_uring_sqe *sqe;

	CFS_ASSERT(cfs_loop_is_wide(loop));
#if HAVE_MIXED
	if (loop->ring.flags & IORING_SETUP_SQE_MIXED) {
		while (!(sqe = io_uring_get_sqe128(&loop->ring))) {
			loop->full_now++;
			loop->stat.sq_full++;
			submit(loop);
		}
		memset(sqe, 0, 2 * sizeof(*sqe));
		sqe->opcode = IORING_OP_URING_CMD128;
		sqe->fd = fd;
		sqe->cmd_op = cmd_op;
		return sqe;
	}
#endif
	sqe = cfs_loop_sqe(loop);
	memset(sqe, 0, 2 * sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = fd;
	sqe->cmd_op = cmd_op;
	return sqe;
}

uint32_t cfs_loop_mark(struct cfs_loop *loop)
{
	return loop->ring.sq.sqe_tail;
}

bool cfs_loop_taken(struct cfs_loop *loop, uint32_t mark)
{
	return loop->drained && (int32_t)(loop->taken - mark) >= 0;
}

/* ---- size ------------------------------------------------------------------------------------- */

int cfs_loop_resize(struct cfs_loop *loop, uint32_t entries)
{
	struct io_uring_params p = {
		.flags = IORING_SETUP_CQSIZE,
		.sq_entries = entries,
		.cq_entries = entries * CQ_FACTOR,
	};
	int rc;

	if (entries < 8 || entries > CFS_LOOP_ENTRIES_MAX || (entries & (entries - 1)))
		return -EINVAL;
	if (loop->fixed_size)
		return -EOPNOTSUPP;
	/*
	 * With both queues empty there is nothing to move: kernels before 7.0 move entries of wide rings by
	 * the size of small ones.
	 */
	for (unsigned tries = 0; io_uring_sq_ready(&loop->ring); tries++) {
		if (tries == 16)
			return -EBUSY;
		submit(loop);
	}
	stash_cqes(loop);
	rc = io_uring_resize_rings(&loop->ring, &p);
	if (rc < 0) {
		loop->fixed_size = rc != -EBUSY && rc != -EEXIST;
		return rc;
	}
	loop->stat.resizes++;
	loop->stat.sq_entries = loop->ring.sq.ring_entries;
	loop->stat.cq_entries = loop->ring.cq.ring_entries;
	return 0;
}

void cfs_loop_ring_grow(struct cfs_loop *loop)
{
	uint32_t full = loop->full_now;

	loop->full_now = 0;
	if (full < GROW_AFTER || loop->fixed_size || loop->stat.sq_entries >= CFS_LOOP_ENTRIES_MAX)
		return;
	cfs_loop_resize(loop, loop->stat.sq_entries * 2);	/* or it stays as it is */
}

void cfs_loop_stat(const struct cfs_loop *loop, struct cfs_loop_stat *ret_stat)
{
	*ret_stat = loop->stat;
}

/* ---- tables ----------------------------------------------------------------------------------- */

int cfs_loop_file_add(struct cfs_loop *loop, int fd)
{
	int slot, rc;

	_Static_assert(CFS_LOOP_FILES_MAX <= 64, "files_used is one word");
	if (!loop->files_ready) {
		rc = io_uring_register_files_sparse(&loop->ring, CFS_LOOP_FILES_MAX);
		if (rc < 0)
			return -EOPNOTSUPP;
		loop->files_ready = true;
	}
	if (loop->files_used == UINT64_MAX)
		return -ENFILE;
	slot = __builtin_ctzll(~loop->files_used);
	rc = io_uring_register_files_update(&loop->ring, (unsigned)slot, &fd, 1);
	if (rc < 0)
		return rc;
	loop->files_used |= 1ull << slot;
	return slot;
}

void cfs_loop_file_del(struct cfs_loop *loop, int slot)
{
	const int none = -1;

	CFS_ASSERT(slot >= 0 && loop->files_used & (1ull << slot));
	loop->files_used &= ~(1ull << slot);
	if (io_uring_register_files_update(&loop->ring, (unsigned)slot, &none, 1) < 0)
		cfs_warn("ring: could not empty file slot %d", slot);
}

/* the first region that ends behind `at` */
static uint32_t mem_search(const struct cfs_loop *loop, uintptr_t at)
{
	uint32_t lo = 0, hi = loop->n_mem;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (loop->mem[mid].end <= at)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int cfs_loop_mem_find(const struct cfs_loop *loop, const void *ptr, size_t len)
{
	uintptr_t at = (uintptr_t)ptr;
	const struct cfs_loop_mem *m;
	uint32_t i;

	if (!loop->n_mem)
		return -1;
	i = mem_search(loop, at);
	m = &loop->mem[i];
	return i < loop->n_mem && at >= m->start && len <= m->end - at ? (int)m->slot : -1;
}

static int mem_table(struct cfs_loop *loop)
{
	int rc;

	if (loop->mem)
		return 0;
	rc = io_uring_register_buffers_sparse(&loop->ring, CFS_LOOP_MEM_MAX);
	if (rc < 0)
		return -EOPNOTSUPP;
	loop->mem = calloc(CFS_LOOP_MEM_MAX, sizeof(*loop->mem));
	loop->mem_used = calloc(MEM_WORDS, sizeof(*loop->mem_used));
	return loop->mem && loop->mem_used ? 0 : -ENOMEM;
}

int cfs_loop_mem_add(struct cfs_loop *loop, void *base, size_t len)
{
	const struct iovec iov = { base, len };
	uintptr_t start = (uintptr_t)base;
	uint32_t slot = 0, at;
	int rc;

	_Static_assert(CFS_LOOP_MEM_MAX % 64 == 0, "mem_used is whole words");
	if (!len || loop->mem_failed)
		return loop->mem_failed ? -EOPNOTSUPP : -EINVAL;
	rc = mem_table(loop);
	if (rc)
		goto failed;
	if (loop->n_mem == CFS_LOOP_MEM_MAX)
		return -ENOBUFS;
	at = mem_search(loop, start);
	CFS_ASSERT(at == loop->n_mem || loop->mem[at].start >= start + len);	/* no overlap */
	while (loop->mem_used[slot / 64] == UINT64_MAX)
		slot += 64;
	slot += (uint32_t)__builtin_ctzll(~loop->mem_used[slot / 64]);
	rc = io_uring_register_buffers_update_tag(&loop->ring, slot, &iov, NULL, 1);
	if (rc < 0)
		goto failed;
	loop->mem_used[slot / 64] |= 1ull << slot % 64;
	memmove(&loop->mem[at + 1], &loop->mem[at], (loop->n_mem - at) * sizeof(*loop->mem));
	loop->mem[at] = (struct cfs_loop_mem){ start, start + len, slot };
	loop->n_mem++;
	loop->stat.mem_bytes += len;
	return 0;
failed:
	/* most likely RLIMIT_MEMLOCK: it will not get better */
	loop->mem_failed = true;
	return rc;
}

void cfs_loop_mem_del(struct cfs_loop *loop, void *base)
{
	const struct iovec none = { NULL, 0 };
	uintptr_t start = (uintptr_t)base;
	uint32_t at, slot;

	if (!loop->n_mem)
		return;
	at = mem_search(loop, start);
	if (at == loop->n_mem || loop->mem[at].start != start)
		return;
	slot = loop->mem[at].slot;
	if (io_uring_register_buffers_update_tag(&loop->ring, slot, &none, NULL, 1) < 0)
		cfs_warn("ring: could not empty memory slot %u", slot);
	loop->mem_used[slot / 64] &= ~(1ull << slot % 64);
	loop->stat.mem_bytes -= loop->mem[at].end - loop->mem[at].start;
	loop->n_mem--;
	memmove(&loop->mem[at], &loop->mem[at + 1], (loop->n_mem - at) * sizeof(*loop->mem));
}
