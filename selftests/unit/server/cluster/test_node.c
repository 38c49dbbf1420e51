/* SPDX-License-Identifier: MIT */
/*
 * timeout: 300 Proves of whole nodes (server/cluster/node.h), in the simulator's time, network and
 * disks, with a client that asks again, with the same slot and seq, until it is answered: whatever
 * was answered is there after kills, power cuts and the loss of the state directory, and was done
 * exactly once; checkpoints are taken and used meanwhile; a stop is clean at any moment; three
 * members go on without one, agree in the end key by key, bring back one that was away for long by
 * their leader's checkpoint, and outlive one that lost its disk.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/cluster/node_i.h"
#include "sim/sim.h"

#define DISK_BYTES	(256u << 20)
#define SERVERS		3u
#define MS		CFS_NSEC_PER_MSEC

static struct cfs_sim *sim;
static const uint8_t cluster[16] = "node test";

struct server {
	unsigned i;
	char addr[16], dir[64];
	struct cfs_sim_node *sn;
	struct cfs_sim_disk *disk;
	struct cfs_dev *dev;
	struct cfs_node *node;
	bool started, stopped, failed;
};
static struct server servers[SERVERS];
static unsigned n_servers;
static uint64_t checkpoint_bytes;

/* ---- servers --------------------------------------------------------------------------------- */

static void on_started(void *arg, int err, const char *why)
{
	struct server *s = arg;

	if (err)
		fail_msg("server %u does not start: %s", s->i, why);
	s->started = true;
}

static void on_failed(void *arg, int err, const char *why)
{
	struct server *s = arg;

	if (cfs_sim_node_alive(s->sn))
		fail_msg("server %u failed: %d %s", s->i, err, why);
	s->failed = true;
}

static void on_stopped(void *arg)
{
	((struct server *)arg)->stopped = true;
}

static void start(struct server *s)
{
	struct cfs_raft_member members[SERVERS];
	struct cfs_node_target target = { .path = s->addr };
	struct cfs_node_params p = { .listen = s->addr,
				     .state_dir = s->dir,
				     .targets = &target,
				     .n_targets = 1,
				     .lease_ms = 1000,
				     .checkpoint_bytes = checkpoint_bytes,
				     .started = on_started,
				     .failed = on_failed,
				     .arg = s };

	if (!cfs_sim_node_alive(s->sn))
		cfs_sim_node_restart(s->sn);
	assert_int_equal(cfs_sim_disk_open(s->disk, &s->dev), 0);
	target.dev = s->dev;
	p.clock = cfs_sim_node_clock(s->sn);
	p.net = cfs_sim_node_net(s->sn);
	for (unsigned i = 0; i < n_servers; i++)
		members[i] = (struct cfs_raft_member){ .id = i + 1, .address = servers[i].addr };
	p.members = members;
	p.n_members = n_servers;
	s->started = s->stopped = s->failed = false;
	assert_int_equal(cfs_node_create(&p, &s->node), 0);
	/* targets and members are the stack's: the start reads them in its first event */
	while (!s->started)
		assert_true(cfs_sim_step(sim));
}

static void crash(struct server *s, enum cfs_sim_crash how, bool lose_state)
{
	char shard[96];

	cfs_sim_node_crash(s->sn, how);
	cfs_node_stop(s->node, on_stopped);
	cfs_sim_node_unwind(s->sn);
	cfs_node_abandon(s->node);
	cfs_dev_close(s->dev);
	s->node = NULL;
	snprintf(shard, sizeof(shard), "%s/shard0", s->dir);
	if (how == CFS_SIM_POWER ||
	    lose_state) /* the working copy is not to be trusted: cfs_meta_open() would see that */
		assert_int_equal(cfs_meta_discard(shard), 0);
}

static bool is_stopped(void *arg)
{
	return ((struct server *)arg)->stopped;
}

