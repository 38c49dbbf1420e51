// SPDX-License-Identifier: MIT
/*
 * holder.c - see holder.h.
 *
 * A daemon that was killed need not be gone: a thread of it that has the kernel drop pages may wait for the lock of a page that is being
 * written, by a request that waits for an answer, which now only the next daemon can give. Such a thread runs no more of our
 * code. So the next one is started as soon as another thread of it, which only waits, has ended (a pidfd tells), whether or not the
 * process can be reaped. The first thread would not do: its pidfd waits for all others.
 *
 * Where a service manager keeps descriptors (base/manager.h) ours are with it, too, and the daemon dies with us: the next holder, started
 * by the manager, finds them, waits for the end of that thread, and goes on as after any death of a daemon.
 */
#include "client/holder.h"

#include "base/base.h"
#include "base/log.h"
#include "base/manager.h"
#include "base/sendfd.h"
#include "base/stdnull.h"
#include "client/mount.h"
#include "client/persist.h"
#include "client/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEATHS_MAX	4096u		/* remembered; mount.h bounds the option by it */
#define DEATHS_S	60
#define LEAVE_MS	15000		/* who was told to leave and does not is killed: the same to the next one */
#define GONE_MS		200		/* from the end of that thread to that of the process */
#ifdef PIDFD_THREAD
#define PIDFD_THREAD_	PIDFD_THREAD
#else
#define PIDFD_THREAD_	O_EXCL		/* Linux 6.9 */
#endif
#define OLD_MS		10000		/* after the end of a holder, for that of its daemon */
#define FIRST_FD	3		/* socket, memfd, /dev/fuse, cache directory: in the program that takes over */

/* by these names a service manager keeps our descriptors */
enum { KEPT_STATE, KEPT_FUSE, KEPT_CACHE, KEPT_THREAD, KEPT_N };

static const char *const kept_names[KEPT_N] = { "claudefs-state", "claudefs-fuse", "claudefs-cache", "claudefs-thread" };

struct child {
	pid_t pid;			/* 0: none */
	int sock;
	int thread;			/* pidfd of a thread that does nothing; -1: none */
	bool ready;
};

struct holder {
	const struct cfs_mount_opts *o;
	char exe[PATH_MAX];
	int memfd, fuse_fd, cache_fd, signal_fd;
	int abort_fd;			/* ends the connection; -1: not ours to end */
	struct child now, next;
	bool kept;			/* a service manager has them, too */
	bool upgrading, ending;
	uint64_t leave_by_ns;		/* 0: nobody was told to leave */
	uint64_t gone_by_ns;		/* that thread has ended, and the rest should have until then; 0: it runs */
	sigset_t old_mask;
	uint64_t deaths[DEATHS_MAX];	/* when, a ring */
	unsigned n_deaths;
};

