/* SPDX-License-Identifier: MIT */
/* codec.c - see codec.h. No state; any thread. */
#include "server/store/codec.h"

#include <errno.h>
#include <string.h>

#include "base/crc32c.h"

void cfs_disk_crc_set(void *p, size_t len)
{
	cfs_le32 crc = cfs_cpu_to_le32(cfs_crc32c(0, p, len - sizeof(cfs_le32)));

	memcpy((char *)p + len - sizeof(crc), &crc, sizeof(crc));
}

bool cfs_disk_crc_ok(const void *p, size_t len)
{
	cfs_le32 crc;

	memcpy(&crc, (const char *)p + len - sizeof(crc), sizeof(crc));
	return cfs_le32_to_cpu(crc) == cfs_crc32c(0, p, len - sizeof(crc));
}

bool cfs_bytes_zero(const void *p, size_t len)
{
	const char *b = p;

	return !len || (!b[0] && !memcmp(b, b + 1, len - 1));
}

static bool geometry_ok(const struct cfs_disk_super *sb)
{
	uint64_t dev_bytes = cfs_le64_to_cpu(sb->device_bytes);
	uint32_t seg_bytes = cfs_le32_to_cpu(sb->segment_bytes), n = cfs_le32_to_cpu(sb->segments);
	uint64_t zone = cfs_le64_to_cpu(sb->zone_bytes);

	if (cfs_le32_to_cpu(sb->block_bytes) != CFS_DISK_BLOCK || seg_bytes < CFS_DISK_SEG_MIN ||
	    n < CFS_DISK_SEGMENTS_MIN || n >= CFS_DISK_SEGMENTS_MAX)
		return false;
	if (sb->incompat)
		return zone <= CFS_DISK_ZONE_MAX && seg_bytes <= zone &&
		       !(seg_bytes % CFS_DISK_BLOCK) && !(zone % CFS_DISK_BLOCK) &&
		       n + CFS_DISK_ROOT_ZONES <= dev_bytes / zone &&
		       cfs_le32_to_cpu(sb->n_retired) <= CFS_DISK_RETIRED;
	return !zone && seg_bytes <= CFS_DISK_SEG_MAX && !(seg_bytes & (seg_bytes - 1)) &&
	       dev_bytes >= CFS_DISK_SEG_OFF && n <= (dev_bytes - CFS_DISK_SEG_OFF) / seg_bytes;
}

int cfs_super_check(const struct cfs_disk_super *sb)
{
	uint32_t version = cfs_le32_to_cpu(sb->version);

	if (cfs_le64_to_cpu(sb->magic) != CFS_SUPER_MAGIC)
		return -EMEDIUMTYPE;
	if (!cfs_disk_crc_ok(sb, sizeof(*sb)))
		return -EUCLEAN;
	if (version < CFS_DISK_VERSION_MIN || version > CFS_DISK_VERSION ||
	    cfs_le64_to_cpu(sb->incompat) & ~(uint64_t)CFS_INCOMPAT_ZONED)
		return -EPROTONOSUPPORT;
	return geometry_ok(sb) ? 0 : -EUCLEAN;
}

static uint32_t rec_crc(const struct cfs_disk_rec *rec, uint32_t hdr_len)
{
	uint32_t crc = cfs_crc32c(0, rec, offsetof(struct cfs_disk_rec, hdr_crc));

	return cfs_crc32c(crc, rec + 1, hdr_len - sizeof(*rec));
}

