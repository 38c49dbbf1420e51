/* SPDX-License-Identifier: MIT */
/*
 * data_lease.c - taking data leases, and what comes with them: size, inline data, extents. Giving them up is in
 * data_break.c. All of it under the inode's lock, which is dropped around requests.
 *
 *   NONE -> SHARED, EXCL   granted by OPEN or by a reply of the FUSE layer's (MKNODE, LOOKUP)
 *   SHARED -> EXCL         the same; the cached content stays
 *   EXCL -> SHARED, NONE   flushed before; or lost with everything
 *   SHARED -> NONE         content dropped before
 *
 * A file that is contended is written through under NONE: data_through.c.
 */
#include "client/data_i.h"

#include "base/log.h"
#include "client/pass.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SERVE_AFTER_MS	2u	/* see wait_recall() */
#define LIVE_PAUSE_MS	10u
#define GIVE_UP_MS	60000u
#define SESSION_TRIES	3u
#define SERVED_MAX	1024u
#define UNLEASED_MS	3000u	/* of OPENs in vain before a read goes without a lease: the kernel may then cache
				 * for an instant what nothing covers, so it is the very last resort */

void cfs_data_set_lease(struct cfs_data *d, unsigned mode)
{
	CFS_ASSERT(mode <= CFS_LEASE_EXCL);
	CFS_ASSERT(!d->n_through || mode == CFS_LEASE_NONE);
	if (mode < d->lease) {
		CFS_ASSERT(!cfs_data_is_dirty(d));
		CFS_ASSERT(mode != CFS_LEASE_NONE || (!d->valid.n && !d->ext.n));
		d->times_known = false;
		d->kill_priv = d->kill_pending = false;
	}
	__atomic_store_n(&d->lease, (uint8_t)mode, __ATOMIC_SEQ_CST);
	if (mode == CFS_LEASE_EXCL && d->g->p.ahead)
		d->g->p.ahead(d->g->p.arg, d->ino);
	pthread_cond_broadcast(&d->cond);
}

void cfs_data_drop_content(struct cfs_data *d)
{
	CFS_ASSERT(!d->n_io && !d->flushing && !cfs_data_gate_is_open(d));
	cfs_data_valid_del(d, 0, UINT64_MAX);
	d->heat = 0;
	cfs_rangeset_clear(&d->served);
	cfs_extcache_clear(&d->ext);
	cfs_cachefile_drop(&d->g->store, &d->cf);
	d->drop_later = false;
	d->content_seq++;
}

void cfs_data_io_end(struct cfs_data *d)
{
	if (d->drop_later && !d->n_io && !d->flushing)
		cfs_data_drop_content(d);
	pthread_cond_broadcast(&d->cond);
}

void cfs_data_lose(struct cfs_data *d, int err)
{
	cfs_data_gate_shut(d);
	if (err && (cfs_data_is_dirty(d) || d->flushing)) {
		cfs_err("inode %" PRIx64 ": lost %" PRIu64 " bytes that were not yet written back", d->ino, d->dirty.bytes);
		d->err = err;
		d->err_reports = cfs_max(d->n_open, 1u);
	}
	d->break_seq++;
	d->lost_seq++;
	d->content_seq++;
	cfs_data_dirty_del(d, 0, UINT64_MAX);
	d->meta_dirty = false;
	d->err_now = 0;
	cfs_data_valid_del(d, 0, UINT64_MAX);
	cfs_extcache_clear(&d->ext);
	cfs_data_set_lease(d, CFS_LEASE_NONE);
	d->drop_later = true;
	cfs_data_io_end(d);
}

void cfs_data_drop_clean(struct cfs_data *d)
{
	struct cfs_rangeset keep = { 0 };
	struct cfs_range r;
	uint64_t pos = 0;

	CFS_ASSERT(!d->n_io && !d->flushing);
	cfs_data_gate_shut(d);
	if (!d->dirty.n) {
		cfs_data_valid_del(d, 0, UINT64_MAX);
		cfs_cachefile_drop(&d->g->store, &d->cf);
		return;
	}
	cfs_rangeset_add_set(&keep, &d->dirty);
	while (cfs_rangeset_next(&d->valid, pos, &r)) {
		struct cfs_range k;
		uint64_t at = cfs_max(r.off, pos), end = r.end;

		if (cfs_rangeset_next(&keep, at, &k)) {
			if (k.off <= at) {	/* dirty here */
				pos = k.end;
				continue;
			}
			end = cfs_min(end, k.off);
		}
		cfs_cachefile_punch(&d->g->store, &d->cf, at, end - at);
		cfs_data_valid_del(d, at, end);
		pos = end;
	}
	cfs_rangeset_clear(&keep);
}

