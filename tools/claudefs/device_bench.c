/* SPDX-License-Identifier: MIT */
/*
 * device_bench.c - `claudefs device bench`: short loads on a device, through the server's back end, and of an
 * NVMe namespace beside it by bare commands (its own limit) and through the kernel's block device. Reads only,
 * unless --destructive says that what the device holds may be lost.
 */
#include "cmd.h"
#include "device.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "dev/holds.h"
#include "dev/nvme.h"
#include "ring/loop.h"

#define SPAN_MAX (16 * CFS_GIB)		/* of the device that is touched */

static const struct device_load loads[] = {
	{ "4 KiB random read, 1 deep", CFS_DEV_READ, 0, 4096, 1, true, false },
	{ "4 KiB random read, 32 deep", CFS_DEV_READ, 0, 4096, 32, true, false },
	{ "128 KiB sequential read, 16 deep", CFS_DEV_READ, 0, 131072, 16, false, false },
	{ "4 KiB durable write, 1 deep", CFS_DEV_WRITE, CFS_DEV_DURABLE, 4096, 1, false, true },
	{ "4 KiB random write, 32 deep", CFS_DEV_WRITE, 0, 4096, 32, true, true },
	{ "128 KiB sequential write, 16 deep", CFS_DEV_WRITE, 0, 131072, 16, false, true },
};

/* ---- through a back end -------------------------------------------------------------------------- */

struct run {
	struct cfs_loop *loop;
	struct cfs_dev *dev;
	const struct device_load *load;
	struct cfs_rng rng;
	uint64_t slots, next, done, flight;
	bool over;
	int err;
};

struct item {
	struct cfs_dev_req req;
	struct iovec iov;
	struct run *run;
};

static void item_send(struct item *it);

static void item_done(struct cfs_dev_req *req)
{
	struct item *it = cfs_container_of(req, struct item, req);
	struct run *r = it->run;

	r->flight--;
	r->done++;
	if (req->result < 0)
		r->err = (int)req->result;
	if (!r->err && !r->over)
		item_send(it);
}

static void item_send(struct item *it)
{
	struct run *r = it->run;
	const struct device_load *l = r->load;
	uint64_t n = l->random ? cfs_rng_next(&r->rng) % r->slots : r->next++ % r->slots;
	int rc;

	it->req = (struct cfs_dev_req){
		.op = l->op, .flags = l->flags, .offset = n * l->bytes, .iov = &it->iov, .iovcnt = 1,
		.len = l->bytes, .done = item_done,
	};
	rc = cfs_dev_submit(r->dev, &it->req);
	if (rc)
		r->err = rc;
	else
		r->flight++;
}

void device_run_backend(struct cfs_loop *loop, struct cfs_dev *dev, const struct device_load *load,
			uint64_t span, double seconds, struct device_rate *ret)
{
	struct run r = { .loop = loop, .dev = dev, .load = load, .slots = span / load->bytes };
	size_t bytes = (size_t)load->depth * load->bytes;
	struct item *items = calloc(load->depth, sizeof(*items));
	uint8_t *mem = aligned_alloc(4096, bytes);
	struct device_clock since;
	uint64_t end;

	*ret = (struct device_rate){ 0 };
	if (!items || !mem) {
		ret->err = -ENOMEM;
		goto out;
	}
	memset(mem, 0x5a, bytes);
	cfs_loop_mem_add(loop, mem, bytes);	/* or it goes without */
	cfs_rng_seed(&r.rng, 1);
	since = device_clock_now();
	end = since.wall_ns + (uint64_t)(seconds * 1e9);
	for (uint32_t i = 0; i < load->depth; i++) {
		items[i].run = &r;
		items[i].iov = (struct iovec){ mem + (size_t)i * load->bytes, load->bytes };
		item_send(&items[i]);
	}
	while (r.flight) {
		int rc = cfs_loop_turn(loop, UINT64_MAX);

		CFS_ASSERT(!rc);	/* requests are under way: there is no going on without the ring */
		r.over = device_clock_now().wall_ns >= end;	/* as often as the bare loop asks */
	}
	ret->err = r.err;
	device_rate_set(ret, since, r.done, load->depth);
	cfs_loop_mem_del(loop, mem);
out:
	free(mem);
	free(items);
}

