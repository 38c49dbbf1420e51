/* SPDX-License-Identifier: MIT */
/*
 * block.c - regular files and block devices through io_uring; see dev.h.
 *
 * All state belongs to the loop's thread. A request needs no memory of ours: what is known of it while it
 * is under way fits into cfs_dev_req.priv; only a transfer that the kernel cut short takes an allocation, for
 * the rest of its iovec. DURABLE is RWF_DSYNC on the write itself: the block layer turns it into FUA where the
 * drive has that, else into a flush behind the write.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <uapi/statx_atomic.h>

#include "base/base.h"
#include "base/log.h"
#include "dev/nvme.h"
#include "ring/loop.h"

#define BLOCK_MAX_IO	(8u << 20)
#define BLOCK_LEN_MAX	(1u << 30)	/* a completion's result has 31 bits */
#define BLOCK_RETRIES	16u	/* of EINTR and EAGAIN, which io_uring handles itself nearly always */
#define BLOCK_FILE_UNIT	4096u	/* what a page cache, and most drives below a file system, write as one */
#define BLOCK_BOUNCE	65536u	/* bytes of a synchronous transfer at a time, when the buffer is not aligned */

struct block_dev {
	struct cfs_dev dev;
	struct cfs_loop *loop;
	int fd;
	int slot;		/* of the ring's file table, or -1 */
	bool is_file, direct;
	uint32_t pending;
	struct room_job *room_job;	/* under way */
	char path[256];
};

/* a look at the file system below, on a helper thread: it may outlive the device */
struct room_job {
	struct block_dev *b;	/* NULL: closed */
	struct cfs_dev_req *req;
	int fd, err;
	uint64_t size;
	struct cfs_dev_room room;
};

/* in cfs_dev_req.priv */
struct block_priv {
	struct cfs_ring_op op;
	struct block_dev *b;
	struct iovec *rest;	/* of a short transfer: our own copy */
	uint32_t restcnt;
	uint32_t retries;
	uint64_t done_bytes;
} __attribute__((may_alias));
_Static_assert(sizeof(struct block_priv) <= sizeof(((struct cfs_dev_req *)0)->priv), "block_priv");

static struct block_dev *block_of(struct cfs_dev *dev)
{
	return cfs_container_of(dev, struct block_dev, dev);
}

static struct block_priv *block_priv(struct cfs_dev_req *req)
{
	return (struct block_priv *)req->priv;
}

/* ---- asynchronous requests --------------------------------------------------------------------- */

static void block_start(struct block_dev *b, struct cfs_dev_req *req)
{
	struct block_priv *p = block_priv(req);
	struct io_uring_sqe *sqe = cfs_loop_sqe(b->loop);
	const struct iovec *iov = p->rest ? p->rest : req->iov;
	unsigned n = p->rest ? p->restcnt : req->iovcnt;
	int fd = b->slot >= 0 ? b->slot : b->fd;
	int flags = (req->flags & CFS_DEV_DURABLE ? RWF_DSYNC : 0) |
		    (req->flags & CFS_DEV_ATOMIC ? RWF_ATOMIC : 0);
	uint64_t at = req->offset + p->done_bytes;
	bool one = n == 1 && (req->op == CFS_DEV_READ || req->op == CFS_DEV_WRITE);
	/* the kernel takes no atomic write from registered memory (7.3, generic_atomic_write_valid) */
	int buf = one && !(req->flags & CFS_DEV_ATOMIC) ? cfs_loop_mem_find(b->loop, iov->iov_base, iov->iov_len) : -1;

	switch (req->op) {
	case CFS_DEV_READ:
		if (buf >= 0)
			io_uring_prep_read_fixed(sqe, fd, iov->iov_base, (unsigned)iov->iov_len, at, buf);
		else if (one)
			io_uring_prep_read(sqe, fd, iov->iov_base, (unsigned)iov->iov_len, at);
		else
			io_uring_prep_readv(sqe, fd, iov, n, at);
		break;
	case CFS_DEV_WRITE:
		if (buf >= 0)
			io_uring_prep_write_fixed(sqe, fd, iov->iov_base, (unsigned)iov->iov_len, at, buf);
		else if (one)
			io_uring_prep_write(sqe, fd, iov->iov_base, (unsigned)iov->iov_len, at);
		else
			io_uring_prep_writev(sqe, fd, iov, n, at);
		sqe->rw_flags = flags;
		break;
	case CFS_DEV_FLUSH:
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
		break;
	case CFS_DEV_RESERVE:
		io_uring_prep_fallocate(sqe, fd, FALLOC_FL_KEEP_SIZE, at, req->len);
		break;
	case CFS_DEV_DISCARD:
		io_uring_prep_fallocate(sqe, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, req->len);
		break;
	default:
		CFS_ASSERT(!"operation of a zoned device");
	}
	if (b->slot >= 0)
		sqe->flags |= IOSQE_FIXED_FILE;
	cfs_loop_sqe_set(sqe, &p->op);
}

