/* SPDX-License-Identifier: MIT */
/*
 * objects.c - OBJ_* requests against this node's stores.
 *
 * No byte of data is copied: a written payload stays in the buffer it was received into until the
 * store has it, and a read is answered from the store's own buffer, which is released when the
 * network has sent it.
 */
#include "server/cluster/node_i.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct obj_op {
	struct cfs_list link;		/* in node.ops */
	struct node_conn *nc;
	struct cfs_store *store;
	struct cfs_msg_hdr hdr;		/* of the request */
	struct cfs_msg *msg;		/* taken, or NULL */
	union {
		struct cfs_store_write wr;
		struct cfs_store_read rd;
		struct cfs_store_delete del;
	};
	uint32_t crcs[CFS_OBJECT_CRCS];
	struct cfs_oid oids[];		/* DELETE */
};

struct cfs_store *cfs_node_store(struct cfs_node *n, uint32_t target)
{
	for (unsigned i = 0; i < n->n_targets; i++)
		if (n->targets[i].id == target)
			return n->targets[i].store;
	return NULL;
}

static uint32_t status_of(int err)
{
	return err == 0	       ? 0 :
	       err == -ENOENT  ? CFS_E_NOOBJECT :
	       err == -EBADMSG ? CFS_E_CORRUPT :
				 (uint32_t)-err;
}

static struct obj_op *op_new(struct node_conn *nc, struct cfs_store *store,
			     const struct cfs_msg *msg, uint32_t n_oids)
{
	struct obj_op *op = calloc(1, sizeof(*op) + n_oids * sizeof(op->oids[0]));

	if (!op)
		return NULL;
	op->nc = nc;
	op->store = store;
	op->hdr = msg->hdr;
	nc->refs++;
	cfs_list_add_tail(&nc->n->ops, &op->link);
	nc->n->n_ops++;
	return op;
}

static void op_free(struct obj_op *op)
{
	struct cfs_node *n = op->nc->n;

	cfs_list_del(&op->link);
	cfs_msg_free(op->msg);
	cfs_node_conn_put(op->nc);
	n->n_ops--;
	free(op);
}

/* the stores will not answer any more */
void cfs_node_objects_abandon(struct cfs_node *n)
{
	while (!cfs_list_empty(&n->ops))
		op_free(cfs_list_first(&n->ops, struct obj_op, link));
}

/*
 * What the first target says once its device is gone is not the answer to anything: it has the journal, too, so the server
 * stops, and who asked asks again when it is back.
 */
static bool journal_lost(struct obj_op *op)
{
	struct cfs_node *n = op->nc->n;

	if (!n->targets[0].dev->stat.gone)
		return false;
	cfs_node_fail(n, -ENODEV, "the target with the journal");
	op_free(op);
	return true;
}

/* ---- write ----------------------------------------------------------------------------------- */

static void written(struct cfs_store_write *w, int err)
{
	struct obj_op *op = w->user;

	if (err && journal_lost(op))
		return;
	cfs_node_reply(op->nc, &op->hdr, status_of(err), NULL, 0);
	op_free(op);
}

static uint32_t obj_write(struct node_conn *nc, struct cfs_msg *msg,
			  const struct cfs_obj_write_req *req, struct cfs_cursor *c,
			  struct cfs_store *store)
{
	uint32_t len = cfs_le32_to_cpu(req->len), n_crcs = cfs_crc_blocks(len);
	struct cfs_node *n = nc->n;
	struct obj_op *op;
	const void *crcs;

	if (len == 0 || len > CFS_OBJECT_MAX || len != cfs_le32_to_cpu(msg->hdr.payload_len))
		return CFS_E_PROTO;
	crcs = cfs_take_array(c, n_crcs, sizeof(cfs_le32), "crcs");
	if (cfs_cursor_end(c))
		return CFS_E_PROTO;
	/* what a fenced client still has on its way must not land after it was given up */
	if (nc->role != CFS_ROLE_PEER && cfs_node_is_leader(n) &&
	    !cfs_meta_session_exists(n->meta, cfs_le64_to_cpu(msg->hdr.session)))
		return CFS_E_BADSESSION;
	if (nc->role != CFS_ROLE_PEER &&
	    cfs_le64_to_cpu(req->oid.owner) != cfs_le64_to_cpu(msg->hdr.session))
		return CFS_E_PROTO;	/* nobody makes objects in another's name */
	op = op_new(nc, store, msg, 0);
	if (!op)
		return ENOMEM;
	op->msg = cfs_msg_take(msg);
	if (!op->msg) {
		op_free(op);
		return ENOMEM;
	}
	for (uint32_t i = 0; i < n_crcs; i++)
		op->crcs[i] = cfs_get_le32((const uint8_t *)crcs + i * sizeof(cfs_le32));
	op->wr.oid = req->oid;
	op->wr.data = op->msg->payload;
	op->wr.len = len;
	op->wr.n_crcs = n_crcs;
	op->wr.crcs = op->crcs;
	op->wr.done = written;
	op->wr.user = op;
	n->n_obj_writes++;
	n->n_obj_bytes_in += len;
	cfs_store_write(store, &op->wr);
	return 0;
}

