/* SPDX-License-Identifier: MIT */
/*
 * nvme.c - an NVMe namespace as a device; see dev.h, nvme.h, nvme_i.h.
 *
 * All state belongs to the loop's thread. Requests wait in one queue, in order; each is cut into commands of
 * at most MDTS, and a fixed number of slots bounds how many commands are under way. A slot holds all that a
 * command needs until its outcome is final: retries and waiting for a controller's reset happen in the slot.
 * Nothing is taken for granted about a write cache: DURABLE is FUA on the write itself.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <claudefs/types.h>

#include "base/base.h"
#include "base/log.h"
#include "dev/nvme_i.h"
#include "ring/loop.h"

#define PAGE		4096u
#define SILENCE_MS	1000u	/* a controller that is away for longer gets a line in the log */
#define STEP_MAX_MS	1000u
#define LEN_MAX		(1u << 30)	/* bytes of one request */

struct slot {
	struct cfs_nvme_io io;
	struct cfs_timer timer;
	struct cfs_nvme_dev *nd;
	struct slot *next;		/* free */
	struct cfs_dev_req *req;
	uint64_t at, bytes;
	uint64_t since_ns;		/* first failure; 0: none yet */
	uint32_t tries, step_ms;
	struct cfs_nvme_dsm_range range;
	struct iovec iov[CFS_DEV_IOV_MAX];
};

struct cfs_nvme_dev {
	struct cfs_dev dev;
	struct cfs_loop *loop;
	struct cfs_clock *clock;
	struct cfs_nvme_port *port;
	struct cfs_nvme_limits lim;
	struct cfs_dev_req *head, *tail;	/* not yet cut to the end */
	struct cfs_dev_req *instant;		/* done without a command */
	struct slot *slots, *free;
	uint32_t part_max;
	uint32_t pending;
	bool away, gone;
	char name[CFS_NVME_NAME_MAX];
};

/* in cfs_dev_req.priv */
struct nvme_priv {
	struct cfs_dev_req *next;
	uint64_t cut;		/* bytes of it that have become commands */
	size_t iov_off;		/* where the next one begins */
	uint32_t iov_at;
	uint32_t parts;		/* under way */
	int32_t err;		/* the first */
	bool serial;		/* a write to a zone: its parts go one after the other */
} __attribute__((may_alias));
_Static_assert(sizeof(struct nvme_priv) <= sizeof(((struct cfs_dev_req *)0)->priv), "nvme_priv");

static void dispatch(struct cfs_nvme_dev *nd);

static struct cfs_nvme_dev *nvme_of(struct cfs_dev *dev)
{
	return cfs_container_of(dev, struct cfs_nvme_dev, dev);
}

static struct nvme_priv *nvme_priv(struct cfs_dev_req *req)
{
	return (struct nvme_priv *)req->priv;
}

uint32_t cfs_nvme_block_bytes(const struct cfs_dev *dev)
{
	return cfs_container_of(dev, struct cfs_nvme_dev, dev)->lim.block_bytes;
}

static void queue_first(struct cfs_nvme_dev *nd, struct cfs_dev_req *req)
{
	nvme_priv(req)->next = nd->head;
	nd->head = req;
	if (!nd->tail)
		nd->tail = req;
}

static void queue_last(struct cfs_nvme_dev *nd, struct cfs_dev_req *req)
{
	nvme_priv(req)->next = NULL;
	if (nd->tail)
		nvme_priv(nd->tail)->next = req;
	else
		nd->head = req;
	nd->tail = req;
}

static void queue_pop(struct cfs_nvme_dev *nd)
{
	nd->head = nvme_priv(nd->head)->next;
	if (!nd->head)
		nd->tail = NULL;
}

/* rarely: one that has failed is no longer cut */
static void queue_remove(struct cfs_nvme_dev *nd, struct cfs_dev_req *req)
{
	struct cfs_dev_req **at = &nd->head, *before = NULL;

	while (*at && *at != req) {
		before = *at;
		at = &nvme_priv(before)->next;
	}
	if (!*at)
		return;
	*at = nvme_priv(req)->next;
	if (nd->tail == req)
		nd->tail = before;
}

/* ---- requests into commands -------------------------------------------------------------------- */

