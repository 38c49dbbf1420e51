/* SPDX-License-Identifier: MIT */
/*
 * sharedfile.c - many processes on several mounts use one file at the same time, as the ranks of a parallel program or the writers
 * of one log do: nothing is lost, nothing is torn, and what was acknowledged is what all see.
 *
 *	sharedfile [--procs N] [--seconds N] [--only SCENARIO] MOUNT...
 *	sharedfile --log FILE --id N --acked FILE --seconds N      appends lines with O_DSYNC, notes each number when it was acknowledged
 *	sharedfile --check-log FILE ID:ACKED-FILE...                every noted line is there once, all lines are whole
 *
 * Process i works on mount i modulo their number.
 */
#include "prog.h"

#include <getopt.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/prctl.h>

#define LIMIT_SECONDS slow(120)
#define PROCS_MAX 16
#define MOUNTS_MAX 8
#define LINE_MAX_BYTES 3000u

static const char *mounts[MOUNTS_MAX];
static unsigned n_mounts, n_procs = 4, seconds = 3;
static char name[64];	/* of this scenario's file */

static struct shared {
	atomic_ullong acked[PROCS_MAX];
	atomic_uint done, bad;
	atomic_bool stop;
} *shared;

static const char *on(unsigned mount)
{
	static char ring[8][2300];
	static unsigned next;
	char *p = ring[next++ % 8];

	snprintf(p, sizeof(ring[0]), "%s/%s", mounts[mount], name);
	return p;
}

static void everybody(void (*run)(unsigned id, const char *path))
{
	pid_t pids[PROCS_MAX];

	fflush(stdout);
	for (unsigned i = 0; i < n_procs; i++) {
		pids[i] = fork();
		if (!pids[i]) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			run(i, on(i % n_mounts));
			_exit(0);
		}
		OK(pids[i]);
	}
	for (unsigned i = 0; i < n_procs; i++)
		REAP(pids[i]);
}

static void create(off_t size)
{
	int fd = (int)OK(open(on(0), O_CREAT | O_RDWR, 0644));

	OK(ftruncate(fd, size));
	OK(close(fd));
}

/* ---- lines ------------------------------------------------------------------------------------------- */
/* "id seq length xxx...\n" */
static unsigned make_line(char *buf, unsigned id, unsigned seq)
{
	unsigned len = 32 + (id * 7919 + seq * 104729) % (seq % 4 ? 200 : LINE_MAX_BYTES - 32);
	int n = sprintf(buf, "%03u %08u %05u ", id, seq, len);

	memset(buf + n, 'a' + (int)((id + seq) % 26), len - (unsigned)n - 1);
	buf[len - 1] = '\n';
	return len;
}

/* the file has whole lines only; next[id] follows the last one's seq (strict: each is one more than the one before) */
static uint64_t check_lines(const char *path, unsigned *next, bool strict)
{
	static char line[LINE_MAX_BYTES + 1], want[LINE_MAX_BYTES + 1];
	FILE *f = fopen(path, "r");
	uint64_t n = 0, off = 0;

	EXPECT(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned id, seq, len;

		if (sscanf(line, "%u %u %u", &id, &seq, &len) != 3 || id >= PROCS_MAX || make_line(want, id, seq) != len ||
		    strlen(line) != len || memcmp(line, want, len))
			die("%s: line %llu at %llu is torn: %.40s", path, (unsigned long long)n, (unsigned long long)off, line);
		if (strict ? seq != next[id] : seq < next[id])
			die("%s: line %llu: process %u wrote %u, expected %u", path, (unsigned long long)n, id, seq, next[id]);
		next[id] = seq + 1;
		off += len;
		n++;
	}
	EXPECT(!ferror(f) && feof(f));
	fclose(f);
	return n;
}

static void append_lines(unsigned id, const char *path)
{
	int fd = (int)OK(open(path, O_WRONLY | O_APPEND));
	double end = now_s() + seconds;
	char buf[LINE_MAX_BYTES + 1];

	for (unsigned seq = 0; now_s() < end; seq++) {
		unsigned len = make_line(buf, id, seq);

		IS(write(fd, buf, len), len);
		shared->acked[id] = seq + 1;
	}
	OK(close(fd));
}

CHECK(append, "lines appended on all mounts: none lost, none torn, each process's in order")
{
	uint64_t lines = 0;

	create(0);
	everybody(append_lines);
	for (unsigned i = 0; i < n_procs; i++)
		lines += shared->acked[i];
	for (unsigned m = 0; m < n_mounts; m++) {
		unsigned next[PROCS_MAX] = { 0 };

		IS(check_lines(on(m), next, true), lines);
	}
	printf("# %llu lines\n", (unsigned long long)lines);
}

