/* SPDX-License-Identifier: MIT */
/*
 * posix_data.c - contents: reading, writing, appending, truncating, holes, fallocate, copying, mapping,
 * direct I/O. Each check looks at the bytes, also after the caches were told to forget them.
 */
#include "prog.h"

#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <setjmp.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

enum { MAX = 8 << 20 };
static uint8_t data[MAX], back[MAX];

static int fresh(const char *path)
{
	return (int)OK(open(path, O_CREAT | O_EXCL | O_RDWR, 0644));
}

static void put(int fd, uint64_t seed, off_t off, size_t len)
{
	pattern_fill(data, seed, (uint64_t)off, len);
	IS(pwrite(fd, data, len, off), len);
}

static void all_is(int fd, uint64_t seed, off_t off, size_t len)
{
	memset(back, 0x55, len);
	IS(pread(fd, back, len, off), len);
	for (size_t i = 0; i < len; i++)
		if (back[i] != pattern_byte(seed, (uint64_t)off + i))
			die("byte %lld is %02x, not %02x of pattern %llu", (long long)off + (long long)i, back[i],
			    pattern_byte(seed, (uint64_t)off + i), (unsigned long long)seed);
}

static void zeros(int fd, off_t off, size_t len)
{
	memset(back, 0x55, len);
	IS(pread(fd, back, len, off), len);
	for (size_t i = 0; i < len; i++)
		if (back[i])
			die("byte %lld is %02x, not 0", (long long)off + (long long)i, back[i]);
}

