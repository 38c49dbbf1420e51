/* SPDX-License-Identifier: MIT */
/*
 * index.c - see index.h. 1024 tables by the top bits of the hash, each an ordered linear-probing
 * hash table without wrap-around: entries stand in the order of their hashes, none before its
 * home slot. So a miss ends early, deletion needs no markers, iteration is a scan, and growing
 * is one ordered copy. A table is kept between 60% and 82% full and grows by a sixth, which
 * copies n/1024 entries: microseconds.
 */
#include "server/store/index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

#define SUB_BITS 10
#define SUBS (1u << SUB_BITS)
#define CAP_MIN 4u
#define LOAD_MAX 82u /* percent */
#define LOAD_NEW 70u
#define LOAD_MIN 60u
#define MALLOC_COST 16u /* bytes malloc adds to a block */

struct entry {
	struct cfs_oid oid;
	uint64_t loc; /* segment and block 41 bits, length 23; 0: empty slot */
};
_Static_assert(sizeof(struct entry) == 24, "index entry");

struct sub {
	struct entry *e;
	uint32_t cap; /* home slots; slack follows them */
	uint32_t n;
};

struct cfs_index {
	uint64_t count, bytes;
	unsigned block_bits;
	struct sub subs[SUBS];
};

static uint64_t hash_of(const struct cfs_oid *oid)
{
	/* bijective in seq: two objects of one session never collide */
	return (cfs_hash_u64(cfs_le64_to_cpu(oid->seq)) ^
		cfs_hash_u64(cfs_le64_to_cpu(oid->owner) + 0x9e3779b97f4a7c15ull)) >>
	       1;
}

static uint32_t sub_of(uint64_t h)
{
	return (uint32_t)(h >> (63 - SUB_BITS));
}

static uint32_t home_of(uint64_t h, uint32_t cap)
{
	return (uint32_t)(((h >> (63 - SUB_BITS - 32) & 0xffffffffu) * cap) >> 32);
}

static uint32_t slots_of(uint32_t cap)
{
	return cap + 4 + cap / 32;
}

static uint64_t loc_pack(const struct cfs_index *ix, const struct cfs_loc *l)
{
	uint64_t at = (uint64_t)l->seg << ix->block_bits | l->block;

	CFS_ASSERT(l->block && !(l->block >> ix->block_bits) && !(at >> 41) && l->len < 1u << 23);
	return at << 23 | l->len;
}

static struct cfs_loc loc_unpack(const struct cfs_index *ix, uint64_t v)
{
	uint64_t at = v >> 23;

	return (struct cfs_loc){ .seg = (uint32_t)(at >> ix->block_bits),
				 .block = (uint32_t)at & ((1u << ix->block_bits) - 1),
				 .len = (uint32_t)v & 0x7fffff };
}

int cfs_index_create(unsigned block_bits, struct cfs_index **ret_index)
{
	struct cfs_index *ix = calloc(1, sizeof(*ix));

	if (!ix)
		return -ENOMEM;
	ix->block_bits = block_bits;
	ix->bytes = sizeof(*ix) + MALLOC_COST;
	*ret_index = ix;
	return 0;
}

void cfs_index_destroy(struct cfs_index *ix)
{
	if (!ix)
		return;
	for (uint32_t i = 0; i < SUBS; i++)
		free(ix->subs[i].e);
	free(ix);
}

/* slot of oid, or where it belongs; slots_of(cap) when that is behind the end */
static uint32_t find(const struct sub *s, const struct cfs_oid *oid, uint64_t h, bool *ret_found)
{
	uint32_t i, end = s->cap ? slots_of(s->cap) : 0;

	*ret_found = false;
	for (i = s->cap ? home_of(h, s->cap) : 0; i < end && s->e[i].loc; i++) {
		uint64_t eh;

		if (s->e[i].oid.owner == oid->owner && s->e[i].oid.seq == oid->seq) {
			*ret_found = true;
			return i;
		}
		eh = hash_of(&s->e[i].oid);
		if (eh > h)
			break;
	}
	return i;
}

