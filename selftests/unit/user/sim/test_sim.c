/* SPDX-License-Identifier: MIT */
/*
 * Proves of the simulator: one seed gives one trace, another seed another; timers obey each node's own clock;
 * messages come whole, in order, and not at all over a cut or partition; a crash silences a node at once and
 * its peers learn of it as they would; durable bytes survive power cuts, others are old, new or torn by
 * sectors, and all three do occur; unwinding ends everything that vanished, once.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/base.h"
#include "rpc/codec.h"
#include "sim/sim.h"

#define SEC CFS_NSEC_PER_SEC
#define MSEC CFS_NSEC_PER_MSEC

/* ---- a small program to run on nodes: echo with a journal --------------------------------------- */

struct peer {
	struct cfs_sim_node *node;
	struct cfs_conn *conn;		/* the last one opened, either way */
	unsigned opened, closed, received, payloads;
	uint64_t last_tag, sent;
	int err;
	bool echo, unordered;
};

static void count_payload(void *arg)
{
	((struct peer *)arg)->payloads++;
}

static int say(struct peer *p, uint64_t tag, uint32_t payload_len)
{
	static uint8_t bytes[100000];
	struct cfs_send s = { .body = &tag, .body_len = 8, .payload = bytes, .payload_len = payload_len,
			      .payload_done = count_payload, .payload_arg = p };
	int rc;

	cfs_hdr_init(&s.hdr, CFS_OP_LOOKUP);
	s.hdr.tag = cfs_cpu_to_le64(tag);
	rc = cfs_conn_send(p->conn, &s);
	p->sent += rc == 0;
	return rc;
}

static void on_open(struct cfs_conn *conn)
{
	struct peer *p = conn->user;

	p->conn = conn;
	p->opened++;
}

static void on_msg(struct cfs_conn *conn, struct cfs_msg *msg)
{
	struct peer *p = conn->user;
	uint64_t tag = cfs_le64_to_cpu(msg->hdr.tag);
	const char *why;

	assert_int_equal(cfs_hdr_check(&msg->hdr, &why), 0);
	assert_int_equal(cfs_body_check(&msg->hdr, msg->body), 0);
	assert_int_equal(cfs_get_le64(msg->body), tag);
	assert_true(p->unordered || tag > p->last_tag);
	p->last_tag = tag;
	p->received++;
	if (p->echo) {
		p->conn = conn;
		say(p, tag, cfs_le32_to_cpu(msg->hdr.payload_len));
	}
}

static void on_close(struct cfs_conn *conn, int err)
{
	struct peer *p = conn->user;

	p->closed++;
	p->err = err;
	if (p->conn == conn)
		p->conn = NULL;
}

static const struct cfs_conn_handler handler = { on_open, on_msg, on_close };

static struct cfs_sim *new_sim(uint64_t seed)
{
	struct cfs_sim *sim;

	assert_int_equal(cfs_sim_create(seed, NULL, &sim), 0);
	return sim;
}

static void join(struct cfs_sim *sim, struct peer *p, const char *name)
{
	assert_int_equal(cfs_sim_node_create(sim, name, &p->node), 0);
}

static void listen_on(struct peer *p)
{
	struct cfs_net *net = cfs_sim_node_net(p->node);

	assert_int_equal(net->ops->listen(net, cfs_sim_node_name(p->node), &handler, p), 0);
}

static int connect_to(struct peer *p, const char *name)
{
	struct cfs_net *net = cfs_sim_node_net(p->node);

	return net->ops->connect(net, name, &handler, p, &p->conn);
}

/* two nodes, b listens and echoes, a is connected */
static struct cfs_sim *pair(uint64_t seed, struct peer *a, struct peer *b)
{
	struct cfs_sim *sim = new_sim(seed);

	memset(a, 0, sizeof(*a));
	memset(b, 0, sizeof(*b));
	b->echo = true;
	join(sim, a, "a");
	join(sim, b, "b");
	listen_on(b);
	assert_int_equal(connect_to(a, "b"), 0);
	cfs_sim_run(sim, cfs_sim_now(sim) + 100 * MSEC);
	assert_int_equal(b->opened, 1);
	return sim;
}

/* ---- time --------------------------------------------------------------------------------------------- */

struct ticker {
	struct cfs_timer t;
	struct cfs_clock *clock;
	uint64_t deadline;
	unsigned fired;
};

