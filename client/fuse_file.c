// SPDX-License-Identifier: MIT
/*
 * fuse_file.c - open files: open, create, tmpfile, read, write, flush, release, fsync, fallocate, copy, seek. What is
 * inside files is the data path's business (data.h).
 *
 * Pages stay in the kernel over close and open (keep_cache): the data path drops them when the lease goes. Files opened for
 * appending bypass them: the kernel chooses the offset from the size it believes in, and would keep the written
 * page there. FICLONE never comes here, the kernel refuses it for FUSE; cp(1) uses copy_file_range(2) then.
 */
#include "client/fuse_fh.h"
#include "client/fuse_ops_i.h"
#include "client/notify.h"
#include "client/pass.h"
#include "client/persist.h"
#include "client/takeover.h"

#include "base/log.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>

#define LIVE_RETRIES 3

/* ---- opening ------------------------------------------------------------------------------ */
static int fh_new(struct cfs_op *op, const struct cfs_attr *attr, int flags, struct cfs_fh **ret_fh)
{
	struct cfs_fh *fh = calloc(1, sizeof(*fh));

	if (!fh)
		return ENOMEM;
	fh->flags = flags;
	fh->i = cfs_inode_get(op->c, cfs_attr_ino(attr));
	if (!fh->i) {
		free(fh);
		return ENOMEM;
	}
	pthread_mutex_lock(&fh->i->lock);
	if (!fh->i->data)
		fh->i->data = cfs_data_get(op->c, attr);
	fh->i->n_open += fh->i->data != NULL;
	pthread_mutex_unlock(&fh->i->lock);
	if (!fh->i->data) {
		cfs_inode_put(op->c, fh->i);
		free(fh);
		return ENOMEM;
	}
	cfs_fh_list(op->c, fh);
	*ret_fh = fh;
	return 0;
}

/* the last close of an orphan tells the server */
static void fh_free(struct cfs_client *c, struct cfs_fh *fh)
{
	struct cfs_inode *i = fh->i;
	bool release, ask;
	cfs_victim_begin(c, i->ino); /* who opens it just now waits until it is known what becomes of it */
	pthread_mutex_lock(&i->lock);
	CFS_ASSERT(i->n_open > 0);
	if (fh->io != CFS_IO_CLOSED)
		cfs_iostate_close(&i->io, fh->io);
	if (i->io.mode == CFS_IO_CLOSED)
		cfs_data_gate_end(i->data);
	release = !--i->n_open && i->orphan;
	if (release)
		i->orphan = false;
	ask = !i->n_open && i->inherited && !release;
	pthread_mutex_unlock(&i->lock);
	if (release)
		cfs_op_release_orphan(c, i->ino, __atomic_load_n(&i->only_ours, __ATOMIC_SEQ_CST));
	cfs_victim_end(c, i->ino);
	if (ask)
		cfs_orphan_inherited(c, i->ino);
	if (fh->id) {
		cfs_persist_fh_del(c->persist, fh->id);
		cfs_fhtab_del(c->fhtab, fh->id);
	}
	cfs_fh_unlist(c, fh);
	cfs_inode_put(c, i);
	free(fh);
}

/* ---- the list of what is open ---------------------------------------------------------------- */
void cfs_fh_list(struct cfs_client *c, struct cfs_fh *fh)
{
	pthread_mutex_lock(&c->fhs_lock);
	cfs_list_add_tail(&c->fhs, &fh->link);
	pthread_mutex_unlock(&c->fhs_lock);
}

void cfs_fh_unlist(struct cfs_client *c, struct cfs_fh *fh)
{
	pthread_mutex_lock(&c->fhs_lock);
	cfs_list_del(&fh->link);
	pthread_mutex_unlock(&c->fhs_lock);
}

static void drop_fh(struct cfs_client *c, struct cfs_fh *fh)
{
	if (fh->dir) {
		cfs_dir_close(c, fh);
		return;
	}
	if (fh->opened)
		cfs_data_release(fh->i->data, fh->flags);
	fh_free(c, fh);
}

