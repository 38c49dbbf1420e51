/* SPDX-License-Identifier: MIT */
/*
 * data_job.c - one inode in a write-back: the snapshot of what is dirty, its extents, and what an answer means.
 *
 * d->flushing says that a job has the inode: nothing is cut, punched or dropped meanwhile. Writes go on; what they
 * dirty again is in d->dirty, so that a range counts as clean only when the bytes that were committed are the last
 * ones. A file of which the server has the bytes inside the inode must have all of them replaced at once: either by
 * new inline data, or by objects that cover at least as much.
 */
#include "client/data_i.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_MIN_MS	100u	/* a write-back that failed is tried again */
#define RETRY_MAX_MS	10000u
#define TAKEN_MAX	(256ull << 20)	/* by one write-back: who waits for it to end waits no longer than for this much */
#define KEEP_MAX	(1u << 20)	/* longer pieces leave the cache when they are committed */

/* lock held: the whole content, which is cached or zeros */
static int read_inline(struct cfs_data *d, unsigned char *buf)
{
	struct cfs_range r;
	int rc = 0;

	memset(buf, 0, d->size);
	for (uint64_t pos = 0; !rc && cfs_rangeset_next(&d->valid, pos, &r) && r.off < d->size; pos = r.end) {
		uint64_t end = cfs_min(r.end, d->size);

		rc = cfs_cachefile_read(&d->g->store, &d->cf, buf + r.off, end - r.off, r.off);
	}
	return rc;
}

/* lock held: make [0, end) cached and dirty; what is not cached is zeros */
static int cover(struct cfs_data *d, uint64_t end)
{
	static const unsigned char zeros[CFS_INLINE_MAX];
	int rc;

	CFS_ASSERT(end <= sizeof(zeros) && end <= d->size);
	rc = cfs_data_fill(d, 0, end, zeros);
	if (!rc)
		cfs_data_dirty_add(d, 0, end);
	return rc;
}

/*
 * Small enough, and all of it is here. Not if the server has extents: inline data would replace them, together
 * with space that fallocate() reserved.
 */
static bool goes_inline(struct cfs_data *d)
{
	return d->size <= CFS_INLINE_MAX && (d->inline_srv || !d->alloc) &&
	       cfs_rangeset_covers(&d->valid, 0, d->srv_size);
}

/* lock held: the begun object at the end of a file that is being written stays; true if there is one */
static bool leave_tail(struct cfs_data *d, struct cfs_data_job *j)
{
	struct cfs_range last = j->flight.n ? j->flight.v[j->flight.n - 1] : (struct cfs_range){ 0, 0 };
	uint64_t cut = cfs_align_down(last.end, CFS_OBJECT_MAX);

	if (j->inl || cut <= last.off || cut == last.end)
		return false;
	cfs_rangeset_del(&j->flight, cut, last.end);
	cfs_rangeset_add(&d->dirty, cut, last.end);	/* was counted all the time */
	j->size = cut;
	return true;
}

bool cfs_data_job_take(struct cfs_data *d, bool stream, struct cfs_data_job *j, int *ret_rc)
{
	uint32_t lost_seq = d->lost_seq;
	int rc = 0;

	CFS_ASSERT(!d->flushing);
	*ret_rc = 0;
	cfs_data_gate_take(d);
	if (!cfs_data_is_dirty(d))
		return false;
	CFS_ASSERT(d->lease == CFS_LEASE_EXCL && d->size >= d->srv_size);
	*j = (struct cfs_data_job){ .d = d, .lost_seq = lost_seq, .stream = stream };
	d->flushing = true;
	for (unsigned tries = 0; d->inline_srv && !cfs_rangeset_covers(&d->valid, 0, cfs_min(d->srv_size, CFS_INLINE_MAX));
	     tries++) {
		rc = tries < 3 ? cfs_data_learn(d, 0) : -EIO;
		if (!rc && d->lost_seq != lost_seq)
			rc = -EIO;
		if (rc)
			goto fail;
	}
	if (goes_inline(d)) {
		j->inl_buf = malloc(CFS_INLINE_MAX);
		rc = j->inl_buf ? read_inline(d, j->inl_buf) : -ENOMEM;
		if (rc)
			goto fail;
		j->inl = true;
	} else if (d->inline_srv) {
		rc = cover(d, cfs_min(d->size, CFS_INLINE_MAX));
		if (rc)
			goto fail;
	}
	cfs_rangeset_move(&j->flight, &d->dirty);	/* still counted in g->dirty_bytes */
	j->taken = j->flight.bytes;
	j->size = d->size;
	j->mtime = d->mtime;
	j->kill = d->kill_pending;
	d->streaming = false;
	d->meta_dirty = stream && leave_tail(d, j);
	d->flight_bytes = j->flight.bytes;
	d->kill_pending = false;
	stat_add(d->g, flushes, 1);
	return true;
fail:
	free(j->inl_buf);
	d->flushing = false;
	d->err_now = d->lost_seq == lost_seq ? rc : 0;
	d->retry_ms = RETRY_MAX_MS;
	cfs_data_io_end(d);
	*ret_rc = rc;
	return false;
}