/* ---- the command ------------------------------------------------------------------------------------ */

struct way {
	const char *name, *key;
	struct cfs_dev *dev;		/* NULL: bare commands, or not there */
	struct device_rate rate[CFS_ARRAY_SIZE(loads)];
};
enum { BACKEND, BARE, BLOCK, WAYS };

static void usage(FILE *f)
{
	fputs("Usage: claudefs device bench [--destructive [--force]] [--seconds N] [--json] NAME\n"
	      "Short loads on a device (NAME as for `claudefs format`): through the server's own back end and, for an\n"
	      "NVMe namespace, beside it by bare commands, which is the drive's own limit, and through the block device.\n"
	      "  --destructive  also writes: WHAT THE DEVICE HOLDS IS LOST; refused if it holds anything\n"
	      "  --force        ... unless this is given as well\n"
	      "  --seconds N    for each load and way (default 2)\n"
	      "  --json         print the result as JSON\n", f);
}

static void print_row(const struct way *ways, size_t i)
{
	const struct device_rate *r = &ways[BACKEND].rate[i];

	printf("%-34s", loads[i].name);
	for (unsigned w = 0; w < WAYS; w++) {
		const struct device_rate *o = &ways[w].rate[i];

		if (o->err)
			printf(" %14s", o->err == -ENODEV ? "-" : strerror(-o->err));
		else if (loads[i].bytes > 65536)
			printf(" %8.0f MiB/s", o->per_second * loads[i].bytes / CFS_MIB);
		else
			printf(" %9.0f IOPS", o->per_second);
	}
	for (unsigned w = BARE; w < WAYS; w++) {
		if (ways[w].rate[i].err || r->err || ways[w].rate[i].per_second <= 0)
			printf(" %7s", "-");
		else
			printf(" %6.2fx", r->per_second / ways[w].rate[i].per_second);
	}
	printf(" %8.0f ns\n", r->cpu_ns);
}

static void print_table(const struct way *ways, bool destructive)
{
	printf("%-34s %14s %14s %14s %7s %7s %11s\n", "", ways[BACKEND].name, ways[BARE].name, ways[BLOCK].name,
	       "/bare", "/block", "CPU each");
	for (size_t i = 0; i < CFS_ARRAY_SIZE(loads); i++) {
		if (!loads[i].destructive || destructive)
			print_row(ways, i);
	}
}

