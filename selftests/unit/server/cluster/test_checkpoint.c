/* SPDX-License-Identifier: MIT */
/*
 * Proves of checkpoints (server/cluster/checkpoint.h), on the simulator's disk and a real store and
 * state: a copy of the state comes back key by key; taking goes on while entries are applied; old
 * copies, and halves of failed ones, disappear from the store while everybody else's objects stay;
 * rot and missing objects are found; a manifest of another cluster, shard or format is refused.
 */
#include "../meta/state_test.h"

#include "base/crc32c.h"
#include "server/cluster/checkpoint.h"
#include "sim/sim.h"

#define DISK_BYTES (512u << 20)

static struct cfs_sim *sim;
static struct cfs_sim_node *node;
static struct cfs_sim_disk *disk;
static struct cfs_dev *dev;
static struct cfs_store *store;
static struct cfs_ckpt *ck;
static struct state st;

static bool done;
static int done_err;
static struct cfs_ckpt_manifest done_manifest;

static void on_done(void *arg, int err, const struct cfs_ckpt_manifest *m)
{
	assert_ptr_equal(arg, &st);
	assert_false(done);
	assert_true((err == 0) == (m != NULL));
	done = true;
	done_err = err;
	if (m)
		done_manifest = *m;
}

static bool is_done(void *arg)
{
	(void)arg;
	return done;
}

static int wait_done(void)
{
	assert_false(done);
	assert_true(
		cfs_sim_run_until(sim, is_done, NULL, cfs_sim_now(sim) + 600 * CFS_NSEC_PER_SEC));
	done = false;
	return done_err;
}

static void run_ms(uint64_t ms)
{
	cfs_sim_run(sim, cfs_sim_now(sim) + ms * CFS_NSEC_PER_MSEC);
}

static void make_ckpt(void)
{
	struct cfs_ckpt_params p = { .clock = cfs_sim_node_clock(node),
				     .store = store,
				     .target = 3,
				     .dir = st.dir,
				     .arg = &st };

	memcpy(p.cluster, state_cluster, 16);
	assert_int_equal(cfs_ckpt_create(&p, &ck), 0);
}

static int setup(void **state)
{
	struct cfs_format_params fp = { .target_id = 3, .segment_bytes = 8u << 20 };
	struct cfs_store_params sp = { 0 };
	char err[256] = "";

	(void)state;
	done = false;
	memcpy(fp.cluster, state_cluster, 16);
	assert_int_equal(cfs_sim_create(11, NULL, &sim), 0);
	assert_int_equal(cfs_sim_node_create(sim, "a", &node), 0);
	assert_int_equal(cfs_sim_disk_create(node, DISK_BYTES, 4096, &disk), 0);
	assert_int_equal(cfs_sim_disk_open(disk, &dev), 0);
	assert_int_equal(cfs_store_format(dev, &fp, err, sizeof(err)), 0);
	sp.dev = dev;
	sp.clock = cfs_sim_node_clock(node);
	assert_int_equal(cfs_store_open(&sp, &store, err, sizeof(err)), 0);
	memset(&st, 0, sizeof(st));
	state_start(&st);
	make_ckpt();
	return 0;
}

static void stopped(void *arg)
{
	*(bool *)arg = true;
}

static int teardown(void **state)
{
	bool stop = false;

	(void)state;
	cfs_ckpt_cancel(ck);
	run_ms(1000);
	assert_false(cfs_ckpt_busy(ck));
	cfs_ckpt_destroy(ck);
	state_stop(&st);
	cfs_store_stop(store, stopped, &stop);
	run_ms(5000);
	assert_true(stop);
	cfs_store_close(store, true);
	cfs_dev_close(dev);
	cfs_sim_destroy(sim);
	return 0;
}

/* so much state that its copy takes several objects */
static void grow(unsigned inodes)
{
	static uint8_t value[3000];
	char name[32];

	for (unsigned i = 0; i < inodes; i++) {
		uint64_t ino;

		snprintf(name, sizeof(name), "f%llu-%u", (unsigned long long)st.index, i);
		ino = state_file(&st, CFS_INO_ROOT, name);
		memset(value, (int)i, sizeof(value));
		assert_int_equal(state_setxattr(&st, ino, "user.x", value, sizeof(value), 0), 0);
	}
}

static unsigned count_objects(uint64_t owner)
{
	struct cfs_oid oids[256];
	uint32_t lens[256];
	uint64_t cursor = 0;
	unsigned n = 0;
	int got;

	while ((got = cfs_store_list(store, &cursor, oids, lens, 256)) > 0)
		for (int i = 0; i < got; i++)
			n += cfs_le64_to_cpu(oids[i].owner) == owner;
	return n;
}

static bool written;

static void on_written(struct cfs_store_write *w, int err)
{
	(void)w;
	assert_int_equal(err, 0);
	written = true;
}

