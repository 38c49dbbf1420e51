/* SPDX-License-Identifier: MIT */
/*
 * garbage.c - `garbage N TARGET`: N small objects that no file will ever refer to, on the target of a server that is not
 * running, as a client leaves them that dies between its writes and their commit. 64 writes are under way at a time.
 */
#include <err.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/crc32c.h"
#include "dev/dev.h"
#include "ring/loop.h"
#include "server/store/store.h"

#define DEPTH 64u
#define LEN 4096u
#define OWNER 0x7fff0001u	/* a session that never was */

static uint8_t *data;
static uint32_t crc;
static uint64_t made, wanted, running;
static struct cfs_store *store;

static void put(struct cfs_store_write *w);

static void put_done(struct cfs_store_write *w, int rc)
{
	if (rc)
		errx(1, "write: %s", strerror(-rc));
	running--;
	if (made < wanted)
		put(w);
}

static void put(struct cfs_store_write *w)
{
	*w = (struct cfs_store_write){ .oid = { cfs_cpu_to_le64(OWNER), cfs_cpu_to_le64(++made << 16) }, .data = data, .len = LEN,
				       .n_crcs = 1, .crcs = &crc, .done = put_done };
	running++;
	cfs_store_write(store, w);
}

static void stopped(void *arg)
{
	*(bool *)arg = true;
}

int main(int argc, char **argv)
{
	static struct cfs_store_write writes[DEPTH];
	struct cfs_store_params p = { 0 };
	struct cfs_loop *loop;
	bool over = false;
	char why[256] = "";

	if (argc != 3)
		errx(2, "usage: garbage N TARGET");
	wanted = strtoull(argv[1], NULL, 10);
	if (posix_memalign((void **)&data, 4096, LEN))
		err(1, "memory");
	memset(data, 'g', LEN);
	crc = cfs_crc32c(0, data, LEN);
	if (cfs_dev_loop_create(256, (const char *const *)&argv[2], 1, &loop) || cfs_dev_open(loop, argv[2], 0, &p.dev))
		errx(1, "%s: cannot open", argv[2]);
	p.clock = cfs_loop_clock(loop);
	if (cfs_store_open(&p, &store, why, sizeof(why)))
		errx(1, "%s: %s", argv[2], why);
	for (unsigned i = 0; i < DEPTH && made < wanted; i++)
		put(&writes[i]);
	while (running)
		if (cfs_loop_turn(loop, 30 * CFS_NSEC_PER_SEC))
			errx(1, "nothing happens");
	cfs_store_stop(store, stopped, &over);
	while (!over)
		if (cfs_loop_turn(loop, 30 * CFS_NSEC_PER_SEC))
			errx(1, "does not stop");
	cfs_store_close(store, true);
	cfs_dev_close(p.dev);
	cfs_loop_destroy(loop);
	free(data);
	return 0;
}
