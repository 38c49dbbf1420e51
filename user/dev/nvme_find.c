/* SPDX-License-Identifier: MIT */
/*
 * nvme_find.c - the NVMe namespaces of this machine: a list, look-up by stable name, opening; see nvme.h.
 * No state.
 *
 * The kernel's numbers are used only between here and there: who opens a namespace asks the opened
 * descriptor itself for its name again, so that a device that came back under another's number is not taken.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "base/log.h"
#include "dev/nvme_ident.h"
#include "dev/nvme_sqe.h"

#define GENERIC_CLASS "/sys/class/nvme-generic"
#define HELD_WAIT_MS 3000u
#define HELD_STEP_MS 50u

/* /dev/ng3n1 for /dev/nvme3n1, and the other way round. false: neither */
static bool nodes_of(const char *path, char generic[32], char block[32])
{
	const char *name = strrchr(path, '/');
	unsigned ctrl, ns;
	char end;

	name = name ? name + 1 : path;
	if (sscanf(name, "ng%un%u%c", &ctrl, &ns, &end) != 2 && sscanf(name, "nvme%un%u%c", &ctrl, &ns, &end) != 2)
		return false;
	snprintf(generic, 32, "/dev/ng%un%u", ctrl, ns);
	snprintf(block, 32, "/dev/nvme%un%u", ctrl, ns);
	return true;
}

/* the least of the numbers other than 0 in files of sysfs that match; 0: none */
static uint32_t sysfs_least(const char *pattern)
{
	uint32_t least = 0;
	glob_t found;

	if (glob(pattern, 0, NULL, &found))
		return 0;
	for (size_t i = 0; i < found.gl_pathc; i++) {
		FILE *f = fopen(found.gl_pathv[i], "re");
		unsigned v;

		if (f && fscanf(f, "%u", &v) == 1 && v && (!least || v < least))
			least = v;
		if (f)
			fclose(f);
	}
	globfree(&found);
	return least;
}

/*
 * How the drive is reached, and whether the node is the kernel's multipath node: it then hangs below the subsystem, whose
 * directory has a link to each controller, and not below a controller.
 */
static void find_transport(const char *generic, struct cfs_nvme_ns *ns, struct cfs_nvme_limits *lim)
{
	char path[128];
	glob_t found;
	FILE *f;

	snprintf(path, sizeof(path), GENERIC_CLASS "/%s/device/nvme*/transport", generic + strlen("/dev/"));
	lim->multipath = !glob(path, 0, NULL, &found);
	if (!lim->multipath)
		snprintf(path, sizeof(path), GENERIC_CLASS "/%s/device/transport", generic + strlen("/dev/"));
	f = fopen(lim->multipath ? found.gl_pathv[0] : path, "re");
	if (lim->multipath)
		globfree(&found);
	if (!f)
		return;
	if (fscanf(f, "%15s", ns->transport) != 1)
		ns->transport[0] = '\0';
	fclose(f);
}

/*
 * What the kernel's queue allows; a namespace without a block device keeps the defaults. The queue of a multipath node
 * allows anything: those of its paths count, nvmeXcYnZ for each controller Y.
 */
static void add_kernel_limits(const char *generic, struct cfs_nvme_limits *lim)
{
	char pattern[128];
	unsigned ctrl, ns;
	uint32_t kb;
	int n;

	if (sscanf(generic, "/dev/ng%un%u", &ctrl, &ns) != 2)
		return;
	n = snprintf(pattern, sizeof(pattern), lim->multipath ? "/sys/block/nvme%uc*n%u/queue/" : "/sys/block/nvme%un%u/queue/",
		     ctrl, ns);
	strcpy(pattern + n, "max_hw_sectors_kb");
	kb = sysfs_least(pattern);
	if (kb && kb <= UINT32_MAX / 1024 && (!lim->max_bytes || kb * 1024 < lim->max_bytes))
		lim->max_bytes = kb * 1024;
	strcpy(pattern + n, "max_segments");
	lim->max_segments = sysfs_least(pattern) ?: lim->max_segments;
	strcpy(pattern + n, "io_poll");
	lim->poll_queues = sysfs_least(pattern);
	snprintf(pattern, sizeof(pattern), GENERIC_CLASS "/ng%un%u/device/%ssqsize", ctrl, ns, lim->multipath ? "nvme*/" : "");
	lim->depth = sysfs_least(pattern);
}

/* identify by a descriptor of either node */
static int identify_fd(int fd, const char *path, struct cfs_nvme_ns *ns, struct cfs_nvme_limits *lim)
{
	struct cfs_nvme_pages *pages = malloc(sizeof(*pages));
	struct cfs_nvme_limits own;
	int rc;

	if (!pages)
		return -ENOMEM;
	rc = cfs_nvme_pages_read(fd, pages);
	if (!rc) {
		lim = lim ? lim : &own;
		cfs_nvme_pages_decode(pages, ns, lim);
		if (!nodes_of(path, ns->generic, ns->block)) {
			ns->generic[0] = ns->block[0] = '\0';
		} else {
			find_transport(ns->generic, ns, lim);
			add_kernel_limits(ns->generic, lim);
		}
		ns->max_io = lim->max_bytes;
		if (access(ns->block, F_OK))
			ns->block[0] = '\0';
	}
	free(pages);
	return rc;
}

