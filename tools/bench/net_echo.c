/* SPDX-License-Identifier: MIT */
/*
 * net_echo.c - what a small request and its reply cost on loopback: raw TCP between two blocking threads (the
 * floor), beside a client connection (rpc/conn.h) against a server on the reactor (ring/loop.h, net/net.h).
 * Prints round trips per second, microseconds each, and what both sides' processors spent (which a busy machine
 * changes least); then bulk, in MiB/s, both ways.
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "net/net.h"
#include "ring/loop.h"
#include "rpc/codec.h"
#include "rpc/conn.h"

static unsigned seconds_ms = 1000;
static uint32_t req_bytes = 40, rep_bytes = 160;	/* bodies: about a LOOKUP and its answer */
static uint32_t bulk_bytes = 1 << 20;

static void die(const char *what, int err)
{
	fprintf(stderr, "net_echo: %s: %s\n", what, strerror(err < 0 ? -err : err));
	exit(1);
}

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * CFS_NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

static void report(const char *name, uint64_t n, uint64_t ns, uint64_t cpu, uint64_t bytes_each)
{
	printf("%-34s %9.0f /s  %7.2f us  %6.2f us CPU", name, (double)n * 1e9 / (double)ns,
	       (double)ns / 1e3 / (double)n, (double)cpu / 1e3 / (double)n);
	if (bytes_each)
		printf("  %7.0f MiB/s", (double)(n * bytes_each) * 1e9 / (double)ns / (1 << 20));
	printf("\n");
}

/* ---- the floor: read and write ------------------------------------------------------------------- */

static void read_all(int fd, void *buf, size_t len)
{
	while (len) {
		ssize_t n = read(fd, buf, len);

		if (n <= 0)
			pthread_exit(NULL);
		buf = (char *)buf + n;
		len -= (size_t)n;
	}
}

static void write_all(int fd, const void *buf, size_t len)
{
	if (write(fd, buf, len) != (ssize_t)len)
		pthread_exit(NULL);
}

static void *raw_server(void *arg)
{
	char buf[4096];
	int fd = accept(*(int *)arg, NULL, NULL), one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	for (;;) {
		read_all(fd, buf, 64 + req_bytes);
		write_all(fd, buf, 64 + rep_bytes);
	}
	return NULL;
}

static void bench_raw(void)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htobe32(INADDR_LOOPBACK) };
	socklen_t len = sizeof(in);
	int lfd = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	uint64_t start, now, n = 0, cpu = cpu_ns();
	char buf[4096] = { 0 };
	pthread_t t;

	if (bind(lfd, (struct sockaddr *)&in, sizeof(in)) || listen(lfd, 1) ||
	    getsockname(lfd, (struct sockaddr *)&in, &len))
		die("listen", errno);
	pthread_create(&t, NULL, raw_server, &lfd);
	if (connect(fd, (struct sockaddr *)&in, sizeof(in)))
		die("connect", errno);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	start = cfs_boot_ns();
	do {
		write_all(fd, buf, 64 + req_bytes);
		read_all(fd, buf, 64 + rep_bytes);
		n++;
		now = cfs_boot_ns();
	} while (now - start < seconds_ms * CFS_NSEC_PER_MSEC);
	report("raw TCP, blocking threads", n, now - start, cpu_ns() - cpu, 0);
	close(fd);
	pthread_join(t, NULL);
	close(lfd);
}

/* ---- the reactor ----------------------------------------------------------------------------------- */

static struct cfs_loop *loop;
static uint16_t port;
static pthread_barrier_t ready;
static char rep_body[65536];
static void *rep_payload;

static void done_nothing(void *arg)
{
	(void)arg;
}

static void on_msg(struct cfs_conn *conn, struct cfs_msg *msg)
{
	struct cfs_send s = { .body = rep_body, .body_len = rep_bytes };

	if (cfs_le16_to_cpu(msg->hdr.opcode) == CFS_OP_OBJ_READ) {
		s.payload = rep_payload;
		s.payload_len = bulk_bytes;
		s.payload_done = done_nothing;
	}
	cfs_hdr_init_reply(&s.hdr, &msg->hdr, 0);
	if (cfs_conn_send(conn, &s))
		cfs_conn_close(conn);
}

static void on_close(struct cfs_conn *conn, int err)
{
	(void)conn, (void)err;
}

