// SPDX-License-Identifier: MIT
/*
 * accel_maps.c - see accel.h. Each change is one system call on one element. When a new value cannot be stored, the old
 * one is deleted; when something cannot be deleted, answering ends for good: it might be wrong from then on.
 */
#include "client/accel.h"

#include "base/base.h"
#include "base/log.h"
#include "claudefs/bpf_shared.h"
#include "claudefs/types.h"
#include "client/leasecheck.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(CFS_BPF_IF_XATTR == CFS_IF_XATTR && CFS_BPF_IF_ACL == CFS_IF_ACL && CFS_BPF_IF_CAPS == CFS_IF_CAPS,
	       "flags are copied as they are");

#if CFS_HAVE_BPF
#include <bpf/bpf.h>
#else	/* there are no maps then: cfs_accel_maps_create() is never called */
#define BPF_ANY 0
static int bpf_map_update_elem(int fd, const void *key, const void *value, uint64_t flags)
{
	(void)fd, (void)key, (void)value, (void)flags;
	return -ENOSYS;
}
static int bpf_map_delete_elem(int fd, const void *key)
{
	(void)fd, (void)key;
	return -ENOENT;
}
#endif

struct cfs_accel_maps {
	struct cfs_accel_maps_params p;
	struct cfs_accel_maps_stat n;	/* atomic */
};
#define count(m, field) __atomic_add_fetch(&(m)->n.field, 1, __ATOMIC_RELAXED)

int cfs_accel_maps_create(const struct cfs_accel_maps_params *p, struct cfs_accel_maps **ret_m)
{
	struct cfs_accel_maps *m = calloc(1, sizeof(*m));
	int *fds[] = { &m->p.dirs, &m->p.names, &m->p.long_names, &m->p.attrs };
	int rc = 0;

	if (!m)
		return -ENOMEM;
	m->p = *p;
	for (size_t i = 0; i < CFS_ARRAY_SIZE(fds); i++) {
		*fds[i] = dup(*fds[i]);
		if (*fds[i] < 0)
			rc = -errno;
	}
	if (rc) {
		cfs_accel_maps_destroy(m);
		return rc;
	}
	*ret_m = m;
	return 0;
}

void cfs_accel_maps_destroy(struct cfs_accel_maps *m)
{
	if (!m)
		return;
	close(m->p.dirs);
	close(m->p.names);
	close(m->p.long_names);
	close(m->p.attrs);
	free(m);
}

static void drop(struct cfs_accel_maps *m, int fd, const void *key)
{
	int rc = bpf_map_delete_elem(fd, key);

	if (!rc) {
		count(m, dropped);
	} else if (rc != -ENOENT) {
		__atomic_store_n(&m->p.ctl->deadline_ns, 0, __ATOMIC_SEQ_CST);
		if (__atomic_exchange_n(&m->p.ctl->broken, 1, __ATOMIC_SEQ_CST) == 0)
			cfs_err("BPF: an entry cannot be deleted (%s): the kernel answers nothing from now on", strerror(-rc));
	}
}

/* false: it is not there now, neither old nor new */
static bool put(struct cfs_accel_maps *m, int fd, const void *key, const void *value)
{
	if (!bpf_map_update_elem(fd, key, value, BPF_ANY))
		return true;
	count(m, failed);
	drop(m, fd, key);
	return false;
}

void cfs_accel_put_dir(struct cfs_accel_maps *m, uint64_t dir, uint64_t epoch)
{
	struct cfs_bpf_dir d = { .epoch = epoch };

	if (!m)
		return;
	d.sum = cfs_bpf_dir_sum(dir, &d);
	if (put(m, m->p.dirs, &dir, &d))
		count(m, put_dirs);
}

void cfs_accel_drop_dir(struct cfs_accel_maps *m, uint64_t dir)
{
	if (m)
		drop(m, m->p.dirs, &dir);
}

/* both kinds of keys: the map it belongs to, and the sum of a value under it if there is one */
struct name_key {
	union {
		struct cfs_bpf_name_key small;
		struct cfs_bpf_long_key large;
	} u;
	int fd;
};

static void make_key(const struct cfs_accel_maps *m, uint64_t dir, const char *name, size_t len, struct cfs_bpf_name *n,
		     struct name_key *ret)
{
	bool small = len <= CFS_BPF_NAME_SHORT;

