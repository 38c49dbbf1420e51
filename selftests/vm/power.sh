#!/bin/bash
# The power of a whole machine is cut in the middle of writes, to stores in a file on ext4, on a block device, and on an NVMe
# namespace that is driven by NVMe commands (zones: vm/zns.sh).
# Booted again, everything acknowledged is there and fsck finds nothing wrong: on the drives as the dead QEMU left them
# ("killed": nothing lost but what was under way), and as a volatile write cache may leave them ("cut": what was
# not flushed is kept, lost or torn sector by sector, see selftests/progs/powercut.c).
# timeout: 1200
# net: host
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/lib/vm.sh
. "$T_TOP/selftests/lib/vm.sh"
vm_need 7
seed=${T_SEED:-$((RANDOM * 32768 + RANDOM))}
diag "T_SEED=$seed repeats what the write caches lost"
mkdir "$T_DIR/share"
guest=$T_TOP/selftests/vm/guest/power.sh

worked() { # every load has had so much acknowledged
	local f n=0
	for f in "$T_DIR"/share/journal.*; do
		[ "$(grep -c . "$f" 2>/dev/null)" -ge 100 ] && n=$((n + 1))
	done
	[ "$n" = 6 ] || tap_gone "$vm_pid"
}
vm_start --share "$T_DIR/share" --timeout 500 --disk "$T_DIR/killed-fs,size=1500M,log=$T_DIR/fs.writes" \
	--disk "$T_DIR/killed-store,size=1G,lba=4096,log=$T_DIR/store.writes" --append nvme_core.multipath=N \
	--nvme "$T_DIR/killed-nvme,size=1G,lba=4096" -- "$guest" load killed
if ! wait_for 450 worked || tap_gone "$vm_pid"; then
	not_ok "the load runs in the guest" "$(tail -n 20 "$T_DIR/vm.log"; wc -l "$T_DIR"/share/journal.*)"
	exit 1
fi
sleep "$((RANDOM % 3)).$((RANDOM % 10))"
vm_cut
diag "acknowledged or under way: $(cat "$T_DIR"/share/journal.* | wc -l) lines of journals"
for drive in fs:512 store:4096; do
	truncate -r "$T_DIR/killed-${drive%:*}" "$T_DIR/cut-${drive%:*}"
	out=$("$T_PROGS/powercut" --log "$T_DIR/${drive%:*}.writes" \
		--image "$T_DIR/cut-${drive%:*}" --lba "${drive#*:}" --seed "$seed" 2>&1)
	rc=$?
	diag "${drive%:*}: $out"
	is "$rc" 0 "the ${drive%:*} drive, as its write cache may leave it" || exit 1
done
disks=()
for f in killed-fs cut-fs; do disks+=(--disk "$T_DIR/$f"); done
for f in killed-store cut-store; do disks+=(--disk "$T_DIR/$f,lba=4096"); done
# QEMU's NVMe drive takes no notice of FUA: its log of writes cannot tell what a cache may lose, and there is no "cut" of it
disks+=(--nvme "$T_DIR/killed-nvme,lba=4096")
vm_tap --share "$T_DIR/share" --timeout 500 --append nvme_core.multipath=N "${disks[@]}" -- "$guest" check killed cut
done_testing
