/* SPDX-License-Identifier: MIT */
/*
 * conn.c - see conn.h. The socket does not block; waiting is ppoll() on it and on the interrupt descriptor.
 * One recvmsg() fills what is missing of body and payload in place, and behind them a buffer with the beginning
 * of whatever follows.
 */
#include "rpc/conn.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "net/addr.h"
#include "rpc/codec.h"

#define RX_BYTES		(32u << 10)
#define STALL_NS		(2 * CFS_NSEC_PER_SEC)	/* of silence inside a message, until interrupts count */
#define CONNECT_DEFAULT_MS	10000u
#define LOOK_AGAIN_NS		CFS_NSEC_PER_SEC	/* ppoll's clock stands still in suspend, ours does not */

struct cfs_rpc_conn {
	int fd;
	int err;		/* 0, or what broke it (negative) */
	bool sent;		/* nothing has been received since the last send: wait before reading */
	uint32_t at, len;	/* rx[at, len) is received and not yet looked at */
	char peer[CFS_ADDR_MAX];
	uint8_t rx[RX_BYTES];
};

uint64_t cfs_boot_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * CFS_NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

int cfs_rpc_fd(const struct cfs_rpc_conn *conn)
{
	return conn->fd;
}

bool cfs_rpc_buffered(const struct cfs_rpc_conn *conn)
{
	return conn->at < conn->len;
}

bool cfs_rpc_broken(const struct cfs_rpc_conn *conn)
{
	return conn->err != 0;
}

const char *cfs_rpc_peer(const struct cfs_rpc_conn *conn)
{
	return conn->peer;
}

static int broken(struct cfs_rpc_conn *conn, int err)
{
	if (!conn->err)
		conn->err = err;
	return err;
}

/* 0 when one of `events` is there, -EINTR when the interrupt is, -ETIMEDOUT at the deadline */
static int wait_for(int fd, short events, int interrupt_fd, uint64_t deadline)
{
	struct pollfd p[2] = { { fd, events, 0 }, { interrupt_fd, POLLIN, 0 } };
	struct timespec ts;

	for (;;) {
		uint64_t ns = 0;
		int n;

		if (deadline != CFS_RPC_NO_DEADLINE) {
			uint64_t now = cfs_boot_ns();

			ns = now < deadline ? deadline - now : 0;
			ns = cfs_min(ns, LOOK_AGAIN_NS);
			ts.tv_sec = (time_t)(ns / CFS_NSEC_PER_SEC);
			ts.tv_nsec = (long)(ns % CFS_NSEC_PER_SEC);
		}
		n = ppoll(p, interrupt_fd >= 0 ? 2 : 1, deadline == CFS_RPC_NO_DEADLINE ? NULL : &ts, NULL);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		if (n > 0 && p[0].revents)
			return 0;
		if (n > 0 && p[1].revents)
			return -EINTR;
		if (n == 0 && !ns)
			return -ETIMEDOUT;
	}
}

/* ---- connecting ----------------------------------------------------------------------------------- */

static int connect_one(const struct cfs_addr *a, uint64_t deadline)
{
	int fd = socket(a->ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int rc = 0, err = 0;
	socklen_t len = sizeof(err);

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&a->ss, a->len)) {
		rc = errno == EINPROGRESS ? wait_for(fd, POLLOUT, -1, deadline) : -errno;
		if (!rc && getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len))
			rc = -errno;
		if (!rc)
			rc = -err;
	}
	if (!rc)
		rc = cfs_addr_tune(fd);
	if (rc) {
		close(fd);
		return rc;
	}
	return fd;
}

