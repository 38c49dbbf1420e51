/* SPDX-License-Identifier: MIT */
/*
 * client_i.h - private to the client core (client/ without the data path): struct cfs_client and its parts.
 *
 * Who runs: FUSE workers (transport.c), one session thread that owns the callback connection (session.c), a pool of job
 * threads that handle breaks and whatever else may block (jobs.c), notifier threads (notify.c), one lock-wait
 * thread (locks.c), one control thread (control.c), and the threads of the data path. Locks are leaves unless
 * said otherwise: none is held while another of these is taken, or across a request.
 */
#ifndef CFS_CLIENT_I_H
#define CFS_CLIENT_I_H

#include "base/base.h"
#include "base/list.h"
#include "client/data.h"
#include "client/dcache.h"
#include "client/gates.h"
#include "client/leasecheck.h"
#include "client/pass.h"
#include "client/rpc.h"
#include "client/tiers.h"
#include "rpc/codec.h"
#include "rpc/conn.h"

#include <pthread.h>

#define CFS_NODES_MAX		256u		/* servers known by address, ever */
#define CFS_CLIENT_SLOTS	256u
#define CFS_PING_DIV		4u		/* heartbeats in one lease time */
#define CFS_FUSE_OPS_MAX	64u		/* opcodes counted */
#define CFS_RPC_OPS_MAX		128u
#define CFS_KERNEL_PAGES	16384u	/* words of 64 inodes */
#define CFS_ATTR_TOLD	4096u
#define CFS_HINTS		4096u	/* names whose last known inode is remembered, right or wrong */
#define CFS_BUSY_DIRS		1024u		/* counters of inodes that are losing a name, by hash */
#define CFS_SLOTS_HELD		8u		/* for one request of the kernel; with more, the oldest are let go */
#define CFS_BUSY_LATER		8u		/* directories and inodes that one operation changes */

struct fuse_session;
struct cfs_bpf_maps;
struct cfs_observe;
struct cfs_opstat;
struct cfs_metrics;
struct cfs_chan;
struct cfs_jobs;
struct cfs_notify;
struct cfs_locks;
struct cfs_orphans;
struct cfs_persist;
struct cfs_prefetch;
struct cfs_session;
struct cfs_takeover;
struct cfs_transport;
struct cfs_control;
struct cfs_rings;
struct cfs_cmap;

/* ---- threads ------------------------------------------------------------------------- */
struct cfs_slot {
	uint32_t slot;			/* CFS_SLOT_NONE: none */
	uint64_t seq;
	uint64_t gen;			/* of the slot table: one per session */
};

struct cfs_node_conn {
	struct cfs_rpc_conn *conn;
	uint64_t session;		/* said in its HELLO */
	uint64_t gen;			/* cfs_client.conn_gen when it was made */
	uint32_t credits;
};

/* what belongs to one calling thread; found by cfs_thread_self(), freed when the thread ends */
struct cfs_thread {
	struct cfs_list link;		/* cfs_client.threads */
	struct cfs_client *c;
	uint64_t section;		/* atomic: odd while inside a reply section */
	uint64_t making;		/* atomic: odd while a file is being created that will be open */
	uint64_t tag;
	int intr_fd;			/* eventfd: the request being served was interrupted */
	bool intr_watched;
	void *req;			/* fuse_req_t being served, or NULL */
	const void *in;			/* its bytes as they came from the kernel */
	size_t in_len;
	uint64_t took_ns;		/* when it was taken (observe.h); 0: it is counted */
	struct cfs_chan *chan;		/* where its reply goes */
	void *buf;			/* CFS_BODY_MAX bytes for replies, made at first use */
	void *io_buf;			/* CFS_IO_MAX bytes, 4096-aligned, for READ */
	bool answered;			/* the request being served is */
	unsigned n_held;		/* slots that are kept until it is, as it may come again (persist.h) */
	struct cfs_slot held[CFS_SLOTS_HELD];
	unsigned n_busy;		/* cfs_busy_end_later() */
	uint64_t busy[CFS_BUSY_LATER];
	void *ring_buf;			/* the same in the entry of a ring that is being served, or NULL */
	struct cfs_node_conn nodes[CFS_NODES_MAX];
};
#define CFS_IO_MAX (1u << 20)

