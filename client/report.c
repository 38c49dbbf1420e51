// SPDX-License-Identifier: MIT
/* report.c - see report.h. */
#include "client/report.h"

#include "client/bpf_maps.h"
#include "client/client_i.h"
#include "client/mount.h"
#include "client/opstat.h"
#include "client/transport.h"
#include "rpc/opname.h"

#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

static void put(json_t *o, const char *key, uint64_t v)
{
	json_object_set_new(o, key, json_integer((json_int_t)v));
}

static json_t *counters(const uint64_t *v, const char *(*name)(uint32_t op, char buf[16]), uint32_t n)
{
	json_t *o = json_object();
	char buf[16];

	for (uint32_t i = 0; i < n; i++) {
		uint64_t count = __atomic_load_n(&v[i], __ATOMIC_RELAXED);

		if (count)
			put(o, name(i, buf), count);
	}
	return o;
}

static json_t *cache_state(struct cfs_client *c)
{
	json_t *o = json_object();
	struct cfs_dcache_stat st;

	cfs_dcache_stat(c->dcache, &st);
	put(o, "directories", st.dirs);
	put(o, "names", st.names);
	put(o, "attributes", st.attrs);
	put(o, "evictions", st.evictions);
	put(o, "refused", st.refused);
	put(o, "lookups_answered", c->n.dc_lookup);
	put(o, "absent_answered", c->n.dc_negative);
	put(o, "getattrs_answered", c->n.dc_getattr);
	put(o, "setattrs_answered", c->n.dc_setattr);
	put(o, "xattrs_answered", c->n.dc_xattr);
	return o;
}

static json_t *data_state(struct cfs_client *c)
{
	json_t *o = json_object();
	struct cfs_data_stat st;

	if (!cfs_has_data(c))
		return o;
	cfs_data_stat(c, &st);
	put(o, "inodes", st.inodes);
	put(o, "cached_bytes", st.cached_bytes);
	put(o, "dirty_bytes", st.dirty_bytes);
	put(o, "reads_cache", st.reads_cache);
	put(o, "reads_net", st.reads_net);
	put(o, "read_net_bytes", st.bytes_read_net);
	put(o, "written_net_bytes", st.bytes_written_net);
	put(o, "flushes", st.flushes);
	put(o, "writes_through", st.writes_through);
	put(o, "commits", st.commits);
	put(o, "commit_items", st.commit_items);
	return o;
}

static json_t *lease_state(struct cfs_client *c)
{
	json_t *o = json_object();

	put(o, "breaks", c->n.breaks);
	put(o, "break_items", c->n.break_items);
	put(o, "asks", c->n.asks);
	put(o, "reclaims", c->n.reclaims);
	put(o, "inval_entry", c->n.inval_entry);
	put(o, "inval_inode", c->n.inval_inode);
	put(o, "inc_epoch", c->n.inc_epoch);
	put(o, "inval_late", c->n.inval_late);
	put(o, "grown", c->n.grown);
	return o;
}

static void put_counter(void *arg, const char *name, uint64_t v)
{
	put(arg, name, v);
}

json_t *cfs_report_tiers(struct cfs_client *c)
{
	static const char *const wants[] = { [CFS_TIER_WANT_AUTO] = "auto", [CFS_TIER_WANT_ON] = "on",
					     [CFS_TIER_WANT_OFF] = "off" };
	json_t *all = json_object();

	for (int i = 0; i < CFS_TIERS; i++) {
		const struct cfs_tier_ops *ops = cfs_tier_ops(i);
		json_t *o = json_object();
		struct cfs_tier t;

		cfs_tiers_get(c, i, &t);
		json_object_set_new(o, "state", json_string(cfs_tier_state_name(t.state)));
		if (i != CFS_TIER_PLAIN)
			json_object_set_new(o, "option", json_string(wants[t.want]));
		if (t.why[0])
			json_object_set_new(o, "why", json_string(t.why));
		if (ops->stat && t.state >= CFS_TIER_ON)
			ops->stat(c, put_counter, o);
		json_object_set_new(all, cfs_tier_name(i), o);
	}
	return all;
}

static json_t *bpf_state(struct cfs_client *c, const struct cfs_mount_opts *mo)
{
	json_t *o = json_object();
	char path[PATH_MAX];

	/* either there are tables, or there is a reason why not */
	if (c->bpf_why[0] || !c->bpf_maps) {
		json_object_set_new(o, "why", json_string(c->bpf_why));
		return o;
	}
	cfs_bpf_maps_path(mo->mountpoint, path, sizeof(path));
	json_object_set_new(o, "tables", json_string(path));
	return o;
}

json_t *cfs_report(struct cfs_client *c, const struct cfs_mount_opts *mo)
{
	static const char *const states[] = { "opening", "live", "lost", "closed" };
	uint64_t now = cfs_boot_ns(), deadline;
	struct cfs_transport_stat ts = { 0 };
	json_t *o = json_object(), *servers = json_array();

	for (unsigned i = 0; i < c->n_servers; i++)
		json_array_append_new(servers, json_string(c->nodes[i]));
	json_object_set_new(o, "mountpoint", json_string(mo->mountpoint));
	put(o, "pid", (uint64_t)getpid());
	json_object_set_new(o, "servers", servers);
	json_object_set_new(o, "leader", json_string(c->nodes[__atomic_load_n(&c->leader, __ATOMIC_RELAXED)]));
	json_object_set_new(o, "state", json_string(states[cfs_client_state(c)]));
	put(o, "session", cfs_client_session(c));
	put(o, "leader_epoch", __atomic_load_n(&c->leader_epoch, __ATOMIC_RELAXED));
	put(o, "map_epoch", cfs_client_map_epoch(c));
	put(o, "lease_ms", c->lease_ms);
	deadline = __atomic_load_n(&c->deadline_ns, __ATOMIC_RELAXED);
	put(o, "lease_left_ms", deadline > now ? (deadline - now) / CFS_NSEC_PER_MSEC : 0);
	json_object_set_new(o, "caching", json_boolean(cfs_client_caching(c)));
	json_object_set_new(o, "hard", json_boolean(!c->o.softerr));
	if (c->transport)
		cfs_transport_stat(c->transport, &ts);
	put(o, "workers", ts.workers);
	put(o, "workers_idle", ts.idle);
	put(o, "overflowed", ts.overflowed);
	json_object_set_new(o, "fuse", counters(c->n.fuse, cfs_opstat_name, CFS_FUSE_OPS_MAX));
	json_object_set_new(o, "requests", counters(c->n.rpc, cfs_op_name, CFS_RPC_OPS_MAX));
	put(o, "connects", c->n.reconnects);
	put(o, "retries", c->n.retries);
	put(o, "parked", c->n.parked);
	put(o, "sessions_lost", c->n.sessions_lost);
	json_object_set_new(o, "cache", cache_state(c));
	json_object_set_new(o, "leases", lease_state(c));
	json_object_set_new(o, "data", data_state(c));
	json_object_set_new(o, "tiers", cfs_report_tiers(c));
	json_object_set_new(o, "bpf", bpf_state(c, mo));
	return o;
}
