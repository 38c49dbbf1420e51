/* SPDX-License-Identifier: GPL-2.0 */
/*
 * fuse_answer.h - how a FUSE request is answered from the maps of claudefs/bpf_shared.h: the one body of logic, compiled for the
 * kernel by fuse_answer.bpf.c and for user space by its unit test (the twin), which both say first what stands below "from
 * outside". It holds no state, never allocates and never guesses: what is not known for certain goes to the daemon.
 *
 * An answer may be kept by the kernel until ctl.until_ns. The daemon must know that when it recalls it, so the time is written to
 * `gate` before the maps are read: either the daemon, which deletes first and reads the gate then, finds it there, or
 * what it deleted is not found here. Changes of this mount's own raise a counter of the gate before they are sent to the server and
 * lower it after their answer; meanwhile nothing is answered about what they may change. It is read last.
 */
#ifndef CFS_BPF_FUSE_ANSWER_H
#define CFS_BPF_FUSE_ANSWER_H

/*
 * From outside:
 *	cfs_now()			boot time in ns
 *	cfs_key(req, size)		struct cfs_bpf_name_key or cfs_bpf_long_key, or NULL; see bpf/kmod/claudefs_fuse.h
 *	cfs_reply(req, data, size)	0, or it failed
 *	cfs_find_name(key), cfs_find_long(key), cfs_find_attr(ino), cfs_find_dir(ino)	the map's element, or NULL
 *	CFS_ANSWER_FN, _INLINE		how a function is declared that is to have a stack frame of its own, and one that is not:
 *					a program has 512 bytes of stack in all
 */
#define CFS_ENOENT	2
#define CFS_ENODATA	61
#define CFS_BLKSIZE	1048576u		/* st_blksize, as the daemon says */
#define CFS_TRIES	2		/* once more after the gate was written */
#define CFS_STATX_BASIC	0xfffu		/* STATX_BASIC_STATS | STATX_BTIME */

/* what one request works with */
struct cfs_answer {
	struct cfs_bpf_ctl *c;
	struct cfs_bpf_gate *g;
	uint64_t now;
	uint64_t until;		/* the kernel may keep the answer until then; 0: not at all */
	uint32_t stale;		/* out: something was known, but does not count any more */
};

/* a store that others read, and that is there before anything below it is read; 0: *until may be relied on */
CFS_ANSWER_INLINE int cfs_raise(uint64_t *until, uint64_t to, uint32_t *raised)
{
	uint64_t old = *(volatile uint64_t *)until;

	if (old >= to)
		return 0;
	*raised = 1;
	if (__sync_val_compare_and_swap(until, old, to) == old)
		return 0;
	return *(volatile uint64_t *)until >= to ? 0 : -1;
}

/* is the lease on `dir` the one that the entry stood under, and nothing of our own under way on it? */
CFS_ANSWER_INLINE int cfs_believe(struct cfs_answer *a, uint64_t dir, uint64_t epoch)
{
	const struct cfs_bpf_dir *d = cfs_find_dir(dir);
	struct cfs_bpf_dir copy;

	a->stale = 1;
	if (!d)
		return 0;
	copy = *d;
	if (copy.sum != cfs_bpf_dir_sum(dir, &copy) || copy.epoch != epoch ||
	    epoch <= *(volatile uint64_t *)&a->c->floor)
		return 0;
	if (*(volatile uint32_t *)&a->g->busy[cfs_bpf_hash(dir) % CFS_BPF_BUSY])
		return 0;
	a->stale = 0;
	return 1;
}

/* a copy of an inode's attributes that counts; 0: none */
CFS_ANSWER_INLINE int cfs_take_attr(struct cfs_answer *a, uint64_t ino, struct cfs_bpf_attr *copy)
{
	const struct cfs_bpf_attr *v = cfs_find_attr(ino);

	if (!v)
		return 0;
	*copy = *v;
	if (copy->sum != cfs_bpf_attr_sum(ino, copy) || !cfs_believe(a, copy->home, copy->epoch))
		return 0;
	return !*(volatile uint32_t *)&a->g->busy[cfs_bpf_hash(ino) % CFS_BPF_BUSY];
}

/* the kernel is going to keep these attributes */
CFS_ANSWER_INLINE int cfs_tell_attr(struct cfs_answer *a, uint64_t ino, uint64_t home, uint32_t *raised)
{
	if (!a->until)
		return 0;
	return cfs_raise(&a->g->attr_until[cfs_bpf_hash(ino) % CFS_BPF_ATTR_UNTIL], a->until, raised) |
	       cfs_raise(&a->g->home_until[cfs_bpf_hash(home) % CFS_BPF_BUSY], a->until, raised);
}

