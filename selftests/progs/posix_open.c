/* SPDX-License-Identifier: MIT */
/*
 * posix_open.c - what is open: files and directories that lose their name meanwhile, files that never had one,
 * listing a directory that changes, special files.
 */
#include "prog.h"

#include <limits.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

/* ---- open and removed --------------------------------------------------------------------------- */
CHECK(unlinked_open, "an open file without a name: reads, writes, truncates, maps, takes attributes; 0 links")
{
	char buf[8192], *map;
	int fd;

	fd = OK(open("f", O_CREAT | O_RDWR, 0644));
	IS(write(fd, "hello", 5), 5);
	OK(unlink("f"));
	IS(fstat_of(fd).st_nlink, 0);
	EXPECT(!exists("f"));
	IS(pread(fd, buf, 8, 0), 5);
	memset(buf, 'z', sizeof(buf));
	IS(pwrite(fd, buf, 8192, 100), 8192);
	IS(fstat_of(fd).st_size, 8292);
	OK(ftruncate(fd, 6000));
	IS(fstat_of(fd).st_size, 6000);
	OK(fchmod(fd, 0600));
	IS(fstat_of(fd).st_mode, S_IFREG | 0600);
	OK(fsetxattr(fd, "user.x", "y", 1, 0));
	IS(fgetxattr(fd, "user.x", buf, 8), 1);
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	EXPECT(map != MAP_FAILED);
	EXPECT(map[200] == 'z' && !memcmp(map, "hello", 5));
	OK(fsync(fd));
	touch("f");	/* the name is free */
	IS(fstat_of(fd).st_nlink, 0);
	EXPECT(ino_of("f") != fstat_of(fd).st_ino);
}

CHECK(unlinked_large, "a large file removed while open keeps every byte until it is closed")
{
	enum { SIZE = 3 << 20 };
	char *a = malloc(SIZE), *b = malloc(SIZE);
	int fd;

	EXPECT(a && b);
	pattern_fill(a, 1, 0, SIZE);
	fd = OK(open("f", O_CREAT | O_RDWR, 0644));
	IS(pwrite(fd, a, SIZE, 0), SIZE);
	OK(fsync(fd));
	OK(unlink("f"));
	OK(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
	IS(pread(fd, b, SIZE, 0), SIZE);
	EXPECT(!memcmp(a, b, SIZE));
}

CHECK(removed_dir, "an open directory that was removed is empty, takes no new names, has no links")
{
	char buf[1024];
	ssize_t n;
	int fd;
	struct stat st;

	OK(mkdir("d", 0755));
	fd = OK(open("d", O_RDONLY | O_DIRECTORY));
	OK(rmdir("d"));
	OK(fstat(fd, &st));
	IS(st.st_nlink, 0);
	n = syscall(SYS_getdents64, fd, buf, sizeof(buf));
	EXPECT(n == 0 || (n == -1 && errno == ENOENT));
	ERR(openat(fd, "f", O_CREAT | O_RDWR, 0644), ENOENT);
	ERR(mkdirat(fd, "e", 0755), ENOENT);
	ERR(openat(fd, "f", O_RDONLY), ENOENT);
	OK(mkdir("d", 0755));
	ERR(openat(fd, "f", O_CREAT | O_RDWR, 0644), ENOENT);
}

CHECK(removed_cwd, "a working directory that was removed: getcwd and creating fail, chdir away works")
{
	char buf[PATH_MAX];

	OK(mkdir("d", 0755));
	OK(chdir("d"));
	OK(rmdir("../d"));
	EXPECT(!getcwd(buf, sizeof(buf)) && errno == ENOENT);
	ERR(open("f", O_CREAT | O_RDWR, 0644), ENOENT);
	OK(chdir(".."));
}

CHECK(tmpfile_basic, "O_TMPFILE: a file without a name, that linkat can give one")
{
	char path[64], buf[8];
	struct dirent *e;
	DIR *d;
	int fd;

	umask(022);
	fd = OK(open(".", O_TMPFILE | O_RDWR, 0666));
	IS(fstat_of(fd).st_nlink, 0);
	IS(fstat_of(fd).st_mode, S_IFREG | 0644);
	IS(write(fd, "data", 4), 4);
	d = opendir(".");
	EXPECT(d);
	while ((e = readdir(d)))
		EXPECT(e->d_name[0] == '.');
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	OK(linkat(AT_FDCWD, path, AT_FDCWD, "f", AT_SYMLINK_FOLLOW));
	IS(fstat_of(fd).st_nlink, 1);
	IS(stat_of("f").st_ino, fstat_of(fd).st_ino);
	EXPECT(file_is("f", "data"));
	OK(close(fd));
	EXPECT(file_is("f", "data"));
	IS(pread(OK(open("f", O_RDONLY)), buf, 8, 0), 4);
}

CHECK(tmpfile_excl, "O_TMPFILE with O_EXCL never gets a name")
{
	char path[64];
	int fd = OK(open(".", O_TMPFILE | O_EXCL | O_RDWR, 0600));

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ERR(linkat(AT_FDCWD, path, AT_FDCWD, "f", AT_SYMLINK_FOLLOW), ENOENT);
	ERR(open("no", O_TMPFILE | O_RDWR, 0600), ENOENT);
	put_file("f", "");
	ERR(open("f", O_TMPFILE | O_RDWR, 0600), ENOTDIR);
}

/* ---- listing ------------------------------------------------------------------------------------ */
CHECK(readdir_types, "readdir gives dot, dot-dot, every name once, with the inode and type that stat tells")
{
	struct dirent *e;
	int seen = 0, dots = 0;
	struct stat st;
	DIR *d;

	OK(mkdir("dir", 0755));
	touch("file");
	OK(symlink("x", "link"));
	OK(mkfifo("fifo", 0644));
	OK(mknod("chr", S_IFCHR | 0644, 0x103));
	OK(mknod("sock", S_IFSOCK | 0644, 0));
	d = opendir(".");
	EXPECT(d);
	errno = 0;
	while ((e = readdir(d))) {
		st = stat_of(e->d_name);
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) {
			dots++;
			if (e->d_name[1] == 0)
				IS(e->d_ino, st.st_ino);
			IS(e->d_type, DT_DIR);
			continue;
		}
		IS(e->d_ino, st.st_ino);
		if (e->d_type != DT_UNKNOWN)
			IS(e->d_type, (st.st_mode & S_IFMT) >> 12);
		seen++;
	}
	IS(errno, 0);
	IS(seen, 6);
	IS(dots, 2);
}

