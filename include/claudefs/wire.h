/* SPDX-License-Identifier: MIT */
/*
 * wire.h - the ClaudeFS wire protocol, version 1.
 *
 * One message is a 64-byte header, a body, and a payload. The body is one fixed
 * little-endian structure per opcode, followed by the variable parts (names, lists) whose
 * lengths stand in the structure, in the order in which the structure names them, without
 * padding unless said. The payload is bulk file data and nothing else; it is covered by the
 * crc32c values of 64 KiB blocks that travel in the body, never by the header. Requests
 * and replies have the same header; a reply repeats opcode, tag, session, slot and seq, has
 * CFS_MSG_REPLY set and carries `status`: 0, a Linux errno, or a CFS_E_ code. A reply with
 * a status other than 0 has an empty body unless its opcode says otherwise.
 *
 * A connection begins with HELLO, which settles version, features, cluster and role:
 *  - WORKER connections belong to a session and carry its requests, several at a time,
 *    answered in any order; the tag tells which.
 *  - the CALLBACK connection of a session carries heartbeats and lease returns from the
 *    client, and BREAK and ASK requests from the server, which the client answers.
 *  - ADMIN connections ask for status; PEER connections carry Raft.
 *
 * Exactly once. Every mutating request carries (session, slot, seq). A slot has at most one
 * request outstanding; seq grows by one with each new request of the slot, starting from
 * 1. The reply of each slot's latest request is replicated state: the same (session, slot,
 * seq) again is answered from it, whoever leads by then. A smaller seq, or one that
 * skips, is CFS_E_BADSEQ. Requests that do not mutate have slot CFS_SLOT_NONE.
 *
 * Leases. See docs/leases.md. Replies carry CFS_V_ bits that say what the client may keep,
 * until its session's deadline: the instant before it sent its last answered heartbeat, plus
 * lease_ms of the HELLO reply.
 *
 * Nobody trusts a frame: magic, version, lengths against the negotiated limits and both
 * checksums are verified before a body is looked at, and every decoder checks every
 * length inside (user/rpc/codec.h).
 */
#ifndef CLAUDEFS_WIRE_H
#define CLAUDEFS_WIRE_H

#include <claudefs/types.h>

#define CFS_WIRE_MAGIC		0x31534643u	/* "CFS1" */
#define CFS_WIRE_VERSION	1u
#define CFS_BODY_MAX		(256u << 10)	/* bytes of one body */
#define CFS_PAYLOAD_MAX		CFS_OBJECT_MAX	/* bytes of one payload */
#define CFS_SLOTS_MAX		1024u		/* slots of one session */
#define CFS_SLOT_NONE		0xffffffffu
#define CFS_CREDITS_DEFAULT	64u		/* requests in flight on one connection */
#define CFS_DEFAULT_PORT	9510

struct cfs_msg_hdr {
	cfs_le32 magic;
	uint8_t  version;
	uint8_t  flags;		/* CFS_MSG_* */
	cfs_le16 opcode;	/* enum cfs_opcode */
	cfs_le32 body_len;	/* bytes, <= CFS_BODY_MAX */
	cfs_le32 payload_len;	/* bytes, <= CFS_PAYLOAD_MAX */
	cfs_le64 tag;		/* chosen by the requester, repeated in the reply */
	cfs_le64 session;	/* 0: none */
	cfs_le32 slot;		/* CFS_SLOT_NONE: not a mutating request */
	cfs_le32 status;	/* replies: 0, errno or CFS_E_* */
	cfs_le64 seq;
	cfs_le64 map_epoch;	/* of the cluster map that the sender acts on */
	cfs_le32 body_crc;	/* crc32c of the body; 0 bytes have crc 0 */
	cfs_le32 hdr_crc;	/* crc32c of the 60 bytes before */
};
_Static_assert(sizeof(struct cfs_msg_hdr) == 64, "cfs_msg_hdr");
#define CFS_MSG_REPLY	1u