static void on_tick(struct cfs_timer *t)
{
	struct ticker *k = cfs_container_of(t, struct ticker, t);
	uint64_t now = cfs_clock_boot_ns(k->clock);

	assert_true(now >= k->deadline);
	assert_true(now < k->deadline + 10);	/* nothing is late in here */
	k->fired++;
	k->deadline = now + 10 * MSEC;
	if (k->fired < 100)
		cfs_timer_set(k->clock, t, k->deadline);
}

static void test_clocks(void **state)
{
	struct cfs_sim_params p = { .skew_ppm = 50000 };
	struct ticker k[3] = { 0 };
	struct peer n[3] = { 0 };
	struct cfs_sim *sim;
	uint64_t start[3];
	bool differ = false;

	(void)state;
	assert_int_equal(cfs_sim_create(3, &p, &sim), 0);
	for (int i = 0; i < 3; i++) {
		join(sim, &n[i], "n");
		k[i].t.fn = on_tick;
		k[i].clock = cfs_sim_node_clock(n[i].node);
		start[i] = cfs_clock_boot_ns(k[i].clock);
		k[i].deadline = start[i] + 5 * MSEC;
		cfs_timer_set(k[i].clock, &k[i].t, k[i].deadline);
	}
	cfs_timer_set(k[2].clock, &k[2].t, k[2].deadline);
	cfs_timer_cancel(k[2].clock, &k[2].t);
	cfs_sim_run(sim, 10 * SEC);
	assert_int_equal(k[0].fired, 100);
	assert_int_equal(k[1].fired, 100);
	assert_int_equal(k[2].fired, 0);
	for (int i = 0; i < 3; i++) {
		uint64_t ran = cfs_clock_boot_ns(k[i].clock) - start[i];

		assert_true(ran > 9400 * MSEC && ran < 10600 * MSEC);
		differ |= ran != 10 * SEC;
		assert_true(cfs_clock_real_ns(k[i].clock) > 1700000000ull * SEC);
	}
	assert_true(differ);
	assert_false(cfs_sim_step(sim));
	cfs_sim_destroy(sim);
}

static unsigned worked, done_count;

static void work(void *arg)
{
	(void)arg;
	worked++;
}

static void done(void *arg)
{
	(void)arg;
	assert_true(worked > done_count);
	done_count++;
}

static void test_offload(void **state)
{
	struct cfs_sim *sim = new_sim(1);
	struct peer a = { 0 };
	struct cfs_clock *clock;

	(void)state;
	worked = done_count = 0;
	join(sim, &a, "a");
	clock = cfs_sim_node_clock(a.node);
	assert_int_equal(clock->ops->offload(clock, work, done, NULL), 0);
	assert_int_equal(worked, 0);
	cfs_sim_run(sim, SEC);
	assert_int_equal(done_count, 1);
	/* vanishes with the node; unwinding reports it */
	assert_int_equal(clock->ops->offload(clock, work, done, NULL), 0);
	worked++;
	cfs_sim_node_crash(a.node, CFS_SIM_KILL);
	cfs_sim_run(sim, 2 * SEC);
	assert_int_equal(done_count, 1);
	cfs_sim_node_unwind(a.node);
	assert_int_equal(done_count, 2);
	assert_int_equal(clock->ops->offload(clock, work, done, NULL), -ESHUTDOWN);
	cfs_sim_destroy(sim);
}

/* ---- network --------------------------------------------------------------------------------------------- */

static void test_messages(void **state)
{
	struct peer a, b;
	struct cfs_sim *sim = pair(5, &a, &b);

	(void)state;
	for (unsigned i = 1; i <= 500; i++)
		assert_int_equal(say(&a, i, i % 7 ? 0 : i * 100), 0);
	cfs_sim_run(sim, 5 * SEC);
	assert_int_equal(b.received, 500);
	assert_int_equal(a.received, 500);
	assert_int_equal(a.payloads, 71);
	assert_int_equal(b.payloads, 71);
	for (unsigned i = 0; i < CFS_NET_QUEUE_MSGS; i++)
		assert_int_equal(say(&a, 1000 + i, 0), 0);
	assert_int_equal(say(&a, 9999, 0), -ENOBUFS);
	/* close sends what is queued, then the end */
	cfs_conn_close(a.conn);
	assert_int_equal(say(&a, 10000, 0), -EPIPE);
	assert_int_equal(a.closed, 0);
	cfs_sim_run(sim, 10 * SEC);
	assert_int_equal(b.received, 500 + CFS_NET_QUEUE_MSGS);
	assert_int_equal(a.closed + b.closed, 2);
	assert_int_equal(a.err, 0);
	assert_int_equal(b.err, 0);
	cfs_sim_destroy(sim);
}

