/* SPDX-License-Identifier: MIT */
/* sendfd.h - messages of local sockets that may bring a descriptor along (unix(7), SCM_RIGHTS). */
#ifndef CFS_BASE_SENDFD_H
#define CFS_BASE_SENDFD_H

#include <sys/socket.h>

/* sends msg, which has no control data, with fd (-1: none). 0 or -errno */
int cfs_send_fd(int sock, struct msghdr *msg, int fd);

#endif
