/* SPDX-License-Identifier: MIT */
/*
 * posix_xattr.c - extended attributes: flags, sizes, lists, limits, name spaces, rights, what keeps them.
 */
#include "prog.h"

#include <linux/limits.h>

static uint8_t value[XATTR_SIZE_MAX + 1], got[XATTR_SIZE_MAX + 1];

static bool lists(const char *path, const char *name)
{
	static char buf[XATTR_LIST_MAX];
	ssize_t n = OK(llistxattr(path, buf, sizeof(buf)));

	for (char *p = buf; p < buf + n; p += strlen(p) + 1)
		if (!strcmp(p, name))
			return true;
	return false;
}

static int count(const char *path)
{
	static char buf[XATTR_LIST_MAX];
	ssize_t n = OK(llistxattr(path, buf, sizeof(buf)));
	int names = 0;

	for (char *p = buf; p < buf + n; p += strlen(p) + 1)
		names += !strncmp(p, "user.", 5);
	return names;
}

CHECK(set_get, "a value comes back as it was set: text, empty, binary, replaced by longer and shorter ones")
{
	put_file("f", "x");
	OK(setxattr("f", "user.a", "value", 5, 0));
	IS(getxattr("f", "user.a", got, 100), 5);
	EXPECT(!memcmp(got, "value", 5));
	OK(setxattr("f", "user.a", "", 0, 0));
	IS(getxattr("f", "user.a", got, 100), 0);
	for (int i = 0; i < 256; i++)
		value[i] = (uint8_t)i;
	OK(setxattr("f", "user.a", value, 256, 0));
	IS(getxattr("f", "user.a", got, 300), 256);
	EXPECT(!memcmp(got, value, 256));
	OK(setxattr("f", "user.a", "x", 1, 0));
	IS(getxattr("f", "user.a", got, 300), 1);
	EXPECT(lists("f", "user.a"));
	OK(removexattr("f", "user.a"));
	ERR(getxattr("f", "user.a", got, 300), ENODATA);
	EXPECT(!lists("f", "user.a"));
}

CHECK(flags, "XATTR_CREATE fails if it is there, XATTR_REPLACE if it is not; remove of none is ENODATA")
{
	put_file("f", "x");
	ERR(setxattr("f", "user.a", "1", 1, XATTR_REPLACE), ENODATA);
	OK(setxattr("f", "user.a", "1", 1, XATTR_CREATE));
	ERR(setxattr("f", "user.a", "2", 1, XATTR_CREATE), EEXIST);
	IS(getxattr("f", "user.a", got, 1), 1);
	IS(got[0], '1');
	OK(setxattr("f", "user.a", "2", 1, XATTR_REPLACE));
	ERR(setxattr("f", "user.a", "2", 1, 4), EINVAL);
	OK(removexattr("f", "user.a"));
	ERR(removexattr("f", "user.a"), ENODATA);
	ERR(getxattr("no", "user.a", got, 1), ENOENT);
	ERR(setxattr("no", "user.a", "1", 1, 0), ENOENT);
}

CHECK(sizes, "size 0 asks for the length, a buffer too small is ERANGE, for values and lists")
{
	put_file("f", "x");
	OK(setxattr("f", "user.abc", "value", 5, 0));
	IS(getxattr("f", "user.abc", NULL, 0), 5);
	ERR(getxattr("f", "user.abc", got, 4), ERANGE);
	EXPECT(listxattr("f", NULL, 0) >= 9);
	ERR(listxattr("f", (char *)got, 3), ERANGE);
	OK(removexattr("f", "user.abc"));
	IS(count("f"), 0);
}

CHECK(value_limit, "values up to 64 KiB are kept or refused with ENOSPC, longer ones are E2BIG")
{
	static const size_t sizes[] = { 100, 1000, 3000, 4096, 10000, 32768, 65535, 65536 };

	put_file("f", "x");
	for (size_t i = 0; i < N_OF(sizes); i++) {
		pattern_fill(value, i, 0, sizes[i]);
		if (setxattr("f", "user.v", value, sizes[i], 0)) {
			if (on_fuse(".") || sizes[i] <= 3000)
				die("%zu bytes: %s", sizes[i], strerror(errno));
			IS(errno, ENOSPC);
			continue;
		}
		IS(getxattr("f", "user.v", got, sizeof(got)), sizes[i]);
		EXPECT(!memcmp(got, value, sizes[i]));
	}
	ERR(setxattr("f", "user.w", value, XATTR_SIZE_MAX + 1, 0), E2BIG);
	EXPECT(!lists("f", "user.w"));
}

CHECK(name_limit, "names of 255 bytes work, of 256 are ERANGE, an empty one too; any bytes")
{
	char name[300];

	put_file("f", "x");
	memset(name, 'n', sizeof(name));
	memcpy(name, "user.", 5);
	name[255] = 0;
	OK(setxattr("f", name, "1", 1, 0));
	IS(getxattr("f", name, got, 1), 1);
	EXPECT(lists("f", name));
	name[255] = 'n';
	name[256] = 0;
	ERR(setxattr("f", name, "1", 1, 0), ERANGE);
	ERR(setxattr("f", "", "1", 1, 0), ERANGE);
	OK(setxattr("f", "user.\xff\x01 /=", "1", 1, 0));
	EXPECT(lists("f", "user.\xff\x01 /="));
	ERR(setxattr("f", "nonsense.x", "1", 1, 0), EOPNOTSUPP);
	ERR2(setxattr("f", "user.", "1", 1, 0), EINVAL, EOPNOTSUPP);
}

