/* SPDX-License-Identifier: MIT */
/*
 * state.c - the LMDB environment of a shard: opening, transactions, checkpoints, figures.
 *
 * The environment runs with NOSYNC: it is a cache of the Raft log. Killing the process leaves it
 * whole, because its pages are in the page cache and LMDB never overwrites pages of the last
 * commit; losing the machine does not, and the `live` file tells. One thread;
 * cfs_meta_checkpoint() from any.
 */
#include "server/meta/meta_i.h"

#include "base/hash.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MAP_BYTES_MIN	(8ull << 20)
#define BOOT_ID_LEN	36

/* ---- the `live` file: which boot has the environment open ----------------------- */
static int boot_id_read(char id[BOOT_ID_LEN])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC), rc = 0;

	if (fd < 0)
		return -errno;
	if (read(fd, id, BOOT_ID_LEN) != BOOT_ID_LEN)
		rc = -EIO;
	close(fd);
	return rc;
}

static int dir_sync(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

	if (fd < 0)
		return -errno;
	if (fsync(fd))
		rc = -errno;
	close(fd);
	return rc;
}

/* durable before the first page is written; true in *ret_stale: left behind by another boot */
static int live_set(const char *path, bool *ret_stale)
{
	char file[4096], id[BOOT_ID_LEN], old[BOOT_ID_LEN];
	ssize_t n;
	int fd, rc;

	rc = boot_id_read(id);
	if (rc)
		return rc;
	snprintf(file, sizeof(file), "%s/live", path);
	fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	n = pread(fd, old, BOOT_ID_LEN, 0);
	*ret_stale = n > 0 && (n != BOOT_ID_LEN || memcmp(old, id, BOOT_ID_LEN));
	if (n < 0 || (n == BOOT_ID_LEN && !*ret_stale)) {
		rc = n < 0 ? -errno : 0;
	} else if (*ret_stale) {
		rc = 0;		/* the caller discards everything, this file too, and comes again */
	} else if ((n = pwrite(fd, id, BOOT_ID_LEN, 0)) != BOOT_ID_LEN) {
		rc = n < 0 ? -errno : -ENOSPC;
	} else {
		rc = fsync(fd) ? -errno : dir_sync(path);
	}
	close(fd);
	return rc;
}

int cfs_meta_discard(const char *path)
{
	static const char *const files[] = { "data.mdb", "lock.mdb", "live" };	/* `live` last */
	char file[4096];

	for (unsigned i = 0; i < CFS_ARRAY_SIZE(files); i++) {
		snprintf(file, sizeof(file), "%s/%s", path, files[i]);
		if (unlink(file) && errno != ENOENT)
			return -errno;
	}
	return 0;
}

/* ---- transactions --------------------------------------------------------------- */
static void state_encode(const struct cfs_meta *m, struct cfs_state_rec *r)
{
	const struct cfs_state *s = &m->st;

	memset(r, 0, sizeof(*r));
	r->magic = cfs_cpu_to_le32(CFS_STATE_MAGIC);
	r->version = cfs_cpu_to_le32(CFS_STATE_VERSION);
	memcpy(r->cluster, m->cluster, sizeof(r->cluster));
	r->shard = cfs_cpu_to_le32(m->shard);
	r->applied = cfs_cpu_to_le64(s->applied);
	cfs_ts_put(&r->time, s->time);
	r->next_ino = cfs_cpu_to_le64(s->next_ino);
	r->next_session = cfs_cpu_to_le64(s->next_session);
	r->next_dead = cfs_cpu_to_le64(s->next_dead);
	r->inodes = cfs_cpu_to_le64(s->inodes);
	r->dirs = cfs_cpu_to_le64(s->dirs);
	r->extents = cfs_cpu_to_le64(s->extents);
	r->data_bytes = cfs_cpu_to_le64(s->data_bytes);
	r->dead_objects = cfs_cpu_to_le64(s->dead_objects);
	r->orphans = cfs_cpu_to_le64(s->orphans);
	r->sessions = cfs_cpu_to_le64(s->sessions);
	r->locks = cfs_cpu_to_le64(s->locks);
	r->purging = cfs_cpu_to_le64(s->purging);
}

