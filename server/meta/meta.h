/* SPDX-License-Identifier: MIT */
/*
 * meta.h - the replicated state of one shard: LMDB behind a deterministic apply function.
 *
 * Everything here is a pure function of (state, log entry): no clock, no randomness, no leases.
 * All replicas that apply the same entries have the same keys and the same replies. The leader's
 * part (leases, batching, waiting) is shard.h. One thread owns a cfs_meta; cfs_meta_checkpoint()
 * alone may run on a helper thread beside it.
 */
#ifndef CFS_SERVER_META_META_H
#define CFS_SERVER_META_META_H

#include <claudefs/types.h>
#include <claudefs/wire.h>
#include <stdbool.h>
#include <stddef.h>

struct cfs_meta;

struct cfs_meta_params {
	const char *path;	/* directory of the LMDB environment; made if absent */
	uint64_t map_bytes;	/* address space, not memory; grown by itself when full */
	uint8_t cluster[16];
	uint32_t shard;
};

/*
 * opens; an empty environment of shard 0 gets the root directory (mode 0755, uid/gid 0) at applied index 0. The
 * environment is a cache of the log: while it is open a file `live` beside it names this boot, and what was left open
 * under another boot_id (power loss) is thrown away here: compare cfs_meta_applied() with the snapshot afterwards.
 * To restore a checkpoint: cfs_meta_discard(), write its bytes to <path>/data.mdb, open.
 * -EPROTONOSUPPORT a newer format, -EMEDIUMTYPE another cluster or shard; errbuf has one line.
 */
int cfs_meta_open(const struct cfs_meta_params *p, struct cfs_meta **ret_meta, char *errbuf, size_t errlen);
void cfs_meta_close(struct cfs_meta *m);
/* removes the environment's files (it must not be open), leaving an empty directory; fine if absent */
int cfs_meta_discard(const char *path);
/* raft index of the last applied entry; stored in the same transaction as its effects */
uint64_t cfs_meta_applied(struct cfs_meta *m);
/*
 * Is there room for the state to grow, in the file system it lies on? Looks again when there was none. Some is kept
 * ahead, for what frees space; beyond that cfs_meta_apply() ends with -ENOSPC, and may be called again.
 */
bool cfs_meta_room(struct cfs_meta *m);
/* a consistent copy of the state, at some index >= applied at the call; to an open fd; thread-safe */
int cfs_meta_checkpoint(struct cfs_meta *m, int fd);

/* ---- log entries (durable format, version 1; golden vector in selftests) ---------------- */
#define CFS_LOG_MAGIC	0x474f4c43u	/* "CLOG" */
#define CFS_LOG_VERSION	1u
#define CFS_LOG_BATCH_MAX 256u		/* requests in one entry */
#define CFS_LOG_ENTRY_MAX (1u << 20)	/* bytes of one entry */
struct cfs_log_hdr {		/* followed by n records, each padded to 8 bytes */
	cfs_le32 magic;
	cfs_le16 version;
	cfs_le16 n;
	struct cfs_time time;	/* the leader's realtime: never goes back from entry to entry */
	cfs_le64 pad;
};
_Static_assert(sizeof(struct cfs_log_hdr) == 32, "cfs_log_hdr");
struct cfs_log_rec {		/* followed by body, then n_holders le64 sessions */
	cfs_le16 opcode;	/* enum cfs_opcode (mutating ones), or CFS_LOG_* */
	cfs_le16 n_holders;	/* sessions that keep the victim of UNLINK/RENAME open */
	cfs_le32 body_len;
	cfs_le64 session;
	cfs_le32 slot;
	cfs_le32 pad;
	cfs_le64 seq;
};
_Static_assert(sizeof(struct cfs_log_rec) == 32, "cfs_log_rec");
/* entries a leader makes by itself */
#define CFS_LOG_FENCE		0x1000u	/* close `session`; no body */
#define CFS_LOG_DEAD_DONE	0x1001u	/* body: le64 keys of dead objects that targets have deleted */
#define CFS_LOG_MAP		0x1002u	/* body: cfs_map_rep with its lists: the new cluster map (shard 0) */
#define CFS_LOG_NOOP		0x1003u
#define CFS_LOG_PURGE		0x1005u	/* no body: free at most CFS_META_PURGE_MAX extents of files that are gone */
#define CFS_META_PURGE_MAX	4096u
/*
 * The leader answered (session, slot, seq) by itself: EINTR and EDEADLK of a waiting LOCK, early ENOSPC, what
 * cfs_meta_footprint() refused. Body: le32 status, le32 0. Changes only the slot: every answered seq is in the log.
 */