/* somebody else's object, with a name that could be a checkpoint's */
static void put_other(uint64_t seq)
{
	static uint8_t data[4096] __attribute__((aligned(4096)));
	uint32_t crc = cfs_crc32c(0, data, sizeof(data));
	struct cfs_store_write w = { .oid = { cfs_cpu_to_le64(5), cfs_cpu_to_le64(seq) },
				     .data = data,
				     .len = sizeof(data),
				     .n_crcs = 1,
				     .crcs = &crc,
				     .done = on_written };

	written = false;
	cfs_store_write(store, &w);
	run_ms(100);
	assert_true(written);
}

static int restore(const struct cfs_ckpt_manifest *m)
{
	cfs_ckpt_restore(ck, m, NULL, NULL, on_done);
	return wait_done();
}

static void there_and_back(void **state)
{
	struct cfs_ckpt_manifest m, checked;
	uint64_t before, after;
	const char *why;

	(void)state;
	grow(3000);
	assert_int_equal(cfs_meta_digest(st.m, &before), 0);
	cfs_ckpt_take(ck, st.m, on_done);
	assert_true(cfs_ckpt_busy(ck));
	assert_int_equal(wait_done(), 0);
	assert_false(cfs_ckpt_busy(ck));
	m = done_manifest;
	assert_int_equal(cfs_ckpt_manifest_check(&m, sizeof(m), state_cluster, 0, &checked, &why),
			 0);
	assert_true(cfs_le64_to_cpu(m.total) > 2ull * CFS_OBJECT_MAX);
	assert_int_equal(count_objects(CFS_OID_OWNER_META),
			 (cfs_le64_to_cpu(m.total) + CFS_OBJECT_MAX - 1) / CFS_OBJECT_MAX);
	assert_int_equal(cfs_le32_to_cpu(m.target), 3);

	uint64_t applied = cfs_meta_applied(st.m);

	grow(10);				/* what comes later is not in it */
	assert_int_equal(restore(&m), 0);
	cfs_meta_close(st.m);
	assert_int_equal(cfs_ckpt_swap(ck), 0);
	st.m = state_open_at(st.dir, 1 << 20);
	assert_int_equal(cfs_meta_applied(st.m), applied);
	assert_int_equal(cfs_meta_digest(st.m, &after), 0);
	assert_int_equal(after, before);
	state_check(&st);
}

static void while_applying(void **state)
{
	uint64_t at;

	(void)state;
	grow(2000);
	at = cfs_meta_applied(st.m);
	cfs_ckpt_take(ck, st.m, on_done);
	while (!done) {
		grow(1);
		run_ms(1);
	}
	done = false;
	assert_int_equal(done_err, 0);
	assert_int_equal(restore(&done_manifest), 0);
	cfs_meta_close(st.m);
	assert_int_equal(cfs_ckpt_swap(ck), 0);
	st.m = state_open_at(st.dir, 1 << 20);
	assert_true(cfs_meta_applied(st.m) >= at);
	state_check(&st);
}

static void old_ones_go(void **state)
{
	struct cfs_ckpt_manifest first, second;
	unsigned n;

	(void)state;
	grow(2000);
	cfs_ckpt_take(ck, st.m, on_done);
	assert_int_equal(wait_done(), 0);
	first = done_manifest;
	n = count_objects(CFS_OID_OWNER_META);
	for (unsigned i = 0; i < n; i++)
		put_other(cfs_le64_to_cpu(first.first_seq) + i);
	cfs_ckpt_keep(ck, &first);
	run_ms(2000);
	assert_int_equal(count_objects(CFS_OID_OWNER_META), n);
	grow(10);
	cfs_ckpt_take(ck, st.m, on_done);
	assert_int_equal(wait_done(), 0);
	second = done_manifest;
	assert_true(second.first_seq != first.first_seq);
	run_ms(2000);
	assert_true(count_objects(CFS_OID_OWNER_META) >
		    n); /* both, until the second one is what counts */
	cfs_ckpt_keep(ck, &second);
	run_ms(2000);
	assert_int_equal(count_objects(CFS_OID_OWNER_META),
			 (cfs_le64_to_cpu(second.total) + CFS_OBJECT_MAX - 1) / CFS_OBJECT_MAX);
	assert_int_equal(count_objects(5), n);
	assert_int_equal(restore(&second), 0);
	assert_int_not_equal(restore(&first), 0);

	/* what a server that was killed left behind goes at the next start */
	cfs_ckpt_take(ck, st.m, on_done);
	assert_int_equal(wait_done(), 0);
	n = count_objects(CFS_OID_OWNER_META);
	cfs_ckpt_cancel(ck);
	cfs_ckpt_destroy(ck);
	make_ckpt();
	cfs_ckpt_keep(ck, &second);
	run_ms(3000);
	assert_true(count_objects(CFS_OID_OWNER_META) < n);
	assert_int_equal(restore(&second), 0);
}

