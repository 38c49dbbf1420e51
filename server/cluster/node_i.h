/* SPDX-License-Identifier: MIT */
/*
 * node_i.h - what the files of a node share.
 *
 *   node.c     create, start, stop: stores, state, listening
 *   node_log.c between Raft and the shard; the cluster map
 *   conn.c     connections: HELLO, credits, who answers which opcode
 *   objects.c  OBJ_* requests against the stores
 *   purge.c    deleting the objects of dead files on their targets; fetching a checkpoint
 *   scrub.c    deleting what clients wrote and never committed
 *   opstat.c   requests by opcode: how many, how long
 *   status.c   STATUS
 */
#ifndef CFS_SERVER_CLUSTER_NODE_I_H
#define CFS_SERVER_CLUSTER_NODE_I_H

#include "base/list.h"
#include "base/log.h"
#include "rpc/codec.h"
#include "server/cluster/checkpoint.h"
#include "server/cluster/map.h"
#include "server/cluster/node.h"
#include "server/cluster/peer.h"
#include "server/cluster/raft_log.h"

#define NODE_LOCAL_ADDR		"node"		/* on the loopback net */
#define NODE_HELLO_NS		(5 * CFS_NSEC_PER_SEC)
#define NODE_CREDITS		CFS_CREDITS_DEFAULT
#define NODE_STARTED		(2 * NODE_CREDITS)	/* a power of two */

struct node_target {
	char *path;
	uint32_t id;
	const struct cfs_dev *dev;
	struct cfs_store *store;
};

/* a request that is not answered yet, in its connection's table of started requests; start_ns 0: a free place */
struct node_started {
	uint64_t tag;
	uint64_t start_ns;
};

/*
 * a connection to this node. The shard is given `shim`, whose sends count as answers and go on to
 * `conn`
 */
struct node_conn {
	struct cfs_list link;
	struct cfs_node *n;
	struct cfs_conn *conn;		/* NULL: gone, and only objects under way hold this */
	struct cfs_conn shim;
	bool ready, in_shard, closing;
	uint32_t role;
	uint64_t session;
	uint32_t in_flight;		/* requests not answered yet */
	struct node_started started[NODE_STARTED]; /* of those, by the lowest bits of their tags */
	unsigned refs;			/* the connection, and each object operation */
	struct cfs_timer hello;
	struct cfs_list reads; /* node_read.link: wait for the leadership to be confirmed */
};

/* a request that waits in cfs_raft_log_read() */
struct node_read {
	struct cfs_raft_read read;
	struct cfs_list link;
	struct node_conn *nc;
	struct cfs_msg *msg;
};

struct node_purge;
struct node_scrub;

enum node_phase { NODE_STARTING, NODE_SERVING, NODE_FAILED, NODE_STOPPING, NODE_STOPPED };

struct cfs_node {
	struct cfs_node_params p;
	char *listen, *advertise, *state_dir, *shard_dir;
	enum node_phase phase;
	int state_fd;			/* holds the lock of state_dir */
	uint8_t cluster[16];
	struct node_target targets[CFS_NODE_TARGETS_MAX];
	unsigned n_targets;
	struct cfs_journal *journal;
	struct cfs_raft_log *raft;
	struct cfs_ckpt *ckpt;
	struct cfs_meta *meta;
	struct cfs_shard *shard;
	struct cfs_peers *peers;
	bool raft_leads;
	uint64_t raft_term;
	uint64_t map_index; /* where the map that we proposed will be; 0: none on its way */
	struct cfs_map *map;		/* NULL: none yet */
	void *map_bytes;		/* the same, encoded */
	uint32_t map_len;
	struct cfs_time log_time;	/* of the last entry applied */
	struct cfs_timer settle;	/* what is applied is to be committed to LMDB */
	struct cfs_list conns;
	unsigned n_conns, n_ops;
	struct cfs_list ops;		/* object requests under way */
	struct cfs_net_ops shim_ops;
	struct cfs_net shim_net;
	struct cfs_timer timer;		/* starting, or stopping */
	bool restoring;			/* the state is being made from a checkpoint */
	struct node_purge *purge;
	struct node_scrub *scrub;
	uint8_t *scratch;		/* CFS_BODY_MAX, for replies */
	struct node_opstat *opstat;
	char why[1024];
	void (*stopped)(void *arg);
	unsigned stores_stopping;	/* cfs_store_stop() under way */
	bool stores_stopped;
	/* figures */
	uint64_t born_ns, open_ns, restore_ns, serving_ns;
	uint64_t n_requests, n_obj_writes, n_obj_reads, n_obj_bytes_in, n_obj_bytes_out, n_refused;
};

