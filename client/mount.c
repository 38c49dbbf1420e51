// SPDX-License-Identifier: MIT
/*
 * mount.c - from options to a mount that answers, and back: start and end of everything in order.
 *
 * The main thread starts the parts, tells whoever waits that the mount answers, and sleeps until the kernel ends the
 * connection (umount) or a signal comes (lazy unmount). Then all data is flushed, bounded in time, and the session closed.
 */
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 18)
#include "client/mount_i.h"

#include "base/log.h"
#include "base/manager.h"
#include "base/stdnull.h"
#include "client/accel.h"
#include "client/bpf_maps.h"
#include "client/client_i.h"
#include "client/control.h"
#include "client/fuse_ops.h"
#include "client/fhtab.h"
#include "client/fuse_fh.h"
#include "client/holder.h"
#include "client/metrics.h"
#include "client/notify.h"
#include "client/prefetch.h"
#include "client/observe.h"
#include "client/persist.h"
#include "client/takeover.h"
#include "client/transport.h"
#include "client/watch.h"

#include <errno.h>
#include <fuse3/fuse_lowlevel.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define INIT_MS		30000u
#define END_MS		30000u		/* for flushing at the end */
#define FLUSH_MS	5000u		/* dirty data is written back after this */
#define CACHE_MAX	(16ull << 30)
#define DIRTY_MAX	(1ull << 30)
#define READ_AHEAD_KB	4096
#define DATA_ENTRIES	4u		/* what is known of a closed file's data takes as much memory as so many names */
#define FDS_MAX		65536u
#define MAP_RETRY_MS	500
#define METRICS_TRIES	20u
#define METRICS_TRY_MS	100
#define LEAVE_MS	5000u		/* for requests that are being served, when the next process is ready */

struct mounted {
	const struct cfs_mount_opts *o;
	struct cfs_client *c;
	struct cfs_persist *persist;	/* c's, or NULL */
	struct cfs_watch watch;		/* where there is no holder */
	const char *servers[CFS_MOUNT_SERVERS_MAX];
	char name[CFS_NAME_MAX + 1];
	char cachedir[PATH_MAX];
	bool own_cachedir;		/* made by us: removed at the end */
	bool unmounted;			/* by us, lazily */
	int signal_fd;
	char err[512];
};

/* what libfuse says is an error of ours to report; in the foreground with debug it goes to the log as well */
static char fuse_said[256];

static void fuse_log_fn(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char line[256];
	size_t n;

	vsnprintf(line, sizeof(line), fmt, ap);
	n = strlen(line);
	while (n && (line[n - 1] == '\n' || line[n - 1] == ' '))
		line[--n] = 0;
	if (level <= FUSE_LOG_ERR)
		snprintf(fuse_said, sizeof(fuse_said), "%s", strncmp(line, "fuse: ", 6) ? line : line + 6);
	if (level <= FUSE_LOG_WARNING)
		cfs_warn("libfuse: %s", line);
	else
		cfs_debug("libfuse: %s", line);
}

CFS_PRINTF(3, 4)
static int fail(struct mounted *m, int rc, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(m->err, sizeof(m->err), fmt, ap);
	va_end(ap);
	return rc;
}