/* the kernel moved only `bytes` more: prepare the rest of the iovec. 0 or -errno */
static int block_advance(struct cfs_dev_req *req, uint64_t bytes)
{
	struct block_priv *p = block_priv(req);
	struct iovec *iov;

	if (!p->rest) {
		p->rest = malloc(req->iovcnt * sizeof(*p->rest));
		if (!p->rest)
			return -ENOMEM;
		memcpy(p->rest, req->iov, req->iovcnt * sizeof(*p->rest));
		p->restcnt = req->iovcnt;
	}
	p->done_bytes += bytes;
	for (iov = p->rest; bytes && bytes >= iov->iov_len; iov++) {
		bytes -= iov->iov_len;
		p->restcnt--;
	}
	memmove(p->rest, iov, p->restcnt * sizeof(*iov));
	p->rest->iov_base = (char *)p->rest->iov_base + bytes;
	p->rest->iov_len -= bytes;
	return 0;
}

static void block_complete(struct cfs_ring_op *op, int32_t res, uint32_t cqe_flags)
{
	struct block_priv *p = cfs_container_of(op, struct block_priv, op);
	struct cfs_dev_req *req = cfs_container_of((uint64_t *)p, struct cfs_dev_req, priv);
	struct block_dev *b = p->b;
	bool rw = req->op == CFS_DEV_READ || req->op == CFS_DEV_WRITE;
	int64_t result = res;

	(void)cqe_flags;
	if ((res == -EINTR || res == -EAGAIN) && p->retries++ < BLOCK_RETRIES)
		goto again;
	if (rw && res >= 0) {
		if (p->done_bytes + (uint64_t)res == req->len) {
			result = (int64_t)req->len;
		} else if (!res || res & (int32_t)(b->dev.info.write_unit - 1)) {
			/* direct I/O cannot go on from there; or the file has been cut */
			result = -EIO;
		} else {
			result = block_advance(req, (uint64_t)res);
			if (!result)
				goto again;
		}
	} else if (req->op == CFS_DEV_DISCARD && (res == -EOPNOTSUPP || res == -ENODEV)) {
		result = 0;	/* a hint */
	}
	free(p->rest);
	b->pending--;
	if (result < 0) {
		b->dev.stat.errors++;
		b->dev.stat.gone |= !b->is_file && (result == -ENODEV || result == -ENXIO);
	}
	req->result = result;
	req->done(req);
	return;
again:
	block_start(b, req);
}

/* ---- the file system below ------------------------------------------------------------------------- */

static void room_look(void *arg)
{
	struct room_job *job = arg;
	struct statvfs below;
	struct stat st;
	uint64_t have;

	if (fstat(job->fd, &st) || fstatvfs(job->fd, &below)) {
		job->err = -errno;
		return;
	}
	have = (uint64_t)st.st_blocks * 512;
	job->room.missing = have < job->size ? job->size - have : 0;
	/* what any user may have: a server that is root finds some more */
	job->room.free = (uint64_t)below.f_bavail * below.f_frsize;
	job->room.below = st.st_dev;
}

