#!/bin/bash
# kill -9 of a client while a thread of it sleeps for a page's lock, which a request holds that it was to answer: no signal ends that thread, and
# /dev/fuse stays open. The process beside it (client/watch.h) ends the connection, so that callers are told and everything goes.
# timeout: 120
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
cluster_real || skip_all "there is no client to kill"
[ "$T_ISOLATED" ] || skip_all "needs a mount namespace of its own"

mkdir ctl
serve() { # MODE: sets client, beside, connection and reader: the client was killed, a thread of it sleeps, a reader waits
	: >file
	"$T_PROGS/deadclient" "$T_DIR/file" "$1" >said 2>&1 &
	client=$!
	cleanup stop_pid "$client"
	wait_for 10 grep -q mounted said || { not_ok "$1: the file is served" "$(cat said)"; exit 1; }
	read -r _ connection beside <said
	cat file >/dev/null 2>&1 &
	reader=$!
	try "$1: a thread of the client sleeps for a page" wait_for 10 sleeping
}
sleeping() { grep -ls '^State:.*D' /proc/"$client"/task/*/status; }
ended() { # PID: nothing of it runs or sleeps any more
	! grep -qs '^State:.*[RSDT]' /proc/"$1"/task/*/status
}

# ---- without anybody beside it: what there is to mend
serve alone
kill -KILL "$client"
sleep 2
sleeping >/dev/null && ok "alone: it is killed, and sleeps on" || not_ok "alone: it is killed, and sleeps on"
tap_gone "$reader" && not_ok "alone: its caller waits" || ok "alone: its caller waits"
mount -t fusectl none ctl
echo 1 >"ctl/$connection/abort"
try "alone: only the end of the connection ends it" wait_for 10 ended "$client"
wait "$client" "$reader" 2>/dev/null
umount file

# ---- with the process, which finds the control file system where it should be, or has to mount it
for where in hidden usual; do
	[ "$where" = hidden ] || mount -t fusectl none /sys/fs/fuse/connections || exit 1
	serve watched
	kill -TERM "$beside"
	kill -USR1 "$beside" # the signal it waits for, from somebody else
	sleep 0.2
	tap_gone "$beside" && not_ok "watched, $where: only the client's end moves that process" || ok "watched, $where: only the client's end moves that process"
	kill -KILL "$client"
	try "watched, $where: the caller is told" wait_for 10 tap_gone "$reader"
	wait "$reader"
	rc=$?
	[ "$rc" != 0 ] && ok "watched, $where: by an error" || not_ok "watched, $where: by an error"
	try "watched, $where: the client is gone" wait_for 10 ended "$client"
	wait "$client" 2>/dev/null
	try "watched, $where: the process beside it, too" wait_for 10 tap_gone "$beside"
	like "$(cat said)" "connection $connection is aborted" "watched, $where: it says so"
	umount file
done

# ---- a real client
cluster_start
cluster_mount a
beside=$(pgrep -P "$(cluster_pid a)" | head -n 1)
like "$(cat "/proc/${beside:-0}/comm" 2>/dev/null)" claudefs-watch "a mount has such a process"
cluster_umount a
try "which ends with the mount" wait_for 10 tap_gone "$beside"
cluster_mount a
beside=$(pgrep -P "$(cluster_pid a)" | head -n 1)
cluster_kill9 a
try "or with the client" wait_for 10 tap_gone "$beside"
done_testing
