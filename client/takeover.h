/* SPDX-License-Identifier: MIT */
/*
 * takeover.h - a daemon that goes on where another one died, or left (docs/persist.md). In order: cfs_takeover_init() asks whether
 * it can, and touches nothing outside; cfs_takeover_inherit() with the data path there and before the session thread starts;
 * cfs_takeover_resume() just before the workers begin to read.
 */
#ifndef CFS_CLIENT_TAKEOVER_H
#define CFS_CLIENT_TAKEOVER_H

#include <stddef.h>
#include <stdint.h>

struct cfs_client;
struct cfs_takeover;

/*
 * libfuse is fed the INIT that the first daemon was sent. -EPROTO: this program would answer it differently (why says so);
 * then it must not take over.
 */
int cfs_takeover_init(struct cfs_client *c, char *why, size_t len);
/* open files, locks' owners, the session and its slots; what the kernel may know is believed to be known */
int cfs_takeover_inherit(struct cfs_client *c);
/* the requests that the one before left unanswered come again; what became of its own is found out */
int cfs_takeover_resume(struct cfs_client *c);
/* NULL is fine; before the session ends */
void cfs_takeover_stop(struct cfs_client *c);

/* an open file that was offered in an answer to this request */
void cfs_takeover_offered(struct cfs_takeover *t, uint64_t id, uint64_t unique);
/* it comes again, so that the kernel does not have that file: its number, 0: there is none */
uint64_t cfs_takeover_refused(struct cfs_takeover *t, uint64_t unique);

#endif
