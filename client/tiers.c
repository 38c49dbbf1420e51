// SPDX-License-Identifier: MIT
/* tiers.c - see tiers.h. */
#include "client/tiers.h"

#include "base/log.h"
#include "client/client_i.h"
#include "uapi/fuse_new.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const struct cfs_tier_ops cfs_tier_plain = { .gives = "kernel caches under leases, /dev/fuse" };

static const struct {
	const char *name;
	const struct cfs_tier_ops *ops;
} tiers[CFS_TIERS] = {
	[CFS_TIER_PLAIN] = { "plain", &cfs_tier_plain },
	[CFS_TIER_URING] = { "uring", &cfs_tier_uring },
	[CFS_TIER_PASSTHROUGH] = { "passthrough", &cfs_tier_passthrough },
	[CFS_TIER_BPF] = { "bpf", &cfs_tier_bpf },
	[CFS_TIER_PERSIST] = { "persist", &cfs_tier_persist },
};

const char *cfs_tier_name(enum cfs_tier_id id)
{
	return tiers[id].name;
}

const struct cfs_tier_ops *cfs_tier_ops(enum cfs_tier_id id)
{
	return tiers[id].ops;
}

const char *cfs_tier_state_name(enum cfs_tier_state s)
{
	static const char *const names[] = {
		[CFS_TIER_OFF] = "off by option", [CFS_TIER_UNAVAILABLE] = "unavailable", [CFS_TIER_READY] = "ready",
		[CFS_TIER_ON] = "on", [CFS_TIER_SWITCHED_OFF] = "switched off",
	};

	return names[s];
}

bool cfs_tier_env_parse(const void *in, size_t len, struct cfs_tier_env *ret_env)
{
	const struct fuse_in_header *h = in;
	const struct fuse_init_in *init = (const void *)(h + 1);

	if (!in || len < sizeof(*h) + offsetof(struct fuse_init_in, flags2) || h->opcode != FUSE_INIT)
		return false;
	ret_env->minor = init->minor;
	ret_env->flags = init->flags;
	if ((init->flags & FUSE_INIT_EXT) && len >= sizeof(*h) + offsetof(struct fuse_init_in, unused))
		ret_env->flags |= (uint64_t)init->flags2 << 32;
	return true;
}

int cfs_tier_probe(enum cfs_tier_id id, const struct cfs_tier_env *env, char *why, size_t len)
{
	snprintf(why, len, "%s", "");
	return tiers[id].ops->probe ? tiers[id].ops->probe(env, why, len) : 0;
}

static void set_state(struct cfs_tier *t, enum cfs_tier_state s)
{
	__atomic_store_n(&t->state, s, __ATOMIC_RELEASE);
}

void cfs_tiers_init(struct cfs_client *c, const enum cfs_tier_want want[CFS_TIERS])
{
	pthread_mutex_init(&c->tiers.lock, NULL);
	for (int i = 0; i < CFS_TIERS; i++)
		c->tiers.t[i] = (struct cfs_tier){ .want = want[i], .state = CFS_TIER_OFF };
}

void cfs_tiers_probe(struct cfs_client *c, const struct cfs_tier_env *env)
{
	pthread_mutex_lock(&c->tiers.lock);
	for (int i = 0; i < CFS_TIERS; i++) {
		struct cfs_tier *t = &c->tiers.t[i];

		if (t->want == CFS_TIER_WANT_OFF)
			continue;
		set_state(t, cfs_tier_probe(i, env, t->why, sizeof(t->why)) ? CFS_TIER_UNAVAILABLE : CFS_TIER_READY);
	}
	pthread_mutex_unlock(&c->tiers.lock);
}

int cfs_tiers_start(struct cfs_client *c, char *err, size_t errlen)
{
	int rc = 0;

	pthread_mutex_lock(&c->tiers.lock);
	for (int i = 0; i < CFS_TIERS && !rc; i++) {
		struct cfs_tier *t = &c->tiers.t[i];

		if (t->state == CFS_TIER_READY) {
			rc = tiers[i].ops->start ? tiers[i].ops->start(c, t->why, sizeof(t->why)) : 0;
			set_state(t, rc ? CFS_TIER_UNAVAILABLE : CFS_TIER_ON);
			cfs_info("tier %s: %s%s%s", tiers[i].name, rc ? "unavailable" : "on", t->why[0] ? ": " : "", t->why);
		}
		rc = t->state == CFS_TIER_UNAVAILABLE && t->want == CFS_TIER_WANT_ON ? -EOPNOTSUPP : 0;
		if (rc)
			snprintf(err, errlen, "option '%s=on': %s", tiers[i].name, t->why);
	}
	pthread_mutex_unlock(&c->tiers.lock);
	return rc;
}

void cfs_tiers_stop(struct cfs_client *c)
{
	pthread_mutex_lock(&c->tiers.lock);
	for (int i = CFS_TIERS - 1; i >= 0; i--) {
		struct cfs_tier *t = &c->tiers.t[i];

		if (t->state < CFS_TIER_ON)
			continue;
		if (tiers[i].ops->stop)
			tiers[i].ops->stop(c);
		snprintf(t->why, sizeof(t->why), "the mount ends");
		set_state(t, CFS_TIER_UNAVAILABLE);
	}
	pthread_mutex_unlock(&c->tiers.lock);
}

int cfs_tiers_set(struct cfs_client *c, const char *name, bool on, char *err, size_t errlen)
{
	enum cfs_tier_id i = 0;
	struct cfs_tier *t;
	int rc = 0;

	while (i < CFS_TIERS && strcmp(name, tiers[i].name))
		i++;
	if (i == CFS_TIERS) {
		snprintf(err, errlen, "no tier is called '%s'", name);
		return -ENOENT;
	}
	t = &c->tiers.t[i];
	pthread_mutex_lock(&c->tiers.lock);
	if (t->state < CFS_TIER_ON || !tiers[i].ops->set) {
		rc = -EOPNOTSUPP;
		if (t->state >= CFS_TIER_ON)
			snprintf(err, errlen, "tier %s cannot be switched", name);
		else
			snprintf(err, errlen, "tier %s is %s%s%s", name, cfs_tier_state_name(t->state),
				 t->why[0] ? ": " : "", t->why);
	} else if (on != (t->state == CFS_TIER_ON)) {
		char why[CFS_TIER_WHY_MAX] = "";

		rc = tiers[i].ops->set(c, on, why, sizeof(why));
		if (rc) {
			snprintf(err, errlen, "tier %s: %s", name, why[0] ? why : strerror(-rc));
		} else {
			set_state(t, on ? CFS_TIER_ON : CFS_TIER_SWITCHED_OFF);
			memcpy(t->why, why, sizeof(why));
			cfs_info("tier %s: switched %s", name, on ? "on" : "off");
		}
	}
	pthread_mutex_unlock(&c->tiers.lock);
	return rc;
}

void cfs_tiers_get(struct cfs_client *c, enum cfs_tier_id id, struct cfs_tier *ret_tier)
{
	pthread_mutex_lock(&c->tiers.lock);
	*ret_tier = c->tiers.t[id];
	pthread_mutex_unlock(&c->tiers.lock);
}
