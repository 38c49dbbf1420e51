/* SPDX-License-Identifier: MIT */
/*
 * meta_i.h - private to the state machine: the open state, a transaction, inodes in host order.
 *
 * Return values inside: 0; a positive errno or CFS_E_*: the request fails with that status and
 * nothing has been written; a negative errno: the state could not be read or written, the whole
 * entry fails. An operation checks first and writes afterwards: once it has written it may no
 * longer fail with a status. apply.c asserts it. Functions that leave a file but not this
 * directory are called cfs_ms_...
 */
#ifndef CFS_SERVER_META_META_I_H
#define CFS_SERVER_META_META_I_H

#include "base/base.h"
#include "rpc/codec.h"
#include "server/meta/keys.h"
#include "server/meta/meta.h"

#include <errno.h>
#include <lmdb.h>
#include <pthread.h>
#include <sys/stat.h>

#define CFS_EMAPFULL 5000 /* -CFS_EMAPFULL: LMDB's map is full; grow it and do the entry again */

#define CFS_META_SYNC_EXTENTS	4096u	/* extents that a request frees itself; more go to PURGE */
#define CFS_META_CLOSE_EXTENTS	64u	/* the same for each orphan of a session that ends */
#define CFS_FALLOC_EXT_LEN	(1u << 30)	/* bytes of one UNWRITTEN extent */

struct cfs_ts {
	int64_t sec;
	uint32_t nsec;
};

struct cfs_state {
	uint64_t applied;
	struct cfs_ts time;
	uint64_t next_ino, next_session, next_dead;
	uint64_t inodes, dirs, extents, data_bytes, dead_objects, orphans, sessions, locks, purging;
};

struct cfs_inode {
	uint64_t ino;
	uint64_t gen, size, alloc, map, change, parent, n_extents;
	struct cfs_ts atime, mtime, ctime, btime;
	uint32_t mode, nlink, uid, gid, rdev, flags;
	uint32_t inline_len, n_xattrs, xattr_list_len;
};

struct cfs_ext {		/* an extent in host order */
	uint64_t off;
	uint32_t len, obj_off;
	struct cfs_oid oid;
	uint32_t obj_len, flags;
};

/* changes of object reference counts that a request has made but not written yet (dead.c) */
#define CFS_REFS_MAX	4096u
#define CFS_REFS_HASH	8192u
struct cfs_refs {
	unsigned n;
	struct {
		struct cfs_oid oid;
		int64_t delta;
		bool live; /* an extent referred to it before the request: its count was at least 1 */
	} e[CFS_REFS_MAX];
	uint16_t hash[CFS_REFS_HASH];	/* index + 1 */
};

struct cfs_tx {
	struct cfs_meta *m;
	MDB_txn *txn;
	MDB_cursor *cur;
	uint64_t writes;		/* puts and deletes so far */
	/* of the entry */
	uint64_t index;
	struct cfs_ts now;
	/* of the record */
	uint64_t session;
	const uint8_t *holders;		/* le64 each, unaligned */
	unsigned n_holders;
	uint8_t *rep;			/* room for CFS_REPLY_MAX */
	uint32_t rep_len;
};

/* entries that one transaction applies (group.c) */
struct cfs_group {
	uint8_t *log;			/* what tx has applied, or what is to be applied again. NULL: each entry has its own */
	size_t len;
	unsigned n;			/* entries there */
	bool told;			/* replies of them have gone out */
	struct cfs_tx tx;		/* txn NULL: none is open */
	struct cfs_state before;	/* m->st without it */
};

