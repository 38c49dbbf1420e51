/* SPDX-License-Identifier: MIT */
/*
 * store.h - a target: one log-structured store on one device (include/claudefs/disk.h).
 *
 * It holds immutable objects, and the journals and checkpoints of the shards that live with
 * it. All calls run on the device's thread; completions come later on the same thread, never
 * inside the call. Every structure that stands for a pending request is the caller's memory.
 */
#ifndef CFS_SERVER_STORE_STORE_H
#define CFS_SERVER_STORE_STORE_H

#include <claudefs/types.h>
#include <claudefs/disk.h>
#include "base/clock.h"
#include "dev/dev.h"

struct cfs_store;
struct cfs_journal;

struct cfs_store_params {
	struct cfs_dev *dev;		/* borrowed until close */
	struct cfs_clock *clock;
	/* kept free for cleaning, journal and deletion; 0: default */
	uint64_t reserve_bytes;
	/*
	 * A zone has failed that held objects or parts of a journal: see cfs_journal_lost(); and what the caller needs of
	 * objects that are nowhere else should be written again. Never inside a call. NULL: the caller does not care.
	 */
	void (*lost)(void *arg);
	/*
	 * A write finds no room: will objects be deleted in a moment? Then it waits for that, up to 10 s, before it ends
	 * with -ENOSPC. NULL: it never does.
	 */
	bool (*room_coming)(void *arg);
	void *arg;
};

struct cfs_format_params {
	uint8_t cluster[16];		/* uuid */
	uint32_t target_id;
	uint64_t label_time_ns;		/* creation time, realtime */
	/* power of two, 1 MiB to 64 MiB; 0: by the size of the device */
	uint32_t segment_bytes;
};

/**
 * cfs_store_format() - write superblocks and the first journal segment. Blocking; offline only.
 * Segments smaller than 8 MiB (devices below 130 MiB) hold objects of at most half a segment.
 */
int cfs_store_format(struct cfs_dev *dev, const struct cfs_format_params *p, char *errbuf,
		     size_t errlen);

/**
 * cfs_store_open() - read superblock, segment summaries and index checkpoint; blocking (start-up).
 * @errbuf: one line that names what was wrong and where, on failure
 * Return: 0; -EUCLEAN damaged beyond use; -EMEDIUMTYPE not a ClaudeFS target; -EPROTONOSUPPORT a
 * newer format; other -errno of the device.
 */
int cfs_store_open(const struct cfs_store_params *p, struct cfs_store **ret_store,
		   char *errbuf, size_t errlen);
/**
 * cfs_store_stop() - end background work; fn(arg) runs once no device request is left. Callers'
 * requests must have been completed; new ones fail with -ESHUTDOWN.
 */
void cfs_store_stop(struct cfs_store *store, void (*fn)(void *arg), void *arg);
/**
 * cfs_store_close() - release. @clean: only after cfs_store_stop() has finished; writes
 * summaries, so that the next start is quick. Otherwise as if killed: the device must not
 * complete anything afterwards. Journals are closed before.
 */
void cfs_store_close(struct cfs_store *store, bool clean);

