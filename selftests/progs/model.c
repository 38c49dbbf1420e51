/* SPDX-License-Identifier: MIT */
/*
 * model.c - random operations on one or two mounts and, each one, on a plain directory, the oracle;
 * results, error codes, attributes, listings and contents must be the same.
 *
 *	model [--seed N] [--ops N] [--procs N] [--noise N] --dirs A [B] --oracle DIR
 *
 * Operations follow from the seed alone, never from results, so any subset of them can be run again. Several
 * processes work in lock-step (one operation at a time, the odd ones on B), so the oracle stays exact; `noise`
 * processes do other things beside in directories that nobody compares. On a mismatch the program looks for a
 * smaller set of operations that still fails, for at most SHRINK_SECONDS, and prints it.
 */
#include "prog.h"

#include <getopt.h>
#include <linux/falloc.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define PROCS_MAX 8
#define OPS_MAX 20000
#define SLOTS 3			/* open files of a process */
#define SHRINK_SECONDS 90
#define COMPARE_EVERY 100
#define IO_MAX 20000		/* bytes of one read or write */
#define FILE_MAX 300000		/* offsets */
#define OLD 1000000000		/* times before this second were set, others are the clock's */

enum kind {
	CREATE, OPEN, CLOSE, WRITE, READ, APPEND, TRUNCATE, FTRUNCATE, MKDIR, RMDIR, UNLINK, LINK, SYMLINK, READLINK,
	RENAME, CHMOD, CHOWN, UTIMENS, SETXATTR, GETXATTR, REMOVEXATTR, STAT, FSTAT, LIST, FALLOCATE, FSYNC, COPY,
	MKFIFO, TMPFILE, LINKTMP, MAPWRITE, MAPREAD, SUMFILE, ACCESS, FCHMOD, N_KINDS
};

/* how often; the sum does not matter */
static const uint8_t weight[N_KINDS] = {
	[CREATE] = 10, [OPEN] = 8, [CLOSE] = 4, [WRITE] = 10, [READ] = 8, [APPEND] = 4, [TRUNCATE] = 4,
	[FTRUNCATE] = 3, [MKDIR] = 8, [RMDIR] = 4, [UNLINK] = 6, [LINK] = 6, [SYMLINK] = 4, [READLINK] = 2,
	[RENAME] = 12, [CHMOD] = 4, [CHOWN] = 2, [UTIMENS] = 3, [SETXATTR] = 4, [GETXATTR] = 2, [REMOVEXATTR] = 2,
	[STAT] = 6, [FSTAT] = 4, [LIST] = 3, [FALLOCATE] = 4, [FSYNC] = 2, [COPY] = 3, [MKFIFO] = 1, [TMPFILE] = 2,
	[LINKTMP] = 2, [MAPWRITE] = 3, [MAPREAD] = 3, [SUMFILE] = 6, [ACCESS] = 2, [FCHMOD] = 1,
};
static const char *const kind_name[N_KINDS] = {
	"create", "open", "close", "write", "read", "append", "truncate", "ftruncate", "mkdir", "rmdir", "unlink", "link",
	"symlink", "readlink", "rename", "chmod", "chown", "utimens", "setxattr", "getxattr", "removexattr", "stat",
	"fstat", "list", "fallocate", "fsync", "copy", "mkfifo", "tmpfile", "linktmp", "mapwrite", "mapread",
	"sumfile", "access", "fchmod",
};

struct op {
	uint8_t kind, proc, slot, slot2, uid;
	uint8_t flags;
	char path[16], path2[16];
	uint32_t a, b;		/* meaning depends on kind: offset, length, mode ... */
};

/* what an operation gave, comparable */
struct result {
	long long rc;
	int err;
	uint64_t digest;	/* of the bytes or attributes it returned */
	char text[96];		/* the same for people */
};

static struct op ops[OPS_MAX];
static char world[2][2048], oracle_dir[2048];	/* where this run works */
static const char *base[2], *oracle_base;
static unsigned n_mounts, n_procs = 1, n_noise, n_ops = 1500, n_worked;
static uint64_t seed = 1;
static char message[8192];			/* of a mismatch, shared with the workers' parent */

