/* SPDX-License-Identifier: MIT */
/*
 * posix_names.c - names: creating, linking, renaming, removing, and every error these must give.
 */
#include "prog.h"

#include <limits.h>
#include <sys/syscall.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#endif

static int rename2(const char *from, const char *to, unsigned flags)
{
	return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
}

/* ---- creating ----------------------------------------------------------------------------------- */
CHECK(create_mode, "open with O_CREAT makes an empty regular file, mode less umask, owner and links right")
{
	int fd;
	struct stat st;

	umask(027);
	fd = OK(open("f", O_CREAT | O_EXCL | O_RDWR, 0777));
	st = fstat_of(fd);
	IS(st.st_mode, S_IFREG | 0750);
	IS(st.st_nlink, 1);
	IS(st.st_size, 0);
	IS(st.st_uid, 0);
	IS(st.st_gid, 0);
	IS(st.st_ino, ino_of("f"));
	umask(0);
	OK(open("g", O_CREAT | O_WRONLY, 06777));
	IS(stat_of("g").st_mode, S_IFREG | 06777);
}

CHECK(create_readonly_mode, "a file created with mode 0 or 0444 can be written by its creator's descriptor")
{
	int fd = OK(open("f", O_CREAT | O_EXCL | O_RDWR, 0));

	IS(write(fd, "abc", 3), 3);
	IS(stat_of("f").st_size, 3);
	IS(stat_of("f").st_mode, S_IFREG);
	OK(chmod(".", 0777));
	AS(NOBODY, NOBODY, {
		int fd2 = OK(open("g", O_CREAT | O_EXCL | O_RDWR, 0444));

		IS(write(fd2, "abc", 3), 3);
		ERR(open("g", O_RDWR), EACCES);
	});
}

CHECK(create_excl, "O_EXCL fails with EEXIST on a file, a directory, a symlink, even a dangling one")
{
	touch("f");
	OK(mkdir("d", 0755));
	OK(symlink("nowhere", "s"));
	ERR(open("f", O_CREAT | O_EXCL | O_RDWR, 0644), EEXIST);
	ERR(open("d", O_CREAT | O_EXCL | O_RDWR, 0644), EEXIST);
	ERR(open("s", O_CREAT | O_EXCL | O_RDWR, 0644), EEXIST);
	EXPECT(!exists("nowhere"));
	OK(open("s", O_CREAT | O_RDWR, 0644));
	EXPECT(exists("nowhere"));
}

CHECK(create_errors, "a missing parent is ENOENT, a file as parent ENOTDIR, a directory as file EISDIR")
{
	touch("f");
	OK(mkdir("d", 0755));
	ERR(open("no/f", O_CREAT | O_RDWR, 0644), ENOENT);
	ERR(open("no", O_RDWR), ENOENT);
	ERR(open("f/g", O_CREAT | O_RDWR, 0644), ENOTDIR);
	ERR(open("f/g", O_RDONLY), ENOTDIR);
	ERR(open("d", O_RDWR), EISDIR);
	ERR(open("d", O_WRONLY), EISDIR);
	ERR(open("d", O_CREAT | O_RDWR, 0644), EISDIR);
	ERR(open("new/", O_CREAT | O_RDWR, 0644), EISDIR);
	ERR(open("f/", O_RDONLY), ENOTDIR);
	ERR(open("", O_CREAT | O_RDWR, 0644), ENOENT);
	OK(open("d", O_RDONLY));
}

