/* SPDX-License-Identifier: MIT */
/*
 * top_mount.c - `claudefs top MOUNTPOINT`: the mount sends its counters (client/observe_conn.c) whenever it is asked. While we are
 * connected, the kernel's view is attached.
 */
#include "top_i.h"

#include "cmd.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#define ANSWER_S	10
#define HOT_SHOWN	10

static uint64_t sum(json_t *o)
{
	uint64_t all = 0;
	const char *key;
	json_t *v;

	json_object_foreach(o, key, v)
		all += (uint64_t)json_integer_value(v);
	return all;
}

/* every number of every tier, as a rate */
static json_t *tiers_json(json_t *now, json_t *before, double seconds)
{
	json_t *out = json_object(), *tier, *v;
	const char *name, *key;

	json_object_foreach(now, name, tier) {
		json_t *o = json_pack("{s:O}", "state", json_object_get(tier, "state"));

		json_object_foreach(tier, key, v)
			if (json_is_integer(v))
				json_object_set_new(o, key, top_per_second(top_since((uint64_t)json_integer_value(v),
									     top_num2(before, name, key)), seconds));
		json_object_set_new(out, name, o);
	}
	return out;
}

static json_t *hot_json(json_t *now, json_t *before, double seconds)
{
	json_t *list = json_object_get(now, "hot"), *old = json_object_get(before, "hot"), *out = json_array(), *v, *w;
	size_t i, k;

	json_array_foreach(list, i, v) {
		json_t *was = NULL;

		json_array_foreach(old, k, w)
			if (top_num(w, "inode") == top_num(v, "inode"))
				was = w;
		if (top_since(top_num(v, "ops"), top_num(was, "ops")))
			json_array_append_new(out, json_pack("{s:I, s:O, s:o, s:o, s:o}", "inode", (json_int_t)top_num(v, "inode"),
				"path", json_object_get(v, "path"),
				"ops_per_s", top_per_second(top_since(top_num(v, "ops"), top_num(was, "ops")), seconds),
				"read_bytes_per_s", top_per_second(top_since(top_num(v, "read_bytes"), top_num(was, "read_bytes")), seconds),
				"write_bytes_per_s", top_per_second(top_since(top_num(v, "write_bytes"), top_num(was, "write_bytes")), seconds)));
	}
	return out;
}

/* what happened between two samples */
static json_t *interval_json(json_t *now, json_t *before)
{
	static const char *const answers[] = { "lookups_answered", "absent_answered", "getattrs_answered", "xattrs_answered" };
	json_t *m = json_object_get(now, "mount"), *was = json_object_get(before, "mount"), *doc, *cache, *leases, *v;
	double seconds = (double)top_since(top_num(now, "time_ns"), top_num(before, "time_ns")) / 1e9;
	uint64_t asked = 0, cached = 0;
	const char *key;

	json_object_foreach(json_object_get(now, "ops"), key, v)
		asked += top_since(top_num(v, "count"), top_num2(json_object_get(before, "ops"), key, "count"));
	for (size_t i = 0; i < CFS_ARRAY_SIZE(answers); i++)
		cached += top_since(top_num2(m, "cache", answers[i]), top_num2(was, "cache", answers[i]));
	doc = json_pack("{s:O, s:O, s:f, s:O}", "mountpoint", json_object_get(m, "mountpoint"), "view", json_object_get(now, "view"),
			"seconds", seconds, "state", json_object_get(m, "state"));
	if (json_object_get(now, "why"))
		json_object_set(doc, "why", json_object_get(now, "why"));
	json_object_set(doc, "lease_left_ms", json_object_get(m, "lease_left_ms"));
	json_object_set_new(doc, "requests", json_integer((json_int_t)asked));
	json_object_set_new(doc, "requests_per_s", top_per_second(asked, seconds));
	json_object_set_new(doc, "daemon_per_s", top_per_second(top_since(sum(json_object_get(m, "fuse")), sum(json_object_get(was, "fuse"))),
							    seconds));
	json_object_set_new(doc, "client_cache_per_s", top_per_second(cached, seconds));
	json_object_set_new(doc, "server_per_s", top_per_second(top_since(sum(json_object_get(m, "requests")),
								  sum(json_object_get(was, "requests"))), seconds));
	if (json_object_get(now, "inflight"))
		json_object_set(doc, "inflight", json_object_get(now, "inflight"));
	cache = json_object_get(m, "cache");
	leases = json_pack("{s:O, s:O, s:O}", "directories", json_object_get(cache, "directories"), "names",
			   json_object_get(cache, "names"), "attributes", json_object_get(cache, "attributes"));
	json_object_set_new(leases, "breaks_per_s", top_per_second(top_since(top_num2(m, "leases", "breaks"), top_num2(was, "leases", "breaks")),
							       seconds));
	json_object_set_new(doc, "leases", leases);
	json_object_set_new(doc, "tiers", tiers_json(json_object_get(m, "tiers"), json_object_get(was, "tiers"), seconds));
	json_object_set_new(doc, "ops", top_ops_json(now, before, seconds));
	json_object_set_new(doc, "hot", hot_json(now, before, seconds));
	return doc;
}

