// SPDX-License-Identifier: MIT
/* control.c - see control.h. One thread, one connection at a time, each bounded in time. */
#include "client/control.h"

#include "base/log.h"
#include "client/bpf_maps.h"
#include "client/client_i.h"
#include "client/mount.h"
#include "client/transport.h"

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
#define LINE_MAX_BYTES 1024u
#define WORDS_MAX 8u

struct cfs_control {
	struct cfs_client *c;
	const struct cfs_mount_opts *o;
	struct sockaddr_un sa;
	int fd, stop_fd;
	pthread_t thread;
};

static const char *const fuse_names[CFS_FUSE_OPS_MAX] = {
	[1] = "lookup", [2] = "forget", [3] = "getattr", [4] = "setattr", [5] = "readlink", [6] = "symlink", [8] = "mknod",
	[9] = "mkdir", [10] = "unlink", [11] = "rmdir", [12] = "rename", [13] = "link", [14] = "open", [15] = "read",
	[16] = "write", [17] = "statfs", [18] = "release", [20] = "fsync", [21] = "setxattr", [22] = "getxattr",
	[23] = "listxattr", [24] = "removexattr", [25] = "flush", [26] = "init", [27] = "opendir", [28] = "readdir",
	[29] = "releasedir", [30] = "fsyncdir", [31] = "getlk", [32] = "setlk", [33] = "setlkw", [34] = "access",
	[35] = "create", [36] = "interrupt", [37] = "bmap", [38] = "destroy", [39] = "ioctl", [40] = "poll",
	[42] = "batch_forget", [43] = "fallocate", [44] = "readdirplus", [45] = "rename2", [46] = "lseek",
	[47] = "copy_file_range", [50] = "syncfs", [51] = "tmpfile", [52] = "statx", [53] = "copy_file_range_64",
};

static const char *const rpc_names[CFS_RPC_OPS_MAX] = {
	[CFS_OP_MAP] = "map", [CFS_OP_LEASE_RETURN] = "lease_return", [CFS_OP_LOOKUP] = "lookup",
	[CFS_OP_GETATTR] = "getattr", [CFS_OP_READDIR] = "readdir", [CFS_OP_READLINK] = "readlink",
	[CFS_OP_GETXATTR] = "getxattr", [CFS_OP_LISTXATTR] = "listxattr", [CFS_OP_STATFS] = "statfs",
	[CFS_OP_OPEN] = "open", [CFS_OP_EXTENTS] = "extents", [CFS_OP_SEEK] = "seek", [CFS_OP_GETLK] = "getlk",
	[CFS_OP_SETATTR] = "setattr", [CFS_OP_MKNODE] = "mknode", [CFS_OP_LINK] = "link", [CFS_OP_UNLINK] = "unlink",
	[CFS_OP_RENAME] = "rename", [CFS_OP_SETXATTR] = "setxattr", [CFS_OP_COMMIT] = "commit",
	[CFS_OP_FALLOCATE] = "fallocate", [CFS_OP_COPY] = "copy", [CFS_OP_LOCK] = "lock",
	[CFS_OP_RELEASE] = "release", [CFS_OP_OBJ_WRITE] = "obj_write", [CFS_OP_OBJ_READ] = "obj_read",
};

static void put(json_t *o, const char *key, uint64_t v)
{
	json_object_set_new(o, key, json_integer((json_int_t)v));
}

static json_t *counters(const uint64_t *v, const char *const *names, size_t n)
{
	json_t *o = json_object();
	char name[24];

	for (size_t i = 0; i < n; i++) {
		uint64_t count = __atomic_load_n(&v[i], __ATOMIC_RELAXED);

		if (!count)
			continue;
		snprintf(name, sizeof(name), "op_%zu", i);
		put(o, names[i] ? names[i] : name, count);
	}
	return o;
}

static json_t *cache_state(struct cfs_client *c)
{
	json_t *o = json_object();
	struct cfs_dcache_stat st;

	cfs_dcache_stat(c->dcache, &st);
	put(o, "directories", st.dirs);
	put(o, "names", st.names);
	put(o, "attributes", st.attrs);
	put(o, "evictions", st.evictions);
	put(o, "refused", st.refused);
	put(o, "lookups_answered", c->n.dc_lookup);
	put(o, "absent_answered", c->n.dc_negative);
	put(o, "getattrs_answered", c->n.dc_getattr);
	put(o, "xattrs_answered", c->n.dc_xattr);
	return o;
}

static json_t *data_state(struct cfs_client *c)
{
	json_t *o = json_object();
	struct cfs_data_stat st;

	if (!cfs_has_data(c))
		return o;
	cfs_data_stat(c, &st);
	put(o, "inodes", st.inodes);
	put(o, "cached_bytes", st.cached_bytes);
	put(o, "dirty_bytes", st.dirty_bytes);
	put(o, "reads_cache", st.reads_cache);
	put(o, "reads_net", st.reads_net);
	put(o, "read_net_bytes", st.bytes_read_net);
	put(o, "written_net_bytes", st.bytes_written_net);
	put(o, "flushes", st.flushes);
	put(o, "commits", st.commits);
	put(o, "commit_items", st.commit_items);
	return o;
}