int cfs_data_fill(struct cfs_data *d, uint64_t off, uint64_t end, const void *buf)
{
	const unsigned char *p = buf;
	uint64_t pos = off;
	int rc;

	end = cfs_min(end, d->size);
	while (pos < end) {
		uint64_t stop = end;
		struct cfs_range r;

		if (cfs_rangeset_next(&d->valid, pos, &r)) {
			if (r.off <= pos) {
				pos = r.end;
				continue;
			}
			stop = cfs_min(stop, r.off);
		}
		rc = cfs_cachefile_write(&d->g->store, &d->cf, p + (pos - off), stop - pos, pos);
		if (rc)
			return rc;
		cfs_data_valid_add(d, pos, stop);
		pos = stop;
	}
	return 0;
}

/* ---- replies of OPEN and EXTENTS ------------------------------------------------------ */
static int parse_rep(struct cfs_data *d, struct cfs_data_open_buf *b, uint32_t len)
{
	if (len < sizeof(b->rep))
		goto bad;
	memcpy(&b->rep, b->raw, sizeof(b->rep));
	b->inline_len = cfs_le32_to_cpu(b->rep.inline_len);
	b->n_ext = cfs_le32_to_cpu(b->rep.n_extents);
	if (b->inline_len > CFS_INLINE_MAX || b->n_ext > CFS_DATA_EXTENTS_ASK ||
	    len != sizeof(b->rep) + b->inline_len + b->n_ext * sizeof(struct cfs_extent) ||
	    cfs_le32_to_cpu(b->rep.lease) > CFS_LEASE_EXCL || cfs_le64_to_cpu(b->rep.attr.ino) != d->ino ||
	    cfs_le64_to_cpu(b->rep.attr.size) > CFS_FILE_SIZE_MAX)
		goto bad;
	b->inl = b->raw + sizeof(b->rep);
	b->ext = (const void *)(b->inl + b->inline_len);
	return 0;
bad:
	cfs_err("inode %" PRIx64 ": malformed reply of %u bytes to a request for its extents", d->ino, len);
	return -EPROTO;
}

static void install_attr(struct cfs_data *d, const struct cfs_attr *attr)
{
	CFS_ASSERT(d->lease == CFS_LEASE_NONE && !cfs_data_is_dirty(d));
	cfs_data_drop_content(d);
	d->size = d->srv_size = cfs_le64_to_cpu(attr->size);
	d->alloc = cfs_le64_to_cpu(attr->alloc);
	d->mtime = attr->mtime;
	d->ctime = attr->ctime;
	d->times_known = false;
	d->inline_srv = cfs_le32_to_cpu(attr->flags) & CFS_IF_INLINE;
	d->gone = false;
}

/* inline bytes; what they do not cover is zeros */
static int install_inline(struct cfs_data *d, const void *inl, uint32_t len)
{
	static const unsigned char zeros[CFS_INLINE_MAX];
	int rc = cfs_data_fill(d, 0, len, inl);

	return rc ? rc : cfs_data_fill(d, len, CFS_INLINE_MAX, zeros);
}

/* what the reply tells of the content; nothing that changes it has happened since it was asked for */
static int install_content(struct cfs_data *d, const struct cfs_data_open_buf *b, uint64_t off)
{
	uint64_t end = cfs_le64_to_cpu(b->rep.extents_end);

	d->inline_srv = cfs_le32_to_cpu(b->rep.attr.flags) & CFS_IF_INLINE;
	if (d->inline_srv)
		return b->inline_len ? install_inline(d, b->inl, b->inline_len) : -EPROTO;
	/* extents_end == off tells nothing: the size ends before */
	return end <= off ? 0 : cfs_extcache_put(&d->ext, off, end, b->ext, b->n_ext);
}

