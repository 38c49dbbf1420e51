/* SPDX-License-Identifier: MIT */
/*
 * Golden vectors of the durable formats: a log entry (meta.h, version 1), every key and record of
 * the state (keys.h, version 1), and the hash of a whole small state. They must never change
 * without a new version: logs and checkpoints in the field are in this format. The entry is also
 * applied, so that the bytes mean what they say.
 */
#include "selftests/unit/server/meta/state_test.h"

#include "server/meta/keys.h"

static void hex(const void *p, size_t len, char *out)
{
	for (size_t i = 0; i < len; i++)
		sprintf(out + 2 * i, "%02x", ((const uint8_t *)p)[i]);
	out[2 * len] = 0;
}

static void expect(const void *p, size_t len, const char *want)
{
	char have[4096];

	assert_true(len < 2000);
	hex(p, len, have);
	assert_string_equal(have, want);
}

/* ---- a log entry ---------------------------------------------------------------- */
/* header; SESSION_OPEN; UNLINK of "ab" in the root by session 1000, held by session 1001 */
static const char entry_hex[] =
	"434c4f47" "0100" "0200" "40e2010000000000" "07000000" "00000000" "0000000000000000"
	"0800" "0000" "1b000000" "0000000000000000" "ffffffff" "00000000" "0000000000000000"
	"6e6f6e63652d30313233343536373839" "10000000" "03000000" "686f73" "0000000000"
	"4300" "0100" "1a000000" "e803000000000000" "02000000" "00000000" "0500000000000000"
	"0100000000000000" "0000000000000000" "02000000" "00" "00" "0000" "6162" "e903000000000000" "000000000000";

static void from_hex(const char *in, uint8_t *out, size_t *ret_len)
{
	size_t n = 0;

	for (; in[0]; in += 2) {
		unsigned v;

		assert_int_equal(sscanf(in, "%2x", &v), 1);
		out[n++] = (uint8_t)v;
	}
	*ret_len = n;
}

static unsigned n_sink;
static void sink(void *arg, unsigned rec, uint32_t status, const void *body, uint32_t len)
{
	struct cfs_session_open_rep rep;

	(void)arg;
	assert_int_equal(rec, n_sink++);
	if (rec == 0) {
		assert_int_equal(status, 0);
		assert_int_equal(len, sizeof(rep));
		memcpy(&rep, body, sizeof(rep));
		assert_int_equal(cfs_le64_to_cpu(rep.session), 1000);
		assert_int_equal(cfs_le32_to_cpu(rep.slots), 16);
	} else {
		assert_int_equal(status, CFS_E_BADSEQ);	/* the session is new: its slots begin with 1 */
	}
}

static void test_log_entry(void **arg)
{
	struct {
		struct cfs_session_open_req req;
		char name[3];
	} so = { .req = { .slots = cfs_cpu_to_le32(16), .name_len = cfs_cpu_to_le32(3) }, .name = "hos" };
	struct {
		struct cfs_unlink_req req;
		char name[2];
	} ul = { .req = { .dir = cfs_cpu_to_le64(1), .name_len = cfs_cpu_to_le32(2) }, .name = "ab" };
	struct cfs_time seven = { .nsec = cfs_cpu_to_le32(7) };
	static struct entry e;
	uint8_t buf[512];
	struct state s;
	size_t len;

	(void)arg;
	memcpy(so.req.nonce, "nonce-0123456789", 16);
	entry_init(&e, 123456);
	memcpy(e.buf + offsetof(struct cfs_log_hdr, time) + offsetof(struct cfs_time, nsec), &seven.nsec, 4);
	entry_add(&e, CFS_OP_SESSION_OPEN, 0, CFS_SLOT_NONE, 0, &so, sizeof(so.req) + 3, NULL, 0);
	entry_add(&e, CFS_OP_UNLINK, 1000, 2, 5, &ul, sizeof(ul.req) + 2, (uint64_t[]){ 1001 }, 1);
	expect(e.buf, e.len, entry_hex);
	from_hex(entry_hex, buf, &len);
	state_start(&s);
	cfs_meta_close(s.m);
	assert_int_equal(cfs_meta_discard(s.dir), 0);
	s.m = state_open_at(s.dir, 1 << 20);
	assert_int_equal(cfs_meta_apply(s.m, 1, buf, len, sink, NULL), 0);
	assert_int_equal(n_sink, 2);
	state_stop(&s);
}