/* the kernel's request that this thread serves and has not answered yet, as it was first numbered; 0: none */
uint64_t cfs_thread_unique(const struct cfs_thread *t);
/* it is answered, or given up: what was kept for its coming again is not needed any more */
void cfs_thread_answered(struct cfs_thread *t);
/* never fails after start-up: a thread that cannot have its few kilobytes aborts */
struct cfs_thread *cfs_thread_self(struct cfs_client *c);
void *cfs_thread_buf(struct cfs_thread *t);
void *cfs_thread_io_buf(struct cfs_thread *t);
/* free what the calling thread has; at the end of a thread this happens by itself */
void cfs_thread_drop(struct cfs_client *c);

/*
 * Reply sections. A worker that hands the kernel something to keep does the last check and the reply between begin and
 * end; who handles a break notes it and then calls the barrier: after it no reply that did not see the note is still on
 * its way to the kernel. Nothing in a section may block, nor what follows a section that answered: where the answer went back by
 * a ring, the kernel may have given this thread its next request already.
 */
void cfs_reply_begin(struct cfs_client *c);
void cfs_reply_end(struct cfs_client *c);
void cfs_reply_barrier(struct cfs_client *c);

/*
 * Creating a file: the server counts it as open from its reply on, we from a little later. A break that comes in between is
 * answered as if the file were open; settle() waits until every creation that was under way has ended, either way.
 */
void cfs_making_begin(struct cfs_client *c);
void cfs_making_end(struct cfs_client *c);
bool cfs_making(struct cfs_client *c);
void cfs_making_settle(struct cfs_client *c);

/* ---- slots --------------------------------------------------------------------------- */
/* what a slot is taken for, as the process that takes over will want to know */
struct cfs_slot_use {
	uint64_t unique;		/* of the kernel's request; 0: none */
	uint64_t key;
	uint16_t opcode;
	const struct cfs_lock_req *lock; /* LOCK with wait, else NULL */
};

struct cfs_slots {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct cfs_persist *p;		/* NULL: nobody will take over */
	uint64_t gen;
	uint32_t n, n_free;
	/* held by requests of the process that was here before, whose outcome is not known; atomic. Of them: for no FUSE request */
	uint32_t n_inherited, n_inherited_bg;
	uint64_t seq[CFS_SLOTS_MAX];
	uint16_t free[CFS_SLOTS_MAX];
	bool inherited[CFS_SLOTS_MAX];
};
void cfs_slots_init(struct cfs_slots *s);
void cfs_slots_destroy(struct cfs_slots *s);
/* a new session: n fresh slots; slots of the old one become worthless */
void cfs_slots_reset(struct cfs_slots *s, uint32_t n);
/* 0, or -EAGAIN: none became free within wait_ms */
int cfs_slots_get(struct cfs_slots *s, uint32_t wait_ms, const struct cfs_slot_use *use, struct cfs_slot *ret_slot);
/* used: the server has seen its seq (or may have) */
void cfs_slots_put(struct cfs_slots *s, const struct cfs_slot *slot, bool used);
bool cfs_slots_current(struct cfs_slots *s, const struct cfs_slot *slot);
/* a session that another process opened: its slots as they are in s->p */
void cfs_slots_inherit(struct cfs_slots *s);
/* the inherited slot of a request that comes again; its seq too. false: there is none */
bool cfs_slots_claim(struct cfs_slots *s, const struct cfs_slot_use *use, struct cfs_slot *ret_slot);
/* any inherited slot (bg: only of those that were for no FUSE request); *ret_lock: as cfs_pst_slot.lock, wait 0: none */
bool cfs_slots_claim_any(struct cfs_slots *s, bool bg, struct cfs_slot *ret_slot, struct cfs_lock_req *ret_lock);
/* it was: its outcome is known, and what it may have changed is forgotten. Used, and free again */
void cfs_slots_resolved(struct cfs_slots *s, const struct cfs_slot *slot, bool bg);