static void print_json(const char *name, const struct way *ways, bool destructive)
{
	json_t *list = json_array(), *root;

	for (size_t i = 0; i < CFS_ARRAY_SIZE(loads); i++) {
		json_t *o = json_pack("{s:s, s:I, s:I}", "load", loads[i].name, "bytes", (json_int_t)loads[i].bytes,
				      "depth", (json_int_t)loads[i].depth);

		if (loads[i].destructive && !destructive) {
			json_decref(o);
			continue;
		}
		for (unsigned w = 0; w < WAYS; w++) {
			const struct device_rate *r = &ways[w].rate[i];

			if (!r->err)
				json_object_set_new(o, ways[w].key,
						    json_pack("{s:f, s:f, s:f}", "per_second", r->per_second,
							      "latency_us", r->latency_us, "cpu_ns", r->cpu_ns));
		}
		json_array_append_new(list, o);
	}
	root = json_pack("{s:i, s:s, s:o}", "schema", 1, "device", name, "loads", list);
	json_dumpf(root, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
	putchar('\n');
	json_decref(root);
}

/* each load on every way, one right after the other: what else the machine does hits all alike */
static void run_all(struct cfs_loop *loop, struct way *ways, const char *generic, uint64_t span, double seconds,
		    bool destructive)
{
	for (size_t i = 0; i < CFS_ARRAY_SIZE(loads); i++) {
		for (unsigned w = 0; w < WAYS; w++) {
			struct device_rate *r = &ways[w].rate[i];

			r->err = -ENODEV;
			if (loads[i].destructive && !destructive)
				continue;
			/* the block device is only read: the back end holds it */
			if (ways[w].dev && !(w == BLOCK && loads[i].destructive))
				device_run_backend(loop, ways[w].dev, &loads[i], span, seconds, r);
			else if (w == BARE && generic[0])
				device_run_bare(generic, &loads[i], span, seconds, r);
		}
	}
}

static int open_ways(struct cfs_loop *loop, const char *name, bool destructive, struct way *ways, char generic[32])
{
	struct cfs_nvme_ns ns;
	int rc;

	generic[0] = '\0';
	rc = cfs_dev_open(loop, name, destructive ? 0 : CFS_DEV_F_READONLY, &ways[BACKEND].dev);
	if (rc)
		return cmd_fail(CMD_FAIL, "device", "%s: %s", name,
				rc == -EBUSY ? "is in use, mounted or held by another process" : strerror(-rc));
	ways[BACKEND].name = ways[BACKEND].dev->ops->name;
	if (strcmp(ways[BACKEND].name, "nvme") || cfs_nvme_identify(name, &ns))
		return CMD_OK;
	snprintf(generic, 32, "%s", ns.generic);
	/* beside ours the block device is for comparison alone: one that is not there is left out */
	if (ns.block[0] && cfs_dev_block_open(loop, ns.block, CFS_DEV_F_READONLY, &ways[BLOCK].dev))
		ways[BLOCK].dev = NULL;
	return CMD_OK;
}

int device_bench(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "destructive", no_argument, NULL, 'd' }, { "force", no_argument, NULL, 'f' },
		{ "seconds", required_argument, NULL, 's' }, { "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' }, { 0 },
	};
	struct way ways[WAYS] = { { .name = "", .key = "backend" }, { .name = "bare", .key = "bare" },
				  { .name = "block device", .key = "block" } };
	bool destructive = false, force = false, json = false;
	struct cfs_loop *loop = NULL;
	char generic[32], what[160], *end;
	double seconds = 2;
	const char *name;
	uint64_t span;
	int c, rc;

	while ((c = getopt_long(argc, argv, "h", opts, NULL)) != -1) {
		switch (c) {
		case 'd': destructive = true; break;
		case 'f': force = true; break;
		case 'j': json = true; break;
		case 's':
			seconds = strtod(optarg, &end);
			if (*end || !(seconds > 0 && seconds <= 3600))
				return cmd_fail(CMD_USAGE, "device", "--seconds '%s' is not a number up to 3600", optarg);
			break;
		case 'h': usage(stdout); return CMD_OK;
		default: usage(stderr); return CMD_USAGE;
		}
	}
	if (optind + 1 != argc) {
		usage(stderr);
		return CMD_USAGE;
	}
	name = argv[optind];
	rc = cfs_dev_loop_create(256, &name, 1, &loop);
	if (rc)
		return cmd_fail(CMD_FAIL, "device", "io_uring: %s", strerror(-rc));
	rc = open_ways(loop, name, destructive, ways, generic);
	if (rc)
		goto out;
	if (destructive && ways[BACKEND].dev->info.flags & CFS_DEV_F_ZONED) {
		rc = cmd_fail(CMD_FAIL, "device", "%s is zoned: only reads can be measured", name);
		goto out;
	}
	rc = destructive && !force ? cfs_dev_holds(ways[BACKEND].dev, what, sizeof(what)) : 0;
	if (rc) {
		rc = cmd_fail(CMD_FAIL, "device", rc < 0 ? "%s: cannot read%s" : "%s holds %s: --force overwrites it", name,
			      rc < 0 ? "" : what);
		goto out;
	}
	span = cfs_min(ways[BACKEND].dev->info.size_bytes, (uint64_t)SPAN_MAX);
	if (span < CFS_MIB) {
		rc = cmd_fail(CMD_FAIL, "device", "%s: too small", name);
		goto out;
	}
	run_all(loop, ways, generic, span, seconds, destructive);
	if (json)
		print_json(name, ways, destructive);
	else
		print_table(ways, destructive);
	for (size_t i = 0; i < CFS_ARRAY_SIZE(loads); i++) {
		int err = ways[BACKEND].rate[i].err;

		if (err && (destructive || !loads[i].destructive))
			rc = cmd_fail(CMD_FAIL, "device", "%s: %s: %s", name, loads[i].name, strerror(-err));
	}
out:
	cfs_dev_close(ways[BLOCK].dev);
	cfs_dev_close(ways[BACKEND].dev);
	cfs_loop_destroy(loop);
	return rc;
}
