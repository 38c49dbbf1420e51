/* SPDX-License-Identifier: MIT */
/*
 * main.c - claudefsd: options, configuration, signals and the service manager around one struct
 * cfs_node.
 *
 * The log goes to stderr; with a log file, descriptor 2 is that file, so that what libraries and
 * sanitizers say lands there, too, and SIGHUP replaces it in one step. Until the server serves, its
 * errors are one line on the stderr of whoever started it; with --daemon the parent prints that
 * line.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "ring/loop.h"
#include "sched/sched.h"
#include "server/cluster/config.h"
#include "server/cluster/node.h"
#include "server/metrics.h"
#include "server/watch.h"

#ifndef CFS_VERSION
#define CFS_VERSION "0.1"
#endif

#define RING_ENTRIES	1024u	/* it grows when it must */
#define STOP_MAX_NS	(10 * CFS_NSEC_PER_SEC)
#define RETURN_PAUSE_US	1000000u	/* between two looks for a device that is gone */
#define EXIT_FAILED	1
#define EXIT_USAGE	2

struct server {
	struct cfs_config config;
	struct cfs_loop *loop;
	struct cfs_clock *clock;
	struct cfs_net *net, *local_net;
	struct cfs_dev *devs[CFS_NODE_TARGETS_MAX];
	struct cfs_node_target targets[CFS_NODE_TARGETS_MAX];
	unsigned n_targets;
	struct cfs_node *node;
	struct cfs_server_metrics *metrics;
	struct cfs_sched *sched;
	struct cfs_timer sched_look;
	struct cfs_watch watch;
	struct cfs_timer watchdog;
	uint64_t watchdog_ns;		/* 0: none asked for */
	bool started, failed, stopped;
	bool again;			/* devices that were gone are back: start anew */
	char why[1024];
	int err_fd;			/* who started us, until we serve; -1 then */
	bool to_parent;			/* err_fd is the pipe of --daemon */
	bool pid_written;
};

static volatile sig_atomic_t want_stop, want_reopen;
static struct cfs_loop *signal_loop;

static void usage(FILE *f)
{
	fputs("Usage: claudefsd [OPTION]...\n"
	      "The ClaudeFS server: keeps metadata and file data on its targets and serves them.\n\n"
	      "  -c, --config FILE       read FILE first, see claudefsd.conf(5); options win\n"
	      "      --listen HOST:PORT  where to listen (default 127.0.0.1:9510)\n"
	      "      --advertise H:PORT  what clients are told to connect to (default: made from listen)\n"
	      "      --target PATH       a formatted file or block device; may be repeated\n"
	      "      --state-dir DIR     where the working copy of the metadata lives (/var/lib/claudefs)\n"
	      "      --log-file FILE     log there instead of stderr; SIGHUP opens it anew\n"
	      "      --log-level LEVEL   error, warning, info (default) or debug\n"
	      "      --metrics-port PORT metrics for Prometheus on 127.0.0.1:PORT (default: none)\n"
	      "      --sched MODE        threads by class with sched_ext: auto (default), ext or off\n"
	      "      --pid-file FILE     write the process id there while serving\n"
	      "      --foreground        stay in the foreground (default)\n"
	      "      --daemon            go to the background; return when serving, or with the error\n"
	      "      --check-config      say whether the configuration is right, and exit\n"
	      "  -h, --help              this text\n"
	      "  -V, --version           the version\n\n"
	      "Make a target with 'claudefs format'. Exits 0 after SIGTERM, 1 on an error, 2 on wrong use.\n", f);
}

/* one line to who started us, and to the log if that is another place; returns EXIT_FAILED */
CFS_PRINTF(2, 3) static int complain(struct server *s, const char *fmt, ...)
{
	char line[1100];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (s->err_fd >= 0)
		dprintf(s->err_fd, "claudefsd: %s\n", line);
	if (s->err_fd < 0 || s->config.log_file)
		cfs_err("%s", line);
	return EXIT_FAILED;
}

/* ---- the service manager: sd_notify(3)'s protocol -------------------------------------------- */

