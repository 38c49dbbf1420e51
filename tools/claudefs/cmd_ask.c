/* SPDX-License-Identifier: MIT */
/* cmd_ask.c - one question to a mount on this machine through its control socket (client/control.h). */
#include "cmd.h"

#include "client/mount.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define TIMEOUT_S 5

int cmd_call_mount(const char *dir, const char *line, int *ret_fd)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct iovec iov[2] = { { (void *)(uintptr_t)line, strlen(line) }, { (void *)(uintptr_t)"\n", 1 } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	int fd, rc;

	rc = cfs_mount_control_path(dir, sa.sun_path, sizeof(sa.sun_path));
	if (rc)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)))
		rc = errno == ENOENT || errno == ECONNREFUSED ? -ENOTCONN : -errno;
	else if (sendmsg(fd, &msg, MSG_NOSIGNAL) < 0)
		rc = -errno;
	if (rc)
		close(fd);
	else
		*ret_fd = fd;
	return rc;
}

int cmd_ask_mount(const char *dir, const char *line, char *buf, uint32_t max, uint32_t *ret_len)
{
	struct timeval tv = { .tv_sec = TIMEOUT_S };
	uint32_t got = 0;
	ssize_t n;
	int fd, rc;

	rc = cmd_call_mount(dir, line, &fd);
	if (rc)
		return rc;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	while (got < max && (n = recv(fd, buf + got, max - got, 0)) > 0)
		got += (uint32_t)n;
	close(fd);
	if (got == max || !got)
		return got ? -EMSGSIZE : -EPROTO;
	*ret_len = got;
	return 0;
}
