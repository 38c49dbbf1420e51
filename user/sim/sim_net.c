/* SPDX-License-Identifier: MIT */
/*
 * sim_net.c - the world's network; see sim.h.
 *
 * A connection is two ends, each with the queue of what is on its way to it. Messages have the time at which
 * they arrive, never before the one ahead of them; one event per end delivers the first. The ends know each
 * other by pointer; memory of both lives until both lives' ends (a crashed node's ends stay in its life).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/codec.h"
#include "sim/sim_i.h"

#define CONNECT_TIMEOUT_NS (10 * CFS_NSEC_PER_SEC)

struct sim_listener {
	struct cfs_list link;
	const struct cfs_conn_handler *handler;
	void *user;
	char addr[64];
};

/* on its way to one end */
struct packet {
	struct packet *next;
	uint64_t at;			/* virtual time of arrival */
	bool eof;
	struct cfs_msg msg;
	_Alignas(8) uint8_t body[];
};

struct sim_conn {
	struct cfs_conn conn;
	struct cfs_list link;		/* in life->conns */
	struct sim_life *life;
	struct sim_conn *peer;		/* NULL: none yet, or any more */
	struct cfs_sim_node *to;	/* the node at the other end */
	struct packet *head, **tail;	/* coming to this end */
	uint32_t queued;
	uint64_t last_at;		/* of the last packet sent to this end */
	struct sim_event pump;		/* delivers head; scheduled when there is one and nothing stands in the way */
	struct sim_event end;		/* on_close, once scheduled */
	struct syn *syn;		/* under way, while connecting */
	bool established;
	bool closing;			/* no more messages come or go */
	int err;
};

/* a request to connect, and the answer when there is nobody */
struct syn {
	struct sim_event event;
	struct sim_conn *from;
	char addr[64];
};

/* payload of a message that has been sent: let go a little later */
struct payload_event {
	struct sim_event event;
	void (*done)(void *arg);
	void *arg;
};

static void conn_pump(struct sim_event *e);
static void conn_end(struct sim_event *e);

static struct sim_life *life_of_net(struct cfs_net *net)
{
	return cfs_container_of(net, struct sim_life, net);
}

static struct sim_conn *conn_of(struct cfs_conn *conn)
{
	return cfs_container_of(conn, struct sim_conn, conn);
}

bool sim_net_parted(const struct cfs_sim *sim, const struct cfs_sim_node *a, const struct cfs_sim_node *b)
{
	return sim->part_gen[a->index][b->index] != 0;
}

static uint64_t delay(struct cfs_sim *sim, const struct cfs_sim_node *a, const struct cfs_sim_node *b)
{
	uint64_t ns = cfs_sim_between(sim, sim->p.net_min_ns, sim->p.net_max_ns);

	if (a == b)
		return 1000 + ns / 100;		/* within one machine */
	if (cfs_sim_chance(sim, sim->p.net_tail_ppm))
		ns *= 1 + cfs_sim_below(sim, 100);
	return ns + a->lag_ns + b->lag_ns;
}

/* ---- ends of connections --------------------------------------------------------------------------- */

static struct sim_conn *conn_new(struct sim_life *l, const struct cfs_conn_handler *handler, void *user,
				 const char *peer)
{
	struct sim_conn *c = sim_alloc(sizeof(*c));

	c->conn.net = &l->net;
	c->conn.handler = handler;
	c->conn.user = user;
	snprintf(c->conn.peer, sizeof(c->conn.peer), "%s", peer);
	c->life = l;
	c->tail = &c->head;
	c->pump.fire = conn_pump;
	c->end.fire = conn_end;
	cfs_list_init(&c->pump.life_link);
	cfs_list_init(&c->end.life_link);
	cfs_list_add_tail(&l->conns, &c->link);
	return c;
}

static void packets_drop(struct sim_conn *c)
{
	struct packet *p, *next;

	for (p = c->head; p; p = next) {
		next = p->next;
		cfs_msg_release(&p->msg);
		free(p);
	}
	c->head = NULL;
	c->tail = &c->head;
	c->queued = 0;
}

