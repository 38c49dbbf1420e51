/* SPDX-License-Identifier: MIT */
/*
 * root.c - the log of superblocks on a zoned target: see include/claudefs/disk.h. Blocking; one block twice per
 * superblock or vote. State: struct cfs_root.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "server/store/store_i.h"

#define ROOT_BYTES (2 * BLK) /* a superblock and its copy */
#define WINDOW (1u << 20) /* bytes read at once in search of the newest */

static int report(struct cfs_dev *dev, struct cfs_zone *zones)
{
	int n = dev->info.n_zones < CFS_DISK_ROOT_ZONES ?
			-EMEDIUMTYPE :
			dev->ops->zone_report(dev, 0, zones, CFS_DISK_ROOT_ZONES);

	return n < 0 ? n : n < (int)CFS_DISK_ROOT_ZONES ? -EIO : 0;
}

/* bytes of a zone that may have been written */
static uint64_t written_bytes(const struct cfs_zone *z)
{
	return z->type != CFS_ZONE_SEQ || z->state == CFS_ZONE_OFFLINE ? 0 :
	       z->state >= CFS_ZONE_FULL			       ? z->capacity :
									 z->wp - z->start;
}

/* the newest of one zone: 0; -EPROTONOSUPPORT and one that is not known; else what was wrong with the last block */
static int newest_of(struct cfs_dev *dev, const struct cfs_zone *z, struct cfs_disk_super *buf,
		     struct cfs_disk_super *ret_sb)
{
	uint64_t written = written_bytes(z), end = cfs_align_down(written, BLK);
	/* the last one is whole: if neither copy is good it is no torn write, and the one before is not the newest */
	bool whole = z->state < CFS_ZONE_FULL && written % ROOT_BYTES == 0;
	int rc = -EMEDIUMTYPE;

	while (end) {
		uint64_t from = end > WINDOW ? end - WINDOW : 0;

		rc = dev->ops->read_sync(dev, z->start + from, buf, (uint32_t)(end - from));
		if (rc)
			return rc;
		for (uint64_t i = (end - from) / BLK; i--;) {
			rc = cfs_super_check(&buf[i]);
			if (rc == -EUCLEAN && whole && from + i * BLK == written - ROOT_BYTES)
				return -EBADMSG;
			if (rc && rc != -EPROTONOSUPPORT)
				continue;
			*ret_sb = buf[i];
			return rc;
		}
		end = from;
	}
	return rc;
}

int cfs_root_load(struct cfs_root *root, struct cfs_dev *dev, struct cfs_disk_super *ret_sb)
{
	struct cfs_disk_super *buf = cfs_aligned_raw(WINDOW), sb;
	struct cfs_zone z[CFS_DISK_ROOT_ZONES];
	uint64_t best = 0;
	int err = -EMEDIUMTYPE, rc = buf ? report(dev, z) : -ENOMEM;

	for (uint32_t i = 0; !rc && i < CFS_DISK_ROOT_ZONES; i++) {
		int one = newest_of(dev, &z[i], buf, &sb);

		if (one == -EBADMSG) {
			/* of an older zone it would not matter; but which is older is just what is not known */
			cfs_err("store: both copies of the newest superblock in zone %u are damaged", i);
			rc = -EUCLEAN;
			break;
		}
		if (one)
			err = one != -EMEDIUMTYPE ? one : err;
		if (one == -EPROTONOSUPPORT && !best)
			*ret_sb = sb;
		if (one || cfs_le64_to_cpu(sb.seq) <= best)
			continue;
		best = cfs_le64_to_cpu(sb.seq);
		*ret_sb = sb;
		*root = (struct cfs_root){ .dev = dev, .zone = i, .wp = written_bytes(&z[i]) };
		if (z[i].state >= CFS_ZONE_FULL)
			root->wp = UINT64_MAX;
	}
	free(buf);
	return rc ? rc : best ? 0 : err;
}

/* zones of the log but the present one that a crash left half written count as active for nothing */
int cfs_root_tidy(struct cfs_root *root)
{
	struct cfs_zone z[CFS_DISK_ROOT_ZONES];
	int rc = report(root->dev, z);

	for (uint32_t i = 0; !rc && i < CFS_DISK_ROOT_ZONES; i++)
		if (i != root->zone && z[i].state > CFS_ZONE_EMPTY && z[i].state < CFS_ZONE_FULL)
			rc = root->dev->ops->zone_sync(root->dev, CFS_DEV_ZONE_FINISH, z[i].start);
	return rc;
}

static int next_zone(struct cfs_root *root)
{
	const struct cfs_dev_ops *ops = root->dev->ops;
	uint64_t zone_bytes = root->dev->info.zone_bytes;
	int rc;

	/* ends it if it can still be ended, so that it does not count as active */
	rc = ops->zone_sync(root->dev, CFS_DEV_ZONE_FINISH, root->zone * zone_bytes);
	(void)rc;
	root->zone = (root->zone + 1) % CFS_DISK_ROOT_ZONES;
	root->wp = 0;
	return ops->zone_sync(root->dev, CFS_DEV_ZONE_RESET, root->zone * zone_bytes);
}

int cfs_root_write(struct cfs_root *root, const struct cfs_disk_super *sb)
{
	struct cfs_dev *dev = root->dev;
	uint8_t *buf = cfs_aligned_raw(ROOT_BYTES);
	int rc = -EIO;

	if (!buf)
		return -ENOMEM;
	memcpy(buf, sb, BLK);
	memcpy(buf + BLK, sb, BLK);
	for (uint32_t try = 0; try <= CFS_DISK_ROOT_ZONES; try++) {
		bool here = root->wp % BLK == 0 && root->wp <= dev->info.zone_capacity - ROOT_BYTES;

		rc = here ? 0 : next_zone(root);
		if (!rc)
			rc = dev->ops->write_sync(dev, root->zone * dev->info.zone_bytes + root->wp,
						  buf, ROOT_BYTES);
		if (!rc) {
			root->wp += ROOT_BYTES;
			break;
		}
		cfs_err("store: writing a superblock to zone %u failed: %s", root->zone, strerror(-rc));
		root->wp = UINT64_MAX; /* never here again before a reset */
	}
	free(buf);
	return rc;
}

/* at format: nothing of an earlier life is left; the log begins in the first zone that can be written */
int cfs_root_create(struct cfs_root *root, struct cfs_dev *dev)
{
	struct cfs_zone z[CFS_DISK_ROOT_ZONES];
	uint32_t good = 0;
	int rc = report(dev, z);

	for (uint32_t i = 0; !rc && i < CFS_DISK_ROOT_ZONES; i++) {
		if (z[i].type != CFS_ZONE_SEQ || z[i].state >= CFS_ZONE_READONLY)
			continue;
		rc = dev->ops->zone_sync(dev, CFS_DEV_ZONE_RESET, z[i].start);
		good++;
	}
	*root = (struct cfs_root){ .dev = dev, .zone = CFS_DISK_ROOT_ZONES - 1, .wp = UINT64_MAX };
	return !rc && good < 2 ? -EIO : rc;
}
