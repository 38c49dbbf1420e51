/* SPDX-License-Identifier: MIT */
/* super.c - format, superblocks and vote slots. Blocking; start-up, shut-down and offline only. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "server/store/store_i.h"

#define FORMAT_FILL (8u << 20) /* bytes zero-filled at a time */

void *cfs_aligned_raw(size_t bytes)
{
	void *p;

	return posix_memalign(&p, BLK, cfs_align_up(bytes, BLK)) ? NULL : p;
}

void *cfs_aligned_alloc(size_t bytes)
{
	void *p = cfs_aligned_raw(bytes);

	if (p)
		memset(p, 0, cfs_align_up(bytes, BLK));
	return p;
}

uint32_t cfs_obj_max_of(uint32_t seg_bytes)
{
	return cfs_min(seg_bytes / 2, CFS_OBJECT_MAX);
}

/* the newer of the two copies at fixed places; with -EPROTONOSUPPORT the one that is not known */
static int load_slots(struct cfs_dev *dev, struct cfs_disk_super *ret_sb)
{
	static const uint64_t offs[2] = { CFS_DISK_SB_OFF0, CFS_DISK_SB_OFF1 };
	struct cfs_disk_super *sb = cfs_aligned_alloc(2 * sizeof(*sb));
	int rc[2], err, best = -1;

	if (!sb)
		return -ENOMEM;
	for (int i = 0; i < 2; i++) {
		rc[i] = dev->info.size_bytes < CFS_DISK_SEG_OFF ?
				-EMEDIUMTYPE :
				dev->ops->read_sync(dev, offs[i], &sb[i], sizeof(*sb));
		if (!rc[i])
			rc[i] = cfs_super_check(&sb[i]);
		if (!rc[i] &&
		    (best < 0 || cfs_le64_to_cpu(sb[i].seq) > cfs_le64_to_cpu(sb[best].seq)))
			best = i;
		if (rc[i] == -EPROTONOSUPPORT && best < 0)
			*ret_sb = sb[i];
	}
	if (best >= 0)
		*ret_sb = sb[best];
	err = best >= 0						       ? 0 :
	      rc[0] == -EPROTONOSUPPORT || rc[1] == -EPROTONOSUPPORT ? -EPROTONOSUPPORT :
	      rc[0] == -EMEDIUMTYPE				       ? rc[1] :
									 rc[0];
	free(sb);
	return err;
}

int cfs_super_load(struct cfs_root *root, struct cfs_dev *dev, struct cfs_disk_super *ret_sb,
		   char *errbuf, size_t errlen)
{
	bool zoned = dev->info.flags & CFS_DEV_F_ZONED;
	struct cfs_disk_super sb;
	int rc;

	*root = (struct cfs_root){ .dev = dev };
	if (errlen)
		errbuf[0] = '\0';
	rc = zoned ? cfs_root_load(root, dev, &sb, errbuf, errlen) : load_slots(dev, &sb);
	if (rc && errlen && errbuf[0])
		return rc;
	if (rc == -EPROTONOSUPPORT) {
		snprintf(errbuf, errlen,
			 "the superblock is of format version %u, or has features that are not "
			 "known here (versions %u to %u)",
			 cfs_le32_to_cpu(sb.version), CFS_DISK_VERSION_MIN, CFS_DISK_VERSION);
	} else if (rc == -EMEDIUMTYPE) {
		snprintf(errbuf, errlen, zoned ? "no ClaudeFS superblock in the first %u zones" :
						 "no ClaudeFS superblock at offsets 0 and 65536",
			 CFS_DISK_ROOT_ZONES);
	} else if (rc) {
		snprintf(errbuf, errlen, "all superblocks (%s) are damaged or unreadable: %s",
			 zoned ? "the first 4 zones" : "offsets 0 and 65536", strerror(-rc));
	} else if (cfs_le64_to_cpu(sb.device_bytes) > dev->info.size_bytes) {
		rc = -EUCLEAN;
		snprintf(errbuf, errlen, "the device has shrunk: %llu bytes, formatted with %llu",
			 (unsigned long long)dev->info.size_bytes,
			 (unsigned long long)cfs_le64_to_cpu(sb.device_bytes));
	} else if (zoned ? cfs_le64_to_cpu(sb.zone_bytes) != dev->info.zone_bytes ||
				   cfs_le32_to_cpu(sb.segment_bytes) > dev->info.zone_capacity :
			   sb.incompat != 0) {
		rc = -EUCLEAN;
		snprintf(errbuf, errlen, "the device has zones of %llu bytes, formatted with %llu",
			 (unsigned long long)dev->info.zone_bytes,
			 (unsigned long long)cfs_le64_to_cpu(sb.zone_bytes));
	} else {
		*ret_sb = sb;
	}
	return rc;
}

