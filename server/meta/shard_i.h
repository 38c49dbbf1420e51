/* SPDX-License-Identifier: MIT */
/*
 * shard_i.h - what the files of the shard leader share; private to server/meta/shard*.c,
 * batch.c and lockwait.c. One thread. The way of a request:
 *
 *   shard.c          events in (messages, connections, log, timer); decides who handles them
 *   shard_session.c  sessions, slots, deadlines, fencing, reclaim
 *   shard_keys.c     keys of the requests in progress: who waits for whom
 *   shard_break.c    recalls: which session must forget what, its answer, ASK
 *   shard_op.c       a mutating request from footprint to log
 *   shard_grant.c    leases and CFS_V_ bits of replies
 *   shard_read.c     reads, OPEN, GETATTR that asks
 *   lockwait.c       blocking locks
 *   batch.c          log entries
 *
 * Whatever may start a request again (keys released, a recall answered, a lock freed) only puts it on
 * the run list; shard_run() empties that at the end of every event. So no function here is re-entered.
 */
#ifndef CFS_SERVER_META_SHARD_I_H
#define CFS_SERVER_META_SHARD_I_H

#include "base/log.h"
#include "rpc/codec.h"
#include "server/meta/lease.h"
#include "server/meta/shard.h"

/* bounds */
#define SHARD_OPS_MAX	     65536u	    /* requests in progress */
#define SHARD_OP_BYTES_MAX   (256u << 20)   /* bodies that they keep */
#define SHARD_BRKS_MAX	     (256u << 10)   /* recalls not answered: about 100 MiB */
#define SHARD_INFLIGHT_MAX   4u		    /* entries proposed and not applied */
#define SHARD_PIPELINE_MIN   16u	    /* requests that make an entry worth proposing behind another one */
#define SHARD_DEAD_BATCH     1024u	    /* dead objects of one round */
#define SHARD_DEAD_EVERY_MS  2000u
#define SHARD_DEAD_RETRY_MS  30000u	    /* a round not reported done by then is repeated */
#define SHARD_SPACE_EVERY_MS 1000u	    /* between looks at the targets' space */
#define SHARD_SPACE_TIGHT_MS 20u	    /* while it is short: a drive writes much in a second */
#define SHARD_ROOM_WAIT_MS   10000u	    /* requests are held for room that is about to come back */
#define SHARD_DEAD_TIGHT_MS  250u	    /* between rounds while space is short */
#define SHARD_LEASE_LIVES    6u		    /* lease times for which COMMITs keep a recall alive, and after which
					     * a silent session is fenced though nobody waits for it */
#define SHARD_ASKS_MAX	     3u		    /* holders that one GETATTR asks, when the lease moves on each time */
#define SHARD_OP_INLINE	     448u	    /* body bytes kept in the request itself */
#define SHARD_OP_KEYS	     8u		    /* keys kept in the request itself */
#define SHARD_LOCK_CHAIN_MAX 1024u	    /* owners looked at in search of a deadlock */
#define SHARD_LOCK_BLOCKERS  16u	    /* of each of them: how many that it waits for */

enum shard_op_state {
	OP_RUN,	     /* on the run list, or being worked on */
	OP_KEYS,     /* waits for a key */
	OP_BREAK,    /* waits for answers of other sessions; holds its keys */
	OP_OPENQ,    /* OPEN: waits for its turn on the inode */
	OP_LOCKWAIT, /* LOCK: waits for a lock to be released */
	OP_READY,    /* waits for room in a batch */
	OP_LOG,	     /* in a batch, proposed or about to be */
};

struct shard_conn {
	struct cfs_hnode node;
	struct cfs_list link;	   /* in shard.conn_list */
	struct cfs_list sess_link; /* in sess.conns */
	struct cfs_list ops;	   /* op.conn_link: requests to be answered here */
	struct cfs_conn *conn;
	struct shard_sess *sess; /* NULL: unknown (yet) */
	uint64_t session;
	uint32_t role;
};

struct shard_slot {
	struct shard_op *op; /* in progress */
	uint64_t seq;	     /* of the last reply, if this leader knows it; else 0 */
};

struct shard_sess {
	struct cfs_hnode node;
	struct cfs_list link; /* in shard.sess_list, in order of age */
	struct cfs_lease_owner leases;
	uint64_t id;
	uint64_t deadline_ns;	/* boot time at which its leases end */
	struct cfs_list conns, ops;
	struct cfs_list brks;	/* brk.sess_link: recalls and questions it has not answered */
	struct shard_conn *cb;	/* its CALLBACK connection, or NULL */
	struct shard_brk *brk;	/* being built for it (shard_break.c), else NULL */
	uint32_t data_breaks;	/* of brks: those that make it flush */
	uint32_t n_ops, n_conns;
	uint32_t n_slots;
	bool reclaimed;
	bool lock_refused;	/* since its last heartbeat: somebody was, because of one of its locks */
	bool fencing;		/* the entry that closes it is on its way: nothing is renewed any more */
	char *name;
	struct shard_slot slots[];
};

