/* SPDX-License-Identifier: MIT */
/*
 * Proves of the codec: header and three bodies have exactly the bytes of selftests/golden/wire-*.hex, so that
 * no compiler, machine or edit changes the protocol unseen; cursor and builder never step over the end, keep
 * their first error, and name it; names and payload checksums are checked as documented.
 * CFS_GOLDEN_WRITE=1 writes the golden files anew (a change of format: bump the version first).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/base.h"
#include "rpc/codec.h"

/* ---- golden vectors ---------------------------------------------------------------------------- */

static void golden(const char *name, const void *bytes, size_t len)
{
	const char *top = getenv("T_TOP");
	uint8_t want[4096];
	char path[512];
	size_t n = 0;
	unsigned v;
	FILE *f;

	snprintf(path, sizeof(path), "%s/selftests/golden/%s.hex", top ? top : ".", name);
	if (getenv("CFS_GOLDEN_WRITE")) {
		assert_non_null(f = fopen(path, "w"));
		for (size_t i = 0; i < len; i++)
			fprintf(f, "%02x%c", ((const uint8_t *)bytes)[i], i % 16 == 15 || i + 1 == len ? '\n' : ' ');
		fclose(f);
	}
	f = fopen(path, "r");
	if (!f)
		fail_msg("%s: %s", path, strerror(errno));
	while (n < sizeof(want) && fscanf(f, "%x", &v) == 1)
		want[n++] = (uint8_t)v;
	fclose(f);
	assert_int_equal(n, len);
	assert_memory_equal(bytes, want, len);
}

static void fill_attr(struct cfs_attr *a)
{
	memset(a, 0, sizeof(*a));
	a->ino = cfs_cpu_to_le64(0x0123456789abcdefull);
	a->gen = cfs_cpu_to_le64(7);
	a->size = cfs_cpu_to_le64(1ull << 40);
	a->alloc = cfs_cpu_to_le64(4096);
	a->mtime.sec = cfs_cpu_to_le64((uint64_t)-2);
	a->mtime.nsec = cfs_cpu_to_le32(999999999);
	a->change = cfs_cpu_to_le64(11);
	a->parent = cfs_cpu_to_le64(CFS_INO_ROOT);
	a->mode = cfs_cpu_to_le32(0100644);
	a->nlink = cfs_cpu_to_le32(1);
	a->uid = cfs_cpu_to_le32(1000);
	a->gid = cfs_cpu_to_le32(100);
	a->flags = cfs_cpu_to_le32(CFS_IF_INLINE);
}

