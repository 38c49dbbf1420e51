/* SPDX-License-Identifier: MIT */
/*
 * coherence.c - two mounts, one process: what a call on one mount did is seen by the next call on the other,
 * whatever that one had cached: names, absent names, attributes, listings, pages, mappings.
 *
 *	coherence [--rounds N] A B [SCENARIO]...
 *
 * Each scenario runs N rounds, acting on A and B by turns, and prints its rate.
 */
#include "prog.h"

#include <getopt.h>
#include <linux/falloc.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define SECONDS slow(60)
static const char *root[2];
static char dir[2][2100];
static unsigned rounds = 200;
static uint64_t rng = 1;
static uint8_t buf[1 << 18], want[1 << 18];

/* the path of a name on a mount; valid until 16 calls later */
static const char *at(int side, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static const char *at(int side, const char *fmt, ...)
{
	static char ring[16][2300];
	static unsigned next;
	char *p = ring[next++ % 16];
	int n = sprintf(p, "%s/", dir[side]);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p + n, 150, fmt, ap);
	va_end(ap);
	return p;
}

#define ROUNDS for (unsigned n = 0, w = 0, r = 1; n < rounds; n++, w = n % 2, r = !w)

static void absent(const char *path)
{
	struct stat st;

	ERR(lstat(path, &st), ENOENT);
}

/* ---- names -------------------------------------------------------------------------------------- */
CHECK(create, "a name that was looked up in vain is there once it is made")
{
	ROUNDS {
		absent(at(r, "n%u", n));
		ERR(open(at(r, "n%u", n), O_RDONLY), ENOENT);
		put_file(at(w, "n%u", n), "new");
		EXPECT(file_is(at(r, "n%u", n), "new"));
		EXPECT(stat_of(at(r, "n%u", n)).st_ino == stat_of(at(w, "n%u", n)).st_ino);
	}
}

CHECK(unlink_, "a name that was there is gone once it is removed")
{
	ROUNDS {
		put_file(at(w, "f"), "x");
		stat_of(at(r, "f"));
		OK(unlink(at(w, "f")));
		absent(at(r, "f"));
		ERR(open(at(r, "f"), O_RDONLY), ENOENT);
	}
}

CHECK(same_name, "one name is made, removed and made again by turns")
{
	ROUNDS {
		absent(at(w, "f"));
		absent(at(r, "f"));
		OK(mkdir(at(w, "f"), 0755));
		ERR(mkdir(at(r, "f"), 0755), EEXIST);
		EXPECT(S_ISDIR(stat_of(at(r, "f")).st_mode));
		OK(rmdir(at(r, "f")));
		absent(at(w, "f"));
		OK(symlink("x", at(r, "f")));
		EXPECT(S_ISLNK(stat_of(at(w, "f")).st_mode));
		OK(unlink(at(w, "f")));
	}
}

CHECK(exclusive, "O_EXCL fails on one mount after it succeeded on the other")
{
	ROUNDS {
		OK(close((int)OK(open(at(w, "n%u", n), O_CREAT | O_EXCL | O_RDWR, 0644))));
		ERR(open(at(r, "n%u", n), O_CREAT | O_EXCL | O_RDWR, 0644), EEXIST);
	}
}

CHECK(rename_, "after a rename the old name is gone and the new one is that file")
{
	put_file(at(0, "a"), "text");
	ROUNDS {
		ino_t ino = stat_of(at(r, "a")).st_ino;

		absent(at(r, "b"));
		OK(rename(at(w, "a"), at(w, "b")));
		absent(at(r, "a"));
		IS(stat_of(at(r, "b")).st_ino, ino);
		EXPECT(file_is(at(r, "b"), "text"));
		OK(rename(at(r, "b"), at(r, "a")));
	}
}

