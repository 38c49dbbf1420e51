/* SPDX-License-Identifier: MIT */
/*
 * nvme.h - NVMe namespaces: finding them, their stable names, what they say of themselves, opening one.
 *
 * A namespace is driven through its generic character device (/dev/ngXnY) with NVMe commands of our own
 * (IORING_OP_URING_CMD, Linux 5.19; the loop must be wide). The kernel's numbers X and Y change from start
 * to start; a name that stays is made from what the namespace itself tells:
 *
 *   nvme:eui.0123456789abcdef        EUI-64
 *   nvme:nguid.<32 hex digits>       namespace GUID
 *   nvme:serial.<SERIAL>.<NSID>      neither was given: the controller's serial number and the namespace id
 */
#ifndef CFS_DEV_NVME_H
#define CFS_DEV_NVME_H

#include "dev/dev.h"

#define CFS_NVME_NAME_MAX	96u
#define CFS_NVME_SCAN_MAX	256u	/* namespaces of a machine that are looked at */

#define CFS_NVME_NO_TEMPERATURE (-273)

struct cfs_nvme_health {
	bool known;
	uint8_t critical_warning;	/* bits of the SMART log; 0: none */
	uint8_t spare_percent, used_percent;	/* used: may go beyond 100 */
	int temperature_c;	/* CFS_NVME_NO_TEMPERATURE: not told */
	uint64_t media_errors, power_cycles, unsafe_shutdowns, power_on_hours;
	uint64_t written_bytes;
};

/* one namespace */
struct cfs_nvme_ns {
	char name[CFS_NVME_NAME_MAX];	/* nvme:... */
	char generic[32], block[32];	/* /dev/ng0n1, /dev/nvme0n1; block may be "" */
	char transport[16];		/* the kernel's word: pcie, tcp, rdma, fc, loop; "": not known */
	char model[64], serial[24], firmware[12];
	uint32_t nsid;
	uint64_t size_bytes, used_bytes;
	uint32_t block_bytes;
	uint32_t max_io;		/* bytes of one command; 0: no limit */
	uint32_t atomic_unit;		/* bytes */
	bool volatile_cache;		/* a cache that forgets when power fails; none: writes are safe at once */
	bool zoned;
	uint64_t zone_bytes;
	uint32_t n_zones, max_active, max_open;
	uint32_t formats[16];		/* sizes of the block formats it supports; 0 ends */
	bool usable;			/* else `why` */
	char why[80];
	struct cfs_nvme_health health;
};

/**
 * cfs_nvme_scan() - the namespaces of this machine, in the order of their names.
 * Return: how many, or -errno. The array is the caller's to free.
 */
int cfs_nvme_scan(struct cfs_nvme_ns **ret_ns);

/**
 * cfs_nvme_identify() - one namespace, by generic or block device node, or nvme: name.
 * Return: 0; -ENODEV there is none of this name; -ENOTTY not an NVMe namespace; -errno
 */
int cfs_nvme_identify(const char *path, struct cfs_nvme_ns *ret_ns);

/* how commands reach the drive; for cfs_dev_nvme_open() beside CFS_DEV_F_READONLY */
#define CFS_NVME_IOPOLL	0x100u	/* completions are polled for, on a ring of its own: costs a core while busy; the
				 * drive's driver must have polling queues (nvme.poll_queues) */
#define CFS_NVME_SQPOLL	0x200u	/* a kernel thread takes submissions, on a ring of its own */

/**
 * cfs_dev_nvme_open() - as cfs_dev_block_open(), for a name that cfs_nvme_identify() takes.
 * Holds the namespace's block device exclusively, so that nobody mounts it meanwhile.
 * Return: 0; -EBUSY in use; -EOPNOTSUPP the kernel or the namespace's format cannot be used (a line was
 * logged that says why); -ENOLCK IOPOLL is asked for, and there are no polling queues; -ENODEV; -errno
 */
int cfs_dev_nvme_open(struct cfs_loop *loop, const char *path, uint32_t flags, struct cfs_dev **ret_dev);

#endif