void cfs_rec_init(struct cfs_disk_rec *rec, enum cfs_rec_type type, const struct cfs_seg_id *id,
		  uint32_t block, uint32_t hdr_len, uint32_t body_len)
{
	uint32_t blocks = type == CFS_REC_OBJECT ? 1 + cfs_blocks_of(body_len) :
						   cfs_blocks_of(hdr_len + body_len);

	CFS_ASSERT(hdr_len >= sizeof(*rec) && hdr_len <= CFS_DISK_BLOCK);
	CFS_ASSERT(block >= CFS_DISK_SEG_HDR_BLOCKS && block + blocks <= id->seg_blocks);
	memset(rec, 0, sizeof(*rec));
	rec->magic = cfs_cpu_to_le32(CFS_REC_MAGIC);
	rec->version = CFS_DISK_STRUCT_VERSION;
	rec->type = (uint8_t)type;
	rec->hdr_len = cfs_cpu_to_le16((uint16_t)hdr_len);
	rec->blocks = cfs_cpu_to_le32(blocks);
	rec->seg_seq = cfs_cpu_to_le64(id->seg_seq);
	rec->salt = cfs_cpu_to_le64(id->salt);
	rec->seg_block = cfs_cpu_to_le32(block);
	rec->body_len = cfs_cpu_to_le32(body_len);
}

void cfs_rec_seal(struct cfs_disk_rec *rec)
{
	rec->hdr_crc = cfs_cpu_to_le32(rec_crc(rec, cfs_le16_to_cpu(rec->hdr_len)));
}

static bool object_hdr_ok(const struct cfs_disk_rec *rec)
{
	const struct cfs_disk_obj *obj = cfs_rec_obj(rec);
	uint32_t len = cfs_le32_to_cpu(rec->body_len), n = cfs_crcs_of(len);

	return len && len <= CFS_OBJECT_MAX && cfs_le32_to_cpu(obj->len) == len &&
	       cfs_le32_to_cpu(obj->n_crcs) == n &&
	       cfs_le16_to_cpu(rec->hdr_len) == CFS_DISK_OBJ_HDR(n) &&
	       cfs_le32_to_cpu(rec->blocks) == 1 + cfs_blocks_of(len);
}

bool cfs_rec_check(const void *block_data, const struct cfs_seg_id *id, uint32_t block)
{
	const struct cfs_disk_rec *rec = block_data;
	uint32_t hdr_len = cfs_le16_to_cpu(rec->hdr_len), blocks = cfs_le32_to_cpu(rec->blocks);
	uint32_t body_len = cfs_le32_to_cpu(rec->body_len);

	if (cfs_le32_to_cpu(rec->magic) != CFS_REC_MAGIC || rec->version != CFS_DISK_STRUCT_VERSION ||
	    cfs_le64_to_cpu(rec->seg_seq) != id->seg_seq ||
	    cfs_le64_to_cpu(rec->salt) != id->salt || cfs_le32_to_cpu(rec->seg_block) != block)
		return false;
	if (hdr_len < sizeof(*rec) || hdr_len > CFS_DISK_BLOCK ||
	    rec_crc(rec, hdr_len) != cfs_le32_to_cpu(rec->hdr_crc))
		return false;
	if (!blocks || blocks > id->seg_blocks || block + blocks > id->seg_blocks)
		return false;
	switch (cfs_rec_is_journal(rec) ? rec->type & ~CFS_RECF_ATOMIC : rec->type) {
	case CFS_REC_OBJECT:
		return hdr_len > CFS_DISK_OBJ_HDR(0) && object_hdr_ok(rec);
	case CFS_REC_TOMB:
	case CFS_REC_SUMMARY:
		if (body_len % sizeof(struct cfs_disk_ent))
			return false;
		break;
	case CFS_REC_JOURNAL:
	case CFS_REC_SNAPSHOT:
	case CFS_REC_MARK:
		break;
	default:
		return false;
	}
	return hdr_len == sizeof(*rec) && blocks == cfs_blocks_of((uint64_t)hdr_len + body_len);
}

/* ---- rot in headers --------------------------------------------------------------------- */
#define LIKE_BITS	8u	/* so many of the 200 or so that are compared may differ */

static uint32_t bits_differ(uint64_t a, uint64_t b)
{
	return (uint32_t)__builtin_popcountll(a ^ b);
}