static bool moves_data(const struct cfs_dev_req *req)
{
	return req->op == CFS_DEV_READ || req->op == CFS_DEV_WRITE || req->op == CFS_DEV_ZONE_APPEND;
}

static uint32_t pages_of(const char *base, size_t len)
{
	return (uint32_t)((((uintptr_t)base & (PAGE - 1)) + len + PAGE - 1) / PAGE);
}

/*
 * The next command's buffers: as much of the iovec as one command may have. What is all or nothing is
 * never cut: cfs_dev_check() has seen that it fits. How many iovecs that makes.
 */
static uint32_t cut_iov(struct cfs_nvme_dev *nd, struct slot *s, struct cfs_dev_req *req)
{
	struct nvme_priv *p = nvme_priv(req);
	bool whole = req->op == CFS_DEV_ZONE_APPEND || req->flags & CFS_DEV_ATOMIC;
	uint64_t max = whole ? req->len : nd->part_max, pages = whole ? UINT32_MAX : nd->lim.max_segments;
	uint32_t n = 0;

	/* most requests are small and in one piece */
	if (req->iovcnt == 1 && !p->iov_off && req->len <= max && pages_of(req->iov->iov_base, req->len) <= pages) {
		s->iov[0] = *req->iov;
		s->bytes = req->len;
		return 1;
	}
	for (s->bytes = 0; s->bytes < max && pages && p->iov_at < req->iovcnt;) {
		const struct iovec *v = &req->iov[p->iov_at];
		char *base = (char *)v->iov_base + p->iov_off;
		size_t len = cfs_min((uint64_t)(v->iov_len - p->iov_off), max - s->bytes);

		if (pages_of(base, len) > pages)
			len = pages * PAGE - ((uintptr_t)base & (PAGE - 1));
		pages -= pages_of(base, len);
		if (n && (char *)s->iov[n - 1].iov_base + s->iov[n - 1].iov_len == base)
			s->iov[n - 1].iov_len += len;
		else if (len)
			s->iov[n++] = (struct iovec){ base, len };
		s->bytes += len;
		p->iov_off += len;
		if (p->iov_off == v->iov_len) {
			p->iov_at++;
			p->iov_off = 0;
		}
	}
	CFS_ASSERT(s->bytes && !(s->bytes & (nd->lim.block_bytes - 1)));
	return n;
}

/* make a command of what comes next of a request, and send it */
static void start_part(struct cfs_nvme_dev *nd, struct slot *s, struct cfs_dev_req *req)
{
	struct nvme_priv *p = nvme_priv(req);
	uint32_t n = 0;

	s->req = req;
	s->at = req->offset + p->cut;
	s->tries = 0;
	s->since_ns = 0;
	s->step_ms = 0;
	s->bytes = cfs_min(req->len - p->cut, (uint64_t)CFS_NVME_DISCARD_MAX);
	if (moves_data(req))
		n = cut_iov(nd, s, req);	/* decides how many bytes the command has */
	cfs_nvme_cmd_init(&s->io.cmd, req, nd->lim.block_bytes, s->at, s->bytes);
	if (n) {
		s->io.cmd.data = n > 1 ? (void *)s->iov : s->iov[0].iov_base;
		s->io.cmd.n_iov = n > 1 ? n : 0;
		s->io.cmd.len = (uint32_t)s->bytes;
	}
	if (req->op == CFS_DEV_DISCARD) {
		s->range = (struct cfs_nvme_dsm_range){
			.blocks = cfs_cpu_to_le32((uint32_t)(s->bytes / nd->lim.block_bytes)),
			.start = cfs_cpu_to_le64(s->at / nd->lim.block_bytes),
		};
		s->io.cmd.data = &s->range;
		s->io.cmd.len = sizeof(s->range);
	}
	p->cut += s->bytes;
	p->parts++;
	nd->dev.stat.commands++;
	nd->port->ops->submit(nd->port, &s->io);
	nd->dev.stat.registered += s->io.registered;
}

static void dispatch(struct cfs_nvme_dev *nd)
{
	while (nd->head && nd->free) {
		struct cfs_dev_req *req = nd->head;
		struct nvme_priv *p = nvme_priv(req);
		struct slot *s = nd->free;

		nd->free = s->next;
		start_part(nd, s, req);
		if (p->cut >= req->len || p->serial)
			queue_pop(nd);	/* a serial one comes back when this part is done */
	}
}

