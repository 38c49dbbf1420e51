/* SPDX-License-Identifier: MIT */
/*
 * Proves of claudefsd's configuration: the documented keys are read, what is wrong is refused in
 * one line that names file and line, options win over the file, and an address that nobody can
 * connect to is not told to clients.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "dev/nvme.h"
#include "server/cluster/config.h"

static char path[64];
static char err[512];

static int read_text(struct cfs_config *c, const char *text)
{
	int fd;

	strcpy(path, "/tmp/claudefs-config.XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	assert_int_equal(cfs_config_init(c), 0);
	err[0] = 0;
	int rc = cfs_config_read(c, path, err, sizeof(err));
	unlink(path);
	return rc;
}

static void all_keys(void **state)
{
	struct cfs_config c;

	(void)state;
	assert_int_equal(
		read_text(
			&c,
			"; comment\n[server]\nlisten = 10.0.0.1:9511\nadvertise = [fd00::1]:9511\n"
			"state_dir = /s/d\npid_file=/p\nlog_file = /l\nlog_level = debug\nlease_ms = 2000\n"
			"checkpoint_bytes = 64M\n\n[target.0]\npath = /dev/a\n[target.3]\npath = /dev/b\n"),
		0);
	assert_string_equal(c.listen, "10.0.0.1:9511");
	assert_string_equal(c.state_dir, "/s/d");
	assert_string_equal(c.pid_file, "/p");
	assert_string_equal(c.log_file, "/l");
	assert_int_equal(c.log_level, CFS_LOG_DEBUG);
	assert_int_equal(c.lease_ms, 2000);
	assert_int_equal(c.checkpoint_bytes, 64 << 20);
	assert_int_equal(c.n_targets, 2);
	assert_string_equal(c.targets[0], "/dev/a");
	assert_string_equal(c.targets[3], "/dev/b");
	assert_int_equal(cfs_config_check(&c, err, sizeof(err)), 0);
	assert_string_equal(c.advertise, "[fd00::1]:9511");
	cfs_config_free(&c);
}

static void defaults(void **state)
{
	struct cfs_config c;

	(void)state;
	assert_int_equal(read_text(&c, "[target.0]\npath = /dev/a\n"), 0);
	assert_string_equal(c.listen, "127.0.0.1:9510");
	assert_int_equal(c.lease_ms, 10000);
	assert_int_equal(cfs_config_check(&c, err, sizeof(err)), 0);
	assert_null(strstr(c.advertise, "0.0.0.0"));	/* nobody connects to that */
	assert_non_null(strstr(c.advertise, ":9510"));
	cfs_config_free(&c);
	assert_int_equal(read_text(&c, "[server]\nlisten = 127.0.0.1:1\n"), 0);
	assert_int_equal(cfs_config_check(&c, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "no target"));
	cfs_config_free(&c);
}

static void refused(void **state)
{
	static const struct {
		const char *text, *say;
		int line;
	} bad[] = {
		{ "[server]\nlisten = 1.2.3.4\n", "host:port", 2 },
		{ "[server]\nlisten = 1.2.3.4:70000\n", "port", 2 },
		{ "[server]\nlisten = fd00::1:9510\n", "[v6]:port", 2 },
		{ "[server]\n\nlisten = a:9 b\n", "port", 3 },
		{ "[server]\nfoo = 1\n", "unknown key", 2 },
		{ "[sever]\nlisten = a:1\n", "unknown section", 2 },
		{ "[target.x]\npath = /a\n", "unknown section", 2 },
		{ "[target.16]\npath = /a\n", "unknown section", 2 },
		{ "[target.0]\nsize = 4\n", "unknown key", 2 },
		{ "[target.0]\npath =\n", "a path is needed", 2 },
		{ "[target.0]\npath = nvme:eui.1\npoll = on\n", "off, iopoll, sqpoll or both", 3 },
		{ "[target.0]\npoll = off\npoll = off\n", "twice", 3 },
		{ "listen = a:1\n", "section", 1 },
		{ "[server]\nlease_ms = 5\n", "from 1000", 2 },
		{ "[server]\nlease_ms = 10s\n", "number", 2 },
		{ "[server]\nlease_ms = -1\n", "number", 2 },
		{ "[server]\ncheckpoint_bytes = 1T\n", "K, M or G", 2 },
		{ "[server]\ncheckpoint_bytes = 1K\n", "from", 2 },
		{ "[server]\ncheckpoint_bytes = 99999999999G\n", "from", 2 },
		{ "[server]\nlog_level = loud\n", "debug", 2 },
		{ "[server]\nlisten = a:1\nlisten = b:1\n", "twice", 3 },
		{ "[server]\nlisten = a:1\nnonsense\n", "neither", 3 },
		{ "[server\nlisten = a:1\n", "", 1 },
	};
	struct cfs_config c;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char where[96];

		assert_int_equal(read_text(&c, bad[i].text), -EINVAL);
		snprintf(where, sizeof(where), "%s:%d: ", path, bad[i].line);
		if (strncmp(err, where, strlen(where)) || !strstr(err, bad[i].say) ||
		    strchr(err, '\n'))
			fail_msg("%s -> %s", bad[i].text, err);
		cfs_config_free(&c);
	}
	assert_int_equal(cfs_config_init(&c), 0);
	assert_int_equal(cfs_config_read(&c, "/does/not/exist", err, sizeof(err)), -ENOENT);
	assert_non_null(strstr(err, "/does/not/exist"));
	cfs_config_free(&c);
}