/* out of the world: events unscheduled, packets gone, the peer on its own */
static void conn_detach(struct sim_conn *c)
{
	if (c->pump.life)
		sim_unschedule(&c->pump);
	if (c->end.life)
		sim_unschedule(&c->end);
	packets_drop(c);
	if (c->peer)
		c->peer->peer = NULL;
	c->peer = NULL;
	if (c->syn)
		c->syn->from = NULL;
	c->syn = NULL;
	cfs_list_del(&c->link);
}

/* the pump runs when the first packet is due, unless the network is parted: healing starts it again */
static void pump_start(struct sim_conn *c)
{
	struct cfs_sim *sim = c->life->sim;

	if (!c->established || !c->head || c->pump.heap_pos || c->closing || !c->life->alive ||
	    sim_net_parted(sim, c->life->node, c->to))
		return;
	sim_schedule(sim, &c->pump, c->head->at, c->head->eof ? SIM_EOF : SIM_MSG, c->life);
}

/* this end is over; on_close comes by an event. What is on its way to it is lost */
static void conn_break(struct sim_conn *c, int err, uint64_t at)
{
	if (c->closing || !c->life->alive)
		return;
	c->closing = true;
	c->err = err;
	if (c->pump.life)
		sim_unschedule(&c->pump);
	if (c->end.life)	/* a silent end is overtaken by another one */
		sim_unschedule(&c->end);
	packets_drop(c);
	sim_schedule(c->life->sim, &c->end, at, SIM_CLOSED, c->life);
}

static void conn_end(struct sim_event *e)
{
	struct sim_conn *c = cfs_container_of(e, struct sim_conn, end);

	conn_detach(c);
	c->conn.handler->on_close(&c->conn, c->err);
	free(c);
}

static void conn_pump(struct sim_event *e)
{
	struct sim_conn *c = cfs_container_of(e, struct sim_conn, pump);
	struct sim_life *l = c->life;
	struct cfs_sim *sim = l->sim;
	struct packet *p = c->head;

	if (sim_net_parted(sim, l->node, c->to))
		return;
	c->head = p->next;
	if (!c->head)
		c->tail = &c->head;
	c->queued--;
	if (p->eof) {
		conn_break(c, 0, sim->now);
	} else {
		cfs_sim_trace_add(sim, cfs_le64_to_cpu(p->msg.hdr.tag) ^
				       (uint64_t)cfs_le32_to_cpu(p->msg.hdr.hdr_crc) << 32);
		pump_start(c);
		c->conn.handler->on_msg(&c->conn, &p->msg);
		/* c is still there: connections are freed by events of their own only, or with the world */
	}
	cfs_msg_release(&p->msg);
	free(p);
}

static void packet_put(struct sim_conn *to, struct packet *p, const struct cfs_sim_node *from)
{
	struct cfs_sim *sim = to->life->sim;

	p->at = cfs_max(sim->now + delay(sim, from, to->life->node), to->last_at);
	to->last_at = p->at;
	p->next = NULL;
	*to->tail = p;
	to->tail = &p->next;
	to->queued++;
	pump_start(to);
}

/* ---- net ops ------------------------------------------------------------------------------------------- */

static struct sim_listener *find_listener(struct cfs_sim *sim, const char *addr, struct sim_life **ret_life)
{
	struct cfs_list *pos;

	for (uint32_t i = 0; i < sim->n_nodes; i++) {
		struct sim_life *l = sim->nodes[i]->life;

		cfs_list_for_each(pos, &l->listeners) {
			struct sim_listener *s = cfs_list_entry(pos, struct sim_listener, link);

			if (!strcmp(s->addr, addr)) {
				*ret_life = l;
				return s;
			}
		}
	}
	return NULL;
}

static int sim_listen(struct cfs_net *net, const char *addr, const struct cfs_conn_handler *handler, void *user)
{
	struct sim_life *l = life_of_net(net), *other;
	struct sim_listener *s;

	if (!l->alive)
		return -ESHUTDOWN;
	if (strlen(addr) >= sizeof(s->addr))
		return -EINVAL;
	s = find_listener(l->sim, addr, &other);
	if (s && other->alive)
		return -EADDRINUSE;
	s = sim_alloc(sizeof(*s));
	strcpy(s->addr, addr);
	s->handler = handler;
	s->user = user;
	cfs_list_add_tail(&l->listeners, &s->link);
	return 0;
}

