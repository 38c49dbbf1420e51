#!/bin/bash
# kill -9 of one mount, and of the server, while four processes on two mounts append to one log (O_DSYNC): each line that was
# acknowledged is there, once, whole and in its process's order; who was not killed sees no error.
# timeout: 300
# tiers: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
cluster_real || skip_all "there is nothing to kill"

nap() { # FROM TO: tenths of a second
	local t=$(($1 + RANDOM % ($2 - $1)))
	sleep "$((t / 10)).$((t % 10))"
}

writers=()
write_log() { # ROUND SECONDS: processes 0 and 2 on a, 1 and 3 on b
	local id m
	: >"$T_DIR/b/log.$1"
	writers=()
	for id in 0 1 2 3; do
		m=a
		[ $((id % 2)) = 0 ] || m=b
		"$T_PROGS/sharedfile" --log "$T_DIR/$m/log.$1" --id "$id" --acked "$T_DIR/acked.$1.$id" --seconds "$2" 2>/dev/null &
		writers+=($!)
	done
}
check_log() { # ROUND MOUNT WHAT
	tap_run "round $1, $3: all acknowledged lines are there, on mount $2" "$T_PROGS/sharedfile" --check-log "$T_DIR/$2/log.$1" \
		"0:$T_DIR/acked.$1.0" "1:$T_DIR/acked.$1.1" "2:$T_DIR/acked.$1.2" "3:$T_DIR/acked.$1.3"
}
tap_run() { # TITLE COMMAND...
	local title=$1 out
	shift
	if out=$("$@" 2>&1); then ok "$title"; else not_ok "$title" "$out"; fi
	diag "$out"
}

cluster_start
cluster_mount a
cluster_mount b
for round in 1 2; do
	write_log "$round" 6
	nap 15 30
	cluster_kill9 a
	failed=0
	for id in 0 2; do wait "${writers[$id]}" && failed=$((failed + 1)); done
	is "$failed" 0 "round $round: those on the killed mount were told"
	failed=0
	for id in 1 3; do wait "${writers[$id]}" || failed=$((failed + 1)); done
	is "$failed" 0 "round $round: nobody on the other one was"
	check_log "$round" b "a mount killed"
	cluster_mount a
	check_log "$round" a "a mount killed"
done
for round in 3 4; do
	write_log "$round" 6
	nap 15 30
	cluster_kill9 server
	nap 0 10
	cluster_restart
	failed=0
	for id in 0 1 2 3; do wait "${writers[$id]}" || failed=$((failed + 1)); done
	is "$failed" 0 "round $round: nobody saw an error"
	check_log "$round" a "the server killed"
	check_log "$round" b "the server killed"
done
cluster_end
try "fsck finds nothing wrong" cluster_fsck
done_testing
