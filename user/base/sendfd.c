/* SPDX-License-Identifier: MIT */
/*
 * sendfd.c - see sendfd.h
 */
#include "base/sendfd.h"

#include <errno.h>
#include <string.h>

int cfs_send_fd(int sock, struct msghdr *msg, int fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { .room = { 0 } };
	int rc;

	if (fd >= 0) {
		msg->msg_control = &control;
		msg->msg_controllen = sizeof(control);
		control.head = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET,
						 .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	}
	rc = sendmsg(sock, msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
	msg->msg_control = NULL;
	msg->msg_controllen = 0;
	return rc;
}
