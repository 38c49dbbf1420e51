// SPDX-License-Identifier: GPL-2.0
/*
 * claudefs_gate.c - backing files that can be taken back. claudefs_gate.h is the contract.
 *
 * FUSE passthrough leaves reads, writes and mappings to a backing file that nobody can take back. So the client gives FUSE
 * a gate: an inode of a pseudo file system of ours, whose operations go through to the real file while the gate is open.
 *
 * Inside. Every operation is inside while it holds gate->sem for reading; it has looked at the mode and the deadline after it took
 * it. Shutting takes it for writing, so it waits for who is inside, and nobody is kept inside by user space: user memory is
 * touched with page faults disabled (as gfs2 does), and faulted in outside. Otherwise who is inside A may fault in a
 * mapping of B, another host may wait the other way round, and neither gate could be shut. Who finds the gate shut
 * holds nothing of ours, nor an mmap lock if the fault may be retried; it tells the client, and waits killably.
 *
 * Mappings are of the real file, with our vm_ops around its own: map_pages and the handlers of faults run inside. Shutting then
 * zaps all page table entries of the real file. A handler returns a locked folio, and the entry is made by its caller, outside:
 * the zap could come before it. So each folio that a handler has returned since the last time (gate->faulted bounds them) is
 * locked once, after the mode was changed and before the zap. The caller makes the entry under the folio's lock, or finds that the
 * folio was truncated and makes none, so after we had the lock the entry is there to be zapped, or will never be; a private copy is
 * made under that lock, too. map_pages makes its entries inside. No new handler gets inside meanwhile, and nobody who holds a folio's
 * lock waits to get inside. Nothing else makes entries: VM_MIXEDMAP keeps khugepaged away, fork copies under the page table's
 * lock with the child already in the interval tree, where the zap finds parent and child in that order.
 * What is still pinned (I/O to or from a mapped page, under way) is not waited for, as nowhere in the kernel.
 *
 * Stores are learned from page_mkwrite, the first one into each folio. Taking what was written zaps the entries of these
 * folios with nobody inside: a store before the zap is part of what is taken, one after it faults, and is recorded anew.
 *
 * The deadline. It is compared inside; a reader compares it once more when it has read. A timer zaps what is mapped.
 *
 * Depth: file systems count how deep they are stacked, so that the kernel's stack suffices. A gate is a few small frames, and its real
 * file is on no stacked file system: it counts as nothing, which leaves room for an overlay above FUSE.
 *
 * Life: a mapping holds the gate's file, a file its inode, and that the module and the device's set.
 */
#include <linux/backing-file.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/hrtimer.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/poll.h>
#include <linux/pseudo_fs.h>
#include <linux/rcupdate.h>
#include <linux/splice.h>
#include <linux/uio.h>
#include <linux/version.h>
#include <linux/wait.h>

#include "claudefs_gate.h"

#define GATE_MAGIC	0x63667367
#define SERVE_MS	10	/* who waited while it was shut is let in before it is shut again, if this is enough; */
#define SERVE_MORE	7	/* twice as long whenever it was not, so often */
#define FAIL_JIFFIES	(HZ / 10)
#define HELD_MS		30000	/* a fault that cannot be retried holds the mmap lock: it waits this long */

/* an open device */
struct gate_set {
	refcount_t refs;
	struct mutex lock;		/* gates: members come and go */
	struct list_head gates;
	unsigned int n_gates;
	bool dead;
	u64 deadline;			/* boot-time clock, ns */
	struct hrtimer timer;
	struct work_struct expire;
	spinlock_t ev_lock;		/* events, gate->ev, gate->ev_link */
	struct list_head events;
	wait_queue_head_t ev_wait;
};

struct gate {
	struct inode inode;
	struct gate_set *set;
	struct list_head link;		/* set->lock */
	u64 cookie;
	struct path real_path;
	struct address_space *mapping;	/* the real file's */
	const struct cred *cred;	/* of who made it: the real file is opened with it */
	struct rw_semaphore sem;	/* held for reading: inside */
	unsigned int mode;		/* enum cfs_gate_mode; written under sem */
	u64 budget;
	wait_queue_head_t wait;		/* for mode, deadline, budget, synced */
	atomic_t waiting[CFS_GATE_WRITE + 1];
	atomic_t retrying[CFS_GATE_WRITE + 1];	/* 1: a fault that had waited is about to come again */
	unsigned int unserved;		/* shut so often in a row before who waited was let in */
	unsigned int fails;
	int fail_err;
	unsigned long fail_jiffies;
	atomic_t maps;
	u32 ev;				/* to be told */
	struct list_head ev_link;
	spinlock_t lock;		/* all below */
	u64 written;			/* bytes since they were taken */
	struct cfs_gate_taken taken;
	pgoff_t fault_from, fault_to;	/* folios that handlers have returned: [from, to) */
	pgoff_t store_from, store_to;	/* of those, for stores */
	u64 synced;
	int sync_err;
};

static struct vfsmount *mnt;
static struct kmem_cache *gate_cache;
static const struct file_operations gate_fops;

static struct gate *gate_of(const struct inode *inode)
{
	return container_of(inode, struct gate, inode);
}

static void set_put(struct gate_set *set)
{
	if (refcount_dec_and_test(&set->refs))
		kfree(set);
}

static struct file *real_open(const struct gate *g, unsigned int flags)
{
	return dentry_open(&g->real_path, (flags & O_ACCMODE) | O_LARGEFILE | O_NOATIME, g->cred);
}