/* status codes beyond errno (errno values are below 512) */
enum cfs_status {
	CFS_E_BADSESSION = 512,	/* the session is unknown, closed or fenced: leases are lost */
	CFS_E_NOTLEADER  = 513,	/* ask another node */
	CFS_E_GRACE      = 514,	/* a new leader waits for sessions to come back, or too much is in
				 * progress: repeat the request as it was after 50 ms */
	CFS_E_BADSEQ     = 515,	/* slot sequence is neither the last one nor the next */
	CFS_E_VERSION    = 516,	/* no common protocol version */
	CFS_E_CLUSTER    = 517,	/* this is another cluster */
	CFS_E_CORRUPT    = 518,	/* stored bytes do not match their checksum */
	CFS_E_NOOBJECT   = 519,	/* the target has no such object */
	CFS_E_MAPEPOCH   = 520,	/* the sender's cluster map is too old */
	CFS_E_PROTO      = 521,	/* malformed request */
};

enum cfs_opcode {
	CFS_OP_HELLO = 1,
	/* admin */
	CFS_OP_STATUS = 2,	/* ADMIN; reply body: JSON text */
	CFS_OP_MAP = 3,		/* reply: struct cfs_map_rep */
	/* sessions */
	CFS_OP_SESSION_OPEN = 8,	/* logged */
	CFS_OP_SESSION_CLOSE = 9,	/* logged */
	CFS_OP_HEARTBEAT = 10,
	CFS_OP_RECLAIM = 11,
	CFS_OP_LEASE_RETURN = 12,
	/* server to client, on the CALLBACK connection */
	CFS_OP_CB_BREAK = 16,
	CFS_OP_CB_ASK = 17,
	/* reading metadata */
	CFS_OP_LOOKUP = 32,
	CFS_OP_GETATTR = 33,
	CFS_OP_READDIR = 34,
	CFS_OP_READLINK = 35,
	CFS_OP_GETXATTR = 36,
	CFS_OP_LISTXATTR = 37,
	CFS_OP_STATFS = 38,
	CFS_OP_OPEN = 39,
	CFS_OP_EXTENTS = 40,
	CFS_OP_SEEK = 41,
	CFS_OP_GETLK = 42,
	/* mutating: slot and seq required */
	CFS_OP_SETATTR = 64,
	CFS_OP_MKNODE = 65,	/* create, mknod, mkdir, symlink, O_TMPFILE */
	CFS_OP_LINK = 66,
	CFS_OP_UNLINK = 67,	/* unlink and rmdir */
	CFS_OP_RENAME = 68,
	CFS_OP_SETXATTR = 69,	/* set and remove */
	CFS_OP_COMMIT = 70,	/* data, size and times of many files */
	CFS_OP_FALLOCATE = 71,
	CFS_OP_COPY = 72,	/* share extents */
	CFS_OP_LOCK = 73,	/* lock and unlock, flock and POSIX */
	CFS_OP_RELEASE = 74,	/* open-but-unlinked files no longer held */
	/* objects, addressed to a target */
	CFS_OP_OBJ_WRITE = 96,
	CFS_OP_OBJ_READ = 97,
	CFS_OP_OBJ_DELETE = 98,
	CFS_OP_OBJ_LIST = 99,
	/* between nodes */
	CFS_OP_RAFT = 112,	/* body: one encoded raft message */
};
#define cfs_op_mutates(op) ((op) == CFS_OP_SESSION_OPEN || (op) == CFS_OP_SESSION_CLOSE || \
			    ((op) >= CFS_OP_SETATTR && (op) <= CFS_OP_RELEASE))

/* ---- HELLO ------------------------------------------------------------------ */
enum cfs_role { CFS_ROLE_WORKER = 1, CFS_ROLE_CALLBACK = 2, CFS_ROLE_ADMIN = 3, CFS_ROLE_PEER = 4 };

