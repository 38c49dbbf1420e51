/* SPDX-License-Identifier: MIT */
/*
 * shard_world.h - one shard leader with real state, a fake log and clock, and clients that are nothing but
 * connections and slots: tests say what arrives and look at what is sent. Fails by cmocka's assertions.
 */
#ifndef CFS_SELFTESTS_SHARD_WORLD_H
#define CFS_SELFTESTS_SHARD_WORLD_H

#include "selftests/lib/fakes.h"

#define WORLD_LEASE_MS 10000u
#define WORLD_SLOTS    16u

struct world {
	struct fake_clock clock;
	struct fake_log log;
	struct cfs_meta *meta;
	struct cfs_shard *shard;
	char dir[64];
	bool manual; /* entries wait for fake_log_commit() */
	uint64_t term;
	uint64_t space_total, space_free;
	struct cfs_dead dead[64];
	unsigned n_dead;
	struct client *clients[8];
};

struct client {
	struct world *w;
	uint64_t id; /* session */
	struct fake_conn *cb, *worker;
	uint64_t seq[WORLD_SLOTS]; /* last one used */
	uint64_t tag;
	char name[16];
};

struct world *world_new(void);
void world_free(struct world *w);
/* the leader steps down and another one, with the same state and no leases, takes over; connections stay */
void world_new_leader(struct world *w);
void world_settle(struct world *w); /* commit all, unless manual */

struct client *client_new(struct world *w, const char *name);
void client_free(struct client *c);
void client_connect(struct client *c, uint32_t role); /* a new connection, the old one closed */
void client_disconnect(struct client *c, uint32_t role);

/*
 * Send a request on the worker connection. slot < 0: not mutating. The reply is taken with client_reply().
 * client_send() numbers it; client_repeat() sends what the slot carried last once more, with a new tag. Return: its tag.
 */
uint64_t client_send(struct client *c, uint16_t opcode, int slot, const void *body, size_t len);
uint64_t client_repeat(struct client *c, uint16_t opcode, int slot, const void *body, size_t len);
/* the same on the CALLBACK connection, slot none */
uint64_t client_send_cb(struct client *c, uint16_t opcode, const void *body, size_t len);
/* the next message sent to the worker connection must be the reply to this tag: its status; body to *ret (free it) */
uint32_t client_reply(struct client *c, uint64_t tag, struct fake_sent **ret);
void client_no_reply(struct client *c);
/* send and reply in one: status. rep (may be NULL) gets rep_len bytes, which must be there if the status is 0 */
uint32_t client_call(struct client *c, uint16_t opcode, int slot, const void *body, size_t len, void *rep, size_t rep_len);
void client_heartbeat(struct client *c); /* must be answered */

/* recalls: the next one to this client, which must be there; or none may be */
struct brk {
	struct fake_sent *msg;
	unsigned n;
	struct {
		struct cfs_break_item item;
		uint64_t dir, ino;
		uint32_t flags;
		char name[CFS_NAME_MAX + 1];
	} items[CFS_BREAK_MAX];
};
void client_break(struct client *c, struct brk *ret);
void client_no_break(struct client *c);
void client_answer(struct client *c, struct brk *b, uint8_t how); /* the same for all items; frees */
uint64_t client_ask(struct client *c, uint64_t *ret_ino);	   /* a CB_ASK must be there: its tag */
void client_answer_ask(struct client *c, uint64_t tag, uint64_t size, bool known);

/* bodies; buf of at least 1024 bytes; length returned */
size_t body_mknode(void *buf, uint64_t dir, const char *name, uint32_t mode, uint32_t flags);
size_t body_lookup(void *buf, uint64_t dir, const char *name, uint32_t flags);
size_t body_unlink(void *buf, uint64_t dir, const char *name, bool rmdir, uint64_t hint_ino, bool hint_open);
size_t body_rename(void *buf, uint64_t old_dir, const char *old_name, uint64_t new_dir, const char *new_name,
		   uint32_t flags);
size_t body_link(void *buf, uint64_t ino, uint64_t dir, const char *name);
size_t body_open(void *buf, uint64_t ino, uint32_t want, uint32_t flags);
size_t body_commit(void *buf, uint64_t ino, const char *data);
size_t body_truncate(void *buf, uint64_t ino, uint64_t size);
size_t body_chmod(void *buf, uint64_t ino, uint32_t mode);
size_t body_lock(void *buf, uint64_t ino, uint64_t owner, uint64_t start, uint64_t end, uint8_t kind, bool wait);
size_t body_lease(void *buf, uint64_t ino, uint8_t mode, uint8_t open, uint32_t flags);

void world_answer_all(struct world *w, uint8_t how); /* every recall to anybody */

/* whole operations. create answers recalls by itself, the others must not wait */
uint64_t client_create(struct client *c, uint64_t dir, const char *name, uint32_t mode, uint32_t flags,
		       struct cfs_entry_rep *ret);
uint32_t client_lookup(struct client *c, uint64_t dir, const char *name, struct cfs_entry_rep *ret);
uint32_t client_getattr(struct client *c, uint64_t ino, struct cfs_attr_rep *ret);
uint32_t client_open(struct client *c, uint64_t ino, uint32_t want, uint32_t flags, struct cfs_open_rep *ret);

/* ---- a test's world: three clients, a buffer for bodies. cmocka's set-up and tear-down ------------------- */
struct shard_test {
	struct world *w;
	struct client *a, *b, *c;
	char buf[4096];
};
int shard_test_setup(void **state);
int shard_test_teardown(void **state);
struct cfs_shard_stat shard_test_stat(struct shard_test *t);
/* a recall with one item that must have these flags is there; it is answered */
void shard_test_yield(struct client *c, uint32_t flags, uint8_t how);

#endif