/* ---- read ------------------------------------------------------------------------------------ */

static void read_sent(void *arg)
{
	struct obj_op *op = arg;

	cfs_store_read_release(op->store, &op->rd);
	op_free(op);
}

static void read_done(struct cfs_store_read *r, int err)
{
	struct obj_op *op = r->user;
	struct cfs_node *n = op->nc->n;
	struct cfs_obj_read_rep rep;
	struct cfs_builder b;

	if (err && journal_lost(op))
		return;
	if (err) {
		cfs_node_reply(op->nc, &op->hdr, status_of(err), NULL, 0);
		op_free(op);
		return;
	}
	rep = (struct cfs_obj_read_rep){
		.obj_len = cfs_cpu_to_le32(r->obj_len),
		.off = cfs_cpu_to_le32(r->ret_off),
		.len = cfs_cpu_to_le32(r->ret_len),
	};
	cfs_builder_init(&b, n->scratch, CFS_BODY_MAX);
	cfs_put_struct(&b, &rep);
	for (uint32_t i = 0; i < r->n_crcs; i++) {
		cfs_le32 crc = cfs_cpu_to_le32(r->crcs[i]);

		cfs_put_struct(&b, &crc);
	}
	CFS_ASSERT(cfs_builder_ok(&b) == 0 && r->ret_len <= CFS_PAYLOAD_MAX);
	n->n_obj_bytes_out += r->ret_len;
	struct cfs_send send = {
		.body = n->scratch,
		.body_len = (uint32_t)b.len,
		.payload = r->data,
		.payload_len = r->ret_len,
		.payload_done = read_sent,
		.payload_arg = op,
	};
	cfs_hdr_init_reply(&send.hdr, &op->hdr, 0);
	send.hdr.map_epoch = cfs_cpu_to_le64(n->map ? n->map->epoch : 0);
	cfs_node_reply_send(op->nc, &send);
}

static uint32_t obj_read(struct node_conn *nc, struct cfs_msg *msg,
			 const struct cfs_obj_read_req *req, struct cfs_store *store)
{
	uint32_t off = cfs_le32_to_cpu(req->off), len = cfs_le32_to_cpu(req->len);
	struct obj_op *op;

	if (len == 0 || len > CFS_OBJECT_MAX || off >= CFS_OBJECT_MAX || off + len > CFS_OBJECT_MAX)
		return CFS_E_PROTO;
	op = op_new(nc, store, msg, 0);
	if (!op)
		return ENOMEM;
	op->rd.oid = req->oid;
	op->rd.off = off;
	op->rd.len = len;
	op->rd.done = read_done;
	op->rd.user = op;
	nc->n->n_obj_reads++;
	cfs_store_read(store, &op->rd);
	return 0;
}

/* ---- delete and list ------------------------------------------------------------------------- */

static void deleted(struct cfs_store_delete *d, int err)
{
	struct obj_op *op = d->user;

	if (err && journal_lost(op))
		return;
	cfs_node_reply(op->nc, &op->hdr, status_of(err), NULL, 0);
	op_free(op);
}

static uint32_t obj_delete(struct node_conn *nc, struct cfs_msg *msg,
			   const struct cfs_obj_delete_req *req, struct cfs_cursor *c,
			   struct cfs_store *store)
{
	uint32_t count = cfs_le32_to_cpu(req->n);
	struct obj_op *op;
	const void *oids;

	if (count == 0 || count > CFS_OBJ_LIST_MAX)
		return CFS_E_PROTO;
	oids = cfs_take_array(c, count, sizeof(struct cfs_oid), "oids");
	if (cfs_cursor_end(c))
		return CFS_E_PROTO;
	op = op_new(nc, store, msg, count);
	if (!op)
		return ENOMEM;
	memcpy(op->oids, oids, count * sizeof(struct cfs_oid));
	for (uint32_t i = 0; i < count; i++) {
		uint64_t owner = cfs_le64_to_cpu(op->oids[i].owner);

		/*
		 * a client may take back what it wrote and did not commit; deleting is the shards'
		 * business
		 */
		if (nc->role != CFS_ROLE_PEER && owner != cfs_le64_to_cpu(msg->hdr.session)) {
			op_free(op);
			return EPERM;
		}
	}
	op->del.oids = op->oids;
	op->del.n = count;
	op->del.done = deleted;
	op->del.user = op;
	cfs_store_delete(store, &op->del);
	return 0;
}

