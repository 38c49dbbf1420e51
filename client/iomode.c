// SPDX-License-Identifier: MIT
/* iomode.c - see iomode.h. */
#include "client/iomode.h"

#include "base/base.h"

#include <stdbool.h>

static enum cfs_iomode mode_of(const struct cfs_iostate *s)
{
	for (enum cfs_iomode m = CFS_IO_MODES - 1; m > CFS_IO_CLOSED; m--)
		if (s->n[m])
			return m;
	return CFS_IO_CLOSED;
}

static void move(struct cfs_iostate *s)
{
	static const bool allowed[CFS_IO_MODES][CFS_IO_MODES] = {
		[CFS_IO_CLOSED] = { [CFS_IO_DIRECT] = true, [CFS_IO_CACHED] = true, [CFS_IO_PASSTHROUGH] = true },
		[CFS_IO_DIRECT] = { [CFS_IO_CLOSED] = true, [CFS_IO_DIRECT] = true, [CFS_IO_CACHED] = true },
		[CFS_IO_CACHED] = { [CFS_IO_CLOSED] = true, [CFS_IO_DIRECT] = true, [CFS_IO_CACHED] = true },
		[CFS_IO_PASSTHROUGH] = { [CFS_IO_CLOSED] = true, [CFS_IO_PASSTHROUGH] = true },
	};
	enum cfs_iomode to = mode_of(s);

	CFS_ASSERT(allowed[s->mode][to]);
	CFS_ASSERT(!s->n[CFS_IO_PASSTHROUGH] || !(s->n[CFS_IO_DIRECT] || s->n[CFS_IO_CACHED]));
	s->mode = (uint8_t)to;
}

enum cfs_iomode cfs_iostate_open(struct cfs_iostate *s, enum cfs_iomode want)
{
	enum cfs_iomode mode = want;

	CFS_ASSERT(want > CFS_IO_CLOSED && want < CFS_IO_MODES);
	if (s->mode == CFS_IO_PASSTHROUGH)
		mode = CFS_IO_PASSTHROUGH;
	else if (want == CFS_IO_PASSTHROUGH && s->mode != CFS_IO_CLOSED)
		mode = CFS_IO_CACHED;
	s->n[mode]++;
	move(s);
	return mode;
}

void cfs_iostate_close(struct cfs_iostate *s, enum cfs_iomode mode)
{
	CFS_ASSERT(mode > CFS_IO_CLOSED && mode < CFS_IO_MODES && s->n[mode]);
	s->n[mode]--;
	move(s);
}