/* ---- the client ----------------------------------------------------------------------- */
enum cfs_session_state {
	CFS_SESS_OPENING = 0,		/* none: calls wait */
	CFS_SESS_LIVE,
	CFS_SESS_LOST,			/* what it held is being dropped: calls fail with CFS_E_BADSESSION */
	CFS_SESS_CLOSED,		/* the end: calls fail */
};

struct cfs_client_opts {
	const char *const *servers;	/* host:port */
	unsigned n_servers;
	const char *name;		/* of the session, for people */
	bool softerr;
	uint32_t timeo_ms;
	bool no_through;
	bool cache_none;
	bool ro;
	size_t cache_entries;
	bool bpf;			/* BPF programs may answer the kernel */
	uint64_t pass_min, pass_max;	/* bytes of a file that may be passed through; pass_min 0: no matter what was read of it */
};

struct cfs_client_counters {
	uint64_t fuse[CFS_FUSE_OPS_MAX];
	uint64_t rpc[CFS_RPC_OPS_MAX];
	uint64_t dc_lookup, dc_negative, dc_getattr, dc_setattr, dc_xattr;	/* answered without a request */
	uint64_t breaks, break_items, asks, reconnects, retries, parked, sessions_lost, reclaims;
	uint64_t inval_entry, inval_inode, inc_epoch, inval_late, grown;
	uint64_t prefetched_dirs, prefetched_entries;
};
#define cfs_count(c, field) __atomic_add_fetch(&(c)->n.field, 1, __ATOMIC_RELAXED)

/* fuse_pin.c */
#define CFS_PINS_MAX 64u
struct cfs_fh;
struct cfs_fhtab;
struct cfs_gates;
struct cfs_stale_opener {
	uint32_t pid;
	uint64_t since_ns;		/* 0: free */
};
struct cfs_pin {
	uint32_t pid;
	uint64_t since_ns;
	struct cfs_fh *fh;		/* NULL: free */
};

struct cfs_client {
	struct cfs_client_opts o;
	char name[CFS_NAME_MAX + 1];
	char nodes[CFS_NODES_MAX][256];	/* addresses; only ever added to */
	uint32_t n_nodes;		/* atomic */
	uint32_t n_servers;		/* nodes[0 .. n_servers-1] are the options' servers */
	uint32_t leader;		/* atomic: index of the server believed to lead */
	pthread_mutex_t nodes_lock;

	pthread_mutex_t lock;		/* state, and waiting for it */
	pthread_cond_t cond;
	enum cfs_session_state state;	/* atomic */
	uint64_t session;		/* atomic; 0: none */
	uint64_t session_gen;		/* atomic: sessions opened so far */
	uint64_t deadline_ns;		/* atomic, boot time; 0: none */
	uint64_t leader_epoch;		/* atomic */
	uint64_t conn_gen;		/* atomic: raised to make every thread connect anew */
	uint32_t lease_ms;		/* atomic */
	uint64_t features;		/* atomic: CFS_FEAT_* of the leader */
	uint8_t cluster[16];
	bool stopping;			/* atomic */

	struct cfs_persist *persist;	/* NULL: the mount ends with this process */
	struct cfs_takeover *takeover;	/* NULL: this process mounted, and knows all that the kernel was told */
	struct cfs_slots slots;
	uint64_t parked;		/* atomic: requests given up whose outcome is not known: nothing is kept meanwhile */
	uint64_t attr_told[CFS_ATTR_TOLD]; /* atomic, by hash of inode: when the kernel was last given attributes to keep */
	bool no_keeping;		/* atomic: nothing is until the next session */
	uint32_t returning;		/* atomic: LEASE_RETURNs under way: nor now */
	uint64_t oid_seq_own, *oid_seq;	/* atomic; persist's, or our own */
	pthread_rwlock_t map_lock;
	struct cfs_cmap *map;		/* NULL: not known yet */

	pthread_key_t thread_key;
	pthread_mutex_t threads_lock;
	struct cfs_list threads;

