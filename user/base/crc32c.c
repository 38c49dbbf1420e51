/* SPDX-License-Identifier: MIT */
/* crc32c.c - see crc32c.h. ISA-L's crc32_iscsi does neither inversion: both are done here. */
#include "base/crc32c.h"

#include <isa-l.h>

uint32_t cfs_crc32c(uint32_t crc, const void *buf, size_t len)
{
	const unsigned char *p = buf;

	crc = ~crc;
	while (len) {	/* its length is an int */
		int n = len > (1 << 30) ? 1 << 30 : (int)len;

		/* the library's prototype lacks const; it only reads */
		crc = crc32_iscsi((unsigned char *)(uintptr_t)p, n, crc);
		p += n;
		len -= (size_t)n;
	}
	return ~crc;
}