static void test_connecting(void **state)
{
	struct cfs_sim *sim = new_sim(9);
	struct peer a = { 0 }, b = { 0 };
	struct cfs_conn *early;

	(void)state;
	join(sim, &a, "a");
	join(sim, &b, "b");
	assert_int_equal(connect_to(&a, "nobody"), 0);
	cfs_sim_run(sim, 1 * SEC);
	assert_int_equal(a.err, -ECONNREFUSED);
	listen_on(&b);
	cfs_sim_net_refuse(b.node, true);
	assert_int_equal(connect_to(&a, "b"), 0);
	cfs_sim_run(sim, 2 * SEC);
	assert_int_equal(a.closed, 2);
	assert_int_equal(a.err, -ECONNREFUSED);
	cfs_sim_net_refuse(b.node, false);
	cfs_sim_net_partition(a.node, b.node, true);
	assert_int_equal(connect_to(&a, "b"), 0);
	cfs_sim_run(sim, 20 * SEC);
	assert_int_equal(a.err, -ETIMEDOUT);
	cfs_sim_net_partition(a.node, b.node, false);
	/* given up before anybody answered */
	assert_int_equal(connect_to(&a, "b"), 0);
	cfs_conn_close(a.conn);
	cfs_sim_run(sim, 21 * SEC);
	assert_int_equal(a.closed, 4);
	assert_int_equal(b.opened, 0);
	/* messages sent at once wait for the connection */
	b.unordered = true;
	assert_int_equal(connect_to(&a, "b"), 0);
	early = a.conn;
	for (unsigned i = 1; i < 10; i++)
		assert_int_equal(say(&a, i, 10), 0);
	assert_ptr_equal(a.conn, early);
	cfs_sim_run(sim, 22 * SEC);
	assert_int_equal(b.opened, 1);
	assert_int_equal(b.received, 9);
	/* a dead process refuses, a dead machine is silent */
	cfs_sim_node_crash(b.node, CFS_SIM_KILL);
	cfs_sim_run(sim, 23 * SEC);
	assert_int_equal(a.closed, 5);
	assert_int_equal(connect_to(&a, "b"), 0);
	cfs_sim_run(sim, 24 * SEC);
	assert_int_equal(a.err, -ECONNREFUSED);
	cfs_sim_node_restart(b.node);
	listen_on(&b);
	assert_int_equal(connect_to(&a, "b"), 0);
	cfs_sim_run(sim, 25 * SEC);
	assert_int_equal(b.opened, 2);
	cfs_sim_node_crash(b.node, CFS_SIM_POWER);
	cfs_sim_run(sim, 50 * SEC);
	assert_int_equal(a.closed, 6);	/* has not noticed yet */
	assert_int_equal(connect_to(&a, "b"), 0);
	cfs_sim_run(sim, 70 * SEC);
	assert_int_equal(a.closed, 8);
	assert_int_equal(a.err, -ETIMEDOUT);
	cfs_sim_destroy(sim);
}

static void test_weather(void **state)
{
	struct peer a, b;
	struct cfs_sim *sim = pair(11, &a, &b);
	uint64_t now;

	(void)state;
	/* a short partition delays */
	cfs_sim_net_partition(a.node, b.node, true);
	for (unsigned i = 1; i <= 10; i++)
		assert_int_equal(say(&a, i, 0), 0);
	cfs_sim_run(sim, 10 * SEC);
	assert_int_equal(b.received, 0);
	cfs_sim_net_partition(a.node, b.node, false);
	cfs_sim_run(sim, 11 * SEC);
	assert_int_equal(a.received, 10);
	/* a long one breaks, on both sides, and what waited is lost */
	cfs_sim_net_isolate(b.node, true);
	assert_int_equal(say(&a, 11, 0), 0);
	cfs_sim_run(sim, 50 * SEC);
	assert_int_equal(a.closed + b.closed, 2);
	assert_int_equal(a.err, -ETIMEDOUT);
	cfs_sim_net_isolate(b.node, false);
	cfs_sim_run(sim, 60 * SEC);
	assert_int_equal(b.received, 10);
	/* a cut */
	assert_int_equal(connect_to(&a, "b"), 0);
	cfs_sim_run(sim, 61 * SEC);
	assert_int_equal(say(&a, 20, 5000), 0);
	cfs_sim_net_cut(a.node, b.node);
	cfs_sim_run(sim, 62 * SEC);
	assert_int_equal(a.closed + b.closed, 4);
	assert_int_equal(a.err, -ECONNRESET);
	assert_int_equal(b.received, 10);
	assert_int_equal(a.payloads, 1);
	/* lag */
	cfs_sim_net_lag(b.node, 1 * SEC);
	assert_int_equal(connect_to(&a, "b"), 0);
	assert_int_equal(say(&a, 21, 0), 0);
	now = cfs_sim_now(sim);
	while (a.received < 11 && cfs_sim_step(sim))
		;
	assert_true(cfs_sim_now(sim) >= now + 2 * SEC);
	cfs_sim_destroy(sim);
}