struct cfs_meta {
	MDB_env *env;
	MDB_dbi dbi;
	char *path;
	uint8_t cluster[16];
	uint64_t name_seed;
	uint32_t shard;
	struct cfs_state st;		/* as of the open write transaction, or the last commit */
	pthread_mutex_t map_lock; /* held while the map must not move: checkpoint; and to move it */
	struct cfs_tx rd;		/* the one read transaction; txn NULL until first used */
	bool rd_fresh;			/* it shows the last commit */
	uint64_t room_end;		/* bytes of LMDB's file that have room below: room.c */
	bool room_low;			/* and no more is to be found */
	struct cfs_refs refs;
	struct cfs_ext ext_buf[CFS_META_COPY_EXT_MAX];
	uint8_t xattr_buf[CFS_XATTR_SIZE_MAX];	/* one ACL in the making */
	/* replies of the entry being applied */
	uint8_t *arena;
	size_t arena_len, arena_size;
	unsigned n_replies;
	struct cfs_group group;
	struct {
		uint32_t status, len;
		size_t off;
	} replies[CFS_LOG_BATCH_MAX];
};

/* ---- db.c: LMDB ----------------------------------------------------------------- */
/* what LMDB gives stays valid until the next write in the transaction. Missing: ENOENT */
int cfs_ms_db_err(int rc);
int cfs_ms_db_get(struct cfs_tx *t, const struct cfs_key *k, MDB_val *ret_v);
int cfs_ms_db_get_fixed(struct cfs_tx *t, const struct cfs_key *k, void *rec,
			size_t len); /* exactly len bytes */
int cfs_ms_db_put(struct cfs_tx *t, const struct cfs_key *k, const void *v, size_t len);
int cfs_ms_db_del(struct cfs_tx *t, const struct cfs_key *k);	/* must exist: else -EUCLEAN */
/* the first key >= k that shares its first prefix_len bytes; then the following ones */
int cfs_ms_db_seek(struct cfs_tx *t, const struct cfs_key *k, unsigned prefix_len, MDB_val *ret_k,
		   MDB_val *ret_v);
int cfs_ms_db_next(struct cfs_tx *t, const struct cfs_key *k, unsigned prefix_len, MDB_val *ret_k,
		   MDB_val *ret_v);
/* the last key <= k that shares its first prefix_len bytes */
int cfs_ms_db_seek_le(struct cfs_tx *t, const struct cfs_key *k, unsigned prefix_len,
		      MDB_val *ret_k, MDB_val *ret_v);

/* ---- apply.c -------------------------------------------------------------------- */
/* an entry in an open transaction; m->st goes on with it, also if that fails. 0 or -errno */
int cfs_ms_run_entry(struct cfs_tx *t, uint64_t index, const uint8_t *entry, size_t len);
/* an entry in a transaction of its own; m->st stays as it was if that fails. Applied already: 0. Else as cfs_meta_apply() */
int cfs_ms_apply_one(struct cfs_meta *m, uint64_t index, const void *entry, size_t len);

/* ---- group.c -------------------------------------------------------------------- */
/* may an entry of len bytes be added? tells: its replies go out. 1: yes; 0: none is open, it is to have its own; or -errno */
int cfs_ms_group_open(struct cfs_meta *m, size_t len, bool tells);
int cfs_ms_group_add(struct cfs_meta *m, uint64_t index, const void *entry, size_t len);
int cfs_ms_group_rd(struct cfs_meta *m, struct cfs_tx **ret_t);	/* the open transaction, to read through */
void cfs_ms_group_close(struct cfs_meta *m);

/* ---- room.c --------------------------------------------------------------------- */
int cfs_ms_room_prepare(const char *path);	/* before LMDB opens its files there. 0 or -errno */
void cfs_ms_room_committed(struct cfs_meta *m);	/* the file may have grown */
bool cfs_ms_room_sure(struct cfs_meta *m);	/* a transaction of 8 MiB of new pages would find room */

/* ---- state.c -------------------------------------------------------------------- */
int cfs_ms_state_rd(struct cfs_meta *m, struct cfs_tx **ret_t);	/* the read transaction, renewed */
int cfs_ms_state_begin(struct cfs_meta *m, struct cfs_tx *t);
int cfs_ms_state_commit(struct cfs_meta *m, struct cfs_tx *t);	/* writes the STATE record, too */
void cfs_ms_state_abort(struct cfs_meta *m, struct cfs_tx *t);	/* the caller puts m->st back */
int cfs_ms_state_grow(struct cfs_meta *m);

