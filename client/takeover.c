// SPDX-License-Identifier: MIT
/*
 * takeover.c - see takeover.h. What the one before was doing when it died is in three hands: requests of the kernel that it had not
 * answered come again (FUSE_NOTIFY_RESEND) and claim their slots, so that what the servers did for them is not done twice;
 * requests to servers that belong to none of these get an empty one in their place, whose answer tells that they are over; open
 * files that stood in an answer are the kernel's unless the request comes again.
 *
 * The thread here does the second and third: those for no request of the kernel at once, the others when all that comes again has come.
 */
#include "client/takeover.h"

#include "base/log.h"
#include "client/client_i.h"
#include "client/fhtab.h"
#include "client/fuse_fh.h"
#include "client/notify.h"
#include "client/persist.h"
#include "client/transport_i.h"
#include "uapi/fuse_new.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SETTLE_MIN_MS	1000u	/* from reading a request to claiming its slot, far more than that takes */
#define SETTLE_MAX_MS	10000u	/* under a load that never lets the queue of the kernel run empty */
#define OFFERED_MAX	4096u	/* as many as requests were being served */
#define LATE_RETURN_MS	250u	/* a LEASE_RETURN of the one before may still be in the server's socket */

struct offered {
	uint64_t id, unique;
};

struct cfs_takeover {
	struct cfs_client *c;
	pthread_mutex_t lock;		/* offered */
	struct offered offered[OFFERED_MAX];
	unsigned n_offered;
	bool stop;			/* atomic */
	bool running;
	pthread_t thread;
};

/* ---- can we? --------------------------------------------------------------------------------- */
struct init_chan {
	struct cfs_chan base;
	uint8_t out[CFS_PST_INIT_MAX];
	size_t len;
};

static ssize_t keep_reply(struct cfs_chan *ch, struct iovec *iov, int count)
{
	struct init_chan *ic = cfs_container_of(ch, struct init_chan, base);
	size_t all = 0;

	for (int i = 0; i < count; i++) {
		size_t n = cfs_min(iov[i].iov_len, sizeof(ic->out) - ic->len);

		memcpy(ic->out + ic->len, iov[i].iov_base, n);
		ic->len += n;
		all += iov[i].iov_len;
	}
	return (ssize_t)all;
}

static void keep_forever(struct cfs_chan *ch)
{
	(void)ch;
}

/* what of two answers to INIT is not the same, for people */
static void explain(const uint8_t *then, const uint8_t *now, char *why, size_t len)
{
	struct fuse_init_out a, b;
	uint64_t fa, fb;

	memcpy(&a, then + sizeof(struct fuse_out_header), sizeof(a));
	memcpy(&b, now + sizeof(struct fuse_out_header), sizeof(b));
	fa = a.flags | (uint64_t)a.flags2 << 32;
	fb = b.flags | (uint64_t)b.flags2 << 32;
	if (fa != fb)
		snprintf(why, len, "the mount has FUSE flags %llx, this program negotiates %llx", (unsigned long long)fa,
			 (unsigned long long)fb);
	else
		snprintf(why, len, "this program negotiates other limits with the kernel than the mount has");
}

int cfs_takeover_init(struct cfs_client *c, char *why, size_t len)
{
	struct init_chan ic = { .base = { .refs = 1, .reply = keep_reply, .destroy = keep_forever } };
	const struct cfs_pst_head *h = c->persist->head;
	char in[CFS_PST_INIT_MAX] __attribute__((aligned(8)));

	c->takeover = calloc(1, sizeof(*c->takeover));
	if (!c->takeover)
		return -ENOMEM;
	c->takeover->c = c;
	pthread_mutex_init(&c->takeover->lock, NULL);
	if (h->init_in_len < sizeof(struct fuse_in_header) ||
	    h->init_out_len < sizeof(struct fuse_out_header) + sizeof(struct fuse_init_out)) {
		snprintf(why, len, "the kernel had not begun to use the mount");
		return -EPROTO;
	}
	memcpy(in, h->init_in, h->init_in_len);
	cfs_transport_serve(c, &ic.base, in, h->init_in_len);
	if (ic.len == h->init_out_len && !memcmp(ic.out, h->init_out, ic.len))
		return 0;
	if (ic.len == h->init_out_len)
		explain(h->init_out, ic.out, why, len);
	else
		snprintf(why, len, "this program answers the kernel's INIT in another form");
	return -EPROTO;
}

/* ---- what was offered ----------------------------------------------------------------------------- */
void cfs_takeover_offered(struct cfs_takeover *t, uint64_t id, uint64_t unique)
{
	pthread_mutex_lock(&t->lock);
	if (t->n_offered < OFFERED_MAX)
		t->offered[t->n_offered++] = (struct offered){ id, unique };
	else
		cfs_warn("open file %llx may stay open until the end of the mount", (unsigned long long)id);
	pthread_mutex_unlock(&t->lock);
}

uint64_t cfs_takeover_refused(struct cfs_takeover *t, uint64_t unique)
{
	uint64_t id = 0;

	pthread_mutex_lock(&t->lock);
	for (unsigned i = 0; i < t->n_offered && !id; i++) {
		if (t->offered[i].unique != unique)
			continue;
		id = t->offered[i].id;
		t->offered[i] = t->offered[--t->n_offered];
	}
	pthread_mutex_unlock(&t->lock);
	return id;
}

