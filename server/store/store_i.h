/* SPDX-License-Identifier: MIT */
/*
 * store_i.h - what the files of a store share. One thread owns a store and everything here.
 *
 *   super.c    format, superblock, vote slots; root.c  the log of superblocks of a zoned target
 *   zone.c     segments that are zones: order of writes, active ones, failures
 *   below.c    room for segments in the file system below a sparse target
 *   seg.c      segment table: space, headers, accounting; deferred calls, device requests
 *   store.c    opening, stopping, closing, statistics; recover.c  what is on the device
 *   scan.c     reading records at start-up
 *   data.c     open data segments, batches, shared flushes
 *   write.c read.c delete.c   the object calls
 *   clean.c    the cleaner
 *   pool.c     zero-filling of journal segments
 *   journal.c  a journal: the calls; jwrite.c  its records; jmove.c  failed writes; jlost.c  zones that go
 *              offline; jload.c  reading it back
 *   check.c    offline check
 *   index.c    oid -> place; codec.c  encodings
 */
#ifndef CFS_SERVER_STORE_STORE_I_H
#define CFS_SERVER_STORE_STORE_I_H

#include "base/list.h"
#include "server/store/codec.h"
#include "server/store/index.h"
#include "server/store/store.h"

#define BLK			CFS_DISK_BLOCK
#define CFS_OSEGS		8u		/* open and sealing data segments */
/* (header, data) pairs of one device write: 62 of 64 iovecs */
#define CFS_BATCH_OBJECTS	31u
#define CFS_BATCH_BYTES		(8u << 20)	/* gathered into one device write */
#define CFS_WBATCHES		4u		/* object writes in flight on the device */
#define CFS_TOMB_BYTES		(256u << 10)	/* one tombstone record */
#define CFS_COPY_ITEMS		64u		/* records the cleaner moves at a time */
#define CFS_COPY_BYTES		(CFS_OBJECT_MAX + (64u << 10))
#define CFS_POOL_MAX		4u		/* journal segments kept for reuse */
#define CFS_FILL_STEP		(1u << 20)	/* zero-filled at a time */
#define CFS_SCAN_BYTES		(CFS_OBJECT_MAX + (1u << 20))	/* window of start-up reads */

/* call fn on the store's thread, soon, not inside the present call */
struct cfs_defer {
	struct cfs_list node;
	void (*fn)(struct cfs_defer *d);
};

/* ---- segments --------------------------------------------------------------------------- */
enum cfs_seg_state {
	CFS_SS_FREE,
	CFS_SS_BUSY,		/* changing hands: a header write or a zero-fill is under way */
	CFS_SS_OPEN,		/* data, written to or being sealed */
	CFS_SS_SEALED,
	CFS_SS_JOURNAL,
	CFS_SS_POOL,
	/* both copies of the header are damaged: left alone, nothing is known of it */
	CFS_SS_BAD,
};
#define CFS_SF_FILLED	1u	/* written end to end: CFS_SEGF_FILLED */
#define CFS_SF_DUP	2u	/* holds older copies of moved objects: cleaned before any other */
#define CFS_SF_MOVE	4u	/* has no summary on the device, or is failing: cleaned at once, too */
#define CFS_SF_ACTIVE	8u	/* zones: counts as active */
#define CFS_SF_RAGGED	32u	/* zones: a cut left part of a block at the end */
#define CFS_SF_LOST	64u	/* zones: offline, and not named in `retired`: a journal may have been there */
#define CFS_SF_DEALT	128u	/* zones: dead, and what could be done about it was done */
#define CFS_SF_BACKED	256u	/* sparse targets: the file system below has found room for all of it */
#define CFS_SF_DEAD	16u	/* zones: cannot be written or reset, for ever */

/* where tombstones live that name records of a segment */
struct cfs_seg_home {
	uint32_t seg, count;
	uint64_t seq;		/* incarnation of seg */
};

