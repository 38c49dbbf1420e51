/* SPDX-License-Identifier: MIT */
/*
 * data_read.c - cfs_data_read(): cached bytes, holes and objects put together.
 *
 * Under the inode's lock a plan is made for as much of the range as CFS_DATA_FETCH_MAX pieces cover: zeros and bytes
 * in memory are copied at once, bytes in the cache file and in objects are noted and read without the lock, while
 * d->n_io keeps them from being dropped. Fetched checksum blocks of small reads stay in the cache for
 * their neighbours; long reads are not kept a second time, the kernel's page cache has them.
 */
#include "client/data_i.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define KEEP_MAX	CFS_CRC_BLOCK	/* reads up to this leave their blocks in the cache */
#define COMPLETE_STEP	(1ull << 20)
#define LOOKS_MAX	1000u		/* how often the extents may change under a read */

struct plan {
	struct cfs_data_fetch f[CFS_DATA_FETCH_MAX];
	unsigned n_f;
	struct {
		uint64_t off, len;
		unsigned char *dst;
	} cached[CFS_DATA_FETCH_MAX];
	unsigned n_cached;
	uint64_t end;		/* covered so far */
};

static void plan_object(struct plan *p, const struct cfs_ext *e, uint64_t off, uint64_t end, unsigned char *dst)
{
	p->f[p->n_f++] = (struct cfs_data_fetch){
		.ext = *e, .obj_off = e->obj_off + (uint32_t)(off - e->off), .len = (uint32_t)(end - off), .dst = dst,
	};
}

/* lock held, lease held. 0; -EAGAIN: p->end is not known; -errno */
static int plan_make(struct cfs_data *d, struct plan *p, unsigned char *buf, uint64_t off, uint64_t end)
{
	bool in_memory = d->cf.mem || !d->cf.on_disk;
	uint64_t pos = off;
	int rc = 0;

	p->n_f = p->n_cached = 0;
	while (pos < end && !rc && p->n_f < CFS_DATA_FETCH_MAX && p->n_cached < CFS_DATA_FETCH_MAX) {
		unsigned char *dst = buf + (pos - off);
		uint64_t stop = end;
		struct cfs_range r;
		struct cfs_ext e;

		if (cfs_rangeset_next(&d->valid, pos, &r)) {
			if (r.off <= pos) {
				stop = cfs_min(r.end, end);
				if (in_memory) {
					rc = cfs_cachefile_read(&d->g->store, &d->cf, dst, stop - pos, pos);
				} else {
					p->cached[p->n_cached].off = pos;
					p->cached[p->n_cached].len = stop - pos;
					p->cached[p->n_cached++].dst = dst;
				}
				pos = stop;
				continue;
			}
			stop = cfs_min(stop, r.off);
		}
		if (pos >= d->srv_size) {	/* grown here, never written */
			memset(dst, 0, stop - pos);
			pos = stop;
			continue;
		}
		stop = cfs_min(stop, d->srv_size);
		if (d->inline_srv) {
			rc = -EAGAIN;
			if (pos >= CFS_INLINE_MAX) {
				memset(dst, 0, stop - pos);
				pos = stop;
				rc = 0;
			}
			continue;
		}
		switch (cfs_extcache_at(&d->ext, pos, &r.end, &e)) {
		case CFS_EXT_UNKNOWN:
			rc = -EAGAIN;
			continue;
		case CFS_EXT_HOLE:
			stop = cfs_min(stop, r.end);
			memset(dst, 0, stop - pos);
			break;
		case CFS_EXT_DATA:
			stop = cfs_min(stop, r.end);
			plan_object(p, &e, pos, stop, dst);
			break;
		}
		pos = stop;
	}
	p->end = pos;
	/* what is known can be read first */
	return rc == -EAGAIN && pos > off ? 0 : rc;
}

/* blocks that had to be fetched whole, with what they have beyond the wanted bytes */
static void keep_blocks(struct cfs_data *d, const struct plan *p)
{
	if (__atomic_load_n(&d->g->cached_bytes, __ATOMIC_RELAXED) > d->g->p.cache_bytes)
		return;
	if (d->valid.n > CFS_DATA_VALID_RANGES) {
		if (d->n_io || d->flushing)
			return;
		cfs_data_drop_clean(d);
	}
	for (unsigned i = 0; i < p->n_f; i++) {
		const struct cfs_data_fetch *f = &p->f[i];
		const struct cfs_ext *e = &f->ext;
		uint64_t from, to;

		if (!f->bounce || f->len > KEEP_MAX)
			continue;
		/* the part of the blocks that this extent shows */
		from = cfs_max((uint64_t)f->blk_off, e->obj_off);
		to = cfs_min((uint64_t)f->blk_off + f->blk_len, e->obj_off + (e->end - e->off));
		if (from >= to || cfs_data_fill(d, e->off + (from - e->obj_off), e->off + (to - e->obj_off),
						f->bounce + (from - f->blk_off)))
			return;
	}
}

