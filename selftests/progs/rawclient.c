/* SPDX-License-Identifier: MIT */
/*
 * rawclient.c - speaks the wire protocol to a server without the client: for tests of the server by
 * itself.
 *
 *   rawclient ADDR write NAME BYTES SEED    a new session makes /NAME with that many pseudo-random bytes in objects
 *   rawclient ADDR check NAME BYTES SEED    looks it up, reads it back and compares; checks CRCs
 *   rawclient ADDR make PREFIX N            makes N empty files PREFIX0 ..., each answered before the next
 *   rawclient ADDR count PREFIX N           how many of those N are there
 *   rawclient ADDR rm NAME                  unlinks /NAME
 *   rawclient ADDR status                   prints STATUS
 *   rawclient ADDR map                      prints the map's epoch and targets
 *   rawclient ADDR protocol                 TAP: what the server must refuse, and how
 * Exits 0 on success; `make` prints how many were answered when it ends early.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "rpc/codec.h"
#include "rpc/conn.h"

#define WAIT_NS (30 * CFS_NSEC_PER_SEC)

static const char *addr;
static struct cfs_rpc_conn *conn;
static uint64_t session, seq, tag, map_epoch;
static uint8_t body[CFS_BODY_MAX];
static uint32_t body_len;
static uint8_t *payload;	/* CFS_PAYLOAD_MAX */
static uint32_t payload_len;
static struct cfs_hello_rep hello;

CFS_NORETURN CFS_PRINTF(1, 2) static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

/* one request, one reply. The status, or -errno */
static int call_raw(struct cfs_msg_hdr *hdr, const void *req, uint32_t req_len, const void *data,
		    uint32_t data_len)
{
	struct cfs_rpc_reply r = { .body = body, .body_max = sizeof(body), .payload = payload,
		.payload_max = CFS_PAYLOAD_MAX };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)req, .iov_len = req_len };
	int rc;

	hdr->tag = cfs_cpu_to_le64(++tag);
	rc = cfs_rpc_call(conn, hdr, &iov, req_len ? 1 : 0, data, data_len, &r, -1,
			  cfs_boot_ns() + WAIT_NS);
	if (rc)
		return rc;
	body_len = r.body_len;
	payload_len = r.payload_len;
	return (int)cfs_le32_to_cpu(r.hdr.status);
}

/* our session lives while it is heard of */
static void heartbeat(void)
{
	static uint64_t last_ns;
	struct cfs_msg_hdr hdr;

	if (!session || cfs_boot_ns() - last_ns < CFS_NSEC_PER_SEC / 4)
		return;
	last_ns = cfs_boot_ns();
	cfs_hdr_init(&hdr, CFS_OP_HEARTBEAT);
	hdr.session = cfs_cpu_to_le64(session);
	call_raw(&hdr, NULL, 0, NULL, 0);	/* what it says, the next request will, too */
}

/*
 * the same in our session, with a new seq when it mutates; waits while the leader waits for others
 */
static int call(uint16_t op, const void *req, uint32_t req_len, const void *data, uint32_t data_len)
{
	struct cfs_msg_hdr hdr;
	int status, tries = 0;

	if (op != CFS_OP_SESSION_OPEN && op != CFS_OP_MAP && op != CFS_OP_STATUS)
		heartbeat();
	cfs_hdr_init(&hdr, op);
	hdr.session = cfs_cpu_to_le64(session);
	hdr.map_epoch = cfs_cpu_to_le64(map_epoch);
	if (cfs_op_mutates(op) && op != CFS_OP_SESSION_OPEN) {
		hdr.slot = cfs_cpu_to_le32(0);
		hdr.seq = cfs_cpu_to_le64(++seq);
	}
	do {
		if (tries)
			usleep(50000);
		status = call_raw(&hdr, req, req_len, data, data_len);
	} while ((status == CFS_E_GRACE || status == CFS_E_NOTLEADER) && ++tries < 600);
	return status;
}

static int dial(uint32_t role, uint64_t sess)
{
	int rc;

	cfs_rpc_close(conn);
	conn = NULL;
	rc = cfs_rpc_connect(addr, 5000, &conn);
	if (rc)
		return rc;
	return cfs_rpc_hello(conn, role, sess, NULL, &hello, -1, cfs_boot_ns() + WAIT_NS);
}

