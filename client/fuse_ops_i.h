/* SPDX-License-Identifier: MIT */
/*
 * fuse_ops_i.h - private to client/fuse_*.c: what operations share.
 *
 * Every operation runs on a worker, begins with cfs_op_begin(), asks the server by cfs_op_call(), and replies exactly once.
 * What the kernel may keep goes out inside a reply section (client_i.h) after the last check.
 */
#ifndef CFS_CLIENT_FUSE_OPS_I_H
#define CFS_CLIENT_FUSE_OPS_I_H

#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 18)
#include "client/client_i.h"
#include "client/fhtab.h"
#include "client/inode.h"

#include <errno.h>
#include <fuse3/fuse_lowlevel.h>
#include <string.h>

struct cfs_dirbuf;

/* an open file or directory */
struct cfs_fh {
	struct cfs_list link;		/* cfs_client.fhs */
	uint64_t id;			/* fuse_file_info.fh (fhtab.h); 0: the kernel does not have it */
	struct cfs_inode *i;
	int flags;
	bool opened;			/* cfs_data_open() succeeded */
	enum cfs_iomode io;		/* CLOSED: the kernel does not have it */
	struct cfs_dirbuf *dir;		/* of directories */
	struct cfs_fh *next_parked;	/* cfs_inode.parked */
};

static inline struct cfs_fh *cfs_fh_of(struct cfs_client *c, const struct fuse_file_info *fi)
{
	return cfs_fhtab_get(c->fhtab, fi->fh);
}

void cfs_fh_list(struct cfs_client *c, struct cfs_fh *fh);
void cfs_fh_unlist(struct cfs_client *c, struct cfs_fh *fh);
struct cfs_dirbuf *cfs_dirbuf_new(void);
void cfs_dirbuf_free(struct cfs_dirbuf *b);
/* the last close of a directory that lost its name tells the server */
void cfs_dir_close(struct cfs_client *c, struct cfs_fh *fh);
/* the next entry of a READDIR reply, whose cookie must lie behind `after`; name: CFS_NAME_MAX + 1 bytes. false: malformed */
bool cfs_dirent_take(struct cfs_cursor *cur, bool plus, uint64_t after, struct cfs_dirent *de, struct cfs_attr *attr, char *name);

/* one operation */
struct cfs_op {
	struct cfs_client *c;
	struct cfs_thread *t;
	fuse_req_t req;
};

static inline struct cfs_op cfs_op_begin(fuse_req_t req)
{
	struct cfs_client *c = fuse_req_userdata(req);
	struct cfs_op op = { .c = c, .t = cfs_thread_self(c), .req = req };

	op.t->req = req;
	cfs_busy_end_now(op.t);
	return op;
}

/* what a request returned (errno, CFS_E_*, -errno), as the errno that the application gets */
int cfs_op_errno(int rc);
/* the same for a request about an inode number that the kernel remembered: gone means stale */
int cfs_op_errno_stale(int rc);
void cfs_op_err(struct cfs_op *op, int err);
/* the open file that the operation is about; NULL: there is none, and the operation is answered with EBADF */
struct cfs_fh *cfs_op_fh(struct cfs_op *op, const struct fuse_file_info *fi);
/* the same for RELEASE, which may come again when all but the answer was done: then it is answered with 0 */
struct cfs_fh *cfs_op_release_fh(struct cfs_op *op, const struct fuse_file_info *fi);

/*
 * One request of a fixed part and up to three variable ones; the reply body goes to rep, or to the thread's buffer.
 * Returns as cfs_call().
 */
struct cfs_op_req {
	uint16_t opcode;
	bool mutating;
	const void *fixed;
	size_t fixed_len;
	struct iovec more[3];
	void *rep;			/* NULL: the thread's buffer, CFS_BODY_MAX bytes */
	uint32_t rep_max;
	uint32_t rep_len;		/* out */
	uint64_t break_gen;		/* out */
	uint32_t timeout_ms;
};
int cfs_op_call(struct cfs_op *op, struct cfs_op_req *r);
/* the same, and the reply must have at least `want` bytes (when the status is 0), else -EPROTO */
int cfs_op_call_want(struct cfs_op *op, struct cfs_op_req *r, size_t want);

/* how long the kernel may keep what is valid now, and until when that is; 0: not at all */
struct cfs_ttl {
	double seconds;
	uint64_t until_ns;
};
struct cfs_ttl cfs_op_ttl(struct cfs_client *c);

/* the kernel's view of attributes; `attr` is overlaid with what an exclusive holder knows better */
void cfs_op_stat(struct cfs_client *c, struct cfs_attr *attr, struct stat *st);
/* attributes of ino from the cache or the server: 0 or an errno (stale). ret_ttl NULL: not for the kernel */
int cfs_op_getattr(struct cfs_op *op, uint64_t ino, struct cfs_attr *ret_attr);

/*
 * A write or truncation by somebody without CAP_FSETID drops suid, sgid and capabilities, if there are any: told to the
 * server before, so that every mount sees it at once. 0 or errno.
 */
int cfs_op_kill_priv(struct cfs_op *op, uint64_t ino);

/*
 * A change of content, size or times is about to be answered: in a mount that outlives its daemon it must outlive it, too. 0 or
 * an errno, and it may be lost.
 */
int cfs_op_settle(struct cfs_op *op, struct cfs_data *d);

/* inside a section: keep what the reply allows; how long the kernel may keep it */
double cfs_op_keep_attr(struct cfs_client *c, const struct cfs_attr *attr, uint32_t valid, uint64_t since,
			const struct cfs_ttl *ttl);