/* RELEASEs that were still queued when the file system was unmounted never come */
void cfs_fh_drop_all(struct cfs_client *c)
{
	cfs_pins_drop(c);
	while (!cfs_list_empty(&c->fhs)) {
		struct cfs_fh *fh = cfs_list_first(&c->fhs, struct cfs_fh, link);

		fh->i->inherited = false;	/* the session's end looks after files without names */
		drop_fh(c, fh);
	}
}

/* ---- what another process opened --------------------------------------------------------------- */
static int restore_fh(struct cfs_client *c, const struct cfs_pst_fh *r, uint64_t id)
{
	struct cfs_attr attr = { .ino = cfs_cpu_to_le64(r->ino) };
	struct cfs_fh *fh = calloc(1, sizeof(*fh));

	if (!fh)
		return -ENOMEM;
	fh->id = id;
	fh->flags = (int)r->flags;
	fh->i = cfs_inode_get(c, r->ino);
	if (r->kind == CFS_PST_DIR)
		fh->dir = cfs_dirbuf_new();
	else if (fh->i && !fh->i->data)
		fh->i->data = cfs_data_get(c, &attr);
	if (!fh->i || (r->kind == CFS_PST_DIR ? !fh->dir : !fh->i->data) || !cfs_fhtab_restore(c->fhtab, id, fh)) {
		cfs_inode_put(c, fh->i);
		cfs_dirbuf_free(fh->dir);
		free(fh);
		return -ENOMEM;
	}
	fh->i->n_open++;
	fh->i->inherited = true;
	if (r->kind == CFS_PST_FILE) {
		fh->io = cfs_iostate_open(&fh->i->io, (enum cfs_iomode)r->io);
		fh->opened = true;
		cfs_data_open_inherited(fh->i->data);
	}
	cfs_fh_list(c, fh);
	if (r->state == CFS_PST_FH_OFFERED)
		cfs_takeover_offered(c->takeover, id, r->unique);
	return 0;
}

static int restore_owners(struct cfs_client *c)
{
	struct cfs_persist *p = c->persist;
	int rc = 0;

	for (uint32_t i = 0; i < CFS_PST_OWNERS && !rc; i++) {
		struct cfs_fh *fh = p->owners[i].fh ? cfs_fhtab_get(c->fhtab, p->owners[i].fh) : NULL;
		struct cfs_lock_owner o = { p->owners[i].owner, fh, i + 1 };

		if (fh)
			rc = -cfs_inode_owner_restore(fh->i, &o);
		else if (p->owners[i].fh)	/* closed; the record was just to be deleted */
			cfs_persist_owner_del(p, i + 1);
	}
	return rc;
}

int cfs_fh_restore_all(struct cfs_client *c)
{
	struct cfs_persist *p = c->persist;
	unsigned n = 0;
	int rc = 0;

	for (uint32_t at = 0; at < p->head->fhs_top && !rc; at++) {
		const struct cfs_pst_fh *r = &p->fhs[at];

		if (r->state == CFS_PST_FH_FREE)
			continue;
		if (r->state > CFS_PST_FH_OPEN || r->kind > CFS_PST_DIR || !r->ino ||
		    (r->kind == CFS_PST_FILE && r->io != CFS_IO_DIRECT && r->io != CFS_IO_CACHED)) {
			cfs_err("open file %u of the process before makes no sense", at);
			return -EPROTO;
		}
		rc = restore_fh(c, r, cfs_persist_fh_id(p, at));
		n++;
	}
	if (!rc)
		rc = restore_owners(c);
	cfs_info("%u open files and directories are inherited", n);
	return rc;
}

void cfs_fh_refused(struct cfs_client *c, uint64_t unique)
{
	uint64_t id = cfs_takeover_refused(c->takeover, unique);
	struct cfs_fh *fh = id ? cfs_fhtab_get(c->fhtab, id) : NULL;

	if (fh)
		drop_fh(c, fh);
}

