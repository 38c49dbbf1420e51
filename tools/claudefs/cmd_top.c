/* SPDX-License-Identifier: MIT */
/*
 * cmd_top.c - `claudefs top`: what a mount does, interval by interval. The mount sends its counters (client/observe_conn.c), of which
 * this prints the differences, on a terminal as a screen that is drawn anew. While it runs, the kernel's view is attached.
 */
#include "cmd.h"

#include "client/opstat.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_S	10
#define HOT_SHOWN	10

struct top {
	const char *dir;
	bool json, once, screen;
	unsigned interval_ms;
	FILE *from;			/* lines of the mount */
	int fd;
	struct termios saved;
	bool raw;
};

static void usage(FILE *f)
{
	fputs("Usage: claudefs top [--once] [--interval SECONDS] [--json] MOUNTPOINT\n"
	      "Shows what a mount is doing, each second or SECONDS: requests of the kernel by operation with their latencies, who\n"
	      "answered them, leases, the hottest files. Ends with q, or with --once after the first interval. --json prints an\n"
	      "object a line. Only root and who mounted may look. docs/observability.md explains the columns.\n", f);
}

/* ---- numbers out of samples ------------------------------------------------------------------- */
static uint64_t num(json_t *o, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(o, key));
}

/* o.a.b */
static uint64_t num2(json_t *o, const char *a, const char *b)
{
	return num(json_object_get(o, a), b);
}

static uint64_t since(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0; /* counters of a view that was opened anew begin at 0 */
}

static struct cfs_bpf_op op_of(json_t *o)
{
	struct cfs_bpf_op op = { .count = num(o, "count"), .errors = num(o, "errors"), .total_ns = num(o, "total_ns") };
	json_t *pair;
	size_t i;

	json_array_foreach(json_object_get(o, "latency"), i, pair) {
		json_int_t b = json_integer_value(json_array_get(pair, 0));

		if (b >= 0 && b < (json_int_t)CFS_BPF_LATS)
			op.lat[b] = (uint64_t)json_integer_value(json_array_get(pair, 1));
	}
	return op;
}

static struct cfs_bpf_op op_since(json_t *now, json_t *before)
{
	struct cfs_bpf_op a = op_of(now), b = op_of(before);

	a.count = since(a.count, b.count);
	a.errors = since(a.errors, b.errors);
	a.total_ns = since(a.total_ns, b.total_ns);
	for (uint32_t i = 0; i < CFS_BPF_LATS; i++)
		a.lat[i] = since(a.lat[i], b.lat[i]);
	return a;
}

static json_t *per_second(uint64_t n, double seconds)
{
	return json_real(seconds > 0 ? (double)n / seconds : 0);
}

static json_t *ops_json(json_t *now, json_t *before, double seconds)
{
	json_t *ops = json_object_get(now, "ops"), *old = json_object_get(before, "ops"), *out = json_object(), *v;
	const char *name;

	json_object_foreach(ops, name, v) {
		struct cfs_bpf_op op = op_since(v, json_object_get(old, name));

		if (op.count)
			json_object_set_new(out, name,
				json_pack("{s:I, s:I, s:o, s:f, s:f, s:f, s:f, s:f}", "count", (json_int_t)op.count, "errors",
					  (json_int_t)op.errors, "per_s", per_second(op.count, seconds), "mean_us",
					  (double)op.total_ns / (double)op.count / 1000, "p50_us",
					  (double)cfs_opstat_percentile_ns(&op, 500) / 1000, "p90_us",
					  (double)cfs_opstat_percentile_ns(&op, 900) / 1000, "p99_us",
					  (double)cfs_opstat_percentile_ns(&op, 990) / 1000, "max_us",
					  (double)cfs_opstat_percentile_ns(&op, 1000) / 1000));
	}
	return out;
}

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
				json_object_set_new(o, key, per_second(since((uint64_t)json_integer_value(v),
									     num2(before, name, key)), seconds));
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
			if (num(w, "inode") == num(v, "inode"))
				was = w;
		if (since(num(v, "ops"), num(was, "ops")))
			json_array_append_new(out, json_pack("{s:I, s:O, s:o, s:o, s:o}", "inode", (json_int_t)num(v, "inode"),
				"path", json_object_get(v, "path"),
				"ops_per_s", per_second(since(num(v, "ops"), num(was, "ops")), seconds),
				"read_bytes_per_s", per_second(since(num(v, "read_bytes"), num(was, "read_bytes")), seconds),
				"write_bytes_per_s", per_second(since(num(v, "write_bytes"), num(was, "write_bytes")), seconds)));
	}
	return out;
}