#define CFS_LOG_FAIL		0x1004u

#define CFS_REPLY_MAX	(64u << 10)	/* bytes of one reply body kept in a slot */

/* limits of the state; beyond: the status named */
#define CFS_META_SESSIONS_MAX	65536u	/* ENFILE */
#define CFS_META_LOCKS_INO_MAX	65536u	/* byte-range locks of one inode; ENOLCK. Unlocking may go to twice that */
#define CFS_META_LOCKS_MAX	(1u << 20)	/* of the shard; ENOLCK */
#define CFS_META_FALLOC_EXT_MAX	65536u	/* extents that one FALLOCATE makes, each at most 1 GiB; ENOSPC */
#define CFS_META_COPY_EXT_MAX	4096u	/* extents that one COPY shares: it then copies less than asked for */

/**
 * cfs_meta_apply() - apply one entry, in one LMDB transaction (commits with NOSYNC) unless there is a group.
 * @index: its raft index; <= cfs_meta_applied() is a no-op (nothing is called)
 * @sink: called for each record in order, when it is applied: record number, status, reply body; NULL: nobody waits for replies
 * Each record succeeds or fails (EEXIST, ENOENT, ...) by itself; a failed one changes nothing but its slot.
 * A LOCK with `wait` that fails with EAGAIN does not even take its slot: the same record may be proposed again.
 * SESSION_OPEN, SESSION_CLOSE and CFS_LOG_* records but CFS_LOG_FAIL use no slot.
 * Return: 0, or -errno when the state could not be updated at all (-ENOSPC: no room below, try again; -EIO, -EBADMSG malformed):
 * the caller must stop the replica.
 */
int cfs_meta_apply(struct cfs_meta *m, uint64_t index, const void *entry, size_t len,
		   void (*sink)(void *arg, unsigned rec, uint32_t status, const void *body, uint32_t body_len),
		   void *arg);

/*
 * on: entries share LMDB transactions, sinks are called before the commit; what reads the state on this thread sees all that
 * was applied, other threads and processes what was settled. The caller settles when cfs_meta_unsettled() has lasted some
 * ms, and turns it off while cfs_meta_checkpoint() runs, which waits for the open transaction. 0, -ENOMEM, or as settle.
 */
int cfs_meta_group(struct cfs_meta *m, bool on);
bool cfs_meta_unsettled(const struct cfs_meta *m);
/* commits what is applied. 0, or as cfs_meta_apply(): this, or the next apply, may be tried again */
int cfs_meta_settle(struct cfs_meta *m);
/* what was not settled is lost, as if the process had been killed; for cfs_node_abandon() */
void cfs_meta_lose(struct cfs_meta *m);

/* ---- reading, for the leader. Status: 0, errno; bodies as wire.h says, valid/lease fields 0 ---- */
/*
 * `out` has room for CFS_BODY_MAX; ret_len says how much was written. Covers LOOKUP, GETATTR,
 * READDIR, READLINK, GETXATTR, LISTXATTR, OPEN, EXTENTS, SEEK, GETLK (and LOCK as a test:
 * EAGAIN if it would conflict now, then with the cfs_lock_req of one lock in the way and the
 * le64 session that has it). STATFS gives files and used bytes: the shard adds space.
 */
uint32_t cfs_meta_read(struct cfs_meta *m, uint16_t opcode, uint64_t session, const void *body, uint32_t len,
		       void *out, uint32_t *ret_len);
int cfs_meta_getattr(struct cfs_meta *m, uint64_t ino, struct cfs_attr *ret_attr);	/* 0, -ENOENT */

/* the name_hash of cfs_fp_key for a name; the cookie of READDIR has the same upper bits, and lower 8 bits of its own */
uint64_t cfs_meta_name_hash(struct cfs_meta *m, const char *name, size_t len);

/* the slot's last reply: 0 and the reply if seq matches; -EAGAIN if seq is the next; else -EILSEQ; -ESTALE no session */
int cfs_meta_slot(struct cfs_meta *m, uint64_t session, uint32_t slot, uint64_t seq,
		  uint32_t *ret_status, void *out, uint32_t *ret_len);
/* all sessions, in order; 0 or the callback's non-zero */
int cfs_meta_sessions(struct cfs_meta *m, int (*cb)(void *arg, uint64_t session, uint32_t slots, const char *name), void *arg);
bool cfs_meta_session_exists(struct cfs_meta *m, uint64_t session);

