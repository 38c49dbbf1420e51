/* SPDX-License-Identifier: MIT */
/*
 * once.c - operations that give another result when they are done twice, or not at all: whatever happens to what serves the file
 * system meanwhile, each of them must succeed, once.
 *
 *	once run --dir DIR --procs N --ops N     until each process has made N rounds, or SIGTERM; 0, or 1 and what was wrong
 *	once lock --dir DIR                      holds a POSIX, a flock and an OFD lock on DIR/locks until SIGTERM, checking all the time
 *	once held --dir DIR                      0 if another session holds those three locks
 *	once wait --dir DIR                      waits for the POSIX lock; 0 when it was granted
 *
 * A round makes, writes, links, renames, tags, and removes files and directories of its own in DIR/N, and appends one record to
 * DIR/N/log, which stays open, as do a file that has no name, a file that is read and written in place, and a directory.
 */
#include "prog.h"

#include <getopt.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define PROCS_MAX 16
#define RECORD 32
#define IN_PLACE 70000
#define NOREPLACE 1u

static volatile sig_atomic_t stopping;
static const char *dir;

static void on_term(int sig)
{
	(void)sig;
	stopping = 1;
}

/* every call here is one that must succeed */
#define MUST(call) do { \
	if ((call) < 0) \
		die("process %d, round %u: %s: %s", me, n, #call, strerror(errno)); \
} while (0)

static const char *name(const char *kind, unsigned n)
{
	static char ring[8][64];
	static unsigned next;
	char *p = ring[next++ % 8];

	snprintf(p, sizeof(ring[0]), "%s%u", kind, n);
	return p;
}

static void fill(uint8_t *p, size_t len, uint64_t seed)
{
	uint64_t rng = seed;

	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)rnd_below(&rng, 256);
}

struct open_files {
	int log, nameless, place, dir;
	uint8_t bytes[IN_PLACE], got[IN_PLACE], text[IN_PLACE];
};

static void check_content(int me, unsigned n, int fd, const uint8_t *want, uint8_t *got, size_t len, const char *what)
{
	ssize_t k = pread(fd, got, len, 0);

	if (k != (ssize_t)len)
		die("process %d, round %u: %s: read gives %zd, not %zu: %s", me, n, what, k, len, k < 0 ? strerror(errno) : "");
	for (size_t i = 0; i < len; i++)
		if (got[i] != want[i])
			die("process %d, round %u: %s: byte %zu is %02x, not %02x", me, n, what, i, got[i], want[i]);
}

/* names */
static void round_names(int me, unsigned n, struct open_files *f)
{
	char record[80], target[64];
	size_t len = 1 + n * 7919 % 9000;
	struct stat st;
	int fd, k;

	fill(f->text, len, (uint64_t)me << 32 | n);
	MUST(fd = open(name("new", n), O_RDWR | O_CREAT | O_EXCL, 0644));
	MUST(k = (int)write(fd, f->text, len));
	IS(k, len);
	if (n % 5 == 0)
		MUST(fsync(fd));
	MUST(link(name("new", n), name("link", n)));
	MUST(syscall(SYS_renameat2, AT_FDCWD, name("new", n), AT_FDCWD, name("moved", n), NOREPLACE));
	MUST(setxattr(name("moved", n), "user.once", "x", 1, XATTR_CREATE));
	MUST(removexattr(name("moved", n), "user.once"));
	MUST(mkdir(name("dir", n), 0755));
	snprintf(target, sizeof(target), "dir%u/inside", n);
	MUST(rename(name("link", n), target));
	MUST(fstat(fd, &st));
	IS(st.st_nlink, 2);
	IS(st.st_size, len);
	check_content(me, n, fd, f->text, f->got, len, "a new file");
	MUST(symlink(target, name("sym", n)));
	MUST(unlink(target));
	MUST(rmdir(name("dir", n)));
	MUST(unlink(name("sym", n)));
	MUST(close(fd));
	MUST(mkfifo(name("fifo", n), 0600));
	MUST(unlink(name("fifo", n)));
	if (n >= 8)
		MUST(unlink(name("moved", n - 8)));
	snprintf(record, sizeof(record), "%5d %10u ................", me, n);
	record[RECORD - 1] = '\n';
	k = (int)write(f->log, record, RECORD);
	if (k != RECORD)
		die("process %d, round %u: append gives %d: %s", me, n, k, strerror(errno));
}

