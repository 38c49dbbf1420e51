#!/bin/bash
# power.sh load SERIAL STORE: makes ext4 on the drive SERIAL with a store in a file of it, and another store on the whole
#   drive STORE; works on both through mounts, with journals in /share of what was acknowledged, until the power goes.
# power.sh check PREFIX...: the drives PREFIX-fs and PREFIX-store after that: ext4 comes back, fsck finds nothing
#   wrong with either store, and what the journals acknowledge is there. Speaks TAP.
# shellcheck source=selftests/lib/vm_guest.sh
. "$T_TOP/selftests/lib/vm_guest.sh"
guest_modules fuse virtio_blk ext4 || exit 1
mkdir -p /tmp/power
export T_DIR=/tmp/power T_ISOLATED=''
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

configure() { # NAME PORT TARGET STATE_DIR
	mkdir -p "$4" "$T_DIR/$1"
	printf '[server]\nlisten = 127.0.0.1:%s\nstate_dir = %s\n\n[target.0]\npath = %s\n' "$2" "$4" "$3" >"$T_DIR/$1.conf"
}
up() { # NAME PORT: a server with this configuration, and its mount
	"$T_BIN/claudefsd" --config "$T_DIR/$1.conf" >"$T_DIR/$1.log" 2>&1 &
	echo $! >"$T_DIR/$1.pid"
	CLUSTER_ADDR=127.0.0.1:$2
	wait_for 60 cluster_listening || { cat "$T_DIR/$1.log"; return 1; }
	"$T_BIN/claudefs" mount -f -o "cachedir=$T_DIR/cache-$1,cachesize=64M" "$CLUSTER_ADDR" "$T_DIR/$1" >"$T_DIR/mount-$1.log" 2>&1 &
	wait_for 60 cluster_mounted "$T_DIR/$1" || { cat "$T_DIR/mount-$1.log"; return 1; }
}
down() { # NAME
	umount "$T_DIR/$1" && kill -TERM "$(cat "$T_DIR/$1.pid")" && wait_for 60 tap_gone "$(cat "$T_DIR/$1.pid")"
}

noise() { # unacknowledged writes, so that there is always something that was not flushed yet
	local n name
	for n in {1..150}; do
		for name in file drive; do
			head -c 2M /dev/urandom >"$T_DIR/$name/noise$((n % 4))"
		done
	done
}
load() { # SERIAL STORE: ends only with the machine
	local fs store
	fs=$(guest_drive "$1") && store=$(guest_drive "$2") || exit 1
	mke2fs -q -t ext4 "$fs" && mkdir -p /mnt/fs && mount -t ext4 "$fs" /mnt/fs || exit 1
	configure file 9510 /mnt/fs/store.img /mnt/fs/state
	configure drive 9511 "$store" /mnt/fs/state2
	"$T_BIN/claudefs" format --size 900M /mnt/fs/store.img && "$T_BIN/claudefs" format --yes "$store" || exit 1
	sync
	up file 9510 && up drive 9511 || exit 1
	for name in file drive; do
		for i in 0 1; do
			"$T_PROGS/ackload" run --journal "/share/journal.$name.$i" --dir "$T_DIR/$name/$i" --seed $RANDOM$i &
		done
	done
	noise &
	disown
	wait -n # none of them ends by itself
	echo "a load ended: $?"
	tail -n 5 "$T_DIR"/*.log
	exit 1
}

check() { # PREFIX
	local name j
	mkdir -p /mnt/fs
	try "$1: ext4 mounts" mount -t ext4 "$(guest_drive "$1-fs")" /mnt/fs || exit 1
	configure file 9510 /mnt/fs/store.img /mnt/fs/state
	configure drive 9511 "$(guest_drive "$1-store")" /mnt/fs/state2
	for name in file drive; do
		try "$1, store in a $name: fsck finds nothing wrong" "$T_BIN/claudefs" fsck --config "$T_DIR/$name.conf"
		try "$1, store in a $name: server and mount come up" up "$name" "$([ "$name" = file ] && echo 9510 || echo 9511)"
		for j in 0 1; do
			tap_from "$T_PROGS/ackload" check --journal "/share/journal.$name.$j" --dir "$T_DIR/$name/$j"
		done
		try "$1, store in a $name: server and mount end" down "$name"
		try "$1, store in a $name: fsck finds nothing wrong afterwards" "$T_BIN/claudefs" fsck --config "$T_DIR/$name.conf"
	done
	umount /mnt/fs
}

case $1 in
load) load "$2" "$3" ;;
check)
	shift
	for prefix in "$@"; do check "$prefix"; done
	done_testing
	;;
esac
