/* SPDX-License-Identifier: MIT */
/* addr.c - see addr.h. */
#include "net/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

#define KEEPALIVE_IDLE_S	10
#define KEEPALIVE_EVERY_S	5
#define KEEPALIVE_PROBES	4
#define USER_TIMEOUT_MS		30000u

/* split "host:port" or "[v6]:port"; host without brackets */
static int split(const char *text, char *host, size_t host_size, const char **ret_port)
{
	const char *end, *port = strrchr(text, ':');
	char *stop;
	long n;

	if (!port)
		return -EINVAL;
	end = port++;
	if (*text == '[') {
		if (end == text || end[-1] != ']')
			return -EINVAL;
		text++;
		end--;
	} else if (memchr(text, ':', (size_t)(end - text))) {
		return -EINVAL;	/* a bare v6 address: where would its port begin? */
	}
	if ((size_t)(end - text) >= host_size)
		return -EINVAL;
	memcpy(host, text, (size_t)(end - text));
	host[end - text] = '\0';
	n = strtol(port, &stop, 10);
	if (*port < '0' || *port > '9' || *stop || n > 65535)
		return -EINVAL;
	*ret_port = port;
	return 0;
}

int cfs_addr_parse(const char *text, bool numeric, struct cfs_addr *ret_addrs, unsigned max)
{
	struct addrinfo hints = {
		.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_NUMERICSERV | (numeric ? AI_NUMERICHOST : 0),
	}, *list = NULL, *ai;
	char host[256];
	const char *port;
	unsigned n = 0;
	int rc = split(text, host, sizeof(host), &port);

	if (rc)
		return rc;
	if (!host[0])
		hints.ai_flags |= AI_PASSIVE;
	rc = getaddrinfo(host[0] ? host : NULL, port, &hints, &list);
	if (rc)
		return rc == EAI_AGAIN || rc == EAI_MEMORY || rc == EAI_SYSTEM ? -EAGAIN : -ENOENT;
	for (ai = list; ai && n < max; ai = ai->ai_next) {
		if (ai->ai_addrlen > sizeof(ret_addrs[n].ss))
			continue;
		memcpy(&ret_addrs[n].ss, ai->ai_addr, ai->ai_addrlen);
		ret_addrs[n++].len = ai->ai_addrlen;
	}
	freeaddrinfo(list);
	return n ? (int)n : -ENOENT;
}

void cfs_addr_format(const struct sockaddr *sa, char *text, size_t size)
{
	char host[INET6_ADDRSTRLEN] = "?";

	if (sa->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)sa;

		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(text, size, "%s:%u", host, ntohs(in->sin_port));
	} else if (sa->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const void *)sa;

		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		snprintf(text, size, "[%s]:%u", host, ntohs(in6->sin6_port));
	} else {
		snprintf(text, size, "family %u", sa->sa_family);
	}
}

bool cfs_addr_is_local(int fd)
{
	struct sockaddr_storage a, b;
	socklen_t la = sizeof(a), lb = sizeof(b);

	memset(&a, 0, sizeof(a));
	memset(&b, 0, sizeof(b));
	if (getsockname(fd, (struct sockaddr *)&a, &la) || getpeername(fd, (struct sockaddr *)&b, &lb))
		return false;
	if (a.ss_family != b.ss_family)
		return false;
	/* what goes to an address of our own goes over the loopback device, whichever address it is */
	if (a.ss_family == AF_INET)
		return ((struct sockaddr_in *)&a)->sin_addr.s_addr ==
			       ((struct sockaddr_in *)&b)->sin_addr.s_addr ||
		       ntohl(((struct sockaddr_in *)&b)->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	return a.ss_family == AF_INET6 && !memcmp(&((struct sockaddr_in6 *)&a)->sin6_addr,
						  &((struct sockaddr_in6 *)&b)->sin6_addr, 16);
}

int cfs_addr_tune(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S },
		{ IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_EVERY_S },
		{ IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS },
	};

	for (unsigned i = 0; i < CFS_ARRAY_SIZE(options); i++)
		if (setsockopt(fd, options[i].level, options[i].name, &options[i].value,
			       sizeof(options[i].value)))
			return -errno;
	return 0;
}
