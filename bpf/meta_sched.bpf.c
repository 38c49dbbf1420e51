/* SPDX-License-Identifier: GPL-2.0 */
/*
 * meta_sched.bpf.c - a sched_ext scheduler for the server's own threads, and no others (SCX_OPS_SWITCH_PARTIAL): metadata
 * before completions of I/O before bulk work. user/sched/sched.c loads it and gives threads their classes.
 *
 * One queue per class, first come first served, shared by all CPUs. A CPU that looks for work takes from the first class that has some;
 * but a class that has waited for starve_ns goes first, and the thread that then runs keeps its CPU for its whole slice, so
 * nobody starves: of each starve_ns + slice_ns[BULK], bulk work gets at least one slice of one CPU. A metadata thread that
 * becomes ready takes an idle CPU, or one from a lower class at once.
 *
 * The kernel runs threads of sched_ext only on CPUs that no thread of the default class wants. Where other programs take all CPUs that is worse
 * than the default, so a metadata thread that waited for give_up_ns ends the scheduler: from then on the default class has
 * all threads, as after any error, a stall (timeout_ms) or the loader's end. Why it ended is in the map `ended`.
 *
 * Needs Linux 6.13 (names of the kernel's functions). State: `running` per CPU, written by that CPU only; `since` per class, where
 * a lost update only moves a deadline.
 */
#include "bpf/kernel.h"
#include "claudefs/sched_shared.h"

#define SCX_OPS_SWITCH_PARTIAL (1ull << 3)
#define SCX_KICK_IDLE 1ull
#define SCX_KICK_PREEMPT 2ull
#define PF_IO_WORKER 0x10u	/* include/linux/sched.h */
#define CPUS_MAX 1024u
#define DSQ(class) ((__u64)(class) + 1)	/* our queues' names */
#define STALL_MS 5000u	/* above the 4.1 s after which 7.x itself helps starving CPUs */
#define DEFAULT_SLICE 3000000ull

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct cpumask {
	unsigned long bits[1];	/* never read here, but the type must be complete to be the kernel's */
};
struct task_struct {
	unsigned int flags;
	const struct cpumask *cpus_ptr;
};
enum scx_exit_kind { SCX_EXIT_NONE };
struct scx_exit_info {
	enum scx_exit_kind kind;
	const char *reason;
	char *msg;
};
#pragma clang attribute pop

/* kernel/sched/ext_internal.h: the members that are used here; libbpf finds their places by name */
struct sched_ext_ops {
	void (*enqueue)(struct task_struct *p, __u64 enq_flags);
	void (*dispatch)(__s32 cpu, struct task_struct *prev);
	void (*runnable)(struct task_struct *p, __u64 enq_flags);
	void (*running)(struct task_struct *p);
	void (*stopping)(struct task_struct *p, _Bool runnable);
	__s32 (*init)(void);
	void (*exit)(struct scx_exit_info *ei);
	__u64 flags;
	__u32 timeout_ms;
	char name[128];
};

extern __s32 scx_bpf_create_dsq(__u64 dsq_id, __s32 node) __ksym;
extern void scx_bpf_dsq_insert(struct task_struct *p, __u64 dsq_id, __u64 slice, __u64 enq_flags) __ksym;
extern _Bool scx_bpf_dsq_move_to_local(__u64 dsq_id) __ksym;
extern __s32 scx_bpf_dsq_nr_queued(__u64 dsq_id) __ksym;
extern __s32 scx_bpf_pick_idle_cpu(const struct cpumask *cpus_allowed, __u64 flags) __ksym;
extern void scx_bpf_kick_cpu(__s32 cpu, __u64 flags) __ksym;
extern __s32 scx_bpf_task_cpu(const struct task_struct *p) __ksym;
extern __u32 scx_bpf_nr_cpu_ids(void) __ksym;
extern void scx_bpf_exit_bstr(__s64 exit_code, char *fmt, unsigned long long *data, __u32 data__sz) __ksym;
extern _Bool bpf_cpumask_test_cpu(__u32 cpu, const struct cpumask *cpumask) __ksym;

