/* SPDX-License-Identifier: MIT */
/* raft_wire.c - see raft_wire.h. No state; any thread. */
#include "server/cluster/raft_wire.h"

#include <errno.h>
#include <stdlib.h>

#include "base/base.h"
#include "base/crc32c.h"
#include "rpc/codec.h"

#define VOTE_DISRUPT	1u
#define VOTE_GRANTED	1u
#define VOTE_PRE	2u

/* ---- encode ---------------------------------------------------------------------------------- */

static int put_append(struct cfs_builder *b, const struct raft_append_entries *a,
		      struct cfs_raft_out *out)
{
	struct cfs_raft_append head = {
		.prev_index = cfs_cpu_to_le64(a->prev_log_index),
		.prev_term = cfs_cpu_to_le64(a->prev_log_term),
		.commit = cfs_cpu_to_le64(a->leader_commit),
		.n_entries = cfs_cpu_to_le32(a->n_entries),
	};
	uint64_t bytes = 0;
	uint8_t *p;

	if (a->n_entries > CFS_RAFT_ENTRIES_MAX)
		return -EMSGSIZE;
	cfs_put_struct(b, &head);
	for (unsigned i = 0; i < a->n_entries; i++) {
		const struct raft_entry *e = &a->entries[i];
		struct cfs_raft_entry entry = {
			.term = cfs_cpu_to_le64(e->term),
			.len = cfs_cpu_to_le32((uint32_t)e->buf.len),
			.type = cfs_cpu_to_le32(e->type),
		};

		bytes += e->buf.len;
		if (e->buf.len > CFS_PAYLOAD_MAX || bytes > CFS_PAYLOAD_MAX)
			return -EMSGSIZE;
		cfs_put_struct(b, &entry);
	}
	if (bytes == 0)
		return 0;
	p = malloc(bytes);
	if (!p)
		return -ENOMEM;
	out->payload = p;
	out->payload_len = (uint32_t)bytes;
	for (unsigned i = 0; i < a->n_entries; i++) {
		if (a->entries[i].buf.len)
			memcpy(p, a->entries[i].buf.base, a->entries[i].buf.len);
		p += a->entries[i].buf.len;
	}
	return 0;
}

static int put_install(struct cfs_builder *b, const struct raft_install_snapshot *s,
		       struct cfs_raft_out *out)
{
	struct cfs_raft_install head;
	struct raft_buffer conf;
	uint8_t *p;

	if (raft_configuration_encode(&s->conf, &conf))
		return -ENOMEM;
	if (s->data.len > CFS_PAYLOAD_MAX || conf.len + s->data.len > CFS_PAYLOAD_MAX) {
		raft_free(conf.base);
		return -EMSGSIZE;
	}
	p = malloc(conf.len + s->data.len);
	if (!p) {
		raft_free(conf.base);
		return -ENOMEM;
	}
	memcpy(p, conf.base, conf.len);
	memcpy(p + conf.len, s->data.base, s->data.len);
	head = (struct cfs_raft_install){
		.last_index = cfs_cpu_to_le64(s->last_index),
		.last_term = cfs_cpu_to_le64(s->last_term),
		.conf_index = cfs_cpu_to_le64(s->conf_index),
		.conf_len = cfs_cpu_to_le32((uint32_t)conf.len),
		.data_len = cfs_cpu_to_le32((uint32_t)s->data.len),
	};
	out->payload = p;
	out->payload_len = (uint32_t)(conf.len + s->data.len);
	raft_free(conf.base);
	cfs_put_struct(b, &head);
	return 0;
}

