// SPDX-License-Identifier: MIT
/*
 * mount_main.c - the processes of a mount: the caller that waits, the daemon with its log, and, for mounts that outlive their
 * daemon, the holder and the programs that go on for it (holder.h, persist.h).
 */
#include "client/mount_i.h"

#include "base/log.h"
#include "client/holder.h"
#include "client/persist.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* in a child of the holder */
static int run_held(const struct cfs_mount_opts *o, int report, int sock, int memfd)
{
	struct cfs_persist *p = NULL;
	char why[160] = "";
	int rc = cfs_persist_open(memfd, &p, why, sizeof(why));

	if (!rc) {
		p->holder = sock;
		return cfs_mount_run(o, report, p);
	}
	if (report >= 0)
		dprintf(report, "%s", why);
	else
		fprintf(stderr, "claudefs: %s\n", why);
	return 1;
}

bool cfs_mount_goes_on(void)
{
	return getenv(CFS_HOLDER_ENV) || cfs_hold_goes_on();
}

/* a program that a holder started to go on with its mount */
static int run_takeover(const struct cfs_mount_opts *o)
{
	struct cfs_persist *p = NULL;
	char why[160] = "";
	int fds[4];

	if (sscanf(getenv(CFS_HOLDER_ENV), "%d,%d,%d,%d", &fds[0], &fds[1], &fds[2], &fds[3]) != 4) {
		fprintf(stderr, "claudefs: %s is not for you to set\n", CFS_HOLDER_ENV);
		return 1;
	}
	unsetenv(CFS_HOLDER_ENV);
	for (int i = 0; i < 4; i++)
		fcntl(fds[i], F_SETFD, FD_CLOEXEC);
	if (cfs_persist_open(fds[1], &p, why, sizeof(why))) {
		cfs_holder_tell(fds[0], CFS_HOLDER_NO, why, -1);
		cfs_err("cannot take over %s: %s", o->mountpoint, why);
		return 1;
	}
	p->holder = fds[0];
	p->fuse_fd = fds[2];
	p->cache_fd = fds[3];
	p->takeover = true;
	return cfs_mount_run(o, -1, p);
}

static int start(const struct cfs_mount_opts *o, int report)
{
	return o->persist == CFS_TIER_WANT_OFF ? cfs_mount_run(o, report, NULL) : cfs_hold(o, report, run_held);
}

static int check_persist(const struct cfs_mount_opts *o)
{
	const char *other = o->uring == CFS_TIER_WANT_ON ? "uring" : o->passthrough == CFS_TIER_WANT_ON ? "passthrough" : NULL;

	if (o->persist == CFS_TIER_WANT_OFF || !other)
		return 0;
	fprintf(stderr, "claudefs: options 'persist' and '%s=on' exclude each other (see mount.claudefs(8))\n", other);
	return -EINVAL;
}

static int start_log(const struct cfs_mount_opts *o)
{
	enum cfs_log_level level = o->debug ? CFS_LOG_DEBUG : CFS_LOG_INFO;
	char path[PATH_MAX], *dot;

	if (o->logfile[0])
		return cfs_log_init("claudefs", o->logfile, level);
	if (o->foreground)
		return cfs_log_init("claudefs", NULL, level);
	/* beside the control socket */
	if (cfs_mount_control_path(o->mountpoint, path, sizeof(path) - 4))
		return cfs_log_init("claudefs", NULL, level);
	dot = strrchr(path, '/');
	*dot = 0;
	if (mkdir(path, 0755) && errno != EEXIST)
		return cfs_log_init("claudefs", NULL, level);
	*dot = '/';
	strcpy(strrchr(path, '.'), ".log");
	if (cfs_log_init("claudefs", path, level))
		return cfs_log_init("claudefs", NULL, level);
	return 0;
}

static int wait_for_child(const struct cfs_mount_opts *o, pid_t pid, int fd)
{
	char text[512];
	size_t n = 0;
	struct stat st;
	ssize_t got;

	while (n < sizeof(text) - 1 && (got = read(fd, text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)got;
	text[n] = 0;
	close(fd);
	if (n == 1 && !text[0]) {
		if (!stat(o->mountpoint, &st))
			return 0;
		fprintf(stderr, "claudefs: %s: %s\n", o->mountpoint, strerror(errno));
		return 1;
	}
	waitpid(pid, NULL, 0);
	fprintf(stderr, "claudefs: %s\n", n ? text : "the process that serves the mount died");
	return 1;
}

int cfs_mount_main(const struct cfs_mount_opts *o)
{
	struct stat st;
	int fds[2], rc;
	pid_t pid;

	if (check_persist(o))
		return 1;
	if (getenv(CFS_HOLDER_ENV)) {
		rc = start_log(o);
		return rc ? 1 : run_takeover(o);
	}
	if (!cfs_mount_goes_on() && (stat(o->mountpoint, &st) || !S_ISDIR(st.st_mode))) {
		fprintf(stderr, "claudefs: mount point %s: %s\n", o->mountpoint,
			S_ISDIR(st.st_mode) ? strerror(errno) : errno == ENOENT ? strerror(errno) : "not a directory");
		return 1;
	}
	if (!o->n_servers) {
		fprintf(stderr, "claudefs: no server was named\n");
		return 1;
	}
	rc = start_log(o);
	if (rc) {
		fprintf(stderr, "claudefs: log file %s: %s\n", o->logfile, strerror(-rc));
		return 1;
	}
	if (o->foreground)
		return start(o, -1);
	if (pipe2(fds, O_CLOEXEC)) {
		fprintf(stderr, "claudefs: pipe: %s\n", strerror(errno));
		return 1;
	}
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		fprintf(stderr, "claudefs: fork: %s\n", strerror(errno));
		return 1;
	}
	if (!pid) {
		close(fds[0]);
		setsid();
		if (chdir("/"))
			cfs_warn("chdir /: %s", strerror(errno));
		exit(start(o, fds[1]));
	}
	close(fds[1]);
	return wait_for_child(o, pid, fds[0]);
}
