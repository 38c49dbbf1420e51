/* SPDX-License-Identifier: MIT */
/*
 * cmd_device.c - `claudefs device ls`: the NVMe namespaces of this machine, with the names that stay, and what
 * decides whether and how well they serve. Reads only. `claudefs device bench` is in device_bench.c.
 */
#include "cmd.h"
#include "device.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dev/holds.h"
#include "dev/nvme.h"

static void usage(FILE *f)
{
	fputs("Usage: claudefs device ls [--json] [NAME]...\n"
	      "       claudefs device bench [OPTION]... NAME    (see claudefs device bench --help)\n"
	      "ls lists this machine's NVMe namespaces, or those named: the name for `claudefs format` and the\n"
	      "configuration, how it is reached, model, size, block size, zones, atomic unit, whether its write cache forgets\n"
	      "when power fails, wear, temperature, and what it holds.\n", f);
}

/* who has it, or what it holds */
static void state_of(const struct cfs_nvme_ns *ns, char *state, size_t len)
{
	struct cfs_dev *dev = NULL;
	char what[160];
	int fd, rc;

	if (!ns->usable) {
		snprintf(state, len, "cannot be used: %s", ns->why);
		return;
	}
	rc = cfs_dev_nvme_open(NULL, ns->generic, CFS_DEV_F_READONLY, &dev);
	if (!rc)
		rc = cfs_dev_holds(dev, what, sizeof(what));
	cfs_dev_close(dev);
	/* an exclusive open that fails tells of a mount, or of a server */
	fd = ns->block[0] ? open(ns->block, O_RDONLY | O_EXCL | O_CLOEXEC) : -1;
	snprintf(state, len, "%s%s", fd < 0 && errno == EBUSY && ns->block[0] ? "in use: " : "",
		 rc < 0 ? strerror(-rc) : rc ? what : "empty");
	if (fd >= 0)
		close(fd);
}

static void print_table(const struct cfs_nvme_ns *ns, int n)
{
	char size[32], zones[32], atomic[32], wear[16], temp[16], state[200];
	int width = (int)strlen("NAME");

	for (int i = 0; i < n; i++)
		width = cfs_max(width, (int)strlen(ns[i].name));
	printf("%-*s  %-13s %-4s %-24s %10s %5s %-14s %-9s %-8s %5s %5s  %s\n", width, "NAME", "NODE", "VIA", "MODEL", "SIZE",
	       "BLOCK", "ZONES", "ATOMIC", "CACHE", "WEAR", "TEMP", "STATE");
	for (int i = 0; i < n; i++) {
		const struct cfs_nvme_health *h = &ns[i].health;

		snprintf(zones, sizeof(zones), "-");
		if (ns[i].zoned)
			snprintf(zones, sizeof(zones), "%u x %.0f MiB", ns[i].n_zones, (double)ns[i].zone_bytes / CFS_MIB);
		snprintf(wear, sizeof(wear), "-");
		snprintf(temp, sizeof(temp), "-");
		if (h->known) {
			snprintf(wear, sizeof(wear), "%u%%", h->used_percent);
			if (h->temperature_c != CFS_NVME_NO_TEMPERATURE)
				snprintf(temp, sizeof(temp), "%d C", h->temperature_c);
		}
		state_of(&ns[i], state, sizeof(state));
		printf("%-*s  %-13s %-4s %-24.24s %10s %5u %-14s %-9s %-8s %5s %5s  %s%s\n", width, ns[i].name, ns[i].generic,
		       ns[i].transport[0] ? ns[i].transport : "-", ns[i].model,
		       cmd_human(ns[i].size_bytes, size, sizeof(size)), ns[i].block_bytes, zones,
		       cmd_human(ns[i].atomic_unit, atomic, sizeof(atomic)), ns[i].volatile_cache ? "volatile" : "safe",
		       wear, temp, state,
		       h->critical_warning ? "; THE DRIVE WARNS of its health" : "");
	}
}

