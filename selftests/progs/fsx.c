/* SPDX-License-Identifier: MIT */
/*
 * fsx.c - one file, random reads, writes, truncates, mappings, holes, copies and syncs, through one path or
 * alternating between two mounts of it; a copy in memory says what every byte must be.
 *
 *	fsx [--seed N] [--ops N] [--size BYTES] [--no-mmap] PATH [SAME-FILE-ON-ANOTHER-MOUNT]
 *
 * Prints one TAP result; a failure shows the operations that touched the wrong bytes.
 */
#include "prog.h"

#include <getopt.h>
#include <linux/falloc.h>

#define HISTORY 200000
#define SIDES 2

struct op {
	const char *what;
	int side;
	off_t off, off2;
	size_t len;
};

static struct op history[HISTORY];
static unsigned n_history;
static uint8_t *good, *temp, *direct;
static off_t size, size_max = 1 << 20;
static const char *path[SIDES];
static int fds[SIDES], dfds[SIDES], sides = 1;
static uint64_t rng;
static bool use_mmap = true;
static unsigned seed = 1, n_ops = 5000;

static off_t below(off_t n)
{
	return n <= 0 ? 0 : (off_t)rnd_below(&rng, (uint64_t)n);
}

__attribute__((noreturn, format(printf, 1, 2)))
static void wrong(const char *fmt, ...)
{
	va_list ap;

	printf("not ok 1 - fsx seed %u, operation %u\n# ", seed, n_history);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n# the last operations:\n");
	for (unsigned i = n_history > 25 ? n_history - 25 : 0; i < n_history; i++)
		printf("# %6u side %d %-10s off %lld len %zu to %lld\n", i, history[i].side, history[i].what,
		       (long long)history[i].off, history[i].len, (long long)history[i].off2);
	fflush(stdout);
	_exit(1);
}

static void note(const char *what, int side, off_t off, size_t len, off_t off2)
{
	if (n_history < HISTORY)
		history[n_history] = (struct op){ what, side, off, off2, len };
	n_history++;
}

static void must(long long got, long long wanted, const char *what)
{
	if (got != wanted)
		wrong("%s gave %lld (%s), not %lld", what, got, got < 0 ? strerror(errno) : "no error", wanted);
}

static void compare(const uint8_t *buf, off_t off, size_t len, const char *how)
{
	size_t i, end;

	if (!memcmp(buf, good + off, len))
		return;
	for (i = 0; buf[i] == good[off + (off_t)i]; i++)
		;
	for (end = i; end < len && buf[end] != good[off + (off_t)end]; end++)
		;
	printf("# byte %lld (0x%llx) is %02x, not %02x; %zu wrong bytes in a row; who touched it:\n",
	       (long long)off + (long long)i, (long long)off + (long long)i, buf[i], good[off + (off_t)i], end - i);
	off += (off_t)i;
	for (unsigned n = 0; n < n_history && n < HISTORY; n++) {
		const struct op *o = &history[n];
		bool in = off >= o->off && off < o->off + (off_t)o->len;
		bool in2 = !strcmp(o->what, "copy") && off >= o->off2 && off < o->off2 + (off_t)o->len;
		bool cut = !strcmp(o->what, "truncate") && off >= o->off;

		if ((in && !strstr(o->what, "read")) || in2 || cut)
			printf("#   %u side %d %s off %lld len %zu to %lld\n", n, o->side, o->what,
			       (long long)o->off, o->len, (long long)o->off2);
	}
	wrong("%s of side %d: wrong bytes, file size %lld", how, history[n_history - 1].side, (long long)size);
}

static void reopen(int side)
{
	if (fds[side] >= 0)
		must(close(fds[side]), 0, "close");
	if (dfds[side] >= 0)
		close(dfds[side]);
	fds[side] = open(path[side], O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fds[side] < 0)
		wrong("open %s: %s", path[side], strerror(errno));
	dfds[side] = open(path[side], O_RDWR | O_DIRECT | O_CLOEXEC);
}