struct thread {
	__u32 class;
	__u32 pad;
	__u64 ready_ns;		/* 0: it runs, or sleeps */
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct thread);
} threads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cfs_sched_tunables);
} tunables SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CFS_SCHED_CLASSES);
	__type(key, __u32);
	__type(value, struct cfs_sched_stats);
} stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cfs_sched_ended);
} ended SEC(".maps");

/* what a CPU runs of ours, and whether it may be taken away */
struct cpu {
	__u32 class;		/* + 1; 0: nothing of ours */
	__u32 keep;		/* served because it starved */
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CPUS_MAX);
	__type(key, __u32);
	__type(value, struct cpu);
} cpus SEC(".maps");

static __u64 since[CFS_SCHED_CLASSES];	/* the class was last served, or began to wait */

static struct thread *thread_of(struct task_struct *p)
{
	return bpf_task_storage_get(&threads, p, NULL, 0);
}

static struct cpu *cpu_of(__u32 id)
{
	return bpf_map_lookup_elem(&cpus, &id);
}

static __u32 class_of(struct task_struct *p)
{
	struct thread *t = thread_of(p);

	if (t && t->class < CFS_SCHED_CLASSES)
		return t->class;
	return p->flags & PF_IO_WORKER ? CFS_SCHED_IO : CFS_SCHED_BULK;
}

static struct cfs_sched_tunables *tuned(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&tunables, &zero);
}

static struct cfs_sched_stats *stats_of(__u32 class)
{
	return bpf_map_lookup_elem(&stats, &class);
}

/* a CPU that p may run on and that runs something less important; -1 if there is none */
static __s32 cpu_to_take(struct task_struct *p, __u32 class)
{
	__u32 n = scx_bpf_nr_cpu_ids(), first = (__u32)scx_bpf_task_cpu(p);
	__s32 best = -1;
	__u32 best_class = class + 1;
	struct cpu *c;
	__s32 i;

	if (!n)
		return -1;
	bpf_for(i, 0, (__s32)(n < CPUS_MAX ? n : CPUS_MAX)) {
		__u32 cpu = (first + (__u32)i) % n;

		c = cpu_of(cpu);
		if (!c || c->keep || c->class <= best_class || !bpf_cpumask_test_cpu(cpu, p->cpus_ptr))
			continue;
		best = (__s32)cpu;
		best_class = c->class;
	}
	return best;
}

SEC("struct_ops/meta_enqueue")
void BPF_PROG(meta_enqueue, struct task_struct *p, __u64 enq_flags)
{
	__u32 class = class_of(p);
	struct cfs_sched_tunables *t = tuned();
	struct cfs_sched_stats *s;
	__s32 cpu;

	if (class >= CFS_SCHED_CLASSES)
		return;		/* for the verifier */
	if (!scx_bpf_dsq_nr_queued(DSQ(class)))
		since[class] = bpf_ktime_get_ns();
	scx_bpf_dsq_insert(p, DSQ(class), t && t->slice_ns[class] ? t->slice_ns[class] : DEFAULT_SLICE, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0) {
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
		return;
	}
	cpu = class == CFS_SCHED_BULK ? -1 : cpu_to_take(p, class);
	if (cpu < 0)
		return;
	scx_bpf_kick_cpu(cpu, SCX_KICK_PREEMPT);
	s = stats_of(class);
	if (s)
		s->preempts++;
}

static _Bool serve(__u32 class)
{
	if (class >= CFS_SCHED_CLASSES || !scx_bpf_dsq_move_to_local(DSQ(class)))
		return 0;
	since[class] = bpf_ktime_get_ns();
	return 1;
}

