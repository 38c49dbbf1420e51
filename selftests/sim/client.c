/* SPDX-License-Identifier: MIT */
/*
 * client.c - a protocol client as a step machine, as docs/leases.md wants it: connections that are made again, a session,
 * requests with slots that are repeated as they were, heartbeats and the deadline, RECLAIM, answers to recalls, and the
 * caches that all this is about. What may be kept is decided by client/leasecheck.h, the real client's code.
 *
 * Everything happens in its node's callbacks. client_reset() makes a new life.
 */
#include "sim_i.h"

#define TICK_NS		(2 * MS)
#define SILENT_NS	(3000 * MS)	/* a request without an answer for that long: another connection */

uint64_t client_clock(struct client_s *c)
{
	return cfs_clock_boot_ns(cfs_sim_node_clock(c->sn));
}

/* ---- caches -------------------------------------------------------------------------------------------------- */

struct name_ent *name_find(struct client_s *c, uint64_t dir, unsigned name)
{
	for (unsigned i = 0; i < CACHE; i++)
		if (c->names[i].dir == dir && c->names[i].name == name)
			return &c->names[i];
	return NULL;
}

struct attr_ent *attr_find(struct client_s *c, uint64_t ino)
{
	cfs_le64 le = cfs_cpu_to_le64(ino);

	for (unsigned i = 0; i < CACHE; i++)
		if (c->attrs[i].attr.ino == le)
			return &c->attrs[i];
	return NULL;
}

struct file_ent *file_find(struct client_s *c, uint64_t ino)
{
	for (unsigned i = 0; i < CACHE; i++)
		if (c->files[i].ino == ino)
			return &c->files[i];
	return NULL;
}

struct file_ent *file_make(struct client_s *c, uint64_t ino)
{
	struct file_ent *f = file_find(c, ino);

	if (f)
		return f;
	f = file_find(c, 0);
	if (!f) {
		fail("client %u knows more files than the simulator has room for", c->i);
		return &c->files[0];
	}
	*f = (struct file_ent){ .ino = ino, .data = xcalloc(FILE_MAX) };
	return f;
}

void file_drop(struct client_s *c, struct file_ent *f)
{
	uint64_t ino = f->ino;
	bool dirty = f->dirty;

	free(f->data);
	memset(f, 0, sizeof(*f));
	if (dirty) {
		c->mine_ns[ino] = now();
		dirty_drop(c, ino);
	}
}

bool has_dir(struct client_s *c, uint64_t dir)
{
	for (unsigned i = 0; i < CACHE; i++)
		if (c->dirs[i] == dir)
			return true;
	return false;
}

void keep_dir(struct client_s *c, uint64_t dir)
{
	if (has_dir(c, dir))
		return;
	for (unsigned i = 0; i < CACHE; i++) {
		if (!c->dirs[i]) {
			c->dirs[i] = dir;
			return;
		}
	}
}

void forget_name(struct client_s *c, uint64_t dir, unsigned name)
{
	struct name_ent *n = name_find(c, dir, name);

	if (n)
		n->dir = 0;
}

void forget_attr(struct client_s *c, uint64_t ino)
{
	struct attr_ent *a = attr_find(c, ino);

	if (a)
		a->attr.ino = 0;
}

void forget_dir(struct client_s *c, uint64_t dir)
{
	cfs_le64 le = cfs_cpu_to_le64(dir);

	for (unsigned i = 0; i < CACHE; i++) {
		if (c->names[i].dir == dir)
			c->names[i].dir = 0;
		if (c->attrs[i].attr.parent == le || c->attrs[i].attr.ino == le)
			c->attrs[i].attr.ino = 0;
		if (c->dirs[i] == dir)
			c->dirs[i] = 0;
	}
}

void forget_all(struct client_s *c)
{
	cfs_breaks_note(&c->breaks, CFS_BRK_ALL, 0, 0, NULL, 0);
	for (unsigned i = 0; i < CACHE; i++) {
		c->names[i].dir = 0;
		c->attrs[i].attr.ino = 0;
		c->dirs[i] = 0;
		if (c->files[i].ino)
			file_drop(c, &c->files[i]);
	}
}

/* ---- sending ----------------------------------------------------------------------------------------------------- */

