/* SPDX-License-Identifier: MIT */
/*
 * recorder.c - what a server writes to its store, in order, so that any power cut can be played back.
 *
 *	recorder mount FILE LOG DIR [WITNESS...]
 *		a FUSE file system with one file, DIR/store.img, kept in FILE. Each write, flush and hole is appended to LOG, with
 *		the sizes that the WITNESS files (journals of ackload) had when it came in: what they say up to there was
 *		acknowledged before. Runs until unmounted; one thread, so the log has one order.
 *	recorder info LOG
 *		prints how many records there are, and how many of each kind.
 *	recorder replay LOG IMAGE COUNT SEED
 *		turns IMAGE, a copy of what FILE was at first, into what a drive would have after a power cut that came with the COUNT-th record: what was flushed or
 *		written durably (O_DSYNC) before is there; of each other write nothing, all, or some of its sectors, by SEED (0: all).
 *		Prints the sizes of the witnesses.
 *
 * FUSE_WRITE carries O_DSYNC when the write was RWF_DSYNC: durable is then this write alone, as with a drive's FUA.
 */
#define FUSE_USE_VERSION 317
#include "prog.h"

#include <fuse_lowlevel.h>
#include <linux/falloc.h>

#define NAME "store.img"
#define INO 2
#define WITNESSES 8
#define WRITE_MAX (1u << 20)
#define SECTOR 512u

enum kind { WRITE = 1, DURABLE, FLUSH, HOLE, KINDS };

struct record {			/* in LOG, followed by the bytes of a write */
	uint32_t kind, len;
	uint64_t off;
	uint64_t seen[WITNESSES];
};

static int store = -1, logfile = -1;
static const char *const *witness;
static unsigned n_witnesses;
static uint8_t bytes[WRITE_MAX];

/* ---- recording ----------------------------------------------------------------------------------- */
static void note(enum kind kind, uint64_t off, uint32_t len, const void *data)
{
	struct record r = { .kind = kind, .len = len, .off = off };
	struct stat st;

	for (unsigned i = 0; i < n_witnesses; i++)
		if (!stat(witness[i], &st))
			r.seen[i] = (uint64_t)st.st_size;
	IS(write(logfile, &r, sizeof(r)), sizeof(r));
	if (data)
		IS(write(logfile, data, len), len);
}

static void attr_of(fuse_ino_t ino, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	if (ino == INO) {
		OK(fstat(store, st));
	} else {
		st->st_mode = S_IFDIR | 0755;
		st->st_nlink = 2;
	}
	st->st_ino = ino;
}

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = { .ino = INO, .attr_timeout = 60, .entry_timeout = 60 };

	if (parent != FUSE_ROOT_ID || strcmp(name, NAME)) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	attr_of(INO, &e.attr);
	fuse_reply_entry(req, &e);
}

static void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	attr_of(ino, &st);
	fuse_reply_attr(req, &st, 60);
}

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (ino != INO) {
		fuse_reply_err(req, EISDIR);
		return;
	}
	fi->direct_io = 1;
	fi->parallel_direct_writes = 1;
	fuse_reply_open(req, fi);
}

static void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	ssize_t n = pread(store, bytes, size < sizeof(bytes) ? size : sizeof(bytes), off);

	(void)ino;
	(void)fi;
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, (const char *)bytes, (size_t)n);
}

static void do_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)ino;
	note(fi->flags & O_DSYNC ? DURABLE : WRITE, (uint64_t)off, (uint32_t)size, buf);
	IS(pwrite(store, buf, size, off), (ssize_t)size);
	fuse_reply_write(req, size);
}

static void do_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	note(FLUSH, 0, 0, NULL);
	fuse_reply_err(req, 0);
}

static void do_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	if (mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) || len > UINT32_MAX) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	note(HOLE, (uint64_t)off, (uint32_t)len, NULL);
	fuse_reply_err(req, fallocate(store, mode, off, len) ? errno : 0);
}

static const struct fuse_lowlevel_ops ops = {
	.lookup = do_lookup, .getattr = do_getattr, .open = do_open, .read = do_read, .write = do_write, .fsync = do_fsync,
	.fallocate = do_fallocate,
};

