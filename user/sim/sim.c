/* SPDX-License-Identifier: MIT */
/* sim.c - the world's event queue, its nodes and their clocks; see sim.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "sim/sim_i.h"

#define POOL_BYTES	(1ull << 30)
#define EVENTS_MAX	(1u << 22)
#define REAL_START_NS	(1700000000ull * CFS_NSEC_PER_SEC)
#define BOOT_MAX_NS	(1000000ull * CFS_NSEC_PER_SEC)

void *sim_alloc(size_t n)
{
	void *p = calloc(1, n);

	CFS_ASSERT(p);
	return p;
}

/* ---- dice and trace ------------------------------------------------------------------------------- */

uint64_t cfs_sim_random(struct cfs_sim *sim)
{
	return cfs_rng_next(&sim->rng);
}

uint64_t cfs_sim_below(struct cfs_sim *sim, uint64_t n)
{
	return cfs_rng_below(&sim->rng, n);
}

uint64_t cfs_sim_between(struct cfs_sim *sim, uint64_t min, uint64_t max)
{
	CFS_ASSERT(min <= max);
	return min + cfs_rng_below(&sim->rng, max - min + 1);
}

bool cfs_sim_chance(struct cfs_sim *sim, uint32_t ppm)
{
	return cfs_rng_below(&sim->rng, 1000000) < ppm;
}

uint64_t cfs_sim_trace(const struct cfs_sim *sim)
{
	return sim->trace;
}

void cfs_sim_trace_add(struct cfs_sim *sim, uint64_t value)
{
	sim->trace = cfs_hash_u64(sim->trace * 31 + value + 1);
}

uint64_t cfs_sim_now(const struct cfs_sim *sim)
{
	return sim->now;
}

/* ---- events ------------------------------------------------------------------------------------------ */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
	return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void place(struct cfs_sim *sim, uint32_t pos, struct sim_event *e)
{
	sim->heap[pos] = e;
	e->heap_pos = pos;
}

static void sift(struct cfs_sim *sim, uint32_t pos, struct sim_event *e)
{
	uint32_t child;

	for (; pos > 1 && before(e, sim->heap[pos / 2]); pos /= 2)
		place(sim, pos, sim->heap[pos / 2]);
	for (; (child = 2 * pos) <= sim->n_heap; pos = child) {
		if (child < sim->n_heap && before(sim->heap[child + 1], sim->heap[child]))
			child++;
		if (!before(sim->heap[child], e))
			break;
		place(sim, pos, sim->heap[child]);
	}
	place(sim, pos, e);
}

void sim_schedule(struct cfs_sim *sim, struct sim_event *e, uint64_t at, uint32_t kind, struct sim_life *life)
{
	CFS_ASSERT(!e->heap_pos && sim->n_heap < EVENTS_MAX);
	if (sim->n_heap + 1 >= sim->cap_heap) {
		sim->cap_heap = sim->cap_heap ? sim->cap_heap * 2 : 256;
		sim->heap = realloc(sim->heap, sim->cap_heap * sizeof(*sim->heap));
		CFS_ASSERT(sim->heap);
	}
	e->at = cfs_max(at, sim->now);
	e->seq = sim->seq++;
	e->kind = kind;
	e->life = life;
	cfs_list_init(&e->life_link);
	if (life)
		cfs_list_add_tail(&life->events, &e->life_link);
	sim->n_heap++;
	sift(sim, sim->n_heap, e);
}

static void heap_remove(struct cfs_sim *sim, struct sim_event *e)
{
	uint32_t pos = e->heap_pos;
	struct sim_event *last = sim->heap[sim->n_heap--];

	CFS_ASSERT(pos);
	e->heap_pos = 0;
	if (last != e)
		sift(sim, pos, last);
}

void sim_unschedule(struct sim_event *e)
{
	if (e->heap_pos)
		heap_remove(e->life->sim, e);
	cfs_list_del(&e->life_link);
}

/* ---- nodes and their clocks ----------------------------------------------------------------------------- */

static struct sim_life *life_of(struct cfs_clock *clock)
{
	return cfs_container_of(clock, struct sim_life, clock);
}

static uint64_t sim_boot_ns(struct cfs_clock *clock)
{
	struct sim_life *l = life_of(clock);
	__int128 t = l->sim->now - l->boot_at;

	return l->boot_base + (uint64_t)(t * (1000000 + l->ppm) / 1000000);
}

