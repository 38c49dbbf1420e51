/* SPDX-License-Identifier: MIT */
/* dev.c - what all devices share; see dev.h. */
#include "dev/dev.h"

#include <errno.h>

#include "base/base.h"

void cfs_dev_close(struct cfs_dev *dev)
{
	if (dev)
		dev->ops->close(dev);
}

static int check_iov(const struct cfs_dev_info *info, const struct cfs_dev_req *req)
{
	uint64_t total = 0;

	if (!req->iovcnt || req->iovcnt > CFS_DEV_IOV_MAX)
		return -EINVAL;
	for (uint32_t i = 0; i < req->iovcnt; i++) {
		if (((uintptr_t)req->iov[i].iov_base | req->iov[i].iov_len) & (info->mem_align - 1))
			return -EINVAL;
		total += req->iov[i].iov_len;
	}
	return total == req->len && total && !(total & (info->write_unit - 1)) ? 0 : -EINVAL;
}

int cfs_dev_check(const struct cfs_dev *dev, const struct cfs_dev_req *req)
{
	const struct cfs_dev_info *info = &dev->info;

	if (!req->done || (req->flags & ~CFS_DEV_DURABLE) ||
	    (req->flags && req->op != CFS_DEV_WRITE))
		return -EINVAL;
	if (req->op == CFS_DEV_FLUSH)
		return 0;
	if (req->op > CFS_DEV_DISCARD && !(info->flags & CFS_DEV_F_ZONED))
		return -EINVAL;
	if (req->op != CFS_DEV_READ && (info->flags & CFS_DEV_F_READONLY))
		return -EROFS;
	if ((req->offset | req->len) & (info->write_unit - 1))
		return -EINVAL;
	if (req->offset > info->size_bytes || req->len > info->size_bytes - req->offset)
		return -EINVAL;
	if (req->op == CFS_DEV_READ || req->op == CFS_DEV_WRITE || req->op == CFS_DEV_ZONE_APPEND)
		return check_iov(info, req);
	return 0;
}
