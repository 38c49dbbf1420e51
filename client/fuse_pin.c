// SPDX-License-Identifier: MIT
/*
 * fuse_pin.c - opening a file whose name is being replaced all the time.
 *
 * The kernel opens by node id what it looked up by name before. If the file was replaced in between, OPEN is answered
 * ESTALE, and the kernel looks the name up and tries again, once. So that it succeeds then, the process is remembered, and what its
 * next look-up finds is opened on its behalf before the answer: a pin, which keeps the file until the process has
 * opened it itself, or for PIN_MS. Small tables: a process that finds no room gets ESTALE as before.
 */
#include "client/accel.h"
#include "client/fuse_ops_i.h"

#include <fcntl.h>

#define STALE_MS	1000u
#define PIN_MS		2000u

static bool expired(uint64_t since_ns, uint32_t ms)
{
	return cfs_boot_ns() - since_ns >= ms * CFS_NSEC_PER_MSEC;
}

void cfs_pin_stale(struct cfs_client *c, uint32_t pid)
{
	struct cfs_stale_opener *free_one = NULL;

	pthread_mutex_lock(&c->pins_lock);
	for (unsigned i = 0; i < CFS_PINS_MAX; i++) {
		struct cfs_stale_opener *s = &c->stale[i];

		if (s->since_ns && s->pid == pid) {
			free_one = s;
			break;
		}
		if (!s->since_ns || expired(s->since_ns, STALE_MS))
			free_one = s;
	}
	if (free_one) {
		*free_one = (struct cfs_stale_opener){ .pid = pid, .since_ns = cfs_boot_ns() };
		__atomic_store_n(&c->any_stale, true, __ATOMIC_RELEASE);
		cfs_accel_hold(c, true);
	}
	pthread_mutex_unlock(&c->pins_lock);
}

bool cfs_pin_wanted(struct cfs_client *c, uint32_t pid)
{
	bool found = false, any = false;

	if (cfs_likely(!__atomic_load_n(&c->any_stale, __ATOMIC_ACQUIRE)))
		return false;
	pthread_mutex_lock(&c->pins_lock);
	for (unsigned i = 0; i < CFS_PINS_MAX; i++) {
		struct cfs_stale_opener *s = &c->stale[i];

		if (s->since_ns && expired(s->since_ns, STALE_MS))
			s->since_ns = 0;
		any |= s->since_ns != 0;
		found |= s->since_ns && s->pid == pid;
	}
	__atomic_store_n(&c->any_stale, any, __ATOMIC_RELEASE);
	cfs_accel_hold(c, any);
	pthread_mutex_unlock(&c->pins_lock);
	return found;
}

int cfs_pin(struct cfs_op *op, const struct cfs_attr *attr)
{
	struct cfs_client *c = op->c;
	struct cfs_fh *fh = NULL;
	bool kept = false;
	int err = cfs_op_open_for(op, attr, &fh);

	if (err)
		return err;
	pthread_mutex_lock(&c->pins_lock);
	for (unsigned i = 0; i < CFS_PINS_MAX && !kept; i++) {
		if (c->pins[i].fh)
			continue;
		c->pins[i] = (struct cfs_pin){ .pid = (uint32_t)fuse_req_ctx(op->req)->pid, .fh = fh,
					       .since_ns = cfs_boot_ns() };
		kept = true;
	}
	pthread_mutex_unlock(&c->pins_lock);
	if (!kept)
		cfs_op_close_for(c, fh);
	return 0;
}

/* pid: that process has opened what it wanted; all: everybody; else what has expired */
static void unpin(struct cfs_client *c, const uint32_t *pid, bool all)
{
	struct cfs_fh *gone[CFS_PINS_MAX];
	unsigned n = 0;

	pthread_mutex_lock(&c->pins_lock);
	for (unsigned i = 0; i < CFS_PINS_MAX; i++) {
		struct cfs_pin *p = &c->pins[i];

		if (p->fh && (all || (pid ? p->pid == *pid : expired(p->since_ns, PIN_MS)))) {
			gone[n++] = p->fh;
			p->fh = NULL;
		}
		if (pid && c->stale[i].pid == *pid)
			c->stale[i].since_ns = 0;
	}
	pthread_mutex_unlock(&c->pins_lock);
	for (unsigned i = 0; i < n; i++)
		cfs_op_close_for(c, gone[i]);
}

void cfs_pin_opened(struct cfs_client *c, uint32_t pid)
{
	if (cfs_unlikely(__atomic_load_n(&c->any_stale, __ATOMIC_ACQUIRE)))
		unpin(c, &pid, false);
}

void cfs_pins_expire(struct cfs_client *c)
{
	unpin(c, NULL, false);
}

void cfs_pins_drop(struct cfs_client *c)
{
	unpin(c, NULL, true);
}
