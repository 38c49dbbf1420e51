/* SPDX-License-Identifier: MIT */
/*
 * Proves of the blocking connection, against a reactor server in another thread: calls of all sizes; several in
 * flight, answered in any order and put where their tag says; a reply nobody wants is dropped and the next one
 * is whole; interrupt and deadline between messages leave the connection usable, inside one they break it; what
 * does not fit or is damaged is EPROTO; a callback request of the server is received like a reply.
 */
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/base.h"
#include "base/log.h"
#include "net/net.h"
#include "ring/loop.h"
#include "rpc/codec.h"
#include "rpc/conn.h"

#define NO_DEADLINE CFS_RPC_NO_DEADLINE

/* opcodes here: GETATTR echoes; SEEK is answered only by the next GETATTR, after it; OPEN never; HELLO as in wire.h */
struct server {
	pthread_t thread;
	pthread_barrier_t ready;
	struct cfs_loop *loop;
	uint16_t port;
	struct cfs_msg *parked[16];
	unsigned n_parked;
};

static void done_free(void *arg)
{
	cfs_msg_free(arg);
}

static void reply(struct cfs_conn *conn, struct cfs_msg *msg)
{
	uint32_t payload_len = cfs_le32_to_cpu(msg->hdr.payload_len);
	struct cfs_send s = {
		.body = msg->body,
		.body_len = cfs_le32_to_cpu(msg->hdr.body_len),
		.payload = msg->payload,
		.payload_len = payload_len,
		.payload_done = done_free,
		.payload_arg = msg,
	};

	cfs_hdr_init_reply(&s.hdr, &msg->hdr, 0);
	assert_int_equal(cfs_conn_send(conn, &s), 0);
	if (!payload_len)
		cfs_msg_free(msg);
}

static void on_msg(struct cfs_conn *conn, struct cfs_msg *msg)
{
	struct server *sv = conn->user;
	struct cfs_hello_rep rep = { .version = cfs_cpu_to_le32(1), .credits = cfs_cpu_to_le32(64) };
	struct cfs_send s = { 0 };

	switch (cfs_le16_to_cpu(msg->hdr.opcode)) {
	case CFS_OP_HELLO:
		cfs_hdr_init_reply(&s.hdr, &msg->hdr, msg->hdr.session ? CFS_E_BADSESSION : 0);
		s.body = &rep;
		s.body_len = sizeof(rep);
		assert_int_equal(cfs_conn_send(conn, &s), 0);
		break;
	case CFS_OP_GETATTR:
		reply(conn, cfs_msg_take(msg));
		while (sv->n_parked)
			reply(conn, sv->parked[--sv->n_parked]);
		break;
	case CFS_OP_SEEK:
		sv->parked[sv->n_parked++] = cfs_msg_take(msg);
		break;
	case CFS_OP_HEARTBEAT:	/* the server asks something, on the same connection */
		cfs_hdr_init(&s.hdr, CFS_OP_CB_ASK);
		s.hdr.tag = cfs_cpu_to_le64(77);
		s.body = "12345678";
		s.body_len = 8;
		assert_int_equal(cfs_conn_send(conn, &s), 0);
		break;
	default:
		break;
	}
}

static void on_close(struct cfs_conn *conn, int err)
{
	(void)conn, (void)err;
}

static const struct cfs_conn_handler handler = { NULL, on_msg, on_close };

static void *server_thread(void *arg)
{
	struct server *sv = arg;
	struct cfs_net *net;

	assert_int_equal(cfs_loop_create(64, &sv->loop), 0);
	assert_int_equal(cfs_net_tcp_create(sv->loop, &net), 0);
	assert_int_equal(net->ops->listen(net, "127.0.0.1:0", &handler, sv), 0);
	sv->port = cfs_net_tcp_port(net);
	pthread_barrier_wait(&sv->ready);
	cfs_loop_run(sv->loop);
	while (sv->n_parked)
		cfs_msg_free(sv->parked[--sv->n_parked]);
	net->ops->close(net);
	return NULL;
}

static struct server server;
static char server_addr[32];
static uint8_t *bulk;