/* ---- keys and records ----------------------------------------------------------- */
static void test_keys(void **arg)
{
	struct cfs_oid oid = { cfs_cpu_to_le64(0x1122), cfs_cpu_to_le64(0x3344000000005566) };
	struct cfs_key k;

	(void)arg;
	cfs_key_init(&k, CFS_KEY_STATE);
	expect(k.b, k.len, "00");
	cfs_key_init(&k, CFS_KEY_MAP);
	expect(k.b, k.len, "01");
	cfs_key_u64(&k, CFS_KEY_INODE, 0x0123456789abcdef);
	expect(k.b, k.len, "10" "0123456789abcdef");
	cfs_key_u64(&k, CFS_KEY_INLINE, 2);
	expect(k.b, k.len, "11" "0000000000000002");
	cfs_key_xattr(&k, 2, "user.x", 6);
	expect(k.b, k.len, "12" "0000000000000002" "757365722e78");
	cfs_key_u64x2(&k, CFS_KEY_EXTENT, 2, 0x400000);
	expect(k.b, k.len, "13" "0000000000000002" "0000000000400000");
	cfs_key_u64x2(&k, CFS_KEY_DENTRY, 1, 0x7fffffffffffff01);
	expect(k.b, k.len, "20" "0000000000000001" "7fffffffffffff01");
	cfs_key_u64(&k, CFS_KEY_SESSION, 1000);
	expect(k.b, k.len, "30" "00000000000003e8");
	cfs_key_slot(&k, 1000, 7);
	expect(k.b, k.len, "31" "00000000000003e8" "00000007");
	cfs_key_nonce(&k, (const uint8_t *)"nonce-0123456789");
	expect(k.b, k.len, "32" "6e6f6e63652d30313233343536373839");
	cfs_key_u64x2(&k, CFS_KEY_ORPHAN, 2, 1000);
	expect(k.b, k.len, "40" "0000000000000002" "00000000000003e8");
	cfs_key_u64x2(&k, CFS_KEY_HELD, 1000, 2);
	expect(k.b, k.len, "41" "00000000000003e8" "0000000000000002");
	cfs_key_lock(&k, 2, CFS_LOCK_FLOCK, 1000, 9, 0x10);
	expect(k.b, k.len, "50" "0000000000000002" "02" "00000000000003e8" "0000000000000009" "0000000000000010");
	assert_int_equal(k.len, CFS_KEY_LOCK_LEN);
	cfs_key_u64x2(&k, CFS_KEY_LOCKED, 1000, 2);
	expect(k.b, k.len, "51" "00000000000003e8" "0000000000000002");
	cfs_key_u64(&k, CFS_KEY_DEAD, 5);
	expect(k.b, k.len, "60" "0000000000000005");
	cfs_key_ref(&k, &oid);
	expect(k.b, k.len, "61" "0000000000001122" "3344000000005566");
	cfs_key_u64(&k, CFS_KEY_PURGE, 2);
	expect(k.b, k.len, "62" "0000000000000002");
}

