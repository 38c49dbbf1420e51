/* SPDX-License-Identifier: MIT */
/* extcache.c - see extcache.h. */
#include "client/extcache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* index of the first extent that ends after pos */
static uint32_t first_after(const struct cfs_extcache *x, uint64_t pos)
{
	uint32_t lo = 0, hi = x->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (x->v[mid].end <= pos)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int reserve(struct cfs_extcache *x, uint32_t n)
{
	uint32_t cap = x->cap ? x->cap : 4;
	struct cfs_ext *v;

	while (cap < n)
		cap *= 2;
	if (cap == x->cap)
		return 0;
	v = realloc(x->v, cap * sizeof(*v));
	if (!v)
		return -ENOMEM;
	x->v = v;
	x->cap = cap;
	return 0;
}

/* cut [off, end) out of the list; there is room for one more extent */
static uint32_t cut(struct cfs_extcache *x, uint64_t off, uint64_t end)
{
	uint32_t i = first_after(x, off), k;

	if (i == x->n)
		return i;
	if (x->v[i].off < off) {
		struct cfs_ext tail = x->v[i];

		x->v[i++].end = off;
		if (tail.end > end) {	/* a hole in the middle of one */
			tail.obj_off += (uint32_t)(end - tail.off);
			tail.off = end;
			memmove(x->v + i + 1, x->v + i, (x->n - i) * sizeof(*x->v));
			x->v[i] = tail;
			x->n++;
			return i;
		}
	}
	for (k = i; k < x->n && x->v[k].end <= end; k++)
		;
	if (k < x->n && x->v[k].off < end) {
		x->v[k].obj_off += (uint32_t)(end - x->v[k].off);
		x->v[k].off = end;
	}
	memmove(x->v + i, x->v + k, (x->n - k) * sizeof(*x->v));
	x->n -= k - i;
	return i;
}

static int check(uint64_t off, uint64_t end, const struct cfs_extent *e, unsigned n)
{
	uint64_t pos = 0;

	for (unsigned i = 0; i < n; i++) {
		uint64_t o = cfs_le64_to_cpu(e[i].file_off);
		uint64_t len = cfs_le32_to_cpu(e[i].len);
		uint32_t obj_len = cfs_le32_to_cpu(e[i].obj_len);

		if (!len || o < pos || o > INT64_MAX - len || (i && o + len <= off) || o >= end)
			return -EPROTO;
		if (!(cfs_le32_to_cpu(e[i].flags) & CFS_EXT_UNWRITTEN) &&
		    (obj_len > CFS_OBJECT_MAX || cfs_le32_to_cpu(e[i].obj_off) + len > obj_len))
			return -EPROTO;
		pos = o + len;
	}
	return 0;
}

int cfs_extcache_put(struct cfs_extcache *x, uint64_t off, uint64_t end, const struct cfs_extent *e, unsigned n)
{
	uint32_t at;
	int rc;

	if (off > end)
		return -EPROTO;
	rc = check(off, end, e, n);
	if (rc)
		return rc;
	if (n > CFS_EXTCACHE_MAX)
		return -EPROTO;
	if (x->n + n + 1 > CFS_EXTCACHE_MAX || x->known.n > CFS_EXTCACHE_MAX)
		cfs_extcache_clear(x);
	rc = reserve(x, x->n + n + 2);
	if (rc) {
		cfs_extcache_clear(x);
		return rc;
	}
	at = cut(x, off, end);
	memmove(x->v + at + n, x->v + at, (x->n - at) * sizeof(*x->v));
	x->n += n;
	for (unsigned i = 0; i < n; i++) {
		uint64_t o = cfs_le64_to_cpu(e[i].file_off), skip = o < off ? off - o : 0;
		uint64_t o_end = o + cfs_le32_to_cpu(e[i].len);

		/* first and last may reach out of [off, end), of which alone we were told everything */
		if (o + skip >= o_end) {
			memmove(x->v + at, x->v + at + 1, (x->n - at - 1) * sizeof(*x->v));
			x->n--;
			continue;
		}
		x->v[at++] = (struct cfs_ext){
			.off = o + skip, .end = cfs_min(o_end, end), .oid = e[i].oid,
			.obj_off = cfs_le32_to_cpu(e[i].obj_off) + (uint32_t)skip,
			.obj_len = cfs_le32_to_cpu(e[i].obj_len), .flags = cfs_le32_to_cpu(e[i].flags),
		};
	}
	cfs_rangeset_add(&x->known, off, end);
	return 0;
}

void cfs_extcache_forget(struct cfs_extcache *x, uint64_t off, uint64_t end)
{
	if ((x->n && reserve(x, x->n + 1)) || x->known.n > CFS_EXTCACHE_MAX) {
		cfs_extcache_clear(x);
		return;
	}
	cut(x, off, end);
	cfs_rangeset_del(&x->known, off, end);
}

void cfs_extcache_hole(struct cfs_extcache *x, uint64_t off, uint64_t end)
{
	cfs_extcache_forget(x, off, end);
	cfs_rangeset_add(&x->known, off, end);
}

void cfs_extcache_clear(struct cfs_extcache *x)
{
	free(x->v);
	cfs_rangeset_clear(&x->known);
	*x = (struct cfs_extcache){ 0 };
}

enum cfs_ext_kind cfs_extcache_at(const struct cfs_extcache *x, uint64_t pos, uint64_t *ret_end,
				  struct cfs_ext *ret_ext)
{
	struct cfs_range r;
	uint32_t i;

	if (!cfs_rangeset_next(&x->known, pos, &r) || r.off > pos)
		return CFS_EXT_UNKNOWN;
	i = first_after(x, pos);
	if (i == x->n || x->v[i].off > pos) {
		*ret_end = i == x->n ? r.end : cfs_min(r.end, x->v[i].off);
		return CFS_EXT_HOLE;
	}
	*ret_end = cfs_min(r.end, x->v[i].end);
	if (x->v[i].flags & CFS_EXT_UNWRITTEN)
		return CFS_EXT_HOLE;
	*ret_ext = x->v[i];
	return CFS_EXT_DATA;
}