/* ---- outcomes ---------------------------------------------------------------------------------- */

static void finish_part(struct slot *s, int err, uint64_t result)
{
	struct cfs_nvme_dev *nd = s->nd;
	struct cfs_dev_req *req = s->req;
	struct nvme_priv *p = nvme_priv(req);
	bool over;

	if (err && !p->err) {
		p->err = err;
		queue_remove(nd, req);	/* the rest of it need not be tried */
	}
	if (req->op == CFS_DEV_ZONE_APPEND)
		req->ret_offset = result * nd->lim.block_bytes;
	s->req = NULL;
	s->next = nd->free;
	nd->free = s;
	if (p->serial && !p->err && p->cut < req->len)
		queue_first(nd, req);
	p->parts--;
	over = !p->parts && (p->cut >= req->len || p->err);
	dispatch(nd);
	if (over) {
		nd->pending--;
		req->result = p->err ? p->err : moves_data(req) ? (int64_t)req->len : 0;
		req->done(req);		/* the last: it may free the request, and close the device */
	}
}

static void send_again(struct slot *s)
{
	s->nd->dev.stat.retries++;
	s->nd->port->ops->submit(s->nd->port, &s->io);
}

static void on_timer(struct cfs_timer *timer)
{
	send_again(cfs_container_of(timer, struct slot, timer));
}

static void fail(struct slot *s, int32_t res, int err)
{
	struct cfs_nvme_dev *nd = s->nd;
	char text[96];

	if (err == -ENODEV) {
		if (!nd->gone)
			cfs_err("%s: the device is gone", nd->name);
		nd->gone = true;
		nd->dev.stat.gone = true;
	} else {
		nd->dev.stat.errors++;
		cfs_err("%s: command 0x%02x at block %llu failed: %s", nd->name, s->io.cmd.opcode,
			(unsigned long long)(s->at / nd->lim.block_bytes),
			cfs_nvme_status_text(res, text, sizeof(text)));
	}
	finish_part(s, err, 0);
}

/* the controller is being reset, or does not take commands for another reason */
static void wait_for_reset(struct slot *s, int32_t res, uint32_t first_ms)
{
	struct cfs_nvme_dev *nd = s->nd;
	uint64_t now = cfs_clock_boot_ns(nd->clock), waited;

	if (!s->since_ns)
		s->since_ns = now;
	waited = (now - s->since_ns) / CFS_NSEC_PER_MSEC;
	if (res == -EINVAL && !nd->gone && nd->port->ops->removed(nd->port)) {
		fail(s, res, -ENODEV);
		return;
	}
	if (nd->gone || waited >= nd->lim.reset_wait_ms) {
		if (!nd->gone)
			cfs_err("%s: has not taken commands for %u s: counts as removed until it does", nd->name,
				nd->lim.reset_wait_ms / 1000);
		fail(s, res, -ENODEV);
		return;
	}
	if (waited >= SILENCE_MS && !nd->away) {
		nd->away = true;
		cfs_warn("%s: has not taken commands for a second: waiting up to %u s", nd->name,
			 nd->lim.reset_wait_ms / 1000);
	}
	if (!s->step_ms)
		nd->dev.stat.reset_waits += first_ms >= CFS_NVME_RESET_STEP_MS;
	s->step_ms = s->step_ms ? cfs_min(2 * s->step_ms, STEP_MAX_MS) : first_ms;
	cfs_timer_set(nd->clock, &s->timer, now + s->step_ms * CFS_NSEC_PER_MSEC);
}

