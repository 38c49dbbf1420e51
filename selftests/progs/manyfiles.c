/* SPDX-License-Identifier: MIT */
/*
 * manyfiles.c - quantities: a directory with very many names, very many open files, a file of very many pieces.
 *
 *	manyfiles dir N A [B]		N names in one directory, by two processes; listed, looked up, removed
 *	manyfiles open N DIR		N files open at once
 *	manyfiles pieces N DIR		one file of N extents, written in random order; also checks after DONTNEED
 *	manyfiles verify N DIR		the file that `pieces` left, again (after a remount), then removes it
 *	manyfiles links N DIR		N hard links of one file; EMLINK at its limit
 */
#include "prog.h"

#include <sys/resource.h>

static unsigned count;
static char path[2300];

static const char *at(const char *dir, const char *prefix, unsigned n)
{
	snprintf(path, sizeof(path), "%s/%s%07u", dir, prefix, n);
	return path;
}

static void result(bool good, const char *what, double t0)
{
	static unsigned n;

	printf("%s %u - %s\n# %.1f s, %.0f/s\n", good ? "ok" : "not ok", ++n, what, now_s() - t0, count / (now_s() - t0));
	fflush(stdout);
	if (!good)
		_exit(1);
}

static void in_two(const char *a, const char *b, void (*run)(const char *dir, unsigned from, unsigned step))
{
	pid_t pids[2];

	for (unsigned i = 0; i < 2; i++)
		pids[i] = CHILD({ run(i ? b : a, i, 2); });
	REAP(pids[0]);
	REAP(pids[1]);
}

static void make_some(const char *dir, unsigned from, unsigned step)
{
	for (unsigned i = from; i < count; i += step)
		OK(close((int)OK(open(at(dir, "file-", i), O_CREAT | O_EXCL | O_WRONLY, 0644))));
}

static void remove_some(const char *dir, unsigned from, unsigned step)
{
	for (unsigned i = from; i < count; i += step)
		OK(unlink(at(dir, "file-", i)));
}

static bool list_all(const char *dir)
{
	uint8_t *seen = calloc(1, count);
	struct dirent *e;
	unsigned n = 0;
	DIR *d = opendir(dir);

	EXPECT(d && seen);
	while ((e = readdir(d))) {
		unsigned long i;

		if (e->d_name[0] == '.')
			continue;
		i = strtoul(e->d_name + 5, NULL, 10);
		if (i >= count || seen[i]++)
			die("%s listed twice, or never made", e->d_name);
		n++;
	}
	closedir(d);
	free(seen);
	return n == count;
}

static int many_names(const char *a, const char *b)
{
	char dir_a[2100], dir_b[2100];
	uint64_t rng = 3;
	struct stat st;
	double t0 = now_s();

	snprintf(dir_a, sizeof(dir_a), "%s/many", a);
	snprintf(dir_b, sizeof(dir_b), "%s/many", b);
	OK(mkdir(dir_a, 0755));
	in_two(dir_a, dir_b, make_some);
	result(true, "names made by two processes", t0);
	t0 = now_s();
	result(list_all(dir_b), "listed: each once", t0);
	t0 = now_s();
	result(list_all(dir_b), "listed again", t0);
	t0 = now_s();
	for (unsigned i = 0; i < 5000; i++)
		OK(stat(at(i % 2 ? dir_a : dir_b, "file-", (unsigned)rnd_below(&rng, count)), &st));
	for (unsigned i = 0; i < 1000; i++)
		ERR(stat(at(i % 2 ? dir_a : dir_b, "none-", (unsigned)rnd_below(&rng, count)), &st), ENOENT);
	result(true, "5000 names found, 1000 not", t0);
	ERR2(rmdir(dir_a), ENOTEMPTY, EEXIST);
	t0 = now_s();
	in_two(dir_b, dir_a, remove_some);
	OK(rmdir(dir_a));
	result(stat(dir_b, &st) == -1 && errno == ENOENT, "removed by two processes", t0);
	puts("1..5");
	return 0;
}

/* A process's share of the open files; `ready` counts those who have all of theirs, `go` lets them end. */
static void open_share(const char *dir, unsigned from, unsigned to, volatile unsigned *ready, volatile unsigned *go)
{
	int *fds = calloc(to - from, sizeof(*fds));
	unsigned got;

	EXPECT(fds);
	for (unsigned i = from; i < to; i++) {
		fds[i - from] = (int)OK(open(at(dir, "open-", i), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0644));
		IS(pwrite(fds[i - from], &i, sizeof(i), 0), sizeof(i));
	}
	__atomic_fetch_add(ready, 1, __ATOMIC_SEQ_CST);
	while (!*go)
		usleep(10000);
	for (unsigned i = from; i < to; i += 2)
		OK(unlink(at(dir, "open-", i)));
	for (unsigned i = from; i < to; i++) {
		IS(pread(fds[i - from], &got, sizeof(got), 0), sizeof(got));
		IS(got, i);
		IS(fstat_of(fds[i - from]).st_nlink, (i - from) % 2);
	}
	for (unsigned i = from; i < to; i++) {
		OK(close(fds[i - from]));
		if ((i - from) % 2)
			OK(unlink(at(dir, "open-", i)));
	}
	free(fds);
}