	CFS_ASSERT(len < CFS_BPF_NAME_LONG);
	memset(&ret->u, 0, sizeof(ret->u));
	if (small) {
		ret->u.small.dir = dir;
		memcpy(ret->u.small.name, name, len);
	} else {
		ret->u.large.dir = dir;
		memcpy(ret->u.large.name, name, len);
	}
	ret->fd = small ? m->p.names : m->p.long_names;
	if (n)
		n->sum = small ? cfs_bpf_name_sum(&ret->u.small, n) : cfs_bpf_long_sum(&ret->u.large, n);
}

void cfs_accel_put_name(struct cfs_accel_maps *m, uint64_t dir, const char *name, size_t len, uint64_t ino, uint64_t epoch)
{
	struct cfs_bpf_name n = { .dir = dir, .epoch = epoch, .ino = ino };
	struct name_key key;

	if (!m)
		return;
	make_key(m, dir, name, len, &n, &key);
	if (put(m, key.fd, &key.u, &n))
		count(m, put_names);
}

void cfs_accel_drop_name(struct cfs_accel_maps *m, uint64_t dir, const char *name, size_t len)
{
	struct name_key key;

	if (!m)
		return;
	make_key(m, dir, name, len, NULL, &key);
	drop(m, key.fd, &key.u);
}

static struct cfs_bpf_time time_of(const struct cfs_time *t)
{
	return (struct cfs_bpf_time){ .sec = cfs_le64_to_cpu(t->sec), .nsec = cfs_le32_to_cpu(t->nsec) };
}

void cfs_accel_put_attr(struct cfs_accel_maps *m, const struct cfs_attr *attr, uint64_t epoch)
{
	uint64_t ino = cfs_le64_to_cpu(attr->ino);
	struct cfs_bpf_attr a = {
		.ino = ino, .home = cfs_le64_to_cpu(attr->parent), .epoch = epoch, .gen = cfs_le64_to_cpu(attr->gen),
		.size = cfs_le64_to_cpu(attr->size), .alloc = cfs_le64_to_cpu(attr->alloc),
		.change = cfs_le64_to_cpu(attr->change), .atime = time_of(&attr->atime), .mtime = time_of(&attr->mtime),
		.ctime = time_of(&attr->ctime), .btime = time_of(&attr->btime), .mode = cfs_le32_to_cpu(attr->mode),
		.nlink = cfs_le32_to_cpu(attr->nlink), .uid = cfs_le32_to_cpu(attr->uid), .gid = cfs_le32_to_cpu(attr->gid),
		.rdev = cfs_le32_to_cpu(attr->rdev), .flags = cfs_le32_to_cpu(attr->flags),
	};

	if (!m)
		return;
	if (!a.home || (m->p.ahead && m->p.ahead(m->p.arg, ino))) {
		count(m, withheld);
		drop(m, m->p.attrs, &ino);
		return;
	}
	a.sum = cfs_bpf_attr_sum(ino, &a);
	if (!put(m, m->p.attrs, &ino, &a))
		return;
	count(m, put_attrs);
	/* it may have got ahead since we looked: who does says so first, and deletes then */
	if (m->p.ahead && m->p.ahead(m->p.arg, ino)) {
		count(m, withheld);
		drop(m, m->p.attrs, &ino);
	}
}

void cfs_accel_drop_attr(struct cfs_accel_maps *m, uint64_t ino)
{
	if (m)
		drop(m, m->p.attrs, &ino);
}

void cfs_accel_drop_all(struct cfs_accel_maps *m, uint64_t epoch)
{
	if (m)
		__atomic_store_n(&m->p.ctl->floor, epoch, __ATOMIC_SEQ_CST);
}

void cfs_accel_maps_stat(const struct cfs_accel_maps *m, struct cfs_accel_maps_stat *ret)
{
	*ret = (struct cfs_accel_maps_stat){
		.put_dirs = __atomic_load_n(&m->n.put_dirs, __ATOMIC_RELAXED),
		.put_names = __atomic_load_n(&m->n.put_names, __ATOMIC_RELAXED),
		.put_attrs = __atomic_load_n(&m->n.put_attrs, __ATOMIC_RELAXED),
		.dropped = __atomic_load_n(&m->n.dropped, __ATOMIC_RELAXED),
		.withheld = __atomic_load_n(&m->n.withheld, __ATOMIC_RELAXED),
		.failed = __atomic_load_n(&m->n.failed, __ATOMIC_RELAXED),
	};
}
