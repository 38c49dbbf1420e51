/* SPDX-License-Identifier: MIT */
/*
 * nvme_i.h - what the files of the nvme back end share.
 *
 *   nvme.c        the device: queue, splitting, retries (cfs_dev_ops)
 *   nvme_cmd.c    requests as commands, status codes; pure functions
 *   nvme_zone.c   zones: report and management, blocking
 *   nvme_port.c   commands to the kernel: io_uring passthrough on the loop's ring, ioctl
 *   nvme_poll.c   the same through a polled ring of its own
 *   nvme_ident.c  what controller and namespace say of themselves (libnvme)
 *   nvme_find.c   namespaces of this machine, stable names, opening
 *
 * The port is a seam of its own: unit tests put a drive of memory with seeded faults below the device.
 * Sources: NVM Express Base Specification 2.0, NVM Command Set 1.0, Zoned Namespace Command Set 1.1.
 */
#ifndef CFS_DEV_NVME_I_H
#define CFS_DEV_NVME_I_H

#include "dev/dev.h"
#include "dev/nvme.h"
#include "ring/loop.h"

#define CFS_NVME_DEPTH_MAX	256u	/* commands of one device under way */
#define CFS_NVME_RETRIES	5u	/* of a command whose status allows it, as the kernel's nvme.max_retries */
#define CFS_NVME_RESET_WAIT_MS	60000u	/* how long a command waits for a controller that is being reset */
#define CFS_NVME_RESET_STEP_MS	50u	/* between two tries meanwhile; doubles up to a second */
#define CFS_NVME_PART_MAX	(1u << 20)	/* bytes of one command, whatever MDTS allows: nobody sends more, and it shows */
#define CFS_NVME_DISCARD_MAX	(1u << 30)	/* bytes of one deallocation: a longer one may run into a timeout */

enum cfs_nvme_opcode {
	CFS_NVME_FLUSH = 0x00,
	CFS_NVME_WRITE = 0x01,
	CFS_NVME_READ = 0x02,
	CFS_NVME_DSM = 0x09,
	CFS_NVME_ZONE_SEND = 0x79,
	CFS_NVME_ZONE_RECV = 0x7a,
	CFS_NVME_ZONE_APPEND = 0x7d,
};

/* status: type in bits 10..8, code in 7..0, then retry delay, more, do-not-retry */
#define CFS_NVME_SC_MASK	0x07ff
#define CFS_NVME_CRD(status)	(((status) >> 11) & 3)
#define CFS_NVME_DNR		0x4000

struct cfs_nvme_cmd {
	uint8_t opcode;
	uint32_t cdw10, cdw11, cdw12, cdw13;
	void *data;			/* with n_iov: the array of iovecs */
	uint32_t len, n_iov;
};

struct cfs_nvme_dsm_range {
	uint32_t attributes, blocks;	/* little-endian */
	uint64_t start;
};

struct cfs_nvme_port;

/* one command under way; memory of whoever submits it, until done() */
struct cfs_nvme_io {
	struct cfs_ring_op op;		/* the port's */
	struct cfs_nvme_io *next;	/* the port's */
	struct cfs_nvme_port *port;	/* the port's */
	struct cfs_nvme_cmd cmd;
	bool registered;		/* set by the port's submit(): its memory is known to the ring */
	/* res: 0, an NVMe status, or -errno of the kernel; `result` is the command's own, of an append the LBA */
	void (*done)(struct cfs_nvme_io *io, int32_t res, uint64_t result);
};

struct cfs_nvme_port_ops {
	const char *name;
	uint32_t version;		/* CFS_NVME_PORT_VERSION */
	uint32_t flags;
	/* done() is called later, never inside */
	void (*submit)(struct cfs_nvme_port *port, struct cfs_nvme_io *io);
	/* blocking; as `res` above */
	int (*sync)(struct cfs_nvme_port *port, const struct cfs_nvme_cmd *cmd);
	void (*pause)(struct cfs_nvme_port *port, uint32_t ms);	/* between two tries of sync() */
	/* has the kernel removed the namespace? Its multipath node does not say so, see cfs_nvme_judge() */
	bool (*removed)(struct cfs_nvme_port *port);
	void (*close)(struct cfs_nvme_port *port);
};
#define CFS_NVME_PORT_VERSION 2u

