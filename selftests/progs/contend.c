/* SPDX-License-Identifier: MIT */
/*
 * contend.c - two mounts, several processes at once: nothing is lost, nobody goes back in time, exactly one
 * wins, locks exclude, and everything ends. Odd processes work on B.
 *
 *	contend [--procs N] [--seconds N] A B [SCENARIO]...
 */
#include "prog.h"

#include <getopt.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define LIMIT_SECONDS slow(120)
#define PROCS_MAX 16

static const char *root[2];
static char dir[2][2100];
static unsigned n_procs = 4, seconds = 4;

/* what the processes of a scenario share */
static struct shared {
	atomic_uint ready, turn;
	atomic_ullong acked, started, cuts, ops;
	atomic_uint winners[4096];
	atomic_bool stop;
} *shared;

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

static pid_t spawn(void (*run)(unsigned id, int side), unsigned id)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run(id, (int)id % 2);
		fflush(stdout);
		_exit(0);
	}
	return (pid_t)OK(pid);
}

static void everybody(void (*run)(unsigned id, int side))
{
	pid_t pids[PROCS_MAX];

	for (unsigned i = 0; i < n_procs; i++)
		pids[i] = spawn(run, i);
	for (unsigned i = 0; i < n_procs; i++)
		REAP(pids[i]);
}

/* waits until all have come here; bounded by the scenario's alarm */
static void meet(unsigned round)
{
	shared->ready++;
	while (shared->ready < (round + 1) * n_procs)
		sched_yield();
}

/* ---- appending ---------------------------------------------------------------------------------- */
enum { LINES = 300, LINE = 64 };

static void append_lines(unsigned id, int side)
{
	int fd = (int)OK(open(at(side, "log"), O_WRONLY | O_APPEND));
	char line[LINE + 1];

	for (unsigned i = 0; i < LINES; i++) {
		snprintf(line, sizeof(line), "%03u %06u %*s\n", id, i, LINE - 12, "x");
		IS(write(fd, line, LINE), LINE);
	}
	OK(close(fd));
}

CHECK(append, "lines appended by all processes: none lost, none torn, each process's in order")
{
	char line[LINE];
	unsigned next[PROCS_MAX] = { 0 };
	int fd = (int)OK(open(at(0, "log"), O_CREAT | O_RDWR, 0644));

	everybody(append_lines);
	for (int side = 0; side < 2; side++) {
		memset(next, 0, sizeof(next));
		fd = (int)OK(open(at(side, "log"), O_RDONLY));
		IS(fstat_of(fd).st_size, n_procs * LINES * LINE);
		for (unsigned i = 0; i < n_procs * LINES; i++) {
			unsigned id, seq;

			IS(pread(fd, line, LINE, (off_t)i * LINE), LINE);
			if (sscanf(line, "%u %u", &id, &seq) != 2 || id >= n_procs || line[LINE - 1] != '\n' ||
			    line[LINE - 2] != 'x')
				die("line %u is torn: %.20s", i, line);
			if (seq != next[id]++)
				die("line %u: process %u wrote %u, expected %u", i, id, seq, next[id] - 1);
		}
	}
}

/* ---- writing side by side ----------------------------------------------------------------------- */
enum { RECORD = 100, RECORDS = 300 };

static void write_records(unsigned id, int side)
{
	int fd = (int)OK(open(at(side, "f"), O_RDWR));
	uint8_t rec[RECORD];

	for (unsigned i = 0; i < RECORDS; i++) {
		off_t off = (off_t)(i * n_procs + id) * RECORD;

		pattern_fill(rec, id, (uint64_t)off, RECORD);
		IS(pwrite(fd, rec, RECORD, off), RECORD);
	}
	OK(close(fd));
}

