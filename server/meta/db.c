/* SPDX-License-Identifier: MIT */
/* db.c - the few LMDB calls the state machine makes, with our keys and our errors. See meta_i.h. */
#include "server/meta/meta_i.h"

int cfs_ms_db_err(int rc)
{
	switch (rc) {
	case 0:
		return 0;
	case MDB_NOTFOUND:
		return ENOENT;
	case MDB_MAP_FULL:
		return -CFS_EMAPFULL;
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
	case MDB_INVALID:
	case MDB_VERSION_MISMATCH:
		return -EUCLEAN;
	case MDB_TXN_FULL:
	case MDB_CURSOR_FULL:
	case MDB_PAGE_FULL:
		return -E2BIG;
	default:
		return rc > 0 ? -rc : -EIO;
	}
}

int cfs_ms_db_get(struct cfs_tx *t, const struct cfs_key *k, MDB_val *ret_v)
{
	MDB_val key = { k->len, (void *)k->b };

	return cfs_ms_db_err(mdb_get(t->txn, t->m->dbi, &key, ret_v));
}

int cfs_ms_db_get_fixed(struct cfs_tx *t, const struct cfs_key *k, void *rec, size_t len)
{
	MDB_val v;
	int rc = cfs_ms_db_get(t, k, &v);

	if (rc)
		return rc;
	if (v.mv_size != len)
		return -EUCLEAN;
	memcpy(rec, v.mv_data, len);
	return 0;
}

int cfs_ms_db_put(struct cfs_tx *t, const struct cfs_key *k, const void *v, size_t len)
{
	MDB_val key = { k->len, (void *)k->b }, val = { len, (void *)v };

	t->writes++;
	return cfs_ms_db_err(mdb_put(t->txn, t->m->dbi, &key, &val, 0));
}

int cfs_ms_db_del(struct cfs_tx *t, const struct cfs_key *k)
{
	MDB_val key = { k->len, (void *)k->b };
	int rc;

	t->writes++;
	rc = cfs_ms_db_err(mdb_del(t->txn, t->m->dbi, &key, NULL));
	return rc == ENOENT ? -EUCLEAN : rc;
}

static int move(struct cfs_tx *t, const struct cfs_key *k, unsigned prefix_len, MDB_val *ret_k,
		MDB_val *ret_v, MDB_cursor_op op)
{
	MDB_val key = { k->len, (void *)k->b }, v;
	int rc = cfs_ms_db_err(mdb_cursor_get(t->cur, &key, &v, op));

	if (rc)
		return rc;
	if (key.mv_size < prefix_len || memcmp(key.mv_data, k->b, prefix_len))
		return ENOENT;
	*ret_k = key;
	*ret_v = v;
	return 0;
}

int cfs_ms_db_seek(struct cfs_tx *t, const struct cfs_key *k, unsigned prefix_len, MDB_val *ret_k,
		   MDB_val *ret_v)
{
	return move(t, k, prefix_len, ret_k, ret_v, MDB_SET_RANGE);
}

int cfs_ms_db_next(struct cfs_tx *t, const struct cfs_key *k, unsigned prefix_len, MDB_val *ret_k,
		   MDB_val *ret_v)
{
	return move(t, k, prefix_len, ret_k, ret_v, MDB_NEXT);
}

int cfs_ms_db_seek_le(struct cfs_tx *t, const struct cfs_key *k, unsigned prefix_len,
		      MDB_val *ret_k, MDB_val *ret_v)
{
	MDB_val key = { k->len, (void *)k->b };
	int rc = cfs_ms_db_err(mdb_cursor_get(t->cur, &key, ret_v, MDB_SET_RANGE));

	if (rc == ENOENT)	/* all keys are smaller */
		return move(t, k, prefix_len, ret_k, ret_v, MDB_LAST);
	if (rc)
		return rc;
	if (key.mv_size == k->len && !memcmp(key.mv_data, k->b, k->len)) {
		*ret_k = key;
		return 0;
	}
	return move(t, k, prefix_len, ret_k, ret_v, MDB_PREV);
}
