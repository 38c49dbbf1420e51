/* SPDX-License-Identifier: MIT */
/*
 * pass.h - files whose bytes the kernel reads and writes itself: the passthrough tier (docs/passthrough.md says which files
 * can be, and why no others).
 *
 * A struct cfs_pass is the backing file of one inode: a nameless file in the cache directory, and the number by which the
 * kernel knows it. It belongs to the inode's cfs_data, is made before anybody knows the inode, and lives as long. Its
 * functions are thread-safe but for those that say so; the kernel changes the file at any time.
 */
#ifndef CFS_CLIENT_PASS_H
#define CFS_CLIENT_PASS_H

#include <claudefs/wire.h>
#include <stdbool.h>
#include <stdint.h>

#define CFS_PASS_FILES_MAX	4096u	/* scratch files open at once on a mount, and as many others; further ones are plain */

struct cfs_client;
struct cfs_pass;

/* a file of the cache directory, or a gate over one: known to the kernel from now on. 0 or -errno */
int cfs_pass_register(struct cfs_client *c, int fd, uint32_t *ret_id);
void cfs_pass_unregister(struct cfs_client *c, uint32_t id);
int cfs_pass_file_open(struct cfs_client *c);	/* a nameless file of the cache directory: its descriptor or -errno */
/* is there room in the cache directory for more of what cannot leave it? */
bool cfs_pass_has_room(struct cfs_client *c);

/* counters of a mount, atomic */
struct cfs_pass_stats {
	uint64_t files, opens;		/* so far */
	uint64_t open_files;		/* just now */
	uint64_t no_room, failed;	/* were plain because the cache's disk is nearly full, because something did not work */
};

/*
 * Can a new file be a passthrough file? flags: of its open(2); tmpfile: it was made without a name.
 */
bool cfs_pass_fits(struct cfs_client *c, int flags, bool tmpfile);
/* NULL: it cannot be, counted */
struct cfs_pass *cfs_pass_new(struct cfs_client *c);
void cfs_pass_free(struct cfs_pass *p);
/* for the answer to an open; counts it */
int32_t cfs_pass_id(struct cfs_pass *p);

/* as their counterparts in data.h and system calls: bytes or 0, or -errno */
int64_t cfs_pass_read(struct cfs_pass *p, void *buf, uint64_t size, uint64_t off);
int64_t cfs_pass_write(struct cfs_pass *p, const void *buf, uint64_t size, uint64_t off);
int cfs_pass_truncate(struct cfs_pass *p, uint64_t size);
int cfs_pass_fallocate(struct cfs_pass *p, int mode, uint64_t off, uint64_t len);
int64_t cfs_pass_seek(struct cfs_pass *p, uint64_t off, int whence);

/* size, times and blocks on top of the server's attributes. Callers serialise these two */
void cfs_pass_attr(struct cfs_pass *p, struct cfs_attr *attr);
void cfs_pass_set_mtime(struct cfs_pass *p, const struct cfs_time *mtime);

#endif