static const struct cfs_conn_handler handler = { NULL, on_msg, on_close };

static void *server(void *arg)
{
	struct cfs_net *net = NULL;
	int rc = cfs_loop_create(256, &loop);

	(void)arg;
	if (!rc)
		rc = cfs_net_tcp_create(loop, &net);
	if (!rc)
		rc = net->ops->listen(net, "127.0.0.1:0", &handler, NULL);
	if (rc)
		die("server", rc);
	port = cfs_net_tcp_port(net);
	pthread_barrier_wait(&ready);
	cfs_loop_run(loop);
	net->ops->close(net);
	cfs_loop_destroy(loop);
	return NULL;
}

/* requests of one kind, `depth` in flight */
static void bench_rpc(const char *name, uint16_t opcode, unsigned depth, uint32_t out, uint32_t in)
{
	static char req[65536], rep[65536];
	static char *payload;
	struct cfs_rpc_conn *c;
	struct cfs_rpc_reply r = { .body = rep, .body_max = sizeof(rep) };
	const struct iovec body = { req, req_bytes };
	uint64_t start, now, n = 0, sent = 0, limit, cpu = cpu_ns();
	char addr[32];
	int rc;

	if (!payload && posix_memalign((void **)&payload, 4096, CFS_PAYLOAD_MAX))
		die("memory", ENOMEM);
	r.payload = payload;
	r.payload_max = CFS_PAYLOAD_MAX;
	snprintf(addr, sizeof(addr), "127.0.0.1:%u", port);
	rc = cfs_rpc_connect(addr, 0, &c);
	if (rc)
		die("connect", rc);
	start = now = cfs_boot_ns();
	limit = seconds_ms * CFS_NSEC_PER_MSEC;
	while (now - start < limit || n < sent) {
		while (now - start < limit && sent - n < depth) {
			struct cfs_msg_hdr hdr;

			cfs_hdr_init(&hdr, opcode);
			hdr.tag = sent++;
			rc = cfs_rpc_send(c, &hdr, &body, 1, payload, out, CFS_RPC_NO_DEADLINE);
			if (rc)
				die("send", rc);
		}
		rc = cfs_rpc_recv(c, &r, -1, CFS_RPC_NO_DEADLINE);
		if (rc)
			die("receive", rc);
		n++;
		now = cfs_boot_ns();
	}
	report(name, n, now - start, cpu_ns() - cpu, out + in);
	cfs_rpc_close(c);
}

int main(int argc, char **argv)
{
	pthread_t t;
	int opt;

	while ((opt = getopt(argc, argv, "t:q:r:b:h")) != -1) {
		switch (opt) {
		case 't': seconds_ms = (unsigned)atoi(optarg); break;
		case 'q': req_bytes = cfs_min((uint32_t)atoi(optarg), 4000u); break;
		case 'r': rep_bytes = cfs_min((uint32_t)atoi(optarg), 4000u); break;
		case 'b': bulk_bytes = cfs_min((uint32_t)atoi(optarg), CFS_PAYLOAD_MAX); break;
		default:
			puts("net_echo [-t MS each] [-q BYTES request] [-r BYTES reply] [-b BYTES bulk]");
			return opt == 'h' ? 0 : 2;
		}
	}
	if (posix_memalign(&rep_payload, 4096, CFS_PAYLOAD_MAX))
		die("memory", ENOMEM);
	memset(rep_payload, 1, CFS_PAYLOAD_MAX);
	pthread_barrier_init(&ready, NULL, 2);
	pthread_create(&t, NULL, server, NULL);
	pthread_barrier_wait(&ready);
	for (int round = 0; round < 2; round++) {	/* interleaved: trust what agrees */
		bench_raw();
		bench_rpc("rpc connection, reactor server", CFS_OP_LOOKUP, 1, 0, 0);
	}
	bench_rpc("the same, 32 in flight", CFS_OP_LOOKUP, 32, 0, 0);
	bench_rpc("bulk to the server, 2 in flight", CFS_OP_OBJ_WRITE, 2, bulk_bytes, 0);
	bench_rpc("bulk from the server, 2 in flight", CFS_OP_OBJ_READ, 2, 0, bulk_bytes);
	cfs_loop_stop(loop);
	pthread_join(t, NULL);
	return 0;
}
