/* SPDX-License-Identifier: MIT */
/* dentry.c - names in directories: cookies, finding, adding, removing. The format is in keys.h. */
#include "server/meta/meta_i.h"

#include "base/hash.h"

int cfs_ms_dent_name_check(const char *name, uint32_t len)
{
	int rc = cfs_name_check(name, len, false);

	return rc == -EPROTO ? EINVAL : -rc;
}

int cfs_ms_dent_decode(const MDB_val *k, const MDB_val *v, struct cfs_dent_view *ret)
{
	const uint8_t *p = v->mv_data;

	if (k->mv_size != 17 || v->mv_size <= CFS_DENT_REC_LEN ||
	    v->mv_size != CFS_DENT_REC_LEN + p[9])
		return -EUCLEAN;
	ret->dir = cfs_key_get_u64(k->mv_data, 1);
	ret->d.cookie = cfs_key_get_u64(k->mv_data, 9);
	ret->d.ino = cfs_get_le64(p);
	ret->d.mode = (uint32_t)p[8] << 12;
	ret->name_len = p[9];
	ret->name = (const char *)p + CFS_DENT_REC_LEN;
	return 0;
}

int cfs_ms_dent_find(struct cfs_tx *t, uint64_t dir, const char *name, uint32_t len,
		     struct cfs_dent *ret_d)
{
	uint64_t base = cfs_name_hash(name, len, t->m->name_seed) & ~(uint64_t)CFS_COOKIE_LOW;
	uint64_t free_cookie = cfs_max(base, (uint64_t)CFS_COOKIE_MIN);
	struct cfs_dent_view e;
	struct cfs_key k;
	MDB_val key, v;
	int rc;

	cfs_key_u64x2(&k, CFS_KEY_DENTRY, dir, base);
	for (rc = cfs_ms_db_seek(t, &k, 9, &key, &v); !rc;
	     rc = cfs_ms_db_next(t, &k, 9, &key, &v)) {
		rc = cfs_ms_dent_decode(&key, &v, &e);
		if (rc)
			return rc;
		if (e.d.cookie > (base | CFS_COOKIE_LOW))
			break;
		if (e.name_len == len && !memcmp(e.name, name, len)) {
			*ret_d = e.d;
			return 0;
		}
		if (e.d.cookie == free_cookie)
			free_cookie++;
	}
	if (rc && rc != ENOENT)
		return rc;
	*ret_d = (struct cfs_dent){ .cookie = free_cookie > (base | CFS_COOKIE_LOW) ? 0 :
										      free_cookie };
	return ENOENT;
}

int cfs_ms_dent_put(struct cfs_tx *t, uint64_t dir, const struct cfs_dent *d, const char *name,
		    uint32_t len)
{
	uint8_t buf[CFS_DENT_REC_LEN + CFS_NAME_MAX];
	cfs_le64 ino = cfs_cpu_to_le64(d->ino);
	struct cfs_key k;

	CFS_ASSERT(len >= 1 && len <= CFS_NAME_MAX && d->cookie >= CFS_COOKIE_MIN);
	memcpy(buf, &ino, 8);
	buf[8] = (uint8_t)((d->mode & S_IFMT) >> 12);
	buf[9] = (uint8_t)len;
	memcpy(buf + CFS_DENT_REC_LEN, name, len);
	cfs_key_u64x2(&k, CFS_KEY_DENTRY, dir, d->cookie);
	return cfs_ms_db_put(t, &k, buf, CFS_DENT_REC_LEN + len);
}

int cfs_ms_dent_del(struct cfs_tx *t, uint64_t dir, uint64_t cookie)
{
	struct cfs_key k;

	cfs_key_u64x2(&k, CFS_KEY_DENTRY, dir, cookie);
	return cfs_ms_db_del(t, &k);
}