static void forget(int fd)
{
	OK(fsync(fd));
	OK(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
}

/* ---- reading and writing ------------------------------------------------------------------------- */
CHECK(read_write, "what was written is read, past the end nothing, between writes zeros")
{
	char buf[16];
	int fd = fresh("f");

	IS(write(fd, "hello", 5), 5);
	IS(pread(fd, buf, 16, 0), 5);
	IS(pread(fd, buf, 16, 5), 0);
	IS(pread(fd, buf, 16, 1000), 0);
	IS(pread(fd, buf, 16, 3), 2);
	put(fd, 1, 10000, 100);
	zeros(fd, 5, 9995);
	all_is(fd, 1, 10000, 100);
	IS(fstat_of(fd).st_size, 10100);
	ERR(pread(fd, buf, 1, -1), EINVAL);
	IS(write(fd, buf, 0), 0);
}

CHECK(write_sizes, "files of awkward sizes survive forgetting, overwriting, growing, shrinking")
{
	static const size_t sizes[] = { 1, 100, 4095, 4096, 4097, 8192, 65535, 65536, 65537, 131072,
		1048575, 1048577, 4194303, 4194304, 4194305 };
	char name[32];

	for (size_t i = 0; i < N_OF(sizes); i++) {
		size_t n = sizes[i];
		int fd;

		snprintf(name, sizeof(name), "f%zu", n);
		fd = fresh(name);
		put(fd, 1, 0, n);
		forget(fd);
		all_is(fd, 1, 0, n);
		put(fd, 2, (off_t)n / 3, n / 3 + 1);
		forget(fd);
		all_is(fd, 1, 0, n / 3);
		all_is(fd, 2, (off_t)n / 3, n / 3 + 1);
		put(fd, 3, (off_t)n, 10);
		forget(fd);
		all_is(fd, 3, (off_t)n, 10);
		IS(fstat_of(fd).st_size, n + 10);
		OK(ftruncate(fd, (off_t)n / 2));
		OK(ftruncate(fd, (off_t)n));
		forget(fd);
		all_is(fd, 1, 0, n / 3);
		zeros(fd, (off_t)n / 2, n - n / 2);
		OK(close(fd));
		OK(unlink(name));
	}
}

CHECK(write_pieces, "a megabyte written in pieces of 777 bytes, backwards and forwards, is whole")
{
	int fd = fresh("f"), n = (1 << 20) / 777;

	for (int i = n - 1; i >= 0; i -= 2)
		put(fd, 7, i * 777, 777);
	for (int i = n - 2; i >= 0; i -= 2)
		put(fd, 7, i * 777, 777);
	all_is(fd, 7, 0, (size_t)n * 777);
	forget(fd);
	all_is(fd, 7, 0, (size_t)n * 777);
}

CHECK(two_fds, "two descriptors of one file see each other's writes at once")
{
	int a = fresh("f"), b = (int)OK(open("f", O_RDWR));

	for (int i = 0; i < 200; i++) {
		put(a, (uint64_t)i, i * 100, 100);
		all_is(b, (uint64_t)i, i * 100, 100);
		IS(fstat_of(b).st_size, i * 100 + 100);
		put(b, (uint64_t)i + 1000, i * 100 + 50, 50);
		all_is(a, (uint64_t)i + 1000, i * 100 + 50, 50);
	}
}

CHECK(append, "O_APPEND writes at the end, whoever moved it, also by pwrite; reading offsets stay")
{
	int a = fresh("f"), b = (int)OK(open("f", O_RDWR | O_APPEND)), c = (int)OK(open("f", O_WRONLY | O_APPEND));

	put(a, 1, 0, 100);
	pattern_fill(data, 1, 100, 50);
	IS(write(b, data, 50), 50);
	pattern_fill(data, 1, 150, 50);
	IS(write(c, data, 50), 50);
	pattern_fill(data, 1, 200, 50);
	IS(pwrite(b, data, 50, 0), 50);
	IS(lseek(b, 0, SEEK_SET), 0);
	pattern_fill(data, 1, 250, 50);
	IS(write(b, data, 50), 50);
	IS(lseek(b, 0, SEEK_CUR), 300);
	IS(fstat_of(a).st_size, 300);
	all_is(a, 1, 0, 300);
	OK(ftruncate(a, 10));
	pattern_fill(data, 1, 10, 5);
	IS(write(c, data, 5), 5);
	IS(fstat_of(a).st_size, 15);
	all_is(a, 1, 0, 15);
}

CHECK(vectors, "readv, writev, preadv, pwritev, RWF_APPEND, sendfile")
{
	struct iovec w[3] = { { data, 100 }, { data + 100, 5000 }, { data + 5100, 1 } };
	struct iovec r[2] = { { back, 3000 }, { back + 3000, 2101 } };
	off_t off = 100;
	int fd = fresh("f"), out = fresh("g");

	pattern_fill(data, 1, 0, 5101);
	IS(writev(fd, w, 3), 5101);
	IS(preadv(fd, r, 2, 0), 5101);
	EXPECT(!memcmp(data, back, 5101));
	IS(pwritev2(fd, w, 1, 0, RWF_APPEND), 100);
	IS(fstat_of(fd).st_size, 5201);
	IS(sendfile(out, fd, &off, 5000), 5000);
	all_is(out, 1, 0, 0);
	IS(pread(out, back, 5000, 0), 5000);
	EXPECT(!memcmp(data + 100, back, 5000));
}

CHECK(open_trunc, "O_TRUNC empties, also read-only; the old bytes do not come back by growing")
{
	int fd = fresh("f");

	put(fd, 1, 0, 100000);
	OK(fsync(fd));
	OK(close(OK(open("f", O_WRONLY | O_TRUNC))));
	IS(stat_of("f").st_size, 0);
	OK(ftruncate(fd, 100000));
	zeros(fd, 0, 100000);
	OK(close(OK(open("f", O_RDONLY | O_TRUNC))));
	IS(fstat_of(fd).st_size, 0);
	IS(fstat_of(fd).st_blocks, 0);
}

CHECK(open_modes, "read-only descriptors do not write, write-only ones do not read, O_PATH does neither")
{
	char c = 0;
	int fd;

	put_file("f", "x");
	fd = (int)OK(open("f", O_RDONLY));
	ERR(write(fd, &c, 1), EBADF);
	ERR2(ftruncate(fd, 0), EINVAL, EBADF);
	fd = (int)OK(open("f", O_WRONLY));
	ERR(read(fd, &c, 1), EBADF);
	fd = (int)OK(open("f", O_PATH));
	ERR(read(fd, &c, 1), EBADF);
	fd = (int)OK(open(".", O_RDONLY));
	ERR(read(fd, &c, 1), EISDIR);
}

CHECK(sync_calls, "fsync, fdatasync, sync_file_range, syncfs, O_SYNC and O_DSYNC work, on directories as well")
{
	int fd = fresh("f"), d = (int)OK(open(".", O_RDONLY));

	put(fd, 1, 0, 10000);
	OK(fsync(fd));
	OK(fdatasync(fd));
	OK(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE));
	OK(fsync(d));
	OK(syncfs(fd));
	fd = (int)OK(open("f", O_RDWR | O_SYNC));
	put(fd, 2, 5000, 5000);
	fd = (int)OK(open("f", O_RDWR | O_DSYNC));
	put(fd, 3, 10000, 5000);
	all_is(fd, 2, 5000, 5000);
}

