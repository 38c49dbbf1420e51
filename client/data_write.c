/* SPDX-License-Identifier: MIT */
/*
 * data_write.c - what changes a file here: write, size, changes made at the server. Under the exclusive lease all of it
 * is local until the write-back (data_flush.c).
 */
#include "client/data_i.h"

#include "base/log.h"
#include "client/pass.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define STUCK_MS	10000u		/* writers fail when write-back fails, and nothing moved for that long */
#define NOSPC_TRIES	3u
#define BUSY_MS		50u		/* being recalled or truncated: that will flush it, or soon be over */

void cfs_data_kick(struct cfs_data_ctx *g)
{
	pthread_mutex_lock(&g->list_lock);
	g->kick = true;
	pthread_cond_signal(&g->flush_cond);
	pthread_mutex_unlock(&g->list_lock);
}

void cfs_data_mark_dirty(struct cfs_data *d)
{
	struct cfs_data_ctx *g = d->g;

	pthread_mutex_lock(&g->list_lock);
	if (!d->on_dirty_list) {
		cfs_data_ref(d);
		d->on_dirty_list = true;
		/* what failed is not tried all the time, not even when too much is dirty */
		d->backing_off = d->err_now || d->recalling || d->truncating;
		d->due_ms = cfs_data_now_ms() +
			    (!d->backing_off ? g->p.flush_ms : d->err_now ? d->retry_ms : BUSY_MS);
		cfs_list_add_tail(&g->dirty_list, &d->dirty_link);
		/* a flusher that sleeps without a deadline, or now has enough for a batch */
		if (!g->n_dirty++)
			pthread_cond_signal(&g->flush_cond);
	}
	pthread_mutex_unlock(&g->list_lock);
}

bool cfs_data_is_stream(const struct cfs_data *d)
{
	return d->dirty.bytes >= cfs_min(CFS_DATA_STREAM_MIN, d->g->p.dirty_bytes / 2) &&
	       d->dirty.bytes / d->dirty.n >= CFS_OBJECT_MAX;
}

/* lock held: to the head of the dirty list. Scattered writes better wait for more of their kind */
static void stream(struct cfs_data *d)
{
	struct cfs_data_ctx *g = d->g;

	if (d->flushing || d->streaming || !cfs_data_is_stream(d))
		return;
	d->streaming = true;
	pthread_mutex_lock(&g->list_lock);
	if (d->on_dirty_list && !d->backing_off) {
		d->due_ms = 0;
		cfs_list_del(&d->dirty_link);
		cfs_list_add_head(&g->dirty_list, &d->dirty_link);
		pthread_cond_signal(&g->flush_cond);
	}
	pthread_mutex_unlock(&g->list_lock);
}

/* wait for room for `size` more dirty bytes; holds no inode's lock. 0 or -errno */
static int throttle(struct cfs_data_ctx *g, uint64_t size)
{
	uint64_t dirty = __atomic_load_n(&g->dirty_bytes, __ATOMIC_RELAXED), least = dirty;
	uint64_t moved_ms = 0;
	int rc = 0;

	if (dirty + size > g->p.dirty_bytes / 2)
		cfs_data_kick(g);
	if (dirty + size <= g->p.dirty_bytes)
		return 0;
	pthread_mutex_lock(&g->list_lock);
	while ((dirty = __atomic_load_n(&g->dirty_bytes, __ATOMIC_RELAXED)) + size > g->p.dirty_bytes && dirty) {
		if (dirty < least || !moved_ms) {
			least = dirty;
			moved_ms = cfs_data_now_ms();
		} else if (cfs_data_now_ms() - moved_ms > STUCK_MS) {
			/* without an error it is only slow, or the mount wants to wait */
			rc = __atomic_load_n(&g->last_error, __ATOMIC_RELAXED);
			if (rc)
				break;
		}
		g->kick = true;
		pthread_cond_signal(&g->flush_cond);
		cfs_data_cond_wait_ms(&g->throttle_cond, &g->list_lock, 100);
	}
	pthread_mutex_unlock(&g->list_lock);
	return rc;
}

