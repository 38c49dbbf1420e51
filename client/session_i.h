/* SPDX-License-Identifier: MIT */
/*
 * session_i.h - private to the session:
 *
 *	session.c		the thread, the callback connection, heartbeats, answers
 *	session_open.c		opening one: at mount, after a loss, or the one of the process before
 *	session_reclaim.c	telling a new leader what is held
 *
 * All of it runs in the session thread, but for opening at the start.
 */
#ifndef CFS_CLIENT_SESSION_I_H
#define CFS_CLIENT_SESSION_I_H

#include "client/client_i.h"

#define CONNECT_MS	2000u
#define IO_MS		5000u

#define ms_ns(ms) ((uint64_t)(ms) * CFS_NSEC_PER_MSEC)

struct cfs_session {
	struct cfs_client *c;
	pthread_t thread;
	bool running, stop;
	int wake_fd;
	uint8_t nonce[16];
	bool nonce_set;
	/* the session thread's own */
	struct cfs_rpc_conn *conn;
	uint64_t conn_gen;		/* counts callback connections */
	uint64_t tag, ping_tag;		/* ping_tag 0: none outstanding */
	uint64_t ping_sent_ns, next_ping_ns;
	uint64_t reclaim_epoch;		/* a leader we have not told yet what we hold; 0: none */
	uint32_t backoff_ms;
	bool chores_running;		/* atomic */
	void *rx;			/* CFS_BODY_MAX */
	pthread_mutex_t answers_lock;
	struct cfs_list answers;
	unsigned n_answers;
};

/* ---- session.c ---- */
void cfs_session_set_state(struct cfs_client *c, enum cfs_session_state state);
/* a heartbeat that was sent then has been answered, or a session opened */
void cfs_session_renew(struct cfs_client *c, uint64_t sent_ns);
/* the reply to what was sent with this tag; everything else that comes is dispatched. 0 or -errno */
int cfs_session_await_reply(struct cfs_session *s, uint64_t tag, struct cfs_rpc_reply *r);

/* ---- session_open.c ---- */
/* try one server: 0, CFS_E_*, errno or -errno */
int cfs_session_open_at(struct cfs_client *c, uint32_t node);
/* at mount: every server once; those that are there but not ready get more time. err: one line on failure */
int cfs_session_open_first(struct cfs_client *c, char *err, size_t errlen);
/*
 * The session of the process before. It lives until a heartbeat is answered, or is not: nothing that is cached is used before; and if
 * there is none, the thread opens one as it would after a loss.
 */
void cfs_session_inherit(struct cfs_client *c);
/* in words; rc as of cfs_session_open_at() */
const char *cfs_session_why(int rc);

/* ---- session_reclaim.c ---- */
/* 0, CFS_E_* or -errno; when the leader knows all, s->reclaim_epoch is 0 unless there is yet another */
int cfs_session_reclaim(struct cfs_session *s);

#endif
