/* SPDX-License-Identifier: MIT */
/* rangeset.c - see rangeset.h. A sorted array: owners keep sets below a few thousand ranges. */
#include "client/rangeset.h"

#include <stdlib.h>
#include <string.h>

/* index of the first range that ends at or after pos */
static uint32_t lower_bound(const struct cfs_rangeset *rs, uint64_t pos)
{
	uint32_t lo = 0, hi = rs->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (rs->v[mid].end < pos)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* make v[at .. at+del) into v[at .. at+ins) */
static void splice(struct cfs_rangeset *rs, uint32_t at, uint32_t del, uint32_t ins)
{
	uint32_t n = rs->n - del + ins;

	if (n > rs->cap) {
		uint32_t cap = rs->cap ? rs->cap * 2 : 4;
		struct cfs_range *v;

		CFS_ASSERT(n <= cap);
		v = realloc(rs->v, cap * sizeof(*v));
		CFS_ASSERT(v);
		rs->v = v;
		rs->cap = cap;
	}
	memmove(rs->v + at + ins, rs->v + at + del, (rs->n - at - del) * sizeof(*rs->v));
	rs->n = n;
}

void cfs_rangeset_add(struct cfs_rangeset *rs, uint64_t off, uint64_t end)
{
	uint32_t i, k;

	CFS_ASSERT(off <= end);
	if (off == end)
		return;
	/* ranges that overlap or touch [off, end) are i .. k-1 */
	i = lower_bound(rs, off);
	for (k = i; k < rs->n && rs->v[k].off <= end; k++) {
		off = cfs_min(off, rs->v[k].off);
		end = cfs_max(end, rs->v[k].end);
		rs->bytes -= rs->v[k].end - rs->v[k].off;
	}
	if (k - i != 1)
		splice(rs, i, k - i, 1);
	rs->v[i] = (struct cfs_range){ off, end };
	rs->bytes += end - off;
}

void cfs_rangeset_del(struct cfs_rangeset *rs, uint64_t off, uint64_t end)
{
	struct cfs_range head = { 0, 0 }, tail = { 0, 0 };
	uint32_t i, k, ins;

	CFS_ASSERT(off <= end);
	if (off == end || !rs->n)
		return;
	i = lower_bound(rs, off);
	if (i < rs->n && rs->v[i].end == off)	/* touches only */
		i++;
	for (k = i; k < rs->n && rs->v[k].off < end; k++) {
		if (rs->v[k].off < off)
			head = (struct cfs_range){ rs->v[k].off, off };
		if (rs->v[k].end > end)
			tail = (struct cfs_range){ end, rs->v[k].end };
		rs->bytes -= rs->v[k].end - rs->v[k].off;
	}
	if (k == i)
		return;
	ins = (head.end > head.off) + (tail.end > tail.off);
	splice(rs, i, k - i, ins);
	if (head.end > head.off)
		rs->v[i++] = head;
	if (tail.end > tail.off)
		rs->v[i] = tail;
	rs->bytes += head.end - head.off + tail.end - tail.off;
	if (!rs->n)
		cfs_rangeset_clear(rs);
}

void cfs_rangeset_add_set(struct cfs_rangeset *rs, const struct cfs_rangeset *src)
{
	for (uint32_t i = 0; i < src->n; i++)
		cfs_rangeset_add(rs, src->v[i].off, src->v[i].end);
}

void cfs_rangeset_del_set(struct cfs_rangeset *rs, const struct cfs_rangeset *src)
{
	for (uint32_t i = 0; i < src->n; i++)
		cfs_rangeset_del(rs, src->v[i].off, src->v[i].end);
}

bool cfs_rangeset_next(const struct cfs_rangeset *rs, uint64_t pos, struct cfs_range *ret)
{
	uint32_t i = lower_bound(rs, pos);

	if (i < rs->n && rs->v[i].end == pos)
		i++;
	if (i == rs->n)
		return false;
	*ret = rs->v[i];
	return true;
}

bool cfs_rangeset_covers(const struct cfs_rangeset *rs, uint64_t off, uint64_t end)
{
	struct cfs_range r;

	return off >= end || (cfs_rangeset_next(rs, off, &r) && r.off <= off && r.end >= end);
}

void cfs_rangeset_move(struct cfs_rangeset *dst, struct cfs_rangeset *src)
{
	CFS_ASSERT(!dst->n);
	cfs_rangeset_clear(dst);
	*dst = *src;
	*src = (struct cfs_rangeset){ 0 };
}

void cfs_rangeset_clear(struct cfs_rangeset *rs)
{
	free(rs->v);
	*rs = (struct cfs_rangeset){ 0 };
}
