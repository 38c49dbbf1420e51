/* SPDX-License-Identifier: MIT */
/* opname.h - names of the protocol's operations, for status documents and metrics. */
#ifndef CFS_USER_RPC_OPNAME_H
#define CFS_USER_RPC_OPNAME_H

#include <stdint.h>

/* "lookup" of CFS_OP_LOOKUP; of an opcode without a name "op_63", in buf */
const char *cfs_op_name(uint32_t op, char buf[16]);

#endif