/* ---- what the client is told ----------------------------------------------------------------------------- */
static void tell(struct gate *g, u32 what)
{
	struct gate_set *set = g->set;

	spin_lock(&set->ev_lock);
	if ((g->ev | what) != g->ev && !set->dead) {
		g->ev |= what;
		if (list_empty(&g->ev_link))
			list_add_tail(&g->ev_link, &set->events);
		wake_up(&set->ev_wait);
	}
	spin_unlock(&set->ev_lock);
}

/* ---- in and out --------------------------------------------------------------------------------------------- */
static bool set_alive(const struct gate_set *set)
{
	return ktime_get_boottime_ns() < READ_ONCE(set->deadline);
}

static bool budget_left(const struct gate *g)
{
	return !READ_ONCE(g->budget) || READ_ONCE(g->written) < READ_ONCE(g->budget);
}

static bool may_enter(struct gate *g, unsigned int mode)
{
	return READ_ONCE(g->mode) >= mode && set_alive(g->set) && (mode != CFS_GATE_WRITE || budget_left(g));
}

static void leave(struct gate *g)
{
	up_read(&g->sem);
}

static void want(struct gate *g, unsigned int mode)
{
	tell(g, mode == CFS_GATE_WRITE ? CFS_GATE_WANT_WRITE : CFS_GATE_WANT_READ);
}

/* who had waited is in, or will not come in */
static void waited(struct gate *g, unsigned int mode)
{
	if (atomic_dec_and_test(&g->waiting[mode]))
		wake_up_all(&g->wait);
}

/*
 * 0: it is worth another try, and waited() is to be called when that was made. Else waited() was called: -EINTR, killed; -EIO: nobody
 * is left who could open it; -ETIME: held_ms (0: no limit) are over; or what the client said.
 */
static int wait_open(struct gate *g, unsigned int mode, unsigned int held_ms)
{
	unsigned int fails = READ_ONCE(g->fails);
	long left;
	int err = 0;

	atomic_inc(&g->waiting[mode]);
	want(g, mode);
	left = wait_event_killable_timeout(g->wait, may_enter(g, mode) || READ_ONCE(g->set->dead) ||
					   READ_ONCE(g->fails) != fails,
					   held_ms ? msecs_to_jiffies(held_ms) : MAX_SCHEDULE_TIMEOUT);
	if (left <= 0)
		err = left ? -EINTR : -ETIME;
	else if (READ_ONCE(g->set->dead))
		err = -EIO;
	else if (READ_ONCE(g->fails) != fails)
		err = READ_ONCE(g->fail_err);
	if (err)
		waited(g, mode);
	return err;
}

static int enter(struct gate *g, unsigned int mode, bool nowait)
{
	for (bool queued = false, inside = false;; queued = true) {
		int err = 0;

		if (READ_ONCE(g->set->dead)) {
			err = -EIO;
		} else if (may_enter(g, mode)) {
			if (nowait ? !down_read_trylock(&g->sem) : down_read_killable(&g->sem))
				err = nowait ? -EAGAIN : -EINTR;
			else if (!may_enter(g, mode))
				up_read(&g->sem);
			else
				inside = true;
		}
		if (queued)
			waited(g, mode);
		if (inside)
			return 0;
		if (!err && nowait) {
			want(g, mode);
			err = -EAGAIN;
		}
		if (!err)
			err = wait_open(g, mode, 0);
		if (err)
			return err;
	}
}

/* ---- what was written ----------------------------------------------------------------------------------------- */
/* into the ordered set of ranges; when that is full, the gap that costs least is closed */
static void range_add(struct cfs_gate_taken *t, u64 off, u64 end)
{
	struct cfs_gate_range *r = t->range;
	u32 i, k;

	for (i = 0; i < t->n && r[i].end < off; i++)
		;
	for (k = i; k < t->n && r[k].off <= end; k++) {	/* [i, k) are one with it */
		off = min(off, r[k].off);
		end = max(end, r[k].end);
	}
	if (k == i && t->n == CFS_GATE_RANGES_MAX) {
		if (i < t->n && (!i || r[i].off - end <= off - r[i - 1].end)) {
			r[i].off = off;
			return;
		}
		r[i - 1].end = end;
		return;
	}
	memmove(&r[i + 1], &r[k], (t->n - k) * sizeof(*r));
	t->n = t->n - (k - i) + 1;
	r[i] = (struct cfs_gate_range){ off, end };
}

/* inside, or the folio that was stored to is locked */
static void record(struct gate *g, u64 off, u64 end)
{
	bool kill = !cap_raised(current_real_cred()->cap_effective, CAP_FSETID), first;

	spin_lock(&g->lock);
	first = !g->taken.n;
	range_add(&g->taken, off, end);
	WRITE_ONCE(g->written, g->written + (end - off));
	g->taken.mtime = ktime_get_real_ns();
	g->taken.kill |= kill;
	spin_unlock(&g->lock);
	if (first)
		tell(g, CFS_GATE_WRITTEN);
}

/* ---- read and write ----------------------------------------------------------------------------------------------- */
static void kiocb_for(struct kiocb *k, struct file *real, const struct kiocb *iocb)
{
	init_sync_kiocb(k, real);
	k->ki_pos = iocb->ki_pos;
	/* not O_DIRECT, which asks for the real file's alignment; not O_SYNC, which means the cluster, not this disk */
	k->ki_flags &= ~(IOCB_DIRECT | IOCB_DSYNC | IOCB_SYNC | IOCB_APPEND);
	k->ki_flags |= iocb->ki_flags & (IOCB_NOWAIT | IOCB_APPEND);
}

