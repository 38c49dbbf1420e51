// SPDX-License-Identifier: MIT
/*
 * mount.c - from options to a mount that answers, and back: start and end of everything in order.
 *
 * The main thread starts the parts, tells whoever waits that the mount answers, and sleeps until the kernel ends the
 * connection (umount) or a signal comes (lazy unmount). Then all data is flushed, bounded in time, and the session closed.
 */
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 18)
#include "client/mount.h"

#include "base/log.h"
#include "client/accel.h"
#include "client/bpf_maps.h"
#include "client/client_i.h"
#include "client/control.h"
#include "client/fuse_ops.h"
#include "client/fuse_fh.h"
#include "client/metrics.h"
#include "client/notify.h"
#include "client/prefetch.h"
#include "client/observe.h"
#include "client/transport.h"

#include <errno.h>
#include <fcntl.h>
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
#define FDS_MAX		65536u

struct mounted {
	const struct cfs_mount_opts *o;
	struct cfs_client *c;
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
		.timeo_ms = o->timeo_s * 1000, .cache_none = o->cache_none, .ro = o->ro,
		.cache_entries = o->cache_entries, .bpf = o->bpf != CFS_TIER_WANT_OFF,
	};
	const enum cfs_tier_want want[CFS_TIERS] = {
		[CFS_TIER_URING] = o->uring, [CFS_TIER_PASSTHROUGH] = o->passthrough, [CFS_TIER_BPF] = o->bpf,
	};
	char host[64] = "";
	int rc;

	for (unsigned i = 0; i < o->n_servers; i++)
		m->servers[i] = o->servers[i];
	gethostname(host, sizeof(host) - 1);
	snprintf(m->name, sizeof(m->name), "%s:%.180s", host, o->mountpoint);
	rc = cfs_client_create(&co, &m->c);
	if (rc)
		return fail(m, rc, "out of memory");
	cfs_tiers_init(m->c, want);
	return cfs_client_start(m->c, m->err, sizeof(m->err));
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
	struct cfs_data_params p = { .cachedir = m->cachedir, .cache_bytes = m->o->cache_bytes,
				     .dirty_bytes = m->o->dirty_bytes, .flush_ms = FLUSH_MS,
				     .inval_pages = inval_pages, .ahead = ahead, .changing = changing, .arg = m->c };
	struct statvfs sv;
	int rc = make_cachedir(m);

	if (rc)
		return rc;
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

static int mount_fuse(struct mounted *m)
{
	const struct cfs_mount_opts *o = m->o;
	char text[8192] = "default_permissions,subtype=claudefs,fsname=";
	char *argv[] = { (char *)"claudefs", (char *)"-o", text, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	struct cfs_client *c = m->c;
	int rc;

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
	if (fuse_session_mount(c->se, o->mountpoint))
		return fail(m, -EIO, "cannot mount at %s: %s", o->mountpoint, fuse_said[0] ? fuse_said : strerror(errno));
	rc = cfs_transport_create(c, o->workers_max, &c->transport);
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
	int rc = cfs_call(m->c, &call);

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
	if (!rc)
		rc = start_data(m);
	if (!rc)
		rc = mount_fuse(m);
	if (!rc)
		rc = wait_for_init(m);
	if (!rc)
		rc = check_root(m);
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
		if (rc)
			return fail(m, rc, "option 'metrics=%u': %s", m->o->metrics_port, strerror(-rc));
	}
	rc = cfs_control_start(m->c, m->o, &m->c->control);
	if (rc)
		cfs_warn("no control socket: %s", strerror(-rc));
	return 0;
}

static void serve(struct mounted *m)
{
	struct pollfd p[2] = { { .fd = m->signal_fd, .events = POLLIN },
			       { .fd = cfs_transport_end_fd(m->c->transport), .events = POLLIN } };
	struct signalfd_siginfo si;

	while (!p[1].revents) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (!(p[0].revents & POLLIN) || read(m->signal_fd, &si, sizeof(si)) != sizeof(si))
			continue;
		cfs_info("signal %u: unmounting", si.ssi_signo);
		if (!m->unmounted && umount2(m->o->mountpoint, MNT_DETACH) && errno != EPERM)
			cfs_warn("umount %s: %s", m->o->mountpoint, strerror(errno));
		m->unmounted = true;
		/* files that are still open keep the connection; they get a while */
		poll(&p[1], 1, (int)END_MS);
		break;
	}
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

	if (c) {
		watched = !pthread_create(&watch, NULL, end_watch, c);
		cfs_control_stop(c->control);
		cfs_observe_disconnect(c);
		cfs_metrics_stop(c->metrics);
		cfs_tiers_stop(c);
		cfs_transport_destroy(c->transport);
		c->transport = NULL;
		cfs_observe_stop(c);
		cfs_fh_drop_all(c);
		if (cfs_has_data(c))
			rc = cfs_data_stop(c, END_MS);
		c->data_started = false;
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
	if (m->own_cachedir)
		rmdir(m->cachedir);
	if (m->signal_fd >= 0)
		close(m->signal_fd);
	return rc;
}

/* report: where the parent waits for a word, or -1 in the foreground */
static int run(const struct cfs_mount_opts *o, int report)
{
	struct mounted m = { .o = o, .signal_fd = -1 };
	int rc = set_up(&m), rc2;

	if (rc) {
		if (!m.err[0])
			fail(&m, rc, "%s", strerror(rc < 0 ? -rc : EIO));
		if (report >= 0)
			dprintf(report, "%s", m.err);
		else
			fprintf(stderr, "claudefs: %s\n", m.err);
	} else {
		cfs_info("%s is mounted at %s", o->servers[0], o->mountpoint);
		if (report >= 0) {
			int null = open("/dev/null", O_RDWR | O_CLOEXEC);

			for (int fd = 0; fd <= 2 && null >= 0; fd++)
				dup2(null, fd);
			if (null > 2)
				close(null);
			if (write(report, "", 1) != 1)
				cfs_warn("whoever called mount has gone");
		}
	}
	if (report >= 0)
		close(report);
	if (!rc)
		serve(&m);
	rc2 = tear_down(&m);
	cfs_info("%s is unmounted", o->mountpoint);
	return rc || rc2 ? 1 : 0;
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

	if (stat(o->mountpoint, &st) || !S_ISDIR(st.st_mode)) {
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
		return run(o, -1);
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
		exit(run(o, fds[1]));
	}
	close(fds[1]);
	return wait_for_child(o, pid, fds[0]);
}
