/* SPDX-License-Identifier: MIT */
/*
 * checkpoint.h - copies of a shard's state in the store, and the way back.
 *
 * A checkpoint is a consistent copy of the LMDB file, cut into objects of 4 MiB (owner
 * CFS_OID_OWNER_META) and named by a manifest (below, format version 1) that Raft keeps as its
 * snapshot. The live LMDB file is a cache (see cfs_meta_open()): what cannot be trusted is made
 * anew from checkpoint and log. Blocking work (copying LMDB, reading and writing plain files) runs
 * on the clock's helper threads, a piece at a time.
 */
#ifndef CFS_SERVER_CLUSTER_CHECKPOINT_H
#define CFS_SERVER_CLUSTER_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/clock.h"
#include "server/meta/meta.h"
#include "server/store/store.h"

/* ---- manifest -------------------------------------------------------------------------------- */

#define CFS_CKPT_MAGIC		0x4b504343u	/* "CCPK" */
#define CFS_CKPT_VERSION	1u

struct cfs_ckpt_manifest {
	cfs_le32 magic;
	cfs_le16 version;
	cfs_le16 pad;
	cfs_le32 shard;
	cfs_le32 target;	/* that holds the objects */
	uint8_t  cluster[16];
	cfs_le64 first_seq;	/* object i is (CFS_OID_OWNER_META, first_seq + i) */
	cfs_le64 total; /* bytes of the file; all objects but the last have CFS_OBJECT_MAX */
	cfs_le32 crc;		/* crc32c of the file */
	cfs_le32 pad2;
};
_Static_assert(sizeof(struct cfs_ckpt_manifest) == 56, "cfs_ckpt_manifest");
#define CFS_CKPT_BYTES_MAX	(1ull << 38)	/* 65536 objects: seq numbers of one checkpoint */

/* 0, or -EUCLEAN with *ret_why: not this cluster's and shard's, or malformed */
int cfs_ckpt_manifest_check(const void *buf, size_t len, const uint8_t *cluster, uint32_t shard,
			    struct cfs_ckpt_manifest *ret, const char **ret_why);

/* ---- making, fetching, deleting -------------------------------------------------------------- */

struct cfs_ckpt;

struct cfs_ckpt_params {
	struct cfs_clock *clock;
	struct cfs_store *store;	/* where the objects of this member go */
	uint32_t target;		/* its id */
	const char *dir;		/* of the live state: exists */
	uint8_t cluster[16];
	uint32_t shard;
	void *arg;			/* of the callbacks */
};

int cfs_ckpt_create(const struct cfs_ckpt_params *p, struct cfs_ckpt **ret_ck);
/* not busy; NULL is fine */
void cfs_ckpt_destroy(struct cfs_ckpt *ck);
/* something is under way: poll until it is not */
bool cfs_ckpt_busy(const struct cfs_ckpt *ck);
/* end what is under way soon, with -ECANCELED */
void cfs_ckpt_cancel(struct cfs_ckpt *ck);
/* after cancel, when the store will never answer: not busy any more; no done() comes */
void cfs_ckpt_abandon(struct cfs_ckpt *ck);

typedef void (*cfs_ckpt_done_fn)(void *arg, int err, const struct cfs_ckpt_manifest *manifest);

/* copy the state into objects; `meta` stays open until done */
void cfs_ckpt_take(struct cfs_ckpt *ck, struct cfs_meta *meta, cfs_ckpt_done_fn done);

/*
 * Where the objects of another member's checkpoint come from: read one whole object of `target` at
 * `addr` and call cfs_ckpt_fetched(), with data that stays until then.
 */
typedef void (*cfs_ckpt_fetch_fn)(void *arg, struct cfs_ckpt *ck, const char *addr, uint32_t target,
				  const struct cfs_oid *oid, uint32_t len);
void cfs_ckpt_fetched(struct cfs_ckpt *ck, int err, const void *data, uint32_t len);

/**
 * cfs_ckpt_restore() - write the file that a manifest describes beside the live one, verified.
 * @fetch: NULL: the objects are in our store; else another member's: they are copied into it, too
 * @done: with a manifest of our own objects; cfs_ckpt_swap() makes the file the live one
 */
void cfs_ckpt_restore(struct cfs_ckpt *ck, const struct cfs_ckpt_manifest *manifest,
		      const char *addr, cfs_ckpt_fetch_fn fetch, cfs_ckpt_done_fn done);
/* blocking, short: the restored file replaces the live one, which nobody has open. 0 or -errno */
int cfs_ckpt_swap(struct cfs_ckpt *ck);

/*
 * These are the objects to keep (NULL: none); others are deleted in the background: the first time
 * every checkpoint object in the store, later the ones that were to be kept before.
 */
void cfs_ckpt_keep(struct cfs_ckpt *ck, const struct cfs_ckpt_manifest *keep);

#endif