/* ---- inode.c -------------------------------------------------------------------- */
int cfs_ms_inode_get(struct cfs_tx *t, uint64_t ino, struct cfs_inode *ret_in);
int cfs_ms_inode_put(struct cfs_tx *t, const struct cfs_inode *in);
int cfs_ms_inode_new_ino(struct cfs_tx *t, uint64_t *ret_ino);
void cfs_ms_inode_attr(const struct cfs_inode *in, struct cfs_attr *ret_attr);
uint64_t cfs_ms_inode_governor(const struct cfs_inode *in); /* whose lease covers its attributes */
/* the attributes, or data as well, have changed now */
void cfs_ms_inode_touch(struct cfs_tx *t, struct cfs_inode *in);
void cfs_ms_inode_touch_data(struct cfs_tx *t, struct cfs_inode *in);
/* changes alloc, and the shard's sum with it */
void cfs_ms_inode_add_alloc(struct cfs_tx *t, struct cfs_inode *in, int64_t bytes);
int cfs_ms_inode_kill_priv(struct cfs_tx *t, struct cfs_inode *in);
int cfs_ms_inode_kill_caps(struct cfs_tx *t, struct cfs_inode *in);
/*
 * nlink has become 0: an orphan of the record's holders, or gone. Writes the inode (or not).
 * *ret_mine: the record's session holds it.
 */
int cfs_ms_inode_unlinked(struct cfs_tx *t, struct cfs_inode *in, bool *ret_mine);
int cfs_ms_inode_hold(struct cfs_tx *t, uint64_t ino, uint64_t session);
/* the session holds it no longer; ENOENT if it did not. The last holder's inode goes */
int cfs_ms_inode_unhold(struct cfs_tx *t, uint64_t ino, uint64_t session, unsigned sync_extents);
int cfs_ms_inode_unorphan(struct cfs_tx *t, uint64_t ino); /* linked again: nobody holds it */
int cfs_ms_inode_destroy(struct cfs_tx *t, struct cfs_inode *in, unsigned sync_extents);

static inline struct cfs_ts cfs_ts_get(const struct cfs_time *tm)
{
	return (struct cfs_ts){ (int64_t)cfs_le64_to_cpu(tm->sec), cfs_le32_to_cpu(tm->nsec) };
}

static inline void cfs_ts_put(struct cfs_time *tm, struct cfs_ts ts)
{
	tm->sec = cfs_cpu_to_le64((uint64_t)ts.sec);
	tm->nsec = cfs_cpu_to_le32(ts.nsec);
	tm->pad = 0;
}

static inline int cfs_ts_cmp(struct cfs_ts a, struct cfs_ts b)
{
	if (a.sec != b.sec)
		return a.sec < b.sec ? -1 : 1;
	return a.nsec < b.nsec ? -1 : a.nsec > b.nsec;
}

/* ---- dentry.c ------------------------------------------------------------------- */
struct cfs_dent {
	uint64_t cookie; /* found: of the entry; ENOENT: the one it would get, 0 if none is free */
	uint64_t ino;
	uint32_t mode;		/* type bits */
};
int cfs_ms_dent_name_check(const char *name, uint32_t len);	/* 0, EINVAL, ENAMETOOLONG */
int cfs_ms_dent_find(struct cfs_tx *t, uint64_t dir, const char *name, uint32_t len,
		     struct cfs_dent *ret_d);
int cfs_ms_dent_put(struct cfs_tx *t, uint64_t dir, const struct cfs_dent *d, const char *name,
		    uint32_t len);
int cfs_ms_dent_del(struct cfs_tx *t, uint64_t dir, uint64_t cookie);
struct cfs_dent_view {		/* an entry where LMDB has it */
	struct cfs_dent d;
	uint64_t dir;
	const char *name;
	uint32_t name_len;
};
int cfs_ms_dent_decode(const MDB_val *k, const MDB_val *v,
		       struct cfs_dent_view *ret); /* 0, -EUCLEAN */

