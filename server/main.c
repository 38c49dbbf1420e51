/* SPDX-License-Identifier: MIT */
/*
 * main.c - claudefsd: signals, devices, network and scheduler around one struct cfs_node; started anew when the devices of
 * targets went away and came back.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/manager.h"
#include "ring/loop.h"
#include "sched/sched.h"
#include "server/cluster/config.h"
#include "server/cluster/node.h"
#include "server/metrics.h"
#include "server/options.h"
#include "server/process.h"
#include "server/watch.h"

#define RING_ENTRIES	1024u	/* it grows when it must */
#define SLOW_START_NS	(2 * CFS_NSEC_PER_SEC)	/* longer ones are told */
#define STOP_MAX_NS	(10 * CFS_NSEC_PER_SEC)
#define RETURN_PAUSE_US	1000000u	/* between two looks for a device that is gone */

struct server {
	struct cfs_process process;
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
	struct cfs_watchdog watchdog;
	bool started, failed, stopped;
	bool again;			/* devices that were gone are back: start anew */
	char why[1024];
};

static volatile sig_atomic_t want_stop, want_reopen;
static struct cfs_loop *signal_loop;

/* the kernel ends a scheduler without a word to us */
static void on_sched_look(struct cfs_timer *t)
{
	struct server *s = cfs_container_of(t, struct server, sched_look);

	if (cfs_sched_check(s->sched))
		cfs_warn("scheduler %s", cfs_sched_text(s->sched));
	cfs_timer_set(s->clock, t, cfs_clock_boot_ns(s->clock) + CFS_NSEC_PER_SEC);
}

/* ---- signals ---------------------------------------------------------------------------------- */

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
		rc = cfs_dev_open(s->loop, path, s->config.poll[i], &dev);
		if (rc == -EBUSY)
			return cfs_process_complain(&s->process, "target %s is in use by another process", path);
		if (rc == -ENOLCK)
			return cfs_process_complain(&s->process, "target %s: poll = iopoll needs polling queues, and its driver has none: "
					   "load it with nvme.poll_queues=N, or connect with nr_poll_queues=N", path);
		if (rc)
			return cfs_process_complain(&s->process, "cannot open target %s: %s", path, strerror(-rc));
		s->devs[s->n_targets] = dev;
		s->targets[s->n_targets++] = (struct cfs_node_target){ .dev = dev, .path = path };
	}
	return 0;
}

static int open_state_dir(struct server *s)
{
	const char *dir = s->config.state_dir;

	if (mkdir(dir, 0700) && errno != EEXIST)
		return cfs_process_complain(&s->process, "cannot create state directory %s: %s", dir, strerror(errno));
	if (access(dir, R_OK | W_OK | X_OK))
		return cfs_process_complain(&s->process, "cannot use state directory %s: %s", dir, strerror(errno));
	return 0;
}

/* who waits for a server wants to know for what it waited */
static void tell_slow_start(const struct server *s, uint64_t begun_ns, uint64_t held_ns)
{
	uint64_t now = cfs_clock_boot_ns(s->clock);

	if (now - begun_ns > SLOW_START_NS)
		cfs_info("this start took %.1f s: %.1f until the targets were had, %.1f to read them and the state",
			 (double)(now - begun_ns) / 1e9, (double)(held_ns - begun_ns) / 1e9, (double)(now - held_ns) / 1e9);
}

