#!/bin/bash
# nvme.sh: runs in the guest: the NVMe back end on drives with blocks of 512 and 4096 bytes, and one that fails in places.
# Speaks TAP.
# shellcheck source=selftests/lib/vm_guest.sh
. "$T_TOP/selftests/lib/vm_guest.sh"
guest_modules nvme fuse ext4 && guest_scratch scratch /mnt && mkdir /mnt/t && cd /mnt/t || exit 1
export T_DIR=/mnt/t T_ISOLATED='' T_CHECK_SECONDS=180
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

small=$(guest_drive n512) large=$(guest_drive n4k) bad=$(guest_drive nbad) gen=$(guest_drive n4k char) || exit 1
claudefs() { "$T_BIN/claudefs" "$@"; }

# ---- what there is
list=$(claudefs device ls 2>&1)
diag "$list"
like "$list" 'nvme:serial.n512.1 .* 512 .*empty' "device ls: the drive with small blocks"
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
	try "requests of all kinds on $name" "$T_PROGS/devcheck" io "nvme:serial.$name.1" 3
	try "a store on $name" "$T_PROGS/devcheck" store "nvme:serial.$name.1" 4
done
try "completions polled for" "$T_PROGS/devcheck" io nvme:serial.n4k.1 5 iopoll
try "submissions taken by a kernel thread" "$T_PROGS/devcheck" io nvme:serial.n4k.1 6 sqpoll
like "$(claudefs device ls nvme:serial.nzns.1)" '64 x 16 MiB .*empty' "device ls: zones"
try "a store on zones" "$T_PROGS/devcheck" store nvme:serial.nzns.1 8
like "$(claudefs format nvme:serial.nzns.1 2>&1)" 'holds ClaudeFS target|zones with data' "format refuses zones in use"
try "the block device of the same drive, with RWF_ATOMIC" "$T_PROGS/devcheck" store "$large" 7

# ---- a drive with a bad place (reads at 20 MiB fail)
try "the good part of a drive" dd if="$bad" of=/dev/null bs=1M count=16 iflag=direct status=none
out=$(claudefs device bench nvme:serial.nbad.1 2>&1)
like "$out" 'unrecovered read error' "a read that the drive cannot satisfy is named"

# ---- a cluster of one on two drives
T_TARGETS="nvme:serial.n4k.1 nvme:serial.n512.1"
cluster_start
cluster_mount a
status=$(claudefs status --json 127.0.0.1:9510)
like "$status" '"backend": "nvme"' "status names the back end"
like "$status" '"atomic_bytes": 131072' "status names the atomic unit in use"
src=/usr/include
try "tar in" sh -c "cd $src && tar cf - linux asm-generic | tar xf - -C '$T_DIR/a'"
try "what was written is there" diff -r --no-dereference "$src/linux" "$T_DIR/a/linux"
try "a database" sqlite3 "$T_DIR/a/db" "create table t(x); with recursive c(i) as (select 1 union all select i+1 from c where i < 2000) insert into t select randomblob(500) from c; pragma integrity_check"
try "large files" fio --name=x --directory="$T_DIR/a" --size=24M --bs=256k --rw=write --verify=crc32c --do_verify=1 --end_fsync=1 --output=/dev/null
cluster_kill9 server
cluster_restart
echo 3 >/proc/sys/vm/drop_caches
try "after kill -9 of the server" diff -r --no-dereference "$src/asm-generic" "$T_DIR/a/asm-generic"
is "$(sqlite3 "$T_DIR/a/db" 'select count(*) from t; pragma integrity_check')" $'2000\nok' "the database is whole"

# ---- a drive is pulled, and put back
pci_of() { readlink -f "/sys/block/${1#/dev/}/device/device"; } # DRIVE: its place in sysfs
pull() { echo 1 >"$1/remove"; }
put_back() { echo 1 >/sys/bus/pci/rescan; }
degraded() { claudefs status --json 127.0.0.1:9510 2>/dev/null | grep -q '"state": "degraded"'; }
whole() { claudefs status --json 127.0.0.1:9510 >status.json 2>/dev/null && ! grep -q '"state": "degraded"' status.json; }
before=$(cluster_pid server)
place=$(pci_of "$small") && pull "$place"
dd if=/dev/urandom of="$T_DIR/a/more" bs=1M count=24 conv=fsync 2>/dev/null || diag "writes to a degraded cluster: some fail"
try "the target without a drive is degraded" wait_for 30 degraded
like "$(cat "$T_DIR/claudefsd.log")" 'target nvme:serial.n512.1 is degraded' "the log names it"
try "metadata goes on" mkdir "$T_DIR/a/while-degraded"
put_back
try "the target is back with its drive" wait_for 60 whole
try "and so is what it holds" diff -r --no-dereference "$src/linux" "$T_DIR/a/linux"
small=$(guest_drive n512) large=$(guest_drive n4k)
place=$(pci_of "$large") && pull "$place"
(echo waited >"$T_DIR/a/waits" && sync "$T_DIR/a/waits") &
writer=$!
try "without the journal's drive the server waits" wait_for 30 grep -q 'nvme:serial.n4k.1: its device is gone' "$T_DIR/claudefsd.log"
sleep 1
put_back
try "and serves again with it" wait_for 60 whole
wait $writer
is $? 0 "who waited was served"
is "$(cat "$T_DIR/a/waits")" waited "with what was written"
is "$(cluster_pid server)" "$before" "all the time it was one process" && tap_gone "$before" && not_ok "it lives"
is "$(sqlite3 "$T_DIR/a/db" 'select count(*) from t; pragma integrity_check')" $'2000\nok' "the database is whole"
cluster_end
try "fsck finds nothing wrong" cluster_fsck
done_testing
