/* SPDX-License-Identifier: MIT */
/*
 * holds.c - what a device holds, before somebody writes over it; see holds.h. No state.
 *
 * libblkid reads files and block devices, not NVMe's character devices: it gets a sparse copy in memory of
 * the device's two ends, where every partition table and nearly every file system has its mark. Whatever is
 * left, anything that is not zeros in the first MiB, is something too.
 */
#include "dev/holds.h"

#include <blkid/blkid.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <claudefs/disk.h>

#include "base/base.h"

#define END_BYTES (1u << 20)

static bool is_zeros(const uint8_t *p, size_t len)
{
	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

/* a target's superblock, where any kind of device may have one */
static bool find_target(const uint8_t *p, size_t len, char *what, size_t whatlen)
{
	for (size_t at = 0; at + CFS_DISK_BLOCK <= len; at += CFS_DISK_BLOCK) {
		const struct cfs_disk_super *sb = (const void *)(p + at);
		const uint8_t *u = sb->cluster;

		if (cfs_le64_to_cpu(sb->magic) != CFS_SUPER_MAGIC)
			continue;
		snprintf(what, whatlen,
			 "ClaudeFS target %u of cluster "
			 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
			 cfs_le32_to_cpu(sb->target_id), u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8],
			 u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
		return true;
	}
	return false;
}

static int ask_blkid(int fd, char *what, size_t whatlen)
{
	blkid_probe pr = blkid_new_probe();
	const char *type = NULL, *label = NULL;
	int rc;

	if (!pr)
		return -ENOMEM;
	blkid_probe_enable_superblocks(pr, 1);
	blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_USAGE);
	blkid_probe_enable_partitions(pr, 1);
	rc = blkid_probe_set_device(pr, fd, 0, 0) ? -EIO : blkid_do_safeprobe(pr);
	if (rc == -2) {		/* more than one */
		snprintf(what, whatlen, "the marks of several file systems");
		rc = 1;
	} else if (!rc) {
		if (!blkid_probe_lookup_value(pr, "TYPE", &type, NULL)) {
			if (blkid_probe_lookup_value(pr, "LABEL", &label, NULL))
				label = NULL;
			snprintf(what, whatlen, "%s%s%s%s", type, label ? " (label '" : "", label ? label : "",
				 label ? "')" : "");
		} else if (!blkid_probe_lookup_value(pr, "PTTYPE", &type, NULL)) {
			snprintf(what, whatlen, "a partition table (%s)", type);
		} else {
			snprintf(what, whatlen, "something that libblkid knows");
		}
		rc = 1;
	} else {
		rc = rc == 1 ? 0 : -EIO;
	}
	blkid_free_probe(pr);
	return rc;
}

/* zones in use anywhere, not only at the ends */
static int find_zones(struct cfs_dev *dev, char *what, size_t whatlen)
{
	struct cfs_zone zones[64];
	uint64_t used = 0;
	int n;

	if (!(dev->info.flags & CFS_DEV_F_ZONED))
		return 0;
	for (uint64_t at = 0; at < dev->info.size_bytes; at += (uint64_t)n * dev->info.zone_bytes) {
		n = dev->ops->zone_report(dev, at, zones, CFS_ARRAY_SIZE(zones));
		if (n <= 0)
			return n ? n : -EIO;
		for (int i = 0; i < n; i++)
			used += zones[i].type == CFS_ZONE_SEQ && zones[i].state != CFS_ZONE_EMPTY &&
				zones[i].state != CFS_ZONE_OFFLINE;
	}
	if (used)
		snprintf(what, whatlen, "%llu zones with data", (unsigned long long)used);
	return used != 0;
}

int cfs_dev_holds(struct cfs_dev *dev, char *what, size_t whatlen)
{
	uint64_t size = dev->info.size_bytes;
	uint32_t len = (uint32_t)cfs_min(size, (uint64_t)END_BYTES);
	uint8_t *head = aligned_alloc(4096, END_BYTES), *tail = aligned_alloc(4096, END_BYTES);
	int fd = memfd_create("device", MFD_CLOEXEC), rc;

	rc = head && tail && fd >= 0 ? 0 : -ENOMEM;
	if (!rc)
		rc = dev->ops->read_sync(dev, 0, head, len);
	if (!rc)
		rc = dev->ops->read_sync(dev, size - len, tail, len);
	if (rc)
		goto out;
	if (find_target(head, len, what, whatlen)) {
		rc = 1;
		goto out;
	}
	if (ftruncate(fd, (off_t)size) || pwrite(fd, head, len, 0) != (ssize_t)len ||
	    pwrite(fd, tail, len, (off_t)(size - len)) != (ssize_t)len) {
		rc = -errno;
		goto out;
	}
	rc = ask_blkid(fd, what, whatlen);
	if (!rc)
		rc = find_zones(dev, what, whatlen);
	if (!rc && !is_zeros(head, len)) {
		snprintf(what, whatlen, "data of an unknown kind");
		rc = 1;
	}
out:
	free(head);
	free(tail);
	if (fd >= 0)
		close(fd);
	return rc;
}