bool cfs_rec_like(const void *block_data, const struct cfs_seg_id *id, uint32_t block)
{
	const struct cfs_disk_rec *rec = block_data;

	return bits_differ(cfs_le32_to_cpu(rec->magic), CFS_REC_MAGIC) +
		       bits_differ(rec->version, CFS_DISK_STRUCT_VERSION) +
		       bits_differ(cfs_le64_to_cpu(rec->seg_seq), id->seg_seq) +
		       bits_differ(cfs_le64_to_cpu(rec->salt), id->salt) +
		       bits_differ(cfs_le32_to_cpu(rec->seg_block), block) <=
	       LIKE_BITS;
}

static bool hdr_len_possible(uint32_t len)
{
	return len == sizeof(struct cfs_disk_rec) ||
	       (len > CFS_DISK_OBJ_HDR(0) && len <= CFS_DISK_OBJ_HDR(CFS_OBJECT_CRCS) &&
		!((len - CFS_DISK_OBJ_HDR(0)) % sizeof(cfs_le32)));
}

/* crc as it is, against crc as it says: what flipped bits make of that is the sum of what each makes */
static uint32_t syndrome(const struct cfs_disk_rec *rec, uint32_t hdr_len)
{
	return rec_crc(rec, hdr_len) ^ cfs_le32_to_cpu(rec->hdr_crc);
}

static void flip(void *p, uint32_t bit)
{
	((uint8_t *)p)[bit / 8] ^= (uint8_t)(1u << bit % 8);
}

/* up to `most` (1 or 2) more bits of a header whose length is right */
static bool mend_bits(struct cfs_disk_rec *rec, const struct cfs_seg_id *id, uint32_t block, uint32_t most)
{
	uint32_t one[CFS_DISK_OBJ_HDR(CFS_OBJECT_CRCS) * 8], len = cfs_le16_to_cpu(rec->hdr_len);
	uint32_t n = len * 8, all = syndrome(rec, len);

	if (cfs_rec_check(rec, id, block))
		return true;
	for (uint32_t i = 0; i < n; i++) {
		flip(rec, i);
		one[i] = all ^ syndrome(rec, len);
		if (one[i] == all && cfs_rec_check(rec, id, block))
			return true;
		flip(rec, i);
	}
	for (uint32_t i = 0; i < n && most > 1; i++) {
		for (uint32_t j = i + 1; j < n; j++) {
			if ((one[i] ^ one[j]) != all)
				continue;
			flip(rec, i);
			flip(rec, j);
			if (cfs_rec_check(rec, id, block))
				return true;
			flip(rec, i);
			flip(rec, j);
		}
	}
	return false;
}

bool cfs_rec_mend(void *block_data, const struct cfs_seg_id *id, uint32_t block)
{
	struct cfs_disk_rec *rec = block_data;
	uint32_t at = offsetof(struct cfs_disk_rec, hdr_len) * 8;

	if (hdr_len_possible(cfs_le16_to_cpu(rec->hdr_len)) && mend_bits(rec, id, block, 2))
		return true;
	/* of the two, one or both may be in the length itself */
	for (uint32_t i = 0; i < 16; i++) {
		flip(rec, at + i);
		for (uint32_t j = i; j < 16; j++) {
			if (j > i)
				flip(rec, at + j);
			if (hdr_len_possible(cfs_le16_to_cpu(rec->hdr_len)) &&
			    (j > i ? cfs_rec_check(rec, id, block) : mend_bits(rec, id, block, 1)))
				return true;
			if (j > i)
				flip(rec, at + j);
		}
		flip(rec, at + i);
	}
	return false;
}

bool cfs_foot_like(const void *block_data, const struct cfs_seg_id *id, uint32_t segment)
{
	const struct cfs_disk_foot *f = block_data;

	return bits_differ(cfs_le32_to_cpu(f->magic), CFS_FOOT_MAGIC) +
		       bits_differ(cfs_le16_to_cpu(f->version), CFS_DISK_STRUCT_VERSION) +
		       bits_differ(cfs_le32_to_cpu(f->segment), segment) +
		       bits_differ(cfs_le64_to_cpu(f->seg_seq), id->seg_seq) +
		       bits_differ(cfs_le64_to_cpu(f->salt), id->salt) <=
	       LIKE_BITS;
}