CHECK(open_flags, "O_DIRECTORY and O_NOFOLLOW refuse what they must; O_PATH opens anything")
{
	touch("f");
	OK(mkdir("d", 0755));
	OK(symlink("f", "s"));
	ERR(open("f", O_RDONLY | O_DIRECTORY), ENOTDIR);
	ERR(open("s", O_RDONLY | O_NOFOLLOW), ELOOP);
	OK(open("d", O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
	IS(fstat_of(OK(open("s", O_PATH | O_NOFOLLOW))).st_mode & S_IFMT, S_IFLNK);
	OK(symlink("d", "sd"));
	ERR2(open("sd", O_RDONLY | O_DIRECTORY | O_NOFOLLOW), ENOTDIR, ELOOP);
}

CHECK(mkdir_basic, "mkdir: mode less umask, 2 links, parent gains one, the errors")
{
	umask(022);
	OK(mkdir("d", 0777));
	IS(stat_of("d").st_mode, S_IFDIR | 0755);
	IS(stat_of("d").st_nlink, 2);
	IS(stat_of(".").st_nlink, 3);
	ERR(mkdir("d", 0777), EEXIST);
	ERR(mkdir(".", 0777), EEXIST);
	ERR(mkdir("..", 0777), EEXIST);
	ERR(mkdir("no/d", 0777), ENOENT);
	touch("f");
	ERR(mkdir("f", 0777), EEXIST);
	ERR(mkdir("f/d", 0777), ENOTDIR);
	OK(symlink("nowhere", "s"));
	ERR(mkdir("s", 0777), EEXIST);
	OK(mkdir("e/", 0755));
	OK(mkdir("sticky", 01777));
	IS(stat_of("sticky").st_mode, S_IFDIR | 01755);
}

CHECK(dir_nlink, "a directory has 2 links and one for each subdirectory, through mkdir, rename and rmdir")
{
	char name[16];

	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "a/%d", i);
		OK(mkdir(name, 0755));
	}
	touch("a/file");
	IS(stat_of("a").st_nlink, 22);
	OK(rename("a/0", "b/0"));
	IS(stat_of("a").st_nlink, 21);
	IS(stat_of("b").st_nlink, 3);
	OK(rmdir("a/1"));
	IS(stat_of("a").st_nlink, 20);
	OK(rename("a/2", "a/3"));	/* replaces an empty directory */
	IS(stat_of("a").st_nlink, 19);
	OK(rename2("a/file", "b/0", RENAME_EXCHANGE));
	IS(stat_of("a").st_nlink, 20);
	IS(stat_of("b").st_nlink, 2);
}

CHECK(rmdir_errors, "rmdir: not empty, not a directory, missing, dot, dot-dot")
{
	OK(mkdir("d", 0755));
	touch("d/f");
	touch("f");
	OK(symlink("d", "s"));
	ERR2(rmdir("d"), ENOTEMPTY, EEXIST);
	ERR(rmdir("f"), ENOTDIR);
	ERR(rmdir("s"), ENOTDIR);
	ERR(rmdir("no"), ENOENT);
	ERR(rmdir("d/."), EINVAL);
	ERR2(rmdir("d/.."), ENOTEMPTY, EEXIST);
	OK(unlink("d/f"));
	OK(rmdir("d"));
	EXPECT(!exists("d"));
	IS(stat_of(".").st_nlink, 2);
}

CHECK(unlink_errors, "unlink: a directory is EISDIR, missing ENOENT, through a file ENOTDIR; a symlink goes, not its target")
{
	OK(mkdir("d", 0755));
	touch("f");
	OK(symlink("f", "s"));
	ERR(unlink("d"), EISDIR);
	ERR(unlink("no"), ENOENT);
	ERR(unlink("f/x"), ENOTDIR);
	ERR(unlink("s/"), ENOTDIR);
	OK(unlink("s"));
	EXPECT(exists("f"));
	OK(unlink("f"));
	ERR(unlink("f"), ENOENT);
	ERR(open("f", O_RDONLY), ENOENT);
}

CHECK(recreate, "a name can be removed and made again, as another type, many times")
{
	for (int i = 0; i < 50; i++) {
		touch("x");
		IS(stat_of("x").st_mode & S_IFMT, S_IFREG);
		OK(unlink("x"));
		OK(mkdir("x", 0755));
		IS(stat_of("x").st_mode & S_IFMT, S_IFDIR);
		OK(rmdir("x"));
		OK(symlink("y", "x"));
		IS(stat_of("x").st_mode & S_IFMT, S_IFLNK);
		OK(unlink("x"));
		EXPECT(!exists("x"));
	}
}

/* ---- names -------------------------------------------------------------------------------------- */
static void fill_name(char *buf, int len, char c)
{
	memset(buf, c, (size_t)len);
	buf[len] = 0;
}

