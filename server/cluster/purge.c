/* SPDX-License-Identifier: MIT */
/*
 * purge.c - what a node asks of targets, its own and others, through peer connections: to delete
 * the objects of files that are gone, and, for a replica that lags too far behind, the objects of
 * its leader's checkpoint.
 *
 * A round of deletions is reported to the shard when every target has answered; a round that fails
 * is forgotten, and the shard offers its objects again.
 */
#include "server/cluster/node_i.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS_MAX	4u

struct round {
	struct cfs_node *n;
	unsigned pending;
	bool failed;
	unsigned count;
	uint64_t keys[];
};

/* one target's part of a round */
struct part {
	struct cfs_peer_call call;
	struct round *round;
	uint32_t target;
	_Alignas(8) uint8_t body[];
};

struct node_purge {
	unsigned rounds;
	bool closed;
	/* the object of a checkpoint that is being fetched */
	struct cfs_peer_call fetch;
	struct cfs_obj_read_req fetch_req;
	struct cfs_ckpt *fetch_for;
};

int cfs_node_purge_init(struct cfs_node *n)
{
	n->purge = calloc(1, sizeof(*n->purge));
	return n->purge ? 0 : -ENOMEM;
}

void cfs_node_purge_close(struct cfs_node *n)
{
	n->purge->closed = true;
}

bool cfs_node_purge_busy(const struct cfs_node *n)
{
	return n->purge && (n->purge->rounds || n->purge->fetch_for);
}

void cfs_node_purge_free(struct cfs_node *n)
{
	CFS_ASSERT(!cfs_node_purge_busy(n));
	free(n->purge);
	n->purge = NULL;
}

/* ---- deleting -------------------------------------------------------------------------------- */

static void round_put(struct round *r)
{
	struct cfs_node *n = r->n;

	if (--r->pending)
		return;
	n->purge->rounds--;
	if (!r->failed && !n->purge->closed && n->shard)
		cfs_shard_dead_done(n->shard, r->keys, r->count);
	free(r);
}

static void part_done(struct cfs_peer_call *call, int err, struct cfs_msg *reply)
{
	struct part *part = call->user;
	struct round *r = part->round;
	uint32_t status = reply ? cfs_le32_to_cpu(reply->hdr.status) : 0;

	if (err || status) {
		r->failed = true;
		if (!r->n->purge->closed)
			cfs_warn("target %" PRIu32 " did not delete objects: %s", part->target,
				 err	      ? strerror(-err) :
				 status < 512 ? strerror((int)status) :
						"it refused");
	}
	free(part);
	round_put(r);
}

/* is `target` one of those that hold the object? */
static bool on_target(const struct cfs_map *map, const struct cfs_oid *oid, uint32_t target)
{
	const uint32_t *row = cfs_map_pg(map, oid);

	for (uint32_t i = 0; row && i < map->replicas; i++)
		if (row[i] == target)
			return true;
	return false;
}

static void send_part(struct round *r, const struct cfs_map_target *t, const struct cfs_dead *dead)
{
	uint32_t id = cfs_le32_to_cpu(t->id), count = 0;
	struct cfs_obj_delete_req *req;
	struct cfs_oid *oids;
	struct part *part;

	for (unsigned i = 0; i < r->count; i++)
		count += on_target(r->n->map, &dead[i].oid, id);
	if (!count)
		return;
	part = calloc(1, sizeof(*part) + sizeof(*req) + count * sizeof(*oids));
	if (!part) {
		r->failed = true;
		return;
	}
	req = (struct cfs_obj_delete_req *)(void *)part->body;
	oids = (struct cfs_oid *)(void *)(part->body + sizeof(*req));
	req->target = t->id;
	req->n = cfs_cpu_to_le32(count);
	for (unsigned i = 0; i < r->count; i++)
		if (on_target(r->n->map, &dead[i].oid, id))
			*oids++ = dead[i].oid;
	part->round = r;
	part->target = id;
	part->call = (struct cfs_peer_call){
		.opcode = CFS_OP_OBJ_DELETE,
		.map_epoch = r->n->map->epoch,
		.body = part->body,
		.body_len = (uint32_t)(sizeof(*req) + count * sizeof(*oids)),
		.done = part_done,
		.user = part,
	};
	if (cfs_peer_call(r->n->peers, t->addr, &part->call)) {
		r->failed = true;
		free(part);
		return;
	}
	r->pending++;
}

