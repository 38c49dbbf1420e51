/* SPDX-License-Identifier: MIT */
/*
 * clock.h - the clock seam: the only way server logic learns of time or is woken by it.
 *
 * Implementations: the io_uring reactor (ring/loop.h) and the simulator (sim/). Threading:
 * a clock belongs to one thread; callbacks run on it, never inside timer_set().
 */
#ifndef CFS_BASE_CLOCK_H
#define CFS_BASE_CLOCK_H

#include <stdint.h>
#include <stdbool.h>

struct cfs_clock;
struct cfs_timer;
typedef void (*cfs_timer_fn)(struct cfs_timer *timer);

/* owned by who embeds it; zero-initialised means not armed */
struct cfs_timer {
	cfs_timer_fn fn;
	uint64_t deadline_ns;	/* private to the clock */
	uint32_t heap_pos;	/* private: 1-based place in the clock's heap, 0 not armed */
	uint32_t pad;
};

struct cfs_clock_ops {
	const char *name;
	uint32_t version;	/* CFS_CLOCK_OPS_VERSION */
	uint32_t flags;
	/* nanoseconds; CLOCK_BOOTTIME: counts suspend, never goes back */
	uint64_t (*boot_ns)(struct cfs_clock *clock);
	/* nanoseconds since 1970; may jump */
	uint64_t (*real_ns)(struct cfs_clock *clock);
	/* arm (or re-arm) to fire once, at boot_ns() >= deadline_ns */
	void (*timer_set)(struct cfs_clock *clock, struct cfs_timer *timer, uint64_t deadline_ns);
	void (*timer_cancel)(struct cfs_clock *clock, struct cfs_timer *timer);
	/* random bits (seeded in the simulator) */
	uint64_t (*random)(struct cfs_clock *clock);
	/*
	 * Run work() on a helper thread and then done() on the clock's thread (the simulator runs
	 * both itself, done() at a later step). For bounded, self-contained jobs such as copying a
	 * checkpoint out of LMDB. 0 or -errno (then neither is called).
	 */
	int (*offload)(struct cfs_clock *clock, void (*work)(void *arg), void (*done)(void *arg),
		       void *arg);
};
#define CFS_CLOCK_OPS_VERSION 1u

struct cfs_clock {
	const struct cfs_clock_ops *ops;
};

static inline uint64_t cfs_clock_boot_ns(struct cfs_clock *c)
{
	return c->ops->boot_ns(c);
}

static inline uint64_t cfs_clock_real_ns(struct cfs_clock *c)
{
	return c->ops->real_ns(c);
}

static inline void cfs_timer_set(struct cfs_clock *c, struct cfs_timer *t, uint64_t deadline_ns)
{
	c->ops->timer_set(c, t, deadline_ns);
}

static inline void cfs_timer_cancel(struct cfs_clock *c, struct cfs_timer *t)
{
	c->ops->timer_cancel(c, t);
}

static inline bool cfs_timer_armed(const struct cfs_timer *t)
{
	return t->heap_pos != 0;
}

/* Patience with what may come. All 0 before, and to be set to 0 when it has come */
struct cfs_patience {
	uint64_t since_ns, moved_ns;
};

#define CFS_PATIENCE_MAX	6u	/* times wait_ns */

/*
 * Yes for wait_ns from the first look on, and as long after each sign that it is coming, but CFS_PATIENCE_MAX times as long at most; then
 * no for as long as wait_ns, and so on.
 */
static inline bool cfs_patience(struct cfs_patience *p, uint64_t now_ns, uint64_t wait_ns)
{
	if (!p->since_ns || now_ns - p->moved_ns > 2 * wait_ns || now_ns - p->since_ns > (CFS_PATIENCE_MAX + 1) * wait_ns)
		*p = (struct cfs_patience){ now_ns, now_ns };
	return now_ns - p->moved_ns < wait_ns && now_ns - p->since_ns < CFS_PATIENCE_MAX * wait_ns;
}

/* it has got nearer */
static inline void cfs_patience_moved(struct cfs_patience *p, uint64_t now_ns)
{
	if (p->since_ns)
		p->moved_ns = now_ns;
}

#endif
