/* SPDX-License-Identifier: MIT */
/*
 * ackload.c - what was acknowledged must be there after a crash.
 *
 *	ackload run --journal FILE --dir DIR [--seed N] [--unsynced]
 *		works in DIR until SIGTERM. Before each operation it appends a line to FILE (which lies elsewhere),
 *		after it another. Ends with 3 when an operation fails. Prints the longest operation.
 *	ackload check --journal FILE --dir DIR
 *		replays FILE in memory and compares DIR: everything acknowledged is there; what was under way, or
 *		failed, is done or not done. One TAP line.
 *
 * Each written byte is synced within its operation, except with --unsynced (for crashes that the client
 * survives). While it runs it also holds a lock, an open file without a name, and an open log.
 */
#include "prog.h"

#include <getopt.h>
#include <sys/file.h>

#define FILES 24
#define DIRS 6
#define LINKS 6
#define NAMES (FILES + DIRS + LINKS + 1)
#define LOG (NAMES - 1)		/* a file that stays open */
#define SIZE_MAX_FILE (1 << 20)

enum type { NONE, IS_FILE, IS_DIR, IS_LINK };

struct name {
	enum type type;
	uint8_t *bytes;
	size_t size;
	mode_t mode;
	uint64_t xattr;		/* 0: none */
	uint64_t target;
};

struct action {
	char op;
	unsigned a, b;
	size_t off, len;
	uint64_t seed;
};

static struct name names[NAMES];
static const char *dir, *journal;
static uint64_t rng = 1;
static bool unsynced;
static volatile sig_atomic_t stopping;

static const char *path_of(unsigned i)
{
	static char ring[4][2200];
	static unsigned next;
	char *p = ring[next++ % 4];

	snprintf(p, sizeof(ring[0]), "%s/%c%u", dir, i < FILES ? 'f' : i < FILES + DIRS ? 'd' : i < LOG ? 's' : 'l', i);
	return p;
}

/* ---- the state in memory -------------------------------------------------------------------------- */
static void forget(struct name *n)
{
	free(n->bytes);
	memset(n, 0, sizeof(*n));
}

static void resize(struct name *n, size_t size)
{
	if (!n->bytes)
		n->bytes = calloc(1, SIZE_MAX_FILE);
	if (!n->bytes || size > SIZE_MAX_FILE)
		die("file model: %zu bytes", size);
	if (size < n->size)
		memset(n->bytes + size, 0, n->size - size);
	n->size = size;
}

static void apply(struct name *all, const struct action *x)
{
	struct name *a = &all[x->a];

	switch (x->op) {
	case 'C': *a = (struct name){ .type = IS_FILE, .mode = 0644 }; break;
	case 'U': case 'D': forget(a); break;
	case 'M': *a = (struct name){ .type = IS_DIR, .mode = 0755 }; break;
	case 'S': *a = (struct name){ .type = IS_LINK, .target = x->seed }; break;
	case 'R':
		forget(&all[x->b]);
		all[x->b] = *a;
		memset(a, 0, sizeof(*a));
		break;
	case 'W': case 'A': case 'N': case 'L':
		if (x->off + x->len > a->size)
			resize(a, x->off + x->len);
		if (x->len)
			pattern_fill(a->bytes + x->off, x->seed, x->off, x->len);
		break;
	case 'T': resize(a, x->len); break;
	case 'X': a->xattr = x->seed; break;
	case 'P': a->mode = 0600 | (x->seed & 0177); break;
	}
}

/* an operation that must succeed in the present state; op 0: try again */
static struct action choose(void)
{
	static const char ops[] = "CCCUURRRWWWWWAAALLTXPMDSGKN";
	struct action x = { .op = ops[rnd_below(&rng, sizeof(ops) - 1)], .seed = rnd_next(&rng) >> 1 };
	struct name *n;