static json_t *health_json(const struct cfs_nvme_health *h)
{
	if (!h->known)
		return json_null();
	return json_pack("{s:i, s:i, s:i, s:o, s:I, s:I, s:I, s:I, s:I}", "critical_warning", (int)h->critical_warning,
			 "used_percent", (int)h->used_percent, "spare_percent", (int)h->spare_percent, "temperature_c",
			 h->temperature_c == CFS_NVME_NO_TEMPERATURE ? json_null() : json_integer(h->temperature_c),
			 "media_errors", (json_int_t)h->media_errors, "power_cycles",
			 (json_int_t)h->power_cycles, "unsafe_shutdowns", (json_int_t)h->unsafe_shutdowns,
			 "power_on_hours", (json_int_t)h->power_on_hours, "written_bytes", (json_int_t)h->written_bytes);
}

static json_t *zones_json(const struct cfs_nvme_ns *ns)
{
	if (!ns->zoned)
		return json_null();
	return json_pack("{s:I, s:I, s:I, s:I}", "count", (json_int_t)ns->n_zones, "bytes", (json_int_t)ns->zone_bytes,
			 "max_active", (json_int_t)ns->max_active, "max_open", (json_int_t)ns->max_open);
}

static void print_json(const struct cfs_nvme_ns *ns, int n)
{
	json_t *list = json_array(), *root;
	char state[200];

	for (int i = 0; i < n; i++) {
		json_t *formats = json_array();

		for (unsigned k = 0; k < CFS_ARRAY_SIZE(ns[i].formats) && ns[i].formats[k]; k++)
			json_array_append_new(formats, json_integer(ns[i].formats[k]));
		state_of(&ns[i], state, sizeof(state));
		json_array_append_new(list, json_pack(
			"{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:o, s:b, s:o, s:I, s:I, s:b, s:b, s:s, s:o}",
			"name", ns[i].name, "generic", ns[i].generic, "block", ns[i].block, "transport", ns[i].transport, "model", ns[i].model,
			"serial", ns[i].serial, "firmware", ns[i].firmware, "namespace", (json_int_t)ns[i].nsid,
			"size_bytes", (json_int_t)ns[i].size_bytes, "used_bytes", (json_int_t)ns[i].used_bytes,
			"block_bytes", (json_int_t)ns[i].block_bytes, "formats", formats, "zoned", ns[i].zoned,
			"zones", zones_json(&ns[i]), "atomic_bytes", (json_int_t)ns[i].atomic_unit,
			"max_io_bytes", (json_int_t)ns[i].max_io, "volatile_cache", ns[i].volatile_cache,
			"usable", ns[i].usable, "state", state, "health", health_json(&ns[i].health)));
	}
	root = json_pack("{s:i, s:o}", "schema", 1, "devices", list);
	json_dumpf(root, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(root);
}

static int device_ls(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "json", no_argument, NULL, 'j' }, { "help", no_argument, NULL, 'h' }, { 0 },
	};
	struct cfs_nvme_ns *list = NULL;
	bool json = false;
	int c, n;

	while ((c = getopt_long(argc, argv, "h", opts, NULL)) != -1) {
		switch (c) {
		case 'j': json = true; break;
		case 'h': usage(stdout); return CMD_OK;
		default: usage(stderr); return CMD_USAGE;
		}
	}
	if (optind == argc) {
		n = cfs_nvme_scan(&list);
		if (n < 0)
			return cmd_fail(CMD_FAIL, "device", "cannot look for NVMe namespaces: %s", strerror(-n));
	} else {
		list = calloc((size_t)(argc - optind), sizeof(*list));
		for (n = 0; list && optind < argc; n++, optind++) {
			int rc = cfs_nvme_identify(argv[optind], &list[n]);

			if (rc) {
				free(list);
				return cmd_fail(CMD_FAIL, "device", "%s: %s", argv[optind],
						rc == -ENOTTY ? "is not an NVMe namespace" : strerror(-rc));
			}
		}
	}
	if (json)
		print_json(list, n);
	else if (n)
		print_table(list, n);
	else
		puts("no NVMe namespaces here");
	free(list);
	return CMD_OK;
}

int cmd_device(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";

	if (!strcmp(verb, "ls"))
		return device_ls(argc - 1, argv + 1);
	if (!strcmp(verb, "bench"))
		return device_bench(argc - 1, argv + 1);
	if (!strcmp(verb, "--help") || !strcmp(verb, "-h")) {
		usage(stdout);
		return CMD_OK;
	}
	usage(stderr);
	return CMD_USAGE;
}
