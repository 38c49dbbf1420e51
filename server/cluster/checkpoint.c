/* SPDX-License-Identifier: MIT */
/*
 * checkpoint.c - see checkpoint.h. One object is under way at a time, which also keeps checkpoints
 * out of the way of requests. Each step ends in a helper thread's or the store's completion, and
 * next() begins the following one.
 */
#include "server/cluster/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "rpc/codec.h"

#define RESTORE_FILE	"restore.tmp"
#define COPY_MEMORY_MAX	(1ull << 30)	/* bytes of a copy in memory */
#define CLEAN_BATCH	512u		/* objects looked at, and deleted, in one go */
#define CLEAN_PAUSE_NS	(20 * CFS_NSEC_PER_MSEC)

enum what { IDLE, TAKE, RESTORE };

struct cfs_ckpt {
	struct cfs_ckpt_params p;
	char *dir;
	enum what what;
	bool cancel, swap_ready;
	bool stored;	/* the objects of `to` are complete, and no manifest names them yet */
	cfs_ckpt_done_fn done;
	struct cfs_meta *meta;
	struct cfs_ckpt_manifest from, to;	/* read, and made */
	char addr[64];
	cfs_ckpt_fetch_fn fetch; /* not NULL: objects come from elsewhere, and are stored here */
	int fd;
	/* the piece under way */
	uint64_t off, total;
	uint64_t db_bytes;	/* of the state when its copying began */
	uint32_t len, crc;
	uint8_t *buf;				/* CFS_OBJECT_MAX, aligned */
	uint32_t crcs[CFS_OBJECT_CRCS];
	int err;				/* of the helper thread */
	enum { WORK_COPY, WORK_READ, WORK_WRITE, WORK_SYNC } work;
	struct cfs_store_write wr;
	struct cfs_store_read rd;
	/* cleaning, beside the rest: a range of names, then, if `scan`, all the store */
	bool cleaning, scan, known, keep_some;
	struct cfs_ckpt_manifest keep;
	uint64_t drop_seq, drop_n;
	uint64_t cursor;
	struct cfs_oid oids[CLEAN_BATCH];
	uint32_t lens[CLEAN_BATCH];
	struct cfs_store_delete del;
	struct cfs_timer timer;
	bool deleting;
};

static void next(struct cfs_ckpt *ck);
static void clean_step(struct cfs_timer *t);
static void drop(struct cfs_ckpt *ck, const struct cfs_ckpt_manifest *m);

static uint64_t n_objects(uint64_t total)
{
	return (total + CFS_OBJECT_MAX - 1) / CFS_OBJECT_MAX;
}

int cfs_ckpt_manifest_check(const void *buf, size_t len, const uint8_t *cluster, uint32_t shard,
			    struct cfs_ckpt_manifest *ret, const char **ret_why)
{
	struct cfs_ckpt_manifest m;

	*ret_why = NULL;
	if (len != sizeof(m)) {
		*ret_why = "wrong length";
		return -EUCLEAN;
	}
	memcpy(&m, buf, sizeof(m));
	if (cfs_le32_to_cpu(m.magic) != CFS_CKPT_MAGIC)
		*ret_why = "bad magic";
	else if (cfs_le16_to_cpu(m.version) != CFS_CKPT_VERSION)
		*ret_why = "unknown version";
	else if (memcmp(m.cluster, cluster, sizeof(m.cluster)))
		*ret_why = "of another cluster";
	else if (cfs_le32_to_cpu(m.shard) != shard)
		*ret_why = "of another shard";
	else if (cfs_le64_to_cpu(m.total) == 0 || cfs_le64_to_cpu(m.total) > CFS_CKPT_BYTES_MAX)
		*ret_why = "impossible length of the state";
	if (*ret_why)
		return -EUCLEAN;
	*ret = m;
	return 0;
}

int cfs_ckpt_create(const struct cfs_ckpt_params *p, struct cfs_ckpt **ret_ck)
{
	struct cfs_ckpt *ck = calloc(1, sizeof(*ck));

	if (!ck)
		return -ENOMEM;
	ck->p = *p;
	ck->fd = -1;
	ck->dir = strdup(p->dir);
	if (!ck->dir) {
		free(ck);
		return -ENOMEM;
	}
	*ret_ck = ck;
	return 0;
}

bool cfs_ckpt_busy(const struct cfs_ckpt *ck)
{
	return ck->what != IDLE || ck->deleting;
}