CHECK(side_by_side, "records of 100 bytes, written next to each other within one page: none is lost")
{
	uint8_t rec[RECORD], want[RECORD];
	int fd = (int)OK(open(at(0, "f"), O_CREAT | O_RDWR, 0644));

	everybody(write_records);
	for (int side = 0; side < 2; side++) {
		fd = (int)OK(open(at(side, "f"), O_RDONLY));
		for (unsigned i = 0; i < RECORDS * n_procs; i++) {
			off_t off = (off_t)i * RECORD;

			IS(pread(fd, rec, RECORD, off), RECORD);
			pattern_fill(want, i % n_procs, (uint64_t)off, RECORD);
			if (memcmp(rec, want, RECORD))
				die("record %u of process %u, read on side %d, is wrong", i, i % n_procs, side);
		}
	}
}

/* ---- versions ----------------------------------------------------------------------------------- */
static void write_versions(unsigned id, int side)
{
	if (id == 0) {
		int fd = (int)OK(open(at(side, "f"), O_RDWR));
		double end = now_s() + seconds;

		for (uint64_t v = 1; now_s() < end; v++) {
			shared->started = v;
			IS(pwrite(fd, &v, 8, 0), 8);
			IS(pwrite(fd, &v, 8, 20000), 8);
			shared->acked = v;
		}
		shared->stop = true;
		return;
	}
	for (uint64_t last = 0, v; !shared->stop;) {
		int fd = (int)OK(open(at(side, "f"), O_RDONLY));

		for (int i = 0; i < 10 && !shared->stop; i++) {
			uint64_t acked = shared->acked;

			IS(pread(fd, &v, 8, i % 2 ? 0 : 20000), 8);
			if (v < acked)
				die("side %d, offset %d: read version %llu, but %llu had been written; again: %llu", side,
				    i % 2 ? 0 : 20000, (unsigned long long)v, (unsigned long long)acked,
				    pread(fd, &v, 8, i % 2 ? 0 : 20000) == 8 ? (unsigned long long)v : 0);
			if (v > shared->started)
				die("read version %llu before it was written", (unsigned long long)v);
			if (i % 2 == 0 && v < last)	/* `last` was seen while it was still being written */
				shared->turn++;
			if (i % 2 == 0)
				last = v;
			shared->ops++;
		}
		OK(close(fd));
	}
}

static void run_versions(void)
{
	char zeros[30000] = { 0 };

	IS(write((int)OK(open(at(0, "f"), O_CREAT | O_RDWR, 0644)), zeros, sizeof(zeros)), sizeof(zeros));
	everybody(write_versions);
	printf("# %llu written, %llu read, %u steps back\n", (unsigned long long)shared->acked,
	       (unsigned long long)shared->ops, shared->turn);
}

CHECK(versions, "one writes a growing number, the others never read one older than the last acknowledged")
{
	run_versions();
}

CHECK(versions_order, "nor do they step back from one that they saw before it was acknowledged")
{
	run_versions();
	IS(shared->turn, 0);
}

/* after 64 numbers the file is cut to nothing, so that sizes go down, too */
static void grow(unsigned id, int side)
{
	int fd = (int)OK(open(at(side, "f"), O_RDWR));

	if (id == 0) {
		double end = now_s() + seconds;

		for (uint64_t v = 1; now_s() < end; v++) {
			if (v % 64 == 0) {
				shared->acked = 0;	/* whoever is reading now does not look at what he gets */
				shared->cuts++;
				OK(ftruncate(fd, 0));
				IS(pwrite(fd, &v, 8, 0), 8);
				shared->cuts++;
			}
			IS(pwrite(fd, &v, 8, (off_t)(v % 64) * 8), 8);
			shared->acked = v;
		}
		shared->stop = true;
		return;
	}
	while (!shared->stop) {
		unsigned long long cuts = shared->cuts, acked = shared->acked;
		uint64_t v = 0;
		ssize_t n;

		n = OK(pread(fd, &v, 8, (off_t)(acked % 64) * 8));
		if (acked && shared->cuts == cuts && (n != 8 || v != acked))
			die("side %d: %zd bytes, version %llu, where %llu had been written", side, n,
			    (unsigned long long)v, acked);
		shared->ops++;
	}
}

CHECK(grow_, "one makes a file longer, and now and then cuts it: the others read what is acknowledged, at once")
{
	put_file(at(0, "f"), "");
	everybody(grow);
	printf("# %llu written, %llu read\n", (unsigned long long)shared->acked, (unsigned long long)shared->ops);
}

