// SPDX-License-Identifier: MIT
/*
 * orphans.c - inodes that we asked the server to keep although they lose their last name.
 *
 * When we say in the answer to a BRK_UNLINK that a file is open here, the mutation is still to be carried out, or may fail; and the
 * file may be closed before it is. So the inode is watched until its links are known: none, then it is released at its
 * last close, or now if that is over; or some, for longer than any mutation takes. The list and `running` are under
 * the lock; one job at a time looks after it.
 */
#include "client/client_i.h"

#include "base/log.h"
#include "client/inode.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define WATCH_LEASES	8u	/* lease times after which an unlink that was announced is over in any case */
#define LOOK_MIN_MS	5
#define LOOK_MAX_MS	500

struct watched {
	struct cfs_list link;
	uint64_t ino, until_ns;
};

struct cfs_orphans {
	pthread_mutex_t lock;
	struct cfs_list list;
	bool running;
};

int cfs_orphans_create(struct cfs_client *c, struct cfs_orphans **ret_o)
{
	struct cfs_orphans *o = calloc(1, sizeof(*o));

	(void)c;
	if (!o)
		return -ENOMEM;
	pthread_mutex_init(&o->lock, NULL);
	cfs_list_init(&o->list);
	*ret_o = o;
	return 0;
}

void cfs_orphans_destroy(struct cfs_orphans *o)
{
	if (!o)
		return;
	while (!cfs_list_empty(&o->list)) { /* the session's end releases them */
		struct watched *w = cfs_list_first(&o->list, struct watched, link);

		cfs_list_del(&w->link);
		free(w);
	}
	pthread_mutex_destroy(&o->lock);
	free(o);
}

static int links_of(struct cfs_client *c, uint64_t ino, uint32_t *ret_links)
{
	struct cfs_ino_req body = { .ino = cfs_cpu_to_le64(ino) };
	struct iovec iov = { &body, sizeof(body) };
	struct cfs_attr_rep rep;
	struct cfs_call call = { .opcode = CFS_OP_GETATTR, .body = &iov, .n_body = 1, .rep = &rep, .rep_max = sizeof(rep) };
	int rc = cfs_call(c, &call);

	if (!rc && call.rep_len != sizeof(rep))
		rc = -EPROTO;
	if (!rc)
		*ret_links = cfs_le32_to_cpu(rep.attr.nlink);
	return rc;
}

/* true: nothing is left to watch */
static bool look_at(struct cfs_client *c, const struct watched *w)
{
	uint32_t links = 0;
	int rc;

	cfs_victim_begin(c, w->ino); /* who opens it just now waits */
	rc = links_of(c, w->ino, &links);
	if (!rc && !links && !cfs_inode_set_orphan(c, w->ino))
		cfs_op_release_orphan(c, w->ino, false);
	cfs_victim_end(c, w->ino);
	return rc || !links || cfs_boot_ns() >= w->until_ns;
}

void cfs_orphan_inherited(struct cfs_client *c, uint64_t ino)
{
	uint32_t links = 0;
	int rc;

	cfs_victim_begin(c, ino); /* who opens it just now waits */
	rc = links_of(c, ino, &links);
	if (!rc && !links && !cfs_inode_set_orphan(c, ino))
		cfs_op_release_orphan(c, ino, false);
	cfs_victim_end(c, ino);
	/* the one before may have said that it is open here to a mutation that is still to come */
	if (!rc && links)
		cfs_orphan_watch(c, ino);
}

static void watch_job(struct cfs_client *c, void *arg)
{
	struct cfs_orphans *o = arg;
	int nap_ms = LOOK_MIN_MS;

	for (;;) {
		struct cfs_list round = CFS_LIST_INIT(round);
		bool any = false;

		poll(NULL, 0, nap_ms);
		nap_ms = cfs_min(2 * nap_ms, LOOK_MAX_MS);
		pthread_mutex_lock(&o->lock);
		while (!cfs_list_empty(&o->list)) {
			struct cfs_list *first = o->list.next;

			cfs_list_del(first);
			cfs_list_add_tail(&round, first);
		}
		o->running = !cfs_list_empty(&round);
		any = o->running;
		pthread_mutex_unlock(&o->lock);
		if (!any)
			return;
		while (!cfs_list_empty(&round)) {
			struct watched *w = cfs_list_first(&round, struct watched, link);

			cfs_list_del(&w->link);
			if (__atomic_load_n(&c->stopping, __ATOMIC_ACQUIRE) || look_at(c, w)) {
				free(w);
				nap_ms = LOOK_MIN_MS;
				continue;
			}
			pthread_mutex_lock(&o->lock);
			cfs_list_add_tail(&o->list, &w->link);
			pthread_mutex_unlock(&o->lock);
		}
	}
}

void cfs_orphan_watch(struct cfs_client *c, uint64_t ino)
{
	struct watched *w = calloc(1, sizeof(*w));
	struct cfs_orphans *o = c->orphans;
	bool start;

	CFS_ASSERT(w != NULL);
	w->ino = ino;
	w->until_ns = cfs_boot_ns() + (uint64_t)WATCH_LEASES * c->lease_ms * CFS_NSEC_PER_MSEC;
	pthread_mutex_lock(&o->lock);
	cfs_list_add_tail(&o->list, &w->link);
	start = !o->running;
	o->running = true;
	pthread_mutex_unlock(&o->lock);
	if (start && cfs_jobs_submit(c->jobs, watch_job, o)) {
		cfs_warn("inode %llx stays with the server until the end of the session", (unsigned long long)ino);
		pthread_mutex_lock(&o->lock);
		o->running = false;
		pthread_mutex_unlock(&o->lock);
	}
}