CHECK(name_length, "names of 255 bytes work in every call, of 256 are ENAMETOOLONG in every call")
{
	char a[300], b[300], l[300];

	fill_name(a, 255, 'a');
	fill_name(b, 255, 'b');
	fill_name(l, 256, 'l');
	touch(a);
	OK(link(a, b));
	OK(unlink(a));
	OK(rename(b, a));
	OK(unlink(a));
	OK(mkdir(a, 0755));
	OK(rmdir(a));
	OK(symlink("t", a));
	OK(unlink(a));
	OK(mkfifo(a, 0644));
	OK(unlink(a));
	touch("f");
	ERR(open(l, O_CREAT | O_RDWR, 0644), ENAMETOOLONG);
	ERR(open(l, O_RDONLY), ENAMETOOLONG);
	ERR(mkdir(l, 0755), ENAMETOOLONG);
	ERR(rmdir(l), ENAMETOOLONG);
	ERR(unlink(l), ENAMETOOLONG);
	ERR(symlink("t", l), ENAMETOOLONG);
	ERR(link("f", l), ENAMETOOLONG);
	ERR(link(l, "g"), ENAMETOOLONG);
	ERR(rename("f", l), ENAMETOOLONG);
	ERR(rename(l, "f"), ENAMETOOLONG);
	ERR(mkfifo(l, 0644), ENAMETOOLONG);
	ERR(chmod(l, 0644), ENAMETOOLONG);
	EXPECT(exists("f"));
}

CHECK(name_bytes, "every byte but / and NUL may be in a name; names differ by bytes, not by meaning")
{
	char name[8];
	struct dirent *e;
	int seen = 0;
	DIR *d;

	for (int c = 1; c < 256; c++) {
		if (c == '/')
			continue;
		snprintf(name, sizeof(name), "%cx", c);
		OK(open(name, O_CREAT | O_EXCL | O_RDWR, 0644));
	}
	d = opendir(".");
	EXPECT(d);
	while ((e = readdir(d)))
		seen += strlen(e->d_name) == 2 && e->d_name[1] == 'x';
	IS(seen, 254);
	ERR(open("AX", O_RDONLY), ENOENT);	/* no folding of case */
	touch("\xc3\xa9");			/* e acute, composed and not */
	EXPECT(!exists("e\xcc\x81"));
}

CHECK(name_prefixes, "names that are prefixes of each other, with dots and spaces, are different names")
{
	static const char *const names[] = { "a", "a ", "a.", "aa", " a", "...", "..a", ".a", "a\n", "-a", "\\a", "%s" };

	for (size_t i = 0; i < N_OF(names); i++)
		put_file(names[i], names[i]);
	for (size_t i = 0; i < N_OF(names); i++)
		EXPECT(file_is(names[i], names[i]));
	for (size_t i = 0; i < N_OF(names); i++)
		OK(unlink(names[i]));
}

CHECK(deep_path, "100 directories deep: getcwd, dot-dot, moving the top")
{
	char cwd[PATH_MAX], *start = getcwd(NULL, 0);
	size_t len;

	EXPECT(start);
	OK(mkdir("top", 0755));
	OK(chdir("top"));
	for (int i = 0; i < 100; i++) {
		OK(mkdir("directory", 0755));
		OK(chdir("directory"));
	}
	EXPECT(getcwd(cwd, sizeof(cwd)));
	len = strlen(start) + strlen("/top") + 100 * strlen("/directory");
	IS(strlen(cwd), len);
	snprintf(cwd, sizeof(cwd), "%s/top", start);
	{
		char moved[PATH_MAX];

		snprintf(moved, sizeof(moved), "%s/moved", start);
		OK(rename(cwd, moved));
	}
	EXPECT(getcwd(cwd, sizeof(cwd)));
	IS(strlen(cwd), len + 2);
	for (int i = 0; i < 100; i++)
		OK(chdir(".."));
	IS(ino_of("."), ino_of("../moved"));
}

CHECK(dotdot, "dot-dot of a directory that moved is its new parent")
{
	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	OK(mkdir("a/d", 0755));
	OK(rename("a/d", "b/d"));
	IS(ino_of("b/d/.."), ino_of("b"));
	OK(chdir("b/d"));
	IS(ino_of(".."), ino_of("../../b"));
}

