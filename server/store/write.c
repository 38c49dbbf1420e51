/* SPDX-License-Identifier: MIT */
/*
 * write.c - storing objects. Writes queue while CFS_WBATCHES device writes are in flight and are
 * then gathered: what waits together and fits together is one device write. State: st->wq,
 * st->whash.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/hash.h"
#include "base/log.h"
#include "server/store/store_i.h"

struct wpriv {
	struct cfs_list q; /* in st->wq, or in another write's dups */
	struct cfs_list hash;
	struct cfs_list dups; /* the same object again, while this one is under way */
	int err;
	uint32_t pad;
	union {
		struct cfs_defer defer;
		struct cfs_rjob job; /* looking at the header of an object that exists */
	};
} __attribute__((may_alias));
_Static_assert(sizeof(struct wpriv) <= sizeof(((struct cfs_store_write *)0)->priv), "wpriv");

static struct wpriv *wpriv(struct cfs_store_write *w)
{
	return (struct wpriv *)(void *)w->priv;
}

static struct cfs_store_write *w_of(struct wpriv *p)
{
	return cfs_container_of((uint64_t *)(void *)p, struct cfs_store_write, priv);
}

static void look_again(struct cfs_timer *timer)
{
	cfs_write_pump(cfs_container_of(timer, struct cfs_store, room_timer));
}

int cfs_write_init(struct cfs_store *st)
{
	cfs_list_init(&st->wq);
	cfs_list_init(&st->wbatch_free);
	cfs_list_init(&st->flush_wait);
	cfs_list_init(&st->flush_now);
	st->room_timer.fn = look_again;
	for (uint32_t i = 0; i < CFS_WHASH; i++)
		cfs_list_init(&st->whash[i]);
	for (uint32_t i = 0; i < CFS_WBATCHES; i++) {
		struct cfs_wbatch *wb = &st->wbatches[i];

		wb->hdrs = cfs_aligned_alloc(CFS_BATCH_OBJECTS * BLK);
		if (!wb->hdrs)
			return -ENOMEM;
		cfs_list_add_tail(&st->wbatch_free, &wb->node);
	}
	return 0;
}

void cfs_write_exit(struct cfs_store *st)
{
	for (uint32_t i = 0; i < CFS_WBATCHES; i++)
		free(st->wbatches[i].hdrs);
}

static void run_done(struct cfs_defer *d)
{
	struct wpriv *p = cfs_container_of(d, struct wpriv, defer);
	struct cfs_store_write *w = w_of(p);

	w->done(w, p->err);
}

static void finish_later(struct cfs_store *st, struct cfs_store_write *w, int err)
{
	wpriv(w)->err = err;
	wpriv(w)->defer.fn = run_done;
	cfs_store_later(st, &wpriv(w)->defer);
}

/* leaves the hash; it and those that wait for the same object end the same way: see run_ended() */
static void detach(struct cfs_store_write *w, int err, struct cfs_list *ended)
{
	struct wpriv *p = wpriv(w);

	cfs_list_del(&p->hash);
	p->err = err;
	cfs_list_add_tail(ended, &p->q);
	while (!cfs_list_empty(&p->dups)) {
		struct wpriv *dup = cfs_list_first(&p->dups, struct wpriv, q);

		cfs_list_del(&dup->q);
		dup->err = err;
		cfs_list_add_tail(ended, &dup->q);
	}
}

static void run_ended(struct cfs_list *ended)
{
	while (!cfs_list_empty(ended)) {
		struct wpriv *p = cfs_list_first(ended, struct wpriv, q);

		cfs_list_del(&p->q);
		w_of(p)->done(w_of(p), p->err);
	}
}

/* the same, but not inside the present call */
static void fail(struct cfs_store *st, struct cfs_store_write *w, int err)
{
	struct cfs_list ended;

	cfs_list_init(&ended);
	detach(w, err, &ended);
	while (!cfs_list_empty(&ended)) {
		struct wpriv *p = cfs_list_first(&ended, struct wpriv, q);

		cfs_list_del(&p->q);
		finish_later(st, w_of(p), p->err);
	}
}

static bool same_content(const struct cfs_store_write *a, const struct cfs_store_write *b)
{
	return a->len == b->len && !memcmp(a->crcs, b->crcs, a->n_crcs * sizeof(*a->crcs));
}

