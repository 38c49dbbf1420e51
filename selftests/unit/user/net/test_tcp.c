/* SPDX-License-Identifier: MIT */
/*
 * Proves of TCP over the ring, in each way the kernel may allow (multishot, single receives, own buffers, zero-copy),
 * and of loopback where it applies: messages of all sizes arrive whole, in order, in both directions at once;
 * payload_done comes exactly once, also when the peer goes away; garbage, refused connections and full
 * queues give their errors; close sends what is queued first; a lack of payload buffers delays and loses nothing.
 */
#include <errno.h>
#include <endian.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/base.h"
#include "base/log.h"
#include "net/tcp_i.h"
#include "rpc/codec.h"

enum mode { MULTI, SINGLE, OWN, ZC, LOOPBACK };

struct fixture {
	struct cfs_loop *loop;
	struct cfs_net *net;
	enum mode mode;
	char addr[32];
};

/* one end: sends `to_send` messages, checks what comes, counts */
struct end {
	struct fixture *f;
	struct cfs_conn *conn;
	unsigned sent, received, to_send, payloads_out, payloads_done;
	bool echo, hold, closed, unchecked;
	int close_err;
	struct cfs_msg *held[64];
	unsigned n_held;
};

static uint8_t *bulk;	/* what all payloads are cut from */
#define BULK_BYTES (CFS_PAYLOAD_MAX + 4096)

static const struct {
	uint32_t body, payload;
} shapes[] = {
	{ 0, 0 }, { 40, 0 }, { 120, 0 }, { 7, 0 }, { 24, 4096 }, { 280, 1 << 20 }, { 3000, 0 },
	{ 8, 16384 }, { 1, 1 }, { 100000, 0 }, { 280, 4 << 20 }, { 24, 65537 }, { 64, 0 }, { 64, 0 },
	{ 64, 0 }, { 64, 0 }, { 64, 0 }, { 64, 0 }, { 64, 0 }, { 64, 0 }, { 64, 0 }, { 64, 0 },
	{ 64, 0 }, { 64, 0 }, { 64, 0 }, { 64, 0 }, { 64, 0 }, { 64, 0 }, { 64, 0 }, { 64, 0 },
	{ 64, 16383 }, { 64, 32769 }, { CFS_BODY_MAX, CFS_PAYLOAD_MAX },
};
#define N_SHAPES CFS_ARRAY_SIZE(shapes)

static void count_payload(void *arg)
{
	((struct end *)arg)->payloads_done++;
}

static int send_n(struct end *e, unsigned n)
{
	uint32_t body_len = shapes[n % N_SHAPES].body, payload_len = shapes[n % N_SHAPES].payload;
	struct cfs_send s = {
		.body = bulk + 1 + n % 63,
		.body_len = body_len,
		.payload = payload_len ? bulk + n % 4000 : NULL,
		.payload_len = payload_len,
		.payload_done = count_payload,
		.payload_arg = e,
	};
	int rc;

	cfs_hdr_init(&s.hdr, CFS_OP_LOOKUP);
	s.hdr.tag = cfs_cpu_to_le64(n);
	rc = cfs_conn_send(e->conn, &s);
	if (!rc && payload_len)
		e->payloads_out++;
	return rc;
}

static void check_n(const struct cfs_msg *m, unsigned n)
{
	uint32_t body_len = shapes[n % N_SHAPES].body, payload_len = shapes[n % N_SHAPES].payload;

	assert_int_equal(cfs_le64_to_cpu(m->hdr.tag), n);
	assert_int_equal(cfs_le32_to_cpu(m->hdr.body_len), body_len);
	assert_int_equal(cfs_le32_to_cpu(m->hdr.payload_len), payload_len);
	assert_int_equal((uintptr_t)m->body & 7, 0);
	if (body_len)
		assert_memory_equal(m->body, bulk + 1 + n % 63, body_len);
	if (!payload_len) {
		assert_null(m->payload);
		return;
	}
	assert_int_equal((uintptr_t)m->payload & 4095, 0);
	assert_memory_equal(m->payload, bulk + n % 4000, payload_len);
	for (uint32_t i = payload_len; i < cfs_align_up(payload_len, 4096); i++)
		assert_int_equal(((uint8_t *)m->payload)[i], 0);
}