/* rebuild with room for n entries at LOAD_NEW */
static int resize(struct cfs_index *ix, struct sub *s, uint32_t n)
{
	uint32_t cap = cfs_max((uint32_t)((uint64_t)n * 100 / LOAD_NEW) + 1, CAP_MIN);
	uint32_t old = s->cap ? slots_of(s->cap) : 0;
	struct entry *e;

again:
	e = calloc(slots_of(cap), sizeof(*e));
	if (!e)
		return -ENOMEM;
	for (uint32_t i = 0, at = 0; i < old; i++) {
		uint32_t home;

		if (!s->e[i].loc)
			continue;
		home = home_of(hash_of(&s->e[i].oid), cap);
		at = cfs_max(at, home);
		if (at >= slots_of(cap)) { /* a run at the very end: a little more room */
			free(e);
			cap += cap / 8 + 1;
			goto again;
		}
		e[at++] = s->e[i];
	}
	if (old)
		ix->bytes -= old * sizeof(*e) + MALLOC_COST;
	ix->bytes += slots_of(cap) * sizeof(*e) + MALLOC_COST;
	free(s->e);
	s->e = e;
	s->cap = cap;
	return 0;
}

bool cfs_index_get(const struct cfs_index *ix, const struct cfs_oid *oid, struct cfs_loc *ret_loc)
{
	uint64_t h = hash_of(oid);
	const struct sub *s = &ix->subs[sub_of(h)];
	bool found;
	uint32_t i = find(s, oid, h, &found);

	if (found)
		*ret_loc = loc_unpack(ix, s->e[i].loc);
	return found;
}

int cfs_index_put(struct cfs_index *ix, const struct cfs_oid *oid, const struct cfs_loc *loc)
{
	uint64_t h = hash_of(oid);
	struct sub *s = &ix->subs[sub_of(h)];
	uint32_t i, free_slot, grow = s->n + 1;
	bool found;
	int rc;

	i = find(s, oid, h, &found);
	if (found) {
		s->e[i].loc = loc_pack(ix, loc);
		return 0;
	}
	if ((uint64_t)(s->n + 1) * 100 > (uint64_t)s->cap * LOAD_MAX)
		goto bigger;
retry:
	for (free_slot = i; free_slot < slots_of(s->cap) && s->e[free_slot].loc; free_slot++)
		;
	if (free_slot == slots_of(s->cap)) {
		grow += grow / 8 + 1;
		goto bigger;
	}
	memmove(&s->e[i + 1], &s->e[i], (free_slot - i) * sizeof(*s->e));
	s->e[i] = (struct entry){ *oid, loc_pack(ix, loc) };
	s->n++;
	ix->count++;
	return 0;
bigger:
	rc = resize(ix, s, grow);
	if (rc)
		return rc;
	i = find(s, oid, h, &found);
	goto retry;
}

bool cfs_index_del(struct cfs_index *ix, const struct cfs_oid *oid)
{
	uint64_t h = hash_of(oid);
	struct sub *s = &ix->subs[sub_of(h)];
	uint32_t i, j;
	bool found;

	i = find(s, oid, h, &found);
	if (!found)
		return false;
	for (j = i + 1; j < slots_of(s->cap) && s->e[j].loc; j++)
		if (home_of(hash_of(&s->e[j].oid), s->cap) == j)
			break;
	memmove(&s->e[i], &s->e[i + 1], (j - i - 1) * sizeof(*s->e));
	s->e[j - 1].loc = 0;
	s->n--;
	ix->count--;
	if (s->cap > 2 * CAP_MIN && (uint64_t)s->n * 100 < (uint64_t)s->cap * LOAD_MIN)
		resize(ix, s, s->n); /* no memory: stays as large as it is */
	return true;
}

int cfs_index_list(const struct cfs_index *ix, uint64_t *cursor, struct cfs_oid *oids,
		   uint32_t *lens, uint32_t max)
{
	uint64_t from = *cursor, last = 0;
	uint32_t n = 0;

	if (from >> 63)
		return 0;
	for (uint32_t k = sub_of(from); k < SUBS; k++) {
		const struct sub *s = &ix->subs[k];
		uint32_t i = k == sub_of(from) && s->cap ? home_of(from, s->cap) : 0;

		for (; s->cap && i < slots_of(s->cap); i++) {
			uint64_t h;

			if (!s->e[i].loc)
				continue;
			h = hash_of(&s->e[i].oid);
			if (h < from)
				continue;
			/* equal hashes are never split over two calls: the cursor names a hash */
			if (n == max && h != last)
				goto out;
			if (n == max) {
				while (n && hash_of(&oids[n - 1]) == last)
					n--;
				goto out;
			}
			oids[n] = s->e[i].oid;
			lens[n++] = loc_unpack(ix, s->e[i].loc).len;
			last = h;
		}
	}
out:
	if (n)
		*cursor = hash_of(&oids[n - 1]) + 1;
	return (int)n;
}

uint64_t cfs_index_count(const struct cfs_index *ix)
{
	return ix->count;
}

uint64_t cfs_index_bytes(const struct cfs_index *ix)
{
	return ix->bytes;
}
