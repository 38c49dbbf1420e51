/* SPDX-License-Identifier: MIT */
/*
 * raft_wire.h - Raft's messages as they travel between nodes in CFS_OP_RAFT (format version 1).
 *
 * The body is struct cfs_raft_msg, the sender's address, then the type's own part; what is bulky
 * (log entries, a snapshot's configuration and manifest) is the payload, under the crc32c that
 * stands in the message. Pure functions; the decoder trusts nothing, since libraft asserts what it
 * is given.
 */
#ifndef CFS_SERVER_CLUSTER_RAFT_WIRE_H
#define CFS_SERVER_CLUSTER_RAFT_WIRE_H

#include <claudefs/wire.h>
#include <raft.h>
#include <stddef.h>

#define CFS_RAFT_MAGIC		0x46415243u	/* "CRAF" */
#define CFS_RAFT_VERSION	1u
#define CFS_RAFT_ENTRIES_MAX	256u		/* log entries in one message */
#define CFS_RAFT_ADDR_MAX 55u /* bytes of an address, without NUL: as cfs_map_target */
#define CFS_RAFT_SERVERS_MAX	15u		/* members of one group */

struct cfs_raft_msg {		/* followed by address, then the type's part */
	cfs_le32 magic;
	uint8_t  version;
	uint8_t  type;		/* enum raft_message_type */
	cfs_le16 addr_len;	/* <= CFS_RAFT_ADDR_MAX */
	cfs_le32 group;		/* shard */
	cfs_le32 payload_crc;	/* crc32c of the payload */
	cfs_le64 from, to;	/* raft ids */
	cfs_le64 term;
	cfs_le64 stamp; /* append entries: the leader's clock, ns; its result: the same, echoed */
};
_Static_assert(sizeof(struct cfs_raft_msg) == 48, "cfs_raft_msg");

struct cfs_raft_vote {		/* REQUEST_VOTE */
	cfs_le64 candidate;
	cfs_le64 last_index, last_term;
	cfs_le32 flags;		/* 1 disrupt the leader, 2 pre-vote */
	cfs_le32 pad;
};
_Static_assert(sizeof(struct cfs_raft_vote) == 32, "cfs_raft_vote");

struct cfs_raft_vote_result {	/* REQUEST_VOTE_RESULT */
	cfs_le32 flags;		/* 1 granted, 2 pre-vote */
	cfs_le16 features, capacity;
};
_Static_assert(sizeof(struct cfs_raft_vote_result) == 8, "cfs_raft_vote_result");

struct cfs_raft_append { /* APPEND_ENTRIES; followed by n_entries cfs_raft_entry; payload: their data */
	cfs_le64 prev_index, prev_term;
	cfs_le64 commit;
	cfs_le32 n_entries;
	cfs_le32 pad;
};
_Static_assert(sizeof(struct cfs_raft_append) == 32, "cfs_raft_append");

struct cfs_raft_entry {
	cfs_le64 term;
	cfs_le32 len;
	cfs_le32 type;		/* enum raft_entry_type */
};
_Static_assert(sizeof(struct cfs_raft_entry) == 16, "cfs_raft_entry");

struct cfs_raft_append_result {	/* APPEND_ENTRIES_RESULT */
	cfs_le64 rejected;
	cfs_le64 last_index;
	cfs_le16 features, capacity;
	cfs_le32 pad;
};
_Static_assert(sizeof(struct cfs_raft_append_result) == 24, "cfs_raft_append_result");

struct cfs_raft_install {	/* INSTALL_SNAPSHOT; payload: configuration, then manifest */
	cfs_le64 last_index, last_term;
	cfs_le64 conf_index;
	cfs_le32 conf_len;
	cfs_le32 data_len;
};
_Static_assert(sizeof(struct cfs_raft_install) == 32, "cfs_raft_install");

struct cfs_raft_timeout {	/* TIMEOUT_NOW */
	cfs_le64 last_index, last_term;
};
_Static_assert(sizeof(struct cfs_raft_timeout) == 16, "cfs_raft_timeout");

#define CFS_RAFT_BODY_MAX                                                                   \
	(sizeof(struct cfs_raft_msg) + CFS_RAFT_ADDR_MAX + sizeof(struct cfs_raft_append) + \
	 CFS_RAFT_ENTRIES_MAX * sizeof(struct cfs_raft_entry))

/* an encoded message; the payload is malloc()ed and belongs to whoever holds the struct */
struct cfs_raft_out {
	uint64_t to;
	char addr[CFS_RAFT_ADDR_MAX + 1];	/* of `to` */
	uint32_t body_len, payload_len;
	void *payload;
	uint8_t body[CFS_RAFT_BODY_MAX];
};

/**
 * cfs_raft_encode() - one message; append entries and snapshot data must be filled in.
 * @m: server_id and server_address are those of the receiver
 * @from: the sender, at @from_addr
 * @stamp: see struct cfs_raft_msg
 * Return: 0; -EMSGSIZE more than a message holds; -ENOMEM; -EINVAL a type we do not know.
 */
int cfs_raft_encode(const struct raft_message *m, uint32_t group, uint64_t from,
		    const char *from_addr, uint64_t stamp, struct cfs_raft_out *out);

struct cfs_raft_in {
	uint32_t group;
	uint64_t to, stamp;
	char addr[CFS_RAFT_ADDR_MAX + 1];
	/*
	 * server_id and server_address are those of the sender; memory as raft_step() wants it for
	 * RAFT_RECEIVE
	 */
	struct raft_message m;
};

/**
 * cfs_raft_decode() - check and take apart one message.
 * @ret_why: static text that names what was wrong, on failure
 * Return: 0; -EPROTO; -ENOMEM.
 */
int cfs_raft_decode(const void *body, uint32_t body_len, const void *payload, uint32_t payload_len,
		    struct cfs_raft_in *in, const char **ret_why);
/* release what decode allocated, when the message was not given to raft_step() */
void cfs_raft_in_drop(struct cfs_raft_in *in);

/* would raft_configuration_decode(), which checks no length, be safe on these bytes? */
bool cfs_raft_conf_valid(const void *buf, size_t len);

#endif