static void on_msg(struct cfs_conn *conn, struct cfs_msg *msg)
{
	struct end *e = conn->user;

	assert_false(e->closed);
	if (!e->unchecked)
		check_n(msg, e->received);
	if (e->echo)
		assert_int_equal(send_n(e, e->received), 0);
	if (e->hold) {
		assert_true(e->n_held < 64);
		e->held[e->n_held++] = cfs_msg_take(msg);
	}
	e->received++;
}

static void on_close(struct cfs_conn *conn, int err)
{
	struct end *e = conn->user;

	assert_false(e->closed);
	e->closed = true;
	e->close_err = err;
	e->conn = NULL;
}

static void on_open(struct cfs_conn *conn)
{
	struct end *e = conn->user;

	assert_null(e->conn);
	assert_true(conn->peer[0]);
	e->conn = conn;
}

static const struct cfs_conn_handler handler = { on_open, on_msg, on_close };

#define TURN_UNTIL(f, cond) do { \
	uint64_t end_ns = cfs_clock_boot_ns(cfs_loop_clock((f)->loop)) + 20 * CFS_NSEC_PER_SEC; \
	while (!(cond)) { \
		assert_int_equal(cfs_loop_turn((f)->loop, 100 * CFS_NSEC_PER_MSEC), 0); \
		assert_true(cfs_clock_boot_ns(cfs_loop_clock((f)->loop)) < end_ns); \
	} \
} while (0)

static int setup(void **state, enum mode mode, uint64_t pool_bytes)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->mode = mode;
	assert_int_equal(cfs_loop_create(64, &f->loop), 0);
	if (mode == LOOPBACK)
		assert_int_equal(cfs_net_loopback_create(f->loop, &f->net), 0);
	else
		assert_int_equal(tcp_net_create(f->loop, pool_bytes, mode != OWN, &f->net), 0);
	if (mode == SINGLE)
		cfs_container_of(f->net, struct tcp_net, net)->multi_recv = false;
	if (mode == ZC)
		cfs_container_of(f->net, struct tcp_net, net)->zc_local = true;
	strcpy(f->addr, "127.0.0.1:0");
	*state = f;
	return 0;
}

static int setup_multi(void **state) { return setup(state, MULTI, 64 << 20); }
static int setup_single(void **state) { return setup(state, SINGLE, 64 << 20); }
static int setup_own(void **state) { return setup(state, OWN, 64 << 20); }
static int setup_zc(void **state) { return setup(state, ZC, 64 << 20); }
static int setup_loopback(void **state) { return setup(state, LOOPBACK, 0); }
static int setup_multi_small(void **state) { return setup(state, MULTI, 8 << 20); }
static int setup_single_small(void **state) { return setup(state, SINGLE, 8 << 20); }
static int setup_own_small(void **state) { return setup(state, OWN, 8 << 20); }

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->net)
		f->net->ops->close(f->net);
	cfs_loop_destroy(f->loop);
	free(f);
	return 0;
}

static void listen_and_connect(struct fixture *f, struct end *server, struct end *client)
{
	server->f = client->f = f;
	assert_int_equal(f->net->ops->listen(f->net, f->addr, &handler, server), 0);
	if (f->mode != LOOPBACK)
		snprintf(f->addr, sizeof(f->addr), "127.0.0.1:%u", cfs_net_tcp_port(f->net));
	assert_int_equal(f->net->ops->connect(f->net, f->addr, &handler, client, &client->conn), 0);
}

/* everything both ways at once, with as much in flight as the queue takes */
static void test_echo(void **state)
{
	struct fixture *f = *state;
	struct end server = { .echo = true }, client = { 0 };
	const unsigned total = 4 * N_SHAPES;
	unsigned turns = 0;

	listen_and_connect(f, &server, &client);
	while (client.received < total) {
		/* payloads in flight stay below the pool: the loopback net does not wait for buffers */
		while (client.sent < total && client.sent - client.received < 16)
			assert_int_equal(send_n(&client, client.sent++), 0);
		assert_int_equal(cfs_loop_turn(f->loop, CFS_NSEC_PER_SEC), 0);
		assert_true(turns++ < 100000);
	}
	assert_int_equal(server.received, total);
	TURN_UNTIL(f, client.payloads_done == client.payloads_out && server.payloads_done == server.payloads_out);
	assert_true(client.payloads_out > 0);
	/* the client closes: the server's end is told, without an error */
	cfs_conn_close(client.conn);
	cfs_conn_close(client.conn);
	assert_false(client.closed);	/* never inside the call */
	TURN_UNTIL(f, client.closed && server.closed);
	assert_int_equal(client.close_err, 0);
	assert_int_equal(server.close_err, 0);
}

