/* SPDX-License-Identifier: MIT */
/*
 * persist_state.h - what a mount that outlives its daemon keeps in a memfd (docs/persist.md): bytes that one process wrote and
 * the next one, perhaps of another version, reads. The holder keeps the memfd and never looks inside.
 *
 * A process may be killed between any two instructions. So each record has one word that makes it count, which is written last and
 * at once: cfs_pst_slot.word, cfs_pst_fh.state, cfs_pst_owner.fh, cfs_pst_append.unique. All of it is this machine's own, in its byte order, and
 * checked by who takes it over: another magic, version or layout is refused.
 */
#ifndef CFS_CLIENT_PERSIST_STATE_H
#define CFS_CLIENT_PERSIST_STATE_H

#include <claudefs/wire.h>
#include <limits.h>
#include <stdint.h>

#define CFS_PST_MAGIC		0x3150534654534643ull	/* "CFSTFSP1" */
#define CFS_PST_VERSION		1u
#define CFS_PST_INIT_MAX	512u
#define CFS_PST_OWNERS		65536u			/* of POSIX locks; more get ENOLCK */
#define CFS_PST_APPENDS		4096u			/* being served: no more than there are workers */

/* a slot of the session (wire.h, "Exactly once") */
struct cfs_pst_slot {
	uint64_t word;			/* seq << 1 | held: a request with this seq was, or will be, sent */
	/* of the request, while held */
	uint64_t unique;		/* the kernel's request that it is for; 0: none */
	uint64_t key;			/* tells it from others for the same request of the kernel */
	uint32_t opcode;
	uint32_t pad;
	struct cfs_lock_req lock;	/* LOCK with wait: to be cancelled if nobody waits any more */
};
_Static_assert(sizeof(struct cfs_pst_slot) == 72, "cfs_pst_slot");

enum cfs_pst_fh_state {
	CFS_PST_FH_FREE = 0,
	CFS_PST_FH_OFFERED,		/* in an answer that the kernel may not have got */
	CFS_PST_FH_OPEN,
};
enum cfs_pst_fh_kind { CFS_PST_FILE = 0, CFS_PST_DIR };

/* an open file or directory, at its place (fhtab.h) */
struct cfs_pst_fh {
	uint64_t ino;
	uint64_t unique;		/* OFFERED: of the OPEN, CREATE or OPENDIR */
	uint32_t gen;
	uint32_t flags;			/* of open(2) */
	uint8_t state;			/* enum cfs_pst_fh_state */
	uint8_t kind;			/* enum cfs_pst_fh_kind */
	uint8_t io;			/* enum cfs_iomode */
	uint8_t pad[5];
};
_Static_assert(sizeof(struct cfs_pst_fh) == 32, "cfs_pst_fh");

/* who may hold POSIX locks, and by which open file he got them */
struct cfs_pst_owner {
	uint64_t owner;
	uint64_t fh;			/* its number; 0: free */
};
_Static_assert(sizeof(struct cfs_pst_owner) == 16, "cfs_pst_owner");

/* a write at the end of a file: where that was */
struct cfs_pst_append {
	uint64_t unique;		/* of the kernel's request; 0: free */
	uint64_t off;
};
_Static_assert(sizeof(struct cfs_pst_append) == 16, "cfs_pst_append");

struct cfs_pst_head {
	uint64_t magic;
	uint32_t version;
	uint32_t head_bytes;
	uint64_t total_bytes;
	uint64_t slots_off, fhs_off, owners_off, appends_off;
	uint32_t n_slots, n_fhs, n_owners, n_appends;	/* room for */
	/* the session; changes of it begin with session = 0 and end with its new number */
	uint32_t slots_used;
	uint64_t session;
	uint64_t leader_epoch;
	uint64_t oid_seq;
	uint8_t cluster[16];
	uint32_t lease_ms;
	uint32_t returning;		/* LEASE_RETURNs under way */
	/* the mount */
	uint32_t life;			/* which process this is: 1 mounted, 2 took it over, ... */
	uint32_t deaths, upgrades;	/* of them so far */
	uint32_t fhs_top;		/* no place from here on was ever used */
	uint32_t init_in_len, init_out_len;
	uint8_t init_in[CFS_PST_INIT_MAX];	/* INIT as it came, header included */
	uint8_t init_out[CFS_PST_INIT_MAX];	/* its answer, header included; its length is set last */
	uint32_t own_cachedir;		/* made by us: removed at the end */
	uint32_t pad;
	char cachedir[PATH_MAX];
};

_Static_assert(sizeof(struct cfs_pst_head) == 160 + 2 * CFS_PST_INIT_MAX + PATH_MAX, "cfs_pst_head");

#endif
