/* SPDX-License-Identifier: MIT */
/*
 * fhtab.h - the numbers by which the kernel knows open files and directories (fuse_file_info.fh).
 *
 * Not pointers: a number is checked before it is used, and means the same to the process that takes a mount over (persist.h). It
 * is the place in a table, and how often that place was given away before; never 0. Thread-safe; looking up takes no lock.
 */
#ifndef CFS_CLIENT_FHTAB_H
#define CFS_CLIENT_FHTAB_H

#include <stdbool.h>
#include <stdint.h>

#define CFS_FHS_MAX	(1u << 20)	/* open at once; more get ENFILE */

struct cfs_fh;
struct cfs_fhtab;

int cfs_fhtab_create(struct cfs_fhtab **ret_t);
/* numbers of places that are first used from now on: so that they differ from those that another process gave, and took back */
void cfs_fhtab_set_life(struct cfs_fhtab *t, uint32_t life);
void cfs_fhtab_destroy(struct cfs_fhtab *t);
/* a number for fh, which must live until cfs_fhtab_del(); 0: no room */
uint64_t cfs_fhtab_add(struct cfs_fhtab *t, struct cfs_fh *fh);
/* a number that was given by another process, before any is given here. false: it cannot be one, or is taken */
bool cfs_fhtab_restore(struct cfs_fhtab *t, uint64_t id, struct cfs_fh *fh);
/* NULL: nothing open has this number */
struct cfs_fh *cfs_fhtab_get(struct cfs_fhtab *t, uint64_t id);
void cfs_fhtab_del(struct cfs_fhtab *t, uint64_t id);

static inline uint32_t cfs_fhtab_place(uint64_t id)
{
	return (uint32_t)id - 1;
}

#endif
