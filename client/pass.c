// SPDX-License-Identifier: MIT
/*
 * pass.c - see pass.h.
 *
 * Which files: those made by open(O_TMPFILE | O_EXCL). They have no name and can never get one, so no other session will
 * ever ask for them, and nobody has to be able to take them back from the kernel. For the same reason their bytes never go to the
 * servers: nobody could read them there. The inode is on the server as any open file's is (its lease, locks, extended attributes).
 */
#include "client/pass.h"

#include "base/log.h"
#include "client/client_i.h"
#include "client/data.h"
#include "uapi/fuse_new.h"

#include <errno.h>
#include <fcntl.h>
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 18)
#include <fuse3/fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define ROOM_PART 16u	/* this part of the cache's disk must be free for a new passthrough file */

struct cfs_pass {
	struct cfs_client *c;
	int fd;
	uint32_t id;
	/*
	 * The time that somebody set by utimensat(2). While it stands the backing file has the mtime `mark`, which no write
	 * gives: so a later write, of which only the backing file tells, is seen.
	 */
	struct cfs_time mtime;
};

static const struct timespec mark = { .tv_sec = 1, .tv_nsec = 1 };

/* ---- backing files ------------------------------------------------------------------------------ */
int cfs_pass_register(struct cfs_client *c, int fd, uint32_t *ret_id)
{
	struct fuse_backing_map map = { .fd = fd };
	int id = ioctl(fuse_session_fd(c->se), FUSE_DEV_IOC_BACKING_OPEN, &map);

	if (id <= 0)
		return id ? -errno : -EIO;
	*ret_id = (uint32_t)id;
	return 0;
}

void cfs_pass_unregister(struct cfs_client *c, uint32_t id)
{
	/* what is still mapped keeps the file; after an unmount the number is gone already */
	ioctl(fuse_session_fd(c->se), FUSE_DEV_IOC_BACKING_CLOSE, &id);
}

int cfs_pass_file_open(struct cfs_client *c)
{
	int fd = openat(cfs_data_cachedir(c), ".", O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);

	return fd < 0 ? -errno : fd;
}

bool cfs_pass_fits(struct cfs_client *c, int flags, bool tmpfile)
{
	/* O_DIRECT: the backing file system has alignments of its own to ask for */
	return tmpfile && (flags & O_EXCL) && !(flags & O_DIRECT) && !c->o.cache_none &&
	       cfs_tier_on(c, CFS_TIER_PASSTHROUGH);
}

static void count(uint64_t *field, uint64_t by)
{
	__atomic_add_fetch(field, by, __ATOMIC_RELAXED);
}

bool cfs_pass_has_room(struct cfs_client *c)
{
	struct statvfs sv;

	return !fstatvfs(cfs_data_cachedir(c), &sv) && sv.f_bavail >= sv.f_blocks / ROOM_PART;
}

struct cfs_pass *cfs_pass_new(struct cfs_client *c)
{
	struct cfs_pass *p = NULL;
	int fd = -1, rc = 0;

	if (!cfs_pass_has_room(c)) {
		count(&c->pass.no_room, 1);
		return NULL;
	}
	if (__atomic_add_fetch(&c->pass.open_files, 1, __ATOMIC_RELAXED) > CFS_PASS_FILES_MAX)
		goto fail;
	p = malloc(sizeof(*p));
	if (!p)
		goto fail;
	fd = cfs_pass_file_open(c);
	rc = fd < 0 ? fd : cfs_pass_register(c, fd, &p->id);
	if (rc)
		goto fail;
	p->c = c;
	p->fd = fd;
	count(&c->pass.files, 1);
	return p;
fail:
	if (rc)
		cfs_debug("a new file cannot be passed through: %s", strerror(-rc));
	if (fd >= 0)
		close(fd);
	free(p);
	count(&c->pass.open_files, (uint64_t)-1);
	count(&c->pass.failed, 1);
	return NULL;
}

void cfs_pass_free(struct cfs_pass *p)
{
	if (!p)
		return;
	cfs_pass_unregister(p->c, p->id);
	close(p->fd);
	count(&p->c->pass.open_files, (uint64_t)-1);
	free(p);
}

int32_t cfs_pass_id(struct cfs_pass *p)
{
	count(&p->c->pass.opens, 1);
	return (int32_t)p->id;
}

int64_t cfs_pass_read(struct cfs_pass *p, void *buf, uint64_t size, uint64_t off)
{
	ssize_t n = pread(p->fd, buf, size, (off_t)off);

	return n < 0 ? -errno : n;
}

int64_t cfs_pass_write(struct cfs_pass *p, const void *buf, uint64_t size, uint64_t off)
{
	ssize_t n = pwrite(p->fd, buf, size, (off_t)off);

	return n < 0 ? -errno : n;
}

int cfs_pass_truncate(struct cfs_pass *p, uint64_t size)
{
	return ftruncate(p->fd, (off_t)size) ? -errno : 0;
}

int cfs_pass_fallocate(struct cfs_pass *p, int mode, uint64_t off, uint64_t len)
{
	int keep = mode & FALLOC_FL_KEEP_SIZE;

	if (!fallocate(p->fd, mode, (off_t)off, (off_t)len))
		return 0;
	/* tmpfs has no such thing, but both halves of it */
	if (errno != EOPNOTSUPP || !(mode & FALLOC_FL_ZERO_RANGE))
		return -errno;
	if (fallocate(p->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len))
		return -errno;
	return fallocate(p->fd, keep, (off_t)off, (off_t)len) ? -errno : 0;
}

int64_t cfs_pass_seek(struct cfs_pass *p, uint64_t off, int whence)
{
	off_t pos = lseek(p->fd, (off_t)off, whence);

	return pos < 0 ? -errno : pos;
}

/* ---- attributes ------------------------------------------------------------------------------------ */
static bool later(const struct cfs_time *a, const struct cfs_time *b)
{
	int64_t as = (int64_t)cfs_le64_to_cpu(a->sec), bs = (int64_t)cfs_le64_to_cpu(b->sec);

	return as != bs ? as > bs : cfs_le32_to_cpu(a->nsec) > cfs_le32_to_cpu(b->nsec);
}

static bool marked(const struct stat *st)
{
	return st->st_mtim.tv_sec == mark.tv_sec && st->st_mtim.tv_nsec == mark.tv_nsec;
}

void cfs_pass_attr(struct cfs_pass *p, struct cfs_attr *attr)
{
	struct cfs_time written;
	struct stat st;

	if (fstat(p->fd, &st))
		return;
	attr->size = cfs_cpu_to_le64((uint64_t)st.st_size);
	attr->alloc = cfs_cpu_to_le64((uint64_t)st.st_blocks * 512);
	written = (struct cfs_time){ .sec = cfs_cpu_to_le64((uint64_t)st.st_mtim.tv_sec),
				     .nsec = cfs_cpu_to_le32((uint32_t)st.st_mtim.tv_nsec) };
	attr->mtime = marked(&st) ? p->mtime : written;
	if (!marked(&st) && later(&written, &attr->ctime))
		attr->ctime = written;
}

void cfs_pass_set_mtime(struct cfs_pass *p, const struct cfs_time *mtime)
{
	const struct timespec ts[2] = { { .tv_nsec = UTIME_OMIT }, mark };
	struct cfs_attr now = { .ino = 0 };

	cfs_pass_attr(p, &now);
	if (now.mtime.sec == mtime->sec && now.mtime.nsec == mtime->nsec)
		return;
	p->mtime = *mtime;
	if (futimens(p->fd, ts))
		cfs_warn("a scratch file's time cannot be set: %s", strerror(errno));
}
