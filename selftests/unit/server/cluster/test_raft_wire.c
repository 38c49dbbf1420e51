/* SPDX-License-Identifier: MIT */
/*
 * Proves of Raft's wire format (server/cluster/raft_wire.h): every type of message comes back as it
 * went, version 1 has the bytes it had (golden vector), every cut and every changed byte of a
 * message is refused or harmless, and what libraft would assert (terms out of order, malformed
 * configurations, impossible indexes) is refused.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/crc32c.h"
#include "server/cluster/raft_wire.h"

static struct cfs_raft_out out;
static struct cfs_raft_in in;
static const char *why;

static void encode(struct raft_message *m)
{
	m->server_id = 2;
	m->server_address = "b:2";
	assert_int_equal(cfs_raft_encode(m, 5, 1, "a:1", 99, &out), 0);
	assert_int_equal(out.to, 2);
	assert_string_equal(out.addr, "b:2");
}

static int decode(void)
{
	why = NULL;
	return cfs_raft_decode(out.body, out.body_len, out.payload, out.payload_len, &in, &why);
}

/*
 * every shorter body is refused; every changed byte is refused or decodes to something that can be
 * released
 */
static void mangle(void)
{
	uint8_t *body = malloc(out.body_len);

	for (uint32_t len = 0; len < out.body_len; len++) {
		uint8_t *cut = malloc(len ? len : 1);

		memcpy(cut, out.body, len);
		assert_int_not_equal(
			cfs_raft_decode(cut, len, out.payload, out.payload_len, &in, &why), 0);
		assert_non_null(why);
		free(cut);
	}
	for (uint32_t i = 0; i < out.body_len; i++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			memcpy(body, out.body, out.body_len);
			body[i] ^= (uint8_t)(1u << bit);
			if (!cfs_raft_decode(body, out.body_len, out.payload, out.payload_len, &in,
					     &why))
				cfs_raft_in_drop(&in);
		}
	}
	if (out.payload_len) {
		assert_int_not_equal(cfs_raft_decode(out.body, out.body_len, out.payload,
						     out.payload_len - 1, &in, &why),
				     0);
		assert_int_not_equal(cfs_raft_decode(out.body, out.body_len, NULL, 0, &in, &why),
				     0);
	}
	free(body);
	free(out.payload);
	out.payload = NULL;
}

static void came_from_a(int type)
{
	assert_int_equal(decode(), 0);
	assert_int_equal(in.group, 5);
	assert_int_equal(in.to, 2);
	assert_int_equal(in.stamp, 99);
	assert_int_equal(in.m.type, type);
	assert_int_equal(in.m.server_id, 1);
	assert_string_equal(in.m.server_address, "a:1");
}

