/* SPDX-License-Identifier: MIT */
/*
 * raft_msg.c - messages of a Raft log: out in pieces that fit, in with what libraft does not check,
 * leases.
 */
#include "server/cluster/raft_log_i.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* ---- out ------------------------------------------------------------------------------------- */

static void send_one(struct cfs_raft_log *l, const struct raft_message *m, uint64_t stamp)
{
	struct cfs_raft_out out;
	int rc = cfs_raft_encode(m, l->group, l->raft.id, l->address, stamp, &out);

	/* a message that is not sent is one that was lost: Raft copes */
	if (rc)
		cfs_warn("shard %" PRIu32 ": message of type %d to member %llu not sent: %s",
			 l->group, m->type, m->server_id, strerror(-rc));
	else
		l->user->send(l->arg, &out);
}

/*
 * Append entries in as many messages as it takes. A configuration is always the first entry of its
 * message, because libraft takes the index of the first entry for that of a configuration anywhere
 * in it.
 */
static void send_append(struct cfs_raft_log *l, const struct raft_message *whole)
{
	struct raft_entry entries[CFS_RAFT_ENTRIES_MAX];
	uint64_t next = whole->append_entries.prev_log_index + 1;
	uint64_t end = next + whole->append_entries.n_entries;
	uint64_t now = cfs_clock_boot_ns(l->clock);
	struct raft_message m = *whole;
	struct raft_append_entries *a = &m.append_entries;

	do {
		uint64_t bytes = 0;
		unsigned n = 0;

		for (; next + n < end && n < CFS_RAFT_ENTRIES_MAX; n++) {
			struct cfs_elog_entry *e = cfs_elog_get(&l->elog, next + n);

			if (!e || !e->buf) {
				cfs_warn("shard %" PRIu32 ": log entry %" PRIu64
					 " is not in memory any more for "
					 "member %llu",
					 l->group, next + n, m.server_id);
				return;
			}
			bytes += e->len;
			if (n && (bytes > CFS_PAYLOAD_MAX || e->type == RAFT_CHANGE))
				break;
			entries[n] = (struct raft_entry){ .term = e->term,
							  .type = (enum raft_entry_type)e->type,
							  .buf = { .base = e->buf->data,
								   .len = e->len } };
		}
		a->entries = n ? entries : NULL;
		a->n_entries = n;
		send_one(l, &m, now);
		if (n) {
			next += n;
			a->prev_log_index = next - 1;
			a->prev_log_term = entries[n - 1].term;
		}
	} while (next < end);
}

static void send_install(struct cfs_raft_log *l, struct raft_message *m)
{
	struct raft_install_snapshot *s = &m->install_snapshot;
	const void *data;
	uint64_t conf_index;
	uint32_t len;

	/* the last checkpoint there is: perhaps a later one than libraft had in mind */
	if (cfs_raft_snapshot_data(l, &data, &len) ||
	    cfs_raft_snapshot_conf(l, &s->conf, &conf_index))
		return;
	s->last_index = l->snap_index;
	s->last_term = l->snap_term;
	s->conf_index = conf_index;
	s->data.base = (void *)(uintptr_t)data;
	s->data.len = len;
	send_one(l, m, 0);
	raft_configuration_close(&s->conf);
}

void cfs_raft_send(struct cfs_raft_log *l, struct raft_message *messages, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct raft_message *m = &messages[i];

		if (m->type == RAFT_APPEND_ENTRIES)
			send_append(l, m);
		else if (m->type == RAFT_INSTALL_SNAPSHOT)
			send_install(l, m);
		else
			send_one(l, m, m->type == RAFT_APPEND_ENTRIES_RESULT ? l->echo_stamp : 0);
	}
}

/* ---- in -------------------------------------------------------------------------------------- */

/*
 * a member has answered something we sent at `stamp`: it elected nobody until an election timeout
 * after that
 */
static void note_contact(struct cfs_raft_log *l, uint64_t id, uint64_t stamp)
{
	if (stamp > cfs_clock_boot_ns(l->clock))	/* not one of ours */
		return;
	for (unsigned i = 0; i < l->n_contacts; i++) {
		if (l->contacts[i].id != id)
			continue;
		if (stamp > l->contacts[i].stamp_ns)
			l->contacts[i].stamp_ns = stamp;
		return;
	}
	if (l->n_contacts < CFS_RAFT_SERVERS_MAX)
		l->contacts[l->n_contacts++] = (struct raft_contact){ .id = id, .stamp_ns = stamp };
}