enum { MANY = 3000 };

static int list_into(DIR *d, uint8_t *seen, int most)
{
	struct dirent *e;
	int n = 0;

	while (n < most && (e = readdir(d))) {
		if (e->d_name[0] == 'k') {	/* kept all the time */
			int i = atoi(e->d_name + 1);

			EXPECT(i >= 0 && i < MANY);
			if (seen[i]++)
				die("%s was listed twice", e->d_name);
		}
		n++;
	}
	return n;
}

CHECK(readdir_changing, "while names come and go, a listing has those that stay exactly once")
{
	static uint8_t seen[MANY];
	char name[32], to[32];
	DIR *d;
	int turn = 0;

	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "k%d", i);
		touch(name);
		if (i % 3 == 0) {
			snprintf(name, sizeof(name), "g%d", i);
			touch(name);
		}
	}
	d = opendir(".");
	EXPECT(d);
	while (list_into(d, seen, 97) == 97) {
		for (int i = 0; i < 40; i++) {
			int victim = (turn * 40 + i) * 3;

			if (victim < MANY) {
				snprintf(name, sizeof(name), "g%d", victim);
				OK(unlink(name));
			}
			snprintf(name, sizeof(name), "n%d-%d", turn, i);
			touch(name);
			if (i % 2) {
				snprintf(to, sizeof(to), "m%d-%d", turn, i);
				OK(rename(name, to));
			}
		}
		EXPECT(++turn < 500);
	}
	for (int i = 0; i < MANY; i++)
		if (seen[i] != 1)
			die("k%d was listed %d times", i, seen[i]);
}

CHECK(readdir_remove_all, "the loop that rm -r uses empties a directory of 2000 names")
{
	char name[32];
	struct dirent *e;
	DIR *d;
	int n = 0;

	for (int i = 0; i < 2000; i++) {
		snprintf(name, sizeof(name), "file-%d", i);
		touch(name);
	}
	d = opendir(".");
	EXPECT(d);
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		OK(unlink(e->d_name));
		n++;
	}
	IS(n, 2000);
}

CHECK(telldir, "seekdir to what telldir said continues there, also after other names changed")
{
	static char names[600][32];
	static long pos[600];
	char name[32];
	struct dirent *e;
	DIR *d;
	int n = 0;

	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "file-%d", i);
		touch(name);
	}
	d = opendir(".");
	EXPECT(d);
	for (;;) {
		pos[n] = telldir(d);
		e = readdir(d);
		if (!e)
			break;
		EXPECT(n < 599);
		snprintf(names[n++], sizeof(names[0]), "%.31s", e->d_name);
	}
	IS(n, 502);
	for (int i = n - 1; i >= 0; i -= 7) {
		seekdir(d, pos[i]);
		e = readdir(d);
		EXPECT(e);
		if (strcmp(e->d_name, names[i]))
			die("at position %d: %s, not %s", i, e->d_name, names[i]);
	}
	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "new-%d", i);
		touch(name);
	}
	seekdir(d, pos[n]);	/* the end, as it was: only new names may follow */
	while ((e = readdir(d)))
		EXPECT(!strncmp(e->d_name, "new-", 4));
}

