/* SPDX-License-Identifier: GPL-2.0 */
/*
 * claudefs_fuse.h - the contract between the module and the BPF program that it calls: what the program sees of one FUSE
 * request, what it may answer, and what it registers. Included by both; types are those of linux/types.h.
 */
#ifndef CLAUDEFS_FUSE_H
#define CLAUDEFS_FUSE_H

#include <linux/types.h>

/* raised with every change of what is below; the program says which one it was written for */
#define CFS_FUSE_ABI	1

/* one request: LOOKUP, GETATTR, STATX or GETXATTR. No other ever comes */
struct cfs_fuse_req {
	__u64 nodeid;
	__u32 opcode;
	__u32 name_len;		/* LOOKUP, GETXATTR: bytes, without a NUL */
	__u32 arg;		/* GETATTR, STATX: getattr_flags; GETXATTR: size of the buffer */
	__u32 out_size;		/* bytes of the reply; 0: only an error can be answered */
};

/*
 * The program's answer: 0 when it has replied with cfs_fuse_reply(), or a negative errno that the application gets, or
 * CFS_FUSE_PASS: the request goes on to the daemon, as it would without the program.
 */
#define CFS_FUSE_PASS	1

/* the struct_ops. fuse_fd is the daemon's open /dev/fuse: it says which mount, and proves the right to answer for it */
struct claudefs_fuse_ops {
	int (*handle)(struct cfs_fuse_req *req);
	__s32 fuse_fd;
	__u32 abi;		/* CFS_FUSE_ABI */
};

/*
 * For the program:
 *
 * __u8 *cfs_fuse_key(struct cfs_fuse_req *req, const size_t rdwr_buf_size)
 *	nodeid, then the name padded with zeros: rdwr_buf_size bytes of the module's, to look up with. NULL: the name is
 *	too long for them, or there is none. What an earlier call gave is overwritten.
 * int cfs_fuse_reply(struct cfs_fuse_req *req, const void *data, __u32 data__sz)
 *	the reply, exactly out_size bytes; 0 or -EINVAL
 */
#define CFS_FUSE_KEY_MAX	264u

#endif