#define CFS_FEAT_THROUGH	1ull	/* CFS_OPEN_THROUGH, CFS_V_CONTENDED, CFS_CI_PATCH, CFS_CR_CONTENDED */
#define CFS_FEAT_ALL		CFS_FEAT_THROUGH

struct cfs_hello_req {
	cfs_le32 version_min, version_max;
	cfs_le64 features;	/* CFS_FEAT_* that the other end must know, else CFS_E_PROTO */
	uint8_t  cluster[16];	/* uuid, all zero: any */
	cfs_le32 role;
	cfs_le32 pad;
};
_Static_assert(sizeof(struct cfs_hello_req) == 40, "cfs_hello_req");

/* status may be CFS_E_BADSESSION (the header's session is not known), with this body */
struct cfs_hello_rep {
	cfs_le32 version;
	cfs_le32 lease_ms;
	cfs_le64 features;	/* CFS_FEAT_* that may be used */
	uint8_t  cluster[16];
	cfs_le64 leader_epoch;	/* changes when leases were lost with a leader: RECLAIM then */
	cfs_le32 body_max, payload_max;
	cfs_le32 credits;
	cfs_le32 pad;
};
_Static_assert(sizeof(struct cfs_hello_rep) == 56, "cfs_hello_rep");

/* ---- cluster map ------------------------------------------------------------- */
struct cfs_map_rep {		/* followed by targets[], then pg table: replicas le32 target ids per PG */
	cfs_le64 epoch;
	cfs_le32 n_targets;
	cfs_le32 n_pgs;
	cfs_le32 replicas;
	cfs_le32 shards;
};
_Static_assert(sizeof(struct cfs_map_rep) == 24, "cfs_map_rep");
struct cfs_map_target {
	cfs_le32 id;
	cfs_le32 state;		/* 0 down, 1 up */
	char addr[56];		/* host:port, NUL-terminated */
};
_Static_assert(sizeof(struct cfs_map_target) == 64, "cfs_map_target");

/* ---- sessions ---------------------------------------------------------------- */
struct cfs_session_open_req {	/* followed by name (host, mount point; for people) */
	uint8_t  nonce[16];	/* random; the same nonce again gives the same session */
	cfs_le32 slots;		/* wanted, <= CFS_SLOTS_MAX */
	cfs_le32 name_len;	/* <= CFS_NAME_MAX */
};
_Static_assert(sizeof(struct cfs_session_open_req) == 24, "cfs_session_open_req");
struct cfs_session_open_rep {
	cfs_le64 session;
	cfs_le32 slots;
	cfs_le32 pad;
};
/* SESSION_CLOSE: header only. Drops locks, orphans and leases of the session. */

/* HEARTBEAT: header only; reply struct. Renews every lease of the session at once. */
struct cfs_heartbeat_rep {
	cfs_le64 leader_epoch;
	cfs_le64 map_epoch;
};

enum cfs_lease_mode { CFS_LEASE_NONE = 0, CFS_LEASE_SHARED = 1, CFS_LEASE_EXCL = 2 };

/*
 * RECLAIM (what a client holds, told to a new leader) and LEASE_RETURN (what it has dropped).
 * Reply of RECLAIM: the same list with the modes that were granted. LEASE_RETURN may come on
 * any connection of the session; the mode is what the client still keeps.
 */
struct cfs_lease_list {		/* followed by n items */
	cfs_le32 n;		/* <= CFS_LEASE_LIST_MAX */
	cfs_le32 flags;		/* RECLAIM: CFS_RECLAIM_LAST on the last message */
};
#define CFS_RECLAIM_LAST	1u
#define CFS_LEASE_LIST_MAX	4096u
struct cfs_lease_item {
	cfs_le64 ino;
	uint8_t  mode;		/* enum cfs_lease_mode */
	uint8_t  open;		/* 1: the client has the file open */
	uint8_t  pad[6];
};
_Static_assert(sizeof(struct cfs_lease_item) == 16, "cfs_lease_item");