/* the part after the address; *ret_term: what stands in the common header */
static int put_part(struct cfs_builder *b, const struct raft_message *m, struct cfs_raft_out *out,
		    uint64_t *ret_term)
{
	switch (m->type) {
	case RAFT_REQUEST_VOTE: {
		const struct raft_request_vote *v = &m->request_vote;
		struct cfs_raft_vote part = {
			.candidate = cfs_cpu_to_le64(v->candidate_id),
			.last_index = cfs_cpu_to_le64(v->last_log_index),
			.last_term = cfs_cpu_to_le64(v->last_log_term),
			.flags = cfs_cpu_to_le32((v->disrupt_leader ? VOTE_DISRUPT : 0) |
						 (v->pre_vote ? VOTE_PRE : 0)),
		};

		*ret_term = v->term;
		cfs_put_struct(b, &part);
		return 0;
	}
	case RAFT_REQUEST_VOTE_RESULT: {
		const struct raft_request_vote_result *v = &m->request_vote_result;
		struct cfs_raft_vote_result part = {
			.flags = cfs_cpu_to_le32((v->vote_granted ? VOTE_GRANTED : 0) |
						 (v->pre_vote ? VOTE_PRE : 0)),
			.features = cfs_cpu_to_le16(v->features),
			.capacity = cfs_cpu_to_le16(v->capacity),
		};

		*ret_term = v->term;
		cfs_put_struct(b, &part);
		return 0;
	}
	case RAFT_APPEND_ENTRIES:
		*ret_term = m->append_entries.term;
		return put_append(b, &m->append_entries, out);
	case RAFT_APPEND_ENTRIES_RESULT: {
		const struct raft_append_entries_result *r = &m->append_entries_result;
		struct cfs_raft_append_result part = {
			.rejected = cfs_cpu_to_le64(r->rejected),
			.last_index = cfs_cpu_to_le64(r->last_log_index),
			.features = cfs_cpu_to_le16(r->features),
			.capacity = cfs_cpu_to_le16(r->capacity),
		};

		*ret_term = r->term;
		cfs_put_struct(b, &part);
		return 0;
	}
	case RAFT_INSTALL_SNAPSHOT:
		*ret_term = m->install_snapshot.term;
		return put_install(b, &m->install_snapshot, out);
	case RAFT_TIMEOUT_NOW: {
		struct cfs_raft_timeout part = {
			.last_index = cfs_cpu_to_le64(m->timeout_now.last_log_index),
			.last_term = cfs_cpu_to_le64(m->timeout_now.last_log_term),
		};

		*ret_term = m->timeout_now.term;
		cfs_put_struct(b, &part);
		return 0;
	}
	default:
		return -EINVAL;
	}
}

int cfs_raft_encode(const struct raft_message *m, uint32_t group, uint64_t from,
		    const char *from_addr, uint64_t stamp, struct cfs_raft_out *out)
{
	size_t addr_len = strlen(from_addr), to_len = strlen(m->server_address);
	struct cfs_raft_msg *head;
	struct cfs_builder b;
	uint64_t term = 0;
	int rc;

	if (addr_len > CFS_RAFT_ADDR_MAX || to_len > CFS_RAFT_ADDR_MAX)
		return -EMSGSIZE;
	out->to = m->server_id;
	memcpy(out->addr, m->server_address, to_len + 1);
	out->payload = NULL;
	out->payload_len = 0;
	cfs_builder_init(&b, out->body, sizeof(out->body));
	head = cfs_put_space(&b, sizeof(*head), "message");
	CFS_ASSERT(head);
	cfs_put(&b, from_addr, addr_len, "address");
	rc = put_part(&b, m, out, &term);
	if (!rc)
		rc = cfs_builder_ok(&b);
	if (rc) {
		free(out->payload);
		out->payload = NULL;
		return rc;
	}
	*head = (struct cfs_raft_msg){
		.magic = cfs_cpu_to_le32(CFS_RAFT_MAGIC),
		.version = CFS_RAFT_VERSION,
		.type = (uint8_t)m->type,
		.addr_len = cfs_cpu_to_le16((uint16_t)addr_len),
		.group = cfs_cpu_to_le32(group),
		.payload_crc = cfs_cpu_to_le32(cfs_crc32c(0, out->payload, out->payload_len)),
		.from = cfs_cpu_to_le64(from),
		.to = cfs_cpu_to_le64(m->server_id),
		.term = cfs_cpu_to_le64(term),
		.stamp = cfs_cpu_to_le64(stamp),
	};
	out->body_len = (uint32_t)b.len;
	return 0;
}