/* what every local change of content or size does; lock held */
static void touch(struct cfs_data *d, bool kill_priv)
{
	d->mtime = d->ctime = cfs_data_time();
	d->times_known = true;
	d->meta_dirty = true;
	d->kill_priv |= kill_priv;
	d->kill_pending |= kill_priv;
	cfs_data_mark_dirty(d);
}

int64_t cfs_data_write(struct cfs_data *d, const void *buf, uint64_t size, uint64_t off, unsigned how)
{
	bool append = how & CFS_DATA_APPEND, through = !(how & CFS_DATA_MAPPED), full;
	bool holds = size && cfs_data_holds_page(d, off, off + size, how);
	uint64_t kernel_off = off;
	struct cfs_data_ctx *g = d->g;
	unsigned nospc = 0;
	int rc;

	if (!size)
		return 0;
	if (!append && off >= CFS_FILE_SIZE_MAX)
		return -EFBIG;
	rc = throttle(g, size);
	if (rc)
		return rc;
	pthread_mutex_lock(&d->lock);
	if (!(how & CFS_DATA_MAPPED))
		cfs_data_write_begin(d, append ? 0 : off, append ? UINT64_MAX : off + size);
again:
	cfs_data_use(d);
	if (through && cfs_data_contended(d)) {
		size = cfs_min(size, CFS_OBJECT_MAX);
		rc = cfs_data_through(d, buf, size, kernel_off, how, &off);
		if (!rc)
			goto written;
		if (rc < 0)
			goto out;
		through = d->lease == CFS_LEASE_EXCL;	/* else this one needs it */
		goto again;
	}
	rc = cfs_data_want(d, CFS_LEASE_EXCL, append ? 0 : off, append ? UINT64_MAX : off + size,
			   (holds ? CFS_WANT_IO : 0) | (through ? CFS_WANT_THROUGH : 0), NULL);
	if (rc == CFS_DATA_CONTENDED)
		goto again;
	if (rc)
		goto out;
	cfs_data_gate_take(d);
	if (append)
		off = d->size;
	if (off > d->size)	/* a hole is not in the cache */
		cfs_data_gate_shut(d);
	if (append && g->p.appending)
		g->p.appending(g->p.arg, off);
	if (off >= CFS_FILE_SIZE_MAX) {
		rc = -EFBIG;
		goto out;
	}
	size = cfs_min(size, CFS_FILE_SIZE_MAX - off);
	rc = cfs_cachefile_write(&g->store, &d->cf, buf, size, off);
	if (rc == -ENOSPC && nospc++ < NOSPC_TRIES) {
		/* what is clean can go, and this file's dirty bytes after a flush */
		pthread_mutex_unlock(&d->lock);
		cfs_data_flush_inode(d, false);
		cfs_data_evict(g, 0, 0);
		pthread_mutex_lock(&d->lock);
		goto again;
	}
	if (rc) {
		cfs_err("inode %" PRIx64 ": cannot write to its cache file: error %d", d->ino, rc);
		goto out;
	}
	cfs_data_valid_add(d, off, off + size);
	cfs_data_dirty_add(d, off, off + size);
	d->heat += size;
	d->size = cfs_max(d->size, off + size);
	touch(d, how & CFS_DATA_KILLPRIV);
	stream(d);
	full = d->dirty.n >= CFS_DATA_DIRTY_RANGES;
	if (d->valid.n > CFS_DATA_VALID_RANGES && !d->n_io && !d->flushing)
		cfs_data_drop_clean(d);
	if (!(how & CFS_DATA_MAPPED))
		cfs_data_write_end(d, off, off + size, append);
	pthread_mutex_unlock(&d->lock);
	if (full)	/* in pieces too small to go on like that; an error is the next fsync's */
		cfs_data_flush_inode(d, false);
	if (__atomic_load_n(&g->cached_bytes, __ATOMIC_RELAXED) > g->p.cache_bytes + CFS_OBJECT_MAX)
		cfs_data_evict(g, g->p.cache_bytes, UINT64_MAX);
	return (int64_t)size;
written:
	cfs_data_write_end(d, off, off + size, append);
	pthread_mutex_unlock(&d->lock);
	return (int64_t)size;
out:
	if (!(how & CFS_DATA_MAPPED))
		cfs_data_write_end(d, 0, 0, false);
	pthread_mutex_unlock(&d->lock);
	return rc;
}

