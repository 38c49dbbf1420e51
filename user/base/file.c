/* SPDX-License-Identifier: MIT */
/* file.c - see file.h. */
#include "base/file.h"

#include <linux/fs.h>
#include <sys/ioctl.h>

void cfs_file_nocow(int fd)
{
	int flags;	/* an int, whatever the macros' type says */

	if (!ioctl(fd, FS_IOC_GETFLAGS, &flags) && !(flags & FS_NOCOW_FL)) {
		flags |= FS_NOCOW_FL;
		ioctl(fd, FS_IOC_SETFLAGS, &flags);
	}
}
