/* SPDX-License-Identifier: MIT */
/*
 * dev.h - the device seam: what a store needs of a drive.
 *
 * Implementations: `block` (regular file or block device, O_DIRECT through io_uring), `mem`
 * (tests and tools, zoned too), the simulator's disk (sim/), `nvme`. Requests are
 * asynchronous and complete on the thread that owns the device, in any order, never inside
 * submit(). Durability: a WRITE is durable when it completed with CFS_DEV_DURABLE, or when a
 * FLUSH submitted after its completion has completed. Nothing else is.
 *
 * A zoned device is divided into zones of zone_bytes; the first `capacity` bytes of each can be
 * written, only at its write pointer, and again only after a reset. One write may be under way in
 * a zone at a time (several appends may). A zone that holds data and is not full is active; there
 * may be no more than max_active of those. Zones can fail by themselves: read-only, offline.
 * Source: NVMe Zoned Namespace Command Set 1.1, sections 2 and 3.
 */
#ifndef CFS_DEV_DEV_H
#define CFS_DEV_DEV_H

#include <stdint.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

struct cfs_dev;
struct cfs_dev_req;
struct cfs_loop;
typedef void (*cfs_dev_done_fn)(struct cfs_dev_req *req);

enum cfs_dev_op {
	CFS_DEV_READ,
	CFS_DEV_WRITE,
	CFS_DEV_FLUSH,
	/*
	 * Sparse devices only. RESERVE: the file system below finds room for all of the range, or -ENOSPC (it may have found
	 * some of it); what was written stays. ROOM: dev->room says what there is below; offset and len are 0; one at a time.
	 */
	CFS_DEV_RESERVE,
	CFS_DEV_ROOM,
	CFS_DEV_DISCARD,	/* bytes read as anything afterwards, and are not reserved; a hint */
	/* zoned devices only; `offset` names the start of a zone of type SEQ */
	CFS_DEV_ZONE_APPEND,	/* at the write pointer: ret_offset tells where it landed */
	CFS_DEV_ZONE_RESET,	/* to EMPTY; durable when completed, as are the next three */
	CFS_DEV_ZONE_FINISH,	/* to FULL: not active any more; what was not written reads as anything */
	CFS_DEV_ZONE_OPEN,	/* to OPEN_EXPLICIT: stays open until closed, finished or reset */
	CFS_DEV_ZONE_CLOSE,	/* to CLOSED; an empty zone stays EMPTY */
	CFS_DEV_OPS,
};

/*
 * One request; memory and buffers belong to the caller and live until done().
 * Errors of zones, in `result`: -EINVAL not at the write pointer, beyond the capacity, or not allowed in the
 * zone's state; -EOVERFLOW too many active zones; -ETOOMANYREFS too many open ones; -EROFS the zone is
 * read-only; -ENXIO it is offline. After any error of a write, zone_report() tells where its zone stands.
 */
struct cfs_dev_req {
	enum cfs_dev_op op;
	uint32_t flags;		/* CFS_DEV_DURABLE, CFS_DEV_ATOMIC: with WRITE and ZONE_APPEND only */
	uint64_t offset;	/* bytes; a multiple of info.write_unit */
	const struct iovec *iov;/* buffers aligned to info.mem_align; total a multiple of write_unit */
	uint32_t iovcnt;	/* <= CFS_DEV_IOV_MAX */
	uint32_t pad;
	uint64_t len;		/* total bytes; DISCARD: the range; other zone requests: 0 */
	int64_t result;		/* at done(): bytes, or -errno. Short transfers are errors (-EIO) */
	uint64_t ret_offset;	/* ZONE_APPEND */
	cfs_dev_done_fn done;
	uint64_t priv[6];	/* the device's */
};
#define CFS_DEV_DURABLE	1u	/* by FUA where the drive has it, else by a flush behind the write */
/* all or nothing at a power cut; only what cfs_dev_can_atomic() allows */
#define CFS_DEV_ATOMIC	2u
#define CFS_DEV_IOV_MAX	64u