static void part_done(struct cfs_nvme_io *io, int32_t res, uint64_t result)
{
	struct slot *s = cfs_container_of(io, struct slot, io);
	struct cfs_nvme_dev *nd = s->nd;
	bool repeatable = s->req->op != CFS_DEV_ZONE_APPEND && !nvme_priv(s->req)->serial;
	struct cfs_nvme_verdict v;

	if (cfs_likely(!res)) {
		if (cfs_unlikely(nd->away)) {
			nd->away = false;
			cfs_info("%s: takes commands again", nd->name);
		}
		finish_part(s, 0, result);
		return;
	}
	v = cfs_nvme_judge(res, repeatable, &nd->lim);
	switch (v.what) {
	case CFS_NVME_WAIT_RESET:
		wait_for_reset(s, res, v.delay_ms ? v.delay_ms : CFS_NVME_RESET_STEP_MS);
		break;
	case CFS_NVME_RETRY:
		if (s->tries++ >= CFS_NVME_RETRIES)
			fail(s, res, v.err);
		else if (v.delay_ms)
			cfs_timer_set(nd->clock, &s->timer,
				      cfs_clock_boot_ns(nd->clock) + v.delay_ms * CFS_NSEC_PER_MSEC);
		else
			send_again(s);
		break;
	default:
		fail(s, res, v.err);
	}
}

/* ---- the device's calls ------------------------------------------------------------------------ */

static void run_instant(void *arg)
{
	struct cfs_nvme_dev *nd = arg;
	struct cfs_dev_req *req = nd->instant, *next;

	nd->instant = NULL;
	for (; req; req = next) {
		next = nvme_priv(req)->next;
		nd->pending--;
		req->result = nd->gone ? -ENODEV : 0;
		req->done(req);
	}
}

static int nvme_submit(struct cfs_dev *dev, struct cfs_dev_req *req)
{
	struct cfs_nvme_dev *nd = nvme_of(dev);
	struct nvme_priv *p = nvme_priv(req);
	int rc = cfs_dev_check(dev, req);

	if (rc)
		return rc;
	if (!nd->loop || (moves_data(req) && req->len > LEN_MAX))
		return -EINVAL;
	*p = (struct nvme_priv){
		.serial = nd->lim.zone_blocks && req->op == CFS_DEV_WRITE,
	};
	if (nd->gone || (req->op == CFS_DEV_DISCARD && (!nd->lim.discard_bytes || !req->len))) {
		if (!nd->instant) {
			rc = cfs_loop_post(nd->loop, run_instant, nd);
			if (rc)
				return rc;
		}
		p->next = nd->instant;
		nd->instant = req;
		nd->pending++;
		return 0;
	}
	nd->pending++;
	queue_last(nd, req);
	dispatch(nd);
	return 0;
}

int cfs_nvme_sync(struct cfs_dev *dev, const struct cfs_nvme_cmd *cmd, bool repeatable)
{
	struct cfs_nvme_dev *nd = nvme_of(dev);
	uint32_t tries = 0, waited = 0, step = 0;
	char text[96];
	int err;

	if (nd->gone)
		return -ENODEV;
	for (;;) {
		int res = nd->port->ops->sync(nd->port, cmd);
		struct cfs_nvme_verdict v = cfs_nvme_judge(res, repeatable, &nd->lim);

		err = v.err;
		if (v.what == CFS_NVME_DONE)
			return 0;
		if (v.what == CFS_NVME_RETRY && tries++ < CFS_NVME_RETRIES) {
			nd->port->ops->pause(nd->port, v.delay_ms);
			continue;
		}
		if (v.what == CFS_NVME_WAIT_RESET && waited < nd->lim.reset_wait_ms && !nd->port->ops->removed(nd->port)) {
			step = step ? cfs_min(2 * step, STEP_MAX_MS) : CFS_NVME_RESET_STEP_MS;
			waited += step;
			nd->port->ops->pause(nd->port, step);
			continue;
		}
		if (v.what == CFS_NVME_WAIT_RESET)
			err = -ENODEV;		/* away for too long, as in wait_for_reset() */
		nd->gone |= err == -ENODEV;
		nd->dev.stat.gone = nd->gone;
		cfs_err("%s: command 0x%02x at block %llu failed: %s", nd->name, cmd->opcode,
			(unsigned long long)cmd->cdw10 | (unsigned long long)cmd->cdw11 << 32,
			cfs_nvme_status_text(res, text, sizeof(text)));
		return err ? err : -EIO;
	}
}