static int group_setup(void **state)
{
	(void)state;
	cfs_log_set_level(CFS_LOG_ERR);
	bulk = malloc(CFS_PAYLOAD_MAX + 4096);
	for (unsigned i = 0; i < CFS_PAYLOAD_MAX + 4096; i++)
		bulk[i] = (uint8_t)(i * 7 + i / 251);
	pthread_barrier_init(&server.ready, NULL, 2);
	assert_int_equal(pthread_create(&server.thread, NULL, server_thread, &server), 0);
	pthread_barrier_wait(&server.ready);
	snprintf(server_addr, sizeof(server_addr), "localhost:%u", server.port);
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	cfs_loop_stop(server.loop);
	pthread_join(server.thread, NULL);
	cfs_loop_destroy(server.loop);
	free(bulk);
	return 0;
}

static int setup(void **state)
{
	struct cfs_rpc_conn *c;

	assert_int_equal(cfs_rpc_connect(server_addr, 0, &c), 0);
	*state = c;
	return 0;
}

static int teardown(void **state)
{
	cfs_rpc_close(*state);
	return 0;
}

static int send_op(struct cfs_rpc_conn *c, uint16_t op, uint64_t tag, uint32_t body_len, uint32_t payload_len)
{
	/* in three parts, one of them empty */
	const struct iovec iov[3] = {
		{ bulk + tag, body_len / 3 }, { NULL, 0 }, { bulk + tag + body_len / 3, body_len - body_len / 3 },
	};
	struct cfs_msg_hdr hdr;

	cfs_hdr_init(&hdr, op);
	hdr.tag = cfs_cpu_to_le64(tag);
	return cfs_rpc_send(c, &hdr, iov, 3, bulk + tag, payload_len, NO_DEADLINE);
}

static uint64_t in_ms(unsigned ms)
{
	return cfs_boot_ns() + ms * CFS_NSEC_PER_MSEC;
}

static void test_sizes(void **state)
{
	static const uint32_t sizes[][2] = {
		{ 0, 0 }, { 8, 0 }, { 100, 1 }, { 0, 4096 }, { 4000, 70000 }, { CFS_BODY_MAX, 0 }, { 280, CFS_PAYLOAD_MAX },
		{ CFS_BODY_MAX, CFS_PAYLOAD_MAX },
	};
	uint8_t *body = malloc(CFS_BODY_MAX), *payload = malloc(CFS_PAYLOAD_MAX);

	for (unsigned i = 0; i < CFS_ARRAY_SIZE(sizes); i++) {
		struct cfs_rpc_reply r = { .body = body, .body_max = CFS_BODY_MAX,
					   .payload = payload, .payload_max = CFS_PAYLOAD_MAX };

		assert_int_equal(send_op(*state, CFS_OP_GETATTR, i, sizes[i][0], sizes[i][1]), 0);
		assert_int_equal(cfs_rpc_recv(*state, &r, -1, in_ms(10000)), 0);
		assert_int_equal(r.hdr.flags, CFS_MSG_REPLY);
		assert_int_equal(cfs_le64_to_cpu(r.hdr.tag), i);
		assert_int_equal(r.body_len, sizes[i][0]);
		assert_int_equal(r.payload_len, sizes[i][1]);
		if (r.body_len)
			assert_memory_equal(body, bulk + i, r.body_len);
		if (r.payload_len)
			assert_memory_equal(payload, bulk + i, r.payload_len);
	}
	assert_int_equal(send_op(*state, CFS_OP_GETATTR, 1, CFS_BODY_MAX + 1, 0), -EMSGSIZE);
	assert_int_equal(send_op(*state, CFS_OP_GETATTR, 1, 0, CFS_PAYLOAD_MAX + 1), -EMSGSIZE);
	assert_false(cfs_rpc_broken(*state));
	free(body);
	free(payload);
}

/* replies come newest first here; tag 3 is not wanted any more */
struct places {
	uint8_t body[8][64], payload[8][20000];
};

static void pick(struct cfs_rpc_reply *r)
{
	struct places *p = r->user;
	uint64_t tag = cfs_le64_to_cpu(r->hdr.tag);

	assert_true(tag < 8);
	r->drop = tag == 3;
	r->body = p->body[tag];
	r->body_max = 64;
	r->payload = p->payload[tag];
	r->payload_max = 20000;
}

