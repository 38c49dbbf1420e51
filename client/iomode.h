/* SPDX-License-Identifier: MIT */
/*
 * iomode.h - how the open files of one inode reach its bytes: by requests (direct), by the kernel's page cache (cached), or
 * by a backing file that the kernel reads and writes itself (passthrough). Pure; the owner holds the inode's lock.
 *
 * The kernel's rules (fs/fuse/iomode.c, Linux 6.9): cached and passthrough exclude each other while any file is open, an open
 * that breaks this ends in EIO; how a file was opened never changes while it is open. Ours on top: an inode enters
 * passthrough by its very first open file, as a mapping of pages made before would lose its mmap, and leaves it with its last.
 *
 *   CLOSED -> DIRECT, CACHED, PASSTHROUGH     the first open file
 *   DIRECT <-> CACHED                         with the first and the last cached file, while others are open
 *   any -> CLOSED                             the last close
 */
#ifndef CFS_CLIENT_IOMODE_H
#define CFS_CLIENT_IOMODE_H

#include <stdint.h>

enum cfs_iomode { CFS_IO_CLOSED = 0, CFS_IO_DIRECT, CFS_IO_CACHED, CFS_IO_PASSTHROUGH, CFS_IO_MODES };

struct cfs_iostate {
	uint8_t mode;			/* enum cfs_iomode */
	uint32_t n[CFS_IO_MODES];	/* open files, by how they were opened */
};

/* a file is opened, and would like to be `want`: what it must be. Counted from here on */
enum cfs_iomode cfs_iostate_open(struct cfs_iostate *s, enum cfs_iomode want);
/* a file that was opened like that is closed */
void cfs_iostate_close(struct cfs_iostate *s, enum cfs_iomode mode);

#endif