/* what happened between two samples */
static json_t *interval_json(json_t *now, json_t *before)
{
	static const char *const answers[] = { "lookups_answered", "absent_answered", "getattrs_answered", "xattrs_answered" };
	json_t *m = json_object_get(now, "mount"), *was = json_object_get(before, "mount"), *doc, *cache, *leases, *v;
	double seconds = (double)since(num(now, "time_ns"), num(before, "time_ns")) / 1e9;
	uint64_t asked = 0, cached = 0;
	const char *key;

	json_object_foreach(json_object_get(now, "ops"), key, v)
		asked += op_since(v, json_object_get(json_object_get(before, "ops"), key)).count;
	for (size_t i = 0; i < CFS_ARRAY_SIZE(answers); i++)
		cached += since(num2(m, "cache", answers[i]), num2(was, "cache", answers[i]));
	doc = json_pack("{s:O, s:O, s:f, s:O}", "mountpoint", json_object_get(m, "mountpoint"), "view", json_object_get(now, "view"),
			"seconds", seconds, "state", json_object_get(m, "state"));
	if (json_object_get(now, "why"))
		json_object_set(doc, "why", json_object_get(now, "why"));
	json_object_set(doc, "lease_left_ms", json_object_get(m, "lease_left_ms"));
	json_object_set_new(doc, "requests", json_integer((json_int_t)asked));
	json_object_set_new(doc, "requests_per_s", per_second(asked, seconds));
	json_object_set_new(doc, "daemon_per_s", per_second(since(sum(json_object_get(m, "fuse")), sum(json_object_get(was, "fuse"))),
							    seconds));
	json_object_set_new(doc, "client_cache_per_s", per_second(cached, seconds));
	json_object_set_new(doc, "server_per_s", per_second(since(sum(json_object_get(m, "requests")),
								  sum(json_object_get(was, "requests"))), seconds));
	if (json_object_get(now, "inflight"))
		json_object_set(doc, "inflight", json_object_get(now, "inflight"));
	cache = json_object_get(m, "cache");
	leases = json_pack("{s:O, s:O, s:O}", "directories", json_object_get(cache, "directories"), "names",
			   json_object_get(cache, "names"), "attributes", json_object_get(cache, "attributes"));
	json_object_set_new(leases, "breaks_per_s", per_second(since(num2(m, "leases", "breaks"), num2(was, "leases", "breaks")),
							       seconds));
	json_object_set_new(doc, "leases", leases);
	json_object_set_new(doc, "tiers", tiers_json(json_object_get(m, "tiers"), json_object_get(was, "tiers"), seconds));
	json_object_set_new(doc, "ops", ops_json(now, before, seconds));
	json_object_set_new(doc, "hot", hot_json(now, before, seconds));
	return doc;
}

/* ---- for people --------------------------------------------------------------------------------- */
static double real(json_t *o, const char *key)
{
	return json_number_value(json_object_get(o, key));
}