static void state_decode(struct cfs_state *s, const struct cfs_state_rec *r)
{
	s->applied = cfs_le64_to_cpu(r->applied);
	s->time = cfs_ts_get(&r->time);
	s->next_ino = cfs_le64_to_cpu(r->next_ino);
	s->next_session = cfs_le64_to_cpu(r->next_session);
	s->next_dead = cfs_le64_to_cpu(r->next_dead);
	s->inodes = cfs_le64_to_cpu(r->inodes);
	s->dirs = cfs_le64_to_cpu(r->dirs);
	s->extents = cfs_le64_to_cpu(r->extents);
	s->data_bytes = cfs_le64_to_cpu(r->data_bytes);
	s->dead_objects = cfs_le64_to_cpu(r->dead_objects);
	s->orphans = cfs_le64_to_cpu(r->orphans);
	s->sessions = cfs_le64_to_cpu(r->sessions);
	s->locks = cfs_le64_to_cpu(r->locks);
	s->purging = cfs_le64_to_cpu(r->purging);
}

int cfs_ms_state_begin(struct cfs_meta *m, struct cfs_tx *t)
{
	int rc;

	CFS_ASSERT(!m->group.tx.txn);
	memset(t, 0, sizeof(*t));
	t->m = m;
	rc = cfs_ms_db_err(mdb_txn_begin(m->env, NULL, 0, &t->txn));
	if (rc)
		return rc;
	rc = cfs_ms_db_err(mdb_cursor_open(t->txn, m->dbi, &t->cur));
	if (rc) {
		mdb_txn_abort(t->txn);
		t->txn = NULL;
	}
	CFS_ASSERT(m->refs.n == 0);
	return rc;
}

int cfs_ms_state_commit(struct cfs_meta *m, struct cfs_tx *t)
{
	struct cfs_state_rec rec;
	struct cfs_key k;
	int rc;

	CFS_ASSERT(m->refs.n == 0);
	cfs_key_init(&k, CFS_KEY_STATE);
	state_encode(m, &rec);
	rc = cfs_ms_db_put(t, &k, &rec, sizeof(rec));
	if (rc) {
		cfs_ms_state_abort(m, t);
		return rc;
	}
	mdb_cursor_close(t->cur);
	rc = cfs_ms_db_err(mdb_txn_commit(t->txn));
	t->txn = NULL;
	if (!rc)
		cfs_ms_room_committed(m);
	if (!rc && m->rd.txn && m->rd_fresh) { /* let the pages that it still shows be used again */
		mdb_txn_reset(m->rd.txn);
		m->rd_fresh = false;
	}
	return rc;
}

void cfs_ms_state_abort(struct cfs_meta *m, struct cfs_tx *t)
{
	if (!t->txn)
		return;
	if (t->cur)
		mdb_cursor_close(t->cur);
	mdb_txn_abort(t->txn);
	t->txn = NULL;
	cfs_ms_ref_reset(m);
}

int cfs_ms_state_rd(struct cfs_meta *m, struct cfs_tx **ret_t)
{
	int rc;

	if (m->group.tx.txn)
		return cfs_ms_group_rd(m, ret_t);
	rc = cfs_meta_settle(m);	/* nothing, unless applying it had failed */
	if (rc)
		return rc;
	if (!m->rd.txn) {
		rc = cfs_ms_db_err(mdb_txn_begin(m->env, NULL, MDB_RDONLY, &m->rd.txn));
		if (rc)
			return rc;
		rc = cfs_ms_db_err(mdb_cursor_open(m->rd.txn, m->dbi, &m->rd.cur));
		if (rc) {
			mdb_txn_abort(m->rd.txn);
			m->rd.txn = NULL;
			return rc;
		}
		m->rd.m = m;
		m->rd_fresh = true;
	} else if (!m->rd_fresh) {
		rc = cfs_ms_db_err(mdb_txn_renew(m->rd.txn));
		if (!rc)
			rc = cfs_ms_db_err(mdb_cursor_renew(m->rd.txn, m->rd.cur));
		if (rc)
			return rc;
		m->rd_fresh = true;
	}
	m->rd.now = m->st.time;
	*ret_t = &m->rd;
	return 0;
}

static void rd_close(struct cfs_meta *m)
{
	if (!m->rd.txn)
		return;
	mdb_cursor_close(m->rd.cur);
	mdb_txn_abort(m->rd.txn);
	m->rd.txn = NULL;
	m->rd_fresh = false;
}

int cfs_ms_state_grow(struct cfs_meta *m)
{
	MDB_envinfo info;
	int rc;

	rd_close(m);
	pthread_mutex_lock(&m->map_lock);
	mdb_env_info(m->env, &info);
	rc = mdb_env_set_mapsize(m->env, info.me_mapsize * 2);
	pthread_mutex_unlock(&m->map_lock);
	return cfs_ms_db_err(rc);
}