static int ask(struct cfs_data *d, bool open, unsigned mode, uint64_t off, unsigned how, struct cfs_data_open_buf *b)
{
	bool through = mode == CFS_LEASE_EXCL && how & CFS_WANT_THROUGH && cfs_client_features(d->g->c) & CFS_FEAT_THROUGH;
	struct cfs_open_req oreq = {
		.ino = cfs_cpu_to_le64(d->ino), .want = cfs_cpu_to_le32(mode),
		.flags = cfs_cpu_to_le32((d->n_open ? CFS_OPEN_KEEP : 0) | (through ? CFS_OPEN_THROUGH : 0)), .off = cfs_cpu_to_le64(off),
		.max_extents = cfs_cpu_to_le32(CFS_DATA_EXTENTS_ASK),
	};
	struct cfs_extents_req ereq = {
		.ino = cfs_cpu_to_le64(d->ino), .off = cfs_cpu_to_le64(off),
		.max_extents = cfs_cpu_to_le32(CFS_DATA_EXTENTS_ASK),
	};
	struct iovec iov = {
		open ? (void *)&oreq : (void *)&ereq, open ? sizeof(oreq) : sizeof(ereq),
	};
	struct cfs_call call = {
		.opcode = open ? CFS_OP_OPEN : CFS_OP_EXTENTS, .body = &iov, .n_body = 1,
		.rep = b->raw, .rep_max = sizeof(b->raw),
	};
	int rc;

	pthread_mutex_unlock(&d->lock);
	/* a lost session has taken our lease along, and a new one may give another */
	for (unsigned tries = 0; tries < SESSION_TRIES; tries++) {
		rc = cfs_call(d->g->c, &call);
		if (rc != CFS_E_BADSESSION)
			break;
	}
	if (!rc)
		rc = parse_rep(d, b, call.rep_len);
	pthread_mutex_lock(&d->lock);
	if (rc == ENOENT)
		rc = ESTALE;
	return cfs_data_errno(rc);
}

/* one OPEN; 0: *some* lease is held; CFS_DATA_UNLEASED; CFS_DATA_CONTENDED; or -errno */
static int open_request(struct cfs_data *d, unsigned mode, uint64_t off, unsigned how, struct cfs_data_open_buf *b)
{
	uint32_t break_seq = d->break_seq, content_seq = d->content_seq;
	unsigned granted;
	int rc;

	CFS_ASSERT(!d->opening && !d->n_through);
	d->opening = true;
	rc = ask(d, true, mode, off, how, b);
	d->opening = false;
	pthread_cond_broadcast(&d->cond);
	if (rc)
		return rc;
	if (mode == CFS_LEASE_EXCL) {
		cfs_data_told_contended(d, cfs_le32_to_cpu(b->rep.valid) & CFS_V_CONTENDED, &b->rep.attr);
		if (d->through_ms)
			return CFS_DATA_CONTENDED;
	}
	granted = cfs_le32_to_cpu(b->rep.lease);
	/* a break that came in between may have been for this grant: then it counts for nothing */
	if (d->break_seq != break_seq || d->drop_later)
		d->lost_grants++;
	if (d->break_seq != break_seq || d->drop_later || granted == CFS_LEASE_NONE)
		return CFS_DATA_UNLEASED;
	d->lost_grants = 0;
	if (d->lease == CFS_LEASE_NONE) {
		install_attr(d, &b->rep.attr);
		content_seq = d->content_seq;
	}
	if (granted > d->lease)
		cfs_data_set_lease(d, granted);
	if (d->content_seq == content_seq) {
		rc = install_content(d, b, off);
		if (rc == -EPROTO)
			cfs_err("inode %" PRIx64 ": the server sent extents that make no sense", d->ino);
	}
	return d->lease >= mode ? 0 : CFS_DATA_UNLEASED;
}

/*
 * A recall is under way. It invalidates kernel pages, and that waits for the locks of pages that are being
 * read or written by requests such as this one: waiting here without end would be a deadlock. So who still has
 * the lease that is being recalled is served after a short while, and the recall does those bytes again.
 * True: go on. False: look again.
 */