static void accept_offered(struct cfs_takeover *t)
{
	pthread_mutex_lock(&t->lock);
	while (t->n_offered)
		cfs_persist_fh_opened(t->c->persist, t->offered[--t->n_offered].id);
	pthread_mutex_unlock(&t->lock);
}

/* ---- what it had sent -------------------------------------------------------------------------------- */
static int lock_request(struct cfs_client *c, struct cfs_lock_req *body, uint8_t kind, bool mutating)
{
	struct iovec iov = { body, sizeof(*body) };
	struct cfs_call call = { .opcode = CFS_OP_LOCK, .mutating = mutating, .body = &iov, .n_body = 1,
				 .rep = cfs_thread_buf(cfs_thread_self(c)), .rep_max = CFS_BODY_MAX };

	body->kind = kind;
	body->wait = 0;
	return cfs_call(c, &call);
}

/*
 * Whatever has this slot and seq by now is answered; if nothing has, an empty request takes the place of the lost one, and should
 * that arrive after all it is a repeat. A lock that nobody waits for any more is not to be had.
 */
static void resolve(struct cfs_client *c, const struct cfs_slot *slot, struct cfs_lock_req *lock, bool bg)
{
	struct cfs_release_req req = { 0 };
	struct iovec iov = { &req, sizeof(req) };
	struct cfs_call call = { .opcode = CFS_OP_RELEASE, .body = &iov, .n_body = 1,
				 .rep = cfs_thread_buf(cfs_thread_self(c)), .rep_max = CFS_BODY_MAX };
	bool waits = lock->wait;
	int rc;

	if (waits)
		lock_request(c, lock, CFS_LOCK_CANCEL, false);
	rc = cfs_call_slot(c, &call, slot);
	if (rc == -ESHUTDOWN)
		return;		/* the session ends, and with it all its slots */
	if (waits && !rc)
		lock_request(c, lock, CFS_LOCK_UNLOCK, true);
	/* it may have changed what was looked at meanwhile */
	cfs_breaks_drop_all(c, false);
	cfs_slots_resolved(&c->slots, slot, bg);
}

static unsigned resolve_all(struct cfs_takeover *t, bool bg)
{
	struct cfs_lock_req lock;
	struct cfs_slot slot;
	unsigned n = 0;

	while (!__atomic_load_n(&t->stop, __ATOMIC_ACQUIRE) && cfs_slots_claim_any(&t->c->slots, bg, &slot, &lock)) {
		resolve(t->c, &slot, &lock, bg);
		n++;
	}
	return n;
}

/* the kernel queues what comes again before all that is new: when its queue was empty once, all of it was read */
static void await_resent(struct cfs_takeover *t)
{
	struct pollfd p = { .fd = t->c->persist->fuse_fd, .events = POLLIN };
	uint64_t begin = cfs_boot_ns(), read_at = 0;

	for (;;) {
		uint64_t now = cfs_boot_ns();

		if (!read_at && (poll(&p, 1, 0) <= 0 || now - begin >= SETTLE_MAX_MS * CFS_NSEC_PER_MSEC))
			read_at = now;
		if (__atomic_load_n(&t->stop, __ATOMIC_ACQUIRE) ||
		    (read_at && now - read_at >= SETTLE_MIN_MS * CFS_NSEC_PER_MSEC))
			return;
		poll(NULL, 0, 10);
	}
}

static void *takeover_main(void *arg)
{
	struct cfs_takeover *t = arg;
	unsigned bg, others;

	bg = resolve_all(t, true);
	await_resent(t);
	others = resolve_all(t, false);
	if (!__atomic_load_n(&t->stop, __ATOMIC_ACQUIRE))
		accept_offered(t);
	cfs_info("taken over: %u requests of the one before looked after, %u of them its own", bg + others, bg);
	cfs_thread_drop(t->c);
	return NULL;
}

/* ---- in order -------------------------------------------------------------------------------------------- */
int cfs_takeover_inherit(struct cfs_client *c)
{
	struct cfs_pst_head *h = c->persist->head;
	int rc;

	if (__atomic_exchange_n(&h->returning, 0, __ATOMIC_SEQ_CST))
		poll(NULL, 0, LATE_RETURN_MS);
	/* its timeouts ended with the session's lease, whose last renewal was before now */
	cfs_kernel_has_all(c, cfs_boot_ns() + (uint64_t)cfs_max(h->lease_ms, 100u) * CFS_NSEC_PER_MSEC);
	rc = cfs_fh_restore_all(c);
	if (!rc && h->session)
		cfs_slots_inherit(&c->slots);
	return rc;
}

int cfs_takeover_resume(struct cfs_client *c)
{
	struct fuse_out_header out = { .len = sizeof(out), .error = CFS_FUSE_NOTIFY_RESEND };
	struct cfs_takeover *t = c->takeover;
	int rc = 0;

	if (write(c->persist->fuse_fd, &out, sizeof(out)) != sizeof(out))
		rc = -errno;
	if (rc == -ENOTCONN || rc == -ENODEV)	/* unmounted meanwhile: the workers find out */
		rc = 0;
	cfs_notify_epoch(c);
	if (!rc)
		rc = -pthread_create(&t->thread, NULL, takeover_main, t);
	t->running = !rc;
	return rc;
}

void cfs_takeover_stop(struct cfs_client *c)
{
	struct cfs_takeover *t = c->takeover;

	if (!t)
		return;
	__atomic_store_n(&t->stop, true, __ATOMIC_RELEASE);
	if (t->running)
		pthread_join(t->thread, NULL);
	t->running = false;
}