static json_t *lease_state(struct cfs_client *c)
{
	json_t *o = json_object();

	put(o, "breaks", c->n.breaks);
	put(o, "break_items", c->n.break_items);
	put(o, "asks", c->n.asks);
	put(o, "reclaims", c->n.reclaims);
	put(o, "inval_entry", c->n.inval_entry);
	put(o, "inval_inode", c->n.inval_inode);
	put(o, "inc_epoch", c->n.inc_epoch);
	put(o, "inval_late", c->n.inval_late);
	return o;
}

static void put_counter(void *arg, const char *name, uint64_t v)
{
	put(arg, name, v);
}

static json_t *tier_state(struct cfs_client *c)
{
	static const char *const wants[] = { [CFS_TIER_WANT_AUTO] = "auto", [CFS_TIER_WANT_ON] = "on",
					     [CFS_TIER_WANT_OFF] = "off" };
	json_t *all = json_object();

	for (int i = 0; i < CFS_TIERS; i++) {
		const struct cfs_tier_ops *ops = cfs_tier_ops(i);
		json_t *o = json_object();
		struct cfs_tier t;

		cfs_tiers_get(c, i, &t);
		json_object_set_new(o, "state", json_string(cfs_tier_state_name(t.state)));
		if (i != CFS_TIER_PLAIN)
			json_object_set_new(o, "option", json_string(wants[t.want]));
		if (t.why[0])
			json_object_set_new(o, "why", json_string(t.why));
		if (ops->stat && t.state >= CFS_TIER_ON)
			ops->stat(c, put_counter, o);
		json_object_set_new(all, cfs_tier_name(i), o);
	}
	return all;
}

static json_t *bpf_state(struct cfs_control *k)
{
	json_t *o = json_object();
	char path[PATH_MAX];

	json_object_set_new(o, "why", json_string(k->c->bpf_why));
	if (!k->c->bpf_maps)
		return o;
	cfs_bpf_maps_path(k->o->mountpoint, path, sizeof(path));
	json_object_set_new(o, "tables", json_string(k->c->bpf_why[0] ? "" : path));
	return o;
}

static json_t *state(struct cfs_control *k)
{
	static const char *const states[] = { "opening", "live", "lost", "closed" };
	uint64_t now = cfs_boot_ns(), deadline;
	struct cfs_transport_stat ts = { 0 };
	struct cfs_client *c = k->c;
	json_t *o = json_object(), *servers = json_array();

	for (unsigned i = 0; i < c->n_servers; i++)
		json_array_append_new(servers, json_string(c->nodes[i]));
	json_object_set_new(o, "mountpoint", json_string(k->o->mountpoint));
	put(o, "pid", (uint64_t)getpid());
	json_object_set_new(o, "servers", servers);
	json_object_set_new(o, "leader", json_string(c->nodes[__atomic_load_n(&c->leader, __ATOMIC_RELAXED)]));
	json_object_set_new(o, "state", json_string(states[cfs_client_state(c)]));
	put(o, "session", cfs_client_session(c));
	put(o, "leader_epoch", __atomic_load_n(&c->leader_epoch, __ATOMIC_RELAXED));
	put(o, "map_epoch", cfs_client_map_epoch(c));
	put(o, "lease_ms", c->lease_ms);
	deadline = __atomic_load_n(&c->deadline_ns, __ATOMIC_RELAXED);
	put(o, "lease_left_ms", deadline > now ? (deadline - now) / CFS_NSEC_PER_MSEC : 0);
	json_object_set_new(o, "caching", json_boolean(cfs_client_caching(c)));
	json_object_set_new(o, "hard", json_boolean(!c->o.softerr));
	if (c->transport)
		cfs_transport_stat(c->transport, &ts);
	put(o, "workers", ts.workers);
	put(o, "workers_idle", ts.idle);
	put(o, "overflowed", ts.overflowed);
	json_object_set_new(o, "fuse", counters(c->n.fuse, fuse_names, CFS_FUSE_OPS_MAX));
	json_object_set_new(o, "requests", counters(c->n.rpc, rpc_names, CFS_RPC_OPS_MAX));
	put(o, "connects", c->n.reconnects);
	put(o, "retries", c->n.retries);
	put(o, "parked", c->n.parked);
	put(o, "sessions_lost", c->n.sessions_lost);
	json_object_set_new(o, "cache", cache_state(c));
	json_object_set_new(o, "leases", lease_state(c));
	json_object_set_new(o, "data", data_state(c));
	json_object_set_new(o, "tiers", tier_state(c));
	json_object_set_new(o, "bpf", bpf_state(k));
	return o;
}

/* ---- verbs ---------------------------------------------------------------------------------- */
struct request {
	struct cfs_control *k;
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
	return state(r->k);
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
	return json_pack("{s:o}", "tiers", tier_state(r->k->c));
}

static const struct {
	const char *name;
	json_t *(*run)(const struct request *r);
} verbs[] = { { "status", do_status }, { "tier", do_tier } };

static json_t *obey(struct cfs_control *k, int fd, char *line)
{
	struct ucred cred = { .uid = (uid_t)-1 };
	struct request r = { .k = k };
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

static void answer(struct cfs_control *k, int fd)
{
	char line[LINE_MAX_BYTES];
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	size_t len, at = 0;
	json_t *doc;
	char *text;

	read_line(fd, line, sizeof(line));
	doc = obey(k, fd, line);
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
		answer(k, fd);
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