static void test_records(void **arg)
{
	(void)arg;
	expect(&(struct cfs_inode_rec){ .gen = 1, .size = 2, .alloc = 3, .map = 4, .change = 5, .parent = 6, .n_extents = 7,
					.atime_sec = 8, .mtime_sec = 9, .ctime_sec = 10, .btime_sec = 11,
					.atime_nsec = 12, .mtime_nsec = 13, .ctime_nsec = 14, .btime_nsec = 15, .mode = 16,
					.nlink = 17, .uid = 18, .gid = 19, .rdev = 20, .flags = 21, .inline_len = 22,
					.n_xattrs = 23, .xattr_list_len = 24 }, 144,
	       "0100000000000000" "0200000000000000" "0300000000000000" "0400000000000000" "0500000000000000"
	       "0600000000000000" "0700000000000000" "0800000000000000" "0900000000000000" "0a00000000000000"
	       "0b00000000000000" "0c000000" "0d000000" "0e000000" "0f000000" "10000000" "11000000" "12000000" "13000000"
	       "14000000" "15000000" "16000000" "17000000" "18000000" "00000000");
	expect(&(struct cfs_ext_rec){ .len = 1, .obj_off = 2, .oid = { 3, 4 }, .obj_len = 5, .flags = 6 }, 32,
	       "01000000" "02000000" "0300000000000000" "0400000000000000" "05000000" "06000000");
	expect(&(struct cfs_dent_rec){ .ino = 1, .type = S_IFDIR >> 12, .name_len = 3 }, CFS_DENT_REC_LEN,
	       "0100000000000000" "04" "03");
	expect(&(struct cfs_slot_rec){ .seq = 1, .status = 2, .body_len = 3 }, 16, "0100000000000000" "02000000" "03000000");
	expect(&(struct cfs_lock_rec){ .end = 1, .kind = 2, .pid = 3 }, 16, "0100000000000000" "02000000" "03000000");
	expect(&(struct cfs_dead_rec){ .oid = { 1, 2 }, .died = { 3, 4, 0 } }, 32,
	       "0100000000000000" "0200000000000000" "0300000000000000" "04000000" "00000000");
	expect(&(struct cfs_state_rec){ .magic = CFS_STATE_MAGIC, .version = 1, .shard = 2, .applied = 3, .time = { 4, 5, 0 },
					.next_ino = 6, .next_session = 7, .next_dead = 8, .inodes = 9, .dirs = 10,
					.extents = 11, .data_bytes = 12, .dead_objects = 13, .orphans = 14, .sessions = 15,
					.locks = 16, .purging = 17 }, 152,
	       "434d4554" "01000000" "00000000000000000000000000000000" "02000000" "00000000" "0300000000000000"
	       "0400000000000000" "05000000" "00000000" "0600000000000000" "0700000000000000" "0800000000000000"
	       "0900000000000000" "0a00000000000000" "0b00000000000000" "0c00000000000000" "0d00000000000000"
	       "0e00000000000000" "0f00000000000000" "1000000000000000" "1100000000000000");
}

/* ---- a whole state -------------------------------------------------------------- */
static void test_state_digest(void **arg)
{
	struct cfs_lock_req lock = { .end = cfs_cpu_to_le64(INT64_MAX), .space = CFS_LOCK_POSIX, .kind = CFS_LOCK_READ };
	struct state s;
	uint64_t d, f, digest;

	(void)arg;
	state_start(&s);
	d = state_mkdir(&s, CFS_INO_ROOT, "dir");
	f = state_file(&s, d, "file");
	assert_int_equal(state_commit(&s, f, 0, 0, &(struct ext){ .off = 4096, .len = 100, .seq = 1 }, 1), 0);
	assert_int_equal(state_commit(&s, f, 0, 0, &(struct ext){ .off = 4100, .len = 10, .seq = 2 }, 1), 0);
	assert_int_equal(state_setxattr(&s, f, "user.x", "y", 1, 0), 0);
	lock.ino = cfs_cpu_to_le64(f);
	assert_int_equal(state_req(&s, CFS_OP_LOCK, &lock, sizeof(lock)), 0);
	assert_int_equal(state_link(&s, f, CFS_INO_ROOT, "again"), 0);
	assert_int_equal(state_mknode(&s, &(struct mk){ .dir = d, .name = "s", .mode = S_IFLNK, .target = "t" }, NULL), 0);
	assert_int_equal(state_mknode(&s, &(struct mk){ .dir = d, .mode = S_IFREG, .flags = CFS_MK_TMPFILE }, NULL), 0);
	assert_int_equal(state_truncate(&s, f, 4104), 0);
	assert_int_equal(state_commit_inline(&s, state_file(&s, d, "small"), "bytes", 5), 0);
	assert_int_equal(cfs_meta_digest(s.m, &digest), 0);
	assert_int_equal(digest, 0x01df4c71c58c7c31);
	state_stop(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_log_entry), cmocka_unit_test(test_keys), cmocka_unit_test(test_records),
		cmocka_unit_test(test_state_digest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