/* only NVMe namespaces can be polled, and a target given as an option has nothing of the file's */
static void polling(void **state)
{
	struct cfs_config c;
	const char *why;

	(void)state;
	assert_int_equal(read_text(&c, "[target.2]\npoll = both\npath = nvme:eui.1\n[target.3]\npath = nvme:eui.2\n"), 0);
	assert_int_equal(cfs_config_check(&c, err, sizeof(err)), 0);
	assert_int_equal(c.poll[2], CFS_NVME_IOPOLL | CFS_NVME_SQPOLL);
	assert_int_equal(c.poll[3], 0);
	assert_int_equal(cfs_config_set(&c, "target", "/x", &why), 0);
	assert_int_equal(cfs_config_check(&c, err, sizeof(err)), 0);
	assert_int_equal(c.poll[2], 0);
	cfs_config_free(&c);
	assert_int_equal(read_text(&c, "[target.0]\npath = /dev/sda\npoll = iopoll\n"), 0);
	assert_int_equal(cfs_config_check(&c, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "[target.0] poll = iopoll: /dev/sda is not an NVMe namespace"));
	cfs_config_free(&c);
	assert_int_equal(read_text(&c, "[target.0]\npath = /dev/sda\n[target.1]\npoll = sqpoll\n"), 0);
	assert_int_equal(cfs_config_check(&c, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "[target.1] poll = sqpoll: the section has no path"));
	cfs_config_free(&c);
}

static void options_win(void **state)
{
	struct cfs_config c;
	const char *why;

	(void)state;
	assert_int_equal(
		read_text(
			&c,
			"[server]\nlisten = a:1\n[target.0]\npath = /dev/a\n[target.1]\npath = /dev/b\n"),
		0);
	assert_int_equal(cfs_config_set(&c, "listen", "b:2", &why), 0);
	assert_int_equal(cfs_config_set(&c, "target", "/x", &why), 0);
	assert_int_equal(cfs_config_set(&c, "target", "/y", &why), 0);
	assert_int_equal(cfs_config_set(&c, "listen", "b", &why), -EINVAL);
	assert_non_null(why);
	assert_string_equal(c.listen, "b:2");
	assert_int_equal(c.n_targets, 2);
	assert_string_equal(c.targets[0], "/x");
	assert_string_equal(c.targets[1], "/y");
	assert_int_equal(cfs_config_check(&c, err, sizeof(err)), 0);
	assert_string_equal(c.advertise, "b:2");
	for (unsigned i = 2; i < CFS_NODE_TARGETS_MAX; i++)
		assert_int_equal(cfs_config_set(&c, "target", "/z", &why), 0);
	assert_int_equal(cfs_config_set(&c, "target", "/z", &why), -EINVAL);
	cfs_config_free(&c);
	assert_int_equal(cfs_config_init(&c), 0);
	assert_int_equal(cfs_config_set(&c, "target", "/x", &why), 0);
	assert_int_equal(cfs_config_set(&c, "advertise", "0.0.0.0:9510", &why), 0);
	assert_int_equal(cfs_config_check(&c, err, sizeof(err)), -EINVAL);
	cfs_config_free(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_keys), cmocka_unit_test(defaults), cmocka_unit_test(refused),
		cmocka_unit_test(polling), cmocka_unit_test(options_win),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
