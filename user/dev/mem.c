/* SPDX-License-Identifier: MIT */
/*
 * mem.c - a device in memory, for tests and tools. Sparse: pages exist once written. Requests are carried
 * out and completed on the loop's next turn, in order; everything completed counts as durable. With zones, their
 * rules are those of zones.c.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/base.h"
#include "dev/zones.h"
#include "ring/loop.h"

#define MEM_PAGE 4096u

/* in cfs_dev_req.priv */
struct mem_priv {
	struct cfs_dev_req *next;
	int refused;		/* two writes at once in a zone */
} __attribute__((may_alias));

struct mem_dev {
	struct cfs_dev dev;
	struct cfs_loop *loop;
	struct cfs_zones *zones;	/* NULL: it has none */
	uint8_t *bytes;
	struct cfs_dev_req *head, *tail;
	uint32_t pending;
};

static struct mem_dev *mem_of(struct cfs_dev *dev)
{
	return cfs_container_of(dev, struct mem_dev, dev);
}

static struct mem_priv *mem_priv(struct cfs_dev_req *req)
{
	return (struct mem_priv *)req->priv;
}

static bool writes(const struct cfs_dev_req *req)
{
	return req->op == CFS_DEV_WRITE || req->op == CFS_DEV_ZONE_APPEND;
}

static void mem_discard(struct mem_dev *m, uint64_t at, uint64_t len)
{
	uint64_t from = cfs_align_up(at, MEM_PAGE), to = cfs_align_down(at + len, MEM_PAGE);

	/* gives the memory back; what lies beside whole pages may stay: it is a hint */
	if (from < to)
		madvise(m->bytes + from, to - from, MADV_DONTNEED);
}

/* what the zones say to a request; *at: where its bytes go */
static int mem_zone(struct mem_dev *m, struct cfs_dev_req *req, uint64_t *at)
{
	int rc;

	if (writes(req)) {
		if (mem_priv(req)->refused)
			return mem_priv(req)->refused;
		rc = cfs_zones_end(m->zones, req->op, req->offset, req->len, true, at);
		req->ret_offset = *at;
		return rc;
	}
	if (req->op == CFS_DEV_DISCARD)
		return -EINVAL;
	if (req->op <= CFS_DEV_DISCARD)
		return 0;
	rc = cfs_zones_change(m->zones, req->op, req->offset);
	if (!rc && req->op == CFS_DEV_ZONE_RESET)
		mem_discard(m, req->offset, m->dev.info.zone_bytes);
	return rc;
}

static void mem_execute(struct mem_dev *m, struct cfs_dev_req *req)
{
	uint64_t at = req->offset;
	int rc = m->zones ? mem_zone(m, req, &at) : 0;

	req->result = rc;
	if (rc)
		return;
	if (writes(req) || req->op == CFS_DEV_READ) {
		for (uint32_t i = 0; i < req->iovcnt; i++) {
			void *p = req->iov[i].iov_base;
			size_t len = req->iov[i].iov_len;

			if (writes(req))
				memcpy(m->bytes + at, p, len);
			else
				memcpy(p, m->bytes + at, len);
			if (m->zones && req->op == CFS_DEV_READ)
				rc = rc ? rc : cfs_zones_read(m->zones, at, p, len);
			at += len;
		}
		req->result = rc ? rc : (int64_t)req->len;
	} else if (req->op == CFS_DEV_DISCARD) {
		mem_discard(m, at, req->len);
	}
}

static void mem_run(void *arg)
{
	struct mem_dev *m = arg;
	struct cfs_dev_req *req = m->head, *next;

	m->head = m->tail = NULL;
	for (; req; req = next) {
		next = mem_priv(req)->next;
		mem_execute(m, req);
		m->pending--;
		req->done(req);		/* may submit: that is for the next turn; may free req */
	}
}

static int mem_submit(struct cfs_dev *dev, struct cfs_dev_req *req)
{
	struct mem_dev *m = mem_of(dev);
	int rc = cfs_dev_check(dev, req);

	if (rc)
		return rc;
	if (!m->head) {
		rc = cfs_loop_post(m->loop, mem_run, m);
		if (rc)
			return rc;
	}
	*mem_priv(req) = (struct mem_priv){ 0 };
	if (m->zones && writes(req))
		mem_priv(req)->refused = cfs_zones_begin(m->zones, req->op, req->offset);
	if (m->head)
		mem_priv(m->tail)->next = req;
	else
		m->head = req;
	m->tail = req;
	m->pending++;
	return 0;
}

