/* SPDX-License-Identifier: MIT */
/*
 * cmd_mount.c - `claudefs mount SERVER DIR`, and the same program as mount.claudefs, which mount(8)
 * calls with SOURCE DIR [-sfnv] [-N ns] [-t type] [-o options]. Exit codes are mount(8)'s.
 */
#include "cmd.h"

#include "client/mount.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define OPTIONS_MAX 16
#define MOUNT_OK 0
#define MOUNT_USAGE 1
#define MOUNT_SYSERR 2
#define MOUNT_FAIL 32

static void usage(FILE *f)
{
	fputs("Usage: claudefs mount [-f] [-o OPTION[,OPTION]...] SERVER[:PORT][,SERVER...] DIR\n"
	      "Mounts the file system that SERVER serves at DIR; unmount with umount(8).\n"
	      "  -f          stay in the foreground\n"
	      "  -o OPTIONS  ro, allow_other, cachedir=DIR, cachesize=SIZE, dirtysize=SIZE, cache_entries=N,\n"
	      "              hard, softerr, timeo=SECONDS, cache=strict|none, persist: see mount.claudefs(8)\n"
	      "  -s          ignore options that are not known\n", f);
}

/* how this program is called to go on with a mount that outlives it: all that was said, with the mount point spelled out. To be freed */
static const char **restart_args(const struct cfs_mount_opts *o, const char *const *options, unsigned n_options, bool sloppy,
				 const char *source)
{
	const char **v = calloc(2 * n_options + 10, sizeof(*v));
	unsigned n = 0;

	if (!v)
		return NULL;
	v[n++] = "claudefs";
	v[n++] = "mount";
	if (o->foreground)
		v[n++] = "-f";
	if (sloppy)
		v[n++] = "-s";
	for (unsigned i = 0; i < n_options; i++) {
		v[n++] = "-o";
		v[n++] = options[i];
	}
	if (o->ro) {
		v[n++] = "-o";
		v[n++] = "ro";
	}
	v[n++] = source;
	v[n++] = o->mountpoint;
	return v;
}

/* shared by both ways of calling: positional arguments may stand before or after the options */
static int run(int argc, char **argv, bool helper)
{
	struct cfs_mount_opts *o = calloc(1, sizeof(*o));
	bool sloppy = false, fake = false;
	char err[256] = "", dir[PATH_MAX];
	const char *options[OPTIONS_MAX], **again = NULL;
	unsigned n_options = 0;
	struct stat st;
	int c, rc;

	if (!o)
		return cmd_fail(MOUNT_SYSERR, "mount", "out of memory");
	cfs_mount_opts_init(o);
	while ((c = getopt(argc, argv, helper ? "o:sfnvrwN:t:h" : "o:sfh")) != -1) {
		switch (c) {
		case 'o':
			if (n_options == CFS_ARRAY_SIZE(options)) {
				rc = cmd_fail(MOUNT_USAGE, "mount", "more than %zu -o options",
					      CFS_ARRAY_SIZE(options));
				goto out;
			}
			options[n_options++] = optarg;
			break;
		case 's': sloppy = true; break;
		case 'f':	/* mount(8): fake; by hand: foreground */
			if (helper)
				fake = true;
			else
				o->foreground = true;
			break;
		case 'r': o->ro = true; break;
		case 'n': case 'v': case 'w': case 't': break;
		case 'N':
			rc = cmd_fail(MOUNT_USAGE, "mount", "-N: mounting into another namespace is not supported");
			goto out;
		case 'h':
			usage(stdout);
			rc = MOUNT_OK;
			goto out;
		default:
			usage(stderr);
			rc = MOUNT_USAGE;
			goto out;
		}
	}
	if (argc - optind != 2) {
		usage(stderr);
		rc = MOUNT_USAGE;
		goto out;
	}
	for (unsigned i = 0; i < n_options; i++) {
		if (cfs_mount_parse_options(o, options[i], sloppy, err, sizeof(err))) {
			rc = cmd_fail(MOUNT_USAGE, "mount", "%s", err);
			goto out;
		}
	}
	if (cfs_mount_parse_source(o, argv[optind], err, sizeof(err))) {
		rc = cmd_fail(MOUNT_USAGE, "mount", "%s", err);
		goto out;
	}
	if (cfs_mount_goes_on()) {	/* looking there would wait for us */
		snprintf(dir, sizeof(dir), "%s", argv[optind + 1]);
	} else if (!realpath(argv[optind + 1], dir) || stat(dir, &st)) {
		rc = cmd_fail(MOUNT_FAIL, "mount", "%s: %s", argv[optind + 1], strerror(errno));
		goto out;
	} else if (!S_ISDIR(st.st_mode)) {
		rc = cmd_fail(MOUNT_FAIL, "mount", "%s: is not a directory", dir);
		goto out;
	}
	snprintf(o->mountpoint, sizeof(o->mountpoint), "%s", dir);
	again = restart_args(o, options, n_options, sloppy, argv[optind]);
	if (!again) {
		rc = cmd_fail(MOUNT_SYSERR, "mount", "out of memory");
		goto out;
	}
	o->restart_argv = again;
	rc = fake || !cfs_mount_main(o) ? MOUNT_OK : MOUNT_FAIL;
out:
	free(again);
	free(o);
	return rc;
}

int cmd_mount(int argc, char **argv)
{
	return run(argc, argv, false);
}

int cmd_mount_helper(int argc, char **argv)
{
	return run(argc, argv, true);
}