/* ---- open, close ---------------------------------------------------------------- */
static int fill_empty(struct cfs_meta *m, struct cfs_tx *t)
{
	struct cfs_inode root = {
		.ino = CFS_INO_ROOT, .map = CFS_INO_ROOT, .parent = CFS_INO_ROOT, .change = 1,
		.mode = S_IFDIR | 0755, .nlink = 2,
	};

	m->st = (struct cfs_state){ .next_ino = CFS_INO_ROOT + 1,
				    .next_session = 1000,
				    .next_dead = 1 };
	if (m->shard)
		return 0;
	m->st.inodes = m->st.dirs = 1;
	return cfs_ms_inode_put(t, &root);
}

/* reads the STATE record, or makes the first state */
static int load(struct cfs_meta *m, char *errbuf, size_t errlen)
{
	struct cfs_state_rec rec;
	struct cfs_tx t;
	struct cfs_key k;
	int rc;

	rc = cfs_ms_state_begin(m, &t);
	if (rc)
		return rc;
	cfs_key_init(&k, CFS_KEY_STATE);
	rc = cfs_ms_db_get_fixed(&t, &k, &rec, sizeof(rec));
	if (rc == ENOENT) {
		MDB_val key, v;

		if (mdb_cursor_get(t.cur, &key, &v, MDB_FIRST) == 0)
			rc = -EUCLEAN;
		else
			rc = fill_empty(m, &t);
		if (!rc)
			return cfs_ms_state_commit(m, &t);
	}
	cfs_ms_state_abort(m, &t);
	if (rc) {
		snprintf(errbuf, errlen, "%s: the state record is damaged (%s)", m->path,
			 strerror(rc > 0 ? rc : -rc));
		return rc > 0 ? -rc : rc;
	}
	if (cfs_le32_to_cpu(rec.magic) != CFS_STATE_MAGIC) {
		snprintf(errbuf, errlen, "%s: the state record has no magic", m->path);
		return -EUCLEAN;
	}
	if (cfs_le32_to_cpu(rec.version) != CFS_STATE_VERSION) {
		snprintf(errbuf, errlen, "%s: format version %u, this program knows %u", m->path,
			 cfs_le32_to_cpu(rec.version), CFS_STATE_VERSION);
		return -EPROTONOSUPPORT;
	}
	if (memcmp(rec.cluster, m->cluster, sizeof(rec.cluster)) ||
	    cfs_le32_to_cpu(rec.shard) != m->shard) {
		snprintf(errbuf, errlen, "%s: belongs to another cluster or shard (%u)", m->path,
			 cfs_le32_to_cpu(rec.shard));
		return -EMEDIUMTYPE;
	}
	state_decode(&m->st, &rec);
	return 0;
}

static int env_open(struct cfs_meta *m, uint64_t map_bytes)
{
	MDB_txn *txn;
	int rc;

	rc = mdb_env_create(&m->env);
	if (rc)
		return rc;
	rc = mdb_env_set_mapsize(m->env, cfs_align_up(cfs_max(map_bytes, (uint64_t)MAP_BYTES_MIN),
						      1u << 20));
	if (!rc)
		rc = mdb_env_open(m->env, m->path, MDB_NOSYNC | MDB_NOTLS | MDB_NORDAHEAD, 0600);
	if (!rc)
		rc = mdb_txn_begin(m->env, NULL, 0, &txn);
	if (rc)
		return rc;
	rc = mdb_dbi_open(txn, NULL, 0, &m->dbi);
	if (rc) {
		mdb_txn_abort(txn);
		return rc;
	}
	return mdb_txn_commit(txn);
}

