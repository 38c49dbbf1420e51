/* SPDX-License-Identifier: MIT */
/* codec.c - see codec.h. */
#include "rpc/codec.h"

#include <errno.h>

#include "base/crc32c.h"

void cfs_hdr_init(struct cfs_msg_hdr *hdr, uint16_t opcode)
{
	memset(hdr, 0, sizeof(*hdr));
	hdr->opcode = cfs_cpu_to_le16(opcode);
	hdr->slot = cfs_cpu_to_le32(CFS_SLOT_NONE);
}

void cfs_hdr_init_reply(struct cfs_msg_hdr *hdr, const struct cfs_msg_hdr *req, uint32_t status)
{
	memset(hdr, 0, sizeof(*hdr));
	hdr->flags = CFS_MSG_REPLY;
	hdr->opcode = req->opcode;
	hdr->tag = req->tag;
	hdr->session = req->session;
	hdr->slot = req->slot;
	hdr->seq = req->seq;
	hdr->status = cfs_cpu_to_le32(status);
}

static void hdr_seal(struct cfs_msg_hdr *hdr, uint32_t body_len, uint32_t body_crc,
		     uint32_t payload_len)
{
	CFS_ASSERT(body_len <= CFS_BODY_MAX && payload_len <= CFS_PAYLOAD_MAX);
	CFS_ASSERT(hdr->opcode != 0);
	hdr->magic = cfs_cpu_to_le32(CFS_WIRE_MAGIC);
	hdr->version = CFS_WIRE_VERSION;
	hdr->body_len = cfs_cpu_to_le32(body_len);
	hdr->payload_len = cfs_cpu_to_le32(payload_len);
	hdr->body_crc = cfs_cpu_to_le32(body_crc);
	hdr->hdr_crc = cfs_cpu_to_le32(cfs_crc32c(0, hdr, offsetof(struct cfs_msg_hdr, hdr_crc)));
}

void cfs_hdr_seal(struct cfs_msg_hdr *hdr, const void *body, uint32_t body_len, uint32_t payload_len)
{
	hdr_seal(hdr, body_len, cfs_crc32c(0, body, body_len), payload_len);
}

void cfs_hdr_seal_iov(struct cfs_msg_hdr *hdr, const struct iovec *body, unsigned n_body,
		      uint32_t payload_len)
{
	uint32_t crc = 0;
	size_t len = 0;

	for (unsigned i = 0; i < n_body; i++) {
		crc = cfs_crc32c(crc, body[i].iov_base, body[i].iov_len);
		len += body[i].iov_len;
	}
	CFS_ASSERT(len <= CFS_BODY_MAX);
	hdr_seal(hdr, (uint32_t)len, crc, payload_len);
}

int cfs_hdr_check(const struct cfs_msg_hdr *hdr, const char **ret_why)
{
	const char *why = NULL;

	if (cfs_le32_to_cpu(hdr->magic) != CFS_WIRE_MAGIC)
		why = "magic";
	else if (cfs_le32_to_cpu(hdr->hdr_crc) !=
		 cfs_crc32c(0, hdr, offsetof(struct cfs_msg_hdr, hdr_crc)))
		why = "header checksum";
	else if (hdr->version != CFS_WIRE_VERSION)
		why = "protocol version";
	else if (hdr->flags & ~CFS_MSG_REPLY)
		why = "unknown flags";
	else if (cfs_le32_to_cpu(hdr->body_len) > CFS_BODY_MAX)
		why = "body length";
	else if (cfs_le32_to_cpu(hdr->payload_len) > CFS_PAYLOAD_MAX)
		why = "payload length";
	else if (!hdr->opcode)
		why = "opcode 0";
	if (!why)
		return 0;
	*ret_why = why;
	return -EPROTO;
}

int cfs_body_check(const struct cfs_msg_hdr *hdr, const void *body)
{
	uint32_t crc = cfs_crc32c(0, body, cfs_le32_to_cpu(hdr->body_len));

	return crc == cfs_le32_to_cpu(hdr->body_crc) ? 0 : -EBADMSG;
}

int cfs_cursor_end(struct cfs_cursor *c)
{
	if (!c->err && c->left)
		c->err = "bytes after the end";
	return c->err ? -EPROTO : 0;
}

int cfs_cursor_ok(const struct cfs_cursor *c)
{
	return c->err ? -EPROTO : 0;
}

int cfs_name_check(const char *name, size_t len, bool dots)
{
	if (!len)
		return -EPROTO;
	if (len > CFS_NAME_MAX)
		return -ENAMETOOLONG;
	if (memchr(name, '/', len) || memchr(name, '\0', len))
		return -EPROTO;
	if (!dots && name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')))
		return -EPROTO;
	return 0;
}

int cfs_builder_ok(const struct cfs_builder *b)
{
	return b->err ? -EMSGSIZE : 0;
}

void cfs_payload_crcs(const void *data, uint32_t len, uint32_t *crcs)
{
	const uint8_t *p = data;

	for (uint32_t i = 0; len; i++) {
		uint32_t n = cfs_min(len, CFS_CRC_BLOCK);

		crcs[i] = cfs_crc32c(0, p, n);
		p += n;
		len -= n;
	}
}

int cfs_payload_verify(const void *data, uint32_t len, const uint32_t *crcs)
{
	const uint8_t *p = data;

	for (int i = 0; len; i++) {
		uint32_t n = cfs_min(len, CFS_CRC_BLOCK);

		if (cfs_crc32c(0, p, n) != crcs[i])
			return i;
		p += n;
		len -= n;
	}
	return -1;
}