static bool wait_recall(struct cfs_data *d, unsigned mode, uint64_t off, uint64_t end, bool data_io)
{
	uint64_t until = cfs_data_now_ms() + (SERVE_AFTER_MS << cfs_min(d->recall_round / 2, 6u)), now;

	if (!data_io || d->lease < mode) {	/* holds no pages; or has nothing to go on with */
		pthread_cond_wait(&d->cond, &d->lock);
		return false;
	}
	while (d->recalling && (now = cfs_data_now_ms()) < until)
		cfs_data_cond_wait_ms(&d->cond, &d->lock, (uint32_t)(until - now));
	if (!d->recalling || d->lease < mode)
		return false;
	cfs_rangeset_add(&d->served, off, d->served.n < SERVED_MAX ? end : UINT64_MAX);
	return true;
}

/*
 * We hold the lease, but the session's deadline has passed: the server may be gone, or we. Nothing counts until it has
 * answered; any request will do to wait for that in the way the mount's options want. 0: look again
 */
static int wait_live(struct cfs_data *d)
{
	struct cfs_data_open_buf *b = malloc(sizeof(*b));
	int rc = b ? ask(d, false, 0, 0, 0, b) : -ENOMEM;

	free(b);
	if (rc == -ESTALE)	/* it did answer */
		rc = 0;
	if (!rc && !cfs_client_live(d->g->c))
		cfs_data_cond_wait_ms(&d->cond, &d->lock, LIVE_PAUSE_MS);
	return rc;
}

void cfs_data_blocked_begin(struct cfs_data *d, uint64_t off, uint64_t end)
{
	d->blocked_seq++;
	if (!d->writers_blocked++) {
		d->blocked_off = UINT64_MAX;
		d->blocked_end = 0;
	}
	d->blocked_off = cfs_min(d->blocked_off, cfs_align_down(off, d->g->page_bytes));
	d->blocked_end = cfs_max(d->blocked_end, end > INT64_MAX ? UINT64_MAX : cfs_align_up(end, d->g->page_bytes));
	pthread_cond_broadcast(&d->cond);
}

void cfs_data_blocked_end(struct cfs_data *d)
{
	CFS_ASSERT(d->writers_blocked > 0);
	if (--d->writers_blocked || !d->suspect)
		return;
	/* waits for the page locks of this very write, which is about to be answered */
	d->suspect = false;
	cfs_data_inval_later(d, 0, UINT64_MAX);
}

int cfs_data_want(struct cfs_data *d, unsigned mode, uint64_t off, uint64_t end, unsigned how,
		  struct cfs_data_open_buf *rep)
{
	bool data_io = how & CFS_WANT_IO;
	uint64_t give_up = 0;
	struct cfs_data_open_buf *own = NULL;
	uint32_t pause_ms = 1;
	bool blocked = false;
	int rc = 0;

	for (;;) {
		if (d->lease < mode && mode == CFS_LEASE_EXCL && data_io && !blocked) {
			cfs_data_blocked_begin(d, off, end);
			blocked = true;	/* a break does not wait for our pages: data_break.c */
		}
		if (d->recalling) {
			if (wait_recall(d, mode, off, end, data_io))
				break;
			continue;
		}
		if (d->drop_later) {
			pthread_cond_wait(&d->cond, &d->lock);
			continue;
		}
		if (d->lease >= mode && cfs_client_live(d->g->c))
			break;
		if (d->lease >= mode) {
			rc = wait_live(d);
			if (rc)
				break;
			continue;
		}
		if (d->opening || d->n_through) {
			pthread_cond_wait(&d->cond, &d->lock);
			continue;
		}
		if (!rep && !own) {
			own = malloc(sizeof(*own));
			if (!own) {
				rc = -ENOMEM;
				break;
			}
		}
		rc = open_request(d, mode, off, how, rep ? rep : own);
		if (rc <= 0 || rc == CFS_DATA_CONTENDED)
			break;
		if (!give_up)
			give_up = cfs_data_now_ms() + GIVE_UP_MS;
		if (rep && (!data_io || cfs_data_now_ms() > give_up - GIVE_UP_MS + UNLEASED_MS))
			break;
		rc = 0;
		if (cfs_data_now_ms() > give_up) {
			cfs_err("inode %" PRIx64 ": no lease for writing within %u s", d->ino, GIVE_UP_MS / 1000);
			rc = -EIO;
			break;
		}
		cfs_data_cond_wait_ms(&d->cond, &d->lock, pause_ms);
		pause_ms = cfs_min(pause_ms * 2, 50u);
	}
	if (blocked)
		cfs_data_blocked_end(d);
	free(own);
	return rc;
}

