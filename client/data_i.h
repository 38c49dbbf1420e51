/* SPDX-License-Identifier: MIT */
/*
 * data_i.h - private to client/data*.c.
 *
 * Locks, outermost first: cfs_data.lock (one inode; two are never held at once); list_lock (dirty list, throttle)
 * or inval_lock; a hash shard's lock (references). commit_lock and buf_lock are leaves. Requests, notifications
 * and lock-free reads of cache files happen without any of them; what has changed meanwhile is told by counters:
 * break_seq (a break came), content_seq (what the server has changed), lost_seq (dirty data was given up).
 */
#ifndef CFS_CLIENT_DATA_I_H
#define CFS_CLIENT_DATA_I_H

#include "base/list.h"
#include "client/cachefile.h"
#include "client/data.h"
#include "client/extcache.h"
#include "client/rangeset.h"
#include "client/rpc.h"

#include <pthread.h>

#define CFS_DATA_SHARDS		64u
#define CFS_DATA_INODES_MAX	262144u		/* cfs_data_params.inodes, at most */
#define CFS_DATA_DIRTY_RANGES	4096u		/* of one inode: its writer flushes */
#define CFS_DATA_VALID_RANGES	16384u		/* of one inode: clean ones are dropped */
#define CFS_DATA_EXTENTS_ASK	256u		/* in one OPEN or EXTENTS */
#define CFS_DATA_REPLICAS_MAX	8u
#define CFS_DATA_FLUSHERS	2u
#define CFS_DATA_INVAL_MIN	2u		/* threads that notify the kernel */
#define CFS_DATA_INVAL_MAX	64u
#define CFS_DATA_BUFS		20u		/* write-back buffers of CFS_OBJECT_MAX */
#define CFS_DATA_OPEN_REP_MAX	(sizeof(struct cfs_open_rep) + CFS_INLINE_MAX + \
				 CFS_DATA_EXTENTS_ASK * sizeof(struct cfs_extent))

struct cfs_data_shard {
	pthread_mutex_t lock;
	struct cfs_data **buckets;
	uint32_t n_buckets, n;		/* power of two */
};

struct cfs_data_ctx {
	struct cfs_client *c;
	struct cfs_data_params p;
	struct cfs_cachestore store;
	uint64_t page_bytes;		/* of the kernel */
	uint64_t inherited_ms;		/* when it was taken over, if it was */
	struct cfs_data_shard shards[CFS_DATA_SHARDS];
	uint64_t n_inodes;		/* atomic */
	uint64_t cached_bytes;		/* atomic: valid bytes of all inodes */
	uint64_t dirty_bytes;		/* atomic: dirty, and being written back */
	int last_error;			/* atomic: of the last write-back, 0 when it worked */

	pthread_mutex_t list_lock;
	struct cfs_list dirty_list;	/* by the time they became dirty */
	unsigned n_dirty;
	bool stop, kick;
	pthread_cond_t flush_cond;	/* the flushers wait */
	pthread_cond_t throttle_cond;	/* writers wait for dirty_bytes to fall */
	pthread_t flushers[CFS_DATA_FLUSHERS];
	unsigned n_flushers;

	pthread_mutex_t inval_lock;
	pthread_cond_t inval_cond;
	struct cfs_list inval_now, inval_later;	/* struct cfs_data_inval; struct cfs_data */
	pthread_t inval_threads[CFS_DATA_INVAL_MAX];
	unsigned n_inval, n_inval_idle, n_inval_queued;
	bool inval_stop;

	pthread_mutex_t commit_lock;
	pthread_cond_t commit_cond;
	struct cfs_list commit_list;
	unsigned n_commits;		/* requests on their way */

	pthread_mutex_t buf_lock;
	pthread_cond_t buf_cond;
	void *bufs[CFS_DATA_BUFS];	/* free ones */
	unsigned n_bufs, n_bufs_made;

	uint32_t evict_shard;		/* atomic: clock hand */
	pthread_mutex_t evict_lock;	/* one evictor at a time */
	struct cfs_data_stat stat;	/* counters, atomic */
};

struct cfs_data {
	struct cfs_data_ctx *g;
	uint64_t ino;
	/* under the shard's lock */
	struct cfs_data *hash_next;
	unsigned refs;
	/* under list_lock */
	struct cfs_list dirty_link;
	uint64_t due_ms;		/* 0: at once, and no reason for others to come along */
	bool on_dirty_list, backing_off;
	/* under inval_lock */
	struct cfs_list inval_link;
	bool inval_queued, inval_running;
	struct cfs_rangeset inval_set;	/* later */

