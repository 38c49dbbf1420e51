/* SPDX-License-Identifier: MIT */
/*
 * Proves of the frame parser and the payload pool: any cutting of the stream gives the same messages; each
 * kind of damage is found and named, before any payload memory is taken; the tail of a payload is zero up to
 * the next 4096; a taken message outlives its frame and its pool; an empty pool delays, and loses nothing.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/base.h"
#include "base/crc32c.h"
#include "base/rng.h"
#include "net/frame.h"
#include "rpc/codec.h"

#define POOL_BYTES (8u << 20)

/* append one message; bytes of body and payload follow from the tag */
static size_t put_msg(uint8_t *out, uint64_t tag, uint32_t body_len, uint32_t payload_len)
{
	struct cfs_msg_hdr hdr;
	uint8_t *body = out + sizeof(hdr);

	for (uint32_t i = 0; i < body_len + payload_len; i++)
		body[i] = (uint8_t)(tag * 31 + i * 7 + i / 251);
	cfs_hdr_init(&hdr, CFS_OP_LOOKUP);
	hdr.tag = cfs_cpu_to_le64(tag);
	cfs_hdr_seal(&hdr, body, body_len, payload_len);
	memcpy(out, &hdr, sizeof(hdr));
	return sizeof(hdr) + body_len + payload_len;
}

static void check_msg(const struct cfs_msg *m, uint64_t tag, uint32_t body_len, uint32_t payload_len)
{
	assert_int_equal(cfs_le64_to_cpu(m->hdr.tag), tag);
	assert_int_equal(cfs_le32_to_cpu(m->hdr.body_len), body_len);
	assert_int_equal((uintptr_t)m->body & 7, 0);
	for (uint32_t i = 0; i < body_len; i++)
		assert_int_equal(((const uint8_t *)m->body)[i], (uint8_t)(tag * 31 + i * 7 + i / 251));
	if (!payload_len) {
		assert_null(m->payload);
		return;
	}
	assert_int_equal((uintptr_t)m->payload & 4095, 0);
	for (uint32_t i = 0; i < cfs_align_up(payload_len, 4096); i++) {
		uint32_t k = body_len + i;

		assert_int_equal(((uint8_t *)m->payload)[i],
				 i < payload_len ? (uint8_t)(tag * 31 + k * 7 + k / 251) : 0);
	}
}

static const struct {
	uint32_t body, payload;
} shapes[] = {
	{ 0, 0 }, { 8, 0 }, { 13, 0 }, { 0, 1 }, { 40, 4096 }, { 3, 4095 }, { 511, 0 }, { 512, 100 },
	{ 513, 0 }, { 1000, 70000 }, { 5000, 20 }, { CFS_BODY_MAX, 0 }, { 24, 65536 }, { 1, 65537 },
};

static void test_any_cut(void **state)
{
	static uint8_t stream[2 << 20] __attribute__((aligned(8)));
	struct cfs_pool *pool;
	struct cfs_rng rng;
	size_t len = 0;

	(void)state;
	for (unsigned i = 0; i < CFS_ARRAY_SIZE(shapes); i++)
		len += put_msg(stream + len, i, shapes[i].body, shapes[i].payload);
	assert_int_equal(cfs_pool_create(POOL_BYTES, &pool), 0);
	cfs_rng_seed(&rng, 1);
	for (unsigned round = 0; round < 60; round++) {
		struct cfs_frame f;
		size_t at = 0;
		unsigned n = 0;

		cfs_frame_init(&f, pool);
		while (at < len) {
			/* whole, tiny and random pieces; each in memory of its own, for the sanitizer */
			size_t piece = round == 0 ? len : round == 1 ? 1 : 1 + cfs_rng_below(&rng, 1u << (round % 20));
			size_t used, done = 0;
			uint8_t *copy;
			void *place;

			piece = cfs_min(piece, len - at);
			if (round % 3 == 2 && cfs_frame_direct(&f, &place)) {	/* straight into place */
				piece = cfs_min(piece, cfs_frame_direct(&f, &place));
				memcpy(place, stream + at, piece);
				at += piece;
				if (!cfs_frame_direct_done(&f, piece))
					continue;
				check_msg(&f.msg, n, shapes[n].body, shapes[n].payload);
				n++;
				cfs_frame_next(&f);
				continue;
			}
			copy = malloc(piece);
			memcpy(copy, stream + at, piece);
			while (done < piece) {
				int rc = cfs_frame_feed(&f, copy + done, piece - done, &used);

				assert_true(rc == 0 || rc == 1);
				done += used;
				if (rc == 1) {
					check_msg(&f.msg, n, shapes[n].body, shapes[n].payload);
					n++;
					cfs_frame_next(&f);
				} else {
					assert_int_equal(done, piece);
				}
			}
			at += piece;
			free(copy);
		}
		assert_int_equal(n, CFS_ARRAY_SIZE(shapes));
		assert_false(cfs_frame_partial(&f));
		cfs_frame_fini(&f);
	}
	cfs_pool_destroy(pool);
}