	struct cfs_breaks breaks;
	pthread_mutex_t breaks_lock;	/* serialises notes */
	struct cfs_dcache *dcache;
	struct cfs_bpf_gate *gate;	/* atomic members: mutations under way, and until when the kernel may keep what */
	int gate_fd;			/* of the map that it is, or -1 */
	struct cfs_accel *accel;	/* atomic; NULL: the BPF maps are not filled */
	struct cfs_prefetch *prefetch;	/* atomic; NULL: directories are not fetched whole */
	uint64_t kernel_pages[CFS_KERNEL_PAGES]; /* atomic bits, by hash of inode: it was given pages, ever */
	struct {
		uint64_t key, ino;
	} hints[CFS_HINTS];		/* each word atomic; a pair that does not fit is harmless */
	uint32_t victims[CFS_BUSY_DIRS];	/* atomic: by hash of inodes that are just losing a name */

	struct cfs_session *sess;
	struct cfs_jobs *jobs;
	struct cfs_notify *notify;
	struct cfs_locks *locks;
	struct cfs_orphans *orphans;
	struct cfs_inodes *inodes;
	struct fuse_session *se;	/* NULL without a mount (tests) */
	struct cfs_transport *transport;
	struct cfs_control *control;
	struct cfs_bpf_maps *bpf_maps;	/* NULL: bpf_why says why; under lock, set while the mount answers */
	char bpf_why[160];
	struct cfs_observe *observe;	/* atomic; NULL before the mount answers, and in tests */
	struct cfs_opstat *opstat;
	struct cfs_metrics *metrics;
	struct cfs_tiers tiers;
	struct cfs_pass_stats pass;
	struct cfs_gates_stats gate_stats;
	struct cfs_gates *gates;	/* atomic; NULL: no module, or the tier is off */
	struct cfs_rings *rings;	/* the uring tier, NULL when it is not on */
	pthread_mutex_t pins_lock;
	bool any_stale;			/* atomic */
	struct cfs_stale_opener stale[CFS_PINS_MAX];
	struct cfs_pin pins[CFS_PINS_MAX];
	pthread_mutex_t fhs_lock;
	struct cfs_list fhs;		/* every open file and directory */
	struct cfs_fhtab *fhtab;	/* those that the kernel has */
	uint32_t breaks_pending;	/* atomic */
	uint32_t making;		/* atomic: creations under way */
	bool data_started;		/* atomic; read by cfs_has_data() */
	bool setxattr_ext;		/* the kernel sends setxattr_flags */
	bool end_done;			/* atomic: the end is over */
	bool fuse_agreed;		/* INIT was taken and its answer is on its way: of the thread that serves it */
	bool fuse_ready;		/* INIT was answered; under lock */

	/* how the FUSE layer tells rpc.c of interrupts; NULL without a mount */
	void (*req_watch)(struct cfs_thread *t);
	void (*req_unwatch)(struct cfs_thread *t);
	bool (*req_interrupted)(struct cfs_thread *t);

	pthread_mutex_t statfs_lock;
	struct cfs_statfs_rep statfs;
	uint64_t statfs_ns;		/* 0: never asked */
	struct cfs_client_counters n;
};

/* is the data path there? Not yet while the first session is being opened, and not any more at the end */
static inline bool cfs_has_data(const struct cfs_client *c)
{
	return __atomic_load_n(&c->data_started, __ATOMIC_ACQUIRE);
}

/* client.c */
int cfs_client_create(const struct cfs_client_opts *o, struct cfs_client **ret_c);
/* connects, opens the session, starts session thread and pool. err: one line on failure */
int cfs_client_start(struct cfs_client *c, char *err, size_t errlen);
/* no more calls come: closes the session, joins threads. The data path must be stopped before */
void cfs_client_stop(struct cfs_client *c);
void cfs_client_destroy(struct cfs_client *c);
/* index of the node with this address, added if new; -ENOSPC */
int cfs_client_node(struct cfs_client *c, const char *addr);