/* what a mutating request touches, computed from applied state (docs/leases.md, step 2) */
struct cfs_fp_key {
	uint64_t ino;		/* inode, or directory of the name */
	uint64_t name_hash;	/* 0: the inode itself */
	bool exclusive;
};
struct cfs_fp_break {
	uint64_t dir, ino;
	uint64_t governor;	/* whose lease covers ATTR of ino: a directory, or ino itself */
	uint32_t flags;		/* CFS_BRK_* */
	uint8_t to_mode;
	uint16_t name_len;
	const char *name;	/* into the request's body */
};
#define CFS_FP_KEYS_MAX		(2u * CFS_COMMIT_MAX + 8u)
#define CFS_FP_BREAKS_MAX	(CFS_COMMIT_MAX + 8u)
struct cfs_footprint {
	unsigned n_keys, n_breaks;
	uint64_t victim;	/* inode that would lose its last link, or 0 */
	bool victim_dir;
	struct cfs_fp_key keys[CFS_FP_KEYS_MAX];
	struct cfs_fp_break breaks[CFS_FP_BREAKS_MAX];
};
/*
 * 0; or the status with which the request fails as a whole without being logged: CFS_E_PROTO, a malformed body, which
 * no correct client sends. All other failures go through the log, because they use up the slot's seq. Breaks come
 * one per (dir, name) with NAME|DIRATTR, and one per inode with ATTR, DATA, UNLINK or DIR; keys are not repeated.
 */
uint32_t cfs_meta_footprint(struct cfs_meta *m, uint16_t opcode, const void *body, uint32_t len,
			    struct cfs_footprint *ret_fp);

/* dead objects, oldest first, whose time of death is before `before` */
struct cfs_dead {
	uint64_t key;		/* for CFS_LOG_DEAD_DONE */
	struct cfs_oid oid;
	struct cfs_time died;
};
int cfs_meta_dead(struct cfs_meta *m, const struct cfs_time *before, struct cfs_dead *ret, unsigned max);

/* CFS_LOG_PURGE is due: how many dead files still have extents; O(1) */
uint64_t cfs_meta_purge_pending(struct cfs_meta *m);
/* dead objects, and dead files that still have some: their space is about to come back; O(1) */
uint64_t cfs_meta_dying(struct cfs_meta *m);

/* who holds locks that keep `req` from being granted to (session, req->owner): how many (<= max), or -errno */
struct cfs_lock_holder {
	uint64_t session, owner;
};
int cfs_meta_lock_blockers(struct cfs_meta *m, uint64_t session, const struct cfs_lock_req *req,
			   struct cfs_lock_holder *ret, unsigned max);

struct cfs_meta_stat {
	uint64_t inodes, dirs, extents, data_bytes, dead_objects, orphans, sessions, locks;
	uint64_t applied_index, db_bytes;
	uint64_t purging;	/* dead files whose extents are not freed yet */
};
int cfs_meta_stat(struct cfs_meta *m, struct cfs_meta_stat *ret);

/*
 * for fsck and scrub: every extent, in file order; those of files that are gone but not purged come last, as of ino 0.
 * Non-zero from cb stops. The callback may read
 */
int cfs_meta_walk_extents(struct cfs_meta *m, int (*cb)(void *arg, uint64_t ino, const struct cfs_extent *e), void *arg);
/*
 * Of n names of objects, those that no file refers to or ever will: written by a session that has ended before it
 * committed them. They move to the front of oids, in another order. Any thread; reads every extent, so not one that serves.
 */
int cfs_meta_garbage(struct cfs_meta *m, struct cfs_oid *oids, unsigned n, unsigned *ret_n);
/* grows whenever a session ends; O(1) */
uint64_t cfs_meta_sessions_ended(struct cfs_meta *m);
/* internal consistency: link counts, parents, entry/inode agreement, sizes, refcounts. cb per finding; returns how many */
int cfs_meta_check(struct cfs_meta *m, bool repair, void (*cb)(void *arg, const char *finding), void *arg);
/* hash of all keys and values: equal on replicas with the same applied index. Reads everything */
int cfs_meta_digest(struct cfs_meta *m, uint64_t *ret_digest);
/* the current cluster map as stored by CFS_LOG_MAP; -ENOENT before the first */
int cfs_meta_map(struct cfs_meta *m, void *out, uint32_t *ret_len);

#endif
