/* SPDX-License-Identifier: MIT */
/* file.h - what is asked of the file system that our own files lie on. */
#ifndef CFS_BASE_FILE_H
#define CFS_BASE_FILE_H

/**
 * cfs_file_nocow() - have an empty file, or what will be made in a directory, overwritten in place.
 *
 * btrfs copies on write, so that even an overwrite of what was allocated may find no room; our own checksums stand
 * in for those that it then no longer makes. File systems that do not copy on write refuse the flag, which is fine.
 * Source: chattr(1), attribute C; ioctl_iflags(2).
 */
void cfs_file_nocow(int fd);

#endif