/* the scan that follows a start is still going on when a checkpoint is complete and its manifest is not */
static void waiting_for_its_manifest(void **state)
{
	struct cfs_ckpt_manifest second;
	unsigned n;

	(void)state;
	grow(300);
	cfs_ckpt_take(ck, st.m, on_done);
	while (!done)			/* nothing else gets time */
		assert_true(cfs_sim_step(sim));
	done = false;
	assert_int_equal(done_err, 0);
	n = count_objects(CFS_OID_OWNER_META);
	assert_true(n > 0);
	cfs_ckpt_keep(ck, NULL);
	run_ms(2000);
	assert_int_equal(count_objects(CFS_OID_OWNER_META), n);

	/* it never gets one: the next one takes its place */
	cfs_ckpt_take(ck, st.m, on_done);
	assert_int_equal(wait_done(), 0);
	second = done_manifest;
	cfs_ckpt_keep(ck, &second);
	run_ms(2000);
	assert_int_equal(count_objects(CFS_OID_OWNER_META),
			 (cfs_le64_to_cpu(second.total) + CFS_OBJECT_MAX - 1) / CFS_OBJECT_MAX);
}

static void failed_halves_go(void **state)
{
	struct cfs_ckpt_manifest good;
	unsigned n;

	(void)state;
	grow(2500);
	cfs_ckpt_take(ck, st.m, on_done);
	assert_int_equal(wait_done(), 0);
	good = done_manifest;
	cfs_ckpt_keep(ck, &good);
	run_ms(1000);
	n = count_objects(CFS_OID_OWNER_META);
	cfs_ckpt_take(ck, st.m, on_done);
	while (count_objects(CFS_OID_OWNER_META) == n)
		assert_true(cfs_sim_step(sim));
	cfs_ckpt_cancel(ck);			/* as a stop does */
	assert_int_equal(wait_done(), -ECANCELED);
	cfs_ckpt_destroy(ck);
	make_ckpt();
	cfs_ckpt_keep(ck, &good);
	run_ms(3000);
	assert_int_equal(count_objects(CFS_OID_OWNER_META), n);
	assert_int_equal(restore(&good), 0);
}

/* find the copy of a page of the state on the disk, and spoil it */
static void rot_is_found(void **state)
{
	struct cfs_ckpt_manifest m;
	const uint8_t *bytes;
	static uint8_t needle[3000];
	uint8_t *at;

	(void)state;
	grow(1500);
	memset(needle, 77, sizeof(needle));
	cfs_ckpt_take(ck, st.m, on_done);
	assert_int_equal(wait_done(), 0);
	m = done_manifest;
	run_ms(1000);
	bytes = cfs_sim_disk_bytes(disk);
	at = memmem(bytes, DISK_BYTES, needle, sizeof(needle));
	assert_non_null(at);
	for (; at;
	     at = memmem(at + 1, (size_t)(bytes + DISK_BYTES - at - 1), needle, sizeof(needle)))
		cfs_sim_disk_rot(disk, (uint64_t)(at - bytes), 1000, 1);
	assert_int_equal(restore(&m), -EBADMSG);
	m.total = cfs_cpu_to_le64(cfs_le64_to_cpu(m.total) + CFS_OBJECT_MAX);
	assert_int_not_equal(restore(&m), 0);
}

static void manifests(void **state)
{
	struct cfs_ckpt_manifest m, out;
	const char *why;

	(void)state;
	cfs_ckpt_take(ck, st.m, on_done);
	assert_int_equal(wait_done(), 0);
	for (unsigned i = 0; i < 7; i++) {
		size_t len = sizeof(m);

		m = done_manifest;
		switch (i) {
		case 0: len--; break;
		case 1: m.magic ^= 1; break;
		case 2: m.version ^= 1; break;
		case 3: m.cluster[3] ^= 1; break;
		case 4: m.shard ^= 1; break;
		case 5: m.total = 0; break;
		case 6: m.total = cfs_cpu_to_le64(CFS_CKPT_BYTES_MAX + 1); break;
		}
		assert_int_equal(cfs_ckpt_manifest_check(&m, len, state_cluster, 0, &out, &why),
				 -EUCLEAN);
		assert_non_null(why);
	}
	m = done_manifest;
	m.crc ^= 1;
	assert_int_equal(restore(&m), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(there_and_back, setup, teardown),
		cmocka_unit_test_setup_teardown(while_applying, setup, teardown),
		cmocka_unit_test_setup_teardown(old_ones_go, setup, teardown),
		cmocka_unit_test_setup_teardown(waiting_for_its_manifest, setup, teardown),
		cmocka_unit_test_setup_teardown(failed_halves_go, setup, teardown),
		cmocka_unit_test_setup_teardown(rot_is_found, setup, teardown),
		cmocka_unit_test_setup_teardown(manifests, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
