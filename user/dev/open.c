/* SPDX-License-Identifier: MIT */
/* open.c - a target's device by its name; see dev.h. No state. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "dev/nvme.h"
#include "ring/loop.h"

bool cfs_dev_is_nvme(const char *name)
{
	const char *base = strrchr(name, '/');
	struct stat st;

	if (!strncmp(name, "nvme:", 5))
		return true;
	base = base ? base + 1 : name;
	return !strncmp(base, "ng", 2) && !stat(name, &st) && S_ISCHR(st.st_mode);
}

int cfs_dev_open(struct cfs_loop *loop, const char *name, uint32_t flags, struct cfs_dev **ret_dev)
{
	struct cfs_nvme_ns ns;
	int rc;

	if (!cfs_dev_is_nvme(name))
		return cfs_dev_block_open(loop, name, flags & CFS_DEV_F_READONLY, ret_dev);
	if (!loop || cfs_loop_is_wide(loop) || flags & (CFS_NVME_IOPOLL | CFS_NVME_SQPOLL))
		return cfs_dev_nvme_open(loop, name, flags, ret_dev);
	/* a kernel without passthrough: the block layer does, but for zones */
	rc = cfs_nvme_identify(name, &ns);
	if (rc)
		return rc;
	if (ns.zoned || !ns.block[0]) {
		cfs_err("%s: this kernel has no NVMe passthrough (it came with Linux 5.19)", name);
		return -EOPNOTSUPP;
	}
	cfs_info("%s: no NVMe passthrough here, going through %s", name, ns.block);
	return cfs_dev_block_open(loop, ns.block, flags & CFS_DEV_F_READONLY, ret_dev);
}

int cfs_dev_loop_create(uint32_t entries, const char *const *names, unsigned n, struct cfs_loop **ret_loop)
{
	bool wide = false;
	int rc = -EINVAL;

	for (unsigned i = 0; i < n; i++)
		wide |= names[i] && cfs_dev_is_nvme(names[i]);
	if (wide)
		rc = cfs_loop_create_with(entries, CFS_LOOP_WIDE, ret_loop);
	return rc == -EINVAL ? cfs_loop_create(entries, ret_loop) : rc;
}