/* ---- operations out of a seed --------------------------------------------------------------------- */
static void random_path(char *out, uint64_t *rng)
{
	unsigned depth = rnd_below(rng, 8) < 4 ? 1 : rnd_below(rng, 3) ? 2 : 3;

	*out = 0;
	for (unsigned i = 0; i < depth; i++) {
		char part[3] = { (char)('a' + rnd_below(rng, 7)), 0, 0 };

		if (i)
			strcat(out, "/");
		strcat(out, part);
	}
}

static void generate(void)
{
	uint64_t rng = seed * 7919 + 17;
	unsigned total = 0;

	for (unsigned k = 0; k < N_KINDS; k++)
		total += weight[k];
	for (unsigned i = 0; i < n_ops; i++) {
		struct op *op = &ops[i];
		unsigned w = (unsigned)rnd_below(&rng, total);

		memset(op, 0, sizeof(*op));
		while (w >= weight[op->kind])
			w -= weight[op->kind++];
		op->proc = (uint8_t)rnd_below(&rng, n_procs);
		op->slot = (uint8_t)rnd_below(&rng, SLOTS);
		op->slot2 = (uint8_t)rnd_below(&rng, SLOTS);
		op->uid = rnd_below(&rng, 8) == 0;
		op->flags = (uint8_t)rnd_below(&rng, 256);
		random_path(op->path, &rng);
		random_path(op->path2, &rng);
		op->a = (uint32_t)(rnd_below(&rng, 4) ? rnd_below(&rng, 10000) : rnd_below(&rng, FILE_MAX));
		op->b = (uint32_t)(rnd_below(&rng, 3) ? rnd_below(&rng, 3000) : rnd_below(&rng, IO_MAX));
	}
}

static void print_op(unsigned i)
{
	const struct op *o = &ops[i];

	printf("#   %5u proc %u %-11s %s %s slot %u %u uid %u flags %#x a %u b %u\n", i, o->proc, kind_name[o->kind],
	       o->path, o->path2, o->slot, o->slot2, o->uid, o->flags, o->a, o->b);
}

/* ---- digests --------------------------------------------------------------------------------------- */
static uint64_t digest(uint64_t h, const void *p, size_t len)
{
	const uint8_t *b = p;

	for (size_t i = 0; i < len; i++)
		h = (h ^ b[i]) * 0x100000001b3ull;
	return h;
}

static uint64_t digest_fd(int fd, long long *ret_bytes)
{
	static uint8_t buf[65536];
	uint64_t h = 0xcbf29ce484222325ull;
	off_t off = 0;
	ssize_t n;

	while ((n = pread(fd, buf, sizeof(buf), off)) > 0) {
		h = digest(h, buf, (size_t)n);
		off += n;
	}
	*ret_bytes = n < 0 ? -1 : off;
	return h;
}

static void stat_result(struct result *r, const struct stat *st)
{
	bool old = st->st_mtim.tv_sec < OLD;

	snprintf(r->text, sizeof(r->text), "mode %o links %lu owner %u:%u size %lld mtime %lld", st->st_mode,
		 (unsigned long)st->st_nlink, st->st_uid, st->st_gid,
		 S_ISDIR(st->st_mode) ? 0ll : (long long)st->st_size, old ? (long long)ns_of(st->st_mtim) : -1ll);
	r->digest = digest(0, r->text, strlen(r->text));
}

