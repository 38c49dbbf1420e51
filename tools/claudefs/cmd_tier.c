/* SPDX-License-Identifier: MIT */
/* cmd_tier.c - `claudefs tier`: the tiers of a mount on this machine, and the switch that takes one out of it or puts it back. */
#include "cmd.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <string.h>

#define ANSWER_BYTES 65536u

static void usage(FILE *f)
{
	fputs("Usage: claudefs tier [--json] MOUNTPOINT [NAME on|off]\n"
	      "How a mount answers: its tiers, and whether they are used. NAME is uring, passthrough or bpf; off takes the tier\n"
	      "out of the live mount, on puts it back. Exits 1 if that is not possible.\n", f);
}

int cmd_tier(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "json", no_argument, NULL, 'j' }, { "help", no_argument, NULL, 'h' }, { 0 },
	};
	char buf[ANSWER_BYTES], line[128] = "status";
	json_t *root, *v;
	bool json = false;
	uint32_t len = 0;
	int c, n, rc;

	while ((c = getopt_long(argc, argv, "h", opts, NULL)) != -1) {
		if (c != 'j') {
			usage(c == 'h' ? stdout : stderr);
			return c == 'h' ? CMD_OK : CMD_USAGE;
		}
		json = true;
	}
	n = argc - optind;
	if ((n != 1 && n != 3) || (n == 3 && strcmp(argv[optind + 2], "on") && strcmp(argv[optind + 2], "off"))) {
		usage(stderr);
		return CMD_USAGE;
	}
	if (n == 3)
		snprintf(line, sizeof(line), "tier %.32s %s", argv[optind + 1], argv[optind + 2]);
	rc = cmd_ask_mount(argv[optind], line, buf, sizeof(buf), &len);
	if (rc)
		return cmd_fail(CMD_FAIL, "tier", "%s: %s", argv[optind],
				rc == -ENOTCONN ? "no ClaudeFS mount answers there" : strerror(-rc));
	root = json_loadb(buf, len, 0, NULL);
	v = json_object_get(root, "error");
	if (v) {
		rc = cmd_fail(CMD_FAIL, "tier", "%s", json_string_value(v));
	} else if (!(v = json_object_get(root, "tiers"))) {
		rc = cmd_fail(CMD_FAIL, "tier", "%s: the answer is not understood", argv[optind]);
	} else if (json) {
		json_dumpf(v, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
		putchar('\n');
	} else {
		cmd_print_value(NULL, v, 0);
	}
	json_decref(root);
	return rc;
}