CHECK(replace, "a file replaced by rename is the new file at once, by content and inode")
{
	char text[32];

	put_file(at(0, "f"), "first");
	ROUNDS {
		ino_t old = stat_of(at(r, "f")).st_ino;

		EXPECT(stat_of(at(r, "f")).st_size > 0);
		snprintf(text, sizeof(text), "version %u", n);
		put_file(at(w, "f.new"), text);
		OK(rename(at(w, "f.new"), at(w, "f")));
		EXPECT(file_is(at(r, "f"), text));
		EXPECT(stat_of(at(r, "f")).st_ino != old);
	}
}

CHECK(exchange, "RENAME_EXCHANGE is seen as a whole")
{
	put_file(at(0, "a"), "A");
	OK(mkdir(at(0, "b"), 0755));
	ROUNDS {
		ino_t a = stat_of(at(r, "a")).st_ino, b = stat_of(at(r, "b")).st_ino;

		OK(syscall(SYS_renameat2, AT_FDCWD, at(w, "a"), AT_FDCWD, at(w, "b"), 2));
		IS(stat_of(at(r, "a")).st_ino, b);
		IS(stat_of(at(r, "b")).st_ino, a);
	}
}

CHECK(move_dir, "moving a directory moves all below it")
{
	OK(mkdir(at(0, "a"), 0755));
	OK(mkdir(at(0, "a/d"), 0755));
	put_file(at(0, "a/d/f"), "x");
	ROUNDS {
		EXPECT(file_is(at(r, "a/d/f"), "x"));
		absent(at(r, "b"));
		OK(rename(at(w, "a"), at(w, "b")));
		absent(at(r, "a/d/f"));
		EXPECT(file_is(at(r, "b/d/f"), "x"));
		IS(stat_of(at(r, "b/..")).st_ino, stat_of(at(r, ".")).st_ino);
		OK(rename(at(r, "b"), at(r, "a")));
	}
}

CHECK(hard_links, "link and unlink change the count on the other mount")
{
	put_file(at(0, "f"), "x");
	ROUNDS {
		IS(stat_of(at(r, "f")).st_nlink, 1);
		OK(link(at(w, "f"), at(w, "g")));
		IS(stat_of(at(r, "f")).st_nlink, 2);
		IS(stat_of(at(r, "g")).st_nlink, 2);
		OK(chmod(at(w, "f"), 0600 + n % 8));
		IS(stat_of(at(r, "g")).st_mode & 0777, 0600 + n % 8);
		OK(unlink(at(r, "g")));
		IS(stat_of(at(w, "f")).st_nlink, 1);
		absent(at(w, "g"));
	}
}

CHECK(symlinks, "a symlink that was replaced leads elsewhere")
{
	char got[64];

	put_file(at(0, "t0"), "0");
	put_file(at(0, "t1"), "1");
	OK(symlink("t1", at(0, "s")));
	ROUNDS {
		EXPECT(file_is(at(r, "s"), n % 2 ? "0" : "1"));
		OK(symlink(n % 2 ? "t1" : "t0", at(w, "s.new")));
		OK(rename(at(w, "s.new"), at(w, "s")));
		IS(readlink(at(r, "s"), got, sizeof(got)), 2);
		EXPECT(got[1] == (n % 2 ? '1' : '0'));
		EXPECT(file_is(at(r, "s"), n % 2 ? "1" : "0"));
	}
}

static unsigned list(int side, const char *name, bool *ret_found)
{
	DIR *d = opendir(at(side, "."));
	struct dirent *e;
	unsigned count = 0;

	EXPECT(d);
	*ret_found = false;
	while ((e = readdir(d))) {
		*ret_found |= !strcmp(e->d_name, name);
		count++;
	}
	closedir(d);
	return count;
}

CHECK(listing, "a listing has what was made and not what was removed, though it was cached")
{
	char name[32];
	bool found;

	for (int i = 0; i < 30; i++)
		put_file(at(0, "base%d", i), "");
	ROUNDS {
		unsigned before;

		snprintf(name, sizeof(name), "n%u", n);
		before = list(r, name, &found);
		EXPECT(!found);
		put_file(at(w, "%s", name), "");
		IS(list(r, name, &found), before + 1);
		EXPECT(found);
		OK(unlink(at(w, "%s", name)));
		IS(list(r, name, &found), before);
		EXPECT(!found);
	}
}

