// SPDX-License-Identifier: GPL-2.0
/*
 * layout.c - where things stand in the private structures of fs/fuse. Compiled to assembler only, as the kernel's own
 * asm-offsets.c, against vmlinux.h, which bpftool makes from the target kernel's BTF; the Makefile picks the
 * lines "->#define ..." out of it into fuse_layout.h. So neither a C library nor a kernel source is needed.
 * HAVE_CHAN: the kernel has struct fuse_chan, which 7.x split off struct fuse_conn; "top" is whichever has the queue.
 */
#include "vmlinux.h"

#ifdef HAVE_CHAN
#define TOP fuse_chan
#define DEV_TOP chan
#else
#define TOP fuse_conn
#define DEV_TOP fc
#endif

#define DEFINE(name, value) asm volatile("\n->#define " name " %c0\n" : : "i"((unsigned long)(value)))
#define SIZE_AS(s, name) DEFINE("SZ_" name, sizeof(struct s))
#define SIZE(s) SIZE_AS(s, #s)
#define OFFSET_AS(s, m, name) DEFINE("OFF_" name, __builtin_offsetof(struct s, m))
#define OFFSET(s, m) OFFSET_AS(s, m, #s "__" #m)

void layout(void)
{
	SIZE(fuse_args);
	OFFSET(fuse_args, nodeid);
	OFFSET(fuse_args, opcode);
	OFFSET(fuse_args, in_numargs);
	OFFSET(fuse_args, out_numargs);
	OFFSET(fuse_args, in_args);
	OFFSET(fuse_args, out_args);
	SIZE(fuse_in_arg);
	OFFSET(fuse_in_arg, size);
	OFFSET(fuse_in_arg, value);
	SIZE(fuse_arg);
	OFFSET(fuse_arg, size);
	OFFSET(fuse_arg, value);
	SIZE(fuse_req);
	OFFSET(fuse_req, args);
	OFFSET(fuse_req, flags);
	OFFSET_AS(fuse_req, out.h, "fuse_req__out");
	SIZE(fuse_iqueue);
	OFFSET(fuse_iqueue, ops);
	SIZE(fuse_iqueue_ops);
	OFFSET(fuse_iqueue_ops, send_forget);
	OFFSET(fuse_iqueue_ops, send_interrupt);
	OFFSET(fuse_iqueue_ops, send_req);
	OFFSET(fuse_iqueue_ops, release);
	SIZE(fuse_dev);
	OFFSET_AS(fuse_dev, DEV_TOP, "fuse_dev__top");
	SIZE_AS(TOP, "top");
	OFFSET_AS(TOP, iq, "top__iq");
#ifdef HAVE_CHAN
	DEFINE("HAVE_CHAN", 1);
	OFFSET_AS(fuse_chan, conn, "top__conn");
#endif
	DEFINE("VAL_FR_PENDING", FR_PENDING);
	DEFINE("VAL_FR_BACKGROUND", FR_BACKGROUND);
}
