/* SPDX-License-Identifier: MIT */
/*
 * tiers.h - how the mount answers: the tiers from plain to fast (docs/tiers.md), what each found out about this machine,
 * whether it is used, and the switch that takes it out of a live mount. Results that applications see are equal in all.
 *
 * A tier is a struct cfs_tier_ops in a file of its own and one line in tiers.c. Its life: probe() on what the kernel says in its
 * INIT, before that is answered (fuse_ops.c then negotiates what ready tiers need); start() when the mount answers, on the main
 * thread; set() from the control thread, any number of times; stop() on the main thread, before the transport ends. The states
 * are under the lock; cfs_tier_ready() and cfs_tier_on() (client_i.h) may be asked by any thread.
 */
#ifndef CFS_CLIENT_TIERS_H
#define CFS_CLIENT_TIERS_H

#include "client/mount.h"

#include <pthread.h>

#define CFS_TIER_WHY_MAX	160u

enum cfs_tier_id { CFS_TIER_PLAIN, CFS_TIER_URING, CFS_TIER_PASSTHROUGH, CFS_TIER_BPF, CFS_TIER_PERSIST, CFS_TIERS };

enum cfs_tier_state {
	CFS_TIER_OFF = 0,		/* by option */
	CFS_TIER_UNAVAILABLE,		/* `why` says why */
	CFS_TIER_READY,			/* probed, not started yet */
	CFS_TIER_ON,
	CFS_TIER_SWITCHED_OFF,		/* at run time */
};

struct cfs_client;

/* what the kernel says it can do, from its INIT request */
struct cfs_tier_env {
	uint32_t minor;			/* FUSE 7.minor */
	uint64_t flags;			/* FUSE_* of INIT, both words */
	bool no_start;			/* nothing is started after the probe, whose word is the last (`claudefs doctor`) */
};

/* a counter's name and value */
typedef void (*cfs_tier_put_fn)(void *arg, const char *name, uint64_t value);

/* every function may be NULL; failures are -errno with one line in `why`, which may be set on success, too */
struct cfs_tier_ops {
	const char *gives;		/* one line, for people */
	/* does this machine have what it needs? Needs no mount (`claudefs doctor`); leaves nothing behind */
	int (*probe)(const struct cfs_tier_env *env, char *why, size_t len);
	int (*start)(struct cfs_client *c, char *why, size_t len);
	void (*stop)(struct cfs_client *c);
	/* take it out of a live mount, or put it back. When it returns, requests that begin are served the new way */
	int (*set)(struct cfs_client *c, bool on, char *why, size_t len);
	void (*stat)(struct cfs_client *c, cfs_tier_put_fn put, void *arg);
};

struct cfs_tier {
	enum cfs_tier_want want;
	enum cfs_tier_state state;	/* atomic */
	char why[CFS_TIER_WHY_MAX];
};

struct cfs_tiers {
	pthread_mutex_t lock;
	struct cfs_tier t[CFS_TIERS];
};

extern const struct cfs_tier_ops cfs_tier_plain, cfs_tier_passthrough;
extern const struct cfs_tier_ops cfs_tier_uring;		/* transport_ring.c */
extern const struct cfs_tier_ops cfs_tier_bpf;		/* accel.c */
extern const struct cfs_tier_ops cfs_tier_persist;	/* persist_tier.c */

const char *cfs_tier_name(enum cfs_tier_id id);
const struct cfs_tier_ops *cfs_tier_ops(enum cfs_tier_id id);
const char *cfs_tier_state_name(enum cfs_tier_state s);

/* from the bytes of an INIT request; false: they are not one */
bool cfs_tier_env_parse(const void *in, size_t len, struct cfs_tier_env *ret_env);
/* 0 or -errno; why: one line either way */
int cfs_tier_probe(enum cfs_tier_id id, const struct cfs_tier_env *env, char *why, size_t len);

/* in the order of a mount's life */
void cfs_tiers_init(struct cfs_client *c, const enum cfs_tier_want want[CFS_TIERS]);
void cfs_tiers_probe(struct cfs_client *c, const struct cfs_tier_env *env);
/* 0, or -errno: a tier that was asked for with =on does not work; err: one line */
int cfs_tiers_start(struct cfs_client *c, char *err, size_t errlen);
void cfs_tiers_stop(struct cfs_client *c);
/* the kill switch. 0; -ENOENT: no such tier; -EOPNOTSUPP: cannot be switched now; or the tier's error. err: one line */
int cfs_tiers_set(struct cfs_client *c, const char *name, bool on, char *err, size_t errlen);
/* a copy for reports */
void cfs_tiers_get(struct cfs_client *c, enum cfs_tier_id id, struct cfs_tier *ret_tier);

#endif
