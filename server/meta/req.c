/* SPDX-License-Identifier: MIT */
/* req.c - taking request bodies apart, every length checked. Pure functions. See meta_i.h. */
#include "server/meta/meta_i.h"

/* the fixed part, then two variable parts of the lengths given, and nothing else */
static int parts(const uint8_t *body, uint32_t len, size_t fixed, uint32_t a, uint32_t b,
		 const void **ret_a, const void **ret_b)
{
	struct cfs_cursor c;
	const void *pa, *pb;

	cfs_cursor_init(&c, body, len);
	cfs_take(&c, fixed, "request");
	pa = cfs_take(&c, a, "first name");
	pb = cfs_take(&c, b, "second name");
	if (cfs_cursor_end(&c))
		return CFS_E_PROTO;
	*ret_a = pa;
	*ret_b = pb;
	return 0;
}

static bool fixed_part(const uint8_t *body, uint32_t len, void *req, size_t size)
{
	if (len < size)
		return false;
	memcpy(req, body, size);
	return true;
}

int cfs_ms_req_fixed(const uint8_t *body, uint32_t len, void *req, size_t size)
{
	if (len != size)
		return CFS_E_PROTO;
	memcpy(req, body, size);
	return 0;
}

int cfs_ms_req_mknode(const uint8_t *body, uint32_t len, struct cfs_mknode_req *req,
		      const char **ret_name, const char **ret_target)
{
	if (!fixed_part(body, len, req, sizeof(*req)))
		return CFS_E_PROTO;
	return parts(body, len, sizeof(*req), cfs_le32_to_cpu(req->name_len),
		     cfs_le32_to_cpu(req->target_len), (const void **)ret_name,
		     (const void **)ret_target);
}

int cfs_ms_req_link(const uint8_t *body, uint32_t len, struct cfs_link_req *req,
		    const char **ret_name)
{
	const void *none;

	if (!fixed_part(body, len, req, sizeof(*req)))
		return CFS_E_PROTO;
	return parts(body, len, sizeof(*req), cfs_le32_to_cpu(req->name_len), 0,
		     (const void **)ret_name, &none);
}

int cfs_ms_req_unlink(const uint8_t *body, uint32_t len, struct cfs_unlink_req *req,
		      const char **ret_name)
{
	const void *none;

	if (!fixed_part(body, len, req, sizeof(*req)))
		return CFS_E_PROTO;
	return parts(body, len, sizeof(*req), cfs_le32_to_cpu(req->name_len), 0,
		     (const void **)ret_name, &none);
}

int cfs_ms_req_rename(const uint8_t *body, uint32_t len, struct cfs_rename_req *req,
		      const char **ret_old, const char **ret_new)
{
	if (!fixed_part(body, len, req, sizeof(*req)))
		return CFS_E_PROTO;
	return parts(body, len, sizeof(*req), cfs_le32_to_cpu(req->old_len),
		     cfs_le32_to_cpu(req->new_len), (const void **)ret_old, (const void **)ret_new);
}

int cfs_ms_req_lookup(const uint8_t *body, uint32_t len, struct cfs_lookup_req *req,
		      const char **ret_name)
{
	const void *none;

	if (!fixed_part(body, len, req, sizeof(*req)))
		return CFS_E_PROTO;
	return parts(body, len, sizeof(*req), cfs_le32_to_cpu(req->name_len), 0,
		     (const void **)ret_name, &none);
}

int cfs_ms_req_xattr(const uint8_t *body, uint32_t len, struct cfs_xattr_req *req,
		     const char **ret_name)
{
	const void *none;

	if (!fixed_part(body, len, req, sizeof(*req)))
		return CFS_E_PROTO;
	return parts(body, len, sizeof(*req), cfs_le32_to_cpu(req->name_len), 0,
		     (const void **)ret_name, &none);
}

int cfs_ms_req_setxattr(const uint8_t *body, uint32_t len, struct cfs_setxattr_req *req,
			const char **ret_name, const uint8_t **ret_value)
{
	if (!fixed_part(body, len, req, sizeof(*req)))
		return CFS_E_PROTO;
	return parts(body, len, sizeof(*req), cfs_le32_to_cpu(req->name_len),
		     cfs_le32_to_cpu(req->value_len), (const void **)ret_name,
		     (const void **)ret_value);
}

int cfs_ms_req_release(const uint8_t *body, uint32_t len, uint32_t *ret_n, const uint8_t **ret_inos)
{
	struct cfs_release_req req;

	if (!fixed_part(body, len, &req, sizeof(req)))
		return CFS_E_PROTO;
	*ret_n = cfs_le32_to_cpu(req.n);
	*ret_inos = body + sizeof(req);
	if (*ret_n > CFS_LEASE_LIST_MAX || len != sizeof(req) + 8 * (size_t)*ret_n)
		return CFS_E_PROTO;
	return 0;
}

int cfs_ms_req_commit(const uint8_t *body, uint32_t len, uint32_t *ret_n)
{
	struct cfs_commit_req req;
	struct cfs_commit_item item;
	struct cfs_cursor c;
	uint32_t n;

	cfs_cursor_init(&c, body, len);
	cfs_take_struct(&c, &req);
	n = cfs_le32_to_cpu(req.n);
	if (n > CFS_COMMIT_MAX)
		return CFS_E_PROTO;
	for (uint32_t i = 0; i < n; i++) {
		cfs_take_struct(&c, &item);
		cfs_take(&c, cfs_le32_to_cpu(item.inline_len), "inline data");
		cfs_take_array(&c, cfs_le32_to_cpu(item.n_extents), sizeof(struct cfs_extent),
			       "extents");
	}
	if (cfs_cursor_end(&c))
		return CFS_E_PROTO;
	*ret_n = n;
	return 0;
}

void cfs_ms_req_commit_item(const uint8_t *body, uint32_t *pos, struct cfs_commit_item *item,
			    const uint8_t **ret_inline, const uint8_t **ret_extents)
{
	memcpy(item, body + *pos, sizeof(*item));
	*pos += sizeof(*item);
	*ret_inline = body + *pos;
	*pos += cfs_le32_to_cpu(item->inline_len);
	*ret_extents = body + *pos;
	*pos += cfs_le32_to_cpu(item->n_extents) * (uint32_t)sizeof(struct cfs_extent);
}
