/* SPDX-License-Identifier: MIT */
/*
 * data_break.c - giving data leases up: recalled by the server, handed back because idle, or lost.
 *
 * While d->recalling, new reads and writes wait (data_lease.c says for how long, and why not for ever). The order
 * is: kernel pages (dirty ones of shared mappings come back as WRITEs, which are accepted), then what is dirty
 * here, then, if nothing new came meanwhile, the lease, in one step under the inode's lock. A gate is shut before all that.
 */
#include "client/data_i.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* a grant and the break of that same grant come on two connections: this long the grant may be late */
#define GRANT_LATE_MS	5u
#define BLOCKED_WAIT_MS	1000u	/* for pages beside those of a blocked write */
#define ROUNDS_MAX	32u
#define FLUSH_GIVE_UP_MS 60000u		/* as long as the server waits at most */
#define LOST_WAIT_MS	2000u
#define BATCH		256u

struct recall_wait {
	uint64_t until;
	uint32_t blocked_seq, lost_seq;
};

static uint32_t recall_patience(const struct cfs_data *d, const void *arg)
{
	const struct recall_wait *w = arg;
	uint64_t now;

	if (d->blocked_seq != w->blocked_seq || d->lost_seq != w->lost_seq)
		return 0;
	if (!d->writers_blocked)
		return CFS_DATA_FOR_EVER;
	now = cfs_data_now_ms();
	return now < w->until ? (uint32_t)(w->until - now) : 0;
}

/*
 * Have the kernel drop [off, end). False: not all of it, because a write of ours got in the way: it waits for a lease with page
 * locks held; or the lease was lost.
 */
static bool inval_wait(struct cfs_data *d, uint64_t off, uint64_t end)
{
	struct recall_wait w = { cfs_data_now_ms() + BLOCKED_WAIT_MS, d->blocked_seq, d->lost_seq };

	return cfs_data_inval_wait(d, off, end, recall_patience, &w);
}

/*
 * SHARED -> NONE. False: the lease was lost meanwhile.
 * A write of ours without the exclusive lease holds page locks and waits for the server, perhaps for this very
 * answer. Its pages can only be dropped after it was answered (cfs_data_want() sees to that), the others now.
 */
static bool recall_shared(struct cfs_data *d)
{
	uint64_t off = 0, end = UINT64_MAX;
	uint32_t lost_seq = d->lost_seq;

	for (;; d->recall_round++) {
		bool done;

		if (d->writers_blocked) {
			d->suspect = true;
			done = inval_wait(d, off, cfs_min(end, d->blocked_off));
			done = inval_wait(d, cfs_max(off, d->blocked_end), end) && done;
		} else {
			done = inval_wait(d, off, end);
		}
		while (d->n_io && d->lost_seq == lost_seq)
			pthread_cond_wait(&d->cond, &d->lock);
		if (d->lost_seq != lost_seq)
			return false;
		if (!done && d->recall_round < ROUNDS_MAX)
			continue;	/* around the write that came */
		if (!done) {
			cfs_warn("inode %" PRIx64 ": pages that are being written are in the way of a recall", d->ino);
			d->suspect = true;
			break;
		}
		if (!d->served.n)
			break;
		off = d->served.v[0].off;
		end = d->served.v[d->served.n - 1].end;
		cfs_rangeset_clear(&d->served);
	}
	if (d->suspect && !d->writers_blocked) {	/* they are through already */
		d->suspect = false;
		cfs_data_inval_later(d, 0, UINT64_MAX);
	}
	return true;
}