static void replace_versions(unsigned id, int side)
{
	char text[32];

	if (id == 0) {
		double end = now_s() + seconds;

		for (unsigned v = 1; now_s() < end; v++) {
			snprintf(text, sizeof(text), "%u", v);
			put_file(at(side, "new"), text);
			shared->started = v;
			OK(rename(at(side, "new"), at(side, "f")));
			shared->acked = v;
		}
		shared->stop = true;
		return;
	}
	for (unsigned last = 0; !shared->stop;) {
		unsigned long long acked = shared->acked, v;
		ssize_t n;
		int fd;

		while ((fd = open(at(side, "f"), O_RDONLY)) < 0 && errno == ESTALE)
			shared->turn++;
		OK(fd);
		n = OK(read(fd, text, sizeof(text) - 1));
		OK(close(fd));
		text[n] = 0;
		v = strtoull(text, NULL, 10);
		if (!n || v < acked || v < last || v > shared->started)
			die("read '%s', acknowledged was %llu, read before %u", text, acked, last);
		last = (unsigned)v;
		shared->ops++;
	}
}

static void run_replaced(void)
{
	put_file(at(0, "f"), "0");
	everybody(replace_versions);
	printf("# %llu replaced, %llu read, %u times ESTALE\n", (unsigned long long)shared->acked,
	       (unsigned long long)shared->ops, shared->turn);
}

CHECK(replaced_versions, "one replaces a file by rename, the others find it whole, and never an older one")
{
	run_replaced();
}

CHECK(replaced_open, "nor does their open(2) ever fail")
{
	run_replaced();
	IS(shared->turn, 0);
}

/* the kernel learns of an inode for the first time just as its attributes change */
static void change_fresh(unsigned id, int side)
{
	struct stat st;

	if (id == 0) {
		double end = now_s() + seconds;

		for (unsigned v = 1; now_s() < end && v < 100000; v++) {
			OK(mkfifo(at(side, "p%u", v), 0600));
			shared->started = v;
			usleep(v % 16 * 40);
			OK(chmod(at(side, "p%u", v), 0640));
			shared->acked = v;
			usleep(200);
			OK(unlink(at(side, "p%u", v)));
		}
		shared->stop = true;
		return;
	}
	for (unsigned long long seen = 0; !shared->stop;) {
		unsigned long long v = shared->started;

		if (v == seen)
			continue;
		seen = v;
		stat(at(side, "p%llu", v), &st);
		while (shared->acked < v && !shared->stop)
			;
		if (stat(at(side, "p%llu", v), &st) == 0 && (st.st_mode & 07777) != 0640)
			die("side %d: p%llu has mode %o after chmod", side, v, st.st_mode & 07777);
		shared->ops++;
	}
}

CHECK(fresh_, "one makes inodes and changes them at once: who looks after the change never sees what was before")
{
	everybody(change_fresh);
	printf("# %llu made, %llu looks\n", (unsigned long long)shared->acked, (unsigned long long)shared->ops);
}

static void name_versions(unsigned id, int side)
{
	struct stat st;

	if (id == 0) {
		double end = now_s() + seconds;

		for (unsigned v = 1; now_s() < end && v < 100000; v++) {
			put_file(at(side, "n%u", v), "");
			shared->acked = v;
			if (v > 20) {
				OK(unlink(at(side, "n%u", v - 20)));
				shared->started = v - 20;	/* removed */
			}
		}
		shared->stop = true;
		return;
	}
	while (!shared->stop) {
		unsigned long long removed = shared->started, made = shared->acked;

		if (removed)
			ERR(stat(at(side, "n%llu", removed), &st), ENOENT);
		if (made > 10 && stat(at(side, "n%llu", made), &st) && shared->started < made)
			die("n%llu was made, but is not seen: %s", made, strerror(errno));
		if (stat(at(side, "n%llu", made + 3), &st) == 0 && shared->acked + 1 < made + 3)
			die("n%llu is seen before it was made", made + 3);
		shared->ops++;
	}
}

