/* SPDX-License-Identifier: MIT */
/*
 * fuse_new.h - what the kernel's FUSE interface has gained since Debian 12's linux/fuse.h (7.38): flags of INIT, backing
 * files, requests that are sent again, and FUSE over io_uring. Values and layouts from include/uapi/linux/fuse.h of Linux 6.18; a newer header's own win.
 */
#ifndef UAPI_FUSE_NEW_H
#define UAPI_FUSE_NEW_H

#include <linux/fuse.h>
#include <stdint.h>
#include <sys/ioctl.h>

#ifndef FUSE_PASSTHROUGH
#define FUSE_PASSTHROUGH	(1ULL << 37)	/* 6.9 */
#endif
#ifndef FUSE_DEV_IOC_BACKING_OPEN
struct fuse_backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
#define FUSE_DEV_IOC_BACKING_OPEN	_IOW(FUSE_DEV_IOC_MAGIC, 1, struct fuse_backing_map)
#define FUSE_DEV_IOC_BACKING_CLOSE	_IOW(FUSE_DEV_IOC_MAGIC, 2, uint32_t)
#endif
#ifndef FUSE_HAS_RESEND
#define FUSE_HAS_RESEND		(1ULL << 39)	/* 6.9 */
#endif
#define CFS_FUSE_NOTIFY_RESEND	7		/* FUSE_NOTIFY_RESEND, an enumerator: cannot be asked for */
#ifndef FUSE_OVER_IO_URING
#define FUSE_OVER_IO_URING	(1ULL << 41)	/* 6.14 */
#endif

#if FUSE_KERNEL_MINOR_VERSION < 42
#define FUSE_URING_IN_OUT_HEADER_SZ	128
#define FUSE_URING_OP_IN_OUT_SZ		128

/* beside every payload in a ring's entry, both ways */
struct fuse_uring_ent_in_out {
	uint64_t flags;
	uint64_t commit_id;		/* to be said with COMMIT_AND_FETCH */
	uint32_t payload_sz;
	uint32_t padding;
	uint64_t reserved;
};

struct fuse_uring_req_header {
	char in_out[FUSE_URING_IN_OUT_HEADER_SZ];	/* fuse_in_header, fuse_out_header */
	char op_in[FUSE_URING_OP_IN_OUT_SZ];		/* the operation's first argument */
	struct fuse_uring_ent_in_out ring_ent_in_out;
};

/* sqe->cmd_op */
enum fuse_uring_cmd {
	FUSE_IO_URING_CMD_INVALID = 0,
	FUSE_IO_URING_CMD_REGISTER = 1,
	FUSE_IO_URING_CMD_COMMIT_AND_FETCH = 2,
};

/* sqe->cmd, in an SQE of 128 bytes */
struct fuse_uring_cmd_req {
	uint64_t flags;
	uint64_t commit_id;
	uint16_t qid;
	uint8_t padding[6];
};
#endif

#endif
