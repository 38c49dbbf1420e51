/* SPDX-License-Identifier: MIT */
/* top_server.c - `claudefs top HOST:PORT`: a server's STATUS document (server/cluster/status.c), asked for anew for each sample. */
#include "top_i.h"

#include "claudefs/wire.h"
#include "cmd.h"
#include "rpc/conn.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static json_t *server_sample(struct top *t, int *ret_code)
{
	char *buf = malloc(CFS_BODY_MAX);
	json_t *doc = NULL;
	uint32_t len = 0;
	int rc = buf ? cmd_ask_server(t->target, buf, CFS_BODY_MAX, &len) : -ENOMEM;

	if (!rc) {
		doc = json_loadb(buf, len, 0, NULL);
		rc = doc ? 0 : -EPROTO;
	}
	free(buf);
	if (rc)
		*ret_code = cmd_fail(CMD_FAIL, "top", "%s: %s%s", t->target, strerror(-rc),
				     rc == -ECONNREFUSED ? ": is claudefsd running?" : "");
	else
		json_object_set_new(doc, "taken_ns", json_integer((json_int_t)cfs_boot_ns()));
	return doc;
}

static int server_open(struct top *t)
{
	(void)t;	/* each sample has a connection of its own: a server that starts again is no end */
	return 0;
}

static void server_close(struct top *t)
{
	(void)t;
}

/* counters that are shown as rates */
static const struct {
	const char *part, *counter, *rate;
} rates[] = {
	{ "node", "requests", "requests_per_s" },
	{ "raft", "proposals", "entries_per_s" },
	{ "raft", "writes", "journal_writes_per_s" },
	{ "shard", "breaks_sent", "recalls_per_s" },
	{ "shard", "waits", "waits_per_s" },
	{ "objects", "writes", "object_writes_per_s" },
	{ "objects", "reads", "object_reads_per_s" },
	{ "objects", "received_bytes", "received_bytes_per_s" },
	{ "objects", "sent_bytes", "sent_bytes_per_s" },
};

static json_t *server_interval(json_t *now, json_t *before)
{
	double seconds = (double)top_since(top_num(now, "taken_ns"), top_num(before, "taken_ns")) / 1e9;
	json_t *node = json_object_get(now, "node"), *shard = json_object_get(now, "shard"), *doc;

	doc = json_pack("{s:O, s:O, s:O, s:f, s:O}", "address", json_object_get(node, "address"), "state",
			json_object_get(node, "state"), "role", json_object_get(json_object_get(now, "raft"), "role"), "seconds",
			seconds, "connections", json_object_get(node, "connections"));
	json_object_set_new(doc, "sessions", json_integer((json_int_t)top_num(shard, "sessions")));
	json_object_set_new(doc, "dir_leases", json_integer((json_int_t)top_num(shard, "dir_leases")));
	json_object_set_new(doc, "file_leases", json_integer((json_int_t)top_num(shard, "file_leases")));
	for (size_t i = 0; i < CFS_ARRAY_SIZE(rates); i++)
		json_object_set_new(doc, rates[i].rate,
				    top_per_second(top_since(top_num2(now, rates[i].part, rates[i].counter),
							     top_num2(before, rates[i].part, rates[i].counter)), seconds));
	json_object_set_new(doc, "ops", top_ops_json(now, before, seconds));
	return doc;
}

static void server_print(struct top *t, json_t *d)
{
	char in[32], out[32];

	top_print_clock(t);
	printf("  server %s  %s, %s, %.1f s\n", top_text(d, "address"), top_text(d, "state"), top_text(d, "role"),
	       top_real(d, "seconds"));
	printf("requests %.1f/s of %llu connections, %llu sessions; leases on %llu directories, %llu files; recalls %.1f/s, waits %.1f/s\n",
	       top_real(d, "requests_per_s"), (unsigned long long)top_num(d, "connections"),
	       (unsigned long long)top_num(d, "sessions"), (unsigned long long)top_num(d, "dir_leases"),
	       (unsigned long long)top_num(d, "file_leases"), top_real(d, "recalls_per_s"), top_real(d, "waits_per_s"));
	printf("log entries %.1f/s in %.1f journal writes/s; objects written %.1f/s (%s/s), read %.1f/s (%s/s)\n",
	       top_real(d, "entries_per_s"), top_real(d, "journal_writes_per_s"), top_real(d, "object_writes_per_s"),
	       cmd_human((uint64_t)top_real(d, "received_bytes_per_s"), in, sizeof(in)), top_real(d, "object_reads_per_s"),
	       cmd_human((uint64_t)top_real(d, "sent_bytes_per_s"), out, sizeof(out)));
	top_print_ops(json_object_get(d, "ops"));
}

const struct top_view top_server = {
	.open = server_open, .close = server_close, .sample = server_sample, .interval = server_interval, .print = server_print,
};
