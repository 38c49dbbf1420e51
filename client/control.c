// SPDX-License-Identifier: MIT
/* control.c - see control.h. One thread, one connection at a time, each bounded in time. */
#include "client/control.h"

#include "base/log.h"
#include "client/client_i.h"
#include "client/mount.h"
#include "client/transport.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_MS 2000

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

	if (!c->data_started)
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
	return o;
}

static void answer(struct cfs_control *k, int fd)
{
	json_t *doc = state(k);
	char *text = json_dumps(doc, JSON_COMPACT);
	size_t len = text ? strlen(text) : 0, at = 0;
	struct pollfd p = { .fd = fd, .events = POLLOUT };

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
