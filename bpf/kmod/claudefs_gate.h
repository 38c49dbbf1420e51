/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * claudefs_gate.h - the contract between the module claudefs_gate and a client: /dev/claudefs_gate, and the gates that are
 * made with it. A gate is a regular file that stands for a real one and can be shut: while it is, no byte of the real file can be
 * read, written, loaded or stored by way of the gate, mappings included. Types are those of linux/types.h, times
 * nanoseconds; all calls fail with errno.
 */
#ifndef CLAUDEFS_GATE_H
#define CLAUDEFS_GATE_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* raised with every change of what is below; CFS_GATE_ABI says the module's */
#define CFS_GATE_ABI_NOW	1
#define CFS_GATE_DEVICE		"/dev/claudefs_gate"
#define CFS_GATE_GATES_MAX	65536u	/* of one open device */

/* what a gate lets through: loads and reads; stores and writes as well */
enum cfs_gate_mode { CFS_GATE_SHUT = 0, CFS_GATE_READ, CFS_GATE_WRITE };

/* what read(2) on the device gives, one or more at a time; it waits for the first, O_NONBLOCK: EAGAIN */
#define CFS_GATE_WANT_READ	1u	/* somebody waits to read */
#define CFS_GATE_WANT_WRITE	2u	/* or to write: also when `budget` bytes were written and not taken */
#define CFS_GATE_WRITTEN	4u	/* the first bytes since CFS_GATE_TAKE or CFS_GATE_CLOSE were written */
#define CFS_GATE_SYNC		8u	/* a write with O_SYNC or RWF_DSYNC waits for CFS_GATE_SYNCED */
#define CFS_GATE_UNMAPPED	16u	/* the last mapping is gone */
struct cfs_gate_event {
	__u64 cookie;
	__u32 what;		/* CFS_GATE_WANT_READ ..., of one gate together */
	__u32 pad;
};

struct cfs_gate_new {
	__u64 cookie;		/* comes back in events */
	__s32 fd;		/* of the real file, a regular one open for reading and writing, not on a stacked file system */
	__u32 pad;
};

struct cfs_gate_open {
	__u32 mode;		/* enum cfs_gate_mode, not CFS_GATE_SHUT */
	__u32 pad;
	__u64 budget;		/* bytes, counted as often as written, beyond which writes wait; 0: none */
};

/* what was written since the last time. Ranges are in order and apart; they may cover a little more than was written */
#define CFS_GATE_RANGES_MAX	128u
struct cfs_gate_range {
	__u64 off, end;
};
struct cfs_gate_taken {
	__u32 n;
	__u32 kill;		/* a writer had no CAP_FSETID: suid, sgid and capabilities end */
	__u64 size;		/* of the real file */
	__u64 mtime;		/* real-time clock, of the last write or first store into a page; 0: none */
	__u64 sync;		/* what CFS_GATE_SYNC asked for, see CFS_GATE_SYNCED */
	struct cfs_gate_range range[CFS_GATE_RANGES_MAX];
};

struct cfs_gate_synced {
	__u64 sync;		/* all up to this `sync` is durable, or failed with err */
	__s32 err;		/* 0 or -errno, for who waits */
	__u32 pad;
};

#define CFS_GATE_IOC		0xc9
/* on the device. Closing it shuts its gates for good: whoever waits, and whoever comes later, gets EIO or SIGBUS */
#define CFS_GATE_ABI		_IOR(CFS_GATE_IOC, 0, __u32)
#define CFS_GATE_NEW		_IOW(CFS_GATE_IOC, 1, struct cfs_gate_new)	/* returns a descriptor: the gate, shut */
/* boot-time clock: from then on all gates let nothing through, mappings included, until it is set again. 0 at first */
#define CFS_GATE_DEADLINE	_IOW(CFS_GATE_IOC, 2, __u64)
/* on the descriptor that CFS_GATE_NEW returned, and only there */
#define CFS_GATE_OPEN		_IOW(CFS_GATE_IOC, 3, struct cfs_gate_open)
#define CFS_GATE_CLOSE		_IOR(CFS_GATE_IOC, 4, struct cfs_gate_taken)	/* returns when nobody is inside */
#define CFS_GATE_TAKE		_IOR(CFS_GATE_IOC, 5, struct cfs_gate_taken)	/* the same, and stays open */
#define CFS_GATE_SYNCED		_IOW(CFS_GATE_IOC, 6, struct cfs_gate_synced)
#define CFS_GATE_FAIL		_IOW(CFS_GATE_IOC, 7, __s32)	/* -errno for who waits now: it cannot be opened */
#define CFS_GATE_MAPPINGS	_IOR(CFS_GATE_IOC, 8, __u32)	/* how many there are; not 0: CFS_GATE_UNMAPPED will come */

#endif