void cfs_node_delete_objects(void *arg, const struct cfs_dead *dead, unsigned count)
{
	struct cfs_node *n = arg;
	struct round *r;

	if (n->purge->closed || !n->map || !count || count > CFS_OBJ_LIST_MAX ||
	    n->purge->rounds >= ROUNDS_MAX)
		return;
	r = calloc(1, sizeof(*r) + count * sizeof(r->keys[0]));
	if (!r)
		return;
	r->n = n;
	r->count = count;
	r->pending = 1;
	n->purge->rounds++;
	for (unsigned i = 0; i < count; i++) {
		r->keys[i] = dead[i].key;
		if (!cfs_map_pg(n->map, &dead[i].oid))
			cfs_err("dead object %" PRIu64 ":%" PRIu64
				" names a placement group that is not in the map",
				cfs_le64_to_cpu(dead[i].oid.owner),
				cfs_le64_to_cpu(dead[i].oid.seq));
	}
	for (uint32_t i = 0; i < n->map->n_targets; i++)
		send_part(r, &n->map->targets[i], dead);
	round_put(r);
}

/* ---- fetching a checkpoint's objects --------------------------------------------------------- */

/* the payload, when reply and checksums say it is the whole object; else NULL */
static const void *fetched_data(struct cfs_msg *reply, uint32_t *ret_len)
{
	uint32_t crcs[CFS_OBJECT_CRCS], len = cfs_le32_to_cpu(reply->hdr.payload_len);
	struct cfs_obj_read_rep rep;
	struct cfs_cursor c;
	const void *array;

	cfs_cursor_init(&c, reply->body, cfs_le32_to_cpu(reply->hdr.body_len));
	cfs_take_struct(&c, &rep);
	if (c.err || len == 0 || len > CFS_OBJECT_MAX || cfs_le32_to_cpu(rep.len) != len || rep.off)
		return NULL;
	array = cfs_take_array(&c, cfs_crc_blocks(len), sizeof(cfs_le32), "crcs");
	if (cfs_cursor_end(&c))
		return NULL;
	for (uint32_t i = 0; i < cfs_crc_blocks(len); i++)
		crcs[i] = cfs_get_le32((const uint8_t *)array + i * sizeof(cfs_le32));
	if (cfs_payload_verify(reply->payload, len, crcs) >= 0)
		return NULL;
	*ret_len = len;
	return reply->payload;
}

static void fetch_done(struct cfs_peer_call *call, int err, struct cfs_msg *reply)
{
	struct cfs_node *n = call->user;
	struct cfs_ckpt *ck = n->purge->fetch_for;
	const void *data = NULL;
	uint32_t len = 0;

	n->purge->fetch_for = NULL;
	if (!err && reply->hdr.status)
		err = -EREMOTEIO;
	if (!err) {
		data = fetched_data(reply, &len);
		if (!data)
			err = -EBADMSG;
	}
	cfs_ckpt_fetched(ck, err, data, len);
}

void cfs_node_fetch(void *arg, struct cfs_ckpt *ck, const char *addr, uint32_t target,
		    const struct cfs_oid *oid, uint32_t len)
{
	struct cfs_node *n = arg;
	int rc;

	CFS_ASSERT(!n->purge->fetch_for);
	n->purge->fetch_req = (struct cfs_obj_read_req){ .oid = *oid,
							 .target = cfs_cpu_to_le32(target),
							 .len = cfs_cpu_to_le32(len) };
	n->purge->fetch = (struct cfs_peer_call){ .opcode = CFS_OP_OBJ_READ,
						  .body = &n->purge->fetch_req,
						  .body_len = sizeof(n->purge->fetch_req),
						  .done = fetch_done,
						  .user = n };
	n->purge->fetch_for = ck;
	rc = cfs_peer_call(n->peers, addr, &n->purge->fetch);
	if (rc) {
		n->purge->fetch_for = NULL;
		cfs_ckpt_fetched(ck, rc, NULL, 0);
	}
}
