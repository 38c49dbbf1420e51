// SPDX-License-Identifier: MIT
/*
 * test_bpf_maps.c - proves that the tables in the BPF file system say what stands in the maps and whether it counts (epoch, floor,
 * deadline), that names which would break a line cannot, that memory stays below its ceiling, that nothing is left at the end, and that
 * what a killed process left is removed by the next mount, but never what a living one has.
 */
#include "client/bpf_maps.h"

#include "base/base.h"
#include "rpc/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#if CFS_HAVE_BPF
#include <bpf/bpf.h>

static char mountpoint[64], other[64];
static struct cfs_bpf_maps *live[2];	/* what a test that fails leaves */

static int destroy_all(void **state)
{
	(void)state;
	for (size_t i = 0; i < CFS_ARRAY_SIZE(live); i++) {
		cfs_bpf_maps_destroy(live[i]);
		live[i] = NULL;
	}
	return 0;
}

static struct cfs_bpf_maps *make(const char *where, uint64_t mem)
{
	struct cfs_bpf_maps *m = NULL;
	char why[256] = "";
	int rc = cfs_bpf_maps_create(where, mem, &m, why, sizeof(why));

	if (rc == -EPERM || rc == -EOPNOTSUPP || rc == -ESRCH || (!rc && why[0])) {
		print_message("skipped: %s\n", why);
		cfs_bpf_maps_destroy(m);
		skip();
	}
	if (rc)
		fail_msg("%s", why);
	live[live[0] ? 1 : 0] = m;
	return m;
}

