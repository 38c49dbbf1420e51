// SPDX-License-Identifier: MIT
/*
 * notify.c - see notify.h. The queue belongs to the notifier threads; a job is freed by whoever comes last, its
 * sender or its thread. More threads are started while all are held up, up to NOTIFIERS_MAX.
 */
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 18)
#include "client/notify.h"

#include "base/hash.h"
#include "base/log.h"
#include "claudefs/bpf_shared.h"
#include "client/client_i.h"

#include <errno.h>
#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#define NOTIFIERS_MAX	16u
#define QUEUED_MAX	4096u
#define ENTRY_PATIENCE_MS 100u
#define FRESH_NS	100000000ull	/* from an answer to the kernel's having it, on a busy machine */
#define FRESH_NAP_NS	200000

struct note_job {
	struct cfs_list link;
	uint64_t ino;
	bool pages;
	unsigned refs;			/* under the lock */
	bool done;
	size_t len;
	char name[CFS_NAME_MAX + 1];
};

struct cfs_notify {
	struct cfs_client *c;
	pthread_mutex_t lock;
	pthread_cond_t work, done;
	struct cfs_list queue;
	unsigned n_queued, n_threads, n_idle;
	bool stop;
	pthread_t threads[NOTIFIERS_MAX];
};

static uint64_t *attr_until(struct cfs_client *c, uint64_t ino)
{
	return &c->gate->attr_until[cfs_bpf_hash(ino) % CFS_BPF_ATTR_UNTIL];
}

static uint64_t *pages_word(struct cfs_client *c, uint64_t ino, uint64_t *ret_bit)
{
	uint64_t h = cfs_hash_u64(ino);

	*ret_bit = 1ull << (h & 63);
	return &c->kernel_pages[(h >> 6) % CFS_KERNEL_PAGES];
}