static void append_and_cut(unsigned id, const char *path)
{
	if (id) {
		append_lines(id, path);
		return;
	}
	for (double end = now_s() + seconds; now_s() < end; usleep(30000))
		OK(truncate(path, 0));
}

CHECK(append_cut, "one cuts the file to nothing in between: what stays are whole lines, each process's in order")
{
	create(0);
	everybody(append_and_cut);
	for (unsigned m = 0; m < n_mounts; m++) {
		unsigned next[PROCS_MAX] = { 0 };

		check_lines(on(m), next, false);
		for (unsigned i = 1; i < n_procs; i++)
			EXPECT(!next[i] || next[i] == shared->acked[i]);
	}
}

static void append_and_unlink(unsigned id, const char *path)
{
	int fd = (int)OK(open(path, O_RDWR | O_APPEND));
	char buf[LINE_MAX_BYTES + 1];
	double end;

	shared->done++;
	while (shared->done < n_procs)
		sched_yield();
	end = now_s() + seconds;
	for (unsigned seq = 0; now_s() < end || (!id && seq <= 20); seq++) {
		unsigned len = make_line(buf, id, seq);

		IS(write(fd, buf, len), len);
		if (!id && seq == 20)
			OK(unlink(path));
		shared->acked[id] = seq + 1;
	}
	/* all have it open: it is there, and the same for everybody */
	shared->done++;
	while (shared->done < 2 * n_procs)
		sched_yield();
	snprintf(buf, sizeof(buf), "/proc/self/fd/%d", fd);
	{
		uint64_t size = (uint64_t)fstat_of(fd).st_size, want = 0;
		char line[LINE_MAX_BYTES + 1];

		for (unsigned i = 0; i < n_procs; i++)
			for (unsigned seq = 0; seq < shared->acked[i]; seq++)
				want += make_line(line, i, seq);
		IS(size, want);
	}
	OK(close(fd));
}

CHECK(append_unlinked, "its name is removed meanwhile: who has it open goes on, and loses nothing")
{
	create(0);
	everybody(append_and_unlink);
	for (unsigned m = 0; m < n_mounts; m++)
		EXPECT(access(on(m), F_OK) == -1 && errno == ENOENT);
}

/* ---- records side by side -------------------------------------------------------------------------------- */
static unsigned record, rounds;

static void stride(unsigned id, const char *path)
{
	int fd = (int)OK(open(path, O_RDWR));
	uint8_t *buf = malloc(record);

	for (unsigned i = 0; i < rounds; i++) {
		off_t off = (off_t)(i * n_procs + id) * record;

		pattern_fill(buf, id, (uint64_t)off, record);
		IS(pwrite(fd, buf, record, off), record);
	}
	OK(close(fd));
	free(buf);
}

static void run_stride(unsigned bytes, unsigned n)
{
	uint8_t *buf = malloc(bytes), *want = malloc(bytes);

	record = bytes;
	rounds = n;
	create(0);
	everybody(stride);
	for (unsigned m = 0; m < n_mounts; m++) {
		int fd = (int)OK(open(on(m), O_RDONLY));

		IS(fstat_of(fd).st_size, (off_t)n * n_procs * bytes);
		for (unsigned i = 0; i < n * n_procs; i++) {
			IS(pread(fd, buf, bytes, (off_t)i * bytes), bytes);
			pattern_fill(want, i % n_procs, (uint64_t)i * bytes, bytes);
			if (memcmp(buf, want, bytes))
				die("record %u of process %u, read on mount %u, is wrong", i, i % n_procs, m);
		}
		OK(close(fd));
	}
	free(buf);
	free(want);
}

CHECK(stride_4k, "records of 4 KiB by all in turns") { run_stride(4096, 200); }
CHECK(stride_64k, "records of 64 KiB by all in turns") { run_stride(65536, 60); }
CHECK(stride_1m, "records of 1 MiB by all in turns") { run_stride(1 << 20, 12); }
CHECK(stride_odd, "records of 47,008 bytes, which end within pages") { run_stride(47008, 60); }

/* ---- the same bytes ---------------------------------------------------------------------------------------- */
enum { OVER = 65536, OVER_AT = 8192 };

static uint64_t uniform(const uint8_t *buf)
{
	uint64_t first, v;

	memcpy(&first, buf, 8);
	for (unsigned i = 8; i < OVER; i += 8) {
		memcpy(&v, buf + i, 8);
		if (v != first)
			die("torn: %llx at 0 and %llx at %u", (unsigned long long)first, (unsigned long long)v, i);
	}
	return first;
}

