/* SPDX-License-Identifier: MIT */
/*
 * crashdev.h - a device in memory with a clock of its own, that remembers every write, and can
 * say what a power cut at any moment might have left.
 *
 * Requests complete from cfs_crashdev_turn(), in order or shuffled by a seed. Virtual time: a turn
 * without anything to complete jumps to the next timer. Nothing here blocks; one thread.
 *
 * A write is torn at sectors of 512 bytes unless the device promises that it is not (info.atomic_unit, which a
 * test may set). With zones, what a cut leaves of a zone is a beginning of what was written to it; the
 * state of each zone stands in the image, behind the zone's capacity, where nobody can write.
 */
#ifndef CFS_SELFTESTS_LIB_CRASHDEV_H
#define CFS_SELFTESTS_LIB_CRASHDEV_H

#include "base/clock.h"
#include "dev/dev.h"
#include "sim/sparse.h"

struct cfs_crashdev;

/* @image: initial bytes (copied), NULL: zeros. @seed: 0 completes in order, else shuffled */
struct cfs_crashdev *cfs_crashdev_create(uint64_t size_bytes, const uint8_t *image, uint64_t seed);
/* the same with zones, whose size exceeds their capacity by 4096 bytes at least */
struct cfs_crashdev *cfs_crashdev_create_zoned(const struct cfs_zone_geometry *g, const uint8_t *image,
					       uint64_t seed);
/* NULL: it has none */
const struct cfs_zone_geometry *cfs_crashdev_zones(const struct cfs_crashdev *cd);
void cfs_crashdev_zone_fail(struct cfs_crashdev *cd, uint32_t zone, enum cfs_zone_state state);
/* requests that are pending are forgotten */
void cfs_crashdev_destroy(struct cfs_crashdev *cd);
struct cfs_dev *cfs_crashdev_dev(struct cfs_crashdev *cd);
struct cfs_clock *cfs_crashdev_clock(struct cfs_crashdev *cd);
/*
 * complete one request, or run timers that are due, or advance time; false: nothing will ever
 * happen
 */
bool cfs_crashdev_turn(struct cfs_crashdev *cd);
uint32_t cfs_crashdev_pending(const struct cfs_crashdev *cd);
/* as read requests see them; may be changed */
uint8_t *cfs_crashdev_bytes(struct cfs_crashdev *cd);
/*
 * what the medium held at the beginning, where that differs from what reads have seen (a drive's
 * cache)
 */
void cfs_crashdev_set_medium(struct cfs_crashdev *cd, const uint8_t *image);
/* do not record writes from now on (long runs) */
void cfs_crashdev_forget(struct cfs_crashdev *cd);
/* from now on it is a file with little room; the model stays the caller's, as other devices with the same bytes need it */
void cfs_crashdev_sparse(struct cfs_crashdev *cd, struct cfs_sparse *sparse);
/* the next n requests of that kind fail with err */
void cfs_crashdev_fail(struct cfs_crashdev *cd, enum cfs_dev_op op, uint32_t n, int err);

/*
 * events so far: each submission and completion of a write or flush is one. The test's notion of
 * "when"
 */
uint64_t cfs_crashdev_now(const struct cfs_crashdev *cd);
uint64_t cfs_crashdev_writes(const struct cfs_crashdev *cd);	/* write requests so far */

/* of the writes that were submitted but not durable at the moment of the cut: */
enum cfs_crash_mode {
	CFS_CRASH_NONE,		/* none has arrived */
	CFS_CRASH_ALL,		/* all have */
	CFS_CRASH_SUBSET,	/* some have */
	CFS_CRASH_TORN,		/* of each, some 512-byte sectors have */
	CFS_CRASH_MODES,
};
/* what the medium holds if power fails after event `when`; out has the device's size */
void cfs_crashdev_image(struct cfs_crashdev *cd, uint64_t when, enum cfs_crash_mode mode,
			uint64_t seed, uint8_t *out);

#endif