static void payload_done(void *arg)
{
	free(arg);
}

/* 0 or -errno; hdr without session */
static int link_send(struct link *l, struct cfs_msg_hdr *hdr, const void *body, uint32_t len, const void *payload, uint32_t payload_len)
{
	struct cfs_send send = { .body = body, .body_len = len };
	void *copy = NULL;
	int rc;

	hdr->session = cfs_cpu_to_le64(l->c->session);
	send.hdr = *hdr;
	if (payload_len) {
		if (posix_memalign(&copy, 4096, cfs_align_up(payload_len, 4096)))
			abort();
		memcpy(copy, payload, payload_len);
		send.payload = copy;
		send.payload_len = payload_len;
		send.payload_done = payload_done;
		send.payload_arg = copy;
	}
	rc = l->conn ? cfs_conn_send(l->conn, &send) : -EPIPE;
	if (rc)
		free(copy);
	return rc;
}

static void link_drop(struct link *l, uint64_t wait_ns)
{
	struct cfs_conn *conn = l->conn;
	struct client_s *c = l->c;

	l->conn = NULL;
	l->ready = false;
	l->retry_ns = client_clock(c) + wait_ns + cfs_sim_below(W->sim, 20 * MS);
	if (conn) {
		conn->user = NULL;
		cfs_conn_close(conn);
	}
	for (unsigned t = 0; t < SLOTS; t++)
		if (c->th[t].r.busy && c->th[t].r.via == l->i)
			c->th[t].r.sent = false;
	if (l->i == CALLBACK) {		/* unanswered recalls come again */
		c->n_owed = 0;
		c->beat_tag = 0;
	}
	if (l->i == 0) {
		c->reclaim_tag = 0;
		c->open_req.sent = false;
	}
}

void req_send(struct client_s *c, unsigned t)
{
	struct req *r = &c->th[t].r;
	struct cfs_msg_hdr hdr;
	unsigned via = (unsigned)cfs_sim_below(W->sim, 2);

	if (c->state != CL_UP || c->epoch != c->seen_epoch)
		return;
	if (!c->links[via].ready)
		via = 1 - via;
	if (!c->links[via].ready || c->links[via].epoch != c->epoch)
		return;
	cfs_hdr_init(&hdr, r->op);
	r->tag = ++c->tag;
	hdr.tag = cfs_cpu_to_le64(r->tag);
	if (r->mutates) {
		hdr.slot = cfs_cpu_to_le32(t);
		hdr.seq = cfs_cpu_to_le64(r->seq);
	}
	r->gen = cfs_breaks_gen(&c->breaks);
	r->via = via;
	r->sent_ns = client_clock(c);
	r->sent = !link_send(&c->links[via], &hdr, r->body, r->len, r->payload, r->payload_len);
}

/* the body is in place */
void req_start(struct client_s *c, unsigned t, uint16_t op, uint32_t len)
{
	struct req *r = &c->th[t].r;

	CFS_ASSERT(len <= sizeof(r->body));
	r->busy = true;
	r->sent = false;
	r->bad = false;
	r->op = op;
	r->len = len;
	r->mutates = cfs_op_mutates(op);
	r->inv_ns = now();
	r->again_ns = 0;
	if (r->mutates)
		r->seq++;
	req_send(c, t);
}

void req_aside(struct client_s *c, uint16_t op, const void *body, uint32_t len)
{
	struct cfs_msg_hdr hdr;

	cfs_hdr_init(&hdr, op);
	hdr.tag = cfs_cpu_to_le64(++c->tag);
	if (c->links[0].ready)
		link_send(&c->links[0], &hdr, body, len, NULL, 0);
}

/* ---- session ------------------------------------------------------------------------------------------------------- */

bool client_live(struct client_s *c)
{
	return c->state == CL_UP && client_clock(c) < c->deadline_ns;
}

