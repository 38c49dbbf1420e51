/* SPDX-License-Identifier: MIT */
/*
 * posix_locks.c - fcntl, OFD and flock locks between processes: conflicts, ranges, waiting, signals,
 * dead-locks, and what releases them.
 */
#include "prog.h"

#include <sys/file.h>

static int set_lock(int fd, int cmd, short type, off_t start, off_t len)
{
	struct flock fl = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };

	return fcntl(fd, cmd, &fl);
}

static int make(void)
{
	return (int)OK(open("f", O_CREAT | O_RDWR | O_CLOEXEC, 0644));
}

/* would somebody else get this lock now? */
static bool free_for_others(short type, off_t start, off_t len)
{
	int st = 0;
	pid_t pid = fork();

	if (pid == 0) {
		int fd = open("f", O_RDWR);

		if (fd < 0)
			_exit(2);
		if (set_lock(fd, F_SETLK, type, start, len) == 0)
			_exit(0);
		_exit(errno == EAGAIN || errno == EACCES ? 1 : 3);
	}
	waitpid(pid, &st, 0);
	if (!WIFEXITED(st) || WEXITSTATUS(st) > 1)
		die("probing for a lock: status %x", st);
	return WEXITSTATUS(st) == 0;
}

static bool flock_free(int how)
{
	int st = 0;
	pid_t pid = fork();

	if (pid == 0) {
		int fd = open("f", O_RDWR);

		if (fd < 0)
			_exit(2);
		if (flock(fd, how | LOCK_NB) == 0)
			_exit(0);
		_exit(errno == EWOULDBLOCK ? 1 : 3);
	}
	waitpid(pid, &st, 0);
	if (!WIFEXITED(st) || WEXITSTATUS(st) > 1)
		die("probing for a flock: status %x", st);
	return WEXITSTATUS(st) == 0;
}

CHECK(conflicts, "a write lock keeps others out, read locks are shared, the own process is not in its own way")
{
	int fd = make();

	OK(set_lock(fd, F_SETLK, F_WRLCK, 0, 0));
	OK(set_lock(fd, F_SETLK, F_WRLCK, 10, 10));
	EXPECT(!free_for_others(F_RDLCK, 0, 1));
	EXPECT(!free_for_others(F_WRLCK, 1000, 1));
	OK(set_lock(fd, F_SETLK, F_RDLCK, 0, 0));
	EXPECT(free_for_others(F_RDLCK, 0, 0));
	EXPECT(!free_for_others(F_WRLCK, 0, 1));
	OK(set_lock(fd, F_SETLK, F_UNLCK, 0, 0));
	EXPECT(free_for_others(F_WRLCK, 0, 0));
}

CHECK(ranges, "ranges split and merge; unlocking the middle leaves both ends")
{
	int fd = make();

	OK(set_lock(fd, F_SETLK, F_WRLCK, 100, 100));
	OK(set_lock(fd, F_SETLK, F_UNLCK, 140, 20));
	EXPECT(!free_for_others(F_WRLCK, 139, 1));
	EXPECT(free_for_others(F_WRLCK, 140, 20));
	EXPECT(!free_for_others(F_WRLCK, 160, 1));
	EXPECT(free_for_others(F_WRLCK, 0, 100));
	EXPECT(free_for_others(F_WRLCK, 200, 0));
	OK(set_lock(fd, F_SETLK, F_RDLCK, 120, 10));
	EXPECT(free_for_others(F_RDLCK, 120, 10));
	EXPECT(!free_for_others(F_RDLCK, 119, 2));
	OK(set_lock(fd, F_SETLK, F_WRLCK, 140, 0));	/* to the end, wherever that is */
	EXPECT(!free_for_others(F_RDLCK, 1ll << 40, 1));
	OK(set_lock(fd, F_SETLK, F_UNLCK, 0, 0));
	EXPECT(free_for_others(F_WRLCK, 0, 0));
}

CHECK(getlk, "F_GETLK tells who holds what")
{
	struct flock fl = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0 };
	int fd = make();
	pid_t parent = getpid();

	OK(fcntl(fd, F_GETLK, &fl));
	IS(fl.l_type, F_UNLCK);
	OK(set_lock(fd, F_SETLK, F_WRLCK, 50, 25));
	REAP(CHILD({
		struct flock g = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 60, .l_len = 0 };

		OK(fcntl(fd, F_GETLK, &g));
		IS(g.l_type, F_WRLCK);
		IS(g.l_start, 50);
		IS(g.l_len, 25);
		IS(g.l_pid, parent);
		g = (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 75, .l_len = 10 };
		OK(fcntl(fd, F_GETLK, &g));
		IS(g.l_type, F_UNLCK);
	}));
}

