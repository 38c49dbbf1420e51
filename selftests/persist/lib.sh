# lib.sh: what the cases of mounts that outlive their daemon share. Sourced after cluster.sh.
# shellcheck shell=bash
#
#   daemon_pid NAME        prints the process that serves mount NAME just now: a child of its holder
#   daemon_kill NAME       SIGKILL to it; 1 if there was none
#   daemon_answers NAME    the mount's control socket answers, and says another process than $1.last
#   work_start NAME        once and the holder of locks work on mount NAME, until work_ends: results, each of them saw nothing
#                          of what happened, and both mounts see the same (the other one is b)
#   kill_loop NAME N PID.. kills the daemon N times, a moment apart, while all of PID run; prints how often

daemon_pid() {
	local holder f
	holder=$(cluster_pid "$1") || return 1
	for f in /proc/[0-9]*/status; do
		if grep -q "^PPid:[[:space:]]*$holder\$" "$f" && ! grep -q '^State:.*Z' "$f"; then
			f=${f#/proc/}
			echo "${f%/status}"
			return 0
		fi
	done 2>/dev/null
	return 1
}
daemon_kill() {
	local pid
	pid=$(daemon_pid "$1") && kill -KILL "$pid" 2>/dev/null
}
daemon_answers() {
	timeout 5 "$T_BIN/claudefs" status --json "$T_DIR/$1" >/dev/null 2>&1
}
kill_loop() {
	local name=$1 n=$2 i=0 t pid
	shift 2
	while [ "$i" -lt "$n" ]; do
		t=$((RANDOM % 150 + 20))
		sleep "$((t / 100)).$(printf %02d $((t % 100)))"
		for pid; do ! tap_gone "$pid" || break 2; done
		daemon_kill "$name" && i=$((i + 1))
	done
	echo "$i"
}
tier_of() { # NAME KEY: of the persist tier
	"$T_BIN/claudefs" tier --json "$T_DIR/$1" | python3 -c "import json, sys; print(json.load(sys.stdin)['persist']['$2'])"
}
persist_works() {
	"$T_BIN/claudefs" doctor --json | python3 -c "
import json, sys
f = [f for f in json.load(sys.stdin)['features'] if f['feature'] == 'tier persist'][0]
print(f['kernel'])
sys.exit(0 if f['used'] else 1)"
}
work_start() { # NAME
	"$T_PROGS/once" run --dir "$T_DIR/$1/once" --procs 3 >"$T_DIR/once.out" 2>&1 &
	once=$!
	cleanup stop_pid $once 1
	"$T_PROGS/once" lock --dir "$T_DIR/$1" >"$T_DIR/lock.out" 2>&1 &
	lock=$!
	cleanup stop_pid $lock 1
	wait_for 20 grep -q locked "$T_DIR/lock.out"
}
work_ends() { # NAME
	local p rc
	for p in "$once once" "$lock lock"; do
		rc=0
		kill -TERM "${p% *}" && wait_for 60 tap_gone "${p% *}"
		wait "${p% *}" || rc=$?
		is "$rc" 0 "${p#* }: saw nothing of it" || diag "$(tail -n 5 "$T_DIR/${p#* }.out")"
	done
	diff -r --no-dereference "$T_DIR/$1/once" "$T_DIR/b/once" >"$T_DIR/diff" 2>&1 && ok "both mounts see the same" ||
		not_ok "both mounts see the same" "$(head -n 5 "$T_DIR/diff")"
}
