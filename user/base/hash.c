/* SPDX-License-Identifier: MIT */
/* hash.c - see hash.h. */
#include "base/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t cfs_hash64(const void *buf, size_t len, uint64_t seed)
{
	return XXH64(buf, len, seed);
}

uint64_t cfs_name_hash(const void *name, size_t len, uint64_t seed)
{
	uint64_t h = XXH64(name, len, seed) >> 1;

	return h < 3 ? h + 3 : h;
}