int cfs_rpc_connect(const char *addr, uint32_t timeout_ms, struct cfs_rpc_conn **ret_conn)
{
	struct cfs_addr addrs[CFS_ADDRS_MAX];
	struct cfs_rpc_conn *conn;
	uint64_t deadline;
	int n, fd = -EHOSTUNREACH;

	n = cfs_addr_parse(addr, false, addrs, CFS_ADDRS_MAX);
	if (n < 0)
		return n == -EINVAL ? -EINVAL : -EHOSTUNREACH;
	deadline = cfs_boot_ns() + (timeout_ms ? timeout_ms : CONNECT_DEFAULT_MS) * CFS_NSEC_PER_MSEC;
	for (int i = 0; i < n && fd < 0; i++)
		fd = connect_one(&addrs[i], deadline);
	if (fd < 0)
		return fd;
	conn = malloc(sizeof(*conn));
	if (!conn) {
		close(fd);
		return -ENOMEM;
	}
	conn->fd = fd;
	conn->err = 0;
	conn->sent = false;
	conn->at = conn->len = 0;
	snprintf(conn->peer, sizeof(conn->peer), "%s", addr);
	*ret_conn = conn;
	return 0;
}

void cfs_rpc_close(struct cfs_rpc_conn *conn)
{
	if (!conn)
		return;
	close(conn->fd);
	free(conn);
}

/* ---- sending ---------------------------------------------------------------------------------------- */

/* take n bytes off the front of an iovec */
static void iov_advance(struct iovec **iov, size_t *cnt, size_t n)
{
	while (n) {
		size_t k = cfs_min(n, (*iov)->iov_len);

		(*iov)->iov_base = (char *)(*iov)->iov_base + k;
		(*iov)->iov_len -= k;
		n -= k;
		if ((*iov)->iov_len)
			break;
		(*iov)++;
		(*cnt)--;
	}
}

int cfs_rpc_send(struct cfs_rpc_conn *conn, struct cfs_msg_hdr *hdr, const struct iovec *body,
		 unsigned n_body, const void *payload, uint32_t payload_len, uint64_t deadline_boot_ns)
{
	struct iovec parts[CFS_RPC_IOV_MAX + 2], *iov = parts;
	struct msghdr msg = { 0 };
	size_t n = 0, body_len = 0, left;
	int rc;

	if (conn->err)
		return conn->err;
	if (n_body > CFS_RPC_IOV_MAX || payload_len > CFS_PAYLOAD_MAX)
		return -EMSGSIZE;
	parts[n++] = (struct iovec){ hdr, sizeof(*hdr) };
	for (unsigned i = 0; i < n_body; i++) {
		if (!body[i].iov_len)
			continue;
		parts[n++] = body[i];
		body_len += body[i].iov_len;
		if (body_len > CFS_BODY_MAX)
			return -EMSGSIZE;
	}
	if (payload_len)
		parts[n++] = (struct iovec){ (void *)(uintptr_t)payload, payload_len };
	cfs_hdr_seal_iov(hdr, body, n_body, payload_len);
	left = sizeof(*hdr) + body_len + payload_len;
	for (;;) {
		ssize_t sent;

		msg.msg_iov = iov;
		msg.msg_iovlen = n;
		sent = sendmsg(conn->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent >= 0) {
			left -= (size_t)sent;
			if (!left)
				break;
			iov_advance(&iov, &n, (size_t)sent);
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return broken(conn, -errno);
		rc = wait_for(conn->fd, POLLOUT, -1, deadline_boot_ns);
		if (rc)
			return broken(conn, rc);
	}
	conn->sent = true;
	return 0;
}

/* ---- receiving ---------------------------------------------------------------------------------------- */

/*
 * Read at least one byte into iov. `inside` a message, silence is something else than between messages:
 * see cfs_rpc_recv() in conn.h. Returns bytes (> 0) or -errno.
 */
static ssize_t read_some(struct cfs_rpc_conn *conn, struct iovec *iov, size_t cnt, bool inside,
			 int interrupt_fd, uint64_t deadline)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = cnt };
	int rc = 0;

	for (;;) {
		ssize_t n = -1;

		errno = EAGAIN;
		if (!conn->sent)
			n = recvmsg(conn->fd, &msg, MSG_DONTWAIT);
		conn->sent = false;
		if (n > 0)
			return n;
		if (n == 0)
			return broken(conn, inside ? -ECONNRESET : -EPIPE);
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return broken(conn, -errno);
		if (!inside) {
			rc = wait_for(conn->fd, POLLIN, interrupt_fd, deadline);
		} else {
			uint64_t quiet = cfs_boot_ns() + STALL_NS;

			rc = wait_for(conn->fd, POLLIN, -1, cfs_min(quiet, deadline));
			if (rc == -ETIMEDOUT && quiet < deadline)
				rc = wait_for(conn->fd, POLLIN, interrupt_fd, deadline);
		}
		if (rc)
			return inside || (rc != -EINTR && rc != -ETIMEDOUT) ? broken(conn, rc) : rc;
	}
}

