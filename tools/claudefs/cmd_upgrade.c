/* SPDX-License-Identifier: MIT */
/*
 * cmd_upgrade.c - `claudefs upgrade MOUNTPOINT`: the process of a mount is replaced by the program that is on the disk now, under
 * its open files. For mounts with -o persist. If the new program cannot, the old process stays.
 */
#include "cmd.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define ANSWER_BYTES	65536u
#define ANSWER_S	20	/* more than the mount waits for the new program */
#define TRIES		300u	/* to see the new process answer */
#define TRY_MS		100

static void usage(FILE *f)
{
	fputs("Usage: claudefs upgrade MOUNTPOINT\n"
	      "Replaces the process of a mount made with -o persist by the program that is installed now. Open files, locks and\n"
	      "what was written stay. Exits 1, and leaves all as it is, if the new program cannot take over.\n", f);
}

/* one question and its answer; NULL and *ret_rc: none */
static json_t *ask(const char *dir, const char *line, int *ret_rc)
{
	struct timeval tv = { .tv_sec = ANSWER_S };
	char *buf = malloc(ANSWER_BYTES);
	json_t *root = NULL;
	size_t got = 0;
	ssize_t n;
	int fd;

	*ret_rc = buf ? cmd_call_mount(dir, line, &fd) : -ENOMEM;
	if (!*ret_rc) {
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
		while (got < ANSWER_BYTES && (n = recv(fd, buf + got, ANSWER_BYTES - got, 0)) > 0)
			got += (size_t)n;
		close(fd);
		root = json_loadb(buf, got, 0, NULL);
		*ret_rc = root ? 0 : -EPROTO;
	}
	free(buf);
	return root;
}

static json_int_t pid_of(const char *dir)
{
	int rc;
	json_t *root = ask(dir, "status", &rc);
	json_int_t pid = json_integer_value(json_object_get(root, "pid"));

	json_decref(root);
	return pid;
}

int cmd_upgrade(int argc, char **argv)
{
	static const struct option opts[] = { { "help", no_argument, NULL, 'h' }, { 0 } };
	json_int_t old, new = 0;
	const char *dir, *why;
	json_t *root;
	int c, rc;

	while ((c = getopt_long(argc, argv, "h", opts, NULL)) != -1) {
		usage(c == 'h' ? stdout : stderr);
		return c == 'h' ? CMD_OK : CMD_USAGE;
	}
	if (argc - optind != 1) {
		usage(stderr);
		return CMD_USAGE;
	}
	dir = argv[optind];
	root = ask(dir, "upgrade", &rc);
	if (!root)
		return cmd_fail(CMD_FAIL, "upgrade", "%s: %s", dir,
				rc == -ENOTCONN ? "no ClaudeFS mount answers there" : strerror(-rc));
	why = json_string_value(json_object_get(root, "error"));
	old = json_integer_value(json_object_get(root, "leaving"));
	rc = why || !old ? cmd_fail(CMD_FAIL, "upgrade", "%s: %s", dir, why ? why : "the answer is not understood") : CMD_OK;
	json_decref(root);
	if (rc)
		return rc;
	for (unsigned i = 0; i < TRIES && (!new || new == old); i++) {
		new = pid_of(dir);
		if (!new || new == old)
			poll(NULL, 0, TRY_MS);
	}
	if (!new || new == old)
		return cmd_fail(CMD_FAIL, "upgrade", "%s: process %lld has left, but the next one does not answer: see its log", dir,
				(long long)old);
	printf("%s: process %lld goes on where %lld was\n", dir, (long long)new, (long long)old);
	return CMD_OK;
}