/* ---- decode ---------------------------------------------------------------------------------- */

bool cfs_raft_conf_valid(const void *buf, size_t len)
{
	const uint8_t *version;
	const void *n_le;
	struct cfs_cursor c;
	uint64_t n;

	cfs_cursor_init(&c, buf, len);
	version = cfs_take(&c, 1, "version");
	n_le = cfs_take(&c, 8, "count");
	if (!version || !n_le || *version != 1)
		return false;
	n = cfs_get_le64(n_le);
	if (n == 0 || n > CFS_RAFT_SERVERS_MAX)
		return false;
	for (uint64_t i = 0; i < n; i++) {
		const void *id = cfs_take(&c, 8, "id");
		const void *end = id ? memchr(c.p, 0, c.left) : NULL;
		const uint8_t *role;
		size_t addr_len;

		if (!end || cfs_get_le64(id) == 0)
			return false;
		addr_len = (size_t)((const uint8_t *)end - c.p);
		if (addr_len > CFS_RAFT_ADDR_MAX)
			return false;
		cfs_take(&c, addr_len + 1, "address");
		role = cfs_take(&c, 1, "role");
		if (!role || *role > RAFT_SPARE)
			return false;
	}
	return true;
}

static int take_append(struct cfs_cursor *c, const void *payload, uint32_t payload_len,
		       struct raft_append_entries *a)
{
	struct cfs_raft_append head;
	struct raft_entry *entries = NULL;
	const void *array;
	uint8_t *batch = NULL;
	uint64_t off = 0, last_term;
	uint32_t n;

	if (!cfs_take_struct(c, &head))
		return -EPROTO;
	n = cfs_le32_to_cpu(head.n_entries);
	a->prev_log_index = cfs_le64_to_cpu(head.prev_index);
	a->prev_log_term = cfs_le64_to_cpu(head.prev_term);
	a->leader_commit = cfs_le64_to_cpu(head.commit);
	a->version = 0;
	/* libraft asserts all of these */
	if (n > CFS_RAFT_ENTRIES_MAX)
		cfs_cursor_fail(c, "too many entries");
	else if ((a->prev_log_index == 0) != (a->prev_log_term == 0))
		cfs_cursor_fail(c, "previous index and term do not fit");
	else if (a->prev_log_term > a->term)
		cfs_cursor_fail(c, "previous term beyond the term");
	array = cfs_take_array(c, n, sizeof(struct cfs_raft_entry), "entries");
	if (!array)
		return -EPROTO;
	if (n) {
		entries = raft_calloc(n, sizeof(*entries));
		batch = raft_malloc(payload_len ? payload_len : 1);
		if (!entries || !batch) {
			raft_free(entries);
			raft_free(batch);
			return -ENOMEM;
		}
		if (payload_len)
			memcpy(batch, payload, payload_len);
	}
	last_term = a->prev_log_term;
	for (uint32_t i = 0; i < n; i++) {
		struct raft_entry *e = &entries[i];
		struct cfs_raft_entry entry;
		uint32_t len, type;

		cfs_copy_elem(&entry, array, i);
		len = cfs_le32_to_cpu(entry.len);
		type = cfs_le32_to_cpu(entry.type);
		e->term = cfs_le64_to_cpu(entry.term);
		e->type = (enum raft_entry_type)type;
		e->batch = batch;
		e->buf.base = batch + off;
		e->buf.len = len;
		if (len > payload_len - off)
			cfs_cursor_fail(c, "entry longer than the payload");
		else if (e->term == 0 || e->term < last_term || e->term > a->term)
			cfs_cursor_fail(c, "terms out of order");
		else if (type != RAFT_COMMAND && type != RAFT_BARRIER && type != RAFT_CHANGE)
			cfs_cursor_fail(c, "unknown type of entry");
		else if (type == RAFT_CHANGE && !cfs_raft_conf_valid(e->buf.base, len))
			cfs_cursor_fail(c, "malformed configuration");
		if (c->err)
			break;
		off += len;
		last_term = e->term;
	}
	if (!c->err && off != payload_len)
		cfs_cursor_fail(c, "payload longer than its entries");
	if (c->err) {
		raft_free(entries);
		raft_free(batch);
		return -EPROTO;
	}
	a->entries = entries;
	a->n_entries = n;
	return 0;
}

