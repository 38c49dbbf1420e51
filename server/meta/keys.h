/* SPDX-License-Identifier: MIT */
/*
 * keys.h - the durable format of a shard's state: one LMDB tree, version 1.
 *
 * A key is one type byte and then big-endian integers (so that memcmp order is numeric order),
 * with a name at the end where one belongs to it. A value is one of the little-endian records
 * below. LMDB gives values at any 2-byte alignment: they are copied, never cast. Checkpoints are
 * this tree, so that changing anything here means a new CFS_STATE_VERSION and a new golden vector
 * (selftests/unit/server/meta/test_state_format.c).
 *
 * type     key                                   value
 * STATE    -                                     cfs_state_rec: version, applied index, counters
 * MAP      -                                     body of CFS_LOG_MAP
 * INODE    ino                                   cfs_inode_rec
 * INLINE   ino                                   bytes of a small file, or a symlink's target
 * XATTR    ino, name                             value
 * EXTENT   map, file offset                      cfs_ext_rec
 * DENTRY   directory, cookie                     cfs_dent_rec, name
 * SESSION  session                               cfs_session_rec, name
 * SLOT     session, slot (32 bits)               cfs_slot_rec, reply body
 * NONCE    16 bytes                              le64 session
 * ORPHAN   ino, session                          nothing: the session keeps the unlinked ino open
 * HELD     session, ino                          nothing: ORPHAN the other way round
 * LOCK     ino, space (8), session, owner, start cfs_lock_rec
 * LOCKED   session, ino                          nothing: the session has locks on ino
 * DEAD     key                                   cfs_dead_rec: an object that nothing refers to
 * REF      owner, seq                            le64 extents that refer to it, if more than one
 * PURGE    map                                   nothing: extents of a file that is gone
 *
 * Extents hang on a map number and not on the inode number, so that a huge file is truncated by
 * giving it a new map and leaving the old one to PURGE. A file's first map number is its inode
 * number; later ones come from the same counter. Inline bytes have a key of their own, because
 * scans that stat (readdirplus, lookups) read a hundred inode records for each one whose bytes
 * they want.
 *
 * The cookie of a name is cfs_name_hash() with the low 8 bits replaced by the lowest number that
 * is free among the names with the same upper bits; never 0 to 2, which stand for the start, "."
 * and "..".
 */
#ifndef CFS_SERVER_META_KEYS_H
#define CFS_SERVER_META_KEYS_H

#include <claudefs/types.h>
#include <stdint.h>
#include <string.h>

#define CFS_STATE_MAGIC		0x54454d43u	/* "CMET" */
#define CFS_STATE_VERSION	1u

enum cfs_key_type {
	CFS_KEY_STATE = 0x00,
	CFS_KEY_MAP = 0x01,
	CFS_KEY_INODE = 0x10,
	CFS_KEY_INLINE = 0x11,
	CFS_KEY_XATTR = 0x12,
	CFS_KEY_EXTENT = 0x13,
	CFS_KEY_DENTRY = 0x20,
	CFS_KEY_SESSION = 0x30,
	CFS_KEY_SLOT = 0x31,
	CFS_KEY_NONCE = 0x32,
	CFS_KEY_ORPHAN = 0x40,
	CFS_KEY_HELD = 0x41,
	CFS_KEY_LOCK = 0x50,
	CFS_KEY_LOCKED = 0x51,
	CFS_KEY_DEAD = 0x60,
	CFS_KEY_REF = 0x61,
	CFS_KEY_PURGE = 0x62,
};

struct cfs_state_rec {
	cfs_le32 magic, version;
	uint8_t  cluster[16];
	cfs_le32 shard, pad;
	cfs_le64 applied;		/* raft index */
	struct cfs_time time;		/* of the last entry; later entries are never earlier */
	cfs_le64 next_ino, next_session, next_dead;	/* counters; next_ino without shard bits */
	cfs_le64 inodes, dirs, extents, data_bytes, dead_objects, orphans, sessions, locks, purging;
};
_Static_assert(sizeof(struct cfs_state_rec) == 152, "cfs_state_rec");

struct cfs_inode_rec {
	cfs_le64 gen;
	cfs_le64 size;			/* bytes; of a directory: entries */
	cfs_le64 alloc;			/* bytes held by extents, written or not, and inline */
	cfs_le64 map;			/* whose EXTENT keys are this file's */
	cfs_le64 change;
	cfs_le64 parent; /* directory: its parent; else: the directory of the only link, or 0 */
	cfs_le64 n_extents;
	cfs_le64 atime_sec, mtime_sec, ctime_sec, btime_sec;
	cfs_le32 atime_nsec, mtime_nsec, ctime_nsec, btime_nsec;
	cfs_le32 mode, nlink, uid, gid, rdev;
	cfs_le32 flags;			/* CFS_IF_* */
	cfs_le32 inline_len;
	cfs_le32 n_xattrs;
	cfs_le32 xattr_list_len;	/* what LISTXATTR gives, bytes */
	cfs_le32 pad;
};
_Static_assert(sizeof(struct cfs_inode_rec) == 144, "cfs_inode_rec");

struct cfs_ext_rec {
	cfs_le32 len, obj_off;
	struct cfs_oid oid;
	cfs_le32 obj_len;
	cfs_le32 flags;			/* CFS_EXT_* */
};
_Static_assert(sizeof(struct cfs_ext_rec) == 32, "cfs_ext_rec");