static void exists_done(struct cfs_rjob *job, int err)
{
	struct wpriv *p = cfs_container_of(job, struct wpriv, job);
	struct cfs_store_write *w = w_of(p);

	if (!err) {
		const struct cfs_disk_rec *rec = cfs_rjob_header(job);
		const cfs_le32 *crcs = cfs_rec_crcs(rec);

		if (cfs_le32_to_cpu(rec->body_len) != w->len)
			err = -EEXIST;
		for (uint32_t i = 0; !err && i < w->n_crcs; i++)
			if (cfs_le32_to_cpu(crcs[i]) != w->crcs[i])
				err = -EEXIST;
		cfs_rjob_release(job);
	}
	/* gone between the question and the answer: the caller may try again */
	w->done(w, err == -ENOENT ? -EAGAIN : err);
}

static int check_request(const struct cfs_store *st, const struct cfs_store_write *w)
{
	const uint8_t *data = w->data;

	if (!w->len || w->n_crcs != cfs_crcs_of(w->len) || (uintptr_t)w->data % BLK)
		return -EINVAL;
	if (w->len > st->obj_max)
		return -EFBIG;
	if (st->failed || st->stopping)
		return st->failed ? -EIO : -ESHUTDOWN;
	for (uint32_t i = 0; i < w->n_crcs; i++) {
		uint32_t off = i * CFS_CRC_BLOCK;

		if (cfs_crc32c(0, data + off, cfs_min(w->len - off, CFS_CRC_BLOCK)) != w->crcs[i])
			return -EBADMSG;
	}
	return 0;
}

void cfs_store_write(struct cfs_store *st, struct cfs_store_write *w)
{
	struct wpriv *p = wpriv(w);
	struct cfs_list *head = &st->whash[cfs_hash_u64(cfs_le64_to_cpu(w->oid.seq)) % CFS_WHASH],
			*l;
	struct cfs_loc loc;
	int rc;

	memset(p, 0, sizeof(*p));
	rc = check_request(st, w);
	if (rc) {
		finish_later(st, w, rc);
		return;
	}
	cfs_list_init(&p->dups);
	cfs_list_for_each(l, head) {
		struct wpriv *other = cfs_list_entry(l, struct wpriv, hash);

		if (!cfs_oid_eq(&w_of(other)->oid, &w->oid))
			continue;
		if (same_content(w_of(other), w))
			cfs_list_add_tail(&other->dups, &p->q);
		else
			finish_later(st, w, -EEXIST);
		return;
	}
	if (cfs_index_get(st->index, &w->oid, &loc)) {
		p->job = (struct cfs_rjob){ .st = st, .oid = w->oid, .done = exists_done };
		cfs_rjob_start(&p->job);
		return;
	}
	cfs_list_add_tail(head, &p->hash);
	cfs_list_add_tail(&st->wq, &p->q);
	cfs_write_pump(st);
}

/* ---- batches ---------------------------------------------------------------------------- */

static void landed(struct cfs_batch *b, int err)
{
	struct cfs_wbatch *wb = cfs_container_of(b, struct cfs_wbatch, b);
	struct cfs_store *st = b->st;
	struct cfs_list ended;

	cfs_list_init(&ended);
	for (uint32_t i = 0; i < wb->n; i++) {
		const struct cfs_disk_rec *rec = (const void *)(wb->hdrs + i * BLK);
		struct cfs_store_write *w = wb->w[i];
		struct cfs_loc loc = { b->os->seg, cfs_le32_to_cpu(rec->seg_block), w->len };
		int rc = err;

		if (!rc) {
			struct cfs_disk_ent ent = {
				.oid = w->oid,
				.seq = cfs_rec_obj(rec)->birth,
				.segment = cfs_cpu_to_le32(loc.seg),
				.block = rec->seg_block,
				.len = cfs_cpu_to_le32(w->len),
				.type = CFS_ENT_OBJECT,
			};

			cfs_oseg_add_ent(b->os, &ent);
			rc = cfs_index_put(st->index, &w->oid, &loc);
			if (!rc) {
				cfs_seg_live(st, loc.seg, cfs_obj_blocks(w->len));
				st->bytes_user += w->len;
				cfs_cut_forget(st, &w->oid);
			}
		}
		detach(w, rc, &ended);
	}
	st->w_inflight--;
	cfs_list_add_tail(&st->wbatch_free, &wb->node);
	run_ended(&ended);
	cfs_write_pump(st);
}