/* the first virtual time at which the node's boot clock shows `boot_ns` or more */
static uint64_t virtual_time(const struct sim_life *l, uint64_t boot_ns)
{
	__int128 d;

	if (boot_ns <= l->boot_base)
		return l->boot_at;
	d = (__int128)(boot_ns - l->boot_base) * 1000000;
	d = (d + 1000000 + l->ppm - 1) / (1000000 + l->ppm);
	return d > (__int128)(UINT64_MAX / 2) ? UINT64_MAX : l->boot_at + (uint64_t)d;
}

static uint64_t sim_real_ns(struct cfs_clock *clock)
{
	struct sim_life *l = life_of(clock);

	return l->node->real_base + l->sim->now;
}

static void sim_timer_set(struct cfs_clock *clock, struct cfs_timer *timer, uint64_t deadline_ns)
{
	struct sim_life *l = life_of(clock);

	if (l->alive)
		cfs_timers_set(&l->timers, timer, deadline_ns);
}

static void sim_timer_cancel(struct cfs_clock *clock, struct cfs_timer *timer)
{
	struct sim_life *l = life_of(clock);

	if (l->alive)
		cfs_timers_cancel(&l->timers, timer);
}

static uint64_t sim_clock_random(struct cfs_clock *clock)
{
	return cfs_sim_random(life_of(clock)->sim);
}

struct sim_job {
	struct sim_event event;
	void (*work)(void *arg);
	void (*done)(void *arg);
	void *arg;
};

static void job_done(struct sim_event *e)
{
	struct sim_job *j = cfs_container_of(e, struct sim_job, event);

	j->done(j->arg);
	free(j);
}

static void job_work(struct sim_event *e)
{
	struct sim_job *j = cfs_container_of(e, struct sim_job, event);
	struct sim_life *l = e->life;

	j->work(j->arg);
	e->fire = job_done;
	sim_schedule(l->sim, e, l->sim->now + cfs_sim_between(l->sim, 1000, 1000000), SIM_DONE, l);
}

static int sim_offload(struct cfs_clock *clock, void (*work)(void *arg), void (*done)(void *arg), void *arg)
{
	struct sim_life *l = life_of(clock);
	struct sim_job *j;

	if (!l->alive)
		return -ESHUTDOWN;
	j = sim_alloc(sizeof(*j));
	j->work = work;
	j->done = done;
	j->arg = arg;
	j->event.fire = job_work;
	j->event.lose = job_done;
	sim_schedule(l->sim, &j->event, l->sim->now + cfs_sim_between(l->sim, 1000, 1000000), SIM_WORK, l);
	return 0;
}

static const struct cfs_clock_ops sim_clock_ops = {
	.name = "sim",
	.version = CFS_CLOCK_OPS_VERSION,
	.boot_ns = sim_boot_ns,
	.real_ns = sim_real_ns,
	.timer_set = sim_timer_set,
	.timer_cancel = sim_timer_cancel,
	.random = sim_clock_random,
	.offload = sim_offload,
};

struct cfs_clock *cfs_sim_node_clock(struct cfs_sim_node *node)
{
	return &node->life->clock;
}

struct cfs_net *cfs_sim_node_net(struct cfs_sim_node *node)
{
	return &node->life->net;
}

const char *cfs_sim_node_name(const struct cfs_sim_node *node)
{
	return node->name;
}

bool cfs_sim_node_alive(const struct cfs_sim_node *node)
{
	return node->life->alive;
}

/* @cold: the machine was off: its boot clock starts again */
static void begin_life(struct cfs_sim_node *node, bool cold)
{
	struct cfs_sim *sim = node->sim;
	struct sim_life *old = node->life, *l = sim_alloc(sizeof(*l));

	l->clock.ops = &sim_clock_ops;
	l->sim = sim;
	l->node = node;
	l->alive = true;
	l->boot_at = sim->now;
	if (cold) {
		l->boot_base = CFS_NSEC_PER_SEC + cfs_sim_below(sim, BOOT_MAX_NS);
		l->ppm = (int32_t)cfs_sim_below(sim, 2 * sim->p.skew_ppm + 1) - (int32_t)sim->p.skew_ppm;
	} else {
		l->boot_base = sim_boot_ns(&old->clock);
		l->ppm = old->ppm;
	}
	cfs_timers_init(&l->timers, SIM_TIMERS_MAX);
	cfs_list_init(&l->events);
	cfs_list_init(&l->lost);
	cfs_list_init(&l->conns);
	cfs_list_init(&l->listeners);
	cfs_list_add_tail(&sim->lives, &l->link);
	sim_net_init(l);
	node->life = l;
}

