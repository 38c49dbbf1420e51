/* SPDX-License-Identifier: MIT */
/*
 * prom.h - metrics as Prometheus' text (exposition format 0.0.4), from the JSON documents that programs have of their state anyway: a
 * table says which number in the document is which metric. What is not in the document makes no line.
 *
 * No state but the text; one thread. A text that outgrows CFS_PROM_MAX is cut at a whole line.
 */
#ifndef CFS_USER_OBS_PROM_H
#define CFS_USER_OBS_PROM_H

#include <stddef.h>
#include <stdint.h>

#define CFS_PROM_MAX (4u << 20)	/* bytes of text */

struct json_t;

struct cfs_prom {
	char *text;			/* ends with 0 */
	size_t len, room;
};

enum cfs_prom_type { CFS_PROM_COUNTER, CFS_PROM_GAUGE };

struct cfs_prom_row {
	/* members of objects, separated by dots; '*' is each member of an object or element of an array */
	const char *path;
	const char *name;		/* claudefs_..., counters end in _total, times in _seconds, sizes in _bytes */
	enum cfs_prom_type type;
	const char *help;
	/*
	 * Names of the labels that the stars become, separated by commas. An element's value is its member "id", or its number.
	 */
	const char *labels;
	double scale;			/* 0 means 1: a number in ms is in seconds with 0.001 */
	const char *is;			/* of a text: 1 if it is this one, else 0 */
};

/* rows of a table; further members may follow: .labels, .scale, .is */
#define CFS_PROM_ROW(type_, path_, name_, help_, ...) \
	{ .path = path_, .name = "claudefs_" name_, .type = type_, .help = help_, ##__VA_ARGS__ }
#define CFS_PROM_COUNTS(...) CFS_PROM_ROW(CFS_PROM_COUNTER, __VA_ARGS__)
#define CFS_PROM_GAUGES(...) CFS_PROM_ROW(CFS_PROM_GAUGE, __VA_ARGS__)

void cfs_prom_free(struct cfs_prom *p);
/* labels: pairs that every line gets, `a="b",c="d"`, already escaped (cfs_prom_label()), or "" */
void cfs_prom_rows(struct cfs_prom *p, struct json_t *doc, const struct cfs_prom_row *rows, size_t n, const char *labels);
/* # HELP and # TYPE, before the lines of a metric that is written by hand */
void cfs_prom_head(struct cfs_prom *p, const char *name, const char *type, const char *help);
void cfs_prom_line(struct cfs_prom *p, const char *name, const char *labels, double value);
/* appends name="value", escaped, to a list of labels; what does not fit is left out whole */
void cfs_prom_label(char *labels, size_t len, const char *name, const char *value);

#endif