int cfs_meta_open(const struct cfs_meta_params *p, struct cfs_meta **ret_meta, char *errbuf,
		  size_t errlen)
{
	struct cfs_meta *m = calloc(1, sizeof(*m));
	bool stale = false;
	uint64_t seed;
	int rc = -ENOMEM;

	errbuf[0] = 0;
	if (!m)
		goto out;
	pthread_mutex_init(&m->map_lock, NULL);
	m->path = strdup(p->path);
	if (!m->path)
		goto out;
	rc = -EINVAL;
	if (strlen(p->path) > 4000 || p->shard > UINT64_MAX >> CFS_INO_SHARD_SHIFT)
		goto out;
	memcpy(m->cluster, p->cluster, sizeof(m->cluster));
	memcpy(&seed, p->cluster, sizeof(seed));
	m->name_seed = le64toh(seed);
	m->shard = p->shard;
	if (mkdir(p->path, 0700) && errno != EEXIST) {
		rc = -errno;
		goto out;
	}
	rc = live_set(p->path, &stale);
	if (!rc && stale) {
		rc = cfs_meta_discard(p->path);
		if (!rc)
			rc = live_set(p->path, &stale);
	}
	if (!rc)
		rc = cfs_ms_room_prepare(p->path);
	if (rc)
		goto out;
	rc = cfs_ms_db_err(env_open(m, p->map_bytes));
	if (rc > 0)
		rc = -EUCLEAN;
	if (!rc)
		rc = load(m, errbuf, errlen);
	while (rc ==
	       -CFS_EMAPFULL) { /* a checkpoint larger than map_bytes; ends when memory does */
		rc = cfs_ms_state_grow(m);
		if (!rc)
			rc = load(m, errbuf, errlen);
	}
out:
	if (rc) {
		if (!errbuf[0])
			snprintf(errbuf, errlen, "%s: cannot open the metadata state: %s", p->path,
				 strerror(-rc));
		if (m) {
			if (m->env)
				mdb_env_close(m->env);
			pthread_mutex_destroy(&m->map_lock);
			free(m->path);
		}
		free(m);
		return rc;
	}
	*ret_meta = m;
	return 0;
}

void cfs_meta_close(struct cfs_meta *m)
{
	char file[4096];
	bool clean;

	if (!m)
		return;
	cfs_ms_group_close(m);
	rd_close(m);
	clean = mdb_env_sync(m->env, 1) == 0;
	mdb_env_close(m->env);
	snprintf(file, sizeof(file), "%s/live", m->path);
	if (clean && !unlink(file))
		dir_sync(m->path);
	pthread_mutex_destroy(&m->map_lock);
	free(m->arena);
	free(m->path);
	free(m);
}

int cfs_meta_checkpoint(struct cfs_meta *m, int fd)
{
	int rc;

	pthread_mutex_lock(&m->map_lock);
	rc = mdb_env_copyfd(m->env, fd);
	pthread_mutex_unlock(&m->map_lock);
	rc = cfs_ms_db_err(rc);
	return rc > 0 ? -EUCLEAN : rc;
}

/* ---- figures -------------------------------------------------------------------- */
uint64_t cfs_meta_applied(struct cfs_meta *m)
{
	return m->st.applied;
}

uint64_t cfs_meta_purge_pending(struct cfs_meta *m)
{
	return m->st.purging;
}

uint64_t cfs_meta_dying(struct cfs_meta *m)
{
	return m->st.dead_objects + m->st.purging;
}

int cfs_meta_stat(struct cfs_meta *m, struct cfs_meta_stat *ret)
{
	const struct cfs_state *s = &m->st;
	MDB_envinfo info;
	MDB_stat stat;
	int rc;

	rc = cfs_meta_settle(m);
	if (rc)
		return rc;
	rc = mdb_env_info(m->env, &info);
	if (!rc)
		rc = mdb_env_stat(m->env, &stat);
	if (rc)
		return -EIO;
	*ret = (struct cfs_meta_stat){
		.inodes = s->inodes,
		.dirs = s->dirs,
		.extents = s->extents,
		.data_bytes = s->data_bytes,
		.dead_objects = s->dead_objects,
		.orphans = s->orphans,
		.sessions = s->sessions,
		.locks = s->locks,
		.purging = s->purging,
		.applied_index = s->applied,
		.db_bytes = (info.me_last_pgno + 1) * stat.ms_psize,
	};
	return 0;
}

int cfs_meta_digest(struct cfs_meta *m, uint64_t *ret_digest)
{
	MDB_val k, v;
	struct cfs_tx *t;
	uint64_t h = 0, lens[2];
	int rc = cfs_meta_settle(m);	/* the state's own record, too */

	if (!rc)
		rc = cfs_ms_state_rd(m, &t);
	if (rc)
		return rc;
	for (rc = mdb_cursor_get(t->cur, &k, &v, MDB_FIRST); !rc;
	     rc = mdb_cursor_get(t->cur, &k, &v, MDB_NEXT)) {
		lens[0] = htole64(k.mv_size);
		lens[1] = htole64(v.mv_size);
		h = cfs_hash64(lens, sizeof(lens), h);
		h = cfs_hash64(k.mv_data, k.mv_size, h);
		h = cfs_hash64(v.mv_data, v.mv_size, h);
	}
	rc = cfs_ms_db_err(rc);
	if (rc != ENOENT)
		return rc;
	*ret_digest = h;
	return 0;
}

uint64_t cfs_meta_name_hash(struct cfs_meta *m, const char *name, size_t len)
{
	return cfs_name_hash(name, len, m->name_seed);
}