bool cfs_data_job_extend(struct cfs_data_job *j)
{
	struct cfs_data *d = j->d;
	struct cfs_range last;
	bool more = false;
	uint64_t cut;

	if (!j->stream || j->inl || j->rc || j->taken >= TAKEN_MAX || cfs_rangeset_next(&j->flight, j->pos, &last))
		return false;
	pthread_mutex_lock(&d->lock);
	last = d->dirty.n ? d->dirty.v[d->dirty.n - 1] : (struct cfs_range){ 0, 0 };
	cut = cfs_align_down(last.end, CFS_OBJECT_MAX);
	if (last.off == j->pos && cut > last.off && d->lost_seq == j->lost_seq && !d->recalling && !d->truncating) {
		cfs_rangeset_del(&d->dirty, last.off, cut);
		cfs_rangeset_add(&j->flight, last.off, cut);	/* was counted all the time */
		j->taken += cut - last.off;
		j->size = cut;
		j->mtime = d->mtime;
		j->kill |= d->kill_pending;
		d->kill_pending = false;
		d->flight_bytes = j->flight.bytes;
		d->meta_dirty = d->dirty.n || d->size != cut;
		more = true;
	}
	pthread_mutex_unlock(&d->lock);
	return more;
}

int cfs_data_job_read(struct cfs_data_job *j, void *buf, uint32_t len, uint64_t off)
{
	struct cfs_data *d = j->d;
	int rc;

	pthread_mutex_lock(&d->lock);
	rc = d->lost_seq == j->lost_seq ? cfs_cachefile_pin(&d->g->store, &d->cf) : -EIO;
	if (rc == -EAGAIN) {
		rc = cfs_cachefile_read(&d->g->store, &d->cf, buf, len, off);
		goto out;
	}
	if (rc)
		goto out;
	pthread_mutex_unlock(&d->lock);
	rc = cfs_cachefile_pread(&d->cf, buf, len, off);
	pthread_mutex_lock(&d->lock);
	cfs_cachefile_unpin(&d->g->store, &d->cf);
out:
	pthread_mutex_unlock(&d->lock);
	if (rc)
		cfs_err("inode %" PRIx64 ": cached bytes at %" PRIu64 " cannot be read back: error %d", d->ino, off, rc);
	return rc;
}

void cfs_data_job_commit(struct cfs_data_job *j, bool last)
{
	j->ci = (struct cfs_data_commit){
		.ino = j->d->ino,
		/* not more than has its bytes: who looks in between sees a shorter file, never zeros */
		.size = last ? j->size : cfs_min(j->pos, j->size),
		.mtime = j->mtime,
		.flags = CFS_CI_MTIME | (j->kill ? CFS_CI_KILLPRIV : 0) | (j->inl ? CFS_CI_INLINE : 0),
		.inl = j->inl_buf, .inline_len = j->inl ? (uint32_t)j->size : 0,
		.ext = j->ext, .n_ext = j->n_ext,
	};
	j->finished = last;
}

/* lock held: what we know of the server's extents */
static void install(struct cfs_data *d, const struct cfs_data_job *j)
{
	d->content_seq++;
	d->srv_size = cfs_max(d->srv_size, j->ci.size);
	d->alloc = cfs_le64_to_cpu(j->ci.attr.alloc);
	if (!d->meta_dirty) {
		d->mtime = j->ci.attr.mtime;
		d->ctime = j->ci.attr.ctime;
	}
	if (j->inl) {
		d->inline_srv = true;
		cfs_extcache_clear(&d->ext);
		return;
	}
	if (!j->n_ext)
		return;
	d->inline_srv = false;
	for (uint32_t i = 0; i < j->n_ext; i++) {
		uint64_t off = cfs_le64_to_cpu(j->ext[i].file_off);

		if (cfs_extcache_put(&d->ext, off, off + cfs_le32_to_cpu(j->ext[i].len), &j->ext[i], 1))
			cfs_extcache_clear(&d->ext);
	}
}