struct cfs_dev_info {
	uint64_t size_bytes;
	uint32_t write_unit;	/* bytes, power of two, 512 .. 4096 */
	uint32_t mem_align;	/* bytes */
	/*
	 * Bytes that one write may have to be all or nothing at a power cut (NVMe: NAWUPF; block devices: by statx);
	 * 0: not known, then not even a sector counts as whole. atomic_boundary: no such write may cross a
	 * multiple of it (NABSPF; 0: none). atomic_min: the smallest such write, 0: write_unit.
	 */
	uint32_t atomic_unit, atomic_boundary, atomic_min;
	uint32_t max_io;	/* bytes of one request that are not split */
	uint32_t discard_unit;	/* bytes: smaller or unaligned ranges may be ignored; 0: never useful */
	uint32_t flags;		/* CFS_DEV_F_* */
	/* of a zoned device, else 0 */
	uint64_t zone_bytes;	/* from start to start; size_bytes is a multiple */
	uint64_t zone_capacity;	/* bytes, the least of all zones' */
	uint32_t n_zones;
	uint32_t max_active, max_open;	/* 0: no limit */
	uint32_t append_max;	/* bytes of one ZONE_APPEND; 0: it has no append */
	char model[64];		/* for people */
};
#define CFS_DEV_F_ZONED		1u
#define CFS_DEV_F_VOLATILE	2u	/* has a volatile write cache: FLUSH matters */
#define CFS_DEV_F_READONLY	4u
#define CFS_DEV_F_FUA		8u	/* a DURABLE write costs no flush of everything else */
/* atomic writes are powers of two, at multiples of themselves (RWF_ATOMIC) */
#define CFS_DEV_F_ATOMIC_POW2	16u
/* a file whose file system finds room only when it must: a write to what was not reserved may end with -ENOSPC */
#define CFS_DEV_F_SPARSE	32u

/* of a sparse device, as of the last ROOM */
struct cfs_dev_room {
	uint64_t missing;	/* bytes of the device for which no room has been found yet */
	uint64_t free;		/* bytes that are free below, for everybody who writes there */
	uint64_t below;		/* which file system that is: devices with the same one share what is free */
};

enum cfs_zone_type { CFS_ZONE_SEQ, CFS_ZONE_CONV };	/* CONV: written anywhere, has no state */
enum cfs_zone_state {
	CFS_ZONE_EMPTY,
	CFS_ZONE_OPEN_IMPLICIT,	/* by a write */
	CFS_ZONE_OPEN_EXPLICIT,
	CFS_ZONE_CLOSED,
	CFS_ZONE_FULL,
	CFS_ZONE_READONLY,	/* can be read, never written or reset again */
	CFS_ZONE_OFFLINE,	/* neither */
};

struct cfs_zone {
	uint64_t start, capacity;	/* bytes */
	uint64_t wp;		/* where the next write goes; means nothing in the last three states */
	uint8_t type, state;
};

struct cfs_dev_ops {
	const char *name;
	uint32_t version;	/* CFS_DEV_OPS_VERSION */
	uint32_t flags;
	/* queue one request; 0, or -EINVAL for one that breaks the rules above */
	int (*submit)(struct cfs_dev *dev, struct cfs_dev_req *req);
	/*
	 * Blocking, durable write, and blocking read, of any multiple of write_unit; at most 8192 bytes
	 * (Raft's term and vote) are written at once while requests run. 0 or -errno. Used at start-up
	 * and shut-down, by offline tools, and when a vote changes, nowhere else. A write is atomic where
	 * cfs_dev_can_atomic() says so.
	 */
	int (*write_sync)(struct cfs_dev *dev, uint64_t offset, const void *buf, uint32_t len);
	int (*read_sync)(struct cfs_dev *dev, uint64_t offset, void *buf, uint32_t len);
	/*
	 * Zoned devices only, NULL elsewhere; blocking as above, and also used after a write to a zone has failed;
	 * zone_report every few seconds, too, right after a read has been answered.
	 * zone_report: `n` zones from the one that starts at `offset`; how many were filled in, or -errno.
	 * zone_sync: RESET, FINISH, OPEN or CLOSE.
	 * flush_sync: all that has been completed is durable, also what an earlier process wrote.
	 */
	int (*zone_report)(struct cfs_dev *dev, uint64_t offset, struct cfs_zone *zones, uint32_t n);
	int (*zone_sync)(struct cfs_dev *dev, enum cfs_dev_op op, uint64_t offset);
	int (*flush_sync)(struct cfs_dev *dev);
	/*
	 * Sparse devices only, blocking, at start-up: has room been found for all of the range? 1, 0, or -errno
	 * (-EOPNOTSUPP: cannot be asked).
	 */
	int (*reserved_sync)(struct cfs_dev *dev, uint64_t offset, uint64_t len);
	/*
	 * Memory that requests will come from again and again, before the first and after the last of them: a
	 * back end may have the kernel pin it once and not each time. NULL where it makes no difference.
	 */
	void (*mem_add)(struct cfs_dev *dev, void *base, size_t len);
	void (*mem_del)(struct cfs_dev *dev, void *base);
	/* no request may be outstanding */
	void (*close)(struct cfs_dev *dev);
};
#define CFS_DEV_OPS_VERSION 3u

/* what happened since it was opened; back ends count what they can see */
struct cfs_dev_stat {
	uint64_t commands;	/* sent to the drive */
	uint64_t registered;	/* of them from or to memory that is registered with the ring */
	uint64_t retries;	/* sent again */
	uint64_t reset_waits;	/* had to wait for a controller that was being reset */
	uint64_t errors;	/* that reached the requester */
	bool gone;		/* the device was removed: all requests fail with -ENODEV from now on */
};