static void votes(void **state)
{
	struct raft_message m = { .type = RAFT_REQUEST_VOTE };
	static const uint8_t golden[] = {
		'C', 'R', 'A', 'F', 1, 3, 3,   0,   5,	 0, 0, 0, 0, 0, 0, 0, 1, 0,  0, 0,  0,
		0,   0,	  0,   2,   0, 0, 0,   0,   0,	 0, 0, 9, 0, 0, 0, 0, 0, 0,  0, 99, 0,
		0,   0,	  0,   0,   0, 0, 'a', ':', '1', 1, 0, 0, 0, 0, 0, 0, 0, 70, 0, 0,  0,
		0,   0,	  0,   0,   8, 0, 0,   0,   0,	 0, 0, 0, 2, 0, 0, 0, 0, 0,  0, 0,
	};

	(void)state;
	m.request_vote = (struct raft_request_vote){ .term = 9,
						     .candidate_id = 1,
						     .last_log_index = 70,
						     .last_log_term = 8,
						     .pre_vote = true };
	encode(&m);
	assert_int_equal(out.body_len, sizeof(golden));
	assert_memory_equal(out.body, golden, sizeof(golden));
	came_from_a(RAFT_REQUEST_VOTE);
	assert_int_equal(in.m.request_vote.term, 9);
	assert_int_equal(in.m.request_vote.last_log_index, 70);
	assert_int_equal(in.m.request_vote.last_log_term, 8);
	assert_true(in.m.request_vote.pre_vote && !in.m.request_vote.disrupt_leader);
	mangle();

	m.request_vote.candidate_id = 3;	/* not the sender */
	encode(&m);
	assert_int_equal(decode(), -EPROTO);

	m.type = RAFT_REQUEST_VOTE_RESULT;
	memset(&m.request_vote_result, 0, sizeof(m.request_vote_result));
	m.request_vote_result = (struct raft_request_vote_result){
		.term = 9, .vote_granted = true, .features = 1, .capacity = 3
	};
	encode(&m);
	came_from_a(RAFT_REQUEST_VOTE_RESULT);
	assert_true(in.m.request_vote_result.vote_granted && !in.m.request_vote_result.pre_vote);
	assert_int_equal(in.m.request_vote_result.capacity, 3);
	mangle();

	m.type = RAFT_TIMEOUT_NOW;
	m.timeout_now =
		(struct raft_timeout_now){ .term = 4, .last_log_index = 12, .last_log_term = 3 };
	encode(&m);
	came_from_a(RAFT_TIMEOUT_NOW);
	assert_int_equal(in.m.timeout_now.last_log_index, 12);
	mangle();
}

static struct raft_buffer conf_bytes(void)
{
	struct raft_configuration c;
	struct raft_buffer b;

	raft_configuration_init(&c);
	assert_int_equal(raft_configuration_add(&c, 1, "a:1", RAFT_VOTER), 0);
	assert_int_equal(raft_configuration_add(&c, 2, "b:2", RAFT_STANDBY), 0);
	assert_int_equal(raft_configuration_encode(&c, &b), 0);
	raft_configuration_close(&c);
	return b;
}

static void append(void **state)
{
	struct raft_message m = { .type = RAFT_APPEND_ENTRIES };
	struct raft_buffer conf = conf_bytes();
	struct raft_entry e[3] = {
		{ .term = 3, .type = RAFT_CHANGE, .buf = conf },
		{ .term = 3, .type = RAFT_COMMAND, .buf = { .base = "hello", .len = 5 } },
		{ .term = 4, .type = RAFT_BARRIER, .buf = { .base = "12345678", .len = 8 } },
	};

	(void)state;
	m.append_entries = (struct raft_append_entries){ .term = 4,
							 .prev_log_index = 10,
							 .prev_log_term = 2,
							 .leader_commit = 9,
							 .entries = e,
							 .n_entries = 3 };
	encode(&m);
	came_from_a(RAFT_APPEND_ENTRIES);
	assert_int_equal(in.m.append_entries.prev_log_index, 10);
	assert_int_equal(in.m.append_entries.leader_commit, 9);
	assert_int_equal(in.m.append_entries.n_entries, 3);
	for (unsigned i = 0; i < 3; i++) {
		struct raft_entry *got = &in.m.append_entries.entries[i];

		assert_int_equal(got->term, e[i].term);
		assert_int_equal(got->type, e[i].type);
		assert_int_equal(got->buf.len, e[i].buf.len);
		assert_memory_equal(got->buf.base, e[i].buf.base, e[i].buf.len);
	}
	cfs_raft_in_drop(&in);
	mangle();

	e[2].term = 2;				/* goes back */
	encode(&m);
	assert_int_equal(decode(), -EPROTO);
	free(out.payload);
	e[2].term = 5;				/* beyond the leader's */
	encode(&m);
	assert_int_equal(decode(), -EPROTO);
	free(out.payload);
	e[2].term = 4;
	m.append_entries.prev_log_term = 0;	/* index without a term */
	encode(&m);
	assert_int_equal(decode(), -EPROTO);
	free(out.payload);
	m.append_entries.prev_log_term = 2;
	e[0].buf.len -= 9;			/* a cut configuration */
	encode(&m);
	assert_int_equal(decode(), -EPROTO);
	free(out.payload);

	m.append_entries.n_entries = 0;		/* a heartbeat */
	m.append_entries.entries = NULL;
	encode(&m);
	came_from_a(RAFT_APPEND_ENTRIES);
	assert_int_equal(in.m.append_entries.n_entries, 0);
	mangle();

	m.type = RAFT_APPEND_ENTRIES_RESULT;
	m.append_entries_result = (struct raft_append_entries_result){
		.term = 4, .rejected = 6, .last_log_index = 5, .features = 1, .capacity = 7
	};
	encode(&m);
	came_from_a(RAFT_APPEND_ENTRIES_RESULT);
	assert_int_equal(in.m.append_entries_result.rejected, 6);
	assert_int_equal(in.m.append_entries_result.last_log_index, 5);
	mangle();
	raft_free(conf.base);
}

