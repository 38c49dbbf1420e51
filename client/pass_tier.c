// SPDX-License-Identifier: MIT
/* pass_tier.c - the passthrough tier: scratch files (pass.h), and gates for others where there is the module (gates.h). */
#include "client/client_i.h"
#include "client/data.h"
#include "client/gates.h"
#include "client/pass.h"
#include "uapi/fuse_new.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool may_register(void)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3];

	return !syscall(SYS_capget, &h, d) && (d[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective & CAP_TO_MASK(CAP_SYS_ADMIN));
}

static int probe(const struct cfs_tier_env *env, char *why, size_t len)
{
	int rc = -EOPNOTSUPP;

	if (!(env->flags & FUSE_PASSTHROUGH))
		snprintf(why, len, "this kernel has no FUSE passthrough (6.9 has)");
	else if (!may_register())
		snprintf(why, len, "needs CAP_SYS_ADMIN");
	else
		rc = 0;
	if (!rc && env->no_start)	/* scratch files need no gates; `why` says that there are no others */
		cfs_gates_probe(why, len);
	return rc;
}

static int start(struct cfs_client *c, char *why, size_t len)
{
	int fd = cfs_pass_file_open(c), rc = fd < 0 ? fd : 0;
	uint32_t id = 0;

	if (rc) {
		snprintf(why, len, "the cache directory's file system has no nameless files: %s", strerror(-rc));
		return rc;
	}
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096)) {
		rc = -errno;
		snprintf(why, len, "the cache directory's file system has no holes: %s", strerror(-rc));
		goto out;
	}
	rc = cfs_pass_register(c, fd, &id);
	if (rc)
		snprintf(why, len, "the kernel does not take a file of the cache directory: %s", strerror(-rc));
	else
		cfs_pass_unregister(c, id);
	if (rc)
		goto out;
	/* files with a name as well, where there is the module, and if that was asked for */
	if (c->tiers.t[CFS_TIER_PASSTHROUGH].want == CFS_TIER_WANT_ON)
		cfs_gates_start(c, why, len);
	else
		snprintf(why, len, "scratch files only: passthrough=on asks for others");
out:
	close(fd);
	return rc;
}

static void stop(struct cfs_client *c)
{
	cfs_gates_stop(c);
}

/* the kernel keeps to what was said when a file was opened: only new ones are affected */
static int set(struct cfs_client *c, bool on, char *why, size_t len)
{
	(void)on;
	snprintf(why, len, "%llu files were opened before and stay as they are",
		 (unsigned long long)(__atomic_load_n(&c->pass.open_files, __ATOMIC_RELAXED) +
				      __atomic_load_n(&c->gate_stats.gates, __ATOMIC_RELAXED)));
	return 0;
}

static void stat_put(struct cfs_client *c, cfs_tier_put_fn put, void *arg)
{
	struct cfs_data_stat data;

#define PUT(field) put(arg, #field, __atomic_load_n(&c->pass.field, __ATOMIC_RELAXED))
	PUT(files);
	PUT(opens);
	PUT(open_files);
	PUT(no_room);
	PUT(failed);
#undef PUT
#define PUT(field) put(arg, #field, __atomic_load_n(&c->gate_stats.field, __ATOMIC_RELAXED))
	PUT(gates);
	PUT(gate_files);
	PUT(gate_no_room);
	PUT(gate_failed);
#undef PUT
	if (!cfs_has_data(c))
		return;
	cfs_data_stat(c, &data);
	put(arg, "gate_opens", data.gate_opens);
	put(arg, "gate_shuts", data.gate_shuts);
	put(arg, "gate_wants", data.gate_wants);
}

const struct cfs_tier_ops cfs_tier_passthrough = {
	.gives = "the kernel reads and writes scratch files itself, and cached files where it has the module",
	.probe = probe,
	.start = start,
	.stop = stop,
	.set = set,
	.stat = stat_put,
};
