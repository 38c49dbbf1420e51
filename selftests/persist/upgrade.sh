#!/bin/bash
# `claudefs upgrade` under load: the process of a mount is replaced, and nobody who uses it notices. A program that cannot take over is
# refused, with the reason, and the old one stays. Without its holder a mount goes on as an ordinary one; one whose daemon dies too often ends.
# timeout: 300
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/persist/lib.sh
. "$T_TOP/selftests/persist/lib.sh"
cluster_real || skip_all "there is no client to replace"
why=$(persist_works) || skip_all "$why"

cluster_start
for other in uring passthrough; do
	out=$(claudefs mount -f -o "persist,$other=on" "$CLUSTER_ADDR" "$T_DIR" 2>&1)
	is "$?: $out" "32: claudefs: options 'persist' and '$other=on' exclude each other (see mount.claudefs(8))" "not with $other=on"
done
out=$(claudefs mount -f -o persist=perhaps "$CLUSTER_ADDR" "$T_DIR" 2>&1)
like "$out" "'persist=perhaps': must be auto, on or off" "persist=perhaps is refused"
cluster_mount a persist
cluster_mount b
wait_for 20 daemon_answers a

# ---- under load
work_start a
for i in 1 2 3 4 5; do
	sleep 0.7
	old=$(daemon_pid a)
	out=$(claudefs upgrade "$T_DIR/a" 2>&1)
	like "$?: $out" "^0: .*process $(daemon_pid a) goes on where $old was" "upgrade $i"
done
try "locks are held, as another mount sees it" "$T_PROGS/once" held --dir "$T_DIR/b"
work_ends a
is "$(tier_of a upgrades) $(tier_of a deaths)" "5 0" "five upgrades are counted, and no death"

# ---- what cannot take over: as if the mount had been made by a program that negotiates, or keeps its state, otherwise
alter() { # OFFSET: one bit of the state that the holder keeps (client/persist_state.h)
	python3 - "$(cluster_pid a)" "$1" <<-'PY'
		import os, sys
		d = "/proc/%s/fd/" % sys.argv[1]
		f = [d + n for n in os.listdir(d) if "claudefs-state" in os.readlink(d + n)][0]
		with open(f, "r+b", buffering=0) as m:
		    m.seek(int(sys.argv[2]))
		    b = m.read(1)[0]
		    m.seek(int(sys.argv[2]))
		    m.write(bytes([b ^ 1]))
	PY
}
old=$(daemon_pid a)
alter 692	# init_out: flags
out=$(claudefs upgrade "$T_DIR/a" 2>&1)
like "$?: $out" "^1: .*does not take over: the mount has FUSE flags [0-9a-f]+, this program negotiates" "other flags are refused"
alter 692
alter 8		# version
out=$(claudefs upgrade "$T_DIR/a" 2>&1)
like "$?: $out" "^1: .*does not take over: its state has version 0, this program knows 1" "another version of the state is refused"
alter 8
is "$(daemon_pid a)" "$old" "the old process stays"
try "and serves" sh -c "echo still >'$T_DIR/a/still' && grep -q still '$T_DIR/b/still'"
try "until it is replaced after all" claudefs upgrade "$T_DIR/a"
cluster_umount a
[ -z "$(pgrep -f "claudefs mount.*$T_DIR/a$")" ] && ok "no process of the mount is left" || not_ok "no process of the mount is left" "$(pgrep -af claudefs)"

# ---- without the holder
cluster_mount c persist
wait_for 20 daemon_answers c
exec 7<>"$T_DIR/b/still"
daemon=$(daemon_pid c)
kill -KILL "$(cluster_pid c)"
cluster_reap c 137
try "the holder is killed, the mount goes on" sh -c "echo more >'$T_DIR/c/still' && grep -q more '$T_DIR/b/still'"
wait_for 10 grep -q 'the holder has gone' "$T_DIR/client-c.log"
is "$(tier_of c holder_gone)" 1 "and says that it will not outlive its daemon"
out=$(claudefs upgrade "$T_DIR/c" 2>&1)
like "$?: $out" "^1: .*the holder of the mount has gone" "it cannot be upgraded"
try "it can be unmounted" claudefs umount "$T_DIR/c"
cluster_forget c
wait_for 20 tap_gone "$daemon" && ok "and its process ends" || not_ok "and its process ends"
exec 7>&-

# ---- too many deaths
cluster_mount d persist,persist_deaths=2
wait_for 20 daemon_answers d
for i in 1 2 3; do
	daemon=$(daemon_pid d)
	kill -KILL "$daemon"
	[ "$i" = 3 ] || wait_for 10 sh -c "grep -c 'goes on with the mount' '$T_DIR/client-d.log' | grep -qx $i"
	[ "$i" = 3 ] || try "death $i: the mount goes on" timeout 20 ls "$T_DIR/d"
done
cluster_reap d 32
is "$(grep -c 'died more than 2 times within a minute: the mount at' "$T_DIR/client-d.log")" 1 "the third death within a minute is the last"
out=$(timeout 20 ls "$T_DIR/d" 2>&1)
like "$out" "not connected" "the connection has ended"
umount -l "$T_DIR/d"
cluster_forget d
cluster_end
done_testing