CHECK(many, "40 attributes at once: each its value, all in the list")
{
	char name[32], text[32];

	put_file("f", "x");
	for (int i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "user.n%d", i);
		snprintf(text, sizeof(text), "value %d", i);
		OK(setxattr("f", name, text, strlen(text), XATTR_CREATE));
	}
	IS(count("f"), 40);
	for (int i = 0; i < 40; i += 2) {
		snprintf(name, sizeof(name), "user.n%d", i);
		OK(removexattr("f", name));
	}
	IS(count("f"), 20);
	for (int i = 1; i < 40; i += 2) {
		snprintf(name, sizeof(name), "user.n%d", i);
		snprintf(text, sizeof(text), "value %d", i);
		IS(getxattr("f", name, got, 100), strlen(text));
		EXPECT(!memcmp(got, text, strlen(text)));
	}
}

CHECK(kinds, "directories have them; symlinks and fifos no user ones, but trusted ones")
{
	OK(mkdir("d", 0755));
	OK(symlink("d", "s"));
	OK(mkfifo("p", 0644));
	OK(setxattr("d", "user.a", "1", 1, 0));
	IS(getxattr("s", "user.a", got, 10), 1);	/* follows */
	ERR(lgetxattr("s", "user.a", got, 10), ENODATA);
	ERR(lsetxattr("s", "user.a", "1", 1, 0), EPERM);
	ERR(setxattr("p", "user.a", "1", 1, 0), EPERM);
	OK(lsetxattr("s", "trusted.a", "1", 1, 0));
	IS(lgetxattr("s", "trusted.a", got, 10), 1);
	EXPECT(lists("s", "trusted.a"));
	OK(setxattr("p", "trusted.a", "12", 2, 0));
	IS(getxattr("p", "trusted.a", got, 10), 2);
}

CHECK(rights, "reading needs r, writing w; trusted ones are root's alone")
{
	put_file("f", "x");
	OK(setxattr("f", "user.a", "1", 1, 0));
	OK(setxattr("f", "trusted.t", "1", 1, 0));
	OK(chmod("f", 0604));
	AS(NOBODY, NOBODY, {
		IS(getxattr("f", "user.a", got, 10), 1);
		ERR(setxattr("f", "user.a", "2", 1, 0), EACCES);
		ERR(removexattr("f", "user.a"), EACCES);
		ERR(getxattr("f", "trusted.t", got, 10), ENODATA);
		ERR(setxattr("f", "trusted.t", "2", 1, 0), EPERM);
		ERR(setxattr("f", "security.x", "2", 1, 0), EPERM);
	});
	OK(chmod("f", 0600));
	AS(NOBODY, NOBODY, { ERR(getxattr("f", "user.a", got, 10), EACCES); });
	OK(chmod("f", 0606));
	AS(NOBODY, NOBODY, { OK(setxattr("f", "user.a", "2", 1, 0)); });
}

CHECK(kept, "rename, link, chmod, write and truncate keep them; every link and descriptor shows them")
{
	int fd;

	put_file("f", "x");
	OK(setxattr("f", "user.a", "1", 1, 0));
	fd = (int)OK(open("f", O_RDWR));
	OK(rename("f", "g"));
	OK(link("g", "h"));
	OK(chmod("g", 0600));
	IS(write(fd, "yy", 2), 2);
	OK(ftruncate(fd, 0));
	IS(getxattr("h", "user.a", got, 10), 1);
	OK(fsetxattr(fd, "user.b", "22", 2, 0));
	IS(getxattr("g", "user.b", got, 10), 2);
	OK(unlink("g"));
	IS(getxattr("h", "user.a", got, 10), 1);
	put_file("n", "y");
	OK(rename("n", "h"));
	ERR(getxattr("h", "user.a", got, 10), ENODATA);
	IS(fgetxattr(fd, "user.a", got, 10), 1);
}

CHECK(ctime, "setting and removing change ctime, not mtime")
{
	struct stat a, b;

	put_file("f", "x");
	a = stat_of("f");
	tick();
	OK(setxattr("f", "user.a", "1", 1, 0));
	b = stat_of("f");
	EXPECT(ns_of(b.st_ctim) > ns_of(a.st_ctim));
	IS(ns_of(b.st_mtim), ns_of(a.st_mtim));
	tick();
	OK(removexattr("f", "user.a"));
	a = stat_of("f");
	EXPECT(ns_of(a.st_ctim) > ns_of(b.st_ctim));
}

CHECK(absent_then_set, "an attribute that was asked for in vain is seen once it is set")
{
	put_file("f", "x");
	for (int i = 0; i < 50; i++) {
		ERR(getxattr("f", "user.a", got, 10), ENODATA);
		ERR(getxattr("f", "security.capability", got, 10), ENODATA);
		OK(setxattr("f", "user.a", "1", 1, 0));
		IS(getxattr("f", "user.a", got, 10), 1);
		OK(removexattr("f", "user.a"));
	}
}

int main(int argc, char **argv)
{
	return run_checks(argc, argv);
}
