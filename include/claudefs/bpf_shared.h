/* SPDX-License-Identifier: MIT */
/*
 * bpf_shared.h - what the client and its BPF programs share: maps, their keys and values, events. Compiled by both
 * compilers with the same static asserts; plain C without pointers, in the byte order of the machine.
 *
 * What the client may keep under its leases stands in three maps, written by the client alone:
 *
 *   dirs        directory -> epoch                       the lease on it; of a file with a lease of its own: the file
 *   names       directory, name -> inode, or absent      names of up to CFS_BPF_NAME_SHORT bytes; the rest, which are
 *   long_names                                           rare, stand in long_names, so that most entries stay small
 *   attrs       inode -> attributes
 *
 * An entry counts only if all of these hold:
 *   - cfs_bpf_ctl.answering is set (the kill switch);
 *   - the boot-time clock is before cfs_bpf_ctl.deadline_ns: one deadline for the whole session, since its leases
 *     share one, so that renewing all of them is one store, and losing the connection another;
 *   - its epoch equals that of its directory (`dir`, `home`) in dirs, and is above cfs_bpf_ctl.floor. Epochs are taken from
 *     one counter of the mount and never used twice; so deleting or changing the one element of dirs recalls all
 *     that stood under it, and raising the floor to the counter drops everything at once.
 *
 * Elements of these maps are recycled at once, while somebody may be reading them. Each carries a `sum` over its key and
 * everything in it: who reads an element copies it and believes the copy if the sum is right for the key he asked for.
 *
 * What the kernel is told in an answer it may keep until cfs_bpf_ctl.until_ns. So that the daemon knows what it must take back
 * from the kernel in a recall, that time is first noted in the map gate, by hash; see bpf/fuse_answer.h.
 *
 * All maps are bounded, and LRU: a full map drops what was not used lately. Dropping an element of dirs is a recall.
 */
#ifndef CLAUDEFS_BPF_SHARED_H
#define CLAUDEFS_BPF_SHARED_H

#include <stddef.h>
#include <stdint.h>

/* ---- what may be answered --------------------------------------------------------------------------------- */
#define CFS_BPF_NAME_SHORT	56u
#define CFS_BPF_NAME_LONG	256u	/* names are at most 255 bytes (CFS_NAME_MAX) */

/* map ctl: array of one, mapped into the client's memory */
struct cfs_bpf_ctl {
	uint64_t deadline_ns;	/* boot time until when entries may be believed; 0: not at all */
	uint64_t floor;		/* epochs up to this one are void */
	uint32_t answering;	/* 0: every request goes to the daemon */
	uint32_t broken;	/* the daemon could not delete something: never answer again */
	uint64_t until_ns;	/* boot time until when the kernel may keep answers: a little before deadline_ns */
	uint32_t hold;		/* look-ups go to the daemon, see client/fuse_pin.c */
	uint32_t spare[7];
};
_Static_assert(sizeof(struct cfs_bpf_ctl) == 64, "cfs_bpf_ctl");

/* map gate: array of one, mapped into the client's memory. All by cfs_bpf_hash() of an inode number, modulo the size */
#define CFS_BPF_BUSY		1024u
#define CFS_BPF_ATTR_UNTIL	65536u
struct cfs_bpf_gate {
	uint32_t busy[CFS_BPF_BUSY];		/* changes of our own under way: nothing is answered */
	uint64_t name_until[CFS_BPF_BUSY];	/* by directory: until when the kernel may keep names in it */
	uint64_t home_until[CFS_BPF_BUSY];	/* by directory: until when it may keep attributes that stand under it */
	uint64_t attr_until[CFS_BPF_ATTR_UNTIL];	/* by inode: until when it may keep its attributes */
};
_Static_assert(sizeof(struct cfs_bpf_gate) == 4096 + 16384 + 524288, "cfs_bpf_gate");

/* the finalizer of MurmurHash3: every bit of x counts */
static inline uint64_t cfs_bpf_hash(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdull;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53ull;
	return x ^ x >> 33;
}

/* over whole words; a constant n is unrolled */
static inline uint64_t cfs_bpf_mix(uint64_t h, const void *words, uint32_t n)
{
	const uint64_t *w = words;

	for (uint32_t i = 0; i < n; i++) {
		h = (h ^ w[i]) * 0x9e3779b97f4a7c15ull;
		h ^= h >> 29;
	}
	return h;
}
/* of what follows the member `sum`, which comes first */
#define CFS_BPF_SUM(h, v)	cfs_bpf_mix(h, &(v)->sum + 1, sizeof(*(v)) / 8 - 1)

