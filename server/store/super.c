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

int cfs_super_load(struct cfs_dev *dev, struct cfs_disk_super *ret_sb, char *errbuf, size_t errlen)
{
	static const uint64_t offs[2] = { CFS_DISK_SB_OFF0, CFS_DISK_SB_OFF1 };
	struct cfs_disk_super *sb = cfs_aligned_alloc(2 * sizeof(*sb));
	int rc[2], err = 0, best = -1;

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
	}
	if (best >= 0) {
		*ret_sb = sb[best];
		if (cfs_le64_to_cpu(sb[best].device_bytes) > dev->info.size_bytes) {
			err = -EUCLEAN;
			snprintf(errbuf, errlen,
				 "the device has shrunk: %llu bytes, formatted with %llu",
				 (unsigned long long)dev->info.size_bytes,
				 (unsigned long long)cfs_le64_to_cpu(sb[best].device_bytes));
		}
		goto out;
	}
	if (rc[0] == -EPROTONOSUPPORT || rc[1] == -EPROTONOSUPPORT) {
		err = -EPROTONOSUPPORT;
		snprintf(errbuf, errlen, "the superblock is of a newer format than version %u",
			 CFS_DISK_VERSION);
	} else if (rc[0] == -EMEDIUMTYPE && rc[1] == -EMEDIUMTYPE) {
		err = -EMEDIUMTYPE;
		snprintf(errbuf, errlen, "no ClaudeFS superblock at offsets 0 and %llu",
			 CFS_DISK_SB_OFF1);
	} else {
		err = rc[0] == -EMEDIUMTYPE ? rc[1] : rc[0];
		snprintf(errbuf, errlen,
			 "both superblocks (offsets 0 and %llu) are damaged or unreadable: %s",
			 CFS_DISK_SB_OFF1, strerror(-err));
	}
out:
	free(sb);
	return err;
}

