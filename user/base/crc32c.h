/* SPDX-License-Identifier: MIT */
/* crc32c.h - the one checksum of wire and disk: CRC-32C (Castagnoli, RFC 3720 §12.1), by ISA-L. */
#ifndef CFS_BASE_CRC32C_H
#define CFS_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/**
 * cfs_crc32c() - standard CRC-32C: initial value and final XOR of all ones.
 * @crc: 0 to start, or the result for the bytes before
 * The crc of no bytes is 0; of "123456789" it is 0xe3069283.
 */
uint32_t cfs_crc32c(uint32_t crc, const void *buf, size_t len);

#endif