/* one flipped bit anywhere in header or body is refused; the message says where to look */
static void test_damage(void **state)
{
	static uint8_t good[64 + 40 + 4096], bad[sizeof(good)];
	struct cfs_pool *pool;
	size_t used;

	(void)state;
	assert_int_equal(cfs_pool_create(POOL_BYTES, &pool), 0);
	assert_int_equal(put_msg(good, 9, 40, 4096), sizeof(good));
	for (unsigned bit = 0; bit < (64 + 40) * 8; bit++) {
		struct cfs_frame f;
		int rc;

		memcpy(bad, good, sizeof(bad));
		bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
		cfs_frame_init(&f, pool);
		rc = cfs_frame_feed(&f, bad, sizeof(bad), &used);
		assert_int_equal(rc, bit < 512 ? -EPROTO : -EBADMSG);
		assert_non_null(f.why);
		assert_null(f.msg.priv);
		if (bit < 32)
			assert_string_equal(f.why, "magic");
		else if (bit < 512)
			assert_string_equal(f.why, "header checksum");
		else
			assert_string_equal(f.why, "body checksum");
		cfs_frame_fini(&f);
	}
	cfs_pool_destroy(pool);
}

/* well signed, but beyond the limits */
static void test_limits(void **state)
{
	static const struct {
		uint32_t body, payload;
		uint8_t version, flags;
		uint16_t opcode;
		const char *why;
	} cases[] = {
		{ CFS_BODY_MAX + 1, 0, 1, 0, 1, "body length" },
		{ UINT32_MAX, 0, 1, 0, 1, "body length" },
		{ 0, CFS_PAYLOAD_MAX + 1, 1, 0, 1, "payload length" },
		{ 0, UINT32_MAX, 1, 0, 1, "payload length" },
		{ 0, 0, 2, 0, 1, "protocol version" },
		{ 0, 0, 1, 2, 1, "unknown flags" },
		{ 0, 0, 1, 0, 0, "opcode 0" },
	};
	struct cfs_msg_hdr good, hdr;

	(void)state;
	cfs_hdr_init(&good, 1);
	cfs_hdr_seal(&good, NULL, 0, 0);
	for (unsigned i = 0; i < CFS_ARRAY_SIZE(cases); i++) {
		struct cfs_frame f;
		size_t used;

		/* sealed by hand: cfs_hdr_seal asserts the limits */

		hdr = good;
		hdr.body_len = cfs_cpu_to_le32(cases[i].body);
		hdr.payload_len = cfs_cpu_to_le32(cases[i].payload);
		hdr.version = cases[i].version;
		hdr.flags = cases[i].flags;
		hdr.opcode = cfs_cpu_to_le16(cases[i].opcode);
		hdr.hdr_crc = cfs_cpu_to_le32(cfs_crc32c(0, &hdr, 60));
		cfs_frame_init(&f, NULL);
		assert_int_equal(cfs_frame_feed(&f, &hdr, sizeof(hdr), &used), -EPROTO);
		assert_string_equal(f.why, cases[i].why);
		cfs_frame_fini(&f);
	}
}

static unsigned woken;

static void on_wait(void *arg)
{
	(void)arg;
	woken++;
}

static void test_pool_runs_out(void **state)
{
	static uint8_t stream[2 << 20];
	struct cfs_msg *taken[32];
	struct cfs_pool *pool;
	struct cfs_frame f;
	unsigned n = 0;
	size_t len, used;

	(void)state;
	woken = 0;
	assert_int_equal(cfs_pool_create(POOL_BYTES, &pool), 0);
	cfs_pool_set_waiter(pool, on_wait, NULL);
	cfs_frame_init(&f, pool);
	len = put_msg(stream, 5, 600, 500000);	/* body too long to live in a buffer's head */
	for (;;) {
		int rc = cfs_frame_feed(&f, stream, len, &used);

		if (rc == -EAGAIN)
			break;
		assert_int_equal(rc, 1);
		assert_true(n < 32);
		taken[n] = cfs_msg_take(&f.msg);
		assert_null(f.msg.payload);
		n++;
		cfs_frame_next(&f);
	}
	assert_int_equal(n, POOL_BYTES / (512u << 10));
	assert_true(used < len);
	assert_int_equal(cfs_frame_feed(&f, NULL, 0, &len), -EAGAIN);
	assert_int_equal(woken, 0);
	cfs_msg_free(taken[--n]);
	assert_int_equal(woken, 1);
	len = put_msg(stream, 5, 600, 500000);
	/* the rest comes from elsewhere: nothing of it was lost */
	assert_int_equal(cfs_frame_feed(&f, stream + used, 1000, &len), 0);
	assert_int_equal(len, 1000);
	assert_int_equal(cfs_frame_feed(&f, stream + used + 1000, 500000, &len), 1);
	check_msg(&f.msg, 5, 600, 500000);
	taken[n++] = cfs_msg_take(&f.msg);
	cfs_frame_next(&f);
	cfs_frame_fini(&f);
	cfs_pool_destroy(pool);		/* lives on until the last message is free */
	for (unsigned i = 0; i < n; i++) {
		check_msg(taken[i], 5, 600, 500000);
		cfs_msg_free(taken[i]);
	}
	cfs_msg_free(NULL);
}

/* buffers of one size must not keep another size from being had */
static void test_pool_sizes(void **state)
{
	struct cfs_pbuf *b[200];
	struct cfs_pool *pool;
	unsigned n = 0;

	(void)state;
	assert_int_equal(cfs_pool_create(POOL_BYTES, &pool), 0);
	while ((b[n] = cfs_pool_take(pool, 100)))
		n++;
	assert_int_equal(n, POOL_BYTES / 65536);
	assert_null(cfs_pool_take(pool, CFS_PAYLOAD_MAX));
	while (n)
		cfs_pool_give(b[--n]);
	b[0] = cfs_pool_take(pool, CFS_PAYLOAD_MAX);
	assert_non_null(b[0]);
	cfs_pool_give(b[0]);
	cfs_pool_destroy(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_any_cut),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_pool_runs_out),
		cmocka_unit_test(test_pool_sizes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
