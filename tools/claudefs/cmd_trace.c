/* SPDX-License-Identifier: MIT */
/*
 * cmd_trace.c - `claudefs trace PATH|PID`: the requests that a mount, a file or a process makes, one line each, when they end. The mount
 * sends them (client/observe_conn.c); while this runs, the kernel's view is attached.
 */
#include "cmd.h"

#include "client/mount.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MOUNTS_MAX	16u
#define LINE_BYTES	8192u

struct source {
	char dir[PATH_MAX];
	int fd;
	size_t have;
	char line[LINE_BYTES];		/* what came and is no whole line yet */
};

struct trace {
	struct source src[MOUNTS_MAX];
	unsigned n;
	uint64_t pid, ino;
	long count;			/* lines left to print; -1: no end */
	bool json;
};

static void usage(FILE *f)
{
	fputs("Usage: claudefs trace [--count N] [--json] PATH|PID\n"
	      "Prints requests as the kernel makes them: when they ended, process, operation, inode, name, latency, result. Of a\n"
	      "file or directory: those about it; of a mount point: all of that mount; of a process: its own, on every ClaudeFS\n"
	      "mount. Ends with Ctrl-C, or after N lines. What the kernel answers from its caches makes no request.\n", f);
}

/* ---- which mounts ----------------------------------------------------------------------------------------- */
/* mountinfo writes space, tab, newline and backslash as \ooo */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++, to++) {
		unsigned v;

		if (*s == '\\' && sscanf(s + 1, "%3o", &v) == 1) {
			*to = (char)v;
			s += 3;
		} else {
			*to = *s;
		}
	}
	*to = 0;
}

/* every ClaudeFS mount, or with `within` the one that this path lies in: the longest that is a prefix */
static unsigned find_mounts(struct trace *t, const char *within)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[3 * PATH_MAX], dir[PATH_MAX];
	size_t best = 0;

	while (f && fgets(line, sizeof(line), f) && t->n < MOUNTS_MAX) {
		size_t len;

		if (!strstr(line, " - fuse.claudefs ") || sscanf(line, "%*u %*u %*u:%*u %*s %4095s", dir) != 1)
			continue;
		unescape(dir);
		len = strlen(dir);
		if (!within) {
			memcpy(t->src[t->n++].dir, dir, len + 1);
		} else if (!strncmp(within, dir, len) && (!within[len] || within[len] == '/') && len >= best) {
			best = len;
			memcpy(t->src[0].dir, dir, len + 1);
			t->n = 1;
		}
	}
	if (f)
		fclose(f);
	return t->n;
}

static bool is_number(const char *s)
{
	return *s && strspn(s, "0123456789") == strlen(s);
}

static int choose(struct trace *t, const char *what)
{
	char full[PATH_MAX];
	struct stat st;

	if (is_number(what) && access(what, F_OK)) {
		t->pid = strtoull(what, NULL, 10);
		if (!t->pid || t->pid > INT32_MAX)
			return cmd_fail(CMD_USAGE, "trace", "%s: not a process id", what);
		return find_mounts(t, NULL) ? CMD_OK : cmd_fail(CMD_FAIL, "trace", "nothing of ClaudeFS is mounted here");
	}
	if (!realpath(what, full))
		return cmd_fail(CMD_FAIL, "trace", "%s: %s", what, strerror(errno));
	if (!find_mounts(t, full))
		return cmd_fail(CMD_FAIL, "trace", "%s: not within a ClaudeFS mount", what);
	if (!strcmp(full, t->src[0].dir))
		return CMD_OK; /* all of it */
	if (stat(full, &st))
		return cmd_fail(CMD_FAIL, "trace", "%s: %s", what, strerror(errno));
	t->ino = st.st_ino;
	return CMD_OK;
}

/* ---- lines ---------------------------------------------------------------------------------------------------- */
static void process_name(uint64_t pid, char *buf, size_t len)
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%llu/comm", (unsigned long long)pid);
	f = pid ? fopen(path, "re") : NULL;
	if (!f || !fgets(buf, (int)len, f))
		snprintf(buf, len, "%s", pid ? "-" : "kernel");
	buf[strcspn(buf, "\n")] = 0;
	if (f)
		fclose(f);
}

static void print_plain(const char *s)
{
	for (; *s; s++)
		putchar(iscntrl((unsigned char)*s) ? '?' : *s);
}

