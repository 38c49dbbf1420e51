/* SPDX-License-Identifier: MIT */
/*
 * cmd.h - what the verbs of the `claudefs` command share. One file per verb; each returns the
 * program's exit code: 0 ok, 1 failure, 2 usage; mount(8) and fsck(8) codes where those say so.
 */
#ifndef CFS_TOOLS_CMD_H
#define CFS_TOOLS_CMD_H

#include "base/base.h"
#include <stdio.h>

#define CMD_OK 0
#define CMD_FAIL 1
#define CMD_USAGE 2

int cmd_format(int argc, char **argv);
int cmd_mount(int argc, char **argv);
int cmd_mount_helper(int argc, char **argv);	/* as mount.claudefs */
int cmd_umount(int argc, char **argv);
int cmd_umount_helper(int argc, char **argv);	/* as umount.fuse.claudefs */
int cmd_status(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_fsck(int argc, char **argv);
int cmd_tier(int argc, char **argv);
int cmd_upgrade(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_trace(int argc, char **argv);
int cmd_device(int argc, char **argv);

/* "claudefs VERB: message" on stderr, one line; returns `code` */
int cmd_fail(int code, const char *verb, const char *fmt, ...) CFS_PRINTF(3, 4);

/* "8G", "512M", "4096": bytes with an optional K, M, G, T (powers of 1024). 0 or -EINVAL, -ERANGE */
int cmd_parse_size(const char *text, uint64_t *ret_bytes);
/* bytes for people: "1.2 GiB" */
const char *cmd_human(uint64_t bytes, char *buf, size_t len);
/* 32 hex digits, dashes allowed. 0 or -EINVAL */
int cmd_parse_uuid(const char *text, uint8_t uuid[16]);
void cmd_print_uuid(char out[37], const uint8_t uuid[16]);

/* one line (client/control.h) to the mount at `dir`, and its answer. 0; -ENOTCONN: no mount there; -errno */
int cmd_ask_mount(const char *dir, const char *line, char *buf, uint32_t max, uint32_t *ret_len);
/* the STATUS document of the server at HOST:PORT. 0 or -errno (cmd_status.c) */
int cmd_ask_server(const char *addr, char *buf, uint32_t max, uint32_t *ret_len);
/* one line to it, and the connection, for verbs that go on. As cmd_ask_mount() */
int cmd_call_mount(const char *dir, const char *line, int *ret_fd);
/* "key: value" lines for people, objects and arrays indented below their key (cmd_status.c); depth 0 to begin with */
struct json_t;
void cmd_print_value(const char *key, struct json_t *v, int depth);

#endif
