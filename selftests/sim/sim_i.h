/* SPDX-License-Identifier: MIT */
/*
 * sim_i.h - what the simulator's files share.
 *
 *   main.c    options, TAP, seeds one after the other
 *   world.c   servers, faults, the course of one seed, what must hold at its end
 *   client.c  a protocol client as a step machine: connections, session, heartbeats, recalls
 *   work.c    what clients do: requests made by dice, replies compared with the witness
 *   data.c    file contents: reading, writing under exclusive leases, flushing
 *   witness.c the order of things: every log entry as it is applied, against a model that knows POSIX, and histories
 *
 * One world at a time (struct simworld *W), one thread. Sizes are fixed: more than fits ends the seed with an error.
 */
#ifndef CFS_SELFTESTS_SIM_I_H
#define CFS_SELFTESTS_SIM_I_H

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "base/rng.h"
#include "client/leasecheck.h"
#include "rpc/codec.h"
#include "selftests/lib/shard_world.h"
#include "server/cluster/node_i.h"
#include "server/store/journal_i.h"
#include "sim/sim.h"

#define MS		CFS_NSEC_PER_MSEC
#define LEASE_MS	2000u
#define NODES_MAX	5u
#define CLIENTS_MAX	5u
#define THREADS		5u		/* of a client: slots 0 .. THREADS - 1 */
#define FLUSHERS	2u		/* and those that only answer recalls */
#define SLOTS		(THREADS + FLUSHERS)
#define CONNS		3u		/* two workers, one callback */
#define CALLBACK	2u
#define NAMES		6u		/* n0 .. n5 in each directory */
#define INOS_MAX	16384u
#define FILE_MAX	24576u		/* bytes of one file's content */
#define CACHE		512u		/* entries of each of a client's caches */
#define BREAKS		128u		/* recalls that a client owes an answer */
#define CELLS		4u		/* lockable parts of a file, of 8 bytes */

