# load.sh: the load that the cases in this directory kill things under: ackload processes, each with a directory
# in the file system and a journal outside of it. Sourced, not run.
# shellcheck shell=bash
#
#   load_start ROUND MOUNT... [-- OPTION...]  starts one process for each MOUNT named, in MOUNT/ROUND.N
#   load_stop ROUND WANTED...                 stops them; results: each ended with its WANTED status (0, or 3 when its
#                                             client was killed); `load_longest` is then the longest operation in ms
#   load_check ROUND MOUNT [SECONDS]          results: what each journal of ROUND acknowledges is there, seen from MOUNT
#   load_check_all MOUNT                      the same for every round
declare -A load_pids=()
load_rounds=() load_longest=0

load_start() {
	local round=$1 n=0 mount
	shift
	local mounts=()
	while [ $# -gt 0 ] && [ "$1" != -- ]; do mounts+=("$1"); shift; done
	[ $# = 0 ] || shift
	load_rounds+=("$round")
	load_pids[$round]=''
	for mount in "${mounts[@]}"; do
		"$T_PROGS/ackload" run --journal "$T_DIR/journal.$round.$n" --dir "$T_DIR/$mount/$round.$n" --seed "$((RANDOM * 32768 + RANDOM))" \
			"$@" >"$T_DIR/load.$round.$n" 2>&1 &
		load_pids[$round]+=" $!"
		cleanup stop_pid $! 1
		n=$((n + 1))
	done
}

load_stop() {
	local round=$1 n=0 pid rc ms
	shift
	load_longest=0
	# shellcheck disable=SC2086 # a list
	kill -TERM ${load_pids[$round]} 2>/dev/null
	for pid in ${load_pids[$round]}; do
		rc=0
		wait_for 45 tap_gone "$pid" || diag "process $n of round $round does not end: $(cat "/proc/$pid/wchan" 2>/dev/null)"
		tap_gone "$pid" || { kill -KILL "$pid"; sleep 0.5; }
		if tap_gone "$pid"; then wait "$pid" 2>/dev/null || rc=$?; else rc=stuck; fi
		diag "round $round, process $n: $(grep '^#' "$T_DIR/load.$round.$n" | tr '\n' ' ')"
		is "$rc" "$1" "round $round: process $n ended with status $1" || diag "$(cat "$T_DIR/load.$round.$n")"
		if [ "$1" = 0 ]; then
			ms=$(sed -n 's/^longest_ms //p' "$T_DIR/load.$round.$n")
			[ "${ms:-0}" -le "$load_longest" ] || load_longest=$ms
		fi
		n=$((n + 1))
		shift
	done
}

load_check() {
	local j n
	for j in "$T_DIR/journal.$1".*; do
		n=${j##*.}
		tap_from timeout "$(slow "${3-60}")" "$T_PROGS/ackload" check --journal "$j" --dir "$T_DIR/$2/$1.$n"
	done
}
load_check_all() {
	local round
	for round in "${load_rounds[@]}"; do load_check "$round" "$1"; done
}

nap() { # LEAST MOST: sleeps that many tenths of a second
	local t=$(($1 + RANDOM % ($2 - $1 + 1)))
	sleep "$((t / 10)).$((t % 10))"
}

load_final() { # what every case ends with: stop all, check, start again, look again
	local name
	for name in "${cluster_mounts[@]}"; do cluster_umount "$name"; done
	cluster_stop
	if "$T_BIN/claudefs" fsck --help >/dev/null 2>&1; then
		try "fsck finds nothing wrong" cluster_fsck
	else
		skip "claudefs fsck does not exist" "fsck"
	fi
	cluster_restart
	cluster_mount final
	load_check_all final
	cluster_end
}
