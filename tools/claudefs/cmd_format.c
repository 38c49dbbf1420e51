/* SPDX-License-Identifier: MIT */
/*
 * cmd_format.c - `claudefs format PATH`: make a regular file, block device or NVMe namespace a target.
 * Refuses what is in use, and what holds anything unless --force says that it may be lost. The name it
 * prints for the configuration is one that stays: the kernel's numbers change from start to start.
 */
#include "cmd.h"

#include "base/file.h"
#include "dev/dev.h"
#include "dev/holds.h"
#include "dev/nvme.h"
#include "ring/loop.h"
#include "server/store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SIZE_MIN (256 * CFS_MIB)

static void usage(FILE *f)
{
	fputs("Usage: claudefs format [--size SIZE] [--force] [--cluster UUID] [--target-id N] PATH\n"
	      "Makes PATH, a regular file, a block device or an NVMe namespace (nvme:NAME as `claudefs\n"
	      "device ls` prints it, or /dev/ngXnY), an empty ClaudeFS target.\n"
	      "  --size SIZE      create PATH as a sparse file of this size (K, M, G, T) if absent\n"
	      "  --force          overwrite what PATH holds\n"
	      "  --yes            accepted for scripts: there is no question to answer\n"
	      "  --cluster UUID   join this cluster (default: a new one)\n"
	      "  --target-id N    number of the target in its cluster (default 0)\n"
	      "  --json           print the result as JSON\n", f);
}

static int create_sparse(const char *path, uint64_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int rc = 0;

	if (fd < 0)
		return -errno;
	cfs_file_nocow(fd);
	if (ftruncate(fd, (off_t)size) || fsync(fd))
		rc = -errno;
	close(fd);
	if (rc)
		unlink(path);
	return rc;
}

/* the name for the configuration: by-id links of block devices, the namespace's own for NVMe */
static void stable_name(const char *path, char *out, size_t len)
{
	static const char dir[] = "/dev/disk/by-id";
	char real[PATH_MAX], link[PATH_MAX], target[PATH_MAX];
	struct cfs_nvme_ns ns;
	struct dirent *e;
	DIR *d;

	snprintf(out, len, "%s", path);
	if (cfs_dev_is_nvme(path)) {
		if (!cfs_nvme_identify(path, &ns))
			snprintf(out, len, "%s", ns.name);
		return;
	}
	if (!realpath(path, real))
		return;
	snprintf(out, len, "%s", real);
	d = strncmp(real, "/dev/", 5) ? NULL : opendir(dir);
	while (d && (e = readdir(d))) {
		snprintf(link, sizeof(link), "%s/%s", dir, e->d_name);
		/* wwn- and eui. names say most, but any stays */
		if (e->d_name[0] != '.' && realpath(link, target) && !strcmp(target, real)) {
			snprintf(out, len, "%s", link);
			if (!strncmp(e->d_name, "wwn-", 4) || strstr(e->d_name, "eui."))
				break;
		}
	}
	if (d)
		closedir(d);
}

static int format_dev(struct cfs_dev *dev, const char *path, struct cfs_format_params *p, bool force)
{
	char err[256] = "", what[160];
	int rc;

	if (dev->info.size_bytes < SIZE_MIN)
		return cmd_fail(CMD_FAIL, "format", "%s: too small (%llu bytes): a target needs %llu MiB",
				path, (unsigned long long)dev->info.size_bytes,
				(unsigned long long)(SIZE_MIN / CFS_MIB));
	/* an object is half a zone at most, and clients write files in objects of 4 MiB */
	if (dev->info.flags & CFS_DEV_F_ZONED && dev->info.zone_capacity < 2 * CFS_OBJECT_MAX)
		return cmd_fail(CMD_FAIL, "format", "%s: zones of %llu KiB: files need zones of 8 MiB or more", path,
				(unsigned long long)dev->info.zone_capacity / 1024);
	rc = force ? 0 : cfs_dev_holds(dev, what, sizeof(what));
	if (rc < 0)
		return cmd_fail(CMD_FAIL, "format", "%s: cannot read: %s", path, strerror(-rc));
	if (rc)
		return cmd_fail(CMD_FAIL, "format", "%s holds %s: --force overwrites it", path, what);
	rc = cfs_store_format(dev, p, err, sizeof(err));
	if (rc)
		return cmd_fail(CMD_FAIL, "format", "%s: %s", path, err[0] ? err : strerror(-rc));
	return CMD_OK;
}