static ssize_t gate_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct gate *g = gate_of(file_inode(iocb->ki_filp));
	struct file *real = iocb->ki_filp->private_data;
	bool nowait = iocb->ki_flags & IOCB_NOWAIT;
	ssize_t done = 0, n = 0;
	struct kiocb k;

	while (iov_iter_count(to)) {
		size_t want = iov_iter_count(to);

		n = enter(g, CFS_GATE_READ, nowait);
		if (n)
			break;
		kiocb_for(&k, real, iocb);
		if (user_backed_iter(to))
			pagefault_disable();
		n = vfs_iocb_iter_read(real, &k, to);
		if (user_backed_iter(to))
			pagefault_enable();
		if (n > 0 && !set_alive(g->set)) {	/* too late: they count for nothing */
			iov_iter_revert(to, n);
			leave(g);
			if (!nowait)
				continue;
			n = -EAGAIN;
			break;
		}
		leave(g);
		if (n > 0) {
			iocb->ki_pos = k.ki_pos;
			done += n;
		}
		if (!n || (n < 0 && n != -EFAULT) || n == want || !user_backed_iter(to) || nowait)
			break;
		/* the end of the file, or a page of the buffer that is not there */
		if (n > 0 && k.ki_pos >= i_size_read(g->mapping->host))
			break;
		want = min_t(size_t, iov_iter_count(to), SZ_1M);
		if (fault_in_iov_iter_writeable(to, want) == want) {
			n = -EFAULT;
			break;
		}
	}
	return done ?: n;
}

/* a write that is to be durable when it returns: the client makes it so */
static int wait_synced(struct gate *g)
{
	u64 mine;
	int err;

	spin_lock(&g->lock);
	mine = ++g->taken.sync;
	spin_unlock(&g->lock);
	tell(g, CFS_GATE_SYNC);
	err = wait_event_killable(g->wait, READ_ONCE(g->synced) >= mine || READ_ONCE(g->set->dead));
	if (err)
		return -EINTR;
	if (READ_ONCE(g->synced) < mine)
		return -EIO;
	smp_rmb();		/* with CFS_GATE_SYNCED */
	return READ_ONCE(g->sync_err);
}

static ssize_t gate_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct gate *g = gate_of(file_inode(iocb->ki_filp));
	struct file *real = iocb->ki_filp->private_data;
	bool nowait = iocb->ki_flags & IOCB_NOWAIT;
	ssize_t done = 0, n = 0;
	struct kiocb k;

	while (iov_iter_count(from)) {
		size_t want = iov_iter_count(from), there = min_t(size_t, want, SZ_1M);

		if (user_backed_iter(from) && !nowait && fault_in_iov_iter_readable(from, there) == there) {
			n = -EFAULT;
			break;
		}
		n = enter(g, CFS_GATE_WRITE, nowait);
		if (n)
			break;
		kiocb_for(&k, real, iocb);
		if (user_backed_iter(from))
			pagefault_disable();
		n = vfs_iocb_iter_write(real, &k, from);
		if (user_backed_iter(from))
			pagefault_enable();
		if (n > 0)
			record(g, k.ki_pos - n, k.ki_pos);
		leave(g);
		if (n > 0) {
			iocb->ki_pos = k.ki_pos;
			done += n;
		}
		if ((n <= 0 && n != -EFAULT) || !user_backed_iter(from) || nowait)
			break;
	}
	if (done > 0 && (iocb->ki_flags & IOCB_DSYNC) && !nowait) {
		int err = wait_synced(g);

		if (err)
			return err;
	}
	return done ?: n;
}

/* ---- mappings -------------------------------------------------------------------------------------------------------- */
/*
 * A mapping's vm_file: the real file, opened for it alone, so that the operations that go by vm_file can be ours too. Those are msync,
 * which means the cluster, and what would go around the gate: MADV_REMOVE, remap_file_pages. Frees all of this with itself.
 */
struct gate_vma {
	struct vm_operations_struct ops;	/* vma->vm_ops */
	struct file_operations fops;		/* vma->vm_file->f_op */
	const struct vm_operations_struct *real;
	const struct file_operations *real_fops;
	struct file *file;			/* the gate's */
};

static struct gate_vma *gate_vma(const struct vm_area_struct *vma)
{
	return container_of(vma->vm_ops, struct gate_vma, ops);
}

static struct gate *vma_gate(const struct vm_area_struct *vma)
{
	return gate_of(file_inode(gate_vma(vma)->file));
}

static void vma_open(struct vm_area_struct *vma)
{
	atomic_inc(&vma_gate(vma)->maps);
	if (gate_vma(vma)->real->open)
		gate_vma(vma)->real->open(vma);
}

static void vma_close(struct vm_area_struct *vma)
{
	struct gate *g = vma_gate(vma);

	if (gate_vma(vma)->real->close)
		gate_vma(vma)->real->close(vma);
	if (atomic_dec_and_test(&g->maps))
		tell(g, CFS_GATE_UNMAPPED);
}

static int vma_file_fsync(struct file *file, loff_t start, loff_t end, int datasync)
{
	return wait_synced(gate_of(file_inode(container_of(file->f_op, struct gate_vma, fops)->file)));
}