struct cfs_dev {
	const struct cfs_dev_ops *ops;
	struct cfs_dev_info info;
	struct cfs_dev_stat stat;
	struct cfs_dev_room room;
};

static inline int cfs_dev_submit(struct cfs_dev *dev, struct cfs_dev_req *req)
{
	return dev->ops->submit(dev, req);
}

static inline void cfs_dev_mem_add(struct cfs_dev *dev, void *base, size_t len)
{
	if (dev->ops->mem_add && base)
		dev->ops->mem_add(dev, base, len);
}

static inline void cfs_dev_mem_del(struct cfs_dev *dev, void *base)
{
	if (dev->ops->mem_del && base)
		dev->ops->mem_del(dev, base);
}

/** cfs_dev_close() - release a device; NULL is fine. */
void cfs_dev_close(struct cfs_dev *dev);

/**
 * cfs_dev_check() - does a request keep the rules above? For those who implement submit().
 * Return: 0; -EINVAL; -EROFS for a change of a read-only device.
 */
int cfs_dev_check(const struct cfs_dev *dev, const struct cfs_dev_req *req);

/** cfs_dev_can_atomic() - would a write of that place and length be all or nothing at a power cut? */
bool cfs_dev_can_atomic(const struct cfs_dev_info *info, uint64_t offset, uint64_t len);

/**
 * cfs_dev_open() - open a target's device by the name its configuration gives.
 * @name: a regular file, a block device, an NVMe namespace's character device (/dev/ngXnY) or stable name
 * (nvme:..., see nvme.h); the latter two need a loop from cfs_dev_loop_create(), or go through the block layer
 * @flags: CFS_DEV_F_READONLY, or those of cfs_dev_nvme_open(), which others ignore
 * Return: as cfs_dev_block_open() and cfs_dev_nvme_open().
 */
int cfs_dev_open(struct cfs_loop *loop, const char *name, uint32_t flags, struct cfs_dev **ret_dev);
bool cfs_dev_is_nvme(const char *name);
/* a loop on which these devices can be opened: wide if one of them needs it and the kernel can. NULL names are skipped */
int cfs_dev_loop_create(uint32_t entries, const char *const *names, unsigned n, struct cfs_loop **ret_loop);

/**
 * cfs_dev_block_open() - open a regular file or block device with O_DIRECT on a loop's ring.
 * @loop: the thread's reactor, which must outlive the device; NULL: only the _sync calls will be used
 * @path: existing regular file or block device
 * @flags: CFS_DEV_F_READONLY or 0
 * @ret_dev: the device
 *
 * Takes an exclusive OFD lock, of a block device O_EXCL too (unless read-only), so that two servers never
 * share a target. A file system without O_DIRECT is used through its page cache, with a warning.
 * Atomic writes are RWF_ATOMIC, with the unit that statx(2) tells. A regular file is a sparse device: RESERVE is
 * fallocate(2), which ext4, XFS and tmpfs keep their word about; btrfs does for files that are not copied on write (see
 * cfs_file_nocow()) and have no snapshot. Where the file system knows no fallocate(2), RESERVE ends with -EOPNOTSUPP.
 * Return: 0, or -errno (-EBUSY: another process holds it; -EOPNOTSUPP: to be written, and a host-managed zoned device: a line
 * was logged that says so). Source: open(2), io_uring_enter(2), Documentation/ABI/stable/sysfs-block (queue/zoned).
 */
int cfs_dev_block_open(struct cfs_loop *loop, const char *path, uint32_t flags,
		       struct cfs_dev **ret_dev);

/** cfs_dev_mem_create() - a device in memory; completes from the loop's next turn. */
int cfs_dev_mem_create(struct cfs_loop *loop, uint64_t size_bytes, uint32_t write_unit,
		       struct cfs_dev **ret_dev);

struct cfs_zone_geometry {
	uint64_t zone_bytes, zone_capacity;	/* bytes; multiples of write_unit */
	uint32_t n_zones;
	uint32_t n_conv;			/* the first ones are conventional */
	uint32_t max_active, max_open;		/* 0: no limit */
};

/** cfs_dev_mem_create_zoned() - the same with zones, whose rules are kept strictly. */
int cfs_dev_mem_create_zoned(struct cfs_loop *loop, const struct cfs_zone_geometry *geometry,
			     uint32_t write_unit, struct cfs_dev **ret_dev);
/** cfs_dev_mem_zone_fail() - from now on the zone is READONLY or OFFLINE (what it held stays). */
void cfs_dev_mem_zone_fail(struct cfs_dev *dev, uint32_t zone, enum cfs_zone_state state);

#endif