bool cfs_rec_body_ok(const struct cfs_disk_rec *rec)
{
	uint32_t len = cfs_le32_to_cpu(rec->body_len);

	if (rec->type == CFS_REC_OBJECT)
		return cfs_obj_data_check(rec, (const char *)rec + CFS_DISK_BLOCK, 0, len) < 0;
	return cfs_crc32c(0, cfs_rec_body(rec), len) == cfs_le32_to_cpu(rec->body_crc);
}

int cfs_obj_data_check(const struct cfs_disk_rec *rec, const void *data, uint32_t off, uint32_t len)
{
	const cfs_le32 *crcs = cfs_rec_crcs(rec);

	CFS_ASSERT(off % CFS_CRC_BLOCK == 0);
	for (uint32_t i = off / CFS_CRC_BLOCK; len; i++) {
		uint32_t n = cfs_min(len, CFS_CRC_BLOCK);

		if (cfs_crc32c(0, data, n) != cfs_le32_to_cpu(crcs[i]))
			return (int)i;
		data = (const char *)data + n;
		len -= n;
	}
	return -1;
}

void cfs_seg_hdr_encode(void *block_data, const struct cfs_disk_seg *hdr)
{
	struct cfs_disk_seg *h = block_data;

	memset(block_data, 0, CFS_DISK_BLOCK);
	*h = *hdr;
	h->magic = cfs_cpu_to_le32(CFS_SEG_MAGIC);
	h->version = CFS_DISK_STRUCT_VERSION;
	cfs_disk_crc_set(h, sizeof(*h));
}

bool cfs_seg_hdr_check(const void *block_data, uint64_t format_id, uint32_t segment,
		       struct cfs_disk_seg *ret)
{
	const struct cfs_disk_seg *h = block_data;

	if (cfs_le32_to_cpu(h->magic) != CFS_SEG_MAGIC || h->version != CFS_DISK_STRUCT_VERSION ||
	    !cfs_disk_crc_ok(h, sizeof(*h)) || cfs_le32_to_cpu(h->segment) != segment ||
	    h->type < CFS_SEG_FREE || h->type > CFS_SEG_POOL ||
	    cfs_le64_to_cpu(h->format_id) != format_id)
		return false;
	*ret = *h;
	return true;
}

bool cfs_seg_hdr_damaged(const void *block_data, uint64_t format_id)
{
	const struct cfs_disk_seg *h = block_data;

	return cfs_le32_to_cpu(h->magic) == CFS_SEG_MAGIC &&
	       (!cfs_disk_crc_ok(h, sizeof(*h)) || cfs_le64_to_cpu(h->format_id) == format_id);
}

bool cfs_foot_check(const void *block_data, const struct cfs_seg_id *id, uint32_t segment)
{
	const struct cfs_disk_foot *f = block_data;
	uint32_t sum = cfs_le32_to_cpu(f->sum_block), end = cfs_le32_to_cpu(f->end_block);

	return cfs_le32_to_cpu(f->magic) == CFS_FOOT_MAGIC &&
	       cfs_le16_to_cpu(f->version) == CFS_DISK_STRUCT_VERSION && cfs_disk_crc_ok(f, sizeof(*f)) &&
	       cfs_le32_to_cpu(f->segment) == segment &&
	       cfs_le64_to_cpu(f->seg_seq) == id->seg_seq && cfs_le64_to_cpu(f->salt) == id->salt &&
	       sum >= CFS_DISK_SEG_HDR_BLOCKS && sum < id->seg_blocks - 1 && end <= sum &&
	       end >= CFS_DISK_SEG_HDR_BLOCKS;
}

bool cfs_vote_check(const void *block_data, uint64_t format_id)
{
	const struct cfs_disk_vote *v = block_data;

	return cfs_le32_to_cpu(v->magic) == CFS_VOTE_MAGIC &&
	       cfs_le32_to_cpu(v->version) == CFS_DISK_STRUCT_VERSION && cfs_disk_crc_ok(v, sizeof(*v)) &&
	       cfs_le64_to_cpu(v->format_id) == format_id;
}