	pthread_mutex_t lock;
	pthread_cond_t cond;		/* anything below changed */
	uint8_t lease;			/* enum cfs_lease_mode */
	bool opening;			/* an OPEN is on its way */
	bool recalling;			/* a break, or our own LEASE_RETURN, is under way */
	bool lowering;			/* it has begun to take the lease away: no gate is opened any more */
	bool filling;			/* a lease was had for a gate, what is missing is being fetched */
	bool truncating;		/* a SETATTR of the size is on its way */
	bool flushing;			/* a write-back has a snapshot */
	bool suspect;			/* kernel pages outlive the lease until the blocked writes are through */
	bool inherited;			/* the kernel may have pages and attributes under a lease that we do not know of */
	bool gone;			/* no such inode any more: nothing to flush to */
	bool drop_later;		/* lost while a flush or read uses the cache file: it goes when they end */
	bool kept;			/* closed without a lease: the server is still to be told */
	bool used;			/* atomic: touched since the clock hand came by */
	bool through_inline, through_empty; /* what the server said last: bytes are in the inode; there are none */
	bool streaming;			/* at the head of the dirty list because of cfs_data_is_stream() */
	uint32_t break_seq, content_seq, lost_seq;
	unsigned n_open;
	unsigned n_io;			/* cache reads without the lock */
	unsigned n_replying;
	/* data_through.c */
	uint64_t through_ms;		/* contended: written through until then; 0: not */
	unsigned n_through;		/* COMMITs without a lease on their way */
	unsigned writers_blocked;	/* writes that wait without EXCL, holding page locks in this range: */
	uint32_t blocked_seq;
	uint64_t blocked_off, blocked_end;
	/* data_order.c: writes that have come and are not applied; what reads brought into the kernel meanwhile, or lately */
	unsigned n_writing;
	uint64_t writing_off, writing_end;
	unsigned n_overtaking;		/* reads that wait for those, holding locks of pages in this range: */
	uint64_t overtaking_off, overtaking_end;
	uint64_t dropped_ms;		/* when we last made the kernel drop pages; 0: never */
	uint64_t tail_read_ms;		/* when the last page was last read */
	struct cfs_rangeset reread, dropping;	/* ... and of that, what is being dropped */
	unsigned n_dropping;
	uint32_t recall_round;
	unsigned lost_grants;		/* in a row, to breaks that came before the reply */
	uint64_t used_ms;
	/* content; means something while lease != NONE */
	uint64_t size, srv_size;	/* ours; what the server has for sure (beyond it: zeros), <= size */
	uint64_t alloc;			/* bytes the server holds, as far as known */
	uint64_t flight_bytes;		/* being written back */
	struct cfs_time mtime, ctime;
	bool times_known;		/* mtime, ctime are newer than what others have */
	bool meta_dirty;		/* size or times are to be committed */
	bool kill_priv;			/* a write here has ended suid, sgid and capabilities */
	bool kill_pending;		/* which is to be committed */
	bool inline_srv;		/* the server has the content inside the inode */
	struct cfs_rangeset valid, dirty, served;
	struct cfs_extcache ext;
	struct cfs_cachefile cf;
	struct cfs_pass *pass;		/* set once, before others see the inode */
	struct cfs_data_gate *gate;	/* data_gate.c: the kernel reads and writes the cache file by this; NULL: not */
	uint64_t heat;			/* bytes that were read and written by requests since the content came */
	/* errors of write-back */
	int err, err_now;		/* lost data, to be reported err_reports times; what fails at the moment */
	unsigned err_reports;
	uint32_t retry_ms;
};

#define stat_add(g, field, v) __atomic_add_fetch(&(g)->stat.field, (v), __ATOMIC_RELAXED)

