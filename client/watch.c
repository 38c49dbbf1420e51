// SPDX-License-Identifier: MIT
/*
 * watch.c - see watch.h.
 *
 * Client and process speak by a SOCK_SEQPACKET pair: the client sends the device number as 4 bytes, the process answers with a 4-byte
 * errno, 0 when it has opened the connection's abort file. The end of the socket is the end of the client.
 */
#include "client/watch.h"

#include "base/base.h"
#include "base/log.h"
#include "base/stdnull.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANSWER_MS	5000
#define DEATH_SIGNAL	SIGUSR1

/* where the control file system is mounted, or from a mount of our own that no path leads to */
int cfs_watch_open_abort(unsigned minor)
{
	char path[64];
	int fs, dir, fd, err;

	snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/abort", minor);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0 || errno != ENOENT)
		return fd >= 0 ? fd : -errno;
	fs = fsopen("fusectl", FSOPEN_CLOEXEC);
	if (fs < 0)
		return -errno;
	dir = fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) ? -1 : fsmount(fs, FSMOUNT_CLOEXEC, 0);
	err = errno;
	close(fs);
	if (dir < 0)
		return -err;
	snprintf(path, sizeof(path), "%u/abort", minor);
	fd = openat(dir, path, O_WRONLY | O_CLOEXEC);
	err = errno;
	close(dir);
	return fd >= 0 ? fd : -err;
}

/* ---- in the process -------------------------------------------------------------------------------------- */
/* true: go on; false: the client has ended */
static bool hear_client(int sock, int *abort_fd, uint32_t *minor)
{
	int32_t answer;
	ssize_t n = recv(sock, minor, sizeof(*minor), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n != sizeof(*minor))
		return false;
	if (*abort_fd >= 0)
		close(*abort_fd);
	*abort_fd = cfs_watch_open_abort(*minor);
	answer = *abort_fd < 0 ? -*abort_fd : 0;
	return send(sock, &answer, sizeof(answer), MSG_NOSIGNAL) == sizeof(answer);
}

static void watch(pid_t client, int sock, int signals)
{
	struct pollfd p[2] = { { .fd = sock, .events = POLLIN }, { .fd = signals, .events = POLLIN } };
	struct signalfd_siginfo si;
	int abort_fd = -1;
	uint32_t minor = 0;

	for (;;) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return;
		/* who died may have said it before */
		if (p[0].revents && !hear_client(sock, &abort_fd, &minor))
			return;
		/* the kernel sends it in the name of the thread that ended */
		if ((p[1].revents & POLLIN) && read(signals, &si, sizeof(si)) == sizeof(si) && (pid_t)si.ssi_pid == client)
			break;
	}
	if (abort_fd < 0)
		return;
	if (write(abort_fd, "1", 1) == 1)
		cfs_err("process %d, which served the mount, was killed: connection %u is aborted", (int)client, minor);
	else
		cfs_err("process %d, which served the mount, was killed; connection %u cannot be aborted: %s", (int)client, minor, strerror(errno));
}

static _Noreturn void child_main(pid_t client, int sock, int report)
{
	int signals, oom;
	sigset_t all, death;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	sigemptyset(&death);
	sigaddset(&death, DEATH_SIGNAL);
	signals = signalfd(-1, &death, SFD_CLOEXEC);
	prctl(PR_SET_NAME, "claudefs-watch");
	if (signals < 0 || prctl(PR_SET_PDEATHSIG, DEATH_SIGNAL) || getppid() != client)
		_exit(1);
	/* a log may go to the third */
	cfs_stdnull(report >= 0 ? STDERR_FILENO : STDOUT_FILENO);
	if (report > 2)
		close(report);
	if (chdir("/"))
		_exit(1);
	/* where memory is short, the client may be chosen, and we have to survive it */
	oom = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (oom >= 0 && write(oom, "-1000", 5) != 5)
		cfs_debug("the process beside the client can be chosen when memory is short: %s", strerror(errno));
	if (oom >= 0)
		close(oom);
	watch(client, sock, signals);
	_exit(0);
}

/* ---- in the client ---------------------------------------------------------------------------------------- */
int cfs_watch_start(struct cfs_watch *w, int report)
{
	pid_t self = getpid();
	int socks[2], err;

	*w = (struct cfs_watch){ .sock = -1 };
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks))
		return -errno;
	w->pid = fork();
	err = errno;
	if (!w->pid) {
		close(socks[0]);
		child_main(self, socks[1], report);
	}
	close(socks[1]);
	if (w->pid < 0) {
		close(socks[0]);
		w->pid = 0;
		return -err;
	}
	w->sock = socks[0];
	return 0;
}

int cfs_watch_connection(struct cfs_watch *w, unsigned minor)
{
	struct pollfd p = { .fd = w->sock, .events = POLLIN };
	uint32_t number = minor;
	int32_t answer;

	if (!w->pid)
		return -ESRCH;
	if (send(w->sock, &number, sizeof(number), MSG_NOSIGNAL) != sizeof(number))
		return -errno;
	if (poll(&p, 1, ANSWER_MS) != 1)
		return -ETIMEDOUT;
	if (recv(w->sock, &answer, sizeof(answer), MSG_DONTWAIT) != sizeof(answer))
		return -ESRCH;
	return -answer;
}

void cfs_watch_end(struct cfs_watch *w)
{
	if (!w->pid)
		return;
	close(w->sock);
	while (waitpid(w->pid, NULL, 0) < 0 && errno == EINTR)
		;
	w->pid = 0;
}
