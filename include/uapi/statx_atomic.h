/* SPDX-License-Identifier: MIT */
/*
 * statx_atomic.h - what statx(2) tells of atomic writes since Linux 6.11 (6.16), and RWF_ATOMIC, for headers
 * that are older. Values from the kernel's include/uapi/linux/{stat,fs}.h.
 */
#ifndef UAPI_STATX_ATOMIC_H
#define UAPI_STATX_ATOMIC_H

#include <stdint.h>
#include <string.h>

#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0x00002000u
#endif
#ifndef STATX_WRITE_ATOMIC
#define STATX_WRITE_ATOMIC 0x00010000u
#endif
#ifndef RWF_ATOMIC
#define RWF_ATOMIC 0x00000040
#endif

/* places in struct statx, which has been 256 bytes from the start: unknown fields are spare space */
#define UAPI_STATX_DIO_MEM_ALIGN_AT		0x98
#define UAPI_STATX_DIO_OFFSET_ALIGN_AT		0x9c
#define UAPI_STATX_ATOMIC_UNIT_MIN_AT		0xa8
#define UAPI_STATX_ATOMIC_UNIT_MAX_AT		0xac
#define UAPI_STATX_ATOMIC_UNIT_MAX_OPT_AT	0xb8	/* Linux 6.16 */

static inline uint32_t uapi_statx_u32(const void *statxbuf, unsigned at)
{
	uint32_t v;

	memcpy(&v, (const char *)statxbuf + at, sizeof(v));
	return v;
}

#endif