/* ---- opening, continued ------------------------------------------------------------------------ */
static void offer(struct cfs_client *c, const struct cfs_fh *fh)
{
	cfs_persist_fh_offer(c->persist, fh->id, &(struct cfs_pst_fh){
		.ino = fh->i->ino, .flags = (uint32_t)fh->flags, .kind = CFS_PST_FILE, .io = (uint8_t)fh->io,
		.unique = cfs_thread_unique(cfs_thread_self(c)) });
}

/* written through for now, and this open file can neither be read nor mapped: pages would only have to be dropped each time */
static bool no_use_for_pages(struct cfs_fh *fh, const struct fuse_file_info *fi)
{
	return (fi->flags & O_ACCMODE) == O_WRONLY && cfs_data_is_contended(fh->i->data);
}

/* inode's lock held: the backing file of a file that is being opened, or 0 */
static int32_t backing(struct cfs_fh *fh, const struct fuse_file_info *fi, const struct cfs_attr *attr)
{
	struct cfs_pass *pass = cfs_data_pass(fh->i->data);

	if (pass)	/* from its birth */
		return cfs_pass_id(pass);
	if (fh->i->io.mode == CFS_IO_PASSTHROUGH)
		return cfs_data_gate_id(fh->i->data);
	return fh->i->io.mode == CFS_IO_CLOSED ? cfs_data_gate_begin(fh->i->data, fi->flags, attr) : 0;
}

/* attr: of the file, or of what it was just before. False: too many are open */
static bool fill_open(struct cfs_client *c, struct cfs_fh *fh, struct fuse_file_info *fi, const struct cfs_attr *attr)
{
	enum cfs_iomode want = c->o.cache_none || (fi->flags & O_APPEND) || no_use_for_pages(fh, fi) ? CFS_IO_DIRECT :
			       CFS_IO_CACHED;
	int32_t id;

	fh->opened = true;
	fh->id = fi->fh = cfs_fhtab_add(c->fhtab, fh);
	if (!fh->id)
		return false;
	pthread_mutex_lock(&fh->i->lock);
	id = backing(fh, fi, attr);
	if (id)
		want = CFS_IO_PASSTHROUGH;
	fh->io = cfs_iostate_open(&fh->i->io, want);
	pthread_mutex_unlock(&fh->i->lock);
	CFS_ASSERT(fh->io == want);	/* there is a backing file from the first open file on, or none */
	if (id)
		fi->backing_id = id;
	fi->direct_io = want == CFS_IO_DIRECT;
	/* else the kernel would drop the pages that others have open, too; with a backing file it takes no such word */
	fi->keep_cache = want != CFS_IO_PASSTHROUGH && !c->o.cache_none && !cfs_data_inherited(fh->i->data);
	offer(c, fh);
	return true;
}

/* the kernel will not: it was not told, or did not want to hear */
static void close_again(struct cfs_client *c, struct cfs_fh *fh)
{
	cfs_data_release(fh->i->data, fh->flags);
	fh_free(c, fh);
}

static int open_data(struct cfs_op *op, struct cfs_fh *fh, struct fuse_file_info *fi)
{
	struct cfs_client *c = op->c;
	struct cfs_attr attr = { .ino = 0 };
	int rc = cfs_data_open(fh->i->data, fi->flags);

	if (rc || !(fi->flags & O_TRUNC))
		return rc;
	if (fi->kill_suidgid)
		rc = -cfs_op_kill_priv(op, fh->i->ino);
	if (!rc)
		rc = cfs_data_setsize(fh->i->data, 0, false, &attr);
	if (!rc)
		rc = -cfs_op_settle(op, fh->i->data);
	if (rc)
		cfs_data_release(fh->i->data, fi->flags);
	if (attr.ino) {
		cfs_client_note(c, CFS_BRK_ATTR, 0, fh->i->ino, NULL, 0);
		cfs_dcache_drop_attr(c->dcache, fh->i->ino);
	}
	return rc;
}

int cfs_op_open_for(struct cfs_op *op, const struct cfs_attr *attr, struct cfs_fh **ret_fh)
{
	struct cfs_fh *fh = NULL;
	int err = fh_new(op, attr, O_RDONLY, &fh);

	if (err)
		return err;
	cfs_victim_wait(op->c, fh->i->ino);
	err = cfs_op_errno_stale(cfs_data_open(fh->i->data, O_RDONLY));
	if (err) {
		fh_free(op->c, fh);
		return err == ENOENT ? ESTALE : err;
	}
	fh->opened = true;
	*ret_fh = fh;
	return 0;
}

