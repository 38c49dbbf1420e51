/* SPDX-License-Identifier: MIT */
/*
 * Proves exactly once (a repeated request gets its first answer and changes nothing), that
 * sessions open by nonce and leave nothing behind when they end, and that POSIX and flock locks
 * are granted, split, merged and refused as fcntl(2) and flock(2) say - against a model of single
 * bytes.
 */
#include "selftests/unit/server/meta/state_test.h"

#include "base/rng.h"

#define ROOT CFS_INO_ROOT

static void test_slots(void **arg)
{
	struct state s;
	uint8_t first[CFS_REPLY_MAX], again[CFS_REPLY_MAX];
	uint32_t first_len, status, len;
	struct {
		struct cfs_mknode_req req;
		char name[1];
	} mk = { .req = { .dir = cfs_cpu_to_le64(ROOT), .mode = cfs_cpu_to_le32(S_IFREG | 0600),
			  .name_len = cfs_cpu_to_le32(1) }, .name = { 'x' } };
	const size_t mk_len = sizeof(mk.req) + 1;
	uint64_t inodes;

	(void)arg;
	state_start(&s);
	assert_int_equal(cfs_meta_slot(s.m, s.session, 0, 1, &status, again, &len), -EAGAIN);
	assert_int_equal(cfs_meta_slot(s.m, s.session, 0, 0, &status, again, &len), -EILSEQ);
	assert_int_equal(cfs_meta_slot(s.m, s.session, 4, 1, &status, again, &len), -EILSEQ);
	assert_int_equal(cfs_meta_slot(s.m, 4711, 0, 1, &status, again, &len), -ESTALE);
	assert_int_equal(state_apply(&s, CFS_OP_MKNODE, s.session, 0, 1, &mk, mk_len), 0);
	first_len = s.rep_len;
	memcpy(first, s.rep, first_len);
	inodes = state_stat(&s).inodes;
	/* the same again: the same answer */
	assert_int_equal(state_apply(&s, CFS_OP_MKNODE, s.session, 0, 1, &mk, mk_len), 0);
	assert_int_equal(s.rep_len, first_len);
	assert_memory_equal(s.rep, first, first_len);
	assert_int_equal(state_stat(&s).inodes, inodes);
	assert_int_equal(cfs_meta_slot(s.m, s.session, 0, 1, &status, again, &len), 0);
	assert_int_equal(status, 0);
	assert_int_equal(len, first_len);
	assert_memory_equal(again, first, first_len);
	assert_int_equal(cfs_meta_slot(s.m, s.session, 0, 2, &status, again, &len), -EAGAIN);
	/* a failure is an answer, too */
	assert_int_equal(state_apply(&s, CFS_OP_MKNODE, s.session, 0, 2, &mk, mk_len), EEXIST);
	assert_int_equal(state_remove(&s, ROOT, "x", false),
			 CFS_E_BADSEQ); /* slot 0, seq 1 again: an old one */
	assert_int_equal(cfs_meta_slot(s.m, s.session, 0, 2, &status, again, &len), 0);
	assert_int_equal(status, EEXIST);
	assert_int_equal(len, 0);
	assert_int_equal(state_apply(&s, CFS_OP_MKNODE, s.session, 0, 2, &mk, mk_len), EEXIST);
	/* old, skipping, in a slot that is not there, of a session that is not there */
	assert_int_equal(state_apply(&s, CFS_OP_MKNODE, s.session, 0, 4, &mk, mk_len),
			 CFS_E_BADSEQ);
	assert_int_equal(state_apply(&s, CFS_OP_MKNODE, s.session, 9, 1, &mk, mk_len),
			 CFS_E_BADSEQ);
	assert_int_equal(state_apply(&s, CFS_OP_MKNODE, s.session, CFS_SLOT_NONE, 1, &mk, mk_len),
			 CFS_E_BADSEQ);
	assert_int_equal(state_apply(&s, CFS_OP_MKNODE, 4711, 0, 1, &mk, mk_len), CFS_E_BADSESSION);
	/* another slot counts for itself; malformed requests are answered there as well */
	assert_int_equal(state_apply(&s, CFS_OP_MKNODE, s.session, 1, 1, &mk, mk_len + 1),
			 CFS_E_PROTO);
	assert_int_equal(state_apply(&s, CFS_OP_MKNODE, s.session, 1, 2, &mk, 3), CFS_E_PROTO);
	/* what the leader refused by itself */
	{
		cfs_le32 body[2] = { cfs_cpu_to_le32(EDEADLK), 0 };

		assert_int_equal(state_apply(&s, CFS_LOG_FAIL, s.session, 1, 3, body, sizeof(body)),
				 EDEADLK);
		assert_int_equal(cfs_meta_slot(s.m, s.session, 1, 3, &status, again, &len), 0);
		assert_int_equal(status, EDEADLK);
	}
	state_stop(&s);
}