int cfs_super_write(struct cfs_root *root, struct cfs_disk_super *sb)
{
	struct cfs_disk_super *buf;
	uint64_t seq = cfs_le64_to_cpu(sb->seq) + 1;
	int rc;

	sb->seq = cfs_cpu_to_le64(seq);
	sb->version = cfs_cpu_to_le32(CFS_DISK_VERSION);
	sb->root_sides = cfs_cpu_to_le32(root->n_sides);
	cfs_disk_crc_set(sb, sizeof(*sb));
	if (root->dev->info.flags & CFS_DEV_F_ZONED)
		return cfs_root_write(root, sb);
	buf = cfs_aligned_alloc(sizeof(*buf));
	if (!buf)
		return -ENOMEM;
	*buf = *sb;
	rc = root->dev->ops->write_sync(root->dev, seq & 1 ? CFS_DISK_SB_OFF1 : CFS_DISK_SB_OFF0,
					buf, sizeof(*buf));
	free(buf);
	return rc;
}

static uint32_t choose_segment(uint64_t bytes)
{
	uint64_t seg = CFS_DISK_SEG_MIN, room = bytes - CFS_DISK_SEG_OFF;

	/* at least 8 MiB, so that the largest object fits, where eight of those do */
	while (seg < CFS_DISK_SEG_MAX &&
	       (seg * 2 * 32 <= room || (seg < 8u << 20 && seg * 2 * 16 <= room)))
		seg *= 2;
	return (uint32_t)seg;
}

/* by which segment headers of an earlier life do not count: never the same id twice in a row */
static uint64_t new_format_id(struct cfs_dev *dev, const struct cfs_format_params *p)
{
	struct cfs_disk_super old;
	struct cfs_root root;
	char ignored[128];

	if (!cfs_super_load(&root, dev, &old, ignored, sizeof(ignored)))
		return cfs_hash_u64(cfs_le64_to_cpu(old.format_id) + 1);
	return cfs_hash64(p->cluster, sizeof(p->cluster),
			  cfs_hash_u64(p->label_time_ns) + p->target_id);
}

/* how a device without zones is divided. 0, or -EINVAL with the reason */
static int plan_segments(const struct cfs_dev *dev, uint32_t *seg_bytes, uint64_t *ret_n,
			 char *errbuf, size_t errlen)
{
	uint64_t bytes = dev->info.size_bytes;

	if (bytes < CFS_DISK_SEG_OFF + (uint64_t)CFS_DISK_SEGMENTS_MIN * CFS_DISK_SEG_MIN) {
		snprintf(errbuf, errlen, "device of %llu bytes: too small (9 MiB is the least)",
			 (unsigned long long)bytes);
		return -EINVAL;
	}
	if (!*seg_bytes)
		*seg_bytes = choose_segment(bytes);
	if (*seg_bytes < CFS_DISK_SEG_MIN || *seg_bytes > CFS_DISK_SEG_MAX ||
	    *seg_bytes & (*seg_bytes - 1)) {
		snprintf(errbuf, errlen, "segment size %u: must be a power of two, 1 MiB to 64 MiB",
			 *seg_bytes);
		return -EINVAL;
	}
	*ret_n = cfs_min((bytes - CFS_DISK_SEG_OFF) / *seg_bytes,
			 (uint64_t)CFS_DISK_SEGMENTS_MAX - 1);
	if (*ret_n >= CFS_DISK_SEGMENTS_MIN)
		return 0;
	snprintf(errbuf, errlen, "device of %llu bytes: at least %u segments of %u bytes are needed",
		 (unsigned long long)bytes, CFS_DISK_SEGMENTS_MIN, *seg_bytes);
	return -EINVAL;
}

