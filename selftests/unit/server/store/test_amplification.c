/* SPDX-License-Identifier: MIT */
/*
 * timeout: 900
 * Proves: with 80 % of the target full, objects overwritten all the time, without a pause for cleaning or at a steady pace that leaves
 * time for it, the store writes at most 2.5 bytes for each byte of uniformly random overwrites, and 1.6 where nine in ten go to a tenth
 * of the objects; on zones as elsewhere, for objects of several lengths. (Of the small ones: for each byte of object and header, which is
 * a block.) Prints a table. All that is not journal counts: headers, summaries, deletions.
 *
 * AMP_SEGS (segments), AMP_PASSES (6: how often as much as is full is overwritten before measuring, and while) make it larger;
 * AMP_LEN, AMP_ZONED, AMP_MBPS: one length, kind of device, speed of writing only.
 */
#include "selftests/unit/server/store/world.h"

#define MB (1u << 20)
#define BATCH 64u /* deleted at a time */
#define DEPTH 8u /* writes under way */

struct slot {
	struct obj *o;
	uint32_t of; /* which object it overwrites */
};

static uint32_t env(const char *name, uint32_t def)
{
	const char *v = getenv(name);

	return v ? (uint32_t)strtoul(v, NULL, 10) : def;
}

struct load {
	struct world w;
	uint64_t *version; /* of each object */
	uint32_t n, n_dead;
	uint64_t next, rnd;
	uint64_t dead[BATCH];
	struct slot slot[DEPTH];
	bool hot;
	uint32_t len;
	uint32_t mbps; /* what is written in a second, 10^6 bytes; 0: as much as can be */
	struct cfs_timer pause;
	bool waiting;
};

static void pause_over(struct cfs_timer *timer)
{
	cfs_container_of(timer, struct load, pause)->waiting = false;
}

/* the time that a write has at this speed */
static void pace(struct load *l)
{
	struct cfs_clock *clock = cfs_crashdev_clock(l->w.cd);

	while (l->waiting)
		assert_true(cfs_crashdev_turn(l->w.cd));
	if (!l->mbps)
		return;
	l->waiting = true;
	l->pause.fn = pause_over;
	cfs_timer_set(clock, &l->pause, cfs_clock_boot_ns(clock) + l->len * 1000ull / l->mbps);
}

static uint32_t choose(struct load *l)
{
	uint64_t r = cfs_hash_u64(l->rnd++);
	uint32_t tenth = l->n / 10;

	if (!l->hot)
		return (uint32_t)(r % l->n);
	if (cfs_hash_u64(l->rnd++) % 10)
		return (uint32_t)(r % tenth);
	return tenth + (uint32_t)(r % (l->n - tenth));
}

static void end_slot(struct load *l, struct slot *s)
{
	while (!s->o->done)
		assert_true(cfs_crashdev_turn(l->w.cd));
	assert_int_equal(s->o->err, 0);
	if (s->of != UINT32_MAX) {
		l->dead[l->n_dead++] = l->version[s->of];
		l->version[s->of] = cfs_le64_to_cpu(s->o->w.oid.seq);
	}
	if (l->n_dead == BATCH) {
		assert_int_equal(del_objs(&l->w, l->dead, BATCH), 0);
		l->n_dead = 0;
	}
}

static void write_one(struct load *l, uint32_t of)
{
	struct slot *s = &l->slot[l->next % DEPTH];

	pace(l);
	if (s->o)
		end_slot(l, s);
	/* the bytes are the same for all: only the name changes */
	if (!s->o)
		s->o = obj_new(0, l->len);
	/* an object that another write is about to replace is none to overwrite twice at once */
	for (uint32_t i = 0; i < DEPTH; i++)
		if (&l->slot[i] != s && l->slot[i].o && l->slot[i].of == of && of != UINT32_MAX)
			of = (of + 1) % l->n;
	s->of = of;
	s->o->done = false;
	s->o->w.oid = oid_of(++l->next);
	cfs_store_write(l->w.st, &s->o->w);
}

static double measure(bool zoned, bool hot, uint32_t len, uint32_t mbps, uint32_t segs)
{
	struct load l = { .rnd = 1, .hot = hot, .len = len, .mbps = mbps };
	uint32_t passes = env("AMP_PASSES", 6);
	struct cfs_store_stat a, b;

	world_kind = zoned ? ZONED : PLAIN;
	world_format(&l.w, (4 * segs + 1ull) * MB, 4 * MB, 0);
	cfs_crashdev_forget(l.w.cd);
	world_open(&l.w);
	l.w.st->obj_max = len; /* what may be left unused at a segment's end, as with large segments: little */
	cfs_store_stat(l.w.st, &a);
	l.n = (uint32_t)(a.total_bytes * 8 / 10 / (len + 4096));
	l.version = calloc(l.n, sizeof(*l.version));
	for (uint32_t i = 0; i < l.n; i++) {
		write_one(&l, UINT32_MAX);
		l.version[i] = l.next;
	}
	for (uint32_t i = 0; i < 2 * passes * l.n; i++) {
		if (i == passes * l.n)
			cfs_store_stat(l.w.st, &a);
		write_one(&l, choose(&l));
	}
	cfs_store_stat(l.w.st, &b);
	l.mbps = 0;
	pace(&l);
	for (uint32_t i = 0; i < DEPTH; i++) {
		end_slot(&l, &l.slot[i]);
		obj_free(l.slot[i].o);
	}
	world_end(&l.w);
	free(l.version);
	b.bytes_written_total -= a.bytes_written_total;
	b.bytes_written_journal -= a.bytes_written_journal;
	b.bytes_written_user -= a.bytes_written_user;
	print_message("# %-6s %7u %5u %-22s %6.2f   moved %5.2f   %u segments, %llu cleaned\n", zoned ? "zoned" : "plain", len, mbps,
		      hot ? "90 % to a tenth" : "uniform", cfs_store_amplification(&b),
		      (double)(b.bytes_moved - a.bytes_moved) / (double)b.bytes_written_user, segs,
		      (unsigned long long)(b.cleaned_segments - a.cleaned_segments));
	return cfs_store_amplification(&b);
}

static void test_amplification(void **state)
{
	/* with their headers 64, 8 and 250 blocks */
	static const struct {
		uint32_t len;
		bool plain, zoned;
		uint32_t mbps, segs;
	} runs[] = {
		{ 258048, true, true, 0, 128 }, { 28672, true, false, 0, 128 }, { 1019904, false, true, 0, 128 },
		{ 258048, false, true, 100, 256 },
	};

	(void)state;
	if (env("AMP_LEN", 0)) {
		for (int hot = 0; hot < 2; hot++)
			measure(env("AMP_ZONED", 1), hot, env("AMP_LEN", 0), env("AMP_MBPS", 0), env("AMP_SEGS", 128));
		return;
	}
	print_message("# device  length  MB/s overwrites              written/user\n");
	for (uint32_t i = 0; i < CFS_ARRAY_SIZE(runs); i++)
		for (int zoned = !runs[i].plain; zoned <= runs[i].zoned; zoned++) {
			/* an object's header is a block: small ones begin with more than 1 */
			double least = runs[i].len < 65536 ? (runs[i].len + 4096.0) / runs[i].len : 1;

			for (int hot = 0; hot < 2; hot++)
				assert_true(measure(zoned, hot, runs[i].len, runs[i].mbps, env("AMP_SEGS", runs[i].segs)) <=
					    (hot ? 1.6 : 2.5) * least);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_amplification) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
