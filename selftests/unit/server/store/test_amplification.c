/* SPDX-License-Identifier: MIT */
/*
 * Proves: with 80 % of the target full, objects overwritten all the time and no pause for cleaning, the store writes
 * at most 2.5 bytes for each byte of uniformly random overwrites, and 1.6 where nine in ten go to a tenth of the
 * objects; on zones as elsewhere. Prints a table. All that is not journal counts: headers, summaries, deletions.
 *
 * AMP_SEGS (128), AMP_PASSES (6: how often as much as is full is overwritten before measuring, and while) make it larger.
 */
#include "selftests/unit/server/store/world.h"

#define MB (1u << 20)
#define LEN 258048u /* with its header 64 blocks */
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
};

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

	if (s->o)
		end_slot(l, s);
	/* the bytes are the same for all: only the name changes */
	if (!s->o)
		s->o = obj_new(0, LEN);
	/* an object that another write is about to replace is none to overwrite twice at once */
	for (uint32_t i = 0; i < DEPTH; i++)
		if (&l->slot[i] != s && l->slot[i].o && l->slot[i].of == of && of != UINT32_MAX)
			of = (of + 1) % l->n;
	s->of = of;
	s->o->done = false;
	s->o->w.oid = oid_of(++l->next);
	cfs_store_write(l->w.st, &s->o->w);
}

static double measure(bool zoned, bool hot)
{
	struct load l = { .rnd = 1, .hot = hot };
	uint32_t segs = env("AMP_SEGS", 128), passes = env("AMP_PASSES", 6);
	struct cfs_store_stat a, b;

	world_kind = zoned ? ZONED : PLAIN;
	world_format(&l.w, (4 * segs + 1ull) * MB, 4 * MB, 0);
	cfs_crashdev_forget(l.w.cd);
	world_open(&l.w);
	l.w.st->obj_max = LEN; /* what may be left unused at a segment's end, as with large segments: little */
	cfs_store_stat(l.w.st, &a);
	l.n = (uint32_t)(a.total_bytes * 8 / 10 / (LEN + 4096));
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
	for (uint32_t i = 0; i < DEPTH; i++) {
		end_slot(&l, &l.slot[i]);
		obj_free(l.slot[i].o);
	}
	world_end(&l.w);
	free(l.version);
	b.bytes_written_total -= a.bytes_written_total;
	b.bytes_written_journal -= a.bytes_written_journal;
	b.bytes_written_user -= a.bytes_written_user;
	print_message("# %-6s %-22s %6.2f   moved %5.2f   %u segments, %llu cleaned\n", zoned ? "zoned" : "plain",
		      hot ? "90 % to a tenth" : "uniform", cfs_store_amplification(&b),
		      (double)(b.bytes_moved - a.bytes_moved) / (double)b.bytes_written_user, segs,
		      (unsigned long long)(b.cleaned_segments - a.cleaned_segments));
	return cfs_store_amplification(&b);
}

static void test_amplification(void **state)
{
	(void)state;
	print_message("# device overwrites              written/user\n");
	for (int zoned = 0; zoned < 2; zoned++) {
		assert_true(measure(zoned, false) <= 2.5);
		assert_true(measure(zoned, true) <= 1.6);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_amplification) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
