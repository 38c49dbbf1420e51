// SPDX-License-Identifier: MIT
/* bpf_pins.c - see bpf_pins.h. */
#include "client/bpf_maps.h"
#include "client/bpf_pins.h"

#include "base/base.h"
#include "base/hash.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define BPFFS		"/sys/fs/bpf"
#define BASE		BPFFS "/claudefs"
#define NAME_BYTES	80u	/* of a mount point in a path; longer ones are known by a hash */

void cfs_bpf_maps_path(const char *mountpoint, char *path, size_t len)
{
	char name[NAME_BYTES + 8];
	const char *p = mountpoint + strspn(mountpoint, "/");
	size_t n = 0;

	for (; *p && n < NAME_BYTES; p++) {
		if (*p == '/')
			name[n++] = '-';
		else if (isalnum((unsigned char)*p) || *p == '_')
			name[n++] = *p;
		else /* dots, too: the BPF file system keeps them for itself */
			n += (size_t)snprintf(name + n, sizeof(name) - n, "\\x%02x", (unsigned char)*p);
	}
	name[n] = 0;
	if (n >= NAME_BYTES)
		snprintf(name, sizeof(name), "%016llx",
			 (unsigned long long)cfs_hash64(mountpoint, strlen(mountpoint), 0));
	snprintf(path, len, BASE "/%s", n ? name : "-");
}

#if CFS_HAVE_BPF

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define LOCK_TRIES	100	/* 20 ms apart: who holds it needs microseconds */
#define LEFTOVERS_MAX	256	/* looked at when a mount begins */

CFS_PRINTF(4, 5)
static int fail(int rc, char *why, size_t len, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(why, len, fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < len)
		snprintf(why + n, len - (size_t)n, ": %s", strerror(-rc));
	return rc;
}

static int have_bpffs(char *why, size_t len)
{
	struct statfs sf;

	if (!statfs(BPFFS, &sf) && sf.f_type == BPF_FS_MAGIC)
		return 0;
	if (mount("bpf", BPFFS, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") && errno != EBUSY)
		return fail(-errno, why, len, "no tables: cannot mount the BPF file system at " BPFFS);
	return 0;
}

static void unlink_all(int dirfd)
{
	DIR *d = fdopendir(dup(dirfd));
	struct dirent *e;

	if (!d)
		return;
	rewinddir(d);
	while ((e = readdir(d)))
		if (e->d_name[0] != '.')
			unlinkat(dirfd, e->d_name, 0);
	closedir(d);
}

/* what make(), map() and table() made, and nothing else */
static void remove_dir(int dirfd, const char *path)
{
	int maps = openat(dirfd, "maps", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (maps >= 0) {
		unlink_all(maps);
		close(maps);
		unlinkat(dirfd, "maps", AT_REMOVEDIR);
	}
	unlink_all(dirfd);
	rmdir(path);
}

/* the base is locked: a directory that nobody has locked is not one that is just being made */
static void remove_leftovers(int base)
{
	DIR *d = fdopendir(dup(base));
	char path[PATH_MAX];
	struct dirent *e;
	int n = 0;

	if (!d)
		return;
	rewinddir(d);
	while ((e = readdir(d)) && n++ < LEFTOVERS_MAX) {
		int fd = e->d_name[0] == '.' ? -1 : openat(base, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		if (fd < 0)
			continue;
		snprintf(path, sizeof(path), BASE "/%s", e->d_name);
		if (!flock(fd, LOCK_EX | LOCK_NB))
			remove_dir(fd, path);
		close(fd);
	}
	closedir(d);
}

static int lock_base(int *ret_fd, char *why, size_t len)
{
	int fd, rc = -EAGAIN;

	if (mkdir(BASE, 0700) && errno != EEXIST)
		return fail(-errno, why, len, "no tables: cannot make " BASE);
	fd = open(BASE, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return fail(-errno, why, len, "no tables: cannot open " BASE);
	for (int i = 0; i < LOCK_TRIES && rc; i++) {
		if (i)
			poll(NULL, 0, 20);
		rc = flock(fd, LOCK_EX | LOCK_NB) ? -errno : 0;
	}
	if (rc) {
		close(fd);
		return fail(rc, why, len, "no tables: somebody keeps " BASE " locked");
	}
	*ret_fd = fd;
	return 0;
}

int cfs_bpf_pins_make(struct cfs_bpf_pins *p, const char *mountpoint, char *why, size_t len)
{
	char maps[PATH_MAX + 8];
	int rc, base = -1, fd;

	rc = have_bpffs(why, len);
	if (!rc)
		rc = lock_base(&base, why, len);
	if (rc)
		return rc;
	remove_leftovers(base);
	cfs_bpf_maps_path(mountpoint, p->dir, sizeof(p->dir));
	snprintf(maps, sizeof(maps), "%s/maps", p->dir);
	if (mkdir(p->dir, 0700)) {
		rc = errno == EEXIST ? -EBUSY : -errno;
		fail(rc, why, len, "no tables: cannot make %s", p->dir);
		goto out;
	}
	fd = open(p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) || mkdir(maps, 0700)) {
		rc = fail(-errno, why, len, "no tables: %s", p->dir);
		rmdir(p->dir);
		if (fd >= 0)
			close(fd);
		goto out;
	}
	p->fd = fd;
out:
	close(base);
	return rc;
}

int cfs_bpf_pins_map(struct cfs_bpf_pins *p, int fd, const char *name, char *why, size_t len)
{
	char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/maps/%s", p->dir, name);
	return bpf_obj_pin(fd, path) ? fail(-errno, why, len, "no tables: cannot pin %s", path) : 0;
}

int cfs_bpf_pins_table(struct cfs_bpf_pins *p, struct bpf_program *prog, int map_fd, const char *name, char *why, size_t len)
{
	union bpf_iter_link_info info = { .map.map_fd = (uint32_t)map_fd };
	LIBBPF_OPTS(bpf_iter_attach_opts, opts, .link_info = &info, .link_info_len = sizeof(info));
	struct bpf_link *link = bpf_program__attach_iter(prog, &opts);
	char path[PATH_MAX + 64];
	int rc;

	if (!link)
		return fail(-errno, why, len, "no tables: cannot make the iterator %s", name);
	snprintf(path, sizeof(path), "%s/%s", p->dir, name);
	rc = bpf_link__pin(link, path);
	if (rc)
		fail(rc, why, len, "no tables: cannot pin %s", path);
	bpf_link__destroy(link); /* what is pinned stays */
	return rc;
}

void cfs_bpf_pins_remove(struct cfs_bpf_pins *p)
{
	if (p->fd < 0)
		return;
	remove_dir(p->fd, p->dir);
	close(p->fd);
	p->fd = -1;
}

#endif
