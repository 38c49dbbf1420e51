/* SPDX-License-Identifier: MIT */
/*
 * fakes.h - a clock that stands still until told, a log that commits when told, connections that keep what is
 * sent: for unit tests of server logic, one thread, no kernel. Bodies are heap copies, so that sanitizers see
 * who keeps a borrowed one.
 */
#ifndef CFS_SELFTESTS_FAKES_H
#define CFS_SELFTESTS_FAKES_H

#include "base/clock.h"
#include "base/list.h"
#include "net/net.h"
#include "server/meta/shard.h"

/* ---- clock -------------------------------------------------------------------------------------- */
#define FAKE_TIMERS_MAX 64u

struct fake_clock {
	struct cfs_clock clock;
	uint64_t now_ns;      /* boot time; real time is FAKE_REAL_NS later */
	uint64_t random;
	struct cfs_timer *timers[FAKE_TIMERS_MAX];
	unsigned n;
};
#define FAKE_REAL_NS (1700000000ull * 1000000000ull)

void fake_clock_init(struct fake_clock *c);
/* let time pass, firing timers at their times, in order */
void fake_clock_advance_ms(struct fake_clock *c, uint64_t ms);

/* ---- log ---------------------------------------------------------------------------------------- */
struct fake_entry {
	struct cfs_list link;
	size_t len;
	uint8_t data[];
};

struct fake_log {
	struct cfs_list entries; /* proposed, not committed */
	struct cfs_shard *shard; /* who gets them */
	uint64_t index;
	unsigned n;	   /* entries waiting */
	unsigned proposed; /* in all */
	int refuse;	   /* not 0: what propose answers */
};
extern const struct cfs_log_ops fake_log_ops;

void fake_log_init(struct fake_log *l);
/* commit the oldest entry: apply it on the shard. false: there is none */
bool fake_log_commit(struct fake_log *l);
void fake_log_commit_all(struct fake_log *l);
/* forget what is not committed, as a leader that lost does */
void fake_log_drop(struct fake_log *l);

/* ---- connections -------------------------------------------------------------------------------- */
struct fake_sent {
	struct cfs_list link;
	struct cfs_msg_hdr hdr; /* body_len and payload_len are filled in */
	uint32_t body_len;
	uint8_t *body; /* aligned; payload is dropped */
};

struct fake_conn {
	struct cfs_conn conn;
	struct cfs_list sent; /* oldest first */
	unsigned n_sent;
	bool closed; /* by cfs_conn_close() */
	int refuse;  /* not 0: what send answers */
};

struct fake_conn *fake_conn_new(const char *peer);
void fake_conn_free(struct fake_conn *c);
/* take the oldest message sent; NULL: none. fake_sent_free() */
struct fake_sent *fake_conn_take(struct fake_conn *c);
void fake_sent_free(struct fake_sent *m);

/* a message as it arrives, given to cb and freed afterwards */
void fake_msg(const struct cfs_msg_hdr *hdr, const void *body, uint32_t len, void (*cb)(void *arg, struct cfs_msg *msg),
	      void *arg);

#endif