CHECK(names_come_and_go, "one makes and removes names, the others never see a removed one nor miss a made one")
{
	everybody(name_versions);
	printf("# %llu made, %llu looks\n", (unsigned long long)shared->acked, (unsigned long long)shared->ops);
}

/* ---- one winner ----------------------------------------------------------------------------------- */
enum { RACES = 150 };

static void race(unsigned id, int side)
{
	for (unsigned i = 0; i < RACES; i++) {
		int rc = -1, wanted = EEXIST;

		meet(i);
		switch (i % 6) {
		case 0:
			rc = open(at(side, "x%u", i), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0644);
			if (rc >= 0)
				close(rc);
			break;
		case 1: rc = mkdir(at(side, "x%u", i), 0755); break;
		case 2: rc = link(at(side, "file"), at(side, "x%u", i)); break;
		case 3: rc = symlink("x", at(side, "x%u", i)); break;
		case 4:
			rc = rename(at(side, "src%u", i), at(side, "dst%u.%u", i, id));
			wanted = ENOENT;
			break;
		case 5:
			rc = unlink(at(side, "src%u", i));
			wanted = ENOENT;
			break;
		}
		if (rc >= 0)
			shared->winners[i]++;
		else if (errno != wanted)
			die("race %u: %s, must be %s", i, strerror(errno), strerror(wanted));
	}
}

CHECK(one_winner, "of many who make, rename or remove the same name at once, exactly one succeeds")
{
	put_file(at(0, "file"), "");
	for (unsigned i = 0; i < RACES; i++)
		if (i % 6 >= 4)
			put_file(at(i % 2, "src%u", i), "");
	everybody(race);
	for (unsigned i = 0; i < RACES; i++)
		if (shared->winners[i] != 1)
			die("race %u (kind %u) had %u winners", i, i % 6, shared->winners[i]);
}

/* ---- locks ---------------------------------------------------------------------------------------- */
enum { COUNTS = 100 };
static int lock_kind;

static int set_lock(int fd, bool on, bool wait)
{
	struct flock fl = { .l_type = on ? F_WRLCK : F_UNLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 10 };

	switch (lock_kind) {
	case 0: return flock(fd, on ? LOCK_EX | (wait ? 0 : LOCK_NB) : LOCK_UN);
	case 1: return fcntl(fd, wait ? F_SETLKW : F_SETLK, &fl);
	default: return fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &fl);
	}
}

static void count_up(unsigned id, int side)
{
	int fd = (int)OK(open(at(side, "count"), O_RDWR));

	(void)id;
	for (int i = 0; i < COUNTS; i++) {
		uint64_t v;

		OK(set_lock(fd, true, true));
		IS(shared->turn++, 0);		/* nobody else is here */
		IS(pread(fd, &v, 8, 0), 8);
		v++;
		IS(pwrite(fd, &v, 8, 0), 8);
		IS(shared->turn--, 1);
		OK(set_lock(fd, false, false));
	}
	OK(close(fd));
}

static void counters(int kind)
{
	uint64_t v = 0;
	int fd = (int)OK(open(at(0, "count"), O_CREAT | O_RDWR, 0644));
	double t0 = now_s();

	IS(pwrite(fd, &v, 8, 0), 8);
	lock_kind = kind;
	everybody(count_up);
	IS(pread(fd, &v, 8, 0), 8);
	IS(v, n_procs * COUNTS);
	printf("# %.0f turns/s\n", n_procs * COUNTS / (now_s() - t0));
}

CHECK(count_flock, "a counter raised under flock on both mounts ends exact") { counters(0); }
CHECK(count_posix, "a counter raised under fcntl locks on both mounts ends exact") { counters(1); }
CHECK(count_ofd, "a counter raised under OFD locks on both mounts ends exact") { counters(2); }

static void nothing(int sig)
{
	(void)sig;
}

