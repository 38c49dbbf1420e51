/* SPDX-License-Identifier: MIT */
/*
 * badframes.c HOST PORT [SEED] - a hostile peer. Sends what no client sends: noise, cut frames, wrong magic, version and
 * checksums, lengths that lie, other clusters, operations before HELLO and out of session, well-sealed requests
 * with arbitrary bodies, hundreds of half-open connections. After each kind the server must still answer STATUS.
 * It never touches what is not its own: no request names the root directory to change it.
 */
#include "prog.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <claudefs/wire.h>
#include "base/crc32c.h"

static struct sockaddr_in server;
static uint64_t rng;
static uint8_t body[CFS_BODY_MAX + 4096], reply_body[CFS_BODY_MAX];
static unsigned replies, closes, silences;

static int dial(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	struct timeval tv = { .tv_sec = 10 };

	if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof(server)))
		die("connect: %s", strerror(errno));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	return fd;
}

/* The peer may close at any time: that is an answer. */
static bool push(int fd, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

static void seal(struct cfs_msg_hdr *h, const void *b, uint32_t body_len, uint32_t payload_len)
{
	h->magic = cfs_cpu_to_le32(CFS_WIRE_MAGIC);
	h->version = CFS_WIRE_VERSION;
	h->body_len = cfs_cpu_to_le32(body_len);
	h->payload_len = cfs_cpu_to_le32(payload_len);
	h->body_crc = cfs_cpu_to_le32(cfs_crc32c(0, b, body_len));
	h->hdr_crc = cfs_cpu_to_le32(cfs_crc32c(0, h, 60));
}

static struct cfs_msg_hdr header(unsigned op)
{
	struct cfs_msg_hdr h = { .opcode = cfs_cpu_to_le16((uint16_t)op), .slot = cfs_cpu_to_le32(CFS_SLOT_NONE) };

	h.tag = rnd_next(&rng);
	return h;
}

static bool send_msg(int fd, struct cfs_msg_hdr *h, uint32_t len)
{
	seal(h, body, len, 0);
	return push(fd, h, sizeof(*h)) && push(fd, body, len);
}

static bool pull(int fd, void *buf, size_t len)
{
	uint8_t *p = buf;

	while (len) {
		ssize_t n = recv(fd, p, len, 0);

		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

/* One reply, whatever it says; false: closed or silent. */
static bool answer(int fd, struct cfs_msg_hdr *h, int timeout_ms)
{
	static uint8_t payload[CFS_PAYLOAD_MAX];
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (poll(&p, 1, timeout_ms) != 1) {
		silences++;
		return false;
	}
	if (!pull(fd, h, sizeof(*h))) {
		closes++;
		return false;
	}
	if (cfs_le32_to_cpu(h->magic) != CFS_WIRE_MAGIC || cfs_le32_to_cpu(h->hdr_crc) != cfs_crc32c(0, h, 60) ||
	    cfs_le32_to_cpu(h->body_len) > CFS_BODY_MAX || cfs_le32_to_cpu(h->payload_len) > CFS_PAYLOAD_MAX)
		die("the server's reply is malformed");
	if (!pull(fd, reply_body, cfs_le32_to_cpu(h->body_len)) || !pull(fd, payload, cfs_le32_to_cpu(h->payload_len))) {
		closes++;
		return false;
	}
	if (cfs_le32_to_cpu(h->body_crc) != cfs_crc32c(0, reply_body, cfs_le32_to_cpu(h->body_len)))
		die("the body of the server's reply is malformed");
	replies++;
	return true;
}

static bool hello(int fd, unsigned role, uint64_t session, struct cfs_msg_hdr *h)
{
	struct cfs_hello_req q = { .version_min = cfs_cpu_to_le32(1), .version_max = cfs_cpu_to_le32(1),
				   .role = cfs_cpu_to_le32(role) };

	*h = header(CFS_OP_HELLO);
	h->session = cfs_cpu_to_le64(session);
	memcpy(body, &q, sizeof(q));
	return send_msg(fd, h, sizeof(q)) && answer(fd, h, 5000);
}

static void alive(void)
{
	struct cfs_msg_hdr h;
	int fd = dial();

	EXPECT(hello(fd, CFS_ROLE_ADMIN, 0, &h));
	IS(cfs_le32_to_cpu(h.status), 0);
	h = header(CFS_OP_STATUS);
	EXPECT(send_msg(fd, &h, 0) && answer(fd, &h, 5000));
	IS(cfs_le32_to_cpu(h.status), 0);
	EXPECT(cfs_le32_to_cpu(h.body_len) > 2 && reply_body[0] == '{');
	close(fd);
}

/* After nonsense on a connection: an error reply or the end, not success, and not silence. */
static void refused(int fd)
{
	struct cfs_msg_hdr h;
	unsigned before = replies;

	while (answer(fd, &h, replies > before ? 300 : 5000))
		EXPECT(cfs_le32_to_cpu(h.status) != 0);
	if (replies == before && silences)
		die("neither an answer nor an end within 5 s");
	silences = 0;
	close(fd);
}

static void noise(size_t len)
{
	for (size_t i = 0; i < len; i++)
		body[i] = (uint8_t)rnd_next(&rng);
}

/* numbers that lie in wait for a decoder */
static uint64_t nasty(void)
{
	static const uint64_t values[] = { 0, 1, 2, 7, 255, 256, 4095, 4096, 65535, 65536, 0x7fffffff, 0x80000000, 0xffffffff,
		1ull << 32, (1ull << 52) + 1, 1ull << 60, INT64_MAX, 1ull << 63, UINT64_MAX, UINT64_MAX - 4095 };

	return rnd_below(&rng, 3) ? values[rnd_below(&rng, N_OF(values))] : rnd_next(&rng);
}

static uint32_t nasty_body(void)
{
	uint32_t len = (uint32_t)(rnd_below(&rng, 10) ? rnd_below(&rng, 400) : rnd_below(&rng, CFS_BODY_MAX + 1));
	uint64_t ino;

	noise(len);
	for (uint32_t i = 0; i + 8 <= len && i < 400; i += 4) {
		uint64_t v = nasty();

		memcpy(body + i, &v, rnd_below(&rng, 2) ? 4 : 8);
	}
	/* wherever an inode number may stand: never the root's, nor a likely one */
	for (uint32_t i = 0; i + 8 <= len; i += 8) {
		memcpy(&ino, body + i, 8);
		if (ino && ino < 1u << 20 && i <= 24) {
			ino |= 1ull << 40;
			memcpy(body + i, &ino, 8);
		}
	}
	return len;
}

CHECK(noise_, "bytes without any meaning")
{
	for (int i = 0; i < 60; i++) {
		size_t len = 1 + rnd_below(&rng, i % 5 ? 300 : 200000);
		int fd = dial();

		noise(len);
		push(fd, body, len);
		if (i % 3 == 0)
			shutdown(fd, SHUT_WR);
		if (len >= sizeof(struct cfs_msg_hdr))
			refused(fd);
		else
			close(fd);
	}
	alive();
}

CHECK(cut, "frames that end anywhere")
{
	struct cfs_hello_req q = { .version_min = cfs_cpu_to_le32(1), .version_max = cfs_cpu_to_le32(1),
				   .role = cfs_cpu_to_le32(CFS_ROLE_WORKER) };
	uint8_t frame[sizeof(struct cfs_msg_hdr) + sizeof(q)];

	for (size_t len = 0; len < sizeof(frame); len++) {
		struct cfs_msg_hdr h = header(CFS_OP_HELLO);
		int fd = dial();

		seal(&h, &q, sizeof(q), 0);
		memcpy(frame, &h, sizeof(h));
		memcpy(frame + sizeof(h), &q, sizeof(q));
		push(fd, frame, len);
		if (len % 2)
			shutdown(fd, SHUT_WR);
		close(fd);
	}
	alive();
}

CHECK(lies, "headers whose checksum is right and whose lengths, magic, version or body checksum are not")
{
	for (int i = 0; i < 9; i++) {
		struct cfs_msg_hdr h = header(CFS_OP_HELLO);
		int fd = dial();

		memset(body, 0, 100);
		seal(&h, body, 40, 0);
		switch (i) {
		case 0: h.magic ^= 1; break;
		case 1: h.version = 99; break;
		case 2: h.body_len = cfs_cpu_to_le32(CFS_BODY_MAX + 1); break;
		case 3: h.body_len = 0xffffffff; break;
		case 4: h.payload_len = cfs_cpu_to_le32(CFS_PAYLOAD_MAX + 1); break;
		case 5: h.payload_len = 0xffffffff; break;
		case 6: h.body_crc ^= 1; break;
		case 7: h.flags = 0xff; break;
		case 8: h.body_len = cfs_cpu_to_le32(39); break;
		}
		h.hdr_crc = cfs_cpu_to_le32(cfs_crc32c(0, &h, 60) ^ (i == 8));
		push(fd, &h, sizeof(h));
		push(fd, body, 40);
		refused(fd);
	}
	alive();
}

CHECK(hellos, "HELLOs of other versions, features, clusters, roles, sessions")
{
	for (int i = 0; i < 8; i++) {
		struct cfs_hello_req q = { .version_min = cfs_cpu_to_le32(1), .version_max = cfs_cpu_to_le32(1),
					   .role = cfs_cpu_to_le32(CFS_ROLE_WORKER) };
		struct cfs_msg_hdr h = header(CFS_OP_HELLO);
		int fd = dial();

		switch (i) {
		case 0: q.version_min = q.version_max = cfs_cpu_to_le32(99); break;
		case 1: q.version_min = cfs_cpu_to_le32(2); break;	/* above max */
		case 2: memset(q.cluster, 0xab, 16); break;
		case 3: q.role = 0; break;
		case 4: q.role = cfs_cpu_to_le32(77); break;
		case 5: q.features = UINT64_MAX; break;
		case 6: h.session = 0x123456789; break;
		case 7: break;		/* too short */
		}
		memcpy(body, &q, sizeof(q));
		EXPECT(send_msg(fd, &h, i == 7 ? 10 : sizeof(q)));
		if (answer(fd, &h, 5000))
			EXPECT(cfs_le32_to_cpu(h.status) != 0);
		if (i == 0 && cfs_le32_to_cpu(h.status))
			IS(cfs_le32_to_cpu(h.status), CFS_E_VERSION);
		if (i == 2 && cfs_le32_to_cpu(h.status))
			IS(cfs_le32_to_cpu(h.status), CFS_E_CLUSTER);
		close(fd);
	}
	alive();
}

CHECK(early, "every operation before HELLO")
{
	for (unsigned op = 0; op < 130; op++) {
		struct cfs_msg_hdr h = header(op);
		int fd;

		if (op == CFS_OP_HELLO)
			continue;
		fd = dial();
		if (send_msg(fd, &h, nasty_body()) && answer(fd, &h, 3000))
			EXPECT(cfs_le32_to_cpu(h.status) != 0);
		close(fd);
	}
	alive();
}

CHECK(no_session, "every operation, on every kind of connection, without a session, with nasty bodies")
{
	for (unsigned role = CFS_ROLE_WORKER; role <= CFS_ROLE_PEER; role++) {
		int fd = -1;

		for (unsigned i = 0; i < 260; i++) {
			struct cfs_msg_hdr h;

			if (fd < 0) {
				fd = dial();
				if (!hello(fd, role, 0, &h) || h.status) {
					close(fd);
					fd = dial();	/* then without one */
				}
			}
			h = header(i % 130);
			if (i % 130 == CFS_OP_SESSION_OPEN || i % 130 == CFS_OP_OBJ_DELETE)
				continue;
			if (i >= 130) {
				h.session = nasty();
				h.slot = (cfs_le32)nasty();
				h.seq = nasty();
				h.map_epoch = nasty();
			}
			if (!send_msg(fd, &h, nasty_body()) || !answer(fd, &h, 300)) {
				close(fd);
				fd = -1;
			}
		}
		if (fd >= 0)
			close(fd);
	}
	alive();
}

CHECK(in_session, "1500 well-formed frames with nasty bodies within an open session, slots in order")
{
	struct cfs_session_open_req q = { .slots = cfs_cpu_to_le32(16), .name_len = cfs_cpu_to_le32(7) };
	struct cfs_session_open_rep rep;
	uint64_t seq[16] = { 0 };
	struct cfs_msg_hdr h;
	int fd = dial();

	EXPECT(hello(fd, CFS_ROLE_WORKER, 0, &h));
	for (int i = 0; i < 16; i++)
		q.nonce[i] = (uint8_t)rnd_next(&rng);
	memcpy(body, &q, sizeof(q));
	memcpy(body + sizeof(q), "hostile", 7);
	h = header(CFS_OP_SESSION_OPEN);
	EXPECT(send_msg(fd, &h, sizeof(q) + 7) && answer(fd, &h, 5000));
	IS(cfs_le32_to_cpu(h.status), 0);
	EXPECT(cfs_le32_to_cpu(h.body_len) >= sizeof(rep));
	memcpy(&rep, reply_body, sizeof(rep));
	for (int i = 0; i < 1500; i++) {
		static const uint8_t ops[] = { 10, 11, 12, 16, 17, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 64, 65, 66, 67, 68, 69,
					       70, 71, 72, 73, 74, 96, 97, 98, 99, 3 };
		unsigned op = ops[rnd_below(&rng, sizeof(ops))];
		unsigned slot = (unsigned)rnd_below(&rng, 16);

		h = header(op);
		h.session = rep.session;
		if (op >= CFS_OP_SETATTR && op <= CFS_OP_RELEASE) {
			h.slot = cfs_cpu_to_le32(slot);
			h.seq = cfs_cpu_to_le64(++seq[slot]);
		}
		if (!send_msg(fd, &h, nasty_body()) || !answer(fd, &h, 1000)) {
			close(fd);	/* cut off for it: come back */
			fd = dial();
			if (!hello(fd, CFS_ROLE_WORKER, rep.session, &h) || h.status) {
				printf("# the session ended after %d frames\n", i);
				break;
			}
			memset(seq, 0, sizeof(seq));
		} else if (cfs_le32_to_cpu(h.status) == CFS_E_PROTO && seq[slot]) {
			seq[slot]--;	/* perhaps it was refused before it counted; then the next is BADSEQ, also fine */
		}
	}
	h = header(CFS_OP_SESSION_CLOSE);
	h.session = rep.session;
	if (send_msg(fd, &h, 0))
		answer(fd, &h, 2000);
	close(fd);
	alive();
}

CHECK(flood, "300 connections that say half a header and stay; 500 that come and go; the server goes on")
{
	struct rlimit lim;
	int fds[300];
	double t0;

	getrlimit(RLIMIT_NOFILE, &lim);
	lim.rlim_cur = lim.rlim_max;
	setrlimit(RLIMIT_NOFILE, &lim);
	for (int i = 0; i < 300; i++) {
		fds[i] = dial();
		push(fds[i], "CFS1", 4);
	}
	t0 = now_s();
	alive();
	EXPECT(now_s() - t0 < 5);
	for (int i = 0; i < 500; i++)
		close(dial());
	alive();
	for (int i = 0; i < 300; i++)
		close(fds[i]);
	alive();
}

CHECK(unread, "somebody asks much and reads nothing: others are still answered")
{
	int fd = dial(), flags;
	struct cfs_msg_hdr h;

	EXPECT(hello(fd, CFS_ROLE_ADMIN, 0, &h));
	flags = fcntl(fd, F_GETFL);
	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	for (int i = 0; i < 20000; i++) {
		h = header(CFS_OP_STATUS);
		seal(&h, body, 0, 0);
		if (send(fd, &h, sizeof(h), MSG_NOSIGNAL) != sizeof(h))
			break;
	}
	alive();
	close(fd);
	alive();
}

int main(int argc, char **argv)
{
	unsigned n = 0, failed = 0;

	if (argc < 3 || !inet_pton(AF_INET, argv[1], &server.sin_addr)) {
		fprintf(stderr, "usage: badframes IPV4 PORT [SEED]\n");
		return 2;
	}
	server.sin_family = AF_INET;
	server.sin_port = htons((uint16_t)atoi(argv[2]));
	rng = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;
	for (struct check *c = check_first; c; c = c->next) {
		int status = 0;
		pid_t pid;

		rnd_next(&rng);
		fflush(stdout);
		pid = fork();
		if (pid == 0) {
			alarm(120);
			c->run();
			printf("# %u replies, %u closed, %u silent\n", replies, closes, silences);
			fflush(stdout);
			_exit(0);
		}
		waitpid(pid, &status, 0);
		printf("%s %u - %s: %s\n", status ? "not ok" : "ok", ++n, c->name, c->what);
		failed += status != 0;
	}
	printf("1..%u\n", n);
	return failed != 0;
}
