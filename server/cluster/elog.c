/* SPDX-License-Identifier: MIT */
/* elog.c - see elog.h. */
#include "server/cluster/elog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

struct cfs_ebuf *cfs_ebuf_new(const void *data, size_t len)
{
	struct cfs_ebuf *b;

	CFS_ASSERT(len <= UINT32_MAX);
	b = malloc(sizeof(*b) + len);
	if (!b)
		return NULL;
	b->refs = 1;
	b->len = (uint32_t)len;
	if (len)
		memcpy(b->data, data, len);
	return b;
}

struct cfs_ebuf *cfs_ebuf_get(struct cfs_ebuf *b)
{
	b->refs++;
	return b;
}

void cfs_ebuf_put(struct cfs_ebuf *b)
{
	if (!b)
		return;
	CFS_ASSERT(b->refs > 0);
	if (--b->refs == 0)
		free(b);
}

void cfs_elog_init(struct cfs_elog *l, uint64_t next_index)
{
	memset(l, 0, sizeof(*l));
	l->first = next_index;
}

static struct cfs_elog_entry *at(const struct cfs_elog *l, uint64_t i)
{
	return &l->ring[(l->head + i) & (l->cap - 1)];
}

int cfs_elog_append(struct cfs_elog *l, uint64_t term, uint32_t type, struct cfs_ebuf *buf)
{
	if (l->n == l->cap) {
		uint64_t cap = l->cap ? l->cap * 2 : 256;
		struct cfs_elog_entry *ring = calloc(cap, sizeof(*ring));

		if (!ring)
			return -ENOMEM;
		for (uint64_t i = 0; i < l->n; i++)
			ring[i] = *at(l, i);
		free(l->ring);
		l->ring = ring;
		l->cap = cap;
		l->head = 0;
	}
	*at(l, l->n) = (struct cfs_elog_entry){ .term = term, .type = type, .buf = buf, .len = buf->len };
	l->n++;
	return 0;
}

struct cfs_elog_entry *cfs_elog_get(const struct cfs_elog *l, uint64_t index)
{
	return index < l->first || index >= l->first + l->n ? NULL : at(l, index - l->first);
}

void cfs_elog_truncate(struct cfs_elog *l, uint64_t index)
{
	while (l->n && cfs_elog_last(l) >= index) {
		cfs_ebuf_put(at(l, l->n - 1)->buf);
		l->n--;
	}
}

void cfs_elog_compact(struct cfs_elog *l, uint64_t index)
{
	while (l->n && l->first <= index) {
		cfs_ebuf_put(at(l, 0)->buf);
		l->head = (l->head + 1) & (l->cap - 1);
		l->first++;
		l->n--;
	}
}

void cfs_elog_reset(struct cfs_elog *l, uint64_t next_index)
{
	cfs_elog_truncate(l, 0);
	l->first = next_index;
	l->head = 0;
}

void cfs_elog_release(struct cfs_elog *l, uint64_t index)
{
	struct cfs_elog_entry *e = cfs_elog_get(l, index);

	if (e) {
		cfs_ebuf_put(e->buf);
		e->buf = NULL;
	}
}

void cfs_elog_free(struct cfs_elog *l)
{
	cfs_elog_truncate(l, 0);
	free(l->ring);
	memset(l, 0, sizeof(*l));
}