int cfs_sim_node_create(struct cfs_sim *sim, const char *name, struct cfs_sim_node **ret_node)
{
	struct cfs_sim_node *node;

	if (sim->n_nodes == CFS_SIM_NODES_MAX)
		return -ENOSPC;
	node = sim_alloc(sizeof(*node));
	node->sim = sim;
	snprintf(node->name, sizeof(node->name), "%s", name);
	node->index = sim->n_nodes;
	/* within a second of each other, as kept by NTP at its worst */
	node->real_base = REAL_START_NS + cfs_sim_below(sim, CFS_NSEC_PER_SEC);
	sim->nodes[sim->n_nodes++] = node;
	begin_life(node, true);
	*ret_node = node;
	return 0;
}

/* frees nothing and calls nobody, so that it may come from the middle of a callback of the node itself */
void cfs_sim_node_crash(struct cfs_sim_node *node, enum cfs_sim_crash how)
{
	struct sim_life *l = node->life;

	if (!l->alive)
		return;
	node->last_crash = how;
	cfs_sim_trace_add(node->sim, SIM_CRASH * 1000u + node->index * 2u + how);
	l->alive = false;
	cfs_timers_fini(&l->timers);
	for (uint32_t i = 0; i < node->n_disks; i++)
		sim_disk_crash(node->disks[i], how);
	sim_net_crash(l, how);
	while (!cfs_list_empty(&l->events)) {
		struct sim_event *e = cfs_list_first(&l->events, struct sim_event, life_link);

		sim_unschedule(e);
		cfs_list_add_tail(&l->lost, &e->life_link);
	}
}

void cfs_sim_node_unwind(struct cfs_sim_node *node)
{
	struct sim_life *l = node->life;

	CFS_ASSERT(!l->alive);
	while (!cfs_list_empty(&l->lost)) {
		struct sim_event *e = cfs_list_first(&l->lost, struct sim_event, life_link);

		cfs_list_del(&e->life_link);
		if (e->lose)
			e->lose(e);
		else
			free(e);	/* every event begins its allocation */
	}
	sim_net_unwind(l);
}

void cfs_sim_node_restart(struct cfs_sim_node *node)
{
	CFS_ASSERT(!node->life->alive);
	cfs_sim_trace_add(node->sim, SIM_RESTART * 1000u + node->index);
	begin_life(node, node->last_crash == CFS_SIM_POWER);
}

/* ---- the world ------------------------------------------------------------------------------------------- */

static void default_u64(uint64_t *v, uint64_t value)
{
	if (!*v)
		*v = value;
}

static void default_u32(uint32_t *v, uint32_t value)
{
	if (!*v)
		*v = value;
}

int cfs_sim_create(uint64_t seed, const struct cfs_sim_params *params, struct cfs_sim **ret_sim)
{
	struct cfs_sim *sim = calloc(1, sizeof(*sim));

	if (!sim)
		return -ENOMEM;
	if (cfs_pool_create(POOL_BYTES, &sim->pool)) {
		free(sim);
		return -ENOMEM;
	}
	if (params)
		sim->p = *params;
	default_u64(&sim->p.net_min_ns, 20000);
	default_u64(&sim->p.net_max_ns, 500000);
	default_u32(&sim->p.net_tail_ppm, 2000);
	default_u64(&sim->p.disk_min_ns, 10000);
	default_u64(&sim->p.disk_max_ns, 200000);
	default_u64(&sim->p.dead_ns, 30 * CFS_NSEC_PER_SEC);
	default_u32(&sim->p.skew_ppm, 100);
	cfs_rng_seed(&sim->rng, seed);
	cfs_list_init(&sim->lives);
	*ret_sim = sim;
	return 0;
}

