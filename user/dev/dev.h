/* SPDX-License-Identifier: MIT */
/*
 * dev.h - the device seam: what a store needs of a drive.
 *
 * Implementations: `block` (regular file or block device, O_DIRECT through io_uring), `mem`
 * (tests and tools), the simulator's disk (sim/), later `nvme` and `zns`. Requests are
 * asynchronous and complete on the thread that owns the device, in any order, never inside
 * submit(). Durability: a WRITE is durable when it completed with CFS_DEV_DURABLE, or when a
 * FLUSH submitted after its completion has completed. Nothing else is.
 */
#ifndef CFS_DEV_DEV_H
#define CFS_DEV_DEV_H

#include <stdint.h>
#include <stdbool.h>
#include <sys/uio.h>

struct cfs_dev;
struct cfs_dev_req;
struct cfs_loop;
typedef void (*cfs_dev_done_fn)(struct cfs_dev_req *req);

enum cfs_dev_op {
	CFS_DEV_READ,
	CFS_DEV_WRITE,
	CFS_DEV_FLUSH,
	CFS_DEV_DISCARD,	/* bytes read as anything afterwards; a hint */
	/* zoned devices only */
	CFS_DEV_ZONE_APPEND,	/* `offset` names the zone's start; ret_offset tells where it landed */
	CFS_DEV_ZONE_RESET,
	CFS_DEV_ZONE_FINISH,
};

/* one request; memory and buffers belong to the caller and live until done() */
struct cfs_dev_req {
	enum cfs_dev_op op;
	uint32_t flags;		/* CFS_DEV_DURABLE: with WRITE only */
	uint64_t offset;	/* bytes; a multiple of info.write_unit */
	const struct iovec *iov;/* buffers aligned to info.mem_align; total a multiple of write_unit */
	uint32_t iovcnt;	/* <= CFS_DEV_IOV_MAX */
	uint32_t pad;
	uint64_t len;		/* total bytes; DISCARD and zone requests: the range */
	int64_t result;		/* at done(): bytes, or -errno. Short transfers are errors (-EIO) */
	uint64_t ret_offset;	/* ZONE_APPEND */
	cfs_dev_done_fn done;
	uint64_t priv[6];	/* the device's */
};
#define CFS_DEV_DURABLE	1u
#define CFS_DEV_IOV_MAX	64u

struct cfs_dev_info {
	uint64_t size_bytes;
	uint32_t write_unit;	/* bytes, power of two, 512 .. 4096 */
	uint32_t mem_align;	/* bytes */
	uint32_t atomic_unit;	/* bytes written all or nothing at a power cut; 0: not known */
	uint32_t max_io;	/* bytes of one request that are not split */
	uint32_t flags;		/* CFS_DEV_F_* */
	uint32_t zone_bytes;	/* MiB-sized zones of a zoned device, else 0 */
	char model[64];		/* for people */
};
#define CFS_DEV_F_ZONED		1u
#define CFS_DEV_F_VOLATILE	2u	/* has a volatile write cache: FLUSH matters */
#define CFS_DEV_F_READONLY	4u

struct cfs_dev_ops {
	const char *name;
	uint32_t version;	/* CFS_DEV_OPS_VERSION */
	uint32_t flags;
	/* queue one request; 0, or -EINVAL for one that breaks the rules above */
	int (*submit)(struct cfs_dev *dev, struct cfs_dev_req *req);
	/*
	 * Blocking, durable write, and blocking read, of any multiple of write_unit; at most 4096 bytes
	 * (Raft's term and vote) are written at once while requests run. 0 or -errno. Used at start-up
	 * and shut-down, by offline tools, and when a vote changes, nowhere else.
	 */
	int (*write_sync)(struct cfs_dev *dev, uint64_t offset, const void *buf, uint32_t len);
	int (*read_sync)(struct cfs_dev *dev, uint64_t offset, void *buf, uint32_t len);
	/* no request may be outstanding */
	void (*close)(struct cfs_dev *dev);
};
#define CFS_DEV_OPS_VERSION 1u

struct cfs_dev {
	const struct cfs_dev_ops *ops;
	struct cfs_dev_info info;
};

static inline int cfs_dev_submit(struct cfs_dev *dev, struct cfs_dev_req *req)
{
	return dev->ops->submit(dev, req);
}

/** cfs_dev_close() - release a device; NULL is fine. */
void cfs_dev_close(struct cfs_dev *dev);

/**
 * cfs_dev_check() - does a request keep the rules above? For those who implement submit().
 * Return: 0; -EINVAL; -EROFS for a change of a read-only device.
 */
int cfs_dev_check(const struct cfs_dev *dev, const struct cfs_dev_req *req);

/**
 * cfs_dev_block_open() - open a regular file or block device with O_DIRECT on a loop's ring.
 * @loop: the thread's reactor, which must outlive the device; NULL: only the _sync calls will be used
 * @path: existing regular file or block device
 * @flags: CFS_DEV_F_READONLY or 0
 * @ret_dev: the device
 *
 * Takes an exclusive OFD lock, of a block device O_EXCL too (unless read-only), so that two servers never
 * share a target. A file system without O_DIRECT is used through its page cache, with a warning.
 * info.atomic_unit speaks of write_sync() alone, which then writes with RWF_ATOMIC.
 * Return: 0, or -errno (-EBUSY: another process holds it). Source: open(2), io_uring_enter(2).
 */
int cfs_dev_block_open(struct cfs_loop *loop, const char *path, uint32_t flags,
		       struct cfs_dev **ret_dev);

/** cfs_dev_mem_create() - a device in memory; completes from the loop's next turn. */
int cfs_dev_mem_create(struct cfs_loop *loop, uint64_t size_bytes, uint32_t write_unit,
		       struct cfs_dev **ret_dev);

#endif
