/* SPDX-License-Identifier: MIT */
/*
 * data_objects.c - turns dirty ranges into objects and writes them to all targets of their placement groups.
 *
 * A round is what is committed together: objects of one or several inodes. Each is sent when the next one is begun, so
 * that bytes are read and checksummed here while the targets write those before; when no buffer is free, the oldest one is used again as soon
 * as its objects have been written. An object belongs to one inode. Long
 * ranges are cut where the file's offset is a multiple of CFS_OBJECT_MAX, so that rewriting replaces whole
 * objects; short scattered ranges of a file are packed together, an extent each. An object that cannot be written to
 * all its targets is written again under another name to another placement group; the rest of it is garbage for scrub.
 * A round belongs to one thread; the buffers come from a bounded pool.
 */
#include "client/data_i.h"

#include "base/crc32c.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define OBJECTS_MAX	64u		/* in a round */
#define BUFS_MAX	8u
#define CALLS_MAX	CFS_FLIGHT_MAX
#define PIECES_MAX	CFS_DATA_COMMIT_EXTENTS
#define ATTEMPTS_MAX	8u		/* placement groups tried for an object */
#define SMALL_PIECE	(1u << 20)	/* packed together */
#define COMMIT_BYTES	(64ull << 20)	/* at most between two COMMITs of a file */
#define ALIGN		4096u

struct piece {
	uint64_t off;		/* in the file */
	uint32_t len;
	uint32_t obj_off;
};

struct object {
	struct cfs_data_job *job;	/* NULL: cfs_data_object_put() */
	uint64_t ino;
	unsigned char *data;
	uint32_t len;
	uint32_t first, n;	/* pieces */
	int rc;			/* -EAGAIN: not yet written */
	uint32_t buf;		/* data is in the buffer of this number */
	int first_call;		/* -1: not sent yet, or written and done with */
	struct cfs_obj_write_req req[CFS_DATA_REPLICAS_MAX];
	struct iovec body[CFS_DATA_REPLICAS_MAX][2];
	uint32_t targets[CFS_DATA_REPLICAS_MAX];
	unsigned n_targets;
	struct cfs_oid oid;
	cfs_le32 crcs[CFS_OBJECT_CRCS];
};

struct cfs_data_objects {
	struct cfs_data_ctx *g;
	unsigned char *bufs[BUFS_MAX];	/* buffer number n is the (n % BUFS_MAX)th */
	uint32_t first_buf, end_buf;
	uint32_t used;		/* bytes of the last buffer */
	struct object objects[OBJECTS_MAX];
	unsigned n_objects, n_ready;	/* n_ready: checksummed, and sent if there was room in the flight */
	unsigned n_written;	/* the first ones, of which the buffer has been used again */
	struct cfs_flight flight;
	struct cfs_call calls[CALLS_MAX];
	int rc[CALLS_MAX];
	unsigned n_calls;
	struct piece pieces[PIECES_MAX];
	uint32_t n_pieces;
};

/* ---- buffers --------------------------------------------------------------------------- */
static unsigned char *buf_get(struct cfs_data_ctx *g, bool wait)
{
	unsigned char *buf = NULL;

	pthread_mutex_lock(&g->buf_lock);
	while (!g->n_bufs && g->n_bufs_made == CFS_DATA_BUFS && wait)
		pthread_cond_wait(&g->buf_cond, &g->buf_lock);
	if (g->n_bufs) {
		buf = g->bufs[--g->n_bufs];
	} else if (g->n_bufs_made < CFS_DATA_BUFS) {
		buf = aligned_alloc(ALIGN, CFS_OBJECT_MAX);
		if (buf)
			g->n_bufs_made++;
	}
	pthread_mutex_unlock(&g->buf_lock);
	return buf;
}