static void test_crash(void **state)
{
	struct peer a, b;
	struct cfs_sim *sim = pair(13, &a, &b);
	struct ticker k = { .t.fn = on_tick, .clock = cfs_sim_node_clock(b.node) };
	struct cfs_clock *old_clock = k.clock;
	struct cfs_net *old_net = cfs_sim_node_net(b.node);
	struct cfs_conn *old_conn = b.conn;
	uint64_t boot;

	(void)state;
	k.deadline = cfs_clock_boot_ns(k.clock) + 100 * MSEC;
	cfs_timer_set(k.clock, &k.t, k.deadline);
	assert_int_equal(say(&a, 1, 0), 0);
	assert_int_equal(say(&b, 1, 1000), 0);
	boot = cfs_clock_boot_ns(old_clock);
	cfs_sim_node_crash(b.node, CFS_SIM_KILL);
	assert_false(cfs_timer_armed(&k.t));
	/* the handles of the old life are there, and do nothing */
	cfs_timer_set(old_clock, &k.t, 0);
	assert_false(cfs_timer_armed(&k.t));
	cfs_timer_cancel(old_clock, &k.t);
	assert_int_equal(say(&b, 2, 0), -EPIPE);
	cfs_conn_close(old_conn);
	assert_int_equal(old_net->ops->listen(old_net, "x", &handler, &b), -ESHUTDOWN);
	cfs_sim_run(sim, 5 * SEC);
	assert_int_equal(b.received, 0);
	assert_int_equal(b.closed, 0);
	assert_int_equal(b.payloads, 0);
	assert_int_equal(k.fired, 0);
	assert_int_equal(a.received, 1);	/* was on its way already */
	assert_int_equal(a.closed, 1);
	cfs_sim_node_unwind(b.node);
	assert_int_equal(b.closed, 1);
	assert_int_equal(b.err, -ESHUTDOWN);
	assert_int_equal(b.payloads, 1);
	cfs_sim_node_restart(b.node);
	assert_true(cfs_clock_boot_ns(cfs_sim_node_clock(b.node)) > boot);	/* the machine ran on */
	assert_ptr_not_equal(cfs_sim_node_clock(b.node), old_clock);
	old_net->ops->close(old_net);
	listen_on(&b);
	assert_int_equal(connect_to(&a, "b"), 0);
	cfs_sim_run(sim, 6 * SEC);
	assert_int_equal(b.opened, 2);
	/* a net that is closed in its life ends all, at once */
	cfs_sim_node_net(b.node)->ops->close(cfs_sim_node_net(b.node));
	assert_int_equal(b.closed, 2);
	cfs_sim_run(sim, 7 * SEC);
	assert_int_equal(a.closed, 2);
	cfs_sim_destroy(sim);
}

/* a node dies in the middle of its own callback: what it still tries has no effect */
static void on_msg_die(struct cfs_conn *conn, struct cfs_msg *msg)
{
	struct peer *p = conn->user;

	(void)msg;
	p->received++;
	cfs_sim_node_crash(p->node, CFS_SIM_KILL);
	assert_int_equal(say(p, 99, 0), -EPIPE);
}

static const struct cfs_conn_handler dying_handler = { on_open, on_msg_die, on_close };

static void test_crash_inside(void **state)
{
	struct cfs_sim *sim = new_sim(17);
	struct peer a = { 0 }, b = { 0 };
	struct cfs_net *net;

	(void)state;
	join(sim, &a, "a");
	join(sim, &b, "b");
	net = cfs_sim_node_net(b.node);
	assert_int_equal(net->ops->listen(net, "b", &dying_handler, &b), 0);
	assert_int_equal(connect_to(&a, "b"), 0);
	assert_int_equal(say(&a, 1, 0), 0);
	assert_int_equal(say(&a, 2, 0), 0);
	cfs_sim_run(sim, 5 * SEC);
	assert_int_equal(b.received, 1);
	assert_int_equal(a.received, 0);
	assert_int_equal(a.closed, 1);
	cfs_sim_destroy(sim);
}

/* ---- disks ----------------------------------------------------------------------------------------------------- */