static inline enum cfs_session_state cfs_client_state(struct cfs_client *c)
{
	return __atomic_load_n(&c->state, __ATOMIC_ACQUIRE);
}

/* will the tier be started, or is it used? For what is negotiated with the kernel */
static inline bool cfs_tier_ready(struct cfs_client *c, enum cfs_tier_id id)
{
	return __atomic_load_n(&c->tiers.t[id].state, __ATOMIC_ACQUIRE) >= CFS_TIER_READY;
}

/* is the tier used just now? */
static inline bool cfs_tier_on(struct cfs_client *c, enum cfs_tier_id id)
{
	return __atomic_load_n(&c->tiers.t[id].state, __ATOMIC_ACQUIRE) == CFS_TIER_ON;
}

/* may valid bits be kept at all just now? */
static inline bool cfs_client_caching(struct cfs_client *c)
{
	return !c->o.cache_none && !__atomic_load_n(&c->parked, __ATOMIC_SEQ_CST) &&
	       !__atomic_load_n(&c->slots.n_inherited, __ATOMIC_SEQ_CST) &&
	       !__atomic_load_n(&c->no_keeping, __ATOMIC_SEQ_CST) && !__atomic_load_n(&c->returning, __ATOMIC_SEQ_CST);
}

/* note a break or a change of our own; see leasecheck.h */
uint64_t cfs_client_note(struct cfs_client *c, uint32_t flags, uint64_t dir, uint64_t ino, const char *name, size_t len);

/*
 * Mutations under way in a directory, or of an inode: the kernel holds its lock (notify.h), and BPF programs answer nothing
 * about it (accel.h). _later: it ends when the operation of this thread is answered, with what changed kept or dropped.
 */
void cfs_busy_begin(struct cfs_client *c, uint64_t dir);
void cfs_busy_end(struct cfs_client *c, uint64_t dir);
void cfs_busy_end_later(struct cfs_client *c, uint64_t dir);
void cfs_busy_end_now(struct cfs_thread *t);
bool cfs_busy(struct cfs_client *c, uint64_t dir);

/*
 * UNLINK and RENAME tell the server whether the victim is open here. So that an open does not slip in between: they
 * mark the victim first and then look; who opens counts himself first, and then waits while the inode is marked.
 */
void cfs_victim_begin(struct cfs_client *c, uint64_t ino);
/* which inode a name had when it was last seen, valid or not; 0: not known */
void cfs_hint_put(struct cfs_client *c, uint64_t dir, const char *name, size_t len, uint64_t ino);
uint64_t cfs_hint_get(struct cfs_client *c, uint64_t dir, const char *name, size_t len);
void cfs_victim_end(struct cfs_client *c, uint64_t ino);
void cfs_victim_wait(struct cfs_client *c, uint64_t ino);

/* ---- rpc.c, rpc_targets.c ----------------------------------------------------------------- */
/* like cfs_call(), but what a lost session did not carry out is repeated under the new one */
int cfs_call_again(struct cfs_client *c, struct cfs_call *call);
/* one request with a slot that is already ours (resolving what was given up) */
int cfs_call_slot(struct cfs_client *c, struct cfs_call *call, const struct cfs_slot *slot);
/* wait; true if the request being served was interrupted. Afterwards, before the request is answered: cfs_unwatch() */
bool cfs_pause_ms(struct cfs_client *c, struct cfs_thread *t, uint32_t ms);
void cfs_unwatch(struct cfs_client *c, struct cfs_thread *t);
/* the thread's connection to a node, with HELLO said for `session`; 0, CFS_E_*, or -errno */
int cfs_node_conn(struct cfs_client *c, struct cfs_thread *t, uint32_t node, uint64_t session,
		  struct cfs_node_conn **ret_nc);
void cfs_node_conn_close(struct cfs_node_conn *nc);
void cfs_client_next_leader(struct cfs_client *c, uint32_t failed);
/* fetch the cluster map if it is newer than what we have. 0 or as cfs_call() */
int cfs_client_map_refresh(struct cfs_client *c);
void cfs_client_map_free(struct cfs_client *c);
uint64_t cfs_client_map_epoch(struct cfs_client *c);	/* 0: none yet */
/*
 * LEASE_RETURN is about to be sent: from now on nothing is kept, as it may stand under a lease that ends before we hear of it.
 * And: it was answered, or nobody knows: forget what stood under those leases.
 */
