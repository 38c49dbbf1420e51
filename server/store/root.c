/* SPDX-License-Identifier: MIT */
/*
 * root.c - the log of superblocks on a zoned target: see include/claudefs/disk.h. Blocking; one block twice per
 * superblock or vote, on each side. State: struct cfs_root.
 *
 * A zone can fail as a whole, so there are two logs ("sides") with the same superblocks, of two zones each, where so many zones
 * can be active; else one of four. A side does not reset the zone that has its newest superblock, unless it has no other and
 * the other side has that superblock, too: however many writes fail, the newest that was durable stays.
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

static uint32_t after(const struct cfs_root_side *side, uint32_t zone)
{
	return side->first + (zone - side->first + 1) % side->n;
}

/* one log of all zones, or two */
static void divide(struct cfs_root *root, bool mirrored)
{
	root->n_sides = mirrored ? 2 : 1;
	for (uint32_t s = 0; s < root->n_sides; s++) {
		struct cfs_root_side *side = &root->side[s];

		side->n = CFS_DISK_ROOT_ZONES / root->n_sides;
		side->first = s * side->n;
		side->zone = side->first + side->n - 1;
		side->newest = UINT32_MAX;
		side->wp = UINT64_MAX;
	}
}

/* what was found in the zones of the log */
struct found {
	struct cfs_zone z[CFS_DISK_ROOT_ZONES];
	uint64_t seq[CFS_DISK_ROOT_ZONES]; /* of the newest; 0: none */
	bool rotten[CFS_DISK_ROOT_ZONES]; /* it had a newer one: both copies are damaged */
};

static void settle_side(struct cfs_root_side *side, const struct found *f)
{
	const struct cfs_zone *z = f->z;
	const uint64_t *seq = f->seq;

	for (uint32_t i = side->first; i < side->first + side->n; i++)
		if (seq[i] && (side->newest == UINT32_MAX || seq[i] > seq[side->newest]))
			side->newest = i;
	if (side->newest == UINT32_MAX)
		return;
	side->zone = side->newest;
	if (z[side->zone].state < CFS_ZONE_FULL)
		side->wp = written_bytes(&z[side->zone]);
}

/* is it certain that no superblock was written to the side behind the newest that was found there? */
static bool is_sure(const struct cfs_root_side *side, const struct found *f)
{
	const struct cfs_zone *z = f->z;

	for (uint32_t i = side->first; i < side->first + side->n; i++)
		if (f->rotten[i])
			return false;
	if (side->newest == UINT32_MAX)
		return false;
	if (z[side->newest].state < CFS_ZONE_FULL)
		return true; /* it is finished before the next one is begun */
	for (uint32_t i = after(side, side->newest); i != side->newest; i = after(side, i)) {
		if (z[i].state == CFS_ZONE_OFFLINE)
			return false;
		if (z[i].state != CFS_ZONE_READONLY)
			return true; /* it would have gone there */
	}
	return false;
}

/* what a zone that is offline or damaged may hide: an old superblock, with its old votes, is not taken for the newest */
static int check_hidden(const struct cfs_root *root, const struct found *f, char *errbuf, size_t errlen)
{
	for (uint32_t s = 0; s < root->n_sides; s++)
		if (is_sure(&root->side[s], f))
			return 0;
	for (uint32_t i = 0; i < CFS_DISK_ROOT_ZONES; i++) {
		if (!f->rotten[i] && f->z[i].state != CFS_ZONE_OFFLINE)
			continue;
		snprintf(errbuf, errlen,
			 f->rotten[i] ? "both copies of the newest superblock in zone %u are damaged" :
					"zone %u is offline, and the newest superblock and votes may be in it: only "
					"older ones are left",
			 i);
		return -EUCLEAN;
	}
	return 0;
}

int cfs_root_load(struct cfs_root *root, struct cfs_dev *dev, struct cfs_disk_super *ret_sb, char *errbuf,
		  size_t errlen)
{
	struct cfs_disk_super *buf = cfs_aligned_raw(WINDOW), sb;
	struct found f = { 0 };
	uint64_t best = 0, unknown = 0;
	int err = -EMEDIUMTYPE, rc = buf ? report(dev, f.z) : -ENOMEM;

	*root = (struct cfs_root){ .dev = dev };
	for (uint32_t i = 0; !rc && i < CFS_DISK_ROOT_ZONES; i++) {
		int one = newest_of(dev, &f.z[i], buf, &sb);

		f.rotten[i] = one == -EBADMSG;
		if (one)
			err = f.rotten[i] ? -EUCLEAN : one != -EMEDIUMTYPE ? one : err;
		if (one && one != -EPROTONOSUPPORT)
			continue;
		if (cfs_le64_to_cpu(sb.seq) > cfs_max(best, unknown))
			*ret_sb = sb;
		if (one)
			unknown = cfs_max(unknown, cfs_le64_to_cpu(sb.seq));
		else
			f.seq[i] = cfs_le64_to_cpu(sb.seq);
		best = cfs_max(best, f.seq[i]);
	}
	free(buf);
	if (rc || !best || unknown > best)
		return rc ? rc : unknown > best ? -EPROTONOSUPPORT : err;
	divide(root, cfs_le32_to_cpu(ret_sb->root_sides) == 2);
	for (uint32_t s = 0; s < root->n_sides; s++)
		settle_side(&root->side[s], &f);
	return check_hidden(root, &f, errbuf, errlen);
}

