// SPDX-License-Identifier: MIT
/*
 * deadclient.c - FILE MODE: a file system of one file, mounted on FILE, that never answers a READ, and whose thread drops the file's
 * pages half a second after one came: it then sleeps for the lock of a page that the READ holds, and no signal wakes it. MODE
 * "watched" has the process of client/watch.h beside it, "alone" has not. Prints "mounted MINOR PID" with the pid of that process, or
 * 0. To be killed.
 */
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 18)
#include "client/mount.h"
#include "client/watch.h"

#include <fuse3/fuse_lowlevel.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE		65536
#define PATIENCE_S	120u	/* ends by itself, whoever forgot us */

static struct fuse_session *session;

static struct stat the_file(void)
{
	return (struct stat){ .st_ino = FUSE_ROOT_ID, .st_mode = S_IFREG | 0444, .st_nlink = 1, .st_size = SIZE };
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st = the_file();

	(void)ino;
	(void)fi;
	fuse_reply_attr(req, &st, 60);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fuse_reply_open(req, fi);
}

static void *drop_main(void *arg)
{
	(void)arg;
	usleep(500000);
	fuse_lowlevel_notify_inval_inode(session, FUSE_ROOT_ID, 0, 0);
	return NULL;
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	static bool dropping;
	pthread_t thread;

	(void)req;
	(void)ino;
	(void)size;
	(void)off;
	(void)fi;
	if (!dropping)
		dropping = !pthread_create(&thread, NULL, drop_main, NULL);
}

static const struct fuse_lowlevel_ops ops = { .getattr = op_getattr, .open = op_open, .read = op_read };

int main(int argc, char **argv)
{
	char *fuse_argv[] = { argv[0], NULL };
	struct fuse_args args = FUSE_ARGS_INIT(1, fuse_argv);
	struct cfs_watch watch = { .pid = 0 };
	unsigned major, minor;
	bool watched;
	int rc;

	if (argc != 3 || (strcmp(argv[2], "watched") && strcmp(argv[2], "alone"))) {
		fprintf(stderr, "usage: deadclient FILE watched|alone\n");
		return 2;
	}
	watched = !strcmp(argv[2], "watched");
	alarm(PATIENCE_S);
	rc = watched ? cfs_watch_start(&watch, -1) : 0;
	if (rc) {
		fprintf(stderr, "deadclient: no process beside this: %s\n", strerror(-rc));
		return 1;
	}
	session = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (!session || fuse_session_mount(session, argv[1])) {
		fprintf(stderr, "deadclient: cannot mount on %s\n", argv[1]);
		return 1;
	}
	rc = cfs_mount_device(argv[1], &major, &minor);
	if (!rc && watched)
		rc = cfs_watch_connection(&watch, minor);
	if (rc) {
		fprintf(stderr, "deadclient: connection of %s: %s\n", argv[1], strerror(-rc));
		return 1;
	}
	printf("mounted %u %d\n", minor, (int)watch.pid);
	fflush(stdout);
	return fuse_session_loop(session) ? 1 : 0;
}
