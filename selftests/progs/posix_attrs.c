/* SPDX-License-Identifier: MIT */
/*
 * posix_attrs.c - attributes and who may do what: modes, owners, times, set-id bits and what takes them
 * away, sticky and set-gid directories, ACLs and their inheritance, access by other users, statfs.
 */
#include "prog.h"

#include <acl/libacl.h>
#include <linux/capability.h>
#include <sys/acl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#define U1 1001
#define U2 1002
#define G1 2001
#define G2 2002

static void make(const char *path, mode_t mode, uid_t uid, gid_t gid)
{
	put_file(path, "x");
	OK(chown(path, uid, gid));
	OK(chmod(path, mode));
}

static mode_t perm(const char *path)
{
	return stat_of(path).st_mode & 07777;
}

/* ---- modes -------------------------------------------------------------------------------------- */
CHECK(chmod_bits, "chmod sets all twelve bits of files and directories, and nothing else")
{
	static const mode_t modes[] = { 0, 0777, 0644, 04755, 02755, 01777, 06777, 07777, 0100, 0001 };

	make("f", 0644, 0, 0);
	OK(mkdir("d", 0755));
	for (size_t i = 0; i < N_OF(modes); i++) {
		OK(chmod("f", modes[i]));
		OK(chmod("d", modes[i]));
		IS(stat_of("f").st_mode, S_IFREG | modes[i]);
		IS(stat_of("d").st_mode, S_IFDIR | modes[i]);
	}
	ERR(chmod("no", 0644), ENOENT);
}

CHECK(chmod_times, "chmod changes ctime, not mtime")
{
	struct stat a, b;

	make("f", 0644, 0, 0);
	a = stat_of("f");
	tick();
	OK(chmod("f", 0600));
	b = stat_of("f");
	EXPECT(ns_of(b.st_ctim) > ns_of(a.st_ctim));
	IS(ns_of(b.st_mtim), ns_of(a.st_mtim));
}

CHECK(chmod_owner, "only the owner changes the mode; who is not in the group loses the set-gid bit")
{
	make("f", 0644, U1, G1);
	AS(U2, G1, { ERR(chmod("f", 0666), EPERM); });
	AS(U1, G1, { OK(chmod("f", 02755)); });
	IS(perm("f"), 02755);
	AS(U1, G2, { OK(chmod("f", 02750)); });
	IS(perm("f"), 0750);
}

CHECK(fchmod_open, "fchmod works through a read-only descriptor, and does not close what is open")
{
	char c;
	int fd;

	make("f", 0644, 0, 0);
	fd = OK(open("f", O_RDONLY));
	OK(fchmod(fd, 0));
	IS(perm("f"), 0);
	IS(pread(fd, &c, 1, 0), 1);
}

/* ---- owners ------------------------------------------------------------------------------------- */
CHECK(chown_root, "root changes owner and group, either alone, also beyond 16 bits")
{
	make("f", 0644, 0, 0);
	OK(chown("f", 70000, 80000));
	IS(stat_of("f").st_uid, 70000);
	IS(stat_of("f").st_gid, 80000);
	OK(chown("f", (uid_t)-1, 5));
	IS(stat_of("f").st_uid, 70000);
	IS(stat_of("f").st_gid, 5);
	OK(chown("f", 6, (gid_t)-1));
	IS(stat_of("f").st_uid, 6);
	IS(stat_of("f").st_gid, 5);
	OK(chown("f", 4294967294u, 4294967294u));
	IS(stat_of("f").st_uid, 4294967294u);
}

CHECK(chown_user, "an owner gives the file to a group of his, to nobody else; others change nothing")
{
	gid_t more[] = { G2 };

	make("f", 0644, U1, G1);
	AS(U1, G1, { ERR(chown("f", U2, (gid_t)-1), EPERM); });
	AS(U1, G1, { ERR(chown("f", (uid_t)-1, G2), EPERM); });
	AS(U2, G1, { ERR(chown("f", (uid_t)-1, G1), EPERM); });
	AS_GROUPS(U1, G1, 1, more, { OK(chown("f", (uid_t)-1, G2)); });
	IS(stat_of("f").st_gid, G2);
	AS(U1, G2, { OK(chown("f", U1, G2)); });
}

