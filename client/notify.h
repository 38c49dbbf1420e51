/* SPDX-License-Identifier: MIT */
/*
 * notify.h - telling the kernel to forget. Only for threads that serve no FUSE request.
 *
 * Attributes and epochs take no lock in the kernel; pages wait for page locks, that is, for READs and WRITEs that are being
 * served; a name waits for its directory's lock, which a mutation of this mount in that directory holds while it
 * waits for the server, which may be waiting for us. So names are sent by threads of their own: when the directory is
 * known to be busy, or the kernel has not taken the name after a moment, the epoch is raised instead, which
 * makes it ask again for every name. Kernels without epochs (before 6.16) get the name late in that case.
 */
#ifndef CFS_CLIENT_NOTIFY_H
#define CFS_CLIENT_NOTIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cfs_attr;
struct cfs_client;
struct cfs_notify;

/*
 * What the kernel has. An invalidation makes it throw away the answer to a GETATTR that is on its way, and go on with the
 * size that it had before; so none is sent for what it cannot have. Both are noted before the reply, by hash: now and then
 * it is told to forget something needlessly.
 */
void cfs_kernel_has_attr(struct cfs_client *c, const struct cfs_attr *attr, uint64_t until_ns);
void cfs_kernel_has_pages(struct cfs_client *c, uint64_t ino);
/* it may have anything, until then: another process told it (takeover.h) */
void cfs_kernel_has_all(struct cfs_client *c, uint64_t until_ns);

/* until when the kernel may keep names of a directory, of which the daemon gave it none after until_ns; or attributes under it */
uint64_t cfs_kernel_names_until(struct cfs_client *c, uint64_t dir, uint64_t until_ns);
uint64_t cfs_kernel_attrs_until(struct cfs_client *c, uint64_t dir);

int cfs_notify_create(struct cfs_client *c, struct cfs_notify **ret_n);
void cfs_notify_destroy(struct cfs_notify *n);

void cfs_notify_entry(struct cfs_client *c, uint64_t dir, const char *name, size_t len);
/* all names at once. false: the kernel cannot */
bool cfs_notify_epoch(struct cfs_client *c);
void cfs_notify_attr(struct cfs_client *c, uint64_t ino);
/*
 * The file has at least this size. Answers to GETATTR do not tell that for sure: the kernel throws them away when anything of the
 * inode was invalidated while it waited, and then reads with the size it had, that is, not what others have appended.
 * May wait for the lock of the page at `size`; any thread that holds up no READ or WRITE may call it.
 */
void cfs_notify_grown(struct cfs_client *c, uint64_t ino, uint64_t size);
/* [off, off+len), len 0: to the end */
void cfs_notify_pages(struct cfs_client *c, uint64_t ino, int64_t off, int64_t len);
/* the same from a thread that serves a request: done later */
void cfs_notify_pages_later(struct cfs_client *c, uint64_t ino);

#endif
