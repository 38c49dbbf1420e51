/* SPDX-License-Identifier: MIT */
/*
 * leasecheck.h - "did a break come in between?" for grants that replies carry (docs/leases.md, "What the
 * client must do"). The client core owns the counter break_gen and the ring of the last breaks; names, attributes
 * and file data ask it here. Thread-safe, never blocks, takes no lock of its callers.
 */
#ifndef CFS_CLIENT_LEASECHECK_H
#define CFS_CLIENT_LEASECHECK_H

#include <stdbool.h>
#include <stdint.h>

struct cfs_client;

/*
 * True if a break of this inode (or directory) was recorded after break_gen, the value that cfs_call() noted before
 * it sent the request; also if that is too long ago to tell. The break handler records an item *before* it
 * calls cfs_data_break(), so that who asks under his own lock either sees the break or is seen by it.
 */
bool cfs_lease_touched(struct cfs_client *c, uint64_t ino, uint64_t break_gen);

/* records one, as a break does: for leases that the client gives back by itself */
void cfs_lease_touch(struct cfs_client *c, uint64_t ino);

#endif
