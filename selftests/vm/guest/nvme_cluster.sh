#!/bin/bash
# nvme_cluster.sh: runs in the guest: a server on two NVMe namespaces, real programs on its mount, kill -9, and drives that are
# pulled while it serves, and put back. Speaks TAP.
# shellcheck source=selftests/lib/vm_guest.sh
. "$T_TOP/selftests/lib/vm_guest.sh"
guest_modules nvme fuse ext4 && guest_scratch scratch /mnt && mkdir /mnt/t && cd /mnt/t || exit 1
export T_DIR=/mnt/t T_ISOLATED='' T_SLOW=6 T_START_SECONDS=120
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
small=$(guest_drive n512) large=$(guest_drive n4k) || exit 1
claudefs() { "$T_BIN/claudefs" "$@"; }
T_TARGETS="nvme:serial.n4k.1 nvme:serial.n512.1"
cluster_start
cluster_mount a
status=$(claudefs status --json 127.0.0.1:9510)
like "$status" '"backend": "nvme"' "status names the back end"
like "$status" '"atomic_bytes": 131072' "status names the atomic unit in use"
src=/usr/include
try "tar in" sh -c "cd $src && tar cf - linux/netfilter asm-generic | tar xf - -C '$T_DIR/a'"
try "what was written is there" diff -r --no-dereference "$src/linux/netfilter" "$T_DIR/a/linux/netfilter"
try "a database" sqlite3 "$T_DIR/a/db" "create table t(x); with recursive c(i) as (select 1 union all select i+1 from c where i < 600) insert into t select randomblob(500) from c; pragma integrity_check"
fio --name=x --directory="$T_DIR/a" --size=16M --bs=256k --rw=write --verify=crc32c --do_verify=1 --end_fsync=1 --output=/dev/null &
fio=$!
for i in 1 2 3; do
	sleep 0.5
	for drive in "$small" "$large"; do echo 1 >"/sys/block/${drive#/dev/}/device/reset_controller"; done
done
wait $fio
is $? 0 "large files, while both controllers are reset three times"
is "$(grep -c 'degraded\|device is gone' "$T_DIR/claudefsd.log")" 0 "which is no loss of a drive"
cluster_kill9 server
cluster_restart
echo 3 >/proc/sys/vm/drop_caches
try "after kill -9 of the server" diff -r --no-dereference "$src/asm-generic" "$T_DIR/a/asm-generic"
is "$(sqlite3 "$T_DIR/a/db" 'select count(*) from t; pragma integrity_check')" $'600\nok' "the database is whole"

# ---- a drive is pulled, and put back
pci_of() { readlink -f "/sys/block/${1#/dev/}/device/device"; } # DRIVE: its place in sysfs
pull() { echo 1 >"$1/remove"; }
put_back() { echo 1 >/sys/bus/pci/rescan; }
degraded() { claudefs status --json 127.0.0.1:9510 2>/dev/null | grep -q '"state": "degraded"'; }
whole() { claudefs status --json 127.0.0.1:9510 >status.json 2>/dev/null && ! grep -q '"state": "degraded"' status.json; }
before=$(cluster_pid server)
place=$(pci_of "$small") && pull "$place"
write_until_degraded() { # a target learns of its drive by what it asks of it, and objects fall to either one by chance
	for i in 1 2 3 4 5 6 7 8; do
		dd if=/dev/urandom of="$T_DIR/a/more" bs=1M count=12 conv=fsync 2>/dev/null || diag "writes to a degraded cluster: some fail"
		! wait_for 3 degraded || return 0
	done
	return 1
}
try "the target without a drive is degraded" write_until_degraded
try "the log names it" wait_for 20 grep -q 'target nvme:serial.n512.1 is degraded' "$T_DIR/claudefsd.log"
try "metadata goes on" mkdir "$T_DIR/a/while-degraded"
put_back
try "the target is back with its drive" wait_for 60 whole
try "and so is what it holds" diff -r --no-dereference "$src/linux/netfilter" "$T_DIR/a/linux/netfilter"
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
is "$(sqlite3 "$T_DIR/a/db" 'select count(*) from t; pragma integrity_check')" $'600\nok' "the database is whole"
cluster_end
try "fsck finds nothing wrong" cluster_fsck

# ---- the same through rings that are polled (these drives' driver has no polling queues: guest/nvme.sh has)
sed -i 's/^path = nvme:.*/&\npoll = iopoll/' claudefsd.conf
like "$(timeout 20 "$T_BIN/claudefsd" --config claudefsd.conf 2>&1)" 'poll = iopoll needs polling queues, and its driver has none' \
	"poll = iopoll without polling queues is refused"
sed -i 's/^poll = .*/poll = sqpoll/' claudefsd.conf
cluster_restart
cluster_mount a
is "$(sqlite3 "$T_DIR/a/db" 'select count(*) from t; pragma integrity_check')" $'600\nok' "poll = sqpoll: the database is whole"
try "poll = sqpoll: large files" fio --name=x --directory="$T_DIR/a" --size=8M --bs=256k --rw=write --verify=crc32c --do_verify=1 --end_fsync=1 --output=/dev/null
cluster_end
try "poll = sqpoll: fsck finds nothing wrong" cluster_fsck
done_testing