/* the session is no more: everything goes, requests under way end without an answer */
static void session_lost(struct client_s *c)
{
	trace("client %u loses session %" PRIu64, c->i, c->session);
	W->st.lost_sessions++;
	forget_all(c);
	c->session = 0;
	c->state = CL_OPENING;
	c->n_owed = 0;
	c->open_req.busy = c->open_req.sent = false;
	for (unsigned t = 0; t < SLOTS; t++) {
		uint8_t *buf = c->th[t].buf;

		memset(&c->th[t], 0, sizeof(c->th[t]));
		c->th[t].buf = buf;
	}
	for (unsigned i = 0; i < CONNS; i++)
		link_drop(&c->links[i], 0);
}

static void send_open(struct client_s *c)
{
	struct cfs_session_open_req req = { .slots = cfs_cpu_to_le32(SLOTS) };
	struct cfs_msg_hdr hdr;

	if (!c->open_req.busy) {
		for (unsigned i = 0; i < 16; i++)
			c->nonce[i] = (uint8_t)cfs_sim_random(W->sim);
		c->open_req.busy = true;
		c->open_ns = client_clock(c);
	}
	memcpy(req.nonce, c->nonce, sizeof(req.nonce));
	cfs_hdr_init(&hdr, CFS_OP_SESSION_OPEN);
	c->open_req.tag = ++c->tag;
	hdr.tag = cfs_cpu_to_le64(c->open_req.tag);
	c->open_req.sent_ns = client_clock(c);
	c->open_req.sent = !link_send(&c->links[0], &hdr, &req, sizeof(req), NULL, 0);
}

static void on_opened(struct client_s *c, struct cfs_msg *msg)
{
	uint32_t status = cfs_le32_to_cpu(msg->hdr.status);

	c->open_req.sent = false;
	if (status) {
		link_drop(&c->links[0], 50 * MS);
		return;
	}
	c->open_req.busy = false;
	c->session = cfs_get_le64(msg->body);
	c->state = CL_UP;
	c->oid_seq = 0;
	c->epoch = c->seen_epoch = c->links[0].epoch;
	c->deadline_ns = c->open_ns + LEASE_MS * MS;
	c->expired = false;
	trace("client %u has session %" PRIu64, c->i, c->session);
	for (unsigned i = 0; i < CONNS; i++)
		link_drop(&c->links[i], 0);
}

static void heartbeat(struct client_s *c)
{
	struct cfs_msg_hdr hdr;

	cfs_hdr_init(&hdr, CFS_OP_HEARTBEAT);
	c->beat_tag = ++c->tag;
	hdr.tag = cfs_cpu_to_le64(c->beat_tag);
	c->beat_ns = client_clock(c);
	if (link_send(&c->links[CALLBACK], &hdr, NULL, 0, NULL, 0))
		c->beat_tag = 0;
	c->next_beat_ns = c->beat_ns + LEASE_MS * MS / 4;
}

static void new_epoch(struct client_s *c, uint64_t epoch)
{
	if (epoch && epoch != c->seen_epoch) {
		trace("client %u sees epoch %" PRIu64, c->i, epoch);
		c->seen_epoch = epoch;
		c->reclaim_tag = 0;
	}
}

static void on_beat(struct client_s *c, struct cfs_msg *msg)
{
	uint32_t status = cfs_le32_to_cpu(msg->hdr.status);

	if (cfs_le64_to_cpu(msg->hdr.tag) != c->beat_tag)
		return;
	c->beat_tag = 0;
	if (status == CFS_E_BADSESSION) {
		session_lost(c);
		return;
	}
	if (status || cfs_le32_to_cpu(msg->hdr.body_len) < sizeof(struct cfs_heartbeat_rep)) {
		link_drop(&c->links[CALLBACK], 50 * MS);
		return;
	}
	if (cfs_get_le64(msg->body) != c->epoch) {
		new_epoch(c, cfs_get_le64(msg->body));
		return;
	}
	if (client_clock(c) >= c->deadline_ns)
		forget_all(c);
	c->deadline_ns = c->beat_ns + LEASE_MS * MS;
	c->expired = false;
}

/* ---- RECLAIM --------------------------------------------------------------------------------------------------------- */

