/* SPDX-License-Identifier: MIT */
/*
 * fake_server.h - a metadata shard and object targets inside the test process, behind the functions of client/rpc.h.
 *
 * It knows files (inline bytes or extents), objects on FAKE_TARGETS targets, and the file leases of several clients, whose
 * cfs_data_break() it calls on the requester's thread. It holds on to what the data path must never do: a COMMIT
 * without the exclusive lease, extents whose objects are not on all their targets, or that leave inline bytes
 * uncovered. Faults are injected by fields of struct fake.
 */
#ifndef FAKE_SERVER_H
#define FAKE_SERVER_H

#include "base/base.h"
#include "base/crc32c.h"
#include "base/hash.h"
#include "client/data.h"
#include "client/rpc.h"

#include <limits.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* a directory of this test's own: the runner's, or below /tmp (where process ids of other namespaces are not unique) */
static inline void test_dir(char *buf, size_t len, const char *what, unsigned id)
{
	const char *dir = getenv("T_DIR");

	snprintf(buf, len, "%s/cfs-test-%s.%d.%u", dir ? dir : "/tmp", what, (int)getpid(), id);
}

#define FAKE_CLIENTS	3
#define FAKE_FILES	20100
#define FAKE_EXTENTS	65536
#define FAKE_TARGETS	3
#define FAKE_REPLICAS	2
#define FAKE_PGS	12
#define FAKE_FATAL(...) do { fprintf(stderr, "fake server: " __VA_ARGS__); fputc('\n', stderr); abort(); } while (0)

struct fake_file {
	uint64_t size;
	struct cfs_time mtime;
	bool gone;
	uint32_t inline_len;		/* 0: not inline; what is beyond reads as zeros */
	unsigned char bytes[CFS_INLINE_MAX];
	struct cfs_extent *ext;
	unsigned n_ext;
	uint8_t lease[FAKE_CLIENTS];
	bool open[FAKE_CLIENTS];
	bool busy;			/* an OPEN or SETATTR has the key */
	uint64_t broken_gen[FAKE_CLIENTS];
	unsigned killed;		/* COMMITs with KILLPRIV */
	bool contended;			/* who can is told to write through */
};

struct fake_object {
	struct fake_object *next;
	struct cfs_oid oid;
	uint32_t len;
	unsigned char *data;
	bool on[FAKE_TARGETS], rotten[FAKE_TARGETS];
};

struct cfs_client {
	unsigned id;
	bool dead;			/* session lost: requests fail */
};

static struct fake {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct cfs_client clients[FAKE_CLIENTS];
	struct fake_file files[FAKE_FILES];	/* by inode number */
	struct fake_object *objects[4096];
	uint64_t gen, oid_seq;
	uint64_t n_through;		/* COMMITs without a lease */
	uint64_t n_open, n_extents, n_commit, n_commit_items, n_setattr, n_obj_write, n_obj_read, n_return, n_break;
	/* faults */
	bool target_down[FAKE_TARGETS];
	unsigned write_fails_pct, refuse_pct, delay_us;
	bool reads_flaky;		/* target 0 sometimes does not answer */
	int commit_status;		/* of every item */
	bool may_through;		/* COMMITs without a lease are fine */
	unsigned extents_max;		/* in one reply, 0: what is asked for */
} fake = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

/* each thread has its own sequence; one that matters for a replay is seeded */
static __thread uint64_t fake_rand_state;
static inline void fake_seed(unsigned seed)
{
	fake_rand_state = (uint64_t)seed << 32 | 1;
}

static inline unsigned fake_rand(void)
{
	static uint64_t threads;

	if (!fake_rand_state)
		fake_seed(1000 + (unsigned)__atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED));
	return (unsigned)(cfs_hash_u64(++fake_rand_state) >> 33);
}

static inline void fake_delay(void)
{
	if (fake.delay_us && fake_rand() % 4 == 0)
		usleep(fake_rand() % fake.delay_us);
}

static inline struct fake_file *fake_file(uint64_t ino)
{
	if (!ino || ino >= FAKE_FILES)
		FAKE_FATAL("inode %llu", (unsigned long long)ino);
	return &fake.files[ino];
}

