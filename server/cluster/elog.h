/* SPDX-License-Identifier: MIT */
/*
 * elog.h - the part of a Raft log that is held in memory: a ring of entries by index.
 *
 * Data is reference counted, because an entry may be truncated while the journal is writing it. A
 * group of one drops the data of what it has applied and keeps index and term (nobody will ask for
 * it). One thread.
 */
#ifndef CFS_SERVER_CLUSTER_ELOG_H
#define CFS_SERVER_CLUSTER_ELOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* the bytes of one entry */
struct cfs_ebuf {
	uint32_t refs;
	uint32_t len;
	uint8_t data[];
};
/* a copy of `len` bytes with one reference; NULL: no memory */
struct cfs_ebuf *cfs_ebuf_new(const void *data, size_t len);
struct cfs_ebuf *cfs_ebuf_get(struct cfs_ebuf *b);
void cfs_ebuf_put(struct cfs_ebuf *b);

struct cfs_elog_entry {
	uint64_t term;
	struct cfs_ebuf *buf;	/* NULL: dropped */
	uint32_t type;		/* enum raft_entry_type */
	uint32_t len;
};

struct cfs_elog {
	uint64_t first; /* index of the first entry held; the next one to come when n is 0 */
	uint64_t n;
	uint64_t cap, head;	/* ring: cap is 0 or a power of two */
	struct cfs_elog_entry *ring;
};

void cfs_elog_init(struct cfs_elog *l, uint64_t next_index);
void cfs_elog_free(struct cfs_elog *l);
static inline uint64_t cfs_elog_last(const struct cfs_elog *l)
{
	return l->first + l->n - 1;
}
/* takes over the reference; 0 or -ENOMEM (the reference stays the caller's) */
int cfs_elog_append(struct cfs_elog *l, uint64_t term, uint32_t type, struct cfs_ebuf *buf);
/* NULL: not held */
struct cfs_elog_entry *cfs_elog_get(const struct cfs_elog *l, uint64_t index);
/* forget entries >= index */
void cfs_elog_truncate(struct cfs_elog *l, uint64_t index);
/* forget entries <= index */
void cfs_elog_compact(struct cfs_elog *l, uint64_t index);
/* forget everything; the next entry has index next_index */
void cfs_elog_reset(struct cfs_elog *l, uint64_t next_index);
/* keep the entry, drop its bytes */
void cfs_elog_release(struct cfs_elog *l, uint64_t index);

#endif