static int do_mount(const char *file, const char *log, const char *dir)
{
	char *argv[] = { (char *)"recorder", (char *)"-o", (char *)"fsname=recorder", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	struct fuse_session *se;
	int rc = 1;

	store = (int)OK(open(file, O_RDWR | O_CLOEXEC));
	logfile = (int)OK(open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
	se = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (se && !fuse_set_signal_handlers(se)) {
		if (!fuse_session_mount(se, dir)) {
			rc = fuse_session_loop(se) < 0;
			fuse_session_unmount(se);
		}
		fuse_remove_signal_handlers(se);
	}
	if (se)
		fuse_session_destroy(se);
	fuse_opt_free_args(&args);
	return rc;
}

/* ---- playing back -------------------------------------------------------------------------------- */
static bool next(int fd, struct record *r)
{
	ssize_t n = read(fd, r, sizeof(*r));

	if (n == 0)
		return false;
	if (n != (ssize_t)sizeof(*r) || r->kind < WRITE || r->kind >= KINDS ||
	    ((r->kind == WRITE || r->kind == DURABLE) && r->len > WRITE_MAX))
		die("the log is damaged");
	if (r->kind == WRITE || r->kind == DURABLE)
		IS(read(fd, bytes, r->len), (ssize_t)r->len);
	return true;
}

static int info(const char *log)
{
	unsigned long n[KINDS] = { 0 };
	int fd = (int)OK(open(log, O_RDONLY | O_CLOEXEC));
	struct record r;

	while (next(fd, &r))
		n[r.kind]++;
	printf("%lu records: %lu writes, %lu durable writes, %lu flushes, %lu holes\n", n[WRITE] + n[DURABLE] + n[FLUSH] + n[HOLE],
	       n[WRITE], n[DURABLE], n[FLUSH], n[HOLE]);
	close(fd);
	return 0;
}

/* what a write left that was in a drive's cache: nothing, all, or some sectors */
static void maybe_put(int out, const struct record *r, uint64_t *rng)
{
	unsigned fate = *rng ? (unsigned)rnd_below(rng, 3) : 1;

	if (fate == 0)
		return;
	for (uint32_t at = 0; at < r->len; at += SECTOR) {
		uint32_t len = r->len - at < SECTOR ? r->len - at : SECTOR;

		if (fate == 1 || rnd_below(rng, 2))
			IS(pwrite(out, bytes + at, len, (off_t)(r->off + at)), len);
	}
}

static int replay(const char *log, const char *out_path, unsigned long count, uint64_t seed)
{
	int fd = (int)OK(open(log, O_RDONLY | O_CLOEXEC)), out = (int)OK(open(out_path, O_WRONLY | O_CLOEXEC));
	unsigned long flushed = 0, i = 0;
	struct record r = { 0 };

	while (++i < count && next(fd, &r))
		if (r.kind == FLUSH)
			flushed = i;
	OK(lseek(fd, 0, SEEK_SET));
	for (i = 1; i <= count && next(fd, &r); i++) {
		if (r.kind == HOLE) {
			OK(fallocate(out, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)r.off, r.len));
		} else if (r.kind != FLUSH) {
			if (i < count && (i < flushed || r.kind == DURABLE))
				IS(pwrite(out, bytes, r.len, (off_t)r.off), (ssize_t)r.len);
			else
				maybe_put(out, &r, &seed);
		}
	}
	for (unsigned w = 0; w < WITNESSES; w++)
		printf("%llu%c", (unsigned long long)r.seen[w], w + 1 < WITNESSES ? ' ' : '\n');
	close(fd);
	OK(close(out));
	return 0;
}

int main(int argc, char **argv)
{
	if (argc >= 5 && !strcmp(argv[1], "mount") && argc - 5 <= WITNESSES) {
		witness = (const char *const *)argv + 5;
		n_witnesses = (unsigned)argc - 5;
		return do_mount(argv[2], argv[3], argv[4]);
	}
	if (argc == 3 && !strcmp(argv[1], "info"))
		return info(argv[2]);
	if (argc == 6 && !strcmp(argv[1], "replay"))
		return replay(argv[2], argv[3], strtoul(argv[4], NULL, 10), strtoull(argv[5], NULL, 10));
	fprintf(stderr, "usage: recorder mount FILE LOG DIR [WITNESS...] | info LOG | replay LOG IMAGE COUNT SEED\n");
	return 2;
}
