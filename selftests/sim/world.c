/* SPDX-License-Identifier: MIT */
/*
 * world.c - the course of one seed: servers and clients begin, the weather is bad for some virtual seconds, then it
 * clears, the machines lose power once more, everybody finishes what he began and leaves; then what is left must be exactly
 * what the witness has seen, and nothing else.
 */
#include "sim_i.h"

#include <unistd.h>

#define DISK_BYTES	(128u << 20)
#define SEGMENT_BYTES	(1u << 20)

struct simworld *W;
const char *const disk_kind_names[DISK_KINDS] = { "any", "plain", "zoned", "atomic" };

void *xrealloc(void *p, size_t n)
{
	p = realloc(p, n);
	if (!p)
		abort();
	return p;
}

void *xcalloc(size_t n)
{
	void *p = calloc(1, n ? n : 1);

	if (!p)
		abort();
	return p;
}

void fail(const char *fmt, ...)
{
	va_list ap;

	if (W->failed)
		return;
	W->failed = true;
	printf("# seed %" PRIu64 " at %" PRIu64 " us: ", W->seed, now() / 1000);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

void trace(const char *fmt, ...)
{
	va_list ap;

	if (!W->trace)
		return;
	printf("# %10" PRIu64 " ", now());
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

/* ---- servers --------------------------------------------------------------------------------------------------- */

static void on_finding(void *arg, const char *finding)
{
	(void)arg;
	fail("the state is not sound: %s", finding);
}

static void server_start(struct server *s);
static void server_crash(struct server *s, enum cfs_sim_crash how);

/* a server that ended by itself is started again by its service manager */
static void reboot(void *arg)
{
	struct server *s = arg;

	if (!s->failed || W->failed)
		return;
	server_crash(s, CFS_SIM_KILL);
	server_start(s);
}

/* it may do so when its disk refuses all writes, and for no other reason */
static void give_up(struct server *s, const char *why)
{
	s->failed = true;
	trace("server %u gives up: %s", s->i, why);
	if (!W->full || s->sparse)
		fail("server %u gives up: %s", s->i, why);
	cfs_sim_at(W->sim, now() + 500 * MS, reboot, s);
}

/* objects that the store found not whole when it was opened: the next start knows nothing of them any more */
static void note_cuts(struct server *s)
{
	if (!s->node || !s->node->n_targets)
		return;
	for (unsigned i = 0; i < W->n_objects; i++) {
		struct object *o = &W->objects[i];

		o->cut |= o->rotten && cfs_cut_find(s->node->targets[0].store, &o->oid);
	}
}

static void on_started(void *arg, int err, const char *why)
{
	struct server *s = arg;

	if (err) {
		if (cfs_sim_node_alive(s->sn))
			give_up(s, why);
		return;
	}
	s->started = true;
	note_cuts(s);
	trace("server %u serves", s->i);
	if (!s->power)
		return;
	/* a machine that is back answers what still comes to its former life: those connections break */
	s->power = false;
	for (unsigned i = 0; i < W->n_clients; i++)
		if (W->clients[i].sn)
			cfs_sim_net_cut(W->clients[i].sn, s->sn);
	for (unsigned i = 0; i < W->n_servers; i++)
		if (i != s->i)
			cfs_sim_net_cut(W->servers[i].sn, s->sn);
	if (W->powercut && W->n_entries && cfs_meta_applied(s->node->meta) == W->entries[W->n_entries - 1].index) {
		model_compare(s->node->meta);
		if (!W->failed)
			cfs_meta_check(s->node->meta, false, on_finding, NULL);
	}
}

static void on_failed(void *arg, int err, const char *why)
{
	struct server *s = arg;

	(void)err;
	if (cfs_sim_node_alive(s->sn))
		give_up(s, why);
}

static void on_stopped(void *arg)
{
	((struct server *)arg)->stopped = true;
}

static void server_start(struct server *s)
{
	struct cfs_node_params p = { .listen = s->addr, .state_dir = s->dir, .targets = &s->target, .n_targets = 1,
		.lease_ms = LEASE_MS, .checkpoint_bytes = 60000, .started = on_started, .failed = on_failed, .arg = s,
		.members = s->members, .n_members = W->n_servers };

	if (s->node && !cfs_sim_node_alive(s->sn))	/* a torn vote was its end */
		server_crash(s, CFS_SIM_POWER);
	if (s->node || W->failed)
		return;
	if (!cfs_sim_node_alive(s->sn))
		cfs_sim_node_restart(s->sn);
	if (cfs_sim_disk_open(s->disk, &s->dev)) {
		fail("server %u: its disk is busy", s->i);
		return;
	}
	s->target = (struct cfs_node_target){ .dev = s->dev, .path = s->addr };
	p.clock = cfs_sim_node_clock(s->sn);
	p.net = cfs_sim_node_net(s->sn);
	for (unsigned i = 0; i < W->n_servers; i++)
		s->members[i] = (struct cfs_raft_member){ .id = i + 1, .address = W->servers[i].addr };
	s->started = s->stopped = s->failed = false;
	trace("server %u starts", s->i);
	if (cfs_node_create(&p, &s->node))
		abort();
}

static void server_crash(struct server *s, enum cfs_sim_crash how)
{
	char shard[96];

	if (!s->node)
		return;
	note_cuts(s);
	trace("server %u %s", s->i, how == CFS_SIM_POWER ? "loses power" : "is killed");
	cfs_sim_node_crash(s->sn, how);
	cfs_node_stop(s->node, on_stopped);
	cfs_sim_node_unwind(s->sn);
	cfs_node_abandon(s->node);
	cfs_dev_close(s->dev);
	s->node = NULL;
	s->power = how == CFS_SIM_POWER;
	snprintf(shard, sizeof(shard), "%s/shard0", s->dir);
	if (how == CFS_SIM_POWER && cfs_meta_discard(shard))	/* another boot_id: cfs_meta_open() would see that */
		abort();
}

/* zones small enough to be changed often, and limits that are easily reached */
static int zoned_disk(struct server *s, struct cfs_rng *rng)
{
	uint32_t unit = cfs_rng_below(rng, 2) ? 4096 : 512, max_active = 5 + (uint32_t)cfs_rng_below(rng, 12);
	struct cfs_zone_geometry g = {
		.zone_capacity = SEGMENT_BYTES * (1 + cfs_rng_below(rng, 3)) + cfs_rng_below(rng, 40) * unit,
		.max_active = max_active < 15 ? max_active : 0,
	};

	g.zone_bytes = 1ull << 20;
	while (g.zone_bytes < g.zone_capacity)
		g.zone_bytes *= 2;
	g.n_zones = (uint32_t)(DISK_BYTES / g.zone_capacity);
	g.max_open = g.max_active && cfs_rng_below(rng, 2) ? g.max_active - (uint32_t)cfs_rng_below(rng, g.max_active - 4) : 0;
	s->n_zones = g.n_zones;
	s->disk_bytes = g.n_zones * g.zone_bytes;
	return cfs_sim_disk_create_zoned(s->sn, &g, unit, &s->disk);
}

/* a log of superblocks and votes that is long in use: `left` more, and it goes on in the next zone */
static void age_superblocks(struct cfs_dev *dev, unsigned left)
{
	struct cfs_disk_super sb;
	struct cfs_root root;
	char err[256];
	uint64_t n;

	if (cfs_super_load(&root, dev, &sb, err, sizeof(err)))
		abort();
	n = (dev->info.zone_capacity - root.side[0].wp) / (2 * CFS_DISK_BLOCK);
	while (n-- > left)
		if (cfs_super_write(&root, &sb))
			abort();
}

/* of its own dice, so that a seed's other decisions do not depend on the kind of disk */
static void server_format(struct server *s, enum disk_kind kind)
{
	struct cfs_format_params fp = { .target_id = s->i };
	struct cfs_rng rng;
	struct cfs_dev *dev;
	char err[256] = "";

	cfs_rng_seed(&rng, W->seed * 64 + s->i);
	if (kind == DISK_ANY)
		kind = (enum disk_kind)(DISK_PLAIN + cfs_rng_below(&rng, 3));
	memcpy(fp.cluster, "simulated", 9);
	s->disk_bytes = DISK_BYTES;
	if (kind == DISK_ZONED) {
		if (zoned_disk(s, &rng))
			abort();
	} else {
		fp.segment_bytes = SEGMENT_BYTES;
		if (cfs_sim_disk_create(s->sn, DISK_BYTES, 4096, &s->disk))
			abort();
	}
	if (kind == DISK_ATOMIC || (kind == DISK_ZONED && !cfs_rng_below(&rng, 3)))
		cfs_sim_disk_atomic(s->disk, 4096u << cfs_rng_below(&rng, 5));
	if (cfs_sim_disk_open(s->disk, &dev))
		abort();
	trace("server %u has a %s disk of %u zones, atomic unit %u", s->i, disk_kind_names[kind], s->n_zones, dev->info.atomic_unit);
	if (cfs_store_format(dev, &fp, err, sizeof(err)))
		fail("cannot format: %s", err);
	if (kind == DISK_ZONED && !W->failed)
		age_superblocks(dev, (unsigned)cfs_rng_below(&rng, 40));
	cfs_dev_close(dev);
	/* one in two seeds: a sparse file, and a file system below that has room for it, until others take what is left; never one with zones */
	s->sparse = W->full && W->seed % 2 && kind != DISK_ZONED;
	if (s->sparse)
		cfs_sim_disk_sparse(s->disk, DISK_BYTES + (128u << 20));
}

/* ---- weather ------------------------------------------------------------------------------------------------------ */

enum { HEAL_CLIENT = 1, HEAL_SERVER, HEAL_DISK, BOOT, REVIVE, HEAL_LAG };

static void heal(void *arg)
{
	unsigned i = (unsigned)(uintptr_t)arg & 255, kind = (unsigned)((uintptr_t)arg >> 8);

	switch (kind) {
	case HEAL_CLIENT: cfs_sim_net_isolate(W->clients[i].sn, false); break;
	case HEAL_SERVER: cfs_sim_net_isolate(W->servers[i].sn, false); break;
	case HEAL_DISK: cfs_sim_disk_faults(W->servers[i].disk, &(struct cfs_sim_faults){ 0 }); break;
	case BOOT: server_start(&W->servers[i]); break;
	case REVIVE:
		if (W->clients[i].state == CL_DEAD && !W->over)
			client_start(&W->clients[i]);
		break;
	case HEAL_LAG: cfs_sim_net_lag(W->clients[i].sn, 0); break;
	}
}

static void heal_at(unsigned kind, unsigned i, uint64_t max_ms)
{
	cfs_sim_at(W->sim, now() + cfs_sim_between(W->sim, 5 * MS, max_ms * MS), heal, (void *)(uintptr_t)(kind << 8 | i));
}

/* bits flip in an object, or one or two in its record's header; marked is each other one that has the same bytes there */
static void rot(struct server *s)
{
	struct object *o = W->n_objects ? &W->objects[pick(W->n_objects)] : NULL;
	const uint8_t *disk = cfs_sim_disk_bytes(s->disk), *at;
	uint64_t off;
	bool header;

	if (!o || !o->committed || o->len < CFS_INLINE_MAX + 64)
		return;
	at = memmem(disk, s->disk_bytes, o->bytes + o->len - 64, 64);
	if (!at)
		return;
	for (unsigned i = 0; i < W->n_objects; i++)
		if (memmem(W->objects[i].bytes, W->objects[i].len, o->bytes + o->len - 64, 64))
			W->objects[i].rotten = true;
	off = (uint64_t)(at - disk) + 64 - o->len - CFS_DISK_BLOCK;
	header = pick(2) && off < s->disk_bytes && !(off % CFS_DISK_BLOCK) &&
		 !memcmp(&((const struct cfs_disk_obj *)(disk + off + sizeof(struct cfs_disk_rec)))->oid, &o->oid, sizeof(o->oid));
	trace("rot in %s of an object of %u bytes at %zu", header ? "the header" : "the data", o->len, (size_t)(at - disk));
	if (header)
		cfs_sim_disk_rot(s->disk, off, CFS_DISK_OBJ_HDR(1), 1 + pick(2));
	else
		cfs_sim_disk_rot(s->disk, (uint64_t)(at - disk), 64, 3);
	W->st.rotten++;
}

/* what files have in a zone that is gone is lost here, and reads as rot does */
static void zone_lost(struct server *s, uint32_t zone)
{
	uint64_t zone_bytes = s->disk_bytes / s->n_zones;
	const uint8_t *bytes = cfs_sim_disk_bytes(s->disk) + zone * zone_bytes;

	for (unsigned i = 0; i < W->n_objects; i++) {
		struct object *o = &W->objects[i];

		if (!o->lost && o->len && memmem(bytes, zone_bytes, o->bytes, cfs_min(o->len, 512u))) {
			o->rotten = o->lost = true;
			W->st.rotten++;
		}
	}
}

/*
 * A zone fails by itself. The metadata must not suffer: read-only ones are left; what the journal had in one that is offline, or
 * the last checkpoint, is written again, given the time to notice. Votes and superblocks are there twice.
 */
static void zone_fails(struct server *s)
{
	uint32_t zone = pick(4) ? pick(s->n_zones) : pick(CFS_DISK_ROOT_ZONES);
	bool offline = W->n_servers == 1 && !W->powercut && !W->full && pick(2);

	/* of the zones with superblocks just one */
	if (s->zones_failed >= 5 || (zone < CFS_DISK_ROOT_ZONES && s->root_failed))
		return;
	if (s->node && s->started && s->node->journal && s->node->journal->n_segs && !pick(3))
		zone = CFS_DISK_ROOT_ZONES + s->node->journal->segs[pick(s->node->journal->n_segs)].seg;
	if (offline && (!s->node || !s->started || !cfs_sim_node_alive(s->sn)))
		return;		/* down: a start would be refused, and rightly */
	trace("zone %u of server %u is %s", zone, s->i, offline ? "offline" : "read-only");
	s->zones_failed++;
	s->root_failed |= zone < CFS_DISK_ROOT_ZONES;
	W->st.zones++;
	if (offline) {
		zone_lost(s, zone);
		s->steady_ns = now() + 15000 * MS;
	}
	cfs_sim_disk_zone_fail(s->disk, zone, offline ? CFS_ZONE_OFFLINE : CFS_ZONE_READONLY);
}

static void weather(void *arg)
{
	struct server *s = &W->servers[pick(W->n_servers)];
	struct client_s *c = &W->clients[pick(W->n_clients)];
	unsigned dice = pick(100);

	(void)arg;
	if (W->calm_down || W->failed)
		return;
	if (s->steady_ns > now()) {
		cfs_sim_at(W->sim, now() + 100 * MS, weather, NULL);
		return;
	}
	if (s->n_zones && !pick(W->powercut ? 60 : 12))
		zone_fails(s);
	if (s->steady_ns > now()) {
		cfs_sim_at(W->sim, now() + 100 * MS, weather, NULL);
		return;
	}
	if (W->powercut) {
		if (s->node && pick(8) == 0)
			cfs_sim_disk_tear_sync(s->disk, 1 + pick(3));	/* the cut comes in the middle of a vote */
		if (s->node && cfs_sim_node_alive(s->sn) && s->started && !pick(3)) {
			cfs_node_checkpoint(s->node);	/* the next cut may come in the middle of it */
		} else {
			server_crash(s, CFS_SIM_POWER);
			W->st.powers++;
			cfs_sim_at(W->sim, now() + MS, heal, (void *)(uintptr_t)(BOOT << 8 | s->i));
		}
		cfs_sim_at(W->sim, now() + cfs_sim_between(W->sim, 2 * MS, pick(4) ? 60 * MS : 600 * MS), weather, NULL);
		return;
	}
	if (dice < 22) {
		trace("cut between client %u and server %u", c->i, s->i);
		cfs_sim_net_cut(c->sn, s->sn);
		W->st.cuts++;
	} else if (dice < 36) {
		trace("client %u is alone", c->i);
		cfs_sim_net_isolate(c->sn, true);
		heal_at(HEAL_CLIENT, c->i, pick(3) ? 800 : 6000);
		W->st.partitions++;
	} else if (dice < 41) {
		trace("server %u is alone", s->i);
		cfs_sim_net_isolate(s->sn, true);
		heal_at(HEAL_SERVER, s->i, 1500);
		W->st.partitions++;
	} else if (dice < 52) {
		server_crash(s, CFS_SIM_KILL);
		heal_at(BOOT, s->i, pick(4) ? 300 : 3000);
		W->st.crashes++;
	} else if (dice < 63) {
		server_crash(s, CFS_SIM_POWER);
		heal_at(BOOT, s->i, pick(4) ? 300 : 3000);
		W->st.powers++;
	} else if (dice < 70) {
		cfs_sim_disk_faults(s->disk, &(struct cfs_sim_faults){ .slow = 20 + pick(200) });
		heal_at(HEAL_DISK, s->i, 500);
	} else if (dice < 76) {
		cfs_sim_net_lag(c->sn, cfs_sim_below(W->sim, 50 * MS));
		heal_at(HEAL_LAG, c->i, 1000);
	} else if (dice < 84) {
		if (c->state != CL_DEAD) {
			client_kill(c);
			heal_at(REVIVE, c->i, 4000);
			W->st.deaths++;
		}
	} else if (dice < 88) {
		if (W->n_servers == 1)
			rot(s);
	} else if (dice < 94) {
		if (s->node && s->started && cfs_sim_node_alive(s->sn))
			cfs_node_checkpoint(s->node);
	} else if (W->full) {
		trace("server %u's disk is full%s", s->i, s->sparse ? " below" : "");
		cfs_sim_disk_faults(s->disk, &(struct cfs_sim_faults){ .full = !s->sparse, .below_full = s->sparse });
		heal_at(HEAL_DISK, s->i, s->sparse ? 2000 : 300);
		W->st.full++;
	}
	cfs_sim_at(W->sim, now() + cfs_sim_between(W->sim, 20 * MS, 500 * MS), weather, NULL);
}

static void clear_up(void)
{
	W->calm_down = true;
	for (unsigned i = 0; i < W->n_servers; i++) {
		cfs_sim_net_isolate(W->servers[i].sn, false);
		cfs_sim_disk_faults(W->servers[i].disk, &(struct cfs_sim_faults){ 0 });
		cfs_sim_disk_tear_sync(W->servers[i].disk, 0);
		server_start(&W->servers[i]);
	}
	for (unsigned i = 0; i < W->n_clients; i++) {
		cfs_sim_net_isolate(W->clients[i].sn, false);
		cfs_sim_net_lag(W->clients[i].sn, 0);
		W->clients[i].lazy = false;
		if (W->clients[i].state == CL_DEAD)
			client_start(&W->clients[i]);
	}
}

/* ---- the end ---------------------------------------------------------------------------------------------------------- */

static bool all_idle(void *arg)
{
	(void)arg;
	if (W->failed)
		return true;
	for (unsigned i = 0; i < W->n_clients; i++)
		if (!client_idle(&W->clients[i]))
			return false;
	return true;
}

static bool step_until(bool (*cond)(void *), uint64_t limit_ns)
{
	uint64_t end = now() + limit_ns;

	while (!cond(NULL) && now() < end && !W->failed)
		if (!cfs_sim_step(W->sim))
			break;
	return cond(NULL);
}

static bool never(void *arg)
{
	(void)arg;
	return W->failed;
}

static struct server *leader(void)
{
	for (unsigned i = 0; i < W->n_servers; i++)
		if (W->servers[i].node && W->servers[i].started && cfs_node_is_leader(W->servers[i].node))
			return &W->servers[i];
	return NULL;
}

static bool has_leader(void *arg)
{
	(void)arg;
	return W->failed || leader();
}

struct live {
	struct cfs_oid *oids;
	unsigned n, cap;
};

static int on_extent(void *arg, uint64_t ino, const struct cfs_extent *e)
{
	struct live *l = arg;

	(void)ino;
	if (cfs_le32_to_cpu(e->flags) & CFS_EXT_UNWRITTEN)
		return 0;
	if (l->n == l->cap) {
		l->cap = l->cap ? l->cap * 2 : 64;
		l->oids = xrealloc(l->oids, l->cap * sizeof(l->oids[0]));
	}
	l->oids[l->n++] = e->oid;
	return 0;
}

static bool has_oid(const struct live *l, const struct cfs_oid *oid)
{
	for (unsigned i = 0; i < l->n; i++)
		if (!memcmp(&l->oids[i], oid, sizeof(*oid)))
			return true;
	return false;
}

static bool may_be_missing(const struct object *o)
{
	return o && (o->lost || o->cut);
}

/* each object that a file needs is stored; each one stored is needed, or was never committed, or is a checkpoint */
static void check_objects(struct cfs_node *n)
{
	struct live used = { 0 }, stored = { 0 };
	struct cfs_oid oids[64];
	uint32_t lens[64];
	uint64_t cursor = 0;
	int got;

	cfs_meta_walk_extents(n->meta, on_extent, &used);
	while ((got = cfs_store_list(n->targets[0].store, &cursor, oids, lens, 64)) > 0)
		for (int i = 0; i < got; i++)
			on_extent(&stored, 0, &(struct cfs_extent){ .oid = oids[i] });
	for (unsigned i = 0; i < used.n && !W->failed; i++)
		if (!has_oid(&stored, &used.oids[i]) && !may_be_missing(object_of(&used.oids[i])))
			fail("a file's object %" PRIx64 ".%" PRIx64 " is not stored", cfs_le64_to_cpu(used.oids[i].owner),
			     cfs_le64_to_cpu(used.oids[i].seq));
	for (unsigned i = 0; i < stored.n && !W->failed; i++) {
		struct object *o = object_of(&stored.oids[i]);

		if (stored.oids[i].owner == CFS_OID_OWNER_META || has_oid(&used, &stored.oids[i]) || (o && !o->committed))
			continue;
		fail("object %" PRIx64 ".%" PRIx64 " belongs to no file any more, and is still there",
		     cfs_le64_to_cpu(stored.oids[i].owner), cfs_le64_to_cpu(stored.oids[i].seq));
	}
	free(used.oids);
	free(stored.oids);
}

/* what the state says of a file's bytes is what the model has */
static void check_contents(struct cfs_meta *m)
{
	static uint8_t out[CFS_BODY_MAX] __attribute__((aligned(8)));
	static uint8_t data[FILE_MAX];

	for (uint64_t i = 1; i < INOS_MAX && !W->failed; i++) {
		struct inode *in = &W->inos[i];
		struct cfs_open_req q = { .ino = cfs_cpu_to_le64(i), .max_extents = cfs_cpu_to_le32(512) };
		struct cfs_open_rep rep;
		const uint8_t *p = out + sizeof(rep);
		uint32_t len = 0;

		if (!in->exists || !S_ISREG(in->mode))
			continue;
		if (cfs_meta_read(m, CFS_OP_OPEN, 0, &q, sizeof(q), out, &len)) {
			fail("inode %" PRIu64 " cannot be opened", i);
			return;
		}
		memcpy(&rep, out, sizeof(rep));
		memset(data, 0, sizeof(data));
		memcpy(data, p, cfs_le32_to_cpu(rep.inline_len));
		p += cfs_le32_to_cpu(rep.inline_len);
		for (uint32_t k = 0; k < cfs_le32_to_cpu(rep.n_extents); k++) {
			struct cfs_extent x;
			struct object *o;

			cfs_copy_elem(&x, p, k);
			o = object_of(&x.oid);
			if (o && cfs_le64_to_cpu(x.file_off) + cfs_le32_to_cpu(x.len) <= FILE_MAX)
				memcpy(data + cfs_le64_to_cpu(x.file_off), o->bytes + cfs_le32_to_cpu(x.obj_off), cfs_le32_to_cpu(x.len));
		}
		if (cfs_le64_to_cpu(rep.attr.size) != in->size || (in->size && in->data && memcmp(data, in->data, in->size)))
			fail("at the end inode %" PRIu64 " has other bytes than were committed", i);
	}
}

static void on_store_finding(void *arg, const struct cfs_store_finding *f)
{
	(void)arg;
	trace("store: %s", f->text);
}

/* the disk by itself, nothing running on it */
static void check_disk(struct server *s)
{
	struct cfs_store_checked chk = { 0 };
	char err[256] = "";
	struct cfs_dev *dev;

	cfs_sim_node_restart(s->sn);
	if (cfs_sim_disk_open(s->disk, &dev))
		abort();
	if (cfs_store_check(dev, on_store_finding, NULL, &chk, err, sizeof(err)))
		fail("server %u: its disk cannot be checked: %s", s->i, err);
	else if (chk.errors && !W->st.rotten && !W->st.zones)
		fail("server %u: its disk has %" PRIu64 " errors", s->i, chk.errors);
	cfs_dev_close(dev);
	cfs_sim_node_crash(s->sn, CFS_SIM_KILL);
}

static void finish(void)
{
	struct cfs_meta_stat st;
	struct server *s;

	clear_up();
	if (!step_until(has_leader, 60000 * MS) && !W->failed)
		fail("nobody leads");
	for (unsigned i = 0; i < W->n_servers && !W->failed; i++) {
		if (W->servers[i].steady_ns > now())
			cfs_sim_run(W->sim, W->servers[i].steady_ns);
		server_crash(&W->servers[i], CFS_SIM_POWER);
		server_start(&W->servers[i]);
	}
	W->calm = true;
	if (!step_until(all_idle, 60000 * MS) && !W->failed) {
		for (unsigned i = 0; i < W->n_clients; i++)
			for (unsigned t = 0; t < SLOTS; t++)
				if (W->clients[i].th[t].r.busy)
					fail("client %u/%u waits for an answer to opcode %u since %" PRIu64, i, t, W->clients[i].th[t].r.op,
					     W->clients[i].th[t].r.inv_ns);
		fail("not everybody finishes");
	}
	for (unsigned i = 0; i < W->n_clients && !W->failed; i++) {
		if (i % 2)		/* some just go away, and must be fenced */
			client_close_session(&W->clients[i]);
	}
	if (!W->failed)
		cfs_sim_run(W->sim, now() + 100 * MS);
	W->over = true;
	for (unsigned i = 0; i < W->n_clients && !W->failed; i++)
		client_kill(&W->clients[i]);
	step_until(never, 150000 * MS);
	s = W->failed ? NULL : leader();
	if (!s) {
		if (!W->failed)
			fail("nobody leads at the end");
		return;
	}
	model_compare(s->node->meta);
	check_contents(s->node->meta);
	if (!W->failed && !cfs_meta_stat(s->node->meta, &st) && (st.sessions || st.locks || st.orphans || st.dead_objects || st.purging))
		fail("left behind: %" PRIu64 " sessions, %" PRIu64 " locks, %" PRIu64 " orphans, %" PRIu64 " dead objects, %" PRIu64
		     " files to be purged", st.sessions, st.locks, st.orphans, st.dead_objects, st.purging);
	if (!W->failed)
		cfs_meta_check(s->node->meta, false, on_finding, NULL);
	if (!W->failed && W->n_servers == 1)
		check_objects(s->node);
	for (unsigned i = 0; i < W->n_servers && !W->failed; i++) {
		server_crash(&W->servers[i], CFS_SIM_KILL);
		check_disk(&W->servers[i]);
	}
}

/* ---- one seed -------------------------------------------------------------------------------------------------------------- */

static void begin(uint64_t seed, const struct options *o)
{
	struct cfs_sim_params sp = { .skew_ppm = seed % 5 ? 100 : 8000 };

	W = xcalloc(sizeof(*W));
	W->seed = seed;
	W->trace = o->trace;
	W->full = o->full;
	W->powercut = o->powercut;
	if (cfs_sim_create(seed, &sp, &W->sim))
		abort();
	W->n_servers = o->servers;
	W->n_clients = o->clients ? o->clients : 2 + pick(CLIENTS_MAX - 1);
	W->focus = 1 + pick(NAMES);
	W->readers = pick(3) * 40;
	witness_init();
	for (unsigned i = 0; i < W->n_servers; i++) {
		struct server *s = &W->servers[i];

		s->i = i;
		snprintf(s->addr, sizeof(s->addr), "s%u:1", i);
		strcpy(s->dir, "/tmp/claudefs-sim.XXXXXX");
		if (!mkdtemp(s->dir) || cfs_sim_node_create(W->sim, s->addr, &s->sn))
			abort();
		server_format(s, o->disk);
	}
	for (unsigned i = 0; i < W->n_servers; i++)
		server_start(&W->servers[i]);
	for (unsigned i = 0; i < W->n_clients; i++) {
		char name[16];

		snprintf(name, sizeof(name), "c%u", i);
		W->clients[i].i = i;
		if (cfs_sim_node_create(W->sim, name, &W->clients[i].sn))
			abort();
		client_start(&W->clients[i]);
	}
}

static void end(void)
{
	char shard[96];

	for (unsigned i = 0; i < W->n_clients; i++) {
		struct client_s *c = &W->clients[i];

		client_kill(c);
		for (unsigned t = 0; t < SLOTS; t++)
			free(c->th[t].buf);
	}
	for (unsigned i = 0; i < W->n_servers; i++) {
		struct server *s = &W->servers[i];

		server_crash(s, CFS_SIM_KILL);
		snprintf(shard, sizeof(shard), "%s/shard0", s->dir);
		cfs_meta_discard(shard);
		rmdir(shard);
		rmdir(s->dir);
	}
	cfs_sim_destroy(W->sim);
	witness_fini();
	free(W);
	W = NULL;
}

bool world_run(uint64_t seed, const struct options *o, struct stats *sum, uint64_t *ret_trace)
{
	uint64_t until;
	bool ok;

	begin(seed, o);
	until = now() + (o->ms ? o->ms : 3000 + pick(6000)) * MS;
	cfs_sim_at(W->sim, now() + (o->powercut ? 100 : 1000) * MS, weather, NULL);
	while (now() < until && !W->failed && cfs_sim_step(W->sim))
		;
	if (!W->failed)
		finish();
	ok = !W->failed;
	*sum = W->st;
	*ret_trace = cfs_sim_trace(W->sim);
	end();
	return ok;
}