int cfs_super_write(struct cfs_dev *dev, struct cfs_disk_super *sb)
{
	struct cfs_disk_super *buf = cfs_aligned_alloc(sizeof(*buf));
	uint64_t seq = cfs_le64_to_cpu(sb->seq) + 1;
	int rc;

	if (!buf)
		return -ENOMEM;
	sb->seq = cfs_cpu_to_le64(seq);
	cfs_disk_crc_set(sb, sizeof(*sb));
	*buf = *sb;
	rc = dev->ops->write_sync(dev, seq & 1 ? CFS_DISK_SB_OFF1 : CFS_DISK_SB_OFF0, buf,
				  sizeof(*buf));
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

int cfs_store_format(struct cfs_dev *dev, const struct cfs_format_params *p, char *errbuf,
		     size_t errlen)
{
	struct cfs_disk_super *sb = NULL, old;
	uint32_t seg_bytes = p->segment_bytes;
	uint64_t bytes = dev->info.size_bytes, n, format_id;
	struct cfs_disk_seg hdr = { 0 };
	uint8_t *buf = NULL;
	char ignored[128];
	int rc = -EINVAL;

	if (bytes < CFS_DISK_SEG_OFF + (uint64_t)CFS_DISK_SEGMENTS_MIN * CFS_DISK_SEG_MIN ||
	    dev->info.write_unit > BLK || dev->info.zone_bytes) {
		snprintf(errbuf, errlen,
			 "device of %llu bytes: too small (9 MiB is the least), or zoned",
			 (unsigned long long)bytes);
		return -EINVAL;
	}
	if (!seg_bytes)
		seg_bytes = choose_segment(bytes);
	if (seg_bytes < CFS_DISK_SEG_MIN || seg_bytes > CFS_DISK_SEG_MAX ||
	    seg_bytes & (seg_bytes - 1)) {
		snprintf(errbuf, errlen, "segment size %u: must be a power of two, 1 MiB to 64 MiB",
			 seg_bytes);
		return -EINVAL;
	}
	n = cfs_min((bytes - CFS_DISK_SEG_OFF) / seg_bytes, (uint64_t)CFS_DISK_SEGMENTS_MAX - 1);
	if (n < CFS_DISK_SEGMENTS_MIN) {
		snprintf(errbuf, errlen,
			 "device of %llu bytes: at least %u segments of %u bytes are needed",
			 (unsigned long long)bytes, CFS_DISK_SEGMENTS_MIN, seg_bytes);
		return -EINVAL;
	}

	/* segment headers of an earlier life must not count: never the same id twice in a row */
	format_id = cfs_hash64(p->cluster, sizeof(p->cluster),
			       cfs_hash_u64(p->label_time_ns) + p->target_id);
	if (!cfs_super_load(dev, &old, ignored, sizeof(ignored)))
		format_id = cfs_hash_u64(cfs_le64_to_cpu(old.format_id) + 1);

	rc = -ENOMEM;
	sb = cfs_aligned_alloc(sizeof(*sb));
	buf = cfs_aligned_alloc(FORMAT_FILL);
	if (!sb || !buf)
		goto out;
	/*
	 * wipe the old superblocks first: a format that is cut short leaves no target, not half
	 * of two
	 */
	rc = dev->ops->write_sync(dev, 0, buf, (uint32_t)CFS_DISK_SEG_OFF);
	for (uint32_t at = 0; !rc && at < seg_bytes; at += FORMAT_FILL)
		rc = dev->ops->write_sync(dev, CFS_DISK_SEG_OFF + at, buf,
					  cfs_min(seg_bytes, FORMAT_FILL));
	if (rc)
		goto out;
	hdr.type = CFS_SEG_POOL;
	hdr.flags = cfs_cpu_to_le16(CFS_SEGF_FILLED);
	hdr.format_id = cfs_cpu_to_le64(format_id);
	hdr.seg_seq = cfs_cpu_to_le64(1);
	cfs_seg_hdr_encode(buf, &hdr);
	memcpy(buf + BLK, buf, BLK);
	rc = dev->ops->write_sync(dev, CFS_DISK_SEG_OFF, buf, CFS_DISK_SEG_HDR_BLOCKS * BLK);
	if (rc)
		goto out;

	sb->magic = cfs_cpu_to_le64(CFS_SUPER_MAGIC);
	sb->version = cfs_cpu_to_le32(CFS_DISK_VERSION);
	sb->state = cfs_cpu_to_le32(CFS_SUPER_CLEAN);
	memcpy(sb->cluster, p->cluster, sizeof(sb->cluster));
	sb->target_id = cfs_cpu_to_le32(p->target_id);
	sb->block_bytes = cfs_cpu_to_le32(BLK);
	sb->label_time_ns = cfs_cpu_to_le64(p->label_time_ns);
	sb->device_bytes = cfs_cpu_to_le64(bytes);
	sb->format_id = cfs_cpu_to_le64(format_id);
	sb->segment_bytes = cfs_cpu_to_le32(seg_bytes);
	sb->segments = cfs_cpu_to_le32((uint32_t)n);
	rc = cfs_super_write(dev, sb);
	if (!rc)
		rc = cfs_super_write(dev, sb);
out:
	if (rc)
		snprintf(errbuf, errlen, "formatting failed: %s", strerror(-rc));
	free(buf);
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
	void *buf = cfs_aligned_alloc(BLK);
	int rc = buf ? 0 : -ENOMEM;

	if (buf)
		memcpy(buf, &st->votes[slot], sizeof(st->votes[slot]));
	/* one after the other: a torn copy leaves the other, old or new */
	for (uint32_t c = 0; c < 2 && !rc; c++)
		rc = st->dev->ops->write_sync(st->dev, vote_off(slot, c), buf, BLK);
	free(buf);
	return rc;
}

int cfs_votes_load(struct cfs_store *st, bool repair, char *errbuf, size_t errlen)
{
	uint32_t bytes = CFS_DISK_VOTE_GROUPS * 2 * BLK;
	uint8_t *buf = cfs_aligned_alloc(bytes);
	int rc;

	if (!buf)
		return -ENOMEM;
	rc = st->dev->ops->read_sync(st->dev, CFS_DISK_VOTE_OFF, buf, bytes);
	if (rc) {
		snprintf(errbuf, errlen, "reading the vote slots at offset %llu failed: %s",
			 CFS_DISK_VOTE_OFF, strerror(-rc));
		goto out;
	}
	for (uint32_t i = 0; i < CFS_DISK_VOTE_GROUPS; i++) {
		const uint8_t *a = buf + vote_off(i, 0) - CFS_DISK_VOTE_OFF, *b = a + BLK;
		bool a_ok = cfs_vote_check(a, st->format_id),
		     b_ok = cfs_vote_check(b, st->format_id);
		struct cfs_disk_vote va, vb;

		memcpy(&va, a, sizeof(va));
		memcpy(&vb, b, sizeof(vb));
		if (!a_ok && !b_ok) {
			if (cfs_bytes_zero(a, BLK) && cfs_bytes_zero(b, BLK))
				continue;
			/*
			 * a first vote torn in its first copy was never given; anything else is
			 * damage
			 */
			if (cfs_bytes_zero(b, BLK)) {
				cfs_warn("store: unfinished first vote in slot %u ignored", i);
				continue;
			}
			rc = -EUCLEAN;
			snprintf(errbuf, errlen,
				 "vote slot %u at offset %llu: both copies are damaged", i,
				 (unsigned long long)vote_off(i, 0));
			goto out;
		}
		st->votes[i] =
			!b_ok || (a_ok && cfs_le64_to_cpu(va.seq) >= cfs_le64_to_cpu(vb.seq)) ? va :
												vb;
		st->vote_used[i] = true;
		st->vote_group[i] = cfs_le32_to_cpu(st->votes[i].group);
		if (repair && (!a_ok || !b_ok || memcmp(&va, &vb, sizeof(va)))) {
			rc = vote_write(st, i);
			if (rc) {
				snprintf(errbuf, errlen, "writing vote slot %u failed: %s", i,
					 strerror(-rc));
				goto out;
			}
		}
	}
out:
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
	v->version = cfs_cpu_to_le32(CFS_DISK_VERSION);
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