struct cfs_seg {
	uint64_t seq, salt;
	uint64_t first_seq;	/* journal */
	uint32_t owner;
	uint32_t live, used;	/* blocks of live objects; of all records but header and summary */
	uint32_t tombs;		/* tombstones in it that still matter */
	uint32_t sum_block, sum_blocks;	/* of a sealed one; 0: has no summary */
	uint32_t readers;	/* reads under way: it is not freed before they end */
	uint32_t after;		/* zones: 1 + the one that must be finished before this one is written to; 0: none */
	uint32_t end;		/* zones: blocks that have been written; else all */
	uint64_t sealed_at;	/* st->n_sealed then: its age */
	uint32_t n_ents;
	struct cfs_disk_ent *ents;	/* instead of a summary that could not be written */
	/* live blocks when the cleaner met damage; it waits until some are gone */
	uint32_t rot_live;
	uint8_t state;
	uint16_t flags;		/* CFS_SF_* */
	uint16_t n_homes, cap_homes;
	struct cfs_seg_home *homes;
};

/* an asynchronous write of a segment header, both copies */
struct cfs_seg_io {
	struct cfs_dev_req req;
	struct iovec iov;
	void *buf;		/* CFS_DISK_SEG_HDR_BLOCKS blocks */
	struct cfs_store *st;
	uint32_t seg;
	void (*done)(struct cfs_seg_io *io, int err);
};

/*
 * Who asks for a segment: some free ones must stay for the more urgent. A snapshot gives journal
 * segments back, a deletion and then cleaning give back data segments: they come after everybody
 * else.
 */
enum cfs_alloc {
	CFS_ALLOC_FILL,
	CFS_ALLOC_USER,
	CFS_ALLOC_JOURNAL,
	CFS_ALLOC_TOMB,
	CFS_ALLOC_SNAPSHOT,
	CFS_ALLOC_CLEAN
};
#define CFS_RESERVE_MIN	5u	/* segments */
#define CFS_SPARE_PART	14u	/* one in so many bytes is not offered to users */

/* ---- open data segments ----------------------------------------------------------------- */
/*
 * What is written together dies together: new objects, those that have outlived one cleaning, those that have
 * outlived more. Where few zones can be active, the last two share one.
 */
enum cfs_oseg_class { CFS_OS_USER, CFS_OS_CLEAN, CFS_OS_COLD, CFS_OS_CLASSES };
enum cfs_oseg_state { CFS_OSS_UNUSED, CFS_OSS_OPENING, CFS_OSS_READY, CFS_OSS_SEALING };

struct cfs_oseg {
	struct cfs_store *st;
	uint32_t seg;
	uint8_t state, cls;
	bool want_seal;
	uint32_t head;		/* next block */
	uint32_t hole;		/* first block of a failed write: the watermark stops there */
	uint32_t staged;	/* summary entries of batches in flight */
	struct cfs_list flight;	/* batches in the order of their blocks */
	struct cfs_disk_ent *ents;
	uint32_t n_ents, cap_ents;
	struct cfs_seg_io hdr;
	/* sealing */
	struct cfs_dev_req seal_req[2];
	struct iovec seal_iov[2];
	void *sum;		/* summary record */
	void *foot;		/* one block */
	uint32_t sealing, sum_blocks;
	int seal_err;
};

/* one device write into an open data segment */
struct cfs_batch {
	struct cfs_dev_req req;
	struct iovec iov[CFS_DEV_IOV_MAX];
	uint32_t iovcnt;
	struct cfs_store *st;
	struct cfs_oseg *os;
	struct cfs_list flight;	/* in os->flight until durable or failed */
	struct cfs_list wait;	/* for a flush */
	uint32_t block, blocks;	/* in the segment */
	uint32_t n_ents;
	void (*landed)(struct cfs_batch *b, int err);	/* durable, or failed */
};

struct cfs_wbatch {
	struct cfs_batch b;
	struct cfs_list node;	/* free list */
	uint8_t *hdrs;		/* CFS_BATCH_OBJECTS blocks */
	struct cfs_store_write *w[CFS_BATCH_OBJECTS];
	uint32_t n;
};

/* ---- reading ---------------------------------------------------------------------------- */
struct cfs_rbuf;
struct cfs_rjob {		/* one read of an object, or of its header alone */
	struct cfs_list node;
	struct cfs_defer defer;
	struct cfs_store *st;
	struct cfs_rbuf *rb;
	struct cfs_oid oid;
	struct cfs_loc loc;
	/* wanted bytes, widened to crc blocks at start; equal: header only */
	uint32_t off, end;
	int err;
	void (*done)(struct cfs_rjob *job, int err);
};
struct cfs_rclass {
	uint32_t size, max, n;	/* bytes of data in a buffer, how many may exist, how many do */
	struct cfs_list free;	/* of cfs_rbuf */
	struct cfs_list queue;	/* of cfs_rjob */
};
#define CFS_RCLASSES	3u

