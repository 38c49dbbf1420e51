#!/bin/bash
# `claudefs umount`, also called as umount(8) calls it, returns when what was written is saved and the process behind the mount
# has ended; where a bind mount keeps it, it does not wait for ever; busy and wrong places are told in one line.
# timeout: 120
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

cluster_real || skip_all "no process stands behind a bind mount"
cluster_start
cluster_mount b
dd if=/dev/urandom of="$T_DIR/data" bs=1M count=24 status=none
ln -s "$T_BIN/claudefs" "$T_DIR/umount.fuse.claudefs"

ended() { # NAME: its process is gone already, and ended well
	local pid
	pid=$(cluster_pid "$1")
	if tap_gone "$pid"; then ok "its process has ended"; else not_ok "its process has ended"; fi
	cluster_forget "$1"
	cluster_reap "$1" 0
}

for how in "$T_BIN/claudefs umount" "$T_DIR/umount.fuse.claudefs -n -t fuse.claudefs"; do
	cluster_mount a
	cp "$T_DIR/data" "$T_DIR/a/data"
	# shellcheck disable=SC2086
	try "${how##*/} of a mount with dirty data" $how "$T_DIR/a"
	ended a
	cluster_mounted "$T_DIR/a" && not_ok "it is unmounted"
	try "all of it is there" cmp "$T_DIR/data" "$T_DIR/b/data"
	rm "$T_DIR/b/data"
done

cluster_mount a
cd "$T_DIR/a" || exit 1
out=$("$T_BIN/claudefs" umount "$T_DIR/a" 2>&1)
is "$? $out" "32 claudefs umount: $T_DIR/a: Device or resource busy" "a mount in use is busy"
cd "$T_DIR" || exit 1
mkdir c
mount --bind a c
try "unmounted in one place, mounted in another" "$T_BIN/claudefs" umount "$T_DIR/a"
try "where it works on" touch c/x
try "until it is unmounted there" umount c
wait_for 30 tap_gone "$(cluster_pid a)"
ended a
fails "a place where nothing is mounted" "$T_BIN/claudefs" umount "$T_DIR/a"
cluster_end
done_testing