/* data.c */
struct cfs_data_ctx *cfs_data_ctx_of(struct cfs_client *c);
void cfs_data_ref(struct cfs_data *d);
/* up to max inodes of a shard from a position on, each with a reference; *pos starts at 0; 0: the end */
unsigned cfs_data_walk(struct cfs_data_ctx *g, unsigned shard, uint32_t *pos, struct cfs_data **ret, unsigned max);
uint64_t cfs_data_now_ms(void);
struct cfs_time cfs_data_time(void);
int cfs_data_errno(int rc);		/* what a cfs_call returned, as a negative errno */
void cfs_data_cond_init(pthread_cond_t *cond);
/* false: timed out */
bool cfs_data_cond_wait_ms(pthread_cond_t *cond, pthread_mutex_t *lock, uint32_t ms);
void cfs_data_use(struct cfs_data *d);
/* d->lock held: ranges with the counters that go with them */
void cfs_data_valid_add(struct cfs_data *d, uint64_t off, uint64_t end);
void cfs_data_valid_del(struct cfs_data *d, uint64_t off, uint64_t end);
void cfs_data_dirty_add(struct cfs_data *d, uint64_t off, uint64_t end);
void cfs_data_dirty_del(struct cfs_data *d, uint64_t off, uint64_t end);
static inline bool cfs_data_is_dirty(const struct cfs_data *d)
{
	return d->dirty.n || d->meta_dirty;
}

/* data_lease.c; d->lock held */
void cfs_data_set_lease(struct cfs_data *d, unsigned mode);
/*
 * Have at least `mode`. [off, end): the bytes it is for. 0; CFS_DATA_UNLEASED: `rep` is a correct answer from some instant during the
 * call, but nothing may be kept (only for SHARED with rep given); CFS_DATA_CONTENDED: write through, if that was offered; or -errno.
 */
#define CFS_DATA_UNLEASED 1
#define CFS_DATA_CONTENDED 2
#define CFS_WANT_IO	1u	/* for a read or write, whose pages the kernel has locked */
#define CFS_WANT_THROUGH 2u	/* EXCL: or write through */
struct cfs_data_open_buf {
	struct cfs_open_rep rep;
	const unsigned char *inl;
	const struct cfs_extent *ext;
	uint32_t inline_len, n_ext;
	unsigned char raw[CFS_DATA_OPEN_REP_MAX];
};
int cfs_data_want(struct cfs_data *d, unsigned mode, uint64_t off, uint64_t end, unsigned how,
		  struct cfs_data_open_buf *rep);
/*
 * May the kernel hold the lock of a page for this WRITE until it is answered? Only of its last one, if it does not cover that; and pages that
 * are written back.
 */
static inline bool cfs_data_holds_page(const struct cfs_data *d, uint64_t off, uint64_t end, unsigned how)
{
	uint64_t last = cfs_align_down(end - 1, d->g->page_bytes);

	return how & CFS_DATA_MAPPED || (!(how & CFS_DATA_DIRECT) && (off > last || end < last + d->g->page_bytes));
}
/* a write that holds locks of these pages waits without the exclusive lease: a recall goes around them */
void cfs_data_blocked_begin(struct cfs_data *d, uint64_t off, uint64_t end);
void cfs_data_blocked_end(struct cfs_data *d);
/* what the server has at pos (extents or inline data) is asked for and installed; 0: look again; or -errno */
int cfs_data_learn(struct cfs_data *d, uint64_t pos);
/* forget all content; no flush or lock-free read is under way */
void cfs_data_drop_content(struct cfs_data *d);
/* lease, content and unsaved data go at once; err: what the next fsync is to report if something was unsaved, 0: nothing */
void cfs_data_lose(struct cfs_data *d, int err);
/* bytes from the server into those parts of [off, end) that are not cached */
int cfs_data_fill(struct cfs_data *d, uint64_t off, uint64_t end, const void *buf);
/* after n_io or flushing went down */
void cfs_data_io_end(struct cfs_data *d);
/* clean ranges go */
void cfs_data_drop_clean(struct cfs_data *d);

/* data_break.c; d->lock held, which is dropped meanwhile: SHARED -> NONE by ourselves, as if it was recalled. Not recalling */
void cfs_data_give_up_shared(struct cfs_data *d);

/*
 * data_gate.c; d->lock held. While a gate is open the lease is held, in the same mode or a higher one, and is not being lowered, no truncation is under
 * way, and all of [0, size) is valid, in a cache file that ends there. So whoever is about to take any of that away shuts it first; it is
 * opened again when somebody waits for it.
 */
struct cfs_data_gate;
/* nothing gets through any more; what was written is dirty now, and d->size and the times say so */
void cfs_data_gate_shut(struct cfs_data *d);
/* the same, but it stays open; nothing to do unless it lets writes through */
void cfs_data_gate_take(struct cfs_data *d);
bool cfs_data_gate_is_open(const struct cfs_data *d);
/* no open file is left */
void cfs_data_gate_free(struct cfs_data *d);
/* data_read.c: have all of [0, size) in the cache. 0; -EAGAIN: something came in between; or -errno. Drops the lock */
int cfs_data_complete(struct cfs_data *d);

