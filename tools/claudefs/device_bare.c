/* SPDX-License-Identifier: MIT */
/*
 * device_bare.c - the drive's own limit: NVMe commands from registered buffers, prepared and reaped by a loop that
 * does nothing else. What the server's back end is measured against.
 */
#include "device.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/base.h"
#include "base/rng.h"
#include "dev/nvme_sqe.h"

struct bare {
	struct io_uring ring;
	const struct device_load *load;
	struct cfs_rng rng;
	uint64_t slots, next;
	uint32_t nsid, block;
	uint8_t *mem;
	int fd;
};

static int bare_open(struct bare *b, const char *generic)
{
	struct io_uring_params p = {
		.flags = IORING_SETUP_SQE128 | IORING_SETUP_CQE32 | IORING_SETUP_SINGLE_ISSUER |
			 IORING_SETUP_DEFER_TASKRUN,
	};
	struct iovec iov = { .iov_len = (size_t)DEVICE_DEPTH_MAX * b->load->bytes };
	struct cfs_nvme_ns ns;
	int rc;

	rc = cfs_nvme_identify(generic, &ns);
	if (rc)
		return rc;
	b->nsid = ns.nsid;
	b->block = ns.block_bytes;
	b->fd = open(generic, (b->load->op == CFS_DEV_READ ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (b->fd < 0)
		return -errno;
	b->mem = aligned_alloc(4096, iov.iov_len);
	if (!b->mem)
		return -ENOMEM;
	memset(b->mem, 0x5a, iov.iov_len);
	iov.iov_base = b->mem;
	rc = io_uring_queue_init_params(DEVICE_DEPTH_MAX, &b->ring, &p);
	if (rc)
		return rc;
	rc = io_uring_register_buffers(&b->ring, &iov, 1);
	return rc ? rc : io_uring_register_files(&b->ring, &b->fd, 1);
}

static void bare_close(struct bare *b)
{
	if (b->ring.ring_fd > 0)
		io_uring_queue_exit(&b->ring);
	if (b->fd >= 0)
		close(b->fd);
	free(b->mem);
}

static void bare_send(struct bare *b, uint64_t i)
{
	const struct device_load *l = b->load;
	uint64_t n = l->random ? cfs_rng_next(&b->rng) % b->slots : b->next++ % b->slots;
	const struct cfs_dev_req req = { .op = l->op, .flags = l->flags };
	struct io_uring_sqe *sqe = io_uring_get_sqe(&b->ring);
	struct cfs_nvme_cmd cmd;

	CFS_ASSERT(sqe);
	cfs_nvme_cmd_init(&cmd, &req, b->block, n * l->bytes, l->bytes);
	cmd.data = b->mem + i * l->bytes;
	cmd.len = l->bytes;
	memset(sqe, 0, 2 * sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->flags = IOSQE_FIXED_FILE;
	cfs_nvme_sqe_fill(sqe, &cmd, b->nsid, 0);
	io_uring_sqe_set_data64(sqe, i);
}

void device_run_bare(const char *generic, const struct device_load *load, uint64_t span, double seconds,
		     struct device_rate *ret)
{
	struct bare b = { .load = load, .fd = -1, .slots = span / load->bytes };
	struct device_clock since;
	struct io_uring_cqe *cqe;
	uint64_t done = 0, flight = 0, end;
	unsigned head, n;

	*ret = (struct device_rate){ .err = bare_open(&b, generic) };
	if (ret->err)
		goto out;
	cfs_rng_seed(&b.rng, 1);
	since = device_clock_now();
	end = since.wall_ns + (uint64_t)(seconds * 1e9);
	for (; flight < load->depth; flight++)
		bare_send(&b, flight);
	while (flight) {
		uint64_t again[DEVICE_DEPTH_MAX];
		bool over;

		ret->err = io_uring_submit_and_wait(&b.ring, 1);
		if (ret->err < 0)
			break;
		ret->err = 0;
		n = 0;
		io_uring_for_each_cqe(&b.ring, head, cqe) {
			if (cqe->res)
				ret->err = -EIO;
			again[n++] = cqe->user_data;
		}
		io_uring_cq_advance(&b.ring, n);
		flight -= n;
		done += n;
		over = ret->err || device_clock_now().wall_ns >= end;
		for (unsigned i = 0; i < n && !over; i++, flight++)
			bare_send(&b, again[i]);
	}
	device_rate_set(ret, since, done, load->depth);
out:
	bare_close(&b);
}
