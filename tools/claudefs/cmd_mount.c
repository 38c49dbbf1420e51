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
	      "              hard, softerr, timeo=SECONDS, cache=strict|none: see mount.claudefs(8)\n"
	      "  -s          ignore options that are not known\n", f);
}

/* shared by both ways of calling: positional arguments may stand before or after the options */
static int run(int argc, char **argv, bool helper)
{
	struct cfs_mount_opts *o = calloc(1, sizeof(*o));
	bool sloppy = false, fake = false;
	char err[256] = "", dir[PATH_MAX];
	const char *options[16];
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
	if (!realpath(argv[optind + 1], dir) || stat(dir, &st)) {
		rc = cmd_fail(MOUNT_FAIL, "mount", "%s: %s", argv[optind + 1], strerror(errno));
		goto out;
	}
	if (!S_ISDIR(st.st_mode)) {
		rc = cmd_fail(MOUNT_FAIL, "mount", "%s: is not a directory", dir);
		goto out;
	}
	snprintf(o->mountpoint, sizeof(o->mountpoint), "%s", dir);
	rc = fake || !cfs_mount_main(o) ? MOUNT_OK : MOUNT_FAIL;
out:
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