CFS_ANSWER_INLINE void cfs_fill_attr(struct fuse_attr *out, const struct cfs_bpf_attr *v)
{
	out->ino = v->ino;
	out->size = v->size;
	out->blocks = (v->alloc + 511) / 512;
	out->atime = v->atime.sec;
	out->mtime = v->mtime.sec;
	out->ctime = v->ctime.sec;
	out->atimensec = v->atime.nsec;
	out->mtimensec = v->mtime.nsec;
	out->ctimensec = v->ctime.nsec;
	out->mode = v->mode;
	out->nlink = v->nlink;
	out->uid = v->uid;
	out->gid = v->gid;
	out->rdev = v->rdev;
	out->blksize = CFS_BLKSIZE;
	out->flags = 0;
}

#define cfs_ttl_s(a)	((a)->until ? ((a)->until - (a)->now) / 1000000000u : 0)
#define cfs_ttl_ns(a)	((uint32_t)((a)->until ? ((a)->until - (a)->now) % 1000000000u : 0))

/* ---- LOOKUP -------------------------------------------------------------------------------------------------- */
/* a copy of what is known of the name that is asked for; 0: nothing */
CFS_ANSWER_INLINE int cfs_take_name(struct cfs_fuse_req *req, struct cfs_bpf_name *copy)
{
	const struct cfs_bpf_name *n;
	const void *key;
	uint64_t sum;

	if (req->name_len <= CFS_BPF_NAME_SHORT) {
		key = cfs_key(req, sizeof(struct cfs_bpf_name_key));
		n = key ? cfs_find_name(key) : NULL;
		if (!n)
			return 0;
		*copy = *n;
		sum = cfs_bpf_name_sum(key, copy);
	} else {
		key = cfs_key(req, sizeof(struct cfs_bpf_long_key));
		n = key ? cfs_find_long(key) : NULL;
		if (!n)
			return 0;
		*copy = *n;
		sum = cfs_bpf_long_sum(key, copy);
	}
	return copy->sum == sum;
}

CFS_ANSWER_FN int cfs_answer_lookup(struct cfs_fuse_req *req, struct cfs_answer *a)
{
	uint64_t *name_until = &a->g->name_until[cfs_bpf_hash(req->nodeid) % CFS_BPF_BUSY];
	struct fuse_entry_out out;
	struct cfs_bpf_attr attr;
	struct cfs_bpf_name n;

	for (int i = 0; i < CFS_TRIES; i++) {
		uint32_t raised = 0;

		if (!cfs_take_name(req, &n) || !cfs_believe(a, req->nodeid, n.epoch))
			return CFS_FUSE_PASS;
		if (n.ino && !cfs_take_attr(a, n.ino, &attr))
			return CFS_FUSE_PASS;
		if ((a->until && cfs_raise(name_until, a->until, &raised)) ||
		    (n.ino && cfs_tell_attr(a, n.ino, attr.home, &raised)))
			return CFS_FUSE_PASS;
		if (!raised)
			goto known;
	}
	return CFS_FUSE_PASS;
known:
	if (!n.ino && !a->until)	/* of an error the kernel keeps nothing */
		return -CFS_ENOENT;
	__builtin_memset(&out, 0, sizeof(out));
	out.entry_valid = cfs_ttl_s(a);
	out.entry_valid_nsec = cfs_ttl_ns(a);
	if (n.ino) {
		out.nodeid = n.ino;
		out.generation = attr.gen;
		out.attr_valid = out.entry_valid;
		out.attr_valid_nsec = out.entry_valid_nsec;
		cfs_fill_attr(&out.attr, &attr);
	}
	return cfs_reply(req, &out, sizeof(out)) ? CFS_FUSE_PASS : 0;
}

/* ---- GETATTR, STATX ------------------------------------------------------------------------------------------ */
/* a copy of attributes that the daemon knows the kernel keeps; 0: none */
CFS_ANSWER_INLINE int cfs_know_attr(struct cfs_fuse_req *req, struct cfs_answer *a, struct cfs_bpf_attr *attr)
{
	for (int i = 0; i < CFS_TRIES; i++) {
		uint32_t raised = 0;

		if (!cfs_take_attr(a, req->nodeid, attr) || cfs_tell_attr(a, req->nodeid, attr->home, &raised))
			return 0;
		if (!raised)
			return 1;
	}
	return 0;
}

CFS_ANSWER_FN int cfs_answer_getattr(struct cfs_fuse_req *req, struct cfs_answer *a)
{
	struct fuse_attr_out out;
	struct cfs_bpf_attr attr;

	/* the kernel is about to read: the daemon sees to it that it does not miss a larger size (client/notify.h) */
	if (req->arg & FUSE_GETATTR_FH)
		return CFS_FUSE_PASS;
	if (!cfs_know_attr(req, a, &attr))
		return CFS_FUSE_PASS;
	out.attr_valid = cfs_ttl_s(a);
	out.attr_valid_nsec = cfs_ttl_ns(a);
	out.dummy = 0;
	cfs_fill_attr(&out.attr, &attr);
	return cfs_reply(req, &out, sizeof(out)) ? CFS_FUSE_PASS : 0;
}