CHECK(many_files, "50 files made, written and changed at once: all seen")
{
	for (unsigned n = 0, w = 0, r = 1; n < rounds / 20 + 1; n++, w = n % 2, r = !w) {
		OK(mkdir(at(w, "d%u", n), 0755));
		for (int i = 0; i < 50; i++)
			put_file(at(w, "d%u/f%d", n, i), "some text");
		for (int i = 0; i < 50; i++) {
			IS(stat_of(at(r, "d%u/f%d", n, i)).st_size, 9);
			EXPECT(file_is(at(r, "d%u/f%d", n, i), "some text"));
			OK(unlink(at(r, "d%u/f%d", n, i)));
		}
		OK(rmdir(at(w, "d%u", n)));
	}
}

CHECK(odd_names, "names of every byte and of every length, made on one mount, seen, renamed and removed on the other")
{
	enum { ODD = 254 + 253 };
	static char names[ODD][256];
	unsigned count = 0;
	struct dirent *e;
	DIR *d;

	for (int c = 1; c < 256; c++)
		if (c != '/')
			sprintf(names[count++], "%cx", c);
	for (unsigned len = 3; len < 256; len++, count++)
		for (unsigned i = 0; i < len; i++)
			names[count][i] = (char)(len % 3 ? "\xf0\x9f\x98\x80"[i % 4] : 'a' + (char)(len % 26));
	IS(count, ODD);
	OK(chdir(dir[0]));
	for (unsigned i = 0; i < ODD; i++)
		put_file(names[i], names[i]);
	OK(chdir(dir[1]));
	d = opendir(".");
	EXPECT(d);
	while ((e = readdir(d)))
		count -= strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
	closedir(d);
	IS(count, 0);
	for (unsigned i = 0; i < ODD; i++) {
		EXPECT(file_is(names[i], names[i]));
		OK(rename(names[i], at(1, "n%u", i)));
	}
	OK(chdir(dir[0]));
	for (unsigned i = 0; i < ODD; i++) {
		absent(names[i]);
		OK(rename(at(0, "n%u", i), names[i]));
	}
	OK(chdir(dir[1]));
	for (unsigned i = 0; i < ODD; i++)
		OK(unlink(names[i]));
	OK(chdir("/"));
	OK(rmdir(dir[0]));
	OK(mkdir(dir[1], 0755));
}

/* ---- attributes --------------------------------------------------------------------------------- */
CHECK(chmod_chown, "mode, owner and their effect on a lookup")
{
	struct stat st;

	put_file(at(0, "f"), "x");
	OK(mkdir(at(0, "d"), 0755));
	put_file(at(0, "d/f"), "x");
	ROUNDS {
		mode_t m = (mode_t)rnd_below(&rng, 07777);

		OK(chmod(at(w, "f"), m));
		IS(stat_of(at(r, "f")).st_mode & 07777, m);
		OK(chown(at(w, "f"), n, n + 1));
		st = stat_of(at(r, "f"));
		IS(st.st_uid, n);
		IS(st.st_gid, n + 1);
		if (n % 20 == 0) {
			OK(chmod(at(w, "d"), 0700));
			AS(NOBODY, NOBODY, { ERR(stat(at((int)r, "d/f"), &st), EACCES); });
			OK(chmod(at(w, "d"), 0755));
			AS(NOBODY, NOBODY, { OK(stat(at((int)r, "d/f"), &st)); });
		}
	}
}

CHECK(times, "times that were set; a directory's times after a change in it")
{
	put_file(at(0, "f"), "x");
	ROUNDS {
		struct timespec ts[2] = { { n, n }, { n + 1, n + 2 } };
		struct stat before, after;

		OK(utimensat(AT_FDCWD, at(w, "f"), ts, 0));
		IS(ns_of(stat_of(at(r, "f")).st_mtim), ns_of(ts[1]));
		IS(ns_of(stat_of(at(r, "f")).st_atim), ns_of(ts[0]));
		if (n % 10)
			continue;
		before = stat_of(at(r, "."));
		tick();
		put_file(at(w, "g%u", n), "");
		after = stat_of(at(r, "."));
		EXPECT(ns_of(after.st_mtim) > ns_of(before.st_mtim));
	}
}

