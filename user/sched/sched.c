/* SPDX-License-Identifier: MIT */
/*
 * sched.c - see sched.h. The maps `tunables` and `ended` are read and written through memory; threads are known to the
 * program by task storage, which the kernel drops with the thread. The link is not pinned: the scheduler ends with this process.
 */
#include "sched/sched.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/base.h"
#include "base/log.h"

#define STATE_FILE "/sys/kernel/sched_ext/state"
#define OPS_FILE "/sys/kernel/sched_ext/root/ops"
#define POLICY_EXT 7		/* SCHED_EXT of uapi/linux/sched.h, since 6.12 */
#define PIDFD_OF_THREAD O_EXCL	/* PIDFD_THREAD, since 6.9 */

struct thread {			/* as in bpf/meta_sched.bpf.c */
	uint32_t class, pad;
	uint64_t ready_ns;
};

struct cfs_sched {
	char text[CFS_SCHED_WHY + 32];
	struct cfs_sched_tunables *tunables;	/* NULL: no scheduler */
	struct cfs_sched_ended *ended;
	struct meta_sched_bpf *skel;
	struct bpf_link *link;
};

static const struct cfs_sched_tunables defaults = {
	.slice_ns = { 3 * CFS_NSEC_PER_MSEC, 3 * CFS_NSEC_PER_MSEC, 4 * CFS_NSEC_PER_MSEC },
	.starve_ns = 20 * CFS_NSEC_PER_MSEC,
	.give_up_ns = 500 * CFS_NSEC_PER_MSEC,
};

bool cfs_sched_mode_parse(const char *word, enum cfs_sched_mode *ret_mode)
{
	static const char *const words[] = { "auto", "ext", "off" };

	for (unsigned i = 0; i < 3; i++)
		if (!strcmp(word, words[i])) {
			*ret_mode = (enum cfs_sched_mode)i;
			return true;
		}
	return false;
}

const char *cfs_sched_text(const struct cfs_sched *s)
{
	return s ? s->text : "off";
}

struct cfs_sched_tunables *cfs_sched_tunables(struct cfs_sched *s)
{
	return s->tunables;
}

#if CFS_HAVE_BPF
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/mman.h>

#include "meta_sched.skel.h"

static void first_line(const char *path, char *buf, size_t size)
{
	FILE *f = fopen(path, "re");

	buf[0] = '\0';
	if (!f)
		return;
	if (fgets(buf, (int)size, f))
		buf[strcspn(buf, "\n")] = '\0';
	fclose(f);
}

bool cfs_sched_possible(char *why, size_t size)
{
	char state[64], ops[64];

	first_line(STATE_FILE, state, sizeof(state));
	first_line(OPS_FILE, ops, sizeof(ops));
	if (!state[0])
		snprintf(why, size, "this kernel has no sched_ext (6.13 with CONFIG_SCHED_CLASS_EXT)");
	else if (strcmp(state, "disabled"))
		snprintf(why, size, "another sched_ext scheduler is loaded: %s", ops[0] ? ops : state);
	else
		return true;
	return false;
}

static void set_policy_of_all(int policy)
{
	static const struct sched_param none = { 0 };
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;

	while (d && (e = readdir(d))) {
		pid_t tid = (pid_t)atoi(e->d_name);

		if (tid > 0 && sched_setscheduler(tid, policy, &none) && errno != ESRCH)
			cfs_debug("scheduler: thread %d keeps its class: %s", (int)tid, strerror(errno));
	}
	if (d)
		closedir(d);
}

static void *map_value(struct bpf_map *map)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);

	return p == MAP_FAILED ? NULL : p;
}

static void unload(struct cfs_sched *s)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	if (s->tunables)
		munmap(s->tunables, page);
	if (s->ended)
		munmap(s->ended, page);
	s->tunables = NULL;
	s->ended = NULL;
	bpf_link__destroy(s->link);
	s->link = NULL;
	meta_sched_bpf__destroy(s->skel);
	s->skel = NULL;
}

/* libbpf's own words are for who develops the program */
static int log_libbpf(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	char *text = NULL, *rest, *line;

	if (level == LIBBPF_DEBUG || vasprintf(&text, fmt, ap) < 0)
		return 0;
	for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) /* a verifier's log has many */
		cfs_debug("%s", line);
	free(text);
	return 0;
}

static int load(struct cfs_sched *s)
{
	struct bpf_map *ops;
	int rc;

	libbpf_set_print(log_libbpf);
	s->skel = meta_sched_bpf__open();
	if (!s->skel)
		return -errno;
	rc = meta_sched_bpf__load(s->skel);
	if (rc)
		return rc;
	s->tunables = map_value(s->skel->maps.tunables);
	s->ended = map_value(s->skel->maps.ended);
	/* not in the skeletons of older bpftools, see mk/bpf.mk */
	ops = bpf_object__find_map_by_name(s->skel->obj, "claudefs_meta");
	if (!s->tunables || !s->ended || !ops)
		return -ENOMEM;
	*s->tunables = defaults;
	s->link = bpf_map__attach_struct_ops(ops);
	return s->link ? 0 : -errno;
}