CHECK(chown_symlink, "lchown changes the symlink, chown its target")
{
	make("f", 0644, 0, 0);
	OK(symlink("f", "s"));
	OK(lchown("s", U1, G1));
	IS(stat_of("s").st_uid, U1);
	IS(stat_of("f").st_uid, 0);
	OK(chown("s", U2, G2));
	IS(stat_of("s").st_uid, U1);
	IS(stat_of("f").st_uid, U2);
}

CHECK(chown_setid, "chown takes the set-id bits of a file, not of a directory, nor a set-gid without group x")
{
	gid_t more[] = { G2 };

	make("f", 06755, U1, G1);
	OK(chown("f", U2, G1));
	IS(perm("f"), 0755);
	make("g", 06755, U1, G1);
	AS_GROUPS(U1, G1, 1, more, { OK(chown("g", (uid_t)-1, G2)); });
	IS(perm("g"), 0755);
	make("l", 06745, U1, G1);
	OK(chown("l", U2, G1));
	IS(perm("l"), 02745);
	OK(mkdir("d", 0755));
	OK(chmod("d", 06755));
	OK(chown("d", U1, G1));
	IS(perm("d"), 06755);
}

CHECK(write_setid, "a write by an unprivileged process takes the set-id bits, by root it does not")
{
	make("f", 06777, U1, G1);
	AS(U2, G2, {
		int fd = OK(open("f", O_WRONLY));

		IS(write(fd, "y", 1), 1);
	});
	IS(perm("f"), 0777);
	OK(chmod("f", 06777));
	IS(write(OK(open("f", O_WRONLY)), "z", 1), 1);
	IS(perm("f"), 06777);
	OK(chmod("f", 06767));	/* set-gid without group x stays: it is no privilege */
	AS(U2, G1, { IS(write(OK(open("f", O_WRONLY)), "y", 1), 1); });
	IS(perm("f"), 02767);
}

CHECK(truncate_setid, "truncate and O_TRUNC by an unprivileged process take the set-id bits")
{
	make("f", 06777, U1, G1);
	AS(U2, G2, { OK(truncate("f", 0)); });
	IS(perm("f"), 0777);
	make("g", 06777, U1, G1);
	AS(U2, G2, { OK(open("g", O_WRONLY | O_TRUNC)); });
	IS(perm("g"), 0777);
}

CHECK(fallocate_setid, "fallocate by an unprivileged process takes the set-id bits")
{
	make("f", 06777, U1, G1);
	AS(U2, G2, {
		if (fallocate(OK(open("f", O_RDWR)), 0, 0, 8192) && errno == EOPNOTSUPP)
			_exit(0);
	});
	if (stat_of("f").st_size == 1)
		SKIP("no fallocate here");
	IS(perm("f"), 0777);
}

CHECK(write_caps, "a write by an unprivileged process takes file capabilities away")
{
	struct vfs_cap_data caps = { .magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE,
				     .data[0].permitted = 1u << CAP_NET_RAW };
	char buf[64];

	make("f", 0777, U1, G1);
	OK(setxattr("f", "security.capability", &caps, sizeof(caps), 0));
	IS(getxattr("f", "security.capability", buf, sizeof(buf)), sizeof(caps));
	AS(U2, G2, { IS(write(OK(open("f", O_WRONLY)), "y", 1), 1); });
	ERR(getxattr("f", "security.capability", buf, sizeof(buf)), ENODATA);
}

