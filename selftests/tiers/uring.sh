#!/bin/bash
# FUSE over io_uring: where it is off the mount says so and works; where it is on, all requests come by rings, and POSIX checks, the
# model and two contending mounts give what they give without it. More callers wait for locks than a queue has threads, on
# one CPU, and nobody else is kept waiting. Unmount, SIGTERM with open files, kill -9 and an abort by the kernel end as they should.
# timeout: 300
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/lib/uring.sh
. "$T_TOP/selftests/lib/uring.sh"
uring_need
CPU=$(taskset -cp $$ | sed 's/.*: *//; s/[-,].*//')

answers() { claudefs tier "$T_DIR/$1"; } # the control socket comes a moment after the mount
tier() { wait_for 20 answers "$1"; claudefs tier --json "$T_DIR/$1" | python3 -c "import json, sys; print(json.load(sys.stdin)['uring'].get('$2', ''))"; }
open_files() { # NAME: the connection of a mount has somebody who sleeps in it
	exec {held}>"$T_DIR/$1/held"
}

cluster_start

# ---- off ------------------------------------------------------------------------------------------------
uring_with N cluster_mount a uring=auto
is "$(tier a state): $(tier a why)" "unavailable: switched off in the kernel (fuse.enable_uring=N)" "auto without it says why"
try "and works" sh -c "echo yes >'$T_DIR/a/plain' && grep -q yes '$T_DIR/a/plain'"
cluster_umount a
mkdir -p "$T_DIR/no"
out=$(uring_with N timeout 30 claudefs mount -o uring=on "$CLUSTER_ADDR" "$T_DIR/no" 2>&1)
like "$?: $out" "^32: .*'uring=on': switched off in the kernel" "on without it fails with the reason"

# ---- the same results --------------------------------------------------------------------------------------
uring_with Y cluster_mount a uring=auto
uring_with Y cluster_mount b uring=on
is "$(tier a state) $(tier b state)" "on on" "both mounts have their rings"
before=$(tier a requests)
try "work on it" sh -c "cd '$T_DIR/a' && mkdir w && cp -r '$T_TOP/selftests/lib' w/ && diff -r '$T_TOP/selftests/lib' w/lib && rm -r w"
[ $(($(tier a requests) - before)) -ge 50 ] && ok "its requests came by rings" || not_ok "its requests came by rings" "$(tier a requests)"
fails "the kernel has no way back" claudefs tier "$T_DIR/a" uring off
is "$(tier a state)" on "so it stays on"
for prog in posix_names posix_locks; do tap_from "$T_PROGS/$prog" "$T_DIR/a"; done
mkdir "$T_DIR/oracle"
tap_from "$T_PROGS/model" --seed 31 --ops 400 --procs 4 --noise 2 --dirs "$T_DIR/a" "$T_DIR/b" --oracle "$T_DIR/oracle"
tap_from "$T_PROGS/contend" --procs 4 --seconds 1 "$T_DIR/a" "$T_DIR/b" append names_come_and_go one_winner count_flock lock_signal apart

# ---- waits ---------------------------------------------------------------------------------------------
exec {gate}>"$T_DIR/a/gate"
flock -x "$gate"
waiters=()
for _ in $(seq 100); do
	taskset -c "$CPU" flock -x "$T_DIR/a/gate" true {gate}>&- &
	waiters+=($!)
done
waiting() { [ "$(tier a waits)" -ge 100 ]; }
try "100 callers wait for a lock" wait_for 30 waiting
try "others on their CPU are served" timeout 20 taskset -c "$CPU" sh -c "for i in 1 2 3 4 5 6 7 8; do echo \$i >'$T_DIR/a/w'\$i && cat '$T_DIR/a/w'\$i; done"
kill -KILL "${waiters[0]}" && wait "${waiters[0]}" 2>/dev/null
is $? 137 "a waiting caller can be killed"
exec {gate}>&-
missed=0
for pid in "${waiters[@]:1}"; do wait "$pid" || missed=$((missed + 1)); done
is $missed 0 "all the others get the lock"

# ---- ends -------------------------------------------------------------------------------------------------
cluster_umount b
ok "unmounted"
open_files a
kill -TERM "$(cluster_pid a)"
sleep 0.3
exec {held}>&-
cluster_reap a 0
cluster_forget a
try "SIGTERM with an open file: the client ends when it is closed" [ ${#cluster_problems[@]} = 0 ]

uring_with Y cluster_mount a uring=on
echo 1 >"$T_DIR/a/x" && sync "$T_DIR/a/x"
while cat "$T_DIR/a/x" && touch "$T_DIR/a/y" && rm "$T_DIR/a/y"; do :; done >/dev/null 2>&1 &
busy=$!
sleep 0.3
cluster_kill9 a
wait_for 20 tap_gone $busy && ok "kill -9: who is in a call gets an error" || not_ok "kill -9: who is in a call gets an error"
kill -KILL $busy 2>/dev/null
wait $busy 2>/dev/null

uring_with Y cluster_mount a uring=on
is "$(cat "$T_DIR/a/x")" 1 "what was saved is there at the next mount"
ctl=$T_DIR/ctl
mkdir "$ctl"
mount -t fusectl none "$ctl"
minor=$(awk -v m="$T_DIR/a" '$5 == m {split($3, d, ":"); print d[2]}' /proc/self/mountinfo)
open_files a
echo 1 >"$ctl/$minor/abort"
fails "aborted by the kernel: calls fail" timeout 10 stat "$T_DIR/a/x"
exec {held}>&-
umount "$ctl"
wait_for 40 tap_gone "$(cluster_pid a)" && ok "and the client ends by itself" || not_ok "and the client ends by itself"
umount -l "$T_DIR/a" 2>/dev/null
cluster_forget a
wait "$(cluster_pid a)" 2>/dev/null
rm -f "$T_DIR/a.pid"
cluster_end
done_testing