#define DISK_BYTES (1u << 20)

struct io {
	struct cfs_dev_req r;
	struct iovec iov;
	uint8_t buf[4096] __attribute__((aligned(4096)));
	unsigned done;
};

static void io_done(struct cfs_dev_req *r)
{
	cfs_container_of(r, struct io, r)->done++;
}

static int start(struct cfs_dev *dev, struct io *io, enum cfs_dev_op op, uint32_t flags, uint64_t off, int fill)
{
	if (fill >= 0)
		memset(io->buf, fill, sizeof(io->buf));
	io->iov = (struct iovec){ io->buf, sizeof(io->buf) };
	io->r = (struct cfs_dev_req){ .op = op, .flags = flags, .offset = off, .iov = &io->iov, .iovcnt = 1,
				      .len = sizeof(io->buf), .done = io_done };
	io->done = 0;
	return cfs_dev_submit(dev, &io->r);
}

static struct cfs_dev *open_disk(struct cfs_sim_disk *disk)
{
	struct cfs_dev *dev;

	assert_int_equal(cfs_sim_disk_open(disk, &dev), 0);
	return dev;
}

/* what a 4 KiB block holds: one value throughout, or (-1) a mixture of two by sectors */
static int content(const uint8_t *p, int old, int new)
{
	bool has_old = false, has_new = false;

	for (unsigned s = 0; s < 8; s++) {
		assert_true(p[s * 512] == old || p[s * 512] == new);
		for (unsigned i = 1; i < 512; i++)
			assert_int_equal(p[s * 512 + i], p[s * 512]);
		has_old |= p[s * 512] == old;
		has_new |= p[s * 512] == new;
	}
	return has_old && has_new ? -1 : has_new ? new : old;
}

/* over many seeds: block 0 durable, 1 flushed, 2 completed but not flushed, 3 never completed */
static void test_power_cut(void **state)
{
	unsigned lost[4] = { 0 }, kept[4] = { 0 }, torn[4] = { 0 };
	static struct io io[5];

	(void)state;
	for (uint64_t seed = 1; seed <= 200; seed++) {
		struct cfs_sim *sim = new_sim(seed);
		struct peer n = { 0 };
		struct cfs_sim_disk *disk;
		struct cfs_dev *dev;

		join(sim, &n, "n");
		assert_int_equal(cfs_sim_disk_create(n.node, DISK_BYTES, 4096, &disk), 0);
		dev = open_disk(disk);
		assert_int_equal(cfs_sim_disk_open(disk, &dev), -EBUSY);
		/* an older volatile write lies below the durable one: it must never come back */
		assert_int_equal(start(dev, &io[0], CFS_DEV_WRITE, 0, 0, 9), 0);
		assert_int_equal(start(dev, &io[1], CFS_DEV_WRITE, 0, 4096, 1), 0);
		cfs_sim_run(sim, SEC);
		assert_int_equal(io[0].done + io[1].done, 2);
		assert_int_equal(start(dev, &io[0], CFS_DEV_WRITE, CFS_DEV_DURABLE, 0, 1), 0);
		cfs_sim_run(sim, 2 * SEC);
		io[4].r = (struct cfs_dev_req){ .op = CFS_DEV_FLUSH, .done = io_done };
		if (seed % 2) {	/* a flush, then block 1 once more: the first of the two is what stays */
			assert_int_equal(cfs_dev_submit(dev, &io[4].r), 0);
			cfs_sim_run(sim, 3 * SEC);
		} else {
			assert_int_equal(start(dev, &io[1], CFS_DEV_WRITE, CFS_DEV_DURABLE, 4096, 1), 0);
			cfs_sim_run(sim, 3 * SEC);
		}
		assert_int_equal(start(dev, &io[2], CFS_DEV_WRITE, 0, 8192, 1), 0);
		cfs_sim_run(sim, 4 * SEC);
		assert_int_equal(io[2].done, 1);
		assert_int_equal(start(dev, &io[3], CFS_DEV_WRITE, seed % 2 ? CFS_DEV_DURABLE : 0, 12288, 1), 0);
		cfs_sim_node_crash(n.node, CFS_SIM_POWER);
		assert_int_equal(start(dev, &io[4], CFS_DEV_READ, 0, 0, 0), -ENODEV);
		cfs_dev_close(dev);
		cfs_sim_node_restart(n.node);
		assert_int_equal(io[3].done, 0);
		for (unsigned b = 0; b < 4; b++) {
			int c;

			dev = open_disk(disk);
			assert_int_equal(start(dev, &io[4], CFS_DEV_READ, 0, b * 4096, 7), 0);
			cfs_sim_run(sim, cfs_sim_now(sim) + SEC);
			assert_int_equal(io[4].done, 1);
			assert_int_equal(io[4].r.result, 4096);
			assert_memory_equal(io[4].buf, cfs_sim_disk_bytes(disk) + b * 4096, 4096);
			cfs_dev_close(dev);
			c = content(io[4].buf, 0, 1);
			lost[b] += c == 0;
			kept[b] += c == 1;
			torn[b] += c == -1;
		}
		cfs_sim_destroy(sim);
	}
	assert_int_equal(kept[0], 200);
	assert_int_equal(kept[1], 200);
	for (unsigned b = 2; b < 4; b++)
		assert_true(lost[b] > 20 && kept[b] > 20 && torn[b] > 20);
}

