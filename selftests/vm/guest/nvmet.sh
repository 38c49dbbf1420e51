#!/bin/bash
# nvmet.sh: runs in the guest: servers on drives over loop, TCP and RDMA, and what happens to such drives. The kernel's
# multipath is on, as distributions have it: the node that is opened outlives its controller. Speaks TAP.
# shellcheck source=selftests/lib/vm_guest.sh
. "$T_TOP/selftests/lib/vm_guest.sh"
# shellcheck source=selftests/lib/nvmet_guest.sh
. "$T_TOP/selftests/lib/nvmet_guest.sh"
guest_modules fuse ext4 && guest_scratch scratch /mnt && mkdir /mnt/t && cd /mnt/t && nvmet_start || exit 1
export T_DIR=/mnt/t T_ISOLATED='' T_START_SECONDS=120
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
claudefs() { "$T_BIN/claudefs" "$@"; }
declare -A number=([loop]=1 [tcp]=2 [rdma]=3) block=([loop]=4096 [tcp]=512 [rdma]=4096)
name_of() { printf 'nvme:nguid.%032d' "${number[$1]}"; }
file_of() { echo "/mnt/drive.$1"; }

for t in loop tcp rdma; do
	truncate -s 320M "$(file_of $t)"
	try "a drive over $t" nvmet_backing "$t" "${number[$t]}" "$(file_of $t)" "${block[$t]}" &&
		nvmet_add "$t" "$t" "${number[$t]}" && nvmet_connect "$t" "$t" && wait_for 10 claudefs device ls "$(name_of $t)" || exit 1
done
list=$(claudefs device ls)
diag "$list"
for t in loop tcp rdma; do
	like "$list" "$(name_of $t) +/dev/ng[0-9]n1 +$t +Linux .* ${block[$t]} .* - +empty" "device ls: the drive over $t"
done
like "$(claudefs device ls --json "$(name_of tcp)")" '"transport": "tcp"' "device ls --json: the transport"

# ---- a load that notes what was acknowledged
acked() { grep -c . "$T_DIR/journal" 2>/dev/null; }
beyond() { [ "$(acked)" -gt "$1" ]; }
goes_on() { # WHAT: the load gets on by thirty lines
	local from
	from=$(acked)
	try "$t: $1" wait_for 90 beyond $((from + 30)) || {
		diag "$(tail -n 8 "$T_DIR/claudefsd.log"; cat "/proc/$(cluster_pid server)"/task/*/stack)"
		diag "$(timeout 20 "$T_BIN/claudefs" device ls 2>&1; ls /dev/ng*; cat "$(nvmet_ctrl "$t")/state"; dmesg | tail -n 12)"
	}
}
load_start() {
	"$T_PROGS/ackload" run --journal "$T_DIR/journal" --dir "$T_DIR/a/load" --seed 7 >"$T_DIR/load.log" 2>&1 &
	load=$!
	cleanup stop_pid "$load"
}
load_end() {
	local rc=0
	kill -TERM "$load"
	wait "$load" || rc=$?
	is "$rc" 0 "$t: the load met no error" || diag "$(tail -n 3 "$T_DIR/load.log")"
	diag "$t: $(acked) lines acknowledged or under way; $(tail -n 1 "$T_DIR/load.log")"
}
check_load() { tap_from "$T_PROGS/ackload" check --journal "$T_DIR/journal" --dir "$T_DIR/a/load"; }
log_says() { grep -q "$1" "$T_DIR/claudefsd.log"; }
gone_times() { grep -c 'its device is gone: not serving until it is back' "$T_DIR/claudefsd.log"; }
gone_more() { [ "$(gone_times)" -gt "$1" ]; }

for t in loop tcp rdma; do
	export T_DIR=/mnt/t/$t
	name=$(name_of $t)
	mkdir -p "$T_DIR"
	try "$t: requests of all kinds" "$T_PROGS/devcheck" io "$name" 3
	T_TARGETS=$name
	cluster_start
	cluster_mount a
	load_start
	goes_on "a load runs" || diag "$(tail -n 5 "$T_DIR/load.log" "$T_DIR/claudefsd.log")"
	server=$(cluster_pid server)
	for i in 1 2 3; do
		echo 1 >"$(nvmet_ctrl $t)/reset_controller"
		sleep 0.3
	done
	goes_on "after three resets of the controller under load"
	if [ $t != loop ]; then
		nvmet_listen $t $t 0
		sleep 2
		nvmet_listen $t $t 1
		goes_on "after the connection was lost for two seconds"
	fi
	is "$(gone_times)" 0 "$t: nothing of this counts as a drive that is gone"
	nvmet_enable $t 0
	try "$t: the namespace goes: the server waits" wait_for 30 gone_more 0
	nvmet_enable $t 1
	goes_on "after the namespace came back"
	n=$(gone_times)
	nvmet_disconnect $t
	try "$t: the controller is removed: the server waits" wait_for 30 gone_more "$n"
	nvmet_connect $t $t
	goes_on "after it was connected anew"
	is "$(cluster_pid server)" "$server" "$t: all the time it was one server" && tap_gone "$server" && not_ok "$t: it lives"
	cluster_kill9 server
	cluster_restart
	goes_on "after kill -9 of the server"
	load_end
	check_load
	cluster_end
	try "$t: fsck finds nothing wrong" cluster_fsck
done

# ---- the drive comes back as another one: t is the one over TCP, formatted with blocks of 512 bytes, 320 MiB
t=tcp T_DIR=/mnt/t/tcp
remake() { # BLOCK: with the namespace away long enough for this machine to notice
	nvmet_enable $t 0 && wait_for 20 not_there && nvmet_backing "$t" "${number[$t]}" "$(file_of $t)" "$1" &&
		nvmet_enable $t 1 && wait_for 20 there
}
# this machine is told once that namespaces have changed, and may have looked too early
there() {
	local c
	for c in /sys/class/nvme/*/rescan_controller; do echo 1 >"$c"; done
	claudefs device ls "$(name_of $t)"
}
not_there() { ! there; }
refused() { # REGEX WHAT: neither server nor fsck takes it
	like "$(timeout 20 "$T_BIN/claudefsd" --config "$T_DIR/claudefsd.conf" 2>&1)" "$1" "$2: the server refuses"
	like "$(cluster_fsck 2>&1)" "$1" "$2: so does fsck"
}
truncate -s 319M "$(file_of $t)"
try "the namespace shrinks" remake 512
refused 'the device has shrunk: 334495744 bytes, formatted with 335544320' "a shrunk namespace"
truncate -s 320M "$(file_of $t)"
# places of what is stored count in bytes, so that the block size may change as long as the bytes are the same
try "the namespace is made again with blocks of 4096 bytes" remake 4096
cluster_restart
cluster_mount a
check_load
cluster_end
try "fsck finds nothing wrong with it" cluster_fsck
cp --sparse=always "$(file_of $t)" /mnt/kept
truncate -s 0 "$(file_of $t)" && truncate -s 320M "$(file_of $t)"
try "the namespace is formatted anew" remake 512
refused 'is not a ClaudeFS target|no ClaudeFS superblock' "a namespace that was formatted"
cp --sparse=always /mnt/kept "$(file_of $t)"
try "the bytes are back" remake 512
cluster_restart
cluster_mount a
check_load
cluster_end
try "and nothing is wrong with them" cluster_fsck
done_testing
