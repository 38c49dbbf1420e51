/* SPDX-License-Identifier: MIT */
/*
 * nvme_poll.c - NVMe commands through a ring of the device's own, whose completions are polled for
 * (IOPOLL), whose submissions a kernel thread takes (SQPOLL), or both; see nvme_i.h. Belongs to the loop's thread.
 *
 * The loop's own ring cannot do either: it also carries network and timers. While commands are under way,
 * the port posts a function to the loop, which therefore does not sleep; when none is, it costs nothing.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/log.h"
#include "dev/nvme_i.h"
#include "dev/nvme_sqe.h"

#define ENTRIES		CFS_NVME_DEPTH_MAX
#define REAP_BATCH	32u
#define SQ_IDLE_MS	100u	/* then the kernel's thread sleeps */

struct poll_port {
	struct cfs_nvme_port port;
	struct cfs_loop *loop;
	struct cfs_nvme_fds fds;
	struct io_uring ring;
	uint32_t nsid, flight;
	bool posted, file;
};

static void turn(void *arg);

static struct poll_port *port_of(struct cfs_nvme_port *port)
{
	return cfs_container_of(port, struct poll_port, port);
}

static void post(struct poll_port *p)
{
	if (!p->posted)
		p->posted = !cfs_loop_post(p->loop, turn, p);
	CFS_ASSERT(p->posted);	/* one function per port: the loop's bound is far away */
}

static void turn(void *arg)
{
	struct poll_port *p = arg;
	struct io_uring_cqe *cqes[REAP_BATCH];
	struct {
		struct cfs_nvme_io *io;
		int32_t res;
		uint64_t result;
	} got[REAP_BATCH];
	unsigned n;
	int rc;

	p->posted = false;
	/* submits what is queued, and has the kernel look at the drive's completion queue */
	rc = io_uring_submit_and_get_events(&p->ring);
	if (rc < 0 && rc != -EAGAIN && rc != -EBUSY && rc != -EINTR)
		cfs_err("nvme: the polled ring fails: %s", strerror(-rc));
	n = io_uring_peek_batch_cqe(&p->ring, cqes, REAP_BATCH);
	for (unsigned i = 0; i < n; i++) {
		got[i].io = (struct cfs_nvme_io *)(uintptr_t)cqes[i]->user_data;
		got[i].res = cqes[i]->res;
		got[i].result = cqes[i]->big_cqe[0];
	}
	io_uring_cq_advance(&p->ring, n);
	p->flight -= n;
	if (p->flight)
		post(p);
	for (unsigned i = 0; i < n; i++)
		got[i].io->done(got[i].io, got[i].res, got[i].result);
}

static void poll_submit(struct cfs_nvme_port *port, struct cfs_nvme_io *io)
{
	struct poll_port *p = port_of(port);
	struct io_uring_sqe *sqe;
	int buf = -1;

	CFS_ASSERT(p->flight < ENTRIES);
	while (!(sqe = io_uring_get_sqe(&p->ring)))	/* the kernel's thread has not yet taken them all */
		io_uring_sqring_wait(&p->ring);
	memset(sqe, 0, 2 * sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = p->file ? 0 : p->fds.ng;
	sqe->flags = p->file ? IOSQE_FIXED_FILE : 0;
	cfs_nvme_sqe_fill(sqe, &io->cmd, p->nsid, buf);
	io_uring_sqe_set_data(sqe, io);
	p->flight++;
	post(p);
}

static int poll_sync(struct cfs_nvme_port *port, const struct cfs_nvme_cmd *cmd)
{
	return cfs_nvme_ioctl(port_of(port)->fds.ng, port_of(port)->nsid, cmd);
}

static void poll_close(struct cfs_nvme_port *port)
{
	struct poll_port *p = port_of(port);

	CFS_ASSERT(!p->flight && !p->posted);
	io_uring_queue_exit(&p->ring);
	cfs_nvme_fds_close(p->fds);
	free(p);
}

static bool poll_removed(struct cfs_nvme_port *port)
{
	return cfs_nvme_fds_removed(port_of(port)->fds);
}

static const struct cfs_nvme_port_ops poll_ops = {
	.name = "polled",
	.version = CFS_NVME_PORT_VERSION,
	.submit = poll_submit,
	.sync = poll_sync,
	.pause = cfs_nvme_pause,
	.removed = poll_removed,
	.close = poll_close,
};

int cfs_nvme_poll_open(struct cfs_loop *loop, struct cfs_nvme_fds fds, uint32_t nsid, uint32_t flags,
		       struct cfs_nvme_port **ret)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SQE128 | IORING_SETUP_CQE32 |
			 (flags & CFS_NVME_IOPOLL ? IORING_SETUP_IOPOLL : 0) |
			 (flags & CFS_NVME_SQPOLL ? IORING_SETUP_SQPOLL : 0),
		.sq_thread_idle = SQ_IDLE_MS,
	};
	struct poll_port *p = calloc(1, sizeof(*p));
	int rc = -ENOMEM;

	if (!p)
		goto err;
	*p = (struct poll_port){ .port.ops = &poll_ops, .loop = loop, .fds = fds, .nsid = nsid };
	rc = io_uring_queue_init_params(ENTRIES, &p->ring, &params);
	if (rc)
		goto err;
	p->file = !io_uring_register_files(&p->ring, &fds.ng, 1);
	*ret = &p->port;
	return 0;
err:
	cfs_nvme_fds_close(fds);
	free(p);
	return rc;
}