/* a zone is a segment */
static int plan_zones(const struct cfs_dev *dev, uint32_t *seg_bytes, uint64_t *ret_n, char *errbuf,
		      size_t errlen)
{
	const struct cfs_dev_info *info = &dev->info;
	uint64_t cap = cfs_align_down(info->zone_capacity, BLK);

	if (*seg_bytes && *seg_bytes != cap) {
		snprintf(errbuf, errlen, "the device has zones: a segment is a zone of %llu bytes",
			 (unsigned long long)cap);
		return -EINVAL;
	}
	if (cap < CFS_DISK_SEG_MIN || info->zone_bytes > CFS_DISK_ZONE_MAX || info->zone_bytes % BLK) {
		snprintf(errbuf, errlen, "zones of %llu bytes (capacity %llu): 1 MiB to 2 GiB can be used",
			 (unsigned long long)info->zone_bytes, (unsigned long long)cap);
		return -EINVAL;
	}
	if (info->n_zones < CFS_DISK_ROOT_ZONES + CFS_DISK_SEGMENTS_MIN ||
	    cfs_zone_limit(info) < CFS_ZONES_ACTIVE_MIN) {
		snprintf(errbuf, errlen,
			 "%u zones, %u of them active at a time: at least %u and %u are needed",
			 info->n_zones, cfs_zone_limit(info),
			 CFS_DISK_ROOT_ZONES + CFS_DISK_SEGMENTS_MIN, CFS_ZONES_ACTIVE_MIN);
		return -EINVAL;
	}
	*seg_bytes = (uint32_t)cap;
	*ret_n = cfs_min(info->n_zones - CFS_DISK_ROOT_ZONES, CFS_DISK_SEGMENTS_MAX - 1);
	return 0;
}

/* superblocks of an earlier life go, and the first segment is ready to be a journal */
static int wipe(struct cfs_dev *dev, uint32_t seg_bytes, uint64_t format_id)
{
	struct cfs_disk_seg hdr = { .type = CFS_SEG_POOL,
				    .flags = cfs_cpu_to_le16(CFS_SEGF_FILLED),
				    .format_id = cfs_cpu_to_le64(format_id),
				    .seg_seq = cfs_cpu_to_le64(1) };
	uint8_t *buf = cfs_aligned_alloc(FORMAT_FILL);
	int rc = buf ? 0 : -ENOMEM;

	if (!rc)
		rc = dev->ops->write_sync(dev, 0, buf, (uint32_t)CFS_DISK_SEG_OFF);
	for (uint32_t at = 0; !rc && at < seg_bytes; at += FORMAT_FILL)
		rc = dev->ops->write_sync(dev, CFS_DISK_SEG_OFF + at, buf,
					  cfs_min(seg_bytes, FORMAT_FILL));
	if (!rc) {
		cfs_seg_hdr_encode(buf, &hdr);
		memcpy(buf + BLK, buf, BLK);
		rc = dev->ops->write_sync(dev, CFS_DISK_SEG_OFF, buf, CFS_DISK_SEG_HDR_BLOCKS * BLK);
	}
	free(buf);
	return rc;
}