CHECK(direct_io, "O_DIRECT reads what was written buffered, and the other way round")
{
	int fd = fresh("f"), d;
	void *buf;

	EXPECT(posix_memalign(&buf, 4096, 1 << 20) == 0);
	d = (int)OK(open("f", O_RDWR | O_DIRECT));
	put(fd, 1, 0, 1 << 20);
	IS(pread(d, buf, 1 << 20, 0), 1 << 20);
	EXPECT(!memcmp(buf, data, 1 << 20));
	pattern_fill(buf, 2, 65536, 65536);
	IS(pwrite(d, buf, 65536, 65536), 65536);
	all_is(fd, 2, 65536, 65536);
	all_is(fd, 1, 131072, 65536);
	pattern_fill(buf, 3, 1 << 20, 4096);
	IS(pwrite(d, buf, 4096, 1 << 20), 4096);
	IS(fstat_of(fd).st_size, (1 << 20) + 4096);
	put(fd, 4, 0, 100);
	IS(pread(d, buf, 4096, 0), 4096);
	EXPECT(!memcmp(buf, data, 100));
}

/* ---- sizes and holes ----------------------------------------------------------------------------- */
CHECK(truncate_zero, "what truncate cut off is zeros when the file grows again: within a page, a block, an object")
{
	static const off_t cuts[] = { 1, 100, 4095, 4096, 5000, 65536, 70000, 1000000 };
	int fd = fresh("f");

	for (size_t i = 0; i < N_OF(cuts); i++) {
		put(fd, i, 0, 2000000);
		if (i % 2)
			forget(fd);
		OK(ftruncate(fd, cuts[i]));
		IS(fstat_of(fd).st_size, cuts[i]);
		IS(pread(fd, back, 100, cuts[i]), 0);
		OK(ftruncate(fd, 2000000));
		if (i % 3)
			forget(fd);
		all_is(fd, i, 0, (size_t)cuts[i]);
		zeros(fd, cuts[i], (size_t)(2000000 - cuts[i]));
		OK(ftruncate(fd, 0));
	}
}

CHECK(truncate_errors, "truncate: negative, directory, missing, not writable")
{
	put_file("f", "x");
	OK(mkdir("d", 0755));
	ERR(truncate("f", -1), EINVAL);
	ERR(truncate("d", 0), EISDIR);
	ERR(truncate("no", 0), ENOENT);
	OK(chmod("f", 0644));
	AS(NOBODY, NOBODY, { ERR(truncate("f", 0), EACCES); });
	OK(mkfifo("p", 0644));
	ERR(truncate("p", 0), EINVAL);
}

CHECK(write_beyond_truncate, "a write far beyond a cut leaves zeros between")
{
	int fd = fresh("f");

	put(fd, 1, 0, 100000);
	OK(ftruncate(fd, 50));
	put(fd, 2, 90000, 10);
	all_is(fd, 1, 0, 50);
	zeros(fd, 50, 89950);
	forget(fd);
	zeros(fd, 50, 89950);
	all_is(fd, 2, 90000, 10);
}

CHECK(sparse, "holes cost nothing: a terabyte of them with three pieces of data")
{
	static const off_t at[] = { 1 << 20, 1ll << 32, (1ll << 40) - 100000 };
	int fd = fresh("f");

	for (size_t i = 0; i < N_OF(at); i++)
		put(fd, i, at[i], 100000);
	OK(ftruncate(fd, 1ll << 41));
	forget(fd);
	IS(fstat_of(fd).st_size, 1ll << 41);
	EXPECT(fstat_of(fd).st_blocks >= 3 * 100000 / 512);
	EXPECT(fstat_of(fd).st_blocks < 4096);
	for (size_t i = 0; i < N_OF(at); i++) {
		all_is(fd, i, at[i], 100000);
		zeros(fd, at[i] - 5000, 5000);
		zeros(fd, at[i] + 100000, 5000);
	}
	zeros(fd, (1ll << 41) - 10, 10);
}