/* ---- cleaner, pool ---------------------------------------------------------------------- */
struct cfs_copy {
	struct cfs_dev_req req;
	struct iovec iov;
	struct cfs_store *st;
	const struct cfs_disk_ent *ent;
	uint32_t at, blocks;	/* in the copy buffer */
	bool skip;
};

enum cfs_clean_state {
	CFS_CL_IDLE,
	CFS_CL_SUMMARY,
	CFS_CL_COPY,
	CFS_CL_WRITE,
	CFS_CL_TOMBS,
	CFS_CL_READERS,
	CFS_CL_FREE,
	CFS_CL_DISCARD
};

struct cfs_cleaner {
	struct cfs_timer timer;
	uint8_t state;
	enum cfs_oseg_class cls;	/* where the batch goes */
	bool copying;		/* a batch is between looking at the index and switching it */
	bool rot;		/* the victim has a damaged live object */
	bool stuck;		/* no segment to move things to */
	bool retry;		/* no space or slot just now: try the same step again */
	uint32_t victim;
	void *sum;		/* its summary record */
	struct cfs_disk_ent *ents;
	uint32_t n_ents, pos;
	uint8_t *buf;		/* CFS_COPY_BYTES */
	struct cfs_copy item[CFS_COPY_ITEMS];
	uint32_t n_items, reading, buf_used;
	struct cfs_dev_req req;
	struct iovec iov;
	struct cfs_batch batch;
	struct cfs_seg_io hdr;
	uint64_t last_bytes;	/* moved in the last step, for the throttle */
};

struct cfs_pool {
	struct cfs_timer timer;
	bool busy;
	uint32_t seg, block;
	struct cfs_dev_req req;
	struct iovec iov[16];
	void *zeros;		/* 64 KiB */
	struct cfs_seg_io hdr;
};

/* a sparse target's hold on the file system below it: see below.c */
struct cfs_below {
	bool on;		/* the device is sparse, and its file system can reserve */
	bool known;		/* dev->room is */
	bool head;		/* the superblocks and votes are backed */
	bool refused;		/* the last attempt found no room; none is made before the timer */
	bool lacking;		/* what is wanted cannot be had just now */
	bool busy, looking;
	uint32_t n_backed;	/* free segments that are */
	uint32_t ahead;		/* so many are to be, beyond the reserve */
	uint32_t seg;		/* for which room is looked for; UINT32_MAX: for the head */
	bool was_free;
	bool kicking;
	uint64_t warned_ns;
	struct cfs_defer defer;
	struct cfs_dev_req req, room_req;
	struct cfs_timer timer;
};

struct cfs_tomber {
	struct cfs_list queue;	/* of cfs_store_delete */
	bool busy;
	struct cfs_batch batch;
	void *buf;		/* CFS_TOMB_BYTES */
	uint32_t n;		/* entries staged in buf */
};

#define CFS_WHASH	64u

/* where superblocks are written: two fixed places, or logs in the first zones */
struct cfs_root_side {
	uint32_t first, n;	/* its zones */
	uint32_t zone;		/* the one that is written to */
	uint32_t newest;	/* the one with its newest superblock; UINT32_MAX: there is none */
	uint64_t wp;		/* bytes in `zone`; UINT64_MAX: no room */
	bool failing;		/* the last superblock could not be written */
};
struct cfs_root {
	struct cfs_dev *dev;
	uint32_t n_sides;	/* 0: not zoned */
	struct cfs_root_side side[2];
};

/* an object that the last start found not whole, above every watermark: cut off by a crash, or damaged */
struct cfs_cut {
	struct cfs_oid oid;
	uint64_t offset;	/* on the device, bytes */
	uint32_t seg;
};
#define CFS_CUT_MAX	1024u	/* more than can be under way at a time */

struct cfs_zq;