static void test_golden(void **state)
{
	struct cfs_mknode_req mk = {
		.dir = cfs_cpu_to_le64(CFS_INO_ROOT),
		.cred = { cfs_cpu_to_le32(1000), cfs_cpu_to_le32(100), cfs_cpu_to_le32(022), cfs_cpu_to_le32(4711) },
		.mode = cfs_cpu_to_le32(0120777),
		.flags = cfs_cpu_to_le32(CFS_MK_LEASE),
		.name_len = cfs_cpu_to_le32(4),
		.target_len = cfs_cpu_to_le32(9),
	};
	struct cfs_open_rep open = {
		.valid = cfs_cpu_to_le32(CFS_V_ATTR),
		.lease = cfs_cpu_to_le32(CFS_LEASE_EXCL),
		.n_extents = cfs_cpu_to_le32(1),
		.extents_end = cfs_cpu_to_le64(1ull << 40),
	};
	struct cfs_extent ext = {
		.file_off = cfs_cpu_to_le64(65536),
		.len = cfs_cpu_to_le32(4 << 20),
		.obj_off = cfs_cpu_to_le32(512),
		.oid = { cfs_cpu_to_le64(0xfeed), cfs_cpu_to_le64(3ull << CFS_OID_PG_SHIFT | 9) },
		.obj_len = cfs_cpu_to_le32(4 << 20),
	};
	struct cfs_break_req brk = { .n = cfs_cpu_to_le32(1) };
	struct cfs_break_item item = {
		.dir = cfs_cpu_to_le64(2),
		.ino = cfs_cpu_to_le64(3),
		.flags = cfs_cpu_to_le32(CFS_BRK_NAME | CFS_BRK_DATA),
		.to_mode = CFS_LEASE_SHARED,
		.name_len = cfs_cpu_to_le16(6),
	};
	struct cfs_msg_hdr hdr;
	struct cfs_builder b;
	uint8_t buf[1024];
	struct cfs_open_req want = {
		.ino = cfs_cpu_to_le64(11), .want = cfs_cpu_to_le32(CFS_LEASE_EXCL),
		.flags = cfs_cpu_to_le32(CFS_OPEN_KEEP | CFS_OPEN_THROUGH), .max_extents = cfs_cpu_to_le32(256),
	};
	struct cfs_commit_req commit = { .n = cfs_cpu_to_le32(1) };
	struct cfs_commit_item patch = {
		.ino = cfs_cpu_to_le64(11), .flags = cfs_cpu_to_le32(CFS_CI_PATCH | CFS_CI_APPEND), .inline_len = cfs_cpu_to_le32(7),
	};
	struct cfs_commit_rep committed = { .n = cfs_cpu_to_le32(1) };
	struct cfs_commit_result result = { .flags = cfs_cpu_to_le32(CFS_CR_CONTENDED), .off = cfs_cpu_to_le64(4096) };
	const char *why;

	(void)state;
	cfs_builder_init(&b, buf, sizeof(buf));
	cfs_put_struct(&b, &mk);
	cfs_put(&b, "link", 4, "name");
	cfs_put(&b, "../target", 9, "target");
	assert_int_equal(cfs_builder_ok(&b), 0);
	golden("wire-mknode-req", buf, b.len);

	cfs_hdr_init(&hdr, CFS_OP_MKNODE);
	hdr.tag = cfs_cpu_to_le64(0x1122334455667788ull);
	hdr.session = cfs_cpu_to_le64(0xfeed);
	hdr.slot = cfs_cpu_to_le32(5);
	hdr.seq = cfs_cpu_to_le64(6);
	hdr.map_epoch = cfs_cpu_to_le64(7);
	cfs_hdr_seal(&hdr, buf, (uint32_t)b.len, 4096);
	assert_int_equal(cfs_hdr_check(&hdr, &why), 0);
	assert_int_equal(cfs_body_check(&hdr, buf), 0);
	golden("wire-header", &hdr, sizeof(hdr));

	cfs_builder_init(&b, buf, sizeof(buf));
	fill_attr(&open.attr);
	cfs_put_struct(&b, &open);
	cfs_put_struct(&b, &ext);
	assert_int_equal(cfs_builder_ok(&b), 0);
	golden("wire-open-rep", buf, b.len);

	cfs_builder_init(&b, buf, sizeof(buf));
	cfs_put_struct(&b, &brk);
	cfs_put_struct(&b, &item);
	cfs_put(&b, "a name", 6, "name");
	assert_int_equal(cfs_builder_ok(&b), 0);
	golden("wire-break-req", buf, b.len);

	/* what is written through: asked for, told, and answered */
	cfs_builder_init(&b, buf, sizeof(buf));
	cfs_put_struct(&b, &want);
	cfs_put_struct(&b, &commit);
	cfs_put_struct(&b, &patch);
	cfs_put(&b, "a line\n", 7, "inline data");
	assert_int_equal(cfs_builder_ok(&b), 0);
	golden("wire-through-req", buf, b.len);

	cfs_builder_init(&b, buf, sizeof(buf));
	open.valid = cfs_cpu_to_le32(CFS_V_CONTENDED);
	open.lease = cfs_cpu_to_le32(CFS_LEASE_NONE);
	fill_attr(&result.attr);
	cfs_put_struct(&b, &open);
	cfs_put_struct(&b, &committed);
	cfs_put_struct(&b, &result);
	assert_int_equal(cfs_builder_ok(&b), 0);
	golden("wire-through-rep", buf, b.len);
}