CHECK(seek_data, "SEEK_DATA and SEEK_HOLE find data and holes, ENXIO at the end")
{
	off_t d, h;
	int fd = fresh("f");

	ERR(lseek(fd, 0, SEEK_DATA), ENXIO);
	ERR(lseek(fd, 0, SEEK_HOLE), ENXIO);
	put(fd, 1, 0, 10000);
	put(fd, 1, 1 << 20, 65536);
	OK(ftruncate(fd, 4 << 20));
	for (int round = 0; round < 2; round++) {
		IS(lseek(fd, 0, SEEK_DATA), 0);
		h = OK(lseek(fd, 0, SEEK_HOLE));
		EXPECT(h >= 10000 && h <= 1 << 20);
		d = OK(lseek(fd, h, SEEK_DATA));
		EXPECT(d > 1 << 19 && d <= 1 << 20);
		h = OK(lseek(fd, d, SEEK_HOLE));
		EXPECT(h >= (1 << 20) + 65536 && h < 4 << 20);
		ERR(lseek(fd, h, SEEK_DATA), ENXIO);
		IS(lseek(fd, h, SEEK_HOLE), h);
		IS(lseek(fd, 5, SEEK_DATA), 5);
		ERR(lseek(fd, 4 << 20, SEEK_HOLE), ENXIO);
		ERR(lseek(fd, 4 << 20, SEEK_DATA), ENXIO);
		ERR(lseek(fd, -1, SEEK_DATA), ENXIO);
		forget(fd);
	}
}

CHECK(seek_full, "a file without holes: the only hole is its end; an empty tail is a hole")
{
	int fd = fresh("f");

	put(fd, 1, 0, 200000);
	OK(fsync(fd));
	IS(lseek(fd, 0, SEEK_HOLE), 200000);
	IS(lseek(fd, 199999, SEEK_DATA), 199999);
	IS(lseek(fd, 100, SEEK_CUR), 199999 + 100);
	IS(lseek(fd, -50, SEEK_END), 199950);
	ERR(lseek(fd, -300000, SEEK_END), EINVAL);
	IS(lseek(fd, 1ll << 40, SEEK_SET), 1ll << 40);
}

static bool has_fallocate(void)
{
	int fd = (int)OK(open("probe", O_CREAT | O_RDWR, 0644));
	int rc = fallocate(fd, 0, 0, 4096);

	if (rc && errno != EOPNOTSUPP)
		die("fallocate: %s", strerror(errno));
	OK(unlink("probe"));
	return rc == 0;
}

CHECK(fallocate_plain, "fallocate grows the file, reads as zeros, keeps what is there, counts blocks")
{
	int fd = fresh("f");

	EXPECT(has_fallocate());
	put(fd, 1, 0, 5000);
	OK(fallocate(fd, 0, 0, 1 << 20));
	IS(fstat_of(fd).st_size, 1 << 20);
	all_is(fd, 1, 0, 5000);
	zeros(fd, 5000, (1 << 20) - 5000);
	EXPECT(fstat_of(fd).st_blocks >= 2048);
	put(fd, 2, 500000, 1000);
	forget(fd);
	all_is(fd, 2, 500000, 1000);
	zeros(fd, 501000, 1000);
	OK(fallocate(fd, 0, 0, 100));
	IS(fstat_of(fd).st_size, 1 << 20);
}

CHECK(fallocate_keep, "FALLOC_FL_KEEP_SIZE reserves beyond the end without growing")
{
	int fd = fresh("f");

	put(fd, 1, 0, 100);
	OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 1 << 20));
	IS(fstat_of(fd).st_size, 100);
	IS(pread(fd, back, 10, 100), 0);
	put(fd, 2, 65536, 100);
	IS(fstat_of(fd).st_size, 65636);
	zeros(fd, 100, 65436);
}