/* data_through.c; d->lock held */
/* is the file to be written through? Not while it is held exclusively all the same */
bool cfs_data_contended(const struct cfs_data *d);
/* what OPEN or COMMIT said */
void cfs_data_told_contended(struct cfs_data *d, bool contended, const struct cfs_attr *attr);
/*
 * One write, at most CFS_OBJECT_MAX bytes; off: of the kernel's pages, too. 0: it is in the file, at *ret_off; CFS_DATA_UNLEASED: only with
 * the exclusive lease, not asked for with CFS_WANT_THROUGH, or it is held already; or -errno. Drops the lock
 */
int cfs_data_through(struct cfs_data *d, const void *buf, uint64_t size, uint64_t off, unsigned how, uint64_t *ret_off);

/* data_inval.c: kernel pages are dropped by threads of their own */
int cfs_data_inval_start(struct cfs_data_ctx *g);
void cfs_data_inval_stop(struct cfs_data_ctx *g);
/* on this thread, which must not hold d->lock, nor be one that a READ or WRITE waits for */
void cfs_data_inval_now(struct cfs_data *d, uint64_t off, uint64_t end);
/* some time soon; nobody waits */
void cfs_data_inval_later(struct cfs_data *d, uint64_t off, uint64_t end);
struct cfs_data_inval {
	struct cfs_list link;
	struct cfs_data *d;
	uint64_t off, end;
	bool done;			/* d->lock; d->cond is signalled */
	uint8_t refs;			/* d->lock: the waiter and the thread */
};
/* to be waited for with d->lock held, until done; then, or when nobody cares any more, put. NULL: no memory */
struct cfs_data_inval *cfs_data_inval_post(struct cfs_data *d, uint64_t off, uint64_t end);
void cfs_data_inval_put(struct cfs_data_inval *iv);
/* for how many ms more, as things are now, would the caller wait? 0: no longer */
typedef uint32_t cfs_data_patience(const struct cfs_data *d, const void *arg);
#define CFS_DATA_FOR_EVER UINT32_MAX
/* post and wait, d->lock held; patience() is asked whenever d->cond is signalled. True: it is done; false: it will be, on its own */
bool cfs_data_inval_wait(struct cfs_data *d, uint64_t off, uint64_t end, cfs_data_patience *patience, const void *arg);

/* data_fetch.c: objects -> memory */
struct cfs_data_fetch {
	struct cfs_ext ext;
	uint32_t obj_off, len;		/* wanted */
	void *dst;
	/* out: when dst could not take whole checksum blocks, they are here; free() it */
	unsigned char *bounce;
	uint32_t blk_off, blk_len;
	int rc;
};
#define CFS_DATA_FETCH_MAX 16u
/* all at once; f[i].rc: 0, -ESTALE no copy has it (the extent may be old), -EIO */
void cfs_data_fetch(struct cfs_data_ctx *g, uint64_t ino, struct cfs_data_fetch *f, unsigned n);

/* data_write.c */
void cfs_data_mark_dirty(struct cfs_data *d);		/* onto the dirty list; d->lock held */
void cfs_data_kick(struct cfs_data_ctx *g);
#define CFS_DATA_STREAM_MIN	(16ull << 20)
/* lock held: written in sequence, and enough for some whole objects: its write-back need not wait for flush_ms */
bool cfs_data_is_stream(const struct cfs_data *d);

/* data_order.c: reads and writes of one page of the kernel's */
/* around the kernel's dropping of pages; they take d->lock */
void cfs_data_drop_begin(struct cfs_data *d, uint64_t off, uint64_t end);
void cfs_data_drop_end(struct cfs_data *d);
/* d->lock held, which may be dropped meanwhile */
void cfs_data_read_begin(struct cfs_data *d, uint64_t off, uint64_t end);
void cfs_data_write_begin(struct cfs_data *d, uint64_t off, uint64_t end);
/* [off, end) was written (nothing if it failed), and is about to be answered */
void cfs_data_write_end(struct cfs_data *d, uint64_t off, uint64_t end, bool append);

/* data_flush.c */
/*
 * All that was written before the call is durable and committed: 0, or -errno. for_break: does not wait for a truncation,
 * which waits for the break. Takes d->lock
 */
int cfs_data_flush_inode(struct cfs_data *d, bool for_break);
#define CFS_DATA_FLUSH_MANY	256u
/* several inodes with as few requests as possible; those that are busy are left out */
void cfs_data_flush_many(struct cfs_data_ctx *g, struct cfs_data **v, unsigned n);