static void raise_until(uint64_t *p, uint64_t until_ns)
{
	uint64_t old = __atomic_load_n(p, __ATOMIC_RELAXED);

	while (old < until_ns && !__atomic_compare_exchange_n(p, &old, until_ns, true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		;
}

static uint64_t *attr_told(struct cfs_client *c, uint64_t ino)
{
	return &c->attr_told[cfs_bpf_hash(ino) % CFS_ATTR_TOLD];
}

void cfs_kernel_has_attr(struct cfs_client *c, const struct cfs_attr *attr, uint64_t until_ns)
{
	__atomic_store_n(attr_told(c, cfs_attr_ino(attr)), cfs_boot_ns(), __ATOMIC_SEQ_CST);
	raise_until(attr_until(c, cfs_attr_ino(attr)), until_ns);
	raise_until(&c->gate->home_until[cfs_bpf_hash(cfs_attr_governor(attr)) % CFS_BPF_BUSY], until_ns);
}

uint64_t cfs_kernel_names_until(struct cfs_client *c, uint64_t dir, uint64_t until_ns)
{
	return cfs_max(until_ns, __atomic_load_n(&c->gate->name_until[cfs_bpf_hash(dir) % CFS_BPF_BUSY], __ATOMIC_SEQ_CST));
}

uint64_t cfs_kernel_attrs_until(struct cfs_client *c, uint64_t dir)
{
	return __atomic_load_n(&c->gate->home_until[cfs_bpf_hash(dir) % CFS_BPF_BUSY], __ATOMIC_SEQ_CST);
}

void cfs_kernel_has_pages(struct cfs_client *c, uint64_t ino)
{
	uint64_t bit, *p = pages_word(c, ino, &bit);

	if (!(__atomic_load_n(p, __ATOMIC_RELAXED) & bit))
		__atomic_or_fetch(p, bit, __ATOMIC_SEQ_CST);
}

void cfs_kernel_has_all(struct cfs_client *c, uint64_t until_ns)
{
	for (size_t i = 0; i < CFS_KERNEL_PAGES; i++)
		__atomic_store_n(&c->kernel_pages[i], UINT64_MAX, __ATOMIC_SEQ_CST);
	for (size_t i = 0; i < CFS_ATTR_TOLD; i++)
		__atomic_store_n(&c->attr_told[i], cfs_boot_ns(), __ATOMIC_SEQ_CST);
	for (size_t i = 0; i < CFS_BPF_ATTR_UNTIL; i++)
		raise_until(&c->gate->attr_until[i], until_ns);
	for (size_t i = 0; i < CFS_BPF_BUSY; i++) {
		raise_until(&c->gate->home_until[i], until_ns);
		raise_until(&c->gate->name_until[i], until_ns);
	}
}

static void put_job(struct note_job *j)
{
	if (!--j->refs)
		free(j);
}

static void check(const char *what, int rc)
{
	/* ENOENT: the kernel does not have it; ENOTDIR: not a directory any more; ENOTCONN, ENODEV: unmounted */
	if (rc && rc != -ENOENT && rc != -ENOTDIR && rc != -ENOTCONN && rc != -ENODEV && rc != -ENOSYS)
		cfs_warn("the kernel refused to forget %s: %s", what, strerror(-rc));
}

static void *notify_main(void *arg)
{
	struct cfs_notify *n = arg;

	pthread_mutex_lock(&n->lock);
	for (;;) {
		struct note_job *j;

		if (cfs_list_empty(&n->queue)) {
			if (n->stop)
				break;
			n->n_idle++;
			pthread_cond_wait(&n->work, &n->lock);
			n->n_idle--;
			continue;
		}
		j = cfs_list_first(&n->queue, struct note_job, link);
		cfs_list_del(&j->link);
		n->n_queued--;
		pthread_mutex_unlock(&n->lock);
		if (j->pages)
			cfs_notify_pages(n->c, j->ino, 0, 0);
		else
			check("a name", fuse_lowlevel_notify_inval_entry(n->c->se, j->ino, j->name, j->len));
		pthread_mutex_lock(&n->lock);
		j->done = true;
		put_job(j);
		pthread_cond_broadcast(&n->done);
	}
	pthread_mutex_unlock(&n->lock);
	return NULL;
}

int cfs_notify_create(struct cfs_client *c, struct cfs_notify **ret_n)
{
	struct cfs_notify *n = calloc(1, sizeof(*n));
	pthread_condattr_t attr;

	if (!n)
		return -ENOMEM;
	n->c = c;
	cfs_list_init(&n->queue);
	pthread_mutex_init(&n->lock, NULL);
	pthread_cond_init(&n->work, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&n->done, &attr);
	pthread_condattr_destroy(&attr);
	*ret_n = n;
	return 0;
}

void cfs_notify_destroy(struct cfs_notify *n)
{
	if (!n)
		return;
	pthread_mutex_lock(&n->lock);
	n->stop = true;
	pthread_cond_broadcast(&n->work);
	pthread_mutex_unlock(&n->lock);
	for (unsigned i = 0; i < n->n_threads; i++)
		pthread_join(n->threads[i], NULL);
	pthread_cond_destroy(&n->work);
	pthread_cond_destroy(&n->done);
	pthread_mutex_destroy(&n->lock);
	free(n);
}

/* the lock is held; false: the queue is full, or there is no thread */
static bool enqueue(struct cfs_notify *n, struct note_job *j)
{
	if (n->n_queued >= QUEUED_MAX || n->stop)
		return false;
	if (n->n_idle <= n->n_queued && n->n_threads < NOTIFIERS_MAX &&
	    !pthread_create(&n->threads[n->n_threads], NULL, notify_main, n))
		n->n_threads++;
	if (!n->n_threads)
		return false;
	cfs_list_add_tail(&n->queue, &j->link);
	n->n_queued++;
	pthread_cond_signal(&n->work);
	return true;
}

bool cfs_notify_epoch(struct cfs_client *c)
{
	int rc;

	if (!c->se)
		return true;
	rc = fuse_lowlevel_notify_increment_epoch(c->se);
	if (rc == -ENOSYS)
		return false;
	cfs_count(c, inc_epoch);
	check("all names", rc);
	return true;
}

static struct timespec after_ms(uint32_t ms)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += ms / 1000;
	ts.tv_nsec += (long)(ms % 1000) * 1000000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000;
	}
	return ts;
}

