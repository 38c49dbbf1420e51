#!/bin/bash
# server_basic.sh: claudefsd by itself, spoken to in the bare protocol: what it answered survives kill -9, the loss of the
# state directory, and a machine that seems to have crashed; checkpoints; daemon, signals, notifications.
# timeout: 300
. "$T_TOP/selftests/lib/tap.sh"
[ -x "$T_BIN/claudefsd" ] || skip_all "no claudefsd in $T_BIN"
raw=$T_PROGS/rawclient
A=127.0.0.1:9520
[ "$T_ISOLATED" != net ] || ip link set lo up

start() { # [ARGS...]: returns when it serves; $pid
	: >"$T_DIR/serving"
	"$T_BIN/claudefsd" --listen $A --state-dir "$T_DIR/state" --target "$T_DIR/t.img" --config "$T_DIR/c.conf" "$@" \
		>"$T_DIR/serving" 2>&1 &
	pid=$!
	wait_for 30 grep -q 'serving on' "$T_DIR/serving" || { not_ok "claudefsd starts" "$(cat "$T_DIR/serving")"; exit 1; }
}
kill9() {
	cat "$T_DIR/serving" >>"$T_DIR/claudefsd.log"
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null
}
term() { # WHAT
	stop_pid "$pid" 15
	wait "$pid"
	is $? 0 "$1"
	cat "$T_DIR/serving" >>"$T_DIR/claudefsd.log"
}
status() { "$raw" $A status | python3 -c "import json, sys; d = json.load(sys.stdin); print(d$1)"; }
cleanup eval 'kill -KILL $pid 2>/dev/null || :'

printf '[server]\nlease_ms = 1000\ncheckpoint_bytes = 1M\n' >"$T_DIR/c.conf"
"$T_BIN/claudefs" format --size 2G "$T_DIR/t.img" >"$T_DIR/format.log" 2>&1 ||
	{ not_ok "format" "$(cat "$T_DIR/format.log")"; exit 1; }

start
like "$("$raw" $A map)" "epoch 1 pgs 64.target 0 $A" "the first start makes a cluster map"
try "a file of three objects is written" "$raw" $A write one 9000000 1
try "and read back" "$raw" $A check one 9000000 1
is "$(status '["raft"]["role"]')" leader "STATUS tells the role"
is "$(status '["node"]["state"]')" serving "and the state"
term1=$(status '["raft"]["term"]')
kill9
start
try "after kill -9 the file is there" "$raw" $A check one 9000000 1
is "$(status '["raft"]["term"] > '"$term1")" True "a new term has begun"
is "$(status '["node"]["restore_ms"]')" 0 "the working copy of the metadata was good"

# answered means durable: kill -9 in the middle of creates
"$raw" $A make crash 100000 >"$T_DIR/made" 2>/dev/null &
maker=$!
wait_for 20 eval '[ "$(wc -l <"$T_DIR/made")" -ge 300 ]'
kill9
wait "$maker" 2>/dev/null
made=$(tail -n 1 "$T_DIR/made")
start
is "$("$raw" $A count crash "$made")" "$made" "all of $made answered creates survived kill -9"

# the state directory is only a cache
term "SIGTERM ends it with status 0"
rm -rf "$T_DIR/state"
start
is "$("$raw" $A count crash "$made")" "$made" "after the loss of the state directory, all files are there"
try "and their bytes" "$raw" $A check one 9000000 1

# as if the machine had lost power: the working copy is of another boot and was not closed
kill9
if [ -f "$T_DIR/state/shard0/live" ]; then
	sed -i 's/[0-9a-f]/0/g' "$T_DIR/state/shard0/live"
	dd if=/dev/urandom of="$T_DIR/state/shard0/data.mdb" bs=4096 count=64 conv=notrunc status=none
	ok "the working copy has a mark of its boot"
else
	not_ok "the working copy has a mark of its boot" "$(ls "$T_DIR/state/shard0")"
fi
start
is "$("$raw" $A count crash "$made")" "$made" "a working copy of another boot is made anew"

# checkpoints: 1 MiB of log
"$raw" $A make "a-rather-long-name-that-fills-the-log-with-its-bytes-so-that-a-checkpoint-is-due-before-long-" 6000 >"$T_DIR/made2" ||
	not_ok "creates go on during checkpoints" "$(tail -n 1 "$T_DIR/made2")"