/* a killed process loses nothing that had completed; order of completion is not order of submission */
static void test_kill_and_order(void **state)
{
	static struct io io[64];
	struct cfs_sim *sim = new_sim(21);
	struct peer n = { 0 };
	struct cfs_sim_disk *disk;
	struct cfs_dev *dev;
	unsigned inversions = 0, done_n = 0;

	(void)state;
	join(sim, &n, "n");
	assert_int_equal(cfs_sim_disk_create(n.node, DISK_BYTES, 512, &disk), 0);
	dev = open_disk(disk);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(start(dev, &io[i], CFS_DEV_WRITE, 0, i * 4096, (int)i + 1), 0);
	while (done_n < 40) {
		assert_true(cfs_sim_step(sim));
		done_n = 0;
		for (unsigned i = 0; i < 64; i++)
			done_n += io[i].done;
	}
	for (unsigned i = 1; i < 64; i++)
		inversions += io[i].done && !io[i - 1].done;
	assert_true(inversions > 3);
	cfs_sim_node_crash(n.node, CFS_SIM_KILL);
	for (unsigned i = 0; i < 64; i++) {
		if (io[i].done)
			assert_int_equal(content(cfs_sim_disk_bytes(disk) + i * 4096, 0, (int)i + 1), i + 1);
		else
			content(cfs_sim_disk_bytes(disk) + i * 4096, 0, (int)i + 1);
	}
	cfs_sim_node_unwind(n.node);
	for (unsigned i = 0; i < 64; i++) {
		assert_int_equal(io[i].done, 1);
		assert_true(io[i].r.result == 4096 || io[i].r.result == -ENODEV);
	}
	cfs_dev_close(dev);
	cfs_sim_destroy(sim);
}

static void test_faults(void **state)
{
	struct cfs_sim *sim = new_sim(23);
	struct cfs_sim_faults faults = { .full = true };
	static struct io io;
	struct peer n = { 0 };
	struct cfs_sim_disk *disk;
	struct cfs_dev *dev;
	uint64_t t;
	unsigned errors = 0, bits = 0;

	(void)state;
	join(sim, &n, "n");
	assert_int_equal(cfs_sim_disk_create(n.node, DISK_BYTES, 512, &disk), 0);
	dev = open_disk(disk);
	cfs_sim_disk_faults(disk, &faults);
	assert_int_equal(start(dev, &io, CFS_DEV_WRITE, 0, 0, 1), 0);
	cfs_sim_run(sim, SEC);
	assert_int_equal(io.r.result, -ENOSPC);
	assert_int_equal(dev->ops->write_sync(dev, 0, io.buf, 512), -ENOSPC);
	faults = (struct cfs_sim_faults){ .read_error_ppm = 500000, .slow = 1000 };
	cfs_sim_disk_faults(disk, &faults);
	t = cfs_sim_now(sim);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(start(dev, &io, CFS_DEV_READ, 0, 0, 1), 0);
		while (!io.done)
			assert_true(cfs_sim_step(sim));
		errors += io.r.result == -EIO;
	}
	assert_true(errors > 20 && errors < 80);
	assert_true(cfs_sim_now(sim) - t > SEC);
	faults = (struct cfs_sim_faults){ 0 };
	cfs_sim_disk_faults(disk, &faults);
	memset(io.buf, 0, 4096);
	assert_int_equal(dev->ops->write_sync(dev, 8192, io.buf, 4096), 0);
	cfs_sim_disk_rot(disk, 8192, 4096, 1);
	assert_int_equal(dev->ops->read_sync(dev, 8192, io.buf, 4096), 0);
	for (unsigned i = 0; i < 4096; i++)
		bits += (unsigned)__builtin_popcount(io.buf[i]);
	assert_int_equal(bits, 1);
	/* power goes off in the middle of a synchronous write */
	memset(io.buf, 5, 4096);
	cfs_sim_disk_tear_sync(disk, 2);
	assert_int_equal(dev->ops->write_sync(dev, 0, io.buf, 4096), 0);
	memset(io.buf, 6, 4096);
	assert_int_equal(dev->ops->write_sync(dev, 0, io.buf, 4096), -EIO);
	assert_false(cfs_sim_node_alive(n.node));
	content(cfs_sim_disk_bytes(disk), 5, 6);
	assert_int_equal(dev->ops->read_sync(dev, 0, io.buf, 4096), -ENODEV);
	cfs_dev_close(dev);
	cfs_sim_destroy(sim);
}