/* ---- the parts ---------------------------------------------------------------------------- */
static int make_client(struct mounted *m)
{
	const struct cfs_mount_opts *o = m->o;
	struct cfs_client_opts co = {
		.servers = m->servers, .n_servers = o->n_servers, .name = m->name, .softerr = o->softerr,
		.timeo_ms = o->timeo_s * 1000, .cache_none = o->cache_none, .no_through = o->no_through, .ro = o->ro,
		.cache_entries = o->cache_entries, .bpf = o->bpf != CFS_TIER_WANT_OFF,
		.pass_min = o->pass_min, .pass_max = o->pass_max,
	};
	const enum cfs_tier_want want[CFS_TIERS] = {
		[CFS_TIER_URING] = o->uring, [CFS_TIER_PASSTHROUGH] = o->passthrough, [CFS_TIER_BPF] = o->bpf,
		[CFS_TIER_PERSIST] = m->persist ? o->persist : CFS_TIER_WANT_OFF,
	};
	enum cfs_tier_want wanted[CFS_TIERS];
	char host[64] = "";
	int rc;

	for (unsigned i = 0; i < o->n_servers; i++)
		m->servers[i] = o->servers[i];
	gethostname(host, sizeof(host) - 1);
	snprintf(m->name, sizeof(m->name), "%s:%.180s", host, o->mountpoint);
	rc = cfs_client_create(&co, &m->c);
	if (rc)
		return fail(m, rc, "out of memory");
	memcpy(wanted, want, sizeof(wanted));
	if (m->persist)	/* requests in rings die with their process; backing files are known to nobody after it */
		wanted[CFS_TIER_URING] = wanted[CFS_TIER_PASSTHROUGH] = CFS_TIER_WANT_OFF;
	cfs_tiers_init(m->c, wanted);
	m->c->persist = m->c->slots.p = m->persist;
	if (m->persist)
		m->c->oid_seq = &m->persist->head->oid_seq;
	return 0;
}

static void inval_pages(void *arg, uint64_t ino, int64_t off, int64_t len)
{
	cfs_notify_pages(arg, ino, off, len);
}

static void ahead(void *arg, uint64_t ino)
{
	cfs_accel_ahead(arg, ino);
}

static void changing(void *arg, uint64_t ino, bool begin)
{
	if (begin)
		cfs_busy_begin(arg, ino);
	else
		cfs_busy_end(arg, ino);
}

/* should we die before it is answered, it must not be put at the new end a second time */
static void appending(void *arg, uint64_t off)
{
	struct cfs_client *c = arg;
	uint64_t unique = cfs_thread_unique(cfs_thread_self(c));

	if (unique)
		cfs_persist_append_at(c->persist, unique, off);
}

static void fill_maps(struct cfs_client *c)
{
	struct cfs_prefetch *p = NULL;
	int rc = cfs_accel_fill(c);

	/* a directory that would push everything else out of the maps is not worth fetching */
	if (!rc)
		rc = cfs_prefetch_create(c, cfs_bpf_maps_max_entries(c->bpf_maps, CFS_BPF_NAMES) / 2, &p);
	__atomic_store_n(&c->prefetch, p, __ATOMIC_RELEASE);
	if (rc)
		cfs_warn("BPF: the maps cannot be filled: %s", strerror(-rc));
}

static int make_cachedir(struct mounted *m)
{
	const char *tmp = getenv("TMPDIR");
	char base[PATH_MAX - 16];

	if (m->c->takeover) {
		snprintf(m->cachedir, sizeof(m->cachedir), "%s", m->persist->head->cachedir);
		m->own_cachedir = m->persist->head->own_cachedir;
		return 0;
	}
	if (m->o->cachedir[0]) {
		snprintf(m->cachedir, sizeof(m->cachedir), "%s", m->o->cachedir);
		return 0;
	}
	snprintf(base, sizeof(base), "%s", geteuid() ? tmp && *tmp == '/' ? tmp : "/tmp" : "/var/cache/claudefs");
	if (!geteuid() && mkdir(base, 0700) && errno != EEXIST)
		return fail(m, -errno, "cannot make %s: %s", base, strerror(errno));
	snprintf(m->cachedir, sizeof(m->cachedir), "%s/mount-XXXXXX", base);
	if (!mkdtemp(m->cachedir))
		return fail(m, -errno, "cannot make a cache directory in %s: %s", base, strerror(errno));
	m->own_cachedir = true;
	return 0;
}

