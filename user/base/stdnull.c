// SPDX-License-Identifier: MIT
#include "base/stdnull.h"

#include <fcntl.h>
#include <unistd.h>

void cfs_stdnull(int last)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return;
	for (int fd = 0; fd <= last; fd++)
		dup2(null, fd);
	if (null > STDERR_FILENO)
		close(null);
}
