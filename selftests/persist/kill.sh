#!/bin/bash
# kill -9 of the daemon, again and again, under a load that keeps files open: the mount goes on. Every operation is done once, locks are
# held and waited for throughout, no byte that write(2) took is lost, another mount sees the same, and nothing is left in the end.
# timeout: 500
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/persist/lib.sh
. "$T_TOP/selftests/persist/lib.sh"
cluster_real || skip_all "there is no client to kill"
why=$(persist_works) || skip_all "$why"
kills=${T_KILLS-25}

start() { # NAME COMMAND...: in the background, output in NAME.out
	local name=$1
	shift
	"$@" >"$T_DIR/$name.out" 2>&1 &
	pids+=($!)
	cleanup stop_pid $! 1
}
ends() { # PID NAME WHAT: told to end, it does, with 0
	local rc=0
	kill -TERM "$1" 2>/dev/null
	wait_for 60 tap_gone "$1" || diag "$2 hangs in $(cat "/proc/$1/wchan")"
	tap_gone "$1" || kill -KILL "$1"
	wait "$1" || rc=$?
	is "$rc" 0 "$3" || diag "$(tail -n 5 "$T_DIR/$2.out")"
}

cluster_start
cluster_mount a persist,persist_deaths=4000
cluster_mount b
wait_for 20 daemon_answers a
is "$(tier_of a state)" on "the mount is held"
pids=()
start once "$T_PROGS/once" run --dir "$T_DIR/a/once" --procs 3
start lock "$T_PROGS/once" lock --dir "$T_DIR/a"
wait_for 20 grep -q locked "$T_DIR/lock.out"
start wait "$T_PROGS/once" wait --dir "$T_DIR/a"	# of the same session: waits there, and here
waiter=$!
n=$(kill_loop a "$kills" "${pids[@]}")
is "$n" "$kills" "$n times killed, and everybody works on"
try "locks are held, as another mount sees it" "$T_PROGS/once" held --dir "$T_DIR/b"
! tap_gone "$waiter" && ok "who waits for a lock waits still" || not_ok "who waits for a lock waits still" "$(cat "$T_DIR/wait.out")"
ends "${pids[1]}" lock "who held the locks saw nothing of it"
rc=0
wait_for 30 tap_gone "$waiter" && wait "$waiter" || rc=$?
is "$rc" 0 "and who waited has the lock now"
ends "${pids[0]}" once "every operation was done once"
diag "$(grep '^#' "$T_DIR/once.out" | tr '\n' ' ')"
wait_for 20 daemon_answers a
is "$(tier_of a deaths)" "$kills" "the mount counts its deaths"
diff -r --no-dereference "$T_DIR/a/once" "$T_DIR/b/once" >"$T_DIR/diff" 2>&1 && ok "both mounts see the same" ||
	not_ok "both mounts see the same" "$(head -n 5 "$T_DIR/diff")"
if grep -q 'fenced' "$T_DIR/claudefsd.log"; then not_ok "no session was lost" "$(grep fenced "$T_DIR/claudefsd.log")"; else ok "no session was lost"; fi

mkdir "$T_DIR/oracle"
for seed in ${T_SEEDS-31}; do
	pids=()
	start model "$T_PROGS/model" --seed "$seed" --ops "${T_OPS-3000}" --procs 4 --noise 2 --dirs "$T_DIR/a" "$T_DIR/b" --oracle "$T_DIR/oracle"
	n=$(kill_loop a 1000 $!)
	rc=0
	wait $! || rc=$?
	is "$rc" 0 "model, seed $seed: as a plain directory, $n times killed" || diag "$(grep -v '^ok' "$T_DIR/model.out" | head -n 30)"
done
for seed in ${T_SEEDS-41}; do
	pids=()
	start fsx "$T_PROGS/fsx" --seed "$seed" --ops "${T_OPS-3000}" "$T_DIR/a/fsx$seed" "$T_DIR/b/fsx$seed"
	n=$(kill_loop a 1000 $!)
	rc=0
	wait $! || rc=$?
	is "$rc" 0 "fsx on both mounts, seed $seed: $n times killed" || diag "$(grep -v '^ok' "$T_DIR/fsx.out" | head -n 30)"
done
! grep -h 'No such device\|not connected\|ENOTCONN' "$T_DIR"/*.out && ok "nobody ever saw the mount disconnected" || not_ok "nobody ever saw the mount disconnected"
cluster_end
done_testing