static int identify_node(const char *path, struct cfs_nvme_ns *ns)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), rc;

	if (fd < 0)
		return -errno;
	rc = identify_fd(fd, path, ns, NULL);
	close(fd);
	return rc;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct cfs_nvme_ns *)a)->name, ((const struct cfs_nvme_ns *)b)->name);
}

int cfs_nvme_scan(struct cfs_nvme_ns **ret_ns)
{
	struct cfs_nvme_ns *list = NULL;
	struct dirent *e;
	DIR *d = opendir(GENERIC_CLASS);
	int n = 0, rc = 0;

	if (!d && errno != ENOENT)
		return -errno;
	list = calloc(CFS_NVME_SCAN_MAX, sizeof(*list));
	if (!list)
		rc = -ENOMEM;
	while (d && !rc && n < (int)CFS_NVME_SCAN_MAX && (e = readdir(d))) {
		char path[300];

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/dev/%s", e->d_name);
		rc = identify_node(path, &list[n]);
		if (!rc)
			n++;
		else if (rc != -EACCES && rc != -EPERM)
			rc = 0;		/* one that does not answer hides no other */
	}
	if (d)
		closedir(d);
	if (rc && n)
		rc = 0;
	if (rc) {
		free(list);
		return rc;
	}
	qsort(list, (size_t)n, sizeof(*list), by_name);
	*ret_ns = list;
	return n;
}

int cfs_nvme_identify(const char *path, struct cfs_nvme_ns *ret_ns)
{
	struct cfs_nvme_ns *list = NULL;
	int n, hits = 0;

	if (strncmp(path, "nvme:", 5)) {
		char real[4096];

		return realpath(path, real) ? identify_node(real, ret_ns) : -errno;
	}
	n = cfs_nvme_scan(&list);
	if (n < 0)
		return n;
	for (int i = 0; i < n; i++) {
		if (strcmp(list[i].name, path))
			continue;
		/* two controllers that share a namespace: either will do; two drives of one name must not be */
		if (hits++ && strcmp(list[i].serial, ret_ns->serial)) {
			cfs_err("%s: two drives have this name (%s and %s)", path, ret_ns->generic, list[i].generic);
			free(list);
			return -ENOTUNIQ;
		}
		*ret_ns = list[i];
	}
	free(list);
	return hits ? 0 : -ENODEV;
}

/* ---- opening ----------------------------------------------------------------------------------- */

/* keep everybody else out: through the block device, or where there is none by a lock on the node */
static int hold(const struct cfs_nvme_ns *ns, struct cfs_nvme_fds *fds)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	struct cfs_nvme_ns other;
	int rc;

	if (!ns->block[0]) {
		if (!fcntl(fds->ng, F_OFD_SETLK, &fl))
			return 0;
		return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
	}
	/* a server that was killed holds it until the kernel has ended its commands */
	for (unsigned waited = 0;; waited += HELD_STEP_MS) {
		fds->hold = open(ns->block, O_RDWR | O_EXCL | O_CLOEXEC);
		if (fds->hold >= 0 || errno != EBUSY || waited >= HELD_WAIT_MS)
			break;
		usleep(HELD_STEP_MS * 1000);
	}
	if (fds->hold < 0)
		return -errno;
	rc = identify_fd(fds->hold, ns->block, &other, NULL);
	return rc ? rc : strcmp(other.name, ns->name) ? -ENODEV : 0;
}

int cfs_dev_nvme_open(struct cfs_loop *loop, const char *path, uint32_t flags, struct cfs_dev **ret_dev)
{
	const uint32_t polled = CFS_NVME_IOPOLL | CFS_NVME_SQPOLL;
	bool readonly = flags & CFS_DEV_F_READONLY;
	struct cfs_nvme_fds fds = { -1, -1 };
	struct cfs_nvme_limits lim;
	struct cfs_nvme_port *port;
	struct cfs_nvme_ns ns, now;
	int rc;

	if (flags & ~(CFS_DEV_F_READONLY | polled))
		return -EINVAL;
	rc = cfs_nvme_identify(path, &ns);
	if (rc)
		return rc;
	if (!ns.usable) {
		cfs_err("%s: cannot be used: %s", path, ns.why);
		return -EOPNOTSUPP;
	}
	if (loop && !cfs_loop_is_wide(loop) && !(flags & polled)) {
		cfs_err("%s: this kernel has no NVMe passthrough (it came with Linux 5.19)", path);
		return -EOPNOTSUPP;
	}
	fds.ng = open(ns.generic, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (fds.ng < 0)
		return -errno;
	rc = identify_fd(fds.ng, ns.generic, &now, &lim);
	if (!rc && strcmp(now.name, ns.name))
		rc = -ENODEV;	/* the numbers have just changed hands */
	if (!rc && flags & CFS_NVME_IOPOLL && !lim.poll_queues)
		rc = -ENOLCK;
	if (!rc && !readonly)
		rc = hold(&now, &fds);
	if (rc) {
		cfs_nvme_fds_close(fds);
		return rc;
	}
	rc = loop && flags & polled ? cfs_nvme_poll_open(loop, fds, lim.nsid, flags, &port) :
				      cfs_nvme_port_open(loop, fds, lim.nsid, &port);
	if (!rc)
		rc = cfs_nvme_create(loop, port, &lim, now.name, flags & CFS_DEV_F_READONLY, ret_dev);
	return rc;
}
