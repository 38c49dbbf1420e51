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

bool cfs_dev_can_atomic(const struct cfs_dev_info *info, uint64_t offset, uint64_t len)
{
	if (!len || len > info->atomic_unit || len < info->atomic_min)
		return false;
	if (info->flags & CFS_DEV_F_ATOMIC_POW2 && (len & (len - 1) || offset & (len - 1)))
		return false;
	return !info->atomic_boundary ||
	       offset / info->atomic_boundary == (offset + len - 1) / info->atomic_boundary;
}

static int check_zone(const struct cfs_dev_info *info, const struct cfs_dev_req *req)
{
	if (!(info->flags & CFS_DEV_F_ZONED) || req->offset % info->zone_bytes)
		return -EINVAL;
	if (req->op != CFS_DEV_ZONE_APPEND)
		return req->len ? -EINVAL : 0;
	return req->len > info->append_max ? -EINVAL : 0;
}

int cfs_dev_check(const struct cfs_dev *dev, const struct cfs_dev_req *req)
{
	const struct cfs_dev_info *info = &dev->info;
	bool writes = req->op == CFS_DEV_WRITE || req->op == CFS_DEV_ZONE_APPEND;

	if (!req->done || req->op >= CFS_DEV_OPS ||
	    (req->flags & ~(CFS_DEV_DURABLE | CFS_DEV_ATOMIC)) || (req->flags && !writes))
		return -EINVAL;
	if (req->op == CFS_DEV_FLUSH)
		return 0;
	if ((req->op == CFS_DEV_RESERVE || req->op == CFS_DEV_ROOM) && !(info->flags & CFS_DEV_F_SPARSE))
		return -EINVAL;
	if (req->op != CFS_DEV_READ && (info->flags & CFS_DEV_F_READONLY))
		return -EROFS;
	if ((req->offset | req->len) & (info->write_unit - 1))
		return -EINVAL;
	if (req->offset > info->size_bytes || req->len > info->size_bytes - req->offset)
		return -EINVAL;
	if (req->op > CFS_DEV_DISCARD && check_zone(info, req))
		return -EINVAL;
	if (req->flags & CFS_DEV_ATOMIC && !cfs_dev_can_atomic(info, req->offset, req->len))
		return -EINVAL;
	return req->op == CFS_DEV_READ || writes ? check_iov(info, req) : 0;
}
