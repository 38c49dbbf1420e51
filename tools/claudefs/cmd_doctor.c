/* SPDX-License-Identifier: MIT */
/*
 * cmd_doctor.c - `claudefs doctor`: what this machine offers, what ClaudeFS uses of it, and why
 * not. Each line comes from asking the kernel, never from its version number.
 */
#include "cmd.h"

#include "client/observe.h"
#include "client/tiers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <liburing.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sched/sched.h"

#define TEXT_MAX 160
#define LINES_MAX 24

struct line {
	char feature[24];
	char kernel[TEXT_MAX];	/* what the kernel says */
	const char *used;	/* "yes", "no" */
	char note[TEXT_MAX];	/* what it gives, or why it is not used */
	bool required;
};

struct report {
	struct line lines[LINES_MAX];
	unsigned n;
};

static struct line *add(struct report *r, const char *feature, bool used, const char *note)
{
	struct line *l = &r->lines[r->n++];

	CFS_ASSERT(r->n <= LINES_MAX);
	snprintf(l->feature, sizeof(l->feature), "%s", feature);
	l->used = used ? "yes" : "no";
	snprintf(l->note, sizeof(l->note), "%s", note);
	return l;
}

static bool read_word(const char *path, char *buf, size_t len)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fgets(buf, (int)len, f);

	if (f)
		fclose(f);
	if (ok)
		buf[strcspn(buf, "\n")] = 0;
	return ok;
}

static bool dir_has(const char *path, const char *prefix)
{
	DIR *d = opendir(path);
	struct dirent *e;
	bool found = false;

	while (d && !found && (e = readdir(d)))
		found = e->d_name[0] != '.' && !strncmp(e->d_name, prefix, strlen(prefix));
	if (d)
		closedir(d);
	return found;
}

struct fuse_probe {
	int err;
	struct cfs_tier_env env;
};

/*
 * Mounts a FUSE file system in a namespace that dies with this child, only to read the INIT
 * request, in which the kernel says what it can do. Never answered: the abort is the close.
 */
static void fuse_probe_child(struct fuse_probe *p)
{
	char dir[] = "/tmp/claudefs-doctor-XXXXXX", opts[96];
	char buf[FUSE_MIN_READ_BUFFER];
	struct pollfd pfd = { .fd = open("/dev/fuse", O_RDWR | O_CLOEXEC), .events = POLLIN };

	if (pfd.fd < 0) {
		p->err = errno;
		return;
	}
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) || !mkdtemp(dir)) {
		p->err = errno;
		return;
	}
	snprintf(opts, sizeof(opts), "fd=%d,rootmode=40000,user_id=0,group_id=0", pfd.fd);
	if (mount("claudefs-doctor", dir, "fuse", MS_NOSUID | MS_NODEV, opts)) {
		p->err = errno;
	} else {
		ssize_t n = poll(&pfd, 1, 2000) == 1 ? read(pfd.fd, buf, sizeof(buf)) : -1;

		if (n < 0 || !cfs_tier_env_parse(buf, (size_t)n, &p->env))
			p->err = ETIME;
		p->env.no_start = true;
		umount2(dir, MNT_DETACH);
	}
	close(pfd.fd);
	rmdir(dir);
}

static struct fuse_probe probe_fuse(void)
{
	struct fuse_probe p = { .err = EIO };
	int fds[2], status;
	pid_t pid;

	if (geteuid() != 0) {
		p.err = EPERM;
		return p;
	}
	if (pipe2(fds, O_CLOEXEC)) {
		p.err = errno;
		return p;
	}
	pid = fork();
	if (pid == 0) {
		struct fuse_probe c = { 0 };

		fuse_probe_child(&c);
		_exit(write(fds[1], &c, sizeof(c)) == (ssize_t)sizeof(c) ? 0 : 1);
	}
	close(fds[1]);
	if (pid < 0 || read(fds[0], &p, sizeof(p)) != (ssize_t)sizeof(p))
		p.err = pid < 0 ? EAGAIN : EIO;
	close(fds[0]);
	if (pid > 0)
		waitpid(pid, &status, 0);
	return p;
}

static void check_fuse(struct report *r)
{
	struct fuse_probe p = probe_fuse();
	struct line *l = add(r, "fuse", !p.err, p.err ? "needed to mount" : "the plain tier: every mount");

	l->required = true;
	if (p.err == EPERM)
		snprintf(l->kernel, TEXT_MAX, "asking needs root");
	else if (p.err)
		snprintf(l->kernel, TEXT_MAX, "%s", strerror(p.err));
	else
		snprintf(l->kernel, TEXT_MAX, "protocol 7.%u", p.env.minor);
	l = add(r, "fuse notify epoch", !p.err && p.env.minor >= 44,
		"invalidates names without a lock; else ESTALE makes the kernel retry");
	snprintf(l->kernel, TEXT_MAX, "%s", p.err ? "not known" : p.env.minor >= 44 ? "yes" : "no (needs 7.44)");
	for (int i = 0; i < CFS_TIERS; i++) {
		const char *gives = cfs_tier_ops(i)->gives;
		char feature[24], why[TEXT_MAX] = "";
		int rc = p.err ? -p.err : cfs_tier_probe(i, &p.env, why, sizeof(why));

		snprintf(feature, sizeof(feature), "tier %s", cfs_tier_name(i));
		l = add(r, feature, !rc, gives);
		snprintf(l->kernel, TEXT_MAX, "%s", p.err ? "not known" : why[0] ? why : rc ? strerror(-rc) : "yes");
	}
}