static inline struct fake_object *fake_find(const struct cfs_oid *oid)
{
	struct fake_object *o = fake.objects[oid->seq % 4096];

	while (o && (o->oid.seq != oid->seq || o->oid.owner != oid->owner))
		o = o->next;
	return o;
}

static inline void fake_attr(uint64_t ino, struct cfs_attr *a)
{
	struct fake_file *f = fake_file(ino);

	memset(a, 0, sizeof(*a));
	a->ino = ino;
	a->size = f->size;
	a->mtime = a->ctime = f->mtime;
	a->mode = 0100644;
	a->nlink = 1;
	a->flags = f->inline_len ? CFS_IF_INLINE : 0;
	a->alloc = f->inline_len;
	for (unsigned i = 0; i < f->n_ext; i++)
		a->alloc += f->ext[i].len;
}

/* cut [off, end) out of the extents, then maybe put one there */
static inline void fake_overlay(struct fake_file *f, uint64_t off, uint64_t end, const struct cfs_extent *e)
{
	struct cfs_extent *v = malloc((f->n_ext + 2) * sizeof(*v));
	unsigned n = 0;

	for (unsigned i = 0; i < f->n_ext; i++) {
		struct cfs_extent x = f->ext[i];
		uint64_t x_end = x.file_off + x.len;

		if (x.file_off < off) {
			v[n] = x;
			v[n].len = (uint32_t)((x_end < off ? x_end : off) - x.file_off);
			n++;
		}
		if (e && off <= x.file_off && (i == 0 || f->ext[i - 1].file_off < off)) {
			v[n++] = *e;
			e = NULL;
		}
		if (x_end > end) {
			uint64_t skip = x.file_off < end ? end - x.file_off : 0;

			if (e && off > x.file_off) {	/* in the middle of x */
				v[n++] = *e;
				e = NULL;
			}
			v[n] = x;
			v[n].file_off += skip;
			v[n].obj_off += (uint32_t)skip;
			v[n].len -= (uint32_t)skip;
			n++;
		}
	}
	if (e)
		v[n++] = *e;
	if (n > FAKE_EXTENTS)
		FAKE_FATAL("%u extents", n);
	for (unsigned i = 1; i < n; i++)
		if (v[i].file_off < v[i - 1].file_off + v[i - 1].len)
			FAKE_FATAL("the fake's own extents are out of order");
	free(f->ext);
	f->ext = v;
	f->n_ext = n;
}

static inline int fake_open_rep(uint64_t ino, uint64_t off, uint32_t max, unsigned lease, struct cfs_call *call)
{
	struct fake_file *f = fake_file(ino);
	struct cfs_open_rep rep = { .lease = lease };
	unsigned char *p = call->rep;
	unsigned i, n = 0;

	fake_attr(ino, &rep.attr);
	if (fake.extents_max && max > fake.extents_max)
		max = fake.extents_max;
	rep.inline_len = f->inline_len;
	rep.extents_end = fake_rand() % 2 ? f->size : INT64_MAX;
	for (i = 0; i < f->n_ext && f->ext[i].file_off + f->ext[i].len <= off; i++)
		;
	for (; i < f->n_ext; i++) {
		if (n == max) {
			rep.extents_end = f->ext[i].file_off;
			break;
		}
		memcpy(p + sizeof(rep) + rep.inline_len + n++ * sizeof(*f->ext), &f->ext[i], sizeof(*f->ext));
	}
	rep.n_extents = n;
	memcpy(p, &rep, sizeof(rep));
	memcpy(p + sizeof(rep), f->bytes, rep.inline_len);
	call->rep_len = (uint32_t)(sizeof(rep) + rep.inline_len + n * sizeof(*f->ext));
	if (call->rep_len > call->rep_max)
		FAKE_FATAL("reply of %u bytes for %u", call->rep_len, call->rep_max);
	return 0;
}