CHECK(fallocate_punch, "FALLOC_FL_PUNCH_HOLE leaves zeros and frees blocks; also unaligned, also at the end")
{
	int fd = fresh("f");
	blkcnt_t before;

	put(fd, 1, 0, 4 << 20);
	OK(fsync(fd));
	before = fstat_of(fd).st_blocks;
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, 1 << 20));
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5, 7));
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3000001, 70001));
	for (int round = 0; round < 2; round++) {
		all_is(fd, 1, 0, 5);
		zeros(fd, 5, 7);
		all_is(fd, 1, 12, (1 << 20) - 12);
		zeros(fd, 1 << 20, 1 << 20);
		all_is(fd, 1, 2 << 20, 3000001 - (2 << 20));
		zeros(fd, 3000001, 70001);
		all_is(fd, 1, 3070002, 1000);
		forget(fd);
	}
	IS(fstat_of(fd).st_size, 4 << 20);
	EXPECT(fstat_of(fd).st_blocks <= before - 2048);
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 << 20, 8 << 20));
	IS(fstat_of(fd).st_size, 4 << 20);
	zeros(fd, 3 << 20, 1 << 20);
	IS(lseek(fd, 3 << 20, SEEK_HOLE), 3 << 20);
}

CHECK(fallocate_zero, "FALLOC_FL_ZERO_RANGE makes zeros, grows unless told to keep the size")
{
	int fd = fresh("f");

	put(fd, 1, 0, 300000);
	OK(fallocate(fd, FALLOC_FL_ZERO_RANGE, 1000, 100000));
	all_is(fd, 1, 0, 1000);
	zeros(fd, 1000, 100000);
	all_is(fd, 1, 101000, 199000);
	OK(fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 290000, 100000));
	IS(fstat_of(fd).st_size, 300000);
	zeros(fd, 290000, 10000);
	OK(fallocate(fd, FALLOC_FL_ZERO_RANGE, 290000, 100000));
	IS(fstat_of(fd).st_size, 390000);
	forget(fd);
	zeros(fd, 290000, 100000);
	all_is(fd, 1, 101000, 189000);
}

CHECK(fallocate_errors, "fallocate: bad ranges, bad descriptors, bad modes")
{
	int fd = fresh("f"), ro, p[2];

	put(fd, 1, 0, 100000);
	ro = (int)OK(open("f", O_RDONLY));
	OK(pipe(p));
	ERR(fallocate(fd, 0, -1, 10), EINVAL);
	ERR(fallocate(fd, 0, 0, 0), EINVAL);
	ERR(fallocate(fd, 0, 0, -5), EINVAL);
	ERR(fallocate(ro, 0, 0, 10), EBADF);
	ERR(fallocate(p[1], 0, 0, 10), ESPIPE);
	ERR2(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 4096), EOPNOTSUPP, EINVAL);
	ERR(fallocate(fd, 0, LLONG_MAX - 10, 100), EFBIG);
	/* where these are not done, they change nothing */
	if (fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096) == 0)
		IS(fstat_of(fd).st_size, 100000 - 4096);
	else
		IS(errno, EOPNOTSUPP);
	ERR2(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 100, 100), EOPNOTSUPP, EINVAL);
	if (fallocate(fd, FALLOC_FL_INSERT_RANGE, 0, 4096))
		IS(errno, EOPNOTSUPP);
	OK(ftruncate(fd, 0));
	put(fd, 1, 0, 1000);
	all_is(fd, 1, 0, 1000);
}

CHECK(blocks_overwrite, "overwriting does not add blocks; what small files hold is counted")
{
	int fd = fresh("f"), small = fresh("s");
	blkcnt_t blocks;

	put(fd, 1, 0, 1 << 20);
	OK(fsync(fd));
	blocks = fstat_of(fd).st_blocks;
	for (uint64_t i = 0; i < 8; i++) {
		put(fd, i, 0, 1 << 20);
		OK(fsync(fd));
	}
	IS(fstat_of(fd).st_blocks, blocks);
	put(small, 1, 0, 3000);
	OK(fsync(small));
	EXPECT(fstat_of(small).st_blocks > 0 && fstat_of(small).st_blocks <= 16);
}