SEC("struct_ops/meta_dispatch")
void BPF_PROG(meta_dispatch, __s32 cpu, struct task_struct *prev)
{
	struct cfs_sched_tunables *t = tuned();
	__u64 now = bpf_ktime_get_ns(), starve = t ? t->starve_ns : 0;
	struct cpu *c = cpu_of((__u32)cpu);
	struct cfs_sched_stats *s;
	__u32 class;

	if (!c)
		return;
	for (class = CFS_SCHED_BULK; starve && class > CFS_SCHED_META; class--) {
		if (!scx_bpf_dsq_nr_queued(DSQ(class)) || now < since[class] + starve || !serve(class))
			continue;
		c->keep = 1;
		s = stats_of(class);
		if (s)
			s->starved++;
		return;
	}
	for (class = CFS_SCHED_META; class < CFS_SCHED_CLASSES; class++)
		if (serve(class))
			return;
}

SEC("struct_ops/meta_runnable")
void BPF_PROG(meta_runnable, struct task_struct *p, __u64 enq_flags)
{
	struct thread *t = thread_of(p);

	if (t)
		t->ready_ns = bpf_ktime_get_ns();
}

SEC("struct_ops/meta_running")
void BPF_PROG(meta_running, struct task_struct *p)
{
	static char fmt[] = "a metadata thread waited %llu ms for a CPU: other programs take them all";
	struct cpu *c = cpu_of(bpf_get_smp_processor_id());
	__u32 class = class_of(p);
	struct cfs_sched_tunables *tune = tuned();
	struct cfs_sched_stats *s = stats_of(class);
	struct thread *t = thread_of(p);
	unsigned long long waited_ms;
	__u64 waited = 0;

	if (c)
		c->class = class + 1;
	if (t && t->ready_ns) {
		waited = bpf_ktime_get_ns() - t->ready_ns;
		t->ready_ns = 0;
	}
	if (s) {
		s->runs++;
		s->waited_ns += waited;
	}
	if (class == CFS_SCHED_META && tune && tune->give_up_ns && waited > tune->give_up_ns) {
		waited_ms = waited / 1000000;
		scx_bpf_exit_bstr(0, fmt, &waited_ms, sizeof(waited_ms));
	}
}

SEC("struct_ops/meta_stopping")
void BPF_PROG(meta_stopping, struct task_struct *p, _Bool runnable)
{
	struct thread *t = thread_of(p);
	struct cpu *c = cpu_of(bpf_get_smp_processor_id());

	if (c) {
		c->class = 0;
		c->keep = 0;
	}
	if (t && runnable)
		t->ready_ns = bpf_ktime_get_ns();
}

SEC("struct_ops.s/meta_init")
__s32 BPF_PROG(meta_init)
{
	__s32 rc = 0;

	for (__u32 class = 0; class < CFS_SCHED_CLASSES && !rc; class++)
		rc = scx_bpf_create_dsq(DSQ(class), -1);
	return rc;
}

SEC("struct_ops/meta_exit")
void BPF_PROG(meta_exit, struct scx_exit_info *ei)
{
	__u32 zero = 0;
	struct cfs_sched_ended *e = bpf_map_lookup_elem(&ended, &zero);

	if (!e)
		return;
	bpf_probe_read_kernel_str(e->why, sizeof(e->why), ei->msg);
	if (!e->why[0])
		bpf_probe_read_kernel_str(e->why, sizeof(e->why), ei->reason);
	e->kind = ei->kind;
}

SEC(".struct_ops.link")
struct sched_ext_ops claudefs_meta = {
	.enqueue = (void *)meta_enqueue,
	.dispatch = (void *)meta_dispatch,
	.runnable = (void *)meta_runnable,
	.running = (void *)meta_running,
	.stopping = (void *)meta_stopping,
	.init = (void *)meta_init,
	.exit = (void *)meta_exit,
	.flags = SCX_OPS_SWITCH_PARTIAL,
	.timeout_ms = STALL_MS,
	.name = "claudefs_meta",
};

char _license[] SEC("license") = "GPL";