static void stop(struct server *s)
{
	cfs_node_stop(s->node, on_stopped);
	assert_true(
		cfs_sim_run_until(sim, is_stopped, s, cfs_sim_now(sim) + 10 * CFS_NSEC_PER_SEC));
	cfs_node_destroy(s->node);
	cfs_dev_close(s->dev);
	s->node = NULL;
	cfs_sim_node_crash(s->sn, CFS_SIM_KILL);	/* the process ends */
}

static void format(struct server *s)
{
	struct cfs_format_params fp = { .target_id = s->i, .segment_bytes = 4u << 20 };
	struct cfs_dev *dev;
	char err[256] = "";

	if (!cfs_sim_node_alive(s->sn))
		cfs_sim_node_restart(s->sn);
	memcpy(fp.cluster, cluster, sizeof(cluster));
	assert_int_equal(cfs_sim_disk_create(s->sn, DISK_BYTES, 4096, &s->disk), 0);
	assert_int_equal(cfs_sim_disk_open(s->disk, &dev), 0);
	assert_int_equal(cfs_store_format(dev, &fp, err, sizeof(err)), 0);
	cfs_dev_close(dev);
}

/* ---- a client: one request at a time --------------------------------------------------------- */

static struct client {
	struct cfs_sim_node *sn;
	struct cfs_conn *conn;
	unsigned at;			/* server asked */
	bool greeted, answered;
	uint64_t session, seq, tag;
	uint32_t status;
	uint8_t body[4096];
	uint32_t body_len;
	uint64_t hello_status;
} cl;

static void cl_msg(struct cfs_conn *conn, struct cfs_msg *msg)
{
	(void)conn;
	if (!(msg->hdr.flags & CFS_MSG_REPLY) || cfs_le64_to_cpu(msg->hdr.tag) != cl.tag)
		return;
	cl.answered = true;
	cl.status = cfs_le32_to_cpu(msg->hdr.status);
	cl.body_len = cfs_min(cfs_le32_to_cpu(msg->hdr.body_len), (uint32_t)sizeof(cl.body));
	memcpy(cl.body, msg->body, cl.body_len);
}

static void cl_close(struct cfs_conn *conn, int err)
{
	(void)err;
	if (conn == cl.conn)
		cl.conn = NULL;
}

static const struct cfs_conn_handler cl_handler = { .on_msg = cl_msg, .on_close = cl_close };

static bool cl_over(void *arg)
{
	(void)arg;
	return cl.answered || !cl.conn;
}

static void hang_up(void)
{
	struct cfs_conn *conn = cl.conn;

	cl.conn = NULL;
	cl.greeted = false;
	if (conn)
		cfs_conn_close(conn);
}

/* one try at the server cl.at: true with an answer */
static bool try_once(const struct cfs_msg_hdr *hdr, const void *body, uint32_t len)
{
	struct cfs_send send = { .hdr = *hdr, .body = body, .body_len = len };

	cl.answered = false;
	send.hdr.tag = cfs_cpu_to_le64(++cl.tag);
	if (cfs_conn_send(cl.conn, &send))
		return false;
	cfs_sim_run_until(sim, cl_over, NULL, cfs_sim_now(sim) + 2 * CFS_NSEC_PER_SEC);
	return cl.answered;
}

static bool dial(void)
{
	struct cfs_net *net = cfs_sim_node_net(cl.sn);
	struct cfs_hello_req req = { .version_min = cfs_cpu_to_le32(1),
				     .version_max = cfs_cpu_to_le32(1),
				     .role = cfs_cpu_to_le32(CFS_ROLE_WORKER) };
	struct cfs_msg_hdr hdr;

	hang_up();
	if (net->ops->connect(net, servers[cl.at].addr, &cl_handler, NULL, &cl.conn))
		return false;
	cfs_hdr_init(&hdr, CFS_OP_HELLO);
	hdr.session = cfs_cpu_to_le64(cl.session);
	cl.greeted = try_once(&hdr, &req, sizeof(req)) && cl.status == 0;
	return cl.greeted;
}

static void (*on_retry)(void);		/* the weather */

