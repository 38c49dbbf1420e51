/* SPDX-License-Identifier: MIT */
/*
 * holder.h - the process that a persistent mount hangs on (docs/persist.md): it keeps the /dev/fuse descriptor and the memfd with
 * the state, starts the daemon, and another one when that dies or asks to be replaced. One thread, no state beyond that.
 *
 * Holder and daemon speak by a SOCK_SEQPACKET pair, one letter a message, text after it:
 *
 *   daemon -> holder   F  (with a descriptor) this is /dev/fuse: the file system is mounted
 *                      C  (with a descriptor) this is the cache directory, locked
 *                      T  number of a thread that does nothing, and so ends as soon as the process is killed
 *                      E  unmounted, or failed: I end, in my own time
 *                      U  start the program that is there now, in my place
 *                      R  what I was given is understood: I could take over
 *                      N  why I cannot
 *   holder -> daemon   Q  the next one is ready: end, but leave all as it is
 *                      N  why there will be no next one
 *                      G  take over now: D the one before died, U it was to be replaced
 */
#ifndef CFS_CLIENT_HOLDER_H
#define CFS_CLIENT_HOLDER_H

#include <stdbool.h>
#include <stddef.h>

struct cfs_mount_opts;

#define CFS_HOLDER_FD		'F'
#define CFS_HOLDER_CACHE	'C'
#define CFS_HOLDER_THREAD	'T'
#define CFS_HOLDER_END		'E'
#define CFS_HOLDER_UPGRADE	'U'
#define CFS_HOLDER_READY	'R'
#define CFS_HOLDER_NO		'N'
#define CFS_HOLDER_LEAVE	'Q'
#define CFS_HOLDER_GO		'G'
#define CFS_HOLDER_TEXT_MAX	256u
#define CFS_HOLDER_ENV		"CLAUDEFS_TAKEOVER"	/* socket,memfd,fuse,cache: descriptors of who is to take over */
#define CFS_EXIT_LEFT		76	/* of a daemon that was told to leave */

/**
 * cfs_hold() - start the daemon by `first` in a child, and stay until the mount ends.
 * @report: the daemon's; closed here
 * Where a service manager keeps descriptors, and has kept those of a holder that ended without unmounting, the mount of that one goes on.
 * Return: exit code.
 */
int cfs_hold(const struct cfs_mount_opts *o, int report, int (*first)(const struct cfs_mount_opts *o, int report, int sock,
								      int memfd));

/* has a service manager kept a mount for us? It may not be looked at: that would wait for a daemon */
bool cfs_hold_goes_on(void);

/* from the daemon's side: start that thread, and tell of it. 0 or -errno */
int cfs_holder_watch_me(int sock);
/* fd -1: none. 0 or -errno */
int cfs_holder_tell(int sock, char what, const char *text, int fd);
/* the next message, waiting timeout_ms (-1: for ever): its letter, 0: the holder has gone, -ETIMEDOUT, or -errno */
int cfs_holder_hear(int sock, int timeout_ms, char *text, size_t len);

#endif