/* lock held: wait for the key, break what others hold beyond `keep`; holds the key then */
static inline void fake_take(struct cfs_client *c, uint64_t ino, unsigned keep)
{
	struct fake_file *f = fake_file(ino);

	while (f->busy)
		pthread_cond_wait(&fake.cond, &fake.lock);
	f->busy = true;
	for (unsigned i = 0; i < FAKE_CLIENTS; i++) {
		if (i == c->id || f->lease[i] <= keep)
			continue;
		__atomic_store_n(&f->broken_gen[i], ++fake.gen, __ATOMIC_SEQ_CST);
		fake.n_break++;
		pthread_mutex_unlock(&fake.lock);
		fake_delay();
		cfs_data_break(&fake.clients[i], ino, keep);
		pthread_mutex_lock(&fake.lock);
		f->lease[i] = (uint8_t)keep;
	}
}

static inline void fake_give(uint64_t ino)
{
	fake_file(ino)->busy = false;
	pthread_cond_broadcast(&fake.cond);
}

static inline int fake_setattr(struct cfs_client *c, const struct cfs_setattr_req *r, struct cfs_call *call)
{
	struct fake_file *f = fake_file(r->ino);
	struct cfs_attr_rep rep = { .valid = 0 };

	fake.n_setattr++;
	fake_take(c, r->ino, CFS_LEASE_NONE);
	if (r->valid & CFS_SA_SIZE) {
		if (f->inline_len > r->size)
			f->inline_len = (uint32_t)r->size;
		fake_overlay(f, r->size, INT64_MAX, NULL);
		f->size = r->size;
	}
	if (r->valid & CFS_SA_MTIME)
		f->mtime = r->mtime;
	fake_attr(r->ino, &rep.attr);
	fake_give(r->ino);
	memcpy(call->rep, &rep, sizeof(rep));
	call->rep_len = sizeof(rep);
	return 0;
}

/* a COMMIT of who writes through: it may not be there, break what others hold, and choose the place */
static inline int fake_patch(struct fake_file *f, const struct cfs_commit_item *it, const unsigned char *inl, uint64_t base)
{
	if (f->n_ext || base + it->inline_len > CFS_INLINE_MAX || f->size > CFS_INLINE_MAX)
		return EMSGSIZE;
	if (base + it->inline_len > f->inline_len) {
		memset(f->bytes + f->inline_len, 0, base + it->inline_len - f->inline_len);
		f->inline_len = (uint32_t)(base + it->inline_len);
	}
	memcpy(f->bytes + base, inl, it->inline_len);
	if (f->inline_len > f->size)
		f->size = f->inline_len;
	return 0;
}

static inline int fake_commit_through(struct cfs_client *c, const struct cfs_commit_item *it, const unsigned char *inl,
				      const struct cfs_extent *ext, uint64_t *ret_off)
{
	struct fake_file *f = fake_file(it->ino);
	struct cfs_extent e;
	int rc = 0;

	fake.n_through++;
	fake_take(c, it->ino, CFS_LEASE_NONE);
	*ret_off = it->flags & CFS_CI_APPEND ? f->size : it->n_extents ? ext->file_off : it->size;
	if (it->flags & ~(CFS_CI_APPEND | CFS_CI_PATCH | CFS_CI_KILLPRIV) || it->n_extents > 1)
		FAKE_FATAL("COMMIT through with flags %x and %u extents", it->flags, it->n_extents);
	if (it->flags & CFS_CI_PATCH) {
		rc = fake_patch(f, it, inl, *ret_off);
	} else {
		e = ext[0];
		e.file_off = *ret_off;
		if (!fake_find(&e.oid))
			FAKE_FATAL("extent without its object");
		if (f->inline_len && (e.file_off || e.len < f->inline_len))
			rc = EINVAL;
		if (!rc) {
			f->inline_len = 0;
			fake_overlay(f, e.file_off, e.file_off + e.len, &e);
			if (e.file_off + e.len > f->size)
				f->size = e.file_off + e.len;
		}
	}
	fake_give(it->ino);
	return rc;
}