/* EXCL -> to. False: the lease was lost meanwhile */
static bool recall_excl(struct cfs_data *d, unsigned to)
{
	uint64_t off = 0, end = UINT64_MAX, give_up = cfs_data_now_ms() + FLUSH_GIVE_UP_MS;
	uint32_t lost_seq = d->lost_seq, pause_ms = 50;

	for (;; d->recall_round++) {
		int rc;

		pthread_mutex_unlock(&d->lock);
		cfs_data_inval_now(d, off, end);
		rc = cfs_data_flush_inode(d, true);
		pthread_mutex_lock(&d->lock);
		while ((d->n_io || d->flushing) && d->lost_seq == lost_seq)
			pthread_cond_wait(&d->cond, &d->lock);
		if (d->lost_seq != lost_seq)
			return false;
		off = end = 0;
		if (rc && cfs_data_is_dirty(d)) {
			if (cfs_data_now_ms() > give_up) {
				cfs_data_lose(d, rc);
				return false;
			}
			cfs_data_cond_wait_ms(&d->cond, &d->lock, pause_ms);
			pause_ms = cfs_min(pause_ms * 2, 1000u);
			continue;
		}
		if (cfs_data_is_dirty(d))
			continue;
		if (to == CFS_LEASE_SHARED || !d->served.n)
			return true;
		off = d->served.v[0].off;
		end = d->served.v[d->served.n - 1].end;
		cfs_rangeset_clear(&d->served);
	}
}

/* d->recalling is ours */
static void lower(struct cfs_data *d, unsigned to)
{
	unsigned from = d->lease;

	CFS_ASSERT(d->recalling && from > to);
	d->lowering = true;
	cfs_data_gate_shut(d);
	cfs_rangeset_clear(&d->served);
	d->recall_round = 0;
	if (!(from == CFS_LEASE_EXCL ? recall_excl(d, to) : recall_shared(d)))
		return;
	if (to == CFS_LEASE_NONE)
		cfs_data_drop_content(d);
	cfs_rangeset_clear(&d->served);
	cfs_data_set_lease(d, to);
	while (d->n_replying)	/* attributes that went out under the lease */
		pthread_cond_wait(&d->cond, &d->lock);
	if (from == CFS_LEASE_EXCL && d->g->p.inval_pages) {
		pthread_mutex_unlock(&d->lock);
		d->g->p.inval_pages(d->g->p.arg, d->ino, -1, 0);
		pthread_mutex_lock(&d->lock);
	}
}

static void recall_begin(struct cfs_data *d)
{
	while (d->recalling)
		pthread_cond_wait(&d->cond, &d->lock);
	d->recalling = true;
}

static void recall_end(struct cfs_data *d)
{
	d->break_seq++;
	d->recalling = d->lowering = false;
	pthread_cond_broadcast(&d->cond);
}

/*
 * The process before held a lease, under which the kernel has pages and attributes; we do not know of it. d->recalling is ours.
 * If it was exclusive and is lowered to shared, pages could stay; but they are all that tells the two apart.
 */
static void lower_inherited(struct cfs_data *d)
{
	if (!recall_shared(d))
		return;
	d->inherited = false;
	cfs_rangeset_clear(&d->served);
	while (d->n_replying)
		pthread_cond_wait(&d->cond, &d->lock);
	if (d->g->p.inval_pages) {
		pthread_mutex_unlock(&d->lock);
		d->g->p.inval_pages(d->g->p.arg, d->ino, -1, 0);
		pthread_mutex_lock(&d->lock);
	}
}

void cfs_data_give_up_shared(struct cfs_data *d)
{
	CFS_ASSERT(!d->recalling && d->lease == CFS_LEASE_SHARED);
	d->recalling = true;
	lower(d, CFS_LEASE_NONE);
	recall_end(d);
}

bool cfs_data_break(struct cfs_client *c, uint64_t ino, unsigned to_mode)
{
	struct cfs_attr attr = { .ino = cfs_cpu_to_le64(ino) };
	struct cfs_data_ctx *g = cfs_data_ctx_of(c);
	struct cfs_data *d = g && g->p.inherited ? cfs_data_get(c, &attr) : cfs_data_find(c, ino);
	uint64_t until, now;
	bool open;

	if (!d)
		return false;
	pthread_mutex_lock(&d->lock);
	recall_begin(d);
	/*
	 * Is this for a grant whose reply is just arriving? Then let it serve the one who asked for it; which takes longer where a gate
	 * needs all of the file
	 */
	until = cfs_data_now_ms() + (GRANT_LATE_MS << cfs_min(d->lost_grants, d->gate ? 8u : 4u));
	while ((d->opening || d->filling) && (now = cfs_data_now_ms()) < until)
		cfs_data_cond_wait_ms(&d->cond, &d->lock, (uint32_t)(until - now));
	d->break_seq++;
	if (d->lease > to_mode)
		lower(d, to_mode);
	else if (d->inherited && d->lease == CFS_LEASE_NONE)
		lower_inherited(d);
	recall_end(d);
	open = d->n_open > 0;
	pthread_mutex_unlock(&d->lock);
	cfs_data_put(d);
	return open;
}