static void open_session(void)
{
	struct {
		struct cfs_session_open_req req;
		char name[9];
	} open = { .req = { .slots = cfs_cpu_to_le32(4), .name_len = cfs_cpu_to_le32(9) },
		   .name = "rawclient" };
	struct cfs_session_open_rep rep;
	struct cfs_map_rep map;
	int rc = dial(CFS_ROLE_WORKER, 0);

	if (rc)
		die("HELLO: %d", rc);
	if (getrandom(open.req.nonce, sizeof(open.req.nonce), 0) != sizeof(open.req.nonce))
		die("getrandom");
	rc = call(CFS_OP_SESSION_OPEN, &open, sizeof(open.req) + 9, NULL, 0);
	if (rc || body_len < sizeof(rep))
		die("SESSION_OPEN: %d", rc);
	memcpy(&rep, body, sizeof(rep));
	session = cfs_le64_to_cpu(rep.session);
	rc = dial(CFS_ROLE_WORKER, session);
	if (rc)
		die("HELLO with session: %d", rc);
	rc = call(CFS_OP_MAP, NULL, 0, NULL, 0);
	if (rc || body_len < sizeof(map))
		die("MAP: %d", rc);
	memcpy(&map, body, sizeof(map));
	map_epoch = cfs_le64_to_cpu(map.epoch);
}

static void close_session(void)
{
	int rc = call(CFS_OP_SESSION_CLOSE, NULL, 0, NULL, 0);

	if (rc)
		die("SESSION_CLOSE: %d", rc);
	cfs_rpc_close(conn);
	conn = NULL;
}

/* ---- files ----------------------------------------------------------------------------------- */

static void fill(uint8_t *buf, uint64_t off, uint32_t len, uint64_t seed)
{
	for (uint32_t i = 0; i < len; i++) {
		uint64_t x = (off + i) / 8 * 0x9e3779b97f4a7c15ull + seed;

		x ^= x >> 29;
		x *= 0xbf58476d1ce4e5b9ull;
		x ^= x >> 32;
		buf[i] = (uint8_t)(x >> (8 * ((off + i) % 8)));
	}
}

static int mknode(const char *name, struct cfs_entry_rep *ret)
{
	struct {
		struct cfs_mknode_req req;
		char name[CFS_NAME_MAX];
	} mk = { .req = { .dir = cfs_cpu_to_le64(CFS_INO_ROOT),
			  .mode = cfs_cpu_to_le32(S_IFREG | 0644),
			  .name_len = cfs_cpu_to_le32((uint32_t)strlen(name)) } };
	int rc;

	memcpy(mk.name, name, strlen(name));
	rc = call(CFS_OP_MKNODE, &mk, (uint32_t)(sizeof(mk.req) + strlen(name)), NULL, 0);
	if (!rc)
		memcpy(ret, body, sizeof(*ret));
	return rc;
}

static int lookup(const char *name, struct cfs_entry_rep *ret)
{
	struct {
		struct cfs_lookup_req req;
		char name[CFS_NAME_MAX];
	} lk = { .req = { .dir = cfs_cpu_to_le64(CFS_INO_ROOT),
			  .name_len = cfs_cpu_to_le32((uint32_t)strlen(name)) } };
	int rc;

	memcpy(lk.name, name, strlen(name));
	rc = call(CFS_OP_LOOKUP, &lk, (uint32_t)(sizeof(lk.req) + strlen(name)), NULL, 0);
	if (!rc && body_len >= sizeof(*ret))
		memcpy(ret, body, sizeof(*ret));
	return rc;
}

static int obj_write(struct cfs_oid oid, uint32_t target, const uint8_t *data, uint32_t len)
{
	struct {
		struct cfs_obj_write_req req;
		cfs_le32 crcs[CFS_OBJECT_CRCS];
	} wr = { .req = { .oid = oid,
			  .target = cfs_cpu_to_le32(target),
			  .len = cfs_cpu_to_le32(len) } };
	uint32_t crcs[CFS_OBJECT_CRCS];

	cfs_payload_crcs(data, len, crcs);
	for (uint32_t i = 0; i < cfs_crc_blocks(len); i++)
		wr.crcs[i] = cfs_cpu_to_le32(crcs[i]);
	return call(CFS_OP_OBJ_WRITE, &wr,
		    (uint32_t)(sizeof(wr.req) + cfs_crc_blocks(len) * sizeof(cfs_le32)), data, len);
}

