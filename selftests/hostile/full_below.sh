#!/bin/bash
# The file system below a sparse store, and below the state, runs full because of somebody else's file: writes end with
# ENOSPC, what was acknowledged is there, removing works, the server keeps running; kill -9 there, start, fsck clean; with
# room again writes go on by themselves. On ext4, XFS and btrfs, in a file of their own.
# timeout: 500
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

cluster_real || skip_all "this would fill a real file system"
below_umount() { ! mountpoint -q "$T_DIR/below" || umount -l "$T_DIR/below"; }
below_free() { echo $(($(stat -f -c '%a * %S >> 20' "$T_DIR/below"))); } # MiB
df_free() { echo $(($(stat -f -c '%a * %S >> 20' "$T_DIR/a"))); }
has_free() { [ "$(df_free)" -ge "$1" ]; }
has_none() { [ "$(df_free)" = 0 ]; }
server_pid_is() { [ "$(cluster_pid server)" = "$1" ] && cluster_alive server; }
fill_below() { # with what is not ours, to the last block
	fallocate -l "$(below_free)M" "$T_DIR/below/others" 2>/dev/null
	dd if=/dev/zero of="$T_DIR/below/others2" bs=64k 2>/dev/null
	sync -f "$T_DIR/below"
}
write_one() { timeout 60 dd if="$T_DIR/random" of="$T_DIR/a/$1" bs=1M conv=fsync 2>&1; }
intact() { # PREFIX FROM TO
	local i
	for ((i = $2; i < $3; i++)); do
		cmp -s "$T_DIR/random" "$T_DIR/a/$1$i" || { echo "$1$i is damaged"; return 1; }
	done
}
write_promised() { # all that df says, a moment after the room below is gone
	local i error
	for ((i = 0; i < promised; i++)); do error=$(write_one "more$i") || { echo "file $i of $promised: $error"; return 1; }; done
}
few_names() { # PREFIX: small files, made, changed and removed; ENOSPC is an answer to making one
	local i
	for i in {1..50}; do
		(echo "$i" >"$T_DIR/a/$1$i") 2>/dev/null
		rm -f "$T_DIR/a/$1$i" || return 1
	done
}

on() { # FILESYSTEM MKFS...
	local fs=$1 pid i error n
	shift
	diag "on $fs"
	truncate -s 2G "$T_DIR/$fs.img"
	if ! "$@" "$T_DIR/$fs.img" >"$T_DIR/mkfs.log" 2>&1; then not_ok "mkfs" "$(cat "$T_DIR/mkfs.log")"; return; fi
	mkdir -p "$T_DIR/below"
	if ! mount -o loop "$T_DIR/$fs.img" "$T_DIR/below" 2>"$T_DIR/mount.log"; then
		skip "$fs cannot be mounted here: $(cat "$T_DIR/mount.log")" "$fs"
		return
	fi
	mkdir "$T_DIR/below/state"
	printf '[server]\nlisten = %s\nstate_dir = %s\n' "$CLUSTER_ADDR" "$T_DIR/below/state" >"$T_DIR/claudefsd.conf"
	cluster_format "$T_DIR/below/store.img" --size 8G
	cluster_restart
	cluster_mount a
	pid=$(cluster_pid server)
	for ((i = 0; i < 20; i++)); do write_one "kept$i" >/dev/null; done
	for i in {1..500}; do echo "$i" >"$T_DIR/a/small$i"; done
	sync "$T_DIR"/a/small*
	sync -f "$T_DIR/a"
	i=$(df_free)
	[ "$i" -lt $(($(below_free) + 600)) ] && ok "$fs: df of an 8 GiB store says what 2 GiB below can hold" ||
		not_ok "$fs: df of an 8 GiB store says what 2 GiB below can hold" "$i MiB free, $(below_free) below"
	fill_below
	sleep 3
	promised=$(($(df_free) / 8))
	try "$fs: what was promised can be had" write_promised
	for ((n = promised; n < 100; n++)); do error=$(write_one "more$n") || break; done
	try "$fs: df tells that there is no room" wait_for 20 has_none
	like "$error" "No space left" "$fs: writing ends with ENOSPC"
	diag "$n files of 8 MiB were written with no room below, $promised of them promised"
	try "$fs: what was synced is intact" intact kept 0 20
	try "$fs: so is what was written into what was reserved" intact more 0 "$n"
	try "$fs: removing works" timeout 60 sh -c "cd '$T_DIR/a' && rm kept1? small1? small2??"
	try "$fs: truncating works" timeout 60 truncate -s 1000 "$T_DIR/a/kept9"
	try "$fs: so do names" few_names x
	try "$fs: the server has not stopped" server_pid_is "$pid"
	cluster_kill9 server
	cluster_restart
	try "$fs: after a kill on a full file system, what was synced is intact" intact kept 0 9
	is "$(cat "$T_DIR/a/small500")" 500 "$fs: small files are, too"
	try "$fs: what was removed is gone" test ! -e "$T_DIR/a/kept10"
	try "$fs: removing still works" timeout 60 sh -c "cd '$T_DIR/a' && rm kept8 small3??"
	pid=$(cluster_pid server)
	sleep 2
	rm -f "$T_DIR/below/others" "$T_DIR/below/others2"
	try "$fs: with room again df tells" wait_for 60 has_free 100
	try "$fs: and writing works" write_one again0
	try "$fs: what is written is intact" intact again 0 1
	try "$fs: the server never stopped" server_pid_is "$pid"
	cluster_umount a
	cluster_stop
	n=$(cluster_fsck 2>&1)
	i=$?
	# what was written for files whose write then failed belongs to nobody: fsck says so, and nothing else
	if [ $i = 0 ] || ! grep -iE 'missing|damaged|error' <<<"$n" | grep -vqiE '(^|[^0-9])0 (errors|damaged|missing)'; then ok "$fs: fsck"; else not_ok "$fs: fsck" "$n"; fi
	diag "$(tail -n 2 <<<"$n")"
	cluster_end
	umount "$T_DIR/below" || not_ok "$fs is let go"
	mv "$T_DIR/claudefsd.log" "$T_DIR/claudefsd-$fs.log"
	rm -f "$T_DIR/$fs.img"
}