/* small messages one at a time, and in bursts */
static void test_small(void **state)
{
	struct fixture *f = *state;
	struct end server = { .echo = true }, client = { 0 };

	listen_and_connect(f, &server, &client);
	for (unsigned i = 0; i < 4; i++) {
		client.sent++;
		assert_int_equal(send_n(&client, i), 0);
		TURN_UNTIL(f, client.received == client.sent);
	}
	cfs_conn_close(server.conn);
	TURN_UNTIL(f, client.closed && server.closed);
}

static void test_close_sends_the_queue(void **state)
{
	struct fixture *f = *state;
	struct end server = { 0 }, client = { 0 };

	listen_and_connect(f, &server, &client);
	TURN_UNTIL(f, server.conn);
	for (unsigned i = 0; i < 11; i++)	/* the last one is 4 MiB: more than a socket buffer takes */
		assert_int_equal(send_n(&client, i), 0);
	cfs_conn_close(client.conn);
	assert_int_equal(send_n(&client, 11), -EPIPE);
	TURN_UNTIL(f, client.closed && server.closed);
	assert_int_equal(server.received, 11);
	assert_int_equal(client.payloads_done, client.payloads_out);
}

static void test_bounded_queue(void **state)
{
	struct fixture *f = *state;
	struct end server = { .unchecked = true }, client = { 0 };
	unsigned n = 0;
	struct cfs_send s = { 0 };

	listen_and_connect(f, &server, &client);
	cfs_hdr_init(&s.hdr, CFS_OP_LOOKUP);
	while (cfs_conn_send(client.conn, &s) == 0)
		n++;
	assert_int_equal(n, CFS_NET_QUEUE_MSGS);
	assert_int_equal(cfs_conn_send(client.conn, &s), -ENOBUFS);
	/* dropped with what is queued, before it was ever connected */
	cfs_conn_close(client.conn);
	TURN_UNTIL(f, client.closed);
}

static void test_refused(void **state)
{
	struct fixture *f = *state;
	struct end end = { .f = f }, named = { .f = f };
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in in = { .sin_family = AF_INET };
	socklen_t len = sizeof(in);
	char addr[64];

	/* a port that is taken but does not listen */
	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	snprintf(addr, sizeof(addr), "127.0.0.1:%u", be16toh(in.sin_port));
	assert_int_equal(f->net->ops->connect(f->net, addr, &handler, &end, &end.conn), 0);
	assert_int_equal(send_n(&end, 5), 0);	/* queued; lost */
	TURN_UNTIL(f, end.closed);
	assert_int_equal(end.close_err, -ECONNREFUSED);
	assert_int_equal(end.payloads_done, 1);
	close(fd);
	if (f->mode == LOOPBACK)
		return;
	assert_int_equal(f->net->ops->connect(f->net, "localhost", &handler, &end, &end.conn), -EINVAL);
	assert_int_equal(f->net->ops->connect(f->net, "::1:80", &handler, &end, &end.conn), -EINVAL);
	assert_int_equal(f->net->ops->connect(f->net, "1.2.3.4:99999", &handler, &end, &end.conn), -EINVAL);
	/* a name is resolved elsewhere; this one cannot exist (RFC 6761) */
	assert_int_equal(f->net->ops->connect(f->net, "nobody.invalid:80", &handler, &named, &named.conn), 0);
	TURN_UNTIL(f, named.closed);
	assert_int_equal(named.close_err, -EHOSTUNREACH);
}

static void test_by_name(void **state)
{
	struct fixture *f = *state;
	struct end server = { .echo = true, .f = f }, client = { .f = f };

	assert_int_equal(f->net->ops->listen(f->net, "127.0.0.1:0", &handler, &server), 0);
	snprintf(f->addr, sizeof(f->addr), "localhost:%u", cfs_net_tcp_port(f->net));
	assert_int_equal(f->net->ops->connect(f->net, f->addr, &handler, &client, &client.conn), 0);
	assert_int_equal(send_n(&client, 0), 0);
	TURN_UNTIL(f, client.received == 1);
}