static int vma_file_mmap(struct file *file, struct vm_area_struct *vma)
{
	return -ENODEV;
}

static int vma_file_release(struct inode *inode, struct file *file)
{
	struct gate_vma *v = container_of(file->f_op, struct gate_vma, fops);
	int ret;

	file->f_op = v->real_fops;	/* fput() goes on with it */
	ret = file->f_op->release ? file->f_op->release(inode, file) : 0;
	fput(v->file);
	kfree(v);
	return ret;
}

/* a fault finds the gate shut; 0: look again, else what the fault returns. VM_FAULT_RETRY: the vma may be gone */
static vm_fault_t fault_wait(struct gate *g, struct vm_fault *vmf, unsigned int mode)
{
	/* what it could not be told when it had dropped its lock, it is told when it comes again */
	if (READ_ONCE(g->set->dead) || (READ_ONCE(g->fails) && time_before(jiffies, READ_ONCE(g->fail_jiffies) + FAIL_JIFFIES)))
		return VM_FAULT_SIGBUS;
	if (!(vmf->flags & FAULT_FLAG_ALLOW_RETRY)) {
		int err = wait_open(g, mode, HELD_MS);

		if (!err)
			waited(g, mode);
		return err ? VM_FAULT_SIGBUS : 0;
	}
	atomic_set(&g->retrying[mode], 1);
	if (vmf->flags & FAULT_FLAG_RETRY_NOWAIT) {
		want(g, mode);
		return VM_FAULT_RETRY;
	}
	release_fault_lock(vmf);
	if (!wait_open(g, mode, HELD_MS))
		waited(g, mode);
	return VM_FAULT_RETRY;
}

static vm_fault_t fault_enter(struct gate *g, struct vm_fault *vmf, unsigned int mode)
{
	for (;;) {
		vm_fault_t ret;

		if (may_enter(g, mode)) {
			down_read(&g->sem);	/* who has it for writing waits for nobody who waits for us */
			if (may_enter(g, mode)) {
				if (atomic_xchg(&g->retrying[mode], 0))
					wake_up_all(&g->wait);
				return 0;
			}
			up_read(&g->sem);
		}
		ret = fault_wait(g, vmf, mode);
		if (ret)
			return ret;
	}
}

#define NO_FOLIO (VM_FAULT_ERROR | VM_FAULT_NOPAGE | VM_FAULT_RETRY | VM_FAULT_DONE_COW)

/* inside: the caller would lock the folio when we are outside */
static vm_fault_t lock_folio(const struct gate *g, struct folio *folio, vm_fault_t ret)
{
	if (ret & VM_FAULT_LOCKED)
		return ret;
	folio_lock(folio);
	if (folio->mapping == g->mapping)
		return ret | VM_FAULT_LOCKED;
	folio_unlock(folio);
	return VM_FAULT_NOPAGE;
}

static void note(pgoff_t *from, pgoff_t *to, pgoff_t index, unsigned long n)
{
	*from = min(*from, index);
	*to = max(*to, index + n);
}

static vm_fault_t vma_fault(struct vm_fault *vmf)
{
	struct gate_vma *v = gate_vma(vmf->vma);
	struct gate *g = vma_gate(vmf->vma);
	struct file *file = get_file(v->file);	/* the vma may go away when its lock is dropped */
	bool store = vmf->flags & FAULT_FLAG_WRITE && vmf->vma->vm_flags & VM_SHARED;
	vm_fault_t ret = fault_enter(g, vmf, store ? CFS_GATE_WRITE : CFS_GATE_READ);

	if (ret)
		goto out;
	ret = v->real->fault(vmf);
	if (!(ret & NO_FOLIO)) {
		struct page *page = vmf->page;

		ret = lock_folio(g, page_folio(page), ret);
		if (ret & VM_FAULT_NOPAGE) {
			put_page(page);
			vmf->page = NULL;
		} else {
			spin_lock(&g->lock);
			note(&g->fault_from, &g->fault_to, vmf->pgoff, 1);
			spin_unlock(&g->lock);
		}
	}
	leave(g);
out:
	fput(file);
	return ret;
}

/* under RCU: does not wait. No entry is made: the fault goes on to vma_fault() */
static vm_fault_t vma_map_pages(struct vm_fault *vmf, pgoff_t start, pgoff_t end)
{
	struct gate *g = vma_gate(vmf->vma);
	vm_fault_t ret;

	if (!may_enter(g, CFS_GATE_READ) || !down_read_trylock(&g->sem))
		return 0;
	ret = may_enter(g, CFS_GATE_READ) ? gate_vma(vmf->vma)->real->map_pages(vmf, start, end) : 0;
	leave(g);
	return ret;
}

/*
 * The caller holds the mmap lock, and cannot be told to let it go: so nobody waits here. What is mapped is taken away instead, and the
 * store comes again, to vma_fault(), which can wait.
 */