/* ---- xattr.c, acl.c: ACLs in the form of system.posix_acl_*, version 2 ---------- */
#define CFS_XATTR_ACL_ACCESS	"system.posix_acl_access"
#define CFS_XATTR_ACL_DEFAULT	"system.posix_acl_default"
#define CFS_XATTR_CAPS		"security.capability"
int cfs_ms_xattr_get(struct cfs_tx *t, uint64_t ino, const char *name, MDB_val *ret_v);
/* writes, or removes; keeps count and flags of `in`; writes not the inode itself */
int cfs_ms_xattr_put(struct cfs_tx *t, struct cfs_inode *in, const char *name, uint32_t name_len,
		     const void *v, size_t len);
int cfs_ms_xattr_del(struct cfs_tx *t, struct cfs_inode *in, const char *name, uint32_t name_len);
int cfs_ms_xattr_del_all(struct cfs_tx *t, uint64_t ino);
int cfs_ms_acl_check(const void *acl, size_t len);		/* 0, EINVAL */
unsigned cfs_ms_acl_count(size_t len);			/* entries */
/* permission bits that say the same; true if they say all that the ACL says */
bool cfs_ms_acl_mode(const void *acl, size_t len, uint32_t *ret_perm);
void cfs_ms_acl_chmod(void *acl, size_t len, uint32_t mode);
/*
 * a new inode's access ACL out of the default ACL, in place; *mode is masked; true if mode says
 * all
 */
bool cfs_ms_acl_create(void *acl, size_t len, uint32_t *mode);

/* ---- extents.c ------------------------------------------------------------------ */
/* up to max extents that overlap [off, end), in order */
int cfs_ms_ext_collect(struct cfs_tx *t, uint64_t map, uint64_t off, uint64_t end,
		       struct cfs_ext *ret, unsigned max, unsigned *ret_n);
/* nothing is left of [off, end): extents are trimmed, split or removed. Neither writes the inode */
int cfs_ms_ext_cut(struct cfs_tx *t, struct cfs_inode *in, uint64_t off, uint64_t end);
/* into a gap. live: another extent has this object already */
int cfs_ms_ext_insert(struct cfs_tx *t, struct cfs_inode *in, const struct cfs_ext *e, bool live);
/* nothing is left from `off` on; cheap however many extents there are */
int cfs_ms_ext_truncate(struct cfs_tx *t, struct cfs_inode *in, uint64_t off);
/* frees up to max extents of a map that no inode has; *ret_n freed */
int cfs_ms_ext_free_map(struct cfs_tx *t, uint64_t map, unsigned max, unsigned *ret_n);
int cfs_ms_ext_decode(const MDB_val *k, const MDB_val *v, struct cfs_ext *ret);	/* 0, -EUCLEAN */
/* inline bytes: all of them, or none (len 0) */
int cfs_ms_inline_set(struct cfs_tx *t, struct cfs_inode *in, const void *data, uint32_t len);
int cfs_ms_inline_get(struct cfs_tx *t, const struct cfs_inode *in,
		      void *buf); /* in->inline_len bytes */

/* ---- dead.c --------------------------------------------------------------------- */
int cfs_ms_ref_note(struct cfs_tx *t, const struct cfs_oid *oid, int delta, bool live);
void cfs_ms_ref_reset(struct cfs_meta *m);
int cfs_ms_ref_flush(struct cfs_tx *t);	/* at the end of each record */
int cfs_ms_purge_add(struct cfs_tx *t, uint64_t map);
int cfs_ms_op_purge(struct cfs_tx *t);
int cfs_ms_op_dead_done(struct cfs_tx *t, const uint8_t *body, uint32_t len);