void cfs_ckpt_cancel(struct cfs_ckpt *ck)
{
	ck->cancel = true;
	cfs_timer_cancel(ck->p.clock, &ck->timer);
	ck->cleaning = ck->scan = false;
	ck->drop_n = 0;
}

void cfs_ckpt_abandon(struct cfs_ckpt *ck)
{
	CFS_ASSERT(ck->cancel);
	if (ck->fd >= 0)
		close(ck->fd);
	ck->fd = -1;
	free(ck->buf);
	ck->buf = NULL;
	ck->what = IDLE;
	ck->deleting = false;
}

static void remove_file(struct cfs_ckpt *ck)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/" RESTORE_FILE, ck->dir);
	unlink(path);
	ck->swap_ready = false;
}

void cfs_ckpt_destroy(struct cfs_ckpt *ck)
{
	if (!ck)
		return;
	CFS_ASSERT(!cfs_ckpt_busy(ck));
	cfs_timer_cancel(ck->p.clock, &ck->timer);
	if (ck->swap_ready)	/* restored, and not wanted any more */
		remove_file(ck);
	free(ck->dir);
	free(ck);
}

static void finish(struct cfs_ckpt *ck, int err)
{
	cfs_ckpt_done_fn done = ck->done;
	bool stored_some = ck->off > 0 && (ck->what == TAKE || ck->fetch);

	if (ck->fd >= 0)
		close(ck->fd);
	ck->fd = -1;
	free(ck->buf);
	ck->buf = NULL;
	if (ck->cancel && !err)
		err = -ECANCELED;
	if (err && ck->what == RESTORE)
		remove_file(ck);
	ck->what = IDLE;
	ck->stored = !err && stored_some;
	if (err && stored_some)
		drop(ck, &ck->to);
	done(ck->p.arg, err, err ? NULL : &ck->to);
}

/* ---- on the helper thread -------------------------------------------------------------------- */

/*
 * The file system of the state is full: the copy is made in memory, for without a checkpoint the journal would fill up
 * the target as well. A state too large for that waits for room.
 */
