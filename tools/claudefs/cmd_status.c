/* SPDX-License-Identifier: MIT */
/*
 * cmd_status.c - `claudefs status`: asks a server (STATUS on an ADMIN connection) or a mount (its
 * control socket) for its state, one JSON document, and prints it, as it came or for people.
 */
#include "cmd.h"

#include "rpc/codec.h"
#include "rpc/conn.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TIMEOUT_MS 5000u
#define DEPTH_MAX 8

static void usage(FILE *f)
{
	fputs("Usage: claudefs status [--json] [HOST:PORT | MOUNTPOINT]\n"
	      "The state of a server (default 127.0.0.1:9510) or of a mount on this machine.\n"
	      "Exits 0 when it answers, 1 when it does not.\n", f);
}

int cmd_ask_server(const char *addr, char *buf, uint32_t max, uint32_t *ret_len)
{
	uint64_t deadline = cfs_boot_ns() + TIMEOUT_MS * CFS_NSEC_PER_MSEC;
	struct cfs_rpc_reply r = { .body = buf, .body_max = max };
	struct cfs_rpc_conn *conn = NULL;
	struct cfs_hello_rep hello;
	struct cfs_msg_hdr hdr;
	int rc;

	rc = cfs_rpc_connect(addr, TIMEOUT_MS, &conn);
	if (rc)
		return rc;
	rc = cfs_rpc_hello(conn, CFS_ROLE_ADMIN, 0, NULL, &hello, -1, deadline);
	if (!rc) {
		cfs_hdr_init(&hdr, CFS_OP_STATUS);
		rc = cfs_rpc_call(conn, &hdr, NULL, 0, NULL, 0, &r, -1, deadline);
	}
	if (!rc)
		rc = (int)cfs_le32_to_cpu(r.hdr.status);
	if (!rc)
		*ret_len = r.body_len;
	cfs_rpc_close(conn);
	return rc > 0 ? -EPROTO : rc;
}

/* "key: value" lines, objects and arrays indented below their key */
void cmd_print_value(const char *key, json_t *v, int depth)
{
	const char *k;
	json_t *item;
	size_t i;

	if (depth > DEPTH_MAX)
		return;
	if (json_is_object(v) || json_is_array(v)) {
		if (key && !(json_is_object(v) ? json_object_size(v) : json_array_size(v)))
			return;
		if (key)
			printf("%*s%s:\n", 2 * depth, "", key);
		json_object_foreach(v, k, item)
			cmd_print_value(k, item, depth + (key != NULL));
		json_array_foreach(v, i, item) {
			char name[24];

			snprintf(name, sizeof(name), "%zu", i);
			cmd_print_value(name, item, depth + 1);
		}
		return;
	}
	printf("%*s%-*s ", 2 * depth, "", 26 - 2 * depth, key ? key : "");
	if (json_is_string(v)) {
		puts(json_string_value(v));
	} else if (json_is_integer(v)) {
		size_t len = key ? strlen(key) : 0;
		char human[32];

		printf("%lld", (long long)json_integer_value(v));
		if (len > 6 && !strcmp(key + len - 6, "_bytes") && json_integer_value(v) >= 1024)
			printf(" (%s)", cmd_human((uint64_t)json_integer_value(v), human, sizeof(human)));
		putchar('\n');
	} else if (json_is_real(v)) {
		printf("%g\n", json_real_value(v));
	} else {
		puts(json_is_true(v) ? "yes" : json_is_false(v) ? "no" : "-");
	}
}

int cmd_status(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "json", no_argument, NULL, 'j' }, { "help", no_argument, NULL, 'h' }, { 0 },
	};
	const char *target = "127.0.0.1:9510";
	char *buf = NULL;
	bool json = false, is_dir;
	uint32_t len = 0;
	json_error_t jerr;
	struct stat st;
	json_t *root;
	int c, rc;

	while ((c = getopt_long(argc, argv, "h", opts, NULL)) != -1) {
		if (c != 'j') {
			usage(c == 'h' ? stdout : stderr);
			return c == 'h' ? CMD_OK : CMD_USAGE;
		}
		json = true;
	}
	if (argc - optind > 1) {
		usage(stderr);
		return CMD_USAGE;
	}
	if (optind < argc)
		target = argv[optind];
	/* a hung mount must not hang us: a path is told by its look, not by stat() alone */
	is_dir = strchr(target, '/') || (!strchr(target, ':') && !stat(target, &st));

	buf = malloc(CFS_BODY_MAX + 1);
	if (!buf)
		return cmd_fail(CMD_FAIL, "status", "out of memory");
	rc = is_dir ? cmd_ask_mount(target, "status", buf, CFS_BODY_MAX, &len) : cmd_ask_server(target, buf, CFS_BODY_MAX, &len);
	if (rc == -ENOTCONN && is_dir) {
		rc = cmd_fail(CMD_FAIL, "status", "%s: no ClaudeFS mount answers there", target);
		goto out;
	}
	if (rc) {
		rc = cmd_fail(CMD_FAIL, "status", "%s: %s%s", target, strerror(-rc),
			      rc == -ECONNREFUSED ? ": is claudefsd running?" : "");
		goto out;
	}
	buf[len] = 0;
	root = json_loadb(buf, len, 0, &jerr);
	if (!root) {
		rc = cmd_fail(CMD_FAIL, "status", "%s: the answer is not JSON (at byte %d: %s)", target, jerr.position,
			      jerr.text);
		goto out;
	}
	if (json)
		puts(buf);
	else
		cmd_print_value(NULL, root, 0);
	json_decref(root);
	rc = CMD_OK;
out:
	free(buf);
	return rc;
}