static void send_reclaim(struct client_s *c)
{
	struct cfs_lease_list list = { .flags = cfs_cpu_to_le32(CFS_RECLAIM_LAST) };
	uint8_t body[sizeof(list) + sizeof(c->reclaim)];
	struct cfs_msg_hdr hdr;
	unsigned n = 0;

	if (client_clock(c) >= c->deadline_ns && !c->expired) {
		c->expired = true;
		forget_all(c);
	}
	memset(c->reclaim, 0, sizeof(c->reclaim));
	for (unsigned i = 0; i < CACHE; i++) {
		if (c->dirs[i] && n < CFS_ARRAY_SIZE(c->reclaim))
			c->reclaim[n++] = (struct cfs_lease_item){ .ino = cfs_cpu_to_le64(c->dirs[i]), .mode = CFS_LEASE_SHARED };
		if (c->files[i].ino && (c->files[i].lease || c->files[i].open) && n < CFS_ARRAY_SIZE(c->reclaim))
			c->reclaim[n++] = (struct cfs_lease_item){ .ino = cfs_cpu_to_le64(c->files[i].ino),
				.mode = (uint8_t)c->files[i].lease, .open = c->files[i].open };
	}
	list.n = cfs_cpu_to_le32(n);
	memcpy(body, &list, sizeof(list));
	memcpy(body + sizeof(list), c->reclaim, n * sizeof(c->reclaim[0]));
	c->n_reclaim = n;
	c->reclaim_gen = cfs_breaks_gen(&c->breaks);
	cfs_hdr_init(&hdr, CFS_OP_RECLAIM);
	c->reclaim_tag = ++c->tag;
	hdr.tag = cfs_cpu_to_le64(c->reclaim_tag);
	c->reclaim_ns = client_clock(c);
	W->st.reclaims++;
	if (link_send(&c->links[0], &hdr, body, (uint32_t)(sizeof(list) + n * sizeof(c->reclaim[0])), NULL, 0))
		c->reclaim_tag = 0;
}

static void lower(struct client_s *c, uint64_t ino, unsigned mode)
{
	struct file_ent *f = file_find(c, ino);

	if (!f)
		return;
	if (f->lease > mode)
		f->lease = mode;
	forget_attr(c, ino);
	if (!mode) {
		if (f->dirty) {
			f->dirty = false;
			c->mine_ns[ino] = now();
			dirty_drop(c, ino);
		}
		f->known = false;
	}
	if (!mode && !f->open && !f->orphan && !f->flushing)
		file_drop(c, f);
}

static void on_reclaimed(struct client_s *c, struct cfs_msg *msg)
{
	uint32_t status = cfs_le32_to_cpu(msg->hdr.status), n;
	const uint8_t *p = msg->body;

	c->reclaim_tag = 0;
	if (status == CFS_E_BADSESSION) {
		session_lost(c);
		return;
	}
	if (status || cfs_le32_to_cpu(msg->hdr.body_len) < sizeof(struct cfs_lease_list)) {
		link_drop(&c->links[0], 50 * MS);
		return;
	}
	n = cfs_get_le32(p);
	if (n != c->n_reclaim) {
		fail("RECLAIM of %u leases is answered with %u", c->n_reclaim, n);
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		struct cfs_lease_item it;
		uint64_t ino;

		cfs_copy_elem(&it, p + sizeof(struct cfs_lease_list), i);
		ino = cfs_le64_to_cpu(it.ino);
		if (it.ino != c->reclaim[i].ino)
			fail("RECLAIM is answered about inode %" PRIu64 " in place of %" PRIu64, ino, cfs_le64_to_cpu(c->reclaim[i].ino));
		if (it.mode >= c->reclaim[i].mode && it.mode)
			continue;
		if (has_dir(c, ino))
			forget_dir(c, ino);
		if (file_find(c, ino))
			lower(c, ino, it.mode);
		cfs_breaks_note(&c->breaks, CFS_BRK_DIR | CFS_BRK_DATA | CFS_BRK_ATTR, ino, ino, NULL, 0);
	}
	c->epoch = c->links[0].epoch;
	trace("client %u has reclaimed %u leases in epoch %" PRIu64, c->i, n, c->epoch);
}

/* ---- recalls ------------------------------------------------------------------------------------------------------------ */

/* what was cached, and written and not saved, goes before anybody is told anything */
static void look_at_deadline(struct client_s *c)
{
	if (client_clock(c) < c->deadline_ns || c->expired)
		return;
	trace("client %u: the deadline has passed", c->i);
	W->st.expired++;
	c->expired = true;
	forget_all(c);
}

