/* SPDX-License-Identifier: MIT */
/*
 * mount.h - what a program that mounts ClaudeFS calls: options, the mount itself, where to ask for its state.
 * The only client header that tools need; it knows nothing of FUSE.
 */
#ifndef CFS_CLIENT_MOUNT_H
#define CFS_CLIENT_MOUNT_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CFS_MOUNT_SERVERS_MAX	16u

/* tiers (tiers.h): auto uses what works, on fails the mount if it does not */
enum cfs_tier_want { CFS_TIER_WANT_AUTO = 0, CFS_TIER_WANT_ON, CFS_TIER_WANT_OFF };

struct cfs_mount_opts {
	char servers[CFS_MOUNT_SERVERS_MAX][256];	/* HOST:PORT */
	unsigned n_servers;
	char mountpoint[PATH_MAX];
	char cachedir[PATH_MAX];	/* empty: a directory of our own below /var/cache/claudefs, or $TMPDIR */
	char logfile[PATH_MAX];		/* empty: stderr in the foreground, else below the run directory */
	uint64_t cache_bytes, dirty_bytes, cache_entries;
	uint32_t timeo_s;		/* softerr: calls fail with ETIMEDOUT after this */
	uint32_t workers_max;		/* threads that serve FUSE requests */
	bool foreground, debug;
	bool ro, nosuid, nodev, noexec, sync, dirsync;
	bool allow_other;
	bool softerr;
	bool no_through;		/* nothrough: leases of contended files are passed on instead */
	bool cache_none;		/* cache=none: ask the server every time */
	enum cfs_tier_want uring, passthrough, bpf, persist;
	uint64_t pass_min, pass_max;	/* bytes of a named file that may be passed through; pass_min 0: all of them, at once */
	uint32_t persist_deaths;	/* of the daemon within a minute; with more the mount ends */
	/* how this program is called to go on with a mount (persist.h): NULL-terminated, argv[0] first; the caller's */
	const char *const *restart_argv;
	uint32_t metrics_port;		/* on 127.0.0.1; 0: none */
	uint64_t bpf_mem;		/* ceiling of the BPF tables, bytes; 0: only what an answering program needs */
};

/* the defaults; allow_other is on for root */
void cfs_mount_opts_init(struct cfs_mount_opts *o);
/**
 * cfs_mount_parse_options() - the text after -o: words separated by commas, as docs/man/mount.claudefs.8.scd lists them.
 * @sloppy: ignore unknown ones (mount -s)
 * @err: one line that says what is wrong, on failure
 * Return: 0 or -EINVAL.
 */
int cfs_mount_parse_options(struct cfs_mount_opts *o, const char *text, bool sloppy, char *err, size_t errlen);
/** cfs_mount_parse_source() - "HOST[:PORT][,HOST[:PORT]...][:/]"; [v6] in brackets. 0 or -EINVAL */
int cfs_mount_parse_source(struct cfs_mount_opts *o, const char *text, char *err, size_t errlen);

/**
 * cfs_mount_main() - mount. Unless o->foreground, returns in the caller when the mount answers (or failed), and the
 * mount is served by a child in a session of its own; in the foreground, returns when it was unmounted.
 * Errors are printed, one line. Call it before any thread is started.
 * Return: exit code: 0 or 1.
 */
int cfs_mount_main(const struct cfs_mount_opts *o);

/* was this program started to go on with a mount? Then nothing may look at its mount point before cfs_mount_main() */
bool cfs_mount_goes_on(void);

/* the device number of what is mounted last at a mount point that is spelled as mountinfo does. 0, -ENOENT, -errno */
int cfs_mount_device(const char *mountpoint, unsigned *ret_major, unsigned *ret_minor);

/**
 * cfs_mount_control_path() - the UNIX stream socket of the mount at `dir` (any spelling of its path): who sends it one line
 * (control.h), or ends his side, is sent one JSON document. Does not touch the mount itself, which might hang.
 * Return: 0, -ENAMETOOLONG, or -errno.
 */
int cfs_mount_control_path(const char *dir, char *path, size_t len);

#endif