/* ---- symlinks ----------------------------------------------------------------------------------- */
CHECK(symlink_basic, "a symlink has its target's length as size, mode 0777, and is followed or not as asked")
{
	char buf[64];

	put_file("f", "text");
	OK(symlink("f", "s"));
	IS(stat_of("s").st_mode, S_IFLNK | 0777);
	IS(stat_of("s").st_size, 1);
	IS(readlink("s", buf, sizeof(buf)), 1);
	EXPECT(buf[0] == 'f');
	EXPECT(file_is("s", "text"));
	ERR(symlink("f", "s"), EEXIST);
	ERR(symlink("", "t"), ENOENT);
	ERR(symlink("f", "no/s"), ENOENT);
	ERR(readlink("f", buf, sizeof(buf)), EINVAL);
	ERR(readlink("no", buf, sizeof(buf)), ENOENT);
	OK(symlink("0123456789", "long"));
	IS(readlink("long", buf, 4), 4);
	OK(rename("s", "r"));
	IS(stat_of("r").st_mode & S_IFMT, S_IFLNK);
}

CHECK(symlink_length, "symlink targets of every length up to 4095 bytes come back; longer is ENAMETOOLONG")
{
	static const int lens[] = { 1, 59, 60, 61, 127, 128, 255, 256, 1000, 2048, 4000, 4094, 4095 };
	char target[5000], back[5000];

	for (size_t i = 0; i < N_OF(lens); i++) {
		for (int j = 0; j < lens[i]; j++)
			target[j] = (char)('a' + (i + (size_t)j) % 26);
		target[lens[i]] = 0;
		OK(symlink(target, "s"));
		IS(stat_of("s").st_size, lens[i]);
		IS(readlink("s", back, sizeof(back)), lens[i]);
		EXPECT(!memcmp(target, back, (size_t)lens[i]));
		OK(unlink("s"));
	}
	fill_name(target, 4096, 'x');
	ERR(symlink(target, "s"), ENAMETOOLONG);
	EXPECT(!exists("s"));
}

CHECK(symlink_loop, "a loop of symlinks is ELOOP, a dangling one ENOENT, both can be removed and renamed")
{
	OK(symlink("b", "a"));
	OK(symlink("a", "b"));
	ERR(open("a", O_RDONLY), ELOOP);
	ERR(chmod("a", 0644), ELOOP);
	OK(symlink("nowhere", "d"));
	ERR(open("d", O_RDONLY), ENOENT);
	OK(rename("a", "c"));
	OK(unlink("c"));
	OK(unlink("b"));
}

/* ---- hard links --------------------------------------------------------------------------------- */
CHECK(link_basic, "a hard link is the same inode; counts go up and down; the last name frees it")
{
	put_file("a", "data");
	OK(link("a", "b"));
	IS(ino_of("a"), ino_of("b"));
	IS(stat_of("a").st_nlink, 2);
	IS(stat_of("b").st_nlink, 2);
	OK(chmod("b", 0600));
	IS(stat_of("a").st_mode, S_IFREG | 0600);
	put_file("b", "changed");
	EXPECT(file_is("a", "changed"));
	OK(unlink("a"));
	IS(stat_of("b").st_nlink, 1);
	EXPECT(file_is("b", "changed"));
}

CHECK(link_errors, "link: existing, missing, directory, through a file; symlinks are linked themselves unless followed")
{
	touch("f");
	OK(mkdir("d", 0755));
	OK(symlink("f", "s"));
	ERR(link("f", "d"), EEXIST);
	ERR(link("f", "s"), EEXIST);
	ERR(link("no", "x"), ENOENT);
	ERR(link("d", "x"), EPERM);
	ERR(link("f", "no/x"), ENOENT);
	ERR(link("f", "f/x"), ENOTDIR);
	OK(link("s", "s2"));
	IS(stat_of("s2").st_mode & S_IFMT, S_IFLNK);
	IS(stat_of("s2").st_nlink, 2);
	OK(linkat(AT_FDCWD, "s", AT_FDCWD, "f2", AT_SYMLINK_FOLLOW));
	IS(ino_of("f2"), ino_of("f"));
}

