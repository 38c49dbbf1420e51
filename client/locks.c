// SPDX-License-Identifier: MIT
/*
 * locks.c - see locks.h. The list and the flags `cancel` and `dead` of waiters are under the lock; all else of a waiter
 * belongs to the lock thread once it is on the list.
 */
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 18)
#include "client/locks.h"

#include "base/hash.h"
#include "base/log.h"
#include "client/client_i.h"
#include "client/transport.h"

#include <errno.h>
#include <fuse3/fuse_lowlevel.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define SLICE_MS	1000u
#define SEND_MS		5000u
#define RETRY_MS	100u

struct waiter {
	struct cfs_list link;
	fuse_req_t req;
	struct cfs_chan *chan;
	struct cfs_locks *l;
	struct cfs_lock_req body;
	struct cfs_slot slot;
	uint64_t session_gen;
	uint64_t tag;			/* of the LOCK on the present connection; 0: to be sent */
	bool cancel, cancel_sent;
};

struct cfs_locks {
	struct cfs_client *c;
	pthread_mutex_t lock;
	struct cfs_list waiters;
	unsigned n;
	bool stop;
	int wake_fd;
	pthread_t thread;
};

static void wake(struct cfs_locks *l)
{
	uint64_t one = 1;

	if (write(l->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		cfs_warn("cannot wake the lock thread: %s", strerror(errno));
}

static void on_interrupt(fuse_req_t req, void *arg)
{
	struct waiter *w = arg;

	(void)req;
	__atomic_store_n(&w->cancel, true, __ATOMIC_RELEASE);
	wake(w->l);
}

/* off the list; the kernel gets its answer on the descriptor that the request came by */
static void finish(struct cfs_locks *l, struct waiter *w, int err, bool answered)
{
	struct cfs_thread *t = cfs_thread_self(l->c);

	pthread_mutex_lock(&l->lock);
	cfs_list_del(&w->link);
	l->n--;
	pthread_mutex_unlock(&l->lock);
	fuse_req_interrupt_func(w->req, NULL, NULL); /* waits for a callback that runs */
	t->chan = w->chan;
	fuse_reply_err(w->req, err);
	t->chan = NULL;
	/* a session's end makes its slots worthless, so nothing needs resolving */
	cfs_slots_put(&l->c->slots, &w->slot, answered);
	cfs_chan_put(w->chan);
	free(w);
}

static int send_lock(struct cfs_locks *l, struct cfs_node_conn *nc, struct waiter *w, bool cancel)
{
	struct cfs_lock_req body = w->body;
	struct iovec iov = { &body, sizeof(body) };
	struct cfs_thread *t = cfs_thread_self(l->c);
	struct cfs_msg_hdr hdr;

	cfs_hdr_init(&hdr, CFS_OP_LOCK);
	hdr.tag = cfs_cpu_to_le64(++t->tag);
	hdr.session = cfs_cpu_to_le64(nc->session);
	if (cancel) {
		body.kind = CFS_LOCK_CANCEL;
		body.wait = 0;
		w->cancel_sent = true;
	} else {
		hdr.slot = cfs_cpu_to_le32(w->slot.slot);
		hdr.seq = cfs_cpu_to_le64(w->slot.seq);
		w->tag = t->tag;
	}
	cfs_count(l->c, rpc[CFS_OP_LOCK]);
	return cfs_rpc_send(nc->conn, &hdr, &iov, 1, NULL, 0, cfs_boot_ns() + SEND_MS * CFS_NSEC_PER_MSEC);
}

/* what there is to do for one waiter before waiting for answers; 0 or an error of the connection */
static int attend(struct cfs_locks *l, struct cfs_node_conn *nc, struct waiter *w)
{
	int rc = 0;

	if (!w->tag)
		rc = send_lock(l, nc, w, false);
	if (!rc && !w->cancel_sent && __atomic_load_n(&w->cancel, __ATOMIC_ACQUIRE))
		rc = send_lock(l, nc, w, true);
	return rc;
}

static void resend_all(struct cfs_locks *l)
{
	struct cfs_list *pos;

	pthread_mutex_lock(&l->lock);
	cfs_list_for_each(pos, &l->waiters) {
		struct waiter *w = cfs_list_entry(pos, struct waiter, link);

		w->tag = 0;
		w->cancel_sent = false;
	}
	pthread_mutex_unlock(&l->lock);
}

/* the waiter at a place; only this thread takes waiters off, new ones come at the end */
static struct waiter *waiter_at(struct cfs_locks *l, struct waiter *after)
{
	struct cfs_list *p;

	pthread_mutex_lock(&l->lock);
	p = after ? after->link.next : l->waiters.next;
	pthread_mutex_unlock(&l->lock);
	return p == &l->waiters ? NULL : cfs_list_entry(p, struct waiter, link);
}

/* locks do not survive their session, and waiters not the mount */
static void fail_stale(struct cfs_locks *l)
{
	struct cfs_client *c = l->c;
	uint64_t gen = __atomic_load_n(&c->session_gen, __ATOMIC_ACQUIRE);
	bool lost = cfs_client_state(c) == CFS_SESS_LOST, stop = __atomic_load_n(&l->stop, __ATOMIC_ACQUIRE);
	struct waiter *w = waiter_at(l, NULL), *next;

	for (; w; w = next) {
		next = waiter_at(l, w);
		if (stop || lost || w->session_gen != gen)
			finish(l, w, stop ? EINTR : EIO, false);
	}
}

static void take_reply(struct cfs_locks *l, const struct cfs_rpc_reply *r)
{
	uint32_t status = cfs_le32_to_cpu(r->hdr.status);
	struct waiter *w = waiter_at(l, NULL);

	while (w && w->tag != cfs_le64_to_cpu(r->hdr.tag))
		w = waiter_at(l, w);
	if (!w)
		return;
	switch (status) {
	case CFS_E_GRACE:
	case CFS_E_NOTLEADER:
		w->tag = 0;
		poll(NULL, 0, RETRY_MS);
		break;
	case CFS_E_BADSESSION:
	case CFS_E_BADSEQ:
		cfs_session_report_lost(l->c, cfs_client_session(l->c));
		finish(l, w, EIO, false);
		break;
	default:
		finish(l, w, status < 512 ? (int)status : EIO, true);
	}
}

/* one round with waiters: connect, send what is unsent, take an answer */
static void serve(struct cfs_locks *l)
{
	struct cfs_client *c = l->c;
	uint32_t leader = __atomic_load_n(&c->leader, __ATOMIC_ACQUIRE);
	struct cfs_rpc_reply r = { .drop = false };
	uint8_t body[sizeof(struct cfs_lock_req)];
	struct cfs_node_conn *nc = NULL;
	struct cfs_thread *t = cfs_thread_self(c);
	struct cfs_rpc_conn *before = t->nodes[leader].conn;
	uint64_t v;
	int rc;

	if (cfs_client_state(c) != CFS_SESS_LIVE) {
		poll(NULL, 0, RETRY_MS);
		return;
	}
	rc = cfs_node_conn(c, t, leader, cfs_client_session(c), &nc);
	if (rc == CFS_E_BADSESSION) {
		cfs_session_report_lost(c, cfs_client_session(c));
		return;
	}
	if (rc) {
		resend_all(l);
		cfs_client_next_leader(c, leader);
		poll(NULL, 0, RETRY_MS);
		return;
	}
	if (nc->conn != before)
		resend_all(l);
	for (struct waiter *w = waiter_at(l, NULL); w && !rc; w = waiter_at(l, w))
		rc = attend(l, nc, w);
	if (!rc) {
		r.body = body;
		r.body_max = sizeof(body);
		rc = cfs_rpc_recv(nc->conn, &r, l->wake_fd, cfs_boot_ns() + SLICE_MS * CFS_NSEC_PER_MSEC);
	}
	if (rc == -EINTR && read(l->wake_fd, &v, sizeof(v)) < 0 && errno != EAGAIN)
		cfs_warn("lock wake-up: %s", strerror(errno));
	if (!rc) {
		take_reply(l, &r);
	} else if (cfs_rpc_broken(nc->conn) || (rc != -EINTR && rc != -ETIMEDOUT)) {
		cfs_node_conn_close(nc);
		resend_all(l);
	}
}

static void *locks_main(void *arg)
{
	struct cfs_locks *l = arg;
	uint64_t v;

	for (;;) {
		fail_stale(l);
		if (waiter_at(l, NULL)) {
			serve(l);
			continue;
		}
		if (__atomic_load_n(&l->stop, __ATOMIC_ACQUIRE))
			break;
		poll(&(struct pollfd){ .fd = l->wake_fd, .events = POLLIN }, 1, -1);
		if (read(l->wake_fd, &v, sizeof(v)) < 0 && errno != EAGAIN)
			break;
	}
	cfs_thread_drop(l->c);
	return NULL;
}

int cfs_locks_create(struct cfs_client *c, struct cfs_locks **ret_l)
{
	struct cfs_locks *l = calloc(1, sizeof(*l));
	int rc;

	if (!l)
		return -ENOMEM;
	l->c = c;
	cfs_list_init(&l->waiters);
	pthread_mutex_init(&l->lock, NULL);
	l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = l->wake_fd < 0 ? -errno : -pthread_create(&l->thread, NULL, locks_main, l);
	if (rc) {
		if (l->wake_fd >= 0)
			close(l->wake_fd);
		free(l);
		return rc;
	}
	*ret_l = l;
	return 0;
}

void cfs_locks_destroy(struct cfs_locks *l)
{
	if (!l)
		return;
	__atomic_store_n(&l->stop, true, __ATOMIC_RELEASE);
	wake(l);
	pthread_join(l->thread, NULL);
	close(l->wake_fd);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

void cfs_locks_wait(struct cfs_client *c, struct fuse_req *req, const struct cfs_lock_req *body)
{
	struct cfs_locks *l = c->locks;
	struct waiter *w = calloc(1, sizeof(*w));
	struct cfs_slot_use use = { .unique = cfs_thread_unique(cfs_thread_self(c)), .opcode = CFS_OP_LOCK, .lock = body,
				    .key = cfs_hash64(body, sizeof(*body), CFS_OP_LOCK) };
	int err = w ? 0 : ENOMEM;

	if (!err) {
		w->l = l;
		w->req = req;
		w->body = *body;
		w->session_gen = __atomic_load_n(&c->session_gen, __ATOMIC_ACQUIRE);
		/* one that waited before the daemon died goes on waiting */
		if (!cfs_slots_claim(&c->slots, &use, &w->slot) && cfs_slots_get(&c->slots, 1000, &use, &w->slot))
			err = ENOLCK;
	}
	if (!err) {
		pthread_mutex_lock(&l->lock);
		if (l->n >= CFS_LOCK_WAITS_MAX || l->stop) {
			err = ENOLCK;
		} else {
			/* the lock thread may answer as soon as the waiter is listed: register first */
			l->n++;
		}
		pthread_mutex_unlock(&l->lock);
		if (err)
			cfs_slots_put(&c->slots, &w->slot, false);
	}
	if (err) {
		free(w);
		fuse_reply_err(req, err);
		return;
	}
	w->chan = cfs_chan_get(cfs_thread_self(c)->chan);
	fuse_req_interrupt_func(req, on_interrupt, w);
	pthread_mutex_lock(&l->lock);
	cfs_list_add_tail(&l->waiters, &w->link);
	pthread_mutex_unlock(&l->lock);
	wake(l);
}
