// SPDX-License-Identifier: MIT
/* observe_bpf.c - see observe_bpf.h. */
#include "client/observe_bpf.h"

#include "client/bpf_maps.h"
#include "client/opstat.h"
#include "client/trace.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#if CFS_HAVE_BPF

#include "observe.skel.h"

#include <bpf/bpf.h>
#include <stdlib.h>
#include <sys/mman.h>

#define HEAT_BATCH	4096u	/* as many as the maps hold */
#define INFLIGHT_MAX	8192u

struct cfs_obs_bpf {
	struct observe_bpf *skel;
	struct cfs_bpf_obs_ctl *ctl;
	struct ring_buffer *events;
	struct cfs_trace *to;		/* while poll runs */
	int inflight_fd, n_cpus;
};

/* of a time when somebody observed before: those requests have ended unseen */
static void forget_inflight(int fd)
{
	uint64_t key;

	for (int i = 0; i < (int)INFLIGHT_MAX && !bpf_map_get_next_key(fd, NULL, &key); i++)
		bpf_map_delete_elem(fd, &key);
}

static int on_event(void *arg, void *data, size_t size)
{
	struct cfs_obs_bpf *b = arg;

	if (size >= sizeof(struct cfs_bpf_event))
		cfs_trace_put(b->to, data);
	return 0;
}

int cfs_obs_bpf_open(const struct cfs_bpf_maps *maps, uint32_t conn_dev, struct cfs_obs_bpf **ret_b, char *why, size_t len)
{
	struct cfs_obs_bpf *b = calloc(1, sizeof(*b));
	int rc = -ENOMEM;
	void *mem;

	if (!b)
		goto fail;
	b->n_cpus = libbpf_num_possible_cpus();
	b->inflight_fd = cfs_bpf_maps_fd(maps, CFS_BPF_INFLIGHT);
	b->skel = observe_bpf__open();
	rc = b->skel ? cfs_bpf_maps_reuse(maps, b->skel->obj) : -errno;
	if (!rc)
		rc = observe_bpf__load(b->skel);
	if (rc)
		goto fail;
	mem = mmap(NULL, sizeof(*b->ctl), PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(b->skel->maps.obs_ctl), 0);
	if (mem == MAP_FAILED) {
		rc = -errno;
		goto fail;
	}
	b->ctl = mem;
	b->ctl->conn_dev = conn_dev;
	b->events = ring_buffer__new(bpf_map__fd(b->skel->maps.events), on_event, b, NULL);
	rc = b->events ? 0 : -errno;
	if (rc)
		goto fail;
	forget_inflight(b->inflight_fd);
	rc = observe_bpf__attach(b->skel);
	if (rc)
		goto fail;
	*ret_b = b;
	return 0;
fail:
	snprintf(why, len, "the kernel's view of requests: %s%s", strerror(-rc),
		 rc == -ESRCH || rc == -ENOENT ? " (it needs the tracepoint fuse_request_send, Linux 6.10)" : "");
	cfs_obs_bpf_close(b);
	return rc;
}

void cfs_obs_bpf_close(struct cfs_obs_bpf *b)
{
	if (!b)
		return;
	ring_buffer__free(b->events);
	if (b->ctl)
		munmap(b->ctl, sizeof(*b->ctl));
	observe_bpf__destroy(b->skel);
	free(b);
}

void cfs_obs_bpf_ops(const struct cfs_obs_bpf *b, struct cfs_bpf_op ret_sum[CFS_BPF_OPS])
{
	struct cfs_bpf_op *per_cpu = calloc((size_t)b->n_cpus, sizeof(*per_cpu));
	int fd = bpf_map__fd(b->skel->maps.ops);

	memset(ret_sum, 0, sizeof(*ret_sum) * CFS_BPF_OPS);
	for (uint32_t op = 0; per_cpu && op < CFS_BPF_OPS; op++) {
		if (bpf_map_lookup_elem(fd, &op, per_cpu))
			continue;
		for (int cpu = 0; cpu < b->n_cpus; cpu++)
			cfs_opstat_add(&ret_sum[op], &per_cpu[cpu]);
	}
	free(per_cpu);
}

static int hotter(const void *a, const void *b)
{
	const struct cfs_obs_hot *x = a, *y = b;

	return x->heat.ops < y->heat.ops ? 1 : x->heat.ops > y->heat.ops ? -1 : x->ino < y->ino ? -1 : x->ino > y->ino;
}