CHECK(whence, "locks relative to the offset and to the end; ranges below 0 are EINVAL")
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_END, .l_start = -10, .l_len = 10 };
	int fd = make();

	OK(ftruncate(fd, 100));
	OK(fcntl(fd, F_SETLK, &fl));
	EXPECT(!free_for_others(F_WRLCK, 90, 1));
	EXPECT(free_for_others(F_WRLCK, 0, 90));
	fl = (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 50, .l_len = -20 };
	OK(fcntl(fd, F_SETLK, &fl));
	EXPECT(!free_for_others(F_WRLCK, 30, 1));
	EXPECT(free_for_others(F_WRLCK, 29, 1));
	EXPECT(free_for_others(F_WRLCK, 50, 1));
	ERR(set_lock(fd, F_SETLK, F_WRLCK, -1, 1), EINVAL);
}

CHECK(modes, "a read lock needs a readable descriptor, a write lock a writable one")
{
	int r, w;

	make();
	r = (int)OK(open("f", O_RDONLY));
	w = (int)OK(open("f", O_WRONLY));
	ERR(set_lock(r, F_SETLK, F_WRLCK, 0, 1), EBADF);
	ERR(set_lock(w, F_SETLK, F_RDLCK, 0, 1), EBADF);
	OK(set_lock(r, F_SETLK, F_RDLCK, 0, 1));
	OK(set_lock(w, F_SETLK, F_WRLCK, 0, 1));
}

CHECK(close_releases, "closing any descriptor of the file releases the process's POSIX locks; a child has none")
{
	int fd = make(), other;

	OK(set_lock(fd, F_SETLK, F_WRLCK, 0, 0));
	REAP(CHILD({ ERR2(set_lock(fd, F_SETLK, F_WRLCK, 0, 0), EAGAIN, EACCES); }));
	EXPECT(!free_for_others(F_WRLCK, 0, 0));
	other = (int)OK(open("f", O_RDONLY));
	OK(close(other));
	EXPECT(free_for_others(F_WRLCK, 0, 0));
}

CHECK(exit_releases, "a process that ends, or is killed, leaves no locks")
{
	int p[2];
	char c;
	pid_t pid;

	make();
	OK(pipe(p));
	pid = CHILD({
		int fd = OK(open("f", O_RDWR));

		OK(set_lock(fd, F_SETLK, F_WRLCK, 0, 100));
		OK(flock(fd, LOCK_EX));
		OK(set_lock(fd, F_OFD_SETLK, F_WRLCK, 200, 100));
		OK(write(p[1], "x", 1));
		pause();
	});
	OK(read(p[0], &c, 1));
	EXPECT(!free_for_others(F_WRLCK, 0, 1));
	EXPECT(!free_for_others(F_WRLCK, 200, 1));
	OK(kill(pid, SIGKILL));
	waitpid(pid, NULL, 0);
	EXPECT(free_for_others(F_WRLCK, 0, 100));
	/* those of the open file end with a RELEASE, which the kernel sends without waiting: docs/semantics.md */
	for (unsigned i = 0; i < 200 && !(free_for_others(F_WRLCK, 0, 0) && flock_free(LOCK_EX)); i++)
		usleep(10000);
	EXPECT(free_for_others(F_WRLCK, 0, 0));
	EXPECT(flock_free(LOCK_EX));
}

CHECK(wait_granted, "F_SETLKW waits, and gets the lock when the holder releases it")
{
	int fd = make(), p[2];
	double t0;
	pid_t pid;
	char c;

	OK(pipe(p));
	OK(set_lock(fd, F_SETLK, F_WRLCK, 0, 10));
	pid = CHILD({
		int f2 = OK(open("f", O_RDWR));

		OK(write(p[1], "w", 1));
		OK(set_lock(f2, F_SETLKW, F_WRLCK, 5, 10));
		OK(write(p[1], "g", 1));
		OK(set_lock(f2, F_SETLK, F_UNLCK, 5, 10));
	});
	OK(read(p[0], &c, 1));
	IS(c, 'w');
	usleep(300000);
	OK(fcntl(p[0], F_SETFL, O_NONBLOCK));
	ERR(read(p[0], &c, 1), EAGAIN);
	OK(fcntl(p[0], F_SETFL, 0));
	t0 = now_s();
	OK(set_lock(fd, F_SETLK, F_UNLCK, 0, 10));
	OK(read(p[0], &c, 1));
	IS(c, 'g');
	EXPECT(now_s() - t0 < 5);
	REAP(pid);
}

