// SPDX-License-Identifier: MIT
/*
 * transport.c - see transport.h. Counters and lists are under the lock. A worker is reading, or serving; `readers` counts the
 * former. The bytes of a request are read into the worker's buffer so that the data of a WRITE is page-aligned.
 */
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 18)
#include "client/transport_i.h"

#include "base/log.h"
#include "client/client_i.h"
#include "client/fuse_fh.h"
#include "client/observe.h"
#include "client/persist.h"
#include "uapi/fuse_new.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse_lowlevel.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define NAP_MS		20u
#define IDLE_MAX	8u		/* readers that stay; more end, one a second */
#define OVERFLOW_MAX	1024u		/* requests queued at the limit ... */
#define OVERFLOW_BYTES	(64u << 20)	/* ... and their bytes */
#define BUF_HEADER	4096u		/* before the data: headers end at its end */
#define BUF_BYTES	(BUF_HEADER + CFS_IO_MAX + 65536u)
#define WRITE_HEADER	(sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))

/* a clone of the /dev/fuse descriptor */
struct fd_chan {
	struct cfs_chan base;
	int fd;
	bool shared;			/* all workers' */
};

struct queued {
	struct cfs_list link;
	struct cfs_chan *chan;
	size_t len;
	char bytes[];
};

struct worker {
	struct cfs_list link;
	struct cfs_transport *t;
	pthread_t thread;
	struct fd_chan *chan;
	char *mem;			/* BUF_BYTES, page-aligned */
	bool ended;
};

struct cfs_transport {
	struct cfs_client *c;
	int fd;				/* libfuse's own; notifications go here */
	unsigned workers_max;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct cfs_list workers, overflow;
	unsigned n_workers, n_ended, readers, n_overflow;
	size_t overflow_bytes;
	uint64_t overflowed;
	time_t last_end;
	bool stop, gone;		/* gone: the kernel has ended the connection */
	int end_fd;
};

/* ---- channels --------------------------------------------------------------------------- */
struct cfs_chan *cfs_chan_get(struct cfs_chan *ch)
{
	__atomic_add_fetch(&ch->refs, 1, __ATOMIC_RELAXED);
	return ch;
}

void cfs_chan_put(struct cfs_chan *ch)
{
	if (!ch || __atomic_sub_fetch(&ch->refs, 1, __ATOMIC_ACQ_REL))
		return;
	ch->destroy(ch);
}

static ssize_t fd_reply(struct cfs_chan *ch, struct iovec *iov, int count)
{
	return writev(cfs_container_of(ch, struct fd_chan, base)->fd, iov, count);
}

static void fd_destroy(struct cfs_chan *ch)
{
	struct fd_chan *f = cfs_container_of(ch, struct fd_chan, base);

	if (!f->shared)
		close(f->fd);
	free(f);
}

static int chan_new(int fd, bool shared, struct fd_chan **ret_ch)
{
	struct fd_chan *ch = calloc(1, sizeof(*ch));
	uint32_t master = (uint32_t)fd;
	int rc = 0;

	if (!ch)
		return -ENOMEM;
	ch->base = (struct cfs_chan){ .refs = 1, .reply = fd_reply, .destroy = fd_destroy };
	ch->shared = shared;
	ch->fd = shared ? fd : open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (ch->fd < 0 || (!shared && ioctl(ch->fd, FUSE_DEV_IOC_CLONE, &master)))
		rc = -errno;
	if (rc) {
		if (ch->fd >= 0 && !shared)
			close(ch->fd);
		free(ch);
		return rc;
	}
	*ret_ch = ch;
	return 0;
}

/* ---- what libfuse calls -------------------------------------------------------------------- */
/* libfuse negotiates rings only to serve them itself: say yes in its place */
static void want_uring(const struct cfs_thread *t, struct iovec *iov, int count)
{
	const struct fuse_in_header *in = t->in;
	struct fuse_init_out *init;

	if (!in || in->opcode != FUSE_INIT || count < 2 || !cfs_tier_ready(t->c, CFS_TIER_URING) ||
	    iov[1].iov_len < offsetof(struct fuse_init_out, flags2) + sizeof(init->flags2))
		return;
	init = iov[1].iov_base;
	init->flags |= FUSE_INIT_EXT;
	init->flags2 |= (uint32_t)(FUSE_OVER_IO_URING >> 32);
}

