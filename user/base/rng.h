/* SPDX-License-Identifier: MIT */
/*
 * rng.h - a small fast generator of random bits (xoshiro256**, Blackman and Vigna, public domain).
 * Not for secrets. The same seed gives the same numbers for ever: the simulator depends on it.
 */
#ifndef CFS_BASE_RNG_H
#define CFS_BASE_RNG_H

#include <stdint.h>

struct cfs_rng {
	uint64_t s[4];
};

static inline void cfs_rng_seed(struct cfs_rng *r, uint64_t seed)
{
	for (int i = 0; i < 4; i++) {	/* splitmix64 */
		uint64_t z = seed += 0x9e3779b97f4a7c15ull;

		z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
		z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
		r->s[i] = z ^ (z >> 31);
	}
}

static inline uint64_t cfs_rng_next(struct cfs_rng *r)
{
	uint64_t *s = r->s, x = s[1] * 5, t = s[1] << 17;

	x = ((x << 7) | (x >> 57)) * 9;
	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = (s[3] << 45) | (s[3] >> 19);
	return x;
}

/* a number below n; 0 for n = 0 */
static inline uint64_t cfs_rng_below(struct cfs_rng *r, uint64_t n)
{
	return (uint64_t)(((unsigned __int128)cfs_rng_next(r) * n) >> 64);
}

#endif