static inline int fake_commit_one(struct cfs_client *c, const struct cfs_commit_item *it, const unsigned char *inl,
				  const struct cfs_extent *ext, uint64_t *ret_off)
{
	struct fake_file *f = fake_file(it->ino);

	if (f->gone)
		return ENOENT;
	if (fake.commit_status)
		return fake.commit_status;
	if (f->lease[c->id] != CFS_LEASE_EXCL && fake.may_through)
		return fake_commit_through(c, it, inl, ext, ret_off);
	if (f->lease[c->id] != CFS_LEASE_EXCL)
		FAKE_FATAL("client %u commits inode %llu without the exclusive lease", c->id, (unsigned long long)it->ino);
	if (it->flags & CFS_CI_KILLPRIV)
		f->killed++;
	if (it->flags & CFS_CI_INLINE) {
		if (it->n_extents)
			FAKE_FATAL("inline data and extents");
		fake_overlay(f, 0, INT64_MAX, NULL);
		memcpy(f->bytes, inl, it->inline_len);
		f->inline_len = it->inline_len;
		f->size = 0;
	} else if (it->n_extents) {
		uint64_t covered = 0;

		for (unsigned i = 0; i < it->n_extents; i++) {
			struct fake_object *o = fake_find(&ext[i].oid);
			unsigned pg = (unsigned)(ext[i].oid.seq >> CFS_OID_PG_SHIFT);

			for (unsigned k = 0; k < FAKE_REPLICAS; k++)
				if (!o || !o->on[(pg + k) % FAKE_TARGETS])
					FAKE_FATAL("extent without its object");
			if (o->len != ext[i].obj_len || ext[i].obj_off + ext[i].len > o->len)
				FAKE_FATAL("extent beyond its object");
			if (ext[i].file_off == covered)
				covered += ext[i].len;
			if (ext[i].file_off / CFS_OBJECT_MAX != (ext[i].file_off + ext[i].len - 1) / CFS_OBJECT_MAX)
				FAKE_FATAL("extent over a boundary of objects");
			fake_overlay(f, ext[i].file_off, ext[i].file_off + ext[i].len, &ext[i]);
		}
		if (covered < f->inline_len)
			FAKE_FATAL("inline bytes would be left uncovered");
		f->inline_len = 0;
	}
	if (it->size > f->size)
		f->size = it->size;
	f->mtime = it->mtime;
	return 0;
}

static inline int fake_commit(struct cfs_client *c, const unsigned char *p, size_t len, struct cfs_call *call)
{
	const unsigned char *end = p + len;
	struct cfs_commit_rep rep;
	struct cfs_commit_req req;
	unsigned char *out = call->rep;
	bool seen[FAKE_FILES] = { false };

	memcpy(&req, p, sizeof(req));
	p += sizeof(req);
	rep = (struct cfs_commit_rep){ .n = req.n };
	memcpy(out, &rep, sizeof(rep));
	out += sizeof(rep);
	fake.n_commit++;
	fake.n_commit_items += req.n;
	for (unsigned i = 0; i < req.n; i++) {
		struct cfs_commit_result res = { 0 };
		struct cfs_commit_item it;
		const unsigned char *inl;

		memcpy(&it, p, sizeof(it));
		inl = p + sizeof(it);
		p = inl + it.inline_len + it.n_extents * sizeof(struct cfs_extent);
		if (seen[it.ino])
			FAKE_FATAL("inode %llu twice in a COMMIT", (unsigned long long)it.ino);
		seen[it.ino] = true;
		res.status = (uint32_t)fake_commit_one(c, &it, inl, (const void *)(inl + it.inline_len), &res.off);
		res.flags = fake_file(it.ino)->contended ? CFS_CR_CONTENDED : 0;
		if (!res.status)
			fake_attr(it.ino, &res.attr);
		memcpy(out, &res, sizeof(res));
		out += sizeof(res);
	}
	if (p != end)
		FAKE_FATAL("COMMIT with %zd bytes too many", end - p);
	call->rep_len = (uint32_t)(out - (unsigned char *)call->rep);
	return 0;
}

