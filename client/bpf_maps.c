// SPDX-License-Identifier: MIT
/* bpf_maps.c - see bpf_maps.h. The iterators' skeleton (bpf/iter.bpf.c) makes the maps; pins and links are in bpf_pins.c. */
#include "client/bpf_maps.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#if CFS_HAVE_BPF

#include "base/base.h"
#include "base/log.h"
#include "client/bpf_pins.h"
#include "iter.skel.h"

#include <bpf/bpf.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * Bytes of kernel memory for an element: key and value, rounded, with the 48 of struct htab_elem and 16 of a hash bucket. For
 * each name one inode is remembered; an eighth as many directories; names that do not fit are rare.
 */
#define ELEM(key, value)	(sizeof(key) + sizeof(value) + 48 + 16)
#define DIR_PER_NAME		8u
#define LONG_PER_NAME		64u
#define ENTRIES_MIN		64u

struct cfs_bpf_maps {
	struct iter_bpf *skel;
	struct cfs_bpf_pins pins;
	struct cfs_bpf_ctl *ctl;
	struct cfs_bpf_session *session;
	uint32_t max[CFS_BPF_MAPS];
};

static const char *const map_names[CFS_BPF_MAPS] = {
	[CFS_BPF_CTL] = "ctl", [CFS_BPF_DIRS] = "dirs", [CFS_BPF_NAMES] = "names", [CFS_BPF_LONG_NAMES] = "long_names",
	[CFS_BPF_ATTRS] = "attrs", [CFS_BPF_STATS] = "stats", [CFS_BPF_INFLIGHT] = "inflight",
	[CFS_BPF_SESSIONS] = "sessions",
};

static int print_libbpf(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	char line[512];

	(void)level; /* whoever called tells people in his own words */
	vsnprintf(line, sizeof(line), fmt, ap);
	line[strcspn(line, "\n")] = 0;
	cfs_debug("%s", line);
	return 0;
}

static void quiet_libbpf(void)
{
	libbpf_set_print(print_libbpf);
}

static struct bpf_map *map_of(const struct cfs_bpf_maps *m, enum cfs_bpf_map which)
{
	return bpf_object__find_map_by_name(m->skel->obj, map_names[which]);
}

static int set_sizes(struct cfs_bpf_maps *m, uint64_t mem)
{
	const size_t per_name = ELEM(struct cfs_bpf_name_key, struct cfs_bpf_name) + ELEM(uint64_t, struct cfs_bpf_attr) +
				ELEM(uint64_t, struct cfs_bpf_dir) / DIR_PER_NAME +
				ELEM(struct cfs_bpf_long_key, struct cfs_bpf_name) / LONG_PER_NAME;
	uint64_t n = cfs_min(mem / per_name, (uint64_t)UINT32_MAX / 2);

	m->max[CFS_BPF_NAMES] = m->max[CFS_BPF_ATTRS] = (uint32_t)n;
	m->max[CFS_BPF_DIRS] = (uint32_t)(n / DIR_PER_NAME);
	m->max[CFS_BPF_LONG_NAMES] = (uint32_t)(n / LONG_PER_NAME);
	for (int i = 0; i < CFS_BPF_MAPS; i++) {
		struct bpf_map *map = map_of(m, i);
		int rc = 0;

		CFS_ASSERT(map != NULL);
		if (bpf_map__type(map) == BPF_MAP_TYPE_LRU_HASH) {
			m->max[i] = cfs_max(m->max[i], ENTRIES_MIN);
			rc = bpf_map__set_max_entries(map, m->max[i]);
		}
		if (rc)
			return rc;
		m->max[i] = bpf_map__max_entries(map);
	}
	return 0;
}

static int map_memory(int fd, size_t size, void *ret_mem)
{
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (mem == MAP_FAILED)
		return -errno;
	*(void **)ret_mem = mem;
	return 0;
}

/* pin the iterators' links and the maps */
static int show(struct cfs_bpf_maps *m, const char *mountpoint, char *why, size_t len)
{
	const struct {
		struct bpf_program *prog;
		enum cfs_bpf_map map;
	} tables[] = {
		{ m->skel->progs.iter__dirs, CFS_BPF_DIRS }, { m->skel->progs.iter__names, CFS_BPF_NAMES },
		{ m->skel->progs.iter__long_names, CFS_BPF_LONG_NAMES }, { m->skel->progs.iter__attrs, CFS_BPF_ATTRS },
		{ m->skel->progs.iter__inflight, CFS_BPF_INFLIGHT }, { m->skel->progs.iter__sessions, CFS_BPF_SESSIONS },
	};
	int rc = cfs_bpf_pins_make(&m->pins, mountpoint, why, len);

	for (int i = 0; i < CFS_BPF_MAPS && !rc; i++)
		rc = cfs_bpf_pins_map(&m->pins, bpf_map__fd(map_of(m, i)), map_names[i], why, len);
	for (size_t i = 0; i < CFS_ARRAY_SIZE(tables) && !rc; i++)
		rc = cfs_bpf_pins_table(&m->pins, tables[i].prog, bpf_map__fd(map_of(m, tables[i].map)),
					map_names[tables[i].map], why, len);
	if (rc)
		cfs_bpf_pins_remove(&m->pins);
	return rc;
}