/* data_commit.c: COMMIT requests, those of several threads together */
struct cfs_data_commit {
	uint64_t ino, size;
	struct cfs_time mtime;
	uint32_t flags;
	const void *inl;
	uint32_t inline_len;
	const struct cfs_extent *ext;
	uint32_t n_ext;			/* <= CFS_DATA_COMMIT_EXTENTS */
	/* out */
	int rc;				/* 0 or -errno */
	struct cfs_attr attr;
	uint64_t off;			/* where an append landed */
	bool contended;			/* CFS_CR_CONTENDED */
	bool may_refuse;		/* in: EINVAL or EMSGSIZE is no news */
	/* private */
	struct cfs_list link;
	const void *who;		/* asked for it */
	bool done;
	bool busy;			/* others may see the change before we do: what BPF maps say does not count */
};
#define CFS_DATA_COMMIT_EXTENTS	4096u
void cfs_data_commit(struct cfs_data_ctx *g, struct cfs_data_commit **v, unsigned n);
/* in a request of its own, which is sent once: what must not be committed twice */
void cfs_data_commit_alone(struct cfs_data_ctx *g, struct cfs_data_commit *ci);

/* data_job.c: one inode's part in a write-back */
struct cfs_data_job {
	struct cfs_data *d;
	uint32_t lost_seq;
	struct cfs_rangeset flight;	/* taken from d->dirty, not yet committed */
	uint64_t size;			/* at the time of the snapshot, as the times and */
	struct cfs_time mtime;
	bool kill;
	bool stream;			/* what is long does not stay in the cache */
	uint64_t taken;			/* bytes, from the dirty ones */
	bool inl;			/* the whole content travels in the COMMIT: */
	unsigned char *inl_buf;
	uint64_t pos;			/* flight is in objects up to here */
	uint64_t bytes;			/* in objects, not committed */
	struct cfs_extent *ext;		/* what is in objects and not committed */
	bool maybe_committed;		/* the last COMMIT of it has an outcome that we do not know */
	uint32_t n_ext, cap_ext;
	bool finished;			/* all is committed, or it failed */
	int rc;
	struct cfs_data_commit ci;
};
/* d->lock held, not flushing. stream: what does not fill an object at the end stays dirty. False: nothing to do, or *ret_rc */
bool cfs_data_job_take(struct cfs_data *d, bool stream, struct cfs_data_job *j, int *ret_rc);
/* if all of it is in objects, take what a stream has written just behind it since, so that the way is never empty. True: there is more now */
bool cfs_data_job_extend(struct cfs_data_job *j);
/* the bytes of [off, off+len), which are in flight */
int cfs_data_job_read(struct cfs_data_job *j, void *buf, uint32_t len, uint64_t off);
/* fill j->ci with what is ready; last: nothing is left after it */
void cfs_data_job_commit(struct cfs_data_job *j, bool last);
/* j->ci was answered: what was in it is clean now, or j->rc is set */
void cfs_data_job_committed(struct cfs_data_job *j);
/* give the inode back; what is still in flight is dirty again */
void cfs_data_job_end(struct cfs_data_job *j);

/* data_objects.c: bytes -> objects */
struct cfs_data_objects;
struct cfs_data_objects *cfs_data_objects_new(struct cfs_data_ctx *g);
void cfs_data_objects_free(struct cfs_data_objects *o);
/* as much of the job as fits into this round, and is good for one COMMIT; false: the round is full */
bool cfs_data_objects_add(struct cfs_data_objects *o, struct cfs_data_job *j);
/* write them to all their targets; jobs get extents or rc. Then the next round */
void cfs_data_objects_write(struct cfs_data_objects *o);
/* one object from memory, to all its targets; the extent lacks file_off. 0 or -errno */
int cfs_data_object_put(struct cfs_data_ctx *g, uint64_t ino, const void *buf, uint32_t len, struct cfs_extent *ret_ext);
/* take back an object that was written and will not be committed */
void cfs_data_objects_drop(struct cfs_data_ctx *g, const struct cfs_oid *oid);

/* data_flusher.c */
int cfs_data_flusher_start(struct cfs_data_ctx *g);
void cfs_data_flusher_stop(struct cfs_data_ctx *g);
/* give back clean bytes until no more than the limits are held; also inodes beyond p.inodes */
void cfs_data_evict(struct cfs_data_ctx *g, uint64_t cached_goal, uint64_t mem_goal);

#endif