static vm_fault_t vma_page_mkwrite(struct vm_fault *vmf)
{
	struct gate_vma *v = gate_vma(vmf->vma);
	struct gate *g = vma_gate(vmf->vma);
	struct folio *folio = page_folio(vmf->page);	/* the caller has a reference */
	bool entered = false;
	vm_fault_t ret = 0;

	if (may_enter(g, CFS_GATE_WRITE)) {
		down_read(&g->sem);	/* who has it for writing waits for nobody who waits for us */
		entered = may_enter(g, CFS_GATE_WRITE);
		if (!entered)
			up_read(&g->sem);
	}
	if (!entered) {
		unmap_mapping_range(g->mapping, (loff_t)vmf->pgoff << PAGE_SHIFT, PAGE_SIZE, 0);
		return VM_FAULT_NOPAGE;
	}
	if (v->real->page_mkwrite)
		ret = v->real->page_mkwrite(vmf);
	else
		file_update_time(vmf->vma->vm_file);
	if (!(ret & NO_FOLIO))
		ret = lock_folio(g, folio, ret);
	if (!(ret & NO_FOLIO)) {
		/* entries of all of the folio may be made, writable */
		pgoff_t index = folio->index;
		unsigned long n = folio_nr_pages(folio);

		spin_lock(&g->lock);
		note(&g->fault_from, &g->fault_to, index, n);
		note(&g->store_from, &g->store_to, index, n);
		spin_unlock(&g->lock);
		record(g, (u64)index << PAGE_SHIFT, (u64)(index + n) << PAGE_SHIFT);
	}
	leave(g);
	return ret;
}

static int real_mmap(struct file *real, struct vm_area_struct *vma)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
	int err = can_mmap_file(real) ? vfs_mmap(real, vma) : -ENODEV;
#else
	int err = real->f_op->mmap ? call_mmap(real, vma) : -ENODEV;
#endif

	return err ?: vma->vm_ops && vma->vm_ops->fault ? 0 : -ENODEV;
}

static int gate_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct gate *g = gate_of(file_inode(file));
	struct gate_vma *v = kzalloc(sizeof(*v), GFP_KERNEL_ACCOUNT);
	struct file *real;
	int err;

	if (!v)
		return -ENOMEM;
	real = real_open(g, file->f_flags);
	if (IS_ERR(real)) {
		kfree(v);
		return PTR_ERR(real);
	}
	v->file = get_file(file);
	vma_set_file(vma, real);
	err = real_mmap(real, vma);
	v->real_fops = real->f_op;
	v->fops = *real->f_op;
	v->fops.mmap = vma_file_mmap;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
	v->fops.mmap_prepare = NULL;
#endif
	v->fops.fallocate = NULL;
	v->fops.fsync = vma_file_fsync;
	v->fops.release = vma_file_release;
	real->f_op = &v->fops;		/* v is its own from here on */
	fput(real);			/* the vma has one */
	if (err)
		return err;
	v->real = vma->vm_ops;
	v->ops.open = vma_open;
	v->ops.close = vma_close;
	v->ops.fault = vma_fault;
	v->ops.map_pages = v->real->map_pages ? vma_map_pages : NULL;
	v->ops.page_mkwrite = vma_page_mkwrite;
	vma->vm_ops = &v->ops;
	vm_flags_set(vma, VM_MIXEDMAP);
	atomic_inc(&g->maps);
	return 0;
}

/* ---- taking back ---------------------------------------------------------------------------------------------------------- */
/* nobody is inside: see at the top */
static void zap(struct gate *g, pgoff_t from, pgoff_t to, bool all)
{
	struct folio_batch batch;
	pgoff_t next = from;

	folio_batch_init(&batch);
	while (next < to && filemap_get_folios(g->mapping, &next, to - 1, &batch)) {
		for (unsigned int i = 0; i < folio_batch_count(&batch); i++) {
			folio_lock(batch.folios[i]);
			folio_unlock(batch.folios[i]);
		}
		folio_batch_release(&batch);
		cond_resched();
	}
	if (all)
		unmap_mapping_range(g->mapping, 0, 0, 0);
	else if (from < to)
		unmap_mapping_range(g->mapping, (loff_t)from << PAGE_SHIFT, (loff_t)(to - from) << PAGE_SHIFT, 0);
}

static void zap_all(struct gate *g)
{
	zap(g, g->fault_from, g->fault_to, atomic_read(&g->maps));
	g->fault_from = g->store_from = ULONG_MAX;
	g->fault_to = g->store_to = 0;
}

static bool comes(struct gate *g, unsigned int mode)
{
	return atomic_read(&g->waiting[mode]) || atomic_read(&g->retrying[mode]);
}

/* all that can get in have been in */
static bool served(struct gate *g, unsigned int mode)
{
	return !comes(g, CFS_GATE_READ) && (mode < CFS_GATE_WRITE || !comes(g, CFS_GATE_WRITE) || !budget_left(g));
}

/*
 * Let who has waited for the gate be served once, if they are quick; else two hosts may take it from each other for ever. On a
 * machine so busy that they do not get a processor in this time, they have more the next time.
 */
static void serve(struct gate *g)
{
	unsigned int mode = READ_ONCE(g->mode), unserved = READ_ONCE(g->unserved);
	unsigned long limit = msecs_to_jiffies(SERVE_MS << min(unserved, SERVE_MORE)) + 1;

	if (!mode || !set_alive(g->set))
		return;
	if (wait_event_timeout(g->wait, served(g, mode), limit))
		unserved = 0;
	else if (atomic_read(&g->waiting[mode]))
		unserved++;
	WRITE_ONCE(g->unserved, unserved);
	atomic_set(&g->retrying[CFS_GATE_READ], 0);	/* some never come */
	atomic_set(&g->retrying[CFS_GATE_WRITE], 0);
}