CHECK(link_special, "fifos, sockets' inodes and devices can have several links")
{
	OK(mkfifo("p", 0644));
	OK(link("p", "p2"));
	IS(stat_of("p").st_nlink, 2);
	IS(ino_of("p"), ino_of("p2"));
	OK(unlink("p"));
	IS(stat_of("p2").st_nlink, 1);
}

CHECK(link_many, "500 links in two directories, counted all along")
{
	char name[32];

	OK(mkdir("d", 0755));
	touch("f");
	for (int i = 1; i < 500; i++) {
		snprintf(name, sizeof(name), "%s%d", i % 2 ? "" : "d/", i);
		OK(link("f", name));
		IS(stat_of(name).st_nlink, i + 1);
	}
	for (int i = 1; i < 500; i++) {
		snprintf(name, sizeof(name), "%s%d", i % 2 ? "" : "d/", i);
		OK(unlink(name));
	}
	IS(stat_of("f").st_nlink, 1);
}

CHECK(link_removed, "a file without a name cannot be linked back through /proc, unless by O_TMPFILE")
{
	char path[64];
	int fd;

	touch("f");
	fd = OK(open("f", O_RDWR));
	OK(unlink("f"));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ERR(linkat(AT_FDCWD, path, AT_FDCWD, "g", AT_SYMLINK_FOLLOW), ENOENT);
}

/* ---- rename ------------------------------------------------------------------------------------- */
CHECK(rename_file, "rename moves, replaces, keeps the inode; within and between directories")
{
	ino_t ino;

	put_file("a", "A");
	put_file("b", "B");
	OK(mkdir("d", 0755));
	ino = ino_of("a");
	OK(rename("a", "b"));
	EXPECT(!exists("a"));
	EXPECT(file_is("b", "A"));
	IS(ino_of("b"), ino);
	OK(rename("b", "d/c"));
	IS(ino_of("d/c"), ino);
	IS(stat_of("d/c").st_nlink, 1);
	EXPECT(!exists("b"));
}

CHECK(rename_same, "renaming to itself, or between two links of one file, does nothing")
{
	put_file("a", "A");
	OK(rename("a", "a"));
	OK(link("a", "b"));
	OK(rename("a", "b"));
	EXPECT(exists("a"));
	EXPECT(exists("b"));
	IS(stat_of("a").st_nlink, 2);
}

CHECK(rename_link, "replacing one of several links of a file leaves the others")
{
	put_file("a", "A");
	put_file("b", "B");
	OK(link("b", "b2"));
	OK(rename("a", "b"));
	IS(stat_of("b2").st_nlink, 1);
	EXPECT(file_is("b2", "B"));
	EXPECT(file_is("b", "A"));
}

CHECK(rename_dir, "a directory replaces an empty one, not a full one, nor a file; a file replaces no directory")
{
	OK(mkdir("a", 0755));
	touch("a/f");
	OK(mkdir("empty", 0755));
	OK(mkdir("full", 0755));
	touch("full/f");
	touch("file");
	ERR2(rename("a", "full"), ENOTEMPTY, EEXIST);
	ERR(rename("a", "file"), ENOTDIR);
	ERR(rename("file", "a"), EISDIR);
	ERR(rename("file", "empty"), EISDIR);
	OK(rename("a", "empty"));
	EXPECT(exists("empty/f"));
	EXPECT(!exists("a"));
	OK(rename("empty", "b/"));
	EXPECT(exists("b/f"));
}

CHECK(rename_errors, "rename: missing, into itself, over an ancestor, dot, bad flags")
{
	OK(mkdir("a", 0755));
	OK(mkdir("a/b", 0755));
	OK(mkdir("a/b/c", 0755));
	touch("f");
	ERR(rename("no", "x"), ENOENT);
	ERR(rename("f", "no/x"), ENOENT);
	ERR(rename("a", "a/b/x"), EINVAL);
	ERR(rename("a", "a/x"), EINVAL);
	ERR(rename("a", "a/b"), EINVAL);
	ERR2(rename("a/b/c", "a"), ENOTEMPTY, EEXIST);
	ERR2(rename("a/b/c", "a/b"), ENOTEMPTY, EEXIST);
	ERR2(rename("a/.", "x"), EBUSY, EINVAL);
	ERR2(rename("a", "."), EBUSY, EINVAL);
	ERR(rename("f", "x/"), ENOTDIR);
	ERR(rename("f", "f/x"), ENOTDIR);
	ERR(rename2("f", "x", RENAME_NOREPLACE | RENAME_EXCHANGE), EINVAL);
	ERR(rename2("f", "x", 1u << 20), EINVAL);
	EXPECT(exists("f"));
	EXPECT(exists("a/b/c"));
}

