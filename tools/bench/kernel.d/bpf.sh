# bpf.sh: the bpf tier, in the test machine, where instructions are counted: one is one nanosecond (QEMU's -icount).
# shellcheck shell=bash
bpf_kernel=$(readlink -f build/dl/vm/7 2>/dev/null) bpf_kernel=${bpf_kernel##*/7-}
if [ "${CLAUDEFS_NO_VM-}" ]; then
	kb_skip "bpf: instructions of a stat" "$CLAUDEFS_NO_VM"
elif ! selftests/vm/machine/setup.sh qemu guest 7 >"$kb_dir/vm.log" 2>&1 || ! scripts/kmod.sh "$bpf_kernel" >>"$kb_dir/vm.log" 2>&1; then
	kb_skip "bpf: instructions of a stat" "$(tail -n 1 "$kb_dir/vm.log")"
else
	T_TOP=$PWD T_BIN=$bin VM_ACCEL=tcg,thread=single selftests/vm/machine/boot.sh --timeout 900 --cpus 1 --qemu -icount \
		--qemu shift=0,sleep=off --disk "$kb_dir/scratch,size=4G" -- "$PWD/tools/bench/bpf_guest.sh" \
		"$PWD/build/kmod/$bpf_kernel/claudefs_fuse.ko" 2>>"$kb_dir/vm.log" || kb_skip "bpf" "$(tail -n 1 "$kb_dir/vm.log")"
fi