/* files that stay open */
static void round_open(int me, unsigned n, struct open_files *f)
{
	uint64_t rng = (uint64_t)n << 20 | (unsigned)me;
	size_t off = rnd_below(&rng, IN_PLACE - 1), len = 1 + rnd_below(&rng, IN_PLACE - off - 1), small = len < 3000 ? len : 3000;
	int k;

	fill(f->bytes + off, len, rng);
	k = (int)pwrite(f->place, f->bytes + off, len, (off_t)off);
	if (k != (int)len)
		die("process %d, round %u: write in place gives %d: %s", me, n, k, strerror(errno));
	if (n % 3 == 0)
		check_content(me, n, f->place, f->bytes, f->got, IN_PLACE, "the file written in place");
	k = (int)pwrite(f->nameless, f->bytes + off, small, 0);
	IS(k, small);
	check_content(me, n, f->nameless, f->bytes + off, f->got, (size_t)k, "the file without a name");
	MUST(faccessat(f->dir, ".", F_OK, 0));
	MUST(fchmod(f->nameless, 0600 | (n & 077)));
}

static void check_log(int me, unsigned rounds, int fd)
{
	char line[RECORD + 1] = "";
	struct stat st;

	if (fstat(fd, &st) || st.st_size != (off_t)rounds * RECORD)
		die("process %d: the log has %lld bytes after %u records of %d", me, (long long)st.st_size, rounds, RECORD);
	for (unsigned n = 0; n < rounds; n++) {
		int who;
		unsigned which;

		if (pread(fd, line, RECORD, (off_t)n * RECORD) != RECORD || sscanf(line, "%d %u", &who, &which) != 2 ||
		    who != me || which != n)
			die("process %d: record %u of the log is '%.20s'", me, n, line);
	}
}

__attribute__((noreturn))
static void work(int me, unsigned ops)
{
	struct open_files *f = calloc(1, sizeof(*f));
	char sub[2300];
	unsigned n = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	snprintf(sub, sizeof(sub), "%s/%d", dir, me);
	if (!f || mkdir(sub, 0755) || chdir(sub))
		die("%s: %s", sub, strerror(errno));
	MUST(f->log = open("log", O_RDWR | O_CREAT | O_EXCL | O_APPEND, 0644));
	MUST(f->place = open("place", O_RDWR | O_CREAT | O_EXCL, 0644));
	MUST(f->nameless = open("nameless", O_RDWR | O_CREAT | O_EXCL, 0644));
	MUST(unlink("nameless"));
	MUST(f->dir = open(".", O_RDONLY | O_DIRECTORY));
	IS(pwrite(f->place, f->bytes, IN_PLACE, 0), IN_PLACE);
	for (; n < ops && !stopping; n++) {
		round_names(me, n, f);
		round_open(me, n, f);
	}
	check_content(me, n, f->place, f->bytes, f->got, IN_PLACE, "at the end, the file written in place");
	check_log(me, n, f->log);
	printf("# process %d: %u rounds\n", me, n);
	fflush(stdout);
	_exit(0);
}

