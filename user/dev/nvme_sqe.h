/* SPDX-License-Identifier: MIT */
/* nvme_sqe.h - a command in an SQE of 128 bytes; for nvme_port.c and nvme_poll.c. */
#ifndef CFS_DEV_NVME_SQE_H
#define CFS_DEV_NVME_SQE_H

#include <liburing.h>
#include <linux/nvme_ioctl.h>
#include <stddef.h>
#include <string.h>

#include "dev/nvme_i.h"

#ifndef IORING_URING_CMD_FIXED
#define IORING_URING_CMD_FIXED (1u << 0)
#endif

/* the SQE is clear but for opcode, fd and user_data. @buf: slot of registered memory, or -1 */
static inline void cfs_nvme_sqe_fill(struct io_uring_sqe *sqe, const struct cfs_nvme_cmd *cmd, uint32_t nsid,
				     int buf)
{
	struct nvme_uring_cmd c = {
		.opcode = cmd->opcode,
		.nsid = nsid,
		.addr = (uintptr_t)cmd->data,
		.data_len = cmd->n_iov ? cmd->n_iov : cmd->len,
		.cdw10 = cmd->cdw10,
		.cdw11 = cmd->cdw11,
		.cdw12 = cmd->cdw12,
		.cdw13 = cmd->cdw13,
	};

	sqe->cmd_op = cmd->n_iov ? NVME_URING_CMD_IO_VEC : NVME_URING_CMD_IO;
	if (buf >= 0) {
		sqe->uring_cmd_flags = IORING_URING_CMD_FIXED;
		sqe->buf_index = (uint16_t)buf;
	}
	/* the command runs into the second half, which the struct does not have */
	memcpy((char *)sqe + offsetof(struct io_uring_sqe, cmd), &c, sizeof(c));
}

int cfs_nvme_ioctl(int fd, uint32_t nsid, const struct cfs_nvme_cmd *cmd);
void cfs_nvme_pause(struct cfs_nvme_port *port, uint32_t ms);
void cfs_nvme_fds_close(struct cfs_nvme_fds fds);
bool cfs_nvme_fds_removed(struct cfs_nvme_fds fds);

#endif
