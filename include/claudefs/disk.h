/* SPDX-License-Identifier: MIT */
/*
 * disk.h - the on-disk format of a target, version 3.
 *
 * A target is one device (block device or regular file), divided into blocks of 4096 bytes. Two
 * copies of the superblock live at fixed places, written in turn; the valid one with the higher
 * `seq` counts. Then comes a region of vote slots: two blocks for each Raft group, written one
 * after the other with the same content, so that neither a torn write nor one rotten block loses
 * a vote. From 1 MiB on follow segments of equal size (a power of two, 1 MiB to 64 MiB).
 *
 * A segment begins with its header, stored twice, in its first two blocks: what the segment is,
 * which incarnation (`seg_seq`, never used twice on a target), and a random `salt`. A header
 * whose `format_id` is not the superblock's belongs to an earlier life of the device, and the
 * segment is free. The header becomes durable before anything in the segment is acknowledged.
 * Records follow, each aligned to a block. A record repeats seg_seq, salt and its own block
 * number, so that neither stale bytes of an earlier incarnation nor user data that looks like a
 * record is ever taken for one. It is named by a sequence number, carries the crc32c of its
 * header and of its content, and a watermark (`durable`) which says what was known to be durable
 * when it was written. The watermark tells rot from a torn tail: a bad record below the
 * watermark of a good one had been acknowledged, so it is damage and reported; a bad record at
 * or above every watermark was never acknowledged, and is dropped. Up to the watermark, records follow each other without a
 * gap, from the last summary on. A record's header lies within one sector of 512 bytes, so no cut tears it: one that
 * differs in a few bits from what it has to repeat has rotted, wherever it is.
 *
 * DATA segments hold objects and tombstones. An object record is one header block with the
 * crc32c of each 64 KiB of data, then the data, padded to a block. `birth` orders records of the
 * same oid (the later birth counts), `gen` orders copies of the same birth made by cleaning. A
 * tombstone names the one record that it kills, by segment, seg_seq and block; it must be kept
 * while that incarnation of that segment exists. When a segment is full, a summary record lists
 * its objects and those tombstones that still matter, and a footer in the segment's last block
 * points to the summary and says SEALED. A footer without SEALED covers the records before
 * `end_block`; more may follow (written at a clean close). Whatever no summary covers is found
 * by scanning for records, block by block. A segment is freed by writing a FREE header, after
 * everything live in it has been copied elsewhere and is durable.
 *
 * JOURNAL segments belong to one Raft group. Their records form a stream: `seq` grows by one
 * from record to record, across segments in the order of seg_seq; a header's first_seq is the
 * seq of its segment's first record. `epoch` is the count of openings of the target and never
 * falls along the stream, so records that a crash cut off can not come back behind what was
 * written later in their place. A JOURNAL record holds entries and truncations in order; a
 * SNAPSHOT record holds index, term and the caller's manifest; a MARK holds nothing but its
 * watermark (written at a clean close). POOL segments have been written from end to end and wait
 * to be a journal: overwriting written blocks spares a file system its own journal.
 *
 * On a ZONED device (a bit in `incompat`) everything is written in the order of its blocks, and a
 * zone is a segment; segment_bytes is the zones' capacity. The first CFS_DISK_ROOT_ZONES zones
 * hold a log of superblocks, one after the other, each twice, with all votes in it: the newest
 * valid one counts. When a zone of the log is full the next one in turn is reset and written;
 * one that fails is passed over, and the one with the newest superblock is never reset. Where
 * `root_sides` is 2 there are two logs, in the first two and the next two zones, with the same
 * superblocks: one zone that goes offline takes nothing with it. Segments are the zones after those. They have no FREE or POOL
 * header: a reset zone is free. The footer follows the summary at once, and the zone is
 * finished; it is found just below the write pointer, or, in a full zone, by looking for it from
 * the end. A zone in which something torn may lie is never continued. Zones that can not be
 * reset any more and whose content has been moved are named in `retired`.
 *
 * A zone that goes offline takes a part of a journal's stream with it. While the server runs, the
 * entries in it are written AGAIN, and the snapshot, too, if it was there. At start the stream may
 * have a gap where an offline zone is not named in `retired`, if no entry behind the snapshot is
 * missing for it. A segment is finished before its successor counts, so a journal whose
 * last readable segment is still open has lost nothing at its end.
 *
 * A journal segment whose successor begins with first_seq = n counts only up to record n - 1:
 * when a write fails, the records that were under way are written again into a new segment.
 * Records flagged ATOMIC were one atomic write of the device: they are never torn, so a bad body
 * behind a good header is damage even above every watermark.
 *
 * Version 1 had no zones and no flags, version 2 one log of superblocks and no AGAIN; they are read, and
 * become version 3 when first opened for writing.
 *
 * All integers are little-endian. Unused bytes are zero. A reader refuses a superblock with
 * unknown bits in `incompat`, and opens read-only (for checking) with unknown bits in
 * `ro_compat`.
 */
