#!/bin/bash
# nvmet_errors.sh: runs in the guest: a server on a drive over TCP (loop and RDMA with T_LONG=1), some blocks of which cannot be read or written.
# Speaks TAP.
# shellcheck source=selftests/lib/vm_guest.sh
. "$T_TOP/selftests/lib/vm_guest.sh"
# shellcheck source=selftests/lib/nvmet_guest.sh
. "$T_TOP/selftests/lib/nvmet_guest.sh"
guest_modules fuse ext4 dm-mod && guest_scratch scratch /mnt && mkdir /mnt/t && cd /mnt/t && nvmet_start || exit 1
export T_DIR=/mnt/t T_ISOLATED='' T_START_SECONDS=120
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
declare -A number=([loop]=1 [tcp]=2 [rdma]=3)
sectors=$((256 * 2048))

dm_table() { # [FIRST COUNT]: all of the loop device, but for sectors that fail
	local dev=/dev/loop${number[$t]}
	if [ $# = 0 ]; then
		echo "0 $sectors linear $dev 0"
	else
		printf '%s\n' "0 $1 linear $dev 0" "$1 $2 error" "$(($1 + $2)) $((sectors - $1 - $2)) linear $dev $(($1 + $2))"
	fi
}
dm_set() { # [FIRST COUNT]
	dm_table "$@" | dmsetup reload "$t" && dmsetup --noudevsync suspend --nolockfs "$t" && dmsetup --noudevsync resume "$t"
}
place_of() { grep -obUaF "$1" "/mnt/drive.$t" | head -n 1 | cut -d: -f1; } # MARK: byte of the drive where it is
log_says() { grep -qE "$1" "$T_DIR/claudefsd.log"; }
state() { "$T_BIN/claudefs" status --json 127.0.0.1:9510 | sed -n 's/.*"state": "\(up\|degraded\)".*/\1/p' | tail -n 1; }
put() { dd if="$1" of="$2" bs=1M conv=fsync status=none; }
kept() { local i; for i in 1 2 3; do cmp "keep$i" "$T_DIR/m$mounts/keep$i" || return 1; done; }
mounts=0
remount() { # nothing is in a client's cache
	[ $mounts = 0 ] || cluster_umount "m$mounts"
	mounts=$((mounts + 1))
	cluster_mount "m$mounts"
}

for t in $(long tcp 'loop tcp rdma'); do
	export T_DIR=/mnt/t/$t
	mkdir -p "$T_DIR" && cd "$T_DIR" || exit 1
	truncate -s 256M "/mnt/drive.$t"
	nvmet_backing "$t" "${number[$t]}" "/mnt/drive.$t" 512 && dm_table | dmsetup --noudevsync create "$t" || exit 1
	minor=$(dmsetup info -c --noheadings -o minor "$t")
	T_TARGETS=$(printf 'nvme:nguid.%032d' "${number[$t]}")
	try "a drive over $t" nvmet_add "$t" "$t" "${number[$t]}" "/dev/dm-$minor" && nvmet_connect "$t" "$t" &&
		wait_for 20 "$T_BIN/claudefs" device ls "$T_TARGETS" || exit 1
	for i in 1 2 3; do head -c 1M /dev/urandom >keep$i; done
	{ echo "here lies the victim of $t" && head -c 1M /dev/urandom; } >victim
	cluster_start
	remount
	for i in 1 victim 2 3; do
		f=keep$i
		[ $i != victim ] || f=victim
		put $f "$T_DIR/m$mounts/$f" || not_ok "$t: $f is written"
	done
	at=$(place_of "here lies the victim of $t")
	[ "$at" ] || { not_ok "$t: the victim is on the drive"; exit 1; }

	# ---- one block of the victim cannot be read
	dm_set $(((at >> 9) + 64)) 8
	remount
	like "$(cat "$T_DIR/m$mounts/victim" 2>&1 >/dev/null)" 'Input/output error' "$t: a file with an unreadable block ends with an error"
	try "$t: the log names object, target and place" log_says \
		"target 0: reading object [0-9a-f.]+ failed at device offset [0-9]+: "
	diag "$(grep -E 'reading object|nvme' "$T_DIR/claudefsd.log" | head -n 3)"
	try "$t: other files can be read" kept
	is "$(state)" up "$t: the target is not called degraded for it"
	try "$t: and new ones written" put keep1 "$T_DIR/m$mounts/keep4"
	cluster_umount "m$mounts"
	cluster_stop
	out=$(cluster_fsck 2>&1) && not_ok "$t: fsck finds it" "$out"
	like "$out" 'Input/output error|cannot be read' "$t: fsck names what cannot be read"
	diag "$out"
	dm_set
	mounts=0
	cluster_restart
	remount
	try "$t: the drive is mended: the victim is whole" cmp victim "$T_DIR/m$mounts/victim"
	try "$t: so are the others" kept

	# ---- blocks that come next cannot be written: over one transport, as the store sees no difference
	if [ $t != tcp ]; then
		cluster_end
		try "$t: fsck finds nothing wrong" cluster_fsck
		mounts=0
		continue
	fi
	put keep2 "$T_DIR/m$mounts/before"
	{ echo "here is the end of $t" && head -c 100000 /dev/urandom; } >last
	put last "$T_DIR/m$mounts/last"
	at=$(place_of "here is the end of $t")
	dm_set $(((at >> 9) + 400)) 2048 # a MiB, behind it
	failed=0
	for i in {1..6}; do put keep3 "$T_DIR/m$mounts/w$i" 2>>dd.err || failed=$((failed + 1)); done
	diag "$t: $failed of 6 writes failed: $(sort -u dd.err)"
	[ $failed -le 2 ] && ok "$t: writes go on elsewhere" || not_ok "$t: $failed of 6 writes failed" "$(cat dd.err)"
	try "$t: the log names target and place" log_says 'target 0: write of [0-9]+ blocks at device offset [0-9]+ failed: '
	diag "$(grep -E 'write of|nvme' "$T_DIR/claudefsd.log" | tail -n 3)"
	is "$(state)" up "$t: the target is not called degraded for it"
	for i in {1..6}; do put keep3 "$T_DIR/m$mounts/w$i" || not_ok "$t: writing it again"; done
	dm_set
	cluster_kill9 server
	cluster_restart
	remount
	try "$t: after kill -9 all is whole" kept
	for i in {1..6}; do cmp keep3 "$T_DIR/m$mounts/w$i" || not_ok "$t: w$i is whole"; done
	cluster_end
	try "$t: fsck finds nothing wrong" cluster_fsck
	mounts=0
done
done_testing