struct cfs_store_stat {
	uint8_t cluster[16];
	uint32_t target_id;
	uint64_t total_bytes;		/* usable for object data */
	uint64_t free_bytes;		/* what new objects will get, after reserve */
	/* free, too, but kept back: for the cleaner to work well, and for what must go on when the target is full */
	uint64_t kept_bytes;
	/*
	 * Of a sparse file, else 0: bytes it has not taken yet from the file system below (`below` tells which), and those
	 * free there; no more room is found there for data. free_bytes takes that into account.
	 */
	uint64_t below_missing, below_free, below;
	bool below_lacking;
	uint64_t live_bytes, dead_bytes;
	uint64_t objects;
	uint64_t index_bytes;		/* RAM of the object index */
	uint64_t segments, segments_free;
	/*
	 * Bytes: of objects as callers wrote them; all that went to the device; of that, journals, and what cleaning
	 * moved. Write amplification of the data is (total - journal) / user: see cfs_store_amplification().
	 */
	uint64_t bytes_written_user, bytes_written_total, bytes_written_journal, bytes_moved;
	uint64_t cleaned_segments;
	uint64_t checksum_errors;
	uint64_t open_ns;		/* how long opening took */
	/* what is atomic at a power cut: bytes that one journal write may have for it, 0: none; both copies of a vote */
	uint32_t journal_atomic_bytes;
	uint64_t journal_atomic_records;	/* written so */
	bool vote_atomic;
	/* of a zoned target, else 0 */
	uint64_t zone_bytes, zone_resets;
	uint32_t zones_active, zones_active_max;	/* max 0: no limit */
	uint32_t zones_failed, zones_retired;		/* read-only or offline; of those, empty and given up */
	bool journal_lost;				/* see cfs_journal_lost() */
};

static inline double cfs_store_amplification(const struct cfs_store_stat *s)
{
	return s->bytes_written_user ? (double)(s->bytes_written_total - s->bytes_written_journal) /
					       (double)s->bytes_written_user :
				       0;
}
void cfs_store_stat(struct cfs_store *store, struct cfs_store_stat *ret_stat);

/* ---- objects ---------------------------------------------------------------------------- */
struct cfs_store_write {
	struct cfs_oid oid;
	/* 4096-byte aligned, readable up to the next multiple of 4096 */
	const void *data;
	uint32_t len;
	uint32_t n_crcs;
	const uint32_t *crcs;		/* host order, verified against data before it is written */
	/*
	 * 0: durable (the same oid with the same crcs again counts as 0). -ENOSPC, -EEXIST (other
	 * content), -EBADMSG (crcs do not match data), -EFBIG (see cfs_store_format()), -EIO
	 */
	void (*done)(struct cfs_store_write *w, int err);
	void *user;
	uint64_t priv[24];
};
void cfs_store_write(struct cfs_store *store, struct cfs_store_write *w);

struct cfs_store_read {
	struct cfs_oid oid;
	uint32_t off, len;
	/* -ENOENT no such object, -EBADMSG rot */
	void (*done)(struct cfs_store_read *r, int err);
	void *user;
	/* results: whole crc blocks; data is the store's until cfs_store_read_release() */
	const void *data;
	uint32_t ret_off, ret_len, obj_len, n_crcs;
	const uint32_t *crcs;
	uint64_t priv[24];
};
/* verifies the crcs of what it returns; rot is logged with oid, segment and offset */
void cfs_store_read(struct cfs_store *store, struct cfs_store_read *r);
void cfs_store_read_release(struct cfs_store *store, struct cfs_store_read *r);

struct cfs_store_delete {
	const struct cfs_oid *oids;	/* caller's until done */
	uint32_t n;
	/* 0: durable; absent oids are fine */
	void (*done)(struct cfs_store_delete *d, int err);
	void *user;
	uint64_t priv[16];
};
void cfs_store_delete(struct cfs_store *store, struct cfs_store_delete *d);

/* objects in the order of a cursor that survives changes; returns how many, 0 at the end */
int cfs_store_list(struct cfs_store *store, uint64_t *cursor, struct cfs_oid *oids, uint32_t *lens,
		   uint32_t max);

/* ---- offline check ---------------------------------------------------------------------- */
struct cfs_store_finding {
	bool error;		/* else: worth knowing (a write that a crash cut off) */
	uint32_t segment;	/* UINT32_MAX: superblock, vote slots */
	uint64_t offset;	/* on the device, bytes */
	char text[200];		/* one line */
};
struct cfs_store_checked {
	uint64_t segments, segments_used, records, objects, bytes;
	uint64_t errors, bad_objects;
};
/**
 * cfs_store_check() - verify every header, summary, record and object content of a target that
 * is not open. Reads only. Findings go to report(). Return: 0 also when there were findings (see
 * ret->errors), -errno when it could not check: as cfs_store_open().
 */