static void encode_object(struct cfs_store *st, struct cfs_oseg *os, uint32_t block,
			  const struct cfs_store_write *w, void *hdr)
{
	struct cfs_seg_id id = cfs_seg_ident(st, os->seg);
	struct cfs_disk_rec *rec = hdr;
	struct cfs_disk_obj *obj = (void *)(rec + 1);
	cfs_le32 *crcs = (void *)(obj + 1);

	memset(hdr, 0, BLK);
	cfs_rec_init(rec, CFS_REC_OBJECT, &id, block, CFS_DISK_OBJ_HDR(w->n_crcs), w->len);
	rec->seq = cfs_cpu_to_le64(st->next_rec_seq++);
	rec->durable = cfs_cpu_to_le64(cfs_oseg_durable(os));
	rec->epoch = cfs_cpu_to_le64(st->epoch);
	obj->oid = w->oid;
	obj->birth = rec->seq;
	obj->len = rec->body_len;
	obj->n_crcs = cfs_cpu_to_le32(w->n_crcs);
	for (uint32_t i = 0; i < w->n_crcs; i++)
		crcs[i] = cfs_cpu_to_le32(w->crcs[i]);
	cfs_rec_seal(rec);
}

/* one device write of what waits and fits; the segment has room for the first */
static void send_batch(struct cfs_store *st, struct cfs_oseg *os)
{
	struct cfs_wbatch *wb = cfs_list_first(&st->wbatch_free, struct cfs_wbatch, node);
	struct cfs_batch *b = &wb->b;

	cfs_list_del(&wb->node);
	wb->n = 0;
	b->blocks = b->iovcnt = 0;
	while (!cfs_list_empty(&st->wq) && wb->n < CFS_BATCH_OBJECTS) {
		struct wpriv *p = cfs_list_first(&st->wq, struct wpriv, q);
		struct cfs_store_write *w = w_of(p);
		uint32_t blocks = cfs_obj_blocks(w->len);
		void *hdr = wb->hdrs + wb->n * BLK;

		if (wb->n && ((uint64_t)(b->blocks + blocks) * BLK > CFS_BATCH_BYTES ||
			      !cfs_oseg_room(st, os, b->blocks + blocks, wb->n + 1)))
			break;
		cfs_list_del(&p->q);
		encode_object(st, os, os->head + b->blocks, w, hdr);
		b->iov[b->iovcnt++] = (struct iovec){ hdr, BLK };
		b->iov[b->iovcnt++] =
			(struct iovec){ (void *)(uintptr_t)w->data, (size_t)(blocks - 1) * BLK };
		b->blocks += blocks;
		wb->w[wb->n++] = w;
	}
	b->os = os;
	b->n_ents = wb->n;
	b->landed = landed;
	cfs_batch_submit(b, !st->w_inflight++ && cfs_list_empty(&st->wq));
}

/*
 * No room, and nothing to be cleaned yet: will something be deleted? The first in line waits ROOM_WAIT_NS for it, or longer while there
 * are deletions; then all are refused, for as long, unless one has got through meanwhile.
 */
#define ROOM_WAIT_NS	(10 * CFS_NSEC_PER_SEC)
#define ROOM_LOOK_NS	(100 * CFS_NSEC_PER_MSEC)

static bool waits_for_room(struct cfs_store *st)
{
	uint64_t now = cfs_clock_boot_ns(st->clock);

	if (st->failed || st->stopping || !st->room_coming || !st->room_coming(st->arg)) {
		st->no_room = (struct cfs_patience){ 0 };
		return false;
	}
	if (!cfs_patience(&st->no_room, now, ROOM_WAIT_NS))
		return false;
	cfs_timer_set(st->clock, &st->room_timer, now + ROOM_LOOK_NS);
	return true;
}

void cfs_write_pump(struct cfs_store *st)
{
	/* freeing and sealing call back here */
	if (st->pumping) {
		st->pump_again = true;
		return;
	}
	st->pumping = true;
	do {
		st->pump_again = false;
		while (!cfs_list_empty(&st->wq) && !cfs_list_empty(&st->wbatch_free)) {
			struct wpriv *p = cfs_list_first(&st->wq, struct wpriv, q);
			struct cfs_oseg *os;
			int rc = cfs_oseg_get(st, CFS_OS_USER, CFS_ALLOC_USER,
					      cfs_obj_blocks(w_of(p)->len), CFS_BATCH_OBJECTS, &os);

			if (st->failed)
				rc = -EIO;
			if (rc == -EAGAIN)
				break;
			if (rc == -ENOSPC && cfs_clean_can_gain(st)) {
				st->want_space = true;
				cfs_clean_kick(st);
				break;
			}
			if (rc == -ENOSPC && waits_for_room(st))
				break;
			if (rc) {
				cfs_list_del(&p->q);
				fail(st, w_of(p), rc);
				continue;
			}
			st->want_space = false;
			st->no_room = (struct cfs_patience){ 0 };
			send_batch(st, os);
		}
		if (cfs_list_empty(&st->wq))
			st->want_space = false;
	} while (st->pump_again);
	st->pumping = false;
}