static void write_done(struct cfs_sim *sim, struct cfs_dev *dev, struct io *io, uint32_t flags, uint64_t off, int fill)
{
	assert_int_equal(start(dev, io, CFS_DEV_WRITE, flags, off, fill), 0);
	while (!io->done)
		assert_true(cfs_sim_step(sim));
	assert_int_equal(io->r.result, 4096);
}

static uint64_t zone_wp(struct cfs_dev *dev, uint64_t zone)
{
	struct cfs_zone z;

	assert_int_equal(dev->ops->zone_report(dev, zone * 65536, &z, 1), 1);
	return z.wp - z.start;
}

/*
 * zones: a power cut leaves a beginning, with all that was durable; it may fall anywhere behind that, but not into what is written as one;
 * a reset under way has happened or not; of a kill nothing completed is lost
 */
static void test_zones(void **state)
{
	const struct cfs_zone_geometry g = { .zone_bytes = 65536, .zone_capacity = 49152, .n_zones = 4, .max_active = 2 };
	unsigned seen[9] = { 0 }, reset = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 200; seed++) {
		struct cfs_sim *sim = new_sim(seed);
		bool kill = seed % 4 == 0, atomic = seed % 4 == 1;
		static struct io io;
		struct peer n = { 0 };
		struct cfs_sim_disk *disk;
		struct cfs_dev *dev;
		uint64_t wp;

		join(sim, &n, "n");
		assert_int_equal(cfs_sim_disk_create_zoned(n.node, &g, 512, &disk), 0);
		if (atomic)
			cfs_sim_disk_atomic(disk, 4096);
		dev = open_disk(disk);
		write_done(sim, dev, &io, 0, 0, 1);		/* durable by what follows it */
		write_done(sim, dev, &io, CFS_DEV_DURABLE, 4096, 2);
		write_done(sim, dev, &io, 0, 8192, 3);
		write_done(sim, dev, &io, CFS_DEV_DURABLE, 65536, 4);
		assert_int_equal(start(dev, &io, CFS_DEV_WRITE, 0, 12288 + 4096, 5), 0);	/* not at the write pointer */
		while (!io.done)
			assert_true(cfs_sim_step(sim));
		assert_int_equal(io.r.result, -EINVAL);
		io.r = (struct cfs_dev_req){ .op = CFS_DEV_ZONE_RESET, .offset = 65536, .done = io_done };
		assert_int_equal(cfs_dev_submit(dev, &io.r), 0);
		cfs_sim_node_crash(n.node, kill ? CFS_SIM_KILL : CFS_SIM_POWER);
		cfs_sim_node_unwind(n.node);
		cfs_dev_close(dev);
		cfs_sim_node_restart(n.node);
		dev = open_disk(disk);
		wp = zone_wp(dev, 0);
		assert_true(wp >= 8192 && wp <= 12288 && wp % 512 == 0);
		assert_true(!atomic || wp % 4096 == 0);
		assert_true(!kill || wp == 12288);
		seen[(wp - 8192) / 512]++;
		assert_true(zone_wp(dev, 1) == 0 || zone_wp(dev, 1) == 4096);
		reset += zone_wp(dev, 1) == 0;
		for (uint64_t at = 0; at < 12288; at += 4096) {
			assert_int_equal(dev->ops->read_sync(dev, at, io.buf, 4096), 0);
			for (unsigned i = 0; i < 4096 && at + i < wp; i++)
				assert_int_equal(io.buf[i], 1 + at / 4096);
		}
		/* the zone goes on where it ends; a finish in which the power goes off has happened or not */
		memset(io.buf, 9, 4096);
		assert_int_equal(dev->ops->write_sync(dev, wp, io.buf, 4096), 0);
		cfs_sim_disk_tear_sync(disk, 1);
		assert_int_equal(dev->ops->zone_sync(dev, CFS_DEV_ZONE_FINISH, 0), -EIO);
		assert_false(cfs_sim_node_alive(n.node));
		cfs_dev_close(dev);
		cfs_sim_destroy(sim);
	}
	for (unsigned i = 0; i < 9; i++)
		assert_true(seen[i] > 0);
	assert_true(reset > 50 && reset < 190);
}