static void buf_put(struct cfs_data_ctx *g, unsigned char *buf)
{
	pthread_mutex_lock(&g->buf_lock);
	g->bufs[g->n_bufs++] = buf;
	pthread_cond_signal(&g->buf_cond);
	pthread_mutex_unlock(&g->buf_lock);
}

struct cfs_data_objects *cfs_data_objects_new(struct cfs_data_ctx *g)
{
	struct cfs_data_objects *o = malloc(sizeof(*o));

	if (o) {
		o->g = g;
		o->first_buf = o->end_buf = o->used = o->n_pieces = 0;
		o->n_objects = o->n_ready = o->n_written = o->n_calls = 0;
		cfs_flight_init(&o->flight, g->c, o->calls, o->rc);
	}
	return o;
}

static void round_reset(struct cfs_data_objects *o)
{
	while (o->first_buf != o->end_buf)
		buf_put(o->g, o->bufs[o->first_buf++ % BUFS_MAX]);
	o->n_objects = o->n_ready = o->n_written = o->n_calls = 0;
	o->n_pieces = o->used = 0;
}

void cfs_data_objects_free(struct cfs_data_objects *o)
{
	if (!o)
		return;
	CFS_ASSERT(!o->n_calls);
	round_reset(o);
	free(o);
}

/* ---- sending ------------------------------------------------------------------------------- */
static void checksum(struct object *obj)
{
	for (uint32_t off = 0; off < obj->len; off += CFS_CRC_BLOCK)
		obj->crcs[off / CFS_CRC_BLOCK] = cfs_cpu_to_le32(
			cfs_crc32c(0, obj->data + off, cfs_min(CFS_CRC_BLOCK, obj->len - off)));
}

/* a name and the calls that write it everywhere; how many calls */
static unsigned prepare(struct cfs_data_ctx *g, struct object *obj, unsigned attempt, struct cfs_call *calls,
			uint32_t *targets)
{
	uint32_t n_crcs = (obj->len + CFS_CRC_BLOCK - 1) / CFS_CRC_BLOCK;

	obj->oid = cfs_client_new_oid(g->c, attempt);
	obj->n_targets = cfs_client_pg_targets(g->c, &obj->oid, obj->targets, CFS_DATA_REPLICAS_MAX);
	for (unsigned i = 0; i < obj->n_targets; i++) {
		obj->req[i] = (struct cfs_obj_write_req){
			.oid = obj->oid, .target = cfs_cpu_to_le32(obj->targets[i]), .len = cfs_cpu_to_le32(obj->len),
		};
		obj->body[i][0] = (struct iovec){ &obj->req[i], sizeof(obj->req[i]) };
		obj->body[i][1] = (struct iovec){ obj->crcs, n_crcs * sizeof(cfs_le32) };
		calls[i] = (struct cfs_call){
			.opcode = CFS_OP_OBJ_WRITE, .body = obj->body[i], .n_body = 2, .payload = obj->data,
			.payload_len = obj->len,
		};
		targets[i] = obj->targets[i];
	}
	return obj->n_targets;
}

/* objects before `end` are complete: off with them */
static void send_ready(struct cfs_data_objects *o, unsigned end)
{
	for (; o->n_ready < end; o->n_ready++) {
		struct object *obj = &o->objects[o->n_ready];
		uint32_t targets[CFS_DATA_REPLICAS_MAX];
		unsigned n;

		checksum(obj);
		obj->first_call = -1;
		if (o->n_calls + CFS_DATA_REPLICAS_MAX > CALLS_MAX)
			continue;
		obj->first_call = (int)o->n_calls;
		n = prepare(o->g, obj, 0, o->calls + o->n_calls, targets);
		for (unsigned i = 0; i < n; i++)
			cfs_flight_send(&o->flight, targets[i]);
		o->n_calls += n;
	}
}

