/* SPDX-License-Identifier: MIT */
/*
 * cmd_format.c - `claudefs format PATH`: make a regular file or block device a target. Refuses
 * what is in use or holds anything, unless --force says that it may be lost.
 */
#include "cmd.h"

#include "dev/dev.h"
#include "ring/loop.h"
#include "server/store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PROBE_BYTES (1u << 20)	/* how much of the beginning must be zeros to count as empty */
#define SIZE_MIN (256 * CFS_MIB)

static void usage(FILE *f)
{
	fputs("Usage: claudefs format [--size SIZE] [--force] [--cluster UUID] [--target-id N] PATH\n"
	      "Makes PATH, a regular file or a block device, an empty ClaudeFS target.\n"
	      "  --size SIZE      create PATH as a sparse file of this size (K, M, G, T) if absent\n"
	      "  --force          overwrite what PATH holds\n"
	      "  --yes            accepted for scripts: there is no question to answer\n"
	      "  --cluster UUID   join this cluster (default: a new one)\n"
	      "  --target-id N    number of the target in its cluster (default 0)\n"
	      "  --json           print the result as JSON\n", f);
}

/* 1: all zeros, 0: holds something, or -errno */
static int looks_empty(struct cfs_dev *dev)
{
	size_t len = cfs_min((uint64_t)PROBE_BYTES, dev->info.size_bytes);
	unsigned char *buf = aligned_alloc(4096, PROBE_BYTES);
	int rc;

	if (!buf)
		return -ENOMEM;
	rc = dev->ops->read_sync(dev, 0, buf, (uint32_t)len);
	if (!rc)
		rc = buf[0] == 0 && !memcmp(buf, buf + 1, len - 1);
	free(buf);
	return rc;
}

static int create_sparse(const char *path, uint64_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int rc = 0;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) || fsync(fd))
		rc = -errno;
	close(fd);
	if (rc)
		unlink(path);
	return rc;
}

static int format_dev(struct cfs_dev *dev, const char *path, struct cfs_format_params *p, bool force)
{
	char err[256] = "";
	int rc;

	if (dev->info.size_bytes < SIZE_MIN)
		return cmd_fail(CMD_FAIL, "format", "%s: too small (%llu bytes): a target needs %llu MiB",
				path, (unsigned long long)dev->info.size_bytes,
				(unsigned long long)(SIZE_MIN / CFS_MIB));
	rc = force ? 1 : looks_empty(dev);
	if (rc < 0)
		return cmd_fail(CMD_FAIL, "format", "%s: cannot read: %s", path, strerror(-rc));
	if (!rc)
		return cmd_fail(CMD_FAIL, "format", "%s is not empty: --force overwrites what it holds", path);
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
	char uuid[37], human[32];
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

	if (stat(path, &st)) {
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

	rc = cfs_loop_create(64, &loop);
	if (rc) {
		rc = cmd_fail(CMD_FAIL, "format", "io_uring: %s", strerror(-rc));
		goto out;
	}
	rc = cfs_dev_block_open(loop, path, 0, &dev);
	if (rc) {
		rc = cmd_fail(CMD_FAIL, "format", "%s: %s", path,
			      rc == -EBUSY ? "is in use by another process" : strerror(-rc));
		goto out;
	}
	rc = format_dev(dev, path, &p, force);
	if (rc)
		goto out;
	cmd_print_uuid(uuid, p.cluster);
	if (json)
		printf("{\"schema\":1,\"path\":\"%s\",\"cluster\":\"%s\",\"target\":%u,\"bytes\":%llu}\n", path, uuid,
		       p.target_id, (unsigned long long)dev->info.size_bytes);
	else
		printf("%s: target %u of cluster %s, %s\n", path, p.target_id, uuid,
		       cmd_human(dev->info.size_bytes, human, sizeof(human)));
out:
	cfs_dev_close(dev);
	cfs_loop_destroy(loop);
	if (rc && created)
		unlink(path);
	return rc;
}