/* ---- headers ------------------------------------------------------------------------------------- */

static void test_header(void **state)
{
	struct cfs_msg_hdr req, rep, parts;
	const struct iovec iov[3] = { { (void *)(uintptr_t)"ab", 2 }, { NULL, 0 }, { (void *)(uintptr_t)"cde", 3 } };
	const char *why;

	(void)state;
	cfs_hdr_init(&req, CFS_OP_RENAME);
	assert_int_equal(cfs_le32_to_cpu(req.slot), CFS_SLOT_NONE);
	req.tag = 5, req.session = 6, req.slot = 7, req.seq = 8;
	parts = req;
	cfs_hdr_seal(&req, "abcde", 5, 0);
	cfs_hdr_seal_iov(&parts, iov, 3, 0);
	assert_memory_equal(&req, &parts, sizeof(req));
	cfs_hdr_init_reply(&rep, &req, CFS_E_GRACE);
	cfs_hdr_seal(&rep, NULL, 0, 0);
	assert_int_equal(cfs_hdr_check(&rep, &why), 0);
	assert_int_equal(rep.flags, CFS_MSG_REPLY);
	assert_int_equal(cfs_le32_to_cpu(rep.status), CFS_E_GRACE);
	assert_int_equal(rep.opcode, req.opcode);
	assert_true(rep.tag == 5 && rep.session == 6 && rep.slot == 7 && rep.seq == 8);
	assert_int_equal(rep.body_crc, 0);	/* wire.h: 0 bytes have crc 0 */
	assert_int_equal(cfs_body_check(&rep, NULL), 0);
	assert_int_equal(cfs_body_check(&req, "abcdf"), -EBADMSG);
}

/* ---- cursor and builder ----------------------------------------------------------------------------- */

static void test_cursor(void **state)
{
	uint8_t buf[21] = { 1, 0, 0, 0, 2, 0, 0, 0, 3 };
	struct cfs_lease_list list;
	struct cfs_cursor c;
	uint64_t v;

	(void)state;
	cfs_cursor_init(&c, buf, sizeof(buf));
	assert_true(cfs_take_struct(&c, &list));
	assert_int_equal(cfs_le32_to_cpu(list.n), 1);
	assert_int_equal(c.left, 13);
	assert_non_null(cfs_take_array(&c, 1, 8, "items"));
	assert_int_equal(cfs_cursor_ok(&c), 0);
	assert_int_equal(cfs_cursor_end(&c), -EPROTO);
	assert_string_equal(c.err, "bytes after the end");

	cfs_cursor_init(&c, buf, sizeof(buf));
	assert_non_null(cfs_take(&c, 21, "all"));
	assert_non_null(cfs_take(&c, 0, "nothing"));
	assert_int_equal(cfs_cursor_end(&c), 0);
	assert_null(cfs_take(&c, 1, "one more"));
	assert_null(cfs_take(&c, 0, "later"));
	memset(&v, 0xff, sizeof(v));
	assert_false(cfs_take_copy(&c, &v, sizeof(v), "v"));
	assert_int_equal(v, 0);
	assert_string_equal(c.err, "one more");
	assert_int_equal(cfs_cursor_end(&c), -EPROTO);

	/* counts whose product does not fit into 64 bits */
	cfs_cursor_init(&c, buf, sizeof(buf));
	assert_null(cfs_take_array(&c, SIZE_MAX / 2 + 2, 2, "huge"));
	assert_string_equal(c.err, "huge");
	cfs_cursor_init(&c, buf, sizeof(buf));
	assert_null(cfs_take(&c, SIZE_MAX, "more"));
	cfs_cursor_init(&c, NULL, 0);
	assert_non_null(cfs_take(&c, 0, "empty"));
	assert_int_equal(cfs_cursor_end(&c), 0);
	cfs_cursor_init(&c, buf, sizeof(buf));
	cfs_cursor_fail(&c, "too many");
	cfs_cursor_fail(&c, "never shown");
	assert_null(cfs_take(&c, 1, "x"));
	assert_string_equal(c.err, "too many");
	/* at odd places */
	assert_int_equal(cfs_get_le16(buf + 3), 0x0200);
	assert_int_equal(cfs_get_le32(buf + 1), 0x02000000);
	assert_int_equal(cfs_get_le64(buf + 1), 0x0300000002000000ull);
	cfs_copy_elem(&v, buf + 1, 0);
	assert_int_equal(v, cfs_cpu_to_le64(0x0300000002000000ull));
}