/* ---- copying ------------------------------------------------------------------------------------- */
CHECK(copy_range, "copy_file_range copies exactly the bytes, also unaligned, into the middle, within a file")
{
	off_t in = 0, out = 0;
	size_t left = 3000000;
	int a = fresh("a"), b = fresh("b");

	put(a, 1, 0, 3000000);
	while (left) {
		ssize_t n = OK(copy_file_range(a, &in, b, &out, left, 0));

		EXPECT(n > 0);
		left -= (size_t)n;
	}
	all_is(b, 1, 0, 3000000);
	in = 12345;
	out = 777;
	IS(copy_file_range(a, &in, b, &out, 100, 0), 100);
	IS(in, 12445);
	IS(out, 877);
	all_is(b, 1, 0, 777);
	IS(pread(b, back, 100, 777), 100);
	pattern_fill(data, 1, 12345, 100);
	EXPECT(!memcmp(back, data, 100));
	all_is(b, 1, 877, 3000000 - 877);
	put(a, 9, 0, 1000000);	/* the copy is a copy */
	forget(b);
	all_is(b, 1, 877, 999123);
	in = 0;
	out = 4000000;
	IS(copy_file_range(a, &in, a, &out, 5000, 0), 5000);
	all_is(a, 9, 0, 5000);
	zeros(a, 3000000, 1000000);
	IS(fstat_of(a).st_size, 4005000);
}

CHECK(copy_range_edges, "copy_file_range: at the end nothing, overlapping EINVAL, bad descriptors, flags")
{
	off_t in = 0, out = 0;
	int a = fresh("a"), b = fresh("b"), ro, d = (int)OK(open(".", O_RDONLY));

	put(a, 1, 0, 10000);
	ro = (int)OK(open("b", O_RDONLY));
	in = 10000;
	IS(copy_file_range(a, &in, b, &out, 100, 0), 0);
	in = 9990;
	IS(copy_file_range(a, &in, b, &out, 100, 0), 10);
	in = 0;
	out = 5000;
	ERR(copy_file_range(a, &in, a, &out, 6000, 0), EINVAL);
	ERR(copy_file_range(a, &in, b, &out, 100, 1), EINVAL);
	ERR(copy_file_range(a, &in, ro, &out, 100, 0), EBADF);
	ERR(copy_file_range(a, &in, d, &out, 100, 0), EISDIR);
	all_is(a, 1, 0, 10000);
}

CHECK(copy_range_unsynced, "copy_file_range takes what was just written, and what is only mapped")
{
	off_t in = 0, out = 0;
	int a = fresh("a"), b = fresh("b");
	char *map;

	put(a, 1, 0, 200000);
	map = mmap(NULL, 200000, PROT_READ | PROT_WRITE, MAP_SHARED, a, 0);
	EXPECT(map != MAP_FAILED);
	memcpy(map + 100000, "mapped", 6);
	IS(copy_file_range(a, &in, b, &out, 200000, 0), 200000);
	all_is(b, 1, 0, 100000);
	IS(pread(b, back, 6, 100000), 6);
	EXPECT(!memcmp(back, "mapped", 6));
}

CHECK(reflink, "FICLONE shares the bytes or says EOPNOTSUPP and leaves the target alone")
{
	int a = fresh("a"), b = fresh("b");

	put(a, 1, 0, 100000);
	put(b, 2, 0, 100);
	if (ioctl(b, FICLONE, a)) {
		IS(errno, EOPNOTSUPP);
		all_is(b, 2, 0, 100);
		IS(fstat_of(b).st_size, 100);
		return;
	}
	all_is(b, 1, 0, 100000);
	put(a, 3, 0, 100000);
	all_is(b, 1, 0, 100000);
}

/* ---- mapping ------------------------------------------------------------------------------------- */
static sigjmp_buf bus_jump;

static void on_bus(int sig)
{
	(void)sig;
	siglongjmp(bus_jump, 1);
}

static bool faults(volatile char *p)
{
	signal(SIGBUS, on_bus);
	if (sigsetjmp(bus_jump, 1))
		return true;
	(void)*p;
	return false;
}