/*
 * lock held: long pieces need not be kept here, as the kernel's page cache has them. A large file that is copied
 * in would otherwise take its size in memory a second time, and in writes to the disk of the cache.
 */
static void drop_long(struct cfs_data *d, const struct cfs_data_job *j)
{
	struct cfs_range dirty;

	if (!j->stream || d->n_io || d->cf.mem || d->gate)
		return;
	for (uint32_t i = 0; i < j->n_ext; i++) {
		uint64_t off = cfs_le64_to_cpu(j->ext[i].file_off), len = cfs_le32_to_cpu(j->ext[i].len);

		if (len < KEEP_MAX || (cfs_rangeset_next(&d->dirty, off, &dirty) && dirty.off < off + len))
			continue;
		cfs_data_valid_del(d, off, off + len);
		cfs_cachefile_punch(&d->g->store, &d->cf, off, len);
	}
}

/* for writers that wait */
static void room_made(struct cfs_data_ctx *g)
{
	pthread_mutex_lock(&g->list_lock);
	pthread_cond_broadcast(&g->throttle_cond);
	pthread_mutex_unlock(&g->list_lock);
}

void cfs_data_job_committed(struct cfs_data_job *j)
{
	struct cfs_data *d = j->d;
	struct cfs_data_ctx *g = d->g;
	uint64_t before = j->flight.bytes;

	if (j->ci.rc) {
		j->rc = j->ci.rc;
		/* these are the server's words; other errors are ours, of an answer that did not come */
		j->maybe_committed = j->rc != -ENOSPC && j->rc != -ENOENT && j->rc != -ESTALE && j->rc != -EFBIG;
		j->finished = true;
		return;
	}
	pthread_mutex_lock(&d->lock);
	if (d->lost_seq == j->lost_seq) {
		install(d, j);
		drop_long(d, j);
	}
	pthread_mutex_unlock(&d->lock);
	if (j->finished)
		cfs_rangeset_clear(&j->flight);
	else
		cfs_rangeset_del(&j->flight, 0, j->pos);
	j->n_ext = 0;
	j->bytes = 0;
	j->kill = false;
	__atomic_sub_fetch(&g->dirty_bytes, before - j->flight.bytes, __ATOMIC_RELAXED);
	room_made(g);
}

/* what was written for nothing would fill the store that has no room, each try anew */
static void take_back(struct cfs_data_ctx *g, const struct cfs_data_job *j)
{
	for (uint32_t i = 0; i < j->n_ext; i++)	/* pieces of one object are neighbours */
		if (!i || memcmp(&j->ext[i].oid, &j->ext[i - 1].oid, sizeof(j->ext[i].oid)))
			cfs_data_objects_drop(g, &j->ext[i].oid);
}

void cfs_data_job_end(struct cfs_data_job *j)
{
	struct cfs_data *d = j->d;
	struct cfs_data_ctx *g = d->g;

	if (j->rc && !j->maybe_committed)
		take_back(g, j);
	pthread_mutex_lock(&d->lock);
	CFS_ASSERT(d->flushing);
	if (j->rc == -ENOENT || j->rc == -ESTALE) {
		/* deleted; nobody misses the bytes unless it is open here */
		if (d->lost_seq == j->lost_seq)
			cfs_data_lose(d, d->n_open ? j->rc : 0);
		j->rc = 0;
	}
	if (d->lost_seq == j->lost_seq) {
		if (j->rc) {
			for (uint32_t i = 0; i < j->flight.n; i++)
				cfs_data_dirty_add(d, j->flight.v[i].off, j->flight.v[i].end);
			d->meta_dirty = true;
			d->kill_pending |= j->kill;
		}
		d->err_now = j->rc;
		d->retry_ms = !j->rc ? 0 : d->retry_ms ? cfs_min(d->retry_ms * 2, RETRY_MAX_MS) : RETRY_MIN_MS;
	} else if (!j->rc && d->err) {
		j->rc = d->err;		/* it was lost while we wrote it */
	}
	__atomic_sub_fetch(&g->dirty_bytes, j->flight.bytes, __ATOMIC_RELAXED);
	d->flight_bytes = 0;
	d->flushing = false;
	if (cfs_data_is_dirty(d))
		cfs_data_mark_dirty(d);
	cfs_data_io_end(d);
	pthread_mutex_unlock(&d->lock);
	__atomic_store_n(&g->last_error, j->rc, __ATOMIC_RELAXED);
	cfs_rangeset_clear(&j->flight);
	free(j->ext);
	free(j->inl_buf);
	room_made(g);
}
