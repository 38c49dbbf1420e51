// SPDX-License-Identifier: MIT
/*
 * session_reclaim.c - a new leader is told which leases this client holds, and what it does not grant again is given up; see session_i.h
 */
#include "client/session_i.h"

#include "base/log.h"
#include "client/persist.h"

#include <errno.h>
#include <stdlib.h>

struct held {
	struct cfs_lease_item *v;
	size_t n, cap;
	bool failed;
};

static void held_add(struct held *h, uint64_t ino, unsigned mode, bool open)
{
	if (h->n == h->cap) {
		size_t cap = h->cap ? 2 * h->cap : 1024;
		void *v = realloc(h->v, cap * sizeof(*h->v));

		if (!v) {
			h->failed = true;
			return;
		}
		h->v = v;
		h->cap = cap;
	}
	h->v[h->n++] = (struct cfs_lease_item){ .ino = cfs_cpu_to_le64(ino), .mode = (uint8_t)mode, .open = open };
}

static void held_dir(void *arg, uint64_t dir)
{
	held_add(arg, dir, CFS_LEASE_SHARED, false);
}

static void held_file(void *arg, uint64_t ino, unsigned mode, bool open)
{
	held_add(arg, ino, mode, open);
}

/* what a new leader did not grant again; the items, then a terminator with ino 0 */
static void give_up_leases(struct cfs_client *c, void *arg)
{
	for (struct cfs_lease_item *i = arg; i->ino; i++) {
		uint64_t ino = cfs_le64_to_cpu(i->ino);

		/* an inode is a file or a directory; the other call finds nothing */
		cfs_client_note(c, CFS_BRK_DIR | CFS_BRK_DIRATTR | CFS_BRK_DATA | CFS_BRK_ATTR, ino, ino, NULL, 0);
		cfs_breaks_drop_dir(c, ino);
		if (!cfs_has_data(c))
			continue;
		if (i->mode == CFS_LEASE_SHARED)
			cfs_data_break(c, ino, CFS_LEASE_SHARED);
		else
			cfs_data_lease_lost(c, ino);
	}
	free(arg);
}

static int reclaim_batch(struct cfs_session *s, const struct cfs_lease_item *v, uint32_t n, bool last)
{
	struct cfs_client *c = s->c;
	struct cfs_lease_list list = { .n = cfs_cpu_to_le32(n), .flags = cfs_cpu_to_le32(last ? CFS_RECLAIM_LAST : 0) };
	struct iovec body[2] = { { &list, sizeof(list) }, { (void *)(uintptr_t)v, n * sizeof(*v) } };
	struct cfs_lease_item *lost = NULL;
	struct cfs_rpc_reply r;
	struct cfs_msg_hdr hdr;
	struct cfs_cursor cur;
	const void *got;
	uint32_t n_lost = 0;
	int rc;

	cfs_hdr_init(&hdr, CFS_OP_RECLAIM);
	hdr.tag = cfs_cpu_to_le64(++s->tag);
	hdr.session = cfs_cpu_to_le64(cfs_client_session(c));
	rc = cfs_rpc_send(s->conn, &hdr, body, 2, NULL, 0, cfs_boot_ns() + ms_ns(IO_MS));
	if (!rc)
		rc = cfs_session_await_reply(s, s->tag, &r);
	if (!rc)
		rc = (int)cfs_le32_to_cpu(r.hdr.status);
	if (rc)
		return rc;
	cfs_cursor_init(&cur, s->rx, r.body_len);
	cfs_take_struct(&cur, &list);
	if (cfs_le32_to_cpu(list.n) != n)
		cfs_cursor_fail(&cur, "as many leases as were asked for");
	got = cfs_take_array(&cur, n, sizeof(*v), "leases");
	if (!got || cfs_cursor_end(&cur))
		return -EPROTO;
	lost = calloc(n + 1, sizeof(*lost));
	if (!lost)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		struct cfs_lease_item item;

		cfs_copy_elem(&item, got, i);
		if (item.ino != v[i].ino || item.mode >= v[i].mode)
			continue;
		lost[n_lost++] = item;
	}
	if (n_lost && !cfs_jobs_submit(c->jobs, give_up_leases, lost))
		return 0;
	if (n_lost)
		give_up_leases(c, lost);
	else
		free(lost);
	return 0;
}

int cfs_session_reclaim(struct cfs_session *s)
{
	struct cfs_client *c = s->c;
	uint64_t epoch = s->reclaim_epoch;
	struct held h = { 0 };
	int rc = 0;

	cfs_count(c, reclaims);
	cfs_dcache_walk_dirs(c->dcache, held_dir, &h);
	if (cfs_has_data(c))
		cfs_data_leases(c, held_file, &h);
	if (h.failed) {
		rc = -ENOMEM;
		goto out;
	}
	for (size_t at = 0; !rc; at += CFS_LEASE_LIST_MAX) {
		uint32_t n = (uint32_t)cfs_min(h.n - at, (size_t)CFS_LEASE_LIST_MAX);
		bool last = at + n == h.n;

		rc = reclaim_batch(s, h.v + at, n, last);
		if (last)
			break;
	}
	if (!rc) {
		cfs_info("%zu leases told to the new leader (epoch %llu)", h.n, (unsigned long long)epoch);
		__atomic_store_n(&c->leader_epoch, epoch, __ATOMIC_SEQ_CST);
		if (c->persist)
			__atomic_store_n(&c->persist->head->leader_epoch, epoch, __ATOMIC_SEQ_CST);
		if (s->reclaim_epoch == epoch)
			s->reclaim_epoch = 0;
	}
out:
	free(h.v);
	return rc;
}
