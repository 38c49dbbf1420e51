/* SPDX-License-Identifier: MIT */
/*
 * types.h - the little-endian integer types and the few structures that the wire and
 * the disk share. Plain C without pointers, so that every program may include it.
 *
 * The cfs_leNN types are typedefs that document byte order; convert with the cfs_cpu_to_
 * and cfs_le_to_ helpers at the place where a structure is filled or read, nowhere else.
 */
#ifndef CLAUDEFS_TYPES_H
#define CLAUDEFS_TYPES_H

#include <endian.h>
#include <stdint.h>

typedef uint16_t cfs_le16;
typedef uint32_t cfs_le32;
typedef uint64_t cfs_le64;

#define cfs_le16_to_cpu(v) le16toh(v)
#define cfs_le32_to_cpu(v) le32toh(v)
#define cfs_le64_to_cpu(v) le64toh(v)
#define cfs_cpu_to_le16(v) htole16(v)
#define cfs_cpu_to_le32(v) htole32(v)
#define cfs_cpu_to_le64(v) htole64(v)

/* limits that users can see; docs/semantics.md states them */
#define CFS_NAME_MAX		255u			/* bytes of one name */
#define CFS_SYMLINK_MAX		4095u			/* bytes of a symlink's target */
#define CFS_INLINE_MAX		4096u			/* file bytes kept inside the inode record */
#define CFS_OBJECT_MAX		(4u << 20)		/* bytes of one object */
#define CFS_CRC_BLOCK		65536u			/* object bytes under one crc32c */
#define CFS_OBJECT_CRCS		(CFS_OBJECT_MAX / CFS_CRC_BLOCK)
#define CFS_XATTR_NAME_MAX	255u
#define CFS_XATTR_SIZE_MAX	65536u			/* one value; larger is E2BIG */
#define CFS_XATTR_LIST_MAX	65536u			/* all names of one inode; more is ENOSPC */
#define CFS_FILE_SIZE_MAX	(1ull << 60)		/* beyond is EFBIG */
#define CFS_LINK_MAX		65000u
#define CFS_GROUPS_MAX		32u

#define CFS_INO_ROOT		1ull
#define CFS_INO_SHARD_SHIFT	52			/* 12 bits of shard above 52 bits of counter */
#define CFS_INO_COUNTER_MASK	((1ull << CFS_INO_SHARD_SHIFT) - 1)

/* a point in time; nsec < 10^9 */
struct cfs_time {
	cfs_le64 sec;		/* signed, since 1970 */
	cfs_le32 nsec;
	cfs_le32 pad;
};
_Static_assert(sizeof(struct cfs_time) == 16, "cfs_time");

/*
 * The name of an object. `owner` is the session that wrote it (never reused), `seq` is
 * that session's own counter with the placement group in its top 16 bits, so that who
 * reads an extent finds the targets without asking anybody. Written once, never changed.
 */
struct cfs_oid {
	cfs_le64 owner;
	cfs_le64 seq;
};
_Static_assert(sizeof(struct cfs_oid) == 16, "cfs_oid");
#define CFS_OID_PG_SHIFT	48
#define CFS_OID_OWNER_META	0ull			/* checkpoints, written by shards */

/*
 * One extent: `len` bytes of the file at `file_off` are the bytes at `obj_off` of an object.
 * CFS_EXT_UNWRITTEN: space that fallocate promised, reads as zeros, has no object.
 */
struct cfs_extent {
	cfs_le64 file_off;
	cfs_le32 len;
	cfs_le32 obj_off;
	struct cfs_oid oid;
	cfs_le32 obj_len;	/* whole length of the object, bytes */
	cfs_le32 flags;		/* CFS_EXT_* */
};
_Static_assert(sizeof(struct cfs_extent) == 40, "cfs_extent");
#define CFS_EXT_UNWRITTEN	1u

/* inode attributes as they travel; see wire.h for who may cache them */
struct cfs_attr {
	cfs_le64 ino;
	cfs_le64 gen;		/* generation: the inode's creation index, never reused with ino */
	cfs_le64 size;		/* bytes */
	cfs_le64 alloc;		/* bytes of data held (st_blocks * 512), holes not counted */
	struct cfs_time atime, mtime, ctime, btime;
	cfs_le64 change;	/* grows by at least one with every change of data or attributes */
	cfs_le64 parent;	/* the directory whose lease covers these attributes: of a file with
				 * one link, the directory of that link; of a directory, itself; else 0 */
	cfs_le32 mode;		/* type and permission bits, as st_mode */
	cfs_le32 nlink;
	cfs_le32 uid;
	cfs_le32 gid;
	cfs_le32 rdev;		/* Linux new_encode_dev() */
	cfs_le32 flags;		/* CFS_IF_* */
	cfs_le64 dotdot;	/* of a directory: its parent directory; else 0 */
};
_Static_assert(sizeof(struct cfs_attr) == 144, "cfs_attr");
#define CFS_IF_INLINE		1u	/* data lives in the inode record */
#define CFS_IF_XATTR		2u	/* has at least one xattr (else: answer ENODATA without asking) */
#define CFS_IF_ACL		4u	/* has system.posix_acl_access or _default */
#define CFS_IF_CAPS		8u	/* has security.capability */

#endif