unsigned cfs_obs_bpf_heat(const struct cfs_obs_bpf *b, struct cfs_obs_hot *ret_hot, unsigned max)
{
	uint64_t *keys = calloc(HEAT_BATCH, sizeof(*keys)), at;
	struct cfs_bpf_heat *values = calloc(HEAT_BATCH, sizeof(*values));
	struct cfs_obs_hot *all = calloc(HEAT_BATCH, sizeof(*all));
	uint32_t n = HEAT_BATCH;
	int rc = -ENOMEM;

	if (keys && values && all)
		rc = bpf_map_lookup_batch(bpf_map__fd(b->skel->maps.heat), NULL, &at, keys, values, &n, NULL);
	if (rc && rc != -ENOENT) /* that is: this was all */
		n = 0;
	for (uint32_t i = 0; i < n; i++)
		all[i] = (struct cfs_obs_hot){ .ino = keys[i], .heat = values[i] };
	if (n)
		qsort(all, n, sizeof(*all), hotter);
	n = n < max ? n : max;
	if (n)
		memcpy(ret_hot, all, n * sizeof(*all));
	free(keys);
	free(values);
	free(all);
	return n;
}

uint64_t cfs_obs_bpf_inflight(const struct cfs_obs_bpf *b)
{
	struct cfs_bpf_req *values = calloc(INFLIGHT_MAX, sizeof(*values));
	uint64_t *keys = calloc(INFLIGHT_MAX, sizeof(*keys)), at;
	uint32_t n = INFLIGHT_MAX;

	if (!keys || !values || (bpf_map_lookup_batch(b->inflight_fd, NULL, &at, keys, values, &n, NULL) && errno != ENOENT))
		n = 0;
	free(keys);
	free(values);
	return n;
}

void cfs_obs_bpf_trace(struct cfs_obs_bpf *b, bool on, uint32_t pid, uint64_t ino)
{
	__atomic_store_n(&b->ctl->trace_pid, pid, __ATOMIC_RELAXED);
	__atomic_store_n(&b->ctl->trace_ino, ino, __ATOMIC_RELAXED);
	__atomic_store_n(&b->ctl->tracing, on, __ATOMIC_RELEASE);
}

int cfs_obs_bpf_poll(struct cfs_obs_bpf *b, struct cfs_trace *t, int wait_ms)
{
	int n;

	b->to = t;
	n = ring_buffer__poll(b->events, wait_ms);
	return n < 0 && n != -EINTR ? n : 0;
}

uint64_t cfs_obs_bpf_lost(const struct cfs_obs_bpf *b)
{
	return __atomic_load_n(&b->ctl->lost, __ATOMIC_RELAXED);
}

#else /* !CFS_HAVE_BPF: nobody has a cfs_obs_bpf */

int cfs_obs_bpf_open(const struct cfs_bpf_maps *maps, uint32_t conn_dev, struct cfs_obs_bpf **ret_b, char *why, size_t len)
{
	(void)maps, (void)conn_dev, (void)ret_b;
	snprintf(why, len, "this claudefs was built without BPF");
	return -EOPNOTSUPP;
}

void cfs_obs_bpf_close(struct cfs_obs_bpf *b)
{
	(void)b;
}

void cfs_obs_bpf_ops(const struct cfs_obs_bpf *b, struct cfs_bpf_op ret_sum[CFS_BPF_OPS])
{
	(void)b;
	memset(ret_sum, 0, sizeof(*ret_sum) * CFS_BPF_OPS);
}

unsigned cfs_obs_bpf_heat(const struct cfs_obs_bpf *b, struct cfs_obs_hot *ret_hot, unsigned max)
{
	(void)b, (void)ret_hot, (void)max;
	return 0;
}

uint64_t cfs_obs_bpf_inflight(const struct cfs_obs_bpf *b)
{
	(void)b;
	return 0;
}

void cfs_obs_bpf_trace(struct cfs_obs_bpf *b, bool on, uint32_t pid, uint64_t ino)
{
	(void)b, (void)on, (void)pid, (void)ino;
}

int cfs_obs_bpf_poll(struct cfs_obs_bpf *b, struct cfs_trace *t, int wait_ms)
{
	(void)b, (void)t, (void)wait_ms;
	return -EOPNOTSUPP;
}

uint64_t cfs_obs_bpf_lost(const struct cfs_obs_bpf *b)
{
	(void)b;
	return 0;
}

#endif