CHECK(mmap_shared, "a shared mapping and read and write show the same bytes, both ways")
{
	char buf[16];
	char *map;
	int fd = fresh("f");

	put(fd, 1, 0, 100000);
	map = mmap(NULL, 100000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	EXPECT(map != MAP_FAILED);
	EXPECT((uint8_t)map[50000] == pattern_byte(1, 50000));
	memcpy(map + 60000, "stored", 6);
	IS(pread(fd, buf, 6, 60000), 6);
	EXPECT(!memcmp(buf, "stored", 6));
	IS(pwrite(fd, "written", 7, 70000), 7);
	EXPECT(!memcmp(map + 70000, "written", 7));
	OK(msync(map, 100000, MS_SYNC));
	OK(munmap(map, 100000));
	forget(fd);
	IS(pread(fd, buf, 6, 60000), 6);
	EXPECT(!memcmp(buf, "stored", 6));
	all_is(fd, 1, 80000, 20000);
}

CHECK(mmap_unmapped, "what was stored through a mapping is in the file after munmap and close, without msync")
{
	char *map;
	int fd = fresh("f");

	OK(ftruncate(fd, 300000));
	map = mmap(NULL, 300000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	EXPECT(map != MAP_FAILED);
	OK(close(fd));
	pattern_fill(map, 5, 0, 300000);
	OK(munmap(map, 300000));
	fd = (int)OK(open("f", O_RDONLY));
	all_is(fd, 5, 0, 300000);
	forget(fd);
	all_is(fd, 5, 0, 300000);
}

CHECK(mmap_private, "a private mapping does not change the file, and reads it")
{
	char *map;
	int fd = fresh("f");

	put(fd, 1, 0, 10000);
	map = mmap(NULL, 10000, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	EXPECT(map != MAP_FAILED);
	memset(map, 'x', 10000);
	OK(munmap(map, 10000));
	all_is(fd, 1, 0, 10000);
}

CHECK(mmap_bounds, "beyond the end: zeros up to the page's end, then SIGBUS; after growing, data; after cutting, SIGBUS")
{
	char *map;
	int fd = fresh("f");

	put(fd, 1, 0, 5000);
	map = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	EXPECT(map != MAP_FAILED);
	EXPECT(map[5000] == 0 && map[8191] == 0);
	EXPECT(faults(map + 8192));
	put(fd, 1, 5000, 8000);
	EXPECT((uint8_t)map[12999] == pattern_byte(1, 12999));
	OK(ftruncate(fd, 100));
	EXPECT(faults(map + 4096));
	EXPECT(map[100] == 0 && map[4095] == 0);
	map[200] = 'x';		/* beyond the end: not in the file */
	OK(msync(map, 4096, MS_SYNC));
	IS(fstat_of(fd).st_size, 100);
	OK(munmap(map, 16384));
	OK(ftruncate(fd, 4096));
	forget(fd);
	all_is(fd, 1, 0, 100);
}

CHECK(mmap_fork, "parent and child share a shared mapping")
{
	volatile char *map;
	pid_t pid;
	int fd = fresh("f");

	OK(ftruncate(fd, 4096));
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	EXPECT(map != MAP_FAILED);
	pid = CHILD({ map[0] = 'c'; });
	REAP(pid);
	EXPECT(map[0] == 'c');
}

CHECK(mmap_readonly, "a read-only descriptor gives no writable shared mapping, but a private one")
{
	int fd;

	put_file("f", "x");
	fd = (int)OK(open("f", O_RDONLY));
	EXPECT(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EACCES);
	EXPECT(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0) != MAP_FAILED);
	EXPECT(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED);
}

CHECK(mmap_times, "storing through a mapping changes mtime once it is written back")
{
	struct stat a;
	char *map;
	int fd = fresh("f");

	put(fd, 1, 0, 4096);
	OK(fsync(fd));
	a = fstat_of(fd);
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	EXPECT(map != MAP_FAILED);
	tick();
	map[0] = 'x';
	OK(msync(map, 4096, MS_SYNC));
	OK(munmap(map, 4096));
	OK(close(fd));
	EXPECT(ns_of(stat_of("f").st_mtim) > ns_of(a.st_mtim));
}

int main(int argc, char **argv)
{
	return run_checks(argc, argv);
}