int cmd_format(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "size", required_argument, NULL, 's' }, { "force", no_argument, NULL, 'f' },
		{ "yes", no_argument, NULL, 'y' }, { "cluster", required_argument, NULL, 'c' },
		{ "target-id", required_argument, NULL, 't' }, { "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' }, { 0 },
	};
	struct cfs_format_params p = { 0 };
	bool force = false, json = false, created = false, have_uuid = false;
	struct cfs_loop *loop = NULL;
	struct cfs_dev *dev = NULL;
	uint64_t size = 0, target = 0;
	char uuid[37], human[32], name[PATH_MAX];
	struct timespec now;
	const char *path;
	struct stat st;
	int c, rc;

	while ((c = getopt_long(argc, argv, "h", opts, NULL)) != -1) {
		switch (c) {
		case 's':
			if (cmd_parse_size(optarg, &size))
				return cmd_fail(CMD_USAGE, "format", "--size '%s' is not a size (such as 8G)", optarg);
			break;
		case 'f': force = true; break;
		case 'y': break;
		case 'j': json = true; break;
		case 'c':
			if (cmd_parse_uuid(optarg, p.cluster))
				return cmd_fail(CMD_USAGE, "format", "--cluster '%s' is not a uuid", optarg);
			have_uuid = true;
			break;
		case 't':
			if (cmd_parse_size(optarg, &target) || target > UINT32_MAX)
				return cmd_fail(CMD_USAGE, "format", "--target-id '%s' is not a number", optarg);
			break;
		case 'h': usage(stdout); return CMD_OK;
		default: usage(stderr); return CMD_USAGE;
		}
	}
	if (optind + 1 != argc) {
		usage(stderr);
		return CMD_USAGE;
	}
	path = argv[optind];
	if (!have_uuid && getrandom(p.cluster, sizeof(p.cluster), 0) != sizeof(p.cluster))
		return cmd_fail(CMD_FAIL, "format", "no random numbers: %s", strerror(errno));
	if (!have_uuid) {	/* RFC 4122, version 4 */
		p.cluster[6] = (p.cluster[6] & 0x0f) | 0x40;
		p.cluster[8] = (p.cluster[8] & 0x3f) | 0x80;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	p.label_time_ns = (uint64_t)now.tv_sec * CFS_NSEC_PER_SEC + (uint64_t)now.tv_nsec;
	p.target_id = (uint32_t)target;

	if (cfs_dev_is_nvme(path)) {
		if (size)
			return cmd_fail(CMD_USAGE, "format", "--size: %s has the size it has", path);
	} else if (stat(path, &st)) {
		if (errno != ENOENT)
			return cmd_fail(CMD_FAIL, "format", "%s: %s", path, strerror(errno));
		if (!size)
			return cmd_fail(CMD_FAIL, "format", "%s does not exist: --size makes a sparse file", path);
		if (size < SIZE_MIN)
			return cmd_fail(CMD_USAGE, "format", "--size: a target needs at least %llu MiB",
					(unsigned long long)(SIZE_MIN / CFS_MIB));
		rc = create_sparse(path, size);
		if (rc)
			return cmd_fail(CMD_FAIL, "format", "%s: cannot create: %s", path, strerror(-rc));
		created = true;
	} else if (size && S_ISREG(st.st_mode) && (uint64_t)st.st_size != size) {
		return cmd_fail(CMD_FAIL, "format", "%s exists with %s, not the --size given: remove it first", path,
				cmd_human((uint64_t)st.st_size, human, sizeof(human)));
	}

	rc = cfs_dev_loop_create(64, &path, 1, &loop);
	if (rc) {
		rc = cmd_fail(CMD_FAIL, "format", "io_uring: %s", strerror(-rc));
		goto out;
	}
	rc = cfs_dev_open(loop, path, 0, &dev);
	if (rc) {
		rc = cmd_fail(CMD_FAIL, "format", "%s: %s", path,
			      rc == -EBUSY ? "is in use, mounted or held by another process" :
			      rc == -ENODEV && cfs_dev_is_nvme(path) ? "no such NVMe namespace here" : strerror(-rc));
		goto out;
	}
	rc = format_dev(dev, path, &p, force);
	if (rc)
		goto out;
	cmd_print_uuid(uuid, p.cluster);
	stable_name(path, name, sizeof(name));
	if (json)
		printf("{\"schema\":1,\"path\":\"%s\",\"name\":\"%s\",\"cluster\":\"%s\",\"target\":%u,\"bytes\":%llu}\n",
		       path, name, uuid, p.target_id, (unsigned long long)dev->info.size_bytes);
	else
		printf("%s: target %u of cluster %s, %s\n", name, p.target_id, uuid,
		       cmd_human(dev->info.size_bytes, human, sizeof(human)));
out:
	cfs_dev_close(dev);
	cfs_loop_destroy(loop);
	if (rc && created)
		unlink(path);
	return rc;
}