CHECK(suid_exec, "a set-uid program runs as its owner")
{
	char out[32] = "";

	OK(system("cp /usr/bin/id id && chown 1001:2001 id && chmod 6755 id"));
	AS(U2, G2, {
		FILE *p = popen("./id -u", "r");

		EXPECT(p && fgets(out, sizeof(out), p));
		if (atoi(out) != U1)
			die("it ran as %s", out);
	});
}

/* ---- creating in special directories, umask ------------------------------------------------------ */
CHECK(umask_all, "umask applies to open, mkdir, mknod, mkfifo")
{
	umask(0137);
	OK(open("f", O_CREAT | O_RDWR, 0777));
	OK(mkdir("d", 0777));
	OK(mknod("n", S_IFREG | 0777, 0));
	OK(mkfifo("p", 0777));
	IS(perm("f"), 0640);
	IS(perm("d"), 0640);
	IS(perm("n"), 0640);
	IS(perm("p"), 0640);
}

CHECK(setgid_dir, "in a set-gid directory everything gets its group, directories the bit too")
{
	OK(mkdir("d", 0755));
	OK(chown("d", 0, G1));
	OK(chmod("d", 02777));
	AS(U1, G2, {
		umask(0);
		OK(open("d/f", O_CREAT | O_RDWR, 0644));
		OK(mkdir("d/d", 0755));
		OK(symlink("x", "d/s"));
		OK(mkfifo("d/p", 0644));
		OK(open("d/g", O_CREAT | O_RDWR, 02775));	/* not in that group: the bit goes */
	});
	IS(stat_of("d/f").st_gid, G1);
	IS(stat_of("d/f").st_uid, U1);
	IS(stat_of("d/d").st_gid, G1);
	IS(perm("d/d"), 02755);
	IS(stat_of("d/s").st_gid, G1);
	IS(stat_of("d/p").st_gid, G1);
	IS(perm("d/g"), 0775);
}

CHECK(create_gid, "elsewhere a new file gets its maker's group")
{
	OK(chmod(".", 0777));
	AS(U1, G2, { OK(open("f", O_CREAT | O_RDWR, 0644)); });
	IS(stat_of("f").st_uid, U1);
	IS(stat_of("f").st_gid, G2);
}

CHECK(sticky, "in a sticky directory only the owner of a file or of the directory removes or renames it")
{
	OK(mkdir("d", 0755));
	OK(chmod("d", 01777));
	make("d/a", 0666, U1, G1);
	make("d/b", 0666, U1, G1);
	make("d/c", 0666, U1, G1);
	OK(mkdir("d/d", 0777));
	OK(chown("d/d", U1, G1));
	AS(U2, G2, {
		ERR(unlink("d/a"), EPERM);
		ERR(rename("d/a", "d/x"), EPERM);
		ERR(rmdir("d/d"), EPERM);
		OK(open("d/mine", O_CREAT | O_RDWR, 0644));
		ERR(rename("d/mine", "d/a"), EPERM);
		OK(rename("d/mine", "d/mine2"));
		OK(unlink("d/mine2"));
	});
	AS(U1, G1, {
		OK(unlink("d/a"));
		OK(rename("d/b", "d/x"));
		OK(rmdir("d/d"));
	});
	OK(chown("d", U2, G2));
	AS(U2, G2, { OK(unlink("d/c")); });
}

/* ---- access by others ------------------------------------------------------------------------------ */
CHECK(access_classes, "owner, group and others get exactly what their three bits say")
{
	static const int want[] = { O_RDONLY, O_WRONLY, O_RDWR };
	static const int need[] = { 4, 2, 6 };

	make("f", 0, U1, G1);
	for (mode_t bits = 0; bits < 8; bits++) {
		for (int class = 0; class < 3; class++) {
			OK(chmod("f", bits << (6 - 3 * class)));
			for (int i = 0; i < 3; i++) {
				bool may = (bits & (mode_t)need[i]) == (mode_t)need[i];

				AS(class == 0 ? U1 : U2, class == 1 ? G1 : G2, {
					int fd = open("f", want[i]);

					if ((fd >= 0) != may || (fd < 0 && errno != EACCES))
						die("bits %o of class %d, open mode %d: %s", bits, class, want[i],
						    fd < 0 ? strerror(errno) : "opened");
				});
			}
		}
	}
}

