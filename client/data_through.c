/* SPDX-License-Identifier: MIT */
/*
 * data_through.c - writes of a file that several mounts use at once: no lease, each write is an object and a COMMIT before it is
 * answered (docs/leases.md, "Contended files").
 *
 * Without a lease nothing may be cached, here or in the kernel. So a shared lease is given up first, and the pages that write(2)
 * filled are dropped before the COMMIT is sent; a last page that it filled in part is not up to date, and locked until we answer. READs
 * take a shared lease as always, which the next COMMIT of another mount breaks. n_through, and opening: a COMMIT without a lease and an
 * OPEN are never on their way at the same time, so no reply can be older than our own change and be taken for newer.
 *
 *   NONE -> written through         OPEN says so
 *   written through -> NONE         a COMMIT says so, or none has been made for THROUGH_MS: ask again
 *   written through -> EXCL         the leader gave it all the same
 */
#include "client/data_i.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>

#define THROUGH_MS	1000u	/* what an answer said is good for; no rule depends on it */
#define DROP_MS		1000u	/* for pages of the write: longer only if the kernel is stuck */
#define STUCK_MS	3u	/* for pages that a READ may hold while it waits for the write */
#define ROUNDS_MAX	16u	/* READs that took a lease while the pages went */
#define PATCH_MAX	1024u	/* longer first writes are likely to be followed by others */

bool cfs_data_contended(const struct cfs_data *d)
{
	return d->through_ms && d->lease != CFS_LEASE_EXCL && cfs_data_now_ms() < d->through_ms;
}

void cfs_data_told_contended(struct cfs_data *d, bool contended, const struct cfs_attr *attr)
{
	d->through_ms = contended ? cfs_data_now_ms() + THROUGH_MS : 0;
	d->through_inline = cfs_le32_to_cpu(attr->flags) & CFS_IF_INLINE;
	d->through_empty = !attr->size && !attr->alloc;
}

/* since start_ms; not so long while a READ waits for us that may hold the lock of one of the pages */
static uint32_t drop_patience(const struct cfs_data *d, const void *arg)
{
	const uint64_t *start_ms = arg;
	uint64_t limit = *start_ms + (d->n_overtaking ? STUCK_MS : DROP_MS), now = cfs_data_now_ms();

	return now < limit ? (uint32_t)(limit - now) : 0;
}

/*
 * Have the kernel drop these pages. A READ that came after one of them had gone holds its lock, and waits for us (data_order.c): what
 * it locks is not up to date, and when it is answered that is under a lease. True: done; false: it takes longer, or such a READ came.
 */
static bool drop_wait(struct cfs_data *d, uint64_t off, uint64_t end)
{
	uint64_t start_ms = cfs_data_now_ms();

	return cfs_data_inval_wait(d, off, end, drop_patience, &start_ms);
}

/* all pages of [off, end), but for those that READs are waiting with */
static void drop_around(struct cfs_data *d, uint64_t off, uint64_t end)
{
	if (drop_wait(d, off, end) || !d->n_overtaking)
		return;
	drop_wait(d, off, cfs_min(end, d->overtaking_off));
	if (d->n_overtaking)
		drop_wait(d, cfs_max(off, d->overtaking_end), end);
}

/*
 * Lock held: no lease any more, none being asked for, and no page of [off, end) in the kernel that could answer a read (cached: there may
 * be some; holds: the last one may be locked by this write, and is not up to date then). 0; CFS_DATA_UNLEASED: do it under the exclusive
 * lease: it is held, or READs do not let us have our way. So with a shared lease and a write that ends inside a page: whether that page is
 * up to date, and still there, or locked by this write, is not to be told from here, and waiting for it might be waiting for ourselves.
 */
static int let_go(struct cfs_data *d, uint64_t off, uint64_t end, bool cached, bool holds)
{
	uint64_t page = d->g->page_bytes, first = cfs_align_down(off, page);
	uint64_t last = holds ? cfs_align_down(end - 1, page) : cfs_align_up(end, page);
	bool dropped = !cached || first >= last;
	unsigned rounds = 0;

	for (;;) {
		uint32_t seq;

		/* also while it is recalled: that drops all pages, and waits for one that this write may hold */
		if (d->lease == CFS_LEASE_EXCL)
			return CFS_DATA_UNLEASED;
		if (d->recalling || d->opening || d->drop_later) {
			pthread_cond_wait(&d->cond, &d->lock);
			continue;
		}
		if (d->lease == CFS_LEASE_SHARED && holds)
			return CFS_DATA_UNLEASED;
		if (d->lease == CFS_LEASE_SHARED) {
			cfs_data_give_up_shared(d);
			dropped = !cached || first >= last;
			continue;
		}
		if (dropped)
			return 0;
		seq = d->content_seq;	/* a lease that is taken from nothing changes it */
		drop_around(d, first, last);
		dropped = d->content_seq == seq;
		if (!dropped && ++rounds > ROUNDS_MAX)
			return CFS_DATA_UNLEASED;
	}
}