void cfs_client_leases_returning(struct cfs_client *c, const struct cfs_call *call);
void cfs_client_leases_returned(struct cfs_client *c, const struct cfs_call *call);
/* COMMIT was answered: sizes and times changed at the server */
void cfs_client_committed(struct cfs_client *c, const struct cfs_call *call);

/* ---- session.c, breaks.c, jobs.c ------------------------------------------------------------ */
int cfs_session_start(struct cfs_client *c, char *err, size_t errlen);
void cfs_session_stop(struct cfs_client *c);
/* somebody was told CFS_E_BADSESSION for this session */
void cfs_session_report_lost(struct cfs_client *c, uint64_t session);
/* wake the session thread: look at connections, epoch, answers */
void cfs_session_kick(struct cfs_client *c);
/* what is done now and then has ended when this returns, and does not come again: the data path is about to end */
void cfs_session_rest(struct cfs_client *c);
/* wait until the session is live and its deadline ahead. 0, -EINTR, -ETIMEDOUT, -ESHUTDOWN */
int cfs_session_wait_live(struct cfs_client *c);
/* an answer to a callback; from any thread. Dropped when the connection it came by is gone */
void cfs_session_answer(struct cfs_client *c, uint64_t conn_gen, const struct cfs_msg_hdr *req, uint32_t status,
			const void *body, uint32_t len);

/* handle a CB_BREAK or CB_ASK; body is copied. May start jobs; answers by cfs_session_answer() */
void cfs_breaks_message(struct cfs_client *c, uint64_t conn_gen, const struct cfs_msg_hdr *hdr, const void *body,
			uint32_t len);
/* callbacks that are not answered yet */
bool cfs_breaks_pending(struct cfs_client *c);
/* a directory's lease has ended: forget all of it, here and in the kernel */
void cfs_breaks_drop_dir(struct cfs_client *c, uint64_t dir);
/* everything is void: names, attributes, and (lost) all file data */
void cfs_breaks_drop_all(struct cfs_client *c, bool lost);

/* let go of what was opened for processes that did not come (fuse_pin.c) */
void cfs_pins_expire(struct cfs_client *c);
void cfs_pins_drop(struct cfs_client *c);

/* orphans.c: we said that an inode which loses its last name is open here */
int cfs_orphans_create(struct cfs_client *c, struct cfs_orphans **ret_o);
void cfs_orphans_destroy(struct cfs_orphans *o);
void cfs_orphan_watch(struct cfs_client *c, uint64_t ino);
/* the last close of a file that the process before opened: has it lost its names? Asks the server */
void cfs_orphan_inherited(struct cfs_client *c, uint64_t ino);
/*
 * An orphan is not held here any more (fuse_ops.c): what was written is saved for other sessions that hold it, unless none
 * can (discard); the server is told; the lease ends. Under cfs_victim_begin().
 */
void cfs_op_release_orphan(struct cfs_client *c, uint64_t ino, bool discard);

int cfs_jobs_create(struct cfs_client *c, struct cfs_jobs **ret_jobs);
/* run fn(arg) on a pool thread; -EBUSY when too many wait */
int cfs_jobs_submit(struct cfs_jobs *j, void (*fn)(struct cfs_client *c, void *arg), void *arg);
/* runs what is queued, joins */
void cfs_jobs_destroy(struct cfs_jobs *j);

/* helpers for attributes and names */
static inline uint64_t cfs_attr_ino(const struct cfs_attr *a)
{
	return cfs_le64_to_cpu(a->ino);
}

/* the lease that governs an inode's attributes */
static inline uint64_t cfs_attr_governor(const struct cfs_attr *a)
{
	return a->parent ? cfs_le64_to_cpu(a->parent) : cfs_le64_to_cpu(a->ino);
}

#endif