/* somebody listens: the other end comes to be, with what was sent ahead */
static void accept_at(struct sim_conn *c, struct sim_life *l, const struct sim_listener *at)
{
	struct cfs_sim *sim = l->sim;
	struct sim_conn *s = conn_new(l, at->handler, at->user, cfs_sim_node_name(c->life->node));

	s->peer = c;
	s->to = c->life->node;
	c->peer = s;
	c->to = l->node;
	s->established = c->established = true;
	s->last_at = c->last_at;
	if (c->head) {
		s->head = c->head;
		s->tail = c->tail;
		s->queued = c->queued;
	}
	c->head = NULL;
	c->tail = &c->head;
	c->queued = 0;
	c->last_at = 0;
	cfs_sim_trace_add(sim, SIM_OPEN * 1000u + l->node->index);
	pump_start(s);
	if (at->handler->on_open)
		at->handler->on_open(&s->conn);
}

/* arrives at whoever listens, or does not */
static void syn_arrives(struct sim_event *e)
{
	struct syn *syn = cfs_container_of(e, struct syn, event);
	struct sim_conn *c = syn->from;
	struct cfs_sim *sim = e->life->sim;
	const struct sim_listener *at;
	struct sim_life *l;

	if (!c || c->closing)	/* given up meanwhile */
		goto out;
	c->syn = NULL;
	at = find_listener(sim, syn->addr, &l);
	if (at && (!l->alive || sim_net_parted(sim, c->life->node, l->node)))
		conn_break(c, -ETIMEDOUT, sim->now + CONNECT_TIMEOUT_NS);	/* nobody answers */
	else if (!at || l->node->refuse)
		conn_break(c, -ECONNREFUSED, sim->now + sim->p.net_min_ns);
	else
		accept_at(c, l, at);
out:
	if (c)
		c->syn = NULL;
	free(syn);
}

static int sim_connect(struct cfs_net *net, const char *addr, const struct cfs_conn_handler *handler, void *user,
		       struct cfs_conn **ret_conn)
{
	struct sim_life *l = life_of_net(net), *to = NULL;
	struct cfs_sim *sim = l->sim;
	struct sim_conn *c;
	struct syn *syn;

	if (!l->alive)
		return -ESHUTDOWN;
	if (strlen(addr) >= sizeof(syn->addr))
		return -EINVAL;
	c = conn_new(l, handler, user, addr);
	c->to = l->node;
	if (find_listener(sim, addr, &to))
		c->to = to->node;
	syn = sim_alloc(sizeof(*syn));
	syn->from = c;
	c->syn = syn;
	strcpy(syn->addr, addr);
	syn->event.fire = syn_arrives;
	c->last_at = sim->now + delay(sim, l->node, c->to);
	/* belongs to the connecting life: with it, the attempt vanishes */
	sim_schedule(sim, &syn->event, c->last_at, SIM_OPEN, l);
	*ret_conn = &c->conn;
	return 0;
}

static void payload_fire(struct sim_event *e)
{
	struct payload_event *p = cfs_container_of(e, struct payload_event, event);

	p->done(p->arg);
	free(p);
}

