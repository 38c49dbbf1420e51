#!/bin/bash
# nvme.sh: runs in the guest: the NVMe back end on drives with blocks of 512 and 4096 bytes, and one that fails in places.
# Speaks TAP.
# shellcheck source=selftests/lib/vm_guest.sh
. "$T_TOP/selftests/lib/vm_guest.sh"
guest_modules nvme ext4 fuse && mkdir /tmp/t && cd /tmp/t || exit 1
export T_DIR=/tmp/t T_ISOLATED='' T_START_SECONDS=120
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

small=$(guest_drive n512) large=$(guest_drive n4k) bad=$(guest_drive nbad) gen=$(guest_drive n4k char) || exit 1
claudefs() { "$T_BIN/claudefs" "$@"; }

# ---- what there is
list=$(claudefs device ls 2>&1)
diag "$list"
like "$list" 'nvme:serial.n512.1 .* pcie .* 512 .* volatile .*empty' "device ls: the drive with small blocks"
like "$list" 'nvme:serial.n4k.1 .* 4096 .* 128.0 KiB .*empty' "device ls: large blocks, and the atomic unit"
like "$(claudefs device ls --json nvme:serial.n4k.1)" '"atomic_bytes": 131072' "device ls --json"
fails "a name that no drive has" "$T_BIN/claudefs" format nvme:serial.none.1

# ---- what it holds is safe
# a partition table of the old kind: one partition of type 83 from sector 2048, and the mark at the end
{ printf '\0\0\0\0\203\0\0\0\0\010\0\0\0\0\001\0' && head -c 48 /dev/zero && printf '\125\252'; } >table
{ head -c 446 /dev/zero && cat table && head -c 3584 /dev/zero; } | dd of="$large" bs=4096 conv=fsync status=none
like "$(claudefs format "$gen" 2>&1)" 'holds a partition table \(dos\)' "format refuses a partition table"
dd if=/dev/zero of="$large" bs=4096 count=1 conv=fsync status=none
mke2fs -q -t ext4 -L precious "$large"
like "$(claudefs format nvme:serial.n4k.1 2>&1)" "holds ext4 \\(label 'precious'\\)" "format refuses a file system"
mkdir -p /mnt/m && mount "$large" /mnt/m
like "$(claudefs format --force nvme:serial.n4k.1 2>&1)" 'in use' "not even --force takes what is mounted"
umount /mnt/m
try "--force" "$T_BIN/claudefs" format --force nvme:serial.n4k.1
like "$(claudefs format "$gen" 2>&1)" 'holds ClaudeFS target 0 of cluster' "format refuses a target"

# ---- every kind of request, on each drive and each way to it
for name in n512 n4k; do
	like "$("$T_PROGS/devcheck" io "nvme:serial.$name.1" 3 2>&1)" 'io: .* ring resized [1-9][0-9]* times' \
		"requests of all kinds on $name, while the ring grows and shrinks"
	try "a store on $name" "$T_PROGS/devcheck" store "nvme:serial.$name.1" 4
done
try "completions polled for" "$T_PROGS/devcheck" io nvme:serial.n4k.1 5 iopoll
try "submissions taken by a kernel thread" "$T_PROGS/devcheck" io nvme:serial.n4k.1 6 sqpoll
try "both" "$T_PROGS/devcheck" io nvme:serial.n512.1 9 iopoll sqpoll
like "$(claudefs device ls nvme:serial.nzns.1)" '64 x 16 MiB .*empty' "device ls: zones"
try "a store on zones" "$T_PROGS/devcheck" store nvme:serial.nzns.1 8
like "$(claudefs format nvme:serial.nzns.1 2>&1)" 'holds ClaudeFS target|zones with data' "format refuses zones in use"
# the same drive and another one as the block layer shows them: neither is written to in any order
like "$(claudefs format --force "$(guest_drive nzns)" 2>&1)" 'use nvme:serial\.nzns\.1 in its place' "a zoned drive's block device is refused"
guest_modules null_blk && rmmod null_blk && modprobe null_blk nr_devices=1 gb=1 zoned=1 zone_size=16
is "$(cat /sys/block/nullb0/queue/zoned)" host-managed "a zoned block device that is no NVMe drive"
like "$(claudefs format /dev/nullb0 2>&1)" '/dev/nullb0: a zoned device \(host-managed\)' "it is refused, too"
printf '[server]\nstate_dir = /tmp/t/nullstate\n\n[target.0]\npath = /dev/nullb0\n' >null.conf
like "$("$T_BIN/claudefsd" --config null.conf 2>&1)" '/dev/nullb0: a zoned device \(host-managed\)' "by the server as well"
try "the block device of the RWF_ATOMIC" "$T_PROGS/devcheck" store "$large" 7

# ---- a drive with a bad place (reads at 20 MiB fail)
try "the good part of a drive" dd if="$bad" of=/dev/null bs=1M count=16 iflag=direct status=none
out=$(claudefs device bench nvme:serial.nbad.1 2>&1)
like "$out" 'unrecovered read error' "a read that the drive cannot satisfy is named"

# ---- a server whose drives are polled (submissions by a thread of the kernel: guest/nvme_cluster.sh)
T_TARGETS="nvme:serial.n4k.1 nvme:serial.n512.1"
cluster_start
cluster_stop
sed -i 's/^path = nvme:.*/&\npoll = iopoll/' claudefsd.conf
try "--check-config knows poll" "$T_BIN/claudefsd" --config claudefsd.conf --check-config
cluster_restart
cluster_mount a
try "polled: files are written and read back" fio --name=x --directory="$T_DIR/a" --size=16M --bs=64k --rw=randwrite \
	--verify=crc32c --do_verify=1 --end_fsync=1 --output=/dev/null
cluster_kill9 server
cluster_restart
try "polled: and are there after kill -9" fio --name=x --directory="$T_DIR/a" --size=16M --bs=64k --rw=randread \
	--verify=crc32c --verify_only --output=/dev/null
cluster_end
try "polled: fsck finds nothing wrong" cluster_fsck
done_testing
