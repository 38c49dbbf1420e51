# vm.sh: the test machine for a test case: a VM with another kernel, NVMe drives, power that can be cut. Source it
# after tap.sh and cluster.sh. The case needs "# net: host" among its first lines, because the machine's
# parts are fetched when they are not there (the guest itself has no network).
# shellcheck shell=bash
#
#   vm_need [SERIES...]                 fetches what is missing; skips the case where CLAUDEFS_NO_VM says why there is
#                                       no VM, and fails it when there should be one and cannot be had
#   vm_kmod SERIES                      builds bpf/kmod for that kernel, fetched before; $vm_module is its path. Skips the case where
#                                       there are no BPF programs to load, and fails it when the module cannot be built
#   vm_run [OPTION...] -- SCRIPT [ARGUMENT...]    boots, runs SCRIPT in the guest, returns its status
#   vm_tap [OPTION...] -- SCRIPT [ARGUMENT...]    the same for a SCRIPT that speaks TAP: its results become ours
#   vm_start [OPTION...] -- SCRIPT [ARGUMENT...]  boots in the background; the output goes to $T_DIR/vm.log
#   vm_cut                              cuts the power of what vm_start booted: no byte is written after this returns
# OPTIONs are those of selftests/vm/machine/boot.sh.
VM_BOOT=$T_TOP/selftests/vm/machine/boot.sh

vm_need() {
	[ $# -gt 0 ] || set -- 7
	[ -z "${CLAUDEFS_NO_VM-}" ] || skip_all "no VM here: $CLAUDEFS_NO_VM"
	"$T_TOP/selftests/vm/machine/setup.sh" qemu guest "$@" >"$T_DIR/setup.log" 2>&1 && return
	not_ok "the test machine can be had (or set CLAUDEFS_NO_VM=reason)" "$(tail -n 3 "$T_DIR/setup.log")"
	exit 1
}
vm_kmod() {
	local kernel
	[ -e "${B:-$T_TOP/build}/bpf/fuse_answer.bpf.o" ] || skip_all "built without BPF programs (clang-19 or bpftool is missing)"
	kernel=$(readlink -f "$T_TOP/build/dl/vm/$1") kernel=${kernel##*/"$1"-}
	if ! "$T_TOP/scripts/kmod.sh" "$kernel" >"$T_DIR/kmod.log" 2>&1; then
		not_ok "the kernel module for $kernel can be built" "$(tail -n 5 "$T_DIR/kmod.log")"
		exit 1
	fi
	vm_module=$T_TOP/build/kmod/$kernel/claudefs_fuse.ko
}
vm_run() { "$VM_BOOT" "$@"; }
vm_tap() { tap_from "$VM_BOOT" "$@"; }
vm_start() {
	"$VM_BOOT" "$@" >"$T_DIR/vm.log" 2>&1 </dev/null &
	vm_pid=$!
	cleanup stop_pid "$vm_pid"
}
vm_cut() { # boot.sh kills QEMU and waits until it is gone
	local rc=0
	kill -TERM "$vm_pid"
	wait "$vm_pid" || rc=$?
	[ "$rc" = 143 ] || not_ok "the VM ran until its power was cut" "status $rc"$'\n'"$(tail -n 20 "$T_DIR/vm.log")"
}