/* ---- callbacks (server to client) -------------------------------------------- */
struct cfs_break_req {		/* followed by n items, each followed by its name */
	cfs_le32 n;		/* <= CFS_BREAK_MAX */
	cfs_le32 pad;
};
#define CFS_BREAK_MAX		8u
struct cfs_break_item {
	cfs_le64 dir;		/* the directory that NAME, DIRATTR and DIR speak of */
	cfs_le64 ino;		/* the inode that ATTR and DATA speak of */
	cfs_le32 flags;		/* CFS_BRK_* */
	uint8_t  to_mode;	/* with DATA: what the client may keep */
	uint8_t  pad;
	cfs_le16 name_len;
};
_Static_assert(sizeof(struct cfs_break_item) == 24, "cfs_break_item");
#define CFS_BRK_NAME	1u	/* forget the entry (dir, name), present or absent */
#define CFS_BRK_DIRATTR	2u	/* forget the attributes of dir */
#define CFS_BRK_ATTR	4u	/* forget attributes, ACLs and xattrs of ino */
#define CFS_BRK_DATA	8u	/* flush, then keep no more than to_mode on ino */
#define CFS_BRK_DIR	16u	/* the lease on dir ends: forget every name and attribute under it */
#define CFS_BRK_UNLINK	32u	/* ino loses its last link: say in the answer whether it is open */
struct cfs_break_rep {		/* followed by n bytes: CFS_BRKR_* per item */
	cfs_le32 n;
	cfs_le32 pad;
};
#define CFS_BRKR_OPEN	1u	/* the client has ino open and wants it kept */

/* ASK: "you hold ino exclusively: what are its size and times now?" */
struct cfs_ask_req {
	cfs_le64 ino;
};
struct cfs_ask_rep {
	cfs_le64 size;
	cfs_le64 alloc;
	struct cfs_time mtime, ctime;
	cfs_le32 known;		/* 0: nothing newer than the server has */
	cfs_le32 pad;
};
_Static_assert(sizeof(struct cfs_ask_rep) == 56, "cfs_ask_rep");

/* ---- what many bodies share ---------------------------------------------------- */
struct cfs_cred {
	cfs_le32 uid, gid;
	cfs_le32 umask;
	cfs_le32 pid;
};
_Static_assert(sizeof(struct cfs_cred) == 16, "cfs_cred");

/* what the client may keep of a reply */
#define CFS_V_ENTRY	1u	/* the name, present or absent: it holds the directory's lease */
#define CFS_V_ATTR	2u	/* the attributes, ACLs and xattrs */
#define CFS_V_DIRATTR	4u	/* MKNODE, LINK, UNLINK: `dirattr` too */
#define CFS_V_CONTENDED	8u	/* OPEN with CFS_OPEN_THROUGH: nothing was granted, write through */

/* reply of LOOKUP (also with status ENOENT: then attr.ino is 0; ESTALE: there is no such directory) */
struct cfs_entry_rep {		/* followed by inline data (regular files) or the symlink target */
	struct cfs_attr attr;
	cfs_le32 valid;		/* CFS_V_* */
	cfs_le32 lease;		/* enum cfs_lease_mode held on attr.ino from now on */
	cfs_le32 inline_len;	/* bytes that follow */
	cfs_le32 pad;
};
_Static_assert(sizeof(struct cfs_entry_rep) == 160, "cfs_entry_rep");

/* reply of MKNODE and LINK: the kernel will ask for the changed directory next, so it comes along */
struct cfs_make_rep {
	struct cfs_entry_rep entry;	/* inline_len 0 */
	struct cfs_attr dirattr;	/* of the directory that got the name; ino 0: none did (O_TMPFILE) */
};
_Static_assert(sizeof(struct cfs_make_rep) == 304, "cfs_make_rep");