/* read what was planned, without the lock. *ret_stale: an extent's object is gone everywhere */
static int plan_run(struct cfs_data *d, struct plan *p, bool pinned, bool *ret_stale)
{
	int rc = 0;

	for (unsigned i = 0; i < p->n_cached && !rc; i++) {
		CFS_ASSERT(pinned);
		rc = cfs_cachefile_pread(&d->cf, p->cached[i].dst, p->cached[i].len, p->cached[i].off);
		if (rc)
			cfs_err("inode %" PRIx64 ": cache file cannot be read at %" PRIu64 ": error %d", d->ino,
				p->cached[i].off, rc);
	}
	if (rc) {
		p->n_f = 0;	/* nothing was fetched, nothing to free */
		return rc;
	}
	if (p->n_f)
		cfs_data_fetch(d->g, d->ino, p->f, p->n_f);
	else
		stat_add(d->g, reads_cache, 1);
	for (unsigned i = 0; i < p->n_f && !rc; i++) {
		rc = p->f[i].rc;
		*ret_stale = rc == -ESTALE;
		if (rc && !*ret_stale)
			cfs_err("inode %" PRIx64 ": no good copy of the %u bytes at %" PRIu64, d->ino, p->f[i].len,
				p->f[i].ext.off + (p->f[i].obj_off - p->f[i].ext.obj_off));
	}
	return rc;
}

static void plan_free(struct plan *p)
{
	for (unsigned i = 0; i < p->n_f; i++)
		free(p->f[i].bounce);
}

/* one step of a read under the lease; lock held, and again on return. 0 with *pos moved on, or -errno */
static int step(struct cfs_data *d, unsigned char *buf, uint64_t *pos, uint64_t end, bool *seen_stale)
{
	uint32_t break_seq, content_seq;
	bool stale = false, pinned = false;
	struct plan p;
	int rc;

	rc = plan_make(d, &p, buf, *pos, end);
	if (rc == -EAGAIN)
		return cfs_data_learn(d, p.end);
	if (rc)
		return rc;
	if (!p.n_cached && !p.n_f) {
		stat_add(d->g, reads_cache, 1);
		*pos = p.end;
		return 0;
	}
	if (p.n_cached) {
		rc = cfs_cachefile_pin(&d->g->store, &d->cf);
		if (rc)
			return rc;
		pinned = true;
	}
	break_seq = d->break_seq;
	content_seq = d->content_seq;
	d->n_io++;
	pthread_mutex_unlock(&d->lock);
	rc = plan_run(d, &p, pinned, &stale);
	pthread_mutex_lock(&d->lock);
	if (pinned)
		cfs_cachefile_unpin(&d->g->store, &d->cf);
	d->n_io--;
	if (!rc) {
		/* the bytes were right when they were planned; as cache content they must be right now */
		if (d->lease != CFS_LEASE_NONE && d->break_seq == break_seq && d->content_seq == content_seq)
			keep_blocks(d, &p);
		*pos = p.end;
	} else if (stale && !*seen_stale) {
		/* the server merged extents, and the old objects are gone: once, ask again */
		*seen_stale = true;
		cfs_extcache_clear(&d->ext);
		rc = 0;
	} else if (stale) {
		cfs_err("inode %" PRIx64 ": an object of it is on none of its targets", d->ino);
		rc = -EIO;
	}
	plan_free(&p);
	cfs_data_io_end(d);
	return rc;
}

int cfs_data_complete(struct cfs_data *d)
{
	unsigned char *buf = NULL;
	bool seen_stale = false;
	unsigned looks = 0;
	uint64_t pos = 0;
	int rc = 0;

	while (!rc && pos < d->size) {
		uint64_t at = pos, end = cfs_min(d->size, pos + COMPLETE_STEP);
		uint32_t break_seq = d->break_seq, content_seq = d->content_seq;
		struct cfs_range r;

		if (cfs_rangeset_next(&d->valid, pos, &r)) {
			if (r.off <= pos) {
				pos = r.end;
				continue;
			}
			end = cfs_min(end, r.off);
		}
		if (!buf)
			buf = malloc(COMPLETE_STEP);
		rc = buf ? step(d, buf, &at, end, &seen_stale) : -ENOMEM;
		if (rc)
			break;
		if (d->lowering || d->drop_later || d->lease == CFS_LEASE_NONE || d->break_seq != break_seq)
			rc = -EAGAIN;
		else if (at == pos || d->content_seq != content_seq)	/* look again; a write-back moves the bytes, too */
			rc = ++looks > LOOKS_MAX ? -EIO : 0;
		else
			rc = cfs_data_fill(d, pos, at, buf);
	}
	free(buf);
	return rc;
}