int cfs_store_check(struct cfs_dev *dev,
		    void (*report)(void *arg, const struct cfs_store_finding *f), void *arg,
		    struct cfs_store_checked *ret, char *errbuf, size_t errlen);

/* ---- the journal of one Raft group ------------------------------------------------------ */
/*
 * Entries are (index, term, kind, bytes). Appends are batched by the caller: one append is one
 * device write, durable when done. Indexes are contiguous; truncation from an index upwards
 * is itself a record. Space before the snapshot is reused after journal_snapshot().
 */
struct cfs_journal_entry {
	uint64_t index, term;
	uint32_t kind;			/* the caller's (raft_entry_type) */
	uint32_t len;
	const void *data;
};

/* opens or creates the journal of `group` on the store; blocking (start-up) */
int cfs_journal_open(struct cfs_store *store, uint32_t group, struct cfs_journal **ret_j,
		     char *errbuf, size_t errlen);
void cfs_journal_close(struct cfs_journal *j);

/* what survived: entries after the snapshot, in order, to cb (non-zero stops with that value) */
int cfs_journal_load(struct cfs_journal *j,
		     int (*cb)(void *arg, const struct cfs_journal_entry *e), void *arg);
/* term and vote: durable on return (two alternating slots, or one atomic write) */
int cfs_journal_set_vote(struct cfs_journal *j, uint64_t term, uint64_t voted_for);
void cfs_journal_get_vote(struct cfs_journal *j, uint64_t *ret_term, uint64_t *ret_voted_for);

struct cfs_journal_append {
	const struct cfs_journal_entry *entries;	/* caller's until done */
	uint32_t n;
	void (*done)(struct cfs_journal_append *a, int err);
	void *user;
	uint64_t priv[16];
};
/* appends complete in order; -ENOSPC before anything is written when no segment is left */
void cfs_journal_append(struct cfs_journal *j, struct cfs_journal_append *a);
/*
 * cfs_journal_lost() - is a part of the journal in zones that have gone offline? While that is so, a start would be
 * refused. @ret_first, @ret_last: the entries in them, to be written with cfs_journal_again(); 0 and 0: none of
 * those, but a new snapshot is due, or cfs_journal_again() without entries.
 */
bool cfs_journal_lost(const struct cfs_journal *j, uint64_t *ret_first, uint64_t *ret_last);
/* entries that have been appended before, contiguous, as they were; done() as of an append */
void cfs_journal_again(struct cfs_journal *j, struct cfs_journal_append *a);
/* entries >= index are gone, also after a crash once a later append is durable */
int cfs_journal_truncate(struct cfs_journal *j, uint64_t index);

/*
 * Snapshot: `manifest` (<= CFS_MANIFEST_MAX bytes: the caller's, names the checkpoint objects)
 * becomes durable together with (index, term); entries <= index - trailing may be dropped.
 */
struct cfs_journal_snapshot {
	uint64_t index, term;
	const void *manifest;
	uint32_t manifest_len;
	uint32_t trailing;
	void (*done)(struct cfs_journal_snapshot *s, int err);
	void *user;
	uint64_t priv[16];
};
#define CFS_MANIFEST_MAX 65536u
void cfs_journal_snapshot(struct cfs_journal *j, struct cfs_journal_snapshot *s);
/* the last durable one; 0, or -ENOENT. The manifest is borrowed until the next snapshot */
int cfs_journal_last_snapshot(struct cfs_journal *j, uint64_t *ret_index, uint64_t *ret_term,
			      const void **ret_manifest, uint32_t *ret_len);
uint64_t cfs_journal_bytes(struct cfs_journal *j);	/* live, for the replay bound */

#endif
