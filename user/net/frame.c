/* SPDX-License-Identifier: MIT */
/* frame.c - see frame.h. */
#include "net/frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "rpc/codec.h"

void cfs_frame_init(struct cfs_frame *f, struct cfs_pool *pool)
{
	f->pool = pool;
	f->state = CFS_FRAME_HDR;
	f->have = 0;
	f->why = NULL;
	f->heap_body = NULL;
	f->msg.priv = NULL;
	f->msg.payload = NULL;
	f->msg.body = NULL;
}

void cfs_frame_fini(struct cfs_frame *f)
{
	cfs_msg_release(&f->msg);
	free(f->heap_body);
	f->heap_body = NULL;
	f->state = CFS_FRAME_BAD;
}

void cfs_frame_next(struct cfs_frame *f)
{
	CFS_ASSERT(f->state == CFS_FRAME_DONE);
	cfs_msg_release(&f->msg);
	if (f->heap_body) {
		free(f->heap_body);
		f->heap_body = NULL;
	}
	f->state = CFS_FRAME_HDR;
	f->have = 0;
}

static int frame_bad(struct cfs_frame *f, int err, const char *why)
{
	f->state = CFS_FRAME_BAD;
	f->why = why;
	return err;
}

/* move up to `want - have` bytes from the stream to their place; true when all `want` are there */
static bool gather(struct cfs_frame *f, void *place, uint32_t want, const uint8_t **p, size_t *left)
{
	size_t n = cfs_min((size_t)(want - f->have), *left);

	if (n) {
		memcpy((uint8_t *)place + f->have, *p, n);
		*p += n;
		*left -= n;
		f->have += (uint32_t)n;
	}
	return f->have == want;
}

static int take_hdr(struct cfs_frame *f)
{
	int rc = cfs_hdr_check(&f->msg.hdr, &f->why);

	if (rc)
		return frame_bad(f, rc, f->why);
	f->body_len = cfs_le32_to_cpu(f->msg.hdr.body_len);
	f->payload_len = cfs_le32_to_cpu(f->msg.hdr.payload_len);
	f->msg.body = NULL;
	f->have = 0;
	f->state = CFS_FRAME_BODY;
	return 0;
}

/* returns 1 when the body is at msg.body, 0 when more bytes are needed */
static int take_body(struct cfs_frame *f, const uint8_t **p, size_t *left)
{
	uint8_t *place = f->heap_body ? f->heap_body : f->body;

	/* usual case: all of it lies before us, where it may stay */
	if (!f->have && *left >= f->body_len && !((uintptr_t)*p & 7)) {
		f->msg.body = f->body_len ? *p : f->body;
		*p += f->body_len;
		*left -= f->body_len;
		return 1;
	}
	if (!f->have && f->body_len > CFS_FRAME_BODY_INLINE && !f->heap_body) {
		f->heap_body = place = malloc(f->body_len);
		if (!place)
			return frame_bad(f, -ENOMEM, "no memory for a body");
	}
	if (!gather(f, place, f->body_len, p, left))
		return 0;
	f->msg.body = place;
	return 1;
}

/*
 * The body is verified and the payload must come from a buffer. When there is none the body must not
 * stay in memory that is the caller's for this call only.
 */
static int take_pbuf(struct cfs_frame *f)
{
	struct cfs_pbuf *buf = cfs_pool_take(f->pool, f->payload_len);

	if (buf) {
		f->msg.priv = buf;
		f->msg.payload = buf->data;
		f->have = 0;
		f->state = CFS_FRAME_PAYLOAD;
	}
	return buf ? 0 : -EAGAIN;
}

static int keep_body(struct cfs_frame *f)
{
	uint8_t *place = f->body;

	if (f->msg.body == f->body || f->msg.body == f->heap_body)
		return 0;
	if (f->body_len > CFS_FRAME_BODY_INLINE) {
		f->heap_body = place = malloc(f->body_len);
		if (!place)
			return frame_bad(f, -ENOMEM, "no memory for a body");
	}
	memcpy(place, f->msg.body, f->body_len);
	f->msg.body = place;
	return 0;
}

static int payload_complete(struct cfs_frame *f)
{
	cfs_pbuf_zero_tail(f->msg.priv, f->payload_len);
	f->state = CFS_FRAME_DONE;
	return 1;
}

static int feed(struct cfs_frame *f, const uint8_t **p, size_t *left)
{
	int rc;

	switch (f->state) {
	case CFS_FRAME_HDR:
		if (!gather(f, &f->msg.hdr, sizeof(f->msg.hdr), p, left))
			return 0;
		rc = take_hdr(f);
		if (rc)
			return rc;
		/* fall through */
	case CFS_FRAME_BODY:
		rc = take_body(f, p, left);
		if (rc <= 0)
			return rc;
		if (cfs_body_check(&f->msg.hdr, f->msg.body))
			return frame_bad(f, -EBADMSG, "body checksum");
		if (!f->payload_len) {
			f->state = CFS_FRAME_DONE;
			return 1;
		}
		/* the payload may end in a later call than this one's bytes */
		rc = *left < f->payload_len ? keep_body(f) : 0;
		if (rc)
			return rc;
		f->state = CFS_FRAME_WAIT;
		/* fall through */
	case CFS_FRAME_WAIT:
		rc = take_pbuf(f);
		if (rc) {
			int keep = keep_body(f);

			return keep ? keep : rc;
		}
		/* fall through */
	case CFS_FRAME_PAYLOAD:
		if (!gather(f, f->msg.payload, f->payload_len, p, left))
			return 0;
		return payload_complete(f);
	case CFS_FRAME_DONE:
	case CFS_FRAME_BAD:
		break;
	}
	CFS_ASSERT(!"fed after its end");
	return -EPROTO;
}

int cfs_frame_feed(struct cfs_frame *f, const void *buf, size_t len, size_t *ret_used)
{
	const uint8_t *p = buf;
	size_t left = len;
	int rc = feed(f, &p, &left);

	*ret_used = len - left;
	return rc;
}

size_t cfs_frame_direct(struct cfs_frame *f, void **ret_place)
{
	if (f->state != CFS_FRAME_PAYLOAD)
		return 0;
	*ret_place = (uint8_t *)f->msg.payload + f->have;
	return f->payload_len - f->have;
}

int cfs_frame_direct_done(struct cfs_frame *f, size_t n)
{
	CFS_ASSERT(f->state == CFS_FRAME_PAYLOAD && n <= f->payload_len - f->have);
	f->have += (uint32_t)n;
	return f->have == f->payload_len ? payload_complete(f) : 0;
}