static int mem_check_range(struct cfs_dev *dev, uint64_t offset, uint32_t len)
{
	if ((offset | len) & (dev->info.write_unit - 1))
		return -EINVAL;
	return offset > dev->info.size_bytes || len > dev->info.size_bytes - offset ? -EINVAL : 0;
}

static int mem_write_sync(struct cfs_dev *dev, uint64_t offset, const void *buf, uint32_t len)
{
	struct mem_dev *m = mem_of(dev);
	int rc = mem_check_range(dev, offset, len);

	if (!rc && m->zones) {
		rc = cfs_zones_begin(m->zones, CFS_DEV_WRITE, offset);
		if (!rc)
			rc = cfs_zones_end(m->zones, CFS_DEV_WRITE, offset, len, true, &offset);
	}
	if (!rc)
		memcpy(m->bytes + offset, buf, len);
	return rc;
}

static int mem_read_sync(struct cfs_dev *dev, uint64_t offset, void *buf, uint32_t len)
{
	struct mem_dev *m = mem_of(dev);
	int rc = mem_check_range(dev, offset, len);

	if (!rc)
		memcpy(buf, m->bytes + offset, len);
	return rc || !m->zones ? rc : cfs_zones_read(m->zones, offset, buf, len);
}

static int mem_zone_report(struct cfs_dev *dev, uint64_t offset, struct cfs_zone *zones, uint32_t n)
{
	return cfs_zones_report(mem_of(dev)->zones, offset, zones, n);
}

static int mem_zone_sync(struct cfs_dev *dev, enum cfs_dev_op op, uint64_t offset)
{
	if (offset >= dev->info.size_bytes || offset % dev->info.zone_bytes)
		return -EINVAL;
	return cfs_zones_change(mem_of(dev)->zones, op, offset);
}

static int mem_flush_sync(struct cfs_dev *dev)
{
	(void)dev;
	return 0;
}

static void mem_close(struct cfs_dev *dev)
{
	struct mem_dev *m = mem_of(dev);

	CFS_ASSERT(!m->pending && !m->head);
	munmap(m->bytes, dev->info.size_bytes);
	cfs_zones_destroy(m->zones);
	free(m);
}

static const struct cfs_dev_ops mem_ops = {
	.name = "mem",
	.version = CFS_DEV_OPS_VERSION,
	.submit = mem_submit,
	.write_sync = mem_write_sync,
	.read_sync = mem_read_sync,
	.close = mem_close,
};

static const struct cfs_dev_ops mem_zoned_ops = {
	.name = "mem",
	.version = CFS_DEV_OPS_VERSION,
	.submit = mem_submit,
	.write_sync = mem_write_sync,
	.read_sync = mem_read_sync,
	.zone_report = mem_zone_report,
	.zone_sync = mem_zone_sync,
	.flush_sync = mem_flush_sync,
	.close = mem_close,
};

int cfs_dev_mem_create(struct cfs_loop *loop, uint64_t size_bytes, uint32_t write_unit,
		       struct cfs_dev **ret_dev)
{
	struct mem_dev *m;

	if (write_unit < 512 || write_unit > 4096 || (write_unit & (write_unit - 1)) || !size_bytes ||
	    size_bytes & (write_unit - 1) || size_bytes > (1ull << 46))
		return -EINVAL;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->bytes = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->bytes == MAP_FAILED) {
		free(m);
		return -ENOMEM;
	}
	m->loop = loop;
	m->dev.ops = &mem_ops;
	m->dev.info = (struct cfs_dev_info){
		.size_bytes = size_bytes,
		.write_unit = write_unit,
		.mem_align = 512,
		.max_io = 8u << 20,
		.discard_unit = MEM_PAGE,
		.model = "memory",
	};
	*ret_dev = &m->dev;
	return 0;
}

int cfs_dev_mem_create_zoned(struct cfs_loop *loop, const struct cfs_zone_geometry *geometry,
			     uint32_t write_unit, struct cfs_dev **ret_dev)
{
	struct cfs_zones *zones = NULL;
	struct cfs_dev *dev;
	int rc = cfs_zones_create(geometry, write_unit, &zones);

	if (!rc)
		rc = cfs_dev_mem_create(loop, geometry->zone_bytes * geometry->n_zones, write_unit,
					&dev);
	if (rc) {
		cfs_zones_destroy(zones);
		return rc;
	}
	mem_of(dev)->zones = zones;
	dev->ops = &mem_zoned_ops;
	dev->info.discard_unit = 0;
	cfs_zones_info(zones, &dev->info);
	*ret_dev = dev;
	return 0;
}

void cfs_dev_mem_zone_fail(struct cfs_dev *dev, uint32_t zone, enum cfs_zone_state state)
{
	cfs_zones_fail(mem_of(dev)->zones, zone, state);
}
