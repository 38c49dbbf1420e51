// SPDX-License-Identifier: MIT
/* kmod.c - see kmod.h. */
#include "client/kmod.h"

#include "client/tiers.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int cfs_kmod_load(const char *name, bool dry, char *why, size_t len)
{
	char *const load_argv[] = { (char *)"modprobe", (char *)(uintptr_t)name, NULL };
	char *const dry_argv[] = { (char *)"modprobe", (char *)"-n", (char *)(uintptr_t)name, NULL };
	char *const env[] = { (char *)"PATH=/usr/sbin:/usr/bin:/sbin:/bin", (char *)"LC_ALL=C", NULL };
	char said[CFS_TIER_WHY_MAX] = "";
	posix_spawn_file_actions_t fa;
	int fds[2], status = -1;
	size_t n = 0;
	ssize_t r;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, fds[1], 2);
	r = posix_spawnp(&pid, "modprobe", &fa, NULL, dry ? dry_argv : load_argv, env);
	close(fds[1]);
	if (!r) {
		while (n < sizeof(said) - 1 && (r = read(fds[0], said + n, sizeof(said) - 1 - n)) > 0)
			n += (size_t)r;
		waitpid(pid, &status, 0);
	}
	posix_spawn_file_actions_destroy(&fa);
	close(fds[0]);
	if (!status)
		return 0;
	said[strcspn(said, "\n")] = 0;
	if (said[0])
		snprintf(why, len, "%.150s", said);
	else
		snprintf(why, len, "kernel module %s is not loaded", name);
	return -ENOENT;
}

bool cfs_kmod_other_clock(void)
{
	FILE *f = fopen("/proc/self/timens_offsets", "re");
	long long sec = 0, nsec = 0;
	char name[16];
	bool other = false;

	while (f && !other && fscanf(f, "%15s %lld %lld", name, &sec, &nsec) == 3)
		other = !strcmp(name, "boottime") && (sec || nsec);
	if (f)
		fclose(f);
	return other;
}