/* sorted names of a directory with their types */
static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list_names(DIR *d, char **names, int max)
{
	struct dirent *e;
	int n = 0;

	while ((e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && n < max)
			names[n++] = strdup(e->d_name);
	qsort(names, (size_t)n, sizeof(*names), by_name);
	return n;
}

static long long list_dir(const char *path, struct result *r)
{
	char *names[256];
	DIR *d = opendir(path);
	int n;

	if (!d)
		return -1;
	n = list_names(d, names, 256);
	closedir(d);
	r->text[0] = 0;
	for (int i = 0; i < n; i++) {
		if (strlen(r->text) + strlen(names[i]) + 2 < sizeof(r->text)) {
			strcat(r->text, names[i]);
			strcat(r->text, " ");
		}
		r->digest = digest(r->digest, names[i], strlen(names[i]) + 1);
		free(names[i]);
	}
	return n;
}

/* ---- one operation, in one world ------------------------------------------------------------------- */
struct side {			/* a process's open files in one world */
	const char *root;
	int fd[SLOTS];
	bool tmp[SLOTS];	/* from O_TMPFILE, never had a name */
};

static long long do_map(int fd, const struct op *op, bool store, struct result *r)
{
	struct stat st;
	long long rc;
	uint8_t *map;
	size_t len;

	if (fstat(fd, &st))
		return -1;
	if (st.st_size <= (off_t)op->a)
		return 0;
	len = (size_t)st.st_size < op->a + op->b ? (size_t)st.st_size - op->a : op->b;
	if (!len)
		return 0;
	map = mmap(NULL, op->a + len, PROT_READ | (store ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -1;
	rc = (long long)len;
	if (store) {
		pattern_fill(map + op->a, op->b, op->a, len);
		if (msync(map, op->a + len, MS_SYNC))
			rc = -1;
	} else {
		r->digest = digest(0, map + op->a, len);
	}
	munmap(map, op->a + len);
	return rc;
}

static long long do_copy(int in, int out, const struct op *op)
{
	off_t from = op->a, to = op->b;
	size_t left = 5000 + op->flags * 100u;
	long long done = 0;
	struct stat st;

	if (fstat(in, &st))	/* kernels bound a copy by the size they last saw */
		return -1;
	while (left) {
		ssize_t n = copy_file_range(in, &from, out, &to, left, 0);

		if (n < 0)
			return done ? done : -1;
		if (n == 0)
			break;
		done += n;
		left -= (size_t)n;
	}
	return done;
}

/* Only regular files stay open: of others that lose their name a FUSE daemon cannot know that they are open. */
static void set_slot(struct side *s, unsigned slot, int fd)
{
	struct stat st;

	if (fd < 0)
		return;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		fd = -1;
	}
	if (s->fd[slot] >= 0)
		close(s->fd[slot]);
	s->fd[slot] = fd;
	s->tmp[slot] = false;
}

static long long act(struct side *s, const struct op *op, struct result *r)
{
	static const int rename_flags[] = { 0, 0, 0, 1 /* NOREPLACE */, 2 /* EXCHANGE */ };
	static const int falloc_modes[] = { FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE, 0,
					    FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE };
	static uint8_t buf[IO_MAX + 1];
	char p[2200], q[2200], name[32];
	int fd = s->fd[op->slot], mode = op->a & 0777, how;
	struct stat st;
	long long rc;

	snprintf(p, sizeof(p), "%s/%s", s->root, op->path);
	snprintf(q, sizeof(q), "%s/%s", s->root, op->path2);
	snprintf(name, sizeof(name), "user.%c", 'a' + op->flags % 5);
	switch ((enum kind)op->kind) {
	case CREATE:
		how = O_CREAT | O_RDWR | O_CLOEXEC | (op->flags & 1 ? O_EXCL : 0) | (op->flags & 2 ? O_TRUNC : 0);
		rc = open(p, how | O_NONBLOCK, (op->flags & 4 ? mode : 0666) | 0600);
		set_slot(s, op->slot, (int)rc);
		return rc < 0 ? -1 : 0;
	case OPEN:
		how = (op->flags & 1 ? O_RDONLY : O_RDWR) | (op->flags & 2 ? O_APPEND : 0) |
		      (op->flags & 12 ? 0 : O_TRUNC) | (op->flags & 16 ? O_NOFOLLOW : 0);
		rc = open(p, how | O_NONBLOCK | O_CLOEXEC);
		set_slot(s, op->slot, (int)rc);
		return rc < 0 ? -1 : 0;
	case CLOSE:
		if (fd < 0)
			return 0;
		s->fd[op->slot] = -1;
		return close(fd);
	case WRITE:
		if (fd < 0)
			return 0;
		pattern_fill(buf, op->flags, op->a, op->b);
		return pwrite(fd, buf, op->b, op->a);
	case READ:
		if (fd < 0)
			return 0;
		rc = pread(fd, buf, op->b, op->a);
		r->digest = rc > 0 ? digest(0, buf, (size_t)rc) : 0;
		return rc;
	case APPEND:
		fd = open(p, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return -1;
		pattern_fill(buf, op->flags, 0, op->b);
		rc = write(fd, buf, op->b);
		return close(fd) ? -2 : rc;
	case TRUNCATE:
		return truncate(p, op->a);
	case FTRUNCATE:
		return fd < 0 ? 0 : ftruncate(fd, op->a);
	case MKDIR:
		return mkdir(p, (op->flags & 1 ? 0777 : mode | 0700) | (op->flags & 14 ? 0 : 02000));
	case RMDIR:
		return rmdir(p);
	case UNLINK:
		return unlink(p);
	case LINK:
		return linkat(AT_FDCWD, p, AT_FDCWD, q, op->flags & 1 ? AT_SYMLINK_FOLLOW : 0);
	case SYMLINK:
		return symlink(op->path2, p);
	case READLINK:
		rc = readlink(p, (char *)buf, sizeof(buf));
		r->digest = rc > 0 ? digest(0, buf, (size_t)rc) : 0;
		return rc;
	case RENAME:
		rc = syscall(SYS_renameat2, AT_FDCWD, p, AT_FDCWD, q, rename_flags[op->flags % N_OF(rename_flags)]);
		if (rc < 0 && errno == ESTALE) {	/* what another mount moved: docs/semantics.md */
			lstat(p, &st);
			lstat(q, &st);
			rc = syscall(SYS_renameat2, AT_FDCWD, p, AT_FDCWD, q, rename_flags[op->flags % N_OF(rename_flags)]);
		}
		return rc;
	case CHMOD:
		/* set-gid without group x means nothing; what takes it away differs */
		mode = op->flags & 1 ? 0777 : (int)(op->a & 07777);
		return chmod(p, (mode_t)(mode & 02000 ? mode | 010 : mode));
	case CHOWN:
		return lchown(p, op->a % 3 ? 1000 + op->a % 3 : 0, op->b % 3 ? 1000 + op->b % 3 : 0);
	case UTIMENS: {
		struct timespec ts[2] = { { op->b, op->a }, { op->a, op->b } };

		if (op->flags % 5 == 0)
			ts[1].tv_nsec = UTIME_OMIT;
		return utimensat(AT_FDCWD, p, ts, op->flags & 64 ? AT_SYMLINK_NOFOLLOW : 0);
	}
	case SETXATTR:
		pattern_fill(buf, op->flags, op->a, 100);
		return setxattr(p, name, buf, op->b % 100, op->flags % 7 < 3 ? op->flags % 7 : 0);
	case GETXATTR:
		rc = getxattr(p, name, buf, op->flags & 32 ? 20 : 200);
		r->digest = rc > 0 ? digest(0, buf, (size_t)rc) : 0;
		return rc;
	case REMOVEXATTR:
		return removexattr(p, name);
	case STAT:
		rc = op->flags & 1 ? stat(p, &st) : lstat(p, &st);
		if (!rc)
			stat_result(r, &st);
		return rc;
	case FSTAT:
		rc = fd < 0 ? 0 : fstat(fd, &st);
		if (fd >= 0 && !rc)
			stat_result(r, &st);
		return rc;
	case LIST:
		if (op->flags & 1)
			snprintf(p, sizeof(p), "%s", s->root);
		return list_dir(p, r);
	case FALLOCATE:
		if (fd < 0)
			return 0;
		return fallocate(fd, falloc_modes[op->flags % N_OF(falloc_modes)], op->a, op->b + 1);
	case FSYNC:
		if (fd < 0)
			return 0;
		rc = fsync(fd);
		if (!rc && op->flags & 1)
			posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		return rc;
	case COPY:
		if (fd < 0 || s->fd[op->slot2] < 0 || op->slot == op->slot2)
			return 0;
		return do_copy(fd, s->fd[op->slot2], op);
	case MKFIFO:
		return mkfifo(p, 0644);
	case TMPFILE:
		snprintf(p, sizeof(p), "%s%s%s", s->root, op->flags & 1 ? "/" : "", op->flags & 1 ? op->path : "");
		rc = open(p, O_TMPFILE | O_RDWR | O_CLOEXEC, 0644);
		set_slot(s, op->slot, (int)rc);
		if (rc >= 0)
			s->tmp[op->slot] = true;
		return rc < 0 ? -1 : 0;
	case LINKTMP:	/* of others that lost their name on another mount the kernel does not know it */
		if (fd < 0 || !s->tmp[op->slot])
			return 0;
		snprintf(p, sizeof(p), "/proc/self/fd/%d", fd);
		rc = linkat(AT_FDCWD, p, AT_FDCWD, q, AT_SYMLINK_FOLLOW);
		s->tmp[op->slot] = rc < 0;
		return rc;
	case MAPWRITE:
	case MAPREAD:
		return fd < 0 ? 0 : do_map(fd, op, op->kind == MAPWRITE, r);
	case SUMFILE:
		fd = open(p, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0)
			return -1;
		if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
			r->digest = digest_fd(fd, &rc);
		else
			rc = 0;
		close(fd);
		return rc;
	case ACCESS:
		return access(p, op->flags & 7);
	case FCHMOD:	/* the kernel checks the owner that it knows: docs/semantics.md */
		return fd < 0 || fstat(fd, &st) ? 0 : fchmod(fd, (mode_t)mode);
	case N_KINDS:
		break;
	}
	return 0;
}

static struct result perform(struct side *s, const struct op *op)
{
	struct result r = { 0 };

	if (op->uid) {
		setfsgid(1001);
		setfsuid(1001);
	}
	errno = 0;
	r.rc = act(s, op, &r);
	r.err = r.rc < 0 ? errno : 0;
	if (op->uid) {
		setfsuid(0);
		setfsgid(0);
	}
	return r;
}

/* Error codes that mean the same. */
static int canonical(int err)
{
	return err == EEXIST ? ENOTEMPTY : err;
}

/* ---- comparing whole trees ------------------------------------------------------------------------- */
struct line {			/* one file as it must be, in words */
	char path[64];
	char text[512];
	ino_t ino;
	nlink_t links;
};
#define LINES_MAX 4096

static void describe(const char *path, const struct stat *st, char *text, size_t len)
{
	char list[2048], value[256];
	struct result r = { 0 };
	long long bytes = 0;
	uint64_t h = 0;
	ssize_t n;
	int fd;

	stat_result(&r, st);
	if (S_ISREG(st->st_mode)) {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		h = fd < 0 ? (uint64_t)errno : digest_fd(fd, &bytes);
		if (fd >= 0)
			close(fd);
	} else if (S_ISLNK(st->st_mode)) {
		n = readlink(path, value, sizeof(value));
		h = n < 0 ? (uint64_t)errno : digest(0, value, (size_t)n);
	}
	n = snprintf(text, len, "%s read %lld content %016llx", r.text, bytes, (unsigned long long)h);
	h = 0;
	if (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode)) {
		ssize_t ln = listxattr(path, list, sizeof(list)), sum = 0;

		for (char *p = list; ln > 0 && p < list + ln; p += strlen(p) + 1) {
			ssize_t vn;

			if (strncmp(p, "user.", 5))
				continue;
			vn = getxattr(path, p, value, sizeof(value));
			/* the order of names is nobody's business */
			h += digest(digest(0, p, strlen(p)), value, vn > 0 ? (size_t)vn : 0);
			sum++;
		}
		snprintf(text + n, len - (size_t)n, " xattrs %zd %016llx", ln < 0 ? -(ssize_t)errno : sum,
			 (unsigned long long)h);
	}
}

static unsigned walk(const char *root, const char *rel, struct line *lines, unsigned n)
{
	char path[2200], *names[256];
	struct stat st;
	DIR *d;
	int k;

	snprintf(path, sizeof(path), "%s/%s", root, rel);
	d = opendir(path);
	if (!d) {
		snprintf(lines[n].path, sizeof(lines[n].path), "%s", rel);
		snprintf(lines[n].text, sizeof(lines[n].text), "opendir: %s", strerror(errno));
		return n + 1;
	}
	k = list_names(d, names, 256);
	closedir(d);
	for (int i = 0; i < k; i++) {
		char sub[64];

		snprintf(sub, sizeof(sub), "%s%s%s", rel, *rel ? "/" : "", names[i]);
		snprintf(path, sizeof(path), "%s/%s", root, sub);
		free(names[i]);
		if (n + 2 >= LINES_MAX)
			continue;
		memset(&lines[n], 0, sizeof(lines[n]));
		snprintf(lines[n].path, sizeof(lines[n].path), "%s", sub);
		if (lstat(path, &st)) {
			snprintf(lines[n].text, sizeof(lines[n].text), "lstat: %s", strerror(errno));
			n++;
			continue;
		}
		describe(path, &st, lines[n].text, sizeof(lines[n].text));
		lines[n].ino = st.st_ino;
		lines[n].links = S_ISDIR(st.st_mode) ? 0 : st.st_nlink;
		/* the first name of an inode stands for it */
		for (unsigned j = 0; lines[n].links > 1 && j < n; j++)
			if (lines[j].ino == st.st_ino && lines[j].links) {
				snprintf(lines[n].text + strlen(lines[n].text), 100, " same as %s", lines[j].path);
				break;
			}
		n++;
		if (S_ISDIR(st.st_mode))
			n = walk(root, sub, lines, n);
	}
	return n;
}

static bool trees_equal(unsigned at)
{
	static struct line want[LINES_MAX], got[LINES_MAX];
	unsigned nw = walk(oracle_dir, "", want, 0);

	for (unsigned m = 0; m < n_mounts; m++) {
		unsigned ng = walk(world[m], "", got, 0);

		for (unsigned i = 0; i < nw || i < ng; i++) {
			if (i < nw && i < ng && !strcmp(want[i].path, got[i].path) && !strcmp(want[i].text, got[i].text))
				continue;
			snprintf(message, sizeof(message),
				 "after operation %u the trees differ:\n#   mount %u:  %s: %s\n#   oracle:   %s: %s", at, m,
				 i < ng ? got[i].path : "-", i < ng ? got[i].text : "no more names",
				 i < nw ? want[i].path : "-", i < nw ? want[i].text : "no more names");
			return false;
		}
	}
	return true;
}

/* ---- workers ------------------------------------------------------------------------------------------ */
struct worker {
	pid_t pid;
	int to, from;
};

struct order {
	unsigned op;
	bool compare;
};

struct answer {
	bool same, worked;
	char message[sizeof(message)];
};

static bool op_matches(struct side *mine, struct side *theirs, unsigned i, unsigned proc, bool *ret_worked)
{
	struct result a = perform(mine, &ops[i]), b = perform(theirs, &ops[i]);

	*ret_worked = b.rc >= 0;
	if (a.rc == b.rc && canonical(a.err) == canonical(b.err) && a.digest == b.digest)
		return true;
	snprintf(message, sizeof(message),
		 "operation %u (%s %s %s, process %u): mount gave %lld (%s) %016llx %s\n#   the oracle gave %lld (%s) %016llx %s",
		 i, kind_name[ops[i].kind], ops[i].path, ops[i].path2, proc, a.rc, strerror(a.err),
		 (unsigned long long)a.digest, a.text, b.rc, strerror(b.err), (unsigned long long)b.digest, b.text);
	return false;
}

static void work(unsigned proc, int in, int out)
{
	struct side mine = { .root = world[proc % n_mounts] }, theirs = { .root = oracle_dir };
	static struct answer ans;
	struct order o;

	for (unsigned i = 0; i < SLOTS; i++)
		mine.fd[i] = theirs.fd[i] = -1;
	umask(022);
	while (read(in, &o, sizeof(o)) == sizeof(o)) {
		message[0] = 0;
		ans.worked = false;
		ans.same = o.compare ? trees_equal(o.op) : op_matches(&mine, &theirs, o.op, proc, &ans.worked);
		memcpy(ans.message, message, sizeof(message));
		if (write(out, &ans, sizeof(ans)) != sizeof(ans))
			break;
	}
	_exit(0);
}

static void start_worker(struct worker *w, unsigned proc, const struct worker *others)
{
	int to[2], from[2];

	if (pipe(to) || pipe(from))
		die("pipe: %s", strerror(errno));
	fflush(stdout);
	w->pid = fork();
	if (w->pid < 0)
		die("fork: %s", strerror(errno));
	if (w->pid == 0) {
		for (unsigned i = 0; i < proc; i++) {	/* else its pipe would not end with its parent's */
			close(others[i].to);
			close(others[i].from);
		}
		close(to[1]);
		close(from[0]);
		work(proc, to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	w->to = to[1];
	w->from = from[0];
}

static bool order(struct worker *w, unsigned op, bool compare)
{
	static struct answer ans;
	struct order o = { op, compare };
	size_t got = 0;
	ssize_t n;

	if (write(w->to, &o, sizeof(o)) != sizeof(o))
		die("a worker is gone");
	while (got < sizeof(ans) && (n = read(w->from, (char *)&ans + got, sizeof(ans) - got)) > 0)
		got += (size_t)n;
	if (got < sizeof(ans))
		die("a worker ended at operation %u (%s)", op, kind_name[ops[op].kind]);
	if (!ans.same)
		memcpy(message, ans.message, sizeof(message));
	n_worked += ans.worked;
	return ans.same;
}

/*
 * Runs those operations whose `use` is set, in fresh directories. Returns the index of the
 * operation after which a mismatch was found, or -1.
 */
static long run(const bool *use, unsigned last, unsigned every)
{
	static unsigned run_no;
	struct worker w[PROCS_MAX];
	unsigned done = 0;
	long bad = -1;
	int st;

	run_no++;
	for (unsigned m = 0; m < n_mounts; m++)
		snprintf(world[m], sizeof(world[m]), "%s/model.%llu.%u", base[m], (unsigned long long)seed, run_no);
	snprintf(oracle_dir, sizeof(oracle_dir), "%s/model.%llu.%u", oracle_base, (unsigned long long)seed, run_no);
	if (mkdir(world[0], 0755) || mkdir(oracle_dir, 0755))
		die("mkdir %s: %s", world[0], strerror(errno));
	chmod(world[0], 0777);
	chmod(oracle_dir, 0777);
	for (unsigned p = 0; p < n_procs; p++)
		start_worker(&w[p], p, w);
	for (unsigned i = 0; i <= last && bad < 0; i++) {
		if (!use[i])
			continue;
		if (!order(&w[ops[i].proc], i, false))
			bad = i;
		else if (++done % every == 0 && !order(&w[i % n_procs], i, true))
			bad = i;
	}
	if (bad < 0 && !order(&w[0], last, true))
		bad = last;
	for (unsigned p = 0; p < n_procs; p++) {
		close(w[p].to);
		close(w[p].from);
	}
	for (unsigned p = 0; p < n_procs; p++)
		if (waitpid(w[p].pid, &st, 0) == w[p].pid && st)
			die("worker %u: status %x", p, st);
	if (bad < 0) {
		remove_tree(world[0]);
		remove_tree(oracle_dir);
		if (access(world[0], F_OK) == 0)
			die("%s could not be removed", world[0]);
	}
	return bad;
}

/* Delta debugging: ever smaller pieces are left out as long as it still fails. */
static void shrink(bool *use, unsigned last)
{
	static bool tryout[OPS_MAX];
	double end = now_s() + SHRINK_SECONDS;
	unsigned left = 0, every = COMPARE_EVERY;	/* comparing disturbs what is cached */
	long bad;

	memset(use, 0, OPS_MAX * sizeof(*use));
	for (unsigned i = 0; i <= last; i++)
		use[i] = true;
	bad = run(use, last, every);
	if (bad < 0) {
		every = 1;
		bad = run(use, last, every);
	}
	if (bad < 0) {
		printf("# the same operations did not fail a second time: a race, or noise plays a part\n");
		return;
	}
	last = (unsigned)bad;
	for (unsigned piece = (last + 2) / 2; piece >= 1 && now_s() < end; piece /= 2) {
		for (unsigned at = 0; at <= last && now_s() < end; at += piece) {
			bool any = false;

			memcpy(tryout, use, sizeof(tryout));
			for (unsigned i = at; i < at + piece && i <= last; i++) {
				any |= tryout[i];
				tryout[i] = false;
			}
			if (!any)
				continue;
			bad = run(tryout, last, every);
			if (bad >= 0) {
				memcpy(use, tryout, sizeof(tryout));
				last = (unsigned)bad;
			}
		}
	}
	for (unsigned i = 0; i <= last; i++)
		left += use[i];
	printf("# smallest set found: %u operations; it ends with: ", left);
	bad = run(use, last, every);
	printf("%s\n", bad < 0 ? "nothing wrong (it does not always fail)" : message);
	for (unsigned i = 0; i <= last; i++)
		if (use[i])
			print_op(i);
}

/* ---- noise ---------------------------------------------------------------------------------------------- */
static void noise(unsigned n)
{
	char dir[2100], a[2200], b[2200], buf[5000];
	uint64_t rng = seed * 31 + n;
	struct result r = { 0 };

	snprintf(dir, sizeof(dir), "%s/noise.%llu", base[n % n_mounts], (unsigned long long)seed);
	mkdir(dir, 0755);
	memset(buf, 'n', sizeof(buf));
	for (;;) {
		int fd;

		snprintf(a, sizeof(a), "%s/%llu", dir, (unsigned long long)rnd_below(&rng, 20));
		snprintf(b, sizeof(b), "%s/%llu", dir, (unsigned long long)rnd_below(&rng, 20));
		switch (rnd_below(&rng, 6)) {
		case 0: case 1:
			fd = open(a, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
			if (fd >= 0) {
				if (pwrite(fd, buf, rnd_below(&rng, sizeof(buf)), (off_t)rnd_below(&rng, 100000)) < 0)
					usleep(1000);
				close(fd);
			}
			break;
		case 2: unlink(a); break;
		case 3: rename(a, b); break;
		case 4: link(a, b); break;
		case 5: list_dir(dir, &r); break;
		}
		usleep(2000);
	}
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "seed", required_argument, NULL, 's' }, { "ops", required_argument, NULL, 'o' },
		{ "procs", required_argument, NULL, 'p' }, { "noise", required_argument, NULL, 'n' },
		{ "dirs", required_argument, NULL, 'd' }, { "oracle", required_argument, NULL, 'O' }, { 0 },
	};
	static bool use[OPS_MAX];
	pid_t noisy[PROCS_MAX];
	double t0 = now_s();
	char dir[2100];
	long bad;
	int c;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		switch (c) {
		case 's': seed = strtoull(optarg, NULL, 0); break;
		case 'o': n_ops = (unsigned)atoi(optarg); break;
		case 'p': n_procs = (unsigned)atoi(optarg); break;
		case 'n': n_noise = (unsigned)atoi(optarg); break;
		case 'O': oracle_base = optarg; break;
		case 'd':
			base[n_mounts++] = optarg;
			if (optind < argc && argv[optind][0] != '-')
				base[n_mounts++] = argv[optind++];
			break;
		default: return 2;
		}
	}
	if (!n_mounts || n_mounts > 2 || !oracle_base || n_ops < 1 || n_ops > OPS_MAX || n_procs < 1 ||
	    n_procs > PROCS_MAX || n_noise > PROCS_MAX) {
		fprintf(stderr, "usage: model [--seed N] [--ops N] [--procs N] [--noise N] --dirs A [B] --oracle DIR\n");
		return 2;
	}
	puts("1..1");
	signal(SIGPIPE, SIG_IGN);
	umask(022);
	generate();
	for (unsigned i = 0; i < n_noise; i++) {
		fflush(stdout);
		noisy[i] = fork();
		if (noisy[i] == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			noise(i);
		}
	}
	memset(use, 1, sizeof(use));
	bad = run(use, n_ops - 1, COMPARE_EVERY);
	if (bad >= 0) {
		printf("not ok 1 - seed %llu: %u processes on %u mounts\n# %s\n", (unsigned long long)seed, n_procs,
		       n_mounts, message);
		fflush(stdout);
		shrink(use, (unsigned)bad);
	}
	for (unsigned i = 0; i < n_noise; i++) {
		kill(noisy[i], SIGKILL);
		waitpid(noisy[i], NULL, 0);
	}
	snprintf(dir, sizeof(dir), "%s/noise.%llu", base[0], (unsigned long long)seed);
	remove_tree(dir);
	if (bad < 0)
		printf("ok 1 - seed %llu: %u operations of %u processes on %u mounts, %u beside\n"
		       "# %.0f operations/s, %u of them without an error\n", (unsigned long long)seed, n_ops, n_procs,
		       n_mounts, n_noise, n_ops / (now_s() - t0), n_worked);
	return bad >= 0;
}