struct shard_key {
	struct cfs_hnode node;
	uint64_t ino, name_hash;
	struct cfs_list holders; /* opkey.link */
	struct cfs_list waiters; /* op.wait_link, oldest request first */
	uint32_t n_exclusive;	 /* of holders */
};

struct shard_opkey {
	struct cfs_list link;
	struct shard_key *key;
	struct shard_op *op;
	bool exclusive;
};

struct shard_op {
	struct cfs_list sess_link, conn_link;
	struct cfs_list wait_link; /* in the list that its state names */
	struct shard_sess *sess;   /* NULL: none (SESSION_OPEN, the leader's own records), or gone */
	struct shard_conn *conn;   /* NULL: nobody to answer */
	struct cfs_msg_hdr hdr;	   /* of the request; what the reply repeats */
	uint64_t order;		   /* arrival */
	const void *body;
	void *owned;		   /* body, when it is a heap copy */
	uint32_t len;
	uint32_t slot;
	uint32_t status;	   /* with opcode CFS_LOG_FAIL: the answer */
	uint16_t opcode;	   /* of its log record */
	uint8_t state;
	bool mutates;
	bool answered; /* its recalls are; it holds its keys */
	bool recalled; /* OPEN: has taken the attributes out of directory leases: of all but its own session, or */
	bool recalled_own; /* of that too */
	bool keep;     /* OPEN: CFS_OPEN_KEEP */
	bool through;  /* OPEN: CFS_OPEN_THROUGH */
	uint64_t since_ns; /* OPEN: when it came */
	bool contended; /* OPEN: it will be told to write through */
	/* keys */
	bool wait_excl;
	uint64_t wait_ino, wait_hash; /* the key it waits for, or waited for last */
	uint32_t n_keys;
	struct shard_opkey *keys; /* ikeys or heap */
	struct shard_opkey ikeys[SHARD_OP_KEYS];
	/* recalls */
	uint32_t pending;
	struct cfs_list brks; /* brk.op_link */
	uint64_t victim;
	uint64_t *holders;    /* sessions that keep the victim open */
	uint16_t n_holders, cap_holders;
	bool victim_dir;
	/* OPEN, GETATTR, LOCK */
	struct shard_inoq *q; /* OPEN: its queue, whatever else it waits for; LOCK: while it waits */
	struct cfs_list q_link;
	uint64_t ino;	      /* FENCE: session */
	uint64_t asked; /* GETATTR: the session that was */
	uint8_t want;
	uint8_t asks;
	uint8_t inl[SHARD_OP_INLINE];
};

/* one CB_BREAK or CB_ASK to one session */
struct shard_brk {
	struct cfs_hnode node; /* by tag */
	struct cfs_list sess_link, op_link;
	struct shard_sess *sess;
	struct shard_op *op; /* NULL: who asked does not wait any more */
	uint64_t tag;
	uint64_t sent_ns;
	uint64_t stale_ns; /* unanswered beyond this, heartbeats renew nothing */
	bool sent;	   /* on the present callback connection */
	bool data;	   /* its holder may flush before it answers */
	uint64_t ask_ino;  /* not 0: an ASK */
	uint32_t n;
	uint32_t cur; /* while it is built: footprint item of the last one */
	uint32_t names_len;
	char *names;
	struct cfs_break_item items[CFS_BREAK_MAX]; /* as on the wire */
};

/* one inode on which OPENs, or LOCKs, queue */
struct shard_inoq {
	struct cfs_hnode node;
	uint64_t ino;
	struct cfs_list ops; /* op.q_link, oldest first */
};

struct shard_entry { /* a log entry on its way */
	struct cfs_time time; /* names it: no two entries of a leader have the same */
	unsigned n;
	struct shard_op *ops[CFS_LOG_BATCH_MAX];
};

struct cfs_shard {
	struct cfs_shard_params p;
	uint64_t now_ns; /* boot time of the present event */
	bool leader;
	bool ready;	 /* our own first entry is applied: so is everything before it */
	bool grace;
	uint64_t epoch;
	uint64_t grace_end_ns;
	uint64_t map_epoch;
	struct cfs_timer tick;
	uint64_t lease_ns, tick_ns;