/* who takes over must give the same answer */
static void keep_init(struct cfs_client *c, const struct cfs_thread *t, const struct iovec *iov, int count)
{
	const struct fuse_in_header *in = t->in;
	char out[CFS_PST_INIT_MAX];
	size_t len = 0;

	if (in->opcode != FUSE_INIT || t->in_len > CFS_PST_INIT_MAX)
		return;
	for (int i = 0; i < count && len + iov[i].iov_len <= sizeof(out); i++) {
		memcpy(out + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	cfs_persist_init_done(c->persist, in, t->in_len, out, len);
}

/* answers go where their request came from; notifications have no request */
static ssize_t io_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	const struct fuse_out_header *out = iov[0].iov_base;
	struct cfs_client *c = userdata;
	struct cfs_thread *t;
	bool served;
	ssize_t n;

	if (!out->unique)
		return writev(fd, iov, count);
	t = cfs_thread_self(c);
	served = t->in && ((const struct fuse_in_header *)t->in)->unique == out->unique;
	if (served)
		cfs_observe_done(t, out->error, out->len - sizeof(*out)); /* before anybody can know of the answer */
	want_uring(t, iov, count);
	if (served && c->persist && !c->takeover)
		keep_init(c, t, iov, count);
	n = t->chan ? t->chan->reply(t->chan, iov, count) : writev(fd, iov, count);
	if (served) {
		int err = errno;

		cfs_thread_answered(t);
		errno = err;
	}
	return n;
}

static ssize_t io_read(int fd, void *buf, size_t len, void *userdata)
{
	(void)userdata;
	return read(fd, buf, len);
}

static void on_interrupt(fuse_req_t req, void *arg)
{
	struct cfs_thread *t = arg;
	uint64_t one = 1;

	(void)req;
	if (write(t->intr_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		cfs_warn("interrupt: %s", strerror(errno));
}

static void req_watch(struct cfs_thread *t)
{
	uint64_t v;

	if (read(t->intr_fd, &v, sizeof(v)) < 0 && errno != EAGAIN) /* of an earlier request */
		cfs_warn("interrupt: %s", strerror(errno));
	fuse_req_interrupt_func(t->req, on_interrupt, t);
}

static void req_unwatch(struct cfs_thread *t)
{
	fuse_req_interrupt_func(t->req, NULL, NULL); /* waits for a callback that runs */
}

static bool req_interrupted(struct cfs_thread *t)
{
	return fuse_req_interrupted(t->req);
}

/* the answer to INIT was written, so the kernel has acted on it: what it allows from now on, the tiers may ask for */
static void init_answered(struct cfs_client *c)
{
	pthread_mutex_lock(&c->lock);
	c->fuse_ready = c->fuse_agreed;
	pthread_cond_broadcast(&c->cond);
	pthread_mutex_unlock(&c->lock);
}

/* ---- serving ---------------------------------------------------------------------------------- */
void cfs_transport_serve(struct cfs_client *c, struct cfs_chan *chan, char *bytes, size_t len)
{
	struct cfs_thread *t = cfs_thread_self(c);
	const struct fuse_in_header *in = (const void *)bytes;
	struct fuse_buf buf = { .size = len, .mem = bytes };

	if (in->opcode < CFS_FUSE_OPS_MAX)
		cfs_count(c, fuse[in->opcode]);
	t->chan = chan;
	t->in = bytes;
	t->in_len = len;
	t->answered = false;
	if (cfs_unlikely(in->unique & CFS_UNIQUE_RESENT) && c->takeover)
		cfs_fh_refused(c, in->unique & ~CFS_UNIQUE_RESENT);
	cfs_observe_took(t);
	fuse_session_process_buf(c->se, &buf);
	cfs_observe_done(t, 0, 0);
	cfs_thread_answered(t);
	if (in->opcode == FUSE_INIT)
		init_answered(c);
	t->chan = NULL;
	t->in = NULL;
	t->req = NULL;
}

static int worker_start(struct cfs_transport *tr);

static bool is_quick(const char *bytes)
{
	uint32_t op = ((const struct fuse_in_header *)(const void *)bytes)->opcode;

	return op == FUSE_INTERRUPT || op == FUSE_FORGET || op == FUSE_BATCH_FORGET;
}

/* the last reader at the limit: somebody else will serve it. The lock is held */
static void overflow(struct cfs_transport *tr, struct worker *w, const char *bytes, size_t len)
{
	struct queued *q;

	while ((tr->n_overflow >= OVERFLOW_MAX || tr->overflow_bytes + len > OVERFLOW_BYTES) && !tr->stop && !tr->gone)
		pthread_cond_wait(&tr->changed, &tr->lock);
	q = malloc(sizeof(*q) + len);
	CFS_ASSERT(q != NULL);
	q->chan = cfs_chan_get(&w->chan->base);
	q->len = len;
	memcpy(q->bytes, bytes, len);
	cfs_list_add_tail(&tr->overflow, &q->link);
	tr->n_overflow++;
	tr->overflow_bytes += len;
	tr->overflowed++;
}

/* serve what was queued while nobody was free; the lock is held, and released meanwhile */
static void serve_overflow(struct cfs_transport *tr)
{
	while (!cfs_list_empty(&tr->overflow)) {
		struct queued *q = cfs_list_first(&tr->overflow, struct queued, link);

		cfs_list_del(&q->link);
		tr->n_overflow--;
		tr->overflow_bytes -= q->len;
		pthread_cond_broadcast(&tr->changed);
		pthread_mutex_unlock(&tr->lock);
		cfs_transport_serve(tr->c, q->chan, q->bytes, q->len);
		cfs_chan_put(q->chan);
		free(q);
		pthread_mutex_lock(&tr->lock);
	}
}

/* a request was read: serve it, or see that it is served. false: this worker is not needed any more */
static bool handle(struct cfs_transport *tr, struct worker *w, char *bytes, size_t len)
{
	struct timespec ts;
	bool stay = true;

	if (is_quick(bytes)) {
		cfs_transport_serve(tr->c, &w->chan->base, bytes, len);
		return true;
	}
	pthread_mutex_lock(&tr->lock);
	if (tr->readers == 1 && (tr->n_workers - tr->n_ended >= tr->workers_max || worker_start(tr))) {
		if (tr->n_workers - tr->n_ended > 1) {
			overflow(tr, w, bytes, len);
			pthread_mutex_unlock(&tr->lock);
			return true;
		}
	}
	tr->readers--;
	pthread_mutex_unlock(&tr->lock);
	cfs_transport_serve(tr->c, &w->chan->base, bytes, len);
	pthread_mutex_lock(&tr->lock);
	serve_overflow(tr);
	clock_gettime(CLOCK_MONOTONIC, &ts);
	if (tr->readers >= IDLE_MAX && ts.tv_sec != tr->last_end) {
		tr->last_end = ts.tv_sec;
		stay = false;
	} else {
		tr->readers++;
	}
	pthread_mutex_unlock(&tr->lock);
	return stay;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct cfs_transport *tr = w->t;
	char *bytes = w->mem + BUF_HEADER - WRITE_HEADER;
	size_t room = BUF_BYTES - BUF_HEADER + WRITE_HEADER;
	bool stay = true;

	while (stay && !__atomic_load_n(&tr->stop, __ATOMIC_ACQUIRE)) {
		ssize_t n = read(w->chan->fd, bytes, room);

		if (n >= (ssize_t)sizeof(struct fuse_in_header)) {
			stay = handle(tr, w, bytes, (size_t)n);
		} else if (n >= 0 || errno == ENODEV || errno == ECONNABORTED) {
			break;
		} else if (errno != EINTR && errno != EAGAIN && errno != ENOENT) {
			cfs_err("reading from /dev/fuse: %s", strerror(errno));
			break;
		}
	}
	cfs_thread_drop(tr->c);
	pthread_mutex_lock(&tr->lock);
	if (stay) {
		tr->readers--;
		if (!tr->stop && !tr->gone) {
			uint64_t one = 1;

			tr->gone = true;
			CFS_ASSERT(write(tr->end_fd, &one, sizeof(one)) == sizeof(one));
		}
	}
	w->ended = true;
	tr->n_ended++;
	pthread_cond_broadcast(&tr->changed);
	pthread_mutex_unlock(&tr->lock);
	return NULL;
}

static void worker_free(struct worker *w)
{
	if (w->chan)
		cfs_chan_put(&w->chan->base);
	free(w->mem);
	free(w);
}

/* the lock is held; those that have ended are joined on the way */
static int worker_start(struct cfs_transport *tr)
{
	struct worker *w = calloc(1, sizeof(*w));
	struct cfs_list *pos, *tmp;
	int rc = -ENOMEM;

	cfs_list_for_each_safe(pos, tmp, &tr->workers) {
		struct worker *old = cfs_list_entry(pos, struct worker, link);

		if (!old->ended || tr->stop)
			continue;
		pthread_join(old->thread, NULL);
		cfs_list_del(&old->link);
		tr->n_workers--;
		tr->n_ended--;
		worker_free(old);
	}
	if (!w)
		return rc;
	w->t = tr;
	w->mem = aligned_alloc(4096, BUF_BYTES);
	/* a request that is being copied into a page which is not there yet would be lost with a process that is killed just then */
	if (w->mem && tr->c->persist)
		memset(w->mem, 0, BUF_BYTES);
	if (w->mem)
		rc = tr->stop ? -ESHUTDOWN : chan_new(tr->fd, tr->c->persist, &w->chan);
	if (!rc) {
		rc = -pthread_create(&w->thread, NULL, worker_main, w);
		if (!rc) {
			cfs_list_add_tail(&tr->workers, &w->link);
			tr->n_workers++;
			tr->readers++;
			return 0;
		}
	}
	worker_free(w);
	return rc;
}

/* ---- life ------------------------------------------------------------------------------------------ */
static void on_wake_signal(int sig)
{
	(void)sig;
}

int cfs_transport_create(struct cfs_client *c, int fd, unsigned workers_max, struct cfs_transport **ret_t)
{
	static const struct fuse_custom_io io = { .writev = io_writev, .read = io_read };
	struct sigaction sa = { .sa_handler = on_wake_signal };
	struct cfs_transport *t = calloc(1, sizeof(*t));
	pthread_condattr_t attr;
	int rc;

	if (!t)
		return -ENOMEM;
	t->c = c;
	t->workers_max = cfs_max(workers_max, 2u);
	t->fd = fd;
	cfs_list_init(&t->workers);
	cfs_list_init(&t->overflow);
	pthread_mutex_init(&t->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&t->changed, &attr);
	pthread_condattr_destroy(&attr);
	sigaction(CFS_WAKE_SIGNAL, &sa, NULL);
	t->end_fd = eventfd(0, EFD_CLOEXEC);
	rc = t->end_fd < 0 ? -errno : fuse_session_custom_io(c->se, &io, sizeof(io), t->fd);
	if (rc) {
		free(t);
		return rc;
	}
	c->req_watch = req_watch;
	c->req_unwatch = req_unwatch;
	c->req_interrupted = req_interrupted;
	*ret_t = t;
	return 0;
}

int cfs_transport_start(struct cfs_transport *t)
{
	int rc;

	pthread_mutex_lock(&t->lock);
	rc = worker_start(t);
	pthread_mutex_unlock(&t->lock);
	return rc;
}

int cfs_transport_end_fd(struct cfs_transport *t)
{
	return t->end_fd;
}

void cfs_transport_stop(struct cfs_transport *t)
{
	pthread_mutex_lock(&t->lock);
	__atomic_store_n(&t->stop, true, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&t->changed);
	pthread_mutex_unlock(&t->lock);
}

bool cfs_transport_quiesce(struct cfs_transport *t, unsigned timeout_ms)
{
	struct timespec nap = { .tv_nsec = NAP_MS * 1000000 };
	bool all = false;

	cfs_transport_stop(t);
	for (unsigned ms = 0; ms <= timeout_ms; ms += NAP_MS) { /* a signal may come just before the read(2) that it should end */
		struct cfs_list *pos;

		pthread_mutex_lock(&t->lock);
		all = t->n_ended == t->n_workers;
		cfs_list_for_each(pos, &t->workers) {
			struct worker *w = cfs_list_entry(pos, struct worker, link);

			if (!w->ended)
				pthread_kill(w->thread, CFS_WAKE_SIGNAL);
		}
		pthread_mutex_unlock(&t->lock);
		if (all)
			break;
		nanosleep(&nap, NULL);
	}
	return all;
}

void cfs_transport_destroy(struct cfs_transport *t)
{
	if (!t)
		return;
	while (!cfs_transport_quiesce(t, 10000))
		;
	while (!cfs_list_empty(&t->workers)) {
		struct worker *w = cfs_list_first(&t->workers, struct worker, link);

		cfs_list_del(&w->link);
		pthread_join(w->thread, NULL);
		worker_free(w);
	}
	while (!cfs_list_empty(&t->overflow)) { /* the kernel fails them when the descriptors close */
		struct queued *q = cfs_list_first(&t->overflow, struct queued, link);

		cfs_list_del(&q->link);
		cfs_chan_put(q->chan);
		free(q);
	}
	close(t->end_fd);
	pthread_cond_destroy(&t->changed);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

void cfs_transport_stat(struct cfs_transport *t, struct cfs_transport_stat *ret)
{
	pthread_mutex_lock(&t->lock);
	*ret = (struct cfs_transport_stat){ .workers = t->n_workers - t->n_ended, .idle = t->readers,
					    .overflow = t->n_overflow, .overflowed = t->overflowed };
	pthread_mutex_unlock(&t->lock);
}