wait_for 20 eval '[ "$(status "[\"raft\"][\"snapshot_index\"]")" -gt 0 ]'
like "$(status '["raft"]["snapshot_index"] > 100')" True "a checkpoint was taken"
is "$(status '["raft"]["log_bytes"] < 3000000')" True "and the log is short again"
kill9
rm -rf "$T_DIR/state"
start
is "$(grep -c 'restoring shard 0 from its checkpoint' "$T_DIR/serving")" 1 "the metadata comes from the checkpoint"
is "$("$raw" $A count crash "$made")" "$made" "which has the old files"
is "$("$raw" $A count a-rather-long-name-that-fills-the-log-with-its-bytes-so-that-a-checkpoint-is-due-before-long- 6000)" 6000 \
	"and, with the log, the new ones"
try "a file is removed" "$raw" $A rm one
fails "and cannot be read" "$raw" $A check one 9000000 1

# a target that was put back to an older state has lost what was acknowledged: that must not go unnoticed
term "SIGTERM ends it again"
cp --sparse=always "$T_DIR/t.img" "$T_DIR/old.img"
cp -a "$T_DIR/state" "$T_DIR/old-state"
start
"$raw" $A make later 50 >"$T_DIR/later" || not_ok "creates" "$(tail -n 1 "$T_DIR/later")"
term "and once more"
mv "$T_DIR/t.img" "$T_DIR/new.img"
cp --sparse=always "$T_DIR/old.img" "$T_DIR/t.img"
out=$(timeout 20 "$T_BIN/claudefsd" --listen $A --state-dir "$T_DIR/state" --target "$T_DIR/t.img" 2>&1 >/dev/null)
like "$out" 'journal .* ends at [0-9]+, but the state .* has applied [0-9]+' "an older target under a newer state is refused"
mv "$T_DIR/new.img" "$T_DIR/t.img"
rm -rf "$T_DIR/state"
mv "$T_DIR/old-state" "$T_DIR/state"
start
is "$("$raw" $A count later 50)" 50 "an older state under a newer target catches up from the log"

# the same port and target at another address: clients are told
term "it ends again with status 0"
start --advertise localhost:9520
like "$("$raw" $A map)" "epoch 2 pgs 64.target 0 localhost:9520" "a new address makes a new map"
term "it ends a third time with status 0"

# service manager, log file, pid file, daemon
cat >"$T_DIR/notify.py" <<-'END'
	import socket, sys
	s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
	s.bind(sys.argv[1])
	while True:
	    m = s.recv(4096).decode()
	    print(m, flush=True)
	    if m == "STOPPING=1":
	        break
END
python3 "$T_DIR/notify.py" "$T_DIR/n.sock" >"$T_DIR/notify.log" &
notify=$!
wait_for 5 test -S "$T_DIR/n.sock"
NOTIFY_SOCKET=$T_DIR/n.sock WATCHDOG_USEC=400000 timeout 60 "$T_BIN/claudefsd" --daemon --config "$T_DIR/c.conf" --listen $A \
	--state-dir "$T_DIR/state" --target "$T_DIR/t.img" --log-file "$T_DIR/d.log" --pid-file "$T_DIR/d.pid" >"$T_DIR/d.out" 2>&1
is $? 0 "--daemon returns 0"
is "$(cat "$T_DIR/d.out")" "" "and says nothing"
pid=$(cat "$T_DIR/d.pid")
try "it serves by then" "$raw" $A map
mv "$T_DIR/d.log" "$T_DIR/d.log.1"
kill -HUP "$pid"
try "SIGHUP opens the log anew" wait_for 5 grep -q 'opened anew' "$T_DIR/d.log"
wait_for 5 grep -q WATCHDOG "$T_DIR/notify.log"
try "SIGTERM ends it" stop_pid "$pid" 15
wait "$notify"
is "$(sort -u "$T_DIR/notify.log" | tr '\n' ' ')" "READY=1 STOPPING=1 WATCHDOG=1 " "the service manager was told"
fails "the pid file is gone" test -e "$T_DIR/d.pid"
is "$(grep -c 'assertion failed' "$T_DIR/claudefsd.log" "$T_DIR/d.log" "$T_DIR/d.log.1" | awk -F: '{n += $2} END {print n}')" 0 \
	"no assertion failed"
done_testing