static void want_again(struct gate *g)
{
	if (atomic_read(&g->waiting[CFS_GATE_READ]) && !may_enter(g, CFS_GATE_READ))
		want(g, CFS_GATE_READ);
	if (atomic_read(&g->waiting[CFS_GATE_WRITE]) && !may_enter(g, CFS_GATE_WRITE))
		want(g, CFS_GATE_WRITE);
}

static void shut(struct gate *g)
{
	down_write(&g->sem);
	WRITE_ONCE(g->mode, CFS_GATE_SHUT);
	zap_all(g);
	up_write(&g->sem);
	want_again(g);
}

static int take(struct gate *g, bool close, struct cfs_gate_taken __user *to)
{
	struct cfs_gate_taken *t = kmalloc(sizeof(*t), GFP_KERNEL);
	int err = 0;

	if (!t)
		return -ENOMEM;
	if (close)
		serve(g);
	down_write(&g->sem);
	if (close) {
		WRITE_ONCE(g->mode, CFS_GATE_SHUT);
		zap_all(g);
	} else if (g->store_from < g->store_to) {
		zap(g, g->store_from, g->store_to, false);
		g->store_from = ULONG_MAX;
		g->store_to = 0;
	}
	spin_lock(&g->lock);
	*t = g->taken;
	t->size = i_size_read(g->mapping->host);
	g->taken = (struct cfs_gate_taken){ .sync = t->sync };
	g->written = 0;
	spin_unlock(&g->lock);
	up_write(&g->sem);
	if (copy_to_user(to, t, sizeof(*t))) {	/* not lost */
		spin_lock(&g->lock);
		for (u32 i = 0; i < t->n; i++)
			range_add(&g->taken, t->range[i].off, t->range[i].end);
		g->taken.kill |= t->kill;
		g->taken.mtime = max(g->taken.mtime, t->mtime);
		spin_unlock(&g->lock);
		err = -EFAULT;
	}
	kfree(t);
	wake_up_all(&g->wait);
	want_again(g);
	return err;
}

/* ---- a gate's descriptor ------------------------------------------------------------------------------------------------------ */
static long gate_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct gate *g = gate_of(file_inode(file));
	struct cfs_gate_synced synced;
	struct cfs_gate_open o;
	void __user *p = (void __user *)arg;
	s32 err;

	if (file->f_mode & FMODE_BACKING)
		return -ENOTTY;
	switch (cmd) {
	case CFS_GATE_OPEN:
		if (copy_from_user(&o, p, sizeof(o)))
			return -EFAULT;
		if (!o.mode || o.mode > CFS_GATE_WRITE)
			return -EINVAL;
		down_write(&g->sem);
		if (o.mode < g->mode)	/* what was stored to must not be stored to again */
			zap_all(g);
		WRITE_ONCE(g->budget, o.budget);
		WRITE_ONCE(g->mode, o.mode);
		up_write(&g->sem);
		wake_up_all(&g->wait);
		want_again(g);
		return 0;
	case CFS_GATE_CLOSE:
	case CFS_GATE_TAKE:
		return take(g, cmd == CFS_GATE_CLOSE, p);
	case CFS_GATE_SYNCED:
		if (copy_from_user(&synced, p, sizeof(synced)))
			return -EFAULT;
		WRITE_ONCE(g->sync_err, synced.err);
		smp_wmb();	/* before who waits sees that it is meant */
		WRITE_ONCE(g->synced, synced.sync);
		wake_up_all(&g->wait);
		return 0;
	case CFS_GATE_FAIL:
		if (copy_from_user(&err, p, sizeof(err)))
			return -EFAULT;
		if (err >= 0 || err < -MAX_ERRNO)
			return -EINVAL;
		WRITE_ONCE(g->fail_err, err);
		WRITE_ONCE(g->fail_jiffies, jiffies);
		smp_wmb();
		WRITE_ONCE(g->fails, g->fails + 1);
		wake_up_all(&g->wait);
		return 0;
	case CFS_GATE_MAPPINGS:
		return put_user((u32)atomic_read(&g->maps), (u32 __user *)p);
	}
	return -ENOTTY;
}

/* by FUSE, once for each open file */
static int gate_open(struct inode *inode, struct file *file)
{
	struct file *real = real_open(gate_of(inode), file->f_flags);

	if (IS_ERR(real))
		return PTR_ERR(real);
	file->private_data = real;
	file->f_mode |= FMODE_CAN_ODIRECT | FMODE_NOWAIT;
	return 0;
}

static int gate_release(struct inode *inode, struct file *file)
{
	fput(file->private_data);
	return 0;
}

/* FUSE sends fsync to the client; this one says that the cache file is on its disk */
static int gate_fsync(struct file *file, loff_t start, loff_t end, int datasync)
{
	return vfs_fsync_range(file->private_data, start, end, datasync);
}

static const struct file_operations gate_fops = {
	.owner = THIS_MODULE,
	.open = gate_open,
	.release = gate_release,
	.read_iter = gate_read_iter,
	.write_iter = gate_write_iter,
	.splice_read = copy_splice_read,	/* no page of the real file leaves the gate */
	.splice_write = iter_file_splice_write,
	.mmap = gate_mmap,
	.fsync = gate_fsync,
	.llseek = noop_llseek,
	.unlocked_ioctl = gate_ioctl,
};