/* lock held, no flush or read under way: nothing is at or beyond `size` any more */
static void cut(struct cfs_data *d, uint64_t size)
{
	CFS_ASSERT(!d->n_io && !d->flushing);
	if (size < d->size)
		cfs_cachefile_punch(&d->g->store, &d->cf, size, d->size - size);
	cfs_data_dirty_del(d, size, UINT64_MAX);
	cfs_data_valid_del(d, size, UINT64_MAX);
	cfs_extcache_hole(&d->ext, size, INT64_MAX);
	d->content_seq++;
}

static int setattr_size(struct cfs_data *d, uint64_t size, bool kill_priv, struct cfs_attr *ret_attr)
{
	struct cfs_setattr_req req = {
		.ino = cfs_cpu_to_le64(d->ino), .size = cfs_cpu_to_le64(size), .mtime = cfs_data_time(),
		.valid = cfs_cpu_to_le32(CFS_SA_SIZE | CFS_SA_MTIME | (kill_priv ? CFS_SA_KILLPRIV : 0)),
	};
	struct cfs_attr_rep rep;
	struct iovec iov = { &req, sizeof(req) };
	struct cfs_call call = {
		.opcode = CFS_OP_SETATTR, .mutating = true, .body = &iov, .n_body = 1, .rep = &rep, .rep_max = sizeof(rep),
	};
	int rc = cfs_call(d->g->c, &call);

	if (!rc && call.rep_len != sizeof(rep))
		rc = -EPROTO;
	if (!rc)
		*ret_attr = rep.attr;
	return cfs_data_errno(rc);
}

/* the server changed [off, end) under us; lock held, no flush or read under way */
static void changed(struct cfs_data *d, uint64_t off, uint64_t end, const struct cfs_attr *attr)
{
	uint64_t pos = off;
	struct cfs_range r;

	d->content_seq++;
	if (d->lease == CFS_LEASE_NONE)
		return;
	/* what was written since is newer than the change */
	while (pos < end) {
		uint64_t stop = end;

		if (cfs_rangeset_next(&d->dirty, pos, &r)) {
			if (r.off <= pos) {
				pos = r.end;
				continue;
			}
			stop = cfs_min(stop, r.off);
		}
		cfs_data_valid_del(d, pos, stop);
		if (stop != UINT64_MAX)
			cfs_cachefile_punch(&d->g->store, &d->cf, pos, stop - pos);
		pos = stop;
	}
	cfs_extcache_forget(&d->ext, off, end);
	if (!attr)
		return;
	d->srv_size = cfs_le64_to_cpu(attr->size);
	d->size = cfs_max(d->srv_size, d->dirty.n ? d->dirty.v[d->dirty.n - 1].end : 0);
	cfs_data_valid_del(d, d->size, UINT64_MAX);
	d->alloc = cfs_le64_to_cpu(attr->alloc);
	d->inline_srv = cfs_le32_to_cpu(attr->flags) & CFS_IF_INLINE;
	if (!d->meta_dirty) {
		d->mtime = attr->mtime;
		d->ctime = attr->ctime;
	}
}

void cfs_data_changed(struct cfs_data *d, uint64_t off, uint64_t len, const struct cfs_attr *attr)
{
	pthread_mutex_lock(&d->lock);
	while (d->flushing || d->n_io || d->drop_later)
		pthread_cond_wait(&d->cond, &d->lock);
	cfs_data_gate_shut(d);
	changed(d, off, len ? off + len : UINT64_MAX, attr);
	cfs_data_use(d);
	pthread_mutex_unlock(&d->lock);
}

