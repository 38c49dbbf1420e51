/* SPDX-License-Identifier: MIT */
/*
 * pool.h - payload buffers: 4096-aligned, in three sizes, bounded in bytes, reused warm.
 *
 * A net owns one pool; buffers that messages have taken (cfs_msg_take) may outlive the net, and the last
 * one to come back frees the pool. One thread.
 */
#ifndef CFS_NET_POOL_H
#define CFS_NET_POOL_H

#include "net/net.h"

struct cfs_pool;

#define CFS_PBUF_BODY_MAX 1024u		/* of a taken message: larger bodies go to the heap */

struct cfs_pbuf {
	struct cfs_pool *pool;
	struct cfs_pbuf *next;		/* in the free list */
	void *data;			/* room for the payload, and up to the next multiple of 4096 */
	uint32_t size_class;
	uint32_t pad;
	struct cfs_msg msg;		/* of cfs_msg_take(): taking allocates nothing */
	_Alignas(8) uint8_t body[CFS_PBUF_BODY_MAX];
};

/* @max_bytes: of all buffers, in use and free; at least CFS_PAYLOAD_MAX. 0 or -ENOMEM */
int cfs_pool_create(uint64_t max_bytes, struct cfs_pool **ret_pool);
/* called when a buffer comes back after a refusal; NULL fn: nobody listens any more */
void cfs_pool_set_waiter(struct cfs_pool *pool, void (*fn)(void *arg), void *arg);
/* a buffer for `len` <= CFS_PAYLOAD_MAX bytes; NULL when the bound is reached: wait for the waiter's call */
struct cfs_pbuf *cfs_pool_take(struct cfs_pool *pool, uint32_t len);
void cfs_pool_give(struct cfs_pbuf *buf);
/* zeros from len up to the next multiple of 4096: writers to disk read that far */
void cfs_pbuf_zero_tail(struct cfs_pbuf *buf, uint32_t len);
/* the owner's end; buffers still out keep the pool alive. NULL is fine */
void cfs_pool_destroy(struct cfs_pool *pool);

/* what a net does when on_msg() has returned: the payload goes back unless it was taken */
void cfs_msg_release(struct cfs_msg *msg);

#endif
