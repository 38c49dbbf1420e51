/* SPDX-License-Identifier: MIT */
/*
 * opstat.c - requests to this node by opcode: how many came, how many were answered with an error, and the time from
 * when one was read from its connection to when its answer was handed to the network. Waiting for leases, locks, the journal and the
 * leadership is in it; the network is not.
 *
 * When a request came stands in a table of its connection, in the place that the lowest bits of its tag name: two reads of
 * the clock and no memory of its own a request. Clients count tags up, so that requests in flight have places of their own; of
 * two that share one, the older is counted without a time. All of it belongs to the node's thread.
 */
#include "server/cluster/node_i.h"

#include "obs/latency.h"
#include "rpc/opname.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

#define OPS 128u
_Static_assert(CFS_OP_RAFT < OPS, "every opcode has its place");
_Static_assert((NODE_STARTED & (NODE_STARTED - 1)) == 0, "NODE_STARTED is a power of two");

struct node_opstat {
	struct cfs_bpf_op op[OPS];
};

int cfs_node_opstat_init(struct cfs_node *n)
{
	n->opstat = calloc(1, sizeof(*n->opstat));
	return n->opstat ? 0 : -ENOMEM;
}

void cfs_node_opstat_free(struct cfs_node *n)
{
	free(n->opstat);
	n->opstat = NULL;
}

static struct node_started *place_of(struct node_conn *nc, const struct cfs_msg_hdr *h)
{
	return &nc->started[cfs_le64_to_cpu(h->tag) & (NODE_STARTED - 1)];
}

void cfs_node_opstat_start(struct node_conn *nc, const struct cfs_msg_hdr *req)
{
	*place_of(nc, req) = (struct node_started){
		.tag = cfs_le64_to_cpu(req->tag), .start_ns = cfs_clock_boot_ns(nc->n->p.clock) | 1,
	};
}

void cfs_node_opstat_end(struct node_conn *nc, const struct cfs_msg_hdr *reply)
{
	struct node_started *st = place_of(nc, reply);
	uint16_t code = cfs_le16_to_cpu(reply->opcode);
	struct cfs_bpf_op *op;
	uint64_t took;

	if (code >= OPS)
		return;
	op = &nc->n->opstat->op[code];
	op->count++;
	op->errors += reply->status != 0;
	if (!st->start_ns || st->tag != cfs_le64_to_cpu(reply->tag))
		return;
	took = cfs_clock_boot_ns(nc->n->p.clock) - (st->start_ns & ~1ull);
	st->start_ns = 0;
	op->total_ns += took;
	op->lat[cfs_bpf_lat_bucket(took)]++;
	op->max_ns = cfs_max(op->max_ns, took);
}

json_t *cfs_node_opstat_json(const struct cfs_node *n)
{
	json_t *all = json_object();
	char buf[16];

	for (uint32_t i = 0; i < OPS; i++) {
		const struct cfs_bpf_op *op = &n->opstat->op[i];
		static const struct {
			const char *name;
			unsigned permille;
		} shown[] = { { "p50_us", 500 }, { "p90_us", 900 }, { "p99_us", 990 } };
		json_t *o = op->count ? cfs_latency_json(op) : NULL;

		if (!o)
			continue;
		for (size_t k = 0; k < CFS_ARRAY_SIZE(shown); k++)
			json_object_set_new(o, shown[k].name,
					    json_real((double)cfs_latency_percentile_ns(op, shown[k].permille) / 1000));
		json_object_set_new(all, cfs_op_name(i, buf), o);
	}
	return all;
}