void cfs_op_close_for(struct cfs_client *c, struct cfs_fh *fh)
{
	close_again(c, fh);
}

void cfs_fuse_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);
	uint32_t pid = (uint32_t)fuse_req_ctx(req)->pid;
	struct cfs_fh *fh = NULL;
	struct cfs_attr attr;
	int err = cfs_op_getattr(&op, ino, &attr);

	if (!err && !S_ISREG(cfs_le32_to_cpu(attr.mode)))
		err = ENXIO; /* fifos, sockets and devices are opened by the kernel itself */
	if (!err)
		err = fh_new(&op, &attr, fi->flags, &fh);
	if (!err) {
		cfs_victim_wait(op.c, ino);
		err = cfs_op_errno(open_data(&op, fh, fi));
		err = err == ENOENT ? ESTALE : err;
	}
	if (err) {
		cfs_debug("open of inode %llx fails: %d", (unsigned long long)ino, err);
		cfs_op_err(&op, err);
		if (fh)
			fh_free(op.c, fh);
		return;
	}
	if (!fill_open(op.c, fh, fi, &attr)) {
		cfs_op_err(&op, ENFILE);
		close_again(op.c, fh);
		return;
	}
	if (fi->flags & O_TRUNC)
		cfs_inode_told_size(fh->i, 0);
	cfs_debug("opened inode %llx", (unsigned long long)ino);
	cfs_pin_opened(op.c, pid);	/* before the reply: after it the process may already need another */
	op.t->req = NULL;
	if (fuse_reply_open(req, fi)) /* interrupted: no RELEASE will come */
		close_again(op.c, fh);
	else
		cfs_persist_fh_opened(op.c->persist, fi->fh);
}

/* a file that was just made, with the lease that came along */
static int open_made(struct cfs_op *op, struct cfs_mk *mk, struct fuse_file_info *fi, struct cfs_fh **ret_fh)
{
	struct cfs_fh *fh;
	int err = fh_new(op, &mk->rep.attr, fi->flags, &fh);

	if (err)
		return err;
	cfs_data_granted(fh->i->data, &mk->rep.attr, cfs_le32_to_cpu(mk->rep.lease), mk->break_gen, NULL, 0);
	err = cfs_op_errno(cfs_data_open(fh->i->data, fi->flags & ~O_TRUNC));
	if (err) {
		fh_free(op->c, fh);
		return err;
	}
	if (cfs_le32_to_cpu(mk->rep.lease) == CFS_LEASE_EXCL) {
		__atomic_store_n(&fh->i->only_ours, true, __ATOMIC_SEQ_CST);
		if (cfs_client_broken_since(op->c, fh->i->ino, mk->break_gen))
			__atomic_store_n(&fh->i->only_ours, false, __ATOMIC_SEQ_CST);
	}
	if (mk->flags & CFS_MK_TMPFILE) {
		pthread_mutex_lock(&fh->i->lock);
		fh->i->orphan = true;
		pthread_mutex_unlock(&fh->i->lock);
	}
	if (cfs_pass_fits(op->c, fi->flags, mk->flags & CFS_MK_TMPFILE)) {
		struct cfs_pass *pass = cfs_pass_new(op->c);

		if (pass)
			cfs_data_give_pass(fh->i->data, pass);
	}
	*ret_fh = fh;
	return 0;
}

/*
 * The kernel sends CREATE when it believes that the name is absent, and takes the caller for entitled to the new file. So
 * one that is there already must not be opened here: ESTALE makes the kernel look it up and check permissions.
 */