static void cmd_write(const char *name, uint64_t bytes, uint64_t seed)
{
	uint32_t n = (uint32_t)((bytes + CFS_OBJECT_MAX - 1) / CFS_OBJECT_MAX);
	struct {
		struct cfs_commit_req req;
		struct cfs_commit_item item;
		struct cfs_extent ext[1024];
	} *commit = calloc(1, sizeof(*commit));
	uint8_t *data = aligned_alloc(4096, CFS_OBJECT_MAX);
	struct cfs_commit_result result;
	struct cfs_entry_rep entry;
	int rc;

	if (!commit || !data || n > 1024 || n == 0)
		die("cannot write %llu bytes", (unsigned long long)bytes);
	open_session();
	rc = mknode(name, &entry);
	if (rc)
		die("MKNODE %s: %d", name, rc);
	for (uint32_t i = 0; i < n; i++) {
		uint64_t off = (uint64_t)i * CFS_OBJECT_MAX;
		uint32_t len = (uint32_t)cfs_min(bytes - off, (uint64_t)CFS_OBJECT_MAX);
		struct cfs_oid oid = { .owner = cfs_cpu_to_le64(session),
			.seq = cfs_cpu_to_le64((uint64_t)(i % 64) << CFS_OID_PG_SHIFT | (i + 1)) };

		fill(data, off, len, seed);
		rc = obj_write(oid, 0, data, len);
		if (rc)
			die("OBJ_WRITE %u: %d", i, rc);
		commit->ext[i] = (struct cfs_extent){ .file_off = cfs_cpu_to_le64(off),
						      .len = cfs_cpu_to_le32(len),
						      .oid = oid,
						      .obj_len = cfs_cpu_to_le32(len) };
	}
	commit->req.n = cfs_cpu_to_le32(1);
	commit->item = (struct cfs_commit_item){ .ino = entry.attr.ino,
						 .size = cfs_cpu_to_le64(bytes),
						 .n_extents = cfs_cpu_to_le32(n) };
	rc = call(CFS_OP_COMMIT, commit,
		  (uint32_t)(offsetof(__typeof__(*commit), ext) + n * sizeof(struct cfs_extent)),
		  NULL, 0);
	if (rc || body_len < sizeof(struct cfs_commit_rep) + sizeof(result))
		die("COMMIT: %d", rc);
	memcpy(&result, body + sizeof(struct cfs_commit_rep), sizeof(result));
	if (result.status)
		die("COMMIT of the file: %u", cfs_le32_to_cpu(result.status));
	close_session();
	free(data);
	free(commit);
	printf("%llu\n", (unsigned long long)cfs_le64_to_cpu(entry.attr.ino));
}

static void check_extent(const struct cfs_extent *e, uint64_t seed)
{
	struct cfs_obj_read_req req = { .oid = e->oid, .len = e->len, .off = e->obj_off };
	uint32_t len = cfs_le32_to_cpu(e->len), crcs[CFS_OBJECT_CRCS];
	static uint8_t want[CFS_OBJECT_MAX];
	struct cfs_obj_read_rep rep;
	int rc = call(CFS_OP_OBJ_READ, &req, sizeof(req), NULL, 0);

	if (rc || body_len < sizeof(rep))
		die("OBJ_READ: %d", rc);
	memcpy(&rep, body, sizeof(rep));
	if (payload_len != len || cfs_le32_to_cpu(rep.len) != len ||
	    cfs_le32_to_cpu(rep.obj_len) != len || rep.off)
		die("OBJ_READ: %u bytes, not %u", payload_len, len);
	if (body_len != sizeof(rep) + cfs_crc_blocks(len) * sizeof(cfs_le32))
		die("OBJ_READ: a body of %u bytes", body_len);
	for (uint32_t i = 0; i < cfs_crc_blocks(len); i++)
		crcs[i] = cfs_get_le32(body + sizeof(rep) + i * sizeof(cfs_le32));
	if (cfs_payload_verify(payload, len, crcs) >= 0)
		die("OBJ_READ: checksum");
	fill(want, cfs_le64_to_cpu(e->file_off), len, seed);
	if (memcmp(want, payload, len))
		die("the bytes at %llu are not what was written",
		    (unsigned long long)cfs_le64_to_cpu(e->file_off));
}