/*
 * No lease to be had: the reply itself says what the file was at some instant. Lock not held. 0 with *pos moved
 * on (0 bytes: the end of the file), or -errno.
 */
static int step_unleased(struct cfs_data *d, const struct cfs_data_open_buf *b, unsigned char *buf, uint64_t *pos,
			 uint64_t end)
{
	uint64_t size = cfs_le64_to_cpu(b->rep.attr.size), at = *pos, known;
	struct cfs_extcache x = { 0 };
	struct plan p = { .n_f = 0 };
	bool stale = false;
	int rc = 0;

	end = cfs_min(end, size);
	if (at >= end)
		goto out;
	if (cfs_le32_to_cpu(b->rep.attr.flags) & CFS_IF_INLINE) {
		uint64_t n = b->inline_len > at ? cfs_min(end, b->inline_len) - at : 0;

		memcpy(buf, b->inl + at, n);
		memset(buf + n, 0, end - at - n);
		*pos = end;
		goto out;
	}
	known = cfs_min(end, cfs_le64_to_cpu(b->rep.extents_end));
	rc = known > at ? cfs_extcache_put(&x, at, cfs_le64_to_cpu(b->rep.extents_end), b->ext, b->n_ext) : -EPROTO;
	while (!rc && at < known && p.n_f < CFS_DATA_FETCH_MAX) {
		uint64_t stop = known, e_end;
		struct cfs_ext e;

		if (cfs_extcache_at(&x, at, &e_end, &e) == CFS_EXT_DATA) {
			stop = cfs_min(stop, e_end);
			plan_object(&p, &e, at, stop, buf + (at - *pos));
		} else {
			stop = cfs_min(stop, e_end);
			memset(buf + (at - *pos), 0, stop - at);
		}
		at = stop;
	}
	if (!rc)
		rc = plan_run(d, &p, false, &stale);
	plan_free(&p);
	cfs_extcache_clear(&x);
	if (!rc)
		*pos = at;
	else if (stale)
		rc = -EIO;
out:
	return rc;
}

int64_t cfs_data_read(struct cfs_data *d, void *buf, uint64_t size, uint64_t off)
{
	struct cfs_data_open_buf *rep = NULL;
	uint64_t pos = off, end = off > CFS_FILE_SIZE_MAX ? off : cfs_min(off + size, CFS_FILE_SIZE_MAX);
	bool unleased = false, seen_stale = false;
	unsigned looks = 0;
	int rc = 0;

	pthread_mutex_lock(&d->lock);
	cfs_data_use(d);
	cfs_data_gate_take(d);
	cfs_data_read_begin(d, off, end);
	while (pos < end) {
		uint64_t before = pos;

		if (d->lease == CFS_LEASE_NONE && !rep) {
			rep = malloc(sizeof(*rep));
			if (!rep) {
				rc = -ENOMEM;
				break;
			}
		}
		rc = cfs_data_want(d, CFS_LEASE_SHARED, pos, end, CFS_WANT_IO, rep);
		if (rc == CFS_DATA_UNLEASED) {
			unleased = true;
			pthread_mutex_unlock(&d->lock);
			rc = step_unleased(d, rep, (unsigned char *)buf + (pos - off), &pos, end);
			pthread_mutex_lock(&d->lock);
			if (!rc && pos == before)
				break;	/* the end */
		} else if (!rc) {
			if (pos >= d->size)
				break;
			rc = step(d, (unsigned char *)buf + (pos - off), &pos, cfs_min(end, d->size), &seen_stale);
			if (!rc && pos == before && ++looks > LOOKS_MAX) {
				cfs_err("inode %" PRIx64 ": its extents change faster than they can be read", d->ino);
				rc = -EIO;
			}
		}
		if (rc)
			break;
	}
	d->heat += pos - off;
	/* the kernel is about to cache what no lease covers */
	if (unleased && pos > off)
		cfs_data_inval_later(d, off, end);
	pthread_mutex_unlock(&d->lock);
	free(rep);
	return rc ? rc : (int64_t)(pos - off);
}