int cfs_store_format(struct cfs_dev *dev, const struct cfs_format_params *p, char *errbuf,
		     size_t errlen)
{
	bool zoned = dev->info.flags & CFS_DEV_F_ZONED;
	struct cfs_disk_super *sb = NULL;
	struct cfs_root root = { .dev = dev };
	uint32_t seg_bytes = p->segment_bytes;
	uint64_t n, format_id;
	int rc;

	if (dev->info.write_unit > BLK) {
		snprintf(errbuf, errlen, "device with sectors of %u bytes: 4096 is the most",
			 dev->info.write_unit);
		return -EINVAL;
	}
	rc = zoned ? plan_zones(dev, &seg_bytes, &n, errbuf, errlen) :
		     plan_segments(dev, &seg_bytes, &n, errbuf, errlen);
	if (rc)
		return rc;
	format_id = new_format_id(dev, p);
	sb = cfs_aligned_alloc(sizeof(*sb));
	rc = sb ? 0 : -ENOMEM;
	/* the old superblocks first: a format that is cut short leaves no target, not half of two */
	if (!rc)
		rc = zoned ? cfs_root_create(&root, dev) : wipe(dev, seg_bytes, format_id);
	if (!rc && zoned)
		rc = cfs_zones_reset_all(dev, (uint32_t)n);
	if (rc)
		goto out;
	sb->magic = cfs_cpu_to_le64(CFS_SUPER_MAGIC);
	sb->state = cfs_cpu_to_le32(CFS_SUPER_CLEAN);
	memcpy(sb->cluster, p->cluster, sizeof(sb->cluster));
	sb->target_id = cfs_cpu_to_le32(p->target_id);
	sb->block_bytes = cfs_cpu_to_le32(BLK);
	sb->incompat = cfs_cpu_to_le64(zoned ? CFS_INCOMPAT_ZONED : 0);
	sb->label_time_ns = cfs_cpu_to_le64(p->label_time_ns);
	sb->device_bytes = cfs_cpu_to_le64(dev->info.size_bytes);
	sb->format_id = cfs_cpu_to_le64(format_id);
	sb->segment_bytes = cfs_cpu_to_le32(seg_bytes);
	sb->segments = cfs_cpu_to_le32((uint32_t)n);
	sb->zone_bytes = cfs_cpu_to_le64(dev->info.zone_bytes);
	rc = cfs_super_write(&root, sb);
	if (!rc && !zoned)
		rc = cfs_super_write(&root, sb);
out:
	if (rc)
		snprintf(errbuf, errlen, "formatting failed: %s", strerror(-rc));
	free(sb);
	return rc;
}

/* ---- votes ------------------------------------------------------------------------------ */

static uint64_t vote_off(uint32_t slot, uint32_t copy)
{
	return CFS_DISK_VOTE_OFF + ((uint64_t)slot * 2 + copy) * BLK;
}

static int vote_write(struct cfs_store *st, uint32_t slot)
{
	uint8_t *buf;
	int rc = 0;

	if (st->zoned) {
		memcpy(st->sb.votes, st->votes, sizeof(st->sb.votes));
		return cfs_super_write(&st->root, &st->sb);
	}
	buf = cfs_aligned_alloc(2 * BLK);
	if (!buf)
		return -ENOMEM;
	memcpy(buf, &st->votes[slot], sizeof(st->votes[slot]));
	memcpy(buf + BLK, &st->votes[slot], sizeof(st->votes[slot]));
	if (cfs_vote_is_atomic(st)) {
		rc = st->dev->ops->write_sync(st->dev, vote_off(slot, 0), buf, 2 * BLK);
	} else {
		/* one after the other: a torn copy leaves the other, old or new */
		for (uint32_t c = 0; c < 2 && !rc; c++)
			rc = st->dev->ops->write_sync(st->dev, vote_off(slot, c), buf, BLK);
	}
	free(buf);
	return rc;
}

bool cfs_vote_is_atomic(const struct cfs_store *st)
{
	return !st->zoned && cfs_dev_can_atomic(&st->dev->info, vote_off(0, 0), 2 * BLK);
}

/* of a zoned target: they came with the superblock, whose checksum stands for them */
static void votes_of_root(struct cfs_store *st)
{
	for (uint32_t i = 0; i < CFS_DISK_VOTE_GROUPS; i++) {
		if (!cfs_vote_check(&st->sb.votes[i], st->format_id))
			continue;
		st->votes[i] = st->sb.votes[i];
		st->vote_used[i] = true;
		st->vote_group[i] = cfs_le32_to_cpu(st->votes[i].group);
	}
}

