/* SPDX-License-Identifier: MIT */
/*
 * realdev.h - a real device below a crashdev: every request that the model carries out is carried out there as well,
 * through the back end that a server uses, and what is read comes from there and must be what the model has.
 *
 * So the store's tests, which know the model only, run on real drives with the same assertions; power cuts are made by
 * the model and put on the drive as an image. What a drive cannot be asked for (failing zones, injected errors) is the
 * model's alone. One device a process, named by the environment:
 *
 *   T_DEV=NAME     as for `claudefs format`. WHAT IT HOLDS IS LOST
 *
 * Zones: the model's zone n is the real one n, of which it uses as much as its own capacity; it finishes the real one when
 * the model's is full. One thread.
 */
#ifndef CFS_SELFTESTS_LIB_REALDEV_H
#define CFS_SELFTESTS_LIB_REALDEV_H

#include "dev/dev.h"

struct realdev;

/* NULL: T_DEV is not set. Exits with a message when it cannot be opened */
struct realdev *realdev_get(void);
/* can the tests of zoned (or of other) devices run here? true without T_DEV */
bool realdev_takes(bool zoned);
/*
 * A model begins to use it, with this image, and the one before is used no more; g NULL: no zones. `info` gets the real device's write unit and alignment.
 * Whatever an earlier model left there counts for nothing. image and zones are looked at again with each request:
 * where tests have changed them, the device follows first.
 */
struct realdev_model {
	const struct cfs_zone_geometry *g;
	const uint8_t *image;
	/* of a zone: bytes written, and whether it counts as full */
	uint64_t (*written)(void *arg, uint32_t zone, bool *ret_full);
	void *arg;
	uint64_t size_bytes;
};
void realdev_begin(struct realdev *r, const struct realdev_model *m, struct cfs_dev_info *info);

/*
 * Before the model carries a request out, so that the device has what the model has; and afterwards, once the model
 * has said yes. @at: where its bytes went. Both abort with a message when the device does not do what the model does.
 */
void realdev_before(struct realdev *r, enum cfs_dev_op op, uint64_t offset, uint64_t len);
void realdev_do(struct realdev *r, const struct cfs_dev_req *req, uint64_t at);
/* the same for blocking requests; READ fills buf */
void realdev_sync(struct realdev *r, enum cfs_dev_op op, uint64_t offset, void *buf, uint32_t len);
void realdev_mem(struct realdev *r, void *base, size_t len, bool add);

#endif