static void on_ask(struct client_s *c, struct cfs_msg *msg)
{
	uint64_t ino = cfs_get_le64(msg->body), t = cfs_clock_real_ns(cfs_sim_node_clock(c->sn));
	struct cfs_ask_rep rep = { 0 };
	struct cfs_msg_hdr hdr;
	struct file_ent *f;

	W->st.asks++;
	if (c->state == CL_UP)
		look_at_deadline(c);
	f = file_find(c, ino);
	if (f && f->dirty && client_live(c)) {
		rep.known = cfs_cpu_to_le32(1);
		rep.size = cfs_cpu_to_le64(f->size);
		rep.alloc = cfs_cpu_to_le64(cfs_align_up(f->size, 512));
		rep.mtime.sec = rep.ctime.sec = cfs_cpu_to_le64(t / CFS_NSEC_PER_SEC);
		rep.mtime.nsec = rep.ctime.nsec = cfs_cpu_to_le32((uint32_t)(t % CFS_NSEC_PER_SEC));
	}
	trace("client %u is asked about %" PRIu64 ": size %" PRIu64 "%s", c->i, ino, cfs_le64_to_cpu(rep.size), rep.known ? "" : ", not known");
	cfs_hdr_init_reply(&hdr, &msg->hdr, 0);
	link_send(&c->links[CALLBACK], &hdr, &rep, sizeof(rep), NULL, 0);
}

static void on_break(struct client_s *c, struct cfs_msg *msg)
{
	uint32_t n = cfs_get_le32(msg->body);
	struct cfs_cursor cur;
	struct owed *o;

	W->st.breaks++;
	for (unsigned i = 0; i < c->n_owed; i++)
		if (c->owed[i].tag == cfs_le64_to_cpu(msg->hdr.tag))
			return;		/* again: the answer is on its way to be made */
	if (c->n_owed == BREAKS || n > CFS_BREAK_MAX) {
		fail("client %u: too many recalls", c->i);
		return;
	}
	o = &c->owed[c->n_owed++];
	memset(o, 0, sizeof(*o));
	o->tag = cfs_le64_to_cpu(msg->hdr.tag);
	o->n = n;
	o->at_ns = client_clock(c) + cfs_sim_below(W->sim, c->lazy ? 4000 * MS : cfs_sim_chance(W->sim, 50000) ? 300 * MS : 2 * MS);
	cfs_cursor_init(&cur, msg->body, cfs_le32_to_cpu(msg->hdr.body_len));
	cfs_take(&cur, sizeof(struct cfs_break_req), "n");
	for (uint32_t i = 0; i < n; i++) {
		struct cfs_break_item it;
		const char *name;
		uint32_t flags;
		int k;

		cfs_take_struct(&cur, &it);
		name = cfs_take(&cur, cfs_le16_to_cpu(it.name_len), "name");
		if (cur.err) {
			fail("a recall that ends within an item");
			return;
		}
		flags = cfs_le32_to_cpu(it.flags);
		o->it[i].dir = cfs_le64_to_cpu(it.dir);
		o->it[i].ino = cfs_le64_to_cpu(it.ino);
		o->it[i].flags = flags;
		o->it[i].to_mode = it.to_mode;
		k = name_index(name, cfs_le16_to_cpu(it.name_len));
		trace("client %u is asked to give up flags %x dir %" PRIu64 " ino %" PRIu64 " name %d to %u", c->i, flags, o->it[i].dir,
		      o->it[i].ino, k, it.to_mode);
		cfs_breaks_note(&c->breaks, flags, o->it[i].dir, o->it[i].ino, flags & CFS_BRK_NAME ? name : NULL,
				cfs_le16_to_cpu(it.name_len));
		if (flags & CFS_BRK_NAME && k >= 0)
			forget_name(c, o->it[i].dir, (unsigned)k);
		if (flags & CFS_BRK_DIRATTR)
			forget_attr(c, o->it[i].dir);
		if (flags & CFS_BRK_DIR)
			forget_dir(c, o->it[i].dir);
		if (flags & (CFS_BRK_ATTR | CFS_BRK_DATA | CFS_BRK_UNLINK))
			forget_attr(c, o->it[i].ino);
	}
}

