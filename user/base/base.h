/* SPDX-License-Identifier: MIT */
/*
 * base.h - the few definitions every file of ClaudeFS uses.
 *
 * CFS_ASSERT guards our own invariants and is always on (STYLE rule: what comes from
 * the wire, the disk, the kernel or a user is checked, never asserted).
 */
#ifndef CFS_BASE_BASE_H
#define CFS_BASE_BASE_H

#include <assert.h>
#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

#define CFS_CAT_(a, b) a##b
#define CFS_CAT(a, b) CFS_CAT_(a, b)
#define CFS_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define cfs_container_of(ptr, type, member) \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))
#define cfs_likely(x) __builtin_expect(!!(x), 1)
#define cfs_unlikely(x) __builtin_expect(!!(x), 0)
/* each argument is evaluated once; the names are unique, so that one may stand inside the other */
#define cfs_min(a, b) CFS_PICK_(a, b, <, CFS_CAT(cfs_a_, __COUNTER__), CFS_CAT(cfs_b_, __COUNTER__))
#define cfs_max(a, b) CFS_PICK_(a, b, >, CFS_CAT(cfs_a_, __COUNTER__), CFS_CAT(cfs_b_, __COUNTER__))
#define CFS_PICK_(a, b, op, x, y) ({ __typeof__(a) x = (a); __typeof__(b) y = (b); x op y ? x : y; })
#define CFS_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define CFS_NORETURN __attribute__((noreturn))

#define CFS_KIB 1024ull
#define CFS_MIB (1024ull * CFS_KIB)
#define CFS_GIB (1024ull * CFS_MIB)
#define CFS_NSEC_PER_SEC 1000000000ull
#define CFS_NSEC_PER_MSEC 1000000ull

/* alignment: `a` is a power of two */
static inline uint64_t cfs_align_up(uint64_t v, uint64_t a)
{
	return (v + a - 1) & ~(a - 1);
}

static inline uint64_t cfs_align_down(uint64_t v, uint64_t a)
{
	return v & ~(a - 1);
}

/** cfs_assert_fail() - print what was violated and where, then abort(). */
CFS_NORETURN void cfs_assert_fail(const char *expr, const char *file, int line, const char *func);

#define CFS_ASSERT(expr) \
	((expr) ? (void)0 : cfs_assert_fail(#expr, __FILE__, __LINE__, __func__))

#endif