static void notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	size_t len = path ? strlen(path) : 0;
	int fd;

	if (len < 2 || len >= sizeof(sa.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(sa.sun_path, path, len);
	if (path[0] == '@')
		sa.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&sa,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
		cfs_debug("cannot notify the service manager: %s", strerror(errno));
	close(fd);
}

static void on_watchdog(struct cfs_timer *t)
{
	struct server *s = cfs_container_of(t, struct server, watchdog);

	notify("WATCHDOG=1");
	cfs_timer_set(s->clock, t, cfs_clock_boot_ns(s->clock) + s->watchdog_ns);
}

static void watchdog_start(struct server *s)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	uint64_t v = usec ? strtoull(usec, NULL, 10) : 0;

	if (!v || (pid && strtol(pid, NULL, 10) != (long)getpid()))
		return;
	s->watchdog_ns = v * 1000 / 2;
	s->watchdog.fn = on_watchdog;
	on_watchdog(&s->watchdog);
}

/* the kernel ends a scheduler without a word to us */
static void on_sched_look(struct cfs_timer *t)
{
	struct server *s = cfs_container_of(t, struct server, sched_look);

	if (cfs_sched_check(s->sched))
		cfs_warn("scheduler %s", cfs_sched_text(s->sched));
	cfs_timer_set(s->clock, t, cfs_clock_boot_ns(s->clock) + CFS_NSEC_PER_SEC);
}

/* ---- options --------------------------------------------------------------------------------- */

struct options {
	bool check, daemon;
};

enum { OPT_KEY = 256, OPT_CHECK = 512, OPT_DAEMON, OPT_FOREGROUND };

static const struct option long_options[] = {
	{ "config", required_argument, NULL, 'c' },
	{ "listen", required_argument, NULL, OPT_KEY },
	{ "advertise", required_argument, NULL, OPT_KEY + 1 },
	{ "target", required_argument, NULL, OPT_KEY + 2 },
	{ "state-dir", required_argument, NULL, OPT_KEY + 3 },
	{ "log-file", required_argument, NULL, OPT_KEY + 4 },
	{ "log-level", required_argument, NULL, OPT_KEY + 5 },
	{ "pid-file", required_argument, NULL, OPT_KEY + 6 },
	{ "metrics-port", required_argument, NULL, OPT_KEY + 7 },
	{ "sched", required_argument, NULL, OPT_KEY + 8 },
	{ "check-config", no_argument, NULL, OPT_CHECK },
	{ "daemon", no_argument, NULL, OPT_DAEMON },
	{ "foreground", no_argument, NULL, OPT_FOREGROUND },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ 0 },
};
static const char *const option_keys[] = { "listen",   "advertise", "target",  "state_dir",
					   "log_file", "log_level", "pid_file", "metrics_port", "sched" };

static int usage_error(void)
{
	fputs("Try 'claudefsd --help'.\n", stderr);
	return EXIT_USAGE;
}

/* -1: go on; else the exit status */
static int read_options(struct server *s, int argc, char **argv, struct options *o)
{
	const char *why, *file = NULL;
	char err[512];
	int c;

	opterr = 1;
	while ((c = getopt_long(argc, argv, "c:hV", long_options, NULL)) != -1) {
		switch (c) {
		case 'c': file = optarg; break;
		case OPT_CHECK: o->check = true; break;
		case OPT_DAEMON: o->daemon = true; break;
		case OPT_FOREGROUND: o->daemon = false; break;
		case 'h': usage(stdout); return 0;
		case 'V': printf("claudefsd %s\n", CFS_VERSION); return 0;
		case '?': return usage_error();
		}
	}
	if (optind < argc) {
		fprintf(stderr, "claudefsd: unexpected argument '%s'\n", argv[optind]);
		return usage_error();
	}
	if (file && cfs_config_read(&s->config, file, err, sizeof(err)))
		return complain(s, "%s", err);
	optind = 1;
	while ((c = getopt_long(argc, argv, "c:hV", long_options, NULL)) != -1) {
		if (c < OPT_KEY || c >= OPT_CHECK)
			continue;
		if (cfs_config_set(&s->config, option_keys[c - OPT_KEY], optarg, &why)) {
			fprintf(stderr, "claudefsd: --%s %s: %s\n",
				long_options[c - OPT_KEY + 1].name, optarg, why);
			return usage_error();
		}
	}
	if (cfs_config_check(&s->config, err, sizeof(err)))
		return complain(s, "%s", err);
	return -1;
}

/* ---- process --------------------------------------------------------------------------------- */

static int open_log(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	int rc = 0;

	if (fd < 0)
		return -errno;
	if (dup2(fd, STDERR_FILENO) < 0)
		rc = -errno;
	if (fd != STDERR_FILENO)
		close(fd);
	return rc;
}

