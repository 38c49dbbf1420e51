// SPDX-License-Identifier: MIT
/* http.c - see http.h. HTTP/1.0 as far as a collector or curl(1) needs it (RFC 1945): one request, one answer, close. */
#include "obs/http.h"

#include "base/base.h"
#include "base/log.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define REQUEST_BYTES	4096u
#define WAIT_MS		2000	/* for the request, and for each part of the answer to go */

struct cfs_http {
	int fd, stop_fd;
	pthread_t thread;
	cfs_http_page_fn page;
	void *arg;
};

static void send_all(int fd, const char *data, size_t len)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	while (len && poll(&p, 1, WAIT_MS) > 0) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n <= 0)
			return;
		data += n;
		len -= (size_t)n;
	}
}

static void answer(int fd, const char *status, const char *type, const char *body, size_t len)
{
	char head[256];
	int n = snprintf(head, sizeof(head), "HTTP/1.0 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
			 status, type, len);

	send_all(fd, head, (size_t)n);
	send_all(fd, body, len);
}

static void refuse(int fd, const char *status)
{
	char body[128];
	int n = snprintf(body, sizeof(body), "%s\n", status);

	answer(fd, status, "text/plain", body, (size_t)n);
}

/* the header's end has come, or as much as fits, or time is up */
static size_t read_request(int fd, char *buf, size_t room)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	size_t at = 0;

	buf[0] = 0;
	while (at + 1 < room && !strstr(buf, "\r\n\r\n") && !strstr(buf, "\n\n") && poll(&p, 1, WAIT_MS) > 0) {
		ssize_t n = recv(fd, buf + at, room - 1 - at, MSG_DONTWAIT);

		if (n <= 0)
			break;
		at += (size_t)n;
		buf[at] = 0;
	}
	return at;
}

static void serve(struct cfs_http *h, int fd)
{
	char buf[REQUEST_BYTES], method[16], path[128];
	size_t len = 0;
	char *page;

	if (!read_request(fd, buf, sizeof(buf)))
		return;
	if (sscanf(buf, "%15s %127s", method, path) != 2) {
		refuse(fd, "400 Bad Request");
	} else if (strcmp(method, "GET")) {
		refuse(fd, "405 Method Not Allowed");
	} else if (strcmp(path, "/metrics") && strcmp(path, "/")) {
		refuse(fd, "404 Not Found");
	} else {
		page = h->page(h->arg, &len);
		if (page)
			answer(fd, "200 OK", "text/plain; version=0.0.4; charset=utf-8", page, len);
		else
			refuse(fd, "503 Service Unavailable");
		free(page);
	}
}

static void *http_main(void *arg)
{
	struct cfs_http *h = arg;

	for (;;) {
		struct pollfd p[2] = { { .fd = h->fd, .events = POLLIN }, { .fd = h->stop_fd, .events = POLLIN } };
		int fd;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (p[1].revents)
			break;
		fd = p[0].revents ? accept4(h->fd, NULL, NULL, SOCK_CLOEXEC) : -1;
		if (fd < 0)
			continue;
		serve(h, fd);
		close(fd);
	}
	return NULL;
}

int cfs_http_start(uint16_t port, cfs_http_page_fn page, void *arg, struct cfs_http **ret_h)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = { htonl(INADDR_LOOPBACK) } };
	struct cfs_http *h = calloc(1, sizeof(*h));
	int one = 1, rc = 0;

	if (!h)
		return -ENOMEM;
	h->page = page;
	h->arg = arg;
	h->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	h->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (h->fd < 0 || h->stop_fd < 0 || setsockopt(h->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(h->fd, (struct sockaddr *)&sa, sizeof(sa)) || listen(h->fd, 16))
		rc = -errno;
	if (!rc)
		rc = -pthread_create(&h->thread, NULL, http_main, h);
	if (!rc) {
		*ret_h = h;
		return 0;
	}
	if (h->fd >= 0)
		close(h->fd);
	if (h->stop_fd >= 0)
		close(h->stop_fd);
	free(h);
	return rc;
}

void cfs_http_stop(struct cfs_http *h)
{
	uint64_t one = 1;

	if (!h)
		return;
	CFS_ASSERT(write(h->stop_fd, &one, sizeof(one)) == sizeof(one));
	pthread_join(h->thread, NULL);
	close(h->fd);
	close(h->stop_fd);
	free(h);
}