static const char *text(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

/* five characters */
static const char *us(double v, char buf[16])
{
	if (v < 9.95)
		snprintf(buf, 16, "%.1fus", v);
	else if (v < 999.5)
		snprintf(buf, 16, "%.0fus", v);
	else if (v < 9950)
		snprintf(buf, 16, "%.1fms", v / 1e3);
	else if (v < 999500)
		snprintf(buf, 16, "%.0fms", v / 1e3);
	else
		snprintf(buf, 16, "%.1fs", v / 1e6);
	return buf;
}

static int busier(const void *a, const void *b)
{
	json_t *x = json_object_iter_value(*(void *const *)a), *y = json_object_iter_value(*(void *const *)b);
	uint64_t m = num(x, "count"), n = num(y, "count");

	return m < n ? 1 : m > n ? -1 : 0;
}

static void print_ops(json_t *ops)
{
	void *iters[CFS_BPF_OPS * 2];
	char b[5][16];
	size_t n = 0;

	printf("\n%-18s %9s %9s %8s %8s %8s %8s %8s\n", "OPERATION", "/s", "errors", "mean", "p50", "p90", "p99", "max");
	for (void *it = json_object_iter(ops); it && n < CFS_ARRAY_SIZE(iters); it = json_object_iter_next(ops, it))
		iters[n++] = it;
	qsort(iters, n, sizeof(iters[0]), busier);
	for (size_t i = 0; i < n; i++) {
		json_t *o = json_object_iter_value(iters[i]);

		printf("%-18s %9.1f %9llu %8s %8s %8s %8s %8s\n", json_object_iter_key(iters[i]), real(o, "per_s"),
		       (unsigned long long)num(o, "errors"), us(real(o, "mean_us"), b[0]), us(real(o, "p50_us"), b[1]),
		       us(real(o, "p90_us"), b[2]), us(real(o, "p99_us"), b[3]), us(real(o, "max_us"), b[4]));
	}
}

static void print_tiers(json_t *tiers)
{
	json_t *tier, *v;
	const char *name, *key;

	json_object_foreach(tiers, name, tier) {
		printf("%s%s %s", name, strcmp(name, "plain") ? ":" : " tier:", text(tier, "state"));
		json_object_foreach(tier, key, v)
			if (json_is_real(v) && json_real_value(v) > 0)
				printf(", %s %.1f/s", key, json_real_value(v));
		printf(strcmp(name, "bpf") ? "   " : "\n");
	}
}

static void print_screen(struct top *t, json_t *d)
{
	json_t *hot = json_object_get(d, "hot"), *l = json_object_get(d, "leases"), *v;
	char clock[16], r[32], w[32];
	time_t now = time(NULL);
	struct tm tm;
	size_t i;

	if (t->screen)
		printf("\033[H\033[J");
	strftime(clock, sizeof(clock), "%T", localtime_r(&now, &tm));
	printf("%s  %s  %s, lease %.1f s, %s's view of %.1f s\n", clock, text(d, "mountpoint"), text(d, "state"),
	       real(d, "lease_left_ms") / 1000, text(d, "view"), real(d, "seconds"));
	if (text(d, "why")[0])
		printf("no kernel's view: %s\n", text(d, "why"));
	printf("requests %.1f/s, to the daemon %.1f/s, answered from its cache %.1f/s, to the server %.1f/s",
	       real(d, "requests_per_s"), real(d, "daemon_per_s"), real(d, "client_cache_per_s"), real(d, "server_per_s"));
	if (json_object_get(d, "inflight"))
		printf(", in flight %llu", (unsigned long long)num(d, "inflight"));
	printf("\nleases on %llu directories: %llu names, %llu attributes; recalls %.1f/s\n", (unsigned long long)num(l, "directories"),
	       (unsigned long long)num(l, "names"), (unsigned long long)num(l, "attributes"), real(l, "breaks_per_s"));
	print_tiers(json_object_get(d, "tiers"));
	print_ops(json_object_get(d, "ops"));
	if (json_array_size(hot))
		printf("\n%9s %12s %12s  %s\n", "HOT: ops/s", "read/s", "written/s", "FILE");
	json_array_foreach(hot, i, v) {
		if (i == HOT_SHOWN)
			break;
		printf("%10.1f %12s %12s  %s (inode %llu)\n", real(v, "ops_per_s"),
		       cmd_human((uint64_t)real(v, "read_bytes_per_s"), r, sizeof(r)),
		       cmd_human((uint64_t)real(v, "write_bytes_per_s"), w, sizeof(w)),
		       text(v, "path"), (unsigned long long)num(v, "inode"));
	}
	fflush(stdout);
}

/* ---- the loop --------------------------------------------------------------------------------------- */
static json_t *next_sample(struct top *t, int *ret_code)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t n = getline(&line, &room, t->from);
	json_t *doc = n > 0 ? json_loadb(line, (size_t)n, 0, NULL) : NULL, *err = json_object_get(doc, "error");

	free(line);
	if (doc && !err)
		return doc;
	*ret_code = cmd_fail(CMD_FAIL, "top", "%s: %s", t->dir, err ? json_string_value(err) : "the mount has ended");
	json_decref(doc);
	return NULL;
}

