// SPDX-License-Identifier: MIT
/* persist_tier.c - "persist" as one of the tiers (tiers.h): what it needs of the kernel, and what there is to tell of it. */
#include "client/client_i.h"
#include "client/persist.h"
#include "uapi/fuse_new.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

/*
 * RESEND alone (7.40) would do to bring requests back. But who takes over does not know which names the kernel was given, and must be
 * able to have all of them forgotten at once.
 */
#define MINOR_EPOCH 44u		/* FUSE_NOTIFY_INC_EPOCH, Linux 6.16 */

static int probe(const struct cfs_tier_env *env, char *why, size_t len)
{
	if (!(env->flags & FUSE_HAS_RESEND))
		snprintf(why, len, "the kernel does not send requests again (needs FUSE 7.40, Linux 6.9)");
	else if (env->minor < MINOR_EPOCH)
		snprintf(why, len, "the kernel cannot forget all names (needs FUSE 7.44, Linux 6.16)");
	else
		return 0;
	return -EOPNOTSUPP;
}

static int start(struct cfs_client *c, char *why, size_t len)
{
	if (!c->persist) {
		snprintf(why, len, "the mount has no holder");
		return -EOPNOTSUPP;
	}
	snprintf(why, len, "held by process %d", (int)getppid());
	return 0;
}

static void stat_persist(struct cfs_client *c, cfs_tier_put_fn put, void *arg)
{
	const struct cfs_pst_head *h = c->persist->head;

	put(arg, "holder_gone", __atomic_load_n(&c->persist->alone, __ATOMIC_RELAXED));
	put(arg, "life", h->life);
	put(arg, "deaths", h->deaths);
	put(arg, "upgrades", h->upgrades);
	put(arg, "unresolved", __atomic_load_n(&c->slots.n_inherited, __ATOMIC_RELAXED));
}

const struct cfs_tier_ops cfs_tier_persist = {
	.gives = "the mount outlives its daemon: kill, crash, upgrade", .probe = probe, .start = start, .stat = stat_persist,
};