CHECK(rename_loop, "moves that would detach a tree are refused also after the tree was moved about")
{
	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	OK(mkdir("a/c", 0755));
	OK(rename("b", "a/c/b"));
	ERR(rename("a", "a/c/b/a"), EINVAL);
	ERR(rename("a/c", "a/c/b/c"), EINVAL);
	OK(rename("a/c", "c"));
	OK(rename("a", "c/b/a"));
	EXPECT(exists("c/b/a"));
}

CHECK(rename_noreplace, "RENAME_NOREPLACE: EEXIST where something is, else a plain rename")
{
	put_file("a", "A");
	put_file("b", "B");
	OK(symlink("nowhere", "s"));
	ERR(rename2("a", "b", RENAME_NOREPLACE), EEXIST);
	ERR(rename2("a", "s", RENAME_NOREPLACE), EEXIST);
	ERR(rename2("no", "x", RENAME_NOREPLACE), ENOENT);
	EXPECT(file_is("a", "A"));
	EXPECT(file_is("b", "B"));
	OK(rename2("a", "c", RENAME_NOREPLACE));
	EXPECT(file_is("c", "A"));
	EXPECT(!exists("a"));
}

CHECK(rename_exchange, "RENAME_EXCHANGE: two files, file and directory, across directories; ENOENT if one is missing")
{
	ino_t a, d;

	put_file("a", "A");
	put_file("b", "B");
	OK(rename2("a", "b", RENAME_EXCHANGE));
	EXPECT(file_is("a", "B"));
	EXPECT(file_is("b", "A"));
	ERR(rename2("a", "no", RENAME_EXCHANGE), ENOENT);
	ERR(rename2("no", "a", RENAME_EXCHANGE), ENOENT);
	OK(mkdir("d", 0755));
	touch("d/x");
	OK(mkdir("e", 0755));
	a = ino_of("a");
	OK(rename2("a", "d/x", RENAME_EXCHANGE));
	IS(ino_of("d/x"), a);
	d = ino_of("d");
	OK(rename2("d", "b", RENAME_EXCHANGE));
	IS(ino_of("b"), d);
	EXPECT(file_is("d", "A"));
	OK(mkdir("e/sub", 0755));
	OK(rename2("b", "e/sub", RENAME_EXCHANGE));	/* dot-dot of both must follow */
	IS(ino_of("b/.."), ino_of("."));
	IS(ino_of("e/sub/.."), ino_of("e"));
	EXPECT(exists("e/sub/x"));
	ERR(rename2("e", "e/sub", RENAME_EXCHANGE), EINVAL);
	ERR(rename2("e/sub", "e", RENAME_EXCHANGE), EINVAL);
}

CHECK(rename_open, "a file that is replaced while open goes on living for who has it open")
{
	char buf[8];
	int fd;

	put_file("a", "new");
	put_file("b", "old");
	fd = OK(open("b", O_RDWR));
	OK(rename("a", "b"));
	IS(fstat_of(fd).st_nlink, 0);
	IS(pread(fd, buf, 8, 0), 3);
	EXPECT(!memcmp(buf, "old", 3));
	IS(pwrite(fd, "OLD!", 4, 0), 4);
	IS(fstat_of(fd).st_size, 4);
	EXPECT(file_is("b", "new"));
	IS(pread(fd, buf, 8, 0), 4);
	EXPECT(!memcmp(buf, "OLD!", 4));
}