static void life_free(struct sim_life *l)
{
	while (!cfs_list_empty(&l->lost)) {
		struct sim_event *e = cfs_list_first(&l->lost, struct sim_event, life_link);

		cfs_list_del(&e->life_link);
		free(e);
	}
	sim_net_fini(l);
	cfs_list_del(&l->link);
	free(l);
}

void cfs_sim_destroy(struct cfs_sim *sim)
{
	if (!sim)
		return;
	for (uint32_t i = 0; i < sim->n_nodes; i++)
		cfs_sim_node_crash(sim->nodes[i], CFS_SIM_KILL);
	while (!cfs_list_empty(&sim->lives))
		life_free(cfs_list_first(&sim->lives, struct sim_life, link));
	while (sim->n_heap)	/* of nobody's life */
		free(sim->heap[sim->n_heap--]);
	for (uint32_t i = 0; i < sim->n_nodes; i++) {
		for (uint32_t k = 0; k < sim->nodes[i]->n_disks; k++)
			sim_disk_fini(sim->nodes[i]->disks[k]);
		free(sim->nodes[i]);
	}
	cfs_pool_destroy(sim->pool);
	free(sim->heap);
	free(sim);
}

struct test_event {
	struct sim_event event;
	void (*fn)(void *arg);
	void *arg;
};

static void test_fire(struct sim_event *e)
{
	struct test_event *t = cfs_container_of(e, struct test_event, event);

	t->fn(t->arg);
	free(t);
}

void cfs_sim_at(struct cfs_sim *sim, uint64_t at_ns, void (*fn)(void *arg), void *arg)
{
	struct test_event *t = sim_alloc(sizeof(*t));

	t->fn = fn;
	t->arg = arg;
	t->event.fire = test_fire;
	sim_schedule(sim, &t->event, at_ns, SIM_TEST, NULL);
}

/* whose timers are first, and when; events go before timers of the same instant, then the order of nodes */
static uint64_t next_at(struct cfs_sim *sim, struct cfs_sim_node **ret_node)
{
	uint64_t at = sim->n_heap ? sim->heap[1]->at : UINT64_MAX;

	*ret_node = NULL;
	for (uint32_t i = 0; i < sim->n_nodes; i++) {
		struct sim_life *l = sim->nodes[i]->life;
		uint64_t first = l->alive ? cfs_timers_first(&l->timers) : UINT64_MAX;

		if (first == UINT64_MAX)
			continue;
		first = cfs_max(virtual_time(l, first), sim->now);
		if (first < at) {
			at = first;
			*ret_node = sim->nodes[i];
		}
	}
	return at;
}

static void fire_timers(struct cfs_sim *sim, struct cfs_sim_node *node)
{
	struct sim_life *l = node->life;

	cfs_sim_trace_add(sim, SIM_TIMER * 1000u + node->index);
	cfs_timers_fire(&l->timers, sim_boot_ns(&l->clock));
}

static void fire_event(struct cfs_sim *sim, struct sim_event *e)
{
	struct cfs_sim_node *node = e->life ? e->life->node : NULL;

	heap_remove(sim, e);
	cfs_list_del(&e->life_link);
	cfs_sim_trace_add(sim, e->kind * 1000u + (node ? node->index : 999));
	e->fire(e);
}

static bool step(struct cfs_sim *sim, uint64_t limit)
{
	struct cfs_sim_node *node;
	uint64_t at = next_at(sim, &node);

	CFS_ASSERT(!sim->in_step);	/* not from inside a callback */
	if (at == UINT64_MAX || at > limit)
		return false;
	sim->in_step = true;
	sim->now = at;
	cfs_sim_trace_add(sim, at);
	if (node)
		fire_timers(sim, node);
	else
		fire_event(sim, sim->heap[1]);
	sim->in_step = false;
	return true;
}

bool cfs_sim_step(struct cfs_sim *sim)
{
	return step(sim, UINT64_MAX);
}

void cfs_sim_run(struct cfs_sim *sim, uint64_t until_ns)
{
	while (step(sim, until_ns))
		;
	sim->now = cfs_max(sim->now, until_ns);
}

bool cfs_sim_run_until(struct cfs_sim *sim, bool (*cond)(void *arg), void *arg, uint64_t limit_ns)
{
	while (!cond(arg)) {
		if (!step(sim, limit_ns)) {
			sim->now = cfs_max(sim->now, limit_ns);
			return cond(arg);
		}
	}
	return true;
}
