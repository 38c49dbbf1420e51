#!/bin/bash
# The bpf tier on Debian's newest kernel, with the module that `make kmod` builds for it: what was seen is answered in the
# kernel without the daemon, stays right between mounts and while everything around it ends. One boot.
# timeout: 1200
# net: host
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/lib/vm.sh
. "$T_TOP/selftests/lib/vm.sh"
vm_need 7
ls "$T_TOP"/build/bpf/fuse_answer.bpf.o >/dev/null 2>&1 || skip_all "built without BPF programs (clang-19 or bpftool is missing)"
kernel=$(readlink -f "$T_TOP/build/dl/vm/7") kernel=${kernel##*/7-}
if ! "$T_TOP/scripts/kmod.sh" "$kernel" >"$T_DIR/kmod.log" 2>&1; then
	not_ok "the kernel module for $kernel can be built" "$(tail -n 5 "$T_DIR/kmod.log")"
	exit 1
fi
vm_tap --timeout 1000 --mem 3G --disk "$T_DIR/scratch,size=8G" -- "$T_TOP/selftests/vm/guest/bpf.sh" \
	"$T_TOP/build/kmod/$kernel/claudefs_fuse.ko"
done_testing
