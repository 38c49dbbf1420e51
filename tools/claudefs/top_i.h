/* SPDX-License-Identifier: MIT */
/*
 * top_i.h - private to cmd_top.c, top_mount.c, top_server.c: `claudefs top` takes samples, documents of counters, from a mount or a
 * server, and prints what happened between two of them. One thread.
 */
#ifndef CFS_TOOLS_TOP_I_H
#define CFS_TOOLS_TOP_I_H

#include "base/base.h"

#include <stdio.h>

struct json_t;

struct top {
	const char *target;		/* a mount point, or HOST:PORT */
	const struct top_view *view;
	bool json, once, screen;	/* screen: drawn anew for each interval */
	unsigned interval_ms;
	FILE *from;			/* of a mount: its lines */
	int fd;
	unsigned asked;			/* samples so far */
};

/* what is looked at */
struct top_view {
	/* 0, or the program's exit code after a message */
	int (*open)(struct top *t);
	void (*close)(struct top *t);
	/* the next sample; NULL after a message, with *ret_code */
	struct json_t *(*sample)(struct top *t, int *ret_code);
	/* what happened between two samples, as --json prints it */
	struct json_t *(*interval)(struct json_t *now, struct json_t *before);
	/* the same for people */
	void (*print)(struct top *t, struct json_t *interval);
};
extern const struct top_view top_mount, top_server;

/* numbers out of samples: o.key, o.a.b; what is not there is 0 */
uint64_t top_num(struct json_t *o, const char *key);
uint64_t top_num2(struct json_t *o, const char *a, const char *b);
double top_real(struct json_t *o, const char *key);
const char *top_text(struct json_t *o, const char *key);
/* of two readings of a counter; 0 when it was begun anew in between */
uint64_t top_since(uint64_t now, uint64_t before);
struct json_t *top_per_second(uint64_t n, double seconds);
/* operations of an interval, from the members "ops" of two samples (cfs_latency_json() each): rates and latencies */
struct json_t *top_ops_json(struct json_t *now, struct json_t *before, double seconds);
/* and as a table, the busiest first */
void top_print_ops(struct json_t *ops);
/* what a screen begins with: goes to its beginning if it is drawn anew, and writes the time */
void top_print_clock(const struct top *t);

#endif