static int start_data(struct mounted *m)
{
	struct cfs_data_params p = { .cachedir = m->cachedir, .cache_fd = m->c->takeover ? m->persist->cache_fd : 0,
				     .inherited = m->c->takeover != NULL, .cache_bytes = m->o->cache_bytes,
				     .dirty_bytes = m->o->dirty_bytes, .flush_ms = FLUSH_MS,
				     .inodes = m->o->cache_entries / DATA_ENTRIES,
				     .inval_pages = inval_pages, .ahead = ahead, .changing = changing, .arg = m->c,
				     .gates = m->persist ? NULL : &cfs_gates_ops,
				     .appending = m->persist ? appending : NULL };
	struct statvfs sv;
	int rc = make_cachedir(m);

	if (rc)
		return rc;
	if (m->persist && !m->c->takeover) {
		snprintf(m->persist->head->cachedir, sizeof(m->persist->head->cachedir), "%s", m->cachedir);
		m->persist->head->own_cachedir = m->own_cachedir;
	}
	if (!p.cache_bytes) {
		p.cache_bytes = CACHE_MAX;
		/* half of what is free: the rest of the machine needs its disk, too */
		if (!statvfs(m->own_cachedir ? m->cachedir : "/", &sv))
			p.cache_bytes = cfs_min(CACHE_MAX, (uint64_t)sv.f_bavail * sv.f_frsize / 2);
		p.cache_bytes = cfs_max(p.cache_bytes, 64ull << 20);
	}
	if (!p.dirty_bytes)
		p.dirty_bytes = cfs_min(DIRTY_MAX, p.cache_bytes / 4);
	rc = cfs_data_start(m->c, &p);
	if (rc)
		return fail(m, rc, "cache directory %s: %s", m->cachedir, strerror(-rc));
	__atomic_store_n(&m->c->data_started, true, __ATOMIC_RELEASE);
	return 0;
}

/* a word for libfuse's option parser: commas and backslashes are its own */
static void append_escaped(char *out, size_t len, const char *text)
{
	size_t n = strlen(out);

	for (; *text && n + 3 < len; text++) {
		if (*text == ',' || *text == '\\')
			out[n++] = '\\';
		out[n++] = *text;
	}
	out[n] = 0;
}

static int new_session(struct mounted *m)
{
	const struct cfs_mount_opts *o = m->o;
	char text[8192] = "default_permissions,subtype=claudefs,fsname=";
	char *argv[] = { (char *)"claudefs", (char *)"-o", text, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	struct cfs_client *c = m->c;

	for (unsigned i = 0; i < o->n_servers; i++) {
		if (i)
			append_escaped(text, sizeof(text), ",");
		append_escaped(text, sizeof(text), o->servers[i]);
	}
	append_escaped(text, sizeof(text), ":/");
#define ADD(word) strncat(text, "," word, sizeof(text) - strlen(text) - 1)
	if (o->allow_other)
		ADD("allow_other");
	if (o->ro)
		ADD("ro");
	if (!geteuid() && !o->nosuid)
		ADD("suid");
	if (!geteuid() && !o->nodev)
		ADD("dev");
	if (o->noexec)
		ADD("noexec");
	if (o->sync)
		ADD("sync");
	if (o->dirsync)
		ADD("dirsync");
	ADD("noatime");
#undef ADD
	fuse_set_log_func(fuse_log_fn);
	c->se = fuse_session_new(&args, &cfs_fuse_ops, sizeof(cfs_fuse_ops), c);
	fuse_opt_free_args(&args);
	if (!c->se)
		return fail(m, -EINVAL, "libfuse refuses the options: %s", fuse_said);
	fuse_said[0] = 0;
	return 0;
}

static int mount_fuse(struct mounted *m)
{
	const struct cfs_mount_opts *o = m->o;
	struct cfs_client *c = m->c;
	int rc = new_session(m);

	if (rc)
		return rc;
	if (fuse_session_mount(c->se, o->mountpoint))
		return fail(m, -EIO, "cannot mount at %s: %s", o->mountpoint, fuse_said[0] ? fuse_said : strerror(errno));
	if (m->persist)
		m->persist->fuse_fd = fuse_session_fd(c->se);
	rc = cfs_transport_create(c, fuse_session_fd(c->se), o->workers_max, &c->transport);
	if (!rc)
		rc = cfs_transport_start(c->transport);
	if (rc)
		return fail(m, rc, "cannot serve %s: %s", o->mountpoint, strerror(-rc));
	return 0;
}

static int wait_for_init(struct mounted *m)
{
	struct cfs_client *c = m->c;
	struct timespec ts;
	int rc = 0;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += INIT_MS / 1000;
	pthread_mutex_lock(&c->lock);
	while (!c->fuse_ready && !rc)
		rc = pthread_cond_timedwait(&c->cond, &c->lock, &ts);
	pthread_mutex_unlock(&c->lock);
	return rc ? fail(m, -ETIMEDOUT, "the kernel does not begin to use %s", m->o->mountpoint) : 0;
}

static int check_root(struct mounted *m)
{
	struct cfs_ino_req body = { .ino = cfs_cpu_to_le64(CFS_INO_ROOT) };
	struct iovec iov = { &body, sizeof(body) };
	struct cfs_attr_rep rep;
	struct cfs_call call = { .opcode = CFS_OP_GETATTR, .body = &iov, .n_body = 1, .rep = &rep, .rep_max = sizeof(rep),
				 .timeout_ms = INIT_MS };
	int rc;

	/* a server that has started anew waits a lease and a bit for the sessions of before (docs/leases.md) */
	call.timeout_ms += m->c->lease_ms + m->c->lease_ms / 4;
	rc = cfs_call(m->c, &call);

	if (!rc && (call.rep_len != sizeof(rep) || !S_ISDIR(cfs_le32_to_cpu(rep.attr.mode))))
		rc = -EPROTO;
	if (rc)
		return fail(m, rc, "%s does not show its root directory: %s", m->servers[0],
			    strerror(rc < 0 ? -rc : rc < 512 ? rc : EIO));
	return 0;
}

int cfs_mount_device(const char *mountpoint, unsigned *ret_major, unsigned *ret_minor)
{
	char line[8192];
	FILE *f = fopen("/proc/self/mountinfo", "re");
	unsigned major = 0, minor = 0, a, b;

	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		char where[PATH_MAX];

		if (sscanf(line, "%*u %*u %u:%u %*s %4095s", &a, &b, where) == 3 && !strcmp(where, mountpoint)) {
			major = a;
			minor = b;
		}
	}
	fclose(f);
	if (!major && !minor)
		return -ENOENT;
	*ret_major = major;
	*ret_minor = minor;
	return 0;
}