static int create_exists(struct cfs_op *op, struct cfs_mk *mk, int flags)
{
	struct cfs_lookup_req body = { .dir = cfs_cpu_to_le64(mk->dir), .name_len = cfs_cpu_to_le32((uint32_t)mk->len) };
	struct cfs_op_req r = { .opcode = CFS_OP_LOOKUP, .fixed = &body, .fixed_len = sizeof(body),
				.more = { { (void *)(uintptr_t)mk->name, mk->len } } };
	int rc = EEXIST;

	if (flags & O_EXCL)
		return EEXIST;
	for (unsigned tries = 0; rc == EEXIST && tries < 16; tries++) {
		rc = cfs_op_call(op, &r);
		if (!rc)
			return ESTALE;
		if (rc == ENOENT) /* gone again: ours to make */
			rc = cfs_op_mknode(op, mk);
	}
	return rc;
}

static void create(fuse_req_t req, struct cfs_mk *mk, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);
	struct fuse_entry_param e = { 0 };
	struct cfs_fh *fh = NULL;
	int err;

	if (mk->name) {
		mk->len = cfs_op_name_len(&op, mk->name);
		if (!mk->len)
			return;
	}
	cfs_making_begin(op.c);
	err = cfs_op_mknode(&op, mk);
	if (err == EEXIST && mk->name)
		err = create_exists(&op, mk, fi->flags);
	err = cfs_op_errno(err);
	if (!err)
		err = open_made(&op, mk, fi, &fh);
	cfs_making_end(op.c);
	if (err) {
		cfs_op_err(&op, err);
		return;
	}
	if (!fill_open(op.c, fh, fi, &mk->rep.attr)) {
		cfs_op_err(&op, ENFILE);
		close_again(op.c, fh);
		return;
	}
	cfs_debug("created %llx/%s: inode %llx, lease %u", (unsigned long long)mk->dir, mk->name ? mk->name : "",
		  (unsigned long long)fh->i->ino, cfs_le32_to_cpu(mk->rep.lease));
	op.t->req = NULL;
	cfs_reply_begin(op.c);
	cfs_op_made(&op, mk, &e);
	err = fuse_reply_create(req, &e, fi);
	cfs_reply_end(op.c);
	if (err)
		close_again(op.c, fh);
	else
		cfs_persist_fh_opened(op.c->persist, fi->fh);
}

void cfs_fuse_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	create(req, &(struct cfs_mk){ .dir = parent, .name = name, .mode = S_IFREG | (mode & 07777),
				      .flags = CFS_MK_LEASE }, fi);
}

void cfs_fuse_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi)
{
	create(req, &(struct cfs_mk){ .dir = parent, .mode = S_IFREG | (mode & 07777),
				      .flags = CFS_MK_LEASE | CFS_MK_TMPFILE }, fi);
}

/* ---- closing ---------------------------------------------------------------------------------- */
static void unlock_owner(struct cfs_op *op, struct cfs_inode *i, uint64_t owner)
{
	struct cfs_lock_owners taken;

	if (cfs_inode_owner_take(i, owner, &taken))
		cfs_op_unlock_all(op, i->ino, owner, CFS_LOCK_POSIX);
	cfs_inode_owner_gone(op->c->persist, &taken);
}

void cfs_fuse_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_fh *fh = cfs_op_fh(&op, fi);

	(void)ino;
	if (!fh)
		return;
	unlock_owner(&op, fh->i, fi->lock_owner);
	cfs_op_err(&op, cfs_op_errno(cfs_data_error(fh->i->data)));
}

static void count_releasing(struct cfs_inode *i, int by)
{
	pthread_mutex_lock(&i->lock);
	i->releasing += (unsigned)by;
	pthread_mutex_unlock(&i->lock);
}

/*
 * A mapping of a file that is passed through does not hold the open file that it was made with: this one counts as open until it is gone.
 * False: nothing is mapped.
 */
static bool park(struct cfs_fh *fh)
{
	struct cfs_inode *i = fh->i;
	struct cfs_fh **p;
	bool mapped;

	if (fh->io != CFS_IO_PASSTHROUGH || !cfs_data_gate_mapped(i->data))
		return false;
	pthread_mutex_lock(&i->lock);
	fh->next_parked = i->parked;
	i->parked = fh;
	pthread_mutex_unlock(&i->lock);
	mapped = cfs_data_gate_mapped(i->data);
	if (mapped)
		return true;
	/* it ended in between: whoever finds it there releases it */
	pthread_mutex_lock(&i->lock);
	for (p = &i->parked; *p && *p != fh; p = &(*p)->next_parked)
		;
	mapped = !*p;
	if (*p)
		*p = fh->next_parked;
	pthread_mutex_unlock(&i->lock);
	return mapped;
}

