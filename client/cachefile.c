/* SPDX-License-Identifier: MIT */
/*
 * cachefile.c - see cachefile.h. A host file for each small file would make an untar pay twice, hence the bytes
 * in memory; they move to a file when they outgrow CFS_CACHE_MEM_MAX or memory as a whole is short.
 */
#include "client/cachefile.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_LEN 16
static void file_name(uint64_t ino, char name[NAME_LEN + 1])
{
	snprintf(name, NAME_LEN + 1, "%016" PRIx64, ino);
}

static bool is_ours(const char *name)
{
	for (int i = 0; i < NAME_LEN; i++)
		if (!isxdigit((unsigned char)name[i]))
			return false;
	return !name[NAME_LEN];
}

/* files of an earlier mount that ended without cleaning up */
static int wipe(int dirfd)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *de;
	DIR *dir;

	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return -ENOMEM;
	}
	while ((de = readdir(dir)))
		if (is_ours(de->d_name))
			unlinkat(dirfd, de->d_name, 0);
	closedir(dir);
	return 0;
}

int cfs_cachestore_open(struct cfs_cachestore *s, const char *dir, int fd, uint64_t mem_limit, unsigned max_open)
{
	int rc;

	if (fd < 0) {
		if (mkdir(dir, 0700) && errno != EEXIST)
			return -errno;
		fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	}
	if (fd < 0)
		return -errno;
	if (fchmod(fd, 0700)) {
		rc = -errno;
		goto fail;
	}
	if (flock(fd, LOCK_EX | LOCK_NB)) {	/* two mounts would read each other's bytes */
		rc = errno == EWOULDBLOCK ? -EBUSY : -errno;
		goto fail;
	}
	rc = wipe(fd);
	if (rc)
		goto fail;
	*s = (struct cfs_cachestore){ .dirfd = fd, .max_open = max_open, .mem_limit = mem_limit };
	cfs_list_init(&s->lru);
	pthread_mutex_init(&s->lock, NULL);
	return 0;
fail:
	close(fd);
	return rc;
}

void cfs_cachestore_close(struct cfs_cachestore *s)
{
	CFS_ASSERT(!s->n_open && !s->mem_bytes);
	close(s->dirfd);
	pthread_mutex_destroy(&s->lock);
}

void cfs_cachefile_init(struct cfs_cachefile *cf, uint64_t ino)
{
	*cf = (struct cfs_cachefile){ .ino = ino, .fd = -1 };
	cfs_list_init(&cf->link);
}

/* store's lock held */
static void fd_close(struct cfs_cachestore *s, struct cfs_cachefile *cf)
{
	cfs_list_del(&cf->link);
	close(cf->fd);
	cf->fd = -1;
	s->n_open--;
}

