/* SPDX-License-Identifier: MIT */
/*
 * powercut.c - what a drive with a volatile write cache holds after a power cut.
 *
 *	powercut --log FILE --image FILE --lba BYTES --seed N
 *		applies a log of writes and flushes to IMAGE, which is as the drive was when the log began. What was
 *		written before the last flush is there, and so is what was written through the cache (FUA). Of each
 *		later write all, nothing, or any of its sectors is there. Prints what it did in one line.
 *
 * The log has the format of the kernel's dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst), as
 * QEMU's blklogwrites makes it. Its superblock's count of entries is not used: it is old after a kill. The file began
 * empty, so an entry of zeros is the end. Discards are not applied: a drive may keep what was discarded.
 */
#include "prog.h"

#include <getopt.h>

#define MAGIC 0x6a736677736872ull
#define ENTRY_FLUSH 1u
#define ENTRY_FUA 2u
#define ENTRY_DISCARD 4u
#define DATA_MAX (256u << 20)	/* of one write: far above what a drive takes */

struct super {			/* little-endian, as this test is for x86 */
	uint64_t magic, version, entries;
	uint32_t sector_bytes;
} __attribute__((packed));

struct entry {
	uint64_t sector, sectors, flags, data_len;
};

static int log_fd, image_fd;
static uint64_t sector_bytes, lba, rng;
static uint64_t kept, lost, torn;	/* writes after the last flush */

/* Reads the entry at *off of the log and goes on to the next; false at the end. */
static bool next_entry(uint64_t *off, struct entry *e, uint64_t *ret_data_off)
{
	ssize_t n = pread(log_fd, e, sizeof(*e), (off_t)*off);

	if (n < (ssize_t)sizeof(*e) || (!e->sectors && !e->flags))
		return false;
	*ret_data_off = *off += sector_bytes;
	if (e->flags & ENTRY_DISCARD)
		return true;
	if (e->sectors > DATA_MAX / sector_bytes)
		die("the log's entry at %" PRIu64 " is of %" PRIu64 " sectors", *off - sector_bytes, e->sectors);
	*off += e->sectors * sector_bytes;
	return true;
}

static void put(const char *data, uint64_t off, uint64_t len)
{
	if (pwrite(image_fd, data, len, (off_t)off) != (ssize_t)len)
		die("the image at %" PRIu64 ": %s", off, strerror(errno));
}

static void apply(const struct entry *e, uint64_t data_off, bool durable)
{
	uint64_t len = e->sectors * sector_bytes, off = e->sector * sector_bytes;
	unsigned fate = durable ? 0 : (unsigned)(rnd_next(&rng) % 3);
	char *data;

	if (!len || e->flags & ENTRY_DISCARD)
		return;
	if (fate == 1) {
		lost++;
		return;
	}
	data = calloc(1, len);	/* what the log did not get any more is zeros, and was not acknowledged */
	if (!data || pread(log_fd, data, len, (off_t)data_off) < 0)
		die("the log at %" PRIu64 ": %s", data_off, strerror(errno));
	if (fate == 0) {
		kept += !durable;
		put(data, off, len);
	} else {
		torn++;
		for (uint64_t i = 0; i + lba <= len; i += lba)
			if (rnd_next(&rng) & 1)
				put(data + i, off + i, lba);
	}
	free(data);
}

int main(int argc, char **argv)
{
	static const struct option opts[] = { { "log", required_argument, NULL, 'l' },
					      { "image", required_argument, NULL, 'i' },
					      { "lba", required_argument, NULL, 'b' },
					      { "seed", required_argument, NULL, 's' },
					      { 0 } };
	const char *log = NULL, *image = NULL;
	uint64_t off, data_off, entries = 0, last_flush = 0, flushes = 0;
	struct super super;
	struct entry e;
	int c;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		switch (c) {
		case 'l': log = optarg; break;
		case 'i': image = optarg; break;
		case 'b': lba = strtoull(optarg, NULL, 0); break;
		case 's': rng = strtoull(optarg, NULL, 0); break;
		default: return 2;
		}
	}
	if (!log || !image || lba < 512 || lba > 4096 || lba & (lba - 1))
		die("usage: powercut --log FILE --image FILE --lba 512|1024|2048|4096 --seed N");
	log_fd = open(log, O_RDONLY | O_CLOEXEC);
	image_fd = open(image, O_RDWR | O_CLOEXEC);
	if (log_fd < 0 || image_fd < 0)
		die("%s, %s: %s", log, image, strerror(errno));
	if (pread(log_fd, &super, sizeof(super), 0) != sizeof(super) || super.magic != MAGIC || super.version != 1 ||
	    super.sector_bytes < 512 || super.sector_bytes > 4096)
		die("%s is not a log of writes", log);
	sector_bytes = super.sector_bytes;
	for (off = sector_bytes; next_entry(&off, &e, &data_off); entries++) {
		if (e.flags & ENTRY_FLUSH) {
			last_flush = entries;
			flushes++;
		}
	}
	if (!flushes)
		die("%s holds no flush at all", log);
	off = sector_bytes;
	for (uint64_t i = 0; i < entries && next_entry(&off, &e, &data_off); i++)
		apply(&e, data_off, i <= last_flush || e.flags & ENTRY_FUA);
	printf("%" PRIu64 " writes and flushes (%" PRIu64 "); after the last flush %" PRIu64 " kept, %" PRIu64
	       " lost, %" PRIu64 " torn\n", entries, flushes, kept, lost, torn);
	if (fsync(image_fd) || close(image_fd))
		die("%s: %s", image, strerror(errno));
	return 0;
}