/* ---- the device --------------------------------------------------------------------------------------------------------------- */
static void set_expire(struct work_struct *work)
{
	struct gate_set *set = container_of(work, struct gate_set, expire);
	struct gate *g;

	mutex_lock(&set->lock);
	list_for_each_entry(g, &set->gates, link) {
		if (set_alive(set))	/* what is mapped from now on is right again; what was before we come to later */
			break;
		down_write(&g->sem);
		zap_all(g);
		up_write(&g->sem);
	}
	mutex_unlock(&set->lock);
}

static enum hrtimer_restart set_timer(struct hrtimer *timer)
{
	queue_work(system_highpri_wq, &container_of(timer, struct gate_set, timer)->expire);
	return HRTIMER_NORESTART;
}

static void set_deadline(struct gate_set *set, u64 ns)
{
	struct gate *g;

	mutex_lock(&set->lock);
	WRITE_ONCE(set->deadline, ns);
	if (ns)
		hrtimer_start(&set->timer, ns_to_ktime(ns), HRTIMER_MODE_ABS);
	list_for_each_entry(g, &set->gates, link)
		if (atomic_read(&g->waiting[CFS_GATE_READ]) || atomic_read(&g->waiting[CFS_GATE_WRITE]))
			wake_up_all(&g->wait);
	mutex_unlock(&set->lock);
	if (!ns) {
		hrtimer_cancel(&set->timer);
		set_expire(&set->expire);
	}
}

static long gate_new(struct gate_set *set, const struct cfs_gate_new *n)
{
	CLASS(fd, real)(n->fd);
	struct inode *inode;
	struct file *file;
	struct gate *g;
	int fd;

	if (fd_empty(real))
		return -EBADF;
	file = fd_file(real);
	if (!S_ISREG(file_inode(file)->i_mode) || (file->f_mode & (FMODE_READ | FMODE_WRITE)) != (FMODE_READ | FMODE_WRITE) ||
	    !file->f_op->read_iter || !file->f_op->write_iter)
		return -EINVAL;
	if (file_inode(file)->i_sb->s_stack_depth || file_inode(file)->i_sb == mnt->mnt_sb)
		return -ELOOP;
	inode = new_inode(mnt->mnt_sb);
	if (!inode)
		return -ENOMEM;
	g = gate_of(inode);
	mutex_lock(&set->lock);
	if (set->n_gates == CFS_GATE_GATES_MAX) {
		mutex_unlock(&set->lock);
		iput(inode);
		return -ENOSPC;
	}
	set->n_gates++;
	list_add_tail(&g->link, &set->gates);
	mutex_unlock(&set->lock);
	refcount_inc(&set->refs);
	g->set = set;
	__module_get(THIS_MODULE);
	g->cookie = n->cookie;
	g->real_path = file->f_path;
	path_get(&g->real_path);
	g->mapping = file->f_mapping;
	g->cred = get_current_cred();
	inode->i_ino = get_next_ino();
	inode->i_mode = S_IFREG | 0600;
	inode->i_fop = &gate_fops;
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0) {
		iput(inode);
		return fd;
	}
	file = alloc_file_pseudo(inode, mnt, "gate", O_RDWR | O_LARGEFILE, &gate_fops);
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		iput(inode);
		return PTR_ERR(file);
	}
	__module_get(THIS_MODULE);	/* for f_op: fput() will let go of it */
	file->f_mode |= FMODE_LSEEK | FMODE_PREAD | FMODE_PWRITE;
	file->private_data = get_file(fd_file(real));
	fd_install(fd, file);
	return fd;
}

static long dev_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct gate_set *set = file->private_data;
	void __user *p = (void __user *)arg;
	struct cfs_gate_new n;
	u64 ns;

	switch (cmd) {
	case CFS_GATE_ABI:
		return put_user(CFS_GATE_ABI_NOW, (u32 __user *)p);
	case CFS_GATE_NEW:
		return copy_from_user(&n, p, sizeof(n)) ? -EFAULT : gate_new(set, &n);
	case CFS_GATE_DEADLINE:
		if (copy_from_user(&ns, p, sizeof(ns)))
			return -EFAULT;
		set_deadline(set, ns);
		return 0;
	}
	return -ENOTTY;
}

static ssize_t dev_read(struct file *file, char __user *buf, size_t len, loff_t *pos)
{
	struct gate_set *set = file->private_data;
	size_t done = 0;

	while (len - done >= sizeof(struct cfs_gate_event)) {
		struct cfs_gate_event ev = { 0 };
		struct gate *g;

		spin_lock(&set->ev_lock);
		g = list_first_entry_or_null(&set->events, struct gate, ev_link);
		if (g) {
			list_del_init(&g->ev_link);
			ev.cookie = g->cookie;
			ev.what = g->ev;
			g->ev = 0;
		}
		spin_unlock(&set->ev_lock);
		if (g) {
			if (copy_to_user(buf + done, &ev, sizeof(ev)))
				return -EFAULT;
			done += sizeof(ev);
			continue;
		}
		if (done)
			break;
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		if (wait_event_interruptible(set->ev_wait, !list_empty(&set->events)))
			return -ERESTARTSYS;
	}
	return done;
}

static __poll_t dev_poll(struct file *file, poll_table *wait)
{
	struct gate_set *set = file->private_data;

	poll_wait(file, &set->ev_wait, wait);
	return list_empty(&set->events) ? 0 : EPOLLIN | EPOLLRDNORM;
}