struct cfs_store {
	struct cfs_dev *dev;
	struct cfs_clock *clock;
	struct cfs_disk_super sb;	/* as last written */
	struct cfs_root root;
	bool zoned;
	uint64_t seg_base, seg_stride;	/* bytes: the first segment, from one to the next */
	struct cfs_zq *zq;
	uint32_t n_active, max_active;	/* zones */
	bool few_zones;		/* can be active: only one class of what the cleaner moves */
	uint64_t zone_resets, zones_failed;
	bool running;		/* open: zones that fail are dealt with at once */
	bool root_seen_failing;	/* a zone of the superblocks that was written to has failed */
	struct cfs_timer watch;	/* looks at some zones, from watch_next on */
	uint32_t watch_next;
	struct cfs_dev_req watch_req;
	struct iovec watch_iov;
	void (*lost)(void *arg);	/* see cfs_store_params */
	bool (*room_coming)(void *arg);
	void *arg;		/* of both */
	bool lost_pending;
	struct cfs_defer lost_defer;
	uint32_t seg_bytes, seg_blocks, n_segs;
	uint32_t obj_max;	/* bytes */
	uint64_t format_id, epoch;

	struct cfs_seg *segs;
	uint64_t n_sealed;	/* segments, since the store was opened */
	uint32_t n_free, n_pool, n_journal, reserve, alloc_hint, n_dup;
	uint64_t next_seg_seq, next_rec_seq;
	uint64_t reclaim;	/* blocks that cleaning can give back: see seg_reclaim() */
	uint64_t live, used;	/* blocks, over all data segments */
	struct cfs_index *index;

	struct cfs_oseg osegs[CFS_OSEGS];
	struct cfs_oseg *open[CFS_OS_CLASSES];
	struct cfs_list wbatch_free;
	struct cfs_wbatch wbatches[CFS_WBATCHES];
	struct cfs_list flush_wait, flush_now;
	struct cfs_dev_req flush_req;
	bool flush_busy;
	bool failed;		/* a flush failed: nothing can be promised any more */

	struct cfs_list wq;	/* writes waiting for a batch */
	struct cfs_list whash[CFS_WHASH];	/* all writes under way, by oid */
	uint32_t w_inflight;
	bool want_space;	/* writes wait for the cleaner */
	struct cfs_patience no_room;	/* they wait for deletions */
	struct cfs_timer room_timer;
	bool pumping, pump_again;
	struct cfs_rclass rclass[CFS_RCLASSES];
	struct cfs_tomber tomber;
	struct cfs_cleaner cleaner;
	struct cfs_pool pool;
	struct cfs_below below;

	struct cfs_list journals;
	uint32_t n_journals;
	uint32_t vote_group[CFS_DISK_VOTE_GROUPS];
	bool vote_used[CFS_DISK_VOTE_GROUPS];
	struct cfs_disk_vote votes[CFS_DISK_VOTE_GROUPS];

	struct cfs_list later;	/* of cfs_defer */
	struct cfs_timer later_timer;
	uint64_t inflight;	/* device requests */
	bool stopping;
	void (*stopped)(void *arg);
	void *stopped_arg;
	struct cfs_dev_req open_flush;
	bool was_clean;		/* closed in order the last time */
	bool settled;		/* what recovery found has been flushed: the cleaner may run */

	struct cfs_cut *cut;
	uint32_t n_cut;

	uint64_t bytes_journal, bytes_moved, atomic_records;
	uint64_t bytes_user, bytes_total, cleaned, checksum_errors, open_ns;
};

static inline uint64_t cfs_seg_off(const struct cfs_store *st, uint32_t seg, uint32_t block)
{
	return st->seg_base + seg * st->seg_stride + (uint64_t)block * BLK;
}

static inline struct cfs_seg_id cfs_seg_ident(const struct cfs_store *st, uint32_t seg)
{
	return (struct cfs_seg_id){ st->segs[seg].seq, st->segs[seg].salt, st->seg_blocks };
}

static inline uint32_t cfs_obj_blocks(uint32_t len)
{
	return 1 + cfs_blocks_of(len);
}

static inline uint32_t cfs_sum_blocks(uint32_t n_ents)
{
	return cfs_blocks_of(sizeof(struct cfs_disk_rec) +
			     (uint64_t)n_ents * sizeof(struct cfs_disk_ent));
}

static inline bool cfs_seg_is_data(const struct cfs_seg *s)
{
	return s->state == CFS_SS_OPEN || s->state == CFS_SS_SEALED;
}

/* is it known what it holds, so that it can be cleaned? */
static inline bool cfs_seg_listed(const struct cfs_seg *s)
{
	return s->sum_block || s->ents;
}