static void test_many_in_flight(void **state)
{
	struct places *p = calloc(1, sizeof(*p));
	struct cfs_rpc_reply r = { .pick = pick, .user = p };
	unsigned seen = 0;

	for (unsigned tag = 0; tag < 8; tag++)
		assert_int_equal(send_op(*state, tag < 7 ? CFS_OP_SEEK : CFS_OP_GETATTR, tag, 8 * tag, 2500 * tag), 0);
	for (unsigned i = 0; i < 8; i++) {
		uint64_t tag;

		assert_int_equal(cfs_rpc_recv(*state, &r, -1, in_ms(10000)), 0);
		tag = cfs_le64_to_cpu(r.hdr.tag);
		if (i)
			assert_int_equal(tag, 7 - i);
		seen |= 1u << tag;
		assert_int_equal(r.body_len, tag == 3 ? 0 : 8 * tag);
		if (tag && tag != 3) {
			assert_memory_equal(p->body[tag], bulk + tag, 8 * tag);
			assert_memory_equal(p->payload[tag], bulk + tag, 2500 * tag);
		}
	}
	assert_int_equal(seen, 0xff);
	assert_int_equal(p->payload[3][0], 0);
	assert_false(cfs_rpc_buffered(*state));
	free(p);
}

static void test_call_and_callback(void **state)
{
	struct cfs_rpc_conn *c = *state;
	struct cfs_hello_rep rep = { 0 };
	struct cfs_rpc_reply r = { 0 };
	struct cfs_msg_hdr hdr;
	char body[8];

	assert_int_equal(cfs_rpc_hello(c, CFS_ROLE_WORKER, 0, NULL, &rep, -1, in_ms(5000)), 0);
	assert_int_equal(cfs_le32_to_cpu(rep.credits), 64);
	memset(&rep, 0, sizeof(rep));
	assert_int_equal(cfs_rpc_hello(c, CFS_ROLE_WORKER, 9, NULL, &rep, -1, in_ms(5000)), CFS_E_BADSESSION);
	assert_int_equal(cfs_le32_to_cpu(rep.credits), 64);
	assert_int_equal(send_op(c, CFS_OP_HEARTBEAT, 1, 0, 0), 0);
	r.body = body;
	r.body_max = sizeof(body);
	assert_int_equal(cfs_rpc_recv(c, &r, -1, in_ms(5000)), 0);
	assert_int_equal(r.hdr.flags, 0);
	assert_int_equal(cfs_le16_to_cpu(r.hdr.opcode), CFS_OP_CB_ASK);
	assert_memory_equal(body, "12345678", 8);
	/* a call passes over what is not its reply */
	assert_int_equal(send_op(c, CFS_OP_HEARTBEAT, 1, 0, 0), 0);
	cfs_hdr_init(&hdr, CFS_OP_GETATTR);
	hdr.tag = cfs_cpu_to_le64(123);
	assert_int_equal(cfs_rpc_call(c, &hdr, NULL, 0, NULL, 0, &r, -1, in_ms(5000)), 0);
	assert_int_equal(cfs_le64_to_cpu(r.hdr.tag), 123);
	assert_int_equal(r.body_len, 0);
}

static void test_interrupt_and_deadline(void **state)
{
	struct cfs_rpc_conn *c = *state;
	int efd = eventfd(1, EFD_CLOEXEC);
	struct cfs_rpc_reply r = { 0 };
	uint64_t start = cfs_boot_ns();

	assert_int_equal(send_op(c, CFS_OP_OPEN, 1, 0, 0), 0);
	assert_int_equal(cfs_rpc_recv(c, &r, -1, in_ms(30)), -ETIMEDOUT);
	assert_true(cfs_boot_ns() - start >= 30 * CFS_NSEC_PER_MSEC);
	assert_int_equal(cfs_rpc_recv(c, &r, efd, in_ms(20000)), -EINTR);
	assert_int_equal(cfs_rpc_recv(c, &r, efd, NO_DEADLINE), -EINTR);
	assert_false(cfs_rpc_broken(c));
	assert_int_equal(send_op(c, CFS_OP_GETATTR, 2, 0, 0), 0);
	assert_int_equal(cfs_rpc_recv(c, &r, -1, NO_DEADLINE), 0);
	assert_int_equal(cfs_le64_to_cpu(r.hdr.tag), 2);
	close(efd);
}

