/* SPDX-License-Identifier: MIT */
/* nvme_cmd.c - requests as NVMe commands, and what a command's status means. Pure functions; see nvme_i.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "dev/nvme_i.h"

#define FUA		(1u << 30)	/* cdw12 of write and append: on the medium before completion */
#define DSM_DEALLOCATE	(1u << 2)	/* cdw11 */

uint32_t cfs_nvme_zone_action(enum cfs_dev_op op)
{
	switch (op) {
	case CFS_DEV_ZONE_CLOSE: return 1;
	case CFS_DEV_ZONE_FINISH: return 2;
	case CFS_DEV_ZONE_OPEN: return 3;
	case CFS_DEV_ZONE_RESET: return 4;
	default: CFS_ASSERT(!"not a zone's management"); return 0;
	}
}

void cfs_nvme_cmd_init(struct cfs_nvme_cmd *cmd, const struct cfs_dev_req *req, uint32_t block_bytes,
		       uint64_t at, uint64_t bytes)
{
	uint64_t lba = at / block_bytes;

	*cmd = (struct cfs_nvme_cmd){ .cdw10 = (uint32_t)lba, .cdw11 = (uint32_t)(lba >> 32) };
	switch (req->op) {
	case CFS_DEV_FLUSH:
		cmd->opcode = CFS_NVME_FLUSH;
		cmd->cdw10 = cmd->cdw11 = 0;
		return;
	case CFS_DEV_DISCARD:
		cmd->opcode = CFS_NVME_DSM;
		cmd->cdw10 = 0;		/* one range */
		cmd->cdw11 = DSM_DEALLOCATE;
		return;
	case CFS_DEV_READ:
		cmd->opcode = CFS_NVME_READ;
		break;
	case CFS_DEV_WRITE:
		cmd->opcode = CFS_NVME_WRITE;
		break;
	case CFS_DEV_ZONE_APPEND:
		cmd->opcode = CFS_NVME_ZONE_APPEND;
		break;
	default:
		cmd->opcode = CFS_NVME_ZONE_SEND;
		cmd->cdw13 = cfs_nvme_zone_action(req->op);
		return;
	}
	cmd->cdw12 = (uint32_t)(bytes / block_bytes - 1) | (req->flags & CFS_DEV_DURABLE ? FUA : 0);
}

/* ---- status ------------------------------------------------------------------------------------ */

/* base specification 2.0, figures 97 to 102; zoned 1.1, figure 34. What is not listed is -EIO */
static const struct {
	uint16_t status;
	int16_t err;
	const char *text;
} table[] = {
	{ 0x002, EINVAL, "invalid field in command" },
	{ 0x004, 0, "data transfer error" },
	{ 0x005, 0, "aborted, power loss" },
	{ 0x006, 0, "internal error" },
	{ 0x007, 0, "aborted by request" },
	{ 0x008, 0, "aborted, its queue was deleted" },
	{ 0x00b, ENODEV, "invalid namespace" },
	{ 0x01c, EBUSY, "sanitize in progress" },
	{ 0x020, EROFS, "namespace is write protected" },
	{ 0x021, 0, "command interrupted" },
	{ 0x022, 0, "transient transport error" },
	{ 0x080, EINVAL, "block address out of range" },
	{ 0x081, ENOSPC, "capacity exceeded" },
	{ 0x082, 0, "namespace not ready" },
	{ 0x083, EBADE, "reservation conflict" },
	{ 0x182, EROFS, "attempted write to a read-only range" },
	{ 0x1b8, EINVAL, "zone boundary error" },
	{ 0x1b9, EINVAL, "zone is full" },
	{ 0x1ba, EROFS, "zone is read-only" },
	{ 0x1bb, ENXIO, "zone is offline" },
	{ 0x1bc, EINVAL, "zone invalid write" },
	{ 0x1bd, EOVERFLOW, "too many active zones" },
	{ 0x1be, ETOOMANYREFS, "too many open zones" },
	{ 0x1bf, EINVAL, "invalid zone state transition" },
	{ 0x280, 0, "write fault" },
	{ 0x281, 0, "unrecovered read error" },
	{ 0x286, EACCES, "access denied" },
	{ 0x287, 0, "deallocated or unwritten block" },
	{ 0x300, 0, "internal path error" },
	{ 0x302, 0, "path inaccessible" },
	{ 0x303, 0, "path in transition" },
	{ 0x370, 0, "no path to the controller" },
	{ 0x371, 0, "aborted by the host" },
};

const char *cfs_nvme_status_text(int32_t res, char *buf, size_t len)
{
	const char *text = "error";

	if (res < 0) {
		snprintf(buf, len, "%s", strerror(-res));
		return buf;
	}
	for (size_t i = 0; i < CFS_ARRAY_SIZE(table); i++) {
		if (table[i].status == (res & CFS_NVME_SC_MASK))
			text = table[i].text;
	}
	snprintf(buf, len, "%s (status 0x%x%s)", text, res & CFS_NVME_SC_MASK,
		 res & CFS_NVME_DNR ? ", do not retry" : "");
	return buf;
}

static int status_errno(uint32_t sc)
{
	for (size_t i = 0; i < CFS_ARRAY_SIZE(table); i++) {
		if (table[i].status == sc && table[i].err)
			return -table[i].err;
	}
	return -EIO;
}

static struct cfs_nvme_verdict judge_errno(int32_t res, bool repeatable, bool multipath)
{
	if (res == -EINVAL && multipath)	/* not sent */
		return (struct cfs_nvme_verdict){ .what = CFS_NVME_WAIT_RESET };
	switch (res) {
	case -EAGAIN:		/* not sent: no request or memory was free at once */
	case -ENOMEM:
		return (struct cfs_nvme_verdict){ .what = CFS_NVME_WAIT_RESET, .delay_ms = 1 };
	case -EINTR:		/* cancelled by a reset of the controller, after it was sent */
		if (repeatable)
			return (struct cfs_nvme_verdict){ .what = CFS_NVME_WAIT_RESET };
		return (struct cfs_nvme_verdict){ .what = CFS_NVME_FAILED, .err = -EIO };
	case -ENODEV:
	case -ENXIO:
	case -ESHUTDOWN:
		return (struct cfs_nvme_verdict){ .what = CFS_NVME_FAILED, .err = -ENODEV };
	default:
		return (struct cfs_nvme_verdict){ .what = CFS_NVME_FAILED, .err = res };
	}
}

struct cfs_nvme_verdict cfs_nvme_judge(int32_t res, bool repeatable, const struct cfs_nvme_limits *lim)
{
	uint32_t sc = (uint32_t)res & CFS_NVME_SC_MASK;

	if (!res)
		return (struct cfs_nvme_verdict){ .what = CFS_NVME_DONE };
	if (res < 0)
		return judge_errno(res, repeatable, lim->multipath);
	/* "namespace not ready" is the one that says for certain that nothing has happened */
	if (res & CFS_NVME_DNR || (!repeatable && sc != 0x082))
		return (struct cfs_nvme_verdict){ .what = CFS_NVME_FAILED, .err = status_errno(sc) };
	/* path related, and aborted because queues went away: the controller is being reset */
	if (sc >> 8 == 3 || sc == 0x008)
		return (struct cfs_nvme_verdict){ .what = CFS_NVME_WAIT_RESET };
	/* FAILED's errno goes with it, for the last try */
	return (struct cfs_nvme_verdict){ .what = CFS_NVME_RETRY, .err = status_errno(sc),
					  .delay_ms = lim->crdt_ms[CFS_NVME_CRD(res)] };
}
