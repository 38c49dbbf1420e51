#!/bin/bash
# The server's scheduler (sched_ext, bpf/meta_sched.bpf.c) on Debian's newest kernel: claudefsd loads it for its own threads only; when it is
# taken away or the server ends, the default class has all threads; and requests wait less under it while bulk work
# takes every CPU, which costs bulk work next to nothing.
# timeout: 900
# net: host
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/lib/vm.sh
. "$T_TOP/selftests/lib/vm.sh"
[ -e "$T_TOP/build/bpf/meta_sched.skel.h" ] || [ -e "${B:-build}/bpf/meta_sched.skel.h" ] ||
	skip_all "built without BPF programs: clang-19 or bpftool are missing"
vm_need 7
vm_tap --timeout 600 --disk "$T_DIR/scratch,size=8G" -- "$T_TOP/selftests/vm/guest/sched.sh"
vm_tap --icount --timeout 400 -- "$T_TOP/selftests/vm/guest/schedbench.sh"
done_testing