/* map dirs: inode number -> this */
struct cfs_bpf_dir {
	uint64_t sum;
	uint64_t epoch;
	uint32_t flags;		/* CFS_BPF_DIR_* */
	uint32_t pad;
};
_Static_assert(sizeof(struct cfs_bpf_dir) == 24, "cfs_bpf_dir");
static inline uint64_t cfs_bpf_dir_sum(uint64_t ino, const struct cfs_bpf_dir *d)
{
	return CFS_BPF_SUM(ino, d);
}
#define CFS_BPF_DIR_COMPLETE	1u	/* every name was pushed: for people; nobody concludes absence from it */

/* map names: names are padded with zeros, so that keys can be compared as bytes */
struct cfs_bpf_name_key {
	uint64_t dir;
	char name[CFS_BPF_NAME_SHORT];
};
_Static_assert(sizeof(struct cfs_bpf_name_key) == 64, "cfs_bpf_name_key");

struct cfs_bpf_long_key {
	uint64_t dir;
	char name[CFS_BPF_NAME_LONG];
};
_Static_assert(sizeof(struct cfs_bpf_long_key) == 264, "cfs_bpf_long_key");

struct cfs_bpf_name {
	uint64_t sum;
	uint64_t dir;
	uint64_t epoch;		/* of dir */
	uint64_t ino;		/* 0: there is no such name */
	uint64_t gen;
};
_Static_assert(sizeof(struct cfs_bpf_name) == 40, "cfs_bpf_name");

static inline uint64_t cfs_bpf_name_sum(const struct cfs_bpf_name_key *key, const struct cfs_bpf_name *n)
{
	return CFS_BPF_SUM(cfs_bpf_mix(0, key, sizeof(*key) / 8), n);
}

static inline uint64_t cfs_bpf_long_sum(const struct cfs_bpf_long_key *key, const struct cfs_bpf_name *n)
{
	return CFS_BPF_SUM(cfs_bpf_mix(0, key, sizeof(*key) / 8), n);
}

struct cfs_bpf_time {
	uint64_t sec;		/* signed, since 1970 */
	uint32_t nsec;
	uint32_t pad;
};

/* map attrs: inode number -> this */
struct cfs_bpf_attr {
	uint64_t sum;
	uint64_t ino;
	uint64_t home;		/* what governs the attributes: its epoch in dirs counts */
	uint64_t epoch;		/* of home */
	uint64_t gen;
	uint64_t size;
	uint64_t alloc;		/* bytes */
	uint64_t change;
	struct cfs_bpf_time atime, mtime, ctime, btime;
	uint32_t mode, nlink, uid, gid;
	uint32_t rdev;		/* as in cfs_attr */
	uint32_t flags;		/* CFS_IF_* of types.h: what is not set there is absent (xattrs, ACLs, capabilities) */
};
_Static_assert(sizeof(struct cfs_bpf_attr) == 152, "cfs_bpf_attr");
_Static_assert(offsetof(struct cfs_bpf_attr, mode) == 128, "cfs_bpf_attr");
#define CFS_BPF_IF_XATTR	2u	/* as CFS_IF_XATTR, CFS_IF_ACL, CFS_IF_CAPS */
#define CFS_BPF_IF_ACL		4u
#define CFS_BPF_IF_CAPS		8u

static inline uint64_t cfs_bpf_attr_sum(uint64_t ino, const struct cfs_bpf_attr *a)
{
	return CFS_BPF_SUM(ino, a);
}

/* map stats: per CPU, array of one; by FUSE opcode */
#define CFS_BPF_OPS	64u
struct cfs_bpf_stats {
	uint64_t hit[CFS_BPF_OPS];	/* answered by the program */
	uint64_t miss[CFS_BPF_OPS];	/* not known */
	uint64_t stale[CFS_BPF_OPS];	/* known, but its epoch, or the deadline, is over */
};
_Static_assert(sizeof(struct cfs_bpf_stats) == 1536, "cfs_bpf_stats");