static void room_seen(void *arg)
{
	struct room_job *job = arg;
	struct block_dev *b = job->b;
	struct cfs_dev_req *req = job->req;
	int err = job->err;

	if (b) {
		b->room_job = NULL;
		if (!err)
			b->dev.room = job->room;
	}
	close(job->fd);
	free(job);
	if (b) {
		req->result = err;
		req->done(req);
	}
}

static int block_room(struct block_dev *b, struct cfs_dev_req *req)
{
	struct cfs_clock *clock = cfs_loop_clock(b->loop);
	struct room_job *job;
	int rc;

	if (b->room_job)
		return -EBUSY;
	job = calloc(1, sizeof(*job));
	if (!job)
		return -ENOMEM;
	job->fd = fcntl(b->fd, F_DUPFD_CLOEXEC, 0);
	if (job->fd < 0) {
		rc = -errno;
		free(job);
		return rc;
	}
	job->b = b;
	job->req = req;
	job->size = b->dev.info.size_bytes;
	rc = clock->ops->offload(clock, room_look, room_seen, job);
	if (rc) {
		close(job->fd);
		free(job);
		return rc;
	}
	b->room_job = job;
	return 0;
}

/* extents may be many: they are asked for piece by piece, up to the first gap */
static int block_reserved_sync(struct cfs_dev *dev, uint64_t offset, uint64_t len)
{
	enum { N = 32 };
	union {
		struct fiemap map;
		uint8_t bytes[sizeof(struct fiemap) + N * sizeof(struct fiemap_extent)];
	} u;
	struct block_dev *b = block_of(dev);
	uint64_t at = offset, end = offset + len;

	while (at < end) {
		uint64_t before = at;

		memset(&u, 0, sizeof(u));
		u.map.fm_start = at;
		u.map.fm_length = end - at;
		u.map.fm_extent_count = N;
		if (ioctl(b->fd, FS_IOC_FIEMAP, &u.map))
			return errno == ENOTTY ? -EOPNOTSUPP : -errno;
		for (uint32_t i = 0; i < u.map.fm_mapped_extents; i++) {
			const struct fiemap_extent *e = &u.map.fm_extents[i];

			if (e->fe_logical > at || e->fe_flags & (FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC |
								  FIEMAP_EXTENT_SHARED))
				return at >= end;
			at = cfs_max(at, e->fe_logical + e->fe_length);
		}
		if (at == before)
			return 0;
	}
	return 1;
}

static int block_submit(struct cfs_dev *dev, struct cfs_dev_req *req)
{
	struct block_dev *b = block_of(dev);
	struct block_priv *p = block_priv(req);
	int rc = cfs_dev_check(dev, req);

	if (rc)
		return rc;
	if (!b->loop || (req->op != CFS_DEV_DISCARD && req->len > BLOCK_LEN_MAX))
		return -EINVAL;
	if (req->op == CFS_DEV_ROOM)
		return block_room(b, req);
	*p = (struct block_priv){ .op.done = block_complete, .b = b };
	b->pending++;
	block_start(b, req);
	return 0;
}

/* ---- synchronous transfers ------------------------------------------------------------------------ */

static int write_chunk(struct block_dev *b, uint64_t offset, const void *buf, uint32_t len)
{
	while (len) {
		const struct iovec iov = { (void *)(uintptr_t)buf, len };
		int atomic = cfs_dev_can_atomic(&b->dev.info, offset, len) ? RWF_ATOMIC : 0;
		ssize_t n = pwritev2(b->fd, &iov, 1, (off_t)offset, RWF_DSYNC | atomic);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && atomic && (errno == EINVAL || errno == EOPNOTSUPP)) {
			cfs_warn("%s: does not write atomically, against what it says: goes on without",
				 b->path);
			b->dev.info.atomic_unit = 0;
			continue;
		}
		if (n < 0)
			return -errno;
		if (!n || n & (ssize_t)(b->dev.info.write_unit - 1))
			return -EIO;
		buf = (const char *)buf + n;
		offset += (uint64_t)n;
		len -= (uint32_t)n;
	}
	return 0;
}