CHECK(xattrs, "attributes set, changed and removed, absent ones too")
{
	char got[32], text[32];

	put_file(at(0, "f"), "x");
	OK(mkdir(at(0, "d"), 0755));
	ROUNDS {
		const char *name = n % 3 ? "f" : "d";

		ERR(getxattr(at(r, "%s", name), "user.a", got, 32), ENODATA);
		snprintf(text, sizeof(text), "%u", n);
		OK(setxattr(at(w, "%s", name), "user.a", text, strlen(text), 0));
		IS(getxattr(at(r, "%s", name), "user.a", got, 32), strlen(text));
		EXPECT(!memcmp(got, text, strlen(text)));
		OK(setxattr(at(w, "%s", name), "user.a", "other", 5, 0));
		IS(getxattr(at(r, "%s", name), "user.a", got, 32), 5);
		OK(removexattr(at(w, "%s", name), "user.a"));
	}
}

CHECK(stat_agrees, "size and times of a file just written are the same on both mounts, before any sync")
{
	int fd = (int)OK(open(at(0, "f"), O_CREAT | O_RDWR, 0644));

	for (unsigned n = 0; n < rounds; n++) {
		struct stat a, b;

		IS(pwrite(fd, "0123456789", 10, n * 100), 10);
		b = stat_of(at(1, "f"));
		a = stat_of(at(0, "f"));
		IS(b.st_size, n * 100 + 10);
		IS(a.st_size, b.st_size);
		IS(ns_of(a.st_mtim), ns_of(b.st_mtim));
		IS(ns_of(a.st_ctim), ns_of(b.st_ctim));
	}
}

/* ---- data --------------------------------------------------------------------------------------- */
CHECK(small_file, "a small file rewritten: the other mount reads the new text, longer or shorter")
{
	char text[300];

	ROUNDS {
		memset(text, 'a' + (int)(n % 26), sizeof(text));
		text[1 + rnd_below(&rng, 290)] = 0;
		put_file(at(w, "f"), text);
		EXPECT(file_is(at(r, "f"), text));
		IS(stat_of(at(r, "f")).st_size, strlen(text));
	}
}

CHECK(cached_pages, "a piece overwritten in a file whose pages the other mount has in its cache")
{
	int fd[2];

	fd[0] = (int)OK(open(at(0, "f"), O_CREAT | O_RDWR, 0644));
	pattern_fill(want, 0, 0, sizeof(want));
	IS(pwrite(fd[0], want, sizeof(want), 0), sizeof(want));
	fd[1] = (int)OK(open(at(1, "f"), O_RDWR));
	ROUNDS {
		size_t off = rnd_below(&rng, sizeof(want) - 9000), len = 1 + rnd_below(&rng, 9000);

		IS(pread(fd[r], buf, sizeof(buf), 0), sizeof(buf));
		pattern_fill(want + off, n + 1, off, len);
		IS(pwrite(fd[w], want + off, len, (off_t)off), len);
		if (n % 3)
			IS(pread(fd[r], buf + off, len, (off_t)off), len);
		else
			IS(pread(fd[r], buf, sizeof(buf), 0), sizeof(buf));
		if (memcmp(buf, want, sizeof(want)))
			die("round %u: old bytes after a write at %zu of %zu", n, off, len);
	}
}