int cfs_data_learn(struct cfs_data *d, uint64_t pos)
{
	uint32_t break_seq = d->break_seq, content_seq = d->content_seq;
	struct cfs_data_open_buf *b = malloc(sizeof(*b));
	int rc;

	if (!b)
		return -ENOMEM;
	rc = ask(d, false, 0, pos, 0, b);
	if (!rc && d->break_seq == break_seq && d->content_seq == content_seq) {
		rc = install_content(d, b, pos);
		if (!d->inline_srv && cfs_le64_to_cpu(b->rep.extents_end) <= pos && pos < d->srv_size)
			rc = -EPROTO;
		if (rc == -EPROTO)
			cfs_err("inode %" PRIx64 ": the server does not say what is at %" PRIu64, d->ino, pos);
	}
	free(b);
	return rc;
}

/* ---- for the FUSE layer -------------------------------------------------------------------- */
void cfs_data_granted(struct cfs_data *d, const struct cfs_attr *attr, uint32_t lease, uint64_t break_gen,
		      const void *inline_data, uint32_t inline_len)
{
	pthread_mutex_lock(&d->lock);
	if (lease <= d->lease || lease > CFS_LEASE_EXCL || d->recalling || d->n_through || d->drop_later ||
	    cfs_le64_to_cpu(attr->size) > CFS_FILE_SIZE_MAX || cfs_client_broken_since(d->g->c, d->ino, break_gen))
		goto out;
	if (d->lease == CFS_LEASE_NONE) {
		install_attr(d, attr);
		if (d->inline_srv && inline_len && inline_len <= CFS_INLINE_MAX)
			install_inline(d, inline_data, inline_len);	/* else asked for when it is read */
	}
	cfs_data_set_lease(d, lease);
	cfs_data_use(d);
out:
	pthread_mutex_unlock(&d->lock);
}

int cfs_data_open(struct cfs_data *d, int flags)
{
	/* who truncates is going to write */
	unsigned mode = flags & O_TRUNC ? CFS_LEASE_EXCL : CFS_LEASE_SHARED;
	struct cfs_data_open_buf *rep = NULL;
	int rc = 0;

	pthread_mutex_lock(&d->lock);
	d->n_open++;
	cfs_data_use(d);
	if (d->lease == CFS_LEASE_NONE || d->recalling || d->lease < mode) {
		rep = malloc(sizeof(*rep));
		rc = rep ? cfs_data_want(d, mode, 0, 0, CFS_WANT_THROUGH, rep) : -ENOMEM;
		if (rc > 0)	/* contended: the server knows that it is open */
			rc = 0;
		if (rc)
			d->n_open--;
	}
	pthread_mutex_unlock(&d->lock);
	free(rep);
	return rc;
}

void cfs_data_release(struct cfs_data *d, int flags)
{
	(void)flags;
	pthread_mutex_lock(&d->lock);
	CFS_ASSERT(d->n_open > 0);
	if (!--d->n_open && d->lease == CFS_LEASE_NONE)
		d->kept = true;		/* cfs_data_idle() tells the server */
	cfs_data_use(d);
	pthread_mutex_unlock(&d->lock);
}

void cfs_data_open_inherited(struct cfs_data *d)
{
	pthread_mutex_lock(&d->lock);
	d->n_open++;
	cfs_data_use(d);
	pthread_mutex_unlock(&d->lock);
}

bool cfs_data_inherited(struct cfs_data *d)
{
	bool inherited;

	pthread_mutex_lock(&d->lock);
	inherited = d->inherited;
	d->inherited = false;
	pthread_mutex_unlock(&d->lock);
	return inherited;
}

void cfs_data_claimed(struct cfs_client *c, uint64_t ino)
{
	struct cfs_attr attr = { .ino = cfs_cpu_to_le64(ino) };
	struct cfs_data *d = cfs_data_get(c, &attr);

	if (!d)		/* no memory: it is not told, which costs it a question some day */
		return;
	pthread_mutex_lock(&d->lock);
	d->kept |= !d->n_open && d->lease == CFS_LEASE_NONE;
	pthread_mutex_unlock(&d->lock);
	cfs_data_put(d);
}