#ifndef CLAUDEFS_DISK_H
#define CLAUDEFS_DISK_H

#include <claudefs/types.h>
#include <stddef.h>

#define CFS_DISK_VERSION	3u	/* of the superblock */
#define CFS_DISK_VERSION_MIN	1u	/* can still be read */
#define CFS_DISK_STRUCT_VERSION	1u	/* of everything else: did not change with the superblock's */
#define CFS_DISK_BLOCK		4096u
#define CFS_DISK_SB_OFF0	0ull
#define CFS_DISK_SB_OFF1	65536ull
#define CFS_DISK_VOTE_OFF	131072ull	/* CFS_DISK_VOTE_GROUPS pairs of blocks */
#define CFS_DISK_VOTE_GROUPS	64u
#define CFS_DISK_SEG_OFF	(1ull << 20)	/* the first segment */
#define CFS_DISK_SEG_MIN	(1u << 20)
#define CFS_DISK_SEG_MAX	(64u << 20)
#define CFS_DISK_ZONE_MAX	(2u << 30)	/* bytes of a zone */
#define CFS_DISK_ROOT_ZONES	4u
#define CFS_DISK_RETIRED	64u
#define CFS_DISK_SEGMENTS_MIN	8u
#define CFS_DISK_SEGMENTS_MAX	(1u << 24)
#define CFS_DISK_SEG_HDR_BLOCKS	2u		/* the header and its copy */

#define CFS_SUPER_MAGIC		0x31524f5453534643ull	/* "CFSSTOR1" */
#define CFS_VOTE_MAGIC		0x45544f56u		/* "VOTE" */
#define CFS_SEG_MAGIC		0x47455343u		/* "CSEG" */
#define CFS_REC_MAGIC		0x43455243u		/* "CREC" */
#define CFS_FOOT_MAGIC		0x544f4643u		/* "CFOT" */

/* at the start of a block, the rest is zero; or in the superblock of a zoned target */
struct cfs_disk_vote {
	cfs_le32 magic;
	cfs_le32 version;
	cfs_le32 group;
	cfs_le32 pad;
	cfs_le64 format_id;
	cfs_le64 seq;		/* grows with every vote */
	cfs_le64 term;
	cfs_le64 voted_for;
	cfs_le32 pad2;
	cfs_le32 crc;		/* of the bytes before */
};
_Static_assert(sizeof(struct cfs_disk_vote) == 56, "cfs_disk_vote");