CHECK(mapped, "a mapping that stays shows what the other mount writes")
{
	const uint8_t *map[2];
	int fd[2];

	fd[0] = (int)OK(open(at(0, "f"), O_CREAT | O_RDWR, 0644));
	IS(pwrite(fd[0], buf, 65536, 0), 65536);
	fd[1] = (int)OK(open(at(1, "f"), O_RDWR));
	for (int i = 0; i < 2; i++) {
		map[i] = mmap(NULL, 65536, PROT_READ, MAP_SHARED, fd[i], 0);
		EXPECT(map[i] != MAP_FAILED);
	}
	ROUNDS {
		size_t off = rnd_below(&rng, 60000);

		EXPECT(map[r][off] == map[w][off]);
		pattern_fill(want, n, off, 5000);
		IS(pwrite(fd[w], want, 5000, (off_t)off), 5000);
		if (memcmp(map[r] + off, want, 5000))
			die("round %u: the mapping shows old bytes at %zu", n, off);
	}
}

CHECK(map_stored, "what is stored through a mapping and synced is read on the other mount")
{
	uint8_t *map[2];
	int fd[2];

	fd[0] = (int)OK(open(at(0, "f"), O_CREAT | O_RDWR, 0644));
	OK(ftruncate(fd[0], 65536));
	fd[1] = (int)OK(open(at(1, "f"), O_RDWR));
	for (int i = 0; i < 2; i++) {
		map[i] = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd[i], 0);
		EXPECT(map[i] != MAP_FAILED);
	}
	for (unsigned n = 0, w = 0, r = 1; n < rounds / 2; n++, w = n % 2, r = !w) {
		size_t off = rnd_below(&rng, 60000);

		pattern_fill(map[w] + off, n, off, 5000);
		OK(msync(map[w], 65536, MS_SYNC));
		pattern_fill(want, n, off, 5000);
		IS(pread(fd[r], buf, 5000, (off_t)off), 5000);
		EXPECT(!memcmp(buf, want, 5000));
		EXPECT(!memcmp(map[r] + off, want, 5000));
	}
}

CHECK(append, "appending by turns: the size, the end, and every line")
{
	char line[32], got[32];
	int fd[2];

	fd[0] = (int)OK(open(at(0, "f"), O_CREAT | O_RDWR | O_APPEND, 0644));
	fd[1] = (int)OK(open(at(1, "f"), O_RDWR | O_APPEND));
	ROUNDS {
		sprintf(line, "line %9u\n", n);
		IS(write(fd[w], line, 15), 15);
		IS(fstat_of(fd[r]).st_size, (n + 1) * 15);
		IS(pread(fd[r], got, 15, n * 15), 15);
		EXPECT(!memcmp(got, line, 15));
		IS(pread(fd[r], got, 15, (n + 1) * 15), 0);
	}
	for (unsigned n = 0; n < rounds; n++) {
		sprintf(line, "line %9u\n", n);
		IS(pread(fd[n % 2], got, 15, n * 15), 15);
		EXPECT(!memcmp(got, line, 15));
	}
}

CHECK(ping_pong, "two open descriptors write and read by turns, 8 bytes in one place")
{
	uint64_t v;
	int fd[2];

	fd[0] = (int)OK(open(at(0, "f"), O_CREAT | O_RDWR, 0644));
	fd[1] = (int)OK(open(at(1, "f"), O_RDWR));
	for (uint64_t n = 1; n <= rounds * 2; n++) {
		IS(pwrite(fd[n % 2], &n, 8, 4090), 8);
		IS(pread(fd[!(n % 2)], &v, 8, 4090), 8);
		IS(v, n);
	}
}

CHECK(truncates, "truncate, grow, O_TRUNC: size and bytes, in cached pages too")
{
	int fd[2];

	fd[0] = (int)OK(open(at(0, "f"), O_CREAT | O_RDWR, 0644));
	fd[1] = (int)OK(open(at(1, "f"), O_RDWR));
	ROUNDS {
		size_t cut = rnd_below(&rng, 30000);

		pattern_fill(want, n, 0, 30000);
		IS(pwrite(fd[r], want, 30000, 0), 30000);
		IS(pread(fd[r], buf, 30000, 0), 30000);
		OK(ftruncate(fd[w], (off_t)cut));
		IS(stat_of(at(r, "f")).st_size, cut);
		IS(pread(fd[r], buf, 30000, 0), cut);
		EXPECT(!memcmp(buf, want, cut));
		OK(truncate(at(w, "f"), 30000));
		memset(want + cut, 0, 30000 - cut);
		IS(pread(fd[r], buf, 30000, 0), 30000);
		EXPECT(!memcmp(buf, want, 30000));
		if (n % 4 == 0) {
			OK(close((int)OK(open(at(w, "f"), O_WRONLY | O_TRUNC))));
			IS(fstat_of(fd[r]).st_size, 0);
			IS(pread(fd[r], buf, 10, 0), 0);
		}
	}
}