CHECK(access_supplementary, "supplementary groups count")
{
	gid_t more[] = { 7, 8, G1, 9 };

	make("f", 0060, 0, G1);
	AS_GROUPS(U1, G2, 4, more, { OK(open("f", O_RDWR)); });
	AS_GROUPS(U1, G2, 2, more, { ERR(open("f", O_RDWR), EACCES); });
}

CHECK(access_dir, "directories: r lists, x passes, w and x change; without them EACCES")
{
	struct stat st;

	OK(mkdir("d", 0755));
	OK(chown("d", U1, G1));
	make("d/f", 0666, U1, G1);
	OK(chmod("d", 0744));
	AS(U2, G2, {
		OK(open("d", O_RDONLY | O_DIRECTORY));
		ERR(stat("d/f", &st), EACCES);
		ERR(open("d/f", O_RDONLY), EACCES);
		ERR(stat("d/none", &st), EACCES);
	});
	OK(chmod("d", 0711));
	AS(U2, G2, {
		ERR(open("d", O_RDONLY | O_DIRECTORY), EACCES);
		OK(stat("d/f", &st));
		ERR(stat("d/none", &st), ENOENT);
		OK(open("d/f", O_RDWR));
		ERR(unlink("d/f"), EACCES);
		ERR(open("d/g", O_CREAT | O_RDWR, 0644), EACCES);
		ERR(mkdir("d/g", 0755), EACCES);
		ERR(rename("d/f", "d/g"), EACCES);
		ERR(link("d/f", "d/g"), EACCES);
		ERR(symlink("x", "d/g"), EACCES);
	});
	OK(chmod("d", 0733));
	AS(U2, G2, {
		OK(mkdir("d/g", 0755));
		OK(rename("d/f", "d/h"));
		OK(unlink("d/h"));
	});
}

CHECK(access_root, "root reads and writes anything, but executes only what somebody may; access(2) agrees")
{
	make("f", 0, U1, G1);
	OK(open("f", O_RDWR));
	OK(access("f", R_OK | W_OK));
	ERR(access("f", X_OK), EACCES);
	OK(chmod("f", 0001));
	OK(access("f", X_OK));
	OK(mkdir("d", 0));
	OK(access("d", X_OK));
	AS(U2, G2, {
		ERR(access("f", R_OK), EACCES);
		OK(access("f", X_OK));
		OK(access("f", F_OK));
		ERR(access("d/x", F_OK), EACCES);
	});
}

CHECK(access_revoked, "what chmod or chown takes away is gone at the next call; open descriptors stay")
{
	int pipes[2], back[2], fd;
	pid_t pid;
	char c;

	make("f", 0644, 0, 0);
	OK(pipe(pipes));
	OK(pipe(back));
	pid = CHILD({
		OK(setgid(G2));
		OK(setuid(U2));
		fd = OK(open("f", O_RDONLY));
		OK(write(back[1], "1", 1));
		OK(read(pipes[0], &c, 1));
		ERR(open("f", O_RDONLY), EACCES);
		IS(pread(fd, &c, 1, 0), 1);
	});
	OK(read(back[0], &c, 1));
	OK(chmod("f", 0600));
	OK(write(pipes[1], "1", 1));
	REAP(pid);
}

CHECK(access_fsuid, "setfsuid alone changes whose rights count")
{
	make("f", 0600, U1, G1);
	setfsgid(G2);
	setfsuid(U2);
	ERR(open("f", O_RDONLY), EACCES);
	setfsuid(U1);
	OK(open("f", O_RDONLY));
	setfsuid(0);
	OK(open("f", O_RDWR));
}