/* the cleaner met damage, and leaves the segment alone until more of it has been deleted */
static inline bool cfs_seg_kept(const struct cfs_seg *s)
{
	return s->rot_live && s->live >= s->rot_live;
}

void *cfs_aligned_alloc(size_t bytes);	/* 4096-aligned, zeroed; free() it */
void *cfs_aligned_raw(size_t bytes);	/* the same, not zeroed */

/* super.c */
uint32_t cfs_obj_max_of(uint32_t seg_bytes);
/* the newest valid superblock of a device; errbuf says why not */
int cfs_super_load(struct cfs_root *root, struct cfs_dev *dev, struct cfs_disk_super *ret_sb,
		   char *errbuf, size_t errlen);
/* next seq, the other slot, or the next place in the log */
int cfs_super_write(struct cfs_root *root, struct cfs_disk_super *sb);
/* what a superblock says of places */
void cfs_store_geometry(struct cfs_store *st);
/* are both copies of a vote one atomic write? */
bool cfs_vote_is_atomic(const struct cfs_store *st);
int cfs_vote_slot(struct cfs_store *st, uint32_t group);	/* or -ENOSPC */
int cfs_vote_set(struct cfs_store *st, uint32_t slot, uint64_t term, uint64_t voted_for);
int cfs_votes_load(struct cfs_store *st, bool repair, char *errbuf, size_t errlen);

/* root.c */
/* errbuf: untouched where the error says enough */
int cfs_root_load(struct cfs_root *root, struct cfs_dev *dev, struct cfs_disk_super *ret_sb, char *errbuf,
		  size_t errlen);
bool cfs_root_can_mirror(const struct cfs_dev_info *info);
void cfs_root_mirror(struct cfs_root *root);
int cfs_root_tidy(struct cfs_root *root);
int cfs_root_write(struct cfs_root *root, const struct cfs_disk_super *sb);
int cfs_root_create(struct cfs_root *root, struct cfs_dev *dev);

/* zone.c */
/* the log of superblocks, a journal, two data segments, and one that ends while another begins */
#define CFS_ZONES_ACTIVE_MIN	5u
uint32_t cfs_zone_limit(const struct cfs_dev_info *info);
int cfs_zones_reset_all(struct cfs_dev *dev, uint32_t n);
int cfs_zones_init(struct cfs_store *st);
void cfs_zones_exit(struct cfs_store *st);
int cfs_zones_load(struct cfs_store *st);
int cfs_zone_pad(struct cfs_store *st, uint32_t seg);
int cfs_zone_sync(struct cfs_store *st, uint32_t seg, enum cfs_dev_op op);
int cfs_zones_start(struct cfs_store *st);
void cfs_zones_stop(struct cfs_store *st);
/* journals are known to have lost nothing in them: offline zones are nothing to wonder at any more */
void cfs_zones_explain(struct cfs_store *st);
/* the first offline zone that is not named in `retired`, as a number of the device's; UINT32_MAX: there is none */
uint32_t cfs_zones_lost(const struct cfs_store *st);
bool cfs_zone_retire(struct cfs_store *st, uint32_t seg);
void cfs_zone_submit(struct cfs_store *st, struct cfs_dev_req *req);
void cfs_zone_finish(struct cfs_store *st, uint32_t seg);
/* `seg` goes on where `prev` ends, which is finished first */
void cfs_zone_follow(struct cfs_store *st, uint32_t seg, uint32_t prev);

/* below.c */
void cfs_below_init(struct cfs_store *st);
/* at start-up, blocking: what is backed already; then begin to look for the rest */
void cfs_below_start(struct cfs_store *st);
void cfs_below_exit(struct cfs_store *st);
/* a segment has been taken or freed */
void cfs_below_kick(struct cfs_store *st);
/* free segments that can be had, as far as is known */
uint32_t cfs_below_free(const struct cfs_store *st);
/* room for one more free segment is being looked for: cfs_store_kick() will follow */
bool cfs_below_pending(const struct cfs_store *st, enum cfs_alloc who);
/* is a segment that is being freed to keep its room? */
bool cfs_below_wants(const struct cfs_store *st, const struct cfs_seg *s);
/* a write found no room below, against what was expected */
void cfs_below_refused(struct cfs_store *st);

