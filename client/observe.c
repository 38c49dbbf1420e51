// SPDX-License-Identifier: MIT
/* observe.c - see observe.h. */
#include "client/observe.h"

#include "base/log.h"
#include "client/bpf_maps.h"
#include "client/client_i.h"
#include "client/mount.h"

#include <stdio.h>
#include <unistd.h>

void cfs_observe_session(struct cfs_client *c)
{
	struct cfs_bpf_session s = {
		.session = c->session, .leader_epoch = __atomic_load_n(&c->leader_epoch, __ATOMIC_RELAXED),
		.deadline_ns = c->deadline_ns, .lease_ms = c->lease_ms, .state = c->state, .pid = (uint32_t)getpid(),
	};

	if (!c->bpf_maps)
		return;
	snprintf(s.server, sizeof(s.server), "%s", c->nodes[__atomic_load_n(&c->leader, __ATOMIC_RELAXED)]);
	cfs_bpf_maps_session(c->bpf_maps, &s);
}

void cfs_observe_start(struct cfs_client *c, const struct cfs_mount_opts *o)
{
	bool answering = cfs_tier_ready(c, CFS_TIER_BPF);
	uint64_t mem = o->bpf_mem ? o->bpf_mem : answering ? CFS_BPF_MEM_DEFAULT : 0;
	struct cfs_bpf_maps *m = NULL;
	int rc;

	if (o->bpf == CFS_TIER_WANT_OFF) {
		snprintf(c->bpf_why, sizeof(c->bpf_why), "off by option");
		return;
	}
	rc = cfs_bpf_maps_create(o->mountpoint, mem, &m, c->bpf_why, sizeof(c->bpf_why));
	if (c->bpf_why[0])
		cfs_info("BPF: %s", c->bpf_why);
	if (rc)
		return;
	pthread_mutex_lock(&c->lock);
	c->bpf_maps = m;
	cfs_observe_session(c);
	pthread_mutex_unlock(&c->lock);
}

void cfs_observe_stop(struct cfs_client *c)
{
	struct cfs_bpf_maps *m;

	pthread_mutex_lock(&c->lock);
	m = c->bpf_maps;
	c->bpf_maps = NULL;
	pthread_mutex_unlock(&c->lock);
	cfs_bpf_maps_destroy(m);
}