static void cmd_check(const char *name, uint64_t bytes, uint64_t seed)
{
	struct cfs_open_req open = { .max_extents = cfs_cpu_to_le32(1024) };
	struct cfs_extent *ext;
	struct cfs_entry_rep entry;
	struct cfs_open_rep rep;
	uint64_t seen = 0;
	uint32_t n;
	int rc;

	open_session();
	rc = lookup(name, &entry);
	if (rc)
		die("LOOKUP %s: %d", name, rc);
	if (cfs_le64_to_cpu(entry.attr.size) != bytes)
		die("%s has %llu bytes, not %llu", name,
		    (unsigned long long)cfs_le64_to_cpu(entry.attr.size),
		    (unsigned long long)bytes);
	open.ino = entry.attr.ino;
	open.want = cfs_cpu_to_le32(CFS_LEASE_SHARED);
	rc = call(CFS_OP_OPEN, &open, sizeof(open), NULL, 0);
	if (rc || body_len < sizeof(rep))
		die("OPEN: %d", rc);
	memcpy(&rep, body, sizeof(rep));
	n = cfs_le32_to_cpu(rep.n_extents);
	if (rep.inline_len || body_len != sizeof(rep) + n * sizeof(*ext))
		die("OPEN: a body of %u bytes for %u extents", body_len, n);
	ext = malloc(n * sizeof(*ext) + 1);
	memcpy(ext, body + sizeof(rep), n * sizeof(*ext));
	for (uint32_t i = 0; i < n; i++) {
		check_extent(&ext[i], seed);
		seen += cfs_le32_to_cpu(ext[i].len);
	}
	if (seen != bytes)
		die("the extents hold %llu bytes, not %llu", (unsigned long long)seen,
		    (unsigned long long)bytes);
	free(ext);
	close_session();
}

static void cmd_make(const char *prefix, unsigned n)
{
	struct cfs_entry_rep entry;
	char name[CFS_NAME_MAX + 1];
	unsigned i;
	int rc = 0;

	open_session();
	for (i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s%u", prefix, i);
		rc = mknode(name, &entry);
		if (rc)
			break;
		printf("%u\n", i + 1);
		fflush(stdout);
	}
	if (rc)
		die("MKNODE %s: %d", name, rc);
	close_session();
}

static void cmd_count(const char *prefix, unsigned n)
{
	struct cfs_entry_rep entry;
	char name[CFS_NAME_MAX + 1];
	unsigned found = 0;

	open_session();
	for (unsigned i = 0; i < n; i++) {
		int rc;

		snprintf(name, sizeof(name), "%s%u", prefix, i);
		rc = lookup(name, &entry);
		if (rc && rc != ENOENT)
			die("LOOKUP %s: %d", name, rc);
		found += rc == 0;
	}
	close_session();
	printf("%u\n", found);
}

static void cmd_rm(const char *name)
{
	struct {
		struct cfs_unlink_req req;
		char name[CFS_NAME_MAX];
	} un = { .req = { .dir = cfs_cpu_to_le64(CFS_INO_ROOT),
			  .name_len = cfs_cpu_to_le32((uint32_t)strlen(name)) } };
	int rc;

	memcpy(un.name, name, strlen(name));
	open_session();
	rc = call(CFS_OP_UNLINK, &un, (uint32_t)(sizeof(un.req) + strlen(name)), NULL, 0);
	if (rc)
		die("UNLINK %s: %d", name, rc);
	close_session();
}

static void cmd_status(void)
{
	int rc = dial(CFS_ROLE_ADMIN, 0);

	if (!rc)
		rc = call(CFS_OP_STATUS, NULL, 0, NULL, 0);
	if (rc)
		die("STATUS: %d", rc);
	fwrite(body, 1, body_len, stdout);
	putchar('\n');
}