static int refused(int rc)
{
	return rc == -EMSGSIZE || rc == -EINVAL;
}

/* a few bytes of a file that is in its inode. 0, -EMSGSIZE: it is not, or does not fit; or -errno */
static int patch(struct cfs_data *d, const void *buf, uint32_t len, uint64_t off, uint32_t flags, struct cfs_data_commit *ci)
{
	*ci = (struct cfs_data_commit){
		.ino = d->ino, .size = off, .flags = flags | CFS_CI_PATCH, .inl = buf, .inline_len = len, .may_refuse = true,
	};
	cfs_data_commit_alone(d->g, ci);
	return ci->rc;
}

/* 0, -EINVAL: the file has bytes in its inode that this does not replace; or -errno */
static int object(struct cfs_data *d, const void *buf, uint32_t len, uint64_t off, uint32_t flags, struct cfs_data_commit *ci)
{
	struct cfs_extent ext;
	int rc = cfs_data_object_put(d->g, d->ino, buf, len, &ext);

	if (rc)
		return rc;
	ext.file_off = cfs_cpu_to_le64(flags & CFS_CI_APPEND ? 0 : off);
	*ci = (struct cfs_data_commit){
		.ino = d->ino, .flags = flags, .ext = &ext, .n_ext = 1, .may_refuse = true,
	};
	cfs_data_commit_alone(d->g, ci);
	ci->ext = NULL;
	/* the server's words; after others it may have happened all the same */
	if (refused(ci->rc) || ci->rc == -ENOSPC || ci->rc == -ENOENT || ci->rc == -ESTALE || ci->rc == -EFBIG)
		cfs_data_objects_drop(d->g, &ext.oid);
	return ci->rc;
}

/* without the lock */
static int write_through(struct cfs_data *d, bool inl, bool empty, const void *buf, uint32_t len, uint64_t off, uint32_t flags,
			 struct cfs_data_commit *ci)
{
	int rc = -EMSGSIZE;

	if (len <= CFS_INLINE_MAX && (inl || (empty && len <= PATCH_MAX)))
		rc = patch(d, buf, len, off, flags, ci);
	if (rc == -EMSGSIZE)
		rc = object(d, buf, len, off, flags, ci);
	return rc;
}

int cfs_data_through(struct cfs_data *d, const void *buf, uint64_t size, uint64_t off, unsigned how, uint64_t *ret_off)
{
	bool append = how & CFS_DATA_APPEND, cached = !(how & CFS_DATA_DIRECT), inl, empty;
	bool holds = cfs_data_holds_page(d, off, off + size, how);
	uint32_t flags = (append ? CFS_CI_APPEND : 0) | (how & CFS_DATA_KILLPRIV ? CFS_CI_KILLPRIV : 0);
	struct cfs_data_commit ci = { .rc = 0 };
	int rc;

	CFS_ASSERT(size && size <= CFS_OBJECT_MAX && !(how & CFS_DATA_MAPPED));
	if (holds)
		cfs_data_blocked_begin(d, off, off + size);
	rc = let_go(d, off, off + size, cached, holds);
	if (rc)
		goto out;
	CFS_ASSERT(d->lease == CFS_LEASE_NONE && !cfs_data_is_dirty(d));
	d->n_through++;
	inl = d->through_inline;
	empty = d->through_empty;
	pthread_mutex_unlock(&d->lock);
	rc = write_through(d, inl, empty, buf, (uint32_t)size, off, flags, &ci);
	if (!rc)	/* what was asked before may not know of it */
		cfs_client_changed(d->g->c, d->ino);
	pthread_mutex_lock(&d->lock);
	CFS_ASSERT(d->n_through > 0 && d->lease == CFS_LEASE_NONE);
	d->n_through--;
	d->content_seq++;
	pthread_cond_broadcast(&d->cond);
	if (!rc) {
		cfs_data_told_contended(d, ci.contended, &ci.attr);
		*ret_off = append ? ci.off : off;
		stat_add(d->g, writes_through, 1);
	} else if (refused(rc)) {
		rc = CFS_DATA_UNLEASED;	/* only with the lease */
		d->through_ms = 0;
	} else if (rc == -EPERM) {
		rc = -EIO;	/* the session that wrote the object has ended */
	}
out:
	if (holds)
		cfs_data_blocked_end(d);
	return rc;
}