static void grow(off_t to)
{
	if (to > size)
		size = to;	/* bytes of good[] beyond the end are zero already */
}

static void do_write(int side, off_t off, size_t len)
{
	note("write", side, off, len, 0);
	pattern_fill(good + off, n_history, (uint64_t)off, len);
	must(pwrite(fds[side], good + off, len, off), (long long)len, "write");
	grow(off + (off_t)len);
}

static void do_direct(int side)
{
	off_t off = below(size_max / 4096) * 4096;
	size_t len = (size_t)(1 + below(16)) * 4096;

	if (dfds[side] < 0)
		return;
	if (off + (off_t)len > size_max)
		len = (size_t)(size_max - off) & ~4095ul;
	if (below(2)) {
		note("dwrite", side, off, len, 0);
		pattern_fill(good + off, n_history, (uint64_t)off, len);
		memcpy(direct, good + off, len);
		must(pwrite(dfds[side], direct, len, off), (long long)len, "direct write");
		grow(off + (off_t)len);
	} else {
		size_t want = off >= size ? 0 : (size_t)(size - off) < len ? (size_t)(size - off) : len;

		note("dread", side, off, len, 0);
		must(pread(dfds[side], direct, len, off), (long long)want, "direct read");
		compare(direct, off, want, "direct read");
	}
}

static void do_read(int side, off_t off, size_t len)
{
	size_t want = off >= size ? 0 : (size_t)(size - off) < len ? (size_t)(size - off) : len;

	note("read", side, off, len, 0);
	must(pread(fds[side], temp, len, off), (long long)want, "read");
	compare(temp, off, want, "read");
}

static void do_truncate(int side, off_t to)
{
	note("truncate", side, to, 0, 0);
	must(ftruncate(fds[side], to), 0, "truncate");
	if (to < size)
		memset(good + to, 0, (size_t)(size - to));
	size = to;
}

/* Kernels bound mappings and copies by the size they last saw: programs ask for it first, and so do we. */
static void look(int side)
{
	struct stat st;

	must(fstat(fds[side], &st), 0, "fstat");
	must(st.st_size, size, "st_size");
}

static void do_map(int side, off_t off, size_t len, bool store)
{
	off_t start = off & ~4095ll;
	size_t span;
	uint8_t *map;

	if (size == 0 || off >= size)
		return;
	if (off + (off_t)len > size)
		len = (size_t)(size - off);
	span = len + (size_t)(off - start);
	note(store ? "mapwrite" : "mapread", side, off, len, 0);
	look(side);
	map = mmap(NULL, span, PROT_READ | (store ? PROT_WRITE : 0), MAP_SHARED, fds[side], start);
	if (map == MAP_FAILED)
		wrong("mmap: %s", strerror(errno));
	if (store) {
		pattern_fill(good + off, n_history, (uint64_t)off, len);
		memcpy(map + (off - start), good + off, len);
		must(msync(map, span, MS_SYNC), 0, "msync");
	} else {
		compare(map + (off - start), off, len, "mapping");
	}
	munmap(map, span);
}

static void do_fallocate(int side, off_t off, size_t len)
{
	static const struct { const char *name; int mode; } kinds[] = {
		{ "punch", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE },
		{ "zero", FALLOC_FL_ZERO_RANGE },
		{ "zerokeep", FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE },
		{ "falloc", 0 },
		{ "fallockeep", FALLOC_FL_KEEP_SIZE },
	};
	size_t k = (size_t)below(N_OF(kinds));
	off_t end = off + (off_t)len;

	note(kinds[k].name, side, off, len, 0);
	must(fallocate(fds[side], kinds[k].mode, off, (off_t)len), 0, kinds[k].name);
	if (k < 3 && off < size)
		memset(good + off, 0, (size_t)((end < size ? end : size) - off));
	if (k == 1 || k == 3)
		grow(end);
}

