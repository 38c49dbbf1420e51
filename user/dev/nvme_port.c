/* SPDX-License-Identifier: MIT */
/*
 * nvme_port.c - NVMe commands on their way to the kernel: IORING_OP_URING_CMD on the loop's own wide ring,
 * and ioctl for those that block. Belongs to the loop's thread; see nvme_i.h.
 *
 * The descriptor is registered with the ring; buffers that lie within registered memory are named by
 * their slot, so that the kernel pins no page for them.
 */
#include <errno.h>
#include <liburing.h>
#include <linux/nvme_ioctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/base.h"
#include "dev/nvme_i.h"
#include "dev/nvme_sqe.h"

struct loop_port {
	struct cfs_nvme_port port;
	struct cfs_loop *loop;
	struct cfs_nvme_fds fds;
	uint32_t nsid;
	int slot;	/* of the ring's file table, or -1 */
};

static struct loop_port *port_of(struct cfs_nvme_port *port)
{
	return cfs_container_of(port, struct loop_port, port);
}

static void complete(struct cfs_ring_op *op, int32_t res, uint32_t cqe_flags)
{
	struct cfs_nvme_io *io = cfs_container_of(op, struct cfs_nvme_io, op);

	(void)cqe_flags;
	io->done(io, res, cfs_loop_cqe_extra(port_of(io->port)->loop));
}

static void loop_submit(struct cfs_nvme_port *port, struct cfs_nvme_io *io)
{
	struct loop_port *p = port_of(port);
	struct io_uring_sqe *sqe = cfs_loop_sqe_cmd(p->loop, 0, p->slot >= 0 ? p->slot : p->fds.ng);
	int buf = io->cmd.n_iov ? -1 : cfs_loop_mem_find(p->loop, io->cmd.data, io->cmd.len);

	io->port = port;
	io->op.done = complete;
	cfs_nvme_sqe_fill(sqe, &io->cmd, p->nsid, buf);
	if (p->slot >= 0)
		sqe->flags |= IOSQE_FIXED_FILE;
	io->registered = buf >= 0;
	cfs_loop_sqe_set(sqe, &io->op);
}

int cfs_nvme_ioctl(int fd, uint32_t nsid, const struct cfs_nvme_cmd *cmd)
{
	struct nvme_passthru_cmd64 c = {
		.opcode = cmd->opcode,
		.nsid = nsid,
		.addr = (uintptr_t)cmd->data,
		.data_len = cmd->len,
		.cdw10 = cmd->cdw10,
		.cdw11 = cmd->cdw11,
		.cdw12 = cmd->cdw12,
		.cdw13 = cmd->cdw13,
	};
	int rc;

	CFS_ASSERT(!cmd->n_iov);
	rc = ioctl(fd, NVME_IOCTL_IO64_CMD, &c);
	return rc < 0 ? -errno : rc;
}

static int loop_sync(struct cfs_nvme_port *port, const struct cfs_nvme_cmd *cmd)
{
	return cfs_nvme_ioctl(port_of(port)->fds.ng, port_of(port)->nsid, cmd);
}

void cfs_nvme_pause(struct cfs_nvme_port *port, uint32_t ms)
{
	(void)port;
	usleep(ms * 1000);
}

static void loop_close(struct cfs_nvme_port *port)
{
	struct loop_port *p = port_of(port);

	if (p->slot >= 0)
		cfs_loop_file_del(p->loop, p->slot);
	cfs_nvme_fds_close(p->fds);
	free(p);
}

void cfs_nvme_fds_close(struct cfs_nvme_fds fds)
{
	if (fds.ng >= 0)
		close(fds.ng);
	if (fds.hold >= 0)
		close(fds.hold);
}

bool cfs_nvme_fds_removed(struct cfs_nvme_fds fds)
{
	char path[64];
	struct stat st;

	if (fstat(fds.ng, &st))
		return false;
	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u", major(st.st_rdev), minor(st.st_rdev));
	return access(path, F_OK) && errno == ENOENT;
}

static bool loop_removed(struct cfs_nvme_port *port)
{
	return cfs_nvme_fds_removed(port_of(port)->fds);
}

static const struct cfs_nvme_port_ops loop_ops = {
	.name = "ring",
	.version = CFS_NVME_PORT_VERSION,
	.submit = loop_submit,
	.sync = loop_sync,
	.pause = cfs_nvme_pause,
	.removed = loop_removed,
	.close = loop_close,
};

int cfs_nvme_port_open(struct cfs_loop *loop, struct cfs_nvme_fds fds, uint32_t nsid, struct cfs_nvme_port **ret)
{
	struct loop_port *p = calloc(1, sizeof(*p));

	if (!p) {
		cfs_nvme_fds_close(fds);
		return -ENOMEM;
	}
	*p = (struct loop_port){ .port.ops = &loop_ops, .loop = loop, .fds = fds, .nsid = nsid, .slot = -1 };
	if (loop) {
		p->slot = cfs_loop_file_add(loop, fds.ng);
		if (p->slot < 0)
			p->slot = -1;	/* the descriptor does as well */
	}
	*ret = &p->port;
	return 0;
}