/* node.c */
void cfs_node_fail(struct cfs_node *n, int err, const char *why);

/* node_log.c */
extern const struct cfs_raft_user cfs_node_raft_user;
/* the map in the state becomes n->map; none yet is fine */
int cfs_node_load_map(struct cfs_node *n);
int cfs_node_open_meta(struct cfs_node *n, char *errbuf, size_t errlen);
int cfs_node_make_shard(struct cfs_node *n);
/* how much log until the next checkpoint, by the size of the state */
void cfs_node_pace_checkpoints(struct cfs_node *n);
/* which objects the log's snapshot names; else why not: static text */
const char *cfs_node_manifest(struct cfs_node *n, struct cfs_ckpt_manifest *ret);

/* conn.c */
extern const struct cfs_conn_handler cfs_node_handler;
void cfs_node_conns_init(struct cfs_node *n);
void cfs_node_conns_close(struct cfs_node *n);
void cfs_node_conn_put(struct node_conn *nc);
/*
 * answer a request; also when the connection has gone. With a payload: payload_done is always
 * called
 */
void cfs_node_reply(struct node_conn *nc, const struct cfs_msg_hdr *req, uint32_t status,
		    const void *body, uint32_t body_len);
void cfs_node_reply_send(struct node_conn *nc, struct cfs_send *send);

/* opstat.c */
int cfs_node_opstat_init(struct cfs_node *n);
void cfs_node_opstat_free(struct cfs_node *n);
/* a request came, and its answer goes to the network (or nowhere: its connection has gone) */
void cfs_node_opstat_start(struct node_conn *nc, const struct cfs_msg_hdr *req);
void cfs_node_opstat_end(struct node_conn *nc, const struct cfs_msg_hdr *reply);
/* { opcode's name: cfs_latency_json() with percentiles in us }, of those that came */
struct json_t *cfs_node_opstat_json(const struct cfs_node *n);

/* objects.c */
void cfs_node_object(struct node_conn *nc, struct cfs_msg *msg);
void cfs_node_objects_abandon(struct cfs_node *n);
struct cfs_store *cfs_node_store(struct cfs_node *n, uint32_t target);

/* scrub.c */
int cfs_node_scrub_init(struct cfs_node *n);
void cfs_node_scrub_start(struct cfs_node *n);	/* the state is there */
/* while held, no helper thread begins to read the state; false: one does at this moment */
bool cfs_node_scrub_hold(struct cfs_node *n, bool hold);
void cfs_node_scrub_close(struct cfs_node *n);
void cfs_node_scrub_abandon(struct cfs_node *n);
void cfs_node_scrub_free(struct cfs_node *n);
bool cfs_node_scrub_busy(const struct cfs_node *n);
uint64_t cfs_node_scrub_deleted(const struct cfs_node *n);	/* objects, since the start */

/* purge.c */
int cfs_node_purge_init(struct cfs_node *n);
void cfs_node_purge_close(struct cfs_node *n);
void cfs_node_purge_free(struct cfs_node *n);
bool cfs_node_purge_busy(const struct cfs_node *n);
void cfs_node_delete_objects(void *arg, const struct cfs_dead *dead, unsigned count);
void cfs_node_fetch(void *arg, struct cfs_ckpt *ck, const char *addr, uint32_t target,
		    const struct cfs_oid *oid, uint32_t len);

#endif