static void do_copy(int side, off_t from, off_t to, size_t len)
{
	ssize_t n;

	if (from >= size)
		return;
	if (from + (off_t)len > size)
		len = (size_t)(size - from);
	if (to < from + (off_t)len && from < to + (off_t)len)
		return;
	note("copy", side, from, len, to);
	look(side);
	while (len) {
		off_t in = from, out = to;

		n = copy_file_range(fds[side], &in, fds[side], &out, len, 0);
		if (n <= 0)
			wrong("copy_file_range: %s", n ? strerror(errno) : "gave 0");
		memcpy(good + to, good + from, (size_t)n);
		grow(to + n);
		from += n;
		to += n;
		len -= (size_t)n;
	}
}

static void step(void)
{
	int side = (int)below(sides);
	size_t len = 1 + (size_t)below(below(8) ? 10000 : 300000);
	off_t off = below(8) ? below(size_max) : below(size + 1);

	if (off + (off_t)len > size_max)
		len = (size_t)(size_max - off);
	if (!len)
		return;
	switch (below(20)) {
	case 0 ... 4: do_write(side, off, len); break;
	case 5 ... 8: do_read(side, off, len); break;
	case 9: do_truncate(side, below(4) ? off : below(10000)); break;
	case 10: if (use_mmap) do_map(side, off, len, false); break;
	case 11: if (use_mmap) do_map(side, off, len, true); break;
	case 12: case 13: do_fallocate(side, off, len); break;
	case 14: do_copy(side, off, below(size_max - (off_t)len), len); break;
	case 15:
		note("fsync", side, 0, 0, 0);
		must(fsync(fds[side]), 0, "fsync");
		if (below(2))
			posix_fadvise(fds[side], 0, 0, POSIX_FADV_DONTNEED);
		break;
	case 16: note("reopen", side, 0, 0, 0); reopen(side); break;
	case 17: do_direct(side); break;
	case 18: if (size + (off_t)len <= size_max) do_write(side, size, len); break;
	case 19:
		note("stat", side, 0, 0, 0);
		look(side);
		break;
	}
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "seed", required_argument, NULL, 's' }, { "ops", required_argument, NULL, 'o' },
		{ "size", required_argument, NULL, 'z' }, { "no-mmap", no_argument, NULL, 'm' }, { 0 },
	};
	double t0 = now_s();
	int c;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		switch (c) {
		case 's': seed = (unsigned)atoi(optarg); break;
		case 'o': n_ops = (unsigned)atoi(optarg); break;
		case 'z': size_max = atoll(optarg); break;
		case 'm': use_mmap = false; break;
		default: return 2;
		}
	}
	if (argc - optind < 1 || argc - optind > SIDES) {
		fprintf(stderr, "usage: fsx [--seed N] [--ops N] [--size BYTES] [--no-mmap] PATH [PATH2]\n");
		return 2;
	}
	sides = argc - optind;
	rng = seed;
	puts("1..1");
	good = calloc(1, (size_t)size_max + 1);
	temp = malloc((size_t)size_max + 300000);
	if (!good || !temp || posix_memalign((void **)&direct, 4096, 65536))
		die("out of memory");
	for (int i = 0; i < sides; i++) {
		path[i] = argv[optind + i];
		fds[i] = dfds[i] = -1;
		reopen(i);
	}
	must(fstat_of(fds[0]).st_size, 0, "size of a new file");
	for (unsigned i = 0; i < n_ops; i++)
		step();
	for (int i = 0; i < sides; i++) {
		reopen(i);
		do_read(i, 0, (size_t)size_max);
	}
	printf("ok 1 - fsx seed %u: %u operations on %d %s\n# %.0f operations/s\n", seed, n_history, sides,
	       sides == 1 ? "path" : "mounts", n_history / (now_s() - t0));
	unlink(path[0]);
	return 0;
}
