/* SPDX-License-Identifier: MIT */
/*
 * acl.c - POSIX ACLs in the form of the Linux xattrs system.posix_acl_{access,default}, version
 * 2: le32 version, then entries of le16 tag, le16 perm, le32 id. The rules are those of Linux
 * fs/posix_acl.c (posix_acl_valid, posix_acl_equiv_mode, __posix_acl_chmod_masq,
 * posix_acl_create_masq), and of POSIX 1003.1e draft 17, section 23. Pure functions over the
 * caller's bytes.
 */
#include "server/meta/meta_i.h"

#define ACL_VERSION	2u
#define ACL_HEAD	4u
#define ACL_ENTRY	8u

enum {
	TAG_USER_OBJ = 0x01,
	TAG_USER = 0x02,
	TAG_GROUP_OBJ = 0x04,
	TAG_GROUP = 0x08,
	TAG_MASK = 0x10,
	TAG_OTHER = 0x20,
};

static uint8_t *entry(const void *acl, unsigned i)
{
	return (uint8_t *)acl + ACL_HEAD + ACL_ENTRY * (size_t)i;
}

static uint32_t tag_of(const void *acl, unsigned i)
{
	return cfs_get_le16(entry(acl, i));
}

static uint32_t perm_of(const void *acl, unsigned i)
{
	return cfs_get_le16(entry(acl, i) + 2);
}

static void perm_set(void *acl, unsigned i, uint32_t perm)
{
	cfs_le16 le = cfs_cpu_to_le16((uint16_t)perm);

	memcpy(entry(acl, i) + 2, &le, 2);
}

/* index of the (only) entry with a tag, or -1 */
static int find(const void *acl, size_t len, uint32_t tag)
{
	for (unsigned i = 0; i < cfs_ms_acl_count(len); i++)
		if (tag_of(acl, i) == tag)
			return (int)i;
	return -1;
}

unsigned cfs_ms_acl_count(size_t len)
{
	return len < ACL_HEAD ? 0 : (unsigned)((len - ACL_HEAD) / ACL_ENTRY);
}

/*
 * entries in the order user, users, group, groups, mask, other; a mask if there are named users
 * or groups
 */
int cfs_ms_acl_check(const void *acl, size_t len)
{
	bool need_mask = false;
	uint32_t want = TAG_USER_OBJ;

	if (len < ACL_HEAD || (len - ACL_HEAD) % ACL_ENTRY || cfs_get_le32(acl) != ACL_VERSION)
		return EINVAL;
	if (len == ACL_HEAD)
		return 0;
	for (unsigned i = 0; i < cfs_ms_acl_count(len); i++) {
		if (perm_of(acl, i) > 7)
			return EINVAL;
		switch (tag_of(acl, i)) {
		case TAG_USER_OBJ:
			if (want != TAG_USER_OBJ)
				return EINVAL;
			want = TAG_USER;
			break;
		case TAG_USER:
			if (want != TAG_USER)
				return EINVAL;
			need_mask = true;
			break;
		case TAG_GROUP_OBJ:
			if (want != TAG_USER)
				return EINVAL;
			want = TAG_GROUP;
			break;
		case TAG_GROUP:
			if (want != TAG_GROUP)
				return EINVAL;
			need_mask = true;
			break;
		case TAG_MASK:
			if (want != TAG_GROUP)
				return EINVAL;
			want = TAG_OTHER;
			break;
		case TAG_OTHER:
			if (want != TAG_OTHER && (want != TAG_GROUP || need_mask))
				return EINVAL;
			want = 0;
			break;
		default:
			return EINVAL;
		}
	}
	return want ? EINVAL : 0;
}

bool cfs_ms_acl_mode(const void *acl, size_t len, uint32_t *ret_perm)
{
	uint32_t perm = 0;
	bool all = true;

	for (unsigned i = 0; i < cfs_ms_acl_count(len); i++) {
		switch (tag_of(acl, i)) {
		case TAG_USER_OBJ:
			perm |= perm_of(acl, i) << 6;
			break;
		case TAG_GROUP_OBJ:
			perm |= perm_of(acl, i) << 3;
			break;
		case TAG_OTHER:
			perm |= perm_of(acl, i);
			break;
		case TAG_MASK:		/* comes after GROUP_OBJ, and stands in its place */
			perm = (perm & ~(uint32_t)S_IRWXG) | perm_of(acl, i) << 3;
			all = false;
			break;
		default:
			all = false;
			break;
		}
	}
	*ret_perm = perm;
	return all;
}

void cfs_ms_acl_chmod(void *acl, size_t len, uint32_t mode)
{
	int group = find(acl, len, TAG_MASK);

	if (group < 0)
		group = find(acl, len, TAG_GROUP_OBJ);
	for (unsigned i = 0; i < cfs_ms_acl_count(len); i++) {
		if (tag_of(acl, i) == TAG_USER_OBJ)
			perm_set(acl, i, mode >> 6 & 7);
		else if (tag_of(acl, i) == TAG_OTHER)
			perm_set(acl, i, mode & 7);
		else if ((int)i == group)
			perm_set(acl, i, mode >> 3 & 7);
	}
}

bool cfs_ms_acl_create(void *acl, size_t len, uint32_t *mode)
{
	int group = find(acl, len, TAG_MASK);
	uint32_t m = *mode;
	bool all = group < 0;

	if (group < 0)
		group = find(acl, len, TAG_GROUP_OBJ);
	for (unsigned i = 0; i < cfs_ms_acl_count(len); i++) {
		uint32_t tag = tag_of(acl, i), shift;

		if (tag == TAG_USER_OBJ) {
			shift = 6;
		} else if (tag == TAG_OTHER) {
			shift = 0;
		} else if ((int)i == group) {
			shift = 3;
		} else {
			all &= tag == TAG_GROUP_OBJ;
			continue;
		}
		perm_set(acl, i, perm_of(acl, i) & (m >> shift));
		m &= perm_of(acl, i) << shift | ~(7u << shift);
	}
	*mode = m;
	return all;
}