CHECK(rename_open_moved, "an open file and an open directory keep working while they are moved")
{
	int fd, dfd;

	OK(mkdir("d", 0755));
	put_file("d/f", "x");
	fd = OK(open("d/f", O_RDWR));
	dfd = OK(open("d", O_RDONLY | O_DIRECTORY));
	OK(rename("d", "e"));
	OK(rename("e/f", "g"));
	IS(pwrite(fd, "yz", 2, 0), 2);
	EXPECT(file_is("g", "yz"));
	OK(openat(dfd, "new", O_CREAT | O_RDWR, 0644));
	EXPECT(exists("e/new"));
}

CHECK(rename_times, "rename changes mtime and ctime of both directories and ctime of the file, not its mtime")
{
	struct stat d1, d2, f1, a, b, f2;

	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	touch("a/f");
	a = stat_of("a");
	b = stat_of("b");
	f1 = stat_of("a/f");
	tick();
	OK(rename("a/f", "b/f"));
	d1 = stat_of("a");
	d2 = stat_of("b");
	f2 = stat_of("b/f");
	EXPECT(ns_of(d1.st_mtim) > ns_of(a.st_mtim) && ns_of(d1.st_ctim) > ns_of(a.st_ctim));
	EXPECT(ns_of(d2.st_mtim) > ns_of(b.st_mtim) && ns_of(d2.st_ctim) > ns_of(b.st_ctim));
	EXPECT(ns_of(f2.st_ctim) > ns_of(f1.st_ctim));
	IS(ns_of(f2.st_mtim), ns_of(f1.st_mtim));
}

CHECK(dir_times, "making and removing names changes mtime and ctime of the directory, failing does not")
{
	struct stat before, after;

	OK(mkdir("d", 0755));
	put_file("f", "");
	for (int i = 0; i < 6; i++) {
		before = stat_of("d");
		tick();
		switch (i) {
		case 0: touch("d/f"); break;
		case 1: OK(mkdir("d/d", 0755)); break;
		case 2: OK(symlink("x", "d/s")); break;
		case 3: OK(link("f", "d/l")); break;
		case 4: OK(unlink("d/f")); break;
		case 5: OK(rmdir("d/d")); break;
		}
		after = stat_of("d");
		if (ns_of(after.st_mtim) <= ns_of(before.st_mtim) || ns_of(after.st_ctim) <= ns_of(before.st_ctim))
			die("change %d did not change the directory's times", i);
	}
	before = stat_of("d");
	tick();
	ERR(mkdir("d/s", 0755), EEXIST);
	ERR(unlink("d/no"), ENOENT);
	after = stat_of("d");
	IS(ns_of(after.st_mtim), ns_of(before.st_mtim));
	IS(ns_of(after.st_ctim), ns_of(before.st_ctim));
}

CHECK(ctime_links, "link and unlink change the file's ctime, not its mtime")
{
	struct stat a, b;

	touch("f");
	a = stat_of("f");
	tick();
	OK(link("f", "g"));
	b = stat_of("f");
	EXPECT(ns_of(b.st_ctim) > ns_of(a.st_ctim));
	IS(ns_of(b.st_mtim), ns_of(a.st_mtim));
	tick();
	OK(unlink("g"));
	a = stat_of("f");
	EXPECT(ns_of(a.st_ctim) > ns_of(b.st_ctim));
}

CHECK(ino_stable, "st_ino and st_dev stay through rename, link, open and change; all of the tree is one device")
{
	dev_t dev = stat_of(".").st_dev;
	ino_t ino;
	int fd;

	OK(mkdir("d", 0755));
	fd = OK(open("f", O_CREAT | O_RDWR, 0644));
	ino = fstat_of(fd).st_ino;
	OK(rename("f", "d/g"));
	OK(link("d/g", "h"));
	OK(chmod("h", 0600));
	IS(write(fd, "x", 1), 1);
	IS(ino_of("d/g"), ino);
	IS(ino_of("h"), ino);
	IS(fstat_of(fd).st_ino, ino);
	IS(stat_of("d").st_dev, dev);
	IS(fstat_of(fd).st_dev, dev);
	OK(symlink("x", "s"));
	IS(stat_of("s").st_dev, dev);
	EXPECT(ino_of("s") != ino && ino_of("d") != ino);
}

int main(int argc, char **argv)
{
	return run_checks(argc, argv);
}
