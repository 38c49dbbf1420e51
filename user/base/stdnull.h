/* SPDX-License-Identifier: MIT */
/* stdnull.h - a process that nobody reads from, or writes to. */
#ifndef CFS_BASE_STDNULL_H
#define CFS_BASE_STDNULL_H

/** cfs_stdnull() - /dev/null in the place of the standard descriptors 0 to @last (1 where messages still go to stderr, or 2); best effort */
void cfs_stdnull(int last);

#endif