static void overwrite(unsigned id, const char *path)
{
	bool reads = id >= n_procs / 2;
	int fd = (int)OK(open(path, reads ? O_RDONLY | O_DIRECT : O_RDWR));
	double end = now_s() + seconds;
	uint64_t *buf = aligned_alloc(4096, OVER);

	for (uint64_t n = 1; now_s() < end; n++) {
		if (reads) {
			bool settled = now_s() > end - seconds / 2.0;

			/* until the file is known to be contended it is passed on, with as much of a write as there is */
			IS(pread(fd, buf, OVER, OVER_AT), OVER);
			if (settled)
				uniform((uint8_t *)buf);
			continue;
		}
		for (unsigned i = 0; i < OVER / 8; i++)
			buf[i] = n << 8 | id;
		IS(pwrite(fd, buf, OVER, OVER_AT), OVER);
		shared->acked[id] = n;
	}
	free(buf);
	OK(close(fd));
}

CHECK(overlap, "the same 64 KiB are written and read by all: always one write's bytes, whole")
{
	uint8_t *buf = malloc(OVER);
	uint64_t first = 0, v;

	create(OVER_AT + OVER);
	everybody(overwrite);
	for (unsigned m = 0; m < n_mounts; m++) {
		int fd = (int)OK(open(on(m), O_RDONLY));

		IS(pread(fd, buf, OVER, OVER_AT), OVER);
		v = uniform(buf);
		EXPECT(!m || v == first);
		first = v;
		OK(close(fd));
	}
	EXPECT(first >> 8 == shared->acked[first & 0xff]); /* somebody's last one */
	free(buf);
}

/* the first moments of a file are others than those when it is known to be contended */
enum { NUMBERS_ROUNDS = 4 };

/* each has a number of its own, all in one page; whoever reads one finds what was acknowledged, or newer */
static void poll_numbers(unsigned id, const char *path)
{
	int fd = (int)OK(open(path, O_RDWR));
	double end = now_s() + seconds / (double)NUMBERS_ROUNDS;
	uint64_t last[PROCS_MAX] = { 0 };

	for (uint64_t n = 1, v; now_s() < end; n++) {
		unsigned other = (unsigned)((id + n) % n_procs);
		uint64_t acked = shared->acked[other];

		if (other == id) {
			IS(pwrite(fd, &n, 8, 100000 + id * 8), 8);
			shared->acked[id] = n;
			continue;
		}
		IS(pread(fd, &v, 8, 100000 + other * 8), 8);
		if (v < acked || v < last[other])
			die("process %u reads %llu of %u, which had written %llu; before %llu", id, (unsigned long long)v, other,
			    (unsigned long long)acked, (unsigned long long)last[other]);
		last[other] = v;
	}
	OK(close(fd));
}

CHECK(numbers, "each writes numbers next to the others', and reads theirs: never older than acknowledged, never back")
{
	for (unsigned i = 0; i < NUMBERS_ROUNDS; i++) {
		memset(shared, 0, sizeof(*shared));
		create(200000);
		everybody(poll_numbers);
		OK(unlink(on(0)));
	}
}

/*
 * One maps the file and stores, the others write(2) in other pages. (Not in the same ones: a page that was stored to is written back whole,
 * with what it had of the others' bytes.)
 */
enum { MAPPED = 32 * 4096 };

static off_t mapped_at(uint64_t n, unsigned id)
{
	return (off_t)((n % 16 * 2 + (id ? 1 : 0)) * 4096 + id * 8);
}