CHECK(noatime_owner, "O_NOATIME is for the owner")
{
	make("f", 0666, U1, G1);
	AS(U1, G1, { OK(open("f", O_RDONLY | O_NOATIME)); });
	AS(U2, G2, { ERR(open("f", O_RDONLY | O_NOATIME), EPERM); });
}

/* ---- times ---------------------------------------------------------------------------------------- */
static void set_times(const char *path, int64_t at_sec, long at_ns, int64_t mt_sec, long mt_ns)
{
	struct timespec ts[2] = { { at_sec, at_ns }, { mt_sec, mt_ns } };

	OK(utimensat(AT_FDCWD, path, ts, AT_SYMLINK_NOFOLLOW));
}

CHECK(utimens_exact, "utimensat sets times to the nanosecond, before 1970 and after 2038 too")
{
	static const int64_t secs[] = { 0, 1, 1000000000, -1, -1000000, 2147483648, 4294967296, 10000000000 };
	struct stat st;

	put_file("f", "x");
	for (size_t i = 0; i < N_OF(secs); i++) {
		set_times("f", secs[i], 123456789, secs[i] / 2, 987654321);
		st = stat_of("f");
		IS(st.st_atim.tv_sec, secs[i]);
		IS(st.st_atim.tv_nsec, 123456789);
		IS(st.st_mtim.tv_sec, secs[i] / 2);
		IS(st.st_mtim.tv_nsec, 987654321);
	}
}

CHECK(utimens_special, "UTIME_NOW and UTIME_OMIT; both omitted changes nothing; ctime always moves on")
{
	struct timespec omit[2] = { { 0, UTIME_OMIT }, { 0, UTIME_OMIT } };
	struct stat a, b;
	time_t now = time(NULL);

	put_file("f", "x");
	set_times("f", 1000, 1, 2000, 2);
	a = stat_of("f");
	EXPECT(a.st_ctim.tv_sec >= now - 1);
	tick();
	OK(utimensat(AT_FDCWD, "f", omit, 0));
	b = stat_of("f");
	IS(ns_of(b.st_ctim), ns_of(a.st_ctim));
	set_times("f", 0, UTIME_OMIT, 3000, 3);
	b = stat_of("f");
	IS(b.st_atim.tv_sec, 1000);
	IS(b.st_atim.tv_nsec, 1);
	IS(b.st_mtim.tv_sec, 3000);
	EXPECT(ns_of(b.st_ctim) > ns_of(a.st_ctim));
	set_times("f", 0, UTIME_NOW, 0, UTIME_OMIT);
	b = stat_of("f");
	EXPECT(b.st_atim.tv_sec >= now - 1 && b.st_atim.tv_sec < now + 60);
	IS(b.st_mtim.tv_sec, 3000);
	OK(utimensat(AT_FDCWD, "f", NULL, 0));
	EXPECT(stat_of("f").st_mtim.tv_sec >= now - 1);
}

CHECK(utimens_symlink, "times of a symlink itself, of a directory, of a fifo")
{
	put_file("f", "x");
	OK(symlink("f", "s"));
	OK(mkdir("d", 0755));
	OK(mkfifo("p", 0644));
	set_times("s", 10, 1, 20, 2);
	set_times("d", 30, 3, 40, 4);
	set_times("p", 50, 5, 60, 6);
	IS(stat_of("s").st_mtim.tv_sec, 20);
	EXPECT(stat_of("f").st_mtim.tv_sec > 1000);
	IS(stat_of("d").st_mtim.tv_nsec, 4);
	IS(stat_of("p").st_atim.tv_sec, 50);
}

