/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: the stream parser of every connection (net/frame.h), and the codec's cursor and name check.
 *
 * First byte: bit 0 sign the stream's frames, so that the fuzzer gets behind the checksums; bit 1 receive payloads
 * straight into place; bits 2-7 how the stream is cut. Whatever comes: no access outside of the given
 * bytes, all bytes accounted for, every message within the limits, every refusal named.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/crc32c.h"
#include "net/frame.h"
#include "rpc/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* the checksums of a frame where one might begin; returns where the next might */
static size_t sign(uint8_t *p, size_t left)
{
	struct cfs_msg_hdr hdr;
	uint32_t body_len, payload_len;

	if (left < sizeof(hdr))
		return left;
	memcpy(&hdr, p, sizeof(hdr));
	hdr.magic = cfs_cpu_to_le32(CFS_WIRE_MAGIC);
	hdr.version = CFS_WIRE_VERSION;
	body_len = cfs_le32_to_cpu(hdr.body_len);
	payload_len = cfs_le32_to_cpu(hdr.payload_len);
	if (body_len <= left - sizeof(hdr))
		hdr.body_crc = cfs_cpu_to_le32(cfs_crc32c(0, p + sizeof(hdr), body_len));
	hdr.hdr_crc = cfs_cpu_to_le32(cfs_crc32c(0, &hdr, offsetof(struct cfs_msg_hdr, hdr_crc)));
	memcpy(p, &hdr, sizeof(hdr));
	return (size_t)cfs_min((uint64_t)left, (uint64_t)sizeof(hdr) + body_len + payload_len);
}

/* the shape of most bodies: a fixed part, then what its lengths say */
static void decode(const struct cfs_msg *msg)
{
	uint32_t len = cfs_le32_to_cpu(msg->hdr.body_len);
	struct cfs_mknode_req req;
	struct cfs_lease_list list;
	struct cfs_cursor c;
	const void *p, *q;

	cfs_cursor_init(&c, msg->body, len);
	cfs_take_struct(&c, &req);
	p = cfs_take(&c, cfs_le32_to_cpu(req.name_len), "name");
	q = cfs_take(&c, cfs_le32_to_cpu(req.target_len), "target");
	if (p)
		cfs_name_check(p, cfs_le32_to_cpu(req.name_len), false);
	if (!cfs_cursor_end(&c) != (p && q && !c.err))
		abort();
	cfs_cursor_init(&c, msg->body, len);
	cfs_take_struct(&c, &list);
	p = cfs_take_array(&c, cfs_le32_to_cpu(list.n), sizeof(struct cfs_lease_item), "items");
	for (uint32_t i = 0; p && i < cfs_le32_to_cpu(list.n); i++) {
		struct cfs_lease_item item;

		cfs_copy_elem(&item, p, i);
		if (item.mode > 250 && !cfs_le64_to_cpu(item.ino))
			break;
	}
}

static void check(struct cfs_frame *f, unsigned *n)
{
	struct cfs_msg *msg = &f->msg, *taken;
	uint32_t payload_len = cfs_le32_to_cpu(msg->hdr.payload_len);

	if (cfs_le32_to_cpu(msg->hdr.body_len) > CFS_BODY_MAX || payload_len > CFS_PAYLOAD_MAX)
		abort();
	if (!payload_len != !msg->payload || (uintptr_t)msg->body & 7)
		abort();
	for (uint32_t i = payload_len; i < cfs_align_up(payload_len, 4096); i++)
		if (((uint8_t *)msg->payload)[i])
			abort();
	decode(msg);
	if (++*n % 2) {
		taken = cfs_msg_take(msg);
		decode(taken);
		cfs_msg_free(taken);
	}
	cfs_frame_next(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cfs_pool *pool;
	struct cfs_frame f;
	uint8_t *stream, flags, cut;
	unsigned n = 0;
	size_t at = 0;

	if (size < 1)
		return 0;
	flags = data[0];
	cut = (uint8_t)(flags >> 2);
	size--;
	stream = malloc(size ? size : 1);
	memcpy(stream, data + 1, size);
	for (size_t s = 0; flags & 1 && s < size;)
		s += sign(stream + s, size - s);
	if (cfs_pool_create(CFS_PAYLOAD_MAX, &pool))
		abort();
	cfs_frame_init(&f, pool);
	while (at < size) {
		size_t piece = cfs_min(size - at, cut ? (size_t)cut * cut : size), used, direct;
		uint8_t *copy;
		void *place;
		int rc;

		direct = flags & 2 ? cfs_frame_direct(&f, &place) : 0;
		if (direct) {
			piece = cfs_min(piece, direct);
			memcpy(place, stream + at, piece);
			at += piece;
			if (cfs_frame_direct_done(&f, piece))
				check(&f, &n);
			continue;
		}
		copy = malloc(piece);	/* so that one byte too far is seen */
		memcpy(copy, stream + at, piece);
		rc = cfs_frame_feed(&f, copy, piece, &used);
		if (used > piece || (rc == 0 && used != piece))
			abort();
		at += used;
		if (rc == 1)
			check(&f, &n);
		free(copy);
		if (rc < 0) {
			if (rc == -EAGAIN || !f.why)
				abort();	/* one payload at a time always fits */
			break;
		}
	}
	cfs_frame_fini(&f);
	cfs_pool_destroy(pool);
	free(stream);
	return 0;
}