double cfs_op_keep_name(struct cfs_client *c, uint64_t dir, const char *name, size_t len, uint64_t ino, uint32_t valid,
			uint64_t since, const struct cfs_ttl *ttl);
/* fill in *e for a present inode; keeps attributes */
void cfs_op_entry(struct cfs_client *c, struct cfs_attr *attr, uint32_t valid, uint64_t since, const struct cfs_ttl *ttl,
		  struct fuse_entry_param *e);
/* our own change of attributes of ino was answered: keep the new ones if allowed; returns their ttl in seconds */
double cfs_op_changed_attr(struct cfs_client *c, const struct cfs_attr *attr, uint32_t valid, uint64_t since,
			   const struct cfs_ttl *ttl);
/* our own change of a name was answered (ino 0: it is gone now) */
double cfs_op_changed_name(struct cfs_client *c, uint64_t dir, const char *name, size_t len, uint64_t ino, uint32_t valid,
			   uint64_t since, const struct cfs_ttl *ttl);
/* what a directory's attributes were counts no more; dirattr: what they are now, or NULL */
void cfs_op_changed_dir(struct cfs_client *c, uint64_t dir, const struct cfs_attr *dirattr, uint32_t valid,
			uint64_t since);

/* the length of a name, or 0 and the operation is answered with ENAMETOOLONG */
size_t cfs_op_name_len(struct cfs_op *op, const char *name);

/* MKNODE (create, mknod, mkdir, symlink, tmpfile); name NULL: tmpfile. Returns as cfs_call() */
struct cfs_mk {
	uint64_t dir;
	const char *name;
	size_t len;
	const char *target;		/* of a symlink */
	uint32_t mode, rdev, flags;
	struct cfs_entry_rep rep;	/* out */
	struct cfs_attr dirattr;	/* out: of dir, now; ino 0: it has not changed */
	uint64_t break_gen;		/* out */
};
int cfs_op_mknode(struct cfs_op *op, struct cfs_mk *mk);
/* inside a section: keep the new name and inode, fill in the reply to the kernel */
void cfs_op_made(struct cfs_op *op, struct cfs_mk *mk, struct fuse_entry_param *e);

#define CFS_FUSE_OP(name) void cfs_fuse_##name
CFS_FUSE_OP(lookup)(fuse_req_t req, fuse_ino_t parent, const char *name);
CFS_FUSE_OP(forget)(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup);
CFS_FUSE_OP(forget_multi)(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
CFS_FUSE_OP(readlink)(fuse_req_t req, fuse_ino_t ino);
CFS_FUSE_OP(mknod)(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
CFS_FUSE_OP(mkdir)(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
CFS_FUSE_OP(symlink)(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
CFS_FUSE_OP(unlink)(fuse_req_t req, fuse_ino_t parent, const char *name);
CFS_FUSE_OP(rmdir)(fuse_req_t req, fuse_ino_t parent, const char *name);
CFS_FUSE_OP(rename)(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname,
		    unsigned int flags);
CFS_FUSE_OP(link)(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname);
CFS_FUSE_OP(getattr)(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
CFS_FUSE_OP(setattr)(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi);
CFS_FUSE_OP(statx)(fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi);
CFS_FUSE_OP(statfs)(fuse_req_t req, fuse_ino_t ino);
CFS_FUSE_OP(getxattr)(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
CFS_FUSE_OP(setxattr)(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
CFS_FUSE_OP(listxattr)(fuse_req_t req, fuse_ino_t ino, size_t size);
CFS_FUSE_OP(removexattr)(fuse_req_t req, fuse_ino_t ino, const char *name);
CFS_FUSE_OP(opendir)(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
CFS_FUSE_OP(readdir)(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
CFS_FUSE_OP(readdirplus)(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
CFS_FUSE_OP(releasedir)(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
CFS_FUSE_OP(fsyncdir)(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
CFS_FUSE_OP(open)(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
CFS_FUSE_OP(create)(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
CFS_FUSE_OP(tmpfile)(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi);
CFS_FUSE_OP(read)(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
CFS_FUSE_OP(write)(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi);
CFS_FUSE_OP(flush)(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
CFS_FUSE_OP(release)(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
CFS_FUSE_OP(fsync)(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
CFS_FUSE_OP(fallocate)(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi);
CFS_FUSE_OP(copy_file_range)(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
			     fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags);
CFS_FUSE_OP(lseek)(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
CFS_FUSE_OP(getlk)(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock);
CFS_FUSE_OP(setlk)(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep);
CFS_FUSE_OP(flock)(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op);

/* ---- fuse_pin.c: opening what is being replaced all the time */
/* something that this process asked was answered ESTALE; is a look-up of it the second try? It has opened what it wanted */
void cfs_pin_stale(struct cfs_client *c, uint32_t pid);
bool cfs_pin_wanted(struct cfs_client *c, uint32_t pid);
void cfs_pin_opened(struct cfs_client *c, uint32_t pid);
/* open it on behalf of the process that looks it up: 0 or errno, ESTALE: it is gone */
int cfs_pin(struct cfs_op *op, const struct cfs_attr *attr);
/* open for reading and close again, without the kernel */
int cfs_op_open_for(struct cfs_op *op, const struct cfs_attr *attr, struct cfs_fh **ret_fh);
void cfs_op_close_for(struct cfs_client *c, struct cfs_fh *fh);

/* give up the POSIX or flock locks of an owner; waits for the server */
void cfs_op_unlock_all(struct cfs_op *op, uint64_t ino, uint64_t owner, uint8_t space);

#endif
