// SPDX-License-Identifier: MIT
/* control.c - see control.h. One thread, one connection at a time, each bounded in time. */
#include "client/control.h"

#include "base/log.h"
#include "client/client_i.h"
#include "client/holder.h"
#include "client/mount.h"
#include "client/observe.h"
#include "client/persist.h"
#include "client/report.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_MS 2000
#define UPGRADE_S 15
#define LINE_MAX_BYTES 1024u
#define WORDS_MAX 8u

struct cfs_control {
	struct cfs_client *c;
	const struct cfs_mount_opts *o;
	struct sockaddr_un sa;
	int fd, stop_fd;
	pthread_t thread;
};

/* ---- verbs ---------------------------------------------------------------------------------- */
struct request {
	struct cfs_control *k;
	int fd;
	bool owner;			/* root, or who mounted */
	unsigned argc;
	char *argv[WORDS_MAX];		/* argv[0] is the verb */
};

CFS_PRINTF(1, 2)
static json_t *error(const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return json_pack("{s:s}", "error", text);
}

static json_t *do_status(const struct request *r)
{
	return cfs_report(r->k->c, r->k->o);
}

static json_t *do_tier(const struct request *r)
{
	char err[256] = "";
	bool on = r->argc == 3 && !strcmp(r->argv[2], "on");

	if (r->argc != 3 || (!on && strcmp(r->argv[2], "off")))
		return error("usage: tier NAME on|off");
	if (!r->owner)
		return error("only root and who mounted may switch tiers");
	if (cfs_tiers_set(r->k->c, r->argv[1], on, err, sizeof(err)))
		return error("%s", err);
	return json_pack("{s:o}", "tiers", cfs_report_tiers(r->k->c));
}

/* waits, bounded, until the new process has said whether it can: then we are about to leave, and the asker waits for it */
static json_t *do_upgrade(const struct request *r)
{
	struct cfs_client *c = r->k->c;
	struct cfs_persist *p = c->persist;
	enum cfs_upgrade state;
	struct timespec ts;
	char why[256];
	int rc = 0;

	if (!r->owner)
		return error("only root and who mounted may replace the process of a mount");
	if (!p || !cfs_tier_on(c, CFS_TIER_PERSIST))
		return error("the mount does not outlive its process: mount with -o persist");
	if (__atomic_load_n(&p->alone, __ATOMIC_ACQUIRE))
		return error("the holder of the mount has gone");
	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += UPGRADE_S;
	pthread_mutex_lock(&c->lock);
	p->upgrade = CFS_UPGRADE_ASKED;
	pthread_mutex_unlock(&c->lock);
	rc = cfs_holder_tell(p->holder, CFS_HOLDER_UPGRADE, NULL, -1);
	pthread_mutex_lock(&c->lock);
	while (!rc && p->upgrade == CFS_UPGRADE_ASKED)
		rc = -pthread_cond_timedwait(&c->cond, &c->lock, &ts);
	state = p->upgrade;
	snprintf(why, sizeof(why), "%s", state == CFS_UPGRADE_REFUSED ? p->refused : strerror(-rc));
	p->upgrade = CFS_UPGRADE_NONE;
	pthread_mutex_unlock(&c->lock);
	if (state != CFS_UPGRADE_LEAVING)
		return error("the program that is there now does not take over: %s", why);
	return json_pack("{s:i}", "leaving", (int)getpid());
}

/* the connection lives on as an observer's: NULL */
static json_t *observe(const struct request *r, const struct cfs_observe_want *want)
{
	int rc;

	if (!r->owner)
		return error("only root and who mounted may look at requests");
	rc = cfs_observe_connect(r->k->c, r->fd, want);
	if (rc == -EBUSY)
		return error("too many look at this mount already");
	return rc ? error("%s", strerror(-rc)) : NULL;
}

static json_t *do_top(const struct request *r)
{
	return observe(r, &(struct cfs_observe_want){ .trace = false });
}

static json_t *do_trace(const struct request *r)
{
	struct cfs_observe_want want = { .trace = true };
	uint64_t pid, ino;
	char *end[2];

	if (r->argc != 3)
		return error("usage: trace PID INODE (0: any)");
	pid = strtoull(r->argv[1], &end[0], 10);
	ino = strtoull(r->argv[2], &end[1], 10);
	if (*end[0] || *end[1] || pid > INT32_MAX)
		return error("trace: '%.32s %.32s' is not a process and an inode", r->argv[1], r->argv[2]);
	want.pid = (uint32_t)pid;
	want.ino = ino;
	return observe(r, &want);
}

