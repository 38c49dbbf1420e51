#!/bin/bash
# A service manager keeps the descriptors of a persistent mount: SIGKILL to holder, to daemon and holder, again and again under load,
# and the holder that it starts goes on with the mount. Every operation is done once, locks stay, and nothing is kept after the unmount.
# timeout: 300
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/persist/lib.sh
. "$T_TOP/selftests/persist/lib.sh"
cluster_real || skip_all "there is no client to kill"
why=$(persist_works) || skip_all "$why"
log=$T_DIR/manager.log

holder_pid() { sed -n 's/^started //p' "$log" | tail -n 1; }
said() { grep -c "^$1" "$log"; }
is_up() { [ "$(said 'hears READY=1')" -ge "$1" ]; }

cluster_start
mkdir "$T_DIR/a" "$T_DIR/cache-a"
python3 "$T_TOP/selftests/persist/manager.py" "$T_DIR/notify" "$T_BIN/claudefs" mount -f \
	-o "persist,persist_deaths=4000,cachedir=$T_DIR/cache-a" "$CLUSTER_ADDR" "$T_DIR/a" >"$log" 2>"$T_DIR/client-a.log" &
manager=$!
cleanup stop_pid $manager 1
cleanup eval '! mountpoint -q "$T_DIR/a" || umount -l "$T_DIR/a"'
wait_for 30 is_up 1 || { not_ok "the mount is told to be ready" "$(cat "$log" "$T_DIR/client-a.log")"; exit 1; }
holder_pid >"$T_DIR/a.pid"
cluster_mount b
try "descriptors are kept" wait_for 10 grep -q 'keeps claudefs-thread' "$log"
is "$(grep -c '^keeps claudefs-\(state\|fuse\|cache\|thread\) 1' "$log")" 4 "each of the four, once"

work_start a
for i in 1 2 3 4 5 6; do
	sleep 0.$((RANDOM % 9 + 1))
	up=$(said 'hears READY=1')
	case $((i % 3)) in
	0) daemon_kill a; kill -KILL "$(holder_pid)"; what="daemon and holder" ;;
	1) kill -KILL "$(holder_pid)"; what="the holder" ;;
	2) daemon_kill a; what="the daemon" ;;
	esac
	try "$i: $what killed, the mount is taken over" wait_for 30 is_up $((up + 1))
	holder_pid >"$T_DIR/a.pid"
	try "$i: and answers" wait_for 20 daemon_answers a
done
is "$(said died)" 4 "the manager had to start four holders anew"
try "locks are held, as another mount sees it" "$T_PROGS/once" held --dir "$T_DIR/b"
out=$(claudefs upgrade "$T_DIR/a" 2>&1)
like "$?: $out" "^0: .*goes on where" "a holder that was started anew upgrades its daemon"
work_ends a
! grep -q fenced "$T_DIR/claudefsd.log" && ok "no session was lost" || not_ok "no session was lost" "$(grep fenced "$T_DIR/claudefsd.log")"
try "umount" umount "$T_DIR/a"
try "ends the service" wait_for 30 tap_gone $manager
is "$(tail -n 1 "$log")" "ended 0 keeping 0" "which leaves nothing with the manager" || diag "$(cat "$log")"
cluster_end
done_testing