static inline int fake_open(struct cfs_client *c, const struct cfs_open_req *r, struct cfs_call *call)
{
	struct fake_file *f = fake_file(r->ino);
	unsigned want = r->want, lease;

	fake.n_open++;
	if (f->gone)
		return ENOENT;
	if (r->flags & CFS_OPEN_KEEP)
		f->open[c->id] = true;
	if (r->flags & CFS_OPEN_THROUGH && f->contended && f->lease[c->id] != CFS_LEASE_EXCL) {
		fake_open_rep(r->ino, r->off, r->max_extents, f->lease[c->id], call);
		((struct cfs_open_rep *)call->rep)->valid = CFS_V_CONTENDED;
		return 0;
	}
	if (want == CFS_LEASE_SHARED && fake_rand() % 100 < fake.refuse_pct)
		want = CFS_LEASE_NONE;
	/* even who gets no lease must not see old bytes */
	fake_take(c, r->ino, want == CFS_LEASE_EXCL ? CFS_LEASE_NONE : CFS_LEASE_SHARED);
	lease = f->lease[c->id] > want ? f->lease[c->id] : want;
	f->lease[c->id] = (uint8_t)lease;
	fake_open_rep(r->ino, r->off, r->max_extents, lease, call);
	fake_give(r->ino);
	return 0;
}

int cfs_call(struct cfs_client *c, struct cfs_call *call)
{
	unsigned char *body;
	size_t len = 0;
	int rc = 0;

	for (unsigned i = 0; i < call->n_body; i++)
		len += call->body[i].iov_len;
	if (len > CFS_BODY_MAX)
		FAKE_FATAL("body of %zu bytes", len);
	body = malloc(len);
	len = 0;
	for (unsigned i = 0; i < call->n_body; i++) {
		memcpy(body + len, call->body[i].iov_base, call->body[i].iov_len);
		len += call->body[i].iov_len;
	}
	fake_delay();
	pthread_mutex_lock(&fake.lock);
	call->break_gen = fake.gen;
	if (__atomic_load_n(&c->dead, __ATOMIC_RELAXED)) {
		rc = CFS_E_BADSESSION;
		goto out;
	}
	switch (call->opcode) {
	case CFS_OP_OPEN:
		rc = fake_open(c, (const void *)body, call);
		break;
	case CFS_OP_EXTENTS: {
		const struct cfs_extents_req *r = (const void *)body;

		fake.n_extents++;
		rc = fake_open_rep(r->ino, r->off, r->max_extents, fake_file(r->ino)->lease[c->id], call);
		break;
	}
	case CFS_OP_COMMIT:
		rc = fake_commit(c, body, len, call);
		break;
	case CFS_OP_SETATTR:
		rc = fake_setattr(c, (const void *)body, call);
		break;
	case CFS_OP_LEASE_RETURN: {
		const struct cfs_lease_list *l = (const void *)body;
		const struct cfs_lease_item *it = (const void *)(l + 1);

		fake.n_return++;
		for (unsigned i = 0; i < l->n; i++) {
			struct fake_file *f = fake_file(it[i].ino);

			f->lease[c->id] = it[i].mode;
			f->open[c->id] = it[i].open;
			__atomic_store_n(&f->broken_gen[c->id], ++fake.gen, __ATOMIC_SEQ_CST);
		}
		break;
	}
	default:
		FAKE_FATAL("opcode %u", call->opcode);
	}
out:
	pthread_mutex_unlock(&fake.lock);
	free(body);
	fake_delay();
	return rc;
}

static inline int fake_obj_write(uint32_t target, const struct cfs_obj_write_req *r, const cfs_le32 *crcs,
				 const struct cfs_call *call)
{
	struct fake_object *o;

	fake.n_obj_write++;
	if (r->len != call->payload_len || !r->len || r->len > CFS_OBJECT_MAX)
		FAKE_FATAL("object of %u bytes, payload %u", r->len, call->payload_len);
	for (uint32_t off = 0; off < r->len; off += CFS_CRC_BLOCK) {
		uint32_t n = cfs_min(CFS_CRC_BLOCK, r->len - off);

		if (cfs_crc32c(0, (const unsigned char *)call->payload + off, n) != crcs[off / CFS_CRC_BLOCK])
			FAKE_FATAL("checksum of a block");
	}
	if (fake.target_down[target])
		return -EIO;
	if (fake_rand() % 100 < fake.write_fails_pct)
		return fake_rand() % 2 ? EIO : ENOSPC;
	o = fake_find(&r->oid);
	if (!o) {
		o = calloc(1, sizeof(*o));
		o->oid = r->oid;
		o->len = r->len;
		o->data = malloc(r->len);
		memcpy(o->data, call->payload, r->len);
		o->next = fake.objects[r->oid.seq % 4096];
		fake.objects[r->oid.seq % 4096] = o;
	}
	if (o->on[target])
		FAKE_FATAL("object written twice");
	o->on[target] = true;
	return 0;
}