/* ---- idle -------------------------------------------------------------------------------- */
/* d->lock held: closed, unused for that long, and the server thinks that we hold something */
static bool is_idle(struct cfs_data *d, uint32_t idle_ms)
{
	return !d->n_open && !d->recalling && !d->opening && !d->truncating && !d->n_io && !d->flushing &&
	       !d->n_through && !d->writers_blocked && (d->lease != CFS_LEASE_NONE || d->kept) &&
	       (d->kept || cfs_data_now_ms() - d->used_ms >= idle_ms);
}

static void return_leases(struct cfs_data_ctx *g, struct cfs_data **v, unsigned n)
{
	struct cfs_lease_item items[BATCH];
	struct cfs_lease_list list = { .n = cfs_cpu_to_le32(n) };
	struct iovec iov[2] = { { &list, sizeof(list) }, { items, n * sizeof(items[0]) } };
	struct cfs_call call = { .opcode = CFS_OP_LEASE_RETURN, .body = iov, .n_body = 2 };

	CFS_ASSERT(n <= BATCH);
	if (!n)
		return;
	for (unsigned i = 0; i < n; i++)
		items[i] = (struct cfs_lease_item){ .ino = cfs_cpu_to_le64(v[i]->ino), .mode = CFS_LEASE_NONE };
	/*
	 * If it fails the server believes that we hold more than we do: its next break is answered at once. Grants asked for
	 * before it may have been given before it: cfs_call() notes each inode as broken when the answer is there.
	 */
	cfs_call(g->c, &call);
	for (unsigned i = 0; i < n; i++) {
		pthread_mutex_lock(&v[i]->lock);
		v[i]->kept = false;
		recall_end(v[i]);
		pthread_mutex_unlock(&v[i]->lock);
		cfs_data_put(v[i]);
	}
}

/* those of v[0 .. n) that are idle; all others are put */
static unsigned keep_idle(struct cfs_data **v, unsigned n, uint32_t idle_ms)
{
	unsigned k = 0;

	for (unsigned i = 0; i < n; i++) {
		bool idle;

		pthread_mutex_lock(&v[i]->lock);
		idle = is_idle(v[i], idle_ms);
		if (!v[i]->n_open && cfs_data_now_ms() - v[i]->used_ms >= idle_ms)
			v[i]->err = 0;	/* nobody is left who would ask */
		pthread_mutex_unlock(&v[i]->lock);
		if (idle)
			v[k++] = v[i];
		else
			cfs_data_put(v[i]);
	}
	return k;
}

/* give back what these hold; consumes the references */
static void give_back(struct cfs_data_ctx *g, struct cfs_data **v, unsigned n, uint32_t idle_ms)
{
	unsigned k = 0;

	cfs_data_flush_many(g, v, n);
	for (unsigned i = 0; i < n; i++) {
		struct cfs_data *d = v[i];
		bool take;

		pthread_mutex_lock(&d->lock);
		take = is_idle(d, idle_ms) && !cfs_data_is_dirty(d);
		if (take) {
			d->recalling = true;
			d->break_seq++;
			if (d->lease != CFS_LEASE_NONE)
				lower(d, CFS_LEASE_NONE);
		}
		pthread_mutex_unlock(&d->lock);
		if (take)
			v[k++] = d;
		else
			cfs_data_put(d);
	}
	return_leases(g, v, k);
}

void cfs_data_idle(struct cfs_client *c, uint32_t idle_ms)
{
	struct cfs_data_ctx *g = cfs_data_ctx_of(c);
	struct cfs_data *v[BATCH];
	unsigned n = 0;

	for (unsigned s = 0; g && s < CFS_DATA_SHARDS; s++) {
		uint32_t pos = 0;
		unsigned got;

		while ((got = cfs_data_walk(g, s, &pos, v + n, BATCH - n))) {
			n += keep_idle(v + n, got, idle_ms);
			if (n > BATCH / 2) {	/* a walk wants some room */
				give_back(g, v, n, idle_ms);
				n = 0;
			}
		}
	}
	if (n)
		give_back(g, v, n, idle_ms);
}