/* until some server answers with something final */
static uint32_t call(uint16_t op, const void *body, uint32_t len)
{
	struct cfs_msg_hdr hdr;

	cfs_hdr_init(&hdr, op);
	hdr.session = cfs_cpu_to_le64(cl.session);
	if (cfs_op_mutates(op) && op != CFS_OP_SESSION_OPEN) {
		hdr.slot = 0;
		hdr.seq = cfs_cpu_to_le64(++cl.seq);
	}
	for (unsigned tries = 0; tries < 3000; tries++) {
		bool ok = (cl.conn && cl.greeted) || dial();

		ok = ok && try_once(&hdr, body, len);
		if (ok && cl.status != CFS_E_GRACE && cl.status != CFS_E_NOTLEADER)
			return cl.status;
		if (!ok || cl.status == CFS_E_NOTLEADER) {
			hang_up();
			cl.at = (cl.at + 1) % n_servers;
		}
		if (on_retry)
			on_retry();
		cfs_sim_run(sim, cfs_sim_now(sim) + 50 * MS);
	}
	fail_msg("no answer for opcode %u: %s, last status %u", op,
		 cl.answered ? "answered" : "silent", cl.status);
	return 0;
}

static void open_session(void)
{
	struct cfs_session_open_req req = { .slots = cfs_cpu_to_le32(1) };
	struct cfs_session_open_rep rep;
	uint64_t random = cfs_sim_random(sim);

	memcpy(req.nonce, &random, sizeof(random));
	cl.session = 0;
	assert_int_equal(call(CFS_OP_SESSION_OPEN, &req, sizeof(req)), 0);
	memcpy(&rep, cl.body, sizeof(rep));
	cl.session = cfs_le64_to_cpu(rep.session);
	cl.seq = 0;
	hang_up();
}

static uint32_t make(uint32_t n)
{
	struct {
		struct cfs_mknode_req req;
		char name[32];
	} mk = { .req = { .dir = cfs_cpu_to_le64(CFS_INO_ROOT),
			  .mode = cfs_cpu_to_le32(S_IFREG | 0644) } };
	int len = snprintf(mk.name, sizeof(mk.name), "file%u", n);

	mk.req.name_len = cfs_cpu_to_le32((uint32_t)len);
	return call(CFS_OP_MKNODE, &mk, (uint32_t)(sizeof(mk.req) + (size_t)len));
}

static uint32_t look(uint32_t n)
{
	struct {
		struct cfs_lookup_req req;
		char name[32];
	} lk = { .req = { .dir = cfs_cpu_to_le64(CFS_INO_ROOT) } };
	int len = snprintf(lk.name, sizeof(lk.name), "file%u", n);

	lk.req.name_len = cfs_cpu_to_le32((uint32_t)len);
	return call(CFS_OP_LOOKUP, &lk, (uint32_t)(sizeof(lk.req) + (size_t)len));
}

/* ---- the world ------------------------------------------------------------------------------- */

static void begin(uint64_t seed, unsigned n)
{
	n_servers = n;
	on_retry = NULL;
	memset(&cl, 0, sizeof(cl));
	memset(servers, 0, sizeof(servers));
	assert_int_equal(cfs_sim_create(seed, NULL, &sim), 0);
	for (unsigned i = 0; i < n; i++) {
		struct server *s = &servers[i];

		s->i = i;
		snprintf(s->addr, sizeof(s->addr), "s%u:1", i);
		strcpy(s->dir, "/tmp/claudefs-node.XXXXXX");
		assert_non_null(mkdtemp(s->dir));
		assert_int_equal(cfs_sim_node_create(sim, s->addr, &s->sn), 0);
		format(s);
	}
	assert_int_equal(cfs_sim_node_create(sim, "client", &cl.sn), 0);
}

static void end(void)
{
	char shard[96];

	hang_up();
	for (unsigned i = 0; i < n_servers; i++) {
		struct server *s = &servers[i];

		if (s->node)
			crash(s, CFS_SIM_KILL, false);
		snprintf(shard, sizeof(shard), "%s/shard0", s->dir);
		cfs_meta_discard(shard);
		rmdir(shard);
		assert_int_equal(rmdir(s->dir), 0);
	}
	cfs_sim_destroy(sim);
}

