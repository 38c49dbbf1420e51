// SPDX-License-Identifier: MIT
/*
 * fuse_lock.c - fcntl(2) and flock(2) locks: replicated state of the server under this session. Waiting is locks.c's. A lock
 * is first asked for without waiting, on the worker's own connection: that is the common case.
 */
#include "client/fuse_ops_i.h"
#include "client/locks.h"

#include "base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>

#define OFF_MAX INT64_MAX
#define RELEASE_MS 1000u

static struct cfs_lock_req lock_body(uint64_t ino, uint64_t owner, uint8_t space, uint8_t kind)
{
	return (struct cfs_lock_req){ .ino = cfs_cpu_to_le64(ino), .owner = cfs_cpu_to_le64(owner),
				      .end = cfs_cpu_to_le64(OFF_MAX), .space = space, .kind = kind };
}

static void set_range(struct cfs_lock_req *body, const struct flock *fl)
{
	body->start = cfs_cpu_to_le64((uint64_t)fl->l_start);
	body->end = cfs_cpu_to_le64(fl->l_len ? (uint64_t)(fl->l_start + fl->l_len - 1) : OFF_MAX);
	body->pid = cfs_cpu_to_le32((uint32_t)fl->l_pid);
}

static int ask_lock(struct cfs_op *op, const struct cfs_lock_req *body)
{
	struct cfs_op_req r = { .opcode = CFS_OP_LOCK, .mutating = true, .fixed = body, .fixed_len = sizeof(*body) };

	return cfs_op_call(op, &r);
}

void cfs_op_unlock_all(struct cfs_op *op, uint64_t ino, uint64_t owner, uint8_t space)
{
	struct cfs_lock_req body = lock_body(ino, owner, space, CFS_LOCK_UNLOCK);
	int rc = ask_lock(op, &body);

	if (rc && rc != CFS_E_BADSESSION && rc != ENOENT)
		cfs_warn("inode %llu: locks were not given up at close: %s", (unsigned long long)ino,
			 strerror(cfs_op_errno(rc)));
}

static uint8_t kind_of(int type)
{
	return type == F_RDLCK ? CFS_LOCK_READ : type == F_WRLCK ? CFS_LOCK_WRITE : CFS_LOCK_UNLOCK;
}

/*
 * The kernel does not wait for RELEASE, so a process may be gone while the locks of its open files are still being given up.
 * True: that was the case here, and is over.
 */
static bool await_releases(struct cfs_inode *i)
{
	unsigned n = 0;

	for (unsigned ms = 0; ms < RELEASE_MS; ms++) {
		pthread_mutex_lock(&i->lock);
		n = i->releasing;
		pthread_mutex_unlock(&i->lock);
		if (!n)
			return ms > 0;
		poll(NULL, 0, 1);
	}
	return false;
}

static void take_lock(struct cfs_op *op, struct cfs_inode *i, struct cfs_lock_req *body, bool sleep)
{
	int rc = ask_lock(op, body);

	if (rc == EAGAIN && !sleep && await_releases(i))
		rc = ask_lock(op, body);
	if (rc == EAGAIN && sleep && body->kind != CFS_LOCK_UNLOCK) {
		body->wait = 1;
		op->t->req = NULL;
		cfs_locks_wait(op->c, op->req, body);
		return;
	}
	cfs_op_err(op, cfs_op_errno_stale(rc));
}

void cfs_fuse_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_lock_req body = lock_body(ino, fi->lock_owner, CFS_LOCK_POSIX, kind_of(lock->l_type));
	struct cfs_fh *fh = cfs_op_fh(&op, fi);
	int err = 0;

	if (!fh)
		return;
	set_range(&body, lock);
	if (body.kind != CFS_LOCK_UNLOCK) /* if it fails: only a needless unlock at close */
		err = cfs_inode_owner_add(fh->i, fi->lock_owner, fh, op.c->persist, fh->id);
	if (err)
		cfs_op_err(&op, err);
	else
		take_lock(&op, fh->i, &body, sleep);
}

void cfs_fuse_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int how)
{
	struct cfs_op op = cfs_op_begin(req);
	int type = how & LOCK_SH ? F_RDLCK : how & LOCK_EX ? F_WRLCK : F_UNLCK;
	struct cfs_lock_req body = lock_body(ino, fi->lock_owner, CFS_LOCK_FLOCK, kind_of(type));
	struct cfs_fh *fh = cfs_op_fh(&op, fi);

	if (!fh)
		return;
	body.pid = cfs_cpu_to_le32((uint32_t)fuse_req_ctx(req)->pid);
	take_lock(&op, fh->i, &body, !(how & LOCK_NB));
}

void cfs_fuse_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_lock_req body = lock_body(ino, fi->lock_owner, CFS_LOCK_POSIX, kind_of(lock->l_type)), got;
	struct cfs_op_req r = { .opcode = CFS_OP_GETLK, .fixed = &body, .fixed_len = sizeof(body), .rep = &got,
				.rep_max = sizeof(got) };
	uint64_t end;
	int rc;

	set_range(&body, lock);
	rc = cfs_op_call_want(&op, &r, sizeof(got));
	if (rc) {
		cfs_op_err(&op, cfs_op_errno_stale(rc));
		return;
	}
	memset(lock, 0, sizeof(*lock));
	lock->l_whence = SEEK_SET;
	lock->l_type = got.kind == CFS_LOCK_READ ? F_RDLCK : got.kind == CFS_LOCK_WRITE ? F_WRLCK : F_UNLCK;
	if (lock->l_type != F_UNLCK) {
		end = cfs_le64_to_cpu(got.end);
		lock->l_start = (off_t)cfs_le64_to_cpu(got.start);
		lock->l_len = end >= OFF_MAX ? 0 : (off_t)(end - cfs_le64_to_cpu(got.start) + 1);
		lock->l_pid = (pid_t)cfs_le32_to_cpu(got.pid);
	}
	op.t->req = NULL;
	fuse_reply_lock(req, lock);
}
