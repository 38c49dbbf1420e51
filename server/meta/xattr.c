/* SPDX-License-Identifier: MIT */
/*
 * xattr.c - extended attributes of an inode as keys, and the inode's summary of them. See
 * meta_i.h.
 */
#include "server/meta/meta_i.h"

/* the CFS_IF_ bit that says a name of this kind is there */
static uint32_t flag_of(const char *name, uint32_t len)
{
#define IS(s) (len == sizeof(s) - 1 && !memcmp(name, s, len))
	if (IS(CFS_XATTR_ACL_ACCESS) || IS(CFS_XATTR_ACL_DEFAULT))
		return CFS_IF_ACL;
	if (IS(CFS_XATTR_CAPS))
		return CFS_IF_CAPS;
#undef IS
	return 0;
}

int cfs_ms_xattr_get(struct cfs_tx *t, uint64_t ino, const char *name, MDB_val *ret_v)
{
	struct cfs_key k;

	cfs_key_xattr(&k, ino, name, strlen(name));
	return cfs_ms_db_get(t, &k, ret_v);
}

int cfs_ms_xattr_put(struct cfs_tx *t, struct cfs_inode *in, const char *name, uint32_t name_len,
		     const void *v, size_t len)
{
	struct cfs_key k;
	MDB_val old;
	int rc;

	cfs_key_xattr(&k, in->ino, name, name_len);
	rc = cfs_ms_db_get(t, &k, &old);
	if (rc == ENOENT) {
		in->n_xattrs++;
		in->xattr_list_len += name_len + 1;
		in->flags |= CFS_IF_XATTR | flag_of(name, name_len);
	} else if (rc) {
		return rc;
	}
	return cfs_ms_db_put(t, &k, v, len);
}

int cfs_ms_xattr_del(struct cfs_tx *t, struct cfs_inode *in, const char *name, uint32_t name_len)
{
	uint32_t flag = flag_of(name, name_len);
	struct cfs_key k;
	MDB_val v;
	int rc;

	cfs_key_xattr(&k, in->ino, name, name_len);
	rc = cfs_ms_db_del(t, &k);
	if (rc)
		return rc;
	in->n_xattrs--;
	in->xattr_list_len -= name_len + 1;
	if (!in->n_xattrs)
		in->flags &= ~CFS_IF_XATTR;
	in->flags &= ~flag;
	if (flag == CFS_IF_ACL) {	/* of the two the other may still be there */
		rc = cfs_ms_xattr_get(t, in->ino, CFS_XATTR_ACL_ACCESS, &v);
		if (rc == ENOENT)
			rc = cfs_ms_xattr_get(t, in->ino, CFS_XATTR_ACL_DEFAULT, &v);
		if (!rc)
			in->flags |= CFS_IF_ACL;
		else if (rc != ENOENT)
			return rc;
	}
	return 0;
}

int cfs_ms_xattr_del_all(struct cfs_tx *t, uint64_t ino)
{
	struct cfs_key k, found;
	MDB_val key, v;
	int rc;

	/* ends: CFS_XATTR_LIST_MAX bounds the names of an inode */
	cfs_key_u64(&k, CFS_KEY_XATTR, ino);
	while (!(rc = cfs_ms_db_seek(t, &k, k.len, &key, &v))) {
		if (key.mv_size > CFS_KEY_MAX)
			return -EUCLEAN;
		found.len = (uint32_t)key.mv_size;
		memcpy(found.b, key.mv_data, key.mv_size);
		rc = cfs_ms_db_del(t, &found);
		if (rc)
			return rc;
	}
	return rc == ENOENT ? 0 : rc;
}