/* one block */
struct cfs_disk_super {
	cfs_le64 magic;
	cfs_le32 version;
	cfs_le32 state;		/* CFS_SUPER_* */
	cfs_le64 seq;		/* grows with every superblock written */
	uint8_t  cluster[16];	/* uuid */
	cfs_le32 target_id;
	cfs_le32 block_bytes;	/* CFS_DISK_BLOCK */
	cfs_le64 compat, ro_compat, incompat;	/* feature bits: CFS_INCOMPAT_* */
	cfs_le64 label_time_ns;	/* of format, since 1970 */
	cfs_le64 device_bytes;
	cfs_le64 format_id;	/* another one after each format of the same device */
	cfs_le64 epoch;		/* how many times the target has been opened for writing */
	cfs_le32 segment_bytes;
	cfs_le32 segments;
	/* zoned targets, else 0 */
	cfs_le64 zone_bytes;	/* from the start of a segment to that of the next */
	cfs_le32 n_retired;
	cfs_le32 root_sides;	/* logs of superblocks: 2; 0 or 1: one, of all zones */
	cfs_le32 retired[CFS_DISK_RETIRED];	/* segments that are never looked at again */
	struct cfs_disk_vote votes[CFS_DISK_VOTE_GROUPS];	/* magic 0: no such group */
	uint8_t  pad[124];
	cfs_le32 crc;		/* crc32c of the 4092 bytes before */
};
_Static_assert(sizeof(struct cfs_disk_super) == CFS_DISK_BLOCK, "cfs_disk_super");
_Static_assert(offsetof(struct cfs_disk_super, crc) == 4092, "cfs_disk_super crc");
_Static_assert(offsetof(struct cfs_disk_super, zone_bytes) == 112, "cfs_disk_super zones");
#define CFS_SUPER_CLEAN		1u	/* closed in order: every open segment has a footer */
#define CFS_INCOMPAT_ZONED	1u

enum cfs_seg_type { CFS_SEG_FREE = 1, CFS_SEG_DATA = 2, CFS_SEG_JOURNAL = 3, CFS_SEG_POOL = 4 };

/* at the start of a block; the rest is zero */
struct cfs_disk_seg {
	cfs_le32 magic;
	uint8_t  version;
	uint8_t  type;		/* enum cfs_seg_type */
	cfs_le16 flags;		/* CFS_SEGF_* */
	cfs_le32 segment;	/* own number */
	cfs_le32 owner;		/* JOURNAL: the Raft group; else 0 */
	cfs_le64 format_id;
	cfs_le64 seg_seq;
	cfs_le64 salt;
	cfs_le64 first_seq;	/* JOURNAL: seq of the first record; else 0 */
	cfs_le64 epoch;		/* when the header was written */
	cfs_le32 pad;
	cfs_le32 crc;		/* of the bytes before */
};
_Static_assert(sizeof(struct cfs_disk_seg) == 64, "cfs_disk_seg");
/* has been used to its end before: a file system below has its blocks */
#define CFS_SEGF_FILLED		1u

enum cfs_rec_type {
	CFS_REC_OBJECT = 1,
	CFS_REC_TOMB = 2,	/* body: struct cfs_disk_ent[] of type TOMB */
	CFS_REC_SUMMARY = 3,	/* body: struct cfs_disk_ent[] */
	CFS_REC_JOURNAL = 4,	/* body: struct cfs_disk_jitem, data padded to 8 bytes, ... */
	CFS_REC_SNAPSHOT = 5,	/* body: struct cfs_disk_jsnap, manifest */
	CFS_REC_MARK = 6,	/* no body */
};
#define CFS_RECF_ATOMIC	0x80u	/* beside the type: a journal record written all or nothing */

/* the beginning of every record */
struct cfs_disk_rec {
	cfs_le32 magic;
	uint8_t  version;
	uint8_t  type;		/* enum cfs_rec_type, CFS_RECF_* */
	cfs_le16 hdr_len;	/* bytes of this structure and what follows it before the body */
	cfs_le32 blocks;	/* of the whole record */
	cfs_le32 owner;		/* Raft group of a journal record, else 0 */
	cfs_le64 seg_seq;
	cfs_le64 salt;
	/* journal: place in the stream; data: unique and growing on the target */
	cfs_le64 seq;
	/* journal: seq up to which, data: block of this segment below which all was durable */
	cfs_le64 durable;
	cfs_le64 epoch;
	cfs_le32 seg_block;	/* own place, in blocks from the segment's start */
	/* bytes; OBJECT: from the second block on, else right after the header */
	cfs_le32 body_len;
	cfs_le32 body_crc;	/* crc32c of the body; OBJECT: 0, see crcs */
	cfs_le32 hdr_crc;	/* crc32c of hdr_len bytes without this field */
};
_Static_assert(sizeof(struct cfs_disk_rec) == 72, "cfs_disk_rec");
_Static_assert(offsetof(struct cfs_disk_rec, hdr_crc) == 68, "cfs_disk_rec crc");