struct cfs_dent_rec {			/* followed by the name */
	cfs_le64 ino;
	uint8_t  type;			/* S_IFMT bits >> 12 */
	uint8_t  name_len;
};
#define CFS_DENT_REC_LEN	10u	/* without the struct's padding */

struct cfs_session_rec {		/* followed by the name */
	uint8_t  nonce[16];
	cfs_le32 slots;
	cfs_le32 name_len;
};
_Static_assert(sizeof(struct cfs_session_rec) == 24, "cfs_session_rec");

struct cfs_slot_rec {			/* followed by the reply's body */
	cfs_le64 seq;
	cfs_le32 status;
	cfs_le32 body_len;
};
_Static_assert(sizeof(struct cfs_slot_rec) == 16, "cfs_slot_rec");

struct cfs_lock_rec {
	cfs_le64 end;			/* inclusive */
	cfs_le32 kind;			/* enum cfs_lock_kind */
	cfs_le32 pid;
};
_Static_assert(sizeof(struct cfs_lock_rec) == 16, "cfs_lock_rec");

struct cfs_dead_rec {
	struct cfs_oid oid;
	struct cfs_time died;
};
_Static_assert(sizeof(struct cfs_dead_rec) == 32, "cfs_dead_rec");

/* ---- keys ----------------------------------------------------------------------- */
#define CFS_KEY_MAX	272u
struct cfs_key {
	uint32_t len;
	uint8_t b[CFS_KEY_MAX];
};

static inline void cfs_key_init(struct cfs_key *k, enum cfs_key_type type)
{
	k->b[0] = (uint8_t)type;
	k->len = 1;
}

static inline void cfs_key_add_u64(struct cfs_key *k, uint64_t v)
{
	v = htobe64(v);
	memcpy(k->b + k->len, &v, 8);
	k->len += 8;
}

static inline void cfs_key_add_u32(struct cfs_key *k, uint32_t v)
{
	v = htobe32(v);
	memcpy(k->b + k->len, &v, 4);
	k->len += 4;
}

static inline void cfs_key_add_u8(struct cfs_key *k, uint8_t v)
{
	k->b[k->len++] = v;
}

/* at most 255 bytes */
static inline void cfs_key_add_bytes(struct cfs_key *k, const void *p, size_t len)
{
	memcpy(k->b + k->len, p, len);
	k->len += (uint32_t)len;
}

static inline void cfs_key_u64(struct cfs_key *k, enum cfs_key_type type, uint64_t a)
{
	cfs_key_init(k, type);
	cfs_key_add_u64(k, a);
}

static inline void cfs_key_u64x2(struct cfs_key *k, enum cfs_key_type type, uint64_t a, uint64_t b)
{
	cfs_key_u64(k, type, a);
	cfs_key_add_u64(k, b);
}

/* the n-th big-endian integer of a key that LMDB gave; the caller has checked the length */
static inline uint64_t cfs_key_get_u64(const void *key, unsigned at)
{
	uint64_t v;

	memcpy(&v, (const uint8_t *)key + at, 8);
	return be64toh(v);
}

static inline uint32_t cfs_key_get_u32(const void *key, unsigned at)
{
	uint32_t v;

	memcpy(&v, (const uint8_t *)key + at, 4);
	return be32toh(v);
}

static inline void cfs_key_xattr(struct cfs_key *k, uint64_t ino, const void *name, size_t len)
{
	cfs_key_u64(k, CFS_KEY_XATTR, ino);
	cfs_key_add_bytes(k, name, len);
}

static inline void cfs_key_slot(struct cfs_key *k, uint64_t session, uint32_t slot)
{
	cfs_key_u64(k, CFS_KEY_SLOT, session);
	cfs_key_add_u32(k, slot);
}

static inline void cfs_key_nonce(struct cfs_key *k, const uint8_t nonce[16])
{
	cfs_key_init(k, CFS_KEY_NONCE);
	cfs_key_add_bytes(k, nonce, 16);
}

/* all locks of a space of an inode, of a session there, of an owner there: cut the length */
static inline void cfs_key_lock(struct cfs_key *k, uint64_t ino, uint8_t space, uint64_t session,
				uint64_t owner, uint64_t start)
{
	cfs_key_u64(k, CFS_KEY_LOCK, ino);
	cfs_key_add_u8(k, space);
	cfs_key_add_u64(k, session);
	cfs_key_add_u64(k, owner);
	cfs_key_add_u64(k, start);
}
#define CFS_KEY_LOCK_INO_LEN		9u
#define CFS_KEY_LOCK_SPACE_LEN		10u
#define CFS_KEY_LOCK_SESSION_LEN	18u
#define CFS_KEY_LOCK_OWNER_LEN		26u
#define CFS_KEY_LOCK_LEN		34u

static inline void cfs_key_ref(struct cfs_key *k, const struct cfs_oid *oid)
{
	cfs_key_u64x2(k, CFS_KEY_REF, cfs_le64_to_cpu(oid->owner), cfs_le64_to_cpu(oid->seq));
}

#define CFS_COOKIE_MIN		3u
#define CFS_COOKIE_LOW 255u /* the bits of a cookie that tell names apart whose hashes collide */

#endif