static int take_install(struct cfs_cursor *c, const void *payload, uint32_t payload_len,
			struct raft_install_snapshot *s)
{
	struct raft_buffer conf = { .base = (void *)(uintptr_t)payload };
	struct cfs_raft_install head;
	uint32_t conf_len, data_len;

	if (!cfs_take_struct(c, &head))
		return -EPROTO;
	conf_len = cfs_le32_to_cpu(head.conf_len);
	data_len = cfs_le32_to_cpu(head.data_len);
	s->version = 0;
	s->last_index = cfs_le64_to_cpu(head.last_index);
	s->last_term = cfs_le64_to_cpu(head.last_term);
	s->conf_index = cfs_le64_to_cpu(head.conf_index);
	if (s->last_index == 0 || s->last_term == 0 || s->last_term > s->term ||
	    s->conf_index > s->last_index)
		cfs_cursor_fail(c, "impossible snapshot index or term");
	else if ((uint64_t)conf_len + data_len != payload_len || data_len == 0)
		cfs_cursor_fail(c, "lengths do not make up the payload");
	else if (!cfs_raft_conf_valid(payload, conf_len))
		cfs_cursor_fail(c, "malformed configuration");
	if (c->err)
		return -EPROTO;
	conf.len = conf_len;
	if (raft_configuration_decode(&conf, &s->conf)) {
		cfs_cursor_fail(c, "contradictory configuration");
		return -EPROTO;
	}
	s->data.len = data_len;
	s->data.base = raft_malloc(data_len);
	if (!s->data.base) {
		raft_configuration_close(&s->conf);
		return -ENOMEM;
	}
	memcpy(s->data.base, (const uint8_t *)payload + conf_len, data_len);
	return 0;
}

/* false: no such type, or short */
static bool take_small(struct cfs_cursor *c, struct raft_message *m, uint64_t term)
{
	switch (m->type) {
	case RAFT_REQUEST_VOTE: {
		struct raft_request_vote *v = &m->request_vote;
		struct cfs_raft_vote part;

		if (!cfs_take_struct(c, &part))
			return false;
		v->version = 2;
		v->term = term;
		v->candidate_id = cfs_le64_to_cpu(part.candidate);
		v->last_log_index = cfs_le64_to_cpu(part.last_index);
		v->last_log_term = cfs_le64_to_cpu(part.last_term);
		v->disrupt_leader = cfs_le32_to_cpu(part.flags) & VOTE_DISRUPT;
		v->pre_vote = cfs_le32_to_cpu(part.flags) & VOTE_PRE;
		if (v->candidate_id != m->server_id)
			cfs_cursor_fail(c, "candidate is not the sender");
		return true;
	}
	case RAFT_REQUEST_VOTE_RESULT: {
		struct raft_request_vote_result *v = &m->request_vote_result;
		struct cfs_raft_vote_result part;

		if (!cfs_take_struct(c, &part))
			return false;
		v->version = 2;
		v->term = term;
		v->vote_granted = cfs_le32_to_cpu(part.flags) & VOTE_GRANTED;
		v->pre_vote = cfs_le32_to_cpu(part.flags) & VOTE_PRE;
		v->features = cfs_le16_to_cpu(part.features);
		v->capacity = cfs_le16_to_cpu(part.capacity);
		return true;
	}
	case RAFT_APPEND_ENTRIES_RESULT: {
		struct raft_append_entries_result *r = &m->append_entries_result;
		struct cfs_raft_append_result part;

		if (!cfs_take_struct(c, &part))
			return false;
		r->version = 2;
		r->term = term;
		r->rejected = cfs_le64_to_cpu(part.rejected);
		r->last_log_index = cfs_le64_to_cpu(part.last_index);
		r->features = cfs_le16_to_cpu(part.features);
		r->capacity = cfs_le16_to_cpu(part.capacity);
		return true;
	}
	case RAFT_TIMEOUT_NOW: {
		struct cfs_raft_timeout part;

		if (!cfs_take_struct(c, &part))
			return false;
		m->timeout_now.version = 0;
		m->timeout_now.term = term;
		m->timeout_now.last_log_index = cfs_le64_to_cpu(part.last_index);
		m->timeout_now.last_log_term = cfs_le64_to_cpu(part.last_term);
		return true;
	}
	default:
		cfs_cursor_fail(c, "unknown type");
		return false;
	}
}