/* best effort: large sequential reads profit from more than the kernel's 128 KiB */
static void raise_read_ahead(const char *mountpoint)
{
	unsigned major, minor;
	char path[96];
	FILE *f;

	if (cfs_mount_device(mountpoint, &major, &minor))
		return;
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major, minor);
	f = fopen(path, "we");
	if (f) {
		fprintf(f, "%d\n", READ_AHEAD_KB);
		fclose(f);
	}
}

/* who ends the connection when we are killed and cannot. The mount does without where it has to */
static void watch_connection(struct mounted *m)
{
	unsigned major, minor;
	int rc;

	if (!m->watch.pid)	/* there is a holder, or it has been said */
		return;
	rc = cfs_mount_device(m->o->mountpoint, &major, &minor);
	if (!rc)
		rc = cfs_watch_connection(&m->watch, minor);
	if (rc)
		cfs_warn("nobody can abort the kernel's connection if this process is killed: %s", strerror(-rc));
}

/* ---- the whole ------------------------------------------------------------------------------- */
/* cache files and connections need more than the usual 1024 */
static void raise_fd_limit(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur >= FDS_MAX)
		return;
	r.rlim_cur = cfs_min(r.rlim_max, (rlim_t)FDS_MAX);
	if (setrlimit(RLIMIT_NOFILE, &r))
		cfs_warn("no more than %llu files can be open: %s", (unsigned long long)r.rlim_cur, strerror(errno));
}

/* a mount that was not there */
static int begin(struct mounted *m)
{
	int rc = cfs_client_start(m->c, m->err, sizeof(m->err));

	if (!rc)
		rc = start_data(m);
	if (!rc)
		rc = mount_fuse(m);
	if (!rc)
		rc = wait_for_init(m);
	if (!rc)
		watch_connection(m);
	if (!rc)
		rc = check_root(m);
	if (rc || !m->persist)
		return rc;
	m->persist->head->life = 1;
	if (cfs_tier_ready(m->c, CFS_TIER_PERSIST))
		rc = cfs_holder_tell(m->persist->holder, CFS_HOLDER_CACHE, NULL, cfs_data_cachedir(m->c));
	if (!rc && cfs_tier_ready(m->c, CFS_TIER_PERSIST))
		rc = cfs_holder_tell(m->persist->holder, CFS_HOLDER_FD, NULL, m->persist->fuse_fd);
	return rc ? fail(m, rc, "the holder has gone") : 0;
}

