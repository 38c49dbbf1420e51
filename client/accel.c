// SPDX-License-Identifier: MIT
/*
 * accel.c - see accel.h: the bpf tier. Loads the program, gives it the mount's maps and gate, and attaches it through the
 * struct_ops of the module claudefs_fuse to this mount's /dev/fuse. The link is not pinned: it ends with this process, and
 * with it every answer. Attached after the transport is complete, since FUSE over io_uring puts a table of its own in place
 * of what it finds.
 *
 * The switch is one word in the map ctl, and so is the deadline; both are written under `lock`, from whatever thread
 * changed what they follow from.
 */
#include "client/accel.h"

#include "base/log.h"
#include "claudefs/bpf_shared.h"
#include "client/bpf_maps.h"
#include "client/client_i.h"
#include "client/kmod.h"
#include "client/tiers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 18)
#include <fuse3/fuse_lowlevel.h>

#define MODULE "claudefs_fuse"

struct cfs_accel {
	struct cfs_accel_maps *maps;
	pthread_mutex_t lock;
	struct cfs_bpf_ctl *ctl;	/* mapped here: lives as long as this */
	int stats_fd;
	struct fuse_answer_bpf *skel;	/* NULL: nobody answers */
	struct bpf_link *link;
};

static struct cfs_accel *accel_of(struct cfs_client *c)
{
	return __atomic_load_n(&c->accel, __ATOMIC_ACQUIRE);
}

void cfs_accel_deadline(struct cfs_client *c)
{
	struct cfs_accel *a = accel_of(c);
	uint64_t deadline, margin;

	if (!a)
		return;
	pthread_mutex_lock(&a->lock);
	deadline = cfs_client_caching(c) ? __atomic_load_n(&c->deadline_ns, __ATOMIC_SEQ_CST) : 0;
	/* as cfs_lease_ttl_ns(): the kernel's own clock starts when it gets to the answer */
	margin = (uint64_t)__atomic_load_n(&c->lease_ms, __ATOMIC_RELAXED) * CFS_NSEC_PER_MSEC / 10;
	__atomic_store_n(&a->ctl->until_ns, deadline > margin ? deadline - margin : 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&a->ctl->deadline_ns, deadline, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&a->lock);
}

void cfs_accel_ahead(struct cfs_client *c, uint64_t ino)
{
	struct cfs_accel *a = c ? accel_of(c) : NULL;

	if (a)
		cfs_accel_drop_attr(a->maps, ino);
}

void cfs_accel_hold(struct cfs_client *c, bool hold)
{
	struct cfs_accel *a = accel_of(c);

	if (a)
		__atomic_store_n(&a->ctl->hold, hold, __ATOMIC_SEQ_CST);
}

#if CFS_HAVE_BPF
#include "fuse_answer.skel.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

/* ---- the gate ------------------------------------------------------------------------------------------------- */
static void *map_shared(int fd, size_t len)
{
	void *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	return mem == MAP_FAILED ? NULL : mem;
}

static size_t map_len(size_t len)
{
	return cfs_align_up(len, (size_t)sysconf(_SC_PAGESIZE));
}

int cfs_gate_create(bool shared, struct cfs_bpf_gate **ret_g, int *ret_fd)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE);
	int fd = shared ? bpf_map_create(BPF_MAP_TYPE_ARRAY, "gate", sizeof(uint32_t), sizeof(struct cfs_bpf_gate), 1, &opts) : -1;
	struct cfs_bpf_gate *g = fd >= 0 ? map_shared(fd, map_len(sizeof(*g))) : NULL;

	if (!g && fd >= 0)
		close(fd);
	*ret_fd = g ? fd : -1;
	if (!g)
		g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	*ret_g = g;
	return 0;
}

void cfs_gate_destroy(struct cfs_bpf_gate *g, int fd)
{
	if (fd < 0) {
		free(g);
		return;
	}
	munmap(g, map_len(sizeof(*g)));
	close(fd);
}

/* ---- filling ---------------------------------------------------------------------------------------------------- */
static bool ahead(void *arg, uint64_t ino)
{
	struct cfs_client *c = arg;

	return c->data_started && cfs_data_excl(c, ino);
}