static int read_chunk(struct block_dev *b, uint64_t offset, void *buf, uint32_t len)
{
	while (len) {
		ssize_t n = pread(b->fd, buf, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n || n & (ssize_t)(b->dev.info.write_unit - 1))
			return -EIO;
		buf = (char *)buf + n;
		offset += (uint64_t)n;
		len -= (uint32_t)n;
	}
	return 0;
}

static int block_sync(struct cfs_dev *dev, uint64_t offset, void *buf, uint32_t len, bool write)
{
	struct block_dev *b = block_of(dev);
	void *bounce = NULL;
	int rc = 0;

	if ((offset | len) & (dev->info.write_unit - 1))
		return -EINVAL;
	if (offset > dev->info.size_bytes || len > dev->info.size_bytes - offset)
		return -EINVAL;
	if (write && dev->info.flags & CFS_DEV_F_READONLY)
		return -EROFS;
	if (!((uintptr_t)buf & (dev->info.mem_align - 1)))
		return write ? write_chunk(b, offset, buf, len) : read_chunk(b, offset, buf, len);
	if (posix_memalign(&bounce, 4096, BLOCK_BOUNCE))
		return -ENOMEM;
	while (len && !rc) {
		uint32_t n = cfs_min(len, BLOCK_BOUNCE);

		if (write) {
			memcpy(bounce, buf, n);
			rc = write_chunk(b, offset, bounce, n);
		} else {
			rc = read_chunk(b, offset, bounce, n);
			if (!rc)
				memcpy(buf, bounce, n);
		}
		buf = (char *)buf + n;
		offset += n;
		len -= n;
	}
	free(bounce);
	return rc;
}

static int block_write_sync(struct cfs_dev *dev, uint64_t offset, const void *buf, uint32_t len)
{
	return block_sync(dev, offset, (void *)(uintptr_t)buf, len, true);	/* only reads buf */
}

static int block_read_sync(struct cfs_dev *dev, uint64_t offset, void *buf, uint32_t len)
{
	return block_sync(dev, offset, buf, len, false);
}

static int set_lock(int fd, short type)
{
	struct flock fl = { .l_type = type, .l_whence = SEEK_SET };	/* OFD: pid 0, the whole file */

	return fcntl(fd, F_OFD_SETLK, &fl) ? -errno : 0;
}

static void block_mem_add(struct cfs_dev *dev, void *base, size_t len)
{
	struct block_dev *b = block_of(dev);

	/* direct I/O alone pins pages */
	if (b->loop && b->direct)
		cfs_loop_mem_add(b->loop, base, len);
}

static void block_mem_del(struct cfs_dev *dev, void *base)
{
	struct block_dev *b = block_of(dev);

	if (b->loop)
		cfs_loop_mem_del(b->loop, base);
}

static void block_close(struct cfs_dev *dev)
{
	struct block_dev *b = block_of(dev);

	CFS_ASSERT(!b->pending);
	if (b->room_job)
		b->room_job->b = NULL;
	if (b->slot >= 0)
		cfs_loop_file_del(b->loop, b->slot);
	if (b->fd >= 0) {
		set_lock(b->fd, F_UNLCK);	/* at once: the ring may hold on to the file, see wait_for_holder() */
		close(b->fd);
	}
	free(b);
}

static const struct cfs_dev_ops block_ops = {
	.name = "block",
	.version = CFS_DEV_OPS_VERSION,
	.submit = block_submit,
	.write_sync = block_write_sync,
	.read_sync = block_read_sync,
	.reserved_sync = block_reserved_sync,
	.mem_add = block_mem_add,
	.mem_del = block_mem_del,
	.close = block_close,
};

/* ---- opening ----------------------------------------------------------------------------------------- */

/* one line of a block device's sysfs directory (of the whole drive, for a partition); false: not there */
static bool read_sysfs(dev_t rdev, const char *name, char *buf, size_t len)
{
	static const char *const dirs[] = { "", "/.." };
	char path[128];
	bool ok = false;

	for (unsigned i = 0; i < CFS_ARRAY_SIZE(dirs) && !ok; i++) {
		FILE *f;

		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u%s/%s", major(rdev), minor(rdev),
			 dirs[i], name);
		f = fopen(path, "re");
		if (!f)
			continue;
		ok = fgets(buf, (int)len, f) != NULL;
		fclose(f);
	}
	if (ok)
		buf[strcspn(buf, "\n")] = '\0';
	return ok;
}