static int name_of(void *arg, uint64_t session, uint32_t slots, const char *name)
{
	uint64_t *list = arg;

	assert_int_equal(slots, 4);
	assert_string_equal(name, "host");
	list[++list[0]] = session;
	return 0;
}

static void test_sessions(void **arg)
{
	struct state s;
	uint64_t list[8] = { 0 }, second, third;

	(void)arg;
	state_start(&s);
	assert_int_equal(s.session, 1000);
	assert_int_equal(state_session(&s, "first"), s.session);
	second = state_session(&s, "second");
	assert_int_equal(second, 1001);
	assert_true(cfs_meta_session_exists(s.m, second));
	assert_int_equal(state_apply(&s, CFS_LOG_FENCE, second, CFS_SLOT_NONE, 0, NULL, 0), 0);
	assert_int_equal(state_apply(&s, CFS_LOG_FENCE, second, CFS_SLOT_NONE, 0, NULL, 0),
			 CFS_E_BADSESSION);
	assert_false(cfs_meta_session_exists(s.m, second));
	third = state_session(&s, "second");	/* the same nonce: but that session is over */
	assert_int_equal(third, 1002);
	assert_int_equal(cfs_meta_sessions(s.m, name_of, list), 0);
	assert_int_equal(list[0], 2);
	assert_int_equal(list[1], s.session);
	assert_int_equal(list[2], third);
	assert_int_equal(state_stat(&s).sessions, 2);
	state_stop(&s);
}

static void test_map(void **arg)
{
	struct {
		struct cfs_map_rep rep;
		struct cfs_map_target target;
		cfs_le32 pg[4];
	} map = { .rep = { .epoch = cfs_cpu_to_le64(3),
			   .n_targets = cfs_cpu_to_le32(1),
			   .n_pgs = cfs_cpu_to_le32(4),
			   .replicas = cfs_cpu_to_le32(1),
			   .shards = cfs_cpu_to_le32(1) },
		  .target = { .addr = "here:1" } };
	static uint8_t out[CFS_BODY_MAX];
	struct cfs_statfs_rep fs;
	struct state s;
	uint32_t len;

	(void)arg;
	state_start(&s);
	assert_int_equal(cfs_meta_map(s.m, out, &len), -ENOENT);
	assert_int_equal(state_apply(&s, CFS_LOG_MAP, 0, CFS_SLOT_NONE, 0, &map, sizeof(map) - 1),
			 CFS_E_PROTO);
	assert_int_equal(state_apply(&s, CFS_LOG_MAP, 0, CFS_SLOT_NONE, 0, &map, sizeof(map)), 0);
	assert_int_equal(cfs_meta_map(s.m, out, &len), 0);
	assert_int_equal(len, sizeof(map));
	assert_memory_equal(out, &map, len);
	/* epochs grow */
	assert_int_equal(state_apply(&s, CFS_LOG_MAP, 0, CFS_SLOT_NONE, 0, &map, sizeof(map)),
			 CFS_E_MAPEPOCH);
	map.rep.epoch = cfs_cpu_to_le64(4);
	assert_int_equal(state_apply(&s, CFS_LOG_MAP, 0, CFS_SLOT_NONE, 0, &map, sizeof(map)), 0);

	assert_int_equal(state_commit_inline(&s, state_file(&s, ROOT, "f"), "1234", 4), 0);
	assert_int_equal(state_read(&s, CFS_OP_STATFS, NULL, 0), 0);
	memcpy(&fs, s.rep, sizeof(fs));
	assert_int_equal(cfs_le64_to_cpu(fs.files), 2);
	assert_int_equal(cfs_le64_to_cpu(fs.total_bytes), 4);
	assert_int_equal(cfs_le32_to_cpu(fs.name_max), 255);
	state_stop(&s);
}

/* ---- locks ---------------------------------------------------------------------- */
static struct cfs_lock_req lock_req(uint64_t ino, uint64_t owner, unsigned space, unsigned kind,
				    uint64_t start, uint64_t end)
{
	return (struct cfs_lock_req){
		.ino = cfs_cpu_to_le64(ino),
		.owner = cfs_cpu_to_le64(owner),
		.start = cfs_cpu_to_le64(start),
		.end = cfs_cpu_to_le64(end),
		.space = (uint8_t)space,
		.kind = (uint8_t)kind,
		.pid = cfs_cpu_to_le32((uint32_t)owner + 100),
	};
}

static uint32_t lock(struct state *s, uint64_t ino, uint64_t owner, unsigned kind, uint64_t start,
		     uint64_t end)
{
	struct cfs_lock_req req = lock_req(ino, owner, CFS_LOCK_POSIX, kind, start, end);

	return state_req(s, CFS_OP_LOCK, &req, sizeof(req));
}