static void cmd_map(void)
{
	struct cfs_map_target t;
	struct cfs_map_rep map;
	int rc = dial(CFS_ROLE_ADMIN, 0);

	if (!rc)
		rc = call(CFS_OP_MAP, NULL, 0, NULL, 0);
	if (rc || body_len < sizeof(map))
		die("MAP: %d", rc);
	memcpy(&map, body, sizeof(map));
	printf("epoch %llu pgs %u\n", (unsigned long long)cfs_le64_to_cpu(map.epoch),
	       cfs_le32_to_cpu(map.n_pgs));
	for (uint32_t i = 0; i < cfs_le32_to_cpu(map.n_targets); i++) {
		memcpy(&t, body + sizeof(map) + i * sizeof(t), sizeof(t));
		printf("target %u %s\n", cfs_le32_to_cpu(t.id), t.addr);
	}
}

/* ---- what must be refused -------------------------------------------------------------------- */

static unsigned tests;

static void is(int got, int want, const char *what)
{
	tests++;
	if (got == want)
		printf("ok %u - %s\n", tests, what);
	else
		printf("not ok %u - %s\n# got %d, wanted %d\n", tests, what, got, want);
}

/* a HELLO of our making; the status, or -errno */
static int odd_hello(uint32_t min, uint32_t max, uint64_t features, uint8_t cluster, uint32_t role,
		     uint32_t len)
{
	struct cfs_hello_req req = { .version_min = cfs_cpu_to_le32(min),
				     .version_max = cfs_cpu_to_le32(max),
				     .features = cfs_cpu_to_le64(features),
				     .role = cfs_cpu_to_le32(role) };
	struct cfs_msg_hdr hdr;
	int rc;

	memset(req.cluster, cluster, sizeof(req.cluster));
	cfs_rpc_close(conn);
	conn = NULL;
	rc = cfs_rpc_connect(addr, 5000, &conn);
	if (rc)
		return rc;
	cfs_hdr_init(&hdr, CFS_OP_HELLO);
	return call_raw(&hdr, &req, len, NULL, 0);
}

/* is the connection closed by the server? */
static int closed(uint64_t wait_ns)
{
	struct cfs_rpc_reply r = { .body = body, .body_max = sizeof(body), .payload = payload,
		.payload_max = CFS_PAYLOAD_MAX };
	uint64_t end = cfs_boot_ns() + wait_ns;
	int rc;

	do
		rc = cfs_rpc_recv(conn, &r, -1, end);
	while (!rc && cfs_boot_ns() < end);
	return rc == -EPIPE || rc == -ECONNRESET;
}

static void too_many(void)
{
	struct cfs_msg_hdr hdr;
	int rc = 0;

	/*
	 * LOOKUPs fill no credits, they are answered at once; blocking locks stay, all but the
	 * first
	 */
	for (unsigned i = 0; i < 200 && !rc; i++) {
		struct cfs_lock_req req = { .ino = cfs_cpu_to_le64(CFS_INO_ROOT),
					    .owner = cfs_cpu_to_le64(i + 1),
					    .end = cfs_cpu_to_le64(INT64_MAX),
					    .space = CFS_LOCK_FLOCK,
					    .kind = CFS_LOCK_WRITE,
					    .wait = 1 };
		struct iovec iov = { .iov_base = &req, .iov_len = sizeof(req) };

		cfs_hdr_init(&hdr, CFS_OP_LOCK);
		hdr.tag = cfs_cpu_to_le64(10000 + i);
		hdr.session = cfs_cpu_to_le64(session);
		hdr.slot = cfs_cpu_to_le32(i % 200);
		hdr.seq = cfs_cpu_to_le64(1);
		rc = cfs_rpc_send(conn, &hdr, &iov, 1, NULL, 0, cfs_boot_ns() + WAIT_NS);
	}
	is(rc || closed(5 * CFS_NSEC_PER_SEC), 1, "more requests than granted end the connection");
}

static void many_slots_session(void)
{
	struct cfs_session_open_req req = { .slots = cfs_cpu_to_le32(256) };
	struct cfs_session_open_rep rep;

	if (dial(CFS_ROLE_WORKER, 0) ||
	    getrandom(req.nonce, sizeof(req.nonce), 0) != sizeof(req.nonce) ||
	    call(CFS_OP_SESSION_OPEN, &req, sizeof(req), NULL, 0))
		die("SESSION_OPEN");
	memcpy(&rep, body, sizeof(rep));
	session = cfs_le64_to_cpu(rep.session);
	if (dial(CFS_ROLE_WORKER, session))
		die("HELLO with session");
}