int cfs_bpf_maps_create(const char *mountpoint, uint64_t mem_bytes, struct cfs_bpf_maps **ret_m, char *why, size_t len)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct cfs_bpf_maps *m = calloc(1, sizeof(*m));
	int rc;

	if (!m)
		return -ENOMEM;
	pthread_once(&once, quiet_libbpf);
	snprintf(why, len, "%s", "");
	m->pins.fd = -1;
	m->skel = iter_bpf__open();
	if (!m->skel) {
		rc = -errno;
		snprintf(why, len, "libbpf cannot open its programs: %s", strerror(-rc));
		goto fail;
	}
	rc = set_sizes(m, mem_bytes);
	if (!rc)
		rc = iter_bpf__load(m->skel);
	if (rc) {
		snprintf(why, len, "the kernel does not take BPF maps or iterators: %s%s", strerror(-rc),
			 rc == -EPERM ? " (needs CAP_BPF, CAP_PERFMON)" : rc == -ESRCH ? " (no /sys/kernel/btf/vmlinux)" : "");
		goto fail;
	}
	rc = map_memory(bpf_map__fd(m->skel->maps.ctl), sizeof(*m->ctl), &m->ctl);
	if (!rc)
		rc = map_memory(bpf_map__fd(m->skel->maps.sessions), sizeof(*m->session), &m->session);
	if (rc) {
		snprintf(why, len, "cannot map BPF maps into memory: %s", strerror(-rc));
		goto fail;
	}
	if (mountpoint)
		show(m, mountpoint, why, len); /* without tables it is as fast */
	*ret_m = m;
	return 0;
fail:
	cfs_bpf_maps_destroy(m);
	return rc;
}

void cfs_bpf_maps_destroy(struct cfs_bpf_maps *m)
{
	if (!m)
		return;
	cfs_bpf_pins_remove(&m->pins);
	if (m->ctl)
		munmap(m->ctl, sizeof(*m->ctl));
	if (m->session)
		munmap(m->session, sizeof(*m->session));
	iter_bpf__destroy(m->skel);
	free(m);
}

int cfs_bpf_maps_fd(const struct cfs_bpf_maps *m, enum cfs_bpf_map which)
{
	return bpf_map__fd(map_of(m, which));
}

uint32_t cfs_bpf_maps_max_entries(const struct cfs_bpf_maps *m, enum cfs_bpf_map which)
{
	return m->max[which];
}

int cfs_bpf_maps_reuse(const struct cfs_bpf_maps *m, struct bpf_object *obj)
{
	for (int i = 0; i < CFS_BPF_MAPS; i++) {
		struct bpf_map *map = bpf_object__find_map_by_name(obj, map_names[i]);
		int rc = map ? bpf_map__reuse_fd(map, cfs_bpf_maps_fd(m, i)) : 0;

		if (rc)
			return rc;
	}
	return 0;
}

struct cfs_bpf_ctl *cfs_bpf_maps_ctl(struct cfs_bpf_maps *m)
{
	return m->ctl;
}

void cfs_bpf_maps_session(struct cfs_bpf_maps *m, const struct cfs_bpf_session *s)
{
	*m->session = *s; /* a reader may see half of it: it is for people, and the next look is right */
}

#else /* !CFS_HAVE_BPF */

int cfs_bpf_maps_create(const char *mountpoint, uint64_t mem_bytes, struct cfs_bpf_maps **ret_m, char *why, size_t len)
{
	(void)mountpoint, (void)mem_bytes, (void)ret_m;
	snprintf(why, len, "this claudefs was built without BPF (clang-19 or bpftool were missing)");
	return -EOPNOTSUPP;
}

void cfs_bpf_maps_destroy(struct cfs_bpf_maps *m)
{
	(void)m;
}

void cfs_bpf_maps_session(struct cfs_bpf_maps *m, const struct cfs_bpf_session *s)
{
	(void)m, (void)s;
}

#endif
