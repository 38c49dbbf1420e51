/* SPDX-License-Identifier: MIT */
/*
 * mem.c - a device in memory, for tests and tools. Sparse: pages exist once written. Requests are carried
 * out and completed on the loop's next turn, in order; everything completed counts as durable.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/base.h"
#include "dev/dev.h"
#include "ring/loop.h"

#define MEM_PAGE 4096u

/* in cfs_dev_req.priv */
struct mem_priv {
	struct cfs_dev_req *next;
} __attribute__((may_alias));

struct mem_dev {
	struct cfs_dev dev;
	struct cfs_loop *loop;
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

static void mem_execute(struct mem_dev *m, struct cfs_dev_req *req)
{
	uint64_t at = req->offset;

	req->result = (int64_t)req->len;
	switch (req->op) {
	case CFS_DEV_READ:
	case CFS_DEV_WRITE:
		for (uint32_t i = 0; i < req->iovcnt; i++) {
			if (req->op == CFS_DEV_READ)
				memcpy(req->iov[i].iov_base, m->bytes + at, req->iov[i].iov_len);
			else
				memcpy(m->bytes + at, req->iov[i].iov_base, req->iov[i].iov_len);
			at += req->iov[i].iov_len;
		}
		break;
	case CFS_DEV_DISCARD: {
		uint64_t from = cfs_align_up(at, MEM_PAGE), to = cfs_align_down(at + req->len, MEM_PAGE);

		/* gives the memory back; what lies beside whole pages may stay: it is a hint */
		if (from < to)
			madvise(m->bytes + from, to - from, MADV_DONTNEED);
		req->result = 0;
		break;
	}
	default:
		req->result = 0;
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
	mem_priv(req)->next = NULL;
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
	int rc = mem_check_range(dev, offset, len);

	if (!rc)
		memcpy(mem_of(dev)->bytes + offset, buf, len);
	return rc;
}

static int mem_read_sync(struct cfs_dev *dev, uint64_t offset, void *buf, uint32_t len)
{
	int rc = mem_check_range(dev, offset, len);

	if (!rc)
		memcpy(buf, mem_of(dev)->bytes + offset, len);
	return rc;
}

static void mem_close(struct cfs_dev *dev)
{
	struct mem_dev *m = mem_of(dev);

	CFS_ASSERT(!m->pending && !m->head);
	munmap(m->bytes, dev->info.size_bytes);
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
		.model = "memory",
	};
	*ret_dev = &m->dev;
	return 0;
}