static int sync_rw(struct cfs_dev *dev, enum cfs_dev_op op, uint64_t offset, void *buf, uint32_t len)
{
	struct cfs_nvme_dev *nd = nvme_of(dev);
	struct cfs_dev_req req = { .op = op, .flags = op == CFS_DEV_WRITE ? CFS_DEV_DURABLE : 0 };
	bool repeatable = op == CFS_DEV_READ || !nd->lim.zone_blocks;
	int rc = 0;

	if ((offset | len) & (dev->info.write_unit - 1) || offset > dev->info.size_bytes ||
	    len > dev->info.size_bytes - offset)
		return -EINVAL;
	if (op == CFS_DEV_WRITE && dev->info.flags & CFS_DEV_F_READONLY)
		return -EROFS;
	while (len && !rc) {
		uint32_t n = cfs_min(len, dev->info.max_io);
		struct cfs_nvme_cmd cmd;

		cfs_nvme_cmd_init(&cmd, &req, nd->lim.block_bytes, offset, n);
		cmd.data = buf;
		cmd.len = n;
		rc = cfs_nvme_sync(dev, &cmd, repeatable);
		buf = (char *)buf + n;
		offset += n;
		len -= n;
	}
	return rc;
}

static int nvme_write_sync(struct cfs_dev *dev, uint64_t offset, const void *buf, uint32_t len)
{
	return sync_rw(dev, CFS_DEV_WRITE, offset, (void *)(uintptr_t)buf, len);	/* only reads buf */
}

static int nvme_read_sync(struct cfs_dev *dev, uint64_t offset, void *buf, uint32_t len)
{
	return sync_rw(dev, CFS_DEV_READ, offset, buf, len);
}

static int nvme_flush_sync(struct cfs_dev *dev)
{
	const struct cfs_nvme_cmd cmd = { .opcode = CFS_NVME_FLUSH };

	return dev->info.flags & CFS_DEV_F_READONLY ? 0 : cfs_nvme_sync(dev, &cmd, true);
}

static void nvme_mem_add(struct cfs_dev *dev, void *base, size_t len)
{
	if (nvme_of(dev)->loop)
		cfs_loop_mem_add(nvme_of(dev)->loop, base, len);	/* or it goes without */
}

static void nvme_mem_del(struct cfs_dev *dev, void *base)
{
	if (nvme_of(dev)->loop)
		cfs_loop_mem_del(nvme_of(dev)->loop, base);
}

static void nvme_close(struct cfs_dev *dev)
{
	struct cfs_nvme_dev *nd = nvme_of(dev);

	CFS_ASSERT(!nd->pending && !nd->instant);
	nd->port->ops->close(nd->port);
	free(nd->slots);
	free(nd);
}

static const struct cfs_dev_ops nvme_ops = {
	.name = "nvme",
	.version = CFS_DEV_OPS_VERSION,
	.submit = nvme_submit,
	.write_sync = nvme_write_sync,
	.read_sync = nvme_read_sync,
	.flush_sync = nvme_flush_sync,
	.mem_add = nvme_mem_add,
	.mem_del = nvme_mem_del,
	.close = nvme_close,
};

static const struct cfs_dev_ops nvme_zoned_ops = {
	.name = "nvme",
	.version = CFS_DEV_OPS_VERSION,
	.submit = nvme_submit,
	.write_sync = nvme_write_sync,
	.read_sync = nvme_read_sync,
	.zone_report = cfs_nvme_zone_report,
	.zone_sync = cfs_nvme_zone_sync,
	.flush_sync = nvme_flush_sync,
	.mem_add = nvme_mem_add,
	.mem_del = nvme_mem_del,
	.close = nvme_close,
};

/* ---- making -------------------------------------------------------------------------------------- */

/* the least capacity of all zones: they may differ */
static int read_capacity(struct cfs_dev *dev)
{
	struct cfs_dev_info *info = &dev->info;
	struct cfs_zone zones[64];
	int n = 0;

	for (uint64_t at = 0; at < info->size_bytes; at += (uint64_t)n * info->zone_bytes) {
		n = cfs_nvme_zone_report(dev, at, zones, CFS_ARRAY_SIZE(zones));
		if (n <= 0)
			return n ? n : -EIO;
		for (int i = 0; i < n; i++) {
			if (!info->zone_capacity || zones[i].capacity < info->zone_capacity)
				info->zone_capacity = zones[i].capacity;
		}
	}
	return info->zone_capacity ? 0 : -EIO;
}

