/* SPDX-License-Identifier: MIT */
/*
 * process.c - see process.h
 */
#include "server/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/stdnull.h"

void cfs_process_init(struct cfs_process *p)
{
	*p = (struct cfs_process){ .err_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3) };
}

void cfs_process_exit(struct cfs_process *p)
{
	if (p->err_fd >= 0)
		close(p->err_fd);
	p->err_fd = -1;
}

int cfs_process_complain(struct cfs_process *p, const char *fmt, ...)
{
	char line[1100];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (p->err_fd >= 0)
		dprintf(p->err_fd, "claudefsd: %s\n", line);
	if (p->err_fd < 0 || p->has_log)
		cfs_err("%s", line);
	return CFS_EXIT_FAILED;
}

int cfs_process_log(struct cfs_process *p, const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	int rc = 0;

	if (fd < 0)
		return -errno;
	if (dup2(fd, STDERR_FILENO) < 0)
		rc = -errno;
	if (fd != STDERR_FILENO)
		close(fd);
	p->has_log |= !rc;
	return rc;
}

int cfs_process_daemonize(struct cfs_process *p)
{
	char buf[1200];
	size_t got = 0;
	int fds[2], status;
	ssize_t n;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid > 0) {
		close(fds[1]);
		while (got < sizeof(buf) - 1 &&
		       (n = read(fds[0], buf + got, sizeof(buf) - 1 - got)) > 0)
			got += (size_t)n;
		buf[got] = 0;
		if (!strcmp(buf, "ok"))
			_exit(0);
		if (got)
			fputs(buf, stderr);
		else if (waitpid(pid, &status, 0) == pid && WIFSIGNALED(status))
			fprintf(stderr, "claudefsd: killed by signal %d while starting\n",
				WTERMSIG(status));
		else
			fputs("claudefsd: ended while starting; see its log\n", stderr);
		_exit(CFS_EXIT_FAILED);
	}
	close(fds[0]);
	setsid();
	cfs_stdnull(STDOUT_FILENO);
	if (chdir("/"))
		return -errno;
	close(p->err_fd);
	p->err_fd = fds[1];
	p->to_parent = true;
	return 0;
}

void cfs_process_serving(struct cfs_process *p)
{
	if (p->to_parent && p->err_fd >= 0 && write(p->err_fd, "ok", 2) != 2)
		cfs_warn("whoever started us is gone");
	cfs_process_exit(p);
}

void cfs_process_raise_limits(void)
{
	struct rlimit rl;

	if (!getrlimit(RLIMIT_NOFILE, &rl) && rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
}

int cfs_process_write_pid(struct cfs_process *p, const char *path)
{
	char text[32];
	int fd, rc = 0, len;

	if (!path || p->pid_file)
		return 0;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	len = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	if (write(fd, text, (size_t)len) != len)
		rc = errno ? -errno : -EIO;
	close(fd);
	p->pid_file = path;
	return rc;
}

void cfs_process_remove_pid(struct cfs_process *p)
{
	if (p->pid_file)
		unlink(p->pid_file);
	p->pid_file = NULL;
}