static void raw_terminal(struct top *t)
{
	struct termios tio;

	if (!t->screen || tcgetattr(0, &t->saved))
		return;
	tio = t->saved;
	tio.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	t->raw = !tcsetattr(0, TCSANOW, &tio);
}

/* true: the user wants to end */
static bool pause_or_quit(const struct top *t)
{
	struct pollfd p = { .fd = t->raw ? 0 : -1, .events = POLLIN };
	char ch;

	return poll(&p, 1, (int)t->interval_ms) > 0 && read(0, &ch, 1) == 1 && (ch == 'q' || ch == 'Q');
}

static int run(struct top *t)
{
	int rc = CMD_OK;
	json_t *before = next_sample(t, &rc), *now, *doc;

	while (before && !pause_or_quit(t)) {
		if (send(t->fd, "\n", 1, MSG_NOSIGNAL) != 1 && errno != EPIPE)
			break;
		now = next_sample(t, &rc);
		if (!now)
			break;
		doc = interval_json(now, before);
		if (t->json) {
			json_dumpf(doc, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
			putchar('\n');
			fflush(stdout);
		} else {
			print_screen(t, doc);
		}
		json_decref(doc);
		json_decref(before);
		before = now;
		if (t->once || ferror(stdout))
			break;
	}
	json_decref(before);
	return rc;
}

int cmd_top(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "json", no_argument, NULL, 'j' }, { "once", no_argument, NULL, '1' },
		{ "interval", required_argument, NULL, 'i' }, { "help", no_argument, NULL, 'h' }, { 0 },
	};
	struct top t = { .interval_ms = 1000 };
	struct timeval tv = { .tv_sec = ANSWER_S };
	int c, rc;

	while ((c = getopt_long(argc, argv, "h1i:", opts, NULL)) != -1) {
		char *end = NULL;
		double s;

		switch (c) {
		case 'j': t.json = true; break;
		case '1': t.once = true; break;
		case 'i':
			s = strtod(optarg, &end);
			if (*end || !(s >= 0.1 && s <= 3600))
				return cmd_fail(CMD_USAGE, "top", "--interval %s: must be 0.1 to 3600 seconds", optarg);
			t.interval_ms = (unsigned)(s * 1000);
			break;
		default: usage(c == 'h' ? stdout : stderr); return c == 'h' ? CMD_OK : CMD_USAGE;
		}
	}
	if (argc - optind != 1) {
		usage(stderr);
		return CMD_USAGE;
	}
	t.dir = argv[optind];
	t.screen = !t.json && !t.once && isatty(0) && isatty(1);
	rc = cmd_call_mount(t.dir, "top", &t.fd);
	if (rc)
		return cmd_fail(CMD_FAIL, "top", "%s: %s", t.dir, rc == -ENOTCONN ? "no ClaudeFS mount answers there" : strerror(-rc));
	setsockopt(t.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	t.from = fdopen(t.fd, "r");
	if (!t.from)
		return cmd_fail(CMD_FAIL, "top", "%s", strerror(errno));
	raw_terminal(&t);
	rc = run(&t);
	if (t.raw)
		tcsetattr(0, TCSANOW, &t.saved);
	fclose(t.from);
	return rc;
}