static int raw_connect(struct fixture *f)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htobe16(cfs_net_tcp_port(f->net)),
				  .sin_addr.s_addr = htobe32(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	return fd;
}

/* who speaks something else is thrown out; who leaves in the middle of a message is noticed */
static void test_garbage(void **state)
{
	struct fixture *f = *state;
	static const char http[] = "GET / HTTP/1.1\r\nHost: claudefs\r\nUser-Agent: somebody else entirely\r\n\r\n";
	struct end a = { .f = f }, b = { .f = f };
	struct cfs_msg_hdr hdr;
	char byte;
	int fd;

	assert_int_equal(f->net->ops->listen(f->net, f->addr, &handler, &a), 0);
	fd = raw_connect(f);
	assert_int_equal(write(fd, http, sizeof(http)), sizeof(http));
	TURN_UNTIL(f, a.closed);
	assert_int_equal(a.close_err, -EPROTO);
	assert_true(read(fd, &byte, 1) <= 0);
	close(fd);
	assert_int_equal(f->net->ops->listen(f->net, f->addr, &handler, &b), 0);
	fd = raw_connect(f);
	cfs_hdr_init(&hdr, CFS_OP_LOOKUP);
	cfs_hdr_seal(&hdr, bulk, 100, 50000);
	assert_int_equal(write(fd, &hdr, sizeof(hdr)), sizeof(hdr));
	assert_int_equal(write(fd, bulk, 1100), 1100);
	TURN_UNTIL(f, b.conn);
	for (int i = 0; i < 5; i++)
		assert_int_equal(cfs_loop_turn(f->loop, CFS_NSEC_PER_MSEC), 0);
	assert_false(b.closed);
	close(fd);
	TURN_UNTIL(f, b.closed);
	assert_int_equal(b.close_err, -ECONNRESET);
	assert_int_equal(b.received, 0);
}

/*
 * Small messages into a socket that fills up: sends that fail half way go on where they stopped. The peer reads in
 * odd pieces and finds every message, in order.
 */
static void test_full_socket(void **state)
{
	struct fixture *f = *state;
	struct end a = { .f = f };
	const unsigned total = 60000;
	static uint8_t buf[7777];
	struct cfs_send s = { .body = bulk, .body_len = 93 };
	struct cfs_frame frame;
	unsigned sent = 0, got = 0, idle = 0;
	size_t used;
	int fd;

	assert_int_equal(f->net->ops->listen(f->net, f->addr, &handler, &a), 0);
	fd = raw_connect(f);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	TURN_UNTIL(f, a.conn);
	cfs_frame_init(&frame, NULL);
	while (got < total) {
		ssize_t n;

		for (unsigned burst = 0; sent < total && burst < 1 + sent % 97; burst++) {
			cfs_hdr_init(&s.hdr, CFS_OP_LOOKUP);
			s.hdr.tag = cfs_cpu_to_le64(sent);
			if (cfs_conn_send(a.conn, &s))
				break;
			sent++;
		}
		assert_int_equal(cfs_loop_turn(f->loop, 0), 0);
		/* reads nothing at first, until everything is stuck */
		if (idle < 2000 && sent < total) {
			idle++;
			continue;
		}
		n = read(fd, buf, 1 + got % sizeof(buf));
		assert_true(n > 0 || errno == EAGAIN);
		for (size_t at = 0; n > 0 && at < (size_t)n;) {
			int rc = cfs_frame_feed(&frame, buf + at, (size_t)n - at, &used);

			at += used;
			assert_true(rc == 0 || rc == 1);
			if (rc == 0)
				break;
			assert_int_equal(cfs_le64_to_cpu(frame.msg.hdr.tag), got);
			assert_memory_equal(frame.msg.body, bulk, 93);
			got++;
			cfs_frame_next(&frame);
		}
	}
	cfs_frame_fini(&frame);
	close(fd);
	TURN_UNTIL(f, a.closed);
}