/* ---- one node -------------------------------------------------------------------------------- */

static unsigned crashes;

static void weather_one(void)
{
	struct server *s = &servers[0];

	if (!s->node)
		start(s);
}

static void strike(void *arg)
{
	struct server *s = arg;
	bool power = cfs_sim_chance(sim, 400000);

	if (!s->node || !s->started)
		return;
	crash(s, power ? CFS_SIM_POWER : CFS_SIM_KILL, cfs_sim_chance(sim, 300000));
	crashes++;
}

static void one_node_seed(uint64_t seed)
{
	struct server *s = &servers[0];
	struct cfs_raft_stat st;
	uint32_t n = 0;

	checkpoint_bytes = 20000;	/* several in each life */
	begin(seed, 1);
	on_retry = weather_one;
	crashes = 0;
	start(s);
	open_session();
	for (unsigned round = 0; round < 12; round++) {
		unsigned count = 40 + (unsigned)cfs_sim_below(sim, 60);

		cfs_sim_at(sim, cfs_sim_now(sim) + cfs_sim_below(sim, 60 * MS), strike, s);
		for (unsigned i = 0; i < count; i++)
			assert_int_equal(make(n++),
					 0); /* never EEXIST: a repeat gets the first answer */
	}
	assert_true(crashes >= 6);
	if (!s->node)
		start(s);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(look(i), 0);
	assert_int_equal(look(n), ENOENT);
	cfs_raft_log_stat(s->node->raft, &st);
	assert_true(st.snapshot > 0);
	assert_int_equal(cfs_meta_check(s->node->meta, false, NULL, NULL), 0);
	stop(s);			/* a clean one, and a quick start from it */
	start(s);
	assert_int_equal(s->node->restore_ns, 0);
	for (uint32_t i = 0; i < n; i += 7)
		assert_int_equal(look(i), 0);
	end();
}

static void one_node(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 4; seed++)
		one_node_seed(seed);
}

/* a stop at any moment of a busy node ends, and what was answered is there */
static void stops(void **state)
{
	struct server *s = &servers[0];
	uint32_t n = 0;

	(void)state;
	checkpoint_bytes = 8000;
	begin(77, 1);
	start(s);
	on_retry = weather_one;
	open_session();
	for (unsigned round = 0; round < 15; round++) {
		struct {
			struct cfs_mknode_req req;
			char name[32];
		} mk = { .req = { .dir = cfs_cpu_to_le64(CFS_INO_ROOT),
				  .mode = cfs_cpu_to_le32(S_IFREG | 0644) } };
		struct cfs_send send = { .body = &mk };

		for (unsigned i = 0; i < 30; i++)
			assert_int_equal(make(n++), 0);
		/* one more, not waited for */
		int len = snprintf(mk.name, sizeof(mk.name), "file%u", n);
		mk.req.name_len = cfs_cpu_to_le32((uint32_t)len);
		send.body_len = (uint32_t)(sizeof(mk.req) + (size_t)len);
		cfs_hdr_init(&send.hdr, CFS_OP_MKNODE);
		send.hdr.session = cfs_cpu_to_le64(cl.session);
		send.hdr.slot = 0;
		send.hdr.seq = cfs_cpu_to_le64(cl.seq + 1);
		assert_int_equal(cfs_conn_send(cl.conn, &send), 0);
		cfs_sim_run(sim, cfs_sim_now(sim) + cfs_sim_below(sim, 2 * MS));
		stop(s);
		start(s);
		assert_int_equal(make(n++),
				 0); /* the same slot and seq: done or not, it is done once */
	}
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(look(i), 0);
	end();
}

static void ignore(void *arg)
{
	(void)arg;
}

/*
 * the objects of a file that is gone are deleted on their target, after the grace of dead objects
 */