CHECK(holes, "punched holes and zeroed ranges in cached pages; SEEK_HOLE agrees")
{
	int fd[2];

	fd[0] = (int)OK(open(at(0, "f"), O_CREAT | O_RDWR, 0644));
	fd[1] = (int)OK(open(at(1, "f"), O_RDWR));
	for (unsigned n = 0, w = 0, r = 1; n < rounds / 2; n++, w = n % 2, r = !w) {
		off_t off = (off_t)rnd_below(&rng, 100000);
		int mode = n % 3 ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : FALLOC_FL_ZERO_RANGE;

		pattern_fill(want, n, 0, sizeof(want));
		IS(pwrite(fd[r], want, sizeof(want), 0), sizeof(want));
		OK(fallocate(fd[w], mode, off, 70000));
		memset(want + off, 0, 70000);
		IS(pread(fd[r], buf, sizeof(buf), 0), sizeof(buf));
		EXPECT(!memcmp(buf, want, sizeof(buf)));
		IS(lseek(fd[r], 0, SEEK_HOLE), lseek(fd[w], 0, SEEK_HOLE));
	}
}

CHECK(copies, "copy_file_range on one mount of what the other just wrote, read by the other")
{
	int a[2], b[2];

	a[0] = (int)OK(open(at(0, "a"), O_CREAT | O_RDWR, 0644));
	a[1] = (int)OK(open(at(1, "a"), O_RDWR));
	b[0] = (int)OK(open(at(0, "b"), O_CREAT | O_RDWR, 0644));
	b[1] = (int)OK(open(at(1, "b"), O_RDWR));
	for (unsigned n = 0, w = 0, r = 1; n < rounds / 2; n++, w = n % 2, r = !w) {
		off_t in = (off_t)rnd_below(&rng, 10000), out = (off_t)rnd_below(&rng, 10000);
		off_t to = out;

		pattern_fill(want, n, 0, 50000);
		IS(pwrite(a[r], want, 50000, 0), 50000);
		IS(fstat_of(a[w]).st_size, 50000);	/* the kernel bounds a copy by the size it last saw */
		IS(copy_file_range(a[w], &(off_t){ in }, b[w], &out, 30000, 0), 30000);
		IS(pread(b[r], buf, 30000, to), 30000);
		EXPECT(!memcmp(buf, want + in, 30000));
	}
}

CHECK(direct, "direct I/O on one mount, cached on the other")
{
	uint8_t *block;
	int fd[2];

	EXPECT(posix_memalign((void **)&block, 4096, 65536) == 0);
	fd[0] = (int)OK(open(at(0, "f"), O_CREAT | O_RDWR | O_DIRECT, 0644));
	fd[1] = (int)OK(open(at(1, "f"), O_RDWR));
	for (unsigned n = 0; n < rounds / 2; n++) {
		pattern_fill(block, n, 0, 65536);
		IS(pwrite(fd[0], block, 65536, 0), 65536);
		IS(pread(fd[1], buf, 65536, 0), 65536);
		EXPECT(!memcmp(buf, block, 65536));
		pattern_fill(want, n + 7, 0, 65536);
		IS(pwrite(fd[1], want, 65536, 0), 65536);
		IS(pread(fd[0], block, 65536, 0), 65536);
		EXPECT(!memcmp(block, want, 65536));
	}
}