static void mapped(unsigned id, const char *path)
{
	int fd = (int)OK(open(path, O_RDWR));
	double end = now_s() + seconds;
	volatile uint64_t *map = NULL;

	if (!id) {
		map = mmap(NULL, MAPPED, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		EXPECT(map != MAP_FAILED);
	}
	for (uint64_t n = 1; now_s() < end; n++) {
		off_t off = mapped_at(n, id);

		if (map) {
			map[off / 8] = n;
			usleep(5000);
		} else {
			IS(pwrite(fd, &n, 8, off), 8);
		}
		shared->acked[id] = n;
	}
	if (map)
		OK(msync((void *)(uintptr_t)map, MAPPED, MS_SYNC));
	OK(close(fd));
}

CHECK(mapping, "one stores through a mapping, the others write to pages between: nobody's bytes are lost")
{
	create(MAPPED);
	everybody(mapped);
	for (unsigned m = 0; m < n_mounts; m++) {
		int fd = (int)OK(open(on(m), O_RDONLY));

		for (unsigned id = 0; id < n_procs; id++)
			for (uint64_t n = shared->acked[id], k = 0; k < 16 && n; k++, n--) {
				uint64_t v;

				IS(pread(fd, &v, 8, mapped_at(n, id)), 8);
				if (v != n)
					die("mount %u: process %u wrote %llu, there is %llu", m, id, (unsigned long long)n,
					    (unsigned long long)v);
			}
		OK(close(fd));
	}
}

/* ---- a log that survives ------------------------------------------------------------------------------------ */
static int write_log(const char *path, unsigned id, const char *acked)
{
	int fd = (int)OK(open(path, O_WRONLY | O_APPEND | O_DSYNC)), note = (int)OK(open(acked, O_WRONLY | O_CREAT | O_APPEND, 0644));
	double end = now_s() + seconds;
	char buf[LINE_MAX_BYTES + 1], text[16];

	for (unsigned seq = 0; now_s() < end; seq++) {
		unsigned len = make_line(buf, id, seq);
		int n;

		if (write(fd, buf, len) != (ssize_t)len)
			return 1;	/* the mount was killed */
		n = sprintf(text, "%08u\n", seq);
		IS(write(note, text, (size_t)n), n);
	}
	return 0;
}

static int check_log(char **arg)
{
	unsigned next[PROCS_MAX] = { 0 };
	uint64_t lines = check_lines(arg[0], next, true);

	printf("# %llu lines\n", (unsigned long long)lines);
	for (arg++; *arg; arg++) {
		unsigned id = (unsigned)atoi(*arg), seq, n = 0;
		FILE *f = fopen(strchr(*arg, ':') + 1, "r");

		EXPECT(f && id < PROCS_MAX);
		while (fscanf(f, "%u", &seq) == 1)
			n = seq + 1;
		fclose(f);
		printf("# process %u: %u acknowledged, %u there\n", id, n, next[id]);
		EXPECT(n);
		/* one more may have been written and not answered */
		EXPECT(next[id] == n || next[id] == n + 1);
	}
	return 0;
}

static bool run_one(const struct check *c, unsigned n)
{
	double t0 = now_s();
	int status = 0;
	pid_t pid;

	snprintf(name, sizeof(name), "shared.%s", c->name);
	memset(shared, 0, sizeof(*shared));
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(LIMIT_SECONDS);
		c->run();
		fflush(stdout);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	if (WIFSIGNALED(status))
		printf("# %s\n", WTERMSIG(status) == SIGALRM ? "took too long" : strsignal(WTERMSIG(status)));
	printf("%s %u - %u mounts: %s: %s\n# %.1f s\n", status ? "not ok" : "ok", n, n_mounts, c->name, c->what, now_s() - t0);
	unlink(on(0));
	return status == 0;
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "procs", required_argument, NULL, 'p' }, { "seconds", required_argument, NULL, 's' },
		{ "only", required_argument, NULL, 'o' }, { "log", required_argument, NULL, 'l' },
		{ "id", required_argument, NULL, 'i' }, { "acked", required_argument, NULL, 'a' },
		{ "check-log", no_argument, NULL, 'c' }, { 0 },
	};
	const char *log = NULL, *acked = NULL, *only = NULL;
	unsigned n = 0, failed = 0, id = 0;
	bool check = false;
	int c;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		switch (c) {
		case 'p': n_procs = (unsigned)atoi(optarg); break;
		case 's': seconds = (unsigned)atoi(optarg); break;
		case 'o': only = optarg; break;
		case 'l': log = optarg; break;
		case 'i': id = (unsigned)atoi(optarg); break;
		case 'a': acked = optarg; break;
		case 'c': check = true; break;
		default: return 2;
		}
	}
	if (log && acked)
		return write_log(log, id, acked);
	if (check && optind < argc)
		return check_log(argv + optind);
	n_mounts = (unsigned)(argc - optind);
	if (!n_mounts || n_mounts > MOUNTS_MAX || n_procs < 1 || n_procs > PROCS_MAX) {
		fprintf(stderr, "usage: sharedfile [--procs N] [--seconds N] [--only SCENARIO] MOUNT...\n");
		return 2;
	}
	for (unsigned i = 0; i < n_mounts; i++)
		mounts[i] = argv[optind + (int)i];
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("out of memory");
	for (struct check *k = check_first; k; k = k->next)
		if (!only || !strcmp(only, k->name))
			failed += !run_one(k, ++n);
	printf("1..%u\n", n);
	return failed || !n;
}