/* the block layer would take its writes in any order, and the drive would fail most of them */
static bool refuse_zones(const struct block_dev *b, dev_t rdev)
{
	struct cfs_nvme_ns ns;
	char line[64];

	if (!read_sysfs(rdev, "queue/zoned", line, sizeof(line)) || strcmp(line, "host-managed"))
		return false;
	if (!cfs_nvme_identify(b->path, &ns))
		cfs_err("%s: zones are written by NVMe commands: use %s in its place", b->path, ns.name);
	else
		cfs_err("%s: a zoned device (host-managed): zones can be had on NVMe namespaces only", b->path);
	return true;
}

static int identify_block(struct block_dev *b, dev_t rdev)
{
	struct cfs_dev_info *info = &b->dev.info;
	unsigned physical = 0;
	int logical = 0;
	char line[64];

	if (!(info->flags & CFS_DEV_F_READONLY) && refuse_zones(b, rdev))
		return -EOPNOTSUPP;
	if (ioctl(b->fd, BLKGETSIZE64, &info->size_bytes) || ioctl(b->fd, BLKSSZGET, &logical))
		return -errno;
	if (ioctl(b->fd, BLKPBSZGET, &physical))
		physical = 0;
	/* a drive that emulates small sectors rewrites neighbours: write what it really writes as one */
	physical = cfs_min(physical, 4096u);
	info->write_unit = cfs_max((uint32_t)logical, physical);
	info->mem_align = (uint32_t)logical;
	/* write through: nothing volatile. When in doubt a flush is sent */
	if (!read_sysfs(rdev, "queue/write_cache", line, sizeof(line)) || strcmp(line, "write through"))
		info->flags |= CFS_DEV_F_VOLATILE;
	if (!read_sysfs(rdev, "device/model", info->model, sizeof(info->model)))
		snprintf(info->model, sizeof(info->model), "block device %u:%u", major(rdev), minor(rdev));
	return 0;
}

/*
 * XFS makes any write atomic that it says, by writing it elsewhere and changing the extent map (6.16): that is slow, and
 * takes room which a full file system has not. What the drive does by itself is called optimal there.
 */
static uint32_t atomic_by_drive(const struct block_dev *b, const struct statx *stx, uint32_t max)
{
	struct statfs below;

	if (!b->is_file || fstatfs(b->fd, &below) || below.f_type != XFS_SUPER_MAGIC)
		return max;
	return cfs_min(max, uapi_statx_u32(stx, UAPI_STATX_ATOMIC_UNIT_MAX_OPT_AT));
}

static int identify(struct block_dev *b, const struct stat *st)
{
	struct cfs_dev_info *info = &b->dev.info;
	uint32_t mem, off, min, max;
	struct statx stx;
	int rc;

	if (b->is_file) {
		info->size_bytes = (uint64_t)st->st_size;
		info->write_unit = BLOCK_FILE_UNIT;
		info->mem_align = 512;
		info->flags |= CFS_DEV_F_VOLATILE | CFS_DEV_F_SPARSE;
		snprintf(info->model, sizeof(info->model), "file");
	} else {
		rc = identify_block(b, st->st_rdev);
		if (rc)
			return rc;
	}
	info->max_io = BLOCK_MAX_IO;
	if (!statx(b->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN | STATX_WRITE_ATOMIC, &stx)) {
		mem = uapi_statx_u32(&stx, UAPI_STATX_DIO_MEM_ALIGN_AT);
		off = uapi_statx_u32(&stx, UAPI_STATX_DIO_OFFSET_ALIGN_AT);
		min = uapi_statx_u32(&stx, UAPI_STATX_ATOMIC_UNIT_MIN_AT);
		max = atomic_by_drive(b, &stx, uapi_statx_u32(&stx, UAPI_STATX_ATOMIC_UNIT_MAX_AT));
		if (b->direct && stx.stx_mask & STATX_DIOALIGN) {
			info->mem_align = cfs_max(info->mem_align, mem);
			info->write_unit = cfs_max(info->write_unit, off);
		}
		if (b->direct && stx.stx_mask & STATX_WRITE_ATOMIC && max >= info->write_unit) {
			/* Linux 6.11, generic_atomic_write_valid() */
			info->atomic_unit = max;
			info->atomic_min = min;
			info->flags |= CFS_DEV_F_ATOMIC_POW2;
		}
	}
	if (info->write_unit < 512 || info->write_unit > 4096 ||
	    info->write_unit & (info->write_unit - 1)) {
		cfs_err("%s: sectors of %u bytes: only 512 to 4096 are supported", b->path, info->write_unit);
		return -EINVAL;
	}
	info->size_bytes = cfs_align_down(info->size_bytes, info->write_unit);
	return info->size_bytes ? 0 : -EINVAL;
}