/* 0, or CFS_EXIT_FAILED after the line was said */
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
	uint64_t begun_ns, held_ns;
	int rc;

	rc = cfs_dev_loop_create(RING_ENTRIES, (const char *const *)s->config.targets, CFS_NODE_TARGETS_MAX,
				 &s->loop);
	if (rc)
		return cfs_process_complain(&s->process, "cannot set up io_uring: %s%s", strerror(-rc),
				rc == -EPERM || rc == -ENOSYS ?
					": the kernel or a sandbox forbids it" :
					"");
	signal_loop = s->loop;
	s->clock = cfs_loop_clock(s->loop);
	begun_ns = cfs_clock_boot_ns(s->clock);
	rc = open_state_dir(s);
	if (rc)
		return rc;
	rc = open_targets(s);
	if (rc)
		return rc;
	held_ns = cfs_clock_boot_ns(s->clock);
	rc = cfs_net_tcp_create(s->loop, &s->net);
	if (!rc)
		rc = cfs_net_loopback_create(s->loop, &s->local_net);
	if (rc)
		return cfs_process_complain(&s->process, "cannot set up the network: %s", strerror(-rc));
	rc = cfs_sched_start(s->config.sched, s->why, sizeof(s->why), &s->sched);
	if (rc)
		return cfs_process_complain(&s->process, "no scheduler: %s", rc == -ENOMEM ? strerror(ENOMEM) : s->why);
	p.sched = s->sched;
	p.clock = s->clock;
	p.net = s->net;
	p.local_net = s->local_net;
	p.n_targets = s->n_targets;
	rc = cfs_node_create(&p, &s->node);
	if (rc)
		return cfs_process_complain(&s->process, "cannot start: %s", strerror(-rc));
	cfs_watchdog_start(&s->watchdog, s->clock);
	s->sched_look.fn = on_sched_look;
	on_sched_look(&s->sched_look);
	while (!s->started && !s->failed && !want_stop) {
		rc = cfs_loop_run(s->loop);
		if (rc)
			return cfs_process_complain(&s->process, "io_uring failed: %s", strerror(-rc));
	}
	if (s->failed)
		return cfs_process_complain(&s->process, "%s", s->why);
	if (want_stop)
		return cfs_process_complain(&s->process, "stopped while starting");
	tell_slow_start(s, begun_ns, held_ns);
	if (s->config.metrics_port) {
		rc = cfs_server_metrics_start(s->config.metrics_port, s->loop, &s->metrics);
		if (rc)
			return cfs_process_complain(&s->process, "cannot serve metrics on 127.0.0.1:%u: %s", s->config.metrics_port, strerror(-rc));
	}
	s->watch = (struct cfs_watch){ .clock = s->clock, .targets = s->targets, .n_targets = s->n_targets,
				       .back = on_back, .arg = s };
	cfs_watch_start(&s->watch);
	rc = cfs_process_write_pid(&s->process, s->config.pid_file);
	if (rc)
		return cfs_process_complain(&s->process, "cannot write %s: %s", s->config.pid_file, strerror(-rc));
	return 0;
}

static void reopen_log(struct server *s)
{
	int rc;

	want_reopen = 0;
	if (!s->config.log_file)
		return;
	rc = cfs_process_log(&s->process, s->config.log_file);
	if (rc)
		cfs_err("cannot open %s anew: %s", s->config.log_file, strerror(-rc));
	else
		cfs_info("log file opened anew");
}

static int serve(struct server *s)
{
	int rc;

	cfs_info("claudefsd %s serving on %s, scheduler %s", CFS_VERSION, s->config.listen, cfs_sched_text(s->sched));
	cfs_manager_notify("READY=1");
	cfs_process_serving(&s->process);
	while (!want_stop && !s->failed && !s->again) {
		rc = cfs_loop_run(s->loop);
		if (rc)
			return cfs_process_complain(&s->process, "io_uring failed: %s", strerror(-rc));
		if (want_reopen)
			reopen_log(s);
		cfs_server_metrics_serve(s->metrics, s->node);
	}
	if (s->failed)
		return cfs_process_complain(&s->process, "%s", s->why);
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
		cfs_manager_notify("STATUS=waiting for the device of a target");
	}
	while (!want_stop && lost_target(s)) {
		usleep(RETURN_PAUSE_US);	/* nothing else runs; a signal ends it early */
		cfs_watchdog_pat(&s->watchdog);
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
			cfs_process_remove_pid(&s->process);
			_exit(CFS_EXIT_FAILED);
		}
	}
	cfs_watchdog_stop(&s->watchdog);
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
			cfs_manager_notify("STOPPING=1");
		stop(s);
	} while (lost && wait_for_targets(s));
	cfs_process_remove_pid(&s->process);
	return lost ? 0 : rc;	/* lost, and told to stop while it waited */
}

int main(int argc, char **argv)
{
	static struct server s;
	struct cfs_process *p = &s.process;
	struct cfs_options o = { 0 };
	int rc;

	cfs_process_init(p);
	if (cfs_config_init(&s.config)) {
		rc = cfs_process_complain(p, "out of memory");
		goto out;
	}
	rc = cfs_options_read(p, argc, argv, &s.config, &o);
	if (rc >= 0)
		goto out;
	if (o.check) {
		puts("the configuration is right");
		rc = 0;
		goto out;
	}
	umask(027);
	if (o.daemon) {
		rc = cfs_process_daemonize(p);
		if (rc) {
			rc = cfs_process_complain(p, "cannot go to the background: %s", strerror(-rc));
			goto out;
		}
	}
	if (s.config.log_file) {
		rc = cfs_process_log(p, s.config.log_file);
		if (rc) {
			rc = cfs_process_complain(p, "cannot open log file %s: %s", s.config.log_file, strerror(-rc));
			goto out;
		}
	}
	cfs_log_init("claudefsd", NULL, s.config.log_level);
	catch_signals();
	cfs_process_raise_limits();
	rc = run(&s);
	if (!rc)
		cfs_info("stopped");
out:
	cfs_process_exit(p);
	cfs_config_free(&s.config);
	return rc;
}