/* reply of GETATTR, SETATTR, FALLOCATE */
struct cfs_attr_rep {
	struct cfs_attr attr;
	cfs_le32 valid;
	cfs_le32 lease;
};
_Static_assert(sizeof(struct cfs_attr_rep) == 152, "cfs_attr_rep");

/* GETATTR, READLINK (reply body: the target), LISTXATTR */
struct cfs_ino_req {
	cfs_le64 ino;
};

/* ---- reading metadata ------------------------------------------------------------- */
struct cfs_lookup_req {		/* followed by name; "." and ".." are names for NFS: allowed */
	cfs_le64 dir;
	cfs_le32 name_len;
	cfs_le32 flags;		/* CFS_LOOKUP_* */
};
#define CFS_LOOKUP_DATA	1u	/* also take a SHARED lease on a small file and send its inline data */

struct cfs_readdir_req {
	cfs_le64 dir;
	cfs_le64 cookie;	/* 0: from the start; else the cookie of the last entry seen */
	cfs_le32 max_bytes;	/* of the reply's body */
	cfs_le32 flags;		/* CFS_READDIR_* */
};
#define CFS_READDIR_PLUS	1u	/* with attributes */
struct cfs_readdir_rep {	/* followed by n entries */
	cfs_le32 n;
	cfs_le32 flags;		/* CFS_READDIR_EOF: nothing follows the last entry */
};
#define CFS_READDIR_EOF		1u
#define CFS_READDIR_KEEP	2u	/* the list may be kept under the directory's lease: a name between two
				 * cookies that is not here is absent */
/* "." and ".." are not sent. Followed by attr (PLUS only), then name, then zero to 8 bytes */
struct cfs_dirent {
	cfs_le64 cookie;	/* 63-bit, strictly growing, stable while the directory changes */
	cfs_le64 ino;
	cfs_le32 mode;		/* type bits only */
	cfs_le16 name_len;
	uint8_t  valid;		/* CFS_V_* */
	uint8_t  pad;
};
_Static_assert(sizeof(struct cfs_dirent) == 24, "cfs_dirent");

struct cfs_xattr_req {		/* GETXATTR; reply body: the value. Followed by name */
	cfs_le64 ino;
	cfs_le32 name_len;
	cfs_le32 pad;
};

struct cfs_statfs_rep {
	cfs_le64 total_bytes, free_bytes;	/* after replication; free: what a write will get */
	cfs_le64 files, files_free;
	cfs_le32 block_bytes, name_max;
};
_Static_assert(sizeof(struct cfs_statfs_rep) == 40, "cfs_statfs_rep");

/*
 * OPEN: take (or raise) the data lease of a file and learn what is needed to read it. An open
 * file is always known to the server: by a lease, or by CFS_OPEN_KEEP after the lease is gone.
 */
struct cfs_open_req {
	cfs_le64 ino;
	cfs_le32 want;		/* enum cfs_lease_mode */
	cfs_le32 flags;		/* CFS_OPEN_* */
	cfs_le64 off;		/* send extents from here on */
	cfs_le32 max_extents;
	cfs_le32 pad;
};
_Static_assert(sizeof(struct cfs_open_req) == 32, "cfs_open_req");
#define CFS_OPEN_KEEP	1u	/* the file is open in this client */
#define CFS_OPEN_THROUGH 2u	/* wants EXCL, but can write through if the file is contended */
struct cfs_open_rep {		/* followed by inline data, then extents in file order */
	struct cfs_attr attr;
	cfs_le32 valid;
	cfs_le32 lease;		/* granted: may be less than wanted */
	cfs_le32 inline_len;
	cfs_le32 n_extents;
	cfs_le64 extents_end;	/* the extents sent are all there are in [off, extents_end) */
};
_Static_assert(sizeof(struct cfs_open_rep) == 168, "cfs_open_rep");

struct cfs_extents_req {	/* reply: cfs_open_rep; lease and valid tell what is held already */
	cfs_le64 ino;
	cfs_le64 off;
	cfs_le32 max_extents;
	cfs_le32 pad;
};