static void objects_refused(void)
{
	struct cfs_oid oid = { .owner = cfs_cpu_to_le64(session), .seq = cfs_cpu_to_le64(77) };
	struct cfs_oid other = { .owner = cfs_cpu_to_le64(session + 1),
				 .seq = cfs_cpu_to_le64(77) };
	struct cfs_obj_read_req rd = { .oid = oid, .len = cfs_cpu_to_le32(4096) };
	struct {
		struct cfs_obj_delete_req req;
		struct cfs_oid oid;
	} del = { .req = { .n = cfs_cpu_to_le32(1) } };
	struct cfs_obj_list_req list = { .max = cfs_cpu_to_le32(10) };
	static uint8_t data[8192] __attribute__((aligned(4096)));
	uint64_t mine = session;

	is(call(CFS_OP_OBJ_READ, &rd, sizeof(rd), NULL, 0), CFS_E_NOOBJECT, "no such object");
	rd.target = cfs_cpu_to_le32(99);
	is(call(CFS_OP_OBJ_READ, &rd, sizeof(rd), NULL, 0), CFS_E_MAPEPOCH, "no such target");
	rd.target = 0;
	rd.len = cfs_cpu_to_le32(CFS_OBJECT_MAX);
	rd.off = cfs_cpu_to_le32(1);
	is(call(CFS_OP_OBJ_READ, &rd, sizeof(rd), NULL, 0), CFS_E_PROTO,
	   "a read beyond the largest object");
	is(obj_write(other, 0, data, sizeof(data)), CFS_E_PROTO,
	   "an object in another session's name");
	session = mine + 1000;
	is(obj_write((struct cfs_oid){ .owner = cfs_cpu_to_le64(session),
				       .seq = cfs_cpu_to_le64(1) },
		     0, data, sizeof(data)),
	   CFS_E_BADSESSION, "an object of a session that is not");
	session = mine;
	is(obj_write(oid, 0, data, sizeof(data)), 0, "an object");
	is(obj_write(oid, 0, data, sizeof(data)), 0, "the same again");
	data[5000] = 1;
	is(obj_write(oid, 0, data, sizeof(data)), EEXIST, "other bytes under its name");
	data[5000] = 0;
	map_epoch--;
	is(map_epoch ? call(CFS_OP_OBJ_READ, &rd, sizeof(rd), NULL, 0) == CFS_E_MAPEPOCH : 1, 1,
	   "an old map");
	map_epoch++;
	del.oid = other;
	is(call(CFS_OP_OBJ_DELETE, &del, sizeof(del), NULL, 0), EPERM,
	   "deleting another session's object");
	is(call(CFS_OP_OBJ_LIST, &list, sizeof(list), NULL, 0), 0, "listing objects");
	is(body_len >= sizeof(struct cfs_obj_list_rep) + sizeof(struct cfs_obj_list_entry), 1,
	   "finds ours");
	del.oid = oid;
	is(call(CFS_OP_OBJ_DELETE, &del, sizeof(del), NULL, 0), 0, "deleting our own");
	rd = (struct cfs_obj_read_req){ .oid = oid, .len = cfs_cpu_to_le32(4096) };
	is(call(CFS_OP_OBJ_READ, &rd, sizeof(rd), NULL, 0), CFS_E_NOOBJECT, "it is gone");
	is(call(CFS_OP_OBJ_DELETE, &del, sizeof(del), NULL, 0), 0, "deleting it again");
	list.max = cfs_cpu_to_le32(CFS_OBJ_LIST_MAX + 1);
	is(call(CFS_OP_OBJ_LIST, &list, sizeof(list), NULL, 0), CFS_E_PROTO,
	   "a list longer than allowed");
	del.req.n = cfs_cpu_to_le32(2);
	is(call(CFS_OP_OBJ_DELETE, &del, sizeof(del), NULL, 0), CFS_E_PROTO,
	   "a list shorter than it says");
	is(call(CFS_OP_OBJ_READ, &rd, sizeof(rd) - 1, NULL, 0), CFS_E_PROTO, "a short body");
	is(call(CFS_OP_OBJ_LIST, &list, sizeof(list), data, 4096), CFS_E_PROTO,
	   "a payload where there is none");
}