# The state has a small file system of its own, which somebody fills to the last block.
state_alone() {
	local pid error i
	truncate -s 80M "$T_DIR/state.img"
	mkfs.ext4 -q -F "$T_DIR/state.img" && mkdir -p "$T_DIR/below" && mount -o loop "$T_DIR/state.img" "$T_DIR/below" || {
		skip "a small ext4 cannot be made and mounted here" "state"
		return
	}
	mkdir "$T_DIR/below/state"
	printf '[server]\nlisten = %s\nstate_dir = %s\n' "$CLUSTER_ADDR" "$T_DIR/below/state" >"$T_DIR/claudefsd.conf"
	cluster_format "$T_DIR/store.img" --size 2G
	cluster_restart
	cluster_mount a
	pid=$(cluster_pid server)
	mkdir "$T_DIR/a/d"
	for i in {1..300}; do echo "$i" >"$T_DIR/a/d/f$i"; done
	sync -f "$T_DIR/a"
	fill_below
	head -c 60000 /dev/urandom | base64 -w 0 | head -c 60000 >"$T_DIR/value"
	# bounded: the state cannot grow by more than what was kept for it, and a bit
	for ((i = 0; i < 2000; i++)); do
		error=$(timeout 30 setfattr -n user.big -v "$(cat "$T_DIR/value")" "$T_DIR/a/d/f$((1 + i % 300))" 2>&1) || break
		[ $((i % 300)) != 299 ] || error=$(timeout 30 setfattr -n "user.big$i" -v "$(cat "$T_DIR/value")" "$T_DIR/a/d" 2>&1) || break
		error=$(timeout 30 sh -c ": >'$T_DIR/a/d/g$i'" 2>&1) || break
	done
	like "$error" "No space left" "state: what would make it grow ends with ENOSPC"
	diag "after $i rounds"
	try "state: removing works" timeout 60 sh -c "cd '$T_DIR/a/d' && rm f1 f2 f3 f4?"
	try "state: so does removing attributes" timeout 30 setfattr -x user.big "$T_DIR/a/d/f5"
	try "state: and reading" sh -c "ls -l '$T_DIR/a/d' >/dev/null && grep -qx 100 '$T_DIR/a/d/f100'"
	try "state: the server has not stopped" server_pid_is "$pid"
	cluster_kill9 server
	cluster_restart
	pid=$(cluster_pid server)
	try "state: after a kill with no room the server starts" grep -qx 100 "$T_DIR/a/d/f100"
	try "state: and removes" timeout 60 rm "$T_DIR/a/d/f100"
	rm -f "$T_DIR/below/others" "$T_DIR/below/others2"
	sleep 2
	try "state: with room again names can be made" timeout 60 mkdir "$T_DIR/a/d/new"
	try "state: the server goes on" server_pid_is "$pid"
	cluster_umount a
	cluster_stop
	try "state: fsck" cluster_fsck
	cluster_end
	umount "$T_DIR/below" || not_ok "the state's file system is let go"
}

cluster_need
cleanup below_umount
cleanup cluster_cleanup
[ "$T_ISOLATED" != net ] || ip link set lo up
dd if=/dev/urandom of="$T_DIR/random" bs=1M count=8 2>/dev/null
on ext4 mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0
if command -v mkfs.xfs >/dev/null; then on xfs mkfs.xfs -q -f; else skip "no mkfs.xfs here" "XFS"; fi
if command -v mkfs.btrfs >/dev/null; then on btrfs mkfs.btrfs -q -f; else skip "no mkfs.btrfs here" "btrfs"; fi
state_alone
done_testing