void cfs_fh_unmapped(struct cfs_client *c, uint64_t ino)
{
	struct cfs_inode *i = cfs_inode_find(c, ino);
	struct cfs_fh *fh = NULL, *next;

	if (!i)
		return;
	if (i->data && !cfs_data_gate_mapped(i->data)) {
		pthread_mutex_lock(&i->lock);
		fh = i->parked;
		i->parked = NULL;
		pthread_mutex_unlock(&i->lock);
	}
	for (; fh; fh = next) {
		next = fh->next_parked;
		cfs_data_release(fh->i->data, fh->flags);
		fh_free(c, fh);
	}
	cfs_inode_put(c, i);
}

void cfs_fuse_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_fh *fh = cfs_op_release_fh(&op, fi);
	uint64_t owner;
	bool locks;

	if (!fh)
		return;
	locks = fi->flock_release || cfs_inode_owner_of_fh(fh->i, fh, &owner);
	if (locks)
		count_releasing(fh->i, 1);
	if (fi->flock_release)
		cfs_op_unlock_all(&op, ino, fi->lock_owner, CFS_LOCK_FLOCK);
	while (cfs_inode_owner_of_fh(fh->i, fh, &owner)) /* OFD locks end with their open file */
		unlock_owner(&op, fh->i, owner);
	if (locks)
		count_releasing(fh->i, -1);
	if (park(fh)) {
		cfs_op_err(&op, 0);
		return;
	}
	cfs_data_release(fh->i->data, fi->flags);
	/* nobody waits for this answer, unless we die, and the next one is to do what we did not */
	if (op.c->persist)
		fh_free(op.c, fh);
	cfs_op_err(&op, 0);
	if (!op.c->persist)
		fh_free(op.c, fh);
}

void cfs_fuse_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);

	struct cfs_fh *fh = cfs_op_fh(&op, fi);

	(void)ino;
	(void)datasync;
	if (fh)
		cfs_op_err(&op, cfs_op_errno(cfs_data_fsync(fh->i->data)));
}

/* ---- bytes --------------------------------------------------------------------------------------- */
void cfs_fuse_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_fh *fh = cfs_op_fh(&op, fi);
	void *buf = cfs_thread_io_buf(op.t);
	int rc = size > CFS_IO_MAX ? EIO : 0;
	struct cfs_pass *pass;
	int64_t n = 0;

	if (!fh)
		return;
	pass = cfs_data_pass(fh->i->data);
	/* noted before the lease is: a recall that comes while this READ is served has to wait for its pages */
	cfs_kernel_has_pages(op.c, ino);
	/* bytes count as read while the session lived: if its deadline passed meanwhile, once more */
	for (int i = 0; !rc && i < LIVE_RETRIES; i++) {
		rc = cfs_op_errno(cfs_session_wait_live(op.c));
		if (rc)
			break;
		n = pass ? cfs_pass_read(pass, buf, size, (uint64_t)off) :
			   cfs_data_read(fh->i->data, buf, size, (uint64_t)off);
		if (n >= 0 && (size_t)n < size)
			cfs_inode_told_size(fh->i, (uint64_t)off + (uint64_t)n);
		if (cfs_client_live(op.c))
			break;
	}
	op.t->req = NULL;
	if (rc || n < 0)
		fuse_reply_err(req, rc ? rc : cfs_op_errno((int)n));
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