bool client_owes_data(struct client_s *c, uint64_t ino)
{
	for (unsigned i = 0; i < c->n_owed; i++)
		for (unsigned k = 0; k < c->owed[i].n; k++)
			if (c->owed[i].it[k].flags & CFS_BRK_DATA && c->owed[i].it[k].ino == ino)
				return true;
	return false;
}

/* does a recall still wait for a flush? Starts it */
static bool must_flush(struct client_s *c, struct owed *o)
{
	bool wait = false;

	for (unsigned i = 0; i < o->n; i++) {
		struct file_ent *f = o->it[i].flags & CFS_BRK_DATA ? file_find(c, o->it[i].ino) : NULL;

		if (!f || (!f->dirty && !f->flushing))
			continue;
		wait = true;
		for (unsigned t = THREADS; t < SLOTS && !f->flushing; t++)
			if (!c->th[t].r.busy && c->th[t].job == JOB_NONE)
				flush_start(c, t, f);
	}
	return wait;
}

static void answer(struct client_s *c, const struct owed *o)
{
	struct {
		struct cfs_break_rep rep;
		uint8_t how[CFS_BREAK_MAX];
	} b = { .rep.n = cfs_cpu_to_le32(o->n) };
	struct cfs_msg_hdr req, hdr;

	for (unsigned i = 0; i < o->n; i++) {
		struct file_ent *f = file_find(c, o->it[i].ino);

		if (o->it[i].flags & CFS_BRK_DATA && f) {
			if (!o->it[i].to_mode && cfs_sim_chance(W->sim, 250000))
				f->open = true;
			if (f->open)
				b.how[i] |= CFS_BRKR_OPEN;
			lower(c, o->it[i].ino, o->it[i].to_mode);
		}
		f = file_find(c, o->it[i].ino);
		if (o->it[i].flags & CFS_BRK_UNLINK && f) {
			if (f->dirty || f->flushing || f->open || cfs_sim_chance(W->sim, 300000)) {
				b.how[i] |= CFS_BRKR_OPEN;
				f->open = f->orphan = true;
			} else {
				file_drop(c, f);
			}
		}
	}
	cfs_hdr_init(&req, CFS_OP_CB_BREAK);
	req.tag = cfs_cpu_to_le64(o->tag);
	cfs_hdr_init_reply(&hdr, &req, 0);
	link_send(&c->links[CALLBACK], &hdr, &b, (uint32_t)(sizeof(b.rep) + o->n), NULL, 0);
}

static void answer_due(struct client_s *c)
{
	for (unsigned i = 0; i < c->n_owed; i++) {
		struct owed o = c->owed[i];

		if (o.at_ns > client_clock(c) || must_flush(c, &c->owed[i]))
			continue;
		c->owed[i] = c->owed[--c->n_owed];
		i--;
		answer(c, &o);
	}
}

/* ---- connections ------------------------------------------------------------------------------------------------------------ */

static void on_hello(struct link *l, struct cfs_msg *msg)
{
	uint32_t status = cfs_le32_to_cpu(msg->hdr.status);
	struct client_s *c = l->c;
	struct cfs_hello_rep rep;

	if (status == CFS_E_BADSESSION && c->session) {
		session_lost(c);
		return;
	}
	if (status || cfs_le32_to_cpu(msg->hdr.body_len) != sizeof(rep)) {
		fail("HELLO is answered with %u", status);
		return;
	}
	memcpy(&rep, msg->body, sizeof(rep));
	if (!rep.leader_epoch) {	/* it leads nothing, or not yet */
		c->server = (c->server + 1) % W->n_servers;
		link_drop(l, 20 * MS);
		return;
	}
	l->epoch = cfs_le64_to_cpu(rep.leader_epoch);
	l->ready = true;
	if (c->state == CL_UP)
		new_epoch(c, l->epoch);
}