	x.a = (unsigned)rnd_below(&rng, FILES);
	x.b = (unsigned)rnd_below(&rng, FILES);
	if (x.op == 'M' || x.op == 'D')
		x.a = FILES + x.a % DIRS;
	if (x.op == 'S')
		x.a = FILES + DIRS + x.a % LINKS;
	if (x.op == 'L')
		x.a = LOG;
	n = &names[x.a];
	switch (x.op) {
	case 'C': case 'M': if (n->type != NONE) x.op = 0; break;
	case 'S': if (n->type != NONE) x.op = 'U'; break;
	case 'U': case 'D': if (n->type == NONE) x.op = 0; break;
	case 'R': if (n->type == NONE || x.a == x.b) x.op = 0; break;
	case 'W': case 'N':
		if (n->type != IS_FILE || (x.op == 'N' && !unsynced))
			x.op = 0;
		x.len = 1 + rnd_below(&rng, rnd_below(&rng, 12) ? 5000 : 600000);
		x.off = rnd_below(&rng, n->size + 3000);
		if (x.off + x.len > SIZE_MAX_FILE)
			x.op = 0;
		break;
	case 'A': case 'L':
		x.off = n->size;
		x.len = 1 + rnd_below(&rng, 3000);
		if (n->type != IS_FILE || x.off + x.len > SIZE_MAX_FILE)
			x.op = 0;
		break;
	case 'T':
		x.len = rnd_below(&rng, n->size + 2000);
		if (n->type != IS_FILE || x.len > SIZE_MAX_FILE)
			x.op = 0;
		break;
	case 'X': case 'P': if (n->type != IS_FILE) x.op = 0; break;
	}
	return x;
}

/* ---- doing it --------------------------------------------------------------------------------------- */
static int log_fd, ghost_fd, lock_fd;
static uint8_t io[SIZE_MAX_FILE];

static int write_all(const char *path, int flags, const struct action *x, bool sync)
{
	int fd = open(path, flags | O_CLOEXEC), rc = -1;

	if (fd < 0)
		return -1;
	pattern_fill(io, x->seed, x->off, x->len);
	errno = EIO;		/* of a short write */
	if ((flags & O_APPEND ? write(fd, io, x->len) : pwrite(fd, io, x->len, (off_t)x->off)) == (ssize_t)x->len)
		rc = sync ? fsync(fd) : 0;
	return close(fd) ? -1 : rc;
}

