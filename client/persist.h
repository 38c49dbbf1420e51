/* SPDX-License-Identifier: MIT */
/*
 * persist.h - a mount that outlives its daemon: the state in a memfd (persist_state.h), as the daemon that is there writes it, and
 * as the next one finds it. docs/persist.md tells the whole.
 *
 * Writing is a store or a few; nothing here blocks or asks anybody. Who takes over (takeover.c) reads it before it starts its
 * own threads. c->persist is NULL in an ordinary mount.
 */
#ifndef CFS_CLIENT_PERSIST_H
#define CFS_CLIENT_PERSIST_H

#include "client/persist_state.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

struct cfs_client;

#define CFS_UNIQUE_RESENT	(1ull << 63)	/* the kernel sets it when it sends a request again */

struct cfs_persist {
	struct cfs_pst_head *head;
	struct cfs_pst_slot *slots;
	struct cfs_pst_fh *fhs;
	struct cfs_pst_owner *owners;
	struct cfs_pst_append *appends;
	int memfd;
	int holder;			/* SOCK_SEQPACKET to the holder (holder.h) */
	int fuse_fd, cache_fd;		/* inherited, or -1 */
	bool takeover;			/* this process is not the one that mounted */
	bool alone;			/* atomic: the holder has gone */
	/* `claudefs upgrade`, under cfs_client.lock and told by its cond */
	enum cfs_upgrade { CFS_UPGRADE_NONE = 0, CFS_UPGRADE_ASKED, CFS_UPGRADE_REFUSED, CFS_UPGRADE_LEAVING } upgrade;
	char refused[256];
	pthread_mutex_t owners_lock;
	uint32_t n_free;
	uint32_t free_owners[CFS_PST_OWNERS];
};

/* a memfd with an empty state. 0 or -errno */
int cfs_persist_new(int *ret_memfd);
/* map and check it; why: one line on failure. 0, -EPROTO: not of this version, -errno */
int cfs_persist_open(int memfd, struct cfs_persist **ret_p, char *why, size_t len);
void cfs_persist_close(struct cfs_persist *p);

/* open files; unique: of the request whose answer will tell the kernel of it. NULL for p is fine in all of these */
void cfs_persist_fh_offer(struct cfs_persist *p, uint64_t id, const struct cfs_pst_fh *fh);
void cfs_persist_fh_opened(struct cfs_persist *p, uint64_t id);
void cfs_persist_fh_del(struct cfs_persist *p, uint64_t id);
uint64_t cfs_persist_fh_id(const struct cfs_persist *p, uint32_t place);

/* a POSIX lock's owner: its record, to be deleted by; 0: no room */
uint32_t cfs_persist_owner_add(struct cfs_persist *p, uint64_t owner, uint64_t fh_id);
void cfs_persist_owner_del(struct cfs_persist *p, uint32_t record);

/*
 * A write at the end of a file was placed at off, for this request of the kernel, and will be sent to the servers; it is answered
 * (NULL for p is fine). Then, if the process before noted that of a request that comes again: where.
 */
void cfs_persist_append_at(struct cfs_persist *p, uint64_t unique, uint64_t off);
void cfs_persist_append_done(struct cfs_persist *p, uint64_t unique);
bool cfs_persist_append_find(struct cfs_persist *p, uint64_t unique, uint64_t *ret_off);

/* INIT and its answer, when it was sent; later: is this the same answer? */
void cfs_persist_init_done(struct cfs_persist *p, const void *in, size_t in_len, const void *out, size_t out_len);

/* the session that was opened; 0 for the time in between. Slots are slots.c's */
void cfs_persist_session(struct cfs_persist *p, struct cfs_client *c, uint64_t session);

#endif
