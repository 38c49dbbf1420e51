/* SPDX-License-Identifier: MIT */
/*
 * leasecheck.h - may what a reply said still be kept? The client's side of docs/leases.md as pure logic.
 *
 * A reply and a break race: the break may have been sent later and arrive earlier. So every break item (and
 * every change this client makes itself) is noted in a ring of the last CFS_BREAKS_KEPT notes under a growing
 * generation; who sends a request remembers the generation, and what the reply says counts only if no later
 * note touches it. Also here: how long the kernel may keep an answer. No threads, no clock, no memory of its
 * own, so that the simulator's client runs the same code; notes and checks are atomic all the same: any
 * number of checkers may run beside one noter at a time (the caller serialises cfs_breaks_note()).
 */
#ifndef CFS_CLIENT_LEASECHECK_H
#define CFS_CLIENT_LEASECHECK_H

#include <claudefs/wire.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CFS_BREAKS_KEPT	1024u		/* power of two */
#define CFS_BRK_ALL	0x80000000u	/* every lease of the session: it was lost */

struct cfs_break_note {
	uint64_t dir;
	uint64_t ino;
	uint32_t name_hash;		/* 0 with NAME: any name of dir */
	uint32_t flags;			/* CFS_BRK_* */
};

struct cfs_breaks {
	uint64_t gen;			/* notes so far; note g stands in notes[g % CFS_BREAKS_KEPT] */
	struct cfs_break_note notes[CFS_BREAKS_KEPT];
};

static inline uint64_t cfs_breaks_gen(const struct cfs_breaks *b)
{
	return __atomic_load_n(&b->gen, __ATOMIC_SEQ_CST);
}

/* hash of a name for notes; never 0 */
uint32_t cfs_breaks_name_hash(const char *name, size_t len);
/** cfs_breaks_note() - note a break (flags CFS_BRK_*; name NULL: none). Returns the new generation. */
uint64_t cfs_breaks_note(struct cfs_breaks *b, uint32_t flags, uint64_t dir, uint64_t ino, const char *name,
			 size_t name_len);

/* was (dir, name) touched by a note after generation `since`? */
bool cfs_breaks_name(const struct cfs_breaks *b, uint64_t since, uint64_t dir, const char *name, size_t len);
/* was any name of dir? */
bool cfs_breaks_names(const struct cfs_breaks *b, uint64_t since, uint64_t dir);
/* were the attributes of ino, governed by `governor` (cfs_attr.parent; ino itself when that is 0)? */
bool cfs_breaks_attr(const struct cfs_breaks *b, uint64_t since, uint64_t ino, uint64_t governor);
/* was the lease on the data of ino? */
bool cfs_breaks_data(const struct cfs_breaks *b, uint64_t since, uint64_t ino);

/**
 * cfs_lease_ttl_ns() - how long may the kernel keep what is valid now?
 * @deadline_ns: of the session; the kernel's clock starts later than ours, so a tenth of the lease is kept back
 * Return: 0 when there is no time left.
 */
uint64_t cfs_lease_ttl_ns(uint64_t now_ns, uint64_t deadline_ns, uint32_t lease_ms);

#endif