static void fill_info(struct cfs_nvme_dev *nd, uint32_t flags)
{
	const struct cfs_nvme_limits *lim = &nd->lim;
	struct cfs_dev_info *info = &nd->dev.info;
	uint32_t whole;

	nd->part_max = lim->max_bytes ? cfs_min(lim->max_bytes, CFS_NVME_PART_MAX) : CFS_NVME_PART_MAX;
	nd->part_max = cfs_max((uint32_t)cfs_align_down(nd->part_max, PAGE), lim->block_bytes);
	/* what is never cut must fit also when each buffer begins in the middle of a page */
	whole = lim->max_segments > 2 * CFS_DEV_IOV_MAX ? lim->max_segments - CFS_DEV_IOV_MAX :
							   cfs_max(lim->max_segments / 2, 1u);
	whole = cfs_min(nd->part_max, whole * PAGE);
	info->size_bytes = lim->blocks * lim->block_bytes;
	info->write_unit = cfs_max(lim->block_bytes, cfs_min(lim->write_bytes, PAGE));
	if (lim->zone_blocks)
		info->write_unit = lim->block_bytes;
	info->mem_align = lim->block_bytes;
	info->max_io = whole;
	info->discard_unit = lim->discard_bytes;
	info->flags = (flags & CFS_DEV_F_READONLY) | (lim->volatile_cache ? CFS_DEV_F_VOLATILE : 0) |
		      CFS_DEV_F_FUA;
	if (lim->readonly)
		info->flags |= CFS_DEV_F_READONLY;
	/* one block is always whole (NVM command set 1.0, 2.1.4); so is a multiple only if NAWUPF says so */
	info->atomic_unit = cfs_min(cfs_max(lim->atomic_bytes, lim->block_bytes), whole);
	info->atomic_boundary = lim->atomic_boundary;
	if (info->atomic_unit < info->write_unit)
		info->atomic_unit = 0;
	if (lim->zone_blocks) {
		info->flags |= CFS_DEV_F_ZONED;
		info->zone_bytes = lim->zone_blocks * lim->block_bytes;
		info->n_zones = lim->n_zones;
		info->size_bytes = info->n_zones * info->zone_bytes;
		info->max_active = lim->max_active;
		info->max_open = lim->max_open;
		info->append_max = lim->append_bytes ? cfs_min(lim->append_bytes, whole) : 0;
	}
	info->size_bytes = cfs_align_down(info->size_bytes, info->write_unit);
	snprintf(info->model, sizeof(info->model), "%s", lim->model);
}

int cfs_nvme_create(struct cfs_loop *loop, struct cfs_nvme_port *port, const struct cfs_nvme_limits *lim,
		    const char *name, uint32_t flags, struct cfs_dev **ret_dev)
{
	uint32_t depth = lim->depth ? cfs_min(lim->depth, CFS_NVME_DEPTH_MAX) : CFS_NVME_DEPTH_MAX;
	struct cfs_nvme_dev *nd = calloc(1, sizeof(*nd));
	int rc;

	CFS_ASSERT(lim->block_bytes >= 512 && lim->block_bytes <= PAGE && lim->max_segments);
	if (!nd) {
		port->ops->close(port);
		return -ENOMEM;
	}
	nd->dev.ops = lim->zone_blocks ? &nvme_zoned_ops : &nvme_ops;
	nd->loop = loop;
	nd->clock = loop ? cfs_loop_clock(loop) : NULL;
	nd->port = port;
	nd->lim = *lim;
	if (!nd->lim.reset_wait_ms)
		nd->lim.reset_wait_ms = CFS_NVME_RESET_WAIT_MS;
	snprintf(nd->name, sizeof(nd->name), "%s", name);
	fill_info(nd, flags);
	nd->slots = calloc(depth, sizeof(*nd->slots));
	if (!nd->slots) {
		rc = -ENOMEM;
		goto err;
	}
	for (uint32_t i = 0; i < depth; i++) {
		struct slot *s = &nd->slots[i];

		s->nd = nd;
		s->io.done = part_done;
		s->timer.fn = on_timer;
		s->next = nd->free;
		nd->free = s;
	}
	rc = lim->zone_blocks ? read_capacity(&nd->dev) : 0;
	if (rc)
		goto err;
	*ret_dev = &nd->dev;
	return 0;
err:
	nvme_close(&nd->dev);
	return rc;
}
