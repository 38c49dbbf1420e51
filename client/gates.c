// SPDX-License-Identifier: MIT
/*
 * gates.c - see gates.h. One thread reads the device; what an event asks for is done by jobs of a pool of their own: they wait for
 * leases, which other sessions give up only when the jobs that handle our breaks get on.
 */
#include "client/gates.h"

#include "base/log.h"
#include "bpf/kmod/claudefs_gate.h"
#include "client/client_i.h"
#include "client/data.h"
#include "client/fuse_fh.h"
#include "client/kmod.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MODULE		"claudefs_gate"
#define EVENTS		64u
#define MARGIN_DIV	50u	/* of the lease: mappings take a moment to be taken back */
#define BUSY_MS		10

struct cfs_gates {
	struct cfs_client *c;
	int dev, stop_fd;
	bool running;
	pthread_t thread;
	struct cfs_jobs *jobs;
	pthread_mutex_t lock;		/* the deadline is told in order */
};

struct job {
	uint64_t ino;
	uint32_t what;
};

int cfs_gates_probe(char *why, size_t len)
{
	char said[128] = "";
	int rc = 0;

	if (cfs_kmod_other_clock())
		rc = -EOPNOTSUPP;
	else if (access(CFS_GATE_DEVICE, F_OK))
		rc = cfs_kmod_load(MODULE, true, said, sizeof(said));
	if (rc)
		snprintf(why, len, "scratch files only: %.110s",
			 said[0] ? said : "this is a time namespace, whose boot-time clock is not the kernel's");
	return rc;
}

static struct cfs_gates *gates_of(struct cfs_client *c)
{
	return __atomic_load_n(&c->gates, __ATOMIC_ACQUIRE);
}

/* ---- events ------------------------------------------------------------------------------------- */
static void handle(struct cfs_client *c, void *arg)
{
	struct job *j = arg;
	struct cfs_data *d = cfs_data_find(c, j->ino);

	if (j->what & CFS_GATE_UNMAPPED)
		cfs_fh_unmapped(c, j->ino);
	if (d)
		cfs_data_gate_event(d, j->what);
	cfs_data_put(d);
	free(j);
}

static void submit(struct cfs_gates *g, const struct cfs_gate_event *ev)
{
	struct job *j = malloc(sizeof(*j));

	/* it is told once only: so it is not given up */
	while (!j || cfs_jobs_submit(g->jobs, handle, memcpy(j, &(struct job){ ev->cookie, ev->what }, sizeof(*j)))) {
		poll(NULL, 0, BUSY_MS);
		if (!j)
			j = malloc(sizeof(*j));
	}
}

static void *gates_main(void *arg)
{
	struct cfs_gates *g = arg;
	struct pollfd p[2] = { { .fd = g->dev, .events = POLLIN }, { .fd = g->stop_fd, .events = POLLIN } };

	while (!p[1].revents) {
		struct cfs_gate_event ev[EVENTS];
		ssize_t n;

		if (poll(p, 2, -1) < 0 || !p[0].revents)
			continue;
		n = read(g->dev, ev, sizeof(ev));
		for (ssize_t i = 0; i < n / (ssize_t)sizeof(ev[0]); i++)
			submit(g, &ev[i]);
	}
	return NULL;
}

/* ---- start and stop ------------------------------------------------------------------------------- */
static int open_device(char *why, size_t len)
{
	uint32_t abi = 0;
	int fd, rc = 0;

	if (cfs_gates_probe(why, len))
		return -ENOENT;
	if (access(CFS_GATE_DEVICE, F_OK))
		rc = cfs_kmod_load(MODULE, false, why, len);
	if (rc)
		return rc;
	fd = open(CFS_GATE_DEVICE, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || ioctl(fd, CFS_GATE_ABI, &abi)) {
		rc = -errno;
		snprintf(why, len, "scratch files only: %s: %s", CFS_GATE_DEVICE, strerror(-rc));
	} else if (abi != CFS_GATE_ABI_NOW) {
		rc = -EPROTONOSUPPORT;
		snprintf(why, len, "scratch files only: the module %s has version %u of its interface, not %u", MODULE, abi,
			 CFS_GATE_ABI_NOW);
	}
	if (rc && fd >= 0)
		close(fd);
	return rc ? rc : fd;
}