/* smaller than the server knows: it must be told. Lock held; under EXCL, or with any lease or none (then nothing is dirty) */
static int shrink(struct cfs_data *d, uint64_t size, bool kill_priv, struct cfs_attr *ret_attr)
{
	bool excl = d->lease == CFS_LEASE_EXCL;
	uint64_t old_size = d->srv_size;
	struct cfs_time mtime = d->mtime;
	uint32_t break_seq;
	int rc;

	/*
	 * A break may come before the SETATTR reaches the server, and must not wait for it: the server holds the SETATTR
	 * back until the break is answered. So its flush goes ahead; the dirty bytes beyond are given up before.
	 */
	d->truncating = true;
	if (excl) {
		cut(d, size);
		d->size = d->srv_size = size;
	}
	break_seq = d->break_seq;
	pthread_mutex_unlock(&d->lock);
	rc = setattr_size(d, size, kill_priv, ret_attr);
	pthread_mutex_lock(&d->lock);
	while (d->flushing || d->n_io || d->drop_later)
		pthread_cond_wait(&d->cond, &d->lock);
	d->truncating = false;
	pthread_cond_broadcast(&d->cond);
	if (rc) {
		if (excl && d->break_seq == break_seq) {
			d->srv_size = old_size;
			d->size = cfs_max(d->size, old_size);
			cfs_extcache_forget(&d->ext, size, INT64_MAX);
			d->content_seq++;
		}
		return rc;
	}
	if (excl && d->break_seq == break_seq) {
		/* d->size may have grown again; extents may have been learned that were cut */
		cfs_extcache_hole(&d->ext, size, INT64_MAX);
		d->alloc = cfs_le64_to_cpu(ret_attr->alloc);
		d->inline_srv = cfs_le32_to_cpu(ret_attr->flags) & CFS_IF_INLINE;
		d->content_seq++;
		if (!memcmp(&d->mtime, &mtime, sizeof(mtime))) { /* else something was written meanwhile */
			d->mtime = ret_attr->mtime;
			d->ctime = ret_attr->ctime;
			d->times_known = true;
		}
	} else {
		changed(d, size, UINT64_MAX, ret_attr);
	}
	return 0;
}

int cfs_data_setsize(struct cfs_data *d, uint64_t size, bool kill_priv, struct cfs_attr *attr)
{
	struct cfs_attr got = { 0 };
	int rc = 0;

	if (size > CFS_FILE_SIZE_MAX)
		return -EFBIG;
	if (d->pass)
		return cfs_pass_truncate(d->pass, size);
	pthread_mutex_lock(&d->lock);
	cfs_data_use(d);
	while (d->recalling || d->opening || d->truncating || d->flushing || d->n_io || d->drop_later)
		pthread_cond_wait(&d->cond, &d->lock);
	if (d->lease == CFS_LEASE_EXCL)
		rc = cfs_data_want(d, CFS_LEASE_EXCL, 0, 0, 0, NULL);	/* alive? */
	if (rc)
		goto out;
	while (d->flushing || d->n_io || d->drop_later)
		pthread_cond_wait(&d->cond, &d->lock);
	cfs_data_gate_shut(d);
	if (d->lease != CFS_LEASE_EXCL || size < d->srv_size) {
		rc = shrink(d, size, kill_priv, &got);
	} else {
		if (size < d->size)
			cut(d, size);
		d->size = size;
		touch(d, kill_priv);
	}
out:
	pthread_mutex_unlock(&d->lock);
	if (!rc && attr) {
		*attr = got;
		if (got.ino)
			cfs_data_attr(d, attr);
	}
	return rc;
}

int cfs_data_truncate(struct cfs_data *d, uint64_t size)
{
	return cfs_data_setsize(d, size, false, NULL);
}