bool cfs_raft_lease_valid(struct cfs_raft_log *l)
{
	uint64_t lease = (uint64_t)l->election_ms * CFS_NSEC_PER_MSEC * 3 / 4;
	const struct raft_configuration *conf = &l->raft.configuration;
	uint64_t now = cfs_clock_boot_ns(l->clock);
	unsigned voters = 0, heard = 0;

	if (raft_transferee(&l->raft))	/* a transfer makes an election before the timeout */
		return false;
	for (unsigned i = 0; i < conf->n; i++) {
		if (conf->servers[i].role != RAFT_VOTER)
			continue;
		voters++;
		if (conf->servers[i].id == l->raft.id) {
			heard++;
			continue;
		}
		for (unsigned j = 0; j < l->n_contacts; j++)
			heard += l->contacts[j].id == conf->servers[i].id &&
				 now - l->contacts[j].stamp_ns < lease;
	}
	return heard > voters / 2;
}

static uint64_t message_term(const struct raft_message *m)
{
	return m->type == RAFT_APPEND_ENTRIES ? m->append_entries.term : m->install_snapshot.term;
}

/*
 * A member that rejects what it had acknowledged is either late with an old message or has lost its
 * disk: libraft asserts that it cannot. The first is harmless; the second must leave the group and
 * join it anew under another id.
 */
static bool went_back(struct cfs_raft_log *l, raft_id id,
		      const struct raft_append_entries_result *r)
{
	uint64_t now = cfs_clock_boot_ns(l->clock);
	raft_index match;

	if (!r->rejected || r->term != l->term || raft_match_index(&l->raft, id, &match) ||
	    (r->rejected > match && r->last_log_index >= match))
		return false;
	if (now - l->back_logged_ns > 10 * CFS_NSEC_PER_SEC || !l->back_logged_ns) {
		cfs_warn(
			"shard %" PRIu32
			": member %llu has no log entry %llu, but had acknowledged %llu: if it lost its "
			"target it must be replaced",
			l->group, id, r->rejected, match);
		l->back_logged_ns = now;
	}
	return true;
}

int cfs_raft_log_receive(struct cfs_raft_log *l, const void *body, uint32_t body_len,
			 const void *payload, uint32_t payload_len, const char **ret_why)
{
	struct raft_event ev = { .type = RAFT_RECEIVE };
	struct cfs_raft_in in;
	struct raft_entry *entries = NULL;
	int rc;

	rc = cfs_raft_decode(body, body_len, payload, payload_len, &in, ret_why);
	if (rc)
		return rc;
	if (in.group != l->group || in.to != l->raft.id) {
		*ret_why = "not for this member";
		rc = -EPROTO;
	} else if (in.m.server_id == l->raft.id) {
		*ret_why = "from ourselves";
		rc = -EPROTO;
	} else if (in.m.type == RAFT_APPEND_ENTRIES || in.m.type == RAFT_INSTALL_SNAPSHOT) {
		/* libraft asserts that a term has one leader */
		if (l->started && raft_state(&l->raft) == RAFT_LEADER &&
		    message_term(&in.m) == l->term) {
			*ret_why = "a second leader in our term";
			rc = -EPROTO;
		}
	}
	if (rc || cfs_raft_dead(l) || !l->started)
		goto drop;
	/* one at a time; the leader sends it again */
	if (in.m.type == RAFT_INSTALL_SNAPSHOT && (l->checkpointing || l->installing))
		goto drop;
	if (in.m.type == RAFT_APPEND_ENTRIES) {
		l->echo_stamp = in.stamp;
		entries = in.m.append_entries.n_entries ? in.m.append_entries.entries : NULL;
	} else if (in.m.type == RAFT_APPEND_ENTRIES_RESULT) {
		if (l->leader && in.m.append_entries_result.term == l->term)
			note_contact(l, in.m.server_id, in.stamp);
		if (went_back(l, in.m.server_id, &in.m.append_entries_result))
			goto drop;
	} else if (in.m.type == RAFT_INSTALL_SNAPSHOT) {
		l->echo_stamp = 0;
		snprintf(l->install_from, sizeof(l->install_from), "%s", in.addr);
	}
	ev.receive.message = &in.m;
	rc = cfs_raft_step(l, &ev);
	raft_free(entries);	/* the array; their batch is libraft's or ours by now */
	if (rc == -EBADMSG)
		*ret_why = "refused by libraft";
	return rc == -EBADMSG ? rc : 0;
drop:
	cfs_raft_in_drop(&in);
	return rc;
}