/* behind cfs_disk_rec of an OBJECT; then crc32c (le32) of each 64 KiB */
struct cfs_disk_obj {
	struct cfs_oid oid;
	cfs_le64 birth;
	cfs_le32 len;		/* bytes, = body_len */
	cfs_le32 gen;
	cfs_le32 n_crcs;
	cfs_le32 pad;
};
_Static_assert(sizeof(struct cfs_disk_obj) == 40, "cfs_disk_obj");
#define CFS_DISK_OBJ_HDR(n_crcs) \
	((uint32_t)(sizeof(struct cfs_disk_rec) + sizeof(struct cfs_disk_obj)) + 4u * (n_crcs))
_Static_assert(CFS_DISK_OBJ_HDR(CFS_OBJECT_CRCS) <= 512, "object header lies within one sector");

enum cfs_ent_type { CFS_ENT_OBJECT = 1, CFS_ENT_TOMB = 2 };

/* an object of this segment, or a tombstone */
struct cfs_disk_ent {
	struct cfs_oid oid;
	/* OBJECT: birth; TOMB: seg_seq of the segment with the dead record */
	cfs_le64 seq;
	cfs_le32 segment;	/* OBJECT: own; TOMB: the one with the dead record */
	cfs_le32 block;		/* of the record, dead or alive */
	cfs_le32 len;		/* OBJECT: bytes of the object; TOMB: 0 */
	cfs_le16 gen;		/* OBJECT: saturates at 65535 */
	uint8_t  type;		/* enum cfs_ent_type */
	uint8_t  pad;
};
_Static_assert(sizeof(struct cfs_disk_ent) == 40, "cfs_disk_ent");

/* at the start of the last block of a DATA segment; the rest is zero */
struct cfs_disk_foot {
	cfs_le32 magic;
	cfs_le16 version;
	cfs_le16 flags;		/* CFS_FOOT_* */
	cfs_le32 segment;
	cfs_le32 sum_block;	/* the summary record */
	cfs_le64 seg_seq;
	cfs_le64 salt;
	cfs_le32 end_block;	/* records before this block are in the summary */
	cfs_le32 crc;		/* of the bytes before */
};
_Static_assert(sizeof(struct cfs_disk_foot) == 40, "cfs_disk_foot");
#define CFS_FOOT_SEALED		1u

enum cfs_jitem_type {
	CFS_JITEM_ENTRY = 1,
	CFS_JITEM_TRUNCATE = 2,
	CFS_JITEM_AGAIN = 3,	/* an entry once more: its first copy is in a zone that has gone offline */
};

struct cfs_disk_jitem {
	cfs_le64 index;		/* TRUNCATE: entries from here on are gone */
	cfs_le64 term;
	cfs_le32 kind;		/* the caller's */
	cfs_le32 len;		/* bytes of data that follow, before padding */
	cfs_le32 type;		/* enum cfs_jitem_type */
	cfs_le32 pad;
};
_Static_assert(sizeof(struct cfs_disk_jitem) == 32, "cfs_disk_jitem");

struct cfs_disk_jsnap {
	cfs_le64 index, term;
	cfs_le32 trailing;	/* entries up to index - trailing may be missing */
	cfs_le32 manifest_len;
};
_Static_assert(sizeof(struct cfs_disk_jsnap) == 24, "cfs_disk_jsnap");

#endif