static void test_does_not_fit(void **state)
{
	char small[8];
	struct cfs_rpc_reply r = { .body = small, .body_max = sizeof(small) };

	assert_int_equal(send_op(*state, CFS_OP_GETATTR, 1, 9, 0), 0);
	assert_int_equal(cfs_rpc_recv(*state, &r, -1, in_ms(5000)), -EPROTO);
	assert_true(cfs_rpc_broken(*state));
	assert_int_equal(cfs_rpc_recv(*state, &r, -1, in_ms(5000)), -EPROTO);
	assert_int_equal(send_op(*state, CFS_OP_GETATTR, 1, 0, 0), -EPROTO);
}

/* a peer under our control: what it sends is up to the test */
static int listen_raw(char *addr, size_t size)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htobe32(INADDR_LOOPBACK) };
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	snprintf(addr, size, "127.0.0.1:%u", be16toh(in.sin_port));
	return fd;
}

static void test_bad_peers(void **state)
{
	struct cfs_rpc_conn *c;
	char addr[32], body[100];
	int lfd = listen_raw(addr, sizeof(addr)), fd;
	struct cfs_msg_hdr hdr;

	(void)state;
	for (int i = 0; i < 6; i++) {
		struct cfs_rpc_reply r = { .body = body, .body_max = sizeof(body) };
		int efd = eventfd(1, EFD_CLOEXEC), want = 0;
		uint64_t start = cfs_boot_ns();

		assert_int_equal(cfs_rpc_connect(addr, 1000, &c), 0);
		fd = accept(lfd, NULL, NULL);
		cfs_hdr_init(&hdr, CFS_OP_GETATTR);
		cfs_hdr_seal(&hdr, bulk, 100, 0);
		switch (i) {
		case 0:		/* closes between messages */
			close(fd);
			fd = -1;
			want = -EPIPE;
			break;
		case 1:		/* and inside one */
			assert_int_equal(write(fd, &hdr, 64), 64);
			close(fd);
			fd = -1;
			want = -ECONNRESET;
			break;
		case 2:		/* not a header */
			assert_int_equal(write(fd, bulk, 100), 100);
			want = -EPROTO;
			break;
		case 3:		/* another body than the header says */
			assert_int_equal(write(fd, &hdr, 64), 64);
			assert_int_equal(write(fd, bulk + 1, 100), 100);
			want = -EPROTO;
			break;
		case 4:		/* stalls inside: the interrupt counts after two seconds */
			assert_int_equal(write(fd, &hdr, 60), 60);
			want = -EINTR;
			break;
		case 5:		/* the same, with a deadline */
			assert_int_equal(write(fd, &hdr, 64), 64);
			want = -ETIMEDOUT;
			break;
		}
		assert_int_equal(cfs_rpc_recv(c, &r, i == 4 ? efd : -1, in_ms(i == 5 ? 50 : 20000)), want);
		assert_true(cfs_rpc_broken(c));
		if (i == 4)
			assert_true(cfs_boot_ns() - start >= 2 * CFS_NSEC_PER_SEC);
		cfs_rpc_close(c);
		close(efd);
		if (fd >= 0)
			close(fd);
	}
	/* takes nothing: the deadline ends the sending */
	assert_int_equal(cfs_rpc_connect(addr, 1000, &c), 0);
	fd = accept(lfd, NULL, NULL);
	cfs_hdr_init(&hdr, CFS_OP_GETATTR);
	for (int i = 0; i < 8; i++) {
		int rc = cfs_rpc_send(c, &hdr, NULL, 0, bulk, CFS_PAYLOAD_MAX, in_ms(50));

		assert_true(rc == 0 || rc == -ETIMEDOUT);
		if (rc)
			break;
	}
	assert_true(cfs_rpc_broken(c));
	cfs_rpc_close(c);
	close(fd);
	close(lfd);
	assert_int_equal(cfs_rpc_connect(addr, 1000, &c), -ECONNREFUSED);
	assert_int_equal(cfs_rpc_connect("nobody.invalid:1", 1000, &c), -EHOSTUNREACH);
	assert_int_equal(cfs_rpc_connect("no port", 1000, &c), -EINVAL);
	cfs_rpc_close(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sizes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_in_flight, setup, teardown),
		cmocka_unit_test_setup_teardown(test_call_and_callback, setup, teardown),
		cmocka_unit_test_setup_teardown(test_interrupt_and_deadline, setup, teardown),
		cmocka_unit_test_setup_teardown(test_does_not_fit, setup, teardown),
		cmocka_unit_test(test_bad_peers),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
