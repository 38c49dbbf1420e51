/* SPDX-License-Identifier: MIT */
/*
 * codec.h - building and checking messages: header, body cursor, body builder.
 *
 * Everything that comes from the wire is read through a cfs_cursor, everything that goes out is
 * written through a cfs_builder; both carry a sticky error that names what was short, so that a
 * decoder takes all its parts and checks once. Pure functions over the caller's memory; no state,
 * any thread. Used by server, client, tools, and by whoever stores wire structures on disk.
 */
#ifndef CFS_RPC_CODEC_H
#define CFS_RPC_CODEC_H

#include <claudefs/wire.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/uio.h>

#include "base/base.h"

/* ---- header ------------------------------------------------------------------------------ */

/* a request's header: opcode, slot CFS_SLOT_NONE, all else 0. Lengths and checksums: cfs_hdr_seal() */
void cfs_hdr_init(struct cfs_msg_hdr *hdr, uint16_t opcode);
/* the header of the reply to `req`: repeats opcode, tag, session, slot and seq */
void cfs_hdr_init_reply(struct cfs_msg_hdr *hdr, const struct cfs_msg_hdr *req, uint32_t status);
/* fill in magic, version, lengths and both checksums: the last thing before the bytes leave */
void cfs_hdr_seal(struct cfs_msg_hdr *hdr, const void *body, uint32_t body_len, uint32_t payload_len);
/* the same for a body in parts; the sum of their lengths must be <= CFS_BODY_MAX */
void cfs_hdr_seal_iov(struct cfs_msg_hdr *hdr, const struct iovec *body, unsigned n_body,
		      uint32_t payload_len);

/**
 * cfs_hdr_check() - is this a header? Magic, version, flags, lengths, checksum.
 * @ret_why: static text that names what was wrong, on failure
 * Return: 0, or -EPROTO.
 */
int cfs_hdr_check(const struct cfs_msg_hdr *hdr, const char **ret_why);
/** cfs_body_check() - does the body match its checksum? 0, or -EBADMSG. `body` has hdr->body_len bytes. */
int cfs_body_check(const struct cfs_msg_hdr *hdr, const void *body);

/* ---- reading a body ------------------------------------------------------------------------ */

/* take parts from front to back; after the first part that is short nothing more is given */
struct cfs_cursor {
	const uint8_t *p;
	size_t left;
	const char *err;	/* NULL, or what was short: static text */
};

static inline void cfs_cursor_init(struct cfs_cursor *c, const void *buf, size_t len)
{
	c->p = buf;
	c->left = len;
	c->err = NULL;
}

/* the next n bytes, borrowed, of any alignment; NULL when they are not there (0 bytes: not NULL) */
static inline const void *cfs_take(struct cfs_cursor *c, size_t n, const char *what)
{
	const uint8_t *p = c->p;

	if (cfs_unlikely(c->err || n > c->left)) {
		if (!c->err)
			c->err = what;
		return NULL;
	}
	c->p += n;
	c->left -= n;
	return p ? (const void *)p : (const void *)"";
}

/* n elements of `size` bytes, borrowed, of any alignment: read them with cfs_copy_elem() or cfs_get_le64() */
static inline const void *cfs_take_array(struct cfs_cursor *c, size_t n, size_t size, const char *what)
{
	size_t bytes;

	if (__builtin_mul_overflow(n, size, &bytes))
		bytes = SIZE_MAX;
	return cfs_take(c, bytes, what);
}

/* copy the next n bytes out; on failure dst is zeroed, so that reading it is harmless */
static inline bool cfs_take_copy(struct cfs_cursor *c, void *dst, size_t n, const char *what)
{
	const void *p = cfs_take(c, n, what);

	if (p)
		memcpy(dst, p, n);
	else
		memset(dst, 0, n);
	return p != NULL;
}

/* copy the next fixed structure into *dst: after a name it may stand at any address */
#define cfs_take_struct(c, dst) cfs_take_copy((c), (dst), sizeof(*(dst)), #dst)

/* refuse what a decoder found wrong by itself (a count beyond its bound, ...): sticky like a short part */
static inline void cfs_cursor_fail(struct cfs_cursor *c, const char *what)
{
	if (!c->err)
		c->err = what;
}

