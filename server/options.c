/* SPDX-License-Identifier: MIT */
/*
 * options.c - see options.h
 */
#include "server/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void usage(FILE *f)
{
	fputs("Usage: claudefsd [OPTION]...\n"
	      "The ClaudeFS server: keeps metadata and file data on its targets and serves them.\n\n"
	      "  -c, --config FILE       read FILE first, see claudefsd.conf(5); options win\n"
	      "      --listen HOST:PORT  where to listen (default 127.0.0.1:9510)\n"
	      "      --advertise H:PORT  what clients are told to connect to (default: made from listen)\n"
	      "      --target PATH       a formatted file or block device; may be repeated\n"
	      "      --state-dir DIR     where the working copy of the metadata lives (/var/lib/claudefs)\n"
	      "      --log-file FILE     log there instead of stderr; SIGHUP opens it anew\n"
	      "      --log-level LEVEL   error, warning, info (default) or debug\n"
	      "      --metrics-port PORT metrics for Prometheus on 127.0.0.1:PORT (default: none)\n"
	      "      --sched MODE        threads by class with sched_ext: auto (default), ext or off\n"
	      "      --pid-file FILE     write the process id there while serving\n"
	      "      --foreground        stay in the foreground (default)\n"
	      "      --daemon            go to the background; return when serving, or with the error\n"
	      "      --check-config      say whether the configuration is right, and exit\n"
	      "  -h, --help              this text\n"
	      "  -V, --version           the version\n\n"
	      "Make a target with 'claudefs format'. Exits 0 after SIGTERM, 1 on an error, 2 on wrong use.\n", f);
}

enum { OPT_KEY = 256, OPT_CHECK = 512, OPT_DAEMON, OPT_FOREGROUND };

static const struct option long_options[] = {
	{ "config", required_argument, NULL, 'c' },
	{ "listen", required_argument, NULL, OPT_KEY },
	{ "advertise", required_argument, NULL, OPT_KEY + 1 },
	{ "target", required_argument, NULL, OPT_KEY + 2 },
	{ "state-dir", required_argument, NULL, OPT_KEY + 3 },
	{ "log-file", required_argument, NULL, OPT_KEY + 4 },
	{ "log-level", required_argument, NULL, OPT_KEY + 5 },
	{ "pid-file", required_argument, NULL, OPT_KEY + 6 },
	{ "metrics-port", required_argument, NULL, OPT_KEY + 7 },
	{ "sched", required_argument, NULL, OPT_KEY + 8 },
	{ "check-config", no_argument, NULL, OPT_CHECK },
	{ "daemon", no_argument, NULL, OPT_DAEMON },
	{ "foreground", no_argument, NULL, OPT_FOREGROUND },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ 0 },
};
static const char *const option_keys[] = { "listen",   "advertise", "target",  "state_dir",
					   "log_file", "log_level", "pid_file", "metrics_port", "sched" };

static int usage_error(void)
{
	fputs("Try 'claudefsd --help'.\n", stderr);
	return CFS_EXIT_USAGE;
}

static int read_all(struct cfs_process *p, int argc, char **argv, struct cfs_config *config, struct cfs_options *o)
{
	const char *why, *file = NULL;
	char err[512];
	int c;

	opterr = 1;
	while ((c = getopt_long(argc, argv, "c:hV", long_options, NULL)) != -1) {
		switch (c) {
		case 'c': file = optarg; break;
		case OPT_CHECK: o->check = true; break;
		case OPT_DAEMON: o->daemon = true; break;
		case OPT_FOREGROUND: o->daemon = false; break;
		case 'h': usage(stdout); return 0;
		case 'V': printf("claudefsd %s\n", CFS_VERSION); return 0;
		case '?': return usage_error();
		}
	}
	if (optind < argc) {
		fprintf(stderr, "claudefsd: unexpected argument '%s'\n", argv[optind]);
		return usage_error();
	}
	if (file && cfs_config_read(config, file, err, sizeof(err)))
		return cfs_process_complain(p, "%s", err);
	optind = 1;
	while ((c = getopt_long(argc, argv, "c:hV", long_options, NULL)) != -1) {
		if (c < OPT_KEY || c >= OPT_CHECK)
			continue;
		if (cfs_config_set(config, option_keys[c - OPT_KEY], optarg, &why)) {
			fprintf(stderr, "claudefsd: --%s %s: %s\n",
				long_options[c - OPT_KEY + 1].name, optarg, why);
			return usage_error();
		}
	}
	if (cfs_config_check(config, err, sizeof(err)))
		return cfs_process_complain(p, "%s", err);
	return -1;
}

/* paths are used after chdir("/") */
static int make_absolute(char **path)
{
	char *cwd, *full;

	if (!*path || (*path)[0] == '/' || !strncmp(*path, "nvme:", 5))
		return 0;
	cwd = getcwd(NULL, 0);
	if (!cwd)
		return -errno;
	if (asprintf(&full, "%s/%s", cwd, *path) < 0)
		full = NULL;
	free(cwd);
	if (!full)
		return -ENOMEM;
	free(*path);
	*path = full;
	return 0;
}

static int absolute_paths(struct cfs_config *c)
{
	int rc = make_absolute(&c->state_dir);

	if (!rc)
		rc = make_absolute(&c->pid_file);
	if (!rc)
		rc = make_absolute(&c->log_file);
	for (unsigned i = 0; i < CFS_NODE_TARGETS_MAX && !rc; i++)
		rc = make_absolute(&c->targets[i]);
	return rc;
}

int cfs_options_read(struct cfs_process *p, int argc, char **argv, struct cfs_config *config, struct cfs_options *o)
{
	int rc = read_all(p, argc, argv, config, o);

	if (rc < 0) {
		rc = absolute_paths(config);
		rc = rc ? cfs_process_complain(p, "cannot make paths absolute: %s", strerror(-rc)) : -1;
	}
	return rc;
}
