/* SPDX-License-Identifier: MIT */
/*
 * codec.h - encoding and checking of the structures of include/claudefs/disk.h. Pure functions:
 * no I/O, no state. Everything that comes from a device goes through a _check or _decode
 * function first.
 */
#ifndef CFS_SERVER_STORE_CODEC_H
#define CFS_SERVER_STORE_CODEC_H

#include <claudefs/disk.h>
#include "base/base.h"

static inline uint32_t cfs_blocks_of(uint64_t bytes)
{
	return (uint32_t)((bytes + CFS_DISK_BLOCK - 1) / CFS_DISK_BLOCK);
}

static inline uint32_t cfs_crcs_of(uint32_t len)
{
	return (uint32_t)(((uint64_t)len + CFS_CRC_BLOCK - 1) / CFS_CRC_BLOCK);
}

static inline bool cfs_oid_eq(const struct cfs_oid *a, const struct cfs_oid *b)
{
	return a->owner == b->owner && a->seq == b->seq;
}

/* crc over `len` bytes that end in the crc field itself; _set stores it, _ok compares */
void cfs_disk_crc_set(void *p, size_t len);
bool cfs_disk_crc_ok(const void *p, size_t len);

bool cfs_bytes_zero(const void *p, size_t len);

/**
 * cfs_super_check() - 0, -EMEDIUMTYPE (no magic), -EUCLEAN (crc or nonsense), -EPROTONOSUPPORT
 * (newer)
 */
int cfs_super_check(const struct cfs_disk_super *sb);

struct cfs_seg_id {		/* what every record of a segment repeats, host order */
	uint64_t seg_seq, salt;
	uint32_t seg_blocks;	/* size of a segment */
};

/*
 * complete a record header: magic, version, lengths must be set; computes hdr_crc over
 * rec->hdr_len bytes
 */
void cfs_rec_seal(struct cfs_disk_rec *rec);
/* is this block the valid header of a record at `block` of that segment? Body not looked at */
bool cfs_rec_check(const void *block_data, const struct cfs_seg_id *id, uint32_t block);
/*
 * Was it one, for all we can tell, and has rotted? What every record repeats of its segment matches but for a few bits; and
 * since a header lies within one sector, no torn write looks like that.
 */
bool cfs_rec_like(const void *block_data, const struct cfs_seg_id *id, uint32_t block);
/*
 * the header as it was before one or two bits of it flipped: its crc finds them (crc32c has a Hamming distance of 6 up to 655
 * bytes: Koopman, 32-Bit Cyclic Redundancy Codes for Internet Applications, 2002). false, and the block is as before
 */
bool cfs_rec_mend(void *block_data, const struct cfs_seg_id *id, uint32_t block);
/*
 * are the crcs of the whole record right? `rec` has passed cfs_rec_check(), and all its blocks
 * are there
 */
bool cfs_rec_body_ok(const struct cfs_disk_rec *rec);
/*
 * crcs of object data [off, off + len), whole crc blocks: -1 all good, else number of the first
 * bad block
 */
int cfs_obj_data_check(const struct cfs_disk_rec *rec, const void *data, uint32_t off,
		       uint32_t len);

static inline uint8_t cfs_rec_type_of(const struct cfs_disk_rec *rec)
{
	return (uint8_t)(rec->type & ~CFS_RECF_ATOMIC);
}

/* only these may be flagged ATOMIC */
static inline bool cfs_rec_is_journal(const struct cfs_disk_rec *rec)
{
	return cfs_rec_type_of(rec) >= CFS_REC_JOURNAL;
}

static inline const struct cfs_disk_obj *cfs_rec_obj(const struct cfs_disk_rec *rec)
{
	return (const void *)((const char *)rec + sizeof(*rec));
}

static inline const cfs_le32 *cfs_rec_crcs(const struct cfs_disk_rec *rec)
{
	return (const void *)((const char *)rec + CFS_DISK_OBJ_HDR(0));
}

static inline const void *cfs_rec_body(const struct cfs_disk_rec *rec)
{
	return (const char *)rec + cfs_le16_to_cpu(rec->hdr_len);
}

/* fill the common part of a record header (not sealed) */
void cfs_rec_init(struct cfs_disk_rec *rec, enum cfs_rec_type type, const struct cfs_seg_id *id,
		  uint32_t block, uint32_t hdr_len, uint32_t body_len);

/* a whole block (zero-filled around it) with a segment header */
void cfs_seg_hdr_encode(void *block_data, const struct cfs_disk_seg *hdr);
/* valid header of segment `segment` of this format: copies it out (still little-endian) */
bool cfs_seg_hdr_check(const void *block_data, uint64_t format_id, uint32_t segment,
		       struct cfs_disk_seg *ret);
/* was once a header of this format, for all we can tell; anything else has never been ours */
bool cfs_seg_hdr_damaged(const void *block_data, uint64_t format_id);
bool cfs_foot_check(const void *block_data, const struct cfs_seg_id *id, uint32_t segment);
/* as cfs_rec_like(), of a footer */
bool cfs_foot_like(const void *block_data, const struct cfs_seg_id *id, uint32_t segment);
bool cfs_vote_check(const void *block_data, uint64_t format_id);

#endif