CFS_ANSWER_INLINE void cfs_fill_time(struct cfs_fuse_sx_time *out, const struct cfs_bpf_time *t)
{
	out->tv_sec = (int64_t)t->sec;
	out->tv_nsec = t->nsec;
}

CFS_ANSWER_FN int cfs_answer_statx(struct cfs_fuse_req *req, struct cfs_answer *a)
{
	struct cfs_fuse_statx_out out;
	struct cfs_bpf_attr attr;

	if (!cfs_know_attr(req, a, &attr))
		return CFS_FUSE_PASS;
	__builtin_memset(&out, 0, sizeof(out));
	out.attr_valid = cfs_ttl_s(a);
	out.attr_valid_nsec = cfs_ttl_ns(a);
	out.stat.mask = CFS_STATX_BASIC;
	out.stat.blksize = CFS_BLKSIZE;
	out.stat.nlink = attr.nlink;
	out.stat.uid = attr.uid;
	out.stat.gid = attr.gid;
	out.stat.mode = (uint16_t)attr.mode;
	out.stat.ino = attr.ino;
	out.stat.size = attr.size;
	out.stat.blocks = (attr.alloc + 511) / 512;
	cfs_fill_time(&out.stat.atime, &attr.atime);
	cfs_fill_time(&out.stat.btime, &attr.btime);
	cfs_fill_time(&out.stat.ctime, &attr.ctime);
	cfs_fill_time(&out.stat.mtime, &attr.mtime);
	/* new_encode_dev(): minor bits 0-7 and 20-31, major bits 8-19 */
	out.stat.rdev_major = (attr.rdev >> 8) & 0xfff;
	out.stat.rdev_minor = (attr.rdev & 0xff) | ((attr.rdev >> 12) & 0xfff00);
	return cfs_reply(req, &out, sizeof(out)) ? CFS_FUSE_PASS : 0;
}

/* ---- GETXATTR: only that there is none ----------------------------------------------------------------------- */
/* the name stands in 56 bytes behind the inode number: long enough to tell those that are known apart */
CFS_ANSWER_INLINE uint32_t cfs_xattr_flag(const struct cfs_bpf_name_key *key)
{
	static const char caps[] = "security.capability", acl[] = "system.posix_acl_";
	uint32_t i;

	for (i = 0; i < sizeof(caps) && key->name[i] == caps[i]; i++)
		;
	if (i == sizeof(caps))	/* with its NUL */
		return CFS_BPF_IF_CAPS;
	for (i = 0; i < sizeof(acl) - 1 && key->name[i] == acl[i]; i++)
		;
	return i == sizeof(acl) - 1 ? CFS_BPF_IF_ACL : CFS_BPF_IF_XATTR;
}

CFS_ANSWER_FN int cfs_answer_getxattr(struct cfs_fuse_req *req, struct cfs_answer *a)
{
	uint32_t flag = CFS_BPF_IF_XATTR;
	struct cfs_bpf_attr attr;

	if (!cfs_take_attr(a, req->nodeid, &attr))
		return CFS_FUSE_PASS;
	if ((attr.flags & CFS_BPF_IF_XATTR) && req->name_len < CFS_BPF_NAME_SHORT) {
		const struct cfs_bpf_name_key *key = cfs_key(req, sizeof(*key));

		if (!key)
			return CFS_FUSE_PASS;
		flag = cfs_xattr_flag(key);
	}
	return attr.flags & flag ? CFS_FUSE_PASS : -CFS_ENODATA;
}

/* ---- all ------------------------------------------------------------------------------------------------------- */
/* CFS_FUSE_PASS, 0 or -errno */
CFS_ANSWER_INLINE int cfs_answer(struct cfs_fuse_req *req, struct cfs_bpf_ctl *c, struct cfs_bpf_gate *g, uint32_t *ret_stale)
{
	struct cfs_answer a = { .c = c, .g = g, .now = cfs_now() };
	int r = CFS_FUSE_PASS;

	*ret_stale = 1;
	if (!*(volatile uint32_t *)&c->answering || *(volatile uint32_t *)&c->broken ||
	    a.now >= *(volatile uint64_t *)&c->deadline_ns)
		return CFS_FUSE_PASS;
	a.until = *(volatile uint64_t *)&c->until_ns;
	if (a.until <= a.now)
		a.until = 0;
	switch (req->opcode) {
	case FUSE_LOOKUP:
		if (!*(volatile uint32_t *)&c->hold)
			r = cfs_answer_lookup(req, &a);
		break;
	case FUSE_GETATTR:
		r = cfs_answer_getattr(req, &a);
		break;
	case CFS_FUSE_STATX:
		r = cfs_answer_statx(req, &a);
		break;
	case FUSE_GETXATTR:
		r = cfs_answer_getxattr(req, &a);
		break;
	}
	*ret_stale = a.stale;
	return r;
}

#endif
