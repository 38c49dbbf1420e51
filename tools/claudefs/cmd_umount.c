/* SPDX-License-Identifier: MIT */
/*
 * cmd_umount.c - `claudefs umount DIR`, and the same program as umount.fuse.claudefs, which umount(8) calls with
 * DIR [-flnrv] [-N ns] [-t type]: unmounts, and returns when all that was written is saved.
 *
 * umount(2) itself returns as soon as the kernel has let go: FUSE asks its server to finish, and does not wait. So the
 * process behind the mount is waited for, which ends when it has flushed, or has given up (it says so in its log).
 */
#include "cmd.h"

#include "client/mount.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define UMOUNT_OK	0
#define UMOUNT_USAGE	1
#define UMOUNT_FAIL	32
#define TRIES		10u
#define TRY_MS		100
#define BEGIN_MS	2000	/* after that a mount that still answers is mounted in another place, too */
#define END_MS		120000	/* beyond what the mount takes at most: client/mount.c */

static void usage(FILE *f)
{
	fputs("Usage: claudefs umount [-f | -l] DIR\n"
	      "Unmounts DIR and returns when all that was written is saved.\n"
	      "  -f    give up requests that wait for a server; what could not be saved is lost\n"
	      "  -l    detach it now, finish when nothing uses it any more; does not wait\n", f);
}

/* the process that serves the mount at dir, as a descriptor; -1: it is not known */
static int server_of(const char *dir)
{
	struct ucred cred = { .pid = 0 };
	socklen_t len = sizeof(cred);
	int sock = -1, fd = -1, rc;

	/* one that was just mounted in the foreground (-f) listens a moment after it is seen */
	for (unsigned i = 0; (rc = cmd_call_mount(dir, "status", &sock)) == -ENOTCONN && i < TRIES; i++)
		poll(NULL, 0, TRY_MS);
	if (rc)
		return -1;
	if (!getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) && cred.pid > 0)
		fd = (int)syscall(SYS_pidfd_open, cred.pid, 0);
	close(sock);
	return fd;
}

static int await_end(int server, const char *control, const char *dir)
{
	struct pollfd p = { .fd = server, .events = POLLIN };

	if (poll(&p, 1, BEGIN_MS) > 0)
		return UMOUNT_OK;
	if (!access(control, F_OK))
		return UMOUNT_OK;	/* it serves on: a bind mount, or another namespace */
	if (poll(&p, 1, END_MS) > 0)
		return UMOUNT_OK;
	return cmd_fail(UMOUNT_FAIL, "umount", "%s is unmounted, but its process has not ended: see its log", dir);
}

static int run(int argc, char **argv, bool helper)
{
	char dir[PATH_MAX], control[108] = "";
	int c, flags = 0, server, rc = UMOUNT_OK;

	while ((c = getopt(argc, argv, helper ? "flnrvN:t:h" : "flh")) != -1) {
		switch (c) {
		case 'f': flags |= MNT_FORCE; break;
		case 'l': flags |= MNT_DETACH; break;
		case 'n': case 'r': case 'v': case 't': break;
		case 'N': return cmd_fail(UMOUNT_USAGE, "umount", "-N: other namespaces are not supported");
		case 'h':
			usage(stdout);
			return UMOUNT_OK;
		default:
			usage(stderr);
			return UMOUNT_USAGE;
		}
	}
	if (argc - optind != 1) {
		usage(stderr);
		return UMOUNT_USAGE;
	}
	if (!realpath(argv[optind], dir))	/* a mount without its process cannot be looked at, but can be unmounted */
		snprintf(dir, sizeof(dir), "%s", argv[optind]);
	server = server_of(dir);
	if (cfs_mount_control_path(dir, control, sizeof(control)))
		control[0] = 0;
	if (umount2(dir, flags | UMOUNT_NOFOLLOW))
		rc = cmd_fail(UMOUNT_FAIL, "umount", "%s: %s", dir, strerror(errno));
	else if (server >= 0 && !(flags & MNT_DETACH))
		rc = await_end(server, control, dir);
	if (server >= 0)
		close(server);
	return rc;
}

int cmd_umount(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--help")) {
		usage(stdout);
		return UMOUNT_OK;
	}
	return run(argc, argv, false);
}

int cmd_umount_helper(int argc, char **argv)
{
	return run(argc, argv, true);
}
