/* SPDX-License-Identifier: MIT */
/* addr.h - "host:port" and "[v6]:port" to socket addresses, and back. Pure; any thread. */
#ifndef CFS_NET_ADDR_H
#define CFS_NET_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#define CFS_ADDR_MAX	64u	/* bytes of its text with the NUL, as cfs_map_target.addr and cfs_conn.peer */
#define CFS_ADDRS_MAX	8u	/* of one name that are tried */

struct cfs_addr {
	struct sockaddr_storage ss;
	socklen_t len;
};

/**
 * cfs_addr_parse() - addresses of a text; an empty host is every local address.
 * @numeric: never ask a resolver (which may block); a name is -ENOENT then
 * Return: how many (1 .. max), -EINVAL malformed, -ENOENT unknown name, -EAGAIN the resolver failed for now.
 */
int cfs_addr_parse(const char *text, bool numeric, struct cfs_addr *ret_addrs, unsigned max);
/* "1.2.3.4:5" or "[::1]:5" */
void cfs_addr_format(const struct sockaddr *sa, char *text, size_t size);
/* do both ends of a connected socket live on this machine? */
bool cfs_addr_is_local(int fd);
/* TCP_NODELAY, keepalive (dead after 30 s) and user timeout: for every connection of ours. 0 or -errno */
int cfs_addr_tune(int fd);

#endif