static void on_msg(struct cfs_conn *conn, struct cfs_msg *msg)
{
	struct link *l = conn->user;
	uint16_t op = cfs_le16_to_cpu(msg->hdr.opcode);
	uint64_t tag = cfs_le64_to_cpu(msg->hdr.tag);
	struct client_s *c;

	if (!l || W->failed)
		return;
	c = l->c;
	if (!(msg->hdr.flags & CFS_MSG_REPLY)) {
		if (op == CFS_OP_CB_ASK)
			on_ask(c, msg);
		else if (op == CFS_OP_CB_BREAK)
			on_break(c, msg);
		return;
	}
	if (op == CFS_OP_HELLO) {
		on_hello(l, msg);
	} else if (op == CFS_OP_SESSION_OPEN) {
		if (c->open_req.busy && tag == c->open_req.tag)
			on_opened(c, msg);
	} else if (op == CFS_OP_HEARTBEAT) {
		on_beat(c, msg);
	} else if (op == CFS_OP_RECLAIM) {
		if (tag == c->reclaim_tag)
			on_reclaimed(c, msg);
	} else {
		for (unsigned t = 0; t < SLOTS; t++) {
			struct req *r = &c->th[t].r;
			uint32_t status = cfs_le32_to_cpu(msg->hdr.status);

			if (!r->busy || !r->sent || r->tag != tag)
				continue;
			if (status == CFS_E_GRACE || status == CFS_E_NOTLEADER) {
				r->sent = false;
				r->again_ns = client_clock(c) + 50 * MS;
				if (status == CFS_E_NOTLEADER) {
					c->server = (c->server + 1) % W->n_servers;
					for (unsigned i = 0; i < CONNS; i++)
						link_drop(&c->links[i], 0);
				}
			} else if (status == CFS_E_BADSESSION) {
				session_lost(c);
			} else if (status == CFS_E_BADSEQ || status == CFS_E_PROTO) {
				fail("client %u: opcode %u is answered with %u", c->i, op, status);
			} else {
				r->busy = r->sent = false;
				W->st.replies++;
				work_reply(c, t, msg);
			}
			return;
		}
	}
}

static void on_close(struct cfs_conn *conn, int err)
{
	struct link *l = conn->user;

	(void)err;
	if (!l || l->conn != conn)
		return;
	l->conn = NULL;
	link_drop(l, 5 * MS);
	if (W->n_servers > 1 && cfs_sim_chance(W->sim, 300000))
		l->c->server = (l->c->server + 1) % W->n_servers;
}

static const struct cfs_conn_handler handler = { .on_msg = on_msg, .on_close = on_close };

static void dial(struct link *l)
{
	struct client_s *c = l->c;
	struct cfs_net *net = cfs_sim_node_net(c->sn);
	struct cfs_hello_req req = { .version_min = cfs_cpu_to_le32(1), .version_max = cfs_cpu_to_le32(1),
		.role = cfs_cpu_to_le32(l->i == CALLBACK ? CFS_ROLE_CALLBACK : CFS_ROLE_WORKER) };
	struct cfs_msg_hdr hdr;

	if (net->ops->connect(net, W->servers[c->server].addr, &handler, l, &l->conn)) {
		l->conn = NULL;
		link_drop(l, 20 * MS);
		return;
	}
	cfs_hdr_init(&hdr, CFS_OP_HELLO);
	hdr.tag = cfs_cpu_to_le64(++c->tag);
	l->hello_ns = client_clock(c);
	if (link_send(l, &hdr, &req, sizeof(req), NULL, 0))
		link_drop(l, 20 * MS);
}

static void keep_links(struct client_s *c)
{
	uint64_t t = client_clock(c);

	for (unsigned i = 0; i < CONNS; i++) {
		struct link *l = &c->links[i];

		if (!l->conn && t >= l->retry_ns && (c->session || i == 0))
			dial(l);
		else if (l->conn && !l->ready && t > l->hello_ns + 1000 * MS)
			link_drop(l, 0);
	}
}

/* ---- time -------------------------------------------------------------------------------------------------------------------- */