struct cfs_seek_req {		/* reply: le64 offset, or ENXIO */
	cfs_le64 ino;
	cfs_le64 off;
	cfs_le32 whence;	/* 3 SEEK_DATA, 4 SEEK_HOLE */
	cfs_le32 pad;
};

/* ---- mutating -------------------------------------------------------------------- */
struct cfs_setattr_req {	/* reply: cfs_attr_rep */
	cfs_le64 ino;
	cfs_le64 size;
	struct cfs_time atime, mtime, ctime;
	cfs_le32 mode, uid, gid;
	cfs_le32 valid;		/* CFS_SA_* */
};
_Static_assert(sizeof(struct cfs_setattr_req) == 80, "cfs_setattr_req");
#define CFS_SA_MODE		1u
#define CFS_SA_UID		2u
#define CFS_SA_GID		4u
#define CFS_SA_SIZE		8u
#define CFS_SA_ATIME		16u
#define CFS_SA_MTIME		32u
#define CFS_SA_CTIME		64u
#define CFS_SA_ATIME_NOW	128u	/* the leader's clock */
#define CFS_SA_MTIME_NOW	256u
#define CFS_SA_KILLPRIV		512u	/* drop suid, sgid (if group-executable) and security.capability */

struct cfs_mknode_req {		/* followed by name, then symlink target; reply: cfs_make_rep */
	cfs_le64 dir;
	struct cfs_cred cred;
	cfs_le32 mode;		/* type and permissions, umask not applied: the server does, or a default ACL */
	cfs_le32 rdev;
	cfs_le32 flags;		/* CFS_MK_* */
	cfs_le32 name_len;
	cfs_le32 target_len;
	cfs_le32 pad;
};
_Static_assert(sizeof(struct cfs_mknode_req) == 48, "cfs_mknode_req");
#define CFS_MK_LEASE	1u	/* grant the creator an exclusive data lease; the file is open */
#define CFS_MK_TMPFILE	2u	/* no name: an orphan from birth, held by this session */

struct cfs_link_req {		/* followed by name; reply: cfs_make_rep */
	cfs_le64 ino;
	cfs_le64 dir;
	cfs_le32 name_len;
	cfs_le32 pad;
};

/*
 * What the requester knows of the inode that a name gives up: the server need not ask it. With
 * hint_ino 0 the requester counts as having the file open if it holds any lease on it.
 */
struct cfs_unlink_req {		/* followed by name; reply: cfs_unlink_rep */
	cfs_le64 dir;
	cfs_le64 hint_ino;
	cfs_le32 name_len;
	uint8_t  rmdir;		/* 1: the name must be a directory, and empty */
	uint8_t  hint_open;
	uint8_t  pad[2];
};
_Static_assert(sizeof(struct cfs_unlink_req) == 24, "cfs_unlink_req");
struct cfs_unlink_rep {
	struct cfs_attr attr;	/* of the inode after the change; nlink 0: it is gone or an orphan */
	struct cfs_attr dirattr;
	cfs_le32 valid;
	cfs_le32 orphan;	/* 1: kept because this session has it open: RELEASE it at last close */
};
_Static_assert(sizeof(struct cfs_unlink_rep) == 296, "cfs_unlink_rep");

struct cfs_rename_req {		/* followed by old name, then new name; reply: cfs_rename_rep */
	cfs_le64 old_dir, new_dir;
	cfs_le64 hint_ino;	/* the inode that new name has now, as in cfs_unlink_req */
	cfs_le32 old_len, new_len;
	cfs_le32 flags;		/* RENAME_NOREPLACE 1, RENAME_EXCHANGE 2, as renameat2(2) */
	uint8_t  hint_open;
	uint8_t  pad[3];
};
_Static_assert(sizeof(struct cfs_rename_req) == 40, "cfs_rename_req");
struct cfs_rename_rep {
	struct cfs_attr attr;		/* of what moved */
	struct cfs_attr other;		/* of what was replaced (nlink counts) or exchanged; ino 0: none */
	cfs_le32 valid;
	cfs_le32 orphan;		/* as in cfs_unlink_rep, for other */
};
_Static_assert(sizeof(struct cfs_rename_rep) == 296, "cfs_rename_rep");