/* ---- operations: request body in, reply body at t->rep -------------------------- */
int cfs_ms_op_mknode(struct cfs_tx *t, const uint8_t *body, uint32_t len);
int cfs_ms_op_link(struct cfs_tx *t, const uint8_t *body, uint32_t len);
int cfs_ms_op_unlink(struct cfs_tx *t, const uint8_t *body, uint32_t len);
int cfs_ms_op_rename(struct cfs_tx *t, const uint8_t *body, uint32_t len);
int cfs_ms_op_setattr(struct cfs_tx *t, const uint8_t *body, uint32_t len);
int cfs_ms_op_setxattr(struct cfs_tx *t, const uint8_t *body, uint32_t len);
int cfs_ms_op_commit(struct cfs_tx *t, const uint8_t *body, uint32_t len);
int cfs_ms_op_fallocate(struct cfs_tx *t, const uint8_t *body, uint32_t len);
int cfs_ms_op_copy(struct cfs_tx *t, const uint8_t *body, uint32_t len);
int cfs_ms_op_lock(struct cfs_tx *t, const uint8_t *body, uint32_t len);
int cfs_ms_op_release(struct cfs_tx *t, const uint8_t *body, uint32_t len);
int cfs_ms_op_session_open(struct cfs_tx *t, const uint8_t *body, uint32_t len);
int cfs_ms_op_session_close(struct cfs_tx *t);
int cfs_ms_op_map(struct cfs_tx *t, const uint8_t *body, uint32_t len);

int cfs_ms_session_get(struct cfs_tx *t, uint64_t session, struct cfs_session_rec *ret_rec);

/* op_lock.c */
struct cfs_lock {
	uint64_t session, owner, start, end;
	uint32_t kind, pid;
};
int cfs_ms_lock_check(const struct cfs_lock_req *req);	/* 0, EINVAL */
/* the first lock in the way of req; ENOENT if there is none */
int cfs_ms_lock_conflict(struct cfs_tx *t, uint64_t session, const struct cfs_lock_req *req,
			 struct cfs_lock *ret);
int cfs_ms_lock_drop_ino(struct cfs_tx *t, uint64_t ino);
int cfs_ms_lock_drop_session(struct cfs_tx *t, uint64_t session);

/* ---- req.c: request bodies, every length checked -------------------------------- */
/* copies the fixed part and points at what follows: exactly the lengths it names, or CFS_E_PROTO */
int cfs_ms_req_fixed(const uint8_t *body, uint32_t len, void *req,
		     size_t size); /* nothing follows */
int cfs_ms_req_mknode(const uint8_t *body, uint32_t len, struct cfs_mknode_req *req,
		      const char **ret_name, const char **ret_target);
int cfs_ms_req_link(const uint8_t *body, uint32_t len, struct cfs_link_req *req,
		    const char **ret_name);
int cfs_ms_req_unlink(const uint8_t *body, uint32_t len, struct cfs_unlink_req *req,
		      const char **ret_name);
int cfs_ms_req_rename(const uint8_t *body, uint32_t len, struct cfs_rename_req *req,
		      const char **ret_old, const char **ret_new);
int cfs_ms_req_lookup(const uint8_t *body, uint32_t len, struct cfs_lookup_req *req,
		      const char **ret_name);
int cfs_ms_req_xattr(const uint8_t *body, uint32_t len, struct cfs_xattr_req *req,
		     const char **ret_name);
int cfs_ms_req_setxattr(const uint8_t *body, uint32_t len, struct cfs_setxattr_req *req,
			const char **ret_name, const uint8_t **ret_value);
int cfs_ms_req_release(const uint8_t *body, uint32_t len, uint32_t *ret_n,
		       const uint8_t **ret_inos);
/* item by item: *pos starts at sizeof(struct cfs_commit_req) */
int cfs_ms_req_commit(const uint8_t *body, uint32_t len, uint32_t *ret_n); /* checks all items */
void cfs_ms_req_commit_item(const uint8_t *body, uint32_t *pos, struct cfs_commit_item *item,
			    const uint8_t **ret_inline, const uint8_t **ret_extents);

#endif
