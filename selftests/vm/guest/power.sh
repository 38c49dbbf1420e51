#!/bin/bash
# power.sh load PREFIX: makes ext4 on the drive PREFIX-fs with a store in a file of it, and other stores on the whole drives
#   PREFIX-store (a block device) and PREFIX-nvme; works on all through mounts, with journals in /share of what was
#   acknowledged, until the power goes.
# power.sh check PREFIX...: these drives after that: ext4 comes back, fsck finds nothing wrong with any store, and what the
#   journals acknowledge is there. Speaks TAP.
# shellcheck source=selftests/lib/vm_guest.sh
. "$T_TOP/selftests/lib/vm_guest.sh"
guest_modules fuse virtio_blk ext4 nvme || exit 1
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
		for name in file drive nvme; do
			head -c 2M /dev/urandom >"$T_DIR/$name/noise$((n % 4))"
		done
	done
}
declare -A port=([file]=9510 [drive]=9511 [nvme]=9512)
configure_all() { # PREFIX: all but the file system's drive
	configure file 9510 /mnt/fs/store.img /mnt/fs/state
	configure drive 9511 "$(guest_drive "$1-store")" /mnt/fs/state2
	configure nvme 9512 "nvme:serial.$1-nvme.1" /mnt/fs/state3
}
load() { # PREFIX: ends only with the machine
	local fs name
	fs=$(guest_drive "$1-fs") || exit 1
	mke2fs -q -t ext4 "$fs" && mkdir -p /mnt/fs && mount -t ext4 "$fs" /mnt/fs && configure_all "$1" && guest_drive "$1-nvme" >/dev/null || exit 1
	"$T_BIN/claudefs" format --size 900M /mnt/fs/store.img && "$T_BIN/claudefs" format --yes "$(guest_drive "$1-store")" &&
		"$T_BIN/claudefs" format --yes "nvme:serial.$1-nvme.1" || exit 1
	sync
	for name in file drive nvme; do up $name "${port[$name]}" || exit 1; done
	for name in file drive nvme; do
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
	local name names j
	mkdir -p /mnt/fs
	try "$1: ext4 mounts" mount -t ext4 "$(guest_drive "$1-fs")" /mnt/fs || exit 1
	configure_all "$1"
	names="file drive"
	[ "$1" != killed ] || names+=" nvme"
	for name in $names; do
		try "$1, store in a $name: fsck finds nothing wrong" "$T_BIN/claudefs" fsck --config "$T_DIR/$name.conf"
		try "$1, store in a $name: server and mount come up" up "$name" "${port[$name]}"
		for j in 0 1; do
			tap_from "$T_PROGS/ackload" check --journal "/share/journal.$name.$j" --dir "$T_DIR/$name/$j"
		done
		try "$1, store in a $name: server and mount end" down "$name"
		try "$1, store in a $name: fsck finds nothing wrong afterwards" "$T_BIN/claudefs" fsck --config "$T_DIR/$name.conf"
	done
	umount /mnt/fs
}

case $1 in
load) load "$2" ;;
check)
	shift
	for prefix in "$@"; do check "$prefix"; done
	done_testing
	;;
esac