/* did every part come, and is nothing left over? The last call of a decoder. 0, or -EPROTO with c->err set */
int cfs_cursor_end(struct cfs_cursor *c);
/* the same, with bytes left over allowed */
int cfs_cursor_ok(const struct cfs_cursor *c);

/* integers and elements at any address */
static inline uint16_t cfs_get_le16(const void *p)
{
	cfs_le16 v;

	memcpy(&v, p, sizeof(v));
	return cfs_le16_to_cpu(v);
}

static inline uint32_t cfs_get_le32(const void *p)
{
	cfs_le32 v;

	memcpy(&v, p, sizeof(v));
	return cfs_le32_to_cpu(v);
}

static inline uint64_t cfs_get_le64(const void *p)
{
	cfs_le64 v;

	memcpy(&v, p, sizeof(v));
	return cfs_le64_to_cpu(v);
}

/* element i of an array from cfs_take_array(), copied into *dst */
#define cfs_copy_elem(dst, array, i) \
	memcpy((dst), (const uint8_t *)(array) + (size_t)(i) * sizeof(*(dst)), sizeof(*(dst)))

/**
 * cfs_name_check() - may this be one name in a directory? Not empty, at most CFS_NAME_MAX bytes, no '/'
 * and no NUL; "." and ".." are refused unless `dots`. Return: 0, -EPROTO or -ENAMETOOLONG.
 */
int cfs_name_check(const char *name, size_t len, bool dots);

/* ---- building a body -------------------------------------------------------------------------- */

/* append to a fixed buffer; after the first part that does not fit nothing more is written */
struct cfs_builder {
	uint8_t *buf;
	size_t cap;
	size_t len;
	const char *err;	/* NULL, or what did not fit: static text */
};

static inline void cfs_builder_init(struct cfs_builder *b, void *buf, size_t cap)
{
	b->buf = buf;
	b->cap = cap;
	b->len = 0;
	b->err = NULL;
}

/* room for n bytes, of any alignment, to be filled in by the caller; NULL when there is none */
static inline void *cfs_put_space(struct cfs_builder *b, size_t n, const char *what)
{
	void *p;

	if (cfs_unlikely(b->err || n > b->cap - b->len)) {
		if (!b->err)
			b->err = what;
		return NULL;
	}
	p = b->buf + b->len;
	b->len += n;
	return p;
}

static inline bool cfs_put(struct cfs_builder *b, const void *src, size_t n, const char *what)
{
	void *p = cfs_put_space(b, n, what);

	if (p && n)
		memcpy(p, src, n);
	return p != NULL;
}

#define cfs_put_struct(b, src) cfs_put((b), (src), sizeof(*(src)), #src)

static inline bool cfs_put_le64(struct cfs_builder *b, uint64_t v, const char *what)
{
	cfs_le64 le = cfs_cpu_to_le64(v);

	return cfs_put(b, &le, sizeof(le), what);
}

/* zeros up to the next multiple of `align` (a power of two) of the body's length */
static inline bool cfs_put_align(struct cfs_builder *b, size_t align, const char *what)
{
	size_t n = (size_t)(cfs_align_up(b->len, align) - b->len);
	void *p = cfs_put_space(b, n, what);

	if (p && n)
		memset(p, 0, n);
	return p != NULL;
}

/* 0, or -EMSGSIZE when something did not fit */
int cfs_builder_ok(const struct cfs_builder *b);

/* ---- payload checksums -------------------------------------------------------------------------- */

/* blocks of CFS_CRC_BLOCK bytes under a checksum each; the last one may be short */
static inline uint32_t cfs_crc_blocks(uint32_t len)
{
	return (len + CFS_CRC_BLOCK - 1) / CFS_CRC_BLOCK;
}

/* crc32c of each block of data, host order; `crcs` has room for cfs_crc_blocks(len) */
void cfs_payload_crcs(const void *data, uint32_t len, uint32_t *crcs);
/* the first block of `data` that does not match its checksum (host order), or -1 when all do */
int cfs_payload_verify(const void *data, uint32_t len, const uint32_t *crcs);

#endif
