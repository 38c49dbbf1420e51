/* SPDX-License-Identifier: MIT */
/*
 * watch.h - the process beside a client that ends the kernel's connection when the client dies.
 *
 * /dev/fuse is closed, and every caller told, when the last thread of a client has ended. A killed client may have one that does
 * not end: while it drops a page it sleeps for that page's lock, which a request holds that nobody will answer any more. Somebody else has
 * to abort the connection (fs/fuse/control.c), by a descriptor that was opened while all was well. A persistent mount has a holder
 * (holder.h) and no such process: there the request is answered by the next daemon, and when there will be none the holder does it.
 *
 * The process learns of the death by PR_SET_PDEATHSIG, which the kernel sends when the *thread* that forked ends, be there others
 * or not. It ignores all other signals, has none of the client's descriptors but those open at the fork, and ends with the client.
 * If both are killed at once (a control group out of memory as a whole), nobody aborts anything.
 */
#ifndef CFS_CLIENT_WATCH_H
#define CFS_CLIENT_WATCH_H

#include <sys/types.h>

struct cfs_watch {
	pid_t pid;	/* 0: none */
	int sock;
};

/**
 * cfs_watch_start() - begin to watch the calling thread, which is to be the only one and to live as long as the process.
 * @report: a descriptor that whoever waits for the client's first word reads from to its end, so that the child closes it; or -1
 * Return: 0 or -errno, and @w can be ended.
 */
int cfs_watch_start(struct cfs_watch *w, int report);

/* the connection is that of the FUSE file system with this (minor) device number. 0, or -errno: it cannot be aborted from here */
int cfs_watch_connection(struct cfs_watch *w, unsigned minor);

/*
 * The file that ends the connection of the file system with this device number when "1" is written to it, then or later; it does nothing once
 * that one is unmounted. Descriptor or -errno
 */
int cfs_watch_open_abort(unsigned minor);

/* the connection has ended: so does the process */
void cfs_watch_end(struct cfs_watch *w);

#endif