/*
 * The kernel takes a dead process's io_uring apart in the background, and lets go of the files that were
 * registered with it only then: up to a second later on Linux 6.1. So who finds a device taken waits a little.
 */
#define TAKEN_WAIT_MS 3000u
#define TAKEN_STEP_MS 50u

static bool wait_for_holder(unsigned *waited_ms)
{
	if (*waited_ms >= TAKEN_WAIT_MS)
		return false;
	usleep(TAKEN_STEP_MS * 1000);
	*waited_ms += TAKEN_STEP_MS;
	return true;
}

static int open_waiting(const char *path, int oflags, unsigned *waited_ms)
{
	int fd;

	do {
		fd = open(path, oflags);
	} while (fd < 0 && errno == EBUSY && wait_for_holder(waited_ms));
	return fd;
}

/* nobody else writes here. -EBUSY if somebody does */
static int lock_exclusively(int fd, unsigned *waited_ms)
{
	int rc;

	do {
		rc = set_lock(fd, F_WRLCK);
	} while ((rc == -EAGAIN || rc == -EACCES) && wait_for_holder(waited_ms));
	return rc == -EAGAIN || rc == -EACCES ? -EBUSY : rc;
}

int cfs_dev_block_open(struct cfs_loop *loop, const char *path, uint32_t flags,
		       struct cfs_dev **ret_dev)
{
	bool readonly = flags & CFS_DEV_F_READONLY;
	int oflags = (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY;
	unsigned waited_ms = 0;
	struct block_dev *b;
	struct stat st;
	int rc;

	if (flags & ~CFS_DEV_F_READONLY)
		return -EINVAL;
	if (stat(path, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return -ENOTBLK;
	b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->dev.ops = &block_ops;
	b->dev.info.flags = flags;
	b->loop = loop;
	b->slot = -1;
	b->direct = true;
	snprintf(b->path, sizeof(b->path), "%s", path);
	if (S_ISBLK(st.st_mode) && !readonly)
		oflags |= O_EXCL;	/* not while it is mounted, or part of a RAID */
	b->fd = open_waiting(path, oflags | O_DIRECT, &waited_ms);
	if (b->fd < 0 && errno == EINVAL) {
		b->direct = false;
		b->fd = open(path, oflags);
		if (b->fd >= 0)
			cfs_warn("%s: its file system has no O_DIRECT: going through the page cache", path);
	}
	if (b->fd < 0 || fstat(b->fd, &st)) {
		rc = -errno;
		goto err;
	}
	b->is_file = S_ISREG(st.st_mode);
	if (!b->is_file && !S_ISBLK(st.st_mode)) {
		rc = -ENOTBLK;
		goto err;
	}
	rc = readonly ? 0 : lock_exclusively(b->fd, &waited_ms);
	if (!rc)
		rc = identify(b, &st);
	if (rc)
		goto err;
	if (loop) {
		b->slot = cfs_loop_file_add(loop, b->fd);
		if (b->slot < 0)
			b->slot = -1;	/* the descriptor does as well */
	}
	*ret_dev = &b->dev;
	return 0;
err:
	block_close(&b->dev);
	return rc;
}