/* ---- messages ---------------------------------------------------------------------------------- */
int cfs_holder_tell(int sock, char what, const char *text, int fd)
{
	struct iovec iov[2] = { { &what, 1 }, { (void *)(uintptr_t)text, text ? strlen(text) : 0 } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

	return cfs_send_fd(sock, &msg, fd);
}

/* its letter; 0: the other side has gone. *ret_fd: a descriptor that came along, or -1 */
static int take_message(int sock, char *text, size_t len, int *ret_fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	char what = 0;
	struct iovec iov[2] = { { &what, 1 }, { text, len - 1 } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof(control) };
	struct cmsghdr *cm;
	ssize_t n;

	*ret_fd = -1;
	do {
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		return 0;
	text[n - 1] = 0;
	cm = CMSG_FIRSTHDR(&msg);
	if (cm && cm->cmsg_level == SOL_SOCKET && cm->cmsg_type == SCM_RIGHTS && cm->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(ret_fd, CMSG_DATA(cm), sizeof(int));
	return what;
}

int cfs_holder_hear(int sock, int timeout_ms, char *text, size_t len)
{
	struct pollfd p = { .fd = sock, .events = POLLIN };
	int fd, what, n;

	do {
		n = poll(&p, 1, timeout_ms);
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n ? -errno : -ETIMEDOUT;
	what = take_message(sock, text, len, &fd);
	if (fd >= 0)
		close(fd);
	return what;
}

static void *watched_main(void *arg)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", (int)gettid());
	cfs_holder_tell(*(int *)arg, CFS_HOLDER_THREAD, text, -1);
	free(arg);
	for (;;)
		pause();
	return NULL;
}

int cfs_holder_watch_me(int sock)
{
	int *arg = malloc(sizeof(*arg)), rc;
	pthread_attr_t attr;
	pthread_t thread;

	if (!arg)
		return -ENOMEM;
	*arg = sock;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	rc = -pthread_create(&thread, &attr, watched_main, arg);
	pthread_attr_destroy(&attr);
	if (rc)
		free(arg);
	return rc;
}

/* ---- what a service manager keeps ------------------------------------------------------------------------ */
static void keep(struct holder *h, int which, int fd)
{
	int rc;

	if (!h->kept || fd < 0)
		return;
	cfs_manager_unstore(kept_names[which]);
	rc = cfs_manager_store(kept_names[which], fd);
	if (rc)
		cfs_warn("the service manager does not keep %s: %s", kept_names[which], strerror(-rc));
}

static void keep_nothing(struct holder *h)
{
	for (int i = 0; i < KEPT_N && h->kept; i++)
		cfs_manager_unstore(kept_names[i]);
}

static void close_kept(int fd)
{
	if (fd >= 0)
		close(fd);
}

/* what the holder before left with it. 1: a mount to go on with, 0: none, -errno: there is one, and nobody may go on with it */
static int find_kept(struct holder *h)
{
	struct pollfd old = { .fd = cfs_manager_stored(kept_names[KEPT_THREAD]), .events = POLLIN };
	int rc = 1;

	h->memfd = cfs_manager_stored(kept_names[KEPT_STATE]);
	h->fuse_fd = cfs_manager_stored(kept_names[KEPT_FUSE]);
	h->cache_fd = cfs_manager_stored(kept_names[KEPT_CACHE]);
	if (old.fd >= 0 && poll(&old, 1, OLD_MS) <= 0)
		rc = -EBUSY;	/* it was to die with its holder */
	close_kept(old.fd);
	if (rc > 0 && (h->memfd < 0 || h->fuse_fd < 0 || h->cache_fd < 0)) {	/* died before it had mounted */
		keep_nothing(h);
		close_kept(h->memfd);
		close_kept(h->fuse_fd);
		close_kept(h->cache_fd);
		h->memfd = h->fuse_fd = h->cache_fd = -1;
		rc = 0;
	}
	return rc;
}

bool cfs_hold_goes_on(void)
{
	return cfs_manager_stored(kept_names[KEPT_FUSE]) >= 0;
}

/* in the child: without a service manager it outlives us, and says so */
static void follow_holder(struct holder *h, pid_t holder)
{
	if (h->kept && (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != holder))
		_exit(127);
	cfs_manager_forget();
}

/* ---- children ------------------------------------------------------------------------------------- */
static void forget(struct child *ch)
{
	if (ch->sock >= 0)
		close(ch->sock);
	if (ch->thread >= 0)
		close(ch->thread);
	*ch = (struct child){ .sock = -1, .thread = -1 };
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * CFS_NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

static void watch_thread(struct child *ch, pid_t tid)
{
	if (ch->thread < 0 && tid > 0)
		ch->thread = (int)syscall(SYS_pidfd_open, tid, PIDFD_THREAD_);
	if (ch->thread < 0)
		cfs_warn("cannot watch the daemon's threads: %s", strerror(errno));
}

/* in the child: the descriptors at their numbers, all others closed by exec */
static void become_daemon(struct holder *h, int sock)
{
	int fds[4] = { sock, h->memfd, h->fuse_fd, h->cache_fd };
	char env[64];

	for (int i = 0; i < 4; i++) {
		fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, FIRST_FD + 16);
		if (fds[i] < 0)
			return;
	}
	for (int i = 0; i < 4; i++)
		if (dup2(fds[i], FIRST_FD + i) < 0)
			return;
	snprintf(env, sizeof(env), "%d,%d,%d,%d", FIRST_FD, FIRST_FD + 1, FIRST_FD + 2, FIRST_FD + 3);
	setenv(CFS_HOLDER_ENV, env, 1);
	sigprocmask(SIG_SETMASK, &h->old_mask, NULL);
	execv(h->exe, (char **)(uintptr_t)h->o->restart_argv);
}

/* another daemon, which will say whether it can take over */
static int start_next(struct holder *h)
{
	pid_t pid, self = getpid();
	int pair[2], rc;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	pid = fork();
	if (!pid) {
		close(pair[0]);
		follow_holder(h, self);
		become_daemon(h, pair[1]);
		cfs_err("cannot run %s: %s", h->exe, strerror(errno));
		_exit(127);
	}
	rc = pid < 0 ? -errno : 0;
	close(pair[1]);
	if (rc) {
		close(pair[0]);
		return rc;
	}
	h->next = (struct child){ .pid = pid, .sock = pair[0], .thread = -1 };
	return 0;
}

/* true: too many, too fast */
static bool note_death(struct holder *h)
{
	unsigned max = h->o->persist_deaths, i = h->n_deaths++ % DEATHS_MAX;

	h->deaths[i] = now_ns();
	if (h->n_deaths <= max)
		return false;
	return h->deaths[i] - h->deaths[(h->n_deaths - 1 - max) % DEATHS_MAX] < DEATHS_S * CFS_NSEC_PER_SEC;
}

static void let_go(struct holder *h, const char *why)
{
	h->now = h->next;
	h->next = (struct child){ .sock = -1, .thread = -1 };
	h->upgrading = false;
	h->leave_by_ns = 0;
	keep(h, KEPT_THREAD, h->now.thread);
	cfs_holder_tell(h->now.sock, CFS_HOLDER_GO, why, -1);
	cfs_manager_notify("READY=1");
}

/* the daemon has ended. -1: go on, else the exit code */
static int daemon_ended(struct holder *h, int status)
{
	bool left = WIFEXITED(status) && WEXITSTATUS(status) == CFS_EXIT_LEFT;
	bool upgrading = h->upgrading;
	int rc;

	forget(&h->now);
	h->gone_by_ns = 0;
	if (!left && WIFEXITED(status)) {	/* unmounted, or it could not mount */
		if (h->next.pid)
			kill(h->next.pid, SIGKILL);
		return WEXITSTATUS(status);
	}
	if (h->fuse_fd < 0 || h->ending)
		return 1;
	if (!left) {
		cfs_err("the daemon was ended by signal %d%s", WTERMSIG(status), upgrading ? " while it was to be replaced" : "");
		if (note_death(h)) {
			cfs_err("the daemon died more than %u times within a minute: the mount at %s ends here", h->o->persist_deaths,
				h->o->mountpoint);
			if (h->next.pid)
				kill(h->next.pid, SIGKILL);
			return 1;
		}
	}
	if (h->next.pid && h->next.ready) {
		let_go(h, left ? "U" : "D");
		return -1;
	}
	h->upgrading = false;
	rc = h->next.pid ? 0 : start_next(h);
	if (rc)
		cfs_err("no other daemon can be started: %s: the mount at %s ends here", strerror(-rc), h->o->mountpoint);
	return rc ? 1 : -1;
}

/* who was to take over has ended before it did */
static int next_ended(struct holder *h, int status)
{
	bool was_ready = h->next.ready;

	forget(&h->next);
	if (h->now.pid) {		/* then there will be no upgrade; if it had agreed, the daemon is leaving already */
		if (h->upgrading && !was_ready)
			cfs_holder_tell(h->now.sock, CFS_HOLDER_NO, "the new program ended before it could take over", -1);
		h->upgrading = false;
		return -1;
	}
	if (!WIFSIGNALED(status) || note_death(h) || start_next(h)) {
		cfs_err("no other daemon can take over: the mount at %s ends here", h->o->mountpoint);
		return 1;
	}
	return -1;
}

static int reap(struct holder *h)
{
	int status, code = -1;
	pid_t pid;

	if (h->gone_by_ns && now_ns() >= h->gone_by_ns) {
		/* told to leave, it has finished what it could; else what ended it is not known yet, but it was no exit of its own */
		cfs_warn("the daemon has ended, but the kernel still holds threads of it up");
		return daemon_ended(h, h->leave_by_ns ? W_EXITCODE(CFS_EXIT_LEFT, 0) : W_EXITCODE(0, SIGKILL));
	}
	while (code < 0 && (pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == h->now.pid)
			code = daemon_ended(h, status);
		else if (pid == h->next.pid)
			code = next_ended(h, status);
	}
	return code;
}

/* ---- the connection ------------------------------------------------------------------------------------ */
/* just mounted, so that the mount point is the mount's */
static void learn_abort(struct holder *h)
{
	unsigned major, minor;
	int rc = cfs_mount_device(h->o->mountpoint, &major, &minor);

	if (!rc)
		rc = h->abort_fd = cfs_watch_open_abort(minor);
	if (rc < 0)
		cfs_warn("the connection of %s cannot be aborted should that be needed: %s", h->o->mountpoint, strerror(-rc));
}

/* no daemon will come, and one that was killed may have a thread that sleeps until its connection has ended */
static void end_connection(struct holder *h)
{
	if (h->abort_fd >= 0 && write(h->abort_fd, "1", 1) != 1)
		cfs_warn("the connection of %s could not be aborted: %s", h->o->mountpoint, strerror(errno));
}

/* ---- the loop ---------------------------------------------------------------------------------------- */
static void hear_daemon(struct holder *h)
{
	char text[CFS_HOLDER_TEXT_MAX];
	int fd, rc;

	switch (take_message(h->now.sock, text, sizeof(text), &fd)) {
	case CFS_HOLDER_FD:
		if (h->fuse_fd < 0) {
			h->fuse_fd = fd;
			fd = -1;
			learn_abort(h);
			keep(h, KEPT_FUSE, h->fuse_fd);
			cfs_manager_notify("READY=1");
		}
		break;
	case CFS_HOLDER_THREAD:
		watch_thread(&h->now, atoi(text));
		keep(h, KEPT_THREAD, h->now.thread);
		break;
	case CFS_HOLDER_END:
		if (h->now.thread >= 0)
			close(h->now.thread);
		h->now.thread = -1;
		h->ending = true;
		break;
	case CFS_HOLDER_CACHE:
		if (h->cache_fd < 0) {
			h->cache_fd = fd;
			fd = -1;
			keep(h, KEPT_CACHE, h->cache_fd);
		}
		break;
	case CFS_HOLDER_UPGRADE:
		if (h->next.pid && !h->upgrading) {	/* it has refused, and is about to end */
			kill(h->next.pid, SIGKILL);
			waitpid(h->next.pid, NULL, 0);
			forget(&h->next);
		}
		rc = h->upgrading ? -EBUSY : start_next(h);
		h->upgrading = true;
		if (rc)
			cfs_holder_tell(h->now.sock, CFS_HOLDER_NO, strerror(-rc), -1);
		break;
	case 0:		/* it is dying: SIGCHLD tells more */
		close(h->now.sock);
		h->now.sock = -1;
		break;
	}
	if (fd >= 0)
		close(fd);
}

static void hear_next(struct holder *h)
{
	char text[CFS_HOLDER_TEXT_MAX];
	int fd;

	switch (take_message(h->next.sock, text, sizeof(text), &fd)) {
	case CFS_HOLDER_THREAD:
		watch_thread(&h->next, atoi(text));
		break;
	case CFS_HOLDER_READY:
		h->next.ready = true;
		if (!h->now.pid) {
			let_go(h, "D");
			break;
		}
		h->leave_by_ns = now_ns() + LEAVE_MS * CFS_NSEC_PER_MSEC;
		cfs_holder_tell(h->now.sock, CFS_HOLDER_LEAVE, NULL, -1);
		break;
	case CFS_HOLDER_NO:
		if (h->now.pid)
			cfs_holder_tell(h->now.sock, CFS_HOLDER_NO, text, -1);
		else
			cfs_err("the mount at %s cannot be taken over: %s", h->o->mountpoint, text);
		h->upgrading = false;
		break;
	case 0:
		close(h->next.sock);
		h->next.sock = -1;
		break;
	}
	if (fd >= 0)
		close(fd);
}

static void obey_signal(struct holder *h)
{
	struct signalfd_siginfo si;

	while (read(h->signal_fd, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGCHLD)
			continue;
		h->ending = true;
		if (h->now.pid)
			kill(h->now.pid, (int)si.ssi_signo);
		else if (h->next.pid)
			kill(h->next.pid, SIGKILL);
	}
}

/* until something is late. Told to leave and still there: it is dead to us */
static int patience_ms(struct holder *h)
{
	uint64_t now = now_ns(), until = h->gone_by_ns;

	if (h->leave_by_ns && now >= h->leave_by_ns && !h->gone_by_ns) {
		cfs_warn("the daemon does not leave: killed");
		kill(h->now.pid, SIGKILL);
		h->leave_by_ns = 0;
	} else if (h->leave_by_ns && (!until || h->leave_by_ns < until)) {
		until = h->leave_by_ns;
	}
	if (!until)
		return -1;
	return until <= now ? 0 : (int)((until - now) / CFS_NSEC_PER_MSEC) + 1;
}

static int hold(struct holder *h)
{
	int code = -1;

	while (code < 0) {
		struct pollfd p[4] = { { .fd = h->signal_fd, .events = POLLIN }, { .fd = h->now.sock, .events = POLLIN },
				       { .fd = h->next.sock, .events = POLLIN },
				       { .fd = h->gone_by_ns ? -1 : h->now.thread, .events = POLLIN } };

		if (poll(p, 4, patience_ms(h)) < 0 && errno != EINTR)
			return 1;
		/* what a daemon said before it died counts: so its words come first */
		if (p[1].revents)
			hear_daemon(h);
		if (p[2].revents)
			hear_next(h);
		if (p[3].revents)
			h->gone_by_ns = now_ns() + GONE_MS * CFS_NSEC_PER_MSEC;
		if (p[0].revents)
			obey_signal(h);
		code = reap(h);
	}
	return code;
}

static int find_program(struct holder *h)
{
	static const char gone[] = " (deleted)";
	ssize_t n = readlink("/proc/self/exe", h->exe, sizeof(h->exe) - 1);

	if (n < 0)
		return -errno;
	h->exe[n] = 0;
	/* what takes its place later is meant */
	if ((size_t)n > strlen(gone) && !strcmp(h->exe + n - strlen(gone), gone))
		h->exe[(size_t)n - strlen(gone)] = 0;
	return 0;
}

/* the first daemon, which is to mount. 0 or -errno */
static int start_first(struct holder *h, int report, int (*first)(const struct cfs_mount_opts *o, int report, int sock, int memfd))
{
	const struct cfs_mount_opts *o = h->o;
	pid_t self = getpid();
	int pair[2], rc;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	fflush(NULL);
	h->now.pid = fork();
	if (!h->now.pid) {
		int memfd = h->memfd;

		follow_holder(h, self);
		sigprocmask(SIG_SETMASK, &h->old_mask, NULL);
		close(pair[0]);
		free(h);
		exit(first(o, report, pair[1], memfd));
	}
	rc = h->now.pid < 0 ? -errno : 0;
	close(pair[1]);
	if (rc)
		close(pair[0]);
	else
		h->now.sock = pair[0];
	return rc;
}

int cfs_hold(const struct cfs_mount_opts *o, int report, int (*first)(const struct cfs_mount_opts *o, int report, int sock,
								      int memfd))
{
	struct holder *h = calloc(1, sizeof(*h));
	int rc = h ? 0 : -ENOMEM, found = 0;
	const char *why = NULL;
	sigset_t set;

	CFS_ASSERT(o->restart_argv && o->persist_deaths < DEATHS_MAX);
	if (!rc) {
		*h = (struct holder){ .o = o, .memfd = -1, .fuse_fd = -1, .cache_fd = -1, .abort_fd = -1, .now = { .sock = -1, .thread = -1 },
				      .next = { .sock = -1, .thread = -1 }, .kept = cfs_manager_keeps(KEPT_N) };
		rc = find_program(h);
	}
	if (!rc && h->kept)
		found = find_kept(h);
	if (found < 0) {
		rc = found;
		why = "the daemon of before lives without its holder: end it first";
	}
	if (!rc && !found)
		rc = cfs_persist_new(&h->memfd);
	if (rc)
		goto fail;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, &h->old_mask);
	if (!found)
		keep(h, KEPT_STATE, h->memfd);
	else
		cfs_info("the holder before has ended: going on with the mount at %s", o->mountpoint);
	rc = found ? start_next(h) : start_first(h, report, first);
	if (rc)
		goto fail;
	if (report >= 0) {
		close(report);
		cfs_stdnull(STDERR_FILENO);
	}
	h->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	rc = h->signal_fd < 0 ? 1 : hold(h);
	keep_nothing(h);
	if (rc)
		end_connection(h);
	free(h);	/* descriptors end with us: the last of /dev/fuse ends the connection */
	return rc;
fail:
	if (report >= 0)
		dprintf(report, "cannot hold the mount: %s", why ? why : strerror(-rc));
	else
		fprintf(stderr, "claudefs: cannot hold the mount: %s\n", why ? why : strerror(-rc));
	free(h);
	return 1;
}