struct cfs_setxattr_req {	/* followed by name, then value; reply: cfs_attr_rep */
	cfs_le64 ino;
	cfs_le32 name_len;
	cfs_le32 value_len;
	cfs_le32 flags;		/* 0, XATTR_CREATE 1, XATTR_REPLACE 2, CFS_XATTR_REMOVE */
	cfs_le32 extra;		/* CFS_XATTR_KILL_SGID */
};
_Static_assert(sizeof(struct cfs_setxattr_req) == 24, "cfs_setxattr_req");
#define CFS_XATTR_REMOVE	0x100u
#define CFS_XATTR_KILL_SGID	1u	/* setting an access ACL must drop S_ISGID (FUSE_SETXATTR_ACL_KILL_SGID) */

/*
 * COMMIT: data that is already durable as objects, or small enough to travel inside, becomes
 * part of files, together with size and times, all files of one request in one log entry but
 * each with its own result. A session commits objects that it has written itself (else EPERM),
 * each object in one COMMIT only, there as often as it likes. Extents for a file that has inline
 * data must cover all of it (else EINVAL: first make an object of it). The size grows to
 * the end of the extents by itself; with CFS_CI_APPEND it is that end, and `size` is ignored.
 */
struct cfs_commit_req {		/* followed by n items */
	cfs_le32 n;		/* <= CFS_COMMIT_MAX */
	cfs_le32 pad;
};
#define CFS_COMMIT_MAX		256u
struct cfs_commit_item {	/* followed by inline data, then extents */
	cfs_le64 ino;
	cfs_le64 size;		/* the file's size is at least this afterwards */
	struct cfs_time mtime;
	cfs_le32 flags;		/* CFS_CI_* */
	cfs_le32 inline_len;	/* with CFS_CI_INLINE: the whole content of the file; CFS_CI_PATCH; <= CFS_INLINE_MAX */
	cfs_le32 n_extents;
	cfs_le32 pad;
};
_Static_assert(sizeof(struct cfs_commit_item) == 48, "cfs_commit_item");
#define CFS_CI_INLINE	1u	/* replace content by the inline data */
#define CFS_CI_APPEND	2u	/* extents' file_off are relative; the server puts them at the end */
#define CFS_CI_MTIME	4u	/* take mtime as given, else the leader's clock */
#define CFS_CI_KILLPRIV	8u	/* a write by somebody not privileged: drop suid, sgid, capabilities */
#define CFS_CI_PATCH	16u	/* write the inline data at offset `size` (with CFS_CI_APPEND: at the end) of a file that is
				 * inline, or has no data, and is not longer than CFS_INLINE_MAX then: else EMSGSIZE */
struct cfs_commit_rep {		/* followed by n results */
	cfs_le32 n;
	cfs_le32 pad;
};
struct cfs_commit_result {
	cfs_le32 status;
	cfs_le32 flags;		/* CFS_CR_* */
	cfs_le64 off;		/* where APPEND data landed */
	struct cfs_attr attr;
};
_Static_assert(sizeof(struct cfs_commit_result) == 160, "cfs_commit_result");
#define CFS_CR_CONTENDED 1u	/* the file is written through, go on like that */

struct cfs_fallocate_req {	/* reply: cfs_attr_rep */
	cfs_le64 ino;
	cfs_le64 off, len;
	cfs_le32 mode;		/* FALLOC_FL_* of Linux */
	cfs_le32 flags;		/* CFS_SA_KILLPRIV */
};