static uint32_t buffered(const struct cfs_rpc_conn *conn)
{
	return conn->len - conn->at;
}

static int recv_hdr(struct cfs_rpc_conn *conn, struct cfs_msg_hdr *hdr, int interrupt_fd,
		    uint64_t deadline)
{
	const char *why;
	int rc;

	if (conn->at) {
		memmove(conn->rx, conn->rx + conn->at, buffered(conn));
		conn->len -= conn->at;
		conn->at = 0;
	}
	while (conn->len < sizeof(*hdr)) {
		struct iovec iov = { conn->rx + conn->len, RX_BYTES - conn->len };
		ssize_t n = read_some(conn, &iov, 1, conn->len > 0, interrupt_fd, deadline);

		if (n < 0)
			return (int)n;
		conn->len += (uint32_t)n;
	}
	memcpy(hdr, conn->rx, sizeof(*hdr));
	conn->at = sizeof(*hdr);
	rc = cfs_hdr_check(hdr, &why);
	return rc ? broken(conn, rc) : 0;
}

static void take_buffered(struct cfs_rpc_conn *conn, struct iovec *iov)
{
	uint32_t n = (uint32_t)cfs_min((size_t)buffered(conn), iov->iov_len);

	if (!n)
		return;
	memcpy(iov->iov_base, conn->rx + conn->at, n);
	conn->at += n;
	iov->iov_base = (char *)iov->iov_base + n;
	iov->iov_len -= n;
}

/* body and payload to their places, what follows into the (then empty) buffer */
static int recv_rest(struct cfs_rpc_conn *conn, struct cfs_rpc_reply *r, int interrupt_fd, uint64_t deadline)
{
	struct iovec parts[3] = {
		{ r->body, r->body_len },
		{ r->payload, r->payload_len },
	};
	size_t left;

	take_buffered(conn, &parts[0]);
	take_buffered(conn, &parts[1]);
	left = parts[0].iov_len + parts[1].iov_len;
	while (left) {
		struct iovec *iov = parts[0].iov_len ? &parts[0] : &parts[1];
		size_t cnt = (size_t)(&parts[3] - iov);
		ssize_t n;

		parts[2] = (struct iovec){ conn->rx, RX_BYTES };
		n = read_some(conn, iov, cnt, true, interrupt_fd, deadline);
		if (n < 0)
			return (int)n;
		if ((size_t)n > left) {
			conn->at = 0;
			conn->len = (uint32_t)((size_t)n - left);
			break;
		}
		left -= (size_t)n;
		iov_advance(&iov, &cnt, (size_t)n);
	}
	return 0;
}

static int drop_rest(struct cfs_rpc_conn *conn, uint64_t left, int interrupt_fd, uint64_t deadline)
{
	for (;;) {
		uint32_t have = (uint32_t)cfs_min(left, (uint64_t)buffered(conn));
		struct iovec iov = { conn->rx, RX_BYTES };
		ssize_t n;

		conn->at += have;
		left -= have;
		if (!left)
			return 0;
		n = read_some(conn, &iov, 1, true, interrupt_fd, deadline);
		if (n < 0)
			return (int)n;
		conn->at = 0;
		conn->len = (uint32_t)n;
	}
}

