/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: decoding Raft messages from peers (server/cluster/raft_wire.h). First two bytes:
 * length of the body.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "server/cluster/raft_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cfs_raft_in in;
	const char *why = NULL;
	uint8_t *body, *payload;
	uint32_t n, crc;

	if (size < 2)
		return 0;
	n = (uint32_t)(data[0] | data[1] << 8);
	data += 2;
	size -= 2;
	if (n > size)
		n = (uint32_t)size;
	body = malloc(n ? n : 1);
	payload = malloc(size - n ? size - n : 1);
	memcpy(body, data, n);
	memcpy(payload, data + n, size - n);
	if (n >= sizeof(struct cfs_raft_msg)) {	/* let it get past the checksum */
		crc = cfs_cpu_to_le32(cfs_crc32c(0, payload, size - n));
		memcpy(body + offsetof(struct cfs_raft_msg, payload_crc), &crc, 4);
	}
	if (cfs_raft_decode(body, n, payload, (uint32_t)(size - n), &in, &why) == 0)
		cfs_raft_in_drop(&in);
	else if (!why)
		abort();
	free(body);
	free(payload);
	return 0;
}
