/* SPDX-License-Identifier: MIT */
/*
 * frame.h - from a stream of bytes to verified messages: the receiving half of a connection,
 * without the socket. It trusts nothing: header first, body only as long as a checked header says, payload
 * memory only after the body's checksum was right.
 *
 * One connection owns one frame. Pure but for memory: bytes in, messages out; any thread, one at a time.
 */
#ifndef CFS_NET_FRAME_H
#define CFS_NET_FRAME_H

#include "net/net.h"
#include "net/pool.h"

#include <stdbool.h>
#include <stddef.h>

#define CFS_FRAME_BODY_INLINE 512u	/* longer bodies that arrive in pieces take an allocation */

enum cfs_frame_state {
	CFS_FRAME_HDR,		/* `have` bytes of the header */
	CFS_FRAME_BODY,		/* `have` bytes of the body */
	CFS_FRAME_WAIT,		/* for a payload buffer */
	CFS_FRAME_PAYLOAD,	/* `have` bytes of the payload */
	CFS_FRAME_DONE,		/* msg is complete, until cfs_frame_next() */
	CFS_FRAME_BAD,		/* for ever */
};

struct cfs_frame {
	struct cfs_pool *pool;
	enum cfs_frame_state state;
	uint32_t have;
	uint32_t body_len, payload_len;	/* host order, checked */
	const char *why;		/* what was wrong, static text */
	uint8_t *heap_body;
	struct cfs_msg msg;
	_Alignas(8) uint8_t body[CFS_FRAME_BODY_INLINE];
};

void cfs_frame_init(struct cfs_frame *f, struct cfs_pool *pool);
void cfs_frame_fini(struct cfs_frame *f);

/**
 * cfs_frame_feed() - consume bytes up to the end of a message.
 * @buf, @len: the next bytes of the stream; may be 0 bytes, to go on after -EAGAIN
 * @ret_used: how many were consumed (always set)
 * Return: 1: f->msg is a whole verified message, until cfs_frame_next(); its body may point into buf.
 * 0: all bytes consumed, more are needed. -EAGAIN: no payload buffer, feed again later.
 * -EPROTO, -EBADMSG, -ENOMEM: the connection is to be closed, f->why says why.
 */
int cfs_frame_feed(struct cfs_frame *f, const void *buf, size_t len, size_t *ret_used);
/* done with f->msg: gives its payload back unless it was taken */
void cfs_frame_next(struct cfs_frame *f);

/* the rest of a payload, to be received straight into its place; 0 when no payload is being received */
size_t cfs_frame_direct(struct cfs_frame *f, void **ret_place);
/* n bytes have been put there: 1 when the message is complete, else 0 */
int cfs_frame_direct_done(struct cfs_frame *f, size_t n);

/* is a message half received? */
static inline bool cfs_frame_partial(const struct cfs_frame *f)
{
	return f->state != CFS_FRAME_HDR || f->have;
}

#endif