static uint32_t obj_list(struct node_conn *nc, const struct cfs_msg *msg,
			 const struct cfs_obj_list_req *req, struct cfs_store *store)
{
	uint32_t max = cfs_le32_to_cpu(req->max), *lens;
	uint64_t cursor = cfs_le64_to_cpu(req->cursor);
	struct cfs_obj_list_rep rep = { 0 };
	struct cfs_oid *oids;
	struct cfs_builder b;
	int got;

	if (max == 0 || max > CFS_OBJ_LIST_MAX)
		return CFS_E_PROTO;
	oids = calloc(max, sizeof(*oids));
	lens = calloc(max, sizeof(*lens));
	if (!oids || !lens) {
		free(oids);
		free(lens);
		return ENOMEM;
	}
	got = cfs_store_list(store, &cursor, oids, lens, max);
	if (got > 0) {
		rep.n = cfs_cpu_to_le32((uint32_t)got);
		rep.cursor = cfs_cpu_to_le64(cursor);
	}
	cfs_builder_init(&b, nc->n->scratch, CFS_BODY_MAX);
	cfs_put_struct(&b, &rep);
	for (int i = 0; i < got; i++) {
		struct cfs_obj_list_entry e = { .oid = oids[i], .len = cfs_cpu_to_le32(lens[i]) };

		cfs_put_struct(&b, &e);
	}
	free(oids);
	free(lens);
	if (got < 0)
		return (uint32_t)-got;
	CFS_ASSERT(cfs_builder_ok(&b) == 0);
	cfs_node_reply(nc, &msg->hdr, 0, nc->n->scratch, (uint32_t)b.len);
	return 0;
}
_Static_assert(sizeof(struct cfs_obj_list_rep) +
			       CFS_OBJ_LIST_MAX * sizeof(struct cfs_obj_list_entry) <=
		       CFS_BODY_MAX,
	       "a full list fits a body");

/* ---- all ------------------------------------------------------------------------------------- */

union obj_req {
	struct cfs_obj_write_req write;
	struct cfs_obj_read_req read;
	struct cfs_obj_delete_req del;
	struct cfs_obj_list_req list;
};

void cfs_node_object(struct node_conn *nc, struct cfs_msg *msg)
{
	uint64_t epoch = cfs_le64_to_cpu(msg->hdr.map_epoch);
	uint16_t opcode = cfs_le16_to_cpu(msg->hdr.opcode);
	struct cfs_node *n = nc->n;
	struct cfs_store *store;
	union obj_req req;
	uint32_t target = 0, status;
	struct cfs_cursor c;

	cfs_cursor_init(&c, msg->body, cfs_le32_to_cpu(msg->hdr.body_len));
	switch (opcode) {
	case CFS_OP_OBJ_WRITE:
		cfs_take_struct(&c, &req.write);
		target = cfs_le32_to_cpu(req.write.target);
		break;
	case CFS_OP_OBJ_READ:
		cfs_take_struct(&c, &req.read);
		cfs_cursor_end(&c);
		target = cfs_le32_to_cpu(req.read.target);
		break;
	case CFS_OP_OBJ_DELETE:
		cfs_take_struct(&c, &req.del);
		target = cfs_le32_to_cpu(req.del.target);
		break;
	default:
		cfs_take_struct(&c, &req.list);
		cfs_cursor_end(&c);
		target = cfs_le32_to_cpu(req.list.target);
		break;
	}
	store = cfs_node_store(n, target);
	if (c.err || (opcode != CFS_OP_OBJ_WRITE && msg->hdr.payload_len))
		status = CFS_E_PROTO;
	else if (epoch && n->map && epoch < n->map->epoch)
		status = CFS_E_MAPEPOCH;
	else if (!store)
		status = CFS_E_MAPEPOCH;	/* whoever looked for it here has a wrong map */
	else if (opcode == CFS_OP_OBJ_WRITE)
		status = obj_write(nc, msg, &req.write, &c, store);
	else if (opcode == CFS_OP_OBJ_READ)
		status = obj_read(nc, msg, &req.read, store);
	else if (opcode == CFS_OP_OBJ_DELETE)
		status = obj_delete(nc, msg, &req.del, &c, store);
	else
		status = obj_list(nc, msg, &req.list, store);
	if (status)
		cfs_node_reply(nc, &msg->hdr, status, NULL, 0);
}