static void lock_waiter(unsigned id, int side)
{
	int fd = (int)OK(open(at(!side, "f"), O_RDWR));

	(void)id;
	shared->ready = 1;
	OK(set_lock(fd, true, true));
	shared->turn = 1;
	OK(set_lock(fd, false, false));
}

CHECK(lock_wait, "a lock waited for on one mount is granted when the other releases it, closes, or is killed")
{
	int fd = (int)OK(open(at(0, "f"), O_CREAT | O_RDWR, 0644));
	double t0, worst = 0;
	pid_t pid, holder;

	for (int round = 0; round < 30; round++) {
		lock_kind = round % 3;
		shared->ready = shared->turn = 0;
		holder = 0;
		if (round % 2) {
			holder = CHILD({
				int f2 = OK(open(at(0, "f"), O_RDWR));

				OK(set_lock(f2, true, false));
				shared->turn = 7;
				pause();
			});
			while (shared->turn != 7)
				usleep(1000);
			shared->turn = 0;
		} else {
			OK(set_lock(fd, true, false));
		}
		pid = spawn(lock_waiter, 0);
		while (!shared->ready)
			usleep(1000);
		usleep(30000);
		IS(shared->turn, 0);
		t0 = now_s();
		if (round % 2) {
			kill(holder, SIGKILL);
			waitpid(holder, NULL, 0);
		} else {
			OK(set_lock(fd, false, false));
		}
		REAP(pid);
		if (now_s() - t0 > worst)
			worst = now_s() - t0;
	}
	printf("# granted after %.1f ms at most\n", worst * 1000);
	EXPECT(worst < 2);
}

CHECK(lock_signal, "a signal ends the wait for a lock held on the other mount, and leaves nothing behind")
{
	struct sigaction sa = { .sa_handler = nothing };
	int a = (int)OK(open(at(0, "f"), O_CREAT | O_RDWR, 0644)), b = (int)OK(open(at(1, "f"), O_RDWR));

	for (lock_kind = 0; lock_kind < 3; lock_kind++) {
		struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

		OK(set_lock(a, true, false));
		REAP(CHILD({
			OK(sigaction(SIGALRM, &sa, NULL));
			alarm(1);
			ERR(set_lock(b, true, true), EINTR);
		}));
		if (lock_kind == 1) {
			REAP(CHILD({
				OK(fcntl(b, F_GETLK, &fl));
				IS(fl.l_type, F_WRLCK);
				IS(fl.l_start, 10);
			}));
		}
		OK(set_lock(a, false, false));
		REAP(CHILD({
			OK(set_lock(b, true, false));
			OK(set_lock(b, false, false));
		}));
		OK(set_lock(a, true, false));
		OK(set_lock(a, false, false));
	}
}