CHECK(rewinddir, "rewinddir shows what was made since opendir")
{
	struct dirent *e;
	bool found = false;
	DIR *d = opendir(".");

	EXPECT(d);
	while (readdir(d))
		;
	touch("later");
	rewinddir(d);
	while ((e = readdir(d)))
		found |= !strcmp(e->d_name, "later");
	EXPECT(found);
	OK(unlink("later"));
	rewinddir(d);
	while ((e = readdir(d)))
		EXPECT(strcmp(e->d_name, "later"));
}

CHECK(readdir_two, "two listings of one directory at once do not disturb each other")
{
	char name[32];
	int n1 = 0, n2 = 0;
	DIR *a, *b;

	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "%d", i);
		touch(name);
	}
	a = opendir(".");
	b = opendir(".");
	EXPECT(a && b);
	for (int i = 0; i < 100 && readdir(a); i++)
		n1++;
	while (readdir(b))
		n2++;
	while (readdir(a))
		n1++;
	IS(n1, 302);
	IS(n2, 302);
}

/* ---- special files ------------------------------------------------------------------------------ */
CHECK(mknod_types, "device nodes keep type and number; mknod errors")
{
	OK(mknod("c", S_IFCHR | 0666, (dev_t)0x103));	/* 1:3, /dev/null */
	IS(stat_of("c").st_rdev, 0x103);
	IS(stat_of("c").st_mode & S_IFMT, S_IFCHR);
	OK(mknod("b", S_IFBLK | 0600, (dev_t)0x12345678));
	IS(stat_of("b").st_rdev, 0x12345678);
	OK(mknod("f", S_IFREG | 0644, 0));
	IS(stat_of("f").st_mode, S_IFREG | 0644);
	ERR(mknod("f", S_IFREG | 0644, 0), EEXIST);
	ERR(mknod("x", S_IFDIR | 0755, 0), EPERM);
	OK(chmod(".", 0777));
	AS(NOBODY, NOBODY, { ERR(mknod("n", S_IFCHR | 0666, (dev_t)0x103), EPERM); });
}

CHECK(device_works, "a device node is the device: writing to a null device's node works")
{
	int fd;

	OK(mknod("null", S_IFCHR | 0666, (dev_t)0x103));
	fd = OK(open("null", O_RDWR));
	IS(write(fd, "x", 1), 1);
	IS(read(fd, &fd, 1), 0);
	IS(stat_of("null").st_size, 0);
}

CHECK(fifo_works, "a fifo carries data between two processes")
{
	char buf[8];
	pid_t pid;
	int fd;

	OK(mkfifo("p", 0640));
	IS(stat_of("p").st_mode, S_IFIFO | 0640);
	pid = CHILD({
		int w = OK(open("p", O_WRONLY));

		IS(write(w, "hello", 5), 5);
	});
	fd = OK(open("p", O_RDONLY));
	IS(read(fd, buf, 8), 5);
	EXPECT(!memcmp(buf, "hello", 5));
	REAP(pid);
}

CHECK(socket_works, "a socket bound to a name can be connected to, and its name removed")
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX, .sun_path = "sock" };
	int s = OK(socket(AF_UNIX, SOCK_STREAM, 0)), c = OK(socket(AF_UNIX, SOCK_STREAM, 0));

	OK(bind(s, (struct sockaddr *)&sa, sizeof(sa)));
	OK(listen(s, 1));
	IS(stat_of("sock").st_mode & S_IFMT, S_IFSOCK);
	OK(connect(c, (struct sockaddr *)&sa, sizeof(sa)));
	ERR(open("sock", O_RDWR), ENXIO);
	ERR(bind(OK(socket(AF_UNIX, SOCK_STREAM, 0)), (struct sockaddr *)&sa, sizeof(sa)), EADDRINUSE);
	OK(unlink("sock"));
	ERR(connect(OK(socket(AF_UNIX, SOCK_STREAM, 0)), (struct sockaddr *)&sa, sizeof(sa)), ENOENT);
}

CHECK(exec_works, "programs run from here; writing to a running one is ETXTBSY; without x bit EACCES")
{
	pid_t pid;
	int fd;

	OK(system("cp /bin/sleep sl && chmod 755 sl"));
	pid = fork();
	if (pid == 0) {
		do
			execl("./sl", "sl", "20", (char *)NULL);
		while (errno == ETXTBSY);	/* the parent is just trying to write it */
		_exit(126);
	}
	for (int i = 0; i < 1000; i++) {
		fd = open("sl", O_WRONLY);
		if (fd < 0)
			break;
		close(fd);
		usleep(10000);
	}
	EXPECT(fd < 0);
	IS(errno, ETXTBSY);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	OK(chmod("sl", 0644));
	ERR(execl("./sl", "sl", "0", (char *)NULL), EACCES);
}

int main(int argc, char **argv)
{
	return run_checks(argc, argv);
}
