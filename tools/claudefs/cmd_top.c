/* SPDX-License-Identifier: MIT */
/*
 * cmd_top.c - `claudefs top`: what a mount or a server does, interval by interval: options, the loop, and what both views print. On a
 * terminal it is a screen that is drawn anew.
 */
#include "top_i.h"

#include "cmd.h"
#include "obs/latency.h"

#include <getopt.h>
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static void usage(FILE *f)
{
	fputs("Usage: claudefs top [--once] [--interval SECONDS] [--json] MOUNTPOINT | HOST:PORT\n"
	      "Shows what a mount or a server is doing, each second or SECONDS: requests by operation with their latencies; of a mount:\n"
	      "who answered them, leases, the hottest files; of a server: the log, leases, data. Ends with q, or with --once after the\n"
	      "first interval. --json prints an object a line. Only root and who mounted may look at a mount. docs/observability.md\n"
	      "explains the columns.\n", f);
}

/* ---- numbers out of samples ------------------------------------------------------------------- */
uint64_t top_num(json_t *o, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(o, key));
}

/* o.a.b */
uint64_t top_num2(json_t *o, const char *a, const char *b)
{
	return top_num(json_object_get(o, a), b);
}

uint64_t top_since(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0; /* counters of a view that was opened anew begin at 0 */
}

static struct cfs_bpf_op op_since(json_t *now, json_t *before)
{
	struct cfs_bpf_op a, b;

	cfs_latency_from_json(now, &a);
	cfs_latency_from_json(before, &b);
	a.count = top_since(a.count, b.count);
	a.errors = top_since(a.errors, b.errors);
	a.total_ns = top_since(a.total_ns, b.total_ns);
	for (uint32_t i = 0; i < CFS_BPF_LATS; i++)
		a.lat[i] = top_since(a.lat[i], b.lat[i]);
	return a;
}

json_t *top_per_second(uint64_t n, double seconds)
{
	return json_real(seconds > 0 ? (double)n / seconds : 0);
}

json_t *top_ops_json(json_t *now, json_t *before, double seconds)
{
	json_t *ops = json_object_get(now, "ops"), *old = json_object_get(before, "ops"), *out = json_object(), *v;
	const char *name;

	json_object_foreach(ops, name, v) {
		struct cfs_bpf_op op = op_since(v, json_object_get(old, name));

		if (op.count)
			json_object_set_new(out, name,
				json_pack("{s:I, s:I, s:o, s:f, s:f, s:f, s:f, s:f}", "count", (json_int_t)op.count, "errors",
					  (json_int_t)op.errors, "per_s", top_per_second(op.count, seconds), "mean_us",
					  (double)op.total_ns / (double)op.count / 1000, "p50_us",
					  (double)cfs_latency_percentile_ns(&op, 500) / 1000, "p90_us",
					  (double)cfs_latency_percentile_ns(&op, 900) / 1000, "p99_us",
					  (double)cfs_latency_percentile_ns(&op, 990) / 1000, "max_us",
					  (double)cfs_latency_percentile_ns(&op, 1000) / 1000));
	}
	return out;
}

/* ---- for people --------------------------------------------------------------------------------- */
double top_real(json_t *o, const char *key)
{
	return json_number_value(json_object_get(o, key));
}

const char *top_text(json_t *o, const char *key)
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
	uint64_t m = top_num(x, "count"), n = top_num(y, "count");

	return m < n ? 1 : m > n ? -1 : 0;
}

void top_print_ops(json_t *ops)
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

		printf("%-18s %9.1f %9llu %8s %8s %8s %8s %8s\n", json_object_iter_key(iters[i]), top_real(o, "per_s"),
		       (unsigned long long)top_num(o, "errors"), us(top_real(o, "mean_us"), b[0]), us(top_real(o, "p50_us"), b[1]),
		       us(top_real(o, "p90_us"), b[2]), us(top_real(o, "p99_us"), b[3]), us(top_real(o, "max_us"), b[4]));
	}
}

void top_print_clock(const struct top *t)
{
	char clock[16];
	time_t now = time(NULL);
	struct tm tm;

	if (t->screen)
		printf("\033[H\033[J");
	strftime(clock, sizeof(clock), "%T", localtime_r(&now, &tm));
	fputs(clock, stdout);
}

/* ---- the loop --------------------------------------------------------------------------------------- */
/* keys come without Enter and are not shown; true: *ret_saved is to be put back */
static bool raw_terminal(struct termios *ret_saved)
{
	struct termios tio;

	if (tcgetattr(0, ret_saved))
		return false;
	tio = *ret_saved;
	tio.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	return !tcsetattr(0, TCSANOW, &tio);
}

/* true: the user wants to end */
static bool pause_or_quit(const struct top *t, bool raw)
{
	struct pollfd p = { .fd = raw ? 0 : -1, .events = POLLIN };
	char ch;

	return poll(&p, 1, (int)t->interval_ms) > 0 && read(0, &ch, 1) == 1 && (ch == 'q' || ch == 'Q');
}

static int run(struct top *t, bool raw)
{
	int rc = CMD_OK;
	json_t *before = t->view->sample(t, &rc), *now, *doc;

	while (before && !pause_or_quit(t, raw)) {
		now = t->view->sample(t, &rc);
		if (!now)
			break;
		doc = t->view->interval(now, before);
		if (t->json) {
			json_dumpf(doc, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
			putchar('\n');
		} else {
			t->view->print(t, doc);
		}
		fflush(stdout);
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
	struct top t = { .interval_ms = 1000, .fd = -1 };
	struct termios saved;
	bool raw;
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
	t.target = argv[optind];
	/* as status does: a hung mount must not hang us, so a path is told by its look */
	t.view = strchr(t.target, '/') || !strchr(t.target, ':') ? &top_mount : &top_server;
	t.screen = !t.json && !t.once && isatty(0) && isatty(1);
	rc = t.view->open(&t);
	if (rc)
		return rc;
	raw = t.screen && raw_terminal(&saved);
	rc = run(&t, raw);
	if (raw)
		tcsetattr(0, TCSANOW, &saved);
	t.view->close(&t);
	return rc;
}