static void dead_objects(void **state)
{
	static uint8_t data[100000] __attribute__((aligned(4096)));
	struct {
		struct cfs_obj_write_req req;
		cfs_le32 crcs[2];
	} wr = { .req = { .len = cfs_cpu_to_le32(sizeof(data)) } };
	struct {
		struct cfs_commit_req req;
		struct cfs_commit_item item;
		struct cfs_extent ext;
	} commit = { .req = { .n = cfs_cpu_to_le32(1) }, .item = { .n_extents = cfs_cpu_to_le32(1),
		.size = cfs_cpu_to_le64(sizeof(data)) } };
	struct {
		struct cfs_unlink_req req;
		char name[8];
	} un = { .req = { .dir = cfs_cpu_to_le64(CFS_INO_ROOT), .name_len = cfs_cpu_to_le32(5) },
		 .name = "file0" };
	struct cfs_send send = { .payload = data,
				 .payload_len = sizeof(data),
				 .payload_done = ignore,
				 .body = &wr,
				 .body_len = sizeof(wr) };
	struct cfs_entry_rep entry;
	struct cfs_store_stat st;
	uint32_t crcs[2];

	(void)state;
	checkpoint_bytes = 0;
	begin(21, 1);
	start(&servers[0]);
	open_session();
	assert_int_equal(make(0), 0);
	memcpy(&entry, cl.body, sizeof(entry));
	cfs_payload_crcs(data, sizeof(data), crcs);
	wr.crcs[0] = cfs_cpu_to_le32(crcs[0]);
	wr.crcs[1] = cfs_cpu_to_le32(crcs[1]);
	wr.req.oid = (struct cfs_oid){ .owner = cfs_cpu_to_le64(cl.session),
				       .seq = cfs_cpu_to_le64(3ull << 48 | 1) };
	cfs_hdr_init(&send.hdr, CFS_OP_OBJ_WRITE);
	send.hdr.session = cfs_cpu_to_le64(cl.session);
	send.hdr.tag = cfs_cpu_to_le64(++cl.tag);
	cl.answered = false;
	assert_int_equal(cfs_conn_send(cl.conn, &send), 0);
	assert_true(cfs_sim_run_until(sim, cl_over, NULL, cfs_sim_now(sim) + 5 * CFS_NSEC_PER_SEC));
	assert_true(cl.answered && cl.status == 0);
	commit.item.ino = entry.attr.ino;
	commit.ext = (struct cfs_extent){ .len = cfs_cpu_to_le32(sizeof(data)),
					  .obj_len = cfs_cpu_to_le32(sizeof(data)),
					  .oid = wr.req.oid };
	assert_int_equal(call(CFS_OP_COMMIT, &commit, sizeof(commit)), 0);
	cfs_store_stat(servers[0].node->targets[0].store, &st);
	assert_int_equal(st.objects, 1);
	assert_int_equal(call(CFS_OP_UNLINK, &un, sizeof(un.req) + 5), 0);
	cfs_sim_run(sim, cfs_sim_now(sim) + 30 * CFS_NSEC_PER_SEC);
	cfs_store_stat(servers[0].node->targets[0].store, &st);
	assert_int_equal(st.objects, 1);	/* readers may still be at it */
	cfs_sim_run(sim, cfs_sim_now(sim) + 60 * CFS_NSEC_PER_SEC);
	cfs_store_stat(servers[0].node->targets[0].store, &st);
	assert_int_equal(st.objects, 0);
	end();
}

/* ---- three members --------------------------------------------------------------------------- */

static bool all_equal(void *arg)
{
	uint64_t applied = cfs_meta_applied(servers[0].node->meta);

	(void)arg;
	for (unsigned i = 1; i < 3; i++)
		if (!servers[i].node->meta || cfs_meta_applied(servers[i].node->meta) != applied)
			return false;
	return true;
}

static void agree(void)
{
	uint64_t digest[3];

	hang_up();
	assert_true(
		cfs_sim_run_until(sim, all_equal, NULL, cfs_sim_now(sim) + 60 * CFS_NSEC_PER_SEC));
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(cfs_meta_digest(servers[i].node->meta, &digest[i]), 0);
	assert_int_equal(digest[0], digest[1]);
	assert_int_equal(digest[0], digest[2]);
}