	struct cfs_htable conns, sessions, keys, brks, openqs, lockqs;
	struct cfs_list conn_list, sess_list;
	struct cfs_slab op_pool, key_pool;
	uint32_t data_breaks; /* of all sessions */
	struct cfs_leases leases;
	uint64_t next_order, next_tag;
	uint64_t op_bytes;
	struct cfs_list run;	 /* op.wait_link */
	struct cfs_list ready_q; /* op.wait_link */

	/* batch.c */
	uint8_t *batch_buf;
	size_t batch_len;
	struct shard_entry batch;
	struct shard_entry inflight[SHARD_INFLIGHT_MAX]; /* a ring */
	unsigned inflight_head, n_inflight;
	uint64_t last_ns; /* time stamp of the newest entry seen */

	/* dead objects */
	bool dead_full; /* the last round was: more are waiting */
	bool purge_busy;
	uint64_t dead_next_ns;
	struct cfs_dead dead[SHARD_DEAD_BATCH];

	/* space, asked for now and then */
	uint64_t space_ns, space_total, space_free;
	bool state_full;	/* no room for the state itself */
	uint64_t wanted_ns;	/* when room was last missed while something was dead */
	struct cfs_patience held;	/* requests are held because of that */

	struct cfs_lock_holder lock_chain[SHARD_LOCK_CHAIN_MAX];
	struct cfs_footprint fp;
	uint8_t *out;	 /* CFS_BODY_MAX: reply being built */
	uint8_t *cb_out; /* CFS_BODY_MAX: callback being built */
	struct cfs_shard_stat st;
};

/* shard.c */
void shard_run(struct cfs_shard *s);
void shard_reply_hdr(struct cfs_shard *s, struct shard_conn *c, const struct cfs_msg_hdr *req, uint32_t status,
		     const void *body, uint32_t len);
/* with a copy of the body; NULL: too much is in progress, answered so */
struct shard_op *op_new(struct cfs_shard *s, struct shard_conn *c, const struct cfs_msg_hdr *hdr, const void *body);
void op_reply(struct cfs_shard *s, struct shard_op *op, uint32_t status, const void *body, uint32_t len);
void op_free(struct cfs_shard *s, struct shard_op *op); /* from whatever state */
/* answer without a trace, so that the client may repeat it as it was, and free */
void op_abort(struct cfs_shard *s, struct shard_op *op, uint32_t status);
void op_wake(struct cfs_shard *s, struct shard_op *op);	/* to the run list */
void op_unpark(struct cfs_shard *s, struct shard_op *op); /* it waits for nothing any more; state OP_RUN */
void op_drop_body(struct cfs_shard *s, struct shard_op *op);
int shard_ready(struct cfs_shard *s); /* our first entry is applied. 0 or -errno */
struct shard_inoq *inoq_find(const struct cfs_htable *t, uint64_t ino);
int inoq_join(struct cfs_htable *t, struct shard_op *op, uint64_t ino); /* in order of arrival; 0 or -ENOMEM */
void inoq_leave(struct cfs_htable *t, struct shard_op *op);
void shard_space(struct cfs_shard *s); /* refreshes space_total, space_free */
/* time to give back what is dead at once: who still reads it finds it gone and asks for the extents again */
static inline bool shard_space_tight(const struct cfs_shard *s)
{
	bool wanted = s->wanted_ns && s->now_ns - s->wanted_ns < SHARD_ROOM_WAIT_MS * CFS_NSEC_PER_MSEC;

	return s->p.space && (wanted || s->space_free < s->space_total / 4);
}

/* kept from users: what is removed, and checkpoints, need some, too */
static inline uint64_t shard_space_kept(const struct cfs_shard *s)
{
	return cfs_min(s->space_total / 64, 256 * CFS_MIB);
}

static inline bool shard_space_low(const struct cfs_shard *s)
{
	return s->p.space && s->space_free < shard_space_kept(s);
}

/* shard_session.c */
struct shard_sess *sess_find(struct cfs_shard *s, uint64_t id);
int sess_add(struct cfs_shard *s, uint64_t id, uint32_t slots, const char *name, size_t name_len,
	     struct shard_sess **ret_sess);
void sess_drop(struct cfs_shard *s, struct shard_sess *sess);
int sess_load_all(struct cfs_shard *s);
void sess_drop_all(struct cfs_shard *s);
void sess_bind(struct cfs_shard *s, struct shard_sess *sess, struct shard_conn *c);
void sess_unbind(struct shard_conn *c);
void sess_sweep(struct cfs_shard *s);
void sess_end_grace_if_complete(struct cfs_shard *s);
void sess_heartbeat(struct cfs_shard *s, struct shard_conn *c, const struct cfs_msg *msg);
void sess_reclaim(struct cfs_shard *s, struct shard_conn *c, const struct cfs_msg *msg);
void sess_lease_return(struct cfs_shard *s, struct shard_conn *c, const struct cfs_msg *msg);

