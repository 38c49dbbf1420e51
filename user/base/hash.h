/* SPDX-License-Identifier: MIT */
/* hash.h - hashes for tables and directories; never for integrity. XXH64 is stable across versions. */
#ifndef CFS_BASE_HASH_H
#define CFS_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/** cfs_hash64() - XXH64 of bytes. */
uint64_t cfs_hash64(const void *buf, size_t len, uint64_t seed);

/* mix one integer (splitmix64's finaliser) */
static inline uint64_t cfs_hash_u64(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	x ^= x >> 31;
	return x;
}

/**
 * cfs_name_hash() - the directory cookie of a name: 63 bits, never below 3 (0 to 2 are the start, "."
 * and ".."). Part of the disk format: key order of directory entries. @seed: first 8 bytes of the
 * cluster's uuid, little-endian, so that colliding names cannot be prepared beforehand.
 */
uint64_t cfs_name_hash(const void *name, size_t len, uint64_t seed);

#endif