CHECK(removed_elsewhere, "a file open on one mount and removed on the other stays readable and writable, with 0 links")
{
	char got[32];

	ROUNDS {
		int fd;

		put_file(at(w, "f"), "still here");
		fd = (int)OK(open(at(r, "f"), O_RDWR));
		if (n % 2)
			IS(pread(fd, got, 32, 0), 10);
		OK(unlink(at(w, "f")));
		absent(at(r, "f"));
		IS(fstat_of(fd).st_nlink, 0);
		IS(pread(fd, got, 32, 0), 10);
		EXPECT(!memcmp(got, "still here", 10));
		IS(pwrite(fd, "more", 4, 100), 4);
		IS(fstat_of(fd).st_size, 104);
		if (n % 8 == 0) {
			OK(fsync(fd));
			OK(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
			IS(pread(fd, got, 4, 100), 4);
			EXPECT(!memcmp(got, "more", 4));
		}
		OK(close(fd));
	}
}

CHECK(replaced_elsewhere, "a file open on one mount and replaced by rename on the other: old bytes here, new ones there")
{
	char got[32];

	ROUNDS {
		int fd;

		put_file(at(w, "f"), "old");
		fd = (int)OK(open(at(r, "f"), O_RDONLY));
		put_file(at(w, "g"), "newer");
		OK(rename(at(w, "g"), at(w, "f")));
		IS(pread(fd, got, 32, 0), 3);
		EXPECT(!memcmp(got, "old", 3));
		EXPECT(file_is(at(r, "f"), "newer"));
		OK(close(fd));
	}
}

CHECK(removed_dir, "a directory open or current on one mount and removed on the other is dead")
{
	struct stat st;

	for (unsigned n = 0, w = 0, r = 1; n < rounds / 4; n++, w = n % 2, r = !w) {
		int fd;

		OK(mkdir(at(w, "d"), 0755));
		fd = (int)OK(open(at(r, "d"), O_RDONLY | O_DIRECTORY));
		OK(fstatat(fd, ".", &st, 0));
		OK(rmdir(at(w, "d")));
		ERR2(openat(fd, "x", O_CREAT | O_RDWR, 0644), ENOENT, ESTALE);
		ERR2(fstatat(fd, "x", &st, 0), ENOENT, ESTALE);
		absent(at(r, "d"));
		OK(close(fd));
	}
}

/* ---- running ------------------------------------------------------------------------------------ */
static bool run_one(const struct check *c, unsigned n)
{
	double t0 = now_s();
	int status = 0;
	pid_t pid;

	for (int i = 0; i < 2; i++)
		snprintf(dir[i], sizeof(dir[i]), "%s/coherence.%s", root[i], c->name);
	if (mkdir(dir[0], 0755))
		die("%s: %s", dir[0], strerror(errno));
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(SECONDS);
		umask(022);
		c->run();
		fflush(stdout);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	if (WIFSIGNALED(status))
		printf("# %s\n", WTERMSIG(status) == SIGALRM ? "took too long" : strsignal(WTERMSIG(status)));
	printf("%s %u - %s: %s\n# %.0f rounds/s\n", status ? "not ok" : "ok", n, c->name, c->what,
	       rounds / (now_s() - t0));
	remove_tree(dir[0]);
	return status == 0;
}

int main(int argc, char **argv)
{
	static const struct option opts[] = { { "rounds", required_argument, NULL, 'r' }, { 0 } };
	unsigned n = 0, failed = 0;
	int c;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		if (c != 'r')
			return 2;
		rounds = (unsigned)atoi(optarg);
	}
	if (argc - optind < 2) {
		fprintf(stderr, "usage: coherence [--rounds N] A B [SCENARIO]...\n");
		return 2;
	}
	root[0] = argv[optind];
	root[1] = argv[optind + 1];
	for (struct check *k = check_first; k; k = k->next) {
		bool chosen = argc - optind == 2;

		for (int i = optind + 2; i < argc; i++)
			chosen |= !strcmp(argv[i], k->name);
		if (chosen)
			failed += !run_one(k, ++n);
	}
	printf("1..%u\n", n);
	return failed || !n;
}
