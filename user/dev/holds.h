/* SPDX-License-Identifier: MIT */
/* holds.h - does a device hold anything that somebody may miss? Asked before a format. */
#ifndef CFS_DEV_HOLDS_H
#define CFS_DEV_HOLDS_H

#include "dev/dev.h"

/**
 * cfs_dev_holds() - look for a target, file systems, partition tables, zones in use, any bytes that are not zeros.
 * @what: one line that names what was found
 * Blocking. Return: 1 something, 0 nothing, or -errno when it could not be read.
 */
int cfs_dev_holds(struct cfs_dev *dev, char *what, size_t whatlen);

#endif