static int many_open(const char *dir)
{
	struct rlimit lim;
	unsigned share, procs, n = 0;
	volatile unsigned *v = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	double t0 = now_s();
	pid_t pids[256];

	EXPECT(v != MAP_FAILED);
	OK(getrlimit(RLIMIT_NOFILE, &lim));
	lim.rlim_cur = lim.rlim_max;
	OK(setrlimit(RLIMIT_NOFILE, &lim));
	share = lim.rlim_max > 20000 ? 16384 : (unsigned)lim.rlim_max - 64;	/* each process may have so many */
	procs = (count + share - 1) / share;
	EXPECT(procs <= N_OF(pids));
	for (unsigned i = 0; i < procs; i++)
		pids[i] = CHILD({ open_share(dir, i * share, i + 1 < procs ? (i + 1) * share : count, &v[0], &v[1]); });
	while (v[0] < procs) {
		usleep(10000);
		for (unsigned i = 0; i < procs; i++)
			if (waitpid(pids[i], NULL, WNOHANG) > 0)
				die("process %u ended early", i);
	}
	result(true, "files made, written, and open all at once", t0);
	t0 = now_s();
	v[1] = 1;
	for (unsigned i = 0; i < procs; i++)
		REAP(pids[i]);
	result(true, "half of them lose their name; all read; closed and removed", t0);
	for (unsigned i = 0; i < count; i++)
		n += access(at(dir, "open-", i), F_OK) == 0;
	IS(n, 0);
	puts("1..2");
	return 0;
}

enum { PIECE = 700, STRIDE = 8192 };

static void verify_pieces(int fd)
{
	uint8_t got[STRIDE], want[STRIDE];

	IS(fstat_of(fd).st_size, (off_t)(count - 1) * STRIDE + PIECE);
	for (unsigned i = 0; i < count; i++) {
		off_t off = (off_t)i * STRIDE;
		ssize_t n = OK(pread(fd, got, STRIDE, off));

		memset(want, 0, STRIDE);
		pattern_fill(want, 9, (uint64_t)off, PIECE);
		IS(n, i + 1 < count ? STRIDE : PIECE);
		if (memcmp(got, want, (size_t)n))
			die("piece %u is wrong", i);
	}
}

static int pieces(const char *dir)
{
	unsigned *order = calloc(count, sizeof(*order));
	uint8_t data[PIECE];
	uint64_t rng = 7;
	double t0 = now_s();
	int fd;

	EXPECT(order);
	for (unsigned i = 0; i < count; i++) {
		unsigned j = (unsigned)rnd_below(&rng, i + 1);

		order[i] = order[j];
		order[j] = i;
	}
	fd = (int)OK(open(at(dir, "pieces", 0), O_CREAT | O_EXCL | O_RDWR, 0644));
	for (unsigned i = 0; i < count; i++) {
		off_t off = (off_t)order[i] * STRIDE;

		pattern_fill(data, 9, (uint64_t)off, PIECE);
		IS(pwrite(fd, data, PIECE, off), PIECE);
		if (i % 500 == 499)
			OK(fsync(fd));
	}
	OK(fsync(fd));
	result(true, "pieces written in random order, synced every 500", t0);
	t0 = now_s();
	OK(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
	verify_pieces(fd);
	result(true, "pieces read", t0);
	puts("1..2");
	return 0;
}

static int verify(const char *dir)
{
	double t0 = now_s();
	int fd = (int)OK(open(at(dir, "pieces", 0), O_RDWR));

	verify_pieces(fd);
	result(true, "pieces read after a remount", t0);
	t0 = now_s();
	OK(ftruncate(fd, (off_t)(count / 2) * STRIDE + PIECE));
	count = count / 2 + 1;
	verify_pieces(fd);
	OK(unlink(path));
	result(true, "cut in half, and removed", t0);
	puts("1..2");
	return 0;
}

static int links(const char *dir)
{
	char first[2300];
	double t0 = now_s();
	unsigned made = 1;

	snprintf(first, sizeof(first), "%s/first", dir);
	put_file(first, "x");
	for (; made < count; made++) {
		if (link(first, at(dir, "link-", made))) {
			IS(errno, EMLINK);
			break;
		}
	}
	printf("# %u links\n", made);
	result(stat_of(first).st_nlink == made && made >= (count < 65000 ? count : 65000), "links made, counted, bounded by EMLINK",
	       t0);
	t0 = now_s();
	for (unsigned i = 1; i < made; i++)
		OK(unlink(at(dir, "link-", i)));
	result(stat_of(first).st_nlink == 1, "links removed", t0);
	OK(unlink(first));
	puts("1..2");
	return 0;
}

int main(int argc, char **argv)
{
	if (argc >= 4)
		count = (unsigned)atoi(argv[2]);
	if (count >= 2 && !strcmp(argv[1], "dir"))
		return many_names(argv[3], argv[argc > 4 ? 4 : 3]);
	if (count && !strcmp(argv[1], "open"))
		return many_open(argv[3]);
	if (count && !strcmp(argv[1], "pieces"))
		return pieces(argv[3]);
	if (count && !strcmp(argv[1], "verify"))
		return verify(argv[3]);
	if (count && !strcmp(argv[1], "links"))
		return links(argv[3]);
	fprintf(stderr, "usage: manyfiles dir|open|pieces|verify|links N DIR [DIR]\n");
	return 2;
}