int cfs_cachefile_pin(struct cfs_cachestore *s, struct cfs_cachefile *cf)
{
	char name[NAME_LEN + 1];
	struct cfs_list *pos, *tmp;
	int rc = 0;

	if (cf->mem)
		return -EAGAIN;
	pthread_mutex_lock(&s->lock);
	if (cf->fd >= 0) {
		cfs_list_del(&cf->link);
		cfs_list_add_tail(&s->lru, &cf->link);
		cf->pins++;
		goto out;
	}
	/* pinned ones may make it a few more than max_open: as many as threads do I/O */
	cfs_list_for_each_safe(pos, tmp, &s->lru) {
		struct cfs_cachefile *old = cfs_list_entry(pos, struct cfs_cachefile, link);

		if (s->n_open < s->max_open)
			break;
		if (!old->pins)
			fd_close(s, old);
	}
	file_name(cf->ino, name);
	cf->fd = openat(s->dirfd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (cf->fd < 0) {
		rc = -errno;
		cf->fd = -1;
		goto out;
	}
	cf->on_disk = true;
	cf->pins++;
	s->n_open++;
	cfs_list_add_tail(&s->lru, &cf->link);
out:
	pthread_mutex_unlock(&s->lock);
	return rc;
}

void cfs_cachefile_unpin(struct cfs_cachestore *s, struct cfs_cachefile *cf)
{
	pthread_mutex_lock(&s->lock);
	CFS_ASSERT(cf->pins > 0);
	cf->pins--;
	pthread_mutex_unlock(&s->lock);
}

/*
 * Where in the host's file is off? *len is cut so that the bytes are in one piece. add: give it a place if it has none.
 * -1: it has none
 */
static int64_t place(struct cfs_cachefile *cf, uint64_t off, uint64_t *len, bool add)
{
	uint64_t chunk = off / CFS_CACHE_FAR_CHUNK, in = off % CFS_CACHE_FAR_CHUNK;
	uint64_t *far = __atomic_load_n(&cf->far, __ATOMIC_ACQUIRE);
	uint32_t n, i;

	if (off < CFS_CACHE_FAR) {
		*len = cfs_min(*len, CFS_CACHE_FAR - off);
		return (int64_t)off;
	}
	*len = cfs_min(*len, CFS_CACHE_FAR_CHUNK - in);
	n = __atomic_load_n(&cf->n_far, __ATOMIC_ACQUIRE);
	for (i = 0; i < n && far[i] != chunk; i++)
		;
	if (i == n) {
		if (!add || n == CFS_CACHE_FAR_SLOTS)
			return -1;
		if (!far) {
			far = calloc(CFS_CACHE_FAR_SLOTS, sizeof(*far));
			if (!far)
				return -1;
			__atomic_store_n(&cf->far, far, __ATOMIC_RELEASE);
		}
		far[n] = chunk;
		__atomic_store_n(&cf->n_far, n + 1, __ATOMIC_RELEASE);
	}
	return (int64_t)(CFS_CACHE_FAR + i * CFS_CACHE_FAR_CHUNK + in);
}

int cfs_cachefile_pread(struct cfs_cachefile *cf, void *buf, uint64_t len, uint64_t off)
{
	unsigned char *p = buf;

	while (len) {
		uint64_t part = len;
		int64_t at = place(cf, off, &part, false);
		ssize_t n = at < 0 ? 0 : pread(cf->fd, p, part, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n) {	/* never written */
			memset(p, 0, part);
			n = (ssize_t)part;
		}
		p += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

static int file_pwrite(struct cfs_cachefile *cf, const void *buf, uint64_t len, uint64_t off)
{
	const unsigned char *p = buf;

	while (len) {
		uint64_t part = len;
		int64_t at = place(cf, off, &part, true);
		ssize_t n;

		if (at < 0)
			return -EFBIG;
		n = pwrite(cf->fd, p, part, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

static void mem_free(struct cfs_cachestore *s, struct cfs_cachefile *cf)
{
	__atomic_sub_fetch(&s->mem_bytes, cf->mem_cap, __ATOMIC_RELAXED);
	free(cf->mem);
	cf->mem = NULL;
	cf->mem_cap = 0;
}

/* room for `end` bytes in memory; false: it belongs in a file */
static bool mem_reserve(struct cfs_cachestore *s, struct cfs_cachefile *cf, uint64_t end)
{
	uint32_t cap = cf->mem_cap ? cf->mem_cap : 256;
	unsigned char *mem;

	if (cf->on_disk || end > CFS_CACHE_MEM_MAX)
		return false;
	while (cap < end)
		cap *= 2;
	if (cap == cf->mem_cap)
		return true;
	if (__atomic_load_n(&s->mem_bytes, __ATOMIC_RELAXED) + cap - cf->mem_cap > s->mem_limit)
		return false;
	mem = realloc(cf->mem, cap);
	if (!mem)
		return false;
	memset(mem + cf->mem_cap, 0, cap - cf->mem_cap);
	__atomic_add_fetch(&s->mem_bytes, cap - cf->mem_cap, __ATOMIC_RELAXED);
	cf->mem = mem;
	cf->mem_cap = cap;
	return true;
}

/* memory -> file */
static int spill(struct cfs_cachestore *s, struct cfs_cachefile *cf)
{
	unsigned char *mem = cf->mem;
	int rc;

	cf->mem = NULL;		/* pin() decides by it */
	rc = cfs_cachefile_pin(s, cf);
	if (!rc) {
		rc = file_pwrite(cf, mem, cf->mem_cap, 0);
		cfs_cachefile_unpin(s, cf);
		if (rc)
			cfs_cachefile_drop(s, cf);
	}
	cf->mem = mem;
	if (!rc)
		mem_free(s, cf);
	return rc;
}

int cfs_cachefile_write(struct cfs_cachestore *s, struct cfs_cachefile *cf, const void *buf, uint64_t len, uint64_t off)
{
	int rc;

	if (!len)
		return 0;
	if (mem_reserve(s, cf, off + len)) {
		memcpy(cf->mem + off, buf, len);
		return 0;
	}
	if (cf->mem) {
		rc = spill(s, cf);
		if (rc)
			return rc;
	}
	rc = cfs_cachefile_pin(s, cf);
	if (rc)
		return rc;
	rc = file_pwrite(cf, buf, len, off);
	cfs_cachefile_unpin(s, cf);
	return rc;
}

int cfs_cachefile_read(struct cfs_cachestore *s, struct cfs_cachefile *cf, void *buf, uint64_t len, uint64_t off)
{
	int rc;

	if (cf->mem || !cf->on_disk) {
		uint64_t n = off < cf->mem_cap ? cfs_min(len, cf->mem_cap - off) : 0;

		if (n)
			memcpy(buf, cf->mem + off, n);
		memset((unsigned char *)buf + n, 0, len - n);
		return 0;
	}
	rc = cfs_cachefile_pin(s, cf);
	if (rc)
		return rc;
	rc = cfs_cachefile_pread(cf, buf, len, off);
	cfs_cachefile_unpin(s, cf);
	return rc;
}

void cfs_cachefile_punch(struct cfs_cachestore *s, struct cfs_cachefile *cf, uint64_t off, uint64_t len)
{
	if (!cf->on_disk || !len || cfs_cachefile_pin(s, cf))
		return;
	/* a file system without holes keeps the space until the whole file goes */
	if (off < CFS_CACHE_FAR) {
		uint64_t n = cfs_min(len, CFS_CACHE_FAR - off);

		(void)!fallocate(cf->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)n);
	}
	for (uint32_t i = 0; i < cf->n_far; i++) {
		uint64_t from = cfs_max(off, cf->far[i] * CFS_CACHE_FAR_CHUNK);
		uint64_t to = cfs_min(off + len, (cf->far[i] + 1) * CFS_CACHE_FAR_CHUNK);
		uint64_t n = to - from;
		int64_t at;

		if (from >= to)
			continue;
		at = place(cf, from, &n, false);
		(void)!fallocate(cf->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, (off_t)n);
	}
	cfs_cachefile_unpin(s, cf);
}

void cfs_cachefile_drop(struct cfs_cachestore *s, struct cfs_cachefile *cf)
{
	char name[NAME_LEN + 1];

	if (cf->mem)
		mem_free(s, cf);
	if (!cf->on_disk)
		return;
	free(cf->far);
	cf->far = NULL;
	cf->n_far = 0;
	if (cf->kept) {
		(void)!ftruncate(cf->fd, 0);	/* else its bytes are anything, which is as good */
		return;
	}
	pthread_mutex_lock(&s->lock);
	CFS_ASSERT(!cf->pins);
	if (cf->fd >= 0)
		fd_close(s, cf);
	pthread_mutex_unlock(&s->lock);
	file_name(cf->ino, name);
	unlinkat(s->dirfd, name, 0);
	cf->on_disk = false;
}

int cfs_cachefile_keep(struct cfs_cachestore *s, struct cfs_cachefile *cf)
{
	int rc = cf->mem ? spill(s, cf) : 0;

	CFS_ASSERT(!cf->kept);
	if (!rc)
		rc = cfs_cachefile_pin(s, cf);
	cf->kept = !rc;
	return rc;
}

void cfs_cachefile_let_go(struct cfs_cachestore *s, struct cfs_cachefile *cf)
{
	CFS_ASSERT(cf->kept);
	cf->kept = false;
	cfs_cachefile_unpin(s, cf);
}

int cfs_cachefile_resize(struct cfs_cachefile *cf, uint64_t size)
{
	CFS_ASSERT(cf->kept && size <= CFS_CACHE_FAR);
	return ftruncate(cf->fd, (off_t)size) ? -errno : 0;
}