/* ---- one seed, one story ---------------------------------------------------------------------------------------- */

struct story {
	struct cfs_sim *sim;
	struct peer p[4];
	struct cfs_sim_disk *disk[4];
	struct cfs_dev *dev[4];
	struct io *io;
	unsigned n_io;
};

static void act(void *arg)
{
	struct story *s = arg;
	struct cfs_sim *sim = s->sim;
	unsigned i = (unsigned)cfs_sim_below(sim, 4), k = (unsigned)cfs_sim_below(sim, 4);
	struct peer *p = &s->p[i];

	switch (cfs_sim_below(sim, 10)) {
	case 0:
		cfs_sim_node_crash(p->node, cfs_sim_chance(sim, 500000) ? CFS_SIM_KILL : CFS_SIM_POWER);
		break;
	case 1:
		if (i != k)
			cfs_sim_net_partition(p->node, s->p[k].node, cfs_sim_chance(sim, 500000));
		break;
	case 2:
		cfs_sim_net_cut(p->node, s->p[k].node);
		break;
	case 3:
		if (!cfs_sim_node_alive(p->node)) {
			cfs_sim_node_unwind(p->node);
			cfs_dev_close(s->dev[i]);
			p->conn = NULL;
			cfs_sim_node_restart(p->node);
			listen_on(p);
			s->dev[i] = open_disk(s->disk[i]);
		}
		break;
	case 4:
		if (cfs_sim_node_alive(p->node))
			assert_int_equal(connect_to(p, cfs_sim_node_name(s->p[k].node)), 0);
		break;
	case 5:
	case 6:
		if (s->n_io < 200)
			start(s->dev[i], &s->io[s->n_io++], cfs_sim_chance(sim, 500000) ? CFS_DEV_WRITE : CFS_DEV_READ, 0,
			      cfs_sim_below(sim, 16) * 4096, (int)cfs_sim_below(sim, 200));
		break;
	default:
		if (p->conn)
			for (int n = 0; n < 5; n++)
				say(p, cfs_sim_below(sim, 1000), cfs_sim_chance(sim, 100000) ? 5000 : 0);
	}
	cfs_sim_at(sim, cfs_sim_now(sim) + cfs_sim_below(sim, 300 * MSEC), act, s);
}

static uint64_t tell(uint64_t seed)
{
	struct story s = { .sim = new_sim(seed), .io = NULL };
	uint64_t trace;

	assert_int_equal(posix_memalign((void **)&s.io, 4096, 200 * sizeof(*s.io)), 0);
	for (unsigned i = 0; i < 4; i++) {
		char name[8];

		snprintf(name, sizeof(name), "n%u", i);
		join(s.sim, &s.p[i], name);
		s.p[i].unordered = true;
		listen_on(&s.p[i]);
		assert_int_equal(cfs_sim_disk_create(s.p[i].node, DISK_BYTES, 4096, &s.disk[i]), 0);
		s.dev[i] = open_disk(s.disk[i]);
	}
	act(&s);
	cfs_sim_run(s.sim, 200 * SEC);
	for (unsigned i = 0; i < 4; i++) {
		cfs_sim_trace_add(s.sim, s.p[i].received);
		cfs_sim_trace_add(s.sim, s.p[i].closed);
		cfs_sim_trace_add(s.sim, cfs_sim_disk_bytes(s.disk[i])[4096]);
	}
	trace = cfs_sim_trace(s.sim);
	cfs_sim_destroy(s.sim);
	free(s.io);
	return trace;
}

static void test_same_seed_same_trace(void **state)
{
	uint64_t last = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		uint64_t trace = tell(seed);

		assert_int_equal(trace, tell(seed));
		assert_int_not_equal(trace, last);
		last = trace;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clocks),
		cmocka_unit_test(test_offload),
		cmocka_unit_test(test_messages),
		cmocka_unit_test(test_connecting),
		cmocka_unit_test(test_weather),
		cmocka_unit_test(test_crash),
		cmocka_unit_test(test_crash_inside),
		cmocka_unit_test(test_power_cut),
		cmocka_unit_test(test_kill_and_order),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_zones),
		cmocka_unit_test(test_same_seed_same_trace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
