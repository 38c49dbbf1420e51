/* SPDX-License-Identifier: MIT */
/* journal_i.h - shared by journal.c (the calls), jwrite.c, jmove.c, jlost.c and jload.c. */
#ifndef CFS_SERVER_STORE_JOURNAL_I_H
#define CFS_SERVER_STORE_JOURNAL_I_H

#include "server/store/store_i.h"

#define CFS_JFLIGHT	16u		/* records in flight */
#define CFS_JMOVES	3u		/* failed writes in a row that are survived */
#define CFS_JREC_MAX	(4u << 20)	/* bytes of one record, header included */

struct cfs_jseg {
	uint32_t seg;
	uint32_t pad;
	uint64_t first_index, last_index;	/* lowest and highest entry that was ever written to it; none: UINT64_MAX, 0 */
	/* its zone is offline: what it had is being written again; has been */
	bool again_asked, again_done;
};

struct cfs_jrec {		/* a record in flight */
	struct cfs_list node;
	struct cfs_dev_req req;
	struct iovec iov;
	struct cfs_journal *j;
	struct cfs_disk_rec *hdr;	/* in the ring; iov may begin with the segment's header */
	uint64_t seq;
	uint32_t ring_bytes;	/* to give back, skipped end included */
	bool done;
	bool refused;		/* the write found no room below: it is sent again */
	struct cfs_jreq *completes;	/* the request whose last record this is */
	uint32_t seg;
	uint64_t resnap;	/* the snapshot of that index once more, see jlost.c; else 0 */
};

enum cfs_jkind { CFS_JK_APPEND, CFS_JK_SNAPSHOT, CFS_JK_AGAIN };

struct cfs_jreq {		/* in the priv of an append or snapshot */
	struct cfs_list node;	/* in queue; or deferred */
	struct cfs_defer defer;
	struct cfs_journal *j;
	uint64_t trunc;		/* 0, or: entries from here on go first */
	uint64_t prev_last;	/* j->last_index before this request */
	uint32_t pos;		/* entries written */
	int err;
	uint8_t kind;
	bool begun;		/* something of it has been written */
	bool refused;		/* never queued */
	bool resnap;		/* AGAIN: begins with the snapshot */
} __attribute__((may_alias));

struct cfs_jmark { uint64_t seq; uint32_t seg, block; };	/* a record, for loading */

struct cfs_journal {
	struct cfs_list node;
	struct cfs_store *st;
	uint32_t group, slot;

	struct cfs_jseg *segs;	/* oldest first */
	uint32_t n_segs, cap_segs;
	uint32_t head;		/* next block in the last of them */
	uint64_t next_seq, durable_seq, last_index, trunc;
	uint64_t bytes, bytes_at_snap;
	bool failed, marked, closing;
	uint32_t before_gap;	/* segments that come before a part of the stream which an offline zone took with it */

	/* after a failed write: see jmove.c */
	bool broken;		/* nothing more is sent until all that was sent has ended */
	bool moving;
	uint32_t outstanding;	/* writes under way */
	uint32_t n_moves;	/* since the last success */
	uint64_t move_index;	/* no entry that is moved is higher */
	struct cfs_jrec *unplaced;
	struct cfs_seg_io move_hdr;
	uint64_t full_warned_ns;
	struct cfs_timer retry;	/* for records that found no room below */

	struct cfs_list queue;	/* of cfs_jreq */
	struct cfs_list flight;	/* of cfs_jrec, in order */
	struct cfs_list rec_free;
	struct cfs_jrec rec[CFS_JFLIGHT];
	uint8_t *ring;
	uint32_t ring_size, ring_head, ring_used, rec_max;

	bool have_snap, snap_busy;
	uint64_t snap_index, snap_term, keep_from;
	uint32_t snap_len, snap_next_len, snap_seg, snap_next_seg;
	uint8_t *manifest, *manifest_next;	/* CFS_MANIFEST_MAX each */

	bool releasing;
	struct cfs_seg_io hdr;

	/* what was found at start, until loaded or first written to */
	struct cfs_jmark *marks;
	uint64_t n_marks, cap_marks;
	uint64_t *owner;	/* owner[i]: stream seq that last wrote entry base + i; 0: it is lost */
	uint64_t load_from;	/* entries before it are of no use */
	uint64_t base, n_owner, cap_owner;
};

void cfs_journal_pump(struct cfs_journal *j);
void cfs_jreq_finish_later(struct cfs_jreq *r, int err);
int cfs_journal_recover(struct cfs_journal *j, char *errbuf, size_t errlen);
uint32_t cfs_journal_rec_max(const struct cfs_store *st);	/* bytes of a record */
void cfs_journal_forget_found(struct cfs_journal *j);
/* the next segment, whose first record will be `first_seq` */
int cfs_journal_take_segment(struct cfs_journal *j, enum cfs_alloc who, uint64_t first_seq);
/* rec->iov goes to `block` of rec->seg */
void cfs_journal_send(struct cfs_journal *j, struct cfs_jrec *rec, uint32_t block, uint32_t flags);
/* timer: records that found no room are sent once more */
void cfs_journal_retry(struct cfs_timer *timer);
void cfs_journal_complete(struct cfs_journal *j);	/* what has ended, in order */
void cfs_journal_move(struct cfs_journal *j);
void cfs_journal_again_ended(struct cfs_journal *j, int err);
int cfs_jseg_add(struct cfs_journal *j, uint32_t seg);

#endif