int cfs_raft_decode(const void *body, uint32_t body_len, const void *payload, uint32_t payload_len,
		    struct cfs_raft_in *in, const char **ret_why)
{
	struct raft_message *m = &in->m;
	struct cfs_raft_msg head;
	struct cfs_cursor c;
	const void *addr;
	uint64_t term;
	int rc;

	memset(in, 0, sizeof(*in));
	cfs_cursor_init(&c, body, body_len);
	cfs_take_struct(&c, &head);
	if (!c.err && cfs_le32_to_cpu(head.magic) != CFS_RAFT_MAGIC)
		cfs_cursor_fail(&c, "bad magic");
	if (!c.err && head.version != CFS_RAFT_VERSION)
		cfs_cursor_fail(&c, "unknown version");
	if (!c.err && cfs_le16_to_cpu(head.addr_len) > CFS_RAFT_ADDR_MAX)
		cfs_cursor_fail(&c, "address too long");
	addr = cfs_take(&c, cfs_le16_to_cpu(head.addr_len), "address");
	if (!addr)
		goto proto;
	memcpy(in->addr, addr, cfs_le16_to_cpu(head.addr_len));
	in->group = cfs_le32_to_cpu(head.group);
	in->to = cfs_le64_to_cpu(head.to);
	in->stamp = cfs_le64_to_cpu(head.stamp);
	term = cfs_le64_to_cpu(head.term);
	m->server_id = cfs_le64_to_cpu(head.from);
	m->server_address = in->addr;
	m->type = (enum raft_message_type)head.type;
	if (m->server_id == 0 || memchr(in->addr, 0, cfs_le16_to_cpu(head.addr_len)))
		cfs_cursor_fail(&c, "bad sender");
	else if (term == 0)
		cfs_cursor_fail(&c, "term 0");
	else if (cfs_crc32c(0, payload, payload_len) != cfs_le32_to_cpu(head.payload_crc))
		cfs_cursor_fail(&c, "payload does not match its checksum");
	if (c.err)
		goto proto;

	if (m->type == RAFT_APPEND_ENTRIES) {
		m->append_entries.term = term;
		rc = take_append(&c, payload, payload_len, &m->append_entries);
	} else if (m->type == RAFT_INSTALL_SNAPSHOT) {
		m->install_snapshot.term = term;
		rc = take_install(&c, payload, payload_len, &m->install_snapshot);
	} else {
		rc = take_small(&c, m, term) ? 0 : -EPROTO;
		if (payload_len)
			cfs_cursor_fail(&c, "unexpected payload");
	}
	if (rc) {
		*ret_why = c.err ? c.err : "out of memory";
		return rc;
	}
	if (cfs_cursor_end(&c)) {
		cfs_raft_in_drop(in);
		goto proto;
	}
	return 0;
proto:
	*ret_why = c.err;
	return -EPROTO;
}

void cfs_raft_in_drop(struct cfs_raft_in *in)
{
	struct raft_message *m = &in->m;

	if (m->type == RAFT_APPEND_ENTRIES && m->append_entries.n_entries) {
		raft_free(m->append_entries.entries[0].batch);
		raft_free(m->append_entries.entries);
		m->append_entries.n_entries = 0;
	} else if (m->type == RAFT_INSTALL_SNAPSHOT) {
		raft_configuration_close(&m->install_snapshot.conf);
		raft_free(m->install_snapshot.data.base);
		m->install_snapshot.data.base = NULL;
	}
}