/* one slot, both copies at `a` */
static int vote_load(struct cfs_store *st, uint32_t i, const uint8_t *a, bool repair, char *errbuf,
		     size_t errlen)
{
	const uint8_t *b = a + BLK;
	bool a_ok = cfs_vote_check(a, st->format_id), b_ok = cfs_vote_check(b, st->format_id);
	struct cfs_disk_vote va, vb;
	int rc = 0;

	memcpy(&va, a, sizeof(va));
	memcpy(&vb, b, sizeof(vb));
	if (!a_ok && !b_ok) {
		if (cfs_bytes_zero(a, BLK) && cfs_bytes_zero(b, BLK))
			return 0;
		/* a first vote torn in its first copy was never given; anything else is damage */
		if (cfs_bytes_zero(b, BLK)) {
			cfs_warn("store: unfinished first vote in slot %u ignored", i);
			return 0;
		}
		snprintf(errbuf, errlen, "vote slot %u at offset %llu: both copies are damaged", i,
			 (unsigned long long)vote_off(i, 0));
		return -EUCLEAN;
	}
	st->votes[i] = !b_ok || (a_ok && cfs_le64_to_cpu(va.seq) >= cfs_le64_to_cpu(vb.seq)) ? va :
												vb;
	st->vote_used[i] = true;
	st->vote_group[i] = cfs_le32_to_cpu(st->votes[i].group);
	if (repair && (!a_ok || !b_ok || memcmp(&va, &vb, sizeof(va)))) {
		rc = vote_write(st, i);
		if (rc)
			snprintf(errbuf, errlen, "writing vote slot %u failed: %s", i, strerror(-rc));
	}
	return rc;
}

int cfs_votes_load(struct cfs_store *st, bool repair, char *errbuf, size_t errlen)
{
	uint32_t bytes = CFS_DISK_VOTE_GROUPS * 2 * BLK;
	uint8_t *buf;
	int rc;

	if (st->zoned) {
		votes_of_root(st);
		return 0;
	}
	buf = cfs_aligned_alloc(bytes);
	if (!buf)
		return -ENOMEM;
	rc = st->dev->ops->read_sync(st->dev, CFS_DISK_VOTE_OFF, buf, bytes);
	if (rc)
		snprintf(errbuf, errlen, "reading the vote slots at offset %llu failed: %s",
			 CFS_DISK_VOTE_OFF, strerror(-rc));
	for (uint32_t i = 0; i < CFS_DISK_VOTE_GROUPS && !rc; i++)
		rc = vote_load(st, i, buf + vote_off(i, 0) - CFS_DISK_VOTE_OFF, repair, errbuf, errlen);
	free(buf);
	return rc;
}

/* the slot of a group, a new one if need be; or -ENOSPC */
int cfs_vote_slot(struct cfs_store *st, uint32_t group)
{
	int unused = -ENOSPC;

	for (uint32_t i = 0; i < CFS_DISK_VOTE_GROUPS; i++) {
		if (st->vote_used[i] && st->vote_group[i] == group)
			return (int)i;
		if (!st->vote_used[i] && unused < 0)
			unused = (int)i;
	}
	if (unused >= 0) {
		st->vote_used[unused] = true;
		st->vote_group[unused] = group;
		memset(&st->votes[unused], 0, sizeof(st->votes[unused]));
	}
	return unused;
}

int cfs_vote_set(struct cfs_store *st, uint32_t slot, uint64_t term, uint64_t voted_for)
{
	struct cfs_disk_vote old = st->votes[slot], *v = &st->votes[slot];
	int rc;

	v->magic = cfs_cpu_to_le32(CFS_VOTE_MAGIC);
	v->version = cfs_cpu_to_le32(CFS_DISK_STRUCT_VERSION);
	v->group = cfs_cpu_to_le32(st->vote_group[slot]);
	v->format_id = cfs_cpu_to_le64(st->format_id);
	v->seq = cfs_cpu_to_le64(cfs_le64_to_cpu(old.seq) + 1);
	v->term = cfs_cpu_to_le64(term);
	v->voted_for = cfs_cpu_to_le64(voted_for);
	cfs_disk_crc_set(v, sizeof(*v));
	rc = vote_write(st, slot);
	/*
	 * what is on disk is unknown after a failure; the sequence stays used so that a repeat
	 * wins
	 */
	if (rc) {
		v->term = old.term;
		v->voted_for = old.voted_for;
	}
	return rc;
}
