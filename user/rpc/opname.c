// SPDX-License-Identifier: MIT
/* opname.c - see opname.h. */
#include "rpc/opname.h"

#include "base/base.h"
#include "claudefs/wire.h"

#include <stdio.h>

static const char *const names[] = {
	[CFS_OP_HELLO] = "hello", [CFS_OP_STATUS] = "status", [CFS_OP_MAP] = "map", [CFS_OP_SESSION_OPEN] = "session_open",
	[CFS_OP_SESSION_CLOSE] = "session_close", [CFS_OP_HEARTBEAT] = "heartbeat", [CFS_OP_RECLAIM] = "reclaim",
	[CFS_OP_LEASE_RETURN] = "lease_return", [CFS_OP_LOOKUP] = "lookup", [CFS_OP_GETATTR] = "getattr",
	[CFS_OP_READDIR] = "readdir", [CFS_OP_READLINK] = "readlink", [CFS_OP_GETXATTR] = "getxattr",
	[CFS_OP_LISTXATTR] = "listxattr", [CFS_OP_STATFS] = "statfs", [CFS_OP_OPEN] = "open", [CFS_OP_EXTENTS] = "extents",
	[CFS_OP_SEEK] = "seek", [CFS_OP_GETLK] = "getlk", [CFS_OP_SETATTR] = "setattr", [CFS_OP_MKNODE] = "mknode",
	[CFS_OP_LINK] = "link", [CFS_OP_UNLINK] = "unlink", [CFS_OP_RENAME] = "rename", [CFS_OP_SETXATTR] = "setxattr",
	[CFS_OP_COMMIT] = "commit", [CFS_OP_FALLOCATE] = "fallocate", [CFS_OP_COPY] = "copy", [CFS_OP_LOCK] = "lock",
	[CFS_OP_RELEASE] = "release", [CFS_OP_OBJ_WRITE] = "obj_write", [CFS_OP_OBJ_READ] = "obj_read",
	[CFS_OP_OBJ_DELETE] = "obj_delete", [CFS_OP_OBJ_LIST] = "obj_list",
};

const char *cfs_op_name(uint32_t op, char buf[16])
{
	if (op < CFS_ARRAY_SIZE(names) && names[op])
		return names[op];
	snprintf(buf, 16, "op_%u", op);
	return buf;
}