int cfs_sched_start(enum cfs_sched_mode mode, char *why, size_t why_size, struct cfs_sched **ret_s)
{
	struct cfs_sched *s = calloc(1, sizeof(*s));
	char reason[CFS_SCHED_WHY] = "it was switched off";
	int rc = -EOPNOTSUPP;

	if (!s)
		return -ENOMEM;
	if (mode != CFS_SCHED_OFF && cfs_sched_possible(reason, sizeof(reason))) {
		rc = load(s);
		if (!rc)
			rc = cfs_sched_thread(s, 0, CFS_SCHED_META);
		if (rc) {
			snprintf(reason, sizeof(reason), "the scheduler cannot be loaded: %s%s", strerror(-rc),
				 rc == -EPERM ? " (it needs CAP_SYS_ADMIN)" : "");
			unload(s);
		}
	}
	if (rc && mode == CFS_SCHED_EXT) {
		snprintf(why, why_size, "%s", reason);
		free(s);
		return rc;
	}
	if (rc) {
		snprintf(s->text, sizeof(s->text), "off: %s", reason);
	} else {
		snprintf(s->text, sizeof(s->text), "ext");
		set_policy_of_all(POLICY_EXT);
	}
	*ret_s = s;
	return 0;
}

int cfs_sched_thread(struct cfs_sched *s, pid_t tid, enum cfs_sched_class class)
{
	struct thread t = { .class = class };
	int fd, rc;

	if (!s->skel)
		return 0;
	fd = (int)syscall(SYS_pidfd_open, tid ? tid : (pid_t)syscall(SYS_gettid), PIDFD_OF_THREAD);
	if (fd < 0)
		return -errno;
	rc = bpf_map_update_elem(bpf_map__fd(s->skel->maps.threads), &fd, &t, BPF_ANY);
	close(fd);
	return rc;
}

int cfs_sched_stats(struct cfs_sched *s, enum cfs_sched_class class, struct cfs_sched_stats *ret_st)
{
	int n = s->skel ? libbpf_num_possible_cpus() : -ENOENT, rc;
	struct cfs_sched_stats *per_cpu, sum = { 0 };
	uint32_t key = class;

	if (n <= 0)
		return n;
	per_cpu = calloc((size_t)n, sizeof(*per_cpu));
	if (!per_cpu)
		return -ENOMEM;
	rc = bpf_map_lookup_elem(bpf_map__fd(s->skel->maps.stats), &key, per_cpu);
	for (int i = 0; i < n && !rc; i++) {
		sum.runs += per_cpu[i].runs;
		sum.waited_ns += per_cpu[i].waited_ns;
		sum.preempts += per_cpu[i].preempts;
		sum.starved += per_cpu[i].starved;
	}
	free(per_cpu);
	if (!rc)
		*ret_st = sum;
	return rc;
}

bool cfs_sched_check(struct cfs_sched *s)
{
	if (!s || !s->ended || !__atomic_load_n(&s->ended->kind, __ATOMIC_ACQUIRE))
		return false;
	snprintf(s->text, sizeof(s->text), "off: the kernel ended it: %.*s", (int)sizeof(s->ended->why), s->ended->why);
	unload(s);
	set_policy_of_all(SCHED_OTHER);	/* else the next scheduler that somebody loads would have them */
	return true;
}

void cfs_sched_stop(struct cfs_sched *s)
{
	if (!s)
		return;
	if (s->skel) {
		set_policy_of_all(SCHED_OTHER);
		unload(s);
	}
	free(s);
}

#else

bool cfs_sched_possible(char *why, size_t size)
{
	snprintf(why, size, "built without BPF (clang-19 or bpftool were missing)");
	return false;
}

int cfs_sched_start(enum cfs_sched_mode mode, char *why, size_t why_size, struct cfs_sched **ret_s)
{
	struct cfs_sched *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	cfs_sched_possible(why, why_size);
	if (mode == CFS_SCHED_EXT) {
		free(s);
		return -EOPNOTSUPP;
	}
	snprintf(s->text, sizeof(s->text), "off: %s", mode == CFS_SCHED_OFF ? "it was switched off" : why);
	*ret_s = s;
	return 0;
}

int cfs_sched_thread(struct cfs_sched *s, pid_t tid, enum cfs_sched_class class)
{
	(void)s;
	(void)tid;
	(void)class;
	return 0;
}

int cfs_sched_stats(struct cfs_sched *s, enum cfs_sched_class class, struct cfs_sched_stats *ret_st)
{
	(void)s;
	(void)class;
	(void)ret_st;
	return -ENOENT;
}

bool cfs_sched_check(struct cfs_sched *s)
{
	(void)s;
	return false;
}

void cfs_sched_stop(struct cfs_sched *s)
{
	free(s);
}
#endif