int cfs_accel_fill(struct cfs_client *c)
{
	struct cfs_bpf_maps *m = c->bpf_maps;
	struct cfs_accel *a = calloc(1, sizeof(*a));
	struct cfs_accel_maps_params p = { .ahead = ahead, .arg = c };
	int rc = -ENOMEM;

	if (!a)
		return -ENOMEM;
	pthread_mutex_init(&a->lock, NULL);
	a->stats_fd = fcntl(cfs_bpf_maps_fd(m, CFS_BPF_STATS), F_DUPFD_CLOEXEC, 0);
	a->ctl = map_shared(cfs_bpf_maps_fd(m, CFS_BPF_CTL), map_len(sizeof(*a->ctl)));
	if (a->stats_fd < 0 || !a->ctl)
		goto fail;
	p.dirs = cfs_bpf_maps_fd(m, CFS_BPF_DIRS);
	p.names = cfs_bpf_maps_fd(m, CFS_BPF_NAMES);
	p.long_names = cfs_bpf_maps_fd(m, CFS_BPF_LONG_NAMES);
	p.attrs = cfs_bpf_maps_fd(m, CFS_BPF_ATTRS);
	p.ctl = a->ctl;
	rc = cfs_accel_maps_create(&p, &a->maps);
	if (rc)
		goto fail;
	/* before the dcache's content is copied, so that who gets ahead of it deletes it here */
	__atomic_store_n(&c->accel, a, __ATOMIC_SEQ_CST);
	cfs_dcache_mirror(c->dcache, a->maps);
	cfs_accel_deadline(c);
	return 0;
fail:
	if (a->stats_fd >= 0)
		close(a->stats_fd);
	if (a->ctl)
		munmap(a->ctl, map_len(sizeof(*a->ctl)));
	pthread_mutex_destroy(&a->lock);
	free(a);
	return rc;
}

void cfs_accel_destroy(struct cfs_client *c)
{
	struct cfs_accel *a = c->accel;

	if (!a)
		return;
	c->accel = NULL;
	bpf_link__destroy(a->link);
	fuse_answer_bpf__destroy(a->skel);
	cfs_accel_maps_destroy(a->maps);
	close(a->stats_fd);
	munmap(a->ctl, map_len(sizeof(*a->ctl)));
	pthread_mutex_destroy(&a->lock);
	free(a);
}

/* ---- the tier ----------------------------------------------------------------------------------------------------- */
static bool module_loaded(void)
{
	return !access("/sys/kernel/btf/" MODULE, R_OK);
}

static int tier_probe(const struct cfs_tier_env *env, char *why, size_t len)
{
	(void)env;
	if (cfs_kmod_other_clock()) {
		snprintf(why, len, "this is a time namespace, whose boot-time clock is not the kernel's");
		return -EOPNOTSUPP;
	}
	return module_loaded() ? 0 : cfs_kmod_load(MODULE, true, why, len);
}

/* the last line of libbpf's that is an error: usually the verifier's or the kernel's own words */
static char bpf_said[CFS_TIER_WHY_MAX];

static int remember(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	char *text, *line, *next;

	if (level > LIBBPF_WARN || vasprintf(&text, fmt, ap) < 0)	/* the verifier's reasons are long */
		return 0;
	for (line = text; *line; line = next) {
		next = line + strcspn(line, "\n");
		if (*next)
			*next++ = 0;
		cfs_debug("%s", line);
		if (!bpf_said[0])
			snprintf(bpf_said, sizeof(bpf_said), "%.150s", line);
	}
	free(text);
	return 0;
}

static int load(struct cfs_client *c, struct cfs_accel *a)
{
	struct bpf_map *ops, *gate;
	struct {
		void *handle;
		int32_t fuse_fd;
		uint32_t abi;
	} *init;
	size_t size;
	int rc;

	a->skel = fuse_answer_bpf__open();
	if (!a->skel)
		return -errno;
	rc = cfs_bpf_maps_reuse(c->bpf_maps, a->skel->obj);
	gate = bpf_object__find_map_by_name(a->skel->obj, "gate");
	if (!rc)
		rc = bpf_map__reuse_fd(gate, c->gate_fd);
	/* not by the skeleton's own members: an older bpftool leaves this kind out */
	ops = bpf_object__find_map_by_name(a->skel->obj, "answer");
	init = ops ? bpf_map__initial_value(ops, &size) : NULL;
	if (!init || size < sizeof(*init))
		return rc ? rc : -EINVAL;
	init->fuse_fd = fuse_session_fd(c->se);
	if (!rc)
		rc = fuse_answer_bpf__load(a->skel);
	if (rc)
		return rc;
	a->link = bpf_map__attach_struct_ops(ops);
	return a->link ? 0 : -errno;
}

static void unload(struct cfs_accel *a)
{
	__atomic_store_n(&a->ctl->answering, 0, __ATOMIC_SEQ_CST);
	bpf_link__destroy(a->link);
	a->link = NULL;
	fuse_answer_bpf__destroy(a->skel);
	a->skel = NULL;
}