/* seg.c */
void cfs_store_later(struct cfs_store *st, struct cfs_defer *d);
/* done() comes later, whatever happens */
void cfs_store_submit(struct cfs_store *st, struct cfs_dev_req *req);
void cfs_store_submitted(struct cfs_store *st);		/* first thing in each done() */
/* space, a slot or a segment has become available */
void cfs_store_kick(struct cfs_store *st);
void cfs_store_later_run(struct cfs_timer *timer);
int cfs_seg_alloc(struct cfs_store *st, enum cfs_alloc who, uint32_t *ret_seg);
uint32_t cfs_seg_available(const struct cfs_store *st, enum cfs_alloc who);
void cfs_seg_release(struct cfs_store *st, uint32_t seg);	/* memory side of freeing */
/* its first write has failed */
void cfs_seg_spoilt(struct cfs_store *st, uint32_t seg, int err);
void cfs_seg_hdr_fill(struct cfs_store *st, uint32_t seg, enum cfs_seg_type type, void *buf);
void cfs_seg_hdr_write(struct cfs_store *st, struct cfs_seg_io *io, uint32_t seg,
		       enum cfs_seg_type type, void (*done)(struct cfs_seg_io *io, int err));
int cfs_seg_hdr_write_sync(struct cfs_store *st, uint32_t seg, enum cfs_seg_type type);
void cfs_seg_live(struct cfs_store *st, uint32_t seg, int64_t blocks);
void cfs_seg_keep(struct cfs_store *st, uint32_t seg, bool for_good);
/* the segment's summary stays in memory, and is freed with it; takes ents */
void cfs_seg_set_ents(struct cfs_store *st, uint32_t seg, struct cfs_disk_ent *ents, uint32_t n);
void cfs_seg_sealed(struct cfs_store *st, uint32_t seg, uint32_t used, uint32_t sum_block,
		    uint32_t sum_blocks);
uint32_t cfs_seg_dead(const struct cfs_store *st, const struct cfs_seg *s);
/* does the tombstone still matter? */
bool cfs_tomb_needed(const struct cfs_store *st, const struct cfs_disk_ent *ent);
/* a tombstone has become durable in segment `home` */
void cfs_tomb_add(struct cfs_store *st, uint32_t home, const struct cfs_disk_ent *ent);
/* the index entry goes, and its space is dead */
void cfs_object_forget(struct cfs_store *st, const struct cfs_oid *oid, const struct cfs_loc *loc);

/* data.c */
int cfs_oseg_get(struct cfs_store *st, enum cfs_oseg_class cls, enum cfs_alloc who, uint32_t blocks,
		 uint32_t ents, struct cfs_oseg **ret_os);
bool cfs_oseg_room(const struct cfs_store *st, const struct cfs_oseg *os, uint32_t blocks,
		   uint32_t ents);
int cfs_oseg_reserve_ents(struct cfs_oseg *os, uint32_t n);
void cfs_oseg_add_ent(struct cfs_oseg *os, const struct cfs_disk_ent *ent);
uint64_t cfs_oseg_durable(const struct cfs_oseg *os);
void cfs_batch_submit(struct cfs_batch *b, bool alone);
int cfs_oseg_init(struct cfs_store *st, struct cfs_oseg *os, uint32_t seg, enum cfs_oseg_class cls);
void cfs_oseg_drop(struct cfs_oseg *os);
/* nothing more is written to the open segment of a class */
void cfs_oseg_end(struct cfs_store *st, enum cfs_oseg_class cls);
/* blocking: summary and footer at os->head; sealed or to be continued */
int cfs_oseg_write_summary_sync(struct cfs_store *st, struct cfs_oseg *os, bool sealed);

/* recover.c */
int cfs_store_recover(struct cfs_store *st, char *errbuf, size_t errlen);

/* write.c read.c delete.c */
int cfs_write_init(struct cfs_store *st);
void cfs_write_exit(struct cfs_store *st);
void cfs_write_pump(struct cfs_store *st);
int cfs_read_init(struct cfs_store *st);
void cfs_read_exit(struct cfs_store *st);
void cfs_rjob_start(struct cfs_rjob *job);
const struct cfs_disk_rec *cfs_rjob_header(const struct cfs_rjob *job);
void cfs_rjob_release(struct cfs_rjob *job);
/* NULL: it was not cut off */
const struct cfs_cut *cfs_cut_find(const struct cfs_store *st, const struct cfs_oid *oid);
/* it is written again, or deleted */
void cfs_cut_forget(struct cfs_store *st, const struct cfs_oid *oid);
void cfs_rot_report(struct cfs_store *st, const struct cfs_oid *oid, const struct cfs_loc *loc,
		    int crc_block);