/* ---- what became of it ----------------------------------------------------------------------- */
/* what became of an object's copies. `last`: it will not be tried again */
static void judge(struct cfs_data_ctx *g, struct object *obj, const int *rc, bool last)
{
	int bad = obj->n_targets ? 0 : EIO;
	uint32_t target = 0;

	for (unsigned i = 0; i < obj->n_targets; i++)
		if (rc[i]) {
			bad = rc[i];
			target = obj->targets[i];
		}
	if (!bad) {
		obj->rc = 0;
		stat_add(g, bytes_written_net, (uint64_t)obj->len * obj->n_targets);
		return;
	}
	obj->rc = bad == CFS_E_BADSESSION ? -EIO : last ? cfs_data_errno(bad) : -EAGAIN;
	if (!obj->n_targets)
		cfs_warn("inode %" PRIx64 ": no targets to write to are known", obj->ino);
	else
		cfs_warn("inode %" PRIx64 ": object %" PRIx64 ".%" PRIx64 " cannot be written to target %u: error %d%s",
			 obj->ino, cfs_le64_to_cpu(obj->oid.owner), cfs_le64_to_cpu(obj->oid.seq), target, bad,
			 last ? "" : "; trying another placement group");
}

/* wait until all that is in the oldest buffer has been written, and have the buffer again. False: some of it has not been, or was not sent */
static bool recycle(struct cfs_data_objects *o)
{
	while (o->n_written < o->n_ready && o->objects[o->n_written].buf == o->first_buf) {
		struct object *obj = &o->objects[o->n_written];
		int bad = 0;

		if (obj->first_call < 0 || !obj->n_targets)
			return false;
		for (unsigned i = 0; i < obj->n_targets; i++)
			bad |= cfs_flight_wait(&o->flight, (unsigned)obj->first_call + i);
		if (bad)
			return false;	/* the end of the round sees to it, and needs its bytes */
		judge(o->g, obj, o->rc + obj->first_call, false);
		obj->first_call = -1;
		o->n_written++;
	}
	if (o->n_written < o->n_objects && o->objects[o->n_written].buf == o->first_buf)
		return false;
	o->bufs[o->end_buf % BUFS_MAX] = o->bufs[o->first_buf % BUFS_MAX];
	o->first_buf++;
	o->end_buf++;
	return true;
}

/* ---- filling a round --------------------------------------------------------------------- */
static bool add_buffer(struct cfs_data_objects *o)
{
	bool first = o->first_buf == o->end_buf;
	unsigned char *buf;

	if (o->end_buf - o->first_buf == BUFS_MAX)
		return recycle(o);
	/* the first is waited for; who holds one never waits */
	buf = buf_get(o->g, first);
	if (!buf)
		return !first && recycle(o);
	o->bufs[o->end_buf++ % BUFS_MAX] = buf;
	return true;
}

/* room for len bytes at the next aligned place; NULL: the round is full */
static unsigned char *room(struct cfs_data_objects *o, uint32_t len)
{
	uint32_t at = (uint32_t)cfs_align_up(o->used, ALIGN);

	if (o->first_buf == o->end_buf || at + len > CFS_OBJECT_MAX) {
		if (!add_buffer(o))
			return NULL;
		at = 0;
	}
	o->used = at;
	return o->bufs[(o->end_buf - 1) % BUFS_MAX] + at;
}

/* where the next piece of this job goes: its last object if the piece is small and fits, or a new one */
static struct object *object_for(struct cfs_data_objects *o, struct cfs_data_job *j, uint32_t len)
{
	struct object *last = o->n_objects ? &o->objects[o->n_objects - 1] : NULL;
	unsigned char *data;

	if (o->n_pieces == PIECES_MAX)
		return NULL;
	if (last && last->job == j && len < SMALL_PIECE && last->len + len <= CFS_OBJECT_MAX &&
	    o->used + len <= CFS_OBJECT_MAX)
		return last;
	if (o->n_objects == OBJECTS_MAX)
		return NULL;
	send_ready(o, o->n_objects);
	data = room(o, len);
	if (!data)
		return NULL;
	last = &o->objects[o->n_objects++];
	last->job = j;
	last->ino = j->d->ino;
	last->data = data;
	last->buf = o->end_buf - 1;
	last->len = 0;
	last->first = o->n_pieces;
	last->n = 0;
	last->rc = -EAGAIN;
	return last;
}