/* a write at the end that comes again: the process before may have brought it to the servers, and died before it said so */
static bool is_appended(struct cfs_op *op, struct cfs_data *d, const char *buf, size_t size)
{
	const struct fuse_in_header *in = op->t->in;
	uint64_t off;
	void *there;
	bool same;

	if (cfs_likely(!(in->unique & CFS_UNIQUE_RESENT)) || !op->c->takeover || size > CFS_IO_MAX ||
	    !cfs_persist_append_find(op->c->persist, in->unique & ~CFS_UNIQUE_RESENT, &off))
		return false;
	there = malloc(size);
	same = there && cfs_data_read(d, there, size, off) == (int64_t)size && !memcmp(there, buf, size);
	free(there);
	return same;
}

void cfs_fuse_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_fh *fh = cfs_op_fh(&op, fi);
	bool append = (fi->flags & O_APPEND) && !fi->writepage;
	struct cfs_inode *i = fh ? fh->i : NULL;
	uint64_t unique = cfs_thread_unique(op.t);
	bool direct;
	int err = 0;
	int64_t n;

	if (!fh)
		return;
	direct = fh->flags & O_APPEND;
	if ((uint64_t)off > CFS_FILE_SIZE_MAX || CFS_FILE_SIZE_MAX - (uint64_t)off < size) {
		cfs_op_err(&op, EFBIG);
		return;
	}
	cfs_kernel_has_pages(op.c, ino);
	if (fi->kill_suidgid)
		err = cfs_op_kill_priv(&op, ino);
	n = err ? -err : append && is_appended(&op, i->data, buf, size) ? (int64_t)size : cfs_data_pass(i->data) ? cfs_pass_write(cfs_data_pass(i->data), buf, size, (uint64_t)off) :
	    cfs_data_write(i->data, buf, size, (uint64_t)off,
			   (append ? CFS_DATA_APPEND : fi->writepage ? CFS_DATA_MAPPED : 0) |
				   (fh->io == CFS_IO_DIRECT && !fi->writepage ? CFS_DATA_DIRECT : 0));
	if (n > 0 && !cfs_data_pass(i->data))
		err = cfs_op_settle(&op, i->data);
	n = err ? -err : n;
	op.t->req = NULL;
	if (n < 0)
		fuse_reply_err(req, cfs_op_errno((int)n));
	else
		fuse_reply_write(req, (size_t)n);
	if (append)
		cfs_persist_append_done(op.c->persist, unique);
	/* O_APPEND set later by fcntl(2): the kernel's page is where it thought the end was */
	if (n > 0 && append && !direct)
		cfs_notify_pages_later(op.c, ino);
}

/* ---- space and ranges -------------------------------------------------------------------------------- */
void cfs_fuse_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_fh *fh = cfs_op_fh(&op, fi);
	struct cfs_data *d = fh ? fh->i->data : NULL;
	struct cfs_fallocate_req body = {
		.ino = cfs_cpu_to_le64(ino), .off = cfs_cpu_to_le64((uint64_t)off), .len = cfs_cpu_to_le64((uint64_t)len),
		.mode = cfs_cpu_to_le32((uint32_t)mode),
		.flags = cfs_cpu_to_le32(fuse_req_ctx(req)->uid ? CFS_SA_KILLPRIV : 0),
	};
	struct cfs_attr_rep rep;
	struct cfs_op_req r = { .opcode = CFS_OP_FALLOCATE, .mutating = true, .fixed = &body, .fixed_len = sizeof(body),
				.rep = &rep, .rep_max = sizeof(rep) };
	struct cfs_ttl ttl;
	int rc;

	if (!fh)
		return;
	if (off < 0 || len <= 0 || (uint64_t)off > CFS_FILE_SIZE_MAX || (uint64_t)len > CFS_FILE_SIZE_MAX - (uint64_t)off) {
		cfs_op_err(&op, off < 0 || len <= 0 ? EINVAL : EFBIG);
		return;
	}
	if (cfs_data_pass(d)) {
		cfs_op_err(&op, cfs_op_errno(cfs_pass_fallocate(cfs_data_pass(d), mode, (uint64_t)off, (uint64_t)len)));
		return;
	}
	rc = cfs_data_flush(d);
	if (!rc)
		rc = cfs_op_call_want(&op, &r, sizeof(rep));
	if (!rc) {
		cfs_data_changed(d, (uint64_t)off, (uint64_t)len, &rep.attr);
		ttl = cfs_op_ttl(op.c);
		cfs_op_changed_attr(op.c, &rep.attr, cfs_le32_to_cpu(rep.valid), r.break_gen, &ttl);
	}
	cfs_op_err(&op, cfs_op_errno(rc));
}