static void print_event(json_t *e)
{
	uint64_t ns = (uint64_t)json_integer_value(json_object_get(e, "time_ns"));
	uint64_t pid = (uint64_t)json_integer_value(json_object_get(e, "pid"));
	int error = (int)json_integer_value(json_object_get(e, "error"));
	uint64_t bytes = (uint64_t)json_integer_value(json_object_get(e, "bytes"));
	const char *name = json_string_value(json_object_get(e, "name"));
	time_t s = (time_t)(ns / 1000000000u);
	char clock[16], who[32];
	struct tm tm;

	strftime(clock, sizeof(clock), "%T", localtime_r(&s, &tm));
	process_name(pid, who, sizeof(who));
	printf("%s.%06llu %7llu %-15s %-15s %12llu %9.1fus  %s", clock, (unsigned long long)(ns % 1000000000u / 1000),
	       (unsigned long long)pid, who, json_string_value(json_object_get(e, "op")),
	       (unsigned long long)json_integer_value(json_object_get(e, "inode")),
	       (double)json_integer_value(json_object_get(e, "latency_ns")) / 1000,
	       !error ? "ok" : strerrorname_np(-error) ? strerrorname_np(-error) : "error");
	if (bytes)
		printf(" %llu bytes", (unsigned long long)bytes);
	if (name) {
		printf(" ");
		print_plain(name);
	}
	putchar('\n');
}

/* -1: go on */
static int handle_line(struct trace *t, struct source *s, char *line)
{
	json_t *doc = json_loads(line, 0, NULL), *v;
	int rc = -1;

	if ((v = json_object_get(doc, "error")) && json_is_string(v)) {
		rc = cmd_fail(CMD_FAIL, "trace", "%s: %s", s->dir, json_string_value(v));
	} else if (json_object_get(doc, "view")) {
		if ((v = json_object_get(doc, "why")))
			fprintf(stderr, "claudefs trace: %s: the client's own view (%s)\n", s->dir, json_string_value(v));
		if (!t->json)
			fprintf(stderr, "%-15s %7s %-15s %-15s %12s %11s  RESULT\n", "TIME", "PID", "PROCESS", "OPERATION", "INODE",
				"LATENCY");
	} else if ((v = json_object_get(doc, "lost"))) {
		fprintf(stderr, "claudefs trace: %s: %llu requests came too fast to be shown\n", s->dir,
			(unsigned long long)json_integer_value(v));
	} else if (doc) {
		if (t->json)
			puts(line);
		else
			print_event(doc);
		fflush(stdout);
		if (ferror(stdout) || (t->count > 0 && !--t->count))
			rc = CMD_OK;
	}
	json_decref(doc);
	return rc;
}

static int connect_all(struct trace *t)
{
	char line[64];
	int rc;

	snprintf(line, sizeof(line), "trace %llu %llu", (unsigned long long)t->pid, (unsigned long long)t->ino);
	for (unsigned i = 0; i < t->n; i++) {
		rc = cmd_call_mount(t->src[i].dir, line, &t->src[i].fd);
		if (rc)
			return cmd_fail(CMD_FAIL, "trace", "%s: %s", t->src[i].dir,
					rc == -ENOTCONN ? "the mount does not answer" : strerror(-rc));
	}
	return CMD_OK;
}

/* read what there is and print its whole lines. -1: go on */
static int read_lines(struct trace *t, struct source *s)
{
	ssize_t n = read(s->fd, s->line + s->have, sizeof(s->line) - 1 - s->have);
	char *at = s->line, *end;
	int rc = -1;

	if (n <= 0)
		return cmd_fail(CMD_FAIL, "trace", "%s: the mount has ended", s->dir);
	s->have += (size_t)n;
	s->line[s->have] = 0;
	while (rc < 0 && (end = strchr(at, '\n'))) {
		*end = 0;
		rc = handle_line(t, s, at);
		at = end + 1;
	}
	s->have -= (size_t)(at - s->line);
	memmove(s->line, at, s->have);
	if (s->have == sizeof(s->line) - 1)
		return cmd_fail(CMD_FAIL, "trace", "%s: the answer is not understood", s->dir);
	return rc;
}

static int run(struct trace *t)
{
	struct pollfd p[MOUNTS_MAX];
	int rc = -1;

	for (unsigned i = 0; i < t->n; i++)
		p[i] = (struct pollfd){ .fd = t->src[i].fd, .events = POLLIN };
	while (rc < 0 && poll(p, t->n, -1) >= 0)
		for (unsigned i = 0; i < t->n && rc < 0; i++)
			if (p[i].revents)
				rc = read_lines(t, &t->src[i]);
	return rc < 0 ? CMD_FAIL : rc;
}

int cmd_trace(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "json", no_argument, NULL, 'j' }, { "count", required_argument, NULL, 'n' }, { "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	static struct trace t = { .count = -1 };
	int c, rc;

	while ((c = getopt_long(argc, argv, "hn:", opts, NULL)) != -1) {
		switch (c) {
		case 'j': t.json = true; break;
		case 'n':
			t.count = is_number(optarg) ? strtol(optarg, NULL, 10) : 0;
			if (t.count <= 0)
				return cmd_fail(CMD_USAGE, "trace", "--count %s: must be a number above 0", optarg);
			break;
		default: usage(c == 'h' ? stdout : stderr); return c == 'h' ? CMD_OK : CMD_USAGE;
		}
	}
	if (argc - optind != 1) {
		usage(stderr);
		return CMD_USAGE;
	}
	rc = choose(&t, argv[optind]);
	if (!rc)
		rc = connect_all(&t);
	if (!rc)
		rc = run(&t);
	return rc; /* and with the process, the connections end */
}