/* could we? Then wait until the one before has gone. Nothing outside of this process is touched before that */
static int await_turn(struct mounted *m)
{
	struct cfs_pst_head *h = m->persist->head;
	char text[CFS_HOLDER_TEXT_MAX] = "";
	int rc = new_session(m);

	if (!rc)
		rc = cfs_transport_create(m->c, m->persist->fuse_fd, m->o->workers_max, &m->c->transport);
	if (rc)
		return fail(m, rc, "cannot serve %s: %s", m->o->mountpoint, strerror(-rc));
	rc = cfs_takeover_init(m->c, text, sizeof(text));
	if (rc) {
		cfs_holder_tell(m->persist->holder, CFS_HOLDER_NO, text[0] ? text : strerror(-rc), -1);
		return fail(m, rc, "cannot take over %s: %s", m->o->mountpoint, text[0] ? text : strerror(-rc));
	}
	rc = cfs_holder_tell(m->persist->holder, CFS_HOLDER_READY, NULL, -1);
	if (!rc && cfs_holder_hear(m->persist->holder, -1, text, sizeof(text)) != CFS_HOLDER_GO)
		rc = -ECANCELED;
	if (rc)
		return fail(m, rc, "it is not our turn to serve %s", m->o->mountpoint);
	h->life++;
	h->upgrades += text[0] == 'U';
	h->deaths += text[0] != 'U';
	cfs_fhtab_set_life(m->c->fhtab, h->life);
	cfs_info("%s: process %u goes on with the mount: the one before %s", m->o->mountpoint, h->life,
		 text[0] == 'U' ? "has left" : "died");
	return 0;
}

/*
 * Where data is, before anybody is promised any. While no server can be asked nobody could be answered either; but the kernel may end
 * the connection, or somebody us.
 */
static int await_map(struct mounted *m)
{
	struct pollfd p[2] = { { .fd = m->signal_fd, .events = POLLIN }, { .fd = m->persist->fuse_fd, .events = 0 } };
	int rc;

	while ((rc = cfs_client_map_refresh(m->c)) && !(poll(p, 2, MAP_RETRY_MS) > 0))
		cfs_warn("cannot fetch the cluster map: %s", strerror(rc < 0 ? -rc : rc < 512 ? rc : EPROTO));
	return 0;
}

/* a mount whose daemon died, or leaves */
static int go_on(struct mounted *m)
{
	int rc = await_turn(m);

	if (!rc)
		rc = start_data(m);
	/* a recall asks what is open: so that is known before the servers know of us */
	if (!rc)
		rc = cfs_takeover_inherit(m->c);
	if (!rc)
		rc = cfs_client_start(m->c, m->err, sizeof(m->err));
	if (!rc)
		rc = await_map(m);
	/* before the first request is read: what is being served would come again, too */
	if (!rc)
		rc = cfs_takeover_resume(m->c);
	if (!rc)
		rc = cfs_transport_start(m->c->transport);
	return rc;
}