int cfs_gates_start(struct cfs_client *c, char *why, size_t len)
{
	struct cfs_gates *g = calloc(1, sizeof(*g));
	int rc;

	if (!g)
		return -ENOMEM;
	g->c = c;
	pthread_mutex_init(&g->lock, NULL);
	g->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = g->stop_fd < 0 ? -errno : cfs_jobs_create(c, &g->jobs);
	g->dev = rc ? rc : open_device(why, len);
	rc = g->dev < 0 ? g->dev : -pthread_create(&g->thread, NULL, gates_main, g);
	if (rc) {
		if (g->dev >= 0)
			close(g->dev);
		if (g->stop_fd >= 0)
			close(g->stop_fd);
		cfs_jobs_destroy(g->jobs);
		pthread_mutex_destroy(&g->lock);
		free(g);
		return rc;
	}
	g->running = true;
	__atomic_store_n(&c->gates, g, __ATOMIC_RELEASE);
	cfs_gates_deadline(c);
	return 0;
}

void cfs_gates_stop(struct cfs_client *c)
{
	struct cfs_gates *g = gates_of(c);
	uint64_t one = 1;

	if (!g || !g->running)
		return;
	g->running = false;
	if (write(g->stop_fd, &one, sizeof(one)) < 0)
		cfs_warn("cannot stop a thread: %s", strerror(errno));
	pthread_join(g->thread, NULL);
	cfs_jobs_destroy(g->jobs);
	g->jobs = NULL;
}

void cfs_gates_destroy(struct cfs_client *c)
{
	struct cfs_gates *g = gates_of(c);

	if (!g)
		return;
	cfs_gates_stop(c);
	__atomic_store_n(&c->gates, NULL, __ATOMIC_RELEASE);
	close(g->dev);
	close(g->stop_fd);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

void cfs_gates_deadline(struct cfs_client *c)
{
	struct cfs_gates *g = gates_of(c);
	uint64_t ns, margin = (uint64_t)__atomic_load_n(&c->lease_ms, __ATOMIC_RELAXED) * CFS_NSEC_PER_MSEC / MARGIN_DIV;

	if (!g)
		return;
	pthread_mutex_lock(&g->lock);
	ns = __atomic_load_n(&c->deadline_ns, __ATOMIC_SEQ_CST);
	ns = ns > margin ? ns - margin : 0;
	if (ioctl(g->dev, CFS_GATE_DEADLINE, &ns))
		cfs_err("%s: the deadline cannot be set: %s", CFS_GATE_DEVICE, strerror(errno));
	pthread_mutex_unlock(&g->lock);
}

/* ---- for the data path ------------------------------------------------------------------------------ */
#define count(c, field, by) __atomic_add_fetch(&(c)->gate_stats.field, (by), __ATOMIC_RELAXED)

static bool fits(void *arg, int flags, const struct cfs_attr *attr, uint64_t size, uint64_t heat, bool cached)
{
	struct cfs_client *c = arg;

	if (!gates_of(c) || !cfs_tier_on(c, CFS_TIER_PASSTHROUGH) || c->o.cache_none || (flags & O_DIRECT))
		return false;
	/* who writes to these ends the bits by it, at once */
	if ((cfs_le32_to_cpu(attr->mode) & 06000) || (cfs_le32_to_cpu(attr->flags) & CFS_IF_CAPS))
		return false;
	if (size < c->o.pass_min || size > c->o.pass_max || (c->o.pass_min && heat < size && !cached))
		return false;
	if (!cfs_pass_has_room(c)) {
		count(c, gate_no_room, 1);
		return false;
	}
	return true;
}

static int make(void *arg, int fd, uint64_t ino, int *ret_gate, int32_t *ret_id)
{
	struct cfs_client *c = arg;
	struct cfs_gate_new n = { .cookie = ino, .fd = fd };
	uint32_t id;
	int gate = -1, rc = 0;

	if (count(c, gates, 1) > CFS_GATES_MAX)
		rc = -EMFILE;
	if (!rc) {
		gate = ioctl(gates_of(c)->dev, CFS_GATE_NEW, &n);
		rc = gate < 0 ? -errno : cfs_pass_register(c, gate, &id);
	}
	if (rc) {
		if (gate >= 0)
			close(gate);
		count(c, gates, (uint64_t)-1);
		count(c, gate_failed, 1);
		return rc;
	}
	count(c, gate_files, 1);
	*ret_gate = gate;
	*ret_id = (int32_t)id;
	return 0;
}

static void unmake(void *arg, int gate, int32_t id)
{
	struct cfs_client *c = arg;

	cfs_pass_unregister(c, (uint32_t)id);
	close(gate);
	count(c, gates, (uint64_t)-1);
}

static int ask(int gate, unsigned long what, void *p)
{
	return ioctl(gate, what, p) ? -errno : 0;
}

const struct cfs_data_gate_ops cfs_gates_ops = { .fits = fits, .make = make, .unmake = unmake, .ask = ask };