CHECK(utimens_rights, "explicit times are for the owner, the present time for writers too")
{
	struct timespec ts[2] = { { 1, 0 }, { 1, 0 } };

	make("f", 0666, U1, G1);
	make("g", 0644, U1, G1);
	AS(U2, G2, {
		ERR(utimensat(AT_FDCWD, "f", ts, 0), EPERM);
		OK(utimensat(AT_FDCWD, "f", NULL, 0));
		ERR(utimensat(AT_FDCWD, "g", NULL, 0), EACCES);
	});
	AS(U1, G1, { OK(utimensat(AT_FDCWD, "g", ts, 0)); });
}

CHECK(utimens_open, "times set through a descriptor that has written stay, also after close and fsync")
{
	struct timespec ts[2] = { { 100, 1 }, { 200, 2 } };
	int fd = OK(open("f", O_CREAT | O_RDWR, 0644));

	IS(write(fd, "data", 4), 4);
	OK(futimens(fd, ts));
	IS(stat_of("f").st_mtim.tv_sec, 200);
	OK(fsync(fd));
	IS(stat_of("f").st_mtim.tv_sec, 200);
	OK(close(fd));
	IS(stat_of("f").st_mtim.tv_sec, 200);
	IS(stat_of("f").st_atim.tv_sec, 100);
}

CHECK(write_times, "write and truncate change mtime and ctime, reading does not")
{
	struct stat a, b;
	char c;
	int fd = OK(open("f", O_CREAT | O_RDWR, 0644));

	for (int i = 0; i < 4; i++) {
		a = fstat_of(fd);
		tick();
		switch (i) {
		case 0: IS(write(fd, "x", 1), 1); break;
		case 1: OK(ftruncate(fd, 100)); break;
		case 2: OK(truncate("f", 50)); break;
		case 3: IS(pwrite(fd, "y", 1, 0), 1); break;
		}
		b = fstat_of(fd);
		if (ns_of(b.st_mtim) <= ns_of(a.st_mtim) || ns_of(b.st_ctim) <= ns_of(a.st_ctim))
			die("change %d did not change the times", i);
		a = stat_of("f");
		IS(ns_of(a.st_mtim), ns_of(b.st_mtim));
	}
	tick();
	IS(pread(fd, &c, 1, 0), 1);
	IS(ns_of(stat_of("f").st_mtim), ns_of(b.st_mtim));
	OK(close(fd));
	OK(close(OK(open("f", O_RDWR))));
	IS(ns_of(stat_of("f").st_mtim), ns_of(b.st_mtim));
	IS(ns_of(stat_of("f").st_ctim), ns_of(b.st_ctim));
}

CHECK(times_order, "times of files made one after the other do not go back, and are this machine's time")
{
	char name[16];
	int64_t last = 0, now;
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	for (int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		put_file(name, "x");
		now = ns_of(stat_of(name).st_mtim);
		EXPECT(now >= last);
		last = now;
	}
	EXPECT(last > ns_of(ts) - 1000000000 && last < ns_of(ts) + 30000000000);
}

/* ---- ACLs ----------------------------------------------------------------------------------------- */
static void set_acl(const char *path, acl_type_t type, const char *text)
{
	acl_t acl = acl_from_text(text);

	EXPECT(acl);
	if (acl_set_file(path, type, acl)) {
		if (errno == EOPNOTSUPP && !on_fuse("."))
			SKIP("this file system has no ACLs");
		die("acl_set_file %s: %s", path, strerror(errno));
	}
	acl_free(acl);
}

static void acl_is(const char *path, acl_type_t type, const char *wanted)
{
	acl_t acl = acl_get_file(path, type);
	char *text;

	EXPECT(acl);
	text = acl_to_any_text(acl, NULL, ',', TEXT_ABBREVIATE);
	EXPECT(text);
	if (strcmp(text, wanted))
		die("ACL of %s is %s, not %s", path, text, wanted);
	acl_free(text);
	acl_free(acl);
}