/* ---- a storm in one directory ---------------------------------------------------------------------- */
static void storm(unsigned id, int side)
{
	double end = now_s() + seconds * 2;
	uint64_t rng = id + 100;
	struct stat st;

	while (now_s() < end) {
		unsigned a = (unsigned)rnd_below(&rng, 30), b = (unsigned)rnd_below(&rng, 30);
		int rc = 0, fd;
		DIR *d;

		switch (rnd_below(&rng, 12)) {
		case 0: case 1: case 2:
			fd = open(at(side, "f%u", a), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
			if (fd >= 0) {
				IS(write(fd, "x", 1), 1);
				close(fd);
			}
			rc = fd < 0 ? -1 : 0;
			break;
		case 3: case 4: rc = unlink(at(side, "f%u", a)); break;
		case 5: rc = rename(at(side, "f%u", a), at(side, "f%u", b)); break;
		case 6: rc = link(at(side, "f%u", a), at(side, "f%u", b)); break;
		case 7: rc = mkdir(at(side, "d%u", a % 5), 0755); break;
		case 8: rc = rmdir(at(side, "d%u", a % 5)); break;
		case 9: rc = stat(at(side, "f%u", a), &st); break;
		case 10: rc = rename(at(side, "f%u", a), at(side, "d%u/f%u", b % 5, b)); break;
		case 11:
			d = opendir(at(side, "."));
			EXPECT(d);
			while (readdir(d))
				;
			closedir(d);
			break;
		}
		if (rc && errno != ENOENT && errno != EEXIST && errno != ENOTEMPTY && errno != ESTALE)
			die("unexpected error: %s", strerror(errno));
		shared->ops++;
	}
}

static unsigned sum_dir(int side)
{
	struct dirent *e;
	unsigned sum = 0;
	DIR *d = opendir(at(side, "."));

	EXPECT(d);
	while ((e = readdir(d))) {
		struct stat st;

		if (e->d_name[0] == '.')
			continue;
		st = stat_of(at(side, "%.20s", e->d_name));
		for (const char *p = e->d_name; *p; p++)
			sum = sum * 31 + (uint8_t)*p;
		sum += (unsigned)(st.st_ino * 7 + st.st_nlink * 3 + (unsigned)st.st_size);
		IS(st.st_ino, stat_of(at(!side, "%.20s", e->d_name)).st_ino);
	}
	closedir(d);
	return sum;
}

CHECK(storm_, "all make, remove, rename, link and list in one directory at full speed; both mounts then agree")
{
	everybody(storm);
	IS(sum_dir(0), sum_dir(1));
	printf("# %llu operations in %u s\n", (unsigned long long)shared->ops, seconds * 2);
	EXPECT(shared->ops > 50);
}

/* ---- apart ----------------------------------------------------------------------------------------- */
static void own_dir(unsigned id, int side)
{
	double end = now_s() + seconds;
	char text[32];

	OK(mkdir(at(side, "own%u", id), 0755));
	for (unsigned i = 0; now_s() < end; i++) {
		snprintf(text, sizeof(text), "%u", i);
		put_file(at(side, "own%u/f%u", id, i % 50), text);
		EXPECT(file_is(at(side, "own%u/f%u", id, i % 50), text));
		OK(rename(at(side, "own%u/f%u", id, i % 50), at(side, "own%u/g%u", id, i % 50)));
		shared->ops++;
	}
}

CHECK(apart, "who works in a directory of his own sees only his own")
{
	everybody(own_dir);
	printf("# %llu rounds in %u s\n", (unsigned long long)shared->ops, seconds);
	for (unsigned i = 0; i < n_procs; i++)
		for (unsigned n = 0; n < 50; n++)
			if (access(at(0, "own%u/g%u", i, n), F_OK) == 0)
				EXPECT(stat_of(at(1, "own%u/g%u", i, n)).st_size == stat_of(at(0, "own%u/g%u", i, n)).st_size);
}

static bool run_one(const struct check *c, unsigned n)
{
	double t0 = now_s();
	int status = 0;
	pid_t pid;

	for (int i = 0; i < 2; i++)
		snprintf(dir[i], sizeof(dir[i]), "%s/contend.%s", root[i], c->name);
	if (mkdir(dir[0], 0755))
		die("%s: %s", dir[0], strerror(errno));
	memset(shared, 0, sizeof(*shared));
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(LIMIT_SECONDS);
		umask(022);
		c->run();
		fflush(stdout);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	if (WIFSIGNALED(status))
		printf("# %s\n", WTERMSIG(status) == SIGALRM ? "took too long" : strsignal(WTERMSIG(status)));
	printf("%s %u - %s: %s\n# %.1f s\n", status ? "not ok" : "ok", n, c->name, c->what, now_s() - t0);
	remove_tree(dir[0]);
	return status == 0;
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "procs", required_argument, NULL, 'p' }, { "seconds", required_argument, NULL, 's' }, { 0 },
	};
	unsigned n = 0, failed = 0;
	int c;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		switch (c) {
		case 'p': n_procs = (unsigned)atoi(optarg); break;
		case 's': seconds = (unsigned)atoi(optarg); break;
		default: return 2;
		}
	}
	if (argc - optind < 2 || n_procs < 1 || n_procs > PROCS_MAX) {
		fprintf(stderr, "usage: contend [--procs N] [--seconds N] A B [SCENARIO]...\n");
		return 2;
	}
	root[0] = argv[optind];
	root[1] = argv[optind + 1];
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("out of memory");
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