static inline int fake_obj_read(uint32_t target, const struct cfs_obj_read_req *r, struct cfs_call *call)
{
	struct fake_object *o = fake_find(&r->oid);
	struct cfs_obj_read_rep rep;
	unsigned char *out = call->rep;
	uint32_t off = r->off / CFS_CRC_BLOCK * CFS_CRC_BLOCK, end, n = 0;

	fake.n_obj_read++;
	if (fake.target_down[target] || (fake.reads_flaky && target == 0 && fake_rand() % 2))
		return -EIO;
	if (!o || !o->on[target])
		return CFS_E_NOOBJECT;
	if (r->off + r->len > o->len)
		return EINVAL;
	end = (uint32_t)cfs_min(cfs_align_up((uint64_t)r->off + r->len, CFS_CRC_BLOCK), o->len);
	if (end - off > call->rep_payload_max)
		FAKE_FATAL("no room for %u bytes", end - off);
	memcpy(call->rep_payload, o->data + off, end - off);
	for (uint32_t at = off; at < end; at += CFS_CRC_BLOCK) {
		cfs_le32 crc = cfs_crc32c(0, o->data + at, cfs_min(CFS_CRC_BLOCK, end - at));

		memcpy(out + sizeof(rep) + n++ * 4, &crc, 4);
	}
	if (o->rotten[target])
		((unsigned char *)call->rep_payload)[fake_rand() % (end - off)] ^= 1;
	rep = (struct cfs_obj_read_rep){ .obj_len = o->len, .off = off, .len = end - off };
	memcpy(out, &rep, sizeof(rep));
	call->rep_len = (uint32_t)sizeof(rep) + n * 4;
	call->rep_payload_len = end - off;
	return 0;
}

static inline int fake_obj_delete(uint32_t target, const struct cfs_oid *oid)
{
	struct fake_object *o = fake_find(oid);

	if (o)
		o->on[target] = false;
	return 0;
}

int cfs_call_target(struct cfs_client *c, uint32_t target, struct cfs_call *call)
{
	int rc;

	if (target >= FAKE_TARGETS)
		FAKE_FATAL("target %u", target);
	fake_delay();
	if (__atomic_load_n(&c->dead, __ATOMIC_RELAXED))
		return CFS_E_BADSESSION;
	pthread_mutex_lock(&fake.lock);
	if (call->opcode == CFS_OP_OBJ_WRITE)
		rc = fake_obj_write(target, call->body[0].iov_base, call->body[1].iov_base, call);
	else if (call->opcode == CFS_OP_OBJ_DELETE)
		rc = fake_obj_delete(target, call->body[1].iov_base);
	else
		rc = fake_obj_read(target, call->body[0].iov_base, call);
	pthread_mutex_unlock(&fake.lock);
	return rc;
}

int cfs_call_targets(struct cfs_client *c, const uint32_t *targets, struct cfs_call *calls, int *rc, unsigned n)
{
	if (n > 16)
		FAKE_FATAL("%u calls at once", n);
	for (unsigned i = 0; i < n; i++)
		rc[i] = cfs_call_target(c, targets[i], &calls[i]);
	return 0;
}

void cfs_flight_init(struct cfs_flight *f, struct cfs_client *c, struct cfs_call *calls, int *rc)
{
	f->c = c;
	f->calls = calls;
	f->rc = rc;
	f->n = 0;
}

void cfs_flight_send(struct cfs_flight *f, uint32_t target)
{
	if (f->n == CFS_FLIGHT_MAX)
		FAKE_FATAL("%u calls at once", f->n);
	f->rc[f->n] = cfs_call_target(f->c, target, &f->calls[f->n]);
	f->n++;
}

int cfs_flight_wait(struct cfs_flight *f, unsigned i)
{
	return f->rc[i];
}