static void cmd_protocol(void)
{
	struct cfs_msg_hdr hdr;

	is(odd_hello(2, 3, 0, 0, CFS_ROLE_ADMIN, 40), CFS_E_VERSION,
	   "HELLO with newer versions only");
	is(closed(5 * CFS_NSEC_PER_SEC), 1, "ends the connection");
	is(odd_hello(0, 1, 0, 0, CFS_ROLE_ADMIN, 40), 0, "HELLO with a range of versions");
	is(odd_hello(1, 1, 0, 0xee, CFS_ROLE_ADMIN, 40), CFS_E_CLUSTER, "HELLO of another cluster");
	is(odd_hello(1, 1, 0, 0, CFS_ROLE_PEER, 40), CFS_E_CLUSTER, "a peer that names no cluster");
	is(odd_hello(1, 1, 0, 0, 9, 40), CFS_E_PROTO, "HELLO in no known role");
	is(odd_hello(1, 1, 1ull << 63, 0, CFS_ROLE_ADMIN, 40), CFS_E_PROTO, "HELLO with unknown features");
	is(odd_hello(1, 1, 0, 0, CFS_ROLE_ADMIN, 39), CFS_E_PROTO, "a short HELLO");
	is(dial(CFS_ROLE_WORKER, 123456789), CFS_E_BADSESSION, "HELLO with a session that is not");
	is((int)cfs_le32_to_cpu(hello.version), 1, "tells its version all the same");

	cfs_rpc_close(conn);
	conn = NULL;
	if (cfs_rpc_connect(addr, 5000, &conn))
		die("connect");
	cfs_hdr_init(&hdr, CFS_OP_STATUS);
	is(call_raw(&hdr, NULL, 0, NULL, 0) < 0, 1, "a request before HELLO ends the connection");

	is(dial(CFS_ROLE_ADMIN, 0), 0, "HELLO as administrator");
	is((int)cfs_le32_to_cpu(hello.credits), CFS_CREDITS_DEFAULT, "grants credits");
	is(call(999, NULL, 0, NULL, 0), CFS_E_PROTO, "an unknown opcode");
	is(call(CFS_OP_RAFT, NULL, 0, NULL, 0), CFS_E_PROTO, "Raft from an administrator");
	is(call(CFS_OP_STATUS, NULL, 0, NULL, 0), 0, "STATUS");
	is(body_len > 100 && body[0] == '{', 1, "is JSON");

	open_session();
	is(call(CFS_OP_STATUS, NULL, 0, NULL, 0), 0, "STATUS in a session");
	objects_refused();
	close_session();
	many_slots_session();
	too_many();

	cfs_rpc_close(conn);
	conn = NULL;
	if (cfs_rpc_connect(addr, 5000, &conn))
		die("connect");
	is(closed(8 * CFS_NSEC_PER_SEC), 1, "silence instead of HELLO ends the connection");
	printf("1..%u\n", tests);
}

int main(int argc, char **argv)
{
	const char *cmd = argc > 2 ? argv[2] : "";

	payload = aligned_alloc(4096, CFS_PAYLOAD_MAX);
	addr = argc > 1 ? argv[1] : "";
	if (!strcmp(cmd, "write") && argc == 6)
		cmd_write(argv[3], strtoull(argv[4], NULL, 0), strtoull(argv[5], NULL, 0));
	else if (!strcmp(cmd, "check") && argc == 6)
		cmd_check(argv[3], strtoull(argv[4], NULL, 0), strtoull(argv[5], NULL, 0));
	else if (!strcmp(cmd, "make") && argc == 5)
		cmd_make(argv[3], (unsigned)atoi(argv[4]));
	else if (!strcmp(cmd, "count") && argc == 5)
		cmd_count(argv[3], (unsigned)atoi(argv[4]));
	else if (!strcmp(cmd, "rm") && argc == 4)
		cmd_rm(argv[3]);
	else if (!strcmp(cmd, "status") && argc == 3)
		cmd_status();
	else if (!strcmp(cmd, "map") && argc == 3)
		cmd_map();
	else if (!strcmp(cmd, "protocol") && argc == 3)
		cmd_protocol();
	else
		die("usage: rawclient ADDR write|check|make|count|rm|status|map|protocol ...");
	cfs_rpc_close(conn);
	free(payload);
	return 0;
}
