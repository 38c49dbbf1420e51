/* SPDX-License-Identifier: MIT */
/*
 * hugeoff.c DIR - sizes and offsets up to 2^63-1: what is within the limit works and costs nothing, what is
 * beyond is EFBIG, and nobody's memory grows with a length (the script that runs this looks at that).
 */
#include "prog.h"

#include <limits.h>
#include <linux/falloc.h>

#define LIMIT (1ll << 60)	/* docs/semantics.md; other file systems have their own */

static int fresh(void)
{
	return (int)OK(open("f", O_CREAT | O_RDWR, 0644));
}

/* Beyond the limit: always EFBIG (EINVAL where the kernel itself refuses it); within: success, or EFBIG of a
 * smaller file system than ours. */
static bool within(long long rc, off_t end)
{
	if (rc >= 0 && (end <= LIMIT || !on_fuse(".")))
		return true;
	if (rc >= 0)
		die("%lld is beyond the limit, but was accepted", (long long)end);
	if (errno != EFBIG && !(errno == EINVAL && end < 0))
		die("%lld: %s, must be EFBIG", (long long)end, strerror(errno));
	if (end <= LIMIT && end > 0 && on_fuse("."))
		die("%lld is within the limit: %s", (long long)end, strerror(errno));
	return false;
}

static const off_t places[] = {
	4096, 1ll << 31, 1ll << 32, (1ll << 40) + 5, 1ll << 43, (1ll << 44) - 1, 1ll << 50, (1ll << 59) + 4097, LIMIT - 1,
	LIMIT, LIMIT + 1, 1ll << 61, 1ll << 62, (1ll << 62) + (1ll << 61), LLONG_MAX - 4096, LLONG_MAX - 1, LLONG_MAX
};

CHECK(truncate_far, "ftruncate to every size: EFBIG beyond the limit, no blocks within")
{
	int fd = fresh();

	for (size_t i = 0; i < N_OF(places); i++) {
		struct stat before = fstat_of(fd);

		if (within(ftruncate(fd, places[i]), places[i])) {
			IS(fstat_of(fd).st_size, places[i]);
			EXPECT(fstat_of(fd).st_blocks <= 8);
		} else {
			IS(fstat_of(fd).st_size, before.st_size);
		}
	}
	OK(ftruncate(fd, 0));
}

CHECK(write_far, "one byte written at every offset is there; beyond the limit EFBIG")
{
	int fd = fresh();
	char c;

	for (size_t i = 0; i < N_OF(places); i++) {
		if (within(pwrite(fd, "x", 1, places[i]), places[i] == LLONG_MAX ? -1 : places[i] + 1)) {
			IS(pread(fd, &c, 1, places[i]), 1);
			IS(c, 'x');
			IS(fstat_of(fd).st_size, places[i] + 1);
		}
	}
	OK(fsync(fd));
	EXPECT(fstat_of(fd).st_blocks < 2048);
	for (size_t i = 0; i < N_OF(places); i++) {
		if (places[i] >= fstat_of(fd).st_size)
			continue;
		IS(pread(fd, &c, 1, places[i]), 1);
		IS(c, 'x');
		IS(pread(fd, &c, 1, places[i] - 1), 1);
		EXPECT(c == 0 || c == 'x');
	}
	EXPECT(lseek(fd, 5000, SEEK_DATA) >= 5000);
}

CHECK(write_across, "a write across the limit is cut there or refused, never wraps")
{
	char data[8192];
	int fd = fresh();
	ssize_t n;

	memset(data, 'x', sizeof(data));
	if (!on_fuse("."))
		SKIP("another file system has another limit");
	n = pwrite(fd, data, sizeof(data), LIMIT - 4096);
	if (n < 0)
		IS(errno, EFBIG);
	else
		IS(n, 4096);
	EXPECT(fstat_of(fd).st_size <= LIMIT);
	ERR(pwrite(fd, data, 1, LIMIT), EFBIG);
}

CHECK(fallocate_far, "fallocate of terabytes or at far offsets: an error or nothing; never a long wait")
{
	static const int modes[] = { FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
				     FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE };
	int fd = fresh();

	for (size_t i = 0; i + 1 < N_OF(places); i++)
		for (size_t m = 0; m < N_OF(modes); m++) {
			double t0 = now_s();
			off_t len = i % 2 ? 1 : LLONG_MAX - places[i];
			int rc = fallocate(fd, modes[m], places[i], len);

			if (rc && errno != EFBIG && errno != ENOSPC && errno != EINVAL)
				die("mode %x at %lld of %lld: %s", modes[m], (long long)places[i], (long long)len, strerror(errno));
			if (now_s() - t0 > 2)
				die("mode %x at %lld took %.1f s", modes[m], (long long)places[i], now_s() - t0);
			if (fstat_of(fd).st_size > 1ll << 40)
				OK(ftruncate(fd, 4096));
		}
	if (fallocate(fd, 0, 0, 1ll << 58) == 0)
		die("2^58 bytes were promised");
	EXPECT(errno == ENOSPC || errno == EFBIG);
}

CHECK(truncate_many, "a file cut and grown 300 times between 0 and 2^50 stays correct")
{
	uint64_t rng = 1;
	char c;
	int fd = fresh();

	for (int i = 0; i < 300; i++) {
		off_t size = (off_t)(1 + rnd_below(&rng, on_fuse(".") ? 1ull << 50 : 1ull << 40));

		OK(ftruncate(fd, size));
		IS(pwrite(fd, "y", 1, size - 1), 1);
		IS(pread(fd, &c, 1, size - 1), 1);
		IS(c, 'y');
		if (i % 10 == 0)
			OK(ftruncate(fd, 0));
	}
}

CHECK(read_far, "reading and mapping far beyond the end")
{
	char c;
	int fd = fresh();

	IS(pread(fd, &c, 1, LLONG_MAX - 1), 0);
	IS(pread(fd, &c, 1, LIMIT), 0);
	ERR(pread(fd, &c, 1, -1), EINVAL);
	ERR(lseek(fd, -5, SEEK_SET), EINVAL);
	ERR(lseek(fd, LLONG_MAX, SEEK_DATA), ENXIO);
	OK(ftruncate(fd, 1ll << 43));
	IS(pread(fd, &c, 1, (1ll << 43) - 1), 1);
	IS(lseek(fd, 0, SEEK_HOLE), 0);
	ERR(lseek(fd, 0, SEEK_DATA), ENXIO);
}

CHECK(copy_far, "copy_file_range and clone of a huge hole do not take long")
{
	off_t in = 0, out = 0;
	double t0 = now_s();
	int a = fresh(), b = (int)OK(open("g", O_CREAT | O_RDWR, 0644));
	ssize_t n;

	OK(ftruncate(a, 1ll << 43));
	IS(pwrite(a, "x", 1, 1 << 20), 1);
	n = copy_file_range(a, &in, b, &out, 1 << 24, 0);
	EXPECT(n > 0);
	EXPECT(now_s() - t0 < 10);
}

int main(int argc, char **argv)
{
	return run_checks(argc, argv);
}