static int perform(const struct action *x)
{
	char text[64];
	int fd, rc;

	switch (x->op) {
	case 'C':
		fd = open(path_of(x->a), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
		return fd < 0 ? -1 : close(fd);
	case 'U': return unlink(path_of(x->a));
	case 'M': return mkdir(path_of(x->a), 0755);
	case 'D': return rmdir(path_of(x->a));
	case 'R': return rename(path_of(x->a), path_of(x->b));
	case 'S':
		snprintf(text, sizeof(text), "%llu", (unsigned long long)x->seed);
		return symlink(text, path_of(x->a));
	case 'W': return write_all(path_of(x->a), O_WRONLY, x, true);
	case 'N': return write_all(path_of(x->a), O_WRONLY, x, false);
	case 'A': return write_all(path_of(x->a), O_WRONLY | O_APPEND, x, true);
	case 'T':		/* a change of the size is data: durable with fsync */
		fd = open(path_of(x->a), O_WRONLY | O_CLOEXEC);
		if (fd < 0)
			return -1;
		rc = ftruncate(fd, (off_t)x->len) || (!unsynced && fsync(fd)) ? -1 : 0;
		return close(fd) ? -1 : rc;
	case 'X': return setxattr(path_of(x->a), "user.a", &x->seed, sizeof(x->seed), 0);
	case 'P': return chmod(path_of(x->a), 0600 | (x->seed & 0177));
	case 'L':
		pattern_fill(io, x->seed, x->off, x->len);
		errno = EIO;
		return write(log_fd, io, x->len) == (ssize_t)x->len ? fsync(log_fd) : -1;
	case 'G':		/* the file without a name still has its bytes */
		errno = EIO;
		if (pread(ghost_fd, io, 70000, 0) != 70000)
			return -1;
		for (size_t i = 0; i < 70000; i++)
			if (io[i] != pattern_byte(5, i)) {
				errno = EILSEQ;
				return -1;
			}
		return 0;
	case 'K':		/* the lock is still ours */
		fd = open(path_of(LOG), O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return -1;
		rc = flock(fd, LOCK_SH | LOCK_NB);
		if (rc == 0)
			errno = ENOLCK;
		rc = rc && errno == EWOULDBLOCK ? 0 : -1;
		if (close(fd))
			return -1;
		return rc;
	}
	errno = EINVAL;
	return -1;
}

static void on_term(int sig)
{
	(void)sig;
	stopping = 1;
}

static int run(void)
{
	struct sigaction sa = { .sa_handler = on_term, .sa_flags = SA_RESTART };
	int j = open(journal, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
	unsigned long long seq = 0;
	double longest = 0, t0;
	char line[160], what = '-';
	int rc = 0;

	if (j < 0)
		die("%s: %s", journal, strerror(errno));
	sigaction(SIGTERM, &sa, NULL);
	OK(mkdir(dir, 0755));
	log_fd = (int)OK(open(path_of(LOG), O_CREAT | O_EXCL | O_RDWR | O_APPEND | O_CLOEXEC, 0644));
	lock_fd = (int)OK(open(path_of(LOG), O_RDONLY | O_CLOEXEC));
	OK(flock(lock_fd, LOCK_EX));
	ghost_fd = (int)OK(open(path_of(0), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0644));
	pattern_fill(io, 5, 0, 70000);
	IS(write(ghost_fd, io, 70000), 70000);
	OK(unlink(path_of(0)));
	IS(write(j, "B 0 C 36 0 0 0 0\nE 0\n", 21), 21);	/* the log */
	names[LOG] = (struct name){ .type = IS_FILE, .mode = 0644 };
	_Static_assert(LOG == 36, "the line above names it");
	while (!stopping) {
		struct action x = choose();
		int n;

		if (!x.op)
			continue;
		n = snprintf(line, sizeof(line), "B %llu %c %u %u %zu %zu %llu\n", ++seq, x.op, x.a, x.b, x.off, x.len,
			     (unsigned long long)x.seed);
		IS(write(j, line, (size_t)n), n);
		t0 = now_s();
		rc = perform(&x);
		n = snprintf(line, sizeof(line), rc ? "F %llu %d\n" : "E %llu\n", seq, errno);
		IS(write(j, line, (size_t)n), n);
		if (now_s() - t0 > longest) {
			longest = now_s() - t0;
			what = x.op;
		}
		if (rc && errno == EINTR && stopping) {	/* our own end, while no server answers: as mount.claudefs(8) says */
			rc = 0;
			break;
		}
		if (rc) {
			printf("# operation %llu (%c %u) failed: %s, after %.1f s\n", seq, x.op, x.a, strerror(errno), now_s() - t0);
			break;
		}
		apply(names, &x);
	}
	printf("# %llu operations, longest %.1f s (%c)\nlongest_ms %.0f\n", seq, longest, what, longest * 1000);
	return rc ? 3 : 0;
}

/* ---- checking --------------------------------------------------------------------------------------- */
static struct name after[NAMES];	/* as names[], with the operation under way done too */
static char why[400];

static bool is_name(unsigned i, const struct name *n, const struct name *other, bool data_op)
{
	const char *path = path_of(i);
	struct stat st;
	uint64_t x = 0;
	char text[64] = "", wanted[64];
	ssize_t len;
	int fd;

	if (lstat(path, &st)) {
		if (n->type == NONE && errno == ENOENT)
			return true;
		snprintf(why, sizeof(why), "%s: %s", path, strerror(errno));
		return false;
	}
	if ((st.st_mode & S_IFMT) != (n->type == IS_FILE ? S_IFREG : n->type == IS_DIR ? S_IFDIR :
				      n->type == IS_LINK ? S_IFLNK : 0)) {
		snprintf(why, sizeof(why), "%s: mode %o, must %s", path, st.st_mode, n->type ? "be another type" : "not exist");
		return false;
	}
	if (n->type == IS_LINK) {
		len = readlink(path, text, sizeof(text) - 1);
		snprintf(wanted, sizeof(wanted), "%llu", (unsigned long long)n->target);
		snprintf(why, sizeof(why), "%s: leads to %s, not %s", path, text, wanted);
		return len > 0 && !strcmp(text, wanted);
	}
	if (n->type == IS_DIR)
		return true;
	if ((st.st_mode & 07777) != n->mode) {
		snprintf(why, sizeof(why), "%s: mode %o, not %o", path, st.st_mode, n->mode);
		return false;
	}
	len = getxattr(path, "user.a", &x, sizeof(x));
	if (n->xattr ? len != sizeof(x) || x != n->xattr : len != -1 || errno != ENODATA) {
		snprintf(why, sizeof(why), "%s: xattr %llu (%zd), not %llu", path, (unsigned long long)x, len,
			 (unsigned long long)n->xattr);
		return false;
	}
	/* data under way may be there in part: then `other` has the new size and bytes */
	if ((size_t)st.st_size != n->size &&
	    !(data_op && (size_t)st.st_size >= n->size && (size_t)st.st_size <= other->size)) {
		snprintf(why, sizeof(why), "%s: %lld bytes, not %zu", path, (long long)st.st_size, n->size);
		return false;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, io, sizeof(io)) != st.st_size) {
		snprintf(why, sizeof(why), "%s: cannot be read: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return false;
	}
	close(fd);
	for (size_t k = 0; k < (size_t)st.st_size; k++) {
		if (k < n->size && io[k] == n->bytes[k])
			continue;
		if (data_op && k < other->size && (io[k] == other->bytes[k] || (k >= n->size && io[k] == 0)))
			continue;
		snprintf(why, sizeof(why), "%s: byte %zu of %lld is %02x, not %02x%s", path, k, (long long)st.st_size, io[k],
			 k < n->size ? n->bytes[k] : 0, data_op ? " (a write was under way)" : "");
		return false;
	}
	return true;
}

static bool all_is(const struct name *state, const struct name *other, const struct action *under_way)
{
	for (unsigned i = 0; i < NAMES; i++) {
		bool data_op = under_way->op && strchr("WANL", under_way->op) && under_way->a == i;

		if (!is_name(i, &state[i], &other[i], data_op))
			return false;
	}
	return true;
}

static int check(void)
{
	struct action x = { 0 }, pending = { 0 };
	unsigned long long seq, done = 0, bad_seq = 0;
	FILE *f = fopen(journal, "re");
	char line[200], first[sizeof(why)];
	struct dirent *e;
	int known = 0, found = 0;
	DIR *d;

	if (!f)
		die("%s: %s", journal, strerror(errno));
	puts("1..1");
	while (fgets(line, sizeof(line), f)) {
		if (!strchr(line, '\n'))
			break;		/* killed while it wrote: the operation was not begun */
		if (sscanf(line, "B %llu %c %u %u %zu %zu %" SCNu64, &seq, &x.op, &x.a, &x.b, &x.off, &x.len, &x.seed) == 7) {
			if (x.a >= NAMES || x.b >= NAMES)
				die("journal: %s", line);
			pending = x;
		} else if (sscanf(line, "E %llu", &seq) == 1) {
			apply(names, &pending);
			pending.op = 0;
			done = seq;
		} else if (sscanf(line, "F %llu", &bad_seq) != 1) {
			die("journal: %s", line);
		}
	}
	fclose(f);
	for (unsigned i = 0; i < NAMES; i++) {
		after[i] = names[i];
		if (names[i].bytes) {
			after[i].bytes = malloc(SIZE_MAX_FILE);
			if (!after[i].bytes)
				die("out of memory");
			memcpy(after[i].bytes, names[i].bytes, SIZE_MAX_FILE);
		}
	}
	if (pending.op)
		apply(after, &pending);
	if (!all_is(names, after, &pending)) {
		strcpy(first, why);
		if (!pending.op || !all_is(after, after, &pending)) {
			printf("not ok 1 - %s: after %llu acknowledged operations\n# %s\n", dir, done, first);
			if (pending.op)
				printf("# under way was %c %u %u %zu %zu; with it done: %s\n", pending.op, pending.a, pending.b,
				       pending.off, pending.len, why);
			return 1;
		}
		memcpy(names, after, sizeof(names));
	}
	d = opendir(dir);
	if (!d)
		die("%s: %s", dir, strerror(errno));
	while ((e = readdir(d)))
		found += e->d_name[0] != '.';
	closedir(d);
	for (unsigned i = 0; i < NAMES; i++)
		known += names[i].type != NONE;
	if (known != found) {
		printf("not ok 1 - %s: lists %d names, not %d\n", dir, found, known);
		return 1;
	}
	printf("ok 1 - %s: %llu acknowledged operations are there\n", dir, done);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "journal", required_argument, NULL, 'j' }, { "dir", required_argument, NULL, 'd' },
		{ "seed", required_argument, NULL, 's' }, { "unsynced", no_argument, NULL, 'u' }, { 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		switch (c) {
		case 'j': journal = optarg; break;
		case 'd': dir = optarg; break;
		case 's': rng = strtoull(optarg, NULL, 0); break;
		case 'u': unsynced = true; break;
		default: return 2;
		}
	}
	umask(022);
	if (journal && dir && optind + 1 == argc && !strcmp(argv[optind], "run"))
		return run();
	if (journal && dir && optind + 1 == argc && !strcmp(argv[optind], "check"))
		return check();
	fprintf(stderr, "usage: ackload run|check --journal FILE --dir DIR [--seed N] [--unsynced]\n");
	return 2;
}