bool cfs_data_is_contended(struct cfs_data *d)
{
	bool contended;

	pthread_mutex_lock(&d->lock);
	contended = cfs_data_contended(d);
	pthread_mutex_unlock(&d->lock);
	return contended;
}

bool cfs_data_is_open(struct cfs_data *d)
{
	bool open;

	pthread_mutex_lock(&d->lock);
	open = d->n_open > 0;
	pthread_mutex_unlock(&d->lock);
	return open;
}

void cfs_data_reply_begin(struct cfs_data *d)
{
	pthread_mutex_lock(&d->lock);
	d->n_replying++;
	pthread_mutex_unlock(&d->lock);
}

void cfs_data_reply_end(struct cfs_data *d)
{
	pthread_mutex_lock(&d->lock);
	CFS_ASSERT(d->n_replying > 0);
	if (!--d->n_replying)
		pthread_cond_broadcast(&d->cond);
	pthread_mutex_unlock(&d->lock);
}

bool cfs_data_attr(struct cfs_data *d, struct cfs_attr *attr)
{
	bool changed = d->pass;

	pthread_mutex_lock(&d->lock);
	if (d->pass) {
		cfs_pass_attr(d->pass, attr);
	} else if (d->lease == CFS_LEASE_EXCL) {
		uint32_t mode = cfs_le32_to_cpu(attr->mode);

		cfs_data_gate_take(d);
		changed = d->times_known || cfs_le64_to_cpu(attr->size) != d->size;
		attr->size = cfs_cpu_to_le64(d->size);
		if (d->times_known) {
			attr->mtime = d->mtime;
			attr->ctime = d->ctime;
			attr->alloc = cfs_cpu_to_le64(d->alloc + cfs_align_up(d->dirty.bytes + d->flight_bytes, 512));
		}
		if (d->kill_priv) {
			if (mode & 010)		/* without group execute it means mandatory locking */
				mode &= ~02000u;
			attr->mode = cfs_cpu_to_le32(mode & ~04000u);
			attr->flags &= ~cfs_cpu_to_le32(CFS_IF_CAPS);
		}
	}
	pthread_mutex_unlock(&d->lock);
	return changed;
}

bool cfs_data_unsaved(struct cfs_data *d)
{
	bool unsaved;

	pthread_mutex_lock(&d->lock);
	unsaved = d->pass || cfs_data_is_dirty(d) || d->flushing;
	pthread_mutex_unlock(&d->lock);
	return unsaved;
}

bool cfs_data_set_times(struct cfs_data *d, const struct cfs_time *mtime)
{
	bool ok;

	pthread_mutex_lock(&d->lock);
	cfs_data_gate_take(d);	/* what was written before has an older time */
	/* meta_dirty: a COMMIT is still to be made, whether or not one is on its way */
	ok = d->lease == CFS_LEASE_EXCL && d->meta_dirty && !d->kill_priv && !d->pass && !d->recalling && !d->gone &&
	     !d->truncating;
	if (ok) {
		d->ctime = cfs_data_time();
		if (mtime)
			d->mtime = *mtime;
		d->times_known = true;
	}
	pthread_mutex_unlock(&d->lock);
	return ok;
}

void cfs_data_setattr_done(struct cfs_data *d, const struct cfs_attr *attr, bool mode_set)
{
	pthread_mutex_lock(&d->lock);
	if (d->pass) {
		cfs_pass_set_mtime(d->pass, &attr->mtime);
	} else if (d->lease == CFS_LEASE_EXCL) {
		cfs_data_gate_take(d);
		d->mtime = attr->mtime;
		d->ctime = attr->ctime;
		d->times_known = true;
		if (mode_set)
			d->kill_priv = d->kill_pending = false;
		if (d->flushing) {	/* a COMMIT with the old time may come after it */
			d->meta_dirty = true;
			cfs_data_mark_dirty(d);
		}
	}
	pthread_mutex_unlock(&d->lock);
}

int cfs_data_error(struct cfs_data *d)
{
	int rc;

	pthread_mutex_lock(&d->lock);
	cfs_data_gate_take(d);
	rc = d->err ? d->err : d->err_now;
	if (d->err && !--d->err_reports)
		d->err = 0;
	pthread_mutex_unlock(&d->lock);
	return rc;
}