static void test_builder(void **state)
{
	uint8_t buf[24];
	struct cfs_builder b;

	(void)state;
	memset(buf, 0xee, sizeof(buf));
	cfs_builder_init(&b, buf, 20);
	assert_true(cfs_put(&b, "abc", 3, "abc"));
	assert_true(cfs_put_align(&b, 8, "pad"));
	assert_int_equal(b.len, 8);
	assert_int_equal(buf[7], 0);
	assert_true(cfs_put_le64(&b, 0x1122, "v"));
	assert_int_equal(buf[8], 0x22);
	assert_true(cfs_put_align(&b, 8, "pad"));
	assert_int_equal(b.len, 16);
	assert_false(cfs_put_le64(&b, 1, "too much"));
	assert_false(cfs_put(&b, "", 0, "later"));
	assert_null(cfs_put_space(&b, 1, "later"));
	assert_string_equal(b.err, "too much");
	assert_int_equal(cfs_builder_ok(&b), -EMSGSIZE);
	assert_int_equal(b.len, 16);
	assert_int_equal(buf[20], 0xee);
	cfs_builder_init(&b, buf, 20);
	assert_null(cfs_put_space(&b, SIZE_MAX, "all"));
}

static void test_names(void **state)
{
	char longest[256];

	(void)state;
	memset(longest, 'x', sizeof(longest));
	assert_int_equal(cfs_name_check("a", 1, false), 0);
	assert_int_equal(cfs_name_check("...", 3, false), 0);
	assert_int_equal(cfs_name_check(".x", 2, false), 0);
	assert_int_equal(cfs_name_check(longest, 255, false), 0);
	assert_int_equal(cfs_name_check(longest, 256, false), -ENAMETOOLONG);
	assert_int_equal(cfs_name_check("", 0, true), -EPROTO);
	assert_int_equal(cfs_name_check(".", 1, false), -EPROTO);
	assert_int_equal(cfs_name_check("..", 2, false), -EPROTO);
	assert_int_equal(cfs_name_check("..", 2, true), 0);
	assert_int_equal(cfs_name_check("a/b", 3, true), -EPROTO);
	assert_int_equal(cfs_name_check("a\0b", 3, true), -EPROTO);
}

static void test_payload_crcs(void **state)
{
	const uint32_t len = 3 * CFS_CRC_BLOCK + 17;
	uint8_t *data = calloc(1, len);
	uint32_t crcs[4];

	(void)state;
	for (uint32_t i = 0; i < len; i++)
		data[i] = (uint8_t)(i * 13 + i / 255);
	assert_int_equal(cfs_crc_blocks(0), 0);
	assert_int_equal(cfs_crc_blocks(1), 1);
	assert_int_equal(cfs_crc_blocks(CFS_CRC_BLOCK), 1);
	assert_int_equal(cfs_crc_blocks(CFS_OBJECT_MAX), CFS_OBJECT_CRCS);
	assert_int_equal(cfs_crc_blocks(len), 4);
	cfs_payload_crcs(data, len, crcs);
	assert_int_equal(cfs_payload_verify(data, len, crcs), -1);
	for (uint32_t block = 0; block < 4; block++) {
		data[block * CFS_CRC_BLOCK + 16] ^= 1;
		assert_int_equal(cfs_payload_verify(data, len, crcs), block);
		data[block * CFS_CRC_BLOCK + 16] ^= 1;
	}
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_cursor),
		cmocka_unit_test(test_builder),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_payload_crcs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