/* the parent waits for the child's line: empty when it serves. Returns in the child only */
static int daemonize(struct server *s)
{
	char buf[1200];
	size_t got = 0;
	int fds[2], null, status;
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
		_exit(EXIT_FAILED);
	}
	close(fds[0]);
	setsid();
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		if (null > STDERR_FILENO)
			close(null);
	}
	if (chdir("/"))
		return -errno;
	close(s->err_fd);
	s->err_fd = fds[1];
	s->to_parent = true;
	return 0;
}

static void on_signal(int sig)
{
	int saved = errno;

	if (sig == SIGHUP)
		want_reopen = 1;
	else
		want_stop = 1;
	if (signal_loop)
		cfs_loop_stop(signal_loop);
	errno = saved;
}

static void catch_signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

	sigemptyset(&sa.sa_mask);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static void raise_limits(void)
{
	struct rlimit rl;

	if (!getrlimit(RLIMIT_NOFILE, &rl) && rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
}

static int write_pid(struct server *s)
{
	const char *path = s->config.pid_file;
	char text[32];
	int fd, rc = 0, len;

	if (!path)
		return 0;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	len = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	if (write(fd, text, (size_t)len) != len)
		rc = errno ? -errno : -EIO;
	close(fd);
	s->pid_written = true;
	return rc;
}

/* ---- the node -------------------------------------------------------------------------------- */

static void on_started(void *arg, int err, const char *why)
{
	struct server *s = arg;

	s->started = !err;
	s->failed = err != 0;
	if (err)
		snprintf(s->why, sizeof(s->why), "%s", why);
	cfs_loop_stop(s->loop);
}

static void on_failed(void *arg, int err, const char *why)
{
	struct server *s = arg;

	s->failed = true;
	snprintf(s->why, sizeof(s->why), "%s: %s", why, strerror(err < 0 ? -err : err));
	cfs_loop_stop(s->loop);
}

static void on_back(void *arg)
{
	struct server *s = arg;

	s->again = true;
	cfs_loop_stop(s->loop);
}

static void on_stopped(void *arg)
{
	((struct server *)arg)->stopped = true;
}

static int open_targets(struct server *s)
{
	for (unsigned i = 0; i < CFS_NODE_TARGETS_MAX; i++) {
		const char *path = s->config.targets[i];
		struct cfs_dev *dev;
		int rc;

		if (!path)
			continue;
		rc = cfs_dev_open(s->loop, path, 0, &dev);
		if (rc == -EBUSY)
			return complain(s, "target %s is in use by another process", path);
		if (rc)
			return complain(s, "cannot open target %s: %s", path, strerror(-rc));
		s->devs[s->n_targets] = dev;
		s->targets[s->n_targets++] = (struct cfs_node_target){ .dev = dev, .path = path };
	}
	return 0;
}

static int open_state_dir(struct server *s)
{
	const char *dir = s->config.state_dir;

	if (mkdir(dir, 0700) && errno != EEXIST)
		return complain(s, "cannot create state directory %s: %s", dir, strerror(errno));
	if (access(dir, R_OK | W_OK | X_OK))
		return complain(s, "cannot use state directory %s: %s", dir, strerror(errno));
	return 0;
}

/* 0, or EXIT_FAILED after the line was said */
static int start(struct server *s)
{
	struct cfs_node_params p = {
		.listen = s->config.listen,
		.advertise = s->config.advertise,
		.state_dir = s->config.state_dir,
		.targets = s->targets,
		.lease_ms = s->config.lease_ms,
		.checkpoint_bytes = s->config.checkpoint_bytes,
		.started = on_started,
		.failed = on_failed,
		.arg = s,
	};
	int rc;

	rc = cfs_dev_loop_create(RING_ENTRIES, (const char *const *)s->config.targets, CFS_NODE_TARGETS_MAX,
				 &s->loop);
	if (rc)
		return complain(s, "cannot set up io_uring: %s%s", strerror(-rc),
				rc == -EPERM || rc == -ENOSYS ?
					": the kernel or a sandbox forbids it" :
					"");
	signal_loop = s->loop;
	s->clock = cfs_loop_clock(s->loop);
	rc = open_state_dir(s);
	if (rc)
		return rc;
	rc = open_targets(s);
	if (rc)
		return rc;
	rc = cfs_net_tcp_create(s->loop, &s->net);
	if (!rc)
		rc = cfs_net_loopback_create(s->loop, &s->local_net);
	if (rc)
		return complain(s, "cannot set up the network: %s", strerror(-rc));
	rc = cfs_sched_start(s->config.sched, s->why, sizeof(s->why), &s->sched);
	if (rc)
		return complain(s, "no scheduler: %s", rc == -ENOMEM ? strerror(ENOMEM) : s->why);
	p.sched = s->sched;
	p.clock = s->clock;
	p.net = s->net;
	p.local_net = s->local_net;
	p.n_targets = s->n_targets;
	rc = cfs_node_create(&p, &s->node);
	if (rc)
		return complain(s, "cannot start: %s", strerror(-rc));
	watchdog_start(s);
	s->sched_look.fn = on_sched_look;
	on_sched_look(&s->sched_look);
	while (!s->started && !s->failed && !want_stop) {
		rc = cfs_loop_run(s->loop);
		if (rc)
			return complain(s, "io_uring failed: %s", strerror(-rc));
	}
	if (s->failed)
		return complain(s, "%s", s->why);
	if (want_stop)
		return complain(s, "stopped while starting");
	if (s->config.metrics_port) {
		rc = cfs_server_metrics_start(s->config.metrics_port, s->loop, &s->metrics);
		if (rc)
			return complain(s, "cannot serve metrics on 127.0.0.1:%u: %s", s->config.metrics_port, strerror(-rc));
	}
	s->watch = (struct cfs_watch){ .clock = s->clock, .targets = s->targets, .n_targets = s->n_targets,
				       .back = on_back, .arg = s };
	cfs_watch_start(&s->watch);
	rc = s->pid_written ? 0 : write_pid(s);
	if (rc)
		return complain(s, "cannot write %s: %s", s->config.pid_file, strerror(-rc));
	return 0;
}

static void reopen_log(struct server *s)
{
	int rc;

	want_reopen = 0;
	if (!s->config.log_file)
		return;
	rc = open_log(s->config.log_file);
	if (rc)
		cfs_err("cannot open %s anew: %s", s->config.log_file, strerror(-rc));
	else
		cfs_info("log file opened anew");
}

static int serve(struct server *s)
{
	int rc;

	cfs_info("claudefsd %s serving on %s, scheduler %s", CFS_VERSION, s->config.listen, cfs_sched_text(s->sched));
	notify("READY=1");
	if (s->to_parent && s->err_fd >= 0 && write(s->err_fd, "ok", 2) != 2)
		cfs_warn("whoever started us is gone");
	if (s->err_fd >= 0)
		close(s->err_fd);
	s->err_fd = -1;
	while (!want_stop && !s->failed && !s->again) {
		rc = cfs_loop_run(s->loop);
		if (rc)
			return complain(s, "io_uring failed: %s", strerror(-rc));
		if (want_reopen)
			reopen_log(s);
		cfs_server_metrics_serve(s->metrics, s->node);
	}
	if (s->failed)
		return complain(s, "%s", s->why);
	cfs_info(want_stop ? "stopping" : "every target's device is back: starting anew");
	return 0;
}

/* the path of a target without which there is no going on, or NULL */
static const char *lost_target(struct server *s)
{
	const char *gone = cfs_watch_gone(&s->watch);

	for (unsigned i = 0; i < CFS_NODE_TARGETS_MAX && !gone; i++)
		if (s->config.targets[i] && !cfs_watch_present(s->config.targets[i]))
			gone = s->config.targets[i];
	return gone;
}

/* the device of the journal went away: nothing can be served, but it may be put back. false: told to stop */
static bool wait_for_targets(struct server *s)
{
	const char *lost = lost_target(s);

	if (lost) {
		cfs_err("target %s: its device is gone: not serving until it is back", lost);
		notify("STATUS=waiting for the device of a target");
	}
	while (!want_stop && lost_target(s)) {
		usleep(RETURN_PAUSE_US);	/* nothing else runs; a signal ends it early */
		if (s->watchdog_ns)
			notify("WATCHDOG=1");
		if (want_reopen)
			reopen_log(s);
	}
	return !want_stop;
}

/* bounded; what does not end in time is left as a crash would leave it, which loses nothing */
static void stop(struct server *s)
{
	uint64_t deadline;

	cfs_server_metrics_stop(s->metrics);
	s->metrics = NULL;
	cfs_watch_stop(&s->watch);
	if (s->node) {
		deadline = cfs_clock_boot_ns(s->clock) + STOP_MAX_NS;
		cfs_node_stop(s->node, on_stopped);
		while (!s->stopped && cfs_clock_boot_ns(s->clock) < deadline)
			if (cfs_loop_turn(s->loop, 50 * CFS_NSEC_PER_MSEC))
				break;
		if (!s->stopped) {
			const char *busy = cfs_node_busy(s->node);

			cfs_err("not stopped after 10 s (%s): ending as after a crash",
				busy ? busy : "nothing is busy");
			if (s->pid_written)
				unlink(s->config.pid_file);
			_exit(EXIT_FAILED);
		}
	}
	if (s->watchdog_ns)
		cfs_timer_cancel(s->clock, &s->watchdog);
	if (s->net)
		s->net->ops->close(s->net);
	if (s->local_net)
		s->local_net->ops->close(s->local_net);
	cfs_node_destroy(s->node);
	for (unsigned i = 0; i < s->n_targets; i++)
		cfs_dev_close(s->devs[i]);
	if (s->sched_look.fn)
		cfs_timer_cancel(s->clock, &s->sched_look);
	cfs_sched_stop(s->sched);
	signal_loop = NULL;
	if (s->loop)
		cfs_loop_destroy(s->loop);
	s->node = NULL;
	s->net = s->local_net = NULL;
	s->loop = NULL;
	s->n_targets = 0;
	s->watch.n_targets = 0;
	s->started = s->failed = s->stopped = s->again = false;
}

/* start and serve, again when the devices of targets went away and came back */
static int run(struct server *s)
{
	bool served = false, lost;
	int rc;

	do {
		rc = start(s);
		if (!rc)
			rc = serve(s);
		served |= !rc || s->started;
		lost = served && !want_stop && (s->again || lost_target(s));
		if (!lost)
			notify("STOPPING=1");
		stop(s);
	} while (lost && wait_for_targets(s));
	if (s->pid_written)
		unlink(s->config.pid_file);
	return lost ? 0 : rc;	/* lost, and told to stop while it waited */
}

/* paths are used after chdir("/") */
static int make_absolute(char **path)
{
	char *cwd, *full;

	if (!*path || (*path)[0] == '/' || !strncmp(*path, "nvme:", 5))
		return 0;
	cwd = getcwd(NULL, 0);
	if (!cwd)
		return -errno;
	if (asprintf(&full, "%s/%s", cwd, *path) < 0)
		full = NULL;
	free(cwd);
	if (!full)
		return -ENOMEM;
	free(*path);
	*path = full;
	return 0;
}

static int absolute_paths(struct cfs_config *c)
{
	int rc = make_absolute(&c->state_dir);

	if (!rc)
		rc = make_absolute(&c->pid_file);
	if (!rc)
		rc = make_absolute(&c->log_file);
	for (unsigned i = 0; i < CFS_NODE_TARGETS_MAX && !rc; i++)
		rc = make_absolute(&c->targets[i]);
	return rc;
}

int main(int argc, char **argv)
{
	static struct server s = { .err_fd = -1 };
	struct options o = { 0 };
	int rc;

	s.err_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	if (cfs_config_init(&s.config)) {
		rc = complain(&s, "out of memory");
		goto out;
	}
	rc = read_options(&s, argc, argv, &o);
	if (rc >= 0)
		goto out;
	if (o.check) {
		puts("the configuration is right");
		rc = 0;
		goto out;
	}
	umask(027);
	rc = absolute_paths(&s.config);
	if (rc) {
		rc = complain(&s, "cannot make paths absolute: %s", strerror(-rc));
		goto out;
	}
	if (o.daemon) {
		rc = daemonize(&s);
		if (rc) {
			rc = complain(&s, "cannot go to the background: %s", strerror(-rc));
			goto out;
		}
	}
	if (s.config.log_file) {
		rc = open_log(s.config.log_file);
		if (rc) {
			dprintf(s.err_fd, "claudefsd: cannot open log file %s: %s\n",
				s.config.log_file, strerror(-rc));
			rc = EXIT_FAILED;
			goto out;
		}
	}
	cfs_log_init("claudefsd", NULL, s.config.log_level);
	catch_signals();
	raise_limits();
	rc = run(&s);
	if (!rc)
		cfs_info("stopped");
out:
	if (s.err_fd >= 0)
		close(s.err_fd);
	cfs_config_free(&s.config);
	return rc;
}