void cfs_flight_finish(struct cfs_flight *f)
{
	f->n = 0;
}

struct cfs_oid cfs_client_new_oid(struct cfs_client *c, unsigned attempt)
{
	uint64_t seq = __atomic_add_fetch(&fake.oid_seq, 1, __ATOMIC_RELAXED);

	return (struct cfs_oid){ .owner = c->id + 1, .seq = (seq + attempt) % FAKE_PGS << CFS_OID_PG_SHIFT | seq };
}

unsigned cfs_client_pg_targets(struct cfs_client *c, const struct cfs_oid *oid, uint32_t *targets, unsigned max)
{
	unsigned pg = (unsigned)(oid->seq >> CFS_OID_PG_SHIFT);

	(void)c;
	CFS_ASSERT(max >= FAKE_REPLICAS);
	for (unsigned i = 0; i < FAKE_REPLICAS; i++)
		targets[i] = (pg + i) % FAKE_TARGETS;
	return FAKE_REPLICAS;
}

void cfs_client_changed(struct cfs_client *c, uint64_t ino)
{
	pthread_mutex_lock(&fake.lock);
	fake_file(ino)->broken_gen[c->id] = ++fake.gen;
	pthread_mutex_unlock(&fake.lock);
}

uint64_t cfs_client_features(struct cfs_client *c)
{
	(void)c;
	return CFS_FEAT_THROUGH;
}

bool cfs_client_broken_since(struct cfs_client *c, uint64_t ino, uint64_t break_gen)
{
	/* not fake.lock: it is asked under an inode's lock, which a break on another thread may want */
	return __atomic_load_n(&fake_file(ino)->broken_gen[c->id], __ATOMIC_SEQ_CST) > break_gen;
}

bool cfs_client_live(struct cfs_client *c)
{
	(void)c;
	return true;
}

/* a counter, while other threads are at work */
static inline uint64_t fake_count(const uint64_t *counter)
{
	uint64_t v;

	pthread_mutex_lock(&fake.lock);
	v = *counter;
	pthread_mutex_unlock(&fake.lock);
	return v;
}

static inline void fake_reset(void)
{
	for (unsigned i = 0; i < 4096; i++)
		for (struct fake_object *o = fake.objects[i], *next; o; o = next) {
			next = o->next;
			free(o->data);
			free(o);
		}
	for (unsigned i = 0; i < FAKE_FILES; i++)
		free(fake.files[i].ext);
	memset(fake.files, 0, sizeof(fake.files));
	memset(fake.objects, 0, sizeof(fake.objects));
	memset(&fake.n_open, 0, sizeof(fake) - offsetof(struct fake, n_open));
	fake.gen = 0;
	for (unsigned i = 0; i < FAKE_CLIENTS; i++)
		fake.clients[i] = (struct cfs_client){ .id = i };
}

/* start client `id` with a cache directory of its own below the test's */
static inline void fake_start(unsigned id, const struct cfs_data_params *with)
{
	struct cfs_data_params p = *with;
	char dir[PATH_MAX];
	int rc;

	test_dir(dir, sizeof(dir), "data", id);
	p.cachedir = dir;
	rc = cfs_data_start(&fake.clients[id], &p);
	if (rc)
		FAKE_FATAL("cfs_data_start: %d", rc);
}

static inline void fake_stop(unsigned id, int expect)
{
	char dir[PATH_MAX];
	int rc = cfs_data_stop(&fake.clients[id], 5000);

	if (rc != expect)
		FAKE_FATAL("cfs_data_stop: %d, not %d", rc, expect);
	test_dir(dir, sizeof(dir), "data", id);
	if (rmdir(dir))	/* empty: no cache file was left */
		FAKE_FATAL("rmdir %s: %s", dir, strerror(errno));
}

static inline struct cfs_data *fake_get(unsigned id, uint64_t ino)
{
	struct cfs_attr attr;

	pthread_mutex_lock(&fake.lock);
	fake_attr(ino, &attr);
	pthread_mutex_unlock(&fake.lock);
	return cfs_data_get(&fake.clients[id], &attr);
}

#endif
