/* SPDX-License-Identifier: MIT */
/*
 * room.c - room for the state in the file system below it, found ahead of need. LMDB writes new pages behind the end
 * of its file, when a transaction commits: with room reserved there, what deletes can still be applied when the file
 * system is full, for a deletion, too, takes new pages before it gives any back. State: m->room_end, m->room_low.
 */
#include "server/meta/meta_i.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/file.h"

#define ROOM_BYTES	(16ull << 20)	/* behind the last page */
#define ROOM_UNKNOWN	(UINT64_MAX - ROOM_BYTES)
#define LOCK_BYTES	8192		/* what LMDB makes of its lock file: 126 readers */

/*
 * LMDB maps its lock file and writes to the mapping; a page that the file system then finds no room for would end the
 * process with SIGBUS. And btrfs is asked not to copy on write.
 */
int cfs_ms_room_prepare(const char *path)
{
	char file[4096];
	int fd, rc;

	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	cfs_file_nocow(fd);
	close(fd);
	snprintf(file, sizeof(file), "%s/lock.mdb", path);
	fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	rc = posix_fallocate(fd, 0, LOCK_BYTES);
	close(fd);
	return rc == EOPNOTSUPP || rc == EINVAL ? 0 : -rc;
}

static uint64_t end_of(struct cfs_meta *m)
{
	MDB_envinfo info;
	MDB_stat st;

	if (mdb_env_info(m->env, &info) || mdb_env_stat(m->env, &st))
		return 0;
	return (info.me_last_pgno + 1) * st.ms_psize;
}

static void find(struct cfs_meta *m, uint64_t end)
{
	int fd;

	if (mdb_env_get_fd(m->env, &fd))
		return;
	if (!fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)m->room_end, (off_t)(end + ROOM_BYTES - m->room_end))) {
		m->room_end = end + ROOM_BYTES;
		m->room_low = false;
	} else if (errno == ENOSPC || errno == EDQUOT) {
		m->room_low = true;
	} else {	/* it cannot reserve: then a commit that finds no room waits */
		m->room_end = ROOM_UNKNOWN;
		m->room_low = false;
	}
}

void cfs_ms_room_committed(struct cfs_meta *m)
{
	uint64_t end = end_of(m);

	if (end + ROOM_BYTES / 2 > m->room_end && !m->room_low)
		find(m, end);
}

bool cfs_ms_room_sure(struct cfs_meta *m)
{
	if (!m->room_end)	/* nothing was committed since it was opened */
		cfs_ms_room_committed(m);
	return m->room_end && m->room_end != ROOM_UNKNOWN && !m->room_low;
}

bool cfs_meta_room(struct cfs_meta *m)
{
	if (m->room_low)
		find(m, end_of(m));
	return !m->room_low;
}