/* ---- for people --------------------------------------------------------------------------------- */
static void print_tiers(json_t *tiers)
{
	json_t *tier, *v;
	const char *name, *key;

	json_object_foreach(tiers, name, tier) {
		printf("%s%s %s", name, strcmp(name, "plain") ? ":" : " tier:", top_text(tier, "state"));
		json_object_foreach(tier, key, v)
			if (json_is_real(v) && json_real_value(v) > 0)
				printf(", %s %.1f/s", key, json_real_value(v));
		printf(strcmp(name, "bpf") ? "   " : "\n");
	}
}

static void print_screen(struct top *t, json_t *d)
{
	json_t *hot = json_object_get(d, "hot"), *l = json_object_get(d, "leases"), *v;
	char r[32], w[32];
	size_t i;

	top_print_clock(t);
	printf("  %s  %s, lease %.1f s, %s's view of %.1f s\n", top_text(d, "mountpoint"), top_text(d, "state"),
	       top_real(d, "lease_left_ms") / 1000, top_text(d, "view"), top_real(d, "seconds"));
	if (top_text(d, "why")[0])
		printf("no kernel's view: %s\n", top_text(d, "why"));
	printf("requests %.1f/s, to the daemon %.1f/s, answered from its cache %.1f/s, to the server %.1f/s",
	       top_real(d, "requests_per_s"), top_real(d, "daemon_per_s"), top_real(d, "client_cache_per_s"), top_real(d, "server_per_s"));
	if (json_object_get(d, "inflight"))
		printf(", in flight %llu", (unsigned long long)top_num(d, "inflight"));
	printf("\nleases on %llu directories: %llu names, %llu attributes; recalls %.1f/s\n", (unsigned long long)top_num(l, "directories"),
	       (unsigned long long)top_num(l, "names"), (unsigned long long)top_num(l, "attributes"), top_real(l, "breaks_per_s"));
	print_tiers(json_object_get(d, "tiers"));
	top_print_ops(json_object_get(d, "ops"));
	if (json_array_size(hot))
		printf("\n%9s %12s %12s  %s\n", "HOT: ops/s", "read/s", "written/s", "FILE");
	json_array_foreach(hot, i, v) {
		if (i == HOT_SHOWN)
			break;
		printf("%10.1f %12s %12s  %s (inode %llu)\n", top_real(v, "ops_per_s"),
		       cmd_human((uint64_t)top_real(v, "read_bytes_per_s"), r, sizeof(r)),
		       cmd_human((uint64_t)top_real(v, "write_bytes_per_s"), w, sizeof(w)),
		       top_text(v, "path"), (unsigned long long)top_num(v, "inode"));
	}
}

/* ---- samples --------------------------------------------------------------------------------------- */
static json_t *mount_sample(struct top *t, int *ret_code)
{
	char *line = NULL;
	size_t room = 0;
	json_t *doc = NULL, *err;
	ssize_t n = -1;

	if (!t->asked++ || send(t->fd, "\n", 1, MSG_NOSIGNAL) == 1 || errno == EPIPE) /* the first comes by itself */
		n = getline(&line, &room, t->from);
	if (n > 0)
		doc = json_loadb(line, (size_t)n, 0, NULL);
	err = json_object_get(doc, "error");
	free(line);
	if (doc && !err)
		return doc;
	*ret_code = cmd_fail(CMD_FAIL, "top", "%s: %s", t->target, err ? json_string_value(err) : "the mount has ended");
	json_decref(doc);
	return NULL;
}

static int mount_open(struct top *t)
{
	struct timeval tv = { .tv_sec = ANSWER_S };
	int rc = cmd_call_mount(t->target, "top", &t->fd);

	if (rc)
		return cmd_fail(CMD_FAIL, "top", "%s: %s", t->target,
				rc == -ENOTCONN ? "no ClaudeFS mount answers there" : strerror(-rc));
	setsockopt(t->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	t->from = fdopen(t->fd, "r");
	return t->from ? 0 : cmd_fail(CMD_FAIL, "top", "%s", strerror(errno));
}

static void mount_close(struct top *t)
{
	fclose(t->from);
}

const struct top_view top_mount = {
	.open = mount_open, .close = mount_close, .sample = mount_sample, .interval = interval_json, .print = print_screen,
};
