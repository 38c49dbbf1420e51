/* SPDX-License-Identifier: MIT */
/*
 * common.c - what all nets share: payload buffers (pool.h), and messages that outlive on_msg().
 *
 * A message's `priv` is the buffer its payload lives in, or NULL. Taking moves it from the borrowed
 * message to the taken one, which lives inside that buffer when its body fits there, else on the heap.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/base.h"
#include "net/pool.h"

#define N_CLASSES	3u
#define HUGE_PAGE	(2u << 20)

static const uint32_t class_bytes[N_CLASSES] = { 64u << 10, 512u << 10, CFS_PAYLOAD_MAX };

struct cfs_pool {
	uint64_t max_bytes, bytes;
	uint32_t out;			/* buffers in use */
	bool destroyed, refused;
	struct cfs_pbuf *free[N_CLASSES];
	void (*waiter)(void *arg);
	void *waiter_arg;
};

int cfs_pool_create(uint64_t max_bytes, struct cfs_pool **ret_pool)
{
	struct cfs_pool *pool;

	CFS_ASSERT(max_bytes >= CFS_PAYLOAD_MAX);
	pool = calloc(1, sizeof(*pool));
	if (!pool)
		return -ENOMEM;
	pool->max_bytes = max_bytes;
	*ret_pool = pool;
	return 0;
}

void cfs_pool_set_waiter(struct cfs_pool *pool, void (*fn)(void *arg), void *arg)
{
	pool->waiter = fn;
	pool->waiter_arg = arg;
}

static void pbuf_free(struct cfs_pbuf *buf)
{
	buf->pool->bytes -= class_bytes[buf->size_class];
	free(buf->data);
	free(buf);
}

static struct cfs_pbuf *pbuf_alloc(struct cfs_pool *pool, uint32_t size_class)
{
	uint32_t size = class_bytes[size_class];
	struct cfs_pbuf *buf = malloc(sizeof(*buf));

	if (!buf)
		return NULL;
	buf->pool = pool;
	buf->next = NULL;
	buf->size_class = size_class;
	if (posix_memalign(&buf->data, size >= HUGE_PAGE ? HUGE_PAGE : 4096, size)) {
		free(buf);
		return NULL;
	}
	if (size >= HUGE_PAGE)
		madvise(buf->data, size, MADV_HUGEPAGE);	/* two faults instead of a thousand */
	pool->bytes += size;
	return buf;
}

struct cfs_pbuf *cfs_pool_take(struct cfs_pool *pool, uint32_t len)
{
	struct cfs_pbuf *buf;
	uint32_t c = 0;

	CFS_ASSERT(len <= CFS_PAYLOAD_MAX);
	while (class_bytes[c] < len)
		c++;
	buf = pool->free[c];
	if (buf) {
		pool->free[c] = buf->next;
	} else {
		/* free buffers of other sizes must not keep this size from existing */
		for (uint32_t i = 0; i < N_CLASSES; i++) {
			while (pool->bytes + class_bytes[c] > pool->max_bytes && pool->free[i]) {
				struct cfs_pbuf *victim = pool->free[i];

				pool->free[i] = victim->next;
				pbuf_free(victim);
			}
		}
		if (pool->bytes + class_bytes[c] <= pool->max_bytes)
			buf = pbuf_alloc(pool, c);
	}
	if (buf)
		pool->out++;
	else
		pool->refused = true;
	return buf;
}

static void pool_free(struct cfs_pool *pool)
{
	for (uint32_t i = 0; i < N_CLASSES; i++) {
		struct cfs_pbuf *buf, *next;

		for (buf = pool->free[i]; buf; buf = next) {
			next = buf->next;
			pbuf_free(buf);
		}
	}
	CFS_ASSERT(!pool->bytes);
	free(pool);
}

void cfs_pool_give(struct cfs_pbuf *buf)
{
	struct cfs_pool *pool = buf->pool;

	CFS_ASSERT(pool->out);
	pool->out--;
	buf->next = pool->free[buf->size_class];
	pool->free[buf->size_class] = buf;
	if (pool->destroyed) {
		if (!pool->out)
			pool_free(pool);
	} else if (pool->refused && pool->waiter) {
		pool->refused = false;
		pool->waiter(pool->waiter_arg);
	}
}

void cfs_pbuf_zero_tail(struct cfs_pbuf *buf, uint32_t len)
{
	uint32_t end = (uint32_t)cfs_align_up(len, 4096);

	CFS_ASSERT(end <= class_bytes[buf->size_class]);
	memset((char *)buf->data + len, 0, end - len);
}

void cfs_pool_destroy(struct cfs_pool *pool)
{
	if (!pool)
		return;
	pool->destroyed = true;
	if (!pool->out)
		pool_free(pool);
}

void cfs_msg_release(struct cfs_msg *msg)
{
	if (msg->priv)
		cfs_pool_give(msg->priv);
	msg->priv = NULL;
	msg->payload = NULL;
}

struct cfs_msg *cfs_msg_take(struct cfs_msg *msg)
{
	uint32_t body_len = cfs_le32_to_cpu(msg->hdr.body_len);
	struct cfs_pbuf *buf = msg->priv;
	struct cfs_msg *taken;
	void *body;

	if (buf && body_len <= CFS_PBUF_BODY_MAX) {
		taken = &buf->msg;
		body = buf->body;
	} else {
		_Static_assert(sizeof(*taken) % 8 == 0, "a body behind it is aligned");
		taken = malloc(sizeof(*taken) + body_len);
		CFS_ASSERT(taken);	/* at most 256 KiB; the call cannot say no */
		body = taken + 1;
	}
	*taken = *msg;
	taken->body = body;
	if (body_len)
		memcpy(body, msg->body, body_len);
	msg->priv = NULL;
	msg->payload = NULL;
	return taken;
}

void cfs_msg_free(struct cfs_msg *msg)
{
	struct cfs_pbuf *buf;

	if (!msg)
		return;
	buf = msg->priv;
	if (!buf || msg != &buf->msg)
		free(msg);
	if (buf)
		cfs_pool_give(buf);
}