static void on_alarm(int sig)
{
	(void)sig;
}

CHECK(wait_signal, "a signal ends a wait for a lock with EINTR, and nothing is held or waiting afterwards")
{
	int fd = make();

	OK(set_lock(fd, F_SETLK, F_WRLCK, 0, 10));
	OK(flock(fd, LOCK_EX));
	REAP(CHILD({
		struct sigaction sa = { .sa_handler = on_alarm };
		int f2 = OK(open("f", O_RDWR));

		OK(sigaction(SIGALRM, &sa, NULL));
		alarm(1);
		ERR(set_lock(f2, F_SETLKW, F_WRLCK, 0, 10), EINTR);
		alarm(1);
		ERR(flock(f2, LOCK_EX), EINTR);
		alarm(1);
		ERR(set_lock(f2, F_OFD_SETLKW, F_WRLCK, 0, 10), EINTR);
		alarm(CHECK_SECONDS);
		OK(set_lock(fd, F_SETLK, F_RDLCK, 20, 10));
	}));
	OK(set_lock(fd, F_SETLK, F_UNLCK, 0, 10));
	OK(flock(fd, LOCK_UN));
	EXPECT(free_for_others(F_WRLCK, 0, 0));
	EXPECT(flock_free(LOCK_EX));
}

CHECK(wait_killed, "SIGKILL ends a wait for a lock at once")
{
	int fd = make(), p[2];
	double t0;
	pid_t pid;
	char c;

	OK(pipe(p));
	OK(set_lock(fd, F_SETLK, F_WRLCK, 0, 10));
	pid = CHILD({
		int f2 = OK(open("f", O_RDWR));

		OK(write(p[1], "w", 1));
		set_lock(f2, F_SETLKW, F_WRLCK, 0, 10);
	});
	OK(read(p[0], &c, 1));
	usleep(200000);
	t0 = now_s();
	OK(kill(pid, SIGKILL));
	waitpid(pid, NULL, 0);
	EXPECT(now_s() - t0 < 5);
	OK(set_lock(fd, F_SETLK, F_UNLCK, 0, 10));
	EXPECT(free_for_others(F_WRLCK, 0, 0));
}

CHECK(deadlock, "two processes that would wait for each other: one gets EDEADLK")
{
	int fd = make(), p[2];
	pid_t pid;
	char c;

	OK(pipe(p));
	OK(set_lock(fd, F_SETLK, F_WRLCK, 0, 1));
	pid = CHILD({
		int f2 = OK(open("f", O_RDWR));

		OK(set_lock(f2, F_SETLK, F_WRLCK, 1, 1));
		OK(write(p[1], "w", 1));
		OK(set_lock(f2, F_SETLKW, F_WRLCK, 0, 1));
	});
	OK(read(p[0], &c, 1));
	usleep(300000);
	ERR(set_lock(fd, F_SETLKW, F_WRLCK, 1, 1), EDEADLK);
	OK(set_lock(fd, F_SETLK, F_UNLCK, 0, 1));
	REAP(pid);
}