static void check_observe(struct report *r)
{
	char why[TEXT_MAX] = "";
	int rc = cfs_observe_probe(why, sizeof(why));
	struct line *l = add(r, "bpf observing", !rc, rc ? "top and trace show the client's own view" :
			     "tables in the BPF file system, the kernel's view in top and trace");

	snprintf(l->kernel, TEXT_MAX, "%s", rc ? why : "yes");
}

static void check_io_uring(struct report *r)
{
	struct io_uring_params params = { .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN };
	struct io_uring ring;
	struct line *l;
	int rc = io_uring_queue_init_params(8, &ring, &params);
	bool plain = false;

	if (!rc) {
		io_uring_queue_exit(&ring);
	} else if (!io_uring_queue_init(8, &ring, 0)) {
		plain = true;
		io_uring_queue_exit(&ring);
	}
	l = add(r, "io_uring", !rc || plain, "the server's network and disk");
	l->required = true;
	snprintf(l->kernel, TEXT_MAX, "%s", !rc ? "yes, deferred task work" : plain ? "yes, older" : strerror(-rc));
}

static void check_rest(struct report *r)
{
	struct line *l;
	char word[128] = "";
	bool have, at_work;

	have = cfs_sched_possible(word, sizeof(word));
	at_work = strstr(word, "claudefs_meta");
	l = add(r, "sched_ext", have || at_work, have || at_work ? "claudefsd --sched: metadata goes before bulk work" : word);
	snprintf(l->kernel, TEXT_MAX, "%s", at_work ? "yes, at work" : have ? "yes" : "no");
	have = dir_has("/dev", "ng");
	l = add(r, "nvme passthrough", have, "NVMe drives by commands of our own: claudefs device ls");
	snprintf(l->kernel, TEXT_MAX, "%s", have ? "generic devices present" : "no /dev/ng*");
	have = dir_has("/sys/class/infiniband", "");
	l = add(r, "rdma", false, "not built yet: TCP");
	snprintf(l->kernel, TEXT_MAX, "%s", have ? "devices present" : "no devices");
	have = read_word("/proc/sys/net/ipv4/tcp_available_ulp", word, sizeof(word)) && strstr(word, "tls");
	l = add(r, "ktls", false, "not built yet: traffic is not encrypted, use a trusted network");
	snprintf(l->kernel, TEXT_MAX, "%s", have ? "yes" : "no");
}

static int print_json(const struct report *r, const char *release)
{
	json_t *list = json_array(), *root = json_pack("{s:i, s:s, s:o}", "schema", 1, "kernel", release,
						       "features", list);

	for (unsigned i = 0; i < r->n; i++) {
		const struct line *l = &r->lines[i];

		json_array_append_new(list, json_pack("{s:s, s:s, s:b, s:b, s:s}", "feature", l->feature, "kernel",
						      l->kernel, "used", l->used[0] == 'y', "required", l->required,
						      "note", l->note));
	}
	json_dumpf(root, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(root);
	return 0;
}

static void print_table(const struct report *r, const char *release)
{
	static const char *const head[] = { "FEATURE", "KERNEL SAYS" };
	int feature = (int)strlen(head[0]), kernel = (int)strlen(head[1]);

	for (unsigned i = 0; i < r->n; i++) {
		feature = cfs_max(feature, (int)strlen(r->lines[i].feature));
		kernel = cfs_max(kernel, (int)strlen(r->lines[i].kernel));
	}
	printf("kernel %s\n%-*s  %-*s  USED  NOTE\n", release, feature, head[0], kernel, head[1]);
	for (unsigned i = 0; i < r->n; i++) {
		const struct line *l = &r->lines[i];

		printf("%-*s  %-*s  %-4s  %s\n", feature, l->feature, kernel, l->kernel, l->used, l->note);
	}
}

int cmd_doctor(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "json", no_argument, NULL, 'j' }, { "help", no_argument, NULL, 'h' }, { 0 },
	};
	struct report r = { .n = 0 };
	struct utsname un;
	bool json = false;
	int c, rc = CMD_OK;

	while ((c = getopt_long(argc, argv, "h", opts, NULL)) != -1) {
		if (c == 'j') {
			json = true;
			continue;
		}
		fputs("Usage: claudefs doctor [--json]\nWhat this machine offers, what is used, and why not. "
		      "Exits 1 if something needed is missing.\n", c == 'h' ? stdout : stderr);
		return c == 'h' ? CMD_OK : CMD_USAGE;
	}
	uname(&un);
	check_fuse(&r);
	check_observe(&r);
	check_io_uring(&r);
	check_rest(&r);
	for (unsigned i = 0; i < r.n; i++)
		if (r.lines[i].required && r.lines[i].used[0] != 'y')
			rc = CMD_FAIL;
	if (json) {
		print_json(&r, un.release);
		return rc;
	}
	print_table(&r, un.release);
	return rc;
}