/* the whole table in a buffer of its own */
static const char *table(const char *name)
{
	static char text[1 << 16];
	char path[PATH_MAX], file[PATH_MAX + 32];
	size_t n = 0;
	ssize_t got;
	int fd;

	cfs_bpf_maps_path(mountpoint, path, sizeof(path));
	snprintf(file, sizeof(file), "%s/%s", path, name);
	fd = open(file, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	while (n < sizeof(text) - 1 && (got = read(fd, text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)got;
	close(fd);
	text[n] = 0;
	return text;
}

static void put_dir(struct cfs_bpf_maps *m, uint64_t dir, uint64_t epoch)
{
	struct cfs_bpf_dir v = { .epoch = epoch };

	assert_int_equal(bpf_map_update_elem(cfs_bpf_maps_fd(m, CFS_BPF_DIRS), &dir, &v, BPF_ANY), 0);
}

static void put_name(struct cfs_bpf_maps *m, uint64_t dir, const char *name, uint64_t ino, uint64_t epoch)
{
	struct cfs_bpf_name v = { .dir = dir, .epoch = epoch, .ino = ino, .gen = 1 };
	struct cfs_bpf_name_key key = { .dir = dir };
	struct cfs_bpf_long_key lkey = { .dir = dir };
	size_t len = strlen(name);

	memcpy(lkey.name, name, len);
	if (len <= CFS_BPF_NAME_SHORT) {
		memcpy(key.name, name, len);
		assert_int_equal(bpf_map_update_elem(cfs_bpf_maps_fd(m, CFS_BPF_NAMES), &key, &v, BPF_ANY), 0);
	} else {
		assert_int_equal(bpf_map_update_elem(cfs_bpf_maps_fd(m, CFS_BPF_LONG_NAMES), &lkey, &v, BPF_ANY), 0);
	}
}

static void test_tables(void **state)
{
	struct cfs_bpf_maps *m = make(mountpoint, 1 << 20);
	struct cfs_bpf_attr a = { .ino = 20, .home = 10, .epoch = 7, .size = 4711, .mode = S_IFREG | 0640, .nlink = 1,
				  .uid = 5, .gid = 6, .mtime = { .sec = 1234567890 } };
	struct cfs_bpf_req r = { .unique = 99, .opcode = 3, .nodeid = 20, .pid = 77, .uid = 5, .len = 56 };
	struct cfs_bpf_session s = { .session = 42, .leader_epoch = 3, .lease_ms = 10000, .state = 1, .pid = 1234,
				     .server = "127.0.0.1:9510" };
	struct cfs_bpf_ctl *ctl = cfs_bpf_maps_ctl(m);
	uint64_t ino = 20, key = 0xffff8880deadbeef;
	char longest[256];

	(void)state;
	assert_string_equal(table("dirs"), "inode epoch state complete\n");
	assert_string_equal(table("names"), "directory inode epoch state presence name\n");
	ctl->deadline_ns = cfs_boot_ns() + 60 * CFS_NSEC_PER_SEC;
	put_dir(m, 10, 7);
	put_name(m, 10, "hello", 20, 7);
	assert_string_equal(table("dirs"), "inode epoch state complete\n10 7 valid no\n");
	assert_string_equal(table("names"), "directory inode epoch state presence name\n10 20 7 valid present hello\n");

	ctl->floor = 7; /* all is recalled */
	assert_non_null(strstr(table("names"), "10 20 7 void present hello\n"));
	ctl->floor = 0;
	put_dir(m, 10, 8); /* this directory is */
	assert_non_null(strstr(table("names"), "10 20 7 void present hello\n"));
	put_name(m, 10, "hello", 0, 8);
	ctl->deadline_ns = cfs_boot_ns(); /* the lease ran out */
	assert_string_equal(table("names"), "directory inode epoch state presence name\n10 0 8 expired absent hello\n");

	put_name(m, 10, "hello", 20, 8);
	put_name(m, 11, "a\nb\033c", 21, 8);
	assert_non_null(strstr(table("names"), "11 21 8 void present a?b?c\n"));
	memset(longest, 'x', 255);
	longest[255] = 0;
	put_name(m, 10, longest, 22, 8);
	assert_non_null(strstr(table("long_names"), longest));
	longest[CFS_BPF_NAME_SHORT] = 0;
	put_name(m, 10, longest, 23, 8);
	strcat(longest, "\n");
	assert_non_null(strstr(table("names"), longest));

	assert_int_equal(bpf_map_update_elem(cfs_bpf_maps_fd(m, CFS_BPF_ATTRS), &ino, &a, BPF_ANY), 0);
	assert_string_equal(table("attrs"), "inode home epoch state mode links uid gid size mtime\n"
					    "20 10 7 void 100640 1 5 6 4711 1234567890\n");
	r.start_ns = cfs_boot_ns();
	assert_int_equal(bpf_map_update_elem(cfs_bpf_maps_fd(m, CFS_BPF_INFLIGHT), &key, &r, BPF_ANY), 0);
	assert_non_null(strstr(table("inflight"), "unique opcode inode pid uid bytes age_us\n99 3 20 77 5 56 "));
	cfs_bpf_maps_session(m, &s);
	assert_string_equal(table("sessions"), "session state pid lease_ms left_ms leader_epoch server\n"
					       "42 live 1234 10000 0 3 127.0.0.1:9510\n");
}

static bool there(const char *where)
{
	char path[PATH_MAX];
	struct stat st;

	cfs_bpf_maps_path(where, path, sizeof(path));
	return !stat(path, &st);
}

static void test_ceiling(void **state)
{
	struct cfs_bpf_maps *m = make(mountpoint, 8 << 20);
	uint64_t n = cfs_bpf_maps_max_entries(m, CFS_BPF_NAMES);
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);

	(void)state;
	/* the arithmetic of bpf_maps.c against the kernel's own idea of what an element takes */
	assert_in_range(n * (sizeof(struct cfs_bpf_name_key) + sizeof(struct cfs_bpf_name)), 1 << 20, 8 << 20);
	assert_int_equal(bpf_obj_get_info_by_fd(cfs_bpf_maps_fd(m, CFS_BPF_NAMES), &info, &len), 0);
	assert_int_equal(info.max_entries, n);
	for (uint64_t i = 1; i <= 3 * n; i++) { /* full three times over: the oldest go, nobody is refused */
		char name[32];

		snprintf(name, sizeof(name), "f%llu", (unsigned long long)i);
		put_name(m, 1, name, i, 1);
	}
	assert_true(there(mountpoint));
	destroy_all(NULL);
	assert_false(there(mountpoint));
}

static void test_leftovers(void **state)
{
	struct cfs_bpf_maps *second = NULL;
	char why[256] = "";
	int fds[2], status;
	pid_t pid;
	char ok;

	(void)state;
	make(mountpoint, 0);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	if (!pid) {
		struct cfs_bpf_maps *mine = NULL;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		ok = !cfs_bpf_maps_create(other, 0, &mine, why, sizeof(why));
		if (write(fds[1], &ok, 1) == 1)
			pause();
		_exit(1);
	}
	assert_int_equal(read(fds[0], &ok, 1), 1);
	assert_int_equal(ok, 1);
	/* who lives is left alone, under his own name or another */
	assert_int_equal(cfs_bpf_maps_create(other, 0, &second, why, sizeof(why)), 0);
	assert_non_null(strstr(why, "no tables"));
	cfs_bpf_maps_destroy(second);
	assert_true(there(other));
	assert_true(there(mountpoint));
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	assert_true(there(other)); /* pins outlive the process: that is why this test is here */
	destroy_all(NULL);
	make(mountpoint, 0);
	assert_false(there(other));
	destroy_all(NULL);
	assert_false(there(mountpoint));
	close(fds[0]);
	close(fds[1]);
}

static void test_path(void **state)
{
	char path[PATH_MAX], longest[PATH_MAX];

	(void)state;
	cfs_bpf_maps_path("/mnt/data", path, sizeof(path));
	assert_string_equal(path, "/sys/fs/bpf/claudefs/mnt-data");
	cfs_bpf_maps_path("/mnt/a-b.c d", path, sizeof(path));
	assert_string_equal(path, "/sys/fs/bpf/claudefs/mnt-a\\x2db\\x2ec\\x20d");
	cfs_bpf_maps_path("/", path, sizeof(path));
	assert_string_equal(path, "/sys/fs/bpf/claudefs/-");
	memset(longest, 'x', 3000);
	longest[0] = '/';
	longest[3000] = 0;
	cfs_bpf_maps_path(longest, path, sizeof(path));
	assert_int_equal(strlen(path), strlen("/sys/fs/bpf/claudefs/") + 16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_path), cmocka_unit_test_teardown(test_tables, destroy_all),
		cmocka_unit_test_teardown(test_ceiling, destroy_all),
		cmocka_unit_test_teardown(test_leftovers, destroy_all),
	};

	snprintf(mountpoint, sizeof(mountpoint), "/selftest/maps-%d", (int)getpid());
	snprintf(other, sizeof(other), "/selftest/killed-%d", (int)getpid());
	return cmocka_run_group_tests(tests, NULL, NULL);
}

#else
int main(void)
{
	print_message("skipped: built without BPF\n");
	return 77;
}
#endif