void cfs_fuse_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
			      fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_fh *in = cfs_op_fh(&op, fi_in), *out = in ? cfs_op_fh(&op, fi_out) : NULL;
	struct cfs_data *src = in ? in->i->data : NULL, *dst = out ? out->i->data : NULL;
	struct cfs_copy_req body = {
		.src = cfs_cpu_to_le64(ino_in), .src_off = cfs_cpu_to_le64((uint64_t)off_in),
		.dst = cfs_cpu_to_le64(ino_out), .dst_off = cfs_cpu_to_le64((uint64_t)off_out),
		.len = cfs_cpu_to_le64(len),
		.flags = cfs_cpu_to_le32(fuse_req_ctx(req)->uid ? CFS_COPY_KILLPRIV : 0),
	};
	struct cfs_copy_rep rep;
	struct cfs_op_req r = { .opcode = CFS_OP_COPY, .mutating = true, .fixed = &body, .fixed_len = sizeof(body),
				.rep = &rep, .rep_max = sizeof(rep) };
	uint64_t copied = 0;
	int rc = flags ? -EINVAL : 0;

	if (!out)
		return;
	if (!rc && ((uint64_t)off_out > CFS_FILE_SIZE_MAX || len > CFS_FILE_SIZE_MAX - (uint64_t)off_out))
		rc = -EFBIG;
	if (!rc && (cfs_data_pass(src) || cfs_data_pass(dst)))
		rc = -EOPNOTSUPP;	/* the server has none of it; the kernel copies by itself then */
	if (!rc && len) {
		rc = cfs_data_flush(src);
		if (!rc && src != dst)
			rc = cfs_data_flush(dst);
		if (!rc)
			rc = cfs_op_call_want(&op, &r, sizeof(rep));
		if (!rc) {
			copied = cfs_le64_to_cpu(rep.copied);
			cfs_data_changed(dst, (uint64_t)off_out, copied, &rep.attr);
			cfs_client_note(op.c, CFS_BRK_ATTR, 0, ino_out, NULL, 0);
			cfs_dcache_drop_attr(op.c->dcache, ino_out);
		}
	}
	op.t->req = NULL;
	if (rc)
		fuse_reply_err(req, cfs_op_errno(rc));
	else
		fuse_reply_write(req, copied);
}

void cfs_fuse_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct cfs_op op = cfs_op_begin(req);
	struct cfs_seek_req body = { .ino = cfs_cpu_to_le64(ino), .off = cfs_cpu_to_le64((uint64_t)off),
				     .whence = cfs_cpu_to_le32((uint32_t)whence) };
	cfs_le64 pos;
	struct cfs_op_req r = { .opcode = CFS_OP_SEEK, .fixed = &body, .fixed_len = sizeof(body), .rep = &pos,
				.rep_max = sizeof(pos) };
	struct cfs_fh *fh = cfs_op_fh(&op, fi);
	struct cfs_pass *pass;
	int rc = whence == 3 /* SEEK_DATA */ || whence == 4 /* SEEK_HOLE */ ? 0 : EINVAL;

	if (!fh)
		return;
	pass = cfs_data_pass(fh->i->data);
	if (!rc && off < 0)
		rc = ENXIO;
	if (!rc && pass) {
		int64_t at = cfs_pass_seek(pass, (uint64_t)off, whence);

		rc = at < 0 ? (int)at : 0;
		pos = cfs_cpu_to_le64((uint64_t)at);
	} else if (!rc) {
		rc = cfs_data_flush(fh->i->data);
		if (!rc)
			rc = cfs_op_call_want(&op, &r, sizeof(pos));
	}
	op.t->req = NULL;
	if (rc)
		fuse_reply_err(req, cfs_op_errno(rc));
	else
		fuse_reply_lseek(req, (off_t)cfs_le64_to_cpu(pos));
}