bool cfs_data_objects_add(struct cfs_data_objects *o, struct cfs_data_job *j)
{
	struct cfs_range r;

	while (!j->rc && cfs_rangeset_next(&j->flight, j->pos, &r)) {
		uint64_t off = cfs_max(r.off, j->pos);
		uint32_t len = (uint32_t)cfs_min(r.end - off, CFS_OBJECT_MAX - off % CFS_OBJECT_MAX);
		struct object *obj;

		if (j->bytes >= COMMIT_BYTES || j->n_ext == CFS_DATA_COMMIT_EXTENTS)
			return true;	/* COMMIT first */
		obj = object_for(o, j, len);
		if (!obj) {
			if (!o->n_objects)	/* not even the first buffer */
				j->rc = -ENOMEM;
			return false;
		}
		j->rc = cfs_data_job_read(j, obj->data + obj->len, len, off);
		if (j->rc) {
			o->n_objects -= !obj->n;
			break;
		}
		o->pieces[o->n_pieces++] = (struct piece){ .off = off, .len = len, .obj_off = obj->len };
		obj->n++;
		obj->len += len;
		o->used += len;
		j->n_ext++;	/* their place in j->ext is filled when the object is written */
		j->bytes += len;
		j->pos = off + len;
	}
	return true;
}

/* ---- writing again ---------------------------------------------------------------------------- */
static void pause_after(unsigned attempt)
{
	struct timespec pause = { 0, (long)cfs_min(1u << 2 * attempt, 500u) * 1000000 };

	nanosleep(&pause, NULL);
}

/* every object that is not written yet, once; true: some are still not */
static bool write_once(struct cfs_data_objects *o, unsigned attempt)
{
	bool left = false;
	unsigned i = 0;

	while (i < o->n_objects) {
		struct cfs_call calls[CALLS_MAX];
		uint32_t targets[CALLS_MAX];
		unsigned first = i, n = 0, at = 0;
		int rc[CALLS_MAX];

		for (; i < o->n_objects && n + CFS_DATA_REPLICAS_MAX <= CALLS_MAX; i++)
			if (o->objects[i].rc == -EAGAIN)
				n += prepare(o->g, &o->objects[i], attempt, calls + n, targets + n);
		if (n == 1)
			rc[0] = cfs_call_target(o->g->c, targets[0], &calls[0]);
		else if (n)
			cfs_call_targets(o->g->c, targets, calls, rc, n);
		for (unsigned k = first; k < i; k++) {
			struct object *obj = &o->objects[k];

			if (obj->rc != -EAGAIN)
				continue;
			judge(o->g, obj, rc + at, attempt + 1 == ATTEMPTS_MAX);
			at += obj->n_targets;
			left |= obj->rc == -EAGAIN;
		}
	}
	return left;
}

/* one extent per piece; j->n_ext counts them already */
static int add_extents(const struct cfs_data_objects *o, const struct object *obj, uint32_t at)
{
	struct cfs_data_job *j = obj->job;

	if (j->n_ext > j->cap_ext) {
		struct cfs_extent *ext = realloc(j->ext, j->n_ext * sizeof(*ext));

		if (!ext)
			return -ENOMEM;
		j->ext = ext;
		j->cap_ext = j->n_ext;
	}
	for (uint32_t i = 0; i < obj->n; i++) {
		const struct piece *p = &o->pieces[obj->first + i];

		j->ext[at + i] = (struct cfs_extent){
			.file_off = cfs_cpu_to_le64(p->off), .len = cfs_cpu_to_le32(p->len),
			.obj_off = cfs_cpu_to_le32(p->obj_off), .oid = obj->oid, .obj_len = cfs_cpu_to_le32(obj->len),
		};
	}
	return 0;
}

