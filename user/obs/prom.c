// SPDX-License-Identifier: MIT
/* prom.c - see prom.h. */
#include "obs/prom.h"

#include "base/base.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LABELS_BYTES	1024u
#define STARS_MAX	3u

void cfs_prom_free(struct cfs_prom *p)
{
	free(p->text);
	*p = (struct cfs_prom){ 0 };
}

/* a whole line or nothing */
CFS_PRINTF(2, 3)
static void add(struct cfs_prom *p, const char *fmt, ...)
{
	va_list ap;
	int n;

	for (int tries = 0; tries < 2; tries++) {
		size_t left = p->room - p->len;

		va_start(ap, fmt);
		n = vsnprintf(p->text ? p->text + p->len : NULL, left, fmt, ap);
		va_end(ap);
		if (n >= 0 && (size_t)n < left) {
			p->len += (size_t)n;
			return;
		}
		if (n >= 0 && p->len + (size_t)n < CFS_PROM_MAX) {
			size_t room = cfs_min(cfs_max(p->len + (size_t)n + 1, 2 * p->room), (size_t)CFS_PROM_MAX);
			char *text = realloc(p->text, room);

			if (text) {
				p->text = text;
				p->room = room;
				continue;
			}
		}
		break;
	}
	if (p->text)
		p->text[p->len] = 0;
}

void cfs_prom_head(struct cfs_prom *p, const char *name, const char *type, const char *help)
{
	add(p, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void cfs_prom_line(struct cfs_prom *p, const char *name, const char *labels, double value)
{
	const char *open = *labels ? "{" : "", *close = *labels ? "}" : "";

	if (value == floor(value) && fabs(value) < 9e15)
		add(p, "%s%s%s%s %.0f\n", name, open, labels, close, value);
	else
		add(p, "%s%s%s%s %.9g\n", name, open, labels, close, value);
}

void cfs_prom_label(char *labels, size_t len, const char *name, const char *value)
{
	size_t at = strlen(labels), had = at;
	int n = snprintf(labels + at, len - at, "%s%s=\"", at ? "," : "", name);

	if (n < 0 || (size_t)n >= len - at)
		goto undo;
	at += (size_t)n;
	for (; *value; value++) {
		if (at + 4 > len)
			goto undo;
		if (*value == '\\' || *value == '"' || *value == '\n')
			labels[at++] = '\\';
		labels[at++] = *value == '\n' ? 'n' : *value;
	}
	if (at + 2 > len)
		goto undo;
	labels[at++] = '"';
	labels[at] = 0;
	return;
undo:
	labels[had] = 0;
}

/* one walk over a row's path: what it has found so far */
struct walk {
	struct cfs_prom *p;
	const struct cfs_prom_row *row;
	const char *common;
	char stars[STARS_MAX][256];
	unsigned n_stars;
	bool headed;			/* HELP and TYPE are written, once for all lines */
};

static void emit(struct walk *w, json_t *v)
{
	const struct cfs_prom_row *row = w->row;
	char labels[LABELS_BYTES], names[128], *save = NULL, *name;
	double value;

	if (row->is && json_is_string(v))
		value = !strcmp(json_string_value(v), row->is);
	else if (!row->is && json_is_boolean(v))
		value = json_is_true(v);
	else if (!row->is && json_is_number(v))
		value = json_number_value(v) * (row->scale != 0 ? row->scale : 1);
	else
		return;
	snprintf(labels, sizeof(labels), "%s", w->common);
	snprintf(names, sizeof(names), "%s", row->labels ? row->labels : "");
	name = strtok_r(names, ",", &save);
	for (unsigned i = 0; i < w->n_stars && name; i++, name = strtok_r(NULL, ",", &save))
		cfs_prom_label(labels, sizeof(labels), name, w->stars[i]);
	if (!w->headed)
		cfs_prom_head(w->p, row->name, row->type == CFS_PROM_COUNTER ? "counter" : "gauge", row->help);
	w->headed = true;
	cfs_prom_line(w->p, row->name, labels, value);
}

/* depth is bounded by the path's own length */
static void follow(struct walk *w, json_t *v, const char *path)
{
	size_t len = strcspn(path, ".");
	const char *rest = path[len] ? path + len + 1 : path + len, *key;
	char member[64];
	json_t *each, *id;
	size_t i;

	if (!v)
		return;
	if (!*path) {
		emit(w, v);
		return;
	}
	if (len != 1 || *path != '*') {
		snprintf(member, sizeof(member), "%.*s", (int)len, path);
		follow(w, json_object_get(v, member), rest);
		return;
	}
	CFS_ASSERT(w->n_stars < STARS_MAX);
	w->n_stars++;
	json_object_foreach(v, key, each) {
		snprintf(w->stars[w->n_stars - 1], sizeof(w->stars[0]), "%s", key);
		follow(w, each, rest);
	}
	json_array_foreach(v, i, each) {
		id = json_object_get(each, "id");
		if (json_is_string(id))
			snprintf(w->stars[w->n_stars - 1], sizeof(w->stars[0]), "%s", json_string_value(id));
		else
			snprintf(w->stars[w->n_stars - 1], sizeof(w->stars[0]), "%lld",
				 json_is_integer(id) ? (long long)json_integer_value(id) : (long long)i);
		follow(w, each, rest);
	}
	w->n_stars--;
}

void cfs_prom_rows(struct cfs_prom *p, json_t *doc, const struct cfs_prom_row *rows, size_t n, const char *labels)
{
	for (size_t i = 0; i < n; i++) {
		struct walk w = { .p = p, .row = &rows[i], .common = labels };

		follow(&w, doc, rows[i].path);
	}
}
