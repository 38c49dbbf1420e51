/* SPDX-License-Identifier: MIT */
/* nvme_ident.h - identify data as libnvme delivers it, and its decoding. For nvme_ident.c, nvme_find.c and tests. */
#ifndef CFS_DEV_NVME_IDENT_H
#define CFS_DEV_NVME_IDENT_H

#include <libnvme.h>

#include "dev/nvme_i.h"

/* the pages that a controller was asked for; little-endian as they came */
struct cfs_nvme_pages {
	struct nvme_id_ctrl ctrl;
	struct nvme_id_ns ns;
	struct nvme_zns_id_ns zns_ns;	/* zoned only */
	struct nvme_zns_id_ctrl zns_ctrl;
	struct nvme_smart_log smart;
	uint32_t nsid;
	uint8_t csi;			/* command set: 0 NVM, 2 zoned */
	bool has_smart;
	bool cache_off;			/* there is a volatile cache, and it is switched off */
};

/* reads them through an open namespace (character or block device); 0 or -errno */
int cfs_nvme_pages_read(int fd, struct cfs_nvme_pages *pages);
/* what users see; limits, when not NULL, without what the kernel's queue adds */
void cfs_nvme_pages_decode(const struct cfs_nvme_pages *pages, struct cfs_nvme_ns *ns,
			   struct cfs_nvme_limits *limits);

#endif