static uint32_t flock_(struct state *s, uint64_t ino, uint64_t owner, unsigned kind)
{
	struct cfs_lock_req req = lock_req(ino, owner, CFS_LOCK_FLOCK, kind, 0, INT64_MAX);

	return state_req(s, CFS_OP_LOCK, &req, sizeof(req));
}

static void test_locks(void **arg)
{
	struct state s;
	struct cfs_lock_req req, rep;
	struct cfs_lock_holder h[4];
	uint64_t f, g, other, mine;
	uint32_t status, len;
	uint8_t out[64];

	(void)arg;
	state_start(&s);
	f = state_file(&s, ROOT, "f");
	g = state_file(&s, ROOT, "g");
	assert_int_equal(lock(&s, f, 1, CFS_LOCK_READ, 0, 99), 0);
	assert_int_equal(lock(&s, f, 2, CFS_LOCK_READ, 50, INT64_MAX), 0);
	assert_int_equal(lock(&s, f, 1, CFS_LOCK_WRITE, 0, 49), 0);
	assert_int_equal(state_stat(&s).locks, 3);
	assert_int_equal(lock(&s, f, 1, CFS_LOCK_WRITE, 0, 50), EAGAIN);
	assert_int_equal(lock(&s, f, 1, CFS_LOCK_READ, 50, 99), 0);
	assert_int_equal(state_stat(&s).locks, 3);
	assert_int_equal(lock(&s, f, 1, CFS_LOCK_READ, 0, 49), 0);	/* downgrade: merges */
	assert_int_equal(state_stat(&s).locks, 2);
	assert_int_equal(lock(&s, f, 1, CFS_LOCK_UNLOCK, 10, 19), 0);	/* splits */
	assert_int_equal(state_stat(&s).locks, 3);
	assert_int_equal(lock(&s, f, 1, CFS_LOCK_WRITE, 0, 9), 0);
	/* another session, the same owner number */
	other = state_session(&s, "other");
	mine = s.session;
	s.session = other;
	s.slot = 1;
	assert_int_equal(lock(&s, f, 1, CFS_LOCK_WRITE, 9, 10), EAGAIN);
	assert_int_equal(lock(&s, f, 1, CFS_LOCK_WRITE, 10, 19), 0);
	assert_int_equal(lock(&s, g, 1, CFS_LOCK_WRITE, 0, INT64_MAX), 0);
	/* who is in the way */
	req = lock_req(f, 1, CFS_LOCK_POSIX, CFS_LOCK_WRITE, 5, 60);
	assert_int_equal(state_read(&s, CFS_OP_GETLK, &req, sizeof(req)), 0);
	memcpy(&rep, s.rep, sizeof(rep));
	assert_int_equal(rep.kind, CFS_LOCK_WRITE);
	assert_int_equal(rep.start, 0);
	assert_int_equal(cfs_le64_to_cpu(rep.end), 9);
	assert_int_equal(cfs_le32_to_cpu(rep.pid), 101);
	assert_int_equal(state_read(&s, CFS_OP_LOCK, &req, sizeof(req)), EAGAIN);
	assert_int_equal(s.rep_len, sizeof(rep) + 8);
	assert_int_equal(cfs_get_le64(s.rep + sizeof(rep)), mine);
	assert_int_equal(cfs_meta_lock_blockers(s.m, other, &req, h, 4), 2);
	assert_true(h[0].session == mine && h[0].owner == 1 && h[1].session == mine &&
		    h[1].owner == 2);
	assert_int_equal(cfs_meta_lock_blockers(s.m, other, &req, h, 1), 1);
	req = lock_req(f, 1, CFS_LOCK_POSIX, CFS_LOCK_READ, 20, 60);
	assert_int_equal(state_read(&s, CFS_OP_GETLK, &req, sizeof(req)), 0);
	memcpy(&rep, s.rep, sizeof(rep));
	assert_int_equal(rep.kind, CFS_LOCK_UNLOCK);
	assert_int_equal(cfs_meta_lock_blockers(s.m, other, &req, h, 4), 0);
	/* a waiting lock that cannot be had leaves its slot as it is */
	req = lock_req(f, 1, CFS_LOCK_POSIX, CFS_LOCK_WRITE, 0, 5);
	req.wait = 1;
	assert_int_equal(state_req(&s, CFS_OP_LOCK, &req, sizeof(req)), EAGAIN);
	assert_int_equal(cfs_meta_slot(s.m, other, 1, s.seq[1], &status, out, &len), -EAGAIN);
	s.session = mine;
	s.slot = 0;
	assert_int_equal(lock(&s, f, 1, CFS_LOCK_UNLOCK, 0, INT64_MAX), 0);
	s.session = other;
	s.slot = 1;
	assert_int_equal(state_apply(&s, CFS_OP_LOCK, other, 1, s.seq[1], &req, sizeof(req)), 0);
	state_check(&s);
	/* flock is a space of its own */
	assert_int_equal(flock_(&s, f, 5, CFS_LOCK_WRITE), 0);
	assert_int_equal(flock_(&s, f, 6, CFS_LOCK_READ), EAGAIN);
	assert_int_equal(flock_(&s, f, 5, CFS_LOCK_READ), 0);
	assert_int_equal(flock_(&s, f, 6, CFS_LOCK_READ), 0);
	assert_int_equal(flock_(&s, f, 5, CFS_LOCK_WRITE), EAGAIN);
	req = lock_req(f, 5, CFS_LOCK_FLOCK, CFS_LOCK_READ, 1, 2);
	assert_int_equal(state_req(&s, CFS_OP_LOCK, &req, sizeof(req)), EINVAL);
	req = lock_req(f, 5, CFS_LOCK_POSIX, CFS_LOCK_READ, 3, 2);
	assert_int_equal(state_req(&s, CFS_OP_LOCK, &req, sizeof(req)), EINVAL);
	req = lock_req(f, 5, CFS_LOCK_POSIX, 7, 0, 2);
	assert_int_equal(state_req(&s, CFS_OP_LOCK, &req, sizeof(req)), EINVAL);
	req = lock_req(999, 5, CFS_LOCK_POSIX, CFS_LOCK_READ, 0, 2);
	assert_int_equal(state_req(&s, CFS_OP_LOCK, &req, sizeof(req)), ENOENT);
	/* a session's locks go with it; an inode's with the inode */
	assert_int_equal(state_apply(&s, CFS_LOG_FENCE, other, CFS_SLOT_NONE, 0, NULL, 0), 0);
	state_check(&s);
	assert_int_equal(state_stat(&s).locks, 1);
	s.session = mine;
	s.slot = 0;
	assert_int_equal(lock(&s, g, 1, CFS_LOCK_WRITE, 0, INT64_MAX), 0);
	assert_int_equal(state_remove(&s, ROOT, "f", false), 0);
	assert_int_equal(state_stat(&s).locks, 1);
	state_stop(&s);
}

