// SPDX-License-Identifier: GPL-2.0
/*
 * iter.bpf.c - the tables of /sys/fs/bpf/claudefs/<mount>/: what a map holds, as text for cat(1). One line an element after
 * a header line, columns separated by one space, a name always in the last column with what is not printable as '?'.
 * The columns are documented in docs/observability.md; new ones are only ever added before the name.
 *
 * They run in the reader's context, in the kernel: a mount whose daemon hangs, is stopped or was killed can still be read.
 */
#include "bpf/kernel.h"

#include "bpf/inflight.h"
#include "bpf/maps.h"

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct cfs_bpf_session);
} sessions SEC(".maps");

/*
 * Before the first element; or, when there is none at all, at the end, which is a call with key NULL. There seq_num does not tell
 * none from one, but the position does: it is left at 0 only when nothing was found.
 */
#define header(ctx, text)                                                                                                    \
	do {                                                                                                                 \
		if ((ctx)->key ? (ctx)->meta->seq_num == 0 : (ctx)->meta->seq->index == 0)                                   \
			BPF_SEQ_PRINTF((ctx)->meta->seq, text);                                                              \
	} while (0)

/* would an entry of this directory and epoch be believed just now? */
static const char *validity(__u64 dir, __u64 epoch)
{
	__u32 zero = 0;
	struct cfs_bpf_ctl *c = bpf_map_lookup_elem(&ctl, &zero);
	struct cfs_bpf_dir *d = bpf_map_lookup_elem(&dirs, &dir);

	if (!c || !d || d->epoch != epoch || epoch <= c->floor)
		return "void";
	if (bpf_ktime_get_boot_ns() >= c->deadline_ns)
		return "expired";
	return "valid";
}

SEC("iter/bpf_map_elem")
int iter__dirs(struct bpf_iter__bpf_map_elem *ctx)
{
	const struct cfs_bpf_dir *d = ctx->value;
	const __u64 *ino = ctx->key;

	header(ctx, "inode epoch state complete\n");
	if (!ino || !d)
		return 0;
	BPF_SEQ_PRINTF(ctx->meta->seq, "%llu %llu %s %s\n", *ino, d->epoch, validity(*ino, d->epoch),
		       d->flags & CFS_BPF_DIR_COMPLETE ? "yes" : "no");
	return 0;
}

/* what a terminal or a script would stumble over */
static __always_inline void printable(char *name, __u32 size)
{
	for (__u32 i = 0; i < size; i++) {
		unsigned char ch = (unsigned char)name[i];

		if (!ch)
			break;
		if (ch < 0x20 || ch == 0x7f)
			name[i] = '?';
	}
	name[size - 1] = name[size - 1] ? '?' : 0;
}

static __always_inline void print_name(struct seq_file *seq, __u64 dir, const struct cfs_bpf_name *n, const char *text)
{
	BPF_SEQ_PRINTF(seq, "%llu %llu %llu %s %s %s\n", dir, n->ino, n->epoch, validity(dir, n->epoch),
		       n->ino ? "present" : "absent", text);
}

SEC("iter/bpf_map_elem")
int iter__names(struct bpf_iter__bpf_map_elem *ctx)
{
	const struct cfs_bpf_name *n = ctx->value;
	const struct cfs_bpf_name_key *key = ctx->key;
	char text[CFS_BPF_NAME_SHORT + 1] = {};

	header(ctx, "directory inode epoch state presence name\n");
	if (!key || !n)
		return 0;
	bpf_probe_read_kernel(text, CFS_BPF_NAME_SHORT, key->name);
	printable(text, sizeof(text));
	print_name(ctx->meta->seq, key->dir, n, text);
	return 0;
}

SEC("iter/bpf_map_elem")
int iter__long_names(struct bpf_iter__bpf_map_elem *ctx)
{
	const struct cfs_bpf_name *n = ctx->value;
	const struct cfs_bpf_long_key *key = ctx->key;
	char text[CFS_BPF_NAME_LONG];

	header(ctx, "directory inode epoch state presence name\n");
	if (!key || !n)
		return 0;
	bpf_probe_read_kernel(text, CFS_BPF_NAME_LONG, key->name);
	printable(text, sizeof(text));
	print_name(ctx->meta->seq, key->dir, n, text);
	return 0;
}

/* bpf_seq_printf() knows no %o: the number whose decimal digits are the octal ones of a mode */
static __always_inline __u32 as_octal(__u32 mode)
{
	__u32 out = 0, place = 1;

	for (int i = 0; i < 6; i++, place *= 10)
		out += (mode >> (3 * i) & 7) * place;
	return out;
}

SEC("iter/bpf_map_elem")
int iter__attrs(struct bpf_iter__bpf_map_elem *ctx)
{
	const struct cfs_bpf_attr *a = ctx->value;
	const __u64 *ino = ctx->key;

	header(ctx, "inode home epoch state mode links uid gid size mtime\n");
	if (!ino || !a)
		return 0;
	BPF_SEQ_PRINTF(ctx->meta->seq, "%llu %llu %llu %s %u %u %u %u %llu %lld\n", *ino, a->home, a->epoch,
		       validity(a->home, a->epoch), as_octal(a->mode), a->nlink, a->uid, a->gid, a->size, a->mtime.sec);
	return 0;
}

SEC("iter/bpf_map_elem")
int iter__inflight(struct bpf_iter__bpf_map_elem *ctx)
{
	const struct cfs_bpf_req *r = ctx->value;
	const __u64 *key = ctx->key;
	__u64 now = bpf_ktime_get_boot_ns();

	header(ctx, "unique opcode inode pid uid bytes age_us\n");
	if (!key || !r)
		return 0;
	BPF_SEQ_PRINTF(ctx->meta->seq, "%llu %u %llu %u %u %u %llu\n", r->unique, r->opcode, r->nodeid, r->pid, r->uid, r->len,
		       now > r->start_ns ? (now - r->start_ns) / 1000 : 0);
	return 0;
}

SEC("iter/bpf_map_elem")
int iter__sessions(struct bpf_iter__bpf_map_elem *ctx)
{
	const struct cfs_bpf_session *s = ctx->value;
	const __u32 *key = ctx->key;
	__u64 now = bpf_ktime_get_boot_ns();
	char server[sizeof(s->server)];
	const char *state;

	header(ctx, "session state pid lease_ms left_ms leader_epoch server\n");
	if (!key || !s)
		return 0;
	state = s->state == 0 ? "opening" : s->state == 1 ? "live" : s->state == 2 ? "lost" : "closed";
	bpf_probe_read_kernel(server, sizeof(server), s->server);
	printable(server, sizeof(server));
	BPF_SEQ_PRINTF(ctx->meta->seq, "%llu %s %u %u %llu %llu %s\n", s->session, state, s->pid, s->lease_ms,
		       s->deadline_ns > now ? (s->deadline_ns - now) / 1000000 : 0, s->leader_epoch, server);
	return 0;
}