/* ---- histories (witness.c) ------------------------------------------------------------------------------ */
struct ver {
	uint64_t t, v[4];
};
struct hist {
	struct ver *ver;
	unsigned n, cap;
};
void hist_add(struct hist *h, uint64_t t, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
/* was there a moment in [from, to] at which the values under `mask` were these? */
bool hist_match(const struct hist *h, uint64_t from, uint64_t to, unsigned mask, const uint64_t v[4]);
char *hist_text(const struct hist *h, uint64_t from, uint64_t to);	/* for people; static */

/* ---- the model (witness.c) ------------------------------------------------------------------------------- */
struct lock {
	uint64_t session, owner;
	unsigned kind;
	struct lock *next;
};

struct inode {
	bool born, exists;
	uint64_t ino, size, parent, dotdot, change;
	uint32_t mode, nlink;
	uint8_t *data;			/* committed content: FILE_MAX bytes, zeros beyond size */
	uint64_t ents[NAMES];		/* of a directory: 0 absent */
	unsigned n_ents;
	uint64_t holders[CLIENTS_MAX * 4];	/* sessions that keep it as an orphan */
	unsigned n_holders;
	struct lock *locks[CELLS];
	struct hist attr;		/* nlink, mode, parent, change; all 0: not there */
	struct hist bytes;		/* size, hash: as the holder of the exclusive lease sees it */
	struct hist names[NAMES];	/* inode number */
	struct hist list;		/* of a directory: hash over its entries */
	unsigned dirty;			/* 1 + the client that has newer bytes than the log; 0: nobody */
};

struct record {
	uint64_t seq, t;
	uint32_t status;
	uint16_t op;
	uint32_t len;
	uint8_t rep[320];		/* beginning of the reply */
};

struct slot_hist {			/* what became of each seq of a slot */
	struct record *rec;
	unsigned n, cap;
};

struct session {
	uint64_t id;
	bool open;
	uint8_t nonce[16];
	struct slot_hist slots[SLOTS];
};

struct object {				/* as it was written; never freed before the end */
	struct cfs_oid oid;
	uint32_t len;
	uint8_t *bytes;
	bool rotten, committed;
	/* so that it may be missing: in a zone that is gone; or a start named it as not whole, which counts until the next one */
	bool lost, cut;
};

struct entry {				/* a log entry that was applied */
	uint64_t index, hash, reply_hash, t;
};

/* ---- clients ------------------------------------------------------------------------------------------------ */
struct client_s;

struct link {
	struct client_s *c;
	struct cfs_conn *conn;
	unsigned i;
	bool ready;
	uint64_t hello_ns, retry_ns, epoch;
};

struct req {
	bool busy, sent, mutates, bad;	/* bad: its slot is used up, the answer of no interest */
	uint16_t op;
	unsigned via;			/* link it went by */
	uint64_t tag, seq, gen, inv_ns, sent_ns, again_ns;	/* inv: world's time */
	uint32_t len;
	uint8_t body[6144] __attribute__((aligned(8)));
	const uint8_t *payload;
	uint32_t payload_len;
};

enum job { JOB_NONE, JOB_READ_META, JOB_MUTATE, JOB_READ, JOB_WRITE, JOB_FLUSH, JOB_LOCK, JOB_RELEASE };

struct thread {
	enum job job;
	struct req r;
	uint64_t next_ns;		/* idle until then */
	/* what it is about */
	uint64_t dir, dir2, ino;
	unsigned name, name2;
	bool cancelled;
	/* reading and flushing */
	unsigned step, n_ext;
	struct cfs_extent ext[16];
	uint8_t *buf;			/* FILE_MAX */
	uint64_t size, open_inv, open_rep, open_gen, file_ver, lease;
	uint32_t lock_cells[2];
	bool has_locks;
	uint64_t lock_ino;
	struct cfs_oid oid;		/* of the object it has flushed to */
	bool has_obj;
	bool through, append;		/* writes without a lease: buf goes to off, or to the end */
	uint64_t off;
};

struct name_ent {
	uint64_t dir, ino;		/* dir 0: free */
	unsigned name;
};

struct attr_ent {
	struct cfs_attr attr;		/* ino 0: free */
};

struct file_ent {
	uint64_t ino;			/* 0: free */
	unsigned lease;
	bool known, dirty, open, flushing, was_inline;
	uint64_t size, ver;
	uint8_t *data;			/* FILE_MAX */
	bool orphan;			/* RELEASE is due */
};

struct owed {
	uint64_t tag, at_ns;
	unsigned n;
	struct {
		uint64_t dir, ino;
		uint32_t flags;
		uint8_t to_mode;
	} it[CFS_BREAK_MAX];
};

enum client_state { CL_DEAD, CL_OPENING, CL_UP };

struct client_s {
	unsigned i, life;
	struct cfs_sim_node *sn;
	struct cfs_timer tick;
	enum client_state state;
	unsigned server;		/* asked at present */
	struct link links[CONNS];
	uint64_t session, tag, oid_seq;
	uint8_t nonce[16];
	struct req open_req;		/* SESSION_OPEN */
	uint64_t open_ns;
	/* leases */
	uint64_t epoch, seen_epoch, deadline_ns, beat_ns, beat_tag, next_beat_ns;
	uint64_t reclaim_tag, reclaim_gen, reclaim_ns;
	unsigned n_reclaim;
	struct cfs_lease_item reclaim[CFS_LEASE_LIST_MAX / 4];
	bool expired;			/* all was dropped at the deadline */
	struct cfs_breaks breaks;
	struct name_ent names[CACHE];
	struct attr_ent attrs[CACHE];
	uint64_t dirs[CACHE];		/* directories whose lease it has */
	struct file_ent files[CACHE];
	uint64_t mine_ns[INOS_MAX];	/* world's time until which it knew more of a file than the server */
	struct owed owed[BREAKS];
	unsigned n_owed;
	bool lazy;			/* answers late, or never */
	struct thread th[SLOTS];
};

/* ---- the world ------------------------------------------------------------------------------------------------ */
struct server {
	unsigned i;
	char addr[16], dir[64];
	struct cfs_sim_node *sn;
	struct cfs_sim_disk *disk;
	uint64_t disk_bytes;
	uint32_t n_zones;		/* 0: its disk has none */
	unsigned zones_failed;
	bool root_failed;
	uint64_t steady_ns;		/* a zone went offline: until then nothing else happens to the server */
	struct cfs_dev *dev;
	struct cfs_node *node;
	struct cfs_node_target target;
	struct cfs_raft_member members[NODES_MAX];
	bool started, stopped, failed, power;
	bool sparse;		/* its disk is a file in a file system that runs full */
};

struct stats {
	uint64_t entries, records, replies, reads, cached, kept, breaks, asks, crashes, powers, cuts, partitions, deaths,
		fenced, flushed, through, writes, data_reads, rotten, zones, corrupt, locks, lost_sessions, reclaims, expired, full;
};

struct simworld {
	uint64_t seed;
	struct cfs_sim *sim;
	bool trace, failed, calm;	/* calm: no new work, no new faults */
	unsigned n_servers, n_clients;
	struct server servers[NODES_MAX];
	struct client_s clients[CLIENTS_MAX];
	unsigned focus;			/* how many names are in use */
	unsigned readers;		/* per cent of the work that only reads, on top of the rest */
	bool full;			/* disks refuse writes at times */
	bool powercut;			/* nothing but power cuts, and many of them */
	bool calm_down, over;		/* faults are over; all clients are gone */
	/* witness */
	struct inode *inos;		/* INOS_MAX */
	uint64_t dirs[64];		/* directories that ever were, the newest */
	unsigned n_dirs;
	struct session *sessions;
	unsigned n_sessions, cap_sessions;
	struct object *objects;
	unsigned n_objects, cap_objects;
	struct entry *entries;
	unsigned n_entries, cap_entries;
	struct stats st;
	uint64_t hot;			/* an inode that is written through: more of that. 0: none */
};
extern struct simworld *W;

/* a failed check: told once, and the seed ends */
CFS_PRINTF(1, 2) void fail(const char *fmt, ...);
CFS_PRINTF(1, 2) void trace(const char *fmt, ...);

static inline uint64_t now(void)
{
	return cfs_sim_now(W->sim);
}
static inline unsigned pick(unsigned n)
{
	return (unsigned)cfs_sim_below(W->sim, n);
}
void *xrealloc(void *p, size_t n);
void *xcalloc(size_t n);

/* world.c */
enum disk_kind { DISK_ANY, DISK_PLAIN, DISK_ZONED, DISK_ATOMIC, DISK_KINDS };	/* ANY: by the seed */
extern const char *const disk_kind_names[DISK_KINDS];
struct options {
	unsigned clients, servers;	/* clients 0: by the seed */
	unsigned ms;			/* of virtual time with faults; 0: by the seed */
	bool trace, full, powercut;
	enum disk_kind disk;
};
/* false: failed, and said so */
bool world_run(uint64_t seed, const struct options *o, struct stats *sum, uint64_t *ret_trace);

/* witness.c */
void witness_init(void);
void witness_fini(void);
struct inode *inode_of(uint64_t ino);			/* NULL: beyond our table */
struct session *session_of(uint64_t id);
struct record *record_of(uint64_t session, unsigned slot, uint64_t seq);
struct object *object_of(const struct cfs_oid *oid);
struct object *object_new(const struct cfs_oid *oid, const void *bytes, uint32_t len);
int name_index(const char *name, size_t len);		/* -1: not one of ours */
const char *name_text(unsigned i);
void bytes_changed(struct inode *in);			/* note the present bytes in the history */
uint64_t bytes_hash(const uint8_t *data, uint64_t size);
/* did the holder's view vanish? */
void dirty_set(struct client_s *c, uint64_t ino);
void dirty_drop(struct client_s *c, uint64_t ino);
void model_compare(struct cfs_meta *m);			/* at the end: everything */

/* client.c */
void client_start(struct client_s *c);
void client_kill(struct client_s *c);
void client_reset(struct client_s *c);
bool client_live(struct client_s *c);
uint64_t client_clock(struct client_s *c);
bool client_owes_data(struct client_s *c, uint64_t ino);	/* is a recall of its data not answered yet? */
bool client_idle(struct client_s *c);			/* no request, nothing owed, nothing dirty */
void req_start(struct client_s *c, unsigned t, uint16_t op, uint32_t len);
void req_send(struct client_s *c, unsigned t);
/* on a worker connection, the answer is of no interest */
void req_aside(struct client_s *c, uint16_t op, const void *body, uint32_t len);
void client_close_session(struct client_s *c);

/* caches (client.c) */
struct name_ent *name_find(struct client_s *c, uint64_t dir, unsigned name);
struct attr_ent *attr_find(struct client_s *c, uint64_t ino);
struct file_ent *file_find(struct client_s *c, uint64_t ino);
struct file_ent *file_make(struct client_s *c, uint64_t ino);
void file_drop(struct client_s *c, struct file_ent *f);
void forget_name(struct client_s *c, uint64_t dir, unsigned name);
void forget_attr(struct client_s *c, uint64_t ino);
void forget_dir(struct client_s *c, uint64_t dir);
void forget_all(struct client_s *c);
void keep_dir(struct client_s *c, uint64_t dir);
bool has_dir(struct client_s *c, uint64_t dir);

/* work.c */
void work_start(struct client_s *c, unsigned t);
void work_reply(struct client_s *c, unsigned t, struct cfs_msg *msg);
bool own_change(struct client_s *c, uint64_t dir, uint64_t ino);
void note_own(struct client_s *c, const struct thread *th);
void check_attr(struct client_s *c, const struct cfs_attr *a, uint64_t from, bool size, bool change, const char *what);
void keep_attr(struct client_s *c, uint64_t gen, const struct cfs_attr *a);
void keep_lease(struct client_s *c, uint64_t gen, const struct cfs_attr *a, unsigned lease);

/* data.c */
void data_start(struct client_s *c, unsigned t, uint64_t ino, bool write);
void data_reply(struct client_s *c, unsigned t, struct cfs_msg *msg);
bool flush_start(struct client_s *c, unsigned t, struct file_ent *f);	/* false: nothing to do now */

#endif
