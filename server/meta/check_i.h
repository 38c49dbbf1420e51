/* SPDX-License-Identifier: MIT */
/*
 * check_i.h - private to the consistency check: what it has gathered, and how findings are told.
 *
 * check.c has the order of passes and the name space (inodes, entries, orphans); check_data.c has
 * what hangs on inodes (extents, references, inline bytes, xattrs) and on sessions. Memory is
 * proportional to the number of inodes and objects: this is for an idle shard and for tests.
 */
#ifndef CFS_SERVER_META_CHECK_I_H
#define CFS_SERVER_META_CHECK_I_H

#include "server/meta/meta_i.h"

/* one inode: what its record says, and what was counted */
struct cfs_ck_inode {
	struct cfs_inode in;
	uint64_t entries, subdirs, links, link_dir;
	uint64_t n_extents, ext_bytes, inline_bytes, xattr_list_len;
	uint32_t n_xattrs, xattr_flags;
	bool orphan, has_inline, dirty, gone;
};

struct cfs_ck_map { /* extents under a map number: of an inode, or of PURGE (inode NULL) */
	uint64_t map;
	struct cfs_ck_inode *ino;
};

struct cfs_ck_obj {
	struct cfs_oid oid;
	uint64_t count;
};

struct cfs_ck {
	struct cfs_tx *t;
	bool repair;
	int found;
	void (*cb)(void *arg, const char *finding);
	void *arg;
	struct cfs_ck_inode *inodes;	/* by number */
	size_t n_inodes, cap_inodes;
	struct cfs_ck_map *maps;	/* by number */
	size_t n_maps, cap_maps;
	struct cfs_ck_obj *objs;	/* open addressing; count 0: free */
	size_t n_objs, cap_objs;	/* cap is a power of two */
	struct cfs_state seen;		/* the counters as they should be */
};

/* a walk over all keys of a type that survives changes to them */
struct cfs_ck_iter {
	struct cfs_key k;
	MDB_val key, v;		/* where LMDB has them: until the next write */
};
void cfs_ck_iter_init(struct cfs_ck_iter *it, enum cfs_key_type type);
int cfs_ck_iter_next(struct cfs_ck *c, struct cfs_ck_iter *it);	/* 0, ENOENT at the end, -errno */
int cfs_ck_iter_del(struct cfs_ck *c,
		    struct cfs_ck_iter *it); /* repair: removes the key it stands on */

void cfs_ck_say(struct cfs_ck *c, const char *fmt, ...) CFS_PRINTF(2, 3);
struct cfs_ck_inode *cfs_ck_find(struct cfs_ck *c, uint64_t ino);	/* NULL: none */
void *cfs_ck_grow(void *array, size_t n, size_t *cap,
		  size_t size); /* NULL: out of memory, array kept */

int cfs_ck_data(struct cfs_ck *c);	/* extents, references, inline bytes, xattrs */
int cfs_ck_sessions(struct cfs_ck *c);	/* sessions, slots, locks, orphan indexes */

#endif