static const struct {
	const char *name;
	json_t *(*run)(const struct request *r);	/* NULL: the connection is not ours any more */
} verbs[] = { { "status", do_status }, { "tier", do_tier }, { "upgrade", do_upgrade }, { "top", do_top }, { "trace", do_trace } };

static json_t *obey(struct cfs_control *k, int fd, char *line)
{
	struct ucred cred = { .uid = (uid_t)-1 };
	struct request r = { .k = k, .fd = fd };
	socklen_t len = sizeof(cred);
	char *save = NULL;

	r.owner = !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) && (!cred.uid || cred.uid == geteuid());
	for (char *w = strtok_r(line, " \t\r", &save); w; w = strtok_r(NULL, " \t\r", &save)) {
		if (r.argc == WORDS_MAX)
			return error("more than %u words", WORDS_MAX);
		r.argv[r.argc++] = w;
	}
	if (!r.argc)
		return do_status(&r);
	for (size_t i = 0; i < CFS_ARRAY_SIZE(verbs); i++)
		if (!strcmp(r.argv[0], verbs[i].name))
			return verbs[i].run(&r);
	return error("'%.64s' is not understood", r.argv[0]);
}

/* the line that was sent, without its end; empty: nothing before the end, or in time */
static void read_line(int fd, char *line, size_t max)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	size_t at = 0;

	line[0] = 0;
	while (at + 1 < max && !strchr(line, '\n') && poll(&p, 1, ANSWER_MS) > 0) {
		ssize_t n = recv(fd, line + at, max - 1 - at, MSG_DONTWAIT);

		if (n <= 0)
			break;
		at += (size_t)n;
		line[at] = 0;
	}
	line[strcspn(line, "\n")] = 0;
}

/* false: the connection has another owner now */
static bool answer(struct cfs_control *k, int fd)
{
	char line[LINE_MAX_BYTES];
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	size_t len, at = 0;
	json_t *doc;
	char *text;

	read_line(fd, line, sizeof(line));
	doc = obey(k, fd, line);
	if (!doc)
		return false;
	text = json_dumps(doc, JSON_COMPACT);
	len = text ? strlen(text) : 0;
	while (at < len && poll(&p, 1, ANSWER_MS) > 0) {
		ssize_t n = send(fd, text + at, len - at, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n <= 0)
			break;
		at += (size_t)n;
	}
	free(text);
	json_decref(doc);
	return true;
}

static void *control_main(void *arg)
{
	struct cfs_control *k = arg;

	for (;;) {
		struct pollfd p[2] = { { .fd = k->fd, .events = POLLIN }, { .fd = k->stop_fd, .events = POLLIN } };
		int fd;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (p[1].revents)
			break;
		if (!p[0].revents)
			continue;
		fd = accept4(k->fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		if (answer(k, fd))
			close(fd);
	}
	return NULL;
}

int cfs_control_start(struct cfs_client *c, const struct cfs_mount_opts *o, struct cfs_control **ret_k)
{
	struct cfs_control *k = calloc(1, sizeof(*k));
	char dir[sizeof(k->sa.sun_path)];
	int rc;

	if (!k)
		return -ENOMEM;
	k->c = c;
	k->o = o;
	k->sa.sun_family = AF_UNIX;
	k->fd = k->stop_fd = -1;
	rc = cfs_mount_control_path(o->mountpoint, k->sa.sun_path, sizeof(k->sa.sun_path));
	if (rc)
		goto fail;
	snprintf(dir, sizeof(dir), "%s", k->sa.sun_path);
	*strrchr(dir, '/') = 0;
	if (mkdir(dir, 0755) && errno != EEXIST) {
		rc = -errno;
		goto fail;
	}
	unlink(k->sa.sun_path); /* of a mount here that died */
	k->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	k->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (k->fd < 0 || k->stop_fd < 0 || bind(k->fd, (struct sockaddr *)&k->sa, sizeof(k->sa)) || listen(k->fd, 8)) {
		rc = -errno;
		goto fail;
	}
	rc = -pthread_create(&k->thread, NULL, control_main, k);
	if (rc)
		goto fail;
	*ret_k = k;
	return 0;
fail:
	if (k->fd >= 0)
		close(k->fd);
	if (k->stop_fd >= 0)
		close(k->stop_fd);
	free(k);
	return rc;
}

void cfs_control_stop(struct cfs_control *k)
{
	uint64_t one = 1;

	if (!k)
		return;
	if (write(k->stop_fd, &one, sizeof(one)) == sizeof(one))
		pthread_join(k->thread, NULL);
	unlink(k->sa.sun_path);
	close(k->fd);
	close(k->stop_fd);
	free(k);
}