static int copy_to_memory(struct cfs_ckpt *ck)
{
	int fd;

	if (ck->db_bytes > COPY_MEMORY_MAX)
		return -ENOSPC;
	fd = memfd_create("claudefs-checkpoint", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	close(ck->fd);
	ck->fd = fd;
	return cfs_meta_checkpoint(ck->meta, fd);
}

static int copy_out(struct cfs_ckpt *ck)
{
	struct stat st;
	int rc = cfs_meta_checkpoint(ck->meta, ck->fd);

	if (rc == -ENOSPC || rc == -EIO)	/* a short write is EIO for LMDB */
		rc = copy_to_memory(ck);
	if (rc)
		return rc;
	if (fstat(ck->fd, &st))
		return -errno;
	if (st.st_size == 0 || (uint64_t)st.st_size > CFS_CKPT_BYTES_MAX)
		return -EFBIG;
	ck->total = (uint64_t)st.st_size;
	return 0;
}

static int piece_read(struct cfs_ckpt *ck)
{
	uint32_t got = 0;

	while (got < ck->len) {
		ssize_t n = pread(ck->fd, ck->buf + got, ck->len - got, (off_t)(ck->off + got));

		if (n <= 0)
			return n ? -errno : -EIO;
		got += (uint32_t)n;
	}
	memset(ck->buf + got, 0, cfs_align_up(got, 4096) - got);
	return 0;
}

static int piece_write(struct cfs_ckpt *ck)
{
	uint32_t put = 0;

	while (put < ck->len) {
		ssize_t n = pwrite(ck->fd, ck->buf + put, ck->len - put, (off_t)(ck->off + put));

		if (n < 0)
			return -errno;
		put += (uint32_t)n;
	}
	return 0;
}

static void work(void *arg)
{
	struct cfs_ckpt *ck = arg;

	switch (ck->work) {
	case WORK_COPY:
		ck->err = copy_out(ck);
		return;
	case WORK_READ:
		ck->err = piece_read(ck);
		break;
	case WORK_WRITE:
		ck->err = piece_write(ck);
		break;
	case WORK_SYNC:
		ck->err = fsync(ck->fd) ? -errno : 0;
		return;
	}
	if (!ck->err) {
		cfs_payload_crcs(ck->buf, ck->len, ck->crcs);
		ck->crc = cfs_crc32c(ck->crc, ck->buf, ck->len);
	}
}

static void offload(struct cfs_ckpt *ck, int what, void (*done)(void *arg))
{
	int rc;

	ck->work = what;
	ck->err = 0;
	rc = ck->p.clock->ops->offload(ck->p.clock, work, done, ck);
	if (rc)
		finish(ck, rc);
}

/* ---- one piece after the other --------------------------------------------------------------- */

static void piece_oid(const struct cfs_ckpt *ck, const struct cfs_ckpt_manifest *m,
		      struct cfs_oid *ret)
{
	ret->owner = cfs_cpu_to_le64(CFS_OID_OWNER_META);
	ret->seq = cfs_cpu_to_le64(cfs_le64_to_cpu(m->first_seq) + ck->off / CFS_OBJECT_MAX);
}

static void stored(struct cfs_store_write *w, int err)
{
	struct cfs_ckpt *ck = w->user;

	if (err || ck->cancel) {
		finish(ck, err ? err : -ECANCELED);
		return;
	}
	ck->off += ck->len;
	next(ck);
}

static void store_piece(struct cfs_ckpt *ck)
{
	memset(&ck->wr, 0, sizeof(ck->wr));
	piece_oid(ck, &ck->to, &ck->wr.oid);
	ck->wr.data = ck->buf;
	ck->wr.len = ck->len;
	ck->wr.n_crcs = cfs_crc_blocks(ck->len);
	ck->wr.crcs = ck->crcs;
	ck->wr.done = stored;
	ck->wr.user = ck;
	cfs_store_write(ck->p.store, &ck->wr);
}

static void piece_done(void *arg)
{
	struct cfs_ckpt *ck = arg;

	if (ck->err || ck->cancel) {
		finish(ck, ck->err ? ck->err : -ECANCELED);
		return;
	}
	if (ck->what == TAKE || ck->fetch) {
		store_piece(ck);
		return;
	}
	ck->off += ck->len;
	next(ck);
}

static void piece_arrived(struct cfs_ckpt *ck, int err, const void *data, uint32_t len)
{
	if (!err && len != ck->len)
		err = -EBADMSG;
	if (!err && !ck->cancel) {
		memcpy(ck->buf, data, len);
		memset(ck->buf + len, 0, cfs_align_up(len, 4096) - len);
	}
}

static void loaded(struct cfs_store_read *r, int err)
{
	struct cfs_ckpt *ck = r->user;
	struct cfs_oid *oid = &r->oid;

	piece_arrived(ck, err, r->data, r->ret_len);
	if (!err && r->ret_len != ck->len)
		err = -EBADMSG;
	if (r->data)
		cfs_store_read_release(ck->p.store, r);
	if (err || ck->cancel) {
		if (err)
			cfs_err("checkpoint object %" PRIu64 ":%" PRIu64 " of shard %" PRIu32
				": %s",
				cfs_le64_to_cpu(oid->owner), cfs_le64_to_cpu(oid->seq), ck->p.shard,
				err == -ENOENT ? "missing" : strerror(-err));
		finish(ck, err ? err : -ECANCELED);
		return;
	}
	offload(ck, WORK_WRITE, piece_done);
}

void cfs_ckpt_fetched(struct cfs_ckpt *ck, int err, const void *data, uint32_t len)
{
	CFS_ASSERT(ck->what == RESTORE && ck->fetch);
	piece_arrived(ck, err, data, len);
	if (!err && len != ck->len)
		err = -EBADMSG;
	if (err || ck->cancel)
		finish(ck, err ? err : -ECANCELED);
	else
		offload(ck, WORK_WRITE, piece_done);
}

static void synced(void *arg)
{
	struct cfs_ckpt *ck = arg;

	ck->swap_ready = !ck->err;
	finish(ck, ck->err);
}

static void next(struct cfs_ckpt *ck)
{
	struct cfs_oid oid;

	if (ck->off < ck->total) {
		ck->len = (uint32_t)cfs_min(ck->total - ck->off, (uint64_t)CFS_OBJECT_MAX);
		piece_oid(ck, &ck->from, &oid);
		if (ck->what == TAKE) {
			offload(ck, WORK_READ, piece_done);
		} else if (ck->fetch) {
			ck->fetch(ck->p.arg, ck, ck->addr, cfs_le32_to_cpu(ck->from.target), &oid,
				  ck->len);
		} else {
			memset(&ck->rd, 0, sizeof(ck->rd));
			ck->rd.oid = oid;
			ck->rd.len = ck->len;
			ck->rd.done = loaded;
			ck->rd.user = ck;
			cfs_store_read(ck->p.store, &ck->rd);
		}
		return;
	}
	ck->to.crc = cfs_cpu_to_le32(ck->crc);
	if (ck->what == TAKE) {
		finish(ck, 0);
	} else if (ck->crc != cfs_le32_to_cpu(ck->from.crc)) {
		cfs_err("checkpoint of shard %" PRIu32 ": the state does not match its checksum",
			ck->p.shard);
		finish(ck, -EBADMSG);
	} else {
		offload(ck, WORK_SYNC, synced);
	}
}

/*
 * What both begin with. The objects of a new checkpoint have names that were never used: a random
 * 32-bit number and 16 bits of counter, below the 16 bits that name a placement group.
 */
static int begin(struct cfs_ckpt *ck, enum what what, cfs_ckpt_done_fn done)
{
	uint64_t random;

	CFS_ASSERT(ck->what == IDLE);
	if (ck->stored)		/* its manifest could not be written */
		drop(ck, &ck->to);
	ck->stored = false;
	do
		random = ck->p.clock->ops->random(ck->p.clock) & 0xffffffffu;
	while (ck->keep_some && random << 16 == cfs_le64_to_cpu(ck->keep.first_seq));
	ck->what = what;
	ck->done = done;
	ck->off = 0;
	ck->crc = 0;
	ck->swap_ready = false;
	ck->to = (struct cfs_ckpt_manifest){
		.magic = cfs_cpu_to_le32(CFS_CKPT_MAGIC),
		.version = cfs_cpu_to_le16(CFS_CKPT_VERSION),
		.shard = cfs_cpu_to_le32(ck->p.shard),
		.target = cfs_cpu_to_le32(ck->p.target),
		.first_seq = cfs_cpu_to_le64(random << 16),
	};
	memcpy(ck->to.cluster, ck->p.cluster, sizeof(ck->to.cluster));
	ck->buf = aligned_alloc(4096, CFS_OBJECT_MAX);
	return ck->buf ? 0 : -ENOMEM;
}

static void copied(void *arg)
{
	struct cfs_ckpt *ck = arg;

	ck->to.total = cfs_cpu_to_le64(ck->total);
	if (ck->err || ck->cancel)
		finish(ck, ck->err ? ck->err : -ECANCELED);
	else
		next(ck);
}

void cfs_ckpt_take(struct cfs_ckpt *ck, struct cfs_meta *meta, cfs_ckpt_done_fn done)
{
	int rc = begin(ck, TAKE, done);
	struct cfs_meta_stat st;
	char path[PATH_MAX];

	if (!rc)
		rc = cfs_meta_stat(meta, &st);
	if (!rc) {
		ck->meta = meta;
		ck->db_bytes = st.db_bytes;
		ck->fetch = NULL;
		ck->fd = open(ck->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		if (ck->fd < 0) {	/* not every file system has O_TMPFILE */
			snprintf(path, sizeof(path), "%s/checkpoint.XXXXXX", ck->dir);
			ck->fd = mkostemp(path, O_CLOEXEC);
			if (ck->fd >= 0)
				unlink(path);
			else
				rc = -errno;
		}
	}
	if (rc)
		finish(ck, rc);
	else
		offload(ck, WORK_COPY, copied);
}

void cfs_ckpt_restore(struct cfs_ckpt *ck, const struct cfs_ckpt_manifest *manifest,
		      const char *addr, cfs_ckpt_fetch_fn fetch, cfs_ckpt_done_fn done)
{
	char path[PATH_MAX];
	int rc = begin(ck, RESTORE, done);

	ck->from = *manifest;
	ck->fetch = fetch;
	snprintf(ck->addr, sizeof(ck->addr), "%s", addr ? addr : "");
	ck->total = cfs_le64_to_cpu(manifest->total);
	if (fetch)
		ck->to.total = manifest->total;
	else
		ck->to = *manifest;
	snprintf(path, sizeof(path), "%s/" RESTORE_FILE, ck->dir);
	if (!rc) {
		ck->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		if (ck->fd < 0)
			rc = -errno;
	}
	if (rc)
		finish(ck, rc);
	else
		next(ck);
}

int cfs_ckpt_swap(struct cfs_ckpt *ck)
{
	char from[PATH_MAX], to[PATH_MAX];
	int fd, rc;

	CFS_ASSERT(ck->swap_ready);
	rc = cfs_meta_discard(ck->dir);
	if (rc)
		return rc;
	snprintf(from, sizeof(from), "%s/" RESTORE_FILE, ck->dir);
	snprintf(to, sizeof(to), "%s/data.mdb", ck->dir);
	if (rename(from, to))
		return -errno;
	ck->swap_ready = false;
	fd = open(ck->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	rc = fsync(fd) ? -errno : 0;
	close(fd);
	return rc;
}

/* ---- deleting what no manifest names --------------------------------------------------------- */

static bool wanted(const struct cfs_ckpt *ck, uint64_t seq)
{
	uint64_t first = cfs_le64_to_cpu(ck->keep.first_seq);
	uint64_t mine = cfs_le64_to_cpu(ck->to.first_seq);

	/* neither what we keep nor what is being written this moment or waits for its manifest */
	return (ck->keep_some && seq - first < n_objects(cfs_le64_to_cpu(ck->keep.total))) ||
	       ((ck->what != IDLE || ck->stored) && seq >> 16 == mine >> 16);
}

static void clean_later(struct cfs_ckpt *ck)
{
	ck->cleaning = true;
	ck->timer.fn = clean_step;
	cfs_timer_set(ck->p.clock, &ck->timer, cfs_clock_boot_ns(ck->p.clock) + CLEAN_PAUSE_NS);
}

static void cleaned(struct cfs_store_delete *d, int err)
{
	struct cfs_ckpt *ck = d->user;

	ck->deleting = false;
	if (err)
		cfs_warn("cannot delete old checkpoint objects of shard %" PRIu32 ": %s",
			 ck->p.shard, strerror(-err));
	if (ck->cleaning && !err)
		clean_later(ck);
	else
		ck->cleaning = false;
}

static void delete(struct cfs_ckpt *ck, unsigned n)
{
	memset(&ck->del, 0, sizeof(ck->del));
	ck->del.oids = ck->oids;
	ck->del.n = n;
	ck->del.done = cleaned;
	ck->del.user = ck;
	ck->deleting = true;
	cfs_store_delete(ck->p.store, &ck->del);
}

static void clean_step(struct cfs_timer *t)
{
	struct cfs_ckpt *ck = cfs_container_of(t, struct cfs_ckpt, timer);
	unsigned n = 0;
	int got;

	for (; ck->drop_n && n < CLEAN_BATCH; ck->drop_n--, ck->drop_seq++) {
		if (wanted(ck, ck->drop_seq))
			continue;
		ck->oids[n].owner = cfs_cpu_to_le64(CFS_OID_OWNER_META);
		ck->oids[n++].seq = cfs_cpu_to_le64(ck->drop_seq);
	}
	if (n) {
		delete(ck, n);
		return;
	}
	got = ck->scan ? cfs_store_list(ck->p.store, &ck->cursor, ck->oids, ck->lens, CLEAN_BATCH) :
			 0;
	if (got <= 0) {
		ck->cleaning = ck->scan = false;
		return;
	}
	for (int i = 0; i < got; i++)
		if (cfs_le64_to_cpu(ck->oids[i].owner) == CFS_OID_OWNER_META &&
		    !wanted(ck, cfs_le64_to_cpu(ck->oids[i].seq)))
			ck->oids[n++] = ck->oids[i];
	if (n)
		delete(ck, n);
	else
		clean_later(ck);
}

static void drop(struct cfs_ckpt *ck, const struct cfs_ckpt_manifest *m)
{
	if (ck->cancel)
		return;
	if (ck->drop_n) {	/* two at a time are rare: let the scan find them */
		ck->scan = true;
		ck->cursor = 0;
	} else {
		ck->drop_seq = cfs_le64_to_cpu(m->first_seq);
		ck->drop_n = n_objects(cfs_le64_to_cpu(m->total));
	}
	if (!ck->cleaning)
		clean_later(ck);
}

void cfs_ckpt_keep(struct cfs_ckpt *ck, const struct cfs_ckpt_manifest *keep)
{
	struct cfs_ckpt_manifest old = ck->keep;
	bool had = ck->keep_some;

	ck->keep_some = keep != NULL;
	if (keep) {
		ck->keep = *keep;
		if (keep->first_seq == ck->to.first_seq)
			ck->stored = false;
	}
	if (ck->cancel)
		return;
	if (!ck->known) {
		ck->known = ck->scan = true;
		ck->cursor = 0;
		if (!ck->cleaning)
			clean_later(ck);
	} else if (had && (!keep || old.first_seq != keep->first_seq)) {
		drop(ck, &old);
	}
}