static int run(int procs, unsigned ops)
{
	pid_t pids[PROCS_MAX];
	int bad = 0;

	if (mkdir(dir, 0755) && errno != EEXIST)
		die("%s: %s", dir, strerror(errno));
	for (int i = 0; i < procs; i++) {
		pids[i] = fork();
		if (pids[i] < 0)
			die("fork: %s", strerror(errno));
		if (!pids[i])
			work(i, ops);
	}
	for (int i = 0; i < procs; i++) {
		int status;

		while (waitpid(pids[i], &status, 0) < 0 && errno == EINTR)
			for (int k = 0; k < procs; k++)
				kill(pids[k], SIGTERM);
		bad += status != 0;
	}
	printf("%s - %d processes: every operation was done once\n", bad ? "not ok 1" : "ok 1", procs);
	return bad != 0;
}

/* ---- locks ------------------------------------------------------------------------------------------- */
static struct flock range(short type, off_t start)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = 10 };
}

static int open_locks(void)
{
	char path[2300];
	int fd;

	snprintf(path, sizeof(path), "%s/locks", dir);
	fd = open(path, O_RDWR | O_CREAT, 0644);
	if (fd < 0)
		die("%s: %s", path, strerror(errno));
	return fd;
}

static int hold_locks(void)
{
	struct flock posix = range(F_WRLCK, 0), ofd = range(F_WRLCK, 100), extra;
	int fd = open_locks(), fd2 = open_locks();

	if (fcntl(fd, F_SETLK, &posix) || fcntl(fd2, F_OFD_SETLK, &ofd) || flock(fd2, LOCK_EX | LOCK_NB))
		die("cannot lock: %s", strerror(errno));
	puts("locked");
	fflush(stdout);
	while (!stopping) {	/* others of our own come and go */
		extra = range(F_WRLCK, 50);
		if (fcntl(fd, F_SETLK, &extra))
			die("cannot lock more: %s", strerror(errno));
		extra = range(F_UNLCK, 50);
		if (fcntl(fd, F_SETLK, &extra))
			die("cannot unlock: %s", strerror(errno));
		usleep(20000);
	}
	return 0;
}

static int are_held(void)
{
	struct flock posix = range(F_WRLCK, 0), ofd = range(F_WRLCK, 100);
	int fd = open_locks(), bad = 0;

	bad += !fcntl(fd, F_SETLK, &posix) || (errno != EAGAIN && errno != EACCES);
	bad += 2 * (!fcntl(fd, F_OFD_SETLK, &ofd) || (errno != EAGAIN && errno != EACCES));
	bad += 4 * (!flock(fd, LOCK_EX | LOCK_NB) || errno != EWOULDBLOCK);
	if (bad)
		printf("not held:%s%s%s (%s)\n", bad & 1 ? " POSIX" : "", bad & 2 ? " OFD" : "", bad & 4 ? " flock" : "",
		       strerror(errno));
	return bad;
}

static int wait_for_lock(void)
{
	struct flock posix = range(F_WRLCK, 0);
	int fd = open_locks();

	if (fcntl(fd, F_SETLKW, &posix))
		die("waiting for the lock: %s", strerror(errno));
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "dir", required_argument, NULL, 'd' }, { "procs", required_argument, NULL, 'p' },
		{ "ops", required_argument, NULL, 'o' }, { 0 },
	};
	struct sigaction sa = { .sa_handler = on_term };	/* no SA_RESTART: waiting must end */
	unsigned ops = UINT32_MAX;
	int procs = 2, c;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		switch (c) {
		case 'd': dir = optarg; break;
		case 'p': procs = atoi(optarg); break;
		case 'o': ops = (unsigned)atoi(optarg); break;
		default: die("usage");
		}
	}
	sigaction(SIGTERM, &sa, NULL);
	if (!dir || optind + 1 != argc || procs < 1 || procs > PROCS_MAX)
		die("usage: once run|lock|held|wait --dir DIR");
	if (!strcmp(argv[optind], "run"))
		return run(procs, ops);
	if (!strcmp(argv[optind], "lock"))
		return hold_locks();
	if (!strcmp(argv[optind], "held"))
		return are_held();
	if (!strcmp(argv[optind], "wait"))
		return wait_for_lock();
	die("usage: once run|lock|held|wait --dir DIR");
}