void cfs_notify_entry(struct cfs_client *c, uint64_t dir, const char *name, size_t len)
{
	struct cfs_notify *n = c->notify;
	bool busy = cfs_busy(c, dir), wait = true, done = false;
	struct note_job *j;
	struct timespec until;

	if (!c->se || !n || len > CFS_NAME_MAX || (busy && cfs_notify_epoch(c)))
		return;
	cfs_count(c, inval_entry);
	j = calloc(1, sizeof(*j));
	if (!j) {
		cfs_notify_epoch(c);
		return;
	}
	j->ino = dir;
	j->len = len;
	j->refs = 2;
	memcpy(j->name, name, len);
	until = after_ms(ENTRY_PATIENCE_MS);
	pthread_mutex_lock(&n->lock);
	if (!enqueue(n, j)) {
		j->refs--;
		wait = false;
	}
	while (wait && !busy && !j->done && !pthread_cond_timedwait(&n->done, &n->lock, &until))
		;
	done = j->done;
	put_job(j);
	pthread_mutex_unlock(&n->lock);
	if (!done) {
		cfs_count(c, inval_late);
		cfs_notify_epoch(c);
	}
}

void cfs_notify_attr(struct cfs_client *c, uint64_t ino)
{
	uint64_t told;
	int rc;

	/* a little more than the kernel's timeout, which began when it got the answer */
	if (!c->se || __atomic_load_n(attr_until(c, ino), __ATOMIC_SEQ_CST) + CFS_NSEC_PER_SEC < cfs_boot_ns())
		return;
	cfs_count(c, inval_inode);
	/*
	 * An inode that the kernel meets for the first time is there only when who looked it up runs again; until then it can be
	 * told nothing of it (ENOENT), and would keep the attributes of the answer that is on its way.
	 */
	do {
		rc = fuse_lowlevel_notify_inval_inode(c->se, ino, -1, 0);
		told = __atomic_load_n(attr_told(c, ino), __ATOMIC_SEQ_CST);
	} while (rc == -ENOENT && cfs_boot_ns() - told < FRESH_NS &&
		 !nanosleep(&(struct timespec){ .tv_nsec = FRESH_NAP_NS }, NULL));
	check("attributes", rc);
}

/*
 * FUSE_NOTIFY_STORE of the last byte, without the byte: the kernel first raises its size, then locks the page and
 * finds that the byte cannot be read (EFAULT), so that no content is touched.
 */
void cfs_notify_grown(struct cfs_client *c, uint64_t ino, uint64_t size)
{
	static void *const nowhere = (void *)(uintptr_t)8;	/* below mmap_min_addr: nothing is ever mapped there */
	struct {
		struct fuse_out_header head;
		struct fuse_notify_store_out store;
	} msg = {
		.head = { .len = sizeof(msg) + 1, .error = FUSE_NOTIFY_STORE },
		.store = { .nodeid = ino, .offset = size - 1, .size = 1 },
	};
	struct iovec iov[2] = { { &msg, sizeof(msg) }, { nowhere, 1 } };

	if (!c->se || !size)
		return;
	cfs_count(c, grown);
	if (writev(fuse_session_fd(c->se), iov, 2) < 0 && errno != EFAULT)
		check("that a file is shorter", -errno);
}

void cfs_notify_pages(struct cfs_client *c, uint64_t ino, int64_t off, int64_t len)
{
	uint64_t bit, *word = pages_word(c, ino, &bit);

	if (!c->se)
		return;
	if (off < 0 || !(__atomic_load_n(word, __ATOMIC_SEQ_CST) & bit)) {
		cfs_notify_attr(c, ino);
		return;
	}
	cfs_count(c, inval_inode);
	check("pages", fuse_lowlevel_notify_inval_inode(c->se, ino, off, len));
}

void cfs_notify_pages_later(struct cfs_client *c, uint64_t ino)
{
	struct cfs_notify *n = c->notify;
	struct note_job *j;

	if (!c->se || !n)
		return;
	j = calloc(1, sizeof(*j));
	if (!j)
		return;
	j->ino = ino;
	j->pages = true;
	j->refs = 1;
	pthread_mutex_lock(&n->lock);
	if (!enqueue(n, j))
		put_job(j);
	pthread_mutex_unlock(&n->lock);
}