struct cfs_nvme_port {
	const struct cfs_nvme_port_ops *ops;
};

/* what decides how a namespace is driven; from identify data and the kernel's queue limits */
struct cfs_nvme_limits {
	uint64_t blocks;		/* of the namespace */
	uint32_t nsid;
	uint32_t block_bytes;		/* 512 .. 4096 */
	uint32_t write_bytes;		/* preferred granularity: smaller writes cost the drive a read; or 0 */
	uint32_t max_bytes;		/* of one command: MDTS and the kernel's limit; 0: none */
	uint32_t max_segments;		/* pages of one command */
	uint32_t depth;			/* commands that the kernel's queue takes */
	uint32_t atomic_bytes, atomic_boundary;	/* NAWUPF, NABSPF; 0: not told */
	uint32_t discard_bytes;		/* preferred granularity; 0: no deallocation */
	uint32_t crdt_ms[4];		/* delays that a status may ask for; [0] is 0 */
	uint32_t reset_wait_ms;		/* 0: CFS_NVME_RESET_WAIT_MS */
	bool volatile_cache, readonly;
	bool poll_queues;		/* the driver has some */
	bool multipath;			/* the node stands for several paths, see cfs_nvme_judge() */
	/* zoned, else zone_blocks is 0 */
	uint64_t zone_blocks;
	uint32_t n_zones, max_active, max_open;
	uint32_t append_bytes;
	char model[64];
};

/* ---- nvme_cmd.c */
struct cfs_nvme_verdict {
	enum { CFS_NVME_DONE, CFS_NVME_RETRY, CFS_NVME_WAIT_RESET, CFS_NVME_FAILED } what;
	int err;		/* FAILED: -errno, -ENODEV when the device is gone */
	/* RETRY: what the controller asked for; WAIT_RESET: the first of several, 0: the usual */
	uint32_t delay_ms;
};
/*
 * What a command's outcome means. @repeatable: carrying it out twice equals carrying it out once;
 * an append, or a write to a zone, that may have happened is not sent again. The kernel's multipath node says EINVAL
 * (io_uring; EAGAIN by ioctl) when no path is usable just now: a controller that is being reset, a lost connection.
 */
struct cfs_nvme_verdict cfs_nvme_judge(int32_t res, bool repeatable, const struct cfs_nvme_limits *lim);
const char *cfs_nvme_status_text(int32_t res, char *buf, size_t len);
/* the command for `bytes` of a request from `at` on; buffers and DSM's range are the caller's to add */
void cfs_nvme_cmd_init(struct cfs_nvme_cmd *cmd, const struct cfs_dev_req *req, uint32_t block_bytes,
		       uint64_t at, uint64_t bytes);

/* ---- nvme.c */
struct cfs_nvme_dev;
/* takes the port, also when it fails. @name: what messages call the device */
int cfs_nvme_create(struct cfs_loop *loop, struct cfs_nvme_port *port, const struct cfs_nvme_limits *limits,
		    const char *name, uint32_t flags, struct cfs_dev **ret_dev);
/* a blocking command, with retries; 0 or -errno */
int cfs_nvme_sync(struct cfs_dev *dev, const struct cfs_nvme_cmd *cmd, bool repeatable);
uint32_t cfs_nvme_block_bytes(const struct cfs_dev *dev);

/* ---- nvme_zone.c */
int cfs_nvme_zone_report(struct cfs_dev *dev, uint64_t offset, struct cfs_zone *zones, uint32_t n);
int cfs_nvme_zone_sync(struct cfs_dev *dev, enum cfs_dev_op op, uint64_t offset);
uint32_t cfs_nvme_zone_action(enum cfs_dev_op op);

/* ---- nvme_port.c, nvme_poll.c: both take the descriptors, also when they fail */
struct cfs_nvme_fds {
	int ng;		/* /dev/ngXnY */
	int hold;	/* keeps others out, or -1 */
};
int cfs_nvme_port_open(struct cfs_loop *loop, struct cfs_nvme_fds fds, uint32_t nsid, struct cfs_nvme_port **ret);
int cfs_nvme_poll_open(struct cfs_loop *loop, struct cfs_nvme_fds fds, uint32_t nsid, uint32_t flags,
		       struct cfs_nvme_port **ret);

#endif