CHECK(acl_access, "an access ACL lets a named user and group in, within the mask")
{
	make("f", 0600, 0, 0);
	set_acl("f", ACL_TYPE_ACCESS, "u::rw,u:1001:rw,g::-,g:2002:r,m::rw,o::-");
	IS(perm("f"), 0660);	/* the group bits show the mask */
	AS(U1, G1, { OK(open("f", O_RDWR)); });
	AS(U2, G2, {
		OK(open("f", O_RDONLY));
		ERR(open("f", O_RDWR), EACCES);
	});
	AS(U2, G1, { ERR(open("f", O_RDONLY), EACCES); });
	OK(chmod("f", 0640));	/* sets the mask */
	AS(U1, G1, {
		ERR(open("f", O_RDWR), EACCES);
		OK(open("f", O_RDONLY));
	});
	acl_is("f", ACL_TYPE_ACCESS, "u::rw-,u:1001:rw-,g::---,g:2002:r--,m::r--,o::---");
}

CHECK(acl_minimal, "an ACL that says no more than a mode becomes the mode; removing one leaves the mode")
{
	make("f", 0600, 0, 0);
	set_acl("f", ACL_TYPE_ACCESS, "u::rw,g::r,o::r");
	IS(perm("f"), 0644);
	ERR(getxattr("f", "system.posix_acl_access", NULL, 0), ENODATA);
	set_acl("f", ACL_TYPE_ACCESS, "u::rw,u:1001:rw,g::r,m::rw,o::-");
	OK(removexattr("f", "system.posix_acl_access"));
	ERR(getxattr("f", "system.posix_acl_access", NULL, 0), ENODATA);
	AS(U1, G1, { ERR(open("f", O_RDWR), EACCES); });
}

CHECK(acl_default, "a default ACL gives new files their ACL instead of umask, and passes to directories")
{
	OK(mkdir("d", 0755));
	set_acl("d", ACL_TYPE_DEFAULT, "u::rwx,u:1001:rwx,g::rx,m::rwx,o::-");
	umask(077);
	OK(open("d/f", O_CREAT | O_RDWR, 0666));
	OK(mkdir("d/d", 0777));
	OK(mkfifo("d/p", 0640));
	OK(symlink("x", "d/s"));
	IS(perm("d/f"), 0660);
	acl_is("d/f", ACL_TYPE_ACCESS, "u::rw-,u:1001:rwx,g::r-x,m::rw-,o::---");
	IS(perm("d/d"), 0770);
	acl_is("d/d", ACL_TYPE_DEFAULT, "u::rwx,u:1001:rwx,g::r-x,m::rwx,o::---");
	acl_is("d/d", ACL_TYPE_ACCESS, "u::rwx,u:1001:rwx,g::r-x,m::rwx,o::---");
	IS(perm("d/p"), 0640);
	IS(perm("d/s"), 0777);
	OK(chmod(".", 0755));
	AS(U1, G1, { OK(open("d/f", O_RDWR)); });
}

CHECK(acl_default_minimal, "a default ACL of three entries replaces umask too")
{
	OK(mkdir("d", 0755));
	set_acl("d", ACL_TYPE_DEFAULT, "u::rwx,g::rwx,o::rx");
	umask(077);
	OK(open("d/f", O_CREAT | O_RDWR, 0666));
	IS(perm("d/f"), 0664);
	OK(mkdir("d/d", 0777));
	IS(perm("d/d"), 0775);
	acl_is("d/d", ACL_TYPE_DEFAULT, "u::rwx,g::rwx,o::r-x");
	OK(removexattr("d", "system.posix_acl_default"));
	OK(open("d/g", O_CREAT | O_RDWR, 0666));
	IS(perm("d/g"), 0600);
}

