/* SPDX-License-Identifier: MIT */
/*
 * nvme_zone.c - zones of an NVMe namespace, blocking: report and management; see dev.h, nvme_i.h.
 * Source: NVMe Zoned Namespace Command Set 1.1, sections 3.4.2 (receive) and 3.4.3 (send).
 */
#include <errno.h>
#include <stdlib.h>

#include <claudefs/types.h>

#include "base/base.h"
#include "dev/nvme_i.h"

#define REPORT_MAX	512u		/* zones of one command */
#define PARTIAL		(1u << 16)	/* cdw13: count what was returned, not what there is */

struct zone_report_hdr {
	cfs_le64 n_zones;
	uint8_t rsvd[56];
};

struct zone_desc {
	uint8_t type;		/* bits 3..0 */
	uint8_t state;		/* bits 7..4 */
	uint8_t attributes, info;
	uint8_t rsvd4[4];
	cfs_le64 capacity, start, wp;	/* blocks */
	uint8_t rsvd32[32];
};
_Static_assert(sizeof(struct zone_report_hdr) == 64 && sizeof(struct zone_desc) == 64, "zone report");

static int state_of(uint8_t code)
{
	switch (code) {
	case 0x1: return CFS_ZONE_EMPTY;
	case 0x2: return CFS_ZONE_OPEN_IMPLICIT;
	case 0x3: return CFS_ZONE_OPEN_EXPLICIT;
	case 0x4: return CFS_ZONE_CLOSED;
	case 0xd: return CFS_ZONE_READONLY;
	case 0xe: return CFS_ZONE_FULL;
	case 0xf: return CFS_ZONE_OFFLINE;
	default: return -EPROTO;
	}
}

static int decode(const struct zone_desc *d, uint32_t block, uint64_t start, struct cfs_zone *z)
{
	int state = state_of(d->state >> 4);

	if (state < 0 || (d->type & 15) != 2 || cfs_le64_to_cpu(d->start) != start / block)
		return -EPROTO;
	*z = (struct cfs_zone){
		.start = start,
		.capacity = cfs_le64_to_cpu(d->capacity) * block,
		.wp = cfs_le64_to_cpu(d->wp) * block,
		.type = CFS_ZONE_SEQ,
		.state = (uint8_t)state,
	};
	return 0;
}

int cfs_nvme_zone_report(struct cfs_dev *dev, uint64_t offset, struct cfs_zone *zones, uint32_t n)
{
	uint32_t block = cfs_nvme_block_bytes(dev), len, got;
	struct zone_report_hdr *hdr;
	struct cfs_nvme_cmd cmd;
	uint64_t lba = offset / block;
	int rc;

	if (offset % dev->info.zone_bytes || offset >= dev->info.size_bytes)
		return -EINVAL;
	n = cfs_min(n, cfs_min(REPORT_MAX, (uint32_t)((dev->info.size_bytes - offset) / dev->info.zone_bytes)));
	len = (uint32_t)cfs_align_up(sizeof(*hdr) + n * sizeof(struct zone_desc), 4096);
	hdr = aligned_alloc(4096, len);
	if (!hdr)
		return -ENOMEM;
	cmd = (struct cfs_nvme_cmd){
		.opcode = CFS_NVME_ZONE_RECV,
		.cdw10 = (uint32_t)lba,
		.cdw11 = (uint32_t)(lba >> 32),
		.cdw12 = len / 4 - 1,
		.cdw13 = PARTIAL,
		.data = hdr,
		.len = len,
	};
	rc = cfs_nvme_sync(dev, &cmd, true);
	if (rc)
		goto out;
	got = (uint32_t)cfs_min(cfs_le64_to_cpu(hdr->n_zones), (uint64_t)n);
	for (uint32_t i = 0; i < got && !rc; i++)
		rc = decode((struct zone_desc *)(hdr + 1) + i, block, offset + i * dev->info.zone_bytes,
			    &zones[i]);
	if (!rc)
		rc = (int)got;
out:
	free(hdr);
	return rc;
}

int cfs_nvme_zone_sync(struct cfs_dev *dev, enum cfs_dev_op op, uint64_t offset)
{
	const struct cfs_dev_req req = { .op = op };
	struct cfs_nvme_cmd cmd;

	if (op < CFS_DEV_ZONE_RESET || op > CFS_DEV_ZONE_CLOSE || offset % dev->info.zone_bytes ||
	    offset >= dev->info.size_bytes)
		return -EINVAL;
	if (dev->info.flags & CFS_DEV_F_READONLY)
		return -EROFS;
	cfs_nvme_cmd_init(&cmd, &req, cfs_nvme_block_bytes(dev), offset, 0);
	return cfs_nvme_sync(dev, &cmd, true);
}
