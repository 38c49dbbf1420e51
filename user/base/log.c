/* SPDX-License-Identifier: MIT */
/*
 * log.c - see log.h. State: one sink for the process, guarded by stdio's own lock; and the table of formats, a leaf lock.
 */
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static FILE *log_sink;
static char log_ident[32] = "claudefs";
static int log_level = CFS_LOG_INFO;

int cfs_log_init(const char *ident, const char *path, enum cfs_log_level level)
{
	if (path) {
		FILE *f = fopen(path, "ae");

		if (!f)
			return -errno;
		setvbuf(f, NULL, _IOLBF, 0);
		if (log_sink)
			fclose(log_sink);
		log_sink = f;
	}
	snprintf(log_ident, sizeof(log_ident), "%s", ident);
	cfs_log_set_level(level);
	return 0;
}

void cfs_log_set_level(enum cfs_log_level level)
{
	__atomic_store_n(&log_level, (int)level, __ATOMIC_RELAXED);
}

/* ---- the limit --------------------------------------------------------------------------- */
#define FORMATS_MAX 64u			/* counted at a time; others are not limited */

static struct format {
	const char *fmt;		/* NULL: free */
	time_t since;			/* monotonic seconds */
	unsigned n, left_out;
} formats[FORMATS_MAX];
static pthread_mutex_t formats_lock = PTHREAD_MUTEX_INITIALIZER;

static time_t now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

/* a format of which lines were left out, and whose window is over: it begins anew. False: none */
static bool take_left_out(time_t now, struct format *ret)
{
	bool found = false;

	pthread_mutex_lock(&formats_lock);
	for (unsigned i = 0; i < FORMATS_MAX && !found; i++) {
		struct format *f = &formats[i];

		if (!f->fmt || now - f->since < (time_t)CFS_LOG_WINDOW_S)
			continue;
		found = f->left_out > 0;
		*ret = *f;
		f->fmt = NULL;
	}
	pthread_mutex_unlock(&formats_lock);
	return found;
}

static bool may_log(time_t now, const char *fmt)
{
	struct format *f = NULL;
	bool ok = true;

	pthread_mutex_lock(&formats_lock);
	for (unsigned i = 0; i < FORMATS_MAX && (!f || f->fmt != fmt); i++)
		if (formats[i].fmt == fmt || !formats[i].fmt)
			f = &formats[i];
	if (f && !f->fmt)
		*f = (struct format){ .fmt = fmt, .since = now };
	if (f && ++f->n > CFS_LOG_BURST) {
		f->left_out++;
		ok = false;
	}
	pthread_mutex_unlock(&formats_lock);
	return ok;
}

/* ---- lines ---------------------------------------------------------------------------------- */
static void put_line(enum cfs_log_level level, const char *line)
{
	static const char *const names[] = { "", "", "", "error", "warning", "", "info", "debug" };
	struct timespec ts;
	char stamp[32];
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
	fprintf(log_sink ? log_sink : stderr, "%s.%03ldZ %s[%d] %s: %s\n", stamp, ts.tv_nsec / 1000000,
		log_ident, (int)getpid(), names[level], line);
}

void cfs_log(enum cfs_log_level level, const char *fmt, ...)
{
	int saved = errno;
	struct format f;
	char line[1024];
	va_list ap;

	if ((int)level > __atomic_load_n(&log_level, __ATOMIC_RELAXED))
		return;
	if (level != CFS_LOG_DEBUG) {
		time_t now = now_s();

		while (take_left_out(now, &f)) {
			snprintf(line, sizeof(line), "%u more lines in %u s were left out: %s", f.left_out, CFS_LOG_WINDOW_S,
				 f.fmt);
			put_line(CFS_LOG_WARN, line);
		}
		if (!may_log(now, fmt))
			goto out;
	}
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	put_line(level, line);
out:
	errno = saved;
}

void cfs_assert_fail(const char *expr, const char *file, int line, const char *func)
{
	cfs_err("assertion failed: %s (%s:%d %s)", expr, file, line, func);
	abort();
}