static unsigned down(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < 3; i++)
		n += !servers[i].node;
	return n;
}

static void strike_three(void *arg)
{
	struct server *s = &servers[cfs_sim_below(sim, 3)];

	(void)arg;
	if (s->node && down() == 0) {	/* a majority stays */
		crash(s, cfs_sim_chance(sim, 500000) ? CFS_SIM_POWER : CFS_SIM_KILL,
		      cfs_sim_chance(sim, 300000));
		crashes++;
	}
}

static void come_back(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 3; i++)
		if (!servers[i].node) {
			start(&servers[i]);
			return;
		}
}

static void three_members(void **state)
{
	uint32_t n = 0;

	(void)state;
	checkpoint_bytes = 100000;
	crashes = 0;
	begin(5, 3);
	for (unsigned i = 0; i < 3; i++)
		start(&servers[i]);
	open_session();
	for (unsigned round = 0; round < 10; round++) {
		cfs_sim_at(sim, cfs_sim_now(sim) + cfs_sim_below(sim, 100 * MS), strike_three,
			   NULL);
		for (unsigned i = 0; i < 50; i++)
			assert_int_equal(make(n++), 0);
		come_back(NULL);
	}
	assert_true(crashes >= 5);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(look(i), 0);
	agree();
	end();
}

static struct server *a_follower(void)
{
	for (unsigned i = 0; i < 3; i++)
		if (!cfs_node_is_leader(servers[i].node))
			return &servers[i];
	return NULL;
}

/* one member was away for so long that the others have let go of what it needs */
static void three_install(void **state)
{
	struct server *late;
	uint32_t n = 0;

	(void)state;
	checkpoint_bytes = 200000;
	begin(9, 3);
	for (unsigned i = 0; i < 3; i++)
		start(&servers[i]);
	open_session();
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(make(n++), 0);
	late = a_follower();
	crash(late, CFS_SIM_KILL, false);
	while (n < 5000)		/* entries behind a checkpoint are kept, 4096 of them */
		assert_int_equal(make(n++), 0);
	for (unsigned i = 0; i < 3; i++)
		if (servers[i].node)
			cfs_node_checkpoint(servers[i].node);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(make(n++), 0);
	cfs_sim_run(sim, cfs_sim_now(sim) + 2 * CFS_NSEC_PER_SEC);
	start(late);
	assert_int_equal(cfs_raft_log_snapshot(late->node->raft, &(const void *){ NULL },
					       &(uint32_t){ 0 }),
			 0);
	agree();
	assert_true(cfs_raft_log_snapshot(late->node->raft, &(const void *){ NULL },
					  &(uint32_t){ 0 }) > 4096);
	/* its own copy of that checkpoint is good: it starts from it */
	crash(late, CFS_SIM_POWER, true);
	start(late);
	assert_true(late->node->restore_ns > 0);
	open_session();			/* the first one was silent for too long */
	assert_int_equal(make(n++), 0);
	agree();
	end();
}

/*
 * one member comes back with an empty disk and its old name: the others go on, and do not follow it
 * into oblivion
 */
static void three_forgetful(void **state)
{
	struct server *late;
	uint32_t n = 0;

	(void)state;
	checkpoint_bytes = 200000;
	begin(10, 3);
	for (unsigned i = 0; i < 3; i++)
		start(&servers[i]);
	open_session();
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(make(n++), 0);
	late = a_follower();
	crash(late, CFS_SIM_POWER, true);
	format(late);
	start(late);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(make(n++), 0);
	cfs_sim_run(sim, cfs_sim_now(sim) + 20 * CFS_NSEC_PER_SEC);
	open_session();			/* the first one was silent for too long */
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(look(i), 0);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_node),	 cmocka_unit_test(stops),
		cmocka_unit_test(dead_objects),	 cmocka_unit_test(three_members),
		cmocka_unit_test(three_install), cmocka_unit_test(three_forgetful),
	};

	cfs_log_set_level(CFS_LOG_ERR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
