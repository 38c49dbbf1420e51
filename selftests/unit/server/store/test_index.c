/* SPDX-License-Identifier: MIT */
/*
 * Proves: the index answers as a plain table does under random insertions, replacements and
 * deletions; stays within 40 bytes an object at every size from 50 thousand on; and a listing
 * whose cursor is kept over changes shows each object that was there all the time exactly once.
 */
#include "selftests/unit/server/store/world.h"

#define N 60000u

static struct cfs_oid key(uint32_t i)
{
	/* what real ones look like: few sessions, counters with the placement group above */
	return (struct cfs_oid){ cfs_cpu_to_le64(1 + i % 5),
				 cfs_cpu_to_le64((uint64_t)(i % 256) << 48 | i) };
}

static struct cfs_loc place(uint32_t i, uint32_t version)
{
	return (struct cfs_loc){ (i * 7 + version) & 0xffffff, 2 + i % 10000,
				 1 + (i ^ version) % CFS_OBJECT_MAX };
}

static void test_model(void **state)
{
	uint32_t *model = calloc(N, sizeof(*model)), live = 0; /* 0: absent, else version */
	struct cfs_index *ix;
	uint64_t rnd = 1;

	(void)state;
	assert_int_equal(cfs_index_create(17, &ix), 0);
	for (uint32_t step = 1; step < 8 * N; step++) {
		uint32_t i = (uint32_t)(cfs_hash_u64(rnd++) % N);
		struct cfs_oid oid = key(i);
		struct cfs_loc loc = place(i, step), got;
		/* grows for three quarters of the time, then shrinks */
		bool insert = cfs_hash_u64(rnd++) % 100 < (step < 6 * N ? 70u : 20u);

		assert_int_equal(cfs_index_get(ix, &oid, &got), model[i] != 0);
		if (model[i]) {
			struct cfs_loc want = place(i, model[i]);

			assert_memory_equal(&got, &want, sizeof(got));
		}
		if (insert) {
			assert_int_equal(cfs_index_put(ix, &oid, &loc), 0);
			live += !model[i];
			model[i] = step;
		} else {
			assert_int_equal(cfs_index_del(ix, &oid), model[i] != 0);
			live -= model[i] != 0;
			model[i] = 0;
		}
	}
	assert_int_equal(cfs_index_count(ix), live);
	for (uint32_t i = 0; i < N; i++) {
		struct cfs_oid oid = key(i);
		struct cfs_loc got;

		assert_int_equal(cfs_index_get(ix, &oid, &got), model[i] != 0);
	}
	cfs_index_destroy(ix);
	free(model);
}

static void test_memory(void **state)
{
	struct cfs_index *ix;
	uint32_t n = 0;

	(void)state;
	assert_int_equal(cfs_index_create(17, &ix), 0);
	for (; n < 1000000; n++) {
		struct cfs_oid oid = key(n);
		struct cfs_loc loc = place(n, 0);

		assert_int_equal(cfs_index_put(ix, &oid, &loc), 0);
		if (n >= 50000 && n % 997 == 0)
			assert_true(cfs_index_bytes(ix) <= 40ull * (n + 1));
	}
	for (; n > 100000; n--) { /* and back */
		struct cfs_oid oid = key(n - 1);

		assert_true(cfs_index_del(ix, &oid));
		if (n % 997 == 0)
			assert_true(cfs_index_bytes(ix) <= 42ull * n);
	}
	cfs_index_destroy(ix);
}

static void test_list(void **state)
{
	struct cfs_oid oids[100];
	uint32_t lens[100], *seen = calloc(2 * N, sizeof(*seen)), total = 0, extra = N;
	struct cfs_index *ix;
	uint64_t cursor = 0;
	int n;

	(void)state;
	assert_int_equal(cfs_index_create(17, &ix), 0);
	for (uint32_t i = 0; i < N; i++) {
		struct cfs_oid oid = key(i);
		struct cfs_loc loc = place(i, 0);

		assert_int_equal(cfs_index_put(ix, &oid, &loc), 0);
	}
	while ((n = cfs_index_list(ix, &cursor, oids, lens, 100)) > 0) {
		for (int k = 0; k < n; k++) {
			uint32_t i = (uint32_t)(cfs_le64_to_cpu(oids[k].seq) & 0xffffffffffff);

			assert_true(i < 2 * N);
			assert_int_equal(seen[i]++, 0);
			assert_int_equal(lens[k], place(i, 0).len);
			total += i < N;
		}
		for (int k = 0; k < 100 && extra < 2 * N;
		     k++, extra++) { /* changes between the calls */
			struct cfs_oid oid = key(extra);
			struct cfs_loc loc = place(extra, 0);

			assert_int_equal(cfs_index_put(ix, &oid, &loc), 0);
		}
	}
	assert_int_equal(total, N);
	assert_int_equal(n, 0);
	cfs_index_destroy(ix);
	free(seen);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_list),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