CHECK(flock_basic, "flock: exclusive, shared, change, unlock, between open files, shared by dup and fork")
{
	int a = make(), b = (int)OK(open("f", O_RDONLY)), c;

	OK(flock(a, LOCK_EX));
	ERR(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	ERR(flock(b, LOCK_SH | LOCK_NB), EWOULDBLOCK);
	OK(flock(a, LOCK_SH));
	OK(flock(b, LOCK_SH | LOCK_NB));
	ERR(flock(a, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	OK(flock(b, LOCK_UN));
	OK(flock(a, LOCK_EX | LOCK_NB));
	c = (int)OK(dup(a));
	OK(flock(c, LOCK_EX | LOCK_NB));
	OK(close(a));
	EXPECT(!flock_free(LOCK_SH));	/* the copy still holds it */
	REAP(CHILD({ OK(flock(c, LOCK_EX | LOCK_NB)); }));
	EXPECT(!flock_free(LOCK_SH));
	OK(close(c));
	EXPECT(flock_free(LOCK_EX));
}

CHECK(flock_wait, "a blocking flock is granted when the holder closes its file")
{
	int a = make(), p[2];
	pid_t pid;
	char c;

	OK(pipe(p));
	OK(flock(a, LOCK_EX));
	pid = CHILD({
		int b = OK(open("f", O_RDWR));

		close(a);
		OK(write(p[1], "w", 1));
		OK(flock(b, LOCK_SH));
		OK(write(p[1], "g", 1));
	});
	OK(read(p[0], &c, 1));
	usleep(200000);
	OK(close(a));
	OK(read(p[0], &c, 1));
	IS(c, 'g');
	REAP(pid);
}

CHECK(kinds_apart, "flock and POSIX locks do not see each other")
{
	int fd = make();

	OK(flock(fd, LOCK_EX));
	EXPECT(free_for_others(F_WRLCK, 0, 0));
	OK(flock(fd, LOCK_UN));
	OK(set_lock(fd, F_SETLK, F_WRLCK, 0, 0));
	EXPECT(flock_free(LOCK_EX));
}

CHECK(ofd, "OFD locks belong to the open file: they conflict within a process, and with POSIX locks")
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0 };
	int a = make(), b = (int)OK(open("f", O_RDWR)), c;

	OK(set_lock(a, F_OFD_SETLK, F_WRLCK, 0, 10));
	ERR2(set_lock(b, F_OFD_SETLK, F_WRLCK, 5, 10), EAGAIN, EACCES);
	ERR2(set_lock(b, F_SETLK, F_WRLCK, 5, 10), EAGAIN, EACCES);
	OK(set_lock(b, F_OFD_SETLK, F_WRLCK, 10, 10));
	OK(fcntl(b, F_OFD_GETLK, &fl));
	IS(fl.l_type, F_WRLCK);
	IS(fl.l_start, 0);
	IS(fl.l_len, 10);
	IS(fl.l_pid, -1);
	OK(close((int)OK(open("f", O_RDONLY))));	/* closing another one releases nothing */
	EXPECT(!free_for_others(F_WRLCK, 0, 1));
	c = (int)OK(dup(a));
	OK(close(a));
	EXPECT(!free_for_others(F_WRLCK, 0, 1));
	OK(close(c));
	EXPECT(free_for_others(F_WRLCK, 0, 1));
	EXPECT(!free_for_others(F_WRLCK, 10, 1));
}

CHECK(ofd_wait, "a waiting OFD lock is granted")
{
	int a = make(), p[2];
	pid_t pid;
	char c;

	OK(pipe(p));
	OK(set_lock(a, F_OFD_SETLK, F_WRLCK, 0, 0));
	pid = CHILD({
		int b = OK(open("f", O_RDWR));

		OK(write(p[1], "w", 1));
		OK(set_lock(b, F_OFD_SETLKW, F_RDLCK, 0, 0));
		OK(write(p[1], "g", 1));
	});
	OK(read(p[0], &c, 1));
	usleep(200000);
	OK(set_lock(a, F_OFD_SETLK, F_UNLCK, 0, 0));
	OK(read(p[0], &c, 1));
	IS(c, 'g');
	REAP(pid);
}

CHECK(unlinked, "locks work on a file without a name")
{
	int a = make(), b = (int)OK(open("f", O_RDWR));

	OK(unlink("f"));
	OK(flock(a, LOCK_EX));
	ERR(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	OK(set_lock(a, F_OFD_SETLK, F_WRLCK, 0, 0));
	ERR2(set_lock(b, F_OFD_SETLK, F_WRLCK, 0, 0), EAGAIN, EACCES);
	OK(close(a));
	OK(flock(b, LOCK_EX | LOCK_NB));
}

CHECK(counter, "a counter raised under a lock by 4 processes, by each kind of lock, ends exact")
{
	enum { EACH = 200 };
	int fd = make(), n = 0;

	for (int kind = 0; kind < 3; kind++) {
		pid_t pids[4];

		OK(pwrite(fd, &n, sizeof(n), 0));
		for (int i = 0; i < 4; i++) {
			pids[i] = CHILD({
				int f2 = OK(open("f", O_RDWR));

				for (int j = 0; j < EACH; j++) {
					int v;

					if (kind == 0)
						OK(flock(f2, LOCK_EX));
					else
						OK(set_lock(f2, kind == 1 ? F_SETLKW : F_OFD_SETLKW, F_WRLCK, 0, 0));
					IS(pread(f2, &v, sizeof(v), 0), sizeof(v));
					v++;
					IS(pwrite(f2, &v, sizeof(v), 0), sizeof(v));
					if (kind == 0)
						OK(flock(f2, LOCK_UN));
					else
						OK(set_lock(f2, kind == 1 ? F_SETLK : F_OFD_SETLK, F_UNLCK, 0, 0));
				}
			});
		}
		for (int i = 0; i < 4; i++)
			REAP(pids[i]);
		OK(pread(fd, &n, sizeof(n), 0));
		IS(n, 4 * EACH);
		n = 0;
	}
}

int main(int argc, char **argv)
{
	return run_checks(argc, argv);
}