/* shard_keys.c */
int keys_acquire(struct cfs_shard *s, struct shard_op *op, const struct cfs_fp_key *keys, unsigned n);
void keys_release(struct cfs_shard *s, struct shard_op *op);
void keys_wait(struct cfs_shard *s, struct shard_op *op, uint64_t ino, uint64_t name_hash, bool exclusive);
void keys_unwait(struct cfs_shard *s, struct shard_op *op);
void keys_kick(struct cfs_shard *s, uint64_t ino, uint64_t name_hash);
bool keys_busy(struct cfs_shard *s, uint64_t ino, uint64_t name_hash, const struct shard_op *except);
bool keys_foreign(struct cfs_shard *s, uint64_t ino, const struct shard_sess *sess);

/* shard_break.c */
int break_footprint(struct cfs_shard *s, struct shard_op *op, const struct cfs_footprint *fp);
int break_item(struct cfs_shard *s, struct shard_op *op, unsigned i, const struct cfs_fp_break *b);
void break_send_built(struct cfs_shard *s, struct shard_op *op);
int ask_send(struct cfs_shard *s, struct shard_op *op, struct shard_sess *to, uint64_t ino);
void break_answer(struct cfs_shard *s, struct shard_conn *c, const struct cfs_msg *msg);
void break_resend(struct cfs_shard *s, struct shard_sess *sess, bool all);
void break_drop_session(struct cfs_shard *s, struct shard_sess *sess);
void break_drop_op(struct cfs_shard *s, struct shard_op *op);
void break_alive(struct cfs_shard *s, struct shard_sess *sess);
int op_add_holder(struct shard_op *op, uint64_t session);

/* shard_op.c */
void op_mutation(struct cfs_shard *s, struct shard_conn *c, struct cfs_msg *msg);
void op_start(struct cfs_shard *s, struct shard_op *op);
void op_log(struct cfs_shard *s, struct shard_op *op);
void op_fail(struct cfs_shard *s, struct shard_op *op, uint32_t status);
void op_answered(struct cfs_shard *s, struct shard_op *op); /* its recalls are */
/* its record is; frees it. 0 or -errno: this replica cannot go on */
int op_applied(struct cfs_shard *s, struct shard_op *op, uint32_t status, const void *body, uint32_t len);
/* a record of the leader's own; body is copied. 0 or -ENOMEM */
int op_internal(struct cfs_shard *s, uint16_t opcode, uint64_t session, const void *body, uint32_t len);

/* shard_grant.c */
bool grant_dir(struct cfs_shard *s, struct shard_sess *sess, uint64_t dir);
uint32_t grant_attr(struct cfs_shard *s, struct shard_sess *sess, const struct cfs_attr *attr, bool may_grant,
		    const struct shard_op *except);
uint32_t grant_name(struct cfs_shard *s, struct shard_sess *sess, uint64_t dir, const void *name, size_t len,
		    const struct shard_op *except);
uint32_t lease_held(struct cfs_shard *s, struct shard_sess *sess, uint64_t ino);
bool lease_share(struct cfs_shard *s, struct shard_sess *sess, uint64_t ino, const struct shard_op *except);
/* fill in valid and lease of a mutation's reply, which is in `body` and may be changed */
void grant_reply(struct cfs_shard *s, struct shard_op *op, bool replay, uint32_t status, void *body, uint32_t len);
void lease_gone(struct cfs_shard *s, struct shard_op *op, uint64_t ino);

/* shard_read.c */
void read_op(struct cfs_shard *s, struct shard_conn *c, struct cfs_msg *msg);
void open_try(struct cfs_shard *s, struct shard_op *op);
bool open_queued(struct cfs_shard *s, uint64_t ino);
void open_kick(struct cfs_shard *s, uint64_t ino);
void ask_answered(struct cfs_shard *s, struct shard_op *op, const struct cfs_ask_rep *rep);

/* lockwait.c */
void lock_start(struct cfs_shard *s, struct shard_op *op);
void lock_cancel(struct cfs_shard *s, struct shard_conn *c, const struct cfs_msg *msg);
void lock_recheck(struct cfs_shard *s, uint64_t ino); /* 0: all */
void lock_refused(struct cfs_shard *s, const struct shard_op *op); /* note whose locks were in the way */
bool lock_awaited(struct cfs_shard *s, const struct shard_sess *sess); /* does a LOCK wait for one of its locks? */

/* batch.c */
bool batch_add(struct cfs_shard *s, struct shard_op *op);
void batch_kick(struct cfs_shard *s);
int batch_apply(struct cfs_shard *s, uint64_t index, const void *entry, size_t len);
void batch_drop(struct cfs_shard *s); /* answers NOTLEADER to all of them */

#endif