static int dev_open(struct inode *inode, struct file *file)
{
	struct gate_set *set;

	if (!capable(CAP_SYS_ADMIN))	/* as FUSE passthrough itself */
		return -EPERM;
	set = kzalloc(sizeof(*set), GFP_KERNEL);
	if (!set)
		return -ENOMEM;
	refcount_set(&set->refs, 1);
	mutex_init(&set->lock);
	INIT_LIST_HEAD(&set->gates);
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0)
	hrtimer_setup(&set->timer, set_timer, CLOCK_BOOTTIME, HRTIMER_MODE_ABS);
#else
	hrtimer_init(&set->timer, CLOCK_BOOTTIME, HRTIMER_MODE_ABS);
	set->timer.function = set_timer;
#endif
	INIT_WORK(&set->expire, set_expire);
	spin_lock_init(&set->ev_lock);
	INIT_LIST_HEAD(&set->events);
	init_waitqueue_head(&set->ev_wait);
	file->private_data = set;
	return 0;
}

static int dev_release(struct inode *inode, struct file *file)
{
	struct gate_set *set = file->private_data;
	struct gate *g;

	hrtimer_cancel(&set->timer);
	cancel_work_sync(&set->expire);
	mutex_lock(&set->lock);
	spin_lock(&set->ev_lock);
	WRITE_ONCE(set->dead, true);
	spin_unlock(&set->ev_lock);
	WRITE_ONCE(set->deadline, 0);
	list_for_each_entry(g, &set->gates, link) {
		shut(g);
		wake_up_all(&g->wait);
	}
	mutex_unlock(&set->lock);
	set_put(set);
	return 0;
}

static const struct file_operations dev_fops = {
	.owner = THIS_MODULE,
	.open = dev_open,
	.release = dev_release,
	.read = dev_read,
	.poll = dev_poll,
	.unlocked_ioctl = dev_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "claudefs_gate",
	.fops = &dev_fops,
	.mode = 0600,
};

/* ---- the pseudo file system ----------------------------------------------------------------------------------------------------- */
static struct inode *gate_alloc_inode(struct super_block *sb)
{
	struct gate *g = alloc_inode_sb(sb, gate_cache, GFP_KERNEL);

	if (!g)
		return NULL;
	memset((char *)g + sizeof(g->inode), 0, sizeof(*g) - sizeof(g->inode));
	INIT_LIST_HEAD(&g->link);
	INIT_LIST_HEAD(&g->ev_link);
	init_rwsem(&g->sem);
	init_waitqueue_head(&g->wait);
	spin_lock_init(&g->lock);
	g->fault_from = g->store_from = ULONG_MAX;
	return &g->inode;
}

/* after a grace period: see rcu_barrier() below */
static void gate_free_inode(struct inode *inode)
{
	bool counted = gate_of(inode)->set;	/* all but the root's */

	kmem_cache_free(gate_cache, gate_of(inode));
	if (counted)
		module_put(THIS_MODULE);
}

/* no file, no mapping and no operation is left */
static void gate_evict_inode(struct inode *inode)
{
	struct gate *g = gate_of(inode);
	struct gate_set *set = g->set;

	truncate_inode_pages_final(&inode->i_data);
	clear_inode(inode);
	if (!set)
		return;
	mutex_lock(&set->lock);
	list_del(&g->link);
	set->n_gates--;
	mutex_unlock(&set->lock);
	spin_lock(&set->ev_lock);
	list_del_init(&g->ev_link);
	spin_unlock(&set->ev_lock);
	path_put(&g->real_path);
	put_cred(g->cred);
	set_put(set);
}

static const struct super_operations gate_sops = {
	.alloc_inode = gate_alloc_inode,
	.free_inode = gate_free_inode,
	.evict_inode = gate_evict_inode,
	.statfs = simple_statfs,
};

static int gate_fill_super(struct fs_context *fc)
{
	struct pseudo_fs_context *ctx = init_pseudo(fc, GATE_MAGIC);

	if (!ctx)
		return -ENOMEM;
	ctx->ops = &gate_sops;
	return 0;
}

/* without an owner: our own mount would hold the module for ever */
static struct file_system_type gate_fs = {
	.name = "claudefs_gate",
	.init_fs_context = gate_fill_super,
	.kill_sb = kill_anon_super,
};

static void gate_once(void *g)
{
	inode_init_once(&((struct gate *)g)->inode);
}

static int __init claudefs_gate_init(void)
{
	int err;

	gate_cache = kmem_cache_create("claudefs_gate", sizeof(struct gate), 0, SLAB_ACCOUNT, gate_once);
	if (!gate_cache)
		return -ENOMEM;
	mnt = kern_mount(&gate_fs);
	if (IS_ERR(mnt)) {
		err = PTR_ERR(mnt);
		goto fail_cache;
	}
	err = misc_register(&dev);
	if (err)
		goto fail_mnt;
	return 0;
fail_mnt:
	kern_unmount(mnt);
fail_cache:
	kmem_cache_destroy(gate_cache);
	return err;
}

static void __exit claudefs_gate_exit(void)
{
	misc_deregister(&dev);
	kern_unmount(mnt);
	synchronize_rcu_tasks();	/* the ends of functions that have let go of what held us */
	rcu_barrier();		/* inodes are freed after a grace period, and the last one has let us go */
	kmem_cache_destroy(gate_cache);
}

module_init(claudefs_gate_init);
module_exit(claudefs_gate_exit);
MODULE_LICENSE("GPL");
MODULE_AUTHOR("The ClaudeFS authors");
MODULE_DESCRIPTION("Backing files for FUSE passthrough that can be taken back");
MODULE_VERSION("1");