static int sim_send(struct cfs_conn *conn, const struct cfs_send *send)
{
	struct sim_conn *c = conn_of(conn), *to = c->peer;
	struct sim_life *l = c->life;
	struct cfs_sim *sim = l->sim;
	struct payload_event *pe;
	struct packet *p;

	CFS_ASSERT(send->body_len <= CFS_BODY_MAX && send->payload_len <= CFS_PAYLOAD_MAX);
	CFS_ASSERT(!send->payload_len || (send->payload && send->payload_done));
	if (!l->alive || c->closing)
		return -EPIPE;
	if ((to ? to->queued : c->queued) >= CFS_NET_QUEUE_MSGS)
		return -ENOBUFS;
	p = sim_alloc(sizeof(*p) + send->body_len);
	if (send->body_len)
		memcpy(p->body, send->body, send->body_len);
	p->msg.hdr = send->hdr;
	p->msg.body = p->body;
	cfs_hdr_seal(&p->msg.hdr, p->body, send->body_len, send->payload_len);
	if (send->payload_len) {
		struct cfs_pbuf *buf = cfs_pool_take(sim->pool, send->payload_len);

		if (!buf) {
			free(p);
			return -ENOBUFS;
		}
		memcpy(buf->data, send->payload, send->payload_len);
		cfs_pbuf_zero_tail(buf, send->payload_len);
		p->msg.priv = buf;
		p->msg.payload = buf->data;
		pe = sim_alloc(sizeof(*pe));
		pe->done = send->payload_done;
		pe->arg = send->payload_arg;
		pe->event.fire = pe->event.lose = payload_fire;
		sim_schedule(sim, &pe->event, sim->now + cfs_sim_between(sim, 100, sim->p.net_max_ns),
			     SIM_PAYLOAD, l);
	}
	if (c->established) {
		if (to && !to->closing && to->life->alive) {
			packet_put(to, p, l->node);
			return 0;
		}
		/* into the void: news of the end is on its way. A machine that is up again answers with a reset */
		if (to && c->to->life->alive && c->to->life != to->life &&
		    !sim_net_parted(sim, l->node, c->to))
			conn_break(c, -ECONNRESET, sim->now + delay(sim, l->node, c->to));
		cfs_msg_release(&p->msg);
		free(p);
		return 0;
	}
	/* still connecting: waits at our own end until somebody is there */
	p->at = c->last_at;
	*c->tail = p;
	c->tail = &p->next;
	c->queued++;
	return 0;
}

static void sim_conn_close(struct cfs_conn *conn)
{
	struct sim_conn *c = conn_of(conn), *to = c->peer;
	struct packet *p;

	if (!c->life->alive || c->closing)
		return;
	if (to && !to->closing && to->life->alive) {
		p = sim_alloc(sizeof(*p));	/* behind what was sent */
		p->eof = true;
		packet_put(to, p, c->life->node);
	}
	conn_break(c, 0, c->life->sim->now);
}

static void listeners_free(struct sim_life *l)
{
	while (!cfs_list_empty(&l->listeners)) {
		struct sim_listener *s = cfs_list_first(&l->listeners, struct sim_listener, link);

		cfs_list_del(&s->link);
		free(s);
	}
}

static void sim_net_close(struct cfs_net *net)
{
	struct sim_life *l = life_of_net(net);

	if (!l->alive)
		return;
	listeners_free(l);
	while (l->alive && !cfs_list_empty(&l->conns)) {
		struct sim_conn *c = cfs_list_first(&l->conns, struct sim_conn, link);

		sim_conn_close(&c->conn);
		sim_unschedule(&c->end);
		conn_end(&c->end);
	}
}

static const struct cfs_net_ops sim_net_ops = {
	.name = "sim",
	.version = CFS_NET_OPS_VERSION,
	.listen = sim_listen,
	.connect = sim_connect,
	.send = sim_send,
	.conn_close = sim_conn_close,
	.close = sim_net_close,
};

/* ---- lives ----------------------------------------------------------------------------------------------- */

void sim_net_init(struct sim_life *life)
{
	life->net.ops = &sim_net_ops;
}

/* peers of a killed process are told by its kernel; of a dead machine they learn by silence */
void sim_net_crash(struct sim_life *life, enum cfs_sim_crash how)
{
	struct cfs_sim *sim = life->sim;
	struct cfs_list *pos;

	cfs_list_for_each(pos, &life->conns) {
		struct sim_conn *c = cfs_list_entry(pos, struct sim_conn, link);
		struct sim_conn *peer = c->peer;

		c->syn = NULL;	/* lost with all other events */
		if (c->pump.life)
			sim_unschedule(&c->pump);
		if (c->end.life)
			sim_unschedule(&c->end);
		packets_drop(c);
		if (!peer || !peer->life->alive || peer->closing)
			continue;
		if (how == CFS_SIM_KILL && !sim_net_parted(sim, life->node, peer->life->node)) {
			struct packet *p = sim_alloc(sizeof(*p));	/* behind what was sent */

			p->eof = true;
			packet_put(peer, p, life->node);
		} else if (!peer->end.heap_pos) {	/* until then what was sent still arrives */
			peer->err = -ETIMEDOUT;
			sim_schedule(sim, &peer->end, sim->now + sim->p.dead_ns, SIM_DEAD, peer->life);
		}
	}
	if (how == CFS_SIM_KILL)	/* the port is closed; a dead machine's address is just silent */
		listeners_free(life);
}

