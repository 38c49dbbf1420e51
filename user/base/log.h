/* SPDX-License-Identifier: MIT */
/*
 * log.h - one line per event, to stderr or a file. Programs log; library code returns errors
 * and logs only what no return value can carry (a background failure, rot that was found).
 * Thread-safe. Level and sink are set once at start-up.
 *
 * What goes wrong for each file or request must not fill the disk: of lines with one format CFS_LOG_BURST are written in
 * CFS_LOG_WINDOW_S, what is left out is counted, and told with the first line after that. Debug lines are not limited.
 */
#ifndef CFS_BASE_LOG_H
#define CFS_BASE_LOG_H

#include "base/base.h"

#define CFS_LOG_BURST		30u
#define CFS_LOG_WINDOW_S	10u

enum cfs_log_level { CFS_LOG_ERR = 3, CFS_LOG_WARN = 4, CFS_LOG_INFO = 6, CFS_LOG_DEBUG = 7 };

/** cfs_log_init() - @ident: program name in each line; @path: file to append to, NULL: stderr. 0 or -errno */
int cfs_log_init(const char *ident, const char *path, enum cfs_log_level level);
void cfs_log_set_level(enum cfs_log_level level);
void cfs_log(enum cfs_log_level level, const char *fmt, ...) CFS_PRINTF(2, 3);

#define cfs_err(...) cfs_log(CFS_LOG_ERR, __VA_ARGS__)
#define cfs_warn(...) cfs_log(CFS_LOG_WARN, __VA_ARGS__)
#define cfs_info(...) cfs_log(CFS_LOG_INFO, __VA_ARGS__)
#define cfs_debug(...) cfs_log(CFS_LOG_DEBUG, __VA_ARGS__)

#endif