void cfs_data_objects_drop(struct cfs_data_ctx *g, const struct cfs_oid *oid)
{
	uint32_t targets[CFS_DATA_REPLICAS_MAX];
	unsigned n = cfs_client_pg_targets(g->c, oid, targets, CFS_DATA_REPLICAS_MAX);

	for (unsigned i = 0; i < n; i++) {
		struct cfs_obj_delete_req req = { .target = cfs_cpu_to_le32(targets[i]), .n = cfs_cpu_to_le32(1) };
		struct iovec body[2] = { { &req, sizeof(req) }, { (void *)(uintptr_t)oid, sizeof(*oid) } };
		struct cfs_call call = { .opcode = CFS_OP_OBJ_DELETE, .body = body, .n_body = 2 };

		/* if it cannot be deleted now it stays as garbage that fsck finds */
		(void)cfs_call_target(g->c, targets[i], &call);
	}
}

int cfs_data_object_put(struct cfs_data_ctx *g, uint64_t ino, const void *buf, uint32_t len, struct cfs_extent *ret_ext)
{
	struct object *obj = malloc(sizeof(*obj));
	struct cfs_call calls[CFS_DATA_REPLICAS_MAX];
	uint32_t targets[CFS_DATA_REPLICAS_MAX];
	int rc[CFS_DATA_REPLICAS_MAX], err;

	if (!obj)
		return -ENOMEM;
	*obj = (struct object){ .ino = ino, .data = (unsigned char *)(uintptr_t)buf, .len = len, .rc = -EAGAIN };
	checksum(obj);
	for (unsigned attempt = 0; obj->rc == -EAGAIN; attempt++) {
		unsigned n = prepare(g, obj, attempt, calls, targets);

		if (attempt)
			pause_after(attempt - 1);
		if (n == 1)
			rc[0] = cfs_call_target(g->c, targets[0], &calls[0]);
		else if (n)
			cfs_call_targets(g->c, targets, calls, rc, n);
		judge(g, obj, rc, attempt + 1 == ATTEMPTS_MAX);
	}
	*ret_ext = (struct cfs_extent){ .len = cfs_cpu_to_le32(len), .oid = obj->oid, .obj_len = cfs_cpu_to_le32(len) };
	err = obj->rc;
	free(obj);
	return err;
}

void cfs_data_objects_write(struct cfs_data_objects *o)
{
	unsigned attempt = 0;

	send_ready(o, o->n_objects);
	cfs_flight_finish(&o->flight);
	for (unsigned i = 0; i < o->n_objects; i++)
		if (o->objects[i].first_call >= 0) {
			judge(o->g, &o->objects[i], o->rc + o->objects[i].first_call, false);
			attempt = 1;
		}
	o->n_calls = 0;
	/* what was not sent, and what could not be written where it was sent */
	for (; write_once(o, attempt); attempt++)
		pause_after(attempt);
	/* an inode's pieces of this round are the last ones of its extents, in order */
	for (unsigned i = 0; i < o->n_objects;) {
		struct cfs_data_job *j = o->objects[i].job;
		uint32_t n = 0, at;
		unsigned k;

		for (k = i; k < o->n_objects && o->objects[k].job == j; k++)
			n += o->objects[k].n;
		at = j->n_ext - n;
		for (; i < k; i++) {
			if (!j->rc)
				j->rc = o->objects[i].rc;
			if (!j->rc)
				j->rc = add_extents(o, &o->objects[i], at);
			if (!j->rc)
				at += o->objects[i].n;
			else if (!o->objects[i].rc)
				cfs_data_objects_drop(o->g, &o->objects[i].oid);
		}
		if (j->rc)
			j->n_ext = at;
	}
	round_reset(o);
}