void sim_net_unwind(struct sim_life *life)
{
	while (!cfs_list_empty(&life->conns)) {
		struct sim_conn *c = cfs_list_first(&life->conns, struct sim_conn, link);

		conn_detach(c);
		c->conn.handler->on_close(&c->conn, -ESHUTDOWN);
		free(c);
	}
}

void sim_net_fini(struct sim_life *life)
{
	listeners_free(life);
	while (!cfs_list_empty(&life->conns)) {
		struct sim_conn *c = cfs_list_first(&life->conns, struct sim_conn, link);

		conn_detach(c);
		free(c);
	}
}

/* ---- weather ------------------------------------------------------------------------------------------------ */

/* fn on every living, open end on `a` whose other end is `b` */
static void for_each_conn(struct cfs_sim_node *a, struct cfs_sim_node *b, void (*fn)(struct sim_conn *c))
{
	struct cfs_list *pos, *tmp;

	if (!a->life->alive)
		return;
	cfs_list_for_each_safe(pos, tmp, &a->life->conns) {
		struct sim_conn *c = cfs_list_entry(pos, struct sim_conn, link);

		if (c->to == b && !c->closing)
			fn(c);
	}
}

static void break_reset(struct sim_conn *c)
{
	struct cfs_sim *sim = c->life->sim;

	if (c->established)	/* else: its own timeout tells */
		conn_break(c, -ECONNRESET, sim->now + cfs_sim_between(sim, 1000, sim->p.net_max_ns));
}

static void break_timeout(struct sim_conn *c)
{
	if (c->established)
		conn_break(c, -ETIMEDOUT, c->life->sim->now);
}

void cfs_sim_net_cut(struct cfs_sim_node *a, struct cfs_sim_node *b)
{
	for_each_conn(a, b, break_reset);
	if (a != b)
		for_each_conn(b, a, break_reset);
}

struct silence {
	struct sim_event event;
	struct cfs_sim *sim;
	struct cfs_sim_node *a, *b;
	uint64_t gen;
};

static void silence_ends(struct sim_event *e)
{
	struct silence *s = cfs_container_of(e, struct silence, event);

	if (s->sim->part_gen[s->a->index][s->b->index] == s->gen) {
		for_each_conn(s->a, s->b, break_timeout);
		for_each_conn(s->b, s->a, break_timeout);
	}
	free(s);
}

void cfs_sim_net_partition(struct cfs_sim_node *a, struct cfs_sim_node *b, bool on)
{
	struct cfs_sim *sim = a->sim;
	struct silence *s;

	CFS_ASSERT(a != b);
	if (on == sim_net_parted(sim, a, b))
		return;
	cfs_sim_trace_add(sim, (SIM_DEAD * 1000u + a->index * 64u + b->index) * 2u + on);
	sim->part_gen[a->index][b->index] = sim->part_gen[b->index][a->index] = on ? ++sim->next_gen : 0;
	if (!on) {
		for_each_conn(a, b, pump_start);
		for_each_conn(b, a, pump_start);
		return;
	}
	s = sim_alloc(sizeof(*s));
	s->sim = sim;
	s->a = a;
	s->b = b;
	s->gen = sim->next_gen;
	s->event.fire = silence_ends;
	sim_schedule(sim, &s->event, sim->now + sim->p.dead_ns, SIM_DEAD, NULL);
}

void cfs_sim_net_isolate(struct cfs_sim_node *node, bool on)
{
	for (uint32_t i = 0; i < node->sim->n_nodes; i++)
		if (node->sim->nodes[i] != node)
			cfs_sim_net_partition(node, node->sim->nodes[i], on);
}

void cfs_sim_net_refuse(struct cfs_sim_node *node, bool on)
{
	node->refuse = on;
}

void cfs_sim_net_lag(struct cfs_sim_node *node, uint64_t extra_ns)
{
	node->lag_ns = extra_ns;
}
