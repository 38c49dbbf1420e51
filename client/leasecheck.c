// SPDX-License-Identifier: MIT
/*
 * leasecheck.c - see leasecheck.h. The ring is written before gen is raised and read after gen was
 * read; a checker that might have been lapped while it read says "touched".
 */
#include "client/leasecheck.h"

#include "base/base.h"
#include "base/hash.h"

#define SLOT(g) ((g) & (CFS_BREAKS_KEPT - 1))

uint32_t cfs_breaks_name_hash(const char *name, size_t len)
{
	uint32_t h = (uint32_t)cfs_hash64(name, len, 0x6e616d65);

	return h ? h : 1;
}

uint64_t cfs_breaks_note(struct cfs_breaks *b, uint32_t flags, uint64_t dir, uint64_t ino, const char *name,
			 size_t name_len)
{
	uint64_t gen = __atomic_load_n(&b->gen, __ATOMIC_RELAXED) + 1;
	struct cfs_break_note *n = &b->notes[SLOT(gen)];

	__atomic_store_n(&n->dir, dir, __ATOMIC_RELAXED);
	__atomic_store_n(&n->ino, ino, __ATOMIC_RELAXED);
	__atomic_store_n(&n->name_hash, name ? cfs_breaks_name_hash(name, name_len) : 0, __ATOMIC_RELAXED);
	__atomic_store_n(&n->flags, flags, __ATOMIC_RELAXED);
	__atomic_store_n(&b->gen, gen, __ATOMIC_SEQ_CST);
	return gen;
}

/* what a checker asks about; 0 in name_hash, dir or ino: does not ask */
struct question {
	uint64_t dir, ino;
	uint32_t name_hash;
	bool data, names;
};

static bool note_touches(const struct cfs_break_note *n, const struct question *q)
{
	uint32_t flags = __atomic_load_n(&n->flags, __ATOMIC_RELAXED);
	uint64_t dir = __atomic_load_n(&n->dir, __ATOMIC_RELAXED);
	uint64_t ino = __atomic_load_n(&n->ino, __ATOMIC_RELAXED);
	uint32_t hash = __atomic_load_n(&n->name_hash, __ATOMIC_RELAXED);

	if (flags & CFS_BRK_ALL)
		return true;
	if (q->data)
		return (flags & CFS_BRK_DATA) && ino == q->ino;
	if ((flags & CFS_BRK_DIR) && dir == q->dir)
		return true;
	if (q->names)
		return (flags & CFS_BRK_NAME) && dir == q->dir;
	if (q->name_hash)
		return (flags & CFS_BRK_NAME) && dir == q->dir && (!hash || hash == q->name_hash);
	if ((flags & CFS_BRK_DIRATTR) && dir == q->ino)
		return true;
	/* the attributes of a file follow its data: whoever gives up the lease gives up both */
	return (flags & (CFS_BRK_ATTR | CFS_BRK_DATA | CFS_BRK_UNLINK)) && ino == q->ino;
}

static bool touched(const struct cfs_breaks *b, uint64_t since, const struct question *q)
{
	uint64_t gen = cfs_breaks_gen(b);

	if (cfs_likely(gen == since))
		return false;
	if (since > gen || gen - since >= CFS_BREAKS_KEPT)
		return true;
	for (uint64_t g = since + 1; g <= gen; g++)
		if (note_touches(&b->notes[SLOT(g)], q))
			return true;
	/* the noter may be writing note gen + 1 just now, so one place less is trusted */
	return cfs_breaks_gen(b) - since >= CFS_BREAKS_KEPT - 1;
}

bool cfs_breaks_name(const struct cfs_breaks *b, uint64_t since, uint64_t dir, const char *name, size_t len)
{
	struct question q = { .dir = dir, .name_hash = cfs_breaks_name_hash(name, len) };

	return cfs_breaks_gen(b) != since && touched(b, since, &q);
}

bool cfs_breaks_names(const struct cfs_breaks *b, uint64_t since, uint64_t dir)
{
	struct question q = { .dir = dir, .names = true };

	return touched(b, since, &q);
}

bool cfs_breaks_attr(const struct cfs_breaks *b, uint64_t since, uint64_t ino, uint64_t governor)
{
	struct question q = { .dir = governor, .ino = ino };

	return touched(b, since, &q);
}

bool cfs_breaks_data(const struct cfs_breaks *b, uint64_t since, uint64_t ino)
{
	struct question q = { .ino = ino, .data = true };

	return touched(b, since, &q);
}

uint64_t cfs_lease_ttl_ns(uint64_t now_ns, uint64_t deadline_ns, uint32_t lease_ms)
{
	uint64_t margin = (uint64_t)lease_ms * CFS_NSEC_PER_MSEC / 10;

	return deadline_ns > now_ns + margin ? deadline_ns - now_ns - margin : 0;
}