static int tier_start(struct cfs_client *c, char *why, size_t len)
{
	struct cfs_accel *a = accel_of(c);
	libbpf_print_fn_t old;
	int rc;

	if (!a || c->gate_fd < 0) {
		snprintf(why, len, "no BPF maps: %.120s", c->bpf_why[0] ? c->bpf_why : "not permitted");
		return -EPERM;
	}
	if (!module_loaded()) {
		rc = cfs_kmod_load(MODULE, false, why, len);
		if (rc)
			return rc;
	}
	old = libbpf_set_print(remember);
	bpf_said[0] = 0;
	rc = load(c, a);
	libbpf_set_print(old);
	if (rc) {
		snprintf(why, len, "%.150s", bpf_said[0] ? bpf_said : strerror(-rc));
		unload(a);
		return rc;
	}
	__atomic_store_n(&a->ctl->answering, 1, __ATOMIC_SEQ_CST);
	return 0;
}

static void tier_stop(struct cfs_client *c)
{
	unload(accel_of(c));
}

static int tier_set(struct cfs_client *c, bool on, char *why, size_t len)
{
	(void)why, (void)len;
	__atomic_store_n(&accel_of(c)->ctl->answering, on, __ATOMIC_SEQ_CST);
	return 0;
}

static void sum_stats(int fd, struct cfs_bpf_stats *ret)
{
	int n = libbpf_num_possible_cpus();
	struct cfs_bpf_stats *v = n > 0 ? calloc((size_t)n, sizeof(*v)) : NULL;
	uint32_t zero = 0;

	memset(ret, 0, sizeof(*ret));
	if (v && !bpf_map_lookup_elem(fd, &zero, v))
		for (int i = 0; i < n; i++)
			for (unsigned k = 0; k < sizeof(*ret) / sizeof(uint64_t); k++)
				((uint64_t *)ret)[k] += ((uint64_t *)&v[i])[k];
	free(v);
}

static void tier_stat(struct cfs_client *c, cfs_tier_put_fn put, void *arg)
{
	static const struct {
		const char *name;
		unsigned op;
	} ops[] = { { "lookup", 1 }, { "getattr", 3 }, { "getxattr", 22 }, { "statx", 52 } };
	struct cfs_accel *a = accel_of(c);
	struct cfs_accel_maps_stat ms;
	struct cfs_bpf_stats s;
	char name[32];

	if (!a)
		return;
	sum_stats(a->stats_fd, &s);
	for (size_t i = 0; i < CFS_ARRAY_SIZE(ops); i++) {
		snprintf(name, sizeof(name), "%s_hit", ops[i].name);
		put(arg, name, s.hit[ops[i].op]);
		snprintf(name, sizeof(name), "%s_miss", ops[i].name);
		put(arg, name, s.miss[ops[i].op]);
		snprintf(name, sizeof(name), "%s_stale", ops[i].name);
		put(arg, name, s.stale[ops[i].op]);
	}
	cfs_accel_maps_stat(a->maps, &ms);
	put(arg, "put_dirs", ms.put_dirs);
	put(arg, "put_names", ms.put_names);
	put(arg, "put_attrs", ms.put_attrs);
	put(arg, "dropped", ms.dropped);
	put(arg, "withheld", ms.withheld);
	put(arg, "failed", ms.failed);
	put(arg, "prefetched_dirs", __atomic_load_n(&c->n.prefetched_dirs, __ATOMIC_RELAXED));
	put(arg, "prefetched_entries", __atomic_load_n(&c->n.prefetched_entries, __ATOMIC_RELAXED));
}

#else	/* built without BPF */

int cfs_gate_create(bool shared, struct cfs_bpf_gate **ret_g, int *ret_fd)
{
	(void)shared;
	*ret_fd = -1;
	*ret_g = calloc(1, sizeof(**ret_g));
	return *ret_g ? 0 : -ENOMEM;
}

void cfs_gate_destroy(struct cfs_bpf_gate *g, int fd)
{
	(void)fd;
	free(g);
}

int cfs_accel_fill(struct cfs_client *c)
{
	(void)c;
	return -EOPNOTSUPP;
}

void cfs_accel_destroy(struct cfs_client *c)
{
	(void)c;
}

static int tier_probe(const struct cfs_tier_env *env, char *why, size_t len)
{
	(void)env;
	snprintf(why, len, "built without BPF programs (clang-19 or bpftool was missing)");
	return -EOPNOTSUPP;
}
#define tier_start NULL
#define tier_stop NULL
#define tier_set NULL
#define tier_stat NULL
#endif

const struct cfs_tier_ops cfs_tier_bpf = {
	.gives = "names and attributes answered in the kernel", .probe = tier_probe, .start = tier_start, .stop = tier_stop,
	.set = tier_set, .stat = tier_stat,
};