/* ---- lost ---------------------------------------------------------------------------------- */
static struct cfs_data_inval *lose_one(struct cfs_data *d)
{
	struct cfs_data_inval *iv;

	pthread_mutex_lock(&d->lock);
	if (d->lease != CFS_LEASE_NONE || d->opening || cfs_data_is_dirty(d) || d->flushing)
		cfs_data_lose(d, -EIO);
	iv = cfs_data_inval_post(d, 0, UINT64_MAX);
	if (!iv)
		cfs_data_inval_later(d, 0, UINT64_MAX);
	pthread_mutex_unlock(&d->lock);
	return iv;
}

static void wait_lost(struct cfs_data *d, struct cfs_data_inval *iv, uint64_t until)
{
	uint64_t now;

	pthread_mutex_lock(&d->lock);
	while (iv && !iv->done && (now = cfs_data_now_ms()) < until)
		cfs_data_cond_wait_ms(&d->cond, &d->lock, (uint32_t)(until - now));
	if (iv)
		cfs_data_inval_put(iv);
	/* a COMMIT of what we had must not go out under the next session: calls fail at once until we return */
	while (d->drop_later && d->flushing && (now = cfs_data_now_ms()) < until + LOST_WAIT_MS)
		cfs_data_cond_wait_ms(&d->cond, &d->lock, (uint32_t)(until + LOST_WAIT_MS - now));
	if (d->drop_later && d->flushing)
		cfs_warn("inode %" PRIx64 ": its write-back does not end with the session", d->ino);
	pthread_mutex_unlock(&d->lock);
}

void cfs_data_session_lost(struct cfs_client *c)
{
	struct cfs_data_ctx *g = cfs_data_ctx_of(c);
	uint64_t until = cfs_data_now_ms() + LOST_WAIT_MS;
	struct cfs_data_inval *iv[BATCH];
	struct cfs_data *v[BATCH];

	/*
	 * The kernel's pages go too; what is waited for in vain (a page lock of a WRITE that is stuck) is
	 * dropped as soon as that is answered.
	 */
	for (unsigned s = 0; g && s < CFS_DATA_SHARDS; s++) {
		uint32_t pos = 0;
		unsigned n;

		while ((n = cfs_data_walk(g, s, &pos, v, BATCH))) {
			for (unsigned i = 0; i < n; i++)
				iv[i] = lose_one(v[i]);
			for (unsigned i = 0; i < n; i++) {
				wait_lost(v[i], iv[i], until);
				cfs_data_put(v[i]);
			}
		}
	}
}

void cfs_data_lease_lost(struct cfs_client *c, uint64_t ino)
{
	struct cfs_data *d = cfs_data_find(c, ino);

	if (!d)
		return;
	wait_lost(d, lose_one(d), cfs_data_now_ms() + LOST_WAIT_MS);
	cfs_data_put(d);
}

void cfs_data_forget(struct cfs_data *d)
{
	pthread_mutex_lock(&d->lock);
	d->gone = true;
	d->kept = false;
	cfs_data_lose(d, 0);
	pthread_mutex_unlock(&d->lock);
}

void cfs_data_leases(struct cfs_client *c, void (*cb)(void *arg, uint64_t ino, unsigned mode, bool open), void *arg)
{
	struct cfs_data_ctx *g = cfs_data_ctx_of(c);
	struct cfs_data *v[BATCH];

	for (unsigned s = 0; g && s < CFS_DATA_SHARDS; s++) {
		uint32_t pos = 0;
		unsigned n;

		while ((n = cfs_data_walk(g, s, &pos, v, BATCH)))
			for (unsigned i = 0; i < n; i++) {
				unsigned mode;
				bool open;

				pthread_mutex_lock(&v[i]->lock);
				mode = v[i]->lease;
				open = v[i]->n_open > 0;
				pthread_mutex_unlock(&v[i]->lock);
				if (mode != CFS_LEASE_NONE || open)
					cb(arg, v[i]->ino, mode, open);
				cfs_data_put(v[i]);
			}
	}
}