struct cfs_copy_req {		/* reply: cfs_copy_rep */
	cfs_le64 src, src_off;
	cfs_le64 dst, dst_off;
	cfs_le64 len;		/* CFS_COPY_REFLINK with 0: to the end of src */
	cfs_le32 flags;
	cfs_le32 pad;
};
#define CFS_COPY_REFLINK	1u
#define CFS_COPY_KILLPRIV	2u
struct cfs_copy_rep {
	cfs_le64 copied;	/* bytes; may be less than asked for */
	struct cfs_attr attr;	/* of dst */
};

/* type of a lock owner's name space, kind of lock */
enum cfs_lock_space { CFS_LOCK_POSIX = 1, CFS_LOCK_FLOCK = 2 };	/* OFD locks are POSIX with their own owner */
enum cfs_lock_kind { CFS_LOCK_READ = 1, CFS_LOCK_WRITE = 2, CFS_LOCK_UNLOCK = 3 };
/*
 * LOCK: with `wait` the reply comes when the lock is granted, or with EINTR when a LOCK
 * request of the same owner with CFS_LOCK_CANCEL arrives (slot none), or EDEADLK.
 */
struct cfs_lock_req {
	cfs_le64 ino;
	cfs_le64 owner;		/* unique within the session */
	cfs_le64 start, end;	/* inclusive; end 2^63-1: to the end of the file */
	cfs_le32 pid;		/* for F_GETLK */
	uint8_t  space, kind;
	uint8_t  wait;
	uint8_t  pad;
};
_Static_assert(sizeof(struct cfs_lock_req) == 40, "cfs_lock_req");
#define CFS_LOCK_CANCEL	0xffu	/* as kind: give up the waiting request of this owner and range */
/* GETLK: cfs_lock_req; reply: cfs_lock_req with the conflicting lock, kind UNLOCK if there is none */

struct cfs_release_req {	/* followed by n le64 inode numbers; reply: header */
	cfs_le32 n;		/* <= CFS_LEASE_LIST_MAX */
	cfs_le32 pad;
};

/* ---- objects ------------------------------------------------------------------- */
struct cfs_obj_write_req {	/* followed by crc32c of each 64 KiB block; payload: the data. Reply: header */
	struct cfs_oid oid;
	cfs_le32 target;
	cfs_le32 len;		/* = payload_len, 1 .. CFS_OBJECT_MAX */
};
_Static_assert(sizeof(struct cfs_obj_write_req) == 24, "cfs_obj_write_req");

struct cfs_obj_read_req {
	struct cfs_oid oid;
	cfs_le32 target;
	cfs_le32 off, len;	/* within the object */
	cfs_le32 pad;
};
_Static_assert(sizeof(struct cfs_obj_read_req) == 32, "cfs_obj_read_req");
struct cfs_obj_read_rep {	/* followed by crc32c of each block of the payload */
	cfs_le32 obj_len;	/* whole object */
	cfs_le32 off;		/* of the payload's first byte: the asked one, rounded down to 64 KiB */
	cfs_le32 len;		/* = payload_len: whole blocks, the last one of the object may be short */
	cfs_le32 pad;
};

struct cfs_obj_delete_req {	/* followed by n oids; reply: header; absent objects are fine */
	cfs_le32 target;
	cfs_le32 n;		/* <= CFS_OBJ_LIST_MAX */
};
#define CFS_OBJ_LIST_MAX	4096u

struct cfs_obj_list_req {
	cfs_le32 target;
	cfs_le32 max;		/* <= CFS_OBJ_LIST_MAX */
	cfs_le64 cursor;	/* 0: start; else from the last reply */
};
struct cfs_obj_list_rep {	/* followed by n entries */
	cfs_le64 cursor;	/* 0: the end */
	cfs_le32 n;
	cfs_le32 pad;
};
struct cfs_obj_list_entry {
	struct cfs_oid oid;
	cfs_le32 len;
	cfs_le32 pad;
};
_Static_assert(sizeof(struct cfs_obj_list_entry) == 24, "cfs_obj_list_entry");

#endif