static int set_up(struct mounted *m)
{
	sigset_t set;
	int rc;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL); /* inherited by every thread: only the descriptor sees them */
	signal(SIGPIPE, SIG_IGN);
	raise_fd_limit();
	m->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (m->signal_fd < 0)
		return fail(m, -errno, "signalfd: %s", strerror(errno));
	rc = make_client(m);
	if (!rc && m->persist)
		rc = cfs_holder_watch_me(m->persist->holder);
	if (!rc)
		rc = m->persist && m->persist->takeover ? go_on(m) : begin(m);
	if (!rc)
		cfs_observe_start(m->c, m->o);
	/* people may want to see what could be answered where nothing can answer */
	if (!rc && m->c->bpf_maps && (cfs_tier_ready(m->c, CFS_TIER_BPF) || m->o->bpf_mem))
		fill_maps(m->c);
	if (!rc)
		rc = cfs_tiers_start(m->c, m->err, sizeof(m->err));
	if (rc)
		return rc;
	raise_read_ahead(m->o->mountpoint);
	if (m->o->metrics_port) {
		rc = cfs_metrics_start(m->c, m->o, &m->c->metrics);
		/* of the process before, which may not be quite gone */
		for (unsigned i = 0; rc == -EADDRINUSE && m->c->takeover && i < METRICS_TRIES; i++) {
			poll(NULL, 0, METRICS_TRY_MS);
			rc = cfs_metrics_start(m->c, m->o, &m->c->metrics);
		}
		if (rc && m->c->takeover)
			cfs_warn("option 'metrics=%u': %s", m->o->metrics_port, strerror(-rc));
		else if (rc)
			return fail(m, rc, "option 'metrics=%u': %s", m->o->metrics_port, strerror(-rc));
	}
	rc = cfs_control_start(m->c, m->o, &m->c->control);
	if (rc)
		cfs_warn("no control socket: %s", strerror(-rc));
	return 0;
}

static void upgrade_is(struct cfs_client *c, enum cfs_upgrade state, const char *text)
{
	pthread_mutex_lock(&c->lock);
	c->persist->upgrade = state;
	snprintf(c->persist->refused, sizeof(c->persist->refused), "%s", text);
	pthread_cond_broadcast(&c->cond);
	pthread_mutex_unlock(&c->lock);
}

/* the holder said something, or has gone. True: we are to leave */
static bool hear_holder(struct mounted *m)
{
	char text[CFS_HOLDER_TEXT_MAX];

	switch (cfs_holder_hear(m->persist->holder, 0, text, sizeof(text))) {
	case CFS_HOLDER_LEAVE:
		upgrade_is(m->c, CFS_UPGRADE_LEAVING, "");
		return true;
	case CFS_HOLDER_NO:
		upgrade_is(m->c, CFS_UPGRADE_REFUSED, text);
		break;
	case 0:
		cfs_warn("the holder has gone: the mount goes on, and ends with this process");
		__atomic_store_n(&m->persist->alone, true, __ATOMIC_RELEASE);
		upgrade_is(m->c, CFS_UPGRADE_REFUSED, "the holder of the mount has gone");
		break;
	}
	return false;
}

/* libfuse would do it, had it mounted in this process */
static int unmount_as_user(const char *mountpoint)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		execlp("fusermount3", "fusermount3", "-u", "-q", "-z", "--", mountpoint, (char *)NULL);
		_exit(127);
	}
	return pid < 0 || waitpid(pid, &status, 0) != pid || status ? -EPERM : 0;
}

/* true: another process is to go on */
static bool serve(struct mounted *m)
{
	struct pollfd p[3] = { { .fd = m->signal_fd, .events = POLLIN },
			       { .fd = cfs_transport_end_fd(m->c->transport), .events = POLLIN },
			       { .fd = m->persist ? m->persist->holder : -1, .events = POLLIN } };
	struct signalfd_siginfo si;

	while (!p[1].revents) {
		if (poll(p, 3, -1) < 0 && errno != EINTR)
			break;
		if (p[2].revents && hear_holder(m))
			return true;
		if (p[2].revents && __atomic_load_n(&m->persist->alone, __ATOMIC_ACQUIRE))
			p[2].fd = -1;
		if (!(p[0].revents & POLLIN) || read(m->signal_fd, &si, sizeof(si)) != sizeof(si))
			continue;
		cfs_info("signal %u: unmounting", si.ssi_signo);
		if (!m->unmounted && umount2(m->o->mountpoint, MNT_DETACH) &&
		    (errno != EPERM || (m->c->takeover && unmount_as_user(m->o->mountpoint))))
			cfs_warn("umount %s: %s", m->o->mountpoint, strerror(errno));
		m->unmounted = true;
		/* files that are still open keep the connection; they get a while */
		poll(&p[1], 1, (int)END_MS);
		break;
	}
	return false;
}

/*
 * The next one is ready: finish what was begun, bounded, and end. The kernel and the servers are told nothing, and all that the next one
 * needs stays; what is still unanswered comes again.
 */