bool cfs_root_can_mirror(const struct cfs_dev_info *info)
{
	return cfs_zone_limit(info) > CFS_ZONES_ACTIVE_MIN;
}

/* a target that has one log of four zones gets two, with the next superblock */
void cfs_root_mirror(struct cfs_root *root)
{
	struct cfs_root_side old = root->side[0];

	if (root->n_sides == 2 || !cfs_root_can_mirror(&root->dev->info))
		return;
	divide(root, true);
	for (uint32_t s = 0; s < 2; s++) {
		struct cfs_root_side *side = &root->side[s];

		if (old.newest - side->first >= side->n)
			continue;
		side->newest = old.newest;
		side->zone = old.zone;
		side->wp = old.wp;
	}
}

/* zones of the log but the present ones that a crash left half written count as active for nothing */
int cfs_root_tidy(struct cfs_root *root)
{
	struct cfs_zone z[CFS_DISK_ROOT_ZONES];
	int rc = report(root->dev, z);

	for (uint32_t i = 0; !rc && i < CFS_DISK_ROOT_ZONES; i++)
		if (i != root->side[0].zone && (root->n_sides < 2 || i != root->side[1].zone) &&
		    z[i].state > CFS_ZONE_EMPTY && z[i].state < CFS_ZONE_FULL)
			rc = root->dev->ops->zone_sync(root->dev, CFS_DEV_ZONE_FINISH, z[i].start);
	return rc;
}

static int next_zone(struct cfs_root *root, struct cfs_root_side *side, bool any)
{
	const struct cfs_dev_ops *ops = root->dev->ops;
	uint64_t zone_bytes = root->dev->info.zone_bytes;
	uint32_t next = after(side, side->zone);
	int rc;

	if (next == side->newest && !any)
		next = after(side, next);
	if (next != side->zone) {
		/* ends it if it can still be ended, so that it does not count as active */
		rc = ops->zone_sync(root->dev, CFS_DEV_ZONE_FINISH, side->zone * zone_bytes);
		(void)rc;
	}
	side->zone = next;
	side->wp = UINT64_MAX;
	rc = ops->zone_sync(root->dev, CFS_DEV_ZONE_RESET, side->zone * zone_bytes);
	if (!rc)
		side->wp = 0;
	return rc;
}

static int side_write(struct cfs_root *root, struct cfs_root_side *side, const void *buf)
{
	const struct cfs_root_side *other = side == root->side ? side + 1 : root->side;
	bool spare = root->n_sides == 2 && other->newest != UINT32_MAX && !other->failing;
	struct cfs_dev *dev = root->dev;
	int rc = -EIO;

	for (uint32_t try = 0; try <= side->n; try++) {
		bool here = side->wp % BLK == 0 && side->wp <= dev->info.zone_capacity - ROOT_BYTES;

		rc = here ? 0 : next_zone(root, side, spare && try == side->n);
		if (!rc)
			rc = dev->ops->write_sync(dev, side->zone * dev->info.zone_bytes + side->wp, buf,
						  ROOT_BYTES);
		if (!rc) {
			side->newest = side->zone;
			side->wp += ROOT_BYTES;
			break;
		}
		if (side->zone == side->newest && !here)
			side->newest = UINT32_MAX; /* it was reset, perhaps */
		if (!side->failing)
			cfs_err("store: writing a superblock to zone %u failed: %s", side->zone, strerror(-rc));
		side->wp = UINT64_MAX; /* never here again before a reset */
	}
	if (rc && !side->failing && root->n_sides > 1)
		cfs_err("store: the copy of the superblocks in zones %u and %u cannot be written any more",
			side->first, side->first + 1);
	side->failing = rc;
	return rc;
}

/* on both sides; one is enough */
int cfs_root_write(struct cfs_root *root, const struct cfs_disk_super *sb)
{
	uint8_t *buf = cfs_aligned_raw(ROOT_BYTES);
	int rc = -EIO, one;
	bool done = false;

	if (!buf)
		return -ENOMEM;
	memcpy(buf, sb, BLK);
	memcpy(buf + BLK, sb, BLK);
	for (uint32_t s = 0; s < root->n_sides; s++) {
		one = side_write(root, &root->side[s], buf);
		done |= !one;
		rc = one ? one : rc;
	}
	free(buf);
	return done ? 0 : rc;
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
	*root = (struct cfs_root){ .dev = dev };
	divide(root, cfs_root_can_mirror(&dev->info));
	return !rc && good < 2 ? -EIO : rc;
}
