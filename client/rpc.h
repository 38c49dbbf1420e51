/* SPDX-License-Identifier: MIT */
/*
 * rpc.h - requests of a client's threads to the servers.
 *
 * Each thread that calls has its own connection to each node and waits on it itself (poll on
 * socket and interrupt eventfd), so that a request that misses every cache costs no hand-off.
 * The call hides what may go wrong in between: it reconnects, says HELLO again, repeats the request
 * with the same slot and seq, waits out CFS_E_GRACE and follows CFS_E_NOTLEADER, until the
 * deadline of the mount's options (-o hard: for ever, but see below).
 */
#ifndef CFS_CLIENT_RPC_H
#define CFS_CLIENT_RPC_H

#include <claudefs/wire.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct cfs_client;

struct cfs_call {
	uint16_t opcode;
	bool mutating;			/* takes a slot; exactly once */
	bool interruptible;		/* an interrupt ends the wait at once with EINTR (locks); others
					 * end only when the server has not answered for 2 s */
	const struct iovec *body;	/* request body in parts */
	unsigned n_body;
	const void *payload;
	uint32_t payload_len;
	/* reply: caller's buffers */
	void *rep;
	uint32_t rep_max;		/* a longer body is EPROTO */
	uint32_t rep_len;		/* out */
	void *rep_payload;
	uint32_t rep_payload_max, rep_payload_len;
	uint64_t break_gen;		/* out: the client's break_gen before the request was sent */
	uint32_t timeout_ms;		/* 0: as the mount's options say; else give up after this: -ETIMEDOUT */
};

/**
 * cfs_call() - send to the leader of the metadata shard and wait.
 * Return: 0, a positive errno or CFS_E_* of the server (reply body may be present, e.g. ENOENT of
 * LOOKUP), or -errno of our own: -EINTR, -ETIMEDOUT (softerr: server unreachable), -EPROTO.
 * CFS_E_BADSESSION means that the session was lost: returned at once while what it held is being
 * dropped (so locks may be held across a call although cfs_data_session_lost() wants them); calls made
 * after that wait for the new session. A mutating request may have been carried out before it.
 */
int cfs_call(struct cfs_client *c, struct cfs_call *call);

/** cfs_call_target() - the same to the node that holds a target; body must name it. */
int cfs_call_target(struct cfs_client *c, uint32_t target, struct cfs_call *call);

/*
 * Several requests to targets on the calling thread's connections, on their way at the same time. The thread makes no other
 * call between the first send and the finish, which waits for all; results are then in rc[]. calls, rc: room for as
 * many as are sent, at most CFS_FLIGHT_MAX, kept until the finish.
 */
#define CFS_FLIGHT_MAX 64u
struct cfs_node_conn;
struct cfs_flight {			/* private */
	struct cfs_client *c;
	struct cfs_thread *t;
	struct cfs_call *calls;
	int *rc;
	unsigned n;
	uint64_t deadline;
	uint32_t target[CFS_FLIGHT_MAX];
	struct cfs_node_conn *nc[CFS_FLIGHT_MAX];	/* NULL: not on its way */
	uint64_t tag[CFS_FLIGHT_MAX];
};
void cfs_flight_init(struct cfs_flight *f, struct cfs_client *c, struct cfs_call *calls, int *rc);
/* the next of calls[]; returns when it was sent, or its rc[] says why not */
void cfs_flight_send(struct cfs_flight *f, uint32_t target);
/* wait for the i-th that was sent: its rc[], which the finish may still better */
int cfs_flight_wait(struct cfs_flight *f, unsigned i);
/* f can be used again */
void cfs_flight_finish(struct cfs_flight *f);

/* the same in one go (write to all replicas, read from several) */
int cfs_call_targets(struct cfs_client *c, const uint32_t *targets, struct cfs_call *calls, int *rc, unsigned n);

/*
 * Breaks. break_gen grows with every break item that arrives, before it is handled. A lease or a valid bit
 * in a reply counts only if nothing broke the inode since call.break_gen: check under the lock that the break
 * handler (cfs_data_break()) takes, too. Never blocks. True also when it was too long ago to be known.
 */
uint64_t cfs_client_break_gen(struct cfs_client *c);
bool cfs_client_broken_since(struct cfs_client *c, uint64_t ino, uint64_t break_gen);
/* this client has changed data and attributes of the inode at the server, holding nothing: noted as a break, and what is kept goes */
void cfs_client_changed(struct cfs_client *c, uint64_t ino);
/* CFS_FEAT_* that the server offers, and that this mount wants */
uint64_t cfs_client_features(struct cfs_client *c);
/* is the session's deadline still ahead? If not, nothing cached may be given out before a heartbeat was answered */
bool cfs_client_live(struct cfs_client *c);
/* id of the present session; 0 while there is none */
uint64_t cfs_client_session(struct cfs_client *c);

/* next object name for a placement group chosen by the client; pg = hash, `attempt` picks another */
struct cfs_oid cfs_client_new_oid(struct cfs_client *c, unsigned attempt);
/* targets of an object's placement group; returns how many, 0 if the map is not known */
unsigned cfs_client_pg_targets(struct cfs_client *c, const struct cfs_oid *oid, uint32_t *targets, unsigned max);

#endif
