/* SPDX-License-Identifier: MIT */
/*
 * fakenvme.h - an NVMe namespace in memory below the nvme back end (dev/nvme_i.h), with a volatile cache, zones
 * and faults. It asserts what the back end promises: command sizes, segments, depth. One thread, the loop's.
 */
#ifndef CFS_SELFTESTS_LIB_FAKENVME_H
#define CFS_SELFTESTS_LIB_FAKENVME_H

#include "base/rng.h"
#include "dev/nvme_i.h"

#define FAKENVME_FAULTS 64

struct fakenvme_fault {
	uint8_t opcode;
	uint32_t skip, times;	/* the first `skip` commands of that opcode pass, then so many fail */
	int32_t res;
	bool executed;		/* the command was carried out, only its answer says otherwise */
};

struct fakenvme {
	struct cfs_nvme_port port;
	struct cfs_loop *loop;
	struct cfs_nvme_limits lim;
	uint8_t *mem, *medium;	/* as commands see it; what a power cut leaves */
	uint64_t bytes;
	uint64_t *wp;		/* blocks, of each zone */
	uint8_t *full;
	struct cfs_nvme_io *head, *tail;
	bool posted, closed, removed;
	struct cfs_rng rng;
	uint32_t shuffle;	/* complete in any order, and one in so many commands fails, if not 0 */
	struct fakenvme_fault faults[FAKENVME_FAULTS];
	uint32_t n_faults;
	/* seen so far */
	uint32_t flight, max_flight;
	uint64_t commands, by_opcode[256], paused_ms, max_len, max_segments;
};

struct fakenvme *fakenvme_create(struct cfs_loop *loop, const struct cfs_nvme_limits *lim, uint64_t seed);
/* after the device was closed */
void fakenvme_destroy(struct fakenvme *f);
void fakenvme_fault(struct fakenvme *f, uint8_t opcode, uint32_t skip, uint32_t times, int32_t res, bool executed);

#endif