static void install(void **state)
{
	struct raft_message m = { .type = RAFT_INSTALL_SNAPSHOT };
	struct raft_install_snapshot *s = &m.install_snapshot;
	struct raft_buffer conf = conf_bytes();

	(void)state;
	*s = (struct raft_install_snapshot){ .term = 8, .last_index = 100, .last_term = 7, .conf_index = 90,
		.data = { .base = "manifest", .len = 8 } };
	assert_int_equal(raft_configuration_decode(&conf, &s->conf), 0);
	encode(&m);
	came_from_a(RAFT_INSTALL_SNAPSHOT);
	assert_int_equal(in.m.install_snapshot.last_index, 100);
	assert_int_equal(in.m.install_snapshot.conf_index, 90);
	assert_int_equal(in.m.install_snapshot.conf.n, 2);
	assert_string_equal(in.m.install_snapshot.conf.servers[1].address, "b:2");
	assert_int_equal(in.m.install_snapshot.data.len, 8);
	assert_memory_equal(in.m.install_snapshot.data.base, "manifest", 8);
	cfs_raft_in_drop(&in);
	mangle();
	s->conf_index = 101;			/* a configuration newer than the snapshot */
	encode(&m);
	assert_int_equal(decode(), -EPROTO);
	free(out.payload);
	s->conf_index = 90;
	s->last_index = 0;
	encode(&m);
	assert_int_equal(decode(), -EPROTO);
	free(out.payload);
	raft_configuration_close(&s->conf);
	raft_free(conf.base);
}

static void limits(void **state)
{
	static struct raft_entry e[CFS_RAFT_ENTRIES_MAX + 1];
	struct raft_message m = { .type = RAFT_APPEND_ENTRIES,
				  .server_id = 2,
				  .server_address = "b:2" };
	static uint8_t big[CFS_PAYLOAD_MAX + 1];

	(void)state;
	for (unsigned i = 0; i <= CFS_RAFT_ENTRIES_MAX; i++)
		e[i] = (struct raft_entry){ .term = 1,
					    .type = RAFT_COMMAND,
					    .buf = { .base = "x", .len = 1 } };
	m.append_entries = (struct raft_append_entries){ .term = 1,
							 .entries = e,
							 .n_entries = CFS_RAFT_ENTRIES_MAX };
	encode(&m);
	assert_int_equal(decode(), 0);
	cfs_raft_in_drop(&in);
	free(out.payload);
	m.append_entries.n_entries++;
	assert_int_equal(cfs_raft_encode(&m, 5, 1, "a:1", 0, &out), -EMSGSIZE);
	m.append_entries.n_entries = 1;
	e[0].buf.base = big;
	e[0].buf.len = CFS_PAYLOAD_MAX;
	encode(&m);
	assert_int_equal(decode(), 0);
	cfs_raft_in_drop(&in);
	free(out.payload);
	e[0].buf.len++;
	assert_int_equal(cfs_raft_encode(&m, 5, 1, "a:1", 0, &out), -EMSGSIZE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(votes),
		cmocka_unit_test(append),
		cmocka_unit_test(install),
		cmocka_unit_test(limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
