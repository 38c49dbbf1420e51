# tap.sh: what test scripts source: `. "$T_TOP/selftests/lib/tap.sh"`. Speaks TAP, cleans up at the end.
# shellcheck shell=bash
#
#   plan N                        how many tests follow; without it, done_testing at the end prints the plan
#   ok "what"; not_ok "what"      one result; further arguments to not_ok are printed as diagnosis
#   skip "reason" ["what"]        one result; skip_all "reason" skips the whole script and exits
#   is GOT WANTED "what"          compares strings
#   like GOT REGEX "what"         matches an extended regular expression
#   try "what" COMMAND...         passes if COMMAND exits 0; its output is shown only when it does not
#   fails "what" COMMAND...       passes if COMMAND exits with 1..125, that is, fails without crashing
#   cleanup COMMAND...            runs COMMAND at exit, last registered first, whatever happens
#   wait_for SECONDS COMMAND...   repeats COMMAND until it succeeds; 1 when time is up: T_SLOW (1) times SECONDS
#   slow N                        prints N times T_SLOW: a limit of time, on this machine
#   long USUAL LONG               prints USUAL, or with T_LONG=1 LONG: how much of something is done
#   stop_pid PID [SECONDS]        TERM, wait, then KILL (returns 1 if it came to that)
#   diag TEXT...                  a comment in the output
# A script that dies half way fails: its plan is not met, or its exit status is not 0.
set -u
: "${T_DIR:?run this through selftests/run.sh}"
tap_count=0 tap_planned='' tap_failed=0 tap_done='' tap_cleanups=()

diag() { printf '%s\n' "$*" | sed 's/^/# /'; }
plan() { tap_planned=$1; echo "1..$1"; }
ok() { tap_count=$((tap_count + 1)); echo "ok $tap_count - $1"; }
not_ok() {
	tap_count=$((tap_count + 1)) tap_failed=$((tap_failed + 1))
	echo "not ok $tap_count - $1"
	shift
	[ $# = 0 ] || diag "$*"
	return 1
}
skip() { tap_count=$((tap_count + 1)); echo "ok $tap_count - ${2-} # SKIP $1"; }
skip_all() { tap_done=1; echo "1..0 # SKIP $1"; exit 0; }
is() {
	if [ "$1" = "$2" ]; then ok "$3"; else not_ok "$3" "got:    $1"$'\n'"wanted: $2"; fi
}
like() {
	if [[ $1 =~ $2 ]]; then ok "$3"; else not_ok "$3" "got:     $1"$'\n'"matches: $2"; fi
}
try() {
	local what=$1 out rc
	shift
	out=$("$@" 2>&1) && rc=0 || rc=$?
	if [ "$rc" = 0 ]; then ok "$what"; else not_ok "$what" "exit $rc: $*"$'\n'"$out"; fi
}
fails() {
	local what=$1 out rc
	shift
	out=$("$@" 2>&1) && rc=0 || rc=$?
	if [ "$rc" -ge 1 ] && [ "$rc" -le 125 ]; then ok "$what"; else not_ok "$what" "exit $rc: $*"$'\n'"$out"; fi
}
done_testing() { [ "$tap_planned" ] || plan "$tap_count"; tap_done=1; }
slow() { echo $(($1 * ${T_SLOW:-1})); }
long() { if [ "${T_LONG:-0}" != 0 ]; then echo "$2"; else echo "$1"; fi; }
cleanup() { tap_cleanups+=("$(printf '%q ' "$@")"); }
wait_for() {
	local end=$((SECONDS + $1 * ${T_SLOW:-1}))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.05
	done
}
stop_pid() {
	kill -TERM "$1" 2>/dev/null || return 0
	if wait_for "${2-10}" tap_gone "$1"; then return 0; fi
	kill -KILL "$1" 2>/dev/null
	wait_for 5 tap_gone "$1"
	return 1
}
tap_gone() { [ ! -e "/proc/$1" ] || grep -q '^State:.*Z' "/proc/$1/status"; }
tap_exit() {
	local rc=$? i
	trap - EXIT
	for ((i = ${#tap_cleanups[@]} - 1; i >= 0; i--)); do
		eval "${tap_cleanups[i]}" >"$T_DIR/cleanup.log" 2>&1 || diag "cleanup failed: ${tap_cleanups[i]}: $(tail -n 1 "$T_DIR/cleanup.log")"
	done
	if [ -z "$tap_done" ] && [ -z "$tap_planned" ]; then diag "ended without done_testing"; [ "$rc" != 0 ] || rc=1; fi
	[ "$rc" != 0 ] || [ "$tap_failed" = 0 ] || rc=1
	exit "$rc"
}
trap tap_exit EXIT
trap 'exit 143' TERM INT HUP