/* three owners on 40 bytes: what each byte is, after any sequence of requests */
#define BYTES 40
static void test_lock_model(void **arg)
{
	static uint8_t have[3][BYTES];	/* enum cfs_lock_kind, 0 none */
	struct cfs_lock_req req, rep;
	struct cfs_rng r;
	struct state s;
	uint64_t f;

	(void)arg;
	print_message("seed 11\n");
	cfs_rng_seed(&r, 11);
	state_start(&s);
	f = state_file(&s, ROOT, "f");
	for (unsigned step = 0; step < 3000; step++) {
		unsigned owner = (unsigned)cfs_rng_below(&r, 3),
			 kind = 1 + (unsigned)cfs_rng_below(&r, 3);
		uint64_t start = cfs_rng_below(&r, BYTES),
			 end = start + cfs_rng_below(&r, BYTES - start);
		bool conflict = false;
		unsigned runs = 0;

		for (unsigned o = 0; o < 3; o++)
			for (uint64_t b = start; b <= end && kind != CFS_LOCK_UNLOCK; b++)
				conflict |=
					o != owner && have[o][b] &&
					(kind == CFS_LOCK_WRITE || have[o][b] == CFS_LOCK_WRITE);
		req = lock_req(f, owner, CFS_LOCK_POSIX, kind, start, end);
		assert_int_equal(state_read(&s, CFS_OP_GETLK, &req, sizeof(req)), 0);
		memcpy(&rep, s.rep, sizeof(rep));
		assert_int_equal(rep.kind != CFS_LOCK_UNLOCK, conflict);
		assert_int_equal(lock(&s, f, owner, kind, start, end), conflict ? EAGAIN : 0);
		if (!conflict)
			memset(&have[owner][start], kind == CFS_LOCK_UNLOCK ? 0 : (int)kind,
			       end - start + 1);
		/* neighbours of a kind are one lock */
		for (unsigned o = 0; o < 3; o++)
			for (unsigned b = 0; b < BYTES; b++)
				runs += have[o][b] && (!b || have[o][b - 1] != have[o][b]);
		assert_int_equal(state_stat(&s).locks, runs);
		if (step % 100 == 0)
			state_check(&s);
	}
	state_stop(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slots),	   cmocka_unit_test(test_sessions),
		cmocka_unit_test(test_map),	   cmocka_unit_test(test_locks),
		cmocka_unit_test(test_lock_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