static void leave(struct mounted *m)
{
	struct cfs_client *c = m->c;

	cfs_control_stop(c->control);
	cfs_observe_disconnect(c);
	cfs_metrics_stop(c->metrics);
	if (!cfs_transport_quiesce(c->transport, LEAVE_MS))
		cfs_warn("requests that take long are left to the next process");
	cfs_tiers_stop(c);
	cfs_observe_stop(c);
	cfs_info("left to the next process");
	_exit(CFS_EXIT_LEFT);
}

static void *end_watch(void *arg)
{
	struct cfs_client *c = arg;
	uint64_t until = cfs_boot_ns() + (END_MS + 5000) * CFS_NSEC_PER_MSEC;

	/* whoever still waits for a server that does not come back is told so */
	while (!__atomic_load_n(&c->end_done, __ATOMIC_ACQUIRE)) {
		if (cfs_boot_ns() >= until)
			__atomic_store_n(&c->stopping, true, __ATOMIC_SEQ_CST);
		poll(NULL, 0, 100);
	}
	return NULL;
}

static int tear_down(struct mounted *m)
{
	struct cfs_client *c = m->c;
	bool watched = false;
	pthread_t watch;
	int rc = 0;

	if (m->persist)
		cfs_holder_tell(m->persist->holder, CFS_HOLDER_END, NULL, -1);
	if (c) {
		watched = !pthread_create(&watch, NULL, end_watch, c);
		cfs_control_stop(c->control);
		cfs_observe_disconnect(c);
		cfs_metrics_stop(c->metrics);
		cfs_tiers_stop(c);
		cfs_transport_destroy(c->transport);
		c->transport = NULL;
		cfs_observe_stop(c);
		cfs_takeover_stop(c);
		cfs_fh_drop_all(c);
		cfs_session_rest(c);
		if (cfs_has_data(c))
			rc = cfs_data_stop(c, END_MS);
		c->data_started = false;
		cfs_gates_destroy(c);
		if (rc)
			cfs_err("data that was written could not be saved");
		cfs_client_stop(c);
		if (c->se) {
			if (!m->unmounted)
				fuse_session_unmount(c->se);
			fuse_session_destroy(c->se);
			c->se = NULL;
		}
		__atomic_store_n(&c->end_done, true, __ATOMIC_RELEASE);
		if (watched)
			pthread_join(watch, NULL);
		cfs_client_destroy(c);
	}
	cfs_watch_end(&m->watch);
	cfs_persist_close(m->persist);
	if (m->own_cachedir)
		rmdir(m->cachedir);
	if (m->signal_fd >= 0)
		close(m->signal_fd);
	return rc;
}

int cfs_mount_run(const struct cfs_mount_opts *o, int report, struct cfs_persist *persist)
{
	struct mounted m = { .o = o, .signal_fd = -1, .persist = persist };
	bool quiet = persist && persist->takeover;
	int rc = persist ? 0 : cfs_watch_start(&m.watch, report), rc2;

	if (rc)
		cfs_warn("no process can be started beside this one: %s", strerror(-rc));
	rc = set_up(&m);
	if (rc) {
		if (!m.err[0])
			fail(&m, rc, "%s", strerror(rc < 0 ? -rc : EIO));
		if (report >= 0)
			dprintf(report, "%s", m.err);
		else if (quiet)
			cfs_err("%s", m.err);
		else
			fprintf(stderr, "claudefs: %s\n", m.err);
	} else {
		if (!quiet)
			cfs_info("%s is mounted at %s", o->servers[0], o->mountpoint);
		if (o->foreground)
			cfs_manager_notify("READY=1");
		if (report >= 0) {
			cfs_stdnull(STDERR_FILENO);
			if (write(report, "", 1) != 1)
				cfs_warn("whoever called mount has gone");
		}
	}
	if (report >= 0)
		close(report);
	if (!rc && serve(&m))
		leave(&m);
	rc2 = tear_down(&m);
	cfs_info("%s is unmounted", o->mountpoint);
	return rc || rc2 ? 1 : 0;
}