int cfs_delete_init(struct cfs_store *st);
void cfs_delete_exit(struct cfs_store *st);
void cfs_delete_pump(struct cfs_store *st);

/* clean.c pool.c */
int cfs_clean_init(struct cfs_store *st);
void cfs_clean_exit(struct cfs_store *st);
void cfs_clean_kick(struct cfs_store *st);
bool cfs_clean_can_gain(const struct cfs_store *st);
int cfs_pool_init(struct cfs_store *st);
void cfs_pool_exit(struct cfs_store *st);
/* have a journal segment ready, in the background */
void cfs_pool_want(struct cfs_store *st);

/* jload.c: -EUCLEAN and a line if entries of a group's journal are missing. Reads only */
int cfs_journal_inspect(struct cfs_store *st, uint32_t group, char *errbuf, size_t errlen);

/* jwrite.c */
void cfs_journal_pump_all(struct cfs_store *st);

/* scan.c */
struct cfs_scan {		/* a window onto a segment, for blocking reads */
	struct cfs_dev *dev;
	uint64_t base;		/* of the segment on the device */
	uint32_t seg_blocks;
	uint32_t end;		/* blocks behind it have never been written */
	uint32_t at, n;		/* blocks in the window */
	uint8_t *buf;		/* CFS_SCAN_BYTES */
	int err;		/* of the last read */
};
int cfs_scan_init(struct cfs_scan *sc, struct cfs_dev *dev);
void cfs_scan_exit(struct cfs_scan *sc);
void cfs_scan_segment(struct cfs_scan *sc, const struct cfs_store *st, uint32_t seg);
/* `blocks` blocks from `block` on; NULL: cannot be read (sc->err). Valid until the next call */
const void *cfs_scan_get(struct cfs_scan *sc, uint32_t block, uint32_t blocks);

struct cfs_scan_rec {
	uint32_t block, blocks;
	uint8_t type;		/* enum cfs_rec_type; 0: no record begins in these blocks, or its header is beyond mending */
	bool ok;		/* content matches its crcs */
	bool rotten;		/* its header does not: bits have flipped, no crash leaves that */
	bool mended;		/* rotten, and what it said is known again: see cfs_scan_rec() */
	int err;		/* type 0: they cannot be read */
};
struct cfs_scan_list {
	struct cfs_scan_rec *rec;
	uint32_t n, cap;
	uint64_t durable;	/* highest watermark */
};
/*
 * Every record of a data segment from `from` on, and what lies between them. Records follow each other without a gap up
 * to the highest watermark, but where an earlier recovery cut something off, which the summary behind it covers.
 * 0, -ENOMEM
 */
int cfs_scan_data(struct cfs_scan *sc, const struct cfs_seg_id *id, uint32_t from,
		  struct cfs_scan_list *list);
/* the first `blocks` blocks of a record that was found, with its header as it should be. As cfs_scan_get() */
const struct cfs_disk_rec *cfs_scan_rec(struct cfs_scan *sc, const struct cfs_seg_id *id, const struct cfs_scan_rec *r,
					uint32_t blocks);
/* the summary at a block; ents are allocated. 0; -ENOENT there is no valid one; -ENOMEM */
int cfs_scan_summary_at(struct cfs_scan *sc, const struct cfs_seg_id *id, uint32_t at, struct cfs_disk_ent **ret_ents,
			uint32_t *ret_n, uint32_t *ret_blocks);
/* the footer has rotted. Not of zones, where nobody knows where it was */
bool cfs_scan_foot_rotten(struct cfs_scan *sc, const struct cfs_seg_id *id, uint32_t segment);
/* footer, if there is a valid one, and its summary; ents are allocated. 0; -ENOENT there is no valid one; -ENOMEM */
int cfs_scan_summary(struct cfs_scan *sc, const struct cfs_seg_id *id, uint32_t segment, bool zoned,
		     struct cfs_disk_foot *ret_foot, struct cfs_disk_ent **ret_ents,
		     uint32_t *ret_n, uint32_t *ret_sum_blocks);
bool cfs_ent_ok(const struct cfs_disk_ent *ent, uint32_t n_segs, uint32_t seg_blocks,
		uint32_t segment);

#endif