/* the peer takes nothing and then dies: payloads come back, once */
static void test_peer_dies(void **state)
{
	struct fixture *f = *state;
	struct end a = { .f = f };
	int fd;

	assert_int_equal(f->net->ops->listen(f->net, f->addr, &handler, &a), 0);
	fd = raw_connect(f);
	TURN_UNTIL(f, a.conn);
	for (unsigned i = 0; i < 30; i++)
		assert_int_equal(send_n(&a, 10), 0);	/* 4 MiB each */
	for (int i = 0; i < 20; i++)
		assert_int_equal(cfs_loop_turn(f->loop, CFS_NSEC_PER_MSEC), 0);
	assert_true(a.payloads_done < 30);
	close(fd);
	TURN_UNTIL(f, a.closed);
	assert_true(a.close_err < 0);
	assert_int_equal(a.payloads_done, 30);
}

/* 8 MiB of payload buffers, 32 MiB of messages that are held until later, from two connections */
static void test_starvation(void **state)
{
	struct fixture *f = *state;
	struct end server[2] = { { .hold = true }, { .hold = true } }, client[2] = { { 0 }, { 0 } };
	const unsigned each = 11;	/* shapes 0..10: 1 MiB, 4 MiB and small ones */
	unsigned rounds = 0;

	for (int i = 0; i < 2; i++) {
		strcpy(f->addr, "127.0.0.1:0");
		listen_and_connect(f, &server[i], &client[i]);
		for (unsigned n = 0; n < 2 * each; n++) {
			unsigned shape = n % each;

			/* numbers on the wire count on; the receiver checks them by its own count */
			(void)shape;
			assert_int_equal(send_n(&client[i], n), 0);
		}
	}
	while (server[0].received < 2 * each || server[1].received < 2 * each) {
		for (int i = 0; i < 50; i++)
			assert_int_equal(cfs_loop_turn(f->loop, CFS_NSEC_PER_MSEC / 5), 0);
		for (int i = 0; i < 2; i++) {	/* somebody has worked off what was held */
			while (server[i].n_held)
				cfs_msg_free(server[i].held[--server[i].n_held]);
		}
		assert_true(rounds++ < 1000);
	}
	assert_true(rounds > 1);	/* it did run out */
	TURN_UNTIL(f, client[0].payloads_done == client[0].payloads_out);
	for (int i = 0; i < 2; i++)
		while (server[i].n_held)
			cfs_msg_free(server[i].held[--server[i].n_held]);
}

/* a net that is closed ends everything, and messages taken from it stay */
static void test_net_close(void **state)
{
	struct fixture *f = *state;
	struct end server = { .hold = true }, client = { 0 };

	listen_and_connect(f, &server, &client);
	for (unsigned i = 0; i < 11; i++)
		assert_int_equal(send_n(&client, i), 0);
	TURN_UNTIL(f, server.received == 11);
	f->net->ops->close(f->net);
	f->net = NULL;
	assert_true(client.closed && server.closed);
	assert_int_equal(server.n_held, 11);
	for (unsigned i = 0; i < 11; i++) {
		check_n(server.held[i], i);
		cfs_msg_free(server.held[i]);
	}
}

static int group_setup(void **state)
{
	(void)state;
	cfs_log_set_level(CFS_LOG_ERR);
	bulk = malloc(BULK_BYTES);
	for (unsigned i = 0; i < BULK_BYTES; i++)
		bulk[i] = (uint8_t)(i * 7 + i / 251);
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	free(bulk);
	return 0;
}

int main(void)
{
#define T(t, how) cmocka_unit_test_setup_teardown(t, setup_##how, teardown)
#define ON_TCP(t) T(t, multi), T(t, single), T(t, own), T(t, zc)
#define ON_ALL(t) ON_TCP(t), T(t, loopback)
	const struct CMUnitTest tests[] = {
		ON_ALL(test_echo),
		ON_ALL(test_small),
		ON_ALL(test_close_sends_the_queue),
		ON_ALL(test_bounded_queue),
		T(test_refused, multi),
		T(test_by_name, multi),
		ON_TCP(test_garbage),
		T(test_full_socket, multi),
		T(test_peer_dies, multi),
		T(test_peer_dies, zc),
		T(test_starvation, multi_small),
		T(test_starvation, single_small),
		T(test_starvation, own_small),
		ON_ALL(test_net_close),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
