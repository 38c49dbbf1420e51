/* SPDX-License-Identifier: MIT */
/*
 * main.c - the `claudefs` command: one table of verbs. Called as mount.claudefs it is the
 * helper of mount(8), as umount.fuse.claudefs that of umount(8).
 */
#include "cmd.h"

#include <stdlib.h>
#include <string.h>

#ifndef CFS_VERSION
#define CFS_VERSION "0.1"
#endif

static const struct verb {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} verbs[] = {
	{ "format", cmd_format, "make a file, block device or NVMe namespace a ClaudeFS target" },
	{ "device", cmd_device, "list this machine's NVMe namespaces, measure a device" },
	{ "mount", cmd_mount, "mount a file system" },
	{ "umount", cmd_umount, "unmount it, and wait until all is saved" },
	{ "status", cmd_status, "show the state of a server or of a mount" },
	{ "doctor", cmd_doctor, "what this machine offers, what is used, and why not" },
	{ "tier", cmd_tier, "show a mount's tiers, or switch one on or off" },
	{ "upgrade", cmd_upgrade, "replace the process of a mount by the program installed now" },
	{ "top", cmd_top, "what a mount is doing: operations, times, hit rates, hot files" },
	{ "trace", cmd_trace, "print the requests of a mount, a file or a process as they happen" },
	{ "fsck", cmd_fsck, "check a stopped server's data, metadata against objects" },
};

static void usage(FILE *f)
{
	fprintf(f, "Usage: claudefs VERB [OPTION]... [ARG]...\n\nVerbs:\n");
	for (size_t i = 0; i < CFS_ARRAY_SIZE(verbs); i++)
		fprintf(f, "  %-8s %s\n", verbs[i].name, verbs[i].help);
	fprintf(f, "\n'claudefs VERB --help' tells more. Server: claudefsd(8).\n");
}

int main(int argc, char **argv)
{
	const char *self = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];

	if (!strcmp(self, "mount.claudefs"))
		return cmd_mount_helper(argc, argv);
	if (!strncmp(self, "umount.", 7))
		return cmd_umount_helper(argc, argv);
	if (argc < 2) {
		usage(stderr);
		return CMD_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		usage(stdout);
		return CMD_OK;
	}
	if (!strcmp(argv[1], "--version")) {
		printf("claudefs %s\n", CFS_VERSION);
		return CMD_OK;
	}
	for (size_t i = 0; i < CFS_ARRAY_SIZE(verbs); i++)
		if (!strcmp(argv[1], verbs[i].name))
			return verbs[i].run(argc - 1, argv + 1);
	fprintf(stderr, "claudefs: unknown verb '%s' (see claudefs --help)\n", argv[1]);
	return CMD_USAGE;
}
