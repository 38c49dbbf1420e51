/* SPDX-License-Identifier: MIT */
/*
 * main.c - the simulator: see docs/simulation.md. Without arguments it proves, for as many seeds as fit into a minute, that a
 * server and several clients under faults keep the promises of docs/leases.md: linearizable metadata, each request exactly
 * once, exclusive leases, durability, no rotten byte, no leak; and that a seed replays exactly. TAP on stdout.
 */
#include "sim_i.h"

#include <getopt.h>
#include <time.h>

#define DEFAULT_SEEDS	60u
#define DEFAULT_SECONDS	35
#define FULL_SEEDS	6u
#define POWERCUT_SEEDS	4u
#define POWERCUT_MS	2000u

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void usage(FILE *f)
{
	fputs("usage: sim [options]\n"
	      "      --seed N      run this seed alone\n"
	      "      --seeds N     run N seeds (default: as many as fit into 35 s, then a few with --full and --powercut)\n"
	      "      --start N     the first of them (default 1)\n"
	      "      --nodes N     servers, 1 to 5 (default 1)\n"
	      "      --clients N   2 to 5 (default: by the seed)\n"
	      "      --ms N        virtual milliseconds of bad weather (default: by the seed)\n"
	      "      --full        disks are full at times\n"
	      "      --powercut    nothing but power cuts, every few milliseconds; the state is checked after each\n"
	      "      --disk KIND   plain, zoned or atomic (default: by the seed)\n"
	      "      --trace       tell everything\n", f);
}

static const struct option opts[] = {
	{ "seed", required_argument, NULL, 's' }, { "seeds", required_argument, NULL, 'n' },
	{ "start", required_argument, NULL, 'b' }, { "nodes", required_argument, NULL, 'N' },
	{ "clients", required_argument, NULL, 'c' }, { "ms", required_argument, NULL, 'm' },
	{ "steps", required_argument, NULL, 'm' }, { "full", no_argument, NULL, 'f' },
	{ "powercut", no_argument, NULL, 'p' }, { "disk", required_argument, NULL, 'd' },
	{ "trace", no_argument, NULL, 't' }, { "help", no_argument, NULL, 'h' }, { 0 },
};

static bool one(unsigned test, uint64_t seed, const struct options *o, struct stats *st, uint64_t *hash)
{
	double begin = seconds();
	bool ok = world_run(seed, o, st, hash);

	printf("%s %u - seed %" PRIu64 ": %" PRIu64 " entries, %" PRIu64 " replies, %" PRIu64 " cached answers, %" PRIu64 " data reads, %"
	       PRIu64 " written through, %" PRIu64 " recalls, %" PRIu64 "+%" PRIu64 " crashes, %" PRIu64 " fenced, %.1f s\n", ok ? "ok" : "not ok", test, seed, st->entries,
	       st->replies, st->cached, st->data_reads, st->through, st->breaks, st->crashes, st->powers, st->fenced, seconds() - begin);
	if (!ok) {
		printf("# to replay: make sim SEED=%" PRIu64 " ARGS=\"--nodes %u", seed, o->servers);
		if (o->clients)
			printf(" --clients %u", o->clients);
		if (o->ms)
			printf(" --ms %u", o->ms);
		if (o->disk)
			printf(" --disk %s", disk_kind_names[o->disk]);
		printf("%s%s\"\n", o->full ? " --full" : "", o->powercut ? " --powercut" : "");
	}
	fflush(stdout);
	return ok;
}

int main(int argc, char **argv)
{
	struct options o = { .servers = 1 };
	uint64_t seed = 0, start = 1, seeds = 0, hash, again;
	struct stats st;
	unsigned test = 0, failed = 0;
	double begin = seconds();
	bool bad = false;
	int c;

	while ((c = getopt_long(argc, argv, "h", opts, NULL)) != -1) {
		uint64_t v = optarg ? strtoull(optarg, NULL, 0) : 0;

		switch (c) {
		case 's': seed = v; break;
		case 'n': seeds = v; break;
		case 'b': start = v; break;
		case 'N': o.servers = (unsigned)v; break;
		case 'c': o.clients = (unsigned)v; break;
		case 'm': o.ms = (unsigned)v; break;
		case 'f': o.full = true; break;
		case 'd':
			o.disk = DISK_KINDS - 1;
			while (o.disk && strcmp(optarg, disk_kind_names[o.disk]))
				o.disk--;
			bad |= !o.disk;
			break;
		case 'p': o.powercut = true; break;
		case 't': o.trace = true; break;
		case 'h': usage(stdout); return 0;
		default: usage(stderr); return 2;
		}
	}
	if (bad || optind < argc || o.servers < 1 || o.servers > NODES_MAX || (o.clients && (o.clients < 2 || o.clients > CLIENTS_MAX))) {
		usage(stderr);
		return 2;
	}
	cfs_log_init("sim", o.trace ? NULL : "/dev/null", CFS_LOG_INFO);
	if (seed) {
		start = seed;
		seeds = 1;
	}
	for (uint64_t i = 0; i < (seeds ? seeds : DEFAULT_SEEDS); i++) {
		if (!seeds && seconds() - begin > DEFAULT_SECONDS)
			break;
		failed += !one(++test, start + i, &o, &st, &hash);
		if (i || seed)
			continue;
		world_run(start, &o, &st, &again);
		failed += again != hash;
		printf("%s %u - seed %" PRIu64 " replays exactly\n", again == hash ? "ok" : "not ok", ++test, start);
	}
	if (!seeds) {
		o.full = true;
		for (seed = 1; seed <= FULL_SEEDS; seed++)
			failed += !one(++test, seed, &o, &st, &hash);
		o.full = false;
		o.powercut = true;
		o.ms = POWERCUT_MS;
		for (seed = 1; seed <= POWERCUT_SEEDS; seed++)
			failed += !one(++test, seed, &o, &st, &hash);
	}
	printf("1..%u\n", test);
	return failed != 0;
}
