/* SPDX-License-Identifier: MIT */
/*
 * lease.h - who holds what: the lease table of a shard leader.
 *
 * Pure bookkeeping: no clock, no messages, nothing durable. A record says that a session holds a mode on
 * an inode (a directory: shared; a file: shared or exclusive) or has it open, or both. Memory is
 * O(records), about 170 bytes for the only holder of an inode and 80 for each further one. Records
 * whose recall is under way (`breaking`) are never granted more, and stay until it is answered.
 * One thread.
 */
#ifndef CFS_SERVER_META_LEASE_H
#define CFS_SERVER_META_LEASE_H

#include <claudefs/wire.h>

#include "server/meta/shard_mem.h"

#define CFS_LEASES_MAX	     (8u << 20) /* records of one shard: about 1 GiB */
#define CFS_STORM_BREAKS     8u		/* more than this ... */
#define CFS_STORM_WINDOW_NS  CFS_NSEC_PER_SEC /* ... within this, and nothing is granted ... */
#define CFS_STORM_QUIET_NS   CFS_NSEC_PER_SEC /* ... for this long */
#define CFS_CONTEND_PASSES   4u		/* an exclusive lease goes to another session more often than this ... */
#define CFS_CONTEND_WAIT_MS  100u	/* (once more for each time that it was waited for so long) */
#define CFS_CONTEND_WINDOW_MS 5000u	/* ... within this, and the file is contended (each may take a while) ... */
#define CFS_CONTEND_QUIET_MS 1000u	/* ... until no two sessions have written it for this long */

/* a holder of leases: embedded in a session */
struct cfs_lease_owner {
	struct cfs_list leases; /* struct cfs_lease.owner_link */
	uint64_t n;
};

/* an inode on which there are records, or which was contended a moment ago */
struct cfs_lease_obj {
	struct cfs_hnode node;
	uint64_t ino;
	struct cfs_list holders; /* struct cfs_lease.obj_link */
	struct cfs_list storm_link; /* in the table's list while it must not be forgotten */
	struct cfs_lease *excl; /* who holds it exclusively, or NULL */
	uint64_t window_ns; /* start of the second in which breaks are counted */
	uint64_t storm_ns;  /* no grants before this time */
	/* files: */
	uint64_t writer;     /* session that was given the exclusive lease last, or wrote through */
	uint32_t pass_ms;    /* boot time, modulo 2^32: start of the window in which passes are counted */
	uint32_t through_ms; /* contended until then; 0: not */
	uint32_t breaks;
	uint8_t passes;
	bool dir;
	bool through;	    /* while it is contended: its attributes are in nobody's lease */
};

struct cfs_lease {
	struct cfs_hnode node;
	struct cfs_list obj_link, owner_link;
	struct cfs_lease_obj *obj;
	struct cfs_lease_owner *owner;
	uint32_t breaking; /* recalls sent and not answered */
	uint8_t mode;	   /* enum cfs_lease_mode; as the holder may still believe */
	uint8_t keep;	   /* while breaking: the least that these recalls leave */
	uint8_t open;
};

struct cfs_leases {
	struct cfs_htable objs, leases;
	struct cfs_slab obj_slab, lease_slab;
	struct cfs_list storms;
	uint64_t max;
	uint64_t dir_leases, file_leases; /* records with a mode */
};

int cfs_leases_init(struct cfs_leases *t, uint64_t max);
void cfs_leases_free(struct cfs_leases *t); /* every owner dropped before */

static inline void cfs_lease_owner_init(struct cfs_lease_owner *o)
{
	cfs_list_init(&o->leases);
	o->n = 0;
}

struct cfs_lease_obj *cfs_lease_obj(const struct cfs_leases *t, uint64_t ino);
struct cfs_lease *cfs_lease_get(const struct cfs_leases *t, const struct cfs_lease_owner *o, uint64_t ino);

/* what the holder may rely on from now on: its mode, or what a recall under way leaves of it */
static inline unsigned cfs_lease_mode(const struct cfs_lease *l)
{
	return !l ? CFS_LEASE_NONE : l->breaking && l->keep < l->mode ? l->keep : l->mode;
}

/**
 * cfs_lease_grant() - raise (never lower) what an owner holds; `open` is set, never cleared.
 * The caller has made sure that nobody holds what conflicts (asserted).
 * Return: the record; NULL when the table is full or there is no memory.
 */
struct cfs_lease *cfs_lease_grant(struct cfs_leases *t, struct cfs_lease_owner *o, uint64_t ino, bool dir,
				  unsigned mode, bool open);
/* lower to `mode` at most and set `open`; a record that says nothing more is freed */
void cfs_lease_lower(struct cfs_leases *t, struct cfs_lease *l, unsigned mode, bool open);
/* a recall was sent; it leaves `keep` */
void cfs_lease_break_begin(struct cfs_lease *l, unsigned keep);
/* it was answered: lowers to `keep`, sets open */
void cfs_lease_break_end(struct cfs_leases *t, struct cfs_lease *l, unsigned keep, bool open);
/* the owner is gone: all its records end, recalls under way or not */
void cfs_lease_drop_owner(struct cfs_leases *t, struct cfs_lease_owner *o);

/* a recall of (some of) what this inode's lease covers was necessary: count it. May begin a storm */
void cfs_lease_note_break(struct cfs_leases *t, struct cfs_lease_obj *obj, uint64_t now_ns);
static inline bool cfs_lease_storm(const struct cfs_lease_obj *obj, uint64_t now_ns)
{
	return obj && obj->storm_ns > now_ns;
}
/*
 * Contended files (docs/leases.md). note_writer: `session` gets the exclusive lease, which it has waited for, or writes without: was it another one before?
 * through_begin: the file is contended, and its attributes have been taken out of all leases just now.
 */
void cfs_lease_note_writer(struct cfs_leases *t, struct cfs_lease_obj *obj, uint64_t session, uint64_t waited_ns,
			   uint64_t now_ns);
void cfs_lease_through_begin(struct cfs_lease_obj *obj, uint64_t now_ns);
static inline bool cfs_lease_contended(const struct cfs_lease_obj *obj, uint64_t now_ns)
{
	/* cleared by the sweep long before it could seem to lie ahead again */
	return obj && obj->through_ms && (int32_t)(obj->through_ms - (uint32_t)(now_ns / CFS_NSEC_PER_MSEC)) > 0;
}
static inline bool cfs_lease_through(const struct cfs_lease_obj *obj, uint64_t now_ns)
{
	return cfs_lease_contended(obj, now_ns) && obj->through;
}
/* forget counters of inodes that nobody holds any more; call about every second */
void cfs_leases_sweep(struct cfs_leases *t, uint64_t now_ns);
uint64_t cfs_leases_bytes(const struct cfs_leases *t);

#endif