static void session_tick(struct client_s *c)
{
	uint64_t t = client_clock(c);

	if (c->state == CL_OPENING) {
		if (c->links[0].ready && !c->open_req.sent)
			send_open(c);
		else if (c->open_req.sent && t > c->open_req.sent_ns + SILENT_NS)
			link_drop(&c->links[0], 0);
		return;
	}
	look_at_deadline(c);
	if (c->seen_epoch != c->epoch) {
		if (c->links[0].ready && c->links[0].epoch != c->seen_epoch)
			link_drop(&c->links[0], 0);
		else if (c->links[0].ready && !c->reclaim_tag)
			send_reclaim(c);
		else if (c->reclaim_tag && t > c->reclaim_ns + SILENT_NS)
			link_drop(&c->links[0], 0);
	}
	for (unsigned i = 1; i < CONNS; i++)
		if (c->links[i].ready && c->links[i].epoch != c->seen_epoch)
			link_drop(&c->links[i], 0);
	if (c->links[CALLBACK].ready && !c->beat_tag && (t >= c->next_beat_ns || c->expired))
		heartbeat(c);
	else if (c->beat_tag && t > c->beat_ns + SILENT_NS)
		link_drop(&c->links[CALLBACK], 0);
	answer_due(c);
}

static void on_tick(struct cfs_timer *timer)
{
	struct client_s *c = cfs_container_of(timer, struct client_s, tick);
	uint64_t t = client_clock(c);

	if (W->failed)
		return;
	keep_links(c);
	session_tick(c);
	for (unsigned i = 0; i < SLOTS && c->state == CL_UP; i++) {
		struct thread *th = &c->th[i];

		if (th->r.busy && !th->r.sent && t >= th->r.again_ns)
			req_send(c, i);
		else if (th->r.busy && th->r.sent && th->r.op != CFS_OP_LOCK && t > th->r.sent_ns + 4 * SILENT_NS)
			link_drop(&c->links[th->r.via], 0);
		else if (i < THREADS && t >= th->next_ns && c->epoch == c->seen_epoch)
			work_start(c, i);
	}
	cfs_timer_set(cfs_sim_node_clock(c->sn), timer, t + TICK_NS / 2 + cfs_sim_below(W->sim, TICK_NS));
}

void client_reset(struct client_s *c)
{
	uint8_t *bufs[SLOTS];
	struct cfs_sim_node *sn = c->sn;
	unsigned i = c->i, life = c->life, server = c->server;

	forget_all(c);
	for (unsigned t = 0; t < SLOTS; t++)
		bufs[t] = c->th[t].buf;
	memset(c, 0, sizeof(*c));
	c->sn = sn;
	c->i = i;
	c->server = server;
	c->life = life + 1;
	for (unsigned t = 0; t < SLOTS; t++)
		c->th[t].buf = bufs[t] ? bufs[t] : xcalloc(FILE_MAX);
	for (unsigned k = 0; k < CONNS; k++) {
		c->links[k].c = c;
		c->links[k].i = k;
	}
}

void client_start(struct client_s *c)
{
	client_reset(c);
	if (!cfs_sim_node_alive(c->sn))
		cfs_sim_node_restart(c->sn);
	c->state = CL_OPENING;
	c->lazy = cfs_sim_chance(W->sim, 60000);
	c->tick.fn = on_tick;
	cfs_timer_set(cfs_sim_node_clock(c->sn), &c->tick, client_clock(c) + 1);
}

void client_kill(struct client_s *c)
{
	trace("client %u dies", c->i);
	if (!cfs_sim_node_alive(c->sn))
		return;
	cfs_sim_node_crash(c->sn, CFS_SIM_KILL);
	client_reset(c);
	cfs_sim_node_unwind(c->sn);	/* payloads are let go */
}

bool client_idle(struct client_s *c)
{
	if (c->state == CL_DEAD)
		return true;
	if (c->state != CL_UP || c->n_owed || c->epoch != c->seen_epoch)
		return false;
	for (unsigned t = 0; t < SLOTS; t++)
		if (c->th[t].r.busy || c->th[t].job)
			return false;
	for (unsigned i = 0; i < CACHE; i++)
		if (c->files[i].ino && c->files[i].dirty)
			return false;
	return true;
}

void client_close_session(struct client_s *c)
{
	struct cfs_msg_hdr hdr;

	if (c->state != CL_UP || !c->links[0].ready)
		return;
	cfs_hdr_init(&hdr, CFS_OP_SESSION_CLOSE);
	hdr.tag = cfs_cpu_to_le64(++c->tag);
	link_send(&c->links[0], &hdr, NULL, 0, NULL, 0);
}
