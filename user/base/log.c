/* SPDX-License-Identifier: MIT */
/* log.c - see log.h. State: one sink for the process, guarded by stdio's own lock. */
#include "base/log.h"

#include <errno.h>
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

void cfs_log(enum cfs_log_level level, const char *fmt, ...)
{
	static const char *const names[] = { "", "", "", "error", "warning", "", "info", "debug" };
	char line[1024], stamp[32];
	struct timespec ts;
	struct tm tm;
	va_list ap;
	int saved = errno;

	if ((int)level > __atomic_load_n(&log_level, __ATOMIC_RELAXED))
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
	fprintf(log_sink ? log_sink : stderr, "%s.%03ldZ %s[%d] %s: %s\n", stamp, ts.tv_nsec / 1000000,
		log_ident, (int)getpid(), names[level], line);
	errno = saved;
}

void cfs_assert_fail(const char *expr, const char *file, int line, const char *func)
{
	cfs_err("assertion failed: %s (%s:%d %s)", expr, file, line, func);
	abort();
}