/* ---- observing ------------------------------------------------------------------------------------------------ */
/*
 * Latencies are counted in buckets that grow by a quarter of a power of two: a percentile is off by at most 25 %.
 * Bucket b holds latencies below cfs_bpf_lat_bound_ns(b); the first below 1 µs, the last all from about 64 s.
 */
#define CFS_BPF_LATS		104u
#define CFS_BPF_LAT_SHIFT	10u	/* 1024 ns */

static inline uint32_t cfs_bpf_lat_bucket(uint64_t ns)
{
	uint64_t v = ns >> (CFS_BPF_LAT_SHIFT - 2);	/* in quarters of the unit */
	uint32_t log = 0, b;

	if (v < 4)
		return 0;
	/* no count-leading-zeros in BPF: halve */
	if (v >> 32)
		return CFS_BPF_LATS - 1;
	for (uint32_t step = 16; step; step >>= 1)
		if (v >> (log + step))
			log += step;
	b = 1 + (log - 2) * 4 + (uint32_t)(v >> (log - 2)) - 4;
	return b < CFS_BPF_LATS ? b : CFS_BPF_LATS - 1;
}

/* the first latency that belongs to a later bucket; of the last: the one it begins with, doubled */
static inline uint64_t cfs_bpf_lat_bound_ns(uint32_t bucket)
{
	return (uint64_t)(4 + bucket % 4) << (bucket / 4 + CFS_BPF_LAT_SHIFT - 2);
}

/* map ops: per CPU, array by FUSE opcode (CFS_BPF_OPS) */
struct cfs_bpf_op {
	uint64_t count;
	uint64_t errors;
	uint64_t total_ns;
	uint64_t max_ns;
	uint64_t lat[CFS_BPF_LATS];
};
_Static_assert(sizeof(struct cfs_bpf_op) == 864, "cfs_bpf_op");

/* map inflight: address of the request in the kernel -> this */
struct cfs_bpf_req {
	uint64_t start_ns;	/* boot time */
	uint64_t unique;
	uint64_t nodeid;
	uint32_t opcode;
	uint32_t pid;		/* of the caller; 0: the kernel itself */
	uint32_t uid;
	uint32_t len;		/* bytes of the request */
};
_Static_assert(sizeof(struct cfs_bpf_req) == 40, "cfs_bpf_req");

/* map heat: inode number -> this; LRU */
struct cfs_bpf_heat {
	uint64_t ops;
	uint64_t read_bytes;
	uint64_t write_bytes;
	uint64_t last_ns;	/* boot time */
};
_Static_assert(sizeof(struct cfs_bpf_heat) == 32, "cfs_bpf_heat");

/* ring buffer events: one for each request that ended and passed the filter */
#define CFS_BPF_EVENT_NAME	64u
struct cfs_bpf_event {
	uint64_t end_ns;	/* boot time */
	uint64_t latency_ns;
	uint64_t unique;
	uint64_t nodeid;
	uint32_t opcode;
	uint32_t pid;
	uint32_t uid;
	int32_t error;		/* 0 or a negative errno */
	uint32_t bytes;		/* of the request; of READ: of the reply */
	uint32_t name_len;	/* its whole length; 0: this request has no name */
	char name[CFS_BPF_EVENT_NAME];	/* its beginning, padded with zeros */
};
_Static_assert(sizeof(struct cfs_bpf_event) == 120, "cfs_bpf_event");

/* map obs_ctl: array of one, mapped into the client's memory */
struct cfs_bpf_obs_ctl {
	uint32_t conn_dev;	/* the mount's device number, as the kernel packs it */
	uint32_t tracing;	/* events are wanted ... */
	uint32_t trace_pid;	/* ... of this process, unless 0 */
	uint32_t pad;
	uint64_t trace_ino;	/* ... of this inode, unless 0 */
	uint64_t lost;		/* events for which the ring had no room */
};
_Static_assert(sizeof(struct cfs_bpf_obs_ctl) == 32, "cfs_bpf_obs_ctl");

/* map sessions: array of one */
struct cfs_bpf_session {
	uint64_t session;
	uint64_t leader_epoch;
	uint64_t deadline_ns;
	uint32_t lease_ms;
	uint32_t state;		/* as in the client: opening, live, lost, closed */
	uint32_t pid;		/* of the daemon */
	uint32_t pad;
	char server[64];
};
_Static_assert(sizeof(struct cfs_bpf_session) == 104, "cfs_bpf_session");

#endif