int cfs_rpc_recv(struct cfs_rpc_conn *conn, struct cfs_rpc_reply *r, int interrupt_fd,
		 uint64_t deadline_boot_ns)
{
	uint32_t body_len, payload_len;
	int rc;

	if (conn->err)
		return conn->err;
	rc = recv_hdr(conn, &r->hdr, interrupt_fd, deadline_boot_ns);
	if (rc)
		return rc;
	body_len = cfs_le32_to_cpu(r->hdr.body_len);
	payload_len = cfs_le32_to_cpu(r->hdr.payload_len);
	r->drop = false;
	if (r->pick)
		r->pick(r);
	r->body_len = r->payload_len = 0;
	if (r->drop)
		return drop_rest(conn, (uint64_t)body_len + payload_len, interrupt_fd, deadline_boot_ns);
	if (body_len > r->body_max || payload_len > r->payload_max)
		return broken(conn, -EPROTO);
	r->body_len = body_len;
	r->payload_len = payload_len;
	rc = recv_rest(conn, r, interrupt_fd, deadline_boot_ns);
	if (!rc && cfs_body_check(&r->hdr, r->body))
		rc = broken(conn, -EPROTO);
	return rc;
}

/* ---- conveniences ---------------------------------------------------------------------------------------- */

struct call_filter {
	cfs_le64 tag;
	struct cfs_rpc_reply *r;
	bool ours;
};

static void call_pick(struct cfs_rpc_reply *any)
{
	struct call_filter *f = any->user;

	f->ours = any->hdr.flags & CFS_MSG_REPLY && any->hdr.tag == f->tag;
	any->drop = !f->ours;
}

int cfs_rpc_call(struct cfs_rpc_conn *conn, struct cfs_msg_hdr *hdr, const struct iovec *body,
		 unsigned n_body, const void *payload, uint32_t payload_len,
		 struct cfs_rpc_reply *r, int interrupt_fd, uint64_t deadline_boot_ns)
{
	struct call_filter f = { .tag = hdr->tag };
	struct cfs_rpc_reply any = {
		.pick = call_pick,
		.user = &f,
		.body = r->body,
		.body_max = r->body_max,
		.payload = r->payload,
		.payload_max = r->payload_max,
	};
	int rc = cfs_rpc_send(conn, hdr, body, n_body, payload, payload_len, deadline_boot_ns);

	while (!rc && !f.ours)
		rc = cfs_rpc_recv(conn, &any, interrupt_fd, deadline_boot_ns);
	if (rc)
		return rc;
	r->hdr = any.hdr;
	r->body_len = any.body_len;
	r->payload_len = any.payload_len;
	return 0;
}

int cfs_rpc_hello(struct cfs_rpc_conn *conn, uint32_t role, uint64_t session, const uint8_t *cluster,
		  struct cfs_hello_rep *ret_rep, int interrupt_fd, uint64_t deadline_boot_ns)
{
	struct cfs_hello_req req = {
		.version_min = cfs_cpu_to_le32(CFS_WIRE_VERSION),
		.version_max = cfs_cpu_to_le32(CFS_WIRE_VERSION),
		.role = cfs_cpu_to_le32(role),
	};
	const struct iovec body = { &req, sizeof(req) };
	struct cfs_hello_rep rep;
	struct cfs_rpc_reply r = { .body = &rep, .body_max = sizeof(rep) };
	struct cfs_msg_hdr hdr;
	uint32_t status;
	int rc;

	if (cluster)
		memcpy(req.cluster, cluster, sizeof(req.cluster));
	cfs_hdr_init(&hdr, CFS_OP_HELLO);
	hdr.session = cfs_cpu_to_le64(session);
	rc = cfs_rpc_call(conn, &hdr, &body, 1, NULL, 0, &r, interrupt_fd, deadline_boot_ns);
	if (rc)
		return rc;
	status = cfs_le32_to_cpu(r.hdr.status);
	if (r.body_len != sizeof(rep))
		return status && !r.body_len ? (int)status : broken(conn, -EPROTO);
	if (cfs_le32_to_cpu(rep.version) != CFS_WIRE_VERSION)
		return CFS_E_VERSION;
	*ret_rep = rep;
	return (int)status;
}
