/* SPDX-License-Identifier: MIT */
/*
 * inode.h - inodes that this mount has open: what must be known of them beyond their data.
 *
 * An entry lives while it is referenced: by open files and directories, or a call that looks at it. Thread-safe; a
 * leaf lock per inode, taken inside the functions here and by `lock` holders below.
 */
#ifndef CFS_CLIENT_INODE_H
#define CFS_CLIENT_INODE_H

#include "client/client_i.h"
#include "client/iomode.h"

#define CFS_LOCK_OWNERS_MAX 4096u	/* of POSIX locks on one inode; more get ENOLCK */

/* who has (perhaps) POSIX locks, and by which open file he got them */
struct cfs_lock_owner {
	uint64_t owner;
	const void *fh;
	uint32_t record;		/* persist.h; 0: none */
};

struct cfs_inode {
	struct cfs_inode *next;
	uint64_t ino;
	unsigned refs;			/* under the shard's lock */
	pthread_mutex_t lock;
	struct cfs_data *data;		/* of a regular file, once opened; lives as long as this */
	unsigned n_open;		/* file handles */
	struct cfs_iostate io;		/* those that the kernel has, and */
	struct cfs_fh *parked;		/* those that it has released, but which still count, as the file is mapped */
	bool inherited;			/* opened by the process before (takeover.h): it may have lost its names since */
	bool only_ours;			/* atomic: made here, and never opened by another session */
	bool orphan;			/* no name any more, kept by us: RELEASE at last close */
	bool told;			/* told_mtime means something */
	struct cfs_time told_mtime;	/* what the kernel was last told */
	uint64_t kernel_size, size_gen;	/* the kernel's is not less (notify.h); raised when that gets less */
	bool attr_set;
	struct cfs_attr attr;		/* of an open directory: for fstat after it was removed */
	unsigned releasing;		/* open files with locks that are being released just now */
	unsigned n_owners, cap_owners;
	struct cfs_lock_owner *owners;
};

int cfs_inodes_create(struct cfs_client *c, struct cfs_inodes **ret_t);
void cfs_inodes_destroy(struct cfs_inodes *t);
/* find or make; NULL: no memory */
struct cfs_inode *cfs_inode_get(struct cfs_client *c, uint64_t ino);
struct cfs_inode *cfs_inode_find(struct cfs_client *c, uint64_t ino);
void cfs_inode_put(struct cfs_client *c, struct cfs_inode *i);
/* is it open? */
bool cfs_inode_is_open(struct cfs_client *c, uint64_t ino);
/* an unlinked inode stays while it is open: remember to RELEASE it. false: it is not open */
bool cfs_inode_set_orphan(struct cfs_client *c, uint64_t ino);
/* these attributes were sent to the kernel */
void cfs_inode_told(struct cfs_client *c, const struct cfs_attr *attr);
/* the kernel may take this for the size from now on */
void cfs_inode_told_size(struct cfs_inode *i, uint64_t size);
/*
 * Inodes but regular files that were removed a moment ago: some process may still be in a directory, or have a fifo or
 * device open, which the kernel does not tell us. Their attributes live on here. Bounded; the oldest is forgotten.
 */
void cfs_removed_add(struct cfs_client *c, const struct cfs_attr *attr);
void cfs_removed_change(struct cfs_client *c, const struct cfs_attr *attr);
bool cfs_removed_find(struct cfs_client *c, uint64_t ino, struct cfs_attr *ret_attr);

/* every inode that is open */
void cfs_inodes_walk(struct cfs_client *c, void (*fn)(void *arg, uint64_t ino), void *arg);

/*
 * A POSIX lock is about to be taken: 0 or ENOLCK. And: has this owner perhaps one? Then it counts as gone from now on. The
 * kernel says when a process closes a file (its owner), but not when an open file with OFD locks ends: that is told by fh.
 */
int cfs_inode_owner_add(struct cfs_inode *i, uint64_t owner, const void *fh, struct cfs_persist *p, uint64_t fh_id);
/* *ret_taken: to be given to cfs_inode_owner_gone() when his locks are; that may be NULL where nobody would take over */
struct cfs_lock_owners {
	struct cfs_lock_owner *v;
	unsigned n;
};
bool cfs_inode_owner_take(struct cfs_inode *i, uint64_t owner, struct cfs_lock_owners *ret_taken);
void cfs_inode_owner_gone(struct cfs_persist *p, struct cfs_lock_owners *taken);
/* as the process before had it. 0 or ENOLCK */
int cfs_inode_owner_restore(struct cfs_inode *i, const struct cfs_lock_owner *owner);
/* some owner that got a lock by this open file, or false */
bool cfs_inode_owner_of_fh(struct cfs_inode *i, const void *fh, uint64_t *ret_owner);

#endif