CHECK(acl_rights, "only the owner sets ACLs, a default one only on directories; who is not in the group loses set-gid")
{
	make("f", 0644, U1, G1);
	OK(mkdir("d", 0777));
	OK(chmod("d", 0777));
	AS(U2, G2, {
		acl_t acl = acl_from_text("u::rw,u:1001:rw,g::r,m::rw,o::-");

		ERR(acl_set_file("f", ACL_TYPE_ACCESS, acl), EPERM);
		ERR(acl_set_file("d", ACL_TYPE_DEFAULT, acl), EPERM);
	});
	ERR2(acl_set_file("f", ACL_TYPE_DEFAULT, acl_from_text("u::rw,g::r,o::-")), EACCES, EOPNOTSUPP);
	OK(chmod("f", 02755));
	AS(U1, G2, { OK(acl_set_file("f", ACL_TYPE_ACCESS, acl_from_text("u::rwx,u:1002:rw,g::rx,m::rwx,o::rx"))); });
	IS(perm("f"), 0775);
}

/* ---- the rest ------------------------------------------------------------------------------------- */
CHECK(statfs_sane, "statfs: sizes that fit each other, names of 255 bytes")
{
	struct statvfs v;

	OK(statvfs(".", &v));
	EXPECT(v.f_bsize >= 512 && v.f_frsize >= 512);
	EXPECT(v.f_blocks > 0);
	EXPECT(v.f_bfree <= v.f_blocks);
	EXPECT(v.f_bavail <= v.f_bfree);
	EXPECT(v.f_blocks * v.f_frsize >= (64u << 20));
	EXPECT(v.f_ffree <= v.f_files || v.f_files == 0);
	IS(v.f_namemax, 255);
}

CHECK(stat_blksize, "st_blksize is sane, an empty file has 0 blocks, a stored one what it stores")
{
	static char data[65536];
	struct stat st;
	int fd = OK(open("f", O_CREAT | O_RDWR, 0644));

	st = fstat_of(fd);
	EXPECT(st.st_blksize >= 512 && st.st_blksize <= 16 << 20);
	IS(st.st_blocks, 0);
	memset(data, 1, sizeof(data));
	for (int i = 0; i < 16; i++)
		IS(write(fd, data, sizeof(data)), sizeof(data));
	OK(fsync(fd));
	st = fstat_of(fd);
	EXPECT(st.st_blocks >= 2048 && st.st_blocks <= 2 * 2048);
	OK(ftruncate(fd, 0));
	IS(fstat_of(fd).st_blocks, 0);
}

CHECK(btime, "the birth time, where there is one, does not change and is not before the test")
{
	struct statx a, b;

	put_file("f", "x");
	OK(syscall(SYS_statx, AT_FDCWD, "f", 0, STATX_BTIME | STATX_BASIC_STATS, &a));
	if (!(a.stx_mask & STATX_BTIME))
		SKIP("no birth time here");
	EXPECT(a.stx_btime.tv_sec >= time(NULL) - 60);
	tick();
	put_file("f", "longer");
	OK(chmod("f", 0600));
	OK(syscall(SYS_statx, AT_FDCWD, "f", 0, STATX_BTIME | STATX_BASIC_STATS, &b));
	IS(b.stx_btime.tv_sec, a.stx_btime.tv_sec);
	IS(b.stx_btime.tv_nsec, a.stx_btime.tv_nsec);
}

CHECK(rlimit_fsize, "RLIMIT_FSIZE: a write and a truncate beyond it are EFBIG with SIGXFSZ")
{
	struct rlimit lim = { 10000, 10000 };
	static char data[8192];
	int fd = OK(open("f", O_CREAT | O_RDWR, 0644));

	signal(SIGXFSZ, SIG_IGN);
	OK(setrlimit(RLIMIT_FSIZE, &lim));
	IS(write(fd, data, 8192), 8192);
	IS(write(fd, data, 8192), 10000 - 8192);
	ERR(write(fd, data, 8192), EFBIG);
	ERR(ftruncate(fd, 10001), EFBIG);
	IS(fstat_of(fd).st_size, 10000);
}

int main(int argc, char **argv)
{
	return run_checks(argc, argv);
}
