/* SPDX-License-Identifier: MIT */
/*
 * manager.c - see manager.h
 */
#include "base/manager.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/sendfd.h"

#define LISTEN_FDS_START 3	/* sd_listen_fds(3) */

/* fd -1: none comes along */
static int tell(const char *state, int fd)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	size_t len = path ? strlen(path) : 0;
	struct iovec iov = { (void *)(uintptr_t)state, strlen(state) };
	struct msghdr msg = { .msg_name = &sa, .msg_iov = &iov, .msg_iovlen = 1 };
	int sock, rc;

	if (len < 2 || len >= sizeof(sa.sun_path) || (path[0] != '/' && path[0] != '@'))
		return -ENOTCONN;
	memcpy(sa.sun_path, path, len);
	if (path[0] == '@')
		sa.sun_path[0] = 0;
	msg.msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (sock < 0)
		return -errno;
	rc = cfs_send_fd(sock, &msg, fd);
	if (rc)
		cfs_debug("cannot notify the service manager: %s", strerror(-rc));
	close(sock);
	return rc;
}

int cfs_manager_notify(const char *state)
{
	return tell(state, -1);
}

/* ---- descriptors ---------------------------------------------------------------------------------------- */
bool cfs_manager_keeps(unsigned n)
{
	const char *max = getenv("FDSTORE");

	return getenv("NOTIFY_SOCKET") && max && strtoul(max, NULL, 10) >= n;
}

int cfs_manager_store(const char *name, int fd)
{
	char text[128];

	snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s", name);
	return tell(text, fd);
}

void cfs_manager_unstore(const char *name)
{
	char text[128];

	snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	tell(text, -1);
}

int cfs_manager_stored(const char *name)
{
	const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS"), *names = getenv("LISTEN_FDNAMES");
	size_t len = strlen(name);

	if (!pid || !n || !names || strtol(pid, NULL, 10) != (long)getpid())
		return -1;
	for (int i = 0; i < atoi(n); i++) {
		size_t word = strcspn(names, ":");
		int fd = LISTEN_FDS_START + i;

		if (word == len && !memcmp(names, name, len) && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0)
			return fd;
		names += word;
		names += *names == ':';
	}
	return -1;
}

void cfs_manager_forget(void)
{
	static const char *const all[] = { "NOTIFY_SOCKET", "FDSTORE", "WATCHDOG_USEC", "WATCHDOG_PID",
					   "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES" };

	for (unsigned i = 0; i < CFS_ARRAY_SIZE(all); i++)
		unsetenv(all[i]);
}

/* ---- the watchdog ----------------------------------------------------------------------------------------- */
static void on_watchdog(struct cfs_timer *t)
{
	struct cfs_watchdog *w = cfs_container_of(t, struct cfs_watchdog, timer);

	cfs_manager_notify("WATCHDOG=1");
	cfs_timer_set(w->clock, t, cfs_clock_boot_ns(w->clock) + w->ns);
}

void cfs_watchdog_start(struct cfs_watchdog *w, struct cfs_clock *clock)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	uint64_t v = usec ? strtoull(usec, NULL, 10) : 0;

	if (!v || (pid && strtol(pid, NULL, 10) != (long)getpid()))
		return;
	w->clock = clock;
	w->ns = v * 1000 / 2;
	w->timer.fn = on_watchdog;
	on_watchdog(&w->timer);
}

void cfs_watchdog_stop(struct cfs_watchdog *w)
{
	if (w->ns)
		cfs_timer_cancel(w->clock, &w->timer);
}

void cfs_watchdog_pat(const struct cfs_watchdog *w)
{
	if (w->ns)
		cfs_manager_notify("WATCHDOG=1");
}
